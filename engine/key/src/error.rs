//! Why a key pair of the Keys Service could not be loaded or used.

use std::fmt;

use aziot_keys_client as client;

/// What was to be done with a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Its public half was to be loaded.
    Load,
    /// It was to sign.
    Sign,
    /// Its private operation was to be done, to decrypt or to sign what is padded here.
    Private,
}

/// Why a key pair could not be loaded or used. The text names the key pair by its id, if it was loaded by one, never by its
/// handle.
#[derive(Clone, Debug)]
pub struct Error {
    task: Task,
    id: Option<Box<str>>,
    reason: Reason,
}

/// Why it failed.
#[derive(Clone, Debug)]
pub enum Reason {
    /// The Keys Service could not be asked, or refused.
    Service(client::Error),
    /// The key pair is on a curve other than P-256 and P-384.
    Curve,
    /// The public point is none on the curve.
    Point,
    /// The modulus or the exponent cannot be those of an RSA key.
    Numbers,
    /// ECDSA with a key pair that is not on a curve.
    NotEc,
    /// RSA with a key pair of another algorithm.
    NotRsa,
    /// The padding does not leave room for an input of this many bytes.
    InputTooLong {
        /// What there is.
        len: usize,
        /// What there can be.
        max: usize,
    },
    /// RSA without padding takes exactly as many bytes as the modulus has.
    InputLen {
        /// What there is.
        len: usize,
        /// What there has to be.
        modulus_len: usize,
    },
    /// RSA without padding takes a number below the modulus.
    InputNotBelowModulus,
    /// The service answered with something that cannot be the result of this key pair.
    Result,
}

impl Error {
    pub(crate) fn new(task: Task, id: Option<&str>, reason: Reason) -> Self {
        let id = id.map(Box::from);
        Self { task, id, reason }
    }

    /// What was to be done.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// Why it failed.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The text without the reason: what could not be done.
    #[must_use]
    pub fn summary(&self) -> String {
        let task = match self.task {
            Task::Load => "load",
            Task::Sign => "sign with",
            Task::Private => "use",
        };
        match &self.id {
            Some(id) => format!("could not {task} the key pair {id:?} of the Keys Service"),
            None => format!("could not {task} a key pair of the Keys Service"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.summary(), self.reason)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f),
            Self::Curve => f.write_str(
                "it is on an unknown curve; only P-256 and P-384 can be used through OpenSSL",
            ),
            Self::Point => f.write_str(
                "the service gave a public point that is not on the curve of the key; check the key library",
            ),
            Self::Numbers => f.write_str(
                "the service gave a modulus or exponent that cannot be an RSA key's; check the key library",
            ),
            Self::NotEc => f.write_str("ECDSA needs an EC key, and this is an RSA key"),
            Self::NotRsa => f.write_str("RSA needs an RSA key, and this is an EC key"),
            Self::InputTooLong { len, max } => write!(
                f,
                "RSA with PKCS #1 padding takes at most {max} bytes with this key, not {len}; use a larger key or a \
                 shorter digest"
            ),
            Self::InputLen { len, modulus_len } => write!(
                f,
                "RSA without padding takes exactly {modulus_len} bytes with this key, not {len}"
            ),
            Self::InputNotBelowModulus => f.write_str(
                "RSA takes a number below the modulus, and this one is not; it was made for another key",
            ),
            Self::Result => f.write_str(
                "the service gave a result that cannot be this key's; check the key library",
            ),
        }
    }
}
