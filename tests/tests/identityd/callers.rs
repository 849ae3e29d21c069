//! Who may ask for what, as seen through the socket.

use aziot_tests::users;
use serde_json::json;

use crate::device::{Bench, Identityd, Source, ok, principal};

/// Principals of every kind; their modules exist at the hub.
fn everybody() -> (Bench, Identityd) {
    let bench = Bench::new();
    let principals = [
        principal(1001, "edged", None),
        principal(1002, "dev", Some(&["device"])),
        principal(1003, "mod", Some(&["module"])),
        principal(1004, "loc", Some(&["local"])),
        principal(1005, "all", Some(&["device", "module", "local"])),
        principal(1006, "none", Some(&[])),
        principal(1007, "second", None),
    ];
    let tables = format!("[localid]\ndomain = \"example\"\n{}", principals.concat());
    let identityd = bench.reconciled(Source::Dps, &tables);
    (bench, identityd)
}

#[test]
fn is_13_the_matrix_holds_over_the_socket() {
    if !users::can_change("is_13") {
        return;
    }
    let (bench, identityd) = everybody();
    // uid, GET identity (moduleId, or null for the device), POST device, list, own module, another's module, reprovision
    let device = Some(None);
    let rows = [
        (0, device, 200, 200, ("mod", 200), 200, 204),
        (1001, device, 200, 200, ("mod", 200), 200, 204),
        (1002, device, 200, 401, ("dev", 401), 401, 401),
        (1003, Some(Some("mod")), 401, 401, ("mod", 200), 401, 401),
        (1004, None, 401, 401, ("loc", 401), 401, 401),
        (1005, device, 200, 401, ("all", 200), 401, 401),
        (1006, None, 401, 401, ("none", 401), 401, 401),
        (1007, None, 401, 401, ("second", 401), 401, 401),
        (1008, None, 401, 401, ("mod", 401), 401, 401),
    ];
    for (uid, identity, post_device, list, (own, own_status), other, reprovision) in rows {
        let response = identityd.get_as(uid, "/identities/identity");
        match identity {
            Some(module) => {
                assert_eq!(
                    ok(&response)["spec"]["moduleId"].as_str(),
                    module,
                    "uid {uid}"
                );
            }
            None => response.assert_message(401, "authorization error"),
        }
        let status = |method, path: &str, body: Option<&serde_json::Value>| {
            identityd.call_as(uid, method, path, body).status
        };
        assert_eq!(
            status("POST", "/identities/device", Some(&json!({ "type": "" }))),
            post_device,
            "uid {uid}"
        );
        assert_eq!(
            status("GET", "/identities/modules?type=aziot", None),
            list,
            "uid {uid}"
        );
        assert_eq!(
            status(
                "GET",
                &format!("/identities/modules/{own}?type=aziot"),
                None
            ),
            own_status,
            "uid {uid}"
        );
        let others = if own == "all" { "mod" } else { "all" };
        assert_eq!(
            status(
                "GET",
                &format!("/identities/modules/{others}?type=aziot"),
                None
            ),
            other,
            "uid {uid}"
        );
        assert_eq!(
            status("POST", "/identities/device/reprovision", None),
            reprovision,
            "uid {uid}"
        );
        // is_16: open to everybody.
        assert_eq!(
            status(
                "GET",
                "/identities/provisioning?api-version=2022-08-01",
                None
            ),
            404,
            "the last version counts"
        );
        assert_eq!(status("GET", "/trust-bundle", None), 200, "uid {uid}");
    }
    bench.assert_clean();
}

#[test]
fn is_14_root_can_be_made_a_host_process() {
    let bench = Bench::new();
    let own = users::effective();
    let identityd = bench.reconciled(
        Source::Dps,
        &principal(own, "testmodule", Some(&["module"])),
    );
    let identity = identityd.identity();
    assert_eq!(identity["spec"]["moduleId"], "testmodule");
    identityd
        .reprovision()
        .assert_message(401, "authorization error");
}

#[test]
fn is_15_denial_comes_before_parameters_are_looked_at() {
    let bench = Bench::new();
    let own = users::effective();
    let identityd = bench.reconciled(
        Source::Dps,
        &principal(own, "testmodule", Some(&["module"])),
    );
    for path in [
        "/identities/modules",
        "/identities/modules?type=x",
        "/identities/modules/other?type=",
    ] {
        identityd
            .get(path)
            .assert_message(401, "authorization error");
    }
    // The body comes first.
    let response = identityd.post("/identities/modules", &json!({ "type": "aziot" }));
    assert_eq!(response.status, 422, "{response}");
    identityd
        .create("m")
        .assert_message(401, "authorization error");
    // A module of the caller's own may be asked for, so here the parameter matters.
    identityd
        .get("/identities/modules/testmodule")
        .assert_message(
            400,
            "parameter \"type\" has an invalid value\ncaused by: missing parameter",
        );
    identityd
        .get("/identities/modules/testmodule?type=local")
        .assert_message(
            400,
            "parameter \"moduleId\" has an invalid value\ncaused by: local identity for testmodule doesn't exist",
        );
}

#[test]
fn is_16_provisioning_and_trust_bundle_answer_anyone() {
    if !users::can_change("is_16") {
        return;
    }
    let bench = Bench::new();
    bench.configure(Source::None, "", "");
    let identityd = bench.started();
    for path in [
        "/identities/provisioning?api-version=2022-08-01",
        "/trust-bundle?api-version=2020-09-01",
    ] {
        let stream = users::connect_as(4242, identityd.daemon.socket()).unwrap();
        let request = aziot_tests::client::request("GET", path, None);
        let response = aziot_tests::client::Client::over(stream)
            .unwrap()
            .exchange(request);
        assert_eq!(response.status, 200, "{response}");
    }
    assert_eq!(
        ok(&identityd.get("/trust-bundle")),
        json!({ "certificate": "" })
    );
}

#[test]
fn is_17_one_connection_too_many_is_closed_and_others_are_unaffected() {
    if !users::can_change("is_17") {
        return;
    }
    let bench = Bench::new();
    bench.configure(Source::None, "max_requests = 2", "");
    let identityd = bench.started();
    let mut open: Vec<_> = (0..2).map(|_| identityd.connect()).collect();
    for client in &mut open {
        let response =
            client.exchange(b"GET /trust-bundle?api-version=2020-09-01 HTTP/1.1\r\n\r\n");
        assert_eq!(response.status, 200);
    }
    identityd.connect().assert_closed();
    identityd.daemon.log().wait_for(&format!(
        "Max simultaneous connections reached for user {}",
        users::effective()
    ));
    assert_eq!(identityd.get_as(4243, "/trust-bundle").status, 200);
}
