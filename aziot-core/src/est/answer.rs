//! What EST servers answer.

use core::fmt;
use core::time::Duration;

use super::attributes::{self, CsrAttributes};
use super::ber::{Malformed, SEQUENCE};
use super::excerpt::Excerpt;
use super::pem;
use super::pkcs7::{self, Certificates};
use crate::base64::{self, Padding};
use crate::http::Status;
use crate::retry;

/// The media type of certificates (RFC 7030, section 4.1.3).
const PKCS7: &str = "application/pkcs7-mime";

/// The media type of what is wanted in requests (section 4.5.2).
const CSR_ATTRIBUTES: &str = "application/csrattrs";

/// A complete answer.
#[derive(Debug)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The value of `content-type`.
    pub content_type: Option<&'a [u8]>,
    /// What `retry-after` asks for.
    pub retry_after: Option<Duration>,
    /// The whole body, in any encoding of a body that HTTP knows undone. It is decoded in place.
    pub body: &'a mut [u8],
}

/// Reads the answer to a request for certificates (certificates-service 7.4).
///
/// The body may be PEM, Base64 with white space anywhere, or DER, whatever `content-transfer-encoding` says; PKCS #7 without
/// certificates is no error. What is behind the PKCS #7 is ignored.
///
/// # Errors
/// See [`Error`]. Status 202 is [`Error::Pending`].
pub fn read_certificates(reply: Reply<'_>) -> Result<Certificates<'_>, Error> {
    let body = content(reply, PKCS7)?;
    let found = match body.first() {
        // No Base64 of PKCS #7 begins with the character that has this code.
        Some(&SEQUENCE) => pkcs7::certificates(body).map_err(Error::Pkcs7)?,
        _ if pem::is_pem(body) => 0..pem::certificates(body)?,
        _ => {
            let length = decode_base64(body)?;
            pkcs7::certificates(body.get(..length).unwrap_or_default()).map_err(Error::Pkcs7)?
        }
    };
    Ok(Certificates(body.get(found).unwrap_or_default()))
}

/// Reads the answer to [`CsrAttrs`](super::Operation::CsrAttrs) (RFC 7030, section 4.5.2).
///
/// # Errors
/// See [`Error`]. A server without wishes may answer 204 or 404, which is [`Error::Status`].
pub fn read_csr_attributes(reply: Reply<'_>) -> Result<CsrAttributes<'_>, Error> {
    let body = content(reply, CSR_ATTRIBUTES)?;
    let length = match body.first() {
        Some(&SEQUENCE) => body.len(),
        _ => decode_base64(body)?,
    };
    attributes::read(body.get(..length).unwrap_or_default()).map_err(Error::CsrAttributes)
}

/// The body of an answer that gives what was asked for.
fn content<'a>(reply: Reply<'a>, media_type: &'static str) -> Result<&'a mut [u8], Error> {
    let Reply {
        status,
        content_type,
        retry_after,
        body,
    } = reply;
    match status {
        200 => {}
        202 => return Err(Error::Pending { retry_after }),
        _ => {
            return Err(Error::Status {
                status,
                retry_after,
                text: Excerpt::new(body),
            });
        }
    }
    let found = content_type.ok_or(Error::NoContentType)?;
    let name = found.split(|byte| *byte == b';').next().unwrap_or_default();
    if !name
        .trim_ascii()
        .eq_ignore_ascii_case(media_type.as_bytes())
    {
        return Err(Error::ContentType(Excerpt::new(found)));
    }
    Ok(body)
}

/// Decodes Base64 with white space in place, and answers how many bytes there are.
pub(super) fn decode_base64(text: &mut [u8]) -> Result<usize, Error> {
    let is_space = |byte: u8| matches!(byte, 0x09..=0x0d | b' ' | 0x85 | 0xa0);
    let excerpt = Excerpt::new(text.get(..64).unwrap_or(text));
    let mut length = 0_usize;
    for at in 0..text.len() {
        let Some(&byte) = text.get(at) else { break };
        if !is_space(byte)
            && let Some(place) = text.get_mut(length)
        {
            *place = byte;
            length = length.saturating_add(1);
        }
    }
    let symbols = text.get_mut(..length).unwrap_or_default();
    base64::decode_in_place(symbols, Padding::Required).map_err(|_| Error::Encoding(excerpt))
}

/// Why a request to an EST server did not give what was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The content type is another one.
    ContentType(Excerpt),
    /// What should be attributes for requests is not.
    CsrAttributes(Malformed),
    /// There was no time left to ask.
    Deadline,
    /// The body is neither PEM nor Base64 nor DER.
    Encoding(Excerpt),
    /// The answer has no certificate.
    NoCertificate,
    /// There is no content type.
    NoContentType,
    /// There is no answer.
    NotAnswered(retry::Failure),
    /// The server takes its time with the certificate (status 202), more than there is.
    Pending {
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The body is not PKCS #7.
    Pkcs7(Malformed),
    /// The server refused, or failed.
    Status {
        /// The HTTP status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// Its own words.
        text: Excerpt,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentType(found) => write!(
                f,
                "the answer has the content type {found:?}, which is not the one of EST; check that the URL leads to an EST \
                 server",
                found = found.as_str()
            ),
            Self::CsrAttributes(malformed) => {
                write!(f, "the answer is not a list of attributes: {malformed}")
            }
            Self::Deadline => f.write_str("there was no time left to ask the EST server"),
            Self::Encoding(found) if found.is_empty() => {
                f.write_str("the answer is neither Base64 nor PEM nor DER")
            }
            Self::Encoding(found) => write!(
                f,
                "the answer is neither Base64 nor PEM nor DER, but begins with {:?}",
                found.as_str()
            ),
            Self::NoCertificate => f.write_str(
                "the answer contains no certificate; look at the log of the EST server for the reason",
            ),
            Self::NoContentType => f.write_str(
                "the answer has no content type; check that the URL leads to an EST server",
            ),
            Self::NotAnswered(failure) => failure.fmt(f),
            Self::Pending { retry_after } => {
                f.write_str("the EST server has not decided about the request yet (status 202)")?;
                if let Some(after) = retry_after {
                    write!(f, " and wants to be asked again in {} seconds", after.as_secs())?;
                }
                f.write_str("; it may have to be approved there")
            }
            Self::Pkcs7(malformed) => write!(f, "the answer is not PKCS #7: {malformed}"),
            Self::Status { status, text, .. } => {
                write!(f, "the EST server answered {}", Status(*status))?;
                if !text.is_empty() {
                    write!(f, ", {:?}", text.as_str())?;
                }
                f.write_str(remedy(*status))
            }
        }
    }
}

impl core::error::Error for Error {}

/// What can be done about a status, to be put behind it.
const fn remedy(status: u16) -> &'static str {
    match status {
        300..=399 => "; redirects are not followed, so configure the URL that it leads to",
        400 => "; the CA does not accept this request",
        401 => "; check the user name and password, or the client certificate",
        403 => "; these credentials do not permit this request",
        404 | 405 | 501 => {
            "; check the URL: the operations are looked for directly below it, `.well-known/est` is not added"
        }
        407 => "; check the user name and password of the proxy",
        _ => "",
    }
}
