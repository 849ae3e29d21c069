//! Whether IoT Hub can be reached, as the event loop sees it, and when to try again.

use std::time::{Duration, Instant};

use aziot_core::provisioning::HubReachability;
use aziot_core::retry::{Backoff, MAX_RETRY_AFTER, NetworkCause};

use super::error::Error;
use super::random;

/// The pause before the first probe of a hub that has asked for fewer requests: that of the first throttled attempt.
const THROTTLED_PAUSE: Duration = Duration::from_secs(60);

/// The way to the hub.
#[derive(Debug)]
pub struct Link {
    reach: HubReachability,
    /// What the last failure was, in words.
    cause: Option<Error>,
    /// The hub takes long or asks for fewer requests: reads are answered from the backup until it answers again.
    slow: bool,
    /// When a hub that has asked for fewer requests may be asked again.
    throttled_until: Option<Duration>,
    throttled: Backoff,
    begin: Instant,
    /// Factor on the pauses.
    scale: f64,
}

/// What a request to the hub has shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Sign {
    /// It answered.
    Reached,
    /// It wants fewer requests.
    Throttled {
        /// What its `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// It was not reached.
    Lost {
        /// Why, in a word.
        cause: NetworkCause,
        /// Why.
        error: Error,
        /// Something answered, but could not prove to be the hub.
        untrusted: bool,
    },
}

/// What a sign means for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The hub answers again.
    Back,
    /// Requests that wait for the hub should look for another source.
    Divert,
    /// Nothing.
    None,
}

