//! An HTTP proxy for tests: `CONNECT` and absolute-form requests (RFC 9110 section 9.3.6, RFC 9112 section 3.2.2).

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::simulator::http::Request;

/// How long either side may be silent.
const IDLE: Duration = Duration::from_secs(30);

/// A proxy on a free port of 127.0.0.1 that notes what it is asked for. It takes every destination to be on this machine.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// What `proxy-authorization` has to be, if it is demanded.
    demanded: Option<String>,
    log: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl Proxy {
    /// Starts one. `demanded` is the value of `proxy-authorization` without which it answers 407.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(demanded: Option<&str>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            demanded: demanded.map(str::to_owned),
            log: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    if serving.stopped.load(Ordering::SeqCst) {
                        break;
                    }
                    let shared = Arc::clone(&serving);
                    // A connection that fails is the tunnelled client's to complain about.
                    thread::spawn(move || drop(serve(&shared, client)));
                }
            })?;
        Ok(Self { port, shared })
    }

    /// Its TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The requests that it was sent itself, oldest first; what went through tunnels is not seen.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.log).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes accept().
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn serve(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    let mut spare = Vec::new();
    let Ok(Some(request)) = Request::read(&mut client, &mut spare) else {
        return Ok(());
    };
    let authorised = match &shared.demanded {
        Some(demanded) => request.header("proxy-authorization") == Some(demanded),
        None => true,
    };
    lock(&shared.log).push(request.clone());
    if !authorised {
        return client.write_all(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    }
    if request.method == "CONNECT" {
        let Ok(server) = TcpStream::connect(local(&request.target)) else {
            return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
        };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        return tunnel(client, server);
    }
    let Some((authority, path)) = request
        .target
        .strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|at| rest.split_at(at)))
    else {
        return client.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    };
    let mut server = TcpStream::connect(local(authority))?;
    let mut head = format!("{} {path} HTTP/1.1\r\n", request.method);
    for (name, value) in &request.headers {
        if !name.eq_ignore_ascii_case("proxy-authorization") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("connection: close\r\n\r\n");
    server.write_all(head.as_bytes())?;
    server.write_all(&request.body)?;
    tunnel(client, server)
}

/// The port of a destination, on this machine.
fn local(authority: &str) -> (Ipv4Addr, u16) {
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    (
        Ipv4Addr::LOCALHOST,
        port.and_then(|port| port.parse().ok()).unwrap_or(443),
    )
}

fn tunnel(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let upward = thread::spawn(move || copy(from, to));
    copy(server, client);
    let _ = upward.join();
    Ok(())
}

/// Copies until one side ends, and tells the other.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let piece = buffer.get(..count).unwrap_or_default();
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
