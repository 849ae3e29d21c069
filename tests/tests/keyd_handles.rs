//! Key handles, and who may use which key (spec, keys chapter 6, 7 and 12).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::HashSet;
use std::fs;

use aziot_tests::client::{Response, request};
use aziot_tests::fixture::{self, A, B, D, HANDLE_KEY, Keyd, NONCE, VERSION};
use aziot_tests::root::{Root, copy_tree};
use aziot_tests::{binaries, users};
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

const INVALID_HANDLE: &str = "parameter \"handle\" has an invalid value\ncaused by: invalid handle";
const NESTED: &str = "parameter \"handle\" has an invalid value\ncaused by: nested derived keys are not supported, import \
                      the outer derived key first";

#[track_caller]
fn assert_signature(response: &Response, signature: &str) {
    assert_eq!(
        (response.status, response.json()),
        (200, json!({ "signature": signature })),
        "{response}"
    );
}

/// Signs as another user.
fn sign_as(keyd: &Keyd, uid: u32, handle: &str, message: &[u8]) -> Response {
    let body = fixture::sign_body(handle, message);
    keyd.connect_as(uid)
        .exchange(request("POST", &format!("/sign?{VERSION}"), Some(&body)))
}

fn load_as(keyd: &Keyd, uid: u32, path: &str) -> Response {
    keyd.connect_as(uid)
        .exchange(request("GET", &format!("{path}?{VERSION}"), None))
}

#[test]
fn ks_12_v1_to_v4_hmac() {
    let keyd = Keyd::with_fixture();
    let hello = "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis=";
    // The first request of a process has no key in memory; the second has.
    for _ in 0..2 {
        assert_signature(&keyd.sign(A, b"hello"), hello);
        assert_signature(
            &keyd.sign(A, b"myhub.azure-devices.net%2fdevices%2fdev1\n1700000000"),
            "QLS3ca9rQlEGE7z34i8T87AH/mvFthdHVSAcBerymFQ=",
        );
        assert_signature(
            &keyd.sign(A, b""),
            "vdHL4iZuK23qT4qXFhhtRsVCtv1OpEj3DmzYzlIzwjM=",
        );
        assert_signature(
            &keyd.sign(A, b"A"),
            "13Z4qNKMTB8WVgcaRrBklPLnFg4nj4hAsuzrdgZcHno=",
        );
    }
    if users::can_change("V1 as the principal and as a user without one") {
        for uid in [1000, 4242] {
            assert_signature(&sign_as(&keyd, uid, A, b"hello"), hello);
        }
    }
}

#[test]
fn ks_12_v5_to_v7_derived_keys() {
    let keyd = Keyd::with_fixture();
    for _ in 0..2 {
        let exported = keyd.export(D);
        assert_eq!(
            exported.json(),
            json!({ "key": "yLZvBM00dmFVt7pLNrj6I0mCFBZ81VltbTPIsXhROA8=" })
        );
        assert_signature(
            &keyd.sign(D, b"hello"),
            "4bn05rQ6bGyfX0Mpebcq7C0fcWj95Udp4N0/YKvqGmc=",
        );
        let empty = keyd.derive(A, b"");
        assert_eq!(
            keyd.export(&empty).member("key"),
            "vdHL4iZuK23qT4qXFhhtRsVCtv1OpEj3DmzYzlIzwjM="
        );
        assert_eq!(empty.len(), 512);
        assert_eq!(keyd.derive(A, b"mod1:gen1:primary").len(), 596);
    }
}

#[test]
fn ks_12_v13_nested_derivation() {
    let keyd = Keyd::with_fixture();
    let nested = fixture::nested();
    keyd.export(&nested).assert_message(400, NESTED);
    keyd.sign(&nested, b"m").assert_message(400, NESTED);
    keyd.delete("/key", &nested).assert_message(400, NESTED);
    keyd.post(
        "/derivedkey",
        &json!({ "baseKeyHandle": D, "derivationData": "" }),
    )
    .assert_message(400, NESTED);
}

#[test]
fn ks_12_v14_an_id_with_everything_in_it() {
    let keyd = Keyd::with_fixture();
    let text =
        "parameter \"handle\" has an invalid value\ncaused by: handle is not for a derived key";
    keyd.export(fixture::U).assert_message(400, text);
}

