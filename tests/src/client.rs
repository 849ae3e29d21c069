//! An HTTP client that takes nothing for granted: it sends exactly the bytes it is given and checks every byte of the answer.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an answer may take before the test fails. Far more than any should take on a busy machine, and more than the
/// longest deadline of the daemon that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a service.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// Header fields in the order they came, names as sent.
    pub fields: Vec<(String, String)>,
    /// The body, without framing.
    pub body: Vec<u8>,
    /// Bytes of status line and header fields, with the blank line.
    pub head_size: usize,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoResponse {
    /// The server closed the connection, or reset it, before the first byte.
    Closed,
    /// Reading failed.
    Io(io::Error),
    /// The bytes that came are not an answer.
    Malformed(String),
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection was closed without an answer"),
            Self::Io(error) => write!(f, "reading the answer failed: {error}"),
            Self::Malformed(what) => write!(f, "the answer is malformed: {what}"),
        }
    }
}

impl std::error::Error for NoResponse {}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Whatever `connect` reports.
    pub fn try_connect(socket: impl AsRef<Path>) -> io::Result<Self> {
        Self::over(UnixStream::connect(socket)?)
    }

    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect(socket: impl AsRef<Path>) -> Self {
        let socket = socket.as_ref();
        Self::try_connect(socket)
            .unwrap_or_else(|error| panic!("no connection to {}: {error}", socket.display()))
    }

    /// Uses a connection that is there already.
    ///
    /// # Errors
    /// When its time limits cannot be set.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the connection is broken.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the request is sent");
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// Whatever `write` reports.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Tells the server that nothing more will be sent.
    ///
    /// # Panics
    /// When the connection is broken.
    pub fn finish_sending(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("the sending side is shut down");
    }

    /// Reads one answer.
    ///
    /// # Panics
    /// When there is none, or it is malformed.
    pub fn response(&mut self) -> Response {
        self.try_response(false)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads one answer to a HEAD request, which has no body.
    ///
    /// # Panics
    /// As [`Self::response`].
    pub fn response_to_head(&mut self) -> Response {
        self.try_response(true)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// See [`NoResponse`].
    pub fn try_response(&mut self, to_head: bool) -> Result<Response, NoResponse> {
        let head_size = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            if self.received.len() > 64 * 1024 {
                return Err(NoResponse::Malformed(
                    "no end of the head within 64 KiB".to_owned(),
                ));
            }
            self.more()?;
        };
        let head = String::from_utf8(self.received[..head_size].to_vec())
            .map_err(|_| NoResponse::Malformed("the head is not UTF-8".to_owned()))?;
        let mut response = parse_head(&head).map_err(NoResponse::Malformed)?;
        let bodiless = to_head || response.status == 204 || response.status < 200;
        let length = if bodiless {
            0
        } else {
            let text = response
                .field("content-length")
                .ok_or_else(|| NoResponse::Malformed(format!("no content-length in {head:?}")))?;
            text.parse::<usize>()
                .map_err(|_| NoResponse::Malformed(format!("content-length {text:?}")))?
        };
        while self.received.len() < head_size + length {
            match self.more() {
                Err(NoResponse::Closed) => {
                    return Err(NoResponse::Malformed(format!(
                        "the body of {head:?} is cut short"
                    )));
                }
                other => other?,
            }
        }
        response.body = self.received[head_size..head_size + length].to_vec();
        self.received.drain(..head_size + length);
        Ok(response)
    }

    fn more(&mut self) -> Result<(), NoResponse> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) if self.received.is_empty() => Err(NoResponse::Closed),
            Ok(0) => Err(NoResponse::Malformed(format!(
                "cut off after {:?}",
                self.received.escape_ascii().to_string()
            ))),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error)
                if error.kind() == ErrorKind::ConnectionReset && self.received.is_empty() =>
            {
                Err(NoResponse::Closed)
            }
            Err(error) => Err(NoResponse::Io(error)),
        }
    }

    /// Sends a request head and body and reads the answer.
    pub fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes);
        self.response()
    }

    /// Waits until the server closes the connection, which must not send anything more.
    ///
    /// # Panics
    /// When it sends something, or leaves the connection open.
    pub fn assert_closed(mut self) {
        match self.more() {
            Err(NoResponse::Closed) => {}
            Err(error) => panic!("expected the connection to be closed: {error}"),
            Ok(()) => panic!(
                "expected the end, got {:?}",
                self.received.escape_ascii().to_string()
            ),
        }
    }

    /// Whether the server has closed the connection, without waiting for it.
    ///
    /// # Panics
    /// When it has sent something unasked.
    pub fn is_closed(&mut self) -> bool {
        self.stream
            .set_nonblocking(true)
            .expect("a non-blocking read");
        let result = self.more();
        self.stream
            .set_nonblocking(false)
            .expect("a blocking socket");
        match result {
            Err(NoResponse::Closed) => true,
            Err(NoResponse::Io(error)) if error.kind() == ErrorKind::WouldBlock => false,
            other => panic!(
                "expected nothing, got {other:?}: {:?}",
                self.received.escape_ascii().to_string()
            ),
        }
    }
}

