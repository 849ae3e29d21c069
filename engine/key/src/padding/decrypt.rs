//! PKCS #1 v1.5 encryption padding (RFC 8017, section 7.2.2), undone without telling whether it was there.

use aziot_crypto::software::HmacSha256;
use sha2::{Digest as _, Sha256};
use subtle::{
    Choice, ConditionallySelectable as _, ConstantTimeEq as _, ConstantTimeGreater as _,
    ConstantTimeLess as _,
};
use zeroize::Zeroizing;

use super::PKCS1_OVERHEAD;

/// Length of the secret that clients send in TLS with RSA key exchange (RFC 5246, section 7.4.7.1).
pub const MASTER_SECRET_LEN: usize = 48;

/// The message in a block that RSA has decrypted, with *implicit rejection*: where the padding is wrong, the result is a
/// message of a random length with random content, always the same for the same ciphertext. `None` if the block is too short
/// to have a padding.
///
/// The construction is that of draft-irtf-cfrg-rsa-guidance, section 7, also in OpenSSL since 3.2, with one difference: the
/// secret behind it cannot be derived from the private exponent, which stays in the Keys Service. It is derived from the
/// decrypted block instead. Those who do not know the block (which is all that keeps anything secret here) cannot tell the
/// result from a message, and those who do know it have made it and learn nothing.
#[must_use]
pub fn pkcs1(block: &[u8], ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let len = u32::try_from(block.len()).ok()?;
    // Longest message.
    let max = u32::try_from(block.len().checked_sub(PKCS1_OVERHEAD)?).ok()?;
    let substitute = Substitute::new(block, ciphertext);

    let (well_formed, message_at) = separator(block);
    let substitute_at = len.saturating_sub(substitute.message_len(max));
    let start = u32::conditional_select(&substitute_at, &message_at, well_formed);
    let mut message = substitute.message(block.len());
    for (to, from) in message.iter_mut().zip(block) {
        to.conditional_assign(from, well_formed);
    }
    shift_left(&mut message, start);
    // Callers have to know the length; it tells as much as that of a real message.
    message.truncate(usize::try_from(len.saturating_sub(start)).ok()?);
    Some(message)
}

/// The pre-master secret of a TLS handshake with RSA key exchange, in a block that RSA has decrypted: 48 bytes that begin
/// with the version the client has offered (RFC 5246, section 7.4.7.1). Where the padding, the length or the version is wrong
/// it is `random`, with which the handshake fails later, in the same way as with any wrong secret.
///
/// Some old clients send the negotiated version; they are put up with if `negotiated` is given. `None` if the block is too
/// short to have a padding.
#[must_use]
pub fn tls_premaster(
    block: &[u8],
    offered: u16,
    negotiated: Option<u16>,
    random: &[u8; MASTER_SECRET_LEN],
) -> Option<Zeroizing<[u8; MASTER_SECRET_LEN]>> {
    let message_at = block.len().checked_sub(MASTER_SECRET_LEN)?;
    if message_at < PKCS1_OVERHEAD {
        return None;
    }
    let (padding, secret) = block.split_at_checked(message_at)?;
    let (well_formed, at) = separator(block);
    let mut good = well_formed & at.ct_eq(&u32::try_from(padding.len()).ok()?);

    let [high, low, ..] = secret else {
        return None;
    };
    let sent = u16::from_be_bytes([*high, *low]);
    let mut version = sent.ct_eq(&offered);
    if let Some(negotiated) = negotiated {
        version |= sent.ct_eq(&negotiated);
    }
    good &= version;

    let mut out = Zeroizing::new([0; MASTER_SECRET_LEN]);
    for ((to, secret), random) in out.iter_mut().zip(secret).zip(random) {
        *to = u8::conditional_select(random, secret, good);
    }
    Some(out)
}

/// Whether the block is `00 02`, eight or more bytes other than zero, and a zero; and where what follows begins.
fn separator(block: &[u8]) -> (Choice, u32) {
    let mut good = Choice::from(1);
    let mut found = Choice::from(0);
    let mut message_at = 0u32;
    for (at, byte) in (0u32..).zip(block) {
        match at {
            0 => good &= byte.ct_eq(&0),
            1 => good &= byte.ct_eq(&2),
            _ => {
                let zero = byte.ct_eq(&0);
                message_at.conditional_assign(&at.saturating_add(1), zero & !found);
                found |= zero;
            }
        }
    }
    // Not before the eleventh byte.
    const FIRST: u32 = PKCS1_OVERHEAD as u32;
    good &= found & !message_at.ct_lt(&FIRST);
    (good, message_at)
}

/// Moves the bytes from `by` on to the beginning, without a branch or an address that depends on `by`. What is behind them
/// has no meaning.
fn shift_left(bytes: &mut [u8], by: u32) {
    let mut step = 1usize;
    let mut bits = by;
    while step < bytes.len() {
        let moves = Choice::from(u8::from(bits & 1 == 1));
        for at in 0..bytes.len().saturating_sub(step) {
            let from = bytes.get(at.saturating_add(step)).copied().unwrap_or(0);
            if let Some(to) = bytes.get_mut(at) {
                to.conditional_assign(&from, moves);
            }
        }
        bits >>= 1;
        step = step.saturating_mul(2);
    }
}

/// What takes the place of a message where there is none.
struct Substitute(HmacSha256);

