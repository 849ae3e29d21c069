//! As much of a Keys Service as a device with one key and no file system needs: `POST /sign` with
//! HMAC-SHA256, from the bytes of a request to the bytes of its answer.
//!
//! All memory is the caller's: the request is decoded in place, a handle is checked in a scratch
//! buffer, and the answer is written where it will be sent from. Nothing is kept between calls.

use core::convert::Infallible;
use core::fmt;

use aziot_core::api::{self, BodyRule, keys};
use aziot_core::handle::{self, CheckError, KeyRef};
use aziot_core::http::request::{self, Head, HeadError, HeadSearch};
use aziot_core::http::write::{Content, ResponseHead};
use aziot_core::http::{BodyLength, Connection, Version};
use aziot_core::json::{self, BufferFull, Bytes};
use aziot_core::limits;
use aziot_core::time::UnixTime;
use aziot_crypto::software::HmacSha256;

/// The key that handles are authenticated with, and the one key there is.
pub struct Keys<'a> {
    /// Authenticates handles.
    pub handle_validation: HmacSha256,
    /// The id of the key.
    pub id: &'a str,
    /// The key.
    pub key: HmacSha256,
}

/// Longest request, with its body, that this device takes.
const REQUEST: usize = 2048;

/// Longest answer: the head, and a signature or the message of an error.
const RESPONSE: usize = 1024;

/// Memory for one request at a time.
pub struct Buffers {
    /// The request; see [`Keys::answer`].
    pub request: [u8; REQUEST],
    /// Where its target is decoded.
    target: [u8; REQUEST],
    /// Where the handle in it is checked.
    handle: [u8; REQUEST],
    /// The answer.
    pub response: [u8; RESPONSE],
}

