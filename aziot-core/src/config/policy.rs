//! When certificates are renewed, as settings.

use alloc::string::String;

use super::section::{FromValue, Mismatch, Section};
use super::tree::Value;
use super::write::Writer;
pub use crate::renewal::policy::{AutoRenew, Policy, PolicyError};

impl<'a> FromValue<'a> for Policy {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        let text = <&str>::from_value(value)?;
        text.parse().map_err(|error: PolicyError| {
            Mismatch::new(
                alloc::format!("{error}"),
                "write a whole number and a unit, such as \"80%\", \"90min\" or \"10day\"",
            )
        })
    }
}

impl AutoRenew {
    /// Reads the table `key`. All three members are required.
    pub(crate) fn read(parent: &Section<'_>, key: &'static str) -> Option<Self> {
        let section = parent.table(key)?;
        let rotate_key = section.required(
            "rotate_key",
            "add `rotate_key = true` (a new key at each renewal) or false",
        );
        Self::read_times(section, rotate_key)
    }

    /// As [`read`](Self::read); without `rotate_key` there is a new key at each renewal (DB-5).
    pub(crate) fn read_rotating(parent: &Section<'_>, key: &'static str) -> Option<Self> {
        let section = parent.table(key)?;
        let rotate_key = if section.has("rotate_key") {
            section.optional("rotate_key")
        } else {
            Some(Self::default().rotate_key)
        };
        Self::read_times(section, rotate_key)
    }

    fn read_times(section: Section<'_>, rotate_key: Option<bool>) -> Option<Self> {
        let threshold = section.required("threshold", "add `threshold = \"80%\"`");
        let retry = section.required("retry", "add `retry = \"4%\"`");
        section.finish();
        Some(Self {
            rotate_key: rotate_key?,
            threshold: threshold?,
            retry: retry?,
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer, path: &[&str]) {
        writer.table(path);
        writer.plain("rotate_key", self.rotate_key);
        writer.string("threshold", &alloc::format!("{}", self.threshold));
        writer.string("retry", &alloc::format!("{}", self.retry));
    }
}

/// The text of a policy, for places that keep it as written.
impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        alloc::format!("{policy}")
    }
}
