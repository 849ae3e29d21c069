//! The order of the requests.

use core::time::Duration;

use super::answers::reply;
use super::*;
use crate::retry::Failure as Lost;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const BY: Duration = s(100);

/// What a scripted server says, and how many seconds later.
enum Say {
    Certificates(usize),
    Status(u16, &'static str, Option<u64>),
    Attributes(&'static str),
    Lose(Lost),
}

/// Runs an enrolment from second 40 on against a server, each of whose answers takes a second, and answers what it did.
fn run(kind: Kind, script: &[Say]) -> (Vec<String>, Enrolment) {
    let mut enrolment = Enrolment::new(kind, BY);
    let mut now = s(40);
    let mut log = vec![];
    let mut script = script.iter();
    loop {
        let operation = match enrolment.next(now) {
            Step::Send { operation, by } => {
                log.push(format!("{operation} by {}", by.as_secs()));
                operation
            }
            Step::Wait { until } => {
                assert!(until > now);
                log.push(format!("wait until {}", until.as_secs()));
                now = until;
                continue;
            }
            Step::Done => {
                log.push("done".to_owned());
                break;
            }
            Step::Failed(failure) => {
                log.push(failure.to_string());
                break;
            }
        };
        assert!(
            matches!(enrolment.next(now), Step::Send { operation: again, .. } if again == operation),
            "asking again changes nothing"
        );
        now += s(1);
        match script.next().expect("one request too many") {
            Say::Certificates(count) => {
                let certificates = blocks(CHAIN)[..*count].concat();
                let mut body = super::answers::signed_data(&certificates);
                let answer = reply(200, Some("application/pkcs7-mime"), &mut body);
                let read = enrolment.answered(answer, now);
                assert_eq!(read.iter().count(), *count);
            }
            Say::Status(status, text, retry_after) => {
                let mut body = text.as_bytes().to_vec();
                let answer = Reply {
                    retry_after: retry_after.map(s),
                    ..reply(*status, None, &mut body)
                };
                assert!(enrolment.answered(answer, now).is_empty());
            }
            Say::Attributes(text) => {
                let mut body = text.as_bytes().to_vec();
                let answer = reply(200, Some("application/csrattrs"), &mut body);
                assert!(enrolment.answered(answer, now).is_empty());
            }
            Say::Lose(failure) => enrolment.failed(*failure, now),
        }
    }
    assert!(script.next().is_none(), "a request is missing: {log:?}");
    // Nothing changes an end.
    let end = format!("{:?}", enrolment.next(s(1000)));
    enrolment.failed(Lost::Broken, now);
    let _ = enrolment.answered(reply(200, None, &mut []), now);
    assert_eq!(format!("{:?}", enrolment.next(s(0))), end);
    (log, enrolment)
}

fn log(kind: Kind, script: &[Say]) -> Vec<String> {
    run(kind, script).0
}

#[test]
fn cs_32_a_first_certificate() {
    let (log, enrolment) = run(Kind::First, &[Say::Certificates(2), Say::Certificates(1)]);
    // The certificates of the CA get a third of the time that is left.
    assert_eq!(log, ["cacerts by 60", "simpleenroll by 100", "done"]);
    assert_eq!(enrolment.ca_failure(), None);
    // A server that has none is no reason to complain.
    let (log, enrolment) = run(Kind::First, &[Say::Certificates(0), Say::Certificates(3)]);
    assert_eq!(log[2], "done");
    assert_eq!(enrolment.ca_failure(), None);
}

#[test]
fn a_renewal_and_servers_without_it() {
    assert_eq!(
        log(Kind::Renewal, &[Say::Certificates(1), Say::Certificates(1)]),
        ["cacerts by 60", "simplereenroll by 100", "done"]
    );
    for status in [404, 405, 501] {
        assert_eq!(
            log(
                Kind::Renewal,
                &[
                    Say::Certificates(1),
                    Say::Status(status, "", None),
                    Say::Certificates(1)
                ]
            ),
            [
                "cacerts by 60",
                "simplereenroll by 100",
                "simpleenroll by 100",
                "done"
            ]
        );
        let failed = log(
            Kind::First,
            &[Say::Certificates(1), Say::Status(status, "", None)],
        );
        assert!(failed[2].starts_with("simpleenroll: the EST server answered"));
    }
    let failed = log(
        Kind::Renewal,
        &[Say::Certificates(1), Say::Status(403, "", None)],
    );
    assert!(
        failed[2].starts_with("simplereenroll: the EST server answered 403"),
        "{failed:?}"
    );
}

#[test]
fn db_23_the_certificate_is_worth_more_than_those_of_the_ca() {
    for (say, text) in [
        (Say::Status(500, "", None), "500"),
        (Say::Status(202, "", Some(1)), "202"),
        (Say::Status(200, "", None), "no content type"),
        (Say::Lose(Lost::TimedOut), "deadline"),
        (Say::Lose(Lost::Broken), "broke off"),
    ] {
        let (log, enrolment) = run(Kind::First, &[say, Say::Certificates(1)]);
        assert_eq!(log, ["cacerts by 60", "simpleenroll by 100", "done"]);
        let failure = enrolment.ca_failure().unwrap().to_string();
        assert!(
            failure.starts_with("cacerts: ") && failure.contains(text),
            "{failure}"
        );
    }
    for lost in [Lost::NotConnected, Lost::NotTrusted] {
        assert_eq!(
            log(Kind::First, &[Say::Lose(lost)]),
            ["cacerts by 60".to_owned(), format!("cacerts: {lost}")]
        );
    }
}

#[test]
fn cs_35_a_server_that_has_not_decided() {
    assert_eq!(
        log(
            Kind::First,
            &[
                Say::Certificates(1),
                Say::Status(202, "", Some(10)),
                Say::Status(202, "", None),
                Say::Status(202, "", Some(0)),
                Say::Certificates(1),
            ]
        ),
        [
            "cacerts by 60",
            "simpleenroll by 100",
            "wait until 52",
            "simpleenroll by 100",
            "wait until 58",
            "simpleenroll by 100",
            "wait until 60",
            "simpleenroll by 100",
            "done"
        ]
    );
    let failed = log(
        Kind::Renewal,
        &[
            Say::Certificates(1),
            Say::Status(202, "", Some(20)),
            Say::Status(202, "", Some(50)),
        ],
    );
    assert_eq!(failed[2..4], ["wait until 62", "simplereenroll by 100"]);
    assert!(
        failed[4].starts_with("simplereenroll: the EST server has not decided")
            && failed[4].contains("50 seconds"),
        "{failed:?}"
    );
}

#[test]
fn a_server_that_asks_to_come_again() {
    assert_eq!(
        log(
            Kind::First,
            &[
                Say::Certificates(1),
                Say::Status(503, "", Some(3)),
                Say::Status(429, "", Some(4)),
                Say::Certificates(1)
            ]
        )[2..],
        [
            "wait until 45",
            "simpleenroll by 100",
            "wait until 50",
            "simpleenroll by 100",
            "done"
        ]
    );
    for say in [
        Say::Status(503, "", None),
        Say::Status(503, "", Some(600)),
        Say::Status(500, "", Some(1)),
        Say::Lose(Lost::TimedOut),
        Say::Lose(Lost::Broken),
    ] {
        assert_eq!(log(Kind::First, &[Say::Certificates(1), say]).len(), 3);
    }
}

#[test]
fn cs_35_a_refusal_is_explained() {
    let wishes = "MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw==";
    let refusal = "simpleenroll: the EST server answered 400 Bad Request, \"bad CSR\"; the CA does not accept this request";
    let refused = |say| {
        log(
            Kind::First,
            &[Say::Certificates(1), Say::Status(400, "bad CSR", None), say],
        )
    };
    assert_eq!(
        refused(Say::Attributes(wishes)),
        [
            "cacerts by 60".to_owned(),
            "simpleenroll by 100".to_owned(),
            "csrattrs by 52".to_owned(),
            format!(
                "{refusal}, which should have: challengePassword, ecPublicKey, extensionRequest, ecdsa-with-SHA384"
            ),
        ]
    );
    for say in [
        Say::Attributes("MAA="),
        Say::Status(404, "", None),
        Say::Lose(Lost::TimedOut),
        Say::Certificates(0),
    ] {
        assert_eq!(refused(say)[3], refusal);
    }
}

#[test]
fn cs_35_cs_36_no_certificate() {
    assert_eq!(
        log(Kind::First, &[Say::Certificates(2), Say::Certificates(0)])[2],
        "simpleenroll: the answer contains no certificate; look at the log of the EST server for the reason"
    );
}

#[test]
fn no_time_left() {
    let mut enrolment = Enrolment::new(Kind::First, BY);
    let late = "cacerts: there was no time left to ask the EST server";
    match enrolment.next(BY) {
        Step::Failed(failure) => assert_eq!(failure.to_string(), late),
        step => panic!("{step:?}"),
    }
    // A refusal stays what it is when there is no time left to explain it.
    let mut enrolment = Enrolment::new(Kind::First, BY);
    let _ = enrolment.answered(reply(500, None, &mut []), s(98));
    let _ = enrolment.answered(reply(400, None, &mut []), s(99));
    match enrolment.next(BY) {
        Step::Failed(failure) => assert!(failure.to_string().contains("400"), "{failure}"),
        step => panic!("{step:?}"),
    }
}
