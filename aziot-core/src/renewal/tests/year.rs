//! A year in the life of a device with 20 certificates, simulated: its table of events is compared with the reviewed one
//! in `snapshots/`.
//!
//! When the engine changes on purpose, run this test with `INSTA_UPDATE=always`, read what has changed in the table, and
//! commit it with the reason.

use std::fmt::Write as _;

use super::super::policy::AutoRenew;
use super::super::{Added, Engine, FLOOR, Failure, Id, Leaf, Moment, Outcome, Standing, State};
use super::{DAY, policy};

/// 2026-01-10T00:00:00Z.
const START: i64 = 1_768_003_200;
const END: i64 = START + 365 * DAY;
/// The clock is not set before 2025-12-31T00:00:00Z.
const EARLIEST: i64 = 1_767_139_200;
const YEAR: i64 = 365 * DAY;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Authority {
    /// Always there.
    South,
    /// Out of order from day 120 to day 135.
    North,
    /// Fails one time in three; one time in eight the store does not tell whether it has taken the certificate.
    Flaky,
    /// Issues certificates of which a fifth is over already.
    Backdating,
    /// Takes 90 s.
    Slow,
    /// Refuses for good from day 300 on.
    Closing,
}

struct Certificate {
    name: &'static str,
    lifetime: i64,
    policy: AutoRenew,
    authority: Authority,
    bootstrap: bool,
    stored: Leaf,
    serial: u32,
    renewals: u32,
    failures: u32,
    attempted: Option<i64>,
    /// How long it has been expired in the course of the year.
    expired: i64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The device starts with this clock.
    Start(i64),
    /// The clock is set to the true time and this.
    SetClock(i64),
    Suspend,
    Resume,
    /// Somebody puts another certificate in the place of this one.
    Replace(usize),
    /// The configuration is loaded again: this one is watched again.
    Reload(usize),
}

const EVENTS: [(i64, Event); 13] = [
    (START, Event::Start(30)),
    (START + 600, Event::SetClock(0)),
    (START + 40 * DAY, Event::SetClock(5 * YEAR)),
    (START + 40 * DAY + 7200, Event::SetClock(0)),
    (START + 90 * DAY, Event::Suspend),
    (START + 110 * DAY, Event::Resume),
    (START + 150 * DAY, Event::SetClock(-DAY)),
    (START + 151 * DAY, Event::SetClock(0)),
    (START + 200 * DAY, Event::Replace(4)),
    (START + 240 * DAY, Event::Reload(4)),
    (START + 250 * DAY, Event::Start(START + 250 * DAY)),
    (START + 330 * DAY, Event::SetClock(-20 * YEAR)),
    (START + 333 * DAY, Event::SetClock(0)),
];

struct Job {
    certificate: usize,
    ends: i64,
}

struct Year {
    /// True time.
    now: i64,
    /// What the clock of the device is ahead.
    ahead: i64,
    engine: Engine<20>,
    certificates: Vec<Certificate>,
    jobs: Vec<Job>,
    stepped: i64,
    random: u32,
    table: String,
}

fn certificates() -> Vec<Certificate> {
    use Authority::{Backdating, Closing, Flaky, North, Slow, South};
    let certificate = |name, days: i64, age: i64, threshold, retry, authority, bootstrap| {
        let not_before = START - age * DAY;
        Certificate {
            name,
            lifetime: days * DAY,
            policy: policy(threshold, retry),
            authority,
            bootstrap,
            stored: Leaf::new(not_before, not_before + days * DAY, name.as_bytes()),
            serial: 0,
            renewals: 0,
            failures: 0,
            attempted: None,
            expired: 0,
        }
    };
    vec![
        certificate("a-default-90", 90, 0, "80%", "4%", South, true),
        certificate("b-default-30", 30, 0, "80%", "4%", South, true),
        certificate("c-old-at-start", 90, 85, "80%", "4%", South, true),
        certificate("d-expired", 90, 100, "80%", "4%", South, true),
        certificate("e-by-hand", 60, 0, "80%", "4%", South, true),
        certificate("f-expired-alone", 90, 100, "80%", "4%", South, false),
        certificate("g-alone", 90, 10, "80%", "4%", South, false),
        certificate("h-north-60", 60, 20, "80%", "4%", North, true),
        certificate("i-north-days", 90, 40, "10day", "1day", North, true),
        certificate("j-north-alone", 45, 0, "50%", "2%", North, false),
        certificate("k-flaky-30", 30, 5, "80%", "4%", Flaky, true),
        certificate("l-flaky-hours", 45, 5, "3day", "90min", Flaky, true),
        certificate("m-flaky-alone", 60, 0, "70%", "1%", Flaky, false),
        certificate("n-backdated", 50, 0, "80%", "4%", Backdating, true),
        certificate("o-slow", 40, 3, "75%", "5%", Slow, true),
        certificate("p-closing", 60, 0, "80%", "4%", Closing, true),
        certificate("q-two-years", 730, 0, "80%", "4%", South, true),
        certificate("r-last-day", 30, 0, "1day", "60min", South, true),
        certificate("s-forever", 3_000_000, 0, "80%", "4%", South, true),
        certificate("t-early", 90, 0, "10%", "30day", South, true),
    ]
}

