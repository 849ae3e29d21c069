//! From C arguments to Rust values. Every rule of the ABI about pointers and lengths is here.

use core::ffi::{CStr, c_char, c_uchar};

use crate::failure::Failure;

const NULL: &str = "expected non-NULL";

/// A mandatory string.
///
/// # Safety
///
/// `pointer` is null or a NUL-terminated string that stays unchanged for `'a`.
pub(crate) unsafe fn text<'a>(
    name: &'static str,
    pointer: *const c_char,
) -> Result<&'a str, Failure> {
    // SAFETY: the same promise.
    unsafe { optional_text(name, pointer) }?.ok_or(Failure::Argument { name, reason: NULL })
}

/// A string that may be null.
///
/// # Safety
///
/// As for [`text`].
pub(crate) unsafe fn optional_text<'a>(
    name: &'static str,
    pointer: *const c_char,
) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller promises a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|_| Failure::Argument {
        name,
        reason: "not UTF-8",
    })
}

/// Mandatory bytes: the pointer must not be null, even for no bytes.
///
/// # Safety
///
/// `pointer` is null, or `len` bytes there stay unchanged for `'a`.
pub(crate) unsafe fn bytes<'a>(
    name: &'static str,
    pointer: *const u8,
    len: usize,
) -> Result<&'a [u8], Failure> {
    if pointer.is_null() {
        return Err(Failure::Argument { name, reason: NULL });
    }
    if isize::try_from(len).is_err() {
        return Err(Failure::Argument {
            name,
            reason: "length out of range",
        });
    }
    // SAFETY: not null, no longer than any object, and the caller promises that the bytes are there.
    Ok(unsafe { core::slice::from_raw_parts(pointer, len) })
}

/// A mandatory pointer to a structure of parameters, which is copied.
///
/// # Safety
///
/// `pointer` is null or leads to a `T`.
pub(crate) unsafe fn parameters<T: Copy>(pointer: *const core::ffi::c_void) -> Result<T, Failure> {
    if pointer.is_null() {
        return Err(Failure::Argument {
            name: "parameters",
            reason: NULL,
        });
    }
    // SAFETY: not null, and the caller promises a `T`; it need not be aligned.
    Ok(unsafe { pointer.cast::<T>().read_unaligned() })
}

/// A pointer through which one value is answered.
pub(crate) struct Answer<T>(*mut T);

impl<T> Answer<T> {
    /// # Safety
    ///
    /// `pointer` is null or may be written for as long as the value is used.
    pub(crate) unsafe fn new(name: &'static str, pointer: *mut T) -> Result<Self, Failure> {
        if pointer.is_null() {
            return Err(Failure::Argument { name, reason: NULL });
        }
        Ok(Self(pointer))
    }

    pub(crate) fn put(self, value: T) {
        // SAFETY: not null, and whoever made this promised that it may be written.
        unsafe { self.0.write_unaligned(value) };
    }
}

/// An output buffer with its length, or the question how long it has to be.
pub(crate) struct Output {
    len_name: &'static str,
    buffer: *mut c_uchar,
    len: *mut usize,
}

impl Output {
    /// # Safety
    ///
    /// `len` is null or may be read and written, and `buffer` is null or has room for `*len` bytes, for as long as
    /// the value is used.
    pub(crate) unsafe fn new(
        len_name: &'static str,
        buffer: *mut c_uchar,
        len: *mut usize,
    ) -> Result<Self, Failure> {
        if len.is_null() {
            return Err(Failure::Argument {
                name: len_name,
                reason: NULL,
            });
        }
        Ok(Self {
            len_name,
            buffer,
            len,
        })
    }

    /// Answers what `make` makes, or, if only the length was asked for, `bound` without making anything.
    pub(crate) fn put<B: AsRef<[u8]>>(
        self,
        bound: usize,
        make: impl FnOnce() -> B,
    ) -> Result<(), Failure> {
        if self.buffer.is_null() {
            self.set_len(bound);
            return Ok(());
        }
        let made = make();
        let made = made.as_ref();
        // SAFETY: with a buffer, the caller has put its capacity there.
        let capacity = unsafe { self.len.read_unaligned() };
        if capacity < made.len() {
            self.set_len(bound);
            return Err(Failure::Argument {
                name: self.len_name,
                reason: "insufficient size",
            });
        }
        // SAFETY: `made` is memory of ours, and the buffer has room for `capacity` bytes, which are no fewer.
        unsafe { core::ptr::copy_nonoverlapping(made.as_ptr(), self.buffer, made.len()) };
        self.set_len(made.len());
        Ok(())
    }

    fn set_len(&self, len: usize) {
        // SAFETY: not null, and whoever made this promised that it may be written.
        unsafe { self.len.write_unaligned(len) };
    }
}
