//! Sessions, tokens and modules that are lost and found.

use std::fs;
use std::time::Duration;

use aziot_crypto::key_pair::Algorithm;
use aziot_crypto::pkcs11::{Condition, Module, USAGE_ENCRYPT, USAGE_SIGN};

use super::fixture::{Backend, alone, count, token};
use super::operations::assert_signed;

/// Return values that cost a session, a login or a handle.
const LOST: [(&str, &str); 9] = [
    ("0xb3", "CKR_SESSION_HANDLE_INVALID"),
    ("0xb0", "CKR_SESSION_CLOSED"),
    ("0x32", "CKR_DEVICE_REMOVED"),
    ("0xe0", "CKR_TOKEN_NOT_PRESENT"),
    ("0xe1", "CKR_TOKEN_NOT_RECOGNIZED"),
    ("0x60", "CKR_KEY_HANDLE_INVALID"),
    ("0x82", "CKR_OBJECT_HANDLE_INVALID"),
    ("0x101", "CKR_USER_NOT_LOGGED_IN"),
    ("0x90", "CKR_OPERATION_ACTIVE"),
];

#[test]
fn what_is_lost_is_found_again_once() {
    alone(
        "recovery::what_is_lost_is_found_again_once",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            let pair = token
                .generate_key_pair(Some("p"), Algorithm::EcP256)
                .unwrap();
            for (value, name) in LOST {
                for function in ["C_SignInit", "C_Sign"] {
                    fixture.calls();
                    fixture.control(&format!("{function} {value} 1"));
                    let signature = pair.sign_ecdsa(&[1; 32]).unwrap();
                    assert_signed(&pair, &[1; 32], &signature);
                    assert_eq!(fixture.rest_of_control(), "", "{name} was not met");
                    assert_eq!(
                        fixture.count("C_Initialize"),
                        0,
                        "{name} needs no new module"
                    );
                }
            }
            // Not for ever.
            fixture.control("C_SignInit 0xb3 *");
            let err = key.mac(b"m").unwrap_err();
            assert!(
                err.to_string()
                    .contains("C_SignInit returned CKR_SESSION_HANDLE_INVALID"),
                "{err}"
            );
            assert_eq!(fixture.count("C_SignInit"), 2);
            assert!(matches!(token.state().condition, Condition::Failing(_)));
            fixture.control("");
            key.mac(b"m").unwrap();
            assert_eq!(token.state().condition, Condition::Working);
        },
    );
}

#[test]
fn a_broken_module_is_loaded_again_but_not_all_the_time() {
    alone(
        "recovery::a_broken_module_is_loaded_again_but_not_all_the_time",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            let expected = key.mac(b"m").unwrap();
            for value in ["0x5", "0x6", "0x30", "0x31", "0x2", "0x190", "0x80000001"] {
                fixture.calls();
                fixture.control(&format!("C_Sign {value} 1"));
                assert_eq!(key.mac(b"m").unwrap().as_bytes(), expected.as_bytes());
                let calls = fixture.calls();
                for function in ["C_Finalize", "C_GetFunctionList", "C_Initialize", "C_Login"] {
                    assert_eq!(count(&calls, function), 1, "{function} after {value}");
                }
                assert_eq!(
                    count(&calls, "C_CloseSession"),
                    1,
                    "only the one that failed"
                );
                std::thread::sleep(Duration::from_millis(350));
            }
            // A module that stays broken is not loaded for every request.
            fixture.control("C_Sign 0x30 *");
            for _ in 0..20 {
                let text = key.mac(b"m").unwrap_err().to_string();
                assert!(text.contains("C_Sign returned CKR_DEVICE_ERROR"), "{text}");
            }
            assert!(fixture.count("C_Initialize") <= 2);
            assert!(token.state().next_attempt.is_some());
            fixture.control("");
            assert_eq!(key.mac(b"m").unwrap().as_bytes(), expected.as_bytes());
        },
    );
}

/// With the times of the service, the second failure within 30 s is only reported.
#[test]
fn thirty_seconds_lie_between_two_loads() {
    alone(
        "recovery::thirty_seconds_lie_between_two_loads",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token("keys");
            let module = Module::new(&fixture.shim());
            let token = token(&module, "pkcs11:token=keys?pin-value=1234");
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            fixture.control("C_Sign 0x30 1");
            key.mac(b"m").unwrap();
            fixture.control("C_Sign 0x30 1");
            key.mac(b"m").unwrap_err();
            assert_eq!(fixture.count("C_Initialize"), 2);
            let wait = token
                .state()
                .next_attempt
                .unwrap()
                .duration_since(std::time::SystemTime::now());
            assert!((20..=30).contains(&wait.unwrap().as_secs()));
            // That did not keep it from working.
            key.mac(b"m").unwrap();
        },
    );
}

#[test]
fn operations_of_other_threads_end_before_the_module_goes() {
    alone(
        "recovery::operations_of_other_threads_end_before_the_module_goes",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            let aes = token.generate_secret(Some("a"), USAGE_ENCRYPT).unwrap();
            let pair = token
                .generate_key_pair(Some("p"), Algorithm::EcP256)
                .unwrap();
            let expected = key.mac(b"m").unwrap();
            fixture.control("C_SignInit 0x30 1\nC_Sign sleep:20 60");
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        for round in 0..20_u8 {
                            assert_eq!(key.mac(b"m").unwrap().as_bytes(), expected.as_bytes());
                            let digest = [round; 32];
                            assert_signed(&pair, &digest, &pair.sign_ecdsa(&digest).unwrap());
                            let whole = aes.encrypt(&[1; 12], b"", &digest).unwrap();
                            assert_eq!(
                                aes.decrypt(&[1; 12], b"", &whole).unwrap().as_slice(),
                                digest
                            );
                        }
                    });
                }
            });
            let calls = fixture.calls();
            // A call between C_Finalize and C_Initialize would have been one into a module that is gone.
            let mut loaded = false;
            for call in &calls {
                match call.split(' ').next().unwrap() {
                    "C_GetFunctionList" => {}
                    "C_Initialize" => loaded = true,
                    "C_Finalize" => loaded = false,
                    _ => assert!(loaded, "{call}"),
                }
            }
            assert!(count(&calls, "C_Initialize") >= 2);
        },
    );
}

