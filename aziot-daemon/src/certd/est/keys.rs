//! The key pairs of EST identities, in the Keys Service. Everything here blocks.

use std::fmt;

use aziot_crypto::x509::{Extensions, build_request};
use openssl::pkey::{PKey, Private};

use super::super::tools::Tools;
use crate::client::{KeyError, KeyHandle, KeysError, RemoteSigner, private_key};

/// What a new key pair is to be, first choice first.
const ALGORITHMS: &str = "ec-p256:rsa-4096:*";

/// Why a key pair could not be had, made, deleted or moved.
#[derive(Clone, Debug)]
pub enum Error {
    /// The Keys Service did not do it.
    Service(KeysError),
    /// OpenSSL could not load it.
    Load(KeyError),
    /// The Keys Service says that it has moved it, and it is not there.
    NotMoved,
}

impl Error {
    /// Whether the Keys Service refuses because of who asks.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(
            self,
            Self::Service(KeysError::Service {
                status: 401 | 403,
                ..
            })
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f)?,
            Self::Load(error) => error.fmt(f)?,
            Self::NotMoved => f.write_str(
                "the Keys Service has not moved it, although it said so; a key library of API version 2.1.0.0 or later \
                 is needed to rotate keys",
            )?,
        }
        if self.is_unauthorized() {
            f.write_str("; add the key to those of the user aziotcs in the configuration of the Keys Service")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<KeysError> for Error {
    fn from(error: KeysError) -> Self {
        Self::Service(error)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Load(error)
    }
}

fn handle(tools: &Tools, id: &str) -> Result<Option<KeyHandle>, Error> {
    match tools.keys.load_key_pair(id) {
        Ok(handle) => Ok(Some(handle)),
        // What the service answers if there is no such key pair.
        Err(KeysError::Service {
            status: 400 | 404, ..
        }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The key pair `id`, if there is one.
///
/// # Errors
/// See [`Error`].
pub fn load(tools: &Tools, id: &str) -> Result<Option<PKey<Private>>, Error> {
    match handle(tools, id)? {
        Some(handle) => Ok(Some(private_key(&tools.keys_socket, &handle)?)),
        None => Ok(None),
    }
}

/// Deletes the key pair `id`, if there is one.
///
/// # Errors
/// See [`Error`].
pub fn delete(tools: &Tools, id: &str) -> Result<(), Error> {
    match handle(tools, id)? {
        Some(handle) => Ok(tools.keys.delete_key_pair(&handle)?),
        None => Ok(()),
    }
}

/// Makes a key pair.
///
/// # Errors
/// See [`Error`].
pub fn create(tools: &Tools, id: &str) -> Result<PKey<Private>, Error> {
    let handle = tools.keys.create_key_pair(id, Some(ALGORITHMS))?;
    Ok(private_key(&tools.keys_socket, &handle)?)
}

/// A request for a client certificate (certificates-service 7.2): the subject, the public key of the key pair `id`, and
/// extendedKeyUsage, signed with SHA-256, or SHA-384 if the key is on the curve P-384. DER, as the subject is.
///
/// # Errors
/// The Keys Service did not sign, for this reason.
pub fn request(tools: &Tools, subject: &[u8], id: &str) -> Result<Vec<u8>, String> {
    /// Room for what is neither subject nor key nor signature.
    const ROOM: usize = 256;
    let signer = RemoteSigner::load_by_id(&tools.keys, id).map_err(|error| error.to_string())?;
    let key = signer.public_key();
    let mut room = vec![0; ROOM + subject.len() + key.len() + signer.max_size()];
    build_request(subject, key, Extensions::CLIENT_AUTH, &signer, &mut room)
        .map(<[u8]>::to_vec)
        .map_err(|error| error.to_string())
}
