//! Chains of certificates in PEM: any text as one, and each certificate against OpenSSL's reader.
#![no_main]

use aziot_core::pem;
use aziot_crypto::openssl::OpenSslVerifier;
use aziot_crypto::x509::{Certificate, name, spki};
use libfuzzer_sys::fuzz_target;
use openssl::asn1::{Asn1OctetStringRef, Asn1Time};
use openssl::x509::X509;

fuzz_target!(|text: &[u8]| {
    for block in pem::blocks(text) {
        let mut out = vec![0xee; block.max_len() + 1];
        let length = match block.decode(&mut out) {
            Ok(der) => der.len(),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        assert!(length <= block.max_len() && out[length..].iter().all(|byte| *byte == 0xee));
        let der = &out[..length];
        written_again(block.label, der);
        read(der);
    }
    // Without the armour too.
    read(text);
});

fn written_again(label: &str, der: &[u8]) {
    let mut text = vec![0; pem::encoded_len(label, der.len())];
    let length = text.len();
    let written = pem::encode(label, der, &mut text).expect("there is room");
    assert_eq!(written.len(), length);
    let mut blocks = pem::blocks(written.as_bytes());
    let block = blocks.next().expect("what was written is found");
    assert_eq!(block.label, label);
    let mut out = vec![0; block.max_len()];
    assert_eq!(block.decode(&mut out), Ok(der));
    assert!(blocks.next().is_none());
}

fn read(der: &[u8]) {
    let certificate = match Certificate::parse(der) {
        Ok(certificate) => certificate,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(certificate.der(), der);
    for name in [certificate.subject(), certificate.issuer()] {
        let text = name::Text(name).to_string();
        assert!(
            !text.is_empty() && !text.contains(char::is_control),
            "{text:?}"
        );
    }
    let verified = certificate.is_signed_with(certificate.public_key(), &OpenSslVerifier);
    // OpenSSL looks into strings already when it reads a name.
    let Ok(theirs) = X509::from_der(der) else {
        return;
    };
    let subject = theirs.subject_name().to_der().expect("a name is written");
    let issuer = theirs.issuer_name().to_der().expect("a name is written");
    assert_eq!(
        (certificate.subject(), certificate.issuer()),
        (&subject[..], &issuer[..])
    );
    assert_eq!(certificate.signature(), theirs.signature().as_slice());
    for (ours, theirs) in [
        (certificate.not_before(), theirs.not_before()),
        (certificate.not_after(), theirs.not_after()),
    ] {
        if let Ok(ours) = Asn1Time::from_unix(ours) {
            assert!(ours == theirs, "another date");
        }
    }
    if let Ok(key) = theirs.public_key() {
        if let Ok(public) = key.public_key_to_der() {
            assert!(spki::key_bytes(&public).is_ok());
        }
        assert_eq!(
            matches!(verified, Ok(true)),
            theirs.verify(&key).unwrap_or_default(),
            "{verified:?}"
        );
    }
    // Of one that is there twice OpenSSL tells none.
    if let Some(id) = theirs.subject_key_id().map(Asn1OctetStringRef::as_slice) {
        assert_eq!(certificate.subject_key_id(), Some(id));
    }
    if let Some(id) = theirs.authority_key_id().map(Asn1OctetStringRef::as_slice) {
        assert_eq!(certificate.authority_key_id(), Some(id));
    }
}
