//! Requests for certificates: any bytes as one, against OpenSSL's reader and verifier, and a certificate built of what was read.
#![no_main]

use std::convert::Infallible;

use aziot_crypto::openssl::OpenSslVerifier;
use aziot_crypto::x509::{
    Certificate, CertificationRequest, Extensions, Issuer, Serial, SignatureAlgorithm, Signer,
    Template, Validity, build, build_request, name, spki,
};
use libfuzzer_sys::fuzz_target;
use openssl::x509::{X509, X509Req};

/// What is built here is read again, not verified.
struct Unsigned;

impl Signer for Unsigned {
    type Error = Infallible;

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::EcdsaWithSha256
    }

    fn sign(&self, _message: &[u8], _signature: &mut [u8]) -> Result<usize, Infallible> {
        Ok(0)
    }
}

fuzz_target!(|der: &[u8]| {
    let request = match CertificationRequest::parse(der) {
        Ok(request) => request,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(request.der(), der);
    let parts = [
        request.info(),
        request.subject(),
        request.public_key(),
        request.algorithm(),
        request.signature(),
    ];
    assert!(parts.iter().all(|part| part.len() <= der.len()));
    let subject = name::Text(request.subject()).to_string();
    assert!(!subject.contains(char::is_control), "{subject:?}");
    assert!(spki::same_key(request.public_key(), request.public_key()));

    let verified = request.verify(&OpenSslVerifier);
    let theirs = X509Req::from_der(der);
    if let Ok(theirs) = &theirs {
        let their_subject = theirs.subject_name().to_der().expect("a name is written");
        assert_eq!(their_subject, request.subject());
        let key = theirs.public_key();
        let their_verdict = key.is_ok_and(|key| theirs.verify(&key).unwrap_or_default());
        assert_eq!(matches!(verified, Ok(true)), their_verdict, "{verified:?}");
    }

    let extensions = match request.extensions() {
        Ok(extensions) => extensions,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    built(&request, extensions, theirs.is_ok());
});

/// What was read is in what is built of it.
fn built(request: &CertificationRequest<'_>, extensions: Extensions<'_>, theirs_reads: bool) {
    let template = Template {
        serial: Serial::from_random([5; 20]),
        issuer: Some(Issuer {
            name: name::EMPTY,
            key_id: Some(&[1, 2, 3]),
        }),
        validity: Validity {
            not_before: 0,
            not_after: 1 << 33,
        },
        subject: request.subject(),
        public_key: request.public_key(),
        extensions,
    };
    let mut out = vec![0; request.der().len() + 512];
    let der = build(&template, &Unsigned, &mut out).expect("there is room");
    let certificate = match Certificate::parse(der) {
        Ok(certificate) => certificate,
        // An identifier or constraints of the request's, which are taken as they are.
        Err(error) => {
            assert!(!extensions.is_empty(), "{error}");
            return;
        }
    };
    assert_eq!(certificate.subject(), request.subject());
    assert_eq!(certificate.public_key(), request.public_key());
    assert_eq!(
        (certificate.not_before(), certificate.not_after()),
        (0, 1 << 33)
    );
    let mut written = certificate.extensions().iter();
    for extension in extensions {
        assert_eq!(written.next(), Some(extension));
    }
    assert!(written.count() <= 2);
    if theirs_reads {
        let theirs =
            X509::from_der(der).expect("OpenSSL reads a certificate for a request that it reads");
        assert_eq!(theirs.to_der().expect("it is written"), der);
    }

    let again = build_request(
        request.subject(),
        request.public_key(),
        extensions,
        &Unsigned,
        &mut out,
    );
    let again = CertificationRequest::parse(again.expect("there is room"))
        .expect("what was written can be read");
    assert_eq!(again.extensions(), Ok(extensions));
    assert_eq!(again.subject(), request.subject());
}
