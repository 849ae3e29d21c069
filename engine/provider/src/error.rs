//! OpenSSL's error queue: the reason, and a text that says more.

use std::ffi::{CStr, CString, c_int};
use std::fmt::Display;
use std::ptr;
use std::sync::{Once, OnceLock};

use crate::dispatch::Table;
use crate::sys::{self, ERR_STRING_DATA};

/// The short reason of an entry. The text beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Reason {
    /// The URI is none of ours.
    Uri = 1,
    /// The key could not be loaded.
    Load = 2,
    /// The private operation did not succeed.
    Operation = 3,
    /// The key cannot do that, or not in this way.
    Unsupported = 4,
    /// The program or its configuration gave something that makes no sense.
    Argument = 5,
}

// SAFETY: they point to constants.
unsafe impl<const N: usize> Send for Table<ERR_STRING_DATA, N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Table<ERR_STRING_DATA, N> {}

/// Puts an entry on the queue of this thread. `function` is where it happened.
pub fn raise(function: &CStr, reason: Reason, text: impl Display) {
    // Texts come from requests and answers, which can contain anything.
    let text = CString::new(text.to_string().replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: all strings are NUL-terminated and copied. The text is not passed as a formatted message, of which there would be
    // nothing left if it had more than 1023 bytes.
    unsafe {
        sys::ERR_new();
        sys::ERR_set_debug(c"aziot_keys".as_ptr(), 0, function.as_ptr());
        sys::ERR_set_error(library(), reason as c_int, ptr::null());
        sys::ERR_add_error_data(1, text.as_ptr());
    }
}

/// What the newest entry of this thread's queue says, without taking it.
pub fn newest() -> Option<String> {
    let mut data = ptr::null();
    // SAFETY: every pointer may be NULL, or is ours.
    let code = unsafe {
        sys::ERR_peek_last_error_all(
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            &raw mut data,
            ptr::null_mut(),
        )
    };
    if code == 0 {
        return None;
    }
    // SAFETY: both are NULL or strings that live until the queue is changed.
    let text = |string: *const std::ffi::c_char| unsafe {
        (!string.is_null()).then(|| CStr::from_ptr(string).to_string_lossy().into_owned())
    };
    // SAFETY: takes any code.
    let reason = text(unsafe { sys::ERR_reason_error_string(code) });
    match text(data).filter(|data| !data.is_empty()) {
        Some(data) => Some(data),
        None => reason,
    }
}

/// The provider among the libraries that report errors.
struct Library {
    number: c_int,
    /// libcrypto refers to these for ever. They stay: the shared object is not unloaded (`-z nodelete`).
    strings: Table<ERR_STRING_DATA, 7>,
}

/// The number of this provider.
fn library() -> c_int {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    static NAMED: Once = Once::new();
    let library = LIBRARY.get_or_init(|| {
        // SAFETY: hands out a number.
        let number = unsafe { sys::ERR_get_next_error_library() };
        let strings = strings(number);
        Library { number, strings }
    });
    NAMED.call_once(|| {
        // SAFETY: the table ends as it should, and stays.
        unsafe { sys::ERR_load_strings_const(library.strings.as_ptr()) };
    });
    library.number
}

fn strings(library: c_int) -> Table<ERR_STRING_DATA, 7> {
    let entry = |reason: Option<Reason>, string: &'static CStr| ERR_STRING_DATA {
        error: sys::err_pack(library, reason.map_or(0, |reason| reason as c_int)),
        string: string.as_ptr(),
    };
    Table([
        entry(None, c"aziot_keys provider"),
        entry(Some(Reason::Uri), c"not a URI of a key pair"),
        entry(Some(Reason::Load), c"key pair not available"),
        entry(Some(Reason::Operation), c"private key operation failed"),
        entry(Some(Reason::Unsupported), c"not supported"),
        entry(Some(Reason::Argument), c"invalid argument"),
        ERR_STRING_DATA {
            error: 0,
            string: ptr::null(),
        },
    ])
}
