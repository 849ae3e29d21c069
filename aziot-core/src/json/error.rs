use core::fmt;

use crate::base64;

/// A JSON document was refused: what is wrong, and where.
///
/// The text is the one that existing clients know: the complaint, then ` at line L column C`.
/// Lines count from 1; a column is the number of bytes of the line that had been read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Error<'a> {
    /// What is wrong.
    pub kind: ErrorKind<'a>,
    /// Line of the document; 0 until the position is known.
    pub line: usize,
    /// Bytes of the line that had been read.
    pub column: usize,
}

impl<'a> Error<'a> {
    /// An error whose position the reader fills in when it leaves the value.
    #[must_use]
    pub const fn new(kind: ErrorKind<'a>) -> Self {
        Self {
            kind,
            line: 0,
            column: 0,
        }
    }

    /// The member `name` occurs a second time.
    #[must_use]
    pub const fn duplicate_field(name: &'static str) -> Self {
        Self::new(ErrorKind::DuplicateField(name))
    }

    /// The member `name` is required and does not occur.
    #[must_use]
    pub const fn missing_field(name: &'static str) -> Self {
        Self::new(ErrorKind::MissingField(name))
    }

    /// The same complaint without a position, for a document inside another one.
    #[must_use]
    pub const fn without_position(self) -> Self {
        Self::new(self.kind)
    }
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if self.line == 0 {
            return Ok(());
        }
        write!(f, " at line {} column {}", self.line, self.column)
    }
}

impl core::error::Error for Error<'_> {}

/// What is wrong with a JSON document.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ErrorKind<'a> {
    /// A string that must be Base64 is not.
    Base64(base64::Error),
    /// A known member occurs twice.
    DuplicateField(&'static str),
    /// An array has too few elements for the object it stands for.
    InvalidLength {
        /// Elements found.
        length: usize,
        /// What is expected, such as `struct Sign`.
        expected: &'static str,
        /// How many members that has.
        members: usize,
    },
    /// A value is of another JSON type.
    InvalidType {
        /// What is there.
        found: Found<'a>,
        /// What is expected, such as `a string`.
        expected: &'static str,
    },
    /// A value has the right JSON type, but not an acceptable content.
    InvalidValue {
        /// What is there.
        found: Found<'a>,
        /// What is expected.
        expected: &'static str,
    },
    /// A required member does not occur.
    MissingField(&'static str),
    /// The document is not JSON.
    Syntax(Syntax),
    /// An array has more elements than there is room for.
    TooManyElements {
        /// The most elements accepted.
        limit: usize,
    },
    /// A string is none of the words that are possible in its place.
    UnknownVariant {
        /// The string.
        found: &'a str,
        /// The words.
        expected: &'static [&'static str],
    },
}

impl fmt::Display for ErrorKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Base64(error) => error.fmt(f),
            Self::DuplicateField(name) => write!(f, "duplicate field `{name}`"),
            Self::InvalidLength {
                length,
                expected,
                members,
            } => {
                let s = if members == 1 { "" } else { "s" };
                write!(
                    f,
                    "invalid length {length}, expected {expected} with {members} element{s}"
                )
            }
            Self::InvalidType { found, expected } => {
                write!(f, "invalid type: {found}, expected {expected}")
            }
            Self::InvalidValue { found, expected } => {
                write!(f, "invalid value: {found}, expected {expected}")
            }
            Self::MissingField(name) => write!(f, "missing field `{name}`"),
            Self::Syntax(syntax) => syntax.fmt(f),
            Self::TooManyElements { limit } => {
                write!(f, "invalid length: more than {limit} elements")
            }
            Self::UnknownVariant { found, expected } => {
                write!(f, "unknown variant `{found}`, ")?;
                match *expected {
                    [] => f.write_str("there are no variants"),
                    [only] => write!(f, "expected `{only}`"),
                    [one, two] => write!(f, "expected `{one}` or `{two}`"),
                    _ => expected.iter().enumerate().try_for_each(|(index, word)| {
                        let before = if index == 0 { "expected one of " } else { ", " };
                        write!(f, "{before}`{word}`")
                    }),
                }
            }
        }
    }
}

/// A value that is not what was expected.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Found<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A number that is not an integer of at most 64 bits, as it was written.
    Float(&'a str),
    /// An object.
    Map,
    /// `null`.
    Null,
    /// An array.
    Sequence,
    /// A negative integer.
    Signed(i64),
    /// A string.
    Str(&'a str),
    /// An integer that is not negative.
    Unsigned(u64),
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bool(value) => write!(f, "boolean `{value}`"),
            Self::Float(text) => write!(f, "floating point `{text}`"),
            Self::Map => f.write_str("map"),
            Self::Null => f.write_str("null"),
            Self::Sequence => f.write_str("sequence"),
            Self::Signed(value) => write!(f, "integer `{value}`"),
            Self::Str(text) => write!(f, "string {text:?}"),
            Self::Unsigned(value) => write!(f, "integer `{value}`"),
        }
    }
}

/// How a document departs from RFC 8259.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Syntax {
    /// A control character inside a string.
    ControlCharacter,
    /// The document ends inside an array.
    EofInList,
    /// The document ends inside an object.
    EofInObject,
    /// The document ends inside a string.
    EofInString,
    /// The document ends where a value must be, or inside one.
    EofInValue,
    /// No colon after the name of a member.
    ExpectedColon,
    /// Something else than `true`, `false` or `null` that starts like one of them.
    ExpectedIdent,
    /// No comma and no closing bracket after an element.
    ExpectedListCommaOrEnd,
    /// No comma and no closing brace after a member.
    ExpectedObjectCommaOrEnd,
    /// Something that no value starts with.
    ExpectedValue,
    /// An escape sequence that does not exist.
    InvalidEscape,
    /// A number in a form that JSON does not have.
    InvalidNumber,
    /// A string is not UTF-8.
    InvalidUnicode,
    /// The name of a member is not a string.
    KeyMustBeAString,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// Arrays and objects are nested deeper than [`JSON_DEPTH`](crate::limits::JSON_DEPTH) allows.
    RecursionLimit,
    /// Text after the end of the document.
    TrailingCharacters,
    /// A comma after the last element or member.
    TrailingComma,
    /// No second half after the first half of a surrogate pair.
    UnexpectedEndOfHexEscape,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlCharacter => {
                "control character (\\u0000-\\u001F) found while parsing a string"
            }
            Self::EofInList => "EOF while parsing a list",
            Self::EofInObject => "EOF while parsing an object",
            Self::EofInString => "EOF while parsing a string",
            Self::EofInValue => "EOF while parsing a value",
            Self::ExpectedColon => "expected `:`",
            Self::ExpectedIdent => "expected ident",
            Self::ExpectedListCommaOrEnd => "expected `,` or `]`",
            Self::ExpectedObjectCommaOrEnd => "expected `,` or `}`",
            Self::ExpectedValue => "expected value",
            Self::InvalidEscape => "invalid escape",
            Self::InvalidNumber => "invalid number",
            Self::InvalidUnicode => "invalid unicode code point",
            Self::KeyMustBeAString => "key must be a string",
            Self::LoneSurrogate => "lone leading surrogate in hex escape",
            Self::RecursionLimit => "recursion limit exceeded",
            Self::TrailingCharacters => "trailing characters",
            Self::TrailingComma => "trailing comma",
            Self::UnexpectedEndOfHexEscape => "unexpected end of hex escape",
        })
    }
}
