//! The interface over the wire: statuses, texts, who may do what (certificates-service 4 and 5).

use std::time::{Duration, Instant};

use aziot_tests::certd::{Services, VERSION, csr, ec_key, root};
use aziot_tests::client::{Client, request};
use aziot_tests::users;
use serde_json::json;

/// A request with a body of any type.
fn with_type(method: &str, path: &str, kind: Option<&str>, body: &str) -> String {
    let kind = kind.map_or(String::new(), |kind| format!("content-type: {kind}\r\n"));
    format!(
        "{method} {path} HTTP/1.1\r\nhost: certd.sock\r\n{kind}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Method, target, content type, body; status and body of the answer.
type Row<'a> = (&'a str, &'a str, Option<&'a str>, &'a str, u16, &'a str);

#[test]
fn cs_17_the_exchanges_of_the_contract() {
    let services = Services::start("");
    let path = format!("/certificates/x?{VERSION}");
    let put = services.connect().exchange(with_type(
        "PUT",
        &path,
        Some("application/json; charset=utf-8"),
        "{\"pem\":\"hello\",\"extra\":1}",
    ));
    assert_eq!((put.status, put.text()), (201, "{\"pem\":\"hello\"}"));
    assert_eq!(
        put.field_names(),
        ["content-type", "content-length", "date"]
    );
    assert_eq!(put.field("content-type"), Some("application/json"));
    let not_found =
        "{\"message\":\"parameter \\\"id\\\" has an invalid value\\ncaused by: not found\"}";
    let missing = "{\"message\":\"missing request body\"}";
    let all = format!("/certificates?{VERSION}");
    let rows: [Row<'_>; 14] = [
        ("GET", &path, None, "", 200, "{\"pem\":\"hello\"}"),
        ("DELETE", &path, None, "", 204, ""),
        ("DELETE", &path, None, "", 204, ""),
        ("GET", &path, None, "", 400, not_found),
        (
            "GET",
            "/certificates/x",
            None,
            "",
            400,
            "{\"message\":\"api-version not specified\"}",
        ),
        (
            "GET",
            "/foo?api-version=2020-09-01",
            None,
            "",
            404,
            "{\"message\":\"not found\"}",
        ),
        (
            "GET",
            &all,
            None,
            "",
            400,
            "{\"message\":\"method not allowed\"}",
        ),
        (
            "GET",
            "/certificates/a/b?api-version=2020-09-01",
            None,
            "",
            404,
            "{\"message\":\"not found\"}",
        ),
        (
            "GET",
            "/certificates/%ff?api-version=2020-09-01",
            None,
            "",
            404,
            "{\"message\":\"not found\"}",
        ),
        ("POST", &all, None, "", 400, missing),
        ("POST", &all, Some("text/plain"), "{}", 400, missing),
        (
            "PUT",
            &path,
            Some("text/plain"),
            "{}",
            415,
            "{\"message\":\"request body must be application/json\"}",
        ),
        (
            "POST",
            &all,
            Some("application/json"),
            "{}",
            422,
            "{\"message\":\"missing field `certId` at line 1 column 2\"}",
        ),
        (
            "DELETE",
            &path,
            Some("application/json"),
            "{\"unknown\":[1]}",
            204,
            "",
        ),
    ];
    for (method, target, kind, body, status, text) in rows {
        let response = services
            .connect()
            .exchange(with_type(method, target, kind, body));
        response.assert_framing();
        assert_eq!(
            (response.status, response.text()),
            (status, text),
            "{method} {target}"
        );
    }
    for (method, target, kind, body, status, text) in [
        (
            "POST",
            &all,
            None,
            "{\"certId\":\"a\",\"certId\":1}",
            422,
            "duplicate field `certId` at line 1 column 22",
        ),
        (
            "PUT",
            &path,
            None,
            "",
            422,
            "EOF while parsing a value at line 1 column 0",
        ),
        (
            "PUT",
            &path,
            None,
            "{\"pem\":5}",
            422,
            "invalid type: integer `5`, expected a base64-encoded string at line 1 column 8",
        ),
        (
            "DELETE",
            &path,
            None,
            "{",
            422,
            "EOF while parsing an object at line 1 column 1",
        ),
        ("PATCH", &path, None, "", 400, "method not allowed"),
        ("PUT", &all, None, "{}", 400, "method not allowed"),
    ] {
        services
            .connect()
            .exchange(with_type(method, target, kind, body))
            .assert_message(status, text);
    }
}

#[test]
fn cs_17_bodies_have_a_limit() {
    let services = Services::start("");
    let path = format!("/certificates/x?{VERSION}");
    let limit = 1024 * 1024;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: certd.sock\r\ncontent-length: {}\r\n\r\n",
        limit + 1
    );
    let refused = services.connect().exchange(head);
    refused.assert_message(413, "request body is larger than 1048576 bytes");
    let text = "a".repeat(limit - "{\"pem\":\"\"}".len());
    assert_eq!(services.put("x", &text).status, 201);
    assert_eq!(services.get("x").member("pem").len(), text.len());
}

