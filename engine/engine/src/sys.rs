//! What openssl-sys leaves out. Names and types are those of the headers of OpenSSL 1.1.1 and 3, which agree as far as the
//! machine is concerned; where they do not, there is a `cfg`.
#![allow(
    non_camel_case_types,
    reason = "these are the names of OpenSSL's headers"
)]

use std::ffi::{c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void};

use openssl_sys::BN_CTX;
pub use openssl_sys::{
    BIGNUM, CRYPTO_EX_DATA, EC_KEY, ECDSA_SIG, ENGINE, EVP_PKEY, RSA, RSA_METHOD,
};

/// `openssl/types.h`.
pub enum EC_KEY_METHOD {}

/// `openssl/types.h`.
pub enum EVP_PKEY_METHOD {}

/// `openssl/types.h`.
pub enum UI_METHOD {}

/// `openssl/engine.h`.
pub type ENGINE_GEN_INT_FUNC_PTR = unsafe extern "C" fn(*mut ENGINE) -> c_int;

/// `openssl/engine.h`.
pub type ENGINE_LOAD_KEY_PTR = unsafe extern "C" fn(
    *mut ENGINE,
    key_id: *const c_char,
    *mut UI_METHOD,
    callback_data: *mut c_void,
) -> *mut EVP_PKEY;

/// `openssl/engine.h`.
pub type ENGINE_PKEY_METHS_PTR = unsafe extern "C" fn(
    *mut ENGINE,
    *mut *const EVP_PKEY_METHOD,
    *mut *const c_int,
    c_int,
) -> c_int;

/// `openssl/engine.h`: each `ENGINE_by_id` gives a structure of its own.
pub const ENGINE_FLAGS_BY_ID_COPY: c_int = 4;

/// `openssl/engine.h`: the version of the interface between libcrypto and engines, and the oldest that fits.
pub const OSSL_DYNAMIC_VERSION: c_ulong = 0x0003_0000;
pub const OSSL_DYNAMIC_OLDEST: c_ulong = 0x0003_0000;

type malloc_fn = Option<unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void>;
type realloc_fn =
    Option<unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void>;
type free_fn = Option<unsafe extern "C" fn(*mut c_void, *const c_char, c_int)>;

/// `openssl/engine.h`: how the libcrypto that loads an engine manages memory.
#[repr(C)]
pub struct dynamic_MEM_fns {
    /// `malloc(3)`.
    pub malloc_fn: malloc_fn,
    /// `realloc(3)`.
    pub realloc_fn: realloc_fn,
    /// `free(3)`.
    pub free_fn: free_fn,
}

/// `openssl/engine.h`: what a libcrypto that loads an engine says about itself.
#[repr(C)]
pub struct dynamic_fns {
    /// An address in it, which is another in another copy of libcrypto.
    pub static_state: *mut c_void,
    /// Its memory management.
    pub mem_fns: dynamic_MEM_fns,
}

/// `openssl/crypto.h`: kinds of objects that have ex data.
pub const CRYPTO_EX_INDEX_EC_KEY: c_int = 8;
pub const CRYPTO_EX_INDEX_RSA: c_int = 9;
pub const CRYPTO_EX_INDEX_ENGINE: c_int = 10;

/// `CRYPTO_EX_new` of `openssl/crypto.h`.
pub type CRYPTO_EX_new = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    *mut CRYPTO_EX_DATA,
    index: c_int,
    c_long,
    *mut c_void,
);

/// `CRYPTO_EX_dup` of `openssl/crypto.h`. The header of OpenSSL 1.1 has `void *` for the type of `from_d`, but gives the same
/// thing: where the pointer is that is to be duplicated.
pub type CRYPTO_EX_dup = unsafe extern "C" fn(
    to: *mut CRYPTO_EX_DATA,
    from: *const CRYPTO_EX_DATA,
    from_d: *mut *mut c_void,
    index: c_int,
    c_long,
    *mut c_void,
) -> c_int;

/// `CRYPTO_EX_free` of `openssl/crypto.h`.
pub type CRYPTO_EX_free = unsafe extern "C" fn(
    parent: *mut c_void,
    data: *mut c_void,
    *mut CRYPTO_EX_DATA,
    index: c_int,
    c_long,
    *mut c_void,
);

