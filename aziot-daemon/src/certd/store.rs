//! The files of certificates: text, read and written as it is (certificates-service 3).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aziot_core::limits::BODY_CERTIFICATES;
use aziot_crypto::file;
use rustix::fs::{Access, Mode};

use super::error::Error;
use super::target::{EXTENSION, Place, Preloaded, Target};

/// Largest certificate that is read, in bytes, with everything that a list stands for: what can be imported.
const LIMIT: usize = BODY_CERTIFICATES;

/// Mode of the home directory, should it be missing. It keeps others away from all that is in it.
const HOME_MODE: u32 = 0o700;

/// Modes of the directory of certificates and of a new file, less the umask.
const DIRECTORY_MODE: u32 = 0o777;
const FILE_MODE: u32 = 0o666;

/// The store, and the files that a configuration names.
#[derive(Debug)]
pub struct Store {
    home: PathBuf,
    certs: PathBuf,
    file_mode: u32,
}

impl Store {
    /// The store in the home directory `home`. To be called while there is one thread.
    #[must_use]
    pub fn new(home: &str) -> Self {
        let home = PathBuf::from(home);
        let certs = home.join("certs");
        Self {
            home,
            certs,
            file_mode: FILE_MODE & !umask(),
        }
    }

    /// The directory of the stored certificates.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.certs
    }

    /// What `id` stands for. Touches no disk.
    ///
    /// # Errors
    /// See [`Target::resolve`].
    pub fn target(&self, preloaded: &Preloaded, id: &str) -> Result<Target, Error> {
        Target::resolve(&self.certs, preloaded, id)
    }

    /// Reads a certificate. `None` if there is none: of a list, if there is none at all.
    ///
    /// # Errors
    /// A file that cannot be read, or is not text, or too long.
    pub fn read(&self, target: &Target) -> Result<Option<String>, Error> {
        let read = match target.place() {
            Place::Store(path) => {
                self.make_directory()?;
                read_text(path)
            }
            Place::File(path) => read_text(path),
            Place::List(parts) => {
                if parts.iter().any(|part| part.stored) {
                    self.make_directory()?;
                }
                read_all(target.id(), parts.iter().map(|part| part.path.as_path()))
            }
        };
        read.map_err(|error| error.in_context("could not read cert file"))
    }

    /// Stores a certificate in the place of what was there.
    ///
    /// # Errors
    /// The id is that of a list, or the file cannot be written.
    pub fn write(&self, target: &Target, text: &str) -> Result<(), Error> {
        let path = target.single()?;
        if matches!(target.place(), Place::Store(_)) {
            self.make_directory()?;
        }
        let options = file::Options {
            keep_existing: true,
            follow_links: true,
            in_place: true,
            ..file::Options::new(self.file_mode)
        };
        done(file::replace(path, text.as_bytes(), options))
            .map_err(|error| Error::internal("could not write cert file").caused_by(error))
    }

    /// Removes a certificate, if it is there.
    ///
    /// # Errors
    /// The id is that of a list, or the file cannot be removed.
    pub fn remove(&self, target: &Target) -> Result<(), Error> {
        let path = target.single()?;
        if matches!(target.place(), Place::Store(_)) {
            self.make_directory()?;
        }
        done(file::remove(path).map(drop))
            .map_err(|error| Error::internal("could not delete cert file").caused_by(error))
    }

    /// Whether a certificate could be stored, as far as that can be told beforehand: an issued certificate that cannot be
    /// is lost.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check_writable(&self, target: &Target) -> Result<(), Error> {
        let path = target.single()?;
        if matches!(target.place(), Place::Store(_)) {
            self.make_directory()?;
        }
        let failed = |cause: Cow<'_, str>| {
            Err(Error::internal("could not write cert file").caused_by(cause))
        };
        let exists = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => true,
            Ok(_) => return failed(format!("{} is not a regular file", path.display()).into()),
            // A symbolic link that leads nowhere yet is followed when the file is written.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_symlink() => {
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return failed(format!("could not examine {}: {error}", path.display()).into());
            }
        };
        let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = file.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            return failed(
                format!(
                    "there is no directory {} for {}; make it, or change preloaded_certs",
                    directory.display(),
                    path.display()
                )
                .into(),
            );
        }
        // A file is replaced in its directory, or else written in place.
        let may = |path: &Path, access| rustix::fs::access(path, access).is_ok();
        if may(directory, Access::WRITE_OK | Access::EXEC_OK)
            || exists && may(&file, Access::WRITE_OK)
        {
            return Ok(());
        }
        failed(
            format!(
                "this service may write neither {} nor its directory; give it the right to, or change preloaded_certs",
                file.display()
            )
            .into(),
        )
    }

    /// The names of the files in the store, without those that are being written.
    ///
    /// # Errors
    /// The directory is there, but cannot be listed.
    pub fn files(&self) -> Result<BTreeSet<String>, Error> {
        let failed = |error| {
            Error::internal(format_args!(
                "could not list the directory {}: {error}",
                self.certs.display()
            ))
        };
        let entries = match std::fs::read_dir(&self.certs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            names.extend(
                name.to_str()
                    .filter(|name| name.ends_with(EXTENSION))
                    .map(str::to_owned),
            );
        }
        Ok(names)
    }

    /// Reads a file of the store, whatever its id. `None` if it is not there any more.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_file(&self, path: &Path) -> Result<Option<String>, Error> {
        read_text(path).map_err(|error| error.in_context("could not read cert file"))
    }

    /// Removes what a crash has left.
    pub fn sweep(&self) {
        match file::sweep(&self.certs) {
            Ok(0) => {}
            Ok(count) => log::info!("removed {count} left-over temporary files"),
            Err(error) => log::warn!("{error}"),
        }
    }

    /// Clients and `aziotctl` look for the directory, so it is made as soon as it is asked for.
    fn make_directory(&self) -> Result<(), Error> {
        if self.certs.is_dir() {
            return Ok(());
        }
        file::create_directories(&self.home, HOME_MODE)
            .and_then(|()| file::create_directories(&self.certs, DIRECTORY_MODE))
            .map_err(|error| {
                Error::internal("could not get file path corresponding to cert ID").caused_by(error)
            })
    }
}

