//! When certificates are renewed.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use super::section::{FromValue, Mismatch, Section};
use super::tree::Value;
use super::write::Writer;

/// A point in a certificate's life, or a time between two attempts to renew it.
///
/// Written `N%`, `Nmin` or `Nday`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// Share of the certificate's lifetime, 1 to 99.
    Percentage(u8),
    /// Seconds, a positive multiple of 60.
    Seconds(i64),
}

/// Why a text is not a [`Policy`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PolicyError {
    /// The text is empty.
    Empty,
    /// The unit is none of `%`, `min`, `day`.
    Unit,
    /// What precedes the unit is not an integer.
    Number,
    /// The number is zero or negative.
    NotPositive,
    /// A percentage of 100 or more.
    Percentage,
    /// The time does not fit in 64 bits of seconds.
    TooLong,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "policy not specified",
            Self::Unit => "bad units for policy",
            Self::Number => "policy could not be parsed as number",
            Self::NotPositive => "renewal policy values must be positive",
            Self::Percentage => "lifetime percentage must be less than 100",
            Self::TooLong => "policy time is too long",
        })
    }
}

impl core::error::Error for PolicyError {}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        const MINUTE: i64 = 60;
        const DAY: i64 = 86_400;
        // The last character is the unit; `n` and `y` stand for the last three. The number is judged first.
        let last = text.chars().next_back().ok_or(PolicyError::Empty)?;
        let unit_characters = if matches!(last, 'n' | 'y') { 3 } else { 1 };
        let unit_at = match text.char_indices().rev().nth(unit_characters - 1) {
            Some((at, _)) => at,
            None => return Err(PolicyError::Unit),
        };
        let (number, unit) = text.split_at(unit_at);
        let number = i64::from_str(number).map_err(|_| PolicyError::Number)?;
        let unit = match unit {
            "%" => None,
            "min" => Some(MINUTE),
            "day" => Some(DAY),
            _ => return Err(PolicyError::Unit),
        };
        if number <= 0 {
            return Err(PolicyError::NotPositive);
        }
        match unit {
            Some(unit) => number
                .checked_mul(unit)
                .map(Self::Seconds)
                .ok_or(PolicyError::TooLong),
            None => match u8::try_from(number) {
                Ok(n) if n < 100 => Ok(Self::Percentage(n)),
                _ => Err(PolicyError::Percentage),
            },
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentage(n) => write!(f, "{n}%"),
            Self::Seconds(s) if s % 86_400 == 0 => write!(f, "{}day", s / 86_400),
            Self::Seconds(s) => write!(f, "{}min", s / 60),
        }
    }
}

impl<'a> FromValue<'a> for Policy {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        let text = <&str>::from_value(value)?;
        text.parse().map_err(|error: PolicyError| {
            Mismatch::new(
                alloc::format!("{error}"),
                "write a whole number and a unit, such as \"80%\", \"90min\" or \"10day\"",
            )
        })
    }
}

/// How a certificate is renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AutoRenew {
    /// Whether a renewal makes a new private key.
    pub rotate_key: bool,
    /// When the first attempt is made.
    pub threshold: Policy,
    /// Time between attempts.
    pub retry: Policy,
}

impl Default for AutoRenew {
    fn default() -> Self {
        Self {
            rotate_key: true,
            threshold: Policy::Percentage(80),
            retry: Policy::Percentage(4),
        }
    }
}

impl AutoRenew {
    /// Reads the table `key`. All three members are required.
    pub(crate) fn read(parent: &Section<'_>, key: &'static str) -> Option<Self> {
        let section = parent.table(key)?;
        let rotate_key = section.required(
            "rotate_key",
            "add `rotate_key = true` (a new key at each renewal) or false",
        );
        let threshold = section.required("threshold", "add `threshold = \"80%\"`");
        let retry = section.required("retry", "add `retry = \"4%\"`");
        section.finish();
        Some(Self {
            rotate_key: rotate_key?,
            threshold: threshold?,
            retry: retry?,
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer, path: &[&str]) {
        writer.table(path);
        writer.plain("rotate_key", self.rotate_key);
        writer.string("threshold", &alloc::format!("{}", self.threshold));
        writer.string("retry", &alloc::format!("{}", self.retry));
    }
}

/// The text of a policy, for places that keep it as written.
impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        alloc::format!("{policy}")
    }
}
