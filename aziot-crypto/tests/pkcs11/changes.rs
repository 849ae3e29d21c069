//! Making, importing, deleting and moving keys.

use aziot_crypto::key_pair::{Algorithm, Parameter, ParameterValue};
use aziot_crypto::pkcs11::{KeyPair, Token, USAGE_ENCRYPT, USAGE_SIGN};

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, ObjectClass};

use super::fixture::{Backend, alone, count, run, token};
use super::operations::assert_signed;

fn point(pair: &KeyPair) -> Vec<u8> {
    match pair.parameter(Parameter::EcPoint) {
        Ok(ParameterValue::Bytes(point)) => point.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn pair(token: &Token, label: &str) -> Option<KeyPair> {
    token.key_pair(Some(label)).unwrap()
}

/// The call of this function with everything that was in it.
fn call<'a>(calls: &'a [String], function: &str) -> &'a str {
    calls
        .iter()
        .find(|call| call.split(' ').next() == Some(function))
        .unwrap_or_else(|| panic!("no {function} in {calls:#?}"))
}

/// Gives an object a new label, as a process would that is killed afterwards.
fn relabel(class: ObjectClass, from: &str, to: &str) {
    let context = Pkcs11::new(std::env::var_os("P11SHIM_MODULE").unwrap()).unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    let template = [
        Attribute::Class(class),
        Attribute::Label(from.as_bytes().to_vec()),
    ];
    let object = session.find_objects(&template).unwrap()[0];
    let label = Attribute::Label(to.as_bytes().to_vec());
    session.update_attributes(object, &[label]).unwrap();
}

/// The labels of all objects, as another program sees them.
fn labels() -> Vec<String> {
    let listed = run(std::process::Command::new("pkcs11-tool")
        .arg("--module")
        .arg(std::env::var_os("P11SHIM_MODULE").unwrap())
        .args([
            "--token-label",
            "keys",
            "--login",
            "--pin",
            super::fixture::PIN,
            "--list-objects",
        ]));
    let mut labels: Vec<String> = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("label:"))
        .map(|label| label.trim().to_owned())
        .collect();
    labels.sort();
    labels
}

