//! Key pairs, encryption and moves, on every back end: files, SoftHSM, tpm2-pkcs11 (spec, keys chapter 5, 12).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;

use aziot_tests::back_end::{BackEnd, Site, aead_body, bytes, ecdsa_body, rsa_body};
use aziot_tests::client::{Response, request};
use aziot_tests::fixture::{self, A, B, C, D, HANDLE_KEY, VERSION};
use base64ct::{Base64, Encoding as _};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use serde_json::{Value, json};

const INVALID: &str = "a parameter has an invalid value";
const INTERNAL: &str = "internal error";
const MECHANISM: &str = "parameter \"mechanism\" has an invalid value\ncaused by: mechanism cannot be used with this key type";

/// The same test on back ends.
macro_rules! on {
    ($name:ident, $($back_end:ident)*) => {
        #[allow(non_snake_case, reason = "named after the back ends")]
        mod $name {
            $(
                #[test]
                fn $back_end() {
                    super::$name(super::back_end::$back_end);
                }
            )*
        }
    };
}

mod back_end {
    use super::BackEnd;

    #[allow(non_upper_case_globals, reason = "named like the tests")]
    pub const files: BackEnd = BackEnd::Files;
    #[allow(non_upper_case_globals, reason = "named like the tests")]
    pub const softhsm: BackEnd = BackEnd::SoftHsm;
    #[allow(non_upper_case_globals, reason = "named like the tests")]
    pub const tpm: BackEnd = BackEnd::Tpm;
}

fn sha256(data: &[u8]) -> Vec<u8> {
    hash(MessageDigest::sha256(), data).unwrap().to_vec()
}

/// The symmetric keys of the conformance fixture, whose handles are known.
fn with_fixture_keys(back_end: BackEnd) -> Site {
    let site = Site::new(back_end);
    let counting = |from: u8| (from..from + 32).collect::<Vec<u8>>();
    site.install(HANDLE_KEY, &counting(0), "sign");
    site.install("imp", b"test-symmetric-key", "derive,sign");
    site.install("aead", &counting(0x20), "encrypt");
    site
}

fn group(curve_oid: &[u8]) -> EcGroup {
    let nid = match curve_oid {
        [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Nid::X9_62_PRIME256V1,
        [6, 5, 0x2b, 0x81, 4, 0, 0x22] => Nid::SECP384R1,
        other => panic!("no curve {other:02x?}"),
    };
    EcGroup::from_curve_name(nid).unwrap()
}

/// The public key that the parameters of a pair describe.
fn public(site: &Site, handle: &str) -> EcKey<openssl::pkey::Public> {
    let group = group(&bytes(&site.parameter(handle, "ec-curve-oid"), "value"));
    let encoded = bytes(&site.parameter(handle, "ec-point"), "value");
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&group, &encoded, &mut context).unwrap();
    EcKey::from_public_key(&group, &point).unwrap()
}

/// Signs a digest and checks the signature under what the service says is the public key.
fn assert_signs(site: &Site, handle: &str) {
    let key = public(site, handle);
    let digest = sha256(handle.as_bytes());
    let response = site.ecdsa(handle, &digest);
    let der = bytes(&response, "signature");
    let signature = EcdsaSig::from_der(&der).unwrap();
    assert_eq!(
        signature.to_der().unwrap(),
        der,
        "DER with nothing after it"
    );
    assert!(signature.verify(&digest, &key).unwrap(), "{response}");
}

/// Modulus and exponent of an RSA pair.
fn rsa_public(site: &Site, handle: &str) -> (BigNum, BigNum, usize) {
    let modulus = bytes(&site.parameter(handle, "rsa-modulus"), "value");
    let exponent = bytes(&site.parameter(handle, "rsa-exponent"), "value");
    assert_ne!(modulus[0], 0, "no leading zero");
    (
        BigNum::from_slice(&modulus).unwrap(),
        BigNum::from_slice(&exponent).unwrap(),
        modulus.len(),
    )
}

/// `input` to the power of the public exponent, as long as the modulus.
fn raise(input: &[u8], (modulus, exponent, size): &(BigNum, BigNum, usize)) -> Vec<u8> {
    let mut result = BigNum::new().unwrap();
    let mut context = BigNumContext::new().unwrap();
    let input = BigNum::from_slice(input).unwrap();
    result
        .mod_exp(&input, exponent, modulus, &mut context)
        .unwrap();
    result.to_vec_padded(i32::try_from(*size).unwrap()).unwrap()
}

