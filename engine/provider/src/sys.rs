//! What openssl-sys leaves out. Names and types are those of the headers.
#![allow(
    non_camel_case_types,
    reason = "these are the names of OpenSSL's headers"
)]

use std::ffi::{c_char, c_int, c_long, c_uchar, c_uint, c_void};

pub use openssl_sys::{
    BIO, EVP_DigestVerifyFinal, EVP_DigestVerifyUpdate, EVP_MD, EVP_MD_CTX, EVP_PKEY, EVP_PKEY_CTX,
    OSSL_LIB_CTX, OSSL_PARAM, OSSL_PROVIDER,
};

/// `openssl/core.h`.
pub enum OSSL_CORE_HANDLE {}

/// `openssl/core.h`.
pub enum OSSL_CORE_BIO {}

/// `openssl/evp.h`.
pub enum EVP_KEYMGMT {}

/// `openssl/evp.h`.
pub enum EVP_SIGNATURE {}

/// `openssl/evp.h`.
pub enum EVP_ASYM_CIPHER {}

/// `openssl/store.h`.
pub enum OSSL_STORE_CTX {}

/// `openssl/store.h`.
pub enum OSSL_STORE_INFO {}

/// `OSSL_DISPATCH` of `openssl/core.h`; a function that is NULL, with the id 0, ends a table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OSSL_DISPATCH {
    /// Which function it is.
    pub function_id: c_int,
    /// The function.
    pub function: *const c_void,
}

/// `OSSL_ALGORITHM` of `openssl/core.h`; names that are NULL end a table.
#[repr(C)]
pub struct OSSL_ALGORITHM {
    pub algorithm_names: *const c_char,
    pub property_definition: *const c_char,
    pub implementation: *const OSSL_DISPATCH,
    pub algorithm_description: *const c_char,
}

/// `openssl/core.h`.
pub type OSSL_CALLBACK = unsafe extern "C" fn(params: *const OSSL_PARAM, arg: *mut c_void) -> c_int;

/// `openssl/core.h`.
pub type OSSL_PASSPHRASE_CALLBACK = unsafe extern "C" fn(
    pass: *mut c_char,
    pass_size: usize,
    pass_len: *mut usize,
    params: *const OSSL_PARAM,
    arg: *mut c_void,
) -> c_int;

/// `openssl/core.h`.
pub type OSSL_provider_init_fn = unsafe extern "C" fn(
    handle: *const OSSL_CORE_HANDLE,
    functions: *const OSSL_DISPATCH,
    out: *mut *const OSSL_DISPATCH,
    provctx: *mut *mut c_void,
) -> c_int;

/// `openssl/core.h`: data types of parameters.
pub const OSSL_PARAM_INTEGER: c_uint = 1;
pub const OSSL_PARAM_UNSIGNED_INTEGER: c_uint = 2;
pub const OSSL_PARAM_UTF8_STRING: c_uint = 4;
pub const OSSL_PARAM_OCTET_STRING: c_uint = 5;
pub const OSSL_PARAM_UTF8_PTR: c_uint = 6;
pub const OSSL_PARAM_OCTET_PTR: c_uint = 7;

/// `openssl/params.h`: what `return_size` is until something is returned.
pub const OSSL_PARAM_UNMODIFIED: usize = usize::MAX;

/// `openssl/core_dispatch.h`: what the core offers to providers.
pub const OSSL_FUNC_CORE_GET_PARAMS: c_int = 2;

/// `openssl/core_dispatch.h`: operations.
pub const OSSL_OP_KEYMGMT: c_int = 10;
pub const OSSL_OP_KEYEXCH: c_int = 11;
pub const OSSL_OP_SIGNATURE: c_int = 12;
pub const OSSL_OP_ASYM_CIPHER: c_int = 13;
pub const OSSL_OP_DECODER: c_int = 21;
pub const OSSL_OP_STORE: c_int = 22;

