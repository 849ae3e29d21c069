//! Absolute URLs, normalised the way a URL parser does (WHATWG URL).

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{resolve_path, split_scheme, trim};
use crate::output::{BufferFull, Output};
use crate::percent::Set;

/// An absolute URL in its normal form.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Url<'a>(&'a str);

impl<'o> Url<'o> {
    /// Reads `text` and writes its normal form to `out`: scheme and host in lower case, the default port and empty user
    /// information dropped, `/` for an empty path, `.` and `..` resolved, spaces and other characters that may not stand
    /// in a URL percent-encoded. `out` needs at most three times the length of `text` and a few bytes more.
    ///
    /// `http`, `https`, `ws`, `wss` and `ftp` URLs have a host; `file` URLs may have one. All other schemes are taken
    /// as they come.
    ///
    /// # Errors
    /// See [`UrlError`]. Host names must be ASCII; write an internationalised name in its `xn--` form.
    pub fn parse(text: &str, out: &'o mut [u8]) -> Result<Self, UrlError> {
        let text = trim(text);
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::RelativeWithoutBase)?;
        if text.contains(['\t', '\n', '\r']) {
            return Err(UrlError::InvalidCharacter);
        }
        let (rest, fragment) = split_optional(rest, '#');
        let (rest, query) = split_optional(rest, '?');
        let kind = Kind::of(scheme);
        let special = kind != Kind::Other;

        let mut out = Output::new(out);
        put_lower_case(scheme, &mut out);
        out.put(b":");
        let separates = |c: char| c == '/' || (special && c == '\\');
        let located = match kind {
            Kind::Network { .. } => Some(rest.trim_start_matches(separates)),
            Kind::File | Kind::Other => rest
                .strip_prefix(separates)
                .and_then(|rest| rest.strip_prefix(separates)),
        };
        let path = match located {
            Some(located) => {
                let end = located.find(separates).unwrap_or(located.len());
                let (authority, path) = located.split_at_checked(end).unwrap_or_default();
                out.put(b"//");
                put_authority(authority, kind, &mut out)?;
                path
            }
            None => {
                if kind == Kind::File {
                    out.put(b"//");
                }
                rest
            }
        };
        if special || path.starts_with('/') {
            let start = out.len();
            resolve_path(path, special, Some(Set::PATH), &mut out)?;
            if !special
                && located.is_none()
                && out.since(start).is_some_and(|path| path.starts_with(b"//"))
            {
                // It must not look like a host.
                out.truncate(start);
                out.put(b"/.");
                resolve_path(path, special, Some(Set::PATH), &mut out)?;
            }
        } else {
            write!(out, "{}", Set::CONTROLS.encode(path));
        }
        if let Some(query) = query {
            let set = if special {
                Set::SPECIAL_QUERY
            } else {
                Set::QUERY
            };
            write!(out, "?{}", set.encode(query));
        }
        if let Some(fragment) = fragment {
            write!(out, "#{}", Set::FRAGMENT.encode(fragment));
        }
        Ok(Self(out.finish_str()?))
    }

    /// The URL whose normal form `text` is.
    #[cfg(feature = "alloc")]
    pub(crate) const fn from_normal_form(text: &'o str) -> Self {
        Self(text)
    }
}

impl<'a> Url<'a> {
    /// The whole URL, with user information if there is any. Do not log it then.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The scheme, in lower case.
    pub fn scheme(self) -> &'a str {
        self.split().0
    }

    /// User name and password as they stand in the URL, percent-encoded, separated by the first `:`.
    pub fn user_info(self) -> Option<&'a str> {
        let (user_info, _) = self.split().1?.rsplit_once('@')?;
        Some(user_info)
    }

    /// Host and port as they stand in the URL: without the port if it is the scheme's default, an IPv6 address in
    /// brackets. Empty if there is no host.
    pub fn host_and_port(self) -> &'a str {
        let authority = self.split().1.unwrap_or_default();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    }

    /// Host and port to connect to, if the URL has a host and the scheme a port.
    pub fn authority(self) -> Option<Authority<'a>> {
        match Kind::of(self.scheme()) {
            Kind::Network { port } => Authority::parse(self.host_and_port(), port).ok(),
            Kind::File | Kind::Other => None,
        }
    }

    /// The path, percent-encoded.
    pub fn path(self) -> &'a str {
        let path = self.split().2;
        path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The query without its `?`, percent-encoded.
    pub fn query(self) -> Option<&'a str> {
        let (rest, _) = split_optional(self.split().2, '#');
        split_optional(rest, '?').1
    }

    /// Scheme; user information, host and port; path, query and fragment.
    fn split(self) -> (&'a str, Option<&'a str>, &'a str) {
        let (scheme, rest) = self.0.split_once(':').unwrap_or_default();
        match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
                (scheme, Some(authority), path)
            }
            None => (scheme, None, rest),
        }
    }
}

