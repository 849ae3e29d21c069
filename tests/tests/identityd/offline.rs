//! Without the hub.

use std::time::{Duration, Instant};

use aziot_tests::client;
use aziot_tests::simulator::{Action, CannedResponse, Fault, NewModule};
use serde_json::json;

use crate::device::{AT_ONCE, Bench, DEVICE, Identityd, SCALE, Source, ok, principal};

/// A device that has been reconciled once, with a module `m`, stopped.
fn with_backup() -> Bench {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    identityd.daemon.stop();
    bench
}

/// The quickest of a few, so that a busy machine does not count.
fn quickest(mut action: impl FnMut()) -> Duration {
    (0..10)
        .map(|_| {
            let begin = Instant::now();
            action();
            begin.elapsed()
        })
        .min()
        .expect("ten of them")
}

fn assert_served_offline(identityd: &Identityd) {
    let limit = Duration::from_millis(50);
    assert!(quickest(|| assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE)) < limit);
    assert!(quickest(|| assert_eq!(ok(&identityd.module("m"))["spec"]["moduleId"], "m")) < limit);
    let list = || ok(&identityd.get("/identities/modules?type=aziot"));
    assert!(
        quickest(|| assert_eq!(list()["identities"].as_array().map(Vec::len), Some(1))) < limit
    );
    let path = "/identities/provisioning?api-version=2022-08-01";
    assert!(
        quickest(|| assert_eq!(client::get(identityd.daemon.socket(), path).status, 200)) < limit
    );
    for response in [
        identityd.create("x"),
        identityd.update("m"),
        identityd.delete("m"),
    ] {
        assert_eq!(response.status, 404);
        let message = response.member("message");
        assert!(
            message.starts_with("Hub client error\ncaused by: could not connect to localhost:"),
            "{message}"
        );
    }
    assert!(quickest(|| assert_eq!(identityd.create("x").status, 404)) < limit);
}

#[test]
fn is_42_an_unreachable_hub_at_start_is_no_obstacle() {
    let bench = with_backup();
    bench.cloud.stop_listening().unwrap();
    let begin = Instant::now();
    let identityd = bench.started();
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    identityd.wait_for_status("hubReachable", &json!(false));
    assert_served_offline(&identityd);
    identityd
        .daemon
        .log()
        .wait_for("Network not available for Identity reconciliation.");
    // Once the hub is back the rest follows by itself.
    bench.cloud.listen_again().unwrap();
    identityd
        .daemon
        .log()
        .wait_for("Identity reconciliation complete.");
    identityd.wait_for_status("hubReachable", &json!(true));
    ok(&identityd.create("x"));
    bench.assert_clean();
}

#[test]
fn a_hub_that_is_lost_later_is_noticed_and_comes_back() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench.cloud.stop_listening().unwrap();
    let begin = Instant::now();
    assert_eq!(ok(&identityd.module("m"))["spec"]["moduleId"], "m");
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    identityd.wait_for_status("state", &json!("offline"));
    assert!(identityd.status()["nextAttempt"].is_string());
    assert_served_offline(&identityd);
    bench.cloud.listen_again().unwrap();
    identityd.daemon.log().wait_for("IoT Hub answers again.");
    identityd.wait_for_status("state", &json!("provisioned"));
    ok(&identityd.create("x"));
}

#[test]
fn a_silent_hub_costs_the_first_request_two_seconds() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench
        .cloud
        .add_fault(Fault::always(Action::HangConnection))
        .unwrap();
    let begin = Instant::now();
    ok(&identityd.module("m"));
    let waited = begin.elapsed().div_f64(SCALE);
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_secs(30),
        "{waited:?}"
    );
    assert!(quickest(|| drop(ok(&identityd.module("m")))) < Duration::from_millis(50));
}

#[test]
fn is_50_errors_that_speak_of_the_network() {
    for (status, body) in [
        (500, json!({ "Message": "the parent has lost the hub" })),
        (404, json!({ "Message": "lost", "networkError": true })),
        (503, json!({ "Message": "busy" })),
    ] {
        let bench = with_backup();
        let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
        let answer = CannedResponse::json(status, body);
        bench
            .cloud
            .add_fault(Fault::always(Action::Respond(answer)).on_route("module-get"))
            .unwrap();
        assert_eq!(
            ok(&identityd.module("m"))["spec"]["moduleId"],
            "m",
            "{status}"
        );
        assert_eq!(identityd.status()["hubReachable"], false, "{status}");
    }
}

