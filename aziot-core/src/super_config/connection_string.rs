//! Connection strings of devices.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use zeroize::Zeroizing;

use crate::base64::{self, Padding};

/// What a device needs to connect to its hub: the parts of `HostName=…;DeviceId=…;SharedAccessKey=…`.
#[derive(Clone, Eq, PartialEq)]
pub struct ConnectionString {
    /// Host of the hub.
    pub host_name: String,
    /// The device's id.
    pub device_id: String,
    /// The decoded key.
    pub key: Zeroizing<Vec<u8>>,
}

/// Why a text is not a usable connection string. Never contains the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionStringError {
    /// A required part is missing.
    Missing(&'static str),
    /// A required part is there but empty.
    Empty(&'static str),
    /// The key is not Base64.
    Key(base64::Error),
}

impl fmt::Display for ConnectionStringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "required parameter \"{name}\" is missing"),
            Self::Empty(name) => write!(f, "required parameter \"{name}\" is empty"),
            Self::Key(error) => write!(
                f,
                "connection string's \"{KEY}\" parameter could not be decoded from base64: {error}"
            ),
        }
    }
}

impl core::error::Error for ConnectionStringError {}

const HOST: &str = "HostName";
const DEVICE: &str = "DeviceId";
const KEY: &str = "SharedAccessKey";

impl core::str::FromStr for ConnectionString {
    type Err = ConnectionStringError;

    /// Parts are separated by `;`, name and value by the first `=`. Names are case-sensitive, of a repeated part the last
    /// counts, others are ignored.
    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        let part = |name: &'static str| {
            let value = text
                .split(';')
                .filter_map(|part| part.split_once('='))
                .filter(|(found, _)| *found == name)
                .map(|(_, value)| value)
                .next_back();
            match value {
                None => Err(ConnectionStringError::Missing(name)),
                Some("") => Err(ConnectionStringError::Empty(name)),
                Some(value) => Ok(value),
            }
        };
        let (host_name, device_id, key) = (part(HOST)?, part(DEVICE)?, part(KEY)?);
        Ok(Self {
            host_name: host_name.into(),
            device_id: device_id.into(),
            key: decode_key(key).map_err(ConnectionStringError::Key)?,
        })
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("host_name", &self.host_name)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// Decodes a key that people paste: padded, or not padded at all.
pub(super) fn decode_key(text: &str) -> Result<Zeroizing<Vec<u8>>, base64::Error> {
    let mut bytes = Zeroizing::new(text.as_bytes().to_vec());
    let length = base64::decode_in_place(&mut bytes, Padding::Optional)?;
    bytes.truncate(length);
    Ok(bytes)
}
