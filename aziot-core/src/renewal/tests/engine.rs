use proptest::prelude::*;

use super::super::{
    AddError, Added, Engine, FLOOR, Failure, Get, Id, Leaf, Occasion, Outcome, Standing, State,
};
use super::{DAY, leaf, policy, schedule};

const A: Id = Id(1);
const B: Id = Id(2);
const C: Id = Id(3);

fn engine() -> Engine<4> {
    Engine::new()
}

fn next(engine: &Engine<4>, id: Id, now: i64) -> Option<i64> {
    engine.entry(id).and_then(|entry| entry.next(now))
}

fn state(engine: &Engine<4>, id: Id, now: i64) -> State {
    engine.state(engine.entry(id).unwrap(), now)
}

#[test]
fn cs_42_what_is_due_is_renewed_when_it_is_added() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    let old = leaf(0, 100);
    assert_eq!(engine.add(A, policy, old, 90), Ok(Added::Due));
    assert_eq!(state(&engine, A, 90), State::Renewing);
    // Handed out to nobody else meanwhile.
    assert_eq!(engine.due(i64::MAX), None);
    assert_eq!(engine.wake(90), None);
    let new = leaf(90, 190);
    assert_eq!(
        engine.renewed(A, new, 91, 0),
        Outcome::Renewed { next: 170 }
    );
    assert_eq!(engine.entry(A).unwrap().leaf, new);
    assert_eq!(state(&engine, A, 91), State::Scheduled);
}

#[test]
fn cs_42_what_is_due_and_fails_for_now_is_added_with_a_retry() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    engine.add(A, policy, leaf(0, 100), 90).unwrap();
    assert_eq!(
        engine.failed(A, Failure::Retryable, 90, 0),
        Outcome::Retry {
            next: 94,
            occasion: Occasion::Added,
            usable: true
        }
    );
    assert_eq!(next(&engine, A, 90), Some(94));
    assert_eq!(state(&engine, A, 90), State::Retrying);
}

#[test]
fn cs_42_what_has_expired_and_cannot_be_renewed_is_told() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    assert_eq!(engine.add(A, policy, leaf(0, 100), 100), Ok(Added::Due));
    // The user of the engine says that adding has failed; whether it is tried again is also up to that.
    assert_eq!(
        engine.failed(A, Failure::Retryable, 100, 0),
        Outcome::Retry {
            next: 104,
            occasion: Occasion::Added,
            usable: false
        }
    );
    engine.forget(A);
    assert_eq!(engine.get(A, 200), Get::Unknown);
    assert_eq!(engine.due(200), None);

    engine.add(A, policy, leaf(0, 100), 100).unwrap();
    assert_eq!(
        engine.failed(A, Failure::Fatal, 100, 0),
        Outcome::Dropped {
            occasion: Occasion::Added
        }
    );
    assert!(engine.is_idle());
    assert_eq!(engine.due(i64::MAX), None);
}

#[test]
fn cs_43_everything_due_is_renewed_and_the_rest_is_left() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    engine.add(A, policy, leaf(0, 100), 0).unwrap();
    engine.add(B, policy, leaf(-10, 90), 0).unwrap();
    engine.add(C, policy, leaf(0, 1000), 0).unwrap();
    assert_eq!(engine.wake(0), Some(70));
    assert_eq!(engine.due(69), None);
    // The longest overdue first, several at once, each once.
    assert_eq!(
        [engine.due(85), engine.due(85), engine.due(85)],
        [Some(B), Some(A), None]
    );
    assert_eq!(engine.wake(85), Some(800));
    assert_eq!(
        engine.renewed(A, leaf(85, 185), 86, 0),
        Outcome::Renewed { next: 165 }
    );
    assert_eq!(
        engine.renewed(B, leaf(85, 285), 87, 0),
        Outcome::Renewed { next: 245 }
    );
    assert_eq!(engine.wake(87), Some(165));
    assert_eq!(next(&engine, C, 87), Some(800));
}

