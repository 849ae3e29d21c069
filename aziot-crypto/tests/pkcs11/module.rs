//! Modules and tokens that are not what they should be, and PINs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aziot_crypto::pkcs11::{Condition, Module, USAGE_SIGN};

use super::fixture::{Backend, PIN, alone, compile, count, run, token};

fn refused(path: &Path) -> String {
    let token = token(&Module::new(path), "pkcs11:token=keys");
    let err = token.connect().unwrap_err();
    assert!(!err.is_invalid_parameter());
    let text = err.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("pkcs11_lib_path"), "{text}");
    assert_eq!(token.state().condition, Condition::Failing(text.clone()));
    text
}

#[test]
fn files_that_are_no_modules() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.so");
    assert!(refused(&missing).contains("there is no such file"));

    let text = directory.path().join("text.so");
    fs::write(&text, "not a library").unwrap();
    let explained = refused(&text);
    assert!(
        explained.contains("not a shared library for this machine"),
        "{explained}"
    );

    // The first bytes of a library for 32-bit ARM.
    let foreign = directory.path().join("arm.so");
    let mut header = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0];
    header.resize(16, 0);
    header.extend([3, 0, 40, 0, 1, 0, 0, 0]);
    header.resize(4096, 0);
    fs::write(&foreign, header).unwrap();
    let explained = refused(&foreign);
    assert!(
        explained.contains("not a shared library for this machine"),
        "{explained}"
    );

    let source = directory.path().join("other.c");
    let other = directory.path().join("other.so");
    fs::write(
        &source,
        "int answer(void);\nint answer(void) { return 42; }\n",
    )
    .unwrap();
    compile(&source, &other);
    let explained = refused(&other);
    assert!(explained.contains("C_GetFunctionList"), "{explained}");

    // As a copy that was interrupted leaves it. The loader would map what is not there.
    let cut = directory.path().join("cut.so");
    let whole = fs::read(&other).unwrap();
    fs::write(&cut, &whole[..4200]).unwrap();
    let explained = refused(&cut);
    assert!(explained.contains("install it again"), "{explained}");
}

/// A module of which only as much exists as it takes to be refused.
fn stub(directory: &Path, list: &str, version: &str) -> std::path::PathBuf {
    let source = directory.join("stub.c");
    let module = directory.join(format!("stub-{}.so", version.replace(", ", "-")));
    fs::write(
        &source,
        format!(
            "#define CRYPTOKI_GNU 1\n#include <p11-kit/pkcs11.h>\n\
             static ck_rv_t ok(void) {{ return CKR_OK; }}\n\
             static ck_rv_t info(struct ck_info *info) {{\n\
             \x20   *info = (struct ck_info){{ .cryptoki_version = {{ {version} }} }};\n    return CKR_OK;\n}}\n\
             static struct ck_function_list list;\n\
             ck_rv_t C_GetFunctionList(struct ck_function_list **out) {{\n\
             \x20   list.version = (struct ck_version){{ 2, 11 }};\n\
             \x20   void **functions = (void **)&list.C_Initialize;\n\
             \x20   for (int i = 0; i < 68; i++) {{ functions[i] = (void *)ok; }}\n\
             \x20   list.C_GetInfo = info;\n    {list}\n    *out = &list;\n    return CKR_OK;\n}}\n"
        ),
    )
    .unwrap();
    compile(&source, &module);
    module
}

#[test]
fn modules_that_are_too_old_or_incomplete() {
    let directory = tempfile::tempdir().unwrap();
    for (version, text) in [
        (
            "2, 11",
            "expected library to support v2.20 or higher, but it supports v2.11",
        ),
        (
            "1, 0",
            "expected library to support v2.20 or higher, but it supports v1.0",
        ),
    ] {
        let module = stub(directory.path(), "", version);
        let explained = refused(&module);
        assert!(explained.starts_with(text), "{explained}");
    }
    let module = stub(directory.path(), "list.C_GenerateKeyPair = 0;", "2, 40");
    let explained = refused(&module);
    assert!(
        explained.starts_with("library does not define C_GenerateKeyPair"),
        "{explained}"
    );
    // One of version 3 gets as far as the search for a token.
    let module = stub(directory.path(), "list.C_Finalize = 0;", "3, 0");
    let err = token(&Module::new(&module), "pkcs11:token=keys")
        .connect()
        .unwrap_err();
    assert!(err.to_string().contains("could not find a slot"), "{err}");
}

