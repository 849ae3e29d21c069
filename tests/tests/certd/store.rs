//! Certificates in files: import, read, delete, preloaded ones, lists (certificates-service 3).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use aziot_tests::certd::{Services, VERSION, csr, ec_key, issued, reference, root};
use aziot_tests::client::request;
use aziot_tests::daemon::Launch;
use aziot_tests::root::{Root, copy_tree};
use aziot_tests::users;
use openssl::x509::X509;
use serde_json::{Value, json};

const NOT_FOUND: &str = "parameter \"id\" has an invalid value\ncaused by: not found";

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn cs_10_files_of_release_1_6_0_are_found() {
    let root = root("");
    copy_tree(
        &reference("var/lib/aziot/certd"),
        &root.join("var/lib/aziot/certd"),
    );
    let services = Services::on(root);
    for (id, result) in [
        ("imported-1", "results/cert-imported-1.json"),
        ("issued%20by%20ec", "results/cert-issued-by-ec.json"),
    ] {
        let expected: Value =
            serde_json::from_slice(&fs::read(reference(result)).unwrap()).unwrap();
        assert_eq!(services.get(id).json(), expected, "{id}");
    }
    // And what is written is where 1.6.0 looks for it.
    for (id, segment) in [
        ("a b", "a%20b"),
        ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
    ] {
        assert_eq!(services.put(segment, id).status, 201);
        assert_eq!(fs::read_to_string(services.file(id)).unwrap(), id);
    }
}

/// A device of release 1.6.0 with its configuration, keys and certificates, as they are: what is stored is served, files that
/// are preloaded are read, and a key pair of then is a local CA now, by its id and by a handle of then.
#[test]
fn the_device_of_release_1_6_0_is_taken_over() {
    let root = Root::new();
    copy_tree(&reference("etc/aziot"), &root.join("etc/aziot"));
    copy_tree(&reference("var"), &root.join("var"));
    // It names the installed places.
    for service in ["keyd", "certd"] {
        let generated = format!("etc/aziot/{service}/config.d/00-super.toml");
        let text = fs::read_to_string(root.join(&generated)).unwrap();
        let here = root.join("var").display().to_string();
        root.replace(&generated, text.replace("/var", &here));
    }
    // What an administrator adds in a file of theirs.
    let imported = "imported1-04ad2f0e095e49acb5547fa28dfed155115306a8ea35e31345a234de605cbdea.cer";
    let imported = root.join("var/lib/aziot/certd/certs").join(imported);
    root.write(
        "etc/aziot/certd/config.d/20-site.toml",
        format!(
            "[preloaded_certs]\nsite-file = \"file://{}\"\nbundle = [\"ec\", \"site-file\", \"issued by ec\"]\n\
             [cert_issuance.ec]\nmethod = \"self_signed\"\ncommon_name = \"site CA\"\n\
             [cert_issuance.local_ca]\ncert = \"ec\"\npk = \"ec\"\n[cert_issuance.leaf]\nmethod = \"local_ca\"\n{}",
            imported.display(),
            match users::effective() {
                0 => String::new(),
                uid => format!("[[principal]]\nuid = {uid}\ncerts = [\"*\"]\n"),
            }
        ),
    );
    root.write("etc/aziot/keyd/config.d/20-site.toml", users::principal());
    let services = Services::on(root);
    let pem = fs::read_to_string(&imported).unwrap();
    for id in ["imported-1", "site-file"] {
        assert_eq!(services.get(id).member("pem"), pem, "{id}");
    }

    let (handle, pair) = services.key_pair("ec", "ec-p256");
    let before: Value =
        serde_json::from_slice(&fs::read(reference("results/keypair-ec.json")).unwrap()).unwrap();
    let ca = issued(&services.create("ec", &csr(&pair, "x"))).remove(0);
    assert!(ca.verify(&pair).unwrap());
    for key in [handle.as_str(), before["keyHandle"].as_str().unwrap()] {
        let body = json!({
            "certId": "leaf",
            "csr": csr(&ec_key(), "leaf"),
            "issuer": { "certId": "ec", "privateKeyHandle": key },
        });
        let chain = issued(&services.post(&body));
        assert!(chain[0].verify(&pair).unwrap());
    }
    let chain = issued(&services.create("leaf", &csr(&ec_key(), "leaf")));
    assert!(chain[0].verify(&pair).unwrap());
    assert_eq!(chain[1].to_der().unwrap(), ca.to_der().unwrap());
    // A list of what is of then and of now; the one of then is two certificates.
    let bundle = services.get("bundle").member("pem");
    let all = X509::stack_from_pem(bundle.as_bytes()).unwrap();
    assert_eq!(all.len(), 4);
    assert_eq!(all[0].to_der().unwrap(), ca.to_der().unwrap());
}

