//! The store loader (operation 22): from a URI to a key.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use aziot_keys_client::KeyHandle;
use aziot_keys_remote::RemoteKey;

use crate::dispatch::{self, END, Table};
use crate::error::{Reason, raise};
use crate::key::Key;
use crate::keymgmt;
use crate::params::{self, Given};
use crate::provider::{Provider, raise_alone};
use crate::sys::{
    self, OSSL_CALLBACK, OSSL_DISPATCH, OSSL_PARAM, OSSL_PASSPHRASE_CALLBACK, SELECT_PRIVATE_KEY,
};
use crate::uri::{Half, KeyName, KeyUri};

pub static LOADER: Table<OSSL_DISPATCH, 8> = Table([
    dispatch::store_open(open),
    dispatch::store_settable_ctx_params(settable_ctx_params),
    dispatch::store_set_ctx_params(set_ctx_params),
    dispatch::store_load(load),
    dispatch::store_eof(eof),
    dispatch::store_close(close),
    dispatch::store_export_object(export_object),
    END,
]);

/// A parameter of ours for `OSSL_STORE_open_ex`: the socket of the Keys Service, in place of the configured one.
pub const SOCKET: &CStr = c"socket";

/// A URI that was opened. It has one object, or none if the application expects something that is no key.
struct Loader {
    provider: Arc<Provider>,
    uri: KeyUri,
    socket: Option<PathBuf>,
    /// The kind of object that the application expects (`OSSL_STORE_INFO_…`); 0 for any.
    expected: c_int,
    /// A parameter that makes no sense, which is reported when something is to be loaded.
    wrong: Option<&'static str>,
    done: bool,
}

/// Parses the URI; nothing is asked yet.
unsafe extern "C" fn open(context: *mut c_void, uri: *const c_char) -> *mut c_void {
    if uri.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: libcrypto gives a string.
    let uri = unsafe { CStr::from_ptr(uri) };
    let uri = match uri.to_str().map(KeyUri::parse) {
        Ok(Ok(uri)) => uri,
        Ok(Err(error)) => {
            raise(c"store_open", Reason::Uri, error);
            return ptr::null_mut();
        }
        Err(_) => {
            raise(c"store_open", Reason::Uri, "the URI is not UTF-8");
            return ptr::null_mut();
        }
    };
    let loader = Loader {
        // SAFETY: the context of the provider.
        provider: unsafe { Provider::share(context) },
        uri,
        socket: None,
        expected: 0,
        wrong: None,
        done: false,
    };
    Box::into_raw(Box::new(loader)).cast()
}

unsafe extern "C" fn settable_ctx_params(_context: *mut c_void) -> *const OSSL_PARAM {
    static PARAMS: Table<OSSL_PARAM, 4> = Table([
        params::described(c"expect", sys::OSSL_PARAM_INTEGER),
        params::described(c"properties", sys::OSSL_PARAM_UTF8_STRING),
        params::described(SOCKET, sys::OSSL_PARAM_UTF8_STRING),
        params::END,
    ]);
    PARAMS.as_ptr()
}

/// Properties are accepted and have no effect: libcrypto has chosen this loader by them, and nothing else is fetched.
///
/// Always succeeds: `OSSL_STORE_open_ex` of OpenSSL 3.0 goes on with a loader that it has closed if a parameter is refused.
unsafe extern "C" fn set_ctx_params(loader: *mut c_void, list: *const OSSL_PARAM) -> c_int {
    // SAFETY: what `open` has given, which one thread uses at a time.
    let Some(loader) = (unsafe { loader.cast::<Loader>().as_mut() }) else {
        return 0;
    };
    // SAFETY: the list is NULL, or ends as it should.
    let given = unsafe { Given::new(list) };
    match given.int(c"expect") {
        Ok(Some(expected)) => loader.expected = expected,
        Ok(None) => {}
        Err(()) => loader.wrong = Some("the parameter `expect` is not a number"),
    }
    match given.text(SOCKET) {
        Ok(Some(socket)) if socket.starts_with('/') => loader.socket = Some(socket.into()),
        Ok(None) => {}
        Ok(Some(_)) | Err(()) => {
            loader.wrong = Some("the parameter `socket` is not an absolute path");
        }
    }
    1
}

impl Loader {
    /// Whether the private half is wanted. `None` if no key is.
    fn private(&self) -> Option<bool> {
        match (self.expected, self.uri.half) {
            (sys::OSSL_STORE_INFO_PUBKEY, _) => Some(false),
            (0 | sys::OSSL_STORE_INFO_PKEY, None | Some(Half::Private)) => Some(true),
            (0, Some(Half::Public)) => Some(false),
            // A private key is expected where only a public one is named, or no key at all.
            _ => None,
        }
    }

