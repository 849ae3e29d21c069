//! The EST side: what it lets in, what it refuses, and how it answers.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;

use aziot_tests::simulator::Simulator;
use aziot_tests::simulator::est::{Basic, Client as Rule, Form, Realm, WELL_KNOWN, Yields};
use base64ct::{Base64, Encoding as _};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkcs7::Pkcs7;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder, X509Req};

use super::client::{Answer, Client, simulator};
use super::{assert_no_violations, assert_violation};

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn csr(name: &str, key: &PKey<Private>) -> Vec<u8> {
    let mut builder = X509Req::builder().unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    builder.set_subject_name(&subject.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build().to_der().unwrap()
}

fn body(csr: &[u8]) -> String {
    let text = Base64::encode_string(csr);
    let lines = text.as_bytes().chunks(64);
    lines
        .map(|line| format!("{}\n", core::str::from_utf8(line).unwrap()))
        .collect()
}

fn post(client: &Client, operation: &str, authorization: &str, body: &str) -> Answer {
    let host = client.hub();
    let length = body.len();
    let request = format!(
        "POST /{WELL_KNOWN}/{operation} HTTP/1.1\r\n{authorization}content-type: application/pkcs10\r\n\
         content-transfer-encoding: base64\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    client.exchange(request.as_bytes()).unwrap()
}

fn get(client: &Client, operation: &str) -> Answer {
    let host = client.hub();
    let request = format!("GET /{WELL_KNOWN}/{operation} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    client.exchange(request.as_bytes()).unwrap()
}

/// The certificates of a PKCS #7 in base64, by OpenSSL.
fn certificates(answer: &Answer) -> Vec<X509> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text: String = answer.text().split_whitespace().collect();
    let der = Base64::decode_vec(&text).unwrap();
    let list = Pkcs7::from_der(&der).unwrap();
    let signed = list.signed().and_then(|signed| signed.certificates());
    signed
        .map(|list| list.iter().map(ToOwned::to_owned).collect())
        .unwrap_or_default()
}

fn bootstrap(simulator: &Simulator) -> Client {
    let directory = simulator.ca_path();
    let directory = directory.parent().unwrap();
    let read = |name: &str| fs::read(directory.join(name)).unwrap();
    let key = PKey::private_key_from_pem(&read("est-bootstrap-key.pem")).unwrap();
    let certificate = X509::from_pem(&read("est-bootstrap.pem")).unwrap();
    Client::presenting(simulator, &key, &[certificate])
}

#[test]
fn enrols_and_renews_with_the_certificate_that_it_issued() {
    let (simulator, _directory) = simulator(|_| {});
    let rules = |client| Realm {
        client,
        ..Realm::default()
    };
    simulator.set_realm(WELL_KNOWN, rules(Rule::Bootstrap));
    let first = bootstrap(&simulator);
    let above = certificates(&get(&first, "cacerts"));
    assert_eq!(above.len(), 2);
    let own = key();
    let leaf = certificates(&post(
        &first,
        "simpleenroll",
        "",
        &body(&csr("device", &own)),
    ));
    assert_eq!(leaf.len(), 1);
    assert!(leaf[0].public_key().unwrap().public_eq(&own));
    assert!(leaf[0].verify(&above[0].public_key().unwrap()).unwrap());

    simulator.set_realm(WELL_KNOWN, rules(Rule::Issued));
    assert_eq!(
        get(&first, "cacerts").status,
        401,
        "a bootstrap identity does not do any more"
    );
    // Only the root is trusted: the intermediate has to come from the client.
    let alone = Client::presenting(&simulator, &own, &leaf);
    assert_eq!(get(&alone, "cacerts").status, 401);
    let whole = Client::presenting(&simulator, &own, &[leaf[0].clone(), above[0].clone()]);
    assert_eq!(get(&whole, "cacerts").status, 200);
    let next = key();
    let renewed = certificates(&post(
        &whole,
        "simplereenroll",
        "",
        &body(&csr("device", &next)),
    ));
    assert!(renewed[0].public_key().unwrap().public_eq(&next));
    assert_no_violations(&simulator);
    let other = post(&whole, "simplereenroll", "", &body(&csr("somebody", &next)));
    assert_eq!(other.status, 400, "another subject is not renewed");
    assert_violation(&simulator, "keep the subject");
    let issued = simulator.issued();
    assert_eq!(issued.len(), 2);
    assert_eq!(issued[1].operation, "simplereenroll");
    assert_eq!(issued[1].client.len(), 2);
}

#[test]
fn est_refuses_what_is_not_to_the_letter() {
    let (simulator, _directory) = simulator(|_| {});
    let client = Client::new(&simulator);
    let good = csr("device", &key());
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let one_line = Base64::encode_string(&good);
    for (text, problem) in [
        (body(&forged), "signature"),
        (body(b"nothing"), "not a certificate request"),
        (format!("{one_line}\n"), "characters"),
        (body(&good).trim_end().to_owned(), "does not end with LF"),
        ("!!!!\n".to_owned(), "padded base64"),
    ] {
        assert_eq!(
            post(&client, "simpleenroll", "", &text).status,
            400,
            "{text}"
        );
        assert_violation(&simulator, problem);
    }
    let host = client.hub();
    for (request, problem) in [
        (
            format!("GET /{WELL_KNOWN}/cacerts?x=1 HTTP/1.1\r\nhost: {host}\r\n\r\n"),
            "query",
        ),
        (
            format!("GET /{WELL_KNOWN}/cacerts HTTP/1.1\r\naccept: */*\r\nhost: {host}\r\n\r\n"),
            "\"accept\"",
        ),
        (
            format!("GET /{WELL_KNOWN}/cacerts HTTP/1.1\r\nhost: elsewhere\r\n\r\n"),
            "not this server",
        ),
        (
            format!("GET /{WELL_KNOWN}/simpleenroll HTTP/1.1\r\nhost: {host}\r\n\r\n"),
            "method GET",
        ),
    ] {
        assert_eq!(
            client.exchange(request.as_bytes()).unwrap().status,
            400,
            "{request}"
        );
        assert_violation(&simulator, problem);
    }
    assert_eq!(get(&client, "csrattrs").status, 404);
    assert!(simulator.issued().is_empty());
}

#[test]
fn est_knows_credentials_and_makes_clients_wait() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.set_realm(
        WELL_KNOWN,
        Realm {
            basic: Some(Basic {
                username: "user".into(),
                password: "pä:ss".into(),
            }),
            pending: 2,
            csr_attributes: vec!["1.2.840.113549.1.9.7".into()],
            ..Realm::default()
        },
    );
    let client = Client::new(&simulator);
    let text = body(&csr("device", &key()));
    assert_eq!(post(&client, "simpleenroll", "", &text).status, 401);
    let wrong = "authorization: Basic dXNlcjpwYXNz\r\n";
    assert_eq!(post(&client, "simpleenroll", wrong, &text).status, 401);
    let right = "authorization: Basic dXNlcjpww6Q6c3M=\r\n";
    for _ in 0..2 {
        let answer = post(&client, "simpleenroll", right, &text);
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (202, Some("1"))
        );
    }
    assert_eq!(
        certificates(&post(&client, "simpleenroll", right, &text)).len(),
        1
    );
    assert_eq!(simulator.issued()[0].user.as_deref(), Some("user"));
    assert_no_violations(&simulator);
}

