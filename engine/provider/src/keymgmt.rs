//! Key management (operation 10): EC and RSA keys, wherever their private half is.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use crate::dispatch::{self, END, Table};
use crate::evp::{Pkey, PkeyCtx};
use crate::key::{Key, Type};
use crate::params::{self, Given};
use crate::provider::{Provider, raise_alone};
use crate::sys::{self, OSSL_CALLBACK, OSSL_DISPATCH, OSSL_PARAM};

pub static EC: Table<OSSL_DISPATCH, 23> = table(
    new_ec,
    gen_init_ec,
    operation_name_ec,
    import_types_ec,
    export_types_ec,
    (gettable_params_ec, settable_params_ec),
);

pub static RSA: Table<OSSL_DISPATCH, 23> = table(
    new_rsa,
    gen_init_rsa,
    operation_name_rsa,
    import_types_rsa,
    export_types_rsa,
    (gettable_params_rsa, settable_params_rsa),
);

type New = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type GenInit = unsafe extern "C" fn(*mut c_void, c_int, *const OSSL_PARAM) -> *mut c_void;
type OperationName = unsafe extern "C" fn(c_int) -> *const c_char;
type Types = unsafe extern "C" fn(c_int) -> *const OSSL_PARAM;
type Described = unsafe extern "C" fn(*mut c_void) -> *const OSSL_PARAM;

const fn table(
    new: New,
    gen_init: GenInit,
    operation_name: OperationName,
    import_types: Types,
    export_types: Types,
    (gettable, settable): (Described, Described),
) -> Table<OSSL_DISPATCH, 23> {
    Table([
        dispatch::keymgmt_new(new),
        dispatch::keymgmt_gen_init(gen_init),
        dispatch::keymgmt_gen_set_template(gen_set_template),
        dispatch::keymgmt_gen_set_params(gen_set_params),
        dispatch::keymgmt_gen_settable_params(gen_settable_params),
        dispatch::keymgmt_gen(generate),
        dispatch::keymgmt_gen_cleanup(gen_cleanup),
        dispatch::keymgmt_load(load),
        dispatch::keymgmt_free(free),
        dispatch::keymgmt_get_params(get_params),
        dispatch::keymgmt_gettable_params(gettable),
        dispatch::keymgmt_set_params(set_params),
        dispatch::keymgmt_settable_params(settable),
        dispatch::keymgmt_query_operation_name(operation_name),
        dispatch::keymgmt_has(has),
        dispatch::keymgmt_validate(validate),
        dispatch::keymgmt_match(matches),
        dispatch::keymgmt_import(import),
        dispatch::keymgmt_import_types(import_types),
        dispatch::keymgmt_export(export),
        dispatch::keymgmt_export_types(export_types),
        dispatch::keymgmt_dup(duplicate),
        END,
    ])
}

/// Hands a key to C.
pub fn into_raw(key: Key) -> *mut c_void {
    Box::into_raw(Box::new(key)).cast()
}

/// A key that C has, for the time of a call.
///
/// # Safety
///
/// NULL, or what [`into_raw`] has given and was not freed.
pub unsafe fn borrow<'k>(key: *const c_void) -> Option<&'k Key> {
    // SAFETY: as above. Keys are only changed while they are made.
    unsafe { key.cast::<Key>().as_ref() }
}

unsafe extern "C" fn new_ec(context: *mut c_void) -> *mut c_void {
    // SAFETY: the context of the provider.
    unsafe { into_raw(Key::empty(Provider::share(context), Type::Ec)) }
}

unsafe extern "C" fn new_rsa(context: *mut c_void) -> *mut c_void {
    // SAFETY: the context of the provider.
    unsafe { into_raw(Key::empty(Provider::share(context), Type::Rsa)) }
}

