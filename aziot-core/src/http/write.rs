//! Heads of responses and requests, written in one piece.

use core::fmt;

use super::{Connection, Status, Version};
use crate::output::{BufferFull, Output};
use crate::time::UnixTime;

/// The interim response that a client which sent `expect: 100-continue` waits for.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The head of a response.
///
/// Deployed clients read it with a single read of 512 bytes: it is always shorter, and must leave
/// in one piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponseHead {
    /// The version of the request, or 1.1 if that could not be parsed.
    pub version: Version,
    /// The status code.
    pub status: u16,
    /// What follows.
    pub content: Content,
    /// What to say about the connection.
    pub connection: Connection,
    /// The time.
    pub date: UnixTime,
}

/// What follows a response head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// Nothing, and the head says so: for heads that could not be parsed.
    Empty,
    /// JSON of this many bytes (which a response to HEAD announces, and leaves out).
    Json(usize),
    /// Nothing, and the head does not mention it: status 204.
    None,
}

impl ResponseHead {
    /// Writes the head to the start of `out`, and answers its length.
    ///
    /// # Errors
    ///
    /// [`BufferFull`], which cannot happen if `out` has
    /// [`WRITTEN_RESPONSE_HEAD`](crate::limits::WRITTEN_RESPONSE_HEAD) bytes.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, BufferFull> {
        let mut out = Output::new(out);
        out.put_str(match self.version {
            Version::Http10 => "HTTP/1.0 ",
            Version::Http11 => "HTTP/1.1 ",
        });
        let status = Status(self.status);
        out.put_decimal(self.status.into());
        out.put_str(" ");
        out.put_str(status.reason().unwrap_or("Unknown"));
        out.put_str(match self.content {
            Content::Json(_) => "\r\ncontent-type: application/json",
            Content::Empty | Content::None => "",
        });
        out.put_str(match self.connection {
            Connection::Close => "\r\nconnection: close",
            Connection::Default => "",
            Connection::KeepAlive => "\r\nconnection: keep-alive",
        });
        let length = match self.content {
            Content::Empty => Some(0),
            Content::Json(length) => Some(length),
            Content::None => None,
        };
        if let Some(length) = length {
            out.put_str("\r\ncontent-length: ");
            out.put_decimal(length);
        }
        out.put_str("\r\ndate: ");
        out.put(&self.date.imf_fixdate().to_bytes());
        out.put_str("\r\n\r\n");
        out.finish().map(<[u8]>::len)
    }
}

/// The head of a request to a sibling service or to the cloud.
///
/// It carries exactly what is listed here: no `accept`, no `user-agent`, no `connection`.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method's name.
    pub method: &'a str,
    /// The request target, percent-encoded. `&format_args!(…)` will do.
    pub target: &'a dyn fmt::Display,
    /// The authority: `keyd.sock` for a sibling.
    pub host: &'a str,
    /// Further header fields, names in lower case.
    pub headers: &'a [(&'a str, &'a dyn fmt::Display)],
    /// The length of the body, if there is one. It is JSON, unless `headers` has another `content-type`.
    pub body: Option<usize>,
}

impl RequestHead<'_> {
    /// Writes the head to the start of `out`, and answers its length.
    ///
    /// # Errors
    ///
    /// [`Error::BufferFull`], or [`Error::InvalidCharacter`] if a part contains what would end it.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, Error> {
        let mut out = Output::new(out);
        put_checked(&mut out, &self.method, is_graphic)?;
        out.put_str(" ");
        put_checked(&mut out, self.target, is_graphic)?;
        out.put_str(" HTTP/1.1\r\n");
        let typed = self.headers.iter().any(|(name, _)| *name == "content-type");
        if self.body.is_some() && !typed {
            out.put_str("content-type: application/json\r\n");
        }
        for (name, value) in self.headers {
            put_checked(&mut out, name, is_graphic)?;
            out.put_str(": ");
            put_checked(&mut out, value, |byte| is_graphic(byte) || byte == b' ')?;
            out.put_str("\r\n");
        }
        out.put_str("host: ");
        put_checked(&mut out, &self.host, is_graphic)?;
        if let Some(length) = self.body {
            out.put_str("\r\ncontent-length: ");
            out.put_decimal(length);
        }
        out.put_str("\r\n\r\n");
        out.finish()
            .map(<[u8]>::len)
            .map_err(|BufferFull| Error::BufferFull)
    }
}

/// Why a request head could not be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// The output buffer is too small.
    BufferFull,
    /// A part contains a character that cannot occur there, such as a line end.
    InvalidCharacter,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BufferFull => "the HTTP head does not fit in the output buffer",
            Self::InvalidCharacter => "the HTTP head would contain an invalid character",
        })
    }
}

impl core::error::Error for Error {}

