//! The Keys Service on software tokens: what is where, what happens when they fail, and how it recovers (spec, key library
//! chapter B11, B12).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use aziot_tests::back_end::{BackEnd, Site, bytes, ecdsa_body};
use aziot_tests::client::{eventually, request};
use aziot_tests::daemon::Launch;
use aziot_tests::fixture::{self, HANDLE_KEY, Keyd, VERSION};
use aziot_tests::root::Root;
use aziot_tests::softhsm::SoftHsm;
use aziot_tests::token::{self, PIN, Token};
use base64ct::{Base64, Encoding as _};
use serde_json::json;

const INVALID: &str = "a parameter has an invalid value";
const INTERNAL: &str = "internal error";

const PAIR: [&str; 2] = ["Private Key", "Public Key"];
const SECRET: [&str; 1] = ["Secret Key"];
const NOTHING: [&str; 0] = [];

/// Return values of PKCS#11.
const GENERAL_ERROR: &str = "0x5";
const DEVICE_ERROR: &str = "0x30";
const DEVICE_REMOVED: &str = "0x32";
const FUNCTION_NOT_SUPPORTED: &str = "0x54";
const MECHANISM_INVALID: &str = "0x70";
const SESSION_HANDLE_INVALID: &str = "0xb3";
const TOKEN_NOT_PRESENT: &str = "0xe0";
const USER_NOT_LOGGED_IN: &str = "0x101";

fn key(site: &Site, id: &str, usage: &str) -> aziot_tests::client::Response {
    site.keyd
        .post("/key", &json!({ "keyId": id, "usage": usage }))
}

/// A line of the log that contains all of these.
fn line(site: &Site, parts: &[&str]) -> String {
    site.keyd.daemon.log().wait_for_all(parts)
}

#[test]
fn kp_02_new_keys_are_objects_and_no_files() {
    let site = Site::recorded(BackEnd::SoftHsm);
    assert_eq!(key(&site, "hmac", "derive,sign").status, 200);
    assert_eq!(key(&site, "aes", "encrypt").status, 200);
    site.keyd
        .import("imported", b"0123456789abcdef0123456789abcdef");
    site.pair("ec", "ec-p256");
    site.pair("rsa", "rsa-2048");
    assert_eq!(site.files(), NOTHING);
    let token = site.token();
    for id in [HANDLE_KEY, "hmac", "aes", "imported"] {
        assert_eq!(token.classes(id), SECRET, "{id}");
    }
    for id in ["ec", "rsa"] {
        assert_eq!(token.classes(id), PAIR, "{id}");
    }
    assert_eq!(token.objects().len(), 8, "and nothing else");
    // What was asked for, in the order of the contract.
    let calls = site.recorder().calls();
    let template = |function: &str, label: &str| {
        let label = format!("CKA_LABEL=\"{label}\"");
        let call = calls
            .iter()
            .rfind(|call| call.function == function && call.line.contains(&label))
            .or_else(|| calls.iter().rfind(|call| call.function == function));
        call.unwrap_or_else(|| panic!("no {function}")).line.clone()
    };
    let generated = template("C_GenerateKey", "hmac");
    for part in ["CKA_PRIVATE=1", "CKA_SENSITIVE=1", "CKA_TOKEN=1"] {
        assert!(generated.contains(part), "{generated}");
    }
    let created = template("C_CreateObject", "imported");
    assert!(!created.contains("0123456789abcdef"), "{created}");
    // Everything is still there after a restart, under the same handles.
    let handle = site.keyd.get("/keypair/ec").member("keyHandle");
    let point = site.parameter(&handle, "ec-point").text().to_owned();
    let site = site.restart();
    assert_eq!(site.parameter(&handle, "ec-point").text(), point);
    assert_eq!(site.ecdsa(&handle, &[1; 32]).status, 200);
    assert_eq!(site.files(), NOTHING);
}

