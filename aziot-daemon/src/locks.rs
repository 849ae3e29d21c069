//! One writer at a time per name: a module identity, a certificate.
//!
//! The event loop only ever tries a lock and keeps the request when it is taken; a job may wait for one. Different names do
//! not wait for each other.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The names that somebody is writing.
#[derive(Debug, Default)]
pub struct Locks {
    held: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// A name locked for writing, until dropped.
#[derive(Debug)]
#[must_use]
pub struct Guard {
    locks: Arc<Locks>,
    name: String,
}

impl Locks {
    /// Locks `name` if nobody has it.
    pub fn try_lock(self: &Arc<Self>, name: &str) -> Option<Guard> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains(name) {
            return None;
        }
        held.insert(name.to_owned());
        Some(Guard {
            locks: Arc::clone(self),
            name: name.to_owned(),
        })
    }

    /// Locks `name`, waiting at most `limit` for whoever has it. For jobs only.
    pub fn lock(self: &Arc<Self>, name: &str, limit: Duration) -> Option<Guard> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut held, _) = self
            .freed
            .wait_timeout_while(held, limit, |held| held.contains(name))
            .unwrap_or_else(PoisonError::into_inner);
        if held.contains(name) {
            return None;
        }
        held.insert(name.to_owned());
        Some(Guard {
            locks: Arc::clone(self),
            name: name.to_owned(),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.locks
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_per_name_and_none_in_the_way_of_others() {
        let locks = Arc::new(Locks::default());
        let first = locks.try_lock("a").unwrap();
        assert!(locks.try_lock("a").is_none());
        assert!(locks.lock("a", Duration::from_millis(10)).is_none());
        let other = locks.try_lock("b").unwrap();
        drop(first);
        assert!(locks.try_lock("a").is_some());
        drop(other);
    }

    #[test]
    fn a_job_gets_the_lock_when_it_is_freed() {
        let locks = Arc::new(Locks::default());
        let first = locks.try_lock("a").unwrap();
        let waiting = {
            let locks = Arc::clone(&locks);
            std::thread::spawn(move || locks.lock("a", Duration::from_secs(10)).is_some())
        };
        drop(first);
        assert!(waiting.join().unwrap());
    }
}
