//! `docs/api/keys.json` held against a real Keys Service: what it describes is what happens, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::BTreeSet;

use aziot_core::api::keys;
use aziot_core::limits;
use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::{Client, Response, eventually, request};
use aziot_tests::fixture::{self, A, B, C, D, HANDLE_KEY, Keyd};
use aziot_tests::openapi::{Coverage, Document, Operation};
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

/// A root with the keys of the conformance vectors.
fn root() -> Root {
    let root = Root::new();
    fixture::install(&root);
    fixture::write_key(&root, "kp", KEY_PAIR.as_bytes());
    root
}

/// A service whose deadlines do not come while a test holds requests back.
fn patient(root: Root) -> Keyd {
    Keyd::launch(root, |launch| launch.time_scale(20.0))
}

/// Sends a request as raw bytes; the answer must be as documented.
fn exchange(coverage: &mut Coverage, keyd: &Keyd, operation: &Operation, bytes: &[u8]) -> Response {
    answer(coverage, &mut keyd.connect(), operation, bytes)
}

fn answer(
    coverage: &mut Coverage,
    client: &mut Client,
    operation: &Operation,
    bytes: &[u8],
) -> Response {
    client.send(bytes);
    let response = client.response();
    response.assert_framing();
    coverage.note(operation, &response);
    response
}

/// Sends a well-formed request for an operation.
fn send(
    coverage: &mut Coverage,
    keyd: &Keyd,
    operation: &Operation,
    target: &str,
    body: Option<&Value>,
) -> Response {
    exchange(
        coverage,
        keyd,
        operation,
        &request(&operation.method, target, body),
    )
}

/// A version that the operation has, the one of our clients if it can be.
fn version(operation: &Operation) -> &str {
    let versions = &operation.versions;
    let usual = versions.iter().find(|version| *version == VERSION);
    usual.unwrap_or(&versions[0])
}

/// The target of an operation with something in the place of its parameter.
fn target(operation: &Operation) -> String {
    let parameter = operation.path_example.as_deref().unwrap_or_default();
    operation.target(parameter, version(operation))
}

#[test]
fn the_document_and_the_routes_agree() {
    let normalised = |path: &str| match path.split_once('{') {
        Some((before, _)) => format!("{before}{{}}"),
        None => path.to_owned(),
    };
    let documented: BTreeSet<_> = document()
        .operations()
        .iter()
        .map(|operation| {
            (
                operation.method.clone(),
                normalised(&operation.path),
                operation.versions.clone(),
            )
        })
        .collect();
    let routed: BTreeSet<_> = keys::API
        .routes
        .iter()
        .flat_map(|route| {
            let versions: Vec<String> = keys::API.versions[route.since..]
                .iter()
                .map(|version| (*version).to_owned())
                .collect();
            route.methods.iter().map(move |method| {
                (
                    method.name().to_owned(),
                    normalised(route.path),
                    versions.clone(),
                )
            })
        })
        // Exists to say that a symmetric key cannot be moved.
        .filter(|(method, path, _)| (method.as_str(), path.as_str()) != ("POST", "/key/{}"))
        .collect();
    assert_eq!(documented, routed);
}

