//! What the requests come to: one function that carries an operation out, from memory in the loop or with all it takes in
//! a worker.

use std::fmt::Display;

use aziot_core::api::keys::{
    self, CreateDerivedKey, CreateKey, CreateKeyPair, EncryptMechanism, KeyHandle, MoveKeyPair, Op,
    SignMechanism,
};
use aziot_core::handle::{self, CheckError, KeyRef, NONCE_SIZE, Subject, WriteError};
use aziot_core::http::Method;
use aziot_core::id::KeyId;
use aziot_core::{api, json};
use aziot_crypto::keys_abi as abi;
use aziot_crypto::keys_abi::Rc;
use zeroize::Zeroizing;

use crate::wipe::wipe;

use super::grants::Caller;
use super::library::{CallError, Cipher, Library, Mode, Place};

/// Memory that an operation works in; kept between operations so that none of them allocates in a steady state.
#[derive(Debug, Default)]
pub struct Work {
    /// The text of a handle, for checking it in place.
    handle: Zeroizing<Vec<u8>>,
    /// The text of a new handle.
    new_handle: Zeroizing<Vec<u8>>,
    /// Bytes that an operation yields.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl Work {
    /// The handle that an operation yields.
    #[must_use]
    pub fn handle(&self) -> &str {
        std::str::from_utf8(&self.new_handle).unwrap_or_default()
    }

    /// Wipes what the operation left.
    pub fn wipe(&mut self) {
        for buffer in [&mut self.handle, &mut self.new_handle, &mut self.bytes] {
            wipe(buffer);
            buffer.clear();
        }
    }
}

/// What an operation yields; the bytes are in [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A handle.
    Handle,
    /// `{"signature":…}`.
    Signature,
    /// `{"ciphertext":…}`.
    Ciphertext,
    /// `{"plaintext":…}`.
    Plaintext,
    /// `{"key":…}`.
    Key,
    /// `{"value":…}` in base64.
    Value,
    /// `{"value":…}` as a word.
    Word(&'static str),
    /// 204.
    Nothing,
}

/// Why an operation failed.
#[derive(Debug)]
pub enum Failure {
    /// It cannot be done here, but there. Nothing has been done.
    WouldBlock(Place),
    /// What the client is told, and the status.
    Told(u16, String),
    /// What only the log is told.
    Internal(String),
}

impl Failure {
    fn parameter(name: &str, reason: &dyn Display) -> Self {
        Self::Told(
            400,
            format!("parameter \"{name}\" has an invalid value\ncaused by: {reason}"),
        )
    }

    fn mechanism() -> Self {
        Self::parameter("mechanism", &"mechanism cannot be used with this key type")
    }

    fn invalid() -> Self {
        Self::Told(400, "a parameter has an invalid value".to_owned())
    }
}

impl From<api::Error<'_>> for Failure {
    fn from(error: api::Error<'_>) -> Self {
        Self::Told(error.status(), error.to_string())
    }
}

/// A failed call as the client sees it: 1 is its own mistake, anything else is ours.
fn failed(what: &'static str) -> impl Fn(CallError) -> Failure {
    failed_in(what, what)
}

fn failed_in(what: &'static str, call: &'static str) -> impl Fn(CallError) -> Failure {
    move |error| match error {
        CallError::WouldBlock(place) => Failure::WouldBlock(place),
        CallError::Rc(Rc::INVALID_PARAMETER) => Failure::invalid(),
        error => Failure::Internal(format!("{what}\n{call}: {error}")),
    }
}

/// A request as far as it is needed to carry it out.
pub struct Call<'c> {
    /// The route.
    pub op: Op,
    /// The method.
    pub method: Method,
    /// The path parameter.
    pub param: &'c str,
    /// The JSON body, which is decoded in place.
    pub body: Option<&'c mut [u8]>,
    /// Who asks.
    pub caller: &'c Caller,
}

impl<'c> Call<'c> {
    fn decode<T: json::FromJson<'c>>(&mut self) -> Result<T, Failure> {
        let body = self.body.take().ok_or(api::Error::MissingBody)?;
        // The reader does not look into what it skips.
        json::require_utf8(body).map_err(api::Error::Json)?;
        Ok(json::from_slice(body).map_err(api::Error::Json)?)
    }
}

fn not_onto_itself(from: &str, to: &str) -> Result<(), Failure> {
    if from == to {
        return Err(Failure::Told(
            400,
            "source and destination for move are identical".to_owned(),
        ));
    }
    Ok(())
}

