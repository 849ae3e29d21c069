//! Where a service listens.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::section::Section;
use crate::uri::Connector;

/// Address of a service's socket: a [`Connector`] that can be used, and owns its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `unix://PATH`: path of a Unix socket, in bytes.
    Unix(Vec<u8>),
    /// `fd://N`: an inherited descriptor.
    Fd(i32),
    /// `fd://NAME`: the inherited descriptor of that name in `LISTEN_FDNAMES`.
    FdName(String),
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
        let Some(uri) = section.optional::<&str>(key) else {
            return default;
        };
        let mut decoded = vec![0; uri.len().saturating_add(1)];
        match Connector::parse(uri, &mut decoded) {
            Ok(Connector::Unix(path)) => Self::Unix(path.into()),
            Ok(Connector::Fd(fd)) => Self::Fd(fd),
            Ok(Connector::FdName(name)) => Self::FdName(name.into()),
            Ok(Connector::Tcp(_)) => {
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
            Err(error) => {
                let hint =
                    "write unix:// and an absolute path, such as \"unix:///run/aziot/keyd.sock\"";
                let message = format!(
                    "`{}`: malformed URI: {}",
                    section.path_of(key),
                    error.reason
                );
                section.refuse(key, &message, hint);
                default
            }
        }
    }
}
