//! `file:` URIs.

use core::fmt;

use super::{resolve_path, trim};
use crate::output::{BufferFull, Output};
use crate::percent::{self, Plus, Set};

/// The absolute path that a `file:` URI names, written to `out`, which needs at most one byte more than `uri` has.
///
/// The URI is read as a URL: the host must be empty or `localhost`, percent-escapes are decoded, `\` counts as `/`, `.` and
/// `..` are resolved textually, query and fragment are dropped. The scheme must be in lower case.
///
/// # Errors
/// See [`FileUriError`].
pub fn file_path<'o>(uri: &str, out: &'o mut [u8]) -> Result<&'o [u8], FileUriError> {
    let rest = trim(uri)
        .strip_prefix("file:")
        .ok_or(FileUriError::NotFile)?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    local_path(rest, true, out)
}

/// The path in what follows the scheme of a URL that names something on this machine, decoded.
pub(super) fn local_path<'o>(
    rest: &str,
    backslash: bool,
    out: &'o mut [u8],
) -> Result<&'o [u8], FileUriError> {
    let separates = |c: char| c == '/' || (backslash && c == '\\');
    let path = match rest
        .strip_prefix(separates)
        .and_then(|rest| rest.strip_prefix(separates))
    {
        Some(authority) => {
            let (host, path) =
                authority.split_at(authority.find(separates).unwrap_or(authority.len()));
            if !host.is_empty()
                && !percent::decode(host, Plus::Plus)
                    .map(|byte| byte.to_ascii_lowercase())
                    .eq(*b"localhost")
            {
                return Err(FileUriError::Host);
            }
            path
        }
        None => rest,
    };
    if path.contains(['\t', '\n', '\r']) {
        // A URL parser would drop them silently, which in a path is never what was meant.
        return Err(FileUriError::ControlCharacter);
    }
    let mut resolved = Output::new(out);
    resolve_path(path, backslash, None, &mut resolved)?;
    let (path, _) = resolved.split()?;
    // Only now that the separators are settled.
    let path = percent::decode_in_place(path);
    if path.contains(&0) {
        return Err(FileUriError::ControlCharacter);
    }
    Ok(path)
}

/// Displays as the `file:` URI of an absolute path: `file://` and the path, percent-encoded.
#[derive(Clone, Copy, Debug)]
pub struct FileUri<'a>(pub &'a [u8]);

impl fmt::Display for FileUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", Set::FILE_PATH.encode(self.0))
    }
}

/// Why a `file:` URI names no path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FileUriError {
    /// The buffer is too small for the path.
    BufferFull(BufferFull),
    /// A tab, a line break or a NUL byte is in the path.
    ControlCharacter,
    /// The host is neither empty nor `localhost`.
    Host,
    /// The scheme is not `file`, in lower case.
    NotFile,
}

impl From<BufferFull> for FileUriError {
    fn from(full: BufferFull) -> Self {
        Self::BufferFull(full)
    }
}

impl fmt::Display for FileUriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull(full) => full.fmt(f),
            Self::ControlCharacter => {
                f.write_str("cannot convert to file path: it contains a tab, a line break or a nul byte")
            }
            Self::Host => {
                f.write_str("cannot convert to file path: a host is named; write file:///path with three slashes")
            }
            Self::NotFile => f.write_str("unrecognized scheme"),
        }
    }
}

impl core::error::Error for FileUriError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(uri: &str) -> Result<String, FileUriError> {
        let mut buffer = vec![0; uri.len() + 1];
        file_path(uri, &mut buffer).map(|path| String::from_utf8(path.to_vec()).unwrap())
    }

    #[test]
    fn kf_03_file_uris() {
        for (uri, expected) in [
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
            ("file://LOCALHOST/D/x", "/D/x"),
            ("file:\\\\localhost\\D\\x", "/D/x"),
            ("file:///a/./b/%2e%2E/c/.", "/a/c/"),
            ("file:///../../a", "/a"),
            ("file:///a%2F../b", "/a/../b"),
            ("file:///a/b%2Fc/../d", "/a/d"),
            ("file:", "/"),
        ] {
            assert_eq!(path(uri).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn kf_03_file_uris_refused() {
        for (uri, error) in [
            ("file://host/D/x", FileUriError::Host),
            ("FILE:///D/x", FileUriError::NotFile),
            ("http://x", FileUriError::NotFile),
            ("/D/x", FileUriError::NotFile),
            ("", FileUriError::NotFile),
            ("file:///a%00b", FileUriError::ControlCharacter),
            ("file:///a\nb", FileUriError::ControlCharacter),
        ] {
            assert_eq!(path(uri), Err(error), "{uri}");
        }
        assert!(matches!(
            file_path("file:///abcdef", &mut [0; 4]),
            Err(FileUriError::BufferFull(_))
        ));
    }

    #[test]
    fn kf_05_file_uri_written() {
        assert_eq!(
            FileUri(b"/a b/50%\\x").to_string(),
            "file:///a%20b/50%25%5Cx"
        );
        assert_eq!(FileUri("/é".as_bytes()).to_string(), "file:///%C3%A9");
    }

    proptest! {
        #[test]
        fn paths_round_trip(path in proptest::collection::vec("[^/\0\t\n\r]{1,12}", 1..6)) {
            prop_assume!(path.iter().all(|segment| segment != "." && segment != ".."));
            let path = format!("/{}", path.join("/"));
            let uri = FileUri(path.as_bytes()).to_string();
            let mut buffer = vec![0; uri.len() + 1];
            prop_assert_eq!(file_path(&uri, &mut buffer).unwrap(), path.as_bytes());
        }

        #[test]
        fn any_text_is_read_or_refused(rest in any::<String>()) {
            let uri = format!("file:{rest}");
            let mut buffer = vec![0; uri.len() + 1];
            if let Ok(path) = file_path(&uri, &mut buffer) {
                prop_assert!(path.starts_with(b"/") && !path.contains(&0));
            }
        }
    }
}
