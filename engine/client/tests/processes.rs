//! One client in many threads, in a forked child, and among signals.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "fork, signals; a step that fails, fails the test"
)]

mod support;

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use aziot_keys_client::transport::Kind;
use aziot_keys_client::{Client, Deadlines, Error, default_socket};
use support::{LONG, Service, client, hang_on, json, place, request};

fn answer(id: &str) -> Vec<u8> {
    json("200 OK", &format!("{{\"keyHandle\":\"handle of {id}\"}}")).into_bytes()
}

/// The id in a request to load a key.
fn id(request: &[u8]) -> String {
    let text = std::str::from_utf8(request).unwrap();
    let rest = text.strip_prefix("GET /key/").unwrap();
    rest[..rest.find('?').unwrap()].to_owned()
}

#[test]
fn eight_threads_and_one_client() {
    const THREADS: usize = 8;
    const CALLS: usize = 200;
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let serving: Vec<_> = (0..THREADS)
        .map(|_| {
            let listener = listener.try_clone().unwrap();
            std::thread::spawn(move || {
                for _ in 0..CALLS {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.set_read_timeout(Some(LONG)).unwrap();
                    let id = id(&request(&mut stream));
                    stream.write_all(&answer(&id)).unwrap();
                }
            })
        })
        .collect();
    let keys = client(&path, Deadlines::all(LONG));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let keys = &keys;
            scope.spawn(move || {
                for call in 0..CALLS {
                    let id = format!("{thread}-{call}");
                    let handle = keys.load_key(&id).unwrap();
                    assert_eq!(handle.as_str(), format!("handle of {id}"));
                }
            });
        }
    });
    for thread in serving {
        thread.join().unwrap();
    }
}

/// Runs `act` in a forked child, which must answer `true`. It must not panic, because that would lock what another thread
/// may have locked at the fork.
fn in_child(act: impl FnOnce() -> bool) {
    // SAFETY: the child only calls `act`, whose allocations the C library makes safe after a fork, and ends without running
    // destructors or handlers.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = i32::from(!act());
        // SAFETY: no more than ending the process.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, and a place for its status.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    assert!(
        libc::WIFEXITED(status),
        "the child died of signal {}",
        libc::WTERMSIG(status)
    );
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child had no success");
}

fn loads(keys: &Client, id: &str) -> bool {
    matches!(keys.load_key(id), Ok(handle) if handle.as_str() == format!("handle of {id}"))
}

#[test]
fn a_forked_child_and_its_parent_do_not_disturb_each_other() {
    let (asked, parent_asked) = mpsc::channel();
    let mut parent = None;
    let service = Service::new(4, move |number, mut stream| {
        let id = id(&request(&mut stream));
        if number == 0 {
            // It is answered after the child has had its turn.
            parent = Some((stream, id));
            asked.send(()).unwrap();
            return;
        }
        stream.write_all(&answer(&id)).unwrap();
        if number == 2 {
            let (mut stream, id) = parent.take().unwrap();
            stream.write_all(&answer(&id)).unwrap();
            hang_on(stream);
        }
    });
    let keys = service.client();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| loads(&keys, "parent"));
        parent_asked.recv_timeout(LONG).unwrap();
        in_child(|| loads(&keys, "child") && loads(&keys, "child-2"));
        assert!(waiting.join().unwrap());
    });
    assert!(loads(&keys, "parent-2"));
    service.end();
}

#[test]
fn a_connection_that_breaks_raises_no_signal() {
    // Long enough that the rest of it meets a closed connection.
    let long = "x".repeat(1 << 20);
    let service = Service::new(8, |_, stream| drop(stream));
    let keys = service.client();
    in_child(|| {
        // SAFETY: the child has one thread. Rust ignores the signal; programs in other languages do not.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let closed = |result: Result<_, Error>| matches!(result, Err(Error::Transport(error)) if error.kind() == (Kind::Closed { answered: false }));
        closed(keys.load_key("k").map(drop)) && closed(keys.move_key_pair(&long, "b"))
    });
    service.end();
}

#[test]
fn signals_interrupt_nothing() {
    extern "C" fn handler(_: libc::c_int) {}
    let service = Service::new(5, |_, mut stream| {
        let id = id(&request(&mut stream));
        for byte in answer(&id).chunks(40) {
            std::thread::sleep(std::time::Duration::from_millis(10));
            stream.write_all(byte).unwrap();
        }
        hang_on(stream);
    });
    let keys = service.client();
    in_child(|| {
        // SAFETY: the structures are zeroed, which is valid for them, and passed for the time of the call. The handler does
        // nothing, and system calls are not restarted after it.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            if libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) != 0 {
                return false;
            }
            let often = libc::timeval {
                tv_sec: 0,
                tv_usec: 500,
            };
            let timer = libc::itimerval {
                it_interval: often,
                it_value: often,
            };
            if libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) != 0 {
                return false;
            }
        }
        (0..5).all(|number| loads(&keys, &number.to_string()))
    });
    service.end();
}

#[test]
fn the_default_socket_follows_the_environment() {
    in_child(|| {
        let set = |value: &std::ffi::CStr| {
            // SAFETY: the child has one thread; name and value are NUL-terminated.
            unsafe { libc::setenv(c"AZIOT_ROOT".as_ptr(), value.as_ptr(), 1) == 0 }
        };
        let is = |expected: &str| {
            default_socket().is_ok_and(|path| path == std::path::Path::new(expected))
        };
        set(c"/tmp/root")
            && is("/tmp/root/run/aziot/keyd.sock")
            && set(c"")
            && is("/run/aziot/keyd.sock")
            && set(c"relative")
            && default_socket().is_err()
    });
}
