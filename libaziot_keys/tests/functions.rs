//! The functions of the library, through its private list, which has those of the public ones.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aziot_crypto::keys_abi::*;
use aziot_crypto::software::HmacSha256;
use base64ct::{Base64, Encoding};
use common::{Keys, hex, scratch, settle};

const INVALID: Rc = Rc::INVALID_PARAMETER;
const HMAC: u32 = SIGN_MECHANISM_HMAC_SHA256;

fn derived(data: &[u8], mechanism: u32) -> SignDerivedParameters {
    SignDerivedParameters {
        derivation_data: data.as_ptr(),
        derivation_data_len: data.len(),
        mechanism,
        parameters: std::ptr::null(),
    }
}

#[test]
fn kf_14_imports_replace_and_match_the_vectors() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", b"key"), Rc::OK);
    assert_eq!(
        keys.sign("k", b"The quick brown fox jumps over the lazy dog")
            .unwrap(),
        hex("f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8")
    );
    assert_eq!(keys.import("k", &[0xaa; 100]), Rc::OK);
    assert_eq!(
        keys.sign("k", b"message").unwrap(),
        hex("056a1c3c9eba051ecccfdb03927b9447a53c0d38e3f8e3d3a3d5bcae95ec9415")
    );
    assert_eq!(keys.import("k", b""), INVALID);
    assert_eq!(keys.import("k", b"-----BEGIN PRIVATE KEY-----\n"), INVALID);
    assert_eq!(keys.load("k"), Rc::OK);
}

#[test]
fn kc_03_derivation_and_derived_signing() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("base", &(0..32).collect::<Vec<u8>>()), Rc::OK);
    assert_eq!(
        keys.derive("base", b"").unwrap(),
        hex("d38b42096d80f45f826b44a9d5607de72496a415d3f4a1a8c88e3bb9da8dc1cb")
    );
    assert_eq!(
        keys.derive("base", b"edgeAgent").unwrap(),
        hex("97112774bdb9e7b8b0b24d0e1722f71705318702686e831642c9126f8d0e79fc")
    );
    let agent = derived(b"edgeAgent", HMAC);
    let expected = hex("a7717cd39805af75775dbdd37fdbacc3eaf63ed273e24ea579347c5b98f57bc7");
    assert_eq!(
        keys.sign_as("base", SIGN_MECHANISM_DERIVED, Some(&agent), b"message")
            .unwrap(),
        expected
    );

    let sign = |parameters: Option<&SignDerivedParameters>| {
        keys.sign_as("base", SIGN_MECHANISM_DERIVED, parameters, b"message")
    };
    assert_eq!(sign(None), Err(INVALID));
    for inner in [0, SIGN_MECHANISM_ECDSA, SIGN_MECHANISM_DERIVED, 4] {
        assert_eq!(sign(Some(&derived(b"edgeAgent", inner))), Err(INVALID));
    }
    let no_data = SignDerivedParameters {
        derivation_data: std::ptr::null(),
        derivation_data_len: 0,
        ..agent
    };
    assert_eq!(sign(Some(&no_data)), Err(INVALID));
    assert_eq!(
        keys.sign_as("missing", SIGN_MECHANISM_DERIVED, Some(&agent), b""),
        Err(INVALID)
    );
    assert_eq!(keys.derive("missing", b""), Err(INVALID));
    for unknown in [0, 4, u32::MAX] {
        assert_eq!(keys.sign_as("base", unknown, None, b""), Err(INVALID));
    }
}

#[test]
fn kc_04_verify() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &(0..32).collect::<Vec<u8>>()), Rc::OK);
    let tag = keys.sign("k", b"message").unwrap();
    assert_eq!(
        tag,
        hex("6297b77508a1a30ea4dfadd8f847c31b49aba45de10a79daf721d3f7ec112a24")
    );
    assert_eq!(keys.verify("k", HMAC, b"message", &tag), Ok(true));
    assert_eq!(keys.verify("k", HMAC, b"other", &tag), Ok(false));
    assert_eq!(keys.verify("k", HMAC, b"message", b""), Ok(false));
    assert_eq!(keys.verify("k", HMAC, b"message", &tag[..31]), Ok(false));
    for mechanism in [0, SIGN_MECHANISM_ECDSA, SIGN_MECHANISM_DERIVED, 4] {
        assert_eq!(keys.verify("k", mechanism, b"message", &tag), Err(INVALID));
    }
    assert_eq!(keys.verify("missing", HMAC, b"message", &tag), Err(INVALID));
}

