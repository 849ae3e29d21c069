//! From the super-config to the settings of the services.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use zeroize::Zeroizing;

use super::{
    Attestation, Authentication, DeviceKey, EstAuth, EstCredentials, Issuance, LocalCa, Preloaded,
    Provisioning, SuperConfig, X509Identity,
};
use crate::config::certd::{self, PreloadedCert};
use crate::config::identityd::{self, Endpoints, LocalId, Source};
use crate::config::{Endpoint, Places, Secret, keyd, tpmd};
use crate::id::{DEVICE_KEY, MASTER_KEY};
use crate::uri::FileUri;

/// What the translation needs to know about the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The machine's host name, used if the super-config has none.
    pub hostname: &'a str,
    /// User id of the Certificates Service.
    pub certd_uid: u32,
    /// User id of the Identity Service.
    pub identityd_uid: u32,
    /// Where the services keep things.
    pub places: &'a Places,
}

/// What `config apply` puts on the device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// Settings of the Keys Service.
    pub keyd: keyd::Settings,
    /// Settings of the Certificates Service.
    pub certd: certd::Settings,
    /// Settings of the Identity Service.
    pub identityd: identityd::Settings,
    /// Settings of the TPM Service.
    pub tpmd: tpmd::Settings,
    /// Bytes of the device's symmetric key, if they are in the super-config.
    pub device_key: Option<Zeroizing<Vec<u8>>>,
}

/// Name of the file with the device's symmetric key in keyd's directory of secrets, and id of that key.
pub const DEVICE_ID: &str = DEVICE_KEY;

const DEVICE_ID_TEMP: &str = "device-id-temp";
const LOCAL_CA: &str = "local-ca";
const EST_ID: &str = "est-id";
const EST_ID_TEMP: &str = "est-id-temp";
const EST_BOOTSTRAP_ID: &str = "est-bootstrap-id";

/// Parameter of the key library that the translation sets.
pub(super) const HOMEDIR_PATH: &str = "homedir_path";

/// What the steps of the translation add to.
struct Accumulators {
    /// Keys that identityd may use.
    id_keys: Vec<String>,
    /// Keys that certd may use.
    cs_keys: Vec<String>,
    /// Certificates that identityd may write.
    id_certs: Vec<String>,
    issued: BTreeMap<String, certd::Issuance>,
    preloaded_keys: BTreeMap<String, Secret>,
    preloaded_certs: BTreeMap<String, PreloadedCert>,
}

impl SuperConfig {
    /// Translates the super-config for a machine.
    ///
    /// Lists keep the order in which the steps add to them. An entry that the translation makes replaces an entry of
    /// the administrator's with the same id.
    #[must_use]
    pub fn translate(&self, machine: &Machine<'_>) -> Output {
        let places = machine.places;
        let mut made = Accumulators {
            id_keys: Vec::from([MASTER_KEY.into()]),
            cs_keys: Vec::new(),
            id_certs: Vec::new(),
            issued: BTreeMap::new(),
            preloaded_keys: self.preloaded_keys.clone(),
            preloaded_certs: self.preloaded_certs.clone(),
        };
        let (source, device_key) = made.provisioning(&self.provisioning);
        let device_key = match device_key {
            None => None,
            Some(DeviceKey::Inline(bytes)) => {
                let path = format!("{}/keyd/{DEVICE_ID}", places.secrets);
                let uri = FileUri(path.as_bytes()).to_string();
                made.preloaded_keys
                    .insert(DEVICE_ID.into(), Secret::new(uri));
                Some(bytes.clone())
            }
            Some(DeviceKey::Location(uri)) => {
                made.preloaded_keys.insert(DEVICE_ID.into(), uri.clone());
                None
            }
        };
        let mut aziot_keys = self.aziot_keys.clone();
        aziot_keys.insert(
            HOMEDIR_PATH.into(),
            Secret::new(format!("{}/keyd", places.homes)),
        );
        let est = made.est(self);
        let local_ca = made.local_ca(self);

        let endpoint = |name| Endpoint::default_of(&places.sockets, name);
        let mut certd = certd::Settings::new(format!("{}/certd", places.homes), places);
        certd.max_requests = self.max_requests.certd;
        certd.cert_issuance = certd::CertIssuance {
            est,
            local_ca,
            certs: made.issued,
        };
        certd.preloaded_certs = made.preloaded_certs;
        if !made.id_certs.is_empty() {
            certd.principals = Vec::from([certd::Principal {
                uid: machine.identityd_uid,
                certs: made.id_certs,
            }]);
        }
        let mut principals = Vec::from([keyd::Principal {
            uid: machine.identityd_uid,
            keys: made.id_keys,
        }]);
        if !made.cs_keys.is_empty() {
            principals.push(keyd::Principal {
                uid: machine.certd_uid,
                keys: made.cs_keys,
            });
        }
        Output {
            keyd: keyd::Settings {
                max_requests: self.max_requests.keyd,
                aziot_keys,
                preloaded_keys: made.preloaded_keys,
                endpoint: endpoint("keyd"),
                principals,
            },
            certd,
            identityd: identityd::Settings {
                hostname: self
                    .hostname
                    .clone()
                    .unwrap_or_else(|| machine.hostname.into()),
                homedir: format!("{}/identityd", places.homes),
                prefer_module_identity_cache: self.prefer_module_identity_cache,
                max_requests: self.max_requests.identityd,
                cloud_timeout_sec: self.cloud_timeout_sec,
                cloud_retries: self.cloud_retries,
                provisioning: identityd::Provisioning {
                    local_gateway_hostname: self.local_gateway_hostname.clone(),
                    source,
                },
                principals: Vec::new(),
                localid: self.localid_domain.clone().map(|domain| LocalId { domain }),
                endpoints: Endpoints::installed(places),
            },
            tpmd: tpmd::Settings {
                max_requests: self.max_requests.tpmd,
                tpm: self.tpm.clone(),
                endpoint: endpoint("tpmd"),
            },
            device_key,
        }
    }
}

