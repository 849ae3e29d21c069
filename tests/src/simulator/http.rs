//! The simulator's end of HTTP/1.1 (RFC 9112): a reader that notes every deviation from what the daemon's client
//! has to send, and a writer.

use std::io::{self, Read, Write};

/// The longest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The largest request body, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target, path and query, as sent.
    pub target: String,
    /// Header names as sent, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The certificates that the client presented in TLS, its own first, in DER; whether they are good is not looked at.
    pub client: Vec<Vec<u8>>,
    /// What a lenient server would overlook: deviations in the syntax of the head.
    pub syntax: Vec<String>,
}

impl Request {
    /// Reads one request. `Ok(None)` when the client closed the connection between requests.
    ///
    /// # Errors
    /// When the connection fails, or what arrives cannot be understood as HTTP/1.1 at all.
    pub fn read(stream: &mut impl Read, spare: &mut Vec<u8>) -> Result<Option<Self>, ReadError> {
        let Some(end) = fill_head(stream, spare)? else {
            return Ok(None);
        };
        let rest = spare.split_off(end);
        let head = std::mem::replace(spare, rest);
        let mut request = Self::parse_head(&head)?;
        if request.header("transfer-encoding").is_some() {
            return Err(ReadError::Malformed(
                "the request body is chunked".to_owned(),
            ));
        }
        let length = match request.header("content-length") {
            None => 0,
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|length| *length <= MAX_BODY && length.to_string() == text)
                .ok_or_else(|| ReadError::Malformed(format!("content-length is {text:?}")))?,
        };
        while spare.len() < length {
            if read_some(stream, spare)? == 0 {
                return Err(ReadError::Malformed(format!(
                    "the connection ended after {} of {length} bytes of the body",
                    spare.len()
                )));
            }
        }
        let rest = spare.split_off(length);
        request.body = std::mem::replace(spare, rest);
        Ok(Some(request))
    }

    /// The path of the target, still encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query of the target, without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The value of the first header `name`, which is given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Deviations of the head from what the daemon's client sends: `content-type` (with a body), `authorization`
    /// and `if-match`, `host`, `content-length` (with a body), in this order, once each, and nothing else.
    #[must_use]
    pub fn shape_problems(&self) -> Vec<String> {
        let mut problems = self.syntax.clone();
        let mut last_place = 0;
        let mut seen: Vec<String> = Vec::new();
        for (sent, _) in &self.headers {
            let name = sent.to_ascii_lowercase();
            if *sent != name {
                problems.push(format!("header name {sent:?} is not in lower case"));
            }
            let place = match name.as_str() {
                "content-type" => 1,
                "authorization" | "if-match" => 2,
                "host" => 3,
                "content-length" => 4,
                _ => {
                    problems.push(format!("header {name:?} must not be sent"));
                    continue;
                }
            };
            if seen.contains(&name) {
                problems.push(format!("header {name:?} is sent twice"));
            }
            if place < last_place {
                problems.push(format!("header {name:?} is out of order"));
            }
            last_place = last_place.max(place);
            seen.push(name);
        }
        let is_sent = |name: &str| seen.iter().any(|seen| seen == name);
        if !is_sent("host") {
            problems.push("header \"host\" is missing".to_owned());
        }
        if self.body.is_empty() {
            for name in ["content-type", "content-length"] {
                if is_sent(name) {
                    problems.push(format!("header {name:?} is sent without a body"));
                }
            }
        } else if self.header("content-type") != Some("application/json") {
            problems.push("a body needs content-type: application/json".to_owned());
        }
        problems
    }

    fn parse_head(head: &[u8]) -> Result<Self, ReadError> {
        let malformed = |what: &str| ReadError::Malformed(what.to_owned());
        let head = core::str::from_utf8(head).map_err(|_| malformed("the head is not UTF-8"))?;
        let mut request = Self::default();
        if head.replace("\r\n", "").contains(['\r', '\n']) {
            request
                .syntax
                .push("a line of the head does not end in CR LF".to_owned());
        }
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default();
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(ReadError::Malformed(format!(
                "the request line is {line:?}"
            )));
        };
        if version != "HTTP/1.1" {
            request.syntax.push(format!("the version is {version:?}"));
        }
        if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            request
                .syntax
                .push(format!("the request target is {target:?}"));
        }
        request.method = method.to_owned();
        request.target = target.to_owned();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| ReadError::Malformed(format!("a header line is {line:?}")))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(ReadError::Malformed(format!("a header line is {line:?}")));
            }
            let trimmed = value.trim_matches([' ', '\t']);
            if value.strip_prefix(' ') != Some(trimmed) {
                request
                    .syntax
                    .push(format!("header {name:?} is not written as \"name: value\""));
            }
            request.headers.push((name.to_owned(), trimmed.to_owned()));
        }
        Ok(request)
    }
}

