//! What can go wrong with a file.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file operation that failed: which file, at which step, why.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    step: Step,
    reason: Reason,
}

impl Error {
    pub(super) fn new(path: &Path, step: Step, reason: Reason) -> Self {
        Self {
            path: path.to_owned(),
            step,
            reason,
        }
    }

    /// The file or directory that the step was about.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was being done.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Why it did not work.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// Whether the cause is a missing file or directory.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(&self.reason, Reason::Io(err) if err.kind() == io::ErrorKind::NotFound)
    }

    /// Whether a file that was to be made new is there already, see [`super::Options::only_new`].
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        self.step == Step::Rename && self.os_code() == Some(libc::EEXIST)
    }

    pub(super) fn os_code(&self) -> Option<i32> {
        match &self.reason {
            Reason::Io(err) => err.raw_os_error(),
            _ => None,
        }
    }
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Making a directory.
    CreateDirectory,
    /// Making the temporary file beside the target.
    CreateTemporary,
    /// Following a symbolic link to the file it stands for.
    FollowLink,
    /// Listing a directory.
    List,
    /// Renaming a file to another name.
    Move,
    /// Reading.
    Read,
    /// Removing.
    Remove,
    /// Renaming the finished temporary file to its final name.
    Rename,
    /// Giving the new file its mode.
    SetMode,
    /// Giving the new file its owner.
    SetOwner,
    /// Looking at the file that is to be replaced.
    Stat,
    /// Making sure that the content is on disk.
    Sync,
    /// Making sure that the name is on disk. The change has been made and is visible, but might not survive a power
    /// cut.
    SyncDirectory,
    /// Writing the content.
    Write,
    /// Writing over the existing file, because its directory does not let it be replaced.
    WriteInPlace,
}

/// Why it did not work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The operating system refused.
    Io(io::Error),
    /// It is a directory, a device or a pipe.
    NotRegular,
    /// Longer than any file of its kind.
    TooLong {
        /// The largest length that is read, in bytes.
        limit: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.step {
            Step::CreateDirectory => write!(f, "could not create the directory {path}"),
            Step::CreateTemporary => {
                write!(f, "could not create a temporary file to replace {path}")
            }
            Step::FollowLink => write!(f, "could not follow the symbolic link {path}"),
            Step::List => write!(f, "could not list the directory {path}"),
            Step::Move => write!(f, "could not rename {path}"),
            Step::Read => write!(f, "could not read {path}"),
            Step::Remove => write!(f, "could not remove {path}"),
            Step::Rename => write!(f, "could not replace {path}"),
            Step::SetMode => write!(f, "could not set the mode of the new {path}"),
            Step::SetOwner => write!(f, "could not set the owner of the new {path}"),
            Step::Stat => write!(f, "could not examine {path}"),
            Step::Sync => write!(f, "could not sync the new {path}"),
            Step::SyncDirectory => write!(f, "could not sync the directory {path}"),
            Step::Write => write!(f, "could not write the new {path}"),
            Step::WriteInPlace => write!(f, "could not write {path} in place"),
        }?;
        match &self.reason {
            Reason::Io(err) => {
                write!(f, ": {err}")?;
                match err.raw_os_error() {
                    Some(libc::ENOSPC | libc::EDQUOT) => f.write_str("; free some space there"),
                    Some(libc::EROFS) => f.write_str("; the file system is mounted read-only"),
                    Some(libc::EACCES | libc::EPERM) => f.write_str(
                        "; check the owner and mode of it and of the directories above it",
                    ),
                    _ => Ok(()),
                }
            }
            Reason::NotRegular => f.write_str(": not a regular file"),
            Reason::TooLong { limit } => write!(f, ": longer than the limit of {limit} bytes"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.reason {
            Reason::Io(err) => Some(err),
            _ => None,
        }
    }
}
