//! Module identities: create, get, list, update, delete (identity-service 11).
//!
//! These functions block and are for jobs. None of them takes a lock; whoever calls a writing one holds the module's.

use zeroize::Zeroizing;

use super::error::{Class, Error};
use super::hub::{Failure, Hub, KeyRing, Kind, Module};
use super::state::ModuleStore;

/// A module identity to be handed out.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The module as the hub describes it.
    pub module: Module,
    /// The handle of its primary key.
    pub handle: Zeroizing<String>,
}

/// Creates a module at the hub and gives it keys. A module that got no keys is taken back, so that the next attempt does
/// not find half of one.
///
/// # Errors
/// Those of the hub and of the Keys Service; [`Class::ModuleNotFound`] without a generation id.
pub fn create(
    hub: &dyn Hub,
    keys: &dyn KeyRing,
    store: &ModuleStore,
    module: &str,
) -> Result<Granted, Failure> {
    let created = hub.create(module)?;
    equip(hub, keys, store, &created).inspect_err(|_| match hub.delete(module) {
        Ok(()) => log::warn!("Hub identity {module:?} got no keys and was removed again."),
        Err(error) => log::warn!(
            "Hub identity {module:?} is left without keys: {}. Delete it, or update it.",
            error.error.one_line()
        ),
    })
}

/// Gives a module that exists the keys of its generation again.
///
/// # Errors
/// As [`create`].
pub fn update(
    hub: &dyn Hub,
    keys: &dyn KeyRing,
    store: &ModuleStore,
    module: &str,
) -> Result<Granted, Failure> {
    let found = hub.module(module)?;
    equip(hub, keys, store, &found)
}

fn equip(
    hub: &dyn Hub,
    keys: &dyn KeyRing,
    store: &ModuleStore,
    module: &Module,
) -> Result<Granted, Failure> {
    let generation = generation(module).map_err(Failure::local)?;
    let keys = keys
        .keys(&module.module_id, generation)
        .map_err(Failure::local)?;
    let module = hub.set_keys(&module.module_id, &keys)?;
    store.write(&module);
    Ok(Granted {
        module,
        handle: keys.handle,
    })
}

/// Deletes a module at the hub, and its backup.
///
/// # Errors
/// Those of the hub.
pub fn delete(hub: &dyn Hub, store: &ModuleStore, module: &str) -> Result<(), Failure> {
    let result = hub.delete(module);
    if result.is_ok()
        || result
            .as_ref()
            .is_err_and(|error| error.kind == Kind::NotFound)
    {
        store.remove(module);
    }
    result
}

/// A module from the hub. A module that the hub does not know loses its backup.
///
/// # Errors
/// Those of the hub; its "not found" reads `module <m> not found`.
pub fn fetch(hub: &dyn Hub, store: &ModuleStore, module: &str) -> Result<Module, Failure> {
    match hub.module(module) {
        Ok(found) => {
            store.write(&found);
            Ok(found)
        }
        Err(error) if error.kind == Kind::NotFound => {
            store.remove(module);
            Err(Failure::hub(Kind::NotFound, not_found(module)))
        }
        Err(error) => Err(error),
    }
}

/// All modules from the hub. Every one is backed up, and backups of modules that are gone are removed.
///
/// # Errors
/// Those of the hub.
pub fn fetch_all(hub: &dyn Hub, store: &ModuleStore) -> Result<Vec<Module>, Failure> {
    let asked = std::time::SystemTime::now();
    let modules = hub.modules()?;
    for module in &modules {
        store.write(module);
    }
    store.prune(&modules, asked);
    Ok(modules)
}

/// What is answered when neither hub nor backup has the module.
#[must_use]
pub fn not_found(module: &str) -> String {
    format!("module {module} not found")
}

/// Adds the handle to a module.
///
/// # Errors
/// [`Class::ModuleNotFound`] without a generation id, and those of the Keys Service.
pub fn grant(keys: &dyn KeyRing, module: Module) -> Result<Granted, Error> {
    let handle = keys.handle(&module.module_id, generation(&module)?)?;
    Ok(Granted { module, handle })
}

fn generation(module: &Module) -> Result<&str, Error> {
    module
        .generation_id
        .as_deref()
        .ok_or(Error::new(Class::ModuleNotFound))
}
