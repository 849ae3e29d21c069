//! Authenticated encryption: the format of its ciphertexts.
//!
//! All keys encrypt with AES-GCM (NIST SP 800-38D) and a tag of 16 bytes. In front of ciphertext and tag stands a byte
//! that says in which order they follow. The ciphertext proper is as long as the plaintext, so a whole one is
//! [`OVERHEAD`] bytes longer. Initialisation vector and additional data are the caller's and are not part of it.

use core::fmt;

/// Length of a tag in bytes.
pub const TAG_LEN: usize = 16;

/// How many bytes longer than its plaintext a whole ciphertext is: the byte for the layout, and the tag.
pub const OVERHEAD: usize = 1 + TAG_LEN;

/// Longest initialisation vector in bytes; the shortest has one byte.
pub const MAX_IV_LEN: usize = 128;

/// The order of what follows the first byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// `01`, tag, ciphertext. Read, but not written: IoT Edge 1.1 and earlier left such ciphertexts.
    V1,
    /// `02`, ciphertext, tag.
    V2,
}

impl Layout {
    /// The first byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The layout of a first byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// A whole ciphertext, taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sealed<'a> {
    /// The order its parts came in.
    pub layout: Layout,
    /// The ciphertext proper, as long as the plaintext.
    pub ciphertext: &'a [u8],
    /// The tag over it and the additional data.
    pub tag: &'a [u8; TAG_LEN],
}

impl<'a> Sealed<'a> {
    /// Takes a whole ciphertext apart, in either layout.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: no bytes, an unknown first byte, or no room for a tag.
    pub fn parse(whole: &'a [u8]) -> Result<Self, Malformed> {
        let (&first, rest) = whole.split_first().ok_or(Malformed::Empty)?;
        let layout = Layout::from_byte(first).ok_or(Malformed::UnknownLayout(first))?;
        let parts = match layout {
            Layout::V1 => rest
                .split_first_chunk()
                .map(|(tag, ciphertext)| (ciphertext, tag)),
            Layout::V2 => rest.split_last_chunk(),
        };
        let (ciphertext, tag) = parts.ok_or(Malformed::TooShort(whole.len()))?;
        Ok(Self {
            layout,
            ciphertext,
            tag,
        })
    }
}

/// The parts of a whole ciphertext that is being written, in the layout [`Layout::V2`].
#[derive(Debug)]
pub struct Frame<'a> {
    /// Room for the ciphertext proper.
    pub ciphertext: &'a mut [u8],
    /// Room for the tag.
    pub tag: &'a mut [u8; TAG_LEN],
}

impl<'a> Frame<'a> {
    /// Writes the first byte into `out` and lays out what follows for a plaintext of this many bytes. `None` if `out`
    /// has less than [`OVERHEAD`] bytes more than that; what it has beyond is left alone.
    #[must_use]
    pub fn new(out: &'a mut [u8], plaintext_len: usize) -> Option<Self> {
        let whole = out.get_mut(..plaintext_len.checked_add(OVERHEAD)?)?;
        let (first, rest) = whole.split_first_mut()?;
        let (ciphertext, tag) = rest.split_last_chunk_mut()?;
        *first = Layout::V2.byte();
        Some(Self { ciphertext, tag })
    }
}

/// Bytes that are no ciphertext in either layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// No bytes at all.
    Empty,
    /// This many bytes, less than [`OVERHEAD`].
    TooShort(usize),
    /// This first byte, which stands for no layout.
    UnknownLayout(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("malformed ciphertext: it is empty"),
            Self::TooShort(len) => write!(
                f,
                "malformed ciphertext: it has {len} bytes, and the shortest has {OVERHEAD}"
            ),
            Self::UnknownLayout(byte) => write!(
                f,
                "malformed ciphertext: it starts with byte 0x{byte:02x} instead of 0x01 or 0x02"
            ),
        }
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kc_02_what_is_no_ciphertext() {
        assert_eq!(Sealed::parse(&[]), Err(Malformed::Empty));
        for byte in [0, 3, 0x82, 0xff] {
            assert_eq!(
                Sealed::parse(&[byte; 40]),
                Err(Malformed::UnknownLayout(byte))
            );
        }
        for byte in [1, 2] {
            assert_eq!(Sealed::parse(&[byte]), Err(Malformed::TooShort(1)));
            assert_eq!(Sealed::parse(&[byte; 16]), Err(Malformed::TooShort(16)));
            assert!(Sealed::parse(&[byte; 17]).unwrap().ciphertext.is_empty());
        }
    }

    #[test]
    fn a_frame_needs_its_overhead() {
        let mut out = [0xee; 20];
        assert!(Frame::new(&mut out, 4).is_none());
        assert!(Frame::new(&mut out, usize::MAX).is_none());
        assert_eq!(out, [0xee; 20]);
        let frame = Frame::new(&mut out, 2).unwrap();
        frame.ciphertext.copy_from_slice(b"ct");
        frame.tag.fill(7);
        assert_eq!(&out[..3], b"\x02ct");
        assert_eq!(
            out[3..],
            [7; 16].into_iter().chain([0xee]).collect::<Vec<_>>()[..]
        );
    }

    proptest! {
        #[test]
        fn both_layouts_hold_the_same(
            ciphertext in proptest::collection::vec(any::<u8>(), 0..100),
            tag in any::<[u8; TAG_LEN]>(),
        ) {
            let v1: Vec<u8> = [1].iter().chain(&tag).chain(&ciphertext).copied().collect();
            let v2: Vec<u8> = [2].iter().chain(&ciphertext).chain(&tag).copied().collect();
            for (whole, layout) in [(&v1, Layout::V1), (&v2, Layout::V2)] {
                prop_assert_eq!(
                    Sealed::parse(whole),
                    Ok(Sealed { layout, ciphertext: &ciphertext, tag: &tag })
                );
            }
            let mut written = vec![0; ciphertext.len() + OVERHEAD];
            let frame = Frame::new(&mut written, ciphertext.len()).unwrap();
            frame.ciphertext.copy_from_slice(&ciphertext);
            *frame.tag = tag;
            prop_assert_eq!(written, v2);
        }

        #[test]
        fn parsing_loses_nothing(whole in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(sealed) = Sealed::parse(&whole) {
                prop_assert_eq!(sealed.ciphertext.len() + OVERHEAD, whole.len());
                prop_assert_eq!(Some(sealed.layout), Layout::from_byte(whole[0]));
            } else {
                prop_assert!(whole.len() < OVERHEAD || !matches!(whole[0], 1 | 2));
            }
        }
    }
}
