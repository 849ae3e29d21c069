//! What is configured, and where that puts a key.

use core::fmt;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aziot_core::id;
use aziot_core::percent::Set;
use aziot_core::uri::{self, LocationError, Pkcs11, Pkcs11Error};
use zeroize::Zeroizing;

use super::error::Error;
use super::files::FilePlace;
use super::turn::Resource;
use crate::pkcs11::{Module, Token};

/// What is configured.
#[derive(Clone, Default)]
pub(super) struct Settings {
    /// `keys/` of the home directory.
    pub(super) keys_directory: Option<PathBuf>,
    library: Option<Library>,
    base_slot: Option<TokenUri>,
    preloaded: BTreeMap<String, Preloaded>,
    /// Counts changes, so that a key that was looked up under older settings is not remembered under these.
    pub(super) generation: u32,
}

#[derive(Clone)]
struct Library {
    path: PathBuf,
    module: Module,
}

/// The location of its own that a key has.
#[derive(Clone)]
enum Preloaded {
    File(PathBuf),
    Token(TokenUri),
}

/// A `pkcs11:` URI that can be read, and the token that it leads to as soon as there is a module.
#[derive(Clone)]
struct TokenUri {
    text: Zeroizing<String>,
    label: Option<String>,
    token: Option<Token>,
}

impl TokenUri {
    fn new<'u>(uri: &'u str, library: Option<&Library>) -> Result<Self, Pkcs11Error<'u>> {
        // Decoded text never takes more bytes than the URI.
        let mut decoded = Zeroizing::new(vec![0; uri.len()]);
        let parsed = Pkcs11::parse(uri, &mut decoded)?;
        for name in Pkcs11::ignored(uri) {
            log::warn!(
                "the attribute {name:?} of a pkcs11: URI is ignored; the known ones are token, slot-id, object, serial, \
                 manufacturer and model before the question mark and pin-value and pin-source after it"
            );
        }
        Ok(Self {
            text: Zeroizing::new(uri.to_owned()),
            label: parsed.object.map(str::to_owned),
            token: library.map(|library| library.module.token(&parsed)),
        })
    }

    /// The same key in the module that is configured now.
    fn connect_to(&mut self, library: &Library) {
        let mut decoded = Zeroizing::new(vec![0; self.text.len()]);
        // It could be read before.
        self.token = Pkcs11::parse(&self.text, &mut decoded)
            .ok()
            .map(|parsed| library.module.token(&parsed));
    }
}

impl Settings {
    /// Takes a module for all tokens. The same path again changes nothing.
    pub(super) fn set_library(&mut self, path: &Path) {
        if self
            .library
            .as_ref()
            .is_some_and(|library| library.path == path)
        {
            return;
        }
        let library = Library {
            path: path.to_owned(),
            module: Module::new(path),
        };
        let preloaded = self.preloaded.values_mut().filter_map(|place| match place {
            Preloaded::Token(uri) => Some(uri),
            Preloaded::File(_) => None,
        });
        for uri in self.base_slot.iter_mut().chain(preloaded) {
            uri.connect_to(&library);
        }
        self.library = Some(library);
    }

