//! Who may ask for what (identity-service 4).

use std::collections::{BTreeMap, BTreeSet};

/// The kinds of identity that a principal may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdTypes {
    /// The device identity.
    pub device: bool,
    /// A module identity in IoT Hub.
    pub module: bool,
    /// A certificate from the local issuer.
    pub local: bool,
}

/// A `[[principal]]`, as far as callers are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal<'s> {
    /// Unix user id.
    pub uid: u32,
    /// Module name.
    pub name: &'s str,
    /// `None` for the daemon with full access.
    pub types: Option<IdTypes>,
}

/// The tables made from all principals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    by_uid: BTreeMap<u32, Entry>,
    hub_modules: BTreeSet<String>,
    local: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    types: Option<IdTypes>,
}

/// A caller, by the peer uid of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'c> {
    /// Root, or the one principal without a type: may do everything.
    Full,
    /// A process with identities of its own.
    Host {
        /// Its module name.
        name: &'c str,
        /// What identities it may have.
        types: IdTypes,
    },
    /// Nobody we know.
    Unknown,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// The device identity.
    Device,
    /// One module identity.
    Module(&'a str),
    /// Anything else that only an administrator of identities may do: list, create, update, delete, reprovision.
    Manage,
}

/// Which identity answers `GET /identities/identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primary<'c> {
    /// The device's.
    Device,
    /// The caller's own module.
    Module(&'c str),
}

impl Callers {
    /// Builds the tables. Warnings for principals that have no effect go to `warn`.
    pub fn new<'s>(
        principals: impl IntoIterator<Item = Principal<'s>>,
        mut warn: impl FnMut(String),
    ) -> Self {
        let mut callers = Self::default();
        let mut daemon_seen = false;
        for principal in principals {
            match principal.types {
                None if daemon_seen => {
                    warn(format!(
                        "Principal {:?} (uid {}) is not authorized. Please ensure there is only one principal without a \
                         type in the config.toml",
                        principal.name, principal.uid
                    ));
                    continue;
                }
                None => daemon_seen = true,
                Some(types) => {
                    if types.module {
                        callers.hub_modules.insert(principal.name.to_owned());
                    }
                    if types.local {
                        callers.local.insert(principal.name.to_owned());
                    }
                }
            }
            let entry = Entry {
                name: principal.name.to_owned(),
                types: principal.types,
            };
            if let Some(old) = callers.by_uid.insert(principal.uid, entry) {
                warn(format!(
                    "Principals {:?} and {:?} have the same uid {}; the caller is taken for the latter. Give each its own \
                     user",
                    old.name, principal.name, principal.uid
                ));
            }
        }
        callers
    }

    /// Who has this uid.
    #[must_use]
    pub fn caller(&self, uid: u32) -> Caller<'_> {
        match self.by_uid.get(&uid) {
            Some(Entry {
                name,
                types: Some(types),
            }) => Caller::Host {
                name,
                types: *types,
            },
            Some(Entry { types: None, .. }) => Caller::Full,
            None if uid == 0 => Caller::Full,
            None => Caller::Unknown,
        }
    }

    /// Names of the modules that the configuration wants in IoT Hub, ascending.
    #[must_use]
    pub fn hub_modules(&self) -> &BTreeSet<String> {
        &self.hub_modules
    }

    /// Whether the configuration gives this name a local identity.
    #[must_use]
    pub fn is_local(&self, name: &str) -> bool {
        self.local.contains(name)
    }
}

impl<'c> Caller<'c> {
    /// Whether the caller may do this.
    #[must_use]
    pub fn may(self, access: Access<'_>) -> bool {
        match (self, access) {
            (Self::Full, _) => true,
            (Self::Host { types, .. }, Access::Device) => types.device,
            (Self::Host { name, types }, Access::Module(module)) => {
                name == module && (types.module || types.local)
            }
            (Self::Host { .. }, Access::Manage) | (Self::Unknown, _) => false,
        }
    }

