//! Settings, and keys found in tokens and files.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use aziot_crypto::store::{Error, Location, Store};

use crate::fixture::*;

#[test]
fn kp_01_settings_reach_for_the_token_at_once() {
    with_tokens(
        "keys::kp_01_settings_reach_for_the_token_at_once",
        |fixture| {
            let module = shim();
            let module = module.to_str().unwrap();
            for library_first in [true, false] {
                let (_home, store) = fixture.files();
                let base = |store: &Store, uri: &str| store.set_pkcs11_base_slot(uri);
                if library_first {
                    store.set_pkcs11_library(module).unwrap();
                    let text = failed(base(&store, "pkcs11:token=absent?pin-value=1234"));
                    assert!(text.contains("absent") && !text.contains("1234"), "{text}");
                    base(&store, "pkcs11:token=base?pin-value=1234").unwrap();
                } else {
                    base(&store, "pkcs11:token=base?pin-value=1234").unwrap();
                    let text = failed(store.set_pkcs11_library("/nonexistent/module.so"));
                    assert!(text.contains("/nonexistent/module.so"), "{text}");
                    // What did not work is not in force, and the rest can be configured.
                    assert_eq!(store.location("k"), Some(Location::File));
                    store.preload("p", "file:///nonexistent").unwrap();
                    store.set_pkcs11_library(module).unwrap();
                }
                assert_eq!(store.location("k"), Some(Location::Pkcs11));
                // A later failure leaves what worked.
                failed(base(&store, "pkcs11:token=absent"));
                refused(base(&store, "file:///x"));
                refused(base(&store, "pkcs11:object=x"));
                failed(store.set_pkcs11_library("/nonexistent/module.so"));
                let id = format!("k{library_first}");
                assert!(store.create_key(&id, SIGN).unwrap().is_in_token());
            }
            // Nobody has logged in before a key was asked for.
            let calls = fixture.calls();
            let login = calls.find("C_Login").unwrap();
            assert!(calls[..login].contains("C_OpenSession"), "{calls}");
        },
    );
}

#[test]
fn kp_03_keys_in_tokens_and_files_compute_the_same() {
    with_tokens(
        "keys::kp_03_keys_in_tokens_and_files_compute_the_same",
        |fixture| {
            let (home, store) = fixture.store();
            let (_, files) = fixture.files();
            let bytes: Vec<u8> = (0..32).collect();
            let (iv, aad) = (
                b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b",
                b"$iotedged",
            );
            let other = files.import_key("k", &bytes, SIGN).unwrap();

            let key = store.import_key("sign", &bytes, SIGN).unwrap();
            assert!(key.is_in_token() && store.key("sign").unwrap().is_in_token());
            assert_eq!(tag(&key), tag_of(&bytes));
            assert!(key.verify(b"message", &tag_of(&bytes)).unwrap());
            assert!(!key.verify(b"message", &tag_of(b"x")).unwrap());
            assert!(!key.verify(b"message", b"").unwrap());
            for data in [b"".as_slice(), b"edgeAgent", &[0, 1, 2]] {
                let (derived, expected) =
                    (key.derived(data).unwrap(), other.derived(data).unwrap());
                assert_eq!(derived.as_bytes(), expected.as_bytes());
                let (mut sealed, mut opened) = ([0; 22], [0; 5]);
                derived.encrypt(iv, aad, b"hello", &mut sealed).unwrap();
                expected.decrypt(iv, aad, &sealed, &mut opened).unwrap();
                assert_eq!(&opened, b"hello");
            }

            let key = store.import_key("encrypt", &bytes, ENCRYPT).unwrap();
            assert!(key.is_in_token());
            let (mut sealed, mut expected, mut opened) = ([0; 22], [0; 22], [0; 5]);
            assert_eq!(key.encrypt(iv, aad, b"hello", &mut sealed).unwrap(), 22);
            other.encrypt(iv, aad, b"hello", &mut expected).unwrap();
            assert_eq!(sealed, expected);
            assert_eq!(key.decrypt(iv, aad, &sealed, &mut opened).unwrap(), 5);
            assert_eq!(&opened, b"hello");
            refused(key.encrypt(iv, aad, b"hello", &mut opened));
            refused(key.decrypt(iv, aad, &sealed[..16], &mut opened));
            sealed[3] ^= 1;
            failed(key.decrypt(iv, aad, &sealed, &mut opened));
            assert_eq!(files_in(&home), 0);
        },
    );
}