#[test]
fn kp_03_imported_keys_behave_as_in_files() {
    let (files, token) = (Site::new(BackEnd::Files), Site::new(BackEnd::SoftHsm));
    let content: Vec<u8> = (0..32).collect();
    let sealed: Vec<Vec<u8>> = [&files, &token]
        .into_iter()
        .map(|site| {
            site.install("hmac", &content, "sign");
            site.install("aes", &content, "encrypt");
            let hmac = site.keyd.get("/key/hmac").member("keyHandle");
            let aes = site.keyd.get("/key/aes").member("keyHandle");
            assert_eq!(
                site.keyd.sign(&hmac, b"message").member("signature"),
                fixture::hmac(&content, b"message")
            );
            let derived = site.keyd.derive(&hmac, b"edgeAgent");
            assert_eq!(
                bytes(&site.keyd.export(&derived), "key")[..4],
                [0x97, 0x11, 0x27, 0x74]
            );
            // Vectors of the key library's chapter, B8 and B9.
            let iv: Vec<u8> = (0x10..0x1c).collect();
            let sealed = bytes(
                &site.seal(&derived, &iv, b"$iotedged", b"hello"),
                "ciphertext",
            );
            assert_eq!(
                sealed[..8],
                [0x02, 0x03, 0x96, 0xdb, 0xbe, 0x48, 0x44, 0x97]
            );
            assert_eq!(
                bytes(
                    &site.open(&derived, &iv, b"$iotedged", &sealed),
                    "plaintext"
                ),
                b"hello"
            );
            let sealed = bytes(&site.seal(&aes, &iv, b"$iotedged", b"aaaaaa"), "ciphertext");
            assert_eq!(sealed[..7], [0x02, 0x1c, 0x9f, 0xf9, 0x77, 0x28, 0xa8]);
            let mut older = vec![1];
            older.extend_from_slice(&sealed[7..]);
            older.extend_from_slice(&sealed[1..7]);
            assert_eq!(
                bytes(&site.open(&aes, &iv, b"$iotedged", &older), "plaintext"),
                b"aaaaaa"
            );
            sealed
        })
        .collect();
    assert_eq!(sealed[0], sealed[1]);
    assert_eq!(token.files(), NOTHING);
}