#[test]
fn cs_44_a_certificate_that_somebody_replaced_is_let_go() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    let ours = leaf(0, 100);
    engine.add(A, policy, ours, 0).unwrap();
    assert_eq!(engine.due(80), Some(A));
    let entry = *engine.entry(A).unwrap();
    assert_eq!(entry.standing(&ours, 80), Standing::Due);
    assert_eq!(entry.standing(&ours, 100), Standing::Expired);
    // The same dates say nothing.
    let theirs = Leaf::new(0, 100, b"theirs");
    let standing = entry.standing(&theirs, 80);
    assert_eq!(standing, Standing::Changed);
    assert_eq!(
        standing.to_string(),
        "certificate has changed since last renewal"
    );
    assert_eq!(
        engine.failed(A, Failure::Fatal, 80, 0),
        Outcome::Dropped {
            occasion: Occasion::Scheduled
        }
    );
    assert_eq!(
        (engine.due(i64::MAX), engine.wake(80), engine.get(A, 80)),
        (None, None, Get::Unknown)
    );
    assert_eq!(state(&engine, A, 80), State::Dropped);
    // Whoever replaced it may add it again.
    assert_eq!(
        engine.add(A, policy, theirs, 20),
        Ok(Added::Scheduled { next: 80 })
    );
}

#[test]
fn cs_45_retries_and_drops() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    let month = leaf(0, 30 * DAY);
    engine.add(A, policy, month, 0).unwrap();
    let mut now = 24 * DAY;
    for attempt in 1..=10 {
        assert_eq!(engine.due(now - 1), None);
        assert_eq!(engine.due(now), Some(A));
        // An attempt takes its time; the next one counts from its end.
        now += 30;
        let Outcome::Retry {
            next,
            occasion: Occasion::Scheduled,
            usable,
        } = engine.failed(A, Failure::Retryable, now, 0)
        else {
            panic!("attempt {attempt}")
        };
        assert_eq!((next, usable), (now + 103_680, now < 30 * DAY));
        assert_eq!(engine.entry(A).unwrap().failures, attempt);
        now = next;
    }
    // In the end it works out; or not.
    assert_eq!(engine.due(now), Some(A));
    assert_eq!(
        engine.failed(A, Failure::Fatal, now, 0),
        Outcome::Dropped {
            occasion: Occasion::Scheduled
        }
    );
    assert_eq!(engine.due(i64::MAX), None);
    assert!(engine.is_idle());
}

#[test]
fn cs_45_retries_have_jitter_and_a_floor() {
    let mut engine = engine();
    let mut retry = |policy, leaf: Leaf, random| {
        let now = leaf.not_after - 1;
        engine.add(A, policy, leaf, now).unwrap();
        match engine.failed(A, Failure::Retryable, now, random) {
            Outcome::Retry { next, .. } => next - now,
            other => panic!("{other:?}"),
        }
    };
    let month = leaf(0, 30 * DAY);
    let usual = policy("80%", "4%");
    assert_eq!(retry(usual, month, 0), 103_680);
    assert_eq!(retry(usual, month, 1 << 31), 103_680 - 10_368);
    assert_eq!(retry(usual, month, (1 << 31) - 1), 103_680 + 10_367);
    let eager = policy("80%", "1min");
    assert_eq!(retry(eager, month, 1 << 31), FLOOR);
    assert_eq!(retry(eager, month, (1 << 31) - 1), 65);
    assert_eq!(retry(policy("80%", "1%"), leaf(0, 3600), 0), FLOOR);
    assert_eq!(retry(policy("50%", "10%"), leaf(0, 20), 1 << 31), 2);
}