#[test]
fn ks_12_v15_handles_that_do_not_verify() {
    let keyd = Keyd::with_fixture();
    let (sr, sig) = A.split_once("&sig=").unwrap();
    let mut mac = Base64::decode_vec(sig).unwrap();
    let last = mac.last_mut().unwrap();
    *last ^= 1;
    let changed = format!("{sr}&sig={}", Base64::encode_string(&mac));
    let short = format!("{sr}&sig={}", Base64::encode_string(&mac[..16]));
    let unpadded = fixture::C.replace("==&sig=", "&sig=");
    assert_ne!(unpadded, fixture::C);
    for handle in [changed, short, unpadded] {
        keyd.sign(&handle, b"m").assert_message(400, INVALID_HANDLE);
        keyd.export(&handle).assert_message(400, INVALID_HANDLE);
        keyd.delete("/key", &handle)
            .assert_message(400, INVALID_HANDLE);
        keyd.post("/parameters/algorithm", &json!({ "keyHandle": handle }))
            .assert_message(400, INVALID_HANDLE);
        let body = json!({ "baseKeyHandle": handle, "derivationData": "" });
        keyd.post("/derivedkey", &body)
            .assert_message(400, INVALID_HANDLE);
    }
}

#[test]
fn ks_12_v16_ks_16_refusals_name_user_and_key() {
    if !users::can_change("refusing other users") {
        return;
    }
    let keyd = Keyd::with_fixture();
    let response = load_as(&keyd, 1000, "/key/aead");
    response.assert_message(401, "user 1000 is not authorized to access the key aead");
    assert_eq!(response.field("content-length"), Some("64"));
    assert_eq!(response.field("www-authenticate"), None);
    // Before it is known whether the key exists.
    load_as(&keyd, 1000, "/key/nope")
        .assert_message(401, "user 1000 is not authorized to access the key nope");
    load_as(&keyd, 1000, "/key/a%2F%0a")
        .assert_message(401, "user 1000 is not authorized to access the key a/\n");
    load_as(&keyd, 7, "/keypair/imp")
        .assert_message(401, "user 7 is not authorized to access the key imp");
    let post = |path: &str, body: Value| {
        keyd.connect_as(1000)
            .exchange(request("POST", &format!("{path}?{VERSION}"), Some(&body)))
    };
    let refused = "user 1000 is not authorized to access the key x";
    post("/key", json!({ "keyId": "x", "usage": "sign" })).assert_message(401, refused);
    post(
        "/key",
        json!({ "keyId": "x", "keyBytes": "", "usage": "sign" }),
    )
    .assert_message(401, refused);
    post("/keypair", json!({ "keyId": "x" })).assert_message(401, refused);
    // A move needs both; the source is judged first.
    post("/keypair/y", json!({ "from": "x" })).assert_message(401, refused);
    post("/keypair/x", json!({ "from": "imp" })).assert_message(401, refused);
    post("/keypair/x", json!({ "from": "x" }))
        .assert_message(400, "source and destination for move are identical");
    assert!(!keyd.root.key_file("x").exists());
    let line = keyd
        .daemon
        .log()
        .wait_for("!!! user 1000 is not authorized to access the key nope");
    assert!(line.starts_with("<6>"), "{line}");
}

#[test]
fn ks_11_handles_that_are_issued() {
    let keyd = Keyd::empty("");
    let mut seen = HashSet::new();
    let mut base = String::new();
    for id in ["k", "k", "ké\"/\n\t\u{1}\u{7f}", "x y"] {
        for handle in [keyd.create(id), keyd.create(id)] {
            assert!(seen.insert(handle.clone()), "the same handle twice");
            assert!(
                handle.bytes().all(|byte| byte.is_ascii_graphic()),
                "{handle}"
            );
            let text = fixture::handle_text(&handle);
            let value: Value = serde_json::from_str(&text).unwrap();
            let nonce = value["nonce"].as_str().unwrap();
            assert_eq!(Base64::decode_vec(nonce).unwrap().len(), 64);
            assert!(seen.insert(nonce.to_owned()), "the same nonce twice");
            // Compact, in this order, and nothing but the necessary escapes.
            assert_eq!(
                text,
                format!(
                    "{{\"key_id\":{{\"Key\":{}}},\"nonce\":\"{nonce}\"}}",
                    json!(id)
                )
            );
            if id == "k" {
                assert_eq!(handle.len(), 4 * (121_usize).div_ceil(3) + 52);
            }
            base = handle;
        }
    }
    let derived = keyd.derive(&base, &[0, 9, 10, 99, 100, 255]);
    let text = fixture::handle_text(&derived);
    assert!(
        text.starts_with(&format!(
            "{{\"key_id\":{{\"Derived\":[\"{base}\",[0,9,10,99,100,255]]}},\"nonce\":\""
        )),
        "{text}"
    );
    assert_ne!(keyd.derive(&base, b"x"), keyd.derive(&base, b"x"));
}

