//! How the device gets its identity.

use std::time::{Duration, Instant};

use aziot_tests::client::{self, request};
use aziot_tests::simulator::{Action, CannedResponse, Enrolment, Fault, Outcome};
use serde_json::json;

use crate::device::{AT_ONCE, Bench, DEVICE, SCALE, Source, VERSION, ok, principal, target};

#[test]
fn is_32_manual_provisioning_needs_nobody() {
    let bench = Bench::new();
    bench.cloud.stop_listening().unwrap();
    bench.configure(Source::Manual, "", "");
    let begin = Instant::now();
    let identityd = bench.start();
    let identity = identityd.identity();
    assert!(begin.elapsed() < AT_ONCE * 5, "{:?}", begin.elapsed());
    assert_eq!(identity["spec"]["deviceId"], DEVICE);
    assert_eq!(identity["spec"]["auth"]["type"], "sas");
    identityd
        .daemon
        .log()
        .wait_for("Updated device info for Dev-1.");
    // The first attempt ends without the hub, and the service stays.
    identityd
        .daemon
        .log()
        .wait_for("Network not available for Identity reconciliation.");
    identityd.daemon.log().wait_for("Starting server...");
    identityd.wait_for_status("state", &json!("offline"));
}

#[test]
fn manual_provisioning_reconciles_with_the_hub() {
    let bench = Bench::new();
    bench.register_device();
    let identityd = bench.reconciled(Source::Manual, &principal(4242, "m", Some(&["module"])));
    assert!(bench.cloud.module(DEVICE, "m").is_some());
    assert!(bench.requests(0, "register").is_empty());
    identityd.wait_for_status("state", &json!("provisioned"));
    bench.assert_clean();
}

#[test]
fn is_33_a_valid_backup_makes_dps_superfluous() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    identityd.daemon.stop();
    let before = bench.cloud.last_request();
    let begin = Instant::now();
    let identityd = bench.start();
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    identityd
        .daemon
        .log()
        .wait_for("Provisioned with backup for Dev-1.");
    identityd
        .daemon
        .log()
        .wait_for("Identity reconciliation complete.");
    assert!(bench.requests(before, "register").is_empty());
    assert_eq!(bench.requests(before, "module-list").len(), 1);
    // `Starting server...` came at once, not after the reconciliation.
    let log = identityd.daemon.log().text();
    assert!(
        log.find("Starting server...").unwrap()
            < log.find("Identity reconciliation complete.").unwrap(),
        "{log}"
    );
}

#[test]
fn is_34_state_files_that_make_no_sense() {
    for (content, warned) in [
        ("hub_name = 7", true),
        ("garbage", true),
        ("unprovisioned", false),
    ] {
        let bench = Bench::new();
        let path = bench
            .root
            .write("var/lib/aziot/identityd/device_info", content);
        bench.configure(Source::Dps, "", "");
        let identityd = bench.start();
        identityd
            .daemon
            .log()
            .wait_for("Successfully provisioned with DPS.");
        let log = identityd.daemon.log();
        assert_eq!(
            log.count("Ignoring invalid device info backup: ") > 0,
            warned,
            "{}",
            log.text()
        );
        log.wait_for("Identity reconciliation complete.");
        assert!(
            std::fs::read_to_string(path)
                .unwrap()
                .starts_with("hub_name = \"localhost:")
        );
    }
}

#[test]
fn a_backup_for_other_settings_is_not_used() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    identityd.daemon.stop();
    bench
        .cloud
        .add_enrolment("Other", Enrolment::new(crate::device::KEY));
    let config = bench
        .config(Source::Dps, "", "")
        .replace("\"Dev-1\"", "\"Other\"");
    bench.root.write("etc/aziot/identityd/config.toml", config);
    let identityd = bench.started();
    assert_eq!(identityd.identity()["spec"]["deviceId"], "Other");
    identityd
        .daemon
        .log()
        .wait_for("other provisioning settings");
}

