//! Certificates.

use aziot_core::der::{self, Reader, Tag};

use super::error::Error;
use super::extension::Extensions;
use super::name;
use super::object_id::{AUTHORITY_KEY_IDENTIFIER, BASIC_CONSTRAINTS, SUBJECT_KEY_IDENTIFIER};
use super::signature::Verifier;
use super::{spki, time};

/// A certificate (X.509, RFC 5280), of whatever version.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'d> {
    der: &'d [u8],
    tbs: &'d [u8],
    serial: &'d [u8],
    issuer: &'d [u8],
    not_before: i64,
    not_after: i64,
    subject: &'d [u8],
    public_key: &'d [u8],
    extensions: Extensions<'d>,
    subject_key_id: Option<&'d [u8]>,
    authority_key_id: Option<&'d [u8]>,
    is_ca: bool,
    algorithm: &'d [u8],
    signature: &'d [u8],
}

impl<'d> Certificate<'d> {
    /// Takes a certificate apart. Its signature is not checked here.
    ///
    /// # Errors
    ///
    /// [`Error::AlgorithmMismatch`], [`Error::Der`], [`Error::Time`].
    pub fn parse(der: &'d [u8]) -> Result<Self, Error> {
        let error = Error::of("certificate");
        let mut outer = Reader::whole_sequence(der).map_err(&error)?;
        let tbs = outer.expect(Tag::SEQUENCE).map_err(&error)?;
        let algorithm = outer.expect(Tag::SEQUENCE).map_err(&error)?.raw;
        let signature = outer
            .bit_string()
            .map_err(Error::of("signature of the certificate"))?;
        outer.finish().map_err(&error)?;

        let mut inner = tbs.reader();
        if let Some(version) = inner.optional(Tag::context(0)).map_err(&error)? {
            let mut version = version.reader();
            let error = Error::of("version of the certificate");
            version.unsigned().map_err(&error)?;
            version.finish().map_err(&error)?;
        }
        let serial = inner
            .integer()
            .map_err(Error::of("serial number of the certificate"))?;
        if inner.expect(Tag::SEQUENCE).map_err(&error)?.raw != algorithm {
            return Err(Error::AlgorithmMismatch);
        }
        let issuer = name::read(&mut inner).map_err(Error::of("issuer of the certificate"))?;
        let error = Error::of("validity of the certificate");
        let mut validity = inner.sequence().map_err(&error)?;
        let not_before = time::read(&mut validity)?;
        let not_after = time::read(&mut validity)?;
        validity.finish().map_err(&error)?;
        let subject = name::read(&mut inner).map_err(Error::of("subject of the certificate"))?;
        let public_key =
            spki::read(&mut inner).map_err(Error::of("public key of the certificate"))?;
        let error = Error::of("extensions of the certificate");
        // Unique identifiers, which nobody uses (4.1.2.8).
        for number in [1, 2] {
            inner
                .optional(Tag::context_primitive(number))
                .map_err(&error)?;
        }
        let extensions = match inner.optional(Tag::context(3)).map_err(&error)? {
            Some(element) => {
                Extensions::read(Reader::whole_sequence(element.content).map_err(&error)?)?
            }
            None => Extensions::NONE,
        };
        inner.finish().map_err(&error)?;

        Ok(Self {
            der,
            tbs: tbs.raw,
            serial,
            issuer,
            not_before,
            not_after,
            subject,
            public_key,
            extensions,
            subject_key_id: extensions
                .value(SUBJECT_KEY_IDENTIFIER)
                .map(read_subject_key_id)
                .transpose()
                .map_err(Error::of("subject key identifier of the certificate"))?,
            authority_key_id: extensions
                .value(AUTHORITY_KEY_IDENTIFIER)
                .map_or(Ok(None), read_authority_key_id)
                .map_err(Error::of("authority key identifier of the certificate"))?,
            is_ca: extensions
                .value(BASIC_CONSTRAINTS)
                .map_or(Ok(false), read_is_ca)
                .map_err(Error::of("basic constraints of the certificate"))?,
            algorithm,
            signature,
        })
    }

    /// All of it.
    #[must_use]
    pub const fn der(&self) -> &'d [u8] {
        self.der
    }

    /// What is signed.
    #[must_use]
    pub const fn tbs(&self) -> &'d [u8] {
        self.tbs
    }

    /// Its number: big endian, two's complement.
    #[must_use]
    pub const fn serial(&self) -> &'d [u8] {
        self.serial
    }

    /// Who has issued it: a `Name` in DER.
    #[must_use]
    pub const fn issuer(&self) -> &'d [u8] {
        self.issuer
    }

    /// The first second of its validity, counted from 1970.
    #[must_use]
    pub const fn not_before(&self) -> i64 {
        self.not_before
    }

    /// The last second of its validity, counted from 1970.
    #[must_use]
    pub const fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whom it is for: a `Name` in DER.
    #[must_use]
    pub const fn subject(&self) -> &'d [u8] {
        self.subject
    }

    /// The key that it is for: a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub const fn public_key(&self) -> &'d [u8] {
        self.public_key
    }

    /// Its extensions. Those of damaged or careless certificates can be there more than once.
    #[must_use]
    pub const fn extensions(&self) -> Extensions<'d> {
        self.extensions
    }

    /// The identifier of its own key, if it tells one.
    #[must_use]
    pub const fn subject_key_id(&self) -> Option<&'d [u8]> {
        self.subject_key_id
    }

    /// The identifier of its issuer's key, if it tells one.
    #[must_use]
    pub const fn authority_key_id(&self) -> Option<&'d [u8]> {
        self.authority_key_id
    }

    /// Whether its key may sign certificates by its basic constraints (4.2.1.9).
    #[must_use]
    pub const fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// What it is signed with: an `AlgorithmIdentifier` in DER.
    #[must_use]
    pub const fn algorithm(&self) -> &'d [u8] {
        self.algorithm
    }

    /// The signature's bytes.
    #[must_use]
    pub const fn signature(&self) -> &'d [u8] {
        self.signature
    }

    /// Whether it is signed with this key, a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub fn is_signed_with<V: Verifier>(
        &self,
        public_key: &[u8],
        verifier: &V,
    ) -> Result<bool, V::Error> {
        verifier.verify(public_key, self.algorithm, self.tbs, self.signature)
    }
}

fn read_subject_key_id(value: &[u8]) -> Result<&[u8], der::Error> {
    let mut reader = Reader::new(value);
    let id = reader.octet_string()?;
    reader.finish()?;
    Ok(id)
}

/// The issuer's name and number that may follow are of no use here.
fn read_authority_key_id(value: &[u8]) -> Result<Option<&[u8]>, der::Error> {
    let id = Reader::whole_sequence(value)?.optional(Tag::context_primitive(0))?;
    Ok(id.map(|element| element.content))
}

fn read_is_ca(value: &[u8]) -> Result<bool, der::Error> {
    let mut constraints = Reader::whole_sequence(value)?;
    Ok(constraints.peek() == Some(Tag::BOOLEAN) && constraints.boolean()?)
}
