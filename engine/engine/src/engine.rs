//! The engine as libcrypto sees it: its identity and its hooks.

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use aziot_keys_client::{Client, KeyHandle, default_socket};
use aziot_keys_remote::RemoteKey;
use aziot_keys_remote::uri::{Half, KeyName, KeyUri, SCHEME, UriError};
use openssl_sys as ffi;

use crate::error::{Function, raise, raise_key};
use crate::ex_data::{Full, Slot};
use crate::key::{NotMade, Pkey};
use crate::sys::{self, ENGINE, EVP_PKEY, EVP_PKEY_METHOD, UI_METHOD, dynamic_fns};
use crate::{ec, rsa};

/// What `ENGINE_get_id` gives. The name that it is loaded by is another: that of its file.
pub const ID: &CStr = c"aziot-key-openssl-engine";

/// The name of the installed file without its suffix, by which programs look for the engine.
const FILE_NAME: &CStr = c"aziot_keys";

/// What `ENGINE_get_name` gives.
pub const NAME: &CStr = c"An openssl engine that talks to the Azure IoT Keys Service";

/// The types of keys.
static NIDS: [c_int; 2] = [ffi::EVP_PKEY_EC, ffi::EVP_PKEY_RSA];

/// The client that an engine loads keys with. Released in the destroy hook; libcrypto could unload the engine before it calls
/// back for its ex data.
// SAFETY: the class is that of `ENGINE`, and so are the functions.
static CLIENTS: Slot<ENGINE, Client> = unsafe {
    Slot::new(
        sys::CRYPTO_EX_INDEX_ENGINE,
        false,
        sys::ENGINE_get_ex_data,
        sys::ENGINE_set_ex_data,
    )
};

/// Fills the structure of an engine in. 1, or 0 with the reason on the error queue.
///
/// # Safety
///
/// `engine` is NULL, or a structure that nobody else uses. `functions` is NULL, or says how the libcrypto that loads the
/// engine manages memory.
pub unsafe fn bind(engine: *mut ENGINE, functions: *const dynamic_fns) -> c_int {
    // SAFETY: NULL, or alive (caller).
    let Some(functions) = (unsafe { functions.as_ref() }) else {
        return 0;
    };
    if engine.is_null() {
        return 0;
    }
    // SAFETY: the engine is alive, strings are NUL-terminated, and the hooks are what they should be and live for ever: the
    // shared object stays loaded.
    unsafe {
        // A program with a libcrypto of its own, beside the one that this uses: both have to manage memory in the same way,
        // and its end is the program's to decide.
        if sys::ENGINE_get_static_state() != functions.static_state {
            let memory = &functions.mem_fns;
            sys::CRYPTO_set_mem_functions(memory.malloc_fn, memory.realloc_fn, memory.free_fn);
            sys::OPENSSL_init_crypto(ffi::OPENSSL_INIT_NO_ATEXIT, ptr::null());
        }
        if let Err(full) = register() {
            raise(Function::Bind, full);
            return 0;
        }
        if !fill_in(engine, ID) {
            raise(
                Function::Bind,
                "libcrypto did not take a part of the engine",
            );
            return 0;
        }
    }
    add_by_file_name();
    1
}

/// The version of the interface between libcrypto and engines, for a libcrypto with version `theirs`; 0 if they do not fit.
#[must_use]
pub fn check_version(theirs: c_ulong) -> c_ulong {
    if theirs >= sys::OSSL_DYNAMIC_OLDEST {
        sys::OSSL_DYNAMIC_VERSION
    } else {
        0
    }
}

/// Whether libcrypto took everything.
///
/// # Safety
///
/// The engine is alive, and nobody else uses it.
unsafe fn fill_in(engine: *mut ENGINE, id: &'static CStr) -> bool {
    // SAFETY: the engine is alive (caller), strings are NUL-terminated, and the hooks are what they should be. All live for
    // ever: the shared object stays loaded.
    unsafe {
        sys::ENGINE_set_id(engine, id.as_ptr()) == 1
            && sys::ENGINE_set_name(engine, NAME.as_ptr()) == 1
            && sys::ENGINE_set_flags(engine, sys::ENGINE_FLAGS_BY_ID_COPY) == 1
            && sys::ENGINE_set_init_function(engine, init) == 1
            && sys::ENGINE_set_destroy_function(engine, destroy) == 1
            && sys::ENGINE_set_load_privkey_function(engine, load_privkey) == 1
            && sys::ENGINE_set_load_pubkey_function(engine, load_pubkey) == 1
            && sys::ENGINE_set_pkey_meths(engine, pkey_meths) == 1
    }
}

