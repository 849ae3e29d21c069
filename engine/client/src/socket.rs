//! Where the Keys Service listens.
#![allow(
    unsafe_code,
    reason = "reading the environment as shared objects have to"
)]

use std::ffi::{CStr, OsStr, c_char};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The socket, seen from the root.
const SOCKET: &str = "run/aziot/keyd.sock";

/// Names the directory that stands for `/` in the locations built in.
const ROOT_VARIABLE: &CStr = c"AZIOT_ROOT";

unsafe extern "C" {
    /// `secure_getenv(3)` of glibc, and of musl since 1.2. The libc crate leaves it out.
    fn secure_getenv(name: *const c_char) -> *const c_char;
}

/// `AZIOT_ROOT` is not an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootError(PathBuf);

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "AZIOT_ROOT is {:?}, which is not an absolute path: set it to one, or unset it",
            self.0
        )
    }
}

impl std::error::Error for RootError {}

/// The socket of the Keys Service: `/run/aziot/keyd.sock`, under the directory that the variable `AZIOT_ROOT` names, if it is
/// set. Programs that run with more rights than their caller (`secure_getenv(3)`) do not look at the variable.
///
/// The variable is read from the C environment: no other thread may change that meanwhile.
///
/// # Errors
/// The variable is neither empty nor an absolute path.
pub fn default_socket() -> Result<PathBuf, RootError> {
    // SAFETY: the name is NUL-terminated. The answer is NULL or a NUL-terminated string of the environment.
    let value = unsafe { secure_getenv(ROOT_VARIABLE.as_ptr()) };
    let value = if value.is_null() {
        c""
    } else {
        // SAFETY: not NULL, so a NUL-terminated string. It is used up before this function returns.
        unsafe { CStr::from_ptr(value) }
    };
    under(Path::new(OsStr::from_bytes(value.to_bytes())))
}

fn under(root: &Path) -> Result<PathBuf, RootError> {
    if root.as_os_str().is_empty() {
        return Ok(Path::new("/").join(SOCKET));
    }
    if !root.is_absolute() {
        return Err(RootError(root.to_owned()));
    }
    Ok(root.join(SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots() {
        let standard = Path::new("/run/aziot/keyd.sock");
        assert_eq!(under(Path::new("")).unwrap(), standard);
        assert_eq!(under(Path::new("/")).unwrap(), standard);
        assert_eq!(
            under(Path::new("/tmp/r")).unwrap(),
            Path::new("/tmp/r/run/aziot/keyd.sock")
        );
        let error = under(Path::new("r")).unwrap_err().to_string();
        assert!(
            error.contains("\"r\"") && error.contains("absolute"),
            "{error}"
        );
    }
}
