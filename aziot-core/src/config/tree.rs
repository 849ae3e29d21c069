//! The tree of values that documents are merged into.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use zeroize::{Zeroize as _, Zeroizing};

/// Where a value was written: index of the document, line and column from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Position {
    pub file: u16,
    pub line: u32,
    pub column: u32,
}

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Value {
    pub kind: Kind,
    pub at: Position,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Text(Zeroizing<String>),
    Integer(i64),
    Boolean(bool),
    /// A float or a date: no setting has such a value, so only the name of the type is kept.
    Other(&'static str),
    Array(Vec<Value>),
    Table(Table),
}

/// Entries by key, in byte order.
#[derive(Debug, Default)]
pub(crate) struct Table(pub BTreeMap<String, Entry>);

/// A value, and where its key is.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key_at: Position,
    pub value: Value,
}

impl Value {
    /// What the value is, for `invalid type: …`. Never the text of a string.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Text(_) => "string".into(),
            Kind::Integer(n) => alloc::format!("integer `{n}`"),
            Kind::Boolean(b) => alloc::format!("boolean `{b}`"),
            Kind::Other(name) => (*name).into(),
            Kind::Array(_) => "sequence".into(),
            Kind::Table(_) => "map".into(),
        }
    }
}

impl Drop for Table {
    /// Keys are wiped too: a secret pasted in the wrong place may well end up as one.
    fn drop(&mut self) {
        while let Some((mut key, _)) = self.0.pop_first() {
            key.zeroize();
        }
    }
}
