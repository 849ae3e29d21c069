//! Support for integration tests: throw-away device roots, the real daemons, a byte-exact HTTP client, and C programs made on
//! the spot.

pub mod binaries;
pub mod client;
pub mod daemon;
pub mod fixture;
pub mod root;
pub mod users;
