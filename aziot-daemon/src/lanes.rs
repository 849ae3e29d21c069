//! Worker lanes: what may block runs here, never in the event loop.
//!
//! A lane is a queue with its own bounded threads, so that one kind of slowness (the cloud, say) cannot starve another.
//! Threads start on demand and end when idle. The result of a job goes back to the loop as an event.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Which kind of slowness a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Local cryptography and disk.
    Local,
    /// The generation of key pairs whose search for primes may take many seconds. One thread with a low priority, so that
    /// neither quick work in files nor the loop feels it.
    Generate,
    /// PKCS#11 tokens, which may answer late or never. Four threads, so that one slow token leaves room for another.
    Token,
    /// Reports about keys and tokens. A thread of its own: they look at every file, and nobody else waits for them.
    Report,
    /// A key library that promises serial calls only: one thread, one call at a time.
    Library,
    /// The sibling services. Four threads, because a service accepts ten connections per user and other programs of the
    /// same user need some.
    Sibling,
    /// IoT Hub, for clients.
    Cloud,
    /// EST servers. Eight threads: two for each server, so that three that do not answer leave room for a fourth.
    Enrolment,
    /// The provisioning procedure, of which there is one at a time. It has a thread of its own, so that a hub that keeps
    /// clients waiting does not keep the device from asking DPS for another.
    Provisioning,
}

impl Lane {
    const ALL: [Self; 9] = [
        Self::Local,
        Self::Generate,
        Self::Token,
        Self::Report,
        Self::Library,
        Self::Sibling,
        Self::Cloud,
        Self::Enrolment,
        Self::Provisioning,
    ];

    const fn threads(self) -> usize {
        match self {
            Self::Local => 2,
            Self::Generate | Self::Report | Self::Library | Self::Provisioning => 1,
            Self::Token | Self::Sibling | Self::Cloud => 4,
            Self::Enrolment => 8,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Generate => "generate",
            Self::Token => "token",
            Self::Report => "report",
            Self::Library => "library",
            Self::Sibling => "sibling",
            Self::Cloud => "cloud",
            Self::Enrolment => "enrolment",
            Self::Provisioning => "provisioning",
        }
    }

    /// How far its threads step back for others: what is added to their nice value (sched(7)).
    ///
    /// With 10 the generator gets a tenth of a processor that somebody else could use as well: it goes on, and who
    /// wakes up beside it runs at once.
    const fn nice(self) -> i32 {
        match self {
            Self::Generate => 10,
            _ => 0,
        }
    }

    /// Whether its jobs write keys or files. Those are worth waiting for at the end; the cloud is not.
    const fn writes(self) -> bool {
        matches!(
            self,
            Self::Local | Self::Generate | Self::Token | Self::Library
        )
    }
}

/// Jobs that may wait in one lane. Requests hold their connection while they wait, and connections are bounded, so this is
/// a backstop, not a policy.
const QUEUE_LIMIT: usize = 4096;

/// Stack of a worker thread. TLS and PKCS#11 modules need more than the few pages our own code does; only touched pages cost.
const STACK: usize = 512 * 1024;

struct Job<E> {
    /// Who is forgotten with it.
    owner: Option<u64>,
    run: Box<dyn FnOnce() -> E + Send>,
}

/// The lanes of a daemon whose jobs yield events of type `E`.
pub struct Lanes<E: Send + 'static> {
    lanes: Vec<Arc<Shared<E>>>,
    done: Done<E>,
    idle: Duration,
}

struct Shared<E> {
    lane: Lane,
    state: Mutex<State<E>>,
    wake: Condvar,
}

struct State<E> {
    queue: VecDeque<Job<E>>,
    threads: usize,
    idle: usize,
    running: usize,
    /// Of those jobs that are running.
    owners: Vec<u64>,
}

/// Where results are put, and how the loop hears of them.
pub struct Done<E> {
    results: Arc<Mutex<Vec<E>>>,
    waker: Arc<mio::Waker>,
}

