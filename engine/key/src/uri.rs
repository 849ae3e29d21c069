//! URIs of key pairs.
//!
//! `aziot-keys:handle=HANDLE` is the key pair with a handle that somebody else has got from the Keys Service;
//! `aziot-keys:id=ID` the one with an id, which takes the right to load it, and keeps handles out of command lines and
//! configuration files. Both are percent-encoded. `;type=public` stands for the public half only, `;type=private` for the
//! whole pair, which is also what an application gets that does not say what it wants.

use std::fmt;

use aziot_core::percent::{self, Plus};
use zeroize::Zeroizing;

/// The scheme, with the colon.
pub const SCHEME: &str = "aziot-keys:";

/// A key pair, or a half of it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUri {
    /// Which key pair.
    pub name: KeyName,
    /// Whether only the public half is meant, or also the private one. `None` if it does not say.
    pub half: Option<Half>,
}

/// How a key pair is named.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyName {
    /// By a handle, which is a secret.
    Handle(Zeroizing<String>),
    /// By its id.
    Id(String),
}

/// A part of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The public half.
    Public,
    /// The private half; the public one is known with it.
    Private,
}

/// Why a URI does not name a key pair. The text never repeats it, as it may contain a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// It has another scheme.
    Scheme,
    /// There is neither a handle nor an id, or more than one.
    Name,
    /// The handle or the id is empty.
    Empty,
    /// There is something else in it.
    Attribute,
    /// `type` is neither `public` nor `private`, or is there twice.
    Type,
    /// What the escapes stand for is not UTF-8, or a NUL.
    Text,
}

impl KeyUri {
    /// Reads a URI. Schemes are compared without regard to case (RFC 3986, section 3.1).
    ///
    /// # Errors
    ///
    /// Any [`UriError`].
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        let (scheme, rest) = uri.split_at_checked(SCHEME.len()).ok_or(UriError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(UriError::Scheme);
        }
        let (mut name, mut half) = (None, None);
        for attribute in rest.split(';') {
            let (key, value) = attribute.split_once('=').ok_or(UriError::Attribute)?;
            match key {
                "handle" | "id" => {
                    let value = decoded(value)?;
                    let found = if key == "handle" {
                        KeyName::Handle(value)
                    } else {
                        KeyName::Id((*value).clone())
                    };
                    if name.replace(found).is_some() {
                        return Err(UriError::Name);
                    }
                }
                "type" => {
                    let found = match value {
                        "public" => Half::Public,
                        "private" => Half::Private,
                        _ => return Err(UriError::Type),
                    };
                    if half.replace(found).is_some() {
                        return Err(UriError::Type);
                    }
                }
                _ => return Err(UriError::Attribute),
            }
        }
        let name = name.ok_or(UriError::Name)?;
        Ok(Self { name, half })
    }
}

/// The URI of the key pair with a handle. Wiped when dropped.
#[must_use]
pub fn of_handle(handle: &str) -> Zeroizing<String> {
    const UNRESERVED: percent::Set = percent::Set::PUNCTUATION.without(b"-._~");
    // Every byte may become three, so that nothing is moved while it grows.
    let room = SCHEME.len() + "handle=".len() + handle.len().saturating_mul(3);
    let mut uri = Zeroizing::new(String::with_capacity(room));
    uri.push_str(SCHEME);
    uri.push_str("handle=");
    for part in handle.chars() {
        let mut bytes = [0; 4];
        let part = part.encode_utf8(&mut bytes);
        uri.push_str(&UNRESERVED.encode(part).to_string());
    }
    uri
}

fn decoded(text: &str) -> Result<Zeroizing<String>, UriError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent::decode(text, Plus::Plus));
    let text = std::str::from_utf8(&bytes).map_err(|_| UriError::Text)?;
    if text.is_empty() {
        return Err(UriError::Empty);
    }
    if text.contains('\0') {
        return Err(UriError::Text);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the URI does not begin with `aziot-keys:`",
            Self::Name => "the URI has to have one `id=…` or one `handle=…` behind `aziot-keys:`",
            Self::Empty => "the id or handle in the URI is empty",
            Self::Attribute => {
                "the URI has a part that is not understood: there may be `id=…` or `handle=…`, and `type=…`, with `;` \
                 between them; write other characters as `%` and two hexadecimal digits"
            }
            Self::Type => "`type` in the URI is neither `public` nor `private`, or given twice",
            Self::Text => "the escapes in the URI do not stand for text",
        })
    }
}

impl std::error::Error for UriError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<(String, Option<Half>), UriError> {
        KeyUri::parse(uri).map(|uri| {
            let name = match uri.name {
                KeyName::Handle(handle) => format!("handle {}", *handle),
                KeyName::Id(id) => format!("id {id}"),
            };
            (name, uri.half)
        })
    }

    #[test]
    fn key_pairs() {
        for (uri, name, half) in [
            ("aziot-keys:id=device-id", "id device-id", None),
            ("AZIOT-Keys:id=a%3Bb%25c", "id a;b%c", None),
            (
                "aziot-keys:id=a=b;type=public",
                "id a=b",
                Some(Half::Public),
            ),
            (
                "aziot-keys:type=private;id=%C3%A4",
                "id ä",
                Some(Half::Private),
            ),
            (
                "aziot-keys:handle=sr%3DQQ%3D%3D%26sig%3DQ%2BQ%3D",
                "handle sr=QQ==&sig=Q+Q=",
                None,
            ),
            // Nothing in a handle needs to be encoded.
            (
                "aziot-keys:handle=sr=QQ==&sig=Q+Q/",
                "handle sr=QQ==&sig=Q+Q/",
                None,
            ),
        ] {
            assert_eq!(parse(uri), Ok((name.to_owned(), half)), "{uri}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (uri, error) in [
            ("", UriError::Scheme),
            ("file:x", UriError::Scheme),
            ("aziot-key", UriError::Scheme),
            ("ä€ü€ä€", UriError::Scheme),
            ("aziot-keys:", UriError::Attribute),
            ("aziot-keys:device-id", UriError::Attribute),
            ("aziot-keys:object=x", UriError::Attribute),
            ("aziot-keys:id=x;", UriError::Attribute),
            ("aziot-keys:type=public", UriError::Name),
            ("aziot-keys:id=x;handle=y", UriError::Name),
            ("aziot-keys:id=x;id=x", UriError::Name),
            ("aziot-keys:id=", UriError::Empty),
            ("aziot-keys:id=x;type=secret", UriError::Type),
            ("aziot-keys:id=x;type=public;type=public", UriError::Type),
            ("aziot-keys:id=%FF", UriError::Text),
            ("aziot-keys:id=x%00", UriError::Text),
        ] {
            assert_eq!(parse(uri), Err(error), "{uri}");
        }
    }

    #[test]
    fn handles_come_back() {
        for handle in ["sr=QQ==&sig=Q+Q/", "%41;ä", "x"] {
            let uri = of_handle(handle);
            assert!(!uri["aziot-keys:handle=".len()..].contains([';', '&', '=', '+', '/']));
            assert_eq!(parse(&uri).unwrap().0, format!("handle {handle}"));
        }
    }
}
