//! What can go wrong with a key.

use core::fmt;
use std::io;
use std::path::PathBuf;

use aziot_core::id::NameTooLong;

use super::MAX_KEY_LEN;
use crate::file;

/// Why a key could not be made, stored, found, used or deleted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file of the key has no content.
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An import of no bytes.
    EmptyImport,
    /// The file could not be read, written, renamed or removed.
    File(file::Error),
    /// The file holds PEM text: a key pair.
    KeyPair {
        /// The file.
        path: PathBuf,
    },
    /// The id is too long for the name of a file.
    NameTooLong(NameTooLong),
    /// The id has no location of its own, and there is no home directory.
    NoLocation,
    /// There is no such key.
    NotFound {
        /// The file that would hold it.
        path: PathBuf,
    },
    /// An import of PEM text.
    PemImport,
    /// The location of the key is a PKCS#11 token.
    Pkcs11Unsupported,
    /// The kernel gave no random numbers.
    Random(io::Error),
    /// The file system could not say whether the file exists.
    Stat {
        /// The file.
        path: PathBuf,
        /// The cause.
        err: io::Error,
    },
    /// An import of more than [`MAX_KEY_LEN`] bytes.
    TooLong,
    /// The key was written, and then somebody else removed it.
    Vanished {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// Whether the caller asked for the wrong thing, as opposed to something being broken: an unknown key, a key of
    /// the other kind, or bytes that cannot be a key.
    #[must_use]
    pub fn is_invalid_parameter(&self) -> bool {
        match self {
            Self::EmptyImport
            | Self::KeyPair { .. }
            | Self::NoLocation
            | Self::NotFound { .. }
            | Self::PemImport
            | Self::Pkcs11Unsupported
            | Self::TooLong => true,
            Self::Empty { .. }
            | Self::File(_)
            | Self::NameTooLong(_)
            | Self::Random(_)
            | Self::Stat { .. }
            | Self::Vanished { .. } => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { path } => {
                write!(f, "key file is empty: {}; delete it, or import or create the key anew", path.display())
            }
            Self::EmptyImport => f.write_str("a key must have at least one byte"),
            Self::File(err) => err.fmt(f),
            Self::KeyPair { path } => {
                write!(f, "{} holds PEM text (a key pair), not a symmetric key", path.display())
            }
            Self::NoLocation => {
                f.write_str("no way to create keys: neither homedir_path nor a location for this key is configured")
            }
            Self::NotFound { path } => write!(f, "not found: there is no {}", path.display()),
            Self::PemImport => f.write_str("the bytes are PEM text, which cannot be a symmetric key"),
            Self::NameTooLong(err) => err.fmt(f),
            Self::Pkcs11Unsupported => f.write_str("the key is in a PKCS#11 token, which this build does not support"),
            Self::Random(err) => write!(f, "could not get random numbers from the kernel: {err}"),
            Self::Stat { path, err } => write!(f, "could not examine {}: {err}", path.display()),
            Self::TooLong => write!(f, "a key can have at most {MAX_KEY_LEN} bytes"),
            Self::Vanished { path } => write!(f, "{} disappeared after it was written", path.display()),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // The message of `File` is that of its cause already.
            Self::File(err) => err.source(),
            Self::Random(err) | Self::Stat { err, .. } => Some(err),
            _ => None,
        }
    }
}
