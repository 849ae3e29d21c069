//! One renewal, step by step (certificates-service 9.2 and 10, DB-20, DB-30 to DB-32).
//!
//! Two places are involved that cannot change in one go: the certificate in the store, and the private key *K* in the Keys
//! Service. So a new key comes to be under a temporary id, the new certificate is stored, and then the key is moved onto
//! *K*. Two invariants hold at every point:
//!
//! - *K* is given up only by the move, after the certificate for the temporary key is stored and verified; so after a stop
//!   anywhere the stored certificate belongs to *K* or to the temporary key, and [`recover()`] says which.
//! - The temporary key is cleared only when the stored certificate was seen not to belong to it.
//!
//! The end of a step that changes something is not always known: the answer of a service may be lost after it has done its
//! work. Then the next step is to look, never to assume.

use super::{Failure, Standing};

/// The public keys of the Keys Service that a stored certificate was compared with. An unavailable Keys Service is not an
/// answer: the comparison has failed then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pair {
    /// It belongs to *K*, as it should.
    Key,
    /// It belongs to the temporary key.
    Temporary,
    /// Both are missing or belong to other certificates.
    Neither,
    /// There is no certificate, or it cannot be parsed.
    NoCertificate,
}

/// What to do before a certificate and its key are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Recovery {
    /// Use them.
    Nothing,
    /// Move the temporary key onto *K*: a rotation was interrupted before that.
    FinishMove,
    /// Get a new certificate as for the first time, with a rotation that finds the same.
    Bootstrap,
}

/// What to do about what was found, at the start and before use.
pub const fn recover(found: Pair) -> Recovery {
    match found {
        Pair::Key => Recovery::Nothing,
        Pair::Temporary => Recovery::FinishMove,
        Pair::Neither | Pair::NoCertificate => Recovery::Bootstrap,
    }
}

/// What a [`Rotation`] is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// With a new private key. Without, *K* stays; but where *K* does not belong to the certificate, there is a new one all
    /// the same.
    pub rotate_key: bool,
    /// Somebody has to accept the new pair before the old one is given up ([`Step::Activate`]).
    pub activate: bool,
}

/// Who asks for the new certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Credentials {
    /// The old certificate (its whole chain) and *K*.
    Own,
    /// The bootstrap pair: the old certificate has expired, has lost its key, or there is none.
    Bootstrap,
}

/// Which private key the new certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Slot {
    /// *K*.
    Key,
    /// The one with the temporary id.
    Temporary,
}

/// What to do next. Answer with [`Rotation::answer`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Read the stored certificate and compare it with *K* and the temporary key. Answer: [`Answer::Found`].
    ReadCertificate,
    /// Move the temporary key onto *K*; the stored certificate belongs to it.
    FinishMove,
    /// Delete the temporary key if there is one.
    ClearTemporaryKey,
    /// Create a key pair under the temporary id.
    CreateTemporaryKey,
    /// Get a certificate for the key in `key`, without touching the store.
    Enrol {
        /// Who asks for it.
        credentials: Credentials,
        /// What it is for.
        key: Slot,
    },
    /// See that the new certificate belongs to the key in `key`, can be parsed, and has a [`Schedule`](super::Schedule).
    VerifyPair {
        /// What it should be for.
        key: Slot,
    },
    /// Have the new pair accepted where it will be used (identityd: register the device with it).
    Activate,
    /// Store the new certificate in the place of the old one, in one go.
    WriteCertificate,
    /// Storing has failed: see what is stored now. Answer: [`Answer::Stored`].
    ReadBack,
    /// Move the temporary key onto *K*.
    MoveKey,
    /// The move has failed: see which keys there are now. Answer: [`Answer::Keys`].
    CompareKeys,
    /// Store the old certificate again, in one go.
    RestoreCertificate,
    /// Nothing; tell the engine.
    Finished(End),
}

/// How a rotation ended, for [`Engine::renewed`](super::Engine::renewed) and [`Engine::failed`](super::Engine::failed).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The new certificate is stored and its key is *K*.
    Renewed,
    /// The certificate that was found is in force with *K*, and need not be renewed: an earlier rotation is complete.
    Recovered,
    /// The old pair is in force as before. Never [`Failure::Unfinished`].
    Failed(Failure),
    /// The store may hold the new certificate (or, after [`Step::FinishMove`], the one that was found), and the next
    /// rotation will sort it out: [`Failure::Unfinished`] with that leaf.
    Unfinished,
    /// Somebody else has replaced the certificate: let go of it. The text is [`CHANGED`](super::CHANGED).
    Changed,
}

/// What the store holds after a failed write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Stored {
    /// The new certificate.
    New,
    /// What was there before, be it nothing.
    Old,
    /// Something else: a part of one of them, or nothing where there was something.
    Broken,
}

/// The keys there are after a failed move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Keys {
    /// Which key the new certificate belongs to.
    pub new: Pair,
    /// *K* still belongs to the old certificate.
    pub old_intact: bool,
}

/// How a [`Step`] ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Well; for steps that need no other answer.
    Done,
    /// What [`Step::ReadCertificate`] found.
    Found {
        /// Whose certificate it is.
        pair: Pair,
        /// How it stands to what the engine remembers; see [`Entry::standing`](super::Entry::standing). Of no importance
        /// with [`Pair::NoCertificate`].
        standing: Standing,
    },
    /// What [`Step::ReadBack`] found.
    Stored(Stored),
    /// What [`Step::CompareKeys`] found.
    Keys(Keys),
    /// Not at all, or nobody knows.
    Failed(Failure),
}

