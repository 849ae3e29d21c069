//! What every operation sends, and what it makes of the answer.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod support;

use std::io::Write as _;
use std::sync::mpsc;

use aziot_keys_client::{
    Algorithm, Client, Error, KeyHandle, MAC_LEN, PublicKey, RsaPadding, Usage,
};
use support::{Service, handle, hang_on, json, request};

/// Runs an operation against a service that answers this; gives its result and what it has sent.
fn run<T>(answers: &[&str], operation: impl FnOnce(&Client) -> T) -> (T, Vec<String>) {
    let (send, sent) = mpsc::channel();
    let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
    let service = Service::new(answers.len(), move |number, mut stream| {
        let bytes = request(&mut stream);
        send.send(String::from_utf8(bytes).unwrap()).unwrap();
        stream.write_all(answers[number].as_bytes()).unwrap();
        hang_on(stream);
    });
    let result = operation(&service.client());
    service.end();
    (result, sent.into_iter().collect())
}

fn post(target: &str, body: &str) -> String {
    with_body("POST", target, body)
}

fn with_body(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target}?api-version=2021-05-01 HTTP/1.1\r\ncontent-type: application/json\r\nhost: \
         keyd.sock\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

const ENCRYPT: Usage = Usage {
    derive: false,
    encrypt: true,
    sign: false,
};

#[test]
fn operations_that_answer_with_a_handle() {
    let answer = json("200 OK", "{\"keyHandle\":\"sr=eA==&sig=eQ==\"}");
    let check = |operation: &dyn Fn(&Client) -> Result<KeyHandle, Error>, expected: String| {
        let (result, sent) = run(&[&answer], |keys| operation(keys));
        assert_eq!(result.unwrap(), KeyHandle::new("sr=eA==&sig=eQ=="));
        assert_eq!(sent, [expected]);
    };
    check(
        &|keys| keys.create_key("a", Usage::DERIVE_SIGN),
        post(
            "/key",
            "{\"keyId\":\"a\",\"keyBytes\":null,\"usage\":\"derive,sign\"}",
        ),
    );
    check(
        &|keys| keys.import_key("dev1", b"test-symmetric-key", ENCRYPT),
        post(
            "/key",
            "{\"keyId\":\"dev1\",\"keyBytes\":\"dGVzdC1zeW1tZXRyaWMta2V5\",\"usage\":\"encrypt\"}",
        ),
    );
    check(
        &|keys| keys.load_key("imp"),
        "GET /key/imp?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\n\r\n".to_owned(),
    );
    check(
        &|keys| keys.create_key_pair("est-id", Some("ec-p256:rsa-2048:*")),
        post(
            "/keypair",
            "{\"keyId\":\"est-id\",\"preferredAlgorithms\":\"ec-p256:rsa-2048:*\"}",
        ),
    );
    check(
        &|keys| keys.create_key_pair("k", None),
        post("/keypair", "{\"keyId\":\"k\",\"preferredAlgorithms\":null}"),
    );
    check(
        &|keys| keys.load_key_pair("k"),
        "GET /keypair/k?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\n\r\n".to_owned(),
    );
    check(
        &|keys| keys.create_derived_key(&handle(), b"mod1:gen1:primary"),
        post(
            "/derivedkey",
            "{\"baseKeyHandle\":\"sr=QQ==&sig=QQ==\",\"derivationData\":\"bW9kMTpnZW4xOnByaW1hcnk=\"}",
        ),
    );
}

#[test]
fn operations_without_answer() {
    let check = |operation: &dyn Fn(&Client) -> Result<(), Error>, expected: String| {
        let (result, sent) = run(&[NO_CONTENT], |keys| operation(keys));
        result.unwrap();
        assert_eq!(sent, [expected]);
        // The service's own words come through, whatever the operation.
        let refused = json("400 Bad Request", "{\"message\":\"no \\u0022x\\u0022\"}");
        match run(&[&refused], |keys| operation(keys)).0 {
            Err(Error::Service { status, message }) => {
                assert_eq!((status, message.as_str()), (400, "no \"x\""));
            }
            other => panic!("{other:?}"),
        }
        let other = json("200 OK", "{}");
        let error = run(&[&other], |keys| operation(keys)).0.unwrap_err();
        assert_eq!(error.to_string(), "Expected one of [204], got 200 OK");
    };
    let body = "{\"keyHandle\":\"sr=QQ==&sig=QQ==\"}";
    check(
        &|keys| keys.delete_key(&handle()),
        with_body("DELETE", "/key", body),
    );
    check(
        &|keys| keys.delete_key_pair(&handle()),
        with_body("DELETE", "/keypair", body),
    );
    check(
        &|keys| keys.move_key_pair("est-id", "est-id-2"),
        post("/keypair/est-id-2", "{\"from\":\"est-id\"}"),
    );
}

