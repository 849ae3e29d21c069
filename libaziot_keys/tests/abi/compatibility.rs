//! What release 1.6.0 left on a device, and what its services answered there.

use std::fs;

use aziot_crypto::keys_abi::*;
use base64ct::{Base64, Encoding};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::common::{Keys, base_key, file_uri, here};

const HMAC: u32 = SIGN_MECHANISM_HMAC_SHA256;
const UNICODE: &str = "Ünïcode id/with slash";

struct Device {
    keys: Keys,
    results: std::path::PathBuf,
}

/// A library with the home directory of that device.
fn device() -> Device {
    let fixture = here()
        .join("../tests/fixtures/reference-1.6.0")
        .canonicalize()
        .unwrap();
    let keys = Keys::with_home(&fixture.join("var/lib/aziot/keyd"));
    let preloaded = fixture.join("var/secrets/aziot/keyd/device-id");
    assert_eq!(keys.preload("device-id", &file_uri(&preloaded)), Rc::OK);
    Device {
        keys,
        results: fixture.join("results"),
    }
}

impl Device {
    /// The only member of an answer, a string.
    fn member(&self, name: &str) -> String {
        let text = fs::read_to_string(self.results.join(name)).unwrap();
        text.split('"').nth(3).unwrap().to_owned()
    }

    /// The same, where it stands for bytes.
    fn bytes(&self, name: &str) -> Vec<u8> {
        Base64::decode_vec(&self.member(name)).unwrap()
    }
}

#[test]
fn every_symmetric_key_of_release_1_6_0_loads_and_works_as_there() {
    let device = device();
    let keys = &device.keys;
    for id in [
        "sym-gen",
        "sym-imported",
        "odd & id?",
        "aziot_identityd_master_id",
        "device-id",
        "handle-validation-key",
    ] {
        assert_eq!(keys.load(id), Rc::OK, "{id}");
        assert_eq!(keys.create(id, 1), Rc::OK, "{id}");
    }
    let signature = device.bytes("sign-hmac.json");
    assert_eq!(keys.sign("sym-gen", b"hello").unwrap(), signature);
    assert_eq!(keys.verify("sym-gen", HMAC, b"hello", &signature), Ok(true));
    let exported = device.bytes("derivedkey-export.json");
    assert_eq!(keys.derive("sym-gen", b"module-a").unwrap(), exported);

    let sealed = device.bytes("encrypt-aead.json");
    let parameters: [&[u8]; 2] = [b"iviviviviviv", b"aad"];
    assert_eq!(
        keys.decrypt("sym-imported", None, parameters, &sealed)
            .unwrap(),
        b"secret text"
    );
    assert_eq!(
        keys.encrypt("sym-imported", None, parameters, b"secret text")
            .unwrap(),
        sealed
    );
    // It was imported as these bytes.
    let file = crate::store_reader::file_of(
        &here().join("../tests/fixtures/reference-1.6.0/var/lib/aziot/keyd"),
        "sym-imported",
    );
    assert_eq!(fs::read(file).unwrap(), base_key());
}

#[test]
fn every_handle_of_release_1_6_0_verifies() {
    let device = device();
    for name in [
        "key-sym-gen.json",
        "key-sym-imported.json",
        "key-odd.json",
        "keypair-ec.json",
        "keypair-rsa2048.json",
        "keypair-unicode.json",
        "derivedkey-of-sym-gen.json",
    ] {
        let handle = device.member(name);
        let parts = handle.strip_prefix("sr=").unwrap().split_once("&sig=");
        let (signed, tag) = parts.unwrap();
        let signed = Base64::decode_vec(signed).unwrap();
        let tag = Base64::decode_vec(tag).unwrap();
        let verify = |signed: &[u8]| {
            device
                .keys
                .verify("handle-validation-key", HMAC, signed, &tag)
        };
        assert_eq!(verify(&signed), Ok(true), "{name}");
        assert_eq!(verify(&signed[1..]), Ok(false), "{name}");
    }
}

#[test]
fn every_pair_of_release_1_6_0_loads_and_works_as_there() {
    let device = device();
    let keys = &device.keys;
    for id in ["ec", "rsa2048", UNICODE] {
        assert_eq!(keys.load_pair(id), Rc::OK, "{id}");
        // It is there, whatever is asked for; and it is no symmetric key.
        assert_eq!(keys.create_pair(id, Some("rsa-4096")), Rc::OK, "{id}");
        assert_eq!(keys.load(id), Rc::INVALID_PARAMETER, "{id}");
    }
    for (id, type_, name) in [
        (
            "ec",
            KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID,
            "ec.ec-curve-oid.json",
        ),
        ("ec", KEY_PAIR_PARAMETER_TYPE_EC_POINT, "ec.ec-point.json"),
        (
            "rsa2048",
            KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS,
            "rsa.rsa-modulus.json",
        ),
        (
            "rsa2048",
            KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT,
            "rsa.rsa-exponent.json",
        ),
    ] {
        assert_eq!(
            keys.parameter(id, type_).unwrap(),
            device.bytes(name),
            "{name}"
        );
    }
    for (id, name, number) in [
        ("ec", "ec.algorithm.json", KEY_PAIR_PARAMETER_ALGORITHM_EC),
        (
            "rsa2048",
            "rsa.algorithm.json",
            KEY_PAIR_PARAMETER_ALGORITHM_RSA,
        ),
    ] {
        let value = keys
            .parameter(id, KEY_PAIR_PARAMETER_TYPE_ALGORITHM)
            .unwrap();
        assert_eq!(value, number.to_ne_bytes());
        assert_eq!(
            device.member(name) == "ECDSA",
            number == KEY_PAIR_PARAMETER_ALGORITHM_EC
        );
    }
    // The certificate that was issued with the pair `ec` verifies with it, and so does what we sign.
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&group, &device.bytes("ec.ec-point.json"), &mut context);
    let public = EcKey::from_public_key(&group, &point.unwrap()).unwrap();
    let certificate = device.results.join(
        "../var/lib/aziot/certd/certs/issuedbyec-94ac009edec06939b1af7ef50b4d9cb85cd26687fa707aa2872938719842b66a.cer",
    );
    let certificate = X509::from_pem(&fs::read(certificate).unwrap()).unwrap();
    assert!(
        certificate
            .verify(&PKey::from_ec_key(public.clone()).unwrap())
            .unwrap()
    );
    let signature = EcdsaSig::from_der(&keys.ecdsa("ec", &[5; 32]).unwrap()).unwrap();
    assert!(signature.verify(&[5; 32], &public).unwrap());
    assert!(!signature.verify(&[6; 32], &public).unwrap());
}
