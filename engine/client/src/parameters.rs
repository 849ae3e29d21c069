//! What is known about a key pair, and how it can be used.

use aziot_core::json_enum;

json_enum! {
    /// The algorithm of a key pair.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Algorithm {
        /// An elliptic curve key, for ECDSA.
        Ecdsa = "ECDSA",
        /// An RSA key.
        Rsa = "RSA",
    }
}

/// The public half of a key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// On an elliptic curve.
    Ec {
        /// The curve's object identifier in DER, with tag and length.
        curve_oid: Vec<u8>,
        /// The point as in SEC 1, section 2.3.3: compressed or not.
        point: Vec<u8>,
    },
    /// RSA. Both numbers are big-endian and without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
}

/// What the private operation of RSA does to its input first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaPadding {
    /// Nothing: the input is as long as the modulus.
    None,
    /// PKCS #1 v1.5 padding of type 1 (RFC 8017, section 9.2): the input is at most 11 bytes shorter than the modulus, for
    /// signatures a `DigestInfo`.
    Pkcs1,
}