/// A block with padding of type 1.
fn padded(message: &[u8], size: usize) -> Vec<u8> {
    let mut block = vec![0, 1];
    block.resize(size - message.len() - 1, 0xff);
    block.push(0);
    block.extend_from_slice(message);
    block
}

on!(ks_12_v8_to_v10_encryption, files softhsm tpm);
fn ks_12_v8_to_v10_encryption(back_end: BackEnd) {
    let site = with_fixture_keys(back_end);
    let seal = |handle: &str| site.seal(handle, b"123456789012", b"aad", b"hello world");
    let sealed = "AtZwZ8LYz4WfYk+GWx3DRWkJkg2LY3bTwaw9lA==";
    assert_eq!(seal(C).json(), json!({ "ciphertext": sealed }));
    assert_eq!(seal(C).text().len(), 57);
    for form in [sealed, "AVsdw0VpCZINi2N208GsPZTWcGfC2M+Fn2JPhg=="] {
        let form = Base64::decode_vec(form).unwrap();
        let opened = site.open(C, b"123456789012", b"aad", &form);
        assert_eq!(opened.json(), json!({ "plaintext": "aGVsbG8gd29ybGQ=" }));
    }
    assert_eq!(
        seal(D).json(),
        json!({ "ciphertext": "AtjXcMCpdRnSU5KiBT0SLO5mytWySaRHecIwrA==" })
    );
    let opened = site.open(D, b"123456789012", b"aad", &bytes(&seal(D), "ciphertext"));
    assert_eq!(opened.json(), json!({ "plaintext": "aGVsbG8gd29ybGQ=" }));
    // The vectors for HMAC and derivation hold on every back end as well.
    let signed = site.keyd.sign(A, b"hello");
    assert_eq!(
        signed.member("signature"),
        "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="
    );
    assert_eq!(
        site.keyd.export(D).member("key"),
        "yLZvBM00dmFVt7pLNrj6I0mCFBZ81VltbTPIsXhROA8="
    );
    let signed = site.keyd.sign(D, b"hello");
    assert_eq!(
        signed.member("signature"),
        "4bn05rQ6bGyfX0Mpebcq7C0fcWj95Udp4N0/YKvqGmc="
    );
}

on!(kc_decryption_failures, files softhsm tpm);
fn kc_decryption_failures(back_end: BackEnd) {
    let site = with_fixture_keys(back_end);
    let iv = b"123456789012";
    let sealed = bytes(&site.seal(C, iv, b"aad", b"hello world"), "ciphertext");
    let open = |frame: &[u8]| site.open(C, iv, b"aad", frame);
    // Not a ciphertext at all.
    open(&[]).assert_message(400, INVALID);
    open(&sealed[..16]).assert_message(400, INVALID);
    for version in [0, 3, 0xff] {
        let mut other = sealed.clone();
        other[0] = version;
        open(&other).assert_message(400, INVALID);
    }
    // One that was changed, in each of its parts, or cut; no part of the plaintext comes out.
    for at in [1, 5, sealed.len() - 16, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        open(&changed).assert_message(500, INTERNAL);
    }
    open(&sealed[..sealed.len() - 1]).assert_message(500, INTERNAL);
    site.open(C, iv, b"other", &sealed)
        .assert_message(500, INTERNAL);
    site.open(C, b"other nonce.", b"aad", &sealed)
        .assert_message(500, INTERNAL);
    site.seal(C, b"", b"aad", b"hello")
        .assert_message(500, INTERNAL);
    site.open(C, b"", b"aad", &sealed)
        .assert_message(500, INTERNAL);
    assert_eq!(open(&sealed).status, 200);
    // Sizes around a block, no data at all, and another length of the nonce.
    for size in [0, 1, 15, 16, 17, 1000, 70_000] {
        let plaintext: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
        for iv in [&b"123456789012"[..], b"0123456789abcdef"] {
            let sealed = bytes(&site.seal(C, iv, b"", &plaintext), "ciphertext");
            assert_eq!((sealed[0], sealed.len()), (2, size + 17));
            let opened = site.open(C, iv, b"", &sealed);
            assert_eq!(bytes(&opened, "plaintext"), plaintext, "{size}");
        }
    }
}

