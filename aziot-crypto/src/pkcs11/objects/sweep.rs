//! Objects under labels of our own, and what becomes of those that a crashed process left.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use super::super::error::Cause;
use super::super::token::{Blame, Login, Token, Work};

/// Label, followed by that of the key, of a new key that is to replace an older one.
const NEW: &str = "aziot-temporary:";

/// The same for a key that is being replaced by a move.
const REPLACED: &str = "aziot-replaced:";

pub(super) fn new_label(label: &str) -> String {
    format!("{NEW}{label}")
}

pub(super) fn replaced_label(label: &str) -> String {
    format!("{REPLACED}{label}")
}

/// Whether a label is one of ours.
pub(super) fn is_reserved(label: &str) -> bool {
    label.starts_with(NEW) || label.starts_with(REPLACED)
}

/// The label of an object; `None` if it has none, or one that is not UTF-8.
pub(super) fn label(work: &Work<'_>, object: ObjectHandle) -> Result<Option<String>, Cause> {
    let attributes = work
        .session
        .get_attributes(object, &[AttributeType::Label])?;
    Ok(attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            Attribute::Label(label) => String::from_utf8(label).ok(),
            _ => None,
        }))
}

pub(super) fn relabel(work: &Work<'_>, object: ObjectHandle, label: &str) -> Result<(), Cause> {
    let label = Attribute::Label(label.as_bytes().to_vec());
    Ok(work.session.update_attributes(object, &[label])?)
}

impl Token {
    /// Destroys keys that never got their label. Gives keys that were to be replaced their label back, unless their
    /// replacement is there: then it gives all of that its label, and destroys them.
    pub(super) fn sweep(&self) -> Result<(), Cause> {
        self.run(Login::IfPossible, Blame::Module, |work| {
            let mut replaced = Vec::new();
            for class in [
                ObjectClass::SECRET_KEY,
                ObjectClass::PUBLIC_KEY,
                ObjectClass::PRIVATE_KEY,
            ] {
                for object in work.session.find_objects(&[Attribute::Class(class)])? {
                    let Some(found) = label(work, object)? else {
                        continue;
                    };
                    if let Some(key) = found.strip_prefix(NEW) {
                        log::info!("removing an unfinished key for \"{key}\" from {self:?}");
                        work.session.destroy_object(object)?;
                    } else if let Some(key) = found.strip_prefix(REPLACED) {
                        replaced.push((key.to_owned(), object));
                    }
                }
            }
            // Decided for each key before any of its objects changes.
            let mut decided: Vec<(ObjectHandle, String, bool)> = Vec::new();
            for (key, object) in replaced {
                let replacement = work.halves(Some(&key))?.complete();
                if let Some((_, private)) = replacement
                    && label(work, private)?.as_ref() != Some(&key)
                {
                    log::info!("completing a move to \"{key}\" in {self:?}");
                    relabel(work, private, &key)?;
                }
                let is_there = replacement.is_some();
                decided.push((object, key, is_there));
            }
            for (object, key, is_there) in decided {
                if is_there {
                    log::info!("removing the key that a move replaced as \"{key}\" from {self:?}");
                    work.session.destroy_object(object)?;
                } else {
                    log::warn!("taking back an unfinished move to \"{key}\" in {self:?}");
                    relabel(work, object, &key)?;
                }
            }
            work.token.handles().clear();
            Ok(())
        })
    }
}
