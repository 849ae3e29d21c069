//! The state of the simulated services.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::est::{Authorities, Est};
use super::fault::Faults;
use super::journal::Journal;
use super::settings::{Enrolment, Key, NewDevice, NewModule, Settings};

/// 0001-01-01 to 1970-01-01 in units of 100 ns, the epoch of generation ids.
const TICKS_TO_1970: i64 = 621_355_968_000_000_000;

/// How much earlier than told a request may come, for rounding of timers.
const EARLY_TOLERANCE: Duration = Duration::from_millis(20);

/// Everything the services know and do at the moment.
#[derive(Debug)]
pub struct World {
    /// How they behave.
    pub settings: Settings,
    /// The DPS id scope.
    pub scope_id: String,
    /// Host names (with port) of the simulator itself, lower case; the first one is the hub that is assigned.
    pub own_hosts: Vec<String>,
    /// Host names (with port) under which any hub may be reached, lower case.
    pub gateways: Vec<String>,
    /// Individual enrolments by registration id.
    pub enrolments: BTreeMap<String, Enrolment>,
    /// Enrolment groups by their id.
    pub groups: BTreeMap<String, Enrolment>,
    /// DPS operations by their id.
    pub operations: BTreeMap<String, Operation>,
    /// The EST side.
    pub est: Est,
    /// Devices by hub and device id.
    pub hubs: BTreeMap<String, BTreeMap<String, Device>>,
    /// Misbehaviour that waits.
    pub faults: Faults,
    /// What happened.
    pub journal: Journal,
    /// Requests (`METHOD path`) that were told to wait, and until when.
    pub told_to_wait: BTreeMap<String, Instant>,
    last_generation: i64,
}

impl World {
    /// A world without devices.
    #[must_use]
    pub fn new(
        settings: Settings,
        scope_id: String,
        own_hosts: Vec<String>,
        gateways: Vec<String>,
        authorities: Authorities,
    ) -> Self {
        let hub = own_hosts.first().cloned().unwrap_or_default();
        Self {
            settings,
            scope_id,
            own_hosts,
            gateways,
            enrolments: BTreeMap::new(),
            groups: BTreeMap::new(),
            operations: BTreeMap::new(),
            est: Est::new(authorities),
            hubs: BTreeMap::from([(hub, BTreeMap::new())]),
            faults: Faults::default(),
            journal: Journal::default(),
            told_to_wait: BTreeMap::new(),
            last_generation: 0,
        }
    }

    /// The hub that is meant when none is named.
    #[must_use]
    pub fn default_hub(&self) -> String {
        self.own_hosts.first().cloned().unwrap_or_default()
    }

    /// Adds or replaces a group.
    ///
    /// # Errors
    /// A group cannot assign one device id to all.
    pub fn add_group(&mut self, id: &str, group: Enrolment) -> Result<(), String> {
        if group.device_id.is_some() {
            return Err("an enrolment group assigns registration ids as device ids, so deviceId must be absent".into());
        }
        self.groups.insert(id.to_owned(), group);
        Ok(())
    }

    /// Adds a device, or gives an existing one new keys; its modules stay.
    pub fn add_device(&mut self, id: &str, device: NewDevice) {
        let hub = device.hub.unwrap_or_else(|| self.default_hub());
        let entry = self
            .hubs
            .entry(hub)
            .or_default()
            .entry(id.to_owned())
            .or_default();
        entry.keys = Keys::new(device.key, device.secondary_key);
        entry.enabled = device.enabled;
    }

    /// Registers a device with the hub that DPS assigned, and takes it away from the other hubs.
    pub fn assign_device(&mut self, hub: &str, id: &str, keys: Keys) {
        for (name, devices) in &mut self.hubs {
            if name != hub {
                devices.remove(id);
            }
        }
        let device = self
            .hubs
            .entry(hub.to_owned())
            .or_default()
            .entry(id.to_owned())
            .or_default();
        device.keys = keys;
    }

    /// Removes a device from a hub; false if it was not there.
    pub fn remove_device(&mut self, hub: Option<&str>, id: &str) -> bool {
        let hub = hub.map_or_else(|| self.default_hub(), str::to_owned);
        self.hubs
            .get_mut(&hub)
            .is_some_and(|devices| devices.remove(id).is_some())
    }

