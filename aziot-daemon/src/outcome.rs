//! What every service and the process that runs it agree on: the version, and errors that end it.

use std::error::Error;

/// The package version that the build was told, or `dev build`.
pub const VERSION: &str = match option_env!("PACKAGE_VERSION") {
    Some(version) => version,
    None => "dev build",
};

/// An error that ends the process, with the line that heads its report.
pub struct Fatal {
    /// `could not read config` or `service encountered an error`.
    pub top: &'static str,
    /// The cause.
    pub error: Box<dyn Error>,
}

impl Fatal {
    /// A configuration that cannot be used.
    pub fn config(error: impl Into<Box<dyn Error>>) -> Self {
        Self {
            top: "could not read config",
            error: error.into(),
        }
    }

    /// Anything else that keeps a service from running.
    pub fn service(error: impl Into<Box<dyn Error>>) -> Self {
        Self {
            top: "service encountered an error",
            error: error.into(),
        }
    }
}
