//! What happened: every request, and every deviation from what the daemon has to send.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::http::Request;

/// How many requests are kept; older ones are dropped and counted.
const MAX_ENTRIES: usize = 10_000;

/// How many violations are kept; later ones are counted only.
const MAX_VIOLATIONS: usize = 1_000;

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counts requests from 1, never reset.
    pub number: u64,
    /// When it came, by the simulator's clock (RFC 3339).
    pub time: String,
    /// Which connection it came over, counted from 1.
    pub connection: u64,
    /// The request.
    pub request: Request,
    /// The name of its route.
    pub route: &'static str,
    /// The status of the answer; none when no answer was sent.
    pub status: Option<u16>,
    /// Why it was refused, if it was.
    pub refusal: Option<String>,
    /// The fault that hit it, if one did.
    pub fault: Option<&'static str>,
    /// What was wrong with it.
    pub violations: Vec<String>,
}

impl Entry {
    /// As the control interface shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "number": self.number,
            "time": self.time,
            "connection": self.connection,
            "method": self.request.method,
            "target": self.request.target,
            "headers": self.request.headers,
            "body": String::from_utf8_lossy(&self.request.body),
            "route": self.route,
            "status": self.status,
            "refusal": self.refusal,
            "fault": self.fault,
            "violations": self.violations,
        })
    }
}

/// A deviation from what the daemon has to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the request, 0 when it could not even be read.
    pub number: u64,
    /// Method and target, as far as they are known.
    pub request: String,
    /// What was wrong.
    pub problem: String,
}

impl Violation {
    /// As the control interface shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "number": self.number, "request": self.request, "problem": self.problem })
    }
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "request {} ({}): {}",
            self.number, self.request, self.problem
        )
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    last: u64,
    violations: Vec<Violation>,
    violation_count: u64,
}

impl Journal {
    /// The number that the next request gets.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// The number of requests so far.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last
    }

    /// Notes a request, and its violations with it.
    pub fn record(&mut self, entry: Entry) {
        self.last = entry.number;
        for problem in &entry.violations {
            let request = format!("{} {}", entry.request.method, entry.request.target);
            self.note(Violation {
                number: entry.number,
                request,
                problem: problem.clone(),
            });
        }
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Notes that something came that is no request.
    pub fn record_unreadable(&mut self, problem: String) {
        self.note(Violation {
            number: 0,
            request: "unreadable".to_owned(),
            problem,
        });
    }

    /// The requests after number `since`, oldest first.
    pub fn entries_since(&self, since: u64) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.number > since)
    }

    /// The violations, oldest first.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many there were, those included that are not kept.
    #[must_use]
    pub fn violation_count(&self) -> u64 {
        self.violation_count
    }

    /// Forgets the requests; numbers go on.
    pub fn clear_entries(&mut self) {
        self.entries.clear();
    }

    /// Forgets the violations.
    pub fn clear_violations(&mut self) {
        self.violations.clear();
        self.violation_count = 0;
    }

    fn note(&mut self, violation: Violation) {
        self.violation_count += 1;
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }
}
