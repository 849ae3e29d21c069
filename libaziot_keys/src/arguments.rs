//! From C arguments to Rust values. Every rule of the ABI about pointers and lengths is here.

use core::ffi::{CStr, c_char, c_uchar};

use zeroize::Zeroizing;

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

/// Bytes that may be left out: a null pointer stands for none, if no length goes with it.
///
/// # Safety
///
/// As for [`bytes`].
pub(crate) unsafe fn optional_bytes<'a>(
    name: &'static str,
    pointer: *const u8,
    len: usize,
) -> Result<&'a [u8], Failure> {
    if pointer.is_null() && len == 0 {
        return Ok(&[]);
    }
    // SAFETY: the same promise.
    unsafe { bytes(name, pointer, len) }
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
    ///
    /// What counts against the capacity is the length of what was made, which may be less than the bound.
    pub(crate) fn put<B: AsRef<[u8]>>(
        self,
        bound: usize,
        make: impl FnOnce() -> Result<B, Failure>,
    ) -> Result<(), Failure> {
        if self.buffer.is_null() {
            self.set_len(bound);
            return Ok(());
        }
        let made = make()?;
        let made = made.as_ref();
        self.check_capacity(made.len(), bound)?;
        // SAFETY: `made` is memory of ours, and the buffer has room for no fewer bytes.
        unsafe { core::ptr::copy_nonoverlapping(made.as_ptr(), self.buffer, made.len()) };
        self.set_len(made.len());
        Ok(())
    }

    /// Lets `fill` write its answer, which has exactly `len` bytes, into the caller's buffer; or, if only the length
    /// was asked for, answers that without filling anything.
    ///
    /// `inputs` is what `fill` reads of the caller's memory. Nothing forbids C code to encrypt in place, so a buffer
    /// that overlaps one of them is written to only when everything has been read.
    pub(crate) fn fill(
        self,
        len: usize,
        inputs: &[&[u8]],
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Failure>,
    ) -> Result<(), Failure> {
        if inputs.iter().any(|input| self.overlaps(len, input)) {
            return self.put(len, || {
                let mut made = Zeroizing::new(vec![0; len]);
                let written = fill(&mut made)?;
                made.truncate(written);
                Ok(made)
            });
        }
        if self.buffer.is_null() {
            self.set_len(len);
            return Ok(());
        }
        self.check_capacity(len, len)?;
        // SAFETY: not null, with room for at least `len` bytes, which the caller lends to this call; nothing that
        // `fill` reads is in there. C has no notion of bytes that must not be read before they were written.
        let written = fill(unsafe { core::slice::from_raw_parts_mut(self.buffer, len) })?;
        self.set_len(written);
        Ok(())
    }

    /// Whether the first `len` bytes of the buffer have a byte in common with an input.
    fn overlaps(&self, len: usize, input: &[u8]) -> bool {
        let (start, end) = (self.buffer.addr(), self.buffer.addr().saturating_add(len));
        let input = input.as_ptr_range();
        !self.buffer.is_null() && input.start.addr() < end && start < input.end.addr()
    }

    /// Whether there is room for what was or will be made; if not, leaves the bound in the length.
    fn check_capacity(&self, needed: usize, bound: usize) -> Result<(), Failure> {
        // SAFETY: with a buffer, the caller has put its capacity there.
        let capacity = unsafe { self.len.read_unaligned() };
        if capacity < needed {
            self.set_len(bound);
            return Err(Failure::Argument {
                name: self.len_name,
                reason: "insufficient size",
            });
        }
        Ok(())
    }

    fn set_len(&self, len: usize) {
        // SAFETY: not null, and whoever made this promised that it may be written.
        unsafe { self.len.write_unaligned(len) };
    }
}
