//! Making, importing and deleting keys.
//!
//! A key that takes the place of another is made under a label of its own first, so that a failure costs nothing.

use core::cell::Cell;
use core::ffi::c_ulong;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use super::super::error::{Cause, Error, Severity};
use super::super::keys::{self, KeyPair, SecretKey};
use super::super::token::{Blame, Login, Token, Work};
use super::super::{USAGE_ENCRYPT, USAGE_SIGN};
use super::change::Change;
use super::sweep::{new_label, relabel};
use crate::key_pair::Algorithm;

/// Lengths of AES keys in bytes, in the order they are tried.
const AES_KEY_LENS: [c_ulong; 2] = [32, 16];

/// Length of a key for HMAC in bytes.
const HMAC_KEY_LEN: c_ulong = 32;

/// Length of a `CKA_ID` in bytes.
const ID_LEN: usize = 16;

impl Token {
    /// Makes a symmetric key, unless there is one with this label. `usage` is [`USAGE_SIGN`] or [`USAGE_ENCRYPT`]; a key for
    /// encryption has been tried out.
    ///
    /// # Errors
    ///
    /// Any other usage; a token that does not do this ([`Error::is_unsupported`]); those of the token.
    pub fn generate_secret(&self, label: Option<&str>, usage: u32) -> Result<SecretKey, Error> {
        self.try_generate_secret(label, usage)
            .map_err(|cause| self.error(cause))?;
        Ok(SecretKey::new(self.clone(), label))
    }

    fn try_generate_secret(&self, label: Option<&str>, usage: u32) -> Result<(), Cause> {
        let usage = Usage::of(usage)?;
        let _change = self.change(&[label])?;
        // A first attempt may have made it without us learning of it.
        let mut again = false;
        self.run(Login::IfPossible, Blame::Module, |work| {
            let existing = work.secret(label)?;
            let retried = core::mem::replace(&mut again, true);
            let key = match existing {
                Some(_) if !retried => return Ok(()),
                Some(key) => key,
                None => generate_secret(work, label, usage)?,
            };
            match usage {
                Usage::Encrypt => work.try_out(key, usage),
                // Of a length that every token with this mechanism takes.
                Usage::Sign => Ok(()),
            }
        })
    }

    /// Stores a symmetric key, in place of one with this label if there is one. Usage as for [`Token::generate_secret`]; a
    /// token takes AES keys of 16, 24 or 32 bytes, and keys for HMAC of any length it likes.
    ///
    /// # Errors
    ///
    /// Any other usage; no bytes; those of the token ([`Error::is_refused_import`]). An older key is still there then.
    pub fn import_secret(
        &self,
        label: Option<&str>,
        bytes: &[u8],
        usage: u32,
    ) -> Result<SecretKey, Error> {
        self.try_import_secret(label, bytes, usage)
            .map_err(|cause| self.error(cause))?;
        Ok(SecretKey::new(self.clone(), label))
    }

    fn try_import_secret(
        &self,
        label: Option<&str>,
        bytes: &[u8],
        usage: u32,
    ) -> Result<(), Cause> {
        let usage = Usage::of(usage)?;
        if bytes.is_empty() {
            return Err(Cause::EmptyImport);
        }
        let change = self.change(&[label])?;
        let unfinished = Cell::new(false);
        let result = self.run(Login::IfPossible, Blame::Module, |work| {
            let old = match label {
                Some(label) => work.all(ObjectClass::SECRET_KEY, label)?,
                None => Vec::new(),
            };
            let Some(label) = label.filter(|_| !old.is_empty()) else {
                let key = import_secret(work, label, bytes, usage)?;
                return work.try_out(key, usage);
            };
            let temporary = new_label(label);
            // Left by the attempt before this one.
            if let Some(left) = work.first(ObjectClass::SECRET_KEY, Some(&temporary))? {
                work.session.destroy_object(left)?;
            }
            let new = import_secret(work, Some(&temporary), bytes, usage)?;
            work.try_out(new, usage)?;
            work.replace(&[new], &old, label, &unfinished)
        });
        self.handles().clear();
        if unfinished.get() {
            self.sweep_again(change);
        }
        result
    }