#[test]
fn an_error_page_of_a_middlebox_is_no_end() {
    let bench = with_backup();
    let page = CannedResponse::html(502, "<html>Bad Gateway</html>");
    bench
        .cloud
        .add_fault(Fault::always(Action::Respond(page)))
        .unwrap();
    let identityd = bench.started();
    identityd
        .daemon
        .log()
        .wait_for("Network not available for Identity reconciliation.");
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    assert!(
        bench.requests(0, "register").len() == 1,
        "no new registration"
    );
}

#[test]
fn a_server_nobody_vouches_for_is_an_error_in_the_log() {
    for (action, reason) in [
        (
            Action::UntrustedCertificate,
            "unable to get local issuer certificate",
        ),
        (Action::ExpiredCertificate, "certificate has expired"),
        (Action::WrongName, "hostname mismatch"),
    ] {
        let bench = with_backup();
        bench.cloud.add_fault(Fault::always(action)).unwrap();
        let identityd = bench.started();
        let line = identityd.daemon.log().wait_for("[ERR!]");
        assert!(
            line.contains("the TLS certificate of localhost:") && line.contains("is not trusted"),
            "{line}"
        );
        let lower = identityd.daemon.log().text().to_lowercase();
        assert!(
            lower.contains(reason) || lower.contains("self-signed certificate"),
            "{reason}: {lower}"
        );
        assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    }
}

#[test]
fn the_keys_service_is_named_when_it_is_what_fails() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    let Bench { keyd, .. } = bench;
    keyd.stop();
    // A handle may be reused for a moment.
    client::eventually("an error", || {
        identityd.get("/identities/identity").status == 404
    });
    let response = identityd.get("/identities/identity");
    assert!(
        response
            .member("message")
            .starts_with("Key client error\ncaused by: could not connect to keyd.sock"),
        "{response}"
    );
    // Local trouble says nothing about the hub.
    let response = identityd.create("x");
    assert!(
        response.member("message").starts_with("Key client error\n"),
        "{response}"
    );
    assert_eq!(identityd.status()["hubReachable"], true);
}

#[test]
fn without_backup_and_network_the_service_stays_and_provisions_later() {
    let bench = Bench::new();
    bench.cloud.stop_listening().unwrap();
    bench.configure(Source::Dps, "", "");
    let mut identityd = bench.started();
    identityd
        .daemon
        .log()
        .wait_for("Failed to provision with IoT Hub, and no valid device backup was found: ");
    let response = identityd.get("/identities/identity");
    assert_eq!(response.status, 400);
    assert!(
        response
            .member("message")
            .starts_with("device identity not found\ncaused by: DPS client error"),
        "{response}"
    );
    assert_eq!(identityd.status()["state"], "not-provisioned");
    bench.cloud.listen_again().unwrap();
    identityd.wait_for_status("state", &json!("provisioned"));
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    identityd.daemon.assert_running();
}

#[test]
fn a_hub_that_throttles_is_asked_no_more_than_it_wants() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    let before = bench.cloud.last_request();
    bench
        .cloud
        .add_fault(Fault::always(Action::Throttle { retry_after: None }))
        .unwrap();
    ok(&identityd.module("m"));
    // The shortest pause after the first 429 is a minute.
    std::thread::sleep(Duration::from_secs(40).mul_f64(SCALE));
    assert_eq!(bench.requests(before, "module-get").len(), 1);
    assert_eq!(bench.requests(before, "module-list").len(), 0);
    bench.cloud.clear_faults();
    // By a probe, or by the request that waits for its second attempt: whichever comes first.
    client::eventually("a further request", || {
        !bench.requests(before, "module-list").is_empty()
            || bench.requests(before, "module-get").len() > 1
    });
    client::eventually("requests to the hub", || {
        ok(&identityd.module("m"));
        bench.requests(before, "module-get").len() >= 4
    });
}

