//! Keys in the file system and in PKCS#11 tokens, and parsed keys in memory.
//!
//! A key id leads to *places*: the location that was configured for it ([`Store::preload`]) and nothing else, or else
//! the objects labelled with the id in the token of the base slot, if one is configured, and then a file in `keys/` of
//! the home directory whose name is made from the id. The first place that has the key wins, so keys that were made in
//! files go on working when a token is added. A token that fails is an error and not a reason to look further.
//!
//! A symmetric key is the raw content of its file and a key pair is PEM text; neither is ever taken for the other, nor
//! overwritten by it. In a token, they do not collide. The layout is that of earlier releases, in both directions.
//!
//! All writes are atomic ([`crate::file`]). Keys parsed from files are kept in memory for as long as their file stays
//! the same (device, inode, size, and both times to the nanosecond), so that using one costs a single `fstat`, or several uses
//! together ([`Store::begin_moment`]). They are dropped when this process writes the file, and wiped. Where a token has precedence over the file, it is asked again
//! after a second.
//!
//! All functions may be called from any number of threads. Calls that change a key wait for other calls about that
//! key; calls for different keys never wait for each other, however long one takes.

mod cache;
mod change;
mod error;
mod files;
mod key;
mod moving;
mod report;
mod settings;
#[cfg(test)]
mod tests;
mod turn;
mod used;

use core::sync::atomic::{AtomicBool, Ordering};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aziot_core::uri::LocationError;

use self::cache::{Cache, Parsed, Source, State};
pub use self::error::{Error, MoveError};
use self::files::{FilePlace, Permissions};
pub use self::key::{DerivedKey, Key, KeyPair};
use self::key::{KeyInner, PairInner};
pub use self::report::{Item, KeyReport, Kind, TokenReport};
pub use self::settings::Location;
use self::settings::{Places, Settings, TokenPlace};
use self::turn::{Access, Turns};
use self::used::Used;
use crate::file;
use crate::pkcs11;

/// Length of a generated symmetric key in bytes, whatever its usage.
pub const GENERATED_KEY_LEN: usize = 32;

/// Longest key that is stored or read, in bytes. HMAC takes keys of any length, but one beyond this is a mistake, and a
/// gateway with 64 MB must not read it into memory.
pub const MAX_KEY_LEN: usize = 1024 * 1024;

/// A store of keys.
#[derive(Debug, Default)]
pub struct Store {
    settings: RwLock<Arc<Settings>>,
    /// Held while a setting is changed, which may take as long as a token needs to answer.
    changing: Mutex<()>,
    cache: Cache,
    turns: Turns,
    used: Used,
    permissions: Permissions,
    /// Whether `keys/` has been swept. A caller that never asks for it gets it with the first write.
    swept: AtomicBool,
}

impl Store {
    /// A store without any place for keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys without a location of their own live in `keys/` below this directory. Nothing is checked or made until a
    /// key is written.
    pub fn set_home(&self, home: &Path) {
        let changed: Result<(), core::convert::Infallible> = self.change(|settings| {
            settings.keys_directory = Some(home.join("keys"));
            Ok(())
        });
        let Ok(()) = changed;
        self.swept.store(false, Ordering::Relaxed);
    }

