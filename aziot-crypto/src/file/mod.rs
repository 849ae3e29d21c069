//! Files that are never half-written: atomic replacement, bounded reading, and the removal of what crashes leave.
//!
//! [`replace`] writes to a temporary file in the directory of the target, which gets its final owner and mode before
//! its content, syncs it, renames it over the target and syncs the directory. Whoever reads the target sees the old
//! content or the new one, after a crash or a power cut at any point too. A writer that is killed leaves at most its
//! temporary file; [`sweep`] removes those, and only those.
//!
//! Everything goes through the C library's calls, one at a time and unbuffered, so that a test can stop a process
//! before any of them.

mod error;
mod replace;
mod sweep;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

pub use self::error::{Error, Reason, Step};
pub use self::replace::{Options, Owner, replace};
pub use self::sweep::sweep;

/// Times that a file which changes while it is read is read again, before the last content is taken as it is.
const READ_ATTEMPTS: usize = 4;

/// What [`read`] found.
#[derive(Debug)]
pub struct Contents {
    /// The whole content; wiped when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Which file, in which state, the bytes were read from.
    pub identity: Identity,
    /// The file itself, open for reading.
    pub file: File,
}

/// Reads a regular file of at most `limit` bytes, following symbolic links. `None` if there is no such file.
///
/// The file is read again if it changes meanwhile, so that a file replaced in place is not seen half-written (as far
/// as that can be told from outside).
///
/// # Errors
///
/// Anything but a missing file: no permission, not a regular file, longer than `limit`, input error.
pub fn read(path: &Path, limit: usize) -> Result<Option<Contents>, Error> {
    let failed = |reason| Error::new(path, Step::Read, reason);
    // Without O_NONBLOCK opening a FIFO would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(failed(Reason::Io(err))),
    };
    let mut attempt = 1;
    loop {
        let metadata = file.metadata().map_err(|err| failed(Reason::Io(err)))?;
        if !metadata.is_file() {
            return Err(failed(Reason::NotRegular));
        }
        let size = usize::try_from(metadata.size()).unwrap_or(usize::MAX);
        if size > limit {
            return Err(failed(Reason::TooLong { limit }));
        }
        let bytes = read_at_most(&mut file, size).map_err(|err| failed(Reason::Io(err)))?;
        let identity = Identity::of(&metadata);
        let after = file.metadata().map_err(|err| failed(Reason::Io(err)))?;
        if attempt == READ_ATTEMPTS || (bytes.len() == size && Identity::of(&after) == identity) {
            return Ok(Some(Contents {
                bytes,
                identity,
                file,
            }));
        }
        attempt += 1;
        io::Seek::rewind(&mut file).map_err(|err| failed(Reason::Io(err)))?;
    }
}

/// Reads up to `size` bytes into one allocation that never moves, so that wiping it leaves no copy.
fn read_at_most(file: &mut File, size: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; size]);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Removes a file (of a symbolic link, the link) and syncs its directory. Answers whether there was one.
///
/// # Errors
///
/// Anything but a missing file.
pub fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(Error::new(path, Step::Remove, Reason::Io(err))),
    }
}

/// Renames a file, replacing what is at `to`, and syncs both directories. Renaming a file to itself does nothing.
///
/// # Errors
///
/// Those of rename(2), with nothing changed; in particular a missing `from`, or two different file systems.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|err| Error::new(from, Step::Move, Reason::Io(err)))?;
    sync_parent(to)?;
    if parent(from) != parent(to) {
        sync_parent(from)?;
    }
    Ok(())
}

/// Makes a directory and the missing ones above it, each with the permission bits `mode` (less the umask), and syncs
/// where they appear. An existing directory is left as it is.
///
/// # Errors
///
/// The first directory that cannot be made, or that is something else than a directory.
pub fn create_directories(path: &Path, mode: u32) -> Result<(), Error> {
    let failed = |err| Error::new(path, Step::CreateDirectory, Reason::Io(err));
    let create = || DirBuilder::new().mode(mode).create(path);
    let created = match create() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => {
                create_directories(above, mode)?;
                create()
            }
            _ => Err(err),
        },
        other => other,
    };
    match created {
        Ok(()) => sync_parent(path),
        // Also when another process made it meanwhile.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(err) => Err(failed(err)),
    }
}

/// Which file, and which state of it: equal identities mean that the file was neither replaced nor written between.
///
/// Times are those of the file system, in seconds and nanoseconds. They advance in steps of a few milliseconds on many
/// file systems, see [`Identity::is_settled`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Twice the longest step of file times in use (10 ms at 100 Hz), and some.
    const STEP_NANOSECONDS: u128 = 50_000_000;

    /// The identity of the file that a path leads to, in one system call and, for paths of less than 384 bytes,
    /// without an allocation.
    ///
    /// # Errors
    ///
    /// Those of stat(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// The identity of an open file, without following a path: a quarter of the cost.
    ///
    /// Writing, replacing and removing a file all show here, because they change its times. What does not show is that
    /// a path leads elsewhere because one of its directories, or a symbolic link, was exchanged.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    #[allow(
        unsafe_code,
        clippy::useless_conversion,
        reason = "std's metadata() takes the slower statx; widths differ by target"
    )]
    pub fn of_open(file: &File) -> io::Result<Self> {
        let mut stat = core::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the descriptor is open while `file` is borrowed, and the pointer leads to room for the structure.
        if unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fstat has filled it in.
        let stat = unsafe { stat.assume_init() };
        Ok(Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            modified: (stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            changed: (stat.st_ctime.into(), stat.st_ctime_nsec.into()),
        })
    }

    /// The identity in a file's metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether both are the same file, in whatever state.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether a change after `now` (time since 1970) would show in the identity.
    ///
    /// It may not if the file was last changed just before: file times advance in steps, so a second change of the
    /// same length within a step leaves them as they are.
    #[must_use]
    pub fn is_settled(&self, now: core::time::Duration) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
        now.saturating_sub(changed).unsigned_abs() > Self::STEP_NANOSECONDS
    }
}

/// The directory a file is in; for a bare name the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a change of the directory that a file is in last.
fn sync_parent(path: &Path) -> Result<(), Error> {
    sync_directory(parent(path))
}

/// Makes the changes of a directory last.
fn sync_directory(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    match synced {
        Ok(()) => Ok(()),
        // The change is made and visible. Not every file system can sync a directory, and one that we may write but
        // not list cannot be opened; no later attempt would do better.
        Err(err)
            if matches!(
                err.raw_os_error(),
                Some(libc::EINVAL | libc::ENOTSUP | libc::EACCES)
            ) =>
        {
            log::debug!("could not sync the directory {}: {err}", path.display());
            Ok(())
        }
        Err(err) => Err(Error::new(path, Step::SyncDirectory, Reason::Io(err))),
    }
}