#[test]
fn cs_18_versions_come_before_everything_else() {
    let services = Services::start("");
    for (target, status, message) in [
        (
            "/certificates/x?api-version=2020-09-01&api-version=1",
            400,
            "invalid api-version \"1\"",
        ),
        ("/foo?api-version=1", 400, "invalid api-version \"1\""),
        ("/foo", 400, "api-version not specified"),
        (
            "/certificates?api-version=2020-09-02",
            400,
            "invalid api-version \"2020-09-02\"",
        ),
        (
            "/certificates/x?api-version=1&x=y&api-version=2020-09-01",
            400,
            "parameter \"id\" has an invalid value\ncaused by: not found",
        ),
        ("/status?api-version=2020-09-01", 404, "not found"),
    ] {
        services
            .connect()
            .exchange(request("GET", target, None))
            .assert_message(status, message);
    }
}

#[test]
fn cs_19_ids_in_paths() {
    let services = Services::start("");
    for (segment, id) in [
        ("a%2Fb", "a/b"),
        ("a+b", "a+b"),
        ("a%zzb", "a%zzb"),
        ("%", "%"),
        ("nul%00", "nul\0"),
        ("%E2%82%AC", "€"),
        ("a%41", "aA"),
    ] {
        assert_eq!(services.put(segment, id).status, 201, "{segment}");
        assert!(services.file(id).exists(), "{segment}");
        assert_eq!(services.get(segment).member("pem"), id);
    }
    for segment in ["%ff", "a%c3", "%ed%a0%80", "", "a/b"] {
        services.get(segment).assert_message(404, "not found");
    }
}

#[test]
fn cs_20_a_body_that_stalls() {
    let services = Services::start("");
    let mut stalled = services.connect();
    let start = Instant::now();
    stalled.send(format!(
        "PUT /certificates/x?{VERSION} HTTP/1.1\r\nhost: certd.sock\r\ncontent-length: 10\r\n\r\n{{"
    ));
    // Nobody else notices.
    assert_eq!(services.put("y", "y").status, 201);
    stalled
        .response()
        .assert_message(408, "deadline has elapsed");
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(4900) && took < Duration::from_secs(25),
        "{took:?}"
    );
}