    /// Removes the symmetric key with this label; whether there was one.
    ///
    /// # Errors
    ///
    /// Those of the token.
    pub fn delete_secret(&self, label: &str) -> Result<bool, Error> {
        self.try_delete(label, |work| work.all(ObjectClass::SECRET_KEY, label))
            .map_err(|cause| self.error(cause))
    }

    /// Makes a key pair, unless there is one with this label. A lone public or private object with this label is replaced.
    ///
    /// # Errors
    ///
    /// Those of [`Token::key_pair`]; a token that does not do this algorithm; those of the token. Nothing has changed then.
    pub fn generate_key_pair(
        &self,
        label: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<KeyPair, Error> {
        let generated = self
            .change(&[label])
            .and_then(|change| self.try_generate_pair(change, label, algorithm));
        let pair = generated.map_err(|cause| self.error(cause))?;
        Ok(KeyPair::new(self.clone(), label, pair.public_key))
    }

    fn try_generate_pair(
        &self,
        change: Change<'_>,
        label: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<super::Pair, Cause> {
        let unfinished = Cell::new(false);
        let result = self.run(Login::IfPossible, Blame::Module, |work| {
            if let Some(pair) = work.pair(label)? {
                return Ok(pair);
            }
            let old: Vec<ObjectHandle> = work.halves(label)?.each().collect();
            let replaced = label.filter(|_| !old.is_empty());
            match replaced {
                None => {
                    generate_pair(work, label, algorithm)?;
                }
                Some(label) => {
                    let temporary = new_label(label);
                    for left in work.halves(Some(&temporary))?.each() {
                        work.session.destroy_object(left)?;
                    }
                    let new = generate_pair(work, Some(&temporary), algorithm)?;
                    work.replace(&[new.0, new.1], &old, label, &unfinished)?;
                }
            }
            work.pair(label)?.ok_or(Cause::NotFound {
                kind: "key pair",
                label: label.map(str::to_owned),
            })
        });
        if result.is_err() {
            self.handles().clear();
        }
        if unfinished.get() {
            self.sweep_again(change);
        }
        result
    }

    /// Removes the key pair with this label, also if only one of its objects is there; whether there was one.
    ///
    /// # Errors
    ///
    /// The private object is not visible without a login; those of the token.
    pub fn delete_key_pair(&self, label: &str) -> Result<bool, Error> {
        self.try_delete(label, |work| Ok(work.halves(Some(label))?.each().collect()))
            .map_err(|cause| self.error(cause))
    }

    fn try_delete(
        &self,
        label: &str,
        find: impl Fn(&Work<'_>) -> Result<Vec<ObjectHandle>, Cause>,
    ) -> Result<bool, Cause> {
        let _change = self.change(&[Some(label)])?;
        let mut deleted = false;
        let result = self.run(Login::IfPossible, Blame::Module, |work| {
            for object in find(work)? {
                deleted = true;
                work.session.destroy_object(object)?;
            }
            Ok(())
        });
        self.handles().clear();
        result.map(|()| deleted)
    }
}

/// What a symmetric key is for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Usage {
    Encrypt,
    Sign,
}

impl Usage {
    fn of(usage: u32) -> Result<Self, Cause> {
        match usage {
            USAGE_SIGN => Ok(Self::Sign),
            USAGE_ENCRYPT => Ok(Self::Encrypt),
            usage => Err(Cause::Usage(usage)),
        }
    }
}

impl Work<'_> {
    /// Uses a new key for what it is for, and removes it if that fails.
    fn try_out(&self, key: ObjectHandle, usage: Usage) -> Result<(), Cause> {
        let result = match usage {
            Usage::Encrypt => keys::try_encryption(self, key),
            Usage::Sign => keys::try_signing(self, key),
        };
        let Err(cause) = result else {
            return Ok(());
        };
        self.token.handles().clear();
        if let Err(err) = self.session.destroy_object(key) {
            log::warn!(
                "could not remove a new key that does not work from {:?}: {}",
                self.token,
                Cause::from(err)
            );
        }
        // That the token is gone says nothing about the key.
        if cause.severity().closes_sessions() {
            return Err(cause);
        }
        Err(Cause::Unusable(Box::new(cause)))
    }

    /// Gives new objects the label of old ones and removes these. If that fails the old ones stay; if it cannot be told
    /// that they are all there, the new ones stay too.
    ///
    /// `unfinished` is set if a new object has to be removed by a sweep.
    fn replace(
        &self,
        new: &[ObjectHandle],
        old: &[ObjectHandle],
        label: &str,
        unfinished: &Cell<bool>,
    ) -> Result<(), Cause> {
        let replace = || {
            for object in new {
                relabel(self, *object, label)?;
            }
            for object in old {
                match self.session.destroy_object(*object) {
                    Err(err) if self.knows(*object) != Some(false) => return Err(err.into()),
                    // In the other case only the answer was lost.
                    _ => {}
                }
            }
            Ok(())
        };
        let result: Result<(), Cause> = replace();
        if result.is_err() && old.iter().all(|object| self.knows(*object) == Some(true)) {
            for object in new {
                let Err(err) = self.session.destroy_object(*object) else {
                    continue;
                };
                unfinished.set(true);
                log::warn!(
                    "could not remove an unfinished object \"{label}\" from {:?}: {}",
                    self.token,
                    Cause::from(err)
                );
                // It must not be taken for the old one until it is swept.
                if let Err(err) = relabel(self, *object, &new_label(label)) {
                    log::debug!("could not give it another label either: {err}");
                }
            }
        }
        self.token.handles().clear();
        result
    }

    /// Whether the token has an object; `None` if it does not tell.
    fn knows(&self, object: ObjectHandle) -> Option<bool> {
        match self
            .session
            .get_attributes(object, &[AttributeType::Class])
            .map_err(Cause::from)
        {
            Ok(_) => Some(true),
            Err(cause) if cause.severity() == Severity::ObjectGone => Some(false),
            Err(_) => None,
        }
    }

    /// Tries a template with attributes that not all tokens take, then without them.
    fn with_templates<T>(
        &self,
        mut create: impl FnMut(Extras) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let changes = self.token.changes();
        if changes.wants_plain_templates() {
            return create(Extras::Left);
        }
        match create(Extras::Set) {
            Err(cause) if cause.is_about_template() => {
                let created = create(Extras::Left)?;
                log::debug!(
                    "{:?} does not take CKA_EXTRACTABLE or CKA_ID: {cause}",
                    self.token
                );
                changes.use_plain_templates();
                Ok(created)
            }
            created => created,
        }
    }
}

/// Whether `CKA_EXTRACTABLE` and `CKA_ID` are in a template.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Extras {
    Left,
    Set,
}