#[test]
fn ks_12_v11_v12_the_published_pair_in_a_file() {
    let keyd = aziot_tests::fixture::Keyd::with_fixture();
    let parameter = |name: &str| {
        keyd.post(&format!("/parameters/{name}"), &json!({ "keyHandle": B }))
            .text()
            .to_owned()
    };
    assert_eq!(parameter("algorithm"), r#"{"value":"ECDSA"}"#);
    assert_eq!(parameter("ec-curve-oid"), r#"{"value":"BggqhkjOPQMBBw=="}"#);
    assert_eq!(
        parameter("ec-point"),
        r#"{"value":"A2D+1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p+2"}"#
    );
    let digest = sha256(b"hello");
    let response = keyd.post("/sign", &ecdsa_body(B, &digest));
    let signature = EcdsaSig::from_der(&bytes(&response, "signature")).unwrap();
    assert!(
        signature
            .verify(&digest, &fixture::pair().ec_key().unwrap())
            .unwrap()
    );
}

#[test]
fn ks_12_v11_v12_the_published_pair_on_a_token() {
    let site = Site::new(BackEnd::SoftHsm);
    let pair = fixture::pair();
    let private = site
        .keyd
        .root
        .write("pair", pair.private_key_to_der().unwrap());
    let public = site
        .keyd
        .root
        .write("public", pair.public_key_to_der().unwrap());
    for (kind, path) in [("privkey", &private), ("pubkey", &public)] {
        let path = path.to_str().unwrap();
        site.token().tool(&[
            "--write-object",
            path,
            "--type",
            kind,
            "--label",
            "kp",
            "--usage-sign",
        ]);
    }
    let handle = site.keyd.get("/keypair/kp").member("keyHandle");
    assert_eq!(
        site.parameter(&handle, "algorithm").member("value"),
        "ECDSA"
    );
    assert_eq!(
        site.parameter(&handle, "ec-point").member("value"),
        "A2D+1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p+2"
    );
    let digest = sha256(b"hello");
    let response = site.ecdsa(&handle, &digest);
    let signature = EcdsaSig::from_der(&bytes(&response, "signature")).unwrap();
    assert!(signature.verify(&digest, &pair.ec_key().unwrap()).unwrap());
}

on!(ks_12_v17_rsa, files softhsm tpm);
fn ks_12_v17_rsa(back_end: BackEnd) {
    let site = Site::new(back_end);
    let pair = site.pair("rsa", "rsa-2048");
    let public = rsa_public(&site, &pair);
    assert_eq!(public.2, 256);
    assert_eq!(
        site.parameter(&pair, "rsa-exponent").member("value"),
        "AQAB"
    );
    assert_eq!(site.parameter(&pair, "algorithm").member("value"), "RSA");
    // The longest message there is room for, none, and one like a digest's.
    for message in [&b""[..], b"message", &[0x41; 51], &[0x42; 245]] {
        let response = site.rsa(&pair, "RSA-PKCS1", message);
        let signature = bytes(&response, "ciphertext");
        assert_eq!(raise(&signature, &public), padded(message, 256));
        assert_eq!(
            site.rsa(&pair, "RSA-PKCS1", message).text(),
            response.text(),
            "the same every time"
        );
        let raw = site.rsa(&pair, "RSA-NO-PADDING", &padded(message, 256));
        assert_eq!(raw.text(), response.text());
    }
    // Lengths that do not fit never reach a token: SoftHSM would end the process.
    site.rsa(&pair, "RSA-PKCS1", &[0x41; 246])
        .assert_message(500, INTERNAL);
    for size in [0, 1, 255, 257, 4096] {
        site.rsa(&pair, "RSA-NO-PADDING", &vec![1; size])
            .assert_message(500, INTERNAL);
    }
    // Not below the modulus.
    site.rsa(&pair, "RSA-NO-PADDING", &[0xff; 256])
        .assert_message(500, INTERNAL);
    assert_eq!(site.rsa(&pair, "RSA-PKCS1", b"still there").status, 200);
}

on!(ks_18_an_existing_pair_is_kept, files softhsm tpm);
fn ks_18_an_existing_pair_is_kept(back_end: BackEnd) {
    let site = Site::new(back_end);
    let first = site.pair("pair", "ec-p256");
    let point = site.parameter(&first, "ec-point").member("value");
    for algorithms in [Some("rsa-2048"), Some("ec-p256"), Some("*"), None] {
        let again = site.create_pair("pair", algorithms).member("keyHandle");
        assert_ne!(again, first);
        assert_eq!(site.parameter(&again, "ec-point").member("value"), point);
    }
    assert_signs(&site, &first);
    let site = site.restart();
    let loaded = site.keyd.get("/keypair/pair").member("keyHandle");
    for handle in [&first, &loaded] {
        assert_eq!(site.parameter(handle, "ec-point").member("value"), point);
        assert_signs(&site, handle);
    }
}

on!(ks_20_ks_22_pairs_that_are_not_there, files softhsm tpm);
fn ks_20_ks_22_pairs_that_are_not_there(back_end: BackEnd) {
    let site = Site::new(back_end);
    site.keyd.get("/keypair/nope").assert_message(400, INVALID);
    let handle = site.pair("pair", "*");
    for _ in 0..2 {
        assert_eq!(site.keyd.delete("/keypair", &handle).status, 204);
    }
    site.keyd.get("/keypair/pair").assert_message(400, INVALID);
    site.ecdsa(&handle, &[1; 32]).assert_message(400, INVALID);
    site.parameter(&handle, "algorithm")
        .assert_message(400, INVALID);
    site.rsa(&handle, "RSA-PKCS1", b"m")
        .assert_message(400, INVALID);
    if let Some(token) = &site.token {
        assert_eq!(token.classes("pair"), [""; 0]);
    }
    // The old handle addresses what is stored under the id now.
    site.pair("pair", "ec-p256");
    assert_signs(&site, &handle);
    site.keyd.delete("/key", &handle).assert_message(
        400,
        "parameter \"handle\" has an invalid value\ncaused by: handle is not for a key",
    );
}

/// What a list of algorithms gives: the kind, and bytes of the point or modulus; none is 400.
type Wanted = Option<(&'static str, usize)>;

on!(ks_23_preferred_algorithms, files softhsm tpm);
fn ks_23_preferred_algorithms(back_end: BackEnd) {
    const EC: Wanted = Some(("ECDSA", 33));
    const P384: Wanted = Some(("ECDSA", 49));
    const RSA: Wanted = Some(("RSA", 256));
    let site = Site::new(back_end);
    let mut cases: Vec<(Option<&str>, Wanted)> = vec![
        (None, EC),
        (Some("*"), EC),
        (Some("ec-p256"), EC),
        (Some("ec-p384"), P384),
        (Some("rsa-2048"), RSA),
        (Some("foo:rsa-2048"), RSA),
        (Some("foo:*"), EC),
        (Some("rsa-2048:*"), RSA),
        (Some("ec-p256:rsa-2048:*"), EC),
        (Some(""), None),
        (Some("foo"), None),
        (Some("RSA-2048"), None),
        (Some("EC-P256"), None),
        (Some("ec-p256 "), None),
        (Some(":"), None),
        (Some("ec-p256,rsa-2048"), None),
    ];
    if back_end == BackEnd::Tpm {
        // What the TPM cannot make gives way to the next; without a next it fails.
        cases.push((Some("rsa-4096:ec-p256"), EC));
        cases.push((Some("rsa-4096"), None));
    } else {
        cases.push((Some("rsa-4096:ec-p256"), Some(("RSA", 512))));
    }
    for (number, (algorithms, wanted)) in cases.into_iter().enumerate() {
        let id = format!("pair{number}");
        let response = site.create_pair(&id, algorithms);
        let Some((kind, size)) = wanted else {
            response.assert_message(400, INVALID);
            site.keyd
                .get(&format!("/keypair/{id}"))
                .assert_message(400, INVALID);
            continue;
        };
        assert_eq!(response.status, 200, "{algorithms:?}: {response}");
        let handle = response.member("keyHandle");
        let found = site.parameter(&handle, "algorithm").member("value");
        assert_eq!(found, kind, "{algorithms:?}");
        let name = if kind == "RSA" {
            "rsa-modulus"
        } else {
            "ec-point"
        };
        assert_eq!(
            bytes(&site.parameter(&handle, name), "value").len(),
            size,
            "{algorithms:?}"
        );
        if kind == "ECDSA" {
            assert_signs(&site, &handle);
        }
    }
    let wrong = json!({ "keyId": "x", "preferredAlgorithms": ["ec-p256"] });
    assert_eq!(site.keyd.post("/keypair", &wrong).status, 422);
}

on!(ks_24_parameters, files softhsm tpm);
fn ks_24_parameters(back_end: BackEnd) {
    let site = Site::new(back_end);
    let ec = site.pair("ec", "ec-p256");
    let rsa = site.pair("rsa", "rsa-2048");
    assert_eq!(
        site.parameter(&ec, "ec-curve-oid").text(),
        r#"{"value":"BggqhkjOPQMBBw=="}"#
    );
    let point = bytes(&site.parameter(&ec, "ec-point"), "value");
    assert!(matches!(point[0], 2 | 3) && point.len() == 33, "{point:?}");
    assert_eq!(
        bytes(&site.parameter(&rsa, "rsa-modulus"), "value").len(),
        256
    );
    for (handle, names) in [
        (&ec, ["rsa-modulus", "rsa-exponent"]),
        (&rsa, ["ec-curve-oid", "ec-point"]),
    ] {
        for name in names {
            site.parameter(handle, name).assert_message(400, INVALID);
        }
        for name in ["Algorithm", "ec_point", "nope", "%20", "algorithm%00"] {
            site.parameter(handle, name).assert_message(400, INVALID);
        }
    }
    // The handle is looked at first; its kind is not.
    let broken = "parameter \"handle\" has an invalid value\ncaused by: invalid handle";
    site.parameter("x", "nope").assert_message(400, broken);
    site.parameter(&ec.replace("&sig=", "&sig=A"), "algorithm")
        .assert_message(400, broken);
    let derived = site.keyd.derive(&ec, b"data");
    assert_eq!(
        site.parameter(&derived, "algorithm").member("value"),
        "ECDSA"
    );
    // A symmetric key's file is no key pair; a token keeps the two kinds apart.
    let symmetric = site.keyd.create("symmetric");
    let response = site.parameter(&symmetric, "algorithm");
    if back_end == BackEnd::SoftHsm {
        response.assert_message(400, INVALID);
    } else {
        response.assert_message(500, INTERNAL);
    }
}

on!(ks_25_mechanisms_and_kinds, files softhsm tpm);
fn ks_25_mechanisms_and_kinds(back_end: BackEnd) {
    let site = Site::new(back_end);
    let (ec, rsa) = (site.pair("ec", "ec-p256"), site.pair("rsa", "rsa-2048"));
    let symmetric = site.keyd.import("symmetric", &[7; 32]);
    let sealing = site
        .keyd
        .post("/key", &json!({ "keyId": "sealing", "usage": "encrypt" }))
        .member("keyHandle");
    let derived = site.keyd.derive(&symmetric, b"data");
    let of_pair = site.keyd.derive(&ec, b"data");
    let iv = b"123456789012";
    let sealed = |handle: &str| bytes(&site.seal(handle, iv, b"", b"secret"), "ciphertext");
    let (by_key, by_derived) = (sealed(&sealing), sealed(&derived));

    let hmac = |handle: &str| ("/sign", fixture::sign_body(handle, b"m"));
    let ecdsa = |handle: &str| ("/sign", ecdsa_body(handle, &[1; 32]));
    let seal = |handle: &str| ("/encrypt", aead_body(handle, iv, b"", "plaintext", b"x"));
    let open = |handle: &str, sealed: &[u8]| {
        ("/decrypt", aead_body(handle, iv, b"", "ciphertext", sealed))
    };
    let pkcs1 = |handle: &str| ("/encrypt", rsa_body(handle, "RSA-PKCS1", b"m"));
    let raw = |handle: &str| ("/encrypt", rsa_body(handle, "RSA-NO-PADDING", &[1; 256]));
    let unseal = |handle: &str, algorithm: &str| {
        (
            "/decrypt",
            json!({ "keyHandle": handle, "algorithm": algorithm, "ciphertext": "" }),
        )
    };
    let fits = None;
    let kind = Some((400, MECHANISM));
    let type_of_key = Some((400, INVALID));
    let mut table = vec![
        (hmac(&symmetric), fits),
        (hmac(&derived), fits),
        (hmac(&ec), kind),
        (hmac(&rsa), kind),
        (ecdsa(&ec), fits),
        (ecdsa(&rsa), type_of_key),
        (ecdsa(&symmetric), kind),
        (ecdsa(&derived), kind),
        (ecdsa(&of_pair), kind),
        (seal(&sealing), fits),
        (seal(&derived), fits),
        (seal(&ec), kind),
        (seal(&rsa), kind),
        (open(&sealing, &by_key), fits),
        (open(&derived, &by_derived), fits),
        (open(&ec, &by_key), kind),
        (open(&rsa, &by_key), kind),
        (pkcs1(&rsa), fits),
        (raw(&rsa), fits),
        (pkcs1(&ec), type_of_key),
        (raw(&ec), type_of_key),
        (pkcs1(&symmetric), kind),
        (raw(&derived), kind),
    ];
    for handle in [&ec, &rsa, &symmetric, &derived] {
        for algorithm in ["RSA-PKCS1", "RSA-NO-PADDING"] {
            table.push((unseal(handle, algorithm), kind));
        }
    }
    for (number, ((path, body), expected)) in table.into_iter().enumerate() {
        let response = site.keyd.post(path, &body);
        match expected {
            None => assert_eq!(response.status, 200, "row {number}, {path}: {response}"),
            Some((status, message)) => {
                assert_eq!(
                    (response.status, response.member("message").as_str()),
                    (status, message),
                    "row {number}, {path}"
                );
            }
        }
    }
    // Values of `parameters` that RSA does not take.
    for parameters in [json!({}), json!({ "iv": "", "aad": "" }), json!(1)] {
        let body = json!({ "keyHandle": rsa, "algorithm": "RSA-PKCS1", "parameters": parameters, "plaintext": "" });
        assert_eq!(site.keyd.post("/encrypt", &body).status, 422, "{body}");
    }
    let null =
        json!({ "keyHandle": rsa, "algorithm": "RSA-PKCS1", "parameters": null, "plaintext": "" });
    assert_eq!(site.keyd.post("/encrypt", &null).status, 200);
    // Digests of any length.
    for size in [0, 1, 20, 31, 33, 48, 64, 1000] {
        let response = site.ecdsa(&ec, &vec![0x5a; size]);
        let der = bytes(&response, "signature");
        let digest = &vec![0x5a; size][..size.min(32)];
        let signature = EcdsaSig::from_der(&der).unwrap();
        assert!(
            signature.verify(digest, &public(&site, &ec)).unwrap(),
            "{size}"
        );
    }
}

on!(ks_21_moves, files softhsm tpm);
fn ks_21_moves(back_end: BackEnd) {
    let site = Site::new(back_end);
    let from = site.pair("from", "ec-p256");
    let point = |handle: &str| site.parameter(handle, "ec-point").member("value");
    let moved = point(&from);
    // To an id that is free.
    assert_eq!(site.move_pair("from", "to").status, 204);
    site.keyd.get("/keypair/from").assert_message(400, INVALID);
    site.ecdsa(&from, &[1; 32]).assert_message(400, INVALID);
    let to = site.keyd.get("/keypair/to").member("keyHandle");
    assert_eq!(point(&to), moved);
    assert_signs(&site, &to);
    // Over another pair, which is gone then; handles for the destination mean the new one.
    let next = site.pair("from", "ec-p256");
    let newer = point(&next);
    assert_ne!(newer, moved);
    assert_eq!(site.move_pair("from", "to").status, 204);
    assert_eq!(point(&to), newer);
    assert_signs(&site, &to);
    site.keyd.get("/keypair/from").assert_message(400, INVALID);
    // A missing source loses nothing.
    site.move_pair("nope", "to").assert_message(500, INTERNAL);
    assert_eq!(point(&to), newer);
    site.move_pair("to", "to")
        .assert_message(400, "source and destination for move are identical");
    assert_eq!(point(&to), newer);
    // Over a pair of the other kind, with ids that need encoding.
    let rsa = site.pair("a b/ü%", "rsa-2048");
    let modulus = site.parameter(&rsa, "rsa-modulus").member("value");
    assert_eq!(site.move_pair("a b/ü%", "to").status, 204);
    assert_eq!(site.parameter(&to, "rsa-modulus").member("value"), modulus);
    site.parameter(&to, "ec-point").assert_message(400, INVALID);
    if let Some(token) = &site.token {
        let pairs: Vec<_> = token
            .objects()
            .into_iter()
            .filter(|object| object.class != "Secret Key")
            .collect();
        assert_eq!(pairs.len(), 2, "one pair is left: {pairs:?}");
        assert!(pairs.iter().all(|object| object.label == "to"), "{pairs:?}");
    }
    let site = site.restart();
    assert_eq!(site.parameter(&to, "rsa-modulus").member("value"), modulus);
    site.keyd.get("/keypair/from").assert_message(400, INVALID);
}

/// Requests of every operation that must succeed, on the keys that [`prepare`] makes. The last ones change something.
fn operations(site: &Site) -> Vec<(&'static str, String, Option<Value>, u16)> {
    let ec = site.pair("ec", "ec-p256");
    let rsa = site.pair("rsa", "rsa-2048");
    let symmetric = site.keyd.import("symmetric", &[7; 32]);
    let sealing = site
        .keyd
        .post("/key", &json!({ "keyId": "sealing", "usage": "encrypt" }))
        .member("keyHandle");
    let derived = site.keyd.derive(&symmetric, b"data");
    let iv = b"123456789012";
    let sealed = bytes(&site.seal(&sealing, iv, b"aad", b"secret"), "ciphertext");
    let handle = |handle: &str| Some(json!({ "keyHandle": handle }));
    let pair = |id: &str| Some(json!({ "keyId": id, "preferredAlgorithms": "ec-p256" }));
    let key = |bytes: Value| Some(json!({ "keyId": "fresh", "keyBytes": bytes, "usage": "sign" }));
    let text = str::to_owned;
    vec![
        ("POST", text("/key"), key(Value::Null), 200),
        ("POST", text("/key"), key(json!("QUJD")), 200),
        ("GET", text("/key/symmetric"), None, 200),
        ("POST", text("/keypair"), pair("fresh pair"), 200),
        ("GET", text("/keypair/ec"), None, 200),
        ("POST", text("/parameters/algorithm"), handle(&ec), 200),
        ("POST", text("/parameters/ec-curve-oid"), handle(&ec), 200),
        ("POST", text("/parameters/ec-point"), handle(&ec), 200),
        ("POST", text("/parameters/rsa-modulus"), handle(&rsa), 200),
        ("POST", text("/parameters/rsa-exponent"), handle(&rsa), 200),
        (
            "POST",
            text("/derivedkey"),
            Some(json!({ "baseKeyHandle": symmetric, "derivationData": "QUJD" })),
            200,
        ),
        ("POST", text("/derivedkey/export"), handle(&derived), 200),
        (
            "POST",
            text("/sign"),
            Some(fixture::sign_body(&symmetric, b"a message")),
            200,
        ),
        ("POST", text("/sign"), Some(ecdsa_body(&ec, &[3; 32])), 200),
        (
            "POST",
            text("/encrypt"),
            Some(aead_body(&sealing, iv, b"aad", "plaintext", b"secret")),
            200,
        ),
        (
            "POST",
            text("/encrypt"),
            Some(rsa_body(&rsa, "RSA-PKCS1", b"message to RSA")),
            200,
        ),
        (
            "POST",
            text("/decrypt"),
            Some(aead_body(&sealing, iv, b"aad", "ciphertext", &sealed)),
            200,
        ),
        (
            "POST",
            text("/keypair/moved"),
            Some(json!({ "from": "ec" })),
            204,
        ),
        ("DELETE", text("/key"), handle(&symmetric), 204),
        ("DELETE", text("/keypair"), handle(&rsa), 204),
    ]
}

fn carry_out(
    site: &Site,
    version: &str,
    (method, path, body, status): &(&str, String, Option<Value>, u16),
) -> Response {
    let target = format!("{path}?api-version={version}");
    let response = site
        .keyd
        .connect()
        .exchange(request(method, &target, body.as_ref()));
    response.assert_framing();
    assert_eq!(
        response.status, *status,
        "{method} {target} {body:?}: {response}"
    );
    response
}

on!(ks_02_every_operation_under_both_versions, files softhsm tpm);
fn ks_02_every_operation_under_both_versions(back_end: BackEnd) {
    let site = Site::new(back_end);
    for version in ["2020-09-01", "2021-05-01"] {
        for operation in operations(&site) {
            carry_out(&site, version, &operation);
        }
    }
}

on!(ks_38_the_log_keeps_secrets_of_every_operation, files softhsm tpm);
fn ks_38_the_log_keeps_secrets_of_every_operation(back_end: BackEnd) {
    let site = Site::start(back_end, false, "", |launch| {
        launch.env("AZIOT_LOG", "trace")
    });
    let operations = operations(&site);
    let mut secrets: Vec<String> = Vec::new();
    // Whatever was sent or came back in Base64, or is a handle's.
    fn collect(value: &Value, name: &str, secrets: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    collect(value, name, secrets);
                }
            }
            Value::String(text) if name.to_lowercase().ends_with("handle") => {
                let (sr, sig) = text.split_once("&sig=").unwrap();
                secrets.extend([sr[3..60].to_owned(), sig.to_owned()]);
            }
            Value::String(text) => {
                let secret = [
                    "plaintext",
                    "ciphertext",
                    "key",
                    "keyBytes",
                    "signature",
                    "message",
                    "digest",
                    "derivationData",
                ];
                if secret.contains(&name) && text.len() > 4 {
                    secrets.push(text.clone());
                }
            }
            _ => {}
        }
    }
    for operation in &operations {
        let response = carry_out(&site, "2021-05-01", operation);
        if let Some(body) = &operation.2 {
            collect(body, "", &mut secrets);
        }
        if response.status == 200 {
            collect(&response.json(), "", &mut secrets);
        }
    }
    // Failures are where secrets slip out: the same again with keys that are gone, and with other inputs.
    for (method, path, body, _) in &operations {
        let mut body = body.clone();
        if let Some(Value::Object(members)) = &mut body {
            members.remove("algorithm");
            members.remove("usage");
        }
        for body in [body, Some(json!("secret text"))] {
            let target = format!("{path}?{VERSION}");
            site.keyd
                .connect()
                .exchange(request(method, &target, body.as_ref()));
        }
    }
    secrets.extend(["a message", "message to RSA", "secret text"].map(str::to_owned));
    secrets.push(Base64::encode_string(&[7; 32]));
    if site.token.is_some() {
        secrets.push(aziot_tests::token::PIN.to_owned());
    }
    for file in site.files() {
        let path = site.keyd.root.join("var/lib/aziot/keyd/keys").join(file);
        let content = fs::read(path).unwrap();
        secrets.push(Base64::encode_string(&content).chars().take(24).collect());
        if let Ok(text) = String::from_utf8(content) {
            secrets.extend(text.lines().nth(1).map(str::to_owned));
        }
    }
    let log = site.keyd.daemon.stop().log;
    assert!(secrets.len() > 30, "{}", secrets.len());
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret:?} is in the log:\n{log}");
    }
    assert!(log.contains("<-- POST /encrypt"), "{log}");
}

