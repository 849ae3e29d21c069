//! Base64 with the standard alphabet (RFC 4648 section 4), decoded strictly.
//!
//! Padding is mandatory unless the caller says otherwise, the final symbol must be canonical, and
//! nothing outside the alphabet is tolerated, white space included. Well-formed text is decoded in
//! constant time with respect to its content, because most of it is key material. The texts of
//! [`Error`] are part of the services' API.

use core::fmt;

use base64ct::{Base64, Base64Unpadded, Encoding as _};
use zeroize::Zeroizing;

use crate::output::BufferFull;

/// Decodes `text` in place; the bytes are at the front of the same memory.
///
/// # Errors
///
/// Names the first offending symbol. The content of `text` is unspecified afterwards.
pub fn decode(text: &mut [u8], padding: Padding) -> Result<&mut [u8], Error> {
    let length = decode_in_place(text, padding)?;
    Ok(text.get_mut(..length).unwrap_or_default())
}

/// As [`decode`], but answers only how many bytes there are.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_in_place(text: &mut [u8], padding: Padding) -> Result<usize, Error> {
    // Block by block through a small buffer, so that a block with an error is still there to be
    // described.
    let mut block = Zeroizing::new([0; BLOCK_BYTES]);
    let last = last_quad(text)?;
    let mut read = 0;
    let mut written = 0;
    while let Some(symbols) = block_at(text, read, last) {
        let length = decode_quads(symbols, read, &mut block)?;
        read = read.saturating_add(symbols.len());
        written = append(text, written, &block, length).unwrap_or(written);
    }
    let length = decode_last(
        text.get(last..).unwrap_or_default(),
        last,
        padding,
        &mut block,
    )?;
    Ok(append(text, written, &block, length).unwrap_or(written))
}

/// As [`decode`] with mandatory padding, some five times as fast, because it looks symbols up in a table: the time it
/// takes can tell something of the content. For text that whoever could measure it has sent itself, such as a handle.
///
/// `None` for any text that [`decode`] refuses. The content of `text` is unspecified then.
pub fn decode_public(text: &mut [u8]) -> Option<&mut [u8]> {
    let Some(last) = text.len().checked_sub(4) else {
        return text.is_empty().then_some(text);
    };
    let mut written = 0_usize;
    let mut read = 0_usize;
    let mut foreign = 0;
    // More bytes are written than there are. They are behind what has been read, and overwritten by the next ones.
    while read.saturating_add(8) <= last {
        let [a, b, c, d, e, f, g, h] = *text.get(read..)?.first_chunk::<8>()?;
        let (first, symbols) = quad([a, b, c, d]);
        let (second, more_symbols) = quad([e, f, g, h]);
        foreign |= symbols | more_symbols;
        let place = text.get_mut(written..)?.first_chunk_mut::<8>()?;
        *place = (u64::from(first) << 40 | u64::from(second) << 16).to_be_bytes();
        read = read.saturating_add(8);
        written = written.saturating_add(6);
    }
    if read < last {
        let (bits, symbols) = quad(*text.get(read..)?.first_chunk::<4>()?);
        foreign |= symbols;
        let place = text.get_mut(written..)?.first_chunk_mut::<4>()?;
        *place = (bits << 8).to_be_bytes();
        read = read.saturating_add(4);
        written = written.saturating_add(3);
    }
    // Which fails unless all before were complete.
    let [a, b, c, d] = <[u8; 4]>::try_from(text.get(read..)?).ok()?;
    let (length, c, d) = match (c, d) {
        (b'=', b'=') => (1, b'A', b'A'),
        (c, b'=') => (2, c, b'A'),
        (c, d) => (3, c, d),
    };
    let (bits, symbols) = quad([a, b, c, d]);
    let [_, bytes @ ..] = bits.to_be_bytes();
    let (bytes, surplus) = bytes.split_at_checked(length)?;
    // Bits that belong to no byte must be zero.
    if (foreign | symbols) & 0xc0 != 0 || surplus.iter().any(|byte| *byte != 0) {
        return None;
    }
    let end = written.saturating_add(length);
    text.get_mut(written..end)?.copy_from_slice(bytes);
    text.get_mut(..end)
}

/// The 24 bits of four symbols, and what is above 63 if one of them is none.
fn quad(symbols: [u8; 4]) -> (u32, u8) {
    let [a, b, c, d] = symbols.map(value);
    let bits = u32::from(a) << 18 | u32::from(b) << 12 | u32::from(c) << 6 | u32::from(d);
    (bits, a | b | c | d)
}