impl Accumulators {
    /// Step 1: what identityd is told, and the device's symmetric key.
    fn provisioning<'c>(
        &mut self,
        provisioning: &'c Provisioning,
    ) -> (Source, Option<&'c DeviceKey>) {
        match provisioning {
            Provisioning::Manual {
                iothub_hostname,
                device_id,
                authentication,
            } => {
                let (authentication, key) = match authentication {
                    Authentication::Sas(key) => {
                        self.id_keys.push(DEVICE_ID.into());
                        let device_id_pk = DEVICE_ID.into();
                        (identityd::Authentication::Sas { device_id_pk }, Some(key))
                    }
                    Authentication::X509(identity) => (self.manual_x509(identity, device_id), None),
                };
                let source = Source::Manual {
                    iothub_hostname: iothub_hostname.clone(),
                    device_id: device_id.clone(),
                    authentication,
                };
                (source, key)
            }
            Provisioning::Dps {
                global_endpoint,
                id_scope,
                attestation,
                payload,
            } => {
                let (attestation, key) = match attestation {
                    Attestation::SymmetricKey {
                        registration_id,
                        key,
                    } => {
                        self.id_keys.push(DEVICE_ID.into());
                        let attestation = identityd::Attestation::SymmetricKey {
                            registration_id: registration_id.clone(),
                            symmetric_key: DEVICE_ID.into(),
                        };
                        (attestation, Some(key))
                    }
                    Attestation::X509 {
                        registration_id,
                        identity,
                    } => (self.dps_x509(identity, registration_id.as_deref()), None),
                    Attestation::Tpm { registration_id } => {
                        let registration_id = registration_id.clone();
                        (identityd::Attestation::Tpm { registration_id }, None)
                    }
                };
                let source = Source::Dps {
                    global_endpoint: global_endpoint.clone(),
                    scope_id: id_scope.clone(),
                    attestation,
                    payload: payload.clone(),
                };
                (source, key)
            }
            Provisioning::None => (Source::None, None),
        }
    }

    fn manual_x509(
        &mut self,
        identity: &X509Identity,
        device_id: &str,
    ) -> identityd::Authentication {
        let csr_subject = match identity {
            X509Identity::Issued(options) => {
                let issuance = self.issuance(options, DEVICE_ID);
                self.id_keys.push(DEVICE_ID.into());
                self.issued.insert(DEVICE_ID.into(), issuance);
                self.id_certs.push(DEVICE_ID.into());
                match &options.subject {
                    Some(certd::Subject::Fields(fields)) => Some(subject(device_id, fields)),
                    Some(certd::Subject::CommonName(_)) | None => None,
                }
            }
            X509Identity::Preloaded(pair) => {
                self.preload(DEVICE_ID, pair);
                self.id_keys.push(DEVICE_ID.into());
                None
            }
        };
        identityd::Authentication::X509 {
            identity_cert: DEVICE_ID.into(),
            identity_pk: DEVICE_ID.into(),
            csr_subject,
        }
    }

    fn dps_x509(
        &mut self,
        identity: &X509Identity,
        registration_id: Option<&str>,
    ) -> identityd::Attestation {
        let (registration_id, identity_auto_renew) = match identity {
            X509Identity::Issued(options) => {
                let issuance = self.issuance(options, DEVICE_ID);
                self.id_keys.push(DEVICE_ID.into());
                if let Some(renew) = &options.auto_renew {
                    self.issued.insert(DEVICE_ID_TEMP.into(), issuance.clone());
                    self.id_certs.push(DEVICE_ID_TEMP.into());
                    if renew.rotate_key {
                        self.id_keys.push(DEVICE_ID_TEMP.into());
                    }
                }
                self.issued.insert(DEVICE_ID.into(), issuance);
                self.id_certs.push(DEVICE_ID.into());
                let registration_id = registration_id.zip(options.subject.as_ref());
                let registration_id = registration_id.map(|(id, given)| match given {
                    certd::Subject::CommonName(_) => identityd::Subject::CommonName(id.into()),
                    certd::Subject::Fields(fields) => subject(id, fields),
                });
                (registration_id, options.auto_renew)
            }
            X509Identity::Preloaded(pair) => {
                self.preload(DEVICE_ID, pair);
                self.id_keys.push(DEVICE_ID.into());
                let registration_id =
                    registration_id.map(|id| identityd::Subject::CommonName(id.into()));
                (registration_id, None)
            }
        };
        identityd::Attestation::X509 {
            registration_id,
            identity_cert: DEVICE_ID.into(),
            identity_pk: DEVICE_ID.into(),
            identity_auto_renew,
        }
    }

    /// Options for certd, with the EST credentials of this certificate made known under ids of their own.
    fn issuance(&mut self, options: &Issuance, id: &str) -> certd::Issuance {
        let est_id = format!("{EST_ID}-{id}");
        let bootstrap_id = format!("{EST_BOOTSTRAP_ID}-{id}");
        let x509 = options
            .auth
            .x509
            .as_ref()
            .map(|credentials| match credentials {
                EstCredentials::Bootstrap(pair) => {
                    self.preload(&bootstrap_id, pair);
                    self.cs_keys.push(bootstrap_id.clone());
                    self.cs_keys.push(format!("{est_id}-temp"));
                    self.cs_keys.push(est_id.clone());
                    identity(&est_id, Some(&bootstrap_id))
                }
                EstCredentials::Identity(pair) => {
                    self.preload(&est_id, pair);
                    self.cs_keys.push(est_id.clone());
                    identity(&est_id, None)
                }
            });
        let auth = certd::EstAuth {
            basic: options.auth.basic.clone(),
            x509,
        };
        certd_issuance(options, auth)
    }

    /// Step 5.
    fn est(&mut self, config: &SuperConfig) -> Option<certd::Est> {
        let est = config.cert_issuance.est.as_ref()?;
        let EstAuth { basic, x509 } = &est.auth;
        let x509 = x509.as_ref().map(|credentials| match credentials {
            EstCredentials::Bootstrap(pair) => {
                self.preload(EST_BOOTSTRAP_ID, pair);
                self.cs_keys.push(EST_BOOTSTRAP_ID.into());
                self.cs_keys.push(EST_ID.into());
                if est.identity_auto_renew.rotate_key {
                    self.cs_keys.push(EST_ID_TEMP.into());
                }
                identity(EST_ID, Some(EST_BOOTSTRAP_ID))
            }
            EstCredentials::Identity(pair) => {
                self.preload(EST_ID, pair);
                self.cs_keys.push(EST_ID.into());
                identity(EST_ID, None)
            }
        });
        let mut trusted_certs = Vec::new();
        for (number, url) in (1_usize..).zip(&est.trusted_certs) {
            let id = format!("est-server-ca-{number}");
            self.preloaded_certs
                .insert(id.clone(), PreloadedCert::Uri(url.clone()));
            trusted_certs.push(id);
        }
        Some(certd::Est {
            trusted_certs,
            auth: certd::EstAuth {
                basic: basic.clone(),
                x509,
            },
            identity_auto_renew: est.identity_auto_renew,
            urls: est.urls.clone(),
        })
    }

    /// Step 6.
    fn local_ca(&mut self, config: &SuperConfig) -> Option<certd::LocalCa> {
        match config.cert_issuance.local_ca.as_ref()? {
            LocalCa::Issued(options) => {
                self.cs_keys.push(LOCAL_CA.into());
                // The CA's own EST credentials are not carried over.
                let issuance = certd_issuance(options, certd::EstAuth::default());
                self.issued.insert(LOCAL_CA.into(), issuance);
            }
            LocalCa::Preloaded(pair) => {
                self.preload(LOCAL_CA, pair);
                self.cs_keys.push(LOCAL_CA.into());
            }
        }
        Some(certd::LocalCa {
            cert: LOCAL_CA.into(),
            pk: LOCAL_CA.into(),
        })
    }

    fn preload(&mut self, id: &str, pair: &Preloaded) {
        self.preloaded_certs
            .insert(id.into(), PreloadedCert::Uri(pair.cert.clone()));
        self.preloaded_keys.insert(id.into(), pair.pk.clone());
    }
}

fn certd_issuance(options: &Issuance, auth: certd::EstAuth) -> certd::Issuance {
    certd::Issuance {
        method: options.method,
        url: options.url.clone(),
        auth,
        expiry_days: options.expiry_days,
        subject: options.subject.clone(),
    }
}

fn identity(id: &str, bootstrap: Option<&str>) -> certd::EstIdentity {
    certd::EstIdentity {
        identity_cert: id.into(),
        identity_pk: id.into(),
        bootstrap: bootstrap.map(|id| (id.to_string(), id.to_string())),
    }
}

/// A subject with `common_name` in place of whatever common name the fields have; names in upper case.
fn subject(common_name: &str, fields: &BTreeMap<String, String>) -> identityd::Subject {
    let fields = fields
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("cn"))
        .map(|(name, value)| (name.to_uppercase(), value.clone()))
        .collect();
    identityd::Subject::Name {
        common_name: common_name.into(),
        fields,
    }
}
