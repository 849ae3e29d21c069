//! Built-in locations of files and sockets.
//!
//! If the environment variable `AZIOT_ROOT` is set, every one of them lies under it, so that a whole system runs from
//! a throw-away directory, beside an installed one and without privileges. Paths that a configuration names are taken
//! as written.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use aziot_core::config::Places;

/// Name of the variable that moves the built-in locations.
pub const ROOT_VARIABLE: &str = "AZIOT_ROOT";

/// One of the four services.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Service {
    /// Keys Service.
    Keyd,
    /// Certificates Service.
    Certd,
    /// Identity Service.
    Identityd,
    /// TPM Service.
    Tpmd,
}

impl Service {
    /// All services, in the order in which their configurations are written and checked.
    pub const ALL: [Self; 4] = [Self::Keyd, Self::Certd, Self::Identityd, Self::Tpmd];

    /// Short name: `keyd` and so on. Names the directories and the socket.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyd => "keyd",
            Self::Certd => "certd",
            Self::Identityd => "identityd",
            Self::Tpmd => "tpmd",
        }
    }

    /// Name of the system user the service runs as, and of its primary group.
    pub fn user(self) -> &'static str {
        match self {
            Self::Keyd => "aziotks",
            Self::Certd => "aziotcs",
            Self::Identityd => "aziotid",
            Self::Tpmd => "aziottpm",
        }
    }

    /// Variable that overrides the main configuration file, and the one for the directory of drop-ins.
    pub fn config_variables(self) -> (&'static str, &'static str) {
        match self {
            Self::Keyd => ("AZIOT_KEYD_CONFIG", "AZIOT_KEYD_CONFIG_DIR"),
            Self::Certd => ("AZIOT_CERTD_CONFIG", "AZIOT_CERTD_CONFIG_DIR"),
            Self::Identityd => ("AZIOT_IDENTITYD_CONFIG", "AZIOT_IDENTITYD_CONFIG_DIR"),
            Self::Tpmd => ("AZIOT_TPMD_CONFIG", "AZIOT_TPMD_CONFIG_DIR"),
        }
    }
}

/// The directory that stands for `/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root(Option<PathBuf>);

/// `AZIOT_ROOT` cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RootError(OsString);

impl std::fmt::Display for RootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.display();
        write!(
            f,
            "{ROOT_VARIABLE} is {shown:?}, which is not an absolute path in UTF-8: set it to one, or unset it"
        )
    }
}

impl std::error::Error for RootError {}

impl Root {
    /// The root that the environment names: `/` if the variable is unset or empty.
    ///
    /// # Errors
    ///
    /// The value is not an absolute path, or not UTF-8: paths below it are written into TOML documents.
    pub fn from_env() -> Result<Self, RootError> {
        Self::new(env::var_os(ROOT_VARIABLE))
    }

    fn new(value: Option<OsString>) -> Result<Self, RootError> {
        match value {
            None => Ok(Self(None)),
            Some(value) if value.is_empty() => Ok(Self(None)),
            Some(value) => match value.to_str() {
                Some(text) if text.starts_with('/') => Ok(Self::at(Path::new(text))),
                _ => Err(RootError(value)),
            },
        }
    }

    /// The root at the absolute path `path`.
    pub fn at(path: &Path) -> Self {
        // `/` itself is no prefix to put in front.
        Self((path != Path::new("/")).then(|| path.to_path_buf()))
    }

    /// Whether the built-in locations are moved.
    pub fn is_moved(&self) -> bool {
        self.0.is_some()
    }

    /// An absolute path as seen from this root.
    pub fn join(&self, absolute: &str) -> PathBuf {
        match &self.0 {
            None => PathBuf::from(absolute),
            Some(root) => root.join(absolute.trim_start_matches('/')),
        }
    }

    /// The locations that appear in settings and in generated documents.
    pub fn places(&self) -> Places {
        match &self.0 {
            None => Places::default(),
            // Only UTF-8 paths get here from the environment.
            Some(root) => Places::under(root.to_string_lossy().trim_end_matches('/')),
        }
    }

    /// The super-config, `/etc/aziot/config.toml`.
    pub fn super_config(&self) -> PathBuf {
        self.join("/etc/aziot/config.toml")
    }

    /// The main configuration file of a service, not considering the environment.
    pub fn config_file(&self, service: Service) -> PathBuf {
        self.join(&format!("/etc/aziot/{}/config.toml", service.name()))
    }

    /// The directory of a service's drop-ins, not considering the environment.
    pub fn config_directory(&self, service: Service) -> PathBuf {
        self.join(&format!("/etc/aziot/{}/config.d", service.name()))
    }

    /// The home directory of a service.
    pub fn home(&self, service: Service) -> PathBuf {
        self.join(&format!("/var/lib/aziot/{}", service.name()))
    }

    /// The directory of keyd's secrets that `config apply` writes.
    pub fn key_secrets(&self) -> PathBuf {
        self.join("/var/secrets/aziot/keyd")
    }

    /// The socket of a service.
    pub fn socket(&self, service: Service) -> PathBuf {
        self.join(&format!("/run/aziot/{}.sock", service.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_moves_every_location() {
        let root = Root::new(Some("/tmp/r/".into())).unwrap();
        assert!(root.is_moved());
        assert_eq!(
            root.super_config(),
            Path::new("/tmp/r/etc/aziot/config.toml")
        );
        assert_eq!(
            root.config_directory(Service::Certd),
            Path::new("/tmp/r/etc/aziot/certd/config.d")
        );
        assert_eq!(
            root.home(Service::Tpmd),
            Path::new("/tmp/r/var/lib/aziot/tpmd")
        );
        assert_eq!(
            root.socket(Service::Keyd),
            Path::new("/tmp/r/run/aziot/keyd.sock")
        );
        assert_eq!(
            root.key_secrets(),
            Path::new("/tmp/r/var/secrets/aziot/keyd")
        );
        assert_eq!(root.places().homes, "/tmp/r/var/lib/aziot");
    }

    #[test]
    fn unset_empty_and_slash_mean_the_installed_locations() {
        for value in [None, Some(OsString::new()), Some("/".into())] {
            let root = Root::new(value).unwrap();
            assert!(!root.is_moved());
            assert_eq!(
                root.config_file(Service::Identityd),
                Path::new("/etc/aziot/identityd/config.toml")
            );
            assert_eq!(root.places(), Places::default());
        }
    }

    #[test]
    fn relative_roots_are_refused() {
        let error = Root::new(Some("build/root".into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("AZIOT_ROOT is \"build/root\", which is not an absolute path"),
            "{error}"
        );
    }
}
