//! Keys in use.

use aziot_crypto::key_pair::{Algorithm, Curve, Parameter, ParameterValue, RsaPadding};
use aziot_crypto::pkcs11::{KeyPair, SecretKey, Token, USAGE_ENCRYPT, USAGE_SIGN};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::rsa::{Padding, Rsa};

use super::fixture::{Backend, alone};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn counting_key() -> Vec<u8> {
    (0..32).collect()
}

fn imported(token: &Token, label: &str, bytes: &[u8], usage: u32) -> SecretKey {
    token.import_secret(Some(label), bytes, usage).unwrap()
}

/// Checks a signature with the public parameters and OpenSSL.
pub fn assert_signed(pair: &KeyPair, digest: &[u8], signature: &[u8]) {
    let Ok(ParameterValue::Bytes(point)) = pair.parameter(Parameter::EcPoint) else {
        panic!("no point");
    };
    let nid = match pair.parameter(Parameter::EcCurveOid) {
        Ok(ParameterValue::Bytes(oid)) if oid == Curve::P256.oid() => Nid::X9_62_PRIME256V1,
        Ok(ParameterValue::Bytes(oid)) if oid == Curve::P384.oid() => Nid::SECP384R1,
        _ => Nid::SECP521R1,
    };
    let group = EcGroup::from_curve_name(nid).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&group, point, &mut context).unwrap();
    let key = EcKey::from_public_key(&group, &point).unwrap();
    let parsed = EcdsaSig::from_der(signature).unwrap();
    assert_eq!(parsed.to_der().unwrap(), signature, "not minimal");
    // An empty digest is zero; OpenSSL does not verify that as such.
    let digest = if digest.is_empty() { &[0][..] } else { digest };
    assert!(parsed.verify(digest, &key).unwrap());
    assert!(signature.len() <= pair.signature_bound().unwrap());
}

/// Checks an RSA signature with the public parameters and OpenSSL.
pub fn assert_rsa(pair: &KeyPair, digest_info: &[u8], signature: &[u8]) {
    let (Ok(ParameterValue::Bytes(modulus)), Ok(ParameterValue::Bytes(exponent))) = (
        pair.parameter(Parameter::RsaModulus),
        pair.parameter(Parameter::RsaExponent),
    ) else {
        panic!("no RSA parameters");
    };
    assert_eq!(exponent, [1, 0, 1]);
    assert_eq!(signature.len(), modulus.len());
    let key = Rsa::from_public_components(
        BigNum::from_slice(modulus).unwrap(),
        BigNum::from_slice(exponent).unwrap(),
    )
    .unwrap();
    let mut recovered = vec![0; modulus.len()];
    let len = key
        .public_decrypt(signature, &mut recovered, Padding::PKCS1)
        .unwrap();
    assert_eq!(&recovered[..len], digest_info);
}

/// EMSA-PKCS1-v1_5 around an input.
pub fn padded(input: &[u8], modulus_len: usize) -> Vec<u8> {
    let mut block = vec![0, 1];
    block.resize(modulus_len - input.len() - 1, 0xff);
    block.push(0);
    block.extend(input);
    block
}

