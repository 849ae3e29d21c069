//! What can go wrong with a key.

use core::fmt;
use std::io;
use std::path::PathBuf;

use aziot_core::id::NameTooLong;

use super::MAX_KEY_LEN;
use crate::key_pair::Algorithm;
use crate::{file, openssl, pkcs11};

/// Why a key could not be made, stored, found, used, moved or deleted, or a setting not be taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// OpenSSL could not do it, or the key or an argument does not allow it.
    Crypto(openssl::Error),
    /// The file of the key has no content.
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An import of no bytes.
    EmptyImport,
    /// The file could not be read, written, renamed or removed.
    File(file::Error),
    /// The file holds PEM text, a key pair, where a symmetric key is asked for.
    KeyPair {
        /// The file.
        path: PathBuf,
    },
    /// A move that would lose a key, or that no store can do.
    Move(MoveError),
    /// The id is too long for the name of a file.
    NameTooLong(NameTooLong),
    /// No algorithm of the list is known.
    NoAlgorithm,
    /// The token generated a key pair for no algorithm of the list.
    NoAlgorithmSucceeded {
        /// The token and object.
        place: String,
        /// Why, in order; also in the log.
        causes: Vec<(Algorithm, pkcs11::Error)>,
    },
    /// The id has no location of its own, and there is neither a home directory nor a base slot.
    NoLocation,
    /// The location of the key is a token, and no PKCS#11 module is configured.
    NoModule,
    /// The location of the key is a token without the label of an object.
    NoObject {
        /// The location.
        place: String,
    },
    /// The token refused the key, and there is no other place for it.
    NoPlaceLeft(pkcs11::Error),
    /// The file does not hold a key pair that can be used.
    NotAPair {
        /// The file.
        path: PathBuf,
        /// Whether it is not even PEM text, and so may be a symmetric key.
        symmetric: bool,
        /// Why it cannot be used.
        err: openssl::Error,
    },
    /// There is no such key.
    NotFound {
        /// The places that would hold it.
        places: String,
    },
    /// An import of PEM text.
    PemImport,
    /// The kernel gave no random numbers.
    Random(io::Error),
    /// The token or its module failed, or does not allow it.
    Token(pkcs11::Error),
    /// An import of more than [`MAX_KEY_LEN`] bytes.
    TooLong,
    /// A setting that is not a `pkcs11:` URI.
    Uri(String),
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
            | Self::NoAlgorithm
            | Self::NoAlgorithmSucceeded { .. }
            | Self::NoLocation
            | Self::NoModule
            | Self::NoObject { .. }
            | Self::NotFound { .. }
            | Self::PemImport
            | Self::TooLong
            | Self::Uri(_) => true,
            Self::Crypto(err) => err.is_invalid_parameter(),
            Self::Move(err) => err.is_invalid_parameter(),
            Self::Token(err) => err.is_invalid_parameter(),
            Self::Empty { .. }
            | Self::File(_)
            | Self::NameTooLong(_)
            | Self::NoPlaceLeft(_)
            | Self::NotAPair { .. }
            | Self::Random(_)
            | Self::Vanished { .. } => false,
        }
    }

    /// Whether the place that was looked at holds a key, but of the kind that was not asked for.
    pub(super) fn is_other_kind(&self) -> bool {
        match self {
            Self::KeyPair { .. } => true,
            Self::NotAPair { symmetric, .. } => *symmetric,
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crypto(err) => err.fmt(f),
            Self::Empty { path } => {
                write!(f, "key file is empty: {}; delete it, or import or create the key anew", path.display())
            }
            Self::EmptyImport => f.write_str("a key must have at least one byte"),
            Self::File(err) => err.fmt(f),
            Self::KeyPair { path } => {
                write!(f, "{} holds PEM text (a key pair), not a symmetric key", path.display())
            }
            Self::Move(err) => err.fmt(f),
            Self::NameTooLong(err) => err.fmt(f),
            Self::NoAlgorithm => {
                f.write_str("no algorithm is known; there are ec-p256, ec-p384, rsa-2048, rsa-4096 and *")
            }
            Self::NoAlgorithmSucceeded { place, causes } => {
                write!(f, "no algorithm succeeded for {place}")?;
                causes.iter().try_for_each(|(algorithm, err)| write!(f, "; {}: {err}", algorithm.name()))
            }
            Self::NoLocation => f.write_str(
                "no way to create keys: neither homedir_path, nor pkcs11_lib_path and pkcs11_base_slot, nor a location for \
                 this key is configured",
            ),
            Self::NoModule => f.write_str("the location of the key is a PKCS#11 token, and pkcs11_lib_path is not configured"),
            Self::NoObject { place } => write!(
                f,
                "the location {place} has no object label; add object=LABEL to it so that it is known which key is meant"
            ),
            Self::NoPlaceLeft(err) => write!(f, "no valid location for symmetric key: {err}"),
            Self::NotAPair { path, symmetric: true, err } => write!(
                f,
                "{} holds no PEM private key but a symmetric key, or a key in another format: {err}. It is not \
                 overwritten; delete the key first if it is not needed",
                path.display()
            ),
            Self::NotAPair { path, err, .. } => {
                write!(f, "the key pair in {} cannot be used and is not overwritten: {err}", path.display())
            }
            Self::NotFound { places } => write!(f, "not found: there is no {places}"),
            Self::PemImport => f.write_str("the bytes are PEM text, which cannot be a symmetric key"),
            Self::Random(err) => write!(f, "could not get random numbers from the kernel: {err}"),
            Self::Token(err) => err.fmt(f),
            Self::TooLong => write!(f, "a key can have at most {MAX_KEY_LEN} bytes"),
            Self::Uri(reason) => f.write_str(reason),
            Self::Vanished { path } => write!(f, "{} disappeared after it was written", path.display()),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // The messages of these are those of their causes already.
            Self::Crypto(err) => err.source(),
            Self::File(err) => err.source(),
            Self::Token(err) | Self::NoPlaceLeft(err) => err.source(),
            Self::NotAPair { err, .. } => Some(err),
            Self::Random(err) => Some(err),
            _ => None,
        }
    }
}

