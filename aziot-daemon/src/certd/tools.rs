//! What jobs work with: the Keys Service, the store, the locks, the limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aziot_core::config::certd::Settings;

use super::store::Store;
use crate::client::{Deadlines, KeysClient, Patience};
use crate::configuration::{NoKeysSocket, keys_socket};
use crate::locks::Locks;
use crate::timing::Timing;

/// Everything that a job needs and that lives as long as the process.
#[derive(Debug)]
pub struct Tools {
    /// The Keys Service. Nothing is tried again: of what is asked here, not everything does the same twice.
    pub keys: KeysClient,
    /// The socket of the Keys Service, for keys that OpenSSL uses.
    pub keys_socket: PathBuf,
    /// The files.
    pub store: Store,
    /// Ids of certificates being written. Never held during an exchange with another service, but for moving a key beside
    /// its certificate.
    pub locks: Arc<Locks>,
    /// Time limits.
    pub timing: Timing,
}

impl Tools {
    /// Tools for these settings, which stay in force until the process ends. To be called before there are threads: the
    /// umask of a process can only be read by changing it for a moment.
    ///
    /// # Errors
    /// [`NoKeysSocket`] when the Keys Service is not at a socket file.
    pub fn new(settings: &Settings, timing: Timing) -> Result<Self, NoKeysSocket> {
        let keys_socket = keys_socket(&settings.keyd_endpoint)?;
        Ok(Self {
            keys: KeysClient::with(&keys_socket, deadlines(&timing), Patience::default()),
            keys_socket,
            store: Store::new(&settings.homedir_path),
            locks: Arc::new(Locks::default()),
            timing,
        })
    }
}

/// Key pairs in tokens answer late, and may take minutes to be generated.
fn deadlines(timing: &Timing) -> Deadlines {
    const CONNECT: Duration = Duration::from_secs(5);
    Deadlines {
        connect: CONNECT.min(timing.sibling),
        silence: timing.sibling,
        whole: timing.sibling.saturating_mul(2),
        generation: timing.sibling.saturating_mul(4),
    }
}
