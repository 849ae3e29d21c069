//! The C ABI of the replaceable key library: types and constants only, no code.
//!
//! `libaziot_keys` implements these lists and the Keys Service calls them, so both take the types from here. The C
//! side is `aziot-keys.h`; a test of `libaziot_keys` compiles a C program that holds both to the same sizes, offsets
//! and values. Everything is described in the specification of the key library, sections A2 to A7.
//!
//! Rules that hold for every function:
//!
//! - strings are NUL-terminated UTF-8, copied by the library if it keeps them; a null or non-UTF-8 string is
//!   [`Rc::INVALID_PARAMETER`], the empty string is a legal key id;
//! - output buffers belong to the caller. With a null output pointer the function stores an *upper bound* in `*len`
//!   and returns [`Rc::OK`]; otherwise `*len` is the capacity on entry and the exact length on success. A buffer that
//!   is too small is [`Rc::INVALID_PARAMETER`] with the upper bound left in `*len`;
//! - mandatory input pointers must not be null, even for zero bytes;
//! - `verify` writes `*ok` only when it returns [`Rc::OK`];
//! - callers of the public lists serialise their calls, from whatever thread; the functions of our
//!   [`FunctionListExtended`] may be called from any number of threads at once.

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

/// Name of the only exported symbol, of type [`FunctionListGetter`].
pub const ENTRY_POINT: &core::ffi::CStr = c"aziot_keys_get_function_list";

/// Type of the function exported as [`ENTRY_POINT`].
///
/// Stores a pointer to a static, immutable list of exactly the version asked for. A version the library does not
/// have, or a null out-pointer, is [`Rc::INVALID_PARAMETER`] and nothing is written.
pub type FunctionListGetter =
    unsafe extern "C" fn(version: c_uint, function_list: *mut *const FunctionList) -> Rc;

/// The head of every function list.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FunctionList {
    /// Which of the lists this is: [`VERSION_2_0_0_0`], [`VERSION_2_1_0_0`] or [`VERSION_EXTENDED`].
    pub version: c_uint,
}

/// `AZIOT_KEYS_VERSION_2_0_0_0`, see [`FunctionList2_0_0_0`].
pub const VERSION_2_0_0_0: c_uint = 0x0200_0000;
/// `AZIOT_KEYS_VERSION_2_1_0_0`, see [`FunctionList2_1_0_0`].
pub const VERSION_2_1_0_0: c_uint = 0x0201_0000;
/// Version of our private list, see [`FunctionListExtended`]. Not in the public header; a library that does not know
/// it answers [`Rc::INVALID_PARAMETER`], and the caller goes on with the public versions.
pub const VERSION_EXTENDED: c_uint = 0x02ff_0003;

/// `AZIOT_KEYS_RC`: what a function of the library answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
#[must_use]
pub struct Rc(pub c_uint);

impl Rc {
    /// `AZIOT_KEYS_RC_OK`.
    pub const OK: Self = Self(0);
    /// `AZIOT_KEYS_RC_ERR_INVALID_PARAMETER`: bad argument, unknown key, unsupported mechanism, buffer too small.
    pub const INVALID_PARAMETER: Self = Self(1);
    /// `AZIOT_KEYS_RC_ERR_EXTERNAL`: input/output, cryptography or token failure.
    pub const EXTERNAL: Self = Self(2);
    /// Only from the `try_` functions of [`FunctionListExtended`]: the answer is not in memory; call the function
    /// without `try_` from a thread that may block. Nothing was done.
    pub const WOULD_BLOCK: Self = Self(3);
}

impl core::fmt::Display for Rc {
    /// Writes the names that logs have always shown for these values; tools look for them.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::OK => f.write_str("AZIOT_KEYS_RC_OK"),
            Self::INVALID_PARAMETER => f.write_str("AZIOT_KEYS_RC_ERR_INVALID_PARAMETER"),
            Self::EXTERNAL => f.write_str("AZIOT_KEYS_RC_ERR_EXTERNAL"),
            Self(other) => write!(f, "0x{other:08x}"),
        }
    }
}

