//! From outcomes to responses (identity-service 5.2, 5.3).

use std::sync::Arc;

use aziot_core::api::identity::{
    Authentication, AuthenticationType, AziotIdentity, DeviceStatus, Identities, Identity,
    ProvisioningInfo, Status, TrustBundle,
};
use aziot_core::config::identityd::{Attestation, Authentication as Method, Settings, Source};
use aziot_core::json::Raw;
use aziot_core::time::UnixTime;
use zeroize::Zeroizing;

use super::device::Device;
use super::error::Error;
use super::hub::Module;
use super::modules::Granted;
use super::{Event, Identityd, busy, provision};
use crate::lanes::Lane;
use crate::outcome::VERSION;
use crate::service::{Context, Handled, Reply, RequestId};

/// A successful answer.
#[derive(Debug)]
pub enum Answer {
    /// The device identity, which is at hand.
    Device,
    /// A module identity.
    Module(Arc<Device>, Granted),
    /// Module identities, without credentials.
    Modules(Arc<Device>, Vec<Module>),
    /// 204.
    Nothing,
    /// What the device is provisioned from, with the text of the payload file if there is one.
    Provisioning(Option<Zeroizing<String>>),
    /// How the service stands.
    Status,
    /// The trust bundle.
    TrustBundle,
}

/// The device's identity.
#[must_use]
pub fn device<'a>(device: &'a Device, handle: &'a str) -> Identity<'a> {
    Identity::Aziot(AziotIdentity {
        hub_name: &device.hub,
        gateway_host: &device.gateway,
        device_id: &device.id,
        module_id: None,
        gen_id: None,
        auth: Some(sas(handle)),
    })
}

/// A module's identity; in lists without handle.
fn module<'a>(device: &'a Device, module: &'a Module, handle: Option<&'a str>) -> Identity<'a> {
    Identity::Aziot(AziotIdentity {
        hub_name: &device.hub,
        gateway_host: &device.gateway,
        device_id: &module.device_id,
        module_id: Some(&module.module_id),
        gen_id: module.generation_id.as_deref(),
        auth: handle.map(sas),
    })
}

fn sas(handle: &str) -> Authentication<'_> {
    Authentication {
        kind: AuthenticationType::Sas,
        key_handle: Some(handle),
        cert_id: None,
    }
}

/// What the device is provisioned from. `payload` is JSON.
fn provisioning<'a>(settings: &'a Settings, payload: Raw<'a>) -> ProvisioningInfo<'a> {
    match &settings.provisioning.source {
        Source::None => ProvisioningInfo::None,
        Source::Manual { authentication, .. } => ProvisioningInfo::Manual {
            auth: match authentication {
                Method::Sas { .. } => "sas",
                Method::X509 { .. } => "x509",
            },
        },
        Source::Dps {
            global_endpoint,
            scope_id,
            attestation,
            ..
        } => {
            let (auth, registration_id) = match attestation {
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
            ProvisioningInfo::Dps {
                auth,
                endpoint: global_endpoint,
                scope_id,
                registration_id,
                payload,
            }
        }
    }
}

impl Identityd {
    /// Writes a response.
    pub(super) fn respond(&self, reply: Reply<'_>, outcome: &Result<Answer, Error>) -> Handled {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return refuse(reply, error),
        };
        match (answer, &self.device) {
            (Answer::Nothing, _) => reply.no_content(),
            (Answer::TrustBundle, _) => reply.ok(&TrustBundle { certificate: "" }),
            (Answer::Status, _) => self.respond_status(reply),
            (Answer::Provisioning(payload), _) => {
                let payload = payload
                    .as_ref()
                    .and_then(|text| Raw::new(text).ok())
                    .unwrap_or(Raw::NULL);
                reply.ok(&provisioning(&self.settings, payload))
            }
            (Answer::Device, Some(known)) => match self.handle.latest() {
                Some(handle) => reply.ok(&device(known, handle)),
                None => refuse(reply, &busy()),
            },
            (Answer::Module(device, granted), _) => {
                reply.ok(&module(device, &granted.module, Some(&granted.handle)))
            }
            (Answer::Modules(device, modules), _) => reply.ok(&Identities(
                modules.iter().map(|entry| module(device, entry, None)),
            )),
            // The device has been given up meanwhile.
            (Answer::Device, None) => refuse(reply, &Error::no_device(None)),
        }
    }

    fn respond_status(&self, reply: Reply<'_>) -> Handled {
        let text = |seconds: u64| {
            UnixTime::from_secs(seconds)
                .unwrap_or(UnixTime::MAX)
                .rfc3339()
                .to_string()
        };
        let since = text(self.course.since);
        let next_attempt = self.course.next_attempt.map(text);
        let reason = self
            .link
            .down()
            .or(self.course.failure())
            .map(Error::one_line);
        let device = self.device.as_ref().map(|device| DeviceStatus {
            hub_name: &device.hub,
            gateway_host: &device.gateway,
            device_id: &device.id,
        });
        reply.ok(&Status {
            state: self.state().as_str(),
            since: &since,
            reason: reason.as_deref(),
            next_attempt: next_attempt.as_deref(),
            version: VERSION,
            hub_reachable: device.map(|_| self.link.down().is_none()),
            device,
            reconciled: self.course.reconciled(),
        })
    }

    /// What the device is provisioned from. The payload file is read each time.
    pub(super) fn provisioning_info(
        &self,
        id: RequestId,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        let Source::Dps {
            payload: Some(url), ..
        } = &self.settings.provisioning.source
        else {
            return Some(Ok(Answer::Provisioning(None)));
        };
        let url = url.clone();
        let job = move || Event::Payload(id, provision::read_payload(&url));
        cx.run(Lane::Local, job).err().map(|_| Err(busy()))
    }
}

fn refuse(reply: Reply<'_>, error: &Error) -> Handled {
    match error.status() {
        // The client sees `internal error`, the log the causes.
        500.. => reply.error(error.status(), &error.causes().join("\n")),
        status => reply.error(status, error),
    }
}
