//! The key library behind its C ABI: found by its bare name, so that it can be replaced (spec, key library part A).
//!
//! All `unsafe` of the Keys Service is in this file.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, NulError, c_void};
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use aziot_core::handle::{MAC_SIZE, Mac};
use aziot_core::id::HANDLE_VALIDATION_KEY;
use aziot_crypto::keys_abi as abi;
use aziot_crypto::keys_abi::Rc;

/// The library's file name. The loader finds it in `LD_LIBRARY_PATH` or the system's directories.
pub const FILE: &str = "libaziot_keys.so";

/// Whether a call may wait for a disk or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only what the library can answer from memory; everything else is [`CallError::WouldBlock`].
    Memory,
    /// Whatever it takes.
    Full,
}

/// The loaded key library.
pub struct Library {
    functions: Functions,
    handle_key_exists: AtomicBool,
    // Unloaded never: it may have threads of its own.
    _file: std::mem::ManuallyDrop<libloading::Library>,
}

/// The functions of whichever list the library offers.
struct Functions {
    version: u32,
    set_parameter: abi::SetParameter,
    create_key_pair_if_not_exists: abi::CreateKeyPairIfNotExists,
    move_key_pair: Option<abi::MoveKeyPair>,
    load_key_pair: abi::KeyFunction,
    key_pair_parameter: abi::KeyPairParameter,
    delete_key_pair: Option<abi::KeyFunction>,
    create_key_if_not_exists: abi::CreateKeyIfNotExists,
    load_key: abi::KeyFunction,
    import_key: abi::ImportKey,
    delete_key: Option<abi::KeyFunction>,
    derive_key: abi::DeriveKey,
    sign: abi::Sign,
    verify: abi::Verify,
    encrypt: abi::Crypt,
    decrypt: abi::Crypt,
    extended: Option<Extended>,
}

/// What only our own library has.
#[derive(Clone, Copy)]
struct Extended {
    sign: abi::Sign,
    verify: abi::Verify,
    derive_key: abi::DeriveKey,
    load_key: abi::KeyFunction,
    sweep: abi::Sweep,
}

/// Why the library cannot be used at all.
#[derive(Debug)]
pub enum LoadError {
    /// The loader did not find it, or it is not for this machine.
    Load(libloading::Error),
    /// It is not a key library.
    EntryPoint(libloading::Error),
    /// It offers neither list.
    FunctionList(Rc),
    /// It claimed success and returned nothing.
    NoList,
    /// A list of a version nobody asked for.
    Version(u32),
    /// A null pointer where a function should be.
    Missing(&'static str),
    /// A name or value from the configuration contains a NUL byte.
    Nul {
        /// What contains it.
        what: String,
        /// Where.
        error: NulError,
    },
    /// It refused a parameter.
    Parameter {
        /// The parameter's name.
        name: String,
        /// What it answered.
        rc: Rc,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => write!(
                f,
                "could not load {FILE}: {error}; install it in the system's library directory, or set LD_LIBRARY_PATH to \
                 the directory that has it"
            ),
            Self::EntryPoint(error) => write!(f, "{FILE} is not a key library: {error}"),
            Self::FunctionList(rc) => write!(f, "could not get function list: {rc}"),
            Self::NoList => f.write_str("could not get function list: the library returned none"),
            Self::Version(version) => {
                write!(
                    f,
                    "library exports API version 0x{version:08x} which is not supported"
                )
            }
            Self::Missing(name) => write!(f, "library does not define {name}"),
            Self::Nul { what, error } => {
                write!(f, "{what} could not be converted to a C string: {error}")
            }
            Self::Parameter { name, rc } => write!(
                f,
                "could not set {name} parameter on library: {rc}; the library's own messages before this one say why"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// A call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It cannot be answered from memory; nothing was done.
    WouldBlock,
    /// The library's answer, other than 0.
    Rc(Rc),
    /// The library does not have this function (2.0.0.0).
    Unsupported,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("the key is not in memory"),
            Self::Rc(rc) => rc.fmt(f),
            Self::Unsupported => f.write_str("the key library does not have this function"),
        }
    }
}

type Called<T> = Result<T, CallError>;

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
        let functions = Functions::get(entry)?;
        log::info!(
            "Loaded libaziot-keys with version 0x{:08x}",
            functions.public_version()
        );
        Ok(Self {
            functions,
            handle_key_exists: AtomicBool::new(false),
            _file: std::mem::ManuallyDrop::new(file),
        })
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

