//! Names as people read them.

use core::fmt::{self, Write as _};

use aziot_core::der::{Element, Reader, Tag};

use super::attributes::Attribute;
use super::read_field;
use crate::x509::object_id::ObjectId;

/// Displays a name (in DER) for messages: `CN=device,O=x`, in the order of the name. Characters with a meaning there, and
/// those that are not visible, are escaped as in RFC 4514, 2.4.
#[derive(Clone, Copy, Debug)]
pub struct Text<'d>(pub &'d [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut names) = Reader::whole_sequence(self.0) else {
            return f.write_str(UNREADABLE);
        };
        let mut separator = "";
        while !names.is_empty() {
            let Ok(mut fields) = names.set() else {
                return f.write_str(UNREADABLE);
            };
            while !fields.is_empty() {
                f.write_str(separator)?;
                match read_field(&mut fields) {
                    Ok((id, value)) => write_field(f, id, &value)?,
                    Err(_) => return f.write_str(UNREADABLE),
                }
                separator = "+";
            }
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("(empty name)")?;
        }
        Ok(())
    }
}

const UNREADABLE: &str = "(unreadable name)";

fn write_field(f: &mut fmt::Formatter<'_>, id: &[u8], value: &Element<'_>) -> fmt::Result {
    match Attribute::with_id(id) {
        Some(attribute) => f.write_str(attribute.short)?,
        None => write!(f, "{}", ObjectId::new(id))?,
    }
    f.write_char('=')?;
    let content = value.content;
    match value.tag {
        Tag::UTF8_STRING | Tag::PRINTABLE_STRING | Tag::IA5_STRING | Tag::NUMERIC_STRING => {
            content.utf8_chunks().try_for_each(|chunk| {
                chunk.valid().chars().try_for_each(|c| write_char(f, c))?;
                chunk
                    .invalid()
                    .iter()
                    .try_for_each(|byte| write!(f, "\\{byte:02X}"))
            })
        }
        // Meant to be T.61, and Latin-1 in practice.
        Tag::TELETEX_STRING => content
            .iter()
            .try_for_each(|byte| write_char(f, char::from(*byte))),
        Tag::BMP_STRING => {
            let units = content.chunks(2).map(|unit| {
                unit.iter()
                    .fold(0, |unit, byte| (unit << 8) | u16::from(*byte))
            });
            char::decode_utf16(units)
                .try_for_each(|c| write_char(f, c.unwrap_or(char::REPLACEMENT_CHARACTER)))
        }
        _ => {
            f.write_char('#')?;
            value
                .raw
                .iter()
                .try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }
}

fn write_char(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    if ",+\"\\<>;=".contains(character) {
        f.write_char('\\')?;
        return f.write_char(character);
    }
    if !is_invisible(character) {
        return f.write_char(character);
    }
    let mut bytes = [0; 4];
    character
        .encode_utf8(&mut bytes)
        .bytes()
        .try_for_each(|byte| write!(f, "\\{byte:02X}"))
}

/// Control characters, and what turns the direction of text round.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
