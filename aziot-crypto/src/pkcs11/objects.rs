//! Finding objects in a token, and remembering where they are.
//!
//! An object is found by class and label. A key pair is a public and a private object with the same label; if the public
//! one has a `CKA_ID`, a private one with the same id is preferred.

mod change;
mod create;
mod rename;
mod sweep;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

pub(super) use self::change::Changes;
use super::error::{Cause, Error};
use super::keys::{KeyPair, SecretKey};
use super::module::lock;
use super::pair::{self, Public};
use super::token::{Blame, Login, Token, Work};

/// Objects that are remembered, for one token. Old ones are dropped first when there are more.
const MAX_HANDLES: usize = 256;

impl Token {
    /// The symmetric key with this label, or the first one in the token.
    ///
    /// # Errors
    ///
    /// Those of the token.
    pub fn secret_key(&self, label: Option<&str>) -> Result<Option<SecretKey>, Error> {
        let found = self
            .run(Login::IfPossible, Blame::Module, |work| work.secret(label))
            .map_err(|cause| self.error(cause))?;
        Ok(found.map(|_| SecretKey::new(self.clone(), label)))
    }

    /// The key pair with this label, or the first public and the first private key in the token. `None` if one of its
    /// objects is missing.
    ///
    /// # Errors
    ///
    /// The public object is there, and there is no login that would make the private one visible; the two are not of the
    /// same type, or of one we do not know; those of the token.
    pub fn key_pair(&self, label: Option<&str>) -> Result<Option<KeyPair>, Error> {
        let find = || self.run(Login::IfPossible, Blame::Module, |work| work.pair(label));
        let found = match find() {
            // A change that a crashed process did not finish may hide it.
            Ok(None) if label.is_some() && self.sweep_once() => find(),
            found => found,
        };
        let found = found.map_err(|cause| self.error(cause))?;
        Ok(found.map(|pair| KeyPair::new(self.clone(), label, pair.public_key)))
    }
}

impl Work<'_> {
    /// The symmetric key with this label, from memory or from the token.
    pub(super) fn secret(&self, label: Option<&str>) -> Result<Option<ObjectHandle>, Cause> {
        let handles = self.token.handles();
        if let Some(Entry::Secret(handle)) = handles.find(self, Kind::Secret, label) {
            return Ok(Some(handle));
        }
        let seen = handles.changes();
        let found = self.first(ObjectClass::SECRET_KEY, label)?;
        if let Some(handle) = found {
            handles.remember(self, seen, Kind::Secret, label, Entry::Secret(handle));
        }
        Ok(found)
    }

    /// The key pair with this label, from memory or from the token.
    pub(super) fn pair(&self, label: Option<&str>) -> Result<Option<Pair>, Cause> {
        let handles = self.token.handles();
        if let Some(Entry::Pair(pair)) = handles.find(self, Kind::Pair, label) {
            return Ok(Some(pair));
        }
        let seen = handles.changes();
        let Some((public, private)) = self.halves(label)?.complete() else {
            return Ok(None);
        };
        let (public_type, _) = pair::type_and_id(self, public)?;
        let (private_type, _) = pair::type_and_id(self, private)?;
        let key_type = match (public_type, private_type) {
            (Some(public), Some(private)) if public == private => public,
            _ => return Err(Cause::KeyTypes),
        };
        let pair = Pair {
            private,
            public_key: Arc::new(pair::read(self, public, key_type)?),
        };
        handles.remember(self, seen, Kind::Pair, label, Entry::Pair(pair.clone()));
        Ok(Some(pair))
    }

    /// The objects of the key pair with this label, as far as they are there. A missing private one is an error if it
    /// could be there but not be visible.
    fn halves(&self, label: Option<&str>) -> Result<Halves, Cause> {
        let public = self.first(ObjectClass::PUBLIC_KEY, label)?;
        let private = self.first(ObjectClass::PRIVATE_KEY, label)?;
        let Some(public_object) = public else {
            let private = match private {
                Some(private) if self.is_left_behind(private)? => None,
                private => private,
            };
            return Ok(Halves { public, private });
        };
        let (_, public_id) = pair::type_and_id(self, public_object)?;
        let private = match private {
            Some(first) => {
                let fitting =
                    if public_id.is_empty() || pair::type_and_id(self, first)?.1 == public_id {
                        None
                    } else {
                        self.first_with(ObjectClass::PRIVATE_KEY, label, Some(&public_id))?
                    };
                Some(fitting.unwrap_or(first))
            }
            None if !self.sees_private_objects()? => {
                return Err(Cause::PrivateHidden(label.map(str::to_owned)));
            }
            None => self.private_left_behind(&public_id)?,
        };
        Ok(Halves { public, private })
    }

    /// The private object with this id, if no public object shares its label: a move that was interrupted after the
    /// public half leaves the private one under its old label.
    fn private_left_behind(&self, id: &[u8]) -> Result<Option<ObjectHandle>, Cause> {
        if id.is_empty() {
            return Ok(None);
        }
        let Some(private) = self.first_with(ObjectClass::PRIVATE_KEY, None, Some(id))? else {
            return Ok(None);
        };
        let Some(label) = sweep::label(self, private)? else {
            return Ok(None);
        };
        let taken = match self.first(ObjectClass::PUBLIC_KEY, Some(&label))? {
            // One that was made since has another id.
            Some(public) => {
                let (_, public_id) = pair::type_and_id(self, public)?;
                public_id.is_empty() || public_id == id
            }
            None => false,
        };
        Ok((!taken).then_some(private))
    }

    /// Whether a private object without a public one of its label is what an interrupted move left behind: it belongs to
    /// the key pair that has the new label, and to whatever happens to that.
    fn is_left_behind(&self, private: ObjectHandle) -> Result<bool, Cause> {
        let (_, id) = pair::type_and_id(self, private)?;
        if id.is_empty() {
            return Ok(false);
        }
        let Some(public) = self.first_with(ObjectClass::PUBLIC_KEY, None, Some(&id))? else {
            return Ok(false);
        };
        let Some(label) = sweep::label(self, public)? else {
            return Ok(false);
        };
        let own = self.first_with(ObjectClass::PRIVATE_KEY, Some(&label), Some(&id))?;
        Ok(own.is_none())
    }

    /// All objects of a class with this label. There is more than one after an import that was interrupted.
    fn all(&self, class: ObjectClass, label: &str) -> Result<Vec<ObjectHandle>, Cause> {
        let template = [
            Attribute::Class(class),
            Attribute::Label(label.as_bytes().to_vec()),
        ];
        let found = self.session.find_objects(&template)?;
        if found.is_empty() {
            self.verify_token()?;
        }
        for object in &found {
            self.verify_handle(*object, class, Some(label))?;
        }
        Ok(found)
    }

    /// The first object of a class, with this label if there is one.
    fn first(
        &self,
        class: ObjectClass,
        label: Option<&str>,
    ) -> Result<Option<ObjectHandle>, Cause> {
        self.first_with(class, label, None)
    }

    fn first_with(
        &self,
        class: ObjectClass,
        label: Option<&str>,
        id: Option<&[u8]>,
    ) -> Result<Option<ObjectHandle>, Cause> {
        let mut template = vec![Attribute::Class(class)];
        template.extend(label.map(|label| Attribute::Label(label.as_bytes().to_vec())));
        template.extend(id.map(|id| Attribute::Id(id.to_vec())));
        let first = self
            .session
            .iter_objects_with_cache_size(&template, NonZeroUsize::MIN)?
            .next()
            .transpose()?;
        match first {
            Some(object) => self.verify_handle(object, class, label)?,
            None => self.verify_token()?,
        }
        Ok(first)
    }

    /// Checks that a handle leads to what was searched for. After an object has been destroyed, tpm2-pkcs11 1.9 gives the
    /// next one a number that is in use already, and every function then takes the older of the two: another key.
    fn verify_handle(
        &self,
        object: ObjectHandle,
        class: ObjectClass,
        label: Option<&str>,
    ) -> Result<(), Cause> {
        let wanted = [AttributeType::Class, AttributeType::Label];
        let fits = self
            .session
            .get_attributes(object, &wanted)?
            .iter()
            .all(|attribute| match attribute {
                Attribute::Class(found) => *found == class,
                Attribute::Label(found) => label.is_none_or(|label| found == label.as_bytes()),
                _ => true,
            });
        if fits { Ok(()) } else { Err(Cause::Handles) }
    }
}

