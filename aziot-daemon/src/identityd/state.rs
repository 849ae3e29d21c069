//! The state files of the service: the device, the settings it was provisioned with, and its modules (identity-service 12).
//!
//! All files are replaced atomically, mode 0600, in directories of mode 0700. Nothing secret is in them, but they are
//! nobody else's business.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aziot_core::config::identityd::Settings;
use aziot_core::config::{DeviceInfo, Merged, Places, device_info};
use aziot_core::id::{DeviceId, HubName, ModuleId, module_directory};
use aziot_core::provisioning::{self, backup};
use aziot_crypto::file;

use super::hub::Module;

/// Hub, gateway and id of the device of the last reconciliation.
const DEVICE_INFO: &str = "device_info";

/// What [`DEVICE_INFO`] was made from.
const DEVICE_INFO_SUM: &str = backup::FILE_NAME;

/// Settings of the last reconciliation.
const PREV_STATE: &str = "prev_state";

/// The last time seen from the cloud.
const TIME_SEEN: &str = "time_seen";

/// Directory of the module backups.
const MODULES: &str = "modules";

/// Largest state file that is read: settings of the largest configuration, with room.
const LIMIT: usize = 512 * 1024;

/// Largest module backup: ids are at most a few hundred bytes.
const MODULE_LIMIT: usize = provisioning::MODULE_BACKUP;

/// Mode of files, and of directories.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The time seen is written again only when it has advanced so far: flash wears.
const TIME_STEP: u64 = 86_400;

/// The home directory of the service.
#[derive(Clone, Debug)]
pub struct State {
    home: PathBuf,
}

/// What the last reconciliation left.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// The device.
    pub device: Option<DeviceInfo>,
    /// The settings, if they are those for this device.
    pub settings: Option<Settings>,
    /// The sidecar of `device`.
    pub sum: Option<String>,
    /// Text of the device file, which the sidecar is bound to.
    pub device_text: String,
}

impl State {
    /// Makes the home directory if it is missing, and removes what a crash has left.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(home: &str) -> Result<Self, file::Error> {
        let home = PathBuf::from(home);
        file::create_directories(&home, DIRECTORY_MODE)?;
        if let Err(error) = file::sweep(&home) {
            log::warn!("{error}");
        }
        Ok(Self { home })
    }

    /// Reads what the last reconciliation left. Files that make no sense are warned of and count as absent; such a device
    /// file is removed.
    #[must_use]
    pub fn load(&self, places: &Places) -> Saved {
        let Some(device_text) = self.read_text(DEVICE_INFO) else {
            return Saved::default();
        };
        let device = match device_info(DEVICE_INFO, &device_text) {
            Ok(Some(device)) => device,
            Ok(None) => return Saved::default(),
            Err(error) => {
                log::warn!("Ignoring invalid device info backup: {error}");
                self.remove(DEVICE_INFO);
                return Saved::default();
            }
        };
        let settings = self.read_text(PREV_STATE).and_then(|text| {
            let mut merged = Merged::new();
            let read = match merged.add(PREV_STATE, &text) {
                Ok(()) => Settings::read(&merged, places),
                Err(error) => Err(error.into()),
            };
            read.map(|loaded| loaded.settings)
                .inspect_err(|error| log::warn!("Ignoring invalid device settings backup: {error}"))
                .ok()
        });
        let sum = self.read_text(DEVICE_INFO_SUM);
        Saved {
            device: Some(device),
            settings,
            sum,
            device_text,
        }
    }

    /// Records a reconciled device. After a crash between any two steps the backup is either the old or the new one, or
    /// one that the next start does not trust because its parts do not fit together.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(
        &self,
        device_text: &str,
        sum: &str,
        settings: &Settings,
    ) -> Result<(), file::Error> {
        // Settings first: with the old device they only make the next reconciliation look at modules again, while the
        // new device with old settings could take modules for reconciled that are not.
        self.write(PREV_STATE, settings.to_toml().as_bytes())?;
        self.write(DEVICE_INFO, device_text.as_bytes())?;
        self.write(DEVICE_INFO_SUM, sum.as_bytes())
    }

    /// Forgets the device, so that the next start asks the provisioning service. The settings stay; without a device they
    /// count for nothing.
    pub fn clear(&self) {
        self.remove(DEVICE_INFO);
        self.remove(DEVICE_INFO_SUM);
    }

    /// The store for the modules of a device. Stores of other devices are removed.
    #[must_use]
    pub fn modules(&self, hub: &str, device: &str) -> ModuleStore {
        let name = match (HubName::new(hub), DeviceId::new(device)) {
            (Ok(hub), Ok(device)) => module_directory(hub, device),
            // Nothing of the kind reaches this place: such a device could not be provisioned.
            _ => heapless::String::new(),
        };
        let all = self.home.join(MODULES);
        let directory = all.join(name.as_str());
        if !directory.is_dir()
            && let Err(error) = std::fs::remove_dir_all(&all)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!(
                "Could not remove the backups of another device in {}: {error}",
                all.display()
            );
        }
        if let Err(error) = file::create_directories(&directory, DIRECTORY_MODE) {
            log::warn!("{error}; modules of this device will not be available offline");
        }
        if let Err(error) = file::sweep(&directory) {
            log::warn!("{error}");
        }
        ModuleStore { directory }
    }

    /// The last time seen from the cloud, in seconds since 1970.
    #[must_use]
    pub fn time_seen(&self) -> Option<u64> {
        self.read_text(TIME_SEEN)?.trim().parse().ok()
    }

    /// Notes the time that the cloud has told.
    pub fn note_time(&self, now: u64) {
        if self
            .time_seen()
            .is_some_and(|seen| now < seen.saturating_add(TIME_STEP))
        {
            return;
        }
        if let Err(error) = self.write(TIME_SEEN, format!("{now}\n").as_bytes()) {
            log::warn!("{error}");
        }
    }

    fn read_text(&self, name: &str) -> Option<String> {
        let path = self.home.join(name);
        match file::read(&path, LIMIT) {
            Ok(Some(contents)) => match std::str::from_utf8(&contents.bytes) {
                Ok(text) => Some(text.to_owned()),
                Err(error) => {
                    log::warn!("Ignoring {}: it is not text: {error}", path.display());
                    None
                }
            },
            Ok(None) => None,
            Err(error) => {
                log::warn!("{error}");
                None
            }
        }
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<(), file::Error> {
        write(&self.home.join(name), contents)
    }

    fn remove(&self, name: &str) {
        if let Err(error) = file::remove(&self.home.join(name)) {
            log::warn!("{error}");
        }
    }
}

