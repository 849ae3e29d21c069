//! The Keys Service over its socket: requests and answers (spec, keys chapter 1 to 5, 8, 11).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::time::Duration;

use aziot_tests::client::{Client, Response, request};
use aziot_tests::fixture::{self, A, B, C, Keyd, VERSION};
use aziot_tests::root::Root;
use aziot_tests::users;
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

const INVALID: &str = "a parameter has an invalid value";

/// The operations of release 1.6.0, each with a body that makes sense.
fn operations() -> Vec<(&'static str, String, Option<Value>)> {
    let handle = |handle: &str| Some(json!({ "keyHandle": handle }));
    let aead = json!({ "iv": "MTIzNDU2Nzg5MDEy", "aad": "YWFk" });
    vec![
        (
            "POST",
            "/key".into(),
            Some(json!({ "keyId": "imp", "usage": "sign" })),
        ),
        ("GET", "/key/imp".into(), None),
        ("DELETE", "/key".into(), handle(C)),
        (
            "POST",
            "/keypair".into(),
            Some(json!({ "keyId": "imp2", "preferredAlgorithms": "nonsense" })),
        ),
        ("GET", "/keypair/nope".into(), None),
        (
            "POST",
            "/keypair/same".into(),
            Some(json!({ "from": "same" })),
        ),
        ("DELETE", "/keypair".into(), handle(A)),
        ("POST", "/parameters/nonsense".into(), handle(B)),
        (
            "POST",
            "/derivedkey".into(),
            Some(json!({ "baseKeyHandle": A, "derivationData": "" })),
        ),
        ("POST", "/derivedkey/export".into(), handle(fixture::D)),
        (
            "POST",
            "/sign".into(),
            Some(fixture::sign_body(A, b"hello")),
        ),
        (
            "POST",
            "/encrypt".into(),
            Some(
                json!({ "keyHandle": B, "algorithm": "AEAD", "parameters": aead, "plaintext": "" }),
            ),
        ),
        (
            "POST",
            "/decrypt".into(),
            Some(
                json!({ "keyHandle": B, "algorithm": "AEAD", "parameters": aead, "ciphertext": "" }),
            ),
        ),
    ]
}

fn send(keyd: &Keyd, method: &str, target: &str, body: Option<&Value>) -> Response {
    let response = keyd.connect().exchange(request(method, target, body));
    response.assert_framing();
    response
}

