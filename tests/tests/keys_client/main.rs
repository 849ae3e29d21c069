//! Clients of the Keys Service against the real service: ours, and a stand-in for that of release 1.6.0.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "one system call; a step that fails, fails the test"
)]

mod reference;

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use aziot_keys_client::transport::{Kind, Patience};
use aziot_keys_client::{
    Algorithm, Client, Deadlines, Error, KeyHandle, PublicKey, RsaPadding, Usage,
};
use aziot_tests::fixture::{self, Keyd};
use base64ct::{Base64, Encoding as _};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use reference::{Outcome, ReferenceClient, encoded};
use serde_json::{Value, json};

const ENCRYPT: Usage = Usage {
    derive: false,
    encrypt: true,
    sign: false,
};

const IV: &[u8] = b"123456789012";

fn client(keyd: &Keyd) -> Client {
    let deadlines = Deadlines::all(Duration::from_secs(60));
    Client::with(keyd.daemon.socket(), deadlines, Patience::default())
}

/// What the service answers with a status of this kind.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Service { status, message }) => (status, message),
        other => panic!("{other:?}"),
    }
}

fn ec(public: PublicKey) -> EcKey<Public> {
    let PublicKey::Ec { curve_oid, point } = public else {
        panic!("{public:?}")
    };
    assert_eq!(curve_oid, [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&group, &point, &mut context).unwrap();
    EcKey::from_public_key(&group, &point).unwrap()
}

fn rsa(public: PublicKey) -> Rsa<Public> {
    let PublicKey::Rsa { modulus, exponent } = public else {
        panic!("{public:?}")
    };
    let number = |bytes: &[u8]| BigNum::from_slice(bytes).unwrap();
    Rsa::from_public_components(number(&modulus), number(&exponent)).unwrap()
}

#[test]
fn ks_12_the_vectors_through_the_client() {
    let keyd = Keyd::with_fixture();
    let keys = client(&keyd);
    let [a, b, c, d] = [fixture::A, fixture::B, fixture::C, fixture::D].map(KeyHandle::new);
    let text = |bytes: &[u8]| Base64::encode_string(bytes);
    assert_eq!(
        text(&keys.sign_hmac(&a, b"hello").unwrap()),
        "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="
    );
    assert_eq!(
        text(&keys.export_derived_key(&d).unwrap()),
        "yLZvBM00dmFVt7pLNrj6I0mCFBZ81VltbTPIsXhROA8="
    );
    let ciphertext = keys.encrypt(&c, IV, b"aad", b"hello world").unwrap();
    assert_eq!(
        text(&ciphertext),
        "AtZwZ8LYz4WfYk+GWx3DRWkJkg2LY3bTwaw9lA=="
    );
    let PublicKey::Ec { point, .. } = keys.public_key(&b).unwrap() else {
        panic!("not EC")
    };
    assert_eq!(text(&point), "A2D+1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p+2");
}

#[test]
fn symmetric_keys_from_creation_to_deletion() {
    let keyd = Keyd::empty("");
    let keys = client(&keyd);
    let invalid = (400, "a parameter has an invalid value".to_owned());
    assert_eq!(refused(keys.load_key("k")), invalid);
    let created = keys.create_key("k", Usage::DERIVE_SIGN).unwrap();
    let loaded = keys.load_key("k").unwrap();
    assert_ne!(created, loaded);
    let mac = keys.sign_hmac(&created, b"m").unwrap();
    assert_eq!(keys.sign_hmac(&loaded, b"m").unwrap(), mac);

    let imported = keys.import_key("k", b"known", Usage::DERIVE_SIGN).unwrap();
    let expected = fixture::hmac(b"known", b"m");
    assert_eq!(
        Base64::encode_string(&keys.sign_hmac(&imported, b"m").unwrap()),
        expected
    );
    let derived = keys.create_derived_key(&imported, b"m").unwrap();
    assert_eq!(
        Base64::encode_string(&keys.export_derived_key(&derived).unwrap()),
        expected
    );
    assert_eq!(refused(keys.import_key("e", b"", ENCRYPT)).0, 400);

    let key = keys.create_key("c", ENCRYPT).unwrap();
    for plaintext in [vec![], vec![1], vec![2; 100_000], vec![3; 3 << 20]] {
        let ciphertext = keys.encrypt(&key, IV, b"aad", &plaintext).unwrap();
        assert_eq!(ciphertext.len(), plaintext.len() + 17);
        assert_eq!(
            *keys.decrypt(&key, IV, b"aad", &ciphertext).unwrap(),
            plaintext
        );
        let wrong = refused(keys.decrypt(&key, IV, b"other", &ciphertext));
        assert_eq!(wrong, (500, "internal error".to_owned()));
    }
    let derived = keys.create_derived_key(&key, b"d").unwrap();
    let ciphertext = keys.encrypt(&derived, IV, b"", b"x").unwrap();
    assert_eq!(*keys.decrypt(&derived, IV, b"", &ciphertext).unwrap(), b"x");

    keys.delete_key(&key).unwrap();
    keys.delete_key(&key).unwrap();
    assert_eq!(refused(keys.encrypt(&key, IV, b"", b"x")), invalid);
    assert_eq!(refused(keys.load_key("c")), invalid);
}

#[test]
fn key_pairs_from_creation_to_deletion() {
    let keyd = Keyd::empty("");
    let keys = client(&keyd);
    let pair = keys.create_key_pair("p", Some("ec-p256")).unwrap();
    assert_eq!(keys.algorithm(&pair).unwrap(), Algorithm::Ecdsa);
    let public = keys.public_key(&pair).unwrap();
    let digest = hash(MessageDigest::sha256(), b"m").unwrap();
    let signature = keys.sign_ecdsa(&pair, &digest).unwrap();
    let signature = EcdsaSig::from_der(&signature).unwrap();
    assert!(signature.verify(&digest, &ec(public.clone())).unwrap());

    keys.move_key_pair("p", "q").unwrap();
    assert_eq!(refused(keys.load_key_pair("p")).0, 400);
    assert_eq!(refused(keys.public_key(&pair)).0, 400);
    let moved = keys.load_key_pair("q").unwrap();
    assert_eq!(keys.public_key(&moved).unwrap(), public);
    assert_eq!(
        refused(keys.move_key_pair("q", "q")),
        (
            400,
            "source and destination for move are identical".to_owned()
        )
    );
    assert_eq!(
        refused(keys.delete_key(&moved)).1,
        "parameter \"handle\" has an invalid value\ncaused by: handle is not for a key"
    );
    keys.delete_key_pair(&moved).unwrap();
    assert_eq!(refused(keys.load_key_pair("q")).0, 400);
}

#[test]
fn rsa_key_pairs_sign() {
    let keyd = Keyd::empty("");
    let keys = client(&keyd);
    let pair = keys.create_key_pair("r", Some("rsa-2048")).unwrap();
    let public = PKey::from_rsa(rsa(keys.public_key(&pair).unwrap())).unwrap();
    let digest = hash(MessageDigest::sha256(), b"m").unwrap();
    // DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1).
    let mut info = vec![
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    info.extend_from_slice(&digest);
    let signature = keys.rsa_private(&pair, RsaPadding::Pkcs1, &info).unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
    assert!(verifier.verify_oneshot(&signature, b"m").unwrap());
    let mut block = vec![0; signature.len()];
    *block.last_mut().unwrap() = 1;
    // One to any power.
    assert_eq!(
        keys.rsa_private(&pair, RsaPadding::None, &block).unwrap(),
        block
    );
    assert_eq!(refused(keys.sign_ecdsa(&pair, &digest)).0, 400);
}

#[test]
fn ks_37_ids_of_every_kind_round_trip() {
    let keyd = Keyd::empty("");
    let keys = client(&keyd);
    for id in [
        "a/b",
        "/",
        "100%",
        "%41",
        "%2F",
        "with space",
        "+",
        "\"quoted\"",
        "it's",
        "ключ-é-鍵",
        "a?b#c",
        "a;b,c:d@e&f=g",
        "\u{1}\n\t\u{7f}",
        "<{[`|\\^]}>",
        "..",
        ".",
        "~-._",
    ] {
        let created = keys.create_key(id, Usage::DERIVE_SIGN).unwrap();
        let loaded = keys.load_key(id).unwrap();
        assert_eq!(
            keys.sign_hmac(&created, b"m").unwrap(),
            keys.sign_hmac(&loaded, b"m").unwrap(),
            "{id:?}"
        );
        keys.delete_key(&loaded).unwrap();
        assert_eq!(refused(keys.load_key(id)).0, 400, "{id:?}");

        let pair = keys.create_key_pair(id, None).unwrap();
        let public = keys.public_key(&pair).unwrap();
        let there = format!("{id}-2");
        keys.move_key_pair(id, &there).unwrap();
        let moved = keys.load_key_pair(&there).unwrap();
        assert_eq!(keys.public_key(&moved).unwrap(), public, "{id:?}");
        keys.move_key_pair(&there, id).unwrap();
        let back = keys.load_key_pair(id).unwrap();
        assert_eq!(keys.public_key(&back).unwrap(), public, "{id:?}");
        keys.delete_key_pair(&back).unwrap();
    }
}

#[test]
fn status_of_the_real_service() {
    let keyd = Keyd::empty("");
    let keys = client(&keyd);
    keys.create_key("k", Usage::DERIVE_SIGN).unwrap();
    let known = keys
        .status(|status| {
            let listed = status.keys.as_ref().unwrap();
            listed.0.iter().any(|key| key.id == Some("k"))
        })
        .unwrap();
    assert_eq!(known, Some(true));
}

#[test]
fn eight_threads_with_one_client() {
    const CALLS: usize = 100;
    let keyd = Keyd::with_fixture();
    let keys = client(&keyd);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let keys = &keys;
            scope.spawn(move || {
                let a = KeyHandle::new(fixture::A);
                for call in 0..CALLS {
                    let message = format!("{thread} {call}");
                    let mac = keys.sign_hmac(&a, message.as_bytes()).unwrap();
                    assert_eq!(
                        Base64::encode_string(&mac),
                        fixture::hmac(b"test-symmetric-key", message.as_bytes())
                    );
                }
            });
        }
    });
}

