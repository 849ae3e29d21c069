//! Settings of the Keys Service.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use zeroize::Zeroizing;

use super::{Endpoint, Invalid, Loaded, Merged, Places, Reader, Secret, Section, Writer};

/// Default of `max_requests` in every service: simultaneous connections per user id.
pub const MAX_REQUESTS: u64 = 10;

/// Settings of the Keys Service (`keys-service` 9.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Most simultaneous connections of one user id.
    pub max_requests: u64,
    /// Parameters for the key library, by name.
    pub aziot_keys: BTreeMap<String, Secret>,
    /// Locations (`file:` or `pkcs11:` URIs, as written) of keys, by key id.
    pub preloaded_keys: BTreeMap<String, Secret>,
    /// Where the service listens.
    pub endpoint: Endpoint,
    /// Who may use which keys, in document order. Several entries of one user id add up.
    pub principals: Vec<Principal>,
}

/// A user id and the keys it may use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    /// User id of the caller.
    pub uid: u32,
    /// Patterns of key ids: `*` any run of characters, `?` one character.
    pub keys: Vec<String>,
}

impl Settings {
    /// Decodes a merged configuration.
    ///
    /// # Errors
    ///
    /// All problems found, each with its place.
    pub fn read(merged: &Merged, places: &Places) -> Result<Loaded<Self>, Invalid> {
        let reader = Reader::new(merged);
        let settings = Self::decode(&reader.root(), places);
        reader.finish(settings)
    }

    fn decode(root: &Section<'_>, places: &Places) -> Option<Self> {
        let max_requests = max_requests(root);
        let aziot_keys = root.map_of("aziot_keys");
        let preloaded_keys = root.map_of("preloaded_keys");
        let endpoints = root.table("endpoints");
        let endpoint = Endpoint::read(
            endpoints.as_ref(),
            "aziot_keyd",
            Endpoint::default_of(&places.sockets, "keyd"),
        );
        if let Some(endpoints) = endpoints {
            know_all_endpoints(&endpoints);
            endpoints.finish();
        }
        let principals = root
            .tables("principal")
            .into_iter()
            .map(Principal::read)
            .collect::<Option<_>>();
        root.finish_ref();
        Some(Self {
            max_requests,
            aziot_keys,
            preloaded_keys,
            endpoint,
            principals: principals?,
        })
    }

    /// The settings as a document in the canonical layout. `endpoints` is never written.
    pub fn to_toml(&self) -> Zeroizing<String> {
        let mut writer = Writer::new();
        if self.max_requests != MAX_REQUESTS {
            writer.plain("max_requests", self.max_requests);
        }
        writer.table(&["aziot_keys"]);
        for (name, value) in &self.aziot_keys {
            writer.string(name, value);
        }
        writer.table(&["preloaded_keys"]);
        for (id, location) in &self.preloaded_keys {
            writer.string(id, location);
        }
        for principal in &self.principals {
            writer.array_table(&["principal"]);
            writer.plain("uid", principal.uid);
            writer.strings("keys", principal.keys.iter().map(String::as_str));
        }
        writer.finish()
    }

    /// Names of the settings that differ in `new` and take effect only after a restart.
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        let changed = [
            ("max_requests", self.max_requests != new.max_requests),
            ("aziot_keys", self.aziot_keys != new.aziot_keys),
            ("preloaded_keys", self.preloaded_keys != new.preloaded_keys),
            ("endpoints", self.endpoint != new.endpoint),
        ];
        changed
            .into_iter()
            .filter_map(|(name, changed)| changed.then_some(name))
            .collect()
    }
}

impl Principal {
    fn read(section: Section<'_>) -> Option<Self> {
        let uid = section.required("uid", "add `uid = …`, the numeric user id of the program");
        let keys = section.required(
            "keys",
            "add `keys = [\"…\"]`, the ids of the keys it may use",
        );
        section.finish();
        Some(Self {
            uid: uid?,
            keys: keys?,
        })
    }
}

/// `max_requests`, common to all services.
pub(super) fn max_requests(root: &Section<'_>) -> u64 {
    let max = root.optional("max_requests").unwrap_or(MAX_REQUESTS);
    if max == 0 {
        root.reader().warning(
            root.key_at("max_requests"),
            "`max_requests` is 0, so every connection is refused",
            "write the number of simultaneous connections one user may have",
        );
    }
    max
}

/// One `[endpoints]` table may serve all services; the members of the others are no mistakes.
pub(super) fn know_all_endpoints(endpoints: &Section<'_>) {
    for key in ["aziot_certd", "aziot_identityd", "aziot_keyd", "aziot_tpmd"] {
        endpoints.know(key);
    }
}
