//! A Keys Service for tests: real keys, and answers that a test can spoil.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a step that fails, fails the test"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aziot_keys_client::{Client, Deadlines, KeyHandle, transport};
use aziot_keys_engine::builtin::{Error, PrivateKey, private_key_with};
use base64ct::{Base64, Encoding as _};
use foreign_types_shared::ForeignType;
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::{Padding, Rsa};
use serde_json::{Value, json};
use tempfile::TempDir;

/// More than anything takes that is meant to succeed.
pub const LONG: Duration = Duration::from_secs(60);

/// What is meant to pass.
pub const SHORT: Duration = Duration::from_millis(200);

/// The handle of the only key pair.
pub const HANDLE: &str = "sr=QQ==&sig=QQ==";

/// The DER of the object identifiers of the curves.
pub const P256_OID: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
pub const P384_OID: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// A request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method and target.
    pub line: String,
    pub body: String,
}

impl Request {
    pub fn path(&self) -> &str {
        self.line
            .split([' ', '?'])
            .nth(1)
            .unwrap()
            .trim_start_matches('/')
    }
}

/// What is done with a request: the ordinary answer can be changed, or the connection treated otherwise.
type Treat = dyn Fn(&Request, Value, &mut UnixStream) -> Option<Value> + Send + Sync;

/// The service. It ends with the test's process.
pub struct Service {
    key: PKey<Private>,
    requests: Arc<Mutex<Vec<Request>>>,
    treat: Arc<Treat>,
    socket: PathBuf,
    stopped: Arc<AtomicBool>,
    _directory: TempDir,
}

impl Service {
    /// One that does as it should.
    pub fn new(key: PKey<Private>) -> Self {
        Self::spoiled(key, |_, answer, _| Some(answer))
    }

    /// One that does as it should but for what `treat` does: it gets the request and the right answer, and returns what is to
    /// be answered. Nothing is answered to `None`, and the connection is closed.
    pub fn spoiled(
        key: PKey<Private>,
        treat: impl Fn(&Request, Value, &mut UnixStream) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let service = Self {
            key,
            requests: Arc::default(),
            treat: Arc::new(treat),
            socket: directory.path().join("s"),
            stopped: Arc::default(),
            _directory: directory,
        };
        service.start();
        service
    }

    /// Listens, again.
    pub fn start(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let (requests, key) = (Arc::clone(&self.requests), self.key.clone());
        let (treat, stopped) = (Arc::clone(&self.treat), Arc::clone(&self.stopped));
        stopped.store(false, Ordering::SeqCst);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (requests, key) = (Arc::clone(&requests), key.clone());
                let treat = Arc::clone(&treat);
                std::thread::spawn(move || serve(stream.unwrap(), &requests, &key, &*treat));
            }
        });
    }

    /// Does not listen any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes it; the end of this connection is also the end of its listening.
        let mut last = UnixStream::connect(&self.socket).unwrap();
        std::fs::remove_file(&self.socket).unwrap();
        let _ = last.read(&mut [0]);
    }

    /// The private key, through the engine's methods.
    pub fn load(&self) -> PKey<Private> {
        self.try_load(Deadlines::all(LONG)).unwrap()
    }

    pub fn try_load(&self, deadlines: Deadlines) -> Result<PKey<Private>, Error> {
        let client = Client::with(&self.socket, deadlines, transport::Patience::default());
        private_key_with(&client, &KeyHandle::new(HANDLE)).map(pkey)
    }

    /// The private key itself.
    pub fn original(&self) -> &PKey<Private> {
        &self.key
    }

    /// What has been asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

#[allow(unsafe_code)]
fn pkey(key: PrivateKey) -> PKey<Private> {
    // SAFETY: the key is alive, and the reference is passed on.
    unsafe { ForeignType::from_ptr(key.into_raw()) }
}

pub fn p256() -> PKey<Private> {
    ec(Nid::X9_62_PRIME256V1)
}

pub fn p384() -> PKey<Private> {
    ec(Nid::SECP384R1)
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn serve(mut stream: UnixStream, seen: &Mutex<Vec<Request>>, key: &PKey<Private>, treat: &Treat) {
    let Some(request) = read(&mut stream) else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    let right = answer(&request, key);
    if let Some(body) = treat(&request, right, &mut stream) {
        let _ = stream.write_all(response(&body).as_bytes());
    }
}

pub fn response(body: &Value) -> String {
    let status = if body.get("message").is_some() {
        "400 Bad Request"
    } else {
        "200 OK"
    };
    let body = body.to_string();
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

fn read(stream: &mut UnixStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).ok()?;
        if read == 0 {
            return None;
        }
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let len = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |len| len.parse().unwrap());
        if body.len() == len {
            let line = head.lines().next().unwrap().to_owned();
            let body = body.to_owned();
            return Some(Request { line, body });
        }
    }
}

/// What a Keys Service answers.
fn answer(request: &Request, key: &PKey<Private>) -> Value {
    let asked: Value = serde_json::from_str(&request.body).unwrap();
    if asked["keyHandle"] != HANDLE {
        return json!({ "message": "parameter \"handle\" has an invalid value\ncaused by: invalid handle" });
    }
    let encoded = |bytes: &[u8]| Base64::encode_string(bytes);
    let bytes = |member: &Value| Base64::decode_vec(member.as_str().unwrap()).unwrap();
    match request.path() {
        "parameters/algorithm" => match key.id() {
            Id::EC => json!({ "value": "ECDSA" }),
            _ => json!({ "value": "RSA" }),
        },
        "parameters/ec-curve-oid" => {
            let curve = key.ec_key().unwrap().group().curve_name().unwrap();
            let oid = if curve == Nid::SECP384R1 {
                P384_OID
            } else {
                P256_OID
            };
            json!({ "value": encoded(oid) })
        }
        "parameters/ec-point" => {
            let ec = key.ec_key().unwrap();
            let mut context = BigNumContext::new().unwrap();
            let point = ec
                .public_key()
                .to_bytes(ec.group(), PointConversionForm::COMPRESSED, &mut context)
                .unwrap();
            json!({ "value": encoded(&point) })
        }
        "parameters/rsa-modulus" => json!({ "value": encoded(&key.rsa().unwrap().n().to_vec()) }),
        "parameters/rsa-exponent" => json!({ "value": encoded(&key.rsa().unwrap().e().to_vec()) }),
        "sign" => {
            assert_eq!(asked["algorithm"], "ECDSA");
            let digest = bytes(&asked["parameters"]["digest"]);
            let signature = EcdsaSig::sign(&digest, &key.ec_key().unwrap()).unwrap();
            json!({ "signature": encoded(&signature.to_der().unwrap()) })
        }
        "encrypt" => {
            let rsa = key.rsa().unwrap();
            let mut result = vec![0; rsa.size() as usize];
            let padding = match asked["algorithm"].as_str().unwrap() {
                "RSA-PKCS1" => Padding::PKCS1,
                "RSA-NO-PADDING" => Padding::NONE,
                other => panic!("{other}"),
            };
            rsa.private_encrypt(&bytes(&asked["plaintext"]), &mut result, padding)
                .unwrap();
            json!({ "ciphertext": encoded(&result) })
        }
        other => panic!("{other}"),
    }
}
