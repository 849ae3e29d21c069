//! The C ABI types. They live in [`aziot_crypto::keys_abi`], where the Keys Service finds them too without linking
//! this library.

pub use aziot_crypto::keys_abi::*;