#[test]
fn a_gateway_that_has_lost_the_hub_is_not_taken_for_it() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    let answer = CannedResponse::json(404, json!({ "Message": "lost", "networkError": true }));
    let before = bench.cloud.last_request();
    bench
        .cloud
        .add_fault(Fault::always(Action::Respond(answer)))
        .unwrap();
    ok(&identityd.module("m"));
    client::eventually("two probes", || {
        bench.requests(before, "module-list").len() >= 2
    });
    assert_eq!(identityd.daemon.log().count("IoT Hub answers again."), 0);
    assert_eq!(identityd.status()["hubReachable"], false);
}

#[test]
fn probes_that_break_off_back_off_too() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench.cloud.stop_listening().unwrap();
    ok(&identityd.module("m"));
    identityd.wait_for_status("hubReachable", &json!(false));
    let before = bench.cloud.last_request();
    bench.cloud.add_fault(Fault::always(Action::Reset)).unwrap();
    bench.cloud.listen_again().unwrap();
    client::eventually("a probe", || {
        !bench.requests(before, "module-list").is_empty()
    });
    std::thread::sleep(Duration::from_secs(20).mul_f64(SCALE));
    // 5, 10, 20 seconds, not as fast as it goes.
    let probes = bench.requests(before, "module-list").len();
    assert!(probes <= 4, "{probes} probes");
}

#[test]
fn a_hub_that_keeps_clients_waiting_does_not_keep_dps_from_being_asked() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench
        .cloud
        .add_fault(Fault::always(Action::Hang).on_route("module-create"))
        .unwrap();
    let before = bench.cloud.last_request();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d", "e"] {
            let identityd = &identityd;
            // Given up, or done by the second attempt, depending on when the hub works again.
            scope.spawn(move || assert!(matches!(identityd.create(name).status, 200 | 404)));
        }
        client::eventually("creations under way", || {
            bench.requests(before, "module-create").len() >= 4
        });
        assert_eq!(identityd.reprovision().status, 204);
        bench.cloud.clear_faults();
    });
}

#[test]
fn reads_that_wait_for_their_turn_share_a_request() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench
        .cloud
        .add_module(DEVICE, "new", NewModule::default())
        .unwrap();
    bench
        .cloud
        .add_fault(Fault::always(Action::Delay { ms: 1000 }).on_route("module-get"))
        .unwrap();
    let before = bench.cloud.last_request();
    std::thread::scope(|scope| {
        for _ in 0..9 {
            let identityd = &identityd;
            scope.spawn(move || {
                assert_eq!(ok(&identityd.module("new"))["spec"]["moduleId"], "new");
            });
        }
    });
    // Four threads, and one request for all that came later.
    let asked = bench.requests(before, "module-get").len();
    assert!((1..=5).contains(&asked), "{asked} requests");
}

#[test]
fn a_request_is_held_for_two_minutes_in_all() {
    let bench = Bench::new();
    bench.configure(Source::Dps, "", &principal(4242, "m", Some(&["module"])));
    // The device is there after a minute, its modules only after three.
    bench
        .cloud
        .add_fault(Fault::once(Action::Throttle { retry_after: None }).on_route("register"))
        .unwrap();
    bench
        .cloud
        .add_fault(Fault::always(Action::Hang).on_route("module-list"))
        .unwrap();
    let identityd = bench.start();
    let begin = Instant::now();
    let response = identityd.module("m");
    let waited = begin.elapsed().div_f64(SCALE);
    assert_eq!(response.status, 404);
    assert!(
        response
            .member("message")
            .contains("are still being reconciled"),
        "{response}"
    );
    assert!(
        waited >= Duration::from_secs(118) && waited < Duration::from_secs(160),
        "{waited:?}"
    );
}

#[test]
fn a_reprovisioning_that_fails_does_not_end_the_watch_for_the_hub() {
    let bench = with_backup();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench.cloud.stop_listening().unwrap();
    ok(&identityd.module("m"));
    identityd.wait_for_status("hubReachable", &json!(false));
    // Nothing else is under way: the next probe is a while off.
    identityd.daemon.log().wait_for("(attempt 1 of 1)");
    assert_eq!(identityd.reprovision().status, 404);
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    bench.cloud.listen_again().unwrap();
    identityd.daemon.log().wait_for("IoT Hub answers again.");
    ok(&identityd.create("x"));
}
