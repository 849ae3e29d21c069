//! One enrolment at an EST server. It blocks.

use std::fmt;
use std::time::{Duration, Instant};

use aziot_core::config::Secret;
use aziot_core::est::{self, Enrolment, Kind, Operation, Reply, Step};
use aziot_core::retry;
use openssl::pkey::{PKey, Public};
use openssl::x509::{X509, X509Req};
use zeroize::Zeroizing;

use super::chain::Chain;
use super::plan::Access;
use crate::client::{self, Request, Response, TlsClient};

/// Why there is no certificate.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The request for it, or what should go with it, cannot be used, for this reason.
    Local(String),
    /// The server was asked, or could not be.
    Server {
        /// What it did.
        failure: Box<est::Failure>,
        /// What the way to it did, if it was not answered.
        way: Option<client::Error>,
    },
    /// None of the certificates that came belongs to the request.
    WrongKey,
}

impl Failure {
    /// Whether the server may have refused our certificate, or was never asked: the same request with another one could
    /// have another end.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Server { way: Some(_), .. })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(reason) => f.write_str(reason),
            Self::Server {
                failure,
                way: Some(error),
            } => {
                write!(f, "{}: {error}", failure.operation)?;
                if error.kind() == client::Kind::Untrusted {
                    f.write_str(
                        "; for EST servers alone, add the id of that CA certificate to trusted_certs in [cert_issuance.est]",
                    )?;
                }
                Ok(())
            }
            Self::Server { failure, way: None } => failure.fmt(f),
            Self::WrongKey => f.write_str(
                "the EST server answered with certificates for other keys than that of the request; look at its log",
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When all has to be done.
    pub by: Instant,
    /// Factor on the pauses that the protocol asks for.
    pub scale: f64,
}

/// Has a certificate issued for the request `csr` (DER). The chain is what was issued for its key, then whatever else came
/// with it, then the certificates of the CA; without those of the CA if it does not give them (DB-23).
///
/// # Errors
/// See [`Failure`].
pub fn enrol(
    client: &TlsClient,
    access: &Access,
    kind: Kind,
    csr: &[u8],
    limits: Limits,
) -> Result<Chain, Failure> {
    let key = public_key(csr)?;
    let begin = Instant::now();
    let sender = Sender::new(client, access, csr)?;
    let now = || begin.elapsed().div_f64(limits.scale);
    let whole = limits.by.saturating_duration_since(begin);
    let mut enrolment = Enrolment::new(kind, whole.div_f64(limits.scale));
    let (mut issued, mut authorities) = (Vec::new(), Vec::new());
    let mut way = None;
    loop {
        let at = now();
        let (operation, by) = match enrolment.next(at) {
            Step::Send { operation, by } => (operation, by),
            Step::Wait { until } => {
                let pause = until.saturating_sub(at).mul_f64(limits.scale);
                std::thread::sleep(pause.max(Duration::from_millis(1)));
                continue;
            }
            Step::Done => break,
            Step::Failed(failure) => {
                let failure = failure.clone();
                let unanswered = matches!(failure.error, est::Error::NotAnswered(_));
                return Err(Failure::Server {
                    failure: Box::new(failure),
                    way: way.filter(|_| unanswered),
                });
            }
        };
        let time = by.saturating_sub(at).mul_f64(limits.scale);
        match sender.send(operation, time) {
            Err(error) => {
                log::debug!("{operation}: {error}");
                enrolment.failed(cause(&error), now());
                way = Some(error);
            }
            Ok(mut response) => {
                let (status, retry_after) = (response.status, response.retry_after);
                let (content_type, body) = response.parts();
                let reply = Reply {
                    status,
                    content_type,
                    retry_after,
                    body,
                };
                let certificates = enrolment.answered(reply, now());
                let of_authorities = operation == Operation::CaCerts;
                for der in certificates {
                    match X509::from_der(der) {
                        Ok(certificate) if of_authorities => authorities.push(certificate),
                        Ok(certificate) => issued.push(certificate),
                        Err(error) => {
                            log::warn!(
                                "{operation}: the EST server sent a certificate that cannot be parsed: {error}"
                            );
                        }
                    }
                }
            }
        }
    }
    if let Some(failure) = enrolment.ca_failure() {
        log::warn!(
            "The certificates of the CA are missing in a chain from the EST server {}: {failure}",
            access.server.authority
        );
    }
    Chain::assemble(&key, issued, authorities).ok_or(Failure::WrongKey)
}

fn public_key(csr: &[u8]) -> Result<PKey<Public>, Failure> {
    X509Req::from_der(csr)
        .and_then(|request| request.public_key())
        .map_err(|error| Failure::Local(format!("bad request for a certificate: {error}")))
}

/// What the requests have in common.
struct Sender<'a> {
    client: &'a TlsClient,
    access: &'a Access,
    authorization: Option<Zeroizing<String>>,
    body: String,
}

impl<'a> Sender<'a> {
    fn new(client: &'a TlsClient, access: &'a Access, csr: &[u8]) -> Result<Self, Failure> {
        let mut room = vec![0; est::enrol_body_len(csr.len())];
        let full = |_| Failure::Local("the request for a certificate is too long".to_owned());
        let body = est::enrol_body(csr, &mut room).map_err(full)?.to_owned();
        Ok(Self {
            client,
            access,
            authorization: match &access.basic {
                Some((username, password)) => Some(authorization(username, password)?),
                None => None,
            },
            body,
        })
    }

    fn send(&self, operation: Operation, time: Duration) -> Result<Response, client::Error> {
        let server = &self.access.server;
        let target = est::target(&server.base, operation).to_string();
        let authorization = self.authorization.as_ref().map(|text| text.as_str());
        let headers: Vec<(&str, &str)> = est::headers(operation, authorization).collect();
        let request = Request {
            method: operation.method(),
            host: &server.authority,
            target: &target,
            headers: &headers,
            body: operation.has_body().then_some(self.body.as_bytes()),
        };
        self.client.attempt_at(server.origin(), &request, time)
    }
}

fn authorization(username: &str, password: &Secret) -> Result<Zeroizing<String>, Failure> {
    let mut room = Zeroizing::new(vec![0; est::basic_len(username, password.as_str())]);
    est::basic(username, password.as_str(), &mut room)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| Failure::Local("the user name and password are too long".to_owned()))
}

fn cause(error: &client::Error) -> retry::Failure {
    match error.kind() {
        client::Kind::NotConnected => retry::Failure::NotConnected,
        client::Kind::Untrusted => retry::Failure::NotTrusted,
        client::Kind::TimedOut => retry::Failure::TimedOut,
        client::Kind::Closed { .. } | client::Kind::InvalidData | client::Kind::Other => {
            retry::Failure::Broken
        }
    }
}