    /// `create_key_if_not_exists`.
    pub fn create_key(&self, id: &str, usage: u32) -> Called<()> {
        let id = Id::new(id)?;
        // SAFETY: the id is NUL-terminated and lives until the call returns.
        check(unsafe { (self.functions.create_key_if_not_exists)(id.as_ptr(), usage) })
    }

    /// `import_key`.
    pub fn import_key(&self, id: &str, bytes: &[u8], usage: u32) -> Called<()> {
        let id = Id::new(id)?;
        // SAFETY: as above; `bytes` is a live slice of the length given.
        check(unsafe {
            (self.functions.import_key)(id.as_ptr(), bytes.as_ptr(), bytes.len(), usage)
        })
    }

    /// `load_key`.
    pub fn load_key(&self, mode: Mode, id: &str) -> Called<()> {
        let load = match mode {
            Mode::Memory => self.extended()?.load_key,
            Mode::Full => self.functions.load_key,
        };
        let id = Id::new(id)?;
        // SAFETY: the id is NUL-terminated and lives until the call returns.
        check(unsafe { load(id.as_ptr()) })
    }

    /// `load_key_pair`.
    pub fn load_key_pair(&self, id: &str) -> Called<()> {
        let id = Id::new(id)?;
        // SAFETY: as above.
        check(unsafe { (self.functions.load_key_pair)(id.as_ptr()) })
    }

    /// `create_key_pair_if_not_exists`.
    pub fn create_key_pair(&self, id: &str, algorithms: Option<&CStr>) -> Called<()> {
        let id = Id::new(id)?;
        let algorithms = algorithms.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: the id as above; a null list is allowed.
        check(unsafe { (self.functions.create_key_pair_if_not_exists)(id.as_ptr(), algorithms) })
    }

    /// `move_key_pair`.
    pub fn move_key_pair(&self, from: &str, to: &str) -> Called<()> {
        let function = self.functions.move_key_pair.ok_or(CallError::Unsupported)?;
        let (from, to) = (Id::new(from)?, Id::new(to)?);
        // SAFETY: both ids as above.
        check(unsafe { function(from.as_ptr(), to.as_ptr()) })
    }

    /// `delete_key`.
    pub fn delete_key(&self, id: &str) -> Called<()> {
        let function = self.functions.delete_key.ok_or(CallError::Unsupported)?;
        let id = Id::new(id)?;
        // SAFETY: the id as above.
        check(unsafe { function(id.as_ptr()) })
    }

    /// `delete_key_pair`.
    pub fn delete_key_pair(&self, id: &str) -> Called<()> {
        let function = self
            .functions
            .delete_key_pair
            .ok_or(CallError::Unsupported)?;
        let id = Id::new(id)?;
        // SAFETY: the id as above.
        check(unsafe { function(id.as_ptr()) })
    }

    /// `get_key_pair_parameter` for [`abi::KEY_PAIR_PARAMETER_TYPE_ALGORITHM`]: one call, four bytes.
    pub fn key_pair_algorithm(&self, id: &str) -> Called<u32> {
        let id = Id::new(id)?;
        let mut value = [0u8; 4];
        let mut length = value.len();
        let kind = abi::KEY_PAIR_PARAMETER_TYPE_ALGORITHM;
        // SAFETY: the buffer has the capacity that `length` says.
        check(unsafe {
            (self.functions.key_pair_parameter)(
                id.as_ptr(),
                kind,
                value.as_mut_ptr(),
                &raw mut length,
            )
        })?;
        if length == value.len() {
            Ok(u32::from_ne_bytes(value))
        } else {
            Err(CallError::Rc(Rc::EXTERNAL))
        }
    }

    /// `get_key_pair_parameter` for the others.
    pub fn key_pair_parameter(&self, id: &str, kind: u32, out: &mut Vec<u8>) -> Called<()> {
        let id = Id::new(id)?;
        twice(out, |buffer, length| {
            // SAFETY: `twice` passes null, or a buffer of the capacity in `length`.
            unsafe { (self.functions.key_pair_parameter)(id.as_ptr(), kind, buffer, length) }
        })
    }

