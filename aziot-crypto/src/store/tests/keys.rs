//! Symmetric keys in files, and what is kept of them in memory.

use super::*;

#[test]
fn kf_02_a_generated_key_is_32_raw_bytes_with_private_modes() {
    let (home, store) = store();
    let key = store.create_key("sym", SIGN).unwrap();
    let bytes = fs::read(file_of(&home, "sym")).unwrap();
    assert_eq!(bytes.len(), 32);
    assert_eq!(tag(&key), tag_of(&bytes));
    assert_eq!(mode(&file_of(&home, "sym")), 0o600);
    assert_eq!(mode(&home.path().join("keys")), 0o700);
    assert_ne!(tag(&key), tag(&store.create_key("other", SIGN).unwrap()));
    assert_eq!(tag(&key), tag(&store.create_key("sym", SIGN).unwrap()));
    assert_eq!(keys_in(&home), 2);
}

#[test]
fn kf_01_file_names() {
    let (home, store) = store();
    for (id, name) in [
        (
            "device-id",
            "deviceid-bd732105ef89cf8edd2606a5309c8a26b7b5599a4e124a0fe6199b6b2f60e655.key",
        ),
        (
            "handle-validation-key",
            "handlevalidationkey-40f1ca41fe8b50f53e10f3e3a580dcae24087f37aa498ba9903f2612b03e90ba.key",
        ),
        (
            "ca",
            "ca-6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126.key",
        ),
        (
            "aziot_identityd_master_id",
            "aziotidentitydmasterid-91b92c2c06a5a5dda5fbc9c48b4d428d930b9c1b8b2956a1044ccbc7a266afc9.key",
        ),
        (
            "../../etc/passwd",
            "etcpasswd-3754d6cb3a38e1185e5b382d5f3ef3f118af75bf4bf0254d1fdb8437f51423e0.key",
        ),
        (
            "Ünï/cödé key",
            "ncdkey-47b3cd261ad836c42e298da33dff507543e7d45b5203bcd3ae4724635b0b41e2.key",
        ),
        (
            "",
            "-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.key",
        ),
    ] {
        store
            .import_key(id, id.as_bytes().get(..1).unwrap_or(b"x"), SIGN)
            .unwrap();
        assert!(home.path().join("keys").join(name).is_file(), "{id}");
    }
    assert_eq!(keys_in(&home), 7);
}

#[test]
fn kf_03_file_uris() {
    for (uri, path) in [
        ("file:///D/a%20b", "a b"),
        ("file:///D/a b", "a b"),
        ("file:///D/x?y#z", "x"),
        ("file:///D/d/../y", "y"),
        ("file:///D/b\\c", "b/c"),
        ("file:///D/p%2Fq", "p/q"),
        ("file:///D/pct%zz", "pct%zz"),
        ("file:///D/caf%C3%A9", "café"),
        ("file:///D/café", "café"),
        ("file:///D/plus+x", "plus+x"),
        ("file:///D/semi;x=1", "semi;x=1"),
        ("file:/D/x", "x"),
        ("file:D/x", "x"),
        ("file://localhost/D/x", "x"),
    ] {
        let dir = TempDir::new().unwrap();
        for below in ["b", "p"] {
            fs::create_dir(dir.path().join(below)).unwrap();
        }
        let store = Store::new();
        let base = dir.path().to_str().unwrap();
        store
            .preload(
                "k",
                &uri.replacen(if uri.contains("/D") { "/D" } else { "D" }, base, 1),
            )
            .unwrap();
        store.create_key("k", SIGN).unwrap();
        assert_eq!(fs::read(dir.path().join(path)).unwrap().len(), 32, "{uri}");
    }
    for uri in ["file://host/D/x", "FILE:///D/x", "http://x", "/D/x", ""] {
        assert!(Store::new().preload("k", uri).is_err(), "{uri}");
    }
}

