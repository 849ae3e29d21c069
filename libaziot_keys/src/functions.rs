//! The functions of the lists. Their contracts are in [`crate::abi`] and in the specification of the key library,
//! section A7.
//!
//! Safety, for all of them: pointers are what the ABI says they are (strings are NUL-terminated, buffers are as long
//! as their lengths say), or null.

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::path::Path;
use std::sync::LazyLock;

use aziot_crypto::mac::TAG_LEN;
use aziot_crypto::store::{self, Key, Location, Store};

use crate::abi::{
    ENCRYPT_MECHANISM_AEAD, ENCRYPT_MECHANISM_DERIVED, ENCRYPT_MECHANISM_RSA_NO_PADDING,
    ENCRYPT_MECHANISM_RSA_PKCS1, EncryptAeadParameters, EncryptDerivedParameters,
    KEY_LOCATION_FILE, KEY_LOCATION_NONE, KEY_LOCATION_PKCS11, KEY_PAIR_PARAMETER_TYPE_ALGORITHM,
    KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT, Rc, SIGN_MECHANISM_DERIVED, SIGN_MECHANISM_ECDSA,
    SIGN_MECHANISM_HMAC_SHA256, SignDerivedParameters,
};
use crate::arguments::{Answer, Output, bytes, optional_text, parameters, text};
use crate::failure::{Failure, answer};

/// The one store of the process.
static STORE: LazyLock<Store> = LazyLock::new(Store::new);

const UNRECOGNISED: &str = "unrecognized value";

/// Prefix of the parameters that give a key its own location.
const PRELOADED: &str = "preloaded_key:";

/// Where a call gets its key from. The first argument is the name of the parameter that holds the id.
type Lookup = fn(&'static str, &str) -> Result<Key, Failure>;

/// From memory or from the disk.
fn find(name: &'static str, id: &str) -> Result<Key, Failure> {
    STORE.key(id).map_err(|err| Failure::Key { name, err })
}

/// From memory only.
fn find_in_memory(_: &'static str, id: &str) -> Result<Key, Failure> {
    STORE.cached_key(id).ok_or(Failure::WouldBlock)
}

pub(crate) unsafe extern "C" fn set_parameter(name: *const c_char, value: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("name", name) }.and_then(|name| {
        let unknown = Err(Failure::Argument {
            name: "name",
            reason: UNRECOGNISED,
        });
        let preloaded = name.strip_prefix(PRELOADED);
        if !matches!(
            name,
            "homedir_path" | "pkcs11_lib_path" | "pkcs11_base_slot"
        ) && preloaded.is_none_or(str::is_empty)
        {
            return unknown;
        }
        // SAFETY: the same.
        let value = unsafe { text("value", value) }?;
        match preloaded {
            Some(id) => STORE.preload(id, value).map_err(|err| Failure::Location {
                name: "value",
                reason: err.to_string(),
            }),
            None if name == "homedir_path" => {
                STORE.set_home(Path::new(value));
                Ok(())
            }
            None => Err(Failure::Argument {
                name: "name",
                reason: "PKCS#11 is not supported by this build",
            }),
        }
    }))
}

pub(crate) unsafe extern "C" fn create_key_pair_if_not_exists(
    id: *const c_char,
    preferred_algorithms: *const c_char,
) -> Rc {
    let create = || {
        // SAFETY: the ABI's promise about strings.
        let (_id, algorithms) = unsafe {
            (
                text("id", id)?,
                optional_text("preferred_algorithms", preferred_algorithms)?,
            )
        };
        let known = |algorithm| matches!(algorithm, "ec-p256" | "rsa-2048" | "rsa-4096" | "*");
        if algorithms.is_some_and(|list| !list.split(':').any(known)) {
            return Err(Failure::Argument {
                name: "preferred_algorithms",
                reason: UNRECOGNISED,
            });
        }
        Err(Failure::KEY_PAIRS)
    };
    answer(create())
}

pub(crate) unsafe extern "C" fn move_key_pair(from: *const c_char, to: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    let ids = unsafe { text("from", from).and_then(|from| Ok((from, text("to", to)?))) };
    answer(ids.and_then(|(from, to)| {
        STORE
            .move_key(from, to)
            .map_err(|err| Failure::Key { name: "from", err })
    }))
}