/// Starts the service with a umask.
fn with_umask(root: &Root, umask: &str) -> Launch {
    let program = aziot_tests::binaries::built("aziotd");
    Launch::program("/bin/sh".into(), root)
        .arg("-c")
        .arg(format!(
            "umask {umask}; exec {} aziot-certd",
            program.display()
        ))
        .socket(root.socket("certd"))
}

#[test]
fn cs_11_what_is_imported_comes_back_as_it_was() {
    for (umask, file, directory) in [("022", 0o644, 0o755), ("077", 0o600, 0o700)] {
        let root = root("");
        fs::remove_dir(root.join("var/lib/aziot/certd")).unwrap();
        let launch = with_umask(&root, umask);
        let services = Services::launch(root, |_| launch);
        // Even a read makes the directories.
        services.get("x").assert_message(400, NOT_FOUND);
        let certs = services.root.join("var/lib/aziot/certd/certs");
        assert_eq!(mode(&certs), directory);
        assert_eq!(mode(&services.root.join("var/lib/aziot/certd")), 0o700);
        for text in ["hello", "", "ünï\u{1}\r\n\"\\", "line\n"] {
            let put = services.put("x", text);
            assert_eq!((put.status, put.member("pem").as_str()), (201, text));
            assert_eq!(services.get("x").member("pem"), text);
            assert_eq!(fs::read(services.file("x")).unwrap(), text.as_bytes());
        }
        assert_eq!(mode(&services.file("x")), file);
        // Nothing else is left there.
        assert_eq!(fs::read_dir(&certs).unwrap().count(), 1);
        // The mode of a file that is there stays.
        fs::set_permissions(services.file("x"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(services.put("x", "again").status, 201);
        assert_eq!(mode(&services.file("x")), 0o640);
    }
}

#[test]
fn cs_12_what_is_not_there() {
    let services = Services::start("");
    let absent = services.get("x");
    assert_eq!(absent.status, 400);
    assert_eq!(
        absent.text(),
        "{\"message\":\"parameter \\\"id\\\" has an invalid value\\ncaused by: not found\"}"
    );
    for _ in 0..2 {
        let deleted = services.delete("x");
        assert_eq!(deleted.status, 204);
        assert_eq!((deleted.text(), deleted.field("content-type")), ("", None));
    }
    assert_eq!(services.put("x", "text").status, 201);
    assert_eq!(services.delete("x").status, 204);
    assert!(!services.file("x").exists());
    services.get("x").assert_message(400, NOT_FOUND);
    // Over one connection, too: it stays open after an answer without content.
    let mut client = services.connect();
    for _ in 0..2 {
        let target = format!("/certificates/x?{VERSION}");
        assert_eq!(
            client.exchange(request("DELETE", &target, None)).status,
            204
        );
    }
}

#[test]
fn cs_13_preloaded_files() {
    let root = root("");
    let file = root.write("secrets/a b.pem", "first\n");
    let link = root.join("link.pem");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let url = |path: &str| format!("file://{}/{path}", root.path().display());
    root.write(
        "etc/aziot/certd/config.d/p.toml",
        format!(
            "[preloaded_certs]\nfile = \"{}?x#y\"\nlocal = \"{}\"\nlink = \"{}\"\ngone = \"{}\"\n",
            url("secrets/a%20b.pem"),
            url("secrets/a b.pem").replace("file://", "file://localhost"),
            url("link.pem"),
            url("missing/x.pem"),
        ),
    );
    let services = Services::on(root);
    for id in ["file", "local", "link"] {
        assert_eq!(services.get(id).member("pem"), "first\n", "{id}");
    }
    assert_eq!(services.put("file", "second\n").status, 201);
    assert_eq!(fs::read_to_string(&file).unwrap(), "second\n");
    assert_eq!(services.put("link", "third\n").status, 201);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), "third\n");
    assert_eq!(services.delete("file").status, 204);
    assert!(!file.exists());
    services.get("local").assert_message(400, NOT_FOUND);
    assert_eq!(services.delete("file").status, 204);
    assert_eq!(services.put("local", "again").status, 201);
    assert_eq!(fs::read_to_string(&file).unwrap(), "again", "made anew");
    // Its directory is not.
    services.get("gone").assert_message(400, NOT_FOUND);
    services
        .put("gone", "x")
        .assert_message(500, "internal error");
    assert!(!services.root.join("missing").exists());
    services.certd.log().wait_for("could not write cert file");
    // Nothing of all this concerns the store.
    assert!(!services.file("file").exists());
}