fn is_graphic(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// Appends `part`, all of whose bytes must be valid.
fn put_checked(
    out: &mut Output<'_>,
    part: &dyn fmt::Display,
    valid: impl Fn(u8) -> bool,
) -> Result<(), Error> {
    let start = out.len();
    write!(out, "{part}");
    let written = out.since(start).ok_or(Error::BufferFull)?;
    if !written.iter().all(|&byte| valid(byte)) {
        return Err(Error::InvalidCharacter);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    const DATE: Option<UnixTime> = UnixTime::from_secs(1_795_290_000);

    fn written(head: &ResponseHead) -> String {
        let mut out = [0; limits::WRITTEN_RESPONSE_HEAD];
        let length = head.write(&mut out).unwrap();
        for short in 0..length {
            assert_eq!(head.write(&mut out[..short]), Err(BufferFull));
        }
        head.write(&mut out).unwrap();
        String::from_utf8(out[..length].to_vec()).unwrap()
    }

    #[test]
    fn ht_09_response_heads() {
        let head = ResponseHead {
            version: Version::Http11,
            status: 200,
            content: Content::Json(264),
            connection: Connection::Default,
            date: DATE.unwrap(),
        };
        assert_eq!(
            written(&head),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 264\r\n\
             date: Sat, 21 Nov 2026 19:40:00 GMT\r\n\r\n"
        );
        assert_eq!(
            written(&ResponseHead {
                version: Version::Http10,
                connection: Connection::KeepAlive,
                content: Content::Json(0),
                ..head
            }),
            "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\nconnection: keep-alive\r\n\
             content-length: 0\r\ndate: Sat, 21 Nov 2026 19:40:00 GMT\r\n\r\n"
        );
        let longest = ResponseHead {
            status: 511,
            content: Content::Json(usize::MAX),
            connection: Connection::KeepAlive,
            ..head
        };
        assert!(written(&longest).len() <= limits::WRITTEN_RESPONSE_HEAD);
    }

    #[test]
    fn ht_10_vector_38_no_content() {
        let head = ResponseHead {
            version: Version::Http11,
            status: 204,
            content: Content::None,
            connection: Connection::Default,
            date: DATE.unwrap(),
        };
        assert_eq!(
            written(&head),
            "HTTP/1.1 204 No Content\r\ndate: Sat, 21 Nov 2026 19:40:00 GMT\r\n\r\n"
        );
        assert_eq!(
            written(&ResponseHead {
                connection: Connection::Close,
                ..head
            }),
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\
             date: Sat, 21 Nov 2026 19:40:00 GMT\r\n\r\n"
        );
    }

    #[test]
    fn ht_10_vector_39_answer_to_a_malformed_head() {
        let head = ResponseHead {
            version: Version::Http11,
            status: 400,
            content: Content::Empty,
            connection: Connection::Close,
            date: DATE.unwrap(),
        };
        assert_eq!(
            written(&head),
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
             date: Sat, 21 Nov 2026 19:40:00 GMT\r\n\r\n"
        );
    }

    fn request(head: &RequestHead<'_>) -> Result<String, Error> {
        let mut out = [0; 512];
        let length = head.write(&mut out)?;
        Ok(String::from_utf8(out[..length].to_vec()).unwrap())
    }

    #[test]
    fn hc_01_dm_10_request_heads() {
        let get = RequestHead {
            method: "GET",
            target: &"/keypair/x?api-version=2021-05-01",
            host: "keyd.sock",
            headers: &[],
            body: None,
        };
        assert_eq!(
            request(&get).unwrap(),
            "GET /keypair/x?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\n\r\n"
        );
        let post = RequestHead {
            method: "POST",
            ..get
        };
        assert!(!request(&post).unwrap().contains("content-length"));
        let put = RequestHead {
            method: "PUT",
            headers: &[("authorization", &"SharedAccessSignature sr=x")],
            body: Some(75),
            ..get
        };
        assert_eq!(
            request(&put).unwrap(),
            "PUT /keypair/x?api-version=2021-05-01 HTTP/1.1\r\n\
             content-type: application/json\r\n\
             authorization: SharedAccessSignature sr=x\r\n\
             host: keyd.sock\r\ncontent-length: 75\r\n\r\n"
        );
        assert_eq!(put.write(&mut [0; 50]), Err(Error::BufferFull));
        let enrol = RequestHead {
            method: "POST",
            target: &"/.well-known/est/simpleenroll",
            host: "est.example.com",
            headers: &[
                ("authorization", &"Basic dXNlcjpwdw=="),
                ("content-type", &"application/pkcs10"),
                ("content-transfer-encoding", &"base64"),
            ],
            body: Some(346),
        };
        assert_eq!(
            request(&enrol).unwrap(),
            "POST /.well-known/est/simpleenroll HTTP/1.1\r\n\
             authorization: Basic dXNlcjpwdw==\r\n\
             content-type: application/pkcs10\r\n\
             content-transfer-encoding: base64\r\n\
             host: est.example.com\r\ncontent-length: 346\r\n\r\n"
        );
    }

    #[test]
    fn requests_cannot_be_split() {
        let head = RequestHead {
            method: "GET",
            target: &"/",
            host: "keyd.sock",
            headers: &[],
            body: None,
        };
        for bad in [
            RequestHead {
                target: &"/ HTTP/1.1",
                ..head
            },
            RequestHead {
                host: "a\r\nb: c",
                ..head
            },
            RequestHead {
                headers: &[("a", &"x\r\ny")],
                ..head
            },
            RequestHead {
                headers: &[("a b", &"x")],
                ..head
            },
        ] {
            assert_eq!(request(&bad), Err(Error::InvalidCharacter));
        }
    }
}
