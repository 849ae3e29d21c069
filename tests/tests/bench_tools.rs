//! The tools that other tests and the benchmarks rely on.

#![allow(clippy::unwrap_used)] // helpers of tests fail the test

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

/// The directory with the compiled C tools.
fn tools() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-tools");
    let output = Command::new(&script).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// Ends the process when the test does, however it does.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bare(socket: &Path) -> Server {
    let server = Server(
        Command::new(tools().join("bare"))
            .arg(socket)
            .spawn()
            .unwrap(),
    );
    let start = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the bare responder does not listen"
        );
        thread::sleep(Duration::from_millis(5));
    }
    server
}

fn loadgen(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "--format",
            "pairs",
            "--warmup",
            "0",
            "--seconds",
            "20",
            "--socket",
        ])
        .arg(socket)
        .args(arguments)
        .output()
        .unwrap()
}

fn value(output: &Output, name: &str) -> f64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .split_whitespace()
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    found
        .unwrap_or_else(|| panic!("no {name} in: {text}"))
        .parse()
        .unwrap()
}

#[test]
fn allocspy_tells_openssl_from_others() {
    let tools = tools();
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(tools.join("allocspy-check"))
        .env("LD_PRELOAD", tools.join("allocspy.so"))
        .env("ALLOCSPY_FILE", directory.path().join("counts"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn loadgen_counts_every_answer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bare.sock");
    let _server = bare(&socket);
    for mode in [
        &[][..],
        &["--connection-per-request"],
        &["--connections", "1"],
        &["--request", "identity"],
    ] {
        let output = loadgen(
            &socket,
            &[
                &["--requests", "500", "--expect", r#""signature":"Ixv"#],
                mode,
            ]
            .concat(),
        );
        assert!(
            output.status.success(),
            "{mode:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(value(&output, "requests"), 500.0, "{mode:?}");
        assert_eq!(value(&output, "errors"), 0.0, "{mode:?}");
        assert!(value(&output, "rate") > 0.0);
        assert!(value(&output, "p50_us") <= value(&output, "p99_us"));
        assert!(value(&output, "p99_us") <= value(&output, "max_us"));
    }
}

#[test]
fn loadgen_can_wait_in_a_thread_for_each_connection() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bare.sock");
    let server = bare(&socket);
    let in_threads = |expect: &str| {
        Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["--format", "pairs", "--warmup", "0", "--seconds", "0.2"])
            .args(["--threads", "--connections", "3", "--expect", expect])
            .arg("--socket")
            .arg(&socket)
            .output()
            .unwrap()
    };
    let output = in_threads(r#""signature":"Ixv"#);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(value(&output, "requests") >= 3.0);
    assert_eq!(value(&output, "errors"), 0.0);
    assert!(value(&output, "seconds") >= 0.2);
    assert!(value(&output, "p50_us") <= value(&output, "max_us"));
    let wrong = in_threads("another answer");
    assert!(!wrong.status.success());
    assert_eq!(value(&wrong, "requests"), 0.0);
    assert!(value(&wrong, "errors") >= 3.0);
    drop(server);
    assert!(!in_threads("").status.success());
}

#[test]
fn loadgen_sends_a_request_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bare.sock");
    let _server = bare(&socket);
    let file = directory.path().join("request");
    fs::write(&file, "PUT /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    let output = loadgen(
        &socket,
        &["--requests", "10", "--request", file.to_str().unwrap()],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(value(&output, "requests"), 10.0);
}

#[test]
fn loadgen_fails_on_a_wrong_answer_and_on_none() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bare.sock");
    let server = bare(&socket);
    let output = loadgen(
        &socket,
        &["--requests", "500", "--expect", "another answer"],
    );
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("failures in a row"));
    drop(server);
    let output = loadgen(&socket, &["--requests", "1"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot connect"));
}