#[test]
fn cs_46_get() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    assert_eq!(engine.get(A, 0), Get::Unknown);
    engine.add(A, policy, leaf(0, 100), 0).unwrap();
    assert_eq!(engine.get(A, 79), Get::Fresh);
    // Due: renewed and rescheduled.
    assert_eq!(engine.get(A, 80), Get::Due);
    assert_eq!(engine.get(A, 80), Get::Renewing { usable: true });
    assert_eq!(engine.get(A, 100), Get::Renewing { usable: false });
    assert_eq!(
        engine.renewed(A, leaf(80, 180), 81, 0),
        Outcome::Renewed { next: 160 }
    );
    assert_eq!(engine.get(A, 82), Get::Fresh);
    // A key that is no key ends it.
    engine.give_up(A, 82);
    assert_eq!(engine.get(A, 82), Get::Unknown);
    assert_eq!(engine.due(i64::MAX), None);
}

#[test]
fn cs_46_get_of_what_cannot_be_renewed() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    engine.add(A, policy, leaf(0, 100), 0).unwrap();
    // The schedule's attempt has failed; the next one is at 84.
    assert_eq!(engine.due(80), Some(A));
    engine.failed(A, Failure::Retryable, 80, 0);
    assert_eq!(next(&engine, A, 80), Some(84));
    // Somebody needs it: the old one can be used, and the schedule stays as it is.
    assert_eq!(engine.get(A, 82), Get::Due);
    assert_eq!(
        engine.failed(A, Failure::Retryable, 82, 0),
        Outcome::Retry {
            next: 84,
            occasion: Occasion::Requested,
            usable: true
        }
    );
    assert_eq!(next(&engine, A, 82), Some(84));
    // If the attempt took the place of the scheduled one, the next is a period later.
    assert_eq!(engine.get(A, 85), Get::Due);
    engine.failed(A, Failure::Retryable, 85, 0);
    assert_eq!(next(&engine, A, 85), Some(89));
    // Expired.
    assert_eq!(engine.get(A, 100), Get::Due);
    assert_eq!(
        engine.failed(A, Failure::Retryable, 100, 0),
        Outcome::Retry {
            next: 104,
            occasion: Occasion::Requested,
            usable: false
        }
    );
    assert_eq!(engine.get(A, 101), Get::Due);
    assert_eq!(
        engine.failed(A, Failure::Fatal, 101, 0),
        Outcome::Dropped {
            occasion: Occasion::Requested
        }
    );
    assert_eq!(engine.get(A, 102), Get::Unknown);
}

#[test]
fn cs_46_many_callers_do_not_make_many_attempts() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    let now = 25 * DAY;
    engine.add(A, policy, leaf(0, 30 * DAY), 0).unwrap();
    assert_eq!(engine.get(A, now), Get::Due);
    engine.failed(A, Failure::Retryable, now, 0);
    assert_eq!(engine.get(A, now), Get::Fresh);
    assert_eq!(engine.get(A, now + FLOOR - 1), Get::Fresh);
    assert_eq!(engine.get(A, now + FLOOR), Get::Due);
    engine.failed(A, Failure::Retryable, now + FLOOR, 0);
    // A clock that goes back does not prolong it, and nothing keeps a caller from what has expired.
    assert_eq!(engine.get(A, now), Get::Due);
    engine.failed(A, Failure::Retryable, 30 * DAY - 1, 0);
    assert_eq!(engine.get(A, 30 * DAY), Get::Due);
}

#[test]
fn a_threshold_longer_than_the_lifetime_renews_every_retry_period() {
    let mut engine = engine();
    let policy = policy("40day", "30min");
    engine.add(A, policy, leaf(0, 30 * DAY), 0).unwrap();
    let mut now = 5;
    for _ in 0..3 {
        assert_eq!(
            engine.renewed(A, leaf(now, now + 30 * DAY), now, 0),
            Outcome::Renewed { next: now + 1800 }
        );
        assert_eq!(engine.get(A, now + 1799), Get::Fresh);
        now += 1800;
        assert_eq!(engine.due(now), Some(A));
    }
}

#[test]
fn an_authority_that_backdates_is_not_asked_every_second() {
    let mut engine = engine();
    let policy = policy("80%", "4%");
    engine.add(A, policy, leaf(0, 30 * DAY), 25 * DAY).unwrap();
    let now = 25 * DAY;
    // One second before the threshold when it arrives.
    let backdated = leaf(now + 1 - 24 * DAY, now + 1 + 6 * DAY);
    assert_eq!(schedule(&policy, backdated, now).next, now + 1);
    assert_eq!(
        engine.renewed(A, backdated, now, 0),
        Outcome::Renewed { next: now + FLOOR }
    );
}

