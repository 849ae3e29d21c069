//! URIs: key locations (`file:`, `pkcs11:`), endpoints (`unix:`, `http:`, `fd:`), URLs of cloud services and files.
//!
//! Parsers write decoded or normalised text into the caller's buffer and return views of it.

mod connector;
mod file;
mod location;
mod no_proxy;
mod pkcs11;
mod url;

pub use connector::{Connector, ConnectorError, ConnectorReason, descriptor_by_name};
pub use file::{FileUri, FileUriError, file_path};
pub use location::{Location, LocationError};
pub use no_proxy::NoProxy;
pub use pkcs11::{Demands, Pkcs11, Pkcs11Error, Slot};
pub use url::{Authority, Url, UrlError};

use crate::output::{BufferFull, Output};
use crate::percent::{self, Plus, Set};

/// The scheme of `uri`, as written, and what follows the colon.
fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    is_scheme(scheme).then_some((scheme, rest))
}

/// Whether `text` has the form of a scheme (RFC 3986 section 3.1).
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
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
    encode: Option<Set>,
    out: &mut Output<'_>,
) -> Result<(), BufferFull> {
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
                    Some(set) => write!(out, "{}", set.encode(segment)),
                    None => out.put_str(segment),
                }
                if out.since(start).is_none() {
                    return Err(BufferFull);
                }
            }
            dots => {
                if dots == 2 {
                    let written = out.since(start).unwrap_or_default();
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
    let mut decoded = percent::decode(segment, Plus::Plus);
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
