//! Typed reading of a merged configuration.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use zeroize::Zeroizing;

use super::merge::push_key;
use super::tree::{Entry, Kind, Position, Table, Value};
use super::{Invalid, Loaded, Merged, PROBLEMS, Problem};

/// Collects what is wrong while a configuration is decoded.
pub(crate) struct Reader<'a> {
    merged: &'a Merged,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub fn new(merged: &'a Merged) -> Self {
        Self {
            merged,
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The whole document.
    pub fn root(&'a self) -> Section<'a> {
        // Where nothing else can be pointed at: the first document.
        let at = (!self.merged.files.is_empty()).then_some(Position {
            file: 0,
            line: 1,
            column: 1,
        });
        Section {
            reader: self,
            table: &self.merged.root,
            at,
            path: String::new(),
            asked: RefCell::default(),
        }
    }

    pub fn error(
        &self,
        at: Option<Position>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(&self.errors, at, message.into(), remedy.into());
    }

    pub fn warning(
        &self,
        at: Option<Position>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(&self.warnings, at, message.into(), remedy.into());
    }

    fn push(
        &self,
        list: &RefCell<Vec<Problem>>,
        at: Option<Position>,
        message: String,
        remedy: String,
    ) {
        let location = at.map(|at| self.merged.location(at));
        list.borrow_mut().push(Problem {
            location,
            message,
            remedy,
        });
    }

    /// The settings, unless an error was reported or they could not be decoded.
    pub fn finish<T>(self, settings: Option<T>) -> Result<Loaded<T>, Invalid> {
        let mut problems = self.errors.into_inner();
        let mut warnings = self.warnings.into_inner();
        shorten(&mut problems);
        shorten(&mut warnings);
        match settings {
            Some(settings) if problems.is_empty() => Ok(Loaded { settings, warnings }),
            _ => {
                if problems.is_empty() {
                    // Every `None` goes with a report; this is a safety net that still says something true.
                    let message = String::from("the configuration could not be decoded");
                    problems.push(Problem {
                        location: None,
                        message,
                        remedy: String::new(),
                    });
                }
                Err(Invalid { problems, warnings })
            }
        }
    }
}

/// Sorts by place, and says how many there are instead of listing more than anyone reads.
fn shorten(list: &mut Vec<Problem>) {
    list.sort_by(|a, b| {
        let key = |p: &Problem| {
            p.location
                .as_ref()
                .map(|l| (l.file.clone(), l.line, l.column))
        };
        key(a).cmp(&key(b))
    });
    if list.len() > PROBLEMS {
        let more = list.len().saturating_sub(PROBLEMS);
        list.truncate(PROBLEMS);
        list.push(Problem {
            location: None,
            message: format!("… and {more} more"),
            remedy: String::new(),
        });
    }
}

/// A table being decoded.
///
/// Remembers the keys that were asked for, so that [`finish`](Self::finish) can warn about all others. Methods that
/// return an `Option` and take a remedy report an error before they return `None`.
pub(crate) struct Section<'a> {
    reader: &'a Reader<'a>,
    table: &'a Table,
    at: Option<Position>,
    path: String,
    asked: RefCell<Vec<&'static str>>,
}

/// Why a value does not fit.
pub(crate) struct Mismatch {
    pub message: String,
    pub remedy: String,
}

impl Mismatch {
    /// `invalid type: …, expected …`.
    pub fn wrong_type(value: &Value, expected: &str) -> Self {
        Self {
            message: format!("invalid type: {}, expected {expected}", value.describe()),
            remedy: format!("write {expected}"),
        }
    }

    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// A type that a value can be decoded to.
pub(crate) trait FromValue<'a>: Sized {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch>;
}

impl<'a> Section<'a> {
    pub fn reader(&self) -> &'a Reader<'a> {
        self.reader
    }

    pub fn at(&self) -> Option<Position> {
        self.at
    }

    /// Dotted path of the key, for messages.
    pub fn path_of(&self, key: &str) -> String {
        let mut path = self.path.clone();
        push_key(&mut path, key);
        path
    }

    /// Whether the key is there. Counts as asking for it.
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Place of the key, or of the table if the key is absent.
    pub fn key_at(&self, key: &str) -> Option<Position> {
        self.table
            .0
            .get(key)
            .map_or(self.at, |entry| Some(entry.key_at))
    }

    /// The raw value.
    pub fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.know(key);
        self.table.0.get(key).map(|entry| &entry.value)
    }

    /// Whether the key is there and is a table.
    pub fn is_table(&self, key: &'static str) -> bool {
        self.value(key)
            .is_some_and(|value| matches!(value.kind, Kind::Table(_)))
    }

    /// Counts `key` as known without reading it.
    pub fn know(&self, key: &'static str) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
    }

    /// Warns that `key` has no effect here, if it is present.
    pub fn without_effect(&self, key: &'static str, why: &str) {
        self.know(key);
        if let Some(entry) = self.table.0.get(key) {
            self.reader.warning(
                Some(entry.key_at),
                format!("`{}` has no effect: {why}", self.path_of(key)),
                "remove it",
            );
        }
    }

    /// A value that may be absent. `None` also if it does not fit, which is then reported.
    pub fn optional<T: FromValue<'a>>(&self, key: &'static str) -> Option<T> {
        self.read(key, self.value(key)?)
    }

    /// A value that may be absent. One that does not fit counts as absent, with a warning.
    pub fn lenient<T: FromValue<'a>>(&self, key: &'static str) -> Option<T> {
        let value = self.value(key)?;
        T::from_value(value)
            .inspect_err(|mismatch| self.ignored(key, value.at, mismatch))
            .ok()
    }

    /// A sub-table that may be absent, as a map. It counts as absent, with a warning, if it is no table or one of its values
    /// does not fit.
    pub fn lenient_map<T: FromValue<'a>>(&self, key: &'static str) -> Option<BTreeMap<String, T>> {
        let value = self.value(key)?;
        let Kind::Table(table) = &value.kind else {
            self.ignored(key, value.at, &Mismatch::wrong_type(value, "a table"));
            return None;
        };
        let read = |(name, entry): (&String, &'a Entry)| match T::from_value(&entry.value) {
            Ok(read) => Some((name.clone(), read)),
            Err(mismatch) => {
                self.ignored(key, entry.value.at, &mismatch);
                None
            }
        };
        table.0.iter().map(read).collect()
    }

    /// Warns of a value that counts as absent because it does not fit.
    fn ignored(&self, key: &str, at: Position, mismatch: &Mismatch) {
        self.reader.warning(
            Some(at),
            format!(
                "`{}` has no effect: {}",
                self.path_of(key),
                mismatch.message
            ),
            mismatch.remedy.clone(),
        );
    }

    /// A value that must be there. `remedy` says what to add.
    pub fn required<T: FromValue<'a>>(&self, key: &'static str, remedy: &str) -> Option<T> {
        match self.value(key) {
            Some(value) => self.read(key, value),
            None => {
                self.missing(key, remedy);
                None
            }
        }
    }

    /// Reports that a key is missing.
    pub fn missing(&self, key: &str, remedy: &str) {
        let place = if self.path.is_empty() {
            String::new()
        } else {
            format!(" in [{}]", self.path)
        };
        // The location of the problem is the table's; a table that was never written has none.
        self.reader
            .error(self.at, format!("missing field `{key}`{place}"), remedy);
    }

    fn read<T: FromValue<'a>>(&self, key: &str, value: &'a Value) -> Option<T> {
        match T::from_value(value) {
            Ok(read) => Some(read),
            Err(mismatch) => {
                self.mismatch(key, value.at, mismatch);
                None
            }
        }
    }

    /// Reports a value that does not fit.
    pub fn mismatch(&self, key: &str, at: Position, mismatch: Mismatch) {
        self.reader.error(
            Some(at),
            format!("`{}`: {}", self.path_of(key), mismatch.message),
            mismatch.remedy,
        );
    }

    /// Reports an error at the value of `key`.
    pub fn refuse(&self, key: &str, message: &str, remedy: &str) {
        let at = self
            .table
            .0
            .get(key)
            .map_or(self.at, |entry| Some(entry.value.at));
        self.reader.error(at, message, remedy);
    }

    /// A sub-table that may be absent.
    pub fn table(&self, key: &'static str) -> Option<Section<'a>> {
        let value = self.value(key)?;
        self.as_section(key, value)
    }

    /// A sub-table that must be there.
    pub fn required_table(&self, key: &'static str, remedy: &str) -> Option<Section<'a>> {
        if self.value(key).is_none() {
            self.missing(key, remedy);
        }
        self.table(key)
    }

    fn as_section(&self, key: &str, value: &'a Value) -> Option<Section<'a>> {
        match &value.kind {
            Kind::Table(table) => Some(Section {
                reader: self.reader,
                table,
                at: Some(value.at),
                path: self.path_of(key),
                asked: RefCell::default(),
            }),
            _ => {
                self.mismatch(key, value.at, Mismatch::wrong_type(value, "a table"));
                None
            }
        }
    }

    /// An array of tables; empty if absent.
    pub fn tables(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        match &value.kind {
            Kind::Array(items) => items
                .iter()
                .filter_map(|item| self.as_section(key, item))
                .collect(),
            _ => {
                let remedy = format!("write one [[{}]] for each", self.path_of(key));
                let message = format!("invalid type: {}, expected a sequence", value.describe());
                self.mismatch(key, value.at, Mismatch { message, remedy });
                Vec::new()
            }
        }
    }

    /// All entries, whatever their names.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.table
            .0
            .iter()
            .map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// All entries that are tables; others are reported.
    pub fn entry_tables<'s>(&'s self) -> impl Iterator<Item = (&'a str, Section<'a>)> + 's {
        self.entries()
            .filter_map(|(key, value)| Some((key, self.as_section(key, value)?)))
    }

    /// The table as a map, each value decoded.
    pub fn map<T: FromValue<'a>>(&self) -> BTreeMap<String, T> {
        self.entries()
            .filter_map(|(key, value)| Some((key.into(), self.read(key, value)?)))
            .collect()
    }

    /// A sub-table as a map; empty if absent.
    pub fn map_of<T: FromValue<'a>>(&self, key: &'static str) -> BTreeMap<String, T> {
        self.table(key)
            .map(|section| section.map())
            .unwrap_or_default()
    }

    /// Warns about keys that nobody asked for.
    pub fn finish(self) {
        self.finish_ref();
    }

    /// As [`finish`](Self::finish), for the document itself.
    pub fn finish_ref(&self) {
        self.warn_unknown("it is ignored");
    }

    /// As [`finish`](Self::finish), with `remedy` for keys that look like no known one.
    pub fn finish_with(self, remedy: &str) {
        self.warn_unknown(remedy);
    }

    fn warn_unknown(&self, otherwise: &str) {
        let asked = self.asked.borrow();
        for (key, entry) in &self.table.0 {
            if asked.contains(&key.as_str()) {
                continue;
            }
            let remedy = match nearest(
                key,
                asked
                    .iter()
                    .copied()
                    .filter(|known| !self.table.0.contains_key(*known)),
            ) {
                Some(known) => format!("did you mean `{known}`?"),
                None => otherwise.into(),
            };
            self.reader.warning(
                Some(entry.key_at),
                format!("unknown key `{}`", self.path_of(key)),
                remedy,
            );
        }
    }
}

