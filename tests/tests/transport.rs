//! Conformance vectors of the transport (spec, daemon chapter B.6), over a service that has the routes they name.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::time::{Duration, Instant};

use aziot_tests::client::{Client, Response};
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::root::Root;
use serde_json::{Value, json};

const V: &str = "api-version=2020-09-01";
const JSON: Option<&[u8]> = Some(b"application/json");
const K: &[u8] = br#"{"keyId":"k"}"#;

struct Stub {
    daemon: Daemon,
    _root: Root,
}

impl Stub {
    fn start() -> Self {
        Self::with(|launch| launch)
    }

    fn with(change: impl FnOnce(Launch) -> Launch) -> Self {
        let root = Root::new();
        Self {
            daemon: change(Launch::stub(&root)).start(),
            _root: root,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.daemon.socket())
    }

    fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.connect().exchange(bytes)
    }

    fn get(&self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\n\r\n"))
    }

    fn body(
        &self,
        method: &str,
        target: &str,
        content_type: Option<&[u8]>,
        body: &[u8],
    ) -> Response {
        self.send(with_body(method, target, content_type, body))
    }

    /// A body for `/items/a`, under the first version.
    fn item(&self, method: &str, content_type: Option<&[u8]>, body: &[u8]) -> Response {
        self.body(method, &format!("/items/a?{V}"), content_type, body)
    }
}

