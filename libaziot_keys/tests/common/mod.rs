//! What the integration tests share: the built library, a C compiler, OpenSSL's program, software tokens.

#![allow(dead_code, unused_imports, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]
#![allow(unsafe_code, reason = "the library is called through its C ABI")]

mod keys;
mod token;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub use self::keys::{Keys, ReportedKey};
pub use self::token::{LABEL, PIN, Token, token};

/// The shared library that cargo built for this test program.
pub fn shared_library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = program.parent().unwrap().join("libaziot_keys.so");
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// A directory for one test, with its symbolic links resolved.
pub fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

/// The directory of this crate.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles the C program that drives the library.
pub fn compile_driver(into: &Path) -> PathBuf {
    let program = into.join("driver");
    cc(&[
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-D_GNU_SOURCE",
        "-I",
        here().join("include").to_str().unwrap(),
        "-o",
        program.to_str().unwrap(),
        here().join("tests/c/driver.c").to_str().unwrap(),
        "-ldl",
    ]);
    program
}

/// Runs the C compiler.
pub fn cc(arguments: &[&str]) {
    let output = Command::new("cc")
        .args(arguments)
        .output()
        .expect("a C compiler named cc");
    assert!(
        output.status.success(),
        "cc {arguments:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Bytes from hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Long enough for a file that was just written to be kept in memory when it is read next.
pub fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(70));
}

/// Runs OpenSSL's program with this input and returns what it prints.
pub fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A URI for a path that needs no encoding.
pub fn file_uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// The bytes 0, 1, … 31: the key of the specification's vectors.
pub fn base_key() -> Vec<u8> {
    (0..32).collect()
}
