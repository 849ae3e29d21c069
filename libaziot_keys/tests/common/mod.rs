//! What the integration tests share: the built library, and a C compiler.

#![allow(dead_code, reason = "every test program uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

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
