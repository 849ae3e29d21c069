//! Connections with deadlines: every connect, read and write of a client ends by a given point in time.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

/// Pause before another try when the backlog of a Unix socket is full; the kernel offers nothing to wait on.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// A point in time by which something has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So much time from now on.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        let now = Instant::now();
        // A span that the clock cannot express is as good as a year.
        Self(
            now.checked_add(time)
                .unwrap_or_else(|| now + Duration::from_secs(365 * 86_400)),
        )
    }

    /// The earlier of this deadline and `step` from now on.
    #[must_use]
    pub fn within(self, step: Duration) -> Self {
        self.min(Self::after(step))
    }

    /// The time left; `None` when it has passed.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }
}

/// A connection that a request can be sent over.
pub trait Wire {
    /// Reads what is there, at least one byte, or 0 at the end of the stream.
    ///
    /// # Errors
    /// `TimedOut` when nothing came in time, and whatever the connection reports.
    fn read(&mut self, into: &mut [u8], by: Deadline) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// `TimedOut` when the peer did not take them in time, and whatever the connection reports.
    fn write_all(&mut self, bytes: &[u8], by: Deadline) -> io::Result<()>;
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
}

/// Waits until the descriptor is ready, or has failed: the next operation on it tells.
pub(super) fn wait(fd: BorrowedFd<'_>, want: Want, by: Deadline) -> io::Result<()> {
    loop {
        let Some(left) = by.remaining() else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let flags = match want {
            Want::Read => PollFlags::IN,
            Want::Write => PollFlags::OUT,
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
        // A nanosecond more than nothing, so that rounding never turns the wait into a busy loop.
        let timeout = Timespec::try_from(left + Duration::from_nanos(1)).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Connects to a Unix socket. The stream is non-blocking.
pub(super) fn connect_unix(path: &Path, by: Deadline) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&fd, &address) {
            Ok(()) => return Ok(UnixStream::from(fd)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match by.remaining() {
                Some(left) => std::thread::sleep(left.min(BACKLOG_PAUSE)),
                None => return Err(io::ErrorKind::TimedOut.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// Connects to one address. The stream is non-blocking.
pub(super) fn connect_tcp(address: SocketAddr, by: Deadline) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&fd, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait(fd.as_fd(), Want::Write, by)?;
            sockopt::socket_error(&fd)??;
        }
        Err(error) => return Err(error.into()),
    }
    // A request is written in one piece; waiting for more would only delay it.
    sockopt::set_tcp_nodelay(&fd, true)?;
    Ok(TcpStream::from(fd))
}

impl Wire for UnixStream {
    fn read(&mut self, into: &mut [u8], by: Deadline) -> io::Result<usize> {
        loop {
            match io::Read::read(self, into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.as_fd(), Want::Read, by)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8], by: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            match io::Write::write(self, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.as_fd(), Want::Write, by)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }
}

impl Wire for openssl::ssl::SslStream<TcpStream> {
    fn read(&mut self, into: &mut [u8], by: Deadline) -> io::Result<usize> {
        use openssl::ssl::ErrorCode;
        loop {
            let error = match self.ssl_read(into) {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            match error.code() {
                ErrorCode::WANT_READ => wait(self.get_ref().as_fd(), Want::Read, by)?,
                ErrorCode::WANT_WRITE => wait(self.get_ref().as_fd(), Want::Write, by)?,
                ErrorCode::ZERO_RETURN => return Ok(0),
                // The peer closed without a closing alert. The framing of the response tells whether it is complete.
                ErrorCode::SYSCALL if error.io_error().is_none() => return Ok(0),
                _ if is_unexpected_eof(&error) => return Ok(0),
                _ => return Err(into_io(error)),
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8], by: Deadline) -> io::Result<()> {
        use openssl::ssl::ErrorCode;
        while !bytes.is_empty() {
            let error = match self.ssl_write(bytes) {
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) => error,
            };
            match error.code() {
                ErrorCode::WANT_READ => wait(self.get_ref().as_fd(), Want::Read, by)?,
                ErrorCode::WANT_WRITE => wait(self.get_ref().as_fd(), Want::Write, by)?,
                ErrorCode::ZERO_RETURN => return Err(io::ErrorKind::ConnectionAborted.into()),
                ErrorCode::SYSCALL if error.io_error().is_none() => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                _ => return Err(into_io(error)),
            }
        }
        Ok(())
    }
}

/// OpenSSL 3 reports a close without closing alert as a protocol error of this reason (`SSL_R_UNEXPECTED_EOF_WHILE_READING`).
fn is_unexpected_eof(error: &openssl::ssl::Error) -> bool {
    const UNEXPECTED_EOF_WHILE_READING: i32 = 294;
    error.ssl_error().is_some_and(|stack| {
        stack
            .errors()
            .iter()
            .any(|e| e.reason_code() == UNEXPECTED_EOF_WHILE_READING)
    })
}

fn into_io(error: openssl::ssl::Error) -> io::Error {
    error.into_io_error().unwrap_or_else(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_silent_peer_costs_no_more_than_the_deadline() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let started = Instant::now();
        let error = Wire::read(
            &mut ours,
            &mut [0; 8],
            Deadline::after(Duration::from_millis(50)),
        )
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_peer_that_takes_nothing_ends_a_write() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let big = vec![0; 8 << 20];
        let error = Wire::write_all(&mut ours, &big, Deadline::after(Duration::from_millis(50)))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_full_backlog_is_waited_for_and_then_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&fd, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&fd, 0).unwrap();
        let listener = UnixListener::from(fd);
        let _first = connect_unix(&path, Deadline::after(Duration::from_secs(5))).unwrap();
        let error = connect_unix(&path, Deadline::after(Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waiting = std::thread::spawn(move || {
            connect_unix(&path, Deadline::after(Duration::from_secs(5))).map(drop)
        });
        drop(listener.accept().unwrap());
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let whole = Deadline::after(Duration::from_secs(10));
        assert!(whole.within(Duration::from_secs(1)) < whole);
        assert_eq!(whole.within(Duration::from_secs(100)), whole);
        assert!(Deadline::after(Duration::ZERO).remaining().is_none());
        assert!(Deadline::after(Duration::MAX).remaining().is_some());
    }
}