fn write(path: &Path, contents: &[u8]) -> Result<(), file::Error> {
    file::replace(path, contents, file::Options::new(FILE_MODE))
}

/// Backups of the modules of one device.
#[derive(Clone, Debug)]
pub struct ModuleStore {
    directory: PathBuf,
}

impl ModuleStore {
    /// Backs up a module. Failure is only a warning: the module can be used all the same.
    pub fn write(&self, module: &Module) {
        let Some(path) = self.path(&module.module_id) else {
            log::warn!(
                "Hub identity {:?} cannot be backed up: its name is too long",
                module.module_id
            );
            return;
        };
        let mut buffer = [0; MODULE_LIMIT];
        let text = match provisioning::write_module_backup(&module.borrowed(), &mut buffer) {
            Ok(text) => text,
            Err(error) => {
                log::warn!(
                    "Hub identity {:?} cannot be backed up: {error}",
                    module.module_id
                );
                return;
            }
        };
        // Flash wears: what is there already is not written again.
        if let Ok(Some(old)) = file::read(&path, MODULE_LIMIT)
            && old.bytes.as_slice() == text
        {
            return;
        }
        if let Err(error) = write(&path, text) {
            log::warn!(
                "Hub identity {:?} could not be backed up: {error}",
                module.module_id
            );
        }
    }

    /// A module from its backup; `None` when there is none that can be read.
    #[must_use]
    pub fn read(&self, module: &str) -> Option<Module> {
        read(&self.path(module)?)
    }

    /// Whether there is a backup of this module.
    #[must_use]
    pub fn has(&self, module: &str) -> bool {
        self.path(module).is_some_and(|path| path.is_file())
    }

