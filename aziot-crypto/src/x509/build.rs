//! Certificates and requests, built and signed.

use core::fmt;

use aziot_core::der::{self, Tag, Writer};
use aziot_core::output::BufferFull;
use sha1::{Digest as _, Sha1};

use super::certificate::Certificate;
use super::extension::{Extension, Extensions};
use super::object_id::{AUTHORITY_KEY_IDENTIFIER, EXTENSION_REQUEST, SUBJECT_KEY_IDENTIFIER};
use super::signature::Signer;
use super::{spki, time};

/// What a certificate is to say. Names, keys and identifiers are in DER, as [`Certificate`] and
/// [`CertificationRequest`](super::CertificationRequest) have them.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// Its number.
    pub serial: Serial,
    /// Who issues it. `None` for a self-signed one: the issuer's name is the subject then, and no authority key identifier is
    /// added.
    pub issuer: Option<Issuer<'a>>,
    /// When it is valid.
    pub validity: Validity,
    /// Whom it is for.
    pub subject: &'a [u8],
    /// The key that it is for.
    pub public_key: &'a [u8],
    /// What it says besides. Identifiers of both keys are added where they are missing.
    pub extensions: Extensions<'a>,
}

/// Who issues a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The identifier of the key, if the issuer's certificate tells one.
    pub key_id: Option<&'a [u8]>,
}

impl<'a> From<&Certificate<'a>> for Issuer<'a> {
    fn from(certificate: &Certificate<'a>) -> Self {
        Self {
            name: certificate.subject(),
            key_id: certificate.subject_key_id(),
        }
    }
}

/// The number of a certificate: positive, 20 bytes, which nobody can guess (RFC 5280, 4.1.2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Serial([u8; 20]);

impl Serial {
    /// A number of 158 random bits.
    #[must_use]
    pub const fn from_random(random: [u8; 20]) -> Self {
        let mut number = random;
        let [first, ..] = &mut number;
        // Not negative, not zero, and always of the same length.
        *first = *first & 0x7f | 0x40;
        Self(number)
    }

    /// Big endian.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

/// When a certificate is valid, in seconds since 1970, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

impl Validity {
    /// From `now` for this many days of 86400 seconds, but not longer than the issuer's certificate.
    ///
    /// # Errors
    ///
    /// The issuer's certificate has expired.
    pub fn of_days(
        now: i64,
        days: u32,
        issuer: Option<&Certificate<'_>>,
    ) -> Result<Self, IssuerExpired> {
        let not_after = now.saturating_add(i64::from(days) * 86_400);
        let issuer_end = issuer.map_or(i64::MAX, Certificate::not_after);
        if issuer_end <= now {
            return Err(IssuerExpired {
                not_after: issuer_end,
            });
        }
        Ok(Self {
            not_before: now,
            not_after: not_after.min(issuer_end),
        })
    }
}

/// Builds a certificate and has it signed. Answers all of it, at the front of `out`.
///
/// Extensions are those of the template in their order, then a subject key identifier (SHA-1 of the key's bits, RFC 5280,
/// 4.2.1.2) and an authority key identifier (only the identifier), each unless the template has one already. 512 bytes and the
/// signature more than subject, issuer, key and extensions of the template are enough.
///
/// # Errors
///
/// [`BuildError`]. The content of `out` is unspecified then.
pub fn build<'o, S: Signer>(
    template: &Template<'_>,
    signer: &S,
    out: &'o mut [u8],
) -> Result<&'o [u8], BuildError<S::Error>> {
    let key_id: [u8; 20] =
        Sha1::digest(spki::key_bytes(template.public_key).map_err(BuildError::PublicKey)?).into();
    let issuer_name = template
        .issuer
        .map_or(template.subject, |issuer| issuer.name);
    write_signed(signer, out, |w| {
        w.nested(Tag::context(0), |w| w.unsigned(&[VERSION_3]));
        w.unsigned(template.serial.as_bytes());
        w.put(signer.algorithm().der());
        w.put(issuer_name);
        w.sequence(|w| {
            let Validity {
                not_before,
                not_after,
            } = template.validity;
            [not_before, not_after]
                .into_iter()
                .try_for_each(|seconds| time::write(w, seconds).ok_or(BuildError::Time { seconds }))
        })?;
        w.put(template.subject);
        w.put(template.public_key);
        w.nested(Tag::context(3), |w| {
            w.sequence(|w| write_extensions(w, template, &key_id));
        });
        Ok(())
    })
}

/// Version 3 as it is written.
const VERSION_3: u8 = 2;

fn write_extensions(w: &mut Writer<'_>, template: &Template<'_>, key_id: &[u8; 20]) {
    let mut has_subject_key_id = false;
    let mut has_authority_key_id = false;
    for extension in template.extensions {
        has_subject_key_id |= extension.id == SUBJECT_KEY_IDENTIFIER;
        has_authority_key_id |= extension.id == AUTHORITY_KEY_IDENTIFIER;
        extension.write(w);
    }
    if !has_subject_key_id {
        write_extension(w, SUBJECT_KEY_IDENTIFIER, |w| {
            w.element(Tag::OCTET_STRING, key_id);
        });
    }
    let issuer_key_id = template.issuer.and_then(|issuer| issuer.key_id);
    if let Some(id) = issuer_key_id
        && !has_authority_key_id
    {
        write_extension(w, AUTHORITY_KEY_IDENTIFIER, |w| {
            w.sequence(|w| w.element(Tag::context_primitive(0), id));
        });
    }
}

