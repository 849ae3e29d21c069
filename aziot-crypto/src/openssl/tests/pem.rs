//! What loads as a private key, and what is said of what does not.

use super::{ED25519, P256, P384, RSA_2048, bytes, fixture, genpkey, hex, openssl};
use crate::key_pair::{Algorithm, Parameter, ParameterValue};
use crate::openssl::{Error, KeyPair, PemError};

/// Public key of a private one, as SubjectPublicKeyInfo in DER.
fn public(pem: &[u8]) -> Vec<u8> {
    openssl(&["pkey", "-pubout", "-outform", "DER"], pem)
}

fn self_signed(key: &[u8]) -> Vec<u8> {
    openssl(
        &["req", "-x509", "-key", "/dev/stdin", "-subj", "/CN=test"],
        key,
    )
}

fn assert_same_pair(pem: &[u8], original: &[u8]) {
    let key = KeyPair::from_pem(pem).unwrap_or_else(|err| {
        panic!("{err}:\n{}", String::from_utf8_lossy(pem));
    });
    assert_eq!(public(&key.to_pem().unwrap()), public(original));
}

fn refused(pem: &[u8]) -> PemError {
    let err = KeyPair::from_pem(pem).unwrap_err();
    assert!(!err.is_invalid_parameter(), "{err}");
    match err {
        Error::Pem(err) => err,
        other => panic!("{other}"),
    }
}

#[test]
fn kf_12_traditional_and_pkcs_8_forms_load() {
    for (args, label) in [
        (P256, "EC PRIVATE KEY"),
        (P384, "EC PRIVATE KEY"),
        (RSA_2048, "RSA PRIVATE KEY"),
    ] {
        let pkcs8 = genpkey(args);
        assert_same_pair(&pkcs8, &pkcs8);
        let traditional = openssl(&["pkey", "-traditional"], &pkcs8);
        assert!(String::from_utf8_lossy(&traditional).contains(label));
        assert_same_pair(&traditional, &pkcs8);
    }
}

#[test]
fn kf_12_ec_parameters_in_front() {
    for curve in ["prime256v1", "secp384r1"] {
        let pem = openssl(&["ecparam", "-name", curve, "-genkey"], &[]);
        let text = String::from_utf8_lossy(&pem);
        assert!(text.starts_with("-----BEGIN EC PARAMETERS-----"));
        let key = &text[text.find("-----BEGIN EC PRIVATE KEY-----").unwrap()..];
        assert_same_pair(&pem, key.as_bytes());
        assert_same_pair(key.as_bytes(), &pem);
    }
}

#[test]
fn kf_12_other_blocks_text_and_line_ends_do_not_matter() {
    for args in [P256, RSA_2048] {
        let pkcs8 = genpkey(args);
        let traditional = openssl(&["pkey", "-traditional"], &pkcs8);
        let certificate = self_signed(&pkcs8);
        for key in [&pkcs8, &traditional] {
            let crlf = String::from_utf8_lossy(key).replace('\n', "\r\n");
            let text =
                "Bag Attributes\n    friendlyName: device\nKey Attributes: <No Attributes>\n";
            for pem in [
                [&certificate[..], key].concat(),
                [&key[..], &certificate].concat(),
                [&certificate[..], &certificate, key, &certificate].concat(),
                [text.as_bytes(), key, b"\ntrailing text\n"].concat(),
                crlf.clone().into_bytes(),
                [crlf.as_bytes(), &certificate].concat(),
                key.trim_ascii_end().to_vec(),
                [&b"\n\n"[..], key, b"\n\n"].concat(),
                // The first of two keys counts.
                [&key[..], &genpkey(P384)].concat(),
            ] {
                assert_same_pair(&pem, &pkcs8);
            }
        }
    }
}

#[test]
fn kf_12_binary_public_and_unrelated_files_are_refused() {
    let key = genpkey(P256);
    let der = openssl(&["pkey", "-outform", "DER"], &key);
    assert_eq!(refused(&der), PemError::Der);
    let public = openssl(&["pkey", "-pubout"], &key);
    assert_eq!(refused(&public), PemError::PublicKey);
    let rsa_public = openssl(&["rsa", "-RSAPublicKey_out"], &genpkey(RSA_2048));
    assert_eq!(refused(&rsa_public), PemError::PublicKey);
    assert_eq!(refused(&self_signed(&key)), PemError::Certificate);
    assert_eq!(refused(b""), PemError::Empty);
    assert_eq!(refused(&[0xa5; 32]), PemError::NotPem);
    assert_eq!(refused(b"device key\n"), PemError::NotPem);
    let device_id = std::fs::read(fixture("var/secrets/aziot/keyd/device-id")).unwrap();
    assert_eq!(refused(&device_id), PemError::NotPem);
}