pub(crate) unsafe extern "C" fn load_key_pair(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(key_pair))
}

pub(crate) unsafe extern "C" fn get_key_pair_parameter(
    id: *const c_char,
    type_: c_uint,
    value: *mut c_uchar,
    value_len: *mut usize,
) -> Rc {
    let parameter = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, _output) =
            unsafe { (text("id", id)?, Output::new("value_len", value, value_len)?) };
        if !(KEY_PAIR_PARAMETER_TYPE_ALGORITHM..=KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT)
            .contains(&type_)
        {
            return Err(Failure::Argument {
                name: "type_",
                reason: UNRECOGNISED,
            });
        }
        key_pair(id)
    };
    answer(parameter())
}

pub(crate) unsafe extern "C" fn delete_key_pair(id: *const c_char) -> Rc {
    // SAFETY: the same arguments.
    unsafe { delete_key(id) }
}

pub(crate) unsafe extern "C" fn create_key_if_not_exists(id: *const c_char, _usage: c_uint) -> Rc {
    // A file does not know what its key is for, and earlier releases took any usage for it: so does this.
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| {
        STORE
            .create_key(id)
            .map(drop)
            .map_err(|err| Failure::Key { name: "id", err })
    }))
}

pub(crate) unsafe extern "C" fn load_key(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| find("id", id).map(drop)))
}

pub(crate) unsafe extern "C" fn import_key(
    id: *const c_char,
    key_bytes: *const u8,
    bytes_len: usize,
    _usage: c_uint,
) -> Rc {
    // SAFETY: the ABI's promises about strings and buffers.
    let arguments =
        unsafe { text("id", id).and_then(|id| Ok((id, bytes("bytes", key_bytes, bytes_len)?))) };
    answer(arguments.and_then(|(id, key_bytes)| {
        STORE.import_key(id, key_bytes).map(drop).map_err(|err| {
            let about_bytes = matches!(
                err,
                store::Error::EmptyImport | store::Error::PemImport | store::Error::TooLong
            );
            Failure::Key {
                name: if about_bytes { "bytes" } else { "id" },
                err,
            }
        })
    }))
}

pub(crate) unsafe extern "C" fn delete_key(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| {
        STORE
            .delete(id)
            .map(drop)
            .map_err(|err| Failure::Key { name: "id", err })
    }))
}

pub(crate) unsafe extern "C" fn derive_key(
    base_id: *const c_char,
    derivation_data: *const u8,
    derivation_data_len: usize,
    derived_key: *mut c_uchar,
    derived_key_len: *mut usize,
) -> Rc {
    // SAFETY: the same arguments.
    answer(unsafe {
        derive_key_of(
            find,
            base_id,
            derivation_data,
            derivation_data_len,
            derived_key,
            derived_key_len,
        )
    })
}

pub(crate) unsafe extern "C" fn sign(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *mut c_uchar,
    signature_len: *mut usize,
) -> Rc {
    // SAFETY: the same arguments.
    answer(unsafe {
        sign_with(
            find,
            id,
            mechanism,
            parameters,
            digest,
            digest_len,
            signature,
            signature_len,
        )
    })
}

pub(crate) unsafe extern "C" fn verify(
    id: *const c_char,
    mechanism: c_uint,
    _parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *const c_uchar,
    signature_len: usize,
    ok: *mut c_int,
) -> Rc {
    // SAFETY: the same arguments.
    answer(unsafe {
        verify_with(
            find,
            id,
            mechanism,
            digest,
            digest_len,
            signature,
            signature_len,
            ok,
        )
    })
}

