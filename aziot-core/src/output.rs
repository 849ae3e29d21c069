//! Text written into a caller's buffer.

use core::fmt;

/// Appends to a slice. When the slice is full it goes on counting, and only the end of the work is an error.
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

    /// Appends `value` in decimal.
    pub fn put_decimal(&mut self, mut value: usize) {
        let mut digits = [0; 20];
        let mut used = 0_usize;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            used = used.saturating_add(1);
            value /= 10;
            if value == 0 {
                break;
            }
        }
        let start = digits.len().saturating_sub(used);
        self.put(digits.get(start..).unwrap_or_default());
    }

    /// Appends formatted text; what `write!` calls. Cannot fail, as [`finish`](Self::finish) does that.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        // Only a `Display` that breaks its promise could be the cause of an error.
        let _ = fmt::Write::write_fmt(self, text);
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

    /// What has been appended since the length was `start`, unless not everything fitted.
    pub(crate) fn since(&self, start: usize) -> Option<&[u8]> {
        self.buffer.get(start..self.length)
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
        self.buffer
            .split_at_mut_checked(self.length)
            .ok_or(BufferFull)
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
        // Only whole texts are appended, so this is UTF-8 whenever it is complete.
        core::str::from_utf8(self.finish()?).map_err(|_| BufferFull)
    }
}

impl fmt::Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put_str(text);
        Ok(())
    }
}

/// An output buffer is too small for what was to be written to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BufferFull;

impl fmt::Display for BufferFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the output buffer is too small")
    }
}

impl core::error::Error for BufferFull {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_the_end() {
        let mut buffer = [0; 4];
        let mut output = Output::new(&mut buffer);
        output.put_str("abc");
        assert_eq!(output.since(1), Some(&b"bc"[..]));
        output.put_str("def");
        assert_eq!(output.since(0), None);
        assert_eq!(output.len(), 6);
        assert_eq!(output.finish(), Err(BufferFull));
    }

    #[test]
    fn decimal_numbers() {
        for value in [0, 7, 10, 255, 100_000, usize::MAX] {
            let mut buffer = [0; 20];
            let mut output = Output::new(&mut buffer);
            output.put_decimal(value);
            assert_eq!(output.finish_str().unwrap(), value.to_string());
        }
    }
}
