//! The library as a C program sees it.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::token;

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

/// What a program that links against the library needs at run time, the library's own needs included.
fn needed(file: &Path) -> Vec<String> {
    let output = Command::new("readelf")
        .arg("-d")
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| line.contains("(NEEDED)"))
        .map(|line| line.split(['[', ']']).nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn ka_01_only_the_crypto_library_and_the_c_library_are_needed() {
    let names = needed(&common::shared_library());
    for name in &names {
        let known = [
            "libcrypto.so.",
            "libssl.so.",
            "libc.so.",
            "libgcc_s.so.",
            "ld-linux",
        ];
        assert!(
            known.iter().any(|known| name.starts_with(known)),
            "{names:?}"
        );
    }
    assert!(
        names.iter().any(|name| name.starts_with("libcrypto.so.")),
        "{names:?}"
    );
}

/// Compiles the program of somebody who uses the library, as C or as C++, and links it against the library.
fn compile_integrator(dir: &Path, language: &[&str]) -> PathBuf {
    // From a place with nothing else in it, as the installed one is.
    let library = dir.join("lib");
    std::fs::create_dir_all(&library).unwrap();
    std::fs::copy(common::shared_library(), library.join("libaziot_keys.so")).unwrap();
    let program = dir.join("integrator");
    let include = common::here().join("include");
    let source = common::here().join("tests/c/integrator.c");
    let rpath = format!("-Wl,-rpath,{}", library.display());
    let mut arguments = language.to_vec();
    arguments.extend([
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        include.to_str().unwrap(),
    ]);
    arguments.extend(["-o", program.to_str().unwrap(), source.to_str().unwrap()]);
    // The language is that of the source, not of the library.
    arguments.extend(["-x", "none", "-L", library.to_str().unwrap(), &rpath]);
    arguments.extend(["-laziot_keys", "-lcrypto"]);
    common::cc(&arguments);
    program
}

/// Runs it with the library that it was linked against, whatever cargo has told the loader.
fn integrator(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn assert_ok(output: &Output) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success() && out == "ok\n", "{out}\n{err}");
}

#[test]
fn ka_01_a_program_links_against_the_library_and_uses_all_of_it() {
    for language in [["-x", "c", "-std=c11"], ["-x", "c++", "-std=c++17"]] {
        let (_dir, dir) = common::scratch();
        let program = compile_integrator(&dir, &language);
        // Without a SONAME, it is the name that was linked against.
        assert!(
            needed(&program).contains(&"libaziot_keys.so".to_owned()),
            "{:?}",
            needed(&program)
        );
        let home = dir.join("home");
        assert_ok(&integrator(&program).arg(&home).output().unwrap());
        assert_eq!(home.join("keys").read_dir().unwrap().count(), 0);
    }
}

#[test]
fn kp_02_a_program_that_links_against_the_library_uses_a_token() {
    token(
        "kp_02_a_program_that_links_against_the_library_uses_a_token",
        |token| {
            let program = compile_integrator(&token.dir, &["-x", "c", "-std=c11"]);
            let run = integrator(&program)
                .arg(&token.home)
                .arg(token.module())
                .arg(token.uri())
                .output();
            assert_ok(&run.unwrap());
            assert!(token.calls().len() > 100, "the token did the work");
            assert_eq!((token.objects(), token.files()), (vec![], 0));
        },
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
    // For rc 1 the argument and the reason, for rc 2 the reason alone, with all that is known of the cause.
    let path = dir.join("p.pem");
    let uri = common::file_uri(&path);
    let pem = common::openssl(&["genpkey", "-quiet", "-algorithm", "ED25519"], b"");
    let encrypted = common::openssl(&["pkey", "-aes256", "-passout", "pass:x"], &pem);
    for (content, operation, code, line) in [
        (
            &pem,
            ["ecdsa", "p", "x"],
            11,
            "invalid parameter \"mechanism\": ECDSA needs an EC key",
        ),
        (&pem, ["pair", "q", "foo"], 11, "invalid parameter \"id\": "),
        (&pem, ["hmac", "p", "x"], 11, "holds "),
        (
            &encrypted,
            ["ecdsa", "p", "x"],
            12,
            "is encrypted with a passphrase; decrypt it with",
        ),
        (&encrypted, ["pair", "p", "*"], 12, "is not overwritten"),
        (
            &pem,
            ["set", "homedir", "x"],
            11,
            "invalid parameter \"name\": unrecognized value",
        ),
        (
            &pem,
            ["set", "preloaded_key:x", "x"],
            11,
            "invalid parameter \"value\": missing scheme",
        ),
        (
            &pem,
            ["set", "pkcs11_base_slot", "pkcs11:"],
            11,
            "invalid parameter \"value\": ",
        ),
        (
            &pem,
            ["decrypt", "sym", "x"],
            11,
            "invalid parameter \"ciphertext\": malformed ciphertext",
        ),
        (
            &pem,
            ["decrypt", "sym", "\u{2}0123456789abcdef0"],
            12,
            "authentication failed",
        ),
        (&pem, ["move", "absent", "p"], 12, "key not found"),
    ] {
        std::fs::write(&path, content).unwrap();
        let mut operations = vec!["preload", "p", uri.as_str(), "create", "sym"];
        operations.extend(operation);
        let (found, log) = run("info", &operations);
        assert_eq!(found, code, "{operation:?}: {log}");
        assert!(log.contains(line), "{operation:?}: {log}");
        let marks = log.lines().filter(|line| line.starts_with("<3>")).count();
        assert_eq!(
            (marks, log.contains("invalid parameter")),
            (1, code == 11),
            "{log}"
        );
    }
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
