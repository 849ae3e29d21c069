//! Makes the modules at the hub those of the configuration (identity-service 13).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aziot_core::config::identityd::{IdType, Principal, Settings};
use aziot_core::provisioning::{Action, Change, Outcome, reconcile as decide};

use super::error::{Class, Error};
use super::hub::{Failure, Hub, KeyRing, Kind};
use super::modules;
use super::state::ModuleStore;
use crate::locks::Locks;

/// How long a reconciliation waits for a request that is changing the same module.
const LOCK_LIMIT: Duration = Duration::from_secs(120);

/// What a reconciliation works with.
pub struct Work<'w> {
    /// The hub.
    pub hub: &'w dyn Hub,
    /// The Keys Service.
    pub keys: &'w dyn KeyRing,
    /// Backups of the modules of the current device.
    pub store: &'w ModuleStore,
    /// The modules being changed by requests.
    pub locks: &'w Arc<Locks>,
    /// Called whenever the lock on a module has been given back.
    pub released: &'w dyn Fn(),
    /// The configuration.
    pub settings: &'w Settings,
    /// The configuration as of the last reconciliation with this device; `None` when there was none.
    pub previous: Option<&'w Settings>,
    /// Set the keys of modules that are kept, too.
    pub refresh_all: bool,
}

/// What a reconciliation has come to.
#[derive(Debug)]
pub struct Report {
    /// The configuration as far as it is now true at the hub, to be recorded for the next time.
    pub record: Settings,
    /// The modules for which something failed.
    pub failures: Vec<(String, Failure)>,
}

impl Report {
    /// All failures in one, with the first as the class; `None` when everything went well.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let (name, first) = self.failures.first()?;
        if self.failures.len() == 1 {
            return Some(first.clone());
        }
        let mut error = Error::because(
            first.error.class(),
            format!(
                "{} modules failed, first {name}: {}",
                self.failures.len(),
                first.error.one_line()
            ),
        );
        for (name, failure) in self.failures.iter().skip(1) {
            error = error.caused_by(format_args!("{name}: {}", failure.error.one_line()));
        }
        Some(Failure {
            kind: first.kind,
            error,
        })
    }
}

/// Runs a reconciliation. A module that fails does not keep the others from being looked at, unless the hub is gone.
///
/// # Errors
/// When the hub does not tell its modules, nothing can be done at all.
pub fn reconcile(work: &Work<'_>) -> Result<Report, Failure> {
    let current = hub_modules(work.settings);
    let previous = work.previous.map(hub_modules).unwrap_or_default();
    let at_hub = modules::fetch_all(work.hub, work.store)?;

    let mut report = Report {
        record: work.settings.clone(),
        failures: Vec::new(),
    };
    let mut missing = current.clone();
    for module in &at_hub {
        let name = module.module_id.as_str();
        missing.remove(name);
        match decide(
            current.contains(name),
            previous.contains(name),
            work.refresh_all,
        ) {
            Action::Keep => say(name, Outcome::Kept),
            Action::RefreshKeys => {
                let done = step(work, &mut report, name, |w| take_over(w, name));
                if !done {
                    forget(&mut report.record, name);
                }
            }
            Action::Delete => {
                let done = step(work, &mut report, name, |w| {
                    match modules::delete(w.hub, w.store, name) {
                        // Somebody was faster.
                        Err(error) if error.kind == Kind::NotFound => Ok(()),
                        other => other,
                    }
                });
                if done {
                    say(name, Outcome::Removed);
                } else {
                    remember(&mut report.record, work.previous, name);
                }
            }
            Action::LeaveAlone => {}
        }
    }
    for name in missing {
        let done = step(work, &mut report, name, |w| {
            modules::create(w.hub, w.keys, w.store, name).map(drop)
        });
        if done {
            say(name, Outcome::Added);
        } else {
            forget(&mut report.record, name);
        }
    }
    Ok(report)
}

fn say(module: &str, outcome: Outcome) {
    log::info!("{}", Change { module, outcome });
}

/// Names of the modules that a configuration wants at the hub.
fn hub_modules(settings: &Settings) -> BTreeSet<&str> {
    settings
        .principals
        .iter()
        .filter(|principal| wants_module(principal))
        .map(|p| p.name.as_str())
        .collect()
}

fn wants_module(principal: &Principal) -> bool {
    principal
        .id_types
        .as_ref()
        .is_some_and(|types| types.contains(&IdType::Module))
}

