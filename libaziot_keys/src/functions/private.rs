//! What only the private list has, besides the `try_` variants.

use core::ffi::{c_char, c_uint, c_void};
use std::ffi::CString;

use aziot_crypto::store::Location;

use super::STORE;
use crate::abi::{
    KEY_LOCATION_FILE, KEY_LOCATION_NONE, KEY_LOCATION_PKCS11, Rc,
};
use crate::arguments::{Answer, text};
use crate::failure::{Failure, answer};

pub(crate) unsafe extern "C" fn key_location(id: *const c_char, location: *mut c_uint) -> Rc {
    let tell = || {
        // SAFETY: the ABI's promises about strings and pointers.
        let (id, location) = unsafe { (text("id", id)?, Answer::new("location", location)?) };
        location.put(location_number(STORE.location(id)));
        Ok(())
    };
    answer(tell())
}

pub(crate) unsafe extern "C" fn sweep() -> Rc {
    answer(
        STORE
            .sweep()
            .map(drop)
            .map_err(Failure::about("homedir_path")),
    )
}
