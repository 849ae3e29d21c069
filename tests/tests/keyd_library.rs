//! The Keys Service on key libraries by somebody else (spec, key library chapter A; keys chapter 9.3, 9.5).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use aziot_tests::binaries;
use aziot_tests::client::request;
use aziot_tests::daemon::Launch;
use aziot_tests::fixture::{self, HANDLE_KEY, Keyd, VERSION};
use aziot_tests::root::Root;
use aziot_tests::users;
use base64ct::{Base64, Encoding as _};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::sha::sha256;
use serde_json::json;

const INVALID: &str = "a parameter has an invalid value";

/// A Keys Service with a library compiled with these flags in the place of the default one.
fn launch(flags: &[&str], config: &str) -> (Root, Launch) {
    let root = Root::with_keyd(config);
    let directory = root.join("lib");
    binaries::compile_shared(
        "thirdparty_keys.c",
        flags,
        &["-lcrypto"],
        &directory,
        "libaziot_keys.so",
    );
    let launch = Launch::service("aziot-keyd", &root)
        .libraries(&directory)
        .env("THIRDPARTY_KEYS_LOG", root.join("calls"));
    (root, launch)
}

fn start(flags: &[&str], config: &str) -> Keyd {
    let (root, launch) = launch(flags, config);
    Keyd {
        daemon: launch.start(),
        root,
    }
}

/// What the library was asked, in order.
fn calls(root: &Root) -> Vec<String> {
    let record = fs::read_to_string(root.join("calls")).unwrap_or_default();
    record.lines().map(str::to_owned).collect()
}

/// Every answer into a buffer was preceded by the question for its size, and the buffer is as large as the answer said.
fn assert_two_calls(calls: &[String]) {
    let mut asked: Option<String> = None;
    for call in calls {
        let words: Vec<&str> = call.split(' ').collect();
        let output = match words[0] {
            "sign" => words
                .iter()
                .position(|word| *word == "NULL" || *word == "buffer")
                .map(|at| words[at]),
            "derive_key" | "encrypt" | "decrypt" => words.last().copied(),
            // The algorithm is read into four bytes with a single call.
            "get_key_pair_parameter" if words[2] == "1" => {
                assert_eq!(words[3], "buffer", "{call}");
                continue;
            }
            "get_key_pair_parameter" => Some(words[3]),
            _ => continue,
        };
        let question = match words[0] {
            "derive_key" => words[..2].join(" "),
            _ => words[..3].join(" "),
        };
        if output == Some("NULL") {
            asked = Some(question);
        } else {
            assert_eq!(
                asked.take(),
                Some(question),
                "without a question for the size: {call}\n{}",
                calls.join("\n")
            );
        }
    }
}

/// Whether OpenSSL takes a signature for one of the digest by the pair with this point.
fn verifies_on_p256(point: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&group, point, &mut context).unwrap();
    let public = EcKey::from_public_key(&group, &point).unwrap();
    let signature = EcdsaSig::from_der(signature).unwrap();
    signature.verify(digest, &public).unwrap()
}

