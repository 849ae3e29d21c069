//! Identifiers that are checked once, when they are made, and file names derived from them.
//!
//! Every type here borrows its text and carries a promise: a [`KeyId`] has no NUL byte, a [`ModuleId`], [`DeviceId`],
//! [`RegistrationId`] or [`ScopeId`] is safe as one segment of a URL path once it is percent-encoded, a [`HubName`] is a
//! plain `host[:port]`. Comparison is byte for byte; nothing is normalised or case-folded.

use core::fmt;

use sha2::{Digest, Sha256};

/// Id of the symmetric key that authenticates all key handles (keys-service 6.2).
pub const HANDLE_VALIDATION_KEY: &str = "handle-validation-key";

/// Id of the symmetric key from which the keys of all module identities are derived (identity-service 11.1).
pub const MASTER_KEY: &str = "aziot_identityd_master_id";

/// Id under which `aziotctl config apply` stores the key of the device identity.
pub const DEVICE_KEY: &str = "device-id";

/// Longest file name in bytes that Linux file systems take (`NAME_MAX`).
pub const MAX_FILE_NAME: usize = 255;

/// A file name of at most [`MAX_FILE_NAME`] bytes, ASCII only.
pub type FileName = heapless::String<MAX_FILE_NAME>;

/// The id of a key in the Keys Service: any text without U+0000, the empty text included.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KeyId<'a>(&'a str);

impl<'a> KeyId<'a> {
    /// Accepts `text` unless it contains U+0000, which could not cross the C ABI of the key library.
    pub fn new(text: &'a str) -> Result<Self, NulByte> {
        match text.bytes().position(|byte| byte == 0) {
            None => Ok(Self(text)),
            Some(position) => Err(NulByte { position }),
        }
    }

    /// The id as text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The name of the file that holds this key below `keys/` of the default key library:
    /// ASCII letters and digits of the id, `-`, SHA-256 of the id in lower-case hex, `.key`.
    pub fn file_name(self) -> Result<FileName, NameTooLong> {
        file_name(self.0, ".key")
    }
}

impl fmt::Display for KeyId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A text contains U+0000, which no key id may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NulByte {
    /// Byte offset of the first U+0000.
    pub position: usize,
}

impl fmt::Display for NulByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nul byte found in provided data at position: {}",
            self.position
        )
    }
}

impl core::error::Error for NulByte {}

macro_rules! path_ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
            pub struct $name<'a>(&'a str);

            impl<'a> $name<'a> {
                /// Accepts `text` unless it is blank, `.` or `..` (neither survives as a segment of a URL path), or
                /// contains U+0000.
                pub fn new(text: &'a str) -> Result<Self, IdError> {
                    check_segment(text, $what).map(|()| Self(text))
                }

                /// The id as text.
                pub const fn as_str(self) -> &'a str {
                    self.0
                }
            }

            impl fmt::Display for $name<'_> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.0)
                }
            }
        )*
    };
}

path_ids! {
    /// The id of a device in IoT Hub.
    DeviceId, "device id";
    /// The name of a module of a device in IoT Hub.
    ModuleId, "module name";
    /// The id of a device's registration in the Device Provisioning Service, exactly as written.
    RegistrationId, "registration id";
    /// The id scope of a Device Provisioning Service instance.
    ScopeId, "scope id";
}

impl ModuleId<'_> {
    /// The name of the backup file of this module: ASCII letters and digits of the id, `-`, SHA-256 of the id in
    /// lower-case hex (identity-service 12.3).
    pub fn file_name(self) -> Result<FileName, NameTooLong> {
        file_name(self.0, "")
    }
}

/// Why a text is not usable as an id in a URL path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct IdError {
    /// What the text was meant to be, for example `module name`.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: IdReason,
}

/// The reason in an [`IdError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum IdReason {
    /// Empty or only white space.
    Blank,
    /// `.` or `..`, which URL normalisation removes.
    DotSegment,
    /// Contains U+0000 at this byte offset.
    Nul(usize),
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match self.reason {
            IdReason::Blank => write!(f, "{what} cannot be empty"),
            IdReason::DotSegment => write!(f, "{what} cannot be \".\" or \"..\""),
            IdReason::Nul(position) => {
                write!(
                    f,
                    "{what} cannot contain a nul byte (found at position {position})"
                )
            }
        }
    }
}

impl core::error::Error for IdError {}

