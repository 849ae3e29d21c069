//! Name resolution with a deadline.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};

use aziot_keys_client::transport::Deadline;

/// Look-ups under way at once. `getaddrinfo` cannot be interrupted, so one that outlives its deadline goes on in its own
/// thread; with a resolver that never answers these must not pile up. Who needs one more waits for the end of another.
const MAX_LOOKUPS: usize = 4;

/// Stack of a look-up thread; name service modules are foreign code.
const STACK: usize = 256 * 1024;

static LOOKUPS: Mutex<usize> = Mutex::new(0);

static ENDED: Condvar = Condvar::new();

/// All addresses of a host, in the order of RFC 6724 as the system sorts them. `host` may be an address itself, an IPv6
/// one without brackets.
///
/// # Errors
/// `TimedOut` when the resolver did not answer in time, `WouldBlock` when too many earlier look-ups have hung for all of it,
/// and whatever the resolver reports.
pub(super) fn resolve(host: &str, port: u16, by: Deadline) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let Some(slot) = Slot::take(by) else {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "earlier look-ups still wait for the name server; check /etc/resolv.conf",
        ));
    };
    let (send, receive) = mpsc::sync_channel(1);
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("aziot-resolve".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let result = (name.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect);
            drop(slot);
            // The caller may have given up.
            let _ = send.send(result);
        })?;
    let Some(left) = by.remaining() else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    let addresses: Vec<SocketAddr> = receive
        .recv_timeout(left)
        .map_err(|_| io::ErrorKind::TimedOut)??;
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

/// A place among the look-ups under way.
struct Slot;

impl Slot {
    /// As soon as there is one; none if there is none in time.
    fn take(by: Deadline) -> Option<Self> {
        let left = by.remaining().unwrap_or_default();
        let lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut lookups, _) = ENDED
            .wait_timeout_while(lookups, left, |lookups| *lookups >= MAX_LOOKUPS)
            .unwrap_or_else(PoisonError::into_inner);
        if *lookups >= MAX_LOOKUPS {
            return None;
        }
        *lookups += 1;
        Some(Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn literals_need_no_resolver() {
        let by = Deadline::after(Duration::from_secs(5));
        for (host, wanted) in [("127.0.0.1", "127.0.0.1:8443"), ("::1", "[::1]:8443")] {
            assert_eq!(
                resolve(host, 8443, by).unwrap(),
                [wanted.parse().unwrap()],
                "{host}"
            );
        }
    }

    #[test]
    fn names_are_looked_up() {
        let by = Deadline::after(Duration::from_secs(20));
        let addresses = resolve("localhost", 1, by).unwrap();
        assert!(
            addresses.iter().all(|a| a.ip().is_loopback()),
            "{addresses:?}"
        );
        assert!(resolve("no-such-host.invalid", 1, by).is_err());
    }

    #[test]
    fn a_look_up_waits_for_its_turn() {
        let far = Deadline::after(Duration::from_secs(20));
        let slots: Vec<Slot> = (0..MAX_LOOKUPS).map_while(|_| Slot::take(far)).collect();
        let soon = Deadline::after(Duration::from_millis(20));
        let error = resolve("localhost", 1, soon).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("/etc/resolv.conf"), "{error}");
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(slots);
        });
        resolve("localhost", 1, far).unwrap();
    }
}
