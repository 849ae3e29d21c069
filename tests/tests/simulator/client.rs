//! A raw TLS client that writes requests as the daemon does, or as badly as a test wants.

// A helper outside of test functions: a failure here fails the test that called it.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aziot_tests::simulator::route::encode_segment;
use aziot_tests::simulator::token::sign;
use aziot_tests::simulator::{Config, Simulator};
use openssl::pkey::{PKey, Private};
use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslStream};
use openssl::x509::X509;
use serde_json::Value;
use tempfile::TempDir;

/// The key of every device in these tests.
pub const DEVICE_KEY: &[u8] = b"device key";

/// Longer than anything takes that does not hang.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A simulator in a directory of its own.
pub fn simulator(configure: impl FnOnce(&mut Config)) -> (Simulator, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(directory.path());
    configure(&mut config);
    (Simulator::start(config).unwrap(), directory)
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .try_into()
        .unwrap()
}

/// A request head and body in the daemon's order of headers.
pub fn head(
    method: &str,
    target: &str,
    token: Option<&str>,
    if_match: Option<&str>,
    host: &str,
    body: &str,
) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !body.is_empty() {
        text.push_str("content-type: application/json\r\n");
    }
    for (name, value) in [("authorization", token), ("if-match", if_match)] {
        if let Some(value) = value {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str(&format!("host: {host}\r\n"));
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server's certificate is not good.
    Certificate,
    /// The connection ended after so many bytes of an answer.
    Ended { after: usize },
    /// The TLS handshake failed in another way.
    Handshake,
    /// Anything else.
    Other(String),
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// Nothing came in time.
    Timeout,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// A client of one simulator; each request has its own connection.
pub struct Client {
    connector: SslConnector,
    port: u16,
    timeout: Duration,
}

impl Client {
    pub fn new(simulator: &Simulator) -> Self {
        Self::to(simulator.port(), &simulator.ca_path())
    }

    pub fn to(port: u16, ca: &Path) -> Self {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_ca_file(ca).unwrap();
        Self {
            connector: builder.build(),
            port,
            timeout: TIMEOUT,
        }
    }

    /// The same client, which presents a certificate with those above it.
    pub fn presenting(simulator: &Simulator, key: &PKey<Private>, chain: &[X509]) -> Self {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_ca_file(simulator.ca_path()).unwrap();
        builder.set_certificate(&chain[0]).unwrap();
        builder.set_private_key(key).unwrap();
        for certificate in &chain[1..] {
            builder.add_extra_chain_cert(certificate.clone()).unwrap();
        }
        Self {
            connector: builder.build(),
            port: simulator.port(),
            timeout: TIMEOUT,
        }
    }

    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn hub(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub fn connect(&self) -> Result<SslStream<TcpStream>, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        self.connector
            .connect("localhost", stream)
            .map_err(|error| match error {
                HandshakeError::WouldBlock(_) => Failure::Timeout,
                HandshakeError::Failure(failed) if failed.ssl().verify_result().as_raw() != 0 => {
                    Failure::Certificate
                }
                HandshakeError::Failure(failed) => match failed.into_error().into_io_error() {
                    Ok(error) => error.into(),
                    Err(_) => Failure::Handshake,
                },
                HandshakeError::SetupFailure(error) => Failure::Other(error.to_string()),
            })
    }

    pub fn exchange(&self, request: &[u8]) -> Result<Answer, Failure> {
        self.exchange_over(&mut self.connect()?, request)
    }

    pub fn exchange_over(
        &self,
        stream: &mut SslStream<TcpStream>,
        request: &[u8],
    ) -> Result<Answer, Failure> {
        stream.write_all(request)?;
        Answer::read(stream)
    }

    pub fn register(
        &self,
        id: &str,
        key: &[u8],
        payload: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let body = match payload {
            None => format!(r#"{{"registrationId":"{id}"}}"#),
            Some(payload) => format!(r#"{{"registrationId":"{id}","payload":{payload}}}"#),
        };
        self.dps_call("PUT", id, key, "register", &body)
    }

    pub fn poll(&self, id: &str, key: &[u8], operation: &str) -> Result<Answer, Failure> {
        self.dps_call("GET", id, key, &format!("operations/{operation}"), "")
    }

    fn dps_call(
        &self,
        method: &str,
        id: &str,
        key: &[u8],
        rest: &str,
        body: &str,
    ) -> Result<Answer, Failure> {
        let scope = super::SCOPE;
        let audience = format!("{scope}/registrations/{id}").to_lowercase();
        let token = sign(key, &audience, now() + 30, Some("registration"));
        let target = format!(
            "/{scope}/registrations/{}/{rest}?api-version=2021-06-01",
            encode_segment(id)
        );
        self.exchange(&head(
            method,
            &target,
            Some(&token),
            None,
            &self.hub(),
            body,
        ))
    }

    /// Registers and polls to the end, without pauses: the simulator must not tell to wait.
    pub fn assign(&self, id: &str, key: &[u8]) -> Value {
        let mut answer = self.register(id, key, None).unwrap();
        let operation = answer.json()["operationId"].as_str().unwrap().to_owned();
        for _ in 0..10 {
            if answer.status == 200 {
                return answer.json();
            }
            answer = self.poll(id, key, &operation).unwrap();
        }
        panic!("{} is not assigned: {}", id, answer.text());
    }

    #[allow(clippy::too_many_arguments)]
    pub fn hub_call(
        &self,
        hub: &str,
        method: &str,
        device: &str,
        path: &str,
        if_match: Option<&str>,
        body: Option<&str>,
        key: &[u8],
    ) -> Result<Answer, Failure> {
        let audience = format!("{hub}/devices/{device}").to_lowercase();
        let token = sign(key, &audience, now() + 30, None);
        let target = format!("{path}?api-version=2017-11-08-preview");
        self.exchange(&head(
            method,
            &target,
            Some(&token),
            if_match,
            hub,
            body.unwrap_or_default(),
        ))
    }

    pub fn module_put(
        &self,
        device: &str,
        module: &str,
        body: &str,
        if_match: Option<&str>,
    ) -> Result<Answer, Failure> {
        self.hub_call(
            &self.hub(),
            "PUT",
            device,
            &module_path(device, module),
            if_match,
            Some(body),
            DEVICE_KEY,
        )
    }

    pub fn create(&self, device: &str, module: &str) -> Result<Answer, Failure> {
        let (module_json, device_json) = (Value::from(module), Value::from(device));
        let body = format!(r#"{{"moduleId":{module_json},"deviceId":{device_json}}}"#);
        self.module_put(device, module, &body, None)
    }

    pub fn get(&self, device: &str, module: &str) -> Result<Answer, Failure> {
        self.hub_call(
            &self.hub(),
            "GET",
            device,
            &module_path(device, module),
            None,
            None,
            DEVICE_KEY,
        )
    }

    pub fn delete(&self, device: &str, module: &str) -> Result<Answer, Failure> {
        self.hub_call(
            &self.hub(),
            "DELETE",
            device,
            &module_path(device, module),
            Some("*"),
            None,
            DEVICE_KEY,
        )
    }

    pub fn list(&self, device: &str) -> Result<Answer, Failure> {
        self.exchange(&self.list_request(device))
    }

    pub fn list_request(&self, device: &str) -> Vec<u8> {
        let audience = format!("{}/devices/{device}", self.hub()).to_lowercase();
        let token = sign(DEVICE_KEY, &audience, now() + 30, None);
        let target = format!(
            "/devices/{}/modules?api-version=2017-11-08-preview",
            encode_segment(device)
        );
        head("GET", &target, Some(&token), None, &self.hub(), "")
    }
}

fn module_path(device: &str, module: &str) -> String {
    format!(
        "/devices/{}/modules/{}",
        encode_segment(device),
        encode_segment(module)
    )
}

/// An answer, its body put together.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes on the wire.
    pub length: usize,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn read(stream: &mut SslStream<TcpStream>) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        loop {
            if let Some(answer) = Self::parse(&bytes, false) {
                return Ok(answer);
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) => {
                    return Self::parse(&bytes, true).ok_or(Failure::Ended { after: bytes.len() });
                }
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                // TLS without close_notify.
                Err(error)
                    if error.kind() == io::ErrorKind::Other
                        || error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    return Err(Failure::Ended { after: bytes.len() });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn parse(bytes: &[u8], ended: bool) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = core::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|l| l.split_once(": "))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        let mut answer = Self {
            status,
            headers,
            body: Vec::new(),
            length: bytes.len(),
        };
        let rest = &bytes[end..];
        if status == 204 {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunk(rest)?;
        } else if let Some(length) = answer.header("content-length") {
            answer.body = rest.get(..length.parse().unwrap())?.to_vec();
        } else if ended {
            answer.body = rest.to_vec();
        } else {
            return None;
        }
        Some(answer)
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(core::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return rest.starts_with(b"\r\n").then_some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
