//! Module identities for clients: from the hub, or from the backup where the hub does not answer (identity-service 11.5,
//! 11.6).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::answers::Answer;
use super::asks::Read;
use super::cloud::CloudHub;
use super::device::Device;
use super::error::{Class, Error};
use super::hub::{Failure, Kind};
use super::{Event, Identityd, SLOW_READ, busy, modules};
use crate::lanes::Lane;
use crate::service::{Context, RequestId};

/// The reads under way.
#[derive(Debug, Default)]
pub struct Reads {
    next: u64,
    pending: HashMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    id: RequestId,
    read: Read,
    device: Arc<Device>,
    since: Instant,
    hub: Source,
    backup: Source,
    /// The request to the hub that it waits for, if it waits for one.
    request: Option<HubRequest>,
}

/// A request to the hub. Reads of the same thing that come before it is sent share it.
#[derive(Clone, Debug)]
struct HubRequest {
    number: u64,
    sent: Arc<AtomicBool>,
}

/// How far a source of the answer has come.
#[derive(Debug)]
enum Source {
    /// Not asked.
    Untried,
    /// Asked.
    Asked,
    /// It will not answer: why, if that is known.
    Without(Option<Error>),
}

impl Source {
    fn is_untried(&self) -> bool {
        matches!(self, Self::Untried)
    }
}

impl Reads {
    /// A request to the hub for the same thing that has not been sent yet.
    fn unsent(&self, token: u64) -> Option<HubRequest> {
        let wanted = self.pending.get(&token)?;
        self.pending
            .values()
            .filter(|p| p.read == wanted.read && Arc::ptr_eq(&p.device, &wanted.device))
            .filter_map(|pending| pending.request.as_ref())
            .find(|request| !request.sent.load(Ordering::SeqCst))
            .cloned()
    }

    /// Whether another read than this one already waits for the hub, so that there is an alarm.
    fn is_watched(&self, token: u64) -> bool {
        self.pending.iter().any(|(other, p)| {
            *other != token && matches!(p.hub, Source::Asked) && p.backup.is_untried()
        })
    }

    /// The reads that wait for this request to the hub.
    fn waiting_for(&self, number: u64) -> Vec<u64> {
        self.pending
            .iter()
            .filter(|(_, p)| p.request.as_ref().is_some_and(|r| r.number == number))
            .map(|(token, _)| *token)
            .collect()
    }
}

impl Identityd {
    /// Begins a read.
    pub(super) fn read(
        &mut self,
        id: RequestId,
        read: Read,
        device: Arc<Device>,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        let token = self.reads.next;
        self.reads.next = token.wrapping_add(1);
        let since = Instant::now();
        let pending = Pending {
            id,
            read,
            device,
            since,
            hub: Source::Untried,
            backup: Source::Untried,
            request: None,
        };
        self.reads.pending.insert(token, pending);
        let asked = if self.settings.prefer_module_identity_cache || !self.link.is_up() {
            self.ask_backup(token, cx)
        } else {
            self.ask_hub(token, cx)
        };
        if let Err(error) = asked {
            self.reads.pending.remove(&token);
            return Some(Err(error));
        }
        None
    }

    fn ask_hub(&mut self, token: u64, cx: &mut Context<'_, Self>) -> Result<(), Error> {
        let shared = self.reads.unsent(token);
        let Some(pending) = self.reads.pending.get_mut(&token) else {
            return Ok(());
        };
        pending.hub = Source::Asked;
        let limit = cx.timing().hub_probe;
        pending.since = Instant::now();
        let is_shared = shared.is_some();
        let request = shared.unwrap_or_else(|| HubRequest {
            number: token,
            sent: Arc::new(AtomicBool::new(false)),
        });
        pending.request = Some(request.clone());
        if pending.backup.is_untried() && !self.reads.is_watched(token) {
            cx.set_alarm(SLOW_READ, limit);
        }
        let Some(pending) = self.reads.pending.get(&token).filter(|_| !is_shared) else {
            return Ok(());
        };
        let (read, device, tools) = (
            pending.read.clone(),
            Arc::clone(&pending.device),
            Arc::clone(&self.tools),
        );
        let hub = CloudHub::new(
            Arc::clone(&tools),
            &self.settings,
            Arc::clone(&device),
            cx.events(),
        );
        let job = move || {
            request.sent.store(true, Ordering::SeqCst);
            let (keys, store) = (tools.as_ref(), &device.modules);
            let result = match &read {
                Read::All => modules::fetch_all(&hub, store)
                    .map(|all| Answer::Modules(Arc::clone(&device), all)),
                Read::One(name) => modules::fetch(&hub, store, name)
                    .and_then(|module| modules::grant(keys, module).map_err(Failure::local))
                    .map(|granted| Answer::Module(Arc::clone(&device), granted)),
            };
            Event::ReadFromHub(request.number, result)
        };
        cx.run(Lane::Cloud, job).map_err(|_| busy())?;
        Self::note_cloud_use(cx);
        Ok(())
    }

