//! How often and when a request to a cloud service or a sibling is tried again (identity-service 8, DB-26 to DB-28).
//!
//! [`Attempts`] is told how each attempt ended and answers what to do. It neither sleeps nor reads a clock: durations and
//! randomness are arguments.

use core::fmt;
use core::time::Duration;

use crate::http::Status;

/// What an attempt is limited to, and how many there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Further attempts after one that got no answer. Independent of throttling.
    pub retries: u32,
    /// The limit of one attempt: connect, TLS, request and the whole answer.
    pub timeout: Duration,
    /// No attempt starts later than this after the first one.
    pub total: Duration,
}

impl Policy {
    /// The limit of one attempt when nothing else is configured (`cloud_timeout_sec`).
    pub const CLOUD_TIMEOUT: Duration = Duration::from_secs(70);

    /// The limit of one attempt towards a sibling service, and of one poll of a registration.
    pub const SHORT_TIMEOUT: Duration = Duration::from_secs(30);

    /// Longer than the whole throttling schedule with its attempts, so that it only ends what `Retry-After` prolongs.
    pub const TOTAL: Duration = Duration::from_secs(30 * 60);

    /// For a request to a cloud service; `cloud_retries` and `cloud_timeout_sec` of the configuration.
    pub const fn cloud(retries: u32, timeout: Duration) -> Self {
        Self {
            retries,
            timeout,
            total: Self::TOTAL,
        }
    }

    /// For a request to a sibling service.
    pub const fn sibling(retries: u32) -> Self {
        Self {
            retries,
            timeout: Self::SHORT_TIMEOUT,
            total: Self::TOTAL,
        }
    }
}

/// The pause after an attempt that got no answer.
pub const FAILURE_PAUSE: Duration = Duration::from_secs(3);

/// Attempts after which throttling is final.
pub const THROTTLED_ATTEMPTS: u32 = 5;

/// The longest pause that a server's `Retry-After` can bring about.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Pauses after the first, second, … throttled attempt, and the width of the random part that is added to each, in seconds.
const THROTTLE_PAUSES: [(u64, u64); 4] = [(60, 10), (120, 20), (180, 30), (300, 30)];

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// With a complete answer.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
    /// Without one.
    Failed(Failure),
}

/// Why an attempt got no complete answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// The exchange broke off, or what came was not HTTP.
    Broken,
    /// No connection: no such host, refused, refused by the proxy, TLS handshake failed.
    NotConnected,
    /// The server's certificate did not verify. Counts as a network error, but must be logged as an error.
    NotTrusted,
    /// The attempt's time was up.
    TimedOut,
}

impl Failure {
    /// Whether this is the network's fault, so that what is known from before may be used meanwhile.
    pub const fn is_network(self) -> bool {
        match self {
            Self::NotConnected | Self::NotTrusted | Self::TimedOut => true,
            Self::Broken => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the connection broke off during the exchange",
            Self::NotConnected => "could not connect",
            Self::NotTrusted => "the server certificate is not trusted",
            Self::TimedOut => "deadline has elapsed",
        })
    }
}

impl core::error::Error for Failure {}

/// Whether an answer with this status says that the way to the service, or the service, is out of order for now.
pub const fn is_network_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// Why a service counts as out of reach, small enough to be kept and told to everyone who asks meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NetworkCause {
    /// A parent gateway says that it cannot reach the service.
    Gateway,
    /// There was no answer.
    NoAnswer(GaveUp),
    /// An HTTP status that says so.
    Status(u16),
}

impl fmt::Display for NetworkCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the parent gateway cannot reach the service"),
            Self::NoAnswer(gave_up) => gave_up.fmt(f),
            Self::Status(status) => write!(f, "HTTP error {}", Status(*status)),
        }
    }
}

impl core::error::Error for NetworkCause {}

/// Growing pauses between attempts that may go on for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses that begin with `first` and double up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The pause after one more failure: the next in the row and up to a quarter more, by the fresh random number `random`.
    pub fn failed(&mut self, random: u32) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let pause = self.first.saturating_mul(factor).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        pause.saturating_add((pause / (1 << 18)).saturating_mul(random >> 16))
    }

    /// Begins anew.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// A complete answer, as a protocol's state machine takes it.
#[derive(Debug)]
pub struct Answer<'b> {
    /// The HTTP status.
    pub status: u16,
    /// Whether the body is JSON: the content type says so, or there is none.
    pub json: bool,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The whole body. It is decoded in place.
    pub body: &'b mut [u8],
}

/// The attempts of one request.
#[derive(Clone, Debug)]
pub struct Attempts {
    policy: Policy,
    // Counted from 1; the number of the attempt under way.
    attempt: u32,
}

