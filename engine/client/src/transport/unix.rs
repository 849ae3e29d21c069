//! Requests to services over their Unix sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Kind, Step};
use super::exchange::{self, Bounds, Request, Response};
use super::wire::{self, Deadline};

/// Pauses before a request is sent again to a service that closed the connection without reading it: it has too many
/// connections of this user open, and some of them end soon.
const THROTTLED: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// A service on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the `host` field of requests says, and what errors call the service: `keyd.sock`.
    pub host: &'static str,
    /// The unit that runs it.
    pub unit: &'static str,
    /// The group whose members may connect.
    pub group: &'static str,
}

impl Peer {
    /// The Keys Service.
    pub const KEYS: Self = Self {
        host: "keyd.sock",
        unit: "aziot-keyd",
        group: "aziotks",
    };
}

/// How often to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Attempts after the first one that failed in transport.
    pub retries: u32,
    /// Pause before each.
    pub pause: Duration,
}

/// A request and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'r> {
    /// The request.
    pub request: Request<'r>,
    /// Whether doing it twice does the same as doing it once. Otherwise it is only sent again when it was not carried out.
    pub idempotent: bool,
    /// Largest body of the response, in bytes.
    pub body_limit: usize,
    /// How long making the connection may take, at most.
    pub connect: Duration,
    /// How long the service may take between two pieces of the exchange, at most.
    pub silence: Duration,
    /// How long one attempt may take as a whole, at most.
    pub attempt: Duration,
}

/// Makes requests to one service, one connection per request. There is no state that threads or a forked child could share.
#[derive(Clone, Debug)]
pub struct UnixClient {
    path: PathBuf,
    peer: Peer,
    patience: Patience,
}

impl UnixClient {
    /// A client for the service whose socket is at `path`.
    #[must_use]
    pub fn new(path: PathBuf, peer: Peer, patience: Patience) -> Self {
        Self {
            path,
            peer,
            patience,
        }
    }

