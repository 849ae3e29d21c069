//! Changing several files so that all of them change, or none.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::users::User;

/// Names of the temporary files. The configuration directories' readers skip them, as they do not end in `.toml`.
const PREFIX: &str = ".aziotctl-";
const SUFFIX: &str = ".tmp";

/// A step that failed: `could not create P`, and why.
#[derive(Debug)]
pub struct StageError {
    what: String,
    error: io::Error,
}

impl StageError {
    fn new(what: impl Into<String>, error: io::Error) -> Self {
        Self {
            what: what.into(),
            error,
        }
    }

    /// The cause.
    pub fn reason(&self) -> &io::Error {
        &self.error
    }

    /// Whether the cause is missing permission.
    pub fn is_permission(&self) -> bool {
        self.error.kind() == io::ErrorKind::PermissionDenied
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Holds off other runs that change the same configuration.
pub struct Lock {
    /// Closing it gives the lock up.
    _directory: File,
}

impl Lock {
    /// Takes the lock of the directory `path`, without waiting.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened, or another process has the lock.
    pub fn take(path: &Path) -> Result<Self, StageError> {
        let directory = File::open(path).map_err(|error| {
            StageError::new(format!("could not open {}", path.display()), error)
        })?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            let what = if errno == Errno::WOULDBLOCK {
                "another `aziotctl config apply` is running; try again when it has ended".into()
            } else {
                format!("could not lock {}", path.display())
            };
            StageError::new(what, errno.into())
        })?;
        Ok(Self {
            _directory: directory,
        })
    }
}

/// Changes that are prepared one by one, then made together. Dropped before [`finish`](Self::finish), everything is put
/// back as it was.
#[derive(Default)]
pub struct Transaction {
    staged: Vec<Staged>,
    /// What takes back the steps so far, in order of the steps.
    undo: Vec<Undo>,
    names: u32,
}

/// A file that is ready to take its place, or (without one) a target that is to be removed.
struct Staged {
    target: PathBuf,
    temporary: PathBuf,
    remove: bool,
}

