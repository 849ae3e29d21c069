//! The key store when a process dies, or a call fails, at any point of a write.
//!
//! A C program drives the library under `tests/tools/crashpoint.c`, which kills it before the n-th call that touches
//! the store, for every n. After each run the store holds the old state or the new one, nothing else, and the next
//! start removes what was left.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aziot_crypto::store::Store;
use tempfile::TempDir;

/// More calls than any operation makes.
const MANY: usize = 100;

/// Content of the files of a store, by name.
type State = BTreeMap<&'static str, Content>;

/// What a file holds.
#[derive(Clone)]
enum Content {
    /// These bytes.
    Exactly(Vec<u8>),
    /// Any 32 bytes.
    Random,
    /// The PEM of any key pair, whole.
    AnyPair,
}

impl Content {
    fn is(&self, found: &[u8]) -> bool {
        match self {
            Self::Exactly(bytes) => found == bytes,
            Self::Random => found.len() == 32,
            Self::AnyPair => openssl::pkey::PKey::private_key_from_pem(found).is_ok(),
        }
    }
}

struct Scenario {
    name: &'static str,
    before: fn(&Path),
    operation: &'static [&'static str],
    old: State,
    new: State,
}

/// The files of the keys that the scenarios use.
const KEY: &str = "keys/key-2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683.key";
const OTHER: &str =
    "keys/other-d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa.key";

/// Two key pairs.
const PAIR: &str = include_str!("keys/p256.pem");
const OTHER_PAIR: &str = include_str!("keys/p384.pem");

