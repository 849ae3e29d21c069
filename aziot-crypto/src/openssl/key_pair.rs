//! Key pairs whose private half is in memory.

use core::fmt;

use ::openssl::bn::BigNumContext;
use ::openssl::ec::{Asn1Flag, EcGroup, EcKey, PointConversionForm};
use ::openssl::error::ErrorStack;
use ::openssl::nid::Nid;
use ::openssl::pkey::{Id, PKey, Private};
use ::openssl::pkey_ctx::PkeyCtx;
use ::openssl::rsa::{Padding, Rsa};
use zeroize::Zeroizing;

use super::error::Error;
use super::pem;
use super::spare::Spare;
use crate::key_pair::{
    Algorithm, Curve, Parameter, ParameterValue, RsaPadding, signature_bound, truncated_digest,
};

/// Room for an ECDSA signature on any curve that OpenSSL works with: their fields have at most 661 bits.
const MAX_SIGNATURE_LEN: usize = 192;

/// What PKCS #1 padding adds at least: two bytes in front, eight bytes of padding and one behind (RFC 8017, 9.2).
const PKCS1_OVERHEAD: usize = 11;

/// A key pair with its private half in memory, which OpenSSL wipes when it is dropped.
pub struct KeyPair {
    key: PKey<Private>,
    kind: Kind,
}

enum Kind {
    Ec(Ec),
    Rsa(RsaPair),
    /// Loads, and can do nothing that the service offers.
    Other,
}

struct Ec {
    order_bits: usize,
    curve: Option<Curve>,
    /// Compressed.
    point: Box<[u8]>,
    signer: Spare<PkeyCtx<Private>>,
}

struct RsaPair {
    /// Used directly, as keys that are marked for PSS would refuse any other padding. Blinds by itself.
    rsa: Rsa<Private>,
    modulus: Box<[u8]>,
    exponent: Box<[u8]>,
}

impl KeyPair {
    /// Makes a new key pair. Takes a fraction of a millisecond on a curve, up to several seconds for RSA.
    ///
    /// # Errors
    ///
    /// [`Error::OpenSsl`], for example without a source of randomness.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        drop(ErrorStack::get());
        let key = match (algorithm.curve(), algorithm.modulus_bits()) {
            (Some(curve), _) => generate_ec(curve),
            (None, Some(bits)) => Rsa::generate(bits).and_then(PKey::from_rsa),
            // No such algorithm.
            (None, None) => return Err(Error::UnknownAlgorithm),
        };
        Self::new(key.map_err(Error::of("generate a key pair"))?)
    }

    /// Reads the first private key of a PEM text: PKCS #8 (RFC 5958), EC (RFC 5915) or RSA (RFC 8017, A.1.2). Other
    /// text and other blocks, such as certificates or `EC PARAMETERS`, are skipped. Never asks for a passphrase.
    ///
    /// # Errors
    ///
    /// [`Error::Pem`] if there is none that can be read; none of its cases is an invalid parameter.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let key = pem::private_key(pem).map_err(Error::Pem)?;
        Self::new(key)
    }

    fn new(key: PKey<Private>) -> Result<Self, Error> {
        let kind = Kind::of(&key).map_err(Error::of("examine the private key"))?;
        Ok(Self { key, kind })
    }

    /// The private key as PKCS #8 in PEM, not encrypted. On a curve it holds the public key too, and names the curve
    /// in the algorithm identifier only.
    ///
    /// # Errors
    ///
    /// [`Error::OpenSsl`].
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.key
            .private_key_to_pem_pkcs8()
            .map(Zeroizing::new)
            .map_err(Error::of("write the private key as PEM"))
    }

    /// Whether a signature takes so little time that an event loop can make it: a few dozen microseconds on P-256.
    /// RSA-2048 and P-384 take about half a millisecond, RSA-4096 several.
    #[must_use]
    pub fn signs_at_once(&self) -> bool {
        matches!(&self.kind, Kind::Ec(ec) if ec.curve == Some(Curve::P256))
    }

    /// A public parameter.
    ///
    /// # Errors
    ///
    /// All are invalid parameters: [`Error::UnknownAlgorithm`] for the algorithm of a key that is neither on a curve
    /// nor RSA, [`Error::UnknownCurve`] for the identifier of a curve other than P-256 and P-384, otherwise
    /// [`Error::NoParameter`].
    pub fn parameter(&self, parameter: Parameter) -> Result<ParameterValue<'_>, Error> {
        match (&self.kind, parameter) {
            (Kind::Ec(_), Parameter::Algorithm) => Ok(ParameterValue::Ec),
            (Kind::Ec(ec), Parameter::EcCurveOid) => ec
                .curve
                .map(|curve| ParameterValue::Bytes(curve.oid()))
                .ok_or(Error::UnknownCurve),
            (Kind::Ec(ec), Parameter::EcPoint) => Ok(ParameterValue::Bytes(&ec.point)),
            (Kind::Rsa(_), Parameter::Algorithm) => Ok(ParameterValue::Rsa),
            (Kind::Rsa(rsa), Parameter::RsaExponent) => Ok(ParameterValue::Bytes(&rsa.exponent)),
            (Kind::Rsa(rsa), Parameter::RsaModulus) => Ok(ParameterValue::Bytes(&rsa.modulus)),
            (Kind::Other, Parameter::Algorithm) => Err(Error::UnknownAlgorithm),
            (_, parameter) => Err(Error::NoParameter(parameter)),
        }
    }

    /// Longest ECDSA signature in bytes; `None` unless the key is on a curve.
    #[must_use]
    pub fn signature_bound(&self) -> Option<usize> {
        match &self.kind {
            Kind::Ec(ec) => Some(signature_bound(ec.order_bits)),
            Kind::Rsa(_) | Kind::Other => None,
        }
    }

    /// Signs a digest with ECDSA (FIPS 186-5, 6.4.1) and a random nonce, and writes the signature in DER to the
    /// beginning of `out`. Any digest will do, also an empty one; of one that is longer than the order the leftmost
    /// bits are taken. Returns the signature's length; a buffer of exactly that length is enough.
    ///
    /// # Errors
    ///
    /// [`Error::NotEc`], [`Error::OutputTooSmall`], [`Error::OpenSsl`].
    pub fn sign_ecdsa(&self, digest: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let Kind::Ec(ec) = &self.kind else {
            return Err(Error::NotEc);
        };
        let mut signer = match ec.signer.take() {
            Some(signer) => signer,
            None => signer_for(&self.key).map_err(Error::of("prepare for signing"))?,
        };
        // OpenSSL wants room for the longest signature, whatever the length of this one.
        let mut signature = [0; MAX_SIGNATURE_LEN];
        let len = signer
            .sign(
                truncated_digest(digest, ec.order_bits),
                Some(&mut signature),
            )
            .map_err(Error::of("sign with ECDSA"))?;
        ec.signer.leave(signer);

        match (out.get_mut(..len), signature.get(..len)) {
            (Some(out), Some(signature)) => {
                out.copy_from_slice(signature);
                Ok(len)
            }
            _ => Err(Error::OutputTooSmall {
                enough: signature_bound(ec.order_bits),
            }),
        }
    }

    /// Bytes of the modulus, and of every result of [`Self::rsa_private`]; `None` unless the key is RSA.
    #[must_use]
    pub fn modulus_len(&self) -> Option<usize> {
        match &self.kind {
            Kind::Rsa(rsa) => Some(rsa.modulus.len()),
            Kind::Ec(_) | Kind::Other => None,
        }
    }

    /// RSA's private operation (RSASP1 of RFC 8017, 5.2.1), blinded, on the padded input. Writes as many bytes as the
    /// modulus has to the beginning of `out` and returns their number.
    ///
    /// # Errors
    ///
    /// [`Error::NotRsa`], [`Error::OutputTooSmall`]; for inputs that the padding does not take
    /// [`Error::InputTooLong`], [`Error::InputLen`] and [`Error::InputNotBelowModulus`]; [`Error::OpenSsl`].
    pub fn rsa_private(
        &self,
        padding: RsaPadding,
        input: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let Kind::Rsa(RsaPair { rsa, modulus, .. }) = &self.kind else {
            return Err(Error::NotRsa);
        };
        let modulus_len = modulus.len();
        let len = input.len();
        let padding = match padding {
            RsaPadding::Pkcs1 => {
                let max = modulus_len.saturating_sub(PKCS1_OVERHEAD);
                if len > max {
                    return Err(Error::InputTooLong { len, max });
                }
                Padding::PKCS1
            }
            RsaPadding::None => {
                if len != modulus_len {
                    return Err(Error::InputLen { len, modulus_len });
                }
                // Of the same length and big endian, so they compare like the numbers.
                if input >= &**modulus {
                    return Err(Error::InputNotBelowModulus);
                }
                Padding::NONE
            }
        };
        let out = out.get_mut(..modulus_len).ok_or(Error::OutputTooSmall {
            enough: modulus_len,
        })?;
        rsa.private_encrypt(input, out, padding)
            .map_err(Error::of("sign with RSA"))
    }
}