/// Adds the engine to libcrypto's list under the name of its file, too.
///
/// A program that looks for `aziot_keys` again, for a second key for example, would have it loaded again: the list has it as
/// [`ID`]. But since 1.1.1m and 3.0.1 libcrypto refuses to load an engine that is loaded already.
fn add_by_file_name() {
    // SAFETY: the engine is ours until the list has it, and then the list's. No lock on engines is held in `bind`. If it is
    // in the list already, that is as well, and no error that anybody should see.
    unsafe {
        sys::ERR_set_mark();
        let engine = sys::ENGINE_new();
        if !engine.is_null() {
            if fill_in(engine, FILE_NAME) {
                sys::ENGINE_add(engine);
            }
            sys::ENGINE_free(engine);
        }
        sys::ERR_pop_to_mark();
    }
}

fn register() -> Result<(), Full> {
    CLIENTS.register()?;
    ec::register()?;
    rsa::register()
}

/// Makes the engine ready for use. Nothing is connected.
unsafe extern "C" fn init(engine: *mut ENGINE) -> c_int {
    // SAFETY: libcrypto passes an engine that is alive, and holds its lock on engines.
    unsafe {
        // It has been in use before.
        if CLIENTS.get(engine).is_some() {
            return 1;
        }
        let socket = match default_socket() {
            Ok(socket) => socket,
            Err(error) => {
                raise(Function::Init, error);
                return 0;
            }
        };
        match CLIENTS.set(engine, Arc::new(Client::new(socket))) {
            Ok(()) => 1,
            Err(full) => {
                raise(Function::Init, full);
                0
            }
        }
    }
}

/// Releases what belongs to the engine. There is nothing if it has never been in use.
unsafe extern "C" fn destroy(engine: *mut ENGINE) -> c_int {
    // SAFETY: libcrypto passes an engine that is alive and nobody else uses.
    drop(unsafe { CLIENTS.take(engine) });
    1
}

unsafe extern "C" fn load_privkey(
    engine: *mut ENGINE,
    key_id: *const c_char,
    _ui: *mut UI_METHOD,
    _callback_data: *mut c_void,
) -> *mut EVP_PKEY {
    // SAFETY: the same arguments.
    let pkey = unsafe { load(engine, key_id, Half::Private) }.and_then(|key| {
        let pkey = Pkey::private(key)?;
        // SAFETY: both are alive.
        if unsafe { sys::EVP_PKEY_set1_engine(pkey.as_ptr(), engine) } != 1 {
            return Err(Failure::Engine);
        }
        Ok(pkey)
    });
    given(Function::LoadPrivkey, pkey)
}

unsafe extern "C" fn load_pubkey(
    engine: *mut ENGINE,
    key_id: *const c_char,
    _ui: *mut UI_METHOD,
    _callback_data: *mut c_void,
) -> *mut EVP_PKEY {
    // SAFETY: the same arguments.
    let pkey = unsafe { load(engine, key_id, Half::Public) }
        .and_then(|key| Ok(Pkey::public(key.public())?));
    given(Function::LoadPubkey, pkey)
}

/// Says what types of keys there are, or how keys of one type are used: as OpenSSL uses them, because it is the methods of
/// the keys that differ. Without this hook keys could not be tied to the engine (`EVP_PKEY_set1_engine`).
unsafe extern "C" fn pkey_meths(
    _engine: *mut ENGINE,
    method: *mut *const EVP_PKEY_METHOD,
    nids: *mut *const c_int,
    nid: c_int,
) -> c_int {
    // SAFETY: libcrypto passes NULL, or where the answer is to be written.
    unsafe {
        if let Some(method) = method.as_mut() {
            let found = NIDS.contains(&nid).then(|| own_method(nid)).flatten();
            *method = found.unwrap_or(ptr::null());
            if found.is_none() {
                let text =
                    format!("keys of type {nid} are not supported; only EC and RSA keys are");
                raise(Function::PkeyMeths, text);
            }
            return c_int::from(found.is_some());
        }
        if let Some(nids) = nids.as_mut() {
            *nids = NIDS.as_ptr();
        }
    }
    const COUNT: c_int = NIDS.len() as c_int;
    COUNT
}

/// OpenSSL's own method for a type of keys. Not whatever a program may have put in front of it: libcrypto frees what was
/// made by programs together with the engine.
fn own_method(nid: c_int) -> Option<*const EVP_PKEY_METHOD> {
    for index in 0.. {
        // SAFETY: takes any number. Methods live for ever; NULL is behind the last one.
        let method = unsafe { sys::EVP_PKEY_meth_get0(index) };
        if method.is_null() {
            break;
        }
        let mut kind = 0;
        // SAFETY: the method is alive, and both results may be left out.
        unsafe { sys::EVP_PKEY_meth_get0_info(&raw mut kind, ptr::null_mut(), method) };
        if kind == nid {
            return Some(method);
        }
    }
    None
}

