//! Moves of key pairs in tokens, and between places of different kinds.

use std::fs;

use aziot_crypto::store::{Error, MoveError, Store};

use crate::fixture::*;

/// The places a key can be at.
const PLACES: [&str; 5] = ["token", "old file", "labelled", "elsewhere", "file"];

/// The id of a key at a place, for one end of a move.
fn id(place: &str, end: &str) -> String {
    format!("{place} {end}")
}

/// A store where each end has an id for every place: with its key in the token of the base slot, with its key in a file
/// that is older than the token, with a location of its own in that token, in another one, and in a file.
fn store(fixture: &Fixture, present: &[String]) -> (std::path::PathBuf, Store) {
    let (home, store) = fixture.files();
    for id in present.iter().filter(|id| id.starts_with("old file")) {
        store.create_key_pair(id, None).unwrap();
    }
    configure(&store);
    for end in ["a", "b"] {
        preload_in(
            &store,
            &id("labelled", end),
            "base",
            &format!("label-{end}"),
        );
        preload_in(
            &store,
            &id("elsewhere", end),
            "other",
            &format!("label-{end}"),
        );
        let path = home.join(id("file", end));
        store
            .preload(&id("file", end), &format!("file://{}", path.display()))
            .unwrap();
    }
    for id in present {
        store.create_key_pair(id, None).unwrap();
    }
    (home, store)
}

/// What becomes of a move between places, whether or not there is a key at the target.
fn allowed(from: &str, to: &str) -> bool {
    let in_base = |place| matches!(place, "token" | "labelled");
    match (from, to) {
        ("token" | "labelled", "old file") => true,
        ("old file", "token") => true,
        ("old file", "old file" | "file") => true,
        (from, to) if in_base(from) && in_base(to) => true,
        ("elsewhere", "elsewhere") => true,
        ("file", "file") => true,
        _ => false,
    }
}

#[test]
fn kp_07_moves_between_all_places() {
    with_tokens("moving::kp_07_moves_between_all_places", |fixture| {
        for from_place in PLACES {
            for to_place in PLACES {
                for target_exists in [false, true] {
                    let (from, to) = (id(from_place, "a"), id(to_place, "b"));
                    let case = format!("{from} to {to}, which exists: {target_exists}");
                    let mut present = vec![from.clone()];
                    present.extend(target_exists.then(|| to.clone()));
                    let (home, store) = store(fixture, &present);
                    let moved = point(&store.key_pair(&from).unwrap());
                    let target = store.key_pair(&to).ok().map(|pair| point(&pair));
                    let files = files_in(&home);
                    match store.move_key_pair(&from, &to) {
                        Ok(()) => {
                            assert!(allowed(from_place, to_place), "{case}");
                            assert_eq!(point(&store.key_pair(&to).unwrap()), moved, "{case}");
                            refused(store.key_pair(&from));
                            // Again: it is not there any more, and what has been moved is untouched.
                            failed(store.move_key_pair(&from, &to));
                            assert_eq!(point(&store.key_pair(&to).unwrap()), moved, "{case}");
                        }
                        Err(err) => {
                            assert!(!allowed(from_place, to_place), "{case}: {err}");
                            assert!(
                                matches!(
                                    err,
                                    Error::Move(
                                        MoveError::BetweenStores { .. }
                                            | MoveError::BetweenTokens { .. }
                                    )
                                ),
                                "{case}: {err}"
                            );
                            assert!(err.is_invalid_parameter() && !err.to_string().contains(PIN));
                            assert_eq!(point(&store.key_pair(&from).unwrap()), moved, "{case}");
                            let left = store.key_pair(&to).ok().map(|pair| point(&pair));
                            assert_eq!(left, target, "{case}");
                            assert_eq!(files_in(&home), files, "{case}");
                        }
                    }
                    for id in [&from, &to] {
                        store.delete_key_pair(id).unwrap();
                        refused(store.key_pair(id));
                    }
                }
            }
        }
    });
}

