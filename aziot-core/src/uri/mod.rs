//! URIs: key locations (`file:`, `pkcs11:`), endpoints (`unix:`, `http:`, `fd:`), cloud URLs, percent-encoding.
//!
//! Parsers write decoded or normalised text into the caller's buffer and return views of it.

mod connector;
mod file;
mod location;
mod pkcs11;
mod url;

pub use connector::{Connector, ConnectorError, ConnectorReason, descriptor_by_name};
pub use file::{FileUriError, file_path, write_file_uri};
pub use location::{Location, LocationError};
pub use pkcs11::{Pkcs11, Pkcs11Error, Slot};
pub use url::{Authority, Scheme, Url, UrlError};

use crate::output::Output;

/// A set of bytes that must be percent-encoded. Bytes above 0x7F always are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EncodeSet(u128);

impl EncodeSet {
    const CONTROLS: Self = Self(((1 << 0x20) - 1) | (1 << 0x7f));

    /// A path in a URL: controls, space, `` " # < > ? ` { } ``.
    pub const PATH: Self = Self::CONTROLS.and(b" \"#<>?`{}");

    /// An id as one segment of a path on a sibling service: [`Self::PATH`] and `%` and `/`, which the services decode.
    pub const PATH_PARAMETER: Self = Self::PATH.and(b"%/");

    /// An absolute path within a `file:` URI: [`Self::PATH`] and `%` and `\`.
    pub const FILE_PATH: Self = Self::PATH.and(b"%\\");

    /// The audience of a SAS token: controls, `` space " < > ` # ? { } = ``, and also `%`, `&` and `+`, which would change
    /// meaning if they were left (identity-service 7, DB-24).
    pub const AUDIENCE: Self = Self::PATH.and(b"=%&+");

    /// An id as one segment of a path at IoT Hub or the provisioning service: everything but letters, digits and
    /// `- . _ ~ ! $ ' ( ) * , : @ + ;` (identity-service DB-35).
    pub const HUB_SEGMENT: Self = Self::ALL.except_alphanumeric().except(b"-._~!$'()*,:@+;");

    /// A value in an `application/x-www-form-urlencoded` text (the space, which such a text writes as `+`, never occurs).
    pub const FORM: Self = Self::ALL.except_alphanumeric().except(b"*-._");

    /// A value in a `pkcs11:` URI: everything but letters and digits.
    pub const PKCS11: Self = Self::ALL.except_alphanumeric();

    /// A user name or password in a URL.
    pub const USER_INFO: Self = Self::PATH.and(b"/:;=@[\\]^|");

    /// The query of an `http:` or `https:` URL.
    pub const QUERY: Self = Self::CONTROLS.and(b" \"#<>'");

    /// The fragment of a URL.
    pub const FRAGMENT: Self = Self::CONTROLS.and(b" \"<>`");

    const ALL: Self = Self(u128::MAX);

    const fn and(self, more: &[u8]) -> Self {
        self.change(more, true)
    }

    const fn except(self, fewer: &[u8]) -> Self {
        self.change(fewer, false)
    }

    const fn except_alphanumeric(self) -> Self {
        self.except(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    }

    const fn change(self, bytes: &[u8], set: bool) -> Self {
        let Some((first, rest)) = bytes.split_first() else {
            return self;
        };
        let bit = 1 << (*first & 0x7f);
        Self(if set { self.0 | bit } else { self.0 & !bit }).change(rest, set)
    }

    /// Whether `byte` must be encoded.
    pub const fn contains(self, byte: u8) -> bool {
        byte > 0x7f || (self.0 >> byte) & 1 == 1
    }

    /// Appends `bytes`, those in the set as `%` and two upper-case hex digits.
    pub fn encode(self, bytes: &[u8], out: &mut Output<'_>) {
        for byte in bytes {
            if self.contains(*byte) {
                out.put(b"%");
                out.put_hex(*byte, b'A');
            } else {
                out.put(&[*byte]);
            }
        }
    }
}

/// The bytes of `text` with every well-formed `%XX` replaced by the byte it stands for.
pub(crate) fn percent_decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let (byte, length) = percent_decode_first(rest)?;
        rest = rest.get(length..).unwrap_or_default();
        Some(byte)
    })
}

/// The first decoded byte of `text`, and how many bytes it takes up there: 3 for an escape, else 1.
fn percent_decode_first(text: &[u8]) -> Option<(u8, usize)> {
    if let [b'%', high, low, ..] = text
        && let (Some(high), Some(low)) = (
            char::from(*high).to_digit(16),
            char::from(*low).to_digit(16),
        )
        && let Ok(byte) = u8::try_from((high << 4) | low)
    {
        return Some((byte, 3));
    }
    text.first().map(|byte| (*byte, 1))
}

/// The scheme of `uri`, as written, and what follows the colon.
fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let fine = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    fine.then_some((scheme, rest))
}

