//! What IoT Hub answers.

use core::fmt;

use crate::http::Status;
use crate::json::{self, FromJson, Reader};
use crate::retry::{Answer, GaveUp, NetworkCause, is_network_status};
use crate::{json_input, json_object};

json_object! {
    /// A module, as far as it matters here: what the hub says about its authentication, in whatever form, is ignored.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Module<'b> {
        /// The module's name, in the hub's letter case.
        pub module: &'b str = "moduleId",
        /// Which software manages the module.
        pub managed_by: Option<&'b str> = "managedBy" [omit],
        /// The device, in the hub's letter case.
        pub device: &'b str = "deviceId",
        /// Changes when a module is made anew under the same name.
        pub generation: Option<&'b str> = "generationId" [omit],
    }
}

json_input! {
    struct ErrorObject<'b> {
        message: Option<&'b str> = "Message",
        message_alias: Option<&'b str> = "errorMessage",
        network: Option<bool> = "networkError",
    }
}

/// Reads the answer to a request for one module.
///
/// # Errors
/// See [`Error`].
pub fn module(answer: Answer<'_>) -> Result<Module<'_>, Error<'_>> {
    json::from_slice(success(answer, 200)?).map_err(Error::Malformed)
}

/// Reads the answer to a [`super::Request::Delete`].
///
/// # Errors
/// See [`Error`].
pub fn deleted(answer: Answer<'_>) -> Result<(), Error<'_>> {
    if answer.status == 204 {
        Ok(())
    } else {
        Err(failure(answer, 204))
    }
}

/// The modules in the answer to a [`super::Request::List`], read one by one.
#[derive(Debug)]
pub struct Modules<'b> {
    /// None once the end is reached.
    reader: Option<Reader<'b>>,
    first: bool,
}

impl<'b> Modules<'b> {
    /// Begins to read.
    ///
    /// # Errors
    /// The request failed, or the answer is not a list.
    pub fn new(answer: Answer<'b>) -> Result<Self, Error<'b>> {
        let mut reader = Reader::new(success(answer, 200)?);
        reader.open_array("a sequence").map_err(Error::Malformed)?;
        Ok(Self {
            reader: Some(reader),
            first: true,
        })
    }

    fn read(&mut self) -> Result<Option<Module<'b>>, json::Error<'b>> {
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        match reader.next_element(&mut self.first) {
            Ok(true) => Module::from_json(reader).map(Some),
            Ok(false) => {
                reader.close_array(Ok(()))?;
                self.reader
                    .take()
                    .map_or(Ok(()), Reader::finish)
                    .map(|()| None)
            }
            Err(err) => Err(err),
        }
    }
}

/// Ends after the first error. A list that ended with an error is incomplete: use none of it.
impl<'b> Iterator for Modules<'b> {
    type Item = Result<Module<'b>, Error<'b>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read().map_err(Error::Malformed).transpose();
        if matches!(item, None | Some(Err(_))) {
            self.reader = None;
        }
        item
    }
}

fn success<'b>(answer: Answer<'b>, expected: u16) -> Result<&'b mut [u8], Error<'b>> {
    if answer.status != expected {
        return Err(failure(answer, expected));
    }
    if answer.json {
        Ok(answer.body)
    } else {
        Err(Error::NotJson {
            status: answer.status,
        })
    }
}

fn failure(answer: Answer<'_>, expected: u16) -> Error<'_> {
    let Answer {
        status, json, body, ..
    } = answer;
    if status < 400 {
        return Error::Unexpected { status, expected };
    }
    if json
        && let Ok(error) = json::from_slice::<ErrorObject<'_>>(body)
        && let Some(message) = error.message.or(error.message_alias)
    {
        return Error::Service {
            status,
            message,
            network: error.network.unwrap_or(false),
        };
    }
    Error::Status { status }
}

/// Why a request to the hub had no success.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error<'b> {
    /// The answer is not what it should be.
    Malformed(json::Error<'b>),
    /// There was no answer. Made by the driver.
    NoAnswer(GaveUp),
    /// A success whose content type is not JSON.
    NotJson {
        /// The HTTP status.
        status: u16,
    },
    /// The hub's own error, or a parent gateway's.
    Service {
        /// The HTTP status.
        status: u16,
        /// Its message.
        message: &'b str,
        /// A parent gateway says that it cannot reach the hub.
        network: bool,
    },
    /// An HTTP error without a usable message.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// Another success than expected, or a redirection.
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// The status expected.
        expected: u16,
    },
}

impl Error<'_> {
    /// Whether it is the network's or the service's passing fault, so that what is known from before may be used meanwhile.
    pub const fn is_network(&self) -> bool {
        self.network_cause().is_some()
    }

    /// The network's or the service's passing fault, if it is one.
    pub const fn network_cause(&self) -> Option<NetworkCause> {
        match self {
            Self::NoAnswer(gave_up) if gave_up.is_network() => {
                Some(NetworkCause::NoAnswer(*gave_up))
            }
            Self::Service { network: true, .. } => Some(NetworkCause::Gateway),
            Self::Service { status, .. } | Self::Status { status }
                if is_network_status(*status) =>
            {
                Some(NetworkCause::Status(*status))
            }
            Self::Malformed(_)
            | Self::NoAnswer(_)
            | Self::NotJson { .. }
            | Self::Service { .. }
            | Self::Status { .. }
            | Self::Unexpected { .. } => None,
        }
    }

    /// Whether the hub knows no such module or device.
    pub const fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Service {
                status: 404,
                network: false,
                ..
            } | Self::Status { status: 404 }
        )
    }

    /// Whether the module exists already.
    pub const fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Service { status: 409, .. } | Self::Status { status: 409 }
        )
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(err) => err.fmt(f),
            Self::NoAnswer(gave_up) => gave_up.fmt(f),
            Self::NotJson { .. } => f.write_str("invalid Content-Type; expected JSON"),
            Self::Service { message, .. } => f.write_str(message),
            Self::Status { status } => write!(f, "HTTP error {}", Status(*status)),
            Self::Unexpected {
                status,
                expected: 204,
            } => {
                write!(f, "unexpected HTTP status code: {}", Status(*status))
            }
            Self::Unexpected { status, expected } => {
                write!(f, "Expected one of [{expected}], got {}", Status(*status))
            }
        }
    }
}

impl core::error::Error for Error<'_> {}
