//! Key handles.

use std::fmt;

use zeroize::Zeroizing;

/// A key handle, as the Keys Service has issued it. Its text is opaque.
///
/// It lets whoever has it use the key, so it is treated as a secret: wiped when dropped, and not shown by [`fmt::Debug`].
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHandle(Zeroizing<String>);

impl KeyHandle {
    /// A handle that came from elsewhere: the Identity Service, or the configuration of a program. Whether it is one, the
    /// Keys Service decides.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, to be given to others who may use the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, still wiped when dropped.
    #[must_use]
    pub fn into_text(self) -> Zeroizing<String> {
        self.0
    }
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHandle(..)")
    }
}
