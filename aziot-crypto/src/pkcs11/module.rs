//! Loading a module, and loading it again.

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Instant;

use aziot_core::uri::Pkcs11 as Uri;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};

use super::elf;
use super::error::{Cause, Value};
use super::login::Refusals;
use super::selector::Selector;
use super::session::Shared as SharedToken;
use super::token::Token;

/// Functions that a module has to have.
const REQUIRED: [(&str, Function); 24] = [
    ("C_CloseSession", Function::CloseSession),
    ("C_CreateObject", Function::CreateObject),
    ("C_Decrypt", Function::Decrypt),
    ("C_DecryptInit", Function::DecryptInit),
    ("C_DestroyObject", Function::DestroyObject),
    ("C_Encrypt", Function::Encrypt),
    ("C_EncryptInit", Function::EncryptInit),
    ("C_FindObjects", Function::FindObjects),
    ("C_FindObjectsFinal", Function::FindObjectsFinal),
    ("C_FindObjectsInit", Function::FindObjectsInit),
    ("C_GenerateKey", Function::GenerateKey),
    ("C_GenerateKeyPair", Function::GenerateKeyPair),
    ("C_GetAttributeValue", Function::GetAttributeValue),
    ("C_GetSessionInfo", Function::GetSessionInfo),
    ("C_GetSlotList", Function::GetSlotList),
    ("C_GetTokenInfo", Function::GetTokenInfo),
    ("C_Initialize", Function::Initialize),
    ("C_Login", Function::Login),
    ("C_OpenSession", Function::OpenSession),
    ("C_SetAttributeValue", Function::SetAttributeValue),
    ("C_Sign", Function::Sign),
    ("C_SignInit", Function::SignInit),
    ("C_Verify", Function::Verify),
    ("C_VerifyInit", Function::VerifyInit),
];

/// Oldest version of Cryptoki that is good enough.
const OLDEST_VERSION: (u8, u8) = (2, 20);

/// Modules in use, so that two users of one path share it: `C_Initialize` and `C_Finalize` count for the process.
static MODULES: Mutex<Vec<(PathBuf, Weak<Shared>)>> = Mutex::new(Vec::new());

/// How long things last. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two times that a module is loaded again.
    pub reload: Duration,
    /// How long an operation waits for a free session.
    pub session_wait: Duration,
    /// How long an object handle is believed to belong to its label.
    pub handles: Duration,
}

impl Timing {
    /// Sessions of one token at the same time.
    pub const MAX_SESSIONS: usize = 4;

    /// What the Keys Service uses.
    pub const DEFAULT: Self = Self {
        reload: Duration::from_secs(30),
        session_wait: Duration::from_secs(30),
        handles: Duration::from_secs(1),
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A PKCS#11 module. Nothing is loaded before a token needs it. All values for one path in a process are one module; it
/// is finalised and unloaded when the last of them, and the last [`Token`] of it, is dropped.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
}

impl Module {
    /// The module in this file, as `dlopen` takes it.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::with_timing(path, Timing::DEFAULT)
    }

