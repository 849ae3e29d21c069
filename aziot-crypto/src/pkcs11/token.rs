//! Finding a token, logging in, sessions, and what happens when one of these is lost.

use core::cell::Cell;
use core::ffi::c_ulong;
use core::fmt;
use core::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use aziot_core::percent::Set;
use aziot_core::uri::{self, Demands, Pkcs11 as Uri};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::{Cause, Error, Severity};
use super::module::{Loaded, Module, Timing, lock, printable, value_of};
use super::objects::{Changes, Handles};

/// Longest PIN that is read from a file, in bytes.
const MAX_PIN_LEN: u64 = 4096;

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
        self.shared.selector.to_string()
    }

    /// How the token is doing, by the last operation that told something about it.
    #[must_use]
    pub fn state(&self) -> TokenState {
        let state = lock(&self.shared.state);
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
        &self.shared.handles
    }

    pub(super) fn timing(&self) -> &Timing {
        self.module.timing()
    }

    /// Who changes objects.
    pub(super) fn changes(&self) -> &Changes {
        &self.shared.changes
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
            lock(&token.shared.state)
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
                Severity::Fatal if blame == Blame::Data => return Err(cause),
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
        if let Some(found) = &lock(&self.shared.state).found {
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
        if fresh(&lock(&shared.state)) {
            return Ok(());
        }
        let now = shared.selector.find(self.library.context()?)?;
        let mut state = lock(&shared.state);
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
        matches!(shared.selector.pin, Pin::None)
            && !lock(&shared.state)
                .found
                .as_ref()
                .is_some_and(|found| found.protected)
    }

    /// Whether private objects are visible: the user is logged in, or the token does without.
    pub(super) fn sees_private_objects(&self) -> Result<bool, Cause> {
        let free = lock(&self.token.shared.state)
            .found
            .as_ref()
            .is_some_and(|found| !found.login_required);
        Ok(free || is_logged_in(self.session)?)
    }

    /// Logs the user in, unless that is done, or there is nothing to do it with.
    pub(super) fn log_in(&self) -> Result<(), Cause> {
        let shared = &self.token.shared;
        let (serial, protected) = match &lock(&shared.state).found {
            Some(found) => (found.identity.clone(), found.protected),
            None => (String::new(), false),
        };
        if matches!(shared.selector.pin, Pin::None) && !protected {
            return Ok(());
        }
        if is_logged_in(self.session)? {
            return Ok(());
        }
        let pin = if protected {
            None
        } else {
            shared.selector.pin.read()?
        };
        let mut refusals = self.token.module.refusals();
        let tried = pin.as_ref().map_or(&b""[..], |pin| pin.as_slice());
        if let Some(value) = refusals.find(&serial, tried) {
            return Err(Cause::Pin {
                value,
                remembered: true,
            });
        }
        let result = match &pin {
            Some(pin) => {
                let pin = RawAuthPin::new(Box::new(pin.to_vec()));
                self.session.login_with_raw(UserType::User, &pin)
            }
            // The PIN is entered at the token.
            None => self.session.login(UserType::User, None),
        };
        match result {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(CryptokiError::Pkcs11(
                value @ (RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked),
                _,
            )) => {
                refusals.add(serial, tried, value);
                Err(Cause::Pin {
                    value,
                    remembered: false,
                })
            }
            Err(err) => Err(err.into()),
        }
    }
}

fn is_logged_in(session: &Session) -> Result<bool, Cause> {
    Ok(matches!(
        session.get_session_info()?.session_state(),
        SessionState::RoUser | SessionState::RwUser | SessionState::RwSecurityOfficer
    ))
}

/// A session taken out of the pool. Goes back when dropped.
struct Lease<'a> {
    shared: &'a Shared,
    session: Option<Session>,
}

