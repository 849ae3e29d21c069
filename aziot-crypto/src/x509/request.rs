//! Requests for certificates.

use aziot_core::der::{Reader, Tag};

use super::error::Error;
use super::extension::Extensions;
use super::name;
use super::object_id::{EXTENSION_REQUEST, MICROSOFT_EXTENSION_REQUEST};
use super::signature::Verifier;
use super::spki;

/// A certification request (PKCS #10, RFC 2986), as it was signed by whoever asks.
#[derive(Clone, Copy, Debug)]
pub struct CertificationRequest<'d> {
    der: &'d [u8],
    info: &'d [u8],
    subject: &'d [u8],
    public_key: &'d [u8],
    /// One after the other, without what is around them.
    attributes: Reader<'d>,
    algorithm: &'d [u8],
    signature: &'d [u8],
}

impl<'d> CertificationRequest<'d> {
    /// Takes a request apart. Neither its signature nor its attributes are looked at here. Its version can be any, as in
    /// 1.6.0, and its attributes can be missing.
    ///
    /// # Errors
    ///
    /// [`Error::Der`].
    pub fn parse(der: &'d [u8]) -> Result<Self, Error> {
        let error = Error::of("certificate request");
        let mut outer = Reader::whole_sequence(der).map_err(&error)?;
        let info = outer.expect(Tag::SEQUENCE).map_err(&error)?;
        let algorithm = outer.expect(Tag::SEQUENCE).map_err(&error)?.raw;
        let signature = outer
            .bit_string()
            .map_err(Error::of("signature of the certificate request"))?;
        outer.finish().map_err(&error)?;

        let mut inner = info.reader();
        inner
            .integer()
            .map_err(Error::of("version of the certificate request"))?;
        let subject =
            name::read(&mut inner).map_err(Error::of("subject of the certificate request"))?;
        let public_key =
            spki::read(&mut inner).map_err(Error::of("public key of the certificate request"))?;
        let error = Error::of("attributes of the certificate request");
        let attributes = inner
            .optional(Tag::context(0))
            .map_err(&error)?
            .map_or(Reader::new(&[]), |element| element.reader());
        inner.finish().map_err(&error)?;
        Ok(Self {
            der,
            info: info.raw,
            subject,
            public_key,
            attributes,
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
    pub const fn info(&self) -> &'d [u8] {
        self.info
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

    /// Whether it is signed with the key that it is for.
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`].
    pub fn verify<V: Verifier>(&self, verifier: &V) -> Result<bool, V::Error> {
        verifier.verify(self.public_key, self.algorithm, self.info, self.signature)
    }

    /// The extensions that it asks for: those of its extensionRequest (RFC 2985, 5.4.2), or if it has none, of the attribute
    /// that Microsoft used instead.
    ///
    /// # Errors
    ///
    /// The attribute is there more than once, or does not hold exactly one list of extensions, each of another kind.
    pub fn extensions(&self) -> Result<Extensions<'d>, Error> {
        let list = match self.attribute(EXTENSION_REQUEST)? {
            Some(list) => Some(list),
            None => self.attribute(MICROSOFT_EXTENSION_REQUEST)?,
        };
        list.map_or(Ok(Extensions::NONE), Extensions::parse)
    }

    /// The one value of an attribute that may be there once.
    fn attribute(&self, wanted: &[u8]) -> Result<Option<&'d [u8]>, Error> {
        let error = Error::of("attributes of the certificate request");
        let mut attributes = self.attributes;
        let mut found = None;
        while !attributes.is_empty() {
            let mut attribute = attributes.sequence().map_err(&error)?;
            let id = attribute.object_identifier().map_err(&error)?;
            let mut values = attribute.set().map_err(&error)?;
            attribute.finish().map_err(&error)?;
            if id != wanted {
                continue;
            }
            if found.is_some() {
                return Err(Error::DuplicateAttribute);
            }
            found = Some(values.element().map_err(&error)?.raw);
            values.finish().map_err(&error)?;
        }
        Ok(found)
    }
}