/// Does one step for one module under its lock and notes a failure. After the hub is gone nothing more is tried.
fn step(
    work: &Work<'_>,
    report: &mut Report,
    module: &str,
    action: impl FnOnce(&Work<'_>) -> Result<(), Failure>,
) -> bool {
    let gone = report
        .failures
        .iter()
        .find(|(_, failure)| failure.kind == Kind::Network);
    let result = if let Some((_, failure)) = gone {
        Err(failure.clone())
    } else if let Some(guard) = work.locks.lock(module, LOCK_LIMIT) {
        let result = action(work);
        drop(guard);
        (work.released)();
        result
    } else {
        Err(Failure::local(Error::because(
            Class::Internal,
            "a request has been changing the module for too long",
        )))
    };
    match result {
        Ok(()) => true,
        Err(failure) => {
            log::warn!(
                "Could not reconcile Hub identity {module:?}: {}",
                failure.error.one_line()
            );
            report.failures.push((module.to_owned(), failure));
            false
        }
    }
}

/// A configured module that exists although this service did not make it gets the keys of its generation, so that twin and
/// generation survive; only if that fails is it made anew.
fn take_over(work: &Work<'_>, name: &str) -> Result<(), Failure> {
    match modules::update(work.hub, work.keys, work.store, name) {
        Ok(_) => {
            say(name, Outcome::Refreshed);
            return Ok(());
        }
        // Making it anew would fail the same way, after the old one is gone.
        Err(error) if matches!(error.kind, Kind::Local | Kind::Network) => return Err(error),
        Err(error) => {
            say(name, Outcome::Recreating);
            log::info!("{}", error.error.one_line());
        }
    }
    match modules::delete(work.hub, work.store, name) {
        Err(error) if error.kind != Kind::NotFound => return Err(error),
        _ => {}
    }
    modules::create(work.hub, work.keys, work.store, name)?;
    say(name, Outcome::Added);
    Ok(())
}

/// Records that a configured module is not in order: the next reconciliation will see to it.
fn forget(record: &mut Settings, name: &str) {
    for principal in &mut record.principals {
        if principal.name == name
            && let Some(types) = &mut principal.id_types
        {
            types.retain(|kind| *kind != IdType::Module);
        }
    }
}

/// Records that a module which is configured no more is still there: the next reconciliation will delete it.
fn remember(record: &mut Settings, previous: Option<&Settings>, name: &str) {
    if let Some(principal) = record
        .principals
        .iter_mut()
        .find(|principal| principal.name == name)
    {
        // One without types has no module and cannot be given one without losing what it is.
        if let Some(types) = &mut principal.id_types {
            types.push(IdType::Module);
        }
        return;
    }
    let old = previous.and_then(|previous| previous.principals.iter().find(|p| p.name == name));
    if let Some(old) = old {
        record.principals.push(Principal {
            uid: old.uid,
            name: name.to_owned(),
            id_types: Some(vec![IdType::Module]),
            localid: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use aziot_core::config::{Merged, Places};
    use zeroize::Zeroizing;

    use super::super::hub::{Module, ModuleKeys};
    use super::super::state::State;
    use super::*;

    /// A hub in memory that refuses what it is told to, and records what it is asked.
    struct FakeHub {
        modules: RefCell<Vec<String>>,
        refuse: &'static [(&'static str, Kind)],
        asked: RefCell<Vec<String>>,
    }

    impl FakeHub {
        fn new(modules: &[&str], refuse: &'static [(&'static str, Kind)]) -> Self {
            let modules = RefCell::new(modules.iter().map(|&m| m.to_owned()).collect());
            Self {
                modules,
                refuse,
                asked: RefCell::default(),
            }
        }

        fn ask(&self, what: &str, module: &str) -> Result<Module, Failure> {
            let call = format!("{what} {module}");
            self.asked.borrow_mut().push(call.clone());
            match self.refuse.iter().find(|(refused, _)| *refused == call) {
                Some((_, kind)) => Err(Failure::hub(*kind, "refused")),
                None => Ok(Module {
                    module_id: module.to_owned(),
                    managed_by: None,
                    device_id: "d".to_owned(),
                    generation_id: Some("1".to_owned()),
                }),
            }
        }
    }

    impl Hub for FakeHub {
        fn create(&self, module: &str) -> Result<Module, Failure> {
            self.ask("create", module)
        }

        fn set_keys(&self, module: &str, _: &ModuleKeys) -> Result<Module, Failure> {
            self.ask("keys", module)
        }

        fn module(&self, module: &str) -> Result<Module, Failure> {
            self.ask("get", module)
        }

        fn modules(&self) -> Result<Vec<Module>, Failure> {
            self.modules
                .borrow()
                .iter()
                .map(|module| self.ask("list", module))
                .collect()
        }

        fn delete(&self, module: &str) -> Result<(), Failure> {
            self.ask("delete", module).map(drop)
        }
    }

    struct FakeKeys;

    impl KeyRing for FakeKeys {
        fn handle(&self, module: &str, _: &str) -> Result<Zeroizing<String>, Error> {
            Ok(Zeroizing::new(module.to_owned()))
        }

        fn keys(&self, module: &str, generation: &str) -> Result<ModuleKeys, Error> {
            let keys = aziot_core::hub::ModuleKeys {
                primary: [1; 32],
                secondary: [2; 32],
            };
            Ok(ModuleKeys {
                handle: self.handle(module, generation)?,
                keys,
            })
        }
    }

    fn settings(modules: &[&str]) -> Settings {
        let mut text = "hostname = \"h\"\nhomedir = \"/x\"\n[provisioning]\nsource = \"manual\"\niothub_hostname = \
                        \"h\"\ndevice_id = \"d\"\n[provisioning.authentication]\nmethod = \"sas\"\ndevice_id_pk = \"k\"\n"
            .to_owned();
        for (index, module) in modules.iter().enumerate() {
            text.push_str(&format!(
                "[[principal]]\nuid = {index}\nname = \"{module}\"\nidtype = [\"module\"]\n"
            ));
        }
        let mut merged = Merged::new();
        merged.add("config.toml", &text).unwrap();
        Settings::read(&merged, &Places::default())
            .unwrap()
            .settings
    }

    fn run(hub: &FakeHub, current: &[&str], previous: Option<&[&str]>) -> (Vec<String>, Report) {
        let dir = tempfile::tempdir().unwrap();
        let store = State::open(dir.path().to_str().unwrap())
            .unwrap()
            .modules("h", "d");
        let previous = previous.map(settings);
        let report = reconcile(&Work {
            hub,
            keys: &FakeKeys,
            store: &store,
            locks: &Arc::default(),
            released: &|| {},
            settings: &settings(current),
            previous: previous.as_ref(),
            refresh_all: false,
        })
        .unwrap();
        let asked = hub
            .asked
            .borrow()
            .iter()
            .filter(|call| !call.starts_with("list"))
            .cloned()
            .collect();
        (asked, report)
    }

    #[test]
    fn is_57_calls_in_order() {
        let hub = FakeHub::new(&["gone", "kept", "there", "foreign"], &[]);
        let (asked, report) = run(&hub, &["z", "there", "kept", "b"], Some(&["gone", "kept"]));
        assert_eq!(
            asked,
            [
                "delete gone",
                "get there",
                "keys there",
                "create b",
                "keys b",
                "create z",
                "keys z"
            ]
        );
        assert!(report.failure().is_none());
        assert_eq!(report.record, settings(&["z", "there", "kept", "b"]));
    }

    #[test]
    fn a_module_whose_keys_cannot_be_refreshed_is_made_anew() {
        let hub = FakeHub::new(&["m"], &[("keys m", Kind::Refused(400))]);
        let (asked, report) = run(&hub, &["m"], None);
        assert_eq!(asked[..4], ["get m", "keys m", "delete m", "create m"]);
        assert!(
            report.failure().is_some(),
            "the new one gets no keys either"
        );
        // Without a network nothing is deleted.
        let hub = FakeHub::new(&["m"], &[("keys m", Kind::Network)]);
        assert_eq!(run(&hub, &["m"], None).0, ["get m", "keys m"]);
    }

    #[test]
    fn failures_are_recorded_for_the_next_time_and_reported_together() {
        let hub = FakeHub::new(
            &["gone", "kept"],
            &[
                ("delete gone", Kind::Refused(403)),
                ("create a", Kind::Refused(403)),
            ],
        );
        let (asked, report) = run(&hub, &["a", "b", "kept"], Some(&["gone", "kept"]));
        assert_eq!(asked, ["delete gone", "create a", "create b", "keys b"]);
        let failure = report.failure().unwrap();
        assert_eq!(failure.kind, Kind::Refused(403));
        let text = failure.error.one_line();
        assert!(
            text.contains("2 modules failed") && text.contains("gone") && text.contains("a: "),
            "{text}"
        );
        // `a` counts as not configured, `gone` as configured: the next reconciliation makes the one and deletes the other.
        assert_eq!(
            hub_modules(&report.record).into_iter().collect::<Vec<_>>(),
            ["b", "gone", "kept"]
        );

        // Nothing is asked any more once the hub is gone.
        let hub = FakeHub::new(&[], &[("create a", Kind::Network)]);
        let (asked, report) = run(&hub, &["a", "b"], None);
        assert_eq!(asked, ["create a"]);
        assert_eq!(report.failures.len(), 2);
        assert!(hub_modules(&report.record).is_empty());
    }
}
