//! `system reprovision`: asks the Identity Service to provision the device again.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aziot_core::http::response::{Limits, ResponseParser};
use aziot_core::http::write::RequestHead;
use aziot_core::retry::{Attempt, Attempts, Failure as AttemptFailure, GaveUp, Next, Policy};
use aziot_core::{json, json_input};
use aziot_daemon::paths::Service;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::failure::Failure;
use crate::output::{complain, say};
use crate::root;

/// Time for one attempt: the service itself waits out throttling by the cloud meanwhile.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Pause before another attempt to connect to a service whose queue of connections is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(100);

const BODY: &str = r#"{"type":"aziot"}"#;

json_input! {
    /// Body of an error response.
    struct ErrorBody<'a> {
        /// What is wrong.
        message: &'a str = "message",
    }
}

/// Runs the command.
pub fn run() -> Result<(), Failure> {
    let socket = root::from_env()?.socket(Service::Identityd);
    let begun = Instant::now();
    let mut attempts = Attempts::new(Policy {
        retries: 0,
        timeout: TIMEOUT,
        total: Policy::TOTAL,
    });
    loop {
        let answer = exchange(&socket, Instant::now() + TIMEOUT).map_err(|error| {
            let what = format!("Failed to reprovision: no answer from {}", socket.display());
            Failure::caused(what, &error)
        })?;
        let ended = Attempt::Answered {
            status: answer.status,
            retry_after: None,
        };
        match attempts.after(ended, begun.elapsed(), random()) {
            Next::UseAnswer => return verdict(&answer),
            Next::GiveUp(GaveUp::Throttled | GaveUp::Failed(_)) => {
                return Err(Failure::new(
                    "Failed to reprovision: 429: Too many requests",
                ));
            }
            Next::Pause(pause) => {
                complain(format_args!("{pause}"));
                thread::sleep(pause.length);
            }
        }
    }
}

/// What came back.
struct Answer {
    status: u16,
    reason: &'static str,
    message: Option<String>,
}

fn verdict(answer: &Answer) -> Result<(), Failure> {
    if answer.status == 204 {
        say(format_args!("Successfully reprovisioned with IoT Hub."));
        return Ok(());
    }
    let Answer { status, reason, .. } = answer;
    let line = format!("Failed to reprovision: unexpected HTTP status code: {status} {reason}");
    // The service puts each cause on a line of its own.
    let causes = answer.message.iter().flat_map(|m| m.split("\ncaused by: "));
    Err(Failure::listed(line.trim_end(), causes))
}

/// Makes the request on a new connection.
fn exchange(socket: &Path, deadline: Instant) -> io::Result<Answer> {
    let mut stream = open(socket, deadline)?;
    let mut head = [0; 512];
    let request = RequestHead {
        method: "POST",
        target: &"/identities/device/reprovision?api-version=2021-12-01",
        host: "identityd.sock",
        headers: &[],
        body: Some(BODY.len()),
    };
    let length = request.write(&mut head).map_err(io::Error::other)?;
    let mut message = head.get(..length).unwrap_or_default().to_vec();
    message.extend_from_slice(BODY.as_bytes());
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&message)?;

    let mut parser = ResponseParser::new(Limits::default());
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            // Bounded by the limits of the parser.
            buffer.resize(buffer.len() * 2, 0);
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = match stream.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        };
        filled += read;
        if parser
            .advance(&mut buffer, &mut filled, read == 0)
            .map_err(io::Error::other)?
        {
            break;
        }
    }
    let response = parser
        .response(&buffer)
        .ok_or_else(|| io::Error::other("incomplete response"))?;
    let mut body = response.body.to_vec();
    let message = json::from_slice::<ErrorBody<'_>>(&mut body)
        .ok()
        .map(|body| body.message.to_owned());
    Ok(Answer {
        status: response.status.0,
        reason: response.status.reason().unwrap_or(""),
        message,
    })
}

/// Connects, also to a service that is slow to accept connections.
fn open(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    loop {
        // A blocking connect would wait without limit while the queue is full.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(rustix::io::Errno::AGAIN) => thread::sleep(QUEUE_FULL_PAUSE.min(left(deadline)?)),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Time left, more than none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(timed_out())
    } else {
        Ok(left)
    }
}

fn timed_out() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        AttemptFailure::TimedOut.to_string(),
    )
}

/// A random number for the jitter; where there is none, the middle.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => u32::MAX / 2,
    }
}
