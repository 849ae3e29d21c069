//! Parameters and private operations.

use std::path::Path;

use ::openssl::bn::{BigNum, BigNumContext, BigNumRef};
use ::openssl::ecdsa::EcdsaSig;
use ::openssl::pkey::{PKey, Private};
use ::openssl::rsa::{Padding, Rsa};
use sha2::{Digest as _, Sha256};

use super::{ED25519, P256, P384, P521, RSA_1024, RSA_2048, RSA_PSS, bytes, genpkey, hex, openssl};
use crate::key_pair::{Algorithm, Parameter, ParameterValue, RsaPadding};
use crate::openssl::{Error, KeyPair};

const PARAMETERS: [Parameter; 4] = [
    Parameter::EcCurveOid,
    Parameter::EcPoint,
    Parameter::RsaExponent,
    Parameter::RsaModulus,
];

fn sign(key: &KeyPair, digest: &[u8]) -> Vec<u8> {
    let mut out = [0xee; 200];
    let len = key.sign_ecdsa(digest, &mut out).unwrap();
    assert!(out[len..].iter().all(|byte| *byte == 0xee));
    out[..len].to_vec()
}

fn verifies(pem: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let key = PKey::private_key_from_pem(pem).unwrap().ec_key().unwrap();
    let signature = EcdsaSig::from_der(signature).unwrap();
    signature.verify(digest, &key).unwrap()
}

/// The key pair of the specification's RSA vector.
fn vector_rsa() -> Rsa<Private> {
    let one = BigNum::from_u32(1).unwrap();
    let two = BigNum::from_u32(2).unwrap();
    let e = BigNum::from_u32(65537).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let sub = |a: &BigNumRef, b: &BigNumRef| {
        let mut difference = BigNum::new().unwrap();
        difference.checked_sub(a, b).unwrap();
        difference
    };
    let mut prime = |seed: &str| {
        let number: Vec<u8> = (0..4)
            .flat_map(|count: u8| Sha256::digest([seed.as_bytes(), &[count]].concat()))
            .collect();
        let mut candidate = BigNum::from_slice(&number).unwrap();
        for bit in [1023, 1022, 0] {
            candidate.set_bit(bit).unwrap();
        }
        loop {
            let mut rest = BigNum::new().unwrap();
            rest.checked_rem(&sub(&candidate, &one), &e, &mut context)
                .unwrap();
            if rest.num_bits() != 0 && candidate.is_prime(64, &mut context).unwrap() {
                return candidate;
            }
            let mut next = BigNum::new().unwrap();
            next.checked_add(&candidate, &two).unwrap();
            candidate = next;
        }
    };
    let p = prime("aziot-rsa-p");
    let q = prime("aziot-rsa-q");
    let (p_1, q_1) = (sub(&p, &one), sub(&q, &one));
    let [mut n, mut phi, mut d, mut dmp1, mut dmq1, mut iqmp] =
        std::array::from_fn(|_| BigNum::new().unwrap());
    n.checked_mul(&p, &q, &mut context).unwrap();
    phi.checked_mul(&p_1, &q_1, &mut context).unwrap();
    d.mod_inverse(&e, &phi, &mut context).unwrap();
    dmp1.checked_rem(&d, &p_1, &mut context).unwrap();
    dmq1.checked_rem(&d, &q_1, &mut context).unwrap();
    iqmp.mod_inverse(&q, &p, &mut context).unwrap();
    Rsa::from_private_components(n, e, d, p, q, dmp1, dmq1, iqmp).unwrap()
}

fn rsa_private(key: &KeyPair, padding: RsaPadding, input: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![0xee; 1024];
    let len = key.rsa_private(padding, input, &mut out)?;
    out.truncate(len);
    Ok(out)
}

#[test]
fn kf_13_vector_of_p256() {
    let public = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b2\
        0c2d7e9f5177a3c294d4462299";
    let der = hex(&format!(
        "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420{}a14403420004{public}",
        "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
    ));
    let pem = openssl(&["pkey", "-inform", "DER"], &der);
    let key = KeyPair::from_pem(&pem).unwrap();
    assert_eq!(
        key.parameter(Parameter::Algorithm).unwrap(),
        ParameterValue::Ec
    );
    assert_eq!(
        bytes(&key, Parameter::EcCurveOid),
        hex("06082a8648ce3d030107")
    );
    assert_eq!(
        bytes(&key, Parameter::EcPoint),
        hex("0360fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6")
    );
    assert_eq!(*key.to_pem().unwrap(), pem);
}

