//! Parsed keys in memory.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::key::SymmetricKey;
use crate::file::Identity;
use crate::openssl;

/// Independently locked parts, so that threads seldom meet. A lock is held for a search among [`KEYS_PER_SHARD`] ids.
const SHARDS: usize = 8;

/// Keys in one shard; the least recently used one makes room. 128 symmetric keys take less than 64 KiB, as many key
/// pairs some 256 KiB.
const KEYS_PER_SHARD: usize = 16;

/// How long what was asked elsewhere counts, in milliseconds: where a path leads, and that a token which has
/// precedence does not have the key.
const ASK_AGAIN: u64 = 1000;

/// Begins a moment of this thread, which lasts until the next one begins: what the thread finds usable in it is not looked
/// at again in it. Threads that never begin one look every time.
pub(super) fn begin_moment() {
    /// Moments are never the same, so that what one thread has looked at does not count for another.
    static LAST: AtomicU64 = AtomicU64::new(NO_MOMENT);
    MOMENT.set(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
}

const NO_MOMENT: u64 = 0;

thread_local! {
    static MOMENT: Cell<u64> = const { Cell::new(NO_MOMENT) };
}

/// What a file was parsed to.
#[derive(Clone)]
pub(super) enum Parsed {
    Symmetric(Arc<SymmetricKey>),
    Pair(Arc<openssl::KeyPair>),
}

/// A parsed key and what it was parsed from.
pub(super) struct Entry {
    pub(super) id: Box<str>,
    pub(super) path: PathBuf,
    pub(super) parsed: Parsed,
    identity: Identity,
    /// The file, held open to look at its state without following the path again.
    file: File,
    /// When the path was last followed, in milliseconds after the cache was made.
    followed: AtomicU64,
    /// The moment in which it was last found usable.
    looked: AtomicU64,
    /// When the token that has precedence last had no such key; `None` if there is no such token.
    asked: Option<AtomicU64>,
}

/// Whether an entry can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// It can.
    Current,
    /// If the token still has no such key.
    AskToken,
    /// The file has to be read again.
    Outdated,
}

impl Entry {
    /// Whether the key can be used as it is.
    ///
    /// The open file tells at once when it is written, replaced or removed. That its path leads elsewhere, because a
    /// directory or a symbolic link on the way was exchanged, and that somebody else has put a key into the token, is
    /// noticed within [`ASK_AGAIN`]. What was found usable in this moment is taken to be.
    pub(super) fn state(&self, cache: &Cache) -> State {
        let moment = MOMENT.get();
        if moment != NO_MOMENT && self.looked.load(Ordering::Relaxed) == moment {
            return State::Current;
        }
        let now = cache.now();
        let followed = self.followed.load(Ordering::Relaxed);
        let identity = if now.saturating_sub(followed) < ASK_AGAIN {
            Identity::of_open(&self.file)
        } else {
            self.followed.store(now, Ordering::Relaxed);
            Identity::at(&self.path)
        };
        if !identity.is_ok_and(|identity| identity == self.identity) {
            return State::Outdated;
        }
        match &self.asked {
            Some(asked) if now.saturating_sub(asked.load(Ordering::Relaxed)) >= ASK_AGAIN => {
                State::AskToken
            }
            _ => {
                self.looked.store(moment, Ordering::Relaxed);
                State::Current
            }
        }
    }

    /// Takes note that the token had no such key at a time told by [`Cache::now`].
    pub(super) fn token_asked(&self, now: u64) {
        if let Some(asked) = &self.asked {
            asked.fetch_max(now, Ordering::Relaxed);
        }
    }
}

/// What a new entry is made of.
pub(super) struct Source<'a> {
    pub(super) id: &'a str,
    pub(super) path: &'a Path,
    pub(super) identity: Identity,
    pub(super) file: File,
    /// See [`Entry::token_asked`].
    pub(super) asked: Option<u64>,
}

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
    pub(super) fn entry(&self, source: Source<'_>, parsed: Parsed) -> Arc<Entry> {
        Arc::new(Entry {
            id: source.id.into(),
            path: source.path.to_owned(),
            parsed,
            identity: source.identity,
            file: source.file,
            followed: AtomicU64::new(self.now()),
            looked: AtomicU64::new(NO_MOMENT),
            asked: source.asked.map(AtomicU64::new),
        })
    }

    /// Milliseconds since the cache was made.
    pub(super) fn now(&self) -> u64 {
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
