use proptest::prelude::*;

use super::super::policy::{AutoRenew, Policy};
use super::super::schedule::{floor, jittered, lifetime};
use super::super::{FLOOR, Invalid, Leaf, Schedule};
use super::{DAY, leaf, policy};

#[test]
fn cs_41_initial_times() {
    for (not_before, not_after, now, threshold, retry, next, period) in [
        (0, 2_592_000, 0, "80%", "4%", 2_073_600, 103_680),
        (0, 7_776_000, 0, "80%", "4%", 6_220_800, 311_040),
        (0, 101, 0, "80%", "4%", 80, 4),
        (0, 50, 0, "80%", "1%", 40, 1),
        (0, 20, 0, "50%", "10%", 10, 2),
        (-90, 10, 0, "80%", "4%", 4, 4),
        (-60, 40, 0, "50%", "4%", 4, 4),
        (-5, 5, 0, "60%", "20%", 1, 2),
        (-5, 5, 0, "1s", "1s", 4, 1),
        (-20, 180, 0, "80%", "4%", 140, 8),
        (0, 30 * DAY, 0, "10day", "60min", 1_728_000, 3600),
        (0, 30 * DAY, 0, "40day", "30min", 1800, 1800),
    ] {
        assert_eq!(
            Schedule::new(&policy(threshold, retry), not_before, not_after, now),
            Ok(Schedule {
                next,
                retry: period
            }),
            "{not_before}, {not_after}, {now}, {threshold}, {retry}"
        );
    }
}

#[test]
fn cs_41_there_is_no_schedule_for_what_is_not_valid() {
    for (not_before, not_after, now, error) in [
        (-100, -1, 0, Invalid::Expired),
        (5, 1, 0, Invalid::Dates),
        (5, 5, 0, Invalid::Dates),
        // "Past" is inclusive.
        (-100, 0, 0, Invalid::Expired),
    ] {
        for policy in [policy("80%", "4%"), policy("10day", "60min")] {
            assert_eq!(
                Schedule::new(&policy, not_before, not_after, now),
                Err(error)
            );
        }
    }
    assert_eq!(
        Invalid::Dates.to_string(),
        "cert not_before is not before not_after"
    );
    assert_eq!(
        Invalid::Expired.to_string(),
        "cannot calculate initial renewal time for expired cert"
    );
}

#[test]
fn cs_41_due_now() {
    for (not_before, not_after, now, threshold, due) in [
        (0, 101, 80, "80%", false),
        (0, 101, 81, "80%", true),
        (0, 100, 79, "80%", false),
        (0, 100, 80, "80%", true),
        (10, 110, 5, "1%", false),
        (0, 100, 89, "10s", false),
        (0, 100, 90, "10s", true),
        (5, 1, 0, "99%", true),
        // Expired, inclusive.
        (0, 100, 100, "99%", true),
        (0, 100, 99, "99%", true),
        (0, 100, 98, "99%", false),
    ] {
        assert_eq!(
            policy(threshold, "4%").is_due(&leaf(not_before, not_after), now),
            due,
            "{not_before}, {not_after}, {now}, {threshold}"
        );
    }
}

#[test]
fn cs_41_past_is_inclusive() {
    let policy = policy("80%", "4%");
    let next = |now| Schedule::new(&policy, 0, 100, now).map(|schedule| schedule.next);
    assert_eq!(
        [next(79), next(80), next(81), next(99), next(100)],
        [Ok(80), Ok(84), Ok(85), Ok(103), Err(Invalid::Expired)]
    );
}

#[test]
fn retries_of_long_lived_certificates_have_a_floor() {
    let retry = |lifetime| {
        Schedule::new(&policy("80%", "1%"), 0, lifetime, 0)
            .unwrap()
            .retry
    };
    assert_eq!(
        [
            retry(1),
            retry(3599),
            retry(3600),
            retry(5999),
            retry(6000),
            retry(6100)
        ],
        [1, 35, FLOOR, FLOOR, FLOOR, 61]
    );
}

#[test]
fn jitter_is_a_tenth_at_most() {
    let period = 103_680;
    assert_eq!(jittered(period, FLOOR, 0), period);
    assert_eq!(jittered(period, FLOOR, 1 << 31), period - period / 10);
    assert_eq!(
        jittered(period, FLOOR, i32::MAX.cast_unsigned()),
        period + period / 10 - 1
    );
    assert_eq!(jittered(9, 1, 1 << 31), 9);
    assert_eq!(jittered(FLOOR, FLOOR, 1 << 31), FLOOR);
}

/// The formulas of the specification, word for word, with numbers that cannot overflow.
mod model {
    use super::{Leaf, Policy};

