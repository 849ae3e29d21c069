//! Bodies of the Keys Service's requests, from route to decoded request, against a second reading of them.
#![no_main]

use aziot_core::api::keys::{
    API, Ciphertext, CreateDerivedKey, CreateKey, CreateKeyPair, EncryptMechanism, KeyHandle,
    MoveKeyPair, Op, Plaintext, Sign, SignMechanism, Usage,
};
use aziot_core::http::request;
use aziot_core::json;
use aziot_fuzz::{Input, Members, may_be_too_deep};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;

/// The operations that take a body.
const OPERATIONS: [(&str, &str); 12] = [
    ("POST", "/key"),
    ("DELETE", "/key"),
    ("POST", "/keypair"),
    ("DELETE", "/keypair"),
    ("POST", "/keypair/to"),
    ("POST", "/key/to"),
    ("POST", "/parameters/algorithm"),
    ("POST", "/derivedkey"),
    ("POST", "/derivedkey/export"),
    ("POST", "/sign"),
    ("POST", "/encrypt"),
    ("POST", "/decrypt"),
];

/// Reads `body` both ways, the other way as an object with the members `$names` (or any), has them compared, and reads again what the decoded request is written as.
macro_rules! compare {
    ($type:ident, $body:expr, $names:expr, $check:expr) => {{
        let body: &[u8] = $body;
        let mut text = body.to_vec();
        let read = json::from_slice::<$type<'_>>(&mut text);
        if let Err(error) = &read {
            // The message that the client gets.
            let message = error.to_string();
            assert!(message.contains(" at line "), "{message}");
        }
        let read = read.ok();
        if let Some(read) = &read {
            let written = written(read, body);
            let mut again = written.clone();
            let Ok(again) = json::from_slice::<$type<'_>>(&mut again) else {
                panic!("{} is not read back", String::from_utf8_lossy(&written));
            };
            assert_eq!(&again, read);
        }
        // What is skipped need not be UTF-8, for us and for the readers that clients were made with; this one insists.
        if !may_be_too_deep(body) && std::str::from_utf8(body).is_ok() {
            let check: fn(Option<$type<'_>>, Option<&Members>) = $check;
            let names: &[&str] = $names;
            let members = if names.is_empty() {
                Members::of(body)
            } else {
                Members::named(body, names)
            };
            check(read, members.as_ref());
        }
    }};
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (method, path) = OPERATIONS[usize::from(input.byte()) % OPERATIONS.len()];
    let body = input.0;
    let head = format!(
        "{method} {path}?api-version=2021-05-01 HTTP/1.1\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let head = request::parse(head.as_bytes()).expect("a request");
    let matched = API.route(&head, &mut []).expect("a route");
    let mut buffer = body.to_vec();
    let Ok(text) = matched.body(&mut buffer) else {
        panic!("{method} {path} is implemented");
    };
    assert_eq!(text.is_none(), body.is_empty());
    match matched.id {
        Op::Keys if method == "POST" => {
            compare!(CreateKey, body, &["keyId", "keyBytes", "usage"], create_key)
        }
        Op::KeyPairs if method == "POST" => compare!(
            CreateKeyPair,
            body,
            &["keyId", "preferredAlgorithms"],
            |read, m| {
                let expected =
                    (|| Some((m?.required("keyId")?, m?.optional("preferredAlgorithms")?)))();
                let read = read.map(|r| (owned(r.key_id), r.preferred_algorithms.map(owned)));
                assert_eq!(read, expected);
            }
        ),
        Op::KeyPair | Op::Key => compare!(MoveKeyPair, body, &["from"], |read, m| {
            assert_eq!(
                read.map(|r| owned(r.from)),
                m.and_then(|m| m.required("from"))
            );
        }),
        Op::Keys | Op::KeyPairs | Op::Parameter | Op::DerivedKeyExport => {
            compare!(KeyHandle, body, &["keyHandle"], |read, m| {
                let expected = m.and_then(|m| m.required("keyHandle"));
                assert_eq!(read.map(|r| owned(r.key_handle)), expected);
            });
        }
        Op::DerivedKey => compare!(
            CreateDerivedKey,
            body,
            &["baseKeyHandle", "derivationData"],
            |read, m| {
                let expected =
                    (|| Some((m?.required("baseKeyHandle")?, m?.bytes("derivationData")?)))();
                let read = read.map(|r| (owned(r.base_key_handle), r.derivation_data.0.to_vec()));
                assert_eq!(read, expected);
            }
        ),
        Op::Sign => compare!(Sign, body, &[], sign),
        Op::Encrypt => compare!(Plaintext, body, &[], |read, m| {
            let read = read.map(|r| {
                (
                    owned(r.key_handle),
                    mechanism(r.mechanism),
                    r.plaintext.0.to_vec(),
                )
            });
            assert_eq!(read, m.and_then(|m| encrypt(m, "plaintext")));
        }),
        _ => compare!(Ciphertext, body, &[], |read, m| {
            let read = read.map(|r| {
                (
                    owned(r.key_handle),
                    mechanism(r.mechanism),
                    r.ciphertext.0.to_vec(),
                )
            });
            assert_eq!(read, m.and_then(|m| encrypt(m, "ciphertext")));
        }),
    }
});

