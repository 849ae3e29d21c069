//! Signatures of certificates and requests with key pairs of the Keys Service.

use std::fmt;

use aziot_crypto::key_pair::Curve;
use aziot_crypto::x509::{SignatureAlgorithm, Signer, spki};
use aziot_keys_client::{Client, KeyHandle};
use aziot_keys_remote::{Error, Public, RemoteKey, padding};
use openssl::nid::Nid;
use sha2::{Digest as _, Sha256, Sha384};

/// A key pair of the Keys Service that signs certificates and requests: with SHA-384 on P-384, otherwise with SHA-256.
///
/// One exchange per signature, which blocks, with the deadlines of the client it was loaded with.
#[derive(Debug)]
pub struct RemoteSigner {
    key: RemoteKey,
    public_key: Vec<u8>,
    algorithm: SignatureAlgorithm,
}

impl RemoteSigner {
    /// Loads the key pair with this handle. Three exchanges.
    ///
    /// # Errors
    /// As [`RemoteKey::load`].
    pub fn load(client: &Client, handle: KeyHandle) -> Result<Self, Error> {
        RemoteKey::load(client, handle).map(Self::of)
    }

    /// Loads the key pair with this id. Four exchanges.
    ///
    /// # Errors
    /// As [`RemoteKey::load_by_id`].
    pub fn load_by_id(client: &Client, id: &str) -> Result<Self, Error> {
        RemoteKey::load_by_id(client, id).map(Self::of)
    }

    fn of(key: RemoteKey) -> Self {
        // The buffers are long enough. If they were not, an empty key would be nobody's.
        let (public_key, algorithm) = match key.public() {
            Public::Ec { curve, point } => {
                let mut room = vec![0; spki::bound(point.len())];
                let length = spki::ec(*curve, point, &mut room).map_or(0, <[u8]>::len);
                room.truncate(length);
                let algorithm = match curve {
                    Curve::P384 => SignatureAlgorithm::EcdsaWithSha384,
                    Curve::P256 => SignatureAlgorithm::EcdsaWithSha256,
                };
                (room, algorithm)
            }
            Public::Rsa { n, e } => {
                let mut room = vec![0; spki::bound(n.len()).saturating_add(e.len())];
                let length = spki::rsa(n, e, &mut room).map_or(0, <[u8]>::len);
                room.truncate(length);
                (room, SignatureAlgorithm::Sha256WithRsa)
            }
        };
        Self {
            key,
            public_key,
            algorithm,
        }
    }

    /// The public half, a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Longest signature in bytes.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.key.public().max_size()
    }
}

impl Signer for RemoteSigner {
    type Error = SignError;

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign(&self, message: &[u8], signature: &mut [u8]) -> Result<usize, SignError> {
        let made = match self.algorithm {
            SignatureAlgorithm::EcdsaWithSha256 => self.key.sign_ecdsa(&Sha256::digest(message)),
            SignatureAlgorithm::EcdsaWithSha384 => self.key.sign_ecdsa(&Sha384::digest(message)),
            SignatureAlgorithm::Sha256WithRsa => {
                let digest = Sha256::digest(message);
                let info = padding::digest_info(Nid::SHA256.as_raw(), &digest).unwrap_or_default();
                self.key.rsa_pkcs1(&info)
            }
        }
        .map_err(SignError::Key)?;
        signature
            .get_mut(..made.len())
            .ok_or(SignError::TooLong)?
            .copy_from_slice(&made);
        Ok(made.len())
    }
}

/// Why there is no signature.
#[derive(Debug)]
pub enum SignError {
    /// The key pair could not be used.
    Key(Error),
    /// The signature does not fit.
    TooLong,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::TooLong => f.write_str("the signature is longer than the buffer for it"),
        }
    }
}

impl std::error::Error for SignError {}