impl Extras {
    fn not_extractable(self) -> Option<Attribute> {
        (self == Self::Set).then_some(Attribute::Extractable(false))
    }

    fn id(self, id: &[u8]) -> Option<Attribute> {
        (self == Self::Set).then(|| Attribute::Id(id.to_vec()))
    }
}

// Templates have the attributes of release 1.6.0 in its order, which some tokens are known to take, then the extras.

fn generate_secret(
    work: &Work<'_>,
    label: Option<&str>,
    usage: Usage,
) -> Result<ObjectHandle, Cause> {
    match usage {
        Usage::Sign => work.with_templates(|extras| {
            let mut template = secret_template(label);
            template.extend([
                Attribute::Sign(true),
                Attribute::ValueLen(HMAC_KEY_LEN.into()),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
            ]);
            template.extend(extras.not_extractable());
            Ok(work
                .session
                .generate_key(&Mechanism::GenericSecretKeyGen, &template)?)
        }),
        Usage::Encrypt => {
            let generate = |len: c_ulong| {
                work.with_templates(|extras| {
                    let mut template = secret_template(label);
                    template.extend([
                        Attribute::Decrypt(true),
                        Attribute::Encrypt(true),
                        Attribute::KeyType(KeyType::AES),
                        Attribute::ValueLen(len.into()),
                    ]);
                    template.extend(extras.not_extractable());
                    Ok(work
                        .session
                        .generate_key(&Mechanism::AesKeyGen, &template)?)
                })
            };
            let [long, short] = AES_KEY_LENS;
            generate(long).or_else(|cause| match cause.severity() {
                Severity::Ordinary => generate(short),
                // The key may have been made all the same.
                Severity::Fatal => match labelled_secret(work, label)? {
                    Some(key) => Ok(key),
                    None => generate(short),
                },
                _ => Err(cause),
            })
        }
    }
}

