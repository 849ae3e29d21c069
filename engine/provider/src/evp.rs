//! Objects of libcrypto that are ours to free.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use crate::params;
use crate::sys::{self, OSSL_PARAM};

/// What makes libcrypto pass over the algorithms of this provider, which the child context offers too.
pub const OTHERS: &CStr = c"provider!=aziot_keys";

/// Longest name of a digest or padding that is asked for.
const NAME_LEN: usize = 80;

/// A library context.
pub struct LibCtx(*mut sys::OSSL_LIB_CTX);

// SAFETY: library contexts may be used by several threads at once.
unsafe impl Send for LibCtx {}
// SAFETY: as above.
unsafe impl Sync for LibCtx {}

impl LibCtx {
    /// Takes one over. `None` if it is NULL.
    ///
    /// # Safety
    ///
    /// It is NULL, or the caller's to free.
    pub unsafe fn from_ptr(ctx: *mut sys::OSSL_LIB_CTX) -> Option<Self> {
        (!ctx.is_null()).then_some(Self(ctx))
    }

    pub fn as_ptr(&self) -> *mut sys::OSSL_LIB_CTX {
        self.0
    }
}

impl Drop for LibCtx {
    fn drop(&mut self) {
        // SAFETY: it is ours. What was made in it is dropped before.
        unsafe { sys::OSSL_LIB_CTX_free(self.0) }
    }
}

/// A reference to a key.
pub struct Pkey(*mut sys::EVP_PKEY);

// SAFETY: keys are counted atomically, and only changed by those who have just made them (`set_params`).
unsafe impl Send for Pkey {}
// SAFETY: as above.
unsafe impl Sync for Pkey {}

impl Pkey {
    /// Takes a reference over. `None` if it is NULL.
    ///
    /// # Safety
    ///
    /// It is NULL, or the caller's to free.
    pub unsafe fn from_ptr(pkey: *mut sys::EVP_PKEY) -> Option<Self> {
        (!pkey.is_null()).then_some(Self(pkey))
    }

    pub fn as_ptr(&self) -> *mut sys::EVP_PKEY {
        self.0
    }

    /// The reference, which is the caller's to free.
    pub fn into_ptr(self) -> *mut sys::EVP_PKEY {
        std::mem::ManuallyDrop::new(self).0
    }

    /// Makes a key of these values.
    pub fn from_params(
        ctx: &LibCtx,
        algorithm: &CStr,
        selection: c_int,
        params: *const OSSL_PARAM,
    ) -> Option<Self> {
        let ctx = PkeyCtx::for_algorithm(ctx, algorithm)?;
        let mut pkey = ptr::null_mut();
        // SAFETY: the context is alive, and the list ends as it should (it is only read).
        unsafe {
            if sys::EVP_PKEY_fromdata_init(ctx.0) != 1
                || sys::EVP_PKEY_fromdata(ctx.0, &raw mut pkey, selection, params.cast_mut()) != 1
            {
                return None;
            }
            Self::from_ptr(pkey)
        }
    }

    /// A key of its own with these parts of this one.
    pub fn copy(&self, ctx: &LibCtx, algorithm: &CStr, selection: c_int) -> Option<Self> {
        let mut params = ptr::null_mut();
        // SAFETY: the key is alive; the list is ours afterwards.
        if unsafe { sys::EVP_PKEY_todata(self.0, selection, &raw mut params) } != 1 {
            return None;
        }
        let copy = Self::from_params(ctx, algorithm, selection, params);
        // SAFETY: it is ours. Secret numbers are in a part of it that is wiped.
        unsafe { sys::OSSL_PARAM_free(params) };
        copy
    }
}

impl Clone for Pkey {
    fn clone(&self) -> Self {
        // SAFETY: the key is alive.
        unsafe { sys::EVP_PKEY_up_ref(self.0) };
        Self(self.0)
    }
}

impl Drop for Pkey {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { sys::EVP_PKEY_free(self.0) }
    }
}

/// An operation with a key.
pub struct PkeyCtx(*mut sys::EVP_PKEY_CTX);

impl PkeyCtx {
    /// For operations that make a key.
    pub fn for_algorithm(ctx: &LibCtx, algorithm: &CStr) -> Option<Self> {
        // SAFETY: the context is alive, and both strings are NUL-terminated.
        let ctx = unsafe {
            sys::EVP_PKEY_CTX_new_from_name(ctx.as_ptr(), algorithm.as_ptr(), OTHERS.as_ptr())
        };
        (!ctx.is_null()).then_some(Self(ctx))
    }

