//! Asymmetric ciphers (operation 13): RSA.
//!
//! As with signatures, a context for a key of the Keys Service is one for *encryption* with its public half in another
//! provider, which knows all settings and checks them. Decrypting reads them there.

use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;
use std::sync::Arc;

use aziot_keys_remote::{Public, RemoteKey, padding};
use zeroize::Zeroizing;

use crate::dispatch::{self, END, Table};
use crate::error::{Reason, raise};
use crate::evp::{Md, PkeyCtx, Settings};
use crate::key::Type;
use crate::keymgmt;
use crate::provider::{Provider, raise_alone};
use crate::signature::input;
use crate::sys::{self, OSSL_DISPATCH, OSSL_PARAM};

pub static RSA: Table<OSSL_DISPATCH, 12> = Table([
    dispatch::cipher_newctx(new),
    dispatch::cipher_encrypt_init(encrypt_init),
    dispatch::cipher_encrypt(encrypt),
    dispatch::cipher_decrypt_init(decrypt_init),
    dispatch::cipher_decrypt(decrypt),
    dispatch::cipher_freectx(free),
    dispatch::cipher_dupctx(duplicate),
    dispatch::cipher_get_ctx_params(get_ctx_params),
    dispatch::cipher_gettable_ctx_params(gettable_ctx_params),
    dispatch::cipher_set_ctx_params(set_ctx_params),
    dispatch::cipher_settable_ctx_params(settable_ctx_params),
    END,
]);

/// Something being encrypted or decrypted.
struct Context {
    provider: Arc<Provider>,
    operation: Option<Operation>,
}

struct Operation {
    purpose: Purpose,
    ctx: PkeyCtx,
}

#[derive(Clone)]
enum Purpose {
    Encrypt,
    Decrypt,
    /// In the Keys Service; the context is for encryption and knows the settings.
    DecryptRemotely(Arc<RemoteKey>),
}

impl Context {
    /// # Safety
    ///
    /// `key` is NULL, or a key of ours; `list` is NULL, or ends as it should.
    unsafe fn begin(&mut self, decrypt: bool, key: *mut c_void, list: *const OSSL_PARAM) -> c_int {
        let function = if decrypt {
            c"decrypt_init"
        } else {
            c"encrypt_init"
        };
        self.operation = None;
        // SAFETY: as above.
        let key = unsafe { keymgmt::borrow(key) }.filter(|key| key.key_type == Type::Rsa);
        let Some((key, software)) = key.and_then(|key| Some((key, key.software.as_ref()?))) else {
            raise(function, Reason::Argument, "there is no RSA key");
            return 0;
        };
        let Some(ctx) = PkeyCtx::for_key(self.provider.child(), software) else {
            raise_alone(function);
            return 0;
        };
        let purpose = match &key.remote {
            _ if !decrypt => Purpose::Encrypt,
            Some(remote) => Purpose::DecryptRemotely(Arc::clone(remote)),
            None => Purpose::Decrypt,
        };
        // SAFETY: the context is alive; the list is good (caller).
        let ok = unsafe {
            match purpose {
                Purpose::Decrypt => sys::EVP_PKEY_decrypt_init_ex(ctx.as_ptr(), list),
                Purpose::Encrypt | Purpose::DecryptRemotely(_) => {
                    sys::EVP_PKEY_encrypt_init_ex(ctx.as_ptr(), list)
                }
            }
        };
        if ok != 1 {
            return 0;
        }
        self.operation = Some(Operation { purpose, ctx });
        1
    }

