//! Keys in a PKCS#11 token: SoftHSM, behind a module that writes down what it is asked and fails on command.

use std::fs;

use aziot_crypto::keys_abi::*;

use crate::common::{Keys, LABEL, PIN, base_key, hex, scratch, token};
use crate::store_reader::file_of;
use crate::vectors;

const INVALID: Rc = Rc::INVALID_PARAMETER;
const POINT: u32 = KEY_PAIR_PARAMETER_TYPE_EC_POINT;
const MODULUS: u32 = KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS;

/// The calls of one function in a record.
fn of<'a>(calls: &'a [String], function: &str) -> Vec<&'a str> {
    let is = |call: &&String| call.split(' ').next() == Some(function);
    calls.iter().filter(is).map(String::as_str).collect()
}

/// The types of the attributes in a recorded template, in order.
fn attributes(call: &str) -> Vec<&str> {
    let template = call
        .split_once(" template=")
        .and_then(|(_, rest)| rest.split_once(" -> "));
    let (template, _) = template.unwrap_or_else(|| panic!("no template in {call}"));
    template
        .split(',')
        .map(|attribute| attribute.split('=').next().unwrap())
        .collect()
}

#[test]
fn kp_01_both_settings_open_a_session_without_login() {
    token(
        "tokens::kp_01_both_settings_open_a_session_without_login",
        |token| {
            let keys = Keys::with_home(&token.home);
            assert_eq!(keys.set("pkcs11_base_slot", &token.uri()), Rc::OK);
            assert_eq!(token.calls(), [""; 0], "nothing is loaded for one of them");
            let path = token.module();
            assert_eq!(keys.set("pkcs11_lib_path", path.to_str().unwrap()), Rc::OK);
            let calls = token.calls();
            assert_eq!(of(&calls, "C_Initialize").len(), 1, "{calls:?}");
            assert_eq!(of(&calls, "C_OpenSession").len(), 1, "{calls:?}");
            assert!(of(&calls, "C_Login").is_empty(), "{calls:?}");
            assert_eq!(keys.location("k"), KEY_LOCATION_PKCS11);
            // The same again costs nothing.
            assert_eq!(keys.set("pkcs11_lib_path", path.to_str().unwrap()), Rc::OK);
            assert!(of(&token.calls(), "C_Initialize").is_empty());
        },
    );
}

#[test]
fn kp_01_an_absent_token_is_a_failure_and_changes_nothing() {
    let log = token(
        "tokens::kp_01_an_absent_token_is_a_failure_and_changes_nothing",
        |token| {
            let keys = Keys::with_home(&token.home);
            let absent = "pkcs11:token=absent?pin-value=1234";
            assert_eq!(token.configure(&keys, absent), (Rc::OK, Rc::EXTERNAL));
            // A refused setting leaves things as they were, and others can be made.
            assert_eq!(keys.location("k"), KEY_LOCATION_FILE);
            assert_eq!(keys.preload("x", "file:///x"), Rc::OK);
            assert_eq!(keys.create("k", 1), Rc::OK);
            assert_eq!(token.files(), 1);
            assert_eq!(token.configure(&keys, &token.uri()), (Rc::OK, Rc::OK));
            assert_eq!(keys.set("pkcs11_base_slot", absent), Rc::EXTERNAL);
            assert_eq!(keys.set("pkcs11_base_slot", "pkcs11:"), INVALID);
            assert_eq!(
                keys.set("pkcs11_lib_path", "/nonexistent/module.so"),
                Rc::EXTERNAL
            );
            let elf = token.dir.join("no-module.so");
            fs::write(&elf, "not ELF").unwrap();
            assert_eq!(
                keys.set("pkcs11_lib_path", elf.to_str().unwrap()),
                Rc::EXTERNAL
            );
            assert_eq!(keys.create("in the token", KEY_USAGE_SIGN), Rc::OK);
            assert_eq!(token.objects(), ["Secret Key in the token"]);
        },
    );
    let Some(log) = log else { return };
    assert!(log.contains("absent") && log.contains("[ERR!] - "), "{log}");
    assert!(log.contains("/nonexistent/module.so"), "{log}");
    assert!(log.contains("no-module.so"), "{log}");
    assert!(!log.contains("1234"), "{log}");
}