#[test]
fn a_failed_generation_is_repeated_and_leaves_one_key() {
    alone(
        "recovery::a_failed_generation_is_repeated_and_leaves_one_key",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for (at, script) in [
                "C_GenerateKeyPair 0xb3 1",
                // It was made, and nobody heard of it.
                "C_GenerateKeyPair 0xb3 1 after",
                "C_GenerateKeyPair 0x30 2 after",
            ]
            .into_iter()
            .enumerate()
            {
                let label = format!("p{at}");
                fixture.control(script);
                let pair = token
                    .generate_key_pair(Some(&label), Algorithm::EcP256)
                    .unwrap();
                assert_signed(&pair, &[1; 32], &pair.sign_ecdsa(&[1; 32]).unwrap());
                assert!(token.delete_key_pair(&label).unwrap());
                assert!(
                    !token.delete_key_pair(&label).unwrap(),
                    "{script} left a second one"
                );
                std::thread::sleep(Duration::from_millis(350));
            }
            fixture.control("C_GenerateKey 0xb3 1 after");
            token.generate_secret(Some("s"), USAGE_ENCRYPT).unwrap();
            assert!(token.delete_secret("s").unwrap());
            assert!(!token.delete_secret("s").unwrap());
            fixture.control("C_CreateObject 0xb3 1 after");
            token
                .import_secret(Some("i"), &[1; 32], USAGE_SIGN)
                .unwrap();
            assert!(token.delete_secret("i").unwrap());
            assert!(!token.delete_secret("i").unwrap());
        },
    );
}

/// SoftHSM looks for tokens only while it is initialised, and keeps what it has read of one that is gone.
#[test]
fn a_token_that_is_removed_and_put_back_works_again() {
    alone(
        "recovery::a_token_that_is_removed_and_put_back_works_again",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let pair = token
                .generate_key_pair(Some("p"), Algorithm::EcP256)
                .unwrap();
            let (tokens, away) = (
                fixture.directory.join("tokens"),
                fixture.directory.join("away"),
            );
            fs::rename(&tokens, &away).unwrap();
            fs::create_dir(&tokens).unwrap();
            // Longer than handles are believed.
            std::thread::sleep(Duration::from_millis(1100));
            for _ in 0..3 {
                let gone = token.key_pair(Some("p"));
                let text = gone.unwrap_err().to_string();
                assert!(text.contains("could not find a slot"), "{text}");
                std::thread::sleep(Duration::from_millis(350));
            }
            fs::remove_dir(&tokens).unwrap();
            fs::rename(&away, &tokens).unwrap();
            let back = token.key_pair(Some("p"));
            let back = back.unwrap().unwrap();
            assert_signed(&back, &[1; 32], &pair.sign_ecdsa(&[1; 32]).unwrap());
        },
    );
}

#[test]
fn a_token_with_few_sessions_is_shared() {
    alone(
        "recovery::a_token_with_few_sessions_is_shared",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            // CKR_SESSION_COUNT from the second session on.
            fixture.control("C_OpenSession 0xb1 *\nC_Sign sleep:20 8");
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| drop(key.mac(b"m").unwrap()));
                }
            });
            assert_eq!(token.state().sessions, 1);
        },
    );
}

#[test]
fn waiting_for_a_session_has_an_end() {
    alone(
        "recovery::waiting_for_a_session_has_an_end",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token("keys");
            let module = Module::with_timing(
                &fixture.shim(),
                aziot_crypto::pkcs11::Timing {
                    session_wait: Duration::from_millis(100),
                    ..Default::default()
                },
            );
            let token = token(&module, "pkcs11:token=keys?pin-value=1234");
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            fixture.control("C_Sign sleep:1500 4");
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| drop(key.mac(b"m").unwrap()));
                }
                while token.state().sessions < 4 {
                    std::thread::yield_now();
                }
                let err = key.mac(b"m").unwrap_err();
                assert!(
                    err.to_string()
                        .contains("no session of the token became free"),
                    "{err}"
                );
            });
            key.mac(b"m").unwrap();
        },
    );
}

#[test]
fn another_token_with_the_same_label_is_used() {
    alone(
        "recovery::another_token_with_the_same_label_is_used",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let old = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            let tag = old.mac(b"m").unwrap();
            let wrong = super::fixture::token(
                &fixture.module(),
                "pkcs11:token=keys;model=SoftHSM%20v2?pin-value=5678",
            );
            wrong.key_pair(None).unwrap();
            super::fixture::run(std::process::Command::new("softhsm2-util").args([
                "--delete-token",
                "--token",
                "keys",
            ]));
            fixture.init_token_with_pin("keys", "5678");
            std::thread::sleep(Duration::from_millis(1100));
            // With the PIN of the old one there is no way in, which is learnt once.
            let text = old.mac(b"m").unwrap_err().to_string();
            assert!(text.contains("CKR_PIN_INCORRECT"), "{text}");
            fixture.calls();
            assert!(token.secret_key(Some("k")).is_err());
            assert_eq!(fixture.count("C_Login"), 0);
            let new = wrong.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            assert_ne!(new.mac(b"m").unwrap().as_bytes(), tag.as_bytes());
        },
    );
}
