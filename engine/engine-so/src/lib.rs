//! `aziot_keys.so` of OpenSSL's engines directory. Everything is in the crate `aziot_keys_engine`; this exports its entries.
#![allow(
    unsafe_code,
    reason = "entry points for C, under the names that C looks for"
)]

use std::ffi::{c_char, c_int, c_ulong};

use aziot_keys_engine::{ENGINE, dynamic_fns};

/// Fills the structure of an engine in (`IMPLEMENT_DYNAMIC_BIND_FN` of `openssl/engine.h`). 1, or 0 if that fails. The id is
/// the name that the file was found by, and any is right.
///
/// # Safety
///
/// To be called by libcrypto only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind_engine(
    engine: *mut ENGINE,
    _id: *const c_char,
    functions: *const dynamic_fns,
) -> c_int {
    // SAFETY: the same arguments.
    unsafe { aziot_keys_engine::bind(engine, functions) }
}

/// Says which version of the interface between libcrypto and engines this is, for a libcrypto that has version `theirs`; 0 if
/// they do not fit (`IMPLEMENT_DYNAMIC_CHECK_FN` of `openssl/engine.h`).
#[unsafe(no_mangle)]
pub extern "C" fn v_check(theirs: c_ulong) -> c_ulong {
    aziot_keys_engine::check_version(theirs)
}
