//! Key pairs that live in the Keys Service, in the form that OpenSSL's engine and provider need: the public half as numbers,
//! the private operations as calls to the service, and the paddings of RSA around them.
//!
//! Nothing here keeps a connection or any other state between calls, so a [`RemoteKey`] may be shared by threads and used
//! after `fork(2)`.
//!
//! Works with OpenSSL 1.1.1 and later. Only libcrypto is used, never libssl, so that a shared object with this in it can be
//! loaded into any program that uses OpenSSL.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]

mod error;
mod key;
pub mod padding;
mod point;
mod signature;
pub mod uri;

pub use aziot_crypto::key_pair::Curve;
pub use aziot_keys_client::{Client, KeyHandle};
pub use error::{Error, Reason, Task};
pub use key::{Public, RemoteKey};
