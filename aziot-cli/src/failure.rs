//! Why a command failed.

use std::error::Error;
use std::fmt;
use std::iter;

use aziot_core::config::Invalid;

/// A failed command: one line, and what caused it.
///
/// Displays as the line; if there are causes, an empty line, `Caused by:` and the causes follow, indented, and numbered
/// if there are several.
#[derive(Debug)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
}

impl Failure {
    /// A failure that explains itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
        }
    }

    /// A failure caused by `error` and by what that was caused by.
    pub fn caused(message: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let chain = iter::successors(Some(error), |error| Error::source(*error));
        Self {
            message: message.into(),
            causes: chain.map(ToString::to_string).collect(),
        }
    }

    /// A failure with several independent causes.
    pub fn listed(
        message: impl Into<String>,
        causes: impl IntoIterator<Item = impl ToString>,
    ) -> Self {
        Self {
            message: message.into(),
            causes: causes.into_iter().map(|cause| cause.to_string()).collect(),
        }
    }

    /// A configuration with errors.
    pub fn invalid(message: impl Into<String>, invalid: &Invalid) -> Self {
        Self::listed(message, &invalid.problems)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.causes.as_slice() {
            [] => Ok(()),
            [cause] => write!(f, "\n\nCaused by:\n    {cause}"),
            causes => {
                f.write_str("\n\nCaused by:")?;
                for (number, cause) in causes.iter().enumerate() {
                    write!(f, "\n    {number}: {cause}")?;
                }
                Ok(())
            }
        }
    }
}
