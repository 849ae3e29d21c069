use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::sweep::temporary_name;
use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn replace_makes_a_file_with_its_mode_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    for wanted in [0o600, 0o644, 0o400] {
        replace(&path, b"content", Options::new(wanted)).unwrap();
        assert_eq!(mode(&path), wanted);
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(names(dir.path()), ["state"]);
    }
}

#[test]
fn replace_keeps_an_existing_mode_and_owner_only_if_asked_to() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&path, Some(12345), Some(54321)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
    }
    let before = fs::metadata(&path).unwrap();
    let keep = Options {
        keep_existing: true,
        ..Options::new(0o600)
    };
    replace(&path, b"new", keep).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (after.uid(), after.gid(), mode(&path)),
        (before.uid(), before.gid(), 0o640)
    );
    assert_ne!(after.ino(), before.ino());
    replace(&path, b"newer", Options::new(0o600)).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read(&path).unwrap(), b"newer");
}

#[test]
fn replace_gives_the_owner_asked_for_or_fails_with_the_old_file_intact() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "old").unwrap();
    let owned = Options {
        owner: Some(Owner {
            uid: 12345,
            gid: 54321,
        }),
        ..Options::new(0o640)
    };
    let outcome = replace(&path, b"new", owned);
    if is_root() {
        outcome.unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (after.uid(), after.gid(), mode(&path)),
            (12345, 54321, 0o640)
        );
    } else {
        assert_eq!(outcome.unwrap_err().step(), Step::SetOwner);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
    assert_eq!(names(dir.path()), ["key"]);
}

#[test]
fn replace_follows_links_only_if_asked_to() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    let target = dir.path().join("real/key");
    let link = dir.path().join("link");
    let link_to_link = dir.path().join("link2");
    symlink("real/key", &link).unwrap();
    symlink("link", &link_to_link).unwrap();
    let follow = Options {
        follow_links: true,
        ..Options::new(0o600)
    };
    // The target need not exist.
    replace(&link_to_link, b"one", follow).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"one");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(names(&dir.path().join("real")), ["key"]);
    replace(&link, b"two", Options::new(0o600)).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert_eq!(fs::read(&target).unwrap(), b"one");

    let looped = dir.path().join("loop");
    symlink("loop", &looped).unwrap();
    let err = replace(&looped, b"three", follow).unwrap_err();
    assert_eq!(
        (err.step(), err.os_code()),
        (Step::FollowLink, Some(libc::ELOOP))
    );
}

#[test]
fn a_failed_replace_names_path_step_and_cause() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("missing/state");
    let err = replace(&path, b"x", Options::new(0o600)).unwrap_err();
    assert!(err.is_not_found());
    assert_eq!(
        err.to_string(),
        format!(
            "could not create a temporary file to replace {}: No such file or directory (os error 2)",
            path.display()
        )
    );
    let occupied = dir.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    let in_place = Options {
        in_place: true,
        keep_existing: true,
        ..Options::new(0o600)
    };
    let err = replace(&occupied, b"x", in_place).unwrap_err();
    assert_eq!(err.step(), Step::Rename);
    assert_eq!(names(dir.path()), ["occupied"]);
    let full = Error::new(
        Path::new("/k"),
        Step::Write,
        Reason::Io(io::Error::from_raw_os_error(libc::ENOSPC)),
    );
    assert_eq!(
        full.to_string(),
        "could not write the new /k: No space left on device (os error 28); free some space there"
    );
}

#[test]
fn read_is_bounded_and_refuses_what_is_not_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    assert!(read(&path, 10).unwrap().is_none());
    fs::write(&path, "0123456789").unwrap();
    assert_eq!(
        read(&path, 10).unwrap().unwrap().bytes.as_slice(),
        b"0123456789"
    );
    let err = read(&path, 9).unwrap_err();
    assert!(
        matches!(err.reason(), Reason::TooLong { limit: 9 }),
        "{err}"
    );
    assert!(matches!(
        read(dir.path(), 10).unwrap_err().reason(),
        Reason::NotRegular
    ));
    // A FIFO without a writer would block a naive reader for ever.
    let fifo = dir.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    assert!(matches!(
        read(&fifo, 10).unwrap_err().reason(),
        Reason::NotRegular
    ));
    assert!(read(Path::new("/dev/zero"), 10).is_err());
    let through_file = path.join("below");
    assert!(!read(&through_file, 10).unwrap_err().is_not_found());
}

#[test]
fn remove_is_idempotent() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "x").unwrap();
    assert!(remove(&path).unwrap());
    assert!(!remove(&path).unwrap());
    assert_eq!(remove(dir.path()).unwrap_err().step(), Step::Remove);
}

