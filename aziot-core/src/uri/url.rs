//! `http:` and `https:` URLs, normalised the way a URL parser does (WHATWG URL, special schemes).

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{EncodeSet, resolve_path, split_scheme, trim};
use crate::output::{BufferFull, Output};

/// An absolute `http:` or `https:` URL.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Url<'a> {
    text: &'a str,
    scheme: Scheme,
    user_info: Option<&'a str>,
    authority: Authority<'a>,
    path: &'a str,
    query: Option<&'a str>,
}

/// The scheme of a [`Url`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Scheme {
    /// Plain text; port 80 by default.
    Http,
    /// TLS; port 443 by default.
    Https,
}

impl Scheme {
    /// The scheme in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl<'o> Url<'o> {
    /// Reads `text` and writes its normal form to `out`: scheme and host in lower case, the default port and empty user
    /// information dropped, `/` for an empty path, `.` and `..` resolved, spaces and other characters that may not stand
    /// in a URL percent-encoded. `out` needs at most three times the length of `text` and a few bytes more.
    ///
    /// # Errors
    /// See [`UrlError`]. Host names must be ASCII; write an internationalised name in its `xn--` form.
    pub fn parse(text: &str, out: &'o mut [u8]) -> Result<Self, UrlError> {
        let text = trim(text);
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::RelativeWithoutBase)?;
        let scheme = if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else {
            return Err(UrlError::UnsupportedScheme);
        };
        if text.contains(['\t', '\n', '\r']) {
            return Err(UrlError::InvalidCharacter);
        }
        let rest = rest.trim_start_matches(['/', '\\']);
        let (authority, rest) =
            rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
        let (user_info, authority) = match authority.rsplit_once('@') {
            Some((user_info, authority)) => (user_info, authority),
            None => ("", authority),
        };
        let authority = Authority::parse(authority, scheme.default_port())?;
        let (rest, fragment) = split_optional(rest, '#');
        let (path, query) = split_optional(rest, '?');

        let mut out = Output::new(out);
        out.put_str(scheme.as_str());
        out.put_str("://");
        let user_start = out.len();
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        EncodeSet::USER_INFO.encode(user.as_bytes(), &mut out);
        if !password.is_empty() {
            out.put(b":");
            EncodeSet::USER_INFO.encode(password.as_bytes(), &mut out);
        }
        let user_end = out.len();
        if user_end > user_start {
            out.put(b"@");
        }
        let host_start = out.len();
        authority.put(&mut out);
        let host_end = out.len();
        if authority.port != scheme.default_port() {
            let _ = fmt::Write::write_fmt(&mut out, format_args!(":{}", authority.port));
        }
        let path_start = out.len();
        resolve_path(path, true, Some(EncodeSet::PATH), &mut out)?;
        let path_end = out.len();
        if let Some(query) = query {
            out.put(b"?");
            EncodeSet::QUERY.encode(query.as_bytes(), &mut out);
        }
        let query_end = out.len();
        if let Some(fragment) = fragment {
            out.put(b"#");
            EncodeSet::FRAGMENT.encode(fragment.as_bytes(), &mut out);
        }
        let text = out.finish_str()?;

        let host = text.get(host_start..host_end).unwrap_or_default();
        Ok(Self {
            text,
            scheme,
            user_info: text
                .get(user_start..user_end)
                .filter(|user_info| !user_info.is_empty()),
            authority: Authority {
                host: without_brackets(host),
                ..authority
            },
            path: text.get(path_start..path_end).unwrap_or_default(),
            query: text.get(path_end.saturating_add(1)..query_end),
        })
    }

    /// The whole URL in its normal form, with user information if there is any. Do not log it then.
    pub const fn as_str(&self) -> &'o str {
        self.text
    }

    /// `http` or `https`.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port.
    pub const fn authority(&self) -> Authority<'o> {
        self.authority
    }

    /// User name and password as they stand in the URL, percent-encoded, separated by the first `:`.
    pub const fn user_info(&self) -> Option<&'o str> {
        self.user_info
    }

    /// The path, beginning with `/`, percent-encoded.
    pub const fn path(&self) -> &'o str {
        self.path
    }

    /// The query without its `?`, percent-encoded.
    pub const fn query(&self) -> Option<&'o str> {
        self.query
    }
}