pub(crate) unsafe extern "C" fn encrypt(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    plaintext: *const c_uchar,
    plaintext_len: usize,
    ciphertext: *mut c_uchar,
    ciphertext_len: *mut usize,
) -> Rc {
    let encrypt = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let id = unsafe {
            Output::new("ciphertext_len", ciphertext, ciphertext_len)?;
            bytes("plaintext", plaintext, plaintext_len)?;
            text("id", id)?
        };
        match mechanism {
            ENCRYPT_MECHANISM_RSA_PKCS1 | ENCRYPT_MECHANISM_RSA_NO_PADDING => key_pair(id),
            // SAFETY: the parameters are those of the mechanism.
            _ => unsafe { check_aead(id, mechanism, parameters) },
        }
    };
    answer(encrypt())
}

pub(crate) unsafe extern "C" fn decrypt(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    ciphertext: *const c_uchar,
    ciphertext_len: usize,
    plaintext: *mut c_uchar,
    plaintext_len: *mut usize,
) -> Rc {
    let decrypt = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let id = unsafe {
            Output::new("plaintext_len", plaintext, plaintext_len)?;
            bytes("ciphertext", ciphertext, ciphertext_len)?;
            text("id", id)?
        };
        // SAFETY: the parameters are those of the mechanism.
        unsafe { check_aead(id, mechanism, parameters) }
    };
    answer(decrypt())
}

pub(crate) unsafe extern "C" fn try_sign(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *mut c_uchar,
    signature_len: *mut usize,
) -> Rc {
    // SAFETY: the same arguments.
    answer(unsafe {
        sign_with(
            find_in_memory,
            id,
            mechanism,
            parameters,
            digest,
            digest_len,
            signature,
            signature_len,
        )
    })
}

pub(crate) unsafe extern "C" fn try_verify(
    id: *const c_char,
    mechanism: c_uint,
    _parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *const c_uchar,
    signature_len: usize,
    ok: *mut c_int,
) -> Rc {
    // SAFETY: the same arguments.
    answer(unsafe {
        verify_with(
            find_in_memory,
            id,
            mechanism,
            digest,
            digest_len,
            signature,
            signature_len,
            ok,
        )
    })
}

pub(crate) unsafe extern "C" fn try_derive_key(
    base_id: *const c_char,
    derivation_data: *const u8,
    derivation_data_len: usize,
    derived_key: *mut c_uchar,
    derived_key_len: *mut usize,
) -> Rc {
    // SAFETY: the same arguments.
    answer(unsafe {
        derive_key_of(
            find_in_memory,
            base_id,
            derivation_data,
            derivation_data_len,
            derived_key,
            derived_key_len,
        )
    })
}

pub(crate) unsafe extern "C" fn try_load_key(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| find_in_memory("id", id).map(drop)))
}

pub(crate) unsafe extern "C" fn key_location(id: *const c_char, location: *mut c_uint) -> Rc {
    // SAFETY: the ABI's promises about strings and pointers.
    let arguments =
        unsafe { text("id", id).and_then(|id| Ok((id, Answer::new("location", location)?))) };
    answer(arguments.map(|(id, location)| {
        location.put(match STORE.location(id) {
            Some(Location::File) => KEY_LOCATION_FILE,
            Some(Location::Pkcs11) => KEY_LOCATION_PKCS11,
            _ => KEY_LOCATION_NONE,
        });
    }))
}

pub(crate) unsafe extern "C" fn sweep() -> Rc {
    answer(STORE.sweep().map(drop).map_err(|err| Failure::Key {
        name: "homedir_path",
        err,
    }))
}

unsafe fn derive_key_of(
    lookup: Lookup,
    base_id: *const c_char,
    derivation_data: *const u8,
    derivation_data_len: usize,
    derived_key: *mut c_uchar,
    derived_key_len: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the ABI's promises about strings and buffers.
    let (base_id, data, output) = unsafe {
        (
            text("base_id", base_id)?,
            bytes("derivation_data", derivation_data, derivation_data_len)?,
            Output::new("derived_key_len", derived_key, derived_key_len)?,
        )
    };
    let key = lookup("base_id", base_id)?;
    output.put(TAG_LEN, || SecretTag(key.mac().sign(data)))
}