#[test]
fn ks_37_ids_are_encoded_as_one_segment() {
    let id = "a/b%41 \"é\"?#..~_-+=&\u{1}";
    let encoded = "a%2Fb%2541%20%22%C3%A9%22%3F%23..~_-%2B%3D%26%01";
    let answer = json("200 OK", "{\"keyHandle\":\"h\"}");
    let (result, sent) = run(&[&answer, &answer, NO_CONTENT], |keys| {
        keys.load_key(id).unwrap();
        keys.load_key_pair(id).unwrap();
        keys.move_key_pair(id, id)
    });
    result.unwrap();
    let get = |path: &str| {
        format!("GET {path}{encoded}?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\n\r\n")
    };
    let body = "{\"from\":\"a/b%41 \\\"é\\\"?#..~_-+=&\\u0001\"}";
    assert_eq!(
        sent,
        [
            get("/key/"),
            get("/keypair/"),
            post(&format!("/keypair/{encoded}"), body)
        ]
    );
}

#[test]
fn ke_05_the_requests_of_an_engine() {
    let body = "{\"keyHandle\":\"sr=QQ==&sig=QQ==\"}";
    let value = |value: &str| json("200 OK", &format!("{{\"value\":\"{value}\"}}"));
    let (public, sent) = run(
        &[
            &value("ECDSA"),
            &value("BggqhkjOPQMBBw=="),
            &value("A2D+1LolWp0xyWHrdMY1bWjASbiSO2H6bOZpYi5g8p+2"),
        ],
        |keys| keys.public_key(&handle()),
    );
    let PublicKey::Ec { curve_oid, point } = public.unwrap() else {
        panic!("not EC");
    };
    assert_eq!(curve_oid, [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    assert_eq!((point.len(), point[0]), (33, 3));
    assert_eq!(
        sent,
        ["algorithm", "ec-curve-oid", "ec-point"]
            .map(|name| post(&format!("/parameters/{name}"), body))
    );
    let (public, sent) = run(
        &[&value("RSA"), &value("AQIDBA=="), &value("AQAB")],
        |keys| keys.public_key(&handle()),
    );
    assert_eq!(
        public.unwrap(),
        PublicKey::Rsa {
            modulus: vec![1, 2, 3, 4],
            exponent: vec![1, 0, 1]
        }
    );
    assert_eq!(
        sent,
        ["algorithm", "rsa-modulus", "rsa-exponent"]
            .map(|name| post(&format!("/parameters/{name}"), body))
    );

    let digest = [
        0xe7, 0xc2, 0x2b, 0x99, 0x4c, 0x59, 0xd9, 0xcf, 0x2b, 0x48, 0xe5, 0x49, 0xb1, 0xe2, 0x46,
        0x66, 0x63, 0x60, 0x45, 0x93, 0x0d, 0x35, 0xa7, 0xc1, 0xac, 0xb2, 0x99, 0xd1, 0xc3, 0xb7,
        0xf9, 0x31,
    ];
    let signature = json("200 OK", "{\"signature\":\"MAYCAQECAQE=\"}");
    let (result, sent) = run(&[&signature], |keys| keys.sign_ecdsa(&handle(), &digest));
    assert_eq!(result.unwrap(), [0x30, 6, 2, 1, 1, 2, 1, 1]);
    let expected = "{\"keyHandle\":\"sr=QQ==&sig=QQ==\",\"algorithm\":\"ECDSA\",\"parameters\":{\"digest\":\
                    \"58IrmUxZ2c8rSOVJseJGZmNgRZMNNafBrLKZ0cO3+TE=\"}}";
    assert_eq!((sent, expected.len()), (vec![post("/sign", expected)], 123));

    let ciphertext = json("200 OK", "{\"ciphertext\":\"AAEC\"}");
    for (padding, name) in [
        (RsaPadding::Pkcs1, "RSA-PKCS1"),
        (RsaPadding::None, "RSA-NO-PADDING"),
    ] {
        let (result, sent) = run(&[&ciphertext], |keys| {
            keys.rsa_private(&handle(), padding, b"input")
        });
        assert_eq!(result.unwrap(), [0, 1, 2]);
        let expected = format!(
            "{{\"keyHandle\":\"sr=QQ==&sig=QQ==\",\"algorithm\":\"{name}\",\"plaintext\":\"aW5wdXQ=\"}}"
        );
        assert_eq!(sent, [post("/encrypt", &expected)]);
    }
}

#[test]
fn symmetric_operations() {
    let answer = json(
        "200 OK",
        "{\"signature\":\"IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis=\"}",
    );
    let (result, sent) = run(&[&answer], |keys| keys.sign_hmac(&handle(), b"hello"));
    let mac: [u8; MAC_LEN] = result.unwrap();
    assert_eq!((mac[0], mac[31]), (0x23, 0x2b));
    assert_eq!(
        sent,
        [post(
            "/sign",
            "{\"keyHandle\":\"sr=QQ==&sig=QQ==\",\"algorithm\":\"HMAC-SHA256\",\"parameters\":{\"message\":\"aGVsbG8=\"}}"
        )]
    );
    let answer = json("200 OK", "{\"key\":\"AAEC\"}");
    let (result, sent) = run(&[&answer], |keys| keys.export_derived_key(&handle()));
    assert_eq!(result.unwrap().as_slice(), [0, 1, 2]);
    assert_eq!(
        sent,
        [post(
            "/derivedkey/export",
            "{\"keyHandle\":\"sr=QQ==&sig=QQ==\"}"
        )]
    );
    let aead = "{\"keyHandle\":\"sr=QQ==&sig=QQ==\",\"algorithm\":\"AEAD\",\"parameters\":{\"iv\":\"MTIzNDU2Nzg5MDEy\",\"aad\":\
                \"YWFk\"}";
    let answer = json("200 OK", "{\"ciphertext\":\"AtZw\"}");
    let (result, sent) = run(&[&answer], |keys| {
        keys.encrypt(&handle(), b"123456789012", b"aad", b"hello world")
    });
    assert_eq!(result.unwrap(), [2, 0xd6, 0x70]);
    assert_eq!(
        sent,
        [post(
            "/encrypt",
            &format!("{aead},\"plaintext\":\"aGVsbG8gd29ybGQ=\"}}")
        )]
    );
    let answer = json("200 OK", "{\"plaintext\":\"aGVsbG8gd29ybGQ=\"}");
    let (result, sent) = run(&[&answer], |keys| {
        keys.decrypt(&handle(), b"123456789012", b"aad", &[2, 0xd6, 0x70])
    });
    assert_eq!(result.unwrap().as_slice(), b"hello world");
    assert_eq!(
        sent,
        [post(
            "/decrypt",
            &format!("{aead},\"ciphertext\":\"AtZw\"}}")
        )]
    );
}

#[test]
fn large_bodies_both_ways() {
    let plaintext = vec![0x5a; 3 << 20];
    let encoded = "Wlpa".repeat(1 << 20);
    let answer = json("200 OK", &format!("{{\"ciphertext\":\"{encoded}\"}}"));
    let (result, sent) = run(&[&answer], |keys| {
        keys.encrypt(&handle(), b"iv", b"", &plaintext)
    });
    assert_eq!(result.unwrap(), plaintext);
    assert!(sent[0].ends_with(&format!("\"plaintext\":\"{encoded}\"}}")));
    let (result, sent) = run(&[], |keys| {
        keys.encrypt(&handle(), b"iv", b"", &vec![0; 8 << 20])
    });
    assert!(matches!(result, Err(Error::TooLong)) && sent.is_empty());
}

#[test]
fn answers_that_make_no_sense() {
    let secret = "c2VjcmV0";
    for body in [
        String::new(),
        "{}".to_owned(),
        "null".to_owned(),
        format!("{{\"signature\":\"{secret}\""),
        format!("{{\"signature\":\"{secret}\"}}x"),
        format!("{{\"signature\":\"{secret}=\"}}"),
        format!("{{\"signature\":\"{secret}\"}}"),
        "{\"signature\":5}".to_owned(),
    ] {
        let (result, _) = run(&[&json("200 OK", &body)], |keys| {
            keys.sign_hmac(&handle(), b"m")
        });
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{body}: {error:?}");
        let shown = format!("{error}{error:?}");
        assert!(
            !shown.contains(secret) && !shown.contains("QQ=="),
            "{shown}"
        );
    }
    let strange = json("200 OK", "{\"value\":\"DSA\"}");
    let error = run(&[&strange], |keys| keys.algorithm(&handle()))
        .0
        .unwrap_err();
    assert!(error.to_string().contains("\"DSA\""), "{error}");
    let (algorithm, _) = run(&[&json("200 OK", "{\"value\":\"RSA\"}")], |keys| {
        keys.algorithm(&handle())
    });
    assert_eq!(algorithm.unwrap(), Algorithm::Rsa);
}

#[test]
fn refusals() {
    for (answer, status, text) in [
        (
            json("400 Bad Request", "{\"message\":\"m\\ncaused by: n\"}"),
            400,
            "m\ncaused by: n",
        ),
        (
            json(
                "401 Unauthorized",
                "{\"x\":[1],\"message\":\"user 1 is not authorized\"}",
            ),
            401,
            "user 1 is not authorized",
        ),
        (
            json("500 Internal Server Error", "{}"),
            500,
            "HTTP error 500 Internal Server Error",
        ),
        (
            "HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            414,
            "HTTP error 414 URI Too Long",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>".to_owned(),
            503,
            "HTTP error 503 Service Unavailable",
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            204,
            "Expected one of [200], got 204 No Content",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_owned(),
            302,
            "Expected one of [200], got 302 Found",
        ),
    ] {
        match run(&[&answer], |keys| keys.load_key("k")).0 {
            Err(error @ Error::Service { status: found, .. }) => {
                assert_eq!((found, error.to_string().as_str()), (status, text));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn status_of_services_that_have_it_and_that_do_not() {
    let body = "{\"state\":\"running\",\"since\":\"2026-11-21T19:40:00Z\",\"reason\":null,\"nextAttempt\":null,\"version\":\
                \"1.6.0\",\"library\":{\"version\":\"0x02010000\",\"extended\":true},\"keys\":[{\"id\":\"k\",\"kind\":\"keyPair\",\
                \"location\":\"file\",\"place\":\"/p\",\"preloaded\":false,\"remark\":null}],\"tokens\":null,\"more\":0}";
    let (result, sent) = run(&[&json("200 OK", body)], |keys| {
        keys.status(|status| {
            assert!(status.tokens.is_none());
            let keys = status.keys.as_ref().unwrap();
            (keys.0.len(), keys.0[0].id.map(str::to_owned))
        })
    });
    assert_eq!(result.unwrap().unwrap(), (1, Some("k".to_owned())));
    assert_eq!(
        sent,
        ["GET /status?api-version=2026-11-01 HTTP/1.1\r\nhost: keyd.sock\r\n\r\n"]
    );
    for old in [
        json(
            "400 Bad Request",
            "{\"message\":\"invalid api-version \\\"2026-11-01\\\"\"}",
        ),
        json("404 Not Found", "{\"message\":\"not found\"}"),
    ] {
        let (result, _) = run(&[&old], |keys| keys.status(|_| ()));
        assert!(result.unwrap().is_none());
    }
    let failed = json(
        "500 Internal Server Error",
        "{\"message\":\"internal error\"}",
    );
    assert!(run(&[&failed], |keys| keys.status(|_| ())).0.is_err());
}

#[test]
fn handles_are_not_shown() {
    let handle = handle();
    assert_eq!(format!("{handle:?}"), "KeyHandle(..)");
    assert_eq!(handle.clone().into_text().as_str(), handle.as_str());
}
