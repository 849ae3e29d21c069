//! Finding and reading the configuration files of a service.
//!
//! A service has a main file and a directory of drop-ins. Both may be missing. Of the directory, only regular files
//! whose extension is exactly `toml` count, in byte order of their names; symbolic links are skipped with a warning.
//! `aziot_core::config` does the rest.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, FileType};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use aziot_core::config::{DOCUMENT_BYTES, DOCUMENTS, MERGED_BYTES, Merged, Problem};
use zeroize::Zeroizing;

use crate::paths::{Root, Service};

/// Where a service's configuration is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigFiles {
    /// The main file.
    pub file: PathBuf,
    /// The directory of drop-ins.
    pub directory: PathBuf,
}

/// A configuration file as read.
pub struct Document {
    /// Where it was.
    pub path: PathBuf,
    /// What it says. Wiped when dropped.
    pub text: Zeroizing<String>,
}

/// What was read, and what was skipped.
pub struct Read {
    /// The documents, in the order in which they are merged.
    pub documents: Vec<Document>,
    /// Entries of the directory that were skipped although somebody may have meant them to count.
    pub skipped: Vec<Skipped>,
}

/// An entry of the directory that was skipped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// The entry.
    pub path: PathBuf,
    /// What it is.
    pub kind: &'static str,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: skipped, because it is {}: replace it by a regular file",
            self.path.display(),
            self.kind
        )
    }
}

/// Why configuration files could not be read. Displays as `could not read config from PATH`; the reason is the source.
#[derive(Debug)]
pub struct ReadError {
    /// The file or directory.
    pub path: PathBuf,
    /// What went wrong with it.
    pub reason: Reason,
}

/// Reason of a [`ReadError`].
#[derive(Debug)]
pub enum Reason {
    /// The operating system refused.
    Io(io::Error),
    /// The content is not UTF-8.
    Encoding(std::str::Utf8Error),
    /// The content is not TOML, or a limit is exceeded.
    Content(Problem),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not read config from {}", self.path.display())
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match &self.reason {
            Reason::Io(error) => error,
            Reason::Encoding(error) => error,
            Reason::Content(problem) => problem,
        })
    }
}

impl ConfigFiles {
    /// Where the configuration of `service` is: what its environment variables name, or else the built-in place.
    pub fn of(service: Service, root: &Root) -> Self {
        Self::with_env(service, root, |name| std::env::var_os(name))
    }

    fn with_env(
        service: Service,
        root: &Root,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let (file, directory) = service.config_variables();
        let named = |name| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            file: named(file).unwrap_or_else(|| root.config_file(service)),
            directory: named(directory).unwrap_or_else(|| root.config_directory(service)),
        }
    }

    /// Reads the main file and the drop-ins.
    ///
    /// # Errors
    ///
    /// A file or the directory is there but cannot be read, or a file is not UTF-8 or too large.
    pub fn read(&self) -> Result<Read, ReadError> {
        self.read_except(OsStr::new(""))
    }

    /// As [`read`](Self::read), but as if there were no drop-in called `name`: for one that is about to be replaced.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_except(&self, name: &OsStr) -> Result<Read, ReadError> {
        let left_out = name;
        let mut documents = Vec::new();
        let mut total: usize = 0;
        match read_file(&self.file) {
            Ok(document) => documents.push(document),
            Err(ReadError {
                reason: Reason::Io(error),
                ..
            }) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        let (names, mut skipped) = self.list()?;
        skipped.retain(|skipped| skipped.path.file_name() != Some(left_out));
        for name in names.into_iter().filter(|name| name != left_out) {
            let document = read_file(&self.directory.join(name))?;
            // Merging would refuse them; but they must not all be read before.
            total = total.saturating_add(document.text.len());
            if total > MERGED_BYTES || documents.len() >= DOCUMENTS {
                let message = format!(
                    "{} and the files before it exceed the limit of {DOCUMENTS} files with {MERGED_BYTES} bytes",
                    document.path.display()
                );
                let remedy = "remove files that are not needed".into();
                return Err(ReadError {
                    path: document.path,
                    reason: Reason::Content(Problem {
                        location: None,
                        message,
                        remedy,
                    }),
                });
            }
            documents.push(document);
        }
        Ok(Read { documents, skipped })
    }

    /// Reads and merges all documents; what was skipped is logged.
    ///
    /// # Errors
    ///
    /// As [`Self::read`] and [`merge`].
    pub fn load(&self) -> Result<Merged, ReadError> {
        let read = self.read()?;
        for skipped in &read.skipped {
            log::warn!("{skipped}");
        }
        merge(&read)
    }

    /// Names of the drop-ins in order, and what was skipped.
    fn list(&self) -> Result<(Vec<OsString>, Vec<Skipped>), ReadError> {
        let refuse = |error| ReadError {
            path: self.directory.clone(),
            reason: Reason::Io(error),
        };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(refuse(error)),
        };
        let mut names = Vec::new();
        let mut skipped = Vec::new();
        for entry in entries {
            let entry = entry.map_err(refuse)?;
            let name = entry.file_name();
            if !is_drop_in(&name) {
                continue;
            }
            let kind = entry.file_type().map_err(refuse)?;
            if kind.is_file() {
                names.push(name);
            } else if !kind.is_dir() {
                skipped.push(Skipped {
                    path: entry.path(),
                    kind: describe(kind),
                });
            }
        }
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((names, skipped))
    }
}

