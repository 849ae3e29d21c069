//! Why a certificate or a request cannot be read.

use core::fmt;

use aziot_core::der;

use super::extension::MAX_EXTENSIONS;
use super::object_id::ObjectId;

/// A certificate or a request for one cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The algorithm that is signed is not the one that the signature is said to be of.
    AlgorithmMismatch,
    /// It is not in the form that the standards prescribe.
    Der {
        /// The part that is broken.
        part: &'static str,
        /// What is wrong with it.
        error: der::Error,
    },
    /// A request has two attributes that ask for extensions in the same way.
    DuplicateAttribute,
    /// A request asks twice for the same extension.
    DuplicateExtension(ObjectId),
    /// A request asks for more extensions than anybody needs.
    TooManyExtensions,
    /// A date that does not exist, or not in one of the two forms of RFC 5280.
    Time,
}

impl Error {
    /// What becomes of an error of the reader.
    pub(super) fn of(part: &'static str) -> impl Fn(der::Error) -> Self {
        move |error| Self::Der { part, error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlgorithmMismatch => f.write_str(
                "the certificate names one signature algorithm inside and another one outside of what is signed",
            ),
            Self::Der { part, error } => write!(f, "the {part} cannot be read: {error}"),
            Self::DuplicateAttribute => {
                f.write_str("the request has more than one attribute with extensions; put them into one")
            }
            Self::DuplicateExtension(id) => {
                write!(f, "the request asks more than once for the extension {id}; ask once")
            }
            Self::TooManyExtensions => {
                write!(f, "the request asks for more than {MAX_EXTENSIONS} extensions")
            }
            Self::Time => f.write_str("a date of the certificate does not exist or is not in the form of RFC 5280"),
        }
    }
}

impl core::error::Error for Error {}
