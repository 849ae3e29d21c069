//! Key pairs in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aziot_crypto::keys_abi::*;

use crate::common::{Keys, file_uri, hex, openssl, scratch};
use crate::store_reader::file_of;
use crate::vectors::{DIGEST_INFO, RSA_SIGNATURE_HASH, rsa_key};

const INVALID: Rc = Rc::INVALID_PARAMETER;
const ALGORITHM: u32 = KEY_PAIR_PARAMETER_TYPE_ALGORITHM;
const CURVE_OID: u32 = KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID;
const POINT: u32 = KEY_PAIR_PARAMETER_TYPE_EC_POINT;
const MODULUS: u32 = KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS;
const EXPONENT: u32 = KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT;
const PKCS1: u32 = ENCRYPT_MECHANISM_RSA_PKCS1;
const NO_PADDING: u32 = ENCRYPT_MECHANISM_RSA_NO_PADDING;

/// The order of parameters in the tables below.
const PARAMETERS: [u32; 5] = [ALGORITHM, CURVE_OID, POINT, MODULUS, EXPONENT];

/// A new private key in PEM, PKCS #8.
fn genpkey(arguments: &[&str]) -> String {
    let all: Vec<&str> = ["genpkey", "-quiet"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    String::from_utf8(openssl(&all, b"")).unwrap()
}

fn ec(curve: &str) -> String {
    genpkey(&[
        "-algorithm",
        "EC",
        "-pkeyopt",
        &format!("ec_paramgen_curve:{curve}"),
    ])
}

fn rsa(bits: u32) -> String {
    genpkey(&[
        "-algorithm",
        "RSA",
        "-pkeyopt",
        &format!("rsa_keygen_bits:{bits}"),
    ])
}

/// A library with this PEM, or whatever it is, as the location of the key `k`.
fn with_file(home: &Path, content: &[u8]) -> Keys {
    let path = home.join("k.pem");
    fs::write(&path, content).unwrap();
    let keys = Keys::with_home(home);
    assert_eq!(keys.preload("k", &file_uri(&path)), Rc::OK);
    keys
}

#[test]
fn kf_02_a_generated_pair_is_pkcs_8_in_pem() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for (id, algorithms, kind) in [
        ("ec", "ec-p256", "ASN1 OID: prime256v1"),
        ("p384", "ec-p384", "ASN1 OID: secp384r1"),
        ("rsa", "rsa-2048", "Private-Key: (2048 bit, 2 primes)"),
    ] {
        assert_eq!(keys.create_pair(id, Some(algorithms)), Rc::OK);
        let path = file_of(&home, id);
        let pem = fs::read(&path).unwrap();
        assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert!(pem.ends_with(b"\n-----END PRIVATE KEY-----\n"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = String::from_utf8(openssl(&["pkey", "-text", "-noout"], &pem)).unwrap();
        assert!(text.contains(kind), "{text}");
    }
    let mode = fs::metadata(home.join("keys"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn kf_09_preferred_algorithms() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    let (ec, rsa) = (
        KEY_PAIR_PARAMETER_ALGORITHM_EC,
        KEY_PAIR_PARAMETER_ALGORITHM_RSA,
    );
    for (preferred, expected) in [
        (None, Some(ec)),
        (Some("*"), Some(ec)),
        (Some("ec-p256"), Some(ec)),
        (Some("rsa-2048:ec-p256"), Some(rsa)),
        (Some("foo:rsa-2048"), Some(rsa)),
        (Some("foo:*"), Some(ec)),
        (Some("foo"), None),
        (Some(""), None),
        (Some("EC-P256"), None),
        (Some("ec-p256 "), None),
    ] {
        let created = keys.create_pair("k", preferred);
        match expected {
            None => {
                assert_eq!(created, INVALID, "{preferred:?}");
                assert_eq!(keys.load_pair("k"), INVALID);
            }
            Some(expected) => {
                assert_eq!(created, Rc::OK, "{preferred:?}");
                assert_eq!(keys.algorithm("k").unwrap(), expected, "{preferred:?}");
                assert_eq!(keys.delete_pair("k"), Rc::OK);
            }
        }
    }
    assert_eq!(keys.create_pair("large", Some("rsa-4096")), Rc::OK);
    assert_eq!(keys.parameter("large", MODULUS).unwrap().len(), 512);
}

#[test]
fn kf_10_create_leaves_an_existing_pair() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.create_pair("k", Some("ec-p256")), Rc::OK);
    let before = fs::read(file_of(&home, "k")).unwrap();
    for algorithms in [
        None,
        Some("*"),
        Some("rsa-2048"),
        Some("ec-p384"),
        Some("ec-p256"),
    ] {
        assert_eq!(keys.create_pair("k", algorithms), Rc::OK);
    }
    assert_eq!(fs::read(file_of(&home, "k")).unwrap(), before);
}

#[test]
fn kf_11_missing_pairs() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.load_pair("k"), INVALID);
    assert_eq!(keys.delete_pair("k"), Rc::OK);
    assert_eq!(keys.ecdsa("k", &[1; 32]), Err(INVALID));
    assert_eq!(keys.rsa("k", PKCS1, b"x"), Err(INVALID));
    for parameter in PARAMETERS {
        assert_eq!(keys.parameter("k", parameter), Err(INVALID));
    }
    assert_eq!(keys.create_pair("target", None), Rc::OK);
    let before = fs::read(file_of(&home, "target")).unwrap();
    assert_eq!(keys.move_pair("k", "target"), Rc::EXTERNAL);
    assert_eq!(keys.move_pair("target", "target"), Rc::OK);
    assert_eq!(fs::read(file_of(&home, "target")).unwrap(), before);
    assert_eq!(keys.load_pair("target"), Rc::OK);

    // What a move does do: the same file under another name, in the place of what was there.
    assert_eq!(keys.create_pair("source", Some("rsa-2048")), Rc::OK);
    let source = fs::read(file_of(&home, "source")).unwrap();
    assert_eq!(keys.move_pair("source", "target"), Rc::OK);
    assert_eq!(fs::read(file_of(&home, "target")).unwrap(), source);
    assert_eq!(
        keys.algorithm("target").unwrap(),
        KEY_PAIR_PARAMETER_ALGORITHM_RSA
    );
    assert_eq!(keys.load_pair("source"), INVALID);
    assert_eq!(fs::read_dir(home.join("keys")).unwrap().count(), 1);
}

