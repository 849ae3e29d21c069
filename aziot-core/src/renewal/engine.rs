//! All certificates of a service: which is due, and what a success or a failure leads to (certificates-service 8.3 to 8.5).

use core::fmt;

use heapless::Vec;

use super::policy::AutoRenew;
use super::schedule::{self, FLOOR, Schedule};
use super::{Failure, Id, Leaf, Message, Standing};

/// The certificates that a service renews, at most `N`.
///
/// It lives where the service's state lives and is never held through a renewal: [`due`](Self::due) and
/// [`get`](Self::get) hand a certificate out, whoever renews it works on a copy of its [`Entry`], and
/// [`renewed`](Self::renewed) or [`failed`](Self::failed) takes the end in. Several may be under way at once, each
/// certificate only once.
///
/// Times follow the wall clock. Call [`due`](Self::due) until it has nothing more whenever [`wake`](Self::wake) says, and
/// after each step of the wall clock, each suspension, and each call that changed something. A clock that goes back
/// does not put an attempt off: none stays further away than the threshold, or than one retry period.
#[derive(Clone, Debug)]
pub struct Engine<const N: usize> {
    entries: Vec<Entry, N>,
    earliest: i64,
}

/// One certificate of an [`Engine`].
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub id: Id,
    /// When to renew it, and whether with a new key.
    pub policy: AutoRenew,
    /// The certificate that is in force.
    pub leaf: Leaf,
    /// What the store may hold instead, after [`Failure::Unfinished`].
    pub pending: Option<Leaf>,
    /// Attempts that have failed since the last success.
    pub failures: u32,
    next: i64,
    /// When the last attempt ended.
    attempted: Option<i64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Idle,
    Renewing(Occasion),
    Dropped {
        /// The certificate had expired by the clock of that time.
        expired: bool,
    },
}

/// What made somebody renew a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Occasion {
    /// It was due when it was added.
    Added,
    /// Somebody needed it.
    Requested,
    /// Its time had come.
    Scheduled,
}

/// What became of a certificate that was added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Added {
    /// It is due: renew it now, and tell the end.
    Due,
    /// It will be renewed at `next`.
    Scheduled {
        /// Seconds since 1970.
        next: i64,
    },
    /// The clock is not set. What is to be done is decided when it is.
    WaitingForTime,
}

/// Why a certificate was not added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AddError {
    /// There are as many as the engine has room for.
    Full {
        /// How many that is.
        limit: usize,
    },
    /// A certificate of this id is being renewed.
    UnderWay,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { limit } => write!(
                f,
                "no more than {limit} certificates can be renewed automatically; let several of them use one identity"
            ),
            Self::UnderWay => {
                f.write_str("it is being renewed at this moment; wait for the end of that")
            }
        }
    }
}

impl core::error::Error for AddError {}

/// What somebody who needs a certificate has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Get {
    /// Renew it first, and tell the end. Until then it is handed out to nobody else.
    Due,
    /// Use it.
    Fresh,
    /// It is being renewed already: wait for the end of that, or use the old one if that is `usable`.
    Renewing {
        /// The old one has not expired.
        usable: bool,
    },
    /// It is not among the certificates here, or has been dropped.
    Unknown,
    /// The clock is not set, so whether it has expired is not known. Nothing is renewed.
    WaitingForTime,
}

/// What the end of a renewal leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Outcome {
    /// It is not renewed any more until it is added again.
    Dropped {
        /// What had made somebody renew it.
        occasion: Occasion,
    },
    /// It was renewed, and will be again at `next`.
    Renewed {
        /// Seconds since 1970.
        next: i64,
    },
    /// The next attempt is at `next`.
    Retry {
        /// Seconds since 1970.
        next: i64,
        /// What had made somebody renew it.
        occasion: Occasion,
        /// The old certificate has not expired and can be used until then.
        usable: bool,
    },
    /// No such certificate is being renewed: it has been forgotten meanwhile.
    Unknown,
}

