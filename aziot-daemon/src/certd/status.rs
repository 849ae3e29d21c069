//! `GET /status`: which certificates there are, until when they are valid, how their renewal stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use aziot_core::api::certs::status::{
    CertificateLocation, CertificateStatus, List, RenewalState, State, Status,
};
use aziot_core::config::certd::Settings;
use aziot_core::limits::{STATUS_ENTRIES, STATUS_TEXT};
use aziot_core::pem;
use aziot_core::time::UnixTime;
use aziot_crypto::x509::Certificate;

use super::error::Error;
use super::est::Renewal;
use super::store::Store;
use super::target::{Place, Target, file_name};
use super::{Certd, Event, refuse};
use crate::clock;
use crate::lanes::Lane;
use crate::outcome::VERSION;
use crate::service::{Context, RequestId};

/// Most ids that are remembered because a client has used them.
const SEEN: usize = STATUS_ENTRIES;

/// Longest id that is remembered, in bytes. Nothing else bounds ids but the length of a request, and a single long one
/// would take the place of all others in the answer.
const SEEN_ID: usize = STATUS_TEXT / STATUS_ENTRIES / 2;

/// Ids that clients have used, of certificates in the store. The name of a file does not tell its id.
#[derive(Debug, Default)]
pub struct Seen(BTreeSet<String>);

impl Seen {
    /// A client has read or written this certificate.
    pub fn note(&mut self, target: &Target) {
        if matches!(target.place(), Place::Store(_))
            && target.id().len() <= SEEN_ID
            && self.0.len() < SEEN
            && !self.0.contains(target.id())
        {
            self.0.insert(target.id().to_owned());
        }
    }
}

/// What the disk says about certificates.
#[derive(Debug)]
pub struct Report {
    certificates: Vec<Found>,
    more: u32,
}

/// A certificate.
#[derive(Debug)]
struct Found {
    id: Option<String>,
    location: CertificateLocation,
    place: Option<String>,
    not_after: Option<UnixTime>,
    error: Option<String>,
}

/// What is to be looked at.
struct Question {
    settings: Arc<Settings>,
    seen: BTreeSet<String>,
    /// Of the certificates that are renewed.
    renewed: BTreeSet<String>,
}

impl Certd {
    /// Has the files looked at.
    pub(super) fn report(
        &mut self,
        request: RequestId,
        cx: &mut Context<'_, Self>,
    ) -> Result<(), Error> {
        let renewals = self.est.renewals();
        let question = Question {
            settings: Arc::clone(&self.settings),
            seen: self.seen.0.clone(),
            renewed: renewals.into_iter().map(|renewal| renewal.id).collect(),
        };
        let tools = Arc::clone(&self.tools);
        let job = move || Event::Reported(request, question.answer(&tools.store));
        cx.run_for(request, Lane::Report, job)
            .map_err(|_| Error::busy())
    }

    /// Answers with the status.
    pub(super) fn reported(
        &self,
        request: RequestId,
        result: Result<Report, Error>,
        cx: &mut Context<'_, Self>,
    ) {
        let Some(reply) = cx.reply(request) else {
            return;
        };
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                let _ = refuse(reply, &error);
                return;
            }
        };
        let renewals = self.est.renewals();
        let by_id: BTreeMap<&str, &Renewal> = renewals
            .iter()
            .map(|renewal| (renewal.id.as_str(), renewal))
            .collect();
        let plausible = clock::is_plausible(clock::now(), None);
        let condition = Condition::of(self.started, plausible, &renewals);
        let since = rfc3339(condition.since);
        let next = renewals.iter().filter_map(|renewal| renewal.next).min();
        let next = next.map(rfc3339);
        let times: Vec<_> = report
            .certificates
            .iter()
            .map(|found| {
                let renewal = found.id.as_deref().and_then(|id| by_id.get(id)).copied();
                let next = renewal.and_then(|renewal| renewal.next);
                (renewal, found.not_after.map(rfc3339), next.map(rfc3339))
            })
            .collect();
        let entries = report.certificates.iter().zip(&times);
        let _ = reply.ok(&Status {
            state: condition.state,
            since: &since,
            reason: condition.reason.as_deref(),
            next_attempt: next.as_deref(),
            version: VERSION,
            certificates: List(entries.map(|(found, (renewal, not_after, next))| {
                let failed = renewal.and_then(|renewal| renewal.last_error.as_deref());
                CertificateStatus {
                    id: found.id.as_deref(),
                    location: found.location,
                    place: found.place.as_deref(),
                    not_after: not_after.as_deref(),
                    renewal: renewal.map(|renewal| renewal.state),
                    next_renewal: next.as_deref(),
                    last_error: failed.or(found.error.as_deref()),
                }
            })),
            more: report.more,
        });
    }
}