fn use_everything(keyd: &Keyd) {
    let handle = keyd.import("k", b"bytes");
    assert_eq!(
        keyd.sign(&handle, b"m").member("signature"),
        fixture::hmac(b"bytes", b"m")
    );
    let derived = keyd.derive(&handle, b"d");
    assert_eq!(
        keyd.export(&derived).member("key"),
        fixture::hmac(b"bytes", b"d")
    );
    let inner = Base64::decode_vec(&fixture::hmac(b"bytes", b"d")).unwrap();
    assert_eq!(
        keyd.sign(&derived, b"m").member("signature"),
        fixture::hmac(&inner, b"m")
    );
    let generated = keyd.create("generated");
    assert_eq!(keyd.sign(&generated, b"m").status, 200);
    keyd.get("/key/nope").assert_message(400, INVALID);

    let pair = keyd
        .post(
            "/keypair",
            &json!({ "keyId": "p", "preferredAlgorithms": "rsa-4096:*" }),
        )
        .member("keyHandle");
    keyd.post(
        "/keypair",
        &json!({ "keyId": "p", "preferredAlgorithms": null }),
    );
    assert_eq!(keyd.get("/keypair/p").status, 200);
    let parameter = |name: &str| {
        keyd.post(
            &format!("/parameters/{name}"),
            &json!({ "keyHandle": pair }),
        )
    };
    assert_eq!(parameter("algorithm").json(), json!({ "value": "ECDSA" }));
    // Ten bytes, although the question for the size was answered with fifteen.
    assert_eq!(
        parameter("ec-curve-oid").json(),
        json!({ "value": "BggqhkjOPQMBBw==" })
    );
    let point = Base64::decode_vec(&parameter("ec-point").member("value")).unwrap();
    let digest = sha256(b"m");
    let body = json!({
        "keyHandle": pair,
        "algorithm": "ECDSA",
        "parameters": { "digest": Base64::encode_string(&digest) },
    });
    let signature = Base64::decode_vec(&keyd.post("/sign", &body).member("signature")).unwrap();
    assert!(verifies_on_p256(&point, &digest, &signature));
    assert!(!verifies_on_p256(&point, &sha256(b"n"), &signature));
    parameter("rsa-modulus").assert_message(400, INVALID);
    parameter("nonsense").assert_message(400, INVALID);

    let crypt = |path: &str, handle: &str, input: &str, text: &str| {
        let parameters = json!({ "iv": "aXY=", "aad": "YWFk" });
        keyd.post(path, &json!({ "keyHandle": handle, "algorithm": "AEAD", "parameters": parameters, input: text }))
    };
    assert_eq!(
        crypt("/encrypt", &handle, "plaintext", "AAD/").json(),
        json!({ "ciphertext": "//8A" })
    );
    assert_eq!(
        crypt("/decrypt", &derived, "ciphertext", "//8A").json(),
        json!({ "plaintext": "AAD/" })
    );
    for algorithm in ["RSA-PKCS1", "RSA-NO-PADDING"] {
        let body = json!({ "keyHandle": pair, "algorithm": algorithm, "parameters": null, "plaintext": "AA==" });
        assert_eq!(
            keyd.post("/encrypt", &body).json(),
            json!({ "ciphertext": "/w==" })
        );
    }
}

#[test]
fn ka_07_ks_27_a_library_with_2_0_0_0_only() {
    let keyd = start(&["-DONLY_2_0"], "");
    keyd.daemon
        .log()
        .wait_for("Loaded libaziot-keys with version 0x02000000");
    use_everything(&keyd);
    // What it cannot do succeeds without effect, as it always has; the log says so.
    let handle = keyd.get("/key/k").member("keyHandle");
    assert_eq!(keyd.delete("/key", &handle).status, 204);
    assert_eq!(
        keyd.sign(&handle, b"m").member("signature"),
        fixture::hmac(b"bytes", b"m")
    );
    let pair = keyd.get("/keypair/p").member("keyHandle");
    assert_eq!(keyd.delete("/keypair", &pair).status, 204);
    assert_eq!(
        keyd.post("/keypair/to", &json!({ "from": "p" })).status,
        204
    );
    for text in [
        "could not delete key:",
        "could not delete key pair:",
        "could not move key pair:",
    ] {
        let line = keyd.daemon.log().wait_for(text);
        assert!(
            line.contains("[WARN]") && line.contains("2.0.0.0"),
            "{line}"
        );
    }
    let calls = calls(&keyd.root);
    assert!(
        !calls
            .iter()
            .any(|call| call.starts_with("delete") || call.starts_with("move")),
        "{calls:?}"
    );
    let asked: Vec<&String> = calls
        .iter()
        .filter(|call| call.starts_with("get_function_list"))
        .collect();
    assert_eq!(
        asked.last().unwrap().as_str(),
        "get_function_list 0x02000000"
    );
    assert!(
        asked
            .iter()
            .any(|call| *call == "get_function_list 0x02010000"),
        "{asked:?}"
    );
}

