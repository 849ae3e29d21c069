//! When certificates are renewed: what the configuration says (certificates-service 2.7).

use core::fmt;
use core::str::FromStr;

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
