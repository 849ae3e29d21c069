//! Signatures (operation 12): ECDSA and RSA, over a digest or a message.
//!
//! A context for a key of the Keys Service is one for *verification* with its public half in another provider, which knows
//! all settings, checks them, and names the algorithm in certificates. Signing reads the settings there.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::ptr;
use std::sync::Arc;

use aziot_keys_remote::{Public, RemoteKey, padding};

use crate::dispatch::{self, END, Table};
use crate::error::{Reason, raise};
use crate::evp::{Md, MdCtx, Pkey, PkeyCtx, Settings};
use crate::key::Type;
use crate::keymgmt;
use crate::provider::{Provider, raise_alone};
use crate::sys::{self, OSSL_DISPATCH, OSSL_PARAM};

pub static ECDSA: Table<OSSL_DISPATCH, 22> = table(new_ecdsa);

pub static RSA: Table<OSSL_DISPATCH, 22> = table(new_rsa);

const fn table(
    new: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void,
) -> Table<OSSL_DISPATCH, 22> {
    Table([
        dispatch::signature_newctx(new),
        dispatch::signature_sign_init(sign_init),
        dispatch::signature_sign(sign),
        dispatch::signature_verify_init(verify_init),
        dispatch::signature_verify(verify),
        dispatch::signature_verify_recover_init(verify_recover_init),
        dispatch::signature_verify_recover(verify_recover),
        dispatch::signature_digest_sign_init(digest_sign_init),
        dispatch::signature_digest_sign_update(digest_sign_update),
        dispatch::signature_digest_sign_final(digest_sign_final),
        dispatch::signature_digest_sign(digest_sign),
        dispatch::signature_digest_verify_init(digest_verify_init),
        dispatch::signature_digest_verify_update(digest_verify_update),
        dispatch::signature_digest_verify_final(digest_verify_final),
        dispatch::signature_digest_verify(digest_verify),
        dispatch::signature_freectx(free),
        dispatch::signature_dupctx(duplicate),
        dispatch::signature_get_ctx_params(get_ctx_params),
        dispatch::signature_gettable_ctx_params(gettable_ctx_params),
        dispatch::signature_set_ctx_params(set_ctx_params),
        dispatch::signature_settable_ctx_params(settable_ctx_params),
        END,
    ])
}

/// A signature being made or verified.
struct Context {
    provider: Arc<Provider>,
    key_type: Type,
    key: Option<KeyParts>,
    operation: Operation,
}

/// What signing needs of a key.
#[derive(Clone)]
struct KeyParts {
    software: Pkey,
    remote: Option<Arc<RemoteKey>>,
}

enum Operation {
    None,
    /// Over a digest.
    Digest(Purpose, PkeyCtx),
    /// Over a message.
    Message(Purpose, MdCtx),
    /// Over a message, in the Keys Service. The first context is for verification and knows the settings.
    Remote {
        settings: MdCtx,
        hash: MdCtx,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Sign,
    /// As [`Purpose::Sign`], in the Keys Service; the context is for verification and knows the settings.
    SignRemotely,
    Verify,
    Recover,
}

impl Operation {
    fn settings(&self) -> Option<Settings<'_>> {
        match self {
            Self::None => None,
            Self::Digest(_, ctx) => Some(ctx.settings()),
            Self::Message(_, ctx) | Self::Remote { settings: ctx, .. } => Some(ctx.settings()),
        }
    }

    fn duplicate(&self) -> Option<Self> {
        Some(match self {
            Self::None => Self::None,
            Self::Digest(purpose, ctx) => Self::Digest(*purpose, ctx.duplicate()?),
            Self::Message(purpose, ctx) => Self::Message(*purpose, ctx.duplicate()?),
            Self::Remote { settings, hash } => Self::Remote {
                settings: settings.duplicate()?,
                hash: hash.duplicate()?,
            },
        })
    }
}

