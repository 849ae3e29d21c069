//! Whether IoT Hub can be reached, as the event loop sees it, and when to try again.

use std::time::Duration;

use super::error::Error;

/// First pause before another try.
const FIRST: Duration = Duration::from_secs(5);

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// A pause that doubles with every failure, from a few seconds to a few minutes, between half and all of it at random, so
/// that the devices of a site do not come back all at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after another failure. `random` is anything.
    pub fn next(&mut self, random: u32) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(LONGEST);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Success: start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The way to the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// As far as is known the hub answers.
    #[default]
    Up,
    /// The hub takes long or asks for fewer requests: reads are answered from the backup until it answers again.
    Slow,
    /// The last request did not get through, for this reason: reads are answered from the backup, writes fail.
    Down(Error),
}

/// What a request to the hub has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered.
    Reached,
    /// It wants fewer requests.
    Throttled,
    /// It was not reached. `untrusted`: something was, but could not prove to be the hub.
    Lost {
        /// Why.
        cause: Error,
        /// The certificate was not trusted.
        untrusted: bool,
    },
}

impl Link {
    /// Takes in a sign. Answers whether requests that wait for the hub should look for another source.
    pub fn note(&mut self, sign: Sign) -> bool {
        match sign {
            Sign::Reached => {
                if let Self::Down(_) = self {
                    log::info!("IoT Hub answers again.");
                }
                *self = Self::Up;
                false
            }
            Sign::Throttled => {
                if *self == Self::Up {
                    *self = Self::Slow;
                }
                true
            }
            Sign::Lost { cause, untrusted } => {
                let news = *self != Self::Down(cause.clone());
                if untrusted && news {
                    log::error!("{}", cause.one_line());
                } else if !matches!(self, Self::Down(_)) {
                    log::warn!("IoT Hub cannot be reached, working from the backup: {}", cause.one_line());
                }
                *self = Self::Down(cause);
                true
            }
        }
    }

    /// The hub has kept somebody waiting.
    pub fn note_slow(&mut self) {
        if *self == Self::Up {
            *self = Self::Slow;
        }
    }

    /// Whether reads should be answered from the backup first.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }

    /// Why writes fail, if they do.
    #[must_use]
    pub fn down(&self) -> Option<&Error> {
        match self {
            Self::Down(cause) => Some(cause),
            Self::Up | Self::Slow => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Class;
    use super::*;

    fn lost(text: &str) -> Sign {
        Sign::Lost { cause: Error::because(Class::Hub, text), untrusted: false }
    }

    #[test]
    fn pauses_double_up_to_minutes_and_never_vanish() {
        for random in [0, u32::MAX / 2, u32::MAX] {
            let mut backoff = Backoff::default();
            let pauses: Vec<_> = (0..40).map(|_| backoff.next(random)).collect();
            assert!(pauses[0] >= Duration::from_millis(2500) && pauses[0] <= FIRST, "{:?}", pauses[0]);
            assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
            assert!(pauses[39] >= LONGEST / 2 && pauses[39] <= LONGEST);
            backoff.reset();
            assert_eq!(backoff.next(random), pauses[0]);
        }
    }

    #[test]
    fn is_42_one_network_error_marks_the_hub_and_one_answer_clears_it() {
        let mut link = Link::default();
        assert!(link.is_up() && link.down().is_none());
        assert!(link.note(lost("refused")));
        assert!(!link.is_up());
        assert_eq!(link.down().unwrap().one_line(), "Hub client error: refused");
        assert!(!link.note(Sign::Reached));
        assert!(link.is_up());
    }

    #[test]
    fn slowness_stops_reads_only() {
        let mut link = Link::default();
        link.note_slow();
        assert!(!link.is_up() && link.down().is_none());
        link.note(lost("x"));
        link.note(Sign::Throttled);
        assert!(link.down().is_some(), "a throttled request says nothing new about a lost hub");
    }
}
