//! The provider built into a program, without a shared object, a configuration, or any other file.

use std::ffi::{CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;

use aziot_keys_client::KeyHandle;
use zeroize::Zeroizing;

use crate::error::newest;
use crate::evp::{LibCtx, Pkey};
use crate::params;
use crate::provider::{NAME, init};
use crate::store::SOCKET;
use crate::sys::{self, EVP_PKEY, OSSL_PROVIDER};
use crate::uri;

/// Loads private keys that stay in the Keys Service.
///
/// They come out of a library context of their own, with this provider and `default` in it. So nothing changes for anything
/// else that the program does with OpenSSL, and the keys work in any context: libcrypto follows a key to its provider.
pub struct Keys {
    socket: PathBuf,
    /// Both dropped before the context they are in.
    _providers: [Loaded; 2],
    ctx: LibCtx,
}

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

impl Keys {
    /// Sets the provider up for the Keys Service with this socket. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], if memory is short or OpenSSL lacks the `default` provider.
    pub fn new(socket: &Path) -> Result<Self, Error> {
        let setup = || Error::Setup(reason());
        // SAFETY: gives an object of our own, or NULL.
        let ctx = unsafe { LibCtx::from_ptr(sys::OSSL_LIB_CTX_new()) }.ok_or_else(setup)?;
        // `default` first: what is asked for without naming a provider goes to the first that knows it.
        let default = Loaded::load(&ctx, c"default").ok_or_else(setup)?;
        // SAFETY: the context is alive, and the function is what it should be.
        if unsafe { sys::OSSL_PROVIDER_add_builtin(ctx.as_ptr(), NAME.as_ptr(), init) } != 1 {
            return Err(setup());
        }
        let own = Loaded::load(&ctx, NAME).ok_or_else(setup)?;
        Ok(Self {
            socket: socket.to_owned(),
            _providers: [own, default],
            ctx,
        })
    }

    /// Loads the key with this handle: three exchanges with the service.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Socket`].
    pub fn private_key(&self, handle: &KeyHandle) -> Result<PrivateKey, Error> {
        let socket = self
            .socket
            .to_str()
            .and_then(|socket| CString::new(socket).ok())
            .ok_or_else(|| Error::Socket(self.socket.clone()))?;
        let mut uri = Zeroizing::new(Vec::from(uri::of_handle(handle.as_str()).as_bytes()));
        uri.push(0);
        let list = [params::text(SOCKET, &socket), params::END];
        // SAFETY: the context is alive, strings end with NUL, and the list ends as it should.
        let store = unsafe {
            sys::OSSL_STORE_open_ex(
                uri.as_ptr().cast::<c_char>(),
                self.ctx.as_ptr(),
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
        // SAFETY: the store is ours until it is closed, what it gives is ours until it is freed, and the reference to the
        // key is ours too.
        let key = unsafe {
            let info = sys::OSSL_STORE_load(store);
            let key = if info.is_null() {
                ptr::null_mut()
            } else {
                sys::OSSL_STORE_INFO_get1_PKEY(info)
            };
            sys::OSSL_STORE_INFO_free(info);
            sys::OSSL_STORE_close(store);
            Pkey::from_ptr(key)
        };
        key.map(PrivateKey).ok_or_else(|| Error::Load(reason()))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.socket)
    }
}

impl PrivateKey {
    /// The reference to the key, which is the caller's to free.
    #[must_use]
    pub fn into_raw(self) -> *mut EVP_PKEY {
        let key = self.0.as_ptr();
        std::mem::forget(self);
        key
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

/// A provider that is loaded.
struct Loaded(*mut OSSL_PROVIDER);

// SAFETY: providers may be used and unloaded by any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Loaded {
    fn load(ctx: &LibCtx, name: &std::ffi::CStr) -> Option<Self> {
        // SAFETY: the context is alive, and the name is NUL-terminated.
        let provider = unsafe { sys::OSSL_PROVIDER_load(ctx.as_ptr(), name.as_ptr()) };
        (!provider.is_null()).then_some(Self(provider))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: it was loaded, and is unloaded once.
        unsafe { sys::OSSL_PROVIDER_unload(self.0) };
    }
}

/// What the newest error of this thread says. The queue is emptied, as whoever asked gets the text.
fn reason() -> String {
    let reason = newest().unwrap_or_else(|| "OpenSSL gives no reason".to_owned());
    // SAFETY: empties the queue of this thread.
    unsafe { openssl_sys::ERR_clear_error() };
    reason
}
