//! What can be told to the simulator: how it starts, how it behaves, whom it knows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How to start a simulator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where certificates and keys are written; made if missing. An authority found there is used again.
    pub directory: PathBuf,
    /// The TCP port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Where to listen for control requests, if at all.
    pub control: Option<PathBuf>,
    /// The DPS id scope.
    pub scope_id: String,
    /// Further DNS names that the server certificate is good for, beside `localhost` and 127.0.0.1.
    pub names: Vec<String>,
    /// Host names (with port) under which a request may reach any hub, as a parent gateway.
    pub gateways: Vec<String>,
    /// How it behaves at first.
    pub settings: Settings,
    /// Whether each request is reported on standard error.
    pub verbose: bool,
}

impl Config {
    /// A free port, no control socket, scope `0ne00000001`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            port: 0,
            control: None,
            scope_id: "0ne00000001".to_owned(),
            names: Vec::new(),
            gateways: Vec::new(),
            settings: Settings::default(),
            verbose: false,
        }
    }
}

/// How the simulator behaves; can be changed at any time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// How often a poll answers `assigning` before the result, unless the enrolment says otherwise.
    pub assigning_polls: u32,
    /// The `Retry-After` of DPS's 202 answers, in seconds; none leaves the header out.
    pub retry_after: Option<u32>,
    /// What happens to a request that comes before its `Retry-After` has passed.
    pub early: Early,
    /// What a second of a `Retry-After` means in seconds, for clients built with scaled deadlines.
    pub time_scale: f64,
    /// How bodies of answers are delimited.
    pub framing: Framing,
    /// How long a token of the daemon may be valid, in seconds.
    pub token_lifetime: u32,
    /// How much longer it may be because of rounding and travel, in seconds.
    pub token_slack: u32,
    /// How long a token may be valid that a module or device uses to send messages, in seconds.
    pub event_token_lifetime: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            assigning_polls: 1,
            retry_after: Some(3),
            early: Early::Record,
            time_scale: 1.0,
            framing: Framing::Service,
            token_lifetime: 30,
            token_slack: 5,
            event_token_lifetime: 86_400,
        }
    }
}

/// What happens to a request that comes before its `Retry-After` has passed. It is a violation in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Early {
    /// It is served.
    Record,
    /// It is answered with 400.
    Reject,
    /// It is answered with 429.
    Throttle,
}

/// How bodies of answers are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Framing {
    /// Always `Transfer-Encoding: chunked`.
    Chunked,
    /// Always by the end of the connection.
    Close,
    /// Always `Content-Length`.
    Length,
    /// `chunked` from DPS, `Content-Length` from IoT Hub, as the real services do it.
    Service,
}

/// An individual enrolment, or the rules of an enrolment group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
    /// The primary key: the device's, or the group's from which the devices' are derived.
    pub key: Key,
    /// The secondary key, if there is one.
    #[serde(default)]
    pub secondary_key: Option<Key>,
    /// The device id that is assigned; the registration id if absent. Individual enrolments only.
    #[serde(default)]
    pub device_id: Option<String>,
    /// The hub's host name (with port) that is assigned; the simulator's own if absent.
    #[serde(default)]
    pub hub: Option<String>,
    /// Custom allocation: hubs by the member `modelId` of the request's payload, before `hub`.
    #[serde(default)]
    pub hub_by_model: BTreeMap<String, String>,
    /// How often a poll answers `assigning` before the result.
    #[serde(default)]
    pub assigning_polls: Option<u32>,
    /// How a registration ends.
    #[serde(default)]
    pub outcome: Outcome,
    /// What registrations return as `payload`; without it the request's payload comes back in
    /// `{"msg":"custom allocation payload received","request_payload":…}`.
    #[serde(default)]
    pub payload: Option<serde_json::Value>,
    /// Whether the registration request is at once answered with 200 and the result.
    #[serde(default)]
    pub immediate: bool,
}

impl Enrolment {
    /// An enrolment with this key that assigns the simulator's own hub.
    #[must_use]
    pub fn new(key: impl Into<Key>) -> Self {
        Self {
            key: key.into(),
            secondary_key: None,
            device_id: None,
            hub: None,
            hub_by_model: BTreeMap::new(),
            assigning_polls: None,
            outcome: Outcome::Assigned,
            payload: None,
            immediate: false,
        }
    }
}

/// How a registration ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// With a hub and a device id.
    #[default]
    Assigned,
    /// The enrolment is disabled.
    Disabled,
    /// With an error.
    Failed {
        /// The service's number.
        #[serde(rename = "errorCode")]
        error_code: i64,
        /// The service's text.
        #[serde(rename = "errorMessage")]
        error_message: String,
    },
    /// With the status `unassigned`.
    Unassigned,
}

/// A device as it is added by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewDevice {
    /// The primary key.
    pub key: Key,
    /// The secondary key, if there is one.
    #[serde(default)]
    pub secondary_key: Option<Key>,
    /// The hub's host name (with port); the simulator's own if absent.
    #[serde(default)]
    pub hub: Option<String>,
    /// Whether the device may connect.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl NewDevice {
    /// An enabled device with this key at the simulator's own hub.
    #[must_use]
    pub fn new(key: impl Into<Key>) -> Self {
        Self {
            key: key.into(),
            secondary_key: None,
            hub: None,
            enabled: true,
        }
    }
}

/// A module as it is added by hand, as if by another tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewModule {
    /// The hub's host name (with port); the simulator's own if absent.
    pub hub: Option<String>,
    /// Who manages it.
    pub managed_by: Option<String>,
    /// `sas` if absent; e.g. `none`, `selfSigned`, `certificateAuthority`.
    pub auth_type: Option<String>,
    /// The primary key; a random one if absent.
    pub key: Option<Key>,
}

/// A symmetric key; base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

impl Key {
    /// Reads base64 with padding (RFC 4648 section 4).
    ///
    /// # Errors
    /// Says that the text is not base64.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let bytes = Base64::decode_vec(text).map_err(|_| format!("{text:?} is not base64"))?;
        Ok(Self(bytes))
    }

    /// Base64 with padding.
    #[must_use]
    pub fn to_base64(&self) -> String {
        Base64::encode_string(&self.0)
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

impl<T: AsRef<[u8]>> From<T> for Key {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_base64(&text).map_err(serde::de::Error::custom)
    }
}

fn yes() -> bool {
    true
}