#[allow(clippy::too_many_arguments, reason = "those of the ABI")]
unsafe fn sign_with(
    lookup: Lookup,
    id: *const c_char,
    mechanism: c_uint,
    mechanism_parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *mut c_uchar,
    signature_len: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the ABI's promises about strings and buffers.
    let (id, message, output) = unsafe {
        (
            text("id", id)?,
            bytes("digest", digest, digest_len)?,
            Output::new("signature_len", signature, signature_len)?,
        )
    };
    match mechanism {
        SIGN_MECHANISM_ECDSA => key_pair(id),
        SIGN_MECHANISM_HMAC_SHA256 => {
            let key = lookup("id", id)?;
            output.put(TAG_LEN, || SecretTag(key.mac().sign(message)))
        }
        SIGN_MECHANISM_DERIVED => {
            // SAFETY: these are the parameters of this mechanism, and their data is a buffer of the ABI.
            let (inner, data) = unsafe {
                let inner: SignDerivedParameters = parameters(mechanism_parameters)?;
                (
                    inner.mechanism,
                    bytes(
                        "derivation_data",
                        inner.derivation_data,
                        inner.derivation_data_len,
                    )?,
                )
            };
            if inner != SIGN_MECHANISM_HMAC_SHA256 {
                return Err(Failure::Argument {
                    name: "mechanism",
                    reason: UNRECOGNISED,
                });
            }
            let key = lookup("id", id)?;
            output.put(TAG_LEN, || SecretTag(key.mac().derive(data).sign(message)))
        }
        _ => Err(Failure::Argument {
            name: "mechanism",
            reason: UNRECOGNISED,
        }),
    }
}

#[allow(clippy::too_many_arguments, reason = "those of the ABI")]
unsafe fn verify_with(
    lookup: Lookup,
    id: *const c_char,
    mechanism: c_uint,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *const c_uchar,
    signature_len: usize,
    ok: *mut c_int,
) -> Result<(), Failure> {
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
    ok.put(c_int::from(
        lookup("id", id)?.mac().verify(message, signature),
    ));
    Ok(())
}

/// What every use of a key pair comes to in this build.
fn key_pair(id: &str) -> Result<(), Failure> {
    match STORE.exists(id) {
        Ok(true) => Err(Failure::KEY_PAIRS),
        Ok(false) => Err(Failure::Argument {
            name: "id",
            reason: "not found",
        }),
        Err(err) => Err(Failure::Key { name: "id", err }),
    }
}

/// What every authenticated encryption and decryption comes to in this build.
///
/// # Safety
///
/// The parameters are null or those of the mechanism.
unsafe fn check_aead(
    id: &str,
    mechanism: c_uint,
    mechanism_parameters: *const c_void,
) -> Result<(), Failure> {
    let inner = match mechanism {
        ENCRYPT_MECHANISM_AEAD => mechanism_parameters,
        ENCRYPT_MECHANISM_DERIVED => {
            // SAFETY: these are the parameters of this mechanism, and their data is a buffer of the ABI.
            let derived: EncryptDerivedParameters = unsafe { parameters(mechanism_parameters) }?;
            // SAFETY: the same.
            unsafe {
                bytes(
                    "derivation_data",
                    derived.derivation_data,
                    derived.derivation_data_len,
                )
            }?;
            if derived.mechanism != ENCRYPT_MECHANISM_AEAD {
                return Err(Failure::Argument {
                    name: "mechanism",
                    reason: UNRECOGNISED,
                });
            }
            derived.parameters
        }
        _ => {
            return Err(Failure::Argument {
                name: "mechanism",
                reason: UNRECOGNISED,
            });
        }
    };
    // SAFETY: these are the parameters of authenticated encryption.
    let EncryptAeadParameters {
        iv,
        iv_len,
        aad,
        aad_len,
    } = unsafe { parameters(inner) }?;
    for (name, pointer, len) in [("iv", iv, iv_len), ("aad", aad, aad_len)] {
        if pointer.is_null() && len != 0 {
            return Err(Failure::Argument {
                name,
                reason: "expected non-NULL",
            });
        }
    }
    find("id", id)?;
    Err(Failure::ENCRYPTION)
}

/// A tag as bytes for an [`Output`]; wiped when dropped.
struct SecretTag(aziot_crypto::mac::Tag);

impl AsRef<[u8]> for SecretTag {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
