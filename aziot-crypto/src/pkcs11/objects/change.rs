//! Order among changes of objects.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::super::error::Cause;
use super::super::module::lock;
use super::super::token::Token;
use super::sweep;

/// Who changes objects of a token, and what was learnt from it.
#[derive(Default)]
pub(in super::super) struct Changes {
    /// Whether what crashed processes left has been dealt with. Read by a change as long as it lasts.
    swept: RwLock<bool>,
    /// Labels that are being changed.
    busy: Mutex<BTreeSet<String>>,
    done: Condvar,
    /// The token refuses attributes beyond those that release 1.6.0 sets.
    plain_templates: AtomicBool,
}

impl Changes {
    pub(super) fn wants_plain_templates(&self) -> bool {
        self.plain_templates.load(Ordering::Relaxed)
    }

    pub(super) fn use_plain_templates(&self) {
        self.plain_templates.store(true, Ordering::Relaxed);
    }
}

/// The right to change the objects with some labels, alone.
pub(super) struct Change<'a> {
    changes: &'a Changes,
    labels: Vec<String>,
    /// Nobody sweeps while something is unfinished on purpose.
    _swept: RwLockReadGuard<'a, bool>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut busy = lock(&self.changes.busy);
        for label in &self.labels {
            busy.remove(label);
        }
        self.changes.done.notify_all();
    }
}

impl Token {
    /// Waits until nobody else changes objects with these labels.
    ///
    /// # Errors
    ///
    /// One of the labels is of the kind that we use for objects in between.
    pub(super) fn change(&self, labels: &[Option<&str>]) -> Result<Change<'_>, Cause> {
        let labels: Vec<String> = labels
            .iter()
            .map(|label| label.unwrap_or_default().to_owned())
            .collect();
        if labels.iter().any(|label| sweep::is_reserved(label)) {
            return Err(Cause::ReservedLabel);
        }
        self.sweep_once();
        let changes = self.changes();
        let swept = changes.swept.read().unwrap_or_else(PoisonError::into_inner);
        let mut busy = lock(&changes.busy);
        while labels.iter().any(|label| busy.contains(label)) {
            busy = changes
                .done
                .wait(busy)
                .unwrap_or_else(PoisonError::into_inner);
        }
        busy.extend(labels.iter().cloned());
        drop(busy);
        Ok(Change {
            changes,
            labels,
            _swept: swept,
        })
    }

    /// Deals with what crashed processes left, once; whether that was now. A failure is no reason not to go on: what is
    /// there is ignored, and the token will fail again if it is broken.
    pub(super) fn sweep_once(&self) -> bool {
        let changes = self.changes();
        if *changes.swept.read().unwrap_or_else(PoisonError::into_inner) {
            return false;
        }
        let mut swept = changes
            .swept
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *swept {
            return false;
        }
        match self.sweep() {
            Ok(()) => *swept = true,
            Err(cause) => {
                log::debug!(
                    "could not look for unfinished changes: {}",
                    self.error(cause)
                );
            }
        }
        *swept
    }

    /// Something could not be cleaned up: the next change looks for it.
    pub(super) fn sweep_again(&self, change: Change<'_>) {
        drop(change);
        *self
            .changes()
            .swept
            .write()
            .unwrap_or_else(PoisonError::into_inner) = false;
    }
}