    fn settings(&self) -> Option<Settings<'_>> {
        self.operation
            .as_ref()
            .map(|operation| operation.ctx.settings())
    }

    /// Decrypts in the Keys Service, and takes the padding off here.
    fn decrypt_remotely(
        &self,
        key: &RemoteKey,
        settings: Settings<'_>,
        ciphertext: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let function = c"decrypt";
        let Public::Rsa { n, .. } = key.public() else {
            return None;
        };
        let Some(missing) = n.len().checked_sub(ciphertext.len()) else {
            raise(
                function,
                Reason::Argument,
                format!(
                    "the ciphertext has {} bytes, more than the {} of the key",
                    ciphertext.len(),
                    n.len()
                ),
            );
            return None;
        };
        let mut number = vec![0; missing];
        number.extend_from_slice(ciphertext);

        let mode = settings.int(c"pad-mode");
        if !matches!(
            mode,
            Some(
                sys::RSA_PKCS1_PADDING
                    | sys::RSA_PKCS1_WITH_TLS_PADDING
                    | sys::RSA_PKCS1_OAEP_PADDING
                    | sys::RSA_NO_PADDING
            )
        ) {
            raise(
                function,
                Reason::Unsupported,
                "keys of the Keys Service decrypt with the paddings pkcs1, oaep and none",
            );
            return None;
        }
        let block = key
            .rsa_raw(&number)
            .map(Zeroizing::new)
            .inspect_err(|error| raise(function, Reason::Operation, error))
            .ok()?;
        match mode {
            Some(sys::RSA_NO_PADDING) => Some(block),
            Some(sys::RSA_PKCS1_OAEP_PADDING) => self.oaep(settings, &block),
            Some(sys::RSA_PKCS1_WITH_TLS_PADDING) => self.premaster(settings, &block),
            _ => padding::pkcs1(&block, &number),
        }
    }

    fn oaep(&self, settings: Settings<'_>, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let fetch = |key| match settings.name(key) {
            Some(name) if !name.is_empty() => {
                Some(Some(Md::fetch(self.provider.child(), name.as_c_str())?))
            }
            _ => Some(None),
        };
        let digest = match fetch(c"digest")? {
            Some(digest) => digest,
            None => Md::fetch(self.provider.child(), c"SHA1")?,
        };
        let mgf1 = fetch(c"mgf1-digest")?;
        let mgf1 = mgf1.as_ref().unwrap_or(&digest);
        let label = settings.bytes(c"oaep-label");
        // SAFETY: both digests are alive.
        unsafe { padding::oaep(block, &label, digest.as_ptr(), mgf1.as_ptr()) }
    }

    fn premaster(&self, settings: Settings<'_>, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let version = |key| {
            settings
                .uint(key)
                .and_then(|version| u16::try_from(version).ok())
                .filter(|version| *version != 0)
        };
        let Some(offered) = version(c"tls-client-version") else {
            raise(
                c"decrypt",
                Reason::Argument,
                "the TLS version that the client has offered is not set (`tls-client-version`)",
            );
            return None;
        };
        let mut random = Zeroizing::new([0; padding::MASTER_SECRET_LEN]);
        // SAFETY: the context is alive, and the buffer as long as is said.
        let ok = unsafe {
            sys::RAND_priv_bytes_ex(
                self.provider.child().as_ptr(),
                random.as_mut_ptr(),
                random.len(),
                0,
            )
        };
        if ok != 1 {
            return None;
        }
        let negotiated = version(c"tls-negotiated-version");
        let secret = padding::tls_premaster(block, offered, negotiated, &random)?;
        Some(Zeroizing::new(secret.to_vec()))
    }
}

/// A context that C has.
///
/// # Safety
///
/// NULL, or what [`new`] has given, which one thread uses at a time.
unsafe fn borrow<'c>(context: *mut c_void) -> Option<&'c mut Context> {
    // SAFETY: as above.
    unsafe { context.cast::<Context>().as_mut() }
}

unsafe extern "C" fn new(provider: *mut c_void) -> *mut c_void {
    let context = Context {
        // SAFETY: the context of the provider.
        provider: unsafe { Provider::share(provider) },
        operation: None,
    };
    Box::into_raw(Box::new(context)).cast()
}

unsafe extern "C" fn free(context: *mut c_void) {
    if !context.is_null() {
        // SAFETY: what `new` has given.
        drop(unsafe { Box::from_raw(context.cast::<Context>()) });
    }
}

unsafe extern "C" fn duplicate(context: *mut c_void) -> *mut c_void {
    // SAFETY: what `new` has given.
    let Some(context) = (unsafe { borrow(context) }) else {
        return ptr::null_mut();
    };
    let operation = match &context.operation {
        None => None,
        Some(operation) => {
            let Some(ctx) = operation.ctx.duplicate() else {
                return ptr::null_mut();
            };
            Some(Operation {
                purpose: operation.purpose.clone(),
                ctx,
            })
        }
    };
    let copy = Context {
        provider: Arc::clone(&context.provider),
        operation,
    };
    Box::into_raw(Box::new(copy)).cast()
}

