//! Sockets and TLS: accepts connections, reads requests, delivers answers as the faults demand.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use openssl::ssl::{SslAcceptor, SslMethod, SslSessionCacheMode, SslStream, SslVerifyMode};
use openssl::x509::X509;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::clock::Clock;
use super::fault::Action;
use super::http::{BodyFraming, ReadError, Request};
use super::service::{self, Delivery, Exchange};
use super::world::World;
use crate::pki;

/// How long a connection may be silent before it is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How long the end of connections is awaited when the simulator stops.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// The certificates that a connection may be offered.
pub struct Certificates {
    /// The good one.
    pub trusted: SslAcceptor,
    /// One of an authority that nobody trusts.
    pub untrusted: SslAcceptor,
    /// One that ended yesterday.
    pub expired: SslAcceptor,
    /// One for another name.
    pub wrong_name: SslAcceptor,
}

impl Certificates {
    /// TLS 1.2 and 1.3 with this certificate.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn acceptor(identity: &pki::Identity) -> Result<SslAcceptor, pki::Error> {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_certificate(&identity.certificate)?;
        builder.set_private_key(&identity.key)?;
        builder.check_private_key()?;
        // Clients are asked who they are; whether the answer is good, the services say.
        builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        // A resumed session would not bring the chain of the client along.
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_num_tickets(0)?;
        Ok(builder.build())
    }
}

/// What all threads of a simulator share.
pub struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    /// The services' clock.
    pub clock: Clock,
    connections: Mutex<Connections>,
    ended: Condvar,
    certificates: Certificates,
    verbose: bool,
}

impl Shared {
    /// A world behind these certificates.
    #[must_use]
    pub fn new(world: World, certificates: Certificates, verbose: bool) -> Self {
        Self {
            world: Mutex::new(world),
            changed: Condvar::new(),
            clock: Clock::default(),
            connections: Mutex::default(),
            ended: Condvar::new(),
            certificates,
            verbose,
        }
    }

    /// The state, locked. Wakes those who wait for a change when it is given back.
    pub fn world(&self) -> WorldGuard<'_> {
        WorldGuard {
            world: lock(&self.world),
            changed: &self.changed,
        }
    }

    /// Waits until `condition` holds for the state; false if it does not within `timeout`.
    pub fn wait_until(&self, timeout: Duration, mut condition: impl FnMut(&World) -> bool) -> bool {
        let guard = lock(&self.world);
        let waited = self
            .changed
            .wait_timeout_while(guard, timeout, |world| !condition(world));
        let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        !result.timed_out()
    }

    /// How many connections were accepted, and how many of them failed in TLS.
    #[must_use]
    pub fn connection_counts(&self) -> (u64, u64) {
        let connections = lock(&self.connections);
        (connections.accepted, connections.failed_handshakes)
    }

    /// Pauses, but not beyond the end of the connection's generation.
    fn pause(&self, generation: u64, time: Duration) {
        let guard = lock(&self.connections);
        let wait = self
            .ended
            .wait_timeout_while(guard, time, |now| now.generation == generation);
        drop(wait);
    }

    fn report(&self, text: &str) {
        if self.verbose {
            // The program's log; the tests leave it off.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// The state, locked.
pub struct WorldGuard<'a> {
    world: MutexGuard<'a, World>,
    changed: &'a Condvar,
}

impl core::ops::Deref for WorldGuard<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl core::ops::DerefMut for WorldGuard<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Drop for WorldGuard<'_> {
    fn drop(&mut self) {
        self.changed.notify_all();
    }
}

/// Connections of the listener that is open now. Closing it begins a new generation and ends all of them.
#[derive(Default)]
struct Connections {
    generation: u64,
    accepted: u64,
    failed_handshakes: u64,
    open: BTreeMap<u64, Weak<TcpStream>>,
}

/// The listening socket, or its place while nobody listens.
pub struct Listener {
    shared: Arc<Shared>,
    port: u16,
    state: State,
}

enum State {
    /// The socket is bound, so that nobody else takes the port, but does not listen: connections are refused.
    Closed { _place: OwnedFd },
    Open {
        socket: TcpListener,
        thread: Option<JoinHandle<()>>,
    },
    /// Between the two, and after a failure.
    None,
}

