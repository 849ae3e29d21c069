//! Parsing documents and merging them.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::tree::{Entry, Kind, Position, Table, Value};
use super::{DOCUMENT_BYTES, DOCUMENTS, Location, MERGED_BYTES, Problem, VALUES};

/// Configuration documents merged into one.
///
/// A later document is laid over the earlier ones: tables merge key by key, arrays are appended, anything else is
/// replaced (`spec` chapter on configuration, 6.2). Every value remembers the document, line and column it came from.
#[derive(Debug, Default)]
pub struct Merged {
    pub(super) files: Vec<Arc<str>>,
    pub(super) root: Table,
    bytes: usize,
    values: usize,
    /// Dotted paths of arrays that replace instead of being appended.
    scalars: &'static [&'static str],
}

impl Merged {
    /// No document yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), but arrays at the dotted paths `scalars` count as single values: the last one wins.
    ///
    /// For strings that old files hold as arrays of bytes.
    pub fn with_scalars(scalars: &'static [&'static str]) -> Self {
        Self {
            scalars,
            ..Self::default()
        }
    }

    /// Parses `text` (TOML 1.1) and merges it over what is there. `name` appears in locations.
    ///
    /// # Errors
    ///
    /// The text is not TOML, or a limit ([`DOCUMENT_BYTES`], [`MERGED_BYTES`], [`DOCUMENTS`], [`VALUES`]) is exceeded. The
    /// earlier documents are then unchanged.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), Problem> {
        let name: Arc<str> = name.into();
        let refuse = |line, column, message: String, remedy: &str| Problem {
            location: Some(Location {
                file: name.clone(),
                line,
                column,
            }),
            message,
            remedy: remedy.into(),
        };
        if text.len() > DOCUMENT_BYTES {
            let message = format!(
                "document of {} bytes exceeds the limit of {DOCUMENT_BYTES} bytes",
                text.len()
            );
            return Err(refuse(1, 1, message, "split it into several files"));
        }
        let bytes = self.bytes.saturating_add(text.len());
        if bytes > MERGED_BYTES {
            let message =
                format!("all documents together exceed the limit of {MERGED_BYTES} bytes");
            return Err(refuse(1, 1, message, "remove files that are not needed"));
        }
        let file = match u16::try_from(self.files.len()) {
            Ok(file) if self.files.len() < DOCUMENTS => file,
            _ => {
                let message = format!("more than {DOCUMENTS} documents");
                return Err(refuse(1, 1, message, "remove files that are not needed"));
            }
        };

        let lines = Lines::new(text, file);
        let parsed = DeTable::parse(text).map_err(|error| {
            // A few errors have no place; they concern nesting, which no single place shows.
            let at = lines.position(error.span().map_or(0, |span| span.start));
            let message = format!("invalid TOML: {}", error.message());
            refuse(at.line, at.column, message, "")
        })?;
        let mut values = self.values;
        let root = convert_table(parsed.into_inner(), &lines, &mut values)
            .map_err(|unfit| refuse(unfit.at.line, unfit.at.column, unfit.message, unfit.remedy))?;

        self.files.push(name.clone());
        self.bytes = bytes;
        self.values = values;
        let mut path = String::new();
        merge(&mut self.root, root, self.scalars, &mut path);
        Ok(())
    }

    /// Names of the documents, in the order they were merged.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|name| &**name)
    }

    /// Calls `each` with the dotted path and the place of every value that is not a table, in order of the keys.
    ///
    /// For a log that shows which file set what. The values are not shown, as they may be secret.
    pub fn for_each_key(&self, each: &mut dyn FnMut(&str, Location)) {
        fn walk(
            merged: &Merged,
            table: &Table,
            path: &mut String,
            each: &mut dyn FnMut(&str, Location),
        ) {
            for (key, entry) in &table.0 {
                let length = path.len();
                push_key(path, key);
                match &entry.value.kind {
                    Kind::Table(inner) => walk(merged, inner, path, each),
                    _ => each(path, merged.location(entry.key_at)),
                }
                path.truncate(length);
            }
        }
        walk(self, &self.root, &mut String::new(), each);
    }

    /// The place `at`, with the name of its document.
    pub(super) fn location(&self, at: Position) -> Location {
        Location {
            // Positions only come from documents that were added.
            file: self
                .files
                .get(usize::from(at.file))
                .cloned()
                .unwrap_or_else(|| "".into()),
            line: at.line,
            column: at.column,
        }
    }
}

