//! The JSON text inside a handle, read in place and written by hand.
//!
//! The general reader of [`crate::json`] lends out shared views; here the handle of a base key, a string inside the text,
//! must be decoded in place once more, and derivation data shrink from decimal text to bytes. So this module has its own
//! reader for the one shape there is. All text it sees is authenticated.

use base64ct::{Base64, Encoding};

use super::{NONCE_SIZE, Subject};
use crate::output::Output;

/// Containers inside containers that a foreign member may have.
const MAX_DEPTH: u32 = 128;

/// The `key_id` member.
pub(super) enum Named<'a> {
    Key(&'a str),
    KeyPair(&'a str),
    Derived { base: &'a mut [u8], data: &'a [u8] },
}

/// Reads the whole text, which must be UTF-8. Unknown members are skipped; `key_id` and `nonce` must be there once.
pub(super) fn parse(text: &mut [u8]) -> Option<Named<'_>> {
    let mut reader = Reader { rest: text };
    let (mut key_id, mut nonce) = (None, false);
    reader.expect(b'{')?;
    if !reader.accept(b'}') {
        loop {
            let name = reader.string()?;
            let known = match &*name {
                b"key_id" => Known::KeyId,
                b"nonce" => Known::Nonce,
                _ => Known::No,
            };
            reader.expect(b':')?;
            match known {
                Known::KeyId if key_id.is_none() => key_id = Some(reader.named()?),
                Known::Nonce if !nonce => {
                    reader.string()?;
                    nonce = true;
                }
                Known::No => reader.skip()?,
                Known::KeyId | Known::Nonce => return None,
            }
            if reader.accept(b'}') {
                break;
            }
            reader.expect(b',')?;
        }
    }
    reader.white_space();
    if reader.rest.is_empty() && nonce {
        key_id
    } else {
        None
    }
}

enum Known {
    KeyId,
    Nonce,
    No,
}

/// A cursor that gives away what it has passed.
struct Reader<'a> {
    rest: &'a mut [u8],
}

impl<'a> Reader<'a> {
    /// `{"Key":"…"}`, `{"KeyPair":"…"}` or `{"Derived":["…",[…]]}`.
    fn named(&mut self) -> Option<Named<'a>> {
        self.expect(b'{')?;
        let kind = self.string()?;
        self.expect(b':')?;
        let named = match &*kind {
            b"Key" => Named::Key(core::str::from_utf8(self.string()?).ok()?),
            b"KeyPair" => Named::KeyPair(core::str::from_utf8(self.string()?).ok()?),
            b"Derived" => {
                self.expect(b'[')?;
                let base = self.string()?;
                self.expect(b',')?;
                let data = self.bytes()?;
                self.expect(b']')?;
                Named::Derived { base, data }
            }
            _ => return None,
        };
        self.expect(b'}')?;
        Some(named)
    }

    /// An array of numbers 0 to 255, each at least as long in text as the byte it becomes.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        self.expect(b'[')?;
        let end = self.rest.iter().position(|byte| *byte == b']')?;
        let (array, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(end)?;
        self.rest = rest;
        self.advance(1);
        let mut count = 0;
        let mut at = skip_white_space(array, 0);
        if at < array.len() {
            loop {
                let digits = array
                    .get(at..)?
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let after = at.checked_add(digits)?;
                let number = array.get(at..after)?;
                if number.is_empty() || (number.len() > 1 && number.starts_with(b"0")) {
                    return None;
                }
                let number: u8 = core::str::from_utf8(number).ok()?.parse().ok()?;
                *array.get_mut(count)? = number;
                count = count.checked_add(1)?;
                at = skip_white_space(array, after);
                if at == array.len() {
                    break;
                }
                if array.get(at) != Some(&b',') {
                    return None;
                }
                at = skip_white_space(array, at.checked_add(1)?);
            }
        }
        let array: &'a [u8] = array;
        array.get(..count)
    }

    /// A string, its escapes resolved in place.
    fn string(&mut self) -> Option<&'a mut [u8]> {
        self.expect(b'"')?;
        let text = core::mem::take(&mut self.rest);
        let (mut read, mut write) = (0_usize, 0_usize);
        loop {
            let byte = *text.get(read)?;
            read = read.checked_add(1)?;
            match byte {
                b'"' => break,
                0..0x20 => return None,
                b'\\' => {
                    let (letter, after) = unescape(text, read)?;
                    read = after;
                    let mut utf8 = [0; 4];
                    for byte in letter.encode_utf8(&mut utf8).bytes() {
                        *text.get_mut(write)? = byte;
                        write = write.checked_add(1)?;
                    }
                }
                _ => {
                    if write != read.wrapping_sub(1) {
                        *text.get_mut(write)? = byte;
                    }
                    write = write.checked_add(1)?;
                }
            }
        }
        let (text, rest) = text.split_at_mut_checked(read)?;
        self.rest = rest;
        text.get_mut(..write)
    }

    /// Skips one value of any kind.
    fn skip(&mut self) -> Option<()> {
        // One bit per open container, the innermost lowest: set for an object.
        let (mut objects, mut depth) = (0_u128, 0_u32);
        loop {
            self.white_space();
            match *self.rest.first()? {
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return None;
                    }
                    self.advance(1);
                    depth = depth.checked_add(1)?;
                    objects = (objects << 1) | u128::from(open == b'{');
                    if !self.accept(if open == b'{' { b'}' } else { b']' }) {
                        if open == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                    depth = depth.checked_sub(1)?;
                    objects >>= 1;
                }
                b'"' => {
                    self.string()?;
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => self.number()?,
            }
            // A value has ended: so may the containers around it.
            loop {
                if depth == 0 {
                    return Some(());
                }
                let object = objects & 1 == 1;
                if self.accept(b',') {
                    if object {
                        self.name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                depth = depth.checked_sub(1)?;
                objects >>= 1;
            }
        }
    }

    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.expect(b':')
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        self.rest
            .starts_with(word)
            .then(|| self.advance(word.len()))
    }

    /// A number of RFC 8259.
    fn number(&mut self) -> Option<()> {
        self.accept_here(b'-');
        if !self.accept_here(b'0') {
            self.digits()?;
        }
        if self.accept_here(b'.') {
            self.digits()?;
        }
        if self.accept_here(b'e') || self.accept_here(b'E') {
            let _ = self.accept_here(b'+') || self.accept_here(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.advance(count);
        (count > 0).then_some(())
    }

    fn white_space(&mut self) {
        let count = skip_white_space(self.rest, 0);
        self.advance(count);
    }

    /// Skips white space, then `byte`, which must be there.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.accept(byte).then_some(())
    }

    /// Skips white space, then `byte` if it is there.
    fn accept(&mut self, byte: u8) -> bool {
        self.white_space();
        self.accept_here(byte)
    }

    fn accept_here(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.advance(1);
        }
        found
    }

    fn advance(&mut self, count: usize) {
        self.rest = core::mem::take(&mut self.rest)
            .get_mut(count..)
            .unwrap_or_default();
    }
}

