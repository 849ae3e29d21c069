//! The functions of the library, through its private list, which has those of the public ones.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

#[path = "../common/mod.rs"]
mod common;

mod aead;
mod compatibility;
mod keys;
mod memory;
mod pairs;
mod report;
mod store_reader;
mod tokens;
mod vectors;
