//! The transport vectors at the level of decisions: bytes in, status and text out.

use super::*;
use crate::http::Method::{Delete, Get, Post, Put};
use crate::http::request::{HeadSearch, parse};
use crate::json::Bytes;
use crate::json_object;

/// The interface that the vectors were made with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Op {
    Item,
    Newer,
    NoContent,
}

static API: Api<Op> = Api {
    versions: &["2020-09-01", "2022-08-01"],
    routes: &[
        Route {
            path: "/items/{id}",
            since: 0,
            methods: &[Get, Post, Put, Delete],
            id: Op::Item,
        },
        Route {
            path: "/newer",
            since: 1,
            methods: &[Get],
            id: Op::Newer,
        },
        Route {
            path: "/nc",
            since: 0,
            methods: &[Get],
            id: Op::NoContent,
        },
    ],
};

json_object! {
    #[derive(Debug)]
    struct Item<'a> {
        key_id: &'a str = "keyId",
        n: Option<Bytes<'a>> = "n",
    }
}

/// Answers a request as a service would: the status, and the body or the outcome.
fn answer(head: &[u8], body: &[u8]) -> (u16, String) {
    let length = HeadSearch::new().find(head).unwrap();
    assert_eq!(length, Some(head.len()), "{}", head.escape_ascii());
    let head = parse(head).unwrap();
    let mut scratch = [0; 256];
    let mut body = body.to_vec();
    decide(&head, &mut scratch, &mut body).unwrap_or_else(|error| {
        let mut out = [0; 512];
        let length = json::write_message(&error, &mut out).unwrap();
        let text = String::from_utf8(out[..length].to_vec()).unwrap();
        (error.status(), text)
    })
}

fn decide<'t>(
    head: &Head<'t>,
    scratch: &'t mut [u8],
    body: &'t mut [u8],
) -> Result<(u16, String), Error<'t>> {
    let matched = API.route(head, scratch)?;
    if matched.body_rule()? == BodyRule::Drain {
        return Ok(match matched.id {
            Op::NoContent => (204, String::new()),
            _ => (200, format!("id={}", matched.parameter.unwrap_or("-"))),
        });
    }
    let item: Option<Item<'t>> = matched.decode(body)?;
    if matched.method == Delete && item.is_none() {
        return Ok((200, "no body".to_owned()));
    }
    let item = required(item)?;
    let bytes = item.n.map_or(0, |bytes| bytes.0.len());
    Ok((200, format!("keyId={} n={bytes}", item.key_id)))
}

fn message(text: &str) -> String {
    format!("{{\"message\":\"{text}\"}}")
}