/// An id that the caller may use.
fn allowed<'t>(caller: &Caller, name: &str, text: &'t str) -> Result<KeyId<'t>, Failure> {
    authorized(caller, text)?;
    id(name, text)
}

fn authorized(caller: &Caller, id: &str) -> Result<(), Failure> {
    caller
        .authorize(id)
        .map_err(|denied| Failure::Told(401, denied.to_string()))
}

fn id<'t>(name: &str, text: &'t str) -> Result<KeyId<'t>, Failure> {
    KeyId::new(text).map_err(|error| Failure::parameter(name, &error))
}

/// Carries an operation out, waiting for no more than `mode` allows. What is wrong with the request is found in the order
/// that clients know, and before anything that may wait: the body, then the caller's rights or the handle, then the rest.
///
/// # Errors
/// See [`Failure`].
pub fn execute(
    library: &Library,
    mode: Mode,
    mut call: Call<'_>,
    work: &mut Work,
) -> Result<Answer, Failure> {
    match (call.op, call.method) {
        (Op::Keys, Method::Post) => {
            let caller = call.caller;
            let request: CreateKey<'_> = call.decode()?;
            let id = allowed(caller, "id", request.key_id)?;
            let usage = request.usage.mask();
            match request.key_bytes {
                Some(bytes) if bytes.0.is_empty() => {
                    return Err(Failure::parameter(
                        "keyBytes",
                        &"a key of zero bytes protects nothing; leave keyBytes out to have a key generated",
                    ));
                }
                Some(bytes) => library
                    .import_key(mode, id.as_str(), bytes.0, usage)
                    .map_err(failed("could not import key"))?,
                None => library
                    .create_key(mode, id.as_str(), usage)
                    .map_err(failed_in("could not generate key", "could not create key"))?,
            }
            issue(library, mode, Subject::Key(id), work)
        }
        (Op::Keys, _) => {
            let key = named(library, mode, &mut call, &mut work.handle)?;
            let id = key
                .key()
                .map_err(|error| Failure::parameter("handle", &error))?;
            removed(
                library.delete_key(mode, id.as_str()),
                "could not delete key",
            )
        }
        (Op::Key, Method::Get) => {
            let id = allowed(call.caller, "id", call.param)?;
            library
                .load_key(mode, id.as_str())
                .map_err(failed("could not load key"))?;
            issue(library, mode, Subject::Key(id), work)
        }
        (Op::Key, _) => {
            let to = call.param;
            let request: MoveKeyPair<'_> = call.decode()?;
            not_onto_itself(request.from, to)?;
            Err(Failure::Told(400, "invalid type \"key\"".to_owned()))
        }
        (Op::KeyPairs, Method::Post) => {
            let caller = call.caller;
            let request: CreateKeyPair<'_> = call.decode()?;
            let pair = allowed(caller, "id", request.key_id)?;
            if let Some(algorithms) = request.preferred_algorithms {
                id("preferred_algorithms", algorithms)?;
            }
            library
                .create_key_pair(mode, pair.as_str(), request.preferred_algorithms)
                .map_err(failed("could not create key pair"))?;
            issue(library, mode, Subject::KeyPair(pair), work)
        }
        (Op::KeyPairs, _) => {
            let key = named(library, mode, &mut call, &mut work.handle)?;
            let id = key
                .key_pair()
                .map_err(|error| Failure::parameter("handle", &error))?;
            removed(
                library.delete_key_pair(mode, id.as_str()),
                "could not delete key pair",
            )
        }
        (Op::KeyPair, Method::Get) => {
            let id = allowed(call.caller, "id", call.param)?;
            library
                .load_key_pair(mode, id.as_str())
                .map_err(failed("could not load key pair"))?;
            issue(library, mode, Subject::KeyPair(id), work)
        }
        (Op::KeyPair, _) => {
            let (to, caller) = (call.param, call.caller);
            let request: MoveKeyPair<'_> = call.decode()?;
            not_onto_itself(request.from, to)?;
            authorized(caller, request.from)?;
            authorized(caller, to)?;
            let (from, to) = (id("from", request.from)?, id("to", to)?);
            removed(
                library.move_key_pair(mode, from.as_str(), to.as_str()),
                "could not move key pair",
            )
        }
        (Op::Parameter, _) => parameter(library, mode, call, work),
        (Op::DerivedKey, _) => {
            let request: CreateDerivedKey<'_> = call.decode()?;
            let key = checked(library, mode, request.base_key_handle, &mut work.handle)?;
            key.base()
                .map_err(|error| Failure::parameter("handle", &error))?;
            let subject = Subject::Derived {
                base_handle: request.base_key_handle,
                data: request.derivation_data.0,
            };
            issue(library, mode, subject, work)
        }
        (Op::DerivedKeyExport, _) => {
            let key = named(library, mode, &mut call, &mut work.handle)?;
            let (base, data) = key
                .derived()
                .map_err(|error| Failure::parameter("handle", &error))?;
            library
                .derive_key(mode, base.id().as_str(), data, &mut work.bytes)
                .map_err(failed("could not derive key"))?;
            Ok(Answer::Key)
        }
        (Op::Sign, _) => {
            let request = call.decode::<keys::Sign<'_>>()?;
            let key = checked(library, mode, request.key_handle, &mut work.handle)?;
            let hmac = abi::SIGN_MECHANISM_HMAC_SHA256;
            let (id, mechanism, derivation, input) = match (key, request.mechanism) {
                (KeyRef::KeyPair(id), SignMechanism::Ecdsa { digest }) => {
                    (id, abi::SIGN_MECHANISM_ECDSA, None, digest.0)
                }
                (KeyRef::Key(id), SignMechanism::HmacSha256 { message }) => {
                    (id, hmac, None, message.0)
                }
                (KeyRef::Derived { base, data }, SignMechanism::HmacSha256 { message }) => {
                    (base.id(), hmac, Some(data), message.0)
                }
                _ => return Err(Failure::mechanism()),
            };
            library
                .sign(
                    mode,
                    id.as_str(),
                    mechanism,
                    derivation,
                    input,
                    &mut work.bytes,
                )
                .map_err(failed("could not sign"))?;
            Ok(Answer::Signature)
        }
        (Op::Encrypt, _) => crypt(library, mode, call, work, true),
        (Op::Decrypt, _) => crypt(library, mode, call, work, false),
        // Answered by a report, not by an operation on a key.
        (Op::Status, _) => Err(Failure::Internal(
            "the status is no key operation".to_owned(),
        )),
    }
}

