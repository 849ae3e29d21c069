//! Tokens to test with.
//!
//! Modules read the environment, which a process has only one of. So every test that needs a token runs its body in a
//! process of its own: the test program again, asked for that one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aziot_core::uri::Pkcs11 as Uri;
use aziot_crypto::pkcs11::{Module, Timing, Token};

/// Where the directory of a test is told to its own process.
const DIRECTORY: &str = "PKCS11_TEST_DIRECTORY";

pub const PIN: &str = "1234";

/// Runs the body of a test alone, with a directory of its own and the module behind the recording shim.
pub fn alone(test: &str, backend: &Backend, body: impl FnOnce(&Fixture)) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        body(&Fixture {
            directory: directory.into(),
        });
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture {
        directory: directory.path().to_owned(),
    };
    compile(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools/p11shim.c"),
        &fixture.shim(),
    );
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .env("P11SHIM_MODULE", backend.module())
        .env("P11SHIM_LOG", fixture.log())
        .env("P11SHIM_CONTROL", fixture.script());
    let _running = backend.prepare(&fixture, &mut child);
    let output = child.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{test}: {}\n{text}", output.status);
    assert!(
        text.contains("1 passed"),
        "there is no test {test}:\n{text}"
    );
}

/// A module and how to get a token for it.
pub enum Backend {
    SoftHsm,
    Tpm,
}

impl Backend {
    pub fn module(&self) -> PathBuf {
        let candidates: &[&str] = match self {
            Self::SoftHsm => &["softhsm/libsofthsm2.so"],
            Self::Tpm => &["pkcs11/libtpm2_pkcs11.so", "libtpm2_pkcs11.so.1"],
        };
        ["/usr/lib", "/usr/lib64"]
            .into_iter()
            .map(PathBuf::from)
            .chain(triplets())
            .flat_map(|directory| candidates.iter().map(move |name| directory.join(name)))
            .find(|path| path.exists())
            .unwrap_or_else(|| {
                panic!("{candidates:?} is missing; `scripts/install-deps test` installs it")
            })
    }

    fn prepare(&self, fixture: &Fixture, child: &mut Command) -> Option<super::tpm::Tpm> {
        match self {
            Self::SoftHsm => {
                fs::create_dir(fixture.directory.join("tokens")).unwrap();
                let configuration = fixture.directory.join("softhsm2.conf");
                fs::write(
                    &configuration,
                    format!(
                        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                        fixture.directory.join("tokens").display()
                    ),
                )
                .unwrap();
                child.env("SOFTHSM2_CONF", configuration);
                None
            }
            Self::Tpm => Some(super::tpm::Tpm::start(fixture, child)),
        }
    }
}

/// The multi-architecture library directories of this machine.
fn triplets() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("-linux-gnu"))
}

/// Compiles a C file into a shared object.
pub fn compile(source: &Path, output: &Path) {
    let flags = run(Command::new("pkg-config").args(["--cflags", "p11-kit-1"]));
    run(Command::new("cc")
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fPIC",
            "-shared",
        ])
        .args(flags.split_whitespace())
        .arg("-o")
        .arg(output)
        .arg(source)
        .arg("-ldl"));
}

/// What a program writes to its standard output, if it succeeds.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|err| {
        panic!("{command:?}: {err}; `scripts/install-deps test` installs it")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The directory of a test, and what is in it.
pub struct Fixture {
    pub directory: PathBuf,
}

impl Fixture {
    /// The shim.
    pub fn shim(&self) -> PathBuf {
        self.directory.join("p11shim.so")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("calls")
    }

    fn script(&self) -> PathBuf {
        self.directory.join("control")
    }

    /// The shim as a module, in a hurry.
    pub fn module(&self) -> Module {
        Module::with_timing(
            &self.shim(),
            Timing {
                reload: Duration::from_millis(300),
                session_wait: Duration::from_secs(5),
                ..Timing::DEFAULT
            },
        )
    }

    /// A new SoftHSM token.
    pub fn init_token(&self, label: &str) {
        self.init_token_with_pin(label, PIN);
    }

    pub fn init_token_with_pin(&self, label: &str, pin: &str) {
        run(Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--pin", pin, "--so-pin", pin]));
    }

    /// A new SoftHSM token with the label `keys`, with the right PIN.
    pub fn token(&self) -> Token {
        self.init_token("keys");
        self.known_token()
    }

    /// The one that [`Fixture::token`] made.
    pub fn known_token(&self) -> Token {
        token(
            &self.module(),
            &format!("pkcs11:token=keys?pin-value={PIN}"),
        )
    }

    /// The calls that were recorded so far, and no longer are.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.log()).unwrap_or_default();
        let _ = fs::remove_file(self.log());
        calls.lines().map(str::to_owned).collect()
    }

    /// How many calls of a function there were since the record was last read.
    pub fn count(&self, function: &str) -> usize {
        count(&self.calls(), function)
    }

    /// What the shim is to answer.
    pub fn control(&self, script: &str) {
        fs::write(self.script(), format!("{script}\n")).unwrap();
    }

    /// What of that it did not need.
    pub fn rest_of_control(&self) -> String {
        fs::read_to_string(self.script()).unwrap()
    }
}

pub fn count(calls: &[String], function: &str) -> usize {
    calls
        .iter()
        .filter(|call| call.split(' ').next() == Some(function))
        .count()
}

/// The token that a URI names.
pub fn token(module: &Module, uri: &str) -> Token {
    let mut decoded = vec![0; uri.len()];
    module.token(&Uri::parse(uri, &mut decoded).unwrap())
}
