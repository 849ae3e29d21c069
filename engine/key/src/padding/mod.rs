//! The paddings of RSA, as far as they are applied on this side of the Keys Service (RFC 8017).
//!
//! What is undone here is secret, and whether it was well-formed is too: those who can tell may decrypt and sign without the
//! key (Bleichenbacher, Manger). So these functions take the same time and the same way for every block of a length.

mod decrypt;
mod digest_info;
mod libcrypto;

pub use decrypt::{MASTER_SECRET_LEN, pkcs1, tls_premaster};
pub use digest_info::digest_info;
pub use libcrypto::{OAEP_MAX_LABEL, oaep, pss};

/// What PKCS #1 v1.5 padding adds at least: two bytes in front, eight bytes of padding and one behind (RFC 8017, sections
/// 7.2.1 and 9.2).
pub const PKCS1_OVERHEAD: usize = 11;
