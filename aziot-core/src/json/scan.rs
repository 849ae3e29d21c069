//! Finding the end of a value without decoding it.

use super::error::Syntax;
use crate::limits::JSON_DEPTH;
use crate::search;

/// A departure from the syntax, and how many bytes had been read when it was noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub syntax: Syntax,
    pub at: usize,
}

/// Where the value at the start of `input` ends.
///
/// White space may precede it. Strings are not decoded: an escape must be well formed, but
/// surrogates are not paired and UTF-8 is not checked. `depth` is how many levels of nesting are
/// left, plus one.
pub(super) fn value(input: &[u8], depth: u8) -> Result<usize, Fault> {
    let mut open = Nesting::default();
    let mut i = 0;
    loop {
        i = white_space(input, i);
        let byte = *input.get(i).ok_or(fault(Syntax::EofInValue, i))?;
        let mut complete = true;
        match byte {
            b'n' | b't' | b'f' => i = ident(input, i)?,
            b'-' | b'0'..=b'9' => i = number(input, i, Style::Skip)?.end,
            b'"' => i = string(input, next(i))?,
            b'[' | b'{' => {
                if open.depth.saturating_add(1) >= depth.min(JSON_DEPTH) {
                    return Err(fault(Syntax::RecursionLimit, next(i)));
                }
                open.push(byte == b'{');
                i = next(i);
                complete = false;
            }
            _ => return Err(fault(Syntax::ExpectedValue, next(i))),
        }
        // Close everything that ends here.
        let in_object = loop {
            let Some(in_object) = open.top() else {
                return Ok(i);
            };
            i = white_space(input, i);
            match (input.get(i), in_object) {
                (Some(b','), _) if complete => {
                    i = next(i);
                    break in_object;
                }
                (Some(b']'), false) | (Some(b'}'), true) => {}
                (Some(_), true) if complete => {
                    return Err(fault(Syntax::ExpectedObjectCommaOrEnd, next(i)));
                }
                (Some(_), false) if complete => {
                    return Err(fault(Syntax::ExpectedListCommaOrEnd, next(i)));
                }
                (Some(_), in_object) => break in_object,
                (None, true) => return Err(fault(Syntax::EofInObject, i)),
                (None, false) => return Err(fault(Syntax::EofInList, i)),
            }
            i = next(i);
            open.pop();
            complete = true;
        };
        if in_object {
            i = white_space(input, i);
            match input.get(i) {
                Some(b'"') => i = string(input, next(i))?,
                Some(_) => return Err(fault(Syntax::KeyMustBeAString, next(i))),
                None => return Err(fault(Syntax::EofInObject, i)),
            }
            i = white_space(input, i);
            match input.get(i) {
                Some(b':') => i = next(i),
                Some(_) => return Err(fault(Syntax::ExpectedColon, next(i))),
                None => return Err(fault(Syntax::EofInObject, i)),
            }
        }
    }
}

/// The first place from `i` on that is not white space.
pub(super) fn white_space(input: &[u8], mut i: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = input.get(i) {
        i = next(i);
    }
    i
}

/// Where the word `null`, `true` or `false` at `i` ends; the first letter decides which it must be.
pub(super) fn ident(input: &[u8], i: usize) -> Result<usize, Fault> {
    let word: &[u8] = match input.get(i) {
        Some(b'n') => b"null",
        Some(b't') => b"true",
        _ => b"false",
    };
    word.iter().try_fold(i, |i, expected| match input.get(i) {
        Some(byte) if byte == expected => Ok(next(i)),
        Some(_) => Err(fault(Syntax::ExpectedIdent, next(i))),
        None => Err(fault(Syntax::EofInValue, i)),
    })
}

/// A number: where it ends, and whether it is written as an integer.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub end: usize,
    pub integer: bool,
}

/// Which complaint an unfinished number at the end of the document gets.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Style {
    /// That of a value that is read.
    Read,
    /// That of a value that is skipped.
    Skip,
}