    fn load(&self, private: bool) -> Option<Key> {
        if let Some(wrong) = self.wrong {
            raise(c"store_load", Reason::Argument, wrong);
            return None;
        }
        let socket = self.socket.as_deref();
        load_key(
            &self.provider,
            socket,
            &self.uri.name,
            private,
            c"store_load",
        )
    }
}

/// Asks the Keys Service for a key. If that fails, the reason is on the queue, in the name of `function`.
pub fn load_key(
    provider: &Arc<Provider>,
    socket: Option<&Path>,
    name: &KeyName,
    private: bool,
    function: &CStr,
) -> Option<Key> {
    let remote = provider.client(socket).and_then(|client| {
        match name {
            KeyName::Handle(handle) => RemoteKey::load(&client, KeyHandle::new(handle.as_str())),
            KeyName::Id(id) => RemoteKey::load_by_id(&client, id),
        }
        .map_err(|error| error.to_string())
    });
    let remote = match remote {
        Ok(remote) => remote,
        Err(reason) => {
            raise(function, Reason::Load, reason);
            return None;
        }
    };
    let key = Key::of(Arc::clone(provider), remote, private);
    if key.is_none() {
        raise_alone(function);
    }
    key
}

unsafe extern "C" fn load(
    loader: *mut c_void,
    callback: OSSL_CALLBACK,
    arg: *mut c_void,
    _passphrase: Option<OSSL_PASSPHRASE_CALLBACK>,
    _passphrase_arg: *mut c_void,
) -> c_int {
    // SAFETY: what `open` has given, which one thread uses at a time.
    let Some(loader) = (unsafe { loader.cast::<Loader>().as_mut() }) else {
        return 0;
    };
    if std::mem::replace(&mut loader.done, true) {
        return 0;
    }
    let Some(private) = loader.private() else {
        return 0;
    };
    let Some(key) = loader.load(private) else {
        return 0;
    };
    // SAFETY: the callback and its argument belong together.
    unsafe { hand_over(key, callback, arg) }
}

/// Gives libcrypto a key, by a reference that key management takes it out of (`keymgmt_load`).
///
/// # Safety
///
/// The callback and its argument belong together.
pub unsafe fn hand_over(key: Key, callback: OSSL_CALLBACK, arg: *mut c_void) -> c_int {
    let data_type = key.key_type.name();
    let mut object_type = sys::OSSL_OBJECT_PKEY;
    let mut slot = keymgmt::into_raw(key);
    // SAFETY: the slot is as long as a pointer, and outlives the call; the rest is the caller's promise.
    unsafe {
        let reference =
            std::slice::from_raw_parts((&raw mut slot).cast::<u8>(), size_of::<*mut c_void>());
        let list = [
            params::int(c"type", &mut object_type),
            params::text(c"data-type", data_type),
            params::bytes(c"reference", reference),
            params::END,
        ];
        let ok = callback(list.as_ptr(), arg);
        // What was not taken.
        keymgmt::free(ptr::read_volatile(&raw const slot));
        ok
    }
}

unsafe extern "C" fn eof(loader: *mut c_void) -> c_int {
    // SAFETY: what `open` has given.
    unsafe { loader.cast::<Loader>().as_ref() }
        .is_none_or(|loader| loader.done || loader.private().is_none())
        .into()
}

unsafe extern "C" fn close(loader: *mut c_void) -> c_int {
    if !loader.is_null() {
        // SAFETY: what `open` has given.
        drop(unsafe { Box::from_raw(loader.cast::<Loader>()) });
    }
    1
}

/// Hands a public key to another provider. A private one stays here.
pub unsafe extern "C" fn export_object(
    _context: *mut c_void,
    reference: *const c_void,
    size: usize,
    callback: OSSL_CALLBACK,
    arg: *mut c_void,
) -> c_int {
    if reference.is_null() || size != size_of::<*mut c_void>() {
        return 0;
    }
    // SAFETY: the slot of `hand_over`, and the key in it.
    let key = unsafe { keymgmt::borrow(ptr::read_unaligned(reference.cast::<*const c_void>())) };
    let Some(key) = key.filter(|key| !key.has(SELECT_PRIVATE_KEY)) else {
        return 0;
    };
    let Some(software) = &key.software else {
        return 0;
    };
    // SAFETY: the key is alive; the callback and its argument belong together.
    unsafe { sys::EVP_PKEY_export(software.as_ptr(), key.parts, callback, arg) }
}
