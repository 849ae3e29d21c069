//! PSS and OAEP, which libcrypto does well.
#![allow(unsafe_code, reason = "calls to libcrypto")]

use std::ffi::{c_int, c_uchar};
use std::ptr;

use openssl_sys as ffi;
use zeroize::Zeroizing;

/// Longest label that OAEP takes here.
pub const OAEP_MAX_LABEL: usize = 64 * 1024;

unsafe extern "C" {
    /// `openssl/rsa.h`.
    fn RSA_padding_check_PKCS1_OAEP_mgf1(
        to: *mut c_uchar,
        tlen: c_int,
        from: *const c_uchar,
        flen: c_int,
        num: c_int,
        param: *const c_uchar,
        plen: c_int,
        md: *const ffi::EVP_MD,
        mgf1md: *const ffi::EVP_MD,
    ) -> c_int;
    /// `openssl/rsa.h`.
    fn RSA_padding_add_PKCS1_PSS_mgf1(
        rsa: *mut ffi::RSA,
        em: *mut c_uchar,
        digest: *const c_uchar,
        md: *const ffi::EVP_MD,
        mgf1md: *const ffi::EVP_MD,
        salt_len: c_int,
    ) -> c_int;
}

/// The message in a block that RSA has decrypted, padded as in EME-OAEP (RFC 8017, section 7.1.2). `None` if it is not, with
/// the reason on OpenSSL's error queue; the time it takes does not tell what was wrong.
///
/// # Safety
///
/// Both digests point to one that is alive.
#[must_use]
pub unsafe fn oaep(
    block: &[u8],
    label: &[u8],
    digest: *const ffi::EVP_MD,
    mgf1_digest: *const ffi::EVP_MD,
) -> Option<Zeroizing<Vec<u8>>> {
    if label.len() > OAEP_MAX_LABEL {
        return None;
    }
    let len = c_int::try_from(block.len()).ok()?;
    let label_len = c_int::try_from(label.len()).ok()?;
    let mut message = Zeroizing::new(vec![0; block.len()]);
    // SAFETY: all buffers are as long as is said, and the digests are alive (caller).
    let written = unsafe {
        RSA_padding_check_PKCS1_OAEP_mgf1(
            message.as_mut_ptr(),
            len,
            block.as_ptr(),
            len,
            len,
            label.as_ptr(),
            label_len,
            digest,
            mgf1_digest,
        )
    };
    message.truncate(usize::try_from(written).ok()?);
    Some(message)
}

/// The block that a PSS signature of a digest is made of (EMSA-PSS-ENCODE of RFC 8017, section 9.1.1), with a random salt of
/// `salt_len` bytes; −1 stands for the length of the digest, −3 for as long as fits. `None` if the modulus is too short for
/// it, with the reason on OpenSSL's error queue.
///
/// `n` and `e` are the public key, big-endian; the block is as long as `n`.
///
/// # Safety
///
/// Both algorithms point to one that is alive, and `digest` is as long as `algorithm` makes them.
#[must_use]
pub unsafe fn pss(
    n: &[u8],
    e: &[u8],
    digest: &[u8],
    algorithm: *const ffi::EVP_MD,
    mgf1_algorithm: *const ffi::EVP_MD,
    salt_len: c_int,
) -> Option<Vec<u8>> {
    let rsa = PublicRsa::new(n, e)?;
    let mut block = vec![0; n.len()];
    // SAFETY: the key is alive and the block as long as its modulus; the rest is the caller's.
    let ok = unsafe {
        RSA_padding_add_PKCS1_PSS_mgf1(
            rsa.0,
            block.as_mut_ptr(),
            digest.as_ptr(),
            algorithm,
            mgf1_algorithm,
            salt_len,
        )
    };
    (ok == 1).then_some(block)
}

struct PublicRsa(*mut ffi::RSA);

impl PublicRsa {
    fn new(n: &[u8], e: &[u8]) -> Option<Self> {
        // SAFETY: gives an object of our own, or NULL.
        let rsa = unsafe { ffi::RSA_new() };
        if rsa.is_null() {
            return None;
        }
        let rsa = Self(rsa);
        let (n, e) = (number(n), number(e));
        // SAFETY: the key takes both numbers over if it says so. NULL is refused for either in a new key.
        unsafe {
            if !n.is_null() && !e.is_null() && ffi::RSA_set0_key(rsa.0, n, e, ptr::null_mut()) == 1
            {
                return Some(rsa);
            }
            ffi::BN_free(n);
            ffi::BN_free(e);
        }
        None
    }
}

