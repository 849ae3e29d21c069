//! Responses, client side, parsed as they arrive.

#[cfg(test)]
mod tests;

use core::fmt;
use core::mem::MaybeUninit;

use super::chunked::{self, Decoder};
use super::headers::printable;
use super::request::{HeadSearch, connection};
use super::{Connection, ContentType, Headers, Version, decimal};
use crate::limits;
use crate::time::UnixTime;

/// Parses one response in the caller's buffer.
///
/// Read from the connection to the end of what is filled, call [`advance`](Self::advance), and
/// repeat until it says that the response is complete.
///
/// ```
/// use aziot_core::http::response::{Limits, ResponseParser};
///
/// let mut parser = ResponseParser::new(Limits::default());
/// let mut buffer = [0; 256];
/// let mut filled = 0;
/// for arrived in ["HTTP/1.1 200 OK\r\ntransfer-enc", "oding: chunked\r\n\r\n2\r\n{}\r\n", "0\r\n\r\n"] {
///     buffer[filled..][..arrived.len()].copy_from_slice(arrived.as_bytes());
///     filled += arrived.len();
///     if parser.advance(&mut buffer, &mut filled, false).unwrap() {
///         let response = parser.response(&buffer).unwrap();
///         assert_eq!((response.status.0, response.body), (200, &b"{}"[..]));
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ResponseParser {
    limits: Limits,
    bodiless: bool,
    search: HeadSearch,
    state: State,
    head: Head,
    /// Where the decoded body ends.
    body_end: usize,
    /// There was more than one response.
    surplus: bool,
}

/// What a response may need at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of its head.
    pub head: usize,
    /// Bytes of its body.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: limits::RESPONSE_HEAD,
            body: limits::RESPONSE_BODY,
        }
    }
}

