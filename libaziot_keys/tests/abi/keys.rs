//! Symmetric keys in files.

use std::fs;

use aziot_crypto::keys_abi::*;

use crate::common::{Keys, base_key, file_uri, hex, scratch};
use crate::vectors;

const INVALID: Rc = Rc::INVALID_PARAMETER;

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
fn kc_03_derivation_and_what_is_done_with_derived_keys() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("base", &base_key()), Rc::OK);
    vectors::check_derivation(&keys, "base");
    vectors::check_derivation_refusals(&keys, "base");
    // Nothing of it is stored.
    assert_eq!(fs::read_dir(home.join("keys")).unwrap().count(), 1);
}

#[test]
fn kc_04_verify() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", &base_key()), Rc::OK);
    vectors::check_verification(&keys, "k");
}

/// Files are 32 random bytes, whatever the key is for: a file does not know, and earlier releases took any usage.
#[test]
fn kf_02_a_generated_key_is_32_raw_bytes() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    let mut contents = Vec::new();
    for (n, usage) in [1, 0x10, 0x11, 0, 0x1234].into_iter().enumerate() {
        assert_eq!(keys.create(&format!("k{n}"), usage), Rc::OK);
    }
    for entry in fs::read_dir(home.join("keys")).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        assert_eq!(content.len(), 32);
        contents.push(content);
    }
    contents.sort();
    contents.dedup();
    assert_eq!(contents.len(), 5);
}

#[test]
fn kf_10_create_leaves_an_existing_key() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.import("k", b"key"), Rc::OK);
    let before = keys.sign("k", b"").unwrap();
    for usage in [1, 0x10, 0x11, 0, 0x1234] {
        assert_eq!(keys.create("k", usage), Rc::OK);
    }
    assert_eq!(keys.sign("k", b"").unwrap(), before);
}

#[test]
fn kf_11_load_and_delete_of_a_missing_key() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.load("k"), INVALID);
    assert_eq!(keys.delete("k"), Rc::OK);
    assert!(!home.join("keys").exists(), "nothing is made for a look");
    assert_eq!(keys.create("k", 1), Rc::OK);
    assert_eq!((keys.load("k"), keys.delete("k")), (Rc::OK, Rc::OK));
    assert_eq!((keys.load("k"), keys.delete("k")), (INVALID, Rc::OK));
    assert_eq!(keys.sign("k", b""), Err(INVALID));
}

#[test]
fn kf_15_a_preloaded_file_of_another_kind_is_left_alone() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    let path = home.join("preloaded");
    assert_eq!(keys.preload("p:q", &file_uri(&path)), Rc::OK);
    let pem = "-----BEGIN PRIVATE KEY-----\n";
    fs::write(&path, pem).unwrap();
    assert_eq!(keys.create("p:q", 1), INVALID);
    assert_eq!(keys.import("p:q", b"x"), INVALID);
    assert_eq!(keys.sign("p:q", b""), Err(INVALID));
    assert_eq!(keys.derive("p:q", b""), Err(INVALID));
    assert_eq!(fs::read_to_string(&path).unwrap(), pem);
    // An empty file is nothing that could be lost.
    fs::write(&path, "").unwrap();
    assert_eq!(keys.load("p:q"), Rc::EXTERNAL);
    assert_eq!(keys.create("p:q", 1), Rc::OK);
    assert_eq!(fs::read(&path).unwrap().len(), 32);
}

#[test]
fn kf_06_without_a_home_directory_only_preloaded_ids_work() {
    let (_dir, home) = scratch();
    let keys = Keys::new();
    assert_eq!((keys.load("k"), keys.delete("k")), (INVALID, INVALID));
    assert_eq!(
        (keys.create("k", 1), keys.import("k", b"x")),
        (INVALID, INVALID)
    );
    assert_eq!(
        (keys.create_pair("k", None), keys.load_pair("k")),
        (INVALID, INVALID)
    );
    assert_eq!(
        (keys.delete_pair("k"), keys.move_pair("k", "l")),
        (INVALID, INVALID)
    );
    assert_eq!(keys.location("k"), KEY_LOCATION_NONE);
    assert_eq!(keys.preload("k", &file_uri(&home.join("k"))), Rc::OK);
    assert_eq!(keys.preload("p", &file_uri(&home.join("p"))), Rc::OK);
    assert_eq!(
        (keys.location("k"), keys.location("l")),
        (KEY_LOCATION_FILE, KEY_LOCATION_NONE)
    );
    assert_eq!((keys.create("k", 1), keys.load("k")), (Rc::OK, Rc::OK));
    assert_eq!(
        (keys.create_pair("p", None), keys.load_pair("p")),
        (Rc::OK, Rc::OK)
    );
    assert_eq!(keys.create("l", 1), INVALID);
    assert_eq!(keys.set("homedir_path", home.to_str().unwrap()), Rc::OK);
    assert_eq!(keys.location("l"), KEY_LOCATION_FILE);
    assert_eq!(keys.create("l", 1), Rc::OK);
}

