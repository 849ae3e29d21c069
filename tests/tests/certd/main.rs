//! The real Certificates Service with the real Keys Service.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod config;
mod http;
mod issuance;
mod lint;
mod status;
mod store;
