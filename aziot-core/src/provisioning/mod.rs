//! What the Identity Service decides, and the texts it keeps on disk, without doing any of it.
//!
//! - [`startup`] and [`after_reconciliation`]: when to serve a backup, when to register (identity-service 6, DESIGN 9.4);
//! - [`backup`]: the sidecar that tells for which provisioning a backup was made;
//! - [`reconcile()`]: what happens to each module (identity-service 13);
//! - [`HubReachability`]: when to ask the hub and when to answer from the backup;
//! - [`DeviceInfo`], module backups and derivation data: texts.

pub mod backup;
mod reachability;
mod reconcile;
mod state;

pub use reachability::{HubReachability, ReadAccess, Unreachable};
pub use reconcile::{Action, Change, Outcome, reconcile};
pub use state::{
    DeviceInfo, KeySlot, MODULE_BACKUP, derivation_data, read_module_backup, write_module_backup,
};

use backup::Backup;

/// Where the identity of the device comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The Device Provisioning Service.
    Dps,
    /// The configuration itself.
    Manual,
    /// Nowhere: there is none.
    None,
}

/// Why the device is being provisioned. Its text is what the log says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trigger {
    /// A client asked for it.
    Api,
    /// The configuration changed.
    ConfigurationFileUpdate,
    /// The service has started.
    Startup,
}

impl core::fmt::Display for Trigger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Api => "Api",
            Self::ConfigurationFileUpdate => "ConfigurationFileUpdate",
            Self::Startup => "Startup",
        })
    }
}

/// What to do at the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// Nothing: there is no device identity.
    Nothing,
    /// Register with the provisioning service; until then there is no identity.
    Register,
    /// Serve the identity in the backup at once, and reconcile with the hub behind it.
    ServeBackup,
    /// Serve the identity in the configuration at once, and reconcile with the hub behind it.
    ServeConfigured,
}

/// What to do at the start, given the source and whether there is a backup to be trusted.
pub const fn startup(source: Source, backup: Backup) -> Start {
    match (source, backup) {
        (Source::None, _) => Start::Nothing,
        (Source::Manual, _) => Start::ServeConfigured,
        (Source::Dps, Backup::Usable) => Start::ServeBackup,
        (Source::Dps, Backup::None | Backup::OtherProvisioning) => Start::Register,
    }
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reconciled {
    /// A sibling service or the disk failed; says nothing about the identity.
    FailedLocally,
    /// All is as it should be.
    Fully,
    /// The hub refused the device, or answered with something unusable.
    Rejected,
    /// The hub could not be reached.
    Unreachable,
}

/// What to do after a reconciliation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Afterwards {
    /// Report the failure; go on serving what is known and try again later.
    Fail,
    /// Nothing.
    Finish,
    /// Register with the provisioning service again, and reconcile once more.
    Reregister,
    /// Go on with what is known, and reconcile when the hub can be reached.
    StayOffline,
}

/// What to do after a reconciliation. `reregistered` says whether the device was registered just before it.
///
/// A client that asked for reprovisioning is told of every failure. Otherwise a hub that rejects a device from the
/// provisioning service leads to exactly one new registration; a local failure never does, as it says nothing about the
/// device.
pub const fn after_reconciliation(
    source: Source,
    trigger: Trigger,
    reregistered: bool,
    ended: Reconciled,
) -> Afterwards {
    match (ended, trigger) {
        (Reconciled::Fully, _) => Afterwards::Finish,
        (Reconciled::FailedLocally, _) | (_, Trigger::Api) => Afterwards::Fail,
        (Reconciled::Unreachable, _) => Afterwards::StayOffline,
        (Reconciled::Rejected, _) => match source {
            Source::Dps if !reregistered => Afterwards::Reregister,
            Source::Dps | Source::Manual | Source::None => Afterwards::Fail,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_33_start() {
        for (source, backup, expected) in [
            (Source::Dps, Backup::Usable, Start::ServeBackup),
            (Source::Dps, Backup::None, Start::Register),
            (Source::Dps, Backup::OtherProvisioning, Start::Register),
            (Source::Manual, Backup::None, Start::ServeConfigured),
            (Source::Manual, Backup::Usable, Start::ServeConfigured),
            (Source::None, Backup::Usable, Start::Nothing),
        ] {
            assert_eq!(startup(source, backup), expected);
        }
    }

    #[test]
    fn is_41_rejection_leads_to_one_registration() {
        use Afterwards::{Fail, Finish, Reregister, StayOffline};
        let after = |source, trigger, reregistered| {
            [
                Reconciled::Fully,
                Reconciled::Rejected,
                Reconciled::Unreachable,
                Reconciled::FailedLocally,
            ]
            .map(|ended| after_reconciliation(source, trigger, reregistered, ended))
        };
        for trigger in [Trigger::Startup, Trigger::ConfigurationFileUpdate] {
            assert_eq!(
                after(Source::Dps, trigger, false),
                [Finish, Reregister, StayOffline, Fail]
            );
            assert_eq!(
                after(Source::Dps, trigger, true),
                [Finish, Fail, StayOffline, Fail]
            );
            assert_eq!(
                after(Source::Manual, trigger, false),
                [Finish, Fail, StayOffline, Fail]
            );
        }
        for source in [Source::Dps, Source::Manual] {
            assert_eq!(
                after(source, Trigger::Api, false),
                [Finish, Fail, Fail, Fail]
            );
        }
    }

    #[test]
    fn triggers_in_the_log() {
        let text = [
            Trigger::Api,
            Trigger::ConfigurationFileUpdate,
            Trigger::Startup,
        ]
        .map(|trigger| trigger.to_string());
        assert_eq!(text, ["Api", "ConfigurationFileUpdate", "Startup"]);
    }
}
