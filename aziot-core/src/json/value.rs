use heapless::Vec;
use serde::{Serialize, Serializer};

use super::error::{Error, ErrorKind};
use super::reader::Reader;
use crate::base64;

/// A value that can be read from JSON.
///
/// [`json_object!`](crate::json_object) and [`json_enum!`](crate::json_enum) implement it for
/// structs and for enums of words.
pub trait FromJson<'a>: Sized {
    /// Reads the value at the reader's place.
    ///
    /// # Errors
    ///
    /// The document is malformed there, or the value is not of this type.
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>>;

    /// The value of a member that does not occur, where that is the same as `null`.
    fn absent() -> Option<Self> {
        None
    }
}

impl<'a> FromJson<'a> for &'a str {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.string("a string")
    }
}

impl<'a> FromJson<'a> for bool {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.boolean()
    }
}

macro_rules! integers {
    ($($type:ident $method:ident ($($bound:ident),*);)*) => { $(
        impl<'a> FromJson<'a> for $type {
            fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
                let value = r.$method($($type::$bound.into(),)* stringify!($type))?;
                Ok(value as $type)
            }
        }
    )* }
}

integers! {
    u8 unsigned(MAX);
    u16 unsigned(MAX);
    u32 unsigned(MAX);
    u64 unsigned(MAX);
    i32 signed(MIN, MAX);
    i64 signed(MIN, MAX);
}

/// Absent and `null` are the same.
impl<'a, T: FromJson<'a>> FromJson<'a> for Option<T> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        if r.null()? {
            return Ok(None);
        }
        T::from_json(r).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// An array of at most `N` elements; one more is [`ErrorKind::TooManyElements`].
impl<'a, T: FromJson<'a>, const N: usize> FromJson<'a> for Vec<T, N> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let mut elements = Self::new();
        r.elements(|r| {
            let element = T::from_json(r)?;
            elements
                .push(element)
                .map_err(|_| r.place(Error::new(ErrorKind::TooManyElements { limit: N })))
        })?;
        Ok(elements)
    }
}

/// Bytes that JSON carries as Base64, strict and with padding.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> FromJson<'a> for Bytes<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.base64().map(|bytes| Self(bytes))
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::Encoded(self.0))
    }
}

/// A value of any kind, as its text stands in the document.
///
/// Reading checks the syntax; white space inside is kept, white space around is not. It can be
/// written into another document with [`to_slice`](super::to_slice), and only with that: it depends
/// on how serde-json-core treats bytes. Nothing changes then but the digits of `\uXXXX`, which
/// become lower case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// The value `null`.
    pub const NULL: Self = Self("null");

    /// The document `text`, which need not be writable: nothing is decoded.
    ///
    /// # Errors
    ///
    /// `text` is not one JSON value.
    pub fn new(text: &'a str) -> Result<Self, Error<'static>> {
        super::check(text.as_bytes())?;
        Ok(Self(text.trim_matches([' ', '\t', '\r', '\n'])))
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> FromJson<'a> for Raw<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let text = r.raw()?;
        // The reader has checked this already.
        Ok(Self(core::str::from_utf8(text).unwrap_or_default()))
    }
}

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

/// A value of any kind whose type is only known once the rest of the object has been read.
///
/// Reading checks the syntax; [`from_slice`](super::from_slice) decodes it later.
#[derive(Debug, Eq, PartialEq)]
pub struct Deferred<'a>(&'a mut [u8]);

impl<'a> Deferred<'a> {
    /// Decodes the value. Errors have no position, so that the enclosing object gives them its own.
    ///
    /// # Errors
    ///
    /// The value is not of this type.
    pub fn decode<T: FromJson<'a>>(self) -> Result<T, Error<'a>> {
        super::from_slice(self.0).map_err(Error::without_position)
    }

    /// Whether the value is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self.0 == *b"null"
    }
}

impl<'a> FromJson<'a> for Deferred<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.raw().map(Self)
    }
}

/// A value of any kind that is not needed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ignored;

impl<'a> FromJson<'a> for Ignored {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.skip().map(|()| Self)
    }
}