#[test]
fn kp_02_templates_are_those_of_the_contract() {
    alone(
        "changes::kp_02_templates_are_those_of_the_contract",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for (act, expected) in [
                (
                    (&|token: &Token| drop(token.generate_secret(Some("h"), USAGE_SIGN).unwrap()))
                        as &dyn Fn(&Token),
                    "C_GenerateKey mechanism=0x350 template=CKA_PRIVATE=1,CKA_SENSITIVE=1,CKA_TOKEN=1,CKA_VERIFY=1,CKA_LABEL=\"h\",CKA_SIGN=1,CKA_VALUE_LEN=32,CKA_KEY_TYPE=16,CKA_EXTRACTABLE=0 -> 0x0",
                ),
                (
                    &|token| drop(token.generate_secret(Some("a"), USAGE_ENCRYPT).unwrap()),
                    "C_GenerateKey mechanism=0x1080 template=CKA_PRIVATE=1,CKA_SENSITIVE=1,CKA_TOKEN=1,CKA_VERIFY=1,CKA_LABEL=\"a\",CKA_DECRYPT=1,CKA_ENCRYPT=1,CKA_KEY_TYPE=31,CKA_VALUE_LEN=32,CKA_EXTRACTABLE=0 -> 0x0",
                ),
                (
                    &|token| {
                        drop(
                            token
                                .import_secret(Some("ih"), &[5; 40], USAGE_SIGN)
                                .unwrap(),
                        );
                    },
                    "C_CreateObject template=CKA_CLASS=4,CKA_PRIVATE=1,CKA_SENSITIVE=1,CKA_TOKEN=1,CKA_VALUE=<40 bytes>,CKA_LABEL=\"ih\",CKA_SIGN=1,CKA_VERIFY=1,CKA_KEY_TYPE=16,CKA_EXTRACTABLE=0 -> 0x0",
                ),
                (
                    &|token| {
                        drop(
                            token
                                .import_secret(Some("ia"), &[1; 16], USAGE_ENCRYPT)
                                .unwrap(),
                        );
                    },
                    "C_CreateObject template=CKA_CLASS=4,CKA_PRIVATE=1,CKA_SENSITIVE=1,CKA_TOKEN=1,CKA_VALUE=<16 bytes>,CKA_LABEL=\"ia\",CKA_DECRYPT=1,CKA_ENCRYPT=1,CKA_KEY_TYPE=31,CKA_EXTRACTABLE=0 -> 0x0",
                ),
            ] {
                fixture.calls();
                act(&token);
                let calls = fixture.calls();
                let function = expected.split(' ').next().unwrap();
                assert_eq!(call(&calls, function), expected);
            }
            for (algorithm, mechanism, parameters) in [
                (
                    Algorithm::EcP256,
                    "0x1040",
                    "CKA_EC_PARAMS=06082a8648ce3d030107",
                ),
                (Algorithm::EcP384, "0x1040", "CKA_EC_PARAMS=06052b81040022"),
                (
                    Algorithm::Rsa2048,
                    "0x0",
                    "CKA_MODULUS_BITS=2048,CKA_PUBLIC_EXPONENT=010001",
                ),
            ] {
                let label = algorithm.name();
                token.generate_key_pair(Some(label), algorithm).unwrap();
                let calls = fixture.calls();
                let found = call(&calls, "C_GenerateKeyPair");
                let public = format!(
                    "C_GenerateKeyPair mechanism={mechanism} public={parameters},CKA_ENCRYPT=1,CKA_PRIVATE=0,CKA_TOKEN=1,CKA_VERIFY=1,CKA_LABEL=\"{label}\",CKA_ID="
                );
                let private = format!(
                    " private=CKA_DECRYPT=1,CKA_PRIVATE=1,CKA_SENSITIVE=1,CKA_SIGN=1,CKA_TOKEN=1,CKA_LABEL=\"{label}\",CKA_EXTRACTABLE=0,CKA_ID="
                );
                assert!(found.starts_with(&public), "{found}");
                assert!(found.contains(&private), "{found}");
                let ids: Vec<&str> = found
                    .split("CKA_ID=")
                    .skip(1)
                    .map(|rest| &rest[..32])
                    .collect();
                assert_eq!(ids.len(), 2);
                assert_eq!(ids[0], ids[1]);
            }
            let key = token.secret_key(Some("a")).unwrap().unwrap();
            fixture.calls();
            key.encrypt(&[1; 12], b"four", b"x").unwrap();
            let calls = fixture.calls();
            assert!(
                call(&calls, "C_EncryptInit")
                    .contains("mechanism=0x1087 iv_len=12 iv_bits=96 aad_len=4 tag_bits=128"),
                "{calls:#?}"
            );
        },
    );
}

/// Without a label there is no such attribute, and the first object of the class is the key.
#[test]
fn kp_02_without_a_label() {
    alone(
        "changes::kp_02_without_a_label",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            assert!(token.key_pair(None).unwrap().is_none());
            assert!(token.secret_key(None).unwrap().is_none());
            let made = token.generate_key_pair(None, Algorithm::EcP256).unwrap();
            token.generate_secret(None, USAGE_SIGN).unwrap();
            let calls = fixture.calls();
            assert!(!call(&calls, "C_GenerateKeyPair").contains("CKA_LABEL"));
            assert!(!call(&calls, "C_GenerateKey").contains("CKA_LABEL"));
            let found = token.key_pair(None).unwrap().unwrap();
            assert_eq!(point(&made), point(&found));
            assert_signed(&found, &[1; 32], &made.sign_ecdsa(&[1; 32]).unwrap());
            assert!(token.secret_key(None).unwrap().is_some());
        },
    );
}

