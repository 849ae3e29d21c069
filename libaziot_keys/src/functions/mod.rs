//! The functions of the lists. Their contracts are in [`crate::abi`] and in the specification of the key library,
//! section A7.
//!
//! Every function reads its arguments ([`crate::arguments`]), calls the store, and turns the outcome into an answer and
//! a line for the log ([`crate::failure`]). Functions that have a `try_` variant are written once, over how far they may
//! [`Reach`] for a key.
//!
//! Safety, for all of them: pointers are what the ABI says they are (strings are NUL-terminated, buffers are as long
//! as their lengths say), or null.

pub(crate) mod crypt;
pub(crate) mod keys;
pub(crate) mod pairs;
pub(crate) mod private;
pub(crate) mod settings;
pub(crate) mod sign;

use std::sync::LazyLock;

use aziot_crypto::store::{Key, KeyPair, Store};

use crate::failure::Failure;

/// The one store of the process.
static STORE: LazyLock<Store> = LazyLock::new(Store::new);

const UNRECOGNISED: &str = "unrecognized value";

/// How far a call may go for the keys it uses, and how long it may take.
///
/// The `name` of its functions is that of the parameter which holds the id.
pub(crate) trait Reach {
    /// A symmetric key.
    fn key(name: &'static str, id: &str) -> Result<Key, Failure>;

    /// A key pair.
    fn key_pair(name: &'static str, id: &str) -> Result<KeyPair, Failure>;

    /// Gives up before work that takes long, where the caller must not wait for it.
    fn work(long: bool) -> Result<(), Failure>;
}

/// Memory, disk and tokens, with all the time it takes.
pub(crate) enum Everywhere {}

impl Reach for Everywhere {
    fn key(name: &'static str, id: &str) -> Result<Key, Failure> {
        STORE.key(id).map_err(Failure::about(name))
    }

    fn key_pair(name: &'static str, id: &str) -> Result<KeyPair, Failure> {
        STORE.key_pair(id).map_err(Failure::about(name))
    }

    fn work(_long: bool) -> Result<(), Failure> {
        Ok(())
    }
}

/// Memory only, and nothing that takes long.
pub(crate) enum Memory {}

impl Reach for Memory {
    fn key(_name: &'static str, id: &str) -> Result<Key, Failure> {
        STORE.cached_key(id).ok_or(Failure::WouldBlock)
    }

    fn key_pair(_name: &'static str, id: &str) -> Result<KeyPair, Failure> {
        STORE.cached_key_pair(id).ok_or(Failure::WouldBlock)
    }

    fn work(long: bool) -> Result<(), Failure> {
        if long {
            Err(Failure::WouldBlock)
        } else {
            Ok(())
        }
    }
}
