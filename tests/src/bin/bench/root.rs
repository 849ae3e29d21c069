//! A throw-away root with the configuration and keys of the fixture that the Keys Service's
//! conformance vectors use, and a manually provisioned device.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::measure::Plan;
use crate::process::Command;

/// Key files of the fixture: name below `keys/`, content.
const KEYS: [(&str, &[u8]); 2] = [
    (
        "handlevalidationkey-40f1ca41fe8b50f53e10f3e3a580dcae24087f37aa498ba9903f2612b03e90ba.key",
        &[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
            24, 25, 26, 27, 28, 29, 30, 31,
        ],
    ),
    (
        "imp-9bd65b64aa13ed0aee217b1954e908f7279782863f8576c6751a89275148ff3f.key",
        b"test-symmetric-key",
    ),
];

/// Connections a uid may have open; the load is eight, and the benchmark itself looks in too.
const MAX_REQUESTS: u32 = 64;

/// The age from which a key file's times are enough to tell that it has not changed, doubled.
const SETTLED: Duration = Duration::from_millis(100);

pub struct Root {
    directory: TempDir,
}

impl Root {
    pub fn new() -> Result<Self, String> {
        let directory = TempDir::with_prefix("aziot-bench-")
            .map_err(|e| format!("no temporary directory: {e}"))?;
        let root = Self { directory };
        root.fill()
            .map_err(|e| format!("{}: {e}", root.path().display()))?;
        // A key file that has only just been written is read anew on every use.
        thread::sleep(SETTLED);
        Ok(root)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn fill(&self) -> std::io::Result<()> {
        let at = |path: &str| self.path().join(path);
        for directory in [
            "etc/aziot/keyd/config.d",
            "etc/aziot/identityd/config.d",
            "var/lib/aziot/keyd/keys",
            "var/lib/aziot/identityd",
            "var/secrets/aziot/keyd",
            "run/aziot",
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(at(directory))?;
        }
        for (name, content) in KEYS {
            write_private(&at("var/lib/aziot/keyd/keys").join(name), content)?;
        }
        write_private(
            &at("var/secrets/aziot/keyd/device-id"),
            b"a device key, 32 bytes long or so",
        )?;

        let uid = rustix::process::getuid().as_raw();
        let root = self.path().display();
        write_private(
            &at("etc/aziot/keyd/config.toml"),
            format!(
                r#"max_requests = {MAX_REQUESTS}

[aziot_keys]
homedir_path = "{root}/var/lib/aziot/keyd"

[preloaded_keys]
device-id = "file://{root}/var/secrets/aziot/keyd/device-id"

[[principal]]
uid = {uid}
keys = ["aziot_identityd_master_id", "device-id", "imp", "bench-*"]
"#
            )
            .as_bytes(),
        )?;
        write_private(
            &at("etc/aziot/identityd/config.toml"),
            format!(
                r#"hostname = "bench"
homedir = "{root}/var/lib/aziot/identityd"
max_requests = {MAX_REQUESTS}

[provisioning]
source = "manual"
iothub_hostname = "bench.azure-devices.net"
device_id = "bench"

[provisioning.authentication]
method = "sas"
device_id_pk = "device-id"

[[principal]]
uid = {uid}
name = "bench"
"#
            )
            .as_bytes(),
        )
    }

    /// Where a service listens: `keyd` or `identityd`.
    pub fn socket(&self, service: &str) -> PathBuf {
        self.path()
            .join("run/aziot")
            .join(format!("{service}.sock"))
    }

    /// A file below the root for anything else.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A service of `aziotd` in this root.
    pub fn service(&self, plan: &Plan, service: &str) -> Command {
        Command::new(&plan.aziotd, &self.path().join(format!("{service}.log")))
            .argument(format!("aziot-{service}"))
            .variable("AZIOT_ROOT", self.path())
            .variable("LD_LIBRARY_PATH", &plan.programs)
    }
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}