impl Question {
    fn answer(&self, store: &Store) -> Result<Report, Error> {
        let mut report = Room::default();
        let mut unnamed = store.files()?;
        for id in self.ids() {
            match store.target(&self.settings.preloaded_certs, id) {
                Err(error) => report.add(|| Found {
                    id: Some(id.to_owned()),
                    location: CertificateLocation::Preloaded,
                    place: None,
                    not_after: None,
                    error: Some(error.one_line()),
                }),
                Ok(target) => {
                    let stored = matches!(target.place(), Place::Store(_));
                    let exists = unnamed.remove(&file_name(id));
                    if !stored || exists || self.renewed.contains(id) {
                        report.add(|| found(store, &target));
                    }
                }
            }
        }
        for name in unnamed {
            let path = store.directory().join(name);
            report.add(|| {
                let (not_after, error) = expiry(store.read_file(&path));
                Found {
                    id: None,
                    location: CertificateLocation::Store,
                    place: Some(path.display().to_string()),
                    not_after,
                    error,
                }
            });
        }
        Ok(report.report)
    }

    /// The ids that could be those of certificates, in order.
    fn ids(&self) -> BTreeSet<&str> {
        let issuance = &self.settings.cert_issuance;
        let mut ids: BTreeSet<&str> = self
            .settings
            .preloaded_certs
            .keys()
            .map(String::as_str)
            .collect();
        ids.extend(issuance.certs.keys().map(String::as_str));
        ids.extend(issuance.local_ca.as_ref().map(|ca| ca.cert.as_str()));
        let auths = issuance.certs.values().map(|entry| &entry.auth);
        for identity in auths
            .chain(issuance.est.as_ref().map(|est| &est.auth))
            .filter_map(|auth| auth.x509.as_ref())
        {
            ids.insert(&identity.identity_cert);
            ids.extend(identity.bootstrap.as_ref().map(|(cert, _)| cert.as_str()));
        }
        if let Some(est) = &issuance.est {
            ids.extend(est.trusted_certs.iter().map(String::as_str));
        }
        ids.extend(self.seen.iter().map(String::as_str));
        ids.extend(self.renewed.iter().map(String::as_str));
        // Of patterns only those that stand for themselves are ids.
        let patterns = self.settings.principals.iter().flat_map(|user| &user.certs);
        ids.extend(
            patterns
                .map(String::as_str)
                .filter(|pattern| !pattern.contains(['*', '?'])),
        );
        ids
    }
}

fn found(store: &Store, target: &Target) -> Found {
    let (location, place): (_, Option<&PathBuf>) = match target.place() {
        Place::Store(path) => (CertificateLocation::Store, Some(path)),
        Place::File(path) => (CertificateLocation::Preloaded, Some(path)),
        Place::List(_) => (CertificateLocation::List, None),
    };
    let (not_after, error) = expiry(store.read(target));
    Found {
        id: Some(target.id().to_owned()),
        location,
        place: place.map(|path| path.display().to_string()),
        not_after,
        error,
    }
}

/// When the first certificate of a text expires, or why that is not known.
fn expiry(text: Result<Option<String>, Error>) -> (Option<UnixTime>, Option<String>) {
    let first = match text {
        Ok(None) => return (None, None),
        Ok(Some(text)) => first_not_after(&text),
        Err(error) => Err(error.one_line()),
    };
    match first {
        Ok(not_after) => (Some(not_after), None),
        Err(reason) => (None, Some(reason)),
    }
}

fn first_not_after(text: &str) -> Result<UnixTime, String> {
    let block = pem::blocks(text.as_bytes())
        .find(|block| super::issue::CERTIFICATE.contains(&block.label))
        .ok_or("there is no certificate in it")?;
    let mut room = vec![0; block.max_len()];
    let der = block.decode(&mut room).map_err(|error| error.to_string())?;
    let certificate = Certificate::parse(der).map_err(|error| error.to_string())?;
    let seconds = u64::try_from(certificate.not_after()).unwrap_or(0);
    Ok(UnixTime::from_secs(seconds).unwrap_or(UnixTime::MAX))
}

/// A report that does not grow without bounds.
struct Room {
    report: Report,
    text: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            report: Report {
                certificates: Vec::new(),
                more: 0,
            },
            text: 0,
        }
    }
}

impl Room {
    /// Adds an entry as long as there is room; what is not told need not be looked for.
    fn add(&mut self, entry: impl FnOnce() -> Found) {
        if self.report.certificates.len() < STATUS_ENTRIES && self.text < STATUS_TEXT {
            let entry = entry();
            let texts = [&entry.id, &entry.place, &entry.error];
            let length: usize = texts.into_iter().flatten().map(String::len).sum();
            if self.text.saturating_add(length) <= STATUS_TEXT {
                self.text += length;
                self.report.certificates.push(entry);
                return;
            }
            self.text = STATUS_TEXT;
        }
        self.report.more = self.report.more.saturating_add(1);
    }
}

