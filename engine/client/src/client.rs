//! The operations.

use std::path::PathBuf;
use std::time::Duration;

use aziot_core::api::keys::status::STATUS_VERSION;
use aziot_core::api::keys::{
    CLIENT_VERSION, Ciphertext, CiphertextResponse, CreateDerivedKey, CreateKey, CreateKeyPair,
    EncryptMechanism, ExportedKey, KeyHandle as HandleMember, MoveKeyPair, Parameter,
    ParameterBytes, Plaintext, PlaintextResponse, Sign, SignMechanism, Signature, Usage,
};
use aziot_core::json::{self, Bytes, FromJson};
use aziot_core::limits::{BODY_KEYS, RESPONSE_BODY};
use aziot_core::percent::Set;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::handle::KeyHandle;
use crate::parameters::{Algorithm, PublicKey, RsaPadding};
use crate::status::Status;
use crate::transport::{Call, Patience, Peer, Request, Response, UnixClient};

/// Length of an HMAC-SHA256.
pub const MAC_LEN: usize = 32;

/// First size of the buffer for a request body; most are smaller.
const BODY: usize = 1024;

/// How long things may take. What takes longer fails with [`Kind::TimedOut`](crate::transport::Kind::TimedOut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Making the connection. It takes long only when the service does not accept any.
    pub connect: Duration,
    /// Two pieces of an exchange, one after the other. A key in a slow token takes seconds.
    pub silence: Duration,
    /// An exchange as a whole, however steadily it proceeds.
    pub whole: Duration,
    /// Both of the last two for operations that may generate or move keys. A TPM may need a minute for an RSA key.
    pub generation: Duration,
}

impl Deadlines {
    /// All of them the same.
    #[must_use]
    pub const fn all(time: Duration) -> Self {
        Self {
            connect: time,
            silence: time,
            whole: time,
            generation: time,
        }
    }
}

/// 5 s to connect, 30 s of silence, 60 s as a whole, 120 s to generate keys.
impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            whole: Duration::from_secs(60),
            generation: Duration::from_secs(120),
        }
    }
}

/// Asks the Keys Service. Calls block.
///
/// All operations fail with an [`Error`]. Whether a key exists is not told apart from other mistakes: the service answers
/// status 400 then.
#[derive(Clone, Debug)]
pub struct Client {
    service: UnixClient,
    deadlines: Deadlines,
}

