//! The client of the Certificates Service (certificates-service 11).

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use aziot_core::api::certs::{
    self, CLIENT_VERSION, CertificateResponse, CreateCertificate, ImportCertificate, Issuer, Pem,
};
use aziot_core::http::Status;
use aziot_core::json;
use aziot_core::limits::{BODY_CERTIFICATES, RESPONSE_BODY};
use aziot_core::percent::Set;
use aziot_core::retry::{Attempt, Attempts, Next, Policy};
use aziot_keys_client::transport::{self, Call, Patience, Peer, Request, Response, UnixClient};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::random::random;
use crate::timing::Timing;

/// How long the service may take to issue a certificate, in seconds: longer than it lets an EST server take.
const CREATE: u64 = 90;

/// First size of the buffer for a request body beside the PEM text.
const BODY: usize = 1024;

/// The Certificates Service.
const CERTS: Peer = Peer {
    host: "certd.sock",
    unit: "aziot-certd",
    group: "aziotcs",
};

/// Asks the Certificates Service. Calls block.
///
/// There is one connection per request, and every attempt has a limit. Attempts without an answer are repeated as often as
/// the client was told to; a creation only if it cannot have been carried out, because doing it twice issues two
/// certificates. A service that asks for fewer requests (status 429) is asked again after 60, 120, 180 and 300 seconds and a
/// little more.
#[derive(Clone, Debug)]
pub struct CertsClient {
    service: UnixClient,
    timing: Timing,
}

impl CertsClient {
    /// A client for the service with this socket. `retries` is how many attempts follow one that got no answer. Nothing is
    /// connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, retries: u32, timing: Timing) -> Self {
        let patience = Patience {
            retries,
            pause: timing.retry_pause,
        };
        Self {
            service: UnixClient::new(socket.into(), CERTS, patience),
            timing,
        }
    }

    /// Has a certificate issued for the request `csr` (PEM) and stored as `id`, and answers it with its chain (PEM). Without
    /// `issuer`, the service's configuration says how it is issued.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn create(
        &self,
        id: &str,
        csr: &str,
        issuer: Option<Issuer<'_>>,
    ) -> Result<String, CertsError> {
        let request = CreateCertificate {
            cert_id: id,
            csr: Pem(csr),
            issuer,
        };
        let body = body(&request, csr.len())?;
        let target = format!("/certificates?api-version={CLIENT_VERSION}");
        pem(self.call("POST", &target, Some(&body), Kind::Creates)?, 201)
    }

    /// Stores a certificate from elsewhere as `id`.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn import(&self, id: &str, pem_text: &str) -> Result<(), CertsError> {
        let request = ImportCertificate { pem: Pem(pem_text) };
        let body = body(&request, pem_text.len())?;
        let response = self.call("PUT", &target(id), Some(&body), Kind::Other)?;
        pem(response, 201).map(drop)
    }

    /// What is stored as `id`. [`CertsError::is_not_found`] tells a certificate that does not exist from other failures.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn get(&self, id: &str) -> Result<String, CertsError> {
        pem(self.call("GET", &target(id), None, Kind::Other)?, 200)
    }

    /// Deletes a certificate. One that does not exist is no error.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub fn delete(&self, id: &str) -> Result<(), CertsError> {
        let response = self.call("DELETE", &target(id), None, Kind::Other)?;
        match response.status {
            204 => Ok(()),
            status => Err(refusal(response).unwrap_or_else(|| CertsError::Service {
                status,
                message: format!("unexpected HTTP status code: {}", Status(status)),
            })),
        }
    }

    /// Makes a request until it is answered with another status than 429.
    fn call(
        &self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
        kind: Kind,
    ) -> Result<Response, CertsError> {
        let attempt = match kind {
            Kind::Creates => self.timing.seconds(CREATE),
            Kind::Other => self.timing.sibling,
        };
        let call = Call {
            request: Request {
                method,
                host: self.service.host(),
                target,
                headers: &[],
                body,
            },
            idempotent: kind == Kind::Other,
            body_limit: RESPONSE_BODY,
            connect: attempt,
            silence: attempt,
            attempt,
        };
        let begin = Instant::now();
        let mut attempts = Attempts::new(Policy::sibling(0));
        loop {
            let response = self.service.call(&call).map_err(CertsError::Transport)?;
            let ended = Attempt::Answered {
                status: response.status,
                retry_after: response.retry_after,
            };
            // The schedule is that of the protocol; where time is scaled for tests, so is what has passed.
            let elapsed = begin.elapsed().div_f64(self.timing.scale);
            match attempts.after(ended, elapsed, random()) {
                Next::UseAnswer => return Ok(response),
                Next::GiveUp(gave_up) => {
                    return Err(CertsError::Service {
                        status: response.status,
                        message: gave_up.to_string(),
                    });
                }
                Next::Pause(pause) => {
                    log::warn!("{pause}");
                    std::thread::sleep(pause.length.mul_f64(self.timing.scale));
                }
            }
        }
    }
}

