//! What a request of the Certificates Service can fail with, and how the client reads it (certificates-service 5.3).

use std::fmt;

use aziot_core::api::certs;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The client is told why.
    Told(certs::Error<String>),
    /// The client is told `internal error`; the log gets the causes, outermost first.
    Internal(Vec<String>),
}

impl Error {
    /// An error that is not the client's business.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::Internal(vec![cause.to_string()])
    }

    /// The lanes are full.
    #[must_use]
    pub fn busy() -> Self {
        Self::internal("too many operations are under way; try again")
    }

    /// Adds a cause below the others. The client of an error that it is told of does not see it.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        if let Self::Internal(causes) = &mut self {
            causes.push(cause.to_string());
        }
        self
    }

    /// The same as cause of an internal error. What the client is told of stays as it is.
    #[must_use]
    pub fn in_context(mut self, what: impl fmt::Display) -> Self {
        if let Self::Internal(causes) = &mut self {
            causes.insert(0, what.to_string());
        }
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Told(error) => error.status(),
            Self::Internal(_) => 500,
        }
    }

    /// The whole error on one line, for the log and for states.
    #[must_use]
    pub fn one_line(&self) -> String {
        match self {
            Self::Told(error) => error.to_string().replace("\ncaused by: ", ": "),
            Self::Internal(causes) => causes.join(": "),
        }
    }
}

/// What the client is told, or, of an internal error, the causes for the log, one a line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(error) => error.fmt(f),
            Self::Internal(causes) => {
                let mut separator = "";
                causes.iter().try_for_each(|cause| {
                    write!(f, "{separator}{cause}")?;
                    separator = "\n";
                    Ok(())
                })
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<certs::Error<String>> for Error {
    fn from(error: certs::Error<String>) -> Self {
        Self::Told(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_for_the_log_and_outermost_first() {
        let error = Error::internal("b").caused_by("c").in_context("a");
        assert_eq!(
            (error.status(), error.to_string().as_str()),
            (500, "a\nb\nc")
        );
        assert_eq!(error.one_line(), "a: b: c");
        let told = Error::from(certs::Error::NotFound);
        assert_eq!(told.clone().in_context("a").caused_by("c"), told);
        assert_eq!(told.status(), 400);
        assert_eq!(
            told.one_line(),
            "parameter \"id\" has an invalid value: not found"
        );
    }
}
