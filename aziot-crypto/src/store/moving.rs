//! Moving keys from one id to another.

use std::fs;

use super::error::{Error, MoveError};
use super::files::{self, Content, FilePlace};
use super::settings::{Places, TokenPlace};
use super::turn::Access;
use super::{Kept, Key, KeyPair, Store};
use crate::file::{self, Contents, Options};

/// Where a key that is to be moved has been found.
enum Source<'a> {
    Token(&'a TokenPlace),
    File(&'a FilePlace, Contents),
}

impl Store {
    /// Gives the key pair `from` the id `to`, replacing a key pair that has it. Moving a key pair to itself changes
    /// nothing.
    ///
    /// The key pair stays in the store that it is in, token or file system. As in earlier releases, this moves a
    /// symmetric key too if that is what the file of `from` holds.
    ///
    /// # Errors
    ///
    /// There is no such key pair, or it cannot be used (and so must not replace one that can); the store or the token
    /// of `to` is another; there is a key of the other kind at `to`; a location in a token without object; a file or a
    /// token that fails. Nothing is changed then.
    pub fn move_key_pair(&self, from: &str, to: &str) -> Result<(), Error> {
        let settings = self.settings();
        let (source, target) = (settings.places(from)?, settings.places(to)?);
        for place in [&source, &target]
            .into_iter()
            .filter_map(|places| places.token.as_ref())
        {
            place.fixed_label()?;
        }
        let mut resources = source.resources();
        resources.extend(target.resources());
        let _turn = self.turns.take(resources, Access::Exclusive);
        let moved = match find(&source)? {
            Source::Token(place) => move_in_token(place, &target),
            Source::File(place, contents) => self.move_file(&source, place, &contents, &target),
        };
        for place in [&source, &target]
            .into_iter()
            .filter_map(|places| places.file.as_ref())
        {
            self.cache.forget(&place.path);
        }
        moved?;
        if from != to {
            self.used.rename(from, to);
        }
        Ok(())
    }

    fn move_file(
        &self,
        source: &Places,
        from: &FilePlace,
        contents: &Contents,
        target: &Places,
    ) -> Result<(), Error> {
        let between_stores = || MoveError::BetweenStores {
            from: from.path.display().to_string(),
            to: target.to_string(),
        };
        let Some(to) = &target.file else {
            return Err(Error::Move(between_stores()));
        };
        // A key whose only location is a file does not belong where keys are kept in a token. One that would be kept
        // there, and is in a file because it is older than the token, moves among such files.
        if source.token.is_none() && target.token.is_some() {
            return Err(Error::Move(between_stores()));
        }
        if from.path == to.path {
            return Ok(());
        }
        let content = Content::of(&contents.bytes);
        let replaced = to.read()?;
        // A link and what it leads to: renaming would leave a link to itself, and no key.
        if replaced
            .as_ref()
            .is_some_and(|file| file.identity.is_same_file(&contents.identity))
        {
            return Ok(());
        }
        let another = |replaced: &Contents| {
            let found = Content::of(&replaced.bytes);
            found != content && found != Content::Empty
        };
        if replaced.as_ref().is_some_and(another) {
            return Err(Error::Move(MoveError::OtherKind {
                to: to.path.display().to_string(),
            }));
        }
        refuse_relative_link(from, to)?;
        if let Some(place) = &target.token {
            match content {
                // A symmetric key in the token would win over the one that comes.
                Content::Symmetric
                    if Key::find_in_token(place).map_err(Error::Token)?.is_some() =>
                {
                    return Err(Error::Move(MoveError::OtherKind {
                        to: place.to_string(),
                    }));
                }
                Content::Pair
                    if KeyPair::find_in_token(place)
                        .map_err(Error::Token)?
                        .is_some() =>
                {
                    return self.replace_in_token(from, contents, place, to, replaced.as_ref());
                }
                _ => {}
            }
        }
        to.make_directory()?;
        file::rename(&from.path, &to.path).map_err(Error::File)
    }

    /// Moves a file to an id whose key pair is in the token, and would win over the file.
    ///
    /// The key is at its new place before the old key is deleted and before it leaves its old place: whatever happens
    /// in between, it is there, and the move can be asked for again.
    fn replace_in_token(
        &self,
        from: &FilePlace,
        contents: &Contents,
        token: &TokenPlace,
        to: &FilePlace,
        replaced: Option<&Contents>,
    ) -> Result<(), Error> {
        self.write_file(to, &contents.bytes, false)?;
        if let Err(err) = token.token.delete_key_pair(token.fixed_label()?) {
            let restored = match replaced {
                Some(old) => file::replace(&to.path, &old.bytes, Options::new(0o600)),
                None => file::remove(&to.path).map(|_| ()),
            };
            if let Err(err) = restored {
                log::warn!("a copy of {} is left: {err}", from.path.display());
            }
            return Err(Error::Token(err));
        }
        from.remove().map(|_| ())
    }
}

/// Finds the key pair, or whatever key the file holds. A key that cannot be used must not take the place of another.
fn find(places: &Places) -> Result<Source<'_>, Error> {
    if let Some(place) = &places.token
        && KeyPair::find_in_token(place)
            .map_err(Error::Token)?
            .is_some()
    {
        return Ok(Source::Token(place));
    }
    if let Some(place) = &places.file
        && let Some(contents) = place.read()?
    {
        match Content::of(&contents.bytes) {
            Content::Symmetric => {}
            Content::Empty | Content::Pair => {
                files::parse_pair(&place.path, &contents.bytes)?;
            }
        }
        return Ok(Source::File(place, contents));
    }
    Err(Error::Move(MoveError::SourceMissing {
        places: places.to_string(),
    }))
}

fn move_in_token(from: &TokenPlace, target: &Places) -> Result<(), Error> {
    let Some(to) = &target.token else {
        return Err(Error::Move(MoveError::BetweenStores {
            from: from.to_string(),
            to: target.to_string(),
        }));
    };
    if !from
        .token
        .shares_slot_with(&to.token)
        .map_err(Error::Token)?
    {
        return Err(Error::Move(MoveError::BetweenTokens {
            from: from.to_string(),
            to: to.to_string(),
        }));
    }
    let (old, new) = (from.fixed_label()?, to.fixed_label()?);
    if old == new {
        return Ok(());
    }
    from.token.rename_key_pair(old, new).map_err(Error::Token)
}

/// Refuses to rename a symbolic link that would lead elsewhere from its new directory.
fn refuse_relative_link(from: &FilePlace, to: &FilePlace) -> Result<(), Error> {
    match fs::read_link(&from.path) {
        Ok(link) if link.is_relative() && from.path.parent() != to.path.parent() => {
            Err(Error::Move(MoveError::Link {
                path: from.path.clone(),
            }))
        }
        _ => Ok(()),
    }
}