impl Attempts {
    /// Before the first attempt.
    pub const fn new(policy: Policy) -> Self {
        Self { policy, attempt: 1 }
    }

    /// The number of the attempt under way, from 1.
    pub const fn number(&self) -> u32 {
        self.attempt
    }

    /// What to do after an attempt.
    ///
    /// `elapsed` is the time since the first attempt began; `random` is a fresh random number, uniform over its range.
    pub fn after(&mut self, ended: Attempt, elapsed: Duration, random: u32) -> Next {
        let attempt = self.attempt;
        let (pause, reason) = match ended {
            Attempt::Answered {
                status: 429,
                retry_after,
            } => {
                let schedule = usize::try_from(attempt)
                    .ok()
                    .and_then(|attempt| THROTTLE_PAUSES.get(attempt.checked_sub(1)?));
                let Some((base, jitter)) = schedule else {
                    return Next::GiveUp(GaveUp::Throttled);
                };
                let jitter = Duration::from_secs(*jitter).saturating_mul(random >> 16) / (1 << 16);
                let pause = Duration::from_secs(*base).saturating_add(jitter);
                (
                    pause.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER)),
                    PauseReason::Throttled,
                )
            }
            Attempt::Answered { .. } => return Next::UseAnswer,
            Attempt::Failed(failure) => {
                if attempt > self.policy.retries {
                    return Next::GiveUp(GaveUp::Failed(failure));
                }
                let of = self.policy.retries.saturating_add(1);
                (FAILURE_PAUSE, PauseReason::Failed { failure, of })
            }
        };
        if elapsed.saturating_add(pause) > self.policy.total {
            return Next::GiveUp(match reason {
                PauseReason::Failed { failure, .. } => GaveUp::Failed(failure),
                PauseReason::Throttled => GaveUp::Throttled,
            });
        }
        self.attempt = attempt.saturating_add(1);
        Next::Pause(Pause {
            length: pause,
            attempt,
            reason,
        })
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Stop; there is no answer to use.
    GiveUp(GaveUp),
    /// Try again after a pause.
    Pause(Pause),
    /// The answer stands, whatever its status.
    UseAnswer,
}

/// A pause before the next attempt. Its text is what the log says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pause {
    /// How long.
    pub length: Duration,
    /// The number of the attempt that ended.
    pub attempt: u32,
    /// Why.
    pub reason: PauseReason,
}

/// The reason for a [`Pause`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PauseReason {
    /// There was no answer.
    Failed {
        /// Why.
        failure: Failure,
        /// How many attempts there will be at most.
        of: u32,
    },
    /// The server is throttling (status 429).
    Throttled,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.attempt;
        match self.reason {
            PauseReason::Failed { failure, of } => {
                write!(
                    f,
                    "Failed to send HTTP request (attempt {attempt} of {of}): {failure}"
                )
            }
            PauseReason::Throttled => write!(
                f,
                "HTTP request throttled (attempt {attempt} of {THROTTLED_ATTEMPTS}). Sleeping for {} seconds.",
                self.length.as_secs()
            ),
        }
    }
}

/// Why there will be no further attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum GaveUp {
    /// No attempt got an answer; this is how the last one failed.
    Failed(Failure),
    /// The server went on throttling.
    Throttled,
}

impl GaveUp {
    /// Whether this is the network's fault.
    pub const fn is_network(self) -> bool {
        match self {
            Self::Failed(failure) => failure.is_network(),
            Self::Throttled => true,
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Throttled => f.write_str("429: Too many requests"),
        }
    }
}

impl core::error::Error for GaveUp {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOO_MANY: Attempt = Attempt::Answered {
        status: 429,
        retry_after: None,
    };

    fn attempts(retries: u32) -> Attempts {
        Attempts::new(Policy::cloud(retries, Policy::CLOUD_TIMEOUT))
    }

