//! URLs in settings, normalised as the WHATWG URL standard says.
//!
//! Settings are compared and written back as normalised text, so `https://Dps.Example` and `https://dps.example/`
//! are the same endpoint. Host names must be ASCII; internationalised names are written in their `xn--` form.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// A parsed and normalised absolute URL. Displays as its normalised text.
#[derive(Clone, Eq, PartialEq)]
pub struct Url {
    scheme: String,
    userinfo: String,
    host: Option<String>,
    port: Option<u16>,
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

/// Why a text is not an absolute URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UrlError {
    /// It does not start with a scheme.
    Relative,
    /// The host is empty although the scheme needs one.
    EmptyHost,
    /// The host holds characters that a host name cannot have.
    Host,
    /// The host is not ASCII.
    NonAsciiHost,
    /// The host looks like an IP address but is none.
    Address,
    /// The port is no number up to 65535.
    Port,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relative => "relative URL without a base",
            Self::EmptyHost => "empty host",
            Self::Host => "invalid domain character",
            Self::NonAsciiHost => "the host name is not ASCII",
            Self::Address => "invalid IP address",
            Self::Port => "invalid port number",
        })
    }
}

impl core::error::Error for UrlError {}

/// Characters to percent-encode beside controls and non-ASCII ones.
const FRAGMENT: &str = " \"<>`";
const QUERY: &str = " \"#<>";
const SPECIAL_QUERY: &str = " \"#<>'";
const PATH: &str = " \"#<>?`{}";
const USERINFO: &str = " \"#<>?`{}/:;=@[\\]^|";

impl Url {
    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host: a name in lower case, an address, or an IPv6 address in brackets. Empty if there is none.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("")
    }

    /// The port, unless it is the scheme's default.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path, percent-encoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The text without user name and password, for messages.
    pub fn without_userinfo(&self) -> String {
        format!(
            "{}",
            Self {
                userinfo: String::new(),
                ..self.clone()
            }
        )
    }

    /// The path as the name of a file: percent-decoded. `None` if a host is given or the path is not absolute.
    pub fn file_path(&self) -> Option<Vec<u8>> {
        let here = matches!(self.host(), "" | "localhost");
        let absolute = self.path.starts_with('/');
        (here && absolute).then(|| percent_decode(&self.path))
    }

    /// The `file:` URL of an absolute path.
    pub fn from_file_path(path: &[u8]) -> String {
        let mut url = String::from("file://");
        for byte in path {
            let plain = byte.is_ascii_graphic()
                && !PATH.contains(char::from(*byte))
                && *byte != b'%'
                && *byte != b'\\';
            if plain {
                url.push(char::from(*byte));
            } else {
                let _ = write!(url, "%{byte:02X}");
            }
        }
        url
    }

    fn is_special(&self) -> bool {
        default_port(&self.scheme).is_some() || self.scheme == "file"
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // Surrounding controls and spaces, and tabs and line ends anywhere, do not count.
        let text: String = text
            .trim_matches(|c: char| c <= ' ')
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .collect();
        let (scheme, rest) = text.split_once(':').ok_or(UrlError::Relative)?;
        let mut characters = scheme.chars();
        let valid = characters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !valid {
            return Err(UrlError::Relative);
        }
        let mut url = Self {
            scheme: scheme.to_ascii_lowercase(),
            userinfo: String::new(),
            host: None,
            port: None,
            path: String::new(),
            query: None,
            fragment: None,
        };
        let (rest, fragment) = split_off(rest, '#');
        let (rest, query) = split_off(rest, '?');
        url.fragment = fragment.map(|text| percent_encode(text, FRAGMENT));
        url.query = query.map(|text| {
            percent_encode(
                text,
                if url.is_special() {
                    SPECIAL_QUERY
                } else {
                    QUERY
                },
            )
        });

        let special = url.is_special();
        let slash = |c: char| c == '/' || (special && c == '\\');
        let leading = rest.chars().take_while(|c| slash(*c)).count();
        // Two slashes introduce the authority. A special scheme other than `file` has one in any case.
        let path = if special && url.scheme != "file" {
            url.read_authority(rest.trim_start_matches(slash), slash)?
        } else if leading >= 2 {
            url.read_authority(rest.get(2..).unwrap_or(""), slash)?
        } else if special {
            url.host = Some(String::new());
            rest
        } else {
            rest
        };
        let opaque = !special && leading == 0;
        url.path = if opaque {
            percent_encode(path, "")
        } else {
            normalize_path(path, special, slash)
        };
        Ok(url)
    }
}

