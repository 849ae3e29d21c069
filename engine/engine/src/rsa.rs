//! RSA with a key of the Keys Service. Verification, encryption and PSS padding are OpenSSL's own.
//!
//! OpenSSL calls these methods with PKCS #1 padding for a `DigestInfo` it has made, and with no padding for blocks that it
//! has padded (PSS) or will take apart (OAEP). The service pads for signatures. It has no decryption, but raw RSA is the same
//! thing; what is left is to undo the padding here.

use std::ffi::{c_int, c_uchar};
use std::ptr;
use std::sync::{Arc, OnceLock};

use aziot_keys_remote::{Public, RemoteKey, padding};
use openssl_sys as ffi;
use zeroize::Zeroizing;

use crate::error::{Function, raise, raise_key};
use crate::ex_data::{Full, Slot};
use crate::sys::{self, RSA, RSA_METHOD};

// SAFETY: the class is that of `RSA`, and so are the functions.
static KEYS: Slot<RSA, RemoteKey> = unsafe {
    Slot::new(
        sys::CRYPTO_EX_INDEX_RSA,
        true,
        sys::RSA_get_ex_data,
        sys::RSA_set_ex_data,
    )
};

/// Prepares what keys need.
pub fn register() -> Result<(), Full> {
    KEYS.register()?;
    method().map(drop).ok_or(Full)
}

/// Has the key sign and decrypt with this key pair.
///
/// # Safety
///
/// The key is alive, and nobody else uses it yet.
pub unsafe fn attach(rsa: *mut RSA, key: Arc<RemoteKey>) -> Option<()> {
    let method = method()?;
    // SAFETY: the key is alive (caller), and the method lives for ever.
    unsafe {
        KEYS.set(rsa, key).ok()?;
        (sys::RSA_set_method(rsa, method) == 1).then_some(())
    }
}

/// OpenSSL's method with other private operations. Made once and kept: keys refer to it for as long as they live.
fn method() -> Option<*const RSA_METHOD> {
    struct Method(*const RSA_METHOD);
    // SAFETY: it is not changed once it is made.
    unsafe impl Send for Method {}
    // SAFETY: as above.
    unsafe impl Sync for Method {}
    static METHOD: OnceLock<Method> = OnceLock::new();

    let method = METHOD.get_or_init(|| {
        // SAFETY: copies OpenSSL's method. NULL means that there is no memory.
        Method(unsafe {
            // Not the default method: that could be another engine's.
            let method = sys::RSA_meth_dup(sys::RSA_PKCS1_OpenSSL());
            let ok = !method.is_null()
                && sys::RSA_meth_set1_name(method, c"aziot-keys RSA".as_ptr()) == 1
                && sys::RSA_meth_set_flags(method, 0) == 1
                && sys::RSA_meth_set_priv_enc(method, priv_enc) == 1
                && sys::RSA_meth_set_priv_dec(method, priv_dec) == 1;
            if ok {
                method
            } else {
                sys::RSA_meth_free(method);
                ptr::null_mut()
            }
        })
    });
    (!method.0.is_null()).then_some(method.0)
}

/// What an operation gives, or works on.
type Block = Zeroizing<Vec<u8>>;

/// Why an operation failed, where the key pair itself does not say.
enum Failure {
    Key(aziot_keys_remote::Error),
    Other(String),
}

/// What signs: pads `from`, if that is asked for, and applies the private key.
unsafe extern "C" fn priv_enc(
    len: c_int,
    from: *const c_uchar,
    to: *mut c_uchar,
    rsa: *mut RSA,
    padding: c_int,
) -> c_int {
    // SAFETY: the same arguments.
    unsafe {
        operate(Function::RsaPrivEnc, len, from, to, rsa, |key, _, input| {
            match padding {
                sys::RSA_PKCS1_PADDING => key.rsa_pkcs1(input),
                sys::RSA_NO_PADDING => key.rsa_raw(input),
                _ => return Err(unrecognized(padding)),
            }
            .map(Block::new)
            .map_err(Failure::Key)
        })
    }
}