/// Whether a file of this name in the directory counts: its extension is exactly `toml`.
pub fn is_drop_in(name: &OsStr) -> bool {
    Path::new(name).extension() == Some(OsStr::new("toml"))
}

/// Merges what was read.
///
/// # Errors
///
/// A document is not TOML, or a limit of `aziot_core::config` is exceeded.
pub fn merge(read: &Read) -> Result<Merged, ReadError> {
    merge_into(Merged::new(), read)
}

/// As [`merge`], on top of `merged`.
///
/// # Errors
///
/// As [`merge`].
pub fn merge_into(mut merged: Merged, read: &Read) -> Result<Merged, ReadError> {
    for Document { path, text } in &read.documents {
        merged
            .add(&path.to_string_lossy(), text)
            .map_err(|problem| ReadError {
                path: path.clone(),
                reason: Reason::Content(problem),
            })?;
    }
    Ok(merged)
}

/// Reads one configuration file. Never reads more than a document may have.
///
/// # Errors
///
/// The file cannot be read, is not UTF-8, or is too large.
pub fn read_file(path: &Path) -> Result<Document, ReadError> {
    let refuse = |reason| ReadError {
        path: path.to_path_buf(),
        reason,
    };
    let limit = u64::try_from(DOCUMENT_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let file = fs::File::open(path).map_err(|error| refuse(Reason::Io(error)))?;
    // With room for all of it from the start, no copies are left behind while it grows.
    let length = file
        .metadata()
        .map_or(limit, |metadata| metadata.len().saturating_add(1));
    let length = usize::try_from(length.min(limit)).unwrap_or(DOCUMENT_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(Reason::Io(error)))?;
    if bytes.len() > DOCUMENT_BYTES {
        return Err(refuse(Reason::Content(Problem {
            location: None,
            message: format!(
                "{} exceeds the limit of {DOCUMENT_BYTES} bytes",
                path.display()
            ),
            remedy: "split it into several files".into(),
        })));
    }
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error: FromUtf8Error| {
        let reason = Reason::Encoding(error.utf8_error());
        // The bytes are given back; they may hold a secret.
        drop(Zeroizing::new(error.into_bytes()));
        refuse(reason)
    })?;
    Ok(Document {
        path: path.to_path_buf(),
        text: Zeroizing::new(text),
    })
}