impl Url {
    /// Reads userinfo, host and port, and returns the path.
    fn read_authority<'t>(
        &mut self,
        rest: &'t str,
        slash: impl Fn(char) -> bool,
    ) -> Result<&'t str, UrlError> {
        let (authority, path) = rest.split_at(rest.find(slash).unwrap_or(rest.len()));
        let (userinfo, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        if !userinfo.is_empty() {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            self.userinfo = percent_encode(user, USERINFO);
            if !password.is_empty() {
                self.userinfo.push(':');
                self.userinfo.push_str(&percent_encode(password, USERINFO));
            }
        }
        let (host, port) = match host_port.rfind(']') {
            Some(end) => match host_port.get(end..).and_then(|tail| tail.find(':')) {
                Some(colon) => split_port(host_port, end.saturating_add(colon)),
                None => (host_port, ""),
            },
            None => host_port
                .rfind(':')
                .map_or((host_port, ""), |colon| split_port(host_port, colon)),
        };
        if !port.is_empty() {
            if !port.bytes().all(|b| b.is_ascii_digit()) {
                return Err(UrlError::Port);
            }
            let port = u16::from_str(port).map_err(|_| UrlError::Port)?;
            self.port = (Some(port) != default_port(&self.scheme)).then_some(port);
        }
        let host = read_host(host, self.is_special())?;
        if host.is_empty() && self.is_special() && self.scheme != "file" {
            return Err(UrlError::EmptyHost);
        }
        let local_file = self.scheme == "file" && host == "localhost";
        self.host = Some(if local_file { String::new() } else { host });
        Ok(path)
    }
}

fn split_port(text: &str, colon: usize) -> (&str, &str) {
    (
        text.get(..colon).unwrap_or(text),
        text.get(colon.saturating_add(1)..).unwrap_or(""),
    )
}

fn split_off(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn read_host(text: &str, special: bool) -> Result<String, UrlError> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').ok_or(UrlError::Address)?;
        return Ipv6Addr::from_str(address)
            .map(|address| format!("[{address}]"))
            .map_err(|_| UrlError::Address);
    }
    if !special {
        let forbidden = |c: char| c <= ' ' || "#/:<>?@[\\]^|".contains(c);
        return if text.contains(forbidden) {
            Err(UrlError::Host)
        } else {
            Ok(percent_encode(text, ""))
        };
    }
    let host = String::from_utf8(percent_decode(text)).map_err(|_| UrlError::Host)?;
    if !host.is_ascii() {
        return Err(UrlError::NonAsciiHost);
    }
    if host.contains(|c: char| c <= ' ' || c == '\x7f' || "#/:<>?@[\\]^|%".contains(c)) {
        return Err(UrlError::Host);
    }
    let host = host.to_ascii_lowercase();
    let last = host
        .strip_suffix('.')
        .unwrap_or(&host)
        .rsplit('.')
        .next()
        .unwrap_or("");
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        Ipv4Addr::from_str(&host).map_err(|_| UrlError::Address)?;
    }
    Ok(host)
}

/// Resolves `.` and `..` and percent-encodes.
fn normalize_path(path: &str, special: bool, slash: impl Fn(char) -> bool) -> String {
    if path.is_empty() && !special {
        return String::new();
    }
    let path = path.strip_prefix(&slash).unwrap_or(path);
    let mut segments: Vec<String> = Vec::new();
    let mut pieces = path.split(&slash).peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        match piece.to_ascii_lowercase().replace("%2e", ".").as_str() {
            ".." => {
                segments.pop();
                if last {
                    segments.push(String::new());
                }
            }
            "." => {
                if last {
                    segments.push(String::new());
                }
            }
            _ => segments.push(percent_encode(piece, PATH)),
        }
    }
    let mut normalized = String::new();
    for segment in &segments {
        normalized.push('/');
        normalized.push_str(segment);
    }
    normalized
}

fn percent_encode(text: &str, set: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_ascii_graphic() || c == ' ') && !set.contains(c) {
            encoded.push(c);
        } else {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Decodes `%XX`; a `%` without two hexadecimal digits stands for itself.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digit = |i: usize| {
            tail.get(i)
                .and_then(|b| char::from(*b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (*first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or(&[]);
            }
            (byte, ..) => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    decoded
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if let Some(host) = &self.host {
            f.write_str("//")?;
            if !self.userinfo.is_empty() {
                write!(f, "{}@", self.userinfo)?;
            }
            f.write_str(host)?;
            if let Some(port) = self.port {
                write!(f, ":{port}")?;
            }
        } else if self.path.starts_with("//") {
            // Without a host, a path that starts with two slashes would be read as an authority.
            f.write_str("/.")?;
        }
        f.write_str(&self.path)?;
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        if let Some(fragment) = &self.fragment {
            write!(f, "#{fragment}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Url {
    /// Without userinfo and query, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({}://{}{})", self.scheme, self.host(), self.path)
    }
}