#[test]
fn kp_02_tokens_that_take_no_more_than_release_1_6_0_sets() {
    alone(
        "changes::kp_02_tokens_that_take_no_more_than_release_1_6_0_sets",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            // CKR_ATTRIBUTE_TYPE_INVALID for the first template.
            fixture.control("C_GenerateKeyPair 0x12 1");
            let made = token
                .generate_key_pair(Some("a"), Algorithm::EcP256)
                .unwrap();
            assert_signed(&made, &[1; 32], &made.sign_ecdsa(&[1; 32]).unwrap());
            token
                .generate_key_pair(Some("b"), Algorithm::EcP256)
                .unwrap();
            let calls = fixture.calls();
            let templates: Vec<&String> = calls
                .iter()
                .filter(|call| call.starts_with("C_GenerateKeyPair "))
                .collect();
            assert_eq!(templates.len(), 3, "the refusal is remembered");
            assert!(templates[0].contains("CKA_ID"));
            for plain in &templates[1..] {
                assert!(
                    !plain.contains("CKA_ID") && !plain.contains("CKA_EXTRACTABLE"),
                    "{plain}"
                );
            }
            // Without ids, a move works as well; it sets them.
            token.rename_key_pair("a", "c").unwrap();
            assert_eq!(point(&pair(&token, "c").unwrap()), point(&made));
        },
    );
}

#[test]
fn kp_04_usages_and_lengths_that_are_refused() {
    alone(
        "changes::kp_04_usages_and_lengths_that_are_refused",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for usage in [0, 2, 3, 0x11, 0x1234] {
                let err = token.generate_secret(Some("k"), usage).unwrap_err();
                assert!(err.is_invalid_parameter() && !err.is_unsupported(), "{err}");
                let err = token.import_secret(Some("k"), &[1; 32], usage).unwrap_err();
                assert!(
                    err.is_invalid_parameter() && !err.is_refused_import(),
                    "{err}"
                );
            }
            let err = token.import_secret(Some("k"), b"", USAGE_SIGN).unwrap_err();
            assert!(err.is_invalid_parameter(), "{err}");
            token
                .import_secret(Some("k"), &[1; 32], USAGE_ENCRYPT)
                .unwrap();
            let old = token
                .secret_key(Some("k"))
                .unwrap()
                .unwrap()
                .encrypt(&[1; 12], b"", b"x")
                .unwrap();
            let err = token
                .import_secret(Some("k"), &[1; 20], USAGE_ENCRYPT)
                .unwrap_err();
            assert!(err.is_refused_import(), "{err}");
            // The older key has survived it.
            let key = token.secret_key(Some("k")).unwrap().unwrap();
            assert_eq!(key.decrypt(&[1; 12], b"", &old).unwrap().as_slice(), b"x");
            assert_eq!(labels(), ["k"]);
        },
    );
}

#[test]
fn kp_04_what_a_token_lacks_can_be_made_elsewhere() {
    alone(
        "changes::kp_04_what_a_token_lacks_can_be_made_elsewhere",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for value in ["0x54", "0x70"] {
                fixture.control(&format!("C_GenerateKey {value} *"));
                for usage in [USAGE_SIGN, USAGE_ENCRYPT] {
                    let err = token.generate_secret(Some("k"), usage).unwrap_err();
                    assert!(err.is_unsupported(), "{err}");
                }
            }
            // CKR_TOKEN_WRITE_PROTECTED is no reason to go elsewhere.
            fixture.control("C_GenerateKey 0xe2 *");
            let err = token.generate_secret(Some("k"), USAGE_SIGN).unwrap_err();
            assert!(!err.is_unsupported(), "{err}");
            // Of a key for AES that is refused once, the shorter one is tried.
            fixture.calls();
            fixture.control("C_GenerateKey 0x62 1");
            token.generate_secret(Some("short"), USAGE_ENCRYPT).unwrap();
            let calls = fixture.calls();
            assert_eq!(count(&calls, "C_GenerateKey"), 2);
            assert!(
                calls
                    .iter()
                    .any(|call| call.contains("CKA_VALUE_LEN=16") && call.ends_with("0x0"))
            );
            // A key that cannot be used is not left behind.
            fixture.control("C_EncryptInit 0x70 *");
            let err = token.generate_secret(Some("k"), USAGE_ENCRYPT).unwrap_err();
            assert!(
                err.is_unsupported() && err.to_string().contains("C_EncryptInit"),
                "{err}"
            );
            let err = token
                .import_secret(Some("k"), &[1; 32], USAGE_ENCRYPT)
                .unwrap_err();
            assert!(err.is_refused_import(), "{err}");
            fixture.control("");
            assert!(token.secret_key(Some("k")).unwrap().is_none());
        },
    );
}

