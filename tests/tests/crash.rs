//! The daemons die at every single step of their work on files; whatever is there afterwards is the old content or the
//! new one, and the next start goes on from it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "identityd/device.rs"]
#[allow(dead_code, reason = "shared with the tests of the Identity Service")]
mod device;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aziot_tests::back_end::ecdsa_body;
use aziot_tests::binaries;
use aziot_tests::client::{Client, request};
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::fixture::{self, Keyd};
use aziot_tests::root::{Root, copy_tree};
use base64ct::{Base64, Encoding as _};
use device::{Bench, DEVICE, Source};
use serde_json::json;

/// More steps than any operation here takes; reaching it means that the count does not work.
const STEPS: usize = 200;

/// How long a step may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ways to die at a step.
const MODES: [&str; 2] = ["kill", "torn"];

const OLD: &[u8] = b"the old key";
const NEW: &[u8] = b"another, longer new key";

/// The interposer that counts calls on files and kills the process at a chosen one.
fn crashpoint(directory: &Path) -> PathBuf {
    binaries::compile_shared("crashpoint.c", &[], &["-ldl"], directory, "crashpoint.so")
}

/// Starts a service that dies at call number `step` on files below `directory`.
fn doomed(launch: Launch, library: &Path, directory: &Path, step: usize, mode: &str) -> Daemon {
    launch
        .env("LD_PRELOAD", library)
        .env("CRASHPOINT_DIR", directory)
        .env("CRASHPOINT_AT", step.to_string())
        .env("CRASHPOINT_MODE", mode)
        .spawn()
}