fn with_body(method: &str, target: &str, content_type: Option<&[u8]>, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    if let Some(content_type) = content_type {
        bytes.extend_from_slice(b"content-type: ");
        bytes.extend_from_slice(content_type);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The answer is 200, and the handler saw this path parameter.
#[track_caller]
fn assert_id(response: &Response, id: &str) {
    assert_eq!(
        (response.status, response.json()["id"].as_str()),
        (200, Some(id)),
        "{response}"
    );
    response.assert_framing();
}

/// A bare refusal of something that is no request: no JSON, and the connection is not used any further.
#[track_caller]
fn assert_refused(mut client: Client, status: u16) {
    let response = client.response();
    assert_eq!(
        (response.version.as_str(), response.status, response.text()),
        ("HTTP/1.1", status, ""),
        "{response}"
    );
    assert_eq!(response.field("content-type"), None, "{response}");
    assert_eq!(response.field("connection"), Some("close"), "{response}");
    response.assert_framing();
    client.assert_closed();
}

#[test]
fn ht_10_vector_01_get_without_host() {
    assert_id(&Stub::start().get(&format!("/items/a?{V}")), "a");
}

#[test]
fn ht_10_vector_02_absolute_form() {
    assert_id(
        &Stub::start().get(&format!("http://keyd.sock/items/a?{V}")),
        "a",
    );
}

#[test]
fn ht_10_vector_03_no_version() {
    let stub = Stub::start();
    for target in [
        "/items/a",
        "/items/a?",
        "/nope",
        "/items/a?Api-Version=2020-09-01",
        "/nope?x=1",
    ] {
        stub.get(target)
            .assert_message(400, "api-version not specified");
    }
    let mut client = stub.connect();
    client.send("OPTIONS * HTTP/1.1\r\n\r\n");
    client
        .response()
        .assert_message(400, "api-version not specified");
}

#[test]
fn ht_10_vector_04_unknown_version() {
    Stub::start()
        .get("/items/a?api-version=2019-01-01")
        .assert_message(400, "invalid api-version \"2019-01-01\"");
}

#[test]
fn ht_10_vector_05_empty_version() {
    let stub = Stub::start();
    for target in ["/items/a?api-version=", "/items/a?api-version"] {
        stub.get(target)
            .assert_message(400, "invalid api-version \"\"");
    }
}

#[test]
fn ht_10_vector_06_strange_version_is_quoted() {
    let response = Stub::start().get("/items/a?api-version=a%22b%5c%0a%C3%A9%ff");
    response.assert_message(400, "invalid api-version \"a\\\"b\\\\\\né\u{fffd}\"");
    assert_eq!(
        response.text(),
        "{\"message\":\"invalid api-version \\\"a\\\\\\\"b\\\\\\\\\\\\né\u{fffd}\\\"\"}"
    );
}

#[test]
fn ht_10_vector_07_the_last_version_counts() {
    let stub = Stub::start();
    assert_id(&stub.get(&format!("/items/a?api-version=x&{V}")), "a");
    stub.get(&format!("/items/a?{V}&api-version=x"))
        .assert_message(400, "invalid api-version \"x\"");
}

#[test]
fn ht_10_vector_08_plus_is_a_space() {
    let response = Stub::start().get("/items/a?api-version=2020-09-01+");
    response.assert_message(400, "invalid api-version \"2020-09-01 \"");
}

#[test]
fn ht_10_vector_09_encoded_name_and_value() {
    assert_id(
        &Stub::start().get("/items/a?api%2Dversion=2020%2D09-01"),
        "a",
    );
}

#[test]
fn ht_10_vector_10_other_parameters() {
    let response = Stub::start().get(&format!("/items/a?type=a+b%20c&type=2&{V}&flag&=v"));
    assert_id(&response, "a");
    // Of all parameters the services use the first `type` only; core's own test of this vector sees every pair.
    assert_eq!(response.json()["type"], json!("a b c"));
}

#[test]
fn ht_10_vector_11_unknown_path() {
    let stub = Stub::start();
    stub.get(&format!("/nope?{V}"))
        .assert_message(404, "not found");
    stub.send(format!("FOO /nope?{V} HTTP/1.1\r\n\r\n"))
        .assert_message(404, "not found");
}

#[test]
fn ht_10_vector_12_paths_that_do_not_match() {
    let stub = Stub::start();
    for path in [
        "/newer",
        "/items/a/",
        "//items/a",
        "/items/",
        "/items/%ff",
        "/items",
        "/%69tems/a",
        "/items/a/b",
        "/",
    ] {
        stub.get(&format!("{path}?{V}"))
            .assert_message(404, "not found");
    }
    let response = stub.get("/newer?api-version=2022-08-01");
    assert_eq!(
        (response.status, response.json()),
        (200, json!({ "version": 1 }))
    );
}

#[test]
fn ht_10_vector_13_encoded_parameter() {
    assert_id(
        &Stub::start().get(&format!("/items/a%2Fb%20c+d%25?{V}")),
        "a/b c+d%",
    );
}

#[test]
fn ht_10_vector_14_malformed_escapes_stay() {
    assert_id(&Stub::start().get(&format!("/items/a%zz%?{V}")), "a%zz%");
}

#[test]
fn ht_10_vector_15_odd_parameters() {
    let stub = Stub::start();
    assert_id(&stub.get(&format!("/items/a%00b?{V}")), "a\0b");
    assert_id(&stub.get(&format!("/items/..?{V}")), "..");
    assert_id(&stub.get(&format!("/items/é?{V}")), "é");
}

#[test]
fn ht_10_vector_16_other_methods() {
    let stub = Stub::start();
    for method in ["OPTIONS", "PATCH", "TRACE", "CONNECT", "FOO", "get"] {
        let response = stub.send(format!("{method} /items/a?{V} HTTP/1.1\r\n\r\n"));
        response.assert_message(400, "method not allowed");
        assert_eq!(response.field("allow"), None);
    }
    let mut client = stub.connect();
    client.send(format!("HEAD /items/a?{V} HTTP/1.1\r\n\r\n"));
    let response = client.response_to_head();
    assert_eq!(
        (response.status, response.field("content-length")),
        (400, Some("32"))
    );
    assert_eq!(
        response.field_names(),
        ["content-type", "content-length", "date"]
    );
    // No body came: the next answer begins where the head ended.
    assert_id(
        &client.exchange(format!("GET /items/b?{V} HTTP/1.1\r\n\r\n")),
        "b",
    );
}

#[test]
fn ht_10_vector_17_method_of_another_route() {
    let stub = Stub::start();
    let response = stub.body("POST", "/newer?api-version=2022-08-01", JSON, b"{}");
    response.assert_message(400, "method not allowed");
}

#[test]
fn ht_10_vector_18_the_body_is_judged_first() {
    let response = Stub::start().body("DELETE", "/newer?api-version=2022-08-01", JSON, b"{");
    response.assert_message(422, "EOF while parsing an object at line 1 column 1");
}

#[test]
fn ht_10_vector_19_put_needs_a_body() {
    let stub = Stub::start();
    for content_type in [JSON, None] {
        let response = stub.body("PUT", "/newer?api-version=2022-08-01", content_type, b"");
        response.assert_message(422, "EOF while parsing a value at line 1 column 0");
    }
    let response = stub.send("PUT /newer?api-version=2022-08-01 HTTP/1.1\r\n\r\n");
    response.assert_message(422, "EOF while parsing a value at line 1 column 0");
}

#[test]
fn ht_10_vector_20_content_types_that_are_json() {
    let stub = Stub::start();
    let types: [Option<&[u8]>; 5] = [
        None,
        JSON,
        Some(b"application/json; charset=utf-8"),
        Some(b"application/json ;x"),
        Some(b"application/json\xff"),
    ];
    for content_type in types {
        let response = stub.item("POST", content_type, K);
        assert_eq!(
            (response.status, &response.json()["keyId"]),
            (200, &json!("k")),
            "{content_type:?}: {response}"
        );
    }
}

/// Content types that are not JSON, as header lines.
const OTHER_TYPES: [&str; 3] = [
    "content-type: Application/JSON",
    "content-type: text/plain",
    "content-type: text/plain\r\ncontent-type: application/json",
];

fn with_type_lines(method: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} /items/a?{V} HTTP/1.1\r\n{lines}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn ht_10_vector_21_post_of_another_type_has_no_body() {
    let stub = Stub::start();
    for lines in OTHER_TYPES {
        stub.send(with_type_lines("POST", lines, K))
            .assert_message(400, "missing request body");
    }
    let lines = "content-type: application/json\r\ncontent-type: text/plain";
    assert_id(&stub.send(with_type_lines("POST", lines, K)), "a");
}

#[test]
fn ht_10_vector_22_put_of_another_type() {
    let stub = Stub::start();
    for lines in OTHER_TYPES {
        stub.send(with_type_lines("PUT", lines, K))
            .assert_message(415, "request body must be application/json");
    }
}

#[test]
fn ht_10_vector_23_delete_of_another_type_has_no_body() {
    let stub = Stub::start();
    for lines in OTHER_TYPES {
        let response = stub.send(with_type_lines("DELETE", lines, K));
        assert_id(&response, "a");
        assert_eq!(response.json().get("keyId"), None);
    }
    assert_eq!(stub.item("DELETE", JSON, K).json()["keyId"], json!("k"));
}

#[test]
fn ht_10_vector_24_post_without_body() {
    let stub = Stub::start();
    for content_type in [None, JSON, Some(&b"text/plain"[..])] {
        stub.item("POST", content_type, b"")
            .assert_message(400, "missing request body");
    }
    stub.send(format!("POST /items/a?{V} HTTP/1.1\r\n\r\n"))
        .assert_message(400, "missing request body");
}

#[test]
fn ht_10_vector_25_put_without_body() {
    let stub = Stub::start();
    stub.item("PUT", JSON, b"")
        .assert_message(422, "EOF while parsing a value at line 1 column 0");
    stub.item("PUT", Some(b"text/plain"), b"")
        .assert_message(415, "request body must be application/json");
}

#[track_caller]
fn assert_unprocessable(body: &[u8], message: &str) {
    Stub::start()
        .item("POST", JSON, body)
        .assert_message(422, message);
}

#[test]
fn ht_10_vector_26_cut_short() {
    assert_unprocessable(
        br#"{"keyId":"#,
        "EOF while parsing a value at line 1 column 9",
    );
}

#[test]
fn ht_10_vector_27_missing_member() {
    assert_unprocessable(b"{}", "missing field `keyId` at line 1 column 2");
}

#[test]
fn ht_10_vector_28_wrong_type() {
    assert_unprocessable(
        br#"{"keyId":1}"#,
        "invalid type: integer `1`, expected a string at line 1 column 10",
    );
}

#[test]
fn ht_10_vector_29_trailing_text() {
    assert_unprocessable(
        br#"{"keyId":"k"}x"#,
        "trailing characters at line 1 column 14",
    );
}

#[test]
fn ht_10_vector_30_repeated_member() {
    assert_unprocessable(
        br#"{"keyId":"a","keyId":"b"}"#,
        "duplicate field `keyId` at line 1 column 20",
    );
}

#[test]
fn ht_10_vector_31_foreign_symbol() {
    assert_unprocessable(
        br#"{"keyId":"a","n":"@@"}"#,
        "Invalid symbol 64, offset 0. at line 1 column 21",
    );
}

#[test]
fn ht_10_vector_32_missing_padding() {
    assert_unprocessable(
        br#"{"keyId":"a","n":"YQ"}"#,
        "Invalid padding at line 1 column 21",
    );
}

#[test]
fn ht_10_vector_33_url_alphabet() {
    assert_unprocessable(
        br#"{"keyId":"a","n":"_-8="}"#,
        "Invalid symbol 95, offset 0. at line 1 column 23",
    );
}

#[test]
fn ht_10_vector_34_lenient_forms() {
    let stub = Stub::start();
    for (body, id, n) in [
        (&br#"["a",null]"#[..], "a", Value::Null),
        (br#"{"keyId":"a","zz":[1]}"#, "a", Value::Null),
        (b"{\"keyId\":\"k\"} \n", "k", Value::Null),
        (
            br#" { "n" : "+/+/" , "keyId" : "\u00e9\/\ud83d\ude00" } "#,
            "é/😀",
            json!([0xfb, 0xff, 0xbf]),
        ),
    ] {
        let response = stub.item("POST", JSON, body);
        assert_id(&response, "a");
        assert_eq!(
            (
                response.json()["keyId"].clone(),
                response.json()["n"].clone()
            ),
            (json!(id), n),
            "{response}"
        );
    }
}

#[test]
fn ht_10_vector_35_ht_13_a_body_that_stalls() {
    let scale = 0.1;
    let stub = Stub::with(|launch| launch.time_scale(scale));
    let mut client = stub.connect();
    let start = Instant::now();
    client.send(format!(
        "POST /items/a?{V} HTTP/1.1\r\ncontent-length: 100\r\n\r\n{{"
    ));
    let response = client.response();
    let elapsed = start.elapsed();
    response.assert_message(408, "deadline has elapsed");
    assert_eq!(response.field("connection"), Some("close"));
    assert!(
        elapsed >= Duration::from_secs(5).mul_f64(scale),
        "after {elapsed:?}"
    );
    client.assert_closed();
}

#[test]
fn ht_10_vector_36_a_body_that_ends_early() {
    let stub = Stub::start();
    for framing in [
        "content-length: 100\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\n5\r\n{",
    ] {
        let mut client = stub.connect();
        client.send(format!("POST /items/a?{V} HTTP/1.1\r\n{framing}"));
        client.finish_sending();
        let response = client.response();
        assert_eq!(response.status, 400);
        if framing.starts_with("content-length") {
            let detail = "end of file before message length reached";
            response.assert_message(
                400,
                &format!("error reading a body from connection\ncaused by: {detail}"),
            );
        }
        assert_eq!(response.field("connection"), Some("close"));
        client.assert_closed();
    }
}

#[test]
fn ht_10_vector_37_chunked() {
    let stub = Stub::start();
    let head = format!("POST /items/a?{V} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
    for body in [
        "d\r\n{\"keyId\":\"k\"}\r\n0\r\n\r\n",
        "1;name=value\r\n{\r\nC\r\n\"keyId\":\"k\"}\r\n000\r\nTrailer: x\r\n\r\n",
    ] {
        let mut client = stub.connect();
        let response = client.exchange(format!("{head}{body}"));
        assert_eq!(
            (response.status, &response.json()["keyId"]),
            (200, &json!("k")),
            "{response}"
        );
        // The same in pieces of one byte, on the same connection.
        for byte in format!("{head}{body}").bytes() {
            client.send([byte]);
        }
        assert_eq!(client.response().json()["keyId"], json!("k"));
    }
    let mut client = stub.connect();
    let response = client.exchange(format!("{head}x\r\n"));
    assert_eq!(response.status, 400);
    assert_eq!(
        response.text(),
        r#"{"message":"error reading a body from connection\ncaused by: Invalid chunk size line: missing size digit"}"#
    );
}

#[test]
fn ht_10_vector_38_no_content() {
    let stub = Stub::start();
    let mut client = stub.connect();
    for _ in 0..2 {
        let response = client.exchange(format!("GET /nc?{V} HTTP/1.1\r\n\r\n"));
        assert_eq!(
            (response.version.as_str(), response.status),
            ("HTTP/1.1", 204)
        );
        assert_eq!(response.field_names(), ["date"]);
        response.assert_framing();
    }
    assert_id(
        &client.exchange(format!("GET /items/a?{V} HTTP/1.1\r\n\r\n")),
        "a",
    );
    // For calls whose clients would wait for a body.
    let response = client.exchange(format!("GET /ncc?{V} HTTP/1.1\r\n\r\n"));
    assert_eq!(
        (response.status, response.field("connection")),
        (204, Some("close"))
    );
    client.assert_closed();
}

#[test]
fn ht_10_vector_39_no_requests() {
    let stub = Stub::start();
    let target = format!("/items/a?{V}");
    for head in [
        "asdf\r\n\r\n".to_owned(),
        format!("GET {target} HTTP/1.2\r\n\r\n"),
        format!("GET {target} HTTP/2.0\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nnocolon\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nfoo : bar\r\n\r\n"),
        format!("GET items/a?{V} HTTP/1.1\r\n\r\n"),
        format!("GET /items/a b?{V} HTTP/1.1\r\n\r\n"),
        format!("GET {target}\r\n\r\n"),
        format!("POST {target} HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        format!("POST {target} HTTP/1.1\r\ncontent-length: -1\r\n\r\n"),
        format!("POST {target} HTTP/1.1\r\ncontent-length: 1x\r\n\r\n"),
        format!("POST {target} HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n"),
        format!("POST {target} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        println!("{head:?}");
        let mut client = stub.connect();
        client.send(&head);
        assert_refused(client, 400);
    }
}

#[test]
fn ht_10_vector_40_too_many_fields() {
    let stub = Stub::start();
    let fields = |count: usize| {
        (0..count)
            .map(|n| format!("f{n}: x\r\n"))
            .collect::<String>()
    };
    assert_id(
        &stub.send(format!("GET /items/a?{V} HTTP/1.1\r\n{}\r\n", fields(100))),
        "a",
    );
    let mut client = stub.connect();
    client.send(format!("GET /items/a?{V} HTTP/1.1\r\n{}\r\n", fields(101)));
    assert_refused(client, 431);
}

#[test]
fn ht_10_vector_41_long_targets() {
    let stub = Stub::start();
    let frame = format!("/items/?{V}").len();
    let target = |length: usize| format!("/items/{}?{V}", "a".repeat(length - frame));
    assert_id(&stub.get(&target(65_534)), &"a".repeat(65_534 - frame));
    let mut client = stub.connect();
    client.send(format!("GET {} HTTP/1.1\r\n\r\n", target(65_535)));
    assert_refused(client, 414);
}

#[test]
fn every_vector_has_a_test() {
    let source = include_str!("transport.rs");
    for number in 1..=41 {
        assert!(
            source.contains(&format!("fn ht_10_vector_{number:02}_")),
            "vector {number}"
        );
    }
}
