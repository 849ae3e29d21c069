//! Which token a URI means, and the PIN for it.

use core::ffi::c_ulong;
use core::fmt;
use core::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use aziot_core::percent::Set;
use aziot_core::uri::{self, Demands, Pkcs11 as Uri};
use cryptoki::context::Pkcs11;
use cryptoki::slot::{Slot, TokenInfo};
use zeroize::Zeroizing;

use super::error::Cause;
use super::module::{printable, value_of};

/// Longest PIN that is read from a file, in bytes.
const MAX_PIN_LEN: u64 = 4096;

/// How to find a token and log in to it.
#[derive(PartialEq)]
pub(super) struct Selector {
    place: Place,
    manufacturer: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    pub(super) pin: Pin,
}

#[derive(PartialEq)]
enum Place {
    Id(c_ulong),
    Label(String),
}

#[derive(PartialEq)]
pub(super) enum Pin {
    None,
    Value(Zeroizing<Vec<u8>>),
    /// As written in the URI.
    Source(String),
}

impl Selector {
    pub(super) fn of(uri: &Uri<'_>) -> Self {
        let Demands {
            manufacturer,
            model,
            serial,
        } = uri.demands;
        Self {
            place: match uri.slot {
                uri::Slot::Id(id) => Place::Id(id),
                uri::Slot::Label(label) => Place::Label(label.to_owned()),
            },
            manufacturer: manufacturer.map(str::to_owned),
            model: model.map(str::to_owned),
            serial: serial.map(str::to_owned),
            pin: match (uri.pin, uri.pin_source) {
                (Some(pin), _) => Pin::Value(Zeroizing::new(pin.as_bytes().to_vec())),
                (None, Some(source)) => Pin::Source(source.to_owned()),
                (None, None) => Pin::None,
            },
        }
    }

    pub(super) fn find(&self, context: &Pkcs11) -> Result<Found, Cause> {
        match &self.place {
            Place::Id(id) => self.find_by_id(context, *id),
            Place::Label(label) => self.find_by_label(context, label),
        }
    }

    /// The slot is taken as it is; only what the URI demands beside its number is checked.
    fn find_by_id(&self, context: &Pkcs11, id: c_ulong) -> Result<Found, Cause> {
        let slot = Slot::try_from(id)?;
        let info = match context.get_token_info(slot) {
            Ok(info) => Some(info),
            Err(err) => {
                log::debug!("C_GetTokenInfo of slot {id} returned {}", value_of(err));
                None
            }
        };
        let fits = match &info {
            Some(info) => self.accepts(info),
            None => !self.is_demanding(),
        };
        if !fits {
            return Err(Cause::NoToken {
                wanted: self.wanted(),
                found: info
                    .iter()
                    .map(|info| format!("\"{}\"", printable(info.label())))
                    .collect(),
            });
        }
        Ok(Found::new(slot, info.as_ref()))
    }

    fn find_by_label(&self, context: &Pkcs11, label: &str) -> Result<Found, Cause> {
        let mut fitting: Option<Found> = None;
        let mut labels = Vec::new();
        for slot in context.get_slots_with_token()? {
            let info = match context.get_token_info(slot) {
                Ok(info) => info,
                Err(err) => {
                    log::debug!(
                        "skipping slot {}: C_GetTokenInfo returned {}",
                        slot.id(),
                        value_of(err)
                    );
                    continue;
                }
            };
            if !info.token_initialized() {
                continue;
            }
            if trimmed(info.label()) != label || !self.accepts(&info) {
                labels.push(format!("\"{}\"", printable(info.label())));
                continue;
            }
            match &fitting {
                None => fitting = Some(Found::new(slot, Some(&info))),
                Some(first) => {
                    log::warn!(
                        "slots {} and {} both have a token that fits {self}; using the first; `serial` in the URI can tell them apart",
                        first.slot.id(),
                        slot.id()
                    );
                    break;
                }
            }
        }
        fitting.ok_or_else(|| Cause::NoToken {
            wanted: self.wanted(),
            found: labels,
        })
    }

