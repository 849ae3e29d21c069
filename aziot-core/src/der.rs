//! ASN.1 in its distinguished encoding (ITU-T X.690): a strict reader and a writer into a caller's buffer.
//!
//! No more than certificates, requests for them and PKCS #7 need: tags of one byte, definite lengths in their shortest
//! form. [`Reader`] walks over one level of elements; whoever reads goes down by making a reader of an element's content,
//! so nothing recurses and no input can use up the stack.

use core::fmt;

use crate::output::BufferFull;

/// The identifier of an element: class, constructed bit and a number below 31 (X.690, 8.1.2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tag(pub u8);

#[allow(missing_docs, reason = "named as in X.680")]
impl Tag {
    pub const BOOLEAN: Self = Self(0x01);
    pub const INTEGER: Self = Self(0x02);
    pub const BIT_STRING: Self = Self(0x03);
    pub const OCTET_STRING: Self = Self(0x04);
    pub const NULL: Self = Self(0x05);
    pub const OBJECT_IDENTIFIER: Self = Self(0x06);
    pub const UTF8_STRING: Self = Self(0x0c);
    pub const NUMERIC_STRING: Self = Self(0x12);
    pub const PRINTABLE_STRING: Self = Self(0x13);
    pub const TELETEX_STRING: Self = Self(0x14);
    pub const IA5_STRING: Self = Self(0x16);
    pub const UTC_TIME: Self = Self(0x17);
    pub const GENERALIZED_TIME: Self = Self(0x18);
    pub const UNIVERSAL_STRING: Self = Self(0x1c);
    pub const BMP_STRING: Self = Self(0x1e);
    pub const SEQUENCE: Self = Self(0x30);
    pub const SET: Self = Self(0x31);
}

impl Tag {
    /// `[number]` around elements, as an explicit tag or an implicit one of a sequence or set. `number` is below 31.
    #[must_use]
    pub const fn context(number: u8) -> Self {
        Self(0xa0 | (number & 0x1f))
    }

    /// `[number]` in the place of a primitive type's tag. `number` is below 31.
    #[must_use]
    pub const fn context_primitive(number: u8) -> Self {
        Self(0x80 | (number & 0x1f))
    }

    /// Whether the content consists of elements.
    #[must_use]
    pub const fn is_constructed(self) -> bool {
        self.0 & 0x20 != 0
    }
}

/// One element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Element<'d> {
    /// Its identifier.
    pub tag: Tag,
    /// What follows the length.
    pub content: &'d [u8],
    /// All of it, with identifier and length.
    pub raw: &'d [u8],
}

impl<'d> Element<'d> {
    /// Reads the elements that the content consists of.
    #[must_use]
    pub const fn reader(&self) -> Reader<'d> {
        Reader::new(self.content)
    }
}

/// Reads one element after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'d> {
    rest: &'d [u8],
}

impl<'d> Reader<'d> {
    /// Reads from the start of `der`.
    #[must_use]
    pub const fn new(der: &'d [u8]) -> Self {
        Self { rest: der }
    }

    /// Reads the one element that `der` is, which is a sequence, and answers the reader of its content.
    ///
    /// # Errors
    ///
    /// `der` is something else, or more.
    pub fn whole_sequence(der: &'d [u8]) -> Result<Self, Error> {
        let mut reader = Self::new(der);
        let content = reader.sequence()?;
        reader.finish()?;
        Ok(content)
    }

