//! Why the Keys Service did not do what was asked.

use std::fmt;

use aziot_core::limits::BODY_KEYS;

use crate::transport;

/// Why an operation failed. No text contains a handle, key bytes or plaintext.
#[derive(Clone, Debug)]
pub enum Error {
    /// There is no complete response: no connection, a deadline that passed, a connection that was closed, bytes that are not
    /// HTTP or too many. Its [`kind`](transport::Error::kind) and [`step`](transport::Error::step) say which.
    Transport(transport::Error),
    /// The service refused, or failed.
    Service {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// The response is not what this operation answers with.
    Malformed(String),
    /// The request is longer than the service takes.
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => write!(f, "{error}"),
            Self::Service { message, .. } => f.write_str(message),
            Self::Malformed(reason) => write!(
                f,
                "the Keys Service gave an answer that makes no sense: {reason}"
            ),
            Self::TooLong => write!(
                f,
                "the request to the Keys Service is longer than {BODY_KEYS} bytes"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<transport::Error> for Error {
    fn from(error: transport::Error) -> Self {
        Self::Transport(error)
    }
}
