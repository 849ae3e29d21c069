//! Endpoints of the services.

use core::fmt;

use super::file::local_path;
use super::{Authority, FileUriError, UrlError, split_scheme, trim};
use crate::output::{BufferFull, Output};
use crate::percent::Set;

/// Where a service listens or is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connector<'a> {
    /// A descriptor that was passed to the process, by number.
    Fd(i32),
    /// A descriptor that was passed to the process, by its name in `LISTEN_FDNAMES`; see [`descriptor_by_name`].
    FdName(&'a str),
    /// A TCP port. Parsed for the sake of old configurations; the daemons warn and use their default.
    Tcp(Authority<'a>),
    /// A Unix socket with this path.
    Unix(&'a [u8]),
}

impl<'o> Connector<'o> {
    /// Reads an endpoint URI; decoded text is written to `out`, which needs at most one byte more than `uri` has.
    ///
    /// # Errors
    /// See [`ConnectorError`].
    pub fn parse<'u>(uri: &'u str, out: &'o mut [u8]) -> Result<Self, ConnectorError<'u>> {
        let error = |reason| ConnectorError { uri, reason };
        let text = trim(uri);
        let (scheme, rest) = split_scheme(text).ok_or(error(ConnectorReason::Relative))?;
        // The query and the fragment mean nothing here.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        if scheme.eq_ignore_ascii_case("unix") {
            unix(rest, out).map_err(error)
        } else if scheme.eq_ignore_ascii_case("http") {
            let rest = rest.trim_start_matches(['/', '\\']);
            let authority = rest.split(['/', '\\']).next().unwrap_or_default();
            let authority = authority.rsplit('@').next().unwrap_or_default();
            // Copied, so that the result borrows from `out` alone.
            let authority =
                copy(authority, out).map_err(|full| error(ConnectorReason::BufferFull(full)))?;
            Authority::parse(authority, 80)
                .map(Self::Tcp)
                .map_err(|err| error(ConnectorReason::Url(err)))
        } else if scheme.eq_ignore_ascii_case("fd") {
            let host = rest
                .strip_prefix("//")
                .and_then(|rest| rest.split('/').next())
                .unwrap_or_default();
            if host.is_empty() {
                return Err(error(ConnectorReason::FdWithoutHost));
            }
            if host
                .strip_prefix('-')
                .unwrap_or(host)
                .bytes()
                .all(|byte| byte.is_ascii_digit())
            {
                match host.parse::<i32>() {
                    Ok(fd) if fd >= 0 => Ok(Self::Fd(fd)),
                    _ => Err(error(ConnectorReason::FdOutOfRange)),
                }
            } else {
                let name =
                    copy(host, out).map_err(|full| error(ConnectorReason::BufferFull(full)))?;
                Ok(Self::FdName(name))
            }
        } else {
            Err(error(ConnectorReason::UnrecognizedScheme(scheme)))
        }
    }
}

/// Writes the URI: `unix://` and the path, `http://host[:port]/`, or `fd://` and the number or name.
impl fmt::Display for Connector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fd(fd) => write!(f, "fd://{fd}"),
            Self::FdName(name) => write!(f, "fd://{name}"),
            Self::Tcp(authority) if authority.port() != 80 => write!(f, "http://{authority}/"),
            Self::Tcp(authority) if authority.host().contains(':') => {
                write!(f, "http://[{}]/", authority.host())
            }
            Self::Tcp(authority) => write!(f, "http://{}/", authority.host()),
            Self::Unix(path) => write!(f, "unix://{}", Set::FILE_PATH.encode(path)),
        }
    }
}

fn unix<'o>(rest: &str, out: &'o mut [u8]) -> Result<Connector<'o>, ConnectorReason<'static>> {
    // Without a leading slash it is not a path, and with only a host there is none.
    let has_path = match rest.strip_prefix("//") {
        Some(authority) => authority.contains('/'),
        None => rest.starts_with('/'),
    };
    if !has_path {
        return Err(ConnectorReason::NoPath);
    }
    match local_path(rest, false, out) {
        Ok(b"/") => Err(ConnectorReason::NoPath),
        Ok(path) => Ok(Connector::Unix(path)),
        Err(FileUriError::BufferFull(full)) => Err(ConnectorReason::BufferFull(full)),
        Err(FileUriError::ControlCharacter | FileUriError::Host | FileUriError::NotFile) => {
            Err(ConnectorReason::NoPath)
        }
    }
}

fn copy<'o>(text: &str, out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
    let mut out = Output::new(out);
    out.put_str(text);
    out.finish_str()
}

/// The descriptor that goes by `name`: 3 and its place in `names`, the value of `LISTEN_FDNAMES` (colon-separated), which is
/// absent also when `LISTEN_PID` is another process.
///
/// # Errors
/// There are no names, or not this one.
pub fn descriptor_by_name<'a>(
    name: &'a str,
    names: Option<&str>,
) -> Result<i32, ConnectorReason<'a>> {
    let names = names.ok_or(ConnectorReason::NoNames)?;
    let place = names
        .split(':')
        .position(|known| known == name)
        .ok_or(ConnectorReason::UnknownName(name))?;
    i32::try_from(place)
        .ok()
        .and_then(|place| place.checked_add(3))
        .ok_or(ConnectorReason::FdOutOfRange)
}

/// A text is not an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConnectorError<'u> {
    /// The text.
    pub uri: &'u str,
    /// What is wrong with it.
    pub reason: ConnectorReason<'u>,
}