fn put(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir(dir.join("keys")).unwrap();
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn scenarios() -> Vec<Scenario> {
    let exactly = |text: &str| Content::Exactly(text.as_bytes().to_vec());
    let state = |files: &[(&'static str, &str)]| -> State {
        files
            .iter()
            .map(|(name, content)| (*name, exactly(content)))
            .collect()
    };
    let one = |content: Content| State::from([(KEY, content)]);
    let with_key: fn(&Path) = |dir| put(dir, &[(KEY, "old")]);
    let with_pairs: fn(&Path) = |dir| put(dir, &[(KEY, PAIR), (OTHER, OTHER_PAIR)]);
    let old = state(&[(KEY, "old")]);
    let pairs = state(&[(KEY, PAIR), (OTHER, OTHER_PAIR)]);
    vec![
        Scenario {
            name: "create the first key",
            before: |_| {},
            operation: &["create", "key"],
            old: state(&[]),
            new: one(Content::Random),
        },
        Scenario {
            name: "create over an empty file",
            before: |dir| put(dir, &[(KEY, "")]),
            operation: &["create", "key"],
            old: state(&[(KEY, "")]),
            new: one(Content::Random),
        },
        Scenario {
            name: "create where there is one",
            before: with_key,
            operation: &["create", "key"],
            old: old.clone(),
            new: old.clone(),
        },
        Scenario {
            name: "import the first key",
            before: |_| {},
            operation: &["import", "key", "new key"],
            old: state(&[]),
            new: state(&[(KEY, "new key")]),
        },
        Scenario {
            name: "import over a key",
            before: with_key,
            operation: &["import", "key", "new key"],
            old: old.clone(),
            new: state(&[(KEY, "new key")]),
        },
        Scenario {
            name: "delete",
            before: with_key,
            operation: &["delete", "key"],
            old: old.clone(),
            new: state(&[]),
        },
        Scenario {
            name: "move over another",
            before: |dir| put(dir, &[(KEY, "old"), (OTHER, "other")]),
            operation: &["move", "key", "other"],
            old: state(&[(KEY, "old"), (OTHER, "other")]),
            new: state(&[(OTHER, "old")]),
        },
        Scenario {
            name: "create the first pair",
            before: |_| {},
            operation: &["pair", "key", "ec-p256"],
            old: state(&[]),
            new: one(Content::AnyPair),
        },
        Scenario {
            name: "create a pair over an empty file",
            before: |dir| put(dir, &[(KEY, "")]),
            operation: &["pair", "key", "*"],
            old: state(&[(KEY, "")]),
            new: one(Content::AnyPair),
        },
        Scenario {
            name: "create a pair where there is one",
            before: |dir| put(dir, &[(KEY, PAIR)]),
            operation: &["pair", "key", "rsa-2048"],
            old: state(&[(KEY, PAIR)]),
            new: state(&[(KEY, PAIR)]),
        },
        Scenario {
            name: "delete a pair",
            before: with_pairs,
            operation: &["delete-pair", "key"],
            old: pairs.clone(),
            new: state(&[(OTHER, OTHER_PAIR)]),
        },
        Scenario {
            name: "move a pair",
            before: |dir| put(dir, &[(KEY, PAIR)]),
            operation: &["move", "key", "other"],
            old: state(&[(KEY, PAIR)]),
            new: state(&[(OTHER, PAIR)]),
        },
        Scenario {
            name: "move a pair over another",
            before: with_pairs,
            operation: &["move", "key", "other"],
            old: pairs,
            new: state(&[(OTHER, PAIR)]),
        },
    ]
}

struct Tools {
    _dir: TempDir,
    driver: PathBuf,
    interposer: PathBuf,
}

fn tools() -> Tools {
    let (dir, path) = common::scratch();
    let interposer = path.join("crashpoint.so");
    let source = common::here().join("../tests/tools/crashpoint.c");
    common::cc(&[
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        interposer.to_str().unwrap(),
        source.to_str().unwrap(),
        "-ldl",
    ]);
    Tools {
        driver: common::compile_driver(&path),
        interposer,
        _dir: dir,
    }
}

impl Tools {
    /// Runs operations on the store in `dir` with something happening at the n-th call; 0 is never.
    fn run(&self, dir: &Path, operations: &[&str], at: usize, mode: &str) -> Output {
        Command::new(&self.driver)
            .arg("run")
            .arg(common::shared_library())
            .arg(dir)
            .args(operations)
            .env("LD_PRELOAD", &self.interposer)
            .env("CRASHPOINT_DIR", dir)
            .env("CRASHPOINT_AT", at.to_string())
            .env("CRASHPOINT_MODE", mode)
            .env("CRASHPOINT_TRACE", dir.with_extension("trace"))
            .output()
            .unwrap()
    }

    /// The calls that operations make, as "name path".
    fn trace(&self, dir: &Path, operations: &[&str]) -> Vec<String> {
        let trace = dir.with_extension("trace");
        let _ = fs::remove_file(&trace);
        let output = self.run(dir, operations, 0, "kill");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = fs::read_to_string(trace).unwrap();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }
}

/// All files below a directory, by their path in it.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let keys = dir.join("keys");
    for entry in keys.read_dir().into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("keys/{}", entry.file_name().into_string().unwrap());
        found.insert(name, fs::read(entry.path()).unwrap());
    }
    found
}

fn is(found: &BTreeMap<String, Vec<u8>>, state: &State) -> bool {
    found.len() == state.len()
        && state
            .iter()
            .all(|(name, wanted)| found.get(*name).is_some_and(|content| wanted.is(content)))
}

fn without_temporaries(found: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    found
        .iter()
        .filter(|(name, _)| !name.ends_with(".tmp"))
        .map(|(name, content)| (name.clone(), content.clone()))
        .collect()
}

/// Runs a scenario once; answers the output, and what the store holds then.
fn play(
    tools: &Tools,
    scenario: &Scenario,
    dir: &Path,
    at: usize,
    mode: &str,
) -> (Output, BTreeMap<String, Vec<u8>>) {
    (scenario.before)(dir);
    let output = tools.run(dir, scenario.operation, at, mode);
    for entry in dir.join("keys").read_dir().into_iter().flatten() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert_eq!(
            metadata.permissions().mode() & 0o077,
            0,
            "{}: open to others at call {at}",
            scenario.name
        );
    }
    (output, files(dir))
}

