//! Why a call fails: the answer to the caller, and the line for the log.

use core::fmt;

use aziot_crypto::store;

use crate::abi::Rc;

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An argument that is wrong in itself.
    Argument {
        name: &'static str,
        reason: &'static str,
    },
    /// An argument that the store has nothing for.
    Key {
        name: &'static str,
        err: store::Error,
    },
    /// A location that is not one.
    Location { name: &'static str, reason: String },
    /// Something that this build cannot do.
    Unsupported(&'static str),
    /// The answer is not in memory.
    WouldBlock,
}

impl Failure {
    pub(crate) const KEY_PAIRS: Self =
        Self::Unsupported("key pairs are not supported by this build");
    pub(crate) const ENCRYPTION: Self =
        Self::Unsupported("encryption is not supported by this build");

    /// What the caller is told.
    pub(crate) fn rc(&self) -> Rc {
        match self {
            Self::Argument { .. } | Self::Location { .. } => Rc::INVALID_PARAMETER,
            Self::Key { err, .. } if err.is_invalid_parameter() => Rc::INVALID_PARAMETER,
            Self::Key { .. } | Self::Unsupported(_) => Rc::EXTERNAL,
            Self::WouldBlock => Rc::WOULD_BLOCK,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument { name, reason } => write!(f, "invalid parameter \"{name}\": {reason}"),
            Self::Key { name, err } if err.is_invalid_parameter() => {
                write!(f, "invalid parameter \"{name}\": {err}")
            }
            Self::Key { err, .. } => err.fmt(f),
            Self::Location { name, reason } => write!(f, "invalid parameter \"{name}\": {reason}"),
            Self::Unsupported(what) => f.write_str(what),
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
