//! Whether the wall clock can be trusted enough to sign tokens by it.
//!
//! A gateway without a battery-backed clock starts in 1970, or at the time its image was made. A token signed then is
//! refused in ways that look like a wrong key, so nothing is signed until the clock is at least as late as this release
//! and the last time seen from the cloud.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date of the sources of this release in seconds since 1970. A package build passes its own date.
const RELEASE: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => match parse(text) {
        Some(date) => date,
        None => panic!("SOURCE_DATE_EPOCH is not a number of seconds"),
    },
    // 2026-01-01T00:00:00Z
    None => 1_767_225_600,
};

/// How much the clock may be behind, for time zones mistaken for UTC.
const TOLERANCE: u64 = 86_400;

const fn parse(text: &str) -> Option<u64> {
    match u64::from_str_radix(text, 10) {
        Ok(date) => Some(date),
        Err(_) => None,
    }
}

/// The wall clock in seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The earliest time that is plausible, given the last time seen from the cloud.
#[must_use]
pub fn earliest(last_seen: Option<u64>) -> u64 {
    RELEASE
        .max(last_seen.unwrap_or(0))
        .saturating_sub(TOLERANCE)
}

/// Whether the clock is plausible.
#[must_use]
pub fn is_plausible(now: u64, last_seen: Option<u64>) -> bool {
    now >= earliest(last_seen)
}

/// What to tell about a rejected token when the peer's clock disagrees with ours by more than a few seconds.
#[must_use]
pub fn skew_hint(ours: u64, peer: Option<u64>) -> Option<String> {
    const NOTEWORTHY: u64 = 5;
    let peer = peer?;
    let off = ours.abs_diff(peer);
    if off <= NOTEWORTHY {
        return None;
    }
    let direction = if ours > peer { "ahead of" } else { "behind" };
    Some(format!(
        "the clock of this device is {off} s {direction} the server's; tokens are valid for 30 s, so set the clock"
    ))
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
        assert!(
            is_plausible(now(), None),
            "the tests run on a machine with a clock"
        );
    }

    #[test]
    fn small_differences_of_clocks_are_not_worth_a_word() {
        assert_eq!(skew_hint(100, None), None);
        assert_eq!(skew_hint(100, Some(104)), None);
        assert!(skew_hint(100, Some(160)).unwrap().contains("60 s behind"));
        assert!(skew_hint(160, Some(100)).unwrap().contains("60 s ahead"));
    }
}