#[test]
fn kp_02_objects_are_found_by_label_and_templates_are_as_specified() {
    token(
        "tokens::kp_02_objects_are_found_by_label_and_templates_are_as_specified",
        |token| {
            let keys = token.keys();
            token.calls();
            assert_eq!(keys.create("Ünï & hmac", KEY_USAGE_SIGN), Rc::OK);
            assert_eq!(keys.create("aes", KEY_USAGE_ENCRYPT), Rc::OK);
            let calls = token.calls();
            let generated = of(&calls, "C_GenerateKey");
            assert_eq!(generated.len(), 2, "{calls:#?}");
            assert!(generated[0].contains("mechanism=0x350"), "{generated:?}");
            assert_template(
                generated[0],
                "PRIVATE SENSITIVE TOKEN VERIFY LABEL SIGN VALUE_LEN KEY_TYPE",
            );
            assert!(generated[1].contains("mechanism=0x1080"), "{generated:?}");
            assert_template(
                generated[1],
                "PRIVATE SENSITIVE TOKEN VERIFY LABEL DECRYPT ENCRYPT KEY_TYPE VALUE_LEN",
            );
            // A trial encryption shows that the key can be used.
            let encrypted = of(&calls, "C_EncryptInit");
            assert!(
                encrypted.iter().any(|call| call.contains("0x1087")),
                "{calls:#?}"
            );

            assert_eq!(keys.import("imported", &[7; 33]), Rc::OK);
            assert_eq!(
                keys.import_for("imported aes", &[7; 32], KEY_USAGE_ENCRYPT),
                Rc::OK
            );
            let calls = token.calls();
            let made = of(&calls, "C_CreateObject");
            assert_template(
                made[0],
                "CLASS PRIVATE SENSITIVE TOKEN VALUE LABEL SIGN VERIFY KEY_TYPE",
            );
            let last = made.last().unwrap();
            assert_template(
                last,
                "CLASS PRIVATE SENSITIVE TOKEN VALUE LABEL DECRYPT ENCRYPT KEY_TYPE",
            );

            assert_eq!(keys.create_pair("ec", Some("ec-p256")), Rc::OK);
            assert_eq!(keys.create_pair("rsa", Some("rsa-2048")), Rc::OK);
            let calls = token.calls();
            let generated = of(&calls, "C_GenerateKeyPair");
            assert_eq!(generated.len(), 2, "{calls:#?}");
            assert!(generated[0].contains("mechanism=0x1040"), "{generated:?}");
            assert!(generated[1].contains("mechanism=0x0"), "{generated:?}");
            for call in &generated {
                assert!(
                    call.contains("CKA_PRIVATE=0") && call.contains("CKA_PRIVATE=1"),
                    "{call}"
                );
                for never in ["WRAP", "UNWRAP", "DERIVE"] {
                    assert!(!call.contains(&format!("CKA_{never}=")), "{call}");
                }
            }
            assert_eq!(
                token.objects(),
                [
                    "Private Key ec",
                    "Private Key rsa",
                    "Public Key ec",
                    "Public Key rsa",
                    "Secret Key aes",
                    "Secret Key imported",
                    "Secret Key imported aes",
                    "Secret Key Ünï & hmac",
                ]
            );
            assert_eq!(token.files(), 0);
            // Another library, as after a restart, finds them by their labels.
            let keys = token.keys();
            assert_eq!(
                (keys.load("Ünï & hmac"), keys.load("aes")),
                (Rc::OK, Rc::OK)
            );
            assert_eq!(
                (keys.load_pair("ec"), keys.load_pair("rsa")),
                (Rc::OK, Rc::OK)
            );
            assert_eq!((keys.load("ec"), keys.load_pair("aes")), (INVALID, INVALID));
        },
    );
}

