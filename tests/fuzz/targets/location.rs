//! Key locations: any text as a `file:` or `pkcs11:` URI, rewritten, and against a second reading of RFC 7512.
#![no_main]

use aziot_core::uri::{Location, LocationError, Pkcs11, Pkcs11Error, Slot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|uri: &str| {
    // As much room as the documentation says is enough.
    let mut decoded = vec![0; uri.len() + 1];
    let location = match Location::parse(uri, &mut decoded) {
        Ok(location) => location,
        Err(error) => {
            assert!(!error.to_string().contains("buffer"), "{error}");
            assert!(!matches!(
                error,
                LocationError::Pkcs11(Pkcs11Error::BufferFull(_))
            ));
            if uri.starts_with("pkcs11:") {
                assert!(key(uri).is_none(), "{error}");
            }
            return;
        }
    };

    // The canonical form says the same, and is its own canonical form.
    let room = 64 + 3 * uri.len();
    let mut written = vec![0; room];
    let canonical = location.write(&mut written).expect("enough room");
    let mut again = vec![0; canonical.len() + 1];
    let read = Location::parse(canonical, &mut again);
    assert_eq!(read, Ok(location), "{canonical}");
    let mut twice = vec![0; room];
    assert_eq!(location.write(&mut twice), Ok(canonical));
    assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()));

    match location {
        Location::File(path) => {
            assert!(path.starts_with(b"/") && !path.contains(&0));
            assert!(uri.trim_matches(|c: char| c <= ' ').starts_with("file:"));
        }
        Location::Pkcs11(read) => {
            let (slot, object, pin) = key(uri).expect("both read it");
            match (slot, read.slot) {
                (Ok(id), Slot::Id(read)) => assert_eq!(id, read),
                (Err(label), Slot::Label(read)) => assert_eq!(label, read),
                (expected, read) => panic!("{expected:?}, not {read:?}"),
            }
            assert_eq!((object.as_deref(), pin.as_deref()), (read.object, read.pin));
            if let Some(pin) = &pin
                && pin.len() >= 4
                && !format!("{:?}{:?}", read.slot, object).contains(pin.as_str())
            {
                assert!(!format!("{read:?}").contains(pin.as_str()), "the PIN shows");
            }
            assert_eq!(Pkcs11::parse(canonical, &mut again), Ok(read));
        }
    }
});

type Key = (
    Result<std::ffi::c_ulong, String>,
    Option<String>,
    Option<String>,
);

/// The attributes of a `pkcs11:` URI, by other means.
fn key(uri: &str) -> Option<Key> {
    let rest = uri.strip_prefix("pkcs11:")?;
    let (path, query) = match rest.find('?') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, ""),
    };
    let last = |text: &str, separator: char, name: &str| -> Option<Option<String>> {
        let mut found = None;
        for attribute in text.split(separator) {
            let mut parts = attribute.splitn(2, '=');
            let given = decoded(parts.next().unwrap_or_default());
            if given == name.as_bytes() {
                let value = decoded(parts.next().unwrap_or_default());
                found = Some(String::from_utf8(value).ok()?);
            }
        }
        Some(found)
    };
    let (object, id, token) = (
        last(path, ';', "object")?,
        last(path, ';', "slot-id")?,
        last(path, ';', "token")?,
    );
    let pin = last(query, '&', "pin-value")?;
    // Every number has to be one, also one that another follows.
    for attribute in path.split(';') {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        if decoded(name) == b"slot-id" {
            let value = String::from_utf8(decoded(value)).ok()?;
            value.parse::<std::ffi::c_ulong>().ok()?;
        }
    }
    let slot = match (id, token) {
        (Some(id), _) => Ok(id.parse().ok()?),
        (None, Some(token)) => Err(token),
        (None, None) => return None,
    };
    Some((slot, object, pin))
}

/// Percent-decoding (RFC 3986, 2.1); what is no escape stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::new();
    while let [first, tail @ ..] = rest {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        match tail {
            [high, low, after @ ..]
                if *first == b'%' && digit(high).is_some() && digit(low).is_some() =>
            {
                let value = digit(high)
                    .zip(digit(low))
                    .map_or(0, |(high, low)| high * 16 + low);
                out.push(value as u8);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