    /// What is not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'d [u8] {
        self.rest
    }

    /// Whether everything is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    #[must_use]
    pub fn peek(&self) -> Option<Tag> {
        self.rest.first().copied().map(Tag)
    }

    /// The next element, whatever it is.
    ///
    /// # Errors
    ///
    /// There is none, it is cut off, or its identifier or length is not in the form that DER prescribes.
    pub fn element(&mut self) -> Result<Element<'d>, Error> {
        let (&tag, after_tag) = self.rest.split_first().ok_or(Error::Missing)?;
        if tag & 0x1f == 0x1f {
            return Err(Error::HighTag);
        }
        let (length, after_length) = length(after_tag)?;
        let (content, rest) = after_length
            .split_at_checked(length)
            .ok_or(Error::Truncated)?;
        let raw_len = self.rest.len().saturating_sub(rest.len());
        let raw = self.rest.get(..raw_len).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(Element {
            tag: Tag(tag),
            content,
            raw,
        })
    }

    /// The next element, which has this tag.
    ///
    /// # Errors
    ///
    /// As [`element`](Self::element), and [`Error::Tag`]; nothing is read then.
    pub fn expect(&mut self, tag: Tag) -> Result<Element<'d>, Error> {
        match self.peek() {
            Some(found) if found != tag => Err(Error::Tag {
                expected: tag,
                found,
            }),
            _ => self.element(),
        }
    }

    /// The next element if it has this tag; `None`, and nothing read, if it has another or there is none.
    ///
    /// # Errors
    ///
    /// As [`element`](Self::element).
    pub fn optional(&mut self, tag: Tag) -> Result<Option<Element<'d>>, Error> {
        if self.peek() == Some(tag) {
            self.element().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The elements of the next element, a sequence.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect).
    pub fn sequence(&mut self) -> Result<Self, Error> {
        self.expect(Tag::SEQUENCE).map(|element| element.reader())
    }

    /// The elements of the next element, a set. Their order is not looked at.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect).
    pub fn set(&mut self) -> Result<Self, Error> {
        self.expect(Tag::SET).map(|element| element.reader())
    }

    /// The content of the next element, an integer: big endian, two's complement, in its shortest form.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect), and [`Error::Integer`] for one without content or with needless bytes in front.
    pub fn integer(&mut self) -> Result<&'d [u8], Error> {
        let content = self.expect(Tag::INTEGER)?.content;
        match content {
            [] => Err(Error::Integer),
            [0x00, second, ..] if second & 0x80 == 0 => Err(Error::Integer),
            [0xff, second, ..] if second & 0x80 != 0 => Err(Error::Integer),
            _ => Ok(content),
        }
    }

    /// The next element, an integer that is not negative, as a number: big endian without zeros in front, so that zero
    /// is empty.
    ///
    /// # Errors
    ///
    /// As [`integer`](Self::integer), and [`Error::Integer`] for a negative one.
    pub fn unsigned(&mut self) -> Result<&'d [u8], Error> {
        let mut ahead = *self;
        let magnitude = match ahead.integer()? {
            [0x00, magnitude @ ..] => magnitude,
            [first, ..] if first & 0x80 != 0 => return Err(Error::Integer),
            magnitude => magnitude,
        };
        *self = ahead;
        Ok(magnitude)
    }

    /// The next element, a truth value.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect), and [`Error::Boolean`] for a content that is neither 00 nor FF.
    pub fn boolean(&mut self) -> Result<bool, Error> {
        match self.expect(Tag::BOOLEAN)?.content {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(Error::Boolean),
        }
    }

    /// The content of the next element, an object identifier.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect), and [`Error::ObjectIdentifier`] if an arc is cut off or has needless bytes in front.
    pub fn object_identifier(&mut self) -> Result<&'d [u8], Error> {
        let content = self.expect(Tag::OBJECT_IDENTIFIER)?.content;
        let mut starts = true;
        for byte in content {
            if starts && *byte == 0x80 {
                return Err(Error::ObjectIdentifier);
            }
            starts = byte & 0x80 == 0;
        }
        if content.is_empty() || !starts {
            return Err(Error::ObjectIdentifier);
        }
        Ok(content)
    }

    /// The next element, a bit string that consists of whole bytes.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect), and [`Error::BitString`] if bits are left over.
    pub fn bit_string(&mut self) -> Result<&'d [u8], Error> {
        match self.expect(Tag::BIT_STRING)?.content {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(Error::BitString),
        }
    }

    /// The content of the next element, an octet string.
    ///
    /// # Errors
    ///
    /// As [`expect`](Self::expect).
    pub fn octet_string(&mut self) -> Result<&'d [u8], Error> {
        self.expect(Tag::OCTET_STRING)
            .map(|element| element.content)
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// [`Error::Trailing`] if something is left.
    pub const fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::Trailing)
        }
    }
}

/// The length at the front of `bytes`, and what follows it.
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), Error> {
    let (&first, rest) = bytes.split_first().ok_or(Error::Truncated)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let (digits, rest) = rest
        .split_at_checked(usize::from(first & 0x7f))
        .ok_or(Error::Truncated)?;
    // Indefinite, or with zeros in front.
    if digits.first().is_none_or(|digit| *digit == 0) {
        return Err(Error::Length);
    }
    if digits.len() > size_of::<usize>() {
        return Err(Error::Truncated);
    }
    let length = digits
        .iter()
        .fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
    if length < 0x80 {
        return Err(Error::Length);
    }
    Ok((length, rest))
}

/// Appends elements to a slice. When the slice is full it goes on counting, and only the end of the work is an error.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    length: usize,
}