/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM`: one algorithm number, four bytes, native endian.
pub const KEY_PAIR_PARAMETER_TYPE_ALGORITHM: c_uint = 1;
/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID`: DER object identifier with tag and length.
pub const KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID: c_uint = 2;
/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT`: SEC 1 point octets, compressed.
pub const KEY_PAIR_PARAMETER_TYPE_EC_POINT: c_uint = 3;
/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS`: big endian, no leading zero.
pub const KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS: c_uint = 4;
/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT`: big endian, no leading zero.
pub const KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT: c_uint = 5;

/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_EC`.
pub const KEY_PAIR_PARAMETER_ALGORITHM_EC: c_uint = 1;
/// `AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_RSA`.
pub const KEY_PAIR_PARAMETER_ALGORITHM_RSA: c_uint = 2;

/// `AZIOT_KEYS_KEY_USAGE_DERIVE`, a bit.
pub const KEY_USAGE_DERIVE: c_uint = 0x01;
/// `AZIOT_KEYS_KEY_USAGE_ENCRYPT`, a bit; not to be combined with the others.
pub const KEY_USAGE_ENCRYPT: c_uint = 0x10;
/// `AZIOT_KEYS_KEY_USAGE_SIGN`, the same bit as [`KEY_USAGE_DERIVE`].
pub const KEY_USAGE_SIGN: c_uint = KEY_USAGE_DERIVE;

/// `AZIOT_KEYS_SIGN_MECHANISM_ECDSA`; parameters ignored.
pub const SIGN_MECHANISM_ECDSA: c_uint = 1;
/// `AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256`; parameters ignored, the "digest" is the whole message.
pub const SIGN_MECHANISM_HMAC_SHA256: c_uint = 2;
/// `AZIOT_KEYS_SIGN_MECHANISM_DERIVED`; parameters are [`SignDerivedParameters`], the id names the base key.
pub const SIGN_MECHANISM_DERIVED: c_uint = 3;

/// `AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD`; parameters are [`EncryptAeadParameters`].
pub const ENCRYPT_MECHANISM_AEAD: c_uint = 1;
/// `AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1`; parameters ignored.
pub const ENCRYPT_MECHANISM_RSA_PKCS1: c_uint = 2;
/// `AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_NO_PADDING`; parameters ignored.
pub const ENCRYPT_MECHANISM_RSA_NO_PADDING: c_uint = 3;
/// `AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED`; parameters are [`EncryptDerivedParameters`], the id names the base key.
pub const ENCRYPT_MECHANISM_DERIVED: c_uint = 4;

/// `AZIOT_KEYS_SIGN_DERIVED_PARAMETERS`: derive a key, then apply the inner mechanism with it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SignDerivedParameters {
    /// Message of the derivation, never null.
    pub derivation_data: *const c_uchar,
    /// Bytes at `derivation_data`.
    pub derivation_data_len: usize,
    /// Inner mechanism; only [`SIGN_MECHANISM_HMAC_SHA256`].
    pub mechanism: c_uint,
    /// Parameters of the inner mechanism.
    pub parameters: *const c_void,
}

/// `AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS`: derive a key, then apply the inner mechanism with it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EncryptDerivedParameters {
    /// Message of the derivation, never null.
    pub derivation_data: *const c_uchar,
    /// Bytes at `derivation_data`.
    pub derivation_data_len: usize,
    /// Inner mechanism; only [`ENCRYPT_MECHANISM_AEAD`].
    pub mechanism: c_uint,
    /// Parameters of the inner mechanism.
    pub parameters: *const c_void,
}

/// `AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EncryptAeadParameters {
    /// Initialisation vector.
    pub iv: *const c_uchar,
    /// Bytes at `iv`.
    pub iv_len: usize,
    /// Additional authenticated data.
    pub aad: *const c_uchar,
    /// Bytes at `aad`.
    pub aad_len: usize,
}

/// `set_parameter(name, value)`.
pub type SetParameter = unsafe extern "C" fn(name: *const c_char, value: *const c_char) -> Rc;
/// `create_key_pair_if_not_exists(id, preferred_algorithms)`; the second may be null.
pub type CreateKeyPairIfNotExists =
    unsafe extern "C" fn(id: *const c_char, preferred_algorithms: *const c_char) -> Rc;
