//! Module identities, and what is left of them on disk.

use aziot_tests::client::request;
use aziot_tests::fixture;
use aziot_tests::simulator::{Action, CannedResponse, Fault, NewModule};
use serde_json::json;

use crate::device::{Bench, DEVICE, Source, VERSION, ok, principal, target};

#[test]
fn is_54_keys_come_from_the_master_key_and_the_generation() {
    let bench = Bench::new();
    let master: Vec<u8> = (0..32).collect();
    fixture::write_key(&bench.root, "aziot_identityd_master_id", &master);
    let identityd = bench.reconciled(Source::Dps, "");
    let before = bench.cloud.last_request();
    let spec = ok(&identityd.create("testmodule"))["spec"].clone();
    let at_hub = bench.cloud.module(DEVICE, "testmodule").unwrap();
    let generation = spec["genId"].as_str().unwrap();
    assert_eq!(generation, at_hub.generation_id);
    let key = |slot: &str| {
        fixture::hmac(
            &master,
            format!("testmodule:{generation}:{slot}").as_bytes(),
        )
    };
    let keys: Vec<String> = at_hub
        .keys
        .all()
        .map(|key| aziot_tests::simulator::Key(key.to_vec()).to_base64())
        .collect();
    assert_eq!(keys, [key("primary"), key("secondary")]);

    // What the caller gets signs with the primary key.
    let handle = spec["auth"]["keyHandle"].as_str().unwrap();
    let body = fixture::sign_body(handle, b"message");
    let signed = aziot_tests::client::post(
        bench.root.socket("keyd"),
        &target("/sign", "2021-05-01"),
        &body,
    );
    let primary = aziot_tests::simulator::Key::from_base64(&key("primary")).unwrap();
    assert_eq!(
        signed.member("signature"),
        fixture::hmac(&primary.0, b"message")
    );

    let routes: Vec<_> = bench
        .cloud
        .log_since(before)
        .iter()
        .map(|entry| entry.route)
        .collect();
    assert_eq!(routes, ["module-create", "module-keys"]);
    bench.assert_clean();
}