/// `openssl/core_dispatch.h`: parts of a key.
pub const SELECT_PRIVATE_KEY: c_int = 0x01;
pub const SELECT_PUBLIC_KEY: c_int = 0x02;
pub const SELECT_DOMAIN_PARAMETERS: c_int = 0x04;
pub const SELECT_OTHER_PARAMETERS: c_int = 0x80;
pub const SELECT_KEYPAIR: c_int = SELECT_PRIVATE_KEY | SELECT_PUBLIC_KEY;
pub const SELECT_ALL_PARAMETERS: c_int = SELECT_DOMAIN_PARAMETERS | SELECT_OTHER_PARAMETERS;

/// `openssl/core_dispatch.h`.
pub const OSSL_KEYMGMT_VALIDATE_QUICK_CHECK: c_int = 1;

/// `openssl/core_object.h`.
pub const OSSL_OBJECT_PKEY: c_int = 2;

/// `openssl/store.h`.
pub const OSSL_STORE_INFO_PUBKEY: c_int = 3;
pub const OSSL_STORE_INFO_PKEY: c_int = 4;

/// `openssl/rsa.h`: paddings.
pub const RSA_PKCS1_PADDING: c_int = 1;
pub const RSA_NO_PADDING: c_int = 3;
pub const RSA_PKCS1_OAEP_PADDING: c_int = 4;
pub const RSA_PKCS1_PSS_PADDING: c_int = 6;
pub const RSA_PKCS1_WITH_TLS_PADDING: c_int = 7;

/// `openssl/rsa.h`: lengths of the salt of PSS. The last one came with OpenSSL 3.1.
pub const RSA_PSS_SALTLEN_DIGEST: c_int = -1;
pub const RSA_PSS_SALTLEN_AUTO: c_int = -2;
pub const RSA_PSS_SALTLEN_MAX: c_int = -3;
pub const RSA_PSS_SALTLEN_AUTO_DIGEST_MAX: c_int = -4;

/// `ERR_STRING_DATA` of `openssl/err.h`.
#[repr(C)]
pub struct ERR_STRING_DATA {
    pub error: std::ffi::c_ulong,
    pub string: *const c_char,
}