#[test]
fn cs_14_preloaded_lists() {
    let root = root("");
    let a = root.write("a.pem", "A");
    let b = root.write("b.pem", "B\n");
    root.write(
        "etc/aziot/certd/config.d/p.toml",
        format!(
            "[preloaded_certs]\na = \"file://{}\"\nb = \"file://{}\"\n\
             inner = [\"missing\", \"b\", \"stored\"]\nouter = [\"a\", \"inner\", \"a\", \"b\"]\n\
             nothing = [\"missing\", \"absent\"]\nempty = []\n",
            a.display(),
            b.display()
        ),
    );
    let services = Services::on(root);
    assert_eq!(services.get("inner").member("pem"), "B\n");
    assert_eq!(services.put("stored", "S\n").status, 201);
    assert_eq!(services.get("inner").member("pem"), "B\nS\n");
    // A line end is put only where one is missing.
    assert_eq!(services.get("outer").member("pem"), "A\nB\nS\nA\nB\n");
    for id in ["nothing", "empty"] {
        services.get(id).assert_message(400, NOT_FOUND);
    }
    services
        .put("outer", "x")
        .assert_message(500, "internal error");
    services
        .delete("outer")
        .assert_message(500, "internal error");
    services
        .create("outer", &csr(&ec_key(), "x"))
        .assert_message(500, "internal error");
    services
        .certd
        .log()
        .wait_for("preloaded cert \"outer\" is a list of IDs, not a single URI");
    assert_eq!(fs::read_to_string(a).unwrap(), "A");
}

#[test]
fn cs_15_locations_that_cannot_be_used() {
    let services = Services::start(
        "[preloaded_certs]\nhttp = \"https://host/a.pem\"\nhost = \"file://host/a.pem\"\nlist = [\"x\", \"http\"]\n",
    );
    assert_eq!(services.put("x", "x").status, 201);
    for id in ["http", "host", "list"] {
        services.get(id).assert_message(500, "internal error");
        services.put(id, "x").assert_message(500, "internal error");
        services.delete(id).assert_message(500, "internal error");
    }
    let log = services.certd.log();
    log.wait_for("could not get file path corresponding to cert ID");
    log.wait_for(
        "preloaded cert \"http\" does not have a valid URI: unrecognized scheme \"https\"",
    );
    log.wait_for("preloaded cert \"host\" does not have a valid URI: not a valid path");
}

#[test]
fn cs_16_nothing_that_is_stored_ends_the_service() {
    let root = root("");
    let der = root.write("cert.der", b"0\x82\x01\xff\xfe");
    let fifo = root.join("fifo");
    let status = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(status.unwrap().success());
    root.write(
        "etc/aziot/certd/config.d/p.toml",
        format!(
            "[preloaded_certs]\nder = \"file://{}\"\nfifo = \"file://{}\"\ndirectory = \"file://{}\"\n\
             own = [\"x\", \"own\"]\na = [\"b\"]\nb = [\"a\"]\nall = [\"x\", \"der\"]\n",
            der.display(),
            fifo.display(),
            root.path().display(),
        ),
    );
    let mut services = Services::on(root);
    assert_eq!(services.put("x", "x").status, 201);
    for id in ["own", "a", "b", "der", "all", "fifo", "directory"] {
        services.get(id).assert_message(500, "internal error");
    }
    let log = services.certd.log();
    log.wait_for("preloaded cert \"own\" is a list of IDs that leads back to \"own\"");
    log.wait_for("cert.der is not text");
    // An id whose file name is too long.
    let long = "a".repeat(187);
    services.get(&long).assert_message(500, "internal error");
    services
        .put(&long, "x")
        .assert_message(500, "internal error");
    services.delete(&long).assert_message(500, "internal error");
    assert_eq!(services.put(&"a".repeat(186), "x").status, 201);
    services.certd.assert_running();
    assert_eq!(services.get("x").member("pem"), "x");
}

#[test]
fn writers_of_one_certificate_take_turns() {
    let services = Services::start("");
    let texts: Vec<String> = (0..8).map(|n| format!("{n}").repeat(100_000)).collect();
    std::thread::scope(|scope| {
        for text in &texts {
            let services = &services;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(services.put("x", text).status, 201);
                    let read = services.get("x").member("pem");
                    assert!(read.len() == 100_000 && texts_of(&read) == 1);
                }
            });
        }
    });
    assert!(texts.contains(&services.get("x").member("pem")));
    let directory = services.root.join("var/lib/aziot/certd/certs");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
}

/// Different characters in a text.
fn texts_of(text: &str) -> usize {
    text.chars()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

#[test]
fn what_a_crash_has_left_is_removed_at_the_start() {
    let root = root("");
    let left = root.write(
        "var/lib/aziot/certd/certs/.aziot-0000002a-00000001.tmp",
        "half",
    );
    let other = root.write("var/lib/aziot/certd/certs/notes.txt", "mine");
    let services = Services::on(root);
    aziot_tests::client::eventually("the file is gone", || !left.exists());
    assert!(other.exists());
    assert_eq!(services.put("x", &json!({}).to_string()).status, 201);
}