#[test]
fn an_import_replaces_the_key_and_leaves_nothing() {
    alone(
        "changes::an_import_replaces_the_key_and_leaves_nothing",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let first = token
                .import_secret(Some("k"), &[1; 32], USAGE_SIGN)
                .unwrap();
            let before = first.mac(b"m").unwrap();
            let second = token
                .import_secret(Some("k"), &[2; 33], USAGE_SIGN)
                .unwrap();
            let after = second.mac(b"m").unwrap();
            assert_ne!(before.as_bytes(), after.as_bytes());
            assert_eq!(first.mac(b"m").unwrap().as_bytes(), after.as_bytes());
            assert_eq!(labels(), ["k"]);
            // Whatever step of a replacement fails, one of the two keys is there, and nothing else.
            for step in [
                "C_CreateObject 0x21 *",
                "C_SetAttributeValue 0x21 *",
                "C_DestroyObject 0x21 1",
            ] {
                fixture.control(step);
                token
                    .import_secret(Some("k"), &[3; 64], USAGE_SIGN)
                    .unwrap_err();
                fixture.control("");
                assert_eq!(labels(), ["k"], "{step}");
                let key = token.secret_key(Some("k")).unwrap().unwrap();
                assert_eq!(
                    key.mac(b"m").unwrap().as_bytes(),
                    after.as_bytes(),
                    "{step}"
                );
            }
            assert!(token.delete_secret("k").unwrap());
            assert!(!token.delete_secret("k").unwrap());
            assert!(second.mac(b"m").unwrap_err().is_invalid_parameter());
            assert!(labels().is_empty());
        },
    );
}

#[test]
fn symmetric_keys_and_pairs_do_not_collide() {
    alone(
        "changes::symmetric_keys_and_pairs_do_not_collide",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let made = token
                .generate_key_pair(Some("x"), Algorithm::EcP256)
                .unwrap();
            let key = token.generate_secret(Some("x"), USAGE_SIGN).unwrap();
            let tag = key.mac(b"m").unwrap();
            assert!(token.delete_key_pair("x").unwrap());
            assert!(
                made.sign_ecdsa(&[1; 32])
                    .unwrap_err()
                    .is_invalid_parameter()
            );
            assert!(key.verify(b"m", tag.as_bytes()).unwrap());
            assert!(!token.delete_key_pair("x").unwrap());
        },
    );
}

#[test]
fn kf_10_a_pair_that_exists_stays() {
    alone(
        "changes::kf_10_a_pair_that_exists_stays",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let made = token
                .generate_key_pair(Some("x"), Algorithm::EcP256)
                .unwrap();
            let again = token
                .generate_key_pair(Some("x"), Algorithm::Rsa2048)
                .unwrap();
            assert_eq!(point(&made), point(&again));
            // Many at once make one.
            let points: Vec<Vec<u8>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..6)
                    .map(|_| {
                        scope.spawn(|| {
                            point(
                                &token
                                    .generate_key_pair(Some("y"), Algorithm::EcP256)
                                    .unwrap(),
                            )
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert!(points.iter().all(|found| *found == points[0]));
            assert_eq!(labels(), ["x", "x", "y", "y"]);
        },
    );
}

#[test]
fn kp_07_a_move_keeps_the_key_and_replaces_the_target() {
    alone(
        "changes::kp_07_a_move_keeps_the_key_and_replaces_the_target",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let from = token
                .generate_key_pair(Some("from"), Algorithm::EcP256)
                .unwrap();
            token
                .generate_key_pair(Some("to"), Algorithm::EcP256)
                .unwrap();
            token.rename_key_pair("from", "to").unwrap();
            let moved = pair(&token, "to").unwrap();
            assert_eq!(point(&moved), point(&from));
            assert_signed(&moved, &[1; 32], &moved.sign_ecdsa(&[1; 32]).unwrap());
            assert!(pair(&token, "from").is_none());
            assert_eq!(labels(), ["to", "to"]);
            token.rename_key_pair("to", "elsewhere").unwrap();
            assert_eq!(point(&pair(&token, "elsewhere").unwrap()), point(&from));
            assert_eq!(labels(), ["elsewhere", "elsewhere"]);
        },
    );
}

#[test]
fn kp_08_a_move_that_cannot_be_done_destroys_nothing() {
    alone(
        "changes::kp_08_a_move_that_cannot_be_done_destroys_nothing",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let made = token
                .generate_key_pair(Some("a"), Algorithm::EcP256)
                .unwrap();
            token.rename_key_pair("a", "a").unwrap();
            assert_eq!(point(&pair(&token, "a").unwrap()), point(&made));
            for (from, to) in [("missing", "a"), ("missing", "missing"), ("missing", "new")] {
                let err = token.rename_key_pair(from, to).unwrap_err();
                assert!(!err.is_invalid_parameter(), "{err}");
                assert_eq!(point(&pair(&token, "a").unwrap()), point(&made));
            }
            for label in ["aziot-temporary:x", "aziot-replaced:x"] {
                assert!(
                    token
                        .rename_key_pair("a", label)
                        .unwrap_err()
                        .is_invalid_parameter()
                );
                assert!(
                    token
                        .generate_secret(Some(label), USAGE_SIGN)
                        .unwrap_err()
                        .is_invalid_parameter()
                );
            }
            assert_eq!(labels(), ["a", "a"]);
        },
    );
}