impl Client {
    /// A client for the service with this socket (see [`default_socket`](crate::default_socket)), with the default deadlines
    /// and without retries. Nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::with(socket, Deadlines::default(), Patience::default())
    }

    /// The same with deadlines and retries. Only what can be done twice, or was certainly not done, is tried again.
    #[must_use]
    pub fn with(socket: impl Into<PathBuf>, deadlines: Deadlines, patience: Patience) -> Self {
        Self {
            service: UnixClient::new(socket.into(), Peer::KEYS, patience),
            deadlines,
        }
    }

    /// The handle of a symmetric key, which is generated if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_key(&self, id: &str, usage: Usage) -> Result<KeyHandle, Error> {
        let body = CreateKey {
            key_id: id,
            key_bytes: None,
            usage,
        };
        handle(self.post("/key", &body, Kind::Generates)?)
    }

    /// Stores a symmetric key in place of one with the same id, and answers its handle. `bytes` must not be empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn import_key(&self, id: &str, bytes: &[u8], usage: Usage) -> Result<KeyHandle, Error> {
        let body = CreateKey {
            key_id: id,
            key_bytes: Some(Bytes(bytes)),
            usage,
        };
        handle(self.post("/key", &body, Kind::Changes)?)
    }

    /// The handle of a symmetric key that exists.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load_key(&self, id: &str) -> Result<KeyHandle, Error> {
        self.load("/key", id)
    }

    /// Deletes a symmetric key. One that does not exist any more is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_key(&self, key: &KeyHandle) -> Result<(), Error> {
        self.delete("/key", key)
    }

    /// The handle of a key pair, which is generated if it does not exist. `preferred_algorithms` are names with colons between
    /// them, first choice first: `ec-p256`, `rsa-2048`, `rsa-4096`, `*` (the same as none).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_key_pair(
        &self,
        id: &str,
        preferred_algorithms: Option<&str>,
    ) -> Result<KeyHandle, Error> {
        let body = CreateKeyPair {
            key_id: id,
            preferred_algorithms,
        };
        handle(self.post("/keypair", &body, Kind::Generates)?)
    }

    /// The handle of a key pair that exists.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load_key_pair(&self, id: &str) -> Result<KeyHandle, Error> {
        self.load("/keypair", id)
    }

    /// Gives the key pair `from` the id `to`, in place of one that has it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn move_key_pair(&self, from: &str, to: &str) -> Result<(), Error> {
        let target = id_target("/keypair", to);
        let body = body(&MoveKeyPair { from })?;
        self.done("POST", &target, body.get(), Kind::Changes)
    }

    /// Deletes a key pair. One that does not exist any more is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_key_pair(&self, pair: &KeyHandle) -> Result<(), Error> {
        self.delete("/keypair", pair)
    }

    /// The public half of a key pair: its algorithm and the parameters of that, in three requests.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn public_key(&self, pair: &KeyHandle) -> Result<PublicKey, Error> {
        Ok(match self.algorithm(pair)? {
            Algorithm::Ecdsa => PublicKey::Ec {
                curve_oid: self.curve_oid(pair)?,
                point: self.point(pair)?,
            },
            Algorithm::Rsa => PublicKey::Rsa {
                modulus: self.modulus(pair)?,
                exponent: self.exponent(pair)?,
            },
        })
    }

    /// The algorithm of a key pair.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn algorithm(&self, pair: &KeyHandle) -> Result<Algorithm, Error> {
        let mut response = self.parameter("algorithm", pair)?;
        let answer: Parameter<'_> = decode(&mut response)?;
        Algorithm::from_word(answer.value).ok_or_else(|| {
            let shown: String = answer.value.chars().take(32).collect();
            Error::Malformed(format!("unrecognized key algorithm {shown:?}"))
        })
    }

    /// The curve of an EC key pair: its object identifier in DER, with tag and length.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn curve_oid(&self, pair: &KeyHandle) -> Result<Vec<u8>, Error> {
        self.parameter_bytes("ec-curve-oid", pair)
    }

    /// The public point of an EC key pair as in SEC 1, section 2.3.3: compressed or not.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn point(&self, pair: &KeyHandle) -> Result<Vec<u8>, Error> {
        self.parameter_bytes("ec-point", pair)
    }

    /// The modulus of an RSA key pair, big-endian.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn modulus(&self, pair: &KeyHandle) -> Result<Vec<u8>, Error> {
        self.parameter_bytes("rsa-modulus", pair)
    }

    /// The public exponent of an RSA key pair, big-endian.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn exponent(&self, pair: &KeyHandle) -> Result<Vec<u8>, Error> {
        self.parameter_bytes("rsa-exponent", pair)
    }

    /// The handle of a key derived from another, which must not be derived itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn create_derived_key(&self, base: &KeyHandle, data: &[u8]) -> Result<KeyHandle, Error> {
        let body = CreateDerivedKey {
            base_key_handle: base.as_str(),
            derivation_data: Bytes(data),
        };
        handle(self.post("/derivedkey", &body, Kind::Reads)?)
    }

    /// The bytes of a derived key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn export_derived_key(&self, key: &KeyHandle) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut response = self.post("/derivedkey/export", &member(key), Kind::Reads)?;
        let answer: ExportedKey<'_> = decode(&mut response)?;
        Ok(Zeroizing::new(answer.key.0.to_vec()))
    }

    /// Signs a digest with an EC key pair. The signature is DER, as in RFC 3279, section 2.2.3.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn sign_ecdsa(&self, pair: &KeyHandle, digest: &[u8]) -> Result<Vec<u8>, Error> {
        let digest = Bytes(digest);
        self.sign(pair, SignMechanism::Ecdsa { digest }, |signature| {
            Ok(signature.to_vec())
        })
    }

    /// HMAC-SHA256 of a message, with a symmetric key or a derived one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn sign_hmac(&self, key: &KeyHandle, message: &[u8]) -> Result<[u8; MAC_LEN], Error> {
        let message = Bytes(message);
        self.sign(key, SignMechanism::HmacSha256 { message }, |signature| {
            signature.try_into().map_err(|_| {
                let length = signature.len();
                Error::Malformed(format!("the signature has {length} bytes, not {MAC_LEN}"))
            })
        })
    }

    /// The private operation of an RSA key pair, as it makes signatures. The result is as long as the modulus.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn rsa_private(
        &self,
        pair: &KeyHandle,
        padding: RsaPadding,
        input: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let mechanism = match padding {
            RsaPadding::None => EncryptMechanism::RsaNoPadding,
            RsaPadding::Pkcs1 => EncryptMechanism::RsaPkcs1,
        };
        self.encrypt_with(pair, mechanism, input)
    }

    /// Encrypts with a symmetric key or a derived one. `iv` must not be empty, and never be used twice with the same key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn encrypt(
        &self,
        key: &KeyHandle,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.encrypt_with(key, aead(iv, aad), plaintext)
    }

    /// Decrypts what [`encrypt`](Self::encrypt) has made with the same key, `iv` and `aad`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn decrypt(
        &self,
        key: &KeyHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let body = Ciphertext {
            key_handle: key.as_str(),
            mechanism: aead(iv, aad),
            ciphertext: Bytes(ciphertext),
        };
        let mut response = self.post("/decrypt", &body, Kind::Reads)?;
        let answer: PlaintextResponse<'_> = decode(&mut response)?;
        Ok(Zeroizing::new(answer.plaintext.0.to_vec()))
    }

    /// Shows `read` how the service stands, as far as the caller may know, and answers what that makes of it. `None` if the
    /// service has no such operation, as in release 1.6.0.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn status<T>(&self, read: impl FnOnce(&Status<'_>) -> T) -> Result<Option<T>, Error> {
        let target = format!("/status?api-version={STATUS_VERSION}");
        let mut response = match self.answer("GET", &target, None, Kind::Status) {
            // The version is looked at before the path.
            Err(Error::Service {
                status: 400 | 404, ..
            }) => return Ok(None),
            outcome => outcome?,
        };
        let status: Status<'_> = decode(&mut response)?;
        Ok(Some(read(&status)))
    }
}