#[test]
fn is_55_backups() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    for (id, start) in [
        (
            "testmodule",
            "testmodule-cf130604f3763c25811ba1323fef4e2b7111dc81b0e4aff294a51b17f24d6e24",
        ),
        (
            "$edgeAgent",
            "edgeAgent-5ba97f29eeaf1ede50f792fcb138819f78bcd25e146340ba8ffdfcb9bb2d73e7",
        ),
        (
            "my-mod_1",
            "mymod1-6bbe7164864e2833011a3ce31afeb89954cce32d4a4cff1386681779ff17e66c",
        ),
    ] {
        let spec = ok(&identityd.create(id))["spec"].clone();
        let store = std::fs::read_dir(bench.root.join("var/lib/aziot/identityd/modules"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let file = store.path().join(start);
        let text = std::fs::read_to_string(&file).unwrap();
        let generation = spec["genId"].as_str().unwrap();
        assert_eq!(
            text,
            format!(r#"{{"moduleId":"{id}","deviceId":"{DEVICE}","generationId":"{generation}"}}"#)
        );
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(
            store.path().metadata().unwrap().permissions().mode() & 0o7777,
            0o700
        );
        assert_eq!(
            identityd.delete(id.replace('$', "%24").as_str()).status,
            204
        );
        assert!(!file.exists());
    }
}

#[test]
fn is_57_reconciliation_follows_the_table() {
    let bench = Bench::new();
    let tables = [
        principal(4241, "gone", Some(&["module"])),
        principal(4242, "kept", Some(&["module"])),
    ]
    .concat();
    let identityd = bench.reconciled(Source::Dps, &tables);
    identityd.daemon.stop();
    // Made by others: one that is configured from now on, one that is nobody's business.
    bench
        .cloud
        .add_module(DEVICE, "there", NewModule::default())
        .unwrap();
    bench
        .cloud
        .add_module(DEVICE, "foreign", NewModule::default())
        .unwrap();
    let generation = |id: &str| {
        bench
            .cloud
            .module(DEVICE, id)
            .map(|module| module.generation_id)
    };
    let before = ["kept", "there", "foreign"].map(generation);

    let tables = [
        principal(4242, "kept", Some(&["module"])),
        principal(4243, "there", Some(&["module"])),
        principal(4244, "new", Some(&["module"])),
    ];
    let identityd = bench.reconciled(Source::Dps, &tables.concat());
    let log = identityd.daemon.log();
    for line in [
        "Hub identity \"gone\" removed",
        "Hub identity \"kept\" already exists",
        "Hub identity \"there\" already exists, keys refreshed",
        "Hub identity \"new\" added",
    ] {
        log.wait_for(line);
    }
    assert_eq!(
        ["kept", "there", "foreign"].map(generation),
        before,
        "generations survive"
    );
    assert!(generation("gone").is_none() && generation("new").is_some());
    // The keys of the module that others had made are ours now.
    let spec = ok(&identityd.module("there"))["spec"].clone();
    let handle = spec["auth"]["keyHandle"].as_str().unwrap();
    let signed = aziot_tests::client::post(
        bench.root.socket("keyd"),
        &target("/sign", "2021-05-01"),
        &fixture::sign_body(handle, b"x"),
    );
    let at_hub = bench.cloud.module(DEVICE, "there").unwrap();
    assert_eq!(
        signed.member("signature"),
        fixture::hmac(at_hub.keys.all().next().unwrap(), b"x")
    );
    bench.assert_clean();
}

#[test]
fn a_module_that_fails_does_not_keep_others_back_and_is_tried_again() {
    let bench = Bench::new();
    let refused = CannedResponse::json(403, json!({ "Message": "quota" }));
    let fault = Fault::once(Action::Respond(refused))
        .times(2)
        .on_route("module-create")
        .on_path("*/modules/a");
    bench.cloud.add_fault(fault).unwrap();
    let tables = [
        principal(4241, "a", Some(&["module"])),
        principal(4242, "b", Some(&["module"])),
    ]
    .concat();
    bench.configure(Source::Dps, "", &tables);
    let identityd = bench.started();
    assert!(bench.cloud.module(DEVICE, "b").is_some());
    identityd
        .daemon
        .log()
        .wait_for("Could not reconcile Hub identity \"a\": Hub client error: quota");
    // The progress is on disk: the identity can be served offline, and `a` is not taken for done.
    assert!(bench.state("device_info").is_some());
    identityd.daemon.log().wait_for("Hub identity \"a\" added");
    identityd.wait_for_status("reconciled", &json!(true));
    assert_eq!(
        identityd.daemon.log().count("DPS registration complete."),
        1
    );
}

#[test]
fn is_58_state_files_after_a_reconciliation() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "m", Some(&["module"])));
    let hub = bench.cloud.hub();
    assert_eq!(
        bench.state("device_info").unwrap(),
        format!(
            "hub_name = \"{hub}\"\nlocal_gateway_hostname = \"{hub}\"\ndevice_id = \"{DEVICE}\"\n"
        )
    );
    let endpoint = bench.cloud.dps_endpoint();
    let slash = if endpoint.ends_with('/') { "" } else { "/" };
    let expected = format!(
        "hostname = \"test\"\nhomedir = \"{}\"\nprefer_module_identity_cache = false\n\n[provisioning]\nsource = \"dps\"\n\
         global_endpoint = \"{endpoint}{slash}\"\nscope_id = \"0ne00000001\"\n\n[provisioning.attestation]\nmethod = \
         \"symmetric_key\"\nregistration_id = \"{DEVICE}\"\nsymmetric_key = \"device-id\"\n\n[[principal]]\nuid = \
         4242\nname = \"m\"\nidtype = [\"module\"]\n",
        bench.root.join("var/lib/aziot/identityd").display()
    );
    assert_eq!(bench.state("prev_state").unwrap(), expected);
    identityd.daemon.stop();
}

