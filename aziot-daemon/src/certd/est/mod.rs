//! Certificates from EST servers (RFC 7030; certificates-service 7 and 9), and the EST identities that they are asked for
//! with.
//!
//! ```text
//!             enrol()                          store_changed(), configure()
//!                |                                        |
//!                v                                        v
//!   queue per server    --> issue job          examine job --> engine --> alarm
//!        ^                   |     |                             |
//!        |        identity lost    | certificate                 | due
//!        |                   v     v                             v
//!        +---- waiting <- rotate job    Event::Issued        rotate job
//! ```
//!
//! The state is in the loop's thread. Of each server at most `PER_SERVER` jobs are under way, the others wait
//! here. An identity is rotated by one job at a time, and whoever needs an identity that cannot be used waits for its end. A
//! rotation does not wait for those who use the identity: whoever is caught by the change in the middle of a handshake is
//! served again.

mod chain;
mod enrol;
mod identity;
mod issue;
mod keys;
mod plan;
mod queue;
mod renew;
mod rotate;
mod shared;
mod subject;
#[cfg(test)]
pub(super) mod testing;

use std::sync::Arc;
use std::time::Duration;

use aziot_core::api::certs::status::RenewalState;
use aziot_core::config::certd::Settings;
use aziot_core::renewal::{Engine, State};
use aziot_core::time::UnixTime;

use self::identity::Found;
use self::issue::Orders;
use self::plan::{Names, Server};
use self::queue::Queue;
use self::renew::Known;
use self::rotate::Rotated;
use self::shared::Shared;
use super::Certd;
use super::error::Error;
use super::tools::Tools;
use crate::client::{Proxies, ProxyError};
use crate::lanes::Lane;
use crate::service::{Alarm, Context, RequestId};

/// An identity may have to be renewed.
const RENEW: Alarm = Alarm(101);
/// A request has waited long enough.
const EXPIRE: Alarm = Alarm(102);
/// No EST server has been needed for a while.
const IDLE: Alarm = Alarm(103);

/// How long memory for TLS is kept after its last use, in seconds.
const IDLE_SECONDS: u64 = 60;

/// How many identities are renewed: far more than a configuration has.
const IDENTITIES: usize = 64;

/// What comes back from jobs.
pub enum Event {
    /// An identity was looked at.
    Examined(Names, u64, Result<Option<Found>, Error>),
    /// A certificate for a client was issued, or not.
    Ended(u64, issue::End),
    /// The new certificate of an identity and its key are about to be put in place.
    Committing(Names),
    /// An identity has got another certificate, or not.
    Rotated(Names, Server, Box<Rotated>),
    /// A job has nothing to tell.
    Idle,
}

/// How the renewal of a certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The certificate's id.
    pub id: String,
    /// What is being done about it.
    pub state: RenewalState,
    /// Since when that is so.
    pub since: UnixTime,
    /// When it is renewed, or tried again.
    pub next: Option<UnixTime>,
    /// Why it could not be renewed when that was tried last.
    pub last_error: Option<String>,
}

/// The part of the service that talks to EST servers. It lives in the loop's thread.
pub struct Est {
    tools: Arc<Tools>,
    proxies: Result<Arc<Proxies>, ProxyError>,
    /// There is none before the first configuration.
    shared: Option<Arc<Shared>>,
    /// Counts configurations: what was found under an earlier one does not count any more.
    configuration: u64,
    queue: Queue,
    /// What is being carried out.
    orders: Orders,
    known: Vec<Known>,
    engine: Engine<IDENTITIES>,
    /// Names for the engine that have been given away.
    names: u32,
    told_of_clock: bool,
}

impl Est {
    /// Without settings; nothing is known yet.
    #[must_use]
    pub fn new(tools: Arc<Tools>) -> Self {
        let proxies = Proxies::from_env().map(Arc::new);
        match &proxies {
            Ok(proxies) => {
                if let Some(url) = proxies.shown() {
                    log::info!("Detected HTTPS proxy server {url}");
                }
            }
            // Only what needs the proxy fails.
            Err(error) => log::error!("{}", error.to_string().replace("\ncaused by: ", ": ")),
        }
        let mut engine = Engine::new();
        engine.set_earliest(i64::try_from(crate::clock::earliest(None)).unwrap_or(i64::MAX));
        Self {
            tools,
            proxies,
            shared: None,
            configuration: 0,
            queue: Queue::default(),
            orders: Orders::default(),
            known: Vec::new(),
            engine,
            names: 0,
            told_of_clock: false,
        }
    }

    /// Takes up settings, at the start and after each reading of the configuration, changed or not.
    pub fn configure(&mut self, settings: &Arc<Settings>, cx: &mut Context<'_, Certd>) {
        let shared = Arc::new(Shared::new(
            Arc::clone(&self.tools),
            Arc::clone(settings),
            self.proxies.clone(),
        ));
        self.shared = Some(Arc::clone(&shared));
        self.configuration += 1;
        if settings.cert_issuance.est.is_some() {
            let reader = Arc::clone(&shared);
            let read = move || {
                if let Err(error) = reader.trust() {
                    log::warn!("{}", error.one_line());
                }
                Event::Idle
            };
            self.run(Lane::Local, read, cx);
        }
        self.register(&shared, cx);
        self.observe();
    }

