//! Support for integration tests: throw-away device roots, the real daemons, a byte-exact HTTP client, C programs made on the
//! spot, the documents that describe the interfaces, and the simulated cloud.

pub mod back_end;
pub mod binaries;
pub mod certd;
pub mod client;
pub mod daemon;
pub mod fixture;
pub mod gate;
pub mod http_proxy;
pub mod openapi;
pub mod pki;
pub mod proxy;
pub mod root;
pub mod simulator;
pub mod soak;
pub mod softhsm;
pub mod token;
pub mod tpm;
pub mod users;