fn skip_white_space(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let count = rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .count();
    from.saturating_add(count)
}

/// The character of the escape whose letter is at `at`, and where it ends.
fn unescape(text: &[u8], at: usize) -> Option<(char, usize)> {
    let after = at.checked_add(1)?;
    let letter = match *text.get(at)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (high, after) = hex4(text, after)?;
            if !(0xd800..0xdc00).contains(&high) {
                return Some((char::from_u32(high)?, after));
            }
            if text.get(after..)?.get(..2)? != b"\\u" {
                return None;
            }
            let (low, after) = hex4(text, after.checked_add(2)?)?;
            if !(0xdc00..0xe000).contains(&low) {
                return None;
            }
            return Some((
                char::from_u32(0x1_0000 + ((high & 0x3ff) << 10) + (low & 0x3ff))?,
                after,
            ));
        }
        _ => return None,
    };
    Some((letter, after))
}

fn hex4(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let after = at.checked_add(4)?;
    let digits = text.get(at..after)?;
    let mut value = 0;
    for digit in digits {
        value = (value << 4) | char::from(*digit).to_digit(16)?;
    }
    Some((value, after))
}

/// Writes the text to sign for `subject`.
pub(super) fn write(subject: Subject<'_>, nonce: &[u8; NONCE_SIZE], out: &mut Output<'_>) {
    out.put(b"{\"key_id\":{\"");
    match subject {
        Subject::Key(id) => {
            out.put(b"Key\":");
            out.put_json_string(id.as_str());
        }
        Subject::KeyPair(id) => {
            out.put(b"KeyPair\":");
            out.put_json_string(id.as_str());
        }
        Subject::Derived { base_handle, data } => {
            out.put(b"Derived\":[");
            out.put_json_string(base_handle);
            out.put(b",[");
            for (index, byte) in data.iter().enumerate() {
                if index > 0 {
                    out.put(b",");
                }
                put_decimal(out, *byte);
            }
            out.put(b"]]");
        }
    }
    out.put(b"},\"nonce\":\"");
    let mut text = [0; NONCE_SIZE.div_ceil(3) * 4];
    out.put_str(Base64::encode(nonce, &mut text).unwrap_or_default());
    out.put(b"\"}");
}

fn put_decimal(out: &mut Output<'_>, byte: u8) {
    if byte >= 100 {
        out.put(&[b'0' + byte / 100]);
    }
    if byte >= 10 {
        out.put(&[b'0' + byte / 10 % 10]);
    }
    out.put(&[b'0' + byte % 10]);
}
