//! From tables to settings.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::super::keyd::{know_all_endpoints, max_requests};
use super::super::section::variant;
use super::super::tree::{Kind, Position};
use super::super::url::Url;
use super::super::{AutoRenew, Endpoint, FromValue, Mismatch, Places, Section, Value};
use super::{
    Attestation, Authentication, CLOUD_RETRIES, CLOUD_TIMEOUT_SEC, Endpoints, IdType, LocalId,
    LocalIdAttributes, Principal, Provisioning, Settings, Source, Subject,
};

pub(super) fn settings(root: &Section<'_>, places: &Places) -> Option<Settings> {
    let hostname = root.required(
        "hostname",
        "add `hostname = \"…\"`, the name of this device",
    );
    let homedir = root.required("homedir", "add `homedir = \"/var/lib/aziot/identityd\"`");
    let prefer_module_identity_cache = root
        .optional("prefer_module_identity_cache")
        .unwrap_or(false);
    let max_requests = max_requests(root);
    let cloud_timeout_sec = cloud_timeout_sec(root);
    let cloud_retries = root.optional("cloud_retries").unwrap_or(CLOUD_RETRIES);
    let provisioning = root.required_table(
        "provisioning",
        "add [provisioning] with `source = \"manual\"`, \"dps\" or \"none\"",
    );
    let provisioning = provisioning.and_then(provisioning_table);
    let localid = root.table("localid").map(|section| {
        let domain = section.required(
            "domain",
            "add `domain = \"…\"`, the last part of local common names",
        );
        section.finish();
        domain.map(|domain| LocalId { domain })
    });
    let principals: Vec<_> = root
        .tables("principal")
        .into_iter()
        .map(principal)
        .collect();
    let endpoints = endpoints(root.table("endpoints"), places);
    root.finish_ref();

    let found: Vec<_> = principals.iter().flatten().collect();
    validate(root, &found, provisioning.as_ref(), localid.is_some());

    Some(Settings {
        hostname: hostname?,
        homedir: homedir?,
        prefer_module_identity_cache,
        max_requests,
        cloud_timeout_sec,
        cloud_retries,
        provisioning: provisioning?,
        principals: principals
            .into_iter()
            .map(|p| p.map(|(p, _)| p))
            .collect::<Option<_>>()?,
        localid: match localid {
            Some(localid) => Some(localid?),
            None => None,
        },
        endpoints,
    })
}

/// Also used for the super-config, which has the same key.
pub(crate) fn cloud_timeout_sec(root: &Section<'_>) -> u64 {
    match root.optional("cloud_timeout_sec") {
        None => CLOUD_TIMEOUT_SEC,
        Some(seconds) => {
            if seconds < CLOUD_TIMEOUT_SEC {
                root.refuse(
                    "cloud_timeout_sec",
                    "cloud_timeout_sec must be at least 70 seconds",
                    "write 70 or more, or leave it out",
                );
            }
            seconds
        }
    }
}

fn endpoints(section: Option<Section<'_>>, places: &Places) -> Endpoints {
    let installed = Endpoints::installed(places);
    let read = |key, default| Endpoint::read(section.as_ref(), key, default);
    let endpoints = Endpoints {
        certd: read("aziot_certd", installed.certd),
        identityd: read("aziot_identityd", installed.identityd),
        keyd: read("aziot_keyd", installed.keyd),
        tpmd: read("aziot_tpmd", installed.tpmd),
    };
    if let Some(section) = section {
        know_all_endpoints(&section);
        section.finish();
    }
    endpoints
}

