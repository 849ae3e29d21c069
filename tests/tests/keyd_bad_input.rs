//! Bad files and bad disks: each has a message that says what to do, nothing is lost, and the service stays up.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]
#![allow(unsafe_code, reason = "mounting a file system")]

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use aziot_tests::back_end::ecdsa_body;
use aziot_tests::binaries;
use aziot_tests::client::Response;
use aziot_tests::daemon::Launch;
use aziot_tests::fixture::{self, Keyd};
use aziot_tests::root::Root;
use aziot_tests::users;
use base64ct::{Base64, Encoding as _};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use serde_json::json;

const INTERNAL: &str = "internal error";

/// A user without any rights.
const SERVICE: u32 = 64_123;

fn create_pair(keyd: &Keyd, id: &str) -> Response {
    keyd.post(
        "/keypair",
        &json!({ "keyId": id, "preferredAlgorithms": "ec-p256" }),
    )
}

fn create_key(keyd: &Keyd, id: &str) -> Response {
    keyd.post("/key", &json!({ "keyId": id, "usage": "sign" }))
}

fn import_key(keyd: &Keyd, id: &str, bytes: &[u8]) -> Response {
    let body = json!({ "keyId": id, "keyBytes": Base64::encode_string(bytes), "usage": "sign" });
    keyd.post("/key", &body)
}

/// An error in the log mentions all of these.
fn assert_error(keyd: &Keyd, parts: &[&str]) {
    let parts: Vec<&str> = ["[ERR!]"].iter().chain(parts).copied().collect();
    keyd.daemon.log().wait_for_all(&parts);
}

/// Files below a directory, with what is in them.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

#[test]
fn kf_15_keys_in_other_forms_are_not_overwritten() {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let pair = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let pem = pair.private_key_to_pem_pkcs8().unwrap();
    let garbled = String::from_utf8(pem).unwrap().replace('A', "B");
    let forms: [(&str, Vec<u8>, &str); 6] = [
        (
            "encrypted",
            pair.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret")
                .unwrap(),
            "encrypted",
        ),
        ("der", pair.private_key_to_der().unwrap(), "DER"),
        ("public", pair.public_key_to_pem().unwrap(), "public"),
        ("garbled", garbled.into_bytes(), ""),
        ("text", b"not a key\n".to_vec(), ""),
        ("symmetric", vec![7; 32], ""),
    ];
    let root = Root::new();
    let mut preloaded = "[preloaded_keys]\n".to_owned();
    for (name, bytes, _) in &forms {
        let path = root.write(format!("var/secrets/{name}"), bytes);
        preloaded.push_str(&format!("{name} = \"file://{}\"\n", path.display()));
    }
    root.keyd_config(&preloaded);
    let keyd = Keyd::on(root);
    for (name, bytes, reason) in &forms {
        let path = keyd.root.join(format!("var/secrets/{name}"));
        let before = fs::metadata(&path).unwrap();
        keyd.get(&format!("/keypair/{name}"))
            .assert_message(500, INTERNAL);
        assert_error(&keyd, &[path.to_str().unwrap(), reason]);
        for algorithms in ["*", "rsa-2048"] {
            let body = json!({ "keyId": name, "preferredAlgorithms": algorithms });
            keyd.post("/keypair", &body).assert_message(500, INTERNAL);
        }
        assert_eq!(&fs::read(&path).unwrap(), bytes, "{name} is untouched");
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    }
    // Nobody was asked for a passphrase: standard input is closed, and the log has no prompt.
    assert_eq!(keyd.daemon.log().count("pass phrase"), 0);
}

