//! Private keys for TLS that stay in the Keys Service: through the provider, and before OpenSSL 3.0 through the engine's methods.

use std::fmt;
use std::path::Path;

use aziot_keys_client::KeyHandle;
#[cfg(not(ossl300))]
use aziot_keys_engine::builtin;
#[cfg(ossl300)]
use aziot_keys_provider::builtin;
use foreign_types_shared::ForeignType as _;
use openssl::pkey::{PKey, Private};

/// Why a key could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// The key pair with this handle, of the Keys Service with this socket, as a key for OpenSSL. Loading it takes three
/// exchanges, each private operation one; both block, with the deadlines of [`KeysClient`](super::KeysClient).
///
/// # Errors
/// The key could not be loaded.
pub fn private_key(socket: &Path, handle: &KeyHandle) -> Result<PKey<Private>, KeyError> {
    // What libcrypto does on the first call, the openssl crate has to know of.
    openssl::init();
    let key = builtin::private_key(socket, handle).map_err(|error| KeyError(error.to_string()))?;
    #[allow(unsafe_code, reason = "taking a key over")]
    // SAFETY: the reference is ours to give away. It is a private key: it reports one, and makes signatures.
    Ok(unsafe { PKey::from_ptr(key.into_raw()) })
}
