mod engine;
mod rotation;
mod schedule;
mod texts;
mod year;

use super::policy::{AutoRenew, Policy};
use super::{Leaf, Schedule};

pub(super) const DAY: i64 = 86_400;

pub(super) fn policy(threshold: &str, retry: &str) -> AutoRenew {
    // Seconds are for tests only: no setting can say them.
    let policy = |text: &str| match text.strip_suffix('s') {
        Some(seconds) => Policy::Seconds(seconds.parse().unwrap()),
        None => text.parse().unwrap(),
    };
    AutoRenew {
        rotate_key: true,
        threshold: policy(threshold),
        retry: policy(retry),
    }
}

/// A leaf whose digest follows from its dates.
pub(super) fn leaf(not_before: i64, not_after: i64) -> Leaf {
    Leaf::new(
        not_before,
        not_after,
        format!("{not_before}/{not_after}").as_bytes(),
    )
}

pub(super) fn schedule(policy: &AutoRenew, leaf: Leaf, now: i64) -> Schedule {
    Schedule::new(policy, leaf.not_before, leaf.not_after, now).unwrap()
}
