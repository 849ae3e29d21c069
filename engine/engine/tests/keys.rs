//! Keys of the Keys Service in the hands of libcrypto and libssl (engine, chapters C2 to C6).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod support;

use base64ct::{Base64, Encoding as _};
use openssl::encrypt::{Decrypter, Encrypter};
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};
use serde_json::{Value, json};
use support::{HANDLE, Service, p256, p384, rsa};

fn public(key: &PKey<Private>) -> PKey<Public> {
    PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap()
}

fn digests() -> [MessageDigest; 6] {
    [
        MessageDigest::sha1(),
        MessageDigest::sha224(),
        MessageDigest::sha256(),
        MessageDigest::sha384(),
        MessageDigest::sha512(),
        MessageDigest::sha3_256(),
    ]
}

/// Signs with one key, and verifies with another.
fn assert_signs(key: &PKey<Private>, original: &PKey<Private>, digest: MessageDigest, pss: bool) {
    let mut signer = Signer::new(digest, key).unwrap();
    let checked = public(original);
    let mut verifier = Verifier::new(digest, &checked).unwrap();
    if pss {
        signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        signer
            .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
            .unwrap();
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        verifier
            .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
            .unwrap();
    }
    let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
    assert!(
        verifier.verify_oneshot(&signature, b"message").unwrap(),
        "{:?}",
        digest.type_()
    );
}

#[test]
fn ke_04_signatures() {
    for original in [p256(), p384(), rsa()] {
        let service = Service::new(original);
        let key = service.load();
        assert_eq!(
            key.public_key_to_der().unwrap(),
            service.original().public_key_to_der().unwrap()
        );
        assert_eq!(key.size(), service.original().size());
        assert_eq!(key.bits(), service.original().bits());
        assert!(key.public_eq(&public(service.original())));
        for digest in digests() {
            assert_signs(&key, service.original(), digest, false);
            if key.rsa().is_ok() {
                assert_signs(&key, service.original(), digest, true);
            }
        }
    }
}

/// The requests of chapter C2, and nothing more: one for each signature.
#[test]
fn ke_05_requests() {
    let member = json!({ "keyHandle": HANDLE });
    let asked = |service: &Service| -> Vec<(String, Value)> {
        let requests = service.requests();
        let body = |text: &str| serde_json::from_str(text).unwrap();
        requests
            .iter()
            .map(|request| (request.line.clone(), body(&request.body)))
            .collect()
    };
    let line = |path: &str| format!("POST /{path}?api-version=2021-05-01 HTTP/1.1");
    let sha512 = hash(MessageDigest::sha512(), b"hello\n").unwrap();
    assert_eq!(
        Base64::encode_string(&sha512[..32]),
        "58IrmUxZ2c8rSOVJseJGZmNgRZMNPafBrLKZ0cO3+TE="
    );

    let service = Service::new(p256());
    let key = service.load();
    let mut signer = Signer::new(MessageDigest::sha512(), &key).unwrap();
    signer.sign_oneshot_to_vec(b"hello\n").unwrap();
    assert_eq!(
        asked(&service),
        [
            (line("parameters/algorithm"), member.clone()),
            (line("parameters/ec-curve-oid"), member.clone()),
            (line("parameters/ec-point"), member.clone()),
            (
                line("sign"),
                json!({
                    "keyHandle": HANDLE,
                    "algorithm": "ECDSA",
                    "parameters": { "digest": "58IrmUxZ2c8rSOVJseJGZmNgRZMNPafBrLKZ0cO3+TE=" }
                })
            ),
        ]
    );
    // As captured, byte for byte.
    assert_eq!(
        service.requests()[0].body,
        "{\"keyHandle\":\"sr=QQ==&sig=QQ==\"}"
    );
    assert_eq!(service.requests()[3].body.len(), 123);

    let service = Service::new(rsa());
    let key = service.load();
    let sign = |pss| {
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        if pss {
            signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        }
        signer.sign_oneshot_to_vec(b"hello\n").unwrap();
    };
    sign(false);
    sign(true);
    let asked = asked(&service);
    let lines: Vec<&str> = asked.iter().map(|(line, _)| &**line).collect();
    assert_eq!(
        lines,
        [
            line("parameters/algorithm"),
            line("parameters/rsa-modulus"),
            line("parameters/rsa-exponent"),
            line("encrypt"),
            line("encrypt"),
        ]
    );
    assert_eq!(
        asked[3].1,
        json!({
            "keyHandle": HANDLE,
            "algorithm": "RSA-PKCS1",
            "plaintext": "MDEwDQYJYIZIAWUDBAIBBQAEIFiRtbUi1d8IbQ/wsRD72dIbtPxxY6800IKGouhG9r4D"
        })
    );
    assert_eq!(asked[4].1["algorithm"], "RSA-NO-PADDING");
    let block = Base64::decode_vec(asked[4].1["plaintext"].as_str().unwrap()).unwrap();
    assert_eq!(block.len(), 256);
}

