use proptest::prelude::*;

use super::*;

struct Outcome {
    status: u16,
    body: Vec<u8>,
    response: Response<'static>,
    reusable: bool,
}

/// Feeds `text` in pieces; the last call says that the connection is closed, if `close`.
fn parse_with(
    mut parser: ResponseParser,
    text: &[u8],
    piece: usize,
    close: bool,
) -> Result<Option<Outcome>, Error> {
    let buffer = Box::leak(vec![0; text.len() + 1].into_boxed_slice());
    let mut filled = 0;
    let mut pieces = text.chunks(piece).peekable();
    loop {
        let piece = pieces.next();
        let bytes = piece.unwrap_or_default();
        buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
        filled += bytes.len();
        if parser.advance(buffer, &mut filled, piece.is_none() && close)? {
            break;
        }
        assert!(parser.response(buffer).is_none());
        if piece.is_none() {
            return Ok(None);
        }
    }
    let response = parser.response(buffer).unwrap();
    Ok(Some(Outcome {
        status: response.status.0,
        body: response.body.to_vec(),
        response,
        reusable: parser.is_reusable(),
    }))
}

fn parse(text: &str, close: bool) -> Result<Option<Outcome>, Error> {
    let parser = ResponseParser::new(Limits::default());
    let whole = parse_with(parser, text.as_bytes(), usize::MAX, close);
    for piece in [1, 2, 7] {
        let pieces = parse_with(parser, text.as_bytes(), piece, close);
        match (&whole, &pieces) {
            (Ok(Some(whole)), Ok(Some(pieces))) => {
                assert_eq!((whole.status, &whole.body), (pieces.status, &pieces.body));
            }
            (Ok(whole), Ok(pieces)) => assert_eq!(whole.is_some(), pieces.is_some()),
            (whole, pieces) => {
                assert_eq!(whole.as_ref().err(), pieces.as_ref().err(), "{text}");
            }
        }
    }
    whole
}

#[test]
fn framing() {
    for (text, close, status, body, reusable) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            false,
            200,
            "{}",
            true,
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 2, 2\r\n\r\n{}",
            false,
            200,
            "{}",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n\
             1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
            false,
            200,
            "{}",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n{}", true, 200, "{}", false),
        ("HTTP/1.0 500 Oops\n\n", true, 500, "", false),
        (
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
            false,
            200,
            "",
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", true),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            false,
            204,
            "",
            true,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\na: b\r\n\r\n\
             HTTP/1.1 201 Created\r\ncontent-length: 1\r\nconnection: close\r\n\r\n1",
            false,
            201,
            "1",
            false,
        ),
    ] {
        let outcome = parse(text, close).unwrap().expect(text);
        assert_eq!(outcome.status, status, "{text}");
        assert_eq!(outcome.body, body.as_bytes(), "{text}");
        assert_eq!(outcome.reusable, reusable, "{text}");
    }
}

#[test]
fn more_than_one_response_spoils_the_connection() {
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1HTTP/1.1";
    let parser = ResponseParser::new(Limits::default());
    let outcome = parse_with(parser, text, usize::MAX, false)
        .unwrap()
        .unwrap();
    assert_eq!(outcome.body, b"1");
    assert!(!outcome.reusable);
}

#[test]
fn incomplete_responses() {
    for text in [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ] {
        assert!(parse(text, false).unwrap().is_none());
        assert_eq!(parse(text, true).err(), Some(Error::UnexpectedEnd));
    }
    assert!(parse("HTTP/1.1 200 OK\r\n\r\n{", false).unwrap().is_none());
    assert_eq!(parse("", true).err(), Some(Error::Closed));
}

#[test]
fn malformed_responses() {
    let error = |text| parse(text, true).err().expect(text).to_string();
    assert!(error("<html>\r\n\r\n").starts_with("malformed HTTP response: "));
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
    ] {
        assert!(
            error(text).starts_with("malformed HTTP response: "),
            "{text}"
        );
    }
    assert_eq!(
        error("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx"),
        "Invalid chunk size line: missing size digit"
    );
}

#[test]
fn limits_are_kept() {
    let limits = Limits { head: 60, body: 4 };
    let run = |text: &str| {
        parse_with(ResponseParser::new(limits), text.as_bytes(), 3, true)
            .map(|outcome| outcome.unwrap().body)
    };
    let known = "HTTP/1.1 200 OK\r\ncontent-length: ";
    assert_eq!(run(&format!("{known}4\r\n\r\nabcd")), Ok(b"abcd".to_vec()));
    let too_large = Err(Error::BodyTooLarge(4));
    assert_eq!(run(&format!("{known}5\r\n\r\nabcde")), too_large);
    assert_eq!(
        run(&format!("{known}18446744073709551615\r\n\r\n")),
        too_large
    );
    assert_eq!(run("HTTP/1.1 200 OK\r\n\r\nabcde"), too_large);
    assert_eq!(
        run("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
        too_large
    );
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(60));
    assert_eq!(run(&long), Err(Error::HeadTooLarge(60)));
}

#[test]
fn hc_05_content_types() {
    for (value, json) in [
        ("", true),
        ("content-type: application/json; charset=utf-8\r\n", true),
        ("content-type: Application/JSON\r\n", true),
        ("content-type: text/html\r\n", false),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{value}content-length: 0\r\n\r\n");
        let outcome = parse(&text, false).unwrap().unwrap();
        assert_eq!(outcome.response.may_be_json(), json, "{value}");
    }
}

#[test]
fn times() {
    let text = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\n\
                date: Sat, 21 Nov 2026 19:27:21 GMT\r\ncontent-length: 0\r\n\r\n";
    let response = parse(text, false).unwrap().unwrap().response;
    let now = UnixTime::from_secs(1_795_289_241).unwrap();
    assert_eq!(response.date, Some(now));
    assert_eq!(response.retry_after, Some(RetryAfter::Seconds(120)));
    assert_eq!(response.headers.text("Retry-After"), Some("120"));
    let later = RetryAfter::parse("Sat, 21 Nov 2026 19:28:21 GMT").unwrap();
    assert_eq!(later.delay(now), 60);
    assert_eq!(
        RetryAfter::parse("99999999999"),
        Some(RetryAfter::Seconds(u32::MAX))
    );
    for bad in ["", "-1", "1.5", "soon"] {
        assert_eq!(RetryAfter::parse(bad), None);
    }
}

#[test]
fn responses_without_a_body() {
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let parser = ResponseParser::bodiless(Limits::default());
    let outcome = parse_with(parser, text, 5, false).unwrap().unwrap();
    assert!(outcome.body.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_answered(
        start in proptest::sample::select(vec![
            "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
        ]),
        rest in proptest::collection::vec(any::<u8>(), 0..60),
        piece in 1..20_usize,
    ) {
        let mut text = start.as_bytes().to_vec();
        text.extend_from_slice(&rest);
        let parser = ResponseParser::new(Limits::default());
        let _ = parse_with(parser, &text, piece, true);
    }
}
