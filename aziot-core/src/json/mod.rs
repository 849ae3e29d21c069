//! JSON (RFC 8259) in and out, without allocation.
//!
//! **In**: a pull [`Reader`] over the caller's buffer. It decodes escape sequences and Base64 in
//! place, so that the values it hands out are views of the buffer. Types are declared with
//! [`json_object!`](crate::json_object) and [`json_enum!`](crate::json_enum), or implement
//! [`FromJson`] themselves. Errors carry the texts and positions that existing clients know from
//! serde_json; the only difference is that a number which is no integer is quoted as it was
//! written, and is never out of range.
//!
//! **Out**: [`to_slice`] for anything that implements `serde::Serialize`.
//!
//! Guarantees: no input panics; memory is bounded by the caller's buffer, and stack by
//! [`JSON_DEPTH`] bits, whatever the input. After reading, the buffer
//! holds decoded values: it is the caller's to wipe.

mod error;
mod macros;
mod reader;
mod scan;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use crate::output::BufferFull;
pub use error::{Error, ErrorKind, Found, Syntax};
pub use reader::{Reader, Shape};
pub use value::{Bytes, Deferred, FromJson, Ignored, Raw};
pub use write::{Text, to_slice, write_base64_member, write_message};

pub(crate) use write::{put_escaped, put_string};

use crate::limits::JSON_DEPTH;
use crate::search;

/// Reads a whole document as one value.
///
/// # Errors
///
/// `input` is not JSON, not this type, or followed by something else than white space.
pub fn from_slice<'a, T: FromJson<'a>>(input: &'a mut [u8]) -> Result<T, Error<'a>> {
    let mut reader = Reader::new(input);
    let value = T::from_json(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Requires that `input` is UTF-8 throughout, also in what [`from_slice`] skips without decoding it.
///
/// # Errors
///
/// [`Syntax::InvalidUnicode`], at the first byte that is not.
pub fn require_utf8(input: &[u8]) -> Result<(), Error<'static>> {
    search::require_utf8(input).map_err(|error| {
        let at = error.valid_up_to().saturating_add(1);
        located(input, scan::fault(Syntax::InvalidUnicode, at))
    })
}

/// Requires that `input` is one JSON value of any kind, and leaves it as it is.
///
/// # Errors
///
/// As [`from_slice`].
pub fn validate<'a>(input: &'a mut [u8]) -> Result<(), Error<'a>> {
    from_slice::<Ignored>(input).map(|Ignored| ())
}

/// As [`validate`], for text that is not writable.
fn check(input: &[u8]) -> Result<(), Error<'static>> {
    let end = scan::value(input, JSON_DEPTH);
    let rest = end.map(|end| scan::white_space(input, end));
    let fault = match rest {
        Ok(end) if end == input.len() => return Ok(()),
        Ok(end) => scan::fault(Syntax::TrailingCharacters, end.saturating_add(1)),
        Err(fault) => fault,
    };
    Err(located(input, fault))
}

/// A fault in `input` with its line and column.
fn located(input: &[u8], fault: scan::Fault) -> Error<'static> {
    let read = input.get(..fault.at).unwrap_or_default();
    let line_start = read
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |newline| newline.saturating_add(1));
    Error {
        kind: ErrorKind::Syntax(fault.syntax),
        line: read
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            .saturating_add(1),
        column: read.len().saturating_sub(line_start),
    }
}

/// What the macros need wherever they are used.
#[doc(hidden)]
pub mod private {
    pub use serde::ser::{Serialize, SerializeStruct, Serializer};
}
