//! Private keys in PEM (RFC 7468): read by OpenSSL, which never gets to ask for a passphrase.

use core::ffi::{c_char, c_int, c_void};
use core::fmt;
use core::ptr;

use ::openssl::error::ErrorStack;
use ::openssl::pkey::{PKey, Private};
use foreign_types_shared::ForeignType as _;
use openssl_sys as ffi;

use super::error::Reasons;

/// Reads the first private key of a PEM text: PKCS #8, or the traditional forms of EC and RSA. Other text and other
/// blocks before and after it are skipped.
#[allow(
    unsafe_code,
    reason = "the openssl crate has no reader with a callback that can refuse"
)]
pub(super) fn private_key(pem: &[u8]) -> Result<PKey<Private>, PemError> {
    let Ok(len) = c_int::try_from(pem.len()) else {
        return Err(PemError::TooLong);
    };
    ffi::init();
    // What others left in the queue is not our reason.
    drop(ErrorStack::get());

    // SAFETY: `pem` is readable for `len` bytes and outlives `bio`, which is read-only and freed below. `refuse` has
    // the signature of a `pem_password_cb` and ignores its arguments. A key that is not null is ours.
    let key = unsafe {
        let bio = ffi::BIO_new_mem_buf(pem.as_ptr().cast(), len);
        if bio.is_null() {
            return Err(PemError::Unreadable(Reasons::take()));
        }
        let key = ffi::PEM_read_bio_PrivateKey(bio, ptr::null_mut(), Some(refuse), ptr::null_mut());
        ffi::BIO_free_all(bio);
        (!key.is_null()).then(|| PKey::from_ptr(key))
    };
    // Also after success: attempts at decoding leave errors behind.
    let reasons = Reasons::take();
    key.ok_or_else(|| PemError::of(pem, reasons))
}

/// A `pem_password_cb` that has no passphrase, not even the empty one.
#[allow(unsafe_code, reason = "called by OpenSSL")]
unsafe extern "C" fn refuse(
    _buffer: *mut c_char,
    _size: c_int,
    _writing: c_int,
    _context: *mut c_void,
) -> c_int {
    -1
}

/// Why a text holds no private key that can be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PemError {
    /// A certificate, and no key beside it.
    Certificate,
    /// ASN.1 without the armour of PEM.
    Der,
    /// Nothing at all.
    Empty,
    /// The key is encrypted with a passphrase.
    Encrypted,
    /// No PEM block of any kind that matters here.
    NotPem,
    /// A public key.
    PublicKey,
    /// More than 2 GiB.
    TooLong,
    /// There is a block for a private key, and it cannot be read.
    Unreadable(Reasons),
}

impl PemError {
    /// Finds out what `text` is that no key could be read from.
    fn of(text: &[u8], reasons: Reasons) -> Self {
        let has = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
        if text.is_empty() {
            Self::Empty
        } else if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
            Self::Encrypted
        } else if has(b"PRIVATE KEY-----") {
            Self::Unreadable(reasons)
        } else if has(b"PUBLIC KEY-----") {
            Self::PublicKey
        } else if has(b"CERTIFICATE-----") {
            Self::Certificate
        } else if text.first() == Some(&0x30) {
            Self::Der
        } else {
            Self::NotPem
        }
    }
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str(
                "it holds a certificate but no private key; append the private key, or name the file that has it",
            ),
            Self::Der => f.write_str(
                "it is DER or another binary form, not PEM; convert it with `openssl pkey -inform DER -in OLD -out NEW`",
            ),
            Self::Empty => f.write_str("it is empty"),
            Self::Encrypted => f.write_str(
                "the private key is encrypted with a passphrase; decrypt it with `openssl pkey -in OLD -out NEW`",
            ),
            Self::NotPem => f.write_str(
                "it holds no private key in PEM: there is no line `-----BEGIN PRIVATE KEY-----`",
            ),
            Self::PublicKey => {
                f.write_str("it holds a public key; what is needed is the private key that belongs to it")
            }
            Self::TooLong => f.write_str("it is too long for a private key"),
            Self::Unreadable(reasons) => write!(
                f,
                "the private key cannot be read ({reasons}): it is damaged, or of a kind that OpenSSL does not know \
                 here; put a good copy in its place, which `openssl pkey -noout -in FILE` accepts"
            ),
        }
    }
}

impl core::error::Error for PemError {}
