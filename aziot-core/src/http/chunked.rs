//! The chunked transfer coding (RFC 9112 section 7.1), decoded in place as it arrives.

use core::fmt;

use crate::limits;

/// Decodes one body.
///
/// ```
/// use aziot_core::http::chunked::{Decoder, Step};
///
/// let mut decoder = Decoder::new();
/// let mut buffer = *b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nGET ";
/// let step = decoder.decode(&mut buffer).unwrap();
/// assert_eq!(step, Step { consumed: 24, produced: 5, done: true });
/// assert_eq!(&buffer[..5], b"abcde");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
    /// What is left of the current chunk, or the size read so far.
    size: u64,
    /// Bytes of extensions and trailers so far.
    overhead: usize,
}

/// What [`Decoder::decode`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Encoded bytes used up: all of them, unless the body ended.
    pub consumed: usize,
    /// Decoded bytes, now at the front of the buffer.
    pub produced: usize,
    /// The body is complete. What follows it belongs to the next message.
    pub done: bool,
}

impl Decoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Start,
            size: 0,
            overhead: 0,
        }
    }

    /// Decodes the encoded bytes in `buffer`, and moves the decoded ones to its front.
    ///
    /// Bytes behind `consumed` stay where they are.
    ///
    /// # Errors
    ///
    /// The coding is malformed. The decoder must not be used further.
    pub fn decode(&mut self, buffer: &mut [u8]) -> Result<Step, Error> {
        let mut read = 0_usize;
        let mut written = 0_usize;
        while self.state != State::Done {
            if self.state == State::Data {
                let available = buffer.len().saturating_sub(read);
                if available == 0 {
                    break;
                }
                let take = usize::try_from(self.size).map_or(available, |size| size.min(available));
                let end = read.saturating_add(take);
                if read != written {
                    buffer.copy_within(read..end, written);
                }
                read = end;
                written = written.saturating_add(take);
                self.size = self.size.saturating_sub(take as u64);
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let Some(&byte) = buffer.get(read) else {
                break;
            };
            read = read.saturating_add(1);
            self.state = self.step(byte)?;
        }
        Ok(Step {
            consumed: read,
            produced: written,
            done: self.state == State::Done,
        })
    }

    /// The state after a byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, Error> {
        let digit = char::from(byte).to_digit(16);
        Ok(match (self.state, byte) {
            (State::Start, _) => {
                self.size = digit.ok_or(Error::MissingSize)?.into();
                State::Size
            }
            (State::Size, _) if digit.is_some() => {
                self.size = self
                    .size
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit.unwrap_or_default().into()))
                    .ok_or(Error::SizeOverflow)?;
                State::Size
            }
            (State::Size | State::SizeSpace, b' ' | b'\t') => {
                self.count()?;
                State::SizeSpace
            }
            (State::Size | State::SizeSpace, b';') => State::Extension,
            (State::Size | State::SizeSpace | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::SizeSpace, b'\n') => self.after_size(),
            (State::Size | State::SizeSpace, _) => return Err(Error::InvalidSize),
            // A bare line end hides where an extension ends from stricter readers.
            (State::Extension, b'\n') => return Err(Error::LineEnd),
            (State::Extension, _) => {
                self.count()?;
                State::Extension
            }
            (State::SizeLf, b'\n') => self.after_size(),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::EndLf, b'\n') => State::Done,
            (State::Trailer, b'\n') => State::TrailerStart,
            (State::TrailerStart | State::Trailer, _) => {
                self.count()?;
                State::Trailer
            }
            (State::SizeLf | State::DataCr | State::DataLf | State::EndLf, _) => {
                return Err(Error::LineEnd);
            }
            (State::Data | State::Done, _) => self.state,
        })
    }

    fn after_size(&self) -> State {
        if self.size == 0 {
            State::TrailerStart
        } else {
            State::Data
        }
    }

    fn count(&mut self) -> Result<(), Error> {
        self.overhead = self.overhead.saturating_add(1);
        if self.overhead > limits::CHUNK_OVERHEAD {
            return Err(Error::TooMuchOverhead);
        }
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Data,
    DataCr,
    DataLf,
    Done,
    EndLf,
    Extension,
    Size,
    SizeLf,
    SizeSpace,
    Start,
    Trailer,
    TrailerStart,
}

