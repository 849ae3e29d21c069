//! The identity of the device, once it is known.

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
}

impl Device {
    /// Takes up an identity; backups of another device are removed.
    #[must_use]
    pub fn new(assignment: Assignment, state: &State) -> Self {
        let Assignment { hub, gateway, id, key } = assignment;
        let modules = state.modules(&hub, &id);
        Self { hub, gateway, id, key, modules }
    }

    /// Whether it is the same device at the same place, whatever key it has.
    #[must_use]
    pub fn is(&self, assignment: &Assignment) -> bool {
        self.hub == assignment.hub && self.gateway == assignment.gateway && self.id == assignment.id
    }
}
