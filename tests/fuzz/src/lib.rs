//! What the fuzz targets have in common: a second reading of JSON, written from RFC 8259's rules over `serde_json`, to hold
//! our own reader against.

use std::fmt;

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object as they stand there, repeated ones included.
pub struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

impl Members {
    /// The object that `text` is.
    #[must_use]
    pub fn of(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// The same for an object whose members are all named. Our reader takes, as those that clients were made with do, an
    /// array of their values too, complete and in order.
    #[must_use]
    pub fn named(text: &[u8], names: &[&str]) -> Option<Self> {
        Self::of(text).or_else(|| {
            let values: Vec<Box<RawValue>> = serde_json::from_slice(text).ok()?;
            let names = names.iter().map(|name| (*name).to_owned());
            (values.len() == names.len()).then(|| Self(names.zip(values).collect()))
        })
    }

    /// A member that may be there once; the outer `None` says that it is there more often.
    #[must_use]
    pub fn once(&self, name: &str) -> Option<Option<&str>> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let first = found.next().map(|(_, value)| value.get());
        found.next().is_none().then_some(first)
    }

    /// The only member.
    #[must_use]
    pub fn only(&self) -> Option<(&str, &str)> {
        match self.0.as_slice() {
            [(name, value)] => Some((name, value.get())),
            _ => None,
        }
    }

    /// A member that must be there once, decoded.
    #[must_use]
    pub fn required<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.once(name)??).ok()
    }

    /// A member that may be there once; `null` is the same as nothing.
    #[must_use]
    pub fn optional<T: DeserializeOwned>(&self, name: &str) -> Option<Option<T>> {
        match self.once(name)? {
            Some(text) => serde_json::from_str(text).ok(),
            None => Some(None),
        }
    }

    /// Bytes that must be there once, in Base64.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        Base64::decode_vec(&self.required::<String>(name)?).ok()
    }
}

/// Whether a text could be nested more deeply than our reader allows, which `serde_json` does not limit in what it skips.
#[must_use]
pub fn may_be_too_deep(text: &[u8]) -> bool {
    text.iter().filter(|byte| b"[{".contains(byte)).count() > 100
}

/// Takes pieces off the front of the fuzzer's input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One byte; zero at the end.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A piece of at most 255 bytes with its length in front, or what is left.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    /// A piece as text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }
}
