//! Strings, decoded in place.

use super::super::error::{Error, ErrorKind, Syntax};
use super::super::scan::{self, Fault};
use super::Reader;
use crate::search;

impl<'a> Reader<'a> {
    pub(crate) fn string_bytes(
        &mut self,
        expected: &'static str,
    ) -> Result<&'a mut [u8], Error<'a>> {
        match self.peek_value()? {
            b'"' => self.decode_string(),
            _ => Err(self.invalid_type(expected)),
        }
    }

    /// Decodes the string at the current place, at its opening quote. UTF-8 is not checked.
    pub(super) fn decode_string(&mut self) -> Result<&'a mut [u8], Error<'a>> {
        self.advance(1);
        // `read` runs ahead of `written` once there has been an escape sequence. Everything from
        // `written` on is as it was, so positions can be found there.
        let mut read = 0;
        let mut written = 0;
        loop {
            let rest = self.rest.get(read..).unwrap_or_default();
            let Some(run) = search::position(rest, scan::is_special) else {
                return Err(self.string_fault(Syntax::EofInString, written, self.rest.len()));
            };
            let special = rest.get(run).copied();
            let end = read.saturating_add(run);
            if read != written {
                self.rest.copy_within(read..end, written);
            }
            written = written.saturating_add(run);
            read = end.saturating_add(1);
            match special {
                Some(b'"') => break,
                Some(b'\\') => {
                    let mut utf8 = [0; 4];
                    let (char, end) = unescape(self.rest, read)
                        .map_err(|fault| self.string_fault(fault.syntax, written, fault.at))?;
                    let bytes = char.encode_utf8(&mut utf8).as_bytes();
                    let place = written..written.saturating_add(bytes.len());
                    written = place.end;
                    read = end;
                    // An escape sequence is never shorter than what it stands for.
                    if let Some(place) = self.rest.get_mut(place) {
                        place.copy_from_slice(bytes);
                    }
                }
                _ => return Err(self.string_fault(Syntax::ControlCharacter, written, read)),
            }
        }
        let text = self.take(read);
        Ok(text.get_mut(..written).unwrap_or_default())
    }

    /// A decoded string, just read, as text.
    pub(super) fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, Error<'a>> {
        core::str::from_utf8(bytes).map_err(|error| self.not_utf8(bytes.len(), error))
    }

    /// The complaint about the first bad byte of a decoded string of `length` bytes, just read.
    ///
    /// The column is exact only if there was no escape sequence behind that byte.
    pub(super) fn not_utf8(&self, length: usize, error: core::str::Utf8Error) -> Error<'a> {
        let behind = length.saturating_sub(error.valid_up_to());
        let mut error = self.error(Syntax::InvalidUnicode);
        error.column = error.column.saturating_sub(behind);
        error
    }

    fn string_fault(&self, syntax: Syntax, from: usize, at: usize) -> Error<'a> {
        self.at(ErrorKind::Syntax(syntax), from, at)
    }
}

/// The character that the escape sequence stands for whose backslash is just before `i`, and where
/// the sequence ends.
fn unescape(input: &[u8], i: usize) -> Result<(char, usize), Fault> {
    let after = i.saturating_add(1);
    let char = match input.get(i) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unescape_utf16(input, after),
        Some(_) => return Err(scan::fault(Syntax::InvalidEscape, after)),
        None => return Err(scan::fault(Syntax::EofInString, i)),
    };
    Ok((char, after))
}

/// As [`unescape`], for one or two UTF-16 code units; `i` is just after the first `\u`.
fn unescape_utf16(input: &[u8], i: usize) -> Result<(char, usize), Fault> {
    let first = scan::hex4(input, i)?;
    let mut i = i.saturating_add(4);
    if let Some(char) = char::from_u32(first.into()) {
        return Ok((char, i));
    }
    if first >= 0xDC00 {
        return Err(scan::fault(Syntax::LoneSurrogate, i));
    }
    for expected in *b"\\u" {
        match input.get(i) {
            Some(&byte) => {
                i = i.saturating_add(1);
                if byte != expected {
                    return Err(scan::fault(Syntax::UnexpectedEndOfHexEscape, i));
                }
            }
            None => return Err(scan::fault(Syntax::EofInString, i)),
        }
    }
    let second = scan::hex4(input, i)?;
    let end = i.saturating_add(4);
    match char::decode_utf16([first, second]).next() {
        Some(Ok(char)) => Ok((char, end)),
        _ => Err(scan::fault(Syntax::LoneSurrogate, end)),
    }
}
