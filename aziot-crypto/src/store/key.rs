//! Keys in use, wherever they live.

use core::fmt;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use super::error::Error;
use crate::key_pair::{Parameter, ParameterValue, RsaPadding};
use crate::mac::{TAG_LEN, Tag};
use crate::openssl::{self, AesGcm};
use crate::pkcs11;
use crate::software::HmacSha256;

/// Length of a key for AES-256-GCM in bytes.
const AES_KEY_LEN: usize = 32;

/// A symmetric key that is ready for use. It stays usable when the store forgets it, and what of it is in memory is
/// wiped when the last holder drops it.
pub struct Key(pub(super) KeyInner);

pub(super) enum KeyInner {
    File(Arc<SymmetricKey>),
    Token(pkcs11::SecretKey),
}

impl Key {
    /// The HMAC-SHA256 tag of a message.
    ///
    /// # Errors
    ///
    /// Those of the token; none for a key in a file.
    pub fn sign(&self, message: &[u8]) -> Result<Tag, Error> {
        match &self.0 {
            KeyInner::File(key) => Ok(key.mac.sign(message)),
            KeyInner::Token(key) => key.mac(message).map_err(Error::Token),
        }
    }

    /// Whether `tag` is the whole HMAC-SHA256 tag of the message. For a key in a file, compared in constant time.
    ///
    /// # Errors
    ///
    /// Those of [`Key::sign`]; a wrong tag, of whatever length, is none.
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> Result<bool, Error> {
        match &self.0 {
            KeyInner::File(key) => Ok(key.mac.verify(message, tag)),
            KeyInner::Token(key) => key.verify(message, tag).map_err(Error::Token),
        }
    }

    /// The bytes of the key that is derived from this one with the given data: its HMAC-SHA256 tag (B9 of the key
    /// library's specification).
    ///
    /// # Errors
    ///
    /// Those of [`Key::sign`].
    pub fn derive(&self, derivation_data: &[u8]) -> Result<Tag, Error> {
        self.sign(derivation_data)
    }

    /// The key that is derived from this one, ready for use. The derivation is done where this key lives; the derived
    /// key lives in memory only.
    ///
    /// # Errors
    ///
    /// Those of [`Key::sign`].
    pub fn derived(&self, derivation_data: &[u8]) -> Result<DerivedKey, Error> {
        self.derive(derivation_data).map(DerivedKey)
    }

    /// Encrypts with AES-GCM into `out`, which needs [`OVERHEAD`](crate::aead::OVERHEAD) bytes more than the plaintext has, and answers
    /// how many were written.
    ///
    /// # Errors
    ///
    /// A key in a file that has not exactly 32 bytes, an initialisation vector of no or more than 128 bytes, too small
    /// a buffer, those of the token.
    pub fn encrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        match &self.0 {
            KeyInner::File(key) => key
                .aead()
                .and_then(|key| key.encrypt(iv, aad, plaintext, out))
                .map_err(Error::Crypto),
            KeyInner::Token(key) => {
                let frame = key.encrypt(iv, aad, plaintext).map_err(Error::Token)?;
                copy(&frame, out)
            }
        }
    }

    /// Decrypts what [`Key::encrypt`] made, in the older layout too, into `out`, and answers how many bytes were
    /// written: [`OVERHEAD`](crate::aead::OVERHEAD) less than `ciphertext` has. Nothing is written unless all of it is authentic.
    ///
    /// # Errors
    ///
    /// As for [`Key::encrypt`]; a malformed ciphertext; one that was not made with this key, vector and data.
    pub fn decrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        match &self.0 {
            KeyInner::File(key) => key
                .aead()
                .and_then(|key| key.decrypt(iv, aad, ciphertext, out))
                .map_err(Error::Crypto),
            KeyInner::Token(key) => {
                let plaintext = key.decrypt(iv, aad, ciphertext).map_err(Error::Token)?;
                copy(&plaintext, out)
            }
        }
    }

    /// Whether the key is in a token, where every operation is a call into its module.
    #[must_use]
    pub fn is_in_token(&self) -> bool {
        matches!(self.0, KeyInner::Token(_))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            KeyInner::File(_) => "Key(file)",
            KeyInner::Token(_) => "Key(token)",
        })
    }
}

/// A key that was derived from another. It lives in memory only and works in software; wiped when dropped.
#[derive(Debug)]
pub struct DerivedKey(Tag);

impl DerivedKey {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TAG_LEN] {
        self.0.as_bytes()
    }

    /// The HMAC-SHA256 tag of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Tag {
        HmacSha256::new(self.0.as_bytes()).sign(message)
    }

    /// As [`Key::encrypt`], always with AES-256.
    ///
    /// # Errors
    ///
    /// Those of [`Key::encrypt`] for a key in a file.
    pub fn encrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        AesGcm::new(self.0.as_bytes())
            .and_then(|key| key.encrypt(iv, aad, plaintext, out))
            .map_err(Error::Crypto)
    }

    /// As [`Key::decrypt`], always with AES-256.
    ///
    /// # Errors
    ///
    /// Those of [`Key::decrypt`] for a key in a file.
    pub fn decrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        AesGcm::new(self.0.as_bytes())
            .and_then(|key| key.decrypt(iv, aad, ciphertext, out))
            .map_err(Error::Crypto)
    }
}