impl fmt::Debug for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url")
            .field("scheme", &self.scheme)
            .field("authority", &self.authority)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// A host and a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Authority<'a> {
    host: &'a str,
    port: u16,
}

impl<'a> Authority<'a> {
    /// Reads `host` or `host:port`. The host is a name of ASCII letters, digits, `-`, `.` and `_`, an IPv4 address in four
    /// decimal parts, or an IPv6 address in brackets. Nothing is normalised.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &'a str, default_port: u16) -> Result<Self, UrlError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(UrlError::InvalidIpv6)?;
                address
                    .parse::<Ipv6Addr>()
                    .map_err(|_| UrlError::InvalidIpv6)?;
                match port.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if port.is_empty() => (address, port),
                    None => return Err(UrlError::InvalidPort),
                }
            }
            None => {
                let (host, port) = text.split_once(':').unwrap_or((text, ""));
                check_name(host)?;
                (host, port)
            }
        };
        let port = if port.is_empty() {
            default_port
        } else if port.bytes().all(|byte| byte.is_ascii_digit()) {
            port.parse().map_err(|_| UrlError::InvalidPort)?
        } else {
            return Err(UrlError::InvalidPort);
        };
        Ok(Self { host, port })
    }

    /// The host name or address; an IPv6 address without its brackets, ready for a resolver.
    pub const fn host(&self) -> &'a str {
        self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Appends the host as it stands in a URL: in lower case, an IPv6 address in brackets and in its shortest form.
    fn put(&self, out: &mut Output<'_>) {
        if let Ok(address) = self.host.parse::<Ipv6Addr>() {
            let _ = fmt::Write::write_fmt(out, format_args!("[{address}]"));
        } else {
            for byte in self.host.bytes() {
                out.put(&[byte.to_ascii_lowercase()]);
            }
        }
    }
}

/// Writes `host:port`, with brackets around an IPv6 address, as in a `CONNECT` request.
impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn check_name(host: &str) -> Result<(), UrlError> {
    if host.is_empty() {
        return Err(UrlError::EmptyHost);
    }
    if !host.is_ascii() {
        return Err(UrlError::NonAsciiHost);
    }
    if !host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        return Err(UrlError::InvalidCharacter);
    }
    // A name whose last label is a number can only be an address.
    let last = host
        .strip_suffix('.')
        .unwrap_or(host)
        .rsplit('.')
        .next()
        .unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        host.parse::<Ipv4Addr>()
            .map_err(|_| UrlError::InvalidIpv4)?;
    }
    Ok(())
}

/// Why a text is not a usable URL or `host:port`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum UrlError {
    /// The buffer is too small for the normal form.
    BufferFull(BufferFull),
    /// There is no host.
    EmptyHost,
    /// A character that may not be in a host, or a tab or line break anywhere.
    InvalidCharacter,
    /// The last part of the host is a number, but the whole is no IPv4 address.
    InvalidIpv4,
    /// What stands in brackets is no IPv6 address.
    InvalidIpv6,
    /// The port is not a number up to 65535.
    InvalidPort,
    /// The host name is not ASCII.
    NonAsciiHost,
    /// There is no scheme.
    RelativeWithoutBase,
    /// The scheme is neither `http` nor `https`.
    UnsupportedScheme,
}

impl From<BufferFull> for UrlError {
    fn from(full: BufferFull) -> Self {
        Self::BufferFull(full)
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BufferFull(full) => return full.fmt(f),
            Self::EmptyHost => "empty host",
            Self::InvalidCharacter => "invalid domain character",
            Self::InvalidIpv4 => "invalid IPv4 address",
            Self::InvalidIpv6 => "invalid IPv6 address",
            Self::InvalidPort => "invalid port number",
            Self::NonAsciiHost => {
                "invalid international domain name: write it in its ASCII form, beginning with xn--"
            }
            Self::RelativeWithoutBase => "relative URL without a base",
            Self::UnsupportedScheme => "unrecognized scheme: only http and https are supported",
        })
    }
}

