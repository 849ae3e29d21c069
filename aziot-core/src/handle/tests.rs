use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac as _};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;

const A: &str = "sr=eyJrZXlfaWQiOnsiS2V5IjoiaW1wIn0sIm5vbmNlIjoiQUFFQ0F3UUZCZ2NJQ1FvTERBME9EeEFSRWhNVUZSWVhHQmthR3h3ZEhoOGdJU0lqSkNVbUp5Z3BLaXNzTFM0dk1ERXlNelExTmpjNE9UbzdQRDArUHc9PSJ9&sig=MYkHHCT3o/sgtO/dOwC0PVpq5c0i8uXFOzzNGKZu3Ig=";
const B: &str = "sr=eyJrZXlfaWQiOnsiS2V5UGFpciI6ImtwIn0sIm5vbmNlIjoiQUFFQ0F3UUZCZ2NJQ1FvTERBME9EeEFSRWhNVUZSWVhHQmthR3h3ZEhoOGdJU0lqSkNVbUp5Z3BLaXNzTFM0dk1ERXlNelExTmpjNE9UbzdQRDArUHc9PSJ9&sig=O2/bcw5h2hlgtsWNICgevWgbLvvm3Miw1qkgukfphF4=";
const C: &str = "sr=eyJrZXlfaWQiOnsiS2V5IjoiYWVhZCJ9LCJub25jZSI6IkFBRUNBd1FGQmdjSUNRb0xEQTBPRHhBUkVoTVVGUllYR0JrYUd4d2RIaDhnSVNJakpDVW1KeWdwS2lzc0xTNHZNREV5TXpRMU5qYzRPVG83UEQwK1B3PT0ifQ==&sig=8wLfr3zV4JAb4lOsQIqBWJzrYcW6QjPK8g1hPwMHtKE=";
const D: &str = "sr=eyJrZXlfaWQiOnsiRGVyaXZlZCI6WyJzcj1leUpyWlhsZmFXUWlPbnNpUzJWNUlqb2lhVzF3SW4wc0ltNXZibU5sSWpvaVFVRkZRMEYzVVVaQ1oyTkpRMUZ2VEVSQk1FOUVlRUZTUldoTlZVWlNXVmhIUW10aFIzaDNaRWhvT0dkSlUwbHFTa05WYlVwNVozQkxhWE56VEZNMGRrMUVSWGxOZWxFeFRtcGpORTlVYnpkUVJEQXJVSGM5UFNKOSZzaWc9TVlrSEhDVDNvL3NndE8vZE93QzBQVnBxNWMwaTh1WEZPenpOR0tadTNJZz0iLFsxMDksMTExLDEwMCw0OSw1OCwxMDMsMTAxLDExMCw0OSw1OCwxMTIsMTE0LDEwNSwxMDksOTcsMTE0LDEyMV1dfSwibm9uY2UiOiJBQUVDQXdRRkJnY0lDUW9MREEwT0R4QVJFaE1VRlJZWEdCa2FHeHdkSGg4Z0lTSWpKQ1VtSnlncEtpc3NMUzR2TURFeU16UTFOamM0T1RvN1BEMCtQdz09In0=&sig=F9S07DqQqda/s2DcQZReuGl/3sJgYlzb0TCzyaY8FtM=";
const U: &str = "sr=eyJrZXlfaWQiOnsiS2V5Ijoia8OpXCIvXG4ifSwibm9uY2UiOiJBQUVDQXdRRkJnY0lDUW9MREEwT0R4QVJFaE1VRlJZWEdCa2FHeHdkSGg4Z0lTSWpKQ1VtSnlncEtpc3NMUzR2TURFeU16UTFOamM0T1RvN1BEMCtQdz09In0=&sig=IpKYVh1Jl6ajqmu4anedM0J0sMnztU3FWMn7y1rjwPg=";