#[test]
fn kf_02_kf_11_kf_15_create_load_delete() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.load("k"), INVALID);
    assert_eq!(keys.delete("k"), Rc::OK);
    assert_eq!(keys.move_pair("k", "l"), Rc::EXTERNAL);
    // Any usage, as ever.
    for usage in [1, 0x10, 0x11, 0, 0x1234] {
        assert_eq!(keys.create("k", usage), Rc::OK);
    }
    let before = keys.sign("k", b"").unwrap();
    assert_eq!(keys.move_pair("k", "k"), Rc::OK);
    assert_eq!(keys.move_pair("missing", "k"), Rc::EXTERNAL);
    assert_eq!(keys.sign("k", b"").unwrap(), before);
    assert_eq!(keys.move_pair("k", "l"), Rc::OK);
    assert_eq!((keys.load("k"), keys.sign("l", b"")), (INVALID, Ok(before)));
    assert_eq!(keys.delete("l"), Rc::OK);
    assert_eq!(keys.load("l"), INVALID);

    let path = home.join("preloaded");
    fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    assert_eq!(
        keys.set("preloaded_key:p:q", &format!("file://{}", path.display())),
        Rc::OK
    );
    assert_eq!(keys.create("p:q", 1), INVALID);
    assert_eq!(keys.import("p:q", b"x"), INVALID);
    assert_eq!(keys.sign("p:q", b""), Err(INVALID));
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "-----BEGIN PRIVATE KEY-----\n"
    );
    fs::write(&path, "").unwrap();
    assert_eq!(keys.load("p:q"), Rc::EXTERNAL);
    assert_eq!(keys.create("p:q", 1), Rc::OK);
    assert_eq!(fs::read(&path).unwrap().len(), 32);
}

#[test]
fn kf_06_kf_07_locations() {
    let (_dir, home) = scratch();
    let keys = Keys::new();
    assert_eq!(
        (keys.load("k"), keys.create("k", 1), keys.delete("k")),
        (INVALID, INVALID, INVALID)
    );
    assert_eq!(keys.location("k"), KEY_LOCATION_NONE);
    let uri = format!("file://{}/k", home.display());
    assert_eq!(keys.set("preloaded_key:k", &uri), Rc::OK);
    assert_eq!(
        (keys.location("k"), keys.location("l")),
        (KEY_LOCATION_FILE, KEY_LOCATION_NONE)
    );
    assert_eq!(keys.create("k", 1), Rc::OK);
    assert_eq!(keys.set("preloaded_key:k", "file:///nonexistent/k"), Rc::OK);
    assert_eq!(
        (keys.load("k"), keys.create("k", 1)),
        (INVALID, Rc::EXTERNAL)
    );
    assert_eq!(keys.set("homedir_path", home.to_str().unwrap()), Rc::OK);
    assert_eq!(keys.location("l"), KEY_LOCATION_FILE);

    for (name, value) in [
        ("", "x"),
        ("homedir", "x"),
        ("preloaded_key", "file:///x"),
        ("preloaded_key:", "file:///x"),
        ("preloaded_key:x", "/x"),
        ("preloaded_key:x", "http://x"),
        ("preloaded_key:x", "FILE:///x"),
        ("preloaded_key:x", "file://host/x"),
        ("pkcs11_lib_path", "/usr/lib/softhsm/libsofthsm2.so"),
        ("pkcs11_base_slot", "pkcs11:token=a"),
    ] {
        assert_eq!(keys.set(name, value), INVALID, "{name}={value}");
    }
    assert_eq!(
        keys.create("x", 1),
        Rc::OK,
        "a refused location changes nothing"
    );
}

#[test]
fn key_pairs_say_that_they_are_not_supported() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for known in [None, Some("*"), Some("foo:rsa-2048"), Some("ec-p256")] {
        assert_eq!(keys.create_pair("pair", known), Rc::EXTERNAL);
    }
    for unknown in ["", "foo", "EC-P256", "ec-p256 "] {
        assert_eq!(keys.create_pair("pair", Some(unknown)), INVALID);
    }
    assert_eq!(keys.load_pair("pair"), INVALID);
    assert_eq!(
        keys.sign_as("pair", SIGN_MECHANISM_ECDSA, None, b""),
        Err(INVALID)
    );
    assert_eq!(keys.create("sym", 1), Rc::OK);
    assert_eq!(keys.load_pair("sym"), Rc::EXTERNAL);
    assert_eq!(
        keys.sign_as("sym", SIGN_MECHANISM_ECDSA, None, b""),
        Err(Rc::EXTERNAL)
    );
}