#[test]
fn kp_04_fallback_of_symmetric_keys_and_its_warning() {
    let site = Site::recorded(BackEnd::SoftHsm);
    // A token refuses this length for AES.
    let body = json!({ "keyId": "short", "keyBytes": Base64::encode_string(&[1; 20]), "usage": "encrypt" });
    assert_eq!(site.keyd.post("/key", &body).status, 200);
    assert_eq!(fs::read(site.keyd.root.key_file("short")).unwrap(), [1; 20]);
    assert_eq!(site.token().classes("short"), NOTHING);
    let warning = line(&site, &["[WARN]", "\"short\""]);
    for part in ["C_", "CKR_", "Key pairs", "filesystem"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    let handle = site.keyd.get("/key/short").member("keyHandle");
    assert_eq!(
        site.keyd.sign(&handle, b"m").member("signature"),
        fixture::hmac(&[1; 20], b"m")
    );
    // A token that cannot make such keys at all.
    for (id, value) in [("a", FUNCTION_NOT_SUPPORTED), ("b", MECHANISM_INVALID)] {
        site.recorder()
            .script(&format!("C_GenerateKey {value} *\n"));
        assert_eq!(key(&site, id, "sign").status, 200);
        assert!(site.keyd.root.key_file(id).exists());
        line(&site, &["[WARN]", &format!("\"{id}\""), "C_GenerateKey"]);
    }
    // One whose AES keys do not do GCM: the object it made is gone again.
    site.recorder()
        .script(&format!("C_EncryptInit {MECHANISM_INVALID} *\n"));
    let before = site.token().objects();
    assert_eq!(key(&site, "c", "encrypt").status, 200);
    assert!(site.keyd.root.key_file("c").exists());
    assert_eq!(site.token().objects(), before);
    line(&site, &["[WARN]", "\"c\"", "C_EncryptInit"]);
    // Any other failure is one, and leaves nothing behind.
    site.recorder()
        .script(&format!("C_GenerateKey {DEVICE_ERROR} *\n"));
    key(&site, "d", "sign").assert_message(500, INTERNAL);
    assert!(!site.keyd.root.key_file("d").exists());
    line(&site, &["CKR_DEVICE_ERROR", "C_GenerateKey", "Key pairs"]);
    site.recorder().script("");
    assert_eq!(key(&site, "d", "sign").status, 200);
    assert_eq!(site.token().classes("d"), SECRET);
    // Keys for two purposes are for files only.
    key(&site, "e", "derive,encrypt").assert_message(400, INVALID);
    key(&site, "e", "sign,encrypt").assert_message(400, INVALID);
    assert!(!site.keyd.root.key_file("e").exists());
}

#[test]
fn kp_05_keys_from_before_the_token_keep_working() {
    let site = Site::new(BackEnd::Files);
    let key = site.keyd.import("key", b"older than the token");
    let pair = site.pair("pair", "ec-p256");
    let point = site.parameter(&pair, "ec-point").text().to_owned();
    let Keyd { daemon, root } = site.keyd;
    daemon.stop();
    let softhsm = SoftHsm::new(&root.join("softhsm"));
    let token = softhsm.initialize("Key pairs");
    token.configure(&root);
    let site = Site::on(root, softhsm, token);
    // Also the key that signed the handles.
    let before = site.files();
    assert_eq!(before.len(), 3);
    assert_eq!(
        site.keyd.sign(&key, b"m").member("signature"),
        fixture::hmac(b"older than the token", b"m")
    );
    assert_eq!(site.parameter(&pair, "ec-point").text(), point);
    assert_eq!(site.ecdsa(&pair, &[1; 32]).status, 200);
    // Creating them again keeps them; what is new goes to the token.
    site.keyd.create("key");
    let again = site.pair("pair", "ec-p256");
    assert_eq!(site.parameter(&again, "ec-point").text(), point);
    assert_eq!(site.files(), before);
    assert_eq!(site.token().objects(), []);
    let fresh = site.pair("fresh", "ec-p256");
    assert_eq!(site.token().classes("fresh"), PAIR);
    // A pair in a file can be moved, and stays whole.
    assert_eq!(site.move_pair("pair", "moved").status, 204);
    let moved = site.keyd.get("/keypair/moved").member("keyHandle");
    assert_eq!(site.parameter(&moved, "ec-point").text(), point);
    site.keyd.get("/keypair/pair").assert_message(400, INVALID);
    assert_eq!(site.ecdsa(&fresh, &[1; 32]).status, 200);
    // Gone from wherever it is.
    for (id, handle) in [("moved", &moved), ("fresh", &fresh)] {
        assert_eq!(site.keyd.delete("/keypair", handle).status, 204);
        site.keyd
            .get(&format!("/keypair/{id}"))
            .assert_message(400, INVALID);
    }
    assert_eq!(site.files().len(), 2);
    assert_eq!(site.token().objects(), []);
}

#[test]
fn kp_06_pairs_never_fall_back_to_files() {
    let site = Site::recorded(BackEnd::SoftHsm);
    for value in [FUNCTION_NOT_SUPPORTED, MECHANISM_INVALID, "0xd1"] {
        site.recorder()
            .script(&format!("C_GenerateKeyPair {value} *\n"));
        site.create_pair("pair", Some("*"))
            .assert_message(400, INVALID);
    }
    assert_eq!(site.files(), NOTHING);
    assert_eq!(site.token().classes("pair"), NOTHING);
    let log = site.keyd.daemon.log().text();
    for part in [
        "C_GenerateKeyPair",
        "CKR_MECHANISM_INVALID",
        "ec-p256",
        "rsa-2048",
    ] {
        assert!(log.contains(part), "{part}:\n{log}");
    }
    // Only the first of two algorithms fails: the second is taken.
    site.recorder()
        .script(&format!("C_GenerateKeyPair {MECHANISM_INVALID} 1\n"));
    let handle = site.pair("pair", "rsa-2048:ec-p256");
    let found = site.parameter(&handle, "algorithm").member("value");
    assert!(matches!(found.as_str(), "ECDSA" | "RSA"), "{found}");
    assert_eq!(site.files(), NOTHING);
}

#[test]
fn kp_07_kp_08_moves_lose_nothing_when_the_token_fails() {
    let site = Site::recorded(BackEnd::SoftHsm);
    let (from, to) = (site.pair("from", "ec-p256"), site.pair("to", "ec-p256"));
    let point = |handle: &str| site.parameter(handle, "ec-point").text().to_owned();
    let (first, second) = (point(&from), point(&to));
    // The n-th change of a label fails; nothing is lost, and the move can be asked for again.
    for nth in 0..4 {
        for (function, place) in [("C_SetAttributeValue", ""), ("C_DestroyObject", "")] {
            let passes = format!("{function} sleep:0 {nth}\n");
            let rules = if nth == 0 { String::new() } else { passes };
            site.recorder()
                .script(&format!("{rules}{function} 0x13 1{place}\n"));
            let response = site.move_pair("from", "to");
            site.recorder().script("");
            let reachable = [&from, &to].map(|handle| {
                let response = site.parameter(handle, "ec-point");
                (response.status == 200).then(|| response.text().to_owned())
            });
            assert!(
                reachable.contains(&Some(first.clone())),
                "{function} {nth}: {response}: the moved pair is lost: {reachable:?}"
            );
            if response.status == 204 {
                assert_eq!(reachable, [None, Some(first.clone())]);
                // Back to where it was, for the next round.
                assert_eq!(site.move_pair("to", "from").status, 204);
                site.pair("to", "ec-p256");
            } else {
                response.assert_message(500, INTERNAL);
                if reachable[1].is_some() && reachable[0].is_some() {
                    assert_ne!(reachable[0], reachable[1]);
                }
            }
        }
    }
    let _ = second;
    if site.keyd.get("/keypair/from").status == 200 {
        assert_eq!(site.move_pair("from", "to").status, 204);
    }
    assert_eq!(point(&to), first);
    assert_eq!(site.ecdsa(&to, &[1; 32]).status, 200);
    // Nothing in between is left over.
    let site = site.restart();
    assert_eq!(site.ecdsa(&to, &[1; 32]).status, 200);
    let pairs: Vec<_> = site
        .token()
        .objects()
        .into_iter()
        .filter(|object| object.class != "Secret Key")
        .collect();
    assert!(pairs.iter().all(|object| object.label == "to"), "{pairs:?}");
}

#[test]
fn kp_09_without_a_pin_nothing_is_destroyed() {
    let site = Site::new(BackEnd::SoftHsm);
    let handle = site.pair("pair", "ec-p256");
    let point = site.parameter(&handle, "ec-point").text().to_owned();
    let before = site.token().objects();
    let site = site.restart_after(|root, token| {
        let token = token.unwrap();
        let uri = token.uri(None);
        let uri = uri.split('?').next().unwrap();
        root.write(token::CONFIG, token::settings(token.module(), uri));
    });
    let response = site.create_pair("pair", Some("ec-p256"));
    assert!(matches!(response.status, 400 | 500), "{response}");
    line(&site, &["pin-value"]);
    assert_ne!(site.keyd.get("/keypair/pair").status, 200);
    assert_eq!(site.token().objects(), before);
    let site = site.restart_after(|root, token| token.unwrap().configure(root));
    assert_eq!(site.parameter(&handle, "ec-point").text(), point);
    assert_eq!(site.ecdsa(&handle, &[1; 32]).status, 200);
}

#[test]
fn kp_10_preloaded_keys_on_tokens() {
    let root = Root::new();
    let softhsm = SoftHsm::new(&root.join("softhsm"));
    let token = softhsm.initialize("Key pairs");
    let (token, recorder) = token.recorded(&root);
    // No base slot: what is created goes to files, and the preloaded ones are where the URIs say.
    root.keyd_config(&format!(
        "[preloaded_keys]\nnamed = \"{}\"\nunnamed = \"{}\"\n",
        token.uri(Some("label of its own")),
        token.uri(None)
    ));
    root.write(
        token::CONFIG,
        format!(
            "[aziot_keys]\npkcs11_lib_path = \"{}\"\n",
            token.module().display()
        ),
    );
    let site = Site::on(root, softhsm, token);
    let named = site.pair("named", "ec-p256");
    assert_eq!(site.token().classes("label of its own"), PAIR);
    assert_eq!(site.token().classes("named"), NOTHING);
    for _ in 0..5 {
        assert_eq!(site.ecdsa(&named, &[1; 32]).status, 200);
    }
    // Without an object any pair of the token is meant: good enough to use, not to delete.
    let unnamed = site.keyd.get("/keypair/unnamed").member("keyHandle");
    assert_eq!(
        site.parameter(&unnamed, "ec-point").text(),
        site.parameter(&named, "ec-point").text()
    );
    site.keyd
        .delete("/keypair", &unnamed)
        .assert_message(400, INVALID);
    assert_eq!(site.token().classes("label of its own"), PAIR);
    assert_eq!(site.keyd.delete("/keypair", &named).status, 204);
    assert_eq!(site.token().classes("label of its own"), NOTHING);
    site.keyd.create("in a file");
    assert!(site.keyd.root.key_file("in a file").exists());
    // The module is loaded once, although no base slot holds it.
    assert_eq!(recorder.count("C_Initialize"), 1);
    assert_eq!(recorder.count("C_Login"), 1);
    // Between a file and a token nothing moves, and nothing changes.
    let file = site.pair("file", "ec-p256");
    let pair = site.pair("named", "ec-p256");
    for (from, to) in [("file", "named"), ("named", "file")] {
        site.move_pair(from, to).assert_message(400, INVALID);
    }
    for handle in [&file, &pair] {
        assert_eq!(site.ecdsa(handle, &[1; 32]).status, 200);
    }
}

#[test]
fn kf_08_a_preloaded_token_key_without_a_module() {
    let keyd = Keyd::empty("[preloaded_keys]\nk = \"pkcs11:token=none;object=k\"\n");
    keyd.get("/key/k").assert_message(400, INVALID);
    let body = json!({ "keyId": "k", "usage": "sign" });
    keyd.post("/key", &body).assert_message(400, INVALID);
    keyd.daemon.log().wait_for("pkcs11_lib_path");
    keyd.create("other");
}

#[test]
fn kp_11_module_login_and_sessions_are_reused() {
    let site = Site::recorded(BackEnd::SoftHsm);
    let pair = site.pair("pair", "ec-p256");
    let key = site.keyd.create("key");
    for _ in 0..50 {
        assert_eq!(site.ecdsa(&pair, &[1; 32]).status, 200);
        assert_eq!(site.keyd.sign(&key, b"m").status, 200);
    }
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = site.keyd.connect();
                for _ in 0..20 {
                    let body = ecdsa_body(&pair, &[2; 32]);
                    let bytes = request("POST", &format!("/sign?{VERSION}"), Some(&body));
                    assert_eq!(client.exchange(bytes).status, 200);
                }
            });
        }
    });
    let recorder = site.recorder();
    assert_eq!(recorder.count("C_Initialize"), 1);
    assert_eq!(recorder.count("C_Login"), 1);
    assert_eq!(recorder.count("C_Finalize"), 0);
    let open = recorder.count("C_OpenSession");
    assert!((1..=5).contains(&open), "{open} sessions");
    assert_eq!(recorder.count("C_CloseSession"), 0);
    // One signature of the token for each ECDSA request: the question for the length costs none.
    let signatures = recorder
        .calls()
        .iter()
        .filter(|call| call.function == "C_SignInit" && call.line.contains("mechanism=0x1041"))
        .count();
    assert_eq!(signatures, 50 + 160);
}

