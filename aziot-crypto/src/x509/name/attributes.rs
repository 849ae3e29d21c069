//! The attributes that names are made of.

use aziot_core::der::{Tag, Writer};

use super::Fault;

/// An attribute with a name.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    /// The content of its object identifier.
    pub(super) id: &'static [u8],
    pub(super) form: Form,
}

/// What a value has to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    kind: Kind,
    /// In characters.
    min: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Utf8,
    Printable,
    Ia5,
}

impl Form {
    /// Anything at all.
    pub(super) const ANY: Self = Self::utf8(0, usize::MAX);

    const fn utf8(min: usize, max: usize) -> Self {
        Self {
            kind: Kind::Utf8,
            min,
            max,
        }
    }

    const fn printable(min: usize, max: usize) -> Self {
        Self {
            kind: Kind::Printable,
            min,
            max,
        }
    }

    const fn ia5(min: usize, max: usize) -> Self {
        Self {
            kind: Kind::Ia5,
            min,
            max,
        }
    }

    pub(super) const fn tag(self) -> Tag {
        match self.kind {
            Kind::Utf8 => Tag::UTF8_STRING,
            Kind::Printable => Tag::PRINTABLE_STRING,
            Kind::Ia5 => Tag::IA5_STRING,
        }
    }

    pub(super) fn check(self, value: &str) -> Result<(), Fault> {
        let Self { kind, min, max } = self;
        let chars = value.chars().count();
        if chars < min || chars > max {
            return Err(Fault::Length { chars, min, max });
        }
        let allowed = |character: &char| match kind {
            Kind::Utf8 => true,
            // X.680, 41.4
            Kind::Printable => {
                character.is_ascii_alphanumeric() || " '()+,-./:=?".contains(*character)
            }
            Kind::Ia5 => character.is_ascii(),
        };
        match value.chars().find(|character| !allowed(character)) {
            Some(character) => Err(Fault::Character(character)),
            None => Ok(()),
        }
    }
}

/// What the field of a name is called by: one of the known attributes, or an object identifier with dots.
pub(super) enum Identifier<'f> {
    Known(&'static Attribute),
    Dotted(&'f str),
}

impl<'f> Identifier<'f> {
    /// `None` if `field` is neither.
    pub(super) fn of(field: &'f str) -> Option<Self> {
        if let Some(known) = Attribute::named(field) {
            return Some(Self::Known(known));
        }
        let arcs = arcs(field)?;
        let mut bytes = [0; MAX_KNOWN_LEN];
        let mut length = 0_usize;
        arcs.for_each(|byte| {
            if let Some(place) = bytes.get_mut(length) {
                *place = byte;
            }
            length = length.saturating_add(1);
        });
        let known = bytes.get(..length).and_then(Attribute::with_id);
        Some(known.map_or(Self::Dotted(field), Self::Known))
    }

    pub(super) const fn attribute(&self) -> Option<&'static Attribute> {
        match self {
            Self::Known(attribute) => Some(attribute),
            Self::Dotted(_) => None,
        }
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Known(attribute) => w.object_identifier(attribute.id),
            Self::Dotted(text) => w.nested(Tag::OBJECT_IDENTIFIER, |w| {
                arcs(text)
                    .into_iter()
                    .flatten()
                    .for_each(|byte| w.put(&[byte]));
            }),
        }
    }
}

/// The content of an object identifier given with dots; `None` if it is none. Arcs have up to 63 bits.
fn arcs(text: &str) -> Option<impl Iterator<Item = u8>> {
    let number = |arc: &str| {
        let decimal = !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
        decimal
            .then(|| arc.parse::<u64>().ok())
            .flatten()
            .filter(|arc| *arc < 1 << 63)
    };
    let mut all = text.split('.');
    let root = number(all.next()?)?;
    let second = number(all.next()?)?;
    if root > 2 || (root < 2 && second >= 40) || all.clone().any(|arc| number(arc).is_none()) {
        return None;
    }
    // The first two share one.
    let first = (root * 40)
        .checked_add(second)
        .filter(|arc| *arc < 1 << 63)?;
    let numbers = core::iter::once(first).chain(all.filter_map(number));
    Some(numbers.flat_map(|arc| {
        let digits = (64 - arc.leading_zeros()).div_ceil(7).max(1);
        (0..digits).rev().map(move |at| {
            let more = if at == 0 { 0 } else { 0x80 };
            (arc >> (7 * at)) as u8 & 0x7f | more
        })
    }))
}

