//! A small blocking client of the Keys Service (keys-service 5 and 10), and the HTTP/1.1 client under it.
//!
//! It is made for any program and thread: a shared object in somebody else's process, or a worker thread of a service. Every
//! step has a deadline. There is one connection per operation and nothing that threads, or a process and its forked child,
//! could share; descriptors are closed in programs that are executed, no signal is raised, and nothing is printed.
//!
//! A connection that is kept would save about the cost of `connect(2)`, but hold one of the few that the service grants a
//! user (`max_requests`), against all other programs of that user.
//!
//! ```no_run
//! use aziot_keys_client::{Client, default_socket};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Client::new(default_socket()?);
//! let handle = keys.load_key("device-id")?;
//! let signature = keys.sign_hmac(&handle, b"message")?;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]

mod client;
mod error;
mod handle;
mod parameters;
mod socket;
mod status;
pub mod transport;

pub use aziot_core::api::keys::Usage;
pub use client::{Client, Deadlines, MAC_LEN};
pub use error::Error;
pub use handle::KeyHandle;
pub use parameters::{Algorithm, PublicKey, RsaPadding};
pub use socket::{RootError, default_socket};
pub use status::{Items, Status};
