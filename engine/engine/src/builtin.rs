//! Keys of the Keys Service in a program of this project, without an engine, a configuration, or any other file.

use std::fmt;
use std::path::Path;

use aziot_keys_client::{Client, KeyHandle};
use aziot_keys_remote::RemoteKey;
use openssl_sys::EVP_PKEY;

use crate::ex_data::Full;
use crate::key::{NotMade, Pkey};
use crate::{ec, rsa};

/// Loads private keys that stay in the Keys Service.
#[derive(Debug)]
pub struct Keys {
    client: Client,
}

/// Why a key could not be loaded.
#[derive(Clone, Debug)]
pub enum Error {
    /// Libcrypto could not be prepared; it may be short of memory.
    Setup,
    /// The Keys Service did not give the key.
    Load(aziot_keys_remote::Error),
    /// Libcrypto did not take it; it may be short of memory.
    Make,
}

/// A private key. Its private half stays in the Keys Service.
pub struct PrivateKey(Pkey);

impl Keys {
    /// Prepares for the Keys Service with this socket. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], if memory is short.
    pub fn new(socket: &Path) -> Result<Self, Error> {
        Self::with_client(Client::new(socket))
    }

    /// The same with a client that has deadlines of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`], if memory is short.
    pub fn with_client(client: Client) -> Result<Self, Error> {
        ec::register()
            .and_then(|()| rsa::register())
            .map_err(|Full| Error::Setup)?;
        Ok(Self { client })
    }

    /// Loads the key with this handle: three exchanges with the service.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Make`].
    pub fn private_key(&self, handle: &KeyHandle) -> Result<PrivateKey, Error> {
        let key = RemoteKey::load(&self.client, handle.clone()).map_err(Error::Load)?;
        Pkey::private(key)
            .map(PrivateKey)
            .map_err(|NotMade| Error::Make)
    }
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
            Self::Setup => Full.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Make => NotMade.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