    /// For operations with a key.
    pub fn for_key(ctx: &LibCtx, key: &Pkey) -> Option<Self> {
        // SAFETY: both are alive; the new context holds a reference to the key.
        let ctx =
            unsafe { sys::EVP_PKEY_CTX_new_from_pkey(ctx.as_ptr(), key.as_ptr(), OTHERS.as_ptr()) };
        (!ctx.is_null()).then_some(Self(ctx))
    }

    pub fn as_ptr(&self) -> *mut sys::EVP_PKEY_CTX {
        self.0
    }

    pub fn settings(&self) -> Settings<'_> {
        Settings(self.0, std::marker::PhantomData)
    }

    pub fn duplicate(&self) -> Option<Self> {
        // SAFETY: the context is alive.
        let ctx = unsafe { sys::EVP_PKEY_CTX_dup(self.0) };
        (!ctx.is_null()).then_some(Self(ctx))
    }
}

impl Drop for PkeyCtx {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        unsafe { sys::EVP_PKEY_CTX_free(self.0) }
    }
}

/// The settings of an operation with a key.
#[derive(Clone, Copy)]
pub struct Settings<'c>(*mut sys::EVP_PKEY_CTX, std::marker::PhantomData<&'c ()>);

impl Settings<'_> {
    /// Answers what is asked for.
    ///
    /// # Safety
    ///
    /// `params` is NULL or a list that ends as it should.
    pub unsafe fn answer(self, params: *mut OSSL_PARAM) -> c_int {
        if params.is_null() {
            return 1;
        }
        // SAFETY: the context is alive, and the list is good (caller).
        unsafe { sys::EVP_PKEY_CTX_get_params(self.0, params) }
    }

    /// Changes what is given.
    ///
    /// # Safety
    ///
    /// `params` is NULL or a list that ends as it should.
    pub unsafe fn change(self, params: *const OSSL_PARAM) -> c_int {
        if params.is_null() {
            return 1;
        }
        // SAFETY: the context is alive, and the list is good (caller).
        unsafe { sys::EVP_PKEY_CTX_set_params(self.0, params) }
    }

    /// What can be changed now.
    pub fn changeable(self) -> *const OSSL_PARAM {
        // SAFETY: the context is alive.
        unsafe { sys::EVP_PKEY_CTX_settable_params(self.0) }
    }

    /// A name, without NUL at its end; empty if it is not set.
    pub fn name(self, key: &CStr) -> Option<Name> {
        let mut room = [0; NAME_LEN];
        let mut list = [params::text_room(key, &mut room), params::END];
        // SAFETY: the list ends as it should, and has room for what it says.
        let ok = unsafe { self.answer(list.as_mut_ptr()) };
        let given = list.first().and_then(params::returned).is_some();
        (ok == 1 && given).then_some(Name(room))
    }

    pub fn int(self, key: &CStr) -> Option<c_int> {
        let mut number = 0;
        let mut list = [params::int(key, &mut number), params::END];
        // SAFETY: the list ends as it should, and has room for what it says.
        let ok = unsafe { self.answer(list.as_mut_ptr()) };
        let given = list.first().and_then(params::returned).is_some();
        (ok == 1 && given).then_some(number)
    }

    pub fn uint(self, key: &CStr) -> Option<c_uint> {
        let mut number = 0;
        let mut list = [params::uint(key, &mut number), params::END];
        // SAFETY: the list ends as it should, and has room for what it says.
        let ok = unsafe { self.answer(list.as_mut_ptr()) };
        let given = list.first().and_then(params::returned).is_some();
        (ok == 1 && given).then_some(number)
    }

    /// Bytes; none if they are not set.
    pub fn bytes(self, key: &CStr) -> Vec<u8> {
        let mut start: *mut c_void = ptr::null_mut();
        let mut list = [params::bytes_pointer(key, &mut start), params::END];
        // SAFETY: the list ends as it should, and has room for what it says.
        let ok = unsafe { self.answer(list.as_mut_ptr()) };
        match list.first().and_then(params::returned) {
            Some(len) if ok == 1 && !start.is_null() => {
                // SAFETY: the operation has so many bytes there, which stay until a setting is changed.
                unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec()
            }
            _ => Vec::new(),
        }
    }
}

