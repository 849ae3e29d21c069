//! Notices changes of configuration files (inotify(7)).
//!
//! Directories are watched, not files, so that a file replaced by rename is seen every time, and one that appears later as
//! well. Where a directory does not exist yet, its nearest existing ancestor is watched for it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::config_files::is_drop_in;

/// The watch on one service's main file and drop-in directory.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    main: PathBuf,
    directory: PathBuf,
    watched: Vec<(i32, Interest)>,
}

/// What in a watched directory is of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Interest {
    /// One name: the main file, or the next directory on the way to something that does not exist yet.
    Name(OsString),
    /// Every `*.toml`: the drop-in directory itself.
    Toml,
}

const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

impl Watch {
    /// Watches the main file and the drop-in directory, whether they exist or not.
    ///
    /// # Errors
    /// Whatever the kernel reports, `EMFILE` when the user has too many inotify instances.
    pub fn new(main: &Path, directory: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut watch = Self {
            inotify,
            main: main.to_owned(),
            directory: directory.to_owned(),
            watched: Vec::new(),
        };
        watch.arm()?;
        Ok(watch)
    }

    /// Sets the watches that are missing. Directories that vanished and came back are found again here.
    fn arm(&mut self) -> io::Result<()> {
        self.watched.clear();
        let (main, directory) = (self.main.clone(), self.directory.clone());
        self.watch_for(&main)?;
        self.watch_for(&directory)?;
        if let Some(wd) = self.add(&directory)? {
            self.watched.push((wd, Interest::Toml));
        }
        Ok(())
    }

    /// Watches the nearest existing ancestor of `path` for the next component on the way to it.
    fn watch_for(&mut self, path: &Path) -> io::Result<()> {
        let mut target = path;
        while let (Some(parent), Some(name)) = (target.parent(), target.file_name()) {
            let place = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            if let Some(wd) = self.add(place)? {
                self.watched.push((wd, Interest::Name(name.to_owned())));
                return Ok(());
            }
            target = parent;
        }
        Ok(())
    }

    fn add(&self, directory: &Path) -> io::Result<Option<i32>> {
        use rustix::io::Errno;
        match inotify::add_watch(&self.inotify, directory, CHANGES) {
            Ok(wd) => Ok(Some(wd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what has happened; true when something of interest was among it.
    pub fn changed(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut changed = false;
        let mut any = false;
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            any = true;
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changed = true;
                continue;
            }
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            changed |=
                self.watched
                    .iter()
                    .filter(|(wd, _)| *wd == event.wd())
                    .any(|(_, interest)| {
                        match (interest, name) {
                            (Interest::Name(wanted), Some(name)) => wanted == name,
                            (Interest::Toml, Some(name)) => is_drop_in(name),
                            // Something happened to the watched directory itself.
                            (_, None) => flags.intersects(
                                ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED,
                            ),
                        }
                    });
        }
        if any {
            self.renew();
        }
        changed
    }

    /// Sets the watches that are missing, and says so if that is not possible.
    pub fn renew(&mut self) {
        if let Err(error) = self.arm() {
            log::warn!(
                "could not go on watching {}: {error}; restart the service after changes",
                self.main.display()
            );
        }
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let main = root.path().join("svc/config.toml");
        let directory = root.path().join("svc/config.d");
        (root, main, directory)
    }

    fn replace(path: &Path, text: &str) {
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, path).unwrap();
    }

    #[test]
    fn cl_10_every_replacement_by_rename_is_seen() {
        let (_root, main, directory) = place();
        fs::create_dir_all(&directory).unwrap();
        fs::write(&main, "").unwrap();
        let mut watch = Watch::new(&main, &directory).unwrap();
        for n in 0..5 {
            replace(&main, &n.to_string());
            assert!(watch.changed(), "replacement {n} of the main file");
            replace(&directory.join("a.toml"), &n.to_string());
            assert!(watch.changed(), "replacement {n} of a drop-in");
        }
        assert!(!watch.changed());
    }

    #[test]
    fn cl_09_reading_and_foreign_names_are_no_change() {
        let (_root, main, directory) = place();
        fs::create_dir_all(&directory).unwrap();
        fs::write(&main, "").unwrap();
        fs::write(directory.join("a.toml"), "").unwrap();
        let mut watch = Watch::new(&main, &directory).unwrap();
        fs::read(&main).unwrap();
        fs::read(directory.join("a.toml")).unwrap();
        fs::write(directory.join("a.toml.bak"), "x").unwrap();
        fs::write(main.with_file_name("other.toml"), "x").unwrap();
        assert!(!watch.changed());
    }

    #[test]
    fn late_directories_are_found() {
        let (_root, main, directory) = place();
        let mut watch = Watch::new(&main, &directory).unwrap();
        fs::create_dir(main.parent().unwrap()).unwrap();
        assert!(watch.changed());
        fs::create_dir(&directory).unwrap();
        assert!(watch.changed());
        fs::write(directory.join("x.toml"), "").unwrap();
        assert!(watch.changed());
        fs::write(&main, "").unwrap();
        assert!(watch.changed());
        fs::remove_dir_all(&directory).unwrap();
        assert!(watch.changed());
        fs::create_dir(&directory).unwrap();
        assert!(watch.changed());
        fs::write(directory.join("y.toml"), "").unwrap();
        assert!(watch.changed());
    }
}
