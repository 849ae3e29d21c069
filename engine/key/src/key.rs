//! Key pairs.

use aziot_crypto::key_pair::{Curve, signature_bound, truncated_digest};
use aziot_keys_client::{Client, KeyHandle, PublicKey, RsaPadding};

use crate::error::{Error, Reason, Task};
use crate::padding::PKCS1_OVERHEAD;
use crate::point;
use crate::signature::is_ecdsa_signature;

/// Most bits that OpenSSL takes for a modulus (`OPENSSL_RSA_MAX_MODULUS_BITS`), in bytes.
const MAX_MODULUS_LEN: usize = 16384 / 8;

/// A key pair of the Keys Service: its public half, and the means to use the private one.
///
/// One HTTP exchange per private operation; see [`Client`] for how long it may take.
#[derive(Debug)]
pub struct RemoteKey {
    client: Client,
    handle: KeyHandle,
    /// What messages call it.
    id: Option<Box<str>>,
    public: Public,
}

/// The public half of a key pair, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Public {
    /// On an elliptic curve, for ECDSA.
    Ec {
        /// The curve.
        curve: Curve,
        /// A point of it, uncompressed (SEC 1, section 2.3.3).
        point: Vec<u8>,
    },
    /// RSA. Both numbers are big-endian and without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
}

impl RemoteKey {
    /// Loads the key pair with this handle. Three exchanges.
    ///
    /// # Errors
    ///
    /// [`Reason::Service`], [`Reason::Curve`], [`Reason::Point`], [`Reason::Numbers`].
    pub fn load(client: &Client, handle: KeyHandle) -> Result<Self, Error> {
        Self::load_as(client, handle, None)
    }

    /// Loads the key pair with this id, which takes the right to do so (`[[principal]]` in the configuration of the
    /// service). Four exchanges.
    ///
    /// # Errors
    ///
    /// As [`RemoteKey::load`].
    pub fn load_by_id(client: &Client, id: &str) -> Result<Self, Error> {
        let handle = client
            .load_key_pair(id)
            .map_err(|error| Error::new(Task::Load, Some(id), Reason::Service(error)))?;
        Self::load_as(client, handle, Some(id))
    }

