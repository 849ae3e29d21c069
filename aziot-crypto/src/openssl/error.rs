//! What can go wrong.

use core::fmt;

use ::openssl::error::ErrorStack;

use super::pem::PemError;
use crate::aead::{MAX_IV_LEN, Malformed};
use crate::key_pair::Parameter;

/// Why a key could not be loaded, made or used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A ciphertext is not the work of this key, or it, the initialisation vector or the additional data were changed.
    Authentication,
    /// RSA without padding got this many bytes where it needs exactly as many as the modulus has.
    InputLen {
        /// What there is.
        len: usize,
        /// What there has to be.
        modulus_len: usize,
    },
    /// RSA without padding got a number that is not below the modulus.
    InputNotBelowModulus,
    /// RSA with padding got this many bytes, more than fit beside the padding.
    InputTooLong {
        /// What there is.
        len: usize,
        /// What there can be.
        max: usize,
    },
    /// An initialisation vector of this many bytes.
    IvLen(usize),
    /// A key for AES-256 of this many bytes.
    KeyLen(usize),
    /// The bytes are no ciphertext.
    Malformed(Malformed),
    /// A key pair of another algorithm does not have this parameter.
    NoParameter(Parameter),
    /// An operation on curves, with a key pair that is not on one.
    NotEc,
    /// An operation of RSA, with a key pair of another algorithm.
    NotRsa,
    /// OpenSSL failed.
    OpenSsl {
        /// What it was to do, as the end of "could not …".
        task: &'static str,
        /// What it said.
        reasons: Reasons,
    },
    /// The result has no room in the caller's buffer.
    OutputTooSmall {
        /// Bytes that are always enough.
        enough: usize,
    },
    /// The text holds no private key that can be used.
    Pem(PemError),
    /// The key is neither on a curve nor RSA.
    UnknownAlgorithm,
    /// The key is on a curve whose identifier is not told.
    UnknownCurve,
}

impl Error {
    /// Whether the caller asked for the wrong thing, as opposed to something being broken.
    #[must_use]
    pub fn is_invalid_parameter(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::NoParameter(_)
            | Self::NotEc
            | Self::NotRsa
            | Self::OutputTooSmall { .. }
            | Self::UnknownAlgorithm
            | Self::UnknownCurve => true,
            // Lengths that the crypto library refuses have always counted as its failure.
            Self::Authentication
            | Self::InputLen { .. }
            | Self::InputNotBelowModulus
            | Self::InputTooLong { .. }
            | Self::IvLen(_)
            | Self::KeyLen(_)
            | Self::OpenSsl { .. }
            | Self::Pem(_) => false,
        }
    }

    /// What becomes of OpenSSL's own errors.
    pub(super) fn of(task: &'static str) -> impl FnOnce(ErrorStack) -> Self {
        move |stack| Self::OpenSsl {
            task,
            reasons: Reasons::from(&stack),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication => f.write_str(
                "authentication failed: the ciphertext was made with another key, initialisation vector or additional \
                 data, or was changed since",
            ),
            Self::InputLen { len, modulus_len } => write!(
                f,
                "RSA without padding takes exactly {modulus_len} bytes with this key, not {len}"
            ),
            Self::InputNotBelowModulus => {
                f.write_str("RSA without padding takes a number below the modulus; this one is not")
            }
            Self::InputTooLong { len, max } => write!(
                f,
                "RSA with PKCS #1 padding takes at most {max} bytes with this key, not {len}"
            ),
            Self::IvLen(len) => write!(
                f,
                "an initialisation vector has 1 to {MAX_IV_LEN} bytes, not {len}"
            ),
            Self::KeyLen(len) => write!(
                f,
                "encryption needs a key of 32 bytes, and this one has {len}"
            ),
            Self::Malformed(err) => err.fmt(f),
            Self::NoParameter(parameter) => {
                write!(f, "key pairs of this algorithm have no {}", parameter.name())
            }
            Self::NotEc => f.write_str("ECDSA needs a key pair on an elliptic curve, and this one is not"),
            Self::NotRsa => f.write_str("this mechanism needs an RSA key pair, and this one is not"),
            Self::OpenSsl { task, reasons } => write!(f, "could not {task}: {reasons}"),
            Self::OutputTooSmall { enough } => {
                write!(f, "the buffer for the result is too small; {enough} bytes are enough")
            }
            Self::Pem(err) => err.fmt(f),
            Self::UnknownAlgorithm => {
                f.write_str("key algorithm not recognized: the key pair is neither EC nor RSA")
            }
            Self::UnknownCurve => {
                f.write_str("key curve not recognized: only P-256 and P-384 have an identifier here")
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<Malformed> for Error {
    fn from(err: Malformed) -> Self {
        Self::Malformed(err)
    }
}

/// What OpenSSL's error queue said, cause first. Never part of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reasons(String);

impl Reasons {
    /// Takes everything out of this thread's error queue.
    pub(super) fn take() -> Self {
        Self::from(&ErrorStack::get())
    }
}

impl From<&ErrorStack> for Reasons {
    /// Without file names, line numbers and the free text of errors, which can quote their input.
    fn from(stack: &ErrorStack) -> Self {
        let mut text = String::new();
        for err in stack.errors() {
            let reason = err.reason().unwrap_or("unknown reason");
            let separator = if text.is_empty() { "" } else { ", " };
            text.push_str(separator);
            text.push_str(reason);
            if let Some(library) = err.library() {
                text.push_str(" (");
                text.push_str(library);
                text.push(')');
            }
        }
        if text.is_empty() {
            text.push_str("OpenSSL gives no reason");
        }
        Self(text)
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