impl Context {
    /// Takes a key, or keeps the one it has if there is none.
    ///
    /// # Safety
    ///
    /// `key` is NULL, or a key of ours.
    unsafe fn take_key(&mut self, key: *mut c_void, function: &CStr) -> Option<KeyParts> {
        // SAFETY: as above.
        if let Some(key) = unsafe { keymgmt::borrow(key) } {
            if key.key_type != self.key_type {
                raise(function, Reason::Unsupported, "the key is of another type");
                return None;
            }
            let Some(software) = key.software.clone() else {
                raise(function, Reason::Argument, "there is no key yet");
                return None;
            };
            self.key = Some(KeyParts {
                software,
                remote: key.remote.clone(),
            });
        }
        if self.key.is_none() {
            raise(function, Reason::Argument, "there is no key");
        }
        self.key.clone()
    }

    /// Begins an operation over a digest.
    ///
    /// # Safety
    ///
    /// `key` is NULL, or a key of ours; `list` is NULL, or ends as it should.
    unsafe fn begin(
        &mut self,
        purpose: Purpose,
        key: *mut c_void,
        list: *const OSSL_PARAM,
        function: &CStr,
    ) -> c_int {
        self.operation = Operation::None;
        // SAFETY: as above.
        let Some(key) = (unsafe { self.take_key(key, function) }) else {
            return 0;
        };
        let purpose = match purpose {
            Purpose::Sign if key.remote.is_some() => Purpose::SignRemotely,
            purpose => purpose,
        };
        let Some(ctx) = PkeyCtx::for_key(self.provider.child(), &key.software) else {
            raise_alone(function);
            return 0;
        };
        // SAFETY: the context is alive; the list is good (caller).
        let ok = unsafe {
            match purpose {
                Purpose::Sign => sys::EVP_PKEY_sign_init_ex(ctx.as_ptr(), list),
                Purpose::Verify | Purpose::SignRemotely => {
                    sys::EVP_PKEY_verify_init_ex(ctx.as_ptr(), list)
                }
                Purpose::Recover => sys::EVP_PKEY_verify_recover_init_ex(ctx.as_ptr(), list),
            }
        };
        if ok != 1 {
            return 0;
        }
        self.operation = Operation::Digest(purpose, ctx);
        1
    }

    /// Begins an operation over a message.
    ///
    /// # Safety
    ///
    /// `digest` is NULL or a string, `key` is NULL, or a key of ours; `list` is NULL, or ends as it should.
    unsafe fn begin_message(
        &mut self,
        purpose: Purpose,
        digest: *const c_char,
        key: *mut c_void,
        list: *const OSSL_PARAM,
        function: &CStr,
    ) -> c_int {
        self.operation = Operation::None;
        // SAFETY: as above.
        let Some(key) = (unsafe { self.take_key(key, function) }) else {
            return 0;
        };
        let Some(ctx) = MdCtx::new() else {
            return 0;
        };
        let remotely = purpose == Purpose::Sign && key.remote.is_some();
        let init = if purpose == Purpose::Sign && !remotely {
            sys::EVP_DigestSignInit_ex
        } else {
            sys::EVP_DigestVerifyInit_ex
        };
        // SAFETY: all are alive; the string and the list are good (caller).
        let ok = unsafe {
            init(
                ctx.as_ptr(),
                ptr::null_mut(),
                digest,
                self.provider.child().as_ptr(),
                crate::evp::OTHERS.as_ptr(),
                key.software.as_ptr(),
                list,
            )
        };
        if ok != 1 {
            return 0;
        }
        self.operation = if remotely {
            let Some(hash) = self
                .digest(ctx.settings(), function)
                .and_then(|md| MdCtx::hash(&md))
            else {
                return 0;
            };
            Operation::Remote {
                settings: ctx,
                hash,
            }
        } else {
            Operation::Message(purpose, ctx)
        };
        1
    }

    /// The digest algorithm that is set. `None`, with an error on the queue, if there is none.
    fn digest(&self, settings: Settings<'_>, function: &CStr) -> Option<Md> {
        let Some(name) = settings.name(c"digest").filter(|name| !name.is_empty()) else {
            raise(
                function,
                Reason::Argument,
                "this key signs digests, and no digest algorithm is set: name one, such as SHA256",
            );
            return None;
        };
        Md::fetch(self.provider.child(), name.as_c_str())
    }

