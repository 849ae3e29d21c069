//! The order of the requests for one certificate.

use core::fmt;
use core::time::Duration;

use super::Operation;
use super::answer::{Error, Reply, read_certificates, read_csr_attributes};
use super::excerpt::Excerpt;
use super::pkcs7::Certificates;
use crate::retry;

/// The pause before asking again a server that has not decided and does not say when to ask.
pub const PENDING_PAUSE: Duration = Duration::from_secs(5);

/// The shortest pause before asking again, whatever the server says.
pub const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest time that asking for what the CA wants may take: its only use is a better message.
pub const ATTRIBUTES_TIME: Duration = Duration::from_secs(10);

/// The certificates of the CA may take a part of the time, so that enough is left for the one that is asked for.
const CA_SHARE: u32 = 3;

/// What a certificate is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It is a new one: for somebody else, or for an identity that does not exist or has expired.
    First,
    /// It takes the place of the one that the client authenticates with: the subject is the same.
    Renewal,
}

/// One enrolment, from the first request to the certificate.
///
/// The driver does what [`next`](Self::next) says and reports the outcome of each request with
/// [`answered`](Self::answered) or [`failed`](Self::failed). Times are those since any fixed moment, on a clock that is
/// never set.
///
/// A failure to get the certificates of the CA is no failure of the enrolment: the certificate is worth more. Only a server
/// that cannot be connected to, or is not trusted, is not asked again.
#[derive(Clone, Debug)]
pub struct Enrolment {
    kind: Kind,
    by: Duration,
    state: State,
    ca_failure: Option<Failure>,
}

#[derive(Clone, Debug)]
enum State {
    /// To be sent, not earlier than `at`, or sent.
    Asking {
        operation: Operation,
        at: Duration,
    },
    /// The same for the attributes, with the refusal that they may explain.
    Explaining(Failure),
    Done,
    Failed(Failure),
}

/// What to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step<'e> {
    /// Send this request, and have the answer before `by`.
    Send {
        /// Which.
        operation: Operation,
        /// When it is too late.
        by: Duration,
    },
    /// Wait; then ask for the next step again.
    Wait {
        /// Until then.
        until: Duration,
    },
    /// There is a certificate. The end.
    Done,
    /// There is none. The end.
    Failed(&'e Failure),
}

/// An operation failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// Which operation.
    pub operation: Operation,
    /// Why.
    pub error: Error,
    /// What the server says that it wants in requests, if that may be the reason.
    pub wanted: Excerpt,
}

impl Enrolment {
    /// Before the first request. All has to be done before `by`.
    #[must_use]
    pub const fn new(kind: Kind, by: Duration) -> Self {
        Self {
            kind,
            by,
            state: State::Asking {
                operation: Operation::CaCerts,
                at: Duration::ZERO,
            },
            ca_failure: None,
        }
    }