fn id(certificate: usize) -> Id {
    Id(u32::try_from(certificate).unwrap())
}

fn text(time: i64) -> String {
    Moment(time).to_string().replace("+00:00", "")
}

impl Year {
    fn clock(&self) -> i64 {
        self.now + self.ahead
    }

    fn random(&mut self) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.random.rotate_left(16)
    }

    fn tell(&mut self, who: &str, what: &str) {
        let now = text(self.now);
        writeln!(self.table, "{now}  {who:<16} {what}").unwrap();
    }

    fn tell_about(&mut self, certificate: usize, what: &str) {
        self.tell(self.certificates[certificate].name, what);
    }

    fn run(&mut self) {
        let mut events = EVENTS.into_iter().peekable();
        let mut suspended = false;
        loop {
            // The earliest of: what happens to the device, the end of a job, the alarm.
            let event = events.peek().map_or(END, |(at, _)| *at);
            let job = self
                .jobs
                .iter()
                .map(|job| job.ends)
                .min()
                .filter(|_| !suspended);
            let alarm = self
                .engine
                .wake(self.clock())
                .filter(|_| !suspended)
                .map(|wake| wake.saturating_sub(self.ahead));
            let next = [Some(event), job, alarm]
                .into_iter()
                .flatten()
                .min()
                .unwrap();
            let next = next.max(self.now).min(END);
            self.pass_time(next);
            if self.now == END {
                return;
            }
            if let Some((_, event)) = events.next_if(|(at, _)| *at == self.now) {
                match event {
                    Event::Suspend => suspended = true,
                    Event::Resume => suspended = false,
                    _ => {}
                }
                self.happens(event);
            }
            if suspended {
                continue;
            }
            while let Some(at) = self.jobs.iter().position(|job| job.ends <= self.now) {
                let job = self.jobs.remove(at);
                self.ends(job.certificate);
            }
            while let Some(Id(due)) = self.engine.due(self.clock()) {
                self.begins(usize::try_from(due).unwrap());
            }
            let clock = self.clock();
            assert!(
                self.engine.wake(clock).is_none_or(|wake| wake > clock),
                "an alarm that has passed would ring for ever"
            );
        }
    }

    fn pass_time(&mut self, until: i64) {
        for certificate in &mut self.certificates {
            let since = certificate.stored.not_after.max(self.now);
            certificate.expired += (until - since).max(0);
        }
        self.now = until;
    }

    fn happens(&mut self, event: Event) {
        self.stepped = self.now;
        match event {
            Event::Start(clock) => {
                self.ahead = clock - self.now;
                self.jobs.clear();
                self.engine.clear();
                self.engine.set_earliest(EARLIEST);
                self.tell(
                    "(device)",
                    &format!("starts; its clock says {}", text(clock)),
                );
                for certificate in 0..self.certificates.len() {
                    self.add(certificate);
                }
            }
            Event::SetClock(ahead) => {
                self.ahead = ahead;
                let clock = text(self.clock());
                self.tell("(device)", &format!("its clock is set to {clock}"));
            }
            Event::Suspend => self.tell("(device)", "is suspended"),
            Event::Resume => self.tell("(device)", "resumes"),
            Event::Replace(certificate) => {
                let stored = Leaf::new(self.now, self.now + 60 * DAY, b"by hand");
                self.certificates[certificate].stored = stored;
                self.tell_about(certificate, "replaced by hand");
            }
            Event::Reload(certificate) => {
                self.engine.forget(id(certificate));
                self.add(certificate);
            }
        }
    }

    fn add(&mut self, certificate: usize) {
        let Certificate { policy, stored, .. } = self.certificates[certificate];
        match self
            .engine
            .add(id(certificate), policy, stored, self.clock())
            .unwrap()
        {
            Added::Due => {
                self.tell_about(certificate, "added, due");
                self.begins(certificate);
            }
            Added::Scheduled { next } => {
                let next = text(next);
                self.tell_about(certificate, &format!("added, next {next}"));
            }
            Added::WaitingForTime => self.tell_about(certificate, "added, waits for the clock"),
        }
    }

    /// A renewal begins; what it sees of the store at once, the rest when the authority has answered.
    fn begins(&mut self, number: usize) {
        let clock = self.clock();
        let entry = *self.engine.entry(id(number)).unwrap();
        let certificate = &mut self.certificates[number];
        if let Some(before) = certificate.attempted.replace(self.now) {
            assert!(
                self.now - before >= FLOOR || self.stepped >= before,
                "{} is tried at {before} and at {}",
                certificate.name,
                self.now
            );
        }
        match entry.standing(&certificate.stored, clock) {
            Standing::Changed => self.fails(number, Failure::Fatal, "it was replaced"),
            Standing::Current => self.succeeds(number, "completed"),
            Standing::Expired if !certificate.bootstrap => {
                self.fails(
                    number,
                    Failure::Fatal,
                    "it has expired and there is no bootstrap pair",
                );
            }
            Standing::Due | Standing::Expired => {
                let takes = if certificate.authority == Authority::Slow {
                    90
                } else {
                    2
                };
                self.jobs.push(Job {
                    certificate: number,
                    ends: self.now + takes,
                });
            }
        }
    }

    fn ends(&mut self, number: usize) {
        let day = (self.now - START) / DAY;
        let chance = self.random() >> 8;
        let certificate = &self.certificates[number];
        let fifth = certificate.lifetime / 5;
        let (failure, backdated) = match certificate.authority {
            Authority::South | Authority::Slow => (None, 0),
            Authority::North => ((120..135).contains(&day).then_some(Failure::Retryable), 0),
            Authority::Backdating => (None, fifth),
            Authority::Closing => ((day >= 300).then_some(Failure::Fatal), 0),
            Authority::Flaky if chance.is_multiple_of(3) => (Some(Failure::Retryable), 0),
            Authority::Flaky if chance % 8 == 1 => {
                // It has been stored after all, but nobody knows.
                self.issue(number, 0);
                let stored = self.certificates[number].stored;
                (Some(Failure::Unfinished(stored)), 0)
            }
            Authority::Flaky => (None, 0),
        };
        match failure {
            None => {
                self.issue(number, backdated);
                self.succeeds(number, "renewed");
            }
            Some(failure) => {
                let reason = match failure {
                    Failure::Retryable => "the authority fails",
                    Failure::Fatal => "the authority refuses",
                    Failure::Unfinished(_) => "the store does not answer",
                };
                self.fails(number, failure, reason);
            }
        }
    }

    fn issue(&mut self, number: usize, backdated: i64) {
        let certificate = &mut self.certificates[number];
        certificate.serial += 1;
        let not_before = self.now - backdated;
        let der = format!("{} {}", certificate.name, certificate.serial);
        certificate.stored = Leaf::new(
            not_before,
            not_before + certificate.lifetime,
            der.as_bytes(),
        );
    }

    fn succeeds(&mut self, number: usize, what: &str) {
        let stored = self.certificates[number].stored;
        let random = self.random();
        match self
            .engine
            .renewed(id(number), stored, self.clock(), random)
        {
            Outcome::Renewed { next } => {
                self.certificates[number].renewals += 1;
                let (until, next) = (text(stored.not_after), text(next));
                self.tell_about(number, &format!("{what}, valid until {until}, next {next}"));
            }
            other => panic!("{other:?}"),
        }
    }

    fn fails(&mut self, number: usize, failure: Failure, reason: &str) {
        let random = self.random();
        self.certificates[number].failures += 1;
        match self
            .engine
            .failed(id(number), failure, self.clock(), random)
        {
            Outcome::Retry { next, usable, .. } => {
                let expired = if usable { "" } else { ", expired" };
                let next = text(next);
                self.tell_about(number, &format!("{reason}{expired}, next {next}"));
            }
            Outcome::Dropped { .. } => self.tell_about(number, &format!("{reason}, dropped")),
            other => panic!("{other:?}"),
        }
    }

    fn summary(&mut self) {
        self.table.push_str("\nin the end\n");
        for (number, certificate) in self.certificates.iter().enumerate() {
            let entry = self.engine.entry(id(number)).unwrap();
            let clock = self.now + self.ahead;
            let next = entry.next(clock).map_or_else(|| "never".to_owned(), text);
            writeln!(
                self.table,
                "{:<16} {:<9} {:>2} renewals, {:>2} failures, expired for {} d {} h, next {next}",
                certificate.name,
                self.engine.state(entry, clock).as_str(),
                certificate.renewals,
                certificate.failures,
                certificate.expired / DAY,
                certificate.expired % DAY / 3600,
            )
            .unwrap();
        }
    }
}

