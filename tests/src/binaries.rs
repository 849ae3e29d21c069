//! The programs under test, and C programs that help to test them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory that holds the built programs and libraries: that of the profile the test was built in.
///
/// # Panics
/// When the path of the running test cannot be told.
#[must_use]
pub fn directory() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    let mut directory = test
        .parent()
        .expect("a test lies in a directory")
        .to_owned();
    if directory.file_name().is_some_and(|name| name == "deps") {
        directory.pop();
    }
    directory
}

/// A built program or library by its file name.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make test`, which builds everything first",
        path.display()
    );
    path
}

/// Whether everything here is built for OpenSSL 3 or later, which has providers and refuses what is obsolete.
#[must_use]
pub fn openssl_3() -> bool {
    openssl::version::number() >= 0x3000_0000
}

/// The repository's `tests` directory.
#[must_use]
pub fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles `tests/tools/<source>` into a shared object with the given file name in `directory`.
///
/// # Panics
/// When the compiler refuses it or there is none.
pub fn compile_shared(
    source: &str,
    flags: &[&str],
    libraries: &[&str],
    directory: &Path,
    name: &str,
) -> PathBuf {
    let flags = [&["-fPIC", "-shared"], flags].concat();
    compile(source, &flags, libraries, directory, name)
}

/// Compiles `tests/tools/<source>` into a program with the given file name in `directory`.
///
/// # Panics
/// When the compiler refuses it or there is none.
pub fn compile_program(
    source: &str,
    flags: &[&str],
    libraries: &[&str],
    directory: &Path,
    name: &str,
) -> PathBuf {
    compile(source, flags, libraries, directory, name)
}

fn compile(
    source: &str,
    flags: &[&str],
    libraries: &[&str],
    directory: &Path,
    name: &str,
) -> PathBuf {
    let output = directory.join(name);
    std::fs::create_dir_all(directory).expect("a directory for the result");
    let include = sources().join("../libaziot_keys/include");
    let result = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"])
        .arg("-I")
        .arg(include)
        .args(flags)
        .arg("-o")
        .arg(&output)
        .arg(sources().join("tools").join(source))
        .args(libraries)
        .output()
        .expect("`cc`, the C compiler; `make test` installs it");
    assert!(
        result.status.success(),
        "{source} does not compile:\n{}",
        String::from_utf8_lossy(&result.stderr)
    );
    output
}