/// An example of a request is sent as it stands to a service with the keys of the vectors. If an error has an example of the
/// same name, it must come to that, otherwise to a success, and to the example of that name if the answer is not random.
#[test]
fn ks_12_examples_are_what_happens() {
    let document = document();
    let mut coverage = Coverage::default();
    let mut compared = 0;
    for operation in document.operations() {
        let Some(media) = &operation.request else {
            continue;
        };
        for (name, body) in &media.examples {
            let keyd = Keyd::on(root());
            let response = send(
                &mut coverage,
                &keyd,
                operation,
                &target(operation),
                Some(body),
            );
            let expected = operation.responses.iter().find_map(|(status, promise)| {
                Some((*status, promise.content.as_ref()?.examples.get(name)?))
            });
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
    let mut coverage = Coverage::default();
    successes(&document, &mut coverage);
    dispatch_errors(&document, &mut coverage);
    heads_that_are_refused(&document, &mut coverage);
    stalled_bodies(&document, &mut coverage);
    damaged_keys(&document, &mut coverage);
    too_much_at_once(&document, &mut coverage);
    let refused = strangers(&document, &mut coverage);
    let mut missing = coverage.missing(&document);
    // Needs a report of the key library to fail, which ours does for want of memory only.
    missing.retain(|promise| promise != "status 500");
    if !refused {
        missing.retain(|promise| !promise.ends_with(" 401"));
    }
    assert_eq!(missing, Vec::<String>::new(), "documented, but not seen");
}

/// Every operation under every version that has it.
fn successes(document: &Document, coverage: &mut Coverage) {
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
            let response = send(coverage, &keyd, operation, &target, body.as_ref());
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
            let response = send(
                coverage,
                &keyd,
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
            let response = send(
                coverage,
                &keyd,
                operation,
                &target,
                Some(&json!({ "keyHandle": key })),
            );
            assert_eq!(response.status, 204, "{response}");
        }
    }
    let status = document.named("status");
    let response = send(coverage, &keyd, status, &target(status), None);
    assert_eq!(response.status, 200);
}

/// 400, 404, 413 and 422 from before any handler.
fn dispatch_errors(document: &Document, coverage: &mut Coverage) {
    let keyd = Keyd::on(root());
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        let (bare, _) = path.split_once('?').unwrap();
        send(coverage, &keyd, operation, bare, None)
            .assert_message(400, "api-version not specified");
        // No request at all, so there is no JSON.
        let response = exchange(
            coverage,
            &keyd,
            operation,
            format!("{method} {path} HTTP/1.1\r\ncontent-length: x\r\n\r\n").as_bytes(),
        );
        assert_eq!((response.status, response.text()), (400, ""));

        if operation.path_example.is_some() {
            let path = operation.target("%ff", version(operation));
            send(coverage, &keyd, operation, &path, None).assert_message(404, "not found");
        }
        for other in keys::API.versions {
            if !operation.versions.iter().any(|version| version == other) {
                let path = operation.target("x", other);
                send(coverage, &keyd, operation, &path, None).assert_message(404, "not found");
            }
        }
        if operation.request.is_some() {
            send(coverage, &keyd, operation, &path, None)
                .assert_message(400, "missing request body");
            let response = exchange(
                coverage,
                &keyd,
                operation,
                format!("{method} {path} HTTP/1.1\r\ncontent-length: 1\r\n\r\n{{").as_bytes(),
            );
            assert_eq!(response.status, 422, "{response}");
            let large = limits::BODY_KEYS + 1;
            let response = exchange(
                coverage,
                &keyd,
                operation,
                format!("{method} {path} HTTP/1.1\r\ncontent-length: {large}\r\n\r\n").as_bytes(),
            );
            response.assert_message(413, "request body is larger than 8388608 bytes");
        }
    }
}

/// 414 and 431, which have no content.
fn heads_that_are_refused(document: &Document, coverage: &mut Coverage) {
    let keyd = Keyd::on(root());
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        let padding = "x".repeat(limits::TARGET + 2 - path.len());
        for (expected, head) in [
            (414, format!("{method} {path}&{padding} HTTP/1.1\r\n\r\n")),
            (
                431,
                format!(
                    "{method} {path} HTTP/1.1\r\n{}\r\n",
                    "a: b\r\n".repeat(limits::HEADER_FIELDS + 1)
                ),
            ),
        ] {
            let response = exchange(coverage, &keyd, operation, head.as_bytes());
            assert_eq!(
                (response.status, response.text()),
                (expected, ""),
                "{}",
                operation.id
            );
        }
    }
}

/// 408.
fn stalled_bodies(document: &Document, coverage: &mut Coverage) {
    let keyd = Keyd::launch(root(), |launch| launch.time_scale(0.02));
    for operation in document.operations() {
        if operation.request.is_some() {
            let (method, path) = (&operation.method, target(operation));
            let head = format!("{method} {path} HTTP/1.1\r\ncontent-length: 9\r\n\r\n{{");
            exchange(coverage, &keyd, operation, head.as_bytes())
                .assert_message(408, "deadline has elapsed");
        }
    }
}

/// 500: the key that signs handles cannot be read, and a key pair cannot be moved to where it should.
fn damaged_keys(document: &Document, coverage: &mut Coverage) {
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
        let target = operation.target(parameter, version(operation));
        let body = operation
            .request
            .as_ref()
            .map(|media| media.examples.values().next().unwrap());
        send(coverage, &keyd, operation, &target, body).assert_message(500, "internal error");
    }
}