enum Undo {
    /// Remove a file that was made.
    RemoveFile(PathBuf),
    /// Remove a directory that was made.
    RemoveDirectory(PathBuf),
    /// Exchange two files again.
    Exchange(PathBuf, PathBuf),
    /// Rename a file back: from, to.
    Rename(PathBuf, PathBuf),
    /// Give a directory its mode and owner back.
    Restore {
        path: PathBuf,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

impl Transaction {
    /// Makes the directory `path` and its missing parents. Those get `mode` too, and the current user as owner.
    pub fn create_directory(&mut self, path: &Path, mode: u32) -> Result<(), StageError> {
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        for directory in missing.into_iter().rev() {
            let refuse = |error| {
                StageError::new(
                    format!("could not create {} directory", directory.display()),
                    error,
                )
            };
            fs::create_dir(directory).map_err(refuse)?;
            self.undo.push(Undo::RemoveDirectory(directory.into()));
            fs::set_permissions(directory, Permissions::from_mode(mode)).map_err(refuse)?;
        }
        Ok(())
    }

    /// Gives an existing directory a mode and an owner.
    pub fn own_directory(&mut self, path: &Path, mode: u32, user: &User) -> Result<(), StageError> {
        let metadata = fs::metadata(path).map_err(|error| {
            StageError::new(
                format!("could not examine {} directory", path.display()),
                error,
            )
        })?;
        self.undo.push(Undo::Restore {
            path: path.into(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
        if (metadata.uid(), metadata.gid()) != (user.uid, user.gid) {
            chown(path, Some(user.uid), Some(user.gid)).map_err(|error| {
                StageError::new(
                    format!("could not set ownership on {} directory", path.display()),
                    error,
                )
            })?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| {
            StageError::new(
                format!("could not set permissions on {} directory", path.display()),
                error,
            )
        })
    }

    /// Prepares `target` to have `contents`, mode 0600 and `user` as owner. What is there now is not followed if it is a
    /// symbolic link.
    pub fn write(&mut self, target: &Path, contents: &[u8], user: &User) -> Result<(), StageError> {
        if target
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_dir())
        {
            let error = io::Error::from_raw_os_error(libc::EISDIR);
            return Err(StageError::new(
                format!("could not create {}", target.display()),
                error,
            ));
        }
        let refuse =
            |error| StageError::new(format!("could not create {}", target.display()), error);
        let temporary = self.temporary_name(target);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(refuse)?;
        self.undo.push(Undo::RemoveFile(temporary.clone()));
        let metadata = file.metadata().map_err(refuse)?;
        if (metadata.uid(), metadata.gid()) != (user.uid, user.gid) {
            fchown(&file, Some(user.uid), Some(user.gid)).map_err(|error| {
                StageError::new(
                    format!("could not set ownership on {}", target.display()),
                    error,
                )
            })?;
        }
        // The umask can only have taken bits away.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|error| {
                StageError::new(
                    format!("could not set permissions on {}", target.display()),
                    error,
                )
            })?;
        file.write_all(contents)
            .and_then(|()| file.sync_all())
            .map_err(refuse)?;
        self.staged.push(Staged {
            target: target.into(),
            temporary,
            remove: false,
        });
        Ok(())
    }

    /// Prepares `target` to be removed.
    pub fn remove(&mut self, target: &Path) {
        let temporary = self.temporary_name(target);
        self.staged.push(Staged {
            target: target.into(),
            temporary,
            remove: true,
        });
    }

    /// Makes all prepared changes.
    ///
    /// # Errors
    ///
    /// The first change that cannot be made. Dropping the transaction then takes back those before it.
    pub fn commit(&mut self) -> Result<(), StageError> {
        for Staged {
            target,
            temporary,
            remove,
        } in &self.staged
        {
            let undo = if *remove {
                fs::rename(target, temporary)
                    .map(|()| Undo::Rename(temporary.clone(), target.clone()))
                    .map_err(|error| {
                        StageError::new(format!("could not remove {}", target.display()), error)
                    })?
            } else {
                take_place(temporary, target).map_err(|error| {
                    StageError::new(format!("could not replace {}", target.display()), error)
                })?
            };
            self.undo.push(undo);
        }
        for directory in self.directories() {
            File::open(&directory)
                .and_then(|directory| directory.sync_all())
                .map_err(|error| {
                    StageError::new(format!("could not sync {}", directory.display()), error)
                })?;
        }
        Ok(())
    }

    /// Keeps the changes, and removes the old files.
    pub fn finish(mut self) {
        self.undo.clear();
        for Staged { temporary, .. } in &self.staged {
            // Where nothing was replaced there is no old file. One that stays is swept by the next run.
            let _ = fs::remove_file(temporary);
        }
    }

    /// Directories of the prepared files, each once.
    fn directories(&self) -> Vec<PathBuf> {
        let mut directories: Vec<_> = self
            .staged
            .iter()
            .filter_map(|staged| staged.target.parent())
            .map(Path::to_path_buf)
            .collect();
        directories.dedup();
        directories
    }

    fn temporary_name(&mut self, target: &Path) -> PathBuf {
        self.names += 1;
        target.with_file_name(format!(
            "{PREFIX}{}-{}{SUFFIX}",
            std::process::id(),
            self.names
        ))
    }
}

/// Puts the file `temporary` at `target`; what was there gets the temporary name. Answers what takes it back.
fn take_place(temporary: &Path, target: &Path) -> io::Result<Undo> {
    let exchanged = || Undo::Exchange(temporary.into(), target.into());
    match renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(exchanged()),
        Err(Errno::NOENT) => {
            fs::rename(temporary, target)?;
            Ok(Undo::RemoveFile(target.into()))
        }
        // File systems without exchange: keep the old file under a second name, then replace it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if target.symlink_metadata().is_ok() => {
            let mut kept = OsString::from(temporary);
            kept.push(".old");
            let kept = PathBuf::from(kept);
            fs::hard_link(target, &kept)?;
            fs::rename(temporary, target)?;
            fs::rename(&kept, temporary)?;
            Ok(Undo::Rename(temporary.into(), target.into()))
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::rename(temporary, target)?;
            Ok(Undo::RemoveFile(target.into()))
        }
        Err(errno) => Err(errno.into()),
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // As much as possible is put back; there is nobody to tell about a second failure that could do more.
        while let Some(step) = self.undo.pop() {
            let _ = match step {
                Undo::RemoveFile(path) => fs::remove_file(path),
                Undo::RemoveDirectory(path) => fs::remove_dir(path),
                Undo::Exchange(a, b) => {
                    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(Into::into)
                }
                Undo::Rename(from, to) => fs::rename(from, to),
                Undo::Restore {
                    path,
                    mode,
                    uid,
                    gid,
                } => {
                    let owner = chown(&path, Some(uid), Some(gid));
                    fs::set_permissions(path, Permissions::from_mode(mode)).and(owner)
                }
            };
        }
    }
}