/// Holds the attributes of a template against the specified ones, which come in this order; `CKA_EXTRACTABLE` and
/// `CKA_ID` may come in addition.
fn assert_template(call: &str, expected: &str) {
    let found: Vec<_> = attributes(call)
        .into_iter()
        .filter(|attribute| !matches!(*attribute, "CKA_EXTRACTABLE" | "CKA_ID"))
        .map(|attribute| attribute.strip_prefix("CKA_").unwrap_or(attribute))
        .collect();
    assert_eq!(found.join(" "), expected, "{call}");
}

#[test]
fn kp_03_vectors_hold_for_keys_in_the_token() {
    token(
        "tokens::kp_03_vectors_hold_for_keys_in_the_token",
        |token| {
            let keys = token.keys();
            assert_eq!(
                keys.import_for("aes", &base_key(), KEY_USAGE_ENCRYPT),
                Rc::OK
            );
            assert_eq!(keys.import("base", &base_key()), Rc::OK);
            assert_eq!(token.files(), 0);
            vectors::check_aead(&keys, "aes");
            vectors::check_aead_refusals(&keys, "aes");
            vectors::check_derivation(&keys, "base");
            vectors::check_derivation_refusals(&keys, "base");
            vectors::check_verification(&keys, "base");
            assert_eq!(keys.import("long", &[0xaa; 100]), Rc::OK);
            assert_eq!(
                keys.sign("long", b"message").unwrap(),
                hex("056a1c3c9eba051ecccfdb03927b9447a53c0d38e3f8e3d3a3d5bcae95ec9415")
            );
            // A token is never asked by a call that must not wait.
            token.calls();
            assert_eq!(keys.try_load("base"), Rc::WOULD_BLOCK);
            assert_eq!(keys.try_sign("base", b"m"), Err(Rc::WOULD_BLOCK));
            assert_eq!(keys.try_load_pair("base"), Rc::WOULD_BLOCK);
            assert_eq!(token.calls(), [""; 0]);
            assert_eq!((keys.delete("long"), keys.load("long")), (Rc::OK, INVALID));
        },
    );
}