#[test]
fn kf_13_parameters_by_type_of_key() {
    for (args, algorithm, lengths) in [
        (P256, ParameterValue::Ec, [Some(10), Some(33), None, None]),
        (P384, ParameterValue::Ec, [Some(7), Some(49), None, None]),
        (P521, ParameterValue::Ec, [None, Some(67), None, None]),
        (
            RSA_1024,
            ParameterValue::Rsa,
            [None, None, Some(3), Some(128)],
        ),
        (
            RSA_2048,
            ParameterValue::Rsa,
            [None, None, Some(3), Some(256)],
        ),
        (
            RSA_PSS,
            ParameterValue::Rsa,
            [None, None, Some(3), Some(256)],
        ),
    ] {
        let key = KeyPair::from_pem(&genpkey(args)).unwrap();
        assert_eq!(key.parameter(Parameter::Algorithm).unwrap(), algorithm);
        for (parameter, len) in PARAMETERS.into_iter().zip(lengths) {
            match (key.parameter(parameter), len) {
                (Ok(ParameterValue::Bytes(bytes)), Some(len)) => assert_eq!(bytes.len(), len),
                (Err(err), None) => assert!(err.is_invalid_parameter(), "{err}"),
                (found, _) => panic!("{args:?} {parameter:?}: {found:?}"),
            }
        }
    }
    let ed25519 = KeyPair::from_pem(&genpkey(ED25519)).unwrap();
    assert!(
        ed25519
            .parameter(Parameter::Algorithm)
            .unwrap_err()
            .is_invalid_parameter()
    );
    for parameter in PARAMETERS {
        assert!(
            ed25519
                .parameter(parameter)
                .unwrap_err()
                .is_invalid_parameter()
        );
    }
    assert_eq!(
        (ed25519.signature_bound(), ed25519.modulus_len()),
        (None, None)
    );
    assert!(!ed25519.signs_at_once());
}

#[test]
fn kf_13_points_are_compressed_also_of_keys_stored_with_compressed_ones() {
    let pem = genpkey(P256);
    let expected = bytes(&KeyPair::from_pem(&pem).unwrap(), Parameter::EcPoint);
    assert!(matches!(expected[0], 2 | 3));
    for form in ["compressed", "uncompressed", "hybrid"] {
        let other = openssl(&["ec", "-conv_form", form], &pem);
        let key = KeyPair::from_pem(&other).unwrap();
        assert_eq!(bytes(&key, Parameter::EcPoint), expected, "{form}");
        assert!(verifies(&pem, b"digest", &sign(&key, b"digest")));
    }
}

#[test]
fn kf_13_a_curve_spelled_out_by_its_parameters() {
    let pem = openssl(&["ec", "-param_enc", "explicit"], &genpkey(P256));
    let key = KeyPair::from_pem(&pem).unwrap();
    assert_eq!(
        key.parameter(Parameter::Algorithm).unwrap(),
        ParameterValue::Ec
    );
    assert_eq!(bytes(&key, Parameter::EcPoint).len(), 33);
    assert!(verifies(&pem, &[7; 32], &sign(&key, &[7; 32])));
}

#[test]
fn kc_05_signatures_of_digests_of_every_length_verify() {
    for (args, bound) in [(P256, 72), (P384, 104), (P521, 139)] {
        let pem = genpkey(args);
        let key = KeyPair::from_pem(&pem).unwrap();
        assert_eq!(key.signature_bound(), Some(bound));
        assert_eq!(key.signs_at_once(), bound == 72);
        for len in [0, 1, 20, 28, 32, 33, 48, 49, 64, 65, 66, 67, 1000] {
            let digest: Vec<u8> = (0..len).map(|at| (at * 7 + 129) as u8).collect();
            let signature = sign(&key, &digest);
            assert!(signature.len() <= bound);
            assert!(verifies(&pem, &digest, &signature), "{args:?} {len}");
            if len > 0 {
                let mut other = digest;
                other[0] ^= 1;
                assert!(!verifies(&pem, &other, &signature), "{args:?} {len}");
            }
        }
    }
}

