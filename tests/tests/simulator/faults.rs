//! Misbehaviour on command.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use aziot_tests::simulator::token::sign;
use aziot_tests::simulator::{Action, CannedResponse, Fault, Framing, NewDevice};
use serde_json::{Value, json};

use super::client::{self, Answer, Client, DEVICE_KEY, Failure, now, simulator};
use super::{assert_no_violations, assert_violation};

#[test]
fn requests_can_go_wrong_in_every_way() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let fault = |action| simulator.add_fault(Fault::once(action)).unwrap();

    fault(Action::Respond(
        CannedResponse::html(502, "<html>").with_header("retry-after", "0"),
    ));
    let html = client.list("d").unwrap();
    assert_eq!(
        (
            html.status,
            html.header("content-type"),
            html.text().as_str()
        ),
        (502, Some("text/html"), "<html>")
    );
    fault(Action::Respond(CannedResponse::json(
        500,
        json!({ "Message": "m", "networkError": true }),
    )));
    assert_eq!(client.list("d").unwrap().json()["networkError"], true);
    fault(Action::Respond(CannedResponse::json(503, Value::Null)));
    assert_eq!(client.list("d").unwrap().text(), "");
    fault(Action::Throttle { retry_after: None });
    let throttled = client.list("d").unwrap();
    assert_eq!(
        (throttled.status, throttled.header("retry-after")),
        (429, None)
    );
    fault(Action::ContentType("text/plain".into()));
    assert_eq!(
        client.list("d").unwrap().header("content-type"),
        Some("text/plain")
    );

    fault(Action::Reset);
    assert_eq!(client.create("d", "m").unwrap_err(), Failure::Reset);
    assert!(simulator.module("d", "m").is_none());
    fault(Action::LoseAnswer);
    assert_eq!(client.create("d", "m").unwrap_err(), Failure::Reset);
    assert!(simulator.module("d", "m").is_some());
    fault(Action::Truncate { bytes: 20 });
    assert_eq!(client.list("d").unwrap_err(), Failure::Ended { after: 20 });
    fault(Action::Hang);
    let client_in_a_hurry = Client::new(&simulator).with_timeout(Duration::from_millis(200));
    assert_eq!(client_in_a_hurry.list("d").unwrap_err(), Failure::Timeout);
    fault(Action::Delay { ms: 150 });
    let start = Instant::now();
    assert_eq!(client.list("d").unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(150));
    fault(Action::Drip { bytes: 50, ms: 5 });
    let start = Instant::now();
    let dripped = client.list("d").unwrap();
    assert_eq!(dripped.json().as_array().unwrap().len(), 1);
    assert!(start.elapsed() >= Duration::from_millis(5 * (dripped.length as u64 / 50)));
    let faults: Vec<_> = simulator
        .log_since(0)
        .into_iter()
        .filter_map(|entry| entry.fault)
        .collect();
    assert_eq!(faults.len(), 11);
    assert_no_violations(&simulator);
}

#[test]
fn is_49_tokens_are_checked_even_when_a_fault_answers() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    simulator
        .add_fault(Fault::once(Action::Throttle { retry_after: None }))
        .unwrap();
    let old = sign(
        DEVICE_KEY,
        &format!("{}/devices/d", simulator.hub()),
        now() - 5,
        None,
    );
    let target = "/devices/d/modules?api-version=2017-11-08-preview";
    let head = client::head("GET", target, Some(&old), None, &simulator.hub(), "");
    assert_eq!(client.exchange(&head).unwrap().status, 429);
    assert_violation(&simulator, "expired");
}

#[test]
fn connections_can_go_wrong_in_every_way() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator).with_timeout(Duration::from_secs(5));
    for action in [
        Action::UntrustedCertificate,
        Action::ExpiredCertificate,
        Action::WrongName,
    ] {
        simulator.add_fault(Fault::once(action.clone())).unwrap();
        assert_eq!(
            client.list("d").unwrap_err(),
            Failure::Certificate,
            "{action:?}"
        );
    }
    simulator
        .add_fault(Fault::once(Action::ResetConnection))
        .unwrap();
    assert!(matches!(
        client.list("d").unwrap_err(),
        Failure::Reset | Failure::Handshake
    ));
    simulator
        .add_fault(Fault::once(Action::HangConnection))
        .unwrap();
    let in_a_hurry = Client::new(&simulator).with_timeout(Duration::from_millis(200));
    assert_eq!(in_a_hurry.list("d").unwrap_err(), Failure::Timeout);
    assert_eq!(client.list("d").unwrap().status, 200);
    assert_eq!(simulator.log_since(0).len(), 1);
    assert_eq!(simulator.connection_counts().0, 6);
}

#[test]
fn every_framing_carries_the_same_answer() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    client.create("d", "m").unwrap();
    let usual = client.list("d").unwrap();
    assert!(usual.header("content-length").is_some());
    for framing in [Framing::Chunked, Framing::Close, Framing::Length] {
        simulator.change_settings(|settings| settings.framing = framing);
        assert_eq!(client.list("d").unwrap().json(), usual.json());
    }
}

#[test]
fn a_shifted_clock_refuses_good_tokens_without_blaming_the_client() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let date = |answer: &Answer| answer.header("date").unwrap().to_owned();
    let before = date(&client.list("d").unwrap());
    for skew in [3600, -3600] {
        simulator.set_clock_skew(skew);
        let refused = client.list("d").unwrap();
        assert_eq!(refused.status, 401);
        assert_ne!(date(&refused), before); // an hour apart, so the texts differ
    }
    assert_no_violations(&simulator);
    simulator.set_clock_skew(0);
    assert_eq!(client.list("d").unwrap().status, 200);
}

#[test]
fn an_outage_refuses_connections_and_ends_on_the_same_port() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let mut kept = client.connect().unwrap();
    let get = client.list_request("d");
    assert_eq!(client.exchange_over(&mut kept, &get).unwrap().status, 200);
    for _ in 0..2 {
        simulator.stop_listening().unwrap();
        simulator.stop_listening().unwrap(); // twice is fine
        assert!(client.exchange_over(&mut kept, &get).is_err());
        assert_eq!(client.list("d").unwrap_err(), Failure::Refused);
        simulator.listen_again().unwrap();
        simulator.listen_again().unwrap();
        assert_eq!(client.list("d").unwrap().status, 200);
    }
    simulator.stop_listening().unwrap(); // and it can be dropped like this
}

#[test]
fn dropping_ends_hanging_connections_at_once() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    simulator.add_fault(Fault::always(Action::Hang)).unwrap();
    let client = Client::new(&simulator);
    let request = client.list_request("d");
    let mut connection = client.connect().unwrap();
    connection.write_all(&request).unwrap();
    assert!(simulator.wait_for_requests(0, 1, Duration::from_secs(10)));
    let start = Instant::now();
    drop(simulator);
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest);
    assert!(rest.is_empty());
}
