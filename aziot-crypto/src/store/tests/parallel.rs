//! Calls from several threads at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::turn::Access;

#[test]
fn calls_for_one_key_join_and_calls_for_others_do_not_wait() {
    let (_home, store) = store();
    let tags: Vec<_> = thread::scope(|scope| {
        let created: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| tag(&store.create_key("same", SIGN).unwrap())))
            .collect();
        created
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        tags.windows(2).all(|pair| pair[0] == pair[1]),
        "every caller got the one key that was made"
    );

    let places = store.settings().places("held").unwrap();
    let turn = store.turns.take(places.resources(), Access::Exclusive);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store.create_key("held", SIGN).map(|_| ()));
        store.create_key("free", SIGN).unwrap();
        store.create_key_pair("free pair", None).unwrap();
        store.move_key_pair("free pair", "moved").unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(turn);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn one_pair_is_made_for_all_who_ask_for_it() {
    let (home, store) = store();
    let points: Vec<_> = thread::scope(|scope| {
        let created: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| point(&store.create_key_pair("same", None).unwrap())))
            .collect();
        created
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(points.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(keys_in(&home), 1);
}

/// Two threads move a key to and fro, others look for it at both places: it is always at one of them, whole.
#[test]
fn a_key_that_is_moved_about_is_never_lost() {
    const MOVES: usize = 100;
    let (home, store) = store();
    let expected = point(&store.create_key_pair("a", None).unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let movers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..MOVES {
                        for (from, to) in [("a", "b"), ("b", "a")] {
                            match store.move_key_pair(from, to) {
                                Ok(()) | Err(Error::Move(MoveError::SourceMissing { .. })) => {}
                                Err(err) => panic!("{err}"),
                            }
                        }
                    }
                })
            })
            .collect();
        for id in ["a", "b", "c"] {
            let (store, done, expected) = (&store, &done, &expected);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    match store.key_pair(id) {
                        Ok(pair) => assert_eq!(point(&pair), *expected),
                        Err(err) => assert!(matches!(err, Error::NotFound { .. }), "{err}"),
                    }
                }
            });
        }
        for mover in movers {
            mover.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(keys_in(&home), 1);
    let left = store
        .key_pair("a")
        .or_else(|_| store.key_pair("b"))
        .unwrap();
    assert_eq!(point(&left), expected);
}

/// Creates, imports, deletes and looks at a few ids from several threads: every call sees a whole key or none.
#[test]
fn changes_from_many_threads_leave_whole_keys() {
    let (home, store) = store();
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..60_u8 {
                    let id = ["x", "y", "z"][usize::from((round + number) % 3)];
                    match (round + number) % 5 {
                        0 => drop(store.create_key(id, SIGN).unwrap()),
                        1 => drop(store.import_key(id, &[number; 40], SIGN).unwrap()),
                        2 => drop(store.delete_key(id).unwrap()),
                        _ => match store.key(id) {
                            Ok(key) => drop(key.sign(b"").unwrap()),
                            Err(err) => assert!(matches!(err, Error::NotFound { .. }), "{err}"),
                        },
                    }
                }
            });
        }
    });
    for entry in fs::read_dir(home.path().join("keys")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let same = bytes.len() == 40 && bytes.iter().all(|byte| *byte == bytes[0]);
        assert!(bytes.len() == 32 || same, "{bytes:?}");
    }
}

#[test]
fn making_a_large_key_keeps_nobody_else_waiting() {
    let (_home, store) = store();
    store.create_key("quick", SIGN).unwrap();
    thread::scope(|scope| {
        let large = scope.spawn(|| store.create_key_pair("large", Some("rsa-4096")).map(|_| ()));
        let mut calls = 0;
        while !large.is_finished() {
            store.key("quick").unwrap();
            store.import_key("other", b"bytes", SIGN).unwrap();
            store.create_key_pair("small", None).unwrap();
            calls += 1;
        }
        large.join().unwrap().unwrap();
        // It takes hundreds of milliseconds at least; a call that waited for it would be the only one.
        assert!(calls > 2, "{calls}");
    });
}

/// Two processes, as far as the stores can tell: whoever makes a key uses the one that is kept.
#[test]
fn two_stores_over_one_directory_agree_on_a_new_key() {
    const KEYS: usize = 200;
    let home = TempDir::new().unwrap();
    let barrier = std::sync::Barrier::new(2);
    let made = || {
        let store = Store::new();
        store.set_home(home.path());
        let keys = (0..KEYS).map(|n| {
            barrier.wait();
            match n % 2 {
                0 => tag(&store.create_key(&n.to_string(), SIGN).unwrap()).to_vec(),
                _ => point(&store.create_key_pair(&n.to_string(), None).unwrap()),
            }
        });
        keys.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let other = scope.spawn(made);
        assert_eq!(made(), other.join().unwrap());
    });
    assert_eq!(keys_in(&home), KEYS);
}
