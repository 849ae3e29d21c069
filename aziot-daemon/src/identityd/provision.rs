//! The provisioning procedure: from the configuration to a device whose modules are in order (identity-service 6.2).
//!
//! It runs as one job. It tells the event loop of a new device as soon as there is one, so that requests need not wait for
//! the reconciliation.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aziot_core::config::identityd::{Attestation, Authentication, Settings, Source};
use aziot_core::config::url::{Url, UrlError};
use aziot_core::config::{DeviceInfo, Places};
use aziot_core::dps::{self, Enrolment, Payload, Registration, Step};
use aziot_core::id::{DeviceId, HubName, RegistrationId, ScopeId};
use aziot_core::provisioning::{self, Afterwards, Reconciled, after_reconciliation, backup};
use aziot_core::retry::{GaveUp, Policy};
use aziot_crypto::file;
use zeroize::Zeroizing;

use super::cloud::{CloudHub, Message, NoResponse, Peer, send};
use super::device::{Assignment, Device, deciding};
use super::error::{Class, Error};
use super::hub::{Failure, Kind};
use super::reconcile::{Work, reconcile};
use super::state::Saved;
use super::tools::Tools;
use super::{Event, clock};
use crate::client::Response;
use crate::lanes::Done;
pub use aziot_core::provisioning::Trigger;

/// Room for a request target.
const TARGET: usize = 2048;

/// What the procedure works with.
pub struct Run {
    /// Why it runs.
    pub trigger: Trigger,
    /// Clients, files, limits.
    pub tools: Arc<Tools>,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Where things are.
    pub places: Places,
    /// The device as it is.
    pub device: Option<Arc<Device>>,
    /// For what has to be told on the way.
    pub events: Done<Event>,
    /// Whether the assignment has been obtained in this run.
    pub registered: bool,
}

/// How the procedure ended.
#[derive(Debug)]
pub struct End {
    /// Why it ran.
    pub trigger: Trigger,
    /// Whether an assignment was obtained.
    pub assigned: bool,
    /// What went wrong, if something did.
    pub result: Result<(), Failure>,
}

/// Runs the procedure. For the cloud lane.
#[must_use]
pub fn run(mut run: Run) -> End {
    let trigger = run.trigger;
    log::info!("Provisioning starting. Reason: {trigger}");
    let result = run.procedure();
    run.tools.save_time();
    End {
        trigger,
        assigned: run.registered,
        result,
    }
}

