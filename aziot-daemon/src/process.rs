//! Picks the service that the program name asks for, and runs it (spec, daemon chapter A.1, A.2, A.4).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use crate::outcome::{Fatal, VERSION};
use crate::{certd, identityd, keyd, logging, sys};

/// A service of the multi-call binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `aziot-certd`.
    Certd,
    /// `aziot-identityd`.
    Identityd,
    /// `aziot-keyd`.
    Keyd,
}

/// Why no service was picked.
#[derive(Debug, PartialEq, Eq)]
pub enum NameError {
    /// The argument vector is empty, or ends after `aziotd`.
    NoArgument,
    /// The argument has no last path component.
    NoName(OsString),
    /// No service of that name.
    Unrecognized(OsString),
    /// A service of the package that this build does not have.
    NotBuilt(&'static str),
    /// Something follows the service name.
    Trailing(OsString),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArgument => f.write_str("could not extract process name from args"),
            Self::NoName(arg) => write!(f, "could not extract process name from arg {arg:?}"),
            Self::Unrecognized(name) => {
                write!(f, "unrecognized process name {}", name.to_string_lossy())
            }
            Self::NotBuilt(name) => write!(f, "this build does not contain {name}"),
            Self::Trailing(arg) => write!(
                f,
                "unexpected argument {arg:?}: services take no options; they read their configuration from files"
            ),
        }
    }
}

/// Picks a service by the last path component of the first argument; `aziotd` passes on to the next argument.
///
/// # Errors
/// See [`NameError`].
pub fn pick(args: impl IntoIterator<Item = OsString>) -> Result<Name, NameError> {
    let mut args = args.into_iter();
    let mut through_aziotd = false;
    loop {
        let arg = args.next().ok_or(NameError::NoArgument)?;
        let name = last_component(&arg).ok_or_else(|| NameError::NoName(arg.clone()))?;
        let service = match name.to_str() {
            Some("aziotd") => {
                through_aziotd = true;
                continue;
            }
            Some("aziot-certd") => Name::Certd,
            Some("aziot-identityd") => Name::Identityd,
            Some("aziot-keyd") => Name::Keyd,
            Some("aziot-tpmd") => return Err(NameError::NotBuilt("aziot-tpmd")),
            _ => return Err(NameError::Unrecognized(name.to_owned())),
        };
        // Unit files with stray arguments have always worked; a person at a terminal is told.
        return match args.next() {
            Some(extra) if through_aziotd => Err(NameError::Trailing(extra)),
            _ => Ok(service),
        };
    }
}

fn last_component(arg: &OsStr) -> Option<&OsStr> {
    let bytes = arg.as_bytes();
    let trimmed = bytes
        .iter()
        .rposition(|b| *b != b'/')
        .map(|end| &bytes[..=end])?;
    let name = trimmed.rsplit(|b| *b == b'/').next()?;
    (name != b".." && name != b"." && !name.is_empty()).then(|| OsStr::from_bytes(name))
}

/// Runs the service that the arguments ask for, to its end.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    sys::use_one_malloc_arena();
    logging::init();
    let name = match pick(args) {
        Ok(name) => name,
        Err(error) => {
            log::error!("could not read argv[0]: {error}");
            return ExitCode::FAILURE;
        }
    };
    log::info!("Starting service...");
    log::info!("Version - {VERSION}");
    // Before a key library is loaded: a signal that reached a thread of the library's would end the process on the spot.
    // From here on signals wait for the loop, so a library that hangs while it is set up takes a SIGKILL to end.
    if let Err(error) = sys::Signals::block() {
        log::error!("could not block signals: {error}");
        return ExitCode::FAILURE;
    }
    let result = match name {
        Name::Certd => certd::run(),
        Name::Identityd => identityd::run(),
        Name::Keyd => keyd::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fatal { top, error }) => {
            logging::error_chain(top, Some(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(args: &[&str]) -> Result<Name, String> {
        pick(args.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn dm_01_names_and_paths() {
        for arg in [
            "aziot-keyd",
            "./aziot-keyd",
            "/usr/libexec/aziot/aziot-keyd",
            "aziot-keyd/",
        ] {
            assert_eq!(picked(&[arg]), Ok(Name::Keyd), "{arg}");
        }
        assert_eq!(picked(&["/x/aziot-certd"]), Ok(Name::Certd));
        assert_eq!(
            picked(&["/x/aziot-identityd", "stray"]),
            Ok(Name::Identityd)
        );
        assert_eq!(
            picked(&["Aziot-Keyd"]).unwrap_err(),
            "unrecognized process name Aziot-Keyd"
        );
        assert_eq!(
            picked(&["/"]).unwrap_err(),
            "could not extract process name from arg \"/\""
        );
        assert_eq!(
            picked(&["/x/.."]).unwrap_err(),
            "could not extract process name from arg \"/x/..\""
        );
        assert_eq!(
            picked(&[]).unwrap_err(),
            "could not extract process name from args"
        );
    }

    #[test]
    fn dm_02_the_long_form() {
        assert_eq!(picked(&["aziotd", "aziot-keyd"]), Ok(Name::Keyd));
        assert_eq!(picked(&["aziotd", "aziotd", "aziot-keyd"]), Ok(Name::Keyd));
        assert_eq!(
            picked(&["aziotd", "foo"]).unwrap_err(),
            "unrecognized process name foo"
        );
        assert_eq!(
            picked(&["aziotd"]).unwrap_err(),
            "could not extract process name from args"
        );
        assert!(
            picked(&["aziotd", "aziot-keyd", "-v"])
                .unwrap_err()
                .starts_with("unexpected argument \"-v\"")
        );
    }
}
