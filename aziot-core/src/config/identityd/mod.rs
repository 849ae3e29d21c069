//! Settings of the Identity Service.

mod decode;
mod emit;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

pub(crate) use decode::{NESTED_DPS, REGISTRATION_ID, cloud_timeout_sec, payload};

use super::{AutoRenew, Endpoint, Invalid, Loaded, Merged, Places, Reader};

/// Default of `cloud_timeout_sec`, and the least it can be.
pub const CLOUD_TIMEOUT_SEC: u64 = crate::retry::Policy::CLOUD_TIMEOUT.as_secs();

/// Default of `cloud_retries`.
pub const CLOUD_RETRIES: u32 = 1;

/// Settings of the Identity Service (`identity-service` 3.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Host name of the device; part of the common names of local identities.
    pub hostname: String,
    /// Directory of the service's state.
    pub homedir: String,
    /// Whether module requests are answered from the backup while the hub can be reached.
    pub prefer_module_identity_cache: bool,
    /// Most simultaneous connections of one user id.
    pub max_requests: u64,
    /// Time limit of one attempt of a request to the cloud, in seconds; at least 70.
    pub cloud_timeout_sec: u64,
    /// Attempts after a failed one.
    pub cloud_retries: u32,
    /// How the device gets its identity.
    pub provisioning: Provisioning,
    /// Known callers, in document order.
    pub principals: Vec<Principal>,
    /// Settings of local identities.
    pub localid: Option<LocalId>,
    /// Where the services listen. Never written.
    pub endpoints: Endpoints,
}

/// Addresses of the services.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoints {
    /// Certificates Service.
    pub certd: Endpoint,
    /// Identity Service.
    pub identityd: Endpoint,
    /// Keys Service.
    pub keyd: Endpoint,
    /// TPM Service.
    pub tpmd: Endpoint,
}

impl Endpoints {
    /// The sockets of an installation.
    pub fn installed(places: &Places) -> Self {
        let default = |name| Endpoint::default_of(&places.sockets, name);
        Self {
            certd: default("certd"),
            identityd: default("identityd"),
            keyd: default("keyd"),
            tpmd: default("tpmd"),
        }
    }
}

/// How the device gets its identity (`identity-service` 3.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provisioning {
    /// Parent device that messages go through, in a nested layout.
    pub local_gateway_hostname: Option<String>,
    /// Where hub and device id come from.
    pub source: Source,
}

/// Where hub and device id come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// From the settings themselves.
    Manual {
        /// Host of the hub, perhaps with a port.
        iothub_hostname: String,
        /// The device's id at the hub.
        device_id: String,
        /// How the device proves who it is.
        authentication: Authentication,
    },
    /// From the Device Provisioning Service.
    Dps {
        /// Normalised URL of the service.
        global_endpoint: String,
        /// The ID scope, which selects an instance of the service.
        scope_id: String,
        /// How the device proves who it is.
        attestation: Attestation,
        /// Normalised URL of a document sent along with the registration.
        payload: Option<String>,
    },
    /// No hub; local identities only.
    None,
}

/// Authentication to a hub without provisioning service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Authentication {
    /// Shared access signatures.
    Sas {
        /// Key id of the device's symmetric key.
        device_id_pk: String,
    },
    /// TLS client certificate.
    X509 {
        /// Certificate id.
        identity_cert: String,
        /// Id of the certificate's key pair.
        identity_pk: String,
        /// Subject of certificate requests.
        csr_subject: Option<Subject>,
    },
}

/// Authentication to the Device Provisioning Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attestation {
    /// Symmetric key of an individual enrolment, or derived from that of a group.
    SymmetricKey {
        /// Registration id.
        registration_id: String,
        /// Key id.
        symmetric_key: String,
    },
    /// TLS client certificate.
    X509 {
        /// Registration id; absent if the certificate's subject decides.
        registration_id: Option<Subject>,
        /// Certificate id.
        identity_cert: String,
        /// Id of the certificate's key pair.
        identity_pk: String,
        /// How the certificate is renewed, if it is.
        identity_auto_renew: Option<AutoRenew>,
    },
    /// Trusted Platform Module.
    Tpm {
        /// Registration id.
        registration_id: String,
    },
}

/// Subject of a certificate: a common name alone, or with further fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// Written as a string.
    CommonName(String),
    /// Written as a table.
    Name {
        /// The common name.
        common_name: String,
        /// The other fields, by upper-cased name.
        fields: BTreeMap<String, String>,
    },
}

impl Subject {
    /// The common name.
    pub fn common_name(&self) -> &str {
        match self {
            Self::CommonName(name) => name,
            Self::Name { common_name, .. } => common_name,
        }
    }
}

/// A program that may ask for identities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    /// User id of the program.
    pub uid: u32,
    /// Module name, unique among the principals.
    pub name: String,
    /// Identities it may have; `None` stands for the host daemon, which may do everything.
    pub id_types: Option<Vec<IdType>>,
    /// Options of its local identity.
    pub localid: Option<LocalIdAttributes>,
}

/// A kind of identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdType {
    /// The device's own.
    Device,
    /// A module's, at the hub.
    Module,
    /// A certificate for use on the local network.
    Local,
}

/// Key usage of a local identity's certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LocalIdAttributes {
    /// TLS client.
    #[default]
    Client,
    /// TLS server.
    Server,
}

/// Settings common to all local identities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalId {
    /// Last part of their common names.
    pub domain: String,
}

impl Settings {
    /// Decodes and validates a merged configuration.
    ///
    /// # Errors
    ///
    /// All problems found, each with its place.
    pub fn read(merged: &Merged, places: &Places) -> Result<Loaded<Self>, Invalid> {
        let reader = Reader::new(merged);
        let settings = decode::settings(&reader.root(), places);
        reader.finish(settings)
    }

    /// Names of the settings that differ in `new` and take effect only after a restart.
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        let changed = [
            ("homedir", self.homedir != new.homedir),
            ("endpoints", self.endpoints != new.endpoints),
        ];
        changed
            .into_iter()
            .filter_map(|(name, changed)| changed.then_some(name))
            .collect()
    }

    /// Whether `[provisioning]` differs in `new`, which takes effect only when the device is provisioned again.
    pub fn reprovisioning_needed(&self, new: &Self) -> bool {
        self.provisioning != new.provisioning
    }
}
