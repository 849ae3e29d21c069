//! What jobs work with: the clients, the state files, the locks, the limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aziot_core::api::keys::Usage;
use aziot_core::config::identityd::Settings;
use aziot_core::hub::{self, KEY_SIZE};
use aziot_core::id::ModuleId;
use aziot_core::provisioning::{KeySlot, derivation_data};
use zeroize::Zeroizing;

use super::clock;
use super::error::{Class, Error};
use super::hub::{KeyRing, ModuleKeys};
use super::settings::{Unusable, keys_socket};
use super::state::State;
use crate::client::{Deadlines, KeyHandle, KeysClient, Patience, TlsClient};
use crate::locks::Locks;
use crate::timing::Timing;

/// Room for derivation data: a module name, a generation id and the rest.
const DERIVATION: usize = 1024;

/// Everything that a job needs and that lives as long as the process.
#[derive(Debug)]
pub struct Tools {
    /// The Keys Service.
    pub keys: KeysClient,
    /// The cloud.
    pub tls: TlsClient,
    /// The state files.
    pub state: State,
    /// Modules being written.
    pub locks: Arc<Locks>,
    /// Time limits.
    pub timing: Timing,
    /// The last time seen from the cloud, 0 for never.
    seen: AtomicU64,
}

impl Tools {
    /// Tools for these settings, which stay in force until the process ends.
    ///
    /// # Errors
    /// [`Unusable`] when the Keys Service is not at a socket file.
    pub fn new(settings: &Settings, state: State, timing: Timing) -> Result<Self, Unusable> {
        let patience = Patience {
            retries: 1,
            pause: timing.retry_pause,
        };
        let deadlines = Deadlines::all(timing.sibling);
        let keys = KeysClient::with(keys_socket(settings)?, deadlines, patience);
        let seen = AtomicU64::new(state.time_seen().unwrap_or(0));
        Ok(Self {
            keys,
            tls: TlsClient::new(),
            state,
            locks: Arc::new(Locks::default()),
            timing,
            seen,
        })
    }

    /// Whether the clock is good enough to sign by, now.
    #[must_use]
    pub fn clock_is_plausible(&self) -> bool {
        clock::is_plausible(clock::now(), self.time_seen())
    }

    /// The earliest time that is plausible.
    #[must_use]
    pub fn earliest_time(&self) -> u64 {
        clock::earliest(self.time_seen())
    }

    fn time_seen(&self) -> Option<u64> {
        Some(self.seen.load(Ordering::Relaxed)).filter(|seen| *seen > 0)
    }

    /// Takes in the time that a peer in the cloud has told, if it is close to ours.
    pub fn note_time(&self, told: u64) {
        const CLOSE: u64 = 3600;
        if clock::now().abs_diff(told) <= CLOSE {
            self.seen.fetch_max(told, Ordering::Relaxed);
        }
    }

    /// Writes the last time seen to disk. For jobs.
    pub fn save_time(&self) {
        if let Some(seen) = self.time_seen() {
            self.state.note_time(seen);
        }
    }
}

impl Tools {
    fn master(&self) -> Result<KeyHandle, Error> {
        let id = aziot_core::id::MASTER_KEY;
        // Whatever is the matter with it, making it if it is not there tells.
        self.keys
            .load_key(id)
            .or_else(|_| self.keys.create_key(id, Usage::DERIVE_SIGN))
            .map_err(|error| keys_failed("the master key of module identities", &error))
    }

    fn derive(
        &self,
        master: &KeyHandle,
        module: &str,
        generation: &str,
        slot: KeySlot,
    ) -> Result<KeyHandle, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::because(Class::Internal, error);
        let module = ModuleId::new(module).map_err(|error| internal(&error))?;
        let mut data = [0; DERIVATION];
        let data = derivation_data(module, generation, slot, &mut data)
            .map_err(|error| internal(&error))?;
        self.keys
            .create_derived_key(master, data)
            .map_err(|error| keys_failed("a module key", &error))
    }
}

fn keys_failed(what: &str, error: &crate::client::KeysError) -> Error {
    Error::because(
        Class::Internal,
        format_args!("the Keys Service did not give {what}"),
    )
    .caused_by(error)
}

impl KeyRing for Tools {
    fn handle(&self, module: &str, generation: &str) -> Result<Zeroizing<String>, Error> {
        let master = self.master()?;
        self.derive(&master, module, generation, KeySlot::Primary)
            .map(KeyHandle::into_text)
    }

    fn keys(&self, module: &str, generation: &str) -> Result<ModuleKeys, Error> {
        let master = self.master()?;
        let handle = self.derive(&master, module, generation, KeySlot::Primary)?;
        let second = self.derive(&master, module, generation, KeySlot::Secondary)?;
        let export = |handle: &KeyHandle, into: &mut [u8; KEY_SIZE]| {
            let key = self
                .keys
                .export_derived_key(handle)
                .map_err(|error| keys_failed("a module key", &error))?;
            if key.len() != KEY_SIZE {
                let text = format!(
                    "the Keys Service gave a module key of {} bytes, not {KEY_SIZE}",
                    key.len()
                );
                return Err(Error::because(Class::Internal, text));
            }
            into.copy_from_slice(&key);
            Ok(())
        };
        let mut keys = hub::ModuleKeys {
            primary: [0; KEY_SIZE],
            secondary: [0; KEY_SIZE],
        };
        export(&handle, &mut keys.primary)?;
        export(&second, &mut keys.secondary)?;
        Ok(ModuleKeys {
            handle: handle.into_text(),
            keys,
        })
    }
}
