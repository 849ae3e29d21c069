//! Percent-encoding (RFC 3986 section 2.1) and the form encoding of query strings.

use core::fmt;

/// Displays text with every byte of a set, and every byte that is not ASCII, percent-encoded.
#[derive(Clone, Copy)]
pub struct Encoded<'a> {
    /// The text.
    pub text: &'a str,
    /// What is encoded.
    pub set: &'static Set,
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.text;
        while let Some(place) = text.bytes().position(|byte| self.set.contains(byte)) {
            let (plain, rest) = text.split_at_checked(place).unwrap_or_default();
            f.write_str(plain)?;
            let end = rest
                .bytes()
                .position(|byte| !self.set.contains(byte))
                .unwrap_or(rest.len());
            let (encoded, rest) = rest.split_at_checked(end).unwrap_or_default();
            encoded
                .bytes()
                .try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            text = rest;
        }
        f.write_str(text)
    }
}

/// A set of ASCII characters to encode. Bytes that are not ASCII belong to every set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Set([u32; 4]);

impl Set {
    /// For path parameters of requests to the sibling services: what the existing client encodes
    /// (controls, space, and ``"#<>?`{}``), and `%` and `/`, which it should.
    pub const SEGMENT: Self = Self::CONTROLS.with(b" \"#<>?`{}%/");

    /// Everything but the unreserved characters of RFC 3986 section 2.3.
    pub const COMPONENT: Self = Self([u32::MAX; 4]).without_unreserved();

    /// Control characters.
    const CONTROLS: Self = Self([u32::MAX, 0, 0, 1 << 31]);

    /// This set and `characters`, which must be ASCII.
    #[must_use]
    pub const fn with(mut self, characters: &[u8]) -> Self {
        let mut rest = characters;
        while let [byte, tail @ ..] = rest {
            self = self.put(*byte, true);
            rest = tail;
        }
        self
    }

    /// This set without `characters`.
    #[must_use]
    pub const fn without(mut self, characters: &[u8]) -> Self {
        let mut rest = characters;
        while let [byte, tail @ ..] = rest {
            self = self.put(*byte, false);
            rest = tail;
        }
        self
    }

    /// Whether `byte` is encoded.
    #[must_use]
    pub const fn contains(&self, byte: u8) -> bool {
        let [a, b, c, d] = self.0;
        let word = match byte / 32 {
            0 => a,
            1 => b,
            2 => c,
            3 => d,
            _ => return true,
        };
        word >> (byte % 32) & 1 == 1
    }

    const fn put(self, byte: u8, member: bool) -> Self {
        let [mut a, mut b, mut c, mut d] = self.0;
        let word = match byte / 32 {
            0 => &mut a,
            1 => &mut b,
            2 => &mut c,
            3 => &mut d,
            _ => return self,
        };
        let bit = 1 << (byte % 32);
        *word = if member { *word | bit } else { *word & !bit };
        Self([a, b, c, d])
    }

    const fn without_unreserved(self) -> Self {
        self.without(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
            .without(b"abcdefghijklmnopqrstuvwxyz")
            .without(b"0123456789-._~")
    }
}

/// How `+` is decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plus {
    /// As itself: paths.
    Plus,
    /// As a space: query strings.
    Space,
}

/// The bytes that `text` stands for. A `%` without two hexadecimal digits behind it is kept.
pub fn decode(text: &str, plus: Plus) -> Decode<'_> {
    Decode {
        rest: text.as_bytes(),
        plus,
    }
}

/// See [`decode`].
#[derive(Clone, Debug)]
pub struct Decode<'a> {
    rest: &'a [u8],
    plus: Plus,
}

impl Iterator for Decode<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let [b'%', high, low, rest @ ..] = self.rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.rest = rest;
            return Some((high << 4) | low);
        }
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match (byte, self.plus) {
            (b'+', Plus::Space) => b' ',
            _ => byte,
        })
    }
}

/// Whether decoding would change `text`.
#[must_use]
pub fn is_encoded(text: &str, plus: Plus) -> bool {
    text.bytes()
        .any(|byte| byte == b'%' || (byte == b'+' && plus == Plus::Space))
}

/// Decodes `text`, into `scratch` where it has to be changed; answers what is left of `scratch`.
///
/// # Errors
///
/// [`DecodeError::NotUtf8`], or [`DecodeError::BufferFull`] if `scratch` is too small.
pub fn decode_str<'t>(
    text: &'t str,
    plus: Plus,
    scratch: &'t mut [u8],
) -> Result<(&'t str, &'t mut [u8]), DecodeError> {
    if !is_encoded(text, plus) {
        return Ok((text, scratch));
    }
    let (decoded, scratch) = decode_bytes(text, plus, scratch).ok_or(DecodeError::BufferFull)?;
    let decoded = core::str::from_utf8(decoded).map_err(|_| DecodeError::NotUtf8)?;
    Ok((decoded, scratch))
}

