//! A throw-away public key infrastructure for tests: an authority and the server certificates it issues.
//!
//! Everything is ECDSA P-256 with SHA-256 (RFC 5480), because such keys are made in a millisecond. Certificates
//! follow the profile of RFC 5280 as far as OpenSSL's verification looks at it.

use core::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

/// A day in seconds.
const DAY: i64 = 86_400;

/// How long authorities are valid, in days. Longer than any directory of test files is kept.
const AUTHORITY_DAYS: i64 = 3650;

/// A certificate authority that can issue.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    /// Makes a self-signed authority, valid from yesterday for ten years.
    ///
    /// # Errors
    /// When OpenSSL cannot make the key or the certificate.
    pub fn new(common_name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let name = name(common_name)?;
        let mut builder = base(
            &name,
            &name,
            &key,
            Validity::days_from_now(-1, AUTHORITY_DAYS),
        )?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(
            KeyUsage::new()
                .critical()
                .key_cert_sign()
                .crl_sign()
                .build()?,
        )?;
        let context = builder.x509v3_context(None, None);
        let identifier = SubjectKeyIdentifier::new().build(&context)?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            certificate: builder.build(),
            key,
        })
    }

    /// The authority kept as `ca.pem` and `ca-key.pem` in `directory`; made there with the common name
    /// `common_name` when they do not exist, so that programs that trust it go on trusting it after a restart.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else.
    pub fn open(directory: &Path, common_name: &str) -> Result<Self, Error> {
        Self::open_as(directory, "ca", || Self::new(common_name))
    }

    /// As [`open`](Self::open), kept as `STEM.pem` and `STEM-key.pem`, and made by `make`.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_as(
        directory: &Path,
        stem: &str,
        make: impl FnOnce() -> Result<Self, Error>,
    ) -> Result<Self, Error> {
        let certificate_path = directory.join(format!("{stem}.pem"));
        let key_path = directory.join(format!("{stem}-key.pem"));
        if certificate_path.exists() && key_path.exists() {
            return Ok(Self {
                certificate: X509::from_pem(&read(&certificate_path)?)?,
                key: PKey::private_key_from_pem(&read(&key_path)?)?,
            });
        }
        let authority = make()?;
        write(&certificate_path, &authority.certificate_pem()?, 0o644)?;
        write(&key_path, &authority.key.private_key_to_pem_pkcs8()?, 0o600)?;
        Ok(authority)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &X509 {
        &self.certificate
    }

    /// The authority's certificate in PEM (RFC 7468), as a trust anchor file holds it.
    ///
    /// # Errors
    /// When OpenSSL cannot encode it.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, Error> {
        Ok(self.certificate.to_pem()?)
    }

    /// An authority below this one, with the same lifetime and a new key.
    ///
    /// # Errors
    /// When OpenSSL cannot make the key or the certificate.
    pub fn issue_authority(&self, common_name: &str) -> Result<Self, Error> {
        let key = new_key()?;
        let validity = Validity::days_from_now(-1, AUTHORITY_DAYS);
        let mut builder = base(
            &name(common_name)?,
            self.certificate.subject_name(),
            &key,
            validity,
        )?;
        builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
        builder.append_extension(
            KeyUsage::new()
                .critical()
                .key_cert_sign()
                .crl_sign()
                .build()?,
        )?;
        self.sign(&mut builder)?;
        Ok(Self {
            certificate: builder.build(),
            key,
        })
    }

    /// Issues a TLS client certificate with a new key.
    ///
    /// # Errors
    /// When OpenSSL cannot make the key or the certificate.
    pub fn issue_client(&self, common_name: &str, validity: Validity) -> Result<Identity, Error> {
        let key = new_key()?;
        let subject = name(common_name)?;
        let mut builder = base(&subject, self.certificate.subject_name(), &key, validity)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        self.sign(&mut builder)?;
        Ok(Identity {
            certificate: builder.build(),
            key,
        })
    }

    /// Adds the key identifiers of subject and authority to a certificate (RFC 5280 section 4.2.1) unless it has them, and
    /// signs it with SHA-256.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn sign(&self, builder: &mut X509Builder) -> Result<(), Error> {
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let own = SubjectKeyIdentifier::new().build(&context)?;
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(own)?;
        builder.append_extension(authority)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(())
    }

    /// Issues a server certificate for `names`, with a new key.
    ///
    /// # Errors
    /// When OpenSSL cannot make the key or the certificate.
    pub fn issue_server(&self, names: &ServerNames, validity: Validity) -> Result<Identity, Error> {
        let key = new_key()?;
        let subject = name(names.common_name())?;
        let mut builder = base(&subject, self.certificate.subject_name(), &key, validity)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let mut alternatives = SubjectAlternativeName::new();
        for dns in &names.dns {
            alternatives.dns(dns);
        }
        for ip in &names.ip {
            alternatives.ip(&ip.to_string());
        }
        let alternatives = alternatives.build(&context)?;
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(alternatives)?;
        builder.append_extension(authority)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(Identity {
            certificate: builder.build(),
            key,
        })
    }
}

/// A certificate and its private key.
pub struct Identity {
    /// The leaf certificate.
    pub certificate: X509,
    /// Its private key.
    pub key: PKey<Private>,
}

impl Identity {
    /// Writes `NAME.pem` (the certificate) and `NAME-key.pem` (PKCS #8, mode 0600) into `directory`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(), Error> {
        write(
            &directory.join(format!("{name}.pem")),
            &self.certificate.to_pem()?,
            0o644,
        )?;
        let key = self.key.private_key_to_pem_pkcs8()?;
        write(&directory.join(format!("{name}-key.pem")), &key, 0o600)
    }
}

/// The names a server certificate is good for (RFC 6125: subject alternative names).
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ip: Vec<IpAddr>,
}

impl ServerNames {
    fn common_name(&self) -> &str {
        self.dns.first().map_or("server", String::as_str)
    }
}

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// `notBefore`.
    pub not_before: i64,
    /// `notAfter`.
    pub not_after: i64,
}

impl Validity {
    /// From `start` days from now (negative: ago) to `end` days from now.
    #[must_use]
    pub fn days_from_now(start: i64, end: i64) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX / 2);
        Self {
            not_before: now + start * DAY,
            not_after: now + end * DAY,
        }
    }
}

/// Why a certificate or key could not be made, read or written.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// OpenSSL refused.
    OpenSsl(ErrorStack),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::OpenSsl(error) => write!(f, "OpenSSL: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<ErrorStack> for Error {
    fn from(error: ErrorStack) -> Self {
        Self::OpenSsl(error)
    }
}

/// A certificate with everything that authorities and leaves share.
fn base(
    subject: &X509Name,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    validity: Validity,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?; // version 3, RFC 5280 section 4.1.2.1
    builder.set_serial_number(serial()?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::from_unix(validity.not_before)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(validity.not_after)?.as_ref())?;
    Ok(builder)
}

fn name(common_name: &str) -> Result<X509Name, ErrorStack> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(name.build())
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

/// A random positive serial number of 16 bytes (RFC 5280 section 4.1.2.2 allows 20).
fn serial() -> Result<Asn1Integer, ErrorStack> {
    let mut number = BigNum::new()?;
    number.rand(127, MsbOption::MAYBE_ZERO, false)?;
    number.to_asn1_integer()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::File(path.to_owned(), error))
}

fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(contents))
        .map_err(|error| Error::File(path.to_owned(), error))
}
