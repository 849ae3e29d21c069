//! The key library behind its C ABI: found by its bare name, so that it can be replaced (spec, key library part A).
//!
//! All `unsafe` of the Keys Service is in this module.
#![allow(unsafe_code)]

mod handle_key;
mod load;
mod output;
pub mod report;

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use aziot_core::id::HANDLE_VALIDATION_KEY;
use aziot_crypto::key_pair::Algorithm;
use aziot_crypto::keys_abi as abi;
use aziot_crypto::keys_abi::Rc;

pub use self::handle_key::HandleMac;
pub use self::load::LoadError;
use self::load::{Extended, Functions};
pub use self::output::{CallError, Called};
use self::output::{Id, check, once, twice};
pub use self::report::Report;

/// The library's file name. The loader finds it in `LD_LIBRARY_PATH` or the system's directories.
pub const FILE: &str = "libaziot_keys.so";

/// What a call may wait for. What it may not is answered with [`CallError::WouldBlock`], and then nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: only what the library can answer from memory, and no changes.
    Memory,
    /// Files, and what is as quick as they are.
    Files,
    /// Whatever it takes.
    Full,
}

/// Where a call has to be made, because of what it may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It reads or writes files.
    File,
    /// It generates a key pair, which may take many seconds, or needs a key that is being generated.
    Generation,
    /// It goes to a library that must be called by one thread at a time.
    Library,
    /// It needs a token, which may answer late or never.
    Token,
}

/// The loaded key library.
pub struct Library {
    functions: Functions,
    handle_key_exists: AtomicBool,
    /// Ids of the key pairs that are being generated in files: whoever needs one of them has to wait for it.
    generated: Mutex<Vec<Box<str>>>,
    // Unloaded never: it may have threads of its own.
    _file: std::mem::ManuallyDrop<libloading::Library>,
}

