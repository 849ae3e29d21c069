//! Where the listening socket comes from: the service manager, or a bind of our own (spec, daemon chapter B.1, B.2).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use aziot_core::uri::descriptor_by_name;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};

use crate::sys;

/// The first descriptor that a service manager passes (sd_listen_fds(3)).
const FIRST_FD: RawFd = 3;

/// An endpoint that a service listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket path: `unix:///path`.
    Path(PathBuf),
    /// A passed descriptor: `fd://3`.
    Fd(RawFd),
    /// A passed descriptor by its name in `LISTEN_FDNAMES`: `fd://NAME`.
    FdName(String),
}

/// The listening socket of a service.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking and listening.
    pub socket: UnixListener,
    /// The file to remove at the end, when this process made it.
    pub bound: Option<Bound>,
}

/// A socket file that this process made.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    identity: (u64, u64),
}

impl Bound {
    /// Removes the socket file if it is still the one that this process made.
    pub fn remove(&self) {
        if let Ok(metadata) = std::fs::symlink_metadata(&self.path)
            && (metadata.st_dev(), metadata.st_ino()) == self.identity
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why there is no listening socket.
#[derive(Debug)]
pub enum Error {
    /// `LISTEN_PID` or `LISTEN_FDS` is set and is no number.
    Variable(&'static str, std::num::ParseIntError),
    /// A passed descriptor could not be marked close-on-exec.
    CloseOnExec(RawFd, io::Error),
    /// The passed descriptor cannot be used.
    Descriptor(RawFd, io::Error),
    /// The passed descriptor is a socket of another kind.
    Family(AddressFamily),
    /// `fd://NAME` names nothing that was passed.
    Name(String),
    /// Somebody serves the path already.
    InUse(PathBuf),
    /// There is something at the path that is neither a socket nor an empty directory.
    Occupied(PathBuf, io::Error),
    /// The socket could not be made.
    Bind(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name, error) => write!(f, "could not read {name} env var: {error}"),
            Self::CloseOnExec(fd, error) => {
                write!(f, "could not fcntl({fd}, F_SETFD, FD_CLOEXEC): {error}")
            }
            Self::Descriptor(fd, error) => write!(
                f,
                "could not use the passed descriptor {fd} as a socket: {error}"
            ),
            Self::Family(family)
                if *family == AddressFamily::INET || *family == AddressFamily::INET6 =>
            {
                let name = if *family == AddressFamily::INET {
                    "Inet"
                } else {
                    "Inet6"
                };
                write!(
                    f,
                    "systemd socket has unsupported address family Some({name}): give the socket unit a path in \
                     ListenStream="
                )
            }
            Self::Family(family) => write!(
                f,
                "systemd socket has unsupported address family {}",
                family.as_raw()
            ),
            Self::Name(name) => write!(
                f,
                "socket {name} not found: no descriptor of that name was passed (LISTEN_FDNAMES, FileDescriptorName=)"
            ),
            Self::InUse(path) => write!(
                f,
                "address in use: another process serves {}; stop it before starting this one",
                path.display()
            ),
            Self::Occupied(path, error) => write!(
                f,
                "could not remove {} to make a socket there: {error}; remove it by hand",
                path.display()
            ),
            Self::Bind(path, error) => {
                write!(f, "could not make the socket {}: {error}", path.display())?;
                if error.kind() == io::ErrorKind::NotFound {
                    write!(
                        f,
                        "; create its directory, or start the service through its socket unit"
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Error {}

/// Gets the listening socket: an `fd://` endpoint wins over activation, activation over the endpoint's own path.
///
/// # Errors
/// See [`Error`].
pub fn listen(endpoint: &Endpoint, passed: &Passed) -> Result<Listener, Error> {
    match endpoint {
        Endpoint::Fd(fd) => activated(*fd),
        Endpoint::FdName(name) => {
            let fd = descriptor_by_name(name, passed.names.as_deref())
                .map_err(|_| Error::Name(name.clone()))?;
            activated(fd)
        }
        Endpoint::Path(path) => match passed.choose(path) {
            Some(fd) => activated(fd),
            None => bind(path),
        },
    }
}

/// What the service manager passed.
#[derive(Debug, Default)]
pub struct Passed {
    count: RawFd,
    /// `LISTEN_FDNAMES`.
    names: Option<String>,
}

impl Passed {
    /// Looks for it. This comes before the process opens descriptors of its own that stay: one that was announced but not
    /// passed must not turn out to be one of them.
    ///
    /// # Errors
    /// The variables are malformed, which is an error whatever the endpoint, or a descriptor is not there.
    pub fn from_env() -> Result<Self, Error> {
        let Some(pid) = number("LISTEN_PID")? else {
            return Ok(Self::default());
        };
        if pid != i64::from(std::process::id()) {
            return Ok(Self::default());
        }
        let count = match number("LISTEN_FDS")? {
            Some(count) if count > 0 => RawFd::try_from(count).unwrap_or(RawFd::MAX - FIRST_FD),
            _ => return Ok(Self::default()),
        };
        for fd in FIRST_FD..FIRST_FD.saturating_add(count) {
            sys::set_close_on_exec(fd).map_err(|error| Error::CloseOnExec(fd, error))?;
        }
        Ok(Self {
            count,
            names: std::env::var("LISTEN_FDNAMES").ok(),
        })
    }

    /// One descriptor is ours; of several, the one bound to our path, so that an additional `ListenStream=` does no harm.
    fn choose(&self, path: &Path) -> Option<RawFd> {
        if self.count == 1 {
            return Some(FIRST_FD);
        }
        (FIRST_FD..FIRST_FD.saturating_add(self.count)).find(|&fd| {
            let Ok(copy) = sys::duplicate(fd) else {
                return false;
            };
            let Ok(address) = rustix::net::getsockname(&copy) else {
                return false;
            };
            SocketAddrUnix::try_from(address).is_ok_and(|address| {
                address
                    .path_bytes()
                    .is_some_and(|bytes| bytes == path.as_os_str().as_encoded_bytes())
            })
        })
    }
}

fn number(name: &'static str) -> Result<Option<i64>, Error> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let text = value
        .into_string()
        .unwrap_or_else(|raw: OsString| raw.to_string_lossy().into_owned());
    text.parse()
        .map(Some)
        .map_err(|error| Error::Variable(name, error))
}

fn activated(fd: RawFd) -> Result<Listener, Error> {
    // Whatever it is, it is taken over only when it is a socket.
    let copy = sys::duplicate(fd).map_err(|error| Error::Descriptor(fd, error))?;
    rustix::net::getsockname(&copy).map_err(|error| Error::Descriptor(fd, error.into()))?;
    let owned = sys::adopt(fd).map_err(|error| Error::Descriptor(fd, error))?;
    let socket = unix_listener(owned).map_err(|error| match error {
        NotUnix::Os(error) => Error::Descriptor(fd, error),
        NotUnix::Family(family) => Error::Family(family),
    })?;
    Ok(Listener {
        socket,
        bound: None,
    })
}

enum NotUnix {
    Os(io::Error),
    Family(AddressFamily),
}

fn unix_listener(fd: OwnedFd) -> Result<UnixListener, NotUnix> {
    let address: SocketAddrAny =
        rustix::net::getsockname(&fd).map_err(|error| NotUnix::Os(error.into()))?;
    let family = address.address_family();
    if family != AddressFamily::UNIX {
        return Err(NotUnix::Family(family));
    }
    let socket = UnixListener::from(fd);
    socket.set_nonblocking(true).map_err(NotUnix::Os)?;
    Ok(socket)
}

fn bind(path: &Path) -> Result<Listener, Error> {
    make_room(path)?;
    // The socket must never exist with wider permissions than it ends with.
    let bound = sys::with_umask(0o117, || UnixListener::bind(path));
    let socket = bound.map_err(|error| Error::Bind(path.to_owned(), error))?;
    let identity = std::fs::symlink_metadata(path)
        .map(|metadata| (metadata.st_dev(), metadata.st_ino()))
        .map_err(|error| Error::Bind(path.to_owned(), error))?;
    socket
        .set_nonblocking(true)
        .map_err(|error| Error::Bind(path.to_owned(), error))?;
    Ok(Listener {
        socket,
        bound: Some(Bound {
            path: path.to_owned(),
            identity,
        }),
    })
}

/// Removes a socket that nobody serves, or the empty directory that container runtimes leave where a bind mount's source
/// is missing.
fn make_room(path: &Path) -> Result<(), Error> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::Bind(path.to_owned(), error)),
    };
    let occupied = |error| Error::Occupied(path.to_owned(), error);
    if metadata.is_dir() {
        log::warn!("Could not remove socket file because it is a directory. Removing directory.");
        return std::fs::remove_dir(path).map_err(occupied);
    }
    if !metadata.file_type().is_socket() {
        return Err(occupied(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is not a socket",
        )));
    }
    match connect(path) {
        // A full backlog also means that somebody is there.
        Ok(()) | Err(Errno::AGAIN) => Err(Error::InUse(path.to_owned())),
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(occupied),
        Err(Errno::NOENT) => Ok(()),
        // Whether somebody serves it is not known.
        Err(error) => Err(occupied(error.into())),
    }
}

/// Tries whether somebody serves a path, without waiting for a server that is there and does not accept.
fn connect(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        match bind(path) {
            Ok(_) => panic!("{} was bound", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_socket_with_a_full_backlog_is_in_use() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let flags = SocketFlags::CLOEXEC;
        let server =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        rustix::net::bind(&server, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&server, 0).unwrap();
        let mut waiting = 0;
        while connect(&path).is_ok() {
            waiting += 1;
            assert!(waiting < 100);
        }
        assert!(refused(&path).starts_with("address in use"));
        drop(server);
        assert!(bind(&path).is_ok(), "nobody serves it any more");
    }

    #[test]
    fn a_socket_of_another_kind_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(refused(&path).starts_with("could not remove"));
        assert!(path.exists());
    }
}