#[test]
fn kf_08_a_preloaded_token_key_is_taken_and_refused_on_use() {
    let (home, store) = store();
    store
        .preload("k", "pkcs11:token=Key pairs;object=k?pin-value=1234")
        .unwrap();
    assert_eq!(
        (store.location("k"), store.location("l")),
        (Some(Location::Pkcs11), Some(Location::File))
    );
    for err in [
        store.key("k").unwrap_err(),
        store.create_key("k", SIGN).unwrap_err(),
        store.import_key("k", b"x", SIGN).unwrap_err(),
        store.delete_key("k").unwrap_err(),
        store.move_key_pair("k", "l").unwrap_err(),
    ] {
        assert!(
            err.is_invalid_parameter() && err.to_string().contains("PKCS#11"),
            "{err}"
        );
    }
    assert!(store.preload("k", "pkcs11:object=x").is_err());
    assert!(!home.path().join("keys").exists());
}

#[test]
fn reading_calls_make_no_directory() {
    let (home, store) = store();
    assert!(matches!(store.key("x"), Err(Error::NotFound { .. })));
    assert!(!store.delete_key("x").unwrap());
    assert!(store.move_key_pair("x", "y").is_err());
    assert!(matches!(
        store.import_key("x", b"", SIGN),
        Err(Error::EmptyImport)
    ));
    assert!(!home.path().join("keys").exists());
}

#[test]
fn kf_06_without_a_home_only_preloaded_keys_work() {
    let dir = TempDir::new().unwrap();
    let store = Store::new();
    for err in [
        store.key("x").unwrap_err(),
        store.create_key("x", SIGN).unwrap_err(),
    ] {
        assert!(matches!(err, Error::NoLocation) && err.is_invalid_parameter());
    }
    assert!(matches!(store.delete_key("x"), Err(Error::NoLocation)));
    let path = dir.path().join("x");
    store
        .preload("x", &format!("file://{}", path.display()))
        .unwrap();
    assert_eq!(store.location("x"), Some(Location::File));
    assert_eq!(store.location("y"), None);
    store.create_key("x", SIGN).unwrap();
    assert_eq!(fs::read(path).unwrap().len(), 32);
}

#[test]
fn kf_07_a_preloaded_key_lives_at_its_own_place_only() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a key");
    store.create_key("x", SIGN).unwrap();
    store
        .preload("x", &format!("file://{}", path.display()))
        .unwrap();
    assert!(matches!(store.key("x"), Err(Error::NotFound { .. })));
    store.create_key("x", SIGN).unwrap();
    assert_eq!((mode(&path), keys_in(&home)), (0o600, 1));

    let orphan = dir.path().join("missing/key");
    store
        .preload("y", &format!("file://{}", orphan.display()))
        .unwrap();
    assert!(
        !store
            .create_key("y", SIGN)
            .unwrap_err()
            .is_invalid_parameter()
    );
    assert!(!orphan.parent().unwrap().exists());
    store.delete_key("x").unwrap();
    assert!(!path.exists());
}

#[test]
fn kf_15_create_never_destroys_what_is_there() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    let preloaded = dir.path().join("key");
    store
        .preload("p", &format!("file://{}", preloaded.display()))
        .unwrap();
    fs::create_dir(home.path().join("keys")).unwrap();
    for (id, path) in [("p", preloaded), ("dynamic", file_of(&home, "dynamic"))] {
        for content in ["x", PEM, "junk before\n-----BEGIN CERTIFICATE-----\n"] {
            fs::write(&path, content).unwrap();
            let outcome = store.create_key(id, SIGN);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            match content {
                "x" => assert_eq!(tag(&outcome.unwrap()), tag_of(b"x")),
                _ => {
                    assert!(matches!(outcome, Err(Error::KeyPair { .. })));
                    assert!(store.key(id).is_err());
                    assert!(matches!(
                        store.import_key(id, b"new", SIGN),
                        Err(Error::KeyPair { .. })
                    ));
                    assert_eq!(fs::read_to_string(&path).unwrap(), content);
                }
            }
        }
        // An empty file is what an interrupted writer of an earlier release leaves.
        fs::write(&path, "").unwrap();
        assert!(matches!(store.key(id), Err(Error::Empty { .. })));
        store.create_key(id, SIGN).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 32);
    }
}

#[test]
fn a_replaced_written_or_removed_file_is_noticed_at_once() {
    let (home, store) = store();
    let file = file_of(&home, "k");
    store.import_key("k", b"first", SIGN).unwrap();
    settle();
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"first"));
    assert!(store.cached_key("k").is_some());

    let new = home.path().join("keys/new");
    fs::write(&new, b"second").unwrap();
    fs::rename(&new, &file).unwrap();
    assert!(store.cached_key("k").is_none());
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"second"));

    settle();
    store.key("k").unwrap();
    fs::write(&file, b"third!").unwrap();
    assert!(store.cached_key("k").is_none());
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"third!"));

    settle();
    store.key("k").unwrap();
    fs::rename(&file, &new).unwrap();
    assert!(store.cached_key("k").is_none());
    assert!(matches!(store.key("k"), Err(Error::NotFound { .. })));
}