#[test]
fn rename_replaces_and_a_missing_source_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&to, "old").unwrap();
    assert!(rename(&from, &to).unwrap_err().is_not_found());
    assert_eq!(fs::read(&to).unwrap(), b"old");
    fs::write(&from, "new").unwrap();
    rename(&from, &from).unwrap();
    rename(&from, &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["to"]);
}

#[test]
fn create_directories_sets_the_mode_of_new_ones_only() {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let deep = dir.path().join("a/b/c");
    create_directories(&deep, 0o700).unwrap();
    create_directories(&deep, 0o755).unwrap();
    assert_eq!(
        (mode(&deep), mode(deep.parent().unwrap()), mode(dir.path())),
        (0o700, 0o700, 0o755)
    );
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(
        create_directories(&dir.path().join("file"), 0o700)
            .unwrap_err()
            .step(),
        Step::CreateDirectory
    );
    assert!(create_directories(&dir.path().join("file/x"), 0o700).is_err());
}

#[test]
fn sweep_removes_leftovers_but_neither_live_nor_foreign_files() {
    let dir = TempDir::new().unwrap();
    assert_eq!(sweep(&dir.path().join("missing")).unwrap(), 0);
    let leftover = dir.path().join(temporary_name());
    fs::write(&leftover, "half").unwrap();
    let foreign = [".aziot-notes.tmp", "state", "x.tmp"];
    for name in foreign {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let directory_with_such_a_name = dir.path().join(temporary_name());
    fs::create_dir(&directory_with_such_a_name).unwrap();
    // A live writer has its file claimed.
    let live = dir.path().join(temporary_name());
    let writer = File::create(&live).unwrap();
    assert!(matches!(
        super::sweep::claim(&writer),
        super::sweep::Claim::Held
    ));

    assert_eq!(sweep(dir.path()).unwrap(), 1);
    assert!(!leftover.exists());
    assert!(live.exists() && directory_with_such_a_name.exists());
    assert!(foreign.iter().all(|name| dir.path().join(name).exists()));
    drop(writer);
    assert_eq!(sweep(dir.path()).unwrap(), 1);
    assert!(!live.exists());
}

#[test]
fn sweeping_never_breaks_a_live_writer() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                sweep(dir.path()).unwrap();
            }
        });
        for n in 0..300_u32 {
            let outcome = replace(&path, &n.to_le_bytes(), Options::new(0o600));
            if outcome.is_err() {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            outcome.unwrap();
            assert_eq!(fs::read(&path).unwrap(), n.to_le_bytes());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    sweep(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn identity_shows_every_replacement_and_settles_with_time() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    let mut seen = Vec::new();
    for n in 0..20_u8 {
        replace(&path, &[n], Options::new(0o600)).unwrap();
        let identity = Identity::at(&path).unwrap();
        assert!(!seen.contains(&identity));
        assert_eq!(read(&path, 1).unwrap().unwrap().identity, identity);
        seen.push(identity);
    }
    let changed = Duration::new(1000, 5_000_000);
    let identity = Identity {
        changed: (1000, 5_000_000),
        ..seen[0]
    };
    assert!(!identity.is_settled(changed));
    assert!(!identity.is_settled(changed + Duration::from_millis(50)));
    assert!(identity.is_settled(changed + Duration::from_millis(51)));
    // A clock that has not been set yet does not keep a file unsettled.
    assert!(identity.is_settled(Duration::ZERO));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn read_returns_what_replace_wrote(contents in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        replace(&path, &contents, Options::new(0o600)).unwrap();
        prop_assert_eq!(&*read(&path, 5000).unwrap().unwrap().bytes, &contents);
    }
}

/// A disk that is full in the middle of writing in place: the old content comes back. The limit holds for a process, so
/// the test runs in one of its own.
#[test]
#[allow(unsafe_code, reason = "the standard library knows no limits")]
fn what_cannot_be_written_in_place_leaves_the_old_content() {
    const NAME: &str = "file::tests::what_cannot_be_written_in_place_leaves_the_old_content";
    const ALONE: &str = "AZIOT_TEST_FULL_DISK";
    let Some(path) = std::env::var_os(ALONE).map(PathBuf::from) else {
        let directory = TempDir::new().unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--test-threads=1"])
            .env(ALONE, directory.path().join("key"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{output:?}"
        );
        return;
    };
    fs::write(&path, b"old content").unwrap();
    let limit = libc::rlimit {
        rlim_cur: 4096,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the signal is ignored, and the structure is there.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let err = super::replace::write_in_place(&path, &[b'n'; 8192]).unwrap_err();
    assert_eq!(err.step(), Step::WriteInPlace);
    assert_eq!(fs::read(&path).unwrap(), b"old content");
    super::replace::write_in_place(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}