#[test]
fn ks_27_2_1_0_0_is_preferred() {
    let keyd = start(&[], "");
    keyd.daemon
        .log()
        .wait_for("Loaded libaziot-keys with version 0x02010000");
    use_everything(&keyd);
    let handle = keyd.get("/key/k").member("keyHandle");
    assert_eq!(keyd.delete("/key", &handle).status, 204);
    keyd.sign(&handle, b"m").assert_message(400, INVALID);
    let pair = keyd.get("/keypair/p").member("keyHandle");
    assert_eq!(
        keyd.post("/keypair/t%20o", &json!({ "from": "p" })).status,
        204
    );
    assert_eq!(keyd.delete("/keypair", &pair).status, 204);
    let calls = calls(&keyd.root);
    for call in [
        "delete_key k",
        "move_key_pair p t o",
        "delete_key_pair p",
        "create_key_pair_if_not_exists p rsa-4096:*",
        "create_key_pair_if_not_exists p NULL",
        "import_key k 5 1",
    ] {
        assert!(calls.iter().any(|made| made == call), "{call}: {calls:?}");
    }
    assert!(
        !calls
            .iter()
            .any(|call| call == "get_function_list 0x02000000"),
        "{calls:?}"
    );
}

#[test]
fn ks_29_output_buffers() {
    for flags in [&[][..], &["-DSHORTER"]] {
        let keyd = start(flags, "");
        use_everything(&keyd);
        let calls = calls(&keyd.root);
        assert_two_calls(&calls);
        assert!(
            calls
                .iter()
                .any(|call| call.starts_with("sign k 2 no parameters NULL")),
            "{calls:?}"
        );
        assert!(
            calls
                .iter()
                .any(|call| call.starts_with("sign k 3 parameters NULL")),
            "{calls:?}"
        );
    }
}

#[test]
fn ks_29_a_library_that_overruns_its_buffer_ends_the_process() {
    let keyd = start(&["-DLONGER"], "");
    let handle = keyd.create("k");
    let mut client = keyd.connect();
    client.send(request(
        "POST",
        &format!("/sign?{VERSION}"),
        Some(&fixture::sign_body(&handle, b"m")),
    ));
    let finished = keyd.daemon.wait();
    assert_eq!(finished.status.signal(), Some(libc::SIGABRT));
    finished.assert_logged("[ERR!] - ").assert_logged("33");
    client.assert_closed();
}

#[test]
fn ka_08_libraries_that_are_refused() {
    for (flags, message) in [
        (&["-DNULL_VERIFY"][..], "library does not define verify"),
        (
            &["-DNULL_VERIFY", "-DONLY_2_0"],
            "library does not define verify",
        ),
        (
            &["-DLIST_VERSION=0x02020000"],
            "library exports API version 0x02020000 which is not supported",
        ),
        (
            &["-DNO_LIST=1"],
            "could not get function list: AZIOT_KEYS_RC_ERR_INVALID_PARAMETER",
        ),
        (
            &["-DNO_LIST=2"],
            "could not get function list: AZIOT_KEYS_RC_ERR_EXTERNAL",
        ),
        (
            &["-DNO_LIST=171"],
            "could not get function list: 0x000000ab",
        ),
    ] {
        let (root, launch) = launch(flags, "");
        let finished = launch.fails();
        finished.assert_logged("[ERR!] - service encountered an error");
        finished.assert_logged(&format!("[ERR!] - caused by: {message}"));
        assert!(!root.socket("keyd").exists());
    }
}

