//! IoT Hub: the module identities of a device (identity-service 10).
//!
//! [`Request`] writes a request; [`module`], [`Modules`] and [`deleted`] read its answer. Connections, tokens
//! ([`crate::sas::Audience::Device`]) and attempts ([`crate::retry::Attempts`]) are the driver's.

mod answer;
#[cfg(test)]
mod tests;

pub use answer::{Error, Module, Modules, deleted, module};

use crate::id::{DeviceId, ModuleId};
use crate::json::{self, Bytes};
use crate::json_object;
use crate::output::{BufferFull, Output};
use crate::percent::Set;

/// The version of the hub's API that is spoken.
pub const API_VERSION: &str = "2017-11-08-preview";

/// Bytes in a module's key: an HMAC-SHA256.
pub const KEY_SIZE: usize = 32;

/// A request about a device's modules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// Make a module without keys. Answer: [`module`]; an existing one is a conflict.
    Create {
        /// The device.
        device: DeviceId<'a>,
        /// The new module.
        module: ModuleId<'a>,
    },
    /// Remove a module. Answer: [`deleted`].
    Delete {
        /// The device.
        device: DeviceId<'a>,
        /// The module.
        module: ModuleId<'a>,
    },
    /// Read one module. Answer: [`module`].
    Get {
        /// The device.
        device: DeviceId<'a>,
        /// The module.
        module: ModuleId<'a>,
    },
    /// Read all modules. Answer: [`Modules::new`].
    List {
        /// The device.
        device: DeviceId<'a>,
    },
    /// Replace the keys of an existing module. Answer: [`module`].
    SetKeys {
        /// The device.
        device: DeviceId<'a>,
        /// The module.
        module: ModuleId<'a>,
        /// Its new keys.
        keys: &'a ModuleKeys,
    },
}

/// The symmetric keys of a module.
#[derive(Clone, Eq, PartialEq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct ModuleKeys {
    /// The one that the module uses.
    pub primary: [u8; KEY_SIZE],
    /// The spare one.
    pub secondary: [u8; KEY_SIZE],
}

impl core::fmt::Debug for ModuleKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ModuleKeys { .. }")
    }
}

impl<'a> Request<'a> {
    /// The HTTP method.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Create { .. } | Self::SetKeys { .. } => "PUT",
            Self::Delete { .. } => "DELETE",
            Self::Get { .. } | Self::List { .. } => "GET",
        }
    }

    /// The header to send beside those that every request has: `if-match: *` where something must exist already.
    pub const fn header(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Delete { .. } | Self::SetKeys { .. } => Some(("if-match", "*")),
            Self::Create { .. } | Self::Get { .. } | Self::List { .. } => None,
        }
    }

    /// The device.
    pub const fn device(&self) -> DeviceId<'a> {
        match self {
            Self::Create { device, .. }
            | Self::Delete { device, .. }
            | Self::Get { device, .. }
            | Self::List { device }
            | Self::SetKeys { device, .. } => *device,
        }
    }

    /// The module, if the request is about one.
    pub const fn module(&self) -> Option<ModuleId<'a>> {
        match self {
            Self::Create { module, .. }
            | Self::Delete { module, .. }
            | Self::Get { module, .. }
            | Self::SetKeys { module, .. } => Some(*module),
            Self::List { .. } => None,
        }
    }

    /// Writes path and query.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write_target<'o>(&self, out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
        let mut out = Output::new(out);
        let device = Set::HUB_SEGMENT.encode(self.device().as_str());
        write!(out, "/devices/{device}/modules");
        if let Some(module) = self.module() {
            write!(out, "/{}", Set::HUB_SEGMENT.encode(module.as_str()));
        }
        write!(out, "?api-version={API_VERSION}");
        out.finish_str()
    }

    /// Writes the JSON body, if there is one. With [`Request::SetKeys`] it is secret: wipe `out` after use.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write_body<'o>(&self, out: &'o mut [u8]) -> Result<Option<&'o [u8]>, BufferFull> {
        let (device, module, keys) = match self {
            Self::Create { device, module } => (device, module, None),
            Self::SetKeys {
                device,
                module,
                keys,
            } => (device, module, Some(keys)),
            Self::Delete { .. } | Self::Get { .. } | Self::List { .. } => return Ok(None),
        };
        let body = Body {
            module: module.as_str(),
            device: device.as_str(),
            authentication: keys.map(|keys| Authentication {
                keys: SymmetricKey {
                    primary: Bytes(&keys.primary),
                    secondary: Bytes(&keys.secondary),
                },
                kind: "sas",
            }),
        };
        let length = json::to_slice(&body, out)?;
        Ok(out.get(..length))
    }
}

json_object! {
    struct Body<'a> {
        module: &'a str = "moduleId",
        device: &'a str = "deviceId",
        authentication: Option<Authentication<'a>> = "authentication" [omit],
    }

    struct Authentication<'a> {
        keys: SymmetricKey<'a> = "symmetricKey",
        kind: &'a str = "type",
    }

    struct SymmetricKey<'a> {
        primary: Bytes<'a> = "primaryKey",
        secondary: Bytes<'a> = "secondaryKey",
    }
}