#[test]
fn kp_03_pairs_in_the_token_sign() {
    token("tokens::kp_03_pairs_in_the_token_sign", |token| {
        let keys = token.keys();
        for (id, algorithm, order_len, bound) in
            [("p256", "ec-p256", 32, 72), ("p384", "ec-p384", 48, 104)]
        {
            assert_eq!(keys.create_pair(id, Some(algorithm)), Rc::OK);
            assert_eq!(keys.signature_bound(id, SIGN_MECHANISM_ECDSA), Ok(bound));
            let public = public_ec(&keys, id);
            for len in [20, 32, 48, 64] {
                let digest: Vec<u8> = (0..len).map(|at| 200 - at as u8).collect();
                let signature = keys.ecdsa(id, &digest).unwrap();
                assert!(signature.len() <= bound);
                let signature = openssl::ecdsa::EcdsaSig::from_der(&signature).unwrap();
                let used = &digest[..len.min(order_len)];
                assert!(signature.verify(used, &public).unwrap(), "{id}, {len}");
            }
            assert_eq!(
                keys.rsa(id, ENCRYPT_MECHANISM_RSA_PKCS1, b"x"),
                Err(INVALID)
            );
        }
        assert_eq!(keys.create_pair("rsa", Some("rsa-2048")), Rc::OK);
        let (pkcs1, none) = (
            ENCRYPT_MECHANISM_RSA_PKCS1,
            ENCRYPT_MECHANISM_RSA_NO_PADDING,
        );
        let info = hex(vectors::DIGEST_INFO);
        let signature = keys.rsa("rsa", pkcs1, &info).unwrap();
        let mut block = vec![0xff; 256];
        block[..2].copy_from_slice(&[0, 1]);
        block[256 - info.len() - 1] = 0;
        block[256 - info.len()..].copy_from_slice(&info);
        assert_eq!(keys.rsa("rsa", none, &block).unwrap(), signature);
        let n = openssl::bn::BigNum::from_slice(&keys.parameter("rsa", MODULUS).unwrap());
        let e = keys
            .parameter("rsa", KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT)
            .unwrap();
        assert_eq!(e, [1, 0, 1]);
        let e = openssl::bn::BigNum::from_slice(&e).unwrap();
        let public = openssl::rsa::Rsa::from_public_components(n.unwrap(), e).unwrap();
        let mut opened = vec![0; 256];
        let len = public
            .public_decrypt(&signature, &mut opened, openssl::rsa::Padding::PKCS1)
            .unwrap();
        assert_eq!(opened[..len], info);
        // Lengths are looked at before the token is: SoftHSM would end the process.
        token.calls();
        for len in [0, 1, 255, 257, 1000] {
            assert_eq!(
                keys.rsa("rsa", none, &vec![0; len]),
                Err(Rc::EXTERNAL),
                "{len}"
            );
        }
        assert_eq!(keys.rsa("rsa", none, &[0xff; 256]), Err(Rc::EXTERNAL));
        for len in [246, 256, 1000] {
            assert_eq!(
                keys.rsa("rsa", pkcs1, &vec![0; len]),
                Err(Rc::EXTERNAL),
                "{len}"
            );
        }
        assert!(of(&token.calls(), "C_Sign").is_empty());
        assert_eq!(keys.ecdsa("rsa", &[1; 32]), Err(INVALID));
        // Neither is it for the question how long a signature will be.
        assert_eq!(keys.signature_bound("p256", SIGN_MECHANISM_ECDSA), Ok(72));
        assert!(of(&token.calls(), "C_SignInit").is_empty());
    });
}

fn public_ec(keys: &Keys, id: &str) -> openssl::ec::EcKey<openssl::pkey::Public> {
    use openssl::nid::Nid;
    let oid = keys
        .parameter(id, KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID)
        .unwrap();
    let curve = if oid == hex("06082a8648ce3d030107") {
        Nid::X9_62_PRIME256V1
    } else {
        assert_eq!(oid, hex("06052b81040022"));
        Nid::SECP384R1
    };
    let group = openssl::ec::EcGroup::from_curve_name(curve).unwrap();
    let mut context = openssl::bn::BigNumContext::new().unwrap();
    let point = keys.parameter(id, POINT).unwrap();
    let point = openssl::ec::EcPoint::from_bytes(&group, &point, &mut context).unwrap();
    openssl::ec::EcKey::from_public_key(&group, &point).unwrap()
}

