//! `aziot_keys.so` of OpenSSL's modules directory. Everything is in the crate `aziot_keys_provider`; this exports its entry.
#![allow(
    unsafe_code,
    non_camel_case_types,
    reason = "an entry point for C, under the name that C looks for"
)]

use std::ffi::{c_int, c_void};

use aziot_keys_provider::{OSSL_CORE_HANDLE, OSSL_DISPATCH};

/// The entry of the provider (`openssl/core.h`).
///
/// # Safety
///
/// To be called by libcrypto only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OSSL_provider_init(
    handle: *const OSSL_CORE_HANDLE,
    functions: *const OSSL_DISPATCH,
    out: *mut *const OSSL_DISPATCH,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: the same arguments.
    unsafe { aziot_keys_provider::init(handle, functions, out, context) }
}