    /// The key with this id lives at the given `file:` or `pkcs11:` URI and nowhere else. Neither the file nor the token
    /// is looked at; while no module is configured, every use of a key in a token is refused.
    ///
    /// # Errors
    ///
    /// A URI that is not one. Nothing is changed then.
    pub fn preload<'u>(&self, id: &str, uri: &'u str) -> Result<(), LocationError<'u>> {
        self.change(|settings| settings.preload(id, uri))
    }

    /// Keys in tokens are reached through the PKCS#11 module in this file, a path as for dlopen(3).
    ///
    /// If a base slot is configured, the module is loaded and the slot looked up at once, without logging in, so that a
    /// service whose token is missing fails when it starts.
    ///
    /// # Errors
    ///
    /// The step at which the module or the token failed. The earlier module stays in use then, and other settings can
    /// be made as before.
    pub fn set_pkcs11_library(&self, path: &str) -> Result<(), Error> {
        self.change(|settings| {
            settings.set_library(Path::new(path));
            connect(settings)
        })
    }

    /// Keys without a location of their own live in the token that this `pkcs11:` URI names, under their ids as labels;
    /// an `object` in it is ignored. As [`Store::set_pkcs11_library`], looks the slot up if a module is configured.
    ///
    /// # Errors
    ///
    /// A URI that is not one, and those of [`Store::set_pkcs11_library`]. The earlier base slot stays in use then.
    pub fn set_pkcs11_base_slot(&self, uri: &str) -> Result<(), Error> {
        self.change(|settings| {
            settings
                .set_base_slot(uri)
                .map_err(|err| Error::Uri(err.to_string()))?;
            connect(settings)
        })
    }

    /// Applies a change to a copy of the settings, which replaces them if it succeeds.
    fn change<E>(&self, change: impl FnOnce(&mut Settings) -> Result<(), E>) -> Result<(), E> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settings = Settings::clone(&self.settings());
        change(&mut settings)?;
        settings.generation = settings.generation.wrapping_add(1);
        let generation = settings.generation;
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
        self.cache.clear(generation);
        Ok(())
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where a key lives, or would be made; `None` if nothing is configured for it. Looks at neither disk nor token: a
    /// key that was made in a file before a token was configured counts as one of the token's.
    #[must_use]
    pub fn location(&self, id: &str) -> Option<Location> {
        self.settings().location(id)
    }

    /// Begins a moment of the calling thread. Of each key that it uses, the thread looks at the file only once until it
    /// begins the next: for a thread that knows that its present tasks have all been there before. A change by this process
    /// is noticed at once all the same.
    pub fn begin_moment(&self) {
        cache::begin_moment();
    }

    /// A key that is in memory and still current, after one `fstat`; never waits for another call, a disk or a token
    /// and, while the id is known, never allocates. `None` means nothing but that [`Store::key`] has to be asked.
    #[must_use]
    pub fn cached_key(&self, id: &str) -> Option<Key> {
        self.cached(id)
    }

    /// As [`Store::cached_key`], for a key pair.
    #[must_use]
    pub fn cached_key_pair(&self, id: &str) -> Option<KeyPair> {
        self.cached(id)
    }

    /// A symmetric key, from memory, from its token or from its file.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and others that are an invalid parameter if there is none; anything else if it cannot be
    /// used.
    pub fn key(&self, id: &str) -> Result<Key, Error> {
        self.load(id)
    }

    /// As [`Store::key`], for a key pair.
    ///
    /// # Errors
    ///
    /// Those of [`Store::key`].
    pub fn key_pair(&self, id: &str) -> Result<KeyPair, Error> {
        self.load(id)
    }

    /// Removes the temporary files that crashed writers left where keys are, and answers how many. A directory of a
    /// preloaded key that may not be listed is passed over.
    ///
    /// # Errors
    ///
    /// A `keys/` directory that cannot be swept.
    pub fn sweep(&self) -> Result<usize, Error> {
        let settings = self.settings();
        let mut elsewhere: Vec<PathBuf> = Vec::new();
        for path in settings.preloaded_files() {
            // The temporary file is beside the file itself, not beside a link to it.
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            if let Some(directory) = path.parent()
                && !elsewhere.iter().any(|known| known == directory)
            {
                elsewhere.push(directory.to_owned());
            }
        }
        let mut removed = 0;
        self.swept.store(true, Ordering::Relaxed);
        for directory in elsewhere {
            match file::sweep(&directory) {
                Ok(n) => removed += n,
                Err(err) => log::debug!("{err}"),
            }
        }
        if let Some(directory) = &settings.keys_directory {
            removed += file::sweep(directory).map_err(Error::File)?;
        }
        if removed > 0 {
            log::info!("removed {removed} temporary file(s) of writers that were interrupted");
        }
        Ok(removed)
    }

    fn sweep_once(&self, directory: &Path) {
        if !self.swept.swap(true, Ordering::Relaxed)
            && let Err(err) = file::sweep(directory)
        {
            log::warn!("{err}");
        }
    }

    fn cached<K: Kept>(&self, id: &str) -> Option<K> {
        let entry = self.cache.find(id)?;
        let key = K::of(&entry.parsed)?;
        match entry.state(&self.cache) {
            State::Current => Some(key),
            State::AskToken => None,
            State::Outdated => {
                self.cache.forget(&entry.path);
                None
            }
        }
    }

    fn load<K: Kept>(&self, id: &str) -> Result<K, Error> {
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        let settings = self.settings();
        let places = settings.places(id)?;
        let _turn = self.turns.take(places.resources(), Access::Shared);
        self.find(id, &places, &settings)?
            .ok_or_else(|| places.not_found())
    }

    /// Looks for a key, memory first; remembers it if it comes out of a file. The caller has the turn of its places.
    fn find<K: Kept>(
        &self,
        id: &str,
        places: &Places,
        settings: &Settings,
    ) -> Result<Option<K>, Error> {
        // Another call may have read it while this one waited.
        if let Some(key) = self.cached(id) {
            return Ok(Some(key));
        }
        let mut asked = None;
        if let Some(place) = &places.token {
            let now = self.cache.now();
            if let Some(key) = K::find_in_token(place).map_err(Error::Token)? {
                if let Some(file) = &places.file {
                    self.cache.forget(&file.path);
                }
                self.used.note(id);
                return Ok(Some(key));
            }
            asked = Some(now);
        }
        match &places.file {
            Some(place) => self.find_in_file(id, place, asked, settings.generation),
            None => Ok(None),
        }
    }

    fn find_in_file<K: Kept>(
        &self,
        id: &str,
        place: &FilePlace,
        asked: Option<u64>,
        generation: u32,
    ) -> Result<Option<K>, Error> {
        // That the token has none of this kind says nothing about the other.
        if let Some(now) = asked
            && let Some(entry) = self.cache.find(id)
            && K::of(&entry.parsed).is_some()
        {
            entry.token_asked(now);
            if let Some(key) = self.cached(id) {
                return Ok(Some(key));
            }
        }
        let before = files::now();
        let Some(contents) = place.read()? else {
            return Ok(None);
        };
        let parsed = K::parse(&place.path, &contents.bytes)?;
        self.permissions.check(&place.path, &contents);
        self.used.note(id);
        let key = K::of(&parsed);
        // A file that changes again at once may not show it. It serves this call, and the next one reads again.
        if contents.identity.is_settled(before) {
            let source = Source {
                id,
                path: &place.path,
                identity: contents.identity,
                file: contents.file,
                asked,
            };
            self.cache
                .remember(&self.cache.entry(source, parsed), generation);
        }
        Ok(key)
    }
}

