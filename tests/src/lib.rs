//! Support for integration tests.

pub mod pki;
pub mod simulator;