#[test]
fn an_exchanged_directory_is_noticed_within_seconds() {
    let (home, store) = store();
    store.import_key("k", b"first", SIGN).unwrap();
    settle();
    store.key("k").unwrap();
    fs::rename(home.path().join("keys"), home.path().join("old")).unwrap();
    fs::create_dir(home.path().join("keys")).unwrap();
    fs::write(file_of(&home, "k"), b"second").unwrap();
    let started = std::time::Instant::now();
    while tag(&store.key("k").unwrap()) != tag_of(b"second") {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the old key is still in use"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn kf_14_import_replaces_and_refuses_before_touching_anything() {
    let (home, store) = store();
    let path = file_of(&home, "k");
    assert_eq!(
        tag(&store.import_key("k", b"one", SIGN).unwrap()),
        tag_of(b"one")
    );
    assert_eq!(
        tag(&store.import_key("k", &[7; 100], SIGN).unwrap()),
        tag_of(&[7; 100])
    );
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(&[7; 100]));
    for bytes in [Vec::new(), vec![0; MAX_KEY_LEN + 1], PEM.into()] {
        assert!(
            store
                .import_key("k", &bytes, SIGN)
                .unwrap_err()
                .is_invalid_parameter()
        );
        assert_eq!(fs::read(&path).unwrap(), [7; 100]);
    }
    assert_eq!(
        tag(&store.import_key("k", &vec![1; MAX_KEY_LEN], SIGN).unwrap()),
        tag_of(&vec![1; MAX_KEY_LEN])
    );
    assert_eq!(keys_in(&home), 1);
}

#[test]
fn kf_11_missing_keys() {
    let (home, store) = store();
    let err = store.key("missing").unwrap_err();
    assert!(err.is_invalid_parameter(), "{err}");
    assert!(!store.delete_key("missing").unwrap());
    store.import_key("target", b"target", SIGN).unwrap();
    let err = store.move_key_pair("missing", "target").unwrap_err();
    assert!(!err.is_invalid_parameter(), "{err}");
    assert_eq!(fs::read(file_of(&home, "target")).unwrap(), b"target");
    store.move_key_pair("target", "target").unwrap();
    store.import_key("source", b"source", SIGN).unwrap();
    store.move_key_pair("source", "target").unwrap();
    assert!(store.key("source").is_err());
    assert_eq!(tag(&store.key("target").unwrap()), tag_of(b"source"));
    assert_eq!(keys_in(&home), 1);
}

#[test]
fn ids_too_long_for_a_file_name_are_refused() {
    let (_home, store) = store();
    store.create_key(&"x".repeat(186), SIGN).unwrap();
    let err = store.create_key(&"x".repeat(187), SIGN).unwrap_err();
    assert!(!err.is_invalid_parameter(), "{err}");
    assert!(
        !store
            .key(&"x".repeat(187))
            .unwrap_err()
            .is_invalid_parameter()
    );
}

#[test]
fn imports_follow_links_and_keep_the_mode() {
    let (_home, store) = store();
    let dir = TempDir::new().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::write(&real, "old").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, &link).unwrap();
    store
        .preload("k", &format!("file://{}", link.display()))
        .unwrap();
    store.import_key("k", b"new", SIGN).unwrap();
    assert_eq!(
        (fs::read(&real).unwrap(), mode(&real)),
        (b"new".to_vec(), 0o640)
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_parsed_key_serves_until_its_file_changes_in_any_way() {
    let (home, store) = store();
    let path = file_of(&home, "k");
    store.import_key("k", b"first key", SIGN).unwrap();
    settle();
    store.key("k").unwrap();
    assert_eq!(tag(&store.cached_key("k").unwrap()), tag_of(b"first key"));

    // Written in place by somebody else, same length.
    fs::write(&path, "other key").unwrap();
    assert!(store.cached_key("k").is_none());
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"other key"));
    // And again at once, within one step of file times.
    fs::write(&path, "third key").unwrap();
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"third key"));

    settle();
    store.key("k").unwrap();
    // Replaced by a file that claims the same age.
    let metadata = fs::metadata(&path).unwrap();
    let other = home.path().join("other");
    fs::write(&other, "fourth ky").unwrap();
    fs::File::options()
        .write(true)
        .open(&other)
        .unwrap()
        .set_modified(metadata.modified().unwrap())
        .unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().mtime_nsec(),
        metadata.mtime_nsec()
    );
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"fourth ky"));

    settle();
    store.key("k").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(store.cached_key("k").is_none());
    assert!(matches!(store.key("k"), Err(Error::NotFound { .. })));
    assert_eq!(store.cache.len(), 0);
}