#[test]
fn a_state_of_release_1_6_0_is_taken_over() {
    // Without the sidecar, which only this implementation writes, the settings of the last run decide.
    for (other, registrations) in [(false, 0), (true, 1)] {
        let bench = Bench::new();
        let identityd = bench.reconciled(Source::Dps, "");
        identityd.daemon.stop();
        let home = bench.root.join("var/lib/aziot/identityd");
        std::fs::remove_file(home.join("device_info.sum")).unwrap();
        if other {
            let settings = bench.state("prev_state").unwrap().replace("Dev-1", "Dev-0");
            std::fs::write(home.join("prev_state"), settings).unwrap();
        }
        let before = bench.cloud.last_request();
        let identityd = bench.started();
        identityd
            .daemon
            .log()
            .wait_for("Identity reconciliation complete.");
        assert_eq!(bench.requests(before, "register").len(), registrations);
    }
}

#[test]
fn is_35_a_gateway_stands_in_for_the_hub() {
    let bench = Bench::with(|config| config.gateways = vec!["127.0.0.1".to_owned()]);
    bench.register_device();
    let gateway = format!("127.0.0.1:{}", bench.cloud.port());
    let config = bench
        .config(Source::Manual, "", &principal(4242, "m", Some(&["module"])))
        .replace(
            "[provisioning]\n",
            &format!("[provisioning]\nlocal_gateway_hostname = \"{gateway}\"\n"),
        );
    bench.root.write("etc/aziot/identityd/config.toml", config);
    let identityd = bench.started();
    identityd
        .daemon
        .log()
        .wait_for("Identity reconciliation complete.");
    let spec = &identityd.identity()["spec"];
    assert_eq!(
        (spec["hubName"].as_str(), spec["gatewayHost"].as_str()),
        (Some(&*bench.cloud.hub()), Some(&*gateway))
    );
    for entry in bench.cloud.log_since(0) {
        assert_eq!(entry.request.header("host"), Some(gateway.as_str()));
    }
    bench.assert_clean();
}

#[test]
fn is_36_dps_behind_a_gateway_is_refused() {
    let bench = Bench::new();
    let config = bench.config(Source::Dps, "", "").replace(
        "[provisioning]\n",
        "[provisioning]\nlocal_gateway_hostname = \"parent\"\n",
    );
    bench.root.write("etc/aziot/identityd/config.toml", config);
    bench
        .launch()
        .fails()
        .assert_logged("DPS provisioning is not supported in nested mode");
}

#[test]
fn settings_of_later_issues_are_refused_by_name() {
    let bench = Bench::new();
    let config = bench.config(Source::Dps, "", "").replace(
        "method = \"symmetric_key\"\nregistration_id = \"Dev-1\"\nsymmetric_key = \"device-id\"",
        "method = \"tpm\"\nregistration_id = \"Dev-1\"",
    );
    bench.root.write("etc/aziot/identityd/config.toml", config);
    bench.launch().fails().assert_logged(
        "`provisioning.attestation.method = \"tpm\"` is not supported by this build yet",
    );
}

#[test]
fn requests_are_held_until_the_first_attempt_ends() {
    let bench = Bench::new();
    bench
        .cloud
        .add_fault(Fault::once(Action::Delay { ms: 700 }).on_route("register"))
        .unwrap();
    bench.configure(Source::Dps, "", &principal(4242, "m", Some(&["module"])));
    let identityd = bench.start();
    let mut waiting = identityd.connect();
    waiting.send(request(
        "GET",
        &target("/identities/identity", VERSION),
        None,
    ));
    // What needs no device is answered meanwhile.
    assert_eq!(identityd.get("/trust-bundle").status, 200);
    assert_eq!(identityd.status()["state"], "provisioning");
    // A module of the configuration is waited for, because the first attempt makes it.
    assert_eq!(ok(&identityd.module("m"))["spec"]["moduleId"], "m");
    assert_eq!(ok(&waiting.response())["spec"]["deviceId"], DEVICE);
}

#[test]
fn held_requests_are_not_held_for_ever() {
    let bench = Bench::new();
    bench
        .cloud
        .add_fault(Fault::always(Action::HangConnection))
        .unwrap();
    bench.configure(Source::Dps, "", "");
    let identityd = bench.start();
    let begin = Instant::now();
    // The attempts of the registration take 2 × 70 s of the protocol, requests are held for 120 s.
    let response = identityd.get("/identities/identity");
    assert!(
        response.text().contains("device identity not found"),
        "{response}"
    );
    assert_eq!(response.status, 400);
    let waited = begin.elapsed().div_f64(SCALE);
    assert!(
        waited > Duration::from_secs(110) && waited < Duration::from_secs(140),
        "{waited:?}"
    );
}

