//! The OpenSSL provider `aziot_keys`: key pairs of the Keys Service, used by programs that know nothing of it.
//!
//! | operation | algorithms |
//! |---|---|
//! | store | `aziot-keys`, see [`uri`] |
//! | decoder | PEM with such a URI |
//! | key management | `EC` (P-256, P-384), `RSA` |
//! | signature | `ECDSA`, `RSA` (PKCS #1 v1.5, PSS, none) |
//! | asymmetric cipher | `RSA` (PKCS #1 v1.5, OAEP, TLS pre-master secrets, none) |
//!
//! The public half of a key is an ordinary key of another provider (usually `default`), in a library context that is a child
//! of the application's. It answers for everything that does not need the private half: parameters, comparison, export,
//! verification, encryption, and which combination of digests and paddings is allowed. What is left for this crate are the
//! private operations.
//!
//! The same goes for keys that are no concern of ours at all. An application that activates several providers may have its
//! ordinary keys managed by any of them (OpenSSL takes the first that knows `EC`), so keys can be generated and imported
//! here, and are handed on.
//!
//! The shared object only exports [`init`]; programs of this project use it built in ([`builtin`]), without any file.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]
#![cfg(ossl300)]
#![allow(unsafe_code, reason = "everything here is called from C, or calls it")]

pub mod builtin;
mod capabilities;
mod cipher;
mod decoder;
mod dispatch;
mod error;
mod evp;
mod key;
mod keymgmt;
mod params;
mod provider;
mod signature;
mod store;
mod sys;

pub use aziot_keys_remote::uri;
pub use provider::{NAME, init};
pub use sys::{OSSL_CORE_HANDLE, OSSL_DISPATCH};