#[test]
fn a_truncated_pair_is_reported_and_kept() {
    let keyd = Keyd::empty("");
    let handle = create_pair(&keyd, "pair").member("keyHandle");
    let path = keyd.root.key_file("pair");
    let whole = fs::read(&path).unwrap();
    let end = whole.windows(5).rposition(|five| five == b"-----").unwrap() + 5;
    for length in (1..end).rev() {
        fs::write(&path, &whole[..length]).unwrap();
        let loaded = keyd.get("/keypair/pair");
        assert_eq!(loaded.status, 500, "{length} bytes: {loaded}");
        let created = create_pair(&keyd, "pair");
        assert_eq!(created.status, 500, "{length} bytes: {created}");
        assert_eq!(
            fs::read(&path).unwrap(),
            whole[..length],
            "{length} bytes are kept"
        );
        if length % 50 == 0 {
            keyd.post("/sign", &ecdsa_body(&handle, &[1; 32]))
                .assert_message(500, INTERNAL);
            assert_error(&keyd, &[path.to_str().unwrap()]);
        }
    }
    // Nothing at all is what a crash of release 1.6.0 leaves: that is replaced, and only by a request to create it.
    fs::write(&path, b"").unwrap();
    keyd.get("/keypair/pair").assert_message(500, INTERNAL);
    assert_eq!(create_pair(&keyd, "pair").status, 200);
    assert_eq!(
        keyd.post("/sign", &ecdsa_body(&handle, &[1; 32])).status,
        200
    );
    // The line feed at the end is not needed.
    fs::write(&path, &whole[..end]).unwrap();
    assert_eq!(keyd.get("/keypair/pair").status, 200);
}

#[test]
fn a_truncated_rsa_pair_is_reported_and_kept() {
    let keyd = Keyd::empty("");
    let pair = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let whole = pair.private_key_to_pem_pkcs8().unwrap();
    let traditional = pair.rsa().unwrap().private_key_to_pem().unwrap();
    for whole in [whole, traditional] {
        fixture::write_key(&keyd.root, "rsa", &whole);
        assert_eq!(keyd.get("/keypair/rsa").status, 200);
        let path = keyd.root.key_file("rsa");
        for length in (1..whole.len() - 1).step_by(13) {
            fs::write(&path, &whole[..length]).unwrap();
            keyd.get("/keypair/rsa").assert_message(500, INTERNAL);
            create_pair(&keyd, "rsa").assert_message(500, INTERNAL);
            assert_eq!(fs::read(&path).unwrap(), whole[..length]);
        }
    }
    assert_error(&keyd, &[".key"]);
}