    /// The device, if it exists.
    #[must_use]
    pub fn device(&self, hub: &str, id: &str) -> Option<&Device> {
        self.hubs.get(hub)?.get(id)
    }

    /// The device, if it exists, to be changed.
    pub fn device_mut(&mut self, hub: &str, id: &str) -> Option<&mut Device> {
        self.hubs.get_mut(hub)?.get_mut(id)
    }

    /// Adds or recreates a module as another tool would.
    ///
    /// # Errors
    /// The device does not exist.
    pub fn add_module(
        &mut self,
        device: &str,
        id: &str,
        module: NewModule,
        now_millis: i64,
    ) -> Result<(), String> {
        let hub = module.hub.unwrap_or_else(|| self.default_hub());
        let mut made = self.new_module(now_millis);
        made.managed_by = module.managed_by;
        if let Some(kind) = module.auth_type {
            made.auth_type = kind;
        }
        if let Some(key) = module.key {
            made.keys = Keys::new(key, None);
        }
        let device = self
            .device_mut(&hub, device)
            .ok_or_else(|| format!("there is no device {device:?} at hub {hub:?}"))?;
        device.modules.insert(id.to_owned(), made);
        Ok(())
    }

    /// Removes a module; false if it was not there.
    pub fn remove_module(&mut self, hub: Option<&str>, device: &str, id: &str) -> bool {
        let hub = hub.map_or_else(|| self.default_hub(), str::to_owned);
        self.device_mut(&hub, device)
            .is_some_and(|device| device.modules.remove(id).is_some())
    }

    /// A module as a hub makes it: random keys, a generation id that was never used before.
    pub fn new_module(&mut self, now_millis: i64) -> Module {
        let ticks = now_millis
            .saturating_mul(10_000)
            .saturating_add(TICKS_TO_1970);
        self.last_generation = ticks.max(self.last_generation + 1);
        Module {
            generation_id: self.last_generation.to_string(),
            etag: random_hex(8),
            managed_by: None,
            auth_type: "sas".to_owned(),
            keys: Keys::new(Key(random_bytes(32)), Some(Key(random_bytes(32)))),
            key_updates: 0,
            messages: 0,
        }
    }

    /// Notes that a request was told to come no sooner than `seconds` from now.
    pub fn tell_to_wait(&mut self, method: &str, path: &str, seconds: u32) {
        let wait = Duration::try_from_secs_f64(f64::from(seconds) * self.settings.time_scale)
            .unwrap_or(Duration::ZERO);
        if let Some(until) = Instant::now().checked_add(wait) {
            self.told_to_wait.insert(format!("{method} {path}"), until);
        }
    }

    /// How much too early a request comes, if it does. One that is in time ends the wait.
    pub fn early_by(&mut self, method: &str, path: &str) -> Option<Duration> {
        let key = format!("{method} {path}");
        let until = *self.told_to_wait.get(&key)?;
        let early = until.saturating_duration_since(Instant::now());
        if early > EARLY_TOLERANCE {
            return Some(early);
        }
        self.told_to_wait.remove(&key);
        None
    }

    /// As the control interface shows it, keys included: they are made for tests.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let hubs: serde_json::Map<String, Value> = self
            .hubs
            .iter()
            .map(|(hub, devices)| {
                let devices: serde_json::Map<String, Value> = devices
                    .iter()
                    .map(|(id, device)| (id.clone(), device.to_json()))
                    .collect();
                (hub.clone(), Value::Object(devices))
            })
            .collect();
        let operations: Vec<Value> = self
            .operations
            .iter()
            .map(|(id, o)| {
                json!({ "operationId": id, "registrationId": o.registration, "pollsLeft": o.polls_left, "done": o.result.is_some() })
            })
            .collect();
        json!({
            "scopeId": self.scope_id,
            "settings": self.settings,
            "enrolments": self.enrolments,
            "groups": self.groups,
            "operations": operations,
            "hubs": hubs,
            "est": self.est.to_json(),
            "faults": self.faults.waiting(),
            "requests": self.journal.last_number(),
            "violations": self.journal.violation_count(),
        })
    }
}

