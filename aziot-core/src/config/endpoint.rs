//! Where a service listens.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::section::Section;
use super::url::{Url, UrlError};

/// Address of a service's socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `unix://PATH`: path of a Unix socket, in bytes.
    Unix(Vec<u8>),
    /// `fd://N`: an inherited descriptor.
    Descriptor(u32),
    /// `fd://NAME`: the inherited descriptor of that name in `LISTEN_FDNAMES`.
    NamedDescriptor(String),
    /// `http://…`: plain TCP, which the services do not offer. Kept so that a reader can warn and use the default.
    Http(String),
}

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndpointError {
    /// It is no absolute URL.
    Url(UrlError),
    /// A `unix:` URI that names a host, as two slashes instead of three do, or no path.
    NotAPath,
    /// An `fd:` URI without descriptor.
    NoDescriptor,
    /// Neither `unix:` nor `fd:`.
    Scheme,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::NotAPath => f.write_str("unix URI could not be converted to a file path"),
            Self::NoDescriptor => f.write_str("fd URI does not have a host"),
            Self::Scheme => f.write_str("unrecognized scheme"),
        }
    }
}

impl core::error::Error for EndpointError {}

impl core::str::FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let url: Url = text.parse().map_err(EndpointError::Url)?;
        match url.scheme() {
            "unix" => match url.file_path() {
                Some(path) if path.len() > 1 => Ok(Self::Unix(path)),
                _ => Err(EndpointError::NotAPath),
            },
            "fd" => match url.host() {
                "" => Err(EndpointError::NoDescriptor),
                host => Ok(match host.parse() {
                    Ok(number) => Self::Descriptor(number),
                    Err(_) => Self::NamedDescriptor(host.into()),
                }),
            },
            "http" => Ok(Self::Http(format!("{url}"))),
            _ => Err(EndpointError::Scheme),
        }
    }
}

impl Endpoint {
    /// Socket of service `name` in directory `sockets`.
    pub fn default_of(sockets: &str, name: &str) -> Self {
        Self::Unix(format!("{sockets}/{name}.sock").into_bytes())
    }

    /// Reads `key` of the table `[endpoints]`; the default if it is absent or an `http:` URI.
    pub(super) fn read(endpoints: Option<&Section<'_>>, key: &'static str, default: Self) -> Self {
        let Some(section) = endpoints else {
            return default;
        };
        let Some(text) = section.optional::<&str>(key) else {
            return default;
        };
        match text.parse() {
            Ok(Self::Http(_)) => {
                section.reader().warning(
                    section.key_at(key),
                    format!(
                        "`{}` is an http URI, which the services do not offer",
                        section.path_of(key)
                    ),
                    "the default Unix socket is used; write a unix:// URI",
                );
                default
            }
            Ok(endpoint) => endpoint,
            Err(error) => {
                let hint =
                    "write unix:// and an absolute path, such as \"unix:///run/aziot/keyd.sock\"";
                let message = format!("`{}`: malformed URI: {error}", section.path_of(key));
                section.refuse(key, &message, hint);
                default
            }
        }
    }
}
