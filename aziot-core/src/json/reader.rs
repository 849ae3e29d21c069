mod string;

use core::mem;

use super::error::{Error, ErrorKind, Found, Syntax};
use super::scan::{self, Fault, Style};
use crate::base64;
use crate::limits::JSON_DEPTH;
use crate::search;

/// Reads a JSON document value by value, decoding it in place.
///
/// What it hands out borrows the document's memory, so nothing is copied and nothing is allocated.
/// Most callers need no more than [`FromJson`](super::FromJson), [`json_object!`](crate::json_object)
/// and [`from_slice`](super::from_slice).
///
/// A method that answers an error leaves the reader somewhere inside the document; it must not be
/// used further, except by [`close_object`](Self::close_object) and
/// [`close_array`](Self::close_array).
#[derive(Debug)]
pub struct Reader<'a> {
    /// What has not been read yet.
    rest: &'a mut [u8],
    /// Offset of `rest` in the document.
    offset: usize,
    /// Line on which `rest` starts, counted from 1.
    line: usize,
    /// Offset of the first byte of that line.
    line_start: usize,
    /// Levels of nesting that are left, plus one.
    depth: u8,
}

/// What [`Reader::open`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// `[`: go on with [`Reader::next_element`], end with [`Reader::close_array`].
    Array,
    /// `{`: go on with [`Reader::next_key`], end with [`Reader::close_object`].
    Object,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `document`.
    pub fn new(document: &'a mut [u8]) -> Self {
        Self {
            rest: document,
            offset: 0,
            line: 1,
            line_start: 0,
            depth: JSON_DEPTH,
        }
    }

    /// Requires that only white space is left.
    ///
    /// # Errors
    ///
    /// [`Syntax::TrailingCharacters`].
    pub fn finish(mut self) -> Result<(), Error<'a>> {
        self.skip_white_space();
        match self.peek() {
            Some(_) => Err(self.peek_error(Syntax::TrailingCharacters)),
            None => Ok(()),
        }
    }

    /// Reads a string; `expected` is what an error calls it, such as `a string`.
    ///
    /// # Errors
    ///
    /// Syntax errors, and [`ErrorKind::InvalidType`].
    pub fn string(&mut self, expected: &'static str) -> Result<&'a str, Error<'a>> {
        let bytes = self.string_bytes(expected)?;
        self.utf8(bytes)
    }

    /// Reads a Base64 string, and answers its bytes.
    ///
    /// # Errors
    ///
    /// Syntax errors, [`ErrorKind::InvalidType`], and [`ErrorKind::Base64`].
    pub fn base64(&mut self) -> Result<&'a mut [u8], Error<'a>> {
        let text = self.string_bytes("a base64-encoded string")?;
        if let Err(error) = search::require_utf8(text) {
            return Err(self.not_utf8(text.len(), error));
        }
        base64::decode(text, base64::Padding::Required)
            .map_err(|error| self.place(Error::new(ErrorKind::Base64(error))))
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    ///
    /// Syntax errors, and [`ErrorKind::InvalidType`].
    pub fn boolean(&mut self) -> Result<bool, Error<'a>> {
        match self.peek_value()? {
            byte @ (b't' | b'f') => {
                self.ident()?;
                Ok(byte == b't')
            }
            _ => Err(self.invalid_type("a boolean")),
        }
    }

    /// Reads an integer that is not negative; `expected` is the type's name, such as `u32`.
    ///
    /// # Errors
    ///
    /// Syntax errors, [`ErrorKind::InvalidType`], and [`ErrorKind::InvalidValue`] if it is
    /// negative or above `max`.
    pub fn unsigned(&mut self, max: u64, expected: &'static str) -> Result<u64, Error<'a>> {
        match self.integer(expected)? {
            Found::Unsigned(value) if value <= max => Ok(value),
            found => Err(self.invalid_number(found, expected)),
        }
    }

    /// Reads an integer between `min` and `max`; `expected` is the type's name, such as `i32`.
    ///
    /// # Errors
    ///
    /// Syntax errors, [`ErrorKind::InvalidType`], and [`ErrorKind::InvalidValue`] if it is out of
    /// range.
    pub fn signed(&mut self, min: i64, max: i64, expected: &'static str) -> Result<i64, Error<'a>> {
        let found = self.integer(expected)?;
        let value = match found {
            Found::Signed(value) => Some(value),
            Found::Unsigned(value) => i64::try_from(value).ok(),
            _ => None,
        };
        match value {
            Some(value) if (min..=max).contains(&value) => Ok(value),
            _ => Err(self.invalid_number(found, expected)),
        }
    }

    /// Reads `null` if that is the next value; answers whether it was.
    ///
    /// # Errors
    ///
    /// Syntax errors.
    pub fn null(&mut self) -> Result<bool, Error<'a>> {
        self.skip_white_space();
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.ident()?;
        Ok(true)
    }

    /// Skips a value of any kind. Its strings are not decoded, and may be anything.
    ///
    /// # Errors
    ///
    /// Syntax errors.
    pub fn skip(&mut self) -> Result<(), Error<'a>> {
        self.undecoded().map(drop)
    }

    /// Reads a value of any kind, and answers its text as it stands in the document.
    ///
    /// # Errors
    ///
    /// Syntax errors.
    pub fn raw(&mut self) -> Result<&'a mut [u8], Error<'a>> {
        self.skip_white_space();
        let end = scan::value(self.rest, self.depth).map_err(|fault| self.fault(fault))?;
        let text = self.rest.get(..end).unwrap_or_default();
        if let Err(error) = search::require_utf8(text) {
            let syntax = Syntax::InvalidUnicode;
            let at = error.valid_up_to().saturating_add(1);
            return Err(self.fault(scan::fault(syntax, at)));
        }
        Ok(self.take_lines(end))
    }

    /// Enters an object, or an array that lists the members of one in order.
    ///
    /// `expected` is what an error calls it, such as `struct Sign`.
    ///
    /// # Errors
    ///
    /// Syntax errors, [`ErrorKind::InvalidType`], and [`Syntax::RecursionLimit`].
    pub fn open(&mut self, expected: &'static str) -> Result<Shape, Error<'a>> {
        let shape = match self.peek_value()? {
            b'[' => Shape::Array,
            b'{' => Shape::Object,
            _ => return Err(self.invalid_type(expected)),
        };
        self.enter()?;
        Ok(shape)
    }

    /// Reads an object, or an array that lists its members in order, with one function for each.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and those of the functions.
    pub fn object_or_array<T>(
        &mut self,
        expected: &'static str,
        object: impl FnOnce(&mut Self) -> Result<T, Error<'a>>,
        array: impl FnOnce(&mut Self) -> Result<T, Error<'a>>,
    ) -> Result<T, Error<'a>> {
        match self.open(expected)? {
            Shape::Array => {
                let outcome = array(self);
                self.close_array(outcome)
            }
            Shape::Object => {
                let outcome = object(self);
                self.close_object(outcome)
            }
        }
    }

    /// Enters an object.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_object(&mut self, expected: &'static str) -> Result<(), Error<'a>> {
        match self.peek_value()? {
            b'{' => self.enter(),
            _ => Err(self.invalid_type(expected)),
        }
    }

    /// Enters an array.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_array(&mut self, expected: &'static str) -> Result<(), Error<'a>> {
        match self.peek_value()? {
            b'[' => self.enter(),
            _ => Err(self.invalid_type(expected)),
        }
    }

    /// Reads the name of the next member, if there is one. Its value is read with
    /// [`value`](Self::value) or skipped with [`skip_value`](Self::skip_value).
    ///
    /// `first` starts as `true` and belongs to this object.
    ///
    /// # Errors
    ///
    /// Syntax errors.
    pub fn next_key(&mut self, first: &mut bool) -> Result<Option<&'a str>, Error<'a>> {
        self.skip_white_space();
        match self.peek() {
            None => return Err(self.peek_error(Syntax::EofInObject)),
            Some(b'}') => return Ok(None),
            Some(_) if mem::take(first) => {}
            Some(b',') => {
                self.advance(1);
                self.skip_white_space();
                match self.peek() {
                    None => return Err(self.peek_error(Syntax::EofInValue)),
                    Some(b'}') => return Err(self.peek_error(Syntax::TrailingComma)),
                    Some(_) => {}
                }
            }
            Some(_) => return Err(self.peek_error(Syntax::ExpectedObjectCommaOrEnd)),
        }
        if self.peek() != Some(b'"') {
            return Err(self.peek_error(Syntax::KeyMustBeAString));
        }
        let key = self.decode_string()?;
        self.utf8(key).map(Some)
    }

    /// Reads the value of the member whose name has just been read.
    ///
    /// # Errors
    ///
    /// Syntax errors, and those of the value.
    pub fn value<T: super::FromJson<'a>>(&mut self) -> Result<T, Error<'a>> {
        self.colon()?;
        T::from_json(self)
    }

    /// Skips the value of the member whose name has just been read.
    ///
    /// # Errors
    ///
    /// Syntax errors.
    pub fn skip_value(&mut self) -> Result<(), Error<'a>> {
        self.colon()?;
        self.skip()
    }

    /// Goes to the next element of an array; answers whether there is one.
    ///
    /// `first` starts as `true` and belongs to this array.
    ///
    /// # Errors
    ///
    /// Syntax errors.
    pub fn next_element(&mut self, first: &mut bool) -> Result<bool, Error<'a>> {
        self.skip_white_space();
        match self.peek() {
            None => Err(self.peek_error(Syntax::EofInList)),
            Some(b']') => Ok(false),
            Some(_) if mem::take(first) => Ok(true),
            Some(b',') => {
                self.advance(1);
                self.skip_white_space();
                match self.peek() {
                    None => Err(self.peek_error(Syntax::EofInValue)),
                    Some(b']') => Err(self.peek_error(Syntax::TrailingComma)),
                    Some(_) => Ok(true),
                }
            }
            Some(_) => Err(self.peek_error(Syntax::ExpectedListCommaOrEnd)),
        }
    }

    /// Leaves an object with the outcome of reading its members.
    ///
    /// An outcome that is an error without a position gets the one where the object ends, or where
    /// reading stopped.
    ///
    /// # Errors
    ///
    /// The outcome's, or a syntax error.
    pub fn close_object<T>(&mut self, outcome: Result<T, Error<'a>>) -> Result<T, Error<'a>> {
        self.depth = self.depth.saturating_add(1);
        self.skip_white_space();
        let end = match self.peek() {
            Some(b'}') => {
                self.advance(1);
                Ok(())
            }
            Some(b',') => Err(self.peek_error(Syntax::TrailingComma)),
            Some(_) => Err(self.peek_error(Syntax::TrailingCharacters)),
            None => Err(self.peek_error(Syntax::EofInObject)),
        };
        let value = outcome.map_err(|error| self.place(error))?;
        end.map(|()| value)
    }

    /// Leaves an array with the outcome of reading its elements, as
    /// [`close_object`](Self::close_object).
    ///
    /// # Errors
    ///
    /// The outcome's, or a syntax error; elements that were not read are one.
    pub fn close_array<T>(&mut self, outcome: Result<T, Error<'a>>) -> Result<T, Error<'a>> {
        self.depth = self.depth.saturating_add(1);
        self.skip_white_space();
        let end = match self.peek() {
            Some(b']') => {
                self.advance(1);
                Ok(())
            }
            Some(b',') => {
                self.advance(1);
                self.skip_white_space();
                Err(self.peek_error(match self.peek() {
                    Some(b']') => Syntax::TrailingComma,
                    _ => Syntax::TrailingCharacters,
                }))
            }
            Some(_) => Err(self.peek_error(Syntax::TrailingCharacters)),
            None => Err(self.peek_error(Syntax::EofInList)),
        };
        let value = outcome.map_err(|error| self.place(error))?;
        end.map(|()| value)
    }

    /// Reads an array, handing each element to `each`, which reads it from the reader.
    ///
    /// # Errors
    ///
    /// Syntax errors, [`ErrorKind::InvalidType`], and those of `each`.
    pub fn elements(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Error<'a>>,
    ) -> Result<(), Error<'a>> {
        self.open_array("a sequence")?;
        let outcome = self.each_element(&mut each);
        self.close_array(outcome)
    }

    /// The complaint that the next value has another type than `expected`.
    ///
    /// The value is read as far as needed to name it; if it is malformed, that is the complaint.
    pub fn invalid_type(&mut self, expected: &'static str) -> Error<'a> {
        match self.found() {
            Ok(found) => self.place(Error::new(ErrorKind::InvalidType { found, expected })),
            Err(error) => error,
        }
    }

    /// Gives an error the current position, unless it has one.
    #[must_use]
    pub fn place(&self, error: Error<'a>) -> Error<'a> {
        if error.line != 0 {
            return error;
        }
        self.at(error.kind, 0, 0)
    }

    fn each_element(
        &mut self,
        each: &mut dyn FnMut(&mut Self) -> Result<(), Error<'a>>,
    ) -> Result<(), Error<'a>> {
        let mut first = true;
        while self.next_element(&mut first)? {
            each(self)?;
        }
        Ok(())
    }

    /// Enters the array or object at the current place.
    fn enter(&mut self) -> Result<(), Error<'a>> {
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 {
            return Err(self.peek_error(Syntax::RecursionLimit));
        }
        self.advance(1);
        Ok(())
    }

    fn colon(&mut self) -> Result<(), Error<'a>> {
        self.skip_white_space();
        match self.peek() {
            Some(b':') => {
                self.advance(1);
                Ok(())
            }
            Some(_) => Err(self.peek_error(Syntax::ExpectedColon)),
            None => Err(self.peek_error(Syntax::EofInObject)),
        }
    }

    /// Reads a number; anything that is not an integer is a complaint.
    fn integer(&mut self, expected: &'static str) -> Result<Found<'a>, Error<'a>> {
        match self.peek_value()? {
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.invalid_type(expected)),
        }
    }

    fn number(&mut self) -> Result<Found<'a>, Error<'a>> {
        let number = scan::number(self.rest, 0, Style::Read).map_err(|fault| self.fault(fault))?;
        let text = self.take(number.end);
        let text = core::str::from_utf8(text).map_err(|_| self.error(Syntax::InvalidUnicode))?;
        // Minus zero is no integer, as it would lose its sign.
        let integer = (number.integer && text != "-0").then_some(());
        Ok(integer
            .and_then(|()| {
                let unsigned = text.parse().ok().map(Found::Unsigned);
                unsigned.or_else(|| text.parse().ok().map(Found::Signed))
            })
            .unwrap_or(Found::Float(text)))
    }

    fn invalid_number(&self, found: Found<'a>, expected: &'static str) -> Error<'a> {
        self.place(Error::new(match found {
            Found::Float(_) => ErrorKind::InvalidType { found, expected },
            _ => ErrorKind::InvalidValue { found, expected },
        }))
    }

    /// What the next value is.
    fn found(&mut self) -> Result<Found<'a>, Error<'a>> {
        match self.peek() {
            Some(b'n') => self.ident().map(|()| Found::Null),
            Some(b't') => self.ident().map(|()| Found::Bool(true)),
            Some(b'f') => self.ident().map(|()| Found::Bool(false)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'"') => self.string("a string").map(Found::Str),
            Some(b'[') => Ok(Found::Sequence),
            Some(b'{') => Ok(Found::Map),
            _ => Err(self.peek_error(Syntax::ExpectedValue)),
        }
    }

    fn ident(&mut self) -> Result<(), Error<'a>> {
        let end = scan::ident(self.rest, 0).map_err(|fault| self.fault(fault))?;
        self.advance(end);
        Ok(())
    }

    /// Takes the next value without decoding it. White space before it belongs to the answer.
    fn undecoded(&mut self) -> Result<&'a mut [u8], Error<'a>> {
        let end = scan::value(self.rest, self.depth).map_err(|fault| self.fault(fault))?;
        Ok(self.take_lines(end))
    }

    /// The next value's first byte.
    fn peek_value(&mut self) -> Result<u8, Error<'a>> {
        self.skip_white_space();
        match self.peek() {
            Some(byte) => Ok(byte),
            None => Err(self.peek_error(Syntax::EofInValue)),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn skip_white_space(&mut self) {
        // Most documents on the wire have none.
        let Some(b' ' | b'\n' | b'\t' | b'\r') = self.rest.first() else {
            return;
        };
        let end = scan::white_space(self.rest, 0);
        self.take_lines(end);
    }

    fn advance(&mut self, count: usize) {
        self.take(count);
    }

    /// Takes the next `count` bytes, and counts the line ends in them.
    fn take_lines(&mut self, count: usize) -> &'a mut [u8] {
        let (lines, last) = lines(self.rest.get(..count).unwrap_or_default());
        if let Some(last) = last {
            self.line = self.line.saturating_add(lines);
            self.line_start = self.offset.saturating_add(last).saturating_add(1);
        }
        self.take(count)
    }

    /// Takes the next `count` bytes, in which there is no line end that has not been counted.
    fn take(&mut self, count: usize) -> &'a mut [u8] {
        let rest = mem::take(&mut self.rest);
        match rest.split_at_mut_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                self.offset = self.offset.saturating_add(count);
                taken
            }
            // No caller asks for more than there is.
            None => Default::default(),
        }
    }

    /// A syntax error at the current place.
    fn error(&self, syntax: Syntax) -> Error<'a> {
        self.at(ErrorKind::Syntax(syntax), 0, 0)
    }

    /// A syntax error about the next byte.
    fn peek_error(&self, syntax: Syntax) -> Error<'a> {
        self.at(ErrorKind::Syntax(syntax), 0, self.rest.len().min(1))
    }

    fn fault(&self, fault: Fault) -> Error<'a> {
        self.at(ErrorKind::Syntax(fault.syntax), 0, fault.at)
    }

    /// An error after `at` more bytes, of which those from `from` on may contain line ends.
    fn at(&self, kind: ErrorKind<'a>, from: usize, at: usize) -> Error<'a> {
        let (lines, last) = lines(self.rest.get(from..at).unwrap_or_default());
        let column = match last {
            Some(last) => at
                .saturating_sub(from)
                .saturating_sub(last)
                .saturating_sub(1),
            None => self
                .offset
                .saturating_add(at)
                .saturating_sub(self.line_start),
        };
        Error {
            kind,
            line: self.line.saturating_add(lines),
            column,
        }
    }
}

/// How many line ends there are, and where the last one is.
fn lines(text: &[u8]) -> (usize, Option<usize>) {
    let count = text.iter().filter(|&&byte| byte == b'\n').count();
    (count, text.iter().rposition(|&byte| byte == b'\n'))
}
