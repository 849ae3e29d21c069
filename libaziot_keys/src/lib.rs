//! The key library: a C ABI over aziot-crypto.

pub mod abi;