impl core::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> Result<String, UrlError> {
        let mut out = vec![0; text.len() * 3 + 16];
        Url::parse(text, &mut out).map(|url| url.as_str().to_owned())
    }

    #[test]
    fn is_24_endpoints_are_normalised() {
        for (text, expected) in [
            (
                "https://global.azure-devices-provisioning.net",
                "https://global.azure-devices-provisioning.net/",
            ),
            ("https://localhost:8443/", "https://localhost:8443/"),
            ("HTTPS://LocalHost:8443", "https://localhost:8443/"),
            ("https://localhost:443/", "https://localhost/"),
            ("http://localhost:80", "http://localhost/"),
            ("http://localhost:443", "http://localhost:443/"),
            ("https://h:/", "https://h/"),
            ("https://h:0080/", "https://h:80/"),
            ("https:h", "https://h/"),
            ("https:\\\\h\\a\\b", "https://h/a/b"),
            ("https://h/a/./b/../c", "https://h/a/c"),
            ("https://h/..", "https://h/"),
            ("https://h/a/..", "https://h/"),
            ("https://h/a/%2e%2E/b", "https://h/b"),
            ("https://h/a b\"é%zz%41", "https://h/a%20b%22%C3%A9%zz%41"),
            ("https://h?q=a b'#f g", "https://h/?q=a%20b%27#f%20g"),
            ("https://h/p?", "https://h/p?"),
            ("  https://h/  ", "https://h/"),
            ("https://u:p%40w@h", "https://u:p%40w@h/"),
            ("https://@h", "https://h/"),
            ("https://a@b@h", "https://a%40b@h/"),
            ("https://127.0.0.1:1", "https://127.0.0.1:1/"),
            ("https://[::1]:8888", "https://[::1]:8888/"),
            ("https://[0:0::0:1]", "https://[::1]/"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn urls_refused() {
        for (text, error) in [
            ("", UrlError::RelativeWithoutBase),
            ("foo", UrlError::RelativeWithoutBase),
            ("//h/", UrlError::RelativeWithoutBase),
            ("127.0.0.1:3128", UrlError::RelativeWithoutBase),
            ("ftp://h", UrlError::UnsupportedScheme),
            ("https://", UrlError::EmptyHost),
            ("https://:1", UrlError::EmptyHost),
            ("https://é/", UrlError::NonAsciiHost),
            ("https://a b/", UrlError::InvalidCharacter),
            ("https://h/\n", UrlError::InvalidCharacter),
            ("https://1.2.3/", UrlError::InvalidIpv4),
            ("https://1.2.3.256/", UrlError::InvalidIpv4),
            ("https://[::1/", UrlError::InvalidIpv6),
            ("https://[x]/", UrlError::InvalidIpv6),
            ("https://[::1]x/", UrlError::InvalidPort),
            ("https://h:65536/", UrlError::InvalidPort),
            ("https://h:+1/", UrlError::InvalidPort),
        ] {
            // Trailing white space is dropped before anything else.
            let expected = if text.ends_with('\n') {
                normal("https://h/").map_err(|_| error)
            } else {
                Err(error)
            };
            assert_eq!(normal(text), expected, "{text}");
        }
        assert_eq!(normal("https://h/a\nb"), Err(UrlError::InvalidCharacter));
        assert!(matches!(
            Url::parse("https://host", &mut [0; 4]),
            Err(UrlError::BufferFull(_))
        ));
    }

    #[test]
    fn parts() {
        let mut out = [0; 128];
        let url = Url::parse("http://us%2fer:p%40w@PROXY:3128/x?y#z", &mut out).unwrap();
        assert_eq!(url.scheme(), Scheme::Http);
        assert_eq!(url.user_info(), Some("us%2fer:p%40w"));
        assert_eq!(
            (url.authority().host(), url.authority().port()),
            ("proxy", 3128)
        );
        assert_eq!((url.path(), url.query()), ("/x", Some("y")));
        assert!(!format!("{url:?}").contains("p%40w"));
        let mut out = [0; 128];
        let url = Url::parse("https://[::1]", &mut out).unwrap();
        assert_eq!(url.authority().host(), "::1");
        assert_eq!(url.authority().to_string(), "[::1]:443");
        assert_eq!((url.user_info(), url.query()), (None, None));
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(text in "https?:[/\\\\]{0,3}[a-z0-9.@:\\[\\]-]{0,12}[/a-z.%2eE é?#\\\\]{0,16}") {
            if let Ok(once) = normal(&text) {
                prop_assert!(once.is_ascii());
                prop_assert_eq!(normal(&once), Ok(once));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = normal(&format!("https://h/{text}")).map(|url| assert!(url.starts_with("https://h/")));
            let _ = normal(&format!("https://{text}"));
            let _ = normal(&text);
        }
    }
}
