//! Text form of certificates and the like (PEM, RFC 7468).
//!
//! Reading takes what OpenSSL takes: text around blocks, CRLF, lines of any length, header lines of RFC 1421 before the
//! Base64. Only lines that begin with `-----BEGIN ` start a block.

use core::fmt;

use zeroize::Zeroizing;

use crate::base64::{self, DecodeIntoError, Padding};
use crate::output::{BufferFull, Output};

/// The blocks of a text, in order. What is outside of them is skipped.
#[must_use]
pub const fn blocks(text: &[u8]) -> Blocks<'_> {
    Blocks { rest: text }
}

/// See [`blocks`].
#[derive(Clone, Debug)]
pub struct Blocks<'t> {
    rest: &'t [u8],
}

impl<'t> Iterator for Blocks<'t> {
    type Item = Block<'t>;

    fn next(&mut self) -> Option<Block<'t>> {
        let label = loop {
            let (line, rest) = split_line(self.rest)?;
            self.rest = rest;
            if let Some(label) = label(line, BEGIN) {
                break label;
            }
        };
        let body = self.rest;
        let end = |rest: &[u8]| body.len().saturating_sub(rest.len());
        loop {
            let (body_end, line_and_rest) = (end(self.rest), self.rest);
            let boundary = match split_line(self.rest) {
                None => Boundary::Missing,
                // The next block has begun before this one has ended, and is read as one of its own.
                Some((line, _)) if line.starts_with(BEGIN) => Boundary::Missing,
                Some((line, rest)) => {
                    self.rest = rest;
                    if !line.starts_with(END) {
                        continue;
                    }
                    match self::label(line, END) {
                        Some(ended) if ended == label => Boundary::Right,
                        _ => Boundary::Wrong,
                    }
                }
            };
            if boundary == Boundary::Missing {
                self.rest = line_and_rest;
            }
            return Some(Block {
                label,
                body: body.get(..body_end).unwrap_or_default(),
                boundary,
            });
        }
    }
}

/// One block: what is between a line `-----BEGIN label-----` and the line that ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block<'t> {
    /// What it says it is, such as `CERTIFICATE`.
    pub label: &'t str,
    /// The lines in between: Base64, maybe after header lines.
    pub body: &'t [u8],
    boundary: Boundary,
}

impl Block<'_> {
    /// Decodes the content to the front of `out`.
    ///
    /// # Errors
    ///
    /// [`Error::BufferFull`] if `out` is too short ([`max_len`](Self::max_len) is enough), otherwise what is wrong with
    /// the block. The content of `out` is unspecified then.
    pub fn decode<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], Error> {
        match self.boundary {
            Boundary::Right => (),
            Boundary::Wrong => return Err(Error::WrongEnd),
            Boundary::Missing => return Err(Error::NoEnd),
        }
        let text = without_headers(self.body)?;
        let mut length = 0_usize;
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        let mut text = text
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .peekable();
        while text.peek().is_some() {
            let mut used = 0_usize;
            for (place, symbol) in symbols.iter_mut().zip(text.by_ref()) {
                *place = symbol;
                used = used.saturating_add(1);
            }
            let piece = symbols.get(..used).unwrap_or_default();
            // Padding ends the text, so it can only be in the last piece.
            if text.peek().is_some() && piece.contains(&b'=') {
                return Err(Error::Base64(base64::Error::InvalidPadding));
            }
            let place = out.get_mut(length..).unwrap_or_default();
            let decoded = base64::decode_into(piece, Padding::Required, place)?;
            length = length.saturating_add(decoded.len());
        }
        if length == 0 {
            return Err(Error::Empty);
        }
        out.get(..length).ok_or(Error::BufferFull)
    }

    /// Bytes that are enough for the content.
    #[must_use]
    pub const fn max_len(&self) -> usize {
        base64::max_decoded_len(self.body.len())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Boundary {
    Right,
    Wrong,
    Missing,
}

/// How many bytes [`encode`] writes; `usize::MAX` if that does not fit.
#[must_use]
pub const fn encoded_len(label: &str, der_len: usize) -> usize {
    let symbols = base64::encoded_len(der_len);
    // Both boundaries with their labels, dashes and line ends.
    let boundaries = (BEGIN.len() + END.len() + 2 * (DASHES.len() + 1))
        .saturating_add(label.len().saturating_mul(2));
    symbols
        .saturating_add(symbols.div_ceil(LINE))
        .saturating_add(boundaries)
}

/// Writes a block: lines of 64 characters that end with LF, the last one too.
///
/// # Errors
///
/// `out` is shorter than [`encoded_len`].
pub fn encode<'o>(label: &str, der: &[u8], out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
    let mut output = Output::new(out);
    output.put(BEGIN);
    output.put_str(label);
    output.put(DASHES);
    output.put(b"\n");
    for line in der.chunks(LINE / 4 * 3) {
        output.write_fmt(format_args!("{}\n", base64::Encoded(line)));
    }
    output.put(END);
    output.put_str(label);
    output.put(DASHES);
    output.put(b"\n");
    output.finish_str()
}