#[test]
fn ka_09_ks_28_parameters_and_their_order() {
    let config = "[preloaded_keys]\nb = \"file:///b\"\n\"a:b\" = \"pkcs11:token=x?pin-value=1\"\nB = \"anything\"\n\
                  [aziot_keys]\npkcs11_lib_path = \"/lib\"\nvendor_setting = \"v\"\npkcs11_base_slot = \"pkcs11:token=t\"\n";
    let root = Root::new();
    root.write("etc/aziot/keyd/config.d/a.toml", config);
    let (own, launched) = launch(&[], "");
    own.write("etc/aziot/keyd/config.d/a.toml", config);
    let keyd = Keyd {
        daemon: launched.start(),
        root: own,
    };
    let set: Vec<String> = calls(&keyd.root)
        .into_iter()
        .filter_map(|call| call.strip_prefix("set_parameter ").map(str::to_owned))
        .collect();
    assert_eq!(
        set,
        [
            format!(
                "homedir_path={}",
                keyd.root.join("var/lib/aziot/keyd").display()
            ),
            "pkcs11_base_slot=pkcs11:token=t".to_owned(),
            "pkcs11_lib_path=/lib".to_owned(),
            "vendor_setting=v".to_owned(),
            "preloaded_key:B=anything".to_owned(),
            "preloaded_key:a:b=pkcs11:token=x?pin-value=1".to_owned(),
            "preloaded_key:b=file:///b".to_owned(),
        ]
    );
    // They are sent once: a change of the configuration does not reach the library.
    keyd.root.write(
        "etc/aziot/keyd/config.d/b.toml",
        "[aziot_keys]\nlate = \"x\"\n[[principal]]\nuid = 1\nkeys = []\n",
    );
    let line = keyd.daemon.log().wait_for("restart");
    assert!(
        line.contains("[WARN]") && line.contains("aziot_keys"),
        "{line}"
    );
    keyd.daemon.log().wait_for("Config update finished.");
    assert!(!calls(&keyd.root).iter().any(|call| call.contains("late")));

    for (flags, config, named) in [
        (&["-DREFUSE=\"homedir_path\""][..], "", "homedir_path"),
        (
            &["-DREFUSE=\"preloaded_key:x\""],
            "[preloaded_keys]\nx = \"y\"\n",
            "preloaded_key:x",
        ),
    ] {
        let (_root, launch) = launch(flags, config);
        let text = format!(
            "could not set {named} parameter on library: AZIOT_KEYS_RC_ERR_INVALID_PARAMETER"
        );
        launch
            .fails()
            .assert_logged("service encountered an error")
            .assert_logged(&format!("caused by: {text}"));
    }
    let (_root, refused) = launch(&[], "[preloaded_keys]\nfoo = \"a\\u0000b\"\n");
    refused.fails().assert_logged(
        "location of key ID \"foo\" in [preloaded_keys] section of the configuration could not be converted to a C string",
    );
    // The default library refuses what it does not know.
    let root = Root::with_keyd("[preloaded_keys]\nx = \"ftp://x\"\n");
    Launch::service("aziot-keyd", &root).fails().assert_logged(
        "could not set preloaded_key:x parameter on library: AZIOT_KEYS_RC_ERR_INVALID_PARAMETER",
    );
    let root = Root::new();
    root.write(
        "etc/aziot/keyd/config.toml",
        "[aziot_keys]\nfoo = \"bar\"\n",
    );
    Launch::service("aziot-keyd", &root).fails().assert_logged(
        "could not set foo parameter on library: AZIOT_KEYS_RC_ERR_INVALID_PARAMETER",
    );
}

