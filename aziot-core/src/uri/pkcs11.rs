//! `pkcs11:` URIs, the subset of RFC 7512 that names a key and how to log in.

use core::ffi::c_ulong;
use core::fmt;

use crate::output::{BufferFull, Output};
use crate::percent::{self, Plus, Set};

/// A key, or the place for keys, on a PKCS#11 token.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Pkcs11<'a> {
    /// Where the token is.
    pub slot: Slot<'a>,
    /// `CKA_LABEL` of the key objects.
    pub object: Option<&'a str>,
    /// The user PIN. Never log it.
    pub pin: Option<&'a str>,
    /// The file that holds the PIN, as written: a `file:` URI or a path. Counts only where there is no `pin`.
    pub pin_source: Option<&'a str>,
    /// What else is demanded of the token.
    pub demands: Demands<'a>,
}

/// What a token has to say of itself to be the one that is meant, for tokens whose labels are equal. What is not given
/// is not compared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Demands<'a> {
    /// `manufacturerID` of `CK_TOKEN_INFO`.
    pub manufacturer: Option<&'a str>,
    /// `model`.
    pub model: Option<&'a str>,
    /// `serialNumber`.
    pub serial: Option<&'a str>,
}

/// How a token is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slot<'a> {
    /// By `CK_SLOT_ID`.
    Id(c_ulong),
    /// By the label of the token.
    Label(&'a str),
}

impl fmt::Debug for Pkcs11<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11")
            .field("slot", &self.slot)
            .field("object", &self.object)
            .field("pin", &self.pin.map(|_| "******"))
            .field("pin_source", &self.pin_source)
            .field("demands", &self.demands)
            .finish()
    }
}

impl<'o> Pkcs11<'o> {
    /// Reads a URI; its decoded values are written to `out`, which never needs more bytes than `uri` has.
    ///
    /// Recognised are the path attributes `object`, `slot-id`, `token`, `serial`, `manufacturer` and `model` and the query
    /// attributes `pin-value` and `pin-source`; all others are ignored unchecked, see [`ignored`](Self::ignored). Names and
    /// values are percent-decoded (`+` is itself). Of a repeated attribute the last counts; `slot-id` wins over `token`,
    /// `pin-value` over `pin-source`, and one of the first two must be there.
    ///
    /// # Errors
    /// See [`Pkcs11Error`].
    pub fn parse<'u>(uri: &'u str, out: &'o mut [u8]) -> Result<Self, Pkcs11Error<'u>> {
        let rest = uri.strip_prefix("pkcs11:").ok_or(Pkcs11Error::NotPkcs11)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut values = Values { free: out };
        let (mut id, mut label, mut object) = (None, None, None);
        let mut demands = Demands::default();
        for (name, value) in attributes(path, ';') {
            match known(name, &PATH) {
                Some("object") => object = Some(values.decode(value, "object")?),
                Some("slot-id") => {
                    let number = values.decode(value, "slot-id")?;
                    id = Some(
                        number
                            .parse::<c_ulong>()
                            .map_err(|_| Pkcs11Error::SlotId { value })?,
                    );
                }
                Some("token") => label = Some(values.decode(value, "token")?),
                Some("manufacturer") => {
                    demands.manufacturer = Some(values.decode(value, "manufacturer")?);
                }
                Some("model") => demands.model = Some(values.decode(value, "model")?),
                Some("serial") => demands.serial = Some(values.decode(value, "serial")?),
                _ => {}
            }
        }
        let (mut pin, mut pin_source) = (None, None);
        for (name, value) in attributes(query, '&') {
            match known(name, &QUERY) {
                Some("pin-value") => pin = Some(values.decode(value, "pin-value")?),
                Some("pin-source") => pin_source = Some(values.decode(value, "pin-source")?),
                _ => {}
            }
        }
        let slot = id
            .map(Slot::Id)
            .or(label.map(Slot::Label))
            .ok_or(Pkcs11Error::NoSlot)?;
        Ok(Self {
            slot,
            object,
            pin,
            pin_source,
            demands,
        })
    }

