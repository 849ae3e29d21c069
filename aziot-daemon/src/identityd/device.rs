//! The identity of the device, once it is known.

use aziot_core::config::identityd::{Attestation, Authentication, Provisioning, Source};
use aziot_core::provisioning::backup;

use super::state::{ModuleStore, State};

/// A device identity and what belongs to it. Never changed: another identity is another value.
#[derive(Clone, Debug)]
pub struct Device {
    /// Host name of the hub, with its port if it has one.
    pub hub: String,
    /// Host that requests for the hub go to: the parent device, or the hub.
    pub gateway: String,
    /// The device's id.
    pub id: String,
    /// Id of the device's symmetric key at the Keys Service.
    pub key: String,
    /// The configuration that the identity was made with; that in force may be another by now.
    pub made_with: Provisioning,
    /// Backups of its modules.
    pub modules: ModuleStore,
}

/// A device identity as assigned or configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Host name of the hub.
    pub hub: String,
    /// Host that requests for the hub go to.
    pub gateway: String,
    /// The device's id.
    pub id: String,
    /// Id of its key.
    pub key: String,
    /// The configuration that it was made with.
    pub made_with: Provisioning,
}

impl Device {
    /// Takes up an identity; backups of another device are removed.
    #[must_use]
    pub fn new(assignment: Assignment, state: &State) -> Self {
        let Assignment {
            hub,
            gateway,
            id,
            key,
            made_with,
        } = assignment;
        let modules = state.modules(&hub, &id);
        Self {
            hub,
            gateway,
            id,
            key,
            made_with,
            modules,
        }
    }

    /// Whether it was made in the same way, so that nothing changes.
    #[must_use]
    pub fn is_made_as(&self, assignment: &Assignment) -> bool {
        self.key == assignment.key && self.made_with == assignment.made_with
    }

    /// Whether it is the same device at the same place, however it was made.
    #[must_use]
    pub fn is(&self, assignment: &Assignment) -> bool {
        self.hub == assignment.hub && self.gateway == assignment.gateway && self.id == assignment.id
    }
}

/// The settings that decide which identity a device gets; `None` if it gets none.
#[must_use]
pub fn deciding(provisioning: &Provisioning) -> Option<backup::Provisioning<'_>> {
    let gateway = provisioning
        .local_gateway_hostname
        .as_deref()
        .unwrap_or_default();
    match &provisioning.source {
        Source::None => None,
        Source::Manual {
            iothub_hostname,
            device_id,
            authentication,
        } => Some(backup::Provisioning {
            source: "manual",
            endpoint: iothub_hostname,
            scope: "",
            method: match authentication {
                Authentication::Sas { .. } => "sas",
                Authentication::X509 { .. } => "x509",
            },
            registration: device_id,
            gateway,
        }),
        Source::Dps {
            global_endpoint,
            scope_id,
            attestation,
            ..
        } => {
            let (method, registration) = match attestation {
                Attestation::SymmetricKey {
                    registration_id, ..
                } => ("symmetric_key", registration_id.as_str()),
                Attestation::Tpm { registration_id } => ("tpm", registration_id.as_str()),
                Attestation::X509 {
                    registration_id, ..
                } => (
                    "x509",
                    registration_id
                        .as_ref()
                        .map_or("", |subject| subject.common_name()),
                ),
            };
            Some(backup::Provisioning {
                source: "dps",
                endpoint: global_endpoint,
                scope: scope_id,
                method,
                registration,
                gateway,
            })
        }
    }
}