fn parameter(
    library: &Library,
    mode: Mode,
    mut call: Call<'_>,
    work: &mut Work,
) -> Result<Answer, Failure> {
    let name = call.param;
    let key = named(library, mode, &mut call, &mut work.handle)?;
    let id = match key {
        KeyRef::Key(id) | KeyRef::KeyPair(id) => id,
        KeyRef::Derived { base, .. } => base.id(),
    };
    let what = "could not get key pair parameter";
    let kind = match name {
        "algorithm" => {
            return match library
                .key_pair_algorithm(mode, id.as_str())
                .map_err(failed(what))?
            {
                abi::KEY_PAIR_PARAMETER_ALGORITHM_EC => Ok(Answer::Word("ECDSA")),
                abi::KEY_PAIR_PARAMETER_ALGORITHM_RSA => Ok(Answer::Word("RSA")),
                other => Err(Failure::Internal(format!(
                    "{what}\n{what}: unknown algorithm {other}"
                ))),
            };
        }
        "ec-curve-oid" => abi::KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID,
        "ec-point" => abi::KEY_PAIR_PARAMETER_TYPE_EC_POINT,
        "rsa-modulus" => abi::KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS,
        "rsa-exponent" => abi::KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT,
        _ => return Err(Failure::invalid()),
    };
    library
        .key_pair_parameter(mode, id.as_str(), kind, &mut work.bytes)
        .map_err(failed(what))?;
    Ok(Answer::Value)
}