fn labelled_secret(work: &Work<'_>, label: Option<&str>) -> Result<Option<ObjectHandle>, Cause> {
    match label {
        Some(label) => work.first(ObjectClass::SECRET_KEY, Some(label)),
        None => Ok(None),
    }
}

/// What the templates of both kinds of generated secret keys begin with.
fn secret_template(label: Option<&str>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Token(true),
        Attribute::Verify(true),
    ];
    template.extend(labelled(label));
    template
}

fn labelled(label: Option<&str>) -> Option<Attribute> {
    label.map(|label| Attribute::Label(label.as_bytes().to_vec()))
}

fn import_secret(
    work: &Work<'_>,
    label: Option<&str>,
    bytes: &[u8],
    usage: Usage,
) -> Result<ObjectHandle, Cause> {
    work.with_templates(|extras| {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Token(true),
            Attribute::Value(bytes.to_vec()),
        ];
        template.extend(labelled(label));
        template.extend(match usage {
            Usage::Sign => [
                Attribute::Sign(true),
                Attribute::Verify(true),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
            ],
            Usage::Encrypt => [
                Attribute::Decrypt(true),
                Attribute::Encrypt(true),
                Attribute::KeyType(KeyType::AES),
            ],
        });
        template.extend(extras.not_extractable());
        let created = work.session.create_object(&template);
        for attribute in &mut template {
            if let Attribute::Value(bytes) = attribute {
                bytes.zeroize();
            }
        }
        Ok(created?)
    })
}

fn generate_pair(
    work: &Work<'_>,
    label: Option<&str>,
    algorithm: Algorithm,
) -> Result<(ObjectHandle, ObjectHandle), Cause> {
    let (mechanism, parameters) = match (algorithm.curve(), algorithm.modulus_bits()) {
        (Some(curve), _) => (
            Mechanism::EccKeyPairGen,
            vec![Attribute::EcParams(curve.oid().to_vec())],
        ),
        (None, bits) => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![
                Attribute::ModulusBits(c_ulong::from(bits.unwrap_or_default()).into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
            ],
        ),
    };
    let id = fresh_id(label);
    work.with_templates(|extras| {
        let mut public = parameters.clone();
        public.extend([
            Attribute::Encrypt(true),
            Attribute::Private(false),
            Attribute::Token(true),
            Attribute::Verify(true),
        ]);
        public.extend(labelled(label));
        public.extend(extras.id(&id));
        let mut private = vec![
            Attribute::Decrypt(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Sign(true),
            Attribute::Token(true),
        ];
        private.extend(labelled(label));
        private.extend(extras.not_extractable());
        private.extend(extras.id(&id));
        Ok(work
            .session
            .generate_key_pair(&mechanism, &public, &private)?)
    })
}

/// A `CKA_ID` that no other key pair has. It need not be hard to guess.
pub(super) fn fresh_id(label: Option<&str>) -> Vec<u8> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let hash = Sha256::new()
        .chain_update(now.as_nanos().to_ne_bytes())
        .chain_update(COUNTER.fetch_add(1, Ordering::Relaxed).to_ne_bytes())
        .chain_update(std::process::id().to_ne_bytes())
        .chain_update(label.unwrap_or_default())
        .finalize();
    hash.iter().copied().take(ID_LEN).collect()
}
