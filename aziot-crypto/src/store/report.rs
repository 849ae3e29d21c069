//! What there is to tell about keys and tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use aziot_core::id;

use super::files::{self, Content, FilePlace};
use super::settings::{Places, Settings, TokenPlace};
use super::{Kept, Key, KeyPair, Location, MAX_KEY_LEN, Store};
use crate::file::{self, Contents};
use crate::pkcs11::{self, Token, TokenState};

/// Keys that the device's software has by convention, beside those that are configured or were used: they are told of
/// by id even before this process has used them. `aziot-edged-ca` and `iotedge_master_encryption_id` are IoT Edge's.
const WELL_KNOWN: [&str; 8] = [
    id::HANDLE_VALIDATION_KEY,
    id::MASTER_KEY,
    id::DEVICE_KEY,
    "est-id",
    "est-bootstrap-id",
    "local-ca",
    "aziot-edged-ca",
    "iotedge_master_encryption_id",
];

/// A part of a report.
#[derive(Debug)]
pub enum Item<'a> {
    /// A key. An id can stand for several: in a token one of either kind, beside a file.
    Key(&'a KeyReport),
    /// A token that is configured.
    Token(&'a TokenReport),
}

/// A key in a report. Nothing in it is a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyReport {
    /// Its id; `None` for a file whose name is all that is known.
    pub id: Option<String>,
    /// What it is; `None` if that could not be found out.
    pub kind: Option<Kind>,
    /// Where it is; `None` if it is nowhere, or where it is could not be found out.
    pub location: Option<Location>,
    /// The path or the `pkcs11:` URI, without its PIN, of where it is or would be.
    pub place: Option<String>,
    /// Whether the configuration gives it a location of its own.
    pub preloaded: bool,
    /// Why it cannot be used, or what else its operator should know.
    pub remark: Option<String>,
}

/// A kind of key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A key pair.
    Pair,
    /// A symmetric key.
    Symmetric,
}

/// A token in a report.
#[derive(Clone, Debug)]
pub struct TokenReport {
    /// The `pkcs11:` URI, without its PIN.
    pub uri: String,
    /// How it does.
    pub state: TokenState,
}

impl Store {
    /// Tells about every key that is configured, was used by this process (the last 256) or is known by convention,
    /// about all other files in `keys/`, and about every token. Reads files and asks tokens, so it can take its time.
    ///
    /// What cannot be looked at is told with a remark; a token that fails is asked once. Waits for no change that is
    /// under way, so a key that is being moved may be told of at either place or at none.
    pub fn report(&self, visit: &mut dyn FnMut(Item<'_>)) {
        let settings = self.settings();
        let remarks: BTreeMap<String, Option<String>> = self.used.all().into_iter().collect();
        let ids: BTreeSet<&str> = settings
            .preloaded_ids()
            .chain(remarks.keys().map(String::as_str))
            .chain(WELL_KNOWN)
            .collect();
        let mut survey = Survey {
            settings: &settings,
            files: BTreeSet::new(),
            failed: Vec::new(),
        };
        for id in ids {
            for key in survey.keys(id, remarks.get(id)) {
                visit(Item::Key(&key));
            }
        }
        if let Some(directory) = &settings.keys_directory {
            survey.other_files(directory, &mut |key| visit(Item::Key(&key)));
        }
        for token in settings.tokens() {
            let token = TokenReport {
                uri: token.uri_without_pin(),
                state: token.state(),
            };
            visit(Item::Token(&token));
        }
    }
}

/// The work of one report.
struct Survey<'a> {
    settings: &'a Settings,
    /// Names in `keys/` that have been told of.
    files: BTreeSet<String>,
    /// Tokens that failed, and why.
    failed: Vec<(Token, String)>,
}