/// What an operation does, which decides how long it may take and whether it may be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing to the keys there are.
    Reads,
    /// It makes a key, unless it is there.
    Generates,
    /// It changes what an id stands for, so that a late repetition could undo what others have done since.
    Changes,
    /// Nothing, and its answer may be long.
    Status,
}

impl Client {
    fn load(&self, path: &str, id: &str) -> Result<KeyHandle, Error> {
        handle(self.answer("GET", &id_target(path, id), None, Kind::Reads)?)
    }

    fn delete(&self, path: &str, key: &KeyHandle) -> Result<(), Error> {
        let body = body(&member(key))?;
        self.done("DELETE", &target(path), body.get(), Kind::Changes)
    }

    fn parameter(&self, name: &str, pair: &KeyHandle) -> Result<Response, Error> {
        self.post(&format!("/parameters/{name}"), &member(pair), Kind::Reads)
    }

    fn parameter_bytes(&self, name: &str, pair: &KeyHandle) -> Result<Vec<u8>, Error> {
        let mut response = self.parameter(name, pair)?;
        let answer: ParameterBytes<'_> = decode(&mut response)?;
        Ok(answer.value.0.to_vec())
    }

    fn sign<T>(
        &self,
        key: &KeyHandle,
        mechanism: SignMechanism<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let body = Sign {
            key_handle: key.as_str(),
            mechanism,
        };
        let mut response = self.post("/sign", &body, Kind::Reads)?;
        let answer: Signature<'_> = decode(&mut response)?;
        read(answer.signature.0)
    }

