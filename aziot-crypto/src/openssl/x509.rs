//! Signatures of certificates and requests, checked by OpenSSL.

use core::fmt;

use ::openssl::asn1::Asn1Object;
use ::openssl::error::ErrorStack;
use ::openssl::hash::MessageDigest;
use ::openssl::nid::Nid;
use ::openssl::pkey::{Id, PKey, Public};
use ::openssl::rsa::Padding;
use ::openssl::sign::{RsaPssSaltlen, Verifier as OpenSsl};
use aziot_core::der::{self, Reader, Tag};

use super::error::Reasons;
use crate::x509::{ObjectId, Verifier};

/// Checks signatures with RSA (PKCS #1 v1.5 and PSS), on all of OpenSSL's curves, and with Ed25519 and Ed448.
///
/// Takes SHA-1 as long as OpenSSL does: such a signature of a request still shows who has the key.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenSslVerifier;

impl Verifier for OpenSslVerifier {
    type Error = VerifyError;

    fn verify(
        &self,
        public_key: &[u8],
        algorithm: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, VerifyError> {
        // What others left in the queue is not our reason.
        drop(ErrorStack::get());
        let result = verify(public_key, algorithm, message, signature);
        drop(ErrorStack::get());
        result
    }
}

fn verify(
    public_key: &[u8],
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, VerifyError> {
    let key = PKey::public_key_from_der(public_key)
        .map_err(|stack| VerifyError::PublicKey(Reasons::from(&stack)))?;
    let algorithm = Algorithm::parse(algorithm)?;
    let fits = match algorithm.kind {
        Kind::Digest { key: wanted, .. } => same_kind(key.id(), wanted),
        Kind::Pss(_) => matches!(key.id(), Id::RSA | Id::RSA_PSS),
        Kind::Pure(wanted) => key.id() == wanted,
    };
    if !fits {
        return Err(VerifyError::OtherKey(algorithm.id));
    }
    let mut verifier = algorithm
        .verifier(&key)
        .map_err(|stack| VerifyError::Algorithm(algorithm.id, Reasons::from(&stack)))?;
    // A signature that is not even well formed is an error to OpenSSL, and as wrong as any other.
    Ok(verifier
        .verify_oneshot(signature, message)
        .unwrap_or_default())
}

fn same_kind(key: Id, wanted: Nid) -> bool {
    wanted == Nid::from_raw(key.as_raw())
}

struct Algorithm {
    id: ObjectId,
    kind: Kind,
}

enum Kind {
    /// A digest and the kind of key that signs it.
    Digest { digest: MessageDigest, key: Nid },
    /// Hashes by itself.
    Pure(Id),
    /// RSASSA-PSS.
    Pss(Pss),
}

struct Pss {
    digest: MessageDigest,
    mask_digest: MessageDigest,
    salt_len: i32,
}

impl Algorithm {
    fn parse(der: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::whole_sequence(der).map_err(VerifyError::Der)?;
        let content = reader.object_identifier().map_err(VerifyError::Der)?;
        let id = ObjectId::new(content);
        let unknown = VerifyError::UnknownAlgorithm(id);
        let nid = Asn1Object::from_str(&id.to_string()).map_or(Nid::UNDEF, |object| object.nid());
        let kind = match nid {
            ED25519 => Kind::Pure(Id::ED25519),
            ED448 => Kind::Pure(Id::ED448),
            Nid::RSASSAPSS => Kind::Pss(Pss::parse(reader).ok().flatten().ok_or(unknown)?),
            nid => {
                let known = nid.signature_algorithms().and_then(|algorithms| {
                    let digest = MessageDigest::from_nid(algorithms.digest)?;
                    Some(Kind::Digest {
                        digest,
                        key: algorithms.pkey,
                    })
                });
                known.ok_or(unknown)?
            }
        };
        Ok(Self { id, kind })
    }

    fn verifier<'k>(&self, key: &'k PKey<Public>) -> Result<OpenSsl<'k>, ErrorStack> {
        match &self.kind {
            Kind::Digest { digest, .. } => OpenSsl::new(*digest, key),
            Kind::Pure(_) => OpenSsl::new_without_digest(key),
            Kind::Pss(pss) => {
                let mut verifier = OpenSsl::new(pss.digest, key)?;
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_mgf1_md(pss.mask_digest)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(pss.salt_len))?;
                Ok(verifier)
            }
        }
    }
}

