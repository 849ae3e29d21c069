//! Acting as other users. Peer credentials are those of the thread that connects, so one thread changes its own and connects.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Whether the tests may become other users. As root they can; for anyone else this says so in the test's output, and the
/// caller does what is possible without. In continuous integration that is a failure.
///
/// # Panics
/// When `CI` is set and the tests do not run as root.
#[must_use]
pub fn can_change(what: &str) -> bool {
    if effective() == 0 {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{what} needs several users: run the tests as root"
    );
    println!("NOTE: not run as root, so {what} is tested with one user only");
    false
}

/// The user the tests run as.
#[must_use]
pub fn effective() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// What the Keys Service's configuration needs for the user the tests run as: nothing for root, who may use every key; a
/// principal for anyone else, which has to spell out the key that signs handles.
#[must_use]
pub fn principal() -> String {
    match effective() {
        0 => String::new(),
        uid => format!("[[principal]]\nuid = {uid}\nkeys = [\"*\", \"handle-validation-key\"]\n"),
    }
}

/// Connects as another user (with the group of the tests). Only root can.
///
/// # Errors
/// Whatever the kernel reports about the change or the connection.
pub fn connect_as(uid: u32, socket: &Path) -> io::Result<UnixStream> {
    let socket = socket.to_owned();
    let thread = std::thread::spawn(move || {
        // SAFETY: the raw call changes the effective user of this thread alone (the C library's wrapper would change all
        // threads); the thread ends after connecting.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        UnixStream::connect(socket)
    });
    thread
        .join()
        .map_err(|_| io::Error::other("the connecting thread panicked"))?
}