impl Library {
    /// Loads the library by its bare name and takes the best function list it has.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        // SAFETY: loading runs the library's initialisers, which is the point of a replaceable library: the administrator
        // chose it.
        let file = unsafe { libloading::Library::new(FILE) }.map_err(LoadError::Load)?;
        // SAFETY: the entry point's type is the ABI's; a library that exports this name promises it.
        let entry: abi::FunctionListGetter =
            *unsafe { file.get(abi::ENTRY_POINT.to_bytes_with_nul()) }
                .map_err(LoadError::EntryPoint)?;
        let library = Self {
            functions: Functions::get(entry)?,
            handle_key_exists: AtomicBool::new(false),
            generated: Mutex::default(),
            _file: std::mem::ManuallyDrop::new(file),
        };
        log::info!(
            "Loaded libaziot-keys with version 0x{:08x}",
            library.version()
        );
        Ok(library)
    }

    /// The version of its public function list.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.functions.public_version()
    }

    /// Whether the library can be called from several threads at once and can say "this would block".
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.functions.extended.is_some()
    }

    /// Sets a parameter.
    ///
    /// # Errors
    /// [`LoadError::Nul`] and [`LoadError::Parameter`]; both end the start.
    pub fn set_parameter(&self, name: &str, value: &str, what: &str) -> Result<(), LoadError> {
        let text = |text: &str| {
            CString::new(text).map_err(|error| LoadError::Nul {
                what: what.to_owned(),
                error,
            })
        };
        let (c_name, c_value) = (text(name)?, text(value)?);
        // SAFETY: both strings live until the call returns; the library copies what it keeps.
        match unsafe { (self.functions.set_parameter)(c_name.as_ptr(), c_value.as_ptr()) } {
            Rc::OK => Ok(()),
            rc => Err(LoadError::Parameter {
                name: name.to_owned(),
                rc,
            }),
        }
    }

    /// Removes what crashed writers have left.
    pub fn sweep(&self) {
        if let Some(extended) = &self.functions.extended {
            // SAFETY: takes no arguments, may be called at any time.
            let rc = unsafe { (extended.sweep)() };
            if rc != Rc::OK {
                log::warn!(
                    "could not remove left-over temporary files from the key directory: {rc}"
                );
            }
        }
    }

    /// Begins a moment of this thread, in which the library looks at the file of each key only once.
    pub fn begin_moment(&self) {
        if let Some(extended) = &self.functions.extended {
            // SAFETY: takes no arguments, may be called at any time.
            unsafe { (extended.begin_moment)() };
        }
    }

    /// `create_key_if_not_exists`.
    pub fn create_key(&self, mode: Mode, id: &str, usage: u32) -> Called<()> {
        self.may_wait(mode, id)?;
        let id = Id::new(id)?;
        // SAFETY: the id is NUL-terminated and lives until the call returns.
        check(unsafe { (self.functions.create_key_if_not_exists)(id.as_ptr(), usage) })
    }

    /// `import_key`.
    pub fn import_key(&self, mode: Mode, id: &str, bytes: &[u8], usage: u32) -> Called<()> {
        self.may_wait(mode, id)?;
        let id = Id::new(id)?;
        // SAFETY: as above; `bytes` is a live slice of the length given.
        check(unsafe {
            (self.functions.import_key)(id.as_ptr(), bytes.as_ptr(), bytes.len(), usage)
        })
    }

    /// `load_key`.
    pub fn load_key(&self, mode: Mode, id: &str) -> Called<()> {
        let load = self.function(mode, id, self.functions.load_key, |own| own.load_key)?;
        let c_id = Id::new(id)?;
        // SAFETY: the id is NUL-terminated and lives until the call returns.
        self.outcome(mode, id, unsafe { load(c_id.as_ptr()) })
    }

    /// `load_key_pair`.
    pub fn load_key_pair(&self, mode: Mode, id: &str) -> Called<()> {
        let load = self.functions.load_key_pair;
        let load = self.function(mode, id, load, |own| own.load_key_pair)?;
        let c_id = Id::new(id)?;
        // SAFETY: as above.
        self.outcome(mode, id, unsafe { load(c_id.as_ptr()) })
    }

    /// `create_key_pair_if_not_exists`.
    pub fn create_key_pair(&self, mode: Mode, id: &str, preferred: Option<&str>) -> Called<()> {
        self.may_wait(mode, id)?;
        let slow = is_slow(preferred);
        if mode == Mode::Files && slow && self.load_key_pair(mode, id).is_err() {
            return Err(CallError::WouldBlock(Place::Generation));
        }
        let text = |_| CallError::Rc(Rc::INVALID_PARAMETER);
        let preferred = preferred.map(CString::new).transpose().map_err(text)?;
        let preferred = preferred.as_deref().map_or(ptr::null(), CStr::as_ptr);
        let c_id = Id::new(id)?;
        let _generated = (slow && self.place(id) == Place::File).then(|| Generated::new(self, id));
        // SAFETY: the id as above; a null list is allowed, another is NUL-terminated and lives until the call returns.
        check(unsafe { (self.functions.create_key_pair_if_not_exists)(c_id.as_ptr(), preferred) })
    }

    /// `move_key_pair`.
    pub fn move_key_pair(&self, mode: Mode, from: &str, to: &str) -> Called<()> {
        self.may_wait(mode, from)?;
        self.may_wait(mode, to)?;
        let function = self.functions.move_key_pair.ok_or(CallError::Unsupported)?;
        let (from, to) = (Id::new(from)?, Id::new(to)?);
        // SAFETY: both ids as above.
        check(unsafe { function(from.as_ptr(), to.as_ptr()) })
    }

    /// `delete_key`.
    pub fn delete_key(&self, mode: Mode, id: &str) -> Called<()> {
        self.delete(mode, id, self.functions.delete_key)
    }

    /// `delete_key_pair`.
    pub fn delete_key_pair(&self, mode: Mode, id: &str) -> Called<()> {
        self.delete(mode, id, self.functions.delete_key_pair)
    }

    fn delete(&self, mode: Mode, id: &str, function: Option<abi::KeyFunction>) -> Called<()> {
        self.may_wait(mode, id)?;
        let function = function.ok_or(CallError::Unsupported)?;
        let id = Id::new(id)?;
        // SAFETY: the id as above.
        check(unsafe { function(id.as_ptr()) })
    }

    /// `get_key_pair_parameter` for [`abi::KEY_PAIR_PARAMETER_TYPE_ALGORITHM`]: one call, four bytes.
    pub fn key_pair_algorithm(&self, mode: Mode, id: &str) -> Called<u32> {
        let parameter = self.functions.key_pair_parameter;
        let parameter = self.function(mode, id, parameter, |own| own.key_pair_parameter)?;
        let c_id = Id::new(id)?;
        let mut value = [0u8; 4];
        let mut length = value.len();
        let kind = abi::KEY_PAIR_PARAMETER_TYPE_ALGORITHM;
        // SAFETY: the buffer has the capacity that `length` says.
        let rc = unsafe { parameter(c_id.as_ptr(), kind, value.as_mut_ptr(), &raw mut length) };
        self.outcome(mode, id, rc)?;
        if length == value.len() {
            Ok(u32::from_ne_bytes(value))
        } else {
            Err(CallError::Rc(Rc::EXTERNAL))
        }
    }

    /// `get_key_pair_parameter` for the others.
    pub fn key_pair_parameter(
        &self,
        mode: Mode,
        id: &str,
        kind: u32,
        out: &mut Vec<u8>,
    ) -> Called<()> {
        let parameter = self.functions.key_pair_parameter;
        let parameter = self.function(mode, id, parameter, |own| own.key_pair_parameter)?;
        let c_id = Id::new(id)?;
        self.fill(mode, id, MODULUS, out, |buffer, length| {
            // SAFETY: `fill` passes null, or a buffer of the capacity in `length`.
            unsafe { parameter(c_id.as_ptr(), kind, buffer, length) }
        })
    }

    /// `derive_key`.
    pub fn derive_key(&self, mode: Mode, id: &str, data: &[u8], out: &mut Vec<u8>) -> Called<()> {
        let derive = self.function(mode, id, self.functions.derive_key, |own| own.derive_key)?;
        let c_id = Id::new(id)?;
        self.fill(mode, id, SIGNATURE, out, |buffer, length| {
            // SAFETY: `data` is a live slice; the buffer as above.
            unsafe { derive(c_id.as_ptr(), data.as_ptr(), data.len(), buffer, length) }
        })
    }

    /// `sign`, directly or with a key derived by `derivation`.
    pub fn sign(
        &self,
        mode: Mode,
        id: &str,
        mechanism: u32,
        derivation: Option<&[u8]>,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Called<()> {
        let sign = self.function(mode, id, self.functions.sign, |own| own.sign)?;
        let c_id = Id::new(id)?;
        let derived = derivation.map(|data| abi::SignDerivedParameters {
            derivation_data: data.as_ptr(),
            derivation_data_len: data.len(),
            mechanism,
            parameters: ptr::null(),
        });
        let (mechanism, parameters) = match &derived {
            Some(derived) => (
                abi::SIGN_MECHANISM_DERIVED,
                ptr::from_ref(derived).cast::<c_void>(),
            ),
            None => (mechanism, ptr::null()),
        };
        self.fill(mode, id, SIGNATURE, out, |buffer, length| {
            // SAFETY: the parameters, the message and what they point to live until the call returns; the buffer as above.
            unsafe {
                sign(
                    c_id.as_ptr(),
                    mechanism,
                    parameters,
                    message.as_ptr(),
                    message.len(),
                    buffer,
                    length,
                )
            }
        })
    }

    /// `encrypt`, or `decrypt`.
    pub fn crypt(
        &self,
        mode: Mode,
        encrypt: bool,
        id: &str,
        cipher: &Cipher<'_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Called<()> {
        let functions = &self.functions;
        let function = if encrypt {
            self.function(mode, id, functions.encrypt, |own| own.encrypt)?
        } else {
            self.function(mode, id, functions.decrypt, |own| own.decrypt)?
        };
        let c_id = Id::new(id)?;
        let aead = abi::EncryptAeadParameters {
            iv: cipher.iv.as_ptr(),
            iv_len: cipher.iv.len(),
            aad: cipher.aad.as_ptr(),
            aad_len: cipher.aad.len(),
        };
        let is_aead = cipher.mechanism == abi::ENCRYPT_MECHANISM_AEAD;
        let (inner, expected) = if is_aead {
            let length = input.len().saturating_add(FRAME);
            (ptr::from_ref(&aead).cast::<c_void>(), length)
        } else {
            (ptr::null(), MODULUS)
        };
        let derived = cipher.derivation.map(|data| abi::EncryptDerivedParameters {
            derivation_data: data.as_ptr(),
            derivation_data_len: data.len(),
            mechanism: cipher.mechanism,
            parameters: inner,
        });
        let (mechanism, parameters) = match &derived {
            Some(derived) => (
                abi::ENCRYPT_MECHANISM_DERIVED,
                ptr::from_ref(derived).cast::<c_void>(),
            ),
            None => (cipher.mechanism, inner),
        };
        self.fill(mode, id, expected, out, |buffer, length| {
            // SAFETY: all parameter structures and slices live until the call returns; the buffer as above.
            unsafe {
                function(
                    c_id.as_ptr(),
                    mechanism,
                    parameters,
                    input.as_ptr(),
                    input.len(),
                    buffer,
                    length,
                )
            }
        })
    }

    /// The key that authenticates handles, as a MAC.
    #[must_use]
    pub fn handle_mac(&self, mode: Mode) -> HandleMac<'_> {
        HandleMac::new(self, mode)
    }

    /// Where calls on the handle key, and so all that need a handle, have to be made.
    #[must_use]
    pub fn handle_key_place(&self) -> Place {
        self.place(HANDLE_VALIDATION_KEY)
    }

    /// Where a call on this key has to be made, going by the configuration alone.
    fn place(&self, id: &str) -> Place {
        let Some(extended) = &self.functions.extended else {
            return Place::Library;
        };
        let generated = self
            .generated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if generated.iter().any(|generated| **generated == *id) {
            return Place::Generation;
        }
        drop(generated);
        let mut location = abi::KEY_LOCATION_NONE;
        let rc = Id::new(id).map(|id| {
            // SAFETY: the id is NUL-terminated; `location` is a live local.
            unsafe { (extended.key_location)(id.as_ptr(), &raw mut location) }
        });
        match (rc, location) {
            (Ok(Rc::OK), abi::KEY_LOCATION_PKCS11) => Place::Token,
            // A key that can be nowhere is refused at once.
            _ => Place::File,
        }
    }

    /// Whether a call on this key that may wait can be made in this mode.
    fn may_wait(&self, mode: Mode, id: &str) -> Called<()> {
        if mode == Mode::Full {
            return Ok(());
        }
        match self.place(id) {
            Place::File if mode == Mode::Files => Ok(()),
            place => Err(CallError::WouldBlock(place)),
        }
    }

    /// The form of a function to call in this mode.
    fn function<F>(
        &self,
        mode: Mode,
        id: &str,
        waiting: F,
        from_memory: impl FnOnce(&Extended) -> F,
    ) -> Called<F> {
        if mode != Mode::Memory {
            self.may_wait(mode, id)?;
            return Ok(waiting);
        }
        let extended = self.functions.extended.as_ref();
        extended
            .map(from_memory)
            .ok_or(CallError::WouldBlock(Place::Library))
    }

    /// The return code of such a function.
    fn outcome(&self, mode: Mode, id: &str, rc: Rc) -> Called<()> {
        if mode == Mode::Memory && rc == Rc::WOULD_BLOCK {
            return Err(CallError::WouldBlock(self.place(id)));
        }
        check(rc)
    }

    /// Calls such a function for its output, which is `expected` to have at most that many bytes.
    fn fill(
        &self,
        mode: Mode,
        id: &str,
        expected: usize,
        out: &mut Vec<u8>,
        call: impl Fn(*mut u8, *mut usize) -> Rc,
    ) -> Called<()> {
        let filled = if self.is_extended() {
            once(out, expected, call)
        } else {
            // Libraries by others may rely on being asked for the size first.
            twice(out, call)
        };
        match filled {
            Err(CallError::Rc(rc)) => self.outcome(mode, id, rc),
            other => other,
        }
    }

    /// Whether a call may have failed because there is no such key. Of ours it is known how it says so.
    fn may_be_missing(&self, rc: Rc) -> bool {
        !self.is_extended() || rc == Rc::INVALID_PARAMETER
    }
}