/// Appends the absolute path in `path` with its `.` and `..` segments resolved, as a URL parser does (WHATWG URL, path
/// state). `path` ends before any query. A missing leading slash is added; with `backslash`, `\` separates as `/` does.
/// `encode` is what to percent-encode; existing escapes stay.
///
/// # Errors
/// `out` is full.
fn resolve_path(
    path: &str,
    backslash: bool,
    encode: Option<EncodeSet>,
    out: &mut Output<'_>,
) -> Result<(), crate::output::BufferFull> {
    let separates = |c: char| c == '/' || (backslash && c == '\\');
    let start = out.len();
    let mut segments = path
        .strip_prefix(separates)
        .unwrap_or(path)
        .split(separates)
        .peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match dots(segment) {
            0 => {
                out.put(b"/");
                match encode {
                    Some(set) => set.encode(segment.as_bytes(), out),
                    None => out.put_str(segment),
                }
                if out.written().len() < out.len() {
                    return Err(crate::output::BufferFull { needed: out.len() });
                }
            }
            dots => {
                if dots == 2 {
                    let written = out.written().get(start..).unwrap_or_default();
                    let parent = written.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    out.truncate(start.saturating_add(parent));
                }
                if last {
                    out.put(b"/");
                }
            }
        }
    }
    Ok(())
}

/// 1 for a segment that names its directory, 2 for one that names the parent, in any encoding; 0 for all others.
fn dots(segment: &str) -> usize {
    let bytes = segment.as_bytes();
    if bytes.len() > 6 {
        return 0;
    }
    let mut decoded = percent_decode(bytes);
    match (decoded.next(), decoded.next(), decoded.next()) {
        (Some(b'.'), None, _) => 1,
        (Some(b'.'), Some(b'.'), None) => 2,
        _ => 0,
    }
}

/// `text` without what a URL parser drops: surrounding controls and spaces.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(set: EncodeSet, text: &str) -> String {
        let mut buffer = vec![0; text.len() * 3];
        let mut out = Output::new(&mut buffer);
        set.encode(text.as_bytes(), &mut out);
        out.finish_str().unwrap().to_owned()
    }

    #[test]
    fn sets() {
        let printable: String = (0x20..0x7f).map(char::from).collect();
        let kept = |set: EncodeSet| {
            printable
                .chars()
                .filter(|c| !set.contains(*c as u8))
                .collect::<String>()
        };
        let dropped = |set: EncodeSet| {
            printable
                .chars()
                .filter(|c| set.contains(*c as u8))
                .collect::<String>()
        };
        assert_eq!(dropped(EncodeSet::PATH), " \"#<>?`{}");
        assert_eq!(dropped(EncodeSet::PATH_PARAMETER), " \"#%/<>?`{}");
        assert_eq!(dropped(EncodeSet::AUDIENCE), " \"#%&+<=>?`{}");
        let alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        assert_eq!(kept(EncodeSet::PKCS11), alphanumeric);
        let without_letters = |set| kept(set).replace(char::is_alphanumeric, "");
        assert_eq!(without_letters(EncodeSet::HUB_SEGMENT), "!$'()*+,-.:;@_~");
        assert_eq!(without_letters(EncodeSet::FORM), "*-._");
        for set in [
            EncodeSet::PATH,
            EncodeSet::AUDIENCE,
            EncodeSet::HUB_SEGMENT,
            EncodeSet::QUERY,
        ] {
            assert!((0..0x20).chain(0x7f..=0xff).all(|byte| set.contains(byte)));
        }
    }

    #[test]
    fn is_53_hub_segments() {
        for (id, wire) in [
            ("$edgeAgent", "$edgeAgent"),
            ("Dev=1", "Dev%3D1"),
            ("mod %/é=2", "mod%20%25%2F%C3%A9%3D2"),
            ("a\\b", "a%5Cb"),
            ("a%b", "a%25b"),
            ("a?b#c", "a%3Fb%23c"),
            ("a/../b", "a%2F..%2Fb"),
            ("my-dev_1.x:y", "my-dev_1.x:y"),
        ] {
            assert_eq!(encoded(EncodeSet::HUB_SEGMENT, id), wire);
        }
    }

    #[test]
    fn escapes_that_are_none_stay() {
        let decode =
            |text: &str| String::from_utf8(percent_decode(text.as_bytes()).collect()).unwrap();
        assert_eq!(decode("%41%zz%4"), "A%zz%4");
        assert_eq!(decode("%%41"), "%A");
        assert_eq!(decode("%+1%"), "%+1%");
    }

    proptest! {
        #[test]
        fn encoding_round_trips_where_percent_is_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for set in [EncodeSet::PATH_PARAMETER, EncodeSet::FILE_PATH, EncodeSet::AUDIENCE,
                        EncodeSet::HUB_SEGMENT, EncodeSet::PKCS11, EncodeSet::FORM] {
                let mut buffer = vec![0; bytes.len() * 3];
                let mut out = Output::new(&mut buffer);
                set.encode(&bytes, &mut out);
                let text = out.finish().unwrap();
                prop_assert!(text.is_ascii());
                prop_assert_eq!(percent_decode(text).collect::<Vec<_>>(), bytes.clone());
            }
        }
    }
}