/// P-384 takes 48 bytes of a digest.
#[test]
fn digests_for_p384_are_cut() {
    let service = Service::new(p384());
    let key = service.load();
    assert_signs(&key, service.original(), MessageDigest::sha512(), false);
    let requests = service.requests();
    let sent: Value = serde_json::from_str(&requests.last().unwrap().body).unwrap();
    let digest = Base64::decode_vec(sent["parameters"]["digest"].as_str().unwrap()).unwrap();
    assert_eq!(
        digest,
        hash(MessageDigest::sha512(), b"message").unwrap()[..48]
    );
}

/// Whatever padding the ciphertext has, it is taken off here.
#[test]
fn decryption() {
    let service = Service::new(rsa());
    let key = service.load();
    let checked = public(service.original());
    for (padding, digest) in [
        (Padding::PKCS1, None),
        (Padding::PKCS1_OAEP, None),
        (Padding::PKCS1_OAEP, Some(MessageDigest::sha256())),
    ] {
        for message in [&b""[..], b"x", &[7; 190]] {
            let mut encrypter = Encrypter::new(&checked).unwrap();
            let mut decrypter = Decrypter::new(&key).unwrap();
            encrypter.set_rsa_padding(padding).unwrap();
            decrypter.set_rsa_padding(padding).unwrap();
            if let Some(digest) = digest {
                encrypter.set_rsa_oaep_md(digest).unwrap();
                decrypter.set_rsa_oaep_md(digest).unwrap();
            }
            let mut ciphertext = vec![0; 256];
            let len = encrypter.encrypt(message, &mut ciphertext).unwrap();
            let before = service.requests().len();
            let mut out = vec![0; decrypter.decrypt_len(&ciphertext[..len]).unwrap()];
            assert_eq!(service.requests().len(), before, "sizes are known here");
            let len = decrypter.decrypt(&ciphertext[..len], &mut out).unwrap();
            assert_eq!(&out[..len], message, "{padding:?}");
            assert_eq!(service.requests().len(), before + 1);
        }
    }
}

/// The functions of `rsa.h`, where the method sees the padding: nothing, PKCS #1, and OAEP.
#[test]
fn decryption_without_evp() {
    let service = Service::new(rsa());
    let key = service.load().rsa().unwrap();
    let original = service.original().rsa().unwrap();
    for padding in [Padding::PKCS1, Padding::PKCS1_OAEP] {
        let mut ciphertext = vec![0; 256];
        original
            .public_encrypt(b"secret", &mut ciphertext, padding)
            .unwrap();
        let mut message = vec![0; 256];
        let len = key
            .private_decrypt(&ciphertext, &mut message, padding)
            .unwrap();
        assert_eq!(&message[..len], b"secret");
    }
    // A number with a leading zero, which may be left out.
    let mut block = vec![0; 256];
    block[200] = 1;
    let mut result = vec![0; 256];
    let mut expected = vec![0; 256];
    original
        .private_decrypt(&block, &mut expected, Padding::NONE)
        .unwrap();
    for input in [&block[..], &block[1..], &block[200..]] {
        let len = key
            .private_decrypt(input, &mut result, Padding::NONE)
            .unwrap();
        assert_eq!((len, &result), (256, &expected));
    }
    // X9.31, and what is no padding at all.
    let unknown = Padding::from_raw(5);
    for result in [
        key.private_encrypt(&block, &mut result, unknown),
        key.private_decrypt(&block, &mut result, unknown),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("unrecognized RSA padding scheme 0x00000005"),
            "{error}"
        );
    }
}