fn head(line: &str, fields: &str) -> Vec<u8> {
    let line = line.replace("?V", "?api-version=2020-09-01");
    let line = line.replace("&V", "&api-version=2020-09-01");
    format!("{line} HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

/// A request without fields and body.
fn bare(line: &str) -> (u16, String) {
    answer(&head(line, ""), b"")
}

fn found(id: &str) -> (u16, String) {
    (200, format!("id={id}"))
}

#[test]
fn ht_10_vectors_1_and_2_targets() {
    assert_eq!(bare("GET /items/a?V"), found("a"));
    assert_eq!(bare("GET http://keyd.sock/items/a?V"), found("a"));
}

#[test]
fn ht_10_vector_3_no_version() {
    for line in [
        "GET /items/a",
        "GET /items/a?",
        "GET /nope",
        "GET /items/a?Api-Version=2020-09-01",
        "OPTIONS *",
    ] {
        assert_eq!(bare(line), (400, message("api-version not specified")));
    }
}

#[test]
fn ht_10_vectors_4_to_8_unknown_versions() {
    for (query, text) in [
        ("api-version=2019-01-01", r#"\"2019-01-01\""#),
        ("api-version=", r#"\"\""#),
        ("api-version", r#"\"\""#),
        (
            "api-version=a%22b%5c%0a%C3%A9%ff",
            "\\\"a\\\\\\\"b\\\\\\\\\\\\né\u{fffd}\\\"",
        ),
        ("V&api-version=x", r#"\"x\""#),
        ("api-version=2020-09-01+", r#"\"2020-09-01 \""#),
    ] {
        let expected = (400, message(&format!("invalid api-version {text}")));
        assert_eq!(bare(&format!("GET /items/a?{query}")), expected);
        assert_eq!(bare(&format!("GET /nope?{query}")), expected);
    }
    assert_eq!(bare("GET /items/a?api-version=x&V"), found("a"));
}

#[test]
fn ht_10_vectors_9_and_10_encoded_queries() {
    assert_eq!(bare("GET /items/a?api%2Dversion=2020%2D09-01"), found("a"));
    let head = head("GET /items/a?type=a+b%20c&type=2&V&flag&=v", "");
    let head = parse(&head).unwrap();
    let mut scratch = [0; 64];
    let matched = API.route(&head, &mut scratch).unwrap();
    assert_eq!(matched.kind, Some("a b c"));
    assert_eq!(matched.version, 0);
}

#[test]
fn ht_10_vectors_11_and_12_unknown_paths() {
    for line in [
        "GET /nope?V",
        "FOO /nope?V",
        "GET /newer?V",
        "GET /items/a/?V",
        "GET //items/a?V",
        "GET /items/?V",
        "GET /items/%ff?V",
        "GET /Items/a?V",
        "GET /%69tems/a?V",
    ] {
        assert_eq!(bare(line), (404, message("not found")), "{line}");
    }
    assert_eq!(bare("GET /newer?api-version=2022-08-01"), found("-"));
}

#[test]
fn ht_10_vectors_13_to_15_parameters() {
    for (raw, id) in [
        ("a%2Fb%20c+d%25", "a/b c+d%"),
        ("a%zz%", "a%zz%"),
        ("a%00b", "a\0b"),
        ("..", ".."),
        ("é", "é"),
        ("%F0%9F%98%80", "😀"),
    ] {
        assert_eq!(bare(&format!("GET /items/{raw}?V")), found(id));
    }
}

#[test]
fn ht_10_vector_16_other_methods() {
    for method in ["HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "FOO", "get"] {
        assert_eq!(
            bare(&format!("{method} /items/a?V")),
            (400, message("method not allowed")),
        );
    }
}

#[test]
fn ht_10_vectors_17_to_19_methods_of_the_route() {
    let newer = |method: &str, body: &[u8]| {
        let head = head(&format!("{method} /newer?api-version=2022-08-01"), "");
        answer(&head, body)
    };
    let not_allowed = (400, message("method not allowed"));
    assert_eq!(newer("POST", b"{}"), not_allowed);
    assert_eq!(newer("POST", b""), not_allowed);
    assert_eq!(newer("PUT", b"{}"), not_allowed);
    assert_eq!(
        newer("DELETE", b"{"),
        (
            422,
            message("EOF while parsing an object at line 1 column 1")
        )
    );
    assert_eq!(
        newer("PUT", b""),
        (422, message("EOF while parsing a value at line 1 column 0"))
    );
}

#[test]
fn ht_10_vectors_20_to_23_content_types() {
    const BODY: &[u8] = br#"{"keyId":"k"}"#;
    let send = |method: &str, fields: &[u8], body: &[u8]| {
        let mut head =
            format!("{method} /items/a?api-version=2020-09-01 HTTP/1.1\r\n").into_bytes();
        head.extend_from_slice(fields);
        head.extend_from_slice(b"\r\n");
        answer(&head, body)
    };
    for fields in [
        &b""[..],
        b"content-type: application/json; charset=utf-8\r\n",
        b"content-type: application/json ;x\r\n",
        b"content-type: application/json\xff\r\n",
    ] {
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(send(method, fields, BODY), (200, "keyId=k n=0".to_owned()));
        }
    }
    for fields in [
        &b"content-type: Application/JSON\r\n"[..],
        b"content-type: text/plain\r\n",
        b"content-type: text/plain\r\ncontent-type: application/json\r\n",
    ] {
        assert_eq!(
            send("POST", fields, BODY),
            (400, message("missing request body"))
        );
        let media = (415, message("request body must be application/json"));
        assert_eq!(send("PUT", fields, BODY), media);
        assert_eq!(send("PUT", fields, b""), media);
        assert_eq!(send("DELETE", fields, BODY), (200, "no body".to_owned()));
        assert_eq!(
            send("POST", fields, b""),
            (400, message("missing request body"))
        );
    }
}

#[test]
fn ht_10_vectors_24_to_34_bodies() {
    let post = |body: &str| answer(&head("POST /items/a?V", ""), body.as_bytes());
    assert_eq!(post(""), (400, message("missing request body")));
    assert_eq!(
        answer(&head("PUT /items/a?V", ""), b""),
        (422, message("EOF while parsing a value at line 1 column 0"))
    );
    for (body, text) in [
        (
            r#"{"keyId":"#,
            "EOF while parsing a value at line 1 column 9",
        ),
        ("{}", "missing field `keyId` at line 1 column 2"),
        (
            r#"{"keyId":1}"#,
            "invalid type: integer `1`, expected a string at line 1 column 10",
        ),
        (
            r#"{"keyId":"k"}x"#,
            "trailing characters at line 1 column 14",
        ),
        (
            r#"{"keyId":"a","keyId":"b"}"#,
            "duplicate field `keyId` at line 1 column 20",
        ),
        (
            r#"{"keyId":"a","n":"@@"}"#,
            "Invalid symbol 64, offset 0. at line 1 column 21",
        ),
        (
            r#"{"keyId":"a","n":"YQ"}"#,
            "Invalid padding at line 1 column 21",
        ),
        (
            r#"{"keyId":"a","n":"_-8="}"#,
            "Invalid symbol 95, offset 0. at line 1 column 23",
        ),
    ] {
        assert_eq!(post(body), (422, message(text)));
    }
    for body in [
        r#"["a",null]"#,
        r#"{"keyId":"a","zz":[1]}"#,
        "{\"keyId\":\"a\"} \n",
    ] {
        assert_eq!(post(body), (200, "keyId=a n=0".to_owned()));
    }
}

#[test]
fn ht_10_vectors_35_and_36_body_failures() {
    for (error, status, text) in [
        (Error::Deadline, 408, "deadline has elapsed"),
        (
            Error::Body(BodyError::UnexpectedEnd),
            400,
            "error reading a body from connection\\ncaused by: end of file before message length reached",
        ),
        (
            Error::Body(BodyError::Chunked(chunked::Error::MissingSize)),
            400,
            "error reading a body from connection\\ncaused by: Invalid chunk size line: missing size digit",
        ),
        (
            Error::BodyTooLarge { limit: 8 },
            413,
            "request body is larger than 8 bytes",
        ),
    ] {
        assert_eq!(error.status(), status);
        assert!(error.closes());
        let mut out = [0; 256];
        let length = json::write_message(&error, &mut out).unwrap();
        assert_eq!(
            core::str::from_utf8(&out[..length]),
            Ok(message(text).as_str())
        );
    }
    assert!(!Error::NotFound.closes());
}

#[test]
fn ht_10_vector_38_no_content() {
    assert_eq!(bare("GET /nc?V"), (204, String::new()));
}

#[test]
fn a_small_scratch_buffer_is_an_error() {
    let head = head("GET /items/%41%42%43?V", "");
    let head = parse(&head).unwrap();
    assert_eq!(
        API.route(&head, &mut [0; 2]),
        Err(Error::TargetTooLong { limit: 2 })
    );
    let mut scratch = [0; 3];
    assert_eq!(
        API.route(&head, &mut scratch).unwrap().parameter,
        Some("ABC")
    );
}

/// Every path of a service, with a parameter filled in.
fn paths<R>(api: &'static Api<R>) -> impl Iterator<Item = (String, &'static Route<R>)> {
    api.routes.iter().map(|route| {
        (
            route.path.replace("{id}", "x").replace("{name}", "x"),
            route,
        )
    })
}

#[test]
fn ht_14_ks_02_versions_of_the_keys_service() {
    for version in ["2020-09-01", "2021-05-01", keys::status::STATUS_VERSION] {
        let status = |route: &Route<keys::Op>| route.id == keys::Op::Status;
        let in_version = |route| !status(route) || version == keys::status::STATUS_VERSION;
        for (path, route) in paths(&keys::API).filter(|(_, route)| in_version(route)) {
            for method in route.methods {
                let text = head(
                    &format!("{} {path}?api-version={version}", method.name()),
                    "",
                );
                let head = parse(&text).unwrap();
                let mut scratch = [0; 16];
                let matched = keys::API.route(&head, &mut scratch).unwrap();
                assert_eq!(matched.id, route.id);
                assert!(matched.body_rule().is_ok());
            }
        }
    }
    for version in ["2020-09-01", "2021-05-01"] {
        let text = head(&format!("GET /status?api-version={version}"), "");
        assert_eq!(
            keys::API.route(&parse(&text).unwrap(), &mut []),
            Err(Error::NotFound)
        );
    }
    for version in ["2020-09-01-preview", "2021-12-01", "2022-08-01"] {
        let text = head(&format!("GET /key/x?api-version={version}"), "");
        assert_eq!(
            keys::API.route(&parse(&text).unwrap(), &mut []),
            Err(Error::VersionUnknown(version))
        );
    }
}

#[test]
fn ks_03_ks_04_paths_and_methods_of_the_keys_service() {
    let run = |line: &str| {
        let text = head(line, "");
        let head = parse(&text).unwrap();
        let mut scratch = [0; 64];
        keys::API
            .route(&head, &mut scratch)
            .map(|matched| (matched.id, matched.parameter.map(str::to_owned)))
            .map_err(|error| error.status())
    };
    for line in [
        "GET /key/?V",
        "GET /key/x/?V",
        "GET //key/x?V",
        "GET /key/%ff?V",
        "POST /nope?V",
    ] {
        assert_eq!(run(line), Err(404), "{line}");
    }
    assert_eq!(
        run("GET /key/a%2Fb+%C3%A9%?V"),
        Ok((keys::Op::Key, Some("a/b+é%".to_owned())))
    );
    let text = head("DELETE /sign?V", "");
    let matched = keys::API.route(&parse(&text).unwrap(), &mut []).unwrap();
    let mut body = *b"{}";
    assert_eq!(matched.body(&mut body), Err(Error::MethodNotAllowed));
    let text = head("GET /sign?V", "");
    let matched = keys::API.route(&parse(&text).unwrap(), &mut []).unwrap();
    assert_eq!(matched.body_rule(), Err(Error::MethodNotAllowed));
}

#[test]
fn ht_14_is_19_versions_of_the_identity_service() {
    for (index, version) in identity::API.versions.iter().enumerate() {
        for (path, route) in paths(&identity::API) {
            for method in route.methods {
                let text = head(
                    &format!("{} {path}?api-version={version}", method.name()),
                    "",
                );
                let result = identity::API
                    .route(&parse(&text).unwrap(), &mut [])
                    .map(|matched| matched.id);
                let missing = match path.as_str() {
                    "/identities/provisioning" => index < 1,
                    "/status" => index < 3,
                    _ => false,
                };
                let expected = if missing {
                    Err(Error::NotFound)
                } else {
                    Ok(route.id)
                };
                assert_eq!(result, expected, "{path} in version {version}");
            }
        }
    }
}

#[test]
fn is_29_module_ids_are_decoded_once() {
    let text = head("GET /identities/modules/a%252F%2F?V&type=aziot", "");
    let head = parse(&text).unwrap();
    let mut scratch = [0; 16];
    let matched = identity::API.route(&head, &mut scratch).unwrap();
    assert_eq!(matched.parameter, Some("a%2F/"));
    assert_eq!(matched.kind, Some("aziot"));
}
