//! Parsed keys in memory.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::file::{Contents, Identity};
use crate::software::HmacSha256;

/// Independently locked parts, so that threads seldom meet. A lock is held for a search among [`KEYS_PER_SHARD`] ids.
const SHARDS: usize = 8;

/// Keys in one shard; the least recently used one makes room. 128 keys in all take less than 64 KiB.
const KEYS_PER_SHARD: usize = 16;

/// A parsed key and what it was parsed from.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Box<str>,
    pub(super) path: PathBuf,
    identity: Identity,
    /// Whether the file was old enough when it was read that any later change shows in its identity. If not, the key
    /// serves the call that read it, and the next call reads again.
    pub(super) settled: bool,
    /// The file, held open to look at its state without following the path again.
    file: File,
    /// When the path was last followed, in milliseconds after the cache was made.
    followed: AtomicU64,
    pub(super) key: HmacSha256,
}

impl Entry {
    /// Whether the file is still the one, in the state, that the key was parsed from.
    ///
    /// The open file tells at once when it is written, replaced or removed. That its path leads elsewhere, because a
    /// directory or a symbolic link on the way was exchanged, is noticed within [`FOLLOW_AGAIN`].
    pub(super) fn is_current(&self, cache: &Cache) -> bool {
        let now = cache.now();
        let followed = self.followed.load(Ordering::Relaxed);
        let identity = if now.saturating_sub(followed) < FOLLOW_AGAIN {
            Identity::of_open(&self.file)
        } else {
            self.followed.store(now, Ordering::Relaxed);
            Identity::at(&self.path)
        };
        identity.is_ok_and(|identity| identity == self.identity)
    }
}

/// How long a path is taken to lead to the same file, in milliseconds.
const FOLLOW_AGAIN: u64 = 1000;

/// The most recently used keys, by id.
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    since: Instant,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            since: Instant::now(),
        }
    }
}

#[derive(Default)]
struct Shard {
    generation: u32,
    /// Most recently used first.
    entries: Vec<Arc<Entry>>,
}

impl Cache {
    /// An entry for a key that has just been read from its file.
    pub(super) fn entry(
        &self,
        id: &str,
        path: &Path,
        contents: Contents,
        settled: bool,
    ) -> Arc<Entry> {
        Arc::new(Entry {
            id: id.into(),
            path: path.to_owned(),
            identity: contents.identity,
            settled,
            file: contents.file,
            followed: AtomicU64::new(self.now()),
            key: HmacSha256::new(&contents.bytes),
        })
    }

    /// Milliseconds since the cache was made.
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The entry for an id, which becomes the most recently used one.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Entry>> {
        let mut shard = self.shard(id)?;
        let at = shard.entries.iter().position(|entry| *entry.id == *id)?;
        shard.entries.get_mut(..=at)?.rotate_right(1);
        shard.entries.first().cloned()
    }

    /// Adds an entry, or replaces the one with its id, unless the settings have changed since it was looked up.
    pub(super) fn remember(&self, entry: &Arc<Entry>, generation: u32) {
        let Some(mut shard) = self.shard(&entry.id) else {
            return;
        };
        if shard.generation == generation {
            shard.entries.retain(|old| old.id != entry.id);
            shard.entries.truncate(KEYS_PER_SHARD - 1);
            shard.entries.insert(0, Arc::clone(entry));
        }
    }

    /// Drops what was parsed from a file, under whatever id.
    pub(super) fn forget(&self, path: &Path) {
        for shard in &self.shards {
            lock(shard).entries.retain(|entry| entry.path != path);
        }
    }

    /// Drops everything; only entries of the new generation are taken from now on.
    pub(super) fn clear(&self, generation: u32) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.generation = generation;
            shard.entries.clear();
        }
    }

    fn shard(&self, id: &str) -> Option<MutexGuard<'_, Shard>> {
        // FNV-1a. A caller who finds colliding ids only makes keys be read more often.
        let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        self.shards.get((hash >> 16) as usize % SHARDS).map(lock)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).entries.len())
            .sum()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache(..)")
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A shard is consistent after every statement, so a panic elsewhere does not make it unusable.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
