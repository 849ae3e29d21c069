//! Files that hold keys.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cache::Parsed;
use super::error::Error;
use super::key::SymmetricKey;
use super::{MAX_KEY_LEN, Store};
use crate::file::{self, Contents, Options};
use crate::openssl;

/// Files that a warning about permissions is remembered for.
const WARNED: usize = 256;

/// The file that an id stands for.
#[derive(Clone, Debug)]
pub(super) struct FilePlace {
    pub(super) path: PathBuf,
    /// The directory to make before writing; `None` for a preloaded key, whose directory is the operator's.
    keys_directory: Option<PathBuf>,
}

impl FilePlace {
    pub(super) fn preloaded(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            keys_directory: None,
        }
    }

    pub(super) fn in_home(directory: &Path, name: &str) -> Self {
        Self {
            path: directory.join(name),
            keys_directory: Some(directory.to_owned()),
        }
    }

    pub(super) fn read(&self) -> Result<Option<Contents>, Error> {
        file::read(&self.path, MAX_KEY_LEN).map_err(Error::File)
    }

    pub(super) fn make_directory(&self) -> Result<(), Error> {
        match &self.keys_directory {
            Some(directory) => file::create_directories(directory, 0o700).map_err(Error::File),
            None => Ok(()),
        }
    }

    /// Removes the file; answers whether there was one.
    pub(super) fn remove(&self) -> Result<bool, Error> {
        file::remove(&self.path).map_err(Error::File)
    }
}

impl Store {
    /// Writes the file of a key: a new one, which must not take the place of one that another process makes at the same
    /// time, or any. The caller has its turn.
    pub(super) fn write_file(
        &self,
        place: &FilePlace,
        bytes: &[u8],
        only_new: bool,
    ) -> Result<(), Error> {
        place.make_directory()?;
        if let Some(directory) = &place.keys_directory {
            self.sweep_once(directory);
        }
        // What the operator put somewhere keeps its owner and mode, and stays behind its link; a directory that does
        // not let a file be replaced is somebody else's.
        let options = Options {
            keep_existing: true,
            only_new,
            follow_links: true,
            in_place: place.keys_directory.is_none(),
            ..Options::new(0o600)
        };
        let written = file::replace(&place.path, bytes, options);
        self.cache.forget(&place.path);
        written.map_err(Error::File)
    }
}

/// What a file holds, told without parsing it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Nothing: what an interrupted writer of an earlier release leaves.
    Empty,
    /// PEM text: a key pair, whether or not it can be used.
    Pair,
    /// Anything else. Any bytes can be a symmetric key.
    Symmetric,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            Self::Empty
        } else if is_pem(bytes) {
            Self::Pair
        } else {
            Self::Symmetric
        }
    }
}

/// Parses a symmetric key.
pub(super) fn parse_key(path: &Path, bytes: &[u8]) -> Result<Parsed, Error> {
    match Content::of(bytes) {
        Content::Empty => Err(Error::Empty { path: path.into() }),
        Content::Pair => Err(Error::KeyPair { path: path.into() }),
        Content::Symmetric => Ok(Parsed::Symmetric(SymmetricKey::new(bytes).into())),
    }
}

/// Parses a key pair.
pub(super) fn parse_pair(path: &Path, bytes: &[u8]) -> Result<Parsed, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { path: path.into() });
    }
    match openssl::KeyPair::from_pem(bytes) {
        Ok(pair) => Ok(Parsed::Pair(pair.into())),
        Err(err) => Err(Error::NotAPair {
            path: path.into(),
            symmetric: Content::of(bytes) == Content::Symmetric,
            err,
        }),
    }
}

/// Whether bytes are PEM text (RFC 7468), possibly after other text: a key pair or a certificate, not a symmetric key.
pub(super) fn is_pem(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
    lines.any(|line| line.trim_ascii_start().starts_with(BEGIN))
}

/// The time by which it is decided whether a change of a file would show: that before it is read.
pub(super) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

/// Warnings about the permissions of key files, each given once.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    warned: Mutex<Vec<PathBuf>>,
}

impl Permissions {
    /// Warns if others can reach a key that has been read. The key is used all the same: it was in earlier releases,
    /// and refusing it would take the device's identity away.
    pub(super) fn check(&self, path: &Path, contents: &Contents) {
        let Some(complaint) = complaint(path, contents) else {
            return;
        };
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNED && !warned.iter().any(|known| known == path) {
            warned.push(path.to_owned());
            log::warn!("{complaint}");
        }
    }
}

/// What is wrong with the owner or mode of a key file, and what mends it; `None` if it is well kept.
///
/// Earlier releases write files of mode 0644 below a directory of mode 0700, which protects them: a directory on the
/// way that others may not search counts.
pub(super) fn complaint(path: &Path, contents: &Contents) -> Option<String> {
    let metadata = contents.file.metadata().ok()?;
    let mode = metadata.permissions().mode();
    let text = exposure(path, mode, metadata.uid(), effective_user())?;
    can_be_reached(path).then_some(text)
}

/// Who else than `user` and root can read or change a file by its owner and mode.
pub(super) fn exposure(path: &Path, mode: u32, owner: u32, user: u32) -> Option<String> {
    const OTHERS_READ_OR_WRITE: u32 = 0o006;
    const GROUP_WRITES: u32 = 0o020;
    let path = path.display();
    if owner != 0 && owner != user {
        return Some(format!(
            "the key file {path} belongs to user {owner}, who can read and change it; `chown {user} {path}` mends that"
        ));
    }
    let open = mode & (OTHERS_READ_OR_WRITE | GROUP_WRITES) != 0;
    open.then(|| {
        format!(
            "the key file {path} has mode {:04o}, so that other users can read or change it; `chmod 600 {path}` mends \
             that",
            mode & 0o7777
        )
    })
}

/// Whether every directory above a file lets every user through.
fn can_be_reached(path: &Path) -> bool {
    const OTHERS_SEARCH: u32 = 0o001;
    // Links on the way are not what protects it.
    let real = path.canonicalize();
    let above = real.as_deref().unwrap_or(path).ancestors().skip(1);
    above
        .filter(|directory| !directory.as_os_str().is_empty())
        .all(|directory| {
            fs::metadata(directory)
                .is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_SEARCH != 0)
        })
}

#[allow(unsafe_code, reason = "the standard library does not tell who we are")]
fn effective_user() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}
