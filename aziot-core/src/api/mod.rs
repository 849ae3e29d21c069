//! The services' HTTP interfaces: versions, routes, and the order in which a request is judged.
//!
//! The order decides which complaint wins, and existing clients know it:
//!
//! 1. [`Api::route`]: the api-version, then the path;
//! 2. [`Matched::body_rule`]: the method, and for PUT the content type;
//! 3. [`Matched::body`], once the body has arrived: the content type, then the syntax, then whether
//!    the route has the method at all;
//! 4. [`json::from_slice`], and [`required`] where a body is needed;
//! 5. the handler.
//!
//! Everything here is a function from bytes to a decision; reading, writing and deadlines are the
//! caller's.

pub mod certs;
pub mod identity;
pub mod keys;

#[cfg(test)]
mod tests;

use core::fmt;

use crate::http::request::Head;
use crate::http::{Method, chunked, query};
use crate::json;
use crate::percent::{self, DecodeError, Plus};

/// One service's interface.
#[derive(Debug)]
pub struct Api<R: 'static> {
    /// The api-versions, oldest first.
    pub versions: &'static [&'static str],
    /// The routes, tried in order.
    pub routes: &'static [Route<R>],
}

/// A path, and what it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Route<R: 'static> {
    /// The path; `{…}` stands for one segment that is a parameter. At most one.
    pub path: &'static str,
    /// The first of [`Api::versions`] that has the route, as an index.
    pub since: usize,
    /// The methods it has.
    pub methods: &'static [Method],
    /// What it is.
    pub id: R,
}

impl<R: Copy> Api<R> {
    /// Finds the route of a request.
    ///
    /// `scratch` holds whatever has to be decoded; a buffer as long as the target is enough unless
    /// the target contains escapes that are not UTF-8, and none is needed for most requests.
    ///
    /// # Errors
    ///
    /// [`Error::VersionMissing`] and [`Error::VersionUnknown`], also for unknown paths;
    /// [`Error::NotFound`]; [`Error::TargetTooLong`] if `scratch` is too small.
    pub fn route<'t>(
        &self,
        head: &Head<'t>,
        scratch: &'t mut [u8],
    ) -> Result<Matched<'t, R>, Error<'t>> {
        let capacity = scratch.len();
        let too_long = |_: DecodeError| Error::TargetTooLong { limit: capacity };
        let given = query::pairs(head.query)
            .filter(|pair| pair.is("api-version"))
            .last()
            .ok_or(Error::VersionMissing)?;
        let (given, scratch) = given.decoded(scratch).map_err(too_long)?;
        let version = self
            .versions
            .iter()
            .position(|version| *version == given)
            .ok_or(Error::VersionUnknown(given))?;
        let (kind, scratch) = match query::pairs(head.query).find(|pair| pair.is("type")) {
            Some(pair) => {
                let (kind, scratch) = pair.decoded(scratch).map_err(too_long)?;
                (Some(kind), scratch)
            }
            None => (None, scratch),
        };
        let (route, raw) = self
            .routes
            .iter()
            .filter(|route| version >= route.since)
            .find_map(|route| {
                let raw = match_path(route.path, head.path)?;
                // A parameter that is not UTF-8 does not match, and another route may.
                raw.is_none_or(is_utf8).then_some((route, raw))
            })
            .ok_or(Error::NotFound)?;
        let parameter = match raw {
            Some(raw) => {
                let (parameter, _) =
                    percent::decode_str(raw, Plus::Plus, scratch).map_err(too_long)?;
                Some(parameter)
            }
            None => None,
        };
        Ok(Matched {
            id: route.id,
            method: head.method,
            version,
            parameter,
            kind,
            is_json: head.is_json(),
            implemented: route.methods.contains(&head.method),
        })
    }
}

/// A request that has been given to a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Matched<'t, R> {
    /// The route.
    pub id: R,
    /// The method.
    pub method: Method,
    /// The request's version, as an index into [`Api::versions`].
    pub version: usize,
    /// The path's parameter, decoded; never empty.
    pub parameter: Option<&'t str>,
    /// The first `type` of the query, decoded.
    pub kind: Option<&'t str>,
    is_json: bool,
    implemented: bool,
}

impl<R: Copy> Matched<'_, R> {
    /// What to do with the request's body.
    ///
    /// # Errors
    ///
    /// [`Error::MethodNotAllowed`] and [`Error::UnsupportedMediaType`]. The body, if there is one,
    /// still follows; unless the connection is closed it has to be drained.
    pub const fn body_rule(&self) -> Result<BodyRule, Error<'static>> {
        match self.method {
            Method::Get if self.implemented => Ok(BodyRule::Drain),
            Method::Get | Method::Other => Err(Error::MethodNotAllowed),
            Method::Put if !self.is_json => Err(Error::UnsupportedMediaType),
            Method::Delete | Method::Post | Method::Put => Ok(BodyRule::Read),
        }
    }

    /// Judges the body that has arrived, and answers the JSON text to decode, if there is any.
    ///
    /// For POST and DELETE an empty body, or one with another content type, is no body; for PUT the
    /// empty text is decoded like any other.
    ///
    /// # Errors
    ///
    /// [`Error::MethodNotAllowed`] if the route does not have the method, and [`Error::Json`] if
    /// then the body is not even JSON.
    pub fn body<'b>(&self, body: &'b mut [u8]) -> Result<Option<&'b mut [u8]>, Error<'b>> {
        let present = match self.method {
            Method::Put => true,
            _ => self.is_json && !body.is_empty(),
        };
        if self.implemented {
            return Ok(present.then_some(body));
        }
        if present {
            json::validate(body).map_err(Error::Json)?;
        }
        Err(Error::MethodNotAllowed)
    }

    /// As [`body`](Self::body), decoded.
    ///
    /// # Errors
    ///
    /// As [`body`](Self::body), and [`Error::Json`] if it is not a `T`.
    pub fn decode<'b, T: json::FromJson<'b>>(
        &self,
        body: &'b mut [u8],
    ) -> Result<Option<T>, Error<'b>> {
        match self.body(body)? {
            Some(text) => json::from_slice(text).map(Some).map_err(Error::Json),
            None => Ok(None),
        }
    }
}