impl Survey<'_> {
    /// What an id stands for. `used` is there if this process has used it, with what was remarked then.
    fn keys(&mut self, id: &str, used: Option<&Option<String>>) -> Vec<KeyReport> {
        let remark = used.and_then(Option::as_ref);
        let preloaded = self.settings.is_preloaded(id);
        let key = |kind, location, place: String, remark| KeyReport {
            id: Some(id.to_owned()),
            kind,
            location,
            place: (!place.is_empty()).then_some(place),
            preloaded,
            remark,
        };
        let places = match self.settings.places(id) {
            Ok(places) => places,
            Err(err) if preloaded => {
                return vec![key(None, None, String::new(), Some(err.to_string()))];
            }
            Err(_) => return Vec::new(),
        };
        let mut found = Vec::new();
        let mut complaints = Vec::new();
        if let Some(place) = &places.token {
            match self.in_token(place) {
                Ok(kinds) => {
                    found.extend(kinds.into_iter().map(|kind| {
                        key(Some(kind), Some(Location::Pkcs11), place.to_string(), None)
                    }));
                }
                Err(err) => complaints.push(err),
            }
        }
        let contents = places.file.as_ref().map(FilePlace::read).transpose();
        match contents.map(Option::flatten) {
            Ok(Some(contents)) => {
                if let Some(place) = &places.file {
                    self.told_of(place);
                    let (kind, mut said) = examine(&place.path, &contents);
                    said.extend(
                        remark
                            .cloned()
                            .or_else(|| beside_token(&places, &found, kind)),
                    );
                    found.push(key(
                        kind,
                        Some(Location::File),
                        place.path.display().to_string(),
                        sentence(&said),
                    ));
                }
            }
            Ok(None) => {}
            Err(err) => {
                if let Some(place) = &places.file {
                    self.told_of(place);
                }
                complaints.push(err.to_string());
            }
        }
        if found.is_empty() {
            // Of a key that is only known by convention, it is no news that it could not be looked for.
            if preloaded || (used.is_some() && !complaints.is_empty()) {
                found.push(key(None, None, places.to_string(), sentence(&complaints)));
            }
        } else if let Some(first) = found.first_mut()
            && !complaints.is_empty()
        {
            complaints.extend(first.remark.take());
            first.remark = sentence(&complaints);
        }
        found
    }

    /// The kinds of keys that a token has at a place. A token that failed is not asked again.
    fn in_token(&mut self, place: &TokenPlace) -> Result<Vec<Kind>, String> {
        let mut failed = self.failed.iter();
        if let Some((_, failure)) = failed.find(|(token, _)| token.is(&place.token)) {
            return Err(failure.clone());
        }
        let ask = || {
            let symmetric = Key::find_in_token(place)?.map(|_| Kind::Symmetric);
            let pair = KeyPair::find_in_token(place)?.map(|_| Kind::Pair);
            Ok(symmetric.into_iter().chain(pair).collect())
        };
        ask().map_err(|err: pkcs11::Error| {
            let failure = err.to_string();
            // One that has no fault but that this key is not to be had can be asked for others.
            if !err.is_invalid_parameter() {
                self.failed.push((place.token.clone(), failure.clone()));
            }
            failure
        })
    }

    fn told_of(&mut self, place: &FilePlace) {
        if self.settings.keys_directory.as_deref() == place.path.parent()
            && let Some(name) = place.path.file_name()
        {
            self.files.insert(name.to_string_lossy().into_owned());
        }
    }

    /// Tells of files in `keys/` that no id is known for: their names do not give it away.
    fn other_files(&self, directory: &Path, visit: &mut dyn FnMut(KeyReport)) {
        let names = match fs::read_dir(directory) {
            Ok(entries) => entries
                .filter_map(Result::ok)
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.ends_with(".key") && !self.files.contains(name))
                .collect::<BTreeSet<String>>(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return,
            Err(err) => {
                log::warn!("could not list {}: {err}", directory.display());
                return;
            }
        };
        for name in names {
            let path = directory.join(&name);
            let (kind, remark) = match file::read(&path, MAX_KEY_LEN) {
                Ok(Some(contents)) => examine(&path, &contents),
                // Gone meanwhile.
                Ok(None) => continue,
                Err(err) => (None, vec![err.to_string()]),
            };
            visit(KeyReport {
                id: None,
                kind,
                location: Some(Location::File),
                place: Some(path.display().to_string()),
                preloaded: false,
                remark: sentence(&remark),
            });
        }
    }
}

/// What a file holds, and what is wrong with it.
fn examine(path: &Path, contents: &Contents) -> (Option<Kind>, Vec<String>) {
    let complaint = files::complaint(path, contents);
    let (kind, trouble) = match Content::of(&contents.bytes) {
        Content::Symmetric => (Some(Kind::Symmetric), None),
        Content::Pair => (
            Some(Kind::Pair),
            files::parse_pair(path, &contents.bytes).err(),
        ),
        Content::Empty => (None, files::parse_key(path, &contents.bytes).err()),
    };
    let trouble = trouble.map(|err| err.to_string());
    (kind, trouble.into_iter().chain(complaint).collect())
}

/// What to say of a file that is there although keys with such ids are kept in a token.
fn beside_token(places: &Places, found: &[KeyReport], kind: Option<Kind>) -> Option<String> {
    let token = places.token.as_ref()?;
    Some(if found.iter().any(|key| key.kind == kind) {
        format!("not used: {token} holds a key of this kind too, which has precedence")
    } else {
        format!(
            "in a file although keys are kept in {token} now; it is used as long as the token has none"
        )
    })
}

fn sentence(parts: &[String]) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join("; "))
}