/// Every step of a move fails once, with the way back open, and with the way back closed as well (as if the process had
/// been killed): no key is ever lost.
#[test]
fn kp_08_an_interrupted_move_loses_nothing() {
    alone(
        "changes::kp_08_an_interrupted_move_loses_nothing",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let a = point(
                &token
                    .generate_key_pair(Some("a"), Algorithm::EcP256)
                    .unwrap(),
            );
            let b = point(
                &token
                    .generate_key_pair(Some("b"), Algorithm::EcP256)
                    .unwrap(),
            );
            for back in ["0x0 4 after", "0x21 *"] {
                for step in 0..4 {
                    let mut script = String::new();
                    if step > 0 {
                        script = format!("C_SetAttributeValue 0x0 {step} after\n");
                    }
                    fixture.control(&format!(
                        "{script}C_SetAttributeValue 0x21 1\nC_SetAttributeValue {back}"
                    ));
                    token.rename_key_pair("a", "b").unwrap_err();
                    fixture.control("");
                    // The next change puts things in order, or completes them.
                    token.delete_secret("unrelated").unwrap();
                    let (now_a, now_b) = (pair(&token, "a"), pair(&token, "b").unwrap());
                    assert_signed(&now_b, &[1; 32], &now_b.sign_ecdsa(&[1; 32]).unwrap());
                    match now_a {
                        Some(now_a) => {
                            assert_eq!(
                                (point(&now_a), point(&now_b)),
                                (a.clone(), b.clone()),
                                "{step} {back}"
                            );
                            assert_eq!(labels(), ["a", "a", "b", "b"], "{step} {back}");
                        }
                        None => {
                            // Half of the new pair had its label already: the move is complete.
                            assert_eq!(point(&now_b), a, "{step} {back}");
                            return;
                        }
                    }
                }
            }
            panic!("the last case completes the move");
        },
    );
}

#[test]
fn kp_09_without_a_pin_nothing_is_destroyed() {
    alone(
        "changes::kp_09_without_a_pin_nothing_is_destroyed",
        &Backend::SoftHsm,
        |fixture| {
            let with_pin = fixture.token();
            let made = with_pin
                .generate_key_pair(Some("x"), Algorithm::EcP256)
                .unwrap();
            let before = point(&made);
            drop((with_pin, made));
            let module = fixture.module();
            let without = token(&module, "pkcs11:token=keys");
            for err in [
                without
                    .generate_key_pair(Some("x"), Algorithm::EcP256)
                    .unwrap_err(),
                without.key_pair(Some("x")).unwrap_err(),
                without.delete_key_pair("x").unwrap_err(),
                without.rename_key_pair("x", "y").unwrap_err(),
                without
                    .generate_key_pair(Some("new"), Algorithm::EcP256)
                    .unwrap_err(),
                without
                    .generate_secret(Some("new"), USAGE_SIGN)
                    .unwrap_err(),
                without
                    .import_secret(Some("new"), b"k", USAGE_SIGN)
                    .unwrap_err(),
            ] {
                let text = err.to_string();
                assert!(
                    text.contains("pin-value") && text.contains("pin-source"),
                    "{text}"
                );
            }
            assert!(without.secret_key(Some("x")).unwrap().is_none());
            drop((without, module));
            let again = fixture.known_token();
            assert_eq!(point(&pair(&again, "x").unwrap()), before);
        },
    );
}

