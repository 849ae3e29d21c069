//! Symmetric keys in the file system, and parsed keys in memory.
//!
//! A key id leads to one file: the location that was configured for it ([`Store::preload`]), or else a file in
//! `keys/` of the home directory ([`Store::set_home`]) whose name is made from the id. A symmetric key is the raw
//! content of its file; a file that holds PEM is a key pair and is never taken for a symmetric key, nor overwritten by
//! one. The layout is that of earlier releases, in both directions.
//!
//! All writes are atomic ([`crate::file`]). Parsed keys are kept in memory for as long as their file stays the same
//! (device, inode, size, and both times to the nanosecond), so that using one costs a single `fstat`. They are dropped
//! when this process writes the file, and wiped.
//!
//! All functions may be called from any number of threads. Calls for one file that have to read or write it wait for
//! each other; calls for different files never do.

mod cache;
mod error;
#[cfg(test)]
mod tests;
mod turn;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aziot_core::id;
use aziot_core::uri::{self, LocationError};
use zeroize::Zeroizing;

use self::cache::{Cache, Entry};
pub use self::error::Error;
use self::turn::Turns;
use crate::file::{self, Contents, Options};
use crate::software::HmacSha256;

/// Length of a generated key in bytes, whatever its usage.
pub const GENERATED_KEY_LEN: usize = 32;

/// Longest symmetric key that is stored or read, in bytes. HMAC takes keys of any length, but one beyond this is a
/// mistake, and a gateway with 64 MB must not read it into memory.
pub const MAX_KEY_LEN: usize = 1024 * 1024;

/// A store of keys.
#[derive(Debug, Default)]
pub struct Store {
    settings: RwLock<Arc<Settings>>,
    cache: Cache,
    turns: Turns,
    /// Whether `keys/` has been swept. A caller that never asks for it gets it with the first write.
    swept: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    keys_directory: Option<PathBuf>,
    preloaded: BTreeMap<String, Preloaded>,
    /// Counts changes, so that a key that was looked up under older settings is not remembered under these.
    generation: u32,
}

impl Store {
    /// A store without any location.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys without a location of their own live in `keys/` below this directory. Nothing is checked or made until a
    /// key is written.
    pub fn set_home(&self, home: &Path) {
        self.change(|settings| settings.keys_directory = Some(home.join("keys")));
        self.swept.store(false, Ordering::Relaxed);
    }

