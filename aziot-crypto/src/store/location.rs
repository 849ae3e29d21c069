//! From key ids and URIs to files.

use core::fmt::Write;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::error::LocationError;

/// Where a key lives.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Location {
    /// In this file.
    File(PathBuf),
}

/// The name of the file in `keys/` that holds the key with this id: its ASCII letters and digits, a hyphen, the
/// SHA-256 of the whole id in lower-case hexadecimal digits, and `.key`.
pub(super) fn file_name(id: &str) -> String {
    let mut name: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    name.push('-');
    for byte in Sha256::digest(id) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".key");
    name
}

/// The path of a `file:` URI, read as a URL (WHATWG): the host is empty or `localhost`, percent-encoding is decoded
/// (a `%` without two digits stays), query and fragment are dropped, `.` and `..` are resolved, `\` counts as `/`.
pub(super) fn parse(uri: &str) -> Result<PathBuf, LocationError> {
    let (scheme, rest) = uri.split_once(':').ok_or(LocationError::NoScheme)?;
    match scheme {
        "file" => {}
        "pkcs11" => return Err(LocationError::Pkcs11Unsupported),
        _ => return Err(LocationError::UnknownScheme),
    }
    let text: String = rest
        .trim_end_matches(|c: char| c <= ' ')
        .chars()
        .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
        .map(|c| if c == '\\' { '/' } else { c })
        .collect();
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let path = match text.strip_prefix("//") {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                return Err(LocationError::Host);
            }
            path
        }
        None => text,
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = path.split('/').peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." if last => segments.push(""),
            "." => {}
            ".." => {
                segments.pop();
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(segment),
        }
    }
    let mut bytes = Vec::with_capacity(path.len() + 1);
    for segment in segments {
        bytes.push(b'/');
        percent_decode(segment, &mut bytes);
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn percent_decode(text: &str, out: &mut Vec<u8>) {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, digit(tail.first()), digit(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits fit a byte.
                out.push((high << 4 | low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kf_01_file_names() {
        for (id, name) in [
            (
                "device-id",
                "deviceid-bd732105ef89cf8edd2606a5309c8a26b7b5599a4e124a0fe6199b6b2f60e655.key",
            ),
            (
                "handle-validation-key",
                "handlevalidationkey-40f1ca41fe8b50f53e10f3e3a580dcae24087f37aa498ba9903f2612b03e90ba.key",
            ),
            (
                "ca",
                "ca-6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126.key",
            ),
            (
                "aziot_identityd_master_id",
                "aziotidentitydmasterid-91b92c2c06a5a5dda5fbc9c48b4d428d930b9c1b8b2956a1044ccbc7a266afc9.key",
            ),
            (
                "../../etc/passwd",
                "etcpasswd-3754d6cb3a38e1185e5b382d5f3ef3f118af75bf4bf0254d1fdb8437f51423e0.key",
            ),
            (
                "Ünï/cödé key",
                "ncdkey-47b3cd261ad836c42e298da33dff507543e7d45b5203bcd3ae4724635b0b41e2.key",
            ),
            (
                "",
                "-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.key",
            ),
        ] {
            assert_eq!(file_name(id), name, "{id}");
        }
    }

    #[test]
    fn kf_03_file_uris() {
        for (uri, path) in [
            ("file:///D/a%20b", "/D/a b"),
            ("file:///D/a b", "/D/a b"),
            ("file:///D/x?y#z", "/D/x"),
            ("file:///D/d/../y", "/D/y"),
            ("file:///D/b\\c", "/D/b/c"),
            ("file:///D/p%2Fq", "/D/p/q"),
            ("file:///D/pct%zz", "/D/pct%zz"),
            ("file:///D/caf%C3%A9", "/D/café"),
            ("file:///D/café", "/D/café"),
            ("file:///D/plus+x", "/D/plus+x"),
            ("file:///D/semi;x=1", "/D/semi;x=1"),
            ("file:/D/x", "/D/x"),
            ("file:D/x", "/D/x"),
            ("file://localhost/D/x", "/D/x"),
            ("file:///../../D/x", "/D/x"),
        ] {
            assert_eq!(parse(uri).unwrap().to_str(), Some(path), "{uri}");
        }
        for (uri, err) in [
            ("file://host/D/x", LocationError::Host),
            ("FILE:///D/x", LocationError::UnknownScheme),
            ("http://x", LocationError::UnknownScheme),
            ("/D/x", LocationError::NoScheme),
            ("", LocationError::NoScheme),
        ] {
            assert_eq!(parse(uri).unwrap_err(), err, "{uri}");
        }
    }
}