/// A change that cannot be made to last is a change all the same: only a power cut could still undo it.
fn done(result: Result<(), file::Error>) -> Result<(), file::Error> {
    match result {
        Err(error) if error.step() == file::Step::SyncDirectory => {
            log::warn!("{error}");
            Ok(())
        }
        result => result,
    }
}

/// One file after the other, without those that are missing.
fn read_all<'p>(id: &str, paths: impl Iterator<Item = &'p Path>) -> Result<Option<String>, Error> {
    let mut all: Option<String> = None;
    for path in paths {
        let left = LIMIT.saturating_sub(all.as_ref().map_or(0, String::len));
        let Some(text) = read_text(path)? else {
            continue;
        };
        if text.len() > left {
            return Err(Error::internal(format_args!(
                "what preloaded cert {id:?} stands for is longer than {LIMIT} bytes"
            )));
        }
        match &mut all {
            None => all = Some(text),
            Some(before) => {
                // OpenSSL refuses two certificates in one line.
                if !before.is_empty() && !before.ends_with('\n') {
                    before.push('\n');
                }
                before.push_str(&text);
            }
        }
    }
    Ok(all)
}

fn read_text(path: &Path) -> Result<Option<String>, Error> {
    let contents = match file::read(path, LIMIT) {
        Ok(Some(contents)) => contents,
        Ok(None) => return Ok(None),
        Err(error) => return Err(Error::internal(error)),
    };
    match std::str::from_utf8(&contents.bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(error) => Err(Error::internal(format_args!(
            "{} is not text: {error}; certificates are stored as PEM",
            path.display()
        ))),
    }
}

