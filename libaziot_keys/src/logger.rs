//! The library's own log: lines on standard error in the form of the services', so that the journal shows both alike.
//!
//! `<3>2026-11-21T19:27:21Z [ERR!] - message`, with `[target] ` before the message at the levels debug and trace. One
//! write per line. Control characters are escaped, so that no key id can forge a line.

use core::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Sets the logger up, once; a logger that exists is not an error.
pub(crate) fn start() {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    let filter =
        FILTER.get_or_init(|| Filter::parse(&std::env::var("AZIOT_LOG").unwrap_or_default()));
    if log::set_logger(filter).is_ok() {
        log::set_max_level(filter.most());
    }
}

/// What `AZIOT_LOG` lets through.
///
/// The services' grammar is `[target][=level][,…][/regex]`, with the level info where none is named. The library has
/// no regular expressions: a pattern counts as plain text.
#[derive(Debug, Eq, PartialEq)]
struct Filter {
    /// Prefixes of targets with their levels; the longest that fits decides. The empty one is always there.
    levels: Vec<(String, LevelFilter)>,
    text: Option<String>,
}

impl Filter {
    fn parse(spec: &str) -> Self {
        let (directives, text) = match spec.split_once('/') {
            Some((directives, text)) => (directives, Some(text.to_owned())),
            None => (spec, None),
        };
        let mut levels = vec![(String::new(), LevelFilter::Info)];
        for directive in directives
            .split(',')
            .map(str::trim)
            .filter(|directive| !directive.is_empty())
        {
            match directive.split_once('=') {
                // The services complain about levels that are not ones.
                Some((target, level)) => {
                    if let Ok(level) = level.trim().parse() {
                        levels.push((target.trim().to_owned(), level));
                    }
                }
                None => match directive.parse() {
                    Ok(level) => levels.push((String::new(), level)),
                    Err(_) => levels.push((directive.to_owned(), LevelFilter::Trace)),
                },
            }
        }
        Self { levels, text }
    }

    fn level(&self, target: &str) -> LevelFilter {
        let fitting = self
            .levels
            .iter()
            .filter(|(prefix, _)| target.starts_with(prefix.as_str()));
        // Of equally long ones, the last.
        fitting
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(LevelFilter::Info, |(_, level)| *level)
    }

    fn most(&self) -> LevelFilter {
        self.levels
            .iter()
            .map(|(_, level)| *level)
            .max()
            .unwrap_or(LevelFilter::Info)
    }
}

impl Log for Filter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        if self
            .text
            .as_ref()
            .is_some_and(|text| !message.contains(text.as_str()))
        {
            return;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let line = line(now, record.level(), record.target(), &message);
        // There is nowhere to report that the log cannot be written.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// One line of the log, with its line feed.
fn line(seconds_since_1970: u64, level: Level, target: &str, message: &str) -> String {
    let (priority, name) = match level {
        Level::Error => (3, "ERR!"),
        Level::Warn => (4, "WARN"),
        Level::Info => (6, "INFO"),
        Level::Debug => (7, "DBUG"),
        Level::Trace => (7, "TRCE"),
    };
    let mut line = format!("<{priority}>{} [{name}] - ", timestamp(seconds_since_1970));
    if level >= Level::Debug {
        line.push('[');
        line.push_str(target);
        line.push_str("] ");
    }
    for c in message.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

/// A time in the form of RFC 3339, UTC, whole seconds.
fn timestamp(seconds_since_1970: u64) -> String {
    let (days, second) = (seconds_since_1970 / 86_400, seconds_since_1970 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the Gregorian calendar for a number of days since 1970-01-01.
///
/// Years are counted from 1 March 0000, so that the leap day is the last of its year.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970;
    let (cycle, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    // Leave out the leap days that are over: one in 4 years, but not in 100, but in 400.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (400 * cycle + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dm_06_line_layout() {
        assert_eq!(
            line(
                1_795_289_241,
                Level::Error,
                "aziot_keys",
                "invalid parameter \"id\": not found"
            ),
            "<3>2026-11-21T19:27:21Z [ERR!] - invalid parameter \"id\": not found\n"
        );
        assert_eq!(
            line(0, Level::Debug, "aziot_keys", "d"),
            "<7>1970-01-01T00:00:00Z [DBUG] - [aziot_keys] d\n"
        );
        assert_eq!(
            line(951_782_400, Level::Warn, "t", "two\nlines\u{1b}[1m"),
            "<4>2000-02-29T00:00:00Z [WARN] - two\\nlines\\u{1b}[1m\n"
        );
    }

    #[test]
    fn calendar_steps_through_every_day() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn dm_07_filters() {
        let level = |spec: &str, target: &str| Filter::parse(spec).level(target);
        assert_eq!(level("", "aziot_keys"), LevelFilter::Info);
        for spec in ["warn", "WARN", "Warn"] {
            assert_eq!(level(spec, "aziot_keys"), LevelFilter::Warn);
        }
        assert_eq!(level("off", "aziot_keys"), LevelFilter::Off);
        assert_eq!(level("aziot=debug", "aziot_keys"), LevelFilter::Debug);
        assert_eq!(level("aziot=debug", "other"), LevelFilter::Info);
        assert_eq!(
            level("aziot=debug,aziot_keys=error", "aziot_keys"),
            LevelFilter::Error
        );
        assert_eq!(level("x=bogus", "aziot_keys"), LevelFilter::Info);
        assert_eq!(level("aziot_keys", "aziot_keys"), LevelFilter::Trace);
        assert_eq!(Filter::parse("info/abc").text.as_deref(), Some("abc"));
        assert_eq!(Filter::parse("aziot=trace,warn").most(), LevelFilter::Trace);
    }
}
