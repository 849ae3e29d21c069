//! The key that authenticates handles.

use std::ptr;
use std::sync::atomic::Ordering;

use aziot_core::handle::{MAC_SIZE, Mac};
use aziot_core::id::HANDLE_VALIDATION_KEY;
use aziot_crypto::keys_abi as abi;
use aziot_crypto::keys_abi::Rc;
use zeroize::Zeroizing;

use super::output::{CallError, Called, Id};
use super::{Library, Mode};

/// HMAC-SHA256 with the handle key, wherever the library keeps it.
pub struct HandleMac<'l> {
    library: &'l Library,
    mode: Mode,
}

impl<'l> HandleMac<'l> {
    pub(super) const fn new(library: &'l Library, mode: Mode) -> Self {
        Self { library, mode }
    }

    /// Runs `operation`; when the key turns out to be missing, makes it and tries once more.
    fn with_key<T>(&self, mut operation: impl FnMut() -> Called<T>) -> Called<T> {
        let library = self.library;
        let create = || library.create_key(self.mode, HANDLE_VALIDATION_KEY, abi::KEY_USAGE_SIGN);
        if self.mode != Mode::Memory && !library.handle_key_exists.load(Ordering::Relaxed) {
            create()?;
            library.handle_key_exists.store(true, Ordering::Relaxed);
        }
        match operation() {
            // From memory only, this is answered with where it can be done.
            Err(CallError::Rc(rc)) if self.mode == Mode::Memory || library.may_be_missing(rc) => {
                create()?;
                operation()
            }
            other => other,
        }
    }
}

impl Mac for HandleMac<'_> {
    type Error = CallError;

    fn sign(&mut self, message: &[u8]) -> Called<[u8; MAC_SIZE]> {
        let (library, mode) = (self.library, self.mode);
        let functions = &library.functions;
        self.with_key(|| {
            // Here, because where the key is may have to be told first.
            let sign =
                library.function(mode, HANDLE_VALIDATION_KEY, functions.sign, |own| own.sign)?;
            let id = Id::new(HANDLE_VALIDATION_KEY)?;
            let call = |buffer, length| {
                // SAFETY: the message is a live slice; the buffer is null, or has the capacity in `length`.
                unsafe {
                    sign(
                        id.as_ptr(),
                        abi::SIGN_MECHANISM_HMAC_SHA256,
                        ptr::null(),
                        message.as_ptr(),
                        message.len(),
                        buffer,
                        length,
                    )
                }
            };
            if !library.is_extended() {
                // Libraries by others may rely on being asked for the size first.
                let mut signature = Zeroizing::new(Vec::new());
                super::output::twice(&mut signature, call)?;
                return signature
                    .as_slice()
                    .try_into()
                    .map_err(|_| CallError::Rc(Rc::EXTERNAL));
            }
            let mut signature = [0; MAC_SIZE];
            let mut length = signature.len();
            let rc = call(signature.as_mut_ptr(), &raw mut length);
            library.outcome(mode, HANDLE_VALIDATION_KEY, rc)?;
            if length == MAC_SIZE {
                Ok(signature)
            } else {
                Err(CallError::Rc(Rc::EXTERNAL))
            }
        })
    }

    fn verify(&mut self, message: &[u8], mac: &[u8; MAC_SIZE]) -> Called<bool> {
        let (library, mode) = (self.library, self.mode);
        let functions = &library.functions;
        self.with_key(|| {
            let verify =
                library.function(mode, HANDLE_VALIDATION_KEY, functions.verify, |own| {
                    own.verify
                })?;
            let id = Id::new(HANDLE_VALIDATION_KEY)?;
            let mut ok = 0;
            // SAFETY: both slices are live; `ok` is a live local.
            let rc = unsafe {
                verify(
                    id.as_ptr(),
                    abi::SIGN_MECHANISM_HMAC_SHA256,
                    ptr::null(),
                    message.as_ptr(),
                    message.len(),
                    mac.as_ptr(),
                    mac.len(),
                    &raw mut ok,
                )
            };
            library.outcome(mode, HANDLE_VALIDATION_KEY, rc)?;
            Ok(ok == 1)
        })
    }
}