impl Attribute {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ATTRIBUTES
            .iter()
            .find(|attribute| attribute.short == name || attribute.long == name)
    }

    pub(super) fn with_id(id: &[u8]) -> Option<&'static Self> {
        ATTRIBUTES.iter().find(|attribute| attribute.id == id)
    }

    const fn new(short: &'static str, long: &'static str, id: &'static [u8], form: Form) -> Self {
        Self {
            short,
            long,
            id,
            form,
        }
    }
}

/// Longest object identifier below.
const MAX_KNOWN_LEN: usize = 11;

/// No limit in OpenSSL's table of strings.
const NO_MAX: usize = usize::MAX;

/// Attributes that occur in names: those of X.520, and of PKCS #9, RFC 4524 and RFC 4519 what is in use. Names as OpenSSL has
/// them; types and lengths as RFC 5280, appendix A, with the larger limits that OpenSSL sets.
#[rustfmt::skip]
pub(super) const ATTRIBUTES: &[Attribute] = &[
    Attribute::new("CN", "commonName", &[0x55, 4, 3], Form::utf8(1, 64)),
    Attribute::new("SN", "surname", &[0x55, 4, 4], Form::utf8(1, 32768)),
    Attribute::new("serialNumber", "serialNumber", &[0x55, 4, 5], Form::printable(1, 64)),
    Attribute::new("C", "countryName", &[0x55, 4, 6], Form::printable(2, 2)),
    Attribute::new("L", "localityName", &[0x55, 4, 7], Form::utf8(1, 128)),
    Attribute::new("ST", "stateOrProvinceName", &[0x55, 4, 8], Form::utf8(1, 128)),
    Attribute::new("street", "streetAddress", &[0x55, 4, 9], Form::ANY),
    Attribute::new("O", "organizationName", &[0x55, 4, 10], Form::utf8(1, 64)),
    Attribute::new("OU", "organizationalUnitName", &[0x55, 4, 11], Form::utf8(1, 64)),
    Attribute::new("title", "title", &[0x55, 4, 12], Form::ANY),
    Attribute::new("description", "description", &[0x55, 4, 13], Form::ANY),
    Attribute::new("businessCategory", "businessCategory", &[0x55, 4, 15], Form::ANY),
    Attribute::new("postalAddress", "postalAddress", &[0x55, 4, 16], Form::ANY),
    Attribute::new("postalCode", "postalCode", &[0x55, 4, 17], Form::ANY),
    Attribute::new("postOfficeBox", "postOfficeBox", &[0x55, 4, 18], Form::ANY),
    Attribute::new("telephoneNumber", "telephoneNumber", &[0x55, 4, 20], Form::ANY),
    Attribute::new("name", "name", &[0x55, 4, 41], Form::utf8(1, 32768)),
    Attribute::new("GN", "givenName", &[0x55, 4, 42], Form::utf8(1, 32768)),
    Attribute::new("initials", "initials", &[0x55, 4, 43], Form::utf8(1, 32768)),
    Attribute::new("generationQualifier", "generationQualifier", &[0x55, 4, 44], Form::ANY),
    Attribute::new("x500UniqueIdentifier", "x500UniqueIdentifier", &[0x55, 4, 45], Form::ANY),
    Attribute::new("dnQualifier", "dnQualifier", &[0x55, 4, 46], Form::printable(0, NO_MAX)),
    Attribute::new("pseudonym", "pseudonym", &[0x55, 4, 65], Form::ANY),
    Attribute::new("role", "role", &[0x55, 4, 72], Form::ANY),
    Attribute::new("organizationIdentifier", "organizationIdentifier", &[0x55, 4, 97], Form::ANY),
    Attribute::new("emailAddress", "emailAddress", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], Form::ia5(1, 128)),
    Attribute::new("unstructuredName", "unstructuredName", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2], Form::utf8(1, NO_MAX)),
    Attribute::new("unstructuredAddress", "unstructuredAddress", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 8], Form::utf8(1, NO_MAX)),
    Attribute::new("UID", "userId", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], Form::ANY),
    Attribute::new("mail", "rfc822Mailbox", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 3], Form::ia5(1, 256)),
    Attribute::new("DC", "domainComponent", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], Form::ia5(1, NO_MAX)),
    Attribute::new("jurisdictionL", "jurisdictionLocalityName", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, 1], Form::ANY),
    Attribute::new("jurisdictionST", "jurisdictionStateOrProvinceName", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, 2], Form::ANY),
    Attribute::new("jurisdictionC", "jurisdictionCountryName", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 60, 2, 1, 3], Form::printable(2, 2)),
];