/// A file or directory that is not there. An empty path is not there either.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else {
        "not a regular file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aziot_core::config::{Places, keyd};
    use std::error::Error as _;
    use std::os::unix::fs::symlink;

    fn files(directory: &Path) -> ConfigFiles {
        ConfigFiles {
            file: directory.join("config.toml"),
            directory: directory.join("config.d"),
        }
    }

    fn names(read: &Read) -> Vec<String> {
        let name = |d: &Document| d.path.file_name().unwrap().to_string_lossy().into_owned();
        read.documents.iter().map(name).collect()
    }

    #[test]
    fn cl_02_missing_files_are_no_errors_unreadable_ones_are() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        assert!(files.read().unwrap().documents.is_empty());

        // A directory where a file should be, and the other way round.
        fs::create_dir(&files.file).unwrap();
        let error = files.read().err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("could not read config from {}", files.file.display())
        );
        assert_eq!(
            error.source().unwrap().to_string(),
            "Is a directory (os error 21)"
        );
        fs::remove_dir(&files.file).unwrap();
        fs::write(&files.directory, "").unwrap();
        let error = files.read().err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("could not read config from {}", files.directory.display())
        );
        assert_eq!(
            error.source().unwrap().to_string(),
            "Not a directory (os error 20)"
        );

        fs::remove_file(&files.directory).unwrap();
        fs::write(&files.file, b"a = \xff").unwrap();
        let error = files.read().err().unwrap();
        assert_eq!(
            error.source().unwrap().to_string(),
            "invalid utf-8 sequence of 1 bytes from index 4"
        );

        fs::write(&files.file, "a = 1\nb = [").unwrap();
        let error = merge(&files.read().unwrap()).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("could not read config from {}", files.file.display())
        );
        let cause = error.source().unwrap().to_string();
        assert!(
            cause.starts_with(&format!("{}:2:", files.file.display())),
            "{cause}"
        );
    }

    #[test]
    fn cl_03_only_regular_toml_files_count_in_byte_order() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fs::create_dir(&files.directory).unwrap();
        fs::write(&files.file, "").unwrap();
        for name in [
            "00-a.toml",
            "10-x.toml",
            "9-x.toml",
            "Z.toml",
            ".hid.toml",
            "a.toml",
            "zz.TOML",
            "zz.toml.bak",
            "zz.toml~",
            ".toml",
            "toml",
        ] {
            fs::write(files.directory.join(name), "").unwrap();
        }
        fs::create_dir(files.directory.join("sub.toml")).unwrap();
        symlink("00-a.toml", files.directory.join("zzz-link.toml")).unwrap();
        symlink("nowhere", files.directory.join("ignored-link")).unwrap();
        let read = files.read().unwrap();
        assert_eq!(
            names(&read),
            [
                "config.toml",
                ".hid.toml",
                "00-a.toml",
                "10-x.toml",
                "9-x.toml",
                "Z.toml",
                "a.toml"
            ]
        );
        assert_eq!(
            read.skipped,
            [Skipped {
                path: files.directory.join("zzz-link.toml"),
                kind: "a symbolic link"
            }]
        );
    }

    #[test]
    fn cl_04_environment_overrides() {
        let root = Root::at(Path::new("/r"));
        for service in Service::ALL {
            let (file, directory) = service.config_variables();
            let all = ConfigFiles::with_env(service, &root, |name| {
                if name == file {
                    Some("relative/main".into())
                } else if name == directory {
                    Some("/dir".into())
                } else {
                    Some("/wrong".into())
                }
            });
            assert_eq!(
                all,
                ConfigFiles {
                    file: "relative/main".into(),
                    directory: "/dir".into()
                }
            );
            // An empty variable means the default.
            for value in [None, Some(OsString::new())] {
                let default = ConfigFiles::with_env(service, &root, |_| value.clone());
                let expected = ConfigFiles {
                    file: root.config_file(service),
                    directory: root.config_directory(service),
                };
                assert_eq!(default, expected);
            }
        }
    }

    #[test]
    fn ks_30_loading_merges_files_and_points_into_them() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fs::create_dir(&files.directory).unwrap();
        fs::write(
            &files.file,
            "max_requests = 5\n[[principal]]\nuid = 1\nkeys = [\"a\"]\n",
        )
        .unwrap();
        let drop_in = files.directory.join("10.toml");
        fs::write(
            &drop_in,
            "max_requests = 6\n[[principal]]\nuid = 1\nkeys = [\"b\"]\n",
        )
        .unwrap();
        let decode = |merged: &Merged| keyd::Settings::read(merged, &Places::default());
        let loaded = decode(&files.load().unwrap()).unwrap();
        assert_eq!(loaded.settings.max_requests, 6);
        assert_eq!(loaded.settings.principals.len(), 2);

        fs::write(&drop_in, "\n\nmax_requests = \"6\"\n").unwrap();
        let cause = decode(&files.load().unwrap()).err().unwrap().to_string();
        assert!(
            cause.starts_with(&format!("{}:3:16: ", drop_in.display())),
            "{cause}"
        );
    }

    #[test]
    fn documents_over_the_limit_are_refused_without_being_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        fs::write(&path, vec![b'#'; DOCUMENT_BYTES]).unwrap();
        assert_eq!(read_file(&path).unwrap().text.len(), DOCUMENT_BYTES);
        fs::write(&path, vec![b'#'; DOCUMENT_BYTES + 1]).unwrap();
        let error = read_file(&path).err().unwrap();
        assert!(
            error
                .source()
                .unwrap()
                .to_string()
                .ends_with("exceeds the limit of 65536 bytes: split it into several files")
        );
        // Nor are more files read than can be merged.
        let files = files(directory.path());
        fs::create_dir(&files.directory).unwrap();
        for i in 0..5 {
            fs::write(
                files.directory.join(format!("{i}.toml")),
                vec![b'#'; DOCUMENT_BYTES],
            )
            .unwrap();
        }
        let error = files.read().err().unwrap();
        assert!(error.to_string().ends_with("config.d/4.toml"), "{error}");
        for i in 0..=DOCUMENTS {
            fs::write(files.directory.join(format!("{i}.toml")), "").unwrap();
        }
        assert!(
            files
                .read()
                .err()
                .unwrap()
                .source()
                .unwrap()
                .to_string()
                .contains("512 files")
        );
        // An endless file ends as well.
        assert!(read_file(Path::new("/dev/zero")).is_err());
    }
}
