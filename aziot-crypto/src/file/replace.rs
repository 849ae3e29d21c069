//! Atomic replacement.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::error::{Error, Reason, Step};
use super::sweep::{Claim, claim, temporary_name};
use super::{parent, read_at_most, sync_directory};

/// Symbolic links followed before they count as a loop; the kernel's own number.
const LINKS: usize = 40;

/// Names tried for a temporary file. They are unique in a process; more than one is needed only where a crashed
/// process with the same id left its own.
const NAMES: usize = 1000;

/// Longest file, in bytes, whose old content is kept while it is written in place.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// Permission bits; set-user-id and its like are never taken over.
const PERMISSIONS: u32 = 0o777;

/// How [`replace`] makes a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// Permission bits of the file, whatever the umask.
    pub mode: u32,
    /// Owner of the file; `None` leaves it to the process's own user and group. Another user takes privilege.
    pub owner: Option<Owner>,
    /// If there is a file already, its mode and owner are kept in place of `mode` and `owner`. An owner that the
    /// process may not give is replaced by its own (with a warning), and if that changes the group, the mode's group
    /// bits are cleared.
    pub keep_existing: bool,
    /// If there is no file yet, it is only made if nobody else makes one meanwhile; if somebody does, that one stays and
    /// the error says so ([`Error::is_already_there`]). An existing file is replaced all the same. File systems that
    /// cannot do this (NFS, for one) do without.
    pub only_new: bool,
    /// If the path is a symbolic link, the file it leads to is replaced (or made) and the link stays; otherwise the
    /// link itself is replaced by the file.
    pub follow_links: bool,
    /// If the file exists and its directory refuses to have it replaced (no permission, read-only, or the file is a
    /// mount point), it is written in place, with a warning: then a crash can leave it half-written.
    pub in_place: bool,
}

impl Options {
    /// A file with these permission bits, owned by the process's user; replaces whatever is there; never in place.
    #[must_use]
    pub const fn new(mode: u32) -> Self {
        Self {
            mode,
            owner: None,
            keep_existing: false,
            only_new: false,
            follow_links: false,
            in_place: false,
        }
    }
}

/// Owner of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Replaces the content of a file, or makes the file, so that no reader and no crash ever sees anything but the old or
/// the new content.
///
/// When it returns, the new content is on disk. The directory must exist.
///
/// # Errors
///
/// On any error but that of [`Step::SyncDirectory`] the old file is as it was and no temporary file is left (except
/// when written in place, see [`Options::in_place`]).
pub fn replace(path: &Path, contents: &[u8], options: Options) -> Result<(), Error> {
    let target = if options.follow_links {
        follow(path)?
    } else {
        Cow::Borrowed(path)
    };
    let existing = existing(&target)?;
    let replaced = replace_by_rename(&target, contents, options, existing.as_ref());
    match replaced {
        Err(err)
            if options.in_place && existing.is_some_and(|file| file.is_file()) && refused(&err) =>
        {
            log::warn!("{err}; writing it in place, which a crash can interrupt half-way");
            write_in_place(&target, contents)
        }
        other => other,
    }
}

/// Where a chain of symbolic links ends; the end need not exist.
fn follow(path: &Path) -> Result<Cow<'_, Path>, Error> {
    let failed = |err| Error::new(path, Step::FollowLink, Reason::Io(err));
    let mut current = Cow::Borrowed(path);
    for _ in 0..LINKS {
        match fs::read_link(&current) {
            // A relative link starts from its directory; an absolute one replaces it.
            Ok(next) => current = Cow::Owned(parent(&current).join(next)),
            // Not a link, or nothing there.
            Err(err) if matches!(err.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                return Ok(current);
            }
            Err(err) => return Err(failed(err)),
        }
    }
    Err(failed(io::Error::from_raw_os_error(libc::ELOOP)))
}

fn existing(target: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(target) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Error::new(target, Step::Stat, Reason::Io(err))),
    }
}

fn replace_by_rename(
    target: &Path,
    contents: &[u8],
    options: Options,
    existing: Option<&Metadata>,
) -> Result<(), Error> {
    let failed = |step| move |err| Error::new(target, step, Reason::Io(err));
    let mut temporary = Temporary::create(target)?;
    match existing.filter(|existing| options.keep_existing && existing.is_file()) {
        Some(existing) => temporary.take_over(target, existing)?,
        None => {
            if let Some(Owner { uid, gid }) = options.owner {
                fchown(&temporary.file, Some(uid), Some(gid)).map_err(failed(Step::SetOwner))?;
            }
            temporary
                .set_mode(options.mode)
                .map_err(failed(Step::SetMode))?;
        }
    }
    temporary
        .file
        .write_all(contents)
        .map_err(failed(Step::Write))?;
    temporary.file.sync_all().map_err(failed(Step::Sync))?;
    let renamed = if options.only_new && existing.is_none() {
        rename_to_new(&temporary.path, target)
    } else {
        fs::rename(&temporary.path, target)
    };
    renamed.map_err(failed(Step::Rename))?;
    temporary.renamed = true;
    sync_directory(parent(target))
}

