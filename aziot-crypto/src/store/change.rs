//! Making, importing and deleting keys.

use std::io;

use zeroize::Zeroizing;

use super::error::Error;
use super::files::{self, Content, FilePlace};
use super::key::{Key, KeyInner, KeyPair, PairInner};
use super::settings::{Places, Settings, TokenPlace};
use super::turn::Access;
use super::{GENERATED_KEY_LEN, Kept, MAX_KEY_LEN, Store};
use crate::key_pair::Algorithm;
use crate::{openssl, pkcs11};

impl Store {
    /// Makes a random symmetric key of [`GENERATED_KEY_LEN`] bytes unless there is a key.
    ///
    /// In a token it is made for its usage (a mask of the ABI); a file does not know what its key is for. If the token
    /// cannot make such keys, the key is made in a file instead, with a warning in the log. A file that is not empty is
    /// never overwritten.
    ///
    /// # Errors
    ///
    /// The file holds a key pair, cannot be read, or cannot be written; the token failed, or refused the usage.
    pub fn create_key(&self, id: &str, usage: u32) -> Result<Key, Error> {
        self.find_or_make(id, |places, settings| {
            if let Some(place) = &places.token {
                match place.token.generate_secret(place.label(), usage) {
                    Ok(key) => return Ok(self.in_token(id, places, Key(KeyInner::Token(key)))),
                    Err(err) if err.is_unsupported() => self.fall_back(id, places, err)?,
                    Err(err) => return Err(Error::Token(err)),
                }
            }
            let place = places.file.as_ref().ok_or(Error::NoLocation)?;
            let mut bytes = Zeroizing::new([0; GENERATED_KEY_LEN]);
            fill_with_random(bytes.as_mut_slice()).map_err(Error::Random)?;
            self.write_new(id, place, places, settings, bytes.as_slice())
        })
    }

    /// Stores a symmetric key, replacing an existing one; otherwise as [`Store::create_key`].
    ///
    /// # Errors
    ///
    /// No bytes, too many, or PEM text, before anything is touched; a file that holds a key pair, cannot be read, or
    /// cannot be written; the token failed, or refused the usage. The old key is intact then.
    pub fn import_key(&self, id: &str, bytes: &[u8], usage: u32) -> Result<Key, Error> {
        if bytes.is_empty() {
            return Err(Error::EmptyImport);
        }
        if bytes.len() > MAX_KEY_LEN {
            return Err(Error::TooLong);
        }
        if files::is_pem(bytes) {
            return Err(Error::PemImport);
        }
        let settings = self.settings();
        let places = settings.places(id)?;
        let _turn = self.turns.take(places.resources(), Access::Exclusive);
        let mut outdated = None;
        if let Some(place) = &places.token {
            match place.token.import_secret(place.label(), bytes, usage) {
                Ok(key) => return Ok(self.in_token(id, &places, Key(KeyInner::Token(key)))),
                Err(err) if err.is_refused_import() => self.fall_back(id, &places, err)?,
                Err(err) => return Err(Error::Token(err)),
            }
            outdated = Some(place);
        }
        let place = places.file.as_ref().ok_or(Error::NoLocation)?;
        if outdated.is_none() {
            refuse_pair(place)?;
        }
        self.write_file(place, bytes, false)?;
        let key = self.read_back(id, place, &places, &settings)?;
        if let Some(place) = outdated {
            // A key that the token still has would win over the new one. It goes last, so that there is always one.
            place
                .token
                .delete_secret(place.fixed_label()?)
                .map_err(Error::Token)?;
        }
        Ok(key)
    }

    /// Makes a key pair unless there is one.
    ///
    /// `preferred` lists algorithms as [`Algorithm::preferred`] describes. A file gets a key for the first of them; in
    /// a token each is tried in turn. A key pair that belongs into a token is never made in a file. A file that is not
    /// empty is never overwritten.
    ///
    /// # Errors
    ///
    /// No known algorithm, whether or not there is a key pair; the file holds something else than a usable key pair,
    /// cannot be read, or cannot be written; the token failed, or generated nothing.
    pub fn create_key_pair(&self, id: &str, preferred: Option<&str>) -> Result<KeyPair, Error> {
        let first = Algorithm::preferred(preferred)
            .next()
            .ok_or(Error::NoAlgorithm)?;
        self.find_or_make(id, |places, settings| {
            if let Some(place) = &places.token {
                let pair = generate_in_token(id, place, Algorithm::preferred(preferred))?;
                return Ok(self.in_token(id, places, KeyPair(PairInner::Token(pair))));
            }
            let place = places.file.as_ref().ok_or(Error::NoLocation)?;
            let pair = openssl::KeyPair::generate(first).map_err(Error::Crypto)?;
            let pem = pair.to_pem().map_err(Error::Crypto)?;
            self.write_new(id, place, places, settings, &pem)
        })
    }

    /// Deletes a symmetric key wherever it is; answers whether there was one. The file of a preloaded key is deleted
    /// too.
    ///
    /// In files, key pairs and symmetric keys share their names, so this deletes either. Only where the key belongs into
    /// a token is a file of the other kind another key, which stays.
    ///
    /// # Errors
    ///
    /// Nowhere to look for it; a location in a token without object; a file or an object that cannot be removed.
    pub fn delete_key(&self, id: &str) -> Result<bool, Error> {
        self.delete(id, Content::Symmetric, |place| {
            place
                .token
                .delete_secret(place.fixed_label()?)
                .map_err(Error::Token)
        })
    }

