//! The event loop: one thread that owns the listening socket, all connections, timers, signals and the watch on the
//! configuration, and that never blocks.

mod alarms;
mod buffers;
mod conn;
mod exchange;
pub mod response;
mod table;
mod watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use aziot_core::access::Accounts;
use aziot_core::time::UnixTime;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sd_notify::NotifyState;

use self::alarms::{Alarms, ClockSteps};
use self::buffers::Buffers;
pub use self::buffers::Held;
use self::conn::{Conn, Got, State};
use self::exchange::Verdict;
use self::response::Meta;
use self::table::Table;
pub use self::watch::Watch;
use crate::lanes::{Busy, Done, Lane, Lanes};
use crate::listener::{self, Endpoint, Listener, Passed};
use crate::service::{Alarm, Context, Reply, RequestId, Service};
use crate::sys::{self, Signal, Signals};
use crate::timing::Timing;

/// How a service is to be served.
#[derive(Debug)]
pub struct Setup {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Connections a user may have open.
    pub max_requests: u64,
    /// What the service manager passed. See [`passed`].
    pub passed: Passed,
    /// The watch on the configuration, from before it was read; none for services that only read it at start.
    pub watch: Option<Watch>,
    /// The time limits.
    pub timing: Timing,
    /// Whether the loop logs `Starting server...` when it owns the socket. A service that has more to do first logs it
    /// itself.
    pub announce: bool,
}

/// Why serving ended badly.
#[derive(Debug)]
pub enum Error {
    /// There is no socket to listen on.
    Listen(listener::Error),
    /// The kernel refused something the loop cannot do without.
    Loop(&'static str, io::Error),
    /// The service found something that only an administrator can mend, and has logged it.
    Service,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(_) => f.write_str("could not get a listening socket"),
            Self::Loop(what, _) => write!(f, "could not set up {what}"),
            Self::Service => f.write_str("the service gave up; see the messages before this one"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::Loop(_, error) => Some(error),
            Self::Service => None,
        }
    }
}

/// What the service manager passed. To be asked for before anything else that opens descriptors: one that was announced
/// but not passed must not turn out to be one of those.
///
/// # Errors
/// [`Error::Listen`] with malformed variables.
pub fn passed() -> Result<Passed, Error> {
    Passed::from_env().map_err(Error::Listen)
}

/// Begins to watch the main configuration file and the drop-in directory. To be done before they are read, so that no
/// change is missed. Where that is not possible, a warning says so.
#[must_use]
pub fn watch_configuration(main: &Path, directory: &Path) -> Option<Watch> {
    Watch::new(main, directory)
        .map_err(|error| {
            log::warn!(
                "could not watch the configuration: {error}; restart the service after changes"
            );
        })
        .ok()
}

/// What services reach through their [`Context`].
pub struct Kernel<E: Send + 'static> {
    pub(crate) lanes: Lanes<E>,
    pub(crate) alarms: Alarms,
    pub(crate) timing: Timing,
    /// Connections a user may have open.
    pub(crate) max_requests: usize,
    accounts: Accounts<USERS>,
    pub(crate) failed: bool,
    table: Table,
    buffers: Buffers,
    /// Connections to be looked at without the kernel saying so: late answers, and pipelines that had their turn.
    ready: VecDeque<u32>,
    stopping: bool,
    requests: u64,
    log_target: &'static str,
}