/// `move_key_pair(from, to)`.
pub type MoveKeyPair = unsafe extern "C" fn(from: *const c_char, to: *const c_char) -> Rc;
/// `load_key_pair`, `delete_key_pair`, `load_key`, `delete_key`: one key id.
pub type KeyFunction = unsafe extern "C" fn(id: *const c_char) -> Rc;
/// `get_key_pair_parameter(id, type_, value, value_len)`.
pub type KeyPairParameter = unsafe extern "C" fn(
    id: *const c_char,
    type_: c_uint,
    value: *mut c_uchar,
    value_len: *mut usize,
) -> Rc;
/// `create_key_if_not_exists(id, usage)`.
pub type CreateKeyIfNotExists = unsafe extern "C" fn(id: *const c_char, usage: c_uint) -> Rc;
/// `import_key(id, bytes, bytes_len, usage)`.
pub type ImportKey = unsafe extern "C" fn(
    id: *const c_char,
    bytes: *const u8,
    bytes_len: usize,
    usage: c_uint,
) -> Rc;
/// `derive_key(base_id, derivation_data, derivation_data_len, derived_key, derived_key_len)`.
pub type DeriveKey = unsafe extern "C" fn(
    base_id: *const c_char,
    derivation_data: *const u8,
    derivation_data_len: usize,
    derived_key: *mut c_uchar,
    derived_key_len: *mut usize,
) -> Rc;
/// `sign(id, mechanism, parameters, digest, digest_len, signature, signature_len)`.
pub type Sign = unsafe extern "C" fn(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *mut c_uchar,
    signature_len: *mut usize,
) -> Rc;
/// `verify(id, mechanism, parameters, digest, digest_len, signature, signature_len, ok)`.
pub type Verify = unsafe extern "C" fn(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    digest: *const c_uchar,
    digest_len: usize,
    signature: *const c_uchar,
    signature_len: usize,
    ok: *mut c_int,
) -> Rc;
/// `encrypt` and `decrypt`: `(id, mechanism, parameters, input, input_len, output, output_len)`.
pub type Crypt = unsafe extern "C" fn(
    id: *const c_char,
    mechanism: c_uint,
    parameters: *const c_void,
    input: *const c_uchar,
    input_len: usize,
    output: *mut c_uchar,
    output_len: *mut usize,
) -> Rc;
/// `key_location(id, location)` of the private list: stores one of [`KEY_LOCATION_NONE`], [`KEY_LOCATION_FILE`] and
/// [`KEY_LOCATION_PKCS11`]. Looks at the configuration only, never at the store.
pub type KeyLocation = unsafe extern "C" fn(id: *const c_char, location: *mut c_uint) -> Rc;
/// `sweep()` of the private list.
pub type Sweep = unsafe extern "C" fn() -> Rc;

/// `begin_moment()` of the private list.
pub type BeginMoment = unsafe extern "C" fn();

/// `report(key, token, context)` of the private list: calls `key` once for every key that is known of and `token` once for
/// every token, each with `context`. What they are shown lives until they return.
pub type Report =
    unsafe extern "C" fn(key: VisitKey, token: VisitToken, context: *mut c_void) -> Rc;
/// Is shown a key.
pub type VisitKey = unsafe extern "C" fn(context: *mut c_void, key: *const KeyReport);
/// Is shown a token.
pub type VisitToken = unsafe extern "C" fn(context: *mut c_void, token: *const TokenReport);

/// One key in a report. Strings are NUL-terminated UTF-8 or null; none is a secret.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KeyReport {
    /// Its id; null for a file whose name is all that is known.
    pub id: *const c_char,
    /// [`KEY_KIND_UNKNOWN`], [`KEY_KIND_SYMMETRIC`] or [`KEY_KIND_PAIR`].
    pub kind: c_uint,
    /// [`KEY_LOCATION_NONE`] if it is nowhere yet, [`KEY_LOCATION_FILE`] or [`KEY_LOCATION_PKCS11`].
    pub location: c_uint,
    /// The path, or the `pkcs11:` URI without its PIN.
    pub place: *const c_char,
    /// 1 if the configuration gives it a location of its own, otherwise 0.
    pub preloaded: c_uint,
    /// Why it cannot be used, or that it is not where the configuration would have it; null if there is nothing to say.
    pub remark: *const c_char,
}

