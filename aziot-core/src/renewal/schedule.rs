//! The arithmetic of one certificate (certificates-service 8.2).

use core::fmt;

use super::policy::{AutoRenew, Policy};

/// Shortest time in seconds between two attempts to renew a certificate that lives for [`FLOOR_APPLIES`] or longer.
///
/// So that a fleet does not hammer a failing authority. Certificates of minutes are for trying things out.
pub const FLOOR: i64 = 60;

/// Shortest lifetime in seconds to which [`FLOOR`] applies.
pub const FLOOR_APPLIES: i64 = 3600;

/// When a certificate is renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// The first attempt, or with a certificate that should have been renewed already, one retry period from now.
    pub next: i64,
    /// Seconds between two attempts.
    pub retry: i64,
}

/// Why there is no schedule for a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Invalid {
    /// It is never valid: its dates are the wrong way round.
    Dates,
    /// It has expired.
    Expired,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dates => "cert not_before is not before not_after",
            Self::Expired => "cannot calculate initial renewal time for expired cert",
        })
    }
}

impl core::error::Error for Invalid {}

impl Schedule {
    /// The schedule of a certificate that is valid from `not_before` until `not_after`.
    ///
    /// Ask for it before a new certificate replaces the old one: what has no schedule must not.
    ///
    /// # Errors
    /// The certificate is not valid now or later.
    pub fn new(
        policy: &AutoRenew,
        not_before: i64,
        not_after: i64,
        now: i64,
    ) -> Result<Self, Invalid> {
        if not_before >= not_after {
            return Err(Invalid::Dates);
        }
        if now >= not_after {
            return Err(Invalid::Expired);
        }
        let threshold = threshold(policy.threshold, not_before, not_after);
        let retry = retry(policy.retry, not_before, not_after);
        let next = if now >= threshold {
            now.saturating_add(retry)
        } else {
            threshold
        };
        Ok(Self { next, retry })
    }
}

/// Whether a certificate should be renewed now.
pub(super) fn is_due(threshold: Policy, not_before: i64, not_after: i64, now: i64) -> bool {
    if not_before >= not_after || now >= not_after {
        return true;
    }
    match threshold {
        // The whole percentage of the lifetime that is over has reached the threshold.
        Policy::Percentage(percent) => {
            let elapsed = now.saturating_sub(not_before);
            elapsed >= share(lifetime(not_before, not_after), percent, Rounding::Up)
        }
        Policy::Seconds(seconds) => not_after.saturating_sub(now) <= seconds,
    }
}

/// When the first attempt is made.
pub(super) fn threshold(threshold: Policy, not_before: i64, not_after: i64) -> i64 {
    match threshold {
        Policy::Percentage(percent) => {
            let share = share(lifetime(not_before, not_after), percent, Rounding::Down);
            not_before.saturating_add(share)
        }
        Policy::Seconds(seconds) => not_after.saturating_sub(seconds),
    }
}

/// Seconds between attempts, at least 1.
pub(super) fn retry(retry: Policy, not_before: i64, not_after: i64) -> i64 {
    let lifetime = lifetime(not_before, not_after);
    let seconds = match retry {
        Policy::Percentage(percent) => share(lifetime, percent, Rounding::Down),
        Policy::Seconds(seconds) => seconds,
    };
    seconds.max(floor(lifetime))
}

/// The shortest time between attempts. What is never valid does not get away with less.
pub(super) const fn floor(lifetime: i64) -> i64 {
    match lifetime {
        1..FLOOR_APPLIES => 1,
        _ => FLOOR,
    }
}

pub(super) const fn lifetime(not_before: i64, not_after: i64) -> i64 {
    not_after.saturating_sub(not_before)
}

/// `period` up to a tenth longer or shorter, never below `floor`. `random` is uniform; 0 leaves the period as it is.
pub(super) fn jittered(period: i64, floor: i64, random: u32) -> i64 {
    // From -2^31 to 2^31 - 1.
    let random = i64::from(random.cast_signed());
    let tenth = period / 10;
    // The product of the high and the low half, so that it fits.
    let (high, low) = (tenth >> 31, tenth & 0x7fff_ffff);
    let offset = high
        .saturating_mul(random)
        .saturating_add(low.saturating_mul(random) >> 31);
    period.saturating_add(offset).max(floor)
}

/// The longest that [`jittered`] makes of `period`.
pub(super) const fn longest(period: i64) -> i64 {
    period.saturating_add(period / 10)
}

#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
}

/// `percent` hundredths of a positive number of seconds.
fn share(seconds: i64, percent: u8, rounding: Rounding) -> i64 {
    let percent = i64::from(percent);
    let rest = (seconds % 100).saturating_mul(percent);
    let rest = match rounding {
        Rounding::Down => rest / 100,
        Rounding::Up => rest.saturating_add(99) / 100,
    };
    (seconds / 100).saturating_mul(percent).saturating_add(rest)
}
