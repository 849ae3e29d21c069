use core::time::Duration;

use super::*;
use crate::retry::{Attempt, Attempts, Failure, Next};

fn registration(payload: Option<&'static str>) -> Registration<'static> {
    Registration {
        scope: ScopeId::new("0ne000ABCDE").unwrap(),
        id: RegistrationId::new("my-dev").unwrap(),
        attestation: Attestation::SymmetricKey,
        payload: payload.map(|text| Payload::new(text).unwrap()),
    }
}

fn enrolment(payload: Option<&'static str>) -> Enrolment<'static> {
    Enrolment::new(
        registration(payload),
        Policy::cloud(1, Policy::CLOUD_TIMEOUT),
    )
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One thing that a simulated service, or the network before it, does with an attempt.
#[derive(Clone, Copy)]
enum Does {
    /// Takes a while, then answers.
    Answers(u64, u16, &'static str),
    /// Answers with `Retry-After`.
    RetryAfter(u16, u64, &'static str),
    /// Answers with a page that is not JSON.
    Html(u16),
    Fails(Failure),
}

use Does::{Answers, Fails, Html, RetryAfter};

const ACCEPTED: Does = Answers(0, 202, r#"{"operationId":"5.op","status":"assigning"}"#);
const ASSIGNING: Does = Answers(0, 202, r#"{"operationId":"5.op","status":"assigning"}"#);
const ASSIGNED: Does = Answers(
    1,
    200,
    r#"{"operationId":"5.op","status":"assigned","registrationState":{"registrationId":"my-dev","assignedHub":"h.example","deviceId":"Dev=1","payload":{"x":[1]},"tpm":null,"substatus":"initialAssignment"}}"#,
);

/// Drives an enrolment through what the service does, on a simulated clock, with no jitter. The result lists each attempt
/// with the time at which it starts, and the end.
fn simulate(script: &[Does]) -> String {
    let mut enrolment = enrolment(None);
    let mut script = script.iter().copied();
    let mut now = Duration::ZERO;
    let mut log = String::new();
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    let mut event = Event::Start;
    loop {
        let step = match enrolment.next(event, now) {
            Step::Wait(pause) => {
                now += pause;
                event = Event::WaitOver;
                continue;
            }
            Step::Send(request) => request,
            Step::Done(Assignment { hub, device }) => {
                return format!("{log}{}: done {hub} {device}", now.as_secs());
            }
            Step::Failed(err) => {
                let network = if err.is_network() { " (network)" } else { "" };
                return format!("{log}{}: {err}{network}", now.as_secs());
            }
        };
        let mut attempts = Attempts::new(step.policy);
        let first = now;
        event = loop {
            log += &format!("{}: {}\n", now.as_secs(), step.method());
            let mut answered = None;
            let ended = match script.next().expect("the script is too short") {
                Answers(delay, status, body) => {
                    now += secs(delay);
                    answered = Some((status, true, None, body));
                    Attempt::Answered {
                        status,
                        retry_after: None,
                    }
                }
                RetryAfter(status, after, body) => {
                    let retry_after = Some(secs(after));
                    answered = Some((status, true, retry_after, body));
                    Attempt::Answered {
                        status,
                        retry_after,
                    }
                }
                Html(status) => {
                    answered = Some((status, false, None, "<html>"));
                    Attempt::Answered {
                        status,
                        retry_after: None,
                    }
                }
                Fails(failure) => {
                    if failure == Failure::TimedOut {
                        now += step.policy.timeout;
                    }
                    Attempt::Failed(failure)
                }
            };
            match attempts.after(ended, now - first, 0) {
                Next::Pause(pause) => now += pause.length,
                Next::GiveUp(gave_up) => break Event::GaveUp(gave_up),
                Next::UseAnswer => {
                    let (status, json, retry_after, body) = answered.unwrap();
                    bodies.push(body.as_bytes().to_vec());
                    // The machine may keep views of the body until the end.
                    let body = bodies.pop().unwrap().leak();
                    break Event::Answer(Answer {
                        status,
                        json,
                        retry_after,
                        body,
                    });
                }
            }
        };
    }
}

#[test]
fn is_44_targets_and_bodies() {
    let mut machine = enrolment(Some(
        " {\"big\": 12345678901234567890123, \"e\":\"\\u00AB\"}\n",
    ));
    let (mut target, mut body) = ([0; 256], [0; 256]);
    let Step::Send(register) = machine.next(Event::Start, Duration::ZERO) else {
        panic!()
    };
    assert_eq!(register.method(), "PUT");
    assert_eq!(
        machine.write_target(register, &mut target).unwrap(),
        "/0ne000ABCDE/registrations/my-dev/register?api-version=2021-06-01"
    );
    assert_eq!(
        machine.write_body(register, &mut body).unwrap().unwrap(),
        br#"{"registrationId":"my-dev","payload":{"big": 12345678901234567890123, "e":"\u00AB"}}"#
    );
    assert_eq!(register.policy, Policy::cloud(1, Policy::CLOUD_TIMEOUT));
    let mut answer = *br#"{"operationId":"5.aa/b-c"}"#;
    let answer = Answer {
        status: 202,
        json: true,
        retry_after: None,
        body: &mut answer,
    };
    assert_eq!(
        machine.next(Event::Answer(answer), secs(1)),
        Step::Wait(secs(5))
    );
    let Step::Send(poll) = machine.next(Event::WaitOver, secs(6)) else {
        panic!()
    };
    assert_eq!(poll.method(), "GET");
    assert_eq!(
        machine.write_target(poll, &mut target).unwrap(),
        "/0ne000ABCDE/registrations/my-dev/operations/5.aa%2Fb-c?api-version=2021-06-01"
    );
    assert_eq!(machine.write_body(poll, &mut body), Ok(None));
    assert_eq!((poll.policy.retries, poll.policy.timeout), (0, secs(30)));

    let machine = enrolment(None);
    assert_eq!(
        machine.write_body(register, &mut body).unwrap().unwrap(),
        br#"{"registrationId":"my-dev"}"#
    );
    let null = enrolment(Some("null"));
    let with_null = null.write_body(register, &mut body).unwrap().unwrap();
    assert_eq!(with_null, br#"{"registrationId":"my-dev","payload":null}"#);
    assert!(machine.write_body(register, &mut [0; 5]).is_err());
    assert!(machine.write_target(register, &mut [0; 5]).is_err());
}

#[test]
fn is_53_ids_stay_in_their_segment() {
    let registration = Registration {
        scope: ScopeId::new("a/b").unwrap(),
        id: RegistrationId::new("x?y%\\").unwrap(),
        ..registration(None)
    };
    let machine = Enrolment::new(registration, Policy::cloud(0, Policy::CLOUD_TIMEOUT));
    let mut target = [0; 128];
    let request = Request {
        call: Call::Register,
        policy: Policy::sibling(0),
    };
    assert_eq!(
        machine.write_target(request, &mut target).unwrap(),
        "/a%2Fb/registrations/x%3Fy%25%5C/register?api-version=2021-06-01"
    );
}

#[test]
fn is_44_outcomes() {
    let too_long: &'static str =
        String::leak(format!(r#"{{"operationId":"{}"}}"#, "x".repeat(257)));
    for (script, expected) in [
        (
            &[ACCEPTED, ASSIGNED][..],
            "0: PUT\n5: GET\n6: done h.example Dev=1",
        ),
        (
            &[ACCEPTED, ASSIGNING, ASSIGNED],
            "0: PUT\n5: GET\n10: GET\n11: done h.example Dev=1",
        ),
        (
            &[
                RetryAfter(202, 3, r#"{"operationId":"o"}"#),
                RetryAfter(202, 600, r#"{"status":"assigning"}"#),
                ASSIGNED,
            ],
            "0: PUT\n3: GET\n63: GET\n64: done h.example Dev=1",
        ),
        // Done at once.
        (
            &[Answers(
                0,
                200,
                r#"{"status":"assigned","registrationState":{"assignedHub":"h","deviceId":"d"}}"#,
            )],
            "0: PUT\n0: done h d",
        ),
        // The register request is tried again, polls are not, but one may be lost.
        (
            &[
                Fails(Failure::TimedOut),
                ACCEPTED,
                Fails(Failure::TimedOut),
                Html(502),
                ASSIGNING,
                ASSIGNED,
            ],
            "0: PUT\n73: PUT\n78: GET\n113: GET\n118: GET\n123: GET\n124: done h.example Dev=1",
        ),
        (
            &[Fails(Failure::NotConnected), Fails(Failure::NotConnected)],
            "0: PUT\n3: PUT\n3: could not connect (network)",
        ),
        (
            &[Fails(Failure::Broken), Fails(Failure::Broken)],
            "0: PUT\n3: PUT\n3: the connection broke off during the exchange",
        ),
        (
            &[ACCEPTED, Html(503), Html(503), Html(503), Html(503)],
            "0: PUT\n5: GET\n10: GET\n15: GET\n20: GET\n20: HTTP error 503 Service Unavailable (network)",
        ),
        // Throttling has its own schedule.
        (
            &[
                Answers(0, 429, ""),
                RetryAfter(429, 130, ""),
                ACCEPTED,
                ASSIGNED,
            ],
            "0: PUT\n60: PUT\n190: PUT\n195: GET\n196: done h.example Dev=1",
        ),
        (
            &[Answers(0, 429, ""); 5],
            "0: PUT\n60: PUT\n180: PUT\n360: PUT\n660: PUT\n660: 429: Too many requests (network)",
        ),
        // A service that never finishes.
        (
            &[ACCEPTED; 120],
            &((0..120).fold(String::new(), |log, i| {
                log + &format!("{}: {}\n", i * 5, if i == 0 { "PUT" } else { "GET" })
            }) + "595: the registration was still in progress after 600 seconds (network)"),
        ),
        (
            &[Answers(0, 500, "")],
            "0: PUT\n0: HTTP error 500 Internal Server Error (network)",
        ),
        (
            &[Html(502)],
            "0: PUT\n0: HTTP error 502 Bad Gateway (network)",
        ),
        (
            &[Html(202)],
            "0: PUT\n0: invalid Content-Type; expected JSON",
        ),
        (
            &[Answers(0, 404, "")],
            "0: PUT\n0: HTTP error 404 Not Found",
        ),
        (
            &[Answers(0, 204, "")],
            "0: PUT\n0: Expected one of [200, 202], got 204 No Content",
        ),
        (
            &[Answers(0, 302, "")],
            "0: PUT\n0: Expected one of [200, 202], got 302 Found",
        ),
        (
            &[Answers(
                0,
                401,
                r#"{"errorCode":401002,"trackingId":"t-1","message":"Unauthorized","timestampUtc":"x"}"#,
            )],
            "0: PUT\n0: Unauthorized (error code 401002, tracking id t-1)",
        ),
        (
            &[Answers(0, 400, r#"{"code":1e99,"errorMessage":"no"}"#)],
            "0: PUT\n0: no",
        ),
        (
            &[Answers(0, 400, r#"{"x":1}"#)],
            "0: PUT\n0: HTTP error 400 Bad Request",
        ),
        (
            &[Answers(0, 202, "{}")],
            "0: PUT\n0: missing field `operationId`",
        ),
        (
            &[Answers(0, 202, too_long)],
            "0: PUT\n0: the service answered with an operation id of 257 bytes; 1 to 256 are supported",
        ),
        (
            &[Answers(0, 202, "[")],
            "0: PUT\n0: EOF while parsing a list at line 1 column 1",
        ),
        (
            &[ACCEPTED, Answers(0, 401, r#"{"message":"expired"}"#)],
            "0: PUT\n5: GET\n5: expired",
        ),
    ] {
        assert_eq!(simulate(script), expected);
    }
}

#[test]
fn is_46_final_statuses_that_are_not_assigned() {
    for (body, expected) in [
        (
            r#"{"status":"failed","registrationState":{"errorCode":400207,"errorMessage":"Custom allocation failed"}}"#,
            "Custom allocation failed (error code 400207)",
        ),
        (r#"{"status":"failed"}"#, "the registration failed"),
        (
            r#"{"status":"disabled","registrationState":null}"#,
            "the registration is disabled; enable the enrolment in the provisioning service",
        ),
        (
            r#"{"status":"unassigned"}"#,
            "the device is not assigned to a hub; check the enrolment's hubs and allocation policy",
        ),
        (
            r#"{"status":"dancing"}"#,
            "unknown variant `dancing`, expected one of `assigned`, `assigning`, `failed`, `disabled`, `unassigned`",
        ),
        (r#"{"operationId":"o"}"#, "missing field `status`"),
        (
            r#"{"status":"assigned"}"#,
            "missing field `registrationState`",
        ),
        (
            r#"{"status":"assigned","registrationState":{"deviceId":"d"}}"#,
            "missing field `assignedHub`",
        ),
    ] {
        let log = simulate(&[ACCEPTED, Answers(0, 200, body)]);
        assert_eq!(log, format!("0: PUT\n5: GET\n5: {expected}"));
    }
}

#[test]
fn events_out_of_order_are_errors() {
    let mut machine = enrolment(None);
    assert_eq!(
        machine.next(Event::WaitOver, Duration::ZERO),
        Step::Failed(Error::OutOfOrder)
    );
    assert_eq!(
        machine.next(Event::Start, Duration::ZERO),
        Step::Failed(Error::OutOfOrder)
    );
}

#[test]
fn is_49_every_request_names_the_audience_to_sign() {
    let mut out = [0; 128];
    let token = crate::sas::SasToken::new(
        enrolment(None).audience(),
        crate::time::UnixTime::EPOCH,
        &mut out,
    )
    .unwrap();
    assert_eq!(token.to_sign(), b"0ne000abcde/registrations/my-dev\n30");
}

#[test]
fn payloads() {
    assert!(matches!(Payload::new("{"), Err(PayloadError::Json(_))));
    assert!(matches!(Payload::new(""), Err(PayloadError::Json(_))));
    let long = format!("\"{}\"", "x".repeat(MAX_PAYLOAD));
    assert_eq!(
        Payload::new(&long),
        Err(PayloadError::TooLong {
            length: MAX_PAYLOAD + 2
        })
    );
}

proptest::proptest! {
    #[test]
    fn any_answer_is_taken(status in 100..600_u16, json: bool, body in "[\\[\\]{}:,\"a-c0-9]{0,30}|\\PC{0,30}", after in proptest::option::of(0..100_000_u64)) {
        for accepted in [false, true] {
            let mut machine = enrolment(None);
            let mut operation = *br#"{"operationId":"o"}"#;
            machine.next(Event::Start, Duration::ZERO);
            if accepted {
                let answer = Answer { status: 202, json: true, retry_after: None, body: &mut operation };
                machine.next(Event::Answer(answer), Duration::ZERO);
                machine.next(Event::WaitOver, secs(5));
            }
            let mut body = body.clone().into_bytes();
            let retry_after = after.map(secs);
            match machine.next(Event::Answer(Answer { status, json, retry_after, body: &mut body }), secs(5)) {
                Step::Wait(pause) => proptest::prop_assert!(pause >= secs(1) && pause <= MAX_POLL_PAUSE),
                Step::Failed(err) => proptest::prop_assert!(!err.to_string().is_empty()),
                step => proptest::prop_assert!(matches!(step, Step::Done(_)), "{:?}", step),
            }
        }
    }
}