/// One token in a report. Strings as in [`KeyReport`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TokenReport {
    /// The `pkcs11:` URI without its PIN.
    pub uri: *const c_char,
    /// [`TOKEN_STATE_UNUSED`], [`TOKEN_STATE_WORKING`] or [`TOKEN_STATE_FAILING`].
    pub state: c_uint,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Why it fails; null unless it does.
    pub failure: *const c_char,
    /// When the module is loaded again at the earliest, in seconds since 1970; 0 when nothing keeps the next use from trying.
    pub next_attempt: u64,
    /// Open sessions.
    pub sessions: c_uint,
}

/// [`KeyReport::kind`]: it has not been looked at.
pub const KEY_KIND_UNKNOWN: c_uint = 0;
/// [`KeyReport::kind`]: a symmetric key.
pub const KEY_KIND_SYMMETRIC: c_uint = 1;
/// [`KeyReport::kind`]: a key pair.
pub const KEY_KIND_PAIR: c_uint = 2;

/// [`TokenReport::state`]: not used yet.
pub const TOKEN_STATE_UNUSED: c_uint = 0;
/// [`TokenReport::state`]: the last use succeeded.
pub const TOKEN_STATE_WORKING: c_uint = 1;
/// [`TokenReport::state`]: the last use failed.
pub const TOKEN_STATE_FAILING: c_uint = 2;

/// `key_location`: nothing is configured where this key could be.
pub const KEY_LOCATION_NONE: c_uint = 0;
/// `key_location`: the key lives, or would be created, in a file.
pub const KEY_LOCATION_FILE: c_uint = 1;
/// `key_location`: the key lives, or would be created, in a PKCS#11 token.
pub const KEY_LOCATION_PKCS11: c_uint = 2;

/// `AZIOT_KEYS_FUNCTION_LIST_2_0_0_0`: 104 bytes on 64-bit targets, 52 on 32-bit ones.
///
/// Members are optional so that a caller can tell a null pointer in a foreign library; ours has none.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(
    missing_docs,
    reason = "the members are named and described by their types"
)]
pub struct FunctionList2_0_0_0 {
    pub base: FunctionList,
    pub set_parameter: Option<SetParameter>,
    pub create_key_pair_if_not_exists: Option<CreateKeyPairIfNotExists>,
    pub load_key_pair: Option<KeyFunction>,
    pub get_key_pair_parameter: Option<KeyPairParameter>,
    pub create_key_if_not_exists: Option<CreateKeyIfNotExists>,
    pub load_key: Option<KeyFunction>,
    pub import_key: Option<ImportKey>,
    pub derive_key: Option<DeriveKey>,
    pub sign: Option<Sign>,
    pub verify: Option<Verify>,
    pub encrypt: Option<Crypt>,
    pub decrypt: Option<Crypt>,
}

/// `AZIOT_KEYS_FUNCTION_LIST_2_1_0_0`: 128 bytes on 64-bit targets, 64 on 32-bit ones.
///
/// Not an extension of [`FunctionList2_0_0_0`]: `move_key_pair`, `delete_key_pair` and `delete_key` stand in the
/// middle.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(
    missing_docs,
    reason = "the members are named and described by their types"
)]
pub struct FunctionList2_1_0_0 {
    pub base: FunctionList,
    pub set_parameter: Option<SetParameter>,
    pub create_key_pair_if_not_exists: Option<CreateKeyPairIfNotExists>,
    pub move_key_pair: Option<MoveKeyPair>,
    pub load_key_pair: Option<KeyFunction>,
    pub get_key_pair_parameter: Option<KeyPairParameter>,
    pub delete_key_pair: Option<KeyFunction>,
    pub create_key_if_not_exists: Option<CreateKeyIfNotExists>,
    pub load_key: Option<KeyFunction>,
    pub import_key: Option<ImportKey>,
    pub delete_key: Option<KeyFunction>,
    pub derive_key: Option<DeriveKey>,
    pub sign: Option<Sign>,
    pub verify: Option<Verify>,
    pub encrypt: Option<Crypt>,
    pub decrypt: Option<Crypt>,
}

