//! What a request of the Identity Service can fail with, and how the client reads it (identity-service 5.2).

use std::fmt;

/// A failed request: a class that decides status and first line, and the causes below it, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    class: Class,
    causes: Vec<String>,
}

/// The classes of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The caller may not do this.
    Authorization,
    /// No device identity.
    DeviceNotFound,
    /// The provisioning service.
    Dps,
    /// The provisioning service cannot be used behind a gateway.
    DpsInNestedMode,
    /// IoT Hub.
    Hub,
    /// Something the client has no part in.
    Internal,
    /// A parameter of the request, by name.
    InvalidParameter(&'static str),
    /// The Keys Service.
    Keys,
    /// A request that needs a body has none.
    MissingBody,
    /// The hub gave no generation id.
    ModuleNotFound,
    /// The body is not what the route wants.
    Unprocessable,
}

impl Error {
    /// An error of this class without causes.
    #[must_use]
    pub const fn new(class: Class) -> Self {
        Self {
            class,
            causes: Vec::new(),
        }
    }

    /// An error of this class for this reason.
    #[must_use]
    pub fn because(class: Class, cause: impl fmt::Display) -> Self {
        Self {
            class,
            causes: vec![cause.to_string()],
        }
    }

    /// A parameter with a value that cannot be used.
    #[must_use]
    pub fn parameter(name: &'static str, cause: impl fmt::Display) -> Self {
        Self::because(Class::InvalidParameter(name), cause)
    }

    /// The device identity is not there, for the reason that provisioning failed.
    #[must_use]
    pub fn no_device(reason: Option<&Self>) -> Self {
        let mut error = Self::new(Class::DeviceNotFound);
        if let Some(reason) = reason {
            error.causes.push(reason.class.to_string());
            error.causes.extend_from_slice(&reason.causes);
        }
        error
    }

    /// Adds a cause below the others.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds another error and its causes below the others.
    #[must_use]
    pub fn caused_by_error(mut self, other: &Self) -> Self {
        if other.class != self.class {
            self.causes.push(other.class.to_string());
        }
        self.causes.extend_from_slice(&other.causes);
        self
    }

    /// The causes, outermost first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.class {
            Class::Authorization => 401,
            Class::DeviceNotFound
            | Class::InvalidParameter(_)
            | Class::MissingBody
            | Class::ModuleNotFound => 400,
            Class::Dps | Class::DpsInNestedMode | Class::Hub | Class::Keys => 404,
            Class::Unprocessable => 422,
            Class::Internal => 500,
        }
    }

    /// The whole error on one line, for the log and for states.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.class.to_string();
        for cause in &self.causes {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(cause);
        }
        line
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => f.write_str("authorization error"),
            Self::DeviceNotFound => f.write_str("device identity not found"),
            Self::Dps => f.write_str("DPS client error"),
            Self::DpsInNestedMode => {
                f.write_str("DPS provisioning is not supported in nested mode")
            }
            Self::Hub => f.write_str("Hub client error"),
            Self::Internal => f.write_str("internal error"),
            Self::InvalidParameter(name) => write!(f, "parameter {name:?} has an invalid value"),
            Self::Keys => f.write_str("Key client error"),
            Self::MissingBody => f.write_str("missing request body"),
            Self::ModuleNotFound => f.write_str("module identity not found"),
            Self::Unprocessable => Ok(()),
        }
    }
}

/// The text of the response: the class, then one line per cause.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.class == Class::Unprocessable {
            // The text of the JSON reader stands alone.
            return self.causes.iter().try_for_each(|cause| f.write_str(cause));
        }
        write!(f, "{}", self.class)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, "\ncaused by: {cause}"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_28_parameter_texts() {
        let missing = Error::parameter("type", "missing parameter");
        assert_eq!(
            missing.to_string(),
            "parameter \"type\" has an invalid value\ncaused by: missing parameter"
        );
        assert_eq!(missing.status(), 400);
        let blank = Error::parameter("module_id", "module name cannot be empty");
        assert_eq!(
            blank.to_string(),
            "parameter \"module_id\" has an invalid value\ncaused by: module name cannot be empty"
        );
    }

    #[test]
    fn is_15_is_31_pinned_texts() {
        assert_eq!(
            Error::new(Class::Authorization).to_string(),
            "authorization error"
        );
        assert_eq!(Error::new(Class::Authorization).status(), 401);
        assert_eq!(
            Error::no_device(None).to_string(),
            "device identity not found"
        );
        assert_eq!(Error::no_device(None).status(), 400);
        let reason = Error::because(Class::Dps, "status 401");
        assert_eq!(
            Error::no_device(Some(&reason)).to_string(),
            "device identity not found\ncaused by: DPS client error\ncaused by: status 401"
        );
        assert_eq!(
            Error::because(Class::Hub, "module m not found").one_line(),
            "Hub client error: module m not found"
        );
    }
}
