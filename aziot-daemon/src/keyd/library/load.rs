//! Loading the key library: which function list it has, and why it is refused.

use std::ffi::NulError;
use std::fmt;
use std::ptr;

use aziot_crypto::keys_abi as abi;
use aziot_crypto::keys_abi::Rc;

use super::FILE;

/// The functions of whichever list the library offers.
pub struct Functions {
    pub version: u32,
    pub set_parameter: abi::SetParameter,
    pub create_key_pair_if_not_exists: abi::CreateKeyPairIfNotExists,
    pub move_key_pair: Option<abi::MoveKeyPair>,
    pub load_key_pair: abi::KeyFunction,
    pub key_pair_parameter: abi::KeyPairParameter,
    pub delete_key_pair: Option<abi::KeyFunction>,
    pub create_key_if_not_exists: abi::CreateKeyIfNotExists,
    pub load_key: abi::KeyFunction,
    pub import_key: abi::ImportKey,
    pub delete_key: Option<abi::KeyFunction>,
    pub derive_key: abi::DeriveKey,
    pub sign: abi::Sign,
    pub verify: abi::Verify,
    pub encrypt: abi::Crypt,
    pub decrypt: abi::Crypt,
    pub extended: Option<Extended>,
}

/// What only our own library has. Named after the functions that these never block in place of.
#[derive(Clone, Copy)]
pub struct Extended {
    pub sign: abi::Sign,
    pub verify: abi::Verify,
    pub derive_key: abi::DeriveKey,
    pub load_key: abi::KeyFunction,
    pub load_key_pair: abi::KeyFunction,
    pub key_pair_parameter: abi::KeyPairParameter,
    pub encrypt: abi::Crypt,
    pub decrypt: abi::Crypt,
    pub key_location: abi::KeyLocation,
    pub sweep: abi::Sweep,
    pub report: abi::Report,
    pub begin_moment: abi::BeginMoment,
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
    ///
    /// # Errors
    /// [`LoadError::FunctionList`], [`LoadError::NoList`], [`LoadError::Version`], [`LoadError::Missing`].
    pub fn get(entry: abi::FunctionListGetter) -> Result<Self, LoadError> {
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
    #[must_use]
    pub fn public_version(&self) -> u32 {
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
            load_key_pair: member!(list.try_load_key_pair),
            key_pair_parameter: member!(list.try_get_key_pair_parameter),
            encrypt: member!(list.try_encrypt),
            decrypt: member!(list.try_decrypt),
            key_location: member!(list.key_location),
            sweep: member!(list.sweep),
            report: member!(list.report),
            begin_moment: member!(list.begin_moment),
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
