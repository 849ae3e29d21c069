//! What the procedures of this service ask of IoT Hub and of the Keys Service, apart from how it is done.

use aziot_core::hub;
use zeroize::Zeroizing;

use super::error::{Class, Error};

/// A module as the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its id, in the hub's letter case.
    pub module_id: String,
    /// Who manages it, if the hub says so.
    pub managed_by: Option<String>,
    /// The id of the device it belongs to.
    pub device_id: String,
    /// Changes whenever a module is deleted and created again.
    pub generation_id: Option<String>,
}

impl From<hub::Module<'_>> for Module {
    fn from(module: hub::Module<'_>) -> Self {
        Self {
            module_id: module.module.to_owned(),
            managed_by: module.managed_by.map(ToOwned::to_owned),
            device_id: module.device.to_owned(),
            generation_id: module.generation.map(ToOwned::to_owned),
        }
    }
}

impl Module {
    /// A view of it.
    #[must_use]
    pub fn borrowed(&self) -> hub::Module<'_> {
        hub::Module {
            module: &self.module_id,
            device: &self.device_id,
            managed_by: self.managed_by.as_deref(),
            generation: self.generation_id.as_deref(),
        }
    }
}

/// The module registry of a device in IoT Hub (identity-service 10).
pub trait Hub {
    /// Creates a module without keys.
    ///
    /// # Errors
    /// Those of any call to the hub; [`Kind::Refused`] with status 409 if it exists.
    fn create(&self, module: &str) -> Result<Module, Failure>;

    /// Sets the keys of a module that exists.
    ///
    /// # Errors
    /// Those of any call to the hub; [`Kind::NotFound`] if it does not exist.
    fn set_keys(&self, module: &str, keys: &ModuleKeys) -> Result<Module, Failure>;

    /// One module.
    ///
    /// # Errors
    /// Those of any call to the hub; [`Kind::NotFound`] if it does not exist.
    fn module(&self, module: &str) -> Result<Module, Failure>;

    /// All modules of the device, in the hub's order.
    ///
    /// # Errors
    /// Those of any call to the hub.
    fn modules(&self) -> Result<Vec<Module>, Failure>;

    /// Deletes a module.
    ///
    /// # Errors
    /// Those of any call to the hub; [`Kind::NotFound`] if it does not exist.
    fn delete(&self, module: &str) -> Result<(), Failure>;
}

/// The keys of module identities, derived by the Keys Service from a master key that it never gives out.
pub trait KeyRing {
    /// The handle that a module signs with. The module's generation is part of the derivation.
    ///
    /// # Errors
    /// When the Keys Service cannot be reached or refuses.
    fn handle(&self, module: &str, generation: &str) -> Result<Zeroizing<String>, Error>;

    /// The handle, and both keys for the hub to check signatures with.
    ///
    /// # Errors
    /// When the Keys Service cannot be reached or refuses.
    fn keys(&self, module: &str, generation: &str) -> Result<ModuleKeys, Error>;
}

/// The keys of one module.
pub struct ModuleKeys {
    /// Handle of the primary key.
    pub handle: Zeroizing<String>,
    /// What the hub checks signatures with.
    pub keys: hub::ModuleKeys,
}

/// A failed call to the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for what comes next.
    pub kind: Kind,
    /// What the client and the log are told.
    pub error: Error,
}

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The peer was not asked, because something on this device failed.
    Local,
    /// The peer could not be reached or is not itself, or the gateway in between says so.
    Network,
    /// There is no such thing at the peer.
    NotFound,
    /// The answer makes no sense.
    Other,
    /// The peer refused with this status.
    Refused(u16),
}

impl Failure {
    /// A failure of the hub or of the way to it.
    #[must_use]
    pub fn hub(kind: Kind, cause: impl std::fmt::Display) -> Self {
        Self {
            kind,
            error: Error::because(Class::Hub, cause),
        }
    }

    /// A failure on this device.
    #[must_use]
    pub fn local(error: Error) -> Self {
        Self {
            kind: Kind::Local,
            error,
        }
    }

    /// Whether the hub does not accept this device, so that it may have been moved to another one.
    #[must_use]
    pub fn rejects_device(&self) -> bool {
        match self.kind {
            Kind::NotFound => true,
            Kind::Refused(status) => (400..500).contains(&status),
            Kind::Local | Kind::Network | Kind::Other => false,
        }
    }
}