/// The six bits of a symbol; anything above 63 is none.
fn value(symbol: u8) -> u8 {
    #[allow(
        clippy::indexing_slicing,
        reason = "computed when compiling, where it cannot panic later"
    )]
    const VALUES: [u8; 256] = {
        let mut values = [0xff; 256];
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut at = 0;
        while at < alphabet.len() {
            values[alphabet[at] as usize] = at as u8;
            at += 1;
        }
        values
    };
    VALUES.get(usize::from(symbol)).copied().unwrap_or(0xff)
}

/// Decodes `text` into `out`, and answers the bytes.
///
/// # Errors
///
/// [`DecodeIntoError::Text`] as for [`decode`]; [`DecodeIntoError::BufferFull`] if `out` is
/// shorter than the bytes. The content of `out` is unspecified then.
pub fn decode_into<'o>(
    text: &[u8],
    padding: Padding,
    out: &'o mut [u8],
) -> Result<&'o mut [u8], DecodeIntoError> {
    let mut block = Zeroizing::new([0; BLOCK_BYTES]);
    let last = last_quad(text)?;
    let mut read = 0;
    let mut written = 0;
    while let Some(symbols) = block_at(text, read, last) {
        let length = decode_quads(symbols, read, &mut block)?;
        read = read.saturating_add(symbols.len());
        written = append(out, written, &block, length).ok_or(DecodeIntoError::BufferFull)?;
    }
    let length = decode_last(
        text.get(last..).unwrap_or_default(),
        last,
        padding,
        &mut block,
    )?;
    let end = append(out, written, &block, length).ok_or(DecodeIntoError::BufferFull)?;
    Ok(out.get_mut(..end).unwrap_or_default())
}

/// Encodes `bytes` with padding into `out`, and answers the text.
///
/// # Errors
///
/// [`BufferFull`] if `out` is shorter than [`encoded_len`].
pub fn encode<'o>(bytes: &[u8], out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
    Base64::encode(bytes, out).map_err(|_| BufferFull)
}

/// How many characters the padded text of `bytes` bytes has; `usize::MAX` if that does not fit.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    match bytes.div_ceil(3).checked_mul(4) {
        Some(length) => length,
        None => usize::MAX,
    }
}

/// The most bytes that a text of `symbols` characters can stand for.
#[must_use]
pub const fn max_decoded_len(symbols: usize) -> usize {
    // No product that could overflow: three bytes a quad, and at most two in a part of one.
    let quads = symbols / 4;
    let rest = match symbols % 4 {
        3 => 2,
        2 => 1,
        _ => 0,
    };
    (quads * 3) + rest
}

/// Writes the padded text of some bytes with [`Display`](fmt::Display), without a buffer.
#[derive(Clone, Copy)]
pub struct Encoded<'a>(pub &'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A multiple of three bytes at a time leaves the padding to the last piece.
        let mut text = Zeroizing::new([0; BLOCK_SYMBOLS]);
        self.0.chunks(BLOCK_BYTES).try_for_each(|bytes| {
            let text = encode(bytes, text.as_mut_slice()).map_err(|BufferFull| fmt::Error)?;
            f.write_str(text)
        })
    }
}

/// What [`decode`] does about `=`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Padding {
    /// Text must be padded; this is the rule of the HTTP interfaces.
    Required,
    /// Text may be padded, or carry no padding at all; for keys that people type or paste.
    Optional,
}

/// Text is not Base64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// The final symbol carries bits that belong to no byte.
    InvalidLastSymbol {
        /// Where it is, counted from 0.
        offset: usize,
        /// The symbol, as a byte.
        symbol: u8,
    },
    /// No byte sequence has a text with this number of symbols.
    InvalidLength(usize),
    /// Padding is missing, incomplete, or present where there must be none.
    InvalidPadding,
    /// A symbol is not in the alphabet, or is padding inside the text.
    InvalidSymbol {
        /// Where it is, counted from 0.
        offset: usize,
        /// The symbol, as a byte.
        symbol: u8,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::InvalidLastSymbol { offset, symbol } => {
                write!(f, "Invalid last symbol {symbol}, offset {offset}.")
            }
            Self::InvalidLength(length) => write!(f, "Invalid input length: {length}"),
            Self::InvalidPadding => f.write_str("Invalid padding"),
            Self::InvalidSymbol { offset, symbol } => {
                write!(f, "Invalid symbol {symbol}, offset {offset}.")
            }
        }
    }
}

impl core::error::Error for Error {}

/// Why [`decode_into`] failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeIntoError {
    /// The bytes do not fit in the buffer.
    BufferFull,
    /// The text is not Base64.
    Text(Error),
}

impl From<Error> for DecodeIntoError {
    fn from(error: Error) -> Self {
        Self::Text(error)
    }
}

