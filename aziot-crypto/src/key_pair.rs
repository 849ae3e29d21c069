//! What key pairs have in common, wherever their private half lives: algorithms, parameters, encodings.

/// An algorithm that key pairs are generated for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// A key pair on NIST P-256 (secp256r1), named in requests as `ec-p256`.
    EcP256,
    /// A key pair on NIST P-384 (secp384r1), `ec-p384`. Release 1.6.0 skips this name.
    EcP384,
    /// RSA with two primes, a modulus of 2048 bits and the exponent 65537, `rsa-2048`.
    Rsa2048,
    /// As [`Algorithm::Rsa2048`] with 4096 bits, `rsa-4096`.
    Rsa4096,
}

impl Algorithm {
    /// What `*`, and no list at all, stand for.
    pub const DEFAULT: [Self; 2] = [Self::EcP256, Self::Rsa2048];

    /// The algorithm of a name; names are compared byte for byte.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ec-p256" => Some(Self::EcP256),
            "ec-p384" => Some(Self::EcP384),
            "rsa-2048" => Some(Self::Rsa2048),
            "rsa-4096" => Some(Self::Rsa4096),
            _ => None,
        }
    }

    /// Its name in requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// The algorithms of a list with colons between them, in order and each once. Unknown names are skipped; no list
    /// is `*`. Empty when nothing in the list is known.
    pub fn preferred(list: Option<&str>) -> impl Iterator<Item = Self> {
        let list = list.unwrap_or("*");
        let mut seen = [false; 4];
        list.split(':')
            .flat_map(|name| {
                let (all, one) = match name {
                    "*" => (Some(Self::DEFAULT), None),
                    name => (None, Self::named(name)),
                };
                all.into_iter().flatten().chain(one)
            })
            .filter(move |algorithm| {
                seen.get_mut(*algorithm as usize)
                    .is_some_and(|seen| !core::mem::replace(seen, true))
            })
    }

    /// The curve, if it is an algorithm over one.
    #[must_use]
    pub const fn curve(self) -> Option<Curve> {
        match self {
            Self::EcP256 => Some(Curve::P256),
            Self::EcP384 => Some(Curve::P384),
            Self::Rsa2048 | Self::Rsa4096 => None,
        }
    }

    /// Bits of the modulus, if it is RSA.
    #[must_use]
    pub const fn modulus_bits(self) -> Option<u32> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa4096 => Some(4096),
            Self::EcP256 | Self::EcP384 => None,
        }
    }
}

/// A curve whose object identifier can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Curve {
    /// NIST P-256 (secp256r1, prime256v1).
    P256,
    /// NIST P-384 (secp384r1).
    P384,
}

impl Curve {
    /// Its object identifier in DER, with tag and length (RFC 5480).
    #[must_use]
    pub const fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
        }
    }

    /// The curve with this object identifier.
    #[must_use]
    pub fn from_oid(der: &[u8]) -> Option<Self> {
        [Self::P256, Self::P384]
            .into_iter()
            .find(|curve| curve.oid() == der)
    }

    /// Bytes of its order, which is also the length of a coordinate.
    #[must_use]
    pub const fn order_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A public parameter of a key pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parameter {
    /// Whether it is EC or RSA.
    Algorithm,
    /// The curve's object identifier in DER.
    EcCurveOid,
    /// The public point, compressed (SEC 1).
    EcPoint,
    /// The public exponent, big endian, no leading zero.
    RsaExponent,
    /// The modulus, big endian, no leading zero.
    RsaModulus,
}

impl Parameter {
    /// What to call it in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::EcCurveOid => "curve identifier",
            Self::EcPoint => "public point",
            Self::RsaExponent => "RSA exponent",
            Self::RsaModulus => "RSA modulus",
        }
    }
}

/// What a [`Parameter`] of a key pair is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParameterValue<'a> {
    /// [`Parameter::Algorithm`] of a key pair on a curve.
    Ec,
    /// [`Parameter::Algorithm`] of an RSA key pair, whatever padding it is meant for.
    Rsa,
    /// Any other parameter.
    Bytes(&'a [u8]),
}

/// How the input of RSA's private operation becomes a number as long as the modulus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RsaPadding {
    /// It is one already.
    None,
    /// EMSA-PKCS1-v1_5 with block type 1 around the input (RFC 8017, 9.2), at most 11 bytes less than the modulus.
    Pkcs1,
}

/// Longest ECDSA signature in DER for an order of this many bits: both integers as long as the order with a sign byte.
#[must_use]
pub const fn signature_bound(order_bits: usize) -> usize {
    const fn der(content: usize) -> usize {
        let header = if content < 0x80 {
            2
        } else if content < 0x100 {
            3
        } else {
            4
        };
        header + content
    }
    // A leading zero byte where the highest bit of the order's first byte can be set.
    let integer = order_bits / 8 + 1;
    der(2 * der(integer))
}

/// The leftmost bytes of a digest that ECDSA uses with an order of this many bits (FIPS 186-5, 6.4.1). Where the order
/// ends within a byte, the remaining shift is the signer's.
#[must_use]
pub fn truncated_digest(digest: &[u8], order_bits: usize) -> &[u8] {
    digest.get(..order_bits.div_ceil(8)).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(list: Option<&str>) -> Vec<Algorithm> {
        Algorithm::preferred(list).collect()
    }

    #[test]
    fn kf_09_preferred_algorithms() {
        use Algorithm::{EcP256, EcP384, Rsa2048, Rsa4096};
        for (list, expected) in [
            (None, vec![EcP256, Rsa2048]),
            (Some("*"), vec![EcP256, Rsa2048]),
            (Some("rsa-2048:ec-p256"), vec![Rsa2048, EcP256]),
            (Some("foo:rsa-2048"), vec![Rsa2048]),
            (Some("rsa-4096:*"), vec![Rsa4096, EcP256, Rsa2048]),
            (Some("*:ec-p256:ec-p384"), vec![EcP256, Rsa2048, EcP384]),
            (Some("ec-p256:ec-p256"), vec![EcP256]),
            (Some("foo"), vec![]),
            (Some(""), vec![]),
            (Some("EC-P256"), vec![]),
            (Some("ec-p256 "), vec![]),
        ] {
            assert_eq!(preferred(list), expected, "{list:?}");
        }
    }

    #[test]
    fn kc_05_bounds_of_signatures() {
        assert_eq!(signature_bound(256), 72);
        assert_eq!(signature_bound(384), 104);
        assert_eq!(signature_bound(521), 139);
    }

    #[test]
    fn digests_are_cut_from_the_right() {
        assert_eq!(truncated_digest(&[7; 64], 256).len(), 32);
        assert_eq!(truncated_digest(&[7; 66], 521).len(), 66);
        assert_eq!(truncated_digest(&[7; 67], 521).len(), 66);
        assert_eq!(truncated_digest(&[7; 20], 256).len(), 20);
    }

    #[test]
    fn curves_and_their_identifiers() {
        for curve in [Curve::P256, Curve::P384] {
            assert_eq!(Curve::from_oid(curve.oid()), Some(curve));
        }
        assert_eq!(
            Curve::from_oid(&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23]),
            None
        );
    }
}
