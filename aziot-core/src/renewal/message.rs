//! What the log says of renewals (certificates-service 8.3 to 8.5).

use core::fmt;

use super::Moment;

/// A line of the log. `id` is the certificate's, `reason` why something failed.
#[derive(Clone, Copy)]
pub enum Message<'a> {
    /// A certificate is watched from now on.
    Added {
        /// The certificate.
        id: &'a str,
        /// When it will be renewed.
        next: i64,
    },
    /// A renewal begins.
    Attempting {
        /// The certificate.
        id: &'a str,
    },
    /// A renewal failed for good.
    Dropped {
        /// The certificate.
        id: &'a str,
        /// Why.
        reason: &'a dyn fmt::Display,
    },
    /// The certificate has expired, and an attempt to renew it failed.
    Expired {
        /// The certificate.
        id: &'a str,
    },
    /// A renewal at the start failed for good.
    FailedAtStart {
        /// The certificate.
        id: &'a str,
        /// Why.
        reason: &'a dyn fmt::Display,
    },
    /// A renewal on behalf of a caller, or at the start, failed; the old certificate is used.
    KeptOld {
        /// The certificate.
        id: &'a str,
        /// Why.
        reason: &'a dyn fmt::Display,
    },
    /// As [`Message::KeptOld`], when the new certificate could not be stored.
    NotWritten {
        /// The certificate.
        id: &'a str,
        /// Why.
        reason: &'a dyn fmt::Display,
    },
    /// As [`Message::FailedAtStart`], when the new certificate could not be stored.
    NotWrittenAtStart {
        /// The certificate.
        id: &'a str,
        /// Why.
        reason: &'a dyn fmt::Display,
    },
    /// No certificate is watched any more.
    NoneLeft,
    /// A renewal is complete.
    Renewed {
        /// The certificate.
        id: &'a str,
        /// When it will be renewed the next time.
        next: i64,
    },
    /// A renewal failed and will be tried again.
    Retrying {
        /// The certificate.
        id: &'a str,
        /// Why.
        reason: &'a dyn fmt::Display,
        /// When.
        next: i64,
    },
    /// The clock of the device is not set, so nothing is renewed.
    WaitingForTime {
        /// The earliest time that is plausible.
        earliest: i64,
    },
}

/// How loud a [`Message`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Severity {
    /// Something cannot be used.
    Error,
    /// Something failed that may yet succeed, or that will be noticed later.
    Warning,
    /// All is well.
    Info,
}

impl Message<'_> {
    /// How loud it is.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Added { .. }
            | Self::Attempting { .. }
            | Self::NoneLeft
            | Self::Renewed { .. } => Severity::Info,
            Self::Dropped { .. }
            | Self::KeptOld { .. }
            | Self::NotWritten { .. }
            | Self::Retrying { .. }
            | Self::WaitingForTime { .. } => Severity::Warning,
            Self::Expired { .. } | Self::FailedAtStart { .. } | Self::NotWrittenAtStart { .. } => {
                Severity::Error
            }
        }
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Added { id, next } => write!(
                f,
                "Certificate {id} will be auto-renewed. Next renewal at {}.",
                Moment(next)
            ),
            Self::Attempting { id } => write!(f, "Attempting to renew certificate {id}."),
            Self::Dropped { id, reason } => write!(
                f,
                "Tried to renew {id}, but {reason}. {id} will no longer be auto-renewed."
            ),
            Self::Expired { id } => {
                write!(f, "Cert {id} is expired and could not be renewed.")
            }
            Self::FailedAtStart { id, reason } => {
                write!(f, "Failed to initialize cert renewal for {id}: {reason}.")
            }
            Self::KeptOld { id, reason } => write!(f, "Tried to renew {id}, but {reason}."),
            Self::NotWritten { id, reason } => write!(
                f,
                "Tried to renew {id}, but failed to write new cert: {reason}."
            ),
            Self::NotWrittenAtStart { id, reason } => {
                write!(f, "Failed to write new cert {id}: {reason}.")
            }
            Self::NoneLeft => f.write_str("No certificates left to renew."),
            Self::Renewed { id, next } => write!(
                f,
                "Certificate {id} was renewed. Next renewal at {}.",
                Moment(next)
            ),
            Self::Retrying { id, reason, next } => write!(
                f,
                "Tried to renew {id}, but {reason}. Retrying at {}.",
                Moment(next)
            ),
            Self::WaitingForTime { earliest } => write!(
                f,
                "The clock of this device is not set (it cannot be before {}); no certificate is renewed until it is.",
                Moment(earliest)
            ),
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.severity())
    }
}
