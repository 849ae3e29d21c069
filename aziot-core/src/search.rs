//! Finding bytes.

/// Bytes that are looked at together.
const BLOCK: usize = 16;

/// Where the first byte is that is `wanted`, which is best a comparison or two: it is asked about several bytes at once.
pub(crate) fn position(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let mut before = 0_usize;
    for block in blocks {
        // No way out in the middle: that lets the compiler use vector instructions.
        if block.iter().fold(false, |any, byte| any | wanted(*byte)) {
            let at = block.iter().position(|byte| wanted(*byte))?;
            return Some(before.saturating_add(at));
        }
        before = before.saturating_add(BLOCK);
    }
    let at = rest.iter().position(|byte| wanted(*byte))?;
    Some(before.saturating_add(at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_loop_finds(bytes in proptest::collection::vec(0..40_u8, 0..100)) {
            for wanted in [0, 39] {
                let expected = bytes.iter().position(|byte| *byte == wanted);
                prop_assert_eq!(position(&bytes, |byte| byte == wanted), expected);
            }
            let expected = bytes.iter().position(|byte| *byte < 2 || *byte == 20);
            prop_assert_eq!(position(&bytes, |byte| byte < 2 || byte == 20), expected);
        }
    }
}