/// Why no request could be read.
#[derive(Debug)]
pub enum ReadError {
    /// The connection failed or timed out.
    Io(io::Error),
    /// What arrived is not an HTTP/1.1 request that the simulator takes.
    Malformed(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers other than `date` and framing.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// An answer in JSON.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::empty(status)
            .with_header("Content-Type", "application/json; charset=utf-8")
            .with_body(body.to_string().into_bytes())
    }

    /// The same with a body.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    /// The same with one more header, which replaces one of that name.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The value of the header `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The bytes on the wire. `date` is the value of the `Date` header.
    #[must_use]
    pub fn to_bytes(&self, framing: BodyFraming, date: &str) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        let mut line = |text: String| out.extend_from_slice(text.as_bytes());
        line(format!("Date: {date}\r\n"));
        for (name, value) in &self.headers {
            line(format!("{name}: {value}\r\n"));
        }
        if self.status == 204 {
            // RFC 9110 section 15.3.5: no content, and RFC 9112 section 6.1: no framing header either.
            line("\r\n".to_owned());
            return out;
        }
        match framing {
            BodyFraming::Chunked => line("Transfer-Encoding: chunked\r\n\r\n".to_owned()),
            BodyFraming::Close => line("Connection: close\r\n\r\n".to_owned()),
            BodyFraming::Length => line(format!("Content-Length: {}\r\n\r\n", self.body.len())),
        }
        if framing == BodyFraming::Chunked {
            // Two chunks where possible, so that a client cannot get away with expecting one.
            let (first, second) = self.body.split_at(self.body.len() / 2);
            for chunk in [first, second]
                .into_iter()
                .filter(|chunk| !chunk.is_empty())
            {
                out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        } else {
            out.extend_from_slice(&self.body);
        }
        out
    }

    /// Writes a small answer of the control interface, which closes the connection after it.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn write_closing(&self, stream: &mut impl Write, date: &str) -> io::Result<()> {
        let mut closing = self.clone();
        closing
            .headers
            .push(("Connection".to_owned(), "close".to_owned()));
        stream.write_all(&closing.to_bytes(BodyFraming::Length, date))?;
        stream.flush()
    }
}

/// How a body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    Close,
    /// `Content-Length`.
    Length,
}

/// The reason phrase of a status code (RFC 9110 section 15).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// Reads until the blank line; gives the length of the head with it.
fn fill_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Option<usize>, ReadError> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if let Some(at) = buffer.windows(2).position(|window| window == b"\n\n") {
            return Ok(Some(at + 2)); // noted as a deviation when the lines are looked at
        }
        if buffer.len() > MAX_HEAD {
            return Err(ReadError::Malformed(format!(
                "the head exceeds {MAX_HEAD} bytes"
            )));
        }
        if read_some(stream, buffer)? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(ReadError::Malformed(
                    "the connection ended within the head".to_owned(),
                ))
            };
        }
    }
}

