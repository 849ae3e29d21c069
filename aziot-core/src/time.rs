//! Points in time, and the two forms they take on the wire.
//!
//! Whole seconds, no floating point, no clock: the time is always the caller's argument.

use core::fmt;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds, up to the end of the year 9999.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnixTime(u64);

impl UnixTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// 9999-12-31T23:59:59Z.
    pub const MAX: Self = Self(253_402_300_799);

    /// The point `seconds` after the epoch, unless that is after [`MAX`](Self::MAX).
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Option<Self> {
        if seconds > Self::MAX.0 {
            return None;
        }
        Some(Self(seconds))
    }

    /// Seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// This point and `seconds`, at most [`MAX`](Self::MAX).
    #[must_use]
    pub const fn saturating_add(self, seconds: u64) -> Self {
        let sum = self.0.saturating_add(seconds);
        if sum > Self::MAX.0 {
            return Self::MAX;
        }
        Self(sum)
    }

    /// This point less `seconds`, at least [`EPOCH`](Self::EPOCH).
    #[must_use]
    pub const fn saturating_sub(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Seconds from `earlier` to this point; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Displays as an IMF-fixdate (RFC 9110 section 5.6.7), `Sat, 21 Nov 2026 19:40:00 GMT`.
    #[must_use]
    pub const fn imf_fixdate(self) -> ImfFixdate {
        ImfFixdate(self)
    }

    /// Displays as RFC 3339 in UTC with whole seconds, `2026-11-21T19:27:21Z`.
    #[must_use]
    pub const fn rfc3339(self) -> Rfc3339 {
        Rfc3339(self)
    }

    /// Reads a date of an HTTP header field: an IMF-fixdate, or one of the obsolete forms (RFC 9110
    /// section 5.6.7). The name of the day is not compared with the date.
    ///
    /// Two-digit years from 70 on are in the 20th century, the others in the 21st.
    ///
    /// # Errors
    ///
    /// `text` is in none of the forms, or not a date from 1970 to 9999.
    pub fn parse_http_date(text: &str) -> Result<Self, InvalidDate> {
        http_date(text).ok_or(InvalidDate)
    }

    /// The date and time of day in UTC.
    #[must_use]
    pub fn civil(self) -> Civil {
        let days = u32::try_from(self.0 / DAY).unwrap_or_default();
        let second_of_day = u32::try_from(self.0 % DAY).unwrap_or_default();
        // Years that start in March, in cycles of 400: the day that is sometimes there comes last.
        let shifted = days + DAYS_FROM_YEAR_0;
        let era = shifted / DAYS_PER_ERA;
        let day_of_era = shifted % DAYS_PER_ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let (month, next_year) = if from_march < 10 {
            (from_march + 3, 0)
        } else {
            (from_march - 9, 1)
        };
        // Every cast is of a number that is small by construction.
        Civil {
            year: (era * 400 + year_of_era + next_year) as u16,
            month: month as u8,
            day: (day_of_year - (153 * from_march + 2) / 5 + 1) as u8,
            hour: (second_of_day / 3600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
            // The epoch was a Thursday.
            weekday: ((days + 4) % 7) as u8,
        }
    }

    /// The point at a date and time of day in UTC; the day of the week is not looked at.
    ///
    /// `None` if there is no such date between 1970 and 9999. The second may be 60 (a leap second),
    /// which is the first of the next minute.
    #[must_use]
    pub fn from_civil(civil: &Civil) -> Option<Self> {
        let &Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
            weekday: _,
        } = civil;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_in_month = match month {
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => 31,
        };
        let valid = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !valid {
            return None;
        }
        let (month, day) = (u32::from(month), u32::from(day));
        let (year, from_march) = if month > 2 {
            (u32::from(year), month - 3)
        } else {
            (u32::from(year) - 1, month + 9)
        };
        let (era, year_of_era) = (year / 400, year % 400);
        let day_of_year = (153 * from_march + 2) / 5 + day - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_PER_ERA + day_of_era - DAYS_FROM_YEAR_0;
        let second_of_day = u64::from(hour) * 3600 + u64::from(minute) * 60 + u64::from(second);
        Self::from_secs(u64::from(days) * DAY + second_of_day)
    }
}

/// A date and time of day in UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Civil {
    /// 1970 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59, or 60 when it comes from a date that was read.
    pub second: u8,
    /// 0 is Sunday.
    pub weekday: u8,
}

/// See [`UnixTime::imf_fixdate`].
#[derive(Clone, Copy, Debug)]
pub struct ImfFixdate(UnixTime);

impl ImfFixdate {
    /// The text, which is ASCII.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 29] {
        let date = self.0.civil();
        let mut text = *b"Sun, 00 Jan 0000 00:00:00 GMT";
        put(&mut text, 0, name(&WEEKDAYS, date.weekday));
        put(&mut text, 5, &two(date.day));
        put(&mut text, 8, name(&MONTHS, date.month.saturating_sub(1)));
        put(&mut text, 12, &four(date.year));
        put(&mut text, 17, &two(date.hour));
        put(&mut text, 20, &two(date.minute));
        put(&mut text, 23, &two(date.second));
        text
    }
}

impl fmt::Display for ImfFixdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.to_bytes()).unwrap_or_default())
    }
}

/// See [`UnixTime::rfc3339`].
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339(UnixTime);

impl Rfc3339 {
    /// The text, which is ASCII.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 20] {
        let date = self.0.civil();
        let mut text = *b"0000-00-00T00:00:00Z";
        put(&mut text, 0, &four(date.year));
        put(&mut text, 5, &two(date.month));
        put(&mut text, 8, &two(date.day));
        put(&mut text, 11, &two(date.hour));
        put(&mut text, 14, &two(date.minute));
        put(&mut text, 17, &two(date.second));
        text
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.to_bytes()).unwrap_or_default())
    }
}