/// Why a key could not be loaded.
enum Failure {
    /// There is no key id.
    NoKeyId,
    /// The key id is not text.
    KeyIdText,
    /// It is not a URI.
    Uri(UriError),
    /// It is the URI of a public key.
    PublicOnly,
    /// The engine has no client.
    NotInitialised,
    /// The Keys Service did not give it.
    Key(aziot_keys_remote::Error),
    /// Libcrypto did not take it.
    Make(NotMade),
    /// Libcrypto did not tie it to the engine.
    Engine,
}

impl From<NotMade> for Failure {
    fn from(error: NotMade) -> Self {
        Self::Make(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeyId => f.write_str(
                "the key id is missing; give the handle of a key pair, as the Keys Service has issued it, or a URI like \
                 aziot-keys:id=…",
            ),
            Self::KeyIdText => f.write_str("the key id is not UTF-8"),
            Self::Uri(error) => error.fmt(f),
            Self::PublicOnly => f.write_str(
                "the URI is of a public key, where a private key is wanted; leave `type=public` out",
            ),
            Self::NotInitialised => f.write_str("the engine is not initialised"),
            Self::Key(error) => error.fmt(f),
            Self::Make(error) => error.fmt(f),
            Self::Engine => f.write_str("libcrypto could not tie the key to the engine"),
        }
    }
}

/// Loads the key pair with this id, a half of which is wanted.
///
/// # Safety
///
/// The engine is alive, and the id is NULL or NUL-terminated.
unsafe fn load(
    engine: *mut ENGINE,
    key_id: *const c_char,
    wanted: Half,
) -> Result<RemoteKey, Failure> {
    if key_id.is_null() {
        return Err(Failure::NoKeyId);
    }
    // SAFETY: NUL-terminated (caller).
    let key_id = unsafe { CStr::from_ptr(key_id) };
    let key_id = key_id.to_str().map_err(|_| Failure::KeyIdText)?;
    if key_id.is_empty() {
        return Err(Failure::NoKeyId);
    }
    // SAFETY: the engine is alive (caller), and in use, so that it keeps its client.
    let client = unsafe { CLIENTS.get(engine) }.ok_or(Failure::NotInitialised)?;
    // No handle has a colon there.
    let loaded = if key_id
        .get(..SCHEME.len())
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    {
        let uri = KeyUri::parse(key_id).map_err(Failure::Uri)?;
        if uri.half == Some(Half::Public) && wanted == Half::Private {
            return Err(Failure::PublicOnly);
        }
        match uri.name {
            KeyName::Handle(handle) => RemoteKey::load(client, KeyHandle::new(handle.as_str())),
            KeyName::Id(id) => RemoteKey::load_by_id(client, &id),
        }
    } else {
        RemoteKey::load(client, KeyHandle::new(key_id))
    };
    loaded.map_err(Failure::Key)
}

/// The key, or NULL with the reason on the error queue.
fn given(function: Function, pkey: Result<Pkey, Failure>) -> *mut EVP_PKEY {
    match pkey {
        Ok(pkey) => return pkey.into_raw(),
        Err(Failure::Key(error)) => raise_key(function, &error),
        Err(failure) => raise(function, failure),
    }
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(check_version(0x0002_ffff), 0);
        assert_eq!(check_version(0x0003_0000), 0x0003_0000);
        assert_eq!(check_version(0x0004_0000), 0x0003_0000);
    }

    #[test]
    fn nothing_to_bind() {
        let functions = dynamic_fns {
            // SAFETY: takes nothing.
            static_state: unsafe { sys::ENGINE_get_static_state() },
            mem_fns: sys::dynamic_MEM_fns {
                malloc_fn: None,
                realloc_fn: None,
                free_fn: None,
            },
        };
        // SAFETY: NULL is allowed for both.
        unsafe {
            assert_eq!(bind(ptr::null_mut(), &raw const functions), 0);
            let engine = sys::ENGINE_new();
            assert_eq!(bind(engine, ptr::null()), 0);
            assert_eq!(bind(engine, &raw const functions), 1);
            assert_eq!(sys::ENGINE_free(engine), 1);
        }
    }

    #[test]
    fn own_methods() {
        for nid in NIDS {
            assert!(own_method(nid).is_some(), "{nid}");
        }
        assert!(own_method(-1).is_none());
    }
}