/// The reason in a [`ConnectorError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ConnectorReason<'u> {
    /// The buffer is too small.
    BufferFull(BufferFull),
    /// The number of a descriptor is negative or too large.
    FdOutOfRange,
    /// `fd:` is not followed by `//` and a number or name.
    FdWithoutHost,
    /// The process got no names of descriptors.
    NoNames,
    /// `unix:` is not followed by an absolute path on this machine.
    NoPath,
    /// There is no scheme.
    Relative,
    /// No descriptor has this name.
    UnknownName(&'u str),
    /// The scheme is none of `unix`, `http` and `fd`.
    UnrecognizedScheme(&'u str),
    /// `http:` is not followed by a host, or by a bad one.
    Url(UrlError),
}

impl fmt::Display for ConnectorError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed URI {:?}: {}", self.uri, self.reason)
    }
}

impl fmt::Display for ConnectorReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull(full) => full.fmt(f),
            Self::FdOutOfRange => f.write_str("descriptor number is out of range"),
            Self::FdWithoutHost => f.write_str("fd URI does not have a host"),
            Self::NoNames => f.write_str("LISTEN_FDNAMES not found"),
            Self::NoPath => f.write_str("unix URI could not be converted to a file path"),
            Self::Relative => f.write_str("relative URL without a base"),
            Self::UnknownName(name) => write!(f, "socket {name} not found"),
            Self::UnrecognizedScheme(scheme) => write!(f, "unrecognized scheme {scheme:?}"),
            Self::Url(err) => err.fmt(f),
        }
    }
}

impl core::error::Error for ConnectorError<'_> {}
impl core::error::Error for ConnectorReason<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The connector in words, and as it is written back.
    fn read(uri: &str) -> Result<(String, String), String> {
        let mut out = vec![0; uri.len() + 1];
        let connector = Connector::parse(uri, &mut out).map_err(|err| err.reason.to_string())?;
        let words = match connector {
            Connector::Fd(fd) => format!("fd {fd}"),
            Connector::FdName(name) => format!("name {name}"),
            Connector::Tcp(authority) => format!("tcp {} {}", authority.host(), authority.port()),
            Connector::Unix(path) => format!("unix {}", String::from_utf8_lossy(path)),
        };
        Ok((words, connector.to_string()))
    }

    #[test]
    fn hc_06_connector_table() {
        for (uri, words, written) in [
            (
                "unix:///run/aziot/keyd.sock",
                "unix /run/aziot/keyd.sock",
                "unix:///run/aziot/keyd.sock",
            ),
            ("unix:/run/x", "unix /run/x", "unix:///run/x"),
            ("unix://localhost/run/x", "unix /run/x", "unix:///run/x"),
            ("UNIX:///run/x", "unix /run/x", "unix:///run/x"),
            ("unix:///run/a%20b", "unix /run/a b", "unix:///run/a%20b"),
            ("unix:///run/a?b#c", "unix /run/a", "unix:///run/a"),
            ("unix:///a/../b", "unix /b", "unix:///b"),
            ("unix:///a\\b", "unix /a\\b", "unix:///a%5Cb"),
            (
                "http://127.0.0.1:8888",
                "tcp 127.0.0.1 8888",
                "http://127.0.0.1:8888/",
            ),
            (
                "http://127.0.0.1:80",
                "tcp 127.0.0.1 80",
                "http://127.0.0.1/",
            ),
            ("http://u:p@h/x?y", "tcp h 80", "http://h/"),
            ("http://[::1]:8888", "tcp ::1 8888", "http://[::1]:8888/"),
            ("http://[::1]:80", "tcp ::1 80", "http://[::1]/"),
            ("fd://3", "fd 3", "fd://3"),
            ("fd://NAME", "name NAME", "fd://NAME"),
        ] {
            assert_eq!(
                read(uri),
                Ok((words.to_owned(), written.to_owned())),
                "{uri}"
            );
        }
        let no_path = "unix URI could not be converted to a file path";
        for (uri, cause) in [
            ("unix://run/x.sock", no_path),
            ("unix://", no_path),
            ("unix:", no_path),
            ("unix:x", no_path),
            ("unix:///", no_path),
            ("fd:3", "fd URI does not have a host"),
            ("fd:///3", "fd URI does not have a host"),
            ("fd://-1", "descriptor number is out of range"),
            ("fd://2147483648", "descriptor number is out of range"),
            ("https://x", "unrecognized scheme \"https\""),
            ("ftp://x", "unrecognized scheme \"ftp\""),
            ("", "relative URL without a base"),
            ("foo", "relative URL without a base"),
            ("http://", "empty host"),
        ] {
            assert_eq!(read(uri), Err(cause.to_owned()), "{uri}");
        }
        assert_eq!(
            Connector::parse("foo", &mut []).unwrap_err().to_string(),
            "malformed URI \"foo\": relative URL without a base"
        );
    }

    #[test]
    fn hc_06_descriptor_names() {
        assert_eq!(descriptor_by_name("b", Some("a:b:c")), Ok(4));
        let text = |result: Result<i32, ConnectorReason<'_>>| result.unwrap_err().to_string();
        assert_eq!(
            text(descriptor_by_name("x", Some("a:b"))),
            "socket x not found"
        );
        assert_eq!(
            text(descriptor_by_name("x", None)),
            "LISTEN_FDNAMES not found"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(scheme in "unix|http|fd|x", rest in any::<String>()) {
            if let Ok((words, written)) = read(&format!("{scheme}:{rest}")) {
                prop_assert_eq!(read(&written), Ok((words, written)));
            }
        }
    }
}
