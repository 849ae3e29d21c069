use core::fmt;

use serde::{Serialize, Serializer};

use super::scan::is_special;
use crate::base64;
use crate::output::{BufferFull, Output};
use crate::search;

/// Writes `value` as compact JSON to the start of `out`, and answers its length.
///
/// Strings are escaped as little as JSON allows: `"`, `\` and control characters, those in the
/// short forms or as `\u00xx` with lower-case digits; all else is written as it is.
///
/// serde-json-core does the work. Values must not contain enum variants with several fields
/// (tuple variants) or `char`s: it has no form for them and panics.
///
/// # Errors
///
/// [`BufferFull`]; what `out` contains is unspecified then.
pub fn to_slice<T: Serialize + ?Sized>(value: &T, out: &mut [u8]) -> Result<usize, BufferFull> {
    let length = serde_json_core::to_slice(value, out).map_err(|_| BufferFull)?;
    if let Some(text) = out.get_mut(..length) {
        lower_escapes(text);
    }
    Ok(length)
}

/// Writes `{"message":"<text>"}`, the form of every error answer.
///
/// # Errors
///
/// As [`to_slice`].
pub fn write_message(text: &dyn fmt::Display, out: &mut [u8]) -> Result<usize, BufferFull> {
    #[derive(Serialize)]
    struct Message<'a> {
        message: Text<'a>,
    }

    to_slice(
        &Message {
            message: Text(text),
        },
        out,
    )
}

/// Writes `{"<name>":"<Base64 of bytes>"}`, the same text as [`to_slice`] of an object with one [`Bytes`](super::Bytes),
/// many times faster: a serializer looks at every character of a string, and Base64 has none to escape.
///
/// `name` is written as it is and must not need escaping either.
///
/// # Errors
///
/// As [`to_slice`].
pub fn write_base64_member(
    name: &'static str,
    bytes: &[u8],
    out: &mut [u8],
) -> Result<usize, BufferFull> {
    let mut head = Output::new(out);
    head.put(b"{\"");
    head.put_str(name);
    head.put(b"\":\"");
    let (head, rest) = head.split()?;
    let text = base64::encode(bytes, rest)?.len();
    let end = head.len().saturating_add(text);
    let tail = b"\"}";
    let length = end.saturating_add(tail.len());
    out.get_mut(end..length)
        .ok_or(BufferFull)?
        .copy_from_slice(tail);
    Ok(length)
}

/// Writes whatever it displays as a JSON string.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a dyn fmt::Display);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Appends `text` as a JSON string, with the same escapes as [`to_slice`]: for texts that have to be measured before they
/// are written.
pub(crate) fn put_string(text: &str, out: &mut Output<'_>) {
    out.put(b"\"");
    put_escaped(text, out);
    out.put(b"\"");
}

/// Appends `text` as it stands in a JSON string.
pub(crate) fn put_escaped(text: &str, out: &mut Output<'_>) {
    let mut rest = text.as_bytes();
    while let Some(at) = search::position(rest, is_special) {
        let Some((before, [special, after @ ..])) = rest.split_at_checked(at) else {
            break;
        };
        out.put(before);
        match *special {
            b'"' => out.put(b"\\\""),
            b'\\' => out.put(b"\\\\"),
            0x08 => out.put(b"\\b"),
            b'\t' => out.put(b"\\t"),
            b'\n' => out.put(b"\\n"),
            0x0c => out.put(b"\\f"),
            b'\r' => out.put(b"\\r"),
            control => write!(out, "\\u{control:04x}"),
        }
        rest = after;
    }
    out.put(rest);
}

/// Turns the digits of `\u00XX` to lower case: serde-json-core writes capitals, other encoders in
/// the field do not, and some texts that contain JSON are compared and signed.
fn lower_escapes(mut text: &mut [u8]) {
    while let Some(place) = text.iter().position(|&byte| byte == b'\\') {
        let escape = text.get_mut(place..).unwrap_or_default();
        let skip = match escape {
            [_, b'u', digits @ ..] => {
                digits.iter_mut().take(4).for_each(u8::make_ascii_lowercase);
                6
            }
            _ => 2,
        };
        text = escape.get_mut(skip..).unwrap_or_default();
    }
}