unsafe extern "C" {
    // openssl/err.h
    pub fn BIO_new_from_core_bio(ctx: *mut OSSL_LIB_CTX, bio: *mut OSSL_CORE_BIO) -> *mut BIO;
    pub fn BIO_free(bio: *mut BIO) -> c_int;
    pub fn CRYPTO_clear_free(ptr: *mut c_void, num: usize, file: *const c_char, line: c_int);
    pub fn PEM_read_bio(
        bio: *mut BIO,
        name: *mut *mut c_char,
        header: *mut *mut c_char,
        data: *mut *mut c_uchar,
        len: *mut c_long,
    ) -> c_int;

    pub fn ERR_set_mark() -> c_int;
    pub fn ERR_pop_to_mark() -> c_int;
    pub fn ERR_new();
    pub fn ERR_set_debug(file: *const c_char, line: c_int, func: *const c_char);
    pub fn ERR_set_error(lib: c_int, reason: c_int, fmt: *const c_char, ...);
    pub fn ERR_add_error_data(num: c_int, ...);
    pub fn ERR_get_next_error_library() -> c_int;
    pub fn ERR_load_strings_const(strings: *const ERR_STRING_DATA) -> c_int;
    pub fn ERR_peek_last_error_all(
        file: *mut *const c_char,
        line: *mut c_int,
        func: *mut *const c_char,
        data: *mut *const c_char,
        flags: *mut c_int,
    ) -> std::ffi::c_ulong;
    pub fn ERR_reason_error_string(error: std::ffi::c_ulong) -> *const c_char;

    // openssl/crypto.h
    pub fn OSSL_LIB_CTX_new() -> *mut OSSL_LIB_CTX;
    pub fn OSSL_LIB_CTX_new_child(
        handle: *const OSSL_CORE_HANDLE,
        functions: *const OSSL_DISPATCH,
    ) -> *mut OSSL_LIB_CTX;
    pub fn OSSL_LIB_CTX_free(ctx: *mut OSSL_LIB_CTX);

    // openssl/provider.h
    pub fn OSSL_PROVIDER_add_builtin(
        ctx: *mut OSSL_LIB_CTX,
        name: *const c_char,
        init: OSSL_provider_init_fn,
    ) -> c_int;
    pub fn OSSL_PROVIDER_load(ctx: *mut OSSL_LIB_CTX, name: *const c_char) -> *mut OSSL_PROVIDER;

    pub fn OSSL_PROVIDER_do_all(
        ctx: *mut OSSL_LIB_CTX,
        callback: unsafe extern "C" fn(provider: *mut OSSL_PROVIDER, arg: *mut c_void) -> c_int,
        arg: *mut c_void,
    ) -> c_int;
    pub fn OSSL_PROVIDER_get0_name(provider: *const OSSL_PROVIDER) -> *const c_char;
    pub fn OSSL_PROVIDER_get_capabilities(
        provider: *const OSSL_PROVIDER,
        capability: *const c_char,
        callback: OSSL_CALLBACK,
        arg: *mut c_void,
    ) -> c_int;

    // openssl/params.h
    pub fn OSSL_PARAM_locate(params: *mut OSSL_PARAM, key: *const c_char) -> *mut OSSL_PARAM;
    pub fn OSSL_PARAM_locate_const(
        params: *const OSSL_PARAM,
        key: *const c_char,
    ) -> *const OSSL_PARAM;
    pub fn OSSL_PARAM_get_int(param: *const OSSL_PARAM, value: *mut c_int) -> c_int;
    pub fn OSSL_PARAM_get_utf8_string_ptr(
        param: *const OSSL_PARAM,
        value: *mut *const c_char,
    ) -> c_int;
    pub fn OSSL_PARAM_set_int(param: *mut OSSL_PARAM, value: c_int) -> c_int;
    pub fn OSSL_PARAM_set_utf8_ptr(param: *mut OSSL_PARAM, value: *const c_char) -> c_int;
    pub fn OSSL_PARAM_free(params: *mut OSSL_PARAM);

    // openssl/rand.h
    pub fn RAND_priv_bytes_ex(
        ctx: *mut OSSL_LIB_CTX,
        buf: *mut c_uchar,
        num: usize,
        strength: c_uint,
    ) -> c_int;

    // openssl/store.h
    pub fn OSSL_STORE_open_ex(
        uri: *const c_char,
        libctx: *mut OSSL_LIB_CTX,
        propq: *const c_char,
        ui_method: *const c_void,
        ui_data: *mut c_void,
        params: *const OSSL_PARAM,
        post_process: *const c_void,
        post_process_data: *mut c_void,
    ) -> *mut OSSL_STORE_CTX;
    pub fn OSSL_STORE_load(ctx: *mut OSSL_STORE_CTX) -> *mut OSSL_STORE_INFO;
    pub fn OSSL_STORE_close(ctx: *mut OSSL_STORE_CTX) -> c_int;
    pub fn OSSL_STORE_INFO_get1_PKEY(info: *const OSSL_STORE_INFO) -> *mut EVP_PKEY;
    pub fn OSSL_STORE_INFO_free(info: *mut OSSL_STORE_INFO);

    // openssl/evp.h: digests
    pub fn EVP_MD_fetch(
        ctx: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_MD;
    pub fn EVP_MD_free(md: *mut EVP_MD);
    pub fn EVP_MD_get_type(md: *const EVP_MD) -> c_int;
    pub fn EVP_MD_get_size(md: *const EVP_MD) -> c_int;
    pub fn EVP_MD_CTX_new() -> *mut EVP_MD_CTX;
    pub fn EVP_MD_CTX_free(ctx: *mut EVP_MD_CTX);
    pub fn EVP_MD_CTX_copy_ex(out: *mut EVP_MD_CTX, from: *const EVP_MD_CTX) -> c_int;
    pub fn EVP_MD_CTX_get_pkey_ctx(ctx: *const EVP_MD_CTX) -> *mut EVP_PKEY_CTX;
    pub fn EVP_DigestInit_ex2(
        ctx: *mut EVP_MD_CTX,
        md: *const EVP_MD,
        params: *const OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_DigestUpdate(ctx: *mut EVP_MD_CTX, data: *const c_void, len: usize) -> c_int;
    pub fn EVP_DigestFinal_ex(ctx: *mut EVP_MD_CTX, out: *mut c_uchar, len: *mut c_uint) -> c_int;
    pub fn EVP_DigestSignInit_ex(
        ctx: *mut EVP_MD_CTX,
        pctx: *mut *mut EVP_PKEY_CTX,
        digest: *const c_char,
        libctx: *mut OSSL_LIB_CTX,
        properties: *const c_char,
        pkey: *mut EVP_PKEY,
        params: *const OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_DigestSignUpdate(ctx: *mut EVP_MD_CTX, data: *const c_void, len: usize) -> c_int;
    pub fn EVP_DigestSignFinal(
        ctx: *mut EVP_MD_CTX,
        signature: *mut c_uchar,
        len: *mut usize,
    ) -> c_int;
    pub fn EVP_DigestVerifyInit_ex(
        ctx: *mut EVP_MD_CTX,
        pctx: *mut *mut EVP_PKEY_CTX,
        digest: *const c_char,
        libctx: *mut OSSL_LIB_CTX,
        properties: *const c_char,
        pkey: *mut EVP_PKEY,
        params: *const OSSL_PARAM,
    ) -> c_int;

    // openssl/evp.h: keys
    pub fn EVP_PKEY_free(pkey: *mut EVP_PKEY);
    pub fn EVP_PKEY_up_ref(pkey: *mut EVP_PKEY) -> c_int;
    pub fn EVP_PKEY_eq(a: *const EVP_PKEY, b: *const EVP_PKEY) -> c_int;
    pub fn EVP_PKEY_parameters_eq(a: *const EVP_PKEY, b: *const EVP_PKEY) -> c_int;
    pub fn EVP_PKEY_get_params(pkey: *const EVP_PKEY, params: *mut OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_set_params(pkey: *mut EVP_PKEY, params: *mut OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_todata(
        pkey: *const EVP_PKEY,
        selection: c_int,
        params: *mut *mut OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_PKEY_export(
        pkey: *const EVP_PKEY,
        selection: c_int,
        callback: OSSL_CALLBACK,
        arg: *mut c_void,
    ) -> c_int;

    // openssl/evp.h: operations with keys
    pub fn EVP_PKEY_CTX_new_from_name(
        ctx: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_PKEY_CTX;
    pub fn EVP_PKEY_CTX_new_from_pkey(
        ctx: *mut OSSL_LIB_CTX,
        pkey: *mut EVP_PKEY,
        properties: *const c_char,
    ) -> *mut EVP_PKEY_CTX;
    pub fn EVP_PKEY_CTX_dup(ctx: *const EVP_PKEY_CTX) -> *mut EVP_PKEY_CTX;
    pub fn EVP_PKEY_CTX_free(ctx: *mut EVP_PKEY_CTX);
    pub fn EVP_PKEY_CTX_get_params(ctx: *mut EVP_PKEY_CTX, params: *mut OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_CTX_set_params(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_CTX_settable_params(ctx: *const EVP_PKEY_CTX) -> *const OSSL_PARAM;
    pub fn EVP_PKEY_fromdata_init(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_fromdata(
        ctx: *mut EVP_PKEY_CTX,
        pkey: *mut *mut EVP_PKEY,
        selection: c_int,
        params: *mut OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_PKEY_keygen_init(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_paramgen_init(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_generate(ctx: *mut EVP_PKEY_CTX, pkey: *mut *mut EVP_PKEY) -> c_int;
    pub fn EVP_PKEY_param_check(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_public_check(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_public_check_quick(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_private_check(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_pairwise_check(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_sign_init_ex(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_sign(
        ctx: *mut EVP_PKEY_CTX,
        signature: *mut c_uchar,
        len: *mut usize,
        digest: *const c_uchar,
        digest_len: usize,
    ) -> c_int;
    pub fn EVP_PKEY_verify_init_ex(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_verify(
        ctx: *mut EVP_PKEY_CTX,
        signature: *const c_uchar,
        len: usize,
        digest: *const c_uchar,
        digest_len: usize,
    ) -> c_int;
    pub fn EVP_PKEY_verify_recover_init_ex(
        ctx: *mut EVP_PKEY_CTX,
        params: *const OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_PKEY_verify_recover(
        ctx: *mut EVP_PKEY_CTX,
        out: *mut c_uchar,
        len: *mut usize,
        signature: *const c_uchar,
        signature_len: usize,
    ) -> c_int;
    pub fn EVP_PKEY_encrypt_init_ex(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_encrypt(
        ctx: *mut EVP_PKEY_CTX,
        out: *mut c_uchar,
        len: *mut usize,
        input: *const c_uchar,
        input_len: usize,
    ) -> c_int;
    pub fn EVP_PKEY_decrypt_init_ex(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_decrypt(
        ctx: *mut EVP_PKEY_CTX,
        out: *mut c_uchar,
        len: *mut usize,
        input: *const c_uchar,
        input_len: usize,
    ) -> c_int;

    // openssl/evp.h: what algorithms take and give
    pub fn EVP_KEYMGMT_fetch(
        ctx: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_KEYMGMT;
    pub fn EVP_KEYMGMT_free(keymgmt: *mut EVP_KEYMGMT);
    pub fn EVP_KEYMGMT_gettable_params(keymgmt: *const EVP_KEYMGMT) -> *const OSSL_PARAM;
    pub fn EVP_KEYMGMT_settable_params(keymgmt: *const EVP_KEYMGMT) -> *const OSSL_PARAM;
    pub fn EVP_KEYMGMT_gen_settable_params(keymgmt: *const EVP_KEYMGMT) -> *const OSSL_PARAM;
    pub fn EVP_SIGNATURE_fetch(
        ctx: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_SIGNATURE;
    pub fn EVP_SIGNATURE_free(signature: *mut EVP_SIGNATURE);
    pub fn EVP_SIGNATURE_gettable_ctx_params(signature: *const EVP_SIGNATURE) -> *const OSSL_PARAM;
    pub fn EVP_SIGNATURE_settable_ctx_params(signature: *const EVP_SIGNATURE) -> *const OSSL_PARAM;
    pub fn EVP_ASYM_CIPHER_fetch(
        ctx: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_ASYM_CIPHER;
    pub fn EVP_ASYM_CIPHER_free(cipher: *mut EVP_ASYM_CIPHER);
    pub fn EVP_ASYM_CIPHER_gettable_ctx_params(cipher: *const EVP_ASYM_CIPHER)
    -> *const OSSL_PARAM;
    pub fn EVP_ASYM_CIPHER_settable_ctx_params(cipher: *const EVP_ASYM_CIPHER)
    -> *const OSSL_PARAM;
}

/// Longest digest (`EVP_MAX_MD_SIZE` of `openssl/evp.h`).
pub const EVP_MAX_MD_SIZE: usize = 64;

/// `ERR_PACK` of `openssl/err.h`, as from OpenSSL 3.0 on.
pub const fn err_pack(lib: c_int, reason: c_int) -> std::ffi::c_ulong {
    ((lib as std::ffi::c_ulong & 0xff) << 23) | (reason as std::ffi::c_ulong & 0x7f_ffff)
}