/// The state of the service, which is that of its worst renewal.
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    state: State,
    since: UnixTime,
    reason: Option<String>,
}

impl Condition {
    fn of(started: UnixTime, plausible: bool, renewals: &[Renewal]) -> Self {
        let first = |wanted: &[RenewalState]| {
            let those = renewals.iter().filter(|one| wanted.contains(&one.state));
            those.min_by_key(|renewal| renewal.since)
        };
        let waiting = first(&[RenewalState::WaitingForTime]);
        if !plausible || waiting.is_some() {
            return Self {
                state: State::WaitingForTime,
                since: waiting.map_or(started, |renewal| renewal.since),
                reason: Some(
                    "the clock of this device shows a time that cannot be; nothing is issued or renewed until it is set"
                        .to_owned(),
                ),
            };
        }
        match first(&[RenewalState::Retrying, RenewalState::Dropped]) {
            Some(renewal) => Self {
                state: State::Degraded,
                since: renewal.since,
                reason: Some(format!(
                    "certificate {:?} could not be renewed: {}",
                    renewal.id,
                    renewal
                        .last_error
                        .as_deref()
                        .unwrap_or("no reason is known")
                )),
            },
            None => Self {
                state: State::Running,
                since: started,
                reason: None,
            },
        }
    }
}

fn rfc3339(time: UnixTime) -> String {
    time.rfc3339().to_string()
}

#[cfg(test)]
mod tests {
    use aziot_core::limits;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_secs(seconds).unwrap()
    }

    fn renewal(id: &str, state: RenewalState, since: u64) -> Renewal {
        Renewal {
            id: id.to_owned(),
            state,
            since: at(since),
            next: None,
            last_error: Some(format!("{id} is in bad luck")),
        }
    }

    #[test]
    fn the_first_failure_that_lasts_counts_and_the_clock_before_all() {
        let well = Condition {
            state: State::Running,
            since: at(1),
            reason: None,
        };
        assert_eq!(Condition::of(at(1), true, &[]), well);
        let scheduled = renewal("a", RenewalState::Scheduled, 5);
        assert_eq!(
            Condition::of(at(1), true, std::slice::from_ref(&scheduled)),
            well
        );
        let mut all = vec![
            scheduled,
            renewal("b", RenewalState::Retrying, 9),
            renewal("c", RenewalState::Dropped, 7),
        ];
        let degraded = Condition::of(at(1), true, &all);
        assert_eq!((degraded.state, degraded.since), (State::Degraded, at(7)));
        assert_eq!(
            degraded.reason.as_deref(),
            Some("certificate \"c\" could not be renewed: c is in bad luck")
        );
        let stopped = Condition::of(at(1), false, &all);
        assert_eq!(
            (stopped.state, stopped.since),
            (State::WaitingForTime, at(1))
        );
        all.push(renewal("d", RenewalState::WaitingForTime, 8));
        let waiting = Condition::of(at(1), true, &all);
        assert_eq!(
            (waiting.state, waiting.since),
            (State::WaitingForTime, at(8))
        );
    }

    #[test]
    fn ids_of_clients_take_a_bounded_part_of_the_memory_and_of_the_answer() {
        let mut seen = Seen::default();
        let certs = std::path::Path::new("/certs");
        let mut note = |id: &str| {
            let preloaded = crate::certd::target::Preloaded::new();
            seen.note(&Target::resolve(certs, &preloaded, id).unwrap());
        };
        // Its file has a short name, so it can be stored.
        note(&"/".repeat(limits::BODY_CERTIFICATES / 2));
        note(&"/".repeat(SEEN_ID + 1));
        for n in 0..SEEN * 2 {
            note(&format!("{n:/>SEEN_ID$}"));
        }
        let lengths = seen.0.iter().map(String::len);
        assert_eq!(seen.0.len(), SEEN);
        assert!(lengths.sum::<usize>() <= STATUS_TEXT / 2);
    }

    #[test]
    fn a_report_has_bounds() {
        let entry = |length: usize| {
            move || Found {
                id: Some("x".repeat(length)),
                location: CertificateLocation::Store,
                place: None,
                not_after: None,
                error: None,
            }
        };
        let mut room = Room::default();
        for _ in 0..STATUS_ENTRIES + 3 {
            room.add(entry(1));
        }
        assert_eq!(room.report.certificates.len(), STATUS_ENTRIES);
        assert_eq!(room.report.more, 3);
        let mut room = Room::default();
        room.add(entry(STATUS_TEXT - 1));
        room.add(entry(2));
        room.add(entry(1));
        assert_eq!((room.report.certificates.len(), room.report.more), (1, 2));
    }
}