/// A symmetric key out of a file.
pub(super) struct SymmetricKey {
    pub(super) mac: HmacSha256,
    /// The bytes, if they can be a key for AES, or else how many they are.
    aes: Result<Zeroizing<[u8; AES_KEY_LEN]>, usize>,
    aead: OnceLock<AesGcm>,
}

impl SymmetricKey {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut aes = Zeroizing::new([0; AES_KEY_LEN]);
        let aes = if bytes.len() == AES_KEY_LEN {
            aes.copy_from_slice(bytes);
            Ok(aes)
        } else {
            Err(bytes.len())
        };
        Self {
            mac: HmacSha256::new(bytes),
            aes,
            aead: OnceLock::new(),
        }
    }

    /// The key for AES-GCM, made when it is first needed: most keys never encrypt.
    fn aead(&self) -> Result<&AesGcm, openssl::Error> {
        if let Some(key) = self.aead.get() {
            return Ok(key);
        }
        let bytes = match &self.aes {
            Ok(bytes) => bytes,
            Err(len) => return Err(openssl::Error::KeyLen(*len)),
        };
        let key = AesGcm::new(bytes.as_slice())?;
        Ok(self.aead.get_or_init(|| key))
    }
}

/// Copies a result of a token.
fn copy(from: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    let enough = from.len();
    out.get_mut(..enough)
        .ok_or(Error::Crypto(openssl::Error::OutputTooSmall { enough }))?
        .copy_from_slice(from);
    Ok(enough)
}

/// A key pair that is ready for use; otherwise as [`Key`].
pub struct KeyPair(pub(super) PairInner);

pub(super) enum PairInner {
    File(Arc<openssl::KeyPair>),
    Token(pkcs11::KeyPair),
}

impl KeyPair {
    /// A public parameter.
    ///
    /// # Errors
    ///
    /// One that keys of this algorithm do not have; those of the token.
    pub fn parameter(&self, parameter: Parameter) -> Result<ParameterValue<'_>, Error> {
        match &self.0 {
            PairInner::File(pair) => pair.parameter(parameter).map_err(Error::Crypto),
            PairInner::Token(pair) => pair.parameter(parameter).map_err(Error::Token),
        }
    }

    /// Longest ECDSA signature in bytes; `None` for a key that makes none.
    #[must_use]
    pub fn signature_bound(&self) -> Option<usize> {
        match &self.0 {
            PairInner::File(pair) => pair.signature_bound(),
            PairInner::Token(pair) => pair.signature_bound(),
        }
    }

    /// Signs a digest with ECDSA and answers the length of the signature, a DER sequence, in `out`. Of a digest longer
    /// than the order of the curve, the leftmost bits are taken.
    ///
    /// # Errors
    ///
    /// A key that cannot; too small a buffer ([`KeyPair::signature_bound`] is always enough); those of the token.
    pub fn sign_ecdsa(&self, digest: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        match &self.0 {
            PairInner::File(pair) => pair.sign_ecdsa(digest, out).map_err(Error::Crypto),
            PairInner::Token(pair) => copy(&pair.sign_ecdsa(digest).map_err(Error::Token)?, out),
        }
    }

    /// Length of the RSA modulus in bytes; `None` for other keys.
    #[must_use]
    pub fn modulus_len(&self) -> Option<usize> {
        match &self.0 {
            PairInner::File(pair) => pair.modulus_len(),
            PairInner::Token(pair) => pair.modulus_len(),
        }
    }

    /// RSA's private operation; writes [`KeyPair::modulus_len`] bytes.
    ///
    /// # Errors
    ///
    /// Another kind of key; an input of the wrong length; too small a buffer; those of the token.
    pub fn rsa_private(
        &self,
        padding: RsaPadding,
        input: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        match &self.0 {
            PairInner::File(pair) => pair.rsa_private(padding, input, out).map_err(Error::Crypto),
            PairInner::Token(pair) => copy(
                &pair.rsa_private(padding, input).map_err(Error::Token)?,
                out,
            ),
        }
    }

    /// Whether a signature is made in memory, and quick enough for a thread that must not wait: ECDSA on P-256 with a
    /// key in a file.
    #[must_use]
    pub fn signs_at_once(&self) -> bool {
        match &self.0 {
            PairInner::File(pair) => pair.signs_at_once(),
            PairInner::Token(_) => false,
        }
    }

    /// Whether the key is in a token, where every private operation is a call into its module.
    #[must_use]
    pub fn is_in_token(&self) -> bool {
        matches!(self.0, PairInner::Token(_))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            PairInner::File(_) => "KeyPair(file)",
            PairInner::Token(_) => "KeyPair(token)",
        })
    }
}