    fn ask_backup(&mut self, token: u64, cx: &mut Context<'_, Self>) -> Result<(), Error> {
        let Some(pending) = self.reads.pending.get_mut(&token) else {
            return Ok(());
        };
        pending.backup = Source::Asked;
        let (read, device, tools) = (
            pending.read.clone(),
            Arc::clone(&pending.device),
            Arc::clone(&self.tools),
        );
        let job = move || {
            let (keys, store) = (tools.as_ref(), &device.modules);
            let outcome = match &read {
                Read::All => store
                    .read_all()
                    .inspect_err(|error| {
                        log::warn!("could not read the backups of modules: {error}");
                    })
                    .ok()
                    .map(|all| Ok(Answer::Modules(Arc::clone(&device), all))),
                Read::One(name) => store.read(name).map(|module| {
                    modules::grant(keys, module)
                        .map(|granted| Answer::Module(Arc::clone(&device), granted))
                }),
            };
            Event::ReadFromBackup(token, outcome)
        };
        cx.run(Lane::Sibling, job).map_err(|_| busy())
    }

    /// The request to the hub of this number has ended.
    pub(super) fn hub_read(
        &mut self,
        number: u64,
        result: Result<Answer, Failure>,
        cx: &mut Context<'_, Self>,
    ) {
        let is_network = matches!(&result, Err(failure) if failure.kind == Kind::Network);
        let outcome = result.map_err(|failure| failure.error);
        for token in self.reads.waiting_for(number) {
            match &outcome {
                Err(error) if is_network => self.hub_lost(token, error, cx),
                _ => self.conclude_read(token, &outcome, cx),
            }
        }
    }

    /// A read has to do without the hub.
    fn hub_lost(&mut self, token: u64, error: &Error, cx: &mut Context<'_, Self>) {
        let Some(pending) = self.reads.pending.get_mut(&token) else {
            return;
        };
        pending.hub = Source::Without(Some(error.clone()));
        match pending.backup {
            Source::Untried => {
                let asked = self.ask_backup(token, cx);
                self.settle(token, asked, cx);
            }
            Source::Asked => {}
            Source::Without(_) => self.give_up(token, cx),
        }
    }

    pub(super) fn backup_read(
        &mut self,
        token: u64,
        outcome: Option<Result<Answer, Error>>,
        cx: &mut Context<'_, Self>,
    ) {
        let Some(pending) = self.reads.pending.get_mut(&token) else {
            return;
        };
        if let Some(outcome) = outcome {
            self.conclude_read(token, &outcome, cx);
            return;
        }
        pending.backup = Source::Without(None);
        match (&pending.hub, self.link.down()) {
            (Source::Asked, _) => {}
            (Source::Untried, Some(cause)) => {
                pending.hub = Source::Without(Some(cause.clone()));
                self.give_up(token, cx);
            }
            (Source::Untried, None) => {
                let asked = self.ask_hub(token, cx);
                self.settle(token, asked, cx);
            }
            (Source::Without(_), _) => self.give_up(token, cx),
        }
    }

    /// Reads that wait for the hub try the backup: it has failed somebody.
    pub(super) fn divert_reads(&mut self, cx: &mut Context<'_, Self>) {
        self.divert_reads_since(Duration::ZERO, cx);
    }

    /// Reads that have waited for the hub long enough try the backup.
    pub(super) fn expire_reads(&mut self, cx: &mut Context<'_, Self>) {
        let limit = cx.timing().hub_probe;
        if self.divert_reads_since(limit, cx) {
            self.link.note_slow();
            self.schedule_probe(cx);
        }
        let waiting = self
            .reads
            .pending
            .values()
            .filter(|p| matches!(p.hub, Source::Asked) && p.backup.is_untried());
        if let Some(first) = waiting.map(|pending| pending.since).min() {
            cx.set_alarm(
                SLOW_READ,
                limit
                    .saturating_sub(first.elapsed())
                    .max(Duration::from_millis(1)),
            );
        }
    }

    fn divert_reads_since(&mut self, waited: Duration, cx: &mut Context<'_, Self>) -> bool {
        let tokens: Vec<u64> = self
            .reads
            .pending
            .iter()
            .filter(|(_, p)| {
                matches!(p.hub, Source::Asked)
                    && p.backup.is_untried()
                    && p.since.elapsed() >= waited
            })
            .map(|(token, _)| *token)
            .collect();
        for token in &tokens {
            // The hub may still answer if the backup cannot be asked.
            if self.ask_backup(*token, cx).is_err()
                && let Some(pending) = self.reads.pending.get_mut(token)
            {
                pending.backup = Source::Without(None);
            }
        }
        !tokens.is_empty()
    }

    fn settle(&mut self, token: u64, asked: Result<(), Error>, cx: &mut Context<'_, Self>) {
        if let Err(error) = asked {
            self.conclude_read(token, &Err(error), cx);
        }
    }

    /// Neither hub nor backup.
    fn give_up(&mut self, token: u64, cx: &mut Context<'_, Self>) {
        let Some(pending) = self.reads.pending.get(&token) else {
            return;
        };
        let mut error = match &pending.read {
            Read::One(name) => Error::because(Class::Hub, modules::not_found(name)),
            Read::All => Error::new(Class::Hub),
        };
        if let Source::Without(Some(cause)) = &pending.hub {
            error = error.caused_by_error(cause);
        }
        self.conclude_read(token, &Err(error), cx);
    }

    fn conclude_read(
        &mut self,
        token: u64,
        outcome: &Result<Answer, Error>,
        cx: &mut Context<'_, Self>,
    ) {
        if let Some(pending) = self.reads.pending.remove(&token) {
            self.finish(pending.id, outcome, cx);
        }
    }
}