#[test]
fn kf_12_private_keys_in_all_forms_of_pem() {
    let (_dir, home) = scratch();
    let (p256, rsa) = (ec("P-256"), rsa(2048));
    let convert = |arguments: &[&str], pem: &str| {
        String::from_utf8(openssl(arguments, pem.as_bytes())).unwrap()
    };
    let traditional = convert(&["ec"], &p256);
    let parameters = convert(&["ecparam", "-name", "prime256v1"], "");
    let pkcs1 = convert(&["rsa", "-traditional"], &rsa);
    let p384 = ec("P-384");
    let key = home.join("self.pem");
    fs::write(&key, &p256).unwrap();
    let certificate = convert(
        &[
            "req",
            "-x509",
            "-new",
            "-subj",
            "/CN=x",
            "-key",
            key.to_str().unwrap(),
        ],
        "",
    );
    assert!(traditional.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert!(pkcs1.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    for (content, bound) in [
        (p256.clone(), Some(72)),
        (traditional.clone(), Some(72)),
        (format!("{parameters}{traditional}"), Some(72)),
        (format!("{certificate}{p256}"), Some(72)),
        (format!("{p256}{certificate}"), Some(72)),
        (format!("Bag Attributes\n    <none>\n{p256}"), Some(72)),
        (traditional.replace('\n', "\r\n"), Some(72)),
        (p384, Some(104)),
        (rsa, None),
        (pkcs1, None),
    ] {
        let keys = with_file(&home, content.as_bytes());
        assert_eq!(keys.load_pair("k"), Rc::OK, "{content}");
        match bound {
            Some(bound) => {
                assert_eq!(keys.signature_bound("k", SIGN_MECHANISM_ECDSA), Ok(bound));
                assert!(keys.ecdsa("k", &[1; 32]).is_ok());
            }
            None => assert_eq!(keys.rsa("k", PKCS1, b"x").unwrap().len(), 256),
        }
        // In every form it is there already.
        assert_eq!(keys.create_pair("k", Some("rsa-2048:ec-p256")), Rc::OK);
        assert_eq!(fs::read(home.join("k.pem")).unwrap(), content.as_bytes());
    }
}

/// What is no private key, or not one that can be read, is reported and kept.
#[test]
fn kf_12_kf_15_files_that_hold_no_readable_private_key() {
    let (_dir, home) = scratch();
    let p256 = ec("P-256");
    let der = openssl(&["pkey", "-outform", "DER"], p256.as_bytes());
    let public = openssl(&["pkey", "-pubout"], p256.as_bytes());
    let encrypted = openssl(&["pkey", "-aes256", "-passout", "pass:x"], p256.as_bytes());
    let traditional = openssl(&["ec", "-aes256", "-passout", "pass:x"], p256.as_bytes());
    let empty_passphrase = openssl(
        &["pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:"],
        p256.as_bytes(),
    );
    let key = home.join("self.pem");
    fs::write(&key, &p256).unwrap();
    let certificate = openssl(
        &[
            "req",
            "-x509",
            "-new",
            "-subj",
            "/CN=x",
            "-key",
            key.to_str().unwrap(),
        ],
        b"",
    );
    let half = &p256.as_bytes()[..p256.len() / 2];
    for content in [
        &der[..],
        &public,
        &encrypted,
        &traditional,
        &empty_passphrase,
        &certificate,
        half,
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        &[7; 32],
        b"x",
    ] {
        let keys = with_file(&home, content);
        let shown = String::from_utf8_lossy(content);
        assert_eq!(keys.load_pair("k"), Rc::EXTERNAL, "{shown}");
        assert_eq!(keys.ecdsa("k", &[1; 32]), Err(Rc::EXTERNAL), "{shown}");
        assert_eq!(keys.rsa("k", PKCS1, b"x"), Err(Rc::EXTERNAL), "{shown}");
        for parameter in PARAMETERS {
            assert_eq!(keys.parameter("k", parameter), Err(Rc::EXTERNAL), "{shown}");
        }
        // Whether this is rc 1 or 2, nothing is touched: it may be somebody's only copy.
        assert_ne!(keys.create_pair("k", None), Rc::OK, "{shown}");
        assert_eq!(fs::read(home.join("k.pem")).unwrap(), content, "{shown}");
        // The same for a key without a location of its own.
        fs::create_dir_all(home.join("keys")).unwrap();
        let path = file_of(&home, "dynamic");
        fs::write(&path, content).unwrap();
        assert_ne!(keys.create_pair("dynamic", None), Rc::OK, "{shown}");
        assert_eq!(fs::read(&path).unwrap(), content, "{shown}");
    }
    // Except where there is nothing to lose.
    let keys = with_file(&home, b"");
    assert_eq!(keys.load_pair("k"), Rc::EXTERNAL);
    assert_eq!(keys.create_pair("k", None), Rc::OK);
    assert_eq!(
        keys.algorithm("k").unwrap(),
        KEY_PAIR_PARAMETER_ALGORITHM_EC
    );
}

#[test]
fn kf_15_pairs_and_symmetric_keys_do_not_replace_each_other() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.create("sym", 1), Rc::OK);
    assert_eq!(keys.create_pair("pair", None), Rc::OK);
    let (sym, pair) = (file_of(&home, "sym"), file_of(&home, "pair"));
    let before = (fs::read(&sym).unwrap(), fs::read(&pair).unwrap());
    assert_ne!(keys.create_pair("sym", None), Rc::OK);
    assert_eq!(keys.load_pair("sym"), Rc::EXTERNAL);
    assert_eq!(keys.create("pair", 1), INVALID);
    assert_eq!(keys.import("pair", b"bytes"), INVALID);
    assert_eq!(keys.load("pair"), INVALID);
    assert_eq!(keys.sign("pair", b"m"), Err(INVALID));
    assert_eq!(keys.derive("pair", b"m"), Err(INVALID));
    assert_eq!(keys.encrypt("pair", None, [b"iv", b""], b"m"), Err(INVALID));
    assert_eq!((fs::read(&sym).unwrap(), fs::read(&pair).unwrap()), before);
}

