//! Writing settings as TOML.

use alloc::string::String;
use core::fmt::Write as _;
use toml_writer::{TomlKeyBuilder, TomlStringBuilder, TomlWrite as _};
use zeroize::Zeroizing;

/// Builds a document: `key = value` lines, an empty line before every header, arrays on one line.
///
/// The layout is part of the file interface: it is that of the documents which other tools compare byte by byte.
/// The text is wiped when dropped; it may hold passwords and PINs.
pub(crate) struct Writer {
    text: Zeroizing<String>,
}

impl Writer {
    pub fn new() -> Self {
        // Large enough for any ordinary document, so that it does not leave copies behind while growing.
        Self {
            text: Zeroizing::new(String::with_capacity(16 * 1024)),
        }
    }

    pub fn finish(self) -> Zeroizing<String> {
        self.text
    }

    /// `[a.b]`.
    pub fn table(&mut self, path: &[&str]) {
        self.header("[", path, "]");
    }

    /// `[[a]]`.
    pub fn array_table(&mut self, path: &[&str]) {
        self.header("[[", path, "]]");
    }

    fn header(&mut self, open: &str, path: &[&str], close: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(open);
        for (i, key) in path.iter().enumerate() {
            if i > 0 {
                self.text.push('.');
            }
            self.key(key);
        }
        self.text.push_str(close);
        self.text.push('\n');
    }

    // Writing to a `String` cannot fail.
    fn key(&mut self, key: &str) {
        let _ = self.text.key(TomlKeyBuilder::new(key).as_default());
    }

    fn quoted(&mut self, text: &str) {
        let _ = self.text.value(TomlStringBuilder::new(text).as_default());
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.text.push_str(" = ");
        self.quoted(value);
        self.text.push('\n');
    }

    pub fn optional_string(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    /// An integer or a boolean.
    pub fn plain(&mut self, key: &str, value: impl core::fmt::Display) {
        self.key(key);
        let _ = writeln!(self.text, " = {value}");
    }

    pub fn strings<'v>(&mut self, key: &str, values: impl IntoIterator<Item = &'v str>) {
        self.key(key);
        self.text.push_str(" = [");
        for (i, value) in values.into_iter().enumerate() {
            if i > 0 {
                self.text.push_str(", ");
            }
            self.quoted(value);
        }
        self.text.push_str("]\n");
    }

    /// A string if the bytes are UTF-8, else an array of integers.
    pub fn bytes(&mut self, key: &str, value: &[u8]) {
        if let Ok(text) = core::str::from_utf8(value) {
            return self.string(key, text);
        }
        self.key(key);
        self.text.push_str(" = [");
        for (i, byte) in value.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(self.text, "{comma}{byte}");
        }
        self.text.push_str("]\n");
    }
}