#[test]
fn kp_01_connecting_finds_the_token_without_logging_in() {
    alone(
        "module::kp_01_connecting_finds_the_token_without_logging_in",
        &Backend::SoftHsm,
        |fixture| {
            let keys = fixture.token();
            assert_eq!(keys.state().condition, Condition::Unused);
            keys.connect().unwrap();
            let calls = fixture.calls();
            assert_eq!(count(&calls, "C_OpenSession"), 1);
            assert_eq!(count(&calls, "C_Login"), 0);
            assert!(
                calls
                    .iter()
                    .any(|call| call.starts_with("C_OpenSession") && call.contains("flags=0x6"))
            );
            assert!(
                calls.contains(&"C_Initialize flags=0x3 -> 0x0".to_owned()),
                "{calls:#?}"
            );
            let state = keys.state();
            assert_eq!((state.condition, state.sessions), (Condition::Working, 1));

            let module = fixture.module();
            let err = token(&module, "pkcs11:token=absent?pin-value=1234")
                .connect()
                .unwrap_err();
            let text = err.to_string();
            assert!(!err.is_invalid_parameter());
            assert!(
                text.contains("\"absent\"")
                    && text.contains("\"keys\"")
                    && text.contains("`token`"),
                "{text}"
            );
            let err = token(&module, "pkcs11:slot-id=77").connect().unwrap_err();
            let text = err.to_string();
            assert!(
                text.contains("CKR_SLOT_ID_INVALID") && text.contains("slot-id=77"),
                "{text}"
            );
            // The label is compared as it is.
            token(&module, "pkcs11:token=Keys").connect().unwrap_err();
            token(&module, "pkcs11:token=keys%20")
                .connect()
                .unwrap_err();
        },
    );
}

#[test]
fn tokens_with_one_label_are_told_apart() {
    alone(
        "module::tokens_with_one_label_are_told_apart",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token("twin");
            fixture.init_token("twin");
            let listed = run(std::process::Command::new("softhsm2-util").arg("--show-slots"));
            let field = |name: &str| -> Vec<String> {
                listed
                    .lines()
                    .filter_map(|line| line.trim().strip_prefix(name))
                    .map(|value| value.trim().to_owned())
                    .filter(|value| {
                        value.starts_with(|c: char| c.is_ascii_hexdigit()) && *value != "info:"
                    })
                    .collect()
            };
            let (serials, slots) = (field("Serial number:"), field("Slot "));
            assert_eq!(serials.len(), 2);
            let module = fixture.module();
            for (at, serial) in serials.iter().enumerate() {
                let one = token(
                    &module,
                    &format!(
                        "pkcs11:token=twin;serial={serial};manufacturer=SoftHSM%20project?pin-value={PIN}"
                    ),
                );
                one.generate_secret(Some(&format!("key-{at}")), USAGE_SIGN)
                    .unwrap();
                assert_eq!(
                    one.uri_without_pin(),
                    format!("pkcs11:token=twin;manufacturer=SoftHSM%20project;serial={serial}")
                );
            }
            for (at, slot) in slots.iter().take(2).enumerate() {
                let one = token(&module, &format!("pkcs11:slot-id={slot}?pin-value={PIN}"));
                for key in 0..2 {
                    let found = one
                        .secret_key(Some(&format!("key-{key}")))
                        .unwrap()
                        .is_some();
                    assert_eq!(found, key == at, "slot {slot}");
                }
                token(
                    &module,
                    &format!("pkcs11:slot-id={slot};serial={}", serials[at]),
                )
                .connect()
                .unwrap();
                let err = token(&module, &format!("pkcs11:slot-id={slot};serial=0123"))
                    .connect()
                    .unwrap_err();
                assert!(err.to_string().contains("serial \"0123\""), "{err}");
            }
            token(&module, "pkcs11:token=twin;model=none")
                .connect()
                .unwrap_err();
        },
    );
}

#[test]
fn kp_11_a_wrong_pin_is_tried_once() {
    alone(
        "module::kp_11_a_wrong_pin_is_tried_once",
        &Backend::SoftHsm,
        |fixture| {
            let right = fixture.token();
            let module = fixture.module();
            let wrong = token(&module, "pkcs11:token=keys?pin-value=4321");
            for attempt in 0..5 {
                let err = wrong.secret_key(Some("k")).unwrap_err();
                let text = err.to_string();
                assert!(
                    text.contains("C_Login") && text.contains("CKR_PIN_INCORRECT"),
                    "{text}"
                );
                assert!(text.contains("pin-value"), "{text}");
                assert_eq!(text.contains("before"), attempt > 0, "{text}");
                assert!(matches!(wrong.state().condition, Condition::Failing(_)));
            }
            // The same token and PIN in other words.
            token(
                &module,
                "pkcs11:token=keys;manufacturer=SoftHSM%20project?pin-value=4321",
            )
            .secret_key(None)
            .unwrap_err();
            let calls = fixture.calls();
            assert_eq!(count(&calls, "C_Login"), 1);
            assert_eq!(
                count(&calls, "C_Initialize"),
                1,
                "a PIN is no reason to load the module again"
            );
            assert!(right.secret_key(None).unwrap().is_none());
            assert_eq!(fixture.count("C_Login"), 1);
        },
    );
}