#[test]
fn is_46_what_dps_says_reaches_the_user() {
    let failed = Outcome::Failed {
        error_code: 400_209,
        error_message: "Custom allocation failed".to_owned(),
    };
    for (outcome, text) in [
        (failed, "Custom allocation failed"),
        (Outcome::Disabled, "the registration is disabled"),
        (Outcome::Unassigned, "the device is not assigned to a hub"),
    ] {
        let bench = Bench::new();
        bench.cloud.add_enrolment(
            DEVICE,
            Enrolment {
                outcome,
                ..Enrolment::new(crate::device::KEY)
            },
        );
        bench.configure(Source::Dps, "", "");
        let identityd = bench.started();
        let response = identityd.get("/identities/identity");
        assert_eq!(response.status, 400);
        let message = response.member("message");
        assert!(
            message
                .starts_with("device identity not found\ncaused by: DPS client error\ncaused by: "),
            "{message}"
        );
        assert!(message.contains(text), "{message}");
        let log = identityd
            .daemon
            .log()
            .wait_for("Failed to provision with IoT Hub, and no valid device backup was found: ");
        assert!(log.contains(text), "{log}");
    }
}

#[test]
fn an_unknown_status_is_an_error_and_no_hang() {
    let bench = Bench::new();
    let answer = CannedResponse::json(
        200,
        json!({ "status": "pondering", "registrationState": {} }),
    );
    bench
        .cloud
        .add_fault(Fault::always(Action::Respond(answer)).on_route("poll"))
        .unwrap();
    bench.configure(Source::Dps, "", "");
    let identityd = bench.started();
    identityd
        .daemon
        .log()
        .wait_for("unknown variant `pondering`");
}