impl Run {
    fn procedure(&mut self) -> Result<(), Failure> {
        let mut refresh = false;
        match self.trigger {
            Trigger::Api => refresh = !self.assign()?,
            Trigger::Startup if self.device.is_none() => {
                self.assign()?;
            }
            Trigger::ConfigurationFileUpdate | Trigger::Startup => {}
        }
        log::info!("Provisioning complete.");
        let failure = match self.reconcile(refresh) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        match after_reconciliation(
            self.source(),
            self.trigger,
            self.registered,
            reconciled(&failure),
        ) {
            Afterwards::Reregister => {}
            Afterwards::StayOffline => {
                log::warn!(
                    "Network not available for Identity reconciliation. Using offline backup from last run. {}",
                    failure.error.one_line()
                );
                return Err(failure);
            }
            Afterwards::Fail | Afterwards::Finish => return Err(failure),
        }
        log::info!(
            "Could not reconcile Identities with current device data. Reprovisioning. {}",
            failure.error.one_line()
        );
        match self.assign() {
            Ok(_) => self.reconcile(false),
            Err(failure) if failure.kind == Kind::Network => {
                log::warn!(
                    "Reprovisioning failed to communicate with DPS. Using offline backup from last run. {}",
                    failure.error.one_line()
                );
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    fn source(&self) -> provisioning::Source {
        match self.settings.provisioning.source {
            Source::Dps { .. } => provisioning::Source::Dps,
            Source::Manual { .. } => provisioning::Source::Manual,
            Source::None => provisioning::Source::None,
        }
    }

    /// Gets the assignment, and takes it up if it is another one than that in force. Answers whether it is.
    fn assign(&mut self) -> Result<bool, Failure> {
        let assignment = assignment(&self.tools, &self.settings)?;
        self.registered = true;
        let Some(assignment) = assignment else {
            if self.device.take().is_some() {
                self.tools.state.clear();
                self.events.send(Event::Device(None));
            }
            return Ok(true);
        };
        let moved = match &self.device {
            Some(device) if device.is(&assignment) && device.is_made_as(&assignment) => {
                return Ok(false);
            }
            Some(device) => !device.is(&assignment),
            None => false,
        };
        if moved {
            // What is on disk belongs to the device that was. A crash from here on leads to a new registration.
            self.tools.state.clear();
        }
        let device = Arc::new(Device::new(assignment, &self.tools.state));
        if self.source() == provisioning::Source::Manual {
            log::info!("Updated device info for {}.", device.id);
        }
        self.device = Some(Arc::clone(&device));
        self.events.send(Event::Device(Some(device)));
        Ok(moved)
    }

    fn reconcile(&self, refresh_all: bool) -> Result<(), Failure> {
        log::info!("Identity reconciliation started. Reason: {}", self.trigger);
        let Some(device) = &self.device else {
            log::info!("reconcilation skipped since device is not provisioned");
            return Ok(());
        };
        let saved = self.tools.state.load(&self.places);
        let info = info(device);
        let previous = saved
            .settings
            .filter(|_| saved.device.as_ref() == Some(&info));
        let hub = CloudHub::new(
            Arc::clone(&self.tools),
            &self.settings,
            Arc::clone(device),
            self.events.clone(),
        );
        let report = reconcile(&Work {
            hub: &hub,
            keys: self.tools.as_ref(),
            store: &device.modules,
            locks: &self.tools.locks,
            released: &|| self.events.send(Event::Released),
            settings: &self.settings,
            previous: previous.as_ref(),
            refresh_all,
        })?;
        save(&self.tools, device, &report.record).map_err(Failure::local)?;
        if let Some(mut failure) = report.failure() {
            // The list was answered, so the hub accepts the device; a module that it refuses says nothing about that.
            if failure.rejects_device() {
                failure.kind = Kind::Other;
            }
            return Err(failure);
        }
        log::info!("Identity reconciliation complete.");
        Ok(())
    }
}

/// What a failed reconciliation says about the device.
fn reconciled(failure: &Failure) -> Reconciled {
    match failure.kind {
        Kind::Local => Reconciled::FailedLocally,
        Kind::Network => Reconciled::Unreachable,
        // The hub was reached and does not want this device.
        _ if failure.rejects_device() => Reconciled::Rejected,
        // A single module was refused, or an answer made no sense: another registration would not change that.
        _ => Reconciled::FailedLocally,
    }
}

/// The backup that a start can do with, in DPS mode.
#[must_use]
pub fn from_backup(settings: &Settings, saved: &Saved) -> Option<Assignment> {
    let Source::Dps {
        attestation: Attestation::SymmetricKey { symmetric_key, .. },
        ..
    } = &settings.provisioning.source
    else {
        return None;
    };
    let device = saved.device.as_ref()?;
    let previous = saved
        .settings
        .as_ref()
        .and_then(|settings| deciding(&settings.provisioning));
    let judged = backup::judge(
        &deciding(&settings.provisioning)?,
        Some(saved.device_text.as_bytes()),
        saved.sum.as_deref().map(str::as_bytes),
        previous.as_ref(),
    );
    if judged == backup::Backup::OtherProvisioning {
        log::info!("The device backup was made for other provisioning settings and is not used.");
        return None;
    }
    Some(Assignment {
        hub: device.hub_name.clone(),
        gateway: device.local_gateway_hostname.clone(),
        id: device.device_id.clone(),
        key: symmetric_key.clone(),
        made_with: settings.provisioning.clone(),
    })
}

/// Records the device and the settings that are true for it.
fn save(tools: &Tools, device: &Device, record: &Settings) -> Result<(), Error> {
    let failed = |error: &dyn fmt::Display| Error::because(Class::Internal, error);
    let mut text = [0; DEVICE_INFO];
    let text = provisioning::DeviceInfo {
        hub: HubName::new(&device.hub).map_err(|error| failed(&error))?,
        gateway: HubName::new(&device.gateway).map_err(|error| failed(&error))?,
        device: DeviceId::new(&device.id).map_err(|error| failed(&error))?,
    }
    .write(&mut text)
    .map_err(|error| failed(&error))?;
    let sum = deciding(&device.made_with)
        .map(|deciding| deciding.sum(text.as_bytes()))
        .unwrap_or_default();
    tools
        .state
        .save(text, &sum, record)
        .map_err(|error| failed(&error))
}

/// Room for the content of `device_info`.
const DEVICE_INFO: usize = 4096;

/// A device as its backup names it.
#[must_use]
pub fn info(device: &Device) -> DeviceInfo {
    DeviceInfo {
        hub_name: device.hub.clone(),
        local_gateway_hostname: device.gateway.clone(),
        device_id: device.id.clone(),
    }
}

/// The assignment that the configuration gives or the provisioning service makes; `None` for a device without hub.
fn assignment(tools: &Tools, settings: &Settings) -> Result<Option<Assignment>, Failure> {
    match &settings.provisioning.source {
        Source::None => {
            log::info!("Skipping provisioning with IoT Hub.");
            Ok(None)
        }
        Source::Manual { .. } => Ok(manual(settings)),
        Source::Dps { .. } if settings.provisioning.local_gateway_hostname.is_some() => {
            Err(Failure::local(Error::new(Class::DpsInNestedMode)))
        }
        Source::Dps {
            global_endpoint,
            scope_id,
            attestation,
            payload,
        } => {
            let Attestation::SymmetricKey {
                registration_id,
                symmetric_key,
            } = attestation
            else {
                return Err(Failure::local(unsupported()));
            };
            let payload = payload
                .as_deref()
                .map(read_payload)
                .transpose()
                .map_err(Failure::local)?;
            register(
                tools,
                settings,
                global_endpoint,
                scope_id,
                registration_id,
                symmetric_key,
                payload.as_ref().map(|text| text.as_str()),
            )
            .map(Some)
        }
    }
}

/// The assignment of a configuration that has it all.
#[must_use]
pub fn manual(settings: &Settings) -> Option<Assignment> {
    let Source::Manual {
        iothub_hostname,
        device_id,
        authentication: Authentication::Sas { device_id_pk },
    } = &settings.provisioning.source
    else {
        return None;
    };
    let gateway = settings
        .provisioning
        .local_gateway_hostname
        .as_ref()
        .unwrap_or(iothub_hostname);
    Some(Assignment {
        hub: iothub_hostname.clone(),
        gateway: gateway.clone(),
        id: device_id.clone(),
        key: device_id_pk.clone(),
        made_with: settings.provisioning.clone(),
    })
}

fn unsupported() -> Error {
    Error::because(
        Class::Internal,
        "this way to prove the device's identity is not supported by this build yet",
    )
}

/// Registers the device with the provisioning service.
fn register(
    tools: &Tools,
    settings: &Settings,
    endpoint: &str,
    scope: &str,
    registration: &str,
    key: &str,
    payload: Option<&str>,
) -> Result<Assignment, Failure> {
    let invalid = |error: &dyn fmt::Display| Failure {
        kind: Kind::Other,
        error: Error::because(Class::Dps, error),
    };
    let url: Url = endpoint
        .parse()
        .map_err(|error: UrlError| invalid(&error))?;
    let authority = url.host_and_port();
    let payload = payload
        .map(Payload::new)
        .transpose()
        .map_err(|error| invalid(&error))?;
    let registration = Registration {
        scope: ScopeId::new(scope).map_err(|error| invalid(&error))?,
        id: RegistrationId::new(registration).map_err(|error| invalid(&error))?,
        attestation: dps::Attestation::SymmetricKey,
        payload,
    };
    let policy = Policy::cloud(
        settings.cloud_retries,
        Duration::from_secs(settings.cloud_timeout_sec),
    );
    let mut enrolment = Enrolment::new(registration, policy);
    let peer = Peer {
        authority,
        audience: enrolment.audience(),
        key,
        class: Class::Dps,
        observe: &|_| {},
    };
    let mut conversation = Conversation {
        tools,
        peer: &peer,
        begin: Instant::now(),
        target: [0; TARGET],
    };
    let mut body = vec![0; dps::MAX_PAYLOAD + BODY];
    let mut event = Input::Start;
    let mut call = dps::Call::Register;
    loop {
        let now = conversation.now();
        // Kept for what the log says beside the service's own words.
        let (status, date) = match &event {
            Input::Answer(response) => (response.status, response.date),
            _ => (0, None),
        };
        let (step, detail) = match &mut event {
            Input::Start => (enrolment.next(dps::Event::Start, now), None),
            Input::WaitOver => (enrolment.next(dps::Event::WaitOver, now), None),
            Input::Answer(response) => (
                enrolment.next(dps::Event::Answer(response.answer()), now),
                None,
            ),
            Input::GaveUp(gave_up, error) => (
                enrolment.next(dps::Event::GaveUp(*gave_up), now),
                Some(&*error),
            ),
        };
        let request = match step {
            Step::Done(assigned) => {
                log::info!("Assigned to IoT hub: {}", assigned.hub);
                log::info!("DPS registration complete.");
                log::info!("Successfully provisioned with DPS.");
                return Ok(Assignment {
                    hub: assigned.hub.to_owned(),
                    gateway: assigned.hub.to_owned(),
                    id: assigned.device.to_owned(),
                    key: key.to_owned(),
                    made_with: settings.provisioning.clone(),
                });
            }
            Step::Failed(error) => {
                let kind = if error.is_network() {
                    Kind::Network
                } else if status >= 400 {
                    Kind::Refused(status)
                } else {
                    Kind::Other
                };
                let mut told = match detail {
                    Some(detail) => detail.clone(),
                    None => Error::because(Class::Dps, error),
                };
                if status == 401 {
                    told = told.caused_by(refused_hint(
                        registration.id.as_str(),
                        scope,
                        key,
                        authority,
                    ));
                    if let Some(hint) = clock::skew_hint(clock::now(), date) {
                        told = told.caused_by(hint);
                    }
                }
                return Err(Failure { kind, error: told });
            }
            Step::Wait(pause) => {
                if call == dps::Call::Poll && (200..300).contains(&status) {
                    log::info!("DPS registration is still in progress.");
                }
                std::thread::sleep(pause.mul_f64(tools.timing.scale));
                event = Input::WaitOver;
                continue;
            }
            Step::Send(request) => request,
        };
        log::info!("{request}");
        call = request.call;
        event = conversation.send(&enrolment, request, &mut body)?;
    }
}

/// Room for a register request beside its payload.
const BODY: usize = 1024;

/// What the machine is told next.
enum Input {
    Start,
    WaitOver,
    Answer(Response),
    GaveUp(GaveUp, Error),
}

struct Conversation<'c> {
    tools: &'c Tools,
    peer: &'c Peer<'c>,
    begin: Instant,
    target: [u8; TARGET],
}

impl Conversation<'_> {
    /// Time since the beginning, in the protocol's seconds.
    fn now(&self) -> Duration {
        self.begin.elapsed().div_f64(self.tools.timing.scale)
    }

    fn send(
        &mut self,
        enrolment: &Enrolment<'_>,
        request: dps::Request,
        body: &mut [u8],
    ) -> Result<Input, Failure> {
        let long = |error| Failure {
            kind: Kind::Other,
            error: Error::because(Class::Dps, error),
        };
        let target = enrolment
            .write_target(request, &mut self.target)
            .map_err(long)?;
        let body = enrolment.write_body(request, body).map_err(long)?;
        let message = Message {
            method: request.method(),
            target,
            header: None,
            body,
        };
        match send(self.tools, self.peer, request.policy, &message) {
            Ok(response) => Ok(Input::Answer(response)),
            Err(NoResponse::GaveUp(gave_up, error)) => Ok(Input::GaveUp(gave_up, error)),
            Err(other) => Err(other.into_failure()),
        }
    }
}

/// What somebody who has mistyped a key needs to read.
fn refused_hint(registration: &str, scope: &str, key: &str, authority: &str) -> String {
    format!(
        "{authority} refused the token of registration id {registration:?} in id scope {scope:?}: check the symmetric key \
         in config.toml (key id {key:?}; for an enrollment group it has to be the key derived for this registration id, \
         not the group's own), the registration id, the scope, and the clock of this device"
    )
}

/// Reads the payload file that a URL names.
///
/// # Errors
/// The invalid parameter `provisioning.payload`, with what is wrong.
pub fn read_payload(url: &str) -> Result<Zeroizing<String>, Error> {
    let invalid = |cause: &dyn fmt::Display| Error::parameter("provisioning.payload", cause);
    let url: Url = url.parse().map_err(|error: UrlError| invalid(&error))?;
    if url.scheme() != "file" {
        return Err(invalid(&"payload uri is not a file"));
    }
    let path = url
        .file_path()
        .ok_or_else(|| invalid(&"payload uri is not a file path"))?;
    let path = PathBuf::from(OsString::from_vec(path));
    let contents = file::read(&path, dps::MAX_PAYLOAD)
        .map_err(|error| invalid(&error))?
        .ok_or_else(|| {
            invalid(&format_args!(
                "could not read {}: there is no such file",
                path.display()
            ))
        })?;
    let text = std::str::from_utf8(&contents.bytes).map_err(|error| invalid(&error))?;
    Payload::new(text).map_err(|error| invalid(&error))?;
    Ok(Zeroizing::new(text.to_owned()))
}