#[test]
fn kp_08_self_moves_and_moves_of_missing_keys_destroy_nothing() {
    with_tokens(
        "moving::kp_08_self_moves_and_moves_of_missing_keys_destroy_nothing",
        |fixture| {
            let (_, store) = fixture.store();
            let pair = point(&store.create_key_pair("pair", None).unwrap());
            preload_in(&store, "alias", "base", "pair");
            for (from, to) in [("pair", "pair"), ("pair", "alias"), ("alias", "pair")] {
                store.move_key_pair(from, to).unwrap();
                assert_eq!(point(&store.key_pair("pair").unwrap()), pair);
            }
            for from in ["missing", "pair of nobody"] {
                let text = failed(store.move_key_pair(from, "pair"));
                assert!(text.contains("not found"), "{text}");
                assert_eq!(point(&store.key_pair("pair").unwrap()), pair);
            }
            failed(store.move_key_pair("missing", "missing"));
        },
    );
}

#[test]
fn one_token_has_several_names() {
    with_tokens("moving::one_token_has_several_names", |fixture| {
        let (_, store) = fixture.store();
        let pair = point(&store.create_key_pair("pair", None).unwrap());
        // SoftHSM numbers slots by the serial numbers of their tokens; the record tells ours.
        let calls = fixture.calls();
        let call = calls.lines().find(|line| line.starts_with("C_OpenSession"));
        let slot = call.and_then(|line| line.split("slot=").nth(1)).unwrap();
        let slot = slot.split(' ').next().unwrap();
        let uri = format!("pkcs11:slot-id={slot};object=label?pin-value={PIN}");
        store.preload("by number", &uri).unwrap();
        store.move_key_pair("pair", "by number").unwrap();
        assert_eq!(point(&store.key_pair("by number").unwrap()), pair);
        store.move_key_pair("by number", "by number").unwrap();
        store.move_key_pair("by number", "pair").unwrap();
        assert_eq!(point(&store.key_pair("pair").unwrap()), pair);
    });
}

#[test]
fn a_file_that_takes_the_place_of_a_key_in_the_token_is_never_lost() {
    with_tokens(
        "moving::a_file_that_takes_the_place_of_a_key_in_the_token_is_never_lost",
        |fixture| {
            let (home, store) = fixture.files();
            let old = point(&store.create_key_pair("a", None).unwrap());
            configure(&store);
            let target = point(&store.create_key_pair("b", None).unwrap());
            fixture.fail("C_DestroyObject", CKR_DEVICE_MEMORY, "*");
            failed(store.move_key_pair("a", "b"));
            fixture.heal();
            assert_eq!(point(&store.key_pair("a").unwrap()), old);
            assert_eq!(files_in(&home), 1, "no copy is left");
            assert_eq!(point_of(&fs::read(file_of(&home, "a")).unwrap()), old);
            let left = store.key_pair("b").ok().map(|pair| point(&pair));
            assert!(left.is_none_or(|left| left == target));
            store.move_key_pair("a", "b").unwrap();
            assert_eq!(point(&store.key_pair("b").unwrap()), old);
            assert!(!store.key_pair("b").unwrap().is_in_token());
            assert_eq!(files_in(&home), 1);
        },
    );
}

#[test]
fn symmetric_keys_of_files_do_not_move_under_a_key_in_the_token() {
    with_tokens(
        "moving::symmetric_keys_of_files_do_not_move_under_a_key_in_the_token",
        |fixture| {
            let (home, store) = fixture.files();
            store.import_key("a", &long(b"of the file"), SIGN).unwrap();
            configure(&store);
            store.import_key("b", &long(b"of the token"), SIGN).unwrap();
            refused(store.move_key_pair("a", "b"));
            assert_eq!(tag(&store.key("a").unwrap()), tag_of(&long(b"of the file")));
            assert_eq!(
                tag(&store.key("b").unwrap()),
                tag_of(&long(b"of the token"))
            );
            store.move_key_pair("a", "c").unwrap();
            assert_eq!(tag(&store.key("c").unwrap()), tag_of(&long(b"of the file")));
            assert_eq!(files_in(&home), 1);
        },
    );
}

#[test]
fn a_failing_token_stops_a_move_before_anything_changes() {
    with_tokens(
        "moving::a_failing_token_stops_a_move_before_anything_changes",
        |fixture| {
            let (_, store) = fixture.store();
            let (a, b) = (
                point(&store.create_key_pair("a", None).unwrap()),
                point(&store.create_key_pair("b", None).unwrap()),
            );
            fixture.fail("C_SetAttributeValue", CKR_DEVICE_MEMORY, "*");
            failed(store.move_key_pair("a", "b"));
            fixture.heal();
            assert_eq!(point(&store.key_pair("a").unwrap()), a);
            assert_eq!(point(&store.key_pair("b").unwrap()), b);
        },
    );
}
