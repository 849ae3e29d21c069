//! A way to a service's socket that writes down what is asked.

use std::io::{Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A listener that passes everything on to a service. It ends with the process.
#[derive(Debug)]
pub struct Proxy {
    connections: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Proxy {
    /// Listens at `at` for those who want to talk to the service at `service`.
    ///
    /// # Panics
    /// When it cannot listen there.
    #[must_use]
    pub fn start(service: PathBuf, at: &Path) -> Self {
        let listener = UnixListener::bind(at).expect("a socket to listen on");
        let connections = Arc::<Mutex<Vec<Vec<String>>>>::default();
        let seen = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let index = {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(Vec::new());
                    seen.len() - 1
                };
                let (service, seen) = (service.clone(), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let write_down = |line| {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(connection) = seen.get_mut(index) {
                            connection.push(line);
                        }
                    };
                    // Whatever ends the connection ends it for both.
                    let _ = pass_on(client, &service, write_down);
                });
            }
        });
        Self { connections }
    }

    /// How many connections there have been.
    #[must_use]
    pub fn count(&self) -> usize {
        self.since(0).len()
    }

    /// The connections but for the first `earlier`, each with the first lines of the requests over it. A request is there
    /// before its answer.
    #[must_use]
    pub fn since(&self, earlier: usize) -> Vec<Vec<String>> {
        let seen = self.connections.lock();
        let seen = seen.unwrap_or_else(PoisonError::into_inner);
        seen.get(earlier..).unwrap_or_default().to_vec()
    }
}

fn pass_on(
    mut client: UnixStream,
    service: &Path,
    mut write_down: impl FnMut(String),
) -> std::io::Result<()> {
    let mut service = UnixStream::connect(service)?;
    let mut back = (service.try_clone()?, client.try_clone()?);
    let answers = std::thread::spawn(move || {
        let _ = std::io::copy(&mut back.0, &mut back.1);
        let _ = back.1.shutdown(Shutdown::Both);
    });
    let mut requests = Requests::default();
    let mut buffer = [0; 4096];
    loop {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let piece = &buffer[..read];
        requests.feed(piece, &mut write_down);
        service.write_all(piece)?;
    }
    let _ = service.shutdown(Shutdown::Write);
    let _ = answers.join();
    Ok(())
}

/// Finds requests with a `content-length`, or without a body, in what a client sends.
#[derive(Default)]
struct Requests {
    head: Vec<u8>,
    /// What is left of a body.
    body: usize,
}

impl Requests {
    fn feed(&mut self, mut piece: &[u8], found: &mut impl FnMut(String)) {
        while let Some((&byte, rest)) = piece.split_first() {
            if self.body > 0 {
                let skipped = self.body.min(piece.len());
                self.body -= skipped;
                piece = &piece[skipped..];
                continue;
            }
            self.head.push(byte);
            piece = rest;
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.head).into_owned();
                found(head.lines().next().unwrap_or_default().to_owned());
                self.body = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .and_then(|(_, value)| value.trim().parse().ok())
                    .unwrap_or(0);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_wherever_they_are_cut() {
        let bytes = b"POST /a HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET /not HTTP/1.1\r\n\r\
                      GET /b HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        for size in 1..bytes.len() {
            let (mut requests, mut lines) = (Requests::default(), Vec::new());
            for piece in bytes.chunks(size) {
                requests.feed(piece, &mut |line| lines.push(line));
            }
            assert_eq!(
                lines,
                ["POST /a HTTP/1.1", "GET /b HTTP/1.1", "POST /c HTTP/1.1"]
            );
        }
    }
}