/// A request with any header lines and any body.
fn raw(method: &str, target: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn exchange(keyd: &Keyd, bytes: &[u8]) -> Response {
    let response = keyd.connect().exchange(bytes);
    response.assert_framing();
    response
}

/// A `POST` of a text that need not be JSON.
fn post_text(keyd: &Keyd, path: &str, text: &str) -> Response {
    exchange(
        keyd,
        &raw("POST", &format!("{path}?{VERSION}"), "", text.as_bytes()),
    )
}

#[test]
fn ks_01_api_version() {
    let keyd = Keyd::with_fixture();
    for path in ["/key/imp", "/nope", "/sign"] {
        send(&keyd, "GET", path, None).assert_message(400, "api-version not specified");
        send(
            &keyd,
            "GET",
            &format!("{path}?API-VERSION=2021-05-01"),
            None,
        )
        .assert_message(400, "api-version not specified");
        let response = send(
            &keyd,
            "GET",
            &format!("{path}?api-version=2020-01-01"),
            None,
        );
        response.assert_message(400, "invalid api-version \"2020-01-01\"");
        let response = send(
            &keyd,
            "GET",
            &format!("{path}?{VERSION}&api-version=%22%0a"),
            None,
        );
        response.assert_message(400, "invalid api-version \"\\\"\\n\"");
    }
    assert_eq!(
        send(
            &keyd,
            "GET",
            &format!("/key/imp?api-version=x&{VERSION}"),
            None
        )
        .status,
        200
    );
}

#[test]
fn ks_02_both_versions_on_all_operations_ht_14() {
    let expected = [
        200, 200, 204, 400, 400, 400, 400, 400, 200, 200, 200, 400, 400,
    ];
    for version in ["2020-09-01", "2021-05-01"] {
        let keyd = Keyd::with_fixture();
        for ((method, path, body), expected) in operations().into_iter().zip(expected) {
            let response = send(
                &keyd,
                method,
                &format!("{path}?api-version={version}"),
                body.as_ref(),
            );
            assert_eq!(
                response.status, expected,
                "{method} {path} {version}: {response}"
            );
            let text = String::from_utf8_lossy(&response.body);
            assert!(
                !text.contains("not found") && !text.contains("api-version"),
                "{method} {path}: {response}"
            );
        }
    }
    let keyd = Keyd::with_fixture();
    for (method, path, body) in operations() {
        let response = send(
            &keyd,
            method,
            &format!("{path}?api-version=2020-09-01-preview"),
            body.as_ref(),
        );
        response.assert_message(400, "invalid api-version \"2020-09-01-preview\"");
    }
}

#[test]
fn ks_03_paths_that_do_not_exist() {
    let keyd = Keyd::with_fixture();
    for path in [
        "/",
        "/nope",
        "/key/",
        "/key/imp/",
        "//key/imp",
        "/keypair/",
        "/keys",
        "/key/%ff",
        "/keypair/a%C3",
        "/sign/",
        "/derivedkey/export/",
        "/parameters",
        "/parameters/",
        "/Key/imp",
        "/key/a/b",
        "/%6bey/imp",
    ] {
        send(&keyd, "GET", &format!("{path}?{VERSION}"), None).assert_message(404, "not found");
    }
    // The body of such a request is of no interest.
    let response = exchange(&keyd, &raw("POST", &format!("/nope?{VERSION}"), "", b"{"));
    response.assert_message(404, "not found");
}

#[test]
fn ks_04_methods() {
    let keyd = Keyd::with_fixture();
    let refused = "method not allowed";
    for (method, path) in [
        ("GET", "/key"),
        ("GET", "/keypair"),
        ("GET", "/sign"),
        ("GET", "/parameters/algorithm"),
        ("GET", "/encrypt"),
        ("DELETE", "/sign"),
        ("DELETE", "/key/imp"),
        ("DELETE", "/derivedkey"),
        ("OPTIONS", "/key"),
        ("PATCH", "/key/imp"),
        ("get", "/key/imp"),
    ] {
        send(&keyd, method, &format!("{path}?{VERSION}"), None).assert_message(400, refused);
    }
    let mut client = keyd.connect();
    client.send(request("HEAD", &format!("/key/imp?{VERSION}"), None));
    assert_eq!(client.response_to_head().status, 400);
    for path in ["/key", "/key/imp", "/sign", "/decrypt"] {
        let target = format!("{path}?{VERSION}");
        let response = exchange(
            &keyd,
            &raw("PUT", &target, "content-type: text/plain\r\n", b"{}"),
        );
        response.assert_message(415, "request body must be application/json");
        assert_eq!(exchange(&keyd, &raw("PUT", &target, "", b"{")).status, 422);
        assert_eq!(exchange(&keyd, &raw("PUT", &target, "", b"")).status, 422);
        exchange(&keyd, &raw("PUT", &target, "", b"{}")).assert_message(400, refused);
        assert_eq!(
            exchange(
                &keyd,
                &raw("DELETE", "/sign?api-version=2021-05-01", "", b"{")
            )
            .status,
            422
        );
    }
}

#[test]
fn ks_05_missing_bodies() {
    let keyd = Keyd::with_fixture();
    for (method, path, body) in operations() {
        let Some(body) = body else { continue };
        let (target, body) = (format!("{path}?{VERSION}"), body.to_string());
        send(&keyd, method, &target, None).assert_message(400, "missing request body");
        for lines in [
            "content-type: text/plain\r\n",
            "content-type: Application/Json\r\n",
        ] {
            let response = exchange(&keyd, &raw(method, &target, lines, body.as_bytes()));
            response.assert_message(400, "missing request body");
        }
        for lines in ["", "content-type: application/json; charset=utf-8\r\n"] {
            let response = exchange(&keyd, &raw(method, &target, lines, body.as_bytes()));
            let text = String::from_utf8_lossy(&response.body);
            assert!(
                !text.contains("missing request body"),
                "{method} {path} {lines:?}: {response}"
            );
        }
    }
}

#[test]
fn ks_06_json_rules() {
    let keyd = Keyd::with_fixture();
    // All of it has to be UTF-8, also what is of no interest otherwise.
    for text in [
        &b"{\"keyId\":\"x\",\"usage\":\"sign\",\"note\":\"\xff\"}"[..],
        b"{\"keyId\":\"x\",\"usage\":\"sign\",\n \"\xff\":1}",
        b"{\"keyId\":\"x\",\"usage\":\"sign\",\"note\":[{\"a\":\"\xed\xa0\x80\"}]}",
        b"{\"keyId\":\"\xc3\",\"usage\":\"sign\"}",
    ] {
        let response = exchange(&keyd, &raw("POST", &format!("/key?{VERSION}"), "", text));
        assert_eq!(response.status, 422, "{}", String::from_utf8_lossy(text));
        let message = response.member("message");
        let expected = "invalid unicode code point at line ";
        assert!(message.starts_with(expected), "{message}");
    }
    for (path, text, message) in [
        ("/key", "{", "EOF while parsing an object"),
        ("/key", "[]", "invalid length 0"),
        ("/key", r#"{"usage":"sign"}"#, "missing field `keyId`"),
        ("/key", r#"{"keyId":"x"}"#, "missing field `usage`"),
        (
            "/key",
            r#"{"keyId":"x","keyId":"y","usage":"sign"}"#,
            "duplicate field `keyId`",
        ),
        (
            "/key",
            r#"{"keyId":null,"usage":"sign"}"#,
            "invalid type: null, expected a string",
        ),
        (
            "/key",
            r#"{"keyId":"x","keyBytes":5,"usage":"sign"}"#,
            "invalid type: integer `5`, expected a base64-encoded string",
        ),
        (
            "/key",
            r#"{"keyId":"x","usage":"sign"}}"#,
            "trailing characters",
        ),
        (
            "/sign",
            r#"{"keyHandle":"h","algorithm":"HMAC-SHA512","parameters":{"message":""}}"#,
            "unknown variant `HMAC-SHA512`, expected `ECDSA` or `HMAC-SHA256`",
        ),
        (
            "/sign",
            r#"{"keyHandle":"h","algorithm":"HMAC-SHA256"}"#,
            "missing field `parameters`",
        ),
        (
            "/sign",
            r#"{"keyHandle":"h","algorithm":"HMAC-SHA256","parameters":{}}"#,
            "missing field `message`",
        ),
        (
            "/sign",
            r#"{"keyHandle":"h","algorithm":"HMAC-SHA256","parameters":{"message":"","message":""}}"#,
            "duplicate field `message`",
        ),
        (
            "/sign",
            r#"{"keyHandle":"h","algorithm":"ECDSA","parameters":{"message":""}}"#,
            "missing field `digest`",
        ),
        (
            "/encrypt",
            r#"{"keyHandle":"h","algorithm":"AEAD","parameters":{"iv":""},"plaintext":""}"#,
            "missing field `aad`",
        ),
        (
            "/encrypt",
            r#"{"keyHandle":"h","algorithm":"AEAD","plaintext":""}"#,
            "missing field `parameters`",
        ),
        (
            "/encrypt",
            r#"{"keyHandle":"h","algorithm":"RSA-PKCS1","parameters":{},"plaintext":""}"#,
            "invalid type: map",
        ),
        (
            "/derivedkey",
            r#"{"baseKeyHandle":"h"}"#,
            "missing field `derivationData`",
        ),
        ("/keypair/x", "{}", "missing field `from`"),
    ] {
        let response = post_text(&keyd, path, text);
        assert_eq!(response.status, 422, "{path} {text}: {response}");
        let got = response.member("message");
        assert!(
            got.starts_with(message) && got.contains(" at line 1 column "),
            "{path} {text}: {got:?}"
        );
    }
    // Unknown members, any order, white space, escapes, nulls.
    let sign = format!(
        " {{ \"parameters\" : {{ \"x\":[{{}}], \"message\" : \"aGVsbG8=\" }}, \"zz\": null,\r\n\t\"algorithm\":\"HMAC\\u002dSHA256\", \
         \"keyHandle\":\"{}\" }}\n",
        A.replace('/', "\\/")
    );
    let response = post_text(&keyd, "/sign", &sign);
    assert_eq!(
        (response.status, response.member("signature").as_str()),
        (200, "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis=")
    );
    let response = post_text(
        &keyd,
        "/key",
        r#"{"keyId":"n","keyBytes":null,"usage":"derive,sign"}"#,
    );
    assert_eq!(response.status, 200, "{response}");
    let response = post_text(
        &keyd,
        "/keypair",
        r#"{"keyId":"n2","preferredAlgorithms":null}"#,
    );
    assert_ne!(response.status, 422, "{response}");
    for parameters in ["", r#""parameters":null,"#] {
        let text = format!(
            "{{\"keyHandle\":\"{A}\",\"algorithm\":\"RSA-PKCS1\",{parameters}\"plaintext\":\"QQ==\"}}"
        );
        post_text(&keyd, "/encrypt", &text).assert_message(
            400,
            "parameter \"mechanism\" has an invalid value\ncaused by: mechanism cannot be used with this key type",
        );
    }
}

#[test]
fn ks_07_a_body_that_stalls() {
    let root = Root::new();
    fixture::install(&root);
    let keyd = Keyd::launch(root, |launch| launch.time_scale(0.1));
    for method in ["POST", "DELETE", "PUT"] {
        let mut client = keyd.connect();
        client.send(format!(
            "{method} /key?{VERSION} HTTP/1.1\r\ncontent-length: 10\r\n\r\n{{"
        ));
        client
            .response()
            .assert_message(408, "deadline has elapsed");
        client.assert_closed();
    }
}

#[test]
fn ks_08_responses() {
    // Framing is checked in every exchange of these tests; here the exact heads.
    let keyd = Keyd::with_fixture();
    let response = keyd.sign(A, b"hello");
    assert_eq!(
        response.field_names(),
        ["content-type", "content-length", "date"]
    );
    assert_eq!(
        (
            response.field("content-type"),
            response.field("content-length")
        ),
        (Some("application/json"), Some("60"))
    );
    assert_eq!(
        response.text(),
        r#"{"signature":"IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="}"#
    );
    // Deployed blocking clients read to the end of a 204: the connection is closed for them.
    let mut client = keyd.connect();
    client.send(request(
        "DELETE",
        &format!("/key?{VERSION}"),
        Some(&json!({ "keyHandle": C })),
    ));
    let response = client.response();
    assert_eq!(
        (response.status, response.field_names()),
        (204, vec!["connection", "date"]),
        "{response}"
    );
    client.assert_closed();
    // Lengths of the answers in the specification's examples.
    assert_eq!(keyd.get("/key/imp").field("content-length"), Some("232"));
    let id = "aziot_identityd_master_id";
    let response = keyd.post(
        "/key",
        &json!({ "keyId": id, "keyBytes": null, "usage": "derive,sign" }),
    );
    assert_eq!(response.field("content-length"), Some("264"));
    assert_eq!(keyd.export(fixture::D).field("content-length"), Some("54"));
}

#[test]
fn ks_09_the_eleventh_connection() {
    let keyd = Keyd::with_fixture();
    let mut open: Vec<Client> = (0..10).map(|_| keyd.connect()).collect();
    for client in &mut open {
        assert_eq!(
            client
                .exchange(request("GET", &format!("/key/imp?{VERSION}"), None))
                .status,
            200
        );
    }
    keyd.connect().assert_closed();
    keyd.daemon.log().wait_for(&format!(
        "Max simultaneous connections reached for user {}",
        users::effective()
    ));
    if users::can_change("another user beside one with too many connections") {
        let response =
            keyd.connect_as(1000)
                .exchange(request("GET", &format!("/key/imp?{VERSION}"), None));
        assert_eq!(response.status, 200);
    }
    for client in &mut open {
        let response = client.exchange(request("GET", &format!("/key/imp?{VERSION}"), None));
        assert_eq!(response.status, 200);
    }
}

#[test]
fn ks_10_base64_in_every_bytes_member() {
    let keyd = Keyd::with_fixture();
    type Body = fn(&str) -> String;
    let members: [(&str, Body); 8] = [
        ("/key", |b| {
            format!(r#"{{"keyId":"b64","keyBytes":"{b}","usage":"sign"}}"#)
        }),
        ("/sign", |b| {
            format!(
                r#"{{"keyHandle":"{A}","algorithm":"HMAC-SHA256","parameters":{{"message":"{b}"}}}}"#
            )
        }),
        ("/sign", |b| {
            format!(r#"{{"keyHandle":"{A}","algorithm":"ECDSA","parameters":{{"digest":"{b}"}}}}"#)
        }),
        ("/derivedkey", |b| {
            format!(r#"{{"baseKeyHandle":"{A}","derivationData":"{b}"}}"#)
        }),
        ("/encrypt", |b| {
            format!(
                r#"{{"keyHandle":"{B}","algorithm":"AEAD","parameters":{{"iv":"","aad":""}},"plaintext":"{b}"}}"#
            )
        }),
        ("/encrypt", |b| {
            format!(
                r#"{{"keyHandle":"{B}","algorithm":"AEAD","parameters":{{"iv":"{b}","aad":""}},"plaintext":""}}"#
            )
        }),
        ("/encrypt", |b| {
            format!(
                r#"{{"keyHandle":"{B}","algorithm":"AEAD","parameters":{{"iv":"","aad":"{b}"}},"plaintext":""}}"#
            )
        }),
        ("/decrypt", |b| {
            format!(
                r#"{{"keyHandle":"{B}","algorithm":"AEAD","parameters":{{"iv":"","aad":""}},"ciphertext":"{b}"}}"#
            )
        }),
    ];
    for (path, body) in members {
        for good in ["", "QQ==", "QUI=", "QUJD", "+/+/", "\\u0051UI="] {
            let response = post_text(&keyd, path, &body(good));
            assert_ne!(response.status, 422, "{path} {good:?}: {response}");
        }
        for bad in [
            "QQ", "QQ=", "Q", "QR==", "QUJ=", "Q Q==", "QQ==\\n", "-_-_", "=", "====", "QQ==QQ==",
        ] {
            let response = post_text(&keyd, path, &body(bad));
            assert_eq!(response.status, 422, "{path} {bad:?}: {response}");
        }
    }
    // And what the accepted ones mean.
    for (text, bytes) in [
        ("QQ==", &b"A"[..]),
        ("QUI=", b"AB"),
        ("QUJD", b"ABC"),
        ("+/+/", b"\xfb\xff\xbf"),
    ] {
        let body = json!({ "keyId": "meaning", "keyBytes": text, "usage": "sign" });
        let handle = keyd.post("/key", &body).member("keyHandle");
        assert_eq!(
            keyd.sign(&handle, b"m").member("signature"),
            fixture::hmac(bytes, b"m"),
            "{text}"
        );
    }
}

#[test]
fn a_key_file_replaced_by_hand_is_used_by_every_later_request() {
    let keyd = Keyd::empty("max_requests = 40\n");
    let handle = keyd.import("k", b"before");
    let file = keyd.root.key_file("k");
    let body = fixture::sign_body(&handle, b"m");
    let request = request("POST", &format!("/sign?{VERSION}"), Some(&body));
    let mut clients: Vec<_> = (0..20).map(|_| keyd.connect()).collect();
    for round in 0..6 {
        // Long enough for the key to be kept in memory, which is where it must not be used from any more.
        std::thread::sleep(Duration::from_millis(70));
        assert_eq!(keyd.sign(&handle, b"m").status, 200);
        let key = format!("key {round}");
        keyd.root.replace(&file, &key);
        let expected = fixture::hmac(key.as_bytes(), b"m");
        if round % 2 == 0 {
            // All of them arrive together.
            keyd.daemon.suspend();
            clients.iter_mut().for_each(|client| client.send(&request));
            keyd.daemon.signal(libc::SIGCONT);
            for client in &mut clients {
                assert_eq!(client.response().member("signature"), expected, "{key}");
            }
        } else {
            let signature = clients[0].exchange(&request).member("signature");
            assert_eq!(signature, expected, "{key}");
        }
    }
}

#[test]
fn ks_18_create_keeps_and_import_replaces() {
    let keyd = Keyd::empty("");
    let first = keyd.sign(&keyd.create("k"), b"m").member("signature");
    assert_eq!(
        keyd.sign(&keyd.create("k"), b"m").member("signature"),
        first
    );
    let imported = keyd.import("k", b"imported");
    assert_eq!(
        keyd.sign(&imported, b"m").member("signature"),
        fixture::hmac(b"imported", b"m")
    );
    assert_eq!(
        keyd.sign(&keyd.create("k"), b"m").member("signature"),
        fixture::hmac(b"imported", b"m")
    );
    keyd.import("k", b"again");
    // A handle names an id, not the bytes of a key.
    assert_eq!(
        keyd.sign(&imported, b"m").member("signature"),
        fixture::hmac(b"again", b"m")
    );
    for body in [
        json!({ "keyId": "k" }),
        json!({ "keyId": "k", "keyBytes": "QUJD" }),
    ] {
        let response = keyd.post("/key", &body);
        assert_eq!(response.status, 422);
        assert!(
            response
                .member("message")
                .starts_with("missing field `usage`"),
            "{response}"
        );
    }
    assert_eq!(std::fs::read(keyd.root.key_file("k")).unwrap(), b"again");
    // An empty key protects nothing and is refused before anything is touched.
    let response = keyd.post(
        "/key",
        &json!({ "keyId": "k", "keyBytes": "", "usage": "sign" }),
    );
    assert_eq!(response.status, 400, "{response}");
    assert_eq!(std::fs::read(keyd.root.key_file("k")).unwrap(), b"again");
}

#[test]
fn ks_19_usage() {
    let keyd = Keyd::empty("");
    for usage in [
        "derive",
        "sign",
        "encrypt",
        "derive,sign",
        "derive,derive",
        "sign,derive,sign",
    ] {
        let response = keyd.post("/key", &json!({ "keyId": "k", "usage": usage }));
        assert_eq!(response.status, 200, "{usage}: {response}");
    }
    for usage in [
        "",
        "derive, sign",
        "sign,",
        ",sign",
        "verify",
        "Sign",
        "derive;sign",
        " sign",
    ] {
        let response = keyd.post("/key", &json!({ "keyId": "k", "usage": usage }));
        assert_eq!(response.status, 422, "{usage:?}: {response}");
    }
    let response = keyd.post("/key", &json!({ "keyId": "k", "usage": "foo" }));
    let message = response.member("message");
    assert!(
        message.starts_with("invalid value: string \"foo\", expected KeyUsage at line 1 column "),
        "{message}"
    );
    assert_eq!(
        keyd.post("/key", &json!({ "keyId": "k", "usage": ["sign"] }))
            .status,
        422
    );
    assert_eq!(
        keyd.post("/key", &json!({ "keyId": "k", "usage": 1 }))
            .status,
        422
    );
}

#[test]
fn ks_20_loading() {
    let keyd = Keyd::with_fixture();
    keyd.get("/key/nope").assert_message(400, INVALID);
    let handle = keyd.get("/key/imp").member("keyHandle");
    assert_eq!(
        keyd.sign(&handle, b"hello").member("signature"),
        "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="
    );
    // A damaged file is not the client's mistake.
    std::fs::write(keyd.root.key_file("imp"), b"").unwrap();
    keyd.get("/key/imp").assert_message(500, "internal error");
    std::fs::remove_file(keyd.root.key_file("imp")).unwrap();
    keyd.get("/key/imp").assert_message(400, INVALID);
    keyd.sign(A, b"hello").assert_message(400, INVALID);
}

#[test]
fn ks_21_moves_that_are_refused() {
    let keyd = Keyd::with_fixture();
    let same = "source and destination for move are identical";
    keyd.post("/keypair/a", &json!({ "from": "a" }))
        .assert_message(400, same);
    keyd.post("/keypair/a%2F%20", &json!({ "from": "a/ " }))
        .assert_message(400, same);
    keyd.post("/key/a", &json!({ "from": "a" }))
        .assert_message(400, same);
    keyd.post("/key/a", &json!({ "from": "b" }))
        .assert_message(400, "invalid type \"key\"");
    for path in ["/keypair/a", "/key/a"] {
        let response = keyd
            .connect()
            .exchange(request("POST", &format!("{path}?{VERSION}"), None));
        response.assert_message(400, "missing request body");
    }
    keyd.post("/keypair/to", &json!({ "from": "a\0b" })).assert_message(
        400,
        "parameter \"from\" has an invalid value\ncaused by: nul byte found in provided data at position: 1",
    );
    keyd.post("/keypair/t%00o", &json!({ "from": "a" })).assert_message(
        400,
        "parameter \"to\" has an invalid value\ncaused by: nul byte found in provided data at position: 1",
    );
}

#[test]
fn ks_22_deleting() {
    let keyd = Keyd::with_fixture();
    let wrong = |kind: &str| {
        format!("parameter \"handle\" has an invalid value\ncaused by: handle is not for {kind}")
    };
    keyd.delete("/key", B).assert_message(400, &wrong("a key"));
    keyd.delete("/key", fixture::D)
        .assert_message(400, &wrong("a key"));
    keyd.delete("/keypair", A)
        .assert_message(400, &wrong("a key pair"));
    keyd.delete("/keypair", fixture::D)
        .assert_message(400, &wrong("a key pair"));
    keyd.export(A).assert_message(400, &wrong("a derived key"));
    for _ in 0..2 {
        assert_eq!(keyd.delete("/key", A).status, 204);
        assert!(!keyd.root.key_file("imp").exists());
    }
    keyd.get("/key/imp").assert_message(400, INVALID);
    keyd.sign(A, b"hello").assert_message(400, INVALID);
    keyd.export(fixture::D).assert_message(400, INVALID);
    // The id can be used again, and the old handle with it.
    keyd.import("imp", b"new");
    assert_eq!(
        keyd.sign(A, b"m").member("signature"),
        fixture::hmac(b"new", b"m")
    );
}

#[test]
fn mechanisms_must_fit_the_kind_of_key() {
    let keyd = Keyd::with_fixture();
    let text = "parameter \"mechanism\" has an invalid value\ncaused by: mechanism cannot be used with this key type";
    let ecdsa = |handle: &str| json!({ "keyHandle": handle, "algorithm": "ECDSA", "parameters": { "digest": "" } });
    let aead = |handle: &str, input: &str| json!({ "keyHandle": handle, "algorithm": "AEAD", "parameters": { "iv": "", "aad": "" }, input: "" });
    let rsa = |handle: &str, input: &str| json!({ "keyHandle": handle, "algorithm": "RSA-NO-PADDING", input: "" });
    for (path, body) in [
        ("/sign", fixture::sign_body(B, b"")),
        ("/sign", ecdsa(A)),
        ("/sign", ecdsa(fixture::D)),
        ("/encrypt", aead(B, "plaintext")),
        ("/encrypt", rsa(A, "plaintext")),
        ("/encrypt", rsa(fixture::D, "plaintext")),
        ("/decrypt", aead(B, "ciphertext")),
        ("/decrypt", rsa(A, "ciphertext")),
        ("/decrypt", rsa(B, "ciphertext")),
        ("/decrypt", rsa(fixture::D, "ciphertext")),
    ] {
        keyd.post(path, &body).assert_message(400, text);
    }
}

#[test]
fn odd_ids_round_trip() {
    let keyd = Keyd::empty("");
    for id in [
        "a/b",
        "100%",
        "%41",
        "two words",
        "quote\"back\\slash",
        "Ünïcode",
        "+",
        "..",
        "a\nb",
        "\u{1F600}",
        "x?y#z",
    ] {
        keyd.import(id, id.as_bytes());
        let mut path = String::from("/key/");
        for byte in id.bytes() {
            path.push_str(&format!("%{byte:02X}"));
        }
        let handle = keyd.get(&path).member("keyHandle");
        assert_eq!(
            keyd.sign(&handle, b"m").member("signature"),
            fixture::hmac(id.as_bytes(), b"m"),
            "{id:?}"
        );
        let sr: Value = serde_json::from_str(&fixture::handle_text(&handle)).unwrap();
        assert_eq!(sr["key_id"]["Key"], json!(id));
        assert_eq!(
            std::fs::read(keyd.root.key_file(id)).unwrap(),
            id.as_bytes()
        );
    }
    // The empty id exists as well, but no path leads to it.
    let handle = keyd.import("", b"empty id");
    assert_eq!(
        keyd.sign(&handle, b"m").member("signature"),
        fixture::hmac(b"empty id", b"m")
    );
    let nul = "parameter \"id\" has an invalid value\ncaused by: nul byte found in provided data at position: 1";
    keyd.post("/key", &json!({ "keyId": "a\0b", "usage": "sign" }))
        .assert_message(400, nul);
    keyd.get("/key/a%00b").assert_message(400, nul);
    let text = format!(
        "{{\"key_id\":{{\"Key\":\"a\\u0000b\"}},\"nonce\":\"{}\"}}",
        fixture::NONCE
    );
    // Here the handle key is this service's own, so the handle has to be made with it.
    let fixture = Keyd::with_fixture();
    let nul = "parameter \"handle\" has an invalid value\ncaused by: nul byte found in provided data at position: 1";
    fixture
        .sign(&fixture::handle(&text), b"m")
        .assert_message(400, nul);
    assert_eq!(
        keyd.post(
            "/key",
            &json!({ "keyId": "x".repeat(300), "usage": "sign" })
        )
        .status,
        500
    );
}

#[test]
fn large_messages_are_signed() {
    let keyd = Keyd::with_fixture();
    for size in [0, 1, 63, 64, 65, 4_000, 20_000, 1_000_000, 5_000_000] {
        let message: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let response = keyd.sign(A, &message);
        assert_eq!(
            response.member("signature"),
            fixture::hmac(b"test-symmetric-key", &message),
            "{size}"
        );
    }
    let response = keyd.connect().exchange(format!(
        "POST /sign?{VERSION} HTTP/1.1\r\ncontent-length: 8388609\r\n\r\n"
    ));
    assert_eq!(response.status, 413);
    response.assert_framing();
}

#[test]
fn ks_38_the_log_keeps_secrets() {
    let root = Root::new();
    fixture::install(&root);
    let keyd = Keyd::launch(root, |launch| launch.env("AZIOT_LOG", "trace"));
    let bytes = b"a very secret key, bytes of it";
    let encoded = Base64::encode_string(bytes);
    let imported = keyd.import("secret", bytes);
    let signature = keyd
        .sign(&imported, b"a secret message")
        .member("signature");
    let derived = keyd.derive(&imported, b"secret derivation");
    let exported = keyd.export(&derived).member("key");
    // Failures are where secrets slip out.
    let damaged = imported.replace("&sig=", "&sig=A");
    keyd.sign(&damaged, b"a secret message");
    keyd.export(&imported);
    keyd.delete("/keypair", &imported);
    post_text(
        &keyd,
        "/key",
        &format!("{{\"keyId\":\"k\",\"keyBytes\":\"{encoded}\",\"usage\":\"nonsense\"}}"),
    );
    post_text(
        &keyd,
        "/key",
        &format!("{{\"keyId\":\"k\",\"keyBytes\":\"{encoded}!\",\"usage\":\"sign\"}}"),
    );
    post_text(&keyd, "/sign", &format!("\"{imported}\""));
    let aead = json!({
        "keyHandle": C, "algorithm": "AEAD", "parameters": { "iv": "MTIzNDU2Nzg5MDEy", "aad": "" },
        "plaintext": Base64::encode_string(b"a secret message"),
    });
    keyd.post("/encrypt", &aead);
    let mut client = keyd.connect();
    client.send(format!("GET /key/nope?{VERSION} HTTP/1.1\r\nauthorization: Basic c2VjcmV0\r\ncookie: id=c2VjcmV0\r\n\r\n"));
    client.response();
    let log = keyd.daemon.stop().log;
    let sr = |handle: &str| handle[3..60].to_owned();
    let sig = |handle: &str| handle.split("&sig=").nth(1).unwrap().to_owned();
    for secret in [
        "a very secret key",
        &encoded,
        &signature,
        &exported,
        &sr(&imported),
        &sig(&imported),
        &sig(&derived),
        &sr(&damaged),
        "a secret message",
        &Base64::encode_string(b"a secret message"),
        "secret derivation",
        "c2VjcmV0",
        &sig(C),
        "test-symmetric-key",
    ] {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
    assert!(log.contains("<-- POST /sign"), "{log}");
}

/// A client as deployed ones parse answers: the head has to be in the first read of 512 bytes, at most 16 fields, the exact
/// content type, a length for every body (spec, daemon chapter B.5).
fn blocking_client(
    keyd: &Keyd,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Value, String> {
    use std::io::{Read as _, Write as _};

    let mut stream = std::os::unix::net::UnixStream::connect(keyd.daemon.socket()).unwrap();
    stream
        .set_read_timeout(Some(aziot_tests::client::PATIENCE))
        .unwrap();
    // Many small writes, no host.
    for part in [method, " ", path, "?", VERSION, " HTTP/1.1\r\n"] {
        stream.write_all(part.as_bytes()).unwrap();
    }
    if let Some(body) = body {
        write!(
            stream,
            "content-length: {}\r\ncontent-type: application/json\r\n",
            body.len()
        )
        .unwrap();
    }
    stream.write_all(b"\r\n").unwrap();
    if let Some(body) = body {
        stream.write_all(body.as_bytes()).unwrap();
    }
    let mut buffer = [0; 512];
    let count = stream.read(&mut buffer).unwrap();
    let first = &buffer[..count];
    let end = first
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("unexpected end of file")?
        + 4;
    let head = std::str::from_utf8(&first[..end]).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(':').unwrap()).collect();
    if fields.len() > 16 {
        return Err("TooManyHeaders".into());
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let mut body = first[end..].to_vec();
    match field("content-length") {
        Some(length) => {
            let mut rest = vec![0; length.parse::<usize>().unwrap() - body.len()];
            stream.read_exact(&mut rest).unwrap();
            body.extend(rest);
        }
        None => {
            stream.read_to_end(&mut body).unwrap();
        }
    }
    if status == "204" {
        return if body.is_empty() {
            Ok(Value::Null)
        } else {
            Err("malformed HTTP response".into())
        };
    }
    if field("content-type") != Some("application/json") {
        return Err("malformed HTTP response".into());
    }
    let value: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    match status.as_str() {
        "200" | "201" => Ok(value),
        _ => Err(value["message"]
            .as_str()
            .ok_or("malformed HTTP response")?
            .to_owned()),
    }
}

#[test]
fn a_client_that_reads_the_head_once_is_served() {
    let keyd = Keyd::empty("");
    let created = blocking_client(
        &keyd,
        "POST",
        "/key",
        Some(r#"{"keyId":"a","keyBytes":null,"usage":"derive,sign"}"#),
    );
    assert!(created.unwrap()["keyHandle"].is_string());
    let loaded = blocking_client(&keyd, "GET", "/key/a", None).unwrap();
    let handle = loaded["keyHandle"].as_str().unwrap();
    let body = fixture::sign_body(handle, b"m").to_string();
    let signed = blocking_client(&keyd, "POST", "/sign", Some(&body)).unwrap();
    let key = std::fs::read(keyd.root.key_file("a")).unwrap();
    assert_eq!(signed["signature"], json!(fixture::hmac(&key, b"m")));
    let body = json!({ "keyHandle": handle }).to_string();
    for _ in 0..2 {
        assert_eq!(
            blocking_client(&keyd, "DELETE", "/key", Some(&body)),
            Ok(Value::Null)
        );
    }
    assert_eq!(
        blocking_client(&keyd, "GET", "/key/a", None),
        Err(INVALID.to_owned())
    );
    // Many at once, none of them patient with split heads.
    keyd.create("a");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    blocking_client(&keyd, "GET", "/key/a", None).unwrap();
                }
            });
        }
    });
}

#[test]
fn curl_is_served() {
    let keyd = Keyd::empty("");
    let output = std::process::Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--unix-socket",
        ])
        .arg(keyd.daemon.socket())
        .args([
            "-H",
            "content-type: application/json",
            "-d",
            r#"{"keyId":"k","usage":"sign"}"#,
        ])
        .arg(format!("http://keyd.sock/key?{VERSION}"))
        .output()
        .expect("`curl`; `make test` installs it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["keyHandle"].is_string());
    let _ = Client::connect(keyd.daemon.socket());
}
