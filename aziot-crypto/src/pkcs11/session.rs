//! Sessions of a token, and what its holders share.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use cryptoki::error::RvError;
use cryptoki::session::Session;

use super::error::{Cause, Severity};
use super::module::{Loaded, Timing, lock, value_of};
use super::objects::{Changes, Handles};
use super::selector::{Found, Selector};
use super::token::{Condition, Token};

/// A session taken out of the pool. Goes back when dropped.
pub(super) struct Lease<'a> {
    shared: &'a Shared,
    session: Option<Session>,
}

impl Lease<'_> {
    pub(super) fn session(&self) -> Result<&Session, Cause> {
        self.session.as_ref().ok_or(Cause::Malformed("session"))
    }

    /// Does not give the session back; closes it, unless it is gone anyway and its handle may be somebody else's by now.
    pub(super) fn discard(mut self, close: bool) {
        if let Some(session) = self.session.take() {
            if close {
                close_session(session);
            }
            lock(&self.shared.state).open -= 1;
            self.shared.freed.notify_one();
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            lock(&self.shared.state).idle.push(session);
            self.shared.freed.notify_one();
        }
    }
}

impl Token {
    /// A free session, a new one, or one that somebody gives back in time.
    pub(super) fn lease(&self, library: &Loaded<'_>) -> Result<Lease<'_>, Cause> {
        let shared = self.shared();
        let wait = self.timing().session_wait;
        let deadline = Instant::now() + wait;
        let mut state = lock(&shared.state);
        loop {
            if let Some(session) = state.idle.pop() {
                return Ok(Lease {
                    shared,
                    session: Some(session),
                });
            }
            if state.open < state.max.unwrap_or(Timing::MAX_SESSIONS) {
                state.open += 1;
                drop(state);
                match self.open(library) {
                    Ok(session) => {
                        return Ok(Lease {
                            shared,
                            session: Some(session),
                        });
                    }
                    Err(cause) => {
                        state = lock(&shared.state);
                        state.open -= 1;
                        shared.freed.notify_one();
                        let full = matches!(
                            cause,
                            Cause::Call {
                                value: RvError::SessionCount,
                                ..
                            }
                        );
                        if !full || state.open == 0 {
                            return Err(cause);
                        }
                        // The token has no more than these for us.
                        state.max = Some(state.open);
                        continue;
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Cause::Busy(wait));
            }
            state = shared
                .freed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn open(&self, library: &Loaded<'_>) -> Result<Session, Cause> {
        let context = library.context()?;
        let known = lock(&self.shared().state)
            .found
            .as_ref()
            .map(|found| found.slot);
        let slot = match known {
            Some(slot) => slot,
            None => {
                let found = self.shared().selector.find(context)?;
                let slot = found.slot;
                let mut state = lock(&self.shared().state);
                state.found = Some(found);
                state.verified = Some(Instant::now());
                slot
            }
        };
        // Closed by us or by C_Finalize, never by going out of scope: by then the handle may be another session's.
        Ok(context.open_rw_session_no_drop(slot)?)
    }
}

fn close_session(session: Session) {
    if let Err(err) = session.close() {
        log::debug!("C_CloseSession returned {}", value_of(err));
    }
}

/// What all holders of a token share.
pub(super) struct Shared {
    selector: Selector,
    state: Mutex<State>,
    freed: Condvar,
    handles: Handles,
    changes: Changes,
}

/// What changes about a token.
pub(super) struct State {
    pub(super) found: Option<Found>,
    /// When the token was last seen where it was found.
    pub(super) verified: Option<Instant>,
    idle: Vec<Session>,
    /// Sessions that are idle or in use.
    pub(super) open: usize,
    /// As many as the token gives us, if that is less than we would like.
    max: Option<usize>,
    pub(super) condition: Condition,
    pub(super) since: SystemTime,
}

impl Shared {
    pub(super) fn new(selector: Selector) -> Self {
        Self {
            selector,
            state: Mutex::new(State {
                found: None,
                verified: None,
                idle: Vec::new(),
                open: 0,
                max: None,
                condition: Condition::Unused,
                since: SystemTime::now(),
            }),
            freed: Condvar::new(),
            handles: Handles::default(),
            changes: Changes::default(),
        }
    }

    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }

    pub(super) fn state(&self) -> &Mutex<State> {
        &self.state
    }

    pub(super) fn handles(&self) -> &Handles {
        &self.handles
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The module is about to be finalised: sessions are not closed one by one.
    pub(super) fn forget(&self) {
        let mut state = lock(&self.state);
        state.open -= state.idle.len();
        state.idle.clear();
        state.found = None;
        state.verified = None;
        state.max = None;
        drop(state);
        self.handles.clear();
    }

    pub(super) fn forget_after(&self, severity: Severity) {
        if severity == Severity::Ordinary {
            return;
        }
        self.handles.clear();
        if !severity.closes_sessions() {
            return;
        }
        let mut state = lock(&self.state);
        // Before a new session gets the number of one of these.
        while let Some(session) = state.idle.pop() {
            state.open -= 1;
            close_session(session);
        }
        state.found = None;
        state.verified = None;
        state.max = None;
        drop(state);
        self.freed.notify_all();
    }

    pub(super) fn note(&self, condition: Condition) {
        let mut state = lock(&self.state);
        if state.condition == condition {
            return;
        }
        let same_kind =
            core::mem::discriminant(&state.condition) == core::mem::discriminant(&condition);
        if !same_kind {
            if let (Condition::Failing(_), Condition::Working) = (&state.condition, &condition) {
                log::info!("PKCS#11 token {} works again", self.selector);
            }
            state.since = SystemTime::now();
        }
        state.condition = condition;
    }
}
