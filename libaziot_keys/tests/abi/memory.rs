//! The `try_` functions, which answer from memory or not at all, and many threads at once.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aziot_crypto::keys_abi::*;
use aziot_crypto::software::HmacSha256;

use crate::common::{Keys, scratch, settle};
use crate::store_reader::file_of;

const INVALID: Rc = Rc::INVALID_PARAMETER;
const BLOCKED: Rc = Rc::WOULD_BLOCK;
const HMAC: u32 = SIGN_MECHANISM_HMAC_SHA256;
const ECDSA: u32 = SIGN_MECHANISM_ECDSA;

#[test]
fn a_caller_says_when_files_may_have_changed() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for id in ["k", "pair"] {
        keys.begin_moment();
        if id == "k" {
            assert_eq!(keys.import(id, &[7; 32]), Rc::OK);
        } else {
            assert_eq!(keys.create_pair(id, Some("ec-p256")), Rc::OK);
        }
        settle();
        let load = || match id {
            "k" => (keys.load(id), keys.try_load(id)),
            _ => (keys.load_pair(id), keys.try_load_pair(id)),
        };
        assert_eq!(load(), (Rc::OK, Rc::OK));
        fs::remove_file(file_of(&home, id)).unwrap();
        assert_eq!(load(), (Rc::OK, Rc::OK));
        keys.begin_moment();
        assert_eq!(load(), (INVALID, BLOCKED));
    }
}

#[test]
fn symmetric_keys_are_used_from_memory() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &[7; 32]), Rc::OK);
    let other = Keys::with_home(&home);
    for id in ["k", "missing"] {
        assert_eq!(other.try_load(id), BLOCKED);
        assert_eq!(other.try_sign(id, b""), Err(BLOCKED));
        assert_eq!(other.try_verify(id, HMAC, b"", b""), Err(BLOCKED));
        assert_eq!(other.try_derive(id, b""), Err(BLOCKED));
        assert_eq!(other.try_encrypt(id, None, [b"iv", b""], b""), Err(BLOCKED));
        assert_eq!(
            other.try_decrypt(id, None, [b"iv", b""], &[2; 17]),
            Err(BLOCKED)
        );
    }
    // What is wrong in itself is said at once.
    assert_eq!(other.try_sign_as("k", 99, None, b""), Err(INVALID));
    assert_eq!(
        other.try_sign_as("k", SIGN_MECHANISM_DERIVED, None, b""),
        Err(INVALID)
    );
    assert_eq!(other.try_verify("k", ECDSA, b"", b""), Err(INVALID));
    let unknown = other.crypt_as(other.list.try_encrypt, "k", 99, None::<&u8>, b"");
    assert_eq!(unknown, Err(INVALID));
    let rsa = other.crypt_as(other.list.try_decrypt, "k", 2, None::<&u8>, b"");
    assert_eq!(rsa, Err(INVALID));

    settle();
    assert_eq!(other.load("k"), Rc::OK);
    assert_eq!(other.try_load("k"), Rc::OK);
    let tag = other.try_sign("k", b"m").unwrap();
    assert_eq!(tag, other.sign("k", b"m").unwrap());
    assert_eq!(other.try_verify("k", HMAC, b"m", &tag), Ok(true));
    assert_eq!(
        other.try_derive("k", b"d").unwrap(),
        other.derive("k", b"d").unwrap()
    );
    for derived in [None, Some(b"d".as_slice())] {
        let parameters: [&[u8]; 2] = [b"iv", b"aad"];
        let sealed = other
            .try_encrypt("k", derived, parameters, b"text")
            .unwrap();
        assert_eq!(
            sealed,
            other.encrypt("k", derived, parameters, b"text").unwrap()
        );
        assert_eq!(
            other
                .try_decrypt("k", derived, parameters, &sealed)
                .unwrap(),
            b"text"
        );
    }
    // What takes too long for a caller that must not wait; the question for the length does not.
    let parameters: [&[u8]; 2] = [b"iv", b""];
    let large = vec![1; 64 * 1024];
    assert!(other.try_encrypt("k", None, parameters, &large).is_ok());
    let large = vec![1; 64 * 1024 + 1];
    assert_eq!(
        other.try_encrypt("k", None, parameters, &large),
        Err(BLOCKED)
    );
    let sealed = other.encrypt("k", None, parameters, &large).unwrap();
    assert_eq!(
        other.try_decrypt("k", None, parameters, &sealed),
        Err(BLOCKED)
    );

    // Additional data take their time too.
    let parameters: [&[u8]; 2] = [b"iv", &large[1..]];
    assert!(other.try_encrypt("k", None, parameters, b"").is_ok());
    assert_eq!(other.try_encrypt("k", None, parameters, b"1"), Err(BLOCKED));

    // Another process replaces the key, then deletes it.
    assert_eq!(keys.import("k", b"new"), Rc::OK);
    assert_eq!(other.try_sign("k", b"m"), Err(BLOCKED));
    assert_eq!(
        other.sign("k", b"m").unwrap(),
        HmacSha256::new(b"new").sign(b"m").as_bytes()
    );
    assert_eq!(keys.delete("k"), Rc::OK);
    assert_eq!((other.try_load("k"), other.load("k")), (BLOCKED, INVALID));
}