/// What decrypts: applies the private key, and undoes the padding, if that is asked for.
unsafe extern "C" fn priv_dec(
    len: c_int,
    from: *const c_uchar,
    to: *mut c_uchar,
    rsa: *mut RSA,
    padding: c_int,
) -> c_int {
    // SAFETY: the same arguments.
    unsafe {
        operate(Function::RsaPrivDec, len, from, to, rsa, |key, n, input| {
            if !matches!(
                padding,
                sys::RSA_PKCS1_PADDING
                    | sys::RSA_NO_PADDING
                    | sys::RSA_PKCS1_OAEP_PADDING
                    | sys::RSA_PKCS1_NO_IMPLICIT_REJECT_PADDING
            ) {
                return Err(unrecognized(padding));
            }
            // A number may come without its leading zeros. Longer input is refused below.
            let mut ciphertext = vec![0; n.len().saturating_sub(input.len())];
            ciphertext.extend_from_slice(input);
            let block = Block::new(key.rsa_raw(&ciphertext).map_err(Failure::Key)?);
            match padding {
                sys::RSA_PKCS1_PADDING => padding::pkcs1(&block, &ciphertext),
                sys::RSA_PKCS1_NO_IMPLICIT_REJECT_PADDING => pkcs1_explicit(&block),
                sys::RSA_PKCS1_OAEP_PADDING => {
                    // What this padding stands for outside of EVP: no label, and SHA-1 for everything.
                    let sha1 = ffi::EVP_sha1();
                    padding::oaep(&block, &[], sha1, sha1)
                }
                _ => Some(block),
            }
            .ok_or_else(|| {
                Failure::Other("the decrypted block is not padded as it should be".into())
            })
        })
    }
}

/// Has `operation` turn `from` into what is written to `to`. The length of that, or −1 with the reason on the error queue.
///
/// # Safety
///
/// The arguments are those of a method of RSA.
unsafe fn operate(
    function: Function,
    len: c_int,
    from: *const c_uchar,
    to: *mut c_uchar,
    rsa: *mut RSA,
    operation: impl FnOnce(&RemoteKey, &[u8], &[u8]) -> Result<Block, Failure>,
) -> c_int {
    // SAFETY: libcrypto passes a key that is alive, and input as long as it says.
    let (key, input) = unsafe {
        let input = match usize::try_from(len) {
            Ok(0) => Some(&[][..]),
            Ok(len) if !from.is_null() => Some(std::slice::from_raw_parts(from, len)),
            _ => None,
        };
        (KEYS.get(rsa), input)
    };
    let outcome = match (key, input) {
        (Some(key), Some(input)) if !to.is_null() => match key.public() {
            Public::Rsa { n, .. } => operation(key, n, input).and_then(|output| {
                let len = c_int::try_from(output.len()).ok();
                // The buffer is as long as the modulus.
                let len = len.filter(|_| output.len() <= n.len());
                let len = len.ok_or_else(|| Failure::Other("the result is too long".into()))?;
                // SAFETY: as above, and the output is not in that buffer.
                unsafe { ptr::copy_nonoverlapping(output.as_ptr(), to, output.len()) };
                Ok(len)
            }),
            Public::Ec { .. } => Err(Failure::Other("the key pair is not an RSA key".into())),
        },
        (None, _) => Err(Failure::Other(
            "the key has the engine's method, but was not loaded through it".into(),
        )),
        _ => Err(Failure::Other("there is nothing to work on".into())),
    };
    match outcome {
        Ok(len) => return len,
        Err(Failure::Key(error)) => raise_key(function, &error),
        Err(Failure::Other(text)) => raise(function, text),
    }
    -1
}

fn unrecognized(padding: c_int) -> Failure {
    Failure::Other(format!("unrecognized RSA padding scheme 0x{padding:08x}"))
}

/// The message in a block with PKCS #1 v1.5 padding. `None` if it is not padded so: applications that ask for this deal with
/// the difference themselves.
fn pkcs1_explicit(block: &[u8]) -> Option<Block> {
    let len = c_int::try_from(block.len()).ok()?;
    let mut message = Block::new(vec![0; block.len()]);
    // SAFETY: both are as long as is said.
    let written = unsafe {
        ffi::RSA_padding_check_PKCS1_type_2(message.as_mut_ptr(), len, block.as_ptr(), len, len)
    };
    message.truncate(usize::try_from(written).ok()?);
    Some(message)
}
