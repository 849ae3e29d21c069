//! What a CA wants in requests for certificates (RFC 7030, section 4.5.2).

use core::fmt::{self, Write as _};

use super::ber::{Malformed, OID, Problem, Reader, SEQUENCE, SET};
use super::excerpt::Excerpt;

/// The attributes that a CA wants, in its order.
#[derive(Clone, Debug)]
pub struct CsrAttributes<'a>(
    /// All well-formed.
    Reader<'a>,
);

/// One attribute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CsrAttribute<'a> {
    /// What is wanted.
    pub oid: Oid<'a>,
    /// The DER of the values from which one is to be taken, one after the other; none if only the identifier is given.
    pub values: Option<&'a [u8]>,
}

/// An object identifier, as the content of its DER. Displays as its name if it is one that requests are about, else as
/// numbers with dots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Oid<'a>(pub &'a [u8]);

/// Reads a list.
pub(super) fn read(document: &[u8]) -> Result<CsrAttributes<'_>, Malformed> {
    let mut outer = Reader::new(document);
    let list = outer.expect(SEQUENCE)?;
    let attributes = outer.inside(&list);
    let mut each = attributes.clone();
    while attribute(&mut each)?.is_some() {}
    Ok(CsrAttributes(attributes))
}

fn attribute<'a>(reader: &mut Reader<'a>) -> Result<Option<CsrAttribute<'a>>, Malformed> {
    let Some(element) = reader.next()? else {
        return Ok(None);
    };
    if element.tag == OID {
        return Ok(Some(CsrAttribute {
            oid: Oid(reader.bytes(element.content)),
            values: None,
        }));
    }
    if element.tag != SEQUENCE {
        return Err(Malformed {
            offset: element.whole.start,
            problem: Problem::Tag {
                expected: SEQUENCE,
                found: element.tag,
            },
        });
    }
    let mut members = reader.inside(&element);
    let oid = members.expect(OID)?;
    let values = members.expect(SET)?;
    Ok(Some(CsrAttribute {
        oid: Oid(reader.bytes(oid.content)),
        values: Some(reader.bytes(values.content)),
    }))
}

impl<'a> Iterator for CsrAttributes<'a> {
    type Item = CsrAttribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        attribute(&mut self.0).ok().flatten()
    }
}

impl CsrAttributes<'_> {
    /// The names of all, with commas between them, as far as there is room for them.
    pub(super) fn excerpt(self) -> Excerpt {
        let mut excerpt = Excerpt::EMPTY;
        for attribute in self {
            let mut name = heapless::String::<NAME>::new();
            if write!(name, "{}", attribute.oid).is_err() {
                name.clear();
            }
            if !excerpt.push(", ", if name.is_empty() { "?" } else { &name }) {
                break;
            }
        }
        excerpt
    }
}

/// Longest name or number of an attribute that is shown.
const NAME: usize = 64;

/// Content of the identifier, and its name.
const NAMES: [(&[u8], &str); 16] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07", "challengePassword"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e", "extensionRequest"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", "rsaEncryption"),
    (
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b",
        "sha256WithRSAEncryption",
    ),
    (b"\x2a\x86\x48\xce\x3d\x02\x01", "ecPublicKey"),
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x07", "prime256v1"),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", "ecdsa-with-SHA256"),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", "ecdsa-with-SHA384"),
    (b"\x2b\x81\x04\x00\x22", "secp384r1"),
    (b"\x2b\x65\x70", "Ed25519"),
    (b"\x2b\x06\x01\x01\x01\x01\x16", "macAddress"),
    (b"\x55\x04\x03", "commonName"),
    (b"\x55\x04\x05", "serialNumber"),
    (b"\x55\x1d\x0f", "keyUsage"),
    (b"\x55\x1d\x11", "subjectAltName"),
    (b"\x55\x1d\x25", "extendedKeyUsage"),
];

impl fmt::Display for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = NAMES.iter().find(|(oid, _)| *oid == self.0) {
            return f.write_str(name);
        }
        let mut arc = Some(0_u128);
        let mut first = true;
        for byte in self.0 {
            arc = arc
                .and_then(|arc| arc.checked_mul(128))
                .map(|arc| arc | u128::from(byte & 0x7f));
            if byte & 0x80 != 0 {
                continue;
            }
            match arc {
                // The first two numbers are one: 40 times the first, which is 0, 1 or 2, and the second.
                Some(arc) if first => {
                    let root = (arc / 40).min(2);
                    write!(f, "{root}.{}", arc.saturating_sub(root.saturating_mul(40)))?;
                }
                Some(arc) => write!(f, ".{arc}")?,
                None => f.write_str(".?")?,
            }
            first = false;
            arc = Some(0);
        }
        if first { f.write_str("?") } else { Ok(()) }
    }
}
