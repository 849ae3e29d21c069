//! `sign` and `verify`.

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

use aziot_crypto::mac::TAG_LEN;

use super::{Reach, UNRECOGNISED};
use crate::abi::{
    Rc, SIGN_MECHANISM_DERIVED, SIGN_MECHANISM_ECDSA, SIGN_MECHANISM_HMAC_SHA256,
    SignDerivedParameters,
};
use crate::arguments::text;
use crate::arguments::{Answer, Output, bytes, parameters};
use crate::failure::{Failure, answer};

/// Longest ECDSA signature. OpenSSL takes fields of at most 661 bits, for which a signature has 173 bytes at most.
const MAX_SIGNATURE_LEN: usize = 192;

pub(crate) unsafe extern "C" fn sign<R: Reach>(
    id: *const c_char,
    mechanism: c_uint,
    mechanism_parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *mut c_uchar,
    signature_len: *mut usize,
) -> Rc {
    let sign = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, message, output) = unsafe {
            (
                text("id", id)?,
                bytes("digest", digest, digest_len)?,
                Output::new("signature_len", signature, signature_len)?,
            )
        };
        // SAFETY: the parameters are those of the mechanism.
        match unsafe { Mechanism::read(mechanism, mechanism_parameters) }? {
            Mechanism::Ecdsa => ecdsa::<R>(id, message, output),
            Mechanism::HmacSha256 => {
                let key = R::key("id", id)?;
                output.put(TAG_LEN, || key.sign(message).map_err(Failure::about("id")))
            }
            Mechanism::DerivedHmacSha256(data) => {
                let key = R::key("id", id)?;
                output.put(TAG_LEN, || {
                    let key = key.derived(data).map_err(Failure::about("id"))?;
                    Ok(key.sign(message))
                })
            }
        }
    };
    answer(sign())
}

fn ecdsa<R: Reach>(id: &str, digest: &[u8], output: Output) -> Result<(), Failure> {
    let pair = R::key_pair("id", id)?;
    let bound = pair.signature_bound().ok_or(Failure::Argument {
        name: "mechanism",
        reason: "ECDSA needs an EC key",
    })?;
    output.put(bound, || {
        R::work(!pair.signs_at_once())?;
        let mut signature = Signature {
            bytes: [0; MAX_SIGNATURE_LEN],
            len: 0,
        };
        signature.len = pair
            .sign_ecdsa(digest, &mut signature.bytes)
            .map_err(Failure::about("id"))?;
        Ok(signature)
    })
}

struct Signature {
    bytes: [u8; MAX_SIGNATURE_LEN],
    len: usize,
}

impl AsRef<[u8]> for Signature {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

pub(crate) unsafe extern "C" fn verify<R: Reach>(
    id: *const c_char,
    mechanism: c_uint,
    _parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *const c_uchar,
    signature_len: usize,
    ok: *mut c_int,
) -> Rc {
    let verify = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, message, signature, ok) = unsafe {
            (
                text("id", id)?,
                bytes("digest", digest, digest_len)?,
                bytes("signature", signature, signature_len)?,
                Answer::new("ok", ok)?,
            )
        };
        if mechanism != SIGN_MECHANISM_HMAC_SHA256 {
            return Err(Failure::Argument {
                name: "mechanism",
                reason: UNRECOGNISED,
            });
        }
        let right = R::key("id", id)?
            .verify(message, signature)
            .map_err(Failure::about("id"))?;
        ok.put(c_int::from(right));
        Ok(())
    };
    answer(verify())
}

/// How to sign.
enum Mechanism<'a> {
    Ecdsa,
    HmacSha256,
    /// With the key derived from the given data.
    DerivedHmacSha256(&'a [u8]),
}

impl Mechanism<'_> {
    /// # Safety
    ///
    /// The parameters are null or those of the mechanism, and stay unchanged for as long as the value is used.
    unsafe fn read(
        mechanism: c_uint,
        mechanism_parameters: *const c_void,
    ) -> Result<Self, Failure> {
        match mechanism {
            SIGN_MECHANISM_ECDSA => Ok(Self::Ecdsa),
            SIGN_MECHANISM_HMAC_SHA256 => Ok(Self::HmacSha256),
            SIGN_MECHANISM_DERIVED => {
                // SAFETY: these are the parameters of this mechanism.
                let inner: SignDerivedParameters = unsafe { parameters(mechanism_parameters) }?;
                // SAFETY: their data is a buffer of the ABI.
                let data = unsafe {
                    bytes(
                        "derivation_data",
                        inner.derivation_data,
                        inner.derivation_data_len,
                    )
                }?;
                match inner.mechanism {
                    SIGN_MECHANISM_HMAC_SHA256 => Ok(Self::DerivedHmacSha256(data)),
                    _ => Err(Failure::Argument {
                        name: "parameters.mechanism",
                        reason: UNRECOGNISED,
                    }),
                }
            }
            _ => Err(Failure::Argument {
                name: "mechanism",
                reason: UNRECOGNISED,
            }),
        }
    }
}