fn provisioning_table(section: Section<'_>) -> Option<Provisioning> {
    let local_gateway_hostname: Option<String> = section.optional("local_gateway_hostname");
    let source = section
        .required("source", "add `source = \"manual\"`, \"dps\" or \"none\"")
        .and_then(
            |value: &Value| match variant(value, &["manual", "dps", "none"]) {
                Ok(0) => manual(&section),
                Ok(1) => dps(&section),
                Ok(_) => Some(Source::None),
                Err(mismatch) => {
                    section.mismatch("source", value.at, mismatch);
                    None
                }
            },
        );
    match &source {
        Some(Source::Manual { .. }) => {}
        Some(Source::Dps { .. }) if local_gateway_hostname.is_some() => section.refuse(
            "local_gateway_hostname",
            NESTED_DPS,
            "remove local_gateway_hostname, or provision with source = \"manual\"",
        ),
        // Of a source that could not be read, the keys are not known.
        None => return None,
        _ => {}
    }
    section.finish();
    Some(Provisioning {
        local_gateway_hostname,
        source: source?,
    })
}

/// Text of the refusal to combine DPS with a gateway.
pub(crate) const NESTED_DPS: &str = "DPS provisioning is not supported in nested mode";

fn manual(section: &Section<'_>) -> Option<Source> {
    let iothub_hostname = section.required(
        "iothub_hostname",
        "add `iothub_hostname = \"….azure-devices.net\"`",
    );
    let device_id = section.required(
        "device_id",
        "add `device_id = \"…\"`, the device's id at the hub",
    );
    let authentication = section
        .required_table(
            "authentication",
            "add [provisioning.authentication] with `method = \"sas\"` or \"x509\"",
        )
        .and_then(authentication);
    Some(Source::Manual {
        iothub_hostname: iothub_hostname?,
        device_id: device_id?,
        authentication: authentication?,
    })
}

fn method(section: &Section<'_>, methods: &[&str]) -> Option<usize> {
    let listed = methods
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(" or ");
    let value: &Value =
        section.required("method", &format!("add `method = …`, one of {listed}"))?;
    variant(value, methods)
        .map_err(|mismatch| section.mismatch("method", value.at, mismatch))
        .ok()
}

const CERT_ID: &str = "add `identity_cert = \"…\"`, a certificate id";
const KEY_PAIR_ID: &str = "add `identity_pk = \"…\"`, the id of the certificate's key pair";
/// Remedy for a missing `registration_id`.
pub(crate) const REGISTRATION_ID: &str =
    "add `registration_id = \"…\"`, the id the device is registered under";

fn authentication(section: Section<'_>) -> Option<Authentication> {
    let authentication = match method(&section, &["sas", "x509"])? {
        0 => section
            .required(
                "device_id_pk",
                "add `device_id_pk = \"device-id\"`, the key id of the device's symmetric key",
            )
            .map(|device_id_pk| Authentication::Sas { device_id_pk }),
        _ => {
            let identity_cert = section.required("identity_cert", CERT_ID);
            let identity_pk = section.required("identity_pk", KEY_PAIR_ID);
            let csr_subject = subject(&section, "csr_subject");
            identity_cert
                .zip(identity_pk)
                .map(|(identity_cert, identity_pk)| Authentication::X509 {
                    identity_cert,
                    identity_pk,
                    csr_subject,
                })
        }
    };
    section.finish();
    authentication
}

fn dps(section: &Section<'_>) -> Option<Source> {
    let global_endpoint: Option<Url> = section.required(
        "global_endpoint",
        "add `global_endpoint = \"https://global.azure-devices-provisioning.net/\"`",
    );
    let scope_id = section.required(
        "scope_id",
        "add `scope_id = \"…\"`, the ID scope of the provisioning service",
    );
    let attestation = section
        .required_table(
            "attestation",
            "add [provisioning.attestation] with `method = \"symmetric_key\"`, \"x509\" or \"tpm\"",
        )
        .and_then(attestation);
    let payload = payload(section);
    Some(Source::Dps {
        global_endpoint: global_endpoint?.to_string(),
        scope_id: scope_id?,
        attestation: attestation?,
        payload,
    })
}

/// The URL in `payload`, also used for the super-config.
pub(crate) fn payload(section: &Section<'_>) -> Option<String> {
    let payload = section.table("payload")?;
    let uri: Option<Url> =
        payload.required("uri", "add `uri = \"file:///…\"`, or remove the table");
    if uri.as_ref().is_some_and(|uri| uri.scheme() != "file") {
        payload.reader().warning(
            payload.key_at("uri"),
            format!(
                "`{}` is no file: URI, so it cannot be read when the device is provisioned",
                payload.path_of("uri")
            ),
            "write file:// and an absolute path",
        );
    }
    payload.finish();
    Some(uri?.to_string())
}