impl ResponseParser {
    /// A parser for the response to an ordinary request.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            bodiless: false,
            search: HeadSearch::new(),
            state: State::Head,
            head: Head::EMPTY,
            body_end: 0,
            surplus: false,
        }
    }

    /// A parser for the response to `HEAD`, or a successful one to `CONNECT`: there is no body,
    /// whatever the head says.
    #[must_use]
    pub const fn bodiless(limits: Limits) -> Self {
        Self {
            bodiless: true,
            ..Self::new(limits)
        }
    }

    /// Looks at what has arrived: `buffer[..*filled]` is all of it, `closed` says that nothing will
    /// follow. Answers whether the response is complete.
    ///
    /// Interim responses are dropped, and chunked bodies decoded in place, so `filled` can become
    /// smaller. If all of `buffer` is filled and the response is not complete, go on with a larger
    /// one with the same content; [`needed`](Self::needed) tells how large, where that is known.
    ///
    /// # Errors
    ///
    /// The response is malformed, exceeds the limits, or ended early.
    pub fn advance(
        &mut self,
        buffer: &mut [u8],
        filled: &mut usize,
        closed: bool,
    ) -> Result<bool, Error> {
        loop {
            let arrived = buffer.get_mut(..*filled).unwrap_or_default();
            match &mut self.state {
                State::Head => {
                    let found = self.search.find_within(arrived, self.limits.head);
                    let Some(length) = found.map_err(|_| Error::HeadTooLarge(self.limits.head))?
                    else {
                        return match (closed, arrived.is_empty()) {
                            (false, _) => Ok(false),
                            (true, true) => Err(Error::Closed),
                            (true, false) => Err(Error::UnexpectedEnd),
                        };
                    };
                    let (head, framing) = Head::parse(arrived.get(..length).unwrap_or_default())?;
                    if head.is_interim() {
                        arrived.copy_within(length.., 0);
                        *filled = filled.saturating_sub(length);
                        self.search = HeadSearch::new();
                        continue;
                    }
                    self.state = if self.bodiless || head.has_no_body() {
                        State::Known(0)
                    } else {
                        framing
                    };
                    if let State::Known(length) = self.state
                        && length > self.limits.body as u64
                    {
                        return Err(Error::BodyTooLarge(self.limits.body));
                    }
                    self.head = head;
                    self.body_end = length;
                }
                State::Known(length) => {
                    let end = usize::try_from(*length)
                        .ok()
                        .and_then(|length| self.head.length.checked_add(length))
                        .ok_or(Error::BodyTooLarge(self.limits.body))?;
                    if arrived.len() < end {
                        self.body_end = arrived.len();
                        return if closed {
                            Err(Error::UnexpectedEnd)
                        } else {
                            Ok(false)
                        };
                    }
                    self.surplus = arrived.len() > end;
                    self.body_end = end;
                    self.state = State::Done;
                }
                State::Chunked(decoder) => {
                    let encoded = arrived.get_mut(self.body_end..).unwrap_or_default();
                    let available = encoded.len();
                    let step = decoder.decode(encoded).map_err(Error::Chunked)?;
                    self.body_end = self.body_end.saturating_add(step.produced);
                    *filled = self.body_end;
                    self.check_body()?;
                    if step.done {
                        self.surplus = step.consumed < available;
                        self.state = State::Done;
                    } else if closed {
                        return Err(Error::UnexpectedEnd);
                    } else {
                        return Ok(false);
                    }
                }
                State::UntilClose => {
                    self.body_end = arrived.len();
                    self.check_body()?;
                    if !closed {
                        return Ok(false);
                    }
                    self.state = State::Done;
                }
                State::Done => return Ok(true),
            }
        }
    }

    /// How many bytes head and body have together, once the head has told.
    #[must_use]
    pub fn needed(&self) -> Option<usize> {
        match self.state {
            State::Known(length) => self.head.length.checked_add(usize::try_from(length).ok()?),
            State::Done => Some(self.body_end),
            State::Chunked(_) | State::Head | State::UntilClose => None,
        }
    }

    /// The response, once it is complete; `buffer` is the one it was parsed in.
    #[must_use]
    pub fn response<'b>(&self, buffer: &'b [u8]) -> Option<Response<'b>> {
        if self.state != State::Done {
            return None;
        }
        let head = buffer.get(..self.head.length)?;
        Some(Response {
            status: super::Status(self.head.status),
            body: buffer.get(self.head.length..self.body_end)?,
            content_type: self.head.content_type,
            retry_after: self.head.retry_after,
            date: self.head.date,
            headers: Headers::of_head(head),
        })
    }

    /// Whether the connection can be used for another request.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.state == State::Done && self.head.keep_alive && !self.surplus
    }

    fn check_body(&self) -> Result<(), Error> {
        if self.body_end.saturating_sub(self.head.length) > self.limits.body {
            return Err(Error::BodyTooLarge(self.limits.body));
        }
        Ok(())
    }
}

/// A complete response, as views of the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Response<'b> {
    /// The status.
    pub status: super::Status,
    /// The body, decoded.
    pub body: &'b [u8],
    /// Whether the content type contains `application/json`, in any case.
    pub content_type: ContentType,
    /// When to try again.
    pub retry_after: Option<RetryAfter>,
    /// The server's time.
    pub date: Option<UnixTime>,
    /// All header fields.
    pub headers: Headers<'b>,
}

impl Response<'_> {
    /// Whether the body can be JSON: it says so, or says nothing.
    #[must_use]
    pub fn may_be_json(&self) -> bool {
        self.content_type != ContentType::Other
    }
}

/// A `retry-after` field (RFC 9110 section 10.2.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RetryAfter {
    /// At this time.
    At(UnixTime),
    /// After this many seconds.
    Seconds(u32),
}

impl RetryAfter {
    /// Reads the field's value; a number too large to hold is the largest.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Seconds(value.parse().unwrap_or(u32::MAX)));
        }
        UnixTime::parse_http_date(value).ok().map(Self::At)
    }

    /// Seconds to wait from `now` on.
    #[must_use]
    pub fn delay(self, now: UnixTime) -> u64 {
        match self {
            Self::At(time) => time.since(now),
            Self::Seconds(seconds) => seconds.into(),
        }
    }
}