#[test]
fn kp_11_a_wrong_pin_is_tried_once() {
    let root = Root::with_keyd("");
    let softhsm = SoftHsm::new(&root.join("softhsm"));
    let (token, recorder) = softhsm
        .initialize_with_pin("Key pairs", "98765432")
        .recorded(&root);
    token.configure(&root);
    let site = Site::on(root, softhsm, token);
    for _ in 0..3 {
        key(&site, "k", "sign").assert_message(500, INTERNAL);
        site.create_pair("p", Some("*"));
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| key(&site, "k", "sign").assert_message(500, INTERNAL));
        }
    });
    assert_eq!(recorder.count("C_Login"), 1);
    let log = site.keyd.daemon.log();
    let first = log.wait_for("CKR_PIN_INCORRECT");
    for part in ["C_Login", "Key pairs", "pin-value", "restart"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let log = log.text();
    assert!(!log.contains(PIN), "the PIN is in the log:\n{log}");
    assert_eq!(site.files(), NOTHING, "no silent fallback");
    // No reload either: it would not help.
    assert_eq!(recorder.count("C_Initialize"), 1);
}

#[test]
fn a_token_taken_out_and_put_back_needs_no_restart() {
    let site = Site::new(BackEnd::SoftHsm);
    let pair = site.pair("pair", "ec-p256");
    let key = site.keyd.create("key");
    let point = site.parameter(&pair, "ec-point").text().to_owned();
    let mac = site.keyd.sign(&key, b"m").text().to_owned();
    let softhsm = site.softhsm.as_ref().unwrap();
    let removed = softhsm.remove_all();
    // What is remembered may serve for a moment.
    eventually("requests fail without the token", || {
        site.ecdsa(&pair, &[1; 32]).status != 200
    });
    site.ecdsa(&pair, &[1; 32]).assert_message(500, INTERNAL);
    site.create_pair("another", Some("*"));
    key_fails(&site, "third");
    line(&site, &["[ERR!]", "Key pairs"]);
    assert_eq!(site.files(), NOTHING, "nothing went to files instead");
    for token in removed {
        token.insert();
    }
    eventually("the token is found again", || {
        site.ecdsa(&pair, &[1; 32]).status == 200
    });
    assert_eq!(site.parameter(&pair, "ec-point").text(), point);
    assert_eq!(site.keyd.sign(&key, b"m").text(), mac);
    site.pair("another", "ec-p256");
}

