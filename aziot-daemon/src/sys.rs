//! The few kernel interfaces that neither std nor rustix offers in the form needed here.
//!
//! All `unsafe` of the event loop is in this file.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Who is at the other end of a Unix socket, as of its `connect` (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Process id; 0 when the peer lives in a pid namespace that this process cannot see.
    pub pid: i32,
}

/// Reads the credentials of the peer of a connected Unix socket.
///
/// # Errors
/// Whatever `getsockopt` reports, `ENOTSOCK` for example.
pub fn peer(socket: &impl AsRawFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers refer to live locals of the sizes given.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        uid: credentials.uid,
        pid: credentials.pid,
    })
}

/// The signals the daemon reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM or SIGINT: finish what runs, then end.
    Stop,
}

/// A descriptor from which the blocked signals SIGTERM, SIGINT and SIGHUP are read (signalfd(2)).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the three signals, unless that has been done, and opens the descriptor.
    ///
    /// # Errors
    /// Whatever the kernel reports.
    pub fn new() -> io::Result<Self> {
        let set = Self::block()?;
        // SAFETY: the set lives until the call returns.
        unsafe {
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Blocks the three signals in this thread, and thereby in all threads that it starts later: to be done before anything
    /// may start one. A signal that comes in meanwhile waits until it is read.
    ///
    /// # Errors
    /// Whatever the kernel reports.
    pub fn block() -> io::Result<libc::sigset_t> {
        // SAFETY: the set is initialised by sigemptyset before use and lives for all calls.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            let rc = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if rc != 0 {
                return Err(io::Error::from_raw_os_error(rc));
            }
            Ok(set)
        }
    }

    /// The next pending signal.
    ///
    /// # Errors
    /// Whatever `read` reports, except that no pending signal is `Ok(None)`.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
            let read = match rustix::io::read(&self.0, &mut buffer) {
                Ok(read) => read,
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            // `ssi_signo` is the first member of the structure, 32 bits in native order.
            let (Some(first), true) = (buffer.first_chunk::<4>(), read == buffer.len()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match i32::from_ne_bytes(*first) {
                libc::SIGHUP => return Ok(Some(Signal::Reload)),
                libc::SIGTERM | libc::SIGINT => return Ok(Some(Signal::Stop)),
                _ => {}
            }
        }
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Lets malloc use one arena only: worker threads then share the memory of the main thread instead of reserving 64 MiB of
/// address space and some 30 kB of resident memory each.
pub fn use_one_malloc_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory that malloc holds free back to the system, for use after rare work that needed much.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim is safe to call at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes ownership of a descriptor that the environment passed to this process, such as an activated socket.
///
/// The caller states that nothing else in the process owns the number; a wrong number yields errors on use, no undefined
/// behaviour in safe code of this crate, because it is checked to be open first.
///
/// # Errors
/// `EBADF` when the descriptor is not open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD on any number is harmless.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and inherited descriptors above 2 belong to nobody else in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets `FD_CLOEXEC` on a descriptor number.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn set_close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl with F_SETFD takes an integer and has no memory effects.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Duplicates a descriptor with `FD_CLOEXEC` set.
///
/// # Errors
/// Whatever `fcntl` reports, `EBADF` for any number that is no open descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the kernel checks the number; what it returns is new and nobody else's.
    unsafe {
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
        if copy < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(copy))
        }
    }
}

/// Runs `work` under the file creation mask `mask` and restores the mask.
///
/// The mask belongs to the process: to be used before other threads exist.
pub fn with_umask<T>(mask: u32, work: impl FnOnce() -> T) -> T {
    // SAFETY: umask cannot fail and touches no memory.
    let old = unsafe { libc::umask(mask as libc::mode_t) };
    let result = work();
    // SAFETY: as above.
    unsafe { libc::umask(old) };
    result
}