/// What release 1.6.0, or a crash, left of a pair does not keep it from being made.
#[test]
fn half_a_pair_is_replaced() {
    alone(
        "changes::half_a_pair_is_replaced",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for half in ["pubkey", "privkey"] {
                let made = token
                    .generate_key_pair(Some(half), Algorithm::EcP256)
                    .unwrap();
                run(std::process::Command::new("pkcs11-tool")
                    .arg("--module")
                    .arg(std::env::var_os("P11SHIM_MODULE").unwrap())
                    .args([
                        "--token-label",
                        "keys",
                        "--login",
                        "--pin",
                        super::fixture::PIN,
                    ])
                    .args(["--delete-object", "--type", half, "--label", half]));
                // Longer than handles are believed.
                std::thread::sleep(std::time::Duration::from_millis(1100));
                assert!(pair(&token, half).is_none(), "{half}");
                let new = token
                    .generate_key_pair(Some(half), Algorithm::EcP256)
                    .unwrap();
                assert_ne!(point(&made), point(&new));
                assert_signed(&new, &[1; 32], &new.sign_ecdsa(&[1; 32]).unwrap());
            }
            assert_eq!(labels(), ["privkey", "privkey", "pubkey", "pubkey"]);
        },
    );
}

#[test]
fn what_a_crashed_process_left_is_swept() {
    alone(
        "changes::what_a_crashed_process_left_is_swept",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            token
                .generate_key_pair(Some("kept"), Algorithm::EcP256)
                .unwrap();
            let lost = point(
                &token
                    .generate_key_pair(Some("lost"), Algorithm::EcP256)
                    .unwrap(),
            );
            // What a process leaves that is killed when the target has been put aside, or an import has been stored.
            for class in [ObjectClass::PUBLIC_KEY, ObjectClass::PRIVATE_KEY] {
                relabel(class, "lost", "aziot-replaced:lost");
            }
            token
                .import_secret(Some("aziot-temporar"), &[1; 32], USAGE_SIGN)
                .unwrap();
            relabel(
                ObjectClass::SECRET_KEY,
                "aziot-temporar",
                "aziot-temporary:k",
            );
            drop(token);
            let token = fixture.known_token();
            let found = pair(&token, "lost").unwrap();
            assert_eq!(point(&found), lost);
            token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            assert_eq!(labels(), ["k", "kept", "kept", "lost", "lost"]);
        },
    );
}

/// A process is killed when a move has given the public half its new label: nothing that happens to the old label later
/// touches the private half.
#[test]
fn kp_08_half_a_move_survives_changes_of_the_old_label() {
    alone(
        "changes::kp_08_half_a_move_survives_changes_of_the_old_label",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for with_target in [false, true] {
                for sweeps in [false, true] {
                    let made = token
                        .generate_key_pair(Some("a"), Algorithm::EcP256)
                        .unwrap();
                    let mut relabelled = 1;
                    if with_target {
                        token
                            .generate_key_pair(Some("b"), Algorithm::EcP256)
                            .unwrap();
                        relabelled = 3;
                    }
                    fixture.control(&format!(
                        "C_SetAttributeValue 0x0 {relabelled} after\nC_SetAttributeValue 0x21 *"
                    ));
                    token.rename_key_pair("a", "b").unwrap_err();
                    // What is unfinished may not be finished at once either.
                    fixture.control(if sweeps {
                        ""
                    } else {
                        "C_SetAttributeValue 0x21 *"
                    });
                    let moved = || {
                        let moved = pair(&token, "b").unwrap();
                        assert_eq!(point(&moved), point(&made));
                        assert_signed(&moved, &[1; 32], &moved.sign_ecdsa(&[1; 32]).unwrap());
                    };
                    moved();
                    token.delete_key_pair("a").unwrap();
                    moved();
                    let new = token
                        .generate_key_pair(Some("a"), Algorithm::EcP256)
                        .unwrap();
                    assert_ne!(point(&new), point(&made));
                    assert_signed(&new, &[1; 32], &new.sign_ecdsa(&[1; 32]).unwrap());
                    moved();
                    token.delete_key_pair("a").unwrap();
                    moved();
                    fixture.control("");
                    token.delete_key_pair("b").unwrap();
                    assert_eq!(labels(), [""; 0], "{with_target} {sweeps}");
                }
            }
        },
    );
}