impl Substitute {
    fn new(block: &[u8], ciphertext: &[u8]) -> Self {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(
            Sha256::new()
                .chain_update(b"aziot-keys implicit rejection")
                .chain_update(block)
                .finalize()
                .into(),
        );
        let key = HmacSha256::new(secret.as_slice()).sign(ciphertext);
        Self(HmacSha256::new(key.as_bytes()))
    }

    /// A length from 0 to `max`, the last of 128 candidates that is one.
    fn message_len(&self, max: u32) -> u32 {
        // All ones, and at least `max`.
        let mask = max
            .checked_ilog2()
            .map_or(0, |top| u32::MAX >> 31_u32.saturating_sub(top));
        let candidates = self.bytes(b"length", 256);
        let mut len = 0;
        for pair in candidates.chunks_exact(2) {
            if let [high, low] = pair {
                let candidate = u32::from(u16::from_be_bytes([*high, *low])) & mask;
                len.conditional_assign(&candidate, !candidate.ct_gt(&max));
            }
        }
        len
    }

    fn message(&self, len: usize) -> Zeroizing<Vec<u8>> {
        self.bytes(b"message", len)
    }

    fn bytes(&self, label: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
        let bits = u16::try_from(len.saturating_mul(8))
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        let mut out = Zeroizing::new(Vec::with_capacity(len.saturating_add(32)));
        let mut block = 0u16;
        while out.len() < len {
            let tag = self.0.sign_parts(&[&block.to_be_bytes(), label, &bits]);
            out.extend_from_slice(tag.as_bytes());
            block = block.saturating_add(1);
        }
        out.truncate(len);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block of `len` bytes with this message, padded with the byte 0xa5.
    fn padded(len: usize, message: &[u8]) -> Vec<u8> {
        let mut block = vec![0, 2];
        block.resize(len - message.len() - 1, 0xa5);
        block.push(0);
        block.extend_from_slice(message);
        block
    }

    proptest! {
        #[test]
        fn messages_of_every_length(len in 11usize..300, seed: Vec<u8>, cut in 0usize..300) {
            let message: Vec<u8> = seed.iter().copied().cycle().take(if seed.is_empty() { 0 } else { cut.min(len - 11) }).collect();
            let block = padded(len, &message);
            prop_assert_eq!(&**pkcs1(&block, b"c").unwrap(), &*message);
        }

        #[test]
        fn any_block_gives_a_message_and_always_the_same(block in prop::collection::vec(any::<u8>(), 0..300)) {
            let first = pkcs1(&block, b"c");
            prop_assert_eq!(first.is_some(), block.len() >= 11);
            if let Some(first) = first {
                prop_assert!(first.len() <= block.len() - 11);
                prop_assert_eq!(&first, &pkcs1(&block, b"c").unwrap());
            }
        }
    }

    #[test]
    fn wrong_paddings_are_replaced() {
        let good = padded(256, b"secret");
        let damaged = |at: usize, byte: u8| {
            let mut block = good.clone();
            block[at] = byte;
            block
        };
        let mut without_end = good.clone();
        without_end[249] = 1;
        let mut results = Vec::new();
        for block in [
            damaged(0, 1),
            damaged(1, 1),
            damaged(1, 0),
            damaged(2, 0),
            damaged(9, 0),
            without_end,
            vec![0; 256],
            vec![0xff; 256],
        ] {
            let message = pkcs1(&block, b"c").unwrap();
            assert_ne!(&**message, b"secret");
            assert!(
                !block.ends_with(&message) || message.is_empty(),
                "a part of the block"
            );
            results.push(message.to_vec());
        }
        // The first byte that may be the zero.
        assert_eq!(&**pkcs1(&damaged(10, 0), b"c").unwrap(), &good[11..]);
        results.sort();
        let all = results.len();
        results.dedup();
        assert_eq!(results.len(), all);
        // Another ciphertext, another substitute.
        assert_ne!(
            pkcs1(&damaged(0, 1), b"c").unwrap(),
            pkcs1(&damaged(0, 1), b"d").unwrap()
        );
    }

    /// The lengths that are made up are spread over all that are possible.
    #[test]
    fn substitutes_have_all_lengths() {
        let mut lengths: Vec<usize> = (0..2000u32)
            .map(|number| pkcs1(&[1; 64], &number.to_be_bytes()).unwrap().len())
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, (0..=53).collect::<Vec<_>>());
    }

    #[test]
    fn premaster_secrets() {
        let random = [7; MASTER_SECRET_LEN];
        let mut secret = [9; MASTER_SECRET_LEN];
        secret[..2].copy_from_slice(&[3, 3]);
        let open =
            |block: &[u8], negotiated| *tls_premaster(block, 0x0303, negotiated, &random).unwrap();

        let good = padded(256, &secret);
        assert_eq!(open(&good, None), secret);
        secret[1] = 2;
        let older = padded(256, &secret);
        assert_eq!(open(&older, None), random);
        assert_eq!(open(&older, Some(0x0302)), secret);
        assert_eq!(open(&padded(256, &secret[1..]), Some(0x0302)), random);
        let mut longer = vec![3, 3];
        longer.extend_from_slice(&secret);
        assert_eq!(open(&padded(256, &longer), None), random);
        for at in [0, 1, 5, 207] {
            let mut block = good.clone();
            block[at] ^= 0xa5;
            assert_eq!(open(&block, None), random, "byte {at}");
        }
        assert!(tls_premaster(&[0; 58], 0x0303, None, &random).is_none());
        assert!(tls_premaster(&[0; 59], 0x0303, None, &random).is_some());
    }
}
