//! Where a key is stored.

use core::fmt;

use super::{FileUri, FileUriError, Pkcs11, Pkcs11Error, file_path};
use crate::output::{BufferFull, Output};

/// The value of a `preloaded_keys` entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Location<'a> {
    /// An absolute path in the file system.
    File(&'a [u8]),
    /// An object on a token.
    Pkcs11(Pkcs11<'a>),
}

impl<'o> Location<'o> {
    /// Reads a `file:` or `pkcs11:` URI (schemes in lower case); decoded text is written to `out`, which needs at most one
    /// byte more than `uri` has.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub fn parse<'u>(uri: &'u str, out: &'o mut [u8]) -> Result<Self, LocationError<'u>> {
        match uri.split_once(':') {
            Some(("file", _)) => file_path(uri, out)
                .map(Self::File)
                .map_err(LocationError::File),
            Some(("pkcs11", _)) => Pkcs11::parse(uri, out)
                .map(Self::Pkcs11)
                .map_err(LocationError::Pkcs11),
            Some(_) => Err(LocationError::UnrecognizedScheme),
            None => Err(LocationError::MissingScheme),
        }
    }
}

impl Location<'_> {
    /// Writes the URI in its canonical form. It may hold a PIN.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write<'w>(&self, out: &'w mut [u8]) -> Result<&'w str, BufferFull> {
        let mut out = Output::new(out);
        match self {
            Self::File(path) => write!(out, "{}", FileUri(path)),
            Self::Pkcs11(key) => key.put(&mut out),
        }
        out.finish_str()
    }
}

/// Why a text is not a key location. Never contains a PIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LocationError<'u> {
    /// Not a usable `file:` URI.
    File(FileUriError),
    /// There is no colon.
    MissingScheme,
    /// Not a usable `pkcs11:` URI.
    Pkcs11(Pkcs11Error<'u>),
    /// The scheme is neither `file` nor `pkcs11`.
    UnrecognizedScheme,
}

impl fmt::Display for LocationError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(err) => err.fmt(f),
            Self::MissingScheme => f.write_str("missing scheme"),
            Self::Pkcs11(err) => err.fmt(f),
            Self::UnrecognizedScheme => f.write_str("unrecognized scheme"),
        }
    }
}

impl core::error::Error for LocationError<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kf_03_locations_rewritten() {
        for (uri, expected) in [
            ("file:/a", Ok("file:///a")),
            ("file:a", Ok("file:///a")),
            ("file://localhost/a", Ok("file:///a")),
            ("file:///a?x#y", Ok("file:///a")),
            ("file:///a/../b", Ok("file:///b")),
            ("file:///a%2Fb", Ok("file:///a/b")),
            ("file:///é", Ok("file:///%C3%A9")),
            (
                "pkcs11:token=T;slot-id=3;object=o",
                Ok("pkcs11:slot-id=3;object=o"),
            ),
            (
                "file://host/a",
                Err(LocationError::File(FileUriError::Host)),
            ),
            ("/a", Err(LocationError::MissingScheme)),
            ("", Err(LocationError::MissingScheme)),
            ("PKCS11:slot-id=0", Err(LocationError::UnrecognizedScheme)),
            ("FILE:///a", Err(LocationError::UnrecognizedScheme)),
            ("foo:bar", Err(LocationError::UnrecognizedScheme)),
            (
                "pkcs11:object=x",
                Err(LocationError::Pkcs11(Pkcs11Error::NoSlot)),
            ),
        ] {
            let (mut out, mut written) = ([0; 128], [0; 128]);
            let result = Location::parse(uri, &mut out)
                .map(|location| location.write(&mut written).unwrap());
            assert_eq!(result, expected, "{uri}");
        }
        assert_eq!(LocationError::MissingScheme.to_string(), "missing scheme");
        assert_eq!(
            LocationError::UnrecognizedScheme.to_string(),
            "unrecognized scheme"
        );
        assert!(
            LocationError::File(FileUriError::Host)
                .to_string()
                .starts_with("cannot convert to file path")
        );
    }
}
