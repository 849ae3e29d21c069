//! Software tokens by SoftHSM: each test has a directory of tokens of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::token::{PIN, SO_PIN, Token};

/// Where distributions put the module.
const MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/arm-linux-gnueabihf/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// The variable with the root of another release, whose libraries the programs under test run with (`cross/stage`).
pub const SYSROOT: &str = "AZIOT_TEST_SYSROOT";

/// SoftHSM with a directory of tokens.
#[derive(Debug)]
pub struct SoftHsm {
    directory: PathBuf,
}

/// A token's files, taken away.
#[derive(Debug)]
pub struct Removed {
    place: PathBuf,
    kept: PathBuf,
}

impl SoftHsm {
    /// Makes the directory, without a token.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let tokens = directory.join("tokens");
        fs::create_dir_all(&tokens).expect("a directory for tokens");
        fs::create_dir_all(directory.join("removed")).expect("a directory for removed tokens");
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(directory.join("softhsm2.conf"), config).expect("SoftHSM's configuration");
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The module. With [`SYSROOT`] in the environment it is that of the sysroot.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn module() -> PathBuf {
        let sysroot = std::env::var(SYSROOT).unwrap_or_default();
        MODULES
            .iter()
            .map(|path| PathBuf::from(format!("{sysroot}{path}")))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("SoftHSM is in none of {MODULES:?}; `make test` installs it"))
    }

    fn configuration(&self) -> OsString {
        self.directory.join("softhsm2.conf").into()
    }

    /// A token by its label, which need not be there.
    #[must_use]
    pub fn token(&self, label: &str) -> Token {
        Token::new(
            Self::module(),
            label,
            &[("SOFTHSM2_CONF", &self.configuration())],
        )
    }

    /// Makes a token.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn initialize(&self, label: &str) -> Token {
        self.initialize_with_pin(label, PIN)
    }

    /// Makes a token with another PIN than the one its URI will have.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn initialize_with_pin(&self, label: &str, pin: &str) -> Token {
        let output = Command::new("softhsm2-util")
            .arg("--module")
            .arg(Self::module())
            .args(["--init-token", "--free", "--label", label])
            .args(["--pin", pin, "--so-pin", SO_PIN])
            .env("SOFTHSM2_CONF", self.configuration())
            .output()
            .expect("`softhsm2-util`; `make test` installs it");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        self.token(label)
    }

    /// The directories of the tokens that are there.
    ///
    /// # Panics
    /// When they cannot be listed.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        fs::read_dir(self.directory.join("tokens"))
            .expect("the directory of tokens")
            .map(|entry| entry.expect("an entry of the directory").path())
            .collect()
    }

    /// Takes all tokens out.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn remove_all(&self) -> Vec<Removed> {
        let places = self.directories();
        assert!(!places.is_empty(), "there is a token to remove");
        places
            .into_iter()
            .map(|place| {
                let kept = self
                    .directory
                    .join("removed")
                    .join(place.file_name().expect("a token's directory has a name"));
                fs::rename(&place, &kept).expect("the token is taken out");
                Removed { place, kept }
            })
            .collect()
    }
}

impl Removed {
    /// Puts the token back.
    ///
    /// # Panics
    /// When that fails.
    pub fn insert(self) {
        fs::rename(&self.kept, &self.place).expect("the token is put back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;
    use crate::token::tool;

    #[test]
    fn tokens_come_and_go() {
        let root = Root::new();
        let softhsm = SoftHsm::new(&root.join("softhsm"));
        let token = softhsm.initialize("Key pairs");
        assert_eq!(token.objects(), []);
        token.tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "one",
        ]);
        assert_eq!(token.classes("one"), ["Private Key", "Public Key"]);
        assert_eq!(token.classes("two"), [""; 0]);
        for removed in softhsm.remove_all() {
            assert!(softhsm.directories().is_empty());
            removed.insert();
        }
        assert_eq!(token.objects().len(), 2);
    }

    #[test]
    fn calls_are_written_down_and_answered() {
        let root = Root::new();
        let softhsm = SoftHsm::new(&root.join("softhsm"));
        let (token, recorder) = softhsm.initialize("Key pairs").recorded(&root);
        let list = || {
            let arguments = [
                "--token-label",
                token.label(),
                "--login",
                "--pin",
                PIN,
                "-O",
            ];
            tool(token.module(), token.envs(), &arguments)
        };
        list();
        assert_eq!(recorder.count("C_Login"), 1);
        assert_eq!(token.objects(), [], "unrecorded");
        recorder.script("C_Login 0x30 1\n");
        assert!(std::panic::catch_unwind(list).is_err());
        assert_eq!(recorder.left(), "");
        list();
        assert_eq!(recorder.count("C_Login"), 3);
    }
}
