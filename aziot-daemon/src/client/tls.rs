//! Connections to the cloud: TLS over OpenSSL, directly or through a proxy.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aziot_core::http::response::{Limits, ResponseParser};
use aziot_core::limits::RESPONSE_HEAD;
use aziot_core::uri::Authority;
use aziot_keys_client::transport::{
    self, Bounds, Deadline, Error, Kind, Request, Response, Step, Want, Wire,
};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{ErrorCode, HandshakeError, MidHandshakeSslStream, Ssl, SslStream};
use openssl::x509::{X509, X509VerifyResult};

use super::proxy::{Proxies, Proxy};
use super::resolve::resolve;
use super::trust::Trust;
use super::wire::{self, Path, Tls};

/// How long one look-up may take; resolvers give up after about this time by default.
const RESOLVE: Duration = Duration::from_secs(20);

/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// How long the peer may take between two pieces of the exchange.
const PIECE: Duration = Duration::from_secs(60);

/// Largest response body taken from the cloud: a list of all modules of a device is far below.
pub const BODY_LIMIT: usize = 4 << 20;

/// Makes requests to HTTP servers, one connection per request. Certificate and host name of a server with TLS are always
/// verified.
pub struct TlsClient {
    trust: Arc<Trust>,
    proxies: Arc<Proxies>,
    identity: Option<Identity>,
    body: usize,
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

/// The server that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Whether it is spoken to with TLS: `https`, not `http`.
    pub tls: bool,
    /// `host` or `host:port`. An IPv6 address is in brackets.
    pub authority: &'a str,
}

