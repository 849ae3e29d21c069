//! Settings of the TPM Service.

use alloc::format;
use alloc::string::String;
use core::fmt;
use zeroize::Zeroizing;

use super::keyd::{MAX_REQUESTS, know_all_endpoints, max_requests};
use super::section::ByteString;
use super::tree::Kind;
use super::{
    Endpoint, FromValue, Invalid, Loaded, Merged, Mismatch, Places, Reader, Section, Value, Writer,
};

/// Keys whose values old files hold as arrays of bytes: in a merge the last one counts, as for any string.
/// For [`Merged::with_scalars`].
pub const SCALARS: &[&str] = &[
    "tcti",
    "hierarchy_authorization.endorsement",
    "hierarchy_authorization.owner",
];

/// Default of `auth_key_index`.
pub const AUTH_KEY_INDEX: u32 = 0x00_01_00;

/// Largest `auth_key_index`: persistent handles of the owner end at 0x81_7F_FF_FF.
pub const MAX_AUTH_KEY_INDEX: u32 = 0x7f_ff_ff;

/// Most bytes of a hierarchy authorisation that the TSS accepts.
pub const MAX_AUTH_BYTES: usize = 63;

/// Settings of the TPM Service (`tpm-service` 2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Most simultaneous connections of one user id.
    pub max_requests: u64,
    /// The part that the super-config has too.
    pub tpm: Tpm,
    /// Where the service listens. Never written.
    pub endpoint: Endpoint,
}

/// The TPM and how to use it.
#[derive(Clone, Eq, PartialEq)]
pub struct Tpm {
    /// TCTI loader string; may be empty. No NUL bytes.
    pub tcti: Zeroizing<alloc::vec::Vec<u8>>,
    /// Where the authentication key is kept: persistent handle 0x8100_0000 + this.
    pub auth_key_index: u32,
    /// Authorisation of the endorsement hierarchy. No NUL bytes.
    pub endorsement_auth: Zeroizing<alloc::vec::Vec<u8>>,
    /// Authorisation of the owner hierarchy. No NUL bytes.
    pub owner_auth: Zeroizing<alloc::vec::Vec<u8>>,
}

impl Default for Tpm {
    fn default() -> Self {
        Self {
            tcti: Zeroizing::new(b"device".to_vec()),
            auth_key_index: AUTH_KEY_INDEX,
            endorsement_auth: Zeroizing::default(),
            owner_auth: Zeroizing::default(),
        }
    }
}

impl fmt::Debug for Tpm {
    /// Without the authorisations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm")
            .field("tcti", &String::from_utf8_lossy(&self.tcti))
            .field("auth_key_index", &self.auth_key_index)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Decodes a merged configuration; merge with [`SCALARS`].
    ///
    /// # Errors
    ///
    /// All problems found, each with its place.
    pub fn read(merged: &Merged, places: &Places) -> Result<Loaded<Self>, Invalid> {
        let reader = Reader::new(merged);
        let root = reader.root();
        let max_requests = max_requests(&root);
        let tpm = Tpm::read(&root);
        let endpoints = root.table("endpoints");
        let default = Endpoint::default_of(&places.sockets, "tpmd");
        let endpoint = Endpoint::read(endpoints.as_ref(), "aziot_tpmd", default);
        if let Some(endpoints) = endpoints {
            know_all_endpoints(&endpoints);
            endpoints.finish();
        }
        root.finish();
        reader.finish(Some(Self {
            max_requests,
            tpm,
            endpoint,
        }))
    }

