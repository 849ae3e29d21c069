//! Reading the configuration, and handing it to the key library.

use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use aziot_core::config::keyd::Settings;
use aziot_core::config::{self, Places};

use super::library::{Library, LoadError};
use crate::config_files::ConfigFiles;
use crate::configuration::decoded;
use crate::listener::Endpoint;

/// Reads and decodes the configuration; what is suspicious in it is logged.
///
/// # Errors
/// What keeps it from being used, with file, line and column.
pub fn load(files: &ConfigFiles, places: &Places) -> Result<Settings, Box<dyn Error>> {
    decoded(files, |merged| Settings::read(merged, places))
}

/// Loads the key library and sends it the parameters, then the preloaded keys, each in byte order of the names.
///
/// # Errors
/// The library cannot be used, or refuses a parameter.
pub fn open_library(settings: &Settings) -> Result<Library, LoadError> {
    let library = Library::load()?;
    for (name, value) in &settings.aziot_keys {
        let what = format!("parameter {name:?} in [aziot_keys] section of the configuration");
        library.set_parameter(name, value, &what)?;
    }
    for (id, location) in &settings.preloaded_keys {
        let what =
            format!("location of key ID {id:?} in [preloaded_keys] section of the configuration");
        library.set_parameter(&format!("preloaded_key:{id}"), location, &what)?;
    }
    Ok(library)
}

/// The endpoint as the listener wants it.
#[must_use]
pub fn endpoint(endpoint: &config::Endpoint) -> Endpoint {
    match endpoint {
        config::Endpoint::Unix(path) => Endpoint::Path(OsStr::from_bytes(path).into()),
        config::Endpoint::Fd(fd) => Endpoint::Fd(*fd),
        config::Endpoint::FdName(name) => Endpoint::FdName(name.clone()),
    }
}