#[test]
fn is_59_the_cache_can_be_preferred() {
    let bench = Bench::new();
    bench.configure(
        Source::Dps,
        "prefer_module_identity_cache = true",
        &principal(4242, "m", Some(&["module"])),
    );
    let identityd = bench.started();
    identityd
        .daemon
        .log()
        .wait_for("Identity reconciliation complete.");
    let before = bench.cloud.last_request();
    ok(&identityd.module("m"));
    ok(&identityd.get("/identities/modules?type=aziot"));
    assert!(
        bench.cloud.log_since(before).is_empty(),
        "answered from the backup"
    );
    bench
        .cloud
        .add_module(DEVICE, "other", NewModule::default())
        .unwrap();
    ok(&identityd.module("other"));
    assert_eq!(
        bench.requests(before, "module-get").len(),
        1,
        "what is not in the backup is asked for"
    );

    bench.configure(Source::Dps, "", &principal(4242, "m", Some(&["module"])));
    identityd
        .daemon
        .log()
        .wait_for("In force from now on: prefer_module_identity_cache");
    let before = bench.cloud.last_request();
    ok(&identityd.module("m"));
    assert_eq!(bench.requests(before, "module-get").len(), 1);
}

#[test]
fn is_60_what_the_hub_does_not_know_is_not_served() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    ok(&identityd.create("m"));
    bench.cloud.remove_module(DEVICE, "m");
    identityd
        .module("m")
        .assert_message(404, "Hub client error\ncaused by: module m not found");
    bench.cloud.stop_listening().unwrap();
    let response = identityd.module("m");
    assert_eq!(response.status, 404, "the backup is gone: {response}");
    assert!(
        response
            .member("message")
            .starts_with("Hub client error\ncaused by: module m not found\n"),
        "{response}"
    );
}

#[test]
fn is_52_modules_with_other_credentials_do_not_break_the_list() {
    let bench = Bench::new();
    for kind in ["selfSigned", "certificateAuthority", "none"] {
        bench.register_device();
        let module = NewModule {
            auth_type: Some(kind.to_owned()),
            ..NewModule::default()
        };
        bench.cloud.add_module(DEVICE, kind, module).unwrap();
    }
    let identityd = bench.reconciled(Source::Manual, "");
    let list = ok(&identityd.get("/identities/modules?type=aziot"));
    assert!(!list["identities"].as_array().unwrap().is_empty());
}

#[test]
fn a_create_that_gets_no_keys_is_taken_back() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    let refused = CannedResponse::json(400, json!({ "Message": "no keys today" }));
    bench
        .cloud
        .add_fault(Fault::once(Action::Respond(refused)).on_route("module-keys"))
        .unwrap();
    identityd
        .create("m")
        .assert_message(404, "Hub client error\ncaused by: no keys today");
    assert!(bench.cloud.module(DEVICE, "m").is_none());
    ok(&identityd.create("m"));
    let response = identityd.create("m");
    assert_eq!(response.status, 404);
    assert!(
        response
            .member("message")
            .contains("ModuleAlreadyExistsOnDevice"),
        "{response}"
    );
}

#[test]
fn writes_of_one_module_take_turns_and_others_go_on() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    bench
        .cloud
        .add_fault(
            Fault::once(Action::Delay { ms: 800 })
                .on_route("module-create")
                .on_path("*/modules/a"),
        )
        .unwrap();
    let body = json!({ "type": "aziot", "moduleId": "a" });
    let create = request("POST", &target("/identities/modules", VERSION), Some(&body));
    let mut first = identityd.connect();
    first.send(&create);
    aziot_tests::client::eventually("the first request", || {
        !bench.requests(0, "module-create").is_empty()
    });
    let mut second = identityd.connect();
    second.send(&create);
    let begin = std::time::Instant::now();
    ok(&identityd.create("b"));
    ok(&identityd.get("/identities/modules?type=aziot"));
    assert!(
        begin.elapsed() < std::time::Duration::from_millis(700),
        "{:?}",
        begin.elapsed()
    );
    ok(&first.response());
    let response = second.response();
    assert_eq!(response.status, 404);
    assert!(
        response
            .member("message")
            .contains("ModuleAlreadyExistsOnDevice"),
        "{response}"
    );
    bench.assert_clean();
}