/// Kills at every call; after each, old or new, and the next start sweeps.
fn crash_everywhere(mode: &str) {
    let tools = tools();
    for scenario in scenarios() {
        let (mut crashes, mut leftovers, mut completed) = (0, 0, false);
        for at in 1..MANY {
            let (_scratch, dir) = common::scratch();
            let dir = dir.join("home");
            fs::create_dir(&dir).unwrap();
            let (output, found) = play(&tools, &scenario, &dir, at, mode);
            if output.status.signal().is_none() {
                assert_eq!(
                    output.status.code(),
                    Some(0),
                    "{}: {output:?}",
                    scenario.name
                );
                assert!(is(&found, &scenario.new), "{}: {found:?}", scenario.name);
                completed = true;
                break;
            }
            crashes += 1;
            let kept = without_temporaries(&found);
            assert!(
                is(&kept, &scenario.old) || is(&kept, &scenario.new),
                "{}, killed at call {at}: {found:?}",
                scenario.name
            );

            let restarted = Store::new();
            restarted.set_home(&dir);
            let swept = restarted.sweep().unwrap();
            assert_eq!(swept, found.len() - kept.len());
            assert_eq!(files(&dir), kept);
            leftovers += swept;
            // And the operation can be done again.
            let again = tools.run(&dir, scenario.operation, 0, mode);
            let moved = scenario.operation[0] == "move" && is(&kept, &scenario.new);
            assert_eq!(
                again.status.code(),
                Some(if moved { 12 } else { 0 }),
                "{}: {again:?}",
                scenario.name
            );
            assert!(is(&files(&dir), &scenario.new), "{}", scenario.name);
        }
        assert!(completed, "{} never completed", scenario.name);
        let writes = !scenario.name.ends_with("where there is one");
        assert!(
            !writes || crashes >= 3,
            "{}: only {crashes} points to crash at",
            scenario.name
        );
        if matches!(scenario.operation[0], "import" | "pair") && writes {
            assert!(
                leftovers > 0,
                "{}: no crash left a temporary file, so nothing was shown",
                scenario.name
            );
        }
    }
}

#[test]
fn killed_before_any_call_the_store_holds_old_or_new() {
    crash_everywhere("kill");
}

#[test]
fn killed_in_the_middle_of_a_write_the_store_holds_old_or_new() {
    crash_everywhere("torn");
}

/// Every call fails once with each error: the library says so, old or new is there, and no temporary file is left.
#[test]
fn a_failing_call_loses_nothing_and_leaves_nothing() {
    let tools = tools();
    for errno in [libc::ENOSPC, libc::EIO, libc::EROFS, libc::EACCES] {
        for scenario in scenarios() {
            let mut failures = 0;
            for at in 1..MANY {
                let (_scratch, dir) = common::scratch();
                let dir = dir.join("home");
                fs::create_dir(&dir).unwrap();
                let (output, found) = play(&tools, &scenario, &dir, at, &format!("errno:{errno}"));
                let case = || {
                    format!(
                        "{}, errno {errno} at call {at}: {output:?}, {found:?}",
                        scenario.name
                    )
                };
                match output.status.code() {
                    Some(0) => assert!(is(&found, &scenario.new), "{}", case()),
                    Some(12) => {
                        failures += 1;
                        assert!(
                            is(&found, &scenario.old) || is(&found, &scenario.new),
                            "{}",
                            case()
                        );
                        let log = String::from_utf8_lossy(&output.stderr);
                        assert!(
                            log.contains("[ERR!] - could not ") && log.contains("os error"),
                            "{}",
                            case()
                        );
                    }
                    _ => panic!("{}", case()),
                }
                if reached(&dir) < at {
                    break;
                }
            }
            assert!(failures > 0, "{}: no call failed", scenario.name);
        }
    }
}

/// How many calls the last run counted.
fn reached(dir: &Path) -> usize {
    fs::read_to_string(dir.with_extension("trace")).map_or(0, |text| text.lines().count())
}