fn key_fails(site: &Site, id: &str) {
    key(site, id, "sign").assert_message(500, INTERNAL);
}

#[test]
fn a_token_replaced_by_another_with_the_same_label() {
    let site = Site::new(BackEnd::SoftHsm);
    let pair = site.pair("pair", "ec-p256");
    let point = site.parameter(&pair, "ec-point").text().to_owned();
    let softhsm = site.softhsm.as_ref().unwrap();
    let first = softhsm.remove_all();
    let _ = softhsm.initialize("Key pairs");
    // What is remembered may serve for a moment. Another key signs handles there, so the old ones mean nothing.
    eventually("the old token is not used any more", || {
        site.ecdsa(&pair, &[1; 32]).status != 200
    });
    eventually("the new token is used", || {
        site.create_pair("pair", Some("ec-p256")).status == 200
    });
    site.ecdsa(&pair, &[1; 32]).assert_message(
        400,
        "parameter \"handle\" has an invalid value\ncaused by: invalid handle",
    );
    let handle = site.keyd.get("/keypair/pair").member("keyHandle");
    assert_ne!(site.parameter(&handle, "ec-point").text(), point);
    assert_eq!(site.token().classes("pair"), PAIR);
    // The old one comes back.
    let second = softhsm.remove_all();
    for token in first {
        token.insert();
    }
    eventually("the old token is used", || {
        site.ecdsa(&pair, &[1; 32]).status == 200
    });
    assert_eq!(site.parameter(&pair, "ec-point").text(), point);
    drop(second);
}