/// Appends `key` to a dotted path.
pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

fn merge(base: &mut Table, mut patch: Table, scalars: &[&str], path: &mut String) {
    while let Some((key, new)) = patch.0.pop_first() {
        let length = path.len();
        push_key(path, &key);
        match base.0.get_mut(&key) {
            None => {
                base.0.insert(key, new);
            }
            Some(old) => match (&mut old.value.kind, new.value.kind) {
                (Kind::Table(old), Kind::Table(new)) => merge(old, new, scalars, path),
                (Kind::Array(old), Kind::Array(new)) if !scalars.contains(&path.as_str()) => {
                    old.extend(new);
                }
                (_, kind) => {
                    *old = Entry {
                        key_at: new.key_at,
                        value: Value {
                            kind,
                            at: new.value.at,
                        },
                    }
                }
            },
        }
        path.truncate(length);
    }
}

/// A value that cannot be kept.
struct Unfit {
    at: Position,
    message: String,
    remedy: &'static str,
}

fn convert_table(
    table: DeTable<'_>,
    lines: &Lines<'_>,
    values: &mut usize,
) -> Result<Table, Unfit> {
    let mut converted = Table::default();
    for (key, value) in table {
        let key_at = lines.position(key.span().start);
        let value = convert(value, lines, values)?;
        converted
            .0
            .insert(key.into_inner().into_owned(), Entry { key_at, value });
    }
    Ok(converted)
}

/// Converts a value and counts it in `values`.
fn convert(
    value: Spanned<DeValue<'_>>,
    lines: &Lines<'_>,
    values: &mut usize,
) -> Result<Value, Unfit> {
    let at = lines.position(value.span().start);
    *values = values.saturating_add(1);
    if *values > VALUES {
        return Err(Unfit {
            at,
            message: format!("all documents together have more than {VALUES} values"),
            remedy: "remove what is not needed",
        });
    }
    let kind = match value.into_inner() {
        // An owned text (one with escapes) is moved, not copied, so that it is wiped in the end.
        DeValue::String(Cow::Owned(text)) => Kind::Text(Zeroizing::new(text)),
        DeValue::String(Cow::Borrowed(text)) => Kind::Text(Zeroizing::new(text.into())),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Kind::Integer(n),
            Err(_) => {
                return Err(Unfit {
                    at,
                    message: "integer does not fit in 64 bits".into(),
                    remedy: "write a smaller number",
                });
            }
        },
        DeValue::Float(_) => Kind::Other("float"),
        DeValue::Boolean(b) => Kind::Boolean(b),
        DeValue::Datetime(_) => Kind::Other("datetime"),
        DeValue::Array(items) => Kind::Array(
            items
                .into_iter()
                .map(|item| convert(item, lines, values))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => Kind::Table(convert_table(table, lines, values)?),
    };
    Ok(Value { kind, at })
}

/// Finds line and column of a byte offset.
struct Lines<'a> {
    text: &'a str,
    /// Byte offset of the start of each line.
    starts: Vec<usize>,
    file: u16,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str, file: u16) -> Self {
        // The byte order mark is no character of the first line.
        let first = if text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        let starts = core::iter::once(first)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(i, _)| i.saturating_add(1)),
            )
            .collect();
        Self { text, starts, file }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self
            .starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |before| before.chars().count());
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position {
            file: self.file,
            line: narrow(line),
            column: narrow(column.saturating_add(1)),
        }
    }
}