/// Our private list, version [`VERSION_EXTENDED`]: what the Keys Service uses when the library is ours.
///
/// All functions may be called from any thread, in parallel, also for the same key; keys do not wait for each other.
/// The `try_` functions take the arguments of the function they are named after and never wait for a disk or a
/// token: they answer from parsed keys in memory, after one `stat` of the key's file, or else
/// [`Rc::WOULD_BLOCK`]. RSA's private operation and signatures on larger curves than P-256 take too long for a caller
/// that must not wait, and count as blocking. Bad arguments are refused as usual. In a steady state `try_sign` and `try_verify` allocate
/// no memory. The plain functions fill the memory that the `try_` functions answer from.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FunctionListExtended {
    /// All functions of 2.1.0.0; `base.version` is [`VERSION_EXTENDED`].
    pub public: FunctionList2_1_0_0,
    /// As `sign`, but never blocks.
    pub try_sign: Option<Sign>,
    /// As `verify`, but never blocks.
    pub try_verify: Option<Verify>,
    /// As `derive_key`, but never blocks.
    pub try_derive_key: Option<DeriveKey>,
    /// As `load_key`, but never blocks.
    pub try_load_key: Option<KeyFunction>,
    /// As `load_key_pair`, but never blocks.
    pub try_load_key_pair: Option<KeyFunction>,
    /// As `get_key_pair_parameter`, but never blocks.
    pub try_get_key_pair_parameter: Option<KeyPairParameter>,
    /// As `encrypt`, but never blocks.
    pub try_encrypt: Option<Crypt>,
    /// As `decrypt`, but never blocks.
    pub try_decrypt: Option<Crypt>,
    /// Where a key lives or would be created.
    pub key_location: Option<KeyLocation>,
    /// Removes what writers that crashed left in the key directories. Blocks; call it once, after start.
    pub sweep: Option<Sweep>,
    /// Tells about keys and tokens. Blocks.
    pub report: Option<Report>,
    /// Begins a moment of the calling thread: of each key that it uses, the thread looks at the file once until it calls
    /// this again. A caller with several requests at hand calls it when all of them have arrived. A change that the library
    /// itself makes is noticed at once all the same; threads that never call this look at the file every time.
    pub begin_moment: Option<BeginMoment>,
}

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use super::*;

    const WORD: usize = size_of::<usize>();

    #[test]
    fn ka_03_struct_sizes_and_member_order() {
        assert_eq!(size_of::<FunctionList>(), 4);
        assert_eq!(size_of::<FunctionList2_0_0_0>(), 13 * WORD);
        assert_eq!(size_of::<FunctionList2_1_0_0>(), 16 * WORD);
        assert_eq!(size_of::<SignDerivedParameters>(), 4 * WORD);
        assert_eq!(size_of::<EncryptDerivedParameters>(), 4 * WORD);
        assert_eq!(size_of::<EncryptAeadParameters>(), 4 * WORD);
        assert_eq!(offset_of!(FunctionList2_0_0_0, load_key_pair), 3 * WORD);
        assert_eq!(offset_of!(FunctionList2_0_0_0, decrypt), 12 * WORD);
        assert_eq!(offset_of!(FunctionList2_1_0_0, move_key_pair), 3 * WORD);
        assert_eq!(offset_of!(FunctionList2_1_0_0, delete_key_pair), 6 * WORD);
        assert_eq!(offset_of!(FunctionList2_1_0_0, delete_key), 10 * WORD);
        assert_eq!(offset_of!(FunctionList2_1_0_0, decrypt), 15 * WORD);
        assert_eq!(offset_of!(FunctionListExtended, try_sign), 16 * WORD);
        assert_eq!(offset_of!(FunctionListExtended, sweep), 25 * WORD);
        assert_eq!(offset_of!(FunctionListExtended, report), 26 * WORD);
        assert_eq!(offset_of!(FunctionListExtended, begin_moment), 27 * WORD);
    }

    #[test]
    fn rc_names_are_the_known_ones() {
        assert_eq!(
            Rc::INVALID_PARAMETER.to_string(),
            "AZIOT_KEYS_RC_ERR_INVALID_PARAMETER"
        );
        assert_eq!(Rc::EXTERNAL.to_string(), "AZIOT_KEYS_RC_ERR_EXTERNAL");
        assert_eq!(Rc(0xabc).to_string(), "0x00000abc");
    }
}