    /// Signs a digest in the Keys Service, as the settings say.
    fn sign_remotely(
        &self,
        settings: Settings<'_>,
        digest: &[u8],
        function: &CStr,
    ) -> Option<Vec<u8>> {
        let key = self.key.as_ref()?.remote.as_ref()?;
        let md = match settings.name(c"digest") {
            Some(name) if !name.is_empty() => {
                Some(Md::fetch(self.provider.child(), name.as_c_str())?)
            }
            _ => None,
        };
        if let Some(md) = &md
            && md.size() != digest.len()
        {
            raise(
                function,
                Reason::Argument,
                format!(
                    "the digest has {} bytes, and those of the algorithm that is set {}",
                    digest.len(),
                    md.size()
                ),
            );
            return None;
        }
        let signature = match key.public() {
            Public::Ec { .. } => key.sign_ecdsa(digest),
            Public::Rsa { n, e } => match settings.int(c"pad-mode") {
                Some(sys::RSA_PKCS1_PADDING) => match &md {
                    None => key.rsa_pkcs1(digest),
                    Some(md) => {
                        let Some(info) = padding::digest_info(md.nid(), digest) else {
                            raise(
                                function,
                                Reason::Unsupported,
                                "RSA with PKCS #1 padding does not sign digests of this algorithm",
                            );
                            return None;
                        };
                        key.rsa_pkcs1(&info)
                    }
                },
                Some(sys::RSA_PKCS1_PSS_PADDING) => {
                    let md = match md {
                        Some(md) => md,
                        None => self.digest(settings, function)?,
                    };
                    key.rsa_raw(&self.pss(settings, &md, digest, n, e)?)
                }
                Some(sys::RSA_NO_PADDING) => key.rsa_raw(digest),
                _ => {
                    raise(
                        function,
                        Reason::Unsupported,
                        "keys of the Keys Service sign with the paddings pkcs1, pss and none",
                    );
                    return None;
                }
            },
        };
        signature
            .inspect_err(|error| raise(function, Reason::Operation, error))
            .ok()
    }

    fn pss(
        &self,
        settings: Settings<'_>,
        md: &Md,
        digest: &[u8],
        n: &[u8],
        e: &[u8],
    ) -> Option<Vec<u8>> {
        let mgf1 = match settings.name(c"mgf1-digest") {
            Some(name) if !name.is_empty() => {
                Some(Md::fetch(self.provider.child(), name.as_c_str())?)
            }
            _ => None,
        };
        let mgf1 = mgf1.as_ref().unwrap_or(md);
        let salt_len = match settings.int(c"saltlen")? {
            sys::RSA_PSS_SALTLEN_AUTO => sys::RSA_PSS_SALTLEN_MAX,
            sys::RSA_PSS_SALTLEN_AUTO_DIGEST_MAX => {
                // The block is one byte shorter if the modulus begins with a bit in a byte of its own (RFC 8017, 9.1.1).
                let block = n.len().saturating_sub((n.first() == Some(&1)).into());
                let most = block.saturating_sub(digest.len()).saturating_sub(2);
                c_int::try_from(most.min(digest.len())).ok()?
            }
            len => len,
        };
        debug_assert!(salt_len >= sys::RSA_PSS_SALTLEN_MAX && sys::RSA_PSS_SALTLEN_DIGEST == -1);
        // SAFETY: both algorithms are alive, and the digest has the right length (`sign_remotely`).
        unsafe { padding::pss(n, e, digest, md.as_ptr(), mgf1.as_ptr(), salt_len) }
    }

    /// Longest signature of the key in the Keys Service.
    fn max_size(&self) -> Option<usize> {
        let key = self.key.as_ref()?.remote.as_ref()?;
        Some(key.public().max_size())
    }
}

/// Where a result goes.
struct Output {
    start: *mut c_uchar,
    len: *mut usize,
    room: usize,
}