const ED25519: Nid = Nid::from_raw(openssl_sys::NID_ED25519);
const ED448: Nid = Nid::from_raw(openssl_sys::NID_ED448);

/// id-mgf1, 1.2.840.113549.1.1.8.
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];

impl Pss {
    /// Reads the parameters (RFC 4055, 3.1), each of which has a default. `None` if they are not supported.
    fn parse(mut algorithm: Reader<'_>) -> Result<Option<Self>, der::Error> {
        let mut parameters = algorithm.sequence()?;
        algorithm.finish()?;
        let digest = match parameters.optional(Tag::context(0))? {
            Some(element) => digest(&mut element.reader().sequence()?)?,
            None => Some(MessageDigest::sha1()),
        };
        let mask_digest = match parameters.optional(Tag::context(1))? {
            Some(element) => {
                let mut mask = element.reader().sequence()?;
                let is_mgf1 = mask.object_identifier()? == MGF1;
                digest_of_mask(&mut mask)?.filter(|_| is_mgf1)
            }
            None => Some(MessageDigest::sha1()),
        };
        let salt_len = match parameters.optional(Tag::context(2))? {
            Some(element) => small(element.reader().unsigned()?),
            None => Some(20),
        };
        // The only trailer that there is.
        let trailer = match parameters.optional(Tag::context(3))? {
            Some(element) => small(element.reader().unsigned()?),
            None => Some(1),
        };
        parameters.finish()?;
        Ok(digest
            .zip(mask_digest)
            .zip(salt_len)
            .filter(|_| trailer == Some(1))
            .map(|((digest, mask_digest), salt_len)| Self {
                digest,
                mask_digest,
                salt_len,
            }))
    }
}

fn digest_of_mask(mask: &mut Reader<'_>) -> Result<Option<MessageDigest>, der::Error> {
    digest(&mut mask.sequence()?)
}

/// The digest that the content of an `AlgorithmIdentifier` names.
fn digest(algorithm: &mut Reader<'_>) -> Result<Option<MessageDigest>, der::Error> {
    let id = ObjectId::new(algorithm.object_identifier()?);
    let nid = Asn1Object::from_str(&id.to_string()).map_or(Nid::UNDEF, |object| object.nid());
    Ok(MessageDigest::from_nid(nid))
}

/// A length below 65536.
fn small(number: &[u8]) -> Option<i32> {
    match *number {
        [] => Some(0),
        [low] => Some(low.into()),
        [high, low] => Some(i32::from(high) << 8 | i32::from(low)),
        _ => None,
    }
}

/// A signature cannot be checked.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum VerifyError {
    /// OpenSSL refuses the algorithm, or this key for it.
    Algorithm(ObjectId, Reasons),
    /// The algorithm's identifier is none.
    Der(der::Error),
    /// The public key is of another kind than the algorithm takes.
    OtherKey(ObjectId),
    /// The public key cannot be read.
    PublicKey(Reasons),
    /// The algorithm is not known, or not with these parameters.
    UnknownAlgorithm(ObjectId),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm(id, reasons) => {
                write!(f, "the signature algorithm {id} cannot be used: {reasons}")
            }
            Self::Der(error) => write!(f, "the signature algorithm cannot be read: {error}"),
            Self::OtherKey(id) => {
                write!(
                    f,
                    "the public key is not of the kind that signs with the algorithm {id}"
                )
            }
            Self::PublicKey(reasons) => write!(f, "the public key cannot be read: {reasons}"),
            Self::UnknownAlgorithm(id) => {
                write!(f, "the signature algorithm {id} is not supported")
            }
        }
    }
}

impl core::error::Error for VerifyError {}
