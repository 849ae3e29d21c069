//! Parameters (`OSSL_PARAM`): named values that go in and out of everything.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use crate::sys::{self, OSSL_PARAM};

/// Ends a list.
pub const END: OSSL_PARAM = OSSL_PARAM {
    key: ptr::null(),
    data_type: 0,
    data: ptr::null_mut(),
    data_size: 0,
    return_size: 0,
};

/// A name and its type, in a table of what is taken or given.
pub const fn described(key: &'static CStr, data_type: c_uint) -> OSSL_PARAM {
    OSSL_PARAM {
        key: key.as_ptr(),
        data_type,
        data: ptr::null_mut(),
        data_size: 0,
        return_size: sys::OSSL_PARAM_UNMODIFIED,
    }
}

/// A value, or room for one.
fn value(key: &CStr, data_type: c_uint, data: *mut c_void, data_size: usize) -> OSSL_PARAM {
    OSSL_PARAM {
        key: key.as_ptr(),
        data_type,
        data,
        data_size,
        return_size: sys::OSSL_PARAM_UNMODIFIED,
    }
}

/// A number, to give or to be set.
pub fn int(key: &CStr, number: &mut c_int) -> OSSL_PARAM {
    let data: *mut c_int = number;
    value(
        key,
        sys::OSSL_PARAM_INTEGER,
        data.cast(),
        size_of::<c_int>(),
    )
}

/// A number that is not negative, to give or to be set.
pub fn uint(key: &CStr, number: &mut c_uint) -> OSSL_PARAM {
    let data: *mut c_uint = number;
    value(
        key,
        sys::OSSL_PARAM_UNSIGNED_INTEGER,
        data.cast(),
        size_of::<c_uint>(),
    )
}

/// Text to give. What gets it must not change it.
pub fn text(key: &CStr, text: &CStr) -> OSSL_PARAM {
    value(
        key,
        sys::OSSL_PARAM_UTF8_STRING,
        text.as_ptr().cast_mut().cast(),
        text.to_bytes().len(),
    )
}

/// Room for text, with the NUL.
pub fn text_room(key: &CStr, room: &mut [u8]) -> OSSL_PARAM {
    value(
        key,
        sys::OSSL_PARAM_UTF8_STRING,
        room.as_mut_ptr().cast(),
        room.len(),
    )
}

/// Bytes to give. What gets them must not change them.
pub fn bytes(key: &CStr, bytes: &[u8]) -> OSSL_PARAM {
    value(
        key,
        sys::OSSL_PARAM_OCTET_STRING,
        bytes.as_ptr().cast_mut().cast(),
        bytes.len(),
    )
}

/// Room for a pointer to bytes of somebody else.
pub fn bytes_pointer(key: &CStr, pointer: &mut *mut c_void) -> OSSL_PARAM {
    let data: *mut *mut c_void = pointer;
    value(key, sys::OSSL_PARAM_OCTET_PTR, data.cast(), 0)
}

/// A big number to give, in the order of bytes of this machine.
pub fn number(key: &CStr, native: &mut [u8]) -> OSSL_PARAM {
    value(
        key,
        sys::OSSL_PARAM_UNSIGNED_INTEGER,
        native.as_mut_ptr().cast(),
        native.len(),
    )
}

/// Bytes of a big-endian number in the order of this machine.
pub fn native(big_endian: &[u8]) -> Vec<u8> {
    let mut bytes = big_endian.to_vec();
    if cfg!(target_endian = "little") {
        bytes.reverse();
    }
    bytes
}

/// Whether something was written to a parameter, and how long it is.
pub fn returned(param: &OSSL_PARAM) -> Option<usize> {
    (param.return_size != sys::OSSL_PARAM_UNMODIFIED).then_some(param.return_size)
}

/// A list that was given to us.
#[derive(Clone, Copy)]
pub struct Given(*const OSSL_PARAM);

impl Given {
    /// # Safety
    ///
    /// `params` is NULL or a list that ends as it should, and outlives this.
    pub unsafe fn new(params: *const OSSL_PARAM) -> Self {
        Self(params)
    }

    /// Whether there is such a parameter.
    pub fn has(self, key: &CStr) -> bool {
        self.find(key).is_some()
    }

    /// A number. `Err` if it is none.
    pub fn int(self, key: &CStr) -> Result<Option<c_int>, ()> {
        let Some(param) = self.find(key) else {
            return Ok(None);
        };
        let mut number = 0;
        // SAFETY: the parameter is alive.
        match unsafe { sys::OSSL_PARAM_get_int(param, &raw mut number) } {
            1 => Ok(Some(number)),
            _ => Err(()),
        }
    }

    /// Text. `Err` if it is none, or not UTF-8.
    pub fn text(self, key: &CStr) -> Result<Option<String>, ()> {
        let Some(param) = self.find(key) else {
            return Ok(None);
        };
        let mut start = ptr::null();
        // SAFETY: the parameter is alive. Its text need not end with a NUL, but has a length.
        let bytes = unsafe {
            if sys::OSSL_PARAM_get_utf8_string_ptr(param, &raw mut start) != 1 || start.is_null() {
                return Err(());
            }
            std::slice::from_raw_parts(start.cast::<u8>(), (*param).data_size)
        };
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(bytes)
            .map(|text| Some(text.to_owned()))
            .map_err(|_| ())
    }

    fn find(self, key: &CStr) -> Option<*const OSSL_PARAM> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: a list that ends as it should.
        let param = unsafe { sys::OSSL_PARAM_locate_const(self.0, key.as_ptr()) };
        (!param.is_null()).then_some(param)
    }
}
