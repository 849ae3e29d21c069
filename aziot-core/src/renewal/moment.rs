//! Points in time, as the log tells them.

use core::fmt;

use crate::time::UnixTime;

/// A point in time in seconds since 1970. Its text is RFC 3339 in UTC with whole seconds, `2001-09-09T01:46:40+00:00`.
///
/// What lies after the year 9999 is `the end of time`, what lies before the year 0 `the beginning of time`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(pub i64);

impl Moment {
    /// Later than every other.
    pub const NEVER: Self = Self(i64::MAX);
}

/// The calendar repeats itself after 400 years.
const CYCLE: i64 = 146_097 * 86_400;

/// Enough cycles for the year 0 to be after 1970.
const CYCLES: u16 = 5;

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, years_late) = if self.0 < 0 {
            let later = self
                .0
                .saturating_add(CYCLE.saturating_mul(i64::from(CYCLES)));
            (later, CYCLES * 400)
        } else {
            (self.0, 0)
        };
        let Some(civil) = u64::try_from(seconds)
            .ok()
            .and_then(UnixTime::from_secs)
            .map(UnixTime::civil)
            .filter(|civil| civil.year >= years_late)
        else {
            return f.write_str(if self.0 < 0 {
                "the beginning of time"
            } else {
                "the end of time"
            });
        };
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}+00:00",
            civil.year.saturating_sub(years_late),
            civil.month,
            civil.day,
            civil.hour,
            civil.minute,
            civil.second
        )
    }
}