#[test]
fn ks_26_answers_of_the_library() {
    let keyd = start(&[], "");
    for (id, status, text) in [
        ("rc-1", 400, INVALID),
        ("rc-2", 500, "internal error"),
        ("rc-3", 500, "internal error"),
        ("rc-7", 500, "internal error"),
        ("rc-4294967295", 500, "internal error"),
    ] {
        keyd.get(&format!("/key/{id}")).assert_message(status, text);
        keyd.get(&format!("/keypair/{id}"))
            .assert_message(status, text);
        keyd.post("/key", &json!({ "keyId": id, "usage": "sign" }))
            .assert_message(status, text);
        keyd.post("/keypair", &json!({ "keyId": id }))
            .assert_message(status, text);
        keyd.post("/keypair/to", &json!({ "from": id }))
            .assert_message(status, text);
        let handle = keyd.import(id, b"bytes");
        keyd.sign(&handle, b"m").assert_message(status, text);
        keyd.export(&keyd.derive(&handle, b"d"))
            .assert_message(status, text);
        keyd.post("/parameters/algorithm", &json!({ "keyHandle": handle }))
            .assert_message(status, text);
        let aead = json!({ "keyHandle": handle, "algorithm": "AEAD", "parameters": { "iv": "", "aad": "" }, "plaintext": "" });
        keyd.post("/encrypt", &aead).assert_message(status, text);
        keyd.delete("/key", &handle).assert_message(status, text);
    }
    for text in [
        "[ERR!] - !!! internal error",
        "[ERR!] - !!! caused by: could not load key: AZIOT_KEYS_RC_ERR_EXTERNAL",
        "[ERR!] - !!! caused by: could not create key: 0x00000007",
        "[ERR!] - !!! caused by: could not sign: 0xffffffff",
        "[INFO] - !!! a parameter has an invalid value",
    ] {
        keyd.daemon.log().wait_for(text);
    }
    // Whatever goes wrong with the key that signs handles is no mistake of the client.
    for rc in ["1", "2", "9"] {
        let keyd = start(&[&format!("-DHANDLE_KEY_RC={rc}")], "");
        keyd.post("/key", &json!({ "keyId": "k", "usage": "sign" }))
            .assert_message(500, "internal error");
        keyd.sign(fixture::A, b"m")
            .assert_message(500, "internal error");
        keyd.sign("", b"m").assert_message(
            400,
            "parameter \"handle\" has an invalid value\ncaused by: invalid handle",
        );
    }
}

#[test]
fn library_calls_never_overlap() {
    let keyd = start(&["-DSLOW_MS=3"], "max_requests = 100\n");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let keyd = &keyd;
            scope.spawn(move || {
                for n in 0..10 {
                    let handle = keyd.create(&format!("k{thread}"));
                    assert_eq!(keyd.sign(&handle, b"m").status, 200, "{thread} {n}");
                }
            });
        }
    });
    let calls = calls(&keyd.root);
    assert!(calls.len() > 200, "{}", calls.len());
    assert!(
        !calls.iter().any(|call| call == "OVERLAP"),
        "calls overlapped"
    );
    // The handle key is made, with the usage for signing, before anything is signed with it.
    let first = calls.iter().find(|call| call.contains(HANDLE_KEY)).unwrap();
    assert_eq!(first, &format!("create_key_if_not_exists {HANDLE_KEY} 1"));
}

#[test]
fn ks_36_a_long_call_delays_nobody_who_needs_no_library() {
    let keyd = start(&["-DSLOW_MS=4000"], "");
    let mut slow = keyd.connect();
    let start = Instant::now();
    slow.send(request(
        "POST",
        &format!("/key?{VERSION}"),
        Some(&json!({ "keyId": "slow", "usage": "sign" })),
    ));
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..3 {
        keyd.get("/nope").assert_message(404, "not found");
        keyd.post("/key", &json!({ "keyId": 1 }));
        keyd.post("/keypair/a", &json!({ "from": "a" }));
        if users::can_change("an unauthorised user beside a slow request") {
            let response =
                keyd.connect_as(1000)
                    .exchange(request("GET", &format!("/key/x?{VERSION}"), None));
            assert_eq!(response.status, 401);
        }
    }
    // The configuration is read again meanwhile, too.
    keyd.root.write(
        "etc/aziot/keyd/config.d/a.toml",
        "[[principal]]\nuid = 1000\nkeys = [\"x\"]\n",
    );
    keyd.daemon.log().wait_for("Config update finished.");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert!(!slow.is_closed(), "the slow request is still waiting");
    assert_eq!(slow.response().status, 200);
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}