/// 503: two bodies of the largest size and two large heads under way are as much as the process holds.
fn too_much_at_once(document: &Document, coverage: &mut Coverage) {
    let keyd = patient(root());
    let mut held = Vec::new();
    let sign = target(document.named("sign"));
    for _ in 0..limits::BODY_TOTAL / limits::BODY_KEYS {
        let mut client = keyd.connect();
        let length = limits::BODY_KEYS;
        client.send(format!(
            "POST {sign} HTTP/1.1\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        ));
        // The service is ready for the body, so it has made room for it or will with the first bytes.
        assert_eq!(client.try_response(true).unwrap().status, 100);
        client.send(vec![b' '; length - 1]);
        held.push(client);
    }
    // Buffers for heads grow fourfold; these take all but less than the next one would need.
    for length in [limits::HEAD - 100, 60_000] {
        let mut client = keyd.connect();
        client.send(format!("POST {sign} HTTP/1.1\r\na: {}", "x".repeat(length)));
        held.push(client);
    }
    // Nothing tells when the service has read all of that but the answers that change then.
    let filler = "x".repeat(8 * 1024);
    eventually("the room for large requests is used up", || {
        let load = format!(
            "GET {} HTTP/1.1\r\na: {filler}\r\n\r\n",
            target(document.named("loadKey"))
        );
        keyd.connect().exchange(load).status == 503
    });
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        // A head that does not fit the smallest buffer, or a body that does not.
        let bytes = if operation.request.is_some() {
            format!("{method} {path} HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n{filler}")
        } else {
            format!("{method} {path} HTTP/1.1\r\na: {filler}\r\n\r\n")
        };
        let response = exchange(coverage, &keyd, operation, bytes.as_bytes());
        assert_eq!(response.status, 503, "{}: {response}", operation.id);
    }
    drop(held);
}

/// 401, which needs a user other than root that no principal names. Whether there could be one.
fn strangers(document: &Document, coverage: &mut Coverage) -> bool {
    if !users::can_change("refusing users") {
        return false;
    }
    let keyd = Keyd::on(root());
    for operation in document.operations() {
        if !operation.responses.contains_key(&401) {
            continue;
        }
        let body = operation
            .request
            .as_ref()
            .map(|media| media.examples.values().next().unwrap());
        let request = request(&operation.method, &target(operation), body);
        let response = answer(coverage, &mut keyd.connect_as(1000), operation, &request);
        assert_eq!(response.status, 401, "{}: {response}", operation.id);
    }
    true
}

/// `GET /status` with everything in it: keys and tokens, a token that fails, and a library that cannot tell.
#[test]
fn status_is_as_documented() {
    let document = document();
    let mut coverage = Coverage::default();
    let operation = document.named("status");
    let mut status = |keyd: &Keyd| {
        let response = send(&mut coverage, keyd, operation, &target(operation), None);
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
    let mut paths: BTreeSet<String> = [
        "/",
        "/keys",
        "/verify",
        "/version",
        "/derivedkey/import",
        "/certificates",
    ]
    .map(str::to_owned)
    .into();
    for operation in document.operations() {
        let path = target(operation);
        let (path, _) = path.split_once('?').unwrap();
        let cut = &path[..path.len() - 1];
        paths.extend([
            path.to_owned(),
            cut.to_owned(),
            format!("{path}/"),
            format!("{path}/x"),
            format!("{path}x"),
            format!("/{path}"),
            path.to_ascii_uppercase(),
        ]);
    }
    let mut refused = 0;
    for path in &paths {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "get"] {
            if document.operation(method, path).is_some() {
                continue;
            }
            for version in keys::API.versions {
                let target = format!("{path}?api-version={version}");
                let body = (method != "GET").then(|| json!({}));
                let response = keyd
                    .connect()
                    .exchange(request(method, &target, body.as_ref()));
                response.assert_framing();
                let message = response.member("message");
                // `POST /key/{id}` is there to say that only key pairs move.
                let expected = [(404, "not found"), (400, "method not allowed")];
                let symmetric =
                    method == "POST" && path.starts_with("/key/") && response.status == 422;
                assert!(
                    expected.contains(&(response.status, message.as_str())) || symmetric,
                    "{method} {target}: {response}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused}");
    keyd.post("/key/x", &json!({ "from": "y" }))
        .assert_message(400, "invalid type \"key\"");
}