    /// Whether the caller may have the hub's identity of a module that it may ask about. One that has only local
    /// identities would be sent to the hub for nothing.
    #[must_use]
    pub fn may_use_hub(self) -> bool {
        match self {
            Self::Full => true,
            Self::Host { types, .. } => types.module || types.device,
            Self::Unknown => false,
        }
    }

    /// The identity that answers `GET /identities/identity`; `None` if the caller has none.
    #[must_use]
    pub fn primary(self) -> Option<Primary<'c>> {
        match self {
            Self::Full => Some(Primary::Device),
            Self::Host { types, .. } if types.device => Some(Primary::Device),
            Self::Host { name, types } if types.module => Some(Primary::Module(name)),
            Self::Host { .. } | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(list: &str) -> Option<IdTypes> {
        Some(IdTypes {
            device: list.contains("device"),
            module: list.contains("module"),
            local: list.contains("local"),
        })
    }

    fn callers(list: &[(u32, &'static str, Option<IdTypes>)]) -> (Callers, Vec<String>) {
        let mut warnings = Vec::new();
        let principals = list
            .iter()
            .map(|&(uid, name, types)| Principal { uid, name, types });
        let callers = Callers::new(principals, |w| warnings.push(w));
        (callers, warnings)
    }

    #[test]
    fn is_13_matrix() {
        let (callers, warnings) = callers(&[
            (1, "edged", None),
            (2, "dev", types("device")),
            (3, "mod", types("module")),
            (4, "loc", types("local")),
            (5, "all", types("device module local")),
            (6, "none", types("")),
            (7, "second", None),
        ]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains(
            "is not authorized. Please ensure there is only one principal without a type in the config.toml"
        ));

        // uid, primary identity, device, own module, another's module, manage
        type Row = (
            u32,
            Option<Primary<'static>>,
            bool,
            &'static str,
            bool,
            bool,
        );
        let rows: [Row; 9] = [
            (0, Some(Primary::Device), true, "x", true, true),
            (1, Some(Primary::Device), true, "x", true, true),
            (2, Some(Primary::Device), true, "dev", false, false),
            (3, Some(Primary::Module("mod")), false, "mod", true, false),
            (4, None, false, "loc", true, false),
            (5, Some(Primary::Device), true, "all", true, false),
            (6, None, false, "none", false, false),
            (7, None, false, "second", false, false),
            (8, None, false, "x", false, false),
        ];
        for (uid, primary, device, own, own_allowed, manage) in rows {
            let caller = callers.caller(uid);
            assert_eq!(caller.primary(), primary, "uid {uid}");
            assert_eq!(caller.may(Access::Device), device, "uid {uid}");
            assert_eq!(caller.may(Access::Module(own)), own_allowed, "uid {uid}");
            assert_eq!(caller.may(Access::Module("other")), manage, "uid {uid}");
            assert_eq!(caller.may(Access::Manage), manage, "uid {uid}");
        }
        assert!(!callers.caller(4).may_use_hub());
        assert!(callers.caller(3).may_use_hub());
        assert_eq!(
            callers
                .hub_modules()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            ["all", "mod"]
        );
        assert!(callers.is_local("loc") && !callers.is_local("mod"));
    }

    #[test]
    fn is_14_root_can_be_a_host_process() {
        let (callers, _) = callers(&[(0, "testmodule", types("module"))]);
        assert_eq!(
            callers.caller(0),
            Caller::Host {
                name: "testmodule",
                types: types("module").unwrap()
            }
        );
        assert!(!callers.caller(0).may(Access::Manage));
    }

    #[test]
    fn a_later_principal_of_the_same_uid_wins_but_both_names_stay() {
        let (callers, warnings) = callers(&[(7, "p", types("local")), (7, "p2", types("module"))]);
        assert_eq!(warnings.len(), 1);
        assert_eq!(callers.caller(7).primary(), Some(Primary::Module("p2")));
        assert!(callers.is_local("p"));
    }
}
