//! What belongs to objects of libcrypto beside their own members (`CRYPTO_get_ex_new_index(3)`): counted references.

use std::ffi::{c_int, c_long, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Arc, OnceLock};

use crate::sys::{self, CRYPTO_EX_DATA};

/// A place in all objects of a kind for a reference to a `T`.
pub struct Slot<O, T> {
    class: c_int,
    /// Whether libcrypto releases the reference with the object.
    releases: bool,
    get: unsafe extern "C" fn(*const O, c_int) -> *mut c_void,
    set: unsafe extern "C" fn(*mut O, c_int, *mut c_void) -> c_int,
    /// Negative if there was none to be had.
    index: OnceLock<c_int>,
    _type: PhantomData<fn() -> T>,
}

/// There is no place, or no memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("libcrypto has no memory for the data of the engine")
    }
}

impl<O, T: Send + Sync> Slot<O, T> {
    /// A place in objects that `class` is the number of. Nothing is registered yet.
    ///
    /// # Safety
    ///
    /// The functions are those that read and write ex data of this class, whose objects are `O`.
    pub const unsafe fn new(
        class: c_int,
        releases: bool,
        get: unsafe extern "C" fn(*const O, c_int) -> *mut c_void,
        set: unsafe extern "C" fn(*mut O, c_int, *mut c_void) -> c_int,
    ) -> Self {
        Self {
            class,
            releases,
            get,
            set,
            index: OnceLock::new(),
            _type: PhantomData,
        }
    }

    /// Has the place made, unless it is there.
    pub fn register(&self) -> Result<(), Full> {
        self.index().map(drop)
    }

    /// What the object refers to.
    ///
    /// # Safety
    ///
    /// The object is alive, and stays as it is until the result has been used.
    pub unsafe fn get(&self, object: *const O) -> Option<&T> {
        let index = self.index().ok()?;
        // SAFETY: the object is alive, and what is there was put there by `set` or `dup`.
        unsafe { (self.get)(object, index).cast::<T>().as_ref() }
    }

    /// Has the object refer to this. There must be nothing there.
    ///
    /// # Safety
    ///
    /// The object is alive, and nobody else uses it.
    pub unsafe fn set(&self, object: *mut O, value: Arc<T>) -> Result<(), Full> {
        let index = self.index()?;
        let value = Arc::into_raw(value);
        // SAFETY: the object is alive. It takes over the reference, unless it says that it does not.
        unsafe {
            if (self.set)(object, index, value.cast_mut().cast()) == 1 {
                return Ok(());
            }
            drop(Arc::from_raw(value));
        }
        Err(Full)
    }

    /// Has the object refer to nothing, and gives what it has referred to.
    ///
    /// # Safety
    ///
    /// As for [`Slot::set`].
    pub unsafe fn take(&self, object: *mut O) -> Option<Arc<T>> {
        let index = *self.index.get().filter(|index| **index >= 0)?;
        // SAFETY: the object is alive, and the pointer was made by `Arc::into_raw`. The object gives its reference up.
        unsafe {
            let value = (self.get)(object, index).cast::<T>();
            if value.is_null() || (self.set)(object, index, ptr::null_mut()) != 1 {
                return None;
            }
            Some(Arc::from_raw(value))
        }
    }

    fn index(&self) -> Result<c_int, Full> {
        let index = *self.index.get_or_init(|| {
            // SAFETY: the callbacks are what they should be, and live for ever: the shared object stays loaded.
            unsafe {
                sys::CRYPTO_get_ex_new_index(
                    self.class,
                    0,
                    ptr::null_mut(),
                    None,
                    Some(dup::<T>),
                    self.releases.then_some(free::<T> as sys::CRYPTO_EX_free),
                )
            }
        });
        if index < 0 { Err(Full) } else { Ok(index) }
    }
}

/// Counts the reference of a copy, also of objects that have nothing to do with this engine: then there is none.
unsafe extern "C" fn dup<T>(
    to: *mut CRYPTO_EX_DATA,
    _from: *const CRYPTO_EX_DATA,
    from_d: *mut *mut c_void,
    index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) -> c_int {
    if from_d.is_null() {
        return 1;
    }
    // SAFETY: libcrypto passes the address of the pointer, which is NULL or was made by `Arc::into_raw`. The same goes for the
    // pointer in the object that is written over: libcrypto would forget about it.
    unsafe {
        let value = (*from_d).cast::<T>().cast_const();
        if !value.is_null() {
            Arc::increment_strong_count(value);
        }
        if !to.is_null() {
            let replaced = sys::CRYPTO_get_ex_data(to, index).cast::<T>().cast_const();
            if !replaced.is_null() && sys::CRYPTO_set_ex_data(to, index, ptr::null_mut()) == 1 {
                drop(Arc::from_raw(replaced));
            }
        }
    }
    1
}

/// Releases the reference of an object that is freed.
unsafe extern "C" fn free<T>(
    _parent: *mut c_void,
    value: *mut c_void,
    _data: *mut CRYPTO_EX_DATA,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !value.is_null() {
        // SAFETY: the pointer was made by `Arc::into_raw`, and the object goes.
        drop(unsafe { Arc::from_raw(value.cast::<T>().cast_const()) });
    }
}