/// The name among `known` that `name` is most probably a misspelling of.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Keys are short; a long name is not a misspelling of any.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase().replace('-', "_");
    known
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(4).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance (insertions, deletions, substitutions) of two strings, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let up = *cell;
            let substituted = if x == y {
                diagonal
            } else {
                diagonal.saturating_add(1)
            };
            left = substituted
                .min(up.saturating_add(1))
                .min(left.saturating_add(1));
            diagonal = up;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

impl<'a> FromValue<'a> for &'a Value {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        match &value.kind {
            Kind::Text(text) => Ok(text),
            _ => Err(Mismatch {
                message: format!("invalid type: {}, expected a string", value.describe()),
                remedy: "write the value in quotes".into(),
            }),
        }
    }
}

impl<'a> FromValue<'a> for String {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(Self::from)
    }
}

impl<'a> FromValue<'a> for super::Secret {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(Self::from)
    }
}

impl<'a> FromValue<'a> for bool {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        match value.kind {
            Kind::Boolean(b) => Ok(b),
            _ => Err(Mismatch {
                message: format!("invalid type: {}, expected a boolean", value.describe()),
                remedy: "write true or false, without quotes".into(),
            }),
        }
    }
}

/// An integer in `0..=maximum`; `kind` is the name of the type in messages.
fn integer(value: &Value, maximum: u64, kind: &str) -> Result<u64, Mismatch> {
    let remedy = || format!("write a whole number from 0 to {maximum}, without quotes");
    match value.kind {
        Kind::Integer(n) => u64::try_from(n)
            .ok()
            .filter(|n| *n <= maximum)
            .ok_or_else(|| {
                Mismatch::new(
                    format!("invalid value: integer `{n}`, expected {kind}"),
                    remedy(),
                )
            }),
        _ => Err(Mismatch::new(
            format!("invalid type: {}, expected {kind}", value.describe()),
            remedy(),
        )),
    }
}

