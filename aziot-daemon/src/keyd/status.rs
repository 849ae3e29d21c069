//! `GET /status`: how the service stands, where keys are, whether tokens work.

use aziot_core::api::keys::status::{
    KeyStatus, LibraryStatus, List, State, Status, TokenState, TokenStatus,
};
use aziot_core::time::UnixTime;

use super::library::Report;
use super::library::report::{Key, Token};
use crate::outcome::VERSION;
use crate::service::{Handled, Reply, RequestId};

/// What of the status does not come from a report.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// When the service started.
    pub started: UnixTime,
    /// The version of the library's public function list.
    pub version: u32,
    /// Whether the library is ours.
    pub extended: bool,
}

/// What the library has told about its keys and tokens.
#[derive(Clone, Copy, Debug)]
pub enum Told<'r> {
    /// This.
    All(&'r Report),
    /// Nothing: it cannot.
    Nothing,
    /// Nothing yet, and it was asked at this time: one of its tokens does not answer.
    NotYet(UnixTime),
}

/// Answers with the status.
pub fn respond(reply: Reply<'_>, about: &About, told: Told<'_>) -> Handled {
    let report = match told {
        Told::All(report) => Some(report),
        Told::Nothing | Told::NotYet(_) => None,
    };
    let condition = Condition::of(about.started, told);
    let since = condition.since.rfc3339().to_string();
    let next_attempt = condition.next_attempt.map(rfc3339);
    let version = format!("0x{:08x}", about.version);
    let times: Vec<_> = report
        .iter()
        .flat_map(|report| &report.tokens)
        .map(|token| [token.since, token.next_attempt].map(|at| (at != 0).then(|| rfc3339(at))))
        .collect();
    reply.ok(&Status {
        state: condition.state,
        since: &since,
        reason: condition.reason.as_deref(),
        next_attempt: next_attempt.as_deref(),
        version: VERSION,
        library: LibraryStatus {
            version: &version,
            extended: about.extended,
        },
        keys: report.map(|report| List(report.keys.iter().map(key))),
        tokens: report.map(|report| List(report.tokens.iter().zip(&times).map(token))),
        more: report.map_or(0, |report| report.more),
    })
}

/// Requests for the status that wait for a report. A token that does not answer must not make the status wait for it:
/// that it does not answer is the status.
#[derive(Debug, Default)]
pub struct Waiting {
    requests: Vec<RequestId>,
    /// Since when the first of them has been waiting.
    since: UnixTime,
    /// The library has not told in time, and still has not.
    overdue: bool,
}

impl Waiting {
    /// Since when the library has owed a report for too long.
    pub fn overdue(&self) -> Option<UnixTime> {
        self.overdue.then_some(self.since)
    }

    /// Notes a request at the time `now`. True if it is the only one, and the time of the library begins.
    pub fn begin(&mut self, id: RequestId, now: UnixTime) -> bool {
        let first = self.requests.is_empty();
        if first {
            self.since = now;
        }
        self.requests.push(id);
        first
    }

    /// The library has told. True if there are others, for which its time begins anew.
    pub fn told(&mut self, id: RequestId, now: UnixTime) -> bool {
        self.requests.retain(|waiting| *waiting != id);
        self.overdue = false;
        self.since = now;
        !self.requests.is_empty()
    }

    /// The time of the library is over: all that wait are to be answered without it.
    pub fn give_up(&mut self) -> Vec<RequestId> {
        self.overdue = !self.requests.is_empty();
        std::mem::take(&mut self.requests)
    }
}

fn key(key: &Key) -> KeyStatus<'_> {
    KeyStatus {
        id: key.id.as_deref(),
        kind: key.kind,
        location: key.location,
        place: key.place.as_deref(),
        preloaded: key.preloaded,
        remark: key.remark.as_deref(),
    }
}

fn token<'r>(
    (token, [since, next_attempt]): (&'r Token, &'r [Option<String>; 2]),
) -> TokenStatus<'r> {
    TokenStatus {
        uri: &token.uri,
        state: token.state,
        since: since.as_deref(),
        failure: token.failure.as_deref(),
        next_attempt: next_attempt.as_deref(),
        sessions: token.sessions,
    }
}

fn rfc3339(seconds: u64) -> String {
    UnixTime::from_secs(seconds)
        .unwrap_or(UnixTime::MAX)
        .rfc3339()
        .to_string()
}

