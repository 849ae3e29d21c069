//! Tables of functions, each of them checked against the signature that OpenSSL calls it with (`openssl/core_dispatch.h`).

use std::ffi::{c_char, c_int, c_uchar, c_void};
use std::ptr;

use crate::sys::{
    OSSL_ALGORITHM, OSSL_CALLBACK, OSSL_CORE_BIO, OSSL_DISPATCH, OSSL_PARAM,
    OSSL_PASSPHRASE_CALLBACK,
};

/// A table that C reads.
#[repr(transparent)]
pub struct Table<T, const N: usize>(pub [T; N]);

// SAFETY: the pointers in the tables of this crate are to functions and constants.
unsafe impl<const N: usize> Sync for Table<OSSL_DISPATCH, N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Table<OSSL_ALGORITHM, N> {}
// SAFETY: as above; these are only read, to learn names and types.
unsafe impl<const N: usize> Sync for Table<OSSL_PARAM, N> {}

impl<T, const N: usize> Table<T, N> {
    /// What C gets.
    pub const fn as_ptr(&self) -> *const T {
        self.0.as_ptr()
    }
}

/// Ends a table of functions.
pub const END: OSSL_DISPATCH = OSSL_DISPATCH {
    function_id: 0,
    function: ptr::null(),
};

/// Ends a table of algorithms.
pub const NO_ALGORITHM: OSSL_ALGORITHM = OSSL_ALGORITHM {
    algorithm_names: ptr::null(),
    property_definition: ptr::null(),
    implementation: ptr::null(),
    algorithm_description: ptr::null(),
};

