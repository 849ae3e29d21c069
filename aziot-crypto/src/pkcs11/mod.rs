//! The back end over PKCS#11 (OASIS PKCS#11 2.20 and later): keys that live in tokens.
//!
//! [`Module`] is a module on disk, [`Token`] a token behind it, [`SecretKey`] and [`KeyPair`] are keys in a token. All of
//! them are cheap to clone and may be used by any number of threads.
//!
//! # What is kept
//!
//! A module is loaded and initialised with its first use and stays so. A token keeps up to [`Timing::MAX_SESSIONS`]
//! sessions; each serves one operation at a time, and an operation that finds none free waits for one, for a bounded time.
//! The user is logged in once: PKCS#11 logs in an application, not a session. Object handles are remembered for up to
//! [`Timing::handles`], so a change that *another* process makes to a token is noticed that much later; our own changes
//! are noticed at once.
//!
//! # Recovery
//!
//! A return value that says that a session, a login, an object handle or a token is gone makes the operation forget what
//! it knew, look for the token again, and try once more. A return value that says that the module or the device is broken,
//! and a token that cannot be found, makes it load the module again (`C_Finalize`, `dlclose`, `dlopen`, `C_Initialize`) and
//! try once more; that happens at most once in [`Timing::reload`]. Operations of other threads end first, and nothing
//! outlives the module it came from. Return values about PINs never do any of that, and a PIN that a token refused is not
//! tried again with this token.
//!
//! `dlclose` is the module's chance to be loaded afresh, not a certainty: one that is marked `NODELETE`, that something else
//! in the process has loaded as well, or that has thread-local destructors stays mapped, and then only `C_Finalize` and
//! `C_Initialize` take effect. A module that leaves threads or exit handlers behind can crash the process when it is
//! unmapped; none of those we tested (SoftHSM 2.6, tpm2-pkcs11 1.9) does.
//!
//! # What the `cryptoki` crate decides
//!
//! It asks for the length of a result before it asks for the result, so that `C_Sign`, `C_Encrypt` and `C_Decrypt` are called
//! twice in an operation (a module only computes in the second call) and `C_GetSlotList` is first called without a list.
//! It initialises modules with the locking of the operating system and not with callbacks. It does not show the version in
//! the function list, so only the one of `C_GetInfo` is checked.

mod ec;
mod elf;
mod error;
mod keys;
mod login;
mod module;
mod objects;
mod pair;
mod selector;
mod session;
mod token;

pub use self::error::Error;
pub use self::keys::{KeyPair, SecretKey};
pub use self::module::{Module, Timing};
pub use self::token::{Condition, Token, TokenState};

/// Usage of a symmetric key for HMAC and derivation, `AZIOT_KEYS_KEY_USAGE_SIGN` and `…_DERIVE` of the C ABI.
pub const USAGE_SIGN: u32 = 1;

/// Usage of a symmetric key for encryption, `AZIOT_KEYS_KEY_USAGE_ENCRYPT` of the C ABI.
pub const USAGE_ENCRYPT: u32 = 0x10;
