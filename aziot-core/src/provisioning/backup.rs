//! For which provisioning a backup was made.
//!
//! Beside `device_info` lies a sidecar, [`FILE_NAME`], of one line:
//!
//! ```text
//! 1 <hash of the provisioning> <hash of device_info> LF
//! ```
//!
//! `1` is the version of this format; both hashes are SHA-256 in lower-case hex. The first is over the members of
//! [`Provisioning`] in their order, each as its length in bytes in decimal, `:`, the text and `,`. The second is over the
//! content of `device_info`. Write `device_info` first: after a crash between the two the sidecar does not fit, which is
//! the same as having none.
//!
//! Other implementations of this service neither write nor read the sidecar; what they leave is judged by the settings in
//! `prev_state`.

use sha2::{Digest, Sha256};

use crate::id::{push_hex, push_sha256};

/// The name of the sidecar, in the same directory as `device_info`.
pub const FILE_NAME: &str = "device_info.sum";

/// Bytes in a sidecar.
pub const SIZE: usize = 2 + 64 + 1 + 64 + 1;

/// The settings that decide which identity a device gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Provisioning<'a> {
    /// `dps` or `manual`.
    pub source: &'a str,
    /// The normalised endpoint of the provisioning service; with `manual` the hub.
    pub endpoint: &'a str,
    /// The id scope; empty with `manual`.
    pub scope: &'a str,
    /// The attestation or authentication method as the configuration names it: `symmetric_key`, `x509`, `tpm`, `sas`.
    pub method: &'a str,
    /// The registration id, empty if it comes from a certificate; with `manual` the device id.
    pub registration: &'a str,
    /// The parent gateway, empty if there is none.
    pub gateway: &'a str,
}

impl Provisioning<'_> {
    /// The content of the sidecar for a `device_info` with this content.
    pub fn sum(&self, device_info: &[u8]) -> heapless::String<SIZE> {
        let mut sum = heapless::String::new();
        // The capacity is exactly what is pushed.
        let _ = sum.push_str("1 ");
        let _ = push_hex(&mut sum, &self.hash());
        let _ = sum.push(' ');
        let _ = push_sha256(&mut sum, device_info);
        let _ = sum.push('\n');
        sum
    }

    fn hash(&self) -> [u8; 32] {
        let Self {
            source,
            endpoint,
            scope,
            method,
            registration,
            gateway,
        } = self;
        let mut hash = Sha256::new();
        for text in [source, endpoint, scope, method, registration, gateway] {
            let mut length = heapless::String::<21>::new();
            let _ = core::fmt::Write::write_fmt(&mut length, format_args!("{}:", text.len()));
            hash.update(length.as_bytes());
            hash.update(text.as_bytes());
            hash.update(b",");
        }
        hash.finalize().into()
    }
}

/// Whether there is a backup to be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backup {
    /// There is none.
    None,
    /// There is one, but it was made under other settings.
    OtherProvisioning,
    /// There is one, and nothing speaks against it.
    Usable,
}

/// Judges a backup.
///
/// `device_info` is the file's content if it holds a device; `sum` the sidecar's; `previous` the settings in `prev_state`
/// if that can be read. A sidecar that is missing, of another format, or not about this `device_info` says nothing; then
/// `previous` decides, and without it the backup counts as usable, as it did for the software that wrote it.
pub fn judge(
    current: &Provisioning<'_>,
    device_info: Option<&[u8]>,
    sum: Option<&[u8]>,
    previous: Option<&Provisioning<'_>>,
) -> Backup {
    let Some(device_info) = device_info else {
        return Backup::None;
    };
    let expected = current.sum(device_info);
    // Everything before the last hash is about the settings, everything after about the file.
    let (settings, file) = expected
        .as_bytes()
        .split_at_checked(2 + 64)
        .unwrap_or_default();
    let same = match sum.and_then(|sum| sum.split_at_checked(2 + 64)) {
        Some((sum_settings, sum_file)) if sum_file == file && sum_settings.starts_with(b"1 ") => {
            sum_settings == settings
        }
        _ => previous.is_none_or(|previous| previous == current),
    };
    if same {
        Backup::Usable
    } else {
        Backup::OtherProvisioning
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DPS: Provisioning<'_> = Provisioning {
        source: "dps",
        endpoint: "https://global.azure-devices-provisioning.net/",
        scope: "0ne000ABCDE",
        method: "symmetric_key",
        registration: "my-dev",
        gateway: "",
    };

    #[test]
    fn sidecar_text() {
        let sum = DPS.sum(b"device");
        assert_eq!(sum.len(), SIZE);
        // printf '%s' '3:dps,46:https://…/,11:0ne000ABCDE,13:symmetric_key,6:my-dev,0:,' | sha256sum
        assert_eq!(
            sum,
            "1 27d9789c209e6f1aee90a410c8ea1bd78d737d5e49341d0fd10c1040d4a7c8df \
             263a4dbe41488fb87214b0032339dbb9f0c8da14c16dfcf13084bf3c2552eca5\n"
        );
    }

    #[test]
    fn every_member_counts() {
        let others = [
            Provisioning {
                source: "manual",
                ..DPS
            },
            Provisioning {
                endpoint: "https://other/",
                ..DPS
            },
            Provisioning {
                scope: "0ne000ABCDF",
                ..DPS
            },
            Provisioning {
                method: "x509",
                ..DPS
            },
            Provisioning {
                registration: "my-Dev",
                ..DPS
            },
            Provisioning {
                gateway: "parent",
                ..DPS
            },
        ];
        let info = Some(&b"device"[..]);
        let sum = DPS.sum(b"device");
        assert_eq!(
            judge(&DPS, info, Some(sum.as_bytes()), None),
            Backup::Usable
        );
        for other in others {
            // A sidecar that fits wins over the previous settings, either way.
            assert_eq!(
                judge(&other, info, Some(sum.as_bytes()), Some(&other)),
                Backup::OtherProvisioning
            );
            assert_eq!(
                judge(&DPS, info, Some(sum.as_bytes()), Some(&other)),
                Backup::Usable
            );
            // Without one they decide.
            assert_eq!(
                judge(&DPS, info, None, Some(&other)),
                Backup::OtherProvisioning
            );
        }
    }

    #[test]
    fn sidecars_that_say_nothing() {
        let info = Some(&b"device"[..]);
        let other = Provisioning { scope: "x", ..DPS };
        let fits = DPS.sum(b"device");
        let of_another_file = other.sum(b"before");
        let newer = fits.replacen("1 ", "2 ", 1);
        for sum in [
            None,
            Some(""),
            Some("1 "),
            Some(&fits[..100]),
            Some(&of_another_file),
            Some(&newer),
        ] {
            let sum = sum.map(str::as_bytes);
            assert_eq!(judge(&DPS, info, sum, None), Backup::Usable);
            assert_eq!(judge(&DPS, info, sum, Some(&DPS)), Backup::Usable);
            assert_eq!(
                judge(&DPS, info, sum, Some(&other)),
                Backup::OtherProvisioning
            );
            assert_eq!(judge(&DPS, None, sum, Some(&DPS)), Backup::None);
        }
    }

    proptest! {
        #[test]
        fn text_cannot_move_between_members(a in "[0-9:,a]{0,6}", b in "[0-9:,a]{0,6}", c in "[0-9:,a]{0,6}", d in "[0-9:,a]{0,6}") {
            prop_assume!((&a, &b) != (&c, &d));
            let with = |scope, registration| Provisioning { scope, registration, ..DPS }.sum(b"");
            prop_assert_ne!(with(&a, &b), with(&c, &d));
        }
    }
}