fn hmac(message: &[u8]) -> [u8; 32] {
    let key: Vec<u8> = (0..32).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn mac(message: &[u8]) -> Result<[u8; 32], ()> {
    Ok(hmac(message))
}

fn nonce() -> [u8; 64] {
    core::array::from_fn(|index| u8::try_from(index).unwrap())
}

/// Signs any text, well-formed or not.
fn sign(sr: &str) -> String {
    format!(
        "sr={}&sig={}",
        Base64::encode_string(sr.as_bytes()),
        Base64::encode_string(&hmac(sr.as_bytes()))
    )
}

fn written(subject: Subject<'_>) -> String {
    let mut out = vec![0; length(subject)];
    write(subject, &nonce(), &mut mac, &mut out)
        .unwrap()
        .to_owned()
}

#[derive(Debug, PartialEq)]
enum Checked {
    Derived(String, Vec<u8>),
    Key(String),
    KeyPair(String),
}

fn checked(handle: &str) -> Result<Checked, CheckError<()>> {
    let mut buffer = handle.as_bytes().to_vec();
    Ok(match check(&mut buffer, &mut mac)? {
        KeyRef::Derived { base, data } => {
            Checked::Derived(base.id().as_str().to_owned(), data.to_vec())
        }
        KeyRef::Key(id) => Checked::Key(id.as_str().to_owned()),
        KeyRef::KeyPair(id) => Checked::KeyPair(id.as_str().to_owned()),
    })
}

#[test]
fn ks_11_fixed_handles_are_written_exactly() {
    let key = |id| Subject::Key(KeyId::new(id).unwrap());
    assert_eq!(written(key("imp")), A);
    assert_eq!(written(Subject::KeyPair(KeyId::new("kp").unwrap())), B);
    assert_eq!(written(key("aead")), C);
    assert_eq!(
        written(Subject::Derived {
            base_handle: A,
            data: b"mod1:gen1:primary"
        }),
        D
    );
    assert_eq!(written(key("ké\"/\n")), U);
    assert_eq!((A.len(), B.len(), C.len(), D.len()), (216, 220, 220, 596));
}

#[test]
fn ks_11_signed_text_and_nonce() {
    let id = KeyId::new("imp").unwrap();
    let mut out = [0; 300];
    let handle = write(Subject::Key(id), &[7; 64], &mut mac, &mut out).unwrap();
    let sr = handle
        .strip_prefix("sr=")
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    let sr = String::from_utf8(Base64::decode_vec(sr).unwrap()).unwrap();
    let nonce = Base64::encode_string(&[7; 64]);
    assert_eq!(nonce.len(), 88);
    assert_eq!(
        sr,
        format!("{{\"key_id\":{{\"Key\":\"imp\"}},\"nonce\":\"{nonce}\"}}")
    );
    assert_ne!(handle, A);
}

#[test]
fn ks_12_fixed_handles_are_accepted() {
    assert_eq!(checked(A), Ok(Checked::Key("imp".into())));
    assert_eq!(checked(B), Ok(Checked::KeyPair("kp".into())));
    assert_eq!(checked(C), Ok(Checked::Key("aead".into())));
    assert_eq!(
        checked(D),
        Ok(Checked::Derived(
            "imp".into(),
            b"mod1:gen1:primary".to_vec()
        ))
    );
    assert_eq!(checked(U), Ok(Checked::Key("ké\"/\n".into())));
}

#[test]
fn ks_12_nested_handle_is_refused() {
    // The text form names the escape-free base handle, so the vector can be made by the writer itself.
    let nested = written(Subject::Derived {
        base_handle: D,
        data: &[120],
    });
    assert_eq!(nested.len(), 1024);
    assert_eq!(checked(&nested), Err(CheckError::Nested));
    assert_eq!(
        CheckError::<&str>::Nested.to_string(),
        "nested derived keys are not supported, import the outer derived key first"
    );
    let mut buffer = D.as_bytes().to_vec();
    assert_eq!(
        check(&mut buffer, &mut mac).unwrap().base(),
        Err(WrongKind::Nested)
    );
}

#[test]
fn ks_12_damaged_handles_are_invalid() {
    let (sr, sig) = A.split_once('&').unwrap();
    let mut wrong = hmac(b"");
    wrong[31] ^= 1;
    let short = format!("{sr}&sig={}", Base64::encode_string(&hmac(b"")[..16]));
    for handle in [
        format!("{sr}&sig={}", Base64::encode_string(&wrong)),
        short,
        format!("{sr}&sig="),
        format!("{}&{sig}", sr.trim_end_matches('=')).replacen("SJ9&", "SJ&", 1),
        C.replacen("==&", "&", 1),
        sr.to_owned(),
        sig.to_owned(),
        String::new(),
        "&".to_owned(),
        "&&&".to_owned(),
        format!(" {A}"),
        format!("{A} "),
        format!("{A}\n"),
        A.replace("sr=", "SR="),
        // The last symbol carries bits that do not count.
        A.replace("Ig=", "Ih="),
        A.replace("=MYk", "=MY-"),
    ] {
        assert_eq!(checked(&handle), Err(CheckError::Invalid), "{handle}");
    }
}

#[test]
fn ks_14_order_and_foreign_pieces() {
    let (sr, sig) = A.split_once('&').unwrap();
    for handle in [
        format!("{sig}&{sr}"),
        format!("foo=bar&{sr}&{sig}&se=5"),
        format!("&{sr}&&{sig}&"),
        format!("sr=&{sr}&sig=AAAA&{sig}"),
    ] {
        assert_eq!(checked(&handle), Ok(Checked::Key("imp".into())), "{handle}");
    }
    for handle in [
        format!("sr=x&{sr}&{sig}"),
        format!("{sr}&sig=A&{sig}"),
        format!("{sr}&{sig}&sig=AAAA"),
    ] {
        assert_eq!(checked(&handle), Err(CheckError::Invalid), "{handle}");
    }
}

#[test]
fn ks_14_signed_text_with_variations() {
    for sr in [
        r#"{"key_id":{"Key":"imp"},"nonce":""}"#,
        r#" { "nonce" : "x" , "key_id" : { "Key" : "imp" } } "#,
        r#"{"a":[1,-2.5e+3,{"b":null,"c":[]},{},true,false,"\ud834\udd1e"],"key_id":{"Key":"imp"},"nonce":"n"}"#,
        r#"{"key_id":{"Key":"\u0069m\u0070"},"nonce":"n","z":0}"#,
    ] {
        assert_eq!(checked(&sign(sr)), Ok(Checked::Key("imp".into())), "{sr}");
    }
    assert_eq!(
        checked(&sign(&format!(
            r#"{{"key_id":{{"Derived":["{A}",[ 0 , 255 ,7]]}},"nonce":""}}"#
        ))),
        Ok(Checked::Derived("imp".into(), vec![0, 255, 7]))
    );
    assert_eq!(
        checked(&sign(&format!(
            r#"{{"key_id":{{"Derived":["{}",[]]}},"nonce":""}}"#,
            A.replace('/', "\\/")
        ))),
        Ok(Checked::Derived("imp".into(), vec![]))
    );
}

#[test]
fn ks_14_signed_text_of_another_shape() {
    let deep = format!(
        r#"{{"d":{}{},"key_id":{{"Key":"imp"}},"nonce":""}}"#,
        "[".repeat(129),
        "]".repeat(129)
    );
    let texts = [
        r#"{"key_id":{"Key":"imp"}}"#,
        r#"{"nonce":""}"#,
        r#"{"key_id":{"Key":"imp"},"nonce":null}"#,
        r#"{"key_id":{"Key":"imp"},"nonce":"","nonce":""}"#,
        r#"{"key_id":{"Key":"imp"},"key_id":{"Key":"imp"},"nonce":""}"#,
        r#"{"key_id":{"Key":"imp","Key":"imp"},"nonce":""}"#,
        r#"{"key_id":{"key":"imp"},"nonce":""}"#,
        r#"{"key_id":{"Derived":["x",[1]]},"nonce":""}"#,
        r#"{"key_id":"imp","nonce":""}"#,
        r#"{"key_id":{"Key":"imp"},"nonce":""}x"#,
        r#"{"key_id":{"Key":"imp"},"nonce":"",}"#,
        r#"{"key_id":{"Key":"\ud800"},"nonce":""}"#,
        r#"{"key_id":{"Key":"\x"},"nonce":""}"#,
        r#"{"key_id":{"Key":"imp"},"nonce":""#,
        r#"{"x":01,"key_id":{"Key":"imp"},"nonce":""}"#,
        "{}",
        "",
        &deep,
    ];
    for sr in texts {
        assert_eq!(checked(&sign(sr)), Err(CheckError::Invalid), "{sr}");
    }
    for data in [
        "\"eA==\"", "\"x\"", "[256]", "[-1]", "[1.0]", "[01]", "[1,]", "[,1]", "[1 2]", "[[1]]",
        "null",
    ] {
        let sr = format!(r#"{{"key_id":{{"Derived":["{A}",{data}]}},"nonce":""}}"#);
        assert_eq!(checked(&sign(&sr)), Err(CheckError::Invalid), "{sr}");
    }
    let not_utf8 = b"{\"key_id\":{\"Key\":\"\xff\"},\"nonce\":\"\"}";
    let handle = format!(
        "sr={}&sig={}",
        Base64::encode_string(not_utf8),
        Base64::encode_string(&hmac(not_utf8))
    );
    assert_eq!(checked(&handle), Err(CheckError::Invalid));
}

#[test]
fn nul_in_an_id_has_its_own_error() {
    let handle = sign(r#"{"key_id":{"Key":"a\u0000"},"nonce":""}"#);
    assert_eq!(
        checked(&handle),
        Err(CheckError::NulByte(NulByte { position: 1 }))
    );
}

#[test]
fn a_mac_that_fails_is_passed_on() {
    let mut would_block = |_: &[u8]| Err::<[u8; 32], _>("would block");
    let mut buffer = A.as_bytes().to_vec();
    assert_eq!(
        check(&mut buffer, &mut would_block),
        Err(CheckError::Mac("would block"))
    );
    let subject = Subject::Key(KeyId::new("imp").unwrap());
    let mut out = [0; 300];
    assert_eq!(
        write(subject, &nonce(), &mut would_block, &mut out),
        Err(WriteError::Mac("would block"))
    );
    let mut small = [0; 215];
    assert_eq!(
        write(subject, &nonce(), &mut mac, &mut small),
        Err(WriteError::BufferTooSmall { needed: 216 })
    );
}

#[test]
fn kinds() {
    let id = KeyId::new("x").unwrap();
    let derived = KeyRef::Derived {
        base: BaseKey::Key(id),
        data: b"d",
    };
    assert_eq!(KeyRef::Key(id).key(), Ok(id));
    assert_eq!(
        KeyRef::KeyPair(id).key().unwrap_err().to_string(),
        "handle is not for a key"
    );
    assert_eq!(
        KeyRef::Key(id).key_pair().unwrap_err().to_string(),
        "handle is not for a key pair"
    );
    assert_eq!(
        KeyRef::Key(id).derived().unwrap_err().to_string(),
        "handle is not for a derived key"
    );
    assert_eq!(derived.derived(), Ok((BaseKey::Key(id), &b"d"[..])));
    assert_eq!(KeyRef::KeyPair(id).base(), Ok(BaseKey::KeyPair(id)));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(id in any::<String>(), data in proptest::collection::vec(any::<u8>(), 0..80), pair: bool) {
        prop_assume!(!id.contains('\0'));
        let key = KeyId::new(&id).unwrap();
        let base = written(if pair { Subject::KeyPair(key) } else { Subject::Key(key) });
        let expected = if pair { Checked::KeyPair(id.clone()) } else { Checked::Key(id.clone()) };
        prop_assert_eq!(checked(&base), Ok(expected));
        let derived = written(Subject::Derived { base_handle: &base, data: &data });
        prop_assert_eq!(checked(&derived), Ok(Checked::Derived(id, data)));
    }

    #[test]
    fn the_signed_text_is_json_as_serde_writes_it(id in any::<String>()) {
        prop_assume!(!id.contains('\0'));
        let handle = written(Subject::Key(KeyId::new(&id).unwrap()));
        let sr = Base64::decode_vec(handle.strip_prefix("sr=").unwrap().split('&').next().unwrap()).unwrap();
        let expected = format!(
            "{{\"key_id\":{{\"Key\":{}}},\"nonce\":\"{}\"}}",
            serde_json::to_string(&id).unwrap(),
            Base64::encode_string(&nonce())
        );
        prop_assert_eq!(String::from_utf8(sr).unwrap(), expected);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = bytes.clone();
        prop_assert!(check(&mut buffer, &mut mac).is_err());
        // And with a genuine MAC.
        let handle = format!("sr={}&sig={}", Base64::encode_string(&bytes), Base64::encode_string(&hmac(&bytes)));
        prop_assert!(checked(&handle).is_err());
    }

    #[test]
    fn foreign_members_are_skipped_exactly_if_they_are_json(
        text in "[\\[\\]{}:,\"0-9a-c.eE+\\-ntrufls\\\\ ]{0,24}"
    ) {
        let sr = format!(r#"{{"x":{text},"key_id":{{"Key":"imp"}},"nonce":""}}"#);
        let fine = serde_json::from_str::<serde_json::Value>(&sr)
            .is_ok_and(|v| v["key_id"]["Key"] == "imp" && v.as_object().unwrap().contains_key("x"))
            // Numbers that only overflow serde's f64 are well-formed.
            || serde_json::from_str::<serde_json::Value>(&sr).is_err_and(|e| e.to_string().contains("out of range"));
        prop_assert_eq!(checked(&sign(&sr)).is_ok(), fine, "{}", sr);
    }
}