#[test]
fn kp_04_usages_and_keys_that_the_token_cannot_hold() {
    let log = token(
        "tokens::kp_04_usages_and_keys_that_the_token_cannot_hold",
        |token| {
            let keys = token.keys();
            for usage in [0, 3, 0x11] {
                assert_eq!(keys.create("k", usage), INVALID, "{usage}");
                assert_eq!(keys.import_for("k", &base_key(), usage), INVALID, "{usage}");
            }
            assert_eq!((token.objects(), token.files()), (vec![], 0));
            // 20 bytes are no key for AES. It goes where it fits, and still cannot encrypt.
            assert_eq!(
                keys.import_for("short", &[7; 20], KEY_USAGE_ENCRYPT),
                Rc::OK
            );
            assert_eq!((token.objects(), token.files()), (vec![], 1));
            assert_eq!(fs::read(file_of(&token.home, "short")).unwrap(), [7; 20]);
            assert_eq!(keys.load("short"), Rc::OK);
            assert_eq!(
                keys.encrypt("short", None, [b"iv", b""], b""),
                Err(Rc::EXTERNAL)
            );
            // A token without the mechanism.
            token.script("C_GenerateKey 0x70 2\n");
            assert_eq!(keys.create("no mechanism", KEY_USAGE_ENCRYPT), Rc::OK);
            token.script("");
            assert!(file_of(&token.home, "no mechanism").exists());
            // Any other failure is one.
            token.script("C_GenerateKey 0x30 *\n");
            assert_eq!(keys.create("failing", KEY_USAGE_SIGN), Rc::EXTERNAL);
            token.script("");
            assert!(!file_of(&token.home, "failing").exists());
        },
    );
    let Some(log) = log else { return };
    for part in [
        "[WARN] - ",
        "\"short\"",
        "CKR_",
        "\"no mechanism\"",
        "CKR_MECHANISM_INVALID",
        "filesystem",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(
        log.contains("C_GenerateKey") && log.contains("CKR_DEVICE_ERROR"),
        "{log}"
    );
    assert!(!log.contains(&format!("={PIN}")), "{log}");
}

#[test]
fn kp_05_keys_that_are_older_than_the_token() {
    token(
        "tokens::kp_05_keys_that_are_older_than_the_token",
        |token| {
            let keys = Keys::with_home(&token.home);
            assert_eq!(keys.create("sym", 1), Rc::OK);
            assert_eq!(keys.create_pair("pair", None), Rc::OK);
            let before = (
                keys.sign("sym", b"m").unwrap(),
                keys.parameter("pair", POINT).unwrap(),
            );
            let now = || {
                (
                    keys.sign("sym", b"m").unwrap(),
                    keys.parameter("pair", POINT).unwrap(),
                )
            };
            assert_eq!(token.configure(&keys, &token.uri()), (Rc::OK, Rc::OK));
            assert_eq!((keys.load("sym"), keys.load_pair("pair")), (Rc::OK, Rc::OK));
            assert_eq!(
                (keys.create("sym", 1), keys.create_pair("pair", None)),
                (Rc::OK, Rc::OK)
            );
            assert_eq!(now(), before);
            assert_eq!((token.objects(), token.files()), (vec![], 2));
            // They can be moved too, within their store.
            assert_eq!(keys.move_pair("pair", "moved"), Rc::OK);
            assert_eq!(keys.parameter("moved", POINT).unwrap(), before.1);
            assert_eq!((keys.load_pair("pair"), token.files()), (INVALID, 2));
            assert_eq!((keys.delete("sym"), keys.load("sym")), (Rc::OK, INVALID));
            // A token that fails is an error, not a reason to look into files.
            token.script("C_FindObjectsInit 0x30 *\n");
            std::thread::sleep(std::time::Duration::from_millis(1100));
            assert_eq!(keys.load_pair("moved"), Rc::EXTERNAL);
            token.script("");
        },
    );
}

#[test]
fn kp_06_key_pairs_never_fall_back_to_files() {
    let log = token(
        "tokens::kp_06_key_pairs_never_fall_back_to_files",
        |token| {
            let keys = token.keys();
            token.script("C_GenerateKeyPair 0x70 *\n");
            assert_eq!(keys.create_pair("k", None), INVALID);
            token.script("C_GenerateKeyPair 0x70 1\n");
            assert_eq!(
                keys.create_pair("second choice", Some("ec-p256:rsa-2048")),
                Rc::OK
            );
            token.script("");
            assert_eq!(keys.parameter("second choice", MODULUS).unwrap().len(), 256);
            assert_eq!(keys.create_pair("k", Some("foo")), INVALID);
            assert_eq!(token.files(), 0);
            assert_eq!(
                token.objects(),
                ["Private Key second choice", "Public Key second choice"]
            );
        },
    );
    let Some(log) = log else { return };
    assert!(
        log.contains("C_GenerateKeyPair") && log.contains("CKR_MECHANISM_INVALID"),
        "{log}"
    );
}

#[test]
fn kp_07_move_within_the_token() {
    token("tokens::kp_07_move_within_the_token", |token| {
        let keys = token.keys();
        assert_eq!(keys.create_pair("from", Some("ec-p256")), Rc::OK);
        assert_eq!(keys.create_pair("to", Some("rsa-2048")), Rc::OK);
        let point = keys.parameter("from", POINT).unwrap();
        assert_eq!(keys.move_pair("from", "to"), Rc::OK);
        assert_eq!(keys.parameter("to", POINT).unwrap(), point);
        assert_eq!(keys.load_pair("from"), INVALID);
        assert_eq!(token.objects(), ["Private Key to", "Public Key to"]);
        let public = public_ec(&keys, "to");
        let signature = keys.ecdsa("to", &[3; 32]).unwrap();
        let signature = openssl::ecdsa::EcdsaSig::from_der(&signature).unwrap();
        assert!(signature.verify(&[3; 32], &public).unwrap());
        // To an id that nothing has.
        assert_eq!(keys.move_pair("to", "fresh"), Rc::OK);
        assert_eq!(keys.parameter("fresh", POINT).unwrap(), point);
        assert_eq!(token.objects(), ["Private Key fresh", "Public Key fresh"]);
    });
}

#[test]
fn kp_08_moves_that_must_destroy_nothing() {
    token("tokens::kp_08_moves_that_must_destroy_nothing", |token| {
        let keys = token.keys();
        assert_eq!(keys.create_pair("k", None), Rc::OK);
        let point = keys.parameter("k", POINT).unwrap();
        assert_eq!(keys.move_pair("k", "k"), Rc::OK);
        assert_eq!(keys.move_pair("missing", "k"), Rc::EXTERNAL);
        assert_eq!(keys.parameter("k", POINT).unwrap(), point);
        // To a file, from a file, and to another token.
        let file = format!("file://{}", token.dir.join("k.pem").display());
        assert_eq!(keys.preload("file", &file), Rc::OK);
        token.add("Other");
        let other = format!("pkcs11:token=Other;object=k?pin-value={PIN}");
        assert_eq!(keys.preload("other", &other), Rc::OK);
        assert_eq!(keys.preload("nameless", &token.uri()), Rc::OK);
        assert_eq!(keys.move_pair("k", "file"), INVALID);
        assert_eq!(keys.create_pair("file", None), Rc::OK);
        assert_eq!(keys.move_pair("file", "k"), INVALID);
        assert_eq!(keys.create_pair("other", None), Rc::OK);
        let elsewhere = keys.parameter("other", POINT).unwrap();
        assert_eq!(keys.move_pair("k", "other"), INVALID);
        assert_eq!(keys.move_pair("other", "k"), INVALID);
        assert_eq!(keys.move_pair("k", "nameless"), INVALID);
        assert_eq!(keys.move_pair("nameless", "k"), INVALID);
        assert_eq!(keys.parameter("k", POINT).unwrap(), point);
        assert_eq!(keys.parameter("other", POINT).unwrap(), elsewhere);
        assert_eq!(keys.load_pair("file"), Rc::OK);
        // A token that fails in the middle: one of the two keys may have either name, but both are there.
        assert_eq!(keys.create_pair("target", None), Rc::OK);
        let target = keys.parameter("target", POINT).unwrap();
        let mut failures = 0;
        let moved = (0..10).find(|at| {
            // That many calls go through, and the next one does not.
            let mut script =
                format!("C_SetAttributeValue sleep:0 {at}\nC_SetAttributeValue 0x30 1\n");
            if *at == 0 {
                script.drain(..=script.find('\n').unwrap());
            }
            token.script(&script);
            let moved = keys.move_pair("k", "target");
            token.script("");
            if moved == Rc::OK {
                return true;
            }
            failures += 1;
            assert_eq!(keys.parameter("k", POINT).unwrap(), point, "call {at}");
            assert_eq!(
                keys.parameter("target", POINT).unwrap(),
                target,
                "call {at}"
            );
            false
        });
        assert!(moved.is_some() && failures >= 2, "{failures}");
        assert_eq!(keys.parameter("target", POINT).unwrap(), point);
        assert_eq!(token.objects(), ["Private Key target", "Public Key target"]);
    });
}

/// The login is a process's, so the library without PIN is in a third one.
#[test]
fn kp_09_without_pin_nothing_is_destroyed() {
    let log = token("tokens::kp_09_without_pin_nothing_is_destroyed", |token| {
        let keys = token.keys();
        assert_eq!(keys.create_pair("k", None), Rc::OK);
        let point = keys.parameter("k", POINT).unwrap();
        let before = token.objects();
        for uri in [
            format!("pkcs11:token={LABEL}"),
            format!("pkcs11:token={LABEL}?pin-value=8765"),
        ] {
            for algorithms in ["*", "rsa-2048"] {
                let code = token.driver(&uri, &["pair", "k", algorithms]);
                assert!(code == Some(11) || code == Some(12), "{code:?}");
                assert_eq!(token.objects(), before);
            }
            assert_ne!(token.driver(&uri, &["move", "k", "l"]), Some(0));
            assert_eq!(token.objects(), before);
        }
        // Removing a pair only in part would be as bad.
        assert_ne!(
            token.driver(&format!("pkcs11:token={LABEL}"), &["delete-pair", "k"]),
            Some(0)
        );
        assert_eq!(token.objects(), before);
        assert_eq!(token.files(), 0);
        assert_eq!(keys.parameter("k", POINT).unwrap(), point);
        assert!(keys.ecdsa("k", &[1; 32]).is_ok());
        assert_eq!(token.driver(&token.uri(), &["load-pair", "k"]), Some(0));
    });
    let Some(log) = log else { return };
    assert!(log.contains("pin-value"), "{log}");
    assert!(log.contains("CKR_PIN_INCORRECT"), "{log}");
    assert!(!log.contains("8765"), "{log}");
}

#[test]
fn kp_10_a_location_without_object_cannot_be_deleted() {
    token(
        "tokens::kp_10_a_location_without_object_cannot_be_deleted",
        |token| {
            let keys = token.keys();
            assert_eq!(keys.create("sym", KEY_USAGE_SIGN), Rc::OK);
            assert_eq!(keys.create_pair("pair", None), Rc::OK);
            assert_eq!(keys.preload("any", &token.uri()), Rc::OK);
            // It stands for the first object of its class.
            assert_eq!((keys.load("any"), keys.load_pair("any")), (Rc::OK, Rc::OK));
            assert_eq!(keys.sign("any", b"m"), keys.sign("sym", b"m"));
            assert_eq!(keys.parameter("any", POINT), keys.parameter("pair", POINT));
            assert_eq!(
                (keys.delete("any"), keys.delete_pair("any")),
                (INVALID, INVALID)
            );
            assert_eq!(token.objects().len(), 3);

            // With an object it can be.
            assert_eq!(keys.preload("named", &token.object_uri("pair")), Rc::OK);
            assert_eq!(
                keys.parameter("named", POINT),
                keys.parameter("pair", POINT)
            );
            assert_eq!(keys.delete_pair("named"), Rc::OK);
            assert_eq!(
                (keys.load_pair("named"), keys.load_pair("pair")),
                (INVALID, INVALID)
            );
            assert_eq!(keys.delete_pair("named"), Rc::OK);
            assert_eq!(token.objects(), ["Secret Key sym"]);
            assert_eq!(keys.create_pair("named", None), Rc::OK);
            assert_eq!(keys.load_pair("pair"), Rc::OK);
        },
    );
}

#[test]
fn kp_11_module_sessions_and_login_are_reused() {
    token(
        "tokens::kp_11_module_sessions_and_login_are_reused",
        |token| {
            let keys = token.keys();
            assert_eq!(keys.create("sym", KEY_USAGE_SIGN), Rc::OK);
            assert_eq!(keys.create_pair("pair", None), Rc::OK);
            // Preloaded locations in the same token share all of it.
            assert_eq!(keys.preload("same", &token.object_uri("sym")), Rc::OK);
            for n in 0..50_u8 {
                assert!(keys.sign("sym", &[n]).is_ok());
                assert!(keys.sign("same", &[n]).is_ok());
                assert!(keys.ecdsa("pair", &[n; 32]).is_ok());
            }
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for n in 0..10_u8 {
                            assert!(keys.ecdsa("pair", &[n; 32]).is_ok());
                            assert!(keys.sign("sym", &[n]).is_ok());
                        }
                    });
                }
            });
            let calls = token.calls();
            assert_eq!(of(&calls, "C_Initialize").len(), 1);
            assert_eq!(of(&calls, "C_Login").len(), 1);
            assert_eq!(of(&calls, "C_Finalize").len(), 0);
            assert!(of(&calls, "C_OpenSession").len() <= 4);
            assert_eq!(of(&calls, "C_CloseSession").len(), 0);
        },
    );
}