    /// As [`Module::new`]; what is in use already keeps the timing it has.
    #[must_use]
    pub fn with_timing(path: &Path, timing: Timing) -> Self {
        let mut modules = lock(&MODULES);
        let known = modules.iter().find(|(known, _)| known == path);
        if let Some(shared) = known.and_then(|(_, module)| module.upgrade()) {
            return Self { shared };
        }
        modules.retain(|(_, module)| module.strong_count() > 0);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            timing,
            library: RwLock::default(),
            tokens: Mutex::default(),
            refusals: Mutex::default(),
        });
        modules.push((path.to_owned(), Arc::downgrade(&shared)));
        Self { shared }
    }

    /// The token that a URI names; the object in the URI is ignored. Nothing is loaded or looked for yet. All values for
    /// the same token and PIN share sessions, login and memory of a refused PIN.
    #[must_use]
    pub fn token(&self, uri: &Uri<'_>) -> Token {
        let selector = Selector::of(uri);
        let mut tokens = lock(&self.shared.tokens);
        let known = tokens.iter().find(|token| *token.selector() == selector);
        let token = match known {
            Some(token) => Arc::clone(token),
            None => {
                let token = Arc::new(SharedToken::new(selector));
                tokens.push(Arc::clone(&token));
                token
            }
        };
        Token::new(self.clone(), token)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.shared.timing
    }

    /// PINs that were refused. Held during a login, so that two threads do not try the same wrong PIN.
    pub(super) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.shared.refusals)
    }

    /// The loaded module. It is not loaded again before the result is dropped, so don't ask for it twice.
    pub(super) fn library(&self) -> Result<Loaded<'_>, Cause> {
        loop {
            let library = read(&self.shared.library);
            if library.context.is_some() {
                return Ok(Loaded(library));
            }
            drop(library);
            let mut library = write(&self.shared.library);
            if library.context.is_none() {
                library.retry(&self.shared.path, self.timing().reload)?;
            }
        }
    }

    /// Loads the module again, because of a failure that was seen in its generation `seen`; whether it makes sense to try
    /// again now. Waits until nobody uses it.
    pub(super) fn reload(&self, seen: u64, why: &Cause) -> Result<bool, Cause> {
        let mut library = write(&self.shared.library);
        if library.generation != seen {
            return Ok(true);
        }
        // Nothing is broken if it is only about numbers that come from the module's memory, so this has no limit of its own:
        // it takes a deleted object to get there, and is over afterwards.
        let renumber = matches!(why, Cause::Handles);
        if !renumber && library.next_reload(self.timing().reload).is_some() {
            return Ok(false);
        }
        log::warn!(
            "loading the PKCS#11 module {} again: {why}",
            self.path().display()
        );
        if !renumber {
            library.last_reload = Some(Instant::now());
        }
        // Sessions refer to the library and die with it. C_Finalize closes them; a broken module may not survive being
        // asked to close them one by one.
        for token in lock(&self.shared.tokens).iter() {
            token.forget();
        }
        library.unload();
        library.retry(self.path(), Duration::ZERO)?;
        Ok(true)
    }

    /// How long it takes until the module may be loaded again.
    pub(super) fn reload_allowed_in(&self) -> Option<Duration> {
        read(&self.shared.library).next_reload(self.timing().reload)
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Module").field(&self.shared.path).finish()
    }
}

struct Shared {
    path: PathBuf,
    timing: Timing,
    /// Read by operations for as long as they last, written to load and unload.
    library: RwLock<Library>,
    tokens: Mutex<Vec<Arc<SharedToken>>>,
    refusals: Mutex<Refusals>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody refers to a token of it any more.
        lock(&self.tokens).clear();
        write(&self.library).unload();
    }
}

/// A module that is loaded, for as long as an operation lasts.
pub(super) struct Loaded<'a>(RwLockReadGuard<'a, Library>);

impl Loaded<'_> {
    pub(super) fn context(&self) -> Result<&Pkcs11, Cause> {
        // It was there when the guard was made, and writers are locked out.
        self.0.context.as_ref().ok_or(Cause::NotAModule)
    }

    /// Counts the times it was loaded.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Whether it was loaded after this point in time.
    pub(super) fn is_newer_than(&self, time: Instant) -> bool {
        self.0.loaded.is_some_and(|loaded| loaded > time)
    }
}

#[derive(Default)]
struct Library {
    context: Option<Pkcs11>,
    /// Whether it was we who initialised it, so that finalising it is ours too.
    initialized: bool,
    generation: u64,
    loaded: Option<Instant>,
    last_reload: Option<Instant>,
    /// Why loading it again failed.
    failure: Option<String>,
}

impl Library {
    /// Loads it, unless that failed less than `period` ago.
    fn retry(&mut self, path: &Path, period: Duration) -> Result<(), Cause> {
        if let (Some(failure), Some(retry_in)) = (&self.failure, self.next_reload(period)) {
            return Err(Cause::Unloaded {
                failure: failure.clone(),
                retry_in,
            });
        }
        self.failure = None;
        match load(path) {
            Ok((context, initialized)) => {
                self.context = Some(context);
                self.initialized = initialized;
                self.generation += 1;
                self.loaded = Some(Instant::now());
                Ok(())
            }
            Err(cause) => {
                // The first load is tried every time: whoever installs a missing module should not have to wait.
                if self.last_reload.is_some() {
                    self.last_reload = Some(Instant::now());
                    self.failure = Some(cause.to_string());
                }
                Err(cause)
            }
        }
    }