#[test]
fn kp_03_hmac_and_derivation_vectors() {
    alone(
        "operations::kp_03_hmac_and_derivation_vectors",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = imported(&token, "hmac", &counting_key(), USAGE_SIGN);
            for (message, tag) in [
                (
                    "message",
                    "6297b77508a1a30ea4dfadd8f847c31b49aba45de10a79daf721d3f7ec112a24",
                ),
                (
                    "",
                    "d38b42096d80f45f826b44a9d5607de72496a415d3f4a1a8c88e3bb9da8dc1cb",
                ),
                (
                    "edgeAgent",
                    "97112774bdb9e7b8b0b24d0e1722f71705318702686e831642c9126f8d0e79fc",
                ),
                (
                    "\0\x01\x02",
                    "bf76611b6b1bcb37147401a745a954811257202eff22ba8a0acf3cc08a7b0504",
                ),
            ] {
                let tag = unhex(tag);
                assert_eq!(key.mac(message.as_bytes()).unwrap().as_bytes(), &*tag);
                assert!(key.verify(message.as_bytes(), &tag).unwrap());
                assert!(!key.verify(b"another", &tag).unwrap());
                let mut wrong = tag.clone();
                wrong[31] ^= 1;
                for wrong in [&wrong[..], &tag[..31], &[], &[&tag[..], &[0]].concat()] {
                    assert!(!key.verify(message.as_bytes(), wrong).unwrap());
                }
            }
            // SoftHSM stores a short key and then refuses to use it.
            let err = token
                .import_secret(Some("short"), b"key", USAGE_SIGN)
                .unwrap_err();
            assert!(err.is_refused_import(), "{err}");
            assert!(token.secret_key(Some("short")).unwrap().is_none());
            let long = imported(&token, "long", &[0xaa; 100], USAGE_SIGN);
            assert_eq!(
                long.mac(b"message").unwrap().as_bytes(),
                &*unhex("056a1c3c9eba051ecccfdb03927b9447a53c0d38e3f8e3d3a3d5bcae95ec9415")
            );
            let generated = token
                .generate_secret(Some("generated"), USAGE_SIGN)
                .unwrap();
            let tag = generated.mac(b"x").unwrap();
            assert!(generated.verify(b"x", tag.as_bytes()).unwrap());
        },
    );
}

#[test]
fn kp_03_aead_vectors_in_both_layouts() {
    alone(
        "operations::kp_03_aead_vectors_in_both_layouts",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = imported(&token, "aead", &counting_key(), USAGE_ENCRYPT);
            let iv = unhex("101112131415161718191a1b");
            for (plaintext, v2, v1) in [
                (
                    "",
                    "02dcc74041b8db19a7806af91e220e3cd7",
                    "01dcc74041b8db19a7806af91e220e3cd7",
                ),
                (
                    "aaaaaa",
                    "021c9ff97728a84bbca81b0fa111a98a588b3224b17077",
                    "014bbca81b0fa111a98a588b3224b170771c9ff97728a8",
                ),
                (
                    "hello, azure iot",
                    "02159bf47a26e51ad2b0007a782f100627d04d1a654977695bfb9cd88f59695371",
                    "01d04d1a654977695bfb9cd88f59695371159bf47a26e51ad2b0007a782f100627",
                ),
            ] {
                let (v2, v1) = (unhex(v2), unhex(v1));
                assert_eq!(
                    key.encrypt(&iv, b"$iotedged", plaintext.as_bytes())
                        .unwrap(),
                    v2
                );
                for whole in [&v2, &v1] {
                    let decrypted = key.decrypt(&iv, b"$iotedged", whole).unwrap();
                    assert_eq!(decrypted.as_slice(), plaintext.as_bytes());
                }
            }
            let iv = unhex("202122232425262728292a2b2c2d2e2f");
            let whole = unhex("02a3a9c88a73d8921b87d580d6988f235b21ca810548");
            assert_eq!(key.encrypt(&iv, b"", b"hello").unwrap(), whole);
            assert_eq!(key.decrypt(&iv, b"", &whole).unwrap().as_slice(), b"hello");
        },
    );
}

