//! Getting an EST identity a new certificate, be it for the first time or in place of another (certificates-service 7.2 and
//! 9.2). The order is that of [`Rotation`]; here its steps are carried out. Everything here blocks.
//!
//! Each step that changes something is a single call of the Keys Service or replaces a single file as a whole, so a crash
//! between two of them leaves what the next rotation can go on with.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aziot_core::est::Kind;
use aziot_core::renewal::policy::AutoRenew;
use aziot_core::renewal::{
    Answer, CHANGED, Credentials, End, Entry, Failure, Keys, Leaf, Pair, Plan, Rotation, Schedule,
    Slot, Standing, Step, Stored,
};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509Req;

use super::chain::{Chain, ChainError};
use super::enrol::{self, enrol};
use super::identity::{self, now};
use super::keys;
use super::plan::{Access, Names};
use super::shared::Shared;
use crate::client::Identity;
use crate::locks::Guard;

/// How long to wait for somebody who is writing the same certificate; that takes milliseconds.
const WRITER: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug)]
pub struct Task {
    /// The identity.
    pub names: Names,
    /// How the EST server is asked; the bootstrap identity is in it too.
    pub access: Access,
    /// When the certificate is renewed, and whether with a new key.
    pub policy: AutoRenew,
    /// Why.
    pub cause: Cause,
    /// When the EST server has to be done.
    pub by: Instant,
}

/// Why an identity gets a new certificate.
#[derive(Debug)]
pub enum Cause {
    /// It is time. What the engine remembers of the certificate.
    Due(Box<Entry>),
    /// Somebody needs it, and it cannot be used.
    Needed {
        /// DER of the subject that a new identity gets (certificates-service 7.2).
        subject: Vec<u8>,
    },
    /// It was found without its key at the start.
    Broken,
}

/// How it ended.
#[derive(Debug)]
pub struct Rotated {
    /// In the words of the engine.
    pub end: End,
    /// The certificate that is in force then, or may be.
    pub leaf: Option<Leaf>,
    /// Why it failed.
    pub reason: String,
    /// There was a new certificate, and it could not be put in place.
    pub writing: bool,
    /// It failed because there is no bootstrap identity.
    pub no_bootstrap: bool,
    /// It failed because the Keys Service refuses, and will go on doing so until somebody changes its configuration.
    pub refused: bool,
    /// The certificate or the key may have been changed.
    pub touched: bool,
}

impl Rotated {
    /// It was not even begun, for this reason.
    #[must_use]
    pub fn not_begun(reason: String) -> Self {
        Self {
            end: End::Failed(Failure::Retryable),
            leaf: None,
            reason,
            writing: false,
            no_bootstrap: false,
            refused: false,
            touched: false,
        }
    }
}

/// Carries a task out. `committing` is called before the new certificate and its key are put in place.
#[must_use]
pub fn rotate(shared: &Arc<Shared>, task: &Task, committing: &dyn Fn()) -> Rotated {
    let mut work = Work {
        shared,
        task,
        committing,
        old: None,
        key: None,
        temporary: None,
        new: None,
        found: None,
        guard: None,
        reason: String::new(),
        writing: false,
        no_bootstrap: false,
        refused: false,
        touched: false,
    };
    let mut rotation = Rotation::new(Plan {
        rotate_key: task.policy.rotate_key,
        activate: false,
    });
    loop {
        if let Step::Finished(end) = rotation.step() {
            return work.end(end);
        }
        let answer = work.perform(rotation.step());
        rotation.answer(answer);
    }
}

/// A certificate and the text that it is stored as.
struct Text {
    chain: Chain,
    pem: String,
}

struct Work<'a> {
    shared: &'a Shared,
    task: &'a Task,
    committing: &'a dyn Fn(),
    /// What was stored at the beginning.
    old: Option<Text>,
    /// *K*.
    key: Option<PKey<Private>>,
    /// The one with the temporary id.
    temporary: Option<PKey<Private>>,
    new: Option<Text>,
    found: Option<Leaf>,
    /// Held while certificate and key are put in place.
    guard: Option<Guard>,
    reason: String,
    writing: bool,
    no_bootstrap: bool,
    refused: bool,
    touched: bool,
}