/// Characters of a line of Base64 (RFC 7468 section 2).
const LINE: usize = 64;

/// Symbols decoded at a time, a multiple of four.
const SYMBOLS: usize = 64;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The first line without its end, and the rest. A last line without an end counts.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let end = text.iter().position(|byte| *byte == b'\n');
    let (line, rest) = match end {
        Some(end) => (
            text.get(..end).unwrap_or_default(),
            text.get(end.saturating_add(1)..).unwrap_or_default(),
        ),
        None => (text, &[][..]),
    };
    Some((line.trim_ascii_end(), rest))
}

/// The label of a boundary line.
fn label<'t>(line: &'t [u8], prefix: &[u8]) -> Option<&'t str> {
    let label = line.strip_prefix(prefix)?.strip_suffix(DASHES)?;
    core::str::from_utf8(label).ok()
}

/// A block's body after its header lines and the empty line that ends them, if it has any.
fn without_headers(body: &[u8]) -> Result<&[u8], Error> {
    let Some((first, _)) = split_line(body).filter(|(line, _)| line.contains(&b':')) else {
        return Ok(body);
    };
    if first.starts_with(b"Proc-Type:") && first.ends_with(b"ENCRYPTED") {
        return Err(Error::Encrypted);
    }
    let mut rest = body;
    while let Some((line, after)) = split_line(rest) {
        rest = after;
        if line.is_empty() {
            return Ok(rest);
        }
    }
    Err(Error::Headers)
}

/// A block cannot be decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// It is not Base64; offsets are within a piece of the text.
    Base64(base64::Error),
    /// The content does not fit in the buffer.
    BufferFull,
    /// Nothing is between the boundaries.
    Empty,
    /// The content is encrypted with a passphrase.
    Encrypted,
    /// Header lines are not followed by an empty line.
    Headers,
    /// No line ends the block.
    NoEnd,
    /// The line that ends the block has another label, or something after it.
    WrongEnd,
}

impl From<DecodeIntoError> for Error {
    fn from(error: DecodeIntoError) -> Self {
        match error {
            DecodeIntoError::BufferFull => Self::BufferFull,
            DecodeIntoError::Text(error) => Self::Base64(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64(_) => "what is between the PEM boundaries is not Base64",
            Self::BufferFull => "the content of the PEM block is too long",
            Self::Empty => "there is nothing between the PEM boundaries",
            Self::Encrypted => "the content of the PEM block is encrypted with a passphrase",
            Self::Headers => "no empty line separates the headers of the PEM block from its content",
            Self::NoEnd => "no line -----END …----- ends the PEM block",
            Self::WrongEnd => {
                "the line that ends the PEM block does not belong to the one that begins it, or has something after it"
            }
        })
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests;
