//! Key handles: the bearer tokens by which clients of the Keys Service name keys.
//!
//! ```text
//! handle = "sr=" base64(SR) "&sig=" base64(HMAC-SHA256(K, SR))
//! SR     = {"key_id":{"Key":"<id>"},"nonce":"<text>"}
//!        | {"key_id":{"KeyPair":"<id>"},"nonce":"<text>"}
//!        | {"key_id":{"Derived":["<handle of the base key>",[<byte>,…]]},"nonce":"<text>"}
//! ```
//!
//! `K` is the symmetric key [`crate::id::HANDLE_VALIDATION_KEY`]. Handles do not expire and outlive restarts and upgrades;
//! the nonce only makes each one different. They are secrets: whoever holds one may use the key. Never log them.
//!
//! [`check`] works inside the caller's buffer and [`write()`] inside the caller's output; neither needs other memory than a
//! few hundred bytes of stack.

mod sr;
#[cfg(test)]
mod tests;

use core::fmt;

use subtle::ConstantTimeEq;

use crate::base64;
use crate::id::{KeyId, NulByte};
use crate::output::Output;
use crate::search;

/// Bytes in an HMAC-SHA256.
pub const MAC_SIZE: usize = 32;

/// Random bytes that make a handle unique.
pub const NONCE_SIZE: usize = 64;

/// HMAC-SHA256 under the key that authenticates handles.
///
/// A closure `FnMut(&[u8]) -> Result<[u8; 32], E>` is one. Implement the trait itself when the check can be done where the
/// key lives, in a token for example.
pub trait Mac {
    /// Why no MAC could be made or checked; also where "this would block" is said.
    type Error;

    /// The MAC of `message`.
    fn sign(&mut self, message: &[u8]) -> Result<[u8; MAC_SIZE], Self::Error>;

    /// Whether `mac` is the MAC of `message`, decided in constant time.
    fn verify(&mut self, message: &[u8], mac: &[u8; MAC_SIZE]) -> Result<bool, Self::Error> {
        Ok(self.sign(message)?.ct_eq(mac).into())
    }
}

impl<F, E> Mac for F
where
    F: FnMut(&[u8]) -> Result<[u8; MAC_SIZE], E>,
{
    type Error = E;

    fn sign(&mut self, message: &[u8]) -> Result<[u8; MAC_SIZE], E> {
        self(message)
    }
}

/// What a genuine handle stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyRef<'a> {
    /// A key that is computed from another one on every use and never stored.
    Derived {
        /// The key it is derived from.
        base: BaseKey<'a>,
        /// The message whose HMAC under the base key is the derived key.
        data: &'a [u8],
    },
    /// A symmetric key.
    Key(KeyId<'a>),
    /// A private key with its public half.
    KeyPair(KeyId<'a>),
}

/// The stored key below a derived one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BaseKey<'a> {
    /// A symmetric key.
    Key(KeyId<'a>),
    /// A key pair, whose stored bytes then serve as the key.
    KeyPair(KeyId<'a>),
}

impl<'a> BaseKey<'a> {
    /// The id of the stored key.
    pub const fn id(self) -> KeyId<'a> {
        match self {
            Self::Key(id) | Self::KeyPair(id) => id,
        }
    }
}

impl<'a> KeyRef<'a> {
    /// The id of the symmetric key.
    pub const fn key(self) -> Result<KeyId<'a>, WrongKind> {
        match self {
            Self::Key(id) => Ok(id),
            Self::KeyPair(_) | Self::Derived { .. } => Err(WrongKind::NotAKey),
        }
    }

    /// The id of the key pair.
    pub const fn key_pair(self) -> Result<KeyId<'a>, WrongKind> {
        match self {
            Self::KeyPair(id) => Ok(id),
            Self::Key(_) | Self::Derived { .. } => Err(WrongKind::NotAKeyPair),
        }
    }

    /// The base key and the derivation data.
    pub const fn derived(self) -> Result<(BaseKey<'a>, &'a [u8]), WrongKind> {
        match self {
            Self::Derived { base, data } => Ok((base, data)),
            Self::Key(_) | Self::KeyPair(_) => Err(WrongKind::NotDerived),
        }
    }

    /// The key as the base of a new derived key.
    pub const fn base(self) -> Result<BaseKey<'a>, WrongKind> {
        match self {
            Self::Key(id) => Ok(BaseKey::Key(id)),
            Self::KeyPair(id) => Ok(BaseKey::KeyPair(id)),
            Self::Derived { .. } => Err(WrongKind::Nested),
        }
    }
}