impl Work<'_> {
    fn perform(&mut self, step: Step) -> Answer {
        match step {
            Step::ReadCertificate => self.read(),
            Step::FinishMove => self.finish_move(),
            Step::ClearTemporaryKey => {
                let cleared = keys::delete(&self.shared.tools, &self.task.names.temporary_key());
                self.done(cleared, "failed to clear temp key")
            }
            Step::CreateTemporaryKey => self.create(),
            Step::Enrol { credentials, key } => match self.enrol(credentials, key) {
                Ok(()) => Answer::Done,
                Err(failure) => Answer::Failed(failure),
            },
            Step::VerifyPair { .. } => self.verify(),
            // Nobody else has to accept an EST identity.
            Step::Activate => Answer::Done,
            Step::WriteCertificate => self.write(),
            Step::ReadBack => self.read_back(),
            Step::MoveKey => {
                let moved = self.move_key(self.new.as_ref().map(|new| &new.chain));
                self.done(moved.map(drop), "failed to import new key")
            }
            Step::CompareKeys => self.compare_keys(),
            Step::RestoreCertificate => self.restore(),
            Step::Finished(_) => Answer::Done,
        }
    }

    fn end(self, end: End) -> Rotated {
        let leaf = match end {
            End::Renewed => self.new_leaf(),
            End::Unfinished => self.new_leaf().or(self.found),
            _ => self.found,
        };
        let reason = match end {
            End::Changed => CHANGED.to_owned(),
            _ => self.reason,
        };
        Rotated {
            end,
            leaf,
            reason,
            writing: self.writing,
            no_bootstrap: self.no_bootstrap,
            refused: self.refused,
            touched: self.touched,
        }
    }

    fn new_leaf(&self) -> Option<Leaf> {
        self.new.as_ref()?.chain.renewal().ok()
    }

    fn fail(&mut self, failure: Failure, reason: impl fmt::Display) -> Answer {
        self.reason = reason.to_string();
        Answer::Failed(failure)
    }

    fn retry(&mut self, reason: impl fmt::Display) -> Answer {
        self.fail(Failure::Retryable, reason)
    }

    fn done(&mut self, result: Result<(), keys::Error>, what: &str) -> Answer {
        match result {
            Ok(()) => Answer::Done,
            Err(error) => self.no_key(&error, what),
        }
    }

    fn no_key(&mut self, error: &keys::Error, what: &str) -> Answer {
        self.refused |= error.is_unauthorized();
        self.retry(format_args!("{what}: {error}"))
    }

    /// What is stored, and whose it is.
    fn read(&mut self) -> Answer {
        let entry = match &self.task.cause {
            Cause::Due(entry) => Some(entry),
            Cause::Needed { .. } | Cause::Broken => None,
        };
        let nothing = Answer::Found {
            pair: Pair::NoCertificate,
            standing: Standing::Current,
        };
        let pem = match self.shared.read(&self.task.names.cert) {
            Ok(Some(pem)) => pem,
            Ok(None) if entry.is_none() => return nothing,
            Ok(None) => return self.retry("failed to read cert chain: not found"),
            Err(error) => {
                return self.retry(format_args!(
                    "failed to read cert chain: {}",
                    error.one_line()
                ));
            }
        };
        let parsed = Chain::parse(&pem).and_then(|chain| {
            chain
                .renewal()
                .map(|leaf| (chain, leaf))
                .map_err(ChainError::from)
        });
        let (chain, leaf) = match parsed {
            Ok(parsed) => parsed,
            // Whatever was there, it was no identity.
            Err(_) if entry.is_none() => return nothing,
            Err(error) => return self.fail(Failure::Fatal, error),
        };
        let standing = match entry {
            Some(entry) => entry.standing(&leaf, now()),
            None if leaf.has_expired(now()) => Standing::Expired,
            None if self.task.policy.is_due(&leaf, now()) => Standing::Due,
            None => Standing::Current,
        };
        let pair = match self.whose(&chain) {
            Ok(pair) => pair,
            Err(error) => return self.no_key(&error, "failed to get cert key"),
        };
        self.old = Some(Text { chain, pem });
        self.found = Some(leaf);
        Answer::Found { pair, standing }
    }

    fn whose(&mut self, chain: &Chain) -> Result<Pair, keys::Error> {
        let (tools, names) = (&self.shared.tools, &self.task.names);
        self.key = keys::load(tools, &names.key)?;
        if self.key.as_ref().is_some_and(|key| chain.is_for(key)) {
            return Ok(Pair::Key);
        }
        self.temporary = keys::load(tools, &names.temporary_key())?;
        let temporary = self.temporary.as_ref();
        Ok(if temporary.is_some_and(|key| chain.is_for(key)) {
            Pair::Temporary
        } else {
            Pair::Neither
        })
    }

    /// Puts the key of a stored certificate in its place.
    fn finish_move(&mut self) -> Answer {
        self.touched = true;
        let moved = self.move_key(self.old.as_ref().map(|old| &old.chain));
        let moved = moved.map(|key| {
            log::info!(
                "An interrupted rotation of the EST identity {} is complete.",
                self.task.names.cert
            );
            // The handle with the temporary id names nothing now, or the next temporary key.
            self.temporary = None;
            self.key = Some(key);
        });
        self.done(moved, "failed to import new key")
    }

    /// Moves the temporary key onto *K*, and sees that it got there: a key library may not be able to. Answers what is *K* then.
    fn move_key(&self, chain: Option<&Chain>) -> Result<PKey<Private>, keys::Error> {
        let (tools, names) = (&self.shared.tools, &self.task.names);
        tools
            .keys
            .move_key_pair(&names.temporary_key(), &names.key)?;
        match keys::load(tools, &names.key)? {
            Some(key) if chain.is_some_and(|chain| chain.is_for(&key)) => Ok(key),
            _ => Err(keys::Error::NotMoved),
        }
    }

    fn create(&mut self) -> Answer {
        match keys::create(&self.shared.tools, &self.task.names.temporary_key()) {
            Ok(key) => {
                self.temporary = Some(key);
                Answer::Done
            }
            Err(error) => self.no_key(&error, "failed to generate temp key"),
        }
    }

    /// Who asks, and for a request with which subject.
    fn enrol(&mut self, credentials: Credentials, slot: Slot) -> Result<(), Failure> {
        let (identity, kind, subject) = match credentials {
            Credentials::Own => self.own()?,
            Credentials::Bootstrap => self.bootstrap()?,
        };
        let names = &self.task.names;
        let key_id = match slot {
            Slot::Key => names.key.clone(),
            Slot::Temporary => names.temporary_key(),
        };
        match self.issue(identity, kind, &subject, &key_id) {
            Ok(new) => {
                self.new = Some(new);
                Ok(())
            }
            Err(error) => {
                self.reason = format!("failed to issue new EST identity cert: {error}");
                Err(Failure::Retryable)
            }
        }
    }

    /// The old certificate with its entire chain (DB-30), and its key.
    fn own(&mut self) -> Result<(Identity, Kind, Vec<u8>), Failure> {
        let own = self.old.as_ref().zip(self.key.as_ref()).map(|(old, key)| {
            let identity = identity::with_key(old.chain.clone(), key.clone());
            (identity, subject_of(&old.chain))
        });
        match own {
            Some((identity, Ok(subject))) => Ok((identity, Kind::Renewal, subject)),
            _ => {
                self.reason = "failed to get cert key".to_owned();
                Err(Failure::Retryable)
            }
        }
    }

    fn bootstrap(&mut self) -> Result<(Identity, Kind, Vec<u8>), Failure> {
        let pair = self.task.access.x509.as_ref();
        let Some((cert, key)) = pair.and_then(|x509| x509.bootstrap.as_ref()) else {
            self.no_bootstrap = true;
            self.reason = "bootstrap credentials not available".to_owned();
            return Err(Failure::Fatal);
        };
        let identity = identity::bootstrap(self.shared, cert, key).map_err(|reason| {
            self.reason = reason;
            Failure::Retryable
        })?;
        let subject = match (&self.task.cause, &self.old) {
            (Cause::Needed { subject }, _) => Some(subject.clone()),
            (Cause::Due(_) | Cause::Broken, Some(old)) => subject_of(&old.chain).ok(),
            (Cause::Due(_) | Cause::Broken, None) => None,
        };
        let subject = subject.ok_or_else(|| {
            self.reason = "there is no subject for a new EST identity".to_owned();
            Failure::Retryable
        })?;
        Ok((identity, Kind::First, subject))
    }

    fn issue(
        &self,
        identity: Identity,
        kind: Kind,
        subject: &[u8],
        key_id: &str,
    ) -> Result<Text, String> {
        let csr = keys::request(&self.shared.tools, subject, key_id)?;
        let client = self
            .shared
            .client(Some(identity))
            .map_err(|error| error.one_line())?;
        let limits = enrol::Limits {
            by: self.task.by,
            scale: self.shared.tools.timing.scale,
        };
        let chain = enrol(&client, &self.task.access, kind, &csr, limits)
            .map_err(|error| error.to_string())?;
        // The public half of the key is in the certificate; that the private half belongs to it shows in the request.
        let leaf_key = chain.leaf().public_key();
        let proven = X509Req::from_der(&csr)
            .and_then(|request| request.verify(&*leaf_key?))
            .map_err(|error| error.to_string())?;
        if !proven {
            return Err(
                "the key pair does not make signatures that fit its public half".to_owned(),
            );
        }
        let pem = chain.pem().map_err(|error| error.to_string())?;
        Ok(Text { chain, pem })
    }

    /// The new certificate is worth having. That it is for the new key is known already.
    fn verify(&mut self) -> Answer {
        let leaf = self.new_leaf();
        let consistent = self
            .new
            .as_ref()
            .is_some_and(|new| new.chain.is_consistent());
        let schedule = leaf
            .map(|leaf| Schedule::new(&self.task.policy, leaf.not_before, leaf.not_after, now()));
        match schedule {
            Some(Ok(_)) if consistent => Answer::Done,
            Some(Ok(_)) => self.retry(
                "failed to parse new cert: it is not signed by the issuer that came with it",
            ),
            Some(Err(error)) => self.retry(format_args!("failed to parse new cert: {error}")),
            None => self.retry("failed to parse new cert"),
        }
    }

    fn write(&mut self) -> Answer {
        const WHAT: &str = "failed to import new cert";
        self.writing = true;
        let id = &self.task.names.cert;
        self.guard = self.shared.tools.locks.lock(id, WRITER);
        if self.guard.is_none() {
            return self.retry(format_args!("{WHAT}: somebody else is writing it"));
        }
        let old = self.old.as_ref().map(|old| old.pem.as_str());
        let stored = match self.shared.read(id) {
            Ok(stored) => stored,
            Err(error) => return self.retry(format_args!("{WHAT}: {}", error.one_line())),
        };
        // A text that was no chain is not kept as an old one.
        if old.is_some() && stored.as_deref() != old {
            return self.retry(CHANGED);
        }
        let Some(new) = &self.new else {
            return self.retry(WHAT);
        };
        self.touched = true;
        (self.committing)();
        match self.shared.write(id, &new.pem) {
            Ok(()) => Answer::Done,
            Err(error) => self.retry(format_args!("{WHAT}: {}", error.one_line())),
        }
    }

    /// After a write that failed.
    fn read_back(&self) -> Answer {
        let Ok(stored) = self.shared.read(&self.task.names.cert) else {
            return Answer::Failed(Failure::Retryable);
        };
        let is =
            |text: &Option<Text>| stored.as_deref() == text.as_ref().map(|text| text.pem.as_str());
        Answer::Stored(if is(&self.new) {
            Stored::New
        } else if is(&self.old) || self.old.is_none() || self.reason == CHANGED {
            Stored::Old
        } else {
            Stored::Broken
        })
    }

    /// After a move that failed.
    fn compare_keys(&self) -> Answer {
        let (tools, names) = (&self.shared.tools, &self.task.names);
        let is_for = |key: Option<&PKey<Private>>, text: &Option<Text>| {
            key.zip(text.as_ref())
                .is_some_and(|(key, text)| text.chain.is_for(key))
        };
        let key = keys::load(tools, &names.key);
        if let Ok(key) = &key
            && is_for(key.as_ref(), &self.new)
        {
            let old_intact = is_for(key.as_ref(), &self.old);
            return Answer::Keys(Keys {
                new: Pair::Key,
                old_intact,
            });
        }
        let Ok(temporary) = keys::load(tools, &names.temporary_key()) else {
            return Answer::Failed(Failure::Retryable);
        };
        let new = if is_for(temporary.as_ref(), &self.new) {
            Pair::Temporary
        } else {
            Pair::Neither
        };
        let old_intact = match key {
            Ok(key) => is_for(key.as_ref(), &self.old),
            // What cannot be read has not been replaced either, as its replacement is where it was.
            Err(_) if new == Pair::Temporary => is_for(self.key.as_ref(), &self.old),
            Err(_) => return Answer::Failed(Failure::Retryable),
        };
        Answer::Keys(Keys { new, old_intact })
    }

    /// Puts the old certificate back beside its key.
    fn restore(&mut self) -> Answer {
        let Some(old) = &self.old else {
            return Answer::Failed(Failure::Retryable);
        };
        match self.shared.write(&self.task.names.cert, &old.pem) {
            // Why this was necessary is what the log is told.
            Ok(()) => Answer::Done,
            Err(error) => {
                let reason = format!("failed to restore old cert: {}", error.one_line());
                self.retry(reason)
            }
        }
    }
}

fn subject_of(chain: &Chain) -> Result<Vec<u8>, ErrorStack> {
    chain.leaf().subject_name().to_der()
}
