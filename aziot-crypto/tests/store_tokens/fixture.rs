//! Tokens, a home directory, and a store over both.

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use aziot_crypto::key_pair::{Parameter, ParameterValue};
use aziot_crypto::mac::Tag;
use aziot_crypto::openssl;
use aziot_crypto::software::HmacSha256;
use aziot_crypto::store::{Error, Key, KeyPair, Store};
use tempfile::TempDir;

/// Usage of a key for signatures and derivation.
pub const SIGN: u32 = 1;
/// Usage of a key for encryption.
pub const ENCRYPT: u32 = 0x10;

pub const PIN: &str = "1234";

/// Return values of PKCS#11.
pub const CKR_DEVICE_MEMORY: &str = "0x31";
pub const CKR_MECHANISM_INVALID: &str = "0x70";
pub const CKR_TEMPLATE_INCONSISTENT: &str = "0xd1";

const DIRECTORY: &str = "AZIOT_TEST_TOKENS";

const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/arm-linux-gnueabihf/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// Runs a test in a process of its own, where there are the tokens `base` and `other`.
pub fn with_tokens(name: &str, test: fn(&Fixture)) {
    if let Some(directory) = env::var_os(DIRECTORY) {
        log::set_logger(&Lines).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        test(&Fixture {
            directory: directory.into(),
            stores: RefCell::default(),
        });
        return;
    }
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("tokens")).unwrap();
    let configuration = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        at("tokens").display()
    );
    fs::write(at("softhsm2.conf"), configuration).unwrap();
    fs::write(at("script"), "").unwrap();
    for label in ["base", "other"] {
        let made = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--so-pin",
                "so-pin",
                "--label",
                label,
            ])
            .args(["--pin", PIN])
            .env("SOFTHSM2_CONF", at("softhsm2.conf"))
            .output()
            .expect("softhsm2-util; install the package softhsm2");
        assert!(made.status.success(), "{made:?}");
    }
    let module = MODULES.iter().find(|path| Path::new(path).exists());
    let tested = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .env("SOFTHSM2_CONF", at("softhsm2.conf"))
        .env("P11SHIM_MODULE", module.expect("SoftHSM's module"))
        .env("P11SHIM_CONTROL", at("script"))
        .env("P11SHIM_LOG", at("record"))
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&tested.stdout),
        String::from_utf8_lossy(&tested.stderr),
    );
    assert!(
        tested.status.success() && out.contains("1 passed"),
        "{name}:\n{out}\n{err}"
    );
}

/// The shim, built when it is first needed.
pub fn shim() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools/p11shim.c");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store_tokens-p11shim.so");
    let age = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    if age(&built).is_ok_and(|built| built > age(&source).unwrap()) {
        return built;
    }
    let flags = Command::new("pkg-config")
        .args(["--cflags", "p11-kit-1"])
        .output();
    let flags = String::from_utf8(flags.expect("pkg-config").stdout).unwrap();
    // Several processes may build it at once.
    let own = built.with_extension(std::process::id().to_string());
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&own)
        .args(flags.split_whitespace())
        .arg(&source)
        .arg("-ldl")
        .status();
    assert!(compiled.expect("a C compiler").success());
    fs::rename(own, &built).unwrap();
    built
}

/// What a test works with.
pub struct Fixture {
    directory: PathBuf,
    /// Keeps homes until the end of the test.
    stores: RefCell<Vec<TempDir>>,
}

impl Fixture {
    /// A store with a home of its own that knows the module and has its base slot in the token `base`.
    pub fn store(&self) -> (PathBuf, Store) {
        let (home, store) = self.files();
        configure(&store);
        (home, store)
    }

    /// A store over files alone.
    pub fn files(&self) -> (PathBuf, Store) {
        let home = TempDir::new_in(&self.directory).unwrap();
        let path = home.path().to_owned();
        self.stores.borrow_mut().push(home);
        let store = Store::new();
        store.set_home(&path);
        (path, store)
    }

    /// Makes the next calls of a PKCS#11 function fail; `*` for all of them.
    pub fn fail(&self, function: &str, value: &str, times: &str) {
        let script = self.directory.join("script");
        let mut lines = fs::read_to_string(&script).unwrap();
        lines.push_str(&format!("{function} {value} {times}\n"));
        fs::write(script, lines).unwrap();
    }

    /// Ends all failures.
    pub fn heal(&self) {
        fs::write(self.directory.join("script"), "").unwrap();
    }

    /// What is still going to fail.
    pub fn script(&self) -> String {
        fs::read_to_string(self.directory.join("script")).unwrap()
    }

    /// The calls since the last time, one a line.
    pub fn calls(&self) -> String {
        let record = self.directory.join("record");
        let calls = fs::read_to_string(&record).unwrap_or_default();
        let _ = fs::remove_file(record);
        calls
    }
}

/// Gives a store the module and its base slot.
pub fn configure(store: &Store) {
    store.set_pkcs11_library(shim().to_str().unwrap()).unwrap();
    store
        .set_pkcs11_base_slot(&format!("pkcs11:token=base?pin-value={PIN}"))
        .unwrap();
}

/// Gives a key a location of its own in a token.
pub fn preload_in(store: &Store, id: &str, token: &str, label: &str) {
    let uri = format!("pkcs11:token={token};object={label}?pin-value={PIN}");
    store.preload(id, &uri).unwrap();
}

/// The file of a key in a home.
pub fn file_of(home: &Path, id: &str) -> PathBuf {
    let name = aziot_core::id::file_name(id, ".key").unwrap();
    home.join("keys").join(name.as_str())
}

/// How many files are in `keys/`.
pub fn files_in(home: &Path) -> usize {
    fs::read_dir(home.join("keys")).map_or(0, Iterator::count)
}

/// A key as long as SoftHSM wants them for HMAC-SHA256: 32 bytes.
pub fn long(name: &[u8]) -> [u8; 32] {
    let mut key = [b'.'; 32];
    key[..name.len()].copy_from_slice(name);
    key
}

pub fn tag(key: &Key) -> [u8; 32] {
    *key.sign(b"message").unwrap().as_bytes()
}

pub fn tag_of(key: &[u8]) -> [u8; 32] {
    let tag: Tag = HmacSha256::new(key).sign(b"message");
    *tag.as_bytes()
}

/// The public point of a key pair.
pub fn point(pair: &KeyPair) -> Vec<u8> {
    bytes(pair.parameter(Parameter::EcPoint).unwrap())
}

/// The public point of the key pair in PEM text.
pub fn point_of(pem: &[u8]) -> Vec<u8> {
    let pair = openssl::KeyPair::from_pem(pem).unwrap();
    bytes(pair.parameter(Parameter::EcPoint).unwrap())
}

fn bytes(value: ParameterValue<'_>) -> Vec<u8> {
    match value {
        ParameterValue::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A failure that is not the caller's mistake.
pub fn failed<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let err = result.unwrap_err();
    assert!(!err.is_invalid_parameter(), "{err}");
    err.to_string()
}

/// A failure that is the caller's mistake.
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let err = result.unwrap_err();
    assert!(err.is_invalid_parameter(), "{err}");
    err.to_string()
}

/// The warnings of this process since the last time.
pub fn warnings() -> Vec<String> {
    std::mem::take(&mut LINES.lock().unwrap())
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}
