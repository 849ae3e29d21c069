//! What is wrong with a configuration, and where.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// A place in a configuration document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// Name of the document, usually its path.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One error or warning about a configuration: where, what, and what to do about it.
///
/// Prints on one line as `file:line:column: what: remedy`. Never holds text of the document other than names of
/// keys and values of settings that cannot be secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where it is; `None` if there is no document to point at.
    pub location: Option<Location>,
    /// What is wrong.
    pub message: String,
    /// What to do about it. May be empty.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}

impl core::error::Error for Problem {}

/// Settings, and what the reader should be told although it is not fatal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    /// Unknown keys, settings without effect, and the like, in document order.
    pub warnings: Vec<Problem>,
}

/// A configuration that cannot be used: every error found, and the warnings found beside them.
///
/// Displays one problem per line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// The errors, at least one.
    pub problems: Vec<Problem>,
    /// Warnings, as in [`Loaded::warnings`].
    pub warnings: Vec<Problem>,
}

impl From<Problem> for Invalid {
    fn from(problem: Problem) -> Self {
        Self {
            problems: alloc::vec![problem],
            warnings: Vec::new(),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl core::error::Error for Invalid {}
