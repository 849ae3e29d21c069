//! `encrypt` and `decrypt`.

use core::ffi::{c_char, c_uchar, c_uint, c_void};

use aziot_crypto::aead::{OVERHEAD, Sealed};
use aziot_crypto::key_pair::RsaPadding;

use super::{Reach, UNRECOGNISED};
use crate::abi::{
    ENCRYPT_MECHANISM_AEAD, ENCRYPT_MECHANISM_DERIVED, ENCRYPT_MECHANISM_RSA_NO_PADDING,
    ENCRYPT_MECHANISM_RSA_PKCS1, EncryptAeadParameters, EncryptDerivedParameters, Rc,
};
use crate::arguments::{Output, bytes, optional_bytes, parameters, text};
use crate::failure::{Failure, answer};

/// Longest input, in bytes and with its additional data, that is encrypted or decrypted for a caller who must not wait; it takes some 20 µs.
const MAX_QUICK_LEN: usize = 64 * 1024;

pub(crate) unsafe extern "C" fn encrypt<R: Reach>(
    id: *const c_char,
    mechanism: c_uint,
    mechanism_parameters: *const c_void,
    plaintext: *const c_uchar,
    plaintext_len: usize,
    ciphertext: *mut c_uchar,
    ciphertext_len: *mut usize,
) -> Rc {
    let encrypt = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, plaintext, output) = unsafe {
            (
                text("id", id)?,
                bytes("plaintext", plaintext, plaintext_len)?,
                Output::new("ciphertext_len", ciphertext, ciphertext_len)?,
            )
        };
        // SAFETY: the parameters are those of the mechanism.
        match unsafe { Mechanism::read(mechanism, mechanism_parameters) }? {
            Mechanism::Rsa(padding) => rsa_private::<R>(id, padding, plaintext, output),
            Mechanism::Aead { derived, iv, aad } => {
                let key = R::key("id", id)?;
                let len = plaintext.len().saturating_add(OVERHEAD);
                output.fill(len, &[plaintext, iv, aad], &mut |out| {
                    R::work(is_long([plaintext, aad]))?;
                    match derived {
                        None => key.encrypt(iv, aad, plaintext, out),
                        Some(data) => key
                            .derived(data)
                            .and_then(|key| key.encrypt(iv, aad, plaintext, out)),
                    }
                    .map_err(Failure::about("plaintext"))
                })
            }
        }
    };
    answer(encrypt())
}

/// RSA's private operation. Its result is always as long as the modulus.
fn rsa_private<R: Reach>(
    id: &str,
    padding: RsaPadding,
    input: &[u8],
    output: Output,
) -> Result<(), Failure> {
    let pair = R::key_pair("id", id)?;
    let len = pair.modulus_len().ok_or(Failure::Argument {
        name: "mechanism",
        reason: "RSA needs an RSA key",
    })?;
    output.fill(len, &[input], &mut |out| {
        R::work(true)?;
        pair.rsa_private(padding, input, out)
            .map_err(Failure::about("plaintext"))
    })
}

pub(crate) unsafe extern "C" fn decrypt<R: Reach>(
    id: *const c_char,
    mechanism: c_uint,
    mechanism_parameters: *const c_void,
    ciphertext: *const c_uchar,
    ciphertext_len: usize,
    plaintext: *mut c_uchar,
    plaintext_len: *mut usize,
) -> Rc {
    let decrypt = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, ciphertext, output) = unsafe {
            (
                text("id", id)?,
                bytes("ciphertext", ciphertext, ciphertext_len)?,
                Output::new("plaintext_len", plaintext, plaintext_len)?,
            )
        };
        // SAFETY: the parameters are those of the mechanism.
        let mechanism = unsafe { Mechanism::read(mechanism, mechanism_parameters) }?;
        let Mechanism::Aead { derived, iv, aad } = mechanism else {
            return Err(Failure::Argument {
                name: "mechanism",
                reason: "RSA keys do not decrypt",
            });
        };
        let key = R::key("id", id)?;
        let sealed = Sealed::parse(ciphertext).map_err(Failure::Ciphertext)?;
        output.fill(
            sealed.ciphertext.len(),
            &[ciphertext, iv, aad],
            &mut |out| {
                R::work(is_long([ciphertext, aad]))?;
                match derived {
                    None => key.decrypt(iv, aad, ciphertext, out),
                    Some(data) => key
                        .derived(data)
                        .and_then(|key| key.decrypt(iv, aad, ciphertext, out)),
                }
                .map_err(Failure::about("ciphertext"))
            },
        )
    };
    answer(decrypt())
}

fn is_long(inputs: [&[u8]; 2]) -> bool {
    let len = inputs.into_iter().map(<[u8]>::len);
    len.fold(0, usize::saturating_add) > MAX_QUICK_LEN
}

/// How to encrypt or decrypt.
enum Mechanism<'a> {
    /// Authenticated, with the key itself or with the one derived from the given data.
    Aead {
        derived: Option<&'a [u8]>,
        iv: &'a [u8],
        aad: &'a [u8],
    },
    Rsa(RsaPadding),
}

impl Mechanism<'_> {
    /// # Safety
    ///
    /// The parameters are null or those of the mechanism, and stay unchanged for as long as the value is used.
    unsafe fn read(
        mechanism: c_uint,
        mechanism_parameters: *const c_void,
    ) -> Result<Self, Failure> {
        let (derived, inner) = match mechanism {
            ENCRYPT_MECHANISM_RSA_PKCS1 => return Ok(Self::Rsa(RsaPadding::Pkcs1)),
            ENCRYPT_MECHANISM_RSA_NO_PADDING => return Ok(Self::Rsa(RsaPadding::None)),
            ENCRYPT_MECHANISM_AEAD => (None, mechanism_parameters),
            ENCRYPT_MECHANISM_DERIVED => {
                // SAFETY: these are the parameters of this mechanism.
                let outer: EncryptDerivedParameters = unsafe { parameters(mechanism_parameters) }?;
                // SAFETY: their data is a buffer of the ABI.
                let data = unsafe {
                    bytes(
                        "derivation_data",
                        outer.derivation_data,
                        outer.derivation_data_len,
                    )
                }?;
                if outer.mechanism != ENCRYPT_MECHANISM_AEAD {
                    return Err(Failure::Argument {
                        name: "parameters.mechanism",
                        reason: UNRECOGNISED,
                    });
                }
                (Some(data), outer.parameters)
            }
            _ => {
                return Err(Failure::Argument {
                    name: "mechanism",
                    reason: UNRECOGNISED,
                });
            }
        };
        // SAFETY: these are the parameters of authenticated encryption, with two buffers of the ABI.
        unsafe {
            let aead: EncryptAeadParameters = parameters(inner)?;
            Ok(Self::Aead {
                derived,
                iv: optional_bytes("iv", aead.iv, aead.iv_len)?,
                aad: optional_bytes("aad", aead.aad, aead.aad_len)?,
            })
        }
    }
}