#[test]
fn an_expired_new_certificate_is_tried_again() {
    let mut engine = engine();
    let policy = policy("80%", "4%");
    engine.add(A, policy, leaf(0, 100), 90).unwrap();
    // The clock has jumped between the check and the end.
    let new = leaf(90, 190);
    assert_eq!(
        engine.renewed(A, new, 500, 0),
        Outcome::Renewed { next: 504 }
    );
    assert_eq!(engine.due(504), Some(A));
}

#[test]
fn unfinished_renewals_are_finished_soon() {
    let mut engine = engine();
    let policy = policy("80%", "4%");
    let old = leaf(0, 90 * DAY);
    engine.add(A, policy, old, 0).unwrap();
    let mut now = 72 * DAY;
    let new = leaf(now, now + 90 * DAY);
    let mut pauses = Vec::new();
    for _ in 0..15 {
        assert_eq!(engine.due(now), Some(A));
        match engine.failed(A, Failure::Unfinished(new), now, 0) {
            Outcome::Retry { next, .. } => pauses.push(next - now),
            other => panic!("{other:?}"),
        }
        now += pauses.last().unwrap();
    }
    assert_eq!(pauses[..4], [60, 120, 240, 480]);
    assert_eq!(pauses[14], 311_040, "up to the retry period");

    // Both certificates are ours.
    let entry = *engine.entry(A).unwrap();
    let now = 73 * DAY;
    assert_eq!(entry.standing(&old, now), Standing::Due);
    assert_eq!(entry.standing(&new, now), Standing::Current);
    assert_eq!(entry.standing(&new, 145 * DAY), Standing::Due);
    assert_eq!(entry.standing(&leaf(0, 1), now), Standing::Changed);
    // Somebody who needs it need not wait, although the old one would be valid.
    assert_eq!(engine.get(A, now), Get::Due);
    engine.renewed(A, new, now, 0);
    assert_eq!(engine.entry(A).unwrap().pending, None);
    assert_eq!(engine.get(A, now), Get::Fresh);
}

#[test]
fn nothing_is_due_while_the_clock_is_not_set() {
    let policy = policy("80%", "4%");
    let mut engine = engine();
    let set = 1_767_139_200;
    engine.set_earliest(set);
    let current = leaf(set - DAY, set + 29 * DAY);
    let due = leaf(set - 29 * DAY, set + DAY);
    let expired = leaf(set - 30 * DAY, set - DAY);
    for (id, leaf) in [(A, current), (B, due), (C, expired)] {
        assert_eq!(engine.add(id, policy, leaf, 5), Ok(Added::WaitingForTime));
        assert_eq!(state(&engine, id, 5), State::WaitingForTime);
        assert_eq!(engine.get(id, 5), Get::WaitingForTime);
    }
    assert_eq!(engine.due(5), None);
    assert_eq!(engine.due(set - 1), None);
    assert_eq!(engine.wake(5), Some(set));
    // Somebody sets it.
    assert!(engine.is_plausible(set));
    assert_eq!(
        [engine.due(set), engine.due(set), engine.due(set)],
        [Some(C), Some(B), None]
    );
    assert_eq!(state(&engine, A, set), State::Scheduled);
    assert_eq!(next(&engine, A, set), Some(set + 23 * DAY));
}

#[test]
fn a_clock_that_goes_forward_makes_due() {
    let mut engine = engine();
    engine
        .add(A, policy("80%", "4%"), leaf(0, 30 * DAY), 0)
        .unwrap();
    assert_eq!(engine.due(DAY), None);
    assert_eq!(engine.due(24 * DAY), Some(A));
}