    /// Has an EST server issue the certificate `id` for this request (DER). It ends in an [`Event::Issued`](super::Event::Issued).
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn enrol(
        &mut self,
        request: RequestId,
        id: &str,
        csr: Vec<u8>,
        cx: &mut Context<'_, Certd>,
    ) -> Result<(), Error> {
        let shared = self.shared.as_ref().ok_or_else(Error::busy)?;
        let access = plan::access(&shared.settings, id)?;
        let order = issue::Order::new(request, id, csr, access, shared.deadline());
        self.queue.push(order);
        // What is due is renewed meanwhile, also if its alarm is late.
        self.renew_due(cx);
        self.start_waiting(cx);
        self.observe();
        Ok(())
    }

    /// Digests the result of a job.
    pub fn event(&mut self, event: Event, cx: &mut Context<'_, Certd>) {
        match event {
            Event::Examined(names, configuration, found) => {
                if configuration == self.configuration {
                    self.examined(&names, found, cx);
                }
            }
            Event::Committing(names) => return self.committing(&names),
            Event::Ended(ticket, end) => self.issue_ended(ticket, end, cx),
            Event::Rotated(names, server, end) => {
                self.queue.finished(&server);
                self.rotated(&names, &server, &end, cx);
            }
            Event::Idle => return,
        }
        self.start_waiting(cx);
        self.arm(cx);
        self.observe();
    }

    /// An alarm that is not the service's own, or a step of the wall clock.
    pub fn alarm(&mut self, alarm: Alarm, cx: &mut Context<'_, Certd>) {
        match alarm {
            RENEW | Alarm::CLOCK_STEP => {
                self.renew_due(cx);
                self.arm(cx);
            }
            EXPIRE => self.start_waiting(cx),
            IDLE => self.give_memory_back(cx),
            _ => {}
        }
        self.observe();
    }

    /// A client has written or deleted a certificate.
    pub fn store_changed(&mut self, id: &str, cx: &mut Context<'_, Certd>) {
        self.identity_changed(id, cx);
        self.arm(cx);
        self.observe();
    }

    /// The certificates that are renewed.
    #[must_use]
    pub fn renewals(&self) -> Vec<Renewal> {
        let now = identity::now();
        let known = self.known.iter().filter_map(|known| {
            let (state, since) = known.state?;
            let entry = known.id.and_then(|id| self.engine.entry(id));
            let next = entry.and_then(|entry| entry.next(now));
            Some(Renewal {
                id: known.names.cert.clone(),
                state,
                since,
                next: next
                    .and_then(|next| u64::try_from(next).ok())
                    .and_then(UnixTime::from_secs),
                last_error: known.last_error.clone(),
            })
        });
        known.collect()
    }

    /// Notes since when identities are in their states.
    fn observe(&mut self) {
        let now = identity::now();
        for known in &mut self.known {
            let entry = known.id.and_then(|id| self.engine.entry(id));
            let state = match entry.map(|entry| self.engine.state(entry, now)) {
                Some(State::Dropped) => RenewalState::Dropped,
                Some(State::Renewing) => RenewalState::Renewing,
                Some(State::Retrying) => RenewalState::Retrying,
                Some(State::Scheduled) => RenewalState::Scheduled,
                Some(State::WaitingForTime) => RenewalState::WaitingForTime,
                // There is nothing to renew yet, or it could not even be registered.
                None if known.rotating() => RenewalState::Renewing,
                None if known.last_error.is_some() => RenewalState::Dropped,
                None => {
                    known.state = None;
                    continue;
                }
            };
            if known.state.is_none_or(|(before, _)| before != state) {
                known.state = Some((state, crate::server::wall_clock()));
            }
        }
    }

    /// Runs a job. If the lanes are full it is left out, which only jobs can bear that are an attempt.
    fn run(
        &self,
        lane: Lane,
        job: impl FnOnce() -> Event + Send + 'static,
        cx: &mut Context<'_, Certd>,
    ) -> bool {
        let job = move || super::Event::Est(job());
        cx.run(lane, job).is_ok()
    }

    /// Something uses TLS; when nothing does for a while, its memory is given back.
    fn note_use(cx: &mut Context<'_, Certd>) {
        let idle = cx.timing().seconds(IDLE_SECONDS);
        cx.set_alarm(IDLE, idle);
    }

    fn give_memory_back(&self, cx: &mut Context<'_, Certd>) {
        if self.queue.is_busy() {
            return Self::note_use(cx);
        }
        let Some(shared) = self.shared.clone() else {
            return;
        };
        let job = move || {
            shared.release();
            crate::sys::give_memory_back();
            Event::Idle
        };
        self.run(Lane::Local, job, cx);
    }
}

/// A moment from now, for alarms that are due.
const SOON: Duration = Duration::from_millis(1);
