//! Keys in tokens, on real modules: SoftHSM, and tpm2-pkcs11 over swtpm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod changes;
mod fixture;
mod module;
mod operations;
mod recovery;
mod tpm;