#[test]
fn kf_07_a_preloaded_id_lives_at_its_own_location_only() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.create("k", 1), Rc::OK);
    assert_eq!(
        keys.preload("k", &file_uri(&home.join("elsewhere"))),
        Rc::OK
    );
    assert_eq!(
        keys.load("k"),
        INVALID,
        "that in the home directory is another key"
    );
    assert_eq!(keys.create("k", 1), Rc::OK);
    assert_eq!(fs::read(home.join("elsewhere")).unwrap().len(), 32);

    assert_eq!(keys.preload("k", "file:///nonexistent/k"), Rc::OK);
    assert_eq!((keys.load("k"), keys.load_pair("k")), (INVALID, INVALID));
    assert_eq!(keys.create("k", 1), Rc::EXTERNAL);
    assert_eq!(keys.import("k", b"x"), Rc::EXTERNAL);
    assert_eq!(keys.create_pair("k", Some("ec-p256")), Rc::EXTERNAL);
    assert!(!std::path::Path::new("/nonexistent").exists());
}

#[test]
fn kf_08_a_location_in_a_token_without_a_module() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(
        keys.preload("k", "pkcs11:token=a;object=k?pin-value=1234"),
        Rc::OK
    );
    assert_eq!(keys.location("k"), KEY_LOCATION_PKCS11);
    assert_eq!((keys.load("k"), keys.create("k", 1)), (INVALID, INVALID));
    assert_eq!(
        (keys.load_pair("k"), keys.create_pair("k", None)),
        (INVALID, INVALID)
    );
    assert_eq!(
        (keys.import("k", b"x"), keys.delete("k")),
        (INVALID, INVALID)
    );
    assert_eq!(keys.sign("k", b""), Err(INVALID));
    assert_eq!(keys.encrypt("k", None, [b"iv", b""], b""), Err(INVALID));
    assert!(!home.join("keys").exists());
}

#[test]
fn kf_03_file_uris() {
    let (_dir, home) = scratch();
    fs::create_dir(home.join("b")).unwrap();
    fs::create_dir(home.join("p")).unwrap();
    let keys = Keys::new();
    let directory = home.to_str().unwrap();
    for (uri, name) in [
        ("file:///D/a%20b", "a b"),
        ("file:///D/c d", "c d"),
        ("file:///D/x?y#z", "x"),
        ("file:///D/d/../y", "y"),
        ("file:///D/b\\c", "b/c"),
        ("file:///D/p%2Fq", "p/q"),
        ("file:///D/pct%zz", "pct%zz"),
        ("file:///D/caf%C3%A9", "café"),
        ("file:///D/thé", "thé"),
        ("file:///D/plus+x", "plus+x"),
        ("file:///D/semi;x=1", "semi;x=1"),
        ("file:/D/one", "one"),
        ("file://localhost/D/two", "two"),
        ("file:D/three", "three"),
    ] {
        let rooted = uri.replacen("/D", directory, 1);
        let uri = match uri.strip_prefix("file:D") {
            Some(rest) => format!("file:{}{rest}", &directory[1..]),
            None => rooted,
        };
        assert_eq!(keys.preload("k", &uri), Rc::OK, "{uri}");
        assert_eq!(keys.create("k", 1), Rc::OK, "{uri}");
        assert_eq!(fs::read(home.join(name)).unwrap().len(), 32, "{uri}");
    }
    for uri in ["file://host/D/x", "FILE:///D/x", "http://x", "/D/x", ""] {
        assert_eq!(keys.preload("k", uri), INVALID, "{uri}");
    }
    assert_eq!(keys.load("k"), Rc::OK, "a refused location changes nothing");
}

#[test]
fn kf_03_pkcs11_uris() {
    let keys = Keys::new();
    for uri in [
        "pkcs11:token=a",
        "pkcs11:token",
        "pkcs11:t%6fken=a",
        "pkcs11:token=a;unknown=%ff",
        "pkcs11:token=a?x=%ff",
        "pkcs11:slot-id=4294967295",
        "pkcs11:slot-id=+1",
        "pkcs11:slot-id=%31",
    ] {
        assert_eq!(keys.preload("k", uri), Rc::OK, "{uri}");
        assert_eq!(keys.set("pkcs11_base_slot", uri), Rc::OK, "{uri}");
    }
    for uri in [
        "pkcs11:",
        "pkcs11:object=x",
        "PKCS11:token=a",
        "pkcs11:slot-id=abc",
        "pkcs11:slot-id=",
        "pkcs11:slot-id=0x1",
        "pkcs11:slot-id=18446744073709551616",
        "pkcs11:token=%ff",
        "pkcs11:token=a?pin-value=%ff",
    ] {
        assert_eq!(keys.preload("k", uri), INVALID, "{uri}");
        assert_eq!(keys.set("pkcs11_base_slot", uri), INVALID, "{uri}");
    }
}

#[test]
fn names_of_parameters() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for (name, value) in [
        ("", "x"),
        ("homedir", "x"),
        ("HOMEDIR_PATH", "x"),
        ("preloaded_key", "file:///x"),
        ("preloaded_key:", "file:///x"),
        ("pkcs11_base_slot", "file:///x"),
        ("pkcs11_base_slot", "x"),
    ] {
        assert_eq!(keys.set(name, value), INVALID, "{name}={value}");
    }
    // Everything after the first colon is the id.
    assert_eq!(keys.preload("a:b", &file_uri(&home.join("a"))), Rc::OK);
    assert_eq!(keys.create("a:b", 1), Rc::OK);
    assert!(home.join("a").exists());
    assert_eq!(keys.create("x", 1), Rc::OK);
}