#[test]
fn a_clock_that_goes_back_does_not_put_off() {
    let policy = policy("80%", "4%");
    let year = 365 * DAY;
    let mut engine = engine();
    // Nine years ahead, everything looks expired.
    let wrong = 9 * year;
    engine.add(A, policy, leaf(0, 30 * DAY), wrong).unwrap();
    engine.failed(A, Failure::Retryable, wrong, 0);
    assert_eq!(next(&engine, A, wrong), Some(wrong + 103_680));
    // Set right, the threshold counts.
    assert_eq!(next(&engine, A, DAY), Some(24 * DAY));
    assert_eq!(engine.wake(DAY), Some(24 * DAY));
    assert_eq!(engine.clone().due(DAY), None);
    // After it, one retry period from then; it does not move along with the clock.
    let now = 25 * DAY;
    let again = now + 103_680;
    assert_eq!(engine.due(now), None);
    for later in [now, again - 1] {
        assert_eq!(engine.wake(later), Some(again));
        assert_eq!(engine.due(later), None);
    }
    assert_eq!(engine.due(again), Some(A));
}

#[test]
fn a_clock_that_goes_back_before_the_threshold_leaves_a_long_retry_behind() {
    let mut engine = engine();
    let wrong = 3650 * DAY;
    engine
        .add(A, policy("10%", "30day"), leaf(0, 90 * DAY), wrong)
        .unwrap();
    engine.renewed(A, leaf(DAY, 91 * DAY), wrong, 0);
    assert_eq!(next(&engine, A, wrong), Some(wrong + 30 * DAY));
    assert_eq!(engine.due(DAY), None);
    assert_eq!(engine.wake(DAY), Some(10 * DAY));
    assert_eq!(engine.due(10 * DAY), Some(A));
}

#[test]
fn a_drop_for_having_expired_does_not_outlive_the_wrong_clock() {
    let policy = policy("80%", "4%");
    let wrong = 3650 * DAY;
    let mut engine = engine();
    // No bootstrap pair, for example.
    engine.add(A, policy, leaf(0, 30 * DAY), wrong).unwrap();
    engine.failed(A, Failure::Fatal, wrong, 0);
    assert_eq!(state(&engine, A, wrong), State::Dropped);
    assert_eq!(engine.get(A, wrong), Get::Unknown);
    assert_eq!((engine.get(A, DAY), engine.due(DAY)), (Get::Fresh, None));
    assert_eq!(engine.wake(DAY), Some(24 * DAY));
    assert_eq!(engine.due(24 * DAY), Some(A));
    // A drop for another reason does.
    engine.failed(A, Failure::Fatal, 24 * DAY, 0);
    assert_eq!((engine.due(DAY), engine.wake(DAY)), (None, None));
}

#[test]
fn ends_of_what_is_forgotten_are_ignored() {
    let mut engine = engine();
    let policy = policy("80%", "4%");
    engine.add(A, policy, leaf(0, 100), 90).unwrap();
    assert_eq!(
        engine.add(A, policy, leaf(0, 200), 90),
        Err(AddError::UnderWay)
    );
    engine.clear();
    assert_eq!(engine.entries().len(), 0);
    for _ in 0..2 {
        assert_eq!(engine.renewed(A, leaf(90, 190), 91, 0), Outcome::Unknown);
        assert_eq!(engine.failed(A, Failure::Fatal, 91, 0), Outcome::Unknown);
        // Not handed out, so no end of it can be ours.
        engine.add(A, policy, leaf(90, 190), 91).unwrap();
    }
    assert_eq!(next(&engine, A, 91), Some(170));
}

#[test]
fn room_is_limited_and_dropped_certificates_make_some() {
    let mut engine = engine();
    let policy = policy("80%", "4%");
    for id in 0..4 {
        engine.add(Id(id), policy, leaf(0, 100), 0).unwrap();
    }
    let error = engine.add(Id(4), policy, leaf(0, 100), 0).unwrap_err();
    assert_eq!(error, AddError::Full { limit: 4 });
    assert_eq!(
        error.to_string(),
        "no more than 4 certificates can be renewed automatically; let several of them use one identity"
    );
    assert_eq!(engine.entries().len(), 4);
    // Known ones can be added again.
    assert!(engine.add(Id(2), policy, leaf(0, 100), 0).is_ok());
    engine.give_up(Id(1), 0);
    assert!(engine.add(Id(4), policy, leaf(0, 100), 0).is_ok());
    assert!(engine.entry(Id(1)).is_none());
}