#[test]
fn kp_11_other_refusals_of_a_pin_are_remembered_too() {
    alone(
        "module::kp_11_other_refusals_of_a_pin_are_remembered_too",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token("keys");
            let module = fixture.module();
            for (at, (value, name)) in [
                ("0xa4", "CKR_PIN_LOCKED"),
                ("0xa3", "CKR_PIN_EXPIRED"),
                ("0xa2", "CKR_PIN_LEN_RANGE"),
            ]
            .into_iter()
            .enumerate()
            {
                let token = token(&module, &format!("pkcs11:token=keys?pin-value=999{at}"));
                fixture.control(&format!("C_Login {value} 1"));
                for _ in 0..3 {
                    let text = token.secret_key(None).unwrap_err().to_string();
                    assert!(text.contains(name), "{text}");
                }
                assert_eq!(fixture.count("C_Login"), 1);
            }
        },
    );
}

#[test]
fn kp_11_modules_sessions_and_logins_are_kept() {
    alone(
        "module::kp_11_modules_sessions_and_logins_are_kept",
        &Backend::SoftHsm,
        |fixture| {
            let keys = fixture.token();
            let key = keys.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            for _ in 0..50 {
                key.mac(b"m").unwrap();
                fixture
                    .known_token()
                    .secret_key(Some("k"))
                    .unwrap()
                    .unwrap()
                    .mac(b"m")
                    .unwrap();
            }
            let calls = fixture.calls();
            for function in ["C_Initialize", "C_OpenSession", "C_Login"] {
                assert_eq!(count(&calls, function), 1, "{function}");
            }
            assert_eq!(
                count(&calls, "C_Finalize") + count(&calls, "C_CloseSession"),
                0
            );
            drop((keys, key));
            assert_eq!(fixture.count("C_Finalize"), 1, "nobody uses it any more");
        },
    );
}

#[test]
fn the_pin_can_be_in_a_file() {
    alone(
        "module::the_pin_can_be_in_a_file",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token("keys");
            let file = fixture.directory.join("a pin");
            for (at, uri) in [
                format!(
                    "pkcs11:token=keys?pin-source=file:{}",
                    file.display().to_string().replace(' ', "%2520")
                ),
                format!(
                    "pkcs11:token=keys?pin-source={}",
                    file.display().to_string().replace(' ', "%20")
                ),
            ]
            .into_iter()
            .enumerate()
            {
                // Unloaded at the end of each round, and the login with it.
                let token = token(&fixture.module(), &uri);
                let _ = fs::remove_file(&file);
                let text = token.secret_key(None).unwrap_err().to_string();
                assert!(
                    text.contains("a pin") && text.contains("pin-source"),
                    "{text}"
                );
                fs::write(&file, "\n").unwrap();
                assert!(
                    token
                        .secret_key(None)
                        .unwrap_err()
                        .to_string()
                        .contains("is empty")
                );
                // A wrong one is tried once; a corrected one takes effect.
                if at == 0 {
                    fs::write(&file, "9999\n").unwrap();
                    assert!(
                        token
                            .secret_key(None)
                            .unwrap_err()
                            .to_string()
                            .contains("CKR_PIN_INCORRECT")
                    );
                }
                fs::write(&file, format!("{PIN}\r\nsecond line\n")).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                token.secret_key(None).unwrap();
            }
            let relative = token(
                &fixture.module(),
                "pkcs11:token=keys?pin-source=relative/path",
            );
            let text = relative.secret_key(None).unwrap_err().to_string();
            assert!(text.contains("absolute path"), "{text}");
        },
    );
}

#[test]
fn a_module_that_somebody_else_initialised_is_not_finalised() {
    alone(
        "module::a_module_that_somebody_else_initialised_is_not_finalised",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token("keys");
            let other = cryptoki::context::Pkcs11::new(fixture.shim()).unwrap();
            other
                .initialize(cryptoki::context::CInitializeArgs::new(
                    cryptoki::context::CInitializeFlags::OS_LOCKING_OK,
                ))
                .unwrap();
            let token = fixture.known_token();
            token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            drop(token);
            let calls = fixture.calls();
            assert!(
                calls.contains(&"C_Initialize flags=0x3 -> 0x191".to_owned()),
                "{calls:#?}"
            );
            assert_eq!(count(&calls, "C_Finalize"), 0);
            assert_eq!(other.get_slots_with_initialized_token().unwrap().len(), 1);
        },
    );
}