    /// The host name of the service, for requests.
    #[must_use]
    pub fn host(&self) -> &'static str {
        self.peer.host
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a request, which takes at most all attempts and pauses together.
    ///
    /// A request that the service closed the connection on, without reading it, is sent up to three times more after short
    /// pauses; any other failure takes one of the retries. A request that may have been carried out is only sent again if it
    /// is idempotent.
    ///
    /// # Errors
    /// The [`Error`] of the last attempt.
    pub fn call(&self, call: &Call<'_>) -> Result<Response, Error> {
        let mut retries = 0;
        let mut throttled = THROTTLED.iter();
        loop {
            let error = match self.attempt(call) {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if error.is_unsent()
                && error.kind() == (Kind::Closed { answered: false })
                && let Some(pause) = throttled.next()
            {
                log::debug!("{error}; trying again in {} ms", pause.as_millis());
                std::thread::sleep(*pause);
                continue;
            }
            if !(call.idempotent || error.is_unsent()) {
                return Err(error);
            }
            retries += 1;
            log::warn!(
                "Failed to send HTTP request (attempt {retries} of {}): {error}",
                self.patience.retries.saturating_add(1)
            );
            if retries > self.patience.retries {
                return Err(error);
            }
            std::thread::sleep(self.patience.pause);
        }
    }

    fn attempt(&self, call: &Call<'_>) -> Result<Response, Error> {
        let by = Deadline::after(call.attempt);
        let mut stream = wire::connect_unix(&self.path, by.within(call.connect))
            .map_err(|error| self.not_connected(&error))?;
        let bounds = Bounds {
            body: call.body_limit,
            silence: call.silence,
            by,
        };
        exchange::exchange(&mut stream, self.peer.host, &call.request, bounds)
    }

    fn not_connected(&self, error: &io::Error) -> Error {
        use io::ErrorKind as E;
        let path = self.path.display();
        let Peer { host, unit, group } = self.peer;
        if error.kind() == E::TimedOut {
            return Error::new(
                host,
                Step::Connect,
                Kind::TimedOut,
                format!("{path}: deadline has elapsed; {unit} does not accept connections"),
            );
        }
        let remedy = match error.kind() {
            E::NotFound | E::ConnectionRefused => {
                format!("; check that {unit} is running, with `systemctl status {unit}`")
            }
            E::PermissionDenied => format!("; the user has to be a member of the group {group}"),
            _ => String::new(),
        };
        let error = io::Error::new(error.kind(), format!("{path}: {error}{remedy}"));
        Error::io(host, Step::Connect, &error, false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;
    use std::time::Instant;

    use super::*;

    const REQUEST: Request<'_> = Request {
        method: "GET",
        host: "keyd.sock",
        target: "/key/x",
        headers: &[],
        body: None,
    };

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    /// A client that pauses for 30 ms between attempts.
    fn client(path: &Path, retries: u32) -> UnixClient {
        let pause = Duration::from_millis(30);
        UnixClient::new(path.to_owned(), Peer::KEYS, Patience { retries, pause })
    }

    fn call(idempotent: bool, attempt: Duration) -> Call<'static> {
        Call {
            request: REQUEST,
            idempotent,
            body_limit: 100,
            connect: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            attempt,
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    /// Treats one connection after the other: closes it at once, says nothing, or answers.
    fn server(path: &Path, script: &'static [&'static str]) -> JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for act in script {
                let (mut stream, _) = listener.accept().unwrap();
                match *act {
                    "close" => drop(stream),
                    "silence" => silent.push(stream),
                    _ => {
                        let mut head = [0; 256];
                        assert!(stream.read(&mut head).unwrap() > 0);
                        stream.write_all(OK).unwrap();
                    }
                }
            }
            // The client is the one to hang up.
            for mut stream in silent {
                while stream.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
            }
        })
    }

    #[test]
    fn hc_08_a_service_that_closes_without_a_word_is_tried_again_and_then_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let serving = server(&path, &["close", "close", "answer"]);
        let begin = Instant::now();
        let response = client(&path, 0).call(&call(false, LONG)).unwrap();
        assert_eq!(response.status, 200);
        assert!(
            begin.elapsed() >= Duration::from_millis(300),
            "{:?}",
            begin.elapsed()
        );
        serving.join().unwrap();

        std::fs::remove_file(&path).unwrap();
        let serving = server(&path, &["close", "close", "close", "close"]);
        let error = client(&path, 0).call(&call(false, LONG)).unwrap_err();
        assert_eq!(error.kind(), Kind::Closed { answered: false });
        serving.join().unwrap();
    }

    #[test]
    fn what_was_read_and_must_not_happen_twice_is_not_sent_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // The listener stays, so that a second attempt would find it.
        let listener = UnixListener::bind(&path).unwrap();
        let other = listener.try_clone().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        });
        let error = client(&path, 9).call(&call(false, LONG)).unwrap_err();
        assert_eq!(error.kind(), Kind::Closed { answered: false });
        serving.join().unwrap();
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "it has connected again");
    }

    #[test]
    fn hc_02_hc_04_nobody_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let begin = Instant::now();
        let error = client(&path, 2).call(&call(false, LONG)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotConnected);
        assert!(error.to_string().contains("s: No such file"), "{error}");
        assert!(error.to_string().contains("aziot-keyd"), "{error}");
        assert!(
            begin.elapsed() >= Duration::from_millis(60),
            "two pauses: {:?}",
            begin.elapsed()
        );
    }

    #[test]
    fn what_to_do_without_a_connection() {
        let client = client(Path::new("/run/aziot/keyd.sock"), 0);
        for (kind, remedy) in [
            (io::ErrorKind::NotFound, "systemctl status aziot-keyd"),
            (
                io::ErrorKind::ConnectionRefused,
                "systemctl status aziot-keyd",
            ),
            (io::ErrorKind::PermissionDenied, "group aziotks"),
            (io::ErrorKind::TimedOut, "deadline has elapsed"),
        ] {
            let error = client.not_connected(&kind.into());
            let text = error.to_string();
            assert!(
                text.contains(remedy) && text.contains("/run/aziot/keyd.sock"),
                "{text}"
            );
            let timed_out = kind == io::ErrorKind::TimedOut;
            assert_eq!(error.kind() == Kind::TimedOut, timed_out);
            assert!(error.is_unsent());
        }
    }

    #[test]
    fn hc_02_hc_04_a_silent_service() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let serving = server(&path, &["silence", "answer"]);
        let response = client(&path, 1)
            .call(&call(true, Duration::from_secs(2)))
            .unwrap();
        assert_eq!(response.status, 200);
        serving.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        let serving = server(&path, &["silence"]);
        let error = client(&path, 0)
            .call(&call(true, Duration::from_millis(100)))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut);
        assert!(
            error.to_string().contains("deadline has elapsed"),
            "{error}"
        );
        serving.join().unwrap();
    }
}
