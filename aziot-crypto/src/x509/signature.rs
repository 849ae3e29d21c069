//! Who makes and checks signatures, and the algorithms that are made here.

use aziot_core::der::Reader;

use super::object_id::{EC_PUBLIC_KEY, RSA_ENCRYPTION};
use super::spki;
use crate::key_pair::Curve;

/// An algorithm that certificates and requests are signed with here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureAlgorithm {
    /// ECDSA over a SHA-256 digest (RFC 5758, 3.2).
    EcdsaWithSha256,
    /// ECDSA over a SHA-384 digest (RFC 5758, 3.2).
    EcdsaWithSha384,
    /// PKCS #1 v1.5 over a SHA-256 digest (RFC 4055, 5).
    Sha256WithRsa,
}

impl SignatureAlgorithm {
    /// Its `AlgorithmIdentifier` in DER.
    #[must_use]
    pub const fn der(self) -> &'static [u8] {
        match self {
            Self::EcdsaWithSha256 => &[
                0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
            ],
            Self::EcdsaWithSha384 => &[
                0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
            ],
            Self::Sha256WithRsa => &[
                0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05,
                0x00,
            ],
        }
    }

    /// The one that a key signs with, given its `SubjectPublicKeyInfo`: SHA-384 on P-384, otherwise SHA-256. `None` for a
    /// key that is neither on a curve nor RSA.
    #[must_use]
    pub fn for_key(public_key: &[u8]) -> Option<Self> {
        let mut algorithm = Reader::whole_sequence(public_key).ok()?.sequence().ok()?;
        let id = algorithm.object_identifier().ok()?;
        if id == RSA_ENCRYPTION {
            Some(Self::Sha256WithRsa)
        } else if id != EC_PUBLIC_KEY {
            None
        } else if spki::curve(public_key) == Some(Curve::P384) {
            Some(Self::EcdsaWithSha384)
        } else {
            Some(Self::EcdsaWithSha256)
        }
    }
}

/// A private key that signs certificates and requests, wherever it is.
pub trait Signer {
    /// Why it could not sign.
    type Error;

    /// What it signs with.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// Hashes and signs `message`; the signature goes to the front of `signature`, as it is in a certificate (for ECDSA in
    /// DER). Answers its length.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from signing, `signature` being too short included.
    fn sign(&self, message: &[u8], signature: &mut [u8]) -> Result<usize, Self::Error>;
}

/// Checks signatures of certificates and requests.
pub trait Verifier {
    /// Why it cannot tell.
    type Error;

    /// Whether `signature` is the key's for `message`.
    ///
    /// `public_key` is a `SubjectPublicKeyInfo`, `algorithm` an `AlgorithmIdentifier`, both in DER and not examined yet.
    ///
    /// # Errors
    ///
    /// The key cannot be read, or the algorithm is not known or not one for this key. A signature that is broken in
    /// whatever way is just not right.
    fn verify(
        &self,
        public_key: &[u8],
        algorithm: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Self::Error>;
}