    /// The names of the attributes of a URI that [`parse`](Self::parse) does not look at, as written; for a warning. A
    /// known attribute in the wrong half of the URI is one of them. Values are not shown: a misplaced one may be a PIN.
    pub fn ignored(uri: &str) -> impl Iterator<Item = &str> {
        let rest = uri.strip_prefix("pkcs11:").unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = attributes(path, ';').filter(|(name, _)| known(name, &PATH).is_none());
        let query = attributes(query, '&').filter(|(name, _)| known(name, &QUERY).is_none());
        path.chain(query)
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty())
    }
}

/// Attributes before the question mark.
const PATH: [&str; 6] = [
    "manufacturer",
    "model",
    "object",
    "serial",
    "slot-id",
    "token",
];

/// Attributes after it.
const QUERY: [&str; 2] = ["pin-source", "pin-value"];

impl Pkcs11<'_> {
    /// Writes the URI in the canonical form of release 1.6.0: `token` or `slot-id`, then `object`, then `pin-value`; every
    /// byte of a value that is not an ASCII letter or digit is percent-encoded. The text holds the PIN. What release 1.6.0
    /// does not know (`serial`, `manufacturer`, `model`, `pin-source`) is left out.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write<'w>(&self, out: &'w mut [u8]) -> Result<&'w str, BufferFull> {
        let mut out = Output::new(out);
        self.put(&mut out);
        out.finish_str()
    }

    /// Appends what [`write`](Self::write) writes.
    pub(super) fn put(&self, out: &mut Output<'_>) {
        const SET: Set = Set::PUNCTUATION;
        match self.slot {
            Slot::Id(id) => write!(out, "pkcs11:slot-id={id}"),
            Slot::Label(label) => write!(out, "pkcs11:token={}", SET.encode(label)),
        }
        if let Some(object) = self.object {
            write!(out, ";object={}", SET.encode(object));
        }
        if let Some(pin) = self.pin {
            write!(out, "?pin-value={}", SET.encode(pin));
        }
    }
}

/// Names and values, still encoded.
fn attributes(text: &str, separator: char) -> impl Iterator<Item = (&str, &str)> {
    text.split(separator)
        .map(|attribute| attribute.split_once('=').unwrap_or((attribute, "")))
}

/// The one of `names` that an encoded name stands for.
fn known(encoded: &str, names: &[&'static str]) -> Option<&'static str> {
    names
        .iter()
        .find(|name| percent::decode(encoded, Plus::Plus).eq(name.bytes()))
        .copied()
}

/// Hands out pieces of a buffer, each holding one decoded value.
struct Values<'o> {
    free: &'o mut [u8],
}

impl<'o> Values<'o> {
    fn decode<'u>(
        &mut self,
        value: &'u str,
        attribute: &'static str,
    ) -> Result<&'o str, Pkcs11Error<'u>> {
        let free = core::mem::take(&mut self.free);
        let (decoded, free) =
            percent::decode_into(value, Plus::Plus, free).map_err(Pkcs11Error::BufferFull)?;
        self.free = free;
        core::str::from_utf8(decoded).map_err(|_| Pkcs11Error::NotUtf8 { attribute })
    }
}

/// Why a text is not a usable `pkcs11:` URI. Never contains the PIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pkcs11Error<'u> {
    /// The buffer is too small for the decoded values.
    BufferFull(BufferFull),
    /// Neither `slot-id` nor `token` is given.
    NoSlot,
    /// The scheme is not `pkcs11`, in lower case.
    NotPkcs11,
    /// A recognised value is not UTF-8 once it is decoded.
    NotUtf8 {
        /// Which one.
        attribute: &'static str,
    },
    /// `slot-id` is not a decimal number that fits `CK_ULONG`.
    SlotId {
        /// As written.
        value: &'u str,
    },
}