impl<E> Clone for Done<E> {
    fn clone(&self) -> Self {
        Self {
            results: Arc::clone(&self.results),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<E> Done<E> {
    /// Results go to a list of their own; `waker` tells the loop to look at it.
    #[must_use]
    pub fn new(waker: mio::Waker) -> Self {
        Self {
            results: Arc::new(Mutex::new(Vec::new())),
            waker: Arc::new(waker),
        }
    }

    /// Hands an event to the loop. Can be called from any thread, also by a job that goes on afterwards.
    pub fn send(&self, event: E) {
        self.results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
        // The write to the eventfd fails only when its counter is full, and then the loop is awake already.
        let _ = self.waker.wake();
    }

    /// Moves everything that has come in to `into`, which keeps its capacity.
    pub fn take(&self, into: &mut Vec<E>) {
        into.append(&mut self.results.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The lane has too many jobs waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl<E: Send + 'static> Lanes<E> {
    /// Lanes without threads. Threads end after `idle` without work.
    #[must_use]
    pub fn new(done: Done<E>, idle: Duration) -> Self {
        let lanes = Lane::ALL
            .iter()
            .map(|&lane| {
                let state = State {
                    queue: VecDeque::new(),
                    threads: 0,
                    idle: 0,
                    running: 0,
                    owners: Vec::new(),
                };
                Arc::new(Shared {
                    lane,
                    state: Mutex::new(state),
                    wake: Condvar::new(),
                })
            })
            .collect();
        Self { lanes, done, idle }
    }

    /// The way to the loop, for threads that outlive one job.
    #[must_use]
    pub fn done(&self) -> Done<E> {
        self.done.clone()
    }

    /// Whether a lane whose jobs are worth waiting for at the end has something to do.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        let writers = self.lanes.iter().filter(|shared| shared.lane.writes());
        writers.into_iter().any(|shared| {
            let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running > 0 || !state.queue.is_empty()
        })
    }

    /// Runs `job` in `lane`; its result becomes an event.
    ///
    /// # Errors
    /// [`Busy`] when the queue of the lane is full, or no thread could be started at all.
    pub fn run(&self, lane: Lane, job: impl FnOnce() -> E + Send + 'static) -> Result<(), Busy> {
        self.push(
            lane,
            Job {
                owner: None,
                run: Box::new(job),
            },
        )
    }

    /// As [`run`](Self::run), for a job that need not begin any more once its owner is [forgotten](Self::forget).
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn run_for(
        &self,
        owner: u64,
        lane: Lane,
        job: impl FnOnce() -> E + Send + 'static,
    ) -> Result<(), Busy> {
        self.push(
            lane,
            Job {
                owner: Some(owner),
                run: Box::new(job),
            },
        )
    }

    /// Drops the jobs of an owner that have not begun; no event tells of them. True if it had any, begun or not.
    pub fn forget(&self, owner: u64) -> bool {
        let mut found = false;
        for shared in &self.lanes {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(at) = state.queue.iter().position(|job| job.owner == Some(owner)) {
                found = true;
                let job = state.queue.remove(at);
                drop(job);
            }
            found |= state.owners.contains(&owner);
        }
        found
    }

    fn push(&self, lane: Lane, job: Job<E>) -> Result<(), Busy> {
        let Some(shared) = self.lanes.iter().find(|shared| shared.lane == lane) else {
            return Err(Busy);
        };
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.queue.len() >= QUEUE_LIMIT {
            return Err(Busy);
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= lane.threads() {
            drop(state);
            shared.wake.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let (worker, done, idle) = (Arc::clone(shared), self.done.clone(), self.idle);
        let started = std::thread::Builder::new()
            .name(format!("aziot-{}", lane.name()))
            .stack_size(STACK)
            .spawn(move || work(&worker, &done, idle));
        if let Err(error) = started {
            log::warn!("could not start a worker thread: {error}");
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.threads -= 1;
            if state.threads == 0 {
                state.queue.pop_back();
                return Err(Busy);
            }
            shared.wake.notify_one();
        }
        Ok(())
    }
}

fn work<E: Send>(shared: &Shared<E>, done: &Done<E>, idle: Duration) {
    let nice = shared.lane.nice();
    if nice != 0
        && let Err(error) = step_back(nice)
    {
        log::debug!("could not lower the priority of a worker thread: {error}");
    }
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = state.queue.pop_front() {
            state.running += 1;
            state.owners.extend(job.owner);
            drop(state);
            let (owner, event) = (job.owner, (job.run)());
            state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            // Before the loop is woken: at the end nothing else wakes it to see that the lane is done.
            state.running -= 1;
            if let Some(at) = state.owners.iter().position(|one| Some(*one) == owner) {
                state.owners.swap_remove(at);
            }
            done.send(event);
            continue;
        }
        state.idle += 1;
        let (guard, timeout) = shared
            .wake
            .wait_timeout(state, idle)
            .unwrap_or_else(PoisonError::into_inner);
        state = guard;
        state.idle -= 1;
        if timeout.timed_out() && state.queue.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

/// Lowers the priority of this thread by `nice`, as far as that goes.
fn step_back(nice: i32) -> Result<(), rustix::io::Errno> {
    // No process is named: on Linux that means the calling thread alone.
    let present = rustix::process::getpriority_process(None)?;
    rustix::process::setpriority_process(None, present.saturating_add(nice).min(19))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes() -> (Lanes<u32>, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (
            Lanes::new(Done::new(waker), Duration::from_millis(20)),
            poll,
        )
    }

    fn collect(lanes: &Lanes<u32>, poll: &mut mio::Poll, count: usize) -> Vec<u32> {
        let mut results = Vec::new();
        let mut events = mio::Events::with_capacity(8);
        while results.len() < count {
            poll.poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            lanes.done().take(&mut results);
        }
        results
    }

    #[test]
    fn the_library_lane_is_serial_and_in_order() {
        let (lanes, mut poll) = lanes();
        for n in 0..100 {
            lanes.run(Lane::Library, move || n).unwrap();
        }
        assert_eq!(
            collect(&lanes, &mut poll, 100),
            (0..100).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_blocked_lane_does_not_hold_up_another() {
        let (lanes, mut poll) = lanes();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        for _ in 0..8 {
            let gate = Arc::clone(&gate);
            lanes
                .run(Lane::Cloud, move || {
                    let mut open = gate.0.lock().unwrap();
                    while !*open {
                        open = gate.1.wait(open).unwrap();
                    }
                    1
                })
                .unwrap();
        }
        lanes.run(Lane::Local, || 2).unwrap();
        assert_eq!(collect(&lanes, &mut poll, 1), [2]);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert_eq!(collect(&lanes, &mut poll, 8), [1; 8]);
    }

    #[test]
    fn what_has_not_begun_is_forgotten_with_its_owner() {
        let (lanes, mut poll) = lanes();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let inside = Arc::clone(&gate);
        lanes
            .run_for(7, Lane::Library, move || u32::from(inside.lock().is_ok()))
            .unwrap();
        while !lanes
            .lanes
            .iter()
            .any(|shared| shared.state.lock().unwrap().running > 0)
        {
            std::thread::yield_now();
        }
        for (owner, result) in [(7, 2), (8, 3), (7, 4)] {
            lanes.run_for(owner, Lane::Library, move || result).unwrap();
        }
        lanes.run(Lane::Library, || 5).unwrap();
        assert!(lanes.forget(7), "two that wait");
        assert!(lanes.forget(7), "one that has begun");
        assert!(!lanes.forget(9));
        drop(closed);
        assert_eq!(collect(&lanes, &mut poll, 3), [1, 3, 5]);
        assert!(!lanes.forget(7), "it is done");
        assert!(!lanes.is_writing());
    }

    #[test]
    fn who_has_the_result_sees_the_lane_done() {
        let (lanes, mut poll) = lanes();
        for n in 0..500 {
            lanes.run(Lane::Local, move || n).unwrap();
            assert_eq!(collect(&lanes, &mut poll, 1), [n]);
            assert!(!lanes.is_writing(), "after job {n}");
        }
    }

    #[test]
    fn only_generation_steps_back() {
        let (lanes, mut poll) = lanes();
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let usual = nice();
        for lane in Lane::ALL {
            lanes
                .run(lane, move || u32::try_from(nice() + 20).unwrap())
                .unwrap();
            let expected = match lane {
                Lane::Generate => (usual + 10).min(19),
                _ => usual,
            };
            let seen = collect(&lanes, &mut poll, 1);
            assert_eq!(seen, [u32::try_from(expected + 20).unwrap()], "{lane:?}");
        }
        assert_eq!(nice(), usual);
    }

    #[test]
    fn what_writes_keys_is_worth_waiting_for() {
        for (lane, worth) in [
            (Lane::Local, true),
            (Lane::Generate, true),
            (Lane::Token, true),
            (Lane::Library, true),
            (Lane::Report, false),
            (Lane::Cloud, false),
        ] {
            let (lanes, mut poll) = lanes();
            let gate = Arc::new(Mutex::new(()));
            let closed = gate.lock().unwrap();
            let inside = Arc::clone(&gate);
            lanes
                .run(lane, move || u32::from(inside.lock().is_ok()))
                .unwrap();
            assert_eq!(lanes.is_writing(), worth, "{lane:?}");
            drop(closed);
            assert_eq!(collect(&lanes, &mut poll, 1), [1]);
        }
    }

    #[test]
    fn idle_threads_end_and_new_work_starts_new_ones() {
        let (lanes, mut poll) = lanes();
        lanes.run(Lane::Local, || 1).unwrap();
        assert_eq!(collect(&lanes, &mut poll, 1), [1]);
        let shared = Arc::clone(&lanes.lanes[0]);
        while shared.state.lock().unwrap().threads > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        lanes.run(Lane::Local, || 3).unwrap();
        assert_eq!(collect(&lanes, &mut poll, 1), [3]);
    }
}
