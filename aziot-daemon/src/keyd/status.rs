//! `GET /status`: how the service stands, where keys are, whether tokens work.

use aziot_core::api::keys::status::{
    KeyStatus, LibraryStatus, List, State, Status, TokenState, TokenStatus,
};
use aziot_core::time::UnixTime;

use super::library::Report;
use super::library::report::{Key, Token};
use crate::outcome::VERSION;
use crate::service::{Handled, Reply};

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

/// Answers with the status. Without a report, the library cannot tell.
pub fn respond(reply: Reply<'_>, about: &About, report: Option<&Report>) -> Handled {
    let condition = Condition::of(about.started, report.map_or(&[], |report| &report.tokens));
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
    fn of(started: UnixTime, tokens: &[Token]) -> Self {
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

    #[test]
    fn all_is_well_unless_a_token_fails() {
        let started = UnixTime::from_secs(100).unwrap();
        let well = Condition {
            state: State::Running,
            since: started,
            reason: None,
            next_attempt: None,
        };
        assert_eq!(Condition::of(started, &[]), well);
        let tokens = [
            token("a", TokenState::Unused, 0, 0),
            token("b", TokenState::Working, 120, 0),
        ];
        assert_eq!(Condition::of(started, &tokens), well);
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
            Condition::of(started, &tokens),
            Condition {
                state: State::Degraded,
                since: UnixTime::from_secs(120).unwrap(),
                reason: Some("token c fails: c is gone; so does another token".to_owned()),
                next_attempt: Some(160),
            }
        );
        let one = Condition::of(started, &tokens[..2]);
        assert_eq!(one.reason.as_deref(), Some("token b fails: b is gone"));
    }
}