impl<'a> FromValue<'a> for u64 {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        integer(value, i64::MAX.unsigned_abs(), "u64")
    }
}

impl<'a> FromValue<'a> for u32 {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        integer(value, u32::MAX.into(), "u32").map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Vec<T> {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        match &value.kind {
            Kind::Array(items) => items.iter().map(T::from_value).collect(),
            _ => Err(Mismatch {
                message: format!("invalid type: {}, expected a sequence", value.describe()),
                remedy: "write the values in brackets, separated by commas".into(),
            }),
        }
    }
}

/// Text given as a string or as an array of byte values, without NUL bytes.
///
/// The form in which old tools write strings for the TPM software.
pub(crate) struct ByteString(pub Zeroizing<Vec<u8>>);

impl<'a> FromValue<'a> for ByteString {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        let bytes = match &value.kind {
            Kind::Text(text) => text.as_bytes().to_vec(),
            Kind::Array(items) => items
                .iter()
                .map(|item| {
                    integer(item, u8::MAX.into(), "u8").map(|n| u8::try_from(n).unwrap_or(u8::MAX))
                })
                .collect::<Result<_, _>>()?,
            _ => {
                return Err(Mismatch::new(
                    format!("invalid type: {}, expected byte array", value.describe()),
                    "write the value in quotes",
                ));
            }
        };
        let bytes = Zeroizing::new(bytes);
        match bytes.iter().position(|b| *b == 0) {
            None => Ok(Self(bytes)),
            Some(i) => Err(Mismatch::new(
                format!("nul byte found in provided data at position: {i}"),
                "remove the NUL character",
            )),
        }
    }
}

/// Index in `names` of the name that `value` is.
///
/// A value that is none of them is shown in the message only if it is short and looks like a name, because a
/// secret may have been pasted in the wrong place.
pub(crate) fn variant(value: &Value, names: &[&str]) -> Result<usize, Mismatch> {
    const LONGEST_SHOWN: usize = 24;
    let text = <&str>::from_value(value)?;
    if let Some(index) = names.iter().position(|name| *name == text) {
        return Ok(index);
    }
    let shown = text.len() <= LONGEST_SHOWN
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ' '));
    let shown = if shown { text } else { "…" };
    let listed = names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let one_of = if names.len() > 1 { "one of " } else { "" };
    let remedy = match nearest(text, names.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("write {one_of}{listed}"),
    };
    Err(Mismatch::new(
        format!("unknown variant `{shown}`, expected {one_of}{listed}"),
        remedy,
    ))
}
