//! PKCS#11 tokens for the Keys Service, whatever they are made of: how they are configured, what is in them, and a recorder
//! between the service and the module.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries;
use crate::daemon::Launch;
use crate::root::Root;

/// The user PIN of every token in the tests. Nothing else in a log looks like it.
pub const PIN: &str = "x7Qm2Lv9";

/// The security officer's PIN of every token in the tests.
pub const SO_PIN: &str = "56789012";

/// A token in a module, and the environment that the module needs to find it.
#[derive(Clone, Debug)]
pub struct Token {
    module: PathBuf,
    /// What does the work, also when calls of the service are recorded.
    real: PathBuf,
    label: String,
    envs: Vec<(OsString, OsString)>,
}

/// An object in a token, as `pkcs11-tool` lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// `Private Key`, `Public Key` or `Secret Key`.
    pub class: String,
    /// What it says about the kind of key, `EC` for example.
    pub kind: String,
    /// Its label.
    pub label: String,
}

impl Token {
    /// A token with the label `label` that `module` finds with these variables in its environment.
    #[must_use]
    pub fn new(module: PathBuf, label: &str, envs: &[(&str, &OsStr)]) -> Self {
        let envs = envs
            .iter()
            .map(|(name, value)| (OsString::from(name), (*value).to_owned()))
            .collect();
        Self {
            real: module.clone(),
            module,
            label: label.to_owned(),
            envs,
        }
    }

    /// The module's path.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The environment that its module needs.
    #[must_use]
    pub fn envs(&self) -> &[(OsString, OsString)] {
        &self.envs
    }

    /// Its URI with the PIN, and with an object when one is given.
    #[must_use]
    pub fn uri(&self, object: Option<&str>) -> String {
        let object = object.map_or_else(String::new, |label| format!(";object={}", escaped(label)));
        format!(
            "pkcs11:token={}{object}?pin-value={PIN}",
            escaped(&self.label)
        )
    }

    /// The Keys Service's settings for this token as the place of new keys.
    #[must_use]
    pub fn settings(&self) -> String {
        settings(&self.module, &self.uri(None))
    }

    /// Configures the Keys Service of a root for this token, in a file of its own.
    pub fn configure(&self, root: &Root) {
        root.write(CONFIG, self.settings());
    }

    /// The environment of a process that is to use the token.
    #[must_use]
    pub fn environment(&self, launch: Launch) -> Launch {
        self.envs
            .iter()
            .fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    /// Runs `pkcs11-tool` on the token, logged in as its user. Its calls are never recorded.
    ///
    /// # Panics
    /// When it fails.
    pub fn tool(&self, args: &[&str]) -> String {
        let mut all = vec!["--token-label", &self.label, "--login", "--pin", PIN];
        all.extend_from_slice(args);
        tool(&self.real, &self.envs, &all)
    }

    /// Everything in it, sorted.
    ///
    /// # Panics
    /// When it cannot be listed.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = Vec::new();
        for line in self.tool(&["--list-objects"]).lines() {
            if let Some((class, kind)) = line.split_once(" Object; ") {
                objects.push(Object {
                    class: class.to_owned(),
                    kind: kind.trim().to_owned(),
                    label: String::new(),
                });
            } else if let (Some(label), Some(object)) =
                (line.trim_start().strip_prefix("label:"), objects.last_mut())
            {
                object.label = label.trim().to_owned();
            }
        }
        objects.sort();
        objects
    }

    /// Classes of the objects with a label, sorted.
    #[must_use]
    pub fn classes(&self, label: &str) -> Vec<String> {
        self.objects()
            .into_iter()
            .filter(|object| object.label == label)
            .map(|object| object.class)
            .collect()
    }

    /// The same token behind a recorder, which keeps its files in the root.
    #[must_use]
    pub fn recorded(&self, root: &Root) -> (Self, Recorder) {
        let recorder = Recorder {
            directory: root.join("recorder"),
        };
        let flags = Command::new("pkg-config")
            .args(["--cflags", "p11-kit-1"])
            .output()
            .expect("`pkg-config`; `make test` installs it");
        let flags = String::from_utf8(flags.stdout).expect("flags in UTF-8");
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let module = binaries::compile_shared(
            "p11shim.c",
            &flags,
            &["-ldl"],
            &recorder.directory,
            "p11shim.so",
        );
        let mut envs = self.envs.clone();
        for (name, value) in [
            ("P11SHIM_MODULE", self.module.clone()),
            ("P11SHIM_LOG", recorder.directory.join("record")),
            ("P11SHIM_CONTROL", recorder.directory.join("script")),
        ] {
            envs.push((name.into(), value.into()));
        }
        let token = Self {
            module,
            real: self.real.clone(),
            label: self.label.clone(),
            envs,
        };
        (token, recorder)
    }
}

/// Where [`Token::configure`] writes.
pub const CONFIG: &str = "etc/aziot/keyd/config.d/50-pkcs11.toml";

/// The Keys Service's settings for a module and a URI.
#[must_use]
pub fn settings(module: &Path, uri: &str) -> String {
    format!(
        "[aziot_keys]\npkcs11_lib_path = \"{}\"\npkcs11_base_slot = \"{uri}\"\n",
        module.display()
    )
}

/// Runs `pkcs11-tool` with a module.
///
/// # Panics
/// When it fails.
pub fn tool(module: &Path, envs: &[(OsString, OsString)], args: &[&str]) -> String {
    let output = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(module)
        .args(args)
        .envs(envs.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("`pkcs11-tool`; `make test` installs it");
    assert!(
        output.status.success(),
        "pkcs11-tool {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Percent-encodes everything that has a meaning in a URI.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;

    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What stands between the Keys Service and a module: it writes calls down, and answers some itself.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
}

/// Calls wait until this is dropped.
#[derive(Debug)]
pub struct Held(PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A call of a PKCS#11 function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function, `C_Sign` for example.
    pub function: String,
    /// The whole line, with mechanism, template and result.
    pub line: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Recorder {
    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        let record = fs::read_to_string(self.directory.join("record")).unwrap_or_default();
        record
            .lines()
            .map(|line| Call {
                function: line.split(' ').next().unwrap_or_default().to_owned(),
                line: line.to_owned(),
            })
            .collect()
    }

    /// How often a function has been called.
    #[must_use]
    pub fn count(&self, function: &str) -> usize {
        self.calls()
            .iter()
            .filter(|call| call.function == function)
            .count()
    }

    /// Has calls answered without the module, one line a rule: function, result (or `sleep:` milliseconds, or `hold`), and
    /// how many (`*` for all). An empty text ends it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn script(&self, rules: &str) {
        let new = self.directory.join("script.new");
        fs::write(&new, rules).expect("the script is written");
        fs::rename(&new, self.directory.join("script")).expect("the script is put in place");
    }

    /// Makes calls wait for which the script says `hold`.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn hold(&self) -> Held {
        let gate = self.directory.join("script.hold");
        fs::write(&gate, b"").expect("the gate is closed");
        Held(gate)
    }

    /// What is left of the script.
    #[must_use]
    pub fn left(&self) -> String {
        fs::read_to_string(self.directory.join("script")).unwrap_or_default()
    }
}