    fn unload(&mut self) {
        let Some(context) = self.context.take() else {
            return;
        };
        if self.initialized {
            // A copy of the handle; the file is unmapped with the last one, below.
            if let Err(err) = context.clone().finalize() {
                log::warn!(
                    "C_Finalize of a PKCS#11 module failed: {}",
                    Cause::from(err)
                );
            }
        }
        drop(context);
    }

    fn next_reload(&self, period: Duration) -> Option<Duration> {
        period.checked_sub(self.last_reload?.elapsed())
    }
}

/// Loads and initialises a module; also says whether it is ours to finalise.
fn load(path: &Path) -> Result<(Pkcs11, bool), Cause> {
    if let Some((len, promised)) = elf::missing_end(path) {
        return Err(Cause::Load(format!(
            "the file is cut off: it has {len} of at least {promised} bytes; install it again"
        )));
    }
    let context = Pkcs11::new(path).map_err(|err| match err {
        CryptokiError::LibraryLoading(err) => Cause::Load(explain(path, &err.to_string())),
        err => err.into(),
    })?;
    let missing = REQUIRED
        .iter()
        .find(|(_, function)| !context.is_fn_supported(*function));
    if let Some((name, _)) = missing {
        return Err(Cause::MissingFunction(name));
    }
    let mut flags =
        CInitializeFlags::OS_LOCKING_OK | CInitializeFlags::LIBRARY_CANT_CREATE_OS_THREADS;
    let mut result = context.initialize(CInitializeArgs::new(flags));
    if is(&result, RvError::NeedToCreateThreads) {
        flags = CInitializeFlags::OS_LOCKING_OK;
        result = context.initialize(CInitializeArgs::new(flags));
    }
    let initialized = !is(&result, RvError::CryptokiAlreadyInitialized);
    if initialized {
        result?;
    }
    // Some modules do not say, or say it with reserved flags set; they are believed to be recent enough.
    if let Ok(info) = context.get_library_info() {
        let version = info.cryptoki_version();
        let (major, minor) = (version.major(), version.minor());
        if (major, minor) < OLDEST_VERSION {
            if initialized && let Err(err) = context.finalize() {
                log::debug!("C_Finalize: {}", Cause::from(err));
            }
            return Err(Cause::Version { major, minor });
        }
        log::info!(
            "loaded the PKCS#11 module {}: {} by {}, Cryptoki {major}.{minor}",
            path.display(),
            printable(info.library_description()),
            printable(info.manufacturer_id()),
        );
    }
    Ok((context, initialized))
}

fn is(result: &Result<(), CryptokiError>, expected: RvError) -> bool {
    matches!(result, Err(CryptokiError::Pkcs11(value, _)) if *value == expected)
}

/// What the dynamic loader says, with a hint where its wording needs one.
fn explain(path: &Path, err: &str) -> String {
    let hint = if !path.exists() && path.is_absolute() {
        "; there is no such file"
    } else if ["wrong ELF class", "invalid ELF header", "file too short"]
        .iter()
        .any(|text| err.contains(text))
    {
        "; the file is not a shared library for this machine"
    } else if err.contains("cannot open shared object file") {
        "; the file, or a library that it needs, is missing or cannot be read"
    } else {
        ""
    };
    format!("{err}{hint}")
}

/// Text from a module, fit for a line of a log.
pub(super) fn printable(text: &str) -> String {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// What a function returned, for the log.
pub(super) fn value_of(err: CryptokiError) -> String {
    match err {
        CryptokiError::Pkcs11(value, _) => Value(value).to_string(),
        err => Cause::from(err).to_string(),
    }
}

// No code of ours panics with one of these locked, and what they protect stays whole if it does.

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