fn attestation(section: Section<'_>) -> Option<Attestation> {
    let attestation = match method(&section, &["symmetric_key", "x509", "tpm"])? {
        0 => {
            let registration_id = section.required("registration_id", REGISTRATION_ID);
            let symmetric_key = section.required(
                "symmetric_key",
                "add `symmetric_key = \"device-id\"`, a key id",
            );
            registration_id
                .zip(symmetric_key)
                .map(
                    |(registration_id, symmetric_key)| Attestation::SymmetricKey {
                        registration_id,
                        symmetric_key,
                    },
                )
        }
        1 => {
            let identity_cert = section.required("identity_cert", CERT_ID);
            let identity_pk = section.required("identity_pk", KEY_PAIR_ID);
            let registration_id = subject(&section, "registration_id");
            let identity_auto_renew = AutoRenew::read(&section, "identity_auto_renew");
            identity_cert
                .zip(identity_pk)
                .map(|(identity_cert, identity_pk)| Attestation::X509 {
                    registration_id,
                    identity_cert,
                    identity_pk,
                    identity_auto_renew,
                })
        }
        _ => section
            .required("registration_id", REGISTRATION_ID)
            .map(|registration_id| Attestation::Tpm { registration_id }),
    };
    section.finish();
    attestation
}

/// A string, or a table with `CN` in any case.
fn subject(parent: &Section<'_>, key: &'static str) -> Option<Subject> {
    let value = parent.value(key)?;
    match &value.kind {
        Kind::Text(name) => {
            if name.is_empty() {
                parent.refuse(
                    key,
                    &format!("`{}` is an empty name", parent.path_of(key)),
                    "write the common name",
                );
            }
            return Some(Subject::CommonName(name.to_string()));
        }
        Kind::Table(_) => {}
        _ => {
            let mismatch = Mismatch::wrong_type(value, "a string or a table with `CN`");
            parent.mismatch(key, value.at, mismatch);
            return None;
        }
    }
    let section = parent.table(key)?;
    let mut fields = BTreeMap::new();
    for (name, value) in section.map::<String>() {
        match fields.entry(name.to_uppercase()) {
            btree_map::Entry::Vacant(slot) => {
                slot.insert(value);
            }
            btree_map::Entry::Occupied(mut slot) => {
                let twice = format!(
                    "`{}` is given twice, in different case",
                    section.path_of(slot.key())
                );
                section.reader().warning(
                    section.key_at(&name),
                    twice,
                    "remove one; the last in byte order counts",
                );
                slot.insert(value);
            }
        }
    }
    // A CN of the wrong type was reported when the map was read.
    let reported = section.entries().any(|(name, value)| {
        name.eq_ignore_ascii_case("cn") && !matches!(value.kind, Kind::Text(_))
    });
    match fields.remove("CN") {
        Some(common_name) if !common_name.is_empty() => Some(Subject::Name {
            common_name,
            fields,
        }),
        Some(_) => {
            let message = format!("`{}` is empty", section.path_of("CN"));
            section
                .reader()
                .error(section.at(), message, "write the common name");
            None
        }
        None => {
            if !reported {
                section.missing("CN", "add `CN = \"…\"`, the common name");
            }
            None
        }
    }
}