#[test]
fn lost_sessions_are_reopened_without_a_reload() {
    let site = Site::recorded(BackEnd::SoftHsm);
    let pair = site.pair("pair", "ec-p256");
    let recorder = site.recorder();
    for value in [
        SESSION_HANDLE_INVALID,
        DEVICE_REMOVED,
        TOKEN_NOT_PRESENT,
        USER_NOT_LOGGED_IN,
    ] {
        for function in ["C_SignInit", "C_Sign"] {
            recorder.script(&format!("{function} {value} 1\n"));
            assert_eq!(
                site.ecdsa(&pair, &[1; 32]).status,
                200,
                "{function} {value}"
            );
            assert_eq!(recorder.left(), "", "{function} {value}");
        }
    }
    assert_eq!(recorder.count("C_Initialize"), 1);
    // What stays broken is tried again once, not for ever.
    recorder.script(&format!("C_SignInit {SESSION_HANDLE_INVALID} *\n"));
    let before = recorder.count("C_SignInit");
    site.ecdsa(&pair, &[1; 32]).assert_message(500, INTERNAL);
    let tried = recorder.count("C_SignInit") - before;
    assert!((2..=6).contains(&tried), "tried {tried} times");
    recorder.script("");
    assert_eq!(site.ecdsa(&pair, &[1; 32]).status, 200);
}

#[test]
fn a_failing_module_is_reloaded_but_not_again_and_again() {
    let site = Site::recorded(BackEnd::SoftHsm);
    let pair = site.pair("pair", "ec-p256");
    let recorder = site.recorder();
    // Once: the request does not even notice.
    recorder.script(&format!("C_SignInit {DEVICE_ERROR} 1\n"));
    assert_eq!(site.ecdsa(&pair, &[1; 32]).status, 200);
    assert_eq!(recorder.count("C_Initialize"), 2);
    // Again and again: the second reload has to wait.
    recorder.script(&format!("C_SignInit {GENERAL_ERROR} *\n"));
    for _ in 0..20 {
        site.ecdsa(&pair, &[1; 32]).assert_message(500, INTERNAL);
    }
    assert!(recorder.count("C_Initialize") <= 3);
    line(&site, &["CKR_GENERAL_ERROR", "C_SignInit", "Key pairs"]);
    // It works again as soon as the module does.
    recorder.script("");
    assert_eq!(site.ecdsa(&pair, &[1; 32]).status, 200);
}