#[test]
fn pairs_are_used_from_memory() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for (id, algorithm) in [
        ("p256", "ec-p256"),
        ("p384", "ec-p384"),
        ("rsa", "rsa-2048"),
    ] {
        assert_eq!(keys.create_pair(id, Some(algorithm)), Rc::OK);
    }
    let other = Keys::with_home(&home);
    let type_ = KEY_PAIR_PARAMETER_TYPE_ALGORITHM;
    let pkcs1 = ENCRYPT_MECHANISM_RSA_PKCS1;
    for id in ["p256", "p384", "rsa", "missing"] {
        assert_eq!(other.try_load_pair(id), BLOCKED);
        assert_eq!(other.try_parameter(id, type_), Err(BLOCKED));
        assert_eq!(other.try_signature_bound(id, ECDSA), Err(BLOCKED));
        assert_eq!(other.try_rsa(id, pkcs1, b""), Err(BLOCKED));
    }
    assert_eq!(other.try_parameter("p256", 0), Err(INVALID));

    settle();
    for id in ["p256", "p384", "rsa"] {
        assert_eq!(other.load_pair(id), Rc::OK);
        assert_eq!(other.try_load_pair(id), Rc::OK);
        for type_ in 1..=5 {
            assert_eq!(other.try_parameter(id, type_), other.parameter(id, type_));
        }
        // In memory too, it is not a symmetric key.
        assert_eq!(other.try_load(id), BLOCKED);
        assert_eq!(other.try_sign(id, b""), Err(BLOCKED));
    }
    // A signature on P-256 is quick enough; the others are not, but their lengths are known at once.
    assert!(other.try_ecdsa("p256", &[1; 32]).is_ok());
    assert_eq!(other.try_signature_bound("p256", ECDSA), Ok(72));
    assert_eq!(other.try_signature_bound("p384", ECDSA), Ok(104));
    assert_eq!(other.try_ecdsa("p384", &[1; 48]), Err(BLOCKED));
    assert_eq!(other.try_signature_bound("rsa", ECDSA), Err(INVALID));
    assert_eq!(other.try_rsa("rsa", pkcs1, b"x"), Err(BLOCKED));
    assert_eq!(other.try_rsa("p256", pkcs1, b"x"), Err(INVALID));

    // Another process moves one over the other.
    assert_eq!(keys.move_pair("rsa", "p256"), Rc::OK);
    assert_eq!(other.try_ecdsa("p256", &[1; 32]), Err(BLOCKED));
    assert_eq!(other.try_load_pair("rsa"), BLOCKED);
    assert_eq!(other.load_pair("rsa"), INVALID);
    assert_eq!(
        other.parameter("p256", type_).unwrap(),
        KEY_PAIR_PARAMETER_ALGORITHM_RSA.to_ne_bytes()
    );
}

#[test]
fn sweep_removes_what_a_crash_left() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.create_pair("k", None), Rc::OK);
    let leftover = home.join("keys/.aziot-0000ffff-00000000.tmp");
    fs::write(&leftover, "half").unwrap();
    assert_eq!(keys.sweep(), Rc::OK);
    assert!(!leftover.exists());
    assert_eq!(keys.load_pair("k"), Rc::OK);
}

/// Eight threads ask for one key that is not there. All get the same.
#[test]
fn kf_10_one_key_for_all_who_create_it_at_once() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for round in 0..10 {
        let (pair, sym) = (format!("pair {round}"), format!("sym {round}"));
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        assert_eq!(keys.create_pair(&pair, None), Rc::OK);
                        assert_eq!(keys.create(&sym, 1), Rc::OK);
                        let point = keys.parameter(&pair, KEY_PAIR_PARAMETER_TYPE_EC_POINT);
                        (point.unwrap(), keys.sign(&sym, b"m").unwrap())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert!(file_of(&home, &pair).exists());
    }
    assert_eq!(fs::read_dir(home.join("keys")).unwrap().count(), 20);
}

/// Threads sign, verify, import and delete at once. Whatever a call answers belongs to a key that was stored at some
/// time, and after the last import of a key its own tags are answered.
#[test]
fn many_threads_at_once() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    let ids = ["a", "b", "c"];
    let candidates: Vec<[u8; 1]> = (1..=8).map(|n| [n]).collect();
    let tags: Vec<_> = candidates
        .iter()
        .map(|key| HmacSha256::new(key).sign(b"m").as_bytes().to_vec())
        .collect();
    let (done, signed, in_memory) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for id in ids {
            scope.spawn(|| {
                let until = Instant::now() + Duration::from_millis(1500);
                let mut turn = 0;
                while Instant::now() < until {
                    turn += 1;
                    let key = &candidates[turn % candidates.len()];
                    assert_eq!(keys.import(id, key), Rc::OK);
                    // Now and then long enough for the key to be taken into memory.
                    std::thread::sleep(Duration::from_millis(if turn % 4 == 0 { 80 } else { 2 }));
                    assert_eq!(
                        keys.sign_once(id, b"m").as_ref(),
                        Ok(&tags[turn % candidates.len()])
                    );
                    if turn % 3 == 0 {
                        assert_eq!(keys.delete(id), Rc::OK);
                        assert_eq!(keys.load(id), INVALID);
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for id in ids {
                        let quick = keys.try_sign_once(id, b"m");
                        match quick {
                            Ok(_) => in_memory.fetch_add(1, Ordering::Relaxed),
                            Err(rc) => {
                                assert_eq!(rc, Rc::WOULD_BLOCK);
                                0
                            }
                        };
                        match quick.or_else(|_| keys.sign_once(id, b"m")) {
                            Ok(tag) => {
                                assert!(tags.contains(&tag));
                                signed.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(rc) => {
                                assert_eq!(rc, INVALID);
                                // Every missing key is a line on standard error.
                                std::thread::sleep(Duration::from_millis(10));
                            }
                        }
                    }
                    assert_eq!(keys.sweep(), Rc::OK);
                }
            });
        }
    });
    assert!(signed.load(Ordering::Relaxed) > 100);
    assert!(in_memory.load(Ordering::Relaxed) > 100);
    let leftovers = fs::read_dir(home.join("keys")).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".tmp")
    });
    assert_eq!(leftovers.count(), 0);
}