/// A root that another user owns, and the launch of the service as that user; as root only, otherwise the tests' own user.
fn as_service(root: &Root) -> Launch {
    let launch = Launch::service("aziot-keyd", root);
    if !users::can_change("a service without root's rights") {
        return launch;
    }
    for directory in ["run/aziot", "var/lib/aziot/keyd"] {
        chown(root.join(directory), Some(SERVICE), Some(SERVICE)).unwrap();
    }
    launch.uid(SERVICE)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_cannot_be_written() {
    let root = Root::with_keyd("");
    let launch = as_service(&root);
    let keyd = Keyd {
        daemon: launch.start(),
        root,
    };
    let handle = import_key(&keyd, "key", b"content").member("keyHandle");
    let directory = keyd.root.join("var/lib/aziot/keyd/keys");
    let before = content(&directory);
    set_mode(&directory, 0o500);
    for response in [
        create_key(&keyd, "other"),
        create_pair(&keyd, "pair"),
        import_key(&keyd, "key", b"other"),
        keyd.delete("/key", &handle),
    ] {
        response.assert_message(500, INTERNAL);
    }
    assert_error(&keyd, &["/keys", "ermission denied"]);
    assert_eq!(content(&directory), before);
    assert_eq!(
        keyd.sign(&handle, b"m").member("signature"),
        fixture::hmac(b"content", b"m")
    );
    set_mode(&directory, 0o700);
    assert_eq!(create_key(&keyd, "other").status, 200);
    assert_eq!(create_pair(&keyd, "pair").status, 200);
}

#[test]
fn files_that_cannot_be_read() {
    let root = Root::with_keyd("");
    let launch = as_service(&root);
    let keyd = Keyd {
        daemon: launch.start(),
        root,
    };
    import_key(&keyd, "key", b"content");
    let pair = create_pair(&keyd, "pair").member("keyHandle");
    let key = keyd.get("/key/key").member("keyHandle");
    let paths = ["key", "pair"].map(|id| keyd.root.key_file(id));
    let before = content(&keyd.root.join("var/lib/aziot/keyd/keys"));
    for path in &paths {
        set_mode(path, 0);
        if users::effective() == 0 {
            chown(path, Some(0), Some(0)).unwrap();
        }
    }
    // Loaded anew: what is in memory belongs to the file as it was.
    keyd.get("/key/key").assert_message(500, INTERNAL);
    keyd.get("/keypair/pair").assert_message(500, INTERNAL);
    create_key(&keyd, "key").assert_message(500, INTERNAL);
    create_pair(&keyd, "pair").assert_message(500, INTERNAL);
    for path in &paths {
        assert_error(&keyd, &[path.to_str().unwrap(), "ermission denied"]);
    }
    for path in &paths {
        if users::effective() == 0 {
            chown(path, Some(SERVICE), Some(SERVICE)).unwrap();
        }
        set_mode(path, 0o600);
    }
    assert_eq!(content(&keyd.root.join("var/lib/aziot/keyd/keys")), before);
    assert_eq!(
        keyd.sign(&key, b"m").member("signature"),
        fixture::hmac(b"content", b"m")
    );
    assert_eq!(keyd.post("/sign", &ecdsa_body(&pair, &[1; 32])).status, 200);
    // A directory in the place of a key.
    fs::create_dir(keyd.root.key_file("directory")).unwrap();
    keyd.get("/key/directory").assert_message(500, INTERNAL);
    create_key(&keyd, "directory").assert_message(500, INTERNAL);
    create_pair(&keyd, "directory").assert_message(500, INTERNAL);
    assert!(keyd.root.key_file("directory").is_dir());
}

#[test]
fn files_that_others_can_read_or_write_are_used_with_a_warning() {
    let root = Root::with_keyd("");
    let key = root.write("var/secrets/shared", b"content");
    // 1.6.0 leaves its files like this below a directory that nobody else may enter: no reason to warn.
    fixture::write_key(&root, "protected", b"content");
    set_mode(&root.key_file("protected"), 0o644);
    set_mode(&root.join("var/lib/aziot/keyd"), 0o700);
    set_mode(&key, 0o666);
    root.keyd_config(&format!(
        "[preloaded_keys]\nshared = \"file://{}\"\n",
        key.display()
    ));
    let keyd = Keyd::on(root);
    for id in ["shared", "protected"] {
        for _ in 0..3 {
            let handle = keyd.get(&format!("/key/{id}")).member("keyHandle");
            assert_eq!(
                keyd.sign(&handle, b"m").member("signature"),
                fixture::hmac(b"content", b"m")
            );
        }
    }
    let log = keyd.daemon.stop().log;
    let command = format!("chmod 600 {}", key.display());
    let lines: Vec<&str> = log.lines().collect();
    let warnings: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("[WARN]") && line.contains("chmod"))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}\n{log}");
    assert!(
        warnings[0].contains(&command) || warnings[0].contains(key.to_str().unwrap()),
        "{}",
        warnings[0]
    );
}

/// A small file system on a directory; it goes with the value.
struct Mounted {
    path: CString,
}

