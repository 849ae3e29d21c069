//! Certificates in PKCS #7 (RFC 2315; RFC 5652, section 5.1).

use core::ops::Range;

use super::ber::{CONTEXT_0, INTEGER, Malformed, OID, Reader, SEQUENCE, SET};

/// `signedData`, 1.2.840.113549.1.7.2.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// Certificates in the order of an answer, each as DER. There may be none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Certificates<'a>(
    /// One after the other, and perhaps other elements between them. All are well-formed as far as their lengths go.
    pub(super) &'a [u8],
);

impl<'a> Certificates<'a> {
    /// One after the other.
    #[must_use]
    pub fn iter(&self) -> CertificatesIter<'a> {
        CertificatesIter(Reader::new(self.0))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> IntoIterator for Certificates<'a> {
    type Item = &'a [u8];
    type IntoIter = CertificatesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The certificates of [`Certificates`].
#[derive(Clone, Debug)]
pub struct CertificatesIter<'a>(Reader<'a>);

impl<'a> Iterator for CertificatesIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        // Certificates of other kinds (attribute certificates, for example) have other tags.
        while let Ok(Some(element)) = self.0.next() {
            if element.tag == SEQUENCE {
                return Some(self.0.bytes(element.whole));
            }
        }
        None
    }
}

/// Where in `document` the certificates are, one after the other: those of signed data, or the document itself if that is a
/// certificate. Other kinds of content have none. What follows the first element of the document is ignored.
///
/// # Errors
/// It is neither.
pub(super) fn certificates(document: &[u8]) -> Result<Range<usize>, Malformed> {
    let mut outer = Reader::new(document);
    let content_info = outer.expect(SEQUENCE)?;
    let mut info = outer.inside(&content_info);
    if let Some(first) = info.clone().next()?
        && first.tag == SEQUENCE
    {
        return Ok(content_info.whole);
    }
    let kind = info.expect(OID)?;
    if info.bytes(kind.content) != SIGNED_DATA {
        return Ok(0..0);
    }
    let Some(content) = info.next()? else {
        return Ok(0..0);
    };
    let mut signed_data = info.inside(&content);
    let signed_data = {
        let sequence = signed_data.expect(SEQUENCE)?;
        signed_data.inside(&sequence)
    };
    let mut members = signed_data;
    members.expect(INTEGER)?;
    members.expect(SET)?;
    members.expect(SEQUENCE)?;
    let Some(found) = members.next()? else {
        return Ok(0..0);
    };
    if found.tag != CONTEXT_0 {
        return Ok(0..0);
    }
    let mut each = members.inside(&found);
    while each.next()?.is_some() {}
    Ok(found.content)
}