impl Response {
    /// The value of a header field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The names of the header fields in order.
    #[must_use]
    pub fn field_names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// A string member of the JSON body.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn member(&self, name: &str) -> String {
        self.json()[name]
            .as_str()
            .unwrap_or_else(|| panic!("no string {name} in {self}"))
            .to_owned()
    }

    /// Checks status and JSON body against the expected message, `{"message":"…"}` in compact form.
    ///
    /// # Panics
    /// When they differ.
    pub fn assert_message(&self, status: u16, message: &str) {
        let expected = serde_json::json!({ "message": message }).to_string();
        assert_eq!((self.status, self.text()), (status, expected.as_str()));
        self.assert_framing();
    }

    /// Checks what deployed clients need of every answer (spec, daemon chapter B.5).
    ///
    /// # Panics
    /// When something is missing.
    pub fn assert_framing(&self) {
        assert!(
            self.head_size <= 512,
            "a head of {} bytes: {self}",
            self.head_size
        );
        assert!(self.fields.len() <= 16, "{self}");
        let date = self
            .field("date")
            .unwrap_or_else(|| panic!("no date in {self}"));
        assert!(is_imf_fixdate(date), "date {date:?}");
        let mut names = self.field_names();
        names.retain(|name| *name != "connection");
        if self.status == 204 {
            assert_eq!(names, ["date"], "{self}");
            assert!(self.body.is_empty(), "{self}");
        } else if self.field("content-type").is_none() {
            // An error found before the request could be understood.
            assert_eq!(names, ["content-length", "date"], "{self}");
            assert_eq!(
                (self.field("content-length"), self.field("connection")),
                (Some("0"), Some("close")),
                "{self}"
            );
        } else {
            assert_eq!(names, ["content-type", "content-length", "date"], "{self}");
            assert_eq!(
                self.field("content-type"),
                Some("application/json"),
                "{self}"
            );
            let value: Value = self.json();
            assert!(value.is_object(), "{self}");
            assert!(!self.body.contains(&b'\n'), "{self}");
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:?} {:?}",
            self.version,
            self.status,
            self.fields,
            self.body.escape_ascii().to_string()
        )
    }
}

/// One request over a connection of its own.
pub fn once(socket: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Response {
    Client::connect(socket).exchange(bytes)
}

/// The bytes of a request with a JSON body, or without a body.
#[must_use]
pub fn request(method: &str, target: &str, body: Option<&Value>) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: test.sock\r\n");
    if let Some(body) = body {
        let body = body.to_string();
        text.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
    } else {
        text.push_str("\r\n");
    }
    text.into_bytes()
}

/// `GET`, over a connection of its own.
pub fn get(socket: impl AsRef<Path>, target: &str) -> Response {
    once(socket, request("GET", target, None))
}

/// `POST` with a JSON body, over a connection of its own.
pub fn post(socket: impl AsRef<Path>, target: &str, body: &Value) -> Response {
    once(socket, request("POST", target, Some(body)))
}

/// `DELETE` with a JSON body, over a connection of its own.
pub fn delete(socket: impl AsRef<Path>, target: &str, body: &Value) -> Response {
    once(socket, request("DELETE", target, Some(body)))
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn parse_head(head: &str) -> Result<Response, String> {
    let lines = head.strip_suffix("\r\n\r\n").ok_or("no blank line")?;
    let mut lines = lines.split("\r\n");
    let status_line = lines.next().ok_or("no status line")?;
    let (version, rest) = status_line
        .split_once(' ')
        .ok_or_else(|| format!("status line {status_line:?}"))?;
    if version != "HTTP/1.1" && version != "HTTP/1.0" {
        return Err(format!("version {version:?}"));
    }
    let (status, reason) = rest
        .split_once(' ')
        .ok_or_else(|| format!("status line {status_line:?}"))?;
    let reason_is_text =
        !reason.is_empty() && reason.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    if status.len() != 3 || !reason_is_text {
        return Err(format!("status line {status_line:?}"));
    }
    let status = status.parse().map_err(|_| format!("status {status:?}"))?;
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(": ")
            .ok_or_else(|| format!("field {line:?}"))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(format!("field name {name:?}"));
        }
        if value.trim() != value || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(format!("value {value:?} of {name}"));
        }
        if fields.iter().any(|(known, _)| known == name) {
            return Err(format!("{name} occurs twice"));
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    Ok(Response {
        version: version.to_owned(),
        status,
        fields,
        body: Vec::new(),
        head_size: head.len(),
    })
}

/// `Sat, 21 Nov 2026 19:40:00 GMT` (RFC 9110, section 5.6.7).
fn is_imf_fixdate(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    bytes.len() == 29
        && ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&&text[..3])
        && &text[3..5] == ", "
        && digits(5..7)
        && [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]
        .contains(&&text[8..11])
        && digits(12..16)
        && digits(17..19)
        && digits(20..22)
        && digits(23..25)
        && (bytes[7], bytes[11], bytes[16], bytes[19], bytes[22]) == (b' ', b' ', b' ', b':', b':')
        && &text[25..] == " GMT"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(bytes: &'static [u8]) -> Client {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        Client::over(ours).unwrap()
    }

    #[test]
    fn answers_are_taken_apart() {
        let mut client = serve(b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\nHTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(client.response().status, 204);
        let second = client.response();
        assert_eq!(
            (second.version.as_str(), second.status, second.text()),
            ("HTTP/1.0", 200, "{}")
        );
        client.assert_closed();
    }

    #[test]
    fn strange_answers_are_refused() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        ] {
            let error = serve(bytes).try_response(false).unwrap_err();
            assert!(
                matches!(error, NoResponse::Malformed(_)),
                "{bytes:?}: {error}"
            );
        }
        assert!(matches!(
            serve(b"").try_response(false),
            Err(NoResponse::Closed)
        ));
    }

    #[test]
    fn dates() {
        assert!(is_imf_fixdate("Sat, 21 Nov 2026 19:40:00 GMT"));
        assert!(!is_imf_fixdate("Sat, 21 Nov 2026 19:40:00 UTC"));
        assert!(!is_imf_fixdate("2026-11-21T19:40:00Z"));
    }
}
