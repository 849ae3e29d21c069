//! Encryption and decryption with keys in files.

use aziot_crypto::keys_abi::*;

use crate::common::{Keys, base_key, hex, scratch};
use crate::vectors;

#[test]
fn kc_01_aead_vectors() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &base_key()), Rc::OK);
    vectors::check_aead(&keys, "k");
}

#[test]
fn kc_02_what_decryption_refuses() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &base_key()), Rc::OK);
    vectors::check_aead_refusals(&keys, "k");
}

#[test]
fn kc_02_initialisation_vectors_and_keys_of_other_lengths() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &base_key()), Rc::OK);
    for len in [1, 11, 13, 64, 128] {
        let iv = vec![7; len];
        let sealed = keys.encrypt("k", None, [&iv, b"aad"], b"text").unwrap();
        assert_eq!(
            keys.decrypt("k", None, [&iv, b"aad"], &sealed).unwrap(),
            b"text"
        );
    }
    let sealed = hex(vectors::AEAD[2].1);
    for len in [0, 129, 4096] {
        let iv = vec![7; len];
        let refused = keys.encrypt("k", None, [&iv, b""], b"text");
        assert_eq!(refused, Err(Rc::EXTERNAL), "{len}");
        let refused = keys.decrypt("k", None, [&iv, b""], &sealed);
        assert_eq!(refused, Err(Rc::EXTERNAL), "{len}");
    }
    for len in [1, 16, 31, 33, 100] {
        assert_eq!(keys.import("odd", &vec![7; len]), Rc::OK);
        let refused = keys.encrypt("odd", None, [b"iv", b""], b"text");
        assert_eq!(refused, Err(Rc::EXTERNAL), "{len}");
        let refused = keys.decrypt("odd", None, [b"iv", b""], &sealed);
        assert_eq!(refused, Err(Rc::EXTERNAL), "{len}");
        // What is derived from it always has the right length.
        let derived = keys
            .encrypt("odd", Some(b"d"), [b"iv", b""], b"text")
            .unwrap();
        assert_eq!(
            keys.decrypt("odd", Some(b"d"), [b"iv", b""], &derived)
                .unwrap(),
            b"text"
        );
    }
}

#[test]
fn kc_01_large_and_empty_inputs() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.create("k", KEY_USAGE_ENCRYPT), Rc::OK);
    let aad = vec![3; 100_000];
    for len in [0, 1, 15, 16, 17, 65536, 3_000_001] {
        let plaintext: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let sealed = keys.encrypt("k", None, [b"iv", &aad], &plaintext).unwrap();
        assert_eq!(sealed.len(), len + 17);
        let opened = keys.decrypt("k", None, [b"iv", &aad], &sealed).unwrap();
        assert!(opened == plaintext, "{len}");
    }
}

/// A failed decryption shows nothing of the plaintext, in the caller's buffer either.
#[test]
fn kc_02_no_part_of_a_plaintext_that_is_not_authentic() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &base_key()), Rc::OK);
    let plaintext = b"secret that nobody must see";
    let mut sealed = keys.encrypt("k", None, [b"iv", b""], plaintext).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    let mut out = [0xee; 64];
    let rc = keys.decrypt_into("k", [b"iv", b""], &sealed, &mut out);
    assert_eq!(rc, Rc::EXTERNAL);
    let shown = out.iter().zip(plaintext).filter(|(a, b)| a == b).count();
    assert!(shown < 4, "{out:02x?}");
    assert!(
        out.windows(6)
            .all(|part| !plaintext.windows(6).any(|whole| whole == part))
    );
}
