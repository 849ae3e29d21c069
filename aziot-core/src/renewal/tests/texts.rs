use std::collections::BTreeSet;

use super::super::policy::{AutoRenew, Policy, PolicyError};
use super::super::{Message, Moment, Occasion, Outcome, Severity};

#[test]
fn cs_06_policies() {
    let parse = |text: &str| text.parse::<Policy>();
    for (text, policy) in [
        ("80%", Policy::Percentage(80)),
        ("+80%", Policy::Percentage(80)),
        ("007%", Policy::Percentage(7)),
        ("90min", Policy::Seconds(5400)),
        ("10day", Policy::Seconds(864_000)),
        ("1440min", Policy::Seconds(86_400)),
        ("99%", Policy::Percentage(99)),
    ] {
        assert_eq!(parse(text), Ok(policy), "{text}");
    }
    let none = "policy not specified";
    let number = "policy could not be parsed as number";
    let unit = "bad units for policy";
    let sign = "renewal policy values must be positive";
    let percent = "lifetime percentage must be less than 100";
    for (text, error) in [
        ("", none),
        ("day", number),
        ("%", number),
        ("80 %", number),
        (" 80%", number),
        ("80.5%", number),
        ("10days", number),
        ("1mins", number),
        ("1year", number),
        ("5", number),
        ("1h", unit),
        ("1440", unit),
        ("1Day", unit),
        ("n", unit),
        ("ay", unit),
        ("5y", unit),
        ("0%", sign),
        ("0min", sign),
        ("-5%", sign),
        ("100%", percent),
        ("101%", percent),
        ("9223372036854775807day", "policy time is too long"),
    ] {
        assert_eq!(
            parse(text).map_err(|error: PolicyError| error.to_string()),
            Err(error.to_owned()),
            "{text}"
        );
    }
    for (policy, text) in [
        (Policy::Percentage(80), "80%"),
        (Policy::Seconds(120), "2min"),
        (Policy::Seconds(86_460), "1441min"),
        (Policy::Seconds(3 * 86_400), "3day"),
        (Policy::Seconds(86_400), "1day"),
    ] {
        assert_eq!(policy.to_string(), text);
        assert_eq!(parse(text), Ok(policy));
    }
    assert_eq!(
        AutoRenew::default(),
        AutoRenew {
            rotate_key: true,
            threshold: Policy::Percentage(80),
            retry: Policy::Percentage(4)
        }
    );
}

#[test]
fn cs_47_times() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00+00:00"),
        (-1_000_000_000, "1938-04-24T22:13:20+00:00"),
        (1_000_000_000, "2001-09-09T01:46:40+00:00"),
        (-1, "1969-12-31T23:59:59+00:00"),
        (951_782_400, "2000-02-29T00:00:00+00:00"),
        (-2_203_891_200, "1900-03-01T00:00:00+00:00"),
        (-62_135_596_800, "0001-01-01T00:00:00+00:00"),
        (-62_167_219_200, "0000-01-01T00:00:00+00:00"),
        (-62_167_219_201, "the beginning of time"),
        (253_402_300_799, "9999-12-31T23:59:59+00:00"),
        (253_402_300_800, "the end of time"),
        (i64::MIN, "the beginning of time"),
        (Moment::NEVER.0, "the end of time"),
    ] {
        assert_eq!(Moment(seconds).to_string(), text, "{seconds}");
    }
}

#[test]
fn lines_of_the_log() {
    let id = "est-id";
    let reason = &"failed to clear temp key";
    for (message, severity, text) in [
        (
            Message::Added {
                id,
                next: 1_000_000_000,
            },
            Severity::Info,
            "Certificate est-id will be auto-renewed. Next renewal at 2001-09-09T01:46:40+00:00.",
        ),
        (
            Message::Attempting { id },
            Severity::Info,
            "Attempting to renew certificate est-id.",
        ),
        (
            Message::Renewed {
                id,
                next: 1_000_000_000,
            },
            Severity::Info,
            "Certificate est-id was renewed. Next renewal at 2001-09-09T01:46:40+00:00.",
        ),
        (
            Message::NoneLeft,
            Severity::Info,
            "No certificates left to renew.",
        ),
        (
            Message::WaitingForTime {
                earliest: 1_767_139_200,
            },
            Severity::Warning,
            "The clock of this device is not set (it cannot be before 2025-12-31T00:00:00+00:00); \
             no certificate is renewed until it is.",
        ),
    ] {
        assert_eq!(
            (message.severity(), message.to_string()),
            (severity, text.to_owned())
        );
    }

    let lines = |outcome: Outcome, writing| {
        outcome
            .messages(id, reason, writing)
            .into_iter()
            .flatten()
            .map(|message| (message.severity(), message.to_string()))
            .collect::<Vec<_>>()
    };
    let line = |severity, text: &str| vec![(severity, text.to_owned())];
    let retry = |occasion, usable| Outcome::Retry {
        next: 0,
        occasion,
        usable,
    };
    for writing in [false, true] {
        for usable in [false, true] {
            assert_eq!(
                lines(retry(Occasion::Scheduled, usable), writing),
                line(
                    Severity::Warning,
                    "Tried to renew est-id, but failed to clear temp key. \
                     Retrying at 1970-01-01T00:00:00+00:00."
                )
            );
        }
        assert_eq!(
            lines(
                Outcome::Dropped {
                    occasion: Occasion::Scheduled
                },
                writing
            ),
            line(
                Severity::Warning,
                "Tried to renew est-id, but failed to clear temp key. est-id will no longer be auto-renewed."
            )
        );
        assert_eq!(lines(Outcome::Renewed { next: 0 }, writing), []);
        assert_eq!(lines(Outcome::Unknown, writing), []);
    }
    for occasion in [Occasion::Added, Occasion::Requested] {
        let kept = "Tried to renew est-id, but failed to clear temp key.";
        let unwritten =
            "Tried to renew est-id, but failed to write new cert: failed to clear temp key.";
        let expired = "Cert est-id is expired and could not be renewed.";
        for (writing, text) in [(false, kept), (true, unwritten)] {
            assert_eq!(
                lines(retry(occasion, true), writing),
                line(Severity::Warning, text)
            );
            assert_eq!(
                lines(retry(occasion, false), writing),
                vec![
                    (Severity::Warning, text.to_owned()),
                    (Severity::Error, expired.to_owned())
                ]
            );
        }
        let dropped = Outcome::Dropped { occasion };
        assert_eq!(
            lines(dropped, false),
            line(
                Severity::Error,
                "Failed to initialize cert renewal for est-id: failed to clear temp key."
            )
        );
        assert_eq!(
            lines(dropped, true),
            line(
                Severity::Error,
                "Failed to write new cert est-id: failed to clear temp key."
            )
        );
    }
}

#[test]
fn states_have_different_words() {
    use super::super::State;
    let words: BTreeSet<&str> = [
        State::Dropped,
        State::Renewing,
        State::Retrying,
        State::Scheduled,
        State::WaitingForTime,
    ]
    .map(State::as_str)
    .into();
    assert_eq!(words.len(), 5);
    assert!(words.contains("waiting-for-time"));
}
