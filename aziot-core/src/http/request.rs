//! Request heads, server side.

use core::fmt;
use core::mem::MaybeUninit;

use super::headers::printable;
use super::{BodyLength, Connection, ContentType, Headers, Method, Version, decimal};
use crate::limits;
use crate::uri::is_scheme;

/// Parses a complete head: the request line, the header fields, and the empty line that
/// [`HeadSearch`] found.
///
/// Line ends may be bare LF, and empty lines may precede the request line. `host` is not required.
///
/// # Errors
///
/// The head is malformed or exceeds a limit; see [`HeadError::status`].
// Its stack is gone before a handler needs any.
#[inline(never)]
pub fn parse(head: &[u8]) -> Result<Head<'_>, HeadError> {
    if head.len() > limits::HEAD {
        return Err(HeadError::TooLarge);
    }
    // Left uninitialised: most heads use a few of them.
    let mut fields = [const { MaybeUninit::uninit() }; limits::HEADER_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadError::Incomplete),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(httparse::Error::Version) if is_http2_preface(head) => {
            return Err(HeadError::Http2Preface);
        }
        Err(error) => return Err(HeadError::Malformed(error)),
    }
    let (Some(method_name), Some(target), Some(minor)) =
        (request.method, request.path, request.version)
    else {
        return Err(HeadError::Incomplete);
    };
    if target.len() > limits::TARGET {
        return Err(HeadError::TargetTooLong);
    }
    let (path, query) = split_target(target).ok_or(HeadError::Target)?;
    let mut head = Head {
        method: Method::from_name(method_name),
        method_name,
        target,
        path,
        query,
        version: if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        },
        body: BodyLength::Known(0),
        content_type: ContentType::Absent,
        expects_continue: false,
        connection: Connection::Default,
        headers: Headers::of_head(head),
    };
    head.apply_fields(request.headers)?;
    Ok(head)
}

/// A request head, as views of its text.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// The method's name as sent.
    pub method_name: &'a str,
    /// The request target as sent, for the log.
    pub target: &'a str,
    /// The target's path, still encoded. Never empty; `*` for the asterisk form.
    pub path: &'a str,
    /// The target's query, still encoded; empty if there is none.
    pub query: &'a str,
    /// The protocol version, which the response repeats.
    pub version: Version,
    /// How the end of the body is found.
    pub body: BodyLength,
    /// What the first `content-type` field says.
    pub content_type: ContentType,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// What the `connection` fields say.
    pub connection: Connection,
    /// All header fields.
    pub headers: Headers<'a>,
}

