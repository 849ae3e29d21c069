//! Enrolment over Secure Transport (RFC 7030): what is sent to an EST server, and what its answers mean
//! (certificates-service 7).
//!
//! [`Enrolment`] is the order of the requests for one certificate, as a state machine that neither connects nor sleeps nor
//! reads a clock:
//!
//! ```text
//! Send(cacerts) ─▶ Send(simpleenroll | simplereenroll) ─▶ Done
//!                    │ ▲      │ ▲                └──400──▶ Send(csrattrs) ─▶ Failed
//!                    │ └─Wait─┘ │ 202
//!                    └──────────┘ 404, 405, 501 of simplereenroll: simpleenroll
//! ```
//!
//! The driver writes each request with [`target`], [`headers`] and [`enrol_body`], and hands every answer to
//! [`Enrolment::answered`], which gives it the certificates. Bodies are decoded in place.
//!
//! Whether the first certificate is the one that was asked for is not known here: the driver compares its public key with
//! that of the request.

mod answer;
mod attributes;
mod ber;
mod enrolment;
mod excerpt;
mod pem;
mod pkcs7;
#[cfg(test)]
mod tests;

use core::fmt;

pub use answer::{Error, Reply, read_certificates, read_csr_attributes};
pub use attributes::{CsrAttribute, CsrAttributes, Oid};
pub use ber::Malformed;
pub use enrolment::{
    ATTRIBUTES_TIME, Enrolment, Failure, Kind, PENDING_PAUSE, SHORTEST_PAUSE, Step,
};
pub use excerpt::{EXCERPT, Excerpt};
pub use pkcs7::{Certificates, CertificatesIter};

use crate::base64;
use crate::output::{BufferFull, Output};
use zeroize::Zeroizing;

/// Characters in a line of a request's body.
const LINE: usize = 64;

/// An operation of an EST server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Operation {
    /// The certificates of the CA (RFC 7030, section 4.1).
    CaCerts,
    /// What the CA wants in requests for certificates (section 4.5).
    CsrAttrs,
    /// A certificate (section 4.2.1).
    SimpleEnroll,
    /// A certificate in place of the one that the client authenticates with (section 4.2.2).
    SimpleReenroll,
}

impl Operation {
    /// The HTTP method.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::CaCerts | Self::CsrAttrs => "GET",
            Self::SimpleEnroll | Self::SimpleReenroll => "POST",
        }
    }

    /// The last segment of the path.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::CsrAttrs => "csrattrs",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
        }
    }

    /// Whether the request has a body: that of [`enrol_body`].
    #[must_use]
    pub const fn has_body(self) -> bool {
        matches!(self, Self::SimpleEnroll | Self::SimpleReenroll)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.segment())
    }
}

/// The URL of an operation, or its path and query: displays as `base` with the operation as one more segment of the path.
///
/// `base` is the configured URL, or only the path and query of it. Nothing else is added, not even `.well-known/est`. A
/// query stays behind the path, a fragment is dropped.
#[must_use]
pub fn target(base: &str, operation: Operation) -> Target<'_> {
    let base = base.split('#').next().unwrap_or_default();
    let (path, query) = base
        .find('?')
        .and_then(|at| base.split_at_checked(at))
        .unwrap_or((base, ""));
    Target {
        path,
        query,
        operation,
    }
}

/// What [`target`] answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target<'a> {
    path: &'a str,
    /// With its question mark, if there is one.
    query: &'a str,
    operation: Operation,
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)?;
        if !self.path.ends_with('/') {
            f.write_str("/")?;
        }
        f.write_str(self.operation.segment())?;
        f.write_str(self.query)
    }
}

/// The header fields of a request, in the order in which they are sent before `host` and `content-length`.
/// `authorization` is what [`basic`] has made.
pub fn headers(
    operation: Operation,
    authorization: Option<&str>,
) -> impl Iterator<Item = (&'static str, &str)> + Clone {
    let body: &[(&str, &str)] = if operation.has_body() {
        &[
            ("content-type", "application/pkcs10"),
            ("content-transfer-encoding", "base64"),
        ]
    } else {
        &[]
    };
    authorization
        .map(|value| ("authorization", value))
        .into_iter()
        .chain(body.iter().copied())
}

/// Length of [`enrol_body`] for a request of `der` bytes; `usize::MAX` if that does not fit.
#[must_use]
pub const fn enrol_body_len(der: usize) -> usize {
    let text = base64::encoded_len(der);
    text.saturating_add(text.div_ceil(LINE))
}

/// Writes the body of [`SimpleEnroll`](Operation::SimpleEnroll) and [`SimpleReenroll`](Operation::SimpleReenroll): the DER of
/// the request for a certificate in Base64, in lines of 64 characters, with a line feed behind each.
///
/// # Errors
/// `out` is shorter than [`enrol_body_len`].
pub fn enrol_body<'o>(csr: &[u8], out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
    let mut out = Output::new(out);
    for line in csr.chunks(LINE / 4 * 3) {
        writeln!(out, "{}", base64::Encoded(line));
    }
    out.finish_str()
}

/// Length of what [`basic`] makes; `usize::MAX` if that does not fit.
#[must_use]
pub const fn basic_len(username: &str, password: &str) -> usize {
    let pair = username
        .len()
        .saturating_add(password.len())
        .saturating_add(1);
    base64::encoded_len(pair).saturating_add(BASIC.len())
}

const BASIC: &str = "Basic ";

/// Writes the value of `authorization` for a user name and a password (RFC 7617, in UTF-8). It is as secret as the password.
///
/// # Errors
/// `out` is shorter than [`basic_len`].
pub fn basic<'o>(username: &str, password: &str, out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
    let mut out = Output::new(out);
    out.put_str(BASIC);
    let mut pair = username.bytes().chain([b':']).chain(password.bytes());
    loop {
        let mut bytes = Zeroizing::new([0; 3]);
        let mut length = 0_usize;
        for (place, byte) in bytes.iter_mut().zip(&mut pair) {
            *place = byte;
            length = length.saturating_add(1);
        }
        let mut text = Zeroizing::new([0; 4]);
        let bytes = bytes.get(..length).unwrap_or_default();
        out.put_str(base64::encode(bytes, text.as_mut_slice())?);
        if length < 3 {
            return out.finish_str();
        }
    }
}