impl<E: Send + 'static> Kernel<E> {
    /// The reply to a request that is outstanding.
    pub(crate) fn reply(&mut self, id: RequestId) -> Option<Reply<'_>> {
        let conn = self.table.same(id.index, id.generation)?;
        let awaits = |meta: &mut Meta| meta.number == id.number;
        let mut meta = match conn.state {
            State::Service => conn.meta.take_if(awaits)?,
            _ => return None,
        };
        meta.close |= self.stopping;
        meta.date = wall_clock();
        conn.answered();
        if conn.output.capacity() == 0 {
            conn.output = self.buffers.output();
        }
        self.ready.push_back(id.index);
        conn.closing |= meta.close;
        let before = conn.output.len();
        Some(Reply {
            out: &mut conn.output,
            closing: &mut conn.closing,
            meta,
            owed_after: Some(before),
        })
    }

    /// Whether a request is outstanding.
    pub(crate) fn is_awaited(&mut self, id: RequestId) -> bool {
        self.table
            .same(id.index, id.generation)
            .is_some_and(|conn| conn.awaits() == Some(id.number))
    }

    /// Whether the client of a request whose answer is outstanding has gone. Its connection may be there still.
    pub(crate) fn has_hung_up(&mut self, id: RequestId) -> bool {
        self.table
            .same(id.index, id.generation)
            .is_none_or(|conn| conn.peer_gone)
    }

    /// Runs a job that ends with its request.
    pub(crate) fn run_for(
        &mut self,
        id: RequestId,
        lane: Lane,
        job: impl FnOnce() -> E + Send + 'static,
    ) -> Result<(), Busy> {
        // It may have hung up between two jobs, when there was nothing to end.
        let conn = self.table.same(id.index, id.generation);
        if conn.is_some_and(|conn| conn.peer_gone) {
            self.ready.push_back(id.index);
        }
        self.lanes.run_for(id.number, lane, job)
    }

    /// Counts a copy of a request body that a job works on.
    pub(crate) fn hold(&self, bytes: usize) -> Held {
        self.buffers.hold(bytes)
    }
}

/// Tokens of everything that is not a connection; connections use their place in the table.
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const ALARMS: Token = Token(usize::MAX - 3);
const CLOCK: Token = Token(usize::MAX - 4);
const WATCH: Token = Token(usize::MAX - 5);

/// Connections in all. Each costs a descriptor and some hundred bytes; buffers are lent only while bytes are under way.
const CONNECTIONS: usize = 2048;

/// Different users with open connections at a time.
const USERS: usize = 256;

/// Connections accepted before those that are there have their turn: clients that connect without pause must not keep the
/// loop busy for themselves.
const ACCEPTED_AT_ONCE: usize = 32;

/// Connections that are read from before the first of their requests is served, and served before the first answer is sent
/// unless [`LONGEST_WAIT`] is over.
const BATCH: usize = 16;

/// How long the first answer of a batch waits for the others: as long as a whole batch of ECDSA signatures takes on a processor
/// of today. Where they take longer, being woken up once is not worth the wait.
const LONGEST_WAIT: Duration = Duration::from_micros(500);

/// Entries of the timer queue below which nobody looks for outdated ones.
const TIMERS: usize = 256;

/// A reload waits for quiet, but not for ever.
const RELOAD_LATEST: u32 = 10;