#[test]
fn kf_12_broken_keys_are_refused_with_a_reason() {
    let key = String::from_utf8(genpkey(P256)).unwrap();
    let (head, body) = key.split_at(key.find('\n').unwrap() + 1);
    for broken in [
        head.to_owned(),
        format!("{head}!!!!\n-----END PRIVATE KEY-----\n"),
        format!("{head}AAAA\n-----END PRIVATE KEY-----\n"),
        format!("{head}-----END PRIVATE KEY-----\n"),
        key.replace("-----END PRIVATE KEY-----", "-----END CERTIFICATE-----"),
        format!("{head}{}", body.replacen('M', "N", 1)),
        key[..key.len() / 2].to_owned(),
    ] {
        let err = refused(broken.as_bytes());
        assert!(matches!(err, PemError::Unreadable(_)), "{err}: {broken}");
        assert!(
            !err.to_string().contains(body.lines().next().unwrap()),
            "messages do not quote the key"
        );
        // Nothing is left for the next one to be blamed for.
        assert!(::openssl::error::ErrorStack::get().errors().is_empty());
    }
}

#[test]
fn kf_12_encrypted_keys_are_refused_and_nobody_is_asked() {
    for args in [P256, RSA_2048] {
        let key = genpkey(args);
        for pass in ["pass:1234", "pass:"] {
            let pkcs8 = openssl(
                &["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", pass],
                &key,
            );
            assert_eq!(refused(&pkcs8), PemError::Encrypted, "{pass}");
        }
        let traditional = openssl(
            &["pkey", "-traditional", "-aes256", "-passout", "pass:1234"],
            &key,
        );
        assert!(String::from_utf8_lossy(&traditional).contains("Proc-Type: 4,ENCRYPTED"));
        assert_eq!(refused(&traditional), PemError::Encrypted);
    }
    assert!(PemError::Encrypted.to_string().contains("openssl pkey"));
}

/// OpenSSL opens the controlling terminal to ask. Where one is, `script` shows what is written to it.
#[test]
fn kf_12_no_prompt_on_a_terminal() {
    const FLAG: &str = "AZIOT_TEST_ENCRYPTED_KEY";
    if let Some(path) = std::env::var_os(FLAG) {
        assert_eq!(refused(&std::fs::read(path).unwrap()), PemError::Encrypted);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let key = openssl(
        &[
            "pkcs8",
            "-topk8",
            "-v2",
            "aes-256-cbc",
            "-passout",
            "pass:1234",
        ],
        &genpkey(P256),
    );
    std::fs::write(&path, key).unwrap();
    let test = std::env::current_exe().unwrap();
    let command = format!(
        "{} --exact openssl::tests::pem::kf_12_no_prompt_on_a_terminal --nocapture",
        test.display()
    );
    let output = std::process::Command::new("timeout")
        .args(["20", "script", "--quiet", "--return", "--command", &command])
        .arg("/dev/null")
        .env(FLAG, &path)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("1 passed"), "{shown}");
    assert!(!shown.contains("pass phrase"), "{shown}");
}

#[test]
fn a_key_without_its_public_half_gets_it() {
    // RFC 5915 without parameters and public key inside PKCS #8.
    let scalar = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    let der = hex(&format!(
        "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420{scalar}"
    ));
    let pem = openssl(&["base64"], &der);
    let pem = [
        &b"-----BEGIN PRIVATE KEY-----\n"[..],
        &pem,
        b"-----END PRIVATE KEY-----\n",
    ]
    .concat();
    assert_eq!(
        bytes(&KeyPair::from_pem(&pem).unwrap(), Parameter::EcPoint),
        hex("0360fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6")
    );
}

#[test]
fn keys_of_other_algorithms_load() {
    let key = KeyPair::from_pem(&genpkey(ED25519)).unwrap();
    assert!(matches!(
        key.parameter(Parameter::Algorithm),
        Err(Error::UnknownAlgorithm)
    ));
}