impl Link {
    /// The hub counts as reachable until it is tried.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self {
            reach: HubReachability::new(),
            cause: None,
            slow: false,
            throttled_until: None,
            throttled: Backoff::new(THROTTLED_PAUSE, HubReachability::LONGEST_PAUSE),
            begin: Instant::now(),
            scale,
        }
    }

    /// Takes in a sign.
    pub fn note(&mut self, sign: Sign) -> News {
        match sign {
            Sign::Reached => {
                self.slow = false;
                self.throttled_until = None;
                self.throttled.succeeded();
                self.cause = None;
                if self.reach.answered() {
                    log::info!("IoT Hub answers again.");
                    return News::Back;
                }
                News::None
            }
            Sign::Throttled { retry_after } => {
                self.slow = true;
                let now = self.now();
                let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                // The attempts of a request that was under way already do not prolong the back-off.
                let pause = match self.throttled_until {
                    Some(until) if now < until => until.saturating_sub(now),
                    _ => self.throttled.failed(random()),
                };
                self.throttled_until = Some(now.saturating_add(pause.max(asked)));
                News::Divert
            }
            Sign::Lost {
                cause,
                error,
                untrusted,
            } => {
                let lost = self.reach.failed(cause, self.now(), random());
                if untrusted && self.cause.as_ref() != Some(&error) {
                    log::error!("{}", error.one_line());
                } else if lost {
                    log::warn!(
                        "IoT Hub cannot be reached, working from the backup. {}",
                        error.one_line()
                    );
                }
                self.cause = Some(error);
                News::Divert
            }
        }
    }

    /// The hub has kept somebody waiting.
    pub fn note_slow(&mut self) {
        self.slow = true;
    }

    /// A probe has ended. One that has shown nothing, because it failed on this device or the exchange broke off, counts as
    /// failed: the next has to come later.
    pub fn probed(&mut self) {
        let now = self.now();
        if let (Some((_, cause)), Some(due)) = (self.reach.lost(), self.reach.next_probe())
            && due <= now
        {
            self.reach.failed(cause, now, random());
        }
    }

    /// Whether reads should ask the hub first.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.slow && self.down().is_none()
    }

    /// Why writes fail, if they do.
    #[must_use]
    pub fn down(&self) -> Option<&Error> {
        self.cause.as_ref().filter(|_| self.reach.write().is_err())
    }

    /// How long until the hub should be asked whether it answers; `None` while there is no need to.
    #[must_use]
    pub fn probe_in(&self) -> Option<Duration> {
        let pause = match self.reach.next_probe() {
            Some(due) => due.saturating_sub(self.now()),
            None if self.slow => match self.throttled_until {
                Some(until) => until
                    .saturating_sub(self.now())
                    .max(HubReachability::FIRST_PROBE),
                None => HubReachability::FIRST_PROBE,
            },
            None => return None,
        };
        Some(pause.mul_f64(self.scale))
    }

    fn now(&self) -> Duration {
        self.begin.elapsed().div_f64(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Class;
    use super::*;

    const THROTTLED: Sign = Sign::Throttled { retry_after: None };

    fn lost(text: &str) -> Sign {
        let cause = NetworkCause::Status(503);
        Sign::Lost {
            cause,
            error: Error::because(Class::Hub, text),
            untrusted: false,
        }
    }

    #[test]
    fn is_42_one_network_error_marks_the_hub_and_one_answer_clears_it() {
        let mut link = Link::new(1.0);
        assert!(link.is_up() && link.down().is_none() && link.probe_in().is_none());
        assert_eq!(link.note(lost("refused")), News::Divert);
        assert!(!link.is_up());
        assert_eq!(link.down().unwrap().one_line(), "Hub client error: refused");
        let probe = link.probe_in().unwrap();
        assert!(
            probe > Duration::from_secs(4) && probe < Duration::from_secs(7),
            "{probe:?}"
        );
        assert_eq!(link.note(Sign::Reached), News::Back);
        assert!(link.is_up() && link.probe_in().is_none());
        assert_eq!(link.note(Sign::Reached), News::None);
    }

    #[test]
    fn slowness_stops_reads_only() {
        let mut link = Link::new(1.0);
        link.note_slow();
        assert!(!link.is_up() && link.down().is_none());
        assert!(
            link.probe_in().is_some(),
            "somebody has to find out when it is over"
        );
        assert_eq!(link.note(THROTTLED), News::Divert);
        assert!(link.down().is_none());
        link.note(lost("x"));
        assert_eq!(link.note(THROTTLED), News::Divert);
        assert!(
            link.down().is_some(),
            "a throttled request says nothing new about a lost hub"
        );
        link.note(Sign::Reached);
        assert!(link.is_up());
    }

    #[test]
    fn a_probe_that_shows_nothing_is_not_repeated_at_once() {
        let mut link = Link::new(1.0);
        link.note(lost("refused"));
        // A minute passes.
        link.begin -= Duration::from_secs(60);
        assert_eq!(link.probe_in(), Some(Duration::ZERO), "it is due");
        link.probed();
        let pause = link.probe_in().unwrap();
        // The second pause of the row, and up to a quarter more.
        assert!(pause > Duration::from_secs(7), "{pause:?}");
        link.probed();
        assert!(link.probe_in().unwrap() <= pause);
    }

    #[test]
    fn a_hub_that_throttles_is_left_alone_for_a_while() {
        let pause = |link: &Link| link.probe_in().unwrap().as_secs();
        let mut link = Link::new(1.0);
        link.note(THROTTLED);
        let first = pause(&link);
        assert!((59..=76).contains(&first), "{first}");
        // Other requests that are throttled meanwhile do not move it.
        link.note(THROTTLED);
        assert!((first - 1..=first).contains(&pause(&link)));
        link.note(Sign::Throttled {
            retry_after: Some(Duration::from_secs(200)),
        });
        assert!((199..=200).contains(&pause(&link)));
        link.note(Sign::Throttled {
            retry_after: Some(Duration::MAX),
        });
        assert!((599..=600).contains(&pause(&link)));
        link.note(Sign::Reached);
        assert!(link.probe_in().is_none());
        link.note_slow();
        assert!(pause(&link) <= 5);
    }
}