impl Output {
    /// Writes the result of a call that knows how to say how long it gets.
    ///
    /// # Safety
    ///
    /// `start` is NULL or has `room` bytes; `len` is not NULL.
    unsafe fn put(&self, result: &[u8], function: &CStr) -> c_int {
        if result.len() > self.room {
            raise(function, Reason::Argument, "the buffer is too small");
            return 0;
        }
        // SAFETY: as above.
        unsafe {
            ptr::copy_nonoverlapping(result.as_ptr(), self.start, result.len());
            *self.len = result.len();
        }
        1
    }

    /// Answers how long the result gets, or says that there is not enough room for it. `None` if there is, so that it may be
    /// made. The Keys Service is not asked for a result that has nowhere to go.
    ///
    /// # Safety
    ///
    /// As [`Output::put`].
    unsafe fn ask(&self, max: usize, function: &CStr) -> Option<c_int> {
        if self.start.is_null() {
            // SAFETY: as above.
            unsafe { *self.len = max };
            return Some(1);
        }
        if self.room < max {
            raise(
                function,
                Reason::Argument,
                format!(
                    "the buffer has {} bytes, and {max} may be needed",
                    self.room
                ),
            );
            return Some(0);
        }
        None
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

/// Bytes that C gives.
///
/// # Safety
///
/// `len` bytes are there, or none and `start` may be NULL.
pub unsafe fn input<'i>(start: *const c_uchar, len: usize) -> &'i [u8] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// The properties that an application asks for chose this provider; they say nothing about others.
fn new(provider: *mut c_void, key_type: Type) -> *mut c_void {
    let context = Context {
        // SAFETY: the context of the provider.
        provider: unsafe { Provider::share(provider) },
        key_type,
        key: None,
        operation: Operation::None,
    };
    Box::into_raw(Box::new(context)).cast()
}

unsafe extern "C" fn new_ecdsa(provider: *mut c_void, _properties: *const c_char) -> *mut c_void {
    new(provider, Type::Ec)
}

unsafe extern "C" fn new_rsa(provider: *mut c_void, _properties: *const c_char) -> *mut c_void {
    new(provider, Type::Rsa)
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
    let Some(operation) = context.operation.duplicate() else {
        return ptr::null_mut();
    };
    let copy = Context {
        provider: Arc::clone(&context.provider),
        key_type: context.key_type,
        key: context.key.clone(),
        operation,
    };
    Box::into_raw(Box::new(copy)).cast()
}

unsafe extern "C" fn sign_init(
    context: *mut c_void,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: what libcrypto gives is what `begin` needs.
    unsafe { borrow(context).map_or(0, |c| c.begin(Purpose::Sign, key, list, c"sign_init")) }
}

unsafe extern "C" fn verify_init(
    context: *mut c_void,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: what libcrypto gives is what `begin` needs.
    unsafe { borrow(context).map_or(0, |c| c.begin(Purpose::Verify, key, list, c"verify_init")) }
}

unsafe extern "C" fn verify_recover_init(
    context: *mut c_void,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    let function = c"verify_recover_init";
    // SAFETY: what libcrypto gives is what `begin` needs.
    unsafe { borrow(context).map_or(0, |c| c.begin(Purpose::Recover, key, list, function)) }
}

unsafe extern "C" fn sign(
    context: *mut c_void,
    start: *mut c_uchar,
    len: *mut usize,
    room: usize,
    digest: *const c_uchar,
    digest_len: usize,
) -> c_int {
    let function = c"sign";
    let output = Output { start, len, room };
    // SAFETY: what `new` has given.
    let Some(context) = (unsafe { borrow(context) }) else {
        return 0;
    };
    match &context.operation {
        // SAFETY: the context is alive; buffers are as long as is said.
        Operation::Digest(Purpose::Sign, ctx) => unsafe {
            *len = room;
            sys::EVP_PKEY_sign(ctx.as_ptr(), start, len, digest, digest_len)
        },
        Operation::Digest(Purpose::SignRemotely, ctx) => {
            let Some(max) = context.max_size() else {
                return 0;
            };
            // SAFETY: libcrypto gives room for both.
            if let Some(answer) = unsafe { output.ask(max, function) } {
                return answer;
            }
            // SAFETY: as many bytes as is said.
            let digest = unsafe { input(digest, digest_len) };
            match context.sign_remotely(ctx.settings(), digest, function) {
                // SAFETY: libcrypto gives room for both.
                Some(signature) => unsafe { output.put(&signature, function) },
                None => 0,
            }
        }
        _ => 0,
    }
}

unsafe extern "C" fn verify(
    context: *mut c_void,
    signature: *const c_uchar,
    signature_len: usize,
    digest: *const c_uchar,
    digest_len: usize,
) -> c_int {
    // SAFETY: what `new` has given.
    match unsafe { borrow(context) }.map(|context| &context.operation) {
        // SAFETY: the context is alive; buffers are as long as is said.
        Some(Operation::Digest(Purpose::Verify, ctx)) => unsafe {
            (sys::EVP_PKEY_verify(ctx.as_ptr(), signature, signature_len, digest, digest_len) == 1)
                .into()
        },
        _ => 0,
    }
}

unsafe extern "C" fn verify_recover(
    context: *mut c_void,
    out: *mut c_uchar,
    len: *mut usize,
    room: usize,
    signature: *const c_uchar,
    signature_len: usize,
) -> c_int {
    // SAFETY: what `new` has given.
    match unsafe { borrow(context) }.map(|context| &context.operation) {
        // SAFETY: the context is alive; buffers are as long as is said.
        Some(Operation::Digest(Purpose::Recover, ctx)) => unsafe {
            *len = room;
            (sys::EVP_PKEY_verify_recover(ctx.as_ptr(), out, len, signature, signature_len) == 1)
                .into()
        },
        _ => 0,
    }
}

unsafe extern "C" fn digest_sign_init(
    context: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    let function = c"digest_sign_init";
    // SAFETY: what libcrypto gives is what `begin_message` needs.
    unsafe {
        borrow(context).map_or(0, |context| {
            context.begin_message(Purpose::Sign, digest, key, list, function)
        })
    }
}

unsafe extern "C" fn digest_verify_init(
    context: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    list: *const OSSL_PARAM,
) -> c_int {
    let function = c"digest_verify_init";
    // SAFETY: what libcrypto gives is what `begin_message` needs.
    unsafe {
        borrow(context).map_or(0, |context| {
            context.begin_message(Purpose::Verify, digest, key, list, function)
        })
    }
}

unsafe extern "C" fn digest_sign_update(
    context: *mut c_void,
    data: *const c_uchar,
    len: usize,
) -> c_int {
    // SAFETY: what `new` has given; the data are as long as is said.
    unsafe {
        match borrow(context).map(|context| &context.operation) {
            Some(Operation::Message(Purpose::Sign, ctx)) => {
                sys::EVP_DigestSignUpdate(ctx.as_ptr(), data.cast(), len)
            }
            Some(Operation::Remote { hash, .. }) => {
                sys::EVP_DigestUpdate(hash.as_ptr(), data.cast(), len)
            }
            _ => 0,
        }
    }
}

unsafe extern "C" fn digest_sign_final(
    context: *mut c_void,
    start: *mut c_uchar,
    len: *mut usize,
    room: usize,
) -> c_int {
    let function = c"digest_sign_final";
    let output = Output { start, len, room };
    // SAFETY: what `new` has given.
    let Some(context) = (unsafe { borrow(context) }) else {
        return 0;
    };
    match &context.operation {
        // SAFETY: the context is alive; buffers are as long as is said.
        Operation::Message(Purpose::Sign, ctx) => unsafe {
            *len = room;
            (sys::EVP_DigestSignFinal(ctx.as_ptr(), start, len) == 1).into()
        },
        Operation::Remote { settings, hash } => {
            let Some(max) = context.max_size() else {
                return 0;
            };
            // SAFETY: libcrypto gives room for both.
            if let Some(answer) = unsafe { output.ask(max, function) } {
                return answer;
            }
            let mut digest = [0; sys::EVP_MAX_MD_SIZE];
            let mut digest_len = 0;
            // SAFETY: the context is alive, and there is room for every digest.
            let ok = unsafe {
                sys::EVP_DigestFinal_ex(hash.as_ptr(), digest.as_mut_ptr(), &raw mut digest_len)
            };
            let digest = usize::try_from(digest_len)
                .ok()
                .and_then(|len| digest.get(..len));
            let (1, Some(digest)) = (ok, digest) else {
                return 0;
            };
            match context.sign_remotely(settings.settings(), digest, function) {
                // SAFETY: libcrypto gives room for both.
                Some(signature) => unsafe { output.put(&signature, function) },
                None => 0,
            }
        }
        _ => 0,
    }
}

unsafe extern "C" fn digest_sign(
    context: *mut c_void,
    start: *mut c_uchar,
    len: *mut usize,
    room: usize,
    data: *const c_uchar,
    data_len: usize,
) -> c_int {
    // SAFETY: the same as those two get.
    unsafe {
        if !start.is_null() && digest_sign_update(context, data, data_len) != 1 {
            return 0;
        }
        digest_sign_final(context, start, len, room)
    }
}

unsafe extern "C" fn digest_verify_update(
    context: *mut c_void,
    data: *const c_uchar,
    len: usize,
) -> c_int {
    // SAFETY: what `new` has given; the data are as long as is said.
    unsafe {
        match borrow(context).map(|context| &context.operation) {
            Some(Operation::Message(Purpose::Verify, ctx)) => {
                sys::EVP_DigestVerifyUpdate(ctx.as_ptr(), data.cast(), len)
            }
            _ => 0,
        }
    }
}

unsafe extern "C" fn digest_verify_final(
    context: *mut c_void,
    signature: *const c_uchar,
    len: usize,
) -> c_int {
    // SAFETY: what `new` has given; the signature is as long as is said.
    unsafe {
        match borrow(context).map(|context| &context.operation) {
            Some(Operation::Message(Purpose::Verify, ctx)) => {
                (sys::EVP_DigestVerifyFinal(ctx.as_ptr(), signature, len) == 1).into()
            }
            _ => 0,
        }
    }
}

unsafe extern "C" fn digest_verify(
    context: *mut c_void,
    signature: *const c_uchar,
    signature_len: usize,
    data: *const c_uchar,
    data_len: usize,
) -> c_int {
    // SAFETY: the same as those two get.
    unsafe {
        if digest_verify_update(context, data, data_len) != 1 {
            return 0;
        }
        digest_verify_final(context, signature, signature_len)
    }
}

unsafe extern "C" fn get_ctx_params(context: *mut c_void, list: *mut OSSL_PARAM) -> c_int {
    // SAFETY: what `new` has given; the list is NULL, or ends as it should.
    unsafe {
        match borrow(context).and_then(|context| context.operation.settings()) {
            Some(settings) => settings.answer(list),
            None => 0,
        }
    }
}

unsafe extern "C" fn set_ctx_params(context: *mut c_void, list: *const OSSL_PARAM) -> c_int {
    // SAFETY: what `new` has given; the list is NULL, or ends as it should.
    unsafe {
        match borrow(context).and_then(|context| context.operation.settings()) {
            Some(settings) => settings.change(list),
            None => 0,
        }
    }
}

unsafe extern "C" fn gettable_ctx_params(
    context: *mut c_void,
    provider: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: what `new` has given, and the context of the provider; the algorithm lives as long as that.
    unsafe {
        let Some(context) = borrow(context) else {
            return ptr::null();
        };
        match Provider::borrow(provider).signature(context.key_type) {
            Some(signature) => sys::EVP_SIGNATURE_gettable_ctx_params(signature.as_ptr()),
            None => ptr::null(),
        }
    }
}

unsafe extern "C" fn settable_ctx_params(
    context: *mut c_void,
    provider: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe {
        let Some(context) = borrow(context) else {
            return ptr::null();
        };
        // What may be set depends on what has been done.
        if let Some(settings) = context.operation.settings() {
            return settings.changeable();
        }
        match Provider::borrow(provider).signature(context.key_type) {
            Some(signature) => sys::EVP_SIGNATURE_settable_ctx_params(signature.as_ptr()),
            None => ptr::null(),
        }
    }
}
