//! What is sent to the cloud. The simulator checks every head, token and body, and lists what is wrong.

use std::time::Instant;

use aziot_tests::simulator::{Action, Fault};
use serde_json::json;

use crate::device::{Bench, DEVICE, SCALE, Source, ok, principal};

#[test]
fn is_43_is_44_is_47_dm_10_a_whole_life_without_a_violation() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    ok(&identityd.create("n"));
    ok(&identityd.update("n"));
    ok(&identityd.module("n"));
    ok(&identityd.get("/identities/modules?type=aziot"));
    assert_eq!(identityd.delete("n").status, 204);
    assert_eq!(identityd.reprovision().status, 204);
    bench.assert_clean();

    let entries = bench.cloud.log_since(0);
    for entry in &entries {
        let has = |name: &str| entry.request.header(name).is_some();
        assert!(has("authorization") && has("host"), "{entry:?}");
        for absent in [
            "user-agent",
            "accept",
            "cookie",
            "connection",
            "transfer-encoding",
        ] {
            assert!(!has(absent), "{absent} in {entry:?}");
        }
        let changes = matches!(entry.route, "module-keys" | "module-delete");
        assert_eq!(
            entry.request.header("if-match"),
            changes.then_some("*"),
            "{entry:?}"
        );
        let version = if matches!(entry.route, "register" | "poll") {
            "2021-06-01"
        } else {
            "2017-11-08-preview"
        };
        assert!(
            entry
                .request
                .target
                .ends_with(&format!("?api-version={version}")),
            "{entry:?}"
        );
    }
    let scope = bench.cloud.scope_id();
    let register = entries
        .iter()
        .find(|entry| entry.route == "register")
        .unwrap();
    assert_eq!(
        register.request.target,
        format!("/{scope}/registrations/{DEVICE}/register?api-version=2021-06-01")
    );
    assert_eq!(
        register.request.body,
        format!(r#"{{"registrationId":"{DEVICE}"}}"#).as_bytes()
    );
    let create = entries
        .iter()
        .find(|entry| entry.route == "module-create")
        .unwrap();
    assert_eq!(
        create.request.body,
        format!(r#"{{"moduleId":"m","deviceId":"{DEVICE}"}}"#).as_bytes()
    );
}

#[test]
fn the_payload_is_sent_as_it_is_written() {
    let bench = Bench::new();
    let text = r#"{"big": 123456789012345678901234567890, "b":1, "a": 1.0}"#;
    let path = bench.root.write("payload.json", format!("{text}\n"));
    let identityd = bench.reconciled(
        Source::Dps,
        &format!(
            "[provisioning.payload]\nuri = \"file://{}\"\n",
            path.display()
        ),
    );
    let register = bench.requests(0, "register").remove(0);
    assert_eq!(
        register.request.body,
        format!(r#"{{"registrationId":"{DEVICE}","payload":{text}}}"#).as_bytes()
    );
    identityd.daemon.stop();
    bench.assert_clean();
}

#[test]
fn is_44_polls_wait_as_long_as_they_are_told() {
    // The simulator lists polls that come too early; without Retry-After they are 5 s apart.
    for retry_after in [Some(7), None] {
        let bench = Bench::with(|config| {
            config.settings.assigning_polls = 3;
            config.settings.retry_after = retry_after;
        });
        let begin = Instant::now();
        bench.configure(Source::Dps, "", "");
        let identityd = bench.start();
        identityd
            .daemon
            .log()
            .wait_for("DPS registration complete.");
        let polls = u32::try_from(bench.requests(0, "poll").len()).unwrap();
        assert_eq!(polls, 4);
        let least = f64::from(polls * retry_after.unwrap_or(5)) * SCALE;
        assert!(
            begin.elapsed().as_secs_f64() >= least,
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(
            identityd
                .daemon
                .log()
                .count("DPS registration is still in progress."),
            3
        );
        bench.assert_clean();
    }
}

#[test]
fn is_48_hc_02_hc_03_is_49_throttling_and_failures_have_their_pauses() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    let begin = Instant::now();
    let before = bench.cloud.last_request();
    bench
        .cloud
        .add_fault(
            Fault::always(Action::Throttle { retry_after: None })
                .times(2)
                .on_route("module-create"),
        )
        .unwrap();
    ok(&identityd.create("m"));
    // 60 + U(0, 10) and 120 + U(0, 20) seconds of the protocol.
    let waited = begin.elapsed().as_secs_f64() / SCALE;
    assert!((180.0..235.0).contains(&waited), "{waited}");
    identityd
        .daemon
        .log()
        .wait_for("HTTP request throttled (attempt 1 of 5). Sleeping for 6");
    identityd
        .daemon
        .log()
        .wait_for("HTTP request throttled (attempt 2 of 5). Sleeping for 1");
    let creates = bench.requests(before, "module-create");
    assert_eq!(creates.len(), 3);
    // Every attempt has a token of its own.
    let tokens: Vec<_> = creates
        .iter()
        .map(|entry| entry.request.header("authorization").map(str::to_owned))
        .collect();
    assert!(
        tokens[0] != tokens[1] && tokens[1] != tokens[2],
        "{tokens:?}"
    );

    // One attempt more after a connection that breaks, 3 s later; other answers stand.
    let before = bench.cloud.last_request();
    bench
        .cloud
        .add_fault(Fault::once(Action::Reset).on_route("module-keys"))
        .unwrap();
    let begin = Instant::now();
    ok(&identityd.update("m"));
    assert!(begin.elapsed().as_secs_f64() >= 3.0 * SCALE);
    assert_eq!(bench.requests(before, "module-keys").len(), 2);
    identityd
        .daemon
        .log()
        .wait_for("Failed to send HTTP request (attempt 1 of 2)");
    bench.assert_clean();
}

#[test]
fn hc_05_answers_that_are_not_json() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    bench
        .cloud
        .add_fault(
            Fault::once(Action::ContentType("text/html".to_owned())).on_route("module-create"),
        )
        .unwrap();
    identityd.create("m").assert_message(
        404,
        "Hub client error\ncaused by: invalid Content-Type; expected JSON",
    );
    let json = "application/json; charset=utf-8".to_owned();
    bench
        .cloud
        .add_fault(Fault::once(Action::ContentType(json)).on_route("module-create"))
        .unwrap();
    ok(&identityd.create("n"));
}

#[test]
fn half_an_answer_is_none() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    ok(&identityd.create("m"));
    // Both attempts are cut short; a broken exchange is no network error, so there is no falling back.
    bench
        .cloud
        .add_fault(Fault::always(Action::Truncate { bytes: 150 }).on_route("module-keys"))
        .unwrap();
    let response = identityd.update("m");
    assert_eq!(response.status, 404);
    assert!(
        response
            .member("message")
            .contains("end of file before message length reached"),
        "{response}"
    );
    assert_eq!(bench.requests(0, "module-keys").len(), 3);
    bench.cloud.clear_faults();
    ok(&identityd.update("m"));
    let drip = Fault::once(Action::Drip { bytes: 7, ms: 1 }).on_route("module-get");
    bench.cloud.add_fault(drip).unwrap();
    assert_eq!(ok(&identityd.module("m"))["spec"]["moduleId"], json!("m"));
}
