//! `docs/api/keys.json` held against a real Keys Service: what it describes is what happens, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use aziot_core::api::keys;
use aziot_core::limits;
use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::{Response, eventually};
use aziot_tests::fixture::{self, A, B, C, D, HANDLE_KEY, Keyd};
use aziot_tests::openapi::probe::{Probe, Routes, routes};
use aziot_tests::openapi::{Document, Operation};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::{Value, json};

/// The key pair of the conformance vectors (RFC 6979, A.2.5) as PKCS#8; handle ⟨B⟩ is for it.
const KEY_PAIR: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgya+p2EW6dRZrXCFX
Z7HWk05Qw9s26JsSe4piKxIPZyGhRANCAARg/tS6JVqdMclh63TGNW1owEm4kjth
+mzmaWIuYPKftnkD/hAIuLyZpBrp6VYovGTy8bIMLX6fUXejwpTURiKZ
-----END PRIVATE KEY-----
";

/// The version that clients of release 1.6.0 ask for.
const VERSION: &str = "2021-05-01";

fn document() -> Document {
    Document::load("keys")
}

fn probe(document: &Document) -> Probe<'_> {
    Probe::new(document, &keys::API, VERSION)
}

/// A root with the keys of the conformance vectors.
fn root() -> Root {
    let root = Root::new();
    fixture::install(&root);
    fixture::write_key(&root, "kp", KEY_PAIR.as_bytes());
    root
}

/// The first example of a body, if the operation takes one.
fn body(operation: &Operation) -> Option<&Value> {
    let media = operation.request.as_ref()?;
    Some(media.examples.values().next().unwrap())
}

#[test]
fn the_document_and_the_routes_agree() {
    // The names of parameters may differ.
    let normalised = |routes: Routes| -> Routes {
        let routes = routes.into_iter().map(|(method, path, versions)| {
            let before = path
                .split_once('{')
                .map(|(before, _)| format!("{before}{{}}"));
            (method, before.unwrap_or(path), versions)
        });
        routes.collect()
    };
    let documented = normalised(document().routes());
    let mut routed = normalised(routes(&keys::API));
    // Exists to say that a symmetric key cannot be moved.
    routed.retain(|(method, path, _)| (method.as_str(), path.as_str()) != ("POST", "/key/{}"));
    assert_eq!(documented, routed);
}

/// An example of a request is sent as it stands to a service with the keys of the vectors. If an error has an example of the
/// same name, it must come to that, otherwise to a success, and to the example of that name if the answer is not random.
#[test]
fn ks_12_examples_are_what_happens() {
    let document = document();
    let mut probe = probe(&document);
    let mut compared = 0;
    for operation in document.operations() {
        let Some(media) = &operation.request else {
            continue;
        };
        for (name, body) in &media.examples {
            let keyd = Keyd::on(root());
            let target = probe.target(operation);
            let response = probe.send(&keyd.daemon, operation, &target, Some(body));
            let expected = operation.example(name);
            let Some((status, example)) = expected else {
                assert!(matches!(response.status, 200 | 204), "{name}: {response}");
                continue;
            };
            assert_eq!(
                response.status, status,
                "{} {name}: {response}",
                operation.id
            );
            let random = example.get("keyHandle").is_some() || name == "ecdsa";
            if !random {
                assert_eq!(&response.json(), example, "{} {name}", operation.id);
                compared += 1;
            }
        }
    }
    // Not fewer than there were when this was written.
    assert!(compared >= 15, "{compared} examples were compared");
}

#[test]
fn every_status_of_every_operation() {
    let document = document();
    let mut probe = probe(&document);
    successes(&document, &mut probe);
    dispatch_errors(&document, &mut probe);
    probe.refused_heads(&Keyd::on(root()).daemon);
    let hasty = Keyd::launch(root(), |launch| launch.time_scale(0.02));
    probe.stalled_bodies(&hasty.daemon);
    damaged_keys(&document, &mut probe);
    too_much_at_once(&mut probe);
    // Needs a user other than root that no principal names.
    let refused = users::can_change("refusing users");
    if refused {
        probe.strangers(&Keyd::on(root()).daemon, body);
    }
    let mut missing = probe.missing();
    // Needs a report of the key library to fail, which ours does for want of memory only.
    missing.retain(|promise| promise != "status 500");
    if !refused {
        missing.retain(|promise| !promise.ends_with(" 401"));
    }
    assert_eq!(missing, Vec::<String>::new(), "documented, but not seen");
}

