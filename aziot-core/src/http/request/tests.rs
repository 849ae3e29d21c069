use proptest::prelude::*;

use super::*;

fn head(text: &str) -> Result<Head<'_>, HeadError> {
    parse(text.as_bytes())
}

fn status(text: &str) -> Option<u16> {
    head(text).expect_err(text).status()
}

#[test]
fn ht_08_request_without_host() {
    let head = head("GET /items/a?api-version=x#f HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.path, "/items/a");
    assert_eq!(head.query, "api-version=x");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.body, BodyLength::Known(0));
    assert!(head.keep_alive());
}

#[test]
fn targets() {
    for (target, path, query) in [
        ("http://keyd.sock/items/a?v=1", "/items/a", "v=1"),
        ("http://keyd.sock?v=1", "/", "v=1"),
        ("http://keyd.sock", "/", ""),
        ("https://u:p@[::1]:8/x#?y", "/x", ""),
        ("*", "*", ""),
        ("//items", "//items", ""),
        ("/?a?b", "/", "a?b"),
        ("/é", "/é", ""),
    ] {
        let text = format!("GET {target} HTTP/1.1\n\n");
        let head = head(&text).unwrap();
        assert_eq!((head.path, head.query), (path, query), "{target}");
        assert_eq!(head.target, target);
    }
    for target in ["items", "://x/", "1http://x/", "http:///x", "?a", "*x"] {
        assert_eq!(status(&format!("GET {target} HTTP/1.1\r\n\r\n")), Some(400));
    }
}

#[test]
fn ht_10_vector_39_malformed_heads() {
    for text in [
        "asdf\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\nfoo\r\n\r\n",
        "GET / HTTP/1.1\r\nfoo : bar\r\n\r\n",
        "GET items HTTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
    ] {
        assert_eq!(status(text), Some(400), "{text}");
    }
}

#[test]
fn ht_10_vector_40_header_count() {
    let with = |count| {
        let fields: String = (0..count).map(|n| format!("h{n}: v\r\n")).collect();
        format!("GET / HTTP/1.1\r\n{fields}\r\n")
    };
    assert!(head(&with(100)).is_ok());
    assert_eq!(status(&with(101)), Some(431));
}

#[test]
fn ht_10_vector_41_target_length() {
    let with = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
    assert!(head(&with(65_534)).is_ok());
    assert_eq!(status(&with(65_535)), Some(414));
    assert_eq!(status(&with(limits::HEAD)), Some(431));
}