#[test]
fn key_pairs_of_release_1_6_0() {
    use base64ct::{Base64, Encoding as _};
    let value = |name: &str| {
        let answer = std::fs::read_to_string(fixture(&format!("results/{name}.json"))).unwrap();
        let value = answer.strip_prefix("{\"value\":\"").unwrap();
        value.strip_suffix("\"}").unwrap().to_owned()
    };
    let load = |name: &str| {
        let path = fixture("var/lib/aziot/keyd/keys").join(format!("{name}.key"));
        KeyPair::from_pem(&std::fs::read(path).unwrap()).unwrap()
    };

    let ec = load("ec-1eb85f4d6a3234ce7acb8c51c75930f12e952517e2e389914a6ca8f89a881a0d");
    assert_eq!(value("ec.algorithm"), "ECDSA");
    assert_eq!(
        ec.parameter(Parameter::Algorithm).unwrap(),
        ParameterValue::Ec
    );
    for (parameter, name) in [
        (Parameter::EcCurveOid, "ec.ec-curve-oid"),
        (Parameter::EcPoint, "ec.ec-point"),
    ] {
        assert_eq!(Base64::encode_string(&bytes(&ec, parameter)), value(name));
    }

    let rsa = load("rsa2048-0ea91da074ead033863875e551e36ebfccc54a3b8263c878bc10181d9d544e7f");
    assert_eq!(value("rsa.algorithm"), "RSA");
    assert_eq!(
        rsa.parameter(Parameter::Algorithm).unwrap(),
        ParameterValue::Rsa
    );
    for (parameter, name) in [
        (Parameter::RsaExponent, "rsa.rsa-exponent"),
        (Parameter::RsaModulus, "rsa.rsa-modulus"),
    ] {
        assert_eq!(Base64::encode_string(&bytes(&rsa, parameter)), value(name));
    }

    let name = "ncodeidwithslash-d2d2e386527dd238f8640f6977df051702987f77adca5b2a8126142473eefbaa";
    let odd = load(name);
    assert_eq!(odd.signature_bound(), Some(72));
    // What we write of it is what 1.6.0 wrote, byte for byte.
    let path = fixture("var/lib/aziot/keyd/keys").join(format!("{name}.key"));
    assert_eq!(*odd.to_pem().unwrap(), std::fs::read(path).unwrap());
}

#[test]
fn kf_02_generated_pairs_are_pkcs_8_with_the_inner_key_of_1_6_0() {
    for (algorithm, before, between, private_len, point_len) in [
        (
            Algorithm::EcP256,
            "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420",
            "a144034200",
            32,
            65,
        ),
        (
            Algorithm::EcP384,
            "3081b6020100301006072a8648ce3d020106052b8104002204819e30819b0201010430",
            "a164036200",
            48,
            97,
        ),
    ] {
        let key = KeyPair::generate(algorithm).unwrap();
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert!(pem.ends_with(b"\n-----END PRIVATE KEY-----\n"));
        let armour: Vec<&[u8]> = pem.split(|byte| *byte == b'\n').collect();
        let der = openssl(
            &["base64", "-d"],
            &[armour[1..armour.len() - 2].join(&b'\n'), vec![b'\n']].concat(),
        );
        let (head, rest) = der.split_at(before.len() / 2);
        assert_eq!(head, hex(before));
        let (tag, point) = rest[private_len..].split_at(5);
        assert_eq!(tag, hex(between));
        assert_eq!((point.len(), point[0]), (point_len, 4));
        // The compressed point is the same one.
        let compressed = bytes(&key, Parameter::EcPoint);
        assert_eq!(compressed[0], 2 + (point[point_len - 1] & 1));
        assert_eq!(compressed[1..], point[1..=point_len / 2]);
        assert_same_pair(&pem, &pem);
    }
    for (algorithm, len) in [(Algorithm::Rsa2048, 256), (Algorithm::Rsa4096, 512)] {
        let key = KeyPair::generate(algorithm).unwrap();
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(key.modulus_len(), Some(len));
        assert_eq!(bytes(&key, Parameter::RsaExponent), [1, 0, 1]);
        let modulus = bytes(&key, Parameter::RsaModulus);
        assert_eq!((modulus.len(), modulus[0] >> 7), (len, 1));
        let text = openssl(&["rsa", "-check", "-noout"], &pem);
        assert!(String::from_utf8_lossy(&text).contains("RSA key ok"));
    }
}
