//! The provider as a whole: what it is called, where it asks, and what it offers.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, OnceLock};

use aziot_keys_client::{Client, default_socket};

use crate::capabilities;
use crate::cipher;
use crate::decoder;
use crate::dispatch::{self, END, NO_ALGORITHM, Table};
use crate::error::{Reason, raise};
use crate::evp::{Cipher, Keymgmt, LibCtx, Signature};
use crate::key::Type;
use crate::keymgmt;
use crate::params;
use crate::signature;
use crate::store;
use crate::sys::{self, OSSL_ALGORITHM, OSSL_CORE_HANDLE, OSSL_DISPATCH, OSSL_PARAM};

/// The name of the provider, of its shared object, and of the property `provider` of its algorithms.
pub const NAME: &CStr = c"aziot_keys";

/// What is asked of the core: the same on all of them.
const PROPERTIES: &CStr = c"provider=aziot_keys";

/// What is asked of the core for the decoder.
const DECODER_PROPERTIES: &CStr = c"provider=aziot_keys,input=pem";

/// The version of the provider.
const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// A provider in a library context of the application.
pub struct Provider {
    /// Where the Keys Service is, or why that is not known.
    socket: Result<PathBuf, String>,
    ec: Tables,
    rsa: Tables,
    cipher: OnceLock<Option<Cipher>>,
    /// Dropped after what was fetched from it.
    child: LibCtx,
}

/// What the other providers say of their algorithms for a type of key.
#[derive(Default)]
struct Tables {
    keymgmt: OnceLock<Option<Keymgmt>>,
    signature: OnceLock<Option<Signature>>,
}

impl Provider {
    /// The context of an operation, as C has it.
    ///
    /// # Safety
    ///
    /// `context` is what [`init`] has given, and the provider has not been torn down.
    pub unsafe fn share(context: *mut c_void) -> Arc<Self> {
        let context = context.cast_const().cast::<Self>();
        // SAFETY: it came out of `Arc::into_raw`, and the reference that the core has keeps it alive.
        unsafe {
            Arc::increment_strong_count(context);
            Arc::from_raw(context)
        }
    }

    /// As [`Provider::share`], for the time of a call.
    ///
    /// # Safety
    ///
    /// As [`Provider::share`].
    pub unsafe fn borrow<'c>(context: *mut c_void) -> &'c Self {
        // SAFETY: as above.
        unsafe { &*context.cast_const().cast::<Self>() }
    }

    /// The library context in which the other providers are.
    pub fn child(&self) -> &LibCtx {
        &self.child
    }

    /// The Keys Service, at the configured socket unless another is given.
    pub fn client(&self, socket: Option<&Path>) -> Result<Client, String> {
        match (socket, &self.socket) {
            (Some(socket), _) => Ok(Client::new(socket)),
            (None, Ok(socket)) => Ok(Client::new(socket)),
            (None, Err(reason)) => Err(reason.clone()),
        }
    }

    /// What keys of a type take and give.
    pub fn keymgmt(&self, key_type: Type) -> Option<&Keymgmt> {
        self.tables(key_type)
            .keymgmt
            .get_or_init(|| Keymgmt::fetch(&self.child, key_type.name()))
            .as_ref()
    }

    /// What signatures with a type of key take and give.
    pub fn signature(&self, key_type: Type) -> Option<&Signature> {
        self.tables(key_type)
            .signature
            .get_or_init(|| Signature::fetch(&self.child, key_type.signature_name()))
            .as_ref()
    }

    /// What encryption with RSA takes and gives.
    pub fn cipher(&self) -> Option<&Cipher> {
        self.cipher
            .get_or_init(|| Cipher::fetch(&self.child, Type::Rsa.name()))
            .as_ref()
    }

    fn tables(&self, key_type: Type) -> &Tables {
        match key_type {
            Type::Ec => &self.ec,
            Type::Rsa => &self.rsa,
        }
    }
}

