//! Operations on a token, and what happens when something they need is lost.

use core::cell::Cell;
use core::fmt;
use core::fmt::Write as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use cryptoki::session::Session;

use super::error::{Cause, Error, Severity};
use super::login::is_logged_in;
use super::module::{Loaded, Module, Timing, lock};
use super::objects::{Changes, Handles};
use super::selector::Pin;
use super::session::{Shared, State};

/// A token, found when it is first needed.
#[derive(Clone)]
pub struct Token {
    module: Module,
    shared: Arc<Shared>,
}

impl Token {
    pub(super) fn new(module: Module, shared: Arc<Shared>) -> Self {
        Self { module, shared }
    }

    /// Loads the module, finds the token and opens a session. Does not log in.
    ///
    /// # Errors
    ///
    /// The module cannot be loaded, there is no such token, or it gives no session.
    pub fn connect(&self) -> Result<(), Error> {
        self.run(Login::Not, Blame::Module, |_| Ok(()))
            .map_err(|cause| self.error(cause))
    }

    /// The URI that names the token, without PIN and object; values are percent-encoded.
    #[must_use]
    pub fn uri_without_pin(&self) -> String {
        self.shared.selector().to_string()
    }

    /// How the token is doing, by the last operation that told something about it.
    #[must_use]
    pub fn state(&self) -> TokenState {
        let state = lock(self.shared.state());
        let next_attempt = match &state.condition {
            Condition::Failing(_) => self
                .module
                .reload_allowed_in()
                .and_then(|wait| SystemTime::now().checked_add(wait)),
            Condition::Unused | Condition::Working => None,
        };
        TokenState {
            condition: state.condition.clone(),
            since: state.since,
            next_attempt,
            sessions: state.open,
        }
    }

    /// What is remembered about objects.
    pub(super) fn handles(&self) -> &Handles {
        self.shared.handles()
    }

    pub(super) fn timing(&self) -> &Timing {
        self.module.timing()
    }

    /// Who changes objects.
    pub(super) fn changes(&self) -> &Changes {
        self.shared.changes()
    }

    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether both are the same token, found in the same way and with the same PIN.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether both are in the same slot of one module, however their URIs name it. Looks both up.
    ///
    /// # Errors
    ///
    /// Those of [`Token::connect`], of either.
    pub fn shares_slot_with(&self, other: &Self) -> Result<bool, Error> {
        if self.is(other) {
            return Ok(true);
        }
        self.connect()?;
        other.connect()?;
        let slot = |token: &Self| {
            lock(token.shared.state())
                .found
                .as_ref()
                .map(|found| found.slot)
        };
        let slots = (slot(self), slot(other));
        Ok(self.module.path() == other.module.path() && slots.0.is_some() && slots.0 == slots.1)
    }

    pub(super) fn error(&self, cause: Cause) -> Error {
        Error::new(cause, self.place())
    }