#[test]
fn kp_05_keys_of_files_from_before_the_token_still_load() {
    with_tokens(
        "keys::kp_05_keys_of_files_from_before_the_token_still_load",
        |fixture| {
            let (home, store) = fixture.files();
            let (key, pair) = (
                tag(&store.create_key("key", SIGN).unwrap()),
                point(&store.create_key_pair("pair", None).unwrap()),
            );
            configure(&store);
            thread::sleep(Duration::from_millis(70));
            for _ in 0..2 {
                assert_eq!(tag(&store.key("key").unwrap()), key);
                assert_eq!(point(&store.key_pair("pair").unwrap()), pair);
                // Asking for one that is there makes none in the token.
                assert_eq!(tag(&store.create_key("key", SIGN).unwrap()), key);
                assert_eq!(
                    point(&store.create_key_pair("pair", Some("rsa-2048")).unwrap()),
                    pair
                );
            }
            assert!(store.cached_key("key").is_some() && store.cached_key_pair("pair").is_some());
            assert!(store.create_key("new", SIGN).unwrap().is_in_token());
            assert!(
                store
                    .create_key_pair("new pair", None)
                    .unwrap()
                    .is_in_token()
            );
            assert_eq!(files_in(&home), 2);
            assert!(store.delete_key("key").unwrap() && store.delete_key_pair("pair").unwrap());
            assert_eq!(files_in(&home), 0);
            refused(store.key("key"));
        },
    );
}

