//! A reader for the outer parts of PKCS #7: BER (X.690), because some servers send indefinite lengths. It needs neither
//! memory nor recursion: elements are found by their lengths, and those without are walked once.

use core::fmt;
use core::ops::Range;

/// `SEQUENCE`.
pub(super) const SEQUENCE: u8 = 0x30;
/// `SET`.
pub(super) const SET: u8 = 0x31;
/// `INTEGER`.
pub(super) const INTEGER: u8 = 0x02;
/// `OBJECT IDENTIFIER`.
pub(super) const OID: u8 = 0x06;
/// `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;

const CONSTRUCTED: u8 = 0x20;
const LONG_TAG: u8 = 0x1f;

/// A document, and the part of it that is still to be read.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    document: &'a [u8],
    at: usize,
    end: usize,
}

/// An element, as places in the document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Element {
    /// Class, form and number; of numbers above 30 only that they are.
    pub tag: u8,
    /// Where its content is.
    pub content: Range<usize>,
    /// Where all of it is.
    pub whole: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(document: &'a [u8]) -> Self {
        Self {
            document,
            at: 0,
            end: document.len(),
        }
    }

    /// A reader for the content of an element.
    pub(super) fn inside(&self, element: &Element) -> Self {
        Self {
            document: self.document,
            at: element.content.start,
            end: element.content.end,
        }
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        self.document.get(range).unwrap_or_default()
    }

    /// The next element; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Element>, Malformed> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = self.at;
        let header = self.header(start)?;
        let content_end = match header.length {
            Some(length) => self.advance(header.content, length)?,
            None => self.end_of_contents(header.content)?,
        };
        self.at = match header.length {
            Some(_) => content_end,
            None => content_end.saturating_add(END_OF_CONTENTS),
        };
        Ok(Some(Element {
            tag: header.tag,
            content: header.content..content_end,
            whole: start..self.at,
        }))
    }

    /// The next element, which must be there and have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Element, Malformed> {
        let at = self.at;
        match self.next()? {
            Some(element) if element.tag == tag => Ok(element),
            Some(element) => Err(Malformed {
                offset: at,
                problem: Problem::Tag {
                    expected: tag,
                    found: element.tag,
                },
            }),
            None => Err(Malformed {
                offset: at,
                problem: Problem::End,
            }),
        }
    }

    /// Where the content ends that begins at `at` and has no length: at its own end mark.
    fn end_of_contents(&self, mut at: usize) -> Result<usize, Malformed> {
        let mut open = 1_usize;
        loop {
            let header = self.header(at)?;
            match header.length {
                // `header` has made sure that this is all of an end mark.
                Some(_) if header.tag == 0 => {
                    open = open.saturating_sub(1);
                    if open == 0 {
                        return Ok(at);
                    }
                    at = header.content;
                }
                Some(length) => at = self.advance(header.content, length)?,
                None => {
                    open = open.saturating_add(1);
                    at = header.content;
                }
            }
        }
    }

    fn advance(&self, at: usize, length: usize) -> Result<usize, Malformed> {
        match at.checked_add(length) {
            Some(end) if end <= self.end => Ok(end),
            _ => Err(self.ends(at)),
        }
    }

    fn header(&self, start: usize) -> Result<Header, Malformed> {
        let mut at = start;
        let tag = self.byte(&mut at)?;
        if tag & LONG_TAG == LONG_TAG {
            while self.byte(&mut at)? & 0x80 != 0 {}
        }
        let invalid = Malformed {
            offset: at,
            problem: Problem::Length,
        };
        let length = match self.byte(&mut at)? {
            0x80 if tag & CONSTRUCTED != 0 => None,
            0x80 | 0xff => return Err(invalid),
            short @ ..0x80 => Some(usize::from(short)),
            long => {
                let mut length = 0_usize;
                for _ in 0..long & 0x7f {
                    length = length
                        .checked_mul(256)
                        .and_then(|length| {
                            length.checked_add(usize::from(self.byte(&mut at).ok()?))
                        })
                        .ok_or(invalid)?;
                }
                Some(length)
            }
        };
        // A tag of zero is an end mark, which is never longer.
        if tag == 0 && length != Some(0) {
            return Err(invalid);
        }
        Ok(Header {
            tag,
            length,
            content: at,
        })
    }

    fn byte(&self, at: &mut usize) -> Result<u8, Malformed> {
        if *at >= self.end {
            return Err(self.ends(*at));
        }
        let byte = *self.document.get(*at).ok_or_else(|| self.ends(*at))?;
        *at = at.saturating_add(1);
        Ok(byte)
    }

    const fn ends(&self, offset: usize) -> Malformed {
        Malformed {
            offset,
            problem: Problem::End,
        }
    }
}

/// Length of an end mark.
const END_OF_CONTENTS: usize = 2;

struct Header {
    tag: u8,
    /// None if it is indefinite.
    length: Option<usize>,
    /// Where the content begins.
    content: usize,
}

/// Bytes are not the ASN.1 that they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Malformed {
    /// Where, counted from 0.
    pub(super) offset: usize,
    pub(super) problem: Problem,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) enum Problem {
    End,
    Length,
    Tag { expected: u8, found: u8 },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match self.problem {
            Problem::End => write!(f, "it ends too early, at byte {offset}"),
            Problem::Length => write!(f, "invalid length at byte {offset}"),
            Problem::Tag { expected, found } => write!(
                f,
                "tag {found:#04x} at byte {offset}, where {expected:#04x} is expected"
            ),
        }
    }
}

impl core::error::Error for Malformed {}