#[test]
fn in_one_moment_a_file_is_looked_at_once() {
    let (home, store) = store();
    let path = file_of(&home, "k");
    let remember = || {
        settle();
        assert!(store.key("k").is_ok());
    };
    let used = || store.cached_key("k").map(|key| tag(&key));
    store.import_key("k", b"first key", SIGN).unwrap();
    remember();

    store.begin_moment();
    assert_eq!(used(), Some(tag_of(b"first key")));
    fs::write(&path, "other key").unwrap();
    assert_eq!(used(), Some(tag_of(b"first key")));
    store.begin_moment();
    assert_eq!(used(), None);

    // What this process changes counts in the same moment.
    remember();
    assert_eq!(used(), Some(tag_of(b"other key")));
    store.import_key("k", b"third key", SIGN).unwrap();
    assert_eq!(used(), None);

    // A moment is one thread's.
    remember();
    assert_eq!(used(), Some(tag_of(b"third key")));
    fs::write(&path, "fourth ky").unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(used);
        assert_eq!(other.join().unwrap(), None);
    });
}

#[test]
fn own_writes_and_new_settings_drop_parsed_keys() {
    let (_home, store) = store();
    store.import_key("k", b"one", SIGN).unwrap();
    settle();
    store.key("k").unwrap();
    assert!(store.cached_key("k").is_some());
    store.import_key("k", b"two", SIGN).unwrap();
    assert_eq!(tag(&store.key("k").unwrap()), tag_of(b"two"));
    settle();
    let held = store.key("k").unwrap();
    store.delete_key("k").unwrap();
    assert!(store.cached_key("k").is_none());
    assert_eq!(store.cache.len(), 0);
    assert_eq!(tag(&held), tag_of(b"two"));

    store.import_key("k", b"three", SIGN).unwrap();
    settle();
    store.key("k").unwrap();
    let other = TempDir::new().unwrap();
    store.set_home(other.path());
    assert!(store.cached_key("k").is_none());
    assert!(store.key("k").is_err());
}

#[test]
fn the_number_of_parsed_keys_is_bounded() {
    let (_home, store) = store();
    for n in 0..400 {
        store.import_key(&format!("key {n}"), &[1], SIGN).unwrap();
    }
    settle();
    for n in 0..400 {
        store.key(&format!("key {n}")).unwrap();
    }
    let parsed = store.cache.len();
    assert!((64..=128).contains(&parsed), "{parsed}");
    settle();
    store.key("key 0").unwrap();
    assert!(store.cached_key("key 0").is_some());
}

#[test]
fn sweep_covers_the_store_and_preloaded_places() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    let leftover = ".aziot-0000ffff-00000000.tmp";
    store.create_key("k", SIGN).unwrap();
    store
        .preload("p", &format!("file://{}/key", dir.path().display()))
        .unwrap();
    store
        .preload("q", "file:///nonexistent/directory/key")
        .unwrap();
    fs::write(dir.path().join(leftover), "half").unwrap();
    fs::write(home.path().join("keys").join(leftover), "half").unwrap();
    assert_eq!(store.sweep().unwrap(), 2);
    assert_eq!(
        (keys_in(&home), fs::read_dir(dir.path()).unwrap().count()),
        (1, 0)
    );

    // Who never asks gets it with the first write.
    let again = Store::new();
    again.set_home(home.path());
    fs::write(home.path().join("keys").join(leftover), "half").unwrap();
    again.key("k").unwrap();
    assert_eq!(keys_in(&home), 2);
    again.create_key("l", SIGN).unwrap();
    assert_eq!(keys_in(&home), 2);
}
