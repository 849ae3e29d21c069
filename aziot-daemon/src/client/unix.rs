//! Requests to the sibling services over their Unix sockets.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Error, Kind, Step};
use super::exchange::{self, Request, Response};
use super::wire::{self, Deadline};

/// Largest response body taken from a sibling service.
pub const BODY_LIMIT: usize = 1 << 20;

/// Pauses before a request is sent again to a service that closed the connection without a word: it has too many
/// connections of this user open, and some of them end soon.
const THROTTLED: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts after the first one that failed in transport.
    pub retries: u32,
    /// Pause before each.
    pub pause: Duration,
    /// For the whole of one attempt.
    pub attempt: Duration,
}

/// Makes requests to one sibling service, one connection per request.
#[derive(Debug)]
pub struct UnixClient {
    path: PathBuf,
    host: &'static str,
    patience: Patience,
}

impl UnixClient {
    /// A client for the service at `path`. `host` is what the `host` field of requests says, and errors call it.
    #[must_use]
    pub fn new(path: PathBuf, host: &'static str, patience: Patience) -> Self {
        Self {
            path,
            host,
            patience,
        }
    }

    /// The host name of the service, for requests.
    #[must_use]
    pub fn host(&self) -> &'static str {
        self.host
    }

    /// Makes a request, which takes at most all attempts and pauses together. A request that is not `idempotent` is only
    /// sent again when it cannot have reached the service.
    ///
    /// # Errors
    /// The [`Error`] of the last attempt.
    pub fn call(&self, request: &Request<'_>, idempotent: bool) -> Result<Response, Error> {
        let mut retries = 0;
        let mut throttled = THROTTLED.iter();
        loop {
            let error = match self.attempt(request) {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !(idempotent || error.is_unsent()) {
                return Err(error);
            }
            if error.kind() == (Kind::Closed { answered: false })
                && let Some(pause) = throttled.next()
            {
                log::debug!("{error}; trying again in {} ms", pause.as_millis());
                std::thread::sleep(*pause);
                continue;
            }
            retries += 1;
            log::warn!(
                "Failed to send HTTP request (attempt {retries} of {}): {error}",
                self.patience.retries + 1
            );
            if retries > self.patience.retries {
                return Err(error);
            }
            std::thread::sleep(self.patience.pause);
        }
    }

    fn attempt(&self, request: &Request<'_>) -> Result<Response, Error> {
        let by = Deadline::after(self.patience.attempt);
        let mut stream = wire::connect_unix(&self.path, by).map_err(|error| {
            let error =
                std::io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
            Error::io(self.host, Step::Connect, &error, false)
        })?;
        exchange::exchange(&mut stream, self.host, request, BODY_LIMIT, by)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
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

    fn client(path: &Path, retries: u32, attempt: Duration) -> UnixClient {
        let pause = Duration::from_millis(30);
        UnixClient::new(
            path.to_owned(),
            "keyd.sock",
            Patience {
                retries,
                pause,
                attempt,
            },
        )
    }

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
        let response = client(&path, 0, Duration::from_secs(5))
            .call(&REQUEST, true)
            .unwrap();
        assert_eq!(response.status, 200);
        assert!(
            begin.elapsed() >= Duration::from_millis(300),
            "{:?}",
            begin.elapsed()
        );
        serving.join().unwrap();

        std::fs::remove_file(&path).unwrap();
        let serving = server(&path, &["close", "close", "close", "close"]);
        let error = client(&path, 0, Duration::from_secs(5))
            .call(&REQUEST, true)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Closed { answered: false });
        serving.join().unwrap();

        // What must not happen twice is not sent twice.
        std::fs::remove_file(&path).unwrap();
        let serving = server(&path, &["close"]);
        assert!(
            client(&path, 9, Duration::from_secs(5))
                .call(&REQUEST, false)
                .is_err()
        );
        serving.join().unwrap();
    }

    #[test]
    fn hc_02_hc_04_nobody_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let begin = Instant::now();
        let error = client(&path, 2, Duration::from_secs(5))
            .call(&REQUEST, false)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::NotConnected);
        assert!(error.to_string().contains("s: No such file"), "{error}");
        assert!(
            begin.elapsed() >= Duration::from_millis(60),
            "two pauses: {:?}",
            begin.elapsed()
        );
    }

    #[test]
    fn hc_02_hc_04_a_silent_service() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let serving = server(&path, &["silence", "answer"]);
        let response = client(&path, 1, Duration::from_millis(100))
            .call(&REQUEST, true)
            .unwrap();
        assert_eq!(response.status, 200);
        serving.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        let serving = server(&path, &["silence"]);
        let error = client(&path, 0, Duration::from_millis(100))
            .call(&REQUEST, true)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut);
        assert!(
            error.to_string().contains("deadline has elapsed"),
            "{error}"
        );
        serving.join().unwrap();
    }
}