/// The P-256 key of B6 and its public half, computed elsewhere.
#[test]
fn kf_13_parameters_of_the_known_key() {
    let (_dir, home) = scratch();
    // ECPrivateKey (RFC 5915) with the curve and without the point.
    let der = hex(
        "30310201010420c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721a00a06082a8648ce3d030107",
    );
    let pem = openssl(&["pkey", "-inform", "DER"], &der);
    let keys = with_file(&home, &pem);
    assert_eq!(
        keys.algorithm("k").unwrap(),
        KEY_PAIR_PARAMETER_ALGORITHM_EC
    );
    assert_eq!(
        keys.parameter("k", CURVE_OID).unwrap(),
        hex("06082a8648ce3d030107")
    );
    assert_eq!(
        keys.parameter("k", POINT).unwrap(),
        hex("0360fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6")
    );
}

/// The table of B6, with P-384 telling its curve.
#[test]
fn kf_13_kc_05_kc_06_what_each_kind_of_key_can() {
    let (_dir, home) = scratch();
    let pss = genpkey(&["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let p384_oid = 7;
    for (pem, lengths, ecdsa, rsa) in [
        (
            ec("P-256"),
            [Ok(4), Ok(10), Ok(33), Err(INVALID), Err(INVALID)],
            Ok(72),
            None,
        ),
        (
            ec("P-384"),
            [Ok(4), Ok(p384_oid), Ok(49), Err(INVALID), Err(INVALID)],
            Ok(104),
            None,
        ),
        (
            ec("P-521"),
            [Ok(4), Err(INVALID), Ok(67), Err(INVALID), Err(INVALID)],
            Ok(139),
            None,
        ),
        (
            ec("secp256k1"),
            [Ok(4), Err(INVALID), Ok(33), Err(INVALID), Err(INVALID)],
            Ok(72),
            None,
        ),
        (
            rsa(1024),
            [Ok(4), Err(INVALID), Err(INVALID), Ok(128), Ok(3)],
            Err(INVALID),
            Some(128),
        ),
        (
            rsa(2048),
            [Ok(4), Err(INVALID), Err(INVALID), Ok(256), Ok(3)],
            Err(INVALID),
            Some(256),
        ),
        (
            rsa(3072),
            [Ok(4), Err(INVALID), Err(INVALID), Ok(384), Ok(3)],
            Err(INVALID),
            Some(384),
        ),
        (
            pss,
            [Ok(4), Err(INVALID), Err(INVALID), Ok(256), Ok(3)],
            Err(INVALID),
            Some(256),
        ),
        (
            genpkey(&["-algorithm", "ED25519"]),
            [Err(INVALID); 5],
            Err(INVALID),
            None,
        ),
    ] {
        let keys = with_file(&home, pem.as_bytes());
        assert_eq!(keys.load_pair("k"), Rc::OK);
        for (parameter, length) in PARAMETERS.into_iter().zip(lengths) {
            let value = keys.parameter("k", parameter).map(|value| value.len());
            assert_eq!(value, length, "{parameter} of {pem}");
        }
        assert_eq!(
            keys.signature_bound("k", SIGN_MECHANISM_ECDSA),
            ecdsa,
            "{pem}"
        );
        assert_eq!(
            keys.ecdsa("k", &[1; 32]).map(drop),
            ecdsa.map(drop),
            "{pem}"
        );
        if let Some(modulus_len) = rsa {
            assert_eq!(keys.parameter("k", EXPONENT).unwrap(), [1, 0, 1]);
            assert_ne!(keys.parameter("k", MODULUS).unwrap()[0], 0);
            for mechanism in [PKCS1, NO_PADDING] {
                let mut input = vec![0; modulus_len];
                input[modulus_len - 1] = 7;
                let input = if mechanism == PKCS1 {
                    &input[..20]
                } else {
                    &input
                };
                let output = keys.rsa("k", mechanism, input).unwrap();
                assert_eq!(output.len(), modulus_len, "{pem}");
            }
        } else {
            for mechanism in [PKCS1, NO_PADDING] {
                assert_eq!(keys.rsa("k", mechanism, &[1; 32]), Err(INVALID), "{pem}");
            }
        }
        for mechanism in [PKCS1, NO_PADDING] {
            let decrypt = keys.list.public.decrypt;
            let refused = keys.crypt_as(decrypt, "k", mechanism, None::<&u8>, &[1; 32]);
            assert_eq!(refused, Err(INVALID));
        }
        for unknown in [0, 6, u32::MAX] {
            assert_eq!(keys.parameter("k", unknown), Err(INVALID));
        }
    }
}

/// The length of the algorithm has always been told before anybody looked at the key's algorithm.
#[test]
fn kf_13_the_algorithm_of_an_ed25519_key_has_a_length_but_no_value() {
    let (_dir, home) = scratch();
    let keys = with_file(&home, genpkey(&["-algorithm", "ED25519"]).as_bytes());
    assert_eq!(keys.parameter_len("k", ALGORITHM), Ok(4));
    assert_eq!(keys.algorithm("k"), Err(INVALID));
    // A key that is missing or unreadable has not even a length.
    assert_eq!(keys.parameter_len("missing", ALGORITHM), Err(INVALID));
    fs::write(home.join("k.pem"), "x").unwrap();
    assert_eq!(keys.parameter_len("k", ALGORITHM), Err(Rc::EXTERNAL));
}

/// OpenSSL's program verifies what was signed, with the leftmost bytes of digests that are too long.
#[test]
fn kc_05_signatures_of_digests_of_all_lengths() {
    let (_dir, home) = scratch();
    for (curve, order_len, bound) in [("P-256", 32, 72), ("P-384", 48, 104), ("P-521", 66, 139)] {
        let pem = ec(curve);
        let public = home.join("public.pem");
        fs::write(&public, openssl(&["pkey", "-pubout"], pem.as_bytes())).unwrap();
        let keys = with_file(&home, pem.as_bytes());
        for len in [0, 1, 20, 32, 48, 64, 66, 100] {
            let digest: Vec<u8> = (0..len).map(|at| 255 - at as u8).collect();
            let mut signatures = Vec::new();
            for _ in 0..3 {
                let signature = keys.ecdsa("k", &digest).unwrap();
                assert!(signature.len() <= bound && signature.len() > order_len);
                assert_eq!(signature[0], 0x30);
                assert!(
                    verifies(&public, &digest[..len.min(order_len)], &signature),
                    "{curve}, {len} bytes"
                );
                signatures.push(signature);
            }
            signatures.dedup();
            assert_eq!(signatures.len(), 3, "they are randomised");
        }
    }
}

fn verifies(public: &Path, digest: &[u8], signature: &[u8]) -> bool {
    use openssl::pkey_ctx::PkeyCtx;
    let pem = fs::read(public).unwrap();
    let key = openssl::pkey::PKey::public_key_from_pem(&pem).unwrap();
    let mut context = PkeyCtx::new(&key).unwrap();
    context.verify_init().unwrap();
    context.verify(digest, signature).unwrap_or(false)
}

#[test]
fn kc_06_rsa_vectors_and_limits() {
    let (_dir, home) = scratch();
    let keys = with_file(&home, &rsa_key().private_key_to_pem_pkcs8().unwrap());
    let info = hex(DIGEST_INFO);
    let signature = keys.rsa("k", PKCS1, &info).unwrap();
    assert_eq!(signature[..16], hex("cd546cf19a594971827ca62fe77f6873"));
    assert_eq!(
        openssl::sha::sha256(&signature).as_slice(),
        hex(RSA_SIGNATURE_HASH)
    );
    let mut block = vec![0xff; 256];
    block[..2].copy_from_slice(&[0, 1]);
    block[256 - info.len() - 1] = 0;
    block[256 - info.len()..].copy_from_slice(&info);
    assert_eq!(keys.rsa("k", NO_PADDING, &block).unwrap(), signature);

    for (len, allowed) in [
        (0, true),
        (245, true),
        (246, false),
        (256, false),
        (1000, false),
    ] {
        let outcome = keys.rsa("k", PKCS1, &vec![1; len]).map(|out| out.len());
        assert_eq!(
            outcome,
            if allowed { Ok(256) } else { Err(Rc::EXTERNAL) },
            "{len}"
        );
    }
    for len in [0, 1, 255, 257, 1000] {
        let outcome = keys.rsa("k", NO_PADDING, &vec![1; len]);
        assert_eq!(outcome, Err(Rc::EXTERNAL), "{len}");
    }
    let modulus = keys.parameter("k", MODULUS).unwrap();
    assert_eq!(keys.rsa("k", NO_PADDING, &modulus), Err(Rc::EXTERNAL));
    assert_eq!(keys.rsa("k", NO_PADDING, &[0xff; 256]), Err(Rc::EXTERNAL));
    let mut below = modulus.clone();
    below[255] -= 1;
    assert_eq!(keys.rsa("k", NO_PADDING, &below).unwrap().len(), 256);
    assert_eq!(keys.ecdsa("k", &[1; 32]), Err(INVALID));
}

#[test]
fn kc_06_kc_05_the_wrong_kind_of_key_is_found_out_by_the_question_for_the_length() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    assert_eq!(keys.create_pair("ec", Some("ec-p256")), Rc::OK);
    assert_eq!(keys.create_pair("rsa", Some("rsa-2048")), Rc::OK);
    assert_eq!(keys.create("sym", 1), Rc::OK);
    let bound = |id| keys.signature_bound(id, SIGN_MECHANISM_ECDSA);
    assert_eq!(bound("ec"), Ok(72));
    assert_eq!(bound("rsa"), Err(INVALID));
    assert_eq!(bound("sym"), Err(Rc::EXTERNAL));
    assert_eq!(bound("missing"), Err(INVALID));
    let hmac = |id| keys.signature_bound(id, SIGN_MECHANISM_HMAC_SHA256);
    assert_eq!(hmac("ec"), Err(INVALID));
    assert_eq!(hmac("sym"), Ok(32));
}
