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
