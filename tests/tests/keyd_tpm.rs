//! The Keys Service on tpm2-pkcs11 over a software TPM: what differs from SoftHSM. What both can do is in `keyd_pairs`.
//!
//! tpm2-pkcs11 1.9 makes and uses key pairs (P-256, P-384, RSA to 3072 bits). It does not make keys for HMAC, does not do
//! AES-GCM, and takes no keys from outside: symmetric keys go to files, with a warning.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::thread;

use aziot_tests::back_end::{BackEnd, Site, ecdsa_body};
use aziot_tests::client::{eventually, request};
use aziot_tests::fixture::{self, HANDLE_KEY, VERSION};
use aziot_tests::token::{self, PIN};
use serde_json::json;

const INVALID: &str = "a parameter has an invalid value";
const INTERNAL: &str = "internal error";
const NOTHING: [&str; 0] = [];

#[test]
fn kp_04_symmetric_keys_go_to_files_with_a_warning() {
    let site = Site::new(BackEnd::Tpm);
    for (id, usage) in [("hmac", "derive,sign"), ("aes", "encrypt")] {
        let body = json!({ "keyId": id, "usage": usage });
        assert_eq!(site.keyd.post("/key", &body).status, 200);
        assert_eq!(fs::read(site.keyd.root.key_file(id)).unwrap().len(), 32);
        assert_eq!(site.token().classes(id), NOTHING, "nothing is left of it");
    }
    let imported = site.keyd.import("imported", b"any bytes");
    assert_eq!(
        site.keyd.sign(&imported, b"m").member("signature"),
        fixture::hmac(b"any bytes", b"m")
    );
    let log = site.keyd.daemon.log();
    for id in [HANDLE_KEY, "hmac", "aes", "imported"] {
        log.wait_for_all(&["[WARN]", &format!("{id:?}"), "filesystem", "C_", "CKR_"]);
    }
    assert_eq!(site.files().len(), 4);
}

#[test]
fn pairs_are_objects_and_outlive_both_processes() {
    let mut site = Site::new(BackEnd::Tpm);
    let (ec, rsa) = (site.pair("ec", "ec-p256"), site.pair("rsa", "rsa-2048"));
    for id in ["ec", "rsa"] {
        assert_eq!(site.token().classes(id), ["Private Key", "Public Key"]);
    }
    // Only the key that signs handles is a file.
    assert_eq!(site.files().len(), 1);
    let point = site.parameter(&ec, "ec-point").text().to_owned();
    let signature = site.rsa(&rsa, "RSA-PKCS1", b"m").text().to_owned();
    site = site.restart();
    assert_eq!(site.parameter(&ec, "ec-point").text(), point);
    assert_eq!(site.rsa(&rsa, "RSA-PKCS1", b"m").text(), signature);
    // A battery-backed device: both go, both come back.
    let mut tpm = site.tpm.take().unwrap();
    let (root, token) = (site.keyd.root, site.token.unwrap());
    site.keyd.daemon.kill();
    tpm.kill();
    tpm.resume(&root);
    let keyd = fixture::Keyd::launch(root, |launch| token.environment(launch));
    let body = ecdsa_body(&ec, &[1; 32]);
    assert_eq!(keyd.post("/sign", &body).status, 200);
    drop(tpm);
}

#[test]
fn a_tpm_that_is_restarted_needs_no_restart_of_the_service() {
    let mut site = Site::new(BackEnd::Tpm);
    let pair = site.pair("pair", "ec-p256");
    let key = site.keyd.create("key");
    let point = site.parameter(&pair, "ec-point").text().to_owned();
    site.tpm.as_mut().unwrap().kill();
    site.ecdsa(&pair, &[1; 32]).assert_message(500, INTERNAL);
    let log = site.keyd.daemon.log();
    log.wait_for_all(&["[ERR!]", "C_", "CKR_"]);
    site.tpm.as_mut().unwrap().resume(&site.keyd.root);
    eventually("the service finds the TPM again", || {
        site.ecdsa(&pair, &[1; 32]).status == 200
    });
    assert_eq!(site.parameter(&pair, "ec-point").text(), point);
    assert_eq!(site.keyd.sign(&key, b"m").status, 200);
}

#[test]
fn several_clients_share_the_tpm() {
    let site = Site::new(BackEnd::Tpm);
    let pairs: Vec<String> = (0..4)
        .map(|n| site.pair(&format!("pair{n}"), "ec-p256"))
        .collect();
    thread::scope(|scope| {
        for pair in &pairs {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut client = site.keyd.connect();
                    for n in 0..15 {
                        let body = ecdsa_body(pair, &[n; 32]);
                        let bytes = request("POST", &format!("/sign?{VERSION}"), Some(&body));
                        let response = client.exchange(bytes);
                        assert_eq!(response.status, 200, "{response}");
                    }
                });
            }
        }
    });
}

#[test]
fn kp_11_a_wrong_pin_is_tried_once() {
    let site = Site::recorded(BackEnd::Tpm);
    let pair = site.pair("pair", "ec-p256");
    let site = site.restart_after(|root, token| {
        let token = token.unwrap();
        let uri = token.uri(None).replace(PIN, "87654321");
        root.write(token::CONFIG, token::settings(token.module(), &uri));
    });
    let logins = site.recorder().count("C_Login");
    for _ in 0..3 {
        site.ecdsa(&pair, &[1; 32]);
        site.create_pair("other", Some("*"));
    }
    assert_eq!(site.recorder().count("C_Login"), logins + 1);
    let first = site.keyd.daemon.log().wait_for("C_Login");
    for part in ["CKR_PIN_INCORRECT", "pin-value", "restart"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let log = site.keyd.daemon.log().text();
    assert!(!log.contains("87654321"), "{log}");
    // The right one works at once: a single attempt locks nothing.
    let site = site.restart_after(|root, token| token.unwrap().configure(root));
    assert_eq!(site.ecdsa(&pair, &[1; 32]).status, 200);
}

#[test]
fn kp_06_what_the_tpm_cannot_make_is_refused() {
    let site = Site::new(BackEnd::Tpm);
    site.create_pair("big", Some("rsa-4096"))
        .assert_message(400, INVALID);
    assert_eq!(site.token().objects(), []);
    assert!(!site.keyd.root.key_file("big").exists());
    let log = site.keyd.daemon.log();
    log.wait_for_all(&["rsa-4096", "C_GenerateKeyPair", "CKR_"]);
}
