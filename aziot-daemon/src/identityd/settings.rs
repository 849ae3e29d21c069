//! The configuration, as far as this service makes something of it.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use aziot_core::config::identityd::{
    Attestation, Authentication, IdType, Principal, Settings, Source,
};
use aziot_core::config::{self, Places};

use super::callers::{self, Callers, IdTypes};
use crate::config_files::ConfigFiles;
use crate::configuration::{self, NoKeysSocket, decoded};

/// A configuration that is well formed, but that this service cannot follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A way to prove the device's identity that this build does not have.
    Method {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: &'static str,
    },
    /// The Keys Service must be reached through a socket file.
    KeysEndpoint(NoKeysSocket),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method { key, value } => write!(
                f,
                "bad settings: `{key} = {value:?}` is not supported by this build yet; use a symmetric key"
            ),
            Self::KeysEndpoint(error) => error.fmt(f),
        }
    }
}

impl StdError for Unusable {}

/// Reads, decodes and checks the configuration; what is suspicious in it is logged.
///
/// # Errors
/// What keeps it from being used, with file, line and column where there is one.
pub fn load(files: &ConfigFiles, places: &Places) -> Result<Settings, Box<dyn StdError>> {
    let settings = decoded(files, |merged| Settings::read(merged, places))?;
    check(&settings)?;
    Ok(settings)
}

/// Whether this service can do what the settings say.
///
/// # Errors
/// See [`Unusable`].
pub fn check(settings: &Settings) -> Result<(), Unusable> {
    keys_socket(settings)?;
    let (key, value) = match &settings.provisioning.source {
        Source::Manual {
            authentication: Authentication::X509 { .. },
            ..
        } => ("provisioning.authentication.method", "x509"),
        Source::Dps {
            attestation: Attestation::X509 { .. },
            ..
        } => ("provisioning.attestation.method", "x509"),
        Source::Dps {
            attestation: Attestation::Tpm { .. },
            ..
        } => ("provisioning.attestation.method", "tpm"),
        Source::Manual {
            authentication: Authentication::Sas { .. },
            ..
        }
        | Source::Dps {
            attestation: Attestation::SymmetricKey { .. },
            ..
        }
        | Source::None => return Ok(()),
    };
    Err(Unusable::Method { key, value })
}

/// The socket of the Keys Service.
///
/// # Errors
/// [`Unusable::KeysEndpoint`].
pub fn keys_socket(settings: &Settings) -> Result<PathBuf, Unusable> {
    configuration::keys_socket(&settings.endpoints.keyd).map_err(Unusable::KeysEndpoint)
}

/// The endpoint as the listener wants it.
#[must_use]
pub fn endpoint(endpoint: &config::Endpoint) -> crate::listener::Endpoint {
    crate::keyd::settings::endpoint(endpoint)
}

/// The tables of callers.
#[must_use]
pub fn callers(settings: &Settings) -> Callers {
    let principals = settings
        .principals
        .iter()
        .map(|principal: &Principal| callers::Principal {
            uid: principal.uid,
            name: &principal.name,
            types: principal.id_types.as_ref().map(|types| IdTypes {
                device: types.contains(&IdType::Device),
                module: types.contains(&IdType::Module),
                local: types.contains(&IdType::Local),
            }),
        });
    // The reader of the settings has warned of uids that are there twice.
    Callers::new(principals, |warning| log::warn!("{warning}"))
}

/// The settings that come into force at once, by the names of those that have changed.
#[must_use]
pub fn changed_live(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        ("hostname", old.hostname != new.hostname),
        (
            "prefer_module_identity_cache",
            old.prefer_module_identity_cache != new.prefer_module_identity_cache,
        ),
        ("max_requests", old.max_requests != new.max_requests),
        (
            "cloud_timeout_sec",
            old.cloud_timeout_sec != new.cloud_timeout_sec,
        ),
        ("cloud_retries", old.cloud_retries != new.cloud_retries),
        ("principal", old.principals != new.principals),
        ("localid", old.localid != new.localid),
    ];
    changed
        .into_iter()
        .filter_map(|(name, changed)| changed.then_some(name))
        .collect()
}
