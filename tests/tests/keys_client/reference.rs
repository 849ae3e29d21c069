//! A stand-in for the blocking client of release 1.6.0, which is inside every deployed OpenSSL engine. It is written from the
//! description of that client (spec, keys chapter 10.2) and has its weaknesses: what this one cannot digest, that one cannot.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Where it hangs for ever, this one fails after so much time.
const HANG: Duration = Duration::from_secs(60);

/// The size of the one read that has to bring the whole head.
const HEAD: usize = 512;

/// The most header fields it takes.
const FIELDS: usize = 16;

/// The client.
pub struct ReferenceClient {
    socket: PathBuf,
}

/// What it makes of a response.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Status 200 or 201.
    Json(Value),
    /// Status 204.
    NoContent,
    /// Status 400 to 599, with the service's message.
    Refused(String),
}

impl ReferenceClient {
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Makes a request over a new connection. An error is what the real one would report, or do: hang.
    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> Result<Outcome, String> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|e| e.to_string())?;
        stream
            .set_read_timeout(Some(HANG))
            .map_err(|e| e.to_string())?;
        send(&mut stream, method, path, body).map_err(|e| e.to_string())?;
        receive(&mut stream)
    }
}

/// An id in a path: `/` and `%` stay as they are.
pub fn encoded(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            0..=0x20 | 0x7f.. | b'"' | b'<' | b'>' | b'`' | b'#' | b'?' | b'{' | b'}' => {
                format!("%{byte:02X}")
            }
            _ => char::from(byte).to_string(),
        })
        .collect()
}

/// In many small writes, and without `host`.
fn send(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> std::io::Result<()> {
    for piece in [
        method,
        " ",
        path,
        "?api-version=2021-05-01",
        " HTTP/1.1\r\n",
    ] {
        stream.write_all(piece.as_bytes())?;
    }
    if let Some(body) = body {
        stream.write_all(b"content-length: ")?;
        stream.write_all(body.len().to_string().as_bytes())?;
        stream.write_all(b"\r\n")?;
        stream.write_all(b"content-type: application/json\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if let Some(body) = body {
        stream.write_all(body.as_bytes())?;
    }
    Ok(())
}

fn receive(stream: &mut UnixStream) -> Result<Outcome, String> {
    let mut first = [0; HEAD];
    let length = read(stream, &mut first)?;
    let received = &first[..length];
    let end = received
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or("unexpected end of file")?
        + 4;
    let head = std::str::from_utf8(&received[..end]).map_err(|_| "malformed HTTP response")?;
    let mut lines = head.trim_end().split("\r\n");
    let status: u16 = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or("malformed HTTP response")?;
    let fields: Vec<(&str, &str)> = lines
        .map(|line| line.split_once(": ").ok_or("malformed HTTP response"))
        .collect::<Result<_, _>>()?;
    if fields.len() > FIELDS {
        return Err("TooManyHeaders".to_owned());
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    };
    let length: Option<usize> = field("content-length")
        .map(|value| value.parse().map_err(|_| "malformed HTTP response"))
        .transpose()?;
    let mut body = received[end..].to_vec();
    // Without a length, to the end of the stream, even for 204: this is where it hangs on a connection that stays open.
    let mut piece = [0; HEAD];
    while length.is_none_or(|length| body.len() < length) {
        let read = read(stream, &mut piece)?;
        if read == 0 {
            if length.is_some() {
                return Err("the body ends early; the real client would spin".to_owned());
            }
            break;
        }
        body.extend_from_slice(&piece[..read]);
    }
    if status == 204 {
        if !body.is_empty() {
            return Err("malformed HTTP response".to_owned());
        }
        return Ok(Outcome::NoContent);
    }
    if field("content-type") != Some("application/json") || length != Some(body.len()) {
        return Err("malformed HTTP response".to_owned());
    }
    let value: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    match (status, value["message"].as_str()) {
        (200 | 201, _) => Ok(Outcome::Json(value)),
        (400..=599, Some(message)) => Ok(Outcome::Refused(message.to_owned())),
        _ => Err("malformed HTTP response".to_owned()),
    }
}

fn read(stream: &mut UnixStream, into: &mut [u8]) -> Result<usize, String> {
    stream.read(into).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "it would hang for ever".to_owned(),
        _ => error.to_string(),
    })
}
