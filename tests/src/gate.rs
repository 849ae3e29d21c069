//! A gate before a service's socket, which stops at a chosen exchange: for what happens when a client dies there.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::simulator::http::Request;

/// Where in an exchange to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the service has seen the request.
    Before,
    /// After it has answered, before the client has seen the answer.
    After,
}

/// A running gate. It serves as long as the process lives.
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: std::path::PathBuf,
    stop_at: usize,
    side: Side,
    /// The beginning of the request lines that are answered with 500, and how many of them still are.
    refused: Option<(String, AtomicUsize)>,
    exchanges: AtomicUsize,
    reached: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Listens at `socket` for the service at `upstream`. At exchange number `stop_at` (from 1, over all connections) it stops
    /// for good; 0 never does.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(socket: &Path, upstream: &Path, stop_at: usize, side: Side) -> io::Result<Self> {
        Self::open(socket, upstream, (stop_at, side), None)
    }

    /// As [`start`](Self::start), but never stops: the first `count` requests whose line begins with `line` are answered with 500
    /// and go no further.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn refusing(socket: &Path, upstream: &Path, line: &str, count: usize) -> io::Result<Self> {
        let refused = Some((line.to_owned(), AtomicUsize::new(count)));
        Self::open(socket, upstream, (0, Side::Before), refused)
    }

    fn open(
        socket: &Path,
        upstream: &Path,
        (stop_at, side): (usize, Side),
        refused: Option<(String, AtomicUsize)>,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            stop_at,
            side,
            refused,
            exchanges: AtomicUsize::new(0),
            reached: Mutex::new(false),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // What fails here the client and the service notice.
                thread::spawn(move || drop(serve(&shared, client)));
            }
        });
        Ok(Self { shared })
    }

    /// Waits until the gate has stopped; false if it has not within `timeout`.
    #[must_use]
    pub fn stopped_within(&self, timeout: Duration) -> bool {
        let reached = lock(&self.shared.reached);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(reached, timeout, |reached| !*reached);
        let (reached, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *reached
    }

    /// How many exchanges there have been.
    #[must_use]
    pub fn exchanges(&self) -> usize {
        self.shared.exchanges.load(Ordering::SeqCst)
    }
}

fn serve(shared: &Shared, mut client: UnixStream) -> io::Result<()> {
    let mut service = UnixStream::connect(&shared.upstream)?;
    let mut spare = Vec::new();
    while let Ok(Some(request)) = Request::read(&mut client, &mut spare) {
        let number = shared.exchanges.fetch_add(1, Ordering::SeqCst) + 1;
        if number == shared.stop_at && shared.side == Side::Before {
            return stop(shared, &mut client);
        }
        if let Some((line, left)) = &shared.refused
            && format!("{} {}", request.method, request.target).starts_with(line)
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
        {
            let answer = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 28\r\n\r\n{\"message\":\"internal error\"}";
            client.write_all(answer.as_bytes())?;
            continue;
        }
        let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
        for (name, value) in &request.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body);
        service.write_all(&bytes)?;
        let answer = answer(&mut service)?;
        if number == shared.stop_at && shared.side == Side::After {
            return stop(shared, &mut client);
        }
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Says so, and holds the connection until the client is gone.
fn stop(shared: &Shared, client: &mut UnixStream) -> io::Result<()> {
    *lock(&shared.reached) = true;
    shared.changed.notify_all();
    let mut sink = [0; 256];
    while client.read(&mut sink)? > 0 {}
    Ok(())
}

/// The bytes of one answer with a length, or without a body.
fn answer(service: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Ok(bytes);
            }
        }
        match service.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