    pub(super) fn set_base_slot<'u>(&mut self, uri: &'u str) -> Result<(), Pkcs11Error<'u>> {
        self.base_slot = Some(TokenUri::new(uri, self.library.as_ref())?);
        Ok(())
    }

    pub(super) fn preload<'u>(&mut self, id: &str, uri: &'u str) -> Result<(), LocationError<'u>> {
        // Decoded text takes at most one byte more than the URI.
        let mut decoded = Zeroizing::new(vec![0; uri.len() + 1]);
        let place = match uri::Location::parse(uri, &mut decoded)? {
            uri::Location::File(path) => Preloaded::File(OsStr::from_bytes(path).into()),
            uri::Location::Pkcs11(_) => Preloaded::Token(
                TokenUri::new(uri, self.library.as_ref()).map_err(LocationError::Pkcs11)?,
            ),
        };
        self.preloaded.insert(id.to_owned(), place);
        Ok(())
    }

    /// The token for keys without a location of their own, if all that leads to it is configured.
    pub(super) fn base_token(&self) -> Option<&Token> {
        self.base_slot.as_ref()?.token.as_ref()
    }

    /// Every token that is configured, once each.
    pub(super) fn tokens(&self) -> Vec<&Token> {
        let mut tokens: Vec<&Token> = Vec::new();
        let preloaded = self.preloaded.values().filter_map(|place| match place {
            Preloaded::Token(uri) => uri.token.as_ref(),
            Preloaded::File(_) => None,
        });
        for token in self.base_token().into_iter().chain(preloaded) {
            if !tokens.iter().any(|known| known.is(token)) {
                tokens.push(token);
            }
        }
        tokens
    }

    /// The ids that have a location of their own.
    pub(super) fn preloaded_ids(&self) -> impl Iterator<Item = &str> {
        self.preloaded.keys().map(String::as_str)
    }

    pub(super) fn is_preloaded(&self, id: &str) -> bool {
        self.preloaded.contains_key(id)
    }

    /// The files that have been named as locations.
    pub(super) fn preloaded_files(&self) -> impl Iterator<Item = &Path> {
        self.preloaded.values().filter_map(|place| match place {
            Preloaded::File(path) => Some(path.as_path()),
            Preloaded::Token(_) => None,
        })
    }

    /// Where a key would be looked for first; `None` if nowhere. For a token, whether or not a module is configured.
    pub(super) fn location(&self, id: &str) -> Option<Location> {
        match self.preloaded.get(id) {
            Some(Preloaded::File(_)) => Some(Location::File),
            Some(Preloaded::Token(_)) => Some(Location::Pkcs11),
            None if self.base_token().is_some() => Some(Location::Pkcs11),
            None => self.keys_directory.as_ref().map(|_| Location::File),
        }
    }

    /// The places of a key, in the order in which they are looked at (B4 of the key library's specification).
    pub(super) fn places(&self, id: &str) -> Result<Places, Error> {
        match self.preloaded.get(id) {
            Some(Preloaded::File(path)) => Ok(Places {
                token: None,
                file: Some(FilePlace::preloaded(path)),
            }),
            Some(Preloaded::Token(uri)) => Ok(Places {
                token: Some(TokenPlace {
                    token: uri.token.clone().ok_or(Error::NoModule)?,
                    label: uri.label.clone(),
                }),
                file: None,
            }),
            None => {
                let token = self.base_token().map(|token| TokenPlace {
                    token: token.clone(),
                    label: Some(id.to_owned()),
                });
                let file = match &self.keys_directory {
                    None => None,
                    Some(directory) => match id::file_name(id, ".key") {
                        Ok(name) => Some(FilePlace::in_home(directory, &name)),
                        // No file can have that name, so the key is in the token or nowhere.
                        Err(_) if token.is_some() => None,
                        Err(err) => return Err(Error::NameTooLong(err)),
                    },
                };
                if token.is_none() && file.is_none() {
                    return Err(Error::NoLocation);
                }
                Ok(Places { token, file })
            }
        }
    }
}

impl fmt::Debug for Settings {
    /// Shows no URI: some hold a PIN.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("keys_directory", &self.keys_directory)
            .field(
                "library",
                &self.library.as_ref().map(|library| &library.path),
            )
            .field("preloaded", &self.preloaded.keys())
            .finish_non_exhaustive()
    }
}

/// Where a key lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Location {
    /// In a file.
    File,
    /// In a PKCS#11 token.
    Pkcs11,
}

/// The places of a key: first the token, if any, then the file, if any. There is at least one.
pub(super) struct Places {
    pub(super) token: Option<TokenPlace>,
    pub(super) file: Option<FilePlace>,
}

impl Places {
    /// What calls for this key have to take turns at.
    pub(super) fn resources(&self) -> Vec<Resource> {
        let object = self.token.as_ref().map(|place| Resource::Object {
            token: place.token.uri_without_pin(),
            label: place.label.clone(),
        });
        let file = self
            .file
            .as_ref()
            .map(|place| Resource::File(place.path.clone()));
        object.into_iter().chain(file).collect()
    }

    pub(super) fn not_found(&self) -> Error {
        Error::NotFound {
            places: self.to_string(),
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.token, &self.file) {
            (Some(token), Some(file)) => write!(f, "{token} or {}", file.path.display()),
            (Some(token), None) => token.fmt(f),
            (None, Some(file)) => file.path.display().fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// The objects with a label in a token.
#[derive(Clone)]
pub(super) struct TokenPlace {
    pub(super) token: Token,
    /// `None` for a location without `object`: whatever the token shows first.
    pub(super) label: Option<String>,
}

impl TokenPlace {
    pub(super) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The label, where an operation must know what it changes.
    pub(super) fn fixed_label(&self) -> Result<&str, Error> {
        self.label().ok_or_else(|| Error::NoObject {
            place: self.to_string(),
        })
    }
}

impl fmt::Display for TokenPlace {
    /// Writes the `pkcs11:` URI, without the PIN.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.token.uri_without_pin())?;
        match &self.label {
            Some(label) => write!(f, ";object={}", Set::PUNCTUATION.encode(label)),
            None => Ok(()),
        }
    }
}
