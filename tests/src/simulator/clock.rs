//! The simulator's notion of time, which a test can shift.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The system clock plus a skew.
#[derive(Debug, Default)]
pub struct Clock {
    skew: AtomicI64,
}

impl Clock {
    /// Seconds since 1970 as the simulated services see them.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.millis().div_euclid(1000)
    }

    /// Milliseconds since 1970 as the simulated services see them.
    #[must_use]
    pub fn millis(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2);
        millis.saturating_add(self.skew().saturating_mul(1000))
    }

    /// By how many seconds the simulated services are ahead of the system clock.
    #[must_use]
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// Shifts the services' time to `seconds` ahead of the system clock (negative: behind).
    pub fn set_skew(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::Relaxed);
    }

    /// Now, as DPS and IoT Hub write it in JSON (RFC 3339 with seven decimals).
    #[must_use]
    pub fn rfc3339(&self) -> String {
        let millis = self.millis();
        let t = Civil::from_unix(millis.div_euclid(1000));
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}0000Z",
            t.year,
            t.month,
            t.day,
            t.hour,
            t.minute,
            t.second,
            millis.rem_euclid(1000)
        )
    }

    /// Now, as a `Date` header has it (RFC 9110 section 5.6.7).
    #[must_use]
    pub fn http_date(&self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let now = self.now();
        let t = Civil::from_unix(now);
        let weekday = usize::try_from(now.div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
        let month = usize::try_from(t.month - 1).unwrap_or(0);
        format!(
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
            DAYS[weekday], t.day, MONTHS[month], t.year, t.hour, t.minute, t.second
        )
    }
}

/// A point in time on the proleptic Gregorian calendar, UTC.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    fn from_unix(seconds: i64) -> Self {
        let of_day = seconds.rem_euclid(86_400);
        // Count from 0000-03-01, so that the leap day is the last of its year.
        let days = seconds.div_euclid(86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_agrees_with_known_dates() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_700_000_030, (2023, 11, 14, 22, 13, 50)),
            (1_795_289_379, (2026, 11, 21, 19, 29, 39)),
            (4_107_542_399, (2100, 2, 28, 23, 59, 59)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
        ] {
            let t = Civil::from_unix(seconds);
            assert_eq!(
                (t.year, t.month, t.day, t.hour, t.minute, t.second),
                expected
            );
        }
    }

    #[test]
    fn skew_moves_both_forms_of_the_date() {
        let clock = Clock::default();
        let before = clock.now();
        clock.set_skew(-before); // the services live in 1970 now
        assert!(clock.now().abs() <= 5);
        assert!(clock.rfc3339().starts_with("1970-01-01T00:00:0"));
        clock.set_skew(86_400 - before);
        assert!(clock.http_date().starts_with("Fri, 02 Jan 1970 00:00:0"));
    }
}
