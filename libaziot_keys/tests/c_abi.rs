//! The library as a C program sees it.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod common;

use std::process::Command;

/// The program's compilation checks sizes, offsets and constants; its run the rules for versions, buffers and
/// arguments.
#[test]
fn ka_02_ka_03_ka_04_ka_05_ka_06_a_c_program_with_the_public_header() {
    let (_dir, dir) = common::scratch();
    let driver = common::compile_driver(&dir);
    let output = Command::new(driver)
        .arg("abi")
        .arg(common::shared_library())
        .arg(&dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn ka_01_one_exported_symbol_and_no_soname() {
    let library = common::shared_library();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .arg(&library)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let symbols = run("nm", &["-D", "--defined-only", "--format=posix"]);
    let names: Vec<_> = symbols
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, ["aziot_keys_get_function_list"]);
    let dynamic = run("readelf", &["-d"]);
    assert!(
        dynamic.contains("NEEDED") && !dynamic.contains("SONAME"),
        "{dynamic}"
    );
}

/// A failed call says why on standard error, in the form of the services' log.
#[test]
fn causes_are_logged_and_ids_cannot_forge_lines() {
    let (_dir, dir) = common::scratch();
    let driver = common::compile_driver(&dir);
    let run = |level: &str, operations: &[&str]| {
        let output = Command::new(&driver)
            .env("AZIOT_LOG", level)
            .arg("run")
            .args([&common::shared_library(), &dir])
            .args(operations)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, log) = run("info", &["load", "missing"]);
    assert_eq!(code, 11);
    assert!(
        log.starts_with("<3>2") && log.contains("Z [ERR!] - invalid parameter \"id\": not found: "),
        "{log}"
    );
    assert_eq!(run("off", &["load", "missing"]), (11, String::new()));
    let forged = "file:///tmp/x\n<3>forged";
    let (_, log) = run("info", &["preload", "k", forged, "load", "k"]);
    assert_eq!(log.lines().count(), 1, "{log}");
    let (code, log) = run(
        "info",
        &["preload", "k", "file:///nonexistent/k", "create", "k"],
    );
    assert_eq!(code, 12);
    assert!(
        log.contains("could not create a temporary file to replace /nonexistent/k: No such file"),
        "{log}"
    );
}