impl Drop for PublicRsa {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing refers to it any more.
        unsafe { ffi::RSA_free(self.0) }
    }
}

/// A number of our own, or NULL.
fn number(bytes: &[u8]) -> *mut ffi::BIGNUM {
    let Ok(len) = c_int::try_from(bytes.len()) else {
        return ptr::null_mut();
    };
    // SAFETY: the slice is as long as is said.
    unsafe { ffi::BN_bin2bn(bytes.as_ptr(), len, ptr::null_mut()) }
}

#[cfg(test)]
mod tests {
    use openssl::encrypt::Encrypter;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::rsa::{Padding, Rsa};
    use openssl::sign::{RsaPssSaltlen, Verifier};

    use super::*;

    #[test]
    fn oaep_as_openssl_makes_it() {
        let rsa = Rsa::generate(2048).unwrap();
        let key = PKey::from_rsa(rsa.clone()).unwrap();
        for (digest, mgf1, label) in [
            (MessageDigest::sha1(), MessageDigest::sha1(), &b""[..]),
            (MessageDigest::sha256(), MessageDigest::sha1(), b"label"),
            (MessageDigest::sha1(), MessageDigest::sha512(), b"l"),
        ] {
            let mut encrypter = Encrypter::new(&key).unwrap();
            encrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
            encrypter.set_rsa_oaep_md(digest).unwrap();
            encrypter.set_rsa_mgf1_md(mgf1).unwrap();
            if !label.is_empty() {
                encrypter.set_rsa_oaep_label(label).unwrap();
            }
            let mut ciphertext = vec![0; 256];
            encrypter.encrypt(b"secret", &mut ciphertext).unwrap();
            let mut block = vec![0; 256];
            rsa.private_decrypt(&ciphertext, &mut block, Padding::NONE)
                .unwrap();
            let open = |block: &[u8], label: &[u8]| {
                // SAFETY: the digests are OpenSSL's own, which live for ever.
                unsafe { oaep(block, label, digest.as_ptr(), mgf1.as_ptr()) }
            };
            assert_eq!(&**open(&block, label).unwrap(), b"secret");
            assert!(open(&block, b"other").is_none());
            block[100] ^= 1;
            assert!(open(&block, label).is_none());
            assert!(open(&[], label).is_none());
        }
        drop(openssl::error::ErrorStack::get());
    }

    #[test]
    fn pss_as_openssl_takes_it() {
        let rsa = Rsa::generate(2048).unwrap();
        let key = PKey::from_rsa(rsa.clone()).unwrap();
        let (n, e) = (rsa.n().to_vec(), rsa.e().to_vec());
        for (md, mgf1, salt_len) in [
            (MessageDigest::sha256(), MessageDigest::sha256(), -1),
            (MessageDigest::sha512(), MessageDigest::sha1(), -3),
            (MessageDigest::sha384(), MessageDigest::sha256(), 0),
            (MessageDigest::sha256(), MessageDigest::sha384(), 20),
        ] {
            let digest = openssl::hash::hash(md, b"message").unwrap();
            let encode = |salt_len| {
                // SAFETY: the digests are OpenSSL's own, which live for ever.
                unsafe { pss(&n, &e, &digest, md.as_ptr(), mgf1.as_ptr(), salt_len) }
            };
            let block = encode(salt_len).unwrap();
            let mut signature = vec![0; 256];
            rsa.private_encrypt(&block, &mut signature, Padding::NONE)
                .unwrap();
            let mut verifier = Verifier::new(md, &key).unwrap();
            verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            verifier.set_rsa_mgf1_md(mgf1).unwrap();
            verifier
                .set_rsa_pss_saltlen(match salt_len {
                    -1 => RsaPssSaltlen::DIGEST_LENGTH,
                    -3 => RsaPssSaltlen::MAXIMUM_LENGTH,
                    len => RsaPssSaltlen::custom(len),
                })
                .unwrap();
            assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
            assert!(encode(300).is_none());
        }
        drop(openssl::error::ErrorStack::get());
    }
}