    fn encrypt_with(
        &self,
        key: &KeyHandle,
        mechanism: EncryptMechanism<'_>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let body = Plaintext {
            key_handle: key.as_str(),
            mechanism,
            plaintext: Bytes(plaintext),
        };
        let mut response = self.post("/encrypt", &body, Kind::Reads)?;
        let answer: CiphertextResponse<'_> = decode(&mut response)?;
        Ok(answer.ciphertext.0.to_vec())
    }

    fn post<T: Serialize>(&self, path: &str, value: &T, kind: Kind) -> Result<Response, Error> {
        let body = body(value)?;
        self.answer("POST", &target(path), body.get(), kind)
    }

    /// Makes a request that is answered with content.
    fn answer(
        &self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
        kind: Kind,
    ) -> Result<Response, Error> {
        let response = self.call(method, target, body, kind)?;
        if matches!(response.status, 200 | 201) {
            return Ok(response);
        }
        Err(refusal(response, 200))
    }

    /// Makes a request that is answered without content.
    fn done(
        &self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
        kind: Kind,
    ) -> Result<(), Error> {
        let response = self.call(method, target, body, kind)?;
        if response.status == 204 {
            return Ok(());
        }
        Err(refusal(response, 204))
    }

    fn call(
        &self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
        kind: Kind,
    ) -> Result<Response, Error> {
        let Deadlines {
            connect,
            silence,
            whole,
            generation,
        } = self.deadlines;
        let (silence, attempt) = match kind {
            Kind::Reads | Kind::Status => (silence, whole),
            Kind::Generates | Kind::Changes => (generation, generation),
        };
        let asked = target.len().saturating_add(body.map_or(0, <[u8]>::len));
        let call = Call {
            request: Request {
                method,
                host: self.service.host(),
                target,
                headers: &[],
                body,
            },
            idempotent: kind != Kind::Changes,
            body_limit: match kind {
                Kind::Status => RESPONSE_BODY,
                _ => ANSWER.saturating_add(asked.saturating_mul(GROWTH)),
            },
            connect,
            silence,
            attempt,
        };
        Ok(self.service.call(&call)?)
    }
}

/// Longest answer to a short question.
const ANSWER: usize = 64 * 1024;

/// How many bytes of an answer a byte of the question can account for: a handle holds an id with escapes and in Base64, or
/// derivation data as decimal numbers and in Base64.
const GROWTH: usize = 8;

/// A request body, wiped when dropped.
struct Body {
    bytes: Zeroizing<Vec<u8>>,
    length: usize,
}

impl Body {
    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

fn body<T: Serialize>(value: &T) -> Result<Body, Error> {
    let mut size = BODY;
    loop {
        let mut bytes = Zeroizing::new(vec![0; size]);
        match json::to_slice(value, &mut bytes) {
            Ok(length) => return Ok(Body { bytes, length }),
            Err(_) if size >= BODY_KEYS => return Err(Error::TooLong),
            Err(_) => size = size.saturating_mul(4).min(BODY_KEYS),
        }
    }
}

fn target(path: &str) -> String {
    format!("{path}?api-version={CLIENT_VERSION}")
}

/// The path with an id in it. Everything that could mean something in a path, to the service or on the way, is encoded.
fn id_target(path: &str, id: &str) -> String {
    const UNRESERVED: Set = Set::PUNCTUATION.without(b"-._~");
    let id = UNRESERVED.encode(id);
    format!("{path}/{id}?api-version={CLIENT_VERSION}")
}

fn member(key: &KeyHandle) -> HandleMember<'_> {
    HandleMember {
        key_handle: key.as_str(),
    }
}

fn aead<'a>(iv: &'a [u8], aad: &'a [u8]) -> EncryptMechanism<'a> {
    EncryptMechanism::Aead {
        iv: Bytes(iv),
        aad: Bytes(aad),
    }
}

fn handle(mut response: Response) -> Result<KeyHandle, Error> {
    let answer: HandleMember<'_> = decode(&mut response)?;
    Ok(KeyHandle::new(answer.key_handle))
}

fn decode<'a, T: FromJson<'a>>(response: &'a mut Response) -> Result<T, Error> {
    if !response.is_json {
        return Err(Error::Malformed(
            "invalid Content-Type; expected JSON".to_owned(),
        ));
    }
    // The reader's own text could quote a value of the answer, which may be a secret.
    json::from_slice(response.body())
        .map_err(|_| Error::Malformed("it is not the JSON object that was expected".to_owned()))
}

aziot_core::json_input! {
    struct Message<'a> {
        message: &'a str = "message",
    }
}

/// What a response of another status than the `expected` one says.
fn refusal(mut response: Response, expected: u16) -> Error {
    let status = response.status;
    let message = if (400..600).contains(&status) {
        let line = response.status_line();
        match json::from_slice::<Message<'_>>(response.body()) {
            Ok(answer) => answer.message.to_owned(),
            Err(_) => format!("HTTP error {line}"),
        }
    } else {
        format!(
            "Expected one of [{expected}], got {}",
            response.status_line()
        )
    };
    Error::Service { status, message }
}