#[test]
fn kc_02_bad_ciphertexts_do_not_shake_the_module() {
    alone(
        "operations::kc_02_bad_ciphertexts_do_not_shake_the_module",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = token.generate_secret(Some("k"), USAGE_ENCRYPT).unwrap();
            let iv = [7; 12];
            let whole = key.encrypt(&iv, b"aad", b"plaintext").unwrap();
            fixture.calls();
            for at in 1..whole.len() {
                let mut changed = whole.clone();
                changed[at] ^= 0x10;
                let err = key.decrypt(&iv, b"aad", &changed).unwrap_err();
                assert!(err.is_authentication(), "{err}");
                assert!(!err.is_invalid_parameter(), "{err}");
            }
            assert!(
                key.decrypt(&iv, b"other", &whole)
                    .unwrap_err()
                    .is_authentication()
            );
            assert!(
                key.decrypt(&[8; 12], b"aad", &whole)
                    .unwrap_err()
                    .is_authentication()
            );
            for malformed in [&[][..], &[2; 16], &[1], &[3; 40]] {
                let err = key.decrypt(&iv, b"aad", malformed).unwrap_err();
                assert!(err.is_invalid_parameter(), "{err}");
            }
            for iv in [&[][..], &[1; 129]] {
                assert!(
                    !key.encrypt(iv, b"", b"x")
                        .unwrap_err()
                        .is_invalid_parameter()
                );
                assert!(
                    !key.decrypt(iv, b"", &whole)
                        .unwrap_err()
                        .is_invalid_parameter()
                );
            }
            for len in [1, 8, 16, 64, 128] {
                let iv = vec![9; len];
                let whole = key.encrypt(&iv, b"a", b"x").unwrap();
                assert_eq!(key.decrypt(&iv, b"a", &whole).unwrap().as_slice(), b"x");
            }
            assert_eq!(fixture.count("C_Initialize"), 0);
            assert_eq!(
                key.decrypt(&iv, b"aad", &whole).unwrap().as_slice(),
                b"plaintext"
            );
        },
    );
}

#[test]
fn kc_05_ecdsa_for_digests_of_every_length() {
    alone(
        "operations::kc_05_ecdsa_for_digests_of_every_length",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            for (algorithm, curve, bound) in [
                (Algorithm::EcP256, Curve::P256, 72),
                (Algorithm::EcP384, Curve::P384, 104),
            ] {
                let label = algorithm.name();
                let pair = token.generate_key_pair(Some(label), algorithm).unwrap();
                assert_eq!(
                    pair.parameter(Parameter::Algorithm).unwrap(),
                    ParameterValue::Ec
                );
                assert_eq!(
                    pair.parameter(Parameter::EcCurveOid).unwrap(),
                    ParameterValue::Bytes(curve.oid())
                );
                assert_eq!(pair.signature_bound(), Some(bound));
                assert_eq!(pair.modulus_len(), None);
                for len in [0, 1, 20, 32, 47, 48, 64, 200] {
                    let digest: Vec<u8> = (0..len).map(|byte| byte as u8 ^ 0x5a).collect();
                    let signature = pair.sign_ecdsa(&digest).unwrap();
                    assert_signed(&pair, &digest, &signature);
                }
                let err = pair.rsa_private(RsaPadding::Pkcs1, b"x").unwrap_err();
                assert!(err.is_invalid_parameter(), "{err}");
                let err = pair.parameter(Parameter::RsaModulus).unwrap_err();
                assert!(err.is_invalid_parameter(), "{err}");
            }
        },
    );
}

#[test]
fn kc_06_rsa_with_and_without_padding() {
    alone(
        "operations::kc_06_rsa_with_and_without_padding",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let pair = token
                .generate_key_pair(Some("rsa"), Algorithm::Rsa2048)
                .unwrap();
            assert_eq!(
                pair.parameter(Parameter::Algorithm).unwrap(),
                ParameterValue::Rsa
            );
            assert_eq!(pair.modulus_len(), Some(256));
            assert_eq!(pair.signature_bound(), None);
            for input in [&b"digest info"[..], &[], &[7; 245]] {
                let signature = pair.rsa_private(RsaPadding::Pkcs1, input).unwrap();
                assert_rsa(&pair, input, &signature);
                assert_eq!(
                    pair.rsa_private(RsaPadding::None, &padded(input, 256))
                        .unwrap(),
                    signature
                );
            }
            // Longer ones make SoftHSM end the process.
            for (padding, input) in [
                (RsaPadding::Pkcs1, vec![1; 246]),
                (RsaPadding::Pkcs1, vec![1; 5000]),
                (RsaPadding::None, vec![1; 255]),
                (RsaPadding::None, vec![0; 257]),
                (RsaPadding::None, vec![]),
                (RsaPadding::None, vec![0xff; 256]),
            ] {
                let err = pair.rsa_private(padding, &input).unwrap_err();
                assert!(!err.is_invalid_parameter(), "{err}");
            }
            assert!(
                pair.sign_ecdsa(&[1; 32])
                    .unwrap_err()
                    .is_invalid_parameter()
            );
            for parameter in [Parameter::EcPoint, Parameter::EcCurveOid] {
                assert!(
                    pair.parameter(parameter)
                        .unwrap_err()
                        .is_invalid_parameter()
                );
            }
            let long = token
                .generate_key_pair(Some("long"), Algorithm::Rsa4096)
                .unwrap();
            assert_eq!(long.modulus_len(), Some(512));
            assert_rsa(
                &long,
                b"x",
                &long.rsa_private(RsaPadding::Pkcs1, b"x").unwrap(),
            );
        },
    );
}

