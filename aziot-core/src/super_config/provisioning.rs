//! `[provisioning]`: how the device gets its identity.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use zeroize::Zeroizing;

use super::KeyLocation;
use super::connection_string::{ConnectionString, ConnectionStringError, decode_key};
use super::issuance::X509Identity;
use crate::config::identityd::{NESTED_DPS, REGISTRATION_ID, payload};
use crate::config::url::Url;
use crate::config::{FromValue as _, Mismatch, Secret, Section, Value, variant};

/// How the device gets its identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Provisioning {
    /// Hub and device are named here.
    Manual {
        /// Host of the hub; not empty.
        iothub_hostname: String,
        /// The device's id; not empty.
        device_id: String,
        /// How the device proves who it is.
        authentication: Authentication,
    },
    /// The Device Provisioning Service names hub and device.
    Dps {
        /// Normalised URL of the service.
        global_endpoint: String,
        /// The ID scope.
        id_scope: String,
        /// How the device proves who it is.
        attestation: Attestation,
        /// Normalised URL of a document sent along.
        payload: Option<String>,
    },
    /// No hub.
    None,
}

/// Authentication to a hub.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Authentication {
    /// Shared access signatures.
    Sas(DeviceKey),
    /// TLS client certificate.
    X509(X509Identity),
}

/// Authentication to the Device Provisioning Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attestation {
    /// Symmetric key.
    SymmetricKey {
        /// Registration id.
        registration_id: String,
        /// The key.
        key: DeviceKey,
    },
    /// TLS client certificate.
    X509 {
        /// Registration id.
        registration_id: Option<String>,
        /// The certificate.
        identity: X509Identity,
    },
    /// Trusted Platform Module.
    Tpm {
        /// Registration id.
        registration_id: String,
    },
}

/// A symmetric key.
#[derive(Clone, Eq, PartialEq)]
pub enum DeviceKey {
    /// The bytes themselves; not empty.
    Inline(Zeroizing<Vec<u8>>),
    /// URI of the place it is kept at, in canonical form.
    Location(Secret),
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inline(_) => "Inline(…)",
            Self::Location(_) => "Location(…)",
        })
    }
}

impl Provisioning {
    pub(super) fn read(section: Section<'_>, nested: bool) -> Option<Self> {
        let remedy = "add `source = \"manual\"`, \"dps\" or \"none\"";
        let value: &Value = section.required("source", remedy)?;
        let source = match variant(value, &["manual", "dps", "none"]) {
            Ok(source) => source,
            Err(mismatch) => {
                section.mismatch("source", value.at, mismatch);
                return None;
            }
        };
        if source != 1 {
            section.without_effect("payload", "it belongs to source = \"dps\"");
        }
        let provisioning = match source {
            0 => manual(&section),
            1 => {
                if nested {
                    section.refuse(
                        "source",
                        NESTED_DPS,
                        "remove parent_hostname (local_gateway_hostname), or provision with \
                         source = \"manual\"",
                    );
                }
                dps(&section)
            }
            _ => Some(Self::None),
        };
        section.finish();
        provisioning
    }
}

