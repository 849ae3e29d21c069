//! Rotations in a world of one certificate and two keys, with every step failing, losing its answer, or being the last
//! one before the power goes.

use super::super::policy::AutoRenew;
use super::super::{
    Added, Answer, Credentials, End, Engine, Failure, Id, Keys, Leaf, Outcome, Pair, Plan,
    Recovery, Rotation, Slot, Standing, State, Step, Stored, recover,
};

const ID: Id = Id(1);
const NOW: i64 = 1000;

/// A key is only told from others.
type Key = u32;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Certificate {
    key: Key,
    leaf: Leaf,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Store {
    Empty,
    /// Cut off in the middle.
    Broken,
    Holds(Certificate),
}

/// What survives a loss of power.
#[derive(Clone, Debug, Eq, PartialEq)]
struct World {
    store: Store,
    key: Option<Key>,
    temporary: Option<Key>,
    /// For keys and certificates that are different from all before.
    made: u32,
    now: i64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// The step is not carried out, and the answer says so.
    Refused,
    /// The step is carried out, and the answer is lost.
    AnswerLost,
    /// A part of the step is carried out, and there is no answer.
    Half,
    PowerBefore,
    PowerHalfway,
    PowerAfter,
}

const FAULTS: [Fault; 6] = [
    Fault::Refused,
    Fault::AnswerLost,
    Fault::Half,
    Fault::PowerBefore,
    Fault::PowerHalfway,
    Fault::PowerAfter,
];

/// The power is gone.
#[derive(Debug)]
struct Off;

/// A fault at one step of a rotation, counted from 0.
#[derive(Clone, Copy, Debug)]
struct At(usize, Fault);

/// What a job holds in memory.
#[derive(Default)]
struct Job {
    old: Option<Certificate>,
    new: Option<Certificate>,
    taken: Vec<Step>,
}

fn certificate(key: Key, not_before: i64, not_after: i64) -> Certificate {
    // Hashes would take most of the time of these tests.
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&key.to_le_bytes());
    digest[8..16].copy_from_slice(&not_before.to_le_bytes());
    digest[16..24].copy_from_slice(&not_after.to_le_bytes());
    Certificate {
        key,
        leaf: Leaf {
            not_before,
            not_after,
            digest,
        },
    }
}

impl World {
    fn pair(&self) -> Pair {
        match self.store {
            Store::Empty | Store::Broken => Pair::NoCertificate,
            Store::Holds(certificate) => self.pair_of(certificate),
        }
    }

    fn pair_of(&self, certificate: Certificate) -> Pair {
        if self.key == Some(certificate.key) {
            Pair::Key
        } else if self.temporary == Some(certificate.key) {
            Pair::Temporary
        } else {
            Pair::Neither
        }
    }

    fn is_consistent(&self) -> bool {
        self.pair() == Pair::Key
    }