/// Appends an extension that is not critical, with what `value` appends.
fn write_extension(w: &mut Writer<'_>, id: &[u8], value: impl FnOnce(&mut Writer<'_>)) {
    w.sequence(|w| {
        w.object_identifier(id);
        w.nested(Tag::OCTET_STRING, value);
    });
}

/// Builds a request for a certificate (PKCS #10, version 0) and has it signed with the key that it is for. Answers all of it, at
/// the front of `out`.
///
/// `subject` and `public_key` are in DER. Without extensions there is no attribute either. 128 bytes and the signature more than
/// subject, key and extensions are enough.
///
/// # Errors
///
/// [`RequestError`]. The content of `out` is unspecified then.
pub fn build_request<'o, S: Signer>(
    subject: &[u8],
    public_key: &[u8],
    extensions: Extensions<'_>,
    signer: &S,
    out: &'o mut [u8],
) -> Result<&'o [u8], RequestError<S::Error>> {
    let write_requested = |w: &mut Writer<'_>| {
        w.sequence(|w| {
            w.object_identifier(EXTENSION_REQUEST);
            w.nested(Tag::SET, |w| {
                w.sequence(|w| {
                    extensions
                        .iter()
                        .for_each(|extension: Extension<'_>| extension.write(w));
                });
            });
        });
    };
    write_signed(signer, out, |w| {
        w.unsigned(&[]);
        w.put(subject);
        w.put(public_key);
        w.nested(Tag::context(0), |w| {
            if !extensions.is_empty() {
                write_requested(w);
            }
        });
        Ok(())
    })
}

/// Writes a sequence of what `content` appends, and around it the sequence of that, the algorithm and the signature.
fn write_signed<'o, S: Signer, E: From<BufferFull> + From<Unsigned<S::Error>>>(
    signer: &S,
    out: &'o mut [u8],
    content: impl FnOnce(&mut Writer<'_>) -> Result<(), E>,
) -> Result<&'o [u8], E> {
    let mut writer = Writer::new(out);
    writer.sequence(|w| {
        let start = w.len();
        w.sequence(content)?;
        let end = w.len();
        w.put(signer.algorithm().der());
        w.nested(Tag::BIT_STRING, |w| {
            w.put(&[0]);
            w.fill(|written, unused| {
                let message = written.get(start..end).unwrap_or_default();
                signer.sign(message, unused)
            })
        })
        .map_err(|err| E::from(Unsigned(err)))
    })?;
    Ok(writer.finish()?)
}

/// The signer's error on its way out.
struct Unsigned<E>(E);

/// A certificate could not be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BuildError<E> {
    /// It does not fit in the buffer.
    BufferFull,
    /// The public key is none.
    PublicKey(der::Error),
    /// The signer could not sign.
    Sign(E),
    /// The beginning or end of the validity is not in the years 0 to 9999.
    Time {
        /// Since 1970.
        seconds: i64,
    },
}

/// A request could not be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestError<E> {
    /// It does not fit in the buffer.
    BufferFull,
    /// The signer could not sign.
    Sign(E),
}

impl<E> From<BufferFull> for BuildError<E> {
    fn from(_: BufferFull) -> Self {
        Self::BufferFull
    }
}

impl<E> From<Unsigned<E>> for BuildError<E> {
    fn from(Unsigned(error): Unsigned<E>) -> Self {
        Self::Sign(error)
    }
}

impl<E> From<BufferFull> for RequestError<E> {
    fn from(_: BufferFull) -> Self {
        Self::BufferFull
    }
}

impl<E> From<Unsigned<E>> for RequestError<E> {
    fn from(Unsigned(error): Unsigned<E>) -> Self {
        Self::Sign(error)
    }
}

impl<E: fmt::Display> fmt::Display for BuildError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull => f.write_str("the certificate is too long"),
            Self::PublicKey(error) => write!(f, "the public key for the certificate cannot be read: {error}"),
            Self::Sign(error) => write!(f, "the certificate could not be signed: {error}"),
            Self::Time { .. } => f.write_str(
                "the certificate would be valid until after the year 9999; configure a smaller expiry_days, or set the clock",
            ),
        }
    }
}

impl<E: core::error::Error> core::error::Error for BuildError<E> {}

impl<E: fmt::Display> fmt::Display for RequestError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull => f.write_str("the certificate request is too long"),
            Self::Sign(error) => write!(f, "the certificate request could not be signed: {error}"),
        }
    }
}

impl<E: core::error::Error> core::error::Error for RequestError<E> {}

/// The certificate that others are to be issued with has expired.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IssuerExpired {
    /// Its last second, counted from 1970.
    pub not_after: i64,
}

impl fmt::Display for IssuerExpired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate of the issuer has expired")?;
        if let Ok(seconds) = u64::try_from(self.not_after)
            && let Some(end) = aziot_core::time::UnixTime::from_secs(seconds)
        {
            write!(f, " at {}", end.rfc3339())?;
        }
        f.write_str("; renew it, or set the clock")
    }
}

impl core::error::Error for IssuerExpired {}