fn manual(section: &Section<'_>) -> Option<Provisioning> {
    const EXPLICIT: [&str; 3] = ["iothub_hostname", "device_id", "authentication"];
    if section.has("connection_string") {
        match section
            .optional::<&str>("connection_string")
            .map(str::parse::<ConnectionString>)
        {
            Some(Ok(ConnectionString {
                host_name,
                device_id,
                key,
            })) => {
                for key in EXPLICIT {
                    section.without_effect(key, "connection_string is given as well");
                }
                return non_empty_key(section, "connection_string", key).map(|key| {
                    Provisioning::Manual {
                        iothub_hostname: host_name,
                        device_id,
                        authentication: Authentication::Sas(DeviceKey::Inline(key)),
                    }
                });
            }
            // The wrong type was reported.
            None => return None,
            Some(Err(error)) if EXPLICIT.iter().all(|key| section.has(key)) => {
                section.reader().warning(
                    section.key_at("connection_string"),
                    format!("`provisioning.connection_string` is not used: {error}"),
                    "correct it, or remove it; the explicit settings beside it are used",
                );
            }
            Some(Err(error)) => {
                let remedy = match error {
                    ConnectionStringError::Key(_) => {
                        "copy the connection string of the device again, completely"
                    }
                    _ => {
                        "write \"HostName=…;DeviceId=…;SharedAccessKey=…\", as the hub shows it for the device"
                    }
                };
                let message = format!("`provisioning.connection_string`: {error}");
                section.refuse("connection_string", &message, remedy);
                for key in EXPLICIT {
                    section.know(key);
                }
                return None;
            }
        }
    } else if !EXPLICIT.iter().any(|key| section.has(key)) {
        section.missing(
            "connection_string",
            "add `connection_string = \"…\"`, or iothub_hostname, device_id and authentication",
        );
        return None;
    }
    let iothub_hostname = non_empty(
        section,
        "iothub_hostname",
        "add `iothub_hostname = \"….azure-devices.net\"`, or a connection_string instead",
    );
    let device_id = non_empty(
        section,
        "device_id",
        "add `device_id = \"…\"`, the device's id at the hub",
    );
    let authentication = section
        .required_table(
            "authentication",
            "add [provisioning.authentication] with `method = \"sas\"` or \"x509\"",
        )
        .and_then(authentication);
    Some(Provisioning::Manual {
        iothub_hostname: iothub_hostname?,
        device_id: device_id?,
        authentication: authentication?,
    })
}

/// A required string that must not be empty.
fn non_empty(section: &Section<'_>, key: &'static str, remedy: &str) -> Option<String> {
    let text: String = section.required(key, remedy)?;
    if text.is_empty() {
        section.refuse(
            key,
            &format!("`{}` is empty", section.path_of(key)),
            "write its value",
        );
        return None;
    }
    Some(text)
}

fn authentication(section: Section<'_>) -> Option<Authentication> {
    let remedy = "add `method = \"sas\"` or \"x509\"";
    let value: &Value = section.required("method", remedy)?;
    let authentication = match variant(value, &["sas", "x509"]) {
        Ok(0) => device_key(&section, "device_id_pk").map(Authentication::Sas),
        Ok(_) => X509Identity::read(&section).map(Authentication::X509),
        Err(mismatch) => {
            section.mismatch("method", value.at, mismatch);
            return None;
        }
    };
    if let Some(Authentication::X509(X509Identity::Issued(options))) = &authentication
        && options.auto_renew.is_some()
        && let Some(cert) = section.table("identity_cert")
    {
        cert.without_effect(
            "auto_renew",
            "certificates are renewed only with source = \"dps\"",
        );
    }
    section.finish();
    authentication
}

fn dps(section: &Section<'_>) -> Option<Provisioning> {
    let global_endpoint: Option<Url> = section.required(
        "global_endpoint",
        "add `global_endpoint = \"https://global.azure-devices-provisioning.net\"`",
    );
    let id_scope = if section.has("id_scope") || !section.has("scope_id") {
        non_empty(
            section,
            "id_scope",
            "add `id_scope = \"…\"`, the ID scope of the provisioning service",
        )
    } else {
        let remedy =
            "rename scope_id to id_scope; scope_id is the name in identityd's own configuration";
        section.missing("id_scope", remedy);
        None
    };
    let attestation = section
        .required_table(
            "attestation",
            "add [provisioning.attestation] with `method = \"symmetric_key\"`, \"x509\" or \"tpm\"",
        )
        .and_then(attestation);
    let payload = payload(section);
    Some(Provisioning::Dps {
        global_endpoint: global_endpoint?.to_string(),
        id_scope: id_scope?,
        attestation: attestation?,
        payload,
    })
}