fn crypt(
    library: &Library,
    mode: Mode,
    mut call: Call<'_>,
    work: &mut Work,
    encrypt: bool,
) -> Result<Answer, Failure> {
    let (handle, algorithm, input) = if encrypt {
        let request: keys::Plaintext<'_> = call.decode()?;
        (request.key_handle, request.mechanism, request.plaintext.0)
    } else {
        let request: keys::Ciphertext<'_> = call.decode()?;
        (request.key_handle, request.mechanism, request.ciphertext.0)
    };
    let key = checked(library, mode, handle, &mut work.handle)?;
    let empty: &[u8] = &[];
    let (id, cipher) = match (key, algorithm) {
        (KeyRef::Key(id), EncryptMechanism::Aead { iv, aad }) => (
            id,
            Cipher {
                mechanism: abi::ENCRYPT_MECHANISM_AEAD,
                derivation: None,
                iv: iv.0,
                aad: aad.0,
            },
        ),
        (KeyRef::Derived { base, data }, EncryptMechanism::Aead { iv, aad }) => (
            base.id(),
            Cipher {
                mechanism: abi::ENCRYPT_MECHANISM_AEAD,
                derivation: Some(data),
                iv: iv.0,
                aad: aad.0,
            },
        ),
        (KeyRef::KeyPair(id), EncryptMechanism::RsaPkcs1) if encrypt => (
            id,
            Cipher {
                mechanism: abi::ENCRYPT_MECHANISM_RSA_PKCS1,
                derivation: None,
                iv: empty,
                aad: empty,
            },
        ),
        (KeyRef::KeyPair(id), EncryptMechanism::RsaNoPadding) if encrypt => (
            id,
            Cipher {
                mechanism: abi::ENCRYPT_MECHANISM_RSA_NO_PADDING,
                derivation: None,
                iv: empty,
                aad: empty,
            },
        ),
        _ => return Err(Failure::mechanism()),
    };
    let what = if encrypt {
        "could not encrypt"
    } else {
        "could not decrypt"
    };
    library
        .crypt(mode, encrypt, id.as_str(), &cipher, input, &mut work.bytes)
        .map_err(failed(what))?;
    Ok(if encrypt {
        Answer::Ciphertext
    } else {
        Answer::Plaintext
    })
}

/// A 2.0.0.0 library has no such call; clients have always been told that it worked.
fn removed(result: Result<(), CallError>, what: &'static str) -> Result<Answer, Failure> {
    match result {
        Err(CallError::Unsupported) => {
            log::warn!(
                "{what}: the key library has API version 2.0.0.0, which cannot; nothing was done. Install a library with \
                 2.1.0.0"
            );
            Ok(Answer::Nothing)
        }
        result => result.map(|()| Answer::Nothing).map_err(failed(what)),
    }
}

/// The key whose handle is all there is in the request.
fn named<'b>(
    library: &Library,
    mode: Mode,
    call: &mut Call<'_>,
    buffer: &'b mut Vec<u8>,
) -> Result<KeyRef<'b>, Failure> {
    let request: KeyHandle<'_> = call.decode()?;
    checked(library, mode, request.key_handle, buffer)
}

/// Checks a handle in a copy, because it is decoded in place and its text may still be needed.
fn checked<'b>(
    library: &Library,
    mode: Mode,
    handle: &str,
    buffer: &'b mut Vec<u8>,
) -> Result<KeyRef<'b>, Failure> {
    buffer.clear();
    buffer.extend_from_slice(handle.as_bytes());
    handle::check(buffer, &mut library.handle_mac(mode)).map_err(|error| match error {
        CheckError::Mac(CallError::WouldBlock(place)) => Failure::WouldBlock(place),
        CheckError::Mac(error) => {
            Failure::Internal(format!("could not verify\ncould not verify: {error}"))
        }
        CheckError::Invalid => Failure::parameter("handle", &"invalid handle"),
        CheckError::Nested => Failure::parameter("handle", &handle::WrongKind::Nested),
        CheckError::NulByte(error) => Failure::parameter("handle", &error),
    })
}

/// Makes a handle.
fn issue(
    library: &Library,
    mode: Mode,
    subject: Subject<'_>,
    work: &mut Work,
) -> Result<Answer, Failure> {
    let mut nonce = [0; NONCE_SIZE];
    // 64 bytes are always delivered whole (getrandom(2)).
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty()).map_err(
        |error| {
            Failure::Internal(format!(
                "could not generate nonce\ncould not generate nonce: {error}"
            ))
        },
    )?;
    let length = handle::length(subject);
    work.new_handle.clear();
    work.new_handle.resize(length, 0);
    let written = handle::write(
        subject,
        &nonce,
        &mut library.handle_mac(mode),
        &mut work.new_handle,
    );
    match written {
        Ok(_) => Ok(Answer::Handle),
        Err(WriteError::Mac(CallError::WouldBlock(place))) => Err(Failure::WouldBlock(place)),
        Err(WriteError::Mac(error)) => Err(Failure::Internal(format!(
            "could not sign\ncould not sign: {error}"
        ))),
        Err(error @ WriteError::BufferTooSmall { .. }) => Err(Failure::Internal(format!(
            "could not make a handle\n{error:?}"
        ))),
    }
}