impl fmt::Display for DecodeIntoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull => BufferFull.fmt(f),
            Self::Text(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DecodeIntoError {}

/// Where the last quad starts, which is the one that may be padded or incomplete.
fn last_quad(text: &[u8]) -> Result<usize, Error> {
    let rest = text.len() % 4;
    if let (1, Some((&symbol, head))) = (rest, text.split_last())
        && symbol != PAD
        && !is_symbol(symbol)
    {
        // Most likely a line end after the text: say so, rather than complain about the length.
        return Err(Error::InvalidSymbol {
            offset: head.len(),
            symbol,
        });
    }
    let last = if rest == 0 { 4 } else { rest };
    Ok(text.len().saturating_sub(last))
}

/// The complete quads from `read` on, at most a block of them, that lie before `last`.
fn block_at(text: &[u8], read: usize, last: usize) -> Option<&[u8]> {
    let end = read.saturating_add(BLOCK_SYMBOLS).min(last);
    text.get(read..end).filter(|symbols| !symbols.is_empty())
}

/// Decodes complete quads without padding; `offset` is where they start in the whole text.
fn decode_quads(
    symbols: &[u8],
    offset: usize,
    out: &mut [u8; BLOCK_BYTES],
) -> Result<usize, Error> {
    match Base64Unpadded::decode(symbols, out) {
        Ok(bytes) => Ok(bytes.len()),
        Err(_) => Err(first_foreign(symbols, offset).unwrap_or(Error::InvalidPadding)),
    }
}

/// Decodes the last quad, which may be padded or incomplete.
fn decode_last(
    symbols: &[u8],
    offset: usize,
    padding: Padding,
    out: &mut [u8; BLOCK_BYTES],
) -> Result<usize, Error> {
    let unpadded = symbols
        .iter()
        .position(|&symbol| symbol == PAD)
        .unwrap_or(symbols.len());
    let (symbols, pad) = symbols.split_at_checked(unpadded).unwrap_or_default();
    if let Some(error) = first_foreign(symbols, offset) {
        return Err(error);
    }
    // Padding after fewer than two symbols, or with something behind it, is a symbol out of place.
    if !pad.is_empty() && (symbols.len() < 2 || pad.iter().any(|&symbol| symbol != PAD)) {
        return Err(Error::InvalidSymbol {
            offset: offset.saturating_add(unpadded),
            symbol: PAD,
        });
    }
    if symbols.len() == 1 {
        return Err(Error::InvalidLength(offset.saturating_add(1)));
    }
    let complete = symbols.len().saturating_add(pad.len()) % 4 == 0;
    if !complete && (padding == Padding::Required || !pad.is_empty()) {
        return Err(Error::InvalidPadding);
    }
    match Base64Unpadded::decode(symbols, out) {
        Ok(bytes) => Ok(bytes.len()),
        Err(_) => Err(Error::InvalidLastSymbol {
            offset: offset.saturating_add(unpadded.saturating_sub(1)),
            symbol: symbols.last().copied().unwrap_or_default(),
        }),
    }
}

/// The error about the first symbol that is not in the alphabet.
fn first_foreign(symbols: &[u8], offset: usize) -> Option<Error> {
    symbols.iter().enumerate().find_map(|(index, &symbol)| {
        (!is_symbol(symbol)).then(|| Error::InvalidSymbol {
            offset: offset.saturating_add(index),
            symbol,
        })
    })
}

const fn is_symbol(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Copies the first `length` bytes of `block` to `place` in `out`; the end of the copy, if it fits.
fn append(out: &mut [u8], place: usize, block: &[u8; BLOCK_BYTES], length: usize) -> Option<usize> {
    let end = place.checked_add(length)?;
    out.get_mut(place..end)?
        .copy_from_slice(block.get(..length)?);
    Some(end)
}

const PAD: u8 = b'=';

/// Symbols decoded at a time: enough to amortise the call, little stack.
const BLOCK_SYMBOLS: usize = 64;
const BLOCK_BYTES: usize = BLOCK_SYMBOLS / 4 * 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &[u8], padding: Padding) -> Result<Vec<u8>, String> {
        let mut buffer = text.to_vec();
        let in_place = decode(&mut buffer, padding)
            .map(|bytes| bytes.to_vec())
            .map_err(|error| error.to_string());
        let mut out = vec![0; max_decoded_len(text.len())];
        let copied = decode_into(text, padding, &mut out)
            .map(|bytes| bytes.to_vec())
            .map_err(|error| error.to_string());
        assert_eq!(in_place, copied);
        in_place
    }

    #[test]
    fn the_fast_decoder_agrees_with_the_strict_one() {
        proptest!(|(bytes: Vec<u8>, change: Option<(u8, proptest::sample::Index)>)| {
            let mut text = format!("{}", Encoded(&bytes)).into_bytes();
            if let Some((byte, at)) = change && !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let (mut one, mut other) = (text.clone(), text);
            let strict = decode(&mut one, Padding::Required).ok();
            prop_assert_eq!(strict, decode_public(&mut other));
        });
        for text in [
            "", "QQ==", "QUI=", "QUJD", "QQ", "QQ=", "QR==", "QUJ=", "Q Q=", "====", "=QQQ",
            "QQ==QUJD", "-_-_",
        ] {
            let (mut one, mut other) = (text.as_bytes().to_vec(), text.as_bytes().to_vec());
            assert_eq!(
                decode(&mut one, Padding::Required).ok(),
                decode_public(&mut other),
                "{text}"
            );
        }
    }

    #[test]
    fn ks_10_table_of_the_keys_service() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("QQ==", b"A"),
            ("QUI=", b"AB"),
            ("QUJD", b"ABC"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(run(text.as_bytes(), Padding::Required).unwrap(), bytes);
        }
        for (text, error) in [
            ("QQ", "Invalid padding"),
            ("QQ=", "Invalid padding"),
            ("Q", "Invalid input length: 1"),
            ("QR==", "Invalid last symbol 82, offset 1."),
            ("QUJ=", "Invalid last symbol 74, offset 2."),
            ("Q Q==", "Invalid symbol 32, offset 1."),
            ("QQ==\n", "Invalid symbol 10, offset 4."),
            ("-_-_", "Invalid symbol 45, offset 0."),
            ("@@", "Invalid symbol 64, offset 0."),
            ("YQ", "Invalid padding"),
            ("_-8=", "Invalid symbol 95, offset 0."),
            ("====", "Invalid symbol 61, offset 0."),
            ("Y===", "Invalid symbol 61, offset 1."),
            ("YQ=Q", "Invalid symbol 61, offset 2."),
            ("QUJDQ", "Invalid input length: 5"),
        ] {
            assert_eq!(run(text.as_bytes(), Padding::Required).unwrap_err(), error);
        }
    }

    #[test]
    fn sc_07_table_of_inline_keys() {
        for (text, result) in [
            ("YQ==", Ok(b"a".to_vec())),
            ("YQ", Ok(b"a".to_vec())),
            ("YQ=", Err("Invalid padding")),
            ("YQ===", Err("Invalid symbol 61, offset 2.")),
            ("YR==", Err("Invalid last symbol 82, offset 1.")),
            ("YR", Err("Invalid last symbol 82, offset 1.")),
            (" YQ==", Err("Invalid symbol 32, offset 0.")),
            ("YQ-_", Err("Invalid symbol 45, offset 2.")),
            ("A", Err("Invalid input length: 1")),
            ("", Ok(Vec::new())),
        ] {
            let result = result.map_err(str::to_owned);
            assert_eq!(run(text.as_bytes(), Padding::Optional), result, "{text}");
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(encoded_len(0), 0);
        assert_eq!(encoded_len(1), 4);
        assert_eq!(encoded_len(64), 88);
        assert_eq!(encoded_len(usize::MAX), usize::MAX);
        assert_eq!(max_decoded_len(2), 1);
        assert_eq!(max_decoded_len(88), 66);
        assert!(max_decoded_len(usize::MAX) < usize::MAX);
    }

    #[test]
    fn short_buffers_are_refused() {
        assert_eq!(encode(b"ab", &mut [0; 3]), Err(BufferFull));
        assert_eq!(
            decode_into(b"QUJD", Padding::Required, &mut [0; 2]),
            Err(DecodeIntoError::BufferFull)
        );
    }

    proptest! {
        #[test]
        fn round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut text = vec![0; encoded_len(bytes.len())];
            let encoded = encode(&bytes, &mut text).unwrap().to_owned();
            prop_assert_eq!(encoded.len(), encoded_len(bytes.len()));
            prop_assert_eq!(Encoded(&bytes).to_string(), encoded.clone());
            prop_assert_eq!(run(encoded.as_bytes(), Padding::Required), Ok(bytes.clone()));
            let unpadded = encoded.trim_end_matches('=');
            prop_assert_eq!(run(unpadded.as_bytes(), Padding::Optional), Ok(bytes));
        }

        /// One symbol replaced by a foreign byte is found, wherever it is.
        #[test]
        fn foreign_symbols_are_located(
            quads in 1..60_usize,
            place in any::<proptest::sample::Index>(),
            symbol in any::<u8>().prop_filter("foreign", |&b| !is_symbol(b) && b != PAD),
        ) {
            let mut text = vec![b'A'; quads * 4];
            let offset = place.index(text.len());
            text[offset] = symbol;
            prop_assert_eq!(
                decode_in_place(&mut text, Padding::Required),
                Err(Error::InvalidSymbol { offset, symbol })
            );
        }

        #[test]
        fn any_input_is_answered(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(bytes) = run(&text, Padding::Required) {
                // Whatever is accepted is the one text of its bytes.
                prop_assert_eq!(Encoded(&bytes).to_string().into_bytes(), text);
            }
        }
    }
}
