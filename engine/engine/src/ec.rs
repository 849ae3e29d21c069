//! ECDSA with a key of the Keys Service. Verification and everything else that takes no private key is OpenSSL's own; ECDH
//! and exporting the key fail there, because there is no private number.

use std::ffi::{c_int, c_long, c_uchar};
use std::ptr;
use std::sync::{Arc, OnceLock};

use aziot_keys_remote::RemoteKey;
use openssl_sys as ffi;

use crate::error::{Function, raise, raise_key};
use crate::ex_data::{Full, Slot};
use crate::sys::{self, BIGNUM, EC_KEY, EC_KEY_METHOD, ECDSA_SIG};

// SAFETY: the class is that of `EC_KEY`, and so are the functions.
static KEYS: Slot<EC_KEY, RemoteKey> = unsafe {
    Slot::new(
        sys::CRYPTO_EX_INDEX_EC_KEY,
        true,
        sys::EC_KEY_get_ex_data,
        sys::EC_KEY_set_ex_data,
    )
};

/// Prepares what keys need.
pub fn register() -> Result<(), Full> {
    KEYS.register()?;
    method().map(drop).ok_or(Full)
}

/// Has the key sign with this key pair.
///
/// # Safety
///
/// The key is alive, and nobody else uses it yet.
pub unsafe fn attach(ec_key: *mut EC_KEY, key: Arc<RemoteKey>) -> Option<()> {
    let method = method()?;
    // SAFETY: the key is alive (caller), and the method lives for ever.
    unsafe {
        KEYS.set(ec_key, key).ok()?;
        (sys::EC_KEY_set_method(ec_key, method) == 1).then_some(())
    }
}

/// OpenSSL's method with another signature. Made once and kept: keys refer to it for as long as they live.
fn method() -> Option<*const EC_KEY_METHOD> {
    struct Method(*const EC_KEY_METHOD);
    // SAFETY: it is not changed once it is made.
    unsafe impl Send for Method {}
    // SAFETY: as above.
    unsafe impl Sync for Method {}
    static METHOD: OnceLock<Method> = OnceLock::new();

    let method = METHOD.get_or_init(|| {
        // SAFETY: copies OpenSSL's method. NULL means that there is no memory.
        Method(unsafe {
            let own = sys::EC_KEY_OpenSSL();
            let method = sys::EC_KEY_METHOD_new(own);
            if !method.is_null() {
                // Takes care of the encoding, and calls `sign_sig`.
                let mut outer = None;
                sys::EC_KEY_METHOD_get_sign(own, &raw mut outer, ptr::null_mut(), ptr::null_mut());
                sys::EC_KEY_METHOD_set_sign(method, outer, None, Some(sign_sig));
            }
            method
        })
    });
    (!method.0.is_null()).then_some(method.0)
}

/// Signs a digest. `kinv` and `r` are of no use: the service chooses the random number.
unsafe extern "C" fn sign_sig(
    digest: *const c_uchar,
    digest_len: c_int,
    _kinv: *const BIGNUM,
    _r: *const BIGNUM,
    ec_key: *mut EC_KEY,
) -> *mut ECDSA_SIG {
    // SAFETY: libcrypto passes a key that is alive.
    let Some(key) = (unsafe { KEYS.get(ec_key) }) else {
        raise(
            Function::EcSign,
            "the key has the engine's method, but was not loaded through it",
        );
        return ptr::null_mut();
    };
    let digest = match usize::try_from(digest_len) {
        Ok(0) => &[],
        // SAFETY: as long as is said.
        Ok(len) if !digest.is_null() => unsafe { std::slice::from_raw_parts(digest, len) },
        _ => {
            raise(Function::EcSign, "there is no digest to sign");
            return ptr::null_mut();
        }
    };
    match key.sign_ecdsa(digest) {
        Ok(der) => decoded(&der).unwrap_or_else(|| {
            raise(
                Function::EcSign,
                "the Keys Service gave something that is not an ECDSA signature; check the key library",
            );
            ptr::null_mut()
        }),
        Err(error) => {
            raise_key(Function::EcSign, &error);
            ptr::null_mut()
        }
    }
}

/// The numbers of a signature in DER, as an object of the caller's.
fn decoded(der: &[u8]) -> Option<*mut ECDSA_SIG> {
    let len = c_long::try_from(der.len()).ok()?;
    let mut rest = der.as_ptr();
    // SAFETY: the slice is as long as is said. The object is ours, or NULL.
    let signature = unsafe { ffi::d2i_ECDSA_SIG(ptr::null_mut(), &raw mut rest, len) };
    if signature.is_null() {
        return None;
    }
    if rest == der.as_ptr_range().end {
        return Some(signature);
    }
    // SAFETY: it is ours.
    unsafe { ffi::ECDSA_SIG_free(signature) };
    None
}