#[test]
fn a_wrong_key_is_explained() {
    let bench = Bench::new();
    bench
        .cloud
        .add_enrolment(DEVICE, Enrolment::new(b"another key, as a mistyped one is"));
    bench.configure(Source::Dps, "", "");
    let identityd = bench.started();
    for text in [
        identityd.get("/identities/identity").member("message"),
        identityd.status()["reason"].as_str().unwrap().to_owned(),
        identityd
            .daemon
            .log()
            .wait_for("Failed to provision with IoT Hub"),
    ] {
        for part in [
            "registration id \"Dev-1\"",
            "0ne00000001",
            "symmetric key in config.toml",
            "derived",
            "clock",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // It is tried again by itself; the right key needs no restart.
    assert_eq!(identityd.status()["state"], "not-provisioned");
    bench
        .cloud
        .add_enrolment(DEVICE, Enrolment::new(crate::device::KEY));
    identityd.wait_for_status("state", &json!("provisioned"));
}

#[test]
fn a_clock_that_is_off_is_named() {
    let bench = Bench::new();
    bench.cloud.set_clock_skew(600);
    bench.configure(Source::Dps, "", "");
    let identityd = bench.started();
    let message = identityd.get("/identities/identity").member("message");
    let off = message
        .split("the clock of this device is ")
        .nth(1)
        .unwrap_or_else(|| panic!("{message}"));
    let seconds: u64 = off.split(' ').next().unwrap().parse().unwrap();
    assert!(
        seconds.abs_diff(600) <= 3 && off.contains("behind"),
        "{message}"
    );
}

#[test]
fn nothing_is_signed_while_the_clock_is_not_set() {
    let bench = Bench::new();
    // As if the device had lost its clock since it last talked to the cloud.
    let future = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 100 * 86_400;
    bench
        .root
        .write("var/lib/aziot/identityd/time_seen", format!("{future}\n"));
    bench.register_device();
    bench.configure(Source::Manual, "", "");
    let identityd = bench.start();
    identityd
        .daemon
        .log()
        .wait_for("the clock of this device is not set");
    let status = identityd.status();
    assert_eq!(status["state"], "waiting-for-time");
    // The identity is known, and the key can be used by whoever knows the time.
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    identityd
        .reprovision()
        .status
        .eq(&404)
        .then_some(())
        .expect("a reprovision cannot sign either");
    assert!(bench.cloud.log_since(0).is_empty());
}

#[test]
fn enrolment_groups_work_with_the_derived_key() {
    let bench = Bench::new();
    // Vector 18.3: the group key and what it gives for `my-device`.
    let group =
        aziot_tests::simulator::Key::from_base64("YXppb3QtaWRlbnRpdHktc2VydmljZXxhemlvdC1pZGU=")
            .unwrap();
    let derived =
        aziot_tests::simulator::Key::from_base64("+3z3M+Co8lZQwgG/1/U3Nt2vIm71uiNBCUzALWPnCw0=")
            .unwrap();
    bench
        .cloud
        .add_group("group", Enrolment::new(group.0))
        .unwrap();
    aziot_tests::fixture::write_key(&bench.root, "group-device", &derived.0);
    let config = bench
        .config(Source::Dps, "", "")
        .replace("\"Dev-1\"", "\"my-device\"")
        .replace("\"device-id\"", "\"group-device\"");
    bench.root.write("etc/aziot/identityd/config.toml", config);
    let identityd = bench.started();
    identityd
        .daemon
        .log()
        .wait_for("Identity reconciliation complete.");
    assert_eq!(identityd.identity()["spec"]["deviceId"], "my-device");
    bench.assert_clean();
}

#[test]
fn is_40_a_failed_reprovision_changes_nothing() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    let (info, generation) = (
        bench.state("device_info"),
        bench.cloud.module(DEVICE, "m").unwrap().generation_id,
    );
    let refused = CannedResponse::json(400, json!({ "errorCode": 400_000, "message": "no" }));
    bench
        .cloud
        .add_fault(Fault::always(Action::Respond(refused)).on_route("register"))
        .unwrap();
    let response = identityd.reprovision();
    assert_eq!(response.status, 404);
    assert!(
        response
            .member("message")
            .starts_with("DPS client error\ncaused by: no"),
        "{response}"
    );
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    assert_eq!(bench.state("device_info"), info);
    assert_eq!(ok(&identityd.module("m"))["spec"]["genId"], generation);
    identityd.daemon.stop();
    bench.cloud.stop_listening().unwrap();
    assert_eq!(bench.started().identity()["spec"]["deviceId"], DEVICE);
}

#[test]
fn is_41_a_hub_that_rejects_the_device_leads_to_one_registration() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    identityd.daemon.stop();
    // The enrolment now assigns another device, and the old one is gone.
    bench.cloud.remove_device(DEVICE);
    bench.cloud.add_enrolment(
        DEVICE,
        Enrolment {
            device_id: Some("moved".to_owned()),
            ..Enrolment::new(crate::device::KEY)
        },
    );
    let before = bench.cloud.last_request();
    let identityd = bench.start();
    identityd
        .daemon
        .log()
        .wait_for("Could not reconcile Identities with current device data. Reprovisioning.");
    identityd
        .daemon
        .log()
        .wait_for("Identity reconciliation complete.");
    assert_eq!(bench.requests(before, "register").len(), 1);
    assert_eq!(bench.requests(before, "module-list").len(), 2);
    assert_eq!(identityd.identity()["spec"]["deviceId"], "moved");
    assert!(bench.state("device_info").unwrap().contains("moved"));
}

#[test]
fn is_61_an_unchanged_assignment_keeps_the_modules() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    let before = bench.cloud.module(DEVICE, "m").unwrap();
    assert_eq!(identityd.reprovision().status, 204);
    let after = bench.cloud.module(DEVICE, "m").unwrap();
    assert_eq!(after.generation_id, before.generation_id);
    assert!(
        after.key_updates > before.key_updates,
        "the keys were set again"
    );
    bench.assert_clean();
}

#[test]
fn a_reprovision_takes_up_another_assignment() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    bench.cloud.add_enrolment(
        DEVICE,
        Enrolment {
            device_id: Some("moved".to_owned()),
            ..Enrolment::new(crate::device::KEY)
        },
    );
    assert_eq!(identityd.reprovision().status, 204);
    assert_eq!(identityd.identity()["spec"]["deviceId"], "moved");
    assert!(bench.cloud.module("moved", "m").is_some());
    // is_56: backups of the device that was are gone.
    let stores = std::fs::read_dir(bench.root.join("var/lib/aziot/identityd/modules"))
        .unwrap()
        .count();
    assert_eq!(stores, 1);
    bench.assert_clean();
}

