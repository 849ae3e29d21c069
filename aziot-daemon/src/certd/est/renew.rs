//! The EST identities: which there are, which are renewed when, and who waits for one (certificates-service 8 and 9).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aziot_core::api::certs::status::RenewalState;
use aziot_core::renewal::policy::AutoRenew;
use aziot_core::renewal::{Added, End, Failure, Id, Leaf, Message, Outcome, Pair, Severity, State};
use aziot_core::time::UnixTime;

use super::super::error::Error;
use super::super::{Certd, Event as ServiceEvent};
use super::identity::{self, Found, Loss, now};
use super::issue::Order;
use super::plan::{self, Names, Owner, Server, unusable};
use super::rotate::{Cause, Rotated, Task, rotate};
use super::shared::Shared;
use super::{Est, Event, RENEW, SOON, subject};
use crate::lanes::Lane;
use crate::random::random;
use crate::service::Context;

/// How long somebody whose time is up still waits for an identity, in seconds: what is under way for it ends then too, and
/// tells why.
const GRACE: u64 = 10;

/// An EST identity, as the loop knows it.
#[derive(Debug)]
pub struct Known {
    /// What it consists of.
    pub names: Names,
    /// Its name in the engine, as long as it is there.
    pub id: Option<Id>,
    /// Why it could not be renewed, or registered, when that was tried last.
    pub last_error: Option<String>,
    /// How its renewal stands, and since when, if there is something to say.
    pub state: Option<(RenewalState, UnixTime)>,
    /// Who decides how it is renewed; nobody if it is not configured any more.
    owner: Option<Owner>,
    /// A rotation waits or is under way.
    rotating: Option<Occasion>,
    /// It has to be looked at when that ends.
    again: bool,
    /// How often it was changed.
    changes: u64,
    /// A rotation is putting the new pair in place.
    committing: bool,
    /// Who needs it and cannot use it as it is.
    waiting: Vec<Order>,
    /// Who has failed in the middle of that, perhaps because of it.
    caught: Vec<(Order, Error)>,
    /// The log has been told that the Keys Service refuses.
    told_refusal: bool,
}

/// What a rotation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// To renew it in time.
    Schedule,
    /// To repair what was found at the start.
    Repair,
    /// To serve somebody.
    Need,
}

impl Known {
    fn new(names: Names) -> Self {
        Self {
            names,
            id: None,
            last_error: None,
            state: None,
            owner: None,
            rotating: None,
            again: false,
            changes: 0,
            committing: false,
            waiting: Vec::new(),
            caught: Vec::new(),
            told_refusal: false,
        }
    }

    /// Whether it is getting another certificate.
    #[must_use]
    pub fn rotating(&self) -> bool {
        self.rotating.is_some()
    }
}

impl Est {
    /// Drops all renewals, and looks at the identities of the present configuration.
    pub(super) fn register(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_, Certd>) {
        self.engine.clear();
        for known in &mut self.known {
            known.owner = None;
            known.id = None;
            known.last_error = None;
            known.told_refusal = false;
        }
        for (names, owner) in plan::identities(&shared.settings) {
            let known = self.known_mut(&names);
            known.owner = Some(owner);
            if known.rotating.is_some() {
                known.again = true;
            } else {
                self.examine(&names, cx);
            }
        }
        self.known
            .retain(|known| known.owner.is_some() || known.rotating.is_some());
        self.arm(cx);
    }

