//! Turns: calls that read or write one file come one after the other; those for other files do not wait.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The files that some call is busy with.
#[derive(Debug, Default)]
pub(super) struct Turns {
    busy: Mutex<Vec<PathBuf>>,
    ended: Condvar,
}

impl Turns {
    /// Waits until no call is busy with the file.
    pub(super) fn take(&self, path: &Path) -> Turn<'_> {
        self.take_both(path, path)
    }

    /// Waits until no call is busy with either file. Both are taken at once, so that two calls cannot wait for each
    /// other.
    pub(super) fn take_both(&self, one: &Path, other: &Path) -> Turn<'_> {
        let mut busy = self.busy();
        while busy.iter().any(|path| path == one || path == other) {
            busy = self
                .ended
                .wait(busy)
                .unwrap_or_else(PoisonError::into_inner);
        }
        busy.push(one.to_owned());
        if one != other {
            busy.push(other.to_owned());
        }
        Turn {
            turns: self,
            one: one.to_owned(),
            other: other.to_owned(),
        }
    }

    fn busy(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to read and write one or two files; ends when dropped.
#[must_use]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    one: PathBuf,
    other: PathBuf,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns
            .busy()
            .retain(|path| *path != self.one && *path != self.other);
        self.turns.ended.notify_all();
    }
}
