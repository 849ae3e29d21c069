//! Distinguished names (RFC 5280, 4.1.2.4): made of the fields of a configuration, and shown.

mod attributes;
mod text;

use core::fmt;

use aziot_core::der::{self, Reader, Tag, Writer};

use attributes::{Form, Identifier};
pub use text::Text;

/// A name without any field, in DER.
pub const EMPTY: &[u8] = &[0x30, 0x00];

/// Characters that are left of a longer common name (ub-common-name of RFC 5280).
pub const MAX_COMMON_NAME: usize = 64;

/// Writes a name of fields and their values, each one in a relative distinguished name of its own, in the given order.
///
/// A field is the short or long name of an attribute, in the spelling of OpenSSL, or an object identifier with dots. The value
/// of `CN` (but not of `commonName`) is cut to [`MAX_COMMON_NAME`] characters. Values become UTF-8 strings unless the attribute
/// prescribes another type.
///
/// # Errors
///
/// The first field that there is something wrong with, or whose end does not fit in `out`. About 16 bytes more than each value
/// are enough.
pub fn encode<'f, 'o>(
    fields: impl IntoIterator<Item = (&'f str, &'f str)>,
    out: &'o mut [u8],
) -> Result<&'o [u8], NameError<'f>> {
    let mut writer = Writer::new(out);
    let mut last = "";
    writer.sequence(|w| {
        fields.into_iter().try_for_each(|(field, value)| {
            last = field;
            write_field(w, field, value)
        })
    })?;
    writer.finish().map_err(|_| NameError {
        field: last,
        fault: Fault::BufferFull,
    })
}

/// Whether [`encode`] takes a field and its value.
///
/// # Errors
///
/// As [`encode`], without [`Fault::BufferFull`].
pub fn check<'f>(field: &'f str, value: &'f str) -> Result<(), NameError<'f>> {
    // Only counts: nothing fits, and nothing needs to.
    write_field(&mut Writer::new(&mut []), field, value)
}

fn write_field<'f>(
    w: &mut Writer<'_>,
    field: &'f str,
    value: &'f str,
) -> Result<(), NameError<'f>> {
    let error = |fault| NameError { field, fault };
    let value = if field.eq_ignore_ascii_case("cn") {
        first_chars(value, MAX_COMMON_NAME)
    } else {
        value
    };
    let identifier = Identifier::of(field).ok_or(error(Fault::Unknown))?;
    let form = identifier.attribute().map_or(Form::ANY, |known| known.form);
    form.check(value).map_err(error)?;
    w.nested(Tag::SET, |w| {
        w.sequence(|w| {
            identifier.write(w);
            w.element(form.tag(), value.as_bytes());
        });
    });
    Ok(())
}

fn first_chars(text: &str, count: usize) -> &str {
    match text.char_indices().nth(count) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// Reads the next element, a name, and answers all of it. What its values say is not looked at.
pub(super) fn read<'d>(reader: &mut Reader<'d>) -> Result<&'d [u8], der::Error> {
    let element = reader.expect(Tag::SEQUENCE)?;
    let mut names = element.reader();
    while !names.is_empty() {
        let mut fields = names.set()?;
        while !fields.is_empty() {
            read_field(&mut fields)?;
        }
    }
    Ok(element.raw)
}

/// One field: the content of its object identifier, and its value.
fn read_field<'d>(fields: &mut Reader<'d>) -> Result<(&'d [u8], der::Element<'d>), der::Error> {
    let mut field = fields.sequence()?;
    let id = field.object_identifier()?;
    let value = field.element()?;
    field.finish()?;
    Ok((id, value))
}

/// A field of a configured name cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NameError<'f> {
    /// The field as it is spelled in the configuration.
    pub field: &'f str,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a field of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The name does not fit in the buffer.
    BufferFull,
    /// A character that the type of this attribute does not have.
    Character(char),
    /// It has the wrong number of characters.
    Length {
        /// It has this many.
        chars: usize,
        /// The fewest that it may have.
        min: usize,
        /// The most that it may have.
        max: usize,
    },
    /// No such attribute is known, nor is it an object identifier.
    Unknown,
}

impl fmt::Display for NameError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, fault } = self;
        match *fault {
            Fault::BufferFull => write!(
                f,
                "the subject is too long: its field \"{field}\" does not fit any more"
            ),
            Fault::Character(character) => write!(
                f,
                "the value of the subject's field \"{field}\" has a character that is not allowed there: {character:?}"
            ),
            Fault::Length { chars, min, max } if min == max => write!(
                f,
                "the value of the subject's field \"{field}\" must have {min} characters, and has {chars}"
            ),
            Fault::Length { chars, min, .. } if chars < min => {
                write!(
                    f,
                    "the value of the subject's field \"{field}\" must not be empty"
                )
            }
            Fault::Length { chars, max, .. } => write!(
                f,
                "the value of the subject's field \"{field}\" may have {max} characters, and has {chars}"
            ),
            Fault::Unknown => write!(
                f,
                "the subject has an unknown field \"{field}\"; use a name like CN, O, OU, C, ST or L in this spelling, or \
                 an object identifier like 2.5.4.3"
            ),
        }
    }
}

impl core::error::Error for NameError<'_> {}

#[cfg(test)]
mod tests;
