//! What goes to a file because a token cannot hold it, and what does not.

use aziot_crypto::store::{Error, Item, Store};

use crate::fixture::*;

/// What a report says of a key, one remark for each that the id stands for.
fn remarks(store: &Store, id: &str) -> Vec<Option<String>> {
    let mut remarks = Vec::new();
    store.report(&mut |item| match item {
        Item::Key(key) if key.id.as_deref() == Some(id) => remarks.push(key.remark.clone()),
        _ => {}
    });
    remarks
}

#[test]
fn kp_04_an_import_that_the_token_refuses_goes_to_a_file_with_a_warning() {
    with_tokens(
        "fallback::kp_04_an_import_that_the_token_refuses_goes_to_a_file_with_a_warning",
        |fixture| {
            let (home, store) = fixture.store();
            let key = store.import_key("short", &[7; 20], ENCRYPT).unwrap();
            assert!(!key.is_in_token());
            assert_eq!(tag(&store.key("short").unwrap()), tag_of(&[7; 20]));
            let file = file_of(&home, "short").display().to_string();
            let warned = warnings();
            let warning = warned
                .iter()
                .find(|line| line.contains("\"short\""))
                .unwrap();
            for part in [file.as_str(), "filesystem", "base", "CKR_"] {
                assert!(warning.contains(part), "{warning}");
            }
            let remarks = remarks(&store, "short");
            assert!(
                remarks[0].as_ref().unwrap().contains("could not hold it"),
                "{remarks:?}"
            );

            for usage in [0, 3, 0x11] {
                refused(store.import_key("usage", &[7; 32], usage));
                refused(store.create_key("usage", usage));
            }
            assert_eq!(files_in(&home), 1);
            for bytes in [b"".as_slice(), b"-----BEGIN PRIVATE KEY-----\n"] {
                refused(store.import_key("short", bytes, SIGN));
            }
            assert_eq!(tag(&store.key("short").unwrap()), tag_of(&[7; 20]));
        },
    );
}

#[test]
fn an_import_into_a_file_replaces_the_key_in_the_token() {
    with_tokens(
        "fallback::an_import_into_a_file_replaces_the_key_in_the_token",
        |fixture| {
            let (home, store) = fixture.store();
            store.import_key("k", &long(b"old"), SIGN).unwrap();
            fixture.fail("C_CreateObject", CKR_TEMPLATE_INCONSISTENT, "*");
            store.import_key("k", &long(b"new"), SIGN).unwrap();
            fixture.heal();
            assert_eq!(tag(&store.key("k").unwrap()), tag_of(&long(b"new")));
            // And back: the token's wins, the file is not lost.
            store.import_key("k", &long(b"newest"), SIGN).unwrap();
            assert_eq!(tag(&store.key("k").unwrap()), tag_of(&long(b"newest")));
            assert_eq!(files_in(&home), 1);
            let remarks = remarks(&store, "k");
            assert_eq!(remarks.len(), 2);
            assert!(
                remarks[0].is_none() && remarks[1].as_ref().unwrap().contains("not used"),
                "{remarks:?}"
            );

            // If the old key cannot be removed, the import has failed, and the old key is what there is.
            fixture.fail("C_CreateObject", CKR_TEMPLATE_INCONSISTENT, "*");
            fixture.fail("C_DestroyObject", CKR_DEVICE_MEMORY, "*");
            failed(store.import_key("k", &long(b"never"), SIGN));
            fixture.heal();
            assert_eq!(tag(&store.key("k").unwrap()), tag_of(&long(b"newest")));
        },
    );
}

#[test]
fn a_key_that_the_token_cannot_make_goes_to_a_file_with_a_warning() {
    with_tokens(
        "fallback::a_key_that_the_token_cannot_make_goes_to_a_file_with_a_warning",
        |fixture| {
            let (home, store) = fixture.store();
            // A failure of the token is none of its lacking the mechanism.
            fixture.fail("C_GenerateKey", CKR_DEVICE_MEMORY, "*");
            for usage in [SIGN, ENCRYPT] {
                let text = failed(store.create_key("k", usage));
                assert!(
                    text.contains("C_GenerateKey") && text.contains("CKR_DEVICE_MEMORY"),
                    "{text}"
                );
            }
            assert_eq!(files_in(&home), 0);
            fixture.heal();
            fixture.fail("C_GenerateKey", CKR_MECHANISM_INVALID, "*");
            preload_in(&store, "preloaded", "base", "p");
            let err = store.create_key("preloaded", SIGN).unwrap_err();
            assert!(
                matches!(err, Error::NoPlaceLeft(_)) && !err.is_invalid_parameter(),
                "{err}"
            );
            assert_eq!(files_in(&home), 0);
            assert!(warnings().iter().all(|line| !line.contains("filesystem")));
            for (id, usage) in [("sign", SIGN), ("encrypt", ENCRYPT)] {
                let key = tag(&store.create_key(id, usage).unwrap());
                let warned = warnings();
                assert_eq!(warned.len(), 1, "{warned:?}");
                for part in [id, "C_GenerateKey", "CKR_MECHANISM_INVALID", "filesystem"] {
                    assert!(warned[0].contains(part), "{warned:?}");
                }
                // The token can, from now on; the key stays what it is.
                fixture.heal();
                assert_eq!(tag(&store.create_key(id, usage).unwrap()), key);
                assert_eq!(tag(&store.key(id).unwrap()), key);
                fixture.fail("C_GenerateKey", CKR_MECHANISM_INVALID, "*");
            }
            assert_eq!(files_in(&home), 2);
            // A key pair's file is in the way of a key that has to be in a file.
            let (home, store) = fixture.files();
            store.create_key_pair("pair", None).unwrap();
            configure(&store);
            refused(store.create_key("pair", SIGN));
            fixture.fail("C_CreateObject", CKR_TEMPLATE_INCONSISTENT, "*");
            refused(store.import_key("pair", b"bytes", SIGN));
            assert_eq!(files_in(&home), 1);
            assert!(store.key_pair("pair").is_ok());
        },
    );
}

#[test]
fn kp_06_key_pairs_never_go_to_a_file_instead() {
    with_tokens(
        "fallback::kp_06_key_pairs_never_go_to_a_file_instead",
        |fixture| {
            let (home, store) = fixture.store();
            fixture.fail("C_GenerateKeyPair", CKR_MECHANISM_INVALID, "*");
            let text = refused(store.create_key_pair("pair", Some("rsa-2048:foo:ec-p256")));
            for part in [
                "no algorithm succeeded",
                "rsa-2048",
                "ec-p256",
                "C_GenerateKeyPair",
                "CKR_MECHANISM_INVALID",
            ] {
                assert!(text.contains(part), "{text}");
            }
            let warned = warnings();
            assert_eq!(warned.len(), 2, "{warned:?}");
            refused(store.key_pair("pair"));
            fixture.heal();
            // The first one that works is taken.
            fixture.fail("C_GenerateKeyPair", CKR_MECHANISM_INVALID, "1");
            let pair = store
                .create_key_pair("pair", Some("rsa-2048:ec-p256"))
                .unwrap();
            assert_eq!(pair.signature_bound(), Some(72));
            assert!(pair.is_in_token() && !pair.signs_at_once());
            refused(store.create_key_pair("other", Some("foo")));
            assert_eq!(files_in(&home), 0);
        },
    );
}
