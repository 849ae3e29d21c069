//! Why a call fails: the answer to the caller, and the line for the log.

use core::fmt;

use aziot_core::uri::LocationError;
use aziot_crypto::aead::Malformed;
use aziot_crypto::store;

use crate::abi::Rc;

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An argument that is wrong in itself, or for the key.
    Argument {
        name: &'static str,
        reason: &'static str,
    },
    /// Something that is no ciphertext.
    Ciphertext(Malformed),
    /// A location that is not one.
    Location(String),
    /// What the store has to say. The name is that of the argument that it is about, if it is about one.
    Store {
        name: &'static str,
        err: store::Error,
    },
    /// The answer is not in memory, or takes too long.
    WouldBlock,
}

impl Failure {
    /// What becomes of an error of the store in a call that is mostly about this argument.
    pub(crate) fn about(name: &'static str) -> impl FnOnce(store::Error) -> Self {
        move |err| Self::Store { name, err }
    }

    /// What becomes of a text that is no location.
    pub(crate) fn location(err: LocationError<'_>) -> Self {
        Self::Location(err.to_string())
    }

    /// What the caller is told.
    pub(crate) fn rc(&self) -> Rc {
        match self {
            Self::Argument { .. } | Self::Ciphertext(_) | Self::Location(_) => {
                Rc::INVALID_PARAMETER
            }
            Self::Store { err, .. } if err.is_invalid_parameter() => Rc::INVALID_PARAMETER,
            Self::Store { .. } => Rc::EXTERNAL,
            Self::WouldBlock => Rc::WOULD_BLOCK,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument { name, reason } => write!(f, "invalid parameter \"{name}\": {reason}"),
            Self::Ciphertext(err) => write!(f, "invalid parameter \"ciphertext\": {err}"),
            Self::Location(reason) => write!(f, "invalid parameter \"value\": {reason}"),
            Self::Store { name, err } if err.is_invalid_parameter() => {
                write!(f, "invalid parameter \"{name}\": {err}")
            }
            Self::Store { err, .. } => err.fmt(f),
            Self::WouldBlock => f.write_str("the answer is not in memory"),
        }
    }
}

/// Turns the outcome of a call into its answer, and logs the cause of a failure.
pub(crate) fn answer(outcome: Result<(), Failure>) -> Rc {
    match outcome {
        Ok(()) => Rc::OK,
        Err(failure) => {
            if !matches!(failure, Failure::WouldBlock) {
                log::error!("{failure}");
            }
            failure.rc()
        }
    }
}
