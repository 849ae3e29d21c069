//! The OpenSSL engine `aziot_keys`: key pairs of the Keys Service, used by programs that know nothing of it (engine, chapters
//! C1 to C8).
//!
//! A key id is the handle of a key pair, as the Keys Service has issued it, or a [URI](aziot_keys_remote::uri). What is loaded
//! is an ordinary key of libcrypto with the public numbers and no private one, whose methods for signing and decrypting ask
//! the service: one exchange for each operation, on a connection of its own.
//!
//! The shared object only exports [`bind`] and [`check_version`]. Programs of this project that have an OpenSSL without
//! providers use the same keys without an engine ([`builtin`]).
//!
//! Works with OpenSSL 1.1.1 and 3.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]
#![allow(unsafe_code, reason = "everything here is called from C, or calls it")]

pub mod builtin;
mod ec;
mod engine;
mod error;
mod ex_data;
mod key;
mod rsa;
mod sys;

pub use engine::{ID, NAME, bind, check_version};
pub use sys::{ENGINE, dynamic_MEM_fns, dynamic_fns};
