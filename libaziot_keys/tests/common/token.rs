//! Software tokens. A module and its configuration belong to a process, so a test that uses one runs in its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Keys;
use aziot_crypto::keys_abi::Rc;

/// Set in the process that a test's body runs in: the directory that was prepared for it.
const PREPARED: &str = "AZIOT_KEYS_TEST_TOKEN";

pub const LABEL: &str = "Key pairs";
pub const PIN: &str = "1234";

/// A SoftHSM token behind `p11shim`, which writes down every call and answers some itself.
pub struct Token {
    pub dir: PathBuf,
    pub home: PathBuf,
}

/// Runs the body of the test with this name in a process of its own, with a new token. Answers what it wrote to
/// standard error in the process that prepared the token, and nothing in the other.
pub fn token(test: &str, body: fn(&Token)) -> Option<String> {
    if let Some(dir) = std::env::var_os(PREPARED) {
        body(&Token::prepared(dir.into()));
        return None;
    }
    let (_scratch, dir) = super::scratch();
    let token = Token::prepared(dir);
    token.prepare();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PREPARED, &token.dir)
        .env("SOFTHSM2_CONF", token.dir.join("softhsm2.conf"))
        .env("P11SHIM_MODULE", softhsm())
        .env("P11SHIM_LOG", token.dir.join("calls"))
        .env("P11SHIM_CONTROL", token.dir.join("script"))
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        out.contains("1 passed"),
        "{test} is not the name of a test: {out}"
    );
    Some(err.into_owned())
}

impl Token {
    fn prepared(dir: PathBuf) -> Self {
        Self {
            home: dir.join("home"),
            dir,
        }
    }

    fn prepare(&self) {
        let tokens = self.dir.join("tokens");
        fs::create_dir(&tokens).unwrap();
        fs::create_dir(&self.home).unwrap();
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(self.dir.join("softhsm2.conf"), settings).unwrap();
        self.add(LABEL);
        let flags = Command::new("pkg-config")
            .args(["--cflags", "p11-kit-1"])
            .output()
            .unwrap();
        let flags = String::from_utf8(flags.stdout).unwrap();
        let source = super::here().join("../tests/tools/p11shim.c");
        let shim = self.module();
        let mut arguments = vec!["-shared", "-fPIC", "-O1", "-o", shim.to_str().unwrap()];
        arguments.extend(flags.split_whitespace());
        arguments.extend([source.to_str().unwrap(), "-ldl"]);
        super::cc(&arguments);
    }

    /// Makes one more token.
    pub fn add(&self, label: &str) {
        let output = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--so-pin", "5678"])
            .args(["--label", label, "--pin", PIN])
            .env("SOFTHSM2_CONF", self.dir.join("softhsm2.conf"))
            .output()
            .expect("softhsm2-util of the package softhsm2");
        assert!(output.status.success(), "{output:?}");
    }

    /// The module to use: the shim.
    pub fn module(&self) -> PathBuf {
        self.dir.join("p11shim.so")
    }

    /// Its URI, with the PIN.
    pub fn uri(&self) -> String {
        format!("pkcs11:token={LABEL}?pin-value={PIN}")
    }

    /// The URI of an object in it.
    pub fn object_uri(&self, label: &str) -> String {
        format!("pkcs11:token={LABEL};object={label}?pin-value={PIN}")
    }

    /// A library that makes keys in this token, and has a home directory too.
    pub fn keys(&self) -> Keys {
        let keys = Keys::with_home(&self.home);
        assert_eq!(self.configure(&keys, &self.uri()), (Rc::OK, Rc::OK));
        keys
    }

    /// Sets both PKCS#11 parameters, in the order of the Keys Service.
    pub fn configure(&self, keys: &Keys, uri: &str) -> (Rc, Rc) {
        (
            keys.set("pkcs11_base_slot", uri),
            keys.set("pkcs11_lib_path", self.module().to_str().unwrap()),
        )
    }

    /// Runs the C program that drives the library, in a process of its own, with this base slot.
    pub fn driver(&self, uri: &str, operations: &[&str]) -> Option<i32> {
        let driver = self.dir.join("driver");
        if !driver.exists() {
            super::compile_driver(&self.dir);
        }
        let module = self.module();
        Command::new(driver)
            .arg("run")
            .args([&super::shared_library(), &self.home])
            .args(["set", "pkcs11_lib_path", module.to_str().unwrap()])
            .args(["set", "pkcs11_base_slot", uri])
            .args(operations)
            .status()
            .unwrap()
            .code()
    }

    /// The calls that the module was asked since the last time this was.
    pub fn calls(&self) -> Vec<String> {
        let path = self.dir.join("calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    /// What the module answers from now on, in the language of `p11shim.c`.
    pub fn script(&self, lines: &str) {
        fs::write(self.dir.join("script"), lines).unwrap();
    }

    /// The labels of all objects in the token, with their class before them, as somebody else sees them; sorted.
    pub fn objects(&self) -> Vec<String> {
        let output = Command::new("pkcs11-tool")
            .arg("--module")
            .arg(softhsm())
            .args([
                "--token-label",
                LABEL,
                "--login",
                "--pin",
                PIN,
                "--list-objects",
            ])
            .output()
            .expect("pkcs11-tool of the package opensc");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut class = "";
        let mut objects = Vec::new();
        for line in text.lines() {
            if let Some((name, _)) = line.split_once(" Object;") {
                class = name;
            }
            if let Some(label) = line.trim().strip_prefix("label:") {
                objects.push(format!("{class} {}", label.trim()));
            }
        }
        objects.sort();
        objects
    }

    /// How many key files there are.
    pub fn files(&self) -> usize {
        self.home.join("keys").read_dir().map_or(0, Iterator::count)
    }
}

/// Where distributions put SoftHSM.
pub fn softhsm() -> &'static Path {
    [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
    ]
    .map(Path::new)
    .into_iter()
    .find(|path| path.exists())
    .expect("libsofthsm2.so of the package softhsm2")
}
