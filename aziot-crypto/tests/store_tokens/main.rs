//! The store over a software token: where keys go, what is found where, and what is never lost.
//!
//! SoftHSM reads its configuration from the environment, so every test runs in a process of its own with a directory of
//! tokens of its own, whatever runs the tests. Between the store and SoftHSM is `tests/tools/p11shim.c`, which can make
//! any function fail.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod failing;
mod fallback;
mod fixture;
mod keys;
mod moving;
mod report;