/// One renewal, step by step. It holds no key and no certificate, and does nothing itself.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    plan: Plan,
    step: Step,
    credentials: Credentials,
    key: Slot,
    /// There was a certificate that can be stored again.
    has_old: bool,
    /// After an interrupted rotation, what was found is in force and need not be renewed.
    recovered: bool,
}

impl Rotation {
    /// A rotation that begins with [`Step::ReadCertificate`].
    pub const fn new(plan: Plan) -> Self {
        Self {
            plan,
            step: Step::ReadCertificate,
            credentials: Credentials::Own,
            key: if plan.rotate_key {
                Slot::Temporary
            } else {
                Slot::Key
            },
            has_old: true,
            recovered: false,
        }
    }

    /// What to do next.
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Takes in how the step ended. An answer that does not belong to the step counts as a failure of it.
    pub const fn answer(&mut self, answer: Answer) -> Step {
        self.step = match (self.step, answer) {
            (Step::Finished(end), _) => Step::Finished(end),
            (Step::ReadCertificate, Answer::Found { pair, standing }) => self.found(pair, standing),
            (Step::FinishMove, Answer::Done) => {
                if self.recovered {
                    Step::Finished(End::Recovered)
                } else {
                    self.begin()
                }
            }
            (Step::FinishMove, _) => Step::Finished(End::Unfinished),
            (Step::ClearTemporaryKey, Answer::Done) => Step::CreateTemporaryKey,
            (Step::CreateTemporaryKey, Answer::Done) => self.enrol(),
            (Step::Enrol { key, .. }, Answer::Done) => Step::VerifyPair { key },
            (Step::VerifyPair { .. }, Answer::Done) if self.plan.activate => Step::Activate,
            (Step::VerifyPair { .. } | Step::Activate, Answer::Done) => Step::WriteCertificate,
            (Step::WriteCertificate, Answer::Done) => self.written(),
            (Step::WriteCertificate, _) => Step::ReadBack,
            (Step::ReadBack, Answer::Stored(Stored::New)) => self.written(),
            (Step::ReadBack, Answer::Stored(Stored::Old)) => RETRY,
            (Step::ReadBack, Answer::Stored(Stored::Broken)) if self.has_old => {
                Step::RestoreCertificate
            }
            (Step::MoveKey, Answer::Done) => Step::Finished(End::Renewed),
            (Step::MoveKey, _) => Step::CompareKeys,
            (Step::CompareKeys, Answer::Keys(keys)) => match keys.new {
                Pair::Key => Step::Finished(End::Renewed),
                // An old certificate that has expired, or lost its key, is worth less than a new one whose key is
                // at hand: that only has to be moved.
                _ if keys.old_intact && matches!(self.credentials, Credentials::Own) => {
                    Step::RestoreCertificate
                }
                _ => Step::Finished(End::Unfinished),
            },
            (Step::RestoreCertificate, Answer::Done) => RETRY,
            (Step::ReadBack | Step::CompareKeys | Step::RestoreCertificate, _) => {
                Step::Finished(End::Unfinished)
            }
            (
                Step::ReadCertificate
                | Step::ClearTemporaryKey
                | Step::CreateTemporaryKey
                | Step::Enrol { .. }
                | Step::VerifyPair { .. }
                | Step::Activate,
                Answer::Failed(Failure::Fatal),
            ) => Step::Finished(End::Failed(Failure::Fatal)),
            (
                Step::ReadCertificate
                | Step::ClearTemporaryKey
                | Step::CreateTemporaryKey
                | Step::Enrol { .. }
                | Step::VerifyPair { .. }
                | Step::Activate,
                _,
            ) => RETRY,
        };
        self.step
    }

    const fn found(&mut self, pair: Pair, standing: Standing) -> Step {
        match (pair, standing) {
            // Nobody else has certificates for our temporary key.
            (Pair::Temporary, Standing::Changed | Standing::Current) => {
                self.recovered = true;
                Step::FinishMove
            }
            (Pair::Temporary, Standing::Due) => Step::FinishMove,
            (Pair::Temporary, Standing::Expired) => {
                self.credentials = Credentials::Bootstrap;
                Step::FinishMove
            }
            (Pair::NoCertificate, _) => {
                self.has_old = false;
                self.afresh()
            }
            (Pair::Key | Pair::Neither, Standing::Changed) => Step::Finished(End::Changed),
            (Pair::Neither, _) => self.afresh(),
            (Pair::Key, Standing::Current) => Step::Finished(End::Recovered),
            (Pair::Key, Standing::Due) => self.begin(),
            (Pair::Key, Standing::Expired) => {
                self.credentials = Credentials::Bootstrap;
                self.begin()
            }
        }
    }

    /// With the bootstrap pair and a new key, because there is none that a certificate belongs to.
    const fn afresh(&mut self) -> Step {
        self.credentials = Credentials::Bootstrap;
        self.key = Slot::Temporary;
        self.begin()
    }

    const fn begin(&self) -> Step {
        match self.key {
            Slot::Temporary => Step::ClearTemporaryKey,
            Slot::Key => self.enrol(),
        }
    }

    const fn enrol(&self) -> Step {
        Step::Enrol {
            credentials: self.credentials,
            key: self.key,
        }
    }

    const fn written(&self) -> Step {
        match self.key {
            Slot::Temporary => Step::MoveKey,
            Slot::Key => Step::Finished(End::Renewed),
        }
    }
}

const RETRY: Step = Step::Finished(End::Failed(Failure::Retryable));