impl Outcome {
    /// What the log says of a failure. `writing` tells that the new certificate was there and could not be stored.
    ///
    /// None if the renewal has not failed. The second line is for a certificate that has expired.
    pub fn messages<'a>(
        self,
        id: &'a str,
        reason: &'a dyn fmt::Display,
        writing: bool,
    ) -> [Option<Message<'a>>; 2] {
        match self {
            Self::Renewed { .. } | Self::Unknown => [None, None],
            Self::Dropped { occasion } => {
                let message = match (occasion, writing) {
                    (Occasion::Scheduled, _) => Message::Dropped { id, reason },
                    (_, false) => Message::FailedAtStart { id, reason },
                    (_, true) => Message::NotWrittenAtStart { id, reason },
                };
                [Some(message), None]
            }
            Self::Retry {
                next,
                occasion,
                usable,
            } => match (occasion, writing) {
                (Occasion::Scheduled, _) => [Some(Message::Retrying { id, reason, next }), None],
                (_, writing) => {
                    let message = if writing {
                        Message::NotWritten { id, reason }
                    } else {
                        Message::KeptOld { id, reason }
                    };
                    let expired = (!usable).then_some(Message::Expired { id });
                    [Some(message), expired]
                }
            },
        }
    }
}

/// How a certificate is getting on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// It is not renewed any more: a renewal failed for good.
    Dropped,
    /// It is being renewed.
    Renewing,
    /// The last attempt failed; there will be another.
    Retrying,
    /// Its time has not come.
    Scheduled,
    /// The clock is not set, so nothing is renewed.
    WaitingForTime,
}

impl State {
    /// The word for it in a status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Renewing => "renewing",
            Self::Retrying => "retrying",
            Self::Scheduled => "scheduled",
            Self::WaitingForTime => "waiting-for-time",
        }
    }
}