#[test]
fn keys_made_by_release_1_6_0_load_and_sign_as_there() {
    let fixture = common::here().join("../tests/fixtures/reference-1.6.0");
    let keys = Keys::with_home(&fixture.join("var/lib/aziot/keyd"));
    let text = |name: &str| fs::read_to_string(fixture.join("results").join(name)).unwrap();
    // The answers are one JSON object with one member.
    let member = |name: &str| text(name).split('"').nth(3).unwrap().to_owned();

    let signature = Base64::decode_vec(&member("sign-hmac.json")).unwrap();
    assert_eq!(keys.sign("sym-gen", b"hello").unwrap(), signature);
    assert_eq!(keys.verify("sym-gen", HMAC, b"hello", &signature), Ok(true));
    let exported = Base64::decode_vec(&member("derivedkey-export.json")).unwrap();
    assert_eq!(keys.derive("sym-gen", b"module-a").unwrap(), exported);
    let imported: Vec<u8> = (0..32).collect();
    assert_eq!(
        keys.sign("sym-imported", b"x").unwrap(),
        HmacSha256::new(&imported).sign(b"x").as_bytes()
    );
    assert_eq!(keys.load("odd & id?"), Rc::OK);
    assert_eq!(keys.load("aziot_identityd_master_id"), Rc::OK);
    let device_key = format!(
        "file://{}/var/secrets/aziot/keyd/device-id",
        fixture.canonicalize().unwrap().display()
    );
    assert_eq!(keys.set("preloaded_key:device-id", &device_key), Rc::OK);
    let expected = HmacSha256::new(b"abcdefghijklmnopqrstuvwxyz123456").sign(b"x");
    assert_eq!(keys.sign("device-id", b"x").unwrap(), expected.as_bytes());
    // Key pairs are there, and are not taken for symmetric keys.
    for pair in ["ec", "rsa2048", "Ünïcode id/with slash"] {
        assert_eq!(
            (keys.load(pair), keys.load_pair(pair)),
            (INVALID, Rc::EXTERNAL),
            "{pair}"
        );
    }

    for name in [
        "key-sym-gen.json",
        "key-sym-imported.json",
        "key-odd.json",
        "derivedkey-of-sym-gen.json",
    ] {
        let handle = member(name);
        let (signed, tag) = handle
            .strip_prefix("sr=")
            .unwrap()
            .split_once("&sig=")
            .unwrap();
        let (signed, tag) = (
            Base64::decode_vec(signed).unwrap(),
            Base64::decode_vec(tag).unwrap(),
        );
        assert_eq!(
            keys.verify("handle-validation-key", HMAC, &signed, &tag),
            Ok(true),
            "{name}"
        );
        assert_eq!(
            keys.verify("handle-validation-key", HMAC, &signed[1..], &tag),
            Ok(false),
            "{name}"
        );
    }
}

#[test]
fn try_functions_answer_from_memory_or_not_at_all() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    let blocked = Rc::WOULD_BLOCK;
    assert_eq!(keys.import("k", b"key"), Rc::OK);
    let other = Keys::with_home(&home);
    for id in ["k", "missing"] {
        assert_eq!(other.try_load(id), blocked);
        assert_eq!(other.try_sign(id, b""), Err(blocked));
        assert_eq!(other.try_verify(id, HMAC, b"", b""), Err(blocked));
        assert_eq!(other.try_derive(id, b""), Err(blocked));
    }
    // What is wrong in itself is said at once.
    assert_eq!(other.try_sign_as("k", 99, None, b""), Err(INVALID));
    assert_eq!(
        other.try_verify("k", SIGN_MECHANISM_ECDSA, b"", b""),
        Err(INVALID)
    );

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
    let inner = derived(b"d", HMAC);
    assert_eq!(
        other
            .try_sign_as("k", SIGN_MECHANISM_DERIVED, Some(&inner), b"m")
            .unwrap(),
        other
            .sign_as("k", SIGN_MECHANISM_DERIVED, Some(&inner), b"m")
            .unwrap()
    );
    // Another process replaces the key, then deletes it.
    assert_eq!(keys.import("k", b"new"), Rc::OK);
    assert_eq!(other.try_sign("k", b"m"), Err(blocked));
    assert_eq!(
        other.sign("k", b"m").unwrap(),
        HmacSha256::new(b"new").sign(b"m").as_bytes()
    );
    assert_eq!(keys.delete("k"), Rc::OK);
    assert_eq!((other.try_load("k"), other.load("k")), (blocked, INVALID));

    let leftover = home.join("keys/.aziot-0000ffff-00000000.tmp");
    fs::write(&leftover, "half").unwrap();
    assert_eq!(other.sweep(), Rc::OK);
    assert!(!leftover.exists());
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
                        keys.sign(id, b"m").as_ref(),
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
                        let quick = keys.try_sign(id, b"m");
                        match quick {
                            Ok(_) => in_memory.fetch_add(1, Ordering::Relaxed),
                            Err(rc) => {
                                assert_eq!(rc, Rc::WOULD_BLOCK);
                                0
                            }
                        };
                        match quick.or_else(|_| keys.sign(id, b"m")) {
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