/// Whether the process is still there (a dead one waits to be reaped).
fn is_alive(daemon: &Daemon) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits until `condition` holds (true) or the process has died (false).
fn until(daemon: &Daemon, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if !is_alive(daemon) {
            return false;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "neither done nor dead:\n{}",
            daemon.log().text()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends one request; true when it was answered with 200 or 204, false when the process died.
fn answered(daemon: &Daemon, method: &str, path: &str, body: &serde_json::Value) -> bool {
    if !until(daemon, || Client::try_connect(daemon.socket()).is_ok()) {
        return false;
    }
    let Ok(mut client) = Client::try_connect(daemon.socket()) else {
        return false;
    };
    let target = format!("{path}?{}", fixture::VERSION);
    if client
        .try_send(request(method, &target, Some(body)))
        .is_err()
    {
        return false;
    }
    match client.try_response(false) {
        Ok(response) => {
            assert!(matches!(response.status, 200 | 204), "{}", response.text());
            true
        }
        Err(_) => {
            assert!(until(daemon, || !is_alive(daemon)) || !is_alive(daemon));
            false
        }
    }
}

/// Runs `operation` with death at every step, on a copy of `prepared` each time, and `check`s what is left.
fn at_every_step(
    prepared: &Root,
    operation: impl Fn(&Daemon) -> bool,
    check: impl Fn(&Keyd, &str),
) {
    let tools = tempfile::tempdir().unwrap();
    let library = crashpoint(tools.path());
    for mode in MODES {
        let mut step = 1;
        loop {
            assert!(step < STEPS, "no end after {step} steps");
            let root = Root::with_keyd("");
            copy_tree(&prepared.join("var"), &root.join("var"));
            let keys = root.join("var/lib/aziot/keyd");
            let daemon = doomed(
                Launch::service("aziot-keyd", &root),
                &library,
                &keys,
                step,
                mode,
            );
            let done = operation(&daemon);
            daemon.kill();
            let context = format!("{mode} at step {step}");
            let after = Keyd::on(root);
            check(&after, &context);
            assert_swept(&after.root.join("var/lib/aziot/keyd/keys"), &context);
            after.daemon.stop();
            if done {
                assert!(
                    step > 4,
                    "an operation on files takes more than {step} steps"
                );
                break;
            }
            step += 1;
        }
    }
}

/// Nothing but keys is left in the directory once the service has started again.
fn assert_swept(directory: &Path, context: &str) {
    let started = Instant::now();
    loop {
        let foreign: Vec<_> = std::fs::read_dir(directory)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()))
            .into_iter()
            .flatten()
            .filter(|name| {
                Path::new(name)
                    .extension()
                    .is_none_or(|extension| extension != "key")
            })
            .collect();
        if foreign.is_empty() {
            return;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{context}: {foreign:?} is left"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A root with the key `k`, and its handle.
fn prepared() -> (Root, String) {
    let keyd = Keyd::empty("");
    let handle = keyd.import("k", OLD);
    let Keyd { daemon, root } = keyd;
    daemon.stop();
    (root, handle)
}

#[test]
fn an_import_leaves_the_old_or_the_new_key() {
    let (root, handle) = prepared();
    let body = json!({ "keyId": "k", "keyBytes": Base64::encode_string(NEW), "usage": "sign" });
    at_every_step(
        &root,
        |daemon| answered(daemon, "POST", "/key", &body),
        |keyd, context| {
            let signature = keyd.sign(&handle, b"message").member("signature");
            let known = [
                fixture::hmac(OLD, b"message"),
                fixture::hmac(NEW, b"message"),
            ];
            assert!(known.contains(&signature), "{context}: another key signs");
        },
    );
}

#[test]
fn a_created_key_is_whole_or_absent() {
    let (root, _) = prepared();
    let body = json!({ "keyId": "fresh", "usage": "sign" });
    at_every_step(
        &root,
        |daemon| answered(daemon, "POST", "/key", &body),
        |keyd, context| {
            if let Ok(bytes) = std::fs::read(keyd.root.key_file("fresh")) {
                assert_eq!(bytes.len(), 32, "{context}: half a key");
            }
            // It can be made, or is used as it is.
            let handle = keyd.create("fresh");
            assert_eq!(keyd.sign(&handle, b"message").status, 200, "{context}");
        },
    );
}

#[test]
fn the_first_start_leaves_a_usable_handle_key() {
    let empty = Root::with_keyd("");
    let body = json!({ "keyId": "first", "usage": "sign" });
    std::fs::create_dir_all(empty.join("var/lib/aziot/keyd")).unwrap();
    at_every_step(
        &empty,
        |daemon| answered(daemon, "POST", "/key", &body),
        |keyd, context| {
            let handle = keyd.create("first");
            assert_eq!(keyd.sign(&handle, b"message").status, 200, "{context}");
        },
    );
}

/// A root with the key pair `pair`, its handle, and what is to be seen of it.
fn prepared_pair() -> (Root, String, String) {
    let keyd = Keyd::empty("");
    let body = json!({ "keyId": "pair", "preferredAlgorithms": "ec-p256" });
    let handle = keyd.post("/keypair", &body).member("keyHandle");
    let point = point_of(&keyd, &handle).unwrap();
    let Keyd { daemon, root } = keyd;
    daemon.stop();
    (root, handle, point)
}

/// The point of a pair that can sign; nothing for one that is not there. A pair that is there and cannot be used is a failure.
fn point_of(keyd: &Keyd, handle: &str) -> Option<String> {
    let response = keyd.post("/parameters/ec-point", &json!({ "keyHandle": handle }));
    if response.status == 400 {
        return None;
    }
    let sign = keyd.post("/sign", &ecdsa_body(handle, &[7; 32]));
    assert_eq!((response.status, sign.status), (200, 200), "{response}");
    Some(response.member("value"))
}

/// The point of a pair by its id.
fn point_of_id(keyd: &Keyd, id: &str) -> Option<String> {
    let response = keyd.get(&format!("/keypair/{id}"));
    if response.status == 400 {
        return None;
    }
    assert_eq!(response.status, 200, "{id}: {response}");
    point_of(keyd, &response.member("keyHandle"))
}

#[test]
fn a_created_pair_is_whole_or_absent() {
    let (root, _, before) = prepared_pair();
    let body = json!({ "keyId": "fresh", "preferredAlgorithms": "ec-p256" });
    at_every_step(
        &root,
        |daemon| answered(daemon, "POST", "/keypair", &body),
        |keyd, context| {
            let found = point_of_id(keyd, "fresh");
            let handle = keyd.post("/keypair", &body).member("keyHandle");
            let point = point_of(keyd, &handle);
            assert!(point.is_some(), "{context}");
            if found.is_some() {
                assert_eq!(found, point, "{context}: it is kept");
            }
            assert_eq!(
                point_of_id(keyd, "pair").as_ref(),
                Some(&before),
                "{context}"
            );
        },
    );
}

#[test]
fn a_moved_pair_is_in_one_of_two_places() {
    let (root, _, before) = prepared_pair();
    // Once to a free id, once over another pair.
    for occupied in [false, true] {
        let mut other = None;
        let prepared = Root::with_keyd("");
        copy_tree(&root.join("var"), &prepared.join("var"));
        let prepared = if occupied {
            let keyd = Keyd::on(prepared);
            let body = json!({ "keyId": "target", "preferredAlgorithms": "ec-p256" });
            let handle = keyd.post("/keypair", &body).member("keyHandle");
            other = point_of(&keyd, &handle);
            keyd.daemon.stop();
            keyd.root
        } else {
            prepared
        };
        let body = json!({ "from": "pair" });
        at_every_step(
            &prepared,
            |daemon| answered(daemon, "POST", "/keypair/target", &body),
            |keyd, context| {
                let (from, to) = (point_of_id(keyd, "pair"), point_of_id(keyd, "target"));
                let moved = from.is_none() && to.as_ref() == Some(&before);
                let not_moved = from.as_ref() == Some(&before) && to == other;
                assert!(moved || not_moved, "{context}: {from:?}, {to:?}");
            },
        );
    }
}

#[test]
fn a_deleted_pair_is_whole_or_gone() {
    let (root, handle, before) = prepared_pair();
    let body = json!({ "keyHandle": handle });
    at_every_step(
        &root,
        |daemon| answered(daemon, "DELETE", "/keypair", &body),
        |keyd, context| {
            let found = point_of_id(keyd, "pair");
            assert!(
                found.is_none() || found.as_ref() == Some(&before),
                "{context}: {found:?}"
            );
            assert_eq!(keyd.delete("/keypair", &handle).status, 204, "{context}");
            assert_eq!(point_of_id(keyd, "pair"), None, "{context}");
        },
    );
}

/// All files below a directory, temporary ones of interrupted writers and the time last seen aside.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(directory: &Path, base: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, base, found);
            } else if path.file_name().unwrap() == "time_seen" {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(
                    text.trim_end().parse::<u64>().is_ok(),
                    "{text:?} is no time"
                );
            } else if !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(".aziot-")
            {
                let name = path.strip_prefix(base).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}

/// What is left of temporary files.
fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(".aziot-")
            {
                found.push(path);
            }
        }
    }
    found
}

