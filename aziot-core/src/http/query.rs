//! Query strings in the form encoding (WHATWG URL, `application/x-www-form-urlencoded`).

use crate::percent::{self, Plus};
use crate::search;

/// The pairs of a query string, in order, still encoded.
///
/// Pairs end at `&`, names at the first `=`; a name without `=` has an empty value. Empty pairs
/// are left out.
pub fn pairs(query: &str) -> impl Iterator<Item = Pair<'_>> {
    let mut rest = Some(query);
    let parts = core::iter::from_fn(move || {
        let (part, others) = match search::split_once(rest?, b'&') {
            Some((part, others)) => (part, Some(others)),
            None => (rest?, None),
        };
        rest = others;
        Some(part)
    });
    parts.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = search::split_once(pair, b'=').unwrap_or((pair, ""));
        Pair { name, value }
    })
}

/// One pair of a query string, still encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pair<'q> {
    /// The name.
    pub name: &'q str,
    /// The value.
    pub value: &'q str,
}

impl<'q> Pair<'q> {
    /// Whether the decoded name is `name`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name
            || (percent::is_encoded(self.name, Plus::Space)
                && percent::decode(self.name, Plus::Space).eq(name.bytes()))
    }

    /// The decoded value, in `scratch` where it differs; what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// [`percent::DecodeError::BufferFull`] if `scratch` is too small.
    pub fn decoded<'t>(
        &self,
        scratch: &'t mut [u8],
    ) -> Result<(&'t str, &'t mut [u8]), percent::DecodeError>
    where
        'q: 't,
    {
        percent::decode_str_lossy(self.value, Plus::Space, scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ht_10_vector_10_pairs() {
        let query = "type=a+b%20c&type=2&api-version=2020-09-01&flag&=v&&api%2Dversion=x";
        let mut scratch = [0; 16];
        let decoded: Vec<(bool, String)> = pairs(query)
            .map(|pair| {
                let value = pair.decoded(&mut scratch).unwrap().0.to_owned();
                (pair.is("api-version"), value)
            })
            .collect();
        assert_eq!(
            decoded,
            [
                (false, "a b c"),
                (false, "2"),
                (true, "2020-09-01"),
                (false, ""),
                (false, "v"),
                (true, "x"),
            ]
            .map(|(is, value)| (is, value.to_owned()))
        );
        assert_eq!(pairs("").count(), 0);
        assert!(!pairs("Api-Version=1").any(|pair| pair.is("api-version")));
    }
}
