//! Reports about keys in files; those about tokens are in `tests/store_tokens.rs`.

use super::*;

fn report(store: &Store) -> Vec<KeyReport> {
    let mut keys = Vec::new();
    store.report(&mut |item| match item {
        Item::Key(key) => keys.push(key.clone()),
        Item::Token(token) => panic!("{token:?}"),
    });
    keys
}

fn of<'a>(keys: &'a [KeyReport], id: &str) -> &'a KeyReport {
    let mut found = keys.iter().filter(|key| key.id.as_deref() == Some(id));
    let key = found.next().unwrap_or_else(|| panic!("{id}: {keys:?}"));
    assert_eq!(found.next(), None);
    key
}

#[test]
fn keys_are_told_of_by_configuration_use_convention_and_file() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    assert_eq!(report(&store), []);
    let uri = |name: &str| format!("file://{}/{name}", dir.path().display());
    store.preload("given", &uri("given")).unwrap();
    store.preload("absent", &uri("absent")).unwrap();
    store
        .preload("token", "pkcs11:token=T;object=o?pin-value=1234")
        .unwrap();
    fs::write(dir.path().join("given"), "key").unwrap();
    fs::set_permissions(dir.path().join("given"), fs::Permissions::from_mode(0o640)).unwrap();
    store.create_key_pair("used", None).unwrap();
    // What another process has made.
    let other = Store::new();
    other.set_home(home.path());
    other.create_key("handle-validation-key", SIGN).unwrap();
    other.create_key_pair("unknown", None).unwrap();
    fs::write(
        home.path().join("keys/.aziot-0000ffff-00000000.tmp"),
        "half",
    )
    .unwrap();

    let keys = report(&store);
    assert_eq!(keys.len(), 6, "{keys:?}");
    let given = of(&keys, "given");
    assert_eq!(
        (given.kind, given.location, given.preloaded),
        (Some(Kind::Symmetric), Some(Location::File), true)
    );
    assert_eq!(
        given.place,
        Some(dir.path().join("given").display().to_string())
    );
    assert_eq!(given.remark, None);
    let absent = of(&keys, "absent");
    assert_eq!(
        (absent.kind, absent.location, &absent.remark),
        (None, None, &None)
    );
    let token = of(&keys, "token");
    assert_eq!((token.kind, token.location), (None, None));
    assert!(token.remark.as_ref().unwrap().contains("pkcs11_lib_path"));
    let used = of(&keys, "used");
    assert_eq!((used.kind, used.preloaded), (Some(Kind::Pair), false));
    assert_eq!(
        of(&keys, "handle-validation-key").kind,
        Some(Kind::Symmetric)
    );
    let unknown = keys.iter().find(|key| key.id.is_none()).unwrap();
    assert_eq!(unknown.kind, Some(Kind::Pair));
    assert_eq!(
        unknown.place,
        Some(file_of(&home, "unknown").display().to_string())
    );

    store.delete_key_pair("used").unwrap();
    assert!(
        report(&store)
            .iter()
            .all(|key| key.id.as_deref() != Some("used"))
    );
}

#[test]
fn what_cannot_be_used_is_told_with_its_reason() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    fs::create_dir(home.path().join("keys")).unwrap();
    for (id, content) in [("broken", PEM), ("empty", "")] {
        fs::write(file_of(&home, id), content).unwrap();
    }
    fs::create_dir(dir.path().join("directory")).unwrap();
    let uri = format!("file://{}/directory", dir.path().display());
    store.preload("directory", &uri).unwrap();
    let keys = report(&store);
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(
        of(&keys, "directory")
            .remark
            .as_ref()
            .unwrap()
            .contains("not a regular file")
    );
    for key in keys.iter().filter(|key| key.id.is_none()) {
        assert!(key.remark.is_some(), "{key:?}");
    }
}

#[test]
fn permissions_that_expose_a_key_are_complained_of_with_the_remedy() {
    let (home, store) = store();
    store.create_key("k", SIGN).unwrap();
    let path = file_of(&home, "k");
    let complaint = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let contents = FilePlace::preloaded(&path).read().unwrap().unwrap();
        crate::store::files::complaint(&path, &contents)
    };
    // What release 1.6.0 writes, in a home that nobody else can search.
    assert_eq!(complaint(0o644), None);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path().join("keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let searchable = home
        .path()
        .ancestors()
        .skip(1)
        .all(|above| mode(above) & 1 != 0);
    // A private directory for temporary files protects what is below it, too.
    for open in [0o644, 0o604, 0o620, 0o606] {
        let text = complaint(open);
        assert_eq!(text.is_some(), searchable);
        for part in [
            format!("chmod 600 {}", path.display()),
            format!("{open:04o}"),
        ] {
            assert!(
                text.as_ref().is_none_or(|text| text.contains(&part)),
                "{text:?}"
            );
        }
    }
    for closed in [0o600, 0o400, 0o640, 0o440] {
        assert_eq!(complaint(closed), None);
    }
    complaint(0o644);
    let keys = report(&store);
    let remark = of(&keys, "k").remark.clone();
    assert_eq!(
        remark.is_some_and(|remark| remark.contains("chmod 600")),
        searchable
    );
    // It is used all the same.
    store.key("k").unwrap();
}

#[test]
fn a_key_file_of_somebody_else_is_complained_of() {
    let exposure =
        |owner, user| crate::store::files::exposure(Path::new("/k"), 0o100_600, owner, user);
    assert_eq!(exposure(7, 7), None);
    assert_eq!(exposure(0, 7), None, "what root owns is safe from others");
    for user in [0, 7] {
        let text = exposure(8, user).unwrap();
        assert!(text.contains(&format!("chown {user} /k")), "{text}");
    }
}