#[test]
fn cs_21_who_may_do_what() {
    if !users::can_change("authorization") {
        return;
    }
    const UID: u32 = 40_000;
    let root = root(&format!(
        "[[principal]]\nuid = {UID}\ncerts = [\"test*\", \"a?c\"]\n[[principal]]\nuid = {UID}\ncerts = [\"c?t\"]\n\
         [[principal]]\nuid = {}\ncerts = [\"*\"]\n[[principal]]\nuid = {}\ncerts = []\n",
        UID + 1,
        UID + 2,
    ));
    let services = Services::on(root);
    let send = |uid: u32, method: &str, path: &str, body: Option<serde_json::Value>| {
        let target = format!("{path}?{VERSION}");
        services
            .connect_as(uid)
            .exchange(request(method, &target, body.as_ref()))
    };
    let pem = || Some(json!({ "pem": "x" }));
    for (uid, id, allowed) in [
        (0, "anything", true),
        (UID, "test", true),
        (UID, "test-1", true),
        (UID, "abc", true),
        (UID, "abbc", false),
        (UID, "cat", true),
        (UID, "ct", false),
        (UID, "c%C3%A9t", true),
        (UID, "Test", false),
        (UID, "xtest", false),
        (UID + 1, "anything", true),
        (UID + 2, "anything", false),
        (UID + 3, "anything", false),
    ] {
        let path = format!("/certificates/{id}");
        let put = send(uid, "PUT", &path, pem());
        let delete = send(uid, "DELETE", &path, None);
        assert_eq!(put.status == 201, allowed, "{uid} {id} {put}");
        assert_eq!(delete.status == 204, allowed, "{uid} {id} {delete}");
        if !allowed {
            let text = format!("user {uid} is not authorized to modify the cert {id}");
            put.assert_message(401, &text);
            delete.assert_message(401, &text);
        }
    }
    // Everybody reads everything.
    assert_eq!(services.put("secret", "x").status, 201);
    assert_eq!(
        send(UID + 3, "GET", "/certificates/secret", None).status,
        200
    );
    // The JSON comes before the right, the right before the request in it.
    let post = |body| send(UID, "POST", "/certificates", Some(body));
    post(json!({ "certId": "abbc" }))
        .assert_message(422, "missing field `csr` at line 1 column 17");
    post(json!({ "certId": "abbc", "csr": "garbage" }))
        .assert_message(401, "user 40000 is not authorized to modify the cert abbc");
    assert_eq!(
        post(json!({ "certId": "abc", "csr": "garbage" })).status,
        400
    );
    // The issuer needs no right but its key's handle.
    let issuer = json!({ "certId": "secret", "privateKeyHandle": "x" });
    post(json!({ "certId": "abc", "csr": csr(&ec_key(), "x"), "issuer": issuer })).assert_message(
        400,
        "parameter \"issuer.certId\" has an invalid value\ncaused by: invalid issuer",
    );
}

/// What hangs, hangs alone: a Keys Service that does not answer delays neither reads nor other writers.
#[test]
fn reads_do_not_wait_for_an_issuance() {
    let root = root(
        "[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n[cert_issuance.x]\nmethod = \"local_ca\"\n",
    );
    let mut services = Services::on(root);
    let _ = services.authority("ca", "ec-p256", 30);
    // SIGSTOP: it accepts, and never answers.
    services.keyd.signal(libc::SIGSTOP);
    let body = json!({ "certId": "x", "csr": csr(&ec_key(), "x") });
    let waiting: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = services.connect();
            client.send(request(
                "POST",
                &format!("/certificates?{VERSION}"),
                Some(&body),
            ));
            client
        })
        .collect();
    let start = Instant::now();
    assert_eq!(services.get("ca").status, 200);
    assert_eq!(services.put("x", "meanwhile").status, 201);
    assert_eq!(services.get("x").member("pem"), "meanwhile");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    services.keyd.signal(libc::SIGCONT);
    // The same request five times is one issuance.
    let answers: Vec<String> = waiting
        .into_iter()
        .map(|mut client| {
            let response = client.response();
            assert_eq!(response.status, 201, "{response}");
            response.member("pem")
        })
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(services.get("x").member("pem"), answers[0]);
    services.certd.assert_running();
}

#[test]
fn without_the_keys_service_nothing_is_issued_and_everything_else_works() {
    let root = root("[cert_issuance.x]\nmethod = \"self_signed\"\n");
    let certd = aziot_tests::daemon::Daemon::start("aziot-certd", &root);
    let post = json!({ "certId": "x", "csr": csr(&ec_key(), "x") });
    let target = format!("/certificates?{VERSION}");
    let response = Client::connect(certd.socket()).exchange(request("POST", &target, Some(&post)));
    response.assert_message(500, "internal error");
    certd.log().wait_for("could not create cert");
    let target = format!("/certificates/x?{VERSION}");
    let put = request("PUT", &target, Some(&json!({ "pem": "x" })));
    assert_eq!(Client::connect(certd.socket()).exchange(put).status, 201);
    certd.stop();
}
