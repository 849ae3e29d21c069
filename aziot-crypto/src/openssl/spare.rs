//! Contexts that survive an operation.

use std::sync::Mutex;

/// Keeps one value between uses, so that not every use has to make one. Never waits.
pub(super) struct Spare<T>(Mutex<Option<T>>);

impl<T> Spare<T> {
    /// Keeps nothing yet.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Takes the value, if there is one and nobody else has it.
    pub(super) fn take(&self) -> Option<T> {
        self.0.try_lock().ok()?.take()
    }

    /// Leaves a value for the next use. One that failed is not left, because nobody knows its state.
    pub(super) fn leave(&self, value: T) {
        let surplus = match self.0.try_lock() {
            Ok(mut kept) => kept.replace(value),
            Err(_) => Some(value),
        };
        // After the lock is given back.
        drop(surplus);
    }
}