/// Takes a key over that the store has made: `reference` is where its address is.
unsafe extern "C" fn load(reference: *const c_void, size: usize) -> *mut c_void {
    if reference.is_null() || size != size_of::<*mut c_void>() {
        return ptr::null_mut();
    }
    // SAFETY: the reference is the store's slot for the key; what is taken out of it is not freed there.
    unsafe { ptr::replace(reference.cast_mut().cast::<*mut c_void>(), ptr::null_mut()) }
}

pub unsafe extern "C" fn free(key: *mut c_void) {
    if !key.is_null() {
        // SAFETY: what `into_raw` has given.
        drop(unsafe { Box::from_raw(key.cast::<Key>()) });
    }
}

unsafe extern "C" fn duplicate(key: *const c_void, selection: c_int) -> *mut c_void {
    // SAFETY: a key of ours.
    match unsafe { borrow(key) }.and_then(|key| key.duplicate(selection)) {
        Some(copy) => into_raw(copy),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn has(key: *const c_void, selection: c_int) -> c_int {
    // SAFETY: a key of ours.
    unsafe { borrow(key) }
        .is_some_and(|key| key.has(selection))
        .into()
}

/// Compares public halves: that of the private one is known, and that is all there is to compare.
unsafe extern "C" fn matches(one: *const c_void, other: *const c_void, selection: c_int) -> c_int {
    // SAFETY: keys of ours.
    let (Some(one), Some(other)) = (unsafe { borrow(one) }, unsafe { borrow(other) }) else {
        return 0;
    };
    if one.key_type != other.key_type {
        return 0;
    }
    let (Some(a), Some(b)) = (&one.software, &other.software) else {
        return 0;
    };
    let selection = one.key_type.relevant(selection);
    // SAFETY: both are alive.
    unsafe {
        if selection & sys::SELECT_KEYPAIR != 0 {
            // Those who have only a private half of their own are told apart below.
            let half = sys::SELECT_PUBLIC_KEY;
            let comparable = (one.has(half) && other.has(half))
                || (one.is_local() && other.is_local() && selection & half == 0);
            return (comparable && sys::EVP_PKEY_eq(a.as_ptr(), b.as_ptr()) == 1).into();
        }
        if selection & sys::SELECT_DOMAIN_PARAMETERS != 0 {
            return (sys::EVP_PKEY_parameters_eq(a.as_ptr(), b.as_ptr()) == 1).into();
        }
    }
    1
}

/// Checks what there is to check here. That the private half belongs to the public one is the Keys Service's concern: it has
/// given both.
unsafe extern "C" fn validate(key: *const c_void, selection: c_int, kind: c_int) -> c_int {
    // SAFETY: a key of ours.
    let Some(key) = (unsafe { borrow(key) }) else {
        return 0;
    };
    let wanted =
        key.key_type.relevant(selection) & (sys::SELECT_KEYPAIR | sys::SELECT_DOMAIN_PARAMETERS);
    if wanted == 0 {
        return 1;
    }
    let Some(software) = key.software.as_ref().filter(|_| key.has(wanted)) else {
        return 0;
    };
    let Some(ctx) = PkeyCtx::for_key(key.provider.child(), software) else {
        return 0;
    };
    let ctx = ctx.as_ptr();
    // SAFETY: the context is alive.
    let passes =
        |check: unsafe extern "C" fn(*mut sys::EVP_PKEY_CTX) -> c_int| unsafe { check(ctx) == 1 };
    let public = if kind == sys::OSSL_KEYMGMT_VALIDATE_QUICK_CHECK {
        sys::EVP_PKEY_public_check_quick
    } else {
        sys::EVP_PKEY_public_check
    };
    let selected = |part| wanted & part != 0;
    let private = selected(sys::SELECT_PRIVATE_KEY) && key.is_local();
    let good = (!selected(sys::SELECT_DOMAIN_PARAMETERS) || passes(sys::EVP_PKEY_param_check))
        && (!selected(sys::SELECT_PUBLIC_KEY) || passes(public))
        && (!private || passes(sys::EVP_PKEY_private_check))
        && (!private || !selected(sys::SELECT_PUBLIC_KEY) || passes(sys::EVP_PKEY_pairwise_check));
    good.into()
}

unsafe extern "C" fn get_params(key: *mut c_void, list: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours.
    let Some(software) = (unsafe { borrow(key) }).and_then(|key| key.software.as_ref()) else {
        return 0;
    };
    // SAFETY: the key is alive, and the list ends as it should.
    unsafe { sys::EVP_PKEY_get_params(software.as_ptr(), list) }
}

unsafe extern "C" fn set_params(key: *mut c_void, list: *const OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours. Those who set parameters must have the key for themselves.
    let Some(key) = (unsafe { key.cast::<Key>().as_mut() }) else {
        return 0;
    };
    if list.is_null() {
        return 1;
    }
    let Some(software) = key.software.as_ref().filter(|_| key.is_local()) else {
        return 0;
    };
    // SAFETY: the key is alive, and the list ends as it should (it is only read).
    let ok = unsafe { sys::EVP_PKEY_set_params(software.as_ptr(), list.cast_mut()) };
    // SAFETY: as above.
    if ok == 1 && unsafe { Given::new(list) }.has(c"encoded-pub-key") {
        key.parts |= sys::SELECT_PUBLIC_KEY;
    }
    ok
}

unsafe extern "C" fn import(key: *mut c_void, selection: c_int, list: *const OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours that was just made.
    match unsafe { key.cast::<Key>().as_mut() } {
        Some(key) if !list.is_null() => key.import(selection, list).into(),
        _ => 0,
    }
}

/// Hands out the public half, and all of a key that is not in the Keys Service.
///
/// Whoever asks for a private half that is there gets nothing, not even the public half: libcrypto asks in the name of other
/// providers before it comes to us, and would have them sign. That happens all the time, so it is no error.
unsafe extern "C" fn export(
    key: *mut c_void,
    selection: c_int,
    callback: OSSL_CALLBACK,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: a key of ours.
    let Some(key) = (unsafe { borrow(key) }) else {
        return 0;
    };
    if !key.is_local() && selection & sys::SELECT_PRIVATE_KEY != 0 {
        return 0;
    }
    let Some(software) = &key.software else {
        return 0;
    };
    // SAFETY: the key is alive; the callback and its argument belong together.
    unsafe { sys::EVP_PKEY_export(software.as_ptr(), selection, callback, arg) }
}

unsafe extern "C" fn operation_name_ec(operation: c_int) -> *const c_char {
    match operation {
        sys::OSSL_OP_SIGNATURE => c"ECDSA".as_ptr(),
        // Only with keys that are not in the Keys Service, by the provider that offers it.
        sys::OSSL_OP_KEYEXCH => c"ECDH".as_ptr(),
        _ => ptr::null(),
    }
}

unsafe extern "C" fn operation_name_rsa(_operation: c_int) -> *const c_char {
    c"RSA".as_ptr()
}

fn gettable(context: *mut c_void, key_type: Type) -> *const OSSL_PARAM {
    // SAFETY: the context of the provider.
    let provider = unsafe { Provider::borrow(context) };
    match provider.keymgmt(key_type) {
        // SAFETY: the algorithm is alive, and lives as long as the provider.
        Some(keymgmt) => unsafe { sys::EVP_KEYMGMT_gettable_params(keymgmt.as_ptr()) },
        None => NOTHING.as_ptr(),
    }
}

fn settable(context: *mut c_void, key_type: Type) -> *const OSSL_PARAM {
    // SAFETY: the context of the provider.
    let provider = unsafe { Provider::borrow(context) };
    match provider.keymgmt(key_type) {
        // SAFETY: the algorithm is alive, and lives as long as the provider.
        Some(keymgmt) => unsafe { sys::EVP_KEYMGMT_settable_params(keymgmt.as_ptr()) },
        None => NOTHING.as_ptr(),
    }
}

unsafe extern "C" fn gettable_params_ec(context: *mut c_void) -> *const OSSL_PARAM {
    gettable(context, Type::Ec)
}

unsafe extern "C" fn gettable_params_rsa(context: *mut c_void) -> *const OSSL_PARAM {
    gettable(context, Type::Rsa)
}

unsafe extern "C" fn settable_params_ec(context: *mut c_void) -> *const OSSL_PARAM {
    settable(context, Type::Ec)
}

unsafe extern "C" fn settable_params_rsa(context: *mut c_void) -> *const OSSL_PARAM {
    settable(context, Type::Rsa)
}

static NOTHING: Table<OSSL_PARAM, 1> = Table([params::END]);

static EC_PUBLIC: Table<OSSL_PARAM, 3> = Table([
    params::described(c"group", sys::OSSL_PARAM_UTF8_STRING),
    params::described(c"pub", sys::OSSL_PARAM_OCTET_STRING),
    params::END,
]);

static EC_ALL: Table<OSSL_PARAM, 4> = Table([
    params::described(c"group", sys::OSSL_PARAM_UTF8_STRING),
    params::described(c"pub", sys::OSSL_PARAM_OCTET_STRING),
    params::described(c"priv", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::END,
]);

static RSA_PUBLIC: Table<OSSL_PARAM, 3> = Table([
    params::described(c"n", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"e", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::END,
]);

static RSA_ALL: Table<OSSL_PARAM, 9> = Table([
    params::described(c"n", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"e", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"d", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"rsa-factor1", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"rsa-factor2", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"rsa-exponent1", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"rsa-exponent2", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::described(c"rsa-coefficient1", sys::OSSL_PARAM_UNSIGNED_INTEGER),
    params::END,
]);

/// What can be imported: with a private half, only keys that are not in the Keys Service.
unsafe extern "C" fn import_types_ec(selection: c_int) -> *const OSSL_PARAM {
    types_ec(selection)
}

unsafe extern "C" fn import_types_rsa(selection: c_int) -> *const OSSL_PARAM {
    types_rsa(selection)
}

unsafe extern "C" fn export_types_ec(selection: c_int) -> *const OSSL_PARAM {
    types_ec(selection)
}

unsafe extern "C" fn export_types_rsa(selection: c_int) -> *const OSSL_PARAM {
    types_rsa(selection)
}

fn types_ec(selection: c_int) -> *const OSSL_PARAM {
    if selection & sys::SELECT_PRIVATE_KEY == 0 {
        EC_PUBLIC.as_ptr()
    } else {
        EC_ALL.as_ptr()
    }
}

fn types_rsa(selection: c_int) -> *const OSSL_PARAM {
    if selection & sys::SELECT_PRIVATE_KEY == 0 {
        RSA_PUBLIC.as_ptr()
    } else {
        RSA_ALL.as_ptr()
    }
}

/// A key being generated, by another provider.
struct Generation {
    provider: Arc<Provider>,
    key_type: Type,
    selection: c_int,
    ctx: PkeyCtx,
}

impl Generation {
    /// Prepares a context for keys or parameters, as selected.
    fn prepare(ctx: PkeyCtx, selection: c_int) -> Option<PkeyCtx> {
        // SAFETY: the context is alive.
        let ok = unsafe {
            if selection & sys::SELECT_KEYPAIR == 0 {
                sys::EVP_PKEY_paramgen_init(ctx.as_ptr())
            } else {
                sys::EVP_PKEY_keygen_init(ctx.as_ptr())
            }
        };
        (ok == 1).then_some(ctx)
    }
}

fn gen_init(
    context: *mut c_void,
    key_type: Type,
    selection: c_int,
    list: *const OSSL_PARAM,
) -> *mut c_void {
    // SAFETY: the context of the provider.
    let provider = unsafe { Provider::share(context) };
    let ctx = PkeyCtx::for_algorithm(provider.child(), key_type.name())
        .and_then(|ctx| Generation::prepare(ctx, selection));
    let Some(ctx) = ctx else {
        raise_alone(c"keymgmt_gen_init");
        return ptr::null_mut();
    };
    // SAFETY: the list is NULL, or ends as it should.
    if unsafe { ctx.settings().change(list) } != 1 {
        return ptr::null_mut();
    }
    Box::into_raw(Box::new(Generation {
        provider,
        key_type,
        selection,
        ctx,
    }))
    .cast()
}

unsafe extern "C" fn gen_init_ec(
    context: *mut c_void,
    selection: c_int,
    list: *const OSSL_PARAM,
) -> *mut c_void {
    gen_init(context, Type::Ec, selection, list)
}

unsafe extern "C" fn gen_init_rsa(
    context: *mut c_void,
    selection: c_int,
    list: *const OSSL_PARAM,
) -> *mut c_void {
    gen_init(context, Type::Rsa, selection, list)
}

unsafe extern "C" fn gen_set_template(generation: *mut c_void, template: *mut c_void) -> c_int {
    // SAFETY: what `gen_init` has given, which one thread uses at a time.
    let Some(generation) = (unsafe { generation.cast::<Generation>().as_mut() }) else {
        return 0;
    };
    // SAFETY: a key of ours.
    let Some(template) = (unsafe { borrow(template) }).and_then(|key| key.software.as_ref()) else {
        return 0;
    };
    let ctx = PkeyCtx::for_key(generation.provider.child(), template)
        .and_then(|ctx| Generation::prepare(ctx, generation.selection));
    match ctx {
        Some(ctx) => {
            generation.ctx = ctx;
            1
        }
        None => 0,
    }
}

unsafe extern "C" fn gen_set_params(generation: *mut c_void, list: *const OSSL_PARAM) -> c_int {
    // SAFETY: what `gen_init` has given.
    let Some(generation) = (unsafe { generation.cast::<Generation>().as_ref() }) else {
        return 0;
    };
    // SAFETY: the list is NULL, or ends as it should.
    unsafe { generation.ctx.settings().change(list) }
}

unsafe extern "C" fn gen_settable_params(
    generation: *mut c_void,
    context: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: what `gen_init` has given.
    let Some(generation) = (unsafe { generation.cast::<Generation>().as_ref() }) else {
        return NOTHING.as_ptr();
    };
    // SAFETY: the context of the provider.
    match unsafe { Provider::borrow(context) }.keymgmt(generation.key_type) {
        // SAFETY: the algorithm is alive, and lives as long as the provider.
        Some(keymgmt) => unsafe { sys::EVP_KEYMGMT_gen_settable_params(keymgmt.as_ptr()) },
        None => NOTHING.as_ptr(),
    }
}

/// Progress is not reported: nothing that a program needs depends on it.
unsafe extern "C" fn generate(
    generation: *mut c_void,
    _callback: Option<OSSL_CALLBACK>,
    _arg: *mut c_void,
) -> *mut c_void {
    // SAFETY: what `gen_init` has given.
    let Some(generation) = (unsafe { generation.cast::<Generation>().as_ref() }) else {
        return ptr::null_mut();
    };
    let mut pkey = ptr::null_mut();
    // SAFETY: the context is alive; what it gives is ours.
    let software = unsafe {
        if sys::EVP_PKEY_generate(generation.ctx.as_ptr(), &raw mut pkey) != 1 {
            return ptr::null_mut();
        }
        Pkey::from_ptr(pkey)
    };
    let mut key = Key::empty(Arc::clone(&generation.provider), generation.key_type);
    key.software = software;
    key.parts = generation.selection;
    if key.parts & sys::SELECT_KEYPAIR != 0 {
        key.parts |= sys::SELECT_KEYPAIR | sys::SELECT_ALL_PARAMETERS;
    }
    into_raw(key)
}

unsafe extern "C" fn gen_cleanup(generation: *mut c_void) {
    if !generation.is_null() {
        // SAFETY: what `gen_init` has given.
        drop(unsafe { Box::from_raw(generation.cast::<Generation>()) });
    }
}