fn attestation(section: Section<'_>) -> Option<Attestation> {
    let remedy = "add `method = \"symmetric_key\"`, \"x509\" or \"tpm\"";
    let value: &Value = section.required("method", remedy)?;
    let attestation = match variant(value, &["symmetric_key", "x509", "tpm"]) {
        Ok(0) => {
            let registration_id = non_empty(&section, "registration_id", REGISTRATION_ID);
            let key = device_key(&section, "symmetric_key");
            registration_id
                .zip(key)
                .map(|(registration_id, key)| Attestation::SymmetricKey {
                    registration_id,
                    key,
                })
        }
        Ok(1) => {
            let registration_id = section.optional("registration_id");
            X509Identity::read(&section).map(|identity| Attestation::X509 {
                registration_id,
                identity,
            })
        }
        Ok(_) => non_empty(&section, "registration_id", REGISTRATION_ID)
            .map(|registration_id| Attestation::Tpm { registration_id }),
        Err(mismatch) => {
            section.mismatch("method", value.at, mismatch);
            return None;
        }
    };
    if let Some(Attestation::X509 {
        registration_id: Some(_),
        identity: X509Identity::Issued(options),
    }) = &attestation
        && options.subject.is_none()
    {
        section.reader().warning(
            section.key_at("registration_id"),
            "`provisioning.attestation.registration_id` is dropped: the certificate has no subject \
             that could carry it",
            "add common_name or subject to identity_cert",
        );
    }
    section.finish();
    attestation
}

/// A table with `value` (Base64) or `uri`.
fn device_key(parent: &Section<'_>, key: &'static str) -> Option<DeviceKey> {
    let remedy = format!(
        "add `{key} = {{ value = \"…\" }}` with the key in Base64, or `{{ uri = \"file:///…\" }}`"
    );
    if let Some(value) = parent.value(key)
        && <&str>::from_value(value).is_ok()
    {
        // The likeliest mistake, and the value is probably the key itself.
        let message = "invalid type: string, expected a table";
        let remedy = format!(
            "write {key} = {{ value = \"…\" }} for a key in Base64, or {{ uri = \"…\" }} for its location"
        );
        parent.mismatch(key, value.at, Mismatch::new(message, remedy));
        return None;
    }
    let section = parent.required_table(key, &remedy)?;
    let key = match (section.has("value"), section.has("uri")) {
        (false, false) => {
            section.missing(
                "value",
                "add `value = \"…\"`, the key in Base64, or `uri = \"…\"`, its location",
            );
            None
        }
        (false, true) => section
            .optional("uri")
            .map(|KeyLocation(uri)| DeviceKey::Location(uri)),
        (true, has_uri) => {
            let text: &str = section.optional("value")?;
            match decode_key(text) {
                Ok(bytes) => {
                    section.without_effect("uri", "value is given as well");
                    non_empty_key(&section, "value", bytes).map(DeviceKey::Inline)
                }
                Err(error) if has_uri => {
                    section.reader().warning(
                        section.key_at("value"),
                        format!(
                            "`{}` is not used: not valid base64: {error}",
                            section.path_of("value")
                        ),
                        "correct it, or remove it; the uri beside it is used",
                    );
                    section
                        .optional("uri")
                        .map(|KeyLocation(uri)| DeviceKey::Location(uri))
                }
                Err(error) => {
                    let message =
                        format!("`{}`: not valid base64: {error}", section.path_of("value"));
                    section.refuse("value", &message, "copy the key again, completely");
                    None
                }
            }
        }
    };
    section.finish();
    key
}

fn non_empty_key(
    section: &Section<'_>,
    key: &'static str,
    bytes: Zeroizing<Vec<u8>>,
) -> Option<Zeroizing<Vec<u8>>> {
    if bytes.is_empty() {
        let message = format!("the symmetric key in `{}` is empty", section.path_of(key));
        section.refuse(key, &message, "write the key of the device in Base64");
        return None;
    }
    Some(bytes)
}