/// The state of the service, which is that of its worst token.
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    state: State,
    since: UnixTime,
    reason: Option<String>,
    next_attempt: Option<u64>,
}

impl Condition {
    fn of(started: UnixTime, told: Told<'_>) -> Self {
        let tokens: &[Token] = match told {
            Told::All(report) => &report.tokens,
            Told::Nothing => &[],
            Told::NotYet(asked) => {
                let reason = "the key library does not tell about its keys and tokens: a token does not answer";
                return Self {
                    state: State::Degraded,
                    since: asked,
                    reason: Some(reason.to_owned()),
                    next_attempt: None,
                };
            }
        };
        let failing = || {
            tokens
                .iter()
                .filter(|token| token.state == TokenState::Failing)
        };
        let Some(first) = failing().min_by_key(|token| token.since) else {
            return Self {
                state: State::Running,
                since: started,
                reason: None,
                next_attempt: None,
            };
        };
        let mut reason = format!(
            "token {} fails: {}",
            first.uri,
            first.failure.as_deref().unwrap_or("no reason is known")
        );
        match failing().count() {
            1 => {}
            2 => reason.push_str("; so does another token"),
            count => reason.push_str(&format!("; so do {} other tokens", count - 1)),
        }
        let attempts = failing().map(|token| token.next_attempt);
        Self {
            state: State::Degraded,
            since: UnixTime::from_secs(first.since).unwrap_or(started),
            reason: Some(reason),
            next_attempt: attempts.filter(|at| *at != 0).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(uri: &str, state: TokenState, since: u64, next_attempt: u64) -> Token {
        Token {
            uri: uri.to_owned(),
            state,
            since,
            failure: (state == TokenState::Failing).then(|| format!("{uri} is gone")),
            next_attempt,
            sessions: 0,
        }
    }

    fn of(started: UnixTime, tokens: &[Token]) -> Condition {
        let report = Report {
            tokens: tokens.to_vec(),
            ..Report::default()
        };
        Condition::of(started, Told::All(&report))
    }

    fn id(number: u64) -> RequestId {
        RequestId {
            index: 0,
            generation: 0,
            number,
        }
    }

    #[test]
    fn a_library_that_does_not_tell_is_not_asked_again_and_again() {
        let at = |seconds| UnixTime::from_secs(seconds).unwrap();
        let mut waiting = Waiting::default();
        assert!(waiting.begin(id(1), at(10)));
        assert!(!waiting.begin(id(2), at(11)));
        assert!(waiting.told(id(1), at(12)), "the second waits");
        assert_eq!(waiting.overdue(), None);
        assert_eq!(waiting.give_up(), [id(2)]);
        assert_eq!(waiting.overdue(), Some(at(12)));
        assert_eq!(
            Condition::of(at(1), Told::NotYet(at(12))).since,
            at(12),
            "since the library owes a report"
        );
        assert!(!waiting.told(id(2), at(20)));
        assert_eq!(waiting.overdue(), None);
        // An alarm that comes too late finds nobody.
        assert_eq!(waiting.give_up(), []);
        assert_eq!(waiting.overdue(), None);
    }

    #[test]
    fn all_is_well_unless_a_token_fails() {
        let started = UnixTime::from_secs(100).unwrap();
        let well = Condition {
            state: State::Running,
            since: started,
            reason: None,
            next_attempt: None,
        };
        assert_eq!(Condition::of(started, Told::Nothing), well);
        assert_eq!(of(started, &[]), well);
        let tokens = [
            token("a", TokenState::Unused, 0, 0),
            token("b", TokenState::Working, 120, 0),
        ];
        assert_eq!(of(started, &tokens), well);
    }

    #[test]
    fn the_first_failure_that_lasts_counts() {
        let started = UnixTime::from_secs(100).unwrap();
        let tokens = [
            token("a", TokenState::Working, 110, 0),
            token("b", TokenState::Failing, 130, 160),
            token("c", TokenState::Failing, 120, 0),
        ];
        assert_eq!(
            of(started, &tokens),
            Condition {
                state: State::Degraded,
                since: UnixTime::from_secs(120).unwrap(),
                reason: Some("token c fails: c is gone; so does another token".to_owned()),
                next_attempt: Some(160),
            }
        );
        let one = of(started, &tokens[..2]);
        assert_eq!(one.reason.as_deref(), Some("token b fails: b is gone"));
    }
}