    /// The settings as a document in the canonical layout: only what differs from the defaults.
    pub fn to_toml(&self) -> Zeroizing<String> {
        let mut writer = Writer::new();
        let default = Tpm::default();
        if self.max_requests != MAX_REQUESTS {
            writer.plain("max_requests", self.max_requests);
        }
        if self.tpm.tcti != default.tcti {
            writer.bytes("tcti", &self.tpm.tcti);
        }
        if self.tpm.auth_key_index != default.auth_key_index {
            writer.plain("auth_key_index", self.tpm.auth_key_index);
        }
        let (endorsement, owner) = (&self.tpm.endorsement_auth, &self.tpm.owner_auth);
        if !endorsement.is_empty() || !owner.is_empty() {
            writer.table(&["hierarchy_authorization"]);
            for (key, value) in [("endorsement", endorsement), ("owner", owner)] {
                if !value.is_empty() {
                    writer.bytes(key, value);
                }
            }
        }
        writer.finish()
    }
}

impl Tpm {
    /// Reads the keys of a table that has them directly.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let tcti = section
            .optional("tcti")
            .map_or(default.tcti, |ByteString(bytes)| bytes);
        let auth_key_index = section
            .optional("auth_key_index")
            .map_or(default.auth_key_index, |AuthKeyIndex(n)| n);
        let (mut endorsement_auth, mut owner_auth) = (Zeroizing::default(), Zeroizing::default());
        if let Some(auth) = section.table("hierarchy_authorization") {
            endorsement_auth = authorization(&auth, "endorsement");
            owner_auth = authorization(&auth, "owner");
            auth.finish();
        }
        Self {
            tcti,
            auth_key_index,
            endorsement_auth,
            owner_auth,
        }
    }
}

fn authorization(section: &Section<'_>, key: &'static str) -> Zeroizing<alloc::vec::Vec<u8>> {
    let Some(ByteString(bytes)) = section.optional(key) else {
        return Zeroizing::default();
    };
    if bytes.len() > MAX_AUTH_BYTES {
        let message = format!(
            "`{}` has {} bytes, more than the {MAX_AUTH_BYTES} a TPM accepts",
            section.path_of(key),
            bytes.len()
        );
        section.refuse(
            key,
            &message,
            "write the authorisation that the hierarchy has",
        );
    }
    bytes
}

struct AuthKeyIndex(u32);

impl<'a> FromValue<'a> for AuthKeyIndex {
    /// An integer, or a string that holds one, as old templates showed it.
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        const REMEDY: &str = "write a number such as 0x00_01_00, without quotes";
        let number = match &value.kind {
            Kind::Integer(n) => *n,
            Kind::Text(text) => integer_literal(text)
                .ok_or_else(|| Mismatch::new("invalid type: string, expected u32", REMEDY))?,
            _ => {
                let message = format!("invalid type: {}, expected u32", value.describe());
                return Err(Mismatch::new(message, REMEDY));
            }
        };
        let range = "integer in range 0x00_00_00..=0x7F_FF_FF";
        let index = match u32::try_from(number) {
            Ok(index) if index <= MAX_AUTH_KEY_INDEX => index,
            Ok(_) => {
                let message = format!("invalid value: integer `{number}`, expected {range}");
                return Err(Mismatch::new(message, REMEDY));
            }
            Err(_) => {
                let message =
                    format!("invalid value: integer `{number}`, expected u32, an {range}");
                return Err(Mismatch::new(message, REMEDY));
            }
        };
        // The service would take these for an old authentication key and remove them from the TPM.
        let holder = match index {
            0x00_00_01 => "the storage root key",
            0x01_00_01 => "the endorsement key",
            _ => return Ok(Self(index)),
        };
        Err(Mismatch::new(
            format!("{index:#x} is where {holder} is kept"),
            REMEDY,
        ))
    }
}

/// The value of a TOML integer.
fn integer_literal(text: &str) -> Option<i64> {
    // An underscore must stand between two digits.
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    let digits = text.replace('_', "");
    let radix = |prefix, radix| {
        digits
            .strip_prefix(prefix)
            .map(|d| i64::from_str_radix(d, radix))
    };
    radix("0x", 16)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2))
        .unwrap_or_else(|| digits.parse())
        .ok()
}