/// The objects of a key pair.
#[derive(Clone, Copy)]
struct Halves {
    public: Option<ObjectHandle>,
    private: Option<ObjectHandle>,
}

impl Halves {
    fn complete(self) -> Option<(ObjectHandle, ObjectHandle)> {
        self.public.zip(self.private)
    }

    /// Public first.
    fn each(self) -> impl Iterator<Item = ObjectHandle> {
        self.public.into_iter().chain(self.private)
    }
}

/// A key pair that was found.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) private: ObjectHandle,
    pub(super) public_key: Arc<Public>,
}

/// What labels were found to mean, for a short time.
#[derive(Default)]
pub(super) struct Handles(Mutex<Remembrance>);

#[derive(Default)]
struct Remembrance {
    entries: Vec<Remembered>,
    /// Counts the times that all was forgotten, so that what was looked up before is not remembered after.
    changes: u64,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Pair,
    Secret,
}

struct Remembered {
    kind: Kind,
    label: Option<Box<str>>,
    since: Instant,
    generation: u64,
    entry: Entry,
}

impl Remembered {
    fn is(&self, kind: Kind, label: Option<&str>) -> bool {
        self.kind == kind && self.label.as_deref() == label
    }
}

#[derive(Clone)]
enum Entry {
    Pair(Pair),
    Secret(ObjectHandle),
}

impl Handles {
    pub(super) fn clear(&self) {
        let mut handles = lock(&self.0);
        handles.entries.clear();
        handles.changes += 1;
    }

    /// To be asked before a search, and given to [`Self::remember`] after it.
    fn changes(&self) -> u64 {
        lock(&self.0).changes
    }

    fn find(&self, work: &Work<'_>, kind: Kind, label: Option<&str>) -> Option<Entry> {
        let handles = lock(&self.0);
        let remembered = handles.entries.iter().find(|known| known.is(kind, label))?;
        let current = remembered.generation == work.generation
            && remembered.since.elapsed() < work.token.timing().handles;
        current.then(|| remembered.entry.clone())
    }

    fn remember(&self, work: &Work<'_>, seen: u64, kind: Kind, label: Option<&str>, entry: Entry) {
        let remembered = Remembered {
            kind,
            label: label.map(Box::from),
            since: Instant::now(),
            generation: work.generation,
            entry,
        };
        let mut handles = lock(&self.0);
        if handles.changes != seen {
            return;
        }
        let handles = &mut handles.entries;
        handles.retain(|known| !known.is(kind, label));
        if handles.len() >= MAX_HANDLES {
            let age = work.token.timing().handles;
            handles.retain(|known| known.since.elapsed() < age);
        }
        if handles.len() >= MAX_HANDLES {
            handles.clear();
        }
        handles.push(remembered);
    }
}