#[test]
fn a_key_that_appears_in_the_token_takes_precedence_within_seconds() {
    with_tokens(
        "keys::a_key_that_appears_in_the_token_takes_precedence_within_seconds",
        |fixture| {
            let (home, store) = fixture.files();
            store.import_key("k", &long(b"of the file"), SIGN).unwrap();
            configure(&store);
            thread::sleep(Duration::from_millis(70));
            store.key("k").unwrap();
            assert_eq!(
                tag(&store.cached_key("k").unwrap()),
                tag_of(&long(b"of the file"))
            );
            // Another process, as far as this store can tell.
            let (_, other) = fixture.store();
            other.import_key("k", &long(b"of the token"), SIGN).unwrap();
            let started = Instant::now();
            while store.cached_key("k").is_some() {
                assert!(started.elapsed() < Duration::from_secs(20));
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(
                tag(&store.key("k").unwrap()),
                tag_of(&long(b"of the token"))
            );
            assert!(store.cached_key("k").is_none());
            // Nothing is lost: the file serves again when the token has no such key any more.
            assert_eq!(files_in(&home), 1);
            other.delete_key("k").unwrap();
            thread::sleep(Duration::from_millis(1100));
            assert_eq!(tag(&store.key("k").unwrap()), tag_of(&long(b"of the file")));
            // One's own import counts at once.
            assert!(store.cached_key("k").is_some());
            store.import_key("k", &long(b"imported"), SIGN).unwrap();
            assert!(store.cached_key("k").is_none());
            assert_eq!(tag(&store.key("k").unwrap()), tag_of(&long(b"imported")));
        },
    );
}

/// That the token has no key pair with an id says nothing about its symmetric key.
#[test]
fn asking_for_the_other_kind_keeps_no_outdated_key() {
    with_tokens(
        "keys::asking_for_the_other_kind_keeps_no_outdated_key",
        |fixture| {
            let (_, store) = fixture.files();
            store.import_key("k", &long(b"of the file"), SIGN).unwrap();
            configure(&store);
            thread::sleep(Duration::from_millis(70));
            store.key("k").unwrap();
            let (_, other) = fixture.store();
            other.import_key("k", &long(b"of the token"), SIGN).unwrap();
            let started = Instant::now();
            while store.cached_key("k").is_some() {
                assert!(started.elapsed() < Duration::from_secs(5));
                store.key_pair("k").unwrap_err();
                thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(
                tag(&store.key("k").unwrap()),
                tag_of(&long(b"of the token"))
            );
        },
    );
}

#[test]
fn a_token_that_fails_is_no_reason_to_look_in_files() {
    with_tokens(
        "keys::a_token_that_fails_is_no_reason_to_look_in_files",
        |fixture| {
            let (home, store) = fixture.files();
            store.import_key("k", &long(b"of the file"), SIGN).unwrap();
            let pair = store.create_key_pair("pair", None).unwrap();
            configure(&store);
            fixture.fail("C_FindObjectsInit", CKR_DEVICE_MEMORY, "*");
            let text = failed(store.key("k"));
            for part in ["C_FindObjectsInit", "CKR_DEVICE_MEMORY", "base"] {
                assert!(text.contains(part), "{text}");
            }
            failed(store.create_key("k", SIGN));
            failed(store.key_pair("pair"));
            failed(store.create_key_pair("pair", None));
            failed(store.create_key_pair("new", None));
            failed(store.delete_key("k"));
            failed(store.move_key_pair("pair", "moved"));
            assert_eq!(files_in(&home), 2);
            fixture.heal();
            assert_eq!(tag(&store.key("k").unwrap()), tag_of(&long(b"of the file")));
            assert_eq!(point(&store.key_pair("pair").unwrap()), point(&pair));
        },
    );
}

#[test]
fn kp_09_without_a_pin_nothing_is_made_or_destroyed() {
    with_tokens(
        "keys::kp_09_without_a_pin_nothing_is_made_or_destroyed",
        |fixture| {
            let (_, store) = fixture.store();
            let pair = point(&store.create_key_pair("pair", None).unwrap());
            drop(store);
            let (home, locked) = fixture.files();
            locked.set_pkcs11_library(shim().to_str().unwrap()).unwrap();
            locked.set_pkcs11_base_slot("pkcs11:token=base").unwrap();
            assert!(locked.create_key_pair("pair", None).is_err());
            assert!(locked.create_key_pair("other", None).is_err());
            assert!(locked.create_key("key", SIGN).is_err());
            assert_eq!(files_in(&home), 0);
            drop(locked);
            let (_, store) = fixture.store();
            assert_eq!(point(&store.key_pair("pair").unwrap()), pair);
        },
    );
}

#[test]
fn kp_10_a_location_without_object_serves_but_cannot_be_changed() {
    with_tokens(
        "keys::kp_10_a_location_without_object_serves_but_cannot_be_changed",
        |fixture| {
            let (_, store) = fixture.store();
            store.import_key("k", &long(b"the only one"), SIGN).unwrap();
            let pair = point(&store.create_key_pair("pair", None).unwrap());
            store
                .preload("any", &format!("pkcs11:token=base?pin-value={PIN}"))
                .unwrap();
            assert_eq!(
                tag(&store.key("any").unwrap()),
                tag_of(&long(b"the only one"))
            );
            assert_eq!(point(&store.key_pair("any").unwrap()), pair);
            for text in [
                refused(store.delete_key("any")),
                refused(store.delete_key_pair("any")),
                refused(store.move_key_pair("any", "moved")),
                refused(store.move_key_pair("pair", "any")),
            ] {
                assert!(text.contains("object=") && !text.contains(PIN), "{text}");
            }
            assert_eq!(point(&store.key_pair("pair").unwrap()), pair);
        },
    );
}

#[test]
fn keys_of_either_kind_do_not_collide_beside_a_token() {
    with_tokens(
        "keys::keys_of_either_kind_do_not_collide_beside_a_token",
        |fixture| {
            let (home, store) = fixture.files();
            let pair = point(&store.create_key_pair("both", None).unwrap());
            store.create_key("symmetric", SIGN).unwrap();
            configure(&store);
            // Nothing is overwritten, so the other kind can be made in the token.
            assert!(store.create_key("both", SIGN).unwrap().is_in_token());
            assert!(
                store
                    .create_key_pair("symmetric", None)
                    .unwrap()
                    .is_in_token()
            );
            assert_eq!(point(&store.key_pair("both").unwrap()), pair);
            // Deleting one leaves the other, however often it is asked for.
            assert!(store.delete_key("both").unwrap());
            assert!(!store.delete_key("both").unwrap());
            assert_eq!(point(&store.key_pair("both").unwrap()), pair);
            assert!(store.delete_key_pair("symmetric").unwrap());
            assert!(!store.delete_key_pair("symmetric").unwrap());
            assert!(store.key("symmetric").is_ok());
            // What cannot be used is neither replaced nor put in the shade.
            fs::write(file_of(&home, "broken"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
            failed(store.create_key_pair("broken", None));
            assert!(matches!(store.key("broken"), Err(Error::KeyPair { .. })));
            fs::write(file_of(&home, "empty"), "").unwrap();
            assert!(store.create_key_pair("empty", None).unwrap().is_in_token());
        },
    );
}

#[test]
fn ids_too_long_for_a_file_name_fit_a_token() {
    with_tokens(
        "keys::ids_too_long_for_a_file_name_fit_a_token",
        |fixture| {
            let (_, store) = fixture.store();
            let id = "x".repeat(200);
            refused(store.key(&id));
            let key = tag(&store.create_key(&id, SIGN).unwrap());
            assert_eq!(tag(&store.key(&id).unwrap()), key);
            assert!(store.delete_key(&id).unwrap());
        },
    );
}

/// Creates, imports, deletes and looks at a few ids from several threads: every call sees a whole key or none.
#[test]
fn changes_from_many_threads_leave_whole_keys() {
    with_tokens(
        "keys::changes_from_many_threads_leave_whole_keys",
        |fixture| {
            let (_, store) = fixture.store();
            let imported: Vec<[u8; 32]> = (0..4).map(|number| tag_of(&[number; 40])).collect();
            thread::scope(|scope| {
                for number in 0..4_u8 {
                    let store = &store;
                    scope.spawn(move || {
                        for round in 0..20_u8 {
                            let id = ["x", "y"][usize::from((round + number) % 2)];
                            match (round + number) % 5 {
                                0 => drop(store.create_key(id, SIGN).unwrap()),
                                1 => drop(store.import_key(id, &[number; 40], SIGN).unwrap()),
                                2 => drop(store.delete_key(id).unwrap()),
                                _ => match store.key(id) {
                                    Ok(_) | Err(Error::NotFound { .. }) => {}
                                    Err(err) => panic!("{err}"),
                                },
                            }
                        }
                    });
                }
            });
            let key = tag(&store.import_key("x", &[2; 40], SIGN).unwrap());
            assert!(imported.contains(&key));
            assert_eq!(warnings(), [] as [&str; 0]);
        },
    );
}
