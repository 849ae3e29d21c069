//! What the tests of this module share.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use aziot_core::config::certd::Settings;
use aziot_core::config::{Merged, Places};

/// Settings of this text, with a home directory that is not there.
pub fn settings(text: &str) -> Settings {
    let mut merged = Merged::new();
    let text = format!("homedir_path = \"/nonexistent\"\n{text}");
    merged.add("certd.toml", &text).unwrap();
    Settings::read(&merged, &Places::default())
        .unwrap()
        .settings
}