#[test]
fn ks_13_handles_outlive_the_process_but_not_their_key() {
    let keyd = Keyd::empty("");
    let handle = keyd.import("k", b"bytes");
    let derived = keyd.derive(&handle, b"data");
    let signature = fixture::hmac(b"bytes", b"m");
    let keyd = keyd.restart();
    assert_signature(&keyd.sign(&handle, b"m"), &signature);
    let exported = keyd.export(&derived).member("key");
    assert_eq!(exported, fixture::hmac(b"bytes", b"data"));

    // The handle key is removed under the running service, and again under the next one.
    for restart in [false, true] {
        fs::remove_file(keyd.root.key_file(HANDLE_KEY)).unwrap();
        if restart {
            break;
        }
        keyd.sign(&handle, b"m").assert_message(400, INVALID_HANDLE);
        keyd.export(&derived).assert_message(400, INVALID_HANDLE);
        let new = keyd.get("/key/k").member("keyHandle");
        assert_signature(&keyd.sign(&new, b"m"), &signature);
        keyd.sign(&handle, b"m").assert_message(400, INVALID_HANDLE);
    }
    let keyd = keyd.restart();
    keyd.sign(&handle, b"m").assert_message(400, INVALID_HANDLE);
    let new = keyd.get("/key/k").member("keyHandle");
    assert_signature(&keyd.sign(&new, b"m"), &signature);
}