#[test]
fn est_answers_in_every_form() {
    let (simulator, _directory) = simulator(|_| {});
    let client = Client::new(&simulator);
    let own = key();
    let text = body(&csr("device", &own));
    let enrol = |form: Form, yields: Yields| {
        simulator.set_realm(
            WELL_KNOWN,
            Realm {
                form,
                yields,
                ..Realm::default()
            },
        );
        post(&client, "simpleenroll", "", &text)
    };
    for form in [Form::Base64, Form::Ragged, Form::OneLine] {
        assert_eq!(
            certificates(&enrol(form, Yields::Leaf)).len(),
            1,
            "{form:?}"
        );
    }
    let der = enrol(Form::Der, Yields::Chain);
    assert!(Pkcs7::from_der(der.bytes()).is_ok());
    assert_eq!(der.header("content-transfer-encoding"), None);
    assert!(Pkcs7::from_pem(enrol(Form::Pem, Yields::Chain).bytes()).is_ok());
    let ours = |certificate: &X509| certificate.public_key().unwrap().public_eq(&own);
    let found = |yields| -> Vec<bool> {
        certificates(&enrol(Form::Base64, yields))
            .iter()
            .map(&ours)
            .collect()
    };
    assert_eq!(found(Yields::Chain), [true, false]);
    assert_eq!(found(Yields::Reversed), [false, true]);
    assert_eq!(found(Yields::OtherKey), [false]);
    assert_eq!(found(Yields::Empty), [] as [bool; 0]);
    assert_eq!(
        enrol(Form::OneLine, Yields::NoContent).text(),
        "MAsGCSqGSIb3DQEHAg=="
    );
    assert_no_violations(&simulator);
}