#[test]
fn kc_05_only_the_leftmost_bits_count() {
    let pem = genpkey(P256);
    let key = KeyPair::from_pem(&pem).unwrap();
    let signature = sign(&key, &[0xa5; 64]);
    assert!(verifies(&pem, &[0xa5; 32], &signature));
    assert!(verifies(
        &pem,
        &[&[0xa5; 32][..], b"anything"].concat(),
        &signature
    ));
    assert!(!verifies(&pem, &[0xa5; 31], &signature));
}

#[test]
fn kc_05_signatures_are_randomised_and_fit_a_buffer_of_their_length() {
    let key = KeyPair::generate(Algorithm::EcP256).unwrap();
    let first = sign(&key, &[1; 32]);
    assert_ne!(first, sign(&key, &[1; 32]));
    let mut seen = [false; 2];
    // Three in four signatures have 71 bytes or less.
    for _ in 0..100 {
        let mut out = [0; 71];
        match key.sign_ecdsa(&[1; 32], &mut out) {
            Ok(len) => {
                seen[0] = true;
                assert!(verifies(&key.to_pem().unwrap(), &[1; 32], &out[..len]));
            }
            Err(err) => {
                seen[1] = true;
                assert!(matches!(err, Error::OutputTooSmall { enough: 72 }));
                assert!(err.is_invalid_parameter());
            }
        }
    }
    assert_eq!(seen, [true; 2]);
    assert!(
        key.sign_ecdsa(&[1; 32], &mut [])
            .unwrap_err()
            .is_invalid_parameter()
    );
}

#[test]
fn kc_05_openssl_itself_verifies_what_a_generated_key_signs() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        std::fs::write(dir.path().join(name), content).unwrap();
        dir.path().join(name)
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for algorithm in [Algorithm::EcP256, Algorithm::EcP384] {
        let key = KeyPair::generate(algorithm).unwrap();
        let digest = Sha256::digest(b"message");
        let pem = text(&file("key", &key.to_pem().unwrap()));
        let digest_file = text(&file("digest", &digest));
        let signature = text(&file("signature", &sign(&key, &digest)));
        let answer = openssl(
            &[
                "pkeyutl",
                "-verify",
                "-inkey",
                &pem,
                "-in",
                &digest_file,
                "-sigfile",
                &signature,
            ],
            &[],
        );
        assert!(String::from_utf8_lossy(&answer).contains("Verified Successfully"));
    }
}

#[test]
fn many_threads_sign_at_once() {
    let ec_pem = genpkey(P256);
    let ec = KeyPair::from_pem(&ec_pem).unwrap();
    let rsa = KeyPair::from_pem(&genpkey(RSA_2048)).unwrap();
    let expected = rsa_private(&rsa, RsaPadding::Pkcs1, b"digest").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (ec, ec_pem, rsa, expected) = (&ec, &ec_pem, &rsa, &expected);
            scope.spawn(move || {
                for round in 0..20 {
                    let digest = [thread ^ round; 32];
                    assert!(verifies(ec_pem, &digest, &sign(ec, &digest)));
                    let signature = rsa_private(rsa, RsaPadding::Pkcs1, b"digest").unwrap();
                    assert_eq!(&signature, expected);
                }
            });
        }
    });
}