/// A genuine handle is for another kind of key than the operation needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WrongKind {
    /// The base of a derived key would be a derived key itself.
    Nested,
    /// A symmetric key is needed.
    NotAKey,
    /// A key pair is needed.
    NotAKeyPair,
    /// A derived key is needed.
    NotDerived,
}

impl fmt::Display for WrongKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nested => NESTED,
            Self::NotAKey => "handle is not for a key",
            Self::NotAKeyPair => "handle is not for a key pair",
            Self::NotDerived => "handle is not for a derived key",
        })
    }
}

impl core::error::Error for WrongKind {}

const NESTED: &str = "nested derived keys are not supported, import the outer derived key first";

/// Checks a handle and says which key it stands for.
///
/// `handle` is the handle's text; it is decoded in place, and the result borrows from it. Copy the text when it is needed
/// afterwards (as the base of a new derived handle).
///
/// `mac` is asked once, for a derived key twice, and before anything inside the handle is looked at.
///
/// # Errors
/// See [`CheckError`].
pub fn check<'a, M: Mac>(
    handle: &'a mut [u8],
    mac: &mut M,
) -> Result<KeyRef<'a>, CheckError<M::Error>> {
    match sr::parse(open(handle, mac)?).ok_or(CheckError::Invalid)? {
        sr::Named::Key(id) => Ok(KeyRef::Key(KeyId::new(id).map_err(CheckError::NulByte)?)),
        sr::Named::KeyPair(id) => Ok(KeyRef::KeyPair(
            KeyId::new(id).map_err(CheckError::NulByte)?,
        )),
        sr::Named::Derived { base, data } => {
            match sr::parse(open(base, mac)?).ok_or(CheckError::Invalid)? {
                sr::Named::Key(id) => {
                    let base = BaseKey::Key(KeyId::new(id).map_err(CheckError::NulByte)?);
                    Ok(KeyRef::Derived { base, data })
                }
                sr::Named::KeyPair(id) => {
                    let base = BaseKey::KeyPair(KeyId::new(id).map_err(CheckError::NulByte)?);
                    Ok(KeyRef::Derived { base, data })
                }
                sr::Named::Derived { .. } => Err(CheckError::Nested),
            }
        }
    }
}

/// Decodes the pieces of `handle` in place, checks the MAC and yields the signed text.
fn open<'a, M: Mac>(
    handle: &'a mut [u8],
    mac: &mut M,
) -> Result<&'a mut [u8], CheckError<M::Error>> {
    let (mut signed, mut signature) = (None, None);
    let mut start = 0_usize;
    // Pieces may come in any order, foreign ones are ignored, and of repeated ones the last counts; yet each must decode.
    while let Some(rest) = handle.get_mut(start..) {
        if rest.is_empty() {
            break;
        }
        let length = search::position(rest, |byte| byte == b'&').unwrap_or(rest.len());
        let piece = rest.get_mut(..length).unwrap_or_default();
        if let Some(encoded) = strip_prefix(piece, b"sr=") {
            let decoded = base64::decode_public(encoded).ok_or(CheckError::Invalid)?;
            search::require_utf8(decoded).map_err(|_| CheckError::Invalid)?;
            let from = start.saturating_add(3);
            signed = Some(from..from.saturating_add(decoded.len()));
        } else if let Some(encoded) = strip_prefix(piece, b"sig=") {
            let decoded = base64::decode_public(encoded).ok_or(CheckError::Invalid)?;
            signature = Some(<[u8; MAC_SIZE]>::try_from(&*decoded).ok());
        }
        start = start.saturating_add(length).saturating_add(1);
    }
    let (Some(signed), Some(Some(signature))) = (signed, signature) else {
        return Err(CheckError::Invalid);
    };
    let signed = handle.get_mut(signed).ok_or(CheckError::Invalid)?;
    if mac.verify(signed, &signature).map_err(CheckError::Mac)? {
        Ok(signed)
    } else {
        Err(CheckError::Invalid)
    }
}

fn strip_prefix<'a>(piece: &'a mut [u8], prefix: &[u8]) -> Option<&'a mut [u8]> {
    if piece.starts_with(prefix) {
        piece.get_mut(prefix.len()..)
    } else {
        None
    }
}

/// Why a handle is not accepted. `E` is the error of the [`Mac`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CheckError<E> {
    /// It is malformed, or its MAC is not ours. Ask the service for a new handle.
    Invalid,
    /// The MAC could not be checked.
    Mac(E),
    /// The base of the derived key is itself a derived key.
    Nested,
    /// The id inside contains U+0000.
    NulByte(NulByte),
}

