//! What the Device Provisioning Service answers.

use core::fmt;

use crate::http::Status;
use crate::json::{self, Deferred};
use crate::json_input;
use crate::retry::{Answer, GaveUp, is_network_status};

use super::{MAX_OPERATION_ID, POLL_LIMIT};

/// The hub a device belongs to, and its name there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Assignment<'b> {
    /// Host name of the hub.
    pub hub: &'b str,
    /// Id of the device.
    pub device: &'b str,
}

/// How far a registration has come.
pub(super) enum State<'b> {
    Assigned(Assignment<'b>),
    Assigning,
}

/// The answer to the registering request.
pub(super) enum Registered<'b> {
    Accepted { operation: &'b str },
    Final(State<'b>),
}

json_input! {
    struct Operation<'b> {
        operation: Option<&'b str> = "operationId",
        status: Option<&'b str> = "status",
        state: Option<Deferred<'b>> = "registrationState",
    }

    struct Assigned<'b> {
        hub: &'b str = "assignedHub",
        device: &'b str = "deviceId",
    }

    struct ServiceError<'b> {
        code: Option<Deferred<'b>> = "errorCode",
        code_alias: Option<Deferred<'b>> = "code",
        message: Option<&'b str> = "message",
        message_alias: Option<&'b str> = "errorMessage",
        tracking_id: Option<&'b str> = "trackingId",
    }
}

/// 202 with an operation id; or, should the service be done at once, 200 with a final status.
pub(super) fn registered(answer: Answer<'_>) -> Result<Registered<'_>, Error<'_>> {
    let status = answer.status;
    let document = operation(answer, &[200, 202])?;
    match (document.operation, document.status) {
        (Some(operation), _) if status == 202 => Ok(Registered::Accepted { operation }),
        (Some(operation), Some("assigning")) => Ok(Registered::Accepted { operation }),
        (_, Some(_)) => state(document, status).map(Registered::Final),
        (_, None) => Err(Error::Malformed(json::Error::missing_field("operationId"))),
    }
}

/// 200 or 202 with a status.
pub(super) fn polled(answer: Answer<'_>) -> Result<State<'_>, Error<'_>> {
    let status = answer.status;
    state(operation(answer, &[200, 202])?, status)
}

fn operation<'b>(answer: Answer<'b>, expected: &[u16]) -> Result<Operation<'b>, Error<'b>> {
    let Answer {
        status, json, body, ..
    } = answer;
    if expected.contains(&status) {
        if !json {
            return Err(Error::NotJson { status });
        }
        return json::from_slice(body).map_err(Error::Malformed);
    }
    if status < 400 {
        return Err(Error::Unexpected { status });
    }
    if json
        && let Ok(error) = json::from_slice::<ServiceError<'_>>(body)
        && let Some(err) = service_error(error, status)
    {
        return Err(err);
    }
    Err(Error::Status { status })
}

fn service_error<'b>(error: ServiceError<'b>, status: u16) -> Option<Error<'b>> {
    let message = error.message.or(error.message_alias)?;
    // A code of another type, or out of range, is no reason to lose the message.
    let code = error
        .code
        .or(error.code_alias)
        .and_then(|code| code.decode().ok());
    Some(Error::Service {
        status,
        code,
        message,
        tracking_id: error.tracking_id,
    })
}

fn state<'b>(document: Operation<'b>, status: u16) -> Result<State<'b>, Error<'b>> {
    let missing = |name| Error::Malformed(json::Error::missing_field(name));
    match document.status.ok_or(missing("status"))? {
        "assigned" => {
            let state = document.state.ok_or(missing("registrationState"))?;
            let Assigned { hub, device } = state.decode().map_err(Error::Malformed)?;
            Ok(State::Assigned(Assignment { hub, device }))
        }
        "assigning" => Ok(State::Assigning),
        "failed" => {
            let error = document
                .state
                .and_then(|state| state.decode::<ServiceError<'_>>().ok());
            Err(error
                .and_then(|error| service_error(error, status))
                .unwrap_or(Error::Refused { reported: "failed" }))
        }
        reported => Err(Error::Refused { reported }),
    }
}

/// Why a device could not be registered.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error<'b> {
    /// An answer is not what it should be.
    Malformed(json::Error<'b>),
    /// A request got no answer.
    NoAnswer(GaveUp),
    /// A success whose content type is not JSON.
    NotJson {
        /// The HTTP status.
        status: u16,
    },
    /// The operation id is missing or too long.
    OperationId {
        /// Its length in bytes.
        length: usize,
    },
    /// An event that does not fit what the machine asked for: a mistake of the driver.
    OutOfOrder,
    /// The service reports a status other than `assigned` and `assigning`, without a message.
    Refused {
        /// The status: `unassigned`, `disabled`, `failed`, or one not known here.
        reported: &'b str,
    },
    /// The service's own error.
    Service {
        /// The HTTP status.
        status: u16,
        /// Its error code.
        code: Option<i64>,
        /// Its message.
        message: &'b str,
        /// What its support asks for.
        tracking_id: Option<&'b str>,
    },
    /// An HTTP error without a usable message.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The registration was in progress for [`POLL_LIMIT`].
    StillAssigning,
    /// A success, or a redirection, that was not expected.
    Unexpected {
        /// The HTTP status.
        status: u16,
    },
}

impl Error<'_> {
    /// Whether it is the network's or the service's passing fault, so that what is known from before may be used meanwhile.
    pub const fn is_network(&self) -> bool {
        match self {
            Self::NoAnswer(gave_up) => gave_up.is_network(),
            Self::StillAssigning => true,
            Self::Service { status, .. } | Self::Status { status } => is_network_status(*status),
            Self::Malformed(_)
            | Self::NotJson { .. }
            | Self::OperationId { .. }
            | Self::OutOfOrder
            | Self::Refused { .. }
            | Self::Unexpected { .. } => false,
        }
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(err) => err.fmt(f),
            Self::NoAnswer(gave_up) => gave_up.fmt(f),
            Self::NotJson { .. } => f.write_str("invalid Content-Type; expected JSON"),
            Self::OperationId { length } => write!(
                f,
                "the service answered with an operation id of {length} bytes; 1 to {MAX_OPERATION_ID} are supported"
            ),
            Self::OutOfOrder => f.write_str("registration steps were taken out of order"),
            Self::Refused { reported: "disabled" } => {
                f.write_str("the registration is disabled; enable the enrolment in the provisioning service")
            }
            Self::Refused { reported: "unassigned" } => {
                f.write_str("the device is not assigned to a hub; check the enrolment's hubs and allocation policy")
            }
            Self::Refused { reported: "failed" } => f.write_str("the registration failed"),
            Self::Refused { reported } => write!(
                f,
                "unknown variant `{reported}`, expected one of `assigned`, `assigning`, `failed`, `disabled`, `unassigned`"
            ),
            Self::Service { code, message, tracking_id, .. } => {
                f.write_str(message)?;
                match (code, tracking_id) {
                    (None, None) => Ok(()),
                    (Some(code), None) => write!(f, " (error code {code})"),
                    (None, Some(id)) => write!(f, " (tracking id {id})"),
                    (Some(code), Some(id)) => write!(f, " (error code {code}, tracking id {id})"),
                }
            }
            Self::Status { status } => write!(f, "HTTP error {}", Status(*status)),
            Self::StillAssigning => {
                write!(f, "the registration was still in progress after {} seconds", POLL_LIMIT.as_secs())
            }
            Self::Unexpected { status } => {
                write!(f, "Expected one of [200, 202], got {}", Status(*status))
            }
        }
    }
}

impl core::error::Error for Error<'_> {}