/// What the core calls first: `OSSL_provider_init` (`openssl/core.h`).
///
/// The parameter `socket` of the configuration is the absolute path of the socket of the Keys Service. Without it, it is
/// `/run/aziot/keyd.sock`, under the directory that the variable `AZIOT_ROOT` names, if it is set.
///
/// # Safety
///
/// To be called by libcrypto only.
pub unsafe extern "C" fn init(
    handle: *const OSSL_CORE_HANDLE,
    functions: *const OSSL_DISPATCH,
    out: *mut *const OSSL_DISPATCH,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: both are what the core has given.
    let (socket, child) = unsafe {
        (
            configured_socket(handle, functions),
            LibCtx::from_ptr(sys::OSSL_LIB_CTX_new_child(handle, functions)),
        )
    };
    let Some(child) = child else {
        return 0;
    };
    let socket = match socket {
        Some(bytes) => absolute(&bytes),
        None => default_socket().map_err(|error| error.to_string()),
    };
    let provider = Arc::new(Provider {
        socket,
        ec: Tables::default(),
        rsa: Tables::default(),
        cipher: OnceLock::new(),
        child,
    });
    // SAFETY: the core gives room for both. It has a reference of its own until `teardown`.
    unsafe {
        *out = FUNCTIONS.as_ptr();
        *context = Arc::into_raw(provider).cast_mut().cast();
    }
    1
}

fn absolute(socket: &[u8]) -> Result<PathBuf, String> {
    let path = Path::new(OsStr::from_bytes(socket));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(format!(
        "the parameter `socket` of the provider aziot_keys is {path:?}, which is not an absolute path: correct it in \
         openssl.cnf"
    ))
}

/// The parameter `socket` of the section that configures the provider.
///
/// # Safety
///
/// Both are what the core has given to [`init`].
unsafe fn configured_socket(
    handle: *const OSSL_CORE_HANDLE,
    functions: *const OSSL_DISPATCH,
) -> Option<Vec<u8>> {
    type GetParams =
        unsafe extern "C" fn(handle: *const OSSL_CORE_HANDLE, params: *mut OSSL_PARAM) -> c_int;

    let mut at = functions;
    // SAFETY: the table ends with the id 0, and the function with this id has this type.
    let get_params: GetParams = unsafe {
        while (*at).function_id != sys::OSSL_FUNC_CORE_GET_PARAMS {
            if (*at).function_id == 0 {
                return None;
            }
            at = at.add(1);
        }
        if (*at).function.is_null() {
            return None;
        }
        std::mem::transmute::<*const c_void, GetParams>((*at).function)
    };
    let mut value: *const c_char = ptr::null();
    let mut list = [
        OSSL_PARAM {
            key: c"socket".as_ptr(),
            data_type: sys::OSSL_PARAM_UTF8_PTR,
            data: (&raw mut value).cast(),
            data_size: 0,
            return_size: sys::OSSL_PARAM_UNMODIFIED,
        },
        params::END,
    ];
    // SAFETY: the list ends as it should. What is returned belongs to the core and is copied.
    unsafe {
        if get_params(handle, list.as_mut_ptr()) != 1 || value.is_null() {
            return None;
        }
        Some(CStr::from_ptr(value).to_bytes().to_vec())
    }
}

static FUNCTIONS: Table<OSSL_DISPATCH, 6> = Table([
    dispatch::provider_teardown(teardown),
    dispatch::provider_gettable_params(gettable_params),
    dispatch::provider_get_params(get_params),
    dispatch::provider_query_operation(query_operation),
    dispatch::provider_get_capabilities(capabilities::answer),
    END,
]);

unsafe extern "C" fn teardown(context: *mut c_void) {
    // SAFETY: the reference that the core has had since `init`.
    drop(unsafe { Arc::from_raw(context.cast_const().cast::<Provider>()) });
}

unsafe extern "C" fn gettable_params(_context: *mut c_void) -> *const OSSL_PARAM {
    static PARAMS: Table<OSSL_PARAM, 5> = Table([
        params::described(c"name", sys::OSSL_PARAM_UTF8_PTR),
        params::described(c"version", sys::OSSL_PARAM_UTF8_PTR),
        params::described(c"buildinfo", sys::OSSL_PARAM_UTF8_PTR),
        params::described(c"status", sys::OSSL_PARAM_INTEGER),
        params::END,
    ]);
    PARAMS.as_ptr()
}