impl Mounted {
    fn new(directory: &Path, size: &str) -> Option<Self> {
        let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
        let options = CString::new(format!("size={size},mode=700")).unwrap();
        // SAFETY: all are strings with a NUL at the end that live during the call.
        let result = unsafe {
            libc::mount(
                c"none".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        (result == 0).then_some(Self { path })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: a string with a NUL at the end.
        unsafe { libc::umount2(self.path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk() {
    let root = Root::with_keyd("");
    let home = root.join("var/lib/aziot/keyd");
    let Some(mounted) = Mounted::new(&home, "64k") else {
        // Everywhere else the calls fail one by one, as the next test has it.
        println!("NOTE: no file system can be mounted here, so a full one is not tested");
        assert!(std::env::var_os("CI").is_none(), "run this as root");
        return;
    };
    let keyd = Keyd::on(root);
    let handle = import_key(&keyd, "key", b"content").member("keyHandle");
    let pair = create_pair(&keyd, "pair").member("keyHandle");
    let directory = home.join("keys");
    let before = content(&directory);
    let filler = home.join("filler");
    let mut size = 64 * 1024;
    while size > 0 {
        let mut more = fs::read(&filler).unwrap_or_default();
        more.resize(more.len() + size, 0);
        if fs::write(&filler, &more).is_err() {
            size /= 2;
        }
    }
    for response in [
        create_key(&keyd, "other"),
        create_pair(&keyd, "other pair"),
        import_key(&keyd, "key", b"other content"),
    ] {
        response.assert_message(500, INTERNAL);
    }
    assert_error(&keyd, &["/keys", "No space left on device"]);
    assert_eq!(content(&directory), before);
    assert_eq!(
        keyd.sign(&handle, b"m").member("signature"),
        fixture::hmac(b"content", b"m")
    );
    assert_eq!(keyd.post("/sign", &ecdsa_body(&pair, &[1; 32])).status, 200);
    // What needs no room still works: a move, and making room by deleting.
    let moved = keyd.post("/keypair/moved", &json!({ "from": "pair" }));
    assert_eq!(moved.status, 204);
    assert_eq!(keyd.delete("/key", &handle).status, 204);
    fs::remove_file(filler).unwrap();
    assert_eq!(create_key(&keyd, "other").status, 200);
    assert_eq!(create_pair(&keyd, "other pair").status, 200);
    assert_eq!(keyd.get("/keypair/moved").status, 200);
    drop(keyd);
    drop(mounted);
}

#[test]
fn every_single_call_on_files_that_fails() {
    let tools = tempfile::tempdir().unwrap();
    let library = binaries::compile_shared(
        "crashpoint.c",
        &[],
        &["-ldl"],
        tools.path(),
        "crashpoint.so",
    );
    let launch_at = |step: usize, mode: String, trace: &Path| {
        let root = Root::with_keyd("");
        fixture::write_key(&root, fixture::HANDLE_KEY, &[1; 32]);
        fixture::write_key(&root, "key", b"content");
        let directory = root.join("var/lib/aziot/keyd");
        Keyd::launch(root, |launch| {
            launch
                .env("LD_PRELOAD", &library)
                .env("CRASHPOINT_DIR", &directory)
                .env("CRASHPOINT_AT", step.to_string())
                .env("CRASHPOINT_MODE", mode)
                .env("CRASHPOINT_TRACE", trace)
        })
    };
    let requests = |keyd: &Keyd| {
        [
            create_pair(keyd, "pair"),
            import_key(keyd, "key", b"other"),
            keyd.post("/keypair/moved", &json!({ "from": "pair" })),
        ]
    };
    // How many calls there are when none fails.
    let trace = tools.path().join("trace");
    let keyd = launch_at(0, "kill".to_owned(), &trace);
    for answer in requests(&keyd) {
        assert!(matches!(answer.status, 200 | 204), "{answer}");
    }
    keyd.daemon.stop();
    let calls = fs::read_to_string(&trace).unwrap().lines().count();
    assert!(calls > 15, "{calls} calls");
    let mut failures = 0;
    // No room, and an I/O error.
    for errno in [libc::ENOSPC, libc::EIO] {
        for step in 1..=calls {
            let mut keyd = launch_at(step, format!("errno:{errno}"), &trace);
            let answers = requests(&keyd);
            keyd.daemon.assert_running();
            let statuses = answers.each_ref().map(|answer| answer.status);
            let context = format!("errno {errno} at call {step}: {statuses:?}");
            assert!(
                statuses
                    .iter()
                    .all(|status| matches!(status, 200 | 204 | 500)),
                "{context}"
            );
            if statuses.contains(&500) {
                failures += 1;
                keyd.daemon.log().wait_for("[ERR!]");
            }
            // A single call fails, perhaps one of these: at the second attempt everything works, and what was promised is
            // there.
            let again = |request: &dyn Fn() -> Response| {
                let response = request();
                if response.status == 500 {
                    return request();
                }
                response
            };
            let key = again(&|| keyd.get("/key/key")).member("keyHandle");
            let known = [b"content".as_slice(), b"other"].map(|key| fixture::hmac(key, b"m"));
            let signature = again(&|| keyd.sign(&key, b"m")).member("signature");
            assert!(known.contains(&signature), "{context}");
            if statuses[1] == 200 {
                assert_eq!(signature, known[1], "{context}");
            }
            if statuses[0] == 200 {
                // A move may have happened although its end could not be made sure of.
                let places = ["pair", "moved"]
                    .map(|id| again(&|| keyd.get(&format!("/keypair/{id}"))).status);
                assert!(places.contains(&200), "{context}: {places:?}");
                if statuses[2] == 204 {
                    assert_eq!(places, [400, 200], "{context}");
                }
            }
            for response in [
                again(&|| create_pair(&keyd, "pair")),
                again(&|| import_key(&keyd, "key", b"new")),
            ] {
                assert_eq!(response.status, 200, "{context}");
            }
            keyd.daemon.stop();
        }
    }
    assert!(failures > 10, "{failures} failures were noticed");
}