impl<E: fmt::Display> fmt::Display for CheckError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("invalid handle"),
            Self::Mac(err) => write!(f, "could not check handle: {err}"),
            Self::Nested => f.write_str(NESTED),
            Self::NulByte(err) => err.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for CheckError<E> {}

/// The key a new handle is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject<'a> {
    /// A key derived from another.
    Derived {
        /// A handle of the base key, which [`check`] has accepted and whose [`KeyRef::base`] is not an error.
        base_handle: &'a str,
        /// The derivation data.
        data: &'a [u8],
    },
    /// A symmetric key.
    Key(KeyId<'a>),
    /// A key pair.
    KeyPair(KeyId<'a>),
}

/// The length in bytes of the handle that [`write()`] makes for `subject`.
pub fn length(subject: Subject<'_>) -> usize {
    handle_length(signed_length(subject))
}

/// Writes a handle for `subject` to the start of `out` and returns its text.
///
/// `nonce` is 64 fresh random bytes. `out` needs [`length`] bytes; what lies beyond them is left alone.
///
/// # Errors
/// See [`WriteError`]. `out` may then hold part of the unsigned text.
pub fn write<'o, M: Mac>(
    subject: Subject<'_>,
    nonce: &[u8; NONCE_SIZE],
    mac: &mut M,
    out: &'o mut [u8],
) -> Result<&'o str, WriteError<M::Error>> {
    let signed_length = signed_length(subject);
    let needed = handle_length(signed_length);
    let too_small = WriteError::BufferTooSmall { needed };
    let out = out.get_mut(..needed).ok_or(too_small)?;

    // The text to sign goes to the end, so that its base64 form can grow towards it from the start.
    let signed_start = needed.saturating_sub(signed_length);
    let mut signed = Output::new(out.get_mut(signed_start..).unwrap_or_default());
    sr::write(subject, nonce, &mut signed);
    if !signed.is_full() {
        // Only if the length was computed wrongly; then nothing may be signed.
        return Err(WriteError::BufferTooSmall { needed });
    }
    let signature = mac
        .sign(out.get(signed_start..).unwrap_or_default())
        .map_err(WriteError::Mac)?;

    let mut written = put(out, 0, b"sr=");
    let mut read = signed_start;
    while read < needed {
        // Copied out first: the encoded block may end where the unread text begins, never after it.
        let mut block = [0; 48];
        let taken = needed.saturating_sub(read).min(block.len());
        let block = block.get_mut(..taken).unwrap_or_default();
        block.copy_from_slice(
            out.get(read..)
                .and_then(|rest| rest.get(..taken))
                .unwrap_or_default(),
        );
        let mut text = [0; 64];
        let text = base64::encode(block, &mut text).unwrap_or_default();
        written = put(out, written, text.as_bytes());
        read = read.saturating_add(taken);
    }
    written = put(out, written, b"&sig=");
    let mut text = [0; MAC_SYMBOLS];
    let text = base64::encode(&signature, &mut text).unwrap_or_default();
    written = put(out, written, text.as_bytes());

    match core::str::from_utf8(out) {
        Ok(handle) if written == needed => Ok(handle),
        _ => Err(WriteError::BufferTooSmall { needed }),
    }
}

/// Copies `bytes` to `out` at `at` and returns where they end.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at.saturating_add(bytes.len());
    if let Some(place) = out.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
    end
}

/// The length of the text that is signed.
fn signed_length(subject: Subject<'_>) -> usize {
    let mut counter = Output::new(&mut []);
    sr::write(subject, &[0; NONCE_SIZE], &mut counter);
    counter.len()
}

const fn handle_length(signed_length: usize) -> usize {
    base64::encoded_len(signed_length).saturating_add("sr=".len() + "&sig=".len() + MAC_SYMBOLS)
}

/// Characters in the Base64 form of a MAC.
const MAC_SYMBOLS: usize = base64::encoded_len(MAC_SIZE);

/// Why no handle could be written. `E` is the error of the [`Mac`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WriteError<E> {
    /// The output buffer is smaller than the handle.
    BufferTooSmall {
        /// Bytes the handle takes.
        needed: usize,
    },
    /// The text could not be signed.
    Mac(E),
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferTooSmall { needed } => {
                write!(
                    f,
                    "the handle takes {needed} bytes, more than there is room for; use a shorter id or less data"
                )
            }
            Self::Mac(err) => write!(f, "could not sign handle: {err}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for WriteError<E> {}