/// The name of a digest.
pub struct Name([u8; NAME_LEN]);

impl Name {
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.as_c_str().is_empty()
    }
}

/// A digest algorithm.
pub struct Md(*mut sys::EVP_MD);

// SAFETY: algorithms are counted atomically and never change.
unsafe impl Send for Md {}
// SAFETY: as above.
unsafe impl Sync for Md {}

impl Md {
    pub fn fetch(ctx: &LibCtx, name: &CStr) -> Option<Self> {
        // SAFETY: the context is alive, and both strings are NUL-terminated.
        let md = unsafe { sys::EVP_MD_fetch(ctx.as_ptr(), name.as_ptr(), OTHERS.as_ptr()) };
        (!md.is_null()).then_some(Self(md))
    }

    pub fn as_ptr(&self) -> *const sys::EVP_MD {
        self.0
    }

    /// OpenSSL's number of the algorithm.
    pub fn nid(&self) -> c_int {
        // SAFETY: the algorithm is alive.
        unsafe { sys::EVP_MD_get_type(self.0) }
    }

    /// Bytes of a digest.
    pub fn size(&self) -> usize {
        // SAFETY: the algorithm is alive.
        usize::try_from(unsafe { sys::EVP_MD_get_size(self.0) }).unwrap_or(0)
    }
}

impl Drop for Md {
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { sys::EVP_MD_free(self.0) }
    }
}

/// A digest under way, perhaps with a key to sign or verify it.
pub struct MdCtx(*mut sys::EVP_MD_CTX);

impl MdCtx {
    pub fn new() -> Option<Self> {
        // SAFETY: gives an object of our own, or NULL.
        let ctx = unsafe { sys::EVP_MD_CTX_new() };
        (!ctx.is_null()).then_some(Self(ctx))
    }

    /// A digest with nothing in it yet.
    pub fn hash(md: &Md) -> Option<Self> {
        let ctx = Self::new()?;
        // SAFETY: both are alive.
        let ok = unsafe { sys::EVP_DigestInit_ex2(ctx.0, md.as_ptr(), ptr::null()) };
        (ok == 1).then_some(ctx)
    }

    pub fn as_ptr(&self) -> *mut sys::EVP_MD_CTX {
        self.0
    }

    /// The settings of the operation with a key; only for contexts that have one.
    pub fn settings(&self) -> Settings<'_> {
        // SAFETY: the context is alive, and its operation lives as long.
        let ctx = unsafe { sys::EVP_MD_CTX_get_pkey_ctx(self.0) };
        Settings(ctx, std::marker::PhantomData)
    }

    pub fn duplicate(&self) -> Option<Self> {
        let copy = Self::new()?;
        // SAFETY: both are alive.
        let ok = unsafe { sys::EVP_MD_CTX_copy_ex(copy.0, self.0) };
        (ok == 1).then_some(copy)
    }
}

impl Drop for MdCtx {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        unsafe { sys::EVP_MD_CTX_free(self.0) }
    }
}

/// An algorithm that says what it takes and gives.
macro_rules! algorithm {
    ($(#[$doc:meta])* $name:ident, $type:ty, $fetch:ident, $free:ident) => {
        $(#[$doc])*
        pub struct $name(*mut $type);

        // SAFETY: algorithms are counted atomically and never change.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            pub fn fetch(ctx: &LibCtx, name: &CStr) -> Option<Self> {
                let (ctx, name) = (ctx.as_ptr(), name.as_ptr());
                // SAFETY: the context is alive, and both strings are NUL-terminated.
                let fetched = unsafe { sys::$fetch(ctx, name, OTHERS.as_ptr()) };
                (!fetched.is_null()).then_some(Self(fetched))
            }

            pub fn as_ptr(&self) -> *const $type {
                self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the reference is ours.
                unsafe { sys::$free(self.0) }
            }
        }
    };
}

algorithm! {
    /// A key management.
    Keymgmt, sys::EVP_KEYMGMT, EVP_KEYMGMT_fetch, EVP_KEYMGMT_free
}
algorithm! {
    /// A signature algorithm.
    Signature, sys::EVP_SIGNATURE, EVP_SIGNATURE_fetch, EVP_SIGNATURE_free
}
algorithm! {
    /// An asymmetric cipher.
    Cipher, sys::EVP_ASYM_CIPHER, EVP_ASYM_CIPHER_fetch, EVP_ASYM_CIPHER_free
}
