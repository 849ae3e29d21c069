//! The wall clock, and whether it can be trusted.

use std::time::{SystemTime, UNIX_EPOCH};

pub use aziot_core::clock::{earliest, is_plausible, skew_hint};

/// The wall clock in seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_run_on_a_machine_with_a_clock() {
        assert!(is_plausible(now(), None));
    }
}