/// Makes one function per function of OpenSSL's: it takes what has that signature, and gives the entry of the table.
macro_rules! entries {
    ($($name:ident = $id:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        $(pub const fn $name(
            function: unsafe extern "C" fn($($argument),*) $(-> $result)?,
        ) -> OSSL_DISPATCH {
            OSSL_DISPATCH { function_id: $id, function: function as *const c_void }
        })*
    };
}

type Params = *const OSSL_PARAM;
type Out = *mut c_uchar;
type In = *const c_uchar;

entries! {
    provider_teardown = 1024: fn(*mut c_void);
    provider_gettable_params = 1025: fn(*mut c_void) -> Params;
    provider_get_params = 1026: fn(*mut c_void, *mut OSSL_PARAM) -> c_int;
    provider_query_operation = 1027: fn(*mut c_void, c_int, *mut c_int) -> *const OSSL_ALGORITHM;
    provider_get_capabilities = 1030: fn(
        *mut c_void,
        *const c_char,
        OSSL_CALLBACK,
        *mut c_void
    ) -> c_int;

    keymgmt_new = 1: fn(*mut c_void) -> *mut c_void;
    keymgmt_gen_init = 2: fn(*mut c_void, c_int, Params) -> *mut c_void;
    keymgmt_gen_set_template = 3: fn(*mut c_void, *mut c_void) -> c_int;
    keymgmt_gen_set_params = 4: fn(*mut c_void, Params) -> c_int;
    keymgmt_gen_settable_params = 5: fn(*mut c_void, *mut c_void) -> Params;
    keymgmt_gen = 6: fn(*mut c_void, Option<OSSL_CALLBACK>, *mut c_void) -> *mut c_void;
    keymgmt_gen_cleanup = 7: fn(*mut c_void);
    keymgmt_load = 8: fn(*const c_void, usize) -> *mut c_void;
    keymgmt_free = 10: fn(*mut c_void);
    keymgmt_get_params = 11: fn(*mut c_void, *mut OSSL_PARAM) -> c_int;
    keymgmt_gettable_params = 12: fn(*mut c_void) -> Params;
    keymgmt_set_params = 13: fn(*mut c_void, Params) -> c_int;
    keymgmt_settable_params = 14: fn(*mut c_void) -> Params;
    keymgmt_query_operation_name = 20: fn(c_int) -> *const c_char;
    keymgmt_has = 21: fn(*const c_void, c_int) -> c_int;
    keymgmt_validate = 22: fn(*const c_void, c_int, c_int) -> c_int;
    keymgmt_match = 23: fn(*const c_void, *const c_void, c_int) -> c_int;
    keymgmt_import = 40: fn(*mut c_void, c_int, Params) -> c_int;
    keymgmt_import_types = 41: fn(c_int) -> Params;
    keymgmt_export = 42: fn(*mut c_void, c_int, OSSL_CALLBACK, *mut c_void) -> c_int;
    keymgmt_export_types = 43: fn(c_int) -> Params;
    keymgmt_dup = 44: fn(*const c_void, c_int) -> *mut c_void;

    signature_newctx = 1: fn(*mut c_void, *const c_char) -> *mut c_void;
    signature_sign_init = 2: fn(*mut c_void, *mut c_void, Params) -> c_int;
    signature_sign = 3: fn(*mut c_void, Out, *mut usize, usize, In, usize) -> c_int;
    signature_verify_init = 4: fn(*mut c_void, *mut c_void, Params) -> c_int;
    signature_verify = 5: fn(*mut c_void, In, usize, In, usize) -> c_int;
    signature_verify_recover_init = 6: fn(*mut c_void, *mut c_void, Params) -> c_int;
    signature_verify_recover = 7: fn(*mut c_void, Out, *mut usize, usize, In, usize) -> c_int;
    signature_digest_sign_init = 8: fn(*mut c_void, *const c_char, *mut c_void, Params) -> c_int;
    signature_digest_sign_update = 9: fn(*mut c_void, In, usize) -> c_int;
    signature_digest_sign_final = 10: fn(*mut c_void, Out, *mut usize, usize) -> c_int;
    signature_digest_sign = 11: fn(*mut c_void, Out, *mut usize, usize, In, usize) -> c_int;
    signature_digest_verify_init = 12: fn(*mut c_void, *const c_char, *mut c_void, Params) -> c_int;
    signature_digest_verify_update = 13: fn(*mut c_void, In, usize) -> c_int;
    signature_digest_verify_final = 14: fn(*mut c_void, In, usize) -> c_int;
    signature_digest_verify = 15: fn(*mut c_void, In, usize, In, usize) -> c_int;
    signature_freectx = 16: fn(*mut c_void);
    signature_dupctx = 17: fn(*mut c_void) -> *mut c_void;
    signature_get_ctx_params = 18: fn(*mut c_void, *mut OSSL_PARAM) -> c_int;
    signature_gettable_ctx_params = 19: fn(*mut c_void, *mut c_void) -> Params;
    signature_set_ctx_params = 20: fn(*mut c_void, Params) -> c_int;
    signature_settable_ctx_params = 21: fn(*mut c_void, *mut c_void) -> Params;

    cipher_newctx = 1: fn(*mut c_void) -> *mut c_void;
    cipher_encrypt_init = 2: fn(*mut c_void, *mut c_void, Params) -> c_int;
    cipher_encrypt = 3: fn(*mut c_void, Out, *mut usize, usize, In, usize) -> c_int;
    cipher_decrypt_init = 4: fn(*mut c_void, *mut c_void, Params) -> c_int;
    cipher_decrypt = 5: fn(*mut c_void, Out, *mut usize, usize, In, usize) -> c_int;
    cipher_freectx = 6: fn(*mut c_void);
    cipher_dupctx = 7: fn(*mut c_void) -> *mut c_void;
    cipher_get_ctx_params = 8: fn(*mut c_void, *mut OSSL_PARAM) -> c_int;
    cipher_gettable_ctx_params = 9: fn(*mut c_void, *mut c_void) -> Params;
    cipher_set_ctx_params = 10: fn(*mut c_void, Params) -> c_int;
    cipher_settable_ctx_params = 11: fn(*mut c_void, *mut c_void) -> Params;

    decoder_newctx = 1: fn(*mut c_void) -> *mut c_void;
    decoder_freectx = 2: fn(*mut c_void);
    decoder_does_selection = 10: fn(*mut c_void, c_int) -> c_int;
    decoder_decode = 11: fn(
        *mut c_void,
        *mut OSSL_CORE_BIO,
        c_int,
        OSSL_CALLBACK,
        *mut c_void,
        Option<OSSL_PASSPHRASE_CALLBACK>,
        *mut c_void
    ) -> c_int;
    decoder_export_object = 20: fn(*mut c_void, *const c_void, usize, OSSL_CALLBACK, *mut c_void) -> c_int;

    store_open = 1: fn(*mut c_void, *const c_char) -> *mut c_void;
    store_settable_ctx_params = 3: fn(*mut c_void) -> Params;
    store_set_ctx_params = 4: fn(*mut c_void, Params) -> c_int;
    store_load = 5: fn(
        *mut c_void,
        OSSL_CALLBACK,
        *mut c_void,
        Option<OSSL_PASSPHRASE_CALLBACK>,
        *mut c_void
    ) -> c_int;
    store_eof = 6: fn(*mut c_void) -> c_int;
    store_close = 7: fn(*mut c_void) -> c_int;
    store_export_object = 8: fn(*mut c_void, *const c_void, usize, OSSL_CALLBACK, *mut c_void) -> c_int;
}
