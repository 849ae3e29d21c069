//! Keys of the Keys Service in a program of this project, without an engine, a configuration, or any other file.

use std::fmt;
use std::path::{Path, PathBuf};

use aziot_keys_client::{Client, KeyHandle};
use aziot_keys_remote::RemoteKey;
use openssl_sys::EVP_PKEY;

use crate::ex_data::Full;
use crate::key::{NotMade, Pkey};
use crate::{ec, rsa};

/// Why a key could not be loaded.
#[derive(Clone, Debug)]
pub enum Error {
    /// The path of the socket is not absolute.
    Socket(PathBuf),
    /// Libcrypto could not be prepared; it may be short of memory.
    Setup,
    /// The Keys Service did not give the key.
    Load(aziot_keys_remote::Error),
    /// Libcrypto did not take it; it may be short of memory.
    Make,
}

/// A private key. Its private half stays in the Keys Service.
pub struct PrivateKey(Pkey);

/// The key pair with this handle, of the Keys Service with this socket: three exchanges with the service.
///
/// # Errors
///
/// Any [`Error`].
pub fn private_key(socket: &Path, handle: &KeyHandle) -> Result<PrivateKey, Error> {
    if !socket.is_absolute() {
        return Err(Error::Socket(socket.to_owned()));
    }
    private_key_with(&Client::new(socket), handle)
}

/// The same with a client that may have deadlines of its own. They also hold for the operations with the key.
///
/// # Errors
///
/// Any [`Error`].
pub fn private_key_with(client: &Client, handle: &KeyHandle) -> Result<PrivateKey, Error> {
    ec::register()
        .and_then(|()| rsa::register())
        .map_err(|Full| Error::Setup)?;
    let key = RemoteKey::load(client, handle.clone()).map_err(Error::Load)?;
    Pkey::private(key)
        .map(PrivateKey)
        .map_err(|NotMade| Error::Make)
}

impl PrivateKey {
    /// The reference to the key, which is the caller's to free.
    #[must_use]
    pub fn into_raw(self) -> *mut EVP_PKEY {
        self.0.into_raw()
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
                "the socket of the Keys Service, {path:?}, is not an absolute path: use one that is"
            ),
            Self::Setup => Full.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Make => NotMade.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