    /// Carries out an operation in a session, logged in if it has to be.
    ///
    /// If what it needs is gone, it is carried out once more in a new session; if the module is broken, once more after
    /// loading it again. So it must be safe to repeat, or see to it, with [`Work::commit`], that it is not.
    pub(super) fn run<T>(
        &self,
        login: Login,
        blame: Blame,
        mut operation: impl FnMut(&Work<'_>) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let start = Instant::now();
        let (mut reopened, mut reloaded) = (false, false);
        loop {
            let library = match self.module.library() {
                Ok(library) => library,
                Err(cause) => return Err(self.failed(cause)),
            };
            let generation = library.generation();
            let fresh = library.is_newer_than(start);
            let (result, committed) = self.attempt(&library, login, &mut operation);
            let cause = match result {
                Ok(value) => {
                    self.shared.note(Condition::Working);
                    return Ok(value);
                }
                Err(cause) => cause,
            };
            let severity = cause.severity();
            self.shared.forget_after(severity);
            drop(library);
            let missing = matches!(cause, Cause::NoToken { .. });
            match severity {
                _ if committed => return Err(self.failed(cause)),
                Severity::Ordinary => return Err(self.failed(cause)),
                Severity::Fatal if blame == Blame::Data && !matches!(cause, Cause::Handles) => {
                    return Err(cause);
                }
                Severity::Fatal => {}
                _ if !reopened && !missing => {
                    log::debug!("{}: {cause}; trying again", self.place());
                    reopened = true;
                    continue;
                }
                // Some modules only look for tokens while they are initialised.
                Severity::TokenGone => {}
                _ => return Err(self.failed(cause)),
            }
            // One that was loaded for this operation would not be any better the second time.
            if reloaded || fresh {
                return Err(self.failed(cause));
            }
            reloaded = true;
            match self.module.reload(generation, &cause) {
                Ok(true) => {}
                Ok(false) => return Err(self.failed(cause)),
                Err(cause) => return Err(self.failed(cause)),
            }
        }
    }

    /// One attempt, and whether it must not be repeated.
    fn attempt<T>(
        &self,
        library: &Loaded<'_>,
        login: Login,
        operation: &mut impl FnMut(&Work<'_>) -> Result<T, Cause>,
    ) -> (Result<T, Cause>, bool) {
        let lease = match self.lease(library) {
            Ok(lease) => lease,
            Err(cause) => return (Err(cause), false),
        };
        let committed = Cell::new(false);
        let result = lease.session().and_then(|session| {
            let work = Work {
                token: self,
                session,
                generation: library.generation(),
                library,
                committed: &committed,
            };
            if login == Login::IfPossible {
                work.log_in()?;
            }
            operation(&work).map_err(|cause| match cause.severity() {
                Severity::LoggedOut if work.has_no_pin() => Cause::NoPin,
                _ => cause,
            })
        });
        match &result {
            // An operation may still be active in the session.
            Err(Cause::Call { .. } | Cause::Unusable(_)) => lease.discard(
                !result
                    .as_ref()
                    .is_err_and(|cause| cause.severity().closes_sessions()),
            ),
            _ => drop(lease),
        }
        (result, committed.get())
    }

    fn failed(&self, cause: Cause) -> Cause {
        if cause.is_failure_of_token() {
            let failure = Error::new(cause.clone(), self.place()).to_string();
            self.shared.note(Condition::Failing(failure));
        }
        cause
    }

    fn place(&self) -> String {
        let mut place = self.uri_without_pin();
        if let Some(found) = &lock(self.shared.state()).found {
            let _ = write!(place, ", token {found}");
        }
        let _ = write!(place, ", module {}", self.module.path().display());
        place
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token")
            .field(&self.uri_without_pin())
            .finish()
    }
}

/// How a token is doing; see [`Token::state`].
#[derive(Clone, Debug)]
pub struct TokenState {
    /// What the last use was like.
    pub condition: Condition,
    /// Since when it has been so.
    pub since: SystemTime,
    /// When the module may be loaded again, if the token fails and that is not at once.
    pub next_attempt: Option<SystemTime>,
    /// Open sessions.
    pub sessions: usize,
}

/// Part of [`TokenState`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Condition {
    /// Not used yet.
    Unused,
    /// The last use found everything in order.
    Working,
    /// The last use failed, for this reason.
    Failing(String),
}

/// Whether an operation needs the user.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Login {
    /// As far as there is a PIN.
    IfPossible,
    Not,
}

/// What a return value says that means "broken".
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Blame {
    /// That the data of the request may be wrong: the caller looks into it.
    Data,
    /// That the module or the device is broken.
    Module,
}

/// A session in use.
pub(super) struct Work<'a> {
    pub(super) token: &'a Token,
    pub(super) session: &'a Session,
    pub(super) generation: u64,
    library: &'a Loaded<'a>,
    committed: &'a Cell<bool>,
}

impl Work<'_> {
    /// From here on the operation must not be repeated.
    pub(super) fn commit(&self) {
        self.committed.set(true);
    }

    /// Makes sure that the token is still there and still the same, if that has not been done a short time ago. There are
    /// modules that show an empty token where there is none any more.
    pub(super) fn verify_token(&self) -> Result<(), Cause> {
        let shared = &self.token.shared;
        let fresh = |state: &State| {
            state
                .verified
                .is_some_and(|time| time.elapsed() < self.token.timing().handles)
        };
        if fresh(&lock(shared.state())) {
            return Ok(());
        }
        let now = shared.selector().find(self.library.context()?)?;
        let mut state = lock(shared.state());
        let same = state
            .found
            .as_ref()
            .is_none_or(|before| before.slot == now.slot && before.identity == now.identity);
        if !same {
            return Err(Cause::TokenChanged);
        }
        state.verified = Some(Instant::now());
        Ok(())
    }

    fn has_no_pin(&self) -> bool {
        let shared = &self.token.shared;
        matches!(shared.selector().pin, Pin::None)
            && !lock(shared.state())
                .found
                .as_ref()
                .is_some_and(|found| found.protected)
    }

    /// Whether private objects are visible: the user is logged in, or the token does without.
    pub(super) fn sees_private_objects(&self) -> Result<bool, Cause> {
        let free = lock(self.token.shared.state())
            .found
            .as_ref()
            .is_some_and(|found| !found.login_required);
        Ok(free || is_logged_in(self.session)?)
    }
}