/// As [`decode_str`], with U+FFFD in place of what is not UTF-8.
///
/// # Errors
///
/// [`DecodeError::BufferFull`] if `scratch` is too small.
pub fn decode_str_lossy<'t>(
    text: &'t str,
    plus: Plus,
    scratch: &'t mut [u8],
) -> Result<(&'t str, &'t mut [u8]), DecodeError> {
    if !is_encoded(text, plus) {
        return Ok((text, scratch));
    }
    let (decoded, scratch) = decode_bytes(text, plus, scratch).ok_or(DecodeError::BufferFull)?;
    let decoded: &'t [u8] = decoded;
    if let Ok(decoded) = core::str::from_utf8(decoded) {
        return Ok((decoded, scratch));
    }
    let mut length = 0_usize;
    for chunk in decoded.utf8_chunks() {
        let replacement = if chunk.invalid().is_empty() {
            ""
        } else {
            "\u{fffd}"
        };
        for part in [chunk.valid(), replacement] {
            let end = length.saturating_add(part.len());
            scratch
                .get_mut(length..end)
                .ok_or(DecodeError::BufferFull)?
                .copy_from_slice(part.as_bytes());
            length = end;
        }
    }
    let (text, scratch) = scratch
        .split_at_mut_checked(length)
        .ok_or(DecodeError::BufferFull)?;
    let text = core::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8)?;
    Ok((text, scratch))
}

/// Why text could not be decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeError {
    /// The decoded text does not fit in the scratch buffer.
    BufferFull,
    /// The decoded text is not UTF-8.
    NotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BufferFull => "the decoded text does not fit in the buffer",
            Self::NotUtf8 => "the decoded text is not UTF-8",
        })
    }
}

impl core::error::Error for DecodeError {}

fn decode_bytes<'t>(
    text: &str,
    plus: Plus,
    scratch: &'t mut [u8],
) -> Option<(&'t mut [u8], &'t mut [u8])> {
    let mut length = 0_usize;
    for byte in decode(text, plus) {
        *scratch.get_mut(length)? = byte;
        length = length.saturating_add(1);
    }
    scratch.split_at_mut_checked(length)
}

fn hex(digit: u8) -> Option<u8> {
    let digit = char::from(digit).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hc_01_path_parameters() {
        for (text, encoded) in [
            ("plain-id_1.~", "plain-id_1.~"),
            ("a b/c%", "a%20b%2Fc%25"),
            ("é\u{7f}", "%C3%A9%7F"),
            ("\"#<>?`{}", "%22%23%3C%3E%3F%60%7B%7D"),
            ("$edgeAgent=+&;:@", "$edgeAgent=+&;:@"),
            ("", ""),
        ] {
            let set = &Set::SEGMENT;
            assert_eq!(Encoded { text, set }.to_string(), encoded);
        }
        let set = &Set::COMPONENT;
        let text = "a=+&;:@$'(";
        assert_eq!(
            Encoded { text, set }.to_string(),
            "a%3D%2B%26%3B%3A%40%24%27%28"
        );
    }

    #[test]
    fn ht_10_decoding_in_paths_and_queries() {
        let decode = |text, plus| {
            let mut scratch = [0; 64];
            decode_str(text, plus, &mut scratch).map(|(text, _)| text.to_owned())
        };
        for (text, decoded) in [
            ("a%2Fb%20c+d%25", "a/b c+d%"),
            ("a%zz%", "a%zz%"),
            ("a%00b", "a\0b"),
            ("%c3%A9", "é"),
            ("%4", "%4"),
        ] {
            assert_eq!(decode(text, Plus::Plus).unwrap(), decoded);
        }
        assert_eq!(decode("a+b", Plus::Space).unwrap(), "a b");
        assert_eq!(decode("%ff", Plus::Plus), Err(DecodeError::NotUtf8));
        let mut scratch = [0; 64];
        let (text, rest) = decode_str_lossy("a%ff%c3b%f0%9f", Plus::Space, &mut scratch).unwrap();
        assert_eq!(text, "a\u{fffd}\u{fffd}b\u{fffd}");
        assert!(!rest.is_empty());
    }

    #[test]
    fn plain_text_needs_no_scratch() {
        assert_eq!(decode_str("abc", Plus::Space, &mut []).unwrap().0, "abc");
        assert_eq!(
            decode_str("a%20", Plus::Space, &mut []),
            Err(DecodeError::BufferFull)
        );
        assert_eq!(
            decode_str_lossy("%ff", Plus::Space, &mut [0; 2]),
            Err(DecodeError::BufferFull)
        );
    }

    proptest! {
        #[test]
        fn round_trip(text in any::<String>()) {
            for set in [&Set::SEGMENT, &Set::COMPONENT] {
                let encoded = Encoded { text: &text, set }.to_string();
                prop_assert!(encoded.is_ascii());
                let mut scratch = vec![0; text.len()];
                prop_assert_eq!(decode_str(&encoded, Plus::Plus, &mut scratch).unwrap().0, &text);
            }
        }

        #[test]
        fn lossy_decoding_is_that_of_std(bytes in any::<Vec<u8>>()) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            let mut scratch = vec![0; bytes.len() * 4];
            let decoded = decode_str_lossy(&encoded, Plus::Space, &mut scratch).unwrap().0;
            prop_assert_eq!(decoded, String::from_utf8_lossy(&bytes));
        }
    }
}
