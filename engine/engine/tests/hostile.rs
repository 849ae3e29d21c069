//! Key services that misbehave (KE-07): an error within the deadline, never a hang, a spin or a crash.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod support;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use aziot_keys_client::Deadlines;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::Value;
use support::{LONG, Request, SHORT, Service, p256, response};

/// A service that treats the requests for signatures in a way of its own.
fn signing(
    treat: impl Fn(Value, &mut UnixStream) -> Option<Value> + Send + Sync + 'static,
) -> Service {
    Service::spoiled(p256(), move |request: &Request, answer, stream| {
        if request.path() == "sign" {
            treat(answer, stream)
        } else {
            Some(answer)
        }
    })
}

fn sign(key: &PKey<Private>) -> Result<Vec<u8>, ErrorStack> {
    Signer::new(MessageDigest::sha256(), key)
        .unwrap()
        .sign_oneshot_to_vec(b"message")
}

/// What the entries of the queue say, and who they are from.
fn entries(errors: &ErrorStack) -> Vec<(String, String)> {
    let text = |text: Option<&str>| text.unwrap_or("").to_owned();
    errors
        .errors()
        .iter()
        .filter(|error| error.library() == Some("aziot_key_openssl_engine"))
        .map(|error| {
            let function = error.function().map(ToString::to_string);
            (text(function.as_deref()), text(error.data()))
        })
        .collect()
}

#[test]
fn ke_07_silent() {
    let short = Deadlines {
        silence: SHORT,
        ..Deadlines::all(LONG)
    };
    let service = signing(|_, _| {
        std::thread::sleep(LONG);
        None
    });
    let key = service.try_load(short).unwrap();
    let start = Instant::now();
    let errors = sign(&key).unwrap_err();
    assert!(start.elapsed() < LONG / 2);
    let entries = entries(&errors);
    let [(function, what), (_, why)] = &entries[..] else {
        panic!("one entry for each cause: {errors:?}");
    };
    assert_eq!(function, "aziot_key_ec_sign");
    assert_eq!(what, "could not sign with a key pair of the Keys Service");
    assert!(why.contains("deadline has elapsed"), "{why}");
}

#[test]
fn ke_07_dripping() {
    let short = Deadlines {
        whole: 2 * SHORT,
        ..Deadlines::all(LONG)
    };
    let service = signing(|answer, stream| {
        for byte in response(&answer).bytes().cycle() {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });
    let key = service.try_load(short).unwrap();
    let start = Instant::now();
    sign(&key).unwrap_err();
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn ke_07_closing_early() {
    // Before the answer, within the head, within the body.
    for bytes in [0, 10, 60, 100] {
        let service = signing(move |answer, stream| {
            let response = response(&answer);
            let _ = stream.write_all(&response.as_bytes()[..bytes]);
            None
        });
        let errors = sign(&service.load()).unwrap_err();
        assert_eq!(entries(&errors).len(), 2, "{errors:?}");
    }
}

/// The reference takes neither.
#[test]
fn ke_07_split_heads() {
    for at in [1, 15, 20, 40, 79, 100] {
        let service = signing(move |answer, stream| {
            let response = response(&answer);
            let (first, second) = response.as_bytes().split_at(at);
            stream.write_all(first).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            stream.write_all(second).unwrap();
            None
        });
        sign(&service.load()).unwrap();
    }
}

#[test]
fn ke_07_endless() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nx: "[..],
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"",
    ] {
        let service = signing(move |_, stream| {
            stream.write_all(bytes).unwrap();
            while stream.write_all(&[b'a'; 4096]).is_ok() {}
            None
        });
        sign(&service.load()).unwrap_err();
    }
}

#[test]
fn ke_07_refusing_and_restarting() {
    let service = signing(|_, _| {
        let message = "parameter \"handle\" has an invalid value\ncaused by: invalid handle";
        Some(serde_json::json!({ "message": message }))
    });
    let key = service.load();
    let errors = sign(&key).unwrap_err();
    assert_eq!(
        entries(&errors)[1].1,
        "parameter \"handle\" has an invalid value\ncaused by: invalid handle"
    );
    // Messages longer than OpenSSL's own buffer come through.
    let long = "long ".repeat(1000);
    let service = signing({
        let long = long.clone();
        move |_, _| Some(serde_json::json!({ "message": long }))
    });
    let errors = sign(&service.load()).unwrap_err();
    assert_eq!(entries(&errors)[1].1, long);
    // Nothing is kept between operations.
    drop(errors);
    let service = Service::new(p256());
    let key = service.load();
    sign(&key).unwrap();
    service.stop();
    let errors = sign(&key).unwrap_err();
    let (_, why) = &entries(&errors)[1];
    assert!(
        why.contains("(os error ") && why.contains("aziot-keyd"),
        "{why}"
    );
    service.start();
    sign(&key).unwrap();
}

/// Threads share a key; each operation has a connection of its own.
#[test]
fn threads() {
    let service = Service::new(p256());
    let key = service.load();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    sign(&key).unwrap();
                }
            });
        }
    });
    assert_eq!(service.requests().len(), 3 + 80);
}
