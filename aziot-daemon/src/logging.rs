//! Log records on standard error, in the line format that the journal and existing tools expect (spec, daemon chapter A.5).

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

use aziot_core::time::UnixTime;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// The environment variable with the filter: `[target][=level][,…][/regex]`.
pub const VARIABLE: &str = "AZIOT_LOG";

/// Installs the logger with the filter from `AZIOT_LOG` (default: INFO). Calling it again changes nothing.
pub fn init() {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let mut complaints = Vec::new();
    let logger = LOGGER.get_or_init(|| {
        let spec = std::env::var(VARIABLE).unwrap_or_default();
        Logger {
            filter: Filter::parse(&spec, &mut complaints),
        }
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(logger.filter.max_level());
        for complaint in complaints {
            let _ = writeln!(std::io::stderr(), "{complaint}");
        }
    }
}

struct Logger {
    filter: Filter,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.allows(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        if !self.filter.matches(&message) {
            return;
        }
        let mut lines = String::with_capacity(message.len() + 64);
        format_record(&mut lines, now(), record.level(), record.target(), &message);
        // One write per record, so that records of several threads never mix; a closed standard error is nobody's fault.
        let _ = std::io::stderr().write_all(lines.as_bytes());
    }

    fn flush(&self) {}
}

/// The wall clock.
fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::from_secs(since.map_or(0, |d| d.as_secs())).unwrap_or_default()
}

/// Every line of a message gets the prefix, so that the journal files all of them under the right priority.
fn format_record(out: &mut String, time: UnixTime, level: Level, target: &str, message: &str) {
    let (priority, name) = match level {
        Level::Error => (3, "ERR!"),
        Level::Warn => (4, "WARN"),
        Level::Info => (6, "INFO"),
        Level::Debug => (7, "DBUG"),
        Level::Trace => (7, "TRCE"),
    };
    let with_target = level >= Level::Debug;
    for line in message.split('\n') {
        let _ = write!(out, "<{priority}>{} [{name}] - ", time.rfc3339());
        if with_target {
            let _ = write!(out, "[{target}] ");
        }
        // Control characters in foreign text must not steer a terminal.
        for c in line.chars() {
            if c.is_control() && c != '\t' {
                let _ = write!(out, "{}", c.escape_default());
            } else {
                out.push(c);
            }
        }
        out.push('\n');
    }
}

/// The parsed value of `AZIOT_LOG`.
struct Filter {
    /// Target prefix (empty for all) and level; the longest matching prefix decides.
    directives: Vec<(String, LevelFilter)>,
    regex: Option<regex_lite::Regex>,
}

impl Filter {
    fn parse(spec: &str, complaints: &mut Vec<String>) -> Self {
        let (directives_text, pattern) = match spec.split_once('/') {
            Some((left, right)) => (left, Some(right)),
            None => (spec, None),
        };
        if pattern.is_some_and(|p| p.contains('/')) {
            complaints.push(format!(
                "warning: invalid logging spec '{spec}', ignoring it (too many '/'s)"
            ));
            return Self::standard();
        }
        let mut directives = Vec::new();
        for part in directives_text
            .split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty())
        {
            let (target, level) = match part.split_once('=') {
                None => match part.parse::<LevelFilter>() {
                    Ok(level) => ("", level),
                    Err(_) => (part, LevelFilter::Trace),
                },
                Some((target, "")) => (target, LevelFilter::Trace),
                Some((target, level)) => match level.parse() {
                    Ok(level) => (target, level),
                    Err(_) => {
                        complaints.push(format!(
                            "warning: invalid logging spec '{level}', ignoring it"
                        ));
                        continue;
                    }
                },
            };
            directives.push((target.to_owned(), level));
        }
        if !directives.iter().any(|(target, _)| target.is_empty()) {
            directives.push((String::new(), LevelFilter::Info));
        }
        let regex = pattern.and_then(|pattern| {
            regex_lite::Regex::new(pattern)
                .map_err(|error| {
                    complaints.push(format!("warning: invalid regex filter - {error}"));
                })
                .ok()
        });
        Self { directives, regex }
    }

    fn standard() -> Self {
        Self {
            directives: vec![(String::new(), LevelFilter::Info)],
            regex: None,
        }
    }

    fn max_level(&self) -> LevelFilter {
        self.directives
            .iter()
            .map(|(_, level)| *level)
            .max()
            .unwrap_or(LevelFilter::Off)
    }

    fn allows(&self, target: &str, level: Level) -> bool {
        self.directives
            .iter()
            .filter(|(prefix, _)| target.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())
            .is_some_and(|(_, allowed)| level <= *allowed)
    }

    fn matches(&self, message: &str) -> bool {
        self.regex
            .as_ref()
            .is_none_or(|regex| regex.is_match(message))
    }
}

/// Logs an error and its causes as records of their own: the top text, then `caused by: …` for each source.
pub fn error_chain(top: &str, error: Option<&(dyn std::error::Error + 'static)>) {
    log::error!("{top}");
    let mut next = error;
    while let Some(error) = next {
        log::error!("caused by: {error}");
        next = error.source();
    }
    if std::env::var_os("RUST_BACKTRACE").is_some() {
        log::error!("{}", std::backtrace::Backtrace::force_capture());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(spec: &str) -> (Filter, Vec<String>) {
        let mut complaints = Vec::new();
        let filter = Filter::parse(spec, &mut complaints);
        (filter, complaints)
    }

    #[test]
    fn dm_07_filter_table() {
        let (f, _) = filter("");
        assert!(f.allows("x", Level::Info) && !f.allows("x", Level::Debug));
        for spec in ["warn", "WARN", "Warn"] {
            let (f, _) = filter(spec);
            assert!(
                f.allows("x", Level::Warn) && !f.allows("x", Level::Info),
                "{spec}"
            );
        }
        let (f, _) = filter("off");
        assert!(!f.allows("x", Level::Error));
        let (f, _) = filter("trace");
        assert!(f.allows("mio", Level::Trace));
        let (f, _) = filter("aziot=debug");
        assert!(f.allows("aziot_daemon::keyd", Level::Debug) && !f.allows("mio", Level::Debug));
        assert!(f.allows("mio", Level::Info));
        let (f, complaints) = filter("x=bogus");
        assert_eq!(
            complaints,
            ["warning: invalid logging spec 'bogus', ignoring it"]
        );
        assert!(f.allows("x", Level::Info) && !f.allows("x", Level::Debug));
        let (f, _) = filter("info/a.c");
        assert!(f.matches("xabcx") && !f.matches("xbc"));
    }

    #[test]
    fn dm_06_record_layout() {
        let time = UnixTime::from_secs(1_795_289_241).unwrap();
        let mut out = String::new();
        format_record(&mut out, time, Level::Error, "t", "first\nsecond\x1b[31m");
        assert_eq!(
            out,
            "<3>2026-11-21T19:27:21Z [ERR!] - first\n<3>2026-11-21T19:27:21Z [ERR!] - second\\u{1b}[31m\n"
        );
        out.clear();
        format_record(&mut out, time, Level::Debug, "harness", "d");
        assert_eq!(out, "<7>2026-11-21T19:27:21Z [DBUG] - [harness] d\n");
        out.clear();
        format_record(&mut out, time, Level::Trace, "harness", "t");
        assert_eq!(out, "<7>2026-11-21T19:27:21Z [TRCE] - [harness] t\n");
    }
}
