//! TCP and TLS as the exchange of requests and responses needs them: with deadlines.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aziot_keys_client::transport::{Deadline, Want, Wire, wait};
use openssl::ssl::{ErrorCode, SslStream};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

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

/// The way to a server: a TCP connection, or a tunnel in one that has TLS to a proxy. Never blocks.
pub(super) enum Path {
    Tcp(TcpStream),
    Proxy(Box<SslStream<TcpStream>>),
}

impl AsFd for Path {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Proxy(stream) => stream.get_ref().as_fd(),
        }
    }
}

impl Read for Path {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Proxy(stream) => stream.read(into),
        }
    }
}

impl Write for Path {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Proxy(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Proxy(stream) => stream.flush(),
        }
    }
}

impl Wire for Path {
    fn read(&mut self, into: &mut [u8], by: Deadline) -> io::Result<usize> {
        loop {
            match Read::read(self, into) {
                Err(error) => recover(self.as_fd(), Want::Read, by, error)?,
                read => return read,
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8], by: Deadline, silence: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            match Write::write(self, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) => recover(self.as_fd(), Want::Write, by.within(silence), error)?,
            }
        }
        Ok(())
    }
}

/// Waits if that is all there is to do about the error.
fn recover(fd: BorrowedFd<'_>, want: Want, by: Deadline, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => wait(fd, want, by),
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// A connection with TLS.
pub(super) struct Tls<S>(pub(super) SslStream<S>);

impl<S: Read + Write + AsFd> Wire for Tls<S> {
    fn read(&mut self, into: &mut [u8], by: Deadline) -> io::Result<usize> {
        loop {
            let error = match self.0.ssl_read(into) {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            match error.code() {
                ErrorCode::WANT_READ => wait(self.0.get_ref().as_fd(), Want::Read, by)?,
                ErrorCode::WANT_WRITE => wait(self.0.get_ref().as_fd(), Want::Write, by)?,
                ErrorCode::ZERO_RETURN => return Ok(0),
                // The peer closed without a closing alert. The framing of the response tells whether it is complete.
                ErrorCode::SYSCALL if error.io_error().is_none() => return Ok(0),
                _ if is_unexpected_eof(&error) => return Ok(0),
                _ => return Err(into_io(error)),
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8], by: Deadline, silence: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            let by = by.within(silence);
            let error = match self.0.ssl_write(bytes) {
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) => error,
            };
            match error.code() {
                ErrorCode::WANT_READ => wait(self.0.get_ref().as_fd(), Want::Read, by)?,
                ErrorCode::WANT_WRITE => wait(self.0.get_ref().as_fd(), Want::Write, by)?,
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