/// Text is not a date of HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct InvalidDate;

impl fmt::Display for InvalidDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an HTTP date between 1970 and 9999")
    }
}

impl core::error::Error for InvalidDate {}

fn http_date(text: &str) -> Option<UnixTime> {
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let second = words.next()?;
    let (day, month, year, clock) = if first.ends_with(',') {
        if let Some((day, rest)) = second.split_once('-') {
            // Sunday, 06-Nov-94 08:49:37 GMT
            let (month, year) = rest.split_once('-')?;
            let year = number(year, 2)?;
            let century = if year < 70 { 2000 } else { 1900 };
            (number(day, 2)?, month, century + year, words.next()?)
        } else {
            // Sun, 06 Nov 1994 08:49:37 GMT
            let month = words.next()?;
            let year = number(words.next()?, 4)?;
            (number(second, 2)?, month, year, words.next()?)
        }
    } else {
        // Sun Nov  6 08:49:37 1994
        let day = words.next()?;
        let day = number(day, day.len().clamp(1, 2))?;
        let clock = words.next()?;
        (day, second, number(words.next()?, 4)?, clock)
    };
    let zone = words.next();
    let complete = match zone {
        Some("GMT") => first.ends_with(','),
        Some(_) => false,
        None => !first.ends_with(','),
    };
    if !complete || words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month.as_bytes())?;
    let mut clock = clock.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() {
        return None;
    }
    UnixTime::from_civil(&Civil {
        year,
        month: u8::try_from(month).ok()?.checked_add(1)?,
        day: u8::try_from(day).ok()?,
        hour: u8::try_from(hour).ok()?,
        minute: u8::try_from(minute).ok()?,
        second: u8::try_from(second).ok()?,
        weekday: 0,
    })
}

/// A decimal number of exactly `digits` digits, at most four.
fn number(text: &str, digits: usize) -> Option<u16> {
    let decimal = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    decimal.then(|| text.parse().ok()).flatten()
}

fn name(names: &'static [&'static [u8; 3]], index: u8) -> &'static [u8] {
    names
        .get(usize::from(index))
        .copied()
        .map_or(b"???", |name| name)
}

fn two(value: u8) -> [u8; 2] {
    [b'0' + value / 10 % 10, b'0' + value % 10]
}

fn four(value: u16) -> [u8; 4] {
    let digit = |power: u16| b'0' + (value / power % 10) as u8;
    [digit(1000), digit(100), digit(10), digit(1)]
}

fn put(text: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = text.get_mut(at..at.saturating_add(part.len())) {
        place.copy_from_slice(part);
    }
}

const DAY: u64 = 86_400;
const DAYS_PER_ERA: u32 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_FROM_YEAR_0: u32 = 719_468;

const WEEKDAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, imf, rfc3339) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            (
                784_111_777,
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "1994-11-06T08:49:37Z",
            ),
            (
                951_782_399,
                "Mon, 28 Feb 2000 23:59:59 GMT",
                "2000-02-28T23:59:59Z",
            ),
            (
                951_782_400,
                "Tue, 29 Feb 2000 00:00:00 GMT",
                "2000-02-29T00:00:00Z",
            ),
            (
                1_795_289_241,
                "Sat, 21 Nov 2026 19:27:21 GMT",
                "2026-11-21T19:27:21Z",
            ),
            (
                253_402_300_799,
                "Fri, 31 Dec 9999 23:59:59 GMT",
                "9999-12-31T23:59:59Z",
            ),
        ] {
            let time = UnixTime::from_secs(seconds).unwrap();
            assert_eq!(time.imf_fixdate().to_string(), imf);
            assert_eq!(time.rfc3339().to_string(), rfc3339);
            assert_eq!(UnixTime::parse_http_date(imf), Ok(time));
        }
        assert_eq!(UnixTime::from_secs(253_402_300_800), None);
        assert_eq!(UnixTime::MAX.saturating_add(1), UnixTime::MAX);
        assert_eq!(UnixTime::EPOCH.saturating_sub(1), UnixTime::EPOCH);
    }

    #[test]
    fn obsolete_forms() {
        let time = UnixTime::from_secs(784_111_777);
        for text in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(UnixTime::parse_http_date(text).ok(), time, "{text}");
        }
        let time = UnixTime::parse_http_date("Saturday, 21-Nov-26 19:27:21 GMT").unwrap();
        assert_eq!(time.as_secs(), 1_795_289_241);
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994 GMT",
            "60",
        ] {
            assert_eq!(UnixTime::parse_http_date(text), Err(InvalidDate), "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip(seconds in 0..=UnixTime::MAX.as_secs()) {
            let time = UnixTime::from_secs(seconds).unwrap();
            prop_assert_eq!(UnixTime::from_civil(&time.civil()), Some(time));
            let text = time.imf_fixdate().to_string();
            prop_assert_eq!(UnixTime::parse_http_date(&text), Ok(time));
        }

        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = UnixTime::parse_http_date(&text);
        }

        /// The next day is the next day.
        #[test]
        fn days_follow_each_other(days in 0..2_932_895_u64) {
            let today = UnixTime::from_secs(days * DAY).unwrap().civil();
            let tomorrow = UnixTime::from_secs((days + 1) * DAY).unwrap().civil();
            prop_assert_eq!((today.weekday + 1) % 7, tomorrow.weekday);
            let same_month = (today.year, today.month) == (tomorrow.year, tomorrow.month);
            let expected = if same_month { today.day + 1 } else { 1 };
            prop_assert_eq!(tomorrow.day, expected);
        }
    }
}