    /// All modules that have a readable backup, in the directory's order.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn read_all(&self) -> io::Result<Vec<Module>> {
        let mut modules = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && !is_temporary(&entry.file_name()) {
                modules.extend(read(&entry.path()));
            }
        }
        Ok(modules)
    }

    /// Removes the backup of a module.
    pub fn remove(&self, module: &str) {
        if let Some(path) = self.path(module)
            && let Err(error) = file::remove(&path)
        {
            log::warn!("{error}");
        }
    }

    /// Removes backups that are older than `asked`, when the hub was asked for its modules, and not among them.
    pub fn prune(&self, modules: &[Module], asked: SystemTime) {
        // File times may lag behind the clock a little.
        const MARGIN: Duration = Duration::from_secs(1);
        let keep: std::collections::HashSet<_> = modules
            .iter()
            .filter_map(|module| self.path(&module.module_id))
            .collect();
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let old = entry
                .metadata()
                .is_ok_and(|m| m.is_file() && m.modified().is_ok_and(|at| at + MARGIN < asked));
            if old && !keep.contains(&path) && read(&path).is_some() {
                log::info!(
                    "Hub identity backup {} removed: the hub knows no such module",
                    path.display()
                );
                if let Err(error) = file::remove(&path) {
                    log::warn!("{error}");
                }
            }
        }
    }

    /// Removes all backups.
    pub fn clear(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("Could not remove {}: {error}", self.directory.display());
        }
    }

    fn path(&self, module: &str) -> Option<PathBuf> {
        let name = ModuleId::new(module).ok()?.file_name().ok()?;
        Some(self.directory.join(name.as_str()))
    }
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn read(path: &Path) -> Option<Module> {
    let mut contents = match file::read(path, MODULE_LIMIT) {
        Ok(contents) => contents?,
        Err(error) => {
            log::warn!("Skipping a module backup: {error}");
            return None;
        }
    };
    match provisioning::read_module_backup(&mut contents.bytes) {
        Ok(module) => Some(module.into()),
        Err(error) => {
            log::warn!("Skipping the module backup {}: {error}", path.display());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path().join("a/home").to_str().unwrap()).unwrap();
        (dir, state)
    }

    fn settings() -> Settings {
        let mut merged = Merged::new();
        let text = "hostname = \"h\"\nhomedir = \"/x\"\n[provisioning]\nsource = \"none\"\n";
        merged.add("config.toml", text).unwrap();
        Settings::read(&merged, &Places::default())
            .unwrap()
            .settings
    }

    fn module(id: &str) -> Module {
        Module {
            module_id: id.to_owned(),
            managed_by: None,
            device_id: "d".to_owned(),
            generation_id: Some("1".to_owned()),
        }
    }

    const INFO: &str = "hub_name = \"h\"\nlocal_gateway_hostname = \"g\"\ndevice_id = \"d\"\n";

    #[test]
    fn is_58_what_is_saved_is_loaded() {
        let (_dir, state) = state();
        assert!(state.load(&Places::default()).device.is_none());
        state.save(INFO, "sum\n", &settings()).unwrap();
        let saved = state.load(&Places::default());
        let device = saved.device.unwrap();
        assert_eq!(
            (
                &*device.hub_name,
                &*device.local_gateway_hostname,
                &*device.device_id
            ),
            ("h", "g", "d")
        );
        assert_eq!(saved.settings, Some(settings()));
        assert_eq!(
            (saved.sum.as_deref(), &*saved.device_text),
            (Some("sum\n"), INFO)
        );
        state.clear();
        assert!(state.load(&Places::default()).device.is_none());
    }

    #[test]
    fn settings_that_make_no_sense_do_not_spoil_the_device() {
        let (_dir, state) = state();
        state.save(INFO, "", &settings()).unwrap();
        state.write(PREV_STATE, b"nonsense").unwrap();
        let saved = state.load(&Places::default());
        assert!(saved.device.is_some() && saved.settings.is_none());
    }

    #[test]
    fn is_55_backups_of_modules_come_and_go() {
        let (_dir, state) = state();
        let store = state.modules("h", "d");
        assert!(store.read("m").is_none() && store.read_all().unwrap().is_empty());
        store.write(&module("m"));
        assert_eq!(store.read("m"), Some(module("m")));
        // One bad file spoils nothing.
        std::fs::write(store.directory.join("bad"), "nonsense").unwrap();
        assert_eq!(store.read_all().unwrap(), [module("m")]);
        store.remove("m");
        store.remove("m");
        assert!(store.read("m").is_none() && !store.has("m"));
        // A name that no file can have is only a warning.
        store.write(&module(&"x".repeat(300)));
        assert!(store.read_all().unwrap().is_empty());
    }

    #[test]
    fn is_56_only_one_device_has_backups() {
        let (_dir, state) = state();
        let first = state.modules("h", "d");
        first.write(&module("m"));
        assert!(state.modules("h", "d").has("m"), "the same device");
        let second = state.modules("h", "D");
        assert!(!first.has("m") && !second.has("m"));
        assert!(second.directory.is_dir());
    }

    #[test]
    fn lists_of_the_hub_prune_old_backups_only() {
        let (_dir, state) = state();
        let store = state.modules("h", "d");
        store.write(&module("kept"));
        store.write(&module("gone"));
        store.prune(&[module("kept")], SystemTime::now());
        assert!(store.has("gone"), "written while the hub was being asked");
        store.prune(
            &[module("kept")],
            SystemTime::now() + Duration::from_secs(5),
        );
        assert!(store.has("kept") && !store.has("gone"));
    }

    #[test]
    fn the_time_seen_is_written_once_a_day() {
        let (_dir, state) = state();
        assert_eq!(state.time_seen(), None);
        for (now, expected) in [
            (1_000_000, 1_000_000),
            (1_000_001, 1_000_000),
            (1_086_400, 1_086_400),
            (5, 1_086_400),
        ] {
            state.note_time(now);
            assert_eq!(state.time_seen(), Some(expected));
        }
    }
}
