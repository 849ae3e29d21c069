//! Key pairs of a Keys Service that answers with whatever a test tells it to.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aziot_keys_remote::{Client, Curve, Error, KeyHandle, Public, Reason, RemoteKey};
use base64ct::{Base64, Encoding as _};
use tempfile::TempDir;

const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P521: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x23];

/// The generator of P-256, compressed (SEC 2, section 2.4.2).
const POINT: &str = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A service with one answer per path; a path without one gets status 400. It ends with the test.
struct Service {
    _directory: TempDir,
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn new(answers: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers: HashMap<String, String> = answers
            .iter()
            .map(|(path, answer)| ((*path).to_owned(), answer.clone()))
            .collect();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&mut stream);
                let path = request.split([' ', '?']).nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(request);
                let (status, body) = match answers.get(&path) {
                    Some(body) => ("200 OK", body.clone()),
                    None => ("400 Bad Request", r#"{"message":"no such key"}"#.to_owned()),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
            }
        });
        Self {
            _directory: directory,
            socket,
            requests,
        }
    }

    fn ec(point: &[u8], oid: &[u8], signature: &[u8]) -> Self {
        Self::new(&[
            ("/keypair/k", r#"{"keyHandle":"h"}"#.to_owned()),
            ("/parameters/algorithm", r#"{"value":"ECDSA"}"#.to_owned()),
            ("/parameters/ec-curve-oid", member("value", oid)),
            ("/parameters/ec-point", member("value", point)),
            ("/sign", member("signature", signature)),
        ])
    }

    fn rsa(modulus: &[u8], exponent: &[u8], ciphertext: &[u8]) -> Self {
        Self::new(&[
            ("/keypair/k", r#"{"keyHandle":"h"}"#.to_owned()),
            ("/parameters/algorithm", r#"{"value":"RSA"}"#.to_owned()),
            ("/parameters/rsa-modulus", member("value", modulus)),
            ("/parameters/rsa-exponent", member("value", exponent)),
            ("/encrypt", member("ciphertext", ciphertext)),
        ])
    }

    fn load(&self) -> Result<RemoteKey, Error> {
        RemoteKey::load(&Client::new(&self.socket), KeyHandle::new("h"))
    }

    fn last(&self) -> String {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

fn read(stream: &mut UnixStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if read == 0 || body.len() >= length {
                return text;
            }
        }
    }
}

fn member(name: &str, bytes: &[u8]) -> String {
    format!("{{\"{name}\":\"{}\"}}", Base64::encode_string(bytes))
}

#[test]
fn ke_03_ke_05_an_ec_key() {
    let signature = [0x30, 6, 2, 1, 1, 2, 1, 1];
    let service = Service::ec(&hex(POINT), P256, &signature);
    let key = service.load().unwrap();
    let Public::Ec { curve, point } = key.public() else {
        panic!("{:?}", key.public());
    };
    assert_eq!((*curve, point.len(), point[0]), (Curve::P256, 65, 4));
    assert_eq!(point[1..33], hex(POINT)[1..]);
    assert_eq!(key.public().max_size(), 72);

    // A digest is cut to the order of the curve.
    assert_eq!(key.sign_ecdsa(&[7; 64]).unwrap(), signature);
    let request = service.last();
    assert!(
        request.starts_with("POST /sign?api-version=2021-05-01 HTTP/1.1\r\n"),
        "{request}"
    );
    let digest = Base64::encode_string(&[7; 32]);
    let body =
        format!(r#"{{"keyHandle":"h","algorithm":"ECDSA","parameters":{{"digest":"{digest}"}}}}"#);
    assert!(request.ends_with(&body), "{request}");
    assert!(matches!(
        key.rsa_pkcs1(b"x").unwrap_err().reason(),
        Reason::NotRsa
    ));
    assert!(matches!(
        key.rsa_raw(b"x").unwrap_err().reason(),
        Reason::NotRsa
    ));

    let by_id = RemoteKey::load_by_id(&Client::new(&service.socket), "k").unwrap();
    assert_eq!(by_id.id(), Some("k"));
    let error = RemoteKey::load_by_id(&Client::new(&service.socket), "other").unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not load the key pair \"other\" of the Keys Service: no such key"
    );
}

#[test]
fn ke_05_an_rsa_key() {
    let mut modulus = vec![0xff; 128];
    modulus[127] = 1;
    let service = Service::rsa(&modulus, &[1, 0, 1], &[9; 127]);
    let key = service.load().unwrap();
    assert_eq!(
        key.public(),
        &Public::Rsa {
            n: modulus.clone(),
            e: vec![1, 0, 1]
        }
    );
    // Short results are padded.
    let mut expected = vec![9; 128];
    expected[0] = 0;
    assert_eq!(key.rsa_pkcs1(b"info").unwrap(), expected);
    let body = r#"{"keyHandle":"h","algorithm":"RSA-PKCS1","plaintext":"aW5mbw=="}"#;
    assert!(service.last().ends_with(body), "{}", service.last());
    assert_eq!(key.rsa_raw(&[1; 128]).unwrap(), expected);
    assert!(service.last().contains(r#""algorithm":"RSA-NO-PADDING""#));

    // What cannot be right is not asked for.
    let asked = service.requests.lock().unwrap().len();
    assert!(matches!(
        key.rsa_pkcs1(&[0; 118]).unwrap_err().reason(),
        Reason::InputTooLong { len: 118, max: 117 }
    ));
    assert!(matches!(
        key.rsa_raw(&[1; 127]).unwrap_err().reason(),
        Reason::InputLen {
            len: 127,
            modulus_len: 128
        }
    ));
    assert!(matches!(
        key.rsa_raw(&modulus).unwrap_err().reason(),
        Reason::InputNotBelowModulus
    ));
    assert!(matches!(
        key.sign_ecdsa(b"x").unwrap_err().reason(),
        Reason::NotEc
    ));
    assert_eq!(service.requests.lock().unwrap().len(), asked);
}

#[test]
fn services_that_talk_nonsense() {
    let sequence = [0x30, 3, 2, 1, 1];
    let reason = |service: Service| service.load().unwrap_err().reason().to_string();
    assert!(reason(Service::ec(&hex(POINT), P521, &sequence)).contains("unknown curve"));
    assert!(reason(Service::ec(&[2; 33][..32], P256, &sequence)).contains("not on the curve"));
    assert!(reason(Service::ec(&[0], P256, &sequence)).contains("not on the curve"));
    for (modulus, exponent) in [
        (&[0xfe; 128][..], &[3][..]),
        (&[], &[3]),
        (&[0xff; 128], &[]),
        (&[0xff; 128], &[2]),
        (&[0xff; 11], &[3]),
        (&[0xff; 2049], &[3]),
    ] {
        let text = reason(Service::rsa(modulus, exponent, &[1]));
        assert!(text.contains("modulus or exponent"), "{text}");
    }
    let unknown = Service::new(&[("/parameters/algorithm", r#"{"value":"DSA"}"#.to_owned())]);
    assert!(reason(unknown).contains("unrecognized key algorithm"));

    for signature in [&[][..], &[0x31, 0], &[0x30, 0], &[0x30; 73]] {
        let key = Service::ec(&hex(POINT), P256, signature);
        let error = key.load().unwrap().sign_ecdsa(&[1; 32]).unwrap_err();
        assert!(matches!(error.reason(), Reason::Result), "{error}");
    }
    let service = Service::rsa(&[0xff; 128], &[3], &[1; 129]);
    let error = service.load().unwrap().rsa_raw(&[1; 128]).unwrap_err();
    assert!(matches!(error.reason(), Reason::Result), "{error}");
}