    /// What to do at the time `now`. Says the same again as long as nothing is reported and no time passes.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        let left = self.by.saturating_sub(now);
        if left.is_zero() {
            match &self.state {
                State::Asking { operation, .. } => {
                    self.state = State::Failed(Failure::new(*operation, Error::Deadline));
                }
                State::Explaining(failure) => self.state = State::Failed(failure.clone()),
                State::Done | State::Failed(_) => {}
            }
        }
        match &self.state {
            State::Asking { at, .. } if now < *at => Step::Wait { until: *at },
            State::Asking { operation, .. } => Step::Send {
                operation: *operation,
                by: match operation {
                    Operation::CaCerts => now.saturating_add(left / CA_SHARE),
                    _ => self.by,
                },
            },
            State::Explaining(_) => Step::Send {
                operation: Operation::CsrAttrs,
                by: self.by.min(now.saturating_add(ATTRIBUTES_TIME)),
            },
            State::Done => Step::Done,
            State::Failed(failure) => Step::Failed(failure),
        }
    }

    /// Takes in the answer to the request of the last step, and answers the certificates in it: those of the CA, or the one
    /// that was asked for, with others in the order of the server. There are none if it was another request, or failed.
    pub fn answered<'b>(&mut self, reply: Reply<'b>, now: Duration) -> Certificates<'b> {
        match core::mem::replace(&mut self.state, State::Done) {
            State::Asking { operation, .. } => match read_certificates(reply) {
                Ok(certificates) if operation == Operation::CaCerts => {
                    self.state = self.enrol(now);
                    certificates
                }
                // The state is `Done` already.
                Ok(certificates) if !certificates.is_empty() => certificates,
                Ok(_) => {
                    self.state = self.after(operation, Error::NoCertificate, now);
                    Certificates::default()
                }
                Err(error) => {
                    self.state = self.after(operation, error, now);
                    Certificates::default()
                }
            },
            State::Explaining(mut failure) => {
                if let Ok(attributes) = read_csr_attributes(reply) {
                    failure.wanted = attributes.excerpt();
                }
                self.state = State::Failed(failure);
                Certificates::default()
            }
            ended @ (State::Done | State::Failed(_)) => {
                self.state = ended;
                Certificates::default()
            }
        }
    }

    /// Takes in that the request of the last step was not answered.
    pub fn failed(&mut self, failure: retry::Failure, now: Duration) {
        self.state = match core::mem::replace(&mut self.state, State::Done) {
            State::Asking { operation, .. } => {
                self.after(operation, Error::NotAnswered(failure), now)
            }
            State::Explaining(failure) => State::Failed(failure),
            ended @ (State::Done | State::Failed(_)) => ended,
        };
    }

    /// Why the certificates of the CA are missing, if the server was asked for them in vain.
    #[must_use]
    pub const fn ca_failure(&self) -> Option<&Failure> {
        self.ca_failure.as_ref()
    }

    fn enrol(&self, now: Duration) -> State {
        State::Asking {
            operation: match self.kind {
                Kind::First => Operation::SimpleEnroll,
                Kind::Renewal => Operation::SimpleReenroll,
            },
            at: now,
        }
    }

    /// What follows an operation that went wrong.
    fn after(&mut self, operation: Operation, error: Error, now: Duration) -> State {
        use retry::Failure::{NotConnected, NotTrusted};
        match (operation, &error) {
            (_, Error::NotAnswered(NotConnected | NotTrusted)) => {}
            (Operation::CaCerts, _) => {
                self.ca_failure = Some(Failure::new(operation, error));
                return self.enrol(now);
            }
            (
                Operation::SimpleReenroll,
                Error::Status {
                    status: 404 | 405 | 501,
                    ..
                },
            ) => {
                return State::Asking {
                    operation: Operation::SimpleEnroll,
                    at: now,
                };
            }
            (_, Error::Status { status: 400, .. }) => {
                return State::Explaining(Failure::new(operation, error));
            }
            (_, Error::Pending { retry_after }) => {
                let pause = retry_after.unwrap_or(PENDING_PAUSE);
                if let Some(at) = self.later(now, pause) {
                    return State::Asking { operation, at };
                }
            }
            (
                _,
                Error::Status {
                    status: 429 | 503,
                    retry_after: Some(pause),
                    ..
                },
            ) => {
                if let Some(at) = self.later(now, *pause) {
                    return State::Asking { operation, at };
                }
            }
            _ => {}
        }
        State::Failed(Failure::new(operation, error))
    }

    /// The time after a pause, if there is time left then.
    fn later(&self, now: Duration, pause: Duration) -> Option<Duration> {
        let at = now.checked_add(pause.max(SHORTEST_PAUSE))?;
        (at < self.by).then_some(at)
    }
}

impl Failure {
    const fn new(operation: Operation, error: Error) -> Self {
        Self {
            operation,
            error,
            wanted: Excerpt::EMPTY,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.error)?;
        if !self.wanted.is_empty() {
            write!(f, ", which should have: {}", self.wanted)?;
        }
        Ok(())
    }
}

impl core::error::Error for Failure {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}