/// Why a response was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The body is longer than this many bytes.
    BodyTooLarge(usize),
    /// The chunked coding is malformed.
    Chunked(chunked::Error),
    /// The connection was closed without an answer.
    Closed,
    /// `content-length` is malformed, or there are several different ones.
    ContentLength,
    /// The head is longer than this many bytes.
    HeadTooLarge(usize),
    /// The head is malformed.
    Malformed(httparse::Error),
    /// The body has a transfer coding other than `chunked`.
    TransferEncoding,
    /// The connection was closed in the middle of the response.
    UnexpectedEnd,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodyTooLarge(limit) => {
                write!(f, "the response body is longer than {limit} bytes")
            }
            Self::Chunked(error) => error.fmt(f),
            Self::Closed => f.write_str("the connection was closed before a response arrived"),
            Self::ContentLength => {
                f.write_str("malformed HTTP response: malformed or contradictory content-length")
            }
            Self::HeadTooLarge(limit) => {
                write!(f, "the response head is longer than {limit} bytes")
            }
            Self::Malformed(error) => write!(f, "malformed HTTP response: {error}"),
            Self::TransferEncoding => {
                f.write_str("malformed HTTP response: unsupported transfer coding")
            }
            Self::UnexpectedEnd => f.write_str("end of file before message length reached"),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "defmt")]
impl defmt::Format for Error {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}

/// Where the parser is. The states between head and end say how the end is found.
#[derive(Clone, Copy, Debug)]
enum State {
    Chunked(Decoder),
    Done,
    Head,
    Known(u64),
    UntilClose,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }
}

/// What is kept of a head.
#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    status: u16,
    keep_alive: bool,
    content_type: ContentType,
    retry_after: Option<RetryAfter>,
    date: Option<UnixTime>,
}

impl Head {
    const EMPTY: Self = Self {
        length: 0,
        status: 0,
        keep_alive: false,
        content_type: ContentType::Absent,
        retry_after: None,
        date: None,
    };

    /// Parses a complete head, and tells how the end of the body is found.
    // Its stack is gone before the caller goes on.
    #[inline(never)]
    fn parse(text: &[u8]) -> Result<(Self, State), Error> {
        let mut fields = [const { MaybeUninit::uninit() }; limits::RESPONSE_HEADER_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            text,
            &mut fields,
        );
        if !status.map_err(Error::Malformed)?.is_complete() {
            return Err(Error::UnexpectedEnd);
        }
        let mut head = Self {
            length: text.len(),
            status: response.code.unwrap_or_default(),
            ..Self::EMPTY
        };
        let version = match response.version {
            Some(0) => Version::Http10,
            _ => Version::Http11,
        };
        let mut said = Connection::Default;
        let mut length = None;
        let mut chunked = false;
        for field in response.headers.iter() {
            let is = |name| field.name.eq_ignore_ascii_case(name);
            if is("connection") {
                said = connection(said, field.value);
            } else if is("content-length") {
                for value in field.value.split(|&byte| byte == b',') {
                    let value = decimal(value.trim_ascii()).ok_or(Error::ContentLength)?;
                    if length.is_some_and(|other| other != value) {
                        return Err(Error::ContentLength);
                    }
                    length = Some(value);
                }
            } else if is("content-type") && head.content_type == ContentType::Absent {
                head.content_type = content_type(field.value);
            } else if is("date") {
                let text = printable(field.value).unwrap_or_default();
                head.date = UnixTime::parse_http_date(text).ok();
            } else if is("retry-after") {
                head.retry_after = printable(field.value).and_then(RetryAfter::parse);
            } else if is("transfer-encoding") {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Error::TransferEncoding);
                }
                chunked = true;
            }
        }
        let framing = match length {
            _ if chunked => State::Chunked(Decoder::new()),
            Some(length) => State::Known(length),
            None => State::UntilClose,
        };
        head.keep_alive =
            said.persists(version) && (framing != State::UntilClose || head.has_no_body());
        Ok((head, framing))
    }

    /// A response that another one follows (RFC 9110 section 15.2), except for a switch of
    /// protocols, which is never asked for.
    const fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    const fn has_no_body(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }
}

fn content_type(value: &[u8]) -> ContentType {
    const JSON: &[u8] = b"application/json";
    let json = value
        .windows(JSON.len())
        .any(|part| part.eq_ignore_ascii_case(JSON));
    if json {
        ContentType::Json
    } else {
        ContentType::Other
    }
}
