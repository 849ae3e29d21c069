//! The key library: `libaziot_keys.so`, a C ABI over `aziot-crypto`.
//!
//! Its one exported symbol is [`aziot_keys_get_function_list`]. The types are in [`abi`], the C side is
//! `include/aziot-keys.h`. All functions are re-entrant; keys do not wait for each other. Causes of failures go to
//! standard error in the form of the services' log; no key, message or signature ever does.
//!
//! This build keeps symmetric keys in the file system. The functions for key pairs and encryption exist and answer
//! [`abi::Rc::EXTERNAL`], and PKCS#11 settings are refused.
#![allow(
    unsafe_code,
    reason = "this crate is the edge to C; every block says why it is sound"
)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic)
)]

pub mod abi;
mod arguments;
mod failure;
mod functions;
mod logger;

use core::ffi::c_uint;

use crate::abi::{
    FunctionList, FunctionList2_0_0_0, FunctionList2_1_0_0, FunctionListExtended, Rc,
    VERSION_2_0_0_0, VERSION_2_1_0_0, VERSION_EXTENDED,
};

/// Stores a pointer to the static function list of exactly the version asked for.
///
/// Answers [`Rc::INVALID_PARAMETER`], and writes nothing, for any other version and for a null pointer. May be called
/// any number of times, from any thread.
///
/// # Safety
///
/// `pfunction_list` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aziot_keys_get_function_list(
    version: c_uint,
    pfunction_list: *mut *const FunctionList,
) -> Rc {
    logger::start();
    let list: *const FunctionList = match version {
        VERSION_2_0_0_0 => (&raw const LIST_2_0_0_0).cast(),
        VERSION_2_1_0_0 => (&raw const LIST_2_1_0_0).cast(),
        VERSION_EXTENDED => (&raw const LIST_EXTENDED).cast(),
        _ => return Rc::INVALID_PARAMETER,
    };
    if pfunction_list.is_null() {
        return Rc::INVALID_PARAMETER;
    }
    // SAFETY: not null, and the caller says that it may be written. It need not be initialised or aligned.
    unsafe { pfunction_list.write_unaligned(list) };
    Rc::OK
}

static LIST_2_0_0_0: FunctionList2_0_0_0 = FunctionList2_0_0_0 {
    base: FunctionList {
        version: VERSION_2_0_0_0,
    },
    set_parameter: Some(functions::set_parameter),
    create_key_pair_if_not_exists: Some(functions::create_key_pair_if_not_exists),
    load_key_pair: Some(functions::load_key_pair),
    get_key_pair_parameter: Some(functions::get_key_pair_parameter),
    create_key_if_not_exists: Some(functions::create_key_if_not_exists),
    load_key: Some(functions::load_key),
    import_key: Some(functions::import_key),
    derive_key: Some(functions::derive_key),
    sign: Some(functions::sign),
    verify: Some(functions::verify),
    encrypt: Some(functions::encrypt),
    decrypt: Some(functions::decrypt),
};

static LIST_2_1_0_0: FunctionList2_1_0_0 = list_2_1_0_0(VERSION_2_1_0_0);

static LIST_EXTENDED: FunctionListExtended = FunctionListExtended {
    public: list_2_1_0_0(VERSION_EXTENDED),
    try_sign: Some(functions::try_sign),
    try_verify: Some(functions::try_verify),
    try_derive_key: Some(functions::try_derive_key),
    try_load_key: Some(functions::try_load_key),
    try_load_key_pair: None,
    try_get_key_pair_parameter: None,
    try_encrypt: None,
    try_decrypt: None,
    key_location: Some(functions::key_location),
    sweep: Some(functions::sweep),
    report: None,
};

const fn list_2_1_0_0(version: c_uint) -> FunctionList2_1_0_0 {
    FunctionList2_1_0_0 {
        base: FunctionList { version },
        set_parameter: Some(functions::set_parameter),
        create_key_pair_if_not_exists: Some(functions::create_key_pair_if_not_exists),
        move_key_pair: Some(functions::move_key_pair),
        load_key_pair: Some(functions::load_key_pair),
        get_key_pair_parameter: Some(functions::get_key_pair_parameter),
        delete_key_pair: Some(functions::delete_key_pair),
        create_key_if_not_exists: Some(functions::create_key_if_not_exists),
        load_key: Some(functions::load_key),
        import_key: Some(functions::import_key),
        delete_key: Some(functions::delete_key),
        derive_key: Some(functions::derive_key),
        sign: Some(functions::sign),
        verify: Some(functions::verify),
        encrypt: Some(functions::encrypt),
        decrypt: Some(functions::decrypt),
    }
}