impl Origin<'_> {
    const fn default_port(self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

impl Default for TlsClient {
    fn default() -> Self {
        Self {
            trust: Arc::default(),
            proxies: Arc::default(),
            identity: None,
            body: BODY_LIMIT,
        }
    }
}

impl TlsClient {
    /// A client that trusts the default store, uses no proxy, and has loaded nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that authenticates with a certificate. It is not shown to proxies.
    #[must_use]
    pub fn with_identity(identity: Identity) -> Self {
        Self {
            identity: Some(identity),
            ..Self::default()
        }
    }

    /// The same with this trust, which others may share.
    #[must_use]
    pub fn trusting(self, trust: Arc<Trust>) -> Self {
        Self { trust, ..self }
    }

    /// The same through these proxies.
    #[must_use]
    pub fn through(self, proxies: Arc<Proxies>) -> Self {
        Self { proxies, ..self }
    }

    /// The same with bodies of at most so many bytes.
    #[must_use]
    pub fn bounded(self, body: usize) -> Self {
        Self { body, ..self }
    }

    /// Makes one attempt at a request to the HTTPS server `authority` (`host` or `host:port`), which takes at most `whole`.
    ///
    /// # Errors
    /// An [`Error`] when there is no complete response.
    pub fn attempt(
        &self,
        authority: &str,
        request: &Request<'_>,
        whole: Duration,
    ) -> Result<Response, Error> {
        let tls = true;
        self.attempt_at(Origin { tls, authority }, request, whole)
    }

    /// Makes one attempt at a request, which takes at most `whole`.
    ///
    /// # Errors
    /// An [`Error`] when there is no complete response.
    pub fn attempt_at(
        &self,
        origin: Origin<'_>,
        request: &Request<'_>,
        whole: Duration,
    ) -> Result<Response, Error> {
        let by = Deadline::after(whole);
        let bounds = Bounds {
            body: self.body,
            silence: PIECE,
            by,
        };
        let name = origin.authority;
        let peer = Authority::parse(name, origin.default_port())
            .map_err(|error| not_connected(name, Step::Resolve, error.to_string()))?;
        let proxy = self.proxies.proxy_for(&peer);
        let mut path = match proxy {
            None => Path::Tcp(connect_any(name, peer.host(), peer.port(), by)?),
            Some(proxy) => self.reach(proxy, by)?,
        };
        if origin.tls {
            if let Some(proxy) = proxy {
                tunnel(&mut path, proxy, &peer, bounds)?;
            }
            let mut ssl = self.ssl(name, peer.host())?;
            self.prove(&mut ssl)
                .map_err(|error| unprepared(name, &error))?;
            let mut stream = Tls(handshake(name, ssl.connect(path), by.within(HANDSHAKE))?);
            return transport::exchange(&mut stream, name, request, bounds);
        }
        let Some(proxy) = proxy else {
            return transport::exchange(&mut path, name, request, bounds);
        };
        // RFC 9112, section 3.2.2.
        let target = format!("http://{name}{}", request.target);
        let mut headers = Cow::Borrowed(request.headers);
        if let Some(authorization) = &proxy.authorization {
            headers
                .to_mut()
                .push(("proxy-authorization", authorization.as_str()));
        }
        let request = Request {
            target: &target,
            headers: &headers,
            ..*request
        };
        transport::exchange(&mut path, name, &request, bounds)
    }

    /// Forgets the trust store. It is loaded again when needed, so that changes to it are seen too.
    pub fn release(&self) {
        self.trust.release();
    }

    /// A connection to the proxy itself.
    fn reach(&self, proxy: &Proxy, by: Deadline) -> Result<Path, Error> {
        let name = format!("the proxy {}", proxy.authority);
        let peer = Authority::parse(&proxy.authority, 80)
            .map_err(|error| not_connected(&name, Step::Resolve, error.to_string()))?;
        let tcp = connect_any(&name, peer.host(), peer.port(), by)?;
        if !proxy.tls {
            return Ok(Path::Tcp(tcp));
        }
        let ssl = self.ssl(&name, peer.host())?;
        let stream = handshake(&name, ssl.connect(tcp), by.within(HANDSHAKE))?;
        Ok(Path::Proxy(Box::new(stream)))
    }

    /// A TLS connection to be made, to a peer with this name or address.
    fn ssl(&self, name: &str, host: &str) -> Result<Ssl, Error> {
        self.trust
            .configure()
            .and_then(|configuration| configuration.into_ssl(host))
            .map_err(|error| unprepared(name, &error))
    }

    /// Has the connection authenticated by our identity if the peer asks.
    fn prove(&self, ssl: &mut Ssl) -> Result<(), ErrorStack> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        ssl.set_certificate(&identity.certificate)?;
        // Fails if it is not the key of the certificate.
        ssl.set_private_key(&identity.key)?;
        for certificate in &identity.chain {
            ssl.add_chain_cert(certificate.clone())?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClient")
    }
}

/// TLS could not be set up on this side.
fn unprepared(name: &str, error: &ErrorStack) -> Error {
    not_connected(
        name,
        Step::Handshake,
        format!("could not set up TLS: {error}"),
    )
}

fn not_connected(name: &str, step: Step, reason: impl Into<String>) -> Error {
    Error::new(name, step, Kind::NotConnected, reason)
}

/// Has the proxy make a tunnel to `peer` (RFC 9110, section 9.3.6).
fn tunnel(
    path: &mut Path,
    proxy: &Proxy,
    peer: &Authority<'_>,
    bounds: Bounds,
) -> Result<(), Error> {
    let name = peer.to_string();
    let failed = |reason: String| {
        let reason = format!("the proxy {} {reason}", proxy.authority);
        not_connected(&name, Step::Connect, reason)
    };
    let mut head = zeroize::Zeroizing::new(format!("CONNECT {peer} HTTP/1.1\r\nHost: {peer}\r\n"));
    if let Some(authorization) = &proxy.authorization {
        head.reserve_exact(authorization.len() + 32);
        head.push_str("proxy-authorization: ");
        head.push_str(authorization);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    path.write_all(head.as_bytes(), bounds.by, bounds.silence)
        .map_err(|error| Error::io(&name, Step::Connect, &error, false))?;
    let limits = Limits {
        head: RESPONSE_HEAD,
        body: 0,
    };
    let mut parser = ResponseParser::bodiless(limits);
    let mut bytes = vec![0; RESPONSE_HEAD + 1];
    let mut filled = 0;
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        let read = Wire::read(path, room, bounds.by.within(bounds.silence))
            .map_err(|error| Error::io(&name, Step::Connect, &error, false))?;
        filled += read;
        let complete = parser
            .advance(&mut bytes, &mut filled, read == 0)
            .map_err(|error| failed(format!("did not make a tunnel: {error}")))?;
        if complete {
            break;
        }
    }
    let Some(response) = parser.response(&bytes) else {
        return Err(failed("did not make a tunnel".to_owned()));
    };
    match response.status.0 {
        // The server speaks only after we do, so nothing can have come through yet.
        200 if parser.needed() == Some(filled) => Ok(()),
        200 => Err(failed("sent more than its answer".to_owned())),
        407 => Err(failed(
            "wants other credentials (407); set them in HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT, and restart \
             the service"
                .to_owned(),
        )),
        _ => Err(failed(format!(
            "refuses to make a tunnel: {}",
            response.status
        ))),
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

fn handshake<S: io::Read + io::Write + AsFd>(
    authority: &str,
    mut outcome: Result<SslStream<S>, HandshakeError<S>>,
    by: Deadline,
) -> Result<SslStream<S>, Error> {
    loop {
        let waiting = match outcome {
            Ok(stream) => return Ok(stream),
            Err(HandshakeError::WouldBlock(waiting)) => waiting,
            Err(HandshakeError::Failure(failed)) => return Err(refused(authority, &failed)),
            Err(HandshakeError::SetupFailure(error)) => {
                return Err(not_connected(authority, Step::Handshake, error.to_string()));
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

fn refused<S>(authority: &str, failed: &MidHandshakeSslStream<S>) -> Error {
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
    not_connected(authority, Step::Handshake, reason)
}
