//! The provider built into a program, without a shared object, a configuration, or any other file.

use std::ffi::{CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use aziot_keys_client::KeyHandle;
use zeroize::Zeroizing;

use crate::error::newest;
use crate::evp::{LibCtx, Pkey};
use crate::params;
use crate::provider::{NAME, init};
use crate::store::SOCKET;
use crate::sys::{self, EVP_PKEY};
use crate::uri;

/// Why a key could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The path of the socket is not UTF-8, or contains a NUL.
    Socket(PathBuf),
    /// The provider could not be set up, for this reason.
    Setup(String),
    /// The key could not be loaded, for this reason.
    Load(String),
}

/// A private key. Its private half stays in the Keys Service.
pub struct PrivateKey(Pkey);

/// Loads the private key with this handle from the Keys Service with this socket: three exchanges.
///
/// It comes out of a library context that has only this provider and `default` in it, is made when first needed, and is never
/// freed. So nothing changes for anything else that the program does with OpenSSL, and the key works in any context and for as
/// long as the program runs: libcrypto follows a key to its provider.
///
/// # Errors
///
/// Any [`Error`].
pub fn private_key(socket: &Path, handle: &KeyHandle) -> Result<PrivateKey, Error> {
    let ctx = context()?;
    let socket = socket
        .to_str()
        .and_then(|socket| CString::new(socket).ok())
        .ok_or_else(|| Error::Socket(socket.to_owned()))?;
    let mut uri = Zeroizing::new(Vec::from(uri::of_handle(handle.as_str()).as_bytes()));
    uri.push(0);
    let list = [params::text(SOCKET, &socket), params::END];
    // SAFETY: the context is alive, strings end with NUL, and the list ends as it should.
    let store = unsafe {
        sys::OSSL_STORE_open_ex(
            uri.as_ptr().cast::<c_char>(),
            ctx.as_ptr(),
            c"provider=aziot_keys".as_ptr(),
            ptr::null(),
            ptr::null_mut(),
            list.as_ptr(),
            ptr::null(),
            ptr::null_mut(),
        )
    };
    if store.is_null() {
        return Err(Error::Load(reason()));
    }
    // SAFETY: the store is ours until it is closed, what it gives is ours until it is freed, and the reference to the key is
    // ours too.
    let key = unsafe {
        let info = sys::OSSL_STORE_load(store);
        let key = if info.is_null() {
            ptr::null_mut()
        } else {
            sys::OSSL_STORE_INFO_get1_PKEY(info)
        };
        sys::OSSL_STORE_INFO_free(info);
        Pkey::from_ptr(key)
    };
    let key = key.map(PrivateKey).ok_or_else(|| Error::Load(reason()));
    // SAFETY: it is ours, and closed once.
    unsafe { sys::OSSL_STORE_close(store) };
    key
}

/// The library context that keys come from. If it could not be made the first time, it cannot be made later.
fn context() -> Result<&'static LibCtx, Error> {
    static CONTEXT: OnceLock<Result<LibCtx, String>> = OnceLock::new();
    CONTEXT
        .get_or_init(|| set_up().ok_or_else(reason))
        .as_ref()
        .map_err(|reason| Error::Setup(reason.clone()))
}

fn set_up() -> Option<LibCtx> {
    // SAFETY: the context is our own, strings end with NUL, and the function is what it should be. Providers are unloaded with
    // the context. `default` is first: what is asked for without naming a provider goes to the first that knows it.
    unsafe {
        let ctx = LibCtx::from_ptr(sys::OSSL_LIB_CTX_new())?;
        let ready = !sys::OSSL_PROVIDER_load(ctx.as_ptr(), c"default".as_ptr()).is_null()
            && sys::OSSL_PROVIDER_add_builtin(ctx.as_ptr(), NAME.as_ptr(), init) == 1
            && !sys::OSSL_PROVIDER_load(ctx.as_ptr(), NAME.as_ptr()).is_null();
        ready.then_some(ctx)
    }
}

impl PrivateKey {
    /// The reference to the key, which is the caller's to free.
    #[must_use]
    pub fn into_raw(self) -> *mut EVP_PKEY {
        self.0.into_ptr()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(
                f,
                "the socket of the Keys Service, {path:?}, cannot be passed to OpenSSL: use a path in UTF-8"
            ),
            Self::Setup(reason) => {
                write!(
                    f,
                    "could not set up OpenSSL for keys of the Keys Service: {reason}"
                )
            }
            Self::Load(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

/// What the newest error of this thread says. The queue is emptied, as whoever asked gets the text.
fn reason() -> String {
    let reason = newest().unwrap_or_else(|| "OpenSSL gives no reason".to_owned());
    // SAFETY: empties the queue of this thread.
    unsafe { openssl_sys::ERR_clear_error() };
    reason
}
