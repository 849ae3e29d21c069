//! From settings to a document.

use alloc::string::String;
use zeroize::Zeroizing;

use super::super::Writer;
use super::super::keyd::MAX_REQUESTS;
use super::{
    Attestation, Authentication, CLOUD_RETRIES, CLOUD_TIMEOUT_SEC, IdType, LocalIdAttributes,
    Settings, Source, Subject,
};

impl Settings {
    /// The settings as a document in the canonical layout, with every principal (`identity-service` 12.5).
    ///
    /// This is the content of the state file `prev_state`, and what `config apply` generates.
    pub fn to_toml(&self) -> Zeroizing<String> {
        let mut writer = Writer::new();
        writer.string("hostname", &self.hostname);
        writer.string("homedir", &self.homedir);
        writer.plain(
            "prefer_module_identity_cache",
            self.prefer_module_identity_cache,
        );
        if self.max_requests != MAX_REQUESTS {
            writer.plain("max_requests", self.max_requests);
        }
        if self.cloud_timeout_sec != CLOUD_TIMEOUT_SEC {
            writer.plain("cloud_timeout_sec", self.cloud_timeout_sec);
        }
        if self.cloud_retries != CLOUD_RETRIES {
            writer.plain("cloud_retries", self.cloud_retries);
        }
        self.provisioning(&mut writer);
        for principal in &self.principals {
            writer.array_table(&["principal"]);
            writer.plain("uid", principal.uid);
            writer.string("name", &principal.name);
            if let Some(types) = &principal.id_types {
                writer.strings("idtype", types.iter().map(|t| t.name()));
            }
            if let Some(attributes) = principal.localid {
                writer.table(&["principal", "localid"]);
                writer.string("type", "x509");
                writer.string(
                    "attributes",
                    match attributes {
                        LocalIdAttributes::Client => "client",
                        LocalIdAttributes::Server => "server",
                    },
                );
            }
        }
        if let Some(localid) = &self.localid {
            writer.table(&["localid"]);
            writer.string("domain", &localid.domain);
        }
        writer.finish()
    }

    fn provisioning(&self, writer: &mut Writer) {
        writer.table(&["provisioning"]);
        writer.optional_string(
            "local_gateway_hostname",
            self.provisioning.local_gateway_hostname.as_deref(),
        );
        match &self.provisioning.source {
            Source::Manual {
                iothub_hostname,
                device_id,
                authentication,
            } => {
                writer.string("source", "manual");
                writer.string("iothub_hostname", iothub_hostname);
                writer.string("device_id", device_id);
                authentication.write(writer);
            }
            Source::Dps {
                global_endpoint,
                scope_id,
                attestation,
                payload,
            } => {
                writer.string("source", "dps");
                writer.string("global_endpoint", global_endpoint);
                writer.string("scope_id", scope_id);
                attestation.write(writer);
                if let Some(uri) = payload {
                    writer.table(&["provisioning", "payload"]);
                    writer.string("uri", uri);
                }
            }
            Source::None => writer.string("source", "none"),
        }
    }
}

impl Authentication {
    fn write(&self, writer: &mut Writer) {
        let path = ["provisioning", "authentication"];
        writer.table(&path);
        match self {
            Self::Sas { device_id_pk } => {
                writer.string("method", "sas");
                writer.string("device_id_pk", device_id_pk);
            }
            Self::X509 {
                identity_cert,
                identity_pk,
                csr_subject,
            } => {
                writer.string("method", "x509");
                writer.string("identity_cert", identity_cert);
                writer.string("identity_pk", identity_pk);
                if let Some(subject) = csr_subject {
                    subject.write(writer, &path, "csr_subject");
                }
            }
        }
    }
}

impl Attestation {
    fn write(&self, writer: &mut Writer) {
        let path = ["provisioning", "attestation"];
        writer.table(&path);
        match self {
            Self::SymmetricKey {
                registration_id,
                symmetric_key,
            } => {
                writer.string("method", "symmetric_key");
                writer.string("registration_id", registration_id);
                writer.string("symmetric_key", symmetric_key);
            }
            Self::X509 {
                registration_id,
                identity_cert,
                identity_pk,
                identity_auto_renew,
            } => {
                writer.string("method", "x509");
                writer.string("identity_cert", identity_cert);
                writer.string("identity_pk", identity_pk);
                if let Some(subject) = registration_id {
                    subject.write(writer, &path, "registration_id");
                }
                if let Some(renew) = identity_auto_renew {
                    renew.write(
                        writer,
                        &["provisioning", "attestation", "identity_auto_renew"],
                    );
                }
            }
            Self::Tpm { registration_id } => {
                writer.string("method", "tpm");
                writer.string("registration_id", registration_id);
            }
        }
    }
}

impl Subject {
    /// A string in the table being written, or a sub-table of `parent`.
    fn write(&self, writer: &mut Writer, parent: &[&str; 2], key: &str) {
        match self {
            Self::CommonName(name) => writer.string(key, name),
            Self::Name {
                common_name,
                fields,
            } => {
                let [first, second] = parent;
                writer.table(&[first, second, key]);
                writer.string("CN", common_name);
                for (name, value) in fields {
                    writer.string(name, value);
                }
            }
        }
    }
}

impl IdType {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Module => "module",
            Self::Local => "local",
        }
    }
}
