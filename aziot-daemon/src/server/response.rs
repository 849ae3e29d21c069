//! Writing responses: head and body end up in one contiguous piece, which leaves in one system call where the peer's buffer
//! has room. Deployed clients need the whole head in their first read (spec, daemon chapter B.5).

use aziot_core::http::write::{Content, ResponseHead};
use aziot_core::http::{Connection, Version};
use aziot_core::json::{self, BufferFull};
use aziot_core::time::UnixTime;

use crate::wipe::wipe;

/// Room kept for a response head; ours are about 130 bytes.
const HEAD: usize = aziot_core::limits::WRITTEN_RESPONSE_HEAD;

/// Room for a response body that is tried first. All of it is written to, and wiped, so it is no more than most need.
const USUAL_BODY: usize = 512;

/// What the answer to a request needs to know about it.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Version for the status line.
    pub version: Version,
    /// The connection is closed after this response.
    pub close: bool,
    /// What to say about the connection if it is kept, and if it is closed.
    pub connection: [Connection; 2],
    /// The request was a HEAD: the response has no body, but the header fields of one.
    pub head_only: bool,
    /// Number of the request in this process, for the log.
    pub number: u64,
    /// Target of log records.
    pub target: &'static str,
    /// For the `date` field.
    pub date: UnixTime,
}

impl Meta {
    /// A mark on log lines that belong to the same request.
    pub fn tag(&self) -> Tag {
        Tag(self.number)
    }

    fn head(&self, status: u16, content: Content) -> ResponseHead {
        let connection = self.connection[usize::from(self.close)];
        ResponseHead {
            version: self.version,
            status,
            content,
            connection,
            date: self.date,
        }
    }
}

/// ` (request 17)`, at debug level only, where the lines of one request are worth matching.
pub struct Tag(u64);

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if log::log_enabled!(log::Level::Debug) {
            write!(f, " (request {})", self.0)
        } else {
            Ok(())
        }
    }
}

/// Appends a response with a JSON body. `body` writes into the room it is given; it is asked again with more when that was
/// too small.
pub fn write(
    out: &mut Vec<u8>,
    meta: &Meta,
    status: u16,
    body: impl Fn(&mut [u8]) -> Result<usize, BufferFull>,
) {
    let base = out.len();
    let mut room = base + HEAD + USUAL_BODY;
    let length = loop {
        resize(out, room, base);
        match out.get_mut(base + HEAD..).map(&body) {
            Some(Ok(length)) => break length,
            Some(Err(BufferFull)) | None => room = out.capacity().max(room * 2),
        }
    };
    let mut head_bytes = [0; HEAD];
    let head_length = head_into(&mut head_bytes, meta.head(status, Content::Json(length)));
    out[base..base + head_length].copy_from_slice(&head_bytes[..head_length]);
    let body_length = if meta.head_only { 0 } else { length };
    out.copy_within(base + HEAD..base + HEAD + body_length, base + head_length);
    // What of the body stays behind the end may be a key.
    wipe(&mut out[base + head_length + body_length..]);
    out.truncate(base + head_length + body_length);
    log::debug!(target: meta.target, "--> {status} {{\"content-type\": \"application/json\"}}{}", meta.tag());
}

/// Makes room for `size` bytes and keeps the first `base` of them. Memory that is left for larger one is wiped: a part of
/// a body is in it.
fn resize(out: &mut Vec<u8>, size: usize, base: usize) {
    if size > out.capacity() {
        let mut larger = Vec::with_capacity(size);
        larger.extend_from_slice(&out[..base]);
        wipe(out);
        *out = larger;
    }
    out.resize(size, 0);
}

/// Appends a 204.
pub fn write_no_content(out: &mut Vec<u8>, meta: &Meta) {
    write_bare(out, meta, 204, Content::None);
}

/// Appends a response with an empty body, for errors found before a request could be understood.
pub fn write_empty(out: &mut Vec<u8>, meta: &Meta, status: u16) {
    write_bare(out, meta, status, Content::Empty);
}

/// Answers a request that the service said it had answered, or had kept the reply of, and had not: the next response on
/// the connection must not be taken for this one's.
pub fn write_unanswered(out: &mut Vec<u8>, meta: &Meta) {
    log::error!(target: meta.target, "!!! internal error: a request was not answered{}", meta.tag());
    write(out, meta, 500, |room| {
        json::write_message(&"internal error", room)
    });
}

fn write_bare(out: &mut Vec<u8>, meta: &Meta, status: u16, content: Content) {
    let mut bytes = [0; HEAD];
    let length = head_into(&mut bytes, meta.head(status, content));
    out.extend_from_slice(&bytes[..length]);
    log::debug!(target: meta.target, "--> {status} {{}}{}", meta.tag());
}

fn head_into(out: &mut [u8; HEAD], head: ResponseHead) -> usize {
    match head.write(out) {
        Ok(length) => length,
        // The room is what core says is always enough.
        Err(error) => {
            log::error!("could not write a response head: {error}");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            version: Version::Http11,
            close: false,
            connection: [Connection::Default, Connection::Close],
            head_only: false,
            number: 1,
            target: "aziot_test",
            date: UnixTime::default(),
        }
    }

    #[test]
    fn a_body_of_any_length_follows_its_head() {
        for size in [0, 1, 511, 512, 513, 3583, 3584, 3585, 5000, 100_000] {
            let mut out = b"before".to_vec();
            write(&mut out, &meta(), 200, |room| {
                room.get_mut(..size).ok_or(BufferFull)?.fill(b'k');
                Ok(size)
            });
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("beforeHTTP/1.1 200"), "{head}");
            assert!(
                head.contains(&format!("content-length: {size}\r\n")),
                "{head}"
            );
            assert_eq!(body, "k".repeat(size));
        }
    }
}