    /// `derive_key`.
    pub fn derive_key(&self, mode: Mode, id: &str, data: &[u8], out: &mut Vec<u8>) -> Called<()> {
        let derive = match mode {
            Mode::Memory => self.extended()?.derive_key,
            Mode::Full => self.functions.derive_key,
        };
        let id = Id::new(id)?;
        let call = |buffer, length| {
            // SAFETY: `data` is a live slice; the buffer as above.
            unsafe { derive(id.as_ptr(), data.as_ptr(), data.len(), buffer, length) }
        };
        match mode {
            Mode::Memory => once(out, call),
            Mode::Full => twice(out, call),
        }
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
        let sign = match mode {
            Mode::Memory => self.extended()?.sign,
            Mode::Full => self.functions.sign,
        };
        let id = Id::new(id)?;
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
        let call = |buffer, length| {
            // SAFETY: the parameters, the message and what they point to live until the call returns; the buffer as above.
            unsafe {
                sign(
                    id.as_ptr(),
                    mechanism,
                    parameters,
                    message.as_ptr(),
                    message.len(),
                    buffer,
                    length,
                )
            }
        };
        match mode {
            Mode::Memory => once(out, call),
            Mode::Full => twice(out, call),
        }
    }

    /// `encrypt`, or `decrypt`.
    pub fn crypt(
        &self,
        encrypt: bool,
        id: &str,
        cipher: &Cipher<'_>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Called<()> {
        let function = if encrypt {
            self.functions.encrypt
        } else {
            self.functions.decrypt
        };
        let id = Id::new(id)?;
        let aead = abi::EncryptAeadParameters {
            iv: cipher.iv.as_ptr(),
            iv_len: cipher.iv.len(),
            aad: cipher.aad.as_ptr(),
            aad_len: cipher.aad.len(),
        };
        let is_aead = cipher.mechanism == abi::ENCRYPT_MECHANISM_AEAD;
        let inner = if is_aead {
            ptr::from_ref(&aead).cast::<c_void>()
        } else {
            ptr::null()
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
        twice(out, |buffer, length| {
            // SAFETY: all parameter structures and slices live until the call returns; the buffer as above.
            unsafe {
                function(
                    id.as_ptr(),
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
        HandleMac {
            library: self,
            mode,
        }
    }

    fn extended(&self) -> Called<&Extended> {
        self.functions
            .extended
            .as_ref()
            .ok_or(CallError::WouldBlock)
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

/// HMAC-SHA256 with the handle key, wherever the library keeps it.
pub struct HandleMac<'l> {
    library: &'l Library,
    mode: Mode,
}

impl HandleMac<'_> {
    /// Runs `operation`; when the key turns out to be missing, makes it and tries once more.
    fn with_key<T>(&self, mut operation: impl FnMut() -> Called<T>) -> Called<T> {
        let library = self.library;
        if self.mode == Mode::Full && !library.handle_key_exists.load(Ordering::Relaxed) {
            library.create_key(HANDLE_VALIDATION_KEY, abi::KEY_USAGE_SIGN)?;
            library.handle_key_exists.store(true, Ordering::Relaxed);
        }
        match operation() {
            Err(CallError::Rc(_)) if self.mode == Mode::Memory => Err(CallError::WouldBlock),
            Err(CallError::Rc(_)) => {
                library.create_key(HANDLE_VALIDATION_KEY, abi::KEY_USAGE_SIGN)?;
                operation()
            }
            other => other,
        }
    }
}

impl Mac for HandleMac<'_> {
    type Error = CallError;

    fn sign(&mut self, message: &[u8]) -> Called<[u8; MAC_SIZE]> {
        let sign = match self.mode {
            Mode::Memory => self.library.extended()?.sign,
            Mode::Full => self.library.functions.sign,
        };
        let id = Id::new(HANDLE_VALIDATION_KEY)?;
        let mechanism = abi::SIGN_MECHANISM_HMAC_SHA256;
        if self.library.functions.extended.is_none() {
            // Libraries by others may rely on being asked for the size first.
            let mut signature = Vec::new();
            self.with_key(|| {
                twice(&mut signature, |buffer, length| {
                    // SAFETY: the message is a live slice; `twice` passes null, or a buffer of the capacity in `length`.
                    unsafe {
                        sign(
                            id.as_ptr(),
                            mechanism,
                            ptr::null(),
                            message.as_ptr(),
                            message.len(),
                            buffer,
                            length,
                        )
                    }
                })
            })?;
            return signature
                .try_into()
                .map_err(|_| CallError::Rc(Rc::EXTERNAL));
        }
        self.with_key(|| {
            let mut signature = [0; MAC_SIZE];
            let mut length = signature.len();
            // SAFETY: the message is a live slice, the buffer has the capacity that `length` says.
            check(unsafe {
                sign(
                    id.as_ptr(),
                    mechanism,
                    ptr::null(),
                    message.as_ptr(),
                    message.len(),
                    signature.as_mut_ptr(),
                    &raw mut length,
                )
            })?;
            if length == MAC_SIZE {
                Ok(signature)
            } else {
                Err(CallError::Rc(Rc::EXTERNAL))
            }
        })
    }

    fn verify(&mut self, message: &[u8], mac: &[u8; MAC_SIZE]) -> Called<bool> {
        let verify = match self.mode {
            Mode::Memory => self.library.extended()?.verify,
            Mode::Full => self.library.functions.verify,
        };
        let id = Id::new(HANDLE_VALIDATION_KEY)?;
        let mechanism = abi::SIGN_MECHANISM_HMAC_SHA256;
        self.with_key(|| {
            let mut ok = 0;
            // SAFETY: both slices are live; `ok` is a live local.
            check(unsafe {
                verify(
                    id.as_ptr(),
                    mechanism,
                    ptr::null(),
                    message.as_ptr(),
                    message.len(),
                    mac.as_ptr(),
                    mac.len(),
                    &raw mut ok,
                )
            })?;
            Ok(ok == 1)
        })
    }
}

fn check(rc: Rc) -> Called<()> {
    match rc {
        Rc::OK => Ok(()),
        Rc::WOULD_BLOCK => Err(CallError::WouldBlock),
        rc => Err(CallError::Rc(rc)),
    }
}

/// Bytes of a MAC, a signature or a derived key: what our own library answers from memory is never longer.
const SHORT_OUTPUT: usize = 256;

/// One call with a buffer that is always large enough, for the functions that only our own library has.
fn once(out: &mut Vec<u8>, call: impl Fn(*mut u8, *mut usize) -> Rc) -> Called<()> {
    out.clear();
    out.resize(SHORT_OUTPUT, 0);
    let mut length = out.len();
    check(call(out.as_mut_ptr(), &raw mut length))?;
    out.truncate(length);
    Ok(())
}

/// The two-call protocol: a null buffer to learn the size, then a buffer of that size; the result may be shorter.
fn twice(out: &mut Vec<u8>, call: impl Fn(*mut u8, *mut usize) -> Rc) -> Called<()> {
    out.clear();
    let mut length = 0;
    check(call(ptr::null_mut(), &raw mut length))?;
    out.resize(length, 0);
    check(call(out.as_mut_ptr(), &raw mut length))?;
    if length > out.len() {
        // The library says that it wrote behind the end of the buffer: memory is damaged, nothing can be trusted any more.
        log::error!(
            "the key library wrote {length} bytes to a buffer of {}; stopping",
            out.len()
        );
        std::process::abort();
    }
    out.truncate(length);
    Ok(())
}

/// A NUL-terminated key id, on the stack for all usual lengths.
enum Id {
    Short([u8; Self::SHORT]),
    Long(CString),
}

impl Id {
    const SHORT: usize = 128;

    /// Ids have been checked for NUL before; one that contains it all the same is no valid parameter.
    fn new(id: &str) -> Called<Self> {
        let bytes = id.as_bytes();
        if bytes.contains(&0) {
            return Err(CallError::Rc(Rc::INVALID_PARAMETER));
        }
        if bytes.len() < Self::SHORT {
            let mut buffer = [0; Self::SHORT];
            buffer[..bytes.len()].copy_from_slice(bytes);
            return Ok(Self::Short(buffer));
        }
        CString::new(bytes)
            .map(Self::Long)
            .map_err(|_| CallError::Rc(Rc::INVALID_PARAMETER))
    }

    fn as_ptr(&self) -> *const std::ffi::c_char {
        match self {
            Self::Short(buffer) => buffer.as_ptr().cast(),
            Self::Long(text) => text.as_ptr(),
        }
    }
}

/// A function of a list, which must not be a null pointer.
macro_rules! member {
    ($list:ident.$name:ident) => {
        $list.$name.ok_or(LoadError::Missing(stringify!($name)))?
    };
}

/// What the two public lists have in common. They have it in different places, so a type cannot say it.
macro_rules! common {
    ($list:ident) => {
        Functions {
            version: $list.base.version,
            set_parameter: member!($list.set_parameter),
            create_key_pair_if_not_exists: member!($list.create_key_pair_if_not_exists),
            move_key_pair: None,
            load_key_pair: member!($list.load_key_pair),
            key_pair_parameter: member!($list.get_key_pair_parameter),
            delete_key_pair: None,
            create_key_if_not_exists: member!($list.create_key_if_not_exists),
            load_key: member!($list.load_key),
            import_key: member!($list.import_key),
            delete_key: None,
            derive_key: member!($list.derive_key),
            sign: member!($list.sign),
            verify: member!($list.verify),
            encrypt: member!($list.encrypt),
            decrypt: member!($list.decrypt),
            extended: None,
        }
    };
}

impl Functions {
    /// Asks for our own list, then for 2.1.0.0, then for 2.0.0.0; what the returned list says about itself counts.
    fn get(entry: abi::FunctionListGetter) -> Result<Self, LoadError> {
        if let Ok(list) = request(entry, abi::VERSION_EXTENDED) {
            // SAFETY: the pointer is not null and leads to a static list, whose head every version has.
            if unsafe { (*list).version } == abi::VERSION_EXTENDED {
                // SAFETY: a list of this version has this type.
                return Self::from_extended(unsafe { &*list.cast::<abi::FunctionListExtended>() });
            }
        }
        let list = request(entry, abi::VERSION_2_1_0_0)
            .or_else(|_| request(entry, abi::VERSION_2_0_0_0))?;
        // SAFETY: as above.
        match unsafe { (*list).version } {
            abi::VERSION_2_1_0_0 => {
                // SAFETY: a list of this version has this type.
                Self::from_2_1(unsafe { &*list.cast::<abi::FunctionList2_1_0_0>() })
            }
            abi::VERSION_2_0_0_0 => {
                // SAFETY: a list of this version has this type.
                Self::from_2_0(unsafe { &*list.cast::<abi::FunctionList2_0_0_0>() })
            }
            other => Err(LoadError::Version(other)),
        }
    }

    /// The version to tell: our own list is an extension of 2.1.0.0, and that is what tools know.
    fn public_version(&self) -> u32 {
        if self.extended.is_some() {
            abi::VERSION_2_1_0_0
        } else {
            self.version
        }
    }

    fn from_extended(list: &abi::FunctionListExtended) -> Result<Self, LoadError> {
        let mut functions = Self::from_2_1(&list.public)?;
        functions.extended = Some(Extended {
            sign: member!(list.try_sign),
            verify: member!(list.try_verify),
            derive_key: member!(list.try_derive_key),
            load_key: member!(list.try_load_key),
            sweep: member!(list.sweep),
        });
        Ok(functions)
    }

    fn from_2_1(list: &abi::FunctionList2_1_0_0) -> Result<Self, LoadError> {
        Ok(Self {
            move_key_pair: Some(member!(list.move_key_pair)),
            delete_key_pair: Some(member!(list.delete_key_pair)),
            delete_key: Some(member!(list.delete_key)),
            ..common!(list)
        })
    }

    fn from_2_0(list: &abi::FunctionList2_0_0_0) -> Result<Self, LoadError> {
        Ok(common!(list))
    }
}

fn request(
    entry: abi::FunctionListGetter,
    version: u32,
) -> Result<*const abi::FunctionList, LoadError> {
    let mut list = ptr::null();
    // SAFETY: `list` is a live local; the library writes a pointer to a static structure, or nothing.
    match unsafe { entry(version, &raw mut list) } {
        Rc::OK if list.is_null() => Err(LoadError::NoList),
        Rc::OK => Ok(list),
        rc => Err(LoadError::FunctionList(rc)),
    }
}