unsafe extern "C" fn encrypt_init(
    context: *mut c_void,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: what libcrypto gives is what `begin` needs.
    unsafe { borrow(context).map_or(0, |context| context.begin(false, key, list)) }
}

unsafe extern "C" fn decrypt_init(
    context: *mut c_void,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: what libcrypto gives is what `begin` needs.
    unsafe { borrow(context).map_or(0, |context| context.begin(true, key, list)) }
}

unsafe extern "C" fn encrypt(
    context: *mut c_void,
    out: *mut c_uchar,
    len: *mut usize,
    room: usize,
    data: *const c_uchar,
    data_len: usize,
) -> c_int {
    // SAFETY: what `new` has given.
    let operation = unsafe { borrow(context) }.and_then(|context| context.operation.as_ref());
    match operation {
        Some(Operation {
            purpose: Purpose::Encrypt,
            ctx,
        }) => {
            // SAFETY: the context is alive; buffers are as long as is said.
            unsafe {
                *len = room;
                sys::EVP_PKEY_encrypt(ctx.as_ptr(), out, len, data, data_len)
            }
        }
        _ => 0,
    }
}

unsafe extern "C" fn decrypt(
    context: *mut c_void,
    out: *mut c_uchar,
    len: *mut usize,
    room: usize,
    data: *const c_uchar,
    data_len: usize,
) -> c_int {
    // SAFETY: what `new` has given.
    let Some(context) = (unsafe { borrow(context) }) else {
        return 0;
    };
    let Some(operation) = &context.operation else {
        return 0;
    };
    let key = match &operation.purpose {
        Purpose::Encrypt => return 0,
        Purpose::Decrypt => {
            // SAFETY: the context is alive; buffers are as long as is said.
            return unsafe {
                *len = room;
                sys::EVP_PKEY_decrypt(operation.ctx.as_ptr(), out, len, data, data_len)
            };
        }
        Purpose::DecryptRemotely(key) => key,
    };
    let settings = operation.ctx.settings();
    if out.is_null() {
        let tls = settings.int(c"pad-mode") == Some(sys::RSA_PKCS1_WITH_TLS_PADDING);
        let max = if tls {
            padding::MASTER_SECRET_LEN
        } else {
            key.public().max_size()
        };
        // SAFETY: libcrypto gives room for the length.
        unsafe { *len = max };
        return 1;
    }
    // SAFETY: as many bytes as is said.
    let ciphertext = unsafe { input(data, data_len) };
    let Some(message) = context.decrypt_remotely(key, settings, ciphertext) else {
        return 0;
    };
    if message.len() > room {
        raise(c"decrypt", Reason::Argument, "the buffer is too small");
        return 0;
    }
    // SAFETY: there is room for so many bytes.
    unsafe {
        ptr::copy_nonoverlapping(message.as_ptr(), out, message.len());
        *len = message.len();
    }
    1
}

unsafe extern "C" fn get_ctx_params(context: *mut c_void, list: *mut OSSL_PARAM) -> c_int {
    // SAFETY: what `new` has given; the list is NULL, or ends as it should.
    unsafe {
        match borrow(context).and_then(|context| context.settings()) {
            Some(settings) => settings.answer(list),
            None => 0,
        }
    }
}

unsafe extern "C" fn set_ctx_params(context: *mut c_void, list: *const OSSL_PARAM) -> c_int {
    // SAFETY: what `new` has given; the list is NULL, or ends as it should.
    unsafe {
        match borrow(context).and_then(|context| context.settings()) {
            Some(settings) => settings.change(list),
            None => 0,
        }
    }
}

unsafe extern "C" fn gettable_ctx_params(
    _context: *mut c_void,
    provider: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: the context of the provider; the algorithm lives as long as that.
    unsafe {
        match Provider::borrow(provider).cipher() {
            Some(cipher) => sys::EVP_ASYM_CIPHER_gettable_ctx_params(cipher.as_ptr()),
            None => ptr::null(),
        }
    }
}

unsafe extern "C" fn settable_ctx_params(
    _context: *mut c_void,
    provider: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe {
        match Provider::borrow(provider).cipher() {
            Some(cipher) => sys::EVP_ASYM_CIPHER_settable_ctx_params(cipher.as_ptr()),
            None => ptr::null(),
        }
    }
}