#[derive(Clone, Debug)]
enum Call {
    Add(u32, u8, u8, i64, i64),
    Due,
    Get(u32),
    Renewed(u32, i64, i64),
    Failed(u32, u8),
    GiveUp(u32),
    Forget(u32),
    Now(i64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let time = || prop_oneof![-5000_i64..5000, -5_000_000_i64..5_000_000, any::<i64>()];
    let id = || 0_u32..5;
    let call = prop_oneof![
        (id(), 1_u8..100, 1_u8..100, time(), time())
            .prop_map(|(id, threshold, retry, from, to)| Call::Add(id, threshold, retry, from, to)),
        Just(Call::Due),
        id().prop_map(Call::Get),
        (id(), time(), time()).prop_map(|(id, from, to)| Call::Renewed(id, from, to)),
        (id(), 0_u8..3).prop_map(|(id, how)| Call::Failed(id, how)),
        id().prop_map(Call::GiveUp),
        id().prop_map(Call::Forget),
        time().prop_map(Call::Now),
    ];
    proptest::collection::vec(call, 1..60)
}

proptest! {
    #[test]
    fn no_sequence_of_calls_breaks_it(calls in calls(), random: u32, earliest in -3000_i64..0) {
        let mut engine = engine();
        engine.set_earliest(earliest);
        let mut now = 0_i64;
        for call in calls {
            match call {
                Call::Add(id, threshold, retry, from, to) => {
                    let policy = policy(&format!("{threshold}%"), &format!("{retry}%"));
                    if let Ok(Added::Scheduled { next }) = engine.add(Id(id), policy, leaf(from, to), now) {
                        prop_assert!(next > now || now == i64::MAX);
                    }
                }
                Call::Due => {
                    if let Some(id) = engine.due(now) {
                        prop_assert_eq!(state(&engine, id, now), State::Renewing);
                        prop_assert!(now >= earliest);
                    }
                }
                Call::Get(id) => {
                    let got = engine.get(Id(id), now);
                    if got == Get::Due {
                        prop_assert_eq!(state(&engine, Id(id), now), State::Renewing);
                    }
                }
                Call::Renewed(id, from, to) => {
                    let new = leaf(from, to);
                    if let Outcome::Renewed { next } = engine.renewed(Id(id), new, now, random) {
                        // Not at once, whatever the authority has issued.
                        prop_assert!(next > now || now == i64::MAX);
                        prop_assert_eq!(engine.entry(Id(id)).unwrap().leaf, new);
                    }
                }
                Call::Failed(id, how) => {
                    let failure = match how {
                        0 => Failure::Retryable,
                        1 => Failure::Fatal,
                        _ => Failure::Unfinished(leaf(1, 2)),
                    };
                    if let Outcome::Retry { next, .. } = engine.failed(Id(id), failure, now, random) {
                        prop_assert!(next > now || now == i64::MAX);
                        let entry = engine.entry(Id(id)).unwrap();
                        let lifetime = entry.leaf.not_after.saturating_sub(entry.leaf.not_before);
                        if lifetime >= 3600 && how == 2 {
                            prop_assert!(next.saturating_sub(now) >= FLOOR || next == i64::MAX);
                        }
                    }
                }
                Call::GiveUp(id) => engine.give_up(Id(id), now),
                Call::Forget(id) => engine.forget(Id(id)),
                Call::Now(time) => now = time,
            }
            // Whatever waits can be waited for.
            if engine.is_plausible(now) {
                let due = engine.clone().due(now).is_some();
                prop_assert_eq!(due, engine.wake(now).is_some_and(|wake| wake <= now));
            }
        }
    }
}
