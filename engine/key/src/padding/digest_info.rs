//! `DigestInfo`, what PKCS #1 v1.5 signatures sign.

use std::ffi::c_int;

use openssl_sys as ffi;

/// The object identifiers of the SHA family but SHA-1 begin with 2.16.840.1.101.3.4.2 (NIST hash algorithms).
const NIST_HASHES: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// 1.3.14.3.2.26.
const SHA1: [u8; 5] = [0x2b, 0x0e, 0x03, 0x02, 0x1a];

/// The `DigestInfo` of a digest in DER (RFC 8017, section 9.2, notes 1), with NULL parameters. `nid` is OpenSSL's number of
/// the digest algorithm. `None` for one that RSA signatures are not made with, or whose digests have another length.
///
/// The combination of MD5 and SHA-1 of TLS 1.0 and 1.1 (`NID_md5_sha1`) is signed as it is (RFC 4346, section 7.4.3).
#[must_use]
pub fn digest_info(nid: c_int, digest: &[u8]) -> Option<Vec<u8>> {
    // The last arc of the identifier, and the length.
    let (arc, expected) = match nid {
        ffi::NID_md5_sha1 => return (digest.len() == 36).then(|| digest.to_vec()),
        ffi::NID_sha1 => (None, 20),
        ffi::NID_sha256 => (Some(1), 32),
        ffi::NID_sha384 => (Some(2), 48),
        ffi::NID_sha512 => (Some(3), 64),
        ffi::NID_sha224 => (Some(4), 28),
        NID_SHA512_224 => (Some(5), 28),
        NID_SHA512_256 => (Some(6), 32),
        NID_SHA3_224 => (Some(7), 28),
        NID_SHA3_256 => (Some(8), 32),
        NID_SHA3_384 => (Some(9), 48),
        NID_SHA3_512 => (Some(10), 64),
        _ => return None,
    };
    if digest.len() != expected {
        return None;
    }
    let mut oid = Vec::with_capacity(9);
    match arc {
        Some(arc) => {
            oid.extend_from_slice(&NIST_HASHES);
            oid.push(arc);
        }
        None => oid.extend_from_slice(&SHA1),
    }
    let mut algorithm = element(0x06, &oid)?;
    algorithm.extend_from_slice(&[0x05, 0x00]);
    let mut content = element(0x30, &algorithm)?;
    content.extend_from_slice(&element(0x04, digest)?);
    element(0x30, &content)
}

/// One element in DER; these are all short.
fn element(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    let len = u8::try_from(content.len()).ok().filter(|len| *len < 0x80)?;
    let mut out = vec![tag, len];
    out.extend_from_slice(content);
    Some(out)
}

/// From `openssl/obj_mac.h`; the same in all versions.
const NID_SHA512_224: c_int = 1094;
const NID_SHA512_256: c_int = 1095;
const NID_SHA3_224: c_int = 1096;
const NID_SHA3_256: c_int = 1097;
const NID_SHA3_384: c_int = 1098;
const NID_SHA3_512: c_int = 1099;

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::rsa::{Padding, Rsa};
    use openssl::sign::Signer;

    use super::*;

    /// What a signature that OpenSSL has made contains.
    #[test]
    fn as_openssl_makes_them() {
        let rsa = Rsa::generate(2048).unwrap();
        let key = openssl::pkey::PKey::from_rsa(rsa.clone()).unwrap();
        // OpenSSL 1.1 does not sign with these.
        let truncated = ["sha512-224", "sha512-256"]
            .into_iter()
            .filter(|_| openssl::version::number() >= 0x3000_0000)
            .map(|name| MessageDigest::from_name(name).unwrap());
        for digest in [
            MessageDigest::sha1(),
            MessageDigest::sha224(),
            MessageDigest::sha256(),
            MessageDigest::sha384(),
            MessageDigest::sha512(),
            MessageDigest::sha3_224(),
            MessageDigest::sha3_256(),
            MessageDigest::sha3_384(),
            MessageDigest::sha3_512(),
            MessageDigest::from_name("md5-sha1").unwrap(),
        ]
        .into_iter()
        .chain(truncated)
        {
            let mut signer = Signer::new(digest, &key).unwrap();
            let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
            let mut signed = vec![0; 256];
            let len = rsa
                .public_decrypt(&signature, &mut signed, Padding::PKCS1)
                .unwrap();
            let hash = openssl::hash::hash(digest, b"message").unwrap();
            assert_eq!(
                digest_info(digest.type_().as_raw(), &hash).unwrap(),
                &signed[..len],
                "{:?}",
                digest.type_()
            );
        }
    }

    #[test]
    fn what_is_not_signed() {
        assert_eq!(digest_info(ffi::NID_sha256, &[0; 31]), None);
        assert_eq!(digest_info(ffi::NID_md5_sha1, &[0; 32]), None);
        assert_eq!(digest_info(ffi::NID_md5, &[0; 16]), None);
        assert_eq!(digest_info(0, &[]), None);
    }
}