    fn fresh(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    /// Moves the temporary key; `half` stops between the removal of the target and the renaming, as a token may.
    fn move_key(&mut self, half: bool) {
        if half {
            self.key = None;
        } else if let Some(key) = self.temporary.take() {
            self.key = Some(key);
        }
    }

    fn write(&mut self, certificate: Certificate, half: bool, atomic: bool) {
        if !half {
            self.store = Store::Holds(certificate);
        } else if !atomic {
            self.store = Store::Broken;
        }
    }

    /// Carries a step out, or half of it.
    fn perform(
        &mut self,
        step: Step,
        half: bool,
        atomic: bool,
        entry: Option<&Engine<2>>,
        job: &mut Job,
    ) -> Answer {
        match step {
            Step::ReadCertificate => {
                let standing = match self.store {
                    Store::Holds(certificate) => {
                        job.old = Some(certificate);
                        entry
                            .and_then(|engine| engine.entry(ID))
                            .map_or(Standing::Due, |entry| {
                                entry.standing(&certificate.leaf, self.now)
                            })
                    }
                    Store::Empty | Store::Broken => Standing::Due,
                };
                Answer::Found {
                    pair: self.pair(),
                    standing,
                }
            }
            Step::FinishMove | Step::MoveKey => {
                self.move_key(half);
                Answer::Done
            }
            Step::ClearTemporaryKey => {
                assert_ne!(
                    self.pair(),
                    Pair::Temporary,
                    "the key of the stored certificate is cleared"
                );
                self.temporary = None;
                Answer::Done
            }
            Step::CreateTemporaryKey => {
                self.temporary = Some(self.fresh());
                Answer::Done
            }
            Step::Enrol { credentials, key } => {
                if credentials == Credentials::Own {
                    assert!(self.is_consistent());
                    assert!(!job.old.unwrap().leaf.has_expired(self.now));
                }
                let key = match key {
                    Slot::Key => self.key,
                    Slot::Temporary => self.temporary,
                };
                let life = i64::from(self.fresh()) + 1000;
                job.new = Some(certificate(key.unwrap(), self.now, self.now + life));
                Answer::Done
            }
            Step::VerifyPair { key } => {
                let wanted = match key {
                    Slot::Key => Pair::Key,
                    Slot::Temporary => Pair::Temporary,
                };
                if self.pair_of(job.new.unwrap()) == wanted {
                    Answer::Done
                } else {
                    Answer::Failed(Failure::Retryable)
                }
            }
            Step::Activate => Answer::Done,
            Step::WriteCertificate => {
                self.write(job.new.unwrap(), half, atomic);
                Answer::Done
            }
            Step::ReadBack => Answer::Stored(match self.store {
                Store::Holds(stored) if Some(stored) == job.new => Stored::New,
                Store::Holds(stored) if Some(stored) == job.old => Stored::Old,
                Store::Empty if job.old.is_none() => Stored::Old,
                Store::Empty | Store::Broken | Store::Holds(_) => Stored::Broken,
            }),
            Step::CompareKeys => Answer::Keys(Keys {
                new: self.pair_of(job.new.unwrap()),
                old_intact: job.old.is_some_and(|old| self.key == Some(old.key)),
            }),
            Step::RestoreCertificate => {
                self.write(job.old.unwrap(), half, atomic);
                Answer::Done
            }
            Step::Finished(_) => panic!("nothing to do"),
        }
    }

    /// A rotation from its beginning to its end, or to the loss of power.
    fn rotate(
        &mut self,
        plan: Plan,
        engine: Option<&Engine<2>>,
        atomic: bool,
        fault: Option<At>,
        job: &mut Job,
    ) -> Result<End, Off> {
        let mut rotation = Rotation::new(plan);
        for number in 0..20 {
            let step = rotation.step();
            job.taken.push(step);
            if let Step::Finished(end) = step {
                assert_eq!(rotation.answer(Answer::Done), Step::Finished(end));
                return Ok(end);
            }
            let fault = fault
                .filter(|At(at, _)| *at == number)
                .map(|At(_, fault)| fault);
            let belonged = self.pair();
            let answer = match fault {
                None => self.perform(step, false, atomic, engine, job),
                Some(Fault::PowerBefore) => return Err(Off),
                Some(Fault::PowerHalfway) => {
                    self.perform(step, true, atomic, engine, job);
                    return Err(Off);
                }
                Some(Fault::PowerAfter) => {
                    self.perform(step, false, atomic, engine, job);
                    return Err(Off);
                }
                Some(Fault::Refused) => Answer::Failed(Failure::Retryable),
                Some(fault @ (Fault::AnswerLost | Fault::Half)) => {
                    self.perform(step, fault == Fault::Half, atomic, engine, job);
                    Answer::Failed(Failure::Retryable)
                }
            };
            // A certificate that has its key never loses it.
            let has_key = |pair| matches!(pair, Pair::Key | Pair::Temporary);
            if has_key(belonged) {
                let torn = !atomic && self.store == Store::Broken;
                assert!(has_key(self.pair()) || torn, "{step:?} {fault:?} {self:?}");
            }
            rotation.answer(answer);
        }
        panic!("it does not end: {:?}", job.taken);
    }
}

fn policy() -> AutoRenew {
    AutoRenew::default()
}

/// A service that is starting: it looks what there is, repairs it, and adds the certificate to a new engine.
fn start(world: &mut World, plan: Plan, atomic: bool) -> Engine<2> {
    match recover(world.pair()) {
        Recovery::Nothing => {}
        Recovery::FinishMove => world.move_key(false),
        Recovery::Bootstrap => {
            let end = world.rotate(plan, None, atomic, None, &mut Job::default());
            assert_eq!(end.unwrap(), End::Renewed);
        }
    }
    assert!(world.is_consistent(), "{world:?}");
    let Store::Holds(certificate) = world.store else {
        panic!("{world:?}")
    };
    let mut engine = Engine::new();
    engine
        .add(ID, policy(), certificate.leaf, world.now)
        .unwrap();
    engine
}

/// Tells the engine how a rotation ended, as a service does.
fn ended(engine: &mut Engine<2>, world: &World, end: End, job: &Job) -> Outcome {
    let now = world.now;
    match end {
        End::Renewed => engine.renewed(ID, job.new.unwrap().leaf, now, 0),
        End::Recovered => engine.renewed(ID, job.old.unwrap().leaf, now, 0),
        End::Failed(failure) => engine.failed(ID, failure, now, 0),
        End::Unfinished => {
            let leaf = job.new.or(job.old).unwrap().leaf;
            engine.failed(ID, Failure::Unfinished(leaf), now, 0)
        }
        End::Changed => engine.failed(ID, Failure::Fatal, now, 0),
    }
}

/// For messages.
#[derive(Debug)]
struct Context {
    #[expect(dead_code, reason = "told by a failing test")]
    beginning: &'static str,
    #[expect(dead_code, reason = "told by a failing test")]
    plan: Plan,
    first: Option<At>,
    second: Option<At>,
}

/// What a rotation may find. The engine remembers `remembered`.
struct Beginning {
    what: &'static str,
    world: World,
    remembered: Leaf,
}

fn beginnings() -> Vec<Beginning> {
    let valid = certificate(1, 0, 1200);
    let expired = certificate(1, 0, 900);
    let finished = certificate(2, 990, 2200);
    let begin =
        |what, stored: Option<Certificate>, key, temporary, remembered: Certificate| Beginning {
            what,
            world: World {
                store: stored.map_or(Store::Empty, Store::Holds),
                key,
                temporary,
                made: 100,
                now: NOW,
            },
            remembered: remembered.leaf,
        };
    vec![
        begin("due", Some(valid), Some(1), None, valid),
        begin("left-over key", Some(valid), Some(1), Some(9), valid),
        begin("expired", Some(expired), Some(1), None, expired),
        begin("not moved", Some(finished), Some(1), Some(2), valid),
        begin("half moved", Some(finished), None, Some(2), valid),
        begin(
            "not moved and due",
            Some(certificate(2, 0, 1200)),
            Some(1),
            Some(2),
            certificate(2, 0, 1200),
        ),
        begin(
            "not moved and expired",
            Some(certificate(2, 0, 900)),
            Some(1),
            Some(2),
            certificate(2, 0, 900),
        ),
        begin("no key", Some(valid), None, None, valid),
        begin("another key", Some(valid), Some(3), Some(9), valid),
        begin("no certificate", None, Some(1), Some(9), valid),
    ]
}

fn plans() -> impl Iterator<Item = Plan> {
    [(true, false), (true, true), (false, false), (false, true)]
        .into_iter()
        .map(|(rotate_key, activate)| Plan {
            rotate_key,
            activate,
        })
}

/// Up to one fault in each of two rotations, and the power may go both times: in the end all is well, and on the way no
/// certificate loses its key.
#[test]
fn cs_48_any_stop_leaves_a_pair_or_calls_for_bootstrap() {
    let mut runs = 0_u32;
    let faults = |steps: usize| {
        let all = (0..steps).flat_map(|at| FAULTS.map(|fault| Some(At(at, fault))));
        std::iter::once(None).chain(all)
    };
    for beginning in beginnings() {
        for plan in plans() {
            for atomic in [true, false] {
                // Enough for every step of the longest detour.
                for first in faults(11) {
                    for second in faults(11) {
                        runs += 1;
                        let context = Context {
                            beginning: beginning.what,
                            plan,
                            first,
                            second,
                        };
                        survives(&beginning, plan, atomic, &context);
                    }
                }
            }
        }
    }
    assert!(runs > 100_000, "{runs}");
}

fn survives(beginning: &Beginning, plan: Plan, atomic: bool, context: &Context) {
    let mut world = beginning.world.clone();
    let mut engine = Engine::new();
    let added = engine.add(ID, policy(), beginning.remembered, NOW);
    assert_eq!(added, Ok(Added::Due));
    // Two rotations with faults, and some without.
    let faults = [context.first, context.second].into_iter().chain([None; 4]);
    for fault in faults {
        if engine.state(engine.entry(ID).unwrap(), world.now) != State::Renewing {
            world.now = engine.wake(world.now).unwrap().max(world.now);
            if engine.due(world.now).is_none() {
                panic!("{context:?}: {engine:?}");
            }
        }
        let mut job = Job::default();
        match world.rotate(plan, Some(&engine), atomic, fault, &mut job) {
            Ok(end) => {
                if let End::Renewed | End::Recovered = end {
                    assert!(world.is_consistent(), "{context:?}: {world:?}");
                }
                let outcome = ended(&mut engine, &world, end, &job);
                assert!(
                    !matches!(outcome, Outcome::Dropped { .. } | Outcome::Unknown),
                    "{context:?}: {end:?} {outcome:?}"
                );
            }
            Err(Off) => {
                // Only a store that does not replace in one go, or nothing at the beginning, may call for more.
                let began_with_a_pair =
                    matches!(beginning.world.pair(), Pair::Key | Pair::Temporary);
                if atomic && began_with_a_pair {
                    assert_ne!(
                        recover(world.pair()),
                        Recovery::Bootstrap,
                        "{context:?}: {world:?}"
                    );
                }
                engine = start(&mut world, plan, atomic);
                if engine.state(engine.entry(ID).unwrap(), world.now) != State::Renewing {
                    // Renewed already; go on to the next time.
                    world.now = engine.wake(world.now).unwrap();
                    assert_eq!(engine.due(world.now), Some(ID));
                }
            }
        }
    }
    assert!(world.is_consistent(), "{context:?}: {world:?}");
    assert_eq!(engine.entry(ID).unwrap().failures, 0, "{context:?}");
    let Store::Holds(stored) = world.store else {
        panic!("{context:?}: {world:?}")
    };
    assert_eq!(stored.leaf, engine.entry(ID).unwrap().leaf, "{context:?}");
    if plan.rotate_key {
        assert_eq!(world.temporary, None, "{context:?}: {world:?}");
    }
}

/// One rotation of the beginning `what`, with a fault in the first step that is `step`.
fn one(
    what: &str,
    rotate_key: bool,
    fault: Option<(Step, Fault)>,
) -> (World, Result<End, Off>, Job) {
    let plan = Plan {
        rotate_key,
        activate: false,
    };
    let beginning = beginnings()
        .into_iter()
        .find(|beginning| beginning.what == what)
        .unwrap();
    let mut engine = Engine::new();
    engine.add(ID, policy(), beginning.remembered, NOW).unwrap();
    let at = |step| {
        let mut job = Job::default();
        beginning
            .world
            .clone()
            .rotate(plan, Some(&engine), true, None, &mut job)
            .unwrap();
        job.taken.iter().position(|taken| *taken == step).unwrap()
    };
    let fault = fault.map(|(step, fault)| At(at(step), fault));
    let mut world = beginning.world.clone();
    let mut job = Job::default();
    let end = world.rotate(plan, Some(&engine), true, fault, &mut job);
    (world, end, job)
}

fn enrol(credentials: Credentials, key: Slot) -> [Step; 2] {
    [Step::Enrol { credentials, key }, Step::VerifyPair { key }]
}

#[test]
fn cs_48_the_order_of_a_rotation() {
    let [own, verify] = enrol(Credentials::Own, Slot::Temporary);
    let done = Step::Finished(End::Renewed);
    let (world, _, job) = one("left-over key", true, None);
    assert_eq!(
        job.taken,
        [
            Step::ReadCertificate,
            Step::ClearTemporaryKey,
            Step::CreateTemporaryKey,
            own,
            verify,
            Step::WriteCertificate,
            Step::MoveKey,
            done
        ]
    );
    assert_eq!(world.temporary, None);
    assert_ne!(world.key, Some(1));

    // `rotate_key = false` keeps the key.
    let [own, verify] = enrol(Credentials::Own, Slot::Key);
    let (world, _, job) = one("due", false, None);
    assert_eq!(
        job.taken,
        [
            Step::ReadCertificate,
            own,
            verify,
            Step::WriteCertificate,
            done
        ]
    );
    assert_eq!(world.key, Some(1));

    let mut rotation = Rotation::new(Plan {
        rotate_key: false,
        activate: true,
    });
    rotation.answer(Answer::Found {
        pair: Pair::Key,
        standing: Standing::Due,
    });
    rotation.answer(Answer::Done);
    assert_eq!(rotation.answer(Answer::Done), Step::Activate);
    assert_eq!(rotation.answer(Answer::Done), Step::WriteCertificate);
}

#[test]
fn cs_49_what_has_expired_is_renewed_with_the_bootstrap_pair() {
    for (what, rotate_key) in [
        ("expired", true),
        ("expired", false),
        ("not moved and expired", true),
    ] {
        let (world, end, job) = one(what, rotate_key, None);
        assert_eq!(end.unwrap(), End::Renewed);
        assert!(world.is_consistent());
        let key = if rotate_key {
            Slot::Temporary
        } else {
            Slot::Key
        };
        assert!(
            job.taken.contains(&enrol(Credentials::Bootstrap, key)[0]),
            "{:?}",
            job.taken
        );
    }
    // So is what has lost its key, or is not there; with a new key in any case.
    for what in ["no key", "another key", "no certificate"] {
        let (world, end, job) = one(what, false, None);
        assert_eq!(end.unwrap(), End::Renewed);
        assert!(world.is_consistent());
        assert!(
            job.taken
                .contains(&enrol(Credentials::Bootstrap, Slot::Temporary)[0])
        );
    }
}

#[test]
fn cs_50_a_failed_move_restores_the_old_certificate() {
    let (world, end, job) = one("due", true, Some((Step::MoveKey, Fault::Refused)));
    assert_eq!(end.unwrap(), End::Failed(Failure::Retryable));
    assert_eq!(world.store, Store::Holds(job.old.unwrap()));
    assert_eq!(world.key, Some(1));
    assert_eq!(
        job.taken[6..9],
        [Step::MoveKey, Step::CompareKeys, Step::RestoreCertificate]
    );
    // And it stays scheduled.
    let mut engine = Engine::new();
    engine
        .add(ID, policy(), job.old.unwrap().leaf, NOW)
        .unwrap();
    let outcome = ended(&mut engine, &world, End::Failed(Failure::Retryable), &job);
    assert!(matches!(outcome, Outcome::Retry { usable: true, .. }));
    let entry = engine.entry(ID).unwrap();
    assert_eq!(entry.standing(&job.old.unwrap().leaf, NOW), Standing::Due);
}

#[test]
fn cs_50_a_move_whose_answer_is_lost_is_not_undone() {
    let (world, end, _) = one("due", true, Some((Step::MoveKey, Fault::AnswerLost)));
    assert_eq!(end.unwrap(), End::Renewed);
    assert!(world.is_consistent());
    // Half a move leaves the new certificate and its key; the old ones would be without.
    let (mut world, end, job) = one("due", true, Some((Step::MoveKey, Fault::Half)));
    assert_eq!(end.unwrap(), End::Unfinished);
    assert_eq!(world.store, Store::Holds(job.new.unwrap()));
    assert_eq!(recover(world.pair()), Recovery::FinishMove);
    world.move_key(false);
    assert!(world.is_consistent());
    // An expired certificate is not worth restoring.
    let (world, end, job) = one("expired", true, Some((Step::MoveKey, Fault::Refused)));
    assert_eq!(end.unwrap(), End::Unfinished);
    assert_eq!(world.store, Store::Holds(job.new.unwrap()));
    assert_eq!(world.pair(), Pair::Temporary);
}

#[test]
fn a_write_whose_answer_is_lost_is_looked_at() {
    let write = Step::WriteCertificate;
    let (world, end, _) = one("due", true, Some((write, Fault::AnswerLost)));
    assert_eq!(end.unwrap(), End::Renewed);
    assert!(world.is_consistent());
    let (world, end, job) = one("due", true, Some((write, Fault::Refused)));
    assert_eq!(end.unwrap(), End::Failed(Failure::Retryable));
    assert_eq!(world.store, Store::Holds(job.old.unwrap()));
}

#[test]
fn db_32_an_interrupted_rotation_is_finished_and_its_key_is_not_cleared() {
    for what in ["not moved", "half moved"] {
        let (world, end, job) = one(what, true, None);
        assert_eq!(end.unwrap(), End::Recovered, "{what}");
        assert_eq!(
            job.taken[..2],
            [Step::ReadCertificate, Step::FinishMove],
            "{what}"
        );
        assert!(world.is_consistent());
    }
    let (_, end, job) = one("not moved and due", true, None);
    assert_eq!(end.unwrap(), End::Renewed);
    assert_eq!(job.taken[1..3], [Step::FinishMove, Step::ClearTemporaryKey]);
    let (world, end, _) = one("not moved", true, Some((Step::FinishMove, Fault::Refused)));
    assert_eq!(end.unwrap(), End::Unfinished);
    assert_eq!(world.pair(), Pair::Temporary);

    for (pair, recovery) in [
        (Pair::Key, Recovery::Nothing),
        (Pair::Temporary, Recovery::FinishMove),
        (Pair::Neither, Recovery::Bootstrap),
        (Pair::NoCertificate, Recovery::Bootstrap),
    ] {
        assert_eq!(recover(pair), recovery);
    }
}

#[test]
fn cs_44_a_replaced_certificate_ends_a_rotation_before_it_touches_anything() {
    for pair in [Pair::Key, Pair::Neither] {
        for rotate_key in [false, true] {
            let mut rotation = Rotation::new(Plan {
                rotate_key,
                activate: true,
            });
            assert_eq!(
                rotation.answer(Answer::Found {
                    pair,
                    standing: Standing::Changed
                }),
                Step::Finished(End::Changed)
            );
        }
    }
}

#[test]
fn failures_before_the_write_leave_everything_as_it_is() {
    let [own, verify] = enrol(Credentials::Own, Slot::Temporary);
    let mut rotation = Rotation::new(Plan {
        rotate_key: true,
        activate: true,
    });
    let mut before_the_write = vec![rotation];
    rotation.answer(Answer::Found {
        pair: Pair::Key,
        standing: Standing::Due,
    });
    for step in [
        Step::ClearTemporaryKey,
        Step::CreateTemporaryKey,
        own,
        verify,
        Step::Activate,
    ] {
        assert_eq!(rotation.step(), step);
        before_the_write.push(rotation);
        rotation.answer(Answer::Done);
    }
    assert_eq!(rotation.step(), Step::WriteCertificate);
    for rotation in before_the_write {
        for failure in [Failure::Retryable, Failure::Fatal] {
            assert_eq!(
                rotation.clone().answer(Answer::Failed(failure)),
                Step::Finished(End::Failed(failure))
            );
        }
        // A wrong answer is a failure, not a success.
        assert_eq!(
            rotation.clone().answer(Answer::Stored(Stored::New)),
            Step::Finished(End::Failed(Failure::Retryable))
        );
    }
}
