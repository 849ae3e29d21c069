//! Key pairs as libcrypto knows them: with the public numbers only, and for private keys with methods that ask the Keys
//! Service.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use aziot_keys_remote::{Curve, Public, RemoteKey};
use openssl_sys as ffi;

use crate::sys::{self, BIGNUM, EC_KEY, EVP_PKEY, RSA};
use crate::{ec, rsa};

/// A key of libcrypto could not be made; OpenSSL's error queue says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMade;

impl std::fmt::Display for NotMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("libcrypto could not take the key; it may be short of memory")
    }
}

/// An `EVP_PKEY` of our own.
pub struct Pkey(*mut EVP_PKEY);

// SAFETY: keys may be used and freed by any thread.
unsafe impl Send for Pkey {}
// SAFETY: as above.
unsafe impl Sync for Pkey {}

impl Pkey {
    /// An ordinary public key.
    pub fn public(public: &Public) -> Result<Self, NotMade> {
        match public {
            Public::Ec { curve, point } => EcKey::new(*curve, point)?.into_pkey(),
            Public::Rsa { n, e } => Rsa::new(n, e)?.into_pkey(),
        }
    }

    /// A private key that asks the Keys Service.
    ///
    /// The method is in place before the key is wrapped: that is when OpenSSL 3 decides whether a key can be handed to a
    /// provider, which must not happen to this one.
    pub fn private(key: RemoteKey) -> Result<Self, NotMade> {
        let key = Arc::new(key);
        match key.public() {
            Public::Ec { curve, point } => {
                let ec_key = EcKey::new(*curve, point)?;
                // SAFETY: the key is alive, and nobody else has it.
                unsafe { ec::attach(ec_key.0, Arc::clone(&key)) }.ok_or(NotMade)?;
                ec_key.into_pkey()
            }
            Public::Rsa { n, e } => {
                let rsa = Rsa::new(n, e)?;
                // SAFETY: as above.
                unsafe { rsa::attach(rsa.0, Arc::clone(&key)) }.ok_or(NotMade)?;
                rsa.into_pkey()
            }
        }
    }

    /// The pointer, which stays ours.
    pub fn as_ptr(&self) -> *mut EVP_PKEY {
        self.0
    }

    /// The pointer, which is the caller's to free.
    pub fn into_raw(self) -> *mut EVP_PKEY {
        let pkey = self.0;
        #[allow(clippy::mem_forget, reason = "the caller frees it")]
        std::mem::forget(self);
        pkey
    }
}

impl Drop for Pkey {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { ffi::EVP_PKEY_free(self.0) }
    }
}

/// An `EC_KEY` of our own.
struct EcKey(*mut EC_KEY);

impl EcKey {
    fn new(curve: Curve, point: &[u8]) -> Result<Self, NotMade> {
        let nid = match curve {
            Curve::P256 => ffi::NID_X9_62_prime256v1,
            Curve::P384 => ffi::NID_secp384r1,
        };
        // SAFETY: takes a number, gives an object of our own, or NULL.
        let key = unsafe { ffi::EC_KEY_new_by_curve_name(nid) };
        if key.is_null() {
            return Err(NotMade);
        }
        let key = Self(key);
        // SAFETY: the key is alive and ours, and the slice as long as is said.
        let ok = unsafe {
            // So that encodings name the curve instead of spelling its parameters out.
            sys::EC_KEY_set_asn1_flag(key.0, ffi::OPENSSL_EC_NAMED_CURVE);
            sys::EC_KEY_oct2key(key.0, point.as_ptr(), point.len(), ptr::null_mut())
        };
        if ok == 1 { Ok(key) } else { Err(NotMade) }
    }

    fn into_pkey(self) -> Result<Pkey, NotMade> {
        let pkey = wrap(ffi::EVP_PKEY_EC, self.0.cast())?;
        // It belongs to the other now.
        #[allow(clippy::mem_forget, reason = "freed with the `EVP_PKEY`")]
        std::mem::forget(self);
        Ok(pkey)
    }
}

impl Drop for EcKey {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { ffi::EC_KEY_free(self.0) }
    }
}

/// An `RSA` of our own.
struct Rsa(*mut RSA);

impl Rsa {
    fn new(n: &[u8], e: &[u8]) -> Result<Self, NotMade> {
        // SAFETY: gives an object of our own, or NULL.
        let rsa = unsafe { ffi::RSA_new() };
        if rsa.is_null() {
            return Err(NotMade);
        }
        let rsa = Self(rsa);
        let (n, e) = (number(n), number(e));
        // SAFETY: the key is alive and ours. It takes both numbers over if it says so.
        unsafe {
            if !n.is_null() && !e.is_null() && ffi::RSA_set0_key(rsa.0, n, e, ptr::null_mut()) == 1
            {
                return Ok(rsa);
            }
            ffi::BN_free(n);
            ffi::BN_free(e);
        }
        Err(NotMade)
    }

    fn into_pkey(self) -> Result<Pkey, NotMade> {
        let pkey = wrap(ffi::EVP_PKEY_RSA, self.0.cast())?;
        // It belongs to the other now.
        #[allow(clippy::mem_forget, reason = "freed with the `EVP_PKEY`")]
        std::mem::forget(self);
        Ok(pkey)
    }
}

impl Drop for Rsa {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { ffi::RSA_free(self.0) }
    }
}

/// Wraps a key of a type, which belongs to the result then.
fn wrap(kind: c_int, key: *mut std::ffi::c_void) -> Result<Pkey, NotMade> {
    // SAFETY: gives an object of our own, or NULL.
    let pkey = unsafe { ffi::EVP_PKEY_new() };
    if pkey.is_null() {
        return Err(NotMade);
    }
    let pkey = Pkey(pkey);
    // SAFETY: both are alive, and the key is of that type.
    if unsafe { ffi::EVP_PKEY_assign(pkey.0, kind, key) } != 1 {
        return Err(NotMade);
    }
    Ok(pkey)
}

/// A number of our own, or NULL.
fn number(bytes: &[u8]) -> *mut BIGNUM {
    let Ok(len) = c_int::try_from(bytes.len()) else {
        return ptr::null_mut();
    };
    // SAFETY: the slice is as long as is said.
    unsafe { ffi::BN_bin2bn(bytes.as_ptr(), len, ptr::null_mut()) }
}
