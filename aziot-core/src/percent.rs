//! Percent-encoding (RFC 3986 section 2.1), and the form encoding as far as it differs.

use core::fmt;

use crate::output::{BufferFull, Output};

/// A set of bytes to encode. Bytes that are not ASCII belong to every set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Set([u32; 4]);

impl Set {
    /// The path of a URL: controls, space, ``"#<>?`{}``.
    pub const PATH: Self = Self::CONTROLS.with(b" \"#<>?`{}");

    /// An id as one segment of a path at a sibling service: what the existing client encodes, which
    /// is [`PATH`](Self::PATH), and `%` and `/`, which it should.
    pub const SEGMENT: Self = Self::PATH.with(b"%/");

    /// An absolute path of the file system in a URI: [`PATH`](Self::PATH), `%` and `\`.
    pub const FILE_PATH: Self = Self::PATH.with(b"%\\");

    /// The audience of a SAS token: [`PATH`](Self::PATH) and `=`, and also `%`, `&` and `+`, which
    /// would change meaning if they were left (identity-service 7, DB-24).
    pub const AUDIENCE: Self = Self::PATH.with(b"=%&+");

    /// An id as one segment of a path at IoT Hub or the provisioning service: everything but
    /// letters, digits and `- . _ ~ ! $ ' ( ) * , : @ + ;` (identity-service DB-35).
    pub const HUB_SEGMENT: Self = Self::PUNCTUATION.without(b"-._~!$'()*,:@+;");

    /// A value in an `application/x-www-form-urlencoded` text without spaces (such a text writes a
    /// space as `+`).
    pub const FORM: Self = Self::PUNCTUATION.without(b"*-._");

    /// Everything but letters and digits: a value in a `pkcs11:` URI.
    pub const PUNCTUATION: Self = Self([u32::MAX; 4])
        .without(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        .without(b"abcdefghijklmnopqrstuvwxyz")
        .without(b"0123456789");

    /// A user name or password in a URL.
    pub const USER_INFO: Self = Self::PATH.with(b"/:;=@[\\]^|");

    /// The query of a URL.
    pub const QUERY: Self = Self::CONTROLS.with(b" \"#<>");

    /// The query of an `http:`, `https:` or `file:` URL.
    pub const SPECIAL_QUERY: Self = Self::QUERY.with(b"'");

    /// The fragment of a URL.
    pub const FRAGMENT: Self = Self::CONTROLS.with(b" \"<>`");

    /// Control characters: what no part of a URL can hold.
    pub const CONTROLS: Self = Self([u32::MAX, 0, 0, 1 << 31]);

    /// Displays `text`, every byte of the set as `%` and two upper-case hexadecimal digits.
    pub fn encode<T: AsRef<[u8]> + ?Sized>(self, text: &T) -> Encoded<'_> {
        Encoded {
            bytes: text.as_ref(),
            set: self,
        }
    }

    /// Whether `byte` is encoded.
    #[must_use]
    pub const fn contains(self, byte: u8) -> bool {
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

    /// This set and `characters`, which must be ASCII.
    #[must_use]
    pub const fn with(self, characters: &[u8]) -> Self {
        self.change(characters, true)
    }

    /// This set without `characters`.
    #[must_use]
    pub const fn without(self, characters: &[u8]) -> Self {
        self.change(characters, false)
    }

    const fn change(self, characters: &[u8], member: bool) -> Self {
        let [mut a, mut b, mut c, mut d] = self.0;
        let mut rest = characters;
        while let [byte, tail @ ..] = rest {
            rest = tail;
            let word = match *byte / 32 {
                0 => &mut a,
                1 => &mut b,
                2 => &mut c,
                3 => &mut d,
                _ => continue,
            };
            let bit = 1 << (*byte % 32);
            *word = if member { *word | bit } else { *word & !bit };
        }
        Self([a, b, c, d])
    }
}

/// See [`Set::encode`].
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    bytes: &'a [u8],
    set: Set,
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.bytes;
        while let Some((&first, tail)) = rest.split_first() {
            if self.set.contains(first) {
                write!(f, "%{first:02X}")?;
                rest = tail;
                continue;
            }
            let plain = rest
                .iter()
                .position(|&byte| self.set.contains(byte))
                .unwrap_or(rest.len());
            let (plain, after) = rest.split_at_checked(plain).unwrap_or_default();
            // All that is left as it is is ASCII.
            f.write_str(core::str::from_utf8(plain).unwrap_or_default())?;
            rest = after;
        }
        Ok(())
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
        let (byte, length) = first(self.rest)?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Some(match (byte, length, self.plus) {
            (b'+', 1, Plus::Space) => b' ',
            _ => byte,
        })
    }
}