fn principal(section: Section<'_>) -> Option<(Principal, Option<Position>)> {
    let uid = section.required("uid", "add `uid = …`, the numeric user id of the program");
    let name = section.required("name", "add `name = \"…\"`, the module name");
    let id_types = section
        .value("idtype")
        .map(|value| id_types(value).map_err(|m| (value.at, m)));
    let localid = section.table("localid").map(|options| {
        if let Some(value) = options.required::<&Value>("type", "add `type = \"x509\"`")
            && let Err(mismatch) = variant(value, &["x509"])
        {
            options.mismatch("type", value.at, mismatch);
        }
        let attributes = match options
            .value("attributes")
            .map(|value| (value, variant(value, &["client", "server"])))
        {
            None | Some((_, Ok(0))) => LocalIdAttributes::Client,
            Some((_, Ok(_))) => LocalIdAttributes::Server,
            Some((value, Err(mismatch))) => {
                options.mismatch("attributes", value.at, mismatch);
                LocalIdAttributes::Client
            }
        };
        options.finish();
        attributes
    });
    let at = section.at();
    let id_types = match id_types {
        None => Some(None),
        Some(Ok(types)) => Some(Some(types)),
        Some(Err((at, mismatch))) => {
            section.mismatch("idtype", at, mismatch);
            None
        }
    };
    section.finish();
    Some((
        Principal {
            uid: uid?,
            name: name?,
            id_types: id_types?,
            localid,
        },
        at,
    ))
}

fn id_types(value: &Value) -> Result<Vec<IdType>, Mismatch> {
    match &value.kind {
        Kind::Array(items) => items
            .iter()
            .map(|item| {
                Ok(match variant(item, &["device", "module", "local"])? {
                    0 => IdType::Device,
                    1 => IdType::Module,
                    _ => IdType::Local,
                })
            })
            .collect(),
        // Old comments show a bare string, so the remedy shows the list.
        Kind::Text(text) if variant(value, &["device", "module", "local"]).is_ok() => {
            Err(Mismatch::new(
                format!(
                    "invalid type: string \"{}\", expected a sequence",
                    text.as_str()
                ),
                format!("write idtype = [\"{}\"]", text.as_str()),
            ))
        }
        _ => Err(Mismatch::new(
            format!("invalid type: {}, expected a sequence", value.describe()),
            "write a list such as idtype = [\"module\"]",
        )),
    }
}

/// Rules between principals and the rest (`identity-service` 3.3).
fn validate(
    root: &Section<'_>,
    principals: &[&(Principal, Option<Position>)],
    provisioning: Option<&Provisioning>,
    has_localid: bool,
) {
    let reader = root.reader();
    let mut names = BTreeMap::new();
    let mut uids = BTreeMap::new();
    for (principal, at) in principals {
        let Principal {
            uid,
            name,
            id_types,
            localid,
        } = principal;
        if names.insert(name.as_str(), ()).is_some() {
            reader.error(
                *at,
                format!("duplicate module name: {name}"),
                "give every [[principal]] its own name",
            );
        }
        if let Some(earlier) = uids.insert(*uid, name.as_str()) {
            reader.warning(
                *at,
                format!("uid {uid} of principal {name} is also that of principal {earlier}"),
                format!(
                    "callers with this uid are known as {name}; give each program its own user"
                ),
            );
        }
        let Some(types) = id_types else { continue };
        let local = types.contains(&IdType::Local);
        let invalid = |why: &str| format!("invalid config for {name}: {why}");
        if local && !has_localid {
            reader.error(
                *at,
                invalid("local id type requires localid config"),
                "add [localid] with `domain = \"…\"`, or remove \"local\" from idtype",
            );
        }
        if !local && localid.is_some() {
            reader.error(
                *at,
                invalid("local identity options specified for non-local identity"),
                "add \"local\" to idtype, or remove [principal.localid]",
            );
        }
        let at_hub = types
            .iter()
            .any(|t| matches!(t, IdType::Module | IdType::Device));
        if at_hub && provisioning.is_some_and(|p| p.source == Source::None) {
            reader.error(
                *at,
                invalid("module or device identity requires provisioning with IoT Hub"),
                "leave only \"local\" in idtype, or provision with \"manual\" or \"dps\"",
            );
        }
    }
}

impl<'a> FromValue<'a> for Url {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        let text = <&str>::from_value(value)?;
        text.parse().map_err(|error| {
            Mismatch::new(format!("{error}"), "write a complete URL, scheme included")
        })
    }
}