impl<'a> Head<'a> {
    /// Whether the method is `HEAD`, whose responses have no body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method_name == "HEAD"
    }

    /// Whether the client may send another request on the connection.
    #[must_use]
    pub const fn keep_alive(&self) -> bool {
        self.connection.persists(self.version)
    }

    /// The `connection` field of the response, if the connection is then kept (`keep`) or closed.
    #[must_use]
    pub const fn response_connection(&self, keep: bool) -> Connection {
        match (self.version, self.connection) {
            // Closing is the default, and not said unless it was asked for.
            (Version::Http10, Connection::Default) => Connection::Default,
            (Version::Http10, _) if keep => Connection::KeepAlive,
            (Version::Http11, _) if keep => Connection::Default,
            _ => Connection::Close,
        }
    }

    /// Whether the body counts as JSON: there is no content type, or none that could be read, or it
    /// is `application/json`, in lower case and with or without parameters.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        !matches!(self.content_type, ContentType::Other)
    }

    fn apply_fields(&mut self, fields: &[httparse::Header<'a>]) -> Result<(), HeadError> {
        let mut length = None;
        let mut chunked = false;
        for field in fields {
            let name = field.name;
            // The length tells most fields apart.
            match name.len() {
                6 if name.eq_ignore_ascii_case("expect") => {
                    self.expects_continue |= self.version == Version::Http11
                        && field.value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    self.connection = connection(self.connection, field.value);
                }
                12 if self.content_type == ContentType::Absent
                    && name.eq_ignore_ascii_case("content-type") =>
                {
                    self.content_type = content_type(field.value);
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let value = decimal(field.value).ok_or(HeadError::ContentLength)?;
                    if length.is_some_and(|other| other != value) {
                        return Err(HeadError::ContentLength);
                    }
                    length = Some(value);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    let known = field.value.eq_ignore_ascii_case(b"chunked");
                    if chunked || !known || self.version == Version::Http10 {
                        return Err(HeadError::TransferEncoding);
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        self.body = if chunked {
            BodyLength::Chunked
        } else {
            BodyLength::Known(length.unwrap_or(0))
        };
        Ok(())
    }
}

/// Finds the end of a head while it arrives, looking at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadSearch {
    /// Start of the line that is not complete yet.
    line: usize,
    /// Where to go on.
    scanned: usize,
    /// A line with something in it has been seen.
    started: bool,
}

impl HeadSearch {
    /// A search at the start of a head.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            line: 0,
            scanned: 0,
            started: false,
        }
    }

    /// Looks at what has arrived since the last call; `buffer` is all that has arrived so far.
    ///
    /// Answers the length of the head once it is complete. Start a new search for the next head.
    ///
    /// # Errors
    ///
    /// [`HeadError::TooLarge`] if the head is longer than [`limits::HEAD`], and
    /// [`HeadError::NotHttp`] as soon as the first byte shows that this is something else.
    pub fn find(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadError> {
        let end = self.find_within(buffer, limits::HEAD)?;
        if !self.started
            && let Some(&first) = buffer.get(self.line)
            && first.is_ascii_control()
            && first != b'\r'
        {
            return Err(HeadError::NotHttp);
        }
        Ok(end)
    }

    /// As [`find`](Self::find) with another limit, for heads of any kind.
    pub(super) fn find_within(
        &mut self,
        buffer: &[u8],
        limit: usize,
    ) -> Result<Option<usize>, HeadError> {
        while let Some(rest) = buffer.get(self.scanned..)
            && let Some(newline) = rest.iter().position(|&byte| byte == b'\n')
        {
            let newline = self.scanned.saturating_add(newline);
            let line = buffer.get(self.line..newline).unwrap_or_default();
            let next = newline.saturating_add(1);
            self.line = next;
            self.scanned = next;
            match line {
                b"" | b"\r" if self.started && next <= limit => return Ok(Some(next)),
                b"" | b"\r" => {}
                _ => self.started = true,
            }
            if next > limit {
                return Err(HeadError::TooLarge);
            }
        }
        self.scanned = buffer.len();
        if buffer.len() > limit {
            return Err(HeadError::TooLarge);
        }
        Ok(None)
    }
}

/// Why a request head was refused.
///
/// The answer has an empty body and closes the connection. The text is for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HeadError {
    /// `content-length` is not a number, or there are several different ones.
    ContentLength,
    /// The client speaks HTTP/2.
    Http2Preface,
    /// The head has no end.
    Incomplete,
    /// A line is malformed.
    Malformed(httparse::Error),
    /// The first byte starts no request.
    NotHttp,
    /// The request target is in no form that is known.
    Target,
    /// The request target is longer than [`limits::TARGET`].
    TargetTooLong,
    /// The head is longer than [`limits::HEAD`].
    TooLarge,
    /// There are more header fields than [`limits::HEADER_FIELDS`].
    TooManyFields,
    /// The body has a transfer coding other than one `chunked`, or one at all in HTTP/1.0.
    TransferEncoding,
}

impl HeadError {
    /// The status of the answer; `None` means that the connection is closed without one.
    #[must_use]
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Http2Preface => None,
            Self::TargetTooLong => Some(414),
            Self::TooLarge | Self::TooManyFields => Some(431),
            Self::ContentLength
            | Self::Incomplete
            | Self::Malformed(_)
            | Self::NotHttp
            | Self::Target
            | Self::TransferEncoding => Some(400),
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentLength => f.write_str("malformed or contradictory content-length"),
            Self::Http2Preface => f.write_str("HTTP/2 is not supported; use HTTP/1.1"),
            Self::Incomplete => f.write_str("incomplete request head"),
            Self::Malformed(error) => write!(f, "malformed request head: {error}"),
            Self::NotHttp => f.write_str("not an HTTP request"),
            Self::Target => f.write_str("malformed request target"),
            Self::TargetTooLong => write!(
                f,
                "the request target is longer than {} bytes",
                limits::TARGET
            ),
            Self::TooLarge => write!(f, "the request head is longer than {} bytes", limits::HEAD),
            Self::TooManyFields => write!(
                f,
                "the request has more than {} header fields",
                limits::HEADER_FIELDS
            ),
            Self::TransferEncoding => f.write_str("unsupported transfer coding"),
        }
    }
}

impl core::error::Error for HeadError {}

#[cfg(feature = "defmt")]
impl defmt::Format for HeadError {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}

/// What all `connection` fields together say; `close` wins.
pub(super) fn connection(so_far: Connection, value: &[u8]) -> Connection {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .fold(so_far, |so_far, token| {
            if so_far == Connection::Close || token.eq_ignore_ascii_case(b"close") {
                Connection::Close
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                Connection::KeepAlive
            } else {
                so_far
            }
        })
}

fn content_type(value: &[u8]) -> ContentType {
    // What cannot be read counts as JSON.
    let Some(text) = printable(value) else {
        return ContentType::Json;
    };
    match text.split(';').next().map(str::trim) {
        Some("application/json") => ContentType::Json,
        _ => ContentType::Other,
    }
}

/// Path and query of a request target in origin, absolute or asterisk form. A fragment is dropped.
fn split_target(target: &str) -> Option<(&str, &str)> {
    let relative = if target.starts_with('/') || target == "*" {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if !is_scheme(scheme) || authority == 0 {
            return None;
        }
        rest.get(authority..)?
    };
    let relative = relative.split('#').next()?;
    let (path, query) = relative.split_once('?').unwrap_or((relative, ""));
    // Only an absolute target can do without a path.
    Some((if path.is_empty() { "/" } else { path }, query))
}

fn is_http2_preface(head: &[u8]) -> bool {
    head.starts_with(b"PRI * HTTP/2.0\r\n")
}

#[cfg(test)]
mod tests {
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
}
