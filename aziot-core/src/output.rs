//! Text written into a caller's buffer, with the length it needs known even when it does not fit.

use core::fmt;

/// Appends to a slice. Goes on counting when the slice is full, so that the error can say how much room is needed.
#[derive(Debug)]
pub struct Output<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Output<'a> {
    /// Writes from the start of `buffer`.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    /// Appends `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.buffer.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
        }
        self.length = end;
    }

    /// Appends `text`.
    pub fn put_str(&mut self, text: &str) {
        self.put(text.as_bytes());
    }

    /// Appends `text` as a JSON string, quotes included. Only quotes, backslashes and control characters are escaped.
    pub fn put_json_string(&mut self, text: &str) {
        self.put(b"\"");
        let mut rest = text.as_bytes();
        while let Some(at) = rest
            .iter()
            .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
        {
            let Some((before, [special, after @ ..])) = rest.split_at_checked(at) else {
                break;
            };
            self.put(before);
            match *special {
                b'"' => self.put(b"\\\""),
                b'\\' => self.put(b"\\\\"),
                0x08 => self.put(b"\\b"),
                b'\t' => self.put(b"\\t"),
                b'\n' => self.put(b"\\n"),
                0x0c => self.put(b"\\f"),
                b'\r' => self.put(b"\\r"),
                control => {
                    self.put(b"\\u00");
                    self.put_hex(control, b'a');
                }
            }
            rest = after;
        }
        self.put(rest);
        self.put(b"\"");
    }

    /// Appends two hex digits, `ten` being the digit for ten (`a` or `A`).
    pub(crate) fn put_hex(&mut self, byte: u8, ten: u8) {
        let digit = |nibble: u8| match nibble {
            0..=9 => b'0'.wrapping_add(nibble),
            _ => ten.wrapping_add(nibble.wrapping_sub(10)),
        };
        self.put(&[digit(byte >> 4), digit(byte & 0xf)]);
    }

    /// Bytes appended so far, whether they fitted or not.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is appended yet.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether everything appended so far is in the buffer and no more will fit.
    pub const fn is_full(&self) -> bool {
        self.length == self.buffer.len()
    }

    /// What is in the buffer so far.
    pub(crate) fn written(&self) -> &[u8] {
        self.buffer
            .get(..self.length.min(self.buffer.len()))
            .unwrap_or_default()
    }

    /// Drops everything after the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// The bytes written, for changing, and the rest of the buffer.
    ///
    /// # Errors
    /// Not everything fitted.
    pub fn split(self) -> Result<(&'a mut [u8], &'a mut [u8]), BufferFull> {
        let full = BufferFull {
            needed: self.length,
        };
        self.buffer.split_at_mut_checked(self.length).ok_or(full)
    }

    /// The bytes written.
    ///
    /// # Errors
    /// Not everything fitted.
    pub fn finish(self) -> Result<&'a [u8], BufferFull> {
        self.split().map(|(written, _)| &*written)
    }

    /// The text written.
    ///
    /// # Errors
    /// Not everything fitted.
    pub fn finish_str(self) -> Result<&'a str, BufferFull> {
        let needed = self.length;
        // Only whole texts are appended, so this is UTF-8 whenever it is complete.
        core::str::from_utf8(self.finish()?).map_err(|_| BufferFull { needed })
    }
}

impl fmt::Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put_str(text);
        Ok(())
    }
}

/// A buffer is too small for what was to be written to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BufferFull {
    /// Bytes it would have taken.
    pub needed: usize,
}

impl fmt::Display for BufferFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the text takes {} bytes, more than there is room for",
            self.needed
        )
    }
}

impl core::error::Error for BufferFull {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_beyond_the_end() {
        let mut buffer = [0; 4];
        let mut output = Output::new(&mut buffer);
        output.put_str("abc");
        assert_eq!(output.written(), b"abc");
        output.put_str("def");
        assert_eq!(output.finish(), Err(BufferFull { needed: 6 }));
    }

    proptest! {
        #[test]
        fn json_strings_equal_serde(text in any::<String>()) {
            let mut buffer = vec![0; text.len() * 6 + 2];
            let mut output = Output::new(&mut buffer);
            output.put_json_string(&text);
            prop_assert_eq!(output.finish_str().unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