/// Removes temporary files that an interrupted run left in `directory`. Only for the holder of the lock.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX) && name.contains(SUFFIX));
        if ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn listing(directory: &Path) -> Vec<(String, String, u32)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let metadata = entry.path().symlink_metadata().unwrap();
            let content = match entry.path().read_link() {
                Ok(link) => format!("-> {}", link.display()),
                Err(_) => fs::read_to_string(entry.path()).unwrap_or_default(),
            };
            found.push((
                entry.file_name().into_string().unwrap(),
                content,
                metadata.mode() & 0o7777,
            ));
        }
        found.sort();
        found
    }

    /// A directory with a file, a link, and something that cannot be replaced.
    fn prepared() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("old"), "old").unwrap();
        fs::set_permissions(directory.path().join("old"), Permissions::from_mode(0o644)).unwrap();
        symlink("elsewhere", directory.path().join("link")).unwrap();
        fs::write(directory.path().join("stale"), "stale").unwrap();
        directory
    }

    #[test]
    fn sc_15_new_files_are_private_new_inodes_and_links_are_replaced() {
        let directory = prepared();
        let at = |name: &str| directory.path().join(name);
        let inode = fs::metadata(at("old")).unwrap().ino();
        let mut transaction = Transaction::default();
        let user = User::current();
        for name in ["old", "link", "new"] {
            transaction.write(&at(name), b"written", &user).unwrap();
        }
        transaction.remove(&at("stale"));
        // Nothing shows before the commit.
        assert_eq!(fs::read_to_string(at("old")).unwrap(), "old");
        transaction.commit().unwrap();
        transaction.finish();
        let written = |name: &str| (name.to_owned(), "written".to_owned(), 0o600);
        assert_eq!(
            listing(directory.path()),
            [written("link"), written("new"), written("old")]
        );
        assert_ne!(fs::metadata(at("old")).unwrap().ino(), inode);
    }

    #[test]
    fn ct_19_whatever_fails_everything_is_put_back() {
        let directory = prepared();
        let at = |name: &str| directory.path().join(name);
        let before = listing(directory.path());
        let user = User::current();

        // A commit that fails at its last change.
        let mut transaction = Transaction::default();
        transaction
            .create_directory(&at("made/deep"), 0o755)
            .unwrap();
        for name in ["old", "link", "new", "made/deep/new"] {
            transaction.write(&at(name), b"written", &user).unwrap();
        }
        transaction.remove(&at("stale"));
        transaction.remove(&at("missing"));
        let error = transaction.commit().unwrap_err();
        assert!(
            error.to_string().starts_with("could not remove "),
            "{error}"
        );
        drop(transaction);
        assert_eq!(listing(directory.path()), before);

        // A change that cannot be prepared.
        fs::create_dir(at("directory")).unwrap();
        let before = listing(directory.path());
        let mut transaction = Transaction::default();
        transaction.write(&at("old"), b"written", &user).unwrap();
        assert!(
            transaction
                .write(&at("directory"), b"written", &user)
                .is_err()
        );
        assert!(
            transaction
                .write(&at("missing/new"), b"written", &user)
                .is_err()
        );
        drop(transaction);
        assert_eq!(listing(directory.path()), before);
    }

    #[test]
    fn modes_of_directories_are_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        let mut transaction = Transaction::default();
        transaction
            .own_directory(path, 0o700, &User::current())
            .unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
        drop(transaction);
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn the_lock_is_exclusive_and_leftovers_are_swept() {
        let directory = prepared();
        let lock = Lock::take(directory.path()).unwrap();
        let error = Lock::take(directory.path()).err().unwrap().to_string();
        assert!(
            error.starts_with("another `aziotctl config apply` is running"),
            "{error}"
        );
        drop(lock);
        Lock::take(directory.path()).unwrap();

        let before = listing(directory.path());
        fs::write(directory.path().join(".aziotctl-1-1.tmp"), "secret").unwrap();
        fs::write(directory.path().join(".aziotctl-1-2.tmp.old"), "secret").unwrap();
        sweep(directory.path());
        assert_eq!(listing(directory.path()), before);
    }
}
