//! The decoder (operation 21): PEM files that name a key pair, for programs that take a private key from a file only.
//!
//! ```text
//! -----BEGIN AZIOT KEYS URI-----
//! (the URI, in Base64)
//! -----END AZIOT KEYS URI-----
//! ```
//!
//! There is no secret in such a file, unless the URI has a handle in it.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_void};
use std::ptr;
use std::sync::Arc;

use crate::dispatch::{self, END, Table};
use crate::error::{Reason, raise};
use crate::provider::Provider;
use crate::store::{export_object, hand_over, load_key};
use crate::sys::{
    self, OSSL_CALLBACK, OSSL_CORE_BIO, OSSL_DISPATCH, OSSL_PASSPHRASE_CALLBACK,
    SELECT_PRIVATE_KEY, SELECT_PUBLIC_KEY,
};
use crate::uri::{Half, KeyUri};

pub static DECODER: Table<OSSL_DISPATCH, 6> = Table([
    dispatch::decoder_newctx(new),
    dispatch::decoder_freectx(free),
    dispatch::decoder_does_selection(does_selection),
    dispatch::decoder_decode(decode),
    dispatch::decoder_export_object(export_object),
    END,
]);

/// What stands behind `BEGIN` and `END` (RFC 7468).
const LABEL: &[u8] = b"AZIOT KEYS URI";

unsafe extern "C" fn new(provider: *mut c_void) -> *mut c_void {
    // SAFETY: the context of the provider.
    let provider = unsafe { Provider::share(provider) };
    Arc::into_raw(provider).cast_mut().cast()
}

unsafe extern "C" fn free(context: *mut c_void) {
    if !context.is_null() {
        // SAFETY: what `new` has given.
        drop(unsafe { Arc::from_raw(context.cast_const().cast::<Provider>()) });
    }
}

unsafe extern "C" fn does_selection(_provider: *mut c_void, selection: c_int) -> c_int {
    (selection == 0 || selection & (SELECT_PRIVATE_KEY | SELECT_PUBLIC_KEY) != 0).into()
}

/// Whether the private half is wanted. `None` if what is wanted is not there.
fn private(selection: c_int, half: Option<Half>) -> Option<bool> {
    if selection == 0 {
        return Some(half != Some(Half::Public));
    }
    if selection & SELECT_PRIVATE_KEY != 0 {
        return (half != Some(Half::Public)).then_some(true);
    }
    (selection & SELECT_PUBLIC_KEY != 0).then_some(false)
}

/// Reads one block. A block of others is theirs: that is no error, and nothing is handed over.
unsafe extern "C" fn decode(
    context: *mut c_void,
    input: *mut OSSL_CORE_BIO,
    selection: c_int,
    callback: OSSL_CALLBACK,
    arg: *mut c_void,
    _passphrase: Option<OSSL_PASSPHRASE_CALLBACK>,
    _passphrase_arg: *mut c_void,
) -> c_int {
    // SAFETY: what `new` has given, which holds a reference to the provider.
    let provider = unsafe { Provider::share(context) };
    // SAFETY: libcrypto gives what it reads from.
    let Some(block) = (unsafe { Block::read(&provider, input) }) else {
        return 1;
    };
    if block.label() != LABEL {
        return 1;
    }
    let uri = match str::from_utf8(block.content()).map(|text| KeyUri::parse(text.trim_end())) {
        Ok(Ok(uri)) => uri,
        Ok(Err(error)) => {
            raise(c"decoder_decode", Reason::Uri, error);
            return 0;
        }
        Err(_) => {
            raise(c"decoder_decode", Reason::Uri, "the URI is not UTF-8");
            return 0;
        }
    };
    let Some(private) = private(selection, uri.half) else {
        return 1;
    };
    match load_key(&provider, None, &uri.name, private, c"decoder_decode") {
        // SAFETY: the callback and its argument belong together.
        Some(key) => unsafe { hand_over(key, callback, arg) },
        None => 0,
    }
}

/// A block of PEM. It may be somebody's private key, so it is wiped.
struct Block {
    label: *mut c_char,
    header: *mut c_char,
    content: *mut c_uchar,
    len: c_long,
}

impl Block {
    /// The next block. `None` if there is none.
    ///
    /// # Safety
    ///
    /// `input` is what the core has given.
    unsafe fn read(provider: &Provider, input: *mut OSSL_CORE_BIO) -> Option<Self> {
        let mut block = Self {
            label: ptr::null_mut(),
            header: ptr::null_mut(),
            content: ptr::null_mut(),
            len: 0,
        };
        // SAFETY: the context is alive, and what is read is ours. If there is nothing to read, that is nobody's error.
        let found = unsafe {
            sys::ERR_set_mark();
            let bio = sys::BIO_new_from_core_bio(provider.child().as_ptr(), input);
            let found = !bio.is_null()
                && sys::PEM_read_bio(
                    bio,
                    &raw mut block.label,
                    &raw mut block.header,
                    &raw mut block.content,
                    &raw mut block.len,
                ) == 1;
            sys::BIO_free(bio);
            sys::ERR_pop_to_mark();
            found
        };
        found.then_some(block)
    }

    fn label(&self) -> &[u8] {
        if self.label.is_null() {
            return &[];
        }
        // SAFETY: a string that is ours.
        unsafe { CStr::from_ptr(self.label) }.to_bytes()
    }

    fn content(&self) -> &[u8] {
        match usize::try_from(self.len) {
            // SAFETY: as long as libcrypto says.
            Ok(len) if !self.content.is_null() => unsafe {
                std::slice::from_raw_parts(self.content, len)
            },
            _ => &[],
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let free = |memory: *mut c_void, len| {
            // SAFETY: NULL, or ours, and as long as is said.
            unsafe { sys::CRYPTO_clear_free(memory, len, c"aziot_keys".as_ptr(), 0) }
        };
        free(self.content.cast(), self.content().len());
        free(self.label.cast(), 0);
        free(self.header.cast(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        const BOTH: c_int = SELECT_PRIVATE_KEY | SELECT_PUBLIC_KEY;
        for (selection, half, expected) in [
            (0, None, Some(true)),
            (0, Some(Half::Public), Some(false)),
            (BOTH, None, Some(true)),
            (BOTH, Some(Half::Private), Some(true)),
            (BOTH, Some(Half::Public), None),
            (SELECT_PUBLIC_KEY, None, Some(false)),
            (SELECT_PUBLIC_KEY, Some(Half::Private), Some(false)),
            (sys::SELECT_ALL_PARAMETERS, None, None),
        ] {
            assert_eq!(private(selection, half), expected, "{selection} {half:?}");
        }
    }
}
