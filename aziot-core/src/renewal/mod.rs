//! Renewal of certificates (certificates-service 8 to 10): when, in which order, and what becomes of a failure.
//!
//! Nothing here reads a clock, a file or a key. Its users are the Certificates Service, for EST identities, and the
//! Identity Service, for the identity of the device; both drive the same parts:
//!
//! - [`policy`]: what the configuration says;
//! - [`Schedule`]: the arithmetic of one certificate;
//! - [`Engine`]: all certificates of a service, which is due, what happens after a success or a failure;
//! - [`Rotation`]: one renewal step by step, such that a stop at any point leaves a certificate and its key together, or
//!   what [`recover()`] needs to bring them together;
//! - [`Message`]: the lines of the log.
//!
//! Points in time are seconds since 1970-01-01T00:00:00Z as `i64`, because certificates may be older than that, and
//! so may the clock of a device that has just started. All arithmetic saturates.
//!
//! ```
//! use aziot_core::renewal::policy::AutoRenew;
//! use aziot_core::renewal::{Added, Engine, Id, Leaf, Outcome};
//!
//! const DAY: i64 = 86_400;
//! let mut engine: Engine<4> = Engine::new();
//! let device = Id(7);
//! let leaf = Leaf::new(0, 30 * DAY, b"the certificate's DER");
//! assert_eq!(
//!     engine.add(device, AutoRenew::default(), leaf, 0),
//!     Ok(Added::Scheduled { next: 24 * DAY })
//! );
//! assert_eq!(engine.due(23 * DAY), None);
//! assert_eq!(engine.wake(23 * DAY), Some(24 * DAY));
//!
//! // Time goes by; the engine hands the certificate out, and is told how it went.
//! assert_eq!(engine.due(24 * DAY), Some(device));
//! let leaf = Leaf::new(24 * DAY, 54 * DAY, b"another certificate's DER");
//! assert_eq!(
//!     engine.renewed(device, leaf, 24 * DAY, 0),
//!     Outcome::Renewed { next: 48 * DAY }
//! );
//! ```

mod engine;
mod message;
mod moment;
pub mod policy;
mod rotation;
mod schedule;

#[cfg(test)]
mod tests;

pub use engine::{AddError, Added, Engine, Entry, Get, Occasion, Outcome, State};
pub use message::{Message, Severity};
pub use moment::Moment;
pub use rotation::{
    Answer, Credentials, End, Keys, Pair, Plan, Recovery, Rotation, Slot, Step, Stored, recover,
};
pub use schedule::{FLOOR, FLOOR_APPLIES, Invalid, Schedule};

use core::fmt;

use sha2::{Digest, Sha256};

/// A certificate of an [`Engine`], named by its user.
///
/// Never use an id again for something else while a renewal of it may be under way: its end would be taken for the other's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Id(pub u32);

/// What renewal needs to know of the first certificate of a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// Valid from, in seconds since 1970.
    pub not_before: i64,
    /// Valid until; at this second it has expired.
    pub not_after: i64,
    /// SHA-256 of the certificate's DER.
    pub digest: [u8; 32],
}

impl Leaf {
    /// The leaf whose encoding is `der`. The dates are the caller's, who has parsed it.
    pub fn new(not_before: i64, not_after: i64, der: &[u8]) -> Self {
        Self {
            not_before,
            not_after,
            digest: Sha256::digest(der).into(),
        }
    }

    /// Whether it has expired, by a clock that says `now`.
    pub const fn has_expired(&self, now: i64) -> bool {
        now >= self.not_after
    }
}

/// How a renewal failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It can be tried again.
    Retryable,
    /// There is no point in trying again before something is changed by hand.
    Fatal,
    /// It can be tried again, and the store may hold this new certificate instead of the old one: the end of a step that
    /// replaces something is not known. The next attempt begins by looking.
    Unfinished(Leaf),
}

/// How a certificate that was just read stands to what an [`Entry`] remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Standing {
    /// Somebody else has replaced it.
    Changed,
    /// It need not be renewed now.
    Current,
    /// It should be renewed and is still valid.
    Due,
    /// It has expired.
    Expired,
}

/// What is said of a certificate that somebody else has replaced.
pub const CHANGED: &str = "certificate has changed since last renewal";

/// What is said of a chain without certificates.
pub const EMPTY_CHAIN: &str = "cert chain contains no certificates";

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => CHANGED,
            Self::Current => "certificate is not due for renewal",
            Self::Due => "certificate is due for renewal",
            Self::Expired => "certificate has expired",
        })
    }
}
