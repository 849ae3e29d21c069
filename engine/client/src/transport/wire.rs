//! Connections with deadlines: every connect, read and write of a client ends by a given point in time.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
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

    /// Writes all of `bytes`, with pauses of at most `silence` in which the peer takes nothing.
    ///
    /// # Errors
    /// `TimedOut` when the peer did not take them in time, and whatever the connection reports.
    fn write_all(&mut self, bytes: &[u8], by: Deadline, silence: Duration) -> io::Result<()>;

    /// Whether a reset or broken pipe before any response proves that the peer did not read the whole request.
    fn breaks_only_unread(&self) -> bool {
        false
    }
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Bytes to read, or the end of the stream.
    Read,
    /// Room to write, or a connection that has been made.
    Write,
}

/// Waits until the descriptor is ready, or has failed: the next operation on it tells.
///
/// # Errors
/// `TimedOut` when the deadline passes first, and whatever `poll(2)` reports.
pub fn wait(fd: BorrowedFd<'_>, want: Want, by: Deadline) -> io::Result<()> {
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

/// Connects to a Unix socket. The stream is non-blocking, and closed in programs that are executed.
///
/// # Errors
/// `TimedOut` when the listener's backlog stays full, `InvalidInput` for a path longer than a socket's can be, and whatever
/// `connect(2)` reports.
pub fn connect_unix(path: &Path, by: Deadline) -> io::Result<UnixStream> {
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

/// The calls are made directly, because the process may be any program: a broken pipe must not raise `SIGPIPE` in it.
impl Wire for UnixStream {
    fn read(&mut self, into: &mut [u8], by: Deadline) -> io::Result<usize> {
        loop {
            match recv(&*self, &mut *into, RecvFlags::empty()) {
                Ok((read, _)) => return Ok(read),
                Err(Errno::AGAIN) => wait(self.as_fd(), Want::Read, by)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8], by: Deadline, silence: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(&*self, bytes, SendFlags::NOSIGNAL) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(Errno::AGAIN) => wait(self.as_fd(), Want::Write, by.within(silence))?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Linux resets a Unix socket whose peer was closed before it had read, or even accepted, everything (unix(7) leaves
    /// this out); a peer that had read everything gives the end of the stream.
    fn breaks_only_unread(&self) -> bool {
        true
    }
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
        let whole = Deadline::after(Duration::from_secs(60));
        let error = ours
            .write_all(&big, whole, Duration::from_millis(50))
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
    fn descriptors_do_not_outlive_exec() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let stream = connect_unix(&path, Deadline::after(Duration::from_secs(5))).unwrap();
        let flags = rustix::io::fcntl_getfd(&stream).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    /// What [`Wire::breaks_only_unread`] says of Unix sockets is so in this kernel.
    #[test]
    fn a_reset_proves_that_something_was_not_read() {
        let by = Deadline::after(Duration::from_secs(60));
        let end = |act: &dyn Fn(UnixStream)| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            ours.write_all(b"request", by, Duration::from_secs(60))
                .unwrap();
            act(theirs);
            Wire::read(&mut ours, &mut [0; 8], by).map_err(|error| error.kind())
        };
        let read = |stream: &mut UnixStream, length| {
            io::Read::read_exact(stream, &mut vec![0; length]).unwrap();
        };
        assert_eq!(end(&drop), Err(io::ErrorKind::ConnectionReset));
        assert_eq!(
            end(&|mut theirs| read(&mut theirs, 6)),
            Err(io::ErrorKind::ConnectionReset)
        );
        assert_eq!(end(&|mut theirs| read(&mut theirs, 7)), Ok(0));
        // What was answered comes first, whatever was read.
        let answered = end(&|mut theirs| {
            io::Write::write_all(&mut theirs, b"no").unwrap();
        });
        assert_eq!(answered, Ok(2));
        // A connection that was not accepted.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut ours = connect_unix(&path, by).unwrap();
        ours.write_all(b"request", by, Duration::from_secs(60))
            .unwrap();
        drop(listener);
        let error = Wire::read(&mut ours, &mut [0; 8], by).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
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