impl<'b> Writer<'b> {
    /// Writes from the start of `buffer`.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    /// Bytes appended so far, whether they fitted or not. In elements that are not complete, before their length is in
    /// its final form.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is appended yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends bytes as they are: complete elements, or part of a content.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.buffer.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
        }
        self.length = end;
    }

    /// Appends an element.
    pub fn element(&mut self, tag: Tag, content: &[u8]) {
        let (header, header_len) = header(tag, content.len());
        self.put(header.get(..header_len).unwrap_or_default());
        self.put(content);
    }

    /// Appends an element whose content is what `content` appends.
    pub fn nested<T>(&mut self, tag: Tag, content: impl FnOnce(&mut Self) -> T) -> T {
        let start = self.length;
        // Room for a length of one byte; a longer one moves the content.
        self.put(&[tag.0, 0]);
        let content_start = self.length;
        let result = content(self);
        let content_end = self.length;
        let (header, header_len) = header(tag, content_end.saturating_sub(content_start));
        let moved_to = start.saturating_add(header_len);
        let end = content_end.saturating_add(moved_to.saturating_sub(content_start));
        if end <= self.buffer.len() {
            if moved_to != content_start {
                self.buffer
                    .copy_within(content_start..content_end, moved_to);
            }
            if let Some(place) = self.buffer.get_mut(start..moved_to) {
                place.copy_from_slice(header.get(..header_len).unwrap_or_default());
            }
        }
        self.length = end;
        result
    }

    /// Appends a sequence of what `content` appends.
    pub fn sequence<T>(&mut self, content: impl FnOnce(&mut Self) -> T) -> T {
        self.nested(Tag::SEQUENCE, content)
    }

    /// Appends an integer that is not negative, from a big endian number with or without zeros in front.
    pub fn unsigned(&mut self, number: &[u8]) {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let magnitude = number.get(zeros..).unwrap_or_default();
        // Zero, and what would be taken for negative, begin with a zero byte.
        let padded = magnitude.first().is_none_or(|first| first & 0x80 != 0);
        let (header, header_len) = header(
            Tag::INTEGER,
            magnitude.len().saturating_add(usize::from(padded)),
        );
        self.put(header.get(..header_len).unwrap_or_default());
        if padded {
            self.put(&[0]);
        }
        self.put(magnitude);
    }

    /// Appends a truth value. (One that is the default of its member is not written at all.)
    pub fn boolean(&mut self, value: bool) {
        self.element(Tag::BOOLEAN, &[if value { 0xff } else { 0x00 }]);
    }

    /// Appends an object identifier, given as the content of one.
    pub fn object_identifier(&mut self, content: &[u8]) {
        self.element(Tag::OBJECT_IDENTIFIER, content);
    }

    /// Appends a bit string of whole bytes.
    pub fn bit_string(&mut self, bytes: &[u8]) {
        let (header, header_len) = header(Tag::BIT_STRING, bytes.len().saturating_add(1));
        self.put(header.get(..header_len).unwrap_or_default());
        self.put(&[0]);
        self.put(bytes);
    }

    /// Appends what `fill` puts at the start of the unused part of the buffer; it answers how many bytes that are. It
    /// also gets everything written before. Not called once the buffer has overflowed.
    ///
    /// # Errors
    ///
    /// What `fill` fails with.
    pub fn fill<E>(
        &mut self,
        fill: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let Some((written, unused)) = self.buffer.split_at_mut_checked(self.length) else {
            return Ok(());
        };
        let length = fill(written, unused)?;
        self.length = self.length.saturating_add(length);
        Ok(())
    }

    /// The bytes written.
    ///
    /// # Errors
    ///
    /// Not everything fitted.
    pub fn finish(self) -> Result<&'b [u8], BufferFull> {
        let Self { buffer, length } = self;
        buffer.get(..length).ok_or(BufferFull)
    }
}

/// Longest identifier and length: a tag, the number of bytes of the length, and these.
const MAX_HEADER: usize = 2 + size_of::<usize>();

/// Identifier and length of an element, and how many bytes they are.
fn header(tag: Tag, content_len: usize) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    let digits = content_len.to_be_bytes();
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = digits.get(zeros..).unwrap_or_default();
    let short = content_len < 0x80;
    // Cannot be more than eight digits, nor a short length of more than seven bits.
    let first = if short {
        content_len as u8
    } else {
        0x80 | digits.len() as u8
    };
    let digits = if short { &[] } else { digits };
    let bytes = [tag.0, first].into_iter().chain(digits.iter().copied());
    header
        .iter_mut()
        .zip(bytes)
        .for_each(|(place, byte)| *place = byte);
    (header, 2_usize.saturating_add(digits.len()))
}

/// Bytes are not what was expected in DER.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// A bit string with bits left over, or without content.
    BitString,
    /// A truth value other than 00 and FF.
    Boolean,
    /// A tag number of 31 or more.
    HighTag,
    /// A negative integer where none may be, one without content, or one that is not in its shortest form.
    Integer,
    /// A length that is indefinite, or not in its shortest form.
    Length,
    /// There is no element where one must be.
    Missing,
    /// An object identifier with a broken arc.
    ObjectIdentifier,
    /// An element of another kind than must be here.
    Tag {
        /// What must be here.
        expected: Tag,
        /// What is here.
        found: Tag,
    },
    /// Something follows the last element that may be there.
    Trailing,
    /// An element goes beyond the end of its surroundings.
    Truncated,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BitString => "a bit string is not made of whole bytes",
            Self::Boolean => "a truth value is neither true nor false",
            Self::HighTag => "a tag number is out of range",
            Self::Integer => "an integer is not in the form that DER prescribes",
            Self::Length => "a length is not in the form that DER prescribes",
            Self::Missing => "an element is missing",
            Self::ObjectIdentifier => "an object identifier is broken",
            Self::Tag { expected, found } => {
                return write!(
                    f,
                    "there is an element with the tag {:02x} in place of one with {:02x}",
                    found.0, expected.0
                );
            }
            Self::Trailing => "there is something after the end",
            Self::Truncated => "an element is cut off",
        })
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests;