/// `EC_KEY_METHOD_set_sign` of `openssl/ec.h`: ECDSA with the signature in DER.
pub type ecdsa_sign = unsafe extern "C" fn(
    kind: c_int,
    digest: *const c_uchar,
    digest_len: c_int,
    signature: *mut c_uchar,
    len: *mut c_uint,
    kinv: *const BIGNUM,
    r: *const BIGNUM,
    *mut EC_KEY,
) -> c_int;

/// `EC_KEY_METHOD_set_sign` of `openssl/ec.h`: work done before the digest is known.
pub type ecdsa_sign_setup = unsafe extern "C" fn(
    *mut EC_KEY,
    *mut BN_CTX,
    kinv: *mut *mut BIGNUM,
    r: *mut *mut BIGNUM,
) -> c_int;

/// `EC_KEY_METHOD_set_sign` of `openssl/ec.h`: ECDSA with the signature as numbers.
pub type ecdsa_sign_sig = unsafe extern "C" fn(
    digest: *const c_uchar,
    digest_len: c_int,
    kinv: *const BIGNUM,
    r: *const BIGNUM,
    *mut EC_KEY,
) -> *mut ECDSA_SIG;

/// `RSA_meth_set_priv_enc` and the like of `openssl/rsa.h`.
pub type rsa_operation = unsafe extern "C" fn(
    len: c_int,
    from: *const c_uchar,
    to: *mut c_uchar,
    *mut RSA,
    padding: c_int,
) -> c_int;

/// `openssl/rsa.h`: paddings.
pub const RSA_PKCS1_PADDING: c_int = 1;
pub const RSA_NO_PADDING: c_int = 3;
pub const RSA_PKCS1_OAEP_PADDING: c_int = 4;
/// Since OpenSSL 3.2.
pub const RSA_PKCS1_NO_IMPLICIT_REJECT_PADDING: c_int = 8;

/// `openssl/err.h`.
#[repr(C)]
pub struct ERR_STRING_DATA {
    pub error: c_ulong,
    pub string: *const c_char,
}

/// `ERR_PACK` of `openssl/err.h`.
#[cfg(ossl300)]
pub const fn err_pack(library: c_int, _function: c_int, reason: c_int) -> c_ulong {
    ((library as c_ulong & 0xff) << 23) | (reason as c_ulong & 0x7f_ffff)
}

/// `ERR_PACK` of `openssl/err.h`.
#[cfg(not(ossl300))]
pub const fn err_pack(library: c_int, function: c_int, reason: c_int) -> c_ulong {
    ((library as c_ulong & 0xff) << 24)
        | ((function as c_ulong & 0xfff) << 12)
        | (reason as c_ulong & 0xfff)
}