#[test]
fn kp_11_a_wrong_pin_is_tried_once() {
    let log = token("tokens::kp_11_a_wrong_pin_is_tried_once", |token| {
        let keys = Keys::with_home(&token.home);
        let uri = format!("pkcs11:token={LABEL}?pin-value=8765");
        assert_eq!(token.configure(&keys, &uri), (Rc::OK, Rc::OK));
        for _ in 0..5 {
            assert_eq!(keys.create("sym", KEY_USAGE_SIGN), Rc::EXTERNAL);
            assert_eq!(keys.load("sym"), Rc::EXTERNAL);
            assert_ne!(keys.create_pair("pair", None), Rc::OK);
            assert_eq!(keys.load_pair("pair"), Rc::EXTERNAL);
        }
        let calls = token.calls();
        assert_eq!(of(&calls, "C_Login").len(), 1, "{calls:#?}");
        assert_eq!(of(&calls, "C_Initialize").len(), 1, "no reload for a PIN");
        assert_eq!(token.files(), 0);
    });
    let Some(log) = log else { return };
    assert!(
        log.contains("C_Login") && log.contains("CKR_PIN_INCORRECT"),
        "{log}"
    );
    assert!(log.contains(LABEL) || log.contains("Key%20pairs"), "{log}");
    assert!(log.contains("pin-value"), "{log}");
    assert!(!log.contains("8765"), "{log}");
}

#[test]
fn kf_08_preloaded_tokens_without_base_slot() {
    token(
        "tokens::kf_08_preloaded_tokens_without_base_slot",
        |token| {
            let (_dir, home) = scratch();
            let keys = Keys::with_home(&home);
            assert_eq!(keys.preload("k", &token.object_uri("k")), Rc::OK);
            assert_eq!(keys.create("k", KEY_USAGE_SIGN), INVALID);
            assert_eq!(
                keys.set("pkcs11_lib_path", token.module().to_str().unwrap()),
                Rc::OK
            );
            assert_eq!(keys.create("k", KEY_USAGE_SIGN), Rc::OK);
            assert_eq!(token.objects(), ["Secret Key k"]);
            // Dynamic ids stay in files.
            assert_eq!(keys.create("dynamic", 1), Rc::OK);
            assert!(file_of(&home, "dynamic").exists());
            let calls = token.calls();
            assert_eq!(of(&calls, "C_Initialize").len(), 1, "{calls:#?}");
            assert_eq!(of(&calls, "C_Finalize").len(), 0, "{calls:#?}");
        },
    );
}
