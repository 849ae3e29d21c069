//! Request heads, server side.

#[cfg(test)]
mod tests;

use core::fmt;
use core::mem::MaybeUninit;

use super::headers::printable;
use super::{BodyLength, Connection, ContentType, Headers, Method, Version, decimal};
use crate::limits;
use crate::search;
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
            && let Some(newline) = search::position(rest, |byte| byte == b'\n')
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
    if value == b"application/json" {
        return ContentType::Json;
    }
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
    let relative = search::split_once(relative, b'#').map_or(relative, |(before, _)| before);
    let (path, query) = search::split_once(relative, b'?').unwrap_or((relative, ""));
    // Only an absolute target can do without a path.
    Some((if path.is_empty() { "/" } else { path }, query))
}

fn is_http2_preface(head: &[u8]) -> bool {
    head.starts_with(b"PRI * HTTP/2.0\r\n")
}