on!(kf_a_key_of_one_kind_is_not_used_as_the_other, files tpm);
fn kf_a_key_of_one_kind_is_not_used_as_the_other(back_end: BackEnd) {
    let site = Site::new(back_end);
    let symmetric = site.keyd.import("symmetric", b"an imported key");
    let file = site.keyd.root.key_file("symmetric");
    let response = site.create_pair("symmetric", Some("ec-p256"));
    if back_end == BackEnd::Files {
        response.assert_message(500, INTERNAL);
        site.keyd
            .get("/keypair/symmetric")
            .assert_message(500, INTERNAL);
    } else {
        assert_eq!(response.status, 200, "the token has room for it");
    }
    assert_eq!(fs::read(&file).unwrap(), b"an imported key");
    assert_eq!(
        site.keyd.sign(&symmetric, b"m").member("signature"),
        fixture::hmac(b"an imported key", b"m")
    );
    if back_end == BackEnd::Files {
        let pair = site.pair("pair", "ec-p256");
        let file = site.keyd.root.key_file("pair");
        let before = fs::read(&file).unwrap();
        let create = json!({ "keyId": "pair", "usage": "sign" });
        let import = json!({ "keyId": "pair", "keyBytes": "QUJD", "usage": "sign" });
        for response in [
            site.keyd.get("/key/pair"),
            site.keyd.post("/key", &create),
            site.keyd.post("/key", &import),
        ] {
            response.assert_message(400, INVALID);
        }
        assert_eq!(fs::read(&file).unwrap(), before);
        assert_signs(&site, &pair);
    }
}