/// Every operation under every version that has it.
fn successes(document: &Document, probe: &mut Probe<'_>) {
    let keyd = Keyd::on(root());
    let mut succeed = |id: &str, parameter: &str, body: Option<Value>| {
        let operation = document.named(id);
        let mut last = None;
        for version in &operation.versions {
            if let Some(body) = &body {
                let found = operation.request_violations(body);
                assert!(found.is_empty(), "{id}: {found:?}");
            }
            let target = operation.target(parameter, version);
            let response = probe.send(&keyd.daemon, operation, &target, body.as_ref());
            assert!(
                matches!(response.status, 200 | 204),
                "{id} {version}: {response}"
            );
            last = Some(response);
        }
        last.unwrap()
    };
    let handle = |handle: &str| Some(json!({ "keyHandle": handle }));
    let aead = json!({ "iv": "MTIzNDU2Nzg5MDEy", "aad": "" });

    succeed(
        "createKey",
        "",
        Some(json!({ "keyId": "k", "usage": "encrypt" })),
    );
    succeed(
        "createKey",
        "",
        Some(json!({ "keyId": "k", "keyBytes": "QUJD", "usage": "derive,sign" })),
    );
    succeed("loadKey", "imp", None);
    succeed("loadKeyPair", "kp", None);
    for (name, expected) in [
        ("algorithm", "ECDSA"),
        ("ec-curve-oid", "BggqhkjOPQMBBw=="),
        ("ec-point", "A2D+1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p+2"),
    ] {
        let response = succeed("keyPairParameter", name, handle(B));
        assert_eq!(response.member("value"), expected);
    }
    succeed(
        "createDerivedKey",
        "",
        Some(json!({ "baseKeyHandle": A, "derivationData": "" })),
    );
    succeed("exportDerivedKey", "", handle(D));
    let hmac = json!({ "message": "" });
    for key in [A, D] {
        succeed(
            "sign",
            "",
            Some(json!({ "keyHandle": key, "algorithm": "HMAC-SHA256", "parameters": hmac })),
        );
    }
    let digest = json!({ "digest": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=" });
    succeed(
        "sign",
        "",
        Some(json!({ "keyHandle": B, "algorithm": "ECDSA", "parameters": digest })),
    );
    for key in [C, D] {
        let ciphertext = succeed(
            "encrypt",
            "",
            Some(json!({ "keyHandle": key, "algorithm": "AEAD", "parameters": aead, "plaintext": "" })),
        )
        .member("ciphertext");
        succeed(
            "decrypt",
            "",
            Some(
                json!({ "keyHandle": key, "algorithm": "AEAD", "parameters": aead, "ciphertext": ciphertext }),
            ),
        );
    }

    for algorithm in ["rsa-2048", "ec-p384"] {
        let rsa = succeed(
            "createKeyPair",
            "",
            Some(json!({ "keyId": algorithm, "preferredAlgorithms": algorithm })),
        )
        .member("keyHandle");
        if algorithm == "rsa-2048" {
            for name in ["rsa-modulus", "rsa-exponent", "algorithm"] {
                succeed("keyPairParameter", name, handle(&rsa));
            }
            succeed(
                "encrypt",
                "",
                Some(json!({ "keyHandle": rsa, "algorithm": "RSA-PKCS1", "plaintext": "QUJD" })),
            );
        } else {
            succeed("keyPairParameter", "ec-curve-oid", handle(&rsa));
        }
    }

    // A move to and fro for each version, and twice deleted is as good as once.
    for version in &document.named("moveKeyPair").versions {
        for (from, to) in [("kp", "kp2"), ("kp2", "kp")] {
            let operation = document.named("moveKeyPair");
            let response = probe.send(
                &keyd.daemon,
                operation,
                &operation.target(to, version),
                Some(&json!({ "from": from })),
            );
            assert_eq!(response.status, 204, "{response}");
        }
    }
    for (id, key) in [("deleteKey", A), ("deleteKeyPair", B)] {
        let operation = document.named(id);
        for version in &operation.versions {
            let target = operation.target("", version);
            let response = probe.send(
                &keyd.daemon,
                operation,
                &target,
                Some(&json!({ "keyHandle": key })),
            );
            assert_eq!(response.status, 204, "{response}");
        }
    }
    let status = document.named("status");
    let status_target = probe.target(status);
    let response = probe.send(&keyd.daemon, status, &status_target, None);
    assert_eq!(response.status, 200);
}

/// 400, 404, 413 and 422 from before any handler.
fn dispatch_errors(document: &Document, probe: &mut Probe<'_>) {
    let keyd = Keyd::on(root());
    probe.bad_bodies(&keyd.daemon, limits::BODY_KEYS);
    for operation in document.operations() {
        probe.not_dispatched(&keyd.daemon, operation);
        assert_eq!(operation.judges_body(), operation.request.is_some());
        if operation.request.is_some() {
            let target = probe.target(operation);
            probe
                .send(&keyd.daemon, operation, &target, None)
                .assert_message(400, "missing request body");
        }
    }
}

/// 500: the key that signs handles cannot be read, and a key pair cannot be moved to where it should.
fn damaged_keys(document: &Document, probe: &mut Probe<'_>) {
    let root = root();
    let handle_key = root.key_file(HANDLE_KEY);
    std::fs::remove_file(&handle_key).unwrap();
    std::fs::create_dir(&handle_key).unwrap();
    // A directory with something in it does not give way.
    std::fs::create_dir_all(root.key_file("blocked").join("x")).unwrap();
    let keyd = Keyd::on(root);
    for operation in document.operations() {
        if operation.id == "status" {
            continue;
        }
        let parameter = match operation.id.as_str() {
            "loadKey" => "imp",
            "loadKeyPair" => "kp",
            "moveKeyPair" => "blocked",
            _ => "algorithm",
        };
        let target = operation.target(parameter, probe.version(operation));
        probe
            .send(&keyd.daemon, operation, &target, body(operation))
            .assert_message(500, "internal error");
    }
}

/// 503.
fn too_much_at_once(probe: &mut Probe<'_>) {
    // The deadlines do not come while requests are held back.
    let keyd = Keyd::launch(root(), |launch| launch.time_scale(20.0));
    probe.too_much_at_once(&keyd.daemon, "sign", limits::BODY_KEYS, "loadKey");
}

/// `GET /status` with everything in it: keys and tokens, a token that fails, and a library that cannot tell.
#[test]
fn status_is_as_documented() {
    let document = document();
    let mut probe = probe(&document);
    let operation = document.named("status");
    let mut status = |keyd: &Keyd| {
        let target = probe.target(operation);
        let response = probe.send(&keyd.daemon, operation, &target, None);
        assert_eq!(response.status, 200);
        response.json()
    };

    let site = Site::new(BackEnd::SoftHsm);
    let pair = site.pair("pair", "ec-p256");
    let working = status(&site.keyd);
    assert_eq!(working["state"], "running");
    assert_eq!(working["tokens"][0]["state"], "working", "{working}");
    let keys = working["keys"].as_array().unwrap();
    let known = keys.iter().find(|key| key["id"] == "pair");
    assert_eq!(known.unwrap()["location"], "pkcs11", "{working}");
    let _removed = site.softhsm.as_ref().unwrap().remove_all();
    eventually("the token is missed", || {
        site.ecdsa(&pair, &[1; 32]).status != 200
    });
    let failing = status(&site.keyd);
    assert_eq!(failing["state"], "degraded", "{failing}");
    assert_eq!(failing["tokens"][0]["state"], "failing", "{failing}");
    assert!(failing["reason"].is_string(), "{failing}");

    let root = root();
    let libraries = root.join("libraries");
    binaries::compile_shared(
        "thirdparty_keys.c",
        &[],
        &["-lcrypto"],
        &libraries,
        "libaziot_keys.so",
    );
    let keyd = Keyd::launch(root, |launch| launch.libraries(&libraries));
    let nothing = status(&keyd);
    assert_eq!(
        (&nothing["keys"], &nothing["tokens"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(nothing["library"]["extended"], false);
}

/// Whatever is not documented does not answer: it is 404, or the method is not allowed.
#[test]
fn ks_03_ks_04_nothing_else_answers() {
    let document = document();
    let keyd = Keyd::on(root());
    let others = [
        "/",
        "/keys",
        "/verify",
        "/version",
        "/derivedkey/import",
        "/certificates",
    ];
    // `POST /key/{id}` is there to say that only key pairs move.
    let symmetric = |method: &str, path: &str, response: &Response| {
        method == "POST" && path.starts_with("/key/") && response.status == 422
    };
    let refused = probe(&document).nothing_else(&keyd.daemon, &others, symmetric);
    assert!(refused > 500, "{refused}");
    keyd.post("/key/x", &json!({ "from": "y" }))
        .assert_message(400, "invalid type \"key\"");
}
