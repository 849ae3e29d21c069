//! The back end over OpenSSL: key pairs, AES-GCM, and signatures of certificates.
//!
//! Needs OpenSSL 1.1.1 or later. Everything may be used from any number of threads at once.
//!
//! Contexts are what makes an operation slow in OpenSSL 3, so each key keeps one between operations. A thread that
//! comes while it is in use makes one for itself.

mod aes_gcm;
mod error;
mod key_pair;
mod pem;
mod spare;
mod x509;

pub use aes_gcm::AesGcm;
pub use error::{Error, Reasons};
pub use key_pair::KeyPair;
pub use pem::PemError;
pub use x509::{OpenSslVerifier, VerifyError};

#[cfg(test)]
mod tests;