impl Listener {
    /// Accepts connections on `socket`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(shared: Arc<Shared>, socket: TcpListener) -> io::Result<Self> {
        let port = socket.local_addr()?.port();
        let state = open(&shared, socket)?;
        Ok(Self {
            shared,
            port,
            state,
        })
    }

    /// The TCP port, also while nobody listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections and refuses new ones, but keeps the port.
    ///
    /// # Errors
    /// When the port cannot be kept.
    pub fn close(&mut self) -> io::Result<()> {
        if matches!(self.state, State::Closed { .. }) {
            return Ok(());
        }
        self.shut_down();
        self.state = State::Closed {
            _place: bind_without_listening(self.port)?,
        };
        Ok(())
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// When it cannot.
    pub fn reopen(&mut self) -> io::Result<()> {
        if matches!(self.state, State::Open { .. }) {
            return Ok(());
        }
        let place = match core::mem::replace(&mut self.state, State::None) {
            State::Closed { _place: place } => place,
            _ => bind_without_listening(self.port)?,
        };
        rustix::net::listen(&place, BACKLOG)?;
        self.state = open(&self.shared, TcpListener::from(place))?;
        Ok(())
    }

    /// Ends the listener and all its connections, and waits for their threads.
    pub fn shut_down(&mut self) {
        if let State::Open { socket, thread } = core::mem::replace(&mut self.state, State::None) {
            lock(&self.shared.connections).generation += 1;
            // Wakes accept() with an error.
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
        let mut connections = lock(&self.shared.connections);
        for stream in connections.open.values().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.ended.notify_all();
        let deadline = Instant::now() + STOP_DEADLINE;
        while !connections.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.ended.wait_timeout(connections, left);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn open(shared: &Arc<Shared>, socket: TcpListener) -> io::Result<State> {
    let accepting = socket.try_clone()?;
    let shared = Arc::clone(shared);
    let generation = lock(&shared.connections).generation;
    let thread = thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || accept(&shared, &accepting, generation))?;
    Ok(State::Open {
        socket,
        thread: Some(thread),
    })
}

fn bind_without_listening(port: u16) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, generation: u64) {
    loop {
        let accepted = listener.accept();
        let mut connections = lock(&shared.connections);
        if connections.generation != generation {
            return;
        }
        let Ok((stream, _)) = accepted else {
            drop(connections);
            shared.pause(generation, Duration::from_millis(50)); // out of descriptors, or aborted by the client
            continue;
        };
        connections.accepted += 1;
        let number = connections.accepted;
        let stream = Arc::new(stream);
        connections.open.insert(number, Arc::downgrade(&stream));
        drop(connections);
        let connection = Connection {
            shared: Arc::clone(shared),
            stream: Some(stream),
            number,
            generation,
        };
        // If no thread can be started, the connection is closed.
        let _ = thread::Builder::new()
            .name(format!("connection {number}"))
            .spawn(move || connection.run());
    }
}

struct Connection {
    shared: Arc<Shared>,
    stream: Option<Arc<TcpStream>>,
    number: u64,
    generation: u64,
}

impl Connection {
    fn run(mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(IDLE));
        let _ = stream.set_write_timeout(Some(IDLE));
        let fault = self.shared.world().faults.take_for_connection();
        let certificates = &self.shared.certificates;
        let acceptor = match &fault {
            Some(Action::HangConnection) => return wait_for_end(&stream),
            Some(Action::ResetConnection) => return reset(&stream),
            Some(Action::ExpiredCertificate) => &certificates.expired,
            Some(Action::UntrustedCertificate) => &certificates.untrusted,
            Some(Action::WrongName) => &certificates.wrong_name,
            _ => &certificates.trusted,
        };
        match acceptor.accept(&*stream) {
            Ok(tls) => self.serve(tls, &stream),
            Err(error) => {
                lock(&self.shared.connections).failed_handshakes += 1;
                self.shared
                    .report(&format!("connection {}: TLS: {error}", self.number));
            }
        }
    }

    fn serve(&self, mut tls: SslStream<&TcpStream>, stream: &TcpStream) {
        let mut spare = Vec::new();
        let client = presented(&tls);
        loop {
            let request = match Request::read(&mut tls, &mut spare) {
                Ok(Some(request)) => Request {
                    client: client.clone(),
                    ..request
                },
                Ok(None) => break,
                Err(ReadError::Io(error)) => {
                    self.shared
                        .report(&format!("connection {}: {error}", self.number));
                    break;
                }
                Err(ReadError::Malformed(problem)) => {
                    self.shared
                        .report(&format!("connection {}: {problem}", self.number));
                    self.shared.world().journal.record_unreadable(problem);
                    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = tls.write_all(answer);
                    break;
                }
            };
            let line = format!("{} {}", request.method, request.target);
            let closes = request
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let exchange = {
                let mut world = self.shared.world();
                let exchange =
                    service::answer(&mut world, &self.shared.clock, request, self.number);
                if let Some(entry) = world
                    .journal
                    .entries_since(world.journal.last_number() - 1)
                    .last()
                {
                    let status = entry
                        .status
                        .map_or_else(|| "no answer".to_owned(), |s| s.to_string());
                    let why = entry
                        .refusal
                        .as_deref()
                        .map(|why| format!(" ({why})"))
                        .unwrap_or_default();
                    let fault = entry
                        .fault
                        .map(|fault| format!(" [{fault}]"))
                        .unwrap_or_default();
                    self.shared
                        .report(&format!("{line} -> {status}{why}{fault}"));
                }
                exchange
            };
            match self.deliver(&mut tls, stream, &exchange) {
                Next::Abandon => return,
                Next::Close => break,
                Next::Request if closes => break,
                Next::Request => {}
            }
        }
        let _ = tls.shutdown();
    }

    /// Delivers an answer, or does not.
    fn deliver(
        &self,
        tls: &mut SslStream<&TcpStream>,
        stream: &TcpStream,
        exchange: &Exchange,
    ) -> Next {
        let bytes = exchange
            .response
            .to_bytes(exchange.framing, &self.shared.clock.http_date());
        let written = match exchange.delivery {
            Delivery::Normal => tls.write_all(&bytes),
            Delivery::Delayed(time) => {
                self.shared.pause(self.generation, time);
                tls.write_all(&bytes)
            }
            Delivery::Drip(size, time) => bytes.chunks(size).try_for_each(|piece| {
                self.shared.pause(self.generation, time);
                tls.write_all(piece)
            }),
            Delivery::Hang => {
                wait_for_end(stream);
                return Next::Abandon;
            }
            Delivery::Reset => {
                reset(stream);
                return Next::Abandon;
            }
            Delivery::Truncated(length) => {
                let _ = tls.write_all(bytes.get(..length).unwrap_or(&bytes));
                // An end without TLS's close_notify, as a failing network gives it.
                return Next::Abandon;
            }
        };
        match written {
            Ok(()) if exchange.framing != BodyFraming::Close => Next::Request,
            _ => Next::Close,
        }
    }
}

/// What happens to a connection after an answer.
enum Next {
    /// It ends without a word in TLS.
    Abandon,
    /// It ends in good order.
    Close,
    /// It serves another request.
    Request,
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.shared.connections).open.remove(&self.number);
        self.shared.ended.notify_all();
    }
}

/// The certificates that the client presented, its own first, in DER.
fn presented(tls: &SslStream<&TcpStream>) -> Vec<Vec<u8>> {
    let own: Option<X509> = tls.ssl().peer_certificate();
    let above = tls.ssl().peer_cert_chain().into_iter().flatten();
    let own = own
        .iter()
        .filter_map(|certificate| certificate.to_der().ok());
    own.chain(above.filter_map(|certificate| certificate.to_der().ok()))
        .collect()
}

/// Reads and forgets until the client gives up.
fn wait_for_end(mut stream: &TcpStream) {
    let _ = stream.set_read_timeout(None);
    let mut sink = [0; 1024];
    while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
}

/// Makes the coming close a reset: nothing more is sent, and the peer's read fails.
fn reset(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
