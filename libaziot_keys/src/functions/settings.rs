//! `set_parameter`.

use core::ffi::c_char;
use std::path::Path;

use super::{STORE, UNRECOGNISED};
use crate::abi::Rc;
use crate::arguments::text;
use crate::failure::{Failure, answer};

/// What a parameter's name stands for.
enum Setting<'a> {
    HomeDirectory,
    Pkcs11Library,
    Pkcs11BaseSlot,
    /// The location of the key with this id.
    Preloaded(&'a str),
}

impl<'a> Setting<'a> {
    fn named(name: &'a str) -> Option<Self> {
        match name {
            "homedir_path" => Some(Self::HomeDirectory),
            "pkcs11_lib_path" => Some(Self::Pkcs11Library),
            "pkcs11_base_slot" => Some(Self::Pkcs11BaseSlot),
            _ => {
                let id = name.strip_prefix("preloaded_key:")?;
                (!id.is_empty()).then_some(Self::Preloaded(id))
            }
        }
    }
}

pub(crate) unsafe extern "C" fn set_parameter(name: *const c_char, value: *const c_char) -> Rc {
    let set = || {
        // SAFETY: the ABI's promise about strings.
        let setting = Setting::named(unsafe { text("name", name) }?).ok_or(Failure::Argument {
            name: "name",
            reason: UNRECOGNISED,
        })?;
        // SAFETY: the same. An unknown name is refused whatever its value is.
        let value = unsafe { text("value", value) }?;
        match setting {
            Setting::HomeDirectory => {
                STORE.set_home(Path::new(value));
                Ok(())
            }
            Setting::Pkcs11Library => STORE
                .set_pkcs11_library(value)
                .map_err(Failure::about("value")),
            Setting::Pkcs11BaseSlot => STORE
                .set_pkcs11_base_slot(value)
                .map_err(Failure::about("value")),
            Setting::Preloaded(id) => STORE.preload(id, value).map_err(Failure::location),
        }
    };
    answer(set())
}