fn read_some(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(count) => {
                buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
                return Ok(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<Request>, ReadError> {
        Request::read(&mut text.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn a_head_of_the_daemon_has_no_problems() {
        let request = read(
            "PUT /a%20b?x=1 HTTP/1.1\r\ncontent-type: application/json\r\nauthorization: t\r\nif-match: *\r\n\
             host: h\r\ncontent-length: 2\r\n\r\n{}",
        )
        .unwrap()
        .unwrap();
        assert_eq!(request.shape_problems(), Vec::<String>::new());
        assert_eq!((request.path(), request.query()), ("/a%20b", Some("x=1")));
        assert_eq!(request.body, b"{}");
    }

    #[test]
    fn dm_10_and_every_other_deviation_of_a_head_is_named() {
        for (head, problem) in [
            (
                "GET / HTTP/1.1\r\nhost: h\r\nuser-agent: x\r\n\r\n",
                "\"user-agent\" must not be sent",
            ),
            (
                "GET / HTTP/1.1\r\nhost: h\r\naccept: */*\r\n\r\n",
                "\"accept\" must not be sent",
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
                "\"Host\" is not in lower case",
            ),
            ("GET / HTTP/1.1\r\n\r\n", "\"host\" is missing"),
            (
                "GET / HTTP/1.1\r\nhost: h\r\nauthorization: a\r\n\r\n",
                "out of order",
            ),
            ("GET / HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n", "sent twice"),
            (
                "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
                "without a body",
            ),
            ("GET / HTTP/1.1\r\nhost:h\r\n\r\n", "name: value"),
            ("GET / HTTP/1.1\r\nhost: h \r\n\r\n", "name: value"),
            ("GET / HTTP/1.0\r\nhost: h\r\n\r\n", "version"),
            ("GET http://h/ HTTP/1.1\r\nhost: h\r\n\r\n", "target"),
            ("GET / HTTP/1.1\nhost: h\n\n", "CR LF"),
            (
                "PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}",
                "needs content-type",
            ),
            (
                "PUT / HTTP/1.1\r\ncontent-type: text/json\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}",
                "needs content-type",
            ),
        ] {
            let problems = read(head).unwrap().unwrap().shape_problems();
            assert!(
                problems.iter().any(|p| p.contains(problem)),
                "{head:?}: {problems:?}"
            );
        }
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for text in [
            "GET /\r\n\r\n",
            "GET / HTTP/1.1\r\nhost\r\n\r\n",
            "GET / HTTP/1.1\r\nho st: x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\n",
            "PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n{}",
            "PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
            "PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 02\r\n\r\n{}",
        ] {
            assert!(
                matches!(read(text), Err(ReadError::Malformed(_))),
                "{text:?}"
            );
        }
        assert!(read("").unwrap().is_none());
    }

    #[test]
    fn requests_follow_each_other_on_a_connection() {
        let mut stream =
            "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n".as_bytes();
        let mut spare = Vec::new();
        for target in ["/1", "/2"] {
            assert_eq!(
                Request::read(&mut stream, &mut spare)
                    .unwrap()
                    .unwrap()
                    .target,
                target
            );
        }
        assert!(Request::read(&mut stream, &mut spare).unwrap().is_none());
    }

    #[test]
    fn answers_are_framed_as_asked() {
        let response = Response::json(200, &serde_json::json!({"a": 1}));
        let text = |framing| String::from_utf8(response.to_bytes(framing, "D")).unwrap();
        assert!(text(BodyFraming::Length).ends_with("Content-Length: 7\r\n\r\n{\"a\":1}"));
        assert!(
            text(BodyFraming::Chunked)
                .ends_with("chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n")
        );
        assert!(text(BodyFraming::Close).ends_with("Connection: close\r\n\r\n{\"a\":1}"));
        let none = Response::empty(204).to_bytes(BodyFraming::Length, "D");
        assert_eq!(none, b"HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::read(&mut bytes.as_slice(), &mut Vec::new());
        }

        #[test]
        fn bodies_of_any_bytes_arrive(body in prop::collection::vec(any::<u8>(), 0..9000)) {
            let mut bytes = format!("PUT / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            bytes.extend_from_slice(&body);
            let request = Request::read(&mut bytes.as_slice(), &mut Vec::new()).unwrap().unwrap();
            prop_assert_eq!(request.body, body);
        }
    }
}