/// Implicit rejection: what is damaged decrypts to something, always the same, and never to an error.
#[test]
fn damaged_ciphertext_is_not_told_apart() {
    let service = Service::new(rsa());
    let key = service.load().rsa().unwrap();
    let original = service.original().rsa().unwrap();
    // A block with padding of type 1.
    let mut block = vec![0xff; 256];
    block[..2].copy_from_slice(&[0, 1]);
    block[249] = 0;
    block[250..].copy_from_slice(b"secret");
    let mut ciphertext = vec![0; 256];
    original
        .public_encrypt(&block, &mut ciphertext, Padding::NONE)
        .unwrap();
    let decrypt = || {
        let mut message = vec![0; 256];
        let len = key
            .private_decrypt(&ciphertext, &mut message, Padding::PKCS1)
            .unwrap();
        message.truncate(len);
        message
    };
    let first = decrypt();
    assert_eq!(first, decrypt());
    assert!(first.is_empty() || !block.ends_with(&first));
    assert_eq!(ErrorStack::get().errors().len(), 0);

    // The mode that asks for errors gets them.
    let explicit = Padding::from_raw(8);
    let mut message = vec![0; 256];
    assert!(
        key.private_decrypt(&ciphertext, &mut message, explicit)
            .is_err()
    );
    original
        .public_encrypt(b"secret", &mut ciphertext, Padding::PKCS1)
        .unwrap();
    let len = key
        .private_decrypt(&ciphertext, &mut message, explicit)
        .unwrap();
    assert_eq!(&message[..len], b"secret");
}

/// Results without their leading zeros are results all the same (C6).
#[test]
fn short_rsa_results_are_padded() {
    let service = Service::spoiled(rsa(), |request, mut answer, _| {
        if request.path() == "encrypt" {
            let result = Base64::decode_vec(answer["ciphertext"].as_str().unwrap()).unwrap();
            let zeros = result.iter().take_while(|byte| **byte == 0).count();
            answer["ciphertext"] = Base64::encode_string(&result[zeros..]).into();
        }
        Some(answer)
    });
    let key = service.load().rsa().unwrap();
    let original = service.original().rsa().unwrap();
    // The private operation gives a number with leading zeros.
    let mut small = vec![0; 256];
    small[2..].fill(5);
    let mut input = vec![0; 256];
    original
        .public_encrypt(&small, &mut input, Padding::NONE)
        .unwrap();
    let mut result = vec![0xaa; 256];
    let len = key
        .private_encrypt(&input, &mut result, Padding::NONE)
        .unwrap();
    assert_eq!((len, result), (256, small));
}

/// What a service could answer instead of a result.
#[test]
fn ke_07_results_that_are_none() {
    let ec_results = [
        json!({ "signature": "" }),
        json!({ "signature": "MAA=" }),
        // More behind a signature: INTEGER 1, INTEGER 1, and a zero.
        json!({ "signature": "MAYCAQECAQEA" }),
        json!({ "signature": Base64::encode_string(&[0x30; 500]) }),
        json!({ "signature": 1 }),
        json!({ "message": "no" }),
    ];
    for result in ec_results {
        let wrong = result.clone();
        let service = Service::spoiled(p256(), move |request, answer, _| {
            Some(if request.path() == "sign" {
                wrong.clone()
            } else {
                answer
            })
        });
        let key = service.load();
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        let error = signer.sign_oneshot_to_vec(b"m").unwrap_err();
        assert!(!error.errors().is_empty(), "{result}");
    }
    for result in [
        json!({ "ciphertext": Base64::encode_string(&[1; 257]) }),
        json!({ "ciphertext": "?" }),
        json!({ "message": "no" }),
    ] {
        let wrong = result.clone();
        let service = Service::spoiled(rsa(), move |request, answer, _| {
            Some(if request.path() == "encrypt" {
                wrong.clone()
            } else {
                answer
            })
        });
        let key = service.load();
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        assert!(signer.sign_oneshot_to_vec(b"m").is_err(), "{result}");
        let mut out = vec![0; 256];
        let rsa = key.rsa().unwrap();
        assert!(
            rsa.private_decrypt(&[1; 256], &mut out, Padding::PKCS1)
                .is_err()
        );
    }
}

/// Keys that are none, and curves that are not known.
#[test]
fn ke_07_parameters_that_are_none() {
    for (path, value, expected) in [
        (
            "parameters/algorithm",
            "DSA",
            "unrecognized key algorithm \"DSA\"",
        ),
        ("parameters/ec-curve-oid", "BgUrgQQAIw==", "curve"),
        ("parameters/ec-point", "AgEB", "point"),
    ] {
        let service = Service::spoiled(p256(), move |request, answer, _| {
            Some(if request.path() == path {
                json!({ "value": value })
            } else {
                answer
            })
        });
        let error = service
            .try_load(aziot_keys_client::Deadlines::all(support::LONG))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}
