//! A throw-away device: a directory that the daemons take for `/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::users;

/// A directory to be used as `AZIOT_ROOT`; it goes with the value.
#[derive(Debug)]
pub struct Root {
    directory: TempDir,
}

impl Default for Root {
    fn default() -> Self {
        Self::new()
    }
}

impl Root {
    /// A root with the directories that the packages would make, and no configuration.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new() -> Self {
        // The path stays short: a socket's path has 108 bytes at most.
        let directory = tempfile::Builder::new()
            .prefix("aziot-")
            .tempdir()
            .expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("a directory others can enter");
        let root = Self { directory };
        for service in ["keyd", "certd", "identityd", "tpmd"] {
            fs::create_dir_all(root.join(format!("etc/aziot/{service}/config.d")))
                .expect("a configuration directory");
            fs::create_dir_all(root.join(format!("var/lib/aziot/{service}")))
                .expect("a home directory");
        }
        fs::create_dir_all(root.join("run/aziot")).expect("a directory for sockets");
        fs::create_dir_all(root.join("var/secrets/aziot")).expect("a directory for secrets");
        root
    }

    /// A root whose Keys Service keeps its keys in `var/lib/aziot/keyd`; `more` is appended to its main file.
    #[must_use]
    pub fn with_keyd(more: &str) -> Self {
        let root = Self::new();
        root.keyd_config(more);
        root
    }

    /// Writes the main file of the Keys Service. `more` is put before or after the table with the home directory, as its
    /// first line requires. Anyone but root gets a principal, because only root may use every key without one.
    pub fn keyd_config(&self, more: &str) {
        let mut keys = format!(
            "[aziot_keys]\nhomedir_path = \"{}\"\n",
            self.join("var/lib/aziot/keyd").display()
        );
        keys.push_str(&users::principal());
        let text = if more.trim_start().starts_with('[') || more.is_empty() {
            format!("{keys}\n{more}")
        } else {
            format!("{more}\n{keys}")
        };
        self.write("etc/aziot/keyd/config.toml", &text);
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path under it.
    #[must_use]
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path().join(relative)
    }

    /// The socket of a service by its short name, `keyd` for example.
    #[must_use]
    pub fn socket(&self, service: &str) -> PathBuf {
        self.join(format!("run/aziot/{service}.sock"))
    }

    /// The file that the Keys Service would keep a key in.
    #[must_use]
    pub fn key_file(&self, id: &str) -> PathBuf {
        use std::fmt::Write as _;

        use sha2::{Digest as _, Sha256};

        let plain: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let mut name = format!("{plain}-");
        for byte in Sha256::digest(id.as_bytes()) {
            let _ = write!(name, "{byte:02x}");
        }
        self.join(format!("var/lib/aziot/keyd/keys/{name}.key"))
    }

    /// Writes a file, and the directories on the way to it.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, relative: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(relative);
        fs::create_dir_all(path.parent().expect("a path under the root"))
            .expect("a directory for the file");
        fs::write(&path, contents).expect("the file is written");
        path
    }

    /// Replaces a file the way careful programs do: by renaming a complete one over it.
    ///
    /// # Panics
    /// When that fails.
    pub fn replace(&self, relative: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        let path = self.join(relative);
        let temporary = path.with_extension("new");
        fs::write(&temporary, contents).expect("the file is written");
        fs::rename(&temporary, &path).expect("the file is renamed");
    }
}

/// Copies a directory with everything in it.
///
/// # Panics
/// When that fails.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory to copy to");
    for entry in fs::read_dir(from).expect("a directory to copy") {
        let entry = entry.expect("an entry of the directory");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the type of an entry").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the file is copied");
        }
    }
}