/// Looks the base slot up, if all that leads to it is configured.
fn connect(settings: &Settings) -> Result<(), Error> {
    match settings.base_token() {
        Some(token) => token.connect().map_err(Error::Token),
        None => Ok(()),
    }
}

/// A kind of key that the store keeps.
trait Kept: Sized {
    /// Looks for it in a token.
    fn find_in_token(place: &TokenPlace) -> Result<Option<Self>, pkcs11::Error>;

    /// Reads it from the content of a file.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, Error>;

    /// The key in what was parsed; `None` for one of the other kind.
    fn of(parsed: &Parsed) -> Option<Self>;
}

impl Kept for Key {
    fn find_in_token(place: &TokenPlace) -> Result<Option<Self>, pkcs11::Error> {
        let found = place.token.secret_key(place.label())?;
        Ok(found.map(|key| Self(KeyInner::Token(key))))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, Error> {
        files::parse_key(path, bytes)
    }

    fn of(parsed: &Parsed) -> Option<Self> {
        match parsed {
            Parsed::Symmetric(key) => Some(Self(KeyInner::File(Arc::clone(key)))),
            Parsed::Pair(_) => None,
        }
    }
}

impl Kept for KeyPair {
    fn find_in_token(place: &TokenPlace) -> Result<Option<Self>, pkcs11::Error> {
        let found = place.token.key_pair(place.label())?;
        Ok(found.map(|pair| Self(PairInner::Token(pair))))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, Error> {
        files::parse_pair(path, bytes)
    }

    fn of(parsed: &Parsed) -> Option<Self> {
        match parsed {
            Parsed::Pair(pair) => Some(Self(PairInner::File(Arc::clone(pair)))),
            Parsed::Symmetric(_) => None,
        }
    }
}