unsafe extern "C" fn get_params(_context: *mut c_void, list: *mut OSSL_PARAM) -> c_int {
    let texts = [
        (c"name", c"Key pairs of the Azure IoT Keys Service"),
        (c"version", VERSION),
        (c"buildinfo", VERSION),
    ];
    // SAFETY: the list ends as it should, and the texts are constants.
    unsafe {
        for (key, text) in texts {
            let param = sys::OSSL_PARAM_locate(list, key.as_ptr());
            if !param.is_null() && sys::OSSL_PARAM_set_utf8_ptr(param, text.as_ptr()) != 1 {
                return 0;
            }
        }
        let status = sys::OSSL_PARAM_locate(list, c"status".as_ptr());
        if !status.is_null() && sys::OSSL_PARAM_set_int(status, 1) != 1 {
            return 0;
        }
    }
    1
}

unsafe extern "C" fn query_operation(
    _context: *mut c_void,
    operation: c_int,
    no_store: *mut c_int,
) -> *const OSSL_ALGORITHM {
    // SAFETY: room for the answer.
    unsafe { *no_store = 0 };
    match operation {
        sys::OSSL_OP_KEYMGMT => KEY_MANAGEMENT.as_ptr(),
        sys::OSSL_OP_SIGNATURE => SIGNATURES.as_ptr(),
        sys::OSSL_OP_ASYM_CIPHER => CIPHERS.as_ptr(),
        sys::OSSL_OP_DECODER => DECODERS.as_ptr(),
        sys::OSSL_OP_STORE => STORES.as_ptr(),
        _ => ptr::null(),
    }
}

const fn algorithm(
    names: &'static CStr,
    implementation: *const OSSL_DISPATCH,
    description: &'static CStr,
) -> OSSL_ALGORITHM {
    with_properties(names, PROPERTIES, implementation, description)
}

const fn with_properties(
    names: &'static CStr,
    properties: &'static CStr,
    implementation: *const OSSL_DISPATCH,
    description: &'static CStr,
) -> OSSL_ALGORITHM {
    OSSL_ALGORITHM {
        algorithm_names: names.as_ptr(),
        property_definition: properties.as_ptr(),
        implementation,
        algorithm_description: description.as_ptr(),
    }
}

const EC_NAMES: &CStr = c"EC:id-ecPublicKey:1.2.840.10045.2.1";
const RSA_NAMES: &CStr = c"RSA:rsaEncryption:1.2.840.113549.1.1.1";

static KEY_MANAGEMENT: Table<OSSL_ALGORITHM, 3> = Table([
    algorithm(
        EC_NAMES,
        keymgmt::EC.as_ptr(),
        c"EC keys of the Keys Service",
    ),
    algorithm(
        RSA_NAMES,
        keymgmt::RSA.as_ptr(),
        c"RSA keys of the Keys Service",
    ),
    NO_ALGORITHM,
]);

static SIGNATURES: Table<OSSL_ALGORITHM, 3> = Table([
    algorithm(
        c"ECDSA",
        signature::ECDSA.as_ptr(),
        c"ECDSA in the Keys Service",
    ),
    algorithm(
        RSA_NAMES,
        signature::RSA.as_ptr(),
        c"RSA signatures in the Keys Service",
    ),
    NO_ALGORITHM,
]);

static CIPHERS: Table<OSSL_ALGORITHM, 2> = Table([
    algorithm(
        RSA_NAMES,
        cipher::RSA.as_ptr(),
        c"RSA decryption in the Keys Service",
    ),
    NO_ALGORITHM,
]);

/// A name in a file says nothing of the type of the key: libcrypto asks the one for the type that it looks for, or for any.
static DECODERS: Table<OSSL_ALGORITHM, 3> = Table([
    with_properties(
        EC_NAMES,
        DECODER_PROPERTIES,
        decoder::DECODER.as_ptr(),
        c"names of key pairs of the Keys Service in PEM",
    ),
    with_properties(
        RSA_NAMES,
        DECODER_PROPERTIES,
        decoder::DECODER.as_ptr(),
        c"names of key pairs of the Keys Service in PEM",
    ),
    NO_ALGORITHM,
]);

static STORES: Table<OSSL_ALGORITHM, 2> = Table([
    algorithm(
        c"aziot-keys",
        store::LOADER.as_ptr(),
        c"key pairs of the Keys Service",
    ),
    NO_ALGORITHM,
]);

/// Says that no other provider can do its part.
pub fn raise_alone(function: &CStr) {
    raise(
        function,
        Reason::Unsupported,
        "no other provider manages the public half of this key: load `default` beside `aziot_keys` (`-provider default`, \
         or its section in openssl.cnf with `activate = 1`)",
    );
}