impl Lease<'_> {
    fn session(&self) -> Result<&Session, Cause> {
        self.session.as_ref().ok_or(Cause::Malformed("session"))
    }

    /// Does not give the session back; closes it, unless it is gone anyway and its handle may be somebody else's by now.
    fn discard(mut self, close: bool) {
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
    fn lease(&self, library: &Loaded<'_>) -> Result<Lease<'_>, Cause> {
        let shared = &*self.shared;
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
        let known = lock(&self.shared.state)
            .found
            .as_ref()
            .map(|found| found.slot);
        let slot = match known {
            Some(slot) => slot,
            None => {
                let found = self.shared.selector.find(context)?;
                let slot = found.slot;
                let mut state = lock(&self.shared.state);
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

struct State {
    found: Option<Found>,
    /// When the token was last seen where it was found.
    verified: Option<Instant>,
    idle: Vec<Session>,
    /// Sessions that are idle or in use.
    open: usize,
    /// As many as the token gives us, if that is less than we would like.
    max: Option<usize>,
    condition: Condition,
    since: SystemTime,
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

    fn forget_after(&self, severity: Severity) {
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

    fn note(&self, condition: Condition) {
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

/// A token that was found.
struct Found {
    slot: Slot,
    label: String,
    /// Tells it from any other token, also from one that is put into the same slot.
    identity: String,
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: the PIN is entered at the token.
    protected: bool,
    login_required: bool,
}

impl Found {
    fn new(slot: Slot, info: Option<&TokenInfo>) -> Self {
        let Some(info) = info else {
            return Self {
                slot,
                label: String::new(),
                identity: String::new(),
                protected: false,
                login_required: true,
            };
        };
        let text = |text| printable(text);
        Self {
            slot,
            label: text(info.label()),
            identity: format!(
                "{}\n{}\n{}\n{}",
                text(info.manufacturer_id()),
                text(info.model()),
                text(info.serial_number()),
                text(info.label()),
            ),
            protected: info.protected_authentication_path(),
            login_required: info.login_required(),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" in slot {}", self.label, self.slot.id())
    }
}

/// PINs that tokens refused.
#[derive(Default)]
pub(super) struct Refusals(Vec<Refusal>);

struct Refusal {
    identity: String,
    pin: Zeroizing<Vec<u8>>,
    value: RvError,
}

impl Refusals {
    fn find(&self, identity: &str, pin: &[u8]) -> Option<RvError> {
        self.0
            .iter()
            .find(|refusal| {
                refusal.identity == identity && refusal.pin.as_slice().ct_eq(pin).into()
            })
            .map(|refusal| refusal.value)
    }

    fn add(&mut self, identity: String, pin: &[u8], value: RvError) {
        self.0.push(Refusal {
            identity,
            pin: Zeroizing::new(pin.to_vec()),
            value,
        });
    }
}

/// How to find a token and log in to it.
#[derive(PartialEq)]
pub(super) struct Selector {
    place: Place,
    manufacturer: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    pin: Pin,
}

#[derive(PartialEq)]
enum Place {
    Id(c_ulong),
    Label(String),
}

#[derive(PartialEq)]
enum Pin {
    None,
    Value(Zeroizing<Vec<u8>>),
    /// As written in the URI.
    Source(String),
}

impl Selector {
    pub(super) fn of(uri: &Uri<'_>) -> Self {
        let Demands {
            manufacturer,
            model,
            serial,
        } = uri.demands;
        Self {
            place: match uri.slot {
                uri::Slot::Id(id) => Place::Id(id),
                uri::Slot::Label(label) => Place::Label(label.to_owned()),
            },
            manufacturer: manufacturer.map(str::to_owned),
            model: model.map(str::to_owned),
            serial: serial.map(str::to_owned),
            pin: match (uri.pin, uri.pin_source) {
                (Some(pin), _) => Pin::Value(Zeroizing::new(pin.as_bytes().to_vec())),
                (None, Some(source)) => Pin::Source(source.to_owned()),
                (None, None) => Pin::None,
            },
        }
    }

    fn find(&self, context: &Pkcs11) -> Result<Found, Cause> {
        match &self.place {
            Place::Id(id) => self.find_by_id(context, *id),
            Place::Label(label) => self.find_by_label(context, label),
        }
    }

    /// The slot is taken as it is; only what the URI demands beside its number is checked.
    fn find_by_id(&self, context: &Pkcs11, id: c_ulong) -> Result<Found, Cause> {
        let slot = Slot::try_from(id)?;
        let info = match context.get_token_info(slot) {
            Ok(info) => Some(info),
            Err(err) => {
                log::debug!("C_GetTokenInfo of slot {id} returned {}", value_of(err));
                None
            }
        };
        let fits = match &info {
            Some(info) => self.accepts(info),
            None => !self.is_demanding(),
        };
        if !fits {
            return Err(Cause::NoToken {
                wanted: self.wanted(),
                found: info
                    .iter()
                    .map(|info| format!("\"{}\"", printable(info.label())))
                    .collect(),
            });
        }
        Ok(Found::new(slot, info.as_ref()))
    }

    fn find_by_label(&self, context: &Pkcs11, label: &str) -> Result<Found, Cause> {
        let mut fitting: Option<Found> = None;
        let mut labels = Vec::new();
        for slot in context.get_slots_with_token()? {
            let info = match context.get_token_info(slot) {
                Ok(info) => info,
                Err(err) => {
                    log::debug!(
                        "skipping slot {}: C_GetTokenInfo returned {}",
                        slot.id(),
                        value_of(err)
                    );
                    continue;
                }
            };
            if !info.token_initialized() {
                continue;
            }
            if trimmed(info.label()) != label || !self.accepts(&info) {
                labels.push(format!("\"{}\"", printable(info.label())));
                continue;
            }
            match &fitting {
                None => fitting = Some(Found::new(slot, Some(&info))),
                Some(first) => {
                    log::warn!(
                        "slots {} and {} both have a token that fits {self}; using the first; `serial` in the URI can tell them apart",
                        first.slot.id(),
                        slot.id()
                    );
                    break;
                }
            }
        }
        fitting.ok_or_else(|| Cause::NoToken {
            wanted: self.wanted(),
            found: labels,
        })
    }

    fn accepts(&self, info: &TokenInfo) -> bool {
        let fits = |demand: &Option<String>, value: &str| {
            demand
                .as_deref()
                .is_none_or(|demand| demand == trimmed(value))
        };
        fits(&self.manufacturer, info.manufacturer_id())
            && fits(&self.model, info.model())
            && fits(&self.serial, info.serial_number())
    }

    fn is_demanding(&self) -> bool {
        self.manufacturer.is_some() || self.model.is_some() || self.serial.is_some()
    }

    /// For "could not find a slot with …".
    fn wanted(&self) -> String {
        let mut wanted = match &self.place {
            Place::Id(id) => format!("id {id}"),
            Place::Label(label) => format!("a token labelled \"{label}\""),
        };
        for (name, value) in self.demands() {
            let _ = write!(wanted, ", {name} \"{value}\"");
        }
        wanted
    }

    fn demands(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SET: Set = Set::PUNCTUATION;
        match &self.place {
            Place::Id(id) => write!(f, "pkcs11:slot-id={id}")?,
            Place::Label(label) => write!(f, "pkcs11:token={}", SET.encode(label))?,
        }
        for (name, value) in self.demands() {
            write!(f, ";{name}={}", SET.encode(value))?;
        }
        Ok(())
    }
}

/// Fields of fixed length are padded with blanks, by some modules with NULs.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

impl Pin {
    /// Reads it anew each time: a corrected file takes effect without a restart.
    fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Cause> {
        match self {
            Self::None => Ok(None),
            Self::Value(pin) => Ok(Some(pin.clone())),
            Self::Source(source) => read_pin(source).map(Some),
        }
    }
}

/// The first line of a file that is named by a `file:` URI or an absolute path.
fn read_pin(source: &str) -> Result<Zeroizing<Vec<u8>>, Cause> {
    let failed = |path: &Path, reason: String| Cause::PinSource {
        path: path.to_owned(),
        reason,
    };
    let path = if source.starts_with('/') {
        PathBuf::from(source)
    } else {
        use std::os::unix::ffi::OsStrExt as _;
        let mut decoded = vec![0; source.len() + 1];
        let path = uri::file_path(source, &mut decoded).map_err(|_| {
            failed(
                Path::new(source),
                "it is neither a `file:` URI nor an absolute path".to_owned(),
            )
        })?;
        PathBuf::from(std::ffi::OsStr::from_bytes(path))
    };
    let file = fs::File::open(&path).map_err(|err| failed(&path, err.to_string()))?;
    // One that grows while it is read would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PIN_LEN as usize + 1));
    let mut reader = BufReader::with_capacity(1, file).take(MAX_PIN_LEN + 1);
    reader
        .read_until(b'\n', &mut line)
        .map_err(|err| failed(&path, err.to_string()))?;
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        line.pop();
    }
    if line.len() as u64 > MAX_PIN_LEN {
        return Err(failed(
            &path,
            format!("its first line has more than {MAX_PIN_LEN} bytes"),
        ));
    }
    if line.is_empty() {
        return Err(failed(&path, "its first line is empty".to_owned()));
    }
    Ok(line)
}
