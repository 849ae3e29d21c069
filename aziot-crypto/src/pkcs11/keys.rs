//! Using keys in a token.

use core::fmt;
use std::sync::Arc;

use cryptoki::context::Function;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::ObjectHandle;
use zeroize::Zeroizing;

use super::ec::{der_signature, signer_input};
use super::error::{Cause, Error, Severity};
use super::pair::Public;
use super::token::{Blame, Login, Token, Work};
use crate::aead::{Layout, MAX_IV_LEN, OVERHEAD, Sealed, TAG_LEN};
use crate::key_pair::{Parameter, ParameterValue, RsaPadding};
use crate::mac::{TAG_LEN as MAC_LEN, Tag};

/// What RSA padding takes of the modulus, in bytes.
const PKCS1_OVERHEAD: usize = 11;

/// A symmetric key in a token, by its label. The object is looked for when the key is used.
#[derive(Clone)]
pub struct SecretKey {
    token: Token,
    label: Option<String>,
}

impl SecretKey {
    pub(super) fn new(token: Token, label: Option<&str>) -> Self {
        Self {
            token,
            label: label.map(str::to_owned),
        }
    }

    /// The token it is in.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The HMAC-SHA256 tag of a message; also the key that is derived with the message.
    ///
    /// # Errors
    ///
    /// The key is gone; those of the token.
    pub fn mac(&self, message: &[u8]) -> Result<Tag, Error> {
        self.run(Blame::Module, |work, key| mac(work, key, message))
            .map_err(|cause| self.token.error(cause))
    }

    /// Whether `tag` is the whole HMAC-SHA256 tag of the message. The token compares, or, where it cannot, we do in constant
    /// time.
    ///
    /// # Errors
    ///
    /// The key is gone; those of the token.
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> Result<bool, Error> {
        self.run(Blame::Module, |work, key| {
            // Not every token knows what to do with an empty one.
            if tag.len() != MAC_LEN {
                return Ok(false);
            }
            match work
                .session
                .verify(&Mechanism::Sha256Hmac, key, message, tag)
            {
                Ok(()) => Ok(true),
                Err(CryptokiError::Pkcs11(
                    RvError::SignatureInvalid | RvError::SignatureLenRange,
                    _,
                )) => Ok(false),
                Err(err) => match Cause::from(err) {
                    cause if cause.is_missing_mechanism() => {
                        mac(work, key, message).map(|expected| expected.is(tag))
                    }
                    cause => Err(cause),
                },
            }
        })
        .map_err(|cause| self.token.error(cause))
    }

    /// Encrypts with AES-GCM and a tag of 16 bytes. The result is a whole ciphertext in the layout [`Layout::V2`].
    ///
    /// # Errors
    ///
    /// An initialisation vector of no or more than [`MAX_IV_LEN`] bytes; the key is gone; those of the token.
    pub fn encrypt(&self, iv: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        check_iv(iv)
            .and_then(|()| {
                self.run_on_data(|work, key| encrypt(work, key, iv, aad, plaintext), None)
            })
            .map_err(|cause| self.token.error(cause))
    }