    /// As [`Store::delete_key`], for a key pair.
    ///
    /// # Errors
    ///
    /// Those of [`Store::delete_key`].
    pub fn delete_key_pair(&self, id: &str) -> Result<bool, Error> {
        self.delete(id, Content::Pair, |place| {
            place
                .token
                .delete_key_pair(place.fixed_label()?)
                .map_err(Error::Token)
        })
    }

    /// Answers a key that there is, or makes one in its turn.
    fn find_or_make<K: Kept>(
        &self,
        id: &str,
        make: impl FnOnce(&Places, &Settings) -> Result<K, Error>,
    ) -> Result<K, Error> {
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        let settings = self.settings();
        let places = settings.places(id)?;
        if places.token.is_some() {
            // Keys in tokens are never in memory, and callers who only make sure that there is one need not queue up.
            let _turn = self.turns.take(places.resources(), Access::Shared);
            if let Some(key) = self.existing(id, &places, &settings)? {
                return Ok(key);
            }
        }
        let _turn = self.turns.take(places.resources(), Access::Exclusive);
        match self.existing(id, &places, &settings)? {
            Some(key) => Ok(key),
            None => make(&places, &settings),
        }
    }

    /// The key that need not be made. An empty file counts as none, and beside a token a file of the other kind too.
    fn existing<K: Kept>(
        &self,
        id: &str,
        places: &Places,
        settings: &Settings,
    ) -> Result<Option<K>, Error> {
        match self.find(id, places, settings) {
            Err(Error::Empty { .. }) => Ok(None),
            Err(err) if places.token.is_some() && err.is_other_kind() => Ok(None),
            other => other,
        }
    }

    /// Takes note of a key that has just been made in a token.
    fn in_token<K>(&self, id: &str, places: &Places, key: K) -> K {
        if let Some(file) = &places.file {
            self.cache.forget(&file.path);
        }
        self.used.remark(id, None);
        key
    }

    /// Says that a key goes to a file because its token cannot hold it; fails where there is no file for it, or one that
    /// holds a key pair.
    fn fall_back(&self, id: &str, places: &Places, err: pkcs11::Error) -> Result<(), Error> {
        let (Some(token), Some(file)) = (&places.token, &places.file) else {
            return Err(Error::NoPlaceLeft(err));
        };
        refuse_pair(file)?;
        let path = file.path.display();
        log::warn!(
            "the key {id:?} is kept in the filesystem, in {path}, because {token} cannot hold it: {err}"
        );
        let remark = format!("in the filesystem because the token could not hold it: {err}");
        self.used.remark(id, Some(remark));
        Ok(())
    }

    /// Writes a key that there was none of, and reads it back. The caller has the file's turn.
    fn write_new<K: Kept>(
        &self,
        id: &str,
        place: &FilePlace,
        places: &Places,
        settings: &Settings,
        bytes: &[u8],
    ) -> Result<K, Error> {
        match self.write_file(place, bytes, true) {
            // Another process was faster, and may have used its key already.
            Err(Error::File(err)) if err.is_already_there() => {}
            written => written?,
        }
        self.read_back(id, place, places, settings)
    }

    /// Reads a key that has just been written. The caller has the file's turn.
    fn read_back<K: Kept>(
        &self,
        id: &str,
        place: &FilePlace,
        places: &Places,
        settings: &Settings,
    ) -> Result<K, Error> {
        let asked = places.token.is_some().then(|| self.cache.now());
        self.find_in_file(id, place, asked, settings.generation)?
            .ok_or_else(|| Error::Vanished {
                path: place.path.clone(),
            })
    }

    fn delete(
        &self,
        id: &str,
        kind: Content,
        in_token: impl FnOnce(&TokenPlace) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let settings = self.settings();
        let places = settings.places(id)?;
        let _turn = self.turns.take(places.resources(), Access::Exclusive);
        let mut removed = false;
        if let Some(place) = &places.token {
            removed = in_token(place)?;
        }
        let mut stays = false;
        if let Some(place) = &places.file {
            stays = places.token.is_some() && holds_another(place, kind);
            if stays {
                log::info!(
                    "{} stays: it holds a key of the other kind with the id {id:?}",
                    place.path.display()
                );
            } else {
                let gone = place.remove();
                self.cache.forget(&place.path);
                removed |= gone?;
            }
        }
        if !stays {
            self.used.forget(id);
        }
        Ok(removed)
    }
}

/// Generates a key pair for the first algorithm that the token takes.
fn generate_in_token(
    id: &str,
    place: &TokenPlace,
    algorithms: impl Iterator<Item = Algorithm>,
) -> Result<pkcs11::KeyPair, Error> {
    let mut causes = Vec::new();
    for algorithm in algorithms {
        match place.token.generate_key_pair(place.label(), algorithm) {
            Ok(pair) => return Ok(pair),
            Err(err) => {
                log::warn!(
                    "could not generate the key pair {id:?} for {} in {place}: {err}",
                    algorithm.name()
                );
                causes.push((algorithm, err));
            }
        }
    }
    Err(Error::NoAlgorithmSucceeded {
        place: place.to_string(),
        causes,
    })
}

/// Fails if a file holds a key pair, which no symmetric key may overwrite.
fn refuse_pair(place: &FilePlace) -> Result<(), Error> {
    match place.read()? {
        Some(contents) if Content::of(&contents.bytes) == Content::Pair => Err(Error::KeyPair {
            path: place.path.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether a file holds a key, but none of the given kind.
fn holds_another(place: &FilePlace, kind: Content) -> bool {
    match place.read() {
        Ok(Some(contents)) => {
            let content = Content::of(&contents.bytes);
            content != kind && content != Content::Empty
        }
        // What cannot be read can still be removed.
        Ok(None) | Err(_) => false,
    }
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
