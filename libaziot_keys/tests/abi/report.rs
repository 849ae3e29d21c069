//! What the library tells about keys and tokens.

use std::fs;

use aziot_crypto::keys_abi::*;

use crate::common::{Keys, ReportedKey, file_uri, scratch, token};
use crate::store_reader::file_of;

fn find<'a>(told: &'a [ReportedKey], id: &str) -> &'a ReportedKey {
    let mut found = told.iter().filter(|key| key.id.as_deref() == Some(id));
    let key = found.next().unwrap_or_else(|| panic!("{id}: {told:#?}"));
    assert!(found.next().is_none(), "{id}: {told:#?}");
    key
}

#[test]
fn a_report_of_keys_in_files() {
    let (_dir, home) = scratch();
    let other = Keys::with_home(&home);
    assert_eq!(other.create("somebody else's", 1), Rc::OK);
    let keys = Keys::with_home(&home);
    let elsewhere = home.join("elsewhere.pem");
    assert_eq!(keys.preload("preloaded", &file_uri(&elsewhere)), Rc::OK);
    assert_eq!(keys.preload("absent", "file:///nonexistent/k"), Rc::OK);
    assert_eq!(
        keys.preload("token", "pkcs11:token=a;object=b?pin-value=1234"),
        Rc::OK
    );
    assert_eq!(keys.create("sym", 1), Rc::OK);
    assert_eq!(keys.create_pair("pair", None), Rc::OK);
    assert_eq!(keys.create_pair("preloaded", None), Rc::OK);

    let (told, tokens) = keys.report();
    assert!(tokens.is_empty());
    for (id, kind, path) in [
        ("sym", KEY_KIND_SYMMETRIC, file_of(&home, "sym")),
        ("pair", KEY_KIND_PAIR, file_of(&home, "pair")),
        ("preloaded", KEY_KIND_PAIR, elsewhere.clone()),
    ] {
        let key = find(&told, id);
        assert_eq!(
            (key.kind, key.location),
            (kind, KEY_LOCATION_FILE),
            "{key:?}"
        );
        assert_eq!(key.place.as_deref(), path.to_str());
        assert_eq!(key.preloaded, u32::from(id == "preloaded"));
        assert_eq!(key.remark, None);
    }
    let absent = find(&told, "absent");
    assert_eq!((absent.kind, absent.preloaded), (KEY_KIND_UNKNOWN, 1));
    let in_token = find(&told, "token");
    assert!(in_token.remark.is_some(), "{in_token:?}");
    // A file that nobody has named yet is known by its path alone.
    let other = file_of(&home, "somebody else's");
    let unnamed: Vec<_> = told.iter().filter(|key| key.id.is_none()).collect();
    assert_eq!(unnamed.len(), 1, "{told:#?}");
    assert_eq!(unnamed[0].place.as_deref(), other.to_str());
    assert_eq!(unnamed[0].kind, KEY_KIND_SYMMETRIC);

    // What is wrong with a key is remarked.
    fs::write(&elsewhere, "x").unwrap();
    let (told, _) = keys.report();
    assert!(
        find(&told, "preloaded").remark.is_some() || find(&told, "preloaded").kind != KEY_KIND_PAIR
    );
    assert!(!format!("{told:?}").contains("1234"), "{told:?}");
}

#[test]
fn a_report_of_a_token() {
    token("report::a_report_of_a_token", |token| {
        let keys = token.keys();
        assert_eq!(keys.create("sym", KEY_USAGE_SIGN), Rc::OK);
        assert_eq!(keys.create_pair("pair", None), Rc::OK);
        // Which the token cannot hold.
        assert_eq!(
            keys.import_for("short", &[7; 20], KEY_USAGE_ENCRYPT),
            Rc::OK
        );
        let (told, tokens) = keys.report();
        for (id, kind) in [("sym", KEY_KIND_SYMMETRIC), ("pair", KEY_KIND_PAIR)] {
            let key = find(&told, id);
            assert_eq!(
                (key.kind, key.location),
                (kind, KEY_LOCATION_PKCS11),
                "{key:?}"
            );
            assert!(key.place.as_deref().unwrap().starts_with("pkcs11:"));
        }
        let short = find(&told, "short");
        assert_eq!(short.location, KEY_LOCATION_FILE);
        assert!(
            short.remark.as_deref().unwrap().contains("CKR_"),
            "{short:?}"
        );
        let [reported] = &tokens[..] else {
            panic!("{tokens:?}");
        };
        assert_eq!(reported.state, TOKEN_STATE_WORKING);
        assert!(reported.uri.contains("Key%20pairs"), "{reported:?}");
        assert!(
            reported.sessions >= 1 && reported.since > 1_600_000_000,
            "{reported:?}"
        );
        assert_eq!(
            (reported.failure.as_deref(), reported.next_attempt),
            (None, 0)
        );

        // From now on it fails.
        token.script("C_Sign 0x30 *\nC_SignInit 0x30 *\n");
        assert_eq!(keys.sign("sym", b"m"), Err(Rc::EXTERNAL));
        let (_, tokens) = keys.report();
        token.script("");
        let shown = format!("{told:?}{tokens:?}");
        assert!(!shown.contains("1234") && !shown.contains("pin"), "{shown}");
    });
}
