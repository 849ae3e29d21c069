//! Where files and sockets are, when a configuration does not say.

use alloc::format;
use alloc::string::String;

/// Built-in locations that appear in settings and in generated documents.
///
/// They are absolute paths without a final slash. The caller puts its root prefix, if it has one, in front.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Places {
    /// Directory of the sockets, `/run/aziot`.
    pub sockets: String,
    /// Directory of the services' homes, `/var/lib/aziot`.
    pub homes: String,
    /// Directory of secrets written by `config apply`, `/var/secrets/aziot`.
    pub secrets: String,
}

impl Places {
    /// The installed locations, each behind `root` (an absolute path without a final slash, or nothing).
    pub fn under(root: &str) -> Self {
        Self {
            sockets: format!("{root}/run/aziot"),
            homes: format!("{root}/var/lib/aziot"),
            secrets: format!("{root}/var/secrets/aziot"),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::under("")
    }
}
