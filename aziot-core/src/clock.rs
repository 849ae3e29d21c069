//! Whether the wall clock can be trusted enough to sign, or to judge certificates, by it.
//!
//! A gateway without a battery-backed clock starts in 1970, or at the time its image was made. A token signed then is
//! refused in ways that look like a wrong key, and certificates look valid for decades; so nothing is signed or renewed
//! until the clock is at least as late as this release and the last time seen from the cloud.

use core::fmt;

/// The date of the sources of this release in seconds since 1970. A package build passes its own date.
pub const RELEASE: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(date) => date,
        Err(_) => panic!("SOURCE_DATE_EPOCH is not a number of seconds"),
    },
    // 2026-01-01T00:00:00Z
    None => 1_767_225_600,
};

/// How much the clock may be behind in seconds, for time zones mistaken for UTC.
pub const TOLERANCE: u64 = 86_400;

/// The earliest time that is plausible in seconds since 1970, given the last time seen from the cloud.
#[must_use]
pub fn earliest(last_seen: Option<u64>) -> u64 {
    RELEASE
        .max(last_seen.unwrap_or(0))
        .saturating_sub(TOLERANCE)
}

/// Whether a clock that says `now` is plausible.
#[must_use]
pub fn is_plausible(now: u64, last_seen: Option<u64>) -> bool {
    now >= earliest(last_seen)
}

/// What to tell about a rejected token when the peer's clock disagrees with ours by more than a few seconds.
#[must_use]
pub fn skew_hint(ours: u64, peer: Option<u64>) -> Option<SkewHint> {
    const NOTEWORTHY: u64 = 5;
    let seconds = ours.abs_diff(peer?);
    let ahead = peer.is_some_and(|peer| ours > peer);
    (seconds > NOTEWORTHY).then_some(SkewHint { seconds, ahead })
}

/// Our clock and a peer's differ. Its text says what to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SkewHint {
    /// By how much.
    pub seconds: u64,
    /// Ours is ahead of the peer's.
    pub ahead: bool,
}

impl fmt::Display for SkewHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, ahead } = self;
        let direction = if *ahead { "ahead of" } else { "behind" };
        write!(
            f,
            "the clock of this device is {seconds} s {direction} the server's; tokens are valid for 30 s, so set the clock"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_and_the_last_time_seen_bound_the_clock() {
        assert!(!is_plausible(0, None));
        assert!(is_plausible(RELEASE, None));
        assert!(is_plausible(RELEASE - TOLERANCE, None));
        assert!(!is_plausible(RELEASE - TOLERANCE - 1, None));
        let seen = RELEASE + 1_000_000;
        assert!(!is_plausible(RELEASE, Some(seen)));
        assert!(is_plausible(seen - TOLERANCE, Some(seen)));
        assert!(is_plausible(RELEASE, Some(5)));
    }

    #[test]
    fn small_differences_of_clocks_are_not_worth_a_word() {
        let hint = |peer| skew_hint(100, peer).map(|hint| hint.to_string());
        assert_eq!(hint(None), None);
        assert_eq!(hint(Some(104)), None);
        assert!(hint(Some(160)).unwrap().contains("60 s behind"));
        assert!(hint(Some(40)).unwrap().contains("60 s ahead"));
    }
}