#[test]
fn ht_12_connection_rules() {
    for (version, connection, keep, said) in [
        ("1.1", "", true, Connection::Default),
        ("1.1", "connection: close\r\n", false, Connection::Close),
        (
            "1.1",
            "Connection: Keep-Alive, CLOSE\r\n",
            false,
            Connection::Close,
        ),
        (
            "1.1",
            "connection: close\r\nconnection: keep-alive\r\n",
            false,
            Connection::Close,
        ),
        ("1.1", "connection: upgrade\r\n", true, Connection::Default),
        ("1.0", "", false, Connection::Default),
        ("1.0", "connection: close\r\n", false, Connection::Close),
        (
            "1.0",
            "connection: keep-alive\r\n",
            true,
            Connection::KeepAlive,
        ),
    ] {
        let text = format!("GET / HTTP/{version}\r\n{connection}\r\n");
        let head = head(&text).unwrap();
        assert_eq!(head.keep_alive(), keep, "{text}");
        assert_eq!(head.response_connection(keep), said, "{text}");
    }
    // The server's own decision to close is said.
    let head = head("GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(head.response_connection(false), Connection::Close);
}

#[test]
fn ht_10_body_framing() {
    let body = |fields: &str| {
        head(&format!("POST / HTTP/1.1\r\n{fields}\r\n"))
            .map(|head| head.body)
            .map_err(HeadError::status)
    };
    assert_eq!(body(""), Ok(BodyLength::Known(0)));
    assert_eq!(body("content-length: 20\r\n"), Ok(BodyLength::Known(20)));
    assert_eq!(
        body("content-length: 20\r\nContent-Length: 020\r\n"),
        Ok(BodyLength::Known(20))
    );
    assert_eq!(
        body("content-length: 20\r\ntransfer-encoding: Chunked\r\n"),
        Ok(BodyLength::Chunked)
    );
    for fields in [
        "content-length: 20\r\ncontent-length: 21\r\n",
        "content-length: x\r\n",
        "content-length: +1\r\n",
        "content-length:\r\n",
        "content-length: 1, 1\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    ] {
        assert_eq!(body(fields), Err(Some(400)), "{fields}");
    }
    assert_eq!(
        status("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"),
        Some(400)
    );
}

#[test]
fn ht_10_vectors_20_and_21_content_types() {
    let is_json = |fields: &[u8]| {
        let mut text = b"POST / HTTP/1.1\r\n".to_vec();
        text.extend_from_slice(fields);
        text.extend_from_slice(b"\r\n");
        parse(&text).unwrap().is_json()
    };
    for fields in [
        &b""[..],
        b"content-type: application/json\r\n",
        b"content-type: application/json; charset=utf-8\r\n",
        b"content-type: application/json ;x\r\n",
        b"content-type: application/json\xff\r\n",
        b"content-type: application/json\r\ncontent-type: text/plain\r\n",
        b"content-type: \xff\r\ncontent-type: text/plain\r\n",
    ] {
        assert!(is_json(fields));
    }
    for fields in [
        &b"content-type: Application/JSON\r\n"[..],
        b"content-type: text/plain\r\n",
        b"content-type: text/plain\r\ncontent-type: application/json\r\n",
        b"content-type:\r\n",
    ] {
        assert!(!is_json(fields));
    }
}

#[test]
fn expectations_and_lookups() {
    let text = "\r\nPOST / HTTP/1.1\r\nExpect: 100-Continue\r\nAuthorization: secret\r\n\
                X-Quote:  a\"b \r\nX-Byte: \u{e9}\r\n\r\n";
    let head = head(text).unwrap();
    assert!(head.expects_continue);
    assert_eq!(head.headers.text("authorization"), Some("secret"));
    assert_eq!(head.headers.value("x-quote"), Some(&b"a\"b"[..]));
    assert_eq!(head.headers.text("x-byte"), None);
    assert_eq!(
        head.headers.to_string(),
        r#"{"expect": "100-Continue", "authorization": "******", "x-quote": "a\"b", "x-byte": "\xc3\xa9"}"#
    );
    let head = parse(b"POST / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n").unwrap();
    assert!(!head.expects_continue);
}

#[test]
fn http2_is_closed_silently() {
    let preface = b"PRI * HTTP/2.0\r\n\r\n";
    assert_eq!(HeadSearch::new().find(preface), Ok(Some(18)));
    assert_eq!(parse(preface).unwrap_err().status(), None);
}

#[test]
fn heads_are_found_whatever_the_line_ends() {
    for (text, length) in [
        ("GET / HTTP/1.1\r\n\r\nrest", 18),
        ("GET / HTTP/1.1\n\nrest", 16),
        ("\r\n\nGET / HTTP/1.1\r\na: b\n\r\nrest", 26),
    ] {
        assert_eq!(HeadSearch::new().find(text.as_bytes()), Ok(Some(length)));
        // Byte by byte.
        let mut search = HeadSearch::new();
        for end in 0..length {
            assert_eq!(
                search.find(&text.as_bytes()[..end]),
                Ok(None),
                "{text} {end}"
            );
        }
        assert_eq!(search.find(&text.as_bytes()[..length]), Ok(Some(length)));
        assert!(parse(&text.as_bytes()[..length]).is_ok());
    }
    assert_eq!(HeadSearch::new().find(b"\x16\x03"), Err(HeadError::NotHttp));
    let long = vec![b'a'; limits::HEAD + 1];
    assert_eq!(HeadSearch::new().find(&long), Err(HeadError::TooLarge));
    assert_eq!(HeadSearch::new().find(&long[1..]), Ok(None));
}

proptest! {
    /// However the head is cut, the same end is found, and any bytes are answered.
    #[test]
    fn searching_in_pieces(
        text in "[ -~\r\n]{0,60}(\r\n\r\n|\n\n)?[ -~]{0,10}",
        cut in any::<proptest::sample::Index>(),
    ) {
        let bytes = text.as_bytes();
        let whole = HeadSearch::new().find(bytes);
        let mut search = HeadSearch::new();
        let first = search.find(&bytes[..cut.index(bytes.len() + 1)]);
        match first {
            Ok(None) => prop_assert_eq!(search.find(bytes), whole),
            _ => prop_assert_eq!(first, whole),
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in any::<Vec<u8>>()) {
        let _ = HeadSearch::new().find(&bytes);
        if let Ok(head) = parse(&bytes) {
            let _ = head.headers.to_string();
        }
    }

    #[test]
    fn nearly_heads_are_answered(
        text in "(GET|POST|FOO) [/a-z:?#*%]{0,12} HTTP/1\\.[0-2]\r\n([A-Za-z-]{1,14}: ?[ -~]{0,9}\r?\n){0,5}\r\n",
    ) {
        if let Ok(head) = parse(text.as_bytes()) {
            prop_assert!(!head.path.is_empty());
            // Every field can be looked up again.
            prop_assert_eq!(
                head.headers.into_iter().count(),
                text.lines().skip(1).filter(|line| !line.is_empty()).count()
            );
        }
    }
}