    /// Decrypts a whole ciphertext in either layout.
    ///
    /// # Errors
    ///
    /// A malformed ciphertext; an initialisation vector of no or more than [`MAX_IV_LEN`] bytes; a ciphertext that was not
    /// made with this key, vector and additional data ([`Error::is_authentication`]); the key is gone; those of the token.
    pub fn decrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let decrypt = || {
            let sealed = Sealed::parse(ciphertext).map_err(Cause::MalformedCiphertext)?;
            check_iv(iv)?;
            let mut input = Vec::with_capacity(sealed.ciphertext.len() + TAG_LEN);
            input.extend_from_slice(sealed.ciphertext);
            input.extend_from_slice(sealed.tag);
            self.run_on_data(
                |work, key| decrypt(work, key, iv, aad, &input),
                Some(Cause::Authentication),
            )
        };
        decrypt().map_err(|cause| self.token.error(cause))
    }

    fn run<T>(
        &self,
        blame: Blame,
        mut operation: impl FnMut(&Work<'_>, ObjectHandle) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let label = self.label.as_deref();
        self.token.run(Login::IfPossible, blame, |work| {
            let key = work.secret(label)?.ok_or_else(|| Cause::NotFound {
                kind: "key",
                label: label.map(str::to_owned),
            })?;
            operation(work, key)
        })
    }

    /// An operation that a token may answer with "device broken" only because it does not like the data. Then the same key
    /// is tried with data that is known to be good: if that works, the data are to blame, and the module stays.
    fn run_on_data<T>(
        &self,
        mut operation: impl FnMut(&Work<'_>, ObjectHandle) -> Result<T, Cause>,
        blame: Option<fn(RvError) -> Cause>,
    ) -> Result<T, Cause> {
        let refused = |cause| match (cause, blame) {
            (
                Cause::Call {
                    value,
                    function: Function::Decrypt,
                },
                Some(blame),
            ) => blame(value),
            (cause, _) => cause,
        };
        let mut seen = 0;
        let result = self.run(Blame::Data, |work, key| {
            seen = work.generation;
            operation(work, key)
        });
        let cause = match result {
            Err(cause) if cause.severity() == Severity::Fatal => cause,
            result => return result,
        };
        let mut now = 0;
        self.run(Blame::Module, |work, key| {
            now = work.generation;
            try_encryption(work, key)
        })?;
        if now == seen {
            return Err(refused(cause));
        }
        // It was broken, and works again.
        self.run(Blame::Data, operation).map_err(refused)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("token", &self.token)
            .field("label", &self.label)
            .finish()
    }
}

fn mac(work: &Work<'_>, key: ObjectHandle, message: &[u8]) -> Result<Tag, Cause> {
    let tag = Zeroizing::new(work.session.sign(&Mechanism::Sha256Hmac, key, message)?);
    match <[u8; MAC_LEN]>::try_from(tag.as_slice()) {
        Ok(tag) => Ok(Tag::new(tag)),
        Err(_) => Err(Cause::Malformed("result of CKM_SHA256_HMAC")),
    }
}

fn check_iv(iv: &[u8]) -> Result<(), Cause> {
    match iv.len() {
        1..=MAX_IV_LEN => Ok(()),
        len => Err(Cause::IvLen(len)),
    }
}

fn encrypt(
    work: &Work<'_>,
    key: ObjectHandle,
    iv: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, Cause> {
    let mut iv = iv.to_vec();
    let sealed = work
        .session
        .encrypt(&Mechanism::AesGcm(gcm(&mut iv, aad)?), key, plaintext)?;
    if sealed.len() != plaintext.len() + TAG_LEN {
        return Err(Cause::Malformed("result of CKM_AES_GCM"));
    }
    let mut whole = Vec::with_capacity(plaintext.len() + OVERHEAD);
    whole.push(Layout::V2.byte());
    whole.extend_from_slice(&sealed);
    Ok(whole)
}

/// `input` is the ciphertext with its tag behind it.
fn decrypt(
    work: &Work<'_>,
    key: ObjectHandle,
    iv: &[u8],
    aad: &[u8],
    input: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Cause> {
    let mut iv = iv.to_vec();
    let result = work
        .session
        .decrypt(&Mechanism::AesGcm(gcm(&mut iv, aad)?), key, input);
    match result {
        Ok(plaintext) => {
            let plaintext = Zeroizing::new(plaintext);
            if plaintext.len() + TAG_LEN != input.len() {
                return Err(Cause::Malformed("result of CKM_AES_GCM"));
            }
            Ok(plaintext)
        }
        Err(CryptokiError::Pkcs11(
            value @ (RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::DataInvalid
            | RvError::SignatureInvalid),
            Function::Decrypt,
        )) => Err(Cause::Authentication(value)),
        Err(err) => Err(err.into()),
    }
}

fn gcm<'a>(iv: &'a mut [u8], aad: &'a [u8]) -> Result<GcmParams<'a>, Cause> {
    let tag_bits = core::ffi::c_ulong::try_from(TAG_LEN * 8).unwrap_or_default();
    Ok(GcmParams::new(iv, aad, tag_bits.into())?)
}

/// Whether a key can be used for AES-GCM.
pub(super) fn try_encryption(work: &Work<'_>, key: ObjectHandle) -> Result<(), Cause> {
    encrypt(work, key, b"123456789012", b"someaad", b"someplaintext").map(drop)
}

/// Whether a key can be used for HMAC.
pub(super) fn try_signing(work: &Work<'_>, key: ObjectHandle) -> Result<(), Cause> {
    mac(work, key, b"somemessage").map(drop)
}

/// A key pair in a token. Its public parameters are in memory; the private object is looked for when it is used.
#[derive(Clone)]
pub struct KeyPair {
    token: Token,
    label: Option<String>,
    public: Arc<Public>,
}

impl KeyPair {
    pub(super) fn new(token: Token, label: Option<&str>, public: Arc<Public>) -> Self {
        Self {
            token,
            label: label.map(str::to_owned),
            public,
        }
    }

    /// The token it is in.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// A public parameter.
    ///
    /// # Errors
    ///
    /// The key is of another algorithm, or on a curve whose identifier is not told.
    pub fn parameter(&self, parameter: Parameter) -> Result<ParameterValue<'_>, Error> {
        self.public
            .parameter(parameter)
            .map_err(|cause| self.token.error(cause))
    }

    /// Longest ECDSA signature in bytes; `None` unless the key is on a curve.
    #[must_use]
    pub fn signature_bound(&self) -> Option<usize> {
        self.public.signature_bound()
    }

    /// Bytes of the modulus, and of every result of [`Self::rsa_private`]; `None` unless the key is RSA.
    #[must_use]
    pub fn modulus_len(&self) -> Option<usize> {
        self.public.modulus().map(<[u8]>::len)
    }

    /// Signs a digest with ECDSA (`CKM_ECDSA`). Any digest will do, also an empty one; of one that is longer than the order
    /// the leftmost bits are taken. The result is DER.
    ///
    /// # Errors
    ///
    /// The key is not on a curve; it is gone; those of the token.
    pub fn sign_ecdsa(&self, digest: &[u8]) -> Result<Vec<u8>, Error> {
        self.run(|work, private, public| {
            let Public::Ec { order_bits, .. } = public else {
                return Err(Cause::NotEc);
            };
            let input = signer_input(digest, *order_bits);
            let raw = work.session.sign(&Mechanism::Ecdsa, private, &input)?;
            der_signature(&raw)
                .filter(|_| raw.len() <= 2 * order_bits.div_ceil(8))
                .ok_or(Cause::Malformed("result of CKM_ECDSA"))
        })
    }

    /// RSA's private operation (RSASP1 of RFC 8017, 5.2.1) on the padded input, with `CKM_RSA_PKCS` or `CKM_RSA_X509`. The
    /// result has as many bytes as the modulus.
    ///
    /// Lengths are checked here: there are modules that end the process if they are wrong.
    ///
    /// # Errors
    ///
    /// The key is not RSA; the padding does not take the input (at most 11 bytes less than the modulus; without padding, a
    /// number below the modulus in as many bytes); the key is gone; those of the token.
    pub fn rsa_private(&self, padding: RsaPadding, input: &[u8]) -> Result<Vec<u8>, Error> {
        self.run(|work, private, public| {
            let modulus = public.modulus().ok_or(Cause::NotRsa)?;
            let mechanism = check_rsa(padding, input, modulus)?;
            let mut result = work.session.sign(&mechanism, private, input)?;
            let missing = modulus
                .len()
                .checked_sub(result.len())
                .ok_or(Cause::Malformed("result of RSA"))?;
            result.splice(..0, core::iter::repeat_n(0, missing));
            Ok(result)
        })
    }

    fn run<T>(
        &self,
        mut operation: impl FnMut(&Work<'_>, ObjectHandle, &Public) -> Result<T, Cause>,
    ) -> Result<T, Error> {
        let label = self.label.as_deref();
        self.token
            .run(Login::IfPossible, Blame::Module, |work| {
                let pair = work.pair(label)?.ok_or_else(|| Cause::NotFound {
                    kind: "key pair",
                    label: label.map(str::to_owned),
                })?;
                operation(work, pair.private, &pair.public_key)
            })
            .map_err(|cause| self.token.error(cause))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("token", &self.token)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

fn check_rsa(
    padding: RsaPadding,
    input: &[u8],
    modulus: &[u8],
) -> Result<Mechanism<'static>, Cause> {
    let (len, modulus_len) = (input.len(), modulus.len());
    match padding {
        RsaPadding::Pkcs1 => {
            let max = modulus_len.saturating_sub(PKCS1_OVERHEAD);
            if len > max {
                return Err(Cause::InputTooLong { len, max });
            }
            Ok(Mechanism::RsaPkcs)
        }
        RsaPadding::None => {
            if len != modulus_len {
                return Err(Cause::InputLen { len, modulus_len });
            }
            // Of the same length and big endian, so they compare like the numbers.
            if input >= modulus {
                return Err(Cause::InputNotBelowModulus);
            }
            Ok(Mechanism::RsaX509)
        }
    }
}