impl fmt::Display for Pkcs11Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferFull(full) => full.fmt(f),
            Self::NoSlot => f.write_str("URI has neither [slot-id] nor [token] components"),
            Self::NotPkcs11 => f.write_str("unrecognized scheme"),
            Self::NotUtf8 { attribute } => write!(f, "{attribute} component is not UTF-8"),
            Self::SlotId { value } => {
                write!(f, "slot-id path component has malformed value [{value}]")
            }
        }
    }
}

impl core::error::Error for Pkcs11Error<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewritten(uri: &str) -> Result<String, String> {
        let (mut decoded, mut written) = (vec![0; uri.len()], vec![0; uri.len() * 3 + 20]);
        let parsed = Pkcs11::parse(uri, &mut decoded).map_err(|err| err.to_string())?;
        Ok(parsed.write(&mut written).unwrap().to_owned())
    }

    #[test]
    fn kf_03_pkcs11_uris() {
        let unlimited = format!("pkcs11:slot-id={}", c_ulong::MAX);
        for (uri, slot) in [
            ("pkcs11:token=a", Slot::Label("a")),
            ("pkcs11:token", Slot::Label("")),
            ("pkcs11:t%6fken=a", Slot::Label("a")),
            ("pkcs11:token=a;unknown=%ff", Slot::Label("a")),
            ("pkcs11:token=a?x=%ff", Slot::Label("a")),
            (unlimited.as_str(), Slot::Id(c_ulong::MAX)),
            ("pkcs11:slot-id=+1", Slot::Id(1)),
            ("pkcs11:slot-id=%31", Slot::Id(1)),
            ("pkcs11:token=a=b", Slot::Label("a=b")),
            ("pkcs11:token=a+b", Slot::Label("a+b")),
            ("pkcs11:token=a;token=b", Slot::Label("b")),
            (
                "pkcs11:token=Key pairs?pin-value=1234",
                Slot::Label("Key pairs"),
            ),
            ("pkcs11:token=a;pin-value=%ff", Slot::Label("a")),
        ] {
            let mut out = vec![0; uri.len()];
            assert_eq!(
                Pkcs11::parse(uri, &mut out).map(|parsed| parsed.slot),
                Ok(slot),
                "{uri}"
            );
        }
        let overflow = format!("pkcs11:slot-id={}", u128::from(c_ulong::MAX) + 1);
        for uri in [
            "pkcs11:",
            "pkcs11:object=x",
            "PKCS11:token=a",
            "pkcs11:slot-id=abc",
            "pkcs11:slot-id=",
            "pkcs11:slot-id=-1",
            "pkcs11:slot-id=0x1",
            overflow.as_str(),
            "pkcs11:token=%ff",
            "pkcs11:token=a?pin-value=%ff",
        ] {
            assert!(rewritten(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn kf_04_every_order_of_attributes() {
        let all = ["slot-id=3", "token=T", "object=o"];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            for pin in ["", "?pin-value=1"] {
                for count in 1..=3 {
                    let chosen: Vec<&str> =
                        order[..count].iter().map(|index| all[*index]).collect();
                    let uri = format!("pkcs11:{}{pin}", chosen.join(";"));
                    let object = if chosen.contains(&"object=o") {
                        ";object=o"
                    } else {
                        ""
                    };
                    let expected = if chosen.contains(&"slot-id=3") {
                        Ok(format!("pkcs11:slot-id=3{object}{pin}"))
                    } else if chosen.contains(&"token=T") {
                        Ok(format!("pkcs11:token=T{object}{pin}"))
                    } else {
                        Err("URI has neither [slot-id] nor [token] components".to_owned())
                    };
                    assert_eq!(rewritten(&uri), expected, "{uri}");
                }
            }
        }
    }

    #[test]
    fn kf_05_canonical_form() {
        for (uri, canonical) in [
            (
                "pkcs11:object=a-b;type=private;token=My%20Token?pin-value=12%2334&module-name=x",
                "pkcs11:token=My%20Token;object=a%2Db?pin-value=12%2334",
            ),
            (
                "pkcs11:token=T;slot-id=3;object=o",
                "pkcs11:slot-id=3;object=o",
            ),
            (
                "pkcs11:slot-id=00;object=device-id?pin-value=12_34",
                "pkcs11:slot-id=0;object=device%2Did?pin-value=12%5F34",
            ),
            ("pkcs11:slot-id=0?pin-source=file:/x", "pkcs11:slot-id=0"),
            (
                "pkcs11:slot-id=0;object=?pin-value=12",
                "pkcs11:slot-id=0;object=?pin-value=12",
            ),
            (
                "pkcs11:token=Key pairs;object=device-id?pin-value=1234",
                "pkcs11:token=Key%20pairs;object=device%2Did?pin-value=1234",
            ),
        ] {
            assert_eq!(rewritten(uri).as_deref(), Ok(canonical), "{uri}");
        }
        assert_eq!(
            rewritten("pkcs11:slot-id=0x1").unwrap_err(),
            "slot-id path component has malformed value [0x1]"
        );
    }

    #[test]
    fn tokens_that_share_a_label_are_told_apart() {
        let uri = "pkcs11:token=a;serial=00%31;manufacturer=M&M;model=v2?pin-source=file:/etc/p%20in&pin-value=1";
        let mut out = vec![0; uri.len()];
        let parsed = Pkcs11::parse(uri, &mut out).unwrap();
        assert_eq!(
            parsed.demands,
            Demands {
                manufacturer: Some("M&M"),
                model: Some("v2"),
                serial: Some("001"),
            }
        );
        assert_eq!(parsed.pin_source, Some("file:/etc/p in"));
        assert_eq!(parsed.pin, Some("1"));
        assert_eq!(
            Pkcs11::parse("pkcs11:token=a;serial=%ff", &mut [0; 32]),
            Err(Pkcs11Error::NotUtf8 {
                attribute: "serial"
            })
        );
    }

    #[test]
    fn attributes_without_meaning_are_named() {
        for (uri, expected) in [
            ("pkcs11:token=a?pin-value=1", &[][..]),
            ("pkcs11:", &[]),
            (
                "pkcs11:token=a;type=private;pin-value=1;id=%01?module-path=/x&serial=1",
                &["type", "pin-value", "id", "module-path", "serial"],
            ),
            ("pkcs11:t%6fken=a;x", &["x"]),
        ] {
            assert_eq!(Pkcs11::ignored(uri).collect::<Vec<_>>(), expected, "{uri}");
        }
    }

    #[test]
    fn the_pin_is_not_printed() {
        let mut out = [0; 64];
        let parsed = Pkcs11::parse("pkcs11:slot-id=0?pin-value=4711", &mut out).unwrap();
        assert_eq!(parsed.pin, Some("4711"));
        assert!(!format!("{parsed:?}").contains("4711"));
    }

    proptest! {
        #[test]
        fn written_is_read_back(token in any::<String>(), object in any::<Option<String>>(), pin in any::<Option<String>>()) {
            let key = Pkcs11 {
                slot: Slot::Label(&token),
                object: object.as_deref(),
                pin: pin.as_deref(),
                pin_source: None,
                demands: Demands::default(),
            };
            let mut written = vec![0; 64 + 3 * (token.len() + object.as_deref().unwrap_or_default().len() + pin.as_deref().unwrap_or_default().len())];
            let uri = key.write(&mut written).unwrap();
            let mut out = vec![0; uri.len()];
            prop_assert_eq!(Pkcs11::parse(uri, &mut out), Ok(key));
        }

        #[test]
        fn any_text_is_read_or_refused(rest in any::<String>()) {
            let uri = format!("pkcs11:token=x;{rest}");
            let mut out = vec![0; uri.len()];
            let result = Pkcs11::parse(&uri, &mut out);
            prop_assert!(!matches!(result, Err(Pkcs11Error::BufferFull(_) | Pkcs11Error::NoSlot)));
        }
    }
}