    fn pause(next: Next) -> Pause {
        match next {
            Next::Pause(pause) => pause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn is_48_hc_03_throttling_schedule() {
        for (random, expected) in [
            (0, [60_000, 120_000, 180_000, 300_000]),
            (u32::MAX, [69_999, 139_999, 209_999, 329_999]),
        ] {
            // Independent of the configured number of retries.
            let mut attempts = attempts(0);
            for (number, millis) in (1..).zip(expected) {
                let pause = pause(attempts.after(TOO_MANY, Duration::ZERO, random));
                assert_eq!(pause.attempt, number);
                assert_eq!(pause.length.as_millis(), millis);
            }
            assert_eq!(attempts.number(), 5);
            let last = attempts.after(TOO_MANY, Duration::ZERO, random);
            assert_eq!(last, Next::GiveUp(GaveUp::Throttled));
        }
        assert_eq!(GaveUp::Throttled.to_string(), "429: Too many requests");
        let first = pause(attempts(1).after(TOO_MANY, Duration::ZERO, 0));
        assert_eq!(
            first.to_string(),
            "HTTP request throttled (attempt 1 of 5). Sleeping for 60 seconds."
        );
    }

    #[test]
    fn retry_after_is_a_lower_bound_within_a_range() {
        let after = |seconds| {
            let ended = Attempt::Answered {
                status: 429,
                retry_after: Some(Duration::from_secs(seconds)),
            };
            pause(attempts(1).after(ended, Duration::ZERO, 0))
                .length
                .as_secs()
        };
        assert_eq!((after(1), after(90), after(1_000_000)), (60, 90, 600));
    }

    #[test]
    fn is_48_hc_02_failures_are_retried_and_statuses_are_not() {
        let failed = Attempt::Failed(Failure::NotConnected);
        let mut two = attempts(1);
        let first = pause(two.after(failed, Duration::ZERO, 7));
        assert_eq!(first.length, Duration::from_secs(3));
        assert_eq!(
            first.to_string(),
            "Failed to send HTTP request (attempt 1 of 2): could not connect"
        );
        assert_eq!(
            two.after(failed, Duration::ZERO, 7),
            Next::GiveUp(GaveUp::Failed(Failure::NotConnected))
        );
        assert!(matches!(
            attempts(0).after(failed, Duration::ZERO, 7),
            Next::GiveUp(_)
        ));
        for status in [200, 202, 204, 302, 400, 401, 404, 408, 500, 502, 503, 504] {
            let ended = Attempt::Answered {
                status,
                retry_after: Some(Duration::from_secs(1)),
            };
            assert_eq!(attempts(9).after(ended, Duration::ZERO, 0), Next::UseAnswer);
        }
    }

    #[test]
    fn the_counter_is_shared() {
        let mut attempts = attempts(3);
        pause(attempts.after(Attempt::Failed(Failure::TimedOut), Duration::ZERO, 0));
        pause(attempts.after(Attempt::Failed(Failure::TimedOut), Duration::ZERO, 0));
        assert_eq!(
            pause(attempts.after(TOO_MANY, Duration::ZERO, 0))
                .length
                .as_secs(),
            180
        );
    }

    #[test]
    fn no_attempt_starts_after_the_total() {
        let late = Policy::TOTAL - Duration::from_secs(2);
        let failed = Attempt::Failed(Failure::TimedOut);
        assert_eq!(
            attempts(9).after(failed, late, 0),
            Next::GiveUp(GaveUp::Failed(Failure::TimedOut))
        );
        assert_eq!(
            attempts(9).after(TOO_MANY, late, 0),
            Next::GiveUp(GaveUp::Throttled)
        );
        assert!(matches!(
            attempts(9).after(failed, late - Duration::from_secs(1), 0),
            Next::Pause(_)
        ));
    }

    #[test]
    fn hc_04_is_50_network_errors() {
        for (failure, network, text) in [
            (Failure::NotConnected, true, "could not connect"),
            (Failure::TimedOut, true, "deadline has elapsed"),
            (
                Failure::NotTrusted,
                true,
                "the server certificate is not trusted",
            ),
            (
                Failure::Broken,
                false,
                "the connection broke off during the exchange",
            ),
        ] {
            assert_eq!(
                (failure.is_network(), failure.to_string().as_str()),
                (network, text)
            );
            assert_eq!(GaveUp::Failed(failure).is_network(), network);
        }
        assert!(GaveUp::Throttled.is_network());
        for (status, network) in [
            (408, true),
            (429, true),
            (500, true),
            (503, true),
            (599, true),
            (400, false),
            (401, false),
            (404, false),
            (200, false),
        ] {
            assert_eq!(is_network_status(status), network, "{status}");
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
        let pauses: Vec<u64> = (0..9).map(|_| backoff.failed(0).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        for _ in 0..40 {
            let pause = backoff.failed(u32::MAX);
            assert!(
                pause > Duration::from_secs(374) && pause < Duration::from_secs(375),
                "{pause:?}"
            );
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(0), Duration::from_secs(5));
        assert_eq!(backoff.failures(), 1);
    }

    proptest! {
        #[test]
        fn hc_03_pauses_lie_in_their_ranges(random: u32) {
            let mut attempts = attempts(0);
            for (base, width) in THROTTLE_PAUSES {
                let length = pause(attempts.after(TOO_MANY, Duration::ZERO, random)).length;
                prop_assert!(length >= Duration::from_secs(base) && length < Duration::from_secs(base + width));
            }
        }
    }
}
