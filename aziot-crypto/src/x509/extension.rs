//! Extensions of certificates (RFC 5280, 4.2).

use aziot_core::der::{Reader, Tag, Writer};

use super::error::Error;
use super::object_id::ObjectId;

/// Most extensions that a request may ask for. A certificate with all standard ones has less than twenty.
pub const MAX_EXTENSIONS: usize = 64;

/// One extension.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extension<'d> {
    /// What it is: the content of an object identifier.
    pub id: &'d [u8],
    /// Whether who does not understand it has to refuse the certificate.
    pub critical: bool,
    /// The DER that its octet string holds.
    pub value: &'d [u8],
}

impl<'d> Extension<'d> {
    fn read(reader: &mut Reader<'d>) -> Result<Self, Error> {
        let error = Error::of("list of extensions");
        let mut extension = reader.sequence().map_err(&error)?;
        let id = extension.object_identifier().map_err(&error)?;
        let critical =
            extension.peek() == Some(Tag::BOOLEAN) && extension.boolean().map_err(&error)?;
        let value = extension.octet_string().map_err(&error)?;
        extension.finish().map_err(&error)?;
        Ok(Self {
            id,
            critical,
            value,
        })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.sequence(|w| {
            w.object_identifier(self.id);
            if self.critical {
                w.boolean(true);
            }
            w.element(Tag::OCTET_STRING, self.value);
        });
    }
}

/// A list of extensions that has been read through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extensions<'d> {
    /// One after the other, without what is around them.
    elements: &'d [u8],
}

impl<'d> Extensions<'d> {
    /// None at all.
    pub const NONE: Self = Self { elements: &[] };

    /// Extended key usage with client authentication, not critical (RFC 5280, 4.2.1.12): what an identity for EST asks for.
    pub const CLIENT_AUTH: Self = Self {
        elements: &[
            0x30, 0x13, 0x06, 0x03, 0x55, 0x1d, 0x25, 0x04, 0x0c, 0x30, 0x0a, 0x06, 0x08, 0x2b,
            0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02,
        ],
    };

    /// Reads a sequence of extensions, in DER. No two may be of the same kind.
    ///
    /// # Errors
    ///
    /// [`Error::Der`], [`Error::DuplicateExtension`], [`Error::TooManyExtensions`].
    pub fn parse(der: &'d [u8]) -> Result<Self, Error> {
        let content = Reader::whole_sequence(der).map_err(Error::of("list of extensions"))?;
        let extensions = Self::read(content)?;
        for (at, extension) in extensions.iter().enumerate() {
            if at >= MAX_EXTENSIONS {
                return Err(Error::TooManyExtensions);
            }
            if extensions
                .iter()
                .take(at)
                .any(|other| other.id == extension.id)
            {
                return Err(Error::DuplicateExtension(ObjectId::new(extension.id)));
            }
        }
        Ok(extensions)
    }

    /// Reads what a sequence of extensions consists of. Some may be of the same kind: certificates of others, release 1.6.0
    /// among them, can have such.
    pub(super) fn read(content: Reader<'d>) -> Result<Self, Error> {
        let mut reader = content;
        while !reader.is_empty() {
            Extension::read(&mut reader)?;
        }
        Ok(Self {
            elements: content.rest(),
        })
    }

    /// The extensions in their order.
    #[must_use]
    pub const fn iter(&self) -> ExtensionsIter<'d> {
        ExtensionsIter {
            reader: Reader::new(self.elements),
        }
    }

    /// The value of the first extension with this id (the content of an object identifier).
    #[must_use]
    pub fn value(&self, id: &[u8]) -> Option<&'d [u8]> {
        self.iter()
            .find(|extension| extension.id == id)
            .map(|extension| extension.value)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}

impl<'d> IntoIterator for Extensions<'d> {
    type Item = Extension<'d>;
    type IntoIter = ExtensionsIter<'d>;

    fn into_iter(self) -> ExtensionsIter<'d> {
        self.iter()
    }
}

/// See [`Extensions::iter`].
#[derive(Clone, Debug)]
pub struct ExtensionsIter<'d> {
    reader: Reader<'d>,
}

impl<'d> Iterator for ExtensionsIter<'d> {
    type Item = Extension<'d>;

    fn next(&mut self) -> Option<Extension<'d>> {
        // They have all been read once, so the only error is that there is no more.
        Extension::read(&mut self.reader).ok()
    }
}