#[test]
fn ks_09_over_the_limit_it_waits_a_little_and_then_says_so() {
    let keyd = Keyd::empty("max_requests = 1");
    let keys = client(&keyd);
    let taken = keyd.connect();
    keyd.daemon.log().wait_for("Starting server...");
    match keys.create_key("k", Usage::DERIVE_SIGN) {
        Err(Error::Transport(error)) => {
            assert_eq!(error.kind(), Kind::Closed { answered: false });
            assert!(error.is_unsent());
            assert!(error.to_string().contains("max_requests"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    const LIMIT: &str = "Max simultaneous connections reached for user";
    let attempts = keyd.daemon.log().count(LIMIT);
    assert_eq!(attempts, 4, "{}", keyd.daemon.log().text());
    drop(taken);
    // One that gets its place while it waits.
    let (send, done) = mpsc::channel();
    let taken = keyd.connect();
    let importing = std::thread::spawn(move || {
        send.send(keys.import_key("k", b"x", Usage::DERIVE_SIGN).map(drop))
    });
    keyd.daemon.log().wait_for_more(LIMIT, attempts);
    drop(taken);
    done.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    importing.join().unwrap().unwrap();
}

#[test]
fn ks_35_a_service_that_is_killed_while_it_works() {
    let keyd = Keyd::empty("");
    let keys = client(&keyd);
    keys.create_key("k", Usage::DERIVE_SIGN).unwrap();
    keyd.daemon.suspend();
    let asking = std::thread::spawn(move || keys.create_key_pair("p", Some("rsa-4096")));
    // Whether it has connected by then or not: it gets an error.
    std::thread::sleep(Duration::from_millis(100));
    keyd.daemon.kill();
    assert!(matches!(asking.join().unwrap(), Err(Error::Transport(_))));
}

/// The operations that the reference's blocking client has to complete.
struct Reference(ReferenceClient);

impl Reference {
    fn new(socket: &Path) -> Self {
        Self(ReferenceClient::new(socket))
    }

    fn outcome(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome {
        let body = body.map(ToString::to_string);
        self.0
            .call(method, path, body.as_deref())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The string member of the answer.
    fn text(&self, method: &str, path: &str, body: Option<&Value>, member: &str) -> String {
        match self.outcome(method, path, body) {
            Outcome::Json(value) => value[member].as_str().unwrap().to_owned(),
            other => panic!("{method} {path}: {other:?}"),
        }
    }

    fn done(&self, method: &str, path: &str, body: &Value) {
        assert_eq!(
            self.outcome(method, path, Some(body)),
            Outcome::NoContent,
            "{method} {path}"
        );
    }

    fn refused(&self, method: &str, path: &str, body: Option<&Value>) -> String {
        match self.outcome(method, path, body) {
            Outcome::Refused(message) => message,
            other => panic!("{method} {path}: {other:?}"),
        }
    }
}

/// Otherwise the two tests below would prove nothing.
#[test]
fn ks_34_the_stand_in_has_the_weaknesses_of_the_reference_client() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let call = |answer: &[&str]| {
        let calling = std::thread::spawn({
            let socket = socket.clone();
            move || ReferenceClient::new(&socket).call("GET", "/key/k", None)
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        assert_eq!(
            request,
            b"GET /key/k?api-version=2021-05-01 HTTP/1.1\r\n\r\n"
        );
        for piece in answer {
            stream.write_all(piece.as_bytes()).unwrap();
            // Until it has read the piece: what it does with the next depends on that.
            while queued(&stream) > 0 {
                std::thread::yield_now();
            }
        }
        drop(stream);
        calling.join().unwrap()
    };
    let good = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    assert_eq!(call(&[good, "{", "}"]), Ok(Outcome::Json(json!({}))));
    assert_eq!(call(&[&good[..30]]).unwrap_err(), "unexpected end of file");
    for bad in [
        good.replace("json", "json; charset=utf-8"),
        good.replace("content-type: application/json\r\n", ""),
        good.replace("200 OK", "302 Found"),
        format!(
            "HTTP/1.1 200 OK\r\n{}{}",
            "x: y\r\n".repeat(15),
            &good[17..]
        ),
    ] {
        assert!(call(&[&format!("{bad}{{}}")]).is_err(), "{bad}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "y".repeat(500));
    assert!(call(&[&long]).is_err());
    assert!(call(&[&good.replace(": 2", ": 3"), "{}"]).is_err());
}

/// Bytes that the peer of a Unix socket has not read yet.
fn queued(stream: &UnixStream) -> libc::c_int {
    let mut queued = 0;
    // SAFETY: the descriptor is open, and the call writes one integer.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    queued
}

#[test]
fn ks_34_the_reference_client_and_symmetric_keys() {
    let keyd = Keyd::empty("");
    let client = Reference::new(keyd.daemon.socket());
    for id in ["k", "with space ключ"] {
        let create = json!({ "keyId": id, "keyBytes": null, "usage": "derive,sign" });
        let created = client.text("POST", "/key", Some(&create), "keyHandle");
        let path = format!("/key/{}", encoded(id));
        let loaded = client.text("GET", &path, None, "keyHandle");
        let sign = |handle: &str| {
            let body = fixture::sign_body(handle, b"hello");
            client.text("POST", "/sign", Some(&body), "signature")
        };
        assert_eq!(sign(&created), sign(&loaded));
        let aead = |name: &str, text: &str| {
            let mut body = json!({
                "keyHandle": loaded,
                "algorithm": "AEAD",
                "parameters": { "iv": "MTIzNDU2Nzg5MDEy", "aad": "YWFk" },
            });
            body[name] = text.into();
            body
        };
        let encrypt = aead("plaintext", "aGVsbG8gd29ybGQ=");
        let ciphertext = client.text("POST", "/encrypt", Some(&encrypt), "ciphertext");
        let decrypt = aead("ciphertext", &ciphertext);
        assert_eq!(
            client.text("POST", "/decrypt", Some(&decrypt), "plaintext"),
            "aGVsbG8gd29ybGQ="
        );
        let derive = json!({ "baseKeyHandle": loaded, "derivationData": "aGVsbG8=" });
        let derived = client.text("POST", "/derivedkey", Some(&derive), "keyHandle");
        let export = json!({ "keyHandle": derived });
        assert_eq!(
            client.text("POST", "/derivedkey/export", Some(&export), "key"),
            sign(&loaded)
        );
        client.done("DELETE", "/key", &json!({ "keyHandle": loaded }));
        assert_eq!(
            client.refused("GET", &path, None),
            "a parameter has an invalid value"
        );
    }
    // A long answer comes in many reads, a head in one.
    let import = json!({ "keyId": "i", "keyBytes": "AAEC", "usage": "encrypt" });
    let base = client.text("POST", "/key", Some(&import), "keyHandle");
    let data = Base64::encode_string(&[255; 20_000]);
    let derive = json!({ "baseKeyHandle": base, "derivationData": data });
    let derived = client.text("POST", "/derivedkey", Some(&derive), "keyHandle");
    assert!(derived.len() > 100_000);
}

#[test]
fn ks_34_the_reference_client_and_key_pairs() {
    let keyd = Keyd::empty("");
    let client = Reference::new(keyd.daemon.socket());
    for algorithm in ["ec-p256", "rsa-2048"] {
        let create = json!({ "keyId": "x-temp", "preferredAlgorithms": algorithm });
        let handle = client.text("POST", "/keypair", Some(&create), "keyHandle");
        let parameter = |name: &str, handle: &str| {
            let body = json!({ "keyHandle": handle });
            client.text("POST", &format!("/parameters/{name}"), Some(&body), "value")
        };
        let (names, sign, path, member) = if algorithm == "ec-p256" {
            let digest = Base64::encode_string(&[7; 32]);
            let sign = json!({ "algorithm": "ECDSA", "parameters": { "digest": digest } });
            (["ec-curve-oid", "ec-point"], sign, "/sign", "signature")
        } else {
            // Without `parameters`.
            let sign = json!({ "algorithm": "RSA-PKCS1", "plaintext": "aGVsbG8=" });
            (
                ["rsa-modulus", "rsa-exponent"],
                sign,
                "/encrypt",
                "ciphertext",
            )
        };
        let before = names.map(|name| parameter(name, &handle));
        // A destination that exists is replaced.
        client.text(
            "POST",
            "/keypair",
            Some(&json!({ "keyId": "x", "preferredAlgorithms": null })),
            "keyHandle",
        );
        client.done("POST", "/keypair/x", &json!({ "from": "x-temp" }));
        let moved = client.text("GET", "/keypair/x", None, "keyHandle");
        assert_eq!(names.map(|name| parameter(name, &moved)), before);
        let mut body = sign;
        body["keyHandle"] = moved.clone().into();
        assert!(!client.text("POST", path, Some(&body), member).is_empty());
        client.done("DELETE", "/keypair", &json!({ "keyHandle": moved }));
        assert_eq!(
            client.refused("GET", "/keypair/x-temp", None),
            "a parameter has an invalid value"
        );
    }
    assert_eq!(
        client.refused("POST", "/keypair/x", Some(&json!({ "from": "x" }))),
        "source and destination for move are identical"
    );
}