fn check_segment(text: &str, what: &'static str) -> Result<(), IdError> {
    let reason = if text.trim().is_empty() {
        IdReason::Blank
    } else if text == "." || text == ".." {
        IdReason::DotSegment
    } else if let Some(position) = text.bytes().position(|byte| byte == 0) {
        IdReason::Nul(position)
    } else {
        return Ok(());
    };
    Err(IdError { what, reason })
}

/// The host name of an IoT Hub or of a parent gateway, optionally with `:port`, as it appears in configuration, tokens and
/// answers. Letters keep their case.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HubName<'a>(&'a str);

impl<'a> HubName<'a> {
    /// Accepts `host` or `host:port`; see [`crate::uri::Authority::parse`] for what a host may be.
    pub fn new(text: &'a str) -> Result<Self, crate::uri::UrlError> {
        crate::uri::Authority::parse(text, 443).map(|_| Self(text))
    }

    /// The name as written.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for HubName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The name of the directory below `modules/` that holds the module backups of one device:
/// SHA-256 of the hub's name, `-`, SHA-256 of the device id, both of the texts as written and in lower-case hex.
pub fn module_directory(hub: HubName<'_>, device: DeviceId<'_>) -> heapless::String<129> {
    let mut name = heapless::String::new();
    // 64 + 1 + 64 characters always fit.
    let _ = push_sha256(&mut name, hub.as_str().as_bytes());
    let _ = name.push('-');
    let _ = push_sha256(&mut name, device.as_str().as_bytes());
    name
}

/// The ASCII letters and digits of `id` in order, `-`, SHA-256 of its UTF-8 bytes in lower-case hex, and `suffix`.
///
/// Two ids never share a name, and no id can leave the directory.
///
/// # Errors
/// The name would exceed [`MAX_FILE_NAME`] bytes.
pub fn file_name(id: &str, suffix: &str) -> Result<FileName, NameTooLong> {
    let kept = id.bytes().filter(u8::is_ascii_alphanumeric).count();
    let length = kept.saturating_add(1 + 64).saturating_add(suffix.len());
    let too_long = NameTooLong { length };
    if length > MAX_FILE_NAME {
        return Err(too_long);
    }
    let mut name = FileName::new();
    for letter in id.chars().filter(char::is_ascii_alphanumeric) {
        name.push(letter).map_err(|_| too_long)?;
    }
    name.push('-').map_err(|_| too_long)?;
    push_sha256(&mut name, id.as_bytes()).map_err(|_| too_long)?;
    name.push_str(suffix).map_err(|_| too_long)?;
    Ok(name)
}

/// An id is too long to be stored under a file name of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NameTooLong {
    /// Bytes the file name would have.
    pub length: usize,
}

impl fmt::Display for NameTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the id needs a file name of {} bytes, more than the {MAX_FILE_NAME} a file system takes; choose a shorter id",
            self.length
        )
    }
}

impl core::error::Error for NameTooLong {}

/// Appends the SHA-256 of `data` as 64 lower-case hex digits.
pub(crate) fn push_sha256<const N: usize>(
    out: &mut heapless::String<N>,
    data: &[u8],
) -> Result<(), heapless::CapacityError> {
    push_hex(out, &Sha256::digest(data))
}

