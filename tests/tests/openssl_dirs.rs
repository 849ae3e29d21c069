//! Where the engine and the provider are installed, by the development files of the OpenSSL they are built for
//! (`scripts/openssl-dirs`; engine, chapter C1). Run for this machine, and for the OpenSSL of other releases where those are
//! tested.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::path::Path;
use std::process::{Command, Output};

use aziot_tests::binaries;
use aziot_tests::root::Root;

/// The script, for the OpenSSL that the tests are built for.
fn script(what: &str) -> Command {
    let mut command = Command::new(binaries::sources().join("../scripts/openssl-dirs"));
    command.arg(what);
    command
}

/// Its answer, or what it complains about.
fn answer(command: &mut Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    );
    if status.success() {
        assert_eq!(stderr, "");
        Ok(stdout.trim_end().to_owned())
    } else {
        assert_eq!(stdout, "");
        assert_eq!(status.code(), Some(1), "{stderr}");
        Err(stderr)
    }
}

/// A directory that OpenSSL's program tells, `ENGINESDIR: "…"` for example.
fn told(option: &str) -> String {
    let output = Command::new("openssl")
        .args(["version", option])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, quoted) = text.split_once(": \"").unwrap();
    quoted.trim_end().trim_end_matches('"').to_owned()
}

/// An OpenSSL of a version, whose `libcrypto.pc` has these variables.
fn pretended(root: &Root, version: &str, variables: &str) -> impl Fn(&str) -> Command {
    let text = format!(
        "prefix=/usr\nlibdir=${{prefix}}/lib64\n{variables}\n\nName: libcrypto\nDescription: pretended\n\
         Version: {version}\nLibs: -lcrypto\n"
    );
    root.write("libcrypto.pc", text);
    let directory = root.path().to_owned();
    move |what| {
        let mut command = script(what);
        command
            .env("PKG_CONFIG_LIBDIR", &directory)
            .env("PKG_CONFIG_PATH", "")
            .env_remove("PKG_CONFIG_SYSROOT_DIR");
        command
    }
}

#[test]
fn ke_10_the_directories_are_those_that_openssl_tells() {
    assert_eq!(answer(&mut script("engines")).unwrap(), told("-e"));
    if binaries::openssl_3() {
        assert_eq!(answer(&mut script("modules")).unwrap(), told("-m"));
    } else {
        let error = answer(&mut script("modules")).unwrap_err();
        assert!(error.contains("has no providers"), "{error}");
    }
}

#[test]
fn ke_10_other_distributions() {
    let root = Root::new();
    let openssl = pretended(&root, "1.1.1k", "enginesdir=${libdir}/engines-1.1");
    assert_eq!(
        answer(&mut openssl("engines")).unwrap(),
        "/usr/lib64/engines-1.1"
    );
    let both = "enginesdir=${libdir}/engines-3\nmodulesdir=${libdir}/providers";
    let openssl = pretended(&root, "3.5.1", both);
    assert_eq!(
        answer(&mut openssl("engines")).unwrap(),
        "/usr/lib64/engines-3"
    );
    assert_eq!(
        answer(&mut openssl("modules")).unwrap(),
        "/usr/lib64/providers"
    );
    // Early releases do not say.
    let openssl = pretended(&root, "3.0.2", "enginesdir=${libdir}/engines-3");
    assert_eq!(
        answer(&mut openssl("modules")).unwrap(),
        "/usr/lib64/ossl-modules"
    );
    let openssl = pretended(&root, "4.0.0", "modulesdir=${libdir}/ossl-modules");
    assert_eq!(
        answer(&mut openssl("modules")).unwrap(),
        "/usr/lib64/ossl-modules"
    );
    let error = answer(&mut openssl("engines")).unwrap_err();
    assert!(error.contains("OpenSSL 4.0.0 has no engines"), "{error}");
}

#[test]
fn ke_10_the_sysroot_is_not_part_of_the_directory() {
    let root = Root::new();
    let openssl = pretended(&root, "3.0.2", "enginesdir=${libdir}/engines-3");
    let mut command = openssl("engines");
    command.env("PKG_CONFIG_SYSROOT_DIR", root.path());
    assert_eq!(answer(&mut command).unwrap(), "/usr/lib64/engines-3");
}

#[test]
fn ke_10_what_is_unknown_is_refused() {
    let root = Root::new();
    for version in ["1.0.2u", "1.10.0", "2.8.0", "30.1", "5.0.0"] {
        let openssl = pretended(&root, version, "enginesdir=/e\nmodulesdir=/m");
        for what in ["engines", "modules"] {
            let error = answer(&mut openssl(what)).unwrap_err();
            let expected = format!("OpenSSL {version} is not known here");
            assert!(error.contains(&expected), "{error}");
        }
    }
    for variables in ["", "enginesdir=engines"] {
        let openssl = pretended(&root, "3.0.2", variables);
        let error = answer(&mut openssl("engines")).unwrap_err();
        assert!(error.contains("does not say where"), "{error}");
    }
    let mut command = script("engines");
    command
        .env("PKG_CONFIG_LIBDIR", Path::new("/nowhere"))
        .env("PKG_CONFIG_PATH", "");
    let error = answer(&mut command).unwrap_err();
    assert!(error.contains("libssl-dev"), "{error}");

    let status = script("somewhere").output().unwrap().status;
    assert_eq!(status.code(), Some(2));
}