    /// The key with this id lives at the given `file:` or `pkcs11:` URI and nowhere else. This build takes `pkcs11:`
    /// locations, so that a configuration that has some can be loaded, but refuses every use of such a key.
    ///
    /// # Errors
    ///
    /// A URI that is not one. Nothing is changed then.
    pub fn preload<'u>(&self, id: &str, uri: &'u str) -> Result<(), LocationError<'u>> {
        // Decoded text takes at most one byte more than the URI.
        let mut decoded = vec![0; uri.len() + 1];
        let preloaded = match uri::Location::parse(uri, &mut decoded)? {
            uri::Location::File(path) => Preloaded::File(OsStr::from_bytes(path).into()),
            uri::Location::Pkcs11(_) => Preloaded::Pkcs11,
        };
        self.change(|settings| {
            settings.preloaded.insert(id.to_owned(), preloaded);
        });
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let settings = Arc::make_mut(&mut current);
        change(settings);
        settings.generation = settings.generation.wrapping_add(1);
        self.cache.clear(settings.generation);
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where a key lives, or would be made; `None` if nothing is configured for it. Does not look at the disk.
    #[must_use]
    pub fn location(&self, id: &str) -> Option<Location> {
        let settings = self.settings();
        match settings.preloaded.get(id) {
            Some(Preloaded::File(_)) => Some(Location::File),
            Some(Preloaded::Pkcs11) => Some(Location::Pkcs11),
            None => settings.keys_directory.as_ref().map(|_| Location::File),
        }
    }

    /// A key that is in memory and still current, after one `fstat`; never waits for another call and, while the id is
    /// known, never allocates. `None` means nothing but that [`Store::key`] has to be asked.
    #[must_use]
    pub fn cached_key(&self, id: &str) -> Option<Key> {
        let entry = self.cache.find(id)?;
        if entry.settled && entry.is_current(&self.cache) {
            return Some(Key(entry));
        }
        if entry.settled {
            self.cache.forget(&entry.path);
        }
        None
    }

    /// A key, from memory or from its file.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] and [`Error::NoLocation`] if there is none; anything else if it cannot be used.
    pub fn key(&self, id: &str) -> Result<Key, Error> {
        self.with_key_file(id, |place, settings| {
            self.read_key(id, place, settings)?
                .ok_or_else(|| place.not_found())
        })
    }

    /// Makes a random key of [`GENERATED_KEY_LEN`] bytes unless there is a key.
    ///
    /// An existing file is never overwritten unless it is empty.
    ///
    /// # Errors
    ///
    /// The file holds something else than a symmetric key, cannot be read, or cannot be written.
    pub fn create_key(&self, id: &str) -> Result<Key, Error> {
        self.with_key_file(id, |place, settings| {
            match self.read_key(id, place, settings) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) | Err(Error::Empty { .. }) => {}
                Err(err) => return Err(err),
            }
            let mut bytes = Zeroizing::new([0; GENERATED_KEY_LEN]);
            fill_with_random(bytes.as_mut_slice()).map_err(Error::Random)?;
            self.write_key(id, place, settings, bytes.as_slice())
        })
    }

    /// Stores a key, replacing an existing one.
    ///
    /// # Errors
    ///
    /// No bytes, too many, or PEM text, before anything is touched; a file that holds a key pair, cannot be read, or
    /// cannot be written. The old key is intact then.
    pub fn import_key(&self, id: &str, bytes: &[u8]) -> Result<Key, Error> {
        if bytes.is_empty() {
            return Err(Error::EmptyImport);
        }
        if bytes.len() > MAX_KEY_LEN {
            return Err(Error::TooLong);
        }
        if is_pem(bytes) {
            return Err(Error::PemImport);
        }
        let settings = self.settings();
        let place = settings.locate(id)?;
        let _turn = self.turns.take(&place.path);
        match place.read()? {
            Some(contents) if is_pem(&contents.bytes) => Err(Error::KeyPair { path: place.path }),
            _ => self.write_key(id, &place, &settings, bytes),
        }
    }

    /// Deletes a key; answers whether there was one. The file of a preloaded key is deleted too. Key pairs and
    /// symmetric keys share their names, so this deletes either.
    ///
    /// # Errors
    ///
    /// [`Error::NoLocation`], or a file that cannot be removed.
    pub fn delete(&self, id: &str) -> Result<bool, Error> {
        let place = self.settings().locate(id)?;
        let _turn = self.turns.take(&place.path);
        let removed = file::remove(&place.path);
        self.cache.forget(&place.path);
        removed.map_err(Error::File)
    }

    /// Gives the key `from` the id `to`, replacing any key that has it. Moving a key to itself changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoLocation`], or a file that cannot be renamed, a missing one included. Nothing is changed then.
    pub fn move_key(&self, from: &str, to: &str) -> Result<(), Error> {
        let settings = self.settings();
        let from = settings.locate(from)?;
        let to = settings.locate(to)?;
        let _turns = self.turns.take_both(&from.path, &to.path);
        if from.path.exists() {
            to.make_directory()?;
        }
        let moved = file::rename(&from.path, &to.path);
        self.cache.forget(&from.path);
        self.cache.forget(&to.path);
        moved.map_err(Error::File)
    }

    /// Whether a file exists for a key or key pair with this id.
    ///
    /// # Errors
    ///
    /// [`Error::NoLocation`], or a file system that cannot tell.
    pub fn exists(&self, id: &str) -> Result<bool, Error> {
        let place = self.settings().locate(id)?;
        place.path.try_exists().map_err(|err| Error::Stat {
            path: place.path,
            err,
        })
    }

    /// Removes the temporary files that crashed writers left where keys are, and answers how many. A directory of a
    /// preloaded key that may not be listed is passed over.
    ///
    /// # Errors
    ///
    /// A `keys/` directory that cannot be swept.
    pub fn sweep(&self) -> Result<usize, Error> {
        let settings = self.settings();
        let mut elsewhere = BTreeSet::new();
        for preloaded in settings.preloaded.values() {
            if let Preloaded::File(path) = preloaded {
                // The temporary file is beside the file itself, not beside a link to it.
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                elsewhere.extend(path.parent().map(Path::to_owned));
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

    /// Answers from memory, or does `otherwise` in the turn of the key's file.
    fn with_key_file(
        &self,
        id: &str,
        otherwise: impl FnOnce(&Place, &Settings) -> Result<Key, Error>,
    ) -> Result<Key, Error> {
        if let Some(key) = self.cached_key(id) {
            return Ok(key);
        }
        let settings = self.settings();
        let place = settings.locate(id)?;
        let _turn = self.turns.take(&place.path);
        // Another call may have read it while this one waited.
        match self.cached_key(id) {
            Some(key) => Ok(key),
            None => otherwise(&place, &settings),
        }
    }

    /// Reads a key and remembers it. The caller has the file's turn.
    fn read_key(&self, id: &str, place: &Place, settings: &Settings) -> Result<Option<Key>, Error> {
        let Some(contents) = place.read()? else {
            return Ok(None);
        };
        if contents.bytes.is_empty() {
            return Err(Error::Empty {
                path: place.path.clone(),
            });
        }
        if is_pem(&contents.bytes) {
            return Err(Error::KeyPair {
                path: place.path.clone(),
            });
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let settled = contents.identity.is_settled(now);
        let entry = self.cache.entry(id, &place.path, contents, settled);
        self.cache.remember(&entry, settings.generation);
        Ok(Some(Key(entry)))
    }

    /// Writes a key and reads it back. The caller has the file's turn.
    fn write_key(
        &self,
        id: &str,
        place: &Place,
        settings: &Settings,
        bytes: &[u8],
    ) -> Result<Key, Error> {
        place.make_directory()?;
        if let Some(directory) = &place.keys_directory
            && !self.swept.swap(true, Ordering::Relaxed)
            && let Err(err) = file::sweep(directory)
        {
            log::warn!("{err}");
        }
        // What the operator put somewhere keeps its owner and mode, and stays behind its link; a directory that does
        // not let a file be replaced is somebody else's.
        let options = Options {
            keep_existing: true,
            follow_links: true,
            in_place: place.keys_directory.is_none(),
            ..Options::new(0o600)
        };
        let written = file::replace(&place.path, bytes, options);
        self.cache.forget(&place.path);
        written.map_err(Error::File)?;
        self.read_key(id, place, settings)?
            .ok_or_else(|| Error::Vanished {
                path: place.path.clone(),
            })
    }
}

/// A key in memory, ready for use. It stays usable when the store forgets it, and is wiped when the last holder drops
/// it.
#[derive(Clone, Debug)]
pub struct Key(Arc<Entry>);

impl Key {
    /// The key for message authentication and derivation.
    #[must_use]
    pub fn mac(&self) -> &HmacSha256 {
        &self.0.key
    }
}

/// The file that an id stands for.
struct Place {
    path: PathBuf,
    /// The directory to make before writing; `None` for a preloaded key, whose directory is the operator's.
    keys_directory: Option<PathBuf>,
}

/// Where a key lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Location {
    /// In a file.
    File,
    /// In a PKCS#11 token.
    Pkcs11,
}

/// The location of its own that a key has.
#[derive(Clone, Debug)]
enum Preloaded {
    File(PathBuf),
    Pkcs11,
}

impl Settings {
    fn locate(&self, id: &str) -> Result<Place, Error> {
        match self.preloaded.get(id) {
            Some(Preloaded::File(path)) => Ok(Place {
                path: path.clone(),
                keys_directory: None,
            }),
            Some(Preloaded::Pkcs11) => Err(Error::Pkcs11Unsupported),
            None => {
                let directory = self.keys_directory.as_ref().ok_or(Error::NoLocation)?;
                let name = id::file_name(id, ".key").map_err(Error::NameTooLong)?;
                Ok(Place {
                    path: directory.join(name.as_str()),
                    keys_directory: Some(directory.clone()),
                })
            }
        }
    }
}

impl Place {
    fn read(&self) -> Result<Option<Contents>, Error> {
        file::read(&self.path, MAX_KEY_LEN).map_err(Error::File)
    }

    fn make_directory(&self) -> Result<(), Error> {
        match &self.keys_directory {
            Some(directory) => file::create_directories(directory, 0o700).map_err(Error::File),
            None => Ok(()),
        }
    }

    fn not_found(&self) -> Error {
        Error::NotFound {
            path: self.path.clone(),
        }
    }
}

/// Whether bytes are PEM text (RFC 7468), possibly after other text: a key pair or a certificate, not a symmetric key.
fn is_pem(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
    lines.any(|line| line.trim_ascii_start().starts_with(BEGIN))
}

/// Fills a buffer from the kernel's generator, waiting until that has been seeded after boot.
#[allow(unsafe_code, reason = "the standard library has no random numbers")]
fn fill_with_random(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        // SAFETY: the pointer and length are those of a live, writable buffer.
        let filled = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(filled) {
            Ok(filled) => buffer = buffer.get_mut(filled..).unwrap_or_default(),
            Err(_) => match io::Error::last_os_error() {
                err if err.kind() == io::ErrorKind::Interrupted => {}
                err => return Err(err),
            },
        }
    }
    Ok(())
}