/// Serves until a signal ends it.
///
/// # Errors
/// See [`Error`].
pub fn serve<S: Service>(
    make: impl FnOnce(&mut Context<'_, S>) -> S,
    setup: Setup,
) -> Result<(), Error> {
    let mut server = Server::new(make, setup)?;
    let result = server.run();
    if let Some(bound) = &server.listener.bound {
        bound.remove();
    }
    result
}

struct Server<S: Service> {
    service: S,
    kernel: Kernel<S::Event>,
    poll: Poll,
    listener: Listener,
    signals: Signals,
    clock: ClockSteps,
    watch: Option<Watch>,
    /// Entries may be outdated; the connection's own deadline decides.
    timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    /// Decoded path parameters go here.
    scratch: Vec<u8>,
    /// Connections whose requests are served together. See [`Server::serve`].
    batch: Vec<u32>,
    /// Connections of that batch that have been answered.
    answered: Vec<u32>,
    /// How many of those have been sent their answers.
    sent: usize,
    /// Whether answers are left to be sent together.
    gathering: bool,
    /// Bytes have come in since the service was told.
    arrived: bool,
    accept_again: Option<Instant>,
    /// `accept` failed the last time, and the log says so.
    accept_fails: bool,
    reload: Option<Reload>,
    watchdog: Option<(Duration, Instant)>,
    stop_by: Option<Instant>,
}

struct Reload {
    at: Instant,
    latest: Instant,
}

impl<S: Service> Server<S> {
    fn new(make: impl FnOnce(&mut Context<'_, S>) -> S, setup: Setup) -> Result<Self, Error> {
        let broken = |what| move |error: io::Error| Error::Loop(what, error);
        let signals = Signals::new().map_err(broken("signal handling"))?;
        let poll = Poll::new().map_err(broken("the event queue"))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(broken("the event queue"))?;
        let alarms = Alarms::new().map_err(broken("a timer"))?;
        let clock = ClockSteps::new().map_err(broken("a timer"))?;
        let watch = setup.watch;
        // Last: whoever finds the socket finds a service that notices signals and changes of its configuration.
        let listener = listener::listen(&setup.endpoint, &setup.passed).map_err(Error::Listen)?;

        let registry = poll.registry();
        let register =
            |fd: i32, token| registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        register(listener.socket.as_raw_fd(), LISTENER).map_err(broken("the listening socket"))?;
        register(signals.as_raw_fd(), SIGNALS).map_err(broken("signal handling"))?;
        register(alarms.as_raw_fd(), ALARMS).map_err(broken("a timer"))?;
        register(clock.as_raw_fd(), CLOCK).map_err(broken("a timer"))?;
        if let Some(watch) = &watch {
            register(watch.as_raw_fd(), WATCH).map_err(broken("the watch on the configuration"))?;
        }

        let mut kernel = Kernel {
            lanes: Lanes::new(Done::new(waker), setup.timing.worker_idle),
            alarms,
            timing: setup.timing,
            max_requests: usize::try_from(setup.max_requests).unwrap_or(usize::MAX),
            accounts: Accounts::new(),
            failed: false,
            table: Table::default(),
            buffers: Buffers::default(),
            ready: VecDeque::new(),
            stopping: false,
            requests: 0,
            log_target: S::NAME,
        };
        if setup.announce {
            log::info!("Starting server...");
        }
        notify(&[NotifyState::Ready]);
        let service = make(&mut Context {
            kernel: &mut kernel,
        });
        let watchdog = sd_notify::watchdog_enabled().map(|interval| {
            let half = interval / 2;
            (half, Instant::now() + half)
        });
        Ok(Self {
            service,
            kernel,
            poll,
            listener,
            signals,
            clock,
            watch,
            timers: BinaryHeap::new(),
            scratch: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            answered: Vec::with_capacity(BATCH),
            sent: 0,
            gathering: false,
            arrived: false,
            accept_again: None,
            accept_fails: false,
            reload: None,
            watchdog,
            stop_by: None,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(128);
        let mut results = Vec::new();
        self.service.start(&mut Context {
            kernel: &mut self.kernel,
        });
        loop {
            self.look_at_ready();
            if self.kernel.failed {
                return Err(Error::Service);
            }
            if self.kernel.stopping && (self.is_done() || self.overdue(Instant::now())) {
                log::info!("Stopped server.");
                return Ok(());
            }
            let timeout = if self.kernel.ready.is_empty() {
                self.timeout()
            } else {
                Some(Duration::ZERO)
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Loop("the event queue", error)),
            }
            // What a request finds unchanged counts for those beside it, not for a later round.
            self.arrived = true;
            // New connections come last: a client that closes one and opens another must find its place free.
            let mut accept = false;
            for event in &events {
                match event.token() {
                    LISTENER => accept = true,
                    WAKER => {
                        self.kernel.lanes.done().take(&mut results);
                        for result in results.drain(..) {
                            self.service.event(
                                result,
                                &mut Context {
                                    kernel: &mut self.kernel,
                                },
                            );
                        }
                    }
                    SIGNALS => self.signal(),
                    ALARMS => self.ring(),
                    CLOCK => {
                        if self.clock.stepped() {
                            log::info!("The wall clock was set.");
                            self.service.alarm(
                                Alarm::CLOCK_STEP,
                                &mut Context {
                                    kernel: &mut self.kernel,
                                },
                            );
                        }
                    }
                    WATCH => self.note_change(),
                    Token(index) => {
                        let Ok(index) = u32::try_from(index) else {
                            continue;
                        };
                        if let Some(conn) = self.kernel.table.at(index) {
                            conn.readable |= event.is_readable();
                            conn.peer_closed |= event.is_read_closed();
                            conn.peer_gone |= event.is_write_closed();
                            self.gather(index);
                        }
                    }
                }
            }
            self.serve();
            if accept {
                self.accept();
            }
            self.pass_time();
        }
    }

    /// How long nothing needs to be done unless something happens.
    fn timeout(&self) -> Option<Duration> {
        let next = [
            self.timers.peek().map(|Reverse((at, _, _))| *at),
            self.accept_again,
            self.reload.as_ref().map(|reload| reload.at),
            self.watchdog.map(|(_, at)| at),
            self.stop_by,
        ];
        next.into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Does what has come due.
    fn pass_time(&mut self) {
        let needed = self.timers.peek().is_some()
            || self.accept_again.is_some()
            || self.reload.is_some()
            || self.watchdog.is_some();
        if !needed {
            return;
        }
        let now = Instant::now();
        while let Some(Reverse((at, index, generation))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            self.expire(index, generation, at, now);
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.accept();
        }
        if self.reload.as_ref().is_some_and(|reload| reload.at <= now) {
            self.reload_now();
        }
        if let Some((interval, at)) = self.watchdog
            && at <= now
        {
            notify(&[NotifyState::Watchdog]);
            self.watchdog = Some((interval, now + interval));
        }
    }

    fn expire(&mut self, index: u32, generation: u32, at: Instant, now: Instant) {
        let Some(conn) = self.kernel.table.same(index, generation) else {
            return;
        };
        if conn.queued != Some(at) {
            return;
        }
        conn.queued = None;
        match conn.deadline {
            None => {}
            Some(deadline) if deadline > now => self.queue_timer(index),
            Some(_) => self.time_out(index),
        }
    }

    /// Makes sure that the timer queue has an entry no later than the connection's deadline.
    fn queue_timer(&mut self, index: u32) {
        let Some(conn) = self.kernel.table.at(index) else {
            return;
        };
        let Some(deadline) = conn.deadline else {
            return;
        };
        if conn.queued.is_none_or(|queued| queued > deadline) {
            conn.queued = Some(deadline);
            let generation = conn.generation;
            self.timers.push(Reverse((deadline, index, generation)));
        }
        // Connections that come and go leave their entries behind.
        if self.timers.len() >= TIMERS.max(4 * self.kernel.table.len()) {
            let table = &mut self.kernel.table;
            self.timers.retain(|Reverse((at, index, generation))| {
                table
                    .same(*index, *generation)
                    .is_some_and(|conn| conn.queued == Some(*at))
            });
        }
    }

    fn accept(&mut self) {
        if self.kernel.stopping || self.accept_again.is_some() {
            return;
        }
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.listener.socket.accept() {
                Ok((stream, _)) => {
                    self.accept_fails = false;
                    self.admit(stream);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return self.serve(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        // Out of descriptors or memory: connections in progress go on, and end.
                        if !std::mem::replace(&mut self.accept_fails, true) {
                            log::warn!(
                                "could not accept a connection: {error}; trying again until it works"
                            );
                        }
                        self.accept_again = Some(Instant::now() + self.kernel.timing.accept_pause);
                        return self.serve();
                    }
                },
            }
        }
        // There may be more; those that are connected have their turn first.
        self.accept_again = Some(Instant::now());
        self.serve();
    }

    fn admit(&mut self, stream: std::os::unix::net::UnixStream) {
        let peer = match sys::peer(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                log::warn!("could not tell who is connecting: {error}");
                return;
            }
        };
        if self.kernel.table.len() >= CONNECTIONS {
            log::info!(
                "Max simultaneous connections reached for user {}: the service has {CONNECTIONS} connections in all",
                peer.uid,
            );
            return;
        }
        if self
            .kernel
            .accounts
            .open(peer.uid, self.kernel.max_requests)
            .is_err()
        {
            // The kernel may not have told yet which of the user's connections are closed.
            self.look_at_connections_of(peer.uid);
            if let Err(refused) = self
                .kernel
                .accounts
                .open(peer.uid, self.kernel.max_requests)
            {
                log::info!("{refused}");
                return;
            }
        }
        if let Err(error) = self.attach(stream, peer) {
            self.kernel.accounts.close(peer.uid);
            log::warn!("could not serve a connection: {error}");
        }
    }

    fn look_at_connections_of(&mut self, uid: u32) {
        for index in self.kernel.table.places() {
            if let Some(conn) = self
                .kernel
                .table
                .at(index)
                .filter(|conn| conn.peer.uid == uid)
            {
                conn.readable = true;
                self.drive(index);
            }
            // A request may have been taken from it only now.
            if let Some(conn) = self
                .kernel
                .table
                .at(index)
                .filter(|conn| conn.peer.uid == uid && conn.awaits().is_some())
            {
                conn.peer_gone |= conn.has_hung_up();
                self.drive(index);
            }
        }
    }

    fn attach(
        &mut self,
        stream: std::os::unix::net::UnixStream,
        peer: sys::Peer,
    ) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let stream = mio::net::UnixStream::from_std(stream);
        let deadline = Instant::now() + self.kernel.timing.head;
        let index = self.kernel.table.insert(|generation| {
            let mut conn = Conn::new(stream, peer, generation);
            conn.deadline = Some(deadline);
            conn
        });
        let Some(conn) = self.kernel.table.at(index) else {
            return Ok(());
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll
                .registry()
                .register(&mut conn.stream, Token(index as usize), interest)
        {
            self.kernel.table.remove(index);
            return Err(error);
        }
        self.queue_timer(index);
        self.gather(index);
        Ok(())
    }

    /// Reads the beginning of a connection's next request, and leaves the rest to [`Server::serve`].
    fn gather(&mut self, index: u32) {
        let buffers = &mut self.kernel.buffers;
        let read = self
            .kernel
            .table
            .at(index)
            .filter(|conn| conn.is_idle() && matches!(conn.state, State::Head))
            .map(|conn| conn.read(buffers));
        if read == Some(Got::Broken)
            && let Some(conn) = self.kernel.table.take(index)
        {
            return self.close(index, conn);
        }
        self.arrived |= read == Some(Got::Bytes);
        self.batch.push(index);
        if self.batch.len() >= BATCH {
            self.serve();
        }
    }

    /// Takes the connections of the batch as far as they get: first all their requests are served, then all answers are
    /// sent. A client with several requests under way is woken up once that way, and that costs more than a signature does.
    /// One request of each connection is served before others get their answers, and what is behind it afterwards.
    fn serve(&mut self) {
        self.gathering = true;
        let mut since = (self.batch.len() > 1).then(Instant::now);
        for at in 0..self.batch.len() {
            if let Some(&index) = self.batch.get(at) {
                self.drive(index);
            }
            if self.sent < self.answered.len()
                && let Some(since) = &mut since
            {
                let now = Instant::now();
                if now.saturating_duration_since(*since) >= LONGEST_WAIT {
                    self.send_answers();
                    *since = now;
                }
            }
        }
        self.batch.clear();
        self.send_answers();
        self.gathering = false;
        // What else has come in behind the requests, only now: nobody's answer waits for that.
        for at in 0..self.answered.len() {
            if let Some(&index) = self.answered.get(at) {
                self.drive(index);
            }
        }
        self.answered.clear();
        self.sent = 0;
    }

    /// Sends the answers of the batch that have not been sent.
    fn send_answers(&mut self) {
        while let Some(&index) = self.answered.get(self.sent) {
            self.sent += 1;
            if let Some(mut conn) = self.kernel.table.take(index) {
                match conn.pending().then(|| self.send(&mut conn)).flatten() {
                    Some(Verdict::Close) => self.close(index, conn),
                    Some(Verdict::Keep) | None => self.kernel.table.put_back(index, conn),
                }
            }
        }
    }

    /// Takes a connection as far as it gets.
    fn drive(&mut self, index: u32) {
        let Some(mut conn) = self.kernel.table.take(index) else {
            return;
        };
        match self.advance(&mut conn, index) {
            Verdict::Keep => {
                // An answer that is sent in a moment does not count towards the memory of those that nobody takes.
                if !(self.gathering && conn.pending()) {
                    conn.release(&mut self.kernel.buffers);
                }
                let needs_timer = conn
                    .deadline
                    .is_some_and(|deadline| conn.queued.is_none_or(|queued| queued > deadline));
                self.kernel.table.put_back(index, conn);
                if needs_timer {
                    self.queue_timer(index);
                }
            }
            Verdict::Close => self.close(index, conn),
        }
    }

    fn close(&mut self, index: u32, mut conn: Box<Conn>) {
        self.kernel.accounts.close(conn.peer.uid);
        let _ = self.poll.registry().deregister(&mut conn.stream);
        if let Some(number) = conn.awaits() {
            self.kernel.lanes.forget(number);
        }
        if let Some(input) = conn.input.take() {
            self.kernel.buffers.give_back(input);
        }
        self.kernel
            .buffers
            .give_back_output(std::mem::take(&mut conn.output));
        self.kernel.table.vacate(index);
    }

    fn look_at_ready(&mut self) {
        // Connections that become ready meanwhile have their turn after the next look at the kernel's events.
        for _ in 0..self.kernel.ready.len() {
            if let Some(index) = self.kernel.ready.pop_front() {
                self.drive(index);
            }
        }
    }

    fn ring(&mut self) {
        while let Some(alarm) = self.kernel.alarms.due() {
            self.service.alarm(
                alarm,
                &mut Context {
                    kernel: &mut self.kernel,
                },
            );
        }
    }

    fn note_change(&mut self) {
        if self.watch.as_mut().is_some_and(Watch::changed) {
            let now = Instant::now();
            let quiet = self.kernel.timing.reload;
            let latest = self
                .reload
                .as_ref()
                .map_or(now + quiet * RELOAD_LATEST, |reload| reload.latest);
            self.reload = Some(Reload {
                at: (now + quiet).min(latest),
                latest,
            });
        }
    }

    fn reload_now(&mut self) {
        self.reload = None;
        // Directories may have come since the watch was told of a change.
        if let Some(watch) = &mut self.watch {
            watch.renew();
        }
        notify_reloading();
        self.service.reload(&mut Context {
            kernel: &mut self.kernel,
        });
        notify(&[NotifyState::Ready]);
    }

    fn signal(&mut self) {
        loop {
            match self.signals.next() {
                Ok(Some(Signal::Reload)) => {
                    log::info!("Received SIGHUP.");
                    self.reload_now();
                }
                Ok(Some(Signal::Stop)) => self.stop(),
                Ok(None) => return,
                Err(error) => {
                    log::error!("could not read a signal: {error}");
                    return;
                }
            }
        }
    }

    /// Stops accepting, closes what is idle, and grants running requests some time.
    fn stop(&mut self) {
        if self.kernel.stopping {
            return;
        }
        self.kernel.stopping = true;
        notify(&[NotifyState::Stopping]);
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&self.listener.socket.as_raw_fd()));
        if let Some(bound) = self.listener.bound.take() {
            bound.remove();
        }
        self.stop_by = Some(Instant::now() + self.kernel.timing.stop);
        for index in self.kernel.table.places() {
            let idle = self
                .kernel
                .table
                .at(index)
                .is_some_and(|conn| conn.is_idle());
            if idle && let Some(conn) = self.kernel.table.take(index) {
                self.close(index, conn);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.kernel.table.is_empty() && !self.kernel.lanes.is_writing()
    }

    fn overdue(&self, now: Instant) -> bool {
        self.stop_by.is_some_and(|at| at <= now)
    }
}

/// The wall clock in seconds.
pub(crate) fn wall_clock() -> UnixTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    UnixTime::from_secs(u64::try_from(now.tv_sec).unwrap_or(0)).unwrap_or_default()
}

/// Tells the service manager, where there is one.
fn notify(states: &[NotifyState<'_>]) {
    if std::env::var_os("NOTIFY_SOCKET").is_some()
        && let Err(error) = sd_notify::notify(states)
    {
        log::warn!("could not notify the service manager: {error}");
    }
}

fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}