/// Appends `bytes` in lower-case hex.
pub(crate) fn push_hex<const N: usize>(
    out: &mut heapless::String<N>,
    bytes: &[u8],
) -> Result<(), heapless::CapacityError> {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            out.push(char::from_digit(nibble.into(), 16).unwrap_or_default())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kf_01_key_file_names() {
        for (id, name) in [
            (
                "device-id",
                "deviceid-bd732105ef89cf8edd2606a5309c8a26b7b5599a4e124a0fe6199b6b2f60e655.key",
            ),
            (
                HANDLE_VALIDATION_KEY,
                "handlevalidationkey-40f1ca41fe8b50f53e10f3e3a580dcae24087f37aa498ba9903f2612b03e90ba.key",
            ),
            (
                "ca",
                "ca-6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126.key",
            ),
            (
                MASTER_KEY,
                "aziotidentitydmasterid-91b92c2c06a5a5dda5fbc9c48b4d428d930b9c1b8b2956a1044ccbc7a266afc9.key",
            ),
            (
                "../../etc/passwd",
                "etcpasswd-3754d6cb3a38e1185e5b382d5f3ef3f118af75bf4bf0254d1fdb8437f51423e0.key",
            ),
            (
                "Ünï/cödé key",
                "ncdkey-47b3cd261ad836c42e298da33dff507543e7d45b5203bcd3ae4724635b0b41e2.key",
            ),
            (
                "",
                "-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.key",
            ),
            (
                "imp",
                "imp-9bd65b64aa13ed0aee217b1954e908f7279782863f8576c6751a89275148ff3f.key",
            ),
        ] {
            assert_eq!(KeyId::new(id).unwrap().file_name().unwrap(), name, "{id}");
        }
    }

    #[test]
    fn kf_01_longest_key_file_name() {
        let longest = "x".repeat(186);
        assert_eq!(
            KeyId::new(&longest).unwrap().file_name().unwrap().len(),
            255
        );
        let too_long = "x".repeat(187);
        assert_eq!(
            KeyId::new(&too_long).unwrap().file_name(),
            Err(NameTooLong { length: 256 })
        );
        let many_dropped = format!("{longest}{}", "-".repeat(1000));
        assert_eq!(
            KeyId::new(&many_dropped)
                .unwrap()
                .file_name()
                .unwrap()
                .len(),
            255
        );
    }

    #[test]
    fn is_55_module_backup_names() {
        for (id, name) in [
            (
                "testmodule",
                "testmodule-cf130604f3763c25811ba1323fef4e2b7111dc81b0e4aff294a51b17f24d6e24",
            ),
            (
                "$edgeAgent",
                "edgeAgent-5ba97f29eeaf1ede50f792fcb138819f78bcd25e146340ba8ffdfcb9bb2d73e7",
            ),
            (
                "my-mod_1",
                "mymod1-6bbe7164864e2833011a3ce31afeb89954cce32d4a4cff1386681779ff17e66c",
            ),
            (
                "é",
                "-4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c",
            ),
            (
                "a/../b",
                "ab-900ea8b7e0d8fe30857c1bb629272e28cfd7f7af61a81f7b6964b271b69dab69",
            ),
        ] {
            assert_eq!(
                ModuleId::new(id).unwrap().file_name().unwrap(),
                name,
                "{id}"
            );
        }
    }

    #[test]
    fn is_55_module_directory_name() {
        let name = module_directory(
            HubName::new("example.azure-devices.net").unwrap(),
            DeviceId::new("my-device").unwrap(),
        );
        assert_eq!(
            name,
            "fdf196a2efcfa0b66c902b9752b36dcba4d7faa37057565a30dc5e7353c9f1a2-\
             d0db066789a1abacafee5d79e45dfdf4e21a35802403df05fbfdb3c65de64a3a"
        );
    }

    #[test]
    fn key_ids_refuse_nul_only() {
        assert_eq!(KeyId::new("a\0b"), Err(NulByte { position: 1 }));
        assert_eq!(
            NulByte { position: 1 }.to_string(),
            "nul byte found in provided data at position: 1"
        );
        for fine in ["", "/", "a:b", "\u{1}", "é", " "] {
            assert_eq!(KeyId::new(fine).unwrap().as_str(), fine);
        }
    }

    #[test]
    fn is_53_dot_segments_are_refused() {
        for id in [".", ".."] {
            assert_eq!(
                ModuleId::new(id),
                Err(IdError {
                    what: "module name",
                    reason: IdReason::DotSegment
                })
            );
        }
        assert!(ModuleId::new("...").is_ok());
        assert!(ModuleId::new("a/../b").is_ok());
    }

    #[test]
    fn is_28_blank_module_name() {
        for id in ["", " ", "\t\n"] {
            assert_eq!(
                ModuleId::new(id).unwrap_err().to_string(),
                "module name cannot be empty"
            );
        }
        assert!(DeviceId::new("a\0").is_err());
    }

    #[test]
    fn hub_names() {
        for fine in [
            "example.azure-devices.net",
            "localhost:8443",
            "Example.Azure-Devices.NET",
            "[::1]:8443",
        ] {
            assert_eq!(HubName::new(fine).unwrap().as_str(), fine);
        }
        for bad in ["", "a b", "host:99999", "a/b", "user@host"] {
            assert!(HubName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn file_names_stay_in_the_directory(id in "\\PC{0,300}") {
            match file_name(&id, ".key") {
                Ok(name) => {
                    prop_assert!(name.len() <= MAX_FILE_NAME);
                    prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
                    prop_assert!(!name.starts_with('.'));
                }
                Err(NameTooLong { length }) => prop_assert!(length > MAX_FILE_NAME),
            }
        }
    }
}