    fn load_as(client: &Client, handle: KeyHandle, id: Option<&str>) -> Result<Self, Error> {
        let failed = |reason| Error::new(Task::Load, id, reason);
        let public = client
            .public_key(&handle)
            .map_err(|error| failed(Reason::Service(error)))?;
        let public = Public::new(public).map_err(failed)?;
        Ok(Self {
            client: client.clone(),
            handle,
            id: id.map(Box::from),
            public,
        })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &Public {
        &self.public
    }

    /// The id it was loaded by, if it was not loaded by its handle.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Signs a digest with ECDSA. Of one that is longer than the order of the curve, the leftmost bytes are sent, as many as
    /// the order has. The signature is DER (RFC 3279, section 2.2.3), of at most [`Public::max_size`] bytes.
    ///
    /// # Errors
    ///
    /// [`Reason::NotEc`], [`Reason::Service`], [`Reason::Result`].
    pub fn sign_ecdsa(&self, digest: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |reason| self.failed(Task::Sign, reason);
        let Public::Ec { curve, .. } = &self.public else {
            return Err(failed(Reason::NotEc));
        };
        let digest = truncated_digest(digest, curve.order_len().saturating_mul(8));
        let signature = self
            .client
            .sign_ecdsa(&self.handle, digest)
            .map_err(|error| failed(Reason::Service(error)))?;
        // So it is not longer than the buffers that callers have for it either.
        if is_ecdsa_signature(&signature, curve.order_len()) {
            Ok(signature)
        } else {
            Err(failed(Reason::Result))
        }
    }

    /// Signs with RSA and PKCS #1 v1.5 padding of type 1 (RFC 8017, section 9.2), usually a `DigestInfo` (see
    /// [`padding::digest_info`](crate::padding::digest_info)). The result is as long as the modulus.
    ///
    /// # Errors
    ///
    /// [`Reason::NotRsa`], [`Reason::InputTooLong`], [`Reason::Service`], [`Reason::Result`].
    pub fn rsa_pkcs1(&self, digest_info: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |reason| self.failed(Task::Sign, reason);
        let Public::Rsa { n, .. } = &self.public else {
            return Err(failed(Reason::NotRsa));
        };
        let len = digest_info.len();
        let max = n.len().saturating_sub(PKCS1_OVERHEAD);
        if len > max {
            return Err(failed(Reason::InputTooLong { len, max }));
        }
        self.rsa(Task::Sign, RsaPadding::Pkcs1, digest_info, n)
    }

    /// The private operation of RSA by itself (RSADP and RSASP1 of RFC 8017, section 5) on a number as long as the modulus.
    /// So is the result.
    ///
    /// # Errors
    ///
    /// [`Reason::NotRsa`], [`Reason::InputLen`], [`Reason::InputNotBelowModulus`], [`Reason::Service`],
    /// [`Reason::Result`].
    pub fn rsa_raw(&self, block: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |reason| self.failed(Task::Private, reason);
        let Public::Rsa { n, .. } = &self.public else {
            return Err(failed(Reason::NotRsa));
        };
        let (len, modulus_len) = (block.len(), n.len());
        if len != modulus_len {
            return Err(failed(Reason::InputLen { len, modulus_len }));
        }
        // Of the same length and big-endian, so they compare like the numbers. Neither is secret.
        if block >= n.as_slice() {
            return Err(failed(Reason::InputNotBelowModulus));
        }
        self.rsa(Task::Private, RsaPadding::None, block, n)
    }

    fn rsa(
        &self,
        task: Task,
        padding: RsaPadding,
        input: &[u8],
        n: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let mut result = self
            .client
            .rsa_private(&self.handle, padding, input)
            .map_err(|error| self.failed(task, Reason::Service(error)))?;
        // A library that works with numbers may leave leading zeros out.
        let missing = n
            .len()
            .checked_sub(result.len())
            .ok_or_else(|| self.failed(task, Reason::Result))?;
        if missing > 0 {
            let mut padded = vec![0; missing];
            padded.extend_from_slice(&result);
            zeroize::Zeroize::zeroize(&mut result);
            result = padded;
        }
        Ok(result)
    }

    fn failed(&self, task: Task, reason: Reason) -> Error {
        Error::new(task, self.id(), reason)
    }
}

impl Public {
    fn new(public: PublicKey) -> Result<Self, Reason> {
        match public {
            PublicKey::Ec { curve_oid, point } => {
                let curve = Curve::from_oid(&curve_oid).ok_or(Reason::Curve)?;
                let point = point::uncompressed(curve, &point).ok_or(Reason::Point)?;
                Ok(Self::Ec { curve, point })
            }
            PublicKey::Rsa { modulus, exponent } => {
                let n = without_leading_zeros(modulus);
                let e = without_leading_zeros(exponent);
                let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
                // Room for the padding and one byte is the least that makes a modulus useful.
                let sizes = n.len() > PKCS1_OVERHEAD && n.len() <= MAX_MODULUS_LEN;
                if sizes && odd(&n) && odd(&e) && e.len() <= n.len() {
                    Ok(Self::Rsa { n, e })
                } else {
                    Err(Reason::Numbers)
                }
            }
        }
    }

    /// Longest result of a private operation in bytes: the bound of an ECDSA signature in DER, or the length of the modulus.
    #[must_use]
    pub fn max_size(&self) -> usize {
        match self {
            Self::Ec { curve, .. } => signature_bound(curve.order_len().saturating_mul(8)),
            Self::Rsa { n, .. } => n.len(),
        }
    }
}

fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}
