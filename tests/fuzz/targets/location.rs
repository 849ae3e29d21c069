//! Key locations: any text as a `file:` or `pkcs11:` URI, rewritten, and against a second reading of RFC 7512.
#![no_main]

use std::ffi::c_ulong;

use aziot_core::uri::{Demands, FileUriError, Location, LocationError, Pkcs11, Pkcs11Error, Slot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|uri: &str| {
    // As much room as the documentation says is enough.
    let mut decoded = vec![0; uri.len() + 1];
    let location = match Location::parse(uri, &mut decoded) {
        Ok(location) => location,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(!matches!(
                error,
                LocationError::Pkcs11(Pkcs11Error::BufferFull(_))
                    | LocationError::File(FileUriError::BufferFull(_))
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
    if has_dots(&location) {
        // `.%2Fa` is one segment to a URL parser; as a path it is two, and the canonical form has one of them.
        assert!(matches!(read, Ok(Location::File(_))), "{canonical}");
        return;
    }
    assert_eq!(read, Ok(without_additions(location)), "{canonical}");
    let mut twice = vec![0; room];
    assert_eq!(location.write(&mut twice), Ok(canonical));
    assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()));

    match location {
        Location::File(path) => {
            assert!(path.starts_with(b"/") && !path.contains(&0));
            assert!(uri.trim_matches(|c: char| c <= ' ').starts_with("file:"));
        }
        Location::Pkcs11(read) => {
            let key = key(uri).expect("both read it");
            match (&key.slot, read.slot) {
                (Ok(id), Slot::Id(read)) => assert_eq!(*id, read),
                (Err(label), Slot::Label(read)) => assert_eq!(label, read),
                (expected, read) => panic!("{expected:?}, not {read:?}"),
            }
            assert_eq!(key.object.as_deref(), read.object);
            assert_eq!(key.pin.as_deref(), read.pin);
            assert_eq!(key.pin_source.as_deref(), read.pin_source);
            assert_eq!(
                key.demands.each_ref().map(Option::as_deref),
                [
                    read.demands.manufacturer,
                    read.demands.model,
                    read.demands.serial
                ]
            );
            // Shown as if it were another.
            let pin = read.pin.map(|_| "******");
            let shown = format!("{:?}", Pkcs11 { pin, ..read });
            assert_eq!(format!("{read:?}"), shown);
        }
    }
});

fn has_dots(location: &Location<'_>) -> bool {
    let Location::File(path) = location else {
        return false;
    };
    path.split(|byte| *byte == b'/')
        .any(|segment| matches!(segment, b"." | b".."))
}

/// What the canonical form, which is that of release 1.6.0, can say.
fn without_additions(location: Location<'_>) -> Location<'_> {
    match location {
        Location::File(_) => location,
        Location::Pkcs11(key) => Location::Pkcs11(Pkcs11 {
            pin_source: None,
            demands: Demands::default(),
            ..key
        }),
    }
}

struct Key {
    slot: Result<c_ulong, String>,
    object: Option<String>,
    pin: Option<String>,
    pin_source: Option<String>,
    demands: [Option<String>; 3],
}

/// The attributes of a `pkcs11:` URI, by other means.
fn key(uri: &str) -> Option<Key> {
    let rest = uri.strip_prefix("pkcs11:")?;
    let (path, query) = match rest.find('?') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, ""),
    };
    // The last of those with this name; all of them have to be UTF-8.
    let last = |text: &str, separator: char, name: &str| -> Option<Option<String>> {
        let mut found = None;
        for attribute in text.split(separator) {
            let mut parts = attribute.splitn(2, '=');
            let given = decoded(parts.next().unwrap_or_default());
            if given == name.as_bytes() {
                let value = decoded(parts.next().unwrap_or_default());
                let value = String::from_utf8(value).ok()?;
                if name == "slot-id" {
                    value.parse::<c_ulong>().ok()?;
                }
                found = Some(value);
            }
        }
        Some(found)
    };
    let (id, token) = (last(path, ';', "slot-id")?, last(path, ';', "token")?);
    let slot = match (id, token) {
        (Some(id), _) => Ok(id.parse().ok()?),
        (None, Some(token)) => Err(token),
        (None, None) => None?,
    };
    Some(Key {
        slot,
        object: last(path, ';', "object")?,
        pin: last(query, '&', "pin-value")?,
        pin_source: last(query, '&', "pin-source")?,
        demands: [
            last(path, ';', "manufacturer")?,
            last(path, ';', "model")?,
            last(path, ';', "serial")?,
        ],
    })
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