impl<const N: usize> Engine<N> {
    /// Without certificates, and with a clock that is always right.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            earliest: i64::MIN,
        }
    }

    /// Takes a clock for not set as long as it is before `earliest`, see [`crate::clock`]. Nothing is due until then.
    pub const fn set_earliest(&mut self, earliest: i64) {
        self.earliest = earliest;
    }

    /// Whether the clock is set.
    pub const fn is_plausible(&self, now: i64) -> bool {
        now >= self.earliest
    }

    /// Watches a certificate from now on. What was known under this id is forgotten.
    ///
    /// # Errors
    /// There is no room, or a certificate of this id is being renewed.
    pub fn add(
        &mut self,
        id: Id,
        policy: AutoRenew,
        leaf: Leaf,
        now: i64,
    ) -> Result<Added, AddError> {
        if let Some(entry) = self.entry(id)
            && matches!(entry.phase, Phase::Renewing(_))
        {
            return Err(AddError::UnderWay);
        }
        self.forget(id);
        let mut entry = Entry {
            id,
            policy,
            leaf,
            pending: None,
            failures: 0,
            next: 0,
            attempted: None,
            phase: Phase::Idle,
        };
        let added = if !self.is_plausible(now) {
            entry.next = entry.natural();
            Added::WaitingForTime
        } else if entry.is_due(now) {
            entry.next = now;
            entry.phase = Phase::Renewing(Occasion::Added);
            Added::Due
        } else {
            entry.next = entry.scheduled(now).unwrap_or(now);
            Added::Scheduled { next: entry.next }
        };
        if self.entries.is_full() {
            // What has been dropped is kept for the status only.
            let dropped = |entry: &Entry| matches!(entry.phase, Phase::Dropped { .. });
            if let Some(at) = self.entries.iter().position(dropped) {
                self.entries.remove(at);
            }
        }
        match self.entries.push(entry) {
            Ok(()) => Ok(added),
            Err(_) => Err(AddError::Full { limit: N }),
        }
    }

    /// Hands out the certificate that is due for the longest time; none if none is, or the clock is not set.
    ///
    /// Renew it and tell the end with [`renewed`](Self::renewed) or [`failed`](Self::failed).
    pub fn due(&mut self, now: i64) -> Option<Id> {
        if !self.is_plausible(now) {
            return None;
        }
        self.entries.iter_mut().for_each(|entry| entry.settle(now));
        let (_, entry) = self
            .entries
            .iter_mut()
            .filter_map(|entry| Some((entry.next(now)?, entry)))
            .filter(|(next, _)| *next <= now)
            .min_by_key(|(next, _)| *next)?;
        entry.phase = Phase::Renewing(Occasion::Scheduled);
        Some(entry.id)
    }

    /// What somebody who needs a certificate has to do.
    ///
    /// So that many callers do not make many attempts, a certificate that is still valid counts as fresh for a while after
    /// an attempt: for [`FLOOR`] after one that failed, until its next renewal after one that succeeded.
    pub fn get(&mut self, id: Id, now: i64) -> Get {
        let plausible = self.is_plausible(now);
        let Some(entry) = self.entry_mut(id) else {
            return Get::Unknown;
        };
        if let Phase::Renewing(_) = entry.phase {
            let usable = !entry.leaf.has_expired(now);
            return Get::Renewing { usable };
        }
        if entry.next(now).is_none() {
            return Get::Unknown;
        }
        if !plausible {
            return Get::WaitingForTime;
        }
        let wanted = entry.is_due(now) || entry.pending.is_some();
        if !wanted || entry.is_held(now) {
            return Get::Fresh;
        }
        entry.phase = Phase::Renewing(Occasion::Requested);
        Get::Due
    }

    /// A renewal has ended well: `leaf` is stored, and its key is where it belongs.
    ///
    /// `random` is a fresh random number, for a certificate that is due again already.
    pub fn renewed(&mut self, id: Id, leaf: Leaf, now: i64, random: u32) -> Outcome {
        let Some((entry, _)) = self.under_way(id) else {
            return Outcome::Unknown;
        };
        entry.leaf = leaf;
        entry.pending = None;
        entry.failures = 0;
        entry.attempted = Some(now);
        entry.phase = Phase::Idle;
        let threshold = entry.natural();
        entry.next = if now < threshold {
            threshold.max(now.saturating_add(entry.floor()))
        } else {
            now.saturating_add(entry.pause(random))
        };
        Outcome::Renewed { next: entry.next }
    }

    /// A renewal has failed. `random` is a fresh random number.
    pub fn failed(&mut self, id: Id, failure: Failure, now: i64, random: u32) -> Outcome {
        let Some((entry, occasion)) = self.under_way(id) else {
            return Outcome::Unknown;
        };
        entry.failures = entry.failures.saturating_add(1);
        entry.attempted = Some(now);
        entry.phase = Phase::Idle;
        let expired = entry.leaf.has_expired(now);
        match failure {
            Failure::Fatal => {
                entry.phase = Phase::Dropped { expired };
                return Outcome::Dropped { occasion };
            }
            // A valid certificate that somebody needed keeps its place, unless this attempt took that place.
            Failure::Retryable
                if occasion == Occasion::Requested && !expired && entry.next > now => {}
            Failure::Retryable => entry.next = now.saturating_add(entry.pause(random)),
            Failure::Unfinished(leaf) => {
                entry.pending = Some(leaf);
                entry.next = now.saturating_add(entry.short_pause(random));
            }
        }
        Outcome::Retry {
            next: entry.next,
            occasion,
            usable: !expired,
        }
    }

    /// A certificate cannot be renewed any more, for a reason that did not show in a renewal.
    pub fn give_up(&mut self, id: Id, now: i64) {
        if let Some(entry) = self.entry_mut(id) {
            let expired = entry.leaf.has_expired(now);
            entry.phase = Phase::Dropped { expired };
        }
    }

    /// Forgets a certificate. The end of a renewal that is under way will be [`Outcome::Unknown`].
    pub fn forget(&mut self, id: Id) {
        self.entries.retain(|entry| entry.id != id);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// What is known of a certificate. Copy it for whoever renews it.
    pub fn entry(&self, id: Id) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// All certificates in the order they were added, dropped ones included.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How a certificate is getting on.
    pub fn state(&self, entry: &Entry, now: i64) -> State {
        match entry.phase {
            Phase::Renewing(_) => State::Renewing,
            _ if entry.next(now).is_none() => State::Dropped,
            _ if !self.is_plausible(now) => State::WaitingForTime,
            _ if entry.failures > 0 => State::Retrying,
            _ => State::Scheduled,
        }
    }

    /// Whether no certificate is left that will be renewed.
    pub fn is_idle(&self) -> bool {
        !self
            .entries
            .iter()
            .any(|entry| !matches!(entry.phase, Phase::Dropped { .. }))
    }

    /// When to ask for [`due`](Self::due) again; none if nothing waits for its time. May be past.
    pub fn wake(&self, now: i64) -> Option<i64> {
        let next = self
            .entries
            .iter()
            .filter_map(|entry| entry.next(now))
            .min()?;
        Some(if self.is_plausible(now) {
            next
        } else {
            next.max(self.earliest)
        })
    }

    fn entry_mut(&mut self, id: Id) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    fn under_way(&mut self, id: Id) -> Option<(&mut Entry, Occasion)> {
        let entry = self.entry_mut(id)?;
        match entry.phase {
            Phase::Renewing(occasion) => Some((entry, occasion)),
            Phase::Idle | Phase::Dropped { .. } => None,
        }
    }
}

