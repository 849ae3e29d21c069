//! Whether to ask the hub or answer from the backup.

use core::fmt;
use core::time::Duration;

use crate::retry::{Backoff, NetworkCause};

/// What is known about the way to the hub.
///
/// One network error marks the hub as unreachable. From then on nobody waits for it: reads come from the backup, writes
/// fail at once, and the owner probes in the background when [`HubReachability::next_probe`] is due, until an answer comes.
#[derive(Clone, Debug)]
pub struct HubReachability {
    lost: Option<Lost>,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    cause: NetworkCause,
    since: Duration,
    next_probe: Duration,
}

impl HubReachability {
    /// How long a read waits for a hub that seemed reachable before it is answered from the backup.
    pub const READ_WAIT: Duration = Duration::from_secs(2);

    /// The pause before the first probe.
    pub const FIRST_PROBE: Duration = Duration::from_secs(5);

    /// The longest pause between probes, apart from jitter.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);

    /// The hub counts as reachable until it is tried.
    pub const fn new() -> Self {
        Self {
            lost: None,
            backoff: Backoff::new(Self::FIRST_PROBE, Self::LONGEST_PAUSE),
        }
    }

    /// How to answer a request that only reads, when there is a backup to answer it from.
    pub const fn read(&self) -> ReadAccess {
        match self.lost {
            None => ReadAccess::AskHub {
                at_most: Self::READ_WAIT,
            },
            Some(_) => ReadAccess::UseBackup,
        }
    }

    /// Whether a request that changes something may be tried.
    ///
    /// # Errors
    /// The hub is unreachable, and why.
    pub const fn write(&self) -> Result<(), Unreachable> {
        match self.lost {
            None => Ok(()),
            Some(Lost { cause, .. }) => Err(Unreachable { cause }),
        }
    }

    /// The hub answered, with whatever it was. True if it was unreachable before: the time to reconcile.
    pub const fn answered(&mut self) -> bool {
        self.backoff.succeeded();
        self.lost.take().is_some()
    }

    /// A request or a probe met a network error. `now` is the time since any fixed moment, on a clock that is never set;
    /// `random` is a fresh random number. True if the hub was reachable before: the time to say so in the log.
    ///
    /// Failures of requests that were under way when the hub was lost already do not prolong the back-off.
    pub fn failed(&mut self, cause: NetworkCause, now: Duration, random: u32) -> bool {
        match &mut self.lost {
            None => {
                let next_probe = now.saturating_add(self.backoff.failed(random));
                self.lost = Some(Lost {
                    cause,
                    since: now,
                    next_probe,
                });
                true
            }
            Some(lost) => {
                lost.cause = cause;
                if now >= lost.next_probe {
                    lost.next_probe = now.saturating_add(self.backoff.failed(random));
                }
                false
            }
        }
    }

    /// When to probe next; none while the hub is reachable. A probe that has begun ends with [`Self::answered`] or
    /// [`Self::failed`].
    pub const fn next_probe(&self) -> Option<Duration> {
        match self.lost {
            None => None,
            Some(lost) => Some(lost.next_probe),
        }
    }

    /// Since when the hub is unreachable, and why.
    pub const fn lost(&self) -> Option<(Duration, NetworkCause)> {
        match self.lost {
            None => None,
            Some(lost) => Some((lost.since, lost.cause)),
        }
    }
}

impl Default for HubReachability {
    fn default() -> Self {
        Self::new()
    }
}

/// How to answer a request that only reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadAccess {
    /// Ask the hub; if it takes longer than this, answer from the backup.
    AskHub {
        /// How long to wait.
        at_most: Duration,
    },
    /// Answer from the backup.
    UseBackup,
}

/// The hub is known to be out of reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Unreachable {
    /// Why.
    pub cause: NetworkCause,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoT Hub cannot be reached: {}", self.cause)
    }
}

impl core::error::Error for Unreachable {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Failure, GaveUp};

    const LOST: NetworkCause = NetworkCause::NoAnswer(GaveUp::Failed(Failure::NotConnected));

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_network_error_marks_the_hub() {
        let mut hub = HubReachability::new();
        assert_eq!(hub.read(), ReadAccess::AskHub { at_most: secs(2) });
        assert_eq!(hub.write(), Ok(()));
        assert!(!hub.answered());
        assert!(hub.failed(LOST, secs(100), 0));
        assert_eq!(hub.read(), ReadAccess::UseBackup);
        assert_eq!(
            hub.write().unwrap_err().to_string(),
            "IoT Hub cannot be reached: could not connect"
        );
        assert_eq!(hub.lost(), Some((secs(100), LOST)));
        assert_eq!(hub.next_probe(), Some(secs(105)));
        assert!(hub.answered());
        assert_eq!((hub.next_probe(), hub.lost()), (None, None));
        assert_eq!(hub.write(), Ok(()));
    }

    #[test]
    fn probes_back_off() {
        let mut hub = HubReachability::new();
        let mut now = secs(0);
        let mut pauses = Vec::new();
        hub.failed(LOST, now, 0);
        while pauses.len() < 8 {
            let next = hub.next_probe().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
            assert!(!hub.failed(NetworkCause::Status(503), now, 0));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(hub.lost(), Some((secs(0), NetworkCause::Status(503))));
        hub.answered();
        hub.failed(LOST, now, 0);
        assert_eq!(hub.next_probe(), Some(now + secs(5)));
    }

    #[test]
    fn late_failures_do_not_prolong_the_back_off() {
        let mut hub = HubReachability::new();
        hub.failed(LOST, secs(0), 0);
        for _ in 0..10 {
            hub.failed(LOST, secs(1), 0);
        }
        assert_eq!(hub.next_probe(), Some(secs(5)));
    }
}