fn written(request: &impl Serialize, body: &[u8]) -> Vec<u8> {
    // One byte of text may take six, and the names of the members are not longer than they were.
    let mut room = vec![0; 6 * body.len() + 256];
    let length = json::to_slice(request, &mut room).expect("enough room");
    room.truncate(length);
    room
}

fn owned(text: &str) -> String {
    text.to_owned()
}

fn create_key(read: Option<CreateKey<'_>>, m: Option<&Members>) {
    let expected = (|| {
        let m = m?;
        let bytes = match m.once("keyBytes")? {
            None | Some("null") => None,
            Some(_) => Some(m.bytes("keyBytes")?),
        };
        let usage: String = m.required("usage")?;
        let (mut derive, mut encrypt, mut sign) = (false, false, false);
        for word in usage.split(',') {
            *match word {
                "derive" => &mut derive,
                "encrypt" => &mut encrypt,
                "sign" => &mut sign,
                _ => return None,
            } = true;
        }
        Some((
            m.required("keyId")?,
            bytes,
            Usage {
                derive,
                encrypt,
                sign,
            },
        ))
    })();
    let read = read.map(|r| (owned(r.key_id), r.key_bytes.map(|b| b.0.to_vec()), r.usage));
    assert_eq!(read, expected);
}

fn sign(read: Option<Sign<'_>>, m: Option<&Members>) {
    let expected = (|| {
        let m = m?;
        let algorithm: String = m.required("algorithm")?;
        let name = match algorithm.as_str() {
            "ECDSA" => "digest",
            "HMAC-SHA256" => "message",
            _ => return None,
        };
        let parameters = Members::named(m.once("parameters")??.as_bytes(), &[name])?;
        let bytes = parameters.bytes(name)?;
        Some((m.required("keyHandle")?, algorithm, bytes))
    })();
    let read = read.map(|r| {
        let (algorithm, bytes) = match r.mechanism {
            SignMechanism::Ecdsa { digest } => ("ECDSA", digest),
            SignMechanism::HmacSha256 { message } => ("HMAC-SHA256", message),
        };
        (owned(r.key_handle), owned(algorithm), bytes.0.to_vec())
    });
    assert_eq!(read, expected);
}

type Mechanism = (String, Option<(Vec<u8>, Vec<u8>)>);

fn mechanism(mechanism: EncryptMechanism<'_>) -> Mechanism {
    match mechanism {
        EncryptMechanism::Aead { iv, aad } => {
            (owned("AEAD"), Some((iv.0.to_vec(), aad.0.to_vec())))
        }
        EncryptMechanism::RsaNoPadding => (owned("RSA-NO-PADDING"), None),
        EncryptMechanism::RsaPkcs1 => (owned("RSA-PKCS1"), None),
    }
}

fn encrypt(m: &Members, text: &str) -> Option<(String, Mechanism, Vec<u8>)> {
    let algorithm: String = m.required("algorithm")?;
    let parameters = m.once("parameters")?;
    let parameters = match (algorithm.as_str(), parameters) {
        ("AEAD", Some(parameters)) => {
            let parameters = Members::named(parameters.as_bytes(), &["iv", "aad"])?;
            Some((parameters.bytes("iv")?, parameters.bytes("aad")?))
        }
        ("RSA-NO-PADDING" | "RSA-PKCS1", None | Some("null")) => None,
        _ => return None,
    };
    Some((
        m.required("keyHandle")?,
        (algorithm, parameters),
        m.bytes(text)?,
    ))
}