/// Leaves out user information and query, which may be secret.
impl fmt::Debug for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url")
            .field("scheme", &self.scheme())
            .field("host_and_port", &self.host_and_port())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// What a scheme says about the rest of a URL.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    /// A path on this machine, or on a host.
    File,
    /// There is a host, and a port that need not be written.
    Network { port: u16 },
    /// Nothing.
    Other,
}

impl Kind {
    fn of(scheme: &str) -> Self {
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        if is("file") {
            return Self::File;
        }
        let ports = [
            ("http", 80),
            ("https", 443),
            ("ws", 80),
            ("wss", 443),
            ("ftp", 21),
        ];
        match ports.iter().find(|(name, _)| is(name)) {
            Some(&(_, port)) => Self::Network { port },
            None => Self::Other,
        }
    }
}

/// Appends user information, host and port in their normal form.
fn put_authority(text: &str, kind: Kind, out: &mut Output<'_>) -> Result<(), UrlError> {
    if kind == Kind::File {
        if !text.is_empty() && !text.eq_ignore_ascii_case("localhost") {
            check_host(text)?;
            put_host(text, out);
        }
        return Ok(());
    }
    let (user_info, text) = text.rsplit_once('@').unwrap_or(("", text));
    if !user_info.is_empty() {
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        write!(out, "{}", Set::USER_INFO.encode(user));
        if !password.is_empty() {
            write!(out, ":{}", Set::USER_INFO.encode(password));
        }
        if !(user.is_empty() && password.is_empty()) {
            out.put(b"@");
        }
    }
    let (host, port) = split_port(text)?;
    let default_port = match kind {
        Kind::Network { port } => {
            check_host(host)?;
            put_host(host, out);
            Some(port)
        }
        Kind::File | Kind::Other => {
            put_opaque_host(host, out)?;
            None
        }
    };
    if let Some(port) = port.filter(|_| port != default_port) {
        write!(out, ":{port}");
    }
    Ok(())
}

/// Appends the host of a URL whose scheme says nothing about hosts.
fn put_opaque_host(host: &str, out: &mut Output<'_>) -> Result<(), UrlError> {
    if host.starts_with('[') {
        check_host(host)?;
        put_host(host, out);
    } else if host.contains(|c: char| c <= ' ' || "#/:<>?@[\\]^|".contains(c)) {
        return Err(UrlError::InvalidCharacter);
    } else {
        write!(out, "{}", Set::CONTROLS.encode(host));
    }
    Ok(())
}

/// Appends a host in lower case, an IPv6 address in its shortest form.
fn put_host(host: &str, out: &mut Output<'_>) {
    match without_brackets(host).parse::<Ipv6Addr>() {
        Ok(address) => write!(out, "[{address}]"),
        Err(_) => put_lower_case(host, out),
    }
}

fn put_lower_case(text: &str, out: &mut Output<'_>) {
    for byte in text.bytes() {
        out.put(&[byte.to_ascii_lowercase()]);
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
        let (host, port) = split_port(text)?;
        check_host(host)?;
        Ok(Self {
            host: without_brackets(host),
            port: port.unwrap_or(default_port),
        })
    }

    /// The host name or address; an IPv6 address without its brackets, ready for a resolver.
    pub const fn host(&self) -> &'a str {
        self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
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

/// The host, an IPv6 address still in brackets, and the port, if there is one.
fn split_port(text: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(UrlError::InvalidIpv6)?;
        let (host, port) = text
            .split_at_checked(end.saturating_add(1))
            .unwrap_or_default();
        match port.strip_prefix(':') {
            Some(port) => (host, port),
            None if port.is_empty() => (host, port),
            None => return Err(UrlError::InvalidPort),
        }
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    if port.is_empty() {
        Ok((host, None))
    } else if port.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = port.parse().map_err(|_| UrlError::InvalidPort)?;
        Ok((host, Some(port)))
    } else {
        Err(UrlError::InvalidPort)
    }
}

fn check_host(host: &str) -> Result<(), UrlError> {
    if host.starts_with('[') {
        let address = without_brackets(host).parse::<Ipv6Addr>();
        return address.map(|_| ()).map_err(|_| UrlError::InvalidIpv6);
    }
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
            ("ftp://h:21", "ftp://h/"),
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
        assert_eq!(url.scheme(), "http");
        assert_eq!(url.user_info(), Some("us%2fer:p%40w"));
        let authority = url.authority().unwrap();
        assert_eq!((authority.host(), authority.port()), ("proxy", 3128));
        assert_eq!(url.host_and_port(), "proxy:3128");
        assert_eq!((url.path(), url.query()), ("/x", Some("y")));
        assert!(!format!("{url:?}").contains("p%40w"));
        let mut out = [0; 128];
        let url = Url::parse("https://[::1]", &mut out).unwrap();
        let authority = url.authority().unwrap();
        assert_eq!(authority.host(), "::1");
        assert_eq!(authority.to_string(), "[::1]:443");
        assert_eq!(url.host_and_port(), "[::1]");
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