/// A key on P-521 was made with other tools: its identifier is not told, but it signs.
#[test]
fn kf_13_a_curve_without_an_identifier() {
    alone(
        "operations::kf_13_a_curve_without_an_identifier",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            super::fixture::run(
                std::process::Command::new("pkcs11-tool")
                    .arg("--module")
                    .arg(std::env::var_os("P11SHIM_MODULE").unwrap())
                    .args([
                        "--token-label",
                        "keys",
                        "--login",
                        "--pin",
                        super::fixture::PIN,
                    ])
                    .args([
                        "--keypairgen",
                        "--key-type",
                        "EC:secp521r1",
                        "--label",
                        "p521",
                    ]),
            );
            // Made by another process, behind the back of the module that is loaded already.
            let pair = token.key_pair(Some("p521")).unwrap().unwrap();
            assert!(
                pair.parameter(Parameter::EcCurveOid)
                    .unwrap_err()
                    .is_invalid_parameter()
            );
            assert_eq!(pair.signature_bound(), Some(139));
            for len in [20, 32, 64, 66, 80] {
                let digest = vec![0xa5; len];
                assert_signed(&pair, &digest, &pair.sign_ecdsa(&digest).unwrap());
            }
        },
    );
}

#[test]
fn several_threads_share_one_login_and_four_sessions() {
    alone(
        "operations::several_threads_share_one_login_and_four_sessions",
        &Backend::SoftHsm,
        |fixture| {
            let token = fixture.token();
            let key = token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            let pair = token
                .generate_key_pair(Some("p"), Algorithm::EcP256)
                .unwrap();
            let expected = key.mac(b"m").unwrap();
            std::thread::scope(|scope| {
                for _ in 0..12 {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            assert_eq!(key.mac(b"m").unwrap().as_bytes(), expected.as_bytes());
                            let signature = pair.sign_ecdsa(&[3; 32]).unwrap();
                            assert_signed(&pair, &[3; 32], &signature);
                        }
                    });
                }
            });
            let calls = fixture.calls();
            assert_eq!(super::fixture::count(&calls, "C_Login"), 1);
            assert_eq!(super::fixture::count(&calls, "C_Initialize"), 1);
            assert!(super::fixture::count(&calls, "C_OpenSession") <= 4);
            assert!((1..=4).contains(&token.state().sessions));
        },
    );
}

/// A record of calls, or an error, must not help anybody who reads it.
#[test]
fn nothing_shows_the_pin() {
    alone(
        "operations::nothing_shows_the_pin",
        &Backend::SoftHsm,
        |fixture| {
            fixture.init_token_with_pin("keys", "zanzibar");
            let token = super::fixture::token(
                &fixture.module(),
                "pkcs11:token=keys;object=x?pin-value=zanzibar",
            );
            token.generate_secret(Some("k"), USAGE_SIGN).unwrap();
            fixture.control("C_Sign 0x5 *");
            let err = token
                .secret_key(Some("k"))
                .unwrap()
                .unwrap()
                .mac(b"m")
                .unwrap_err();
            let texts = [
                format!("{err} {err:?}"),
                format!("{token:?} {:?}", token.state()),
                token.uri_without_pin(),
                fixture.calls().join("\n"),
            ];
            assert!(
                texts[0].contains("C_Sign") && texts[0].contains("CKR_GENERAL_ERROR"),
                "{}",
                texts[0]
            );
            assert_eq!(texts[2], "pkcs11:token=keys");
            for text in texts {
                assert!(!text.contains("zanzibar"), "{text}");
            }
        },
    );
}
