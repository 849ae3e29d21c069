//! Key handles: any text against a second reading of it, and handles that we write.
#![no_main]

use std::convert::Infallible;

use aziot_core::handle::{self, BaseKey, CheckError, KeyRef, MAC_SIZE, Mac, NONCE_SIZE, Subject};
use aziot_core::id::KeyId;
use aziot_fuzz::{Input, Members, may_be_too_deep};
use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    if input.byte().is_multiple_of(2) {
        any_text(input.0);
    } else {
        written(&mut input);
    }
});

/// Believes every MAC, so that the fuzzer gets to see what lies behind the check.
struct Credulous;

impl Mac for Credulous {
    type Error = Infallible;

    fn sign(&mut self, _: &[u8]) -> Result<[u8; MAC_SIZE], Infallible> {
        Ok([0; MAC_SIZE])
    }

    fn verify(&mut self, _: &[u8], _: &[u8; MAC_SIZE]) -> Result<bool, Infallible> {
        Ok(true)
    }
}

fn hmac(message: &[u8]) -> Result<[u8; MAC_SIZE], Infallible> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"fuzz").expect("any length is a key");
    mac.update(message);
    Ok(mac.finalize().into_bytes().into())
}

/// What a handle says, owned.
#[derive(Debug, PartialEq)]
enum Said {
    Key(String),
    KeyPair(String),
    Derived(Box<Self>, Vec<u8>),
    Nested,
    Nul,
    Invalid,
}

fn any_text(text: &[u8]) {
    let mut forged = text.to_vec();
    let said = match handle::check(&mut forged, &mut Credulous) {
        Ok(KeyRef::Key(id)) => Said::Key(id.as_str().to_owned()),
        Ok(KeyRef::KeyPair(id)) => Said::KeyPair(id.as_str().to_owned()),
        Ok(KeyRef::Derived { base, data }) => {
            let base = match base {
                BaseKey::Key(id) => Said::Key(id.as_str().to_owned()),
                BaseKey::KeyPair(id) => Said::KeyPair(id.as_str().to_owned()),
            };
            Said::Derived(Box::new(base), data.to_vec())
        }
        Err(CheckError::Nested) => Said::Nested,
        Err(CheckError::NulByte(_)) => Said::Nul,
        Err(CheckError::Invalid) => Said::Invalid,
        Err(CheckError::Mac(never)) => match never {},
    };
    if let Some(expected) = read(text, 0) {
        assert_eq!(said, expected);
    }
    // The real check knows no such handle.
    assert_eq!(
        handle::check(&mut text.to_vec(), &mut hmac),
        Err(CheckError::Invalid)
    );
}

/// The same again, by other means. `None` where the two may differ.
fn read(text: &[u8], depth: u8) -> Option<Said> {
    let (mut signed, mut signature) = (None, None);
    for piece in text.split(|byte| *byte == b'&') {
        let decode = |encoded: &[u8]| {
            let text = std::str::from_utf8(encoded).ok()?;
            Base64::decode_vec(text).ok()
        };
        if let Some(encoded) = piece.strip_prefix(b"sr=") {
            signed = decode(encoded).and_then(|bytes| String::from_utf8(bytes).ok());
            if signed.is_none() {
                return Some(Said::Invalid);
            }
        } else if let Some(encoded) = piece.strip_prefix(b"sig=") {
            signature = decode(encoded);
            if signature.is_none() {
                return Some(Said::Invalid);
            }
        }
    }
    let (Some(signed), Some(signature)) = (signed, signature) else {
        return Some(Said::Invalid);
    };
    if may_be_too_deep(signed.as_bytes()) {
        return None;
    }
    if signature.len() != MAC_SIZE {
        return Some(Said::Invalid);
    }
    Some(subject(signed.as_bytes(), depth)?.unwrap_or(Said::Invalid))
}

fn subject(signed: &[u8], depth: u8) -> Option<Option<Said>> {
    let named = || {
        let members = Members::named(signed, &["key_id", "nonce"])?;
        members.required::<String>("nonce")?;
        Members::of(members.once("key_id")??.as_bytes())
    };
    let named = named();
    let Some((kind, value)) = named.as_ref().and_then(Members::only) else {
        return Some(None);
    };
    let id = |of: fn(String) -> Said| {
        let id: String = serde_json::from_str(value).ok()?;
        Some(if id.contains('\0') { Said::Nul } else { of(id) })
    };
    Some(match kind {
        "Key" => id(Said::Key),
        "KeyPair" => id(Said::KeyPair),
        "Derived" => match serde_json::from_str::<(String, Vec<u8>)>(value) {
            Ok(_) if depth > 0 => Some(Said::Nested),
            Ok((base, data)) => match read(base.as_bytes(), depth + 1)? {
                Said::Derived(..) | Said::Nested => Some(Said::Nested),
                Said::Invalid => None,
                Said::Nul => Some(Said::Nul),
                base => Some(Said::Derived(Box::new(base), data)),
            },
            Err(_) => None,
        },
        _ => None,
    })
}

/// What is written is read back, and no bit of it can be changed.
fn written(input: &mut Input<'_>) {
    let (kind, flip) = (
        input.byte(),
        usize::from(input.byte()) << 8 | usize::from(input.byte()),
    );
    let mut nonce = [0; NONCE_SIZE];
    nonce.fill_with(|| input.byte());
    let data = input.piece();
    let id = input.text();
    let Ok(key_id) = KeyId::new(&id) else {
        return;
    };
    let base = if kind & 1 == 0 {
        Subject::Key(key_id)
    } else {
        Subject::KeyPair(key_id)
    };
    let mut out = vec![0xee; handle::length(base)];
    let base_handle = handle::write(base, &nonce, &mut hmac, &mut out)
        .expect("as long as it says")
        .to_owned();
    let derived = Subject::Derived {
        base_handle: &base_handle,
        data,
    };
    let subject = if kind & 2 == 0 { base } else { derived };
    let length = handle::length(subject);
    let mut out = vec![0xee; length + 1];
    let text = handle::write(subject, &nonce, &mut hmac, &mut out)
        .expect("as long as it says")
        .to_owned();
    assert_eq!((text.len(), out[length]), (length, 0xee));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(handle::write(subject, &nonce, &mut hmac, &mut vec![0; length - 1]).is_err());

    let mut again = text.clone().into_bytes();
    let read = handle::check(&mut again, &mut hmac).expect("our own handle");
    match (subject, read) {
        (Subject::Key(id), KeyRef::Key(read)) | (Subject::KeyPair(id), KeyRef::KeyPair(read)) => {
            assert_eq!(id, read);
        }
        (Subject::Derived { data, .. }, KeyRef::Derived { base, data: read }) => {
            assert_eq!((base.id(), data), (key_id, read));
            assert_eq!(matches!(base, BaseKey::Key(_)), kind & 1 == 0);
        }
        (subject, read) => panic!("{subject:?} became {read:?}"),
    }

    let mut changed = text.into_bytes();
    let at = flip / 8 % changed.len();
    changed[at] ^= 1 << (flip % 8);
    assert_eq!(
        handle::check(&mut changed, &mut hmac),
        Err(CheckError::Invalid)
    );
}
