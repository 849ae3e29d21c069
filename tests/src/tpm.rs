//! A software TPM with a resource manager, and a token of tpm2-pkcs11 in it: each test has its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::client::eventually;
use crate::daemon::{Daemon, Launch};
use crate::root::Root;
use crate::token::{PIN, SO_PIN, Token, tool};

/// Where distributions put the module.
const MODULES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/arm-linux-gnueabihf/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib64/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1",
];

/// The label of the token.
const LABEL: &str = "aziot";

/// swtpm with its state in a root, behind a resource manager as on any device: tpm2-pkcs11 keeps more objects loaded than a TPM
/// has room for. They end with the value.
#[derive(Debug)]
pub struct Tpm {
    manager: Option<Daemon>,
    process: Option<Daemon>,
    /// Where the resource manager offers itself.
    _bus: Daemon,
    directory: PathBuf,
    bus: OsString,
}

/// How to reach the resource manager.
const TCTI: &str = "tabrmd:bus_type=session";

impl Tpm {
    /// Starts a new TPM whose state lies in the root.
    ///
    /// # Panics
    /// When swtpm, or the resource manager, does not start.
    #[must_use]
    pub fn start(root: &Root) -> Self {
        let directory = root.join("tpm");
        fs::create_dir_all(directory.join("state")).expect("a directory for the TPM's state");
        fs::create_dir_all(directory.join("store")).expect("a directory for tpm2-pkcs11");
        let socket = directory.join("bus");
        let mut bus = OsString::from("unix:path=");
        bus.push(&socket);
        let mut address = OsString::from("--address=");
        address.push(&bus);
        let daemon = Launch::program(PathBuf::from("dbus-daemon"), root)
            .arg("--session")
            .arg("--nofork")
            .arg("--nopidfile")
            .arg(address)
            .socket(socket)
            .start();
        let mut tpm = Self {
            manager: None,
            process: None,
            _bus: daemon,
            directory,
            bus,
        };
        tpm.resume(root);
        tpm
    }

    /// Starts it again with the state it had.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn resume(&mut self, root: &Root) {
        assert!(self.process.is_none(), "the TPM runs already");
        let socket = self.directory.join("sock");
        // Where the TSS's driver looks for it.
        let control = self.directory.join("sock.ctrl");
        // The sockets of one that was killed are still there.
        for path in [&socket, &control] {
            let _ = fs::remove_file(path);
        }
        let process = Launch::program(PathBuf::from("swtpm"), root)
            .arg("socket")
            .arg("--tpm2")
            .arg("--tpmstate")
            .arg(format!("dir={}", self.directory.join("state").display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", control.display()))
            .arg("--flags")
            .arg("not-need-init,startup-clear")
            .socket(&socket)
            .start();
        self.process = Some(process);
        let manager = Launch::program(PathBuf::from("tpm2-abrmd"), root)
            .arg("--session")
            .arg("--allow-root")
            .arg(format!("--tcti=swtpm:path={}", socket.display()))
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
            .spawn();
        self.manager = Some(manager);
        eventually("the resource manager answers", || {
            Command::new("tpm2_getrandom")
                .args(["--hex", "4", "--tcti", TCTI])
                .env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
                .output()
                .expect("`tpm2_getrandom`; `make test` installs it")
                .status
                .success()
        });
    }

    /// Ends it as a reset or a crash would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("the TPM runs").kill();
        // It may have noticed, and ended itself.
        drop(self.manager.take());
    }

    /// The module.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn module() -> PathBuf {
        MODULES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .unwrap_or_else(|| {
                panic!("tpm2-pkcs11 is in none of {MODULES:?}; `make test` installs it")
            })
    }

    /// Makes the token.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn initialize(&self) -> Token {
        let store = self.directory.join("store").into_os_string();
        let envs: [(&str, &OsStr); 4] = [
            ("DBUS_SESSION_BUS_ADDRESS", &self.bus),
            ("TPM2_PKCS11_STORE", &store),
            ("TPM2_PKCS11_TCTI", OsStr::new(TCTI)),
            ("TSS2_LOG", OsStr::new("all+none")),
        ];
        let owned: Vec<(OsString, OsString)> = envs
            .iter()
            .map(|(name, value)| (OsString::from(name), (*value).to_owned()))
            .collect();
        // An empty store offers one token to be initialised, in slot 1.
        let init = [
            "--init-token",
            "--slot",
            "1",
            "--label",
            LABEL,
            "--so-pin",
            SO_PIN,
        ];
        tool(&Self::module(), &owned, &init);
        let pin = [
            "--init-pin",
            "--token-label",
            LABEL,
            "--login",
            "--login-type",
            "so",
            "--so-pin",
            SO_PIN,
            "--new-pin",
            PIN,
        ];
        tool(&Self::module(), &owned, &pin);
        Token::new(Self::module(), LABEL, &envs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_outlives_its_tpm_process() {
        let root = Root::new();
        let mut tpm = Tpm::start(&root);
        let token = tpm.initialize();
        token.tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "one",
        ]);
        tpm.kill();
        tpm.resume(&root);
        assert_eq!(token.classes("one"), ["Private Key", "Public Key"]);
        fs::write(root.join("digest"), [7; 32]).unwrap();
        let (input, output) = (root.join("digest"), root.join("signature"));
        token.tool(&[
            "--sign",
            "--mechanism",
            "ECDSA",
            "--label",
            "one",
            "--input-file",
            input.to_str().unwrap(),
            "--output-file",
            output.to_str().unwrap(),
        ]);
        assert_eq!(fs::read(output).unwrap().len(), 64);
    }
}
