//! Key pairs: create, move, load, delete, public parameters.

use core::ffi::{c_char, c_uchar, c_uint};

use aziot_crypto::key_pair::{Parameter, ParameterValue};

use super::{Reach, STORE, UNRECOGNISED};
use crate::abi::{
    KEY_PAIR_PARAMETER_ALGORITHM_EC, KEY_PAIR_PARAMETER_ALGORITHM_RSA,
    KEY_PAIR_PARAMETER_TYPE_ALGORITHM, KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID,
    KEY_PAIR_PARAMETER_TYPE_EC_POINT, KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT,
    KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS, Rc,
};
use crate::arguments::{Output, optional_text, text};
use crate::failure::{Failure, answer};

pub(crate) unsafe extern "C" fn create_key_pair_if_not_exists(
    id: *const c_char,
    preferred_algorithms: *const c_char,
) -> Rc {
    let create = || {
        // SAFETY: the ABI's promise about strings.
        let (id, preferred) = unsafe {
            (
                text("id", id)?,
                optional_text("preferred_algorithms", preferred_algorithms)?,
            )
        };
        STORE
            .create_key_pair(id, preferred)
            .map(drop)
            .map_err(Failure::about("id"))
    };
    answer(create())
}

pub(crate) unsafe extern "C" fn move_key_pair(from: *const c_char, to: *const c_char) -> Rc {
    let rename = || {
        // SAFETY: the ABI's promise about strings.
        let (from, to) = unsafe { (text("from", from)?, text("to", to)?) };
        STORE
            .move_key_pair(from, to)
            .map_err(Failure::about("from"))
    };
    answer(rename())
}

pub(crate) unsafe extern "C" fn load_key_pair<R: Reach>(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| R::key_pair("id", id).map(drop)))
}

pub(crate) unsafe extern "C" fn get_key_pair_parameter<R: Reach>(
    id: *const c_char,
    type_: c_uint,
    value: *mut c_uchar,
    value_len: *mut usize,
) -> Rc {
    let tell = || {
        // SAFETY: the ABI's promises about strings and buffers.
        let (id, output) =
            unsafe { (text("id", id)?, Output::new("value_len", value, value_len)?) };
        let parameter = match type_ {
            KEY_PAIR_PARAMETER_TYPE_ALGORITHM => Parameter::Algorithm,
            KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID => Parameter::EcCurveOid,
            KEY_PAIR_PARAMETER_TYPE_EC_POINT => Parameter::EcPoint,
            KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS => Parameter::RsaModulus,
            KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT => Parameter::RsaExponent,
            _ => {
                return Err(Failure::Argument {
                    name: "type_",
                    reason: UNRECOGNISED,
                });
            }
        };
        let pair = R::key_pair("id", id)?;
        let value = || pair.parameter(parameter).map_err(Failure::about("type_"));
        if parameter == Parameter::Algorithm {
            // The length is known without the key, and has always been told even for one of another algorithm.
            return output.put(size_of::<c_uint>(), || algorithm(&value()?));
        }
        let ParameterValue::Bytes(bytes) = value()? else {
            return Err(Failure::Argument {
                name: "type_",
                reason: UNRECOGNISED,
            });
        };
        output.put(bytes.len(), || Ok(bytes))
    };
    answer(tell())
}

/// The number of an algorithm as the ABI has it.
fn algorithm(value: &ParameterValue) -> Result<[u8; size_of::<c_uint>()], Failure> {
    match value {
        ParameterValue::Ec => Ok(KEY_PAIR_PARAMETER_ALGORITHM_EC.to_ne_bytes()),
        ParameterValue::Rsa => Ok(KEY_PAIR_PARAMETER_ALGORITHM_RSA.to_ne_bytes()),
        ParameterValue::Bytes(_) => Err(Failure::Argument {
            name: "type_",
            reason: UNRECOGNISED,
        }),
    }
}

pub(crate) unsafe extern "C" fn delete_key_pair(id: *const c_char) -> Rc {
    // SAFETY: the ABI's promise about strings.
    answer(unsafe { text("id", id) }.and_then(|id| {
        STORE
            .delete_key_pair(id)
            .map(drop)
            .map_err(Failure::about("id"))
    }))
}
