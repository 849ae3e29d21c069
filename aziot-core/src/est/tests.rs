//! Requests and answers. `fixtures` was made with `openssl crl2pkcs7 -nocrl` and `openssl cms`.

mod answers;
mod enrolment;

use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;

use super::*;

/// Leaf, intermediate and root, as PEM.
const CHAIN: &str = include_str!("tests/fixtures/chain.pem");

/// The bytes in the blocks of a PEM text.
fn blocks(pem: &str) -> Vec<Vec<u8>> {
    pem.split("-----BEGIN ")
        .skip(1)
        .map(|block| {
            let body = block.split("-----").nth(1).unwrap();
            Base64::decode_vec(&body.split_whitespace().collect::<String>()).unwrap()
        })
        .collect()
}

#[test]
fn cs_31_operations_are_below_the_base_url() {
    for (base, url) in [
        (
            "https://est.example.com/.well-known/est",
            "https://est.example.com/.well-known/est/simpleenroll",
        ),
        (
            "https://est.example.com/.well-known/est/",
            "https://est.example.com/.well-known/est/simpleenroll",
        ),
        ("http://h:8080/", "http://h:8080/simpleenroll"),
        ("/est", "/est/simpleenroll"),
        ("", "/simpleenroll"),
        ("https://h/a?x=1", "https://h/a/simpleenroll?x=1"),
        ("https://h/a/?x=/#y", "https://h/a/simpleenroll?x=/"),
    ] {
        assert_eq!(target(base, Operation::SimpleEnroll).to_string(), url);
    }
    for (operation, method, segment) in [
        (Operation::CaCerts, "GET", "cacerts"),
        (Operation::CsrAttrs, "GET", "csrattrs"),
        (Operation::SimpleEnroll, "POST", "simpleenroll"),
        (Operation::SimpleReenroll, "POST", "simplereenroll"),
    ] {
        assert_eq!(operation.method(), method);
        assert_eq!(operation.to_string(), segment);
        assert_eq!(target("/", operation).to_string(), format!("/{segment}"));
    }
}

#[test]
fn cs_32_header_fields_in_their_order() {
    let fields = |operation, authorization| headers(operation, authorization).collect::<Vec<_>>();
    let body = [
        ("content-type", "application/pkcs10"),
        ("content-transfer-encoding", "base64"),
    ];
    for operation in [Operation::SimpleEnroll, Operation::SimpleReenroll] {
        assert_eq!(fields(operation, None), body);
        assert_eq!(
            fields(operation, Some("Basic eA==")),
            [("authorization", "Basic eA=="), body[0], body[1]]
        );
    }
    for operation in [Operation::CaCerts, Operation::CsrAttrs] {
        assert_eq!(fields(operation, None), []);
        assert_eq!(
            fields(operation, Some("Basic eA==")),
            [("authorization", "Basic eA==")]
        );
    }
}

fn basic_of(username: &str, password: &str) -> String {
    let mut out = vec![0; basic_len(username, password)];
    let text = basic(username, password, &mut out).unwrap().to_owned();
    let last = out.len() - 1;
    assert_eq!(basic(username, password, &mut out[..last]), Err(BufferFull));
    text
}

#[test]
fn cs_32_basic_credentials() {
    assert_eq!(basic_of("user", "pä:ss"), "Basic dXNlcjpww6Q6c3M=");
    assert_eq!(basic_of("", ""), "Basic Og==");
}

fn body_of(csr: &[u8]) -> String {
    let mut out = vec![0; enrol_body_len(csr.len())];
    let text = enrol_body(csr, &mut out).unwrap().to_owned();
    assert_eq!(text.len(), out.len());
    if let Some(last) = out.len().checked_sub(1) {
        assert_eq!(enrol_body(csr, &mut out[..last]), Err(BufferFull));
    }
    text
}

#[test]
fn cs_32_body_vector() {
    let bytes: Vec<u8> = (0..100).collect();
    assert_eq!(
        body_of(&bytes),
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v\n\
         MDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5f\n\
         YGFiYw==\n"
    );
    assert_eq!(body_of(&[]), "");
}

proptest! {
    #[test]
    fn cs_33_the_request_arrives_as_it_was(csr in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = body_of(&csr);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for (number, line) in (1..).zip(&lines) {
            prop_assert!(line.ends_with('\n'));
            prop_assert!(line.len() == 65 || number == lines.len() && line.len() < 65);
        }
        let joined = text.replace('\n', "");
        prop_assert_eq!(Base64::decode_vec(&joined).unwrap(), csr);
    }

    #[test]
    fn cs_32_credentials_of_any_length(username in "[^:]{0,20}", password in ".{0,20}") {
        let text = basic_of(&username, &password);
        let pair = Base64::decode_vec(text.strip_prefix("Basic ").unwrap()).unwrap();
        prop_assert_eq!(pair, format!("{username}:{password}").into_bytes());
    }
}
