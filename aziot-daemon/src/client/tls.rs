//! TLS connections to the cloud, over OpenSSL.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aziot_core::uri::Authority;
use aziot_keys_client::transport::{
    self, Bounds, Deadline, Error, Kind, Request, Response, Step, Want,
};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    ErrorCode, HandshakeError, MidHandshakeSslStream, SslConnector, SslMethod, SslStream,
};
use openssl::x509::{X509, X509VerifyResult};

use super::resolve::resolve;
use super::wire::{self, TlsStream};

/// How long one look-up may take; resolvers give up after about this time by default.
const RESOLVE: Duration = Duration::from_secs(20);

/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long the peer may take between two pieces of the exchange.
const PIECE: Duration = Duration::from_secs(60);

/// The port of `https` URLs without one.
const DEFAULT_PORT: u16 = 443;

/// Largest response body taken from the cloud: a list of all modules of a device is far below.
pub const BODY_LIMIT: usize = 4 << 20;

/// Makes requests to HTTPS servers, one connection per request. Trust is what OpenSSL's default verify paths say, so
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` work; certificate and host name are always verified.
///
/// Loading the trust store takes tens of milliseconds and a megabyte. It is done when the first connection is made, shared
/// by all, and undone by [`TlsClient::release`].
#[derive(Default)]
pub struct TlsClient {
    connector: Mutex<Option<SslConnector>>,
    identity: Option<Identity>,
}

/// What a client proves to servers that ask who it is.
#[derive(Clone)]
pub struct Identity {
    /// Its certificate.
    pub certificate: X509,
    /// The certificates above it that servers may not have.
    pub chain: Vec<X509>,
    /// The private key of the certificate. It may be one of the Keys Service.
    pub key: PKey<Private>,
}

impl TlsClient {
    /// A client that has loaded nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that authenticates with a certificate.
    #[must_use]
    pub fn with_identity(identity: Identity) -> Self {
        Self {
            connector: Mutex::default(),
            identity: Some(identity),
        }
    }

    /// Makes one attempt at a request to `authority` (`host` or `host:port`), which takes at most `whole`.
    ///
    /// # Errors
    /// An [`Error`] when there is no complete response.
    pub fn attempt(
        &self,
        authority: &str,
        request: &Request<'_>,
        whole: Duration,
    ) -> Result<Response, Error> {
        let by = Deadline::after(whole);
        let mut stream = TlsStream(self.connect(authority, by)?);
        let bounds = Bounds {
            body: BODY_LIMIT,
            silence: PIECE,
            by,
        };
        transport::exchange(&mut stream, authority, request, bounds)
    }

    /// Forgets the trust store. It is loaded again when needed, so that changes to it are seen too.
    pub fn release(&self) {
        *self
            .connector
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn connector(&self) -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        if let Some(identity) = &self.identity {
            builder.set_certificate(&identity.certificate)?;
            // Fails if it is not the key of the certificate.
            builder.set_private_key(&identity.key)?;
            for certificate in &identity.chain {
                builder.add_extra_chain_cert(certificate.clone())?;
            }
        }
        Ok(builder.build())
    }

    fn connect(&self, authority: &str, by: Deadline) -> Result<SslStream<TcpStream>, Error> {
        let peer = Authority::parse(authority, DEFAULT_PORT).map_err(|error| {
            Error::new(
                authority,
                Step::Resolve,
                Kind::NotConnected,
                error.to_string(),
            )
        })?;
        // A proxy would be asked for a tunnel here and give the same stream.
        let tcp = connect_any(authority, peer.host(), peer.port(), by)?;
        let failed = |error: ErrorStack| {
            Error::new(
                authority,
                Step::Handshake,
                Kind::NotConnected,
                format!("could not set up TLS: {error}"),
            )
        };
        let ssl = {
            let mut shared = self
                .connector
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let connector = match &mut *shared {
                Some(connector) => connector,
                none => none.insert(self.connector().map_err(failed)?),
            };
            connector
                .configure()
                .and_then(|configuration| configuration.into_ssl(peer.host()))
                .map_err(failed)?
        };
        handshake(authority, ssl.connect(tcp), by.within(HANDSHAKE))
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClient")
    }
}

/// Connects to the first address of the host that accepts.
fn connect_any(authority: &str, host: &str, port: u16, by: Deadline) -> Result<TcpStream, Error> {
    let addresses = resolve(host, port, by.within(RESOLVE))
        .map_err(|error| Error::io(authority, Step::Resolve, &error, false))?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (tried, address) in addresses.iter().enumerate() {
        // What is left is shared among the addresses not tried yet, so that a dead first one leaves time for the others.
        let rest = u32::try_from(addresses.len().saturating_sub(tried))
            .unwrap_or(1)
            .max(1);
        let share = by
            .remaining()
            .map_or(Duration::ZERO, |left| left / rest)
            .min(CONNECT);
        match wire::connect_tcp(*address, by.within(share)) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                last = io::Error::new(error.kind(), format!("{address}: {}", plain(&error)));
            }
        }
    }
    Err(Error::io(authority, Step::Connect, &last, false))
}

fn plain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        "no answer".to_owned()
    } else {
        error.to_string()
    }
}

fn handshake(
    authority: &str,
    mut outcome: Result<SslStream<TcpStream>, HandshakeError<TcpStream>>,
    by: Deadline,
) -> Result<SslStream<TcpStream>, Error> {
    loop {
        let waiting = match outcome {
            Ok(stream) => return Ok(stream),
            Err(HandshakeError::WouldBlock(waiting)) => waiting,
            Err(HandshakeError::Failure(failed)) => return Err(refused(authority, &failed)),
            Err(HandshakeError::SetupFailure(error)) => {
                return Err(Error::new(
                    authority,
                    Step::Handshake,
                    Kind::NotConnected,
                    error.to_string(),
                ));
            }
        };
        let want = if waiting.error().code() == ErrorCode::WANT_WRITE {
            Want::Write
        } else {
            Want::Read
        };
        transport::wait(waiting.get_ref().as_fd(), want, by)
            .map_err(|error| Error::io(authority, Step::Handshake, &error, false))?;
        outcome = waiting.handshake();
    }
}

fn refused(authority: &str, failed: &MidHandshakeSslStream<TcpStream>) -> Error {
    let verdict = failed.ssl().verify_result();
    if verdict != X509VerifyResult::OK {
        return Error::new(
            authority,
            Step::Handshake,
            Kind::Untrusted,
            verdict.error_string(),
        );
    }
    let error = failed.error();
    let reason = match (error.io_error(), error.ssl_error()) {
        (Some(io), _) => io.to_string(),
        (None, Some(stack)) if !stack.errors().is_empty() => stack.to_string(),
        _ => "the peer closed the connection".to_owned(),
    };
    Error::new(authority, Step::Handshake, Kind::NotConnected, reason)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    const REQUEST: Request<'_> = Request {
        method: "GET",
        host: "h",
        target: "/",
        headers: &[],
        body: None,
    };

    fn attempt(authority: &str) -> Error {
        TlsClient::new()
            .attempt(authority, &REQUEST, Duration::from_millis(200))
            .unwrap_err()
    }

    #[test]
    fn hc_04_every_step_has_its_deadline() {
        // A peer that accepts and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
        let begin = Instant::now();
        let error = attempt(&authority);
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::TimedOut, Step::Handshake),
            "{error}"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
        // A peer that hangs up (the first connection is the one from above).
        let serving = std::thread::spawn(move || {
            for _ in 0..2 {
                drop(listener.accept());
            }
        });
        let error = attempt(&authority);
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::NotConnected, Step::Handshake),
            "{error}"
        );
        serving.join().unwrap();
        // Nobody.
        let error = attempt(&authority);
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::NotConnected, Step::Connect),
            "{error}"
        );
        assert!(error.to_string().contains(&authority), "{error}");
    }

    #[test]
    fn addresses_that_cannot_be_used() {
        for authority in ["", "hub.example:x", "hub.example:65536", "h ub"] {
            let error = attempt(authority);
            assert_eq!(
                (error.kind(), error.step()),
                (Kind::NotConnected, Step::Resolve),
                "{authority}: {error}"
            );
        }
        assert_eq!(attempt("no-such-host.invalid").step(), Step::Resolve);
    }
}