/// Renames a file unless there is one with the new name, if the file system knows how to.
#[allow(unsafe_code, reason = "the standard library always replaces")]
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    let old = CString::new(from.as_os_str().as_bytes())?;
    let new = CString::new(to.as_os_str().as_bytes())?;
    // SAFETY: both are NUL-terminated strings that live until the call returns.
    let rc = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            old.as_ptr(),
            libc::AT_FDCWD,
            new.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    if rc == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        err if matches!(err.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            fs::rename(from, to)
        }
        err => Err(err),
    }
}

/// Whether the directory, not the content, is what refused.
fn refused(err: &Error) -> bool {
    let code = err.os_code();
    match err.step() {
        Step::CreateTemporary => matches!(code, Some(libc::EACCES | libc::EPERM | libc::EROFS)),
        Step::Rename => {
            matches!(
                code,
                Some(libc::EACCES | libc::EBUSY | libc::EPERM | libc::EROFS | libc::EXDEV)
            )
        }
        _ => false,
    }
}

/// Writes over a file that cannot be replaced. It is cut to length last: until then more of the old content survives. If
/// it fails half-way, on a full disk for example, the old content is written back.
pub(super) fn write_in_place(target: &Path, contents: &[u8]) -> Result<(), Error> {
    let failed = |err| Error::new(target, Step::WriteInPlace, Reason::Io(err));
    let open = || {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(target)?;
        let size = usize::try_from(file.metadata()?.size()).unwrap_or(usize::MAX);
        let old = read_at_most(&mut file, size.min(MAX_KEPT))?;
        Ok((file, (old.len() == size).then_some(old)))
    };
    let (mut file, old) = open().map_err(failed)?;
    let Err(err) = overwrite(&mut file, contents) else {
        return Ok(());
    };
    if let Some(old) = old
        && let Err(err) = overwrite(&mut file, &old)
    {
        log::error!(
            "the old content of {} could not be written back: {err}",
            target.display()
        );
    }
    Err(failed(err))
}

fn overwrite(file: &mut File, contents: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

/// A temporary file that is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    /// Makes an empty file that only its owner can open, claimed so that no [`super::sweep`] takes it for a leftover.
    fn create(target: &Path) -> Result<Self, Error> {
        let failed = |err| Error::new(target, Step::CreateTemporary, Reason::Io(err));
        let directory = parent(target);
        for _ in 0..NAMES {
            let path = directory.join(temporary_name());
            let file = match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
            {
                Ok(file) => file,
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(err) => return Err(failed(err)),
            };
            let temporary = Self {
                path,
                file,
                renamed: false,
            };
            match claim(&temporary.file) {
                Claim::Held | Claim::Impossible => return Ok(temporary),
                // A sweep was faster than we and removes it; the next name is as good.
                Claim::Refused => {}
            }
        }
        Err(failed(io::Error::from_raw_os_error(libc::EEXIST)))
    }

    /// Gives the new file the owner and mode of the one it replaces, as far as that is allowed.
    fn take_over(&self, target: &Path, existing: &Metadata) -> Result<(), Error> {
        let failed = |step| move |err| Error::new(target, step, Reason::Io(err));
        let own = self.file.metadata().map_err(failed(Step::SetOwner))?;
        let mut mode = existing.mode() & PERMISSIONS;
        if (own.uid(), own.gid()) != (existing.uid(), existing.gid()) {
            let (uid, gid) = (existing.uid(), existing.gid());
            let given = fchown(&self.file, Some(uid), Some(gid)).or_else(|_| {
                if own.gid() == gid {
                    Ok(())
                } else {
                    fchown(&self.file, None, Some(gid))
                }
            });
            let now = self.file.metadata().map_err(failed(Step::SetOwner))?;
            if given.is_err() || now.gid() != gid {
                mode &= !0o070;
            }
            if (now.uid(), now.gid()) != (uid, gid) {
                log::warn!(
                    "{} belonged to user {uid}, group {gid}, and now belongs to user {}, group {}: only a privileged \
                     process may keep another owner",
                    target.display(),
                    now.uid(),
                    now.gid()
                );
            }
        }
        self.set_mode(mode).map_err(failed(Step::SetMode))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file
            .set_permissions(Permissions::from_mode(mode & PERMISSIONS))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // An error here has a better one before it, and a sweep as its remedy.
            let _ = fs::remove_file(&self.path);
        }
    }
}
