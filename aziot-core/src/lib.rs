//! Protocols, configuration and provisioning logic, without any I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod access;
pub mod api;
pub mod base64;
pub mod clock;
#[cfg(feature = "alloc")]
pub mod config;
pub mod der;
pub mod dps;
pub mod est;
pub mod handle;
pub mod http;
pub mod hub;
pub mod id;
pub mod json;
pub mod limits;
pub mod output;
pub mod pem;
pub mod percent;
pub mod provisioning;
pub mod renewal;
pub mod retry;
pub mod sas;
mod search;
#[cfg(feature = "alloc")]
pub mod super_config;
pub mod time;
pub mod uri;
