//! Key logic over small traits, with its back ends.
//!
//! | module | what it holds | needs |
//! |---|---|---|
//! | [`mac`] | what a key for HMAC-SHA256 and derivation can do | nothing: `no_std`, no allocator |
//! | [`key_pair`] | algorithms and encodings of key pairs | nothing |
//! | [`aead`] | authenticated encryption and its ciphertext format | nothing |
//! | [`x509`] | certificates and requests for them: read, checked, built | nothing |
//! | [`keys_abi`] | the C ABI of the replaceable key library, types only | nothing |
//! | `software` | the same in software, over RustCrypto | feature `software` |
//! | `file` | files that are never half-written | feature `std` |
//! | `openssl` | key pairs and AES-GCM over OpenSSL | feature `openssl` |
//! | `pkcs11` | keys in PKCS#11 tokens | feature `pkcs11` |
//! | `store` | keys in the file system and in tokens, parsed keys in memory | features `std`, `software`, `openssl` and `pkcs11` |
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]

pub mod aead;
#[cfg(feature = "std")]
pub mod file;
pub mod key_pair;
pub mod keys_abi;
pub mod mac;
#[cfg(feature = "openssl")]
pub mod openssl;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
#[cfg(feature = "software")]
pub mod software;
#[cfg(all(
    feature = "std",
    feature = "software",
    feature = "openssl",
    feature = "pkcs11"
))]
pub mod store;
pub mod x509;