    fn known_mut(&mut self, names: &Names) -> &mut Known {
        let at = self.known.iter().position(|known| known.names == *names);
        let at = at.unwrap_or_else(|| {
            self.known.push(Known::new(names.clone()));
            self.known.len() - 1
        });
        #[allow(
            clippy::indexing_slicing,
            reason = "it was just found, or added at the end"
        )]
        &mut self.known[at]
    }

    fn examine(&self, names: &Names, cx: &mut Context<'_, Certd>) {
        let Some(shared) = self.shared.clone() else {
            return;
        };
        let (names, configuration) = (names.clone(), self.configuration);
        let job = move || {
            let found = identity::examine(&shared, &names);
            Event::Examined(names, configuration, found)
        };
        if !self.run(Lane::Sibling, job, cx) {
            log::warn!("too many operations are under way to look at an EST identity");
        }
    }

    /// An identity was looked at.
    pub(super) fn examined(
        &mut self,
        names: &Names,
        found: Result<Option<Found>, Error>,
        cx: &mut Context<'_, Certd>,
    ) {
        let now = now();
        let known = self.known_mut(names);
        if known.rotating.is_some() {
            known.again = true;
            return;
        }
        let id = known.id;
        match found {
            Ok(None) => {
                known.id = None;
                known.last_error = None;
                if let Some(id) = id {
                    self.engine.forget(id);
                }
            }
            Err(error) => {
                let reason = error.one_line();
                log::warn!(
                    "Failed to add {} to cert auto-renewal: {reason}",
                    names.cert
                );
                known.last_error = Some(reason);
            }
            Ok(Some(found)) => {
                let watched = id
                    .and_then(|id| self.engine.entry(id))
                    .is_some_and(|entry| self.engine.state(entry, now) != State::Dropped);
                // One that was replaced by hand is let go of when its time comes, as it always was.
                if !watched {
                    self.watch(names, found.leaf, false, cx);
                }
                if matches!(found.pair, Some(Pair::Temporary | Pair::Neither)) {
                    self.repair(names);
                }
            }
        }
    }

    /// Has an identity renewed from now on. A `fresh` one has just been made, and is not made anew even if it is due already.
    fn watch(&mut self, names: &Names, leaf: Leaf, fresh: bool, cx: &mut Context<'_, Certd>) {
        let Some(policy) = self.shared.as_deref().map(policy) else {
            return;
        };
        let now = now();
        self.names = self.names.wrapping_add(1);
        let id = Id(self.names);
        let old = self.known_mut(names).id.replace(id);
        if let Some(old) = old {
            self.engine.forget(old);
        }
        let cert = names.cert.as_str();
        let added = self.engine.add(id, policy, leaf, now);
        self.known_mut(names).last_error = None;
        match added {
            Ok(Added::Scheduled { next }) => log(&Message::Added { id: cert, next }),
            Ok(Added::Due) if fresh => {
                if let Outcome::Renewed { next } = self.engine.renewed(id, leaf, now, random()) {
                    log(&Message::Added { id: cert, next });
                }
            }
            Ok(Added::Due) => self.renew(id, cx),
            Ok(Added::WaitingForTime) => {
                if !std::mem::replace(&mut self.told_of_clock, true) {
                    let earliest = i64::try_from(crate::clock::earliest(None)).unwrap_or(i64::MAX);
                    log(&Message::WaitingForTime { earliest });
                }
            }
            Err(error) => {
                log::warn!("Failed to add {cert} to cert auto-renewal: {error}");
                let known = self.known_mut(names);
                known.id = None;
                known.last_error = Some(error.to_string());
            }
        }
    }

    /// Renews whatever is due.
    pub(super) fn renew_due(&mut self, cx: &mut Context<'_, Certd>) {
        while let Some(id) = self.engine.due(now()) {
            self.renew(id, cx);
        }
        self.start_rotations(cx);
    }

    /// Renews an identity that the engine has handed out.
    fn renew(&mut self, id: Id, cx: &mut Context<'_, Certd>) {
        let at = self.known.iter().position(|known| known.id == Some(id));
        let known = at.and_then(|at| self.known.get_mut(at));
        let (Some(known), Some(shared), Some(entry)) =
            (known, self.shared.clone(), self.engine.entry(id))
        else {
            return self.engine.forget(id);
        };
        let cert = known.names.cert.clone();
        log(&Message::Attempting { id: &cert });
        if known.rotating.is_some() {
            // The end of that counts.
            return;
        }
        let access = match &known.owner {
            Some(owner) => owner.access(&shared.settings),
            None => return self.engine.forget(id),
        };
        match access {
            Ok(access) => {
                let task = Task {
                    names: known.names.clone(),
                    access,
                    policy: entry.policy,
                    cause: Cause::Due(Box::new(*entry)),
                    by: shared.deadline(),
                };
                known.rotating = Some(Occasion::Schedule);
                self.queue.push_rotation(task);
                self.start_rotations(cx);
            }
            Err(error) => {
                let reason = error.one_line();
                known.last_error = Some(reason.clone());
                let outcome = self.engine.failed(id, Failure::Retryable, now(), random());
                for message in outcome
                    .messages(&cert, &reason, false)
                    .into_iter()
                    .flatten()
                {
                    log(&message);
                }
            }
        }
    }

    /// Has an identity put in order whose certificate and key do not belong together.
    fn repair(&mut self, names: &Names) {
        let Some(shared) = self.shared.clone() else {
            return;
        };
        let known = self.known_mut(names);
        if known.rotating.is_some() {
            return;
        }
        let Some(owner) = &known.owner else { return };
        match owner.access(&shared.settings) {
            Ok(access) => {
                known.rotating = Some(Occasion::Repair);
                let task = Task {
                    names: names.clone(),
                    access,
                    policy: policy(&shared),
                    cause: Cause::Broken,
                    by: shared.deadline(),
                };
                self.queue.push_rotation(task);
            }
            Err(error) => log::warn!(
                "The EST identity {} does not belong to its key pair: {}",
                names.cert,
                error.one_line()
            ),
        }
    }

    /// Has an identity established that `order` needs.
    pub(super) fn establish(&mut self, order: Order, loss: &Loss, cx: &mut Context<'_, Certd>) {
        let (Some(shared), Some(names)) = (self.shared.clone(), order.names()) else {
            return Self::conclude(order, Err(Error::busy()), cx);
        };
        let known = self.known_mut(&names);
        if known.rotating.is_some() {
            known.waiting.push(order);
            return;
        }
        let subject = match subject::of(&shared.settings, order.id(), order.csr()) {
            Ok(subject) => subject,
            Err(error) => return Self::conclude(order, Err(error), cx),
        };
        log::info!(
            "The EST identity {} has to be established: {loss}.",
            names.cert
        );
        known.rotating = Some(Occasion::Need);
        let task = Task {
            names,
            access: order.access.clone(),
            policy: policy(&shared),
            cause: Cause::Needed { subject },
            by: order.by,
        };
        known.waiting.push(order);
        self.queue.push_rotation(task);
    }

    /// Starts the rotations that wait and whose server has room.
    pub(super) fn start_rotations(&mut self, cx: &mut Context<'_, Certd>) {
        while let Some(mut task) = self.queue.next_rotation() {
            let Some(shared) = self.shared.clone() else {
                return;
            };
            if !matches!(task.cause, Cause::Needed { .. }) {
                task.by = shared.deadline();
            }
            let (names, server) = (task.names.clone(), task.access.server.clone());
            let (rotated, place) = (names.clone(), server.clone());
            let events = cx.events();
            let job = move || {
                let committing = || {
                    let names = task.names.clone();
                    events.send(ServiceEvent::Est(Event::Committing(names)));
                };
                let end = rotate(&shared, &task, &committing);
                Event::Rotated(rotated, place, Box::new(end))
            };
            if self.run(Lane::Enrolment, job, cx) {
                Self::note_use(cx);
            } else {
                self.queue.finished(&server);
                let end = Rotated::not_begun(Error::busy().one_line());
                self.rotated(&names, &server, &end, cx);
            }
        }
    }

    /// A rotation has ended, for which this server was asked.
    pub(super) fn rotated(
        &mut self,
        names: &Names,
        server: &Server,
        rotated: &Rotated,
        cx: &mut Context<'_, Certd>,
    ) {
        let now = now();
        let known = self.known_mut(names);
        let occasion = known.rotating.take();
        let again = std::mem::take(&mut known.again);
        let waiting = std::mem::take(&mut known.waiting);
        let caught = std::mem::take(&mut known.caught);
        known.committing = false;
        let (id, configured) = (known.id, known.owner.is_some());
        if rotated.touched {
            known.changes += 1;
        }
        let good = matches!(rotated.end, End::Renewed | End::Recovered);
        let outcome = id.map_or(Outcome::Unknown, |id| match (rotated.end, rotated.leaf) {
            (End::Renewed | End::Recovered, Some(leaf)) => {
                self.engine.renewed(id, leaf, now, random())
            }
            (End::Unfinished, Some(leaf)) => {
                let failure = Failure::Unfinished(leaf);
                self.engine.failed(id, failure, now, random())
            }
            (End::Failed(failure), _) => self.engine.failed(id, failure, now, random()),
            (End::Changed, _) => self.engine.failed(id, Failure::Fatal, now, random()),
            (End::Renewed | End::Recovered | End::Unfinished, None) => {
                self.engine.failed(id, Failure::Retryable, now, random())
            }
        });
        match outcome {
            Outcome::Unknown => {
                if let Some(leaf) = rotated.leaf.filter(|_| configured && !again)
                    && (good || rotated.end == End::Unfinished)
                {
                    self.watch(names, leaf, true, cx);
                }
                if !good {
                    self.known_mut(names).last_error = Some(rotated.reason.clone());
                }
                if !good && occasion == Some(Occasion::Repair) {
                    log::warn!(
                        "The EST identity {} does not belong to its key pair and could not be repaired: {}",
                        names.cert,
                        rotated.reason
                    );
                }
            }
            Outcome::Renewed { next } => {
                let known = self.known_mut(names);
                known.last_error = None;
                known.told_refusal = false;
                log(&Message::Renewed {
                    id: &names.cert,
                    next,
                });
            }
            Outcome::Dropped { .. } | Outcome::Retry { .. } => {
                self.tell_failure(names, rotated, outcome);
            }
        }
        if again {
            self.examine(names, cx);
        }
        for (order, error) in caught {
            if rotated.touched {
                self.queue.push_front(order);
            } else {
                Self::conclude(order, Err(error), cx);
            }
        }
        let tried = (occasion == Some(Occasion::Need)).then_some(server);
        self.serve_waiting(waiting, tried, good, rotated, cx);
    }

    /// A rotation begins to put the new pair in place.
    pub(super) fn committing(&mut self, names: &Names) {
        self.known_mut(names).committing = true;
    }

    /// Keeps an order whose request was not answered while the new pair is put in place: the end of that tells whether it is
    /// worth another try. Gives it back if that is not so.
    pub(super) fn keep_caught(&mut self, order: Order, error: Error) -> Option<(Order, Error)> {
        let names = order.names();
        let known = self
            .known
            .iter_mut()
            .find(|known| Some(&known.names) == names.as_ref() && known.committing);
        let Some(known) = known else {
            return Some((order, error));
        };
        known.caught.push((order, error));
        None
    }

    fn tell_failure(&mut self, names: &Names, rotated: &Rotated, outcome: Outcome) {
        let known = self.known_mut(names);
        known.last_error = Some(rotated.reason.clone());
        // It goes on being tried; saying it once is enough (DB-33).
        let told = rotated.refused && std::mem::replace(&mut known.told_refusal, true);
        let messages = outcome.messages(&names.cert, &rotated.reason, rotated.writing);
        for message in messages.into_iter().flatten() {
            if told {
                log::debug!("{message}");
            } else {
                log(&message);
            }
        }
        if self.engine.is_idle() {
            log(&Message::NoneLeft);
        }
    }

    /// Goes on with those who have waited for an identity, which this server was asked for on behalf of one of them, if it was.
    fn serve_waiting(
        &mut self,
        waiting: Vec<Order>,
        tried: Option<&Server>,
        good: bool,
        rotated: &Rotated,
        cx: &mut Context<'_, Certd>,
    ) {
        for order in waiting.into_iter().rev() {
            // What was not tried for them may still work for them: by another way, at another server, with another subject.
            if good || tried != Some(&order.access.server) {
                self.queue.push_front(order);
                continue;
            }
            let error = if rotated.no_bootstrap {
                unusable(
                    order.id(),
                    "EST identity could not be obtained and EST bootstrap identity is not configured",
                )
            } else {
                unusable(
                    order.id(),
                    format_args!(
                        "neither EST identity nor EST bootstrap identity could be obtained: {}",
                        rotated.reason
                    ),
                )
            };
            Self::conclude(order, Err(error), cx);
        }
    }

    /// Takes out those who have waited for an identity for too long, which many renewals may be before.
    pub(super) fn expired_waiting(&mut self, now: Instant) -> Vec<Order> {
        let grace = self.tools.timing.seconds(GRACE);
        let mut expired = Vec::new();
        for known in &mut self.known {
            expired.extend(
                known
                    .waiting
                    .extract_if(.., |order| order.by + grace <= now),
            );
        }
        expired
    }

    /// When the next of those who wait for an identity has waited for too long.
    pub(super) fn next_waiting_expiry(&self) -> Option<Instant> {
        let grace = self.tools.timing.seconds(GRACE);
        let waiting = self.known.iter().flat_map(|known| &known.waiting);
        waiting.map(|order| order.by + grace).min()
    }

    /// A client has written or deleted this certificate.
    pub(super) fn identity_changed(&mut self, cert: &str, cx: &mut Context<'_, Certd>) {
        let mut changed = Vec::new();
        for known in self
            .known
            .iter_mut()
            .filter(|known| known.names.cert == cert)
        {
            known.changes += 1;
            if known.rotating.is_some() {
                known.again = true;
            } else {
                changed.push(known.names.clone());
            }
        }
        for names in changed {
            self.examine(&names, cx);
        }
    }

    /// An order was carried out with its identity: if nobody knew of that, it is renewed from now on (DB-21).
    pub(super) fn identity_used(&self, order: &Order, cx: &mut Context<'_, Certd>) {
        let Some(names) = order.names() else { return };
        let unknown = |known: &&Known| {
            known.names == names
                && known.id.is_none()
                && known.rotating.is_none()
                && known.owner.is_some()
        };
        if self.known.iter().find(unknown).is_some() {
            self.examine(&names, cx);
        }
    }

    /// How often the identity of an order was changed.
    pub(super) fn changes_of(&self, order: &Order) -> u64 {
        let names = order.names();
        let known = self
            .known
            .iter()
            .find(|known| Some(&known.names) == names.as_ref());
        known.map_or(0, |known| known.changes)
    }

    /// Sets the alarm for the next renewal. It runs on the boot clock; when the wall clock is stepped, all is looked at again.
    pub(super) fn arm(&self, cx: &mut Context<'_, Certd>) {
        match self.engine.wake(now()) {
            None => cx.clear_alarm(RENEW),
            Some(wake) => {
                let wake = Duration::from_secs(u64::try_from(wake).unwrap_or(0));
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                // The second has to be complete when it is looked at.
                cx.set_alarm(RENEW, wake.saturating_sub(now) + SOON);
            }
        }
    }
}

fn policy(shared: &Shared) -> AutoRenew {
    let est = shared.settings.cert_issuance.est.as_ref();
    est.map(|est| est.identity_auto_renew).unwrap_or_default()
}

fn log(message: &Message<'_>) {
    match message.severity() {
        Severity::Error => log::error!("{message}"),
        Severity::Warning => log::warn!("{message}"),
        Severity::Info => log::info!("{message}"),
    }
}
