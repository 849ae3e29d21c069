//! Stores that change hands between our Keys Service and that of release 1.6.0: its state works with ours, and what ours
//! writes is what the contract says, as OpenSSL's own program and a few lines here see it.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use aziot_tests::back_end::{BackEnd, Site, bytes};
use aziot_tests::binaries;
use aziot_tests::fixture::{self, HANDLE_KEY, Keyd};
use aziot_tests::root::{Root, copy_tree};
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

/// Runs OpenSSL's program.
fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`openssl`; `make test` installs it");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "openssl {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The result that release 1.6.0 gave.
fn result(name: &str) -> Value {
    let path = binaries::sources().join(format!("fixtures/reference-1.6.0/results/{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The Keys Service on the state that release 1.6.0 left.
fn on_its_state() -> Keyd {
    let state = binaries::sources().join("fixtures/reference-1.6.0");
    let root = Root::with_keyd("");
    copy_tree(
        &state.join("var/lib/aziot/keyd"),
        &root.join("var/lib/aziot/keyd"),
    );
    Keyd::on(root)
}

#[test]
fn everything_that_1_6_0_answered_is_answered_the_same() {
    let keyd = on_its_state();
    let handle = |name: &str| result(name)["keyHandle"].as_str().unwrap().to_owned();
    let (ec, rsa) = (handle("keypair-ec"), handle("keypair-rsa2048"));
    for (pair, kind, names) in [
        (&ec, "ec", ["algorithm", "ec-curve-oid", "ec-point"]),
        (&rsa, "rsa", ["algorithm", "rsa-modulus", "rsa-exponent"]),
    ] {
        for name in names {
            let response = keyd.post(
                &format!("/parameters/{name}"),
                &json!({ "keyHandle": pair }),
            );
            assert_eq!(response.json(), result(&format!("{kind}.{name}")), "{name}");
        }
    }
    let imported = handle("key-sym-imported");
    let aead = |path: &str, member: &str, value: &str| {
        let body = json!({
            "keyHandle": imported, "algorithm": "AEAD",
            "parameters": { "iv": Base64::encode_string(b"iviviviviviv"), "aad": Base64::encode_string(b"aad") },
            member: value,
        });
        keyd.post(path, &body).json()
    };
    let text = Base64::encode_string(b"secret text");
    let sealed = result("encrypt-aead");
    assert_eq!(aead("/encrypt", "plaintext", &text), sealed);
    assert_eq!(
        aead(
            "/decrypt",
            "ciphertext",
            sealed["ciphertext"].as_str().unwrap()
        ),
        json!({ "plaintext": text })
    );
    let generated = handle("key-sym-gen");
    assert_eq!(keyd.sign(&generated, b"hello").json(), result("sign-hmac"));
    let derived = handle("derivedkey-of-sym-gen");
    assert_eq!(keyd.export(&derived).json(), result("derivedkey-export"));
    let anew = keyd.derive(&generated, b"module-a");
    assert_eq!(keyd.export(&anew).json(), result("derivedkey-export"));
    let unicode = handle("keypair-unicode");
    let response = keyd.post("/parameters/algorithm", &json!({ "keyHandle": unicode }));
    assert_eq!(response.member("value"), "ECDSA");
    // Its ids lead to the same keys.
    for (path, name) in [
        ("/key/sym-gen", "key-sym-gen"),
        ("/key/odd%20%26%20id%3F", "key-odd"),
        ("/keypair/ec", "keypair-ec"),
        (
            "/keypair/%C3%9Cn%C3%AFcode%20id%2Fwith%20slash",
            "keypair-unicode",
        ),
    ] {
        let loaded = keyd.get(path).member("keyHandle");
        let id = |handle: &str| -> Value {
            serde_json::from_str::<Value>(&fixture::handle_text(handle)).unwrap()["key_id"].clone()
        };
        assert_eq!(id(&loaded), id(&handle(name)), "{path}");
    }
}

/// Bytes of the private key that 1.6.0 wrote, in its store, stay as they are as long as nobody asks for a change.
#[test]
fn its_store_is_not_rewritten() {
    let state = binaries::sources().join("fixtures/reference-1.6.0/var/lib/aziot/keyd/keys");
    let keyd = on_its_state();
    for id in ["ec", "rsa2048"] {
        let body = json!({ "keyId": id, "preferredAlgorithms": "*" });
        assert_eq!(keyd.post("/keypair", &body).status, 200);
    }
    for id in ["sym-gen", "sym-imported"] {
        keyd.create(id);
    }
    let names = |directory: &Path| -> BTreeSet<String> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let ours = keyd.root.join("var/lib/aziot/keyd/keys");
    assert_eq!(names(&ours), names(&state));
    for name in names(&state) {
        assert_eq!(
            fs::read(ours.join(&name)).unwrap(),
            fs::read(state.join(&name)).unwrap(),
            "{name}"
        );
    }
}

/// The name of a key's file, as OpenSSL computes the digest in it.
fn file_name(id: &str) -> String {
    let digest = openssl(&["dgst", "-sha256", "-r"], id.as_bytes());
    let hex = String::from_utf8(digest).unwrap();
    let plain: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{plain}-{}.key", hex.split(' ').next().unwrap())
}

#[test]
fn kf_01_kf_02_what_ours_writes_an_independent_reader_finds() {
    let site = Site::new(BackEnd::Files);
    let keys = site.keyd.root.join("var/lib/aziot/keyd/keys");
    let mut expected = BTreeSet::from([file_name(HANDLE_KEY)]);
    for (id, algorithm, text) in [
        ("ec", "ec-p256", "ASN1 OID: prime256v1"),
        ("Ünï/cödé key", "ec-p384", "ASN1 OID: secp384r1"),
        ("rsa 2048", "rsa-2048", "Private-Key: (2048 bit"),
    ] {
        let handle = site.pair(id, algorithm);
        let path = keys.join(file_name(id));
        let path = path.to_str().unwrap();
        expected.insert(file_name(id));
        let pem = fs::read_to_string(path).unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{pem}");
        assert!(pem.ends_with("-----END PRIVATE KEY-----\n"), "{pem}");
        let described = openssl(&["pkey", "-in", path, "-noout", "-text", "-check"], b"");
        let described = String::from_utf8(described).unwrap();
        assert!(described.contains(text), "{described}");
        assert!(described.contains("Key is valid"), "{described}");
        // The pair in the file is the one whose parameters the service gives out.
        if algorithm == "rsa-2048" {
            let modulus = openssl(&["rsa", "-in", path, "-noout", "-modulus"], b"");
            let ours: String = bytes(&site.parameter(&handle, "rsa-modulus"), "value")
                .iter()
                .map(|byte| format!("{byte:02X}"))
                .collect();
            assert_eq!(
                String::from_utf8(modulus).unwrap().trim(),
                format!("Modulus={ours}")
            );
            let message = [0x30, 0x31, 0x30];
            let signature = bytes(&site.rsa(&handle, "RSA-PKCS1", &message), "ciphertext");
            let recovered = openssl(
                &[
                    "pkeyutl",
                    "-verifyrecover",
                    "-inkey",
                    path,
                    "-in",
                    "/dev/stdin",
                ],
                &signature,
            );
            assert_eq!(recovered, message);
        } else {
            let der = openssl(
                &[
                    "ec",
                    "-in",
                    path,
                    "-pubout",
                    "-conv_form",
                    "compressed",
                    "-outform",
                    "DER",
                ],
                b"",
            );
            let point = bytes(&site.parameter(&handle, "ec-point"), "value");
            assert!(der.ends_with(&point), "{der:02x?}");
            let digest = [0x5a; 32];
            let signature = bytes(&site.ecdsa(&handle, &digest), "signature");
            let file = site.keyd.root.write("signature", signature);
            let verdict = openssl(
                &[
                    "pkeyutl",
                    "-verify",
                    "-inkey",
                    path,
                    "-sigfile",
                    file.to_str().unwrap(),
                    "-in",
                    "/dev/stdin",
                ],
                &digest,
            );
            assert!(String::from_utf8(verdict).unwrap().contains("Success"));
        }
    }
    // P-256 as 1.6.0 writes it: curve in the outer structure only, public key inside.
    let dump = |path: &Path| {
        let dumped = openssl(&["asn1parse", "-in", path.to_str().unwrap()], b"");
        let text = String::from_utf8(dumped).unwrap();
        // Without the numbers that are the key.
        text.lines()
            .map(|line| line.split("[HEX DUMP]").next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let its = binaries::sources().join("fixtures/reference-1.6.0/var/lib/aziot/keyd/keys");
    assert_eq!(
        dump(&keys.join(file_name("ec"))),
        dump(&its.join(file_name("ec")))
    );
    site.keyd.import("imported", b"any\nbytes\0");
    site.keyd.create("generated");
    for id in ["imported", "generated"] {
        expected.insert(file_name(id));
    }
    assert_eq!(
        fs::read(keys.join(file_name("imported"))).unwrap(),
        b"any\nbytes\0"
    );
    assert_eq!(
        fs::read(keys.join(file_name("generated"))).unwrap().len(),
        32
    );
    let handles = fs::read(keys.join(file_name(HANDLE_KEY))).unwrap();
    assert_eq!(handles.len(), 32);
    // The handle is signed with that key, so any implementation accepts it.
    let handle = site.keyd.get("/keypair/ec").member("keyHandle");
    let text = fixture::handle_text(&handle);
    let hex: String = handles.iter().map(|byte| format!("{byte:02x}")).collect();
    let option = format!("hexkey:{hex}");
    let mac = openssl(
        &[
            "dgst", "-sha256", "-mac", "HMAC", "-macopt", &option, "-binary",
        ],
        text.as_bytes(),
    );
    assert!(handle.ends_with(&format!("&sig={}", Base64::encode_string(&mac))));
    assert_eq!(site.files().into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn objects_that_1_6_0_would_have_made_on_a_token_are_used() {
    // As another program makes them: labels, nothing else in common.
    let site = Site::new(BackEnd::SoftHsm);
    let token = site.token();
    token.tool(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "device-id",
    ]);
    token.tool(&[
        "--keypairgen",
        "--key-type",
        "rsa:2048",
        "--label",
        "est-id",
        "--id",
        "77",
    ]);
    let ec = site.keyd.get("/keypair/device-id").member("keyHandle");
    assert_eq!(site.parameter(&ec, "algorithm").member("value"), "ECDSA");
    assert_eq!(site.ecdsa(&ec, &[1; 32]).status, 200);
    let rsa = site.keyd.get("/keypair/est-id").member("keyHandle");
    assert_eq!(site.parameter(&rsa, "algorithm").member("value"), "RSA");
    assert_eq!(site.rsa(&rsa, "RSA-PKCS1", b"m").status, 200);
    // Ours are found by others under the same labels, and can be told apart.
    site.pair("ours", "ec-p256");
    assert_eq!(token.classes("ours"), ["Private Key", "Public Key"]);
    let input = site.keyd.root.write("digest", [7; 32]);
    let output = site.keyd.root.join("signature");
    // By its id: pkcs11-tool pays no attention to the label when it signs.
    let id = private_key_id(
        &token.tool(&["--list-objects", "--type", "privkey"]),
        "ours",
    );
    token.tool(&[
        "--sign",
        "--mechanism",
        "ECDSA",
        "--id",
        &id,
        "--input-file",
        input.to_str().unwrap(),
        "--output-file",
        output.to_str().unwrap(),
    ]);
    assert_eq!(fs::read(output).unwrap().len(), 64);
}

/// The id of the object with this label, out of what `pkcs11-tool --list-objects` prints: an object to a paragraph that
/// begins at the left margin.
fn private_key_id(listing: &str, label: &str) -> String {
    let mut ours = false;
    for line in listing.lines() {
        match line.trim().split_once(':') {
            Some(("label", found)) => ours = found.trim() == label,
            Some(("ID", id)) if ours => return id.trim().to_owned(),
            _ if !line.starts_with(' ') => ours = false,
            _ => {}
        }
    }
    panic!("no id of {label} in:\n{listing}");
}
