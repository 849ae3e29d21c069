//! ECDSA signatures, as the Keys Service gives them and OpenSSL hands them on.

/// Whether this is the DER of an `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3) of a curve whose order has `order_len` bytes: a
/// sequence of two positive integers of at most that many bytes, in their shortest form, and nothing else. Whether the numbers
/// are below the order, and the signature is one of this key, only verification can tell.
pub fn is_ecdsa_signature(der: &[u8], order_len: usize) -> bool {
    let numbers = || {
        let (numbers, rest) = element(SEQUENCE, der)?;
        let (r, numbers) = element(INTEGER, numbers)?;
        let (s, numbers) = element(INTEGER, numbers)?;
        (rest.is_empty() && numbers.is_empty()).then_some([r, s])
    };
    numbers().is_some_and(|numbers| numbers.iter().all(|n| is_positive(n, order_len)))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// The content of the element at the start, and what follows it. Lengths are those of one byte, and of two where it takes two:
/// the signatures of the curves up to 512 bits need no longer ones.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match bytes {
        [found, len, rest @ ..] if *found == tag && *len < 0x80 => (len, rest),
        [found, 0x81, len, rest @ ..] if *found == tag && *len >= 0x80 => (len, rest),
        _ => return None,
    };
    rest.split_at_checked(usize::from(*len))
}

/// Whether the content of an integer is a positive number in its shortest form of at most `most` bytes.
fn is_positive(content: &[u8], most: usize) -> bool {
    let magnitude = match content {
        // A zero in front only where the number would be negative without it.
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => rest,
        [1..0x80, ..] => content,
        _ => return false,
    };
    magnitude.len() <= most
}

#[cfg(test)]
mod tests {
    use openssl::bn::BigNum;
    use openssl::ecdsa::EcdsaSig;
    use proptest::prelude::*;

    use super::*;

    fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
        let number = |bytes| BigNum::from_slice(bytes).unwrap();
        let signature = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
        signature.to_der().unwrap()
    }

    #[test]
    fn examples() {
        for (bytes, expected) in [
            (&[0x30, 6, 2, 1, 1, 2, 1, 1][..], true),
            (&[0x30, 8, 2, 2, 0, 0x80, 2, 2, 0, 0xff], true),
            // Nothing, too little, too much, the wrong tag.
            (&[], false),
            (&[0x30, 0], false),
            (&[0x30, 3, 2, 1, 1], false),
            (&[0x30, 6, 2, 1, 1, 2, 1, 1, 0], false),
            (&[0x30, 7, 2, 1, 1, 2, 1, 1, 0], false),
            (&[0x31, 6, 2, 1, 1, 2, 1, 1], false),
            (&[0x30, 7, 2, 1, 1, 2, 1, 1], false),
            // Zero, negative, not in the shortest form.
            (&[0x30, 6, 2, 1, 0, 2, 1, 1], false),
            (&[0x30, 5, 2, 0, 2, 1, 1], false),
            (&[0x30, 6, 2, 1, 0x80, 2, 1, 1], false),
            (&[0x30, 7, 2, 2, 0, 1, 2, 1, 1], false),
            (&[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1], false),
            (&[0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0], false),
        ] {
            assert_eq!(is_ecdsa_signature(bytes, 32), expected, "{bytes:x?}");
        }
        // Larger than any number below the order.
        assert!(is_ecdsa_signature(&der(&[0xff; 32], &[1]), 32));
        assert!(!is_ecdsa_signature(&der(&[0xff; 33], &[1]), 32));
        assert!(is_ecdsa_signature(&der(&[0xff; 66], &[0x80; 66]), 66));
    }

    proptest! {
        #[test]
        fn what_libcrypto_makes_is_one(
            r in prop::collection::vec(any::<u8>(), 1..=48),
            s in prop::collection::vec(any::<u8>(), 1..=48),
        ) {
            let positive = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
            let der = der(&r, &s);
            prop_assert_eq!(is_ecdsa_signature(&der, 48), positive(&r) && positive(&s));
            for len in 0..der.len() {
                prop_assert!(!is_ecdsa_signature(&der[..len], 48));
            }
        }

        #[test]
        fn what_is_one_is_one_to_libcrypto(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if is_ecdsa_signature(&bytes, 32) {
                let again = EcdsaSig::from_der(&bytes).unwrap().to_der().unwrap();
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