/// Why a chunked body was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// A chunk size contains something that is not a hexadecimal digit.
    InvalidSize,
    /// A line end is not where it must be.
    LineEnd,
    /// A line that must start with a chunk size does not.
    MissingSize,
    /// A chunk size has more than 64 bits.
    SizeOverflow,
    /// Extensions and trailers exceed [`limits::CHUNK_OVERHEAD`].
    TooMuchOverhead,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidSize => f.write_str("Invalid chunk size line: not a hexadecimal number"),
            Self::LineEnd => f.write_str("Invalid chunk: line end missing or out of place"),
            Self::MissingSize => f.write_str("Invalid chunk size line: missing size digit"),
            Self::SizeOverflow => f.write_str("Invalid chunk size line: number too large"),
            Self::TooMuchOverhead => write!(
                f,
                "chunk extensions and trailers exceed {} bytes",
                limits::CHUNK_OVERHEAD
            ),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(text: &[u8]) -> Result<(Vec<u8>, usize, bool), Error> {
        let mut buffer = text.to_vec();
        let step = Decoder::new().decode(&mut buffer)?;
        Ok((buffer[..step.produced].to_vec(), step.consumed, step.done))
    }

    #[test]
    fn ht_10_vector_37_one_chunk() {
        let text = b"d\r\n{\"keyId\":\"k\"}\r\n0\r\n\r\n";
        let (body, consumed, done) = decode(text).unwrap();
        assert_eq!(body, b"{\"keyId\":\"k\"}");
        assert!(done);
        assert_eq!(consumed, text.len());
    }

    #[test]
    fn forms_of_chunks() {
        for text in [
            &b"3\r\nabc\r\n0\r\n\r\n"[..],
            b"03;a=b;c\r\nabc\r\n000\r\n\r\n",
            b"1 \r\na\r\n2\t ;x\r\nbc\r\n0\r\ntrailer: x\r\nother: y\r\n\r\n",
            b"3\nabc\r\n0\n\n",
        ] {
            assert_eq!(decode(text), Ok((b"abc".to_vec(), text.len(), true)));
        }
        assert_eq!(
            decode(b"0\r\n\r\nGET / HTTP/1.1\r\n"),
            Ok((Vec::new(), 5, true))
        );
        assert_eq!(decode(b"5\r\nab"), Ok((b"ab".to_vec(), 5, false)));
    }

    #[test]
    fn malformed_chunks() {
        assert_eq!(
            decode(b"\r\n").unwrap_err().to_string(),
            "Invalid chunk size line: missing size digit"
        );
        assert_eq!(decode(b"x\r\n"), Err(Error::MissingSize));
        assert_eq!(decode(b"3x\r\n"), Err(Error::InvalidSize));
        assert_eq!(decode(b"1\rx"), Err(Error::LineEnd));
        assert_eq!(decode(b"1\r\nab"), Err(Error::LineEnd));
        assert_eq!(decode(b"1;x\n"), Err(Error::LineEnd));
        assert_eq!(decode(b"ffffffffffffffffff\r\n"), Err(Error::SizeOverflow));
        let mut long = b"1;".to_vec();
        long.resize(limits::CHUNK_OVERHEAD + 3, b'x');
        assert_eq!(decode(&long), Err(Error::TooMuchOverhead));
        let mut long = b"0\r\n".to_vec();
        long.resize(limits::CHUNK_OVERHEAD + 4, b'x');
        assert_eq!(decode(&long), Err(Error::TooMuchOverhead));
    }

    proptest! {
        /// Any body, cut into any chunks, arriving in any pieces.
        #[test]
        fn round_trip(
            chunks in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            piece in 1..17_usize,
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let mut decoder = Decoder::new();
            let mut body = Vec::new();
            let mut done = false;
            for piece in text.chunks_mut(piece) {
                prop_assert!(!done);
                let step = decoder.decode(piece).unwrap();
                body.extend_from_slice(&piece[..step.produced]);
                prop_assert_eq!(step.consumed, piece.len());
                done = step.done;
            }
            prop_assert!(done);
            prop_assert_eq!(body, chunks.concat());
        }

        #[test]
        fn any_bytes_are_answered(mut bytes in any::<Vec<u8>>()) {
            if let Ok(step) = Decoder::new().decode(&mut bytes) {
                prop_assert!(step.produced <= step.consumed && step.consumed <= bytes.len());
            }
        }
    }
}