    fn accepts(&self, info: &TokenInfo) -> bool {
        let fits = |demand: &Option<String>, value: &str| {
            demand
                .as_deref()
                .is_none_or(|demand| demand == trimmed(value))
        };
        fits(&self.manufacturer, info.manufacturer_id())
            && fits(&self.model, info.model())
            && fits(&self.serial, info.serial_number())
    }

    fn is_demanding(&self) -> bool {
        self.manufacturer.is_some() || self.model.is_some() || self.serial.is_some()
    }

    /// For "could not find a slot with …".
    fn wanted(&self) -> String {
        let mut wanted = match &self.place {
            Place::Id(id) => format!("id {id}"),
            Place::Label(label) => format!("a token labelled \"{label}\""),
        };
        for (name, value) in self.demands() {
            let _ = write!(wanted, ", {name} \"{value}\"");
        }
        wanted
    }

    fn demands(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SET: Set = Set::PUNCTUATION;
        match &self.place {
            Place::Id(id) => write!(f, "pkcs11:slot-id={id}")?,
            Place::Label(label) => write!(f, "pkcs11:token={}", SET.encode(label))?,
        }
        for (name, value) in self.demands() {
            write!(f, ";{name}={}", SET.encode(value))?;
        }
        Ok(())
    }
}

/// A token that was found.
pub(super) struct Found {
    pub(super) slot: Slot,
    pub(super) label: String,
    /// Tells it from any other token, also from one that is put into the same slot.
    pub(super) identity: String,
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: the PIN is entered at the token.
    pub(super) protected: bool,
    pub(super) login_required: bool,
}

impl Found {
    fn new(slot: Slot, info: Option<&TokenInfo>) -> Self {
        let Some(info) = info else {
            return Self {
                slot,
                label: String::new(),
                identity: String::new(),
                protected: false,
                login_required: true,
            };
        };
        let text = |text| printable(text);
        Self {
            slot,
            label: text(info.label()),
            identity: format!(
                "{}\n{}\n{}\n{}",
                text(info.manufacturer_id()),
                text(info.model()),
                text(info.serial_number()),
                text(info.label()),
            ),
            protected: info.protected_authentication_path(),
            login_required: info.login_required(),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" in slot {}", self.label, self.slot.id())
    }
}

/// Fields of fixed length are padded with blanks, by some modules with NULs.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

impl Pin {
    /// Reads it anew each time: a corrected file takes effect without a restart.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Cause> {
        match self {
            Self::None => Ok(None),
            Self::Value(pin) => Ok(Some(pin.clone())),
            Self::Source(source) => read_pin(source).map(Some),
        }
    }
}

/// The first line of a file that is named by a `file:` URI or an absolute path.
fn read_pin(source: &str) -> Result<Zeroizing<Vec<u8>>, Cause> {
    let failed = |path: &Path, reason: String| Cause::PinSource {
        path: path.to_owned(),
        reason,
    };
    let path = if source.starts_with('/') {
        PathBuf::from(source)
    } else {
        use std::os::unix::ffi::OsStrExt as _;
        let mut decoded = vec![0; source.len() + 1];
        let path = uri::file_path(source, &mut decoded).map_err(|_| {
            failed(
                Path::new(source),
                "it is neither a `file:` URI nor an absolute path".to_owned(),
            )
        })?;
        PathBuf::from(std::ffi::OsStr::from_bytes(path))
    };
    let file = fs::File::open(&path).map_err(|err| failed(&path, err.to_string()))?;
    // One that grows while it is read would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PIN_LEN as usize + 1));
    let mut reader = BufReader::with_capacity(1, file).take(MAX_PIN_LEN + 1);
    reader
        .read_until(b'\n', &mut line)
        .map_err(|err| failed(&path, err.to_string()))?;
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        line.pop();
    }
    if line.len() as u64 > MAX_PIN_LEN {
        return Err(failed(
            &path,
            format!("its first line has more than {MAX_PIN_LEN} bytes"),
        ));
    }
    if line.is_empty() {
        return Err(failed(&path, "its first line is empty".to_owned()));
    }
    Ok(line)
}