/// The umask of the process, which can only be read by changing it.
fn umask() -> u32 {
    let mask = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use aziot_core::config::certd::PreloadedCert;

    use super::*;
    use crate::certd::target::file_name;

    struct Fixture {
        directory: tempfile::TempDir,
        store: Store,
        preloaded: Preloaded,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let home = directory.path().join("home");
            Self {
                // Tests share the process's umask, which is not to be changed beside other threads.
                store: Store {
                    certs: home.join("certs"),
                    home,
                    file_mode: 0o644,
                },
                preloaded: Preloaded::new(),
                directory,
            }
        }

        fn preload(&mut self, id: &str, cert: PreloadedCert) {
            self.preloaded.insert(id.to_owned(), cert);
        }

        fn file(&mut self, id: &str) -> PathBuf {
            let path = self.directory.path().join(id);
            self.preload(id, PreloadedCert::Uri(format!("file://{}", path.display())));
            path
        }

        fn list(&mut self, id: &str, ids: &[&str]) {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            self.preload(id, PreloadedCert::Ids(ids));
        }

        fn read(&self, id: &str) -> Result<Option<String>, Error> {
            self.store
                .target(&self.preloaded, id)
                .and_then(|target| self.store.read(&target))
        }

        fn write(&self, id: &str, text: &str) -> Result<(), Error> {
            self.store
                .target(&self.preloaded, id)
                .and_then(|target| self.store.write(&target, text))
        }

        fn remove(&self, id: &str) -> Result<(), Error> {
            self.store
                .target(&self.preloaded, id)
                .and_then(|target| self.store.remove(&target))
        }
    }

    #[test]
    fn cs_11_text_comes_back_as_it_was() {
        let fixture = Fixture::new();
        assert_eq!(fixture.read("x"), Ok(None));
        assert!(fixture.store.directory().is_dir(), "made by a read");
        for text in ["hello", "", "no line end", "\r\n\u{fe0f} ß\n"] {
            fixture.write("x", text).unwrap();
            assert_eq!(fixture.read("x").unwrap().as_deref(), Some(text));
        }
        let path = fixture.store.directory().join(file_name("x"));
        let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o644);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        fixture.write("x", "again").unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "kept");
        fixture.remove("x").unwrap();
        fixture.remove("x").unwrap();
        assert_eq!(fixture.read("x"), Ok(None));
        let home = std::fs::metadata(&fixture.store.home).unwrap();
        assert_eq!(home.mode() & 0o777, 0o700);
    }

    #[test]
    fn cs_14_parts_get_a_line_end_only_where_one_is_missing() {
        let mut fixture = Fixture::new();
        let (a, b) = (fixture.file("a"), fixture.file("b"));
        fixture.list("all", &["a", "missing", "b", "stored"]);
        assert_eq!(fixture.read("all"), Ok(None));
        std::fs::write(&b, "B").unwrap();
        assert_eq!(fixture.read("all").unwrap().unwrap(), "B");
        std::fs::write(&a, "A\n").unwrap();
        assert_eq!(fixture.read("all").unwrap().unwrap(), "A\nB");
        fixture.write("stored", "S\n").unwrap();
        assert_eq!(fixture.read("all").unwrap().unwrap(), "A\nB\nS\n");
        for refused in [fixture.write("all", "x"), fixture.remove("all")] {
            assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .contains("is a list of IDs")
            );
        }
    }

    #[test]
    fn cs_16_what_is_not_text_is_an_error() {
        let mut fixture = Fixture::new();
        let path = fixture.file("der");
        std::fs::write(&path, b"\x30\x82\xff\xff").unwrap();
        fixture.list("list", &["der"]);
        for id in ["der", "list"] {
            let text = fixture.read(id).unwrap_err().to_string();
            assert!(
                text.starts_with("could not read cert file\n") && text.contains("is not text"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        let mut fixture = Fixture::new();
        let path = fixture.file("long");
        std::fs::write(&path, vec![b'a'; LIMIT]).unwrap();
        fixture.list("twice", &["long", "long"]);
        assert_eq!(fixture.read("long").unwrap().unwrap().len(), LIMIT);
        assert!(
            fixture
                .read("twice")
                .unwrap_err()
                .to_string()
                .contains("is longer than")
        );
        std::fs::write(&path, vec![b'a'; LIMIT + 1]).unwrap();
        assert!(
            fixture
                .read("long")
                .unwrap_err()
                .to_string()
                .contains("longer than the limit")
        );
    }

    #[test]
    fn what_cannot_be_stored_is_known_beforehand() {
        let mut fixture = Fixture::new();
        let path = fixture.file("file");
        let gone = fixture.directory.path().join("gone/file");
        fixture.preload(
            "gone",
            PreloadedCert::Uri(format!("file://{}", gone.display())),
        );
        fixture.preload(
            "directory",
            PreloadedCert::Uri(format!("file://{}", fixture.directory.path().display())),
        );
        fixture.list("list", &["file"]);
        let check = |id: &str| {
            fixture
                .store
                .target(&fixture.preloaded, id)
                .and_then(|target| fixture.store.check_writable(&target))
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("stored"), Ok(()));
        assert_eq!(check("file"), Ok(()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(check("file"), Ok(()));
        for (id, reason) in [
            ("gone", "there is no directory"),
            ("directory", "is not a regular file"),
            ("list", "is a list of IDs"),
            (&"a".repeat(187), "would have 256 bytes"),
        ] {
            assert!(check(id).unwrap_err().contains(reason), "{id}");
        }
    }
}
