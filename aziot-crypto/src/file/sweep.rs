//! Temporary files: their names, how a writer claims one, and how leftovers are removed.

use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::error::{Error, Reason, Step};
use super::sync_directory;

const PREFIX: &str = ".aziot-";
const SUFFIX: &str = ".tmp";

/// Removes the temporary files that crashed writers left in a directory, and answers how many.
///
/// A file counts as one if its name has the form that [`super::replace`] gives to temporary files, and no process has
/// it claimed: a writer holds a lock on its file for as long as it lives. No other file is ever touched. A directory
/// that does not exist has no leftovers.
///
/// # Errors
///
/// A directory that cannot be listed, or the first leftover that cannot be removed (after trying all others).
pub fn sweep(directory: &Path) -> Result<usize, Error> {
    let failed = |err| Error::new(directory, Step::List, Reason::Io(err));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(err) => return Err(failed(err)),
    };
    let mut removed = 0;
    let mut first_error = None;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_str().is_some_and(is_temporary_name) {
            continue;
        }
        // The claim is held until the file is gone, so that a writer that has just made it notices.
        let Some(_claimed) = abandoned(&entry.path()) else {
            continue;
        };
        match fs::remove_file(entry.path()) {
            Ok(()) => removed += 1,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => {
                first_error.get_or_insert(Error::new(&entry.path(), Step::Remove, Reason::Io(err)));
            }
        }
    }
    if removed > 0 {
        sync_directory(directory)?;
    }
    match first_error {
        Some(err) => Err(err),
        None => Ok(removed),
    }
}

/// A name that no other temporary file of this process has had.
pub(super) fn temporary_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = String::with_capacity(PREFIX.len() + 17 + SUFFIX.len());
    // Writing to a string cannot fail.
    let _ = write!(
        name,
        "{PREFIX}{:08x}-{count:08x}{SUFFIX}",
        std::process::id()
    );
    name
}

fn is_temporary_name(name: &str) -> bool {
    let middle = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    let Some((process, count)) = middle.and_then(|middle| middle.split_once('-')) else {
        return false;
    };
    [process, count].iter().all(|part| {
        part.len() == 8
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The file, claimed, if it is a regular one that nobody else has claimed.
fn abandoned(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    (regular && matches!(claim(&file), Claim::Held)).then_some(file)
}

/// What came of claiming a temporary file.
pub(super) enum Claim {
    /// It is ours until the descriptor is closed.
    Held,
    /// Another process has it, or has removed it.
    Refused,
    /// The file system has no locks. Then nothing is ever swept there.
    Impossible,
}

/// Claims a temporary file for its writer, or for the sweep that is about to remove it.
pub(super) fn claim(file: &File) -> Claim {
    loop {
        if lock(file).is_ok() {
            break;
        }
        match io::Error::last_os_error() {
            err if err.kind() == io::ErrorKind::Interrupted => {}
            err if err.kind() == io::ErrorKind::WouldBlock => return Claim::Refused,
            _ => return Claim::Impossible,
        }
    }
    // A sweep may have removed it between its creation and the lock.
    match file.metadata() {
        Ok(metadata) if metadata.nlink() == 0 => Claim::Refused,
        _ => Claim::Held,
    }
}

#[allow(
    unsafe_code,
    reason = "the standard library's file locks are newer than the minimum compiler"
)]
fn lock(file: &File) -> Result<(), ()> {
    // SAFETY: flock takes a descriptor, which `file` keeps open, and touches no memory of ours.
    let rc = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if rc == 0 { Ok(()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_names_are_recognised() {
        assert!(is_temporary_name(&temporary_name()));
        assert_ne!(temporary_name(), temporary_name());
        for name in [
            "",
            ".aziot-",
            ".aziot-.tmp",
            ".aziot-0000000a-0000000.tmp",
            ".aziot-0000000a-00000000.tmp~",
            ".aziot-0000000A-00000000.tmp",
            ".aziot-0000000a-00000000-00000000.tmp",
            "x.aziot-0000000a-00000000.tmp",
            "device-id.key",
        ] {
            assert!(!is_temporary_name(name), "{name}");
        }
    }
}
