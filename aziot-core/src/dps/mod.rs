//! The Device Provisioning Service: registering a device and learning its hub (identity-service 9).
//!
//! [`Enrolment`] is the whole conversation as a state machine. It neither connects nor sleeps nor reads a clock:
//!
//! ```text
//! Start ─▶ Send(register) ─▶ Wait ─▶ Send(poll) ─▶ Wait ─▶ … ─▶ Done(hub, device)
//!                  └───────────┴────────┴──────────────────────▶ Failed
//! ```
//!
//! The driver writes each request with [`Enrolment::write_target`] and [`Enrolment::write_body`], makes a new token for
//! [`Enrolment::audience`] for *every attempt*, and tries according to [`Request::policy`].

mod answer;
#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;

pub use answer::{Assignment, Error};
use answer::{Registered, State as Reported};

use crate::id::{RegistrationId, ScopeId};
use crate::json;
use crate::output::{BufferFull, Output};
use crate::percent::Set;
use crate::retry::{Answer, GaveUp, Policy, is_network_status};
use crate::sas::Audience;

/// The version of the service's API that is spoken.
pub const API_VERSION: &str = "2021-06-01";

/// The pause before each poll, unless the service asks for another.
pub const POLL_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between polls that the service can ask for.
pub const MAX_POLL_PAUSE: Duration = Duration::from_secs(60);

/// How long a registration may be "in progress" before it counts as failed.
pub const POLL_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Polls in a row that may go wrong for reasons that pass.
pub const TOLERATED_POLLS: u32 = 3;

/// Longest operation id in bytes. The service's are about 55 characters.
pub const MAX_OPERATION_ID: usize = 256;

/// Longest payload in bytes. The service itself takes far less; this bounds what is read from a file.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What is to be registered, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Registration<'a> {
    /// The id scope of the service instance.
    pub scope: ScopeId<'a>,
    /// The id of the enrolment, or within the enrolment group.
    pub id: RegistrationId<'a>,
    /// How the device shows who it is.
    pub attestation: Attestation,
    /// Custom data for the service's allocation function.
    pub payload: Option<Payload<'a>>,
}

/// How a device shows who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Attestation {
    /// With tokens signed by the device's symmetric key; individual enrolments and enrolment groups alike.
    SymmetricKey,
}

/// A JSON document that is sent along exactly as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Payload<'a>(json::Raw<'a>);

impl<'a> Payload<'a> {
    /// Checks that `text` is one JSON value of at most [`MAX_PAYLOAD`] bytes.
    ///
    /// # Errors
    /// See [`PayloadError`].
    pub fn new(text: &'a str) -> Result<Self, PayloadError> {
        if text.len() > MAX_PAYLOAD {
            return Err(PayloadError::TooLong { length: text.len() });
        }
        json::Raw::new(text).map(Self).map_err(PayloadError::Json)
    }

    /// The document without white space around it.
    pub const fn as_str(self) -> &'a str {
        self.0.as_str()
    }
}

/// Why a text cannot be sent as payload.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PayloadError {
    /// It is not JSON.
    Json(json::Error<'static>),
    /// It is too long.
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(err) => write!(f, "the payload is not JSON: {err}"),
            Self::TooLong { length } => {
                write!(
                    f,
                    "the payload has {length} bytes, more than the limit of {MAX_PAYLOAD}"
                )
            }
        }
    }
}

impl core::error::Error for PayloadError {}

/// One registration, from the first request to the assignment.
#[derive(Clone, Debug)]
pub struct Enrolment<'a> {
    registration: Registration<'a>,
    cloud: Policy,
    state: State,
    operation: heapless::String<MAX_OPERATION_ID>,
    /// When the service accepted the registration.
    accepted: Duration,
    failed_polls: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Finished,
    New,
    Polling,
    Registering,
    Waiting,
}

impl<'a> Enrolment<'a> {
    /// Before the first request. `cloud` is how the registering request is tried; polls have a policy of their own.
    pub const fn new(registration: Registration<'a>, cloud: Policy) -> Self {
        Self {
            registration,
            cloud,
            state: State::New,
            operation: heapless::String::new(),
            accepted: Duration::ZERO,
            failed_polls: 0,
        }
    }

