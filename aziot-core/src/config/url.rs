//! URLs in settings.
//!
//! Settings are compared and written back as normalised text, so `https://Dps.Example` and `https://dps.example/`
//! are the same endpoint.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::uri;
pub use crate::uri::UrlError;

/// An absolute URL that owns its normalised text, which it displays as. See [`uri::Url`].
#[derive(Clone, Eq, PartialEq)]
pub struct Url(String);

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // Tabs and line ends do not count, wherever they are.
        let text: String = text
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .collect();
        // Three characters for every byte, and some for what is added in front of the path.
        let mut normal = vec![0; text.len().saturating_mul(3).saturating_add(16)];
        uri::Url::parse(&text, &mut normal).map(|url| Self(url.as_str().into()))
    }
}

impl Url {
    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        self.parts().scheme()
    }

    /// Host and port as they stand in the URL; see [`uri::Url::host_and_port`].
    pub fn host_and_port(&self) -> &str {
        self.parts().host_and_port()
    }

    /// The text without user name and password, for messages.
    pub fn without_user_info(&self) -> String {
        match self.parts().user_info() {
            // The first `@` of a URL with user information is the one behind it.
            Some(user_info) => self.0.replacen(&format!("{user_info}@"), "", 1),
            None => self.0.clone(),
        }
    }

    /// The path that a `file:` URL names; none for other URLs, and if a host is given. See [`uri::file_path`].
    pub fn file_path(&self) -> Option<Vec<u8>> {
        let mut path = vec![0; self.0.len().saturating_add(1)];
        let length = uri::file_path(&self.0, &mut path).ok()?.len();
        path.truncate(length);
        Some(path)
    }

    fn parts(&self) -> uri::Url<'_> {
        uri::Url::from_normal_form(&self.0)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Leaves out user information and query, which may be secret.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(f)
    }
}