const MODULE: &str = "[[principal]]\nuid = 7001\nname = \"one\"\nidtype = [\"module\"]\n";
const MODULES: &str = "[[principal]]\nuid = 7001\nname = \"one\"\nidtype = [\"module\"]\n[[principal]]\nuid = 7002\nname = \
                       \"two\"\nidtype = [\"module\"]\n";

/// Two runs of the Identity Service: from nothing to a reconciled device, and on to a second module.
#[test]
fn is_58_state_files_hold_the_old_or_the_new_content() {
    let bench = Bench::new();
    bench.register_device();
    let tools = tempfile::tempdir().unwrap();
    let library = crashpoint(tools.path());
    let home = bench.root.join("var/lib/aziot/identityd");
    let kept = tools.path().join("kept");

    let nothing = BTreeMap::new();
    bench.reconciled(Source::Manual, MODULE).daemon.stop();
    let one = files(&home);
    copy_tree(&home, &kept);
    bench.reconciled(Source::Manual, MODULES).daemon.stop();
    let two = files(&home);
    assert!(one.len() >= 4 && two.len() > one.len(), "{:?}", two.keys());

    for (start_from, tables, before, after) in [
        (Some(&kept), MODULES, &one, &two),
        (None, MODULE, &nothing, &one),
    ] {
        if start_from.is_none() {
            // What the hub has beside the configured modules would get a backup, too.
            assert!(bench.cloud.remove_module(DEVICE, "two"));
        }
        bench.configure(Source::Manual, "", tables);
        let mut step = 1;
        loop {
            assert!(step < STEPS, "no end after {step} steps");
            let _ = std::fs::remove_dir_all(&home);
            if let Some(kept) = start_from {
                copy_tree(kept, &home);
            }
            let daemon = doomed(bench.launch(), &library, &home, step, MODES[step % 2]);
            let done = until(&daemon, || {
                daemon.log().count("Identity reconciliation complete.") > 0
            });
            daemon.kill();
            let left = leftovers(&home);

            for (name, content) in files(&home) {
                let known = [before.get(&name), after.get(&name)];
                assert!(
                    known.contains(&Some(&content)),
                    "step {step}: {} holds neither the old content nor the new one: {}",
                    name.display(),
                    String::from_utf8_lossy(&content)
                );
            }
            let identityd = bench.started();
            identityd
                .daemon
                .log()
                .wait_for("Identity reconciliation complete.");
            identityd.daemon.stop();
            let found = files(&home);
            let differing: Vec<_> = found
                .keys()
                .chain(after.keys())
                .filter(|n| found.get(*n) != after.get(*n))
                .collect();
            assert!(
                differing.is_empty(),
                "step {step}: the next start does not complete {differing:?}"
            );
            let not_swept: Vec<_> = left.iter().filter(|path| path.exists()).collect();
            assert!(not_swept.is_empty(), "step {step}: {not_swept:?}");
            if done {
                assert!(step > 10, "the whole state takes more than {step} steps");
                break;
            }
            step += 1;
        }
    }
}
