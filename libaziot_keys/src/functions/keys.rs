//! Symmetric keys: create, load, import, delete, derive.

use core::ffi::{c_char, c_uchar, c_uint};

use aziot_crypto::mac::TAG_LEN;

use super::{Reach, STORE};
use crate::abi::Rc;
use crate::arguments::{Output, bytes, text};
use crate::failure::{Failure, answer};

pub(crate) unsafe extern "C" fn create_key_if_not_exists(id: *const c_char, usage: c_uint) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| {
        STORE
            .create_key(id, usage)
            .map(drop)
            .map_err(Failure::about("id"))
    }))
}

pub(crate) unsafe extern "C" fn load_key<R: Reach>(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| R::key("id", id).map(drop)))
}

pub(crate) unsafe extern "C" fn import_key(
    id: *const c_char,
    key_bytes: *const u8,
    bytes_len: usize,
    usage: c_uint,
) -> Rc {
    let import = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, key_bytes) = unsafe { (text("id", id)?, bytes("bytes", key_bytes, bytes_len)?) };
        STORE
            .import_key(id, key_bytes, usage)
            .map(drop)
            .map_err(Failure::about("id"))
    };
    answer(import())
}

pub(crate) unsafe extern "C" fn delete_key(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(
        unsafe { text("id", id) }
            .and_then(|id| STORE.delete_key(id).map(drop).map_err(Failure::about("id"))),
    )
}

pub(crate) unsafe extern "C" fn derive_key<R: Reach>(
    base_id: *const c_char,
    derivation_data: *const u8,
    derivation_data_len: usize,
    derived_key: *mut c_uchar,
    derived_key_len: *mut usize,
) -> Rc {
    let derive = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (base_id, data, output) = unsafe {
            (
                text("base_id", base_id)?,
                bytes("derivation_data", derivation_data, derivation_data_len)?,
                Output::new("derived_key_len", derived_key, derived_key_len)?,
            )
        };
        let key = R::key("base_id", base_id)?;
        output.put(TAG_LEN, || {
            key.derive(data).map_err(Failure::about("base_id"))
        })
    };
    answer(derive())
}