/// Decodes `text`, in which `+` is itself, in place; the bytes are at the front of the same memory.
pub fn decode_in_place(text: &mut [u8]) -> &mut [u8] {
    let (mut read, mut written) = (0_usize, 0_usize);
    while let Some((byte, length)) = text.get(read..).and_then(first) {
        read = read.saturating_add(length);
        if let Some(place) = text.get_mut(written) {
            *place = byte;
        }
        written = written.saturating_add(1);
    }
    text.get_mut(..written).unwrap_or_default()
}

/// Decodes `text` to the start of `out`; answers the bytes and what is left of `out`, which never
/// needs more bytes than `text` has.
///
/// # Errors
///
/// `out` is too small.
pub fn decode_into<'o>(
    text: &str,
    plus: Plus,
    out: &'o mut [u8],
) -> Result<(&'o mut [u8], &'o mut [u8]), BufferFull> {
    let mut out = Output::new(out);
    for byte in decode(text, plus) {
        out.put(&[byte]);
    }
    out.split()
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
    let (decoded, scratch) = decode_into(text, plus, scratch)?;
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
    let (decoded, scratch) = decode_into(text, plus, scratch)?;
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

impl From<BufferFull> for DecodeError {
    fn from(BufferFull: BufferFull) -> Self {
        Self::BufferFull
    }
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

/// The first byte that `text` stands for, and how many it takes up there: 3 for an escape, else 1.
fn first(text: &[u8]) -> Option<(u8, usize)> {
    if let [b'%', high, low, ..] = text
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some(((high << 4) | low, 3));
    }
    text.first().map(|&byte| (byte, 1))
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
            assert_eq!(Set::SEGMENT.encode(text).to_string(), encoded);
        }
        let text = "a=+&;:@$'(";
        assert_eq!(
            Set::FORM.encode(text).to_string(),
            "a%3D%2B%26%3B%3A%40%24%27%28"
        );
    }

    #[test]
    fn sets() {
        let printable: String = (0x20..0x7f).map(char::from).collect();
        let kept = |set: Set| {
            printable
                .chars()
                .filter(|c| !set.contains(*c as u8))
                .collect::<String>()
        };
        let dropped = |set: Set| {
            printable
                .chars()
                .filter(|c| set.contains(*c as u8))
                .collect::<String>()
        };
        assert_eq!(dropped(Set::PATH), " \"#<>?`{}");
        assert_eq!(dropped(Set::SEGMENT), " \"#%/<>?`{}");
        assert_eq!(dropped(Set::AUDIENCE), " \"#%&+<=>?`{}");
        let alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        assert_eq!(kept(Set::PUNCTUATION), alphanumeric);
        let without_letters = |set| kept(set).replace(char::is_alphanumeric, "");
        assert_eq!(without_letters(Set::HUB_SEGMENT), "!$'()*+,-.:;@_~");
        assert_eq!(without_letters(Set::FORM), "*-._");
        for set in [Set::PATH, Set::AUDIENCE, Set::HUB_SEGMENT, Set::QUERY] {
            assert!((0..0x20).chain(0x7f..=0xff).all(|byte| set.contains(byte)));
        }
    }

    #[test]
    fn is_53_hub_segments() {
        for (id, wire) in [
            ("$edgeAgent", "$edgeAgent"),
            ("Dev=1", "Dev%3D1"),
            ("mod %/é=2", "mod%20%25%2F%C3%A9%3D2"),
            ("a\\b", "a%5Cb"),
            ("a%b", "a%25b"),
            ("a?b#c", "a%3Fb%23c"),
            ("a/../b", "a%2F..%2Fb"),
            ("my-dev_1.x:y", "my-dev_1.x:y"),
        ] {
            assert_eq!(Set::HUB_SEGMENT.encode(id).to_string(), wire);
        }
    }

    #[test]
    fn escapes_that_are_none_stay() {
        for (text, bytes) in [("%41%zz%4", "A%zz%4"), ("%%41", "%A"), ("%+1%", "%+1%")] {
            assert!(decode(text, Plus::Plus).eq(bytes.bytes()), "{text}");
            let mut text = text.to_owned().into_bytes();
            assert_eq!(decode_in_place(&mut text), bytes.as_bytes());
        }
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
        fn round_trip_where_percent_is_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for set in [Set::SEGMENT, Set::FILE_PATH, Set::AUDIENCE, Set::HUB_SEGMENT, Set::PUNCTUATION, Set::FORM] {
                let encoded = set.encode(&bytes).to_string();
                prop_assert!(encoded.is_ascii());
                prop_assert_eq!(decode(&encoded, Plus::Plus).collect::<Vec<_>>(), bytes.clone());
                let mut scratch = vec![0; bytes.len()];
                prop_assert_eq!(&*decode_into(&encoded, Plus::Plus, &mut scratch).unwrap().0, &bytes);
                let mut encoded = encoded.into_bytes();
                prop_assert_eq!(&*decode_in_place(&mut encoded), &bytes);
            }
        }

        #[test]
        fn round_trip_of_text(text in any::<String>()) {
            for set in [Set::SEGMENT, Set::FORM] {
                let encoded = set.encode(&text).to_string();
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