#[test]
fn a_year_of_twenty_certificates() {
    let mut year = Year {
        now: START,
        ahead: 0,
        engine: Engine::new(),
        certificates: certificates(),
        jobs: Vec::new(),
        stepped: START,
        random: 2026,
        table: String::new(),
    };
    year.run();
    year.summary();
    for (number, certificate) in year.certificates.iter().enumerate() {
        let name = certificate.name;
        let entry = year.engine.entry(id(number)).unwrap();
        // By the authority's will, or for want of anything to authenticate with.
        let lost = matches!(name, "f-expired-alone" | "p-closing");
        let state = year.engine.state(entry, END);
        assert_eq!(state == State::Dropped, lost, "{name}: {state:?}");
        assert!(
            lost || certificate.renewals > 0 || certificate.lifetime > YEAR,
            "{name}"
        );
        if lost {
            continue;
        }
        assert_eq!(entry.leaf, certificate.stored, "{name}");
        let expired = match name {
            // Its authority is out of order for longer than its threshold.
            "i-north-days" => 6 * DAY,
            // The device is suspended.
            "r-last-day" => 11 * DAY,
            // The clock is not set.
            "d-expired" => 602,
            _ => 0,
        };
        assert!(
            certificate.expired <= expired,
            "{name}: {}",
            certificate.expired
        );
    }
    insta::assert_snapshot!("year", year.table);
}
