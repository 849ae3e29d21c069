//! What the integration tests share: the built library, and a C compiler.

#![allow(dead_code, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]
#![allow(unsafe_code, reason = "the library is called through its C ABI")]

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

use aziot_crypto::keys_abi::*;
use tempfile::TempDir;

/// The shared library that cargo built for this test program.
pub fn shared_library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = program.parent().unwrap().join("libaziot_keys.so");
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// A directory for one test, with its symbolic links resolved.
pub fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

/// The directory of this crate.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles the C program that drives the library.
pub fn compile_driver(into: &Path) -> PathBuf {
    let program = into.join("driver");
    cc(&[
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-D_GNU_SOURCE",
        "-I",
        here().join("include").to_str().unwrap(),
        "-o",
        program.to_str().unwrap(),
        here().join("tests/c/driver.c").to_str().unwrap(),
        "-ldl",
    ]);
    program
}

/// Runs the C compiler.
pub fn cc(arguments: &[&str]) {
    let output = Command::new("cc")
        .args(arguments)
        .output()
        .expect("a C compiler named cc");
    assert!(
        output.status.success(),
        "cc {arguments:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An instance of the library of its own, with its own settings, whatever other tests do.
pub struct Keys {
    list: &'static FunctionListExtended,
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
        std::fs::copy(shared_library(), &copy).unwrap();
        // SAFETY: the library's initialisers do nothing, and the symbol has the type that the ABI gives it.
        let (library, list) = unsafe {
            let library = libloading::Library::new(&copy).unwrap();
            let getter: libloading::Symbol<'_, FunctionListGetter> =
                library.get(ENTRY_POINT.to_bytes_with_nul()).unwrap();
            let mut list = std::ptr::null();
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

    pub fn create(&self, id: &str, usage: u32) -> Rc {
        // SAFETY: it is a string.
        unsafe { self.list.public.create_key_if_not_exists.unwrap()(c(id).as_ptr(), usage) }
    }

    pub fn import(&self, id: &str, bytes: &[u8]) -> Rc {
        // SAFETY: a string, and bytes with their length.
        unsafe {
            self.list.public.import_key.unwrap()(c(id).as_ptr(), bytes.as_ptr(), bytes.len(), 1)
        }
    }

    pub fn load(&self, id: &str) -> Rc {
        // SAFETY: it is a string.
        unsafe { self.list.public.load_key.unwrap()(c(id).as_ptr()) }
    }

    pub fn try_load(&self, id: &str) -> Rc {
        // SAFETY: it is a string.
        unsafe { self.list.try_load_key.unwrap()(c(id).as_ptr()) }
    }

    pub fn delete(&self, id: &str) -> Rc {
        // SAFETY: it is a string.
        unsafe { self.list.public.delete_key.unwrap()(c(id).as_ptr()) }
    }

    pub fn create_pair(&self, id: &str, algorithms: Option<&str>) -> Rc {
        let algorithms = algorithms.map(c);
        let pointer = algorithms
            .as_ref()
            .map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: a string, and one that may be null.
        unsafe { self.list.public.create_key_pair_if_not_exists.unwrap()(c(id).as_ptr(), pointer) }
    }

    pub fn load_pair(&self, id: &str) -> Rc {
        // SAFETY: it is a string.
        unsafe { self.list.public.load_key_pair.unwrap()(c(id).as_ptr()) }
    }

    pub fn move_pair(&self, from: &str, to: &str) -> Rc {
        // SAFETY: both are strings.
        unsafe { self.list.public.move_key_pair.unwrap()(c(from).as_ptr(), c(to).as_ptr()) }
    }

    pub fn derive(&self, id: &str, data: &[u8]) -> Result<Vec<u8>, Rc> {
        self.derive_by(self.list.public.derive_key.unwrap(), id, data)
    }

    pub fn try_derive(&self, id: &str, data: &[u8]) -> Result<Vec<u8>, Rc> {
        self.derive_by(self.list.try_derive_key.unwrap(), id, data)
    }

    fn derive_by(&self, derive: DeriveKey, id: &str, data: &[u8]) -> Result<Vec<u8>, Rc> {
        let mut out = vec![0; 32];
        let mut len = out.len();
        // SAFETY: a string, bytes with their length, and a buffer with its capacity.
        let rc = unsafe {
            derive(
                c(id).as_ptr(),
                data.as_ptr(),
                data.len(),
                out.as_mut_ptr(),
                &raw mut len,
            )
        };
        answer(rc, out, len)
    }

    /// HMAC-SHA256.
    pub fn sign(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
        self.sign_by(
            self.list.public.sign.unwrap(),
            id,
            SIGN_MECHANISM_HMAC_SHA256,
            None,
            message,
        )
    }

    pub fn try_sign(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, Rc> {
        self.sign_by(
            self.list.try_sign.unwrap(),
            id,
            SIGN_MECHANISM_HMAC_SHA256,
            None,
            message,
        )
    }

    /// With any mechanism and parameters.
    pub fn sign_as(
        &self,
        id: &str,
        mechanism: u32,
        parameters: Option<&SignDerivedParameters>,
        message: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        self.sign_by(
            self.list.public.sign.unwrap(),
            id,
            mechanism,
            parameters,
            message,
        )
    }

    pub fn try_sign_as(
        &self,
        id: &str,
        mechanism: u32,
        parameters: Option<&SignDerivedParameters>,
        message: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        self.sign_by(
            self.list.try_sign.unwrap(),
            id,
            mechanism,
            parameters,
            message,
        )
    }

    fn sign_by(
        &self,
        sign: Sign,
        id: &str,
        mechanism: u32,
        parameters: Option<&SignDerivedParameters>,
        message: &[u8],
    ) -> Result<Vec<u8>, Rc> {
        let parameters = parameters
            .map_or(std::ptr::null(), std::ptr::from_ref)
            .cast();
        let mut out = vec![0; 64];
        let mut len = out.len();
        let (id, message_len) = (c(id), message.len());
        // SAFETY: a string, the mechanism's parameters, bytes with their length, and a buffer with its capacity.
        let rc = unsafe {
            sign(
                id.as_ptr(),
                mechanism,
                parameters,
                message.as_ptr(),
                message_len,
                out.as_mut_ptr(),
                &raw mut len,
            )
        };
        answer(rc, out, len)
    }

    pub fn verify(
        &self,
        id: &str,
        mechanism: u32,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Rc> {
        self.verify_by(
            self.list.public.verify.unwrap(),
            id,
            mechanism,
            message,
            signature,
        )
    }

    pub fn try_verify(
        &self,
        id: &str,
        mechanism: u32,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Rc> {
        self.verify_by(
            self.list.try_verify.unwrap(),
            id,
            mechanism,
            message,
            signature,
        )
    }

    fn verify_by(
        &self,
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
                std::ptr::null(),
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
}

fn answer(rc: Rc, mut out: Vec<u8>, len: usize) -> Result<Vec<u8>, Rc> {
    if rc != Rc::OK {
        return Err(rc);
    }
    out.truncate(len);
    Ok(out)
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// Bytes from hexadecimal digits.
pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Long enough for a file that was just written to be kept in memory when it is read next.
pub fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(70));
}