/// Why a key pair cannot be moved. Nothing has been changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum MoveError {
    /// One of the places is a file and the other a token.
    BetweenStores {
        /// Where the key is.
        from: String,
        /// Where it would have to be.
        to: String,
    },
    /// The places are in different tokens.
    BetweenTokens {
        /// Where the key is.
        from: String,
        /// Where it would have to be.
        to: String,
    },
    /// The source is a relative symbolic link, which would lead elsewhere from another directory.
    Link {
        /// The link.
        path: PathBuf,
    },
    /// There is a key of the other kind where the key would have to be.
    OtherKind {
        /// That place.
        to: String,
    },
    /// There is no key to move.
    SourceMissing {
        /// The places that would hold it.
        places: String,
    },
}

impl MoveError {
    fn is_invalid_parameter(&self) -> bool {
        match self {
            Self::BetweenStores { .. } | Self::BetweenTokens { .. } | Self::OtherKind { .. } => {
                true
            }
            // Earlier releases report it as a failure of the store, and callers look at that.
            Self::SourceMissing { .. } => false,
            Self::Link { .. } => false,
        }
    }
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BetweenStores { from, to } => {
                write!(
                    f,
                    "a key cannot be moved between a file and a token: from {from} to {to}"
                )
            }
            Self::BetweenTokens { from, to } => {
                write!(
                    f,
                    "a key cannot be moved to another token: from {from} to {to}"
                )
            }
            Self::Link { path } => write!(
                f,
                "{} is a relative symbolic link and would lead elsewhere from another directory; replace it by the file or \
                 an absolute link",
                path.display()
            ),
            Self::OtherKind { to } => write!(
                f,
                "{to} holds a key of the other kind (key pair or symmetric), which a move must not destroy; delete it first"
            ),
            Self::SourceMissing { places } => write!(f, "key not found: there is no {places}"),
        }
    }
}

impl core::error::Error for MoveError {}
