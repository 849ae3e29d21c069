//! Encodings of elliptic curves, as tokens and we have them.

use crate::key_pair::Curve;

/// secp521r1. Tokens may hold such keys and sign with them, but its identifier is not told.
const P521_OID: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// Bits of the order of a curve, by its object identifier in DER; also the bits of a coordinate.
pub(super) fn order_bits(oid: &[u8]) -> Option<usize> {
    match Curve::from_oid(oid) {
        Some(curve) => Some(curve.order_len() * 8),
        None => (oid == P521_OID).then_some(521),
    }
}

/// The compressed point (SEC 1, 2.3.3) of a `CKA_EC_POINT`: a DER OCTET STRING around a point, as PKCS#11 wants it, or the
/// point itself, as some modules have it. `None` for anything else, and for a point that does not fit the curve.
pub(super) fn compressed_point(attribute: &[u8], order_bits: usize) -> Option<Vec<u8>> {
    let coordinate = order_bits.div_ceil(8);
    // A bare point comes first: its 0x04 is the tag of an OCTET STRING too, but its length is not that of one.
    compressed(attribute, coordinate).or_else(|| compressed(octet_string(attribute)?, coordinate))
}

fn compressed(point: &[u8], coordinate: usize) -> Option<Vec<u8>> {
    match point.split_first()? {
        (2 | 3, x) if x.len() == coordinate => Some(point.to_vec()),
        (4, both) if both.len() == coordinate * 2 => {
            let (x, y) = both.split_at_checked(coordinate)?;
            let mut compressed = Vec::with_capacity(1 + coordinate);
            compressed.push(2 | (y.last()? & 1));
            compressed.extend_from_slice(x);
            Some(compressed)
        }
        _ => None,
    }
}

/// The content of a DER OCTET STRING that is all there is.
fn octet_string(der: &[u8]) -> Option<&[u8]> {
    let (len, content) = match der {
        [0x04, 0x81, len @ 0x80..=0xff, content @ ..] => (*len, content),
        [0x04, len @ 0..=0x7f, content @ ..] => (*len, content),
        _ => return None,
    };
    (content.len() == usize::from(len)).then_some(content)
}

/// What a token is given to sign: the leftmost bits of the digest, and where the order fills its bytes, leading zeros up to
/// its length. They do not change the number that is signed (FIPS 186-5, 6.4.1), and there are tokens that take no other
/// length.
pub(super) fn signer_input(digest: &[u8], order_bits: usize) -> Vec<u8> {
    let digest = crate::key_pair::truncated_digest(digest, order_bits);
    let pad = if order_bits.is_multiple_of(8) {
        (order_bits / 8).saturating_sub(digest.len())
    } else {
        0
    };
    let mut input = vec![0; pad];
    input.extend_from_slice(digest);
    input
}

/// DER `SEQUENCE { r, s }` of a token's r‖s; `None` if it is empty or does not fall into halves.
pub(super) fn der_signature(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.is_empty() || !raw.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    let mut content = Vec::with_capacity(raw.len() + 8);
    put_integer(&mut content, r)?;
    put_integer(&mut content, s)?;
    let mut der = Vec::with_capacity(content.len() + 3);
    der.push(0x30);
    put_length(&mut der, content.len())?;
    der.append(&mut content);
    Some(der)
}

/// A DER INTEGER that is not negative, as short as it can be.
fn put_integer(der: &mut Vec<u8>, number: &[u8]) -> Option<()> {
    let number = without_leading_zeros(number);
    let sign = number.first().is_none_or(|first| *first >= 0x80);
    der.push(0x02);
    put_length(der, number.len() + usize::from(sign))?;
    if sign {
        der.push(0);
    }
    der.extend_from_slice(number);
    Some(())
}

fn put_length(der: &mut Vec<u8>, len: usize) -> Option<()> {
    let short = u8::try_from(len).ok()?;
    if short >= 0x80 {
        der.push(0x81);
    }
    der.push(short);
    Some(())
}

/// A big endian number in as few bytes as it takes; none for zero.
pub(super) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_compressed_from_every_form() {
        for parity in [0, 1] {
            let mut point = vec![4];
            point.extend([0x3f; 32]);
            point.extend([0x11; 31]);
            point.push(0x20 | parity);
            let expected: Vec<u8> = [&[2 | parity][..], &[0x3f; 32]].concat();
            let wrapped = [&[0x04, 65][..], &point].concat();
            // The bare point looks like an OCTET STRING of 0x3f bytes, and is not one.
            for form in [&point, &wrapped, &expected] {
                assert_eq!(compressed_point(form, 256).as_ref(), Some(&expected));
            }
            let wrapped = [&[0x04, 33][..], &expected].concat();
            assert_eq!(compressed_point(&wrapped, 256).as_ref(), Some(&expected));
        }
        let wide = [&[0x04, 0x81, 133, 4][..], &[7; 132]].concat();
        assert_eq!(
            compressed_point(&wide, 521).map(|point| point.len()),
            Some(67)
        );
        for bad in [
            &[][..],
            &[4],
            &[4, 0],
            &[4, 65, 4],
            &[5; 65],
            &[4; 66],
            &[4, 0x81, 1, 2],
        ] {
            assert_eq!(compressed_point(bad, 256), None, "{bad:02x?}");
        }
    }

    #[test]
    fn signatures_are_minimal_der() {
        assert_eq!(
            der_signature(&[0, 1, 0x80, 0]).unwrap(),
            [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]
        );
        assert_eq!(
            der_signature(&[0, 0, 0, 0x7f]).unwrap(),
            [0x30, 6, 2, 1, 0, 2, 1, 0x7f]
        );
        let longest = der_signature(&[0xff; 132]).unwrap();
        assert_eq!(&longest[..4], [0x30, 0x81, 138, 2]);
        assert_eq!(longest.len(), 141);
        for bad in [&[][..], &[1], &[1; 65], &[1; 600]] {
            assert_eq!(der_signature(bad), None);
        }
    }

    #[test]
    fn digests_are_as_long_as_the_order() {
        assert_eq!(signer_input(&[], 256), [0; 32]);
        assert_eq!(
            signer_input(&[7; 20], 256),
            [&[0; 12][..], &[7; 20]].concat()
        );
        assert_eq!(signer_input(&[7; 64], 384), [7; 48]);
        assert_eq!(signer_input(&[7; 64], 521), [7; 64]);
    }
}
