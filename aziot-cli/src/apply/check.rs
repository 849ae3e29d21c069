//! Checking a new configuration before anything is written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aziot_core::config::certd::PreloadedCert;
use aziot_core::config::identityd::Source;
use aziot_core::config::{Invalid, Merged, Places, Problem, certd, identityd, keyd, tpmd};
use aziot_core::super_config::{HEADER, Output};
use aziot_daemon::config_files::{self, ConfigFiles, Document, Read};
use aziot_daemon::identityd::settings;
use aziot_daemon::paths::{Root, Service};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::users::ServiceUsers;

/// Name of the generated drop-in.
pub const DROP_IN: &str = "00-super.toml";

/// A generated document.
pub struct Generated {
    /// The service it is for.
    pub service: Service,
    /// Where it goes.
    pub path: PathBuf,
    /// What it says, header included.
    pub text: Zeroizing<String>,
}

/// The four documents, in the order in which they are written.
pub fn documents(output: &Output, root: &Root) -> [Generated; 4] {
    Service::ALL.map(|service| {
        let body = match service {
            Service::Keyd => output.keyd.to_toml(),
            Service::Certd => output.certd.to_toml(),
            Service::Identityd => output.identityd.to_toml(),
            Service::Tpmd => output.tpmd.to_toml(),
        };
        let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + body.len()));
        text.push_str(HEADER);
        text.push_str(&body);
        Generated {
            service,
            path: root.config_directory(service).join(DROP_IN),
            text,
        }
    })
}

/// Checks that each service will accept its new document together with the files that are there already.
///
/// Answers the warnings about those files.
///
/// # Errors
///
/// Everything that a service would refuse.
pub fn merged(documents: &[Generated; 4], root: &Root) -> Result<Vec<Problem>, Failure> {
    let places = root.places();
    let mut warnings = Vec::new();
    let mut problems: Vec<String> = Vec::new();
    for generated in documents {
        let read = match files_with(generated, root) {
            Ok(read) => read,
            Err(error) => {
                problems.extend(
                    std::error::Error::source(&error).map(|cause| format!("{error}: {cause}")),
                );
                continue;
            }
        };
        warnings.extend(read.skipped.iter().map(|skipped| Problem {
            location: None,
            message: skipped.to_string(),
            remedy: String::new(),
        }));
        match decode(generated.service, &read, &places) {
            Ok(found) => {
                // The generated document repeats what the super-config was warned about.
                let own = generated.path.to_string_lossy();
                let foreign =
                    |problem: &Problem| problem.location.as_ref().is_none_or(|at| *at.file != *own);
                warnings.extend(found.into_iter().filter(foreign));
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok(warnings);
    }
    Err(Failure::listed(
        "the new configuration would not be valid together with the files beside it; nothing was changed",
        problems,
    ))
}

/// What the configuration asks for and the Identity Service of this release would refuse when it starts. The configuration
/// is written all the same: the services beside it may be of another release.
pub fn beyond_this_build(output: &Output) -> Option<Problem> {
    let refusal = settings::check(&output.identityd).err()?;
    Some(Problem {
        location: None,
        message: format!("the Identity Service of this release will not start: {refusal}"),
        remedy: String::new(),
    })
}

/// The service's files, with the generated document in its place among them.
fn files_with(generated: &Generated, root: &Root) -> Result<Read, config_files::ReadError> {
    let files = ConfigFiles {
        file: root.config_file(generated.service),
        directory: root.config_directory(generated.service),
    };
    let mut read = files.read_except(OsStr::new(DROP_IN))?;
    let after = |document: &Document| {
        document.path != files.file
            && document
                .path
                .file_name()
                .is_some_and(|name| name.as_bytes() > DROP_IN.as_bytes())
    };
    let at = read
        .documents
        .iter()
        .position(after)
        .unwrap_or(read.documents.len());
    read.documents.insert(
        at,
        Document {
            path: generated.path.clone(),
            text: generated.text.clone(),
        },
    );
    Ok(read)
}

/// Decodes as the service does; answers the warnings, or the errors.
fn decode(service: Service, read: &Read, places: &Places) -> Result<Vec<Problem>, Vec<String>> {
    let scalars = if service == Service::Tpmd {
        tpmd::SCALARS
    } else {
        &[]
    };
    let merged =
        config_files::merge_into(Merged::with_scalars(scalars), read).map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
            vec![cause]
        })?;
    let decoded = match service {
        Service::Keyd => keyd::Settings::read(&merged, places).map(|loaded| loaded.warnings),
        Service::Certd => certd::Settings::read(&merged, places).map(|loaded| loaded.warnings),
        Service::Identityd => {
            identityd::Settings::read(&merged, places).map(|loaded| loaded.warnings)
        }
        Service::Tpmd => tpmd::Settings::read(&merged, places).map(|loaded| loaded.warnings),
    };
    decoded.map_err(|Invalid { problems, .. }| problems.iter().map(ToString::to_string).collect())
}

/// Whether the Keys Service, with its new document and the files beside it, takes a key from the file `path`. In doubt it
/// does.
pub fn takes_key_from(documents: &[Generated; 4], root: &Root, path: &Path) -> bool {
    let keys = documents
        .iter()
        .find(|generated| generated.service == Service::Keyd)
        .and_then(|generated| files_with(generated, root).ok())
        .and_then(|read| config_files::merge(&read).ok())
        .and_then(|merged| keyd::Settings::read(&merged, &root.places()).ok())
        .map(|loaded| loaded.settings.preloaded_keys);
    keys.is_none_or(|keys| {
        keys.values()
            .any(|location| file_named(location).is_some_and(|named| named == path))
    })
}

/// The file that a `file:` URI names.
pub fn file_named(uri: &str) -> Option<PathBuf> {
    // Decoded, it is at most one byte longer.
    let mut path = vec![0; uri.len() + 1];
    let path = aziot_core::uri::file_path(uri, &mut path).ok()?;
    Some(OsStr::from_bytes(path).into())
}

/// Warnings about files that the configuration names and that the service will not be able to read.
pub fn referenced_files(output: &Output, users: &ServiceUsers, device_key: &Path) -> Vec<Problem> {
    let mut named: Vec<(Service, String, &str)> = Vec::new();
    for (id, location) in &output.keyd.preloaded_keys {
        named.push((Service::Keyd, format!("preloaded key \"{id}\""), location));
    }
    for (id, cert) in &output.certd.preloaded_certs {
        if let PreloadedCert::Uri(uri) = cert {
            named.push((
                Service::Certd,
                format!("preloaded certificate \"{id}\""),
                uri,
            ));
        }
    }
    if let Source::Dps {
        payload: Some(uri), ..
    } = &output.identityd.provisioning.source
    {
        named.push((Service::Identityd, "the provisioning payload".into(), uri));
    }
    let mut warnings = Vec::new();
    for (service, what, uri) in named {
        let Some(path) = file_named(uri) else {
            continue;
        };
        if output.device_key.is_some() && path == device_key {
            continue;
        }
        if let Err(unreadable) = users.of(service).can_read(&path) {
            warnings.push(Problem {
                location: None,
                message: format!("{what} cannot be read by {}: {unreadable}", service.name()),
                remedy: "check the path, and the owner and mode of the file and its directories"
                    .into(),
            });
        }
    }
    warnings
}
