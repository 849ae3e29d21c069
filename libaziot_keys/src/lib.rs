//! The key library: `libaziot_keys.so`, a C ABI over `aziot-crypto`.
//!
//! Its one exported symbol is [`aziot_keys_get_function_list`]. The types are in [`abi`], the C side is
//! `include/aziot-keys.h`. All functions are re-entrant; keys do not wait for each other. Causes of failures go to
//! standard error in the form of the services' log; no key, message or signature ever does, nor any PIN.
//!
//! Keys live in the file system and in PKCS#11 tokens, as the store of `aziot-crypto` has it.
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
use crate::functions::{Everywhere, Memory, crypt, keys, pairs, private, settings, sign};

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
    set_parameter: Some(settings::set_parameter),
    create_key_pair_if_not_exists: Some(pairs::create_key_pair_if_not_exists),
    load_key_pair: Some(pairs::load_key_pair::<Everywhere>),
    get_key_pair_parameter: Some(pairs::get_key_pair_parameter::<Everywhere>),
    create_key_if_not_exists: Some(keys::create_key_if_not_exists),
    load_key: Some(keys::load_key::<Everywhere>),
    import_key: Some(keys::import_key),
    derive_key: Some(keys::derive_key::<Everywhere>),
    sign: Some(sign::sign::<Everywhere>),
    verify: Some(sign::verify::<Everywhere>),
    encrypt: Some(crypt::encrypt::<Everywhere>),
    decrypt: Some(crypt::decrypt::<Everywhere>),
};

static LIST_2_1_0_0: FunctionList2_1_0_0 = list_2_1_0_0(VERSION_2_1_0_0);

static LIST_EXTENDED: FunctionListExtended = FunctionListExtended {
    public: list_2_1_0_0(VERSION_EXTENDED),
    try_sign: Some(sign::sign::<Memory>),
    try_verify: Some(sign::verify::<Memory>),
    try_derive_key: Some(keys::derive_key::<Memory>),
    try_load_key: Some(keys::load_key::<Memory>),
    try_load_key_pair: Some(pairs::load_key_pair::<Memory>),
    try_get_key_pair_parameter: Some(pairs::get_key_pair_parameter::<Memory>),
    try_encrypt: Some(crypt::encrypt::<Memory>),
    try_decrypt: Some(crypt::decrypt::<Memory>),
    key_location: Some(private::key_location),
    sweep: Some(private::sweep),
    report: Some(private::report),
    begin_moment: Some(private::begin_moment),
};

const fn list_2_1_0_0(version: c_uint) -> FunctionList2_1_0_0 {
    FunctionList2_1_0_0 {
        base: FunctionList { version },
        set_parameter: Some(settings::set_parameter),
        create_key_pair_if_not_exists: Some(pairs::create_key_pair_if_not_exists),
        move_key_pair: Some(pairs::move_key_pair),
        load_key_pair: Some(pairs::load_key_pair::<Everywhere>),
        get_key_pair_parameter: Some(pairs::get_key_pair_parameter::<Everywhere>),
        delete_key_pair: Some(pairs::delete_key_pair),
        create_key_if_not_exists: Some(keys::create_key_if_not_exists),
        load_key: Some(keys::load_key::<Everywhere>),
        import_key: Some(keys::import_key),
        delete_key: Some(keys::delete_key),
        derive_key: Some(keys::derive_key::<Everywhere>),
        sign: Some(sign::sign::<Everywhere>),
        verify: Some(sign::verify::<Everywhere>),
        encrypt: Some(crypt::encrypt::<Everywhere>),
        decrypt: Some(crypt::decrypt::<Everywhere>),
    }
}