unsafe extern "C" {
    // openssl/crypto.h
    pub fn CRYPTO_set_mem_functions(malloc: malloc_fn, realloc: realloc_fn, free: free_fn)
    -> c_int;
    pub fn CRYPTO_get_ex_new_index(
        class: c_int,
        argl: c_long,
        argp: *mut c_void,
        new: Option<CRYPTO_EX_new>,
        dup: Option<CRYPTO_EX_dup>,
        free: Option<CRYPTO_EX_free>,
    ) -> c_int;
    pub fn CRYPTO_get_ex_data(data: *const CRYPTO_EX_DATA, index: c_int) -> *mut c_void;
    pub fn CRYPTO_set_ex_data(data: *mut CRYPTO_EX_DATA, index: c_int, value: *mut c_void)
    -> c_int;
    pub fn OPENSSL_init_crypto(options: u64, settings: *const c_void) -> c_int;

    // openssl/engine.h
    pub fn ENGINE_get_static_state() -> *mut c_void;
    pub fn ENGINE_new() -> *mut ENGINE;
    pub fn ENGINE_add(engine: *mut ENGINE) -> c_int;
    pub fn ENGINE_free(engine: *mut ENGINE) -> c_int;
    pub fn ENGINE_set_id(engine: *mut ENGINE, id: *const c_char) -> c_int;
    pub fn ENGINE_set_name(engine: *mut ENGINE, name: *const c_char) -> c_int;
    pub fn ENGINE_set_flags(engine: *mut ENGINE, flags: c_int) -> c_int;
    pub fn ENGINE_set_init_function(engine: *mut ENGINE, init: ENGINE_GEN_INT_FUNC_PTR) -> c_int;
    pub fn ENGINE_set_destroy_function(
        engine: *mut ENGINE,
        destroy: ENGINE_GEN_INT_FUNC_PTR,
    ) -> c_int;
    pub fn ENGINE_set_load_privkey_function(
        engine: *mut ENGINE,
        load: ENGINE_LOAD_KEY_PTR,
    ) -> c_int;
    pub fn ENGINE_set_load_pubkey_function(engine: *mut ENGINE, load: ENGINE_LOAD_KEY_PTR)
    -> c_int;
    pub fn ENGINE_set_pkey_meths(engine: *mut ENGINE, methods: ENGINE_PKEY_METHS_PTR) -> c_int;
    pub fn ENGINE_get_ex_data(engine: *const ENGINE, index: c_int) -> *mut c_void;
    pub fn ENGINE_set_ex_data(engine: *mut ENGINE, index: c_int, data: *mut c_void) -> c_int;

    // openssl/evp.h
    pub fn EVP_PKEY_meth_get0(index: usize) -> *const EVP_PKEY_METHOD;
    pub fn EVP_PKEY_meth_get0_info(
        nid: *mut c_int,
        flags: *mut c_int,
        method: *const EVP_PKEY_METHOD,
    );
    pub fn EVP_PKEY_set1_engine(pkey: *mut EVP_PKEY, engine: *mut ENGINE) -> c_int;

    // openssl/ec.h
    pub fn EC_KEY_OpenSSL() -> *const EC_KEY_METHOD;
    pub fn EC_KEY_METHOD_new(from: *const EC_KEY_METHOD) -> *mut EC_KEY_METHOD;
    pub fn EC_KEY_METHOD_get_sign(
        method: *const EC_KEY_METHOD,
        sign: *mut Option<ecdsa_sign>,
        setup: *mut Option<ecdsa_sign_setup>,
        sign_sig: *mut Option<ecdsa_sign_sig>,
    );
    pub fn EC_KEY_METHOD_set_sign(
        method: *mut EC_KEY_METHOD,
        sign: Option<ecdsa_sign>,
        setup: Option<ecdsa_sign_setup>,
        sign_sig: Option<ecdsa_sign_sig>,
    );
    pub fn EC_KEY_set_method(key: *mut EC_KEY, method: *const EC_KEY_METHOD) -> c_int;
    pub fn EC_KEY_set_asn1_flag(key: *mut EC_KEY, flag: c_int);
    pub fn EC_KEY_oct2key(
        key: *mut EC_KEY,
        point: *const c_uchar,
        len: usize,
        ctx: *mut BN_CTX,
    ) -> c_int;
    pub fn EC_KEY_get_ex_data(key: *const EC_KEY, index: c_int) -> *mut c_void;
    pub fn EC_KEY_set_ex_data(key: *mut EC_KEY, index: c_int, data: *mut c_void) -> c_int;

    // openssl/rsa.h
    pub fn RSA_PKCS1_OpenSSL() -> *const RSA_METHOD;
    pub fn RSA_meth_dup(from: *const RSA_METHOD) -> *mut RSA_METHOD;
    pub fn RSA_meth_free(method: *mut RSA_METHOD);
    pub fn RSA_meth_set1_name(method: *mut RSA_METHOD, name: *const c_char) -> c_int;
    pub fn RSA_meth_set_flags(method: *mut RSA_METHOD, flags: c_int) -> c_int;
    pub fn RSA_meth_set_priv_enc(method: *mut RSA_METHOD, operation: rsa_operation) -> c_int;
    pub fn RSA_meth_set_priv_dec(method: *mut RSA_METHOD, operation: rsa_operation) -> c_int;
    pub fn RSA_set_method(rsa: *mut RSA, method: *const RSA_METHOD) -> c_int;
    pub fn RSA_get_ex_data(rsa: *const RSA, index: c_int) -> *mut c_void;
    pub fn RSA_set_ex_data(rsa: *mut RSA, index: c_int, data: *mut c_void) -> c_int;

    // openssl/err.h
    pub fn ERR_load_strings_const(strings: *const ERR_STRING_DATA) -> c_int;
    pub fn ERR_set_mark() -> c_int;
    pub fn ERR_pop_to_mark() -> c_int;
    pub fn ERR_add_error_data(count: c_int, ...);
}