#[test]
fn only_the_one_who_reprovisions_waits() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    bench
        .cloud
        .add_fault(Fault::once(Action::Delay { ms: 1500 }).on_route("register"))
        .unwrap();
    let mut slow = identityd.connect();
    slow.send(request(
        "POST",
        &target("/identities/device/reprovision", VERSION),
        None,
    ));
    let mut joined = identityd.connect();
    joined.send(request(
        "POST",
        &target("/identities/device/reprovision", VERSION),
        None,
    ));
    let begin = Instant::now();
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    ok(&identityd.create("m"));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    assert_eq!(
        (slow.response().status, joined.response().status),
        (204, 204)
    );
}

#[test]
fn is_10_cl_06_cl_07_principals_change_without_restart_and_broken_files_change_nothing() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "first", Some(&["module"])));
    let more = principal(4243, "second", Some(&["module"]));
    bench
        .root
        .replace("etc/aziot/identityd/config.d/50-more.toml", &more);
    client::eventually("the second module", || {
        bench.cloud.module(DEVICE, "second").is_some()
    });
    identityd
        .daemon
        .log()
        .wait_for("Reason: ConfigurationFileUpdate");

    bench
        .root
        .replace("etc/aziot/identityd/config.d/50-more.toml", "nonsense");
    identityd
        .daemon
        .log()
        .wait_for("Detected config file update, but new config failed to parse. Error: ");
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    assert!(bench.cloud.module(DEVICE, "second").is_some());

    // CL-11: settings that can be read and make no sense change nothing either: two modules of one name.
    let twice = [&more, &principal(4244, "second", Some(&["module"]))]
        .map(String::as_str)
        .concat();
    bench
        .root
        .replace("etc/aziot/identityd/config.d/50-more.toml", twice);
    identityd
        .daemon
        .log()
        .wait_for("duplicate module name: second");
    assert!(bench.cloud.module(DEVICE, "second").is_some());
    let status = |uid| {
        let stream = aziot_tests::users::connect_as(uid, identityd.daemon.socket()).unwrap();
        let mut client = client::Client::over(stream).unwrap();
        client
            .exchange(request(
                "GET",
                &target("/identities/identity", VERSION),
                None,
            ))
            .status
    };
    if aziot_tests::users::can_change("principals") {
        assert_eq!((status(4243), status(4244)), (200, 401));
    }

    // IS-11: a second replacement by rename is seen too.
    bench
        .root
        .replace("etc/aziot/identityd/config.d/50-more.toml", "");
    client::eventually("the second module's end", || {
        bench.cloud.module(DEVICE, "second").is_none()
    });
    assert!(bench.cloud.module(DEVICE, "first").is_some());

    // A changed source is told of, and takes effect on request.
    bench
        .cloud
        .add_enrolment("Other", Enrolment::new(crate::device::KEY));
    let tables = principal(4242, "first", Some(&["module"]));
    let config = bench
        .config(Source::Dps, "", &tables)
        .replace("\"Dev-1\"", "\"Other\"");
    bench
        .root
        .replace("etc/aziot/identityd/config.toml", config);
    identityd.daemon.log().wait_for("provisioning has changed");
    assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
    assert_eq!(identityd.reprovision().status, 204);
    assert_eq!(identityd.identity()["spec"]["deviceId"], "Other");
    bench.assert_clean();
}

#[test]
fn is_12_an_activated_socket_is_served_and_an_own_one_is_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let bench = Bench::new();
    bench.register_device();
    bench.configure(Source::Manual, "", "");
    let passed = bench.root.join("passed.sock");
    let listener = aziot_tests::daemon::listening(&passed);
    let daemon = bench
        .launch()
        .activated(vec![listener])
        .socket(&passed)
        .start();
    let answer = client::get(&passed, &target("/identities/identity", VERSION));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!bench.root.socket("identityd").exists());
    let _ = daemon.stop();

    let identityd = bench.started();
    let mode = std::fs::metadata(identityd.daemon.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o660);
}