#[test]
fn ks_14_parsing() {
    let keyd = Keyd::with_fixture();
    let signature = fixture::hmac(b"test-symmetric-key", b"m");
    let (sr, sig) = A.split_once('&').unwrap();
    let good = [
        format!("{sig}&{sr}"),
        format!("foo=bar&{sr}&se=5&{sig}&&x"),
        // The last of several counts, as long as every one decodes.
        format!("sr=QUJD&{sr}&sig=QUJD&{sig}"),
        fixture::handle(
            " { \"nonce\" : \"\" , \"key_id\" : { \"Key\" : \"i\\u006dp\" } , \"more\" : [1] } ",
        ),
        fixture::handle(r#"{"key_id":{"Key":"imp"},"nonce":""}"#),
    ];
    for handle in good {
        assert_signature(&keyd.sign(&handle, b"m"), &signature);
    }
    let bad = [
        String::new(),
        format!(" {A}"),
        format!("{A} "),
        sr.to_owned(),
        sig.to_owned(),
        format!("{sr}&sig="),
        format!("sr=&{sig}"),
        format!("sr=!&{sr}&{sig}"),
        format!("{sr}&sig=QQ&{sig}"),
        A.replace("sr=", "SR="),
        A.replace('&', ";"),
        A.replace('=', "%3D"),
        fixture::handle(r#"{"key_id":{"Key":"imp"}}"#),
        fixture::handle(r#"{"key_id":{"Key":"imp"},"nonce":1}"#),
        fixture::handle(r#"{"key_id":{"Key":1},"nonce":""}"#),
        fixture::handle(r#"{"key_id":{"Other":"imp"},"nonce":""}"#),
        fixture::handle(r#"{"key_id":{},"nonce":""}"#),
        fixture::handle(r#"{"key_id":{"Key":"imp"},"nonce":""}x"#),
        fixture::handle("not JSON"),
        fixture::handle(&format!(
            r#"{{"key_id":{{"Derived":["{A}","bW9k"]}},"nonce":"{NONCE}"}}"#
        )),
        fixture::handle(&format!(
            r#"{{"key_id":{{"Derived":["{A}",[256]]}},"nonce":"{NONCE}"}}"#
        )),
        fixture::handle(&format!(
            r#"{{"key_id":{{"Derived":["x",[1]]}},"nonce":"{NONCE}"}}"#
        )),
    ];
    for handle in bad {
        keyd.sign(&handle, b"m").assert_message(400, INVALID_HANDLE);
    }
}

#[test]
fn ks_15_patterns() {
    if !users::can_change("principals") {
        return;
    }
    let table: [(&str, &str, bool); 19] = [
        ("example*", "example", true),
        ("example*", "example1", true),
        ("example*", "Example1", false),
        ("ex?mple", "example", true),
        ("ex?mple", "exmple", false),
        ("?", "é", true),
        ("*", "x/y", true),
        ("*?", "a", true),
        ("a*b*c", "abc", true),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "aXbYcd", false),
        ("[ab]", "a", false),
        ("\\*", "*", false),
        ("\\*", "\\x", true),
        ("device-id", "device-id2", false),
        ("device-id", "device-id", true),
        ("**", "anything", true),
        ("", "x", false),
        ("a.c", "abc", false),
    ];
    let mut config = String::new();
    for (uid, (pattern, _, _)) in (20_000..).zip(&table) {
        config.push_str(&format!(
            "[[principal]]\nuid = {uid}\nkeys = [{}]\n",
            json!(pattern)
        ));
    }
    let root = Root::with_keyd(&config);
    // Entries of one user are merged, across files too.
    root.write(
        "etc/aziot/keyd/config.d/a.toml",
        "[[principal]]\nuid = 30000\nkeys = [\"a\"]\n",
    );
    root.write(
        "etc/aziot/keyd/config.d/b.toml",
        "[[principal]]\nuid = 30000\nkeys = [\"b\"]\n[[principal]]\nuid = 30001\nkeys = []\n",
    );
    let keyd = Keyd::on(root);
    let allowed = |uid: u32, id: &str| {
        let path: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        match load_as(&keyd, uid, &format!("/key/{path}")) {
            response if response.status == 401 => {
                response.assert_message(
                    401,
                    &format!("user {uid} is not authorized to access the key {id}"),
                );
                false
            }
            response => {
                response.assert_message(400, "a parameter has an invalid value");
                true
            }
        }
    };
    for (uid, (pattern, id, expected)) in (20_000..).zip(table) {
        assert_eq!(allowed(uid, id), expected, "{pattern:?} {id:?}");
    }
    assert!(allowed(30_000, "a") && allowed(30_000, "b") && !allowed(30_000, "c"));
    assert!(!allowed(30_001, "a") && !allowed(30_002, "a") && !allowed(4_294_967_294, "a"));
    assert!(allowed(0, "anything"));
    // No pattern but the id itself leads to the key that signs handles.
    assert!(!allowed(20_006, HANDLE_KEY));
}

#[test]
fn ks_17_whoever_holds_a_handle_may_use_it() {
    if !users::can_change("using handles as a user without a principal") {
        return;
    }
    let keyd = Keyd::with_fixture();
    let post = |path: &str, body: &Value| {
        let response = keyd.connect_as(4242).exchange(request(
            "POST",
            &format!("{path}?{VERSION}"),
            Some(body),
        ));
        response.assert_framing();
        response
    };
    assert_eq!(sign_as(&keyd, 4242, A, b"m").status, 200);
    let derived = post(
        "/derivedkey",
        &json!({ "baseKeyHandle": A, "derivationData": "eA==" }),
    );
    let exported = post(
        "/derivedkey/export",
        &json!({ "keyHandle": derived.member("keyHandle") }),
    );
    assert_eq!(
        exported.member("key"),
        fixture::hmac(b"test-symmetric-key", b"x")
    );
    // The library may refuse these; the service does not.
    assert_ne!(
        post("/parameters/algorithm", &json!({ "keyHandle": B })).status,
        401
    );
    let body = json!({ "keyHandle": A });
    let response =
        keyd.connect_as(4242)
            .exchange(request("DELETE", &format!("/key?{VERSION}"), Some(&body)));
    assert_eq!(response.status, 204);
    assert!(!keyd.root.key_file("imp").exists());
}

#[test]
fn preloaded_keys() {
    let root = Root::new();
    let secret = root.write("var/secrets/aziot/keyd/device-id", b"preloaded\n");
    let absent = root.join("var/secrets/aziot/keyd/later key");
    root.keyd_config(&format!(
        "[preloaded_keys]\ndevice-id = \"file://{}\"\nlater = \"file://{}\"\n",
        secret.display(),
        absent.display().to_string().replace(' ', "%20")
    ));
    let keyd = Keyd::on(root);
    let handle = keyd.get("/key/device-id").member("keyHandle");
    // The line feed at the end is part of the key.
    assert_signature(
        &keyd.sign(&handle, b"m"),
        &fixture::hmac(b"preloaded\n", b"m"),
    );
    keyd.get("/key/later")
        .assert_message(400, "a parameter has an invalid value");
    keyd.create("later");
    assert_eq!(fs::read(&absent).unwrap().len(), 32);
    assert!(!keyd.root.key_file("later").exists());
    // Changed by somebody else: noticed.
    fs::write(&secret, b"changed").unwrap();
    assert_signature(&keyd.sign(&handle, b"m"), &fixture::hmac(b"changed", b"m"));
}

#[test]
fn state_of_release_1_6_0_is_taken_over() {
    let fixture_directory = binaries::sources().join("fixtures/reference-1.6.0");
    let results = fixture_directory.join("results");
    let result = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(results.join(format!("{name}.json"))).unwrap())
            .unwrap()
    };
    let handle = |name: &str| result(name)["keyHandle"].as_str().unwrap().to_owned();
    let root = Root::new();
    copy_tree(
        &fixture_directory.join("var/lib/aziot/keyd"),
        &root.join("var/lib/aziot/keyd"),
    );
    copy_tree(
        &fixture_directory.join("var/secrets"),
        &root.join("var/secrets"),
    );
    // Its configuration as it was written, with this root in place of `/`.
    let config =
        fs::read_to_string(fixture_directory.join("etc/aziot/keyd/config.d/00-super.toml"))
            .unwrap();
    let config = config.replace("\"/var/", &format!("\"{}/var/", root.path().display()));
    let config = config.replace(
        "file:///var/",
        &format!("file://{}/var/", root.path().display()),
    );
    root.write("etc/aziot/keyd/config.d/00-super.toml", config);
    if users::effective() != 0 {
        root.keyd_config("");
    }
    let keyd = Keyd::on(root);

    // Handles that it issued still name their keys, and yield what they yielded.
    assert_eq!(
        keyd.sign(&handle("key-sym-gen"), b"hello").json(),
        result("sign-hmac")
    );
    assert_eq!(
        keyd.export(&handle("derivedkey-of-sym-gen")).json(),
        result("derivedkey-export")
    );
    let imported: Vec<u8> = (0..32).collect();
    assert_signature(
        &keyd.sign(&handle("key-sym-imported"), b"m"),
        &fixture::hmac(&imported, b"m"),
    );
    assert_eq!(keyd.sign(&handle("key-odd"), b"m").status, 200);
    for pair in ["keypair-ec", "keypair-rsa2048", "keypair-unicode"] {
        let text =
            "parameter \"handle\" has an invalid value\ncaused by: handle is not for a derived key";
        keyd.export(&handle(pair)).assert_message(400, text);
    }
    // So do handles that are issued now, for the same keys.
    for (path, old) in [
        ("/key/sym-gen", "key-sym-gen"),
        ("/key/sym-imported", "key-sym-imported"),
        ("/key/odd%20%26%20id%3F", "key-odd"),
    ] {
        let new = keyd.get(path).member("keyHandle");
        assert_eq!(
            keyd.sign(&new, b"m").json(),
            keyd.sign(&handle(old), b"m").json(),
            "{path}"
        );
    }
    let derived = keyd.derive(&handle("key-sym-gen"), b"module-a");
    assert_eq!(keyd.export(&derived).json(), result("derivedkey-export"));
    for id in ["aziot_identityd_master_id", "device-id"] {
        assert_eq!(keyd.get(&format!("/key/{id}")).status, 200, "{id}");
        if users::can_change("the principal of 1.6.0's configuration") {
            assert_eq!(load_as(&keyd, 994, &format!("/key/{id}")).status, 200);
            load_as(&keyd, 994, "/key/sym-gen")
                .assert_message(401, "user 994 is not authorized to access the key sym-gen");
        }
    }
}