/// A registration in progress or finished.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The registration id.
    pub registration: String,
    /// The enrolment that let it in.
    pub enrolment: Enrolment,
    /// The device's keys.
    pub keys: Keys,
    /// The payload of the request.
    pub payload: Option<Value>,
    /// When it began (RFC 3339).
    pub created: String,
    /// How many polls are still answered with `assigning`.
    pub polls_left: u32,
    /// The final answer, once there is one.
    pub result: Option<Value>,
}

/// A device of a hub.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its keys.
    pub keys: Keys,
    /// Whether it may connect.
    pub enabled: bool,
    /// Its modules by id.
    pub modules: BTreeMap<String, Module>,
    /// How many messages it sent.
    pub messages: u64,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            enabled: true,
            modules: BTreeMap::new(),
            messages: 0,
        }
    }
}

impl Device {
    fn to_json(&self) -> Value {
        let modules: serde_json::Map<String, Value> = self
            .modules
            .iter()
            .map(|(id, module)| (id.clone(), module.state_json()))
            .collect();
        json!({
            "primaryKey": self.keys.primary,
            "secondaryKey": self.keys.secondary,
            "enabled": self.enabled,
            "messages": self.messages,
            "modules": modules,
        })
    }
}

/// A module of a device.
#[derive(Clone, Debug)]
pub struct Module {
    /// Changes whenever the module is made anew.
    pub generation_id: String,
    /// Changes with every change.
    pub etag: String,
    /// Who manages it.
    pub managed_by: Option<String>,
    /// `sas`, `none`, `selfSigned` or `certificateAuthority`.
    pub auth_type: String,
    /// Its keys.
    pub keys: Keys,
    /// How often keys were set since it was made.
    pub key_updates: u64,
    /// How many messages it sent.
    pub messages: u64,
}

impl Module {
    /// As the hub answers it.
    #[must_use]
    pub fn to_json(&self, device: &str, id: &str) -> Value {
        let sas = self.auth_type == "sas";
        json!({
            "moduleId": id,
            "managedBy": self.managed_by,
            "deviceId": device,
            "generationId": self.generation_id,
            "etag": self.etag,
            "connectionState": "Disconnected",
            "connectionStateUpdatedTime": "0001-01-01T00:00:00",
            "lastActivityTime": "0001-01-01T00:00:00",
            "cloudToDeviceMessageCount": 0,
            "authentication": {
                "symmetricKey": {
                    "primaryKey": sas.then(|| self.keys.primary.to_base64()),
                    "secondaryKey": sas.then(|| self.keys.secondary.as_ref().map(Key::to_base64)),
                },
                "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
                "type": self.auth_type,
            },
        })
    }

    fn state_json(&self) -> Value {
        json!({
            "generationId": self.generation_id,
            "etag": self.etag,
            "managedBy": self.managed_by,
            "authType": self.auth_type,
            "primaryKey": self.keys.primary,
            "secondaryKey": self.keys.secondary,
            "keyUpdates": self.key_updates,
            "messages": self.messages,
        })
    }
}

/// A primary key and perhaps a secondary one; either signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The primary key.
    pub primary: Key,
    /// The secondary key.
    pub secondary: Option<Key>,
}

impl Default for Keys {
    /// A random primary key, so that nobody knows it.
    fn default() -> Self {
        Self::new(Key(random_bytes(32)), None)
    }
}

impl Keys {
    /// Both keys.
    #[must_use]
    pub fn new(primary: Key, secondary: Option<Key>) -> Self {
        Self { primary, secondary }
    }

    /// Both keys, as token verification wants them.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        [Some(&self.primary), self.secondary.as_ref()]
            .into_iter()
            .flatten()
            .map(|key| key.0.as_slice())
    }
}

/// Random bytes from OpenSSL; all zero if it has none, which then fails the test.
#[must_use]
pub fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    if openssl::rand::rand_bytes(&mut bytes).is_err() {
        bytes.fill(0);
    }
    bytes
}

/// `count` random bytes in hexadecimal.
#[must_use]
pub fn random_hex(count: usize) -> String {
    random_bytes(count)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A random UUID (RFC 9562 section 5.4).
#[must_use]
pub fn random_uuid() -> String {
    let hex = random_hex(15);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-4{}-a{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 15),
        part(15, 18),
        part(18, 30)
    )
}