impl<const N: usize> Default for Engine<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    /// When the next attempt will be made, as things stand; none while one is under way, and for what has been dropped.
    pub fn next(&self, now: i64) -> Option<i64> {
        match self.phase {
            Phase::Renewing(_) => None,
            Phase::Idle => {
                let natural = self.natural();
                let (usual, furthest) = if now < natural {
                    let first = natural.max(now.saturating_add(self.floor()));
                    (first, first)
                } else {
                    let retry = self.retry();
                    let longest = schedule::longest(retry);
                    (now.saturating_add(retry), now.saturating_add(longest))
                };
                // Beyond that, it was scheduled by a clock that has gone back since.
                Some(if self.next > furthest {
                    usual
                } else {
                    self.next
                })
            }
            // It had expired by a clock that was wrong.
            Phase::Dropped { expired: true } if !self.leaf.has_expired(now) => Some(self.natural()),
            Phase::Dropped { .. } => None,
        }
    }

    /// Makes what [`next`](Self::next) says last, so that it does not move along with the clock.
    fn settle(&mut self, now: i64) {
        if let Some(next) = self.next(now) {
            self.next = next;
            self.phase = Phase::Idle;
        }
    }

    /// How a certificate that was read from the store stands to this one, which somebody has been told to renew.
    pub fn standing(&self, leaf: &Leaf, now: i64) -> Standing {
        let remembered = leaf.digest == self.leaf.digest;
        if !remembered
            && self
                .pending
                .is_none_or(|pending| leaf.digest != pending.digest)
        {
            Standing::Changed
        } else if leaf.has_expired(now) {
            Standing::Expired
        } else if remembered || self.policy.is_due(leaf, now) {
            Standing::Due
        } else {
            Standing::Current
        }
    }

    fn is_due(&self, now: i64) -> bool {
        self.policy.is_due(&self.leaf, now)
    }

    /// There has just been an attempt, and there is something to use meanwhile.
    fn is_held(&self, now: i64) -> bool {
        let Some(ended) = self.attempted else {
            return false;
        };
        let until = if self.failures == 0 {
            self.next
        } else {
            ended.saturating_add(self.floor())
        };
        !self.leaf.has_expired(now) && now >= ended && now < until
    }

    /// The threshold. A certificate that is never valid has passed it.
    fn natural(&self) -> i64 {
        let Leaf {
            not_before,
            not_after,
            ..
        } = self.leaf;
        if not_before >= not_after {
            return i64::MIN;
        }
        schedule::threshold(self.policy.threshold, not_before, not_after)
    }

    fn scheduled(&self, now: i64) -> Option<i64> {
        Schedule::new(&self.policy, self.leaf.not_before, self.leaf.not_after, now)
            .ok()
            .map(|schedule| schedule.next)
    }

    fn floor(&self) -> i64 {
        schedule::floor(schedule::lifetime(
            self.leaf.not_before,
            self.leaf.not_after,
        ))
    }

    fn retry(&self) -> i64 {
        schedule::retry(self.policy.retry, self.leaf.not_before, self.leaf.not_after)
    }

    /// Seconds until the next attempt.
    fn pause(&self, random: u32) -> i64 {
        schedule::jittered(self.retry(), self.floor(), random)
    }

    /// Seconds until the next attempt when a certificate may be without its key until then.
    fn short_pause(&self, random: u32) -> i64 {
        let doubled = FLOOR << self.failures.saturating_sub(1).min(16);
        schedule::jittered(self.retry().min(doubled), self.floor(), random)
    }
}

impl AutoRenew {
    /// Whether a certificate should be renewed now: its threshold has passed, it has expired, or it is never valid.
    pub fn is_due(&self, leaf: &Leaf, now: i64) -> bool {
        schedule::is_due(self.threshold, leaf.not_before, leaf.not_after, now)
    }
}
