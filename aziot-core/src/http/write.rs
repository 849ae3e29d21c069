//! Heads of responses and requests, written in one piece.

use core::fmt;

use super::{Connection, Status, Version};
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
    /// [`Error::BufferFull`], which cannot happen if `out` has
    /// [`WRITTEN_RESPONSE_HEAD`](crate::limits::WRITTEN_RESPONSE_HEAD) bytes.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, Error> {
        let mut out = Cursor::new(out);
        out.put(match self.version {
            Version::Http10 => "HTTP/1.0 ",
            Version::Http11 => "HTTP/1.1 ",
        })?;
        let status = Status(self.status);
        out.put_decimal(self.status.into())?;
        out.put(" ")?;
        out.put(status.reason().unwrap_or("Unknown"))?;
        out.put(match self.content {
            Content::Json(_) => "\r\ncontent-type: application/json",
            Content::Empty | Content::None => "",
        })?;
        out.put(match self.connection {
            Connection::Close => "\r\nconnection: close",
            Connection::Default => "",
            Connection::KeepAlive => "\r\nconnection: keep-alive",
        })?;
        let length = match self.content {
            Content::Empty => Some(0),
            Content::Json(length) => Some(length),
            Content::None => None,
        };
        if let Some(length) = length {
            out.put("\r\ncontent-length: ")?;
            out.put_decimal(length)?;
        }
        out.put("\r\ndate: ")?;
        out.put_bytes(&self.date.imf_fixdate().to_bytes())?;
        out.put("\r\n\r\n")?;
        Ok(out.length)
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
    /// The length of the JSON body, if there is a body.
    pub body: Option<usize>,
}

impl RequestHead<'_> {
    /// Writes the head to the start of `out`, and answers its length.
    ///
    /// # Errors
    ///
    /// [`Error::BufferFull`], or [`Error::InvalidCharacter`] if a part contains what would end it.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, Error> {
        let mut out = Cursor::new(out);
        out.put_checked(&self.method, is_graphic)?;
        out.put(" ")?;
        out.put_checked(self.target, is_graphic)?;
        out.put(" HTTP/1.1\r\n")?;
        if self.body.is_some() {
            out.put("content-type: application/json\r\n")?;
        }
        for (name, value) in self.headers {
            out.put_checked(name, is_graphic)?;
            out.put(": ")?;
            out.put_checked(value, |byte| is_graphic(byte) || byte == b' ')?;
            out.put("\r\n")?;
        }
        out.put("host: ")?;
        out.put_checked(&self.host, is_graphic)?;
        if let Some(length) = self.body {
            out.put("\r\ncontent-length: ")?;
            out.put_decimal(length)?;
        }
        out.put("\r\n\r\n")?;
        Ok(out.length)
    }
}

/// Why a head could not be written.
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

/// Writes text to the front of a buffer.
struct Cursor<'o> {
    out: &'o mut [u8],
    length: usize,
}

impl<'o> Cursor<'o> {
    fn new(out: &'o mut [u8]) -> Self {
        Self { out, length: 0 }
    }

    fn put(&mut self, text: &str) -> Result<(), Error> {
        self.put_bytes(text.as_bytes())
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.length.saturating_add(bytes.len());
        self.out
            .get_mut(self.length..end)
            .ok_or(Error::BufferFull)?
            .copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    fn put_decimal(&mut self, mut value: usize) -> Result<(), Error> {
        let mut digits = [0; 20];
        let mut used = 0_usize;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            used = used.saturating_add(1);
            value /= 10;
            if value == 0 {
                break;
            }
        }
        let start = digits.len().saturating_sub(used);
        self.put_bytes(digits.get(start..).unwrap_or_default())
    }

    fn put_checked(
        &mut self,
        part: &dyn fmt::Display,
        valid: impl Fn(u8) -> bool,
    ) -> Result<(), Error> {
        let start = self.length;
        fmt::write(self, format_args!("{part}")).map_err(|fmt::Error| Error::BufferFull)?;
        let written = self.out.get(start..self.length).unwrap_or_default();
        if !written.iter().all(|&byte| valid(byte)) {
            return Err(Error::InvalidCharacter);
        }
        Ok(())
    }
}

impl fmt::Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text).map_err(|_| fmt::Error)
    }
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
            assert_eq!(head.write(&mut out[..short]), Err(Error::BufferFull));
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
