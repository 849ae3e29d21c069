//! Searching bytes.

use core::str::Utf8Error;

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

/// As [`str::split_once`] at a byte of ASCII, for texts so short that `str`'s way to search is a detour.
pub(crate) fn split_once(text: &str, separator: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == separator)?;
    Some((text.get(..at)?, text.get(at.saturating_add(1)..)?))
}

/// What is wrong with `bytes` if they are not UTF-8. Almost all that is asked about is ASCII, which is much quicker to tell.
pub(crate) fn require_utf8(bytes: &[u8]) -> Result<(), Utf8Error> {
    if bytes.is_ascii() {
        return Ok(());
    }
    core::str::from_utf8(bytes).map(|_| ())
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

        #[test]
        fn splits_as_str_does(text in "[a-cß=&]{0,12}") {
            prop_assert_eq!(split_once(&text, b'='), text.split_once('='));
        }

        #[test]
        fn utf8_is_what_str_takes(bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
            let expected = core::str::from_utf8(&bytes).map(|_| ());
            prop_assert_eq!(require_utf8(&bytes), expected);
        }
    }
}