/// What an operation does, which decides how long it may take and whether it may be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Creates,
    Other,
}

/// Why an operation failed. No text contains a key handle.
#[derive(Clone, Debug)]
pub enum CertsError {
    /// There is no complete response.
    Transport(transport::Error),
    /// The service refused, or failed.
    Service {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// The response is not what this operation answers with.
    Malformed(String),
    /// The request is longer than the service takes.
    TooLong,
}

impl CertsError {
    /// Whether the service says that there is no certificate with the id that was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Service { status, message } => certs::is_not_found(*status, message),
            Self::Transport(_) | Self::Malformed(_) | Self::TooLong => false,
        }
    }
}

impl fmt::Display for CertsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Service { message, .. } => f.write_str(message),
            Self::Malformed(reason) => write!(
                f,
                "the Certificates Service gave an answer that makes no sense: {reason}"
            ),
            Self::TooLong => write!(
                f,
                "the request to the Certificates Service is longer than {BODY_CERTIFICATES} bytes"
            ),
        }
    }
}

impl std::error::Error for CertsError {}

/// The path of a certificate. Its id is one segment, whatever is in it.
fn target(id: &str) -> String {
    let id = Set::SEGMENT.encode(id);
    format!("/certificates/{id}?api-version={CLIENT_VERSION}")
}

/// The JSON of a request with a text of `length` bytes in it; wiped when dropped, because it may have a key handle.
fn body<T: Serialize>(value: &T, length: usize) -> Result<Zeroizing<Vec<u8>>, CertsError> {
    let mut size = length.saturating_add(BODY).min(BODY_CERTIFICATES);
    loop {
        let mut bytes = Zeroizing::new(vec![0; size]);
        match json::to_slice(value, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(_) if size >= BODY_CERTIFICATES => return Err(CertsError::TooLong),
            Err(_) => size = size.saturating_mul(2).min(BODY_CERTIFICATES),
        }
    }
}

/// The certificate in a response with the `expected` status.
fn pem(mut response: Response, expected: u16) -> Result<String, CertsError> {
    let status = response.status;
    if status != expected {
        return Err(refusal(response).unwrap_or_else(|| CertsError::Service {
            status,
            message: format!("Expected one of [{expected}], got {}", Status(status)),
        }));
    }
    if !response.is_json {
        return Err(not_json());
    }
    json::from_slice::<CertificateResponse<'_>>(response.body())
        .map(|answer| answer.pem.0.to_owned())
        .map_err(|error| CertsError::Malformed(error.to_string()))
}

aziot_core::json_input! {
    struct Message<'a> {
        message: &'a str = "message",
    }
}

/// What a response with an error status says; none if it has another.
fn refusal(mut response: Response) -> Option<CertsError> {
    let status = response.status;
    if !(400..600).contains(&status) {
        return None;
    }
    if response.body().is_empty() {
        let message = format!("HTTP error {}", Status(status));
        return Some(CertsError::Service { status, message });
    }
    if !response.is_json {
        return Some(not_json());
    }
    Some(match json::from_slice::<Message<'_>>(response.body()) {
        Ok(answer) => CertsError::Service {
            status,
            message: answer.message.to_owned(),
        },
        Err(error) => CertsError::Malformed(format!("status {}, and {error}", Status(status))),
    })
}

fn not_json() -> CertsError {
    CertsError::Malformed("invalid Content-Type; expected JSON".to_owned())
}

#[cfg(test)]
mod tests;