/// What to do with a request's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyRule {
    /// Ignore it.
    Drain,
    /// Read all of it, within the deadline and the limit.
    Read,
}

/// A body that a handler cannot do without.
///
/// # Errors
///
/// [`Error::MissingBody`].
pub fn required<'b, T>(body: Option<T>) -> Result<T, Error<'b>> {
    body.ok_or(Error::MissingBody)
}

/// Why a request is answered before its handler is asked.
///
/// Displays as the `message` of the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error<'t> {
    /// The body could not be read to its end; the connection is closed.
    Body(BodyError),
    /// The body is longer than this many bytes; the connection is closed.
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body did not arrive in time; the connection is closed.
    Deadline,
    /// The body is not the JSON that it must be.
    Json(json::Error<'t>),
    /// The route does not have the method.
    MethodNotAllowed,
    /// The handler needs a body.
    MissingBody,
    /// There is no such path in this version.
    NotFound,
    /// The decoded target does not fit in this many bytes.
    TargetTooLong {
        /// The limit.
        limit: usize,
    },
    /// The body of a PUT is not JSON.
    UnsupportedMediaType,
    /// The query has no `api-version`.
    VersionMissing,
    /// There is no such version.
    VersionUnknown(&'t str),
}

impl Error<'_> {
    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Body(_)
            | Self::MethodNotAllowed
            | Self::MissingBody
            | Self::VersionMissing
            | Self::VersionUnknown(_) => 400,
            Self::NotFound => 404,
            Self::Deadline => 408,
            Self::BodyTooLarge { .. } => 413,
            Self::TargetTooLong { .. } => 414,
            Self::UnsupportedMediaType => 415,
            Self::Json(_) => 422,
        }
    }

    /// Whether the connection has to be closed after the answer, because where the next request
    /// starts is not known.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(
            self,
            Self::Body(_) | Self::BodyTooLarge { .. } | Self::Deadline
        )
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(error) => write!(
                f,
                "error reading a body from connection\ncaused by: {error}"
            ),
            Self::BodyTooLarge { limit } => {
                write!(f, "request body is larger than {limit} bytes")
            }
            Self::Deadline => f.write_str("deadline has elapsed"),
            Self::Json(error) => error.fmt(f),
            Self::MethodNotAllowed => f.write_str("method not allowed"),
            Self::MissingBody => f.write_str("missing request body"),
            Self::NotFound => f.write_str("not found"),
            Self::TargetTooLong { limit } => {
                write!(f, "decoded request target is larger than {limit} bytes")
            }
            Self::UnsupportedMediaType => f.write_str("request body must be application/json"),
            Self::VersionMissing => f.write_str("api-version not specified"),
            Self::VersionUnknown(given) => write!(f, "invalid api-version {given:?}"),
        }
    }
}

impl core::error::Error for Error<'_> {}

#[cfg(feature = "defmt")]
impl defmt::Format for Error<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BodyError {
    /// The chunked coding is malformed.
    Chunked(chunked::Error),
    /// The client closed the connection, or its half of it.
    UnexpectedEnd,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunked(error) => error.fmt(f),
            Self::UnexpectedEnd => f.write_str("end of file before message length reached"),
        }
    }
}

impl core::error::Error for BodyError {}

/// Compares a raw path with a pattern: `None` if it does not match, else the raw parameter, if the
/// pattern has one.
fn match_path<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let Some((prefix, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some(None);
    };
    let suffix = rest.split_once('}').map_or("", |(_, suffix)| suffix);
    let parameter = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let one_segment = !parameter.is_empty() && !parameter.contains('/');
    one_segment.then_some(Some(parameter))
}

/// Whether encoded text stands for UTF-8. The longest encoding of a character is four bytes.
fn is_utf8(raw: &str) -> bool {
    if !percent::is_encoded(raw, Plus::Plus) {
        return true;
    }
    let mut pending = heapless::Vec::<u8, 4>::new();
    for byte in percent::decode(raw, Plus::Plus) {
        if pending.push(byte).is_err() {
            return false;
        }
        match core::str::from_utf8(&pending) {
            Ok(_) => pending.clear(),
            Err(error) if error.error_len().is_some() => return false,
            Err(_) => {}
        }
    }
    pending.is_empty()
}