/// Every step of a move is done, and its answer lost: both pairs are what they were.
#[test]
fn kp_08_a_move_whose_answers_are_lost_mixes_no_keys() {
    alone(
        "changes::kp_08_a_move_whose_answers_are_lost_mixes_no_keys",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let [a, b] = ["a", "b"].map(|label| {
                let made = token.generate_key_pair(Some(label), Algorithm::EcP256);
                point(&made.unwrap())
            });
            for step in 0..4 {
                let mut script = String::new();
                if step > 0 {
                    script = format!("C_SetAttributeValue 0x0 {step} after\n");
                }
                fixture.control(&format!("{script}C_SetAttributeValue 0x50 1 after"));
                token.rename_key_pair("a", "b").unwrap_err();
                assert_eq!(fixture.rest_of_control(), "");
                for (label, expected) in [("a", &a), ("b", &b)] {
                    let found = pair(&token, label).unwrap();
                    assert_eq!(&point(&found), expected, "{step} {label}");
                    assert_signed(&found, &[1; 32], &found.sign_ecdsa(&[1; 32]).unwrap());
                }
                assert_eq!(labels(), ["a", "a", "b", "b"], "{step}");
            }
        },
    );
}

/// The token removes the key that an import replaces, and its answer is lost.
#[test]
fn an_import_whose_last_answer_is_lost_leaves_a_key() {
    alone(
        "changes::an_import_whose_last_answer_is_lost_leaves_a_key",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let import = |byte| token.import_secret(Some("k"), &[byte; 32], USAGE_SIGN);
            let tag = || {
                let key = token.secret_key(Some("k")).unwrap().unwrap();
                *key.mac(b"message").unwrap().as_bytes()
            };
            import(1).unwrap();
            fixture.control("C_DestroyObject 0x50 1 after");
            import(2).unwrap();
            let second = tag();
            import(3).unwrap();
            assert_ne!(tag(), second);
            import(2).unwrap();
            assert_eq!(tag(), second);
            assert_eq!(labels(), ["k"]);

            // It removes nothing at all.
            fixture.control("C_DestroyObject 0x50 *");
            import(3).unwrap_err();
            assert_eq!(tag(), second);
            fixture.control("");
            // The next import and the next deletion leave nothing of that.
            import(4).unwrap();
            let fourth = tag();
            assert_eq!(labels(), ["k"]);
            token.delete_secret("k").unwrap();
            import(4).unwrap();
            assert_eq!(tag(), fourth);

            fixture.control("C_DestroyObject 0x50 *");
            import(3).unwrap_err();
            fixture.control("");
            token.delete_secret("k").unwrap();
            assert!(token.secret_key(Some("k")).unwrap().is_none());
            assert_eq!(labels(), [""; 0]);
        },
    );
}

/// A lookup that began before a move must not be remembered after it.
#[test]
fn what_was_looked_up_before_a_change_is_not_remembered_after_it() {
    alone(
        "changes::what_was_looked_up_before_a_change_is_not_remembered_after_it",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            token
                .generate_key_pair(Some("a"), Algorithm::EcP256)
                .unwrap();
            let key = pair(&token, "a").unwrap();
            // Longer than handles are believed.
            std::thread::sleep(std::time::Duration::from_millis(1100));
            // The lookup has found both objects, and reads the public one's type, when the move begins.
            fixture.control("C_GetAttributeValue 0x0 4 after\nC_GetAttributeValue sleep:3000 1");
            std::thread::scope(|scope| {
                let slow = scope.spawn(|| key.sign_ecdsa(&[1; 32]));
                while fixture.rest_of_control().contains("sleep") {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                token.rename_key_pair("a", "b").unwrap();
                assert!(!slow.is_finished());
                // It was there when it was looked for.
                slow.join().unwrap().unwrap();
            });
            assert!(key.sign_ecdsa(&[1; 32]).is_err());
            assert!(pair(&token, "a").is_none());
        },
    );
}