/// Content before name, and both on disk: the order that survives a power cut.
#[test]
fn content_is_synced_before_it_is_renamed_and_the_directory_after() {
    let tools = tools();
    let (_scratch, dir) = common::scratch();
    let dir = dir.join("home");
    fs::create_dir_all(dir.join("keys")).unwrap();
    let calls = tools.trace(&dir, &["create", "other", "import", "key", "content"]);
    let last_temporary = calls
        .iter()
        .rposition(|call| call.starts_with("open64 ") && call.ends_with(".tmp"))
        .unwrap();
    let temporary = calls[last_temporary].split_once(' ').unwrap().1;
    let keys = dir.join("keys").display().to_string();
    let expected = [
        format!("open64 {temporary}"),
        format!("fchmod {temporary}"),
        format!("write {temporary}"),
        format!("fsync {temporary}"),
        format!("rename {}", dir.join(KEY).display()),
        format!("open64 {keys}"),
        format!("fsync {keys}"),
    ];
    assert_eq!(
        calls[last_temporary..last_temporary + expected.len()],
        expected
    );
}

/// A preloaded key whose directory refuses a replacement is written in place, with a warning, and keeps its mode.
#[test]
fn a_preloaded_file_that_cannot_be_replaced_is_written_in_place() {
    let tools = tools();
    for (call, errno) in [
        ("open64", libc::EACCES),
        ("open64", libc::EROFS),
        ("rename", libc::EBUSY),
    ] {
        let (_scratch, dir) = common::scratch();
        let dir = dir.join("home");
        fs::create_dir(&dir).unwrap();
        let (real, link) = (dir.join("real"), dir.join("link"));
        fs::write(&real, "the longer old key").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        let uri = format!("file://{}", link.display());
        let operations = ["preload", "key", &uri, "import", "key", "new"];

        // Where in the sequence the temporary file is made, and renamed.
        let calls = tools.trace(&dir, &operations);
        let wanted = |line: &String| match call {
            "rename" => line.starts_with("rename "),
            _ => line.starts_with("open64 ") && line.ends_with(".tmp"),
        };
        let at = calls.iter().position(wanted).unwrap() + 1;
        fs::write(&real, "the longer old key").unwrap();
        let output = tools.run(&dir, &operations, at, &format!("errno:{errno}"));
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(
            log.contains("[WARN] - could not ") && log.contains("writing it in place"),
            "{log}"
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }
}

/// Without the privilege to keep a foreign owner, the group is kept if it may be, and otherwise loses its access.
#[test]
fn an_owner_that_cannot_be_kept_is_reported_and_never_widens_access() {
    let tools = tools();
    let (_scratch, dir) = common::scratch();
    let dir = dir.join("home");
    fs::create_dir(&dir).unwrap();
    let path = dir.join("key");
    let uri = format!("file://{}", path.display());
    let operations = ["preload", "key", &uri, "import", "key", "new"];
    let foreign = || {
        fs::write(&path, "old").unwrap();
        let owned = std::os::unix::fs::chown(&path, Some(12345), Some(54321));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        owned
    };
    if let Err(err) = foreign() {
        // Nobody but root can make a file of somebody else's, so there is no such file to write to either.
        assert_eq!(err.kind(), std::io::ErrorKind::PermissionDenied);
        return;
    }
    let calls = tools.trace(&dir, &operations);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
        (12345, 54321, 0o664)
    );

    // Only the first of two attempts, that with the owner, is refused: the group is kept.
    foreign().unwrap();
    let at = calls
        .iter()
        .position(|call| call.starts_with("fchown "))
        .unwrap()
        + 1;
    let output = tools.run(&dir, &operations, at, &format!("errno:{}", libc::EPERM));
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.gid(), metadata.mode() & 0o777), (54321, 0o664));
    assert!(
        log.contains("belonged to user 12345, group 54321, and now belongs to"),
        "{log}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"new");

    // As an ordinary user neither is possible.
    foreign().unwrap();
    std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(dir.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let (_copies, copies) = common::scratch();
    fs::set_permissions(&copies, fs::Permissions::from_mode(0o755)).unwrap();
    let library = copies.join("libaziot_keys.so");
    let driver = copies.join("driver");
    fs::copy(common::shared_library(), &library).unwrap();
    fs::copy(&tools.driver, &driver).unwrap();
    let output = Command::new(driver)
        .uid(65534)
        .gid(65534)
        .args(["run".as_ref(), library.as_os_str(), dir.as_os_str()])
        .args(operations)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
        (65534, 65534, 0o606)
    );
    assert!(
        log.contains("and now belongs to user 65534, group 65534"),
        "{log}"
    );
}
