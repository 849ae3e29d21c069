//! The key handle of the device identity, fetched from the Keys Service and reused for at most a second.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::service::RequestId;

/// The handle, and who waits for it.
#[derive(Debug, Default)]
pub struct DeviceHandle {
    known: Option<(Zeroizing<String>, Instant)>,
    /// The look-up under way.
    fetching: Option<u64>,
    serial: u64,
    waiting: Vec<RequestId>,
}

impl DeviceHandle {
    /// The handle, if it was asked for no more than `limit` before `now`.
    #[must_use]
    pub fn fresh(&self, now: Instant, limit: Duration) -> Option<&str> {
        let (handle, asked) = self.known.as_ref()?;
        (now.saturating_duration_since(*asked) <= limit).then_some(handle)
    }

    /// The handle, however old. For requests that were there before it was asked for.
    #[must_use]
    pub fn latest(&self) -> Option<&str> {
        self.known.as_ref().map(|(handle, _)| handle.as_str())
    }

    /// Whether it is time to fetch it again, so that busy times never wait for it.
    #[must_use]
    pub fn is_aging(&self, now: Instant, limit: Duration) -> bool {
        self.fetching.is_none()
            && self
                .known
                .as_ref()
                .is_none_or(|(_, asked)| now.saturating_duration_since(*asked) > limit / 2)
    }

    /// Has a request wait for the handle.
    pub fn wait(&mut self, id: RequestId) {
        self.waiting.push(id);
    }

    /// Begins a look-up; `None` if one is under way.
    pub fn begin(&mut self) -> Option<u64> {
        if self.fetching.is_some() {
            return None;
        }
        self.serial = self.serial.wrapping_add(1);
        self.fetching = Some(self.serial);
        self.fetching
    }

    /// Takes in the result of a look-up. `false` if it is of a device that is no more.
    pub fn end(&mut self, serial: u64, asked: Instant, handle: Option<Zeroizing<String>>) -> bool {
        if self.fetching != Some(serial) {
            return false;
        }
        self.fetching = None;
        self.known = handle.map(|handle| (handle, asked));
        true
    }

    /// The requests that waited.
    pub fn take_waiting(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.waiting)
    }

    /// Forgets the handle: there is another device. A look-up under way does not count any more.
    pub fn forget(&mut self) {
        self.known = None;
        self.fetching = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn a_handle_is_never_reused_for_longer_than_the_limit() {
        let mut handle = DeviceHandle::default();
        let asked = Instant::now();
        assert!(handle.is_aging(asked, LIMIT));
        let serial = handle.begin().unwrap();
        assert!(handle.begin().is_none(), "one look-up at a time");
        assert!(!handle.is_aging(asked, LIMIT));
        assert!(handle.end(serial, asked, Some(Zeroizing::new("h".to_owned()))));
        assert_eq!(handle.fresh(asked, LIMIT), Some("h"));
        assert!(!handle.is_aging(asked + LIMIT / 2, LIMIT));
        assert!(handle.is_aging(asked + LIMIT / 2 + Duration::from_millis(1), LIMIT));
        assert_eq!(handle.fresh(asked + LIMIT, LIMIT), Some("h"));
        assert_eq!(
            handle.fresh(asked + LIMIT + Duration::from_nanos(1), LIMIT),
            None
        );
    }

    #[test]
    fn a_result_for_another_device_is_dropped() {
        let mut handle = DeviceHandle::default();
        let serial = handle.begin().unwrap();
        handle.forget();
        assert!(!handle.end(
            serial,
            Instant::now(),
            Some(Zeroizing::new("old".to_owned()))
        ));
        assert_eq!(handle.fresh(Instant::now(), LIMIT), None);
        let next = handle.begin().unwrap();
        assert_ne!(next, serial);
    }
}
