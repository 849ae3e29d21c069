//! AES-256-GCM.

use core::fmt;

use ::openssl::cipher::Cipher;
use ::openssl::cipher_ctx::CipherCtx;
use ::openssl::error::ErrorStack;
use zeroize::{Zeroize as _, Zeroizing};

use super::error::Error;
use super::spare::Spare;
use crate::aead::{Frame, MAX_IV_LEN, OVERHEAD, Sealed, TAG_LEN};

/// Length of a key in bytes.
const KEY_LEN: usize = 32;

/// OpenSSL counts in `int`; longer texts go to it in pieces of this many bytes, a multiple of the block length.
const PIECE: usize = 1 << 30;

/// A key for AES-256-GCM (NIST SP 800-38D). Wiped when dropped.
pub struct AesGcm {
    key: Box<Zeroizing<[u8; KEY_LEN]>>,
    spare: Spare<Context>,
}

impl AesGcm {
    /// Takes a key.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLen`] unless it has exactly 32 bytes.
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        let mut kept = Box::new(Zeroizing::new([0; KEY_LEN]));
        if key.len() != KEY_LEN {
            return Err(Error::KeyLen(key.len()));
        }
        kept.copy_from_slice(key);
        Ok(Self {
            key: kept,
            spare: Spare::new(),
        })
    }

    /// Encrypts, and writes the whole ciphertext, [`OVERHEAD`] bytes longer than the plaintext and in the layout
    /// [`crate::aead::Layout::V2`], to the beginning of `out`. Returns its length. The initialisation vector has 1 to
    /// [`MAX_IV_LEN`] bytes and must never be used twice with the same key.
    ///
    /// # Errors
    ///
    /// [`Error::IvLen`], [`Error::OutputTooSmall`], [`Error::OpenSsl`].
    pub fn encrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        check_iv(iv)?;
        let enough = plaintext.len().saturating_add(OVERHEAD);
        let Frame { ciphertext, tag } =
            Frame::new(out, plaintext.len()).ok_or(Error::OutputTooSmall { enough })?;
        self.with_context(|context| context.encrypt(iv, aad, plaintext, ciphertext, tag))
            .map_err(Error::of("encrypt"))?;
        Ok(enough)
    }

    /// Decrypts a whole ciphertext in either layout, writes the plaintext to the beginning of `out` and returns its
    /// length, which is [`OVERHEAD`] bytes less than the ciphertext's. After a failure nothing of the plaintext is in
    /// `out`.
    ///
    /// # Errors
    ///
    /// [`Error::IvLen`], [`Error::Malformed`], [`Error::OutputTooSmall`], [`Error::Authentication`],
    /// [`Error::OpenSsl`].
    pub fn decrypt(
        &self,
        iv: &[u8],
        aad: &[u8],
        whole: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let sealed = Sealed::parse(whole)?;
        check_iv(iv)?;
        let enough = sealed.ciphertext.len();
        let plaintext = out
            .get_mut(..enough)
            .ok_or(Error::OutputTooSmall { enough })?;
        let authentic = self
            .with_context(|context| {
                context.decrypt(iv, aad, sealed.ciphertext, sealed.tag, plaintext)
            })
            .map_err(Error::of("decrypt"));
        match authentic {
            Ok(true) => Ok(enough),
            Ok(false) => {
                plaintext.zeroize();
                Err(Error::Authentication)
            }
            Err(err) => {
                plaintext.zeroize();
                Err(err)
            }
        }
    }

    fn with_context<T>(
        &self,
        operation: impl FnOnce(&mut Context) -> Result<T, ErrorStack>,
    ) -> Result<T, ErrorStack> {
        let mut context = match self.spare.take() {
            Some(context) => context,
            None => Context::new(&self.key)?,
        };
        let result = operation(&mut context)?;
        self.spare.leave(context);
        Ok(result)
    }
}

impl fmt::Debug for AesGcm {
    /// Never shows anything of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesGcm(..)")
    }
}

fn check_iv(iv: &[u8]) -> Result<(), Error> {
    if (1..=MAX_IV_LEN).contains(&iv.len()) {
        Ok(())
    } else {
        Err(Error::IvLen(iv.len()))
    }
}

/// An OpenSSL context that has the key; each use gives it a new initialisation vector.
struct Context {
    cipher: CipherCtx,
    iv_len: usize,
}

impl Context {
    fn new(key: &[u8; KEY_LEN]) -> Result<Self, ErrorStack> {
        let mut cipher = CipherCtx::new()?;
        cipher.encrypt_init(Some(Cipher::aes_256_gcm()), Some(key), None)?;
        Ok(Self { cipher, iv_len: 0 })
    }

    fn encrypt(
        &mut self,
        iv: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), ErrorStack> {
        self.set_iv_len(iv)?;
        self.cipher.encrypt_init(None, None, Some(iv))?;
        self.feed(aad, plaintext, ciphertext)?;
        self.cipher.cipher_final(&mut [])?;
        self.cipher.tag(tag)
    }

    /// Whether the tag is right; if not, what was written must not be used.
    fn decrypt(
        &mut self,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<bool, ErrorStack> {
        self.set_iv_len(iv)?;
        self.cipher.decrypt_init(None, None, Some(iv))?;
        self.feed(aad, ciphertext, plaintext)?;
        self.cipher.set_tag(tag)?;
        // All input has been taken, so that the last step compares the tags and does nothing else.
        Ok(self.cipher.cipher_final(&mut []).is_ok())
    }

    fn set_iv_len(&mut self, iv: &[u8]) -> Result<(), ErrorStack> {
        if self.iv_len != iv.len() {
            self.cipher.set_iv_length(iv.len())?;
            self.iv_len = iv.len();
        }
        Ok(())
    }

    fn feed(&mut self, aad: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), ErrorStack> {
        for piece in aad.chunks(PIECE) {
            self.cipher.cipher_update(piece, None)?;
        }
        for (from, to) in input.chunks(PIECE).zip(output.chunks_mut(PIECE)) {
            self.cipher.cipher_update(from, Some(to))?;
        }
        Ok(())
    }
}
