//! The back end in software, over RustCrypto. Runs everywhere, without an allocator.

use core::convert::Infallible;
use core::fmt;

use hmac::digest::common::{BlockSizeUser, Key};
use hmac::digest::typenum::Unsigned;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::mac::{Mac, Tag};

/// An HMAC-SHA256 key in the form that signs fastest: the state of both hashes with the key already in them.
///
/// A message costs a copy of that state and no hashing of the key. It is wiped when dropped, as is every copy.
#[derive(Clone)]
pub struct HmacSha256(Hmac<Sha256>);

impl HmacSha256 {
    /// Prepares a key of any length (RFC 2104: one of more than 64 bytes is replaced by its SHA-256).
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        let mut block = Key::<Hmac<Sha256>>::default();
        if key.len() > <Sha256 as BlockSizeUser>::BlockSize::USIZE {
            let mut hashed = Sha256::digest(key);
            block
                .iter_mut()
                .zip(hashed.iter())
                .for_each(|(to, from)| *to = *from);
            hashed.zeroize();
        } else {
            block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        }
        let keyed = Hmac::new(&block);
        block.zeroize();
        Self(keyed)
    }

    /// The tag of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Tag {
        self.sign_parts(&[message])
    }

    /// The tag of a message given in parts.
    #[must_use]
    pub fn sign_parts(&self, message: &[&[u8]]) -> Tag {
        let mut state = self.0.clone();
        for part in message {
            state.update(part);
        }
        Tag::new(state.finalize().into_bytes().into())
    }

    /// Whether `tag` is the whole tag of the message, compared in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        self.sign(message).is(tag)
    }

    /// The key derived from this one with the given data, ready for use.
    #[must_use]
    pub fn derive(&self, derivation_data: &[u8]) -> Self {
        Self::new(self.sign(derivation_data).as_bytes())
    }
}

impl Mac for HmacSha256 {
    type Error = Infallible;

    fn sign(&self, message: &[&[u8]]) -> Result<Tag, Infallible> {
        Ok(self.sign_parts(message))
    }
}

impl fmt::Debug for HmacSha256 {
    /// Never shows anything of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacSha256(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    fn base_key() -> HmacSha256 {
        HmacSha256::new(&(0..32).collect::<Vec<u8>>())
    }

    /// RFC 4231, test cases 1, 2, 3, 4, 6 and 7.
    #[test]
    fn rfc_4231_vectors() {
        let long_key = [0xaa; 131];
        let data_7 = b"This is a test using a larger than block-size key and a larger than block-size data. The key \
            needs to be hashed before being used by the HMAC algorithm.";
        let cases: [(&[u8], &[u8], &str); 6] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &(1..=25).collect::<Vec<u8>>(),
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &long_key,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &long_key,
                data_7,
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, expected) in cases {
            assert_eq!(
                HmacSha256::new(key).sign(message).as_bytes().as_slice(),
                hex(expected)
            );
        }
    }

    #[test]
    fn kf_14_keys_of_3_and_100_bytes() {
        let short = HmacSha256::new(b"key").sign(b"The quick brown fox jumps over the lazy dog");
        assert_eq!(
            short.as_bytes().as_slice(),
            hex("f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8")
        );
        let long = HmacSha256::new(&[0xaa; 100]).sign(b"message");
        assert_eq!(
            long.as_bytes().as_slice(),
            hex("056a1c3c9eba051ecccfdb03927b9447a53c0d38e3f8e3d3a3d5bcae95ec9415")
        );
    }

    #[test]
    fn kc_03_derivation_vectors() {
        let cases: [(&[u8], &str); 3] = [
            (
                b"",
                "d38b42096d80f45f826b44a9d5607de72496a415d3f4a1a8c88e3bb9da8dc1cb",
            ),
            (
                b"edgeAgent",
                "97112774bdb9e7b8b0b24d0e1722f71705318702686e831642c9126f8d0e79fc",
            ),
            (
                &[0, 1, 2],
                "bf76611b6b1bcb37147401a745a954811257202eff22ba8a0acf3cc08a7b0504",
            ),
        ];
        for (data, expected) in cases {
            assert_eq!(
                Mac::derive(&base_key(), data)
                    .unwrap()
                    .as_bytes()
                    .as_slice(),
                hex(expected)
            );
        }
        assert_eq!(
            base_key()
                .derive(b"edgeAgent")
                .sign(b"message")
                .as_bytes()
                .as_slice(),
            hex("a7717cd39805af75775dbdd37fdbacc3eaf63ed273e24ea579347c5b98f57bc7")
        );
    }

    #[test]
    fn kc_04_only_the_whole_tag_verifies() {
        let key = base_key();
        let tag = hex("6297b77508a1a30ea4dfadd8f847c31b49aba45de10a79daf721d3f7ec112a24");
        assert!(key.verify(b"message", &tag));
        assert!(!key.verify(b"Message", &tag));
        assert!(!key.verify(b"message", &[]));
        for len in 0..tag.len() {
            assert!(!key.verify(b"message", &tag[..len]));
            let mut wrong = tag.clone();
            wrong[len] ^= 1;
            assert!(!key.verify(b"message", &wrong));
        }
        let mut longer = tag.clone();
        longer.push(0);
        assert!(!key.verify(b"message", &longer));
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        assert_eq!(
            format!("{:?} {:?}", base_key(), base_key().sign(b"")),
            "HmacSha256(..) Tag(..)"
        );
    }

    proptest! {
        /// Against the definition in RFC 2104, for keys around the block length too.
        #[test]
        fn equals_the_definition(
            key in proptest::collection::vec(any::<u8>(), 0..150),
            message in proptest::collection::vec(any::<u8>(), 0..200),
            split in 0..200_usize,
        ) {
            let mut block = if key.len() > 64 { Sha256::digest(&key).to_vec() } else { key.clone() };
            block.resize(64, 0);
            let inner: Vec<u8> = block.iter().map(|byte| byte ^ 0x36).chain(message.iter().copied()).collect();
            let outer: Vec<u8> = block.iter().map(|byte| byte ^ 0x5c).chain(Sha256::digest(inner)).collect();
            let expected = Sha256::digest(outer);
            let (head, tail) = message.split_at(split.min(message.len()));
            let signed = HmacSha256::new(&key).sign_parts(&[head, tail]);
            prop_assert_eq!(signed.as_bytes().as_slice(), expected.as_slice());
        }
    }
}