    /// What to do after `event`. `now` is the time since any fixed moment, on a clock that is never set.
    pub fn next<'b>(&mut self, event: Event<'b>, now: Duration) -> Step<'b> {
        let step = match (self.state, event) {
            (State::New, Event::Start) => Step::Send(Request {
                call: Call::Register,
                policy: self.cloud,
            }),
            (State::Registering, Event::Answer(answer)) => self.registered(answer, now),
            (State::Registering, Event::GaveUp(gave_up)) => Step::Failed(Error::NoAnswer(gave_up)),
            (State::Waiting, Event::WaitOver) => self.poll(now),
            (State::Polling, Event::Answer(answer)) => self.polled(answer, now),
            (State::Polling, Event::GaveUp(gave_up)) => {
                self.tolerate(Error::NoAnswer(gave_up), None, now)
            }
            (
                State::New | State::Registering | State::Waiting | State::Polling | State::Finished,
                _,
            ) => Step::Failed(Error::OutOfOrder),
        };
        self.state = match &step {
            Step::Done(_) | Step::Failed(_) => State::Finished,
            Step::Send(Request {
                call: Call::Register,
                ..
            }) => State::Registering,
            Step::Send(Request {
                call: Call::Poll, ..
            }) => State::Polling,
            Step::Wait(_) => State::Waiting,
        };
        step
    }

    /// The audience of the tokens for all requests.
    pub const fn audience(&self) -> Audience<'a> {
        Audience::Registration {
            scope: self.registration.scope,
            registration: self.registration.id,
        }
    }

    /// Writes path and query of `request`.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write_target<'o>(
        &self,
        request: Request,
        out: &'o mut [u8],
    ) -> Result<&'o str, BufferFull> {
        let mut out = Output::new(out);
        let Registration { scope, id, .. } = &self.registration;
        let segment = |text| Set::HUB_SEGMENT.encode(text);
        write!(
            out,
            "/{}/registrations/{}",
            segment(scope.as_str()),
            segment(id.as_str())
        );
        match request.call {
            Call::Register => out.put_str("/register"),
            Call::Poll => write!(out, "/operations/{}", segment(&self.operation)),
        }
        write!(out, "?api-version={API_VERSION}");
        out.finish_str()
    }

    /// Writes the JSON body of `request`, if it has one.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write_body<'o>(
        &self,
        request: Request,
        out: &'o mut [u8],
    ) -> Result<Option<&'o [u8]>, BufferFull> {
        if request.call == Call::Poll {
            return Ok(None);
        }
        let mut out = Output::new(out);
        out.put_str("{\"registrationId\":");
        json::put_string(self.registration.id.as_str(), &mut out);
        if let Some(payload) = self.registration.payload {
            // Not by way of a type: `json::to_slice` may change the letter case of escapes.
            write!(out, ",\"payload\":{}", payload.as_str());
        }
        out.put(b"}");
        out.finish().map(Some)
    }

    fn registered<'b>(&mut self, answer: Answer<'b>, now: Duration) -> Step<'b> {
        let retry_after = answer.retry_after;
        match answer::registered(answer) {
            Ok(Registered::Accepted { operation }) => {
                self.operation.clear();
                if operation.is_empty() || self.operation.push_str(operation).is_err() {
                    return Step::Failed(Error::OperationId {
                        length: operation.len(),
                    });
                }
                self.accepted = now;
                Step::Wait(pause(retry_after))
            }
            Ok(Registered::Final(Reported::Assigned(assignment))) => Step::Done(assignment),
            Ok(Registered::Final(Reported::Assigning)) => {
                Step::Failed(Error::OperationId { length: 0 })
            }
            Err(err) => Step::Failed(err),
        }
    }

    fn poll<'b>(&self, now: Duration) -> Step<'b> {
        let left = POLL_LIMIT.saturating_sub(now.saturating_sub(self.accepted));
        if left.is_zero() {
            return Step::Failed(Error::StillAssigning);
        }
        let policy = Policy {
            retries: 0,
            timeout: Policy::SHORT_TIMEOUT.min(left),
            total: left,
        };
        Step::Send(Request {
            call: Call::Poll,
            policy,
        })
    }

    fn polled<'b>(&mut self, answer: Answer<'b>, now: Duration) -> Step<'b> {
        let (status, retry_after) = (answer.status, answer.retry_after);
        match answer::polled(answer) {
            Ok(Reported::Assigned(assignment)) => Step::Done(assignment),
            Ok(Reported::Assigning) => {
                self.failed_polls = 0;
                self.wait(retry_after, now)
            }
            Err(err) if is_network_status(status) => self.tolerate(err, retry_after, now),
            Err(err) => Step::Failed(err),
        }
    }

    /// A poll went wrong for a reason that may pass.
    fn tolerate<'b>(
        &mut self,
        err: Error<'b>,
        retry_after: Option<Duration>,
        now: Duration,
    ) -> Step<'b> {
        self.failed_polls = self.failed_polls.saturating_add(1);
        if self.failed_polls > TOLERATED_POLLS {
            Step::Failed(err)
        } else {
            self.wait(retry_after, now)
        }
    }

    fn wait<'b>(&self, retry_after: Option<Duration>, now: Duration) -> Step<'b> {
        let pause = pause(retry_after);
        if now.saturating_sub(self.accepted).saturating_add(pause) >= POLL_LIMIT {
            return Step::Failed(Error::StillAssigning);
        }
        Step::Wait(pause)
    }
}

fn pause(retry_after: Option<Duration>) -> Duration {
    retry_after
        .unwrap_or(POLL_PAUSE)
        .clamp(Duration::from_secs(1), MAX_POLL_PAUSE)
}

/// What has happened.
#[derive(Debug)]
pub enum Event<'b> {
    /// A request was answered.
    Answer(Answer<'b>),
    /// No attempt of a request was answered.
    GaveUp(GaveUp),
    /// The conversation may begin.
    Start,
    /// A pause is over.
    WaitOver,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Step<'b> {
    /// The device is registered. The end.
    Done(Assignment<'b>),
    /// It is not. The end.
    Failed(Error<'b>),
    /// Send this request.
    Send(Request),
    /// Wait so long.
    Wait(Duration),
}

/// A request of an [`Enrolment`]. Its text is what the log says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// Which request.
    pub call: Call,
    /// How it is to be tried.
    pub policy: Policy,
}

/// Which request is to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// Ask how far the registration has come.
    Poll,
    /// Ask for the registration.
    Register,
}

impl Request {
    /// The HTTP method.
    pub const fn method(&self) -> &'static str {
        match self.call {
            Call::Poll => "GET",
            Call::Register => "PUT",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.call {
            Call::Poll => "Checking DPS registration status.",
            Call::Register => "Sending DPS registration request.",
        })
    }
}
