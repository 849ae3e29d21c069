//! OpenSSL's error queue.
//!
//! There is an entry for each cause, outermost first. All have the same reason, which says nothing: what happened is in the
//! data of the entry. Programs match on the names of libraries and functions, which are those of release 1.6.0.

use std::ffi::{CStr, CString, c_int, c_ulong};
use std::fmt::Display;
use std::ptr;
use std::sync::OnceLock;

use openssl_sys as ffi;

use crate::sys::{self, ERR_STRING_DATA};

/// Where something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Loading a private key.
    LoadPrivkey,
    /// Loading a public key.
    LoadPubkey,
    /// Saying how keys are used.
    PkeyMeths,
    /// ECDSA.
    EcSign,
    /// The private operation of RSA, to sign.
    RsaPrivEnc,
    /// The private operation of RSA, to decrypt.
    RsaPrivDec,
    /// Filling the engine's structure in.
    Bind,
    /// Making the engine ready for use.
    Init,
    /// Releasing what belongs to the engine.
    Destroy,
}

const FUNCTIONS: [Function; 9] = [
    Function::LoadPrivkey,
    Function::LoadPubkey,
    Function::PkeyMeths,
    Function::EcSign,
    Function::RsaPrivEnc,
    Function::RsaPrivDec,
    Function::Bind,
    Function::Init,
    Function::Destroy,
];

impl Function {
    fn name(self) -> &'static CStr {
        match self {
            Self::LoadPrivkey => c"aziot_key_engine_load_privkey",
            Self::LoadPubkey => c"aziot_key_engine_load_pubkey",
            Self::PkeyMeths => c"aziot_key_engine_pkey_meths",
            Self::EcSign => c"aziot_key_ec_sign",
            Self::RsaPrivEnc => c"aziot_key_rsa_priv_enc",
            Self::RsaPrivDec => c"aziot_key_rsa_priv_dec",
            Self::Bind => c"aziot_key_engine_shared_bind",
            Self::Init => c"aziot_key_engine_shared_init",
            Self::Destroy => c"aziot_key_engine_shared_destroy",
        }
    }

    /// Its number in OpenSSL 1.1, where errors have one for the function.
    fn number(self) -> c_int {
        100 + self as c_int
    }

    fn library(self) -> &'static Library {
        match self {
            Self::Bind | Self::Init | Self::Destroy => {
                static SHARED: OnceLock<Library> = OnceLock::new();
                SHARED.get_or_init(|| Library::new(c"aziot_key_openssl_engine_shared"))
            }
            _ => {
                static ENGINE: OnceLock<Library> = OnceLock::new();
                ENGINE.get_or_init(|| Library::new(c"aziot_key_openssl_engine"))
            }
        }
    }
}

/// Puts an entry on the queue of this thread.
pub fn raise(function: Function, cause: impl Display) {
    let number = function.library().number;
    // Texts come from answers of a service, which can contain anything.
    let text = CString::new(cause.to_string().replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: all strings are NUL-terminated. Those of the first calls live for ever, and the data is copied. It is not passed
    // as a formatted message, of which there would be nothing left if it had more than 1023 bytes.
    unsafe {
        #[cfg(ossl300)]
        {
            ffi::ERR_new();
            ffi::ERR_set_debug(c"aziot_keys".as_ptr(), 0, function.name().as_ptr());
            ffi::ERR_set_error(number, REASON, ptr::null());
        }
        #[cfg(not(ossl300))]
        ffi::ERR_put_error(number, function.number(), REASON, c"aziot_keys".as_ptr(), 0);
        sys::ERR_add_error_data(1, text.as_ptr());
    }
}

/// Puts an entry for what could not be done on the queue of this thread, and one for the reason.
pub fn raise_key(function: Function, error: &aziot_keys_remote::Error) {
    raise(function, error.summary());
    raise(function, error.reason());
}

/// The reason of all errors.
const REASON: c_int = 1;

/// A library that reports errors.
struct Library {
    /// Its number, which OpenSSL gives.
    number: c_int,
    /// Refers to OpenSSL's table of texts, which refers to this for as long as the process runs.
    _strings: &'static [ERR_STRING_DATA],
}

// SAFETY: the strings are constants.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    fn new(name: &'static CStr) -> Self {
        // SAFETY: takes nothing, and gives a number.
        let number = unsafe { ffi::ERR_get_next_error_library() };
        let entry = |error: c_ulong, string: &'static CStr| ERR_STRING_DATA {
            error,
            string: string.as_ptr(),
        };
        let mut strings = vec![
            entry(sys::err_pack(number, 0, 0), name),
            entry(sys::err_pack(number, 0, REASON), c""),
        ];
        if cfg!(not(ossl300)) {
            for function in FUNCTIONS {
                let code = sys::err_pack(number, function.number(), 0);
                strings.push(entry(code, function.name()));
            }
        }
        strings.push(ERR_STRING_DATA {
            error: 0,
            string: ptr::null(),
        });
        let strings: &'static [ERR_STRING_DATA] = strings.leak();
        // SAFETY: the list lives for ever, and ends as it should.
        unsafe { sys::ERR_load_strings_const(strings.as_ptr()) };
        Self {
            number,
            _strings: strings,
        }
    }
}
