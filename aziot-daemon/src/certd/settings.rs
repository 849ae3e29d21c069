//! The configuration, as far as this service makes something of it.

use std::error::Error as StdError;

use aziot_core::access::Principals;
use aziot_core::config::Places;
use aziot_core::config::certd::{Principal, Settings, Subject};
use aziot_crypto::x509::name;

use crate::config_files::ConfigFiles;
use crate::configuration::{decoded, keys_socket};

/// Reads, decodes and checks the configuration; what is suspicious in it is logged.
///
/// # Errors
/// What keeps it from being used, with file, line and column where there is one.
pub fn load(files: &ConfigFiles, places: &Places) -> Result<Settings, Box<dyn StdError>> {
    let settings = decoded(files, |merged| Settings::read(merged, places))?;
    for warning in subject_warnings(&settings) {
        log::warn!("{warning}");
    }
    keys_socket(&settings.keyd_endpoint)?;
    Ok(settings)
}

/// What is wrong with configured subjects. Each certificate with such a subject fails to be issued.
fn subject_warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (id, entry) in &settings.cert_issuance.certs {
        let mut check = |key: &str, field: &str, value: &str| {
            if let Err(error) = name::check(field, value) {
                warnings.push(format!(
                    "cert {id:?} cannot be issued with the configured {key}: {error}"
                ));
            }
        };
        match &entry.subject {
            None => {}
            Some(Subject::CommonName(name)) => check("common_name", "CN", name),
            Some(Subject::Fields(fields)) => {
                for (field, value) in fields {
                    check("subject", field, value);
                }
            }
        }
    }
    warnings
}

/// The settings that differ and take effect at the next start only, by name.
#[must_use]
pub fn restart_needed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        ("homedir_path", old.homedir_path != new.homedir_path),
        ("max_requests", old.max_requests != new.max_requests),
        (
            "endpoints",
            (&old.endpoint, &old.keyd_endpoint) != (&new.endpoint, &new.keyd_endpoint),
        ),
    ];
    changed
        .into_iter()
        .filter_map(|(name, changed)| changed.then_some(name))
        .collect()
}

/// Who may write which certificates.
#[derive(Clone, Copy, Debug)]
pub struct Grants<'s>(pub &'s [Principal]);

impl Principals for Grants<'_> {
    fn patterns(&self, uid: u32) -> impl Iterator<Item = &str> {
        let principals = self.0.iter().filter(move |principal| principal.uid == uid);
        principals.flat_map(|principal| principal.certs.iter().map(String::as_str))
    }
}