#[test]
fn ks_36_a_slow_token_delays_no_key_in_a_file() {
    let root = Root::new();
    let secret = root.write("var/secrets/handles", [7; 32]);
    let key = root.write("var/secrets/key", b"in a file");
    root.keyd_config(&format!(
        "max_requests = 100\n[preloaded_keys]\n{HANDLE_KEY} = \"file://{}\"\nkey = \"file://{}\"\n",
        secret.display(),
        key.display()
    ));
    let softhsm = SoftHsm::new(&root.join("softhsm"));
    let (token, recorder) = softhsm.initialize("Key pairs").recorded(&root);
    token.configure(&root);
    let site = Site::on(root, softhsm, token);
    let pair = site.pair("pair", "ec-p256");
    let in_file = site.keyd.get("/key/key").member("keyHandle");
    let held = recorder.hold();
    recorder.script("C_Sign hold 8\n");
    let mut slow: Vec<_> = (0..8)
        .map(|_| {
            let mut client = site.keyd.connect();
            let body = ecdsa_body(&pair, &[1; 32]);
            client.send(request("POST", &format!("/sign?{VERSION}"), Some(&body)));
            client
        })
        .collect();
    eventually("four calls are under way", || {
        recorder.left().contains("hold 4")
    });
    for _ in 0..100 {
        assert_eq!(
            site.keyd.sign(&in_file, b"m").member("signature"),
            fixture::hmac(b"in a file", b"m")
        );
        site.keyd.get("/nope").assert_message(404, "not found");
    }
    assert!(
        slow.iter_mut().all(|client| !client.is_closed()),
        "the token's requests are still waiting"
    );
    drop(held);
    for client in &mut slow {
        assert_eq!(client.response().status, 200);
    }
}

/// What the service says when it starts with this module.
fn start_with(module: &Path, uri: &str) -> aziot_tests::daemon::Finished {
    let root = Root::with_keyd("");
    root.write(token::CONFIG, token::settings(module, uri));
    let softhsm = SoftHsm::new(&root.join("softhsm"));
    let token: Token = softhsm.initialize("Key pairs");
    let finished = token
        .environment(Launch::service("aziot-keyd", &root))
        .fails();
    assert!(!root.socket("keyd").exists());
    finished
}

#[test]
fn kp_01_modules_and_tokens_that_are_not_there_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let uri = format!("pkcs11:token=Key%20pairs?pin-value={PIN}");
    let module = fs::read(SoftHsm::module()).unwrap();
    let mut foreign = module.clone();
    // `e_machine`: some other processor's.
    foreign[18..20].copy_from_slice(&[0xf3, 0x00]);
    let libc = PathBuf::from("libm.so.6");
    for (path, reason) in [
        (directory.path().join("missing.so"), "missing.so"),
        (file("foreign.so", &foreign), "foreign.so"),
        (file("text.so", b"this is no shared object"), "text.so"),
        (file("empty.so", b""), "empty.so"),
        (libc, "C_GetFunctionList"),
    ] {
        let finished = start_with(&path, &uri);
        finished
            .assert_logged(reason)
            .assert_logged("pkcs11_lib_path")
            .assert_logged("AZIOT_KEYS_RC_ERR_EXTERNAL");
        assert!(!finished.log.contains(PIN), "{}", finished.log);
    }
    // The module is there, the token is not; or it is not the one with this number.
    let finished = start_with(&SoftHsm::module(), "pkcs11:token=Other?pin-value=4711");
    finished
        .assert_logged("Other")
        .assert_logged("Key pairs")
        .assert_logged("AZIOT_KEYS_RC_ERR_EXTERNAL");
    assert!(!finished.log.contains("4711"), "{}", finished.log);
    start_with(&SoftHsm::module(), "pkcs11:slot-id=4242")
        .assert_logged("4242")
        .assert_logged("AZIOT_KEYS_RC_ERR_EXTERNAL");
    // An unusable URI is the configuration's fault.
    start_with(&SoftHsm::module(), "pkcs11:object=x")
        .assert_logged("AZIOT_KEYS_RC_ERR_INVALID_PARAMETER");
}