/// The number at `i`.
pub(super) fn number(input: &[u8], mut i: usize, style: Style) -> Result<Number, Fault> {
    let missing_digit = |i: usize| match (input.get(i), style) {
        (Some(_), _) => fault(Syntax::InvalidNumber, next(i)),
        (None, Style::Read) => fault(Syntax::EofInValue, i),
        (None, Style::Skip) => fault(Syntax::InvalidNumber, i),
    };
    if input.get(i) == Some(&b'-') {
        i = next(i);
    }
    match input.get(i) {
        Some(b'0') => {
            i = next(i);
            if input.get(i).is_some_and(u8::is_ascii_digit) {
                return Err(fault(Syntax::InvalidNumber, next(i)));
            }
        }
        Some(b'1'..=b'9') => i = digits(input, i),
        _ => return Err(missing_digit(i)),
    }
    let mut integer = true;
    if input.get(i) == Some(&b'.') {
        integer = false;
        let start = next(i);
        i = digits(input, start);
        if i == start {
            return Err(missing_digit(i));
        }
    }
    if let Some(b'e' | b'E') = input.get(i) {
        integer = false;
        i = next(i);
        if let Some(b'+' | b'-') = input.get(i) {
            i = next(i);
        }
        let start = i;
        i = digits(input, start);
        if i == start {
            return Err(missing_digit(i));
        }
    }
    Ok(Number { end: i, integer })
}

fn digits(input: &[u8], mut i: usize) -> usize {
    while input.get(i).is_some_and(u8::is_ascii_digit) {
        i = next(i);
    }
    i
}

/// Where the string ends whose first character is at `i`.
fn string(input: &[u8], mut i: usize) -> Result<usize, Fault> {
    loop {
        let rest = input.get(i..).unwrap_or_default();
        i = i.saturating_add(search::position(rest, is_special).unwrap_or(rest.len()));
        match input.get(i) {
            Some(b'"') => return Ok(next(i)),
            Some(b'\\') => {
                i = next(i);
                match input.get(i) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => i = next(i),
                    Some(b'u') => {
                        hex4(input, next(i))?;
                        i = i.saturating_add(5);
                    }
                    Some(_) => return Err(fault(Syntax::InvalidEscape, next(i))),
                    None => return Err(fault(Syntax::EofInString, i)),
                }
            }
            Some(_) => return Err(fault(Syntax::ControlCharacter, i)),
            None => return Err(fault(Syntax::EofInString, i)),
        }
    }
}

/// Whether a byte does not stand for itself in a string.
pub(super) const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The four hexadecimal digits at `i`.
pub(super) fn hex4(input: &[u8], i: usize) -> Result<u16, Fault> {
    let end = i.saturating_add(4);
    let digits = input
        .get(i..end)
        .ok_or(fault(Syntax::EofInString, input.len()))?;
    digits
        .iter()
        .try_fold(0_u16, |value, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some((value << 4) | u16::try_from(digit).ok()?)
        })
        .ok_or(fault(Syntax::InvalidEscape, end))
}

pub(super) const fn fault(syntax: Syntax, at: usize) -> Fault {
    Fault { syntax, at }
}

/// An index into a slice never overflows.
const fn next(i: usize) -> usize {
    i.saturating_add(1)
}

/// Which of the open brackets are braces: one bit a level.
#[derive(Default)]
struct Nesting {
    braces: [u32; JSON_DEPTH as usize / 32],
    depth: u8,
}

impl Nesting {
    fn push(&mut self, brace: bool) {
        let (word, bit) = Self::place(self.depth);
        if let Some(word) = self.braces.get_mut(word) {
            *word = if brace { *word | bit } else { *word & !bit };
        }
        self.depth = self.depth.saturating_add(1);
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the innermost open bracket is a brace.
    fn top(&self) -> Option<bool> {
        let (word, bit) = Self::place(self.depth.checked_sub(1)?);
        Some(self.braces.get(word)? & bit != 0)
    }

    const fn place(level: u8) -> (usize, u32) {
        (level as usize / 32, 1 << (level % 32))
    }
}