    pub fn next(threshold: Policy, retry: i64, leaf: &Leaf, now: i64) -> i128 {
        let (not_before, not_after) = (i128::from(leaf.not_before), i128::from(leaf.not_after));
        let lifetime = not_after - not_before;
        let next = match threshold {
            Policy::Percentage(p) => not_after - (lifetime - lifetime * i128::from(p) / 100),
            Policy::Seconds(s) => not_after - i128::from(s),
        };
        if i128::from(now) >= next {
            i128::from(now) + i128::from(retry)
        } else {
            next
        }
    }

    pub fn retry(retry: Policy, leaf: &Leaf) -> i128 {
        let lifetime = i128::from(leaf.not_after) - i128::from(leaf.not_before);
        let seconds = match retry {
            Policy::Percentage(p) => lifetime * i128::from(p) / 100,
            Policy::Seconds(s) => i128::from(s),
        };
        seconds.max(if lifetime >= 3600 { 60 } else { 1 })
    }

    pub fn is_due(threshold: Policy, leaf: &Leaf, now: i64) -> bool {
        let (not_before, not_after) = (i128::from(leaf.not_before), i128::from(leaf.not_after));
        let now = i128::from(now);
        if not_before >= not_after || now >= not_after {
            return true;
        }
        match threshold {
            Policy::Percentage(p) => {
                (now - not_before) * 100 / (not_after - not_before) >= i128::from(p)
            }
            Policy::Seconds(s) => not_after - now <= i128::from(s),
        }
    }
}

fn any_policy() -> impl Strategy<Value = AutoRenew> {
    let one = || {
        prop_oneof![
            (1_u8..100).prop_map(Policy::Percentage),
            (1_i64..1000).prop_map(|minutes| Policy::Seconds(minutes * 60)),
            (1_i64..i64::MAX).prop_map(Policy::Seconds),
        ]
    };
    (any::<bool>(), one(), one()).prop_map(|(rotate_key, threshold, retry)| AutoRenew {
        rotate_key,
        threshold,
        retry,
    })
}

/// Times that X.509 and clocks can have, and all others.
fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        -1000_i64..1000,
        -10_000_000_000_i64..260_000_000_000,
        any::<i64>(),
        Just(i64::MIN),
        Just(i64::MAX),
    ]
}

proptest! {
    #[test]
    fn cs_41_the_arithmetic_is_that_of_the_specification(
        policy in any_policy(),
        not_before in -62_167_219_200_i64..253_402_300_800,
        lifetime in 1_i64..400_000_000_000,
        elapsed in -400_000_000_000_i64..400_000_000_000,
    ) {
        let leaf = leaf(not_before, not_before + lifetime);
        let now = not_before + elapsed;
        prop_assert_eq!(
            policy.is_due(&leaf, now),
            model::is_due(policy.threshold, &leaf, now)
        );
        let got = Schedule::new(&policy, leaf.not_before, leaf.not_after, now);
        if elapsed >= lifetime {
            prop_assert_eq!(got, Err(Invalid::Expired));
        } else {
            let Schedule { next, retry } = got.unwrap();
            prop_assert_eq!(i128::from(retry), model::retry(policy.retry, &leaf));
            let expected = model::next(policy.threshold, retry, &leaf, now).min(i64::MAX.into());
            prop_assert_eq!(i128::from(next), expected);
        }
    }

    #[test]
    fn no_time_is_too_much(
        policy in any_policy(), not_before in any_time(), not_after in any_time(), now in any_time(),
    ) {
        policy.is_due(&leaf(not_before, not_after), now);
        if let Ok(Schedule { next, retry }) = Schedule::new(&policy, not_before, not_after, now) {
            prop_assert!(next > now || now == i64::MAX, "{} {}", next, now);
            prop_assert!(retry >= floor(lifetime(not_before, not_after)));
        }
    }

    #[test]
    fn the_next_attempt_never_moves_closer_as_time_goes_by(
        policy in any_policy(), not_before in any_time(), not_after in any_time(),
        one in any_time(), other in any_time(),
    ) {
        let next = |now| Schedule::new(&policy, not_before, not_after, now).map(|schedule| schedule.next);
        if let (Ok(earlier), Ok(later)) = (next(one.min(other)), next(one.max(other))) {
            prop_assert!(earlier <= later);
        }
    }

    #[test]
    fn jitter_stays_within_a_tenth(period in 1_i64..i64::MAX, random: u32) {
        let got = jittered(period, 1, random);
        prop_assert!(got >= (period - period / 10).max(1));
        prop_assert!(got <= period.saturating_add(period / 10));
        prop_assert_eq!(jittered(period, 1, 0), period);
    }
}
