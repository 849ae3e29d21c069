//! Services that do what a test tells them, one connection after the other.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a step that fails, fails the test"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use aziot_keys_client::{Client, Deadlines, Error, KeyHandle, transport};
use tempfile::TempDir;

/// More than anything takes that is meant to succeed.
pub const LONG: Duration = Duration::from_secs(60);

/// What is meant to pass.
pub const SHORT: Duration = Duration::from_millis(150);

/// A directory for a socket, and the socket.
pub fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    (directory, path)
}

/// A service that treats one connection after the other.
pub struct Service {
    path: PathBuf,
    serving: JoinHandle<()>,
    _directory: TempDir,
}

impl Service {
    /// Has `treat` called with `connections` connections and their numbers, then stops listening.
    pub fn new(
        connections: usize,
        mut treat: impl FnMut(usize, UnixStream) + Send + 'static,
    ) -> Self {
        let (directory, path) = place();
        let listener = UnixListener::bind(&path).unwrap();
        let serving = std::thread::spawn(move || {
            for number in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(LONG)).unwrap();
                stream.set_write_timeout(Some(LONG)).unwrap();
                treat(number, stream);
            }
        });
        Self {
            path,
            serving,
            _directory: directory,
        }
    }

    /// A service that reads one request, gives this answer, and waits for the client to hang up.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(1, move |_, mut stream| {
            request(&mut stream);
            // A client that does not like the beginning hangs up.
            let _ = stream.write_all(&answer);
            hang_on(stream);
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A client that waits for long.
    pub fn client(&self) -> Client {
        client(&self.path, Deadlines::all(LONG))
    }

    /// Waits until all connections have been treated.
    pub fn end(self) {
        self.serving.join().unwrap();
    }
}

/// A client that does not try again.
pub fn client(path: &Path, deadlines: Deadlines) -> Client {
    Client::with(path, deadlines, transport::Patience::default())
}

/// Reads a request, and answers its bytes.
pub fn request(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the request ends early: {bytes:?}");
        bytes.extend_from_slice(&piece[..read]);
        if let Some(length) = length(&bytes)
            && bytes.len() >= length
        {
            assert_eq!(bytes.len(), length, "more than a request");
            return bytes;
        }
    }
}

/// The length of head and body, once the head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let body = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |value| value.parse().unwrap());
    Some(end + body)
}

/// Leaves the connection open until the client closes it.
pub fn hang_on(mut stream: UnixStream) {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
}

/// A response with this body.
pub fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\ndate: Sat, 21 Nov 2026 19:40:00 \
         GMT\r\n\r\n{body}"
    )
}

pub fn handle() -> KeyHandle {
    KeyHandle::new("sr=QQ==&sig=QQ==")
}

/// The error of the transport, or a failed test.
pub fn transport_error<T: std::fmt::Debug>(result: Result<T, Error>) -> transport::Error {
    match result {
        Err(Error::Transport(error)) => error,
        other => panic!("{other:?}"),
    }
}
