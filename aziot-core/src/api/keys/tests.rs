use super::*;
use crate::json::{from_slice, to_slice};

fn error<'a, T: FromJson<'a>>(text: &str) -> String {
    let text = Box::leak(text.as_bytes().to_vec().into_boxed_slice());
    from_slice::<T>(text).err().expect("refused").to_string()
}

fn written(value: &impl Serialize) -> String {
    let mut out = [0; 512];
    let length = to_slice(value, &mut out).unwrap();
    String::from_utf8(out[..length].to_vec()).unwrap()
}

/// What is written is read as the same value.
fn check<'a, T>(text: &str, value: &T)
where
    T: FromJson<'a> + Serialize + PartialEq + fmt::Debug,
{
    assert_eq!(written(value), text);
    let text = Box::leak(text.as_bytes().to_vec().into_boxed_slice());
    assert_eq!(from_slice::<T>(text).as_ref(), Ok(value));
}

#[test]
fn ks_19_usage_parser() {
    for (text, mask) in [
        ("derive", 0x1),
        ("sign", 0x1),
        ("encrypt", 0x10),
        ("derive,derive", 0x1),
        ("derive,encrypt,sign", 0x11),
    ] {
        assert_eq!(Usage::parse(text).map(Usage::mask), Some(mask), "{text}");
    }
    for text in ["", "derive, sign", "foo", "derive,", "Sign"] {
        assert_eq!(Usage::parse(text), None, "{text}");
    }
    assert_eq!(
        error::<CreateKey<'_>>(r#"{"keyId":"a","usage":"foo"}"#),
        r#"invalid value: string "foo", expected KeyUsage at line 1 column 26"#
    );
    assert_eq!(
        error::<CreateKey<'_>>(r#"{"keyId":"a","usage":["sign"]}"#),
        "invalid type: sequence, expected KeyUsage at line 1 column 21"
    );
}

