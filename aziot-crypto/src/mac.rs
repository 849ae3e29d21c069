//! Message authentication and key derivation, as far as the service needs them: HMAC-SHA256 (RFC 2104, FIPS 180-4).
//!
//! [`Mac`] is what a key that never leaves its store can do. A back end implements `sign`; the `software` feature has
//! one over RustCrypto, a firmware can have one over its secure element.

use core::error::Error;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a tag, and of a derived key, in bytes.
pub const TAG_LEN: usize = 32;

/// A key for HMAC-SHA256 that is ready for use.
pub trait Mac {
    /// Why the back end could not do it; [`core::convert::Infallible`] where it always can.
    type Error: Error;

    /// The tag of a message, given in parts that are taken one after the other.
    ///
    /// # Errors
    ///
    /// Those of the back end.
    fn sign(&self, message: &[&[u8]]) -> Result<Tag, Self::Error>;

    /// Whether `tag` is the whole tag of the message. Takes the same time wherever the tags differ; a tag of another
    /// length is never right.
    ///
    /// # Errors
    ///
    /// Those of the back end.
    fn verify(&self, message: &[&[u8]], tag: &[u8]) -> Result<bool, Self::Error> {
        self.sign(message).map(|expected| expected.is(tag))
    }

    /// A key derived from this one: the tag of the derivation data.
    ///
    /// The keys of module identities are derived in this way and registered in the cloud, so the derivation can never
    /// change.
    ///
    /// # Errors
    ///
    /// Those of the back end.
    fn derive(&self, derivation_data: &[u8]) -> Result<Tag, Self::Error> {
        self.sign(&[derivation_data])
    }
}

/// A tag, or a key that was derived as one. Wiped when dropped.
#[derive(Clone)]
pub struct Tag([u8; TAG_LEN]);

impl Tag {
    /// Wraps the output of a back end.
    #[must_use]
    pub const fn new(bytes: [u8; TAG_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; TAG_LEN] {
        &self.0
    }

    /// Whether `other` is exactly this tag, compared in constant time.
    #[must_use]
    pub fn is(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

impl AsRef<[u8]> for Tag {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Tag {
    /// Never shows the bytes: a tag may be a derived key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(..)")
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Tag {}
