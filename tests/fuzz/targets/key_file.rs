//! Stored key files: any bytes as a private key, against OpenSSL's own reader, and written again.
#![no_main]

use aziot_crypto::key_pair::{Parameter, ParameterValue, RsaPadding};
use aziot_crypto::openssl::KeyPair;
use libfuzzer_sys::fuzz_target;
use openssl::ecdsa::EcdsaSig;
use openssl::pkey::{Id, PKey, Private};

fuzz_target!(|file: &[u8]| {
    let read = KeyPair::from_pem(file);
    // Never asks: a passphrase is refused in place of being read from a terminal.
    let theirs = PKey::private_key_from_pem_callback(file, |_| Ok(0));
    let pair = match read {
        Ok(pair) => pair,
        Err(error) => {
            assert!(
                !error.is_invalid_parameter(),
                "a damaged file is no fault of the client: {error}"
            );
            let shown = error.to_string();
            assert!(!shown.is_empty() && shown.len() < 4096);
            return;
        }
    };
    let theirs = theirs.expect("OpenSSL reads what we read");

    let parameters = values(&pair);
    compared(&pair, &theirs);
    let pem = pair.to_pem().expect("what was read can be written");
    let again = KeyPair::from_pem(&pem).expect("what was written can be read");
    assert_eq!(values(&again), parameters);
    assert_eq!(*again.to_pem().expect("written again"), *pem);
    used(&pair, &theirs);
});

fn values(pair: &KeyPair) -> Vec<Option<Vec<u8>>> {
    let all = [
        Parameter::Algorithm,
        Parameter::EcCurveOid,
        Parameter::EcPoint,
        Parameter::RsaModulus,
        Parameter::RsaExponent,
    ];
    let value = |parameter| match pair.parameter(parameter) {
        Ok(ParameterValue::Ec) => Some(b"EC".to_vec()),
        Ok(ParameterValue::Rsa) => Some(b"RSA".to_vec()),
        Ok(ParameterValue::Bytes(bytes)) => Some(bytes.to_vec()),
        Err(error) => {
            assert!(error.is_invalid_parameter(), "{error}");
            None
        }
    };
    all.into_iter().map(value).collect()
}

/// Both see the same kind of key.
fn compared(pair: &KeyPair, theirs: &PKey<Private>) {
    match theirs.id() {
        Id::EC => {
            assert!(pair.signature_bound().is_some() && pair.modulus_len().is_none());
        }
        Id::RSA => {
            let rsa = theirs.rsa().expect("an RSA key");
            assert_eq!(pair.modulus_len(), Some(rsa.size() as usize));
            match pair.parameter(Parameter::RsaModulus) {
                Ok(ParameterValue::Bytes(modulus)) => assert_eq!(modulus, rsa.n().to_vec()),
                _ => panic!("an RSA key has a modulus"),
            }
        }
        _ => assert!(pair.signature_bound().is_none() && pair.modulus_len().is_none()),
    }
}

/// A damaged key may fail to sign, but must not overrun its buffer, nor say more than it wrote. OpenSSL takes numbers that are
/// no key at all, so whether a signature is right is not asked here.
fn used(pair: &KeyPair, theirs: &PKey<Private>) {
    if let Some(bound) = pair.signature_bound() {
        // A curve of its own making can be as slow as the fuzzer likes.
        let named = theirs
            .ec_key()
            .is_ok_and(|key| key.group().curve_name().is_some());
        if named {
            let mut out = vec![0xee; bound + 1];
            if let Ok(length) = pair.sign_ecdsa(&[7; 32], &mut out[..bound]) {
                assert!(length <= bound);
                assert!(EcdsaSig::from_der(&out[..length]).is_ok());
            }
            assert_eq!(out[bound], 0xee);
        }
    }
    if let Some(length) = pair.modulus_len()
        && length <= 256
    {
        let mut out = vec![0xee; length + 1];
        if let Ok(written) = pair.rsa_private(RsaPadding::Pkcs1, b"x", &mut out[..length]) {
            assert_eq!(written, length);
        }
        assert_eq!(out[length], 0xee);
    }
}