/// Room for the parameters and results of RSA keys up to 8192 bits. For longer ones our library says what it needs.
const MODULUS: usize = 1024;

/// Room for MACs, derived keys, and ECDSA signatures on all usual curves.
const SIGNATURE: usize = 256;

/// What authenticated encryption adds to its input: a version byte and a tag.
const FRAME: usize = 17;

/// Whether generating a key pair, if it is in a file, may take long: the first known algorithm of the list decides.
fn is_slow(preferred: Option<&str>) -> bool {
    let algorithm = Algorithm::preferred(preferred).next();
    algorithm.is_some_and(|algorithm| algorithm.modulus_bits().is_some())
}

/// Notes that a key pair is being generated, as long as it lives.
struct Generated<'l> {
    library: &'l Library,
    id: &'l str,
}

impl<'l> Generated<'l> {
    fn new(library: &'l Library, id: &'l str) -> Self {
        let mut all = library
            .generated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(id.into());
        drop(all);
        Self { library, id }
    }
}

impl Drop for Generated<'_> {
    fn drop(&mut self) {
        let all = &self.library.generated;
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|id| **id == *self.id) {
            all.swap_remove(at);
        }
    }
}

/// Parameters of an encryption.
#[derive(Debug)]
pub struct Cipher<'a> {
    /// The mechanism, or that of the derived key.
    pub mechanism: u32,
    /// Derivation data, when a derived key is meant.
    pub derivation: Option<&'a [u8]>,
    /// Initialisation vector of AEAD.
    pub iv: &'a [u8],
    /// Additional authenticated data of AEAD.
    pub aad: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_generations_are_told_by_the_first_known_algorithm() {
        for (list, slow) in [
            (None, false),
            (Some("*"), false),
            (Some("ec-p256:rsa-2048"), false),
            (Some("ec-p384"), false),
            (Some("rsa-2048"), true),
            (Some("foo:rsa-4096:ec-p256"), true),
            // Refused without anything being generated.
            (Some("foo"), false),
            (Some(""), false),
        ] {
            assert_eq!(is_slow(list), slow, "{list:?}");
        }
    }
}
