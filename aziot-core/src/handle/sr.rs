//! The JSON text inside a handle: read in place, written by hand.

use super::{NONCE_SIZE, Subject};
use crate::base64;
use crate::json::{Error, ErrorKind, FromJson, Reader, from_slice, put_string};
use crate::json_input;
use crate::output::Output;

json_input! {
    /// The whole text.
    struct Signed<'a> {
        key_id: Named<'a> = "key_id",
        #[expect(dead_code, reason = "must be there, but any text will do")]
        nonce: &'a str = "nonce",
    }
}

/// The `key_id` member.
pub(super) enum Named<'a> {
    Key(&'a str),
    KeyPair(&'a str),
    /// The base handle stays writable, as it is decoded in place in its turn.
    Derived {
        base: &'a mut [u8],
        data: &'a [u8],
    },
}

/// Reads the text of a handle whose MAC is right.
pub(super) fn parse(text: &mut [u8]) -> Option<Named<'_>> {
    let Signed { key_id, nonce: _ } = from_slice(text).ok()?;
    Some(key_id)
}

impl<'a> FromJson<'a> for Named<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.open_object("enum KeyId")?;
        let outcome = named(r);
        r.close_object(outcome)
    }
}

fn named<'a>(r: &mut Reader<'a>) -> Result<Named<'a>, Error<'a>> {
    let kind = r.next_key(&mut true)?.ok_or(Error::missing_field("Key"))?;
    match kind {
        "Key" => r.value().map(Named::Key),
        "KeyPair" => r.value().map(Named::KeyPair),
        "Derived" => r
            .value()
            .map(|Derived { base, data }| Named::Derived { base, data }),
        found => Err(Error::new(ErrorKind::UnknownVariant {
            found,
            expected: &["Key", "KeyPair", "Derived"],
        })),
    }
}

/// `["<base handle>",[<byte>,…]]`
struct Derived<'a> {
    base: &'a mut [u8],
    data: &'a [u8],
}

impl<'a> FromJson<'a> for Derived<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.open_array("a tuple of size 2")?;
        let outcome = derived(r);
        r.close_array(outcome)
    }
}

fn derived<'a>(r: &mut Reader<'a>) -> Result<Derived<'a>, Error<'a>> {
    let too_short = Error::new(ErrorKind::InvalidLength {
        length: 0,
        expected: "a tuple",
        members: 2,
    });
    let mut first = true;
    if !r.next_element(&mut first)? {
        return Err(too_short);
    }
    let base = r.string_bytes("a string")?;
    if !r.next_element(&mut first)? {
        return Err(too_short);
    }
    let data = bytes(r.raw()?).ok_or_else(|| r.invalid_type("an array of bytes"))?;
    Ok(Derived { base, data })
}

/// The numbers 0 to 255 in `array`, a well-formed JSON value, as bytes at its start.
///
/// In place: a number and its comma are at least as long as the byte they become.
fn bytes(array: &mut [u8]) -> Option<&[u8]> {
    let end = array.len().checked_sub(1)?;
    if array.first() != Some(&b'[') || array.get(end) != Some(&b']') {
        return None;
    }
    let (mut read, mut count) = (1, 0_usize);
    // As the value is well-formed, each element ends at a comma or the end.
    while read < end {
        let rest = array.get(read..end)?;
        let length = rest
            .iter()
            .position(|byte| *byte == b',')
            .unwrap_or(rest.len());
        let number = rest.get(..length)?.trim_ascii();
        if number.is_empty() {
            // Only white space: an empty array.
            break;
        }
        if !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number: u8 = core::str::from_utf8(number).ok()?.parse().ok()?;
        *array.get_mut(count)? = number;
        count = count.checked_add(1)?;
        read = read.checked_add(length)?.checked_add(1)?;
    }
    array.get(..count)
}

/// Writes the text to sign for `subject`.
pub(super) fn write(subject: Subject<'_>, nonce: &[u8; NONCE_SIZE], out: &mut Output<'_>) {
    out.put(b"{\"key_id\":{\"");
    match subject {
        Subject::Key(id) => {
            out.put(b"Key\":");
            put_string(id.as_str(), out);
        }
        Subject::KeyPair(id) => {
            out.put(b"KeyPair\":");
            put_string(id.as_str(), out);
        }
        Subject::Derived { base_handle, data } => {
            out.put(b"Derived\":[");
            put_string(base_handle, out);
            out.put(b",[");
            for (index, byte) in data.iter().enumerate() {
                if index > 0 {
                    out.put(b",");
                }
                out.put_decimal((*byte).into());
            }
            out.put(b"]]");
        }
    }
    write!(out, "}},\"nonce\":\"{}\"}}", base64::Encoded(nonce));
}
