//! The configuration of a service: read when it starts, and again whenever it changes.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use aziot_core::config::{self, Endpoint, Merged, Places};

use crate::config_files::ConfigFiles;
use crate::lanes::Lane;
use crate::outcome::Fatal;
use crate::paths::{Root, Service as Which};
use crate::server::{self, Watch};
use crate::service::{Context, Service};

/// Reads, decodes and checks the configuration of a service.
pub type Load<T> = fn(&ConfigFiles, &Places) -> Result<T, Box<dyn Error>>;

/// Where the settings `T` of a service come from.
#[derive(Debug)]
pub struct Configuration<T> {
    files: ConfigFiles,
    places: Places,
    load: Load<T>,
    /// Counts readings: the last one counts, also when it is done first.
    readings: u64,
}

/// What came of reading the configuration again.
#[derive(Debug)]
pub struct Reading<T> {
    /// Of [`Configuration::readings`].
    number: u64,
    result: Result<Box<T>, String>,
}

impl<T: Send + 'static> Configuration<T> {
    /// That of `service`, which `load` makes settings of. Nothing has been read yet.
    #[must_use]
    pub fn of(service: Which, root: &Root, load: Load<T>) -> Self {
        Self {
            files: ConfigFiles::of(service, root),
            places: root.places(),
            load,
            readings: 0,
        }
    }

    /// Watches the files; to be done before they are read. See [`server::watch_configuration`].
    #[must_use]
    pub fn watch(&self) -> Option<Watch> {
        server::watch_configuration(&self.files.file, &self.files.directory)
    }

    /// Reads the configuration to start with.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn load(&self) -> Result<T, Fatal> {
        (self.load)(&self.files, &self.places).map_err(Fatal::config)
    }

    /// Has the configuration read again by a job whose result comes back as `event`, to be handed to
    /// [`taken`](Self::taken). Should the service be too busy, that is logged.
    pub fn read_again<S: Service>(
        &mut self,
        cx: &mut Context<'_, S>,
        event: fn(Reading<T>) -> S::Event,
    ) {
        let (files, places, load) = (self.files.clone(), self.places.clone(), self.load);
        self.readings += 1;
        let number = self.readings;
        let read = cx.run(Lane::Local, move || {
            let result = load(&files, &places).map(Box::new);
            let result = result.map_err(|error| chain(error.as_ref()));
            event(Reading { number, result })
        });
        if read.is_err() {
            log::warn!(
                "could not read the changed configuration: the service is too busy; send SIGHUP to try again"
            );
        }
    }

    /// The settings that were read, which may be the same as before. `None` when a later reading has begun since, for what
    /// this one saw may be older, or when they cannot be used, which is logged.
    #[must_use]
    pub fn taken(&self, reading: Reading<T>) -> Option<Box<T>> {
        if reading.number != self.readings {
            return None;
        }
        reading
            .result
            .inspect_err(|error| {
                log::warn!(
                    "Detected config file update, but new config failed to parse. Error: {error}"
                );
            })
            .ok()
    }
}

/// Reads the files and decodes them; what is suspicious in them is logged.
///
/// # Errors
/// What keeps them from being used, with file, line and column.
pub fn decoded<T>(
    files: &ConfigFiles,
    decode: impl FnOnce(&Merged) -> Result<config::Loaded<T>, config::Invalid>,
) -> Result<T, Box<dyn Error>> {
    let merged = files.load()?;
    let loaded = decode(&merged)?;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    Ok(loaded.settings)
}

/// The endpoint of the Keys Service is not a socket file, through which the other services have to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKeysSocket;

impl fmt::Display for NoKeysSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad settings: `endpoints.aziot_keyd` has to be a unix:// URI with the path of a socket")
    }
}

impl Error for NoKeysSocket {}

/// The socket of the Keys Service, given its endpoint.
///
/// # Errors
/// [`NoKeysSocket`].
pub fn keys_socket(endpoint: &Endpoint) -> Result<PathBuf, NoKeysSocket> {
    match endpoint {
        Endpoint::Unix(path) => Ok(OsStr::from_bytes(path).into()),
        _ => Err(NoKeysSocket),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
