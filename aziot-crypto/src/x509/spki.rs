//! Public keys as certificates have them: `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7) in DER.

use aziot_core::der::{self, Reader, Tag, Writer};
use aziot_core::output::BufferFull;

use super::object_id::{EC_PUBLIC_KEY, RSA_ENCRYPTION};
use crate::key_pair::Curve;

/// Bytes that are enough for a key with a number or point of `key_len` bytes: its modulus, or both coordinates.
#[must_use]
pub const fn bound(key_len: usize) -> usize {
    key_len.saturating_add(80)
}

/// Writes the public key of a curve's point in either form of SEC 1 (RFC 5480).
///
/// # Errors
///
/// `out` is too short.
pub fn ec<'o>(curve: Curve, point: &[u8], out: &'o mut [u8]) -> Result<&'o [u8], BufferFull> {
    let mut writer = Writer::new(out);
    writer.sequence(|w| {
        w.sequence(|w| {
            w.object_identifier(EC_PUBLIC_KEY);
            w.put(curve.oid());
        });
        w.bit_string(point);
    });
    writer.finish()
}

/// Writes the public key of a modulus and an exponent, both big endian (RFC 8017, A.1.1). An exponent of more than eight
/// bytes may need more room than [`bound`].
///
/// # Errors
///
/// `out` is too short.
pub fn rsa<'o>(modulus: &[u8], exponent: &[u8], out: &'o mut [u8]) -> Result<&'o [u8], BufferFull> {
    let mut writer = Writer::new(out);
    writer.sequence(|w| {
        w.sequence(|w| {
            w.object_identifier(RSA_ENCRYPTION);
            w.element(Tag::NULL, &[]);
        });
        w.nested(Tag::BIT_STRING, |w| {
            w.put(&[0]);
            w.sequence(|w| {
                w.unsigned(modulus);
                w.unsigned(exponent);
            });
        });
    });
    writer.finish()
}

/// Whether two public keys are the same, even if one has its point compressed and the other has not, or RSA's empty
/// parameters are left out.
#[must_use]
pub fn same_key(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let (Ok(one), Ok(other)) = (Parts::of(one), Parts::of(other)) else {
        return false;
    };
    if one.algorithm != other.algorithm {
        return false;
    }
    if one.algorithm == RSA_ENCRYPTION {
        return one.key == other.key;
    }
    let same_point = || {
        let (x, odd) = split_point(one.key)?;
        let (other_x, other_odd) = split_point(other.key)?;
        Some(x == other_x && odd == other_odd)
    };
    one.algorithm == EC_PUBLIC_KEY
        && one.parameters == other.parameters
        && same_point() == Some(true)
}

/// The named curve of a public key; `None` if it is on no curve, or on another one.
#[must_use]
pub fn curve(public_key: &[u8]) -> Option<Curve> {
    let parts = Parts::of(public_key).ok()?;
    if parts.algorithm != EC_PUBLIC_KEY {
        return None;
    }
    Curve::from_oid(parts.parameters)
}

/// The bytes of a public key's bit string: what key identifiers are hashes of (RFC 5280, 4.2.1.2).
///
/// # Errors
///
/// It is no public key.
pub fn key_bytes(public_key: &[u8]) -> Result<&[u8], der::Error> {
    Parts::of(public_key).map(|parts| parts.key)
}

/// Reads the next element, a public key, and answers all of it.
pub(super) fn read<'d>(reader: &mut Reader<'d>) -> Result<&'d [u8], der::Error> {
    let raw = reader.expect(Tag::SEQUENCE)?.raw;
    Parts::of(raw)?;
    Ok(raw)
}

struct Parts<'d> {
    algorithm: &'d [u8],
    parameters: &'d [u8],
    key: &'d [u8],
}

impl<'d> Parts<'d> {
    fn of(public_key: &'d [u8]) -> Result<Self, der::Error> {
        let mut outer = Reader::whole_sequence(public_key)?;
        let mut algorithm = outer.sequence()?;
        let id = algorithm.object_identifier()?;
        let parameters = algorithm.rest();
        let key = outer.bit_string()?;
        outer.finish()?;
        Ok(Self {
            algorithm: id,
            parameters,
            key,
        })
    }
}

/// The first coordinate of a point, and whether the other one is odd (SEC 1, 2.3.3).
fn split_point(point: &[u8]) -> Option<(&[u8], bool)> {
    let (form, coordinates) = point.split_first()?;
    match form {
        2 | 3 => Some((coordinates, form & 1 == 1)),
        4 if coordinates.len() % 2 == 0 => {
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
            Some((x, y.last()? & 1 == 1))
        }
        _ => None,
    }
}