impl fmt::Debug for KeyPair {
    /// Never shows anything of the private half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Ec(_) => "KeyPair(EC)",
            Kind::Rsa(_) => "KeyPair(RSA)",
            Kind::Other => "KeyPair(other)",
        })
    }
}

impl Kind {
    fn of(key: &PKey<Private>) -> Result<Self, ErrorStack> {
        match key.id() {
            Id::EC => {
                let ec = key.ec_key()?;
                let group = ec.group();
                let mut context = BigNumContext::new()?;
                let point = ec.public_key().to_bytes(
                    group,
                    PointConversionForm::COMPRESSED,
                    &mut context,
                )?;
                Ok(Self::Ec(Ec {
                    order_bits: usize::try_from(group.order_bits()).unwrap_or(0),
                    curve: group.curve_name().and_then(curve),
                    point: point.into(),
                    signer: Spare::new(),
                }))
            }
            Id::RSA | Id::RSA_PSS => {
                let rsa = key.rsa()?;
                let modulus = rsa.n().to_vec().into();
                let exponent = rsa.e().to_vec().into();
                Ok(Self::Rsa(RsaPair {
                    rsa,
                    modulus,
                    exponent,
                }))
            }
            _ => Ok(Self::Other),
        }
    }
}

fn signer_for(key: &PKey<Private>) -> Result<PkeyCtx<Private>, ErrorStack> {
    let mut signer = PkeyCtx::new(key)?;
    signer.sign_init()?;
    Ok(signer)
}

fn generate_ec(curve: Curve) -> Result<PKey<Private>, ErrorStack> {
    let mut group = EcGroup::from_curve_name(match curve {
        Curve::P256 => Nid::X9_62_PRIME256V1,
        Curve::P384 => Nid::SECP384R1,
    })?;
    group.set_asn1_flag(Asn1Flag::NAMED_CURVE);
    EcKey::generate(&group).and_then(PKey::from_ec_key)
}

fn curve(nid: Nid) -> Option<Curve> {
    match nid {
        Nid::X9_62_PRIME256V1 => Some(Curve::P256),
        Nid::SECP384R1 => Some(Curve::P384),
        _ => None,
    }
}