#[test]
fn ks_18_usage_is_mandatory() {
    for text in [r#"{"keyId":"a"}"#, r#"{"keyId":"a","keyBytes":"QQ=="}"#] {
        assert!(error::<CreateKey<'_>>(text).starts_with("missing field `usage`"));
    }
}

#[test]
fn ks_06_bodies_are_those_of_existing_clients() {
    check(
        r#"{"keyId":"a","keyBytes":null,"usage":"derive,sign"}"#,
        &CreateKey {
            key_id: "a",
            key_bytes: None,
            usage: Usage::DERIVE_SIGN,
        },
    );
    check(
        r#"{"keyId":"dev1","keyBytes":"dGVzdC1zeW1tZXRyaWMta2V5","usage":"derive,sign"}"#,
        &CreateKey {
            key_id: "dev1",
            key_bytes: Some(Bytes(b"test-symmetric-key")),
            usage: Usage::DERIVE_SIGN,
        },
    );
    check(
        r#"{"keyId":"est-id","preferredAlgorithms":null}"#,
        &CreateKeyPair {
            key_id: "est-id",
            preferred_algorithms: None,
        },
    );
    check(r#"{"from":"est-id"}"#, &MoveKeyPair { from: "est-id" });
    check(
        r#"{"baseKeyHandle":"h","derivationData":"bW9kMTpnZW4xOnByaW1hcnk="}"#,
        &CreateDerivedKey {
            base_key_handle: "h",
            derivation_data: Bytes(b"mod1:gen1:primary"),
        },
    );
    check(
        r#"{"keyHandle":"h","algorithm":"HMAC-SHA256","parameters":{"message":"aGVsbG8="}}"#,
        &Sign {
            key_handle: "h",
            mechanism: SignMechanism::HmacSha256 {
                message: Bytes(b"hello"),
            },
        },
    );
    check(
        r#"{"keyHandle":"h","algorithm":"ECDSA","parameters":{"digest":""}}"#,
        &Sign {
            key_handle: "h",
            mechanism: SignMechanism::Ecdsa { digest: Bytes(b"") },
        },
    );
    check(
        r#"{"keyHandle":"h","algorithm":"AEAD","parameters":{"iv":"MTIzNDU2Nzg5MDEy","aad":"YWFk"},"plaintext":"aGVsbG8gd29ybGQ="}"#,
        &Plaintext {
            key_handle: "h",
            mechanism: EncryptMechanism::Aead {
                iv: Bytes(b"123456789012"),
                aad: Bytes(b"aad"),
            },
            plaintext: Bytes(b"hello world"),
        },
    );
    check(
        r#"{"keyHandle":"h","algorithm":"RSA-PKCS1","ciphertext":"QQ=="}"#,
        &Ciphertext {
            key_handle: "h",
            mechanism: EncryptMechanism::RsaPkcs1,
            ciphertext: Bytes(b"A"),
        },
    );
    check(
        r#"{"signature":"IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="}"#,
        &Signature {
            signature: Bytes(&[
                0x23, 0x1b, 0xc4, 0x84, 0xc5, 0x36, 0x51, 0x44, 0x09, 0x7f, 0x0f, 0x47, 0x24, 0xc1,
                0x87, 0x68, 0x44, 0x56, 0x0e, 0x3d, 0xf7, 0xf6, 0x05, 0xbb, 0x5d, 0x7c, 0x68, 0x25,
                0xcc, 0x93, 0x2e, 0x2b,
            ]),
        },
    );
    check(r#"{"value":"ECDSA"}"#, &Parameter { value: "ECDSA" });
}

#[test]
fn ks_06_members_in_any_order_with_nulls_and_strangers() {
    for text in [
        r#"{"parameters":{"x":{},"message":"aGVsbG8="},"z":[1],"algorithm":"HMAC-SHA256","keyHandle":"h\/"}"#,
        r#" { "algorithm" : "HMAC-SHA256" , "keyHandle" : "h/" , "parameters" : [ "aGVsbG8=" ] } "#,
    ] {
        let mut text = text.as_bytes().to_vec();
        let sign: Sign<'_> = from_slice(&mut text).unwrap();
        assert_eq!(sign.key_handle, "h/");
        let message = Bytes(b"hello");
        assert_eq!(sign.mechanism, SignMechanism::HmacSha256 { message });
    }
    for parameters in ["", r#","parameters":null"#] {
        let text = format!(
            r#"{{"keyHandle":"h","algorithm":"RSA-NO-PADDING","plaintext":"QQ=="{parameters}}}"#
        );
        let mut text = text.into_bytes();
        let encrypt: Plaintext<'_> = from_slice(&mut text).unwrap();
        assert_eq!(encrypt.mechanism, EncryptMechanism::RsaNoPadding);
    }
}

#[test]
fn ks_06_refusals() {
    // The position is the end of the object, as with the decoder that clients know.
    for (text, message) in [
        (
            r#"{"keyHandle":"h","algorithm":"HMAC-SHA256"}"#,
            "missing field `parameters` at line 1 column 43",
        ),
        (
            r#"{"keyHandle":"h","algorithm":"HMAC-SHA512","parameters":{"message":""}}"#,
            "unknown variant `HMAC-SHA512`, expected `ECDSA` or `HMAC-SHA256` at line 1 column 71",
        ),
        (
            r#"{"keyHandle":"h","algorithm":"ECDSA","parameters":{"message":""}}"#,
            "missing field `digest` at line 1 column 65",
        ),
        (
            r#"{"keyHandle":"h","algorithm":"ECDSA","parameters":{"digest":5}}"#,
            "invalid type: integer `5`, expected a base64-encoded string at line 1 column 63",
        ),
        (
            r#"{"keyHandle":"h","parameters":{}}"#,
            "missing field `algorithm` at line 1 column 33",
        ),
        (
            r#"{"keyHandle":"h","keyHandle":"h"}"#,
            "duplicate field `keyHandle` at line 1 column 28",
        ),
        ("{}", "missing field `keyHandle` at line 1 column 2"),
    ] {
        assert_eq!(error::<Sign<'_>>(text), message);
    }
    for parameters in ["{}", "1", r#""""#, "[]"] {
        let text = format!(
            r#"{{"keyHandle":"h","algorithm":"RSA-PKCS1","parameters":{parameters},"plaintext":""}}"#
        );
        let message = error::<Plaintext<'_>>(&text);
        assert!(message.contains("expected null"), "{message}");
    }
    for text in [
        r#"{"keyHandle":"h","algorithm":"AEAD","plaintext":""}"#,
        r#"{"keyHandle":"h","algorithm":"AEAD","parameters":{"iv":""},"plaintext":""}"#,
        r#"{"keyHandle":"h","algorithm":"AEAD","parameters":{"iv":"","aad":null},"plaintext":""}"#,
        r#"{"keyHandle":"h","algorithm":"RSA-PKCS1"}"#,
    ] {
        error::<Plaintext<'_>>(text);
    }
}
