//! Moving a key pair to another label.

use cryptoki::object::{Attribute, ObjectHandle};

use super::super::error::{Cause, Error};
use super::super::pair;
use super::super::token::{Blame, Login, Token, Work};
use super::create::fresh_id;
use super::sweep::{label, relabel, replaced_label};

impl Token {
    /// Gives the key pair with the label `from` the label `to`, in place of one that has it. Onto itself, it changes
    /// nothing.
    ///
    /// What has to make room is first put aside under another label and removed last, so that a failure at any point
    /// leaves both pairs, or brings them back: at once, or, after a crash, with the next change.
    ///
    /// # Errors
    ///
    /// There is no pair with the label `from`; its private object, or that of `to`, is not visible without a login; the
    /// token does not allow new labels; those of the token.
    pub fn rename_key_pair(&self, from: &str, to: &str) -> Result<(), Error> {
        self.try_rename(from, to).map_err(|cause| self.error(cause))
    }

    fn try_rename(&self, from: &str, to: &str) -> Result<(), Cause> {
        let change = self.change(&[Some(from), Some(to)])?;
        let mut unfinished = false;
        let result = self.run(Login::IfPossible, Blame::Module, |work| {
            let source = work.halves(Some(from))?.complete();
            let (public, private) =
                source.ok_or_else(|| Cause::MissingSource(from.to_owned()))?;
            if from == to {
                return Ok(());
            }
            let replaced: Vec<ObjectHandle> = work.halves(Some(to))?.each().collect();
            tie(work, public, private);
            // From here on a second attempt would not find what this one found.
            work.commit();
            let aside = replaced_label(to);
            let mut steps = Vec::new();
            steps.extend(replaced.iter().map(|object| (*object, to, aside.as_str())));
            steps.extend([(public, from, to), (private, from, to)]);
            if let Err(cause) = relabel_all(work, &steps) {
                unfinished = !cause.1;
                return Err(cause.0);
            }
            for object in replaced {
                if let Err(err) = work.session.destroy_object(object) {
                    unfinished = true;
                    log::warn!(
                        "could not remove the key pair that \"{from}\" replaced as \"{to}\" from {self:?}: {}",
                        Cause::from(err)
                    );
                }
            }
            Ok(())
        });
        self.handles().clear();
        if unfinished {
            self.sweep_again(change);
        }
        result
    }
}

/// Gives each object its new label, or, if that fails, all of them their old ones: whether that worked is in the error.
fn relabel_all(work: &Work<'_>, steps: &[(ObjectHandle, &str, &str)]) -> Result<(), (Cause, bool)> {
    for (done, (object, _, new)) in steps.iter().enumerate() {
        let Err(cause) = relabel(work, *object, new) else {
            continue;
        };
        for (object, old, _) in steps.iter().take(done + 1).rev() {
            // The step that failed may have been done, and only its answer been lost.
            if matches!(label(work, *object), Ok(Some(label)) if label == *old) {
                continue;
            }
            if let Err(err) = relabel(work, *object, old) {
                log::error!(
                    "could not give an object in {:?} its label \"{old}\" back: {err}",
                    work.token
                );
                // In this order, what is left tells how far the move has come.
                return Err((cause, false));
            }
        }
        return Err((cause, true));
    }
    Ok(())
}

/// Gives both halves one id if they have none, so that they find each other if only one of them gets its new label. A
/// token that does not allow that is not worse off than before.
fn tie(work: &Work<'_>, public: ObjectHandle, private: ObjectHandle) {
    let has_id = |object| pair::type_and_id(work, object).is_ok_and(|(_, id)| !id.is_empty());
    if has_id(public) || has_id(private) {
        return;
    }
    let id = Attribute::Id(fresh_id(None));
    for object in [private, public] {
        if let Err(err) = work
            .session
            .update_attributes(object, core::slice::from_ref(&id))
        {
            log::debug!("could not set a CKA_ID: {}", Cause::from(err));
            return;
        }
    }
}
