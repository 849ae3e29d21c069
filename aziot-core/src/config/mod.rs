//! Settings of the services: reading, merging, typed decoding and writing.
//!
//! A service's configuration is a main file and a directory of drop-ins. [`Merged`] takes their texts one
//! after the other and keeps **file, line and column of every value**, so that whatever is wrong with a setting
//! is reported with the place it was written at. Decoding ([`keyd::Settings`], [`identityd::Settings`], …)
//! reports everything it finds in one go; what is only suspicious (an unknown key, say) becomes a warning.
//!
//! Nothing here reads files or the environment; that is the caller's part. Memory is bounded by
//! [`DOCUMENT_BYTES`] and [`MERGED_BYTES`].
//!
//! ```
//! use aziot_core::config::{Merged, Places, keyd};
//!
//! let mut merged = Merged::new();
//! merged.add("/etc/aziot/keyd/config.toml", "max_requests = 20\n").unwrap();
//! let loaded = keyd::Settings::read(&merged, &Places::default()).unwrap();
//! assert_eq!(loaded.settings.max_requests, 20);
//! ```

pub mod certd;
mod endpoint;
pub mod identityd;
pub mod keyd;
mod merge;
mod places;
mod policy;
mod problem;
mod secret;
mod section;
mod state;
pub mod tpmd;
mod tree;
pub mod url;
mod write;

#[cfg(test)]
mod tests;

pub use endpoint::Endpoint;
pub use merge::Merged;
pub use places::Places;
pub use policy::{AutoRenew, Policy, PolicyError};
pub use problem::{Invalid, Loaded, Location, Problem};
pub use secret::Secret;
pub use state::{DeviceInfo, device_info};

pub(crate) use section::{FromValue, Mismatch, Reader, Section, variant};
pub(crate) use tree::Value;
pub(crate) use write::Writer;

/// Largest configuration document, in bytes.
///
/// A file written by `config apply` with every feature in use is about 4 KiB; the limit leaves room for some
/// hundred principals in one file and keeps the parser's tree (some 40 bytes for each value) small.
pub const DOCUMENT_BYTES: usize = 64 * 1024;

/// Largest sum of the documents that are merged into one configuration, in bytes: four full documents.
pub const MERGED_BYTES: usize = 256 * 1024;

/// Most documents merged into one configuration: a main file and a drop-in for each of a few hundred packages.
pub const DOCUMENTS: usize = 512;

/// Most values (tables, arrays and their elements included) in one configuration.
///
/// Hardly any setting takes fewer than 16 bytes of text, so this is what [`MERGED_BYTES`] can hold. It bounds the
/// memory of texts made to need a lot: what is merged takes some 50 bytes for each value.
pub const VALUES: usize = MERGED_BYTES / 16;

/// Most errors, and most warnings, listed in one report. What is beyond is counted in a last line.
pub const PROBLEMS: usize = 64;
