//! HTTP/1.1 and HTTP/1.0 (RFC 9112), server and client side, without I/O.
//!
//! | module | what it does |
//! |---|---|
//! | [`request`] | finds the end of a request head, and parses it |
//! | [`response`] | parses responses as they arrive (client) |
//! | [`chunked`] | decodes bodies in the chunked coding, in place |
//! | [`mod@write`] | writes heads of requests and responses |
//! | [`query`] | takes query strings apart |
//!
//! Nothing here allocates or keeps what it is given; buffers are the caller's.

pub mod chunked;
pub mod query;
pub mod request;
pub mod response;
pub mod write;

mod headers;

use core::fmt;

pub use headers::{Header, Headers};

/// Methods that the services implement; all others are answered alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Method {
    /// `DELETE`
    Delete,
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// Any other token, lower-case words included.
    Other,
}

impl Method {
    /// The method with this name; names are case-sensitive (RFC 9110 section 9.1).
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            _ => Self::Other,
        }
    }

    /// The name; empty for [`Other`](Self::Other).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Other => "",
        }
    }
}

/// Protocol versions that are spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How the end of a request body is found (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BodyLength {
    /// It says so itself: chunked coding.
    Chunked,
    /// After this many bytes; 0 is no body.
    Known(u64),
}

/// What a `connection` header field says about keeping the connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Connection {
    /// Close after this message.
    Close,
    /// Nothing: the version's default applies.
    #[default]
    Default,
    /// Keep open, which HTTP/1.0 has to ask for.
    KeepAlive,
}

impl Connection {
    /// Whether the connection stays open after a message of this version that says so
    /// (RFC 9112 section 9.3).
    #[must_use]
    pub const fn persists(self, version: Version) -> bool {
        match (self, version) {
            (Self::Close, _) | (Self::Default, Version::Http10) => false,
            (Self::KeepAlive, _) | (Self::Default, Version::Http11) => true,
        }
    }
}

/// A status code; displays as the code and its phrase, `404 Not Found`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Status(pub u16);

impl Status {
    /// The phrase of RFC 9110 and 6585, for the codes that HTTP services use.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        Some(match self.0 {
            100 => "Continue",
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            203 => "Non Authoritative Information",
            204 => "No Content",
            205 => "Reset Content",
            206 => "Partial Content",
            300 => "Multiple Choices",
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            304 => "Not Modified",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            402 => "Payment Required",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            406 => "Not Acceptable",
            407 => "Proxy Authentication Required",
            408 => "Request Timeout",
            409 => "Conflict",
            410 => "Gone",
            411 => "Length Required",
            412 => "Precondition Failed",
            413 => "Payload Too Large",
            414 => "URI Too Long",
            415 => "Unsupported Media Type",
            417 => "Expectation Failed",
            421 => "Misdirected Request",
            422 => "Unprocessable Entity",
            423 => "Locked",
            425 => "Too Early",
            426 => "Upgrade Required",
            428 => "Precondition Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            507 => "Insufficient Storage",
            511 => "Network Authentication Required",
            _ => return None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason().unwrap_or("<unknown status code>");
        write!(f, "{} {reason}", self.0)
    }
}

/// What a `content-type` header field says, as far as the services care.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ContentType {
    /// There is none.
    Absent,
    /// JSON.
    Json,
    /// Something else.
    Other,
}

/// The decimal number in a `content-length` field: digits only (RFC 9110 section 8.6).
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(byte & 0x0f))
    })
}