impl Buffers {
    /// Empty buffers.
    pub const fn new() -> Self {
        Self {
            request: [0; REQUEST],
            target: [0; REQUEST],
            handle: [0; REQUEST],
            response: [0; RESPONSE],
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys<'_> {
    /// Answers the request in the first `length` bytes of the request buffer, and says how long the
    /// answer in the response buffer is. The request is decoded in place.
    ///
    /// # Errors
    ///
    /// [`Unanswerable`]: there is no complete request yet, or the response buffer is too small.
    pub fn answer(
        &self,
        buffers: &mut Buffers,
        length: usize,
        date: UnixTime,
    ) -> Result<usize, Unanswerable> {
        let Buffers {
            request,
            target,
            handle,
            response,
        } = buffers;
        let request = request.get_mut(..length).ok_or(Unanswerable::Incomplete)?;
        let head_length = match HeadSearch::new().find(request) {
            Ok(Some(length)) => length,
            Ok(None) => return Err(Unanswerable::Incomplete),
            Err(error) => return refuse_head(error, date, response),
        };
        let (head, body) = request.split_at_mut(head_length);
        let head = match request::parse(head) {
            Ok(head) => head,
            Err(error) => return refuse_head(error, date, response),
        };
        // Behind the longest head, to be moved down when the head's length is known.
        let (_, body_room) = response
            .split_at_mut_checked(limits::WRITTEN_RESPONSE_HEAD)
            .ok_or(Unanswerable::NoRoom)?;
        let (status, length, keep) = self.respond(&head, body, [target, handle], body_room)?;
        let response_head = ResponseHead {
            version: head.version,
            status,
            content: Content::Json(length),
            connection: head.response_connection(keep && head.keep_alive()),
            date,
        };
        let head_length = response_head
            .write(response)
            .map_err(|_| Unanswerable::NoRoom)?;
        let body_start = limits::WRITTEN_RESPONSE_HEAD;
        response.copy_within(body_start..body_start + length, head_length);
        Ok(head_length + length)
    }

    /// Writes the body of the answer; returns the status, the body's length, and whether the
    /// connection can be kept.
    fn respond(
        &self,
        head: &Head<'_>,
        body: &mut [u8],
        scratch: [&mut [u8]; 2],
        out: &mut [u8],
    ) -> Result<(u16, usize, bool), Unanswerable> {
        match self.sign(head, body, scratch) {
            Ok(Outcome::Signed(tag)) => {
                let length = json::to_slice(
                    &keys::Signature {
                        signature: Bytes(&tag),
                    },
                    out,
                )?;
                Ok((200, length, true))
            }
            Ok(Outcome::Incomplete) => Err(Unanswerable::Incomplete),
            Err(refused) => {
                let length = json::write_message(&refused, out)?;
                Ok((
                    refused.status(),
                    length,
                    !matches!(refused, Refused::Api(error) if error.closes()),
                ))
            }
        }
    }

    fn sign<'r>(
        &self,
        head: &Head<'r>,
        body: &'r mut [u8],
        [target, handle]: [&'r mut [u8]; 2],
    ) -> Result<Outcome, Refused<'r>> {
        let matched = keys::API.route(head, target)?;
        if matched.body_rule()? == BodyRule::Drain {
            return Err(Refused::Absent);
        }
        let BodyLength::Known(length) = head.body else {
            return Err(Refused::Chunked);
        };
        let body = match usize::try_from(length)
            .ok()
            .map(|length| body.get_mut(..length))
        {
            Some(Some(body)) => body,
            Some(None) | None => return Ok(Outcome::Incomplete),
        };
        if matched.id != keys::Op::Sign {
            matched.body(body)?;
            return Err(Refused::Absent);
        }
        let request: keys::Sign<'r> = api::required(matched.decode(body)?)?;

        let text = request.key_handle.as_bytes();
        let handle = handle
            .get_mut(..text.len())
            .ok_or(Refused::Handle(CheckError::Invalid))?;
        handle.copy_from_slice(text);
        let mut handle_mac =
            |message: &[u8]| Ok::<_, Infallible>(*self.handle_validation.sign(message).as_bytes());
        let key = handle::check(handle, &mut handle_mac).map_err(Refused::Handle)?;

        let keys::SignMechanism::HmacSha256 { message } = request.mechanism else {
            return Err(Refused::Mechanism);
        };
        let tag = match key {
            KeyRef::Key(id) if id.as_str() == self.id => self.key.sign(message.0),
            KeyRef::Derived { base, data } if base.id().as_str() == self.id => {
                self.key.derive(data).sign(message.0)
            }
            KeyRef::Key(_) | KeyRef::Derived { .. } => return Err(Refused::UnknownKey),
            KeyRef::KeyPair(_) => return Err(Refused::Mechanism),
        };
        Ok(Outcome::Signed(*tag.as_bytes()))
    }
}

enum Outcome {
    Signed([u8; 32]),
    /// More of the body is to come.
    Incomplete,
}

/// The answer to a head that cannot be parsed: without a body, and the last on its connection.
fn refuse_head(error: HeadError, date: UnixTime, out: &mut [u8]) -> Result<usize, Unanswerable> {
    let response = ResponseHead {
        version: Version::Http11,
        status: error.status().ok_or(Unanswerable::Close)?,
        content: Content::Empty,
        connection: Connection::Close,
        date,
    };
    response.write(out).map_err(|_| Unanswerable::NoRoom)
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, defmt::Format)]
pub enum Unanswerable {
    /// The connection is to be closed without one.
    Close,
    /// More of the request is to come.
    Incomplete,
    /// The response buffer is too small.
    NoRoom,
}

impl From<BufferFull> for Unanswerable {
    fn from(BufferFull: BufferFull) -> Self {
        Self::NoRoom
    }
}

/// Why a request was refused; displays as the `message` of the answer.
enum Refused<'a> {
    /// An operation of the Keys Service that this device does not have.
    Absent,
    Api(api::Error<'a>),
    /// A body in the chunked coding, which this device does not decode.
    Chunked,
    Handle(CheckError<Infallible>),
    Mechanism,
    UnknownKey,
}

impl Refused<'_> {
    const fn status(&self) -> u16 {
        match self {
            Self::Api(error) => error.status(),
            Self::Absent => 404,
            Self::Chunked => 411,
            Self::Handle(_) | Self::Mechanism | Self::UnknownKey => 400,
        }
    }
}

impl<'a> From<api::Error<'a>> for Refused<'a> {
    fn from(error: api::Error<'a>) -> Self {
        Self::Api(error)
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not found"),
            Self::Api(error) => error.fmt(f),
            Self::Chunked => f.write_str("this device needs a content-length"),
            Self::Handle(error) => {
                write!(
                    f,
                    "parameter \"handle\" has an invalid value\ncaused by: {error}"
                )
            }
            Self::Mechanism => f.write_str(
                "parameter \"mechanism\" has an invalid value\n\
                 caused by: mechanism cannot be used with this key type",
            ),
            Self::UnknownKey => f.write_str("a parameter has an invalid value"),
        }
    }
}
