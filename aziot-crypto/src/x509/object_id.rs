//! Object identifiers: those that matter here, and their text.

use core::fmt;

/// id-kp-clientAuth is not here: it only occurs inside of [`Extensions::CLIENT_AUTH`](super::Extensions::CLIENT_AUTH).
pub(crate) const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
/// PKCS #9 extensionRequest, 1.2.840.113549.1.9.14.
pub(crate) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// Microsoft's certificate extensions, 1.3.6.1.4.1.311.2.1.14.
pub(crate) const MICROSOFT_EXTENSION_REQUEST: &[u8] =
    &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0e];
/// id-ecPublicKey, 1.2.840.10045.2.1.
pub(crate) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// rsaEncryption, 1.2.840.113549.1.1.1.
pub(crate) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// An object identifier, given as the content of its DER; displays with dots.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct ObjectId {
    bytes: [u8; MAX_LEN],
    /// Of all of it; what goes beyond the array is not shown.
    len: usize,
}

/// Longer ones are shown cut; those in use for extensions and algorithms have up to 12 bytes.
const MAX_LEN: usize = 24;

impl ObjectId {
    /// Keeps the content of an object identifier's DER.
    #[must_use]
    pub fn new(content: &[u8]) -> Self {
        let mut bytes = [0; MAX_LEN];
        bytes
            .iter_mut()
            .zip(content)
            .for_each(|(place, byte)| *place = *byte);
        Self {
            bytes,
            len: content.len(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.bytes.get(..self.len).unwrap_or(&self.bytes);
        let mut first = true;
        for arc in shown.split_inclusive(|byte| byte & 0x80 == 0) {
            let bits = |arc: u64, byte: &u8| {
                let shifted = arc.checked_mul(0x80)?;
                Some(shifted | u64::from(byte & 0x7f))
            };
            let complete = arc.last().is_some_and(|last| last & 0x80 == 0);
            let Some(value) = arc.iter().try_fold(0, bits).filter(|_| complete) else {
                f.write_str("…")?;
                break;
            };
            if first {
                let root = (value / 40).min(2);
                write!(
                    f,
                    "{root}.{}",
                    value.saturating_sub(root.saturating_mul(40))
                )?;
            } else {
                write!(f, ".{value}")?;
            }
            first = false;
        }
        if self.len > MAX_LEN {
            f.write_str("…")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}