#[test]
fn kc_06_rsa_vector() {
    let rsa = vector_rsa();
    let modulus_hash = Sha256::digest(rsa.n().to_vec());
    assert_eq!(
        modulus_hash.to_vec(),
        hex("bac055f15c02ace2439f9b73e71b3d23db56165e9fad53fa304488de7fb000ef")
    );
    let pem = PKey::from_rsa(rsa)
        .unwrap()
        .private_key_to_pem_pkcs8()
        .unwrap();
    let key = KeyPair::from_pem(&pem).unwrap();
    let digest_info = hex(
        "3031300d0609608648016503040201050004205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    );
    let padded = [&[0, 1][..], &[0xff; 202], &[0], &digest_info].concat();
    for (padding, input) in [
        (RsaPadding::Pkcs1, &digest_info),
        (RsaPadding::None, &padded),
    ] {
        for _ in 0..2 {
            let signature = rsa_private(&key, padding, input).unwrap();
            assert_eq!(signature.len(), 256);
            assert_eq!(signature[..16], hex("cd546cf19a594971827ca62fe77f6873"));
            assert_eq!(
                Sha256::digest(&signature).to_vec(),
                hex("1d201f840ce3d609b82ddd1f97bdc8ba7927c65272053be79374a322d9e469c1")
            );
        }
    }
}

#[test]
fn kc_06_lengths_of_input() {
    for args in [RSA_1024, RSA_2048, RSA_PSS] {
        let pem = genpkey(args);
        let public = PKey::private_key_from_pem(&pem).unwrap().rsa().unwrap();
        let key = KeyPair::from_pem(&pem).unwrap();
        let k = key.modulus_len().unwrap();
        for len in [0, 1, 51, k - 12, k - 11] {
            let input = vec![0x5a; len];
            let signature = rsa_private(&key, RsaPadding::Pkcs1, &input).unwrap();
            assert_eq!(signature.len(), k);
            let mut opened = vec![0; k];
            let opened_len = public
                .public_decrypt(&signature, &mut opened, Padding::PKCS1)
                .unwrap();
            assert_eq!(opened[..opened_len], input);
        }
        for len in [k - 10, k, k + 1, 4 * k] {
            let err = rsa_private(&key, RsaPadding::Pkcs1, &vec![0x5a; len]).unwrap_err();
            assert!(
                matches!(err, Error::InputTooLong { len: l, max } if l == len && max == k - 11)
            );
            assert!(!err.is_invalid_parameter());
        }
        for len in [0, 1, k - 1, k + 1, 4 * k] {
            let err = rsa_private(&key, RsaPadding::None, &vec![0; len]).unwrap_err();
            assert!(
                matches!(err, Error::InputLen { len: l, modulus_len } if l == len && modulus_len == k)
            );
            assert!(!err.is_invalid_parameter());
        }
    }
}

#[test]
fn kc_06_raw_numbers_have_to_be_below_the_modulus() {
    let key = KeyPair::from_pem(&genpkey(RSA_1024)).unwrap();
    let modulus = bytes(&key, Parameter::RsaModulus);
    let mut above = modulus.clone();
    *above.last_mut().unwrap() |= 1;
    for number in [modulus.clone(), above, vec![0xff; 128]] {
        let err = rsa_private(&key, RsaPadding::None, &number).unwrap_err();
        assert!(matches!(err, Error::InputNotBelowModulus));
        assert!(!err.is_invalid_parameter());
    }
    // 0, 1 and n - 1 are their own results.
    let mut below = modulus;
    *below.last_mut().unwrap() -= 1;
    let mut one = vec![0; 128];
    one[127] = 1;
    for number in [vec![0; 128], one, below] {
        assert_eq!(
            rsa_private(&key, RsaPadding::None, &number).unwrap(),
            number
        );
    }
}

#[test]
fn kc_06_each_operation_wants_its_own_algorithm() {
    let ec = KeyPair::generate(Algorithm::EcP256).unwrap();
    let rsa = KeyPair::from_pem(&genpkey(RSA_1024)).unwrap();
    let other = KeyPair::from_pem(&genpkey(ED25519)).unwrap();
    for key in [&ec, &other] {
        for padding in [RsaPadding::Pkcs1, RsaPadding::None] {
            let err = rsa_private(key, padding, b"digest").unwrap_err();
            assert!(matches!(err, Error::NotRsa) && err.is_invalid_parameter());
        }
    }
    for key in [&rsa, &other] {
        let err = key.sign_ecdsa(b"digest", &mut [0; 200]).unwrap_err();
        assert!(matches!(err, Error::NotEc) && err.is_invalid_parameter());
    }
    let mut out = [0xee; 127];
    let err = rsa
        .rsa_private(RsaPadding::Pkcs1, b"digest", &mut out)
        .unwrap_err();
    assert!(matches!(err, Error::OutputTooSmall { enough: 128 }) && err.is_invalid_parameter());
    assert_eq!(out, [0xee; 127]);
}

#[test]
fn nothing_of_a_key_is_shown() {
    let key = KeyPair::generate(Algorithm::EcP256).unwrap();
    assert_eq!(format!("{key:?}"), "KeyPair(EC)");
}
