//! The library's functions, as a test wants to call them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr;

use aziot_crypto::keys_abi::*;
use tempfile::TempDir;

/// An instance of the library of its own, with its own settings, whatever other tests do.
pub struct Keys {
    pub list: &'static FunctionListExtended,
    // Loaded from a copy, since the loader gives one file out only once. Closed after the last use of `list`.
    _library: libloading::Library,
    _dir: TempDir,
}

impl Keys {
    /// Loads the library and sets its home directory.
    pub fn with_home(home: &Path) -> Self {
        let keys = Self::new();
        assert_eq!(keys.set("homedir_path", home.to_str().unwrap()), Rc::OK);
        keys
    }

    /// Loads the library.
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let copy = dir.path().join("libaziot_keys.so");
        std::fs::copy(super::shared_library(), &copy).unwrap();
        // SAFETY: the library's initialisers do nothing, and the symbol has the type that the ABI gives it.
        let (library, list) = unsafe {
            let library = libloading::Library::new(&copy).unwrap();
            let getter: libloading::Symbol<'_, FunctionListGetter> =
                library.get(ENTRY_POINT.to_bytes_with_nul()).unwrap();
            let mut list = ptr::null();
            assert_eq!(getter(VERSION_EXTENDED, &raw mut list), Rc::OK);
            assert_eq!((*list).version, VERSION_EXTENDED);
            (library, &*list.cast::<FunctionListExtended>())
        };
        Self {
            list,
            _library: library,
            _dir: dir,
        }
    }

    pub fn set(&self, name: &str, value: &str) -> Rc {
        let (name, value) = (c(name), c(value));
        // SAFETY: both are strings.
        unsafe { self.list.public.set_parameter.unwrap()(name.as_ptr(), value.as_ptr()) }
    }

    pub fn preload(&self, id: &str, uri: &str) -> Rc {
        self.set(&format!("preloaded_key:{id}"), uri)
    }

    pub fn create(&self, id: &str, usage: u32) -> Rc {
        // SAFETY: it is a string.
        unsafe { self.list.public.create_key_if_not_exists.unwrap()(c(id).as_ptr(), usage) }
    }

    /// For signing and derivation.
    pub fn import(&self, id: &str, bytes: &[u8]) -> Rc {
        self.import_for(id, bytes, KEY_USAGE_SIGN)
    }

    pub fn import_for(&self, id: &str, bytes: &[u8], usage: u32) -> Rc {
        let import = self.list.public.import_key.unwrap();
        // SAFETY: a string, and bytes with their length.
        unsafe { import(c(id).as_ptr(), bytes.as_ptr(), bytes.len(), usage) }
    }

    pub fn begin_moment(&self) {
        // SAFETY: it may be called at any time.
        unsafe { self.list.begin_moment.unwrap()() };
    }

    pub fn load(&self, id: &str) -> Rc {
        with_id(self.list.public.load_key, id)
    }

    pub fn try_load(&self, id: &str) -> Rc {
        with_id(self.list.try_load_key, id)
    }

    pub fn delete(&self, id: &str) -> Rc {
        with_id(self.list.public.delete_key, id)
    }

    pub fn create_pair(&self, id: &str, algorithms: Option<&str>) -> Rc {
        let algorithms = algorithms.map(c);
        let pointer = algorithms
            .as_ref()
            .map_or(ptr::null(), |text| text.as_ptr());
        // SAFETY: a string, and one that may be null.
        unsafe { self.list.public.create_key_pair_if_not_exists.unwrap()(c(id).as_ptr(), pointer) }
    }

    pub fn load_pair(&self, id: &str) -> Rc {
        with_id(self.list.public.load_key_pair, id)
    }

    pub fn try_load_pair(&self, id: &str) -> Rc {
        with_id(self.list.try_load_key_pair, id)
    }

    pub fn delete_pair(&self, id: &str) -> Rc {
        with_id(self.list.public.delete_key_pair, id)
    }

    pub fn move_pair(&self, from: &str, to: &str) -> Rc {
        // SAFETY: both are strings.
        unsafe { self.list.public.move_key_pair.unwrap()(c(from).as_ptr(), c(to).as_ptr()) }
    }

    /// A public parameter. The size that is told must be exact.
    pub fn parameter(&self, id: &str, type_: u32) -> Result<Vec<u8>, Rc> {
        self.parameter_by(self.list.public.get_key_pair_parameter.unwrap(), id, type_)
    }

    pub fn try_parameter(&self, id: &str, type_: u32) -> Result<Vec<u8>, Rc> {
        self.parameter_by(self.list.try_get_key_pair_parameter.unwrap(), id, type_)
    }

    fn parameter_by(&self, tell: KeyPairParameter, id: &str, type_: u32) -> Result<Vec<u8>, Rc> {
        let id = c(id);
        let out = two_calls(|buffer, len| {
            // SAFETY: a string, and a buffer with its capacity or none.
            unsafe { tell(id.as_ptr(), type_, buffer, len) }
        })?;
        assert_eq!(out.told, out.bytes.len());
        Ok(out.bytes)
    }

    /// What the question for the length of a parameter is answered.
    pub fn parameter_len(&self, id: &str, type_: u32) -> Result<usize, Rc> {
        let tell = self.list.public.get_key_pair_parameter.unwrap();
        let (id, mut len) = (c(id), 12345);
        // SAFETY: a string, and no buffer.
        let rc = unsafe { tell(id.as_ptr(), type_, ptr::null_mut(), &raw mut len) };
        if rc == Rc::OK { Ok(len) } else { Err(rc) }
    }

    /// The algorithm, read as the Keys Service does: with a single call into four bytes.
    pub fn algorithm(&self, id: &str) -> Result<u32, Rc> {
        let tell = self.list.public.get_key_pair_parameter.unwrap();
        let (id, mut value, mut len) = (c(id), [0; 4], 4);
        let type_ = KEY_PAIR_PARAMETER_TYPE_ALGORITHM;
        // SAFETY: a string, and a buffer with its capacity.
        let rc = unsafe { tell(id.as_ptr(), type_, value.as_mut_ptr(), &raw mut len) };
        if rc != Rc::OK {
            return Err(rc);
        }
        assert_eq!(len, 4);
        Ok(u32::from_ne_bytes(value))
    }

    pub fn derive(&self, id: &str, data: &[u8]) -> Result<Vec<u8>, Rc> {
        self.derive_by(self.list.public.derive_key.unwrap(), id, data)
    }

    pub fn try_derive(&self, id: &str, data: &[u8]) -> Result<Vec<u8>, Rc> {
        self.derive_by(self.list.try_derive_key.unwrap(), id, data)
    }

    fn derive_by(&self, derive: DeriveKey, id: &str, data: &[u8]) -> Result<Vec<u8>, Rc> {
        let id = c(id);
        let out = two_calls(|buffer, len| {
            // SAFETY: a string, bytes with their length, and a buffer with its capacity or none.
            unsafe { derive(id.as_ptr(), data.as_ptr(), data.len(), buffer, len) }
        })?;
        Ok(out.bytes)
    }

    /// HMAC-SHA256.
    pub fn sign(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
        self.sign_as(id, SIGN_MECHANISM_HMAC_SHA256, None, message)
    }

    /// HMAC-SHA256 with a single call, for threads whose keys change between two.
    pub fn sign_once(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
        once(self.list.public.sign.unwrap(), id, message)
    }

    pub fn try_sign_once(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
        once(self.list.try_sign.unwrap(), id, message)
    }

    pub fn try_sign(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
        self.try_sign_as(id, SIGN_MECHANISM_HMAC_SHA256, None, message)
    }

    pub fn ecdsa(&self, id: &str, digest: &[u8]) -> Result<Vec<u8>, Rc> {
        self.sign_as(id, SIGN_MECHANISM_ECDSA, None, digest)
    }

    pub fn try_ecdsa(&self, id: &str, digest: &[u8]) -> Result<Vec<u8>, Rc> {
        self.try_sign_as(id, SIGN_MECHANISM_ECDSA, None, digest)
    }

    /// With the key derived with this data.
    pub fn sign_derived(&self, id: &str, data: &[u8], message: &[u8]) -> Result<Vec<u8>, Rc> {
        let parameters = SignDerivedParameters {
            derivation_data: data.as_ptr(),
            derivation_data_len: data.len(),
            mechanism: SIGN_MECHANISM_HMAC_SHA256,
            parameters: ptr::null(),
        };
        self.sign_as(id, SIGN_MECHANISM_DERIVED, Some(&parameters), message)
    }

    /// With any mechanism and parameters.
    pub fn sign_as(
        &self,
        id: &str,
        mechanism: u32,
        parameters: Option<&SignDerivedParameters>,
        message: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        let sign = self.list.public.sign.unwrap();
        Ok(sign_by(sign, id, mechanism, parameters, message)?.bytes)
    }

    pub fn try_sign_as(
        &self,
        id: &str,
        mechanism: u32,
        parameters: Option<&SignDerivedParameters>,
        message: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        let sign = self.list.try_sign.unwrap();
        Ok(sign_by(sign, id, mechanism, parameters, message)?.bytes)
    }

    /// What the question for the length of a signature is answered.
    pub fn signature_bound(&self, id: &str, mechanism: u32) -> Result<usize, Rc> {
        self.signature_bound_by(self.list.public.sign.unwrap(), id, mechanism)
    }

    pub fn try_signature_bound(&self, id: &str, mechanism: u32) -> Result<usize, Rc> {
        self.signature_bound_by(self.list.try_sign.unwrap(), id, mechanism)
    }

    fn signature_bound_by(&self, sign: Sign, id: &str, mechanism: u32) -> Result<usize, Rc> {
        let (id, mut len) = (c(id), 0);
        // SAFETY: a string, no parameters, bytes with their length, and no buffer.
        let rc = unsafe {
            sign(
                id.as_ptr(),
                mechanism,
                ptr::null(),
                b"".as_ptr(),
                0,
                ptr::null_mut(),
                &raw mut len,
            )
        };
        if rc == Rc::OK { Ok(len) } else { Err(rc) }
    }

    pub fn verify(
        &self,
        id: &str,
        mechanism: u32,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Rc> {
        let verify = self.list.public.verify.unwrap();
        verify_by(verify, id, mechanism, message, signature)
    }

    pub fn try_verify(
        &self,
        id: &str,
        mechanism: u32,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Rc> {
        let verify = self.list.try_verify.unwrap();
        verify_by(verify, id, mechanism, message, signature)
    }

    /// AEAD, with the key itself or with the one derived with this data.
    pub fn encrypt(
        &self,
        id: &str,
        derived: Option<&[u8]>,
        [iv, aad]: [&[u8]; 2],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        aead(
            self.list.public.encrypt.unwrap(),
            id,
            derived,
            [iv, aad],
            plaintext,
        )
    }

    pub fn try_encrypt(
        &self,
        id: &str,
        derived: Option<&[u8]>,
        [iv, aad]: [&[u8]; 2],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        aead(
            self.list.try_encrypt.unwrap(),
            id,
            derived,
            [iv, aad],
            plaintext,
        )
    }

    pub fn decrypt(
        &self,
        id: &str,
        derived: Option<&[u8]>,
        [iv, aad]: [&[u8]; 2],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        aead(
            self.list.public.decrypt.unwrap(),
            id,
            derived,
            [iv, aad],
            ciphertext,
        )
    }

    pub fn try_decrypt(
        &self,
        id: &str,
        derived: Option<&[u8]>,
        [iv, aad]: [&[u8]; 2],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        aead(
            self.list.try_decrypt.unwrap(),
            id,
            derived,
            [iv, aad],
            ciphertext,
        )
    }

    /// Decryption into this buffer.
    pub fn decrypt_into(
        &self,
        id: &str,
        [iv, aad]: [&[u8]; 2],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Rc {
        let parameters = EncryptAeadParameters {
            iv: iv.as_ptr(),
            iv_len: iv.len(),
            aad: aad.as_ptr(),
            aad_len: aad.len(),
        };
        let (id, mut len) = (c(id), out.len());
        // SAFETY: a string, the mechanism's parameters, bytes with their length, and a buffer with its capacity.
        unsafe {
            self.list.public.decrypt.unwrap()(
                id.as_ptr(),
                ENCRYPT_MECHANISM_AEAD,
                (&raw const parameters).cast(),
                sealed.as_ptr(),
                sealed.len(),
                out.as_mut_ptr(),
                &raw mut len,
            )
        }
    }

    /// RSA's private operation, with one of its two mechanisms.
    pub fn rsa(&self, id: &str, mechanism: u32, input: &[u8]) -> Result<Vec<u8>, Rc> {
        crypt(
            self.list.public.encrypt.unwrap(),
            id,
            mechanism,
            ptr::null(),
            input,
        )
    }

    pub fn try_rsa(&self, id: &str, mechanism: u32, input: &[u8]) -> Result<Vec<u8>, Rc> {
        crypt(
            self.list.try_encrypt.unwrap(),
            id,
            mechanism,
            ptr::null(),
            input,
        )
    }

    /// With any function, mechanism and parameters.
    pub fn crypt_as<P>(
        &self,
        function: Option<Crypt>,
        id: &str,
        mechanism: u32,
        parameters: Option<&P>,
        input: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        let parameters = parameters.map_or(ptr::null(), ptr::from_ref).cast();
        crypt(function.unwrap(), id, mechanism, parameters, input)
    }

    pub fn location(&self, id: &str) -> u32 {
        let mut location = 77;
        // SAFETY: a string and an integer.
        let rc = unsafe { self.list.key_location.unwrap()(c(id).as_ptr(), &raw mut location) };
        assert_eq!(rc, Rc::OK);
        location
    }

    pub fn sweep(&self) -> Rc {
        // SAFETY: no arguments.
        unsafe { self.list.sweep.unwrap()() }
    }

    /// All that the library tells about keys and tokens.
    pub fn report(&self) -> (Vec<ReportedKey>, Vec<ReportedToken>) {
        let mut told = (Vec::new(), Vec::new());
        // SAFETY: the functions take the context for what it is.
        let rc = unsafe {
            self.list.report.unwrap()(told_key, told_token, (&raw mut told).cast::<c_void>())
        };
        assert_eq!(rc, Rc::OK);
        told
    }
}

/// A [`KeyReport`], copied.
#[derive(Clone, Debug)]
pub struct ReportedKey {
    pub id: Option<String>,
    pub kind: u32,
    pub location: u32,
    pub place: Option<String>,
    pub preloaded: u32,
    pub remark: Option<String>,
}

/// A [`TokenReport`], copied.
#[derive(Clone, Debug)]
pub struct ReportedToken {
    pub uri: String,
    pub state: u32,
    pub since: u64,
    pub failure: Option<String>,
    pub next_attempt: u64,
    pub sessions: u32,
}

type Told = (Vec<ReportedKey>, Vec<ReportedToken>);

unsafe extern "C" fn told_key(context: *mut c_void, key: *const KeyReport) {
    // SAFETY: the context is what `Keys::report` gave, and the report is one.
    let (told, key) = unsafe { (&mut *context.cast::<Told>(), &*key) };
    told.0.push(ReportedKey {
        id: owned(key.id),
        kind: key.kind,
        location: key.location,
        place: owned(key.place),
        preloaded: key.preloaded,
        remark: owned(key.remark),
    });
}

unsafe extern "C" fn told_token(context: *mut c_void, token: *const TokenReport) {
    // SAFETY: the context is what `Keys::report` gave, and the report is one.
    let (told, token) = unsafe { (&mut *context.cast::<Told>(), &*token) };
    told.1.push(ReportedToken {
        uri: owned(token.uri).unwrap(),
        state: token.state,
        since: token.since,
        failure: owned(token.failure),
        next_attempt: token.next_attempt,
        sessions: token.sessions,
    });
}

fn owned(text: *const c_char) -> Option<String> {
    // SAFETY: a report's strings are NUL-terminated.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned())
}

struct TwoCalls {
    told: usize,
    bytes: Vec<u8>,
}

/// Asks for the length, then for the bytes with a buffer of exactly that length, as the Keys Service does.
fn two_calls(mut call: impl FnMut(*mut u8, *mut usize) -> Rc) -> Result<TwoCalls, Rc> {
    let mut told = 12345;
    let rc = call(ptr::null_mut(), &raw mut told);
    if rc != Rc::OK {
        // What the question is refused for, the call is refused for.
        let (mut bytes, mut len) = (vec![0; 4096], 4096);
        assert_eq!(call(bytes.as_mut_ptr(), &raw mut len), rc);
        return Err(rc);
    }
    let mut bytes = vec![0; told];
    let mut len = told;
    // The address of an empty vector is not null.
    let rc = call(bytes.as_mut_ptr(), &raw mut len);
    if rc != Rc::OK {
        return Err(rc);
    }
    assert!(len <= told, "{len} bytes, although {told} were told");
    bytes.truncate(len);
    Ok(TwoCalls { told, bytes })
}

fn sign_by(
    sign: Sign,
    id: &str,
    mechanism: u32,
    parameters: Option<&SignDerivedParameters>,
    message: &[u8],
) -> Result<TwoCalls, Rc> {
    let parameters = parameters.map_or(ptr::null(), ptr::from_ref).cast();
    let id = c(id);
    two_calls(|buffer, len| {
        // SAFETY: a string, the mechanism's parameters, bytes with their length, a buffer with its capacity or none.
        unsafe {
            sign(
                id.as_ptr(),
                mechanism,
                parameters,
                message.as_ptr(),
                message.len(),
                buffer,
                len,
            )
        }
    })
}

fn once(sign: Sign, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
    let (id, mut out, mut len) = (c(id), vec![0; 32], 32);
    // SAFETY: a string, no parameters, bytes with their length, and a buffer with its capacity.
    let rc = unsafe {
        sign(
            id.as_ptr(),
            SIGN_MECHANISM_HMAC_SHA256,
            ptr::null(),
            message.as_ptr(),
            message.len(),
            out.as_mut_ptr(),
            &raw mut len,
        )
    };
    assert!(rc != Rc::OK || len == out.len());
    if rc == Rc::OK { Ok(out) } else { Err(rc) }
}

fn verify_by(
    verify: Verify,
    id: &str,
    mechanism: u32,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Rc> {
    let id = c(id);
    let mut ok = 77;
    // SAFETY: a string, no parameters, bytes with their lengths, and an integer.
    let rc = unsafe {
        verify(
            id.as_ptr(),
            mechanism,
            ptr::null(),
            message.as_ptr(),
            message.len(),
            signature.as_ptr(),
            signature.len(),
            &raw mut ok,
        )
    };
    match (rc, ok) {
        (Rc::OK, 0 | 1) => Ok(ok == 1),
        (rc, 77) if rc != Rc::OK => Err(rc),
        _ => panic!("answered {rc} and wrote {ok}"),
    }
}

fn aead(
    function: Crypt,
    id: &str,
    derived: Option<&[u8]>,
    [iv, aad]: [&[u8]; 2],
    input: &[u8],
) -> Result<Vec<u8>, Rc> {
    let inner = EncryptAeadParameters {
        iv: iv.as_ptr(),
        iv_len: iv.len(),
        aad: aad.as_ptr(),
        aad_len: aad.len(),
    };
    let Some(data) = derived else {
        return crypt(
            function,
            id,
            ENCRYPT_MECHANISM_AEAD,
            (&raw const inner).cast(),
            input,
        );
    };
    let outer = EncryptDerivedParameters {
        derivation_data: data.as_ptr(),
        derivation_data_len: data.len(),
        mechanism: ENCRYPT_MECHANISM_AEAD,
        parameters: (&raw const inner).cast(),
    };
    crypt(
        function,
        id,
        ENCRYPT_MECHANISM_DERIVED,
        (&raw const outer).cast(),
        input,
    )
}

fn crypt(
    function: Crypt,
    id: &str,
    mechanism: u32,
    parameters: *const c_void,
    input: &[u8],
) -> Result<Vec<u8>, Rc> {
    let id = c(id);
    let out = two_calls(|buffer, len| {
        // SAFETY: a string, the mechanism's parameters, bytes with their length, a buffer with its capacity or none.
        unsafe {
            function(
                id.as_ptr(),
                mechanism,
                parameters,
                input.as_ptr(),
                input.len(),
                buffer,
                len,
            )
        }
    })?;
    Ok(out.bytes)
}

fn with_id(function: Option<KeyFunction>, id: &str) -> Rc {
    // SAFETY: it is a string.
    unsafe { function.unwrap()(c(id).as_ptr()) }
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}
