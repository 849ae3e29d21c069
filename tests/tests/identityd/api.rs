//! The HTTP interface: versions, methods, bodies, texts.

use aziot_tests::client::{self, request};
use serde_json::{Value, json};

use crate::device::{Bench, DEVICE, Identityd, Source, ok, principal, target};

/// A service without a hub: everything that needs no device can be asked.
fn unconnected() -> (Bench, Identityd) {
    let bench = Bench::new();
    bench.configure(Source::None, "", "");
    let identityd = bench.started();
    (bench, identityd)
}

fn at(identityd: &Identityd, path: &str) -> client::Response {
    client::get(identityd.daemon.socket(), path)
}

#[test]
fn is_18_api_versions() {
    let (_bench, identityd) = unconnected();
    at(&identityd, "/trust-bundle").assert_message(400, "api-version not specified");
    at(&identityd, "/nowhere").assert_message(400, "api-version not specified");
    at(&identityd, "/nowhere?api-version=2020-09-01-preview")
        .assert_message(400, "invalid api-version \"2020-09-01-preview\"");
    at(&identityd, "/nowhere?api-version=2020-09-01").assert_message(404, "not found");
    assert_eq!(
        at(
            &identityd,
            "/trust-bundle?api-version=x&api-version=2021-12-01"
        )
        .status,
        200
    );
    at(
        &identityd,
        "/trust-bundle?api-version=2021-12-01&api-version=x",
    )
    .assert_message(400, "invalid api-version \"x\"");
    for path in [
        "/trust-bundle/",
        "//trust-bundle",
        "/identities/modules/",
        "/identities/modules/a/b",
    ] {
        at(&identityd, &target(path, "2022-08-01")).assert_message(404, "not found");
    }
}

#[test]
fn is_19_provisioning_needs_a_newer_version() {
    let (_bench, identityd) = unconnected();
    at(
        &identityd,
        "/identities/provisioning?api-version=2020-09-01",
    )
    .assert_message(404, "not found");
    for version in ["2021-12-01", "2022-08-01"] {
        let response = at(&identityd, &target("/identities/provisioning", version));
        assert_eq!(response.text(), r#"{"source":"none"}"#);
    }
    at(&identityd, "/status?api-version=2022-08-01").assert_message(404, "not found");
    assert_eq!(identityd.status()["state"], "unconnected");
}

#[test]
fn is_20_methods() {
    let (_bench, identityd) = unconnected();
    for (method, path) in [
        ("PATCH", "/identities/modules?type=aziot"),
        ("OPTIONS", "/trust-bundle"),
        ("POST", "/trust-bundle"),
        ("DELETE", "/identities/identity"),
        ("GET", "/identities/device"),
        ("POST", "/identities/modules/m?type=aziot"),
    ] {
        identityd
            .call(method, path, None)
            .assert_message(400, "method not allowed");
    }
    let mut client = identityd.connect();
    client.send(request(
        "HEAD",
        &target("/trust-bundle", "2020-09-01"),
        None,
    ));
    assert_eq!(client.response_to_head().status, 400);
}

#[test]
fn is_21_bodies() {
    let (_bench, identityd) = unconnected();
    let raw = |method: &str, path: &str, kind: &str, body: &str| {
        let text = format!(
            "{method} {} HTTP/1.1\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            target(path, "2020-09-01"),
            body.len()
        );
        client::once(identityd.daemon.socket(), text)
    };
    raw("POST", "/identities/device", "application/json", "{}")
        .assert_message(422, "missing field `type` at line 1 column 2");
    raw("POST", "/identities/device", "application/json", "{")
        .assert_message(422, "EOF while parsing an object at line 1 column 1");
    raw(
        "POST",
        "/identities/device",
        "text/plain",
        r#"{"type":"aziot"}"#,
    )
    .assert_message(400, "missing request body");
    raw(
        "POST",
        "/identities/modules",
        "application/json",
        r#"{"type":"aziot"}"#,
    )
    .assert_message(422, "missing field `moduleId` at line 1 column 16");
    raw(
        "PUT",
        "/identities/modules/m?type=aziot",
        "text/plain",
        "{}",
    )
    .assert_message(415, "request body must be application/json");
    raw(
        "PUT",
        "/identities/modules/m?type=aziot",
        "application/json",
        "",
    )
    .assert_message(422, "EOF while parsing a value at line 1 column 0");
    raw(
        "DELETE",
        "/identities/modules/m?type=aziot",
        "application/json",
        "nonsense",
    )
    .assert_message(422, "expected ident at line 1 column 2");
    raw(
        "POST",
        "/identities/device/reprovision",
        "application/json",
        "[",
    )
    .assert_message(422, "EOF while parsing a list at line 1 column 1");
    client::once(
        identityd.daemon.socket(),
        "POST /identities/device?api-version=2020-09-01 HTTP/1.1\r\n\r\n",
    )
    .assert_message(400, "missing request body");
}

#[test]
fn is_22_is_23_the_device_by_any_type() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    for kind in ["", "aziot", "module"] {
        let response = identityd.post("/identities/device", &json!({ "type": kind }));
        let identity = ok(&response);
        assert_eq!(identity["type"], "aziot");
        let hub = bench.cloud.hub();
        let start = format!(
            r#"{{"type":"aziot","spec":{{"hubName":"{hub}","gatewayHost":"{hub}","deviceId":"{DEVICE}","auth":{{"type":"sas","keyHandle":"sr="#
        );
        assert!(response.text().starts_with(&start), "{response}");
    }
    let response = identityd.get("/identities/identity");
    assert!(
        !response.text().contains("moduleId") && !response.text().contains("genId"),
        "{response}"
    );
}

#[test]
fn is_24_provisioning_information_of_every_source() {
    let bench = Bench::new();
    let payload = bench
        .root
        .write("payload.json", " {\"b\": [1, 2.50], \"a\": null}\n");
    let info =
        |identityd: &Identityd| at(identityd, "/identities/provisioning?api-version=2021-12-01");
    let scope = bench.cloud.scope_id();
    let endpoint = bench.cloud.dps_endpoint();
    let endpoint = if endpoint.ends_with('/') {
        endpoint
    } else {
        format!("{endpoint}/")
    };
    let dps = |payload: &str| {
        format!(
            r#"{{"source":"dps","auth":"symmetric_key","endpoint":"{endpoint}","scope_id":"{scope}","registration_id":"{DEVICE}","payload":{payload}}}"#
        )
    };
    bench.configure(Source::Dps, "", "");
    let identityd = bench.started();
    assert_eq!(info(&identityd).text(), dps("null"));
    drop(identityd);

    let table = format!(
        "[provisioning.payload]\nuri = \"file://{}\"\n",
        payload.display()
    );
    bench.configure(Source::Dps, "", &table);
    let identityd = bench.started();
    assert_eq!(
        info(&identityd).text(),
        dps(r#"{"b": [1, 2.50], "a": null}"#)
    );
    // The file is read each time.
    bench.root.write("payload.json", "nonsense");
    let response = info(&identityd);
    assert_eq!(response.status, 400);
    assert!(
        response
            .member("message")
            .starts_with("parameter \"provisioning.payload\" has an invalid value\ncaused by: "),
        "{response}"
    );
    drop(identityd);

    bench.configure(Source::Manual, "", "");
    assert_eq!(
        info(&bench.start()).text(),
        r#"{"source":"manual","auth":"sas"}"#
    );
}

#[test]
fn is_25_is_26_is_27_is_28_modules_over_http() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    let created = identityd.create("m1");
    assert_eq!(created.status, 200, "{created}");
    assert!(ok(&created)["spec"]["auth"]["keyHandle"].is_string());

    let list = identityd.get("/identities/modules?type=aziot");
    assert!(!list.text().contains("auth"), "{list}");
    assert_eq!(ok(&list)["identities"][0]["spec"]["moduleId"], "m1");

    let missing = "parameter \"type\" has an invalid value\ncaused by: missing parameter";
    let put = |path: &str, body: &Value| identityd.call("PUT", path, Some(body));
    put(
        "/identities/modules/m1",
        &json!({ "type": "aziot", "moduleId": "m1" }),
    )
    .assert_message(400, missing);
    assert_eq!(
        put(
            "/identities/modules/m1?type=aziot",
            &json!({ "type": "local" })
        )
        .status,
        200
    );
    identityd
        .get("/identities/modules")
        .assert_message(400, missing);
    identityd
        .get("/identities/modules/m1")
        .assert_message(400, missing);
    let invalid =
        |kind| format!("parameter \"type\" has an invalid value\ncaused by: invalid type: {kind}");
    identityd
        .get("/identities/modules?type=local")
        .assert_message(400, &invalid("local"));
    identityd
        .get("/identities/modules/m1?type=x&type=aziot")
        .assert_message(400, &invalid("x"));
    identityd
        .post(
            "/identities/modules",
            &json!({ "type": "other", "moduleId": "m" }),
        )
        .assert_message(400, &invalid("other"));
    for blank in ["", "  "] {
        identityd.create(blank).assert_message(
            400,
            "parameter \"module_id\" has an invalid value\ncaused by: module name cannot be empty",
        );
    }

    let deleted = identityd.delete("m1");
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(deleted.field("content-type"), None);
    identityd.delete("m1").assert_message(
        404,
        "Hub client error\ncaused by: unexpected HTTP status code: 404 Not Found",
    );
    let reprovisioned = identityd.reprovision();
    assert_eq!((reprovisioned.status, reprovisioned.body.len()), (204, 0));
    bench.assert_clean();
}

#[test]
fn is_29_is_53_module_ids_in_paths() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, "");
    for (path, id) in [
        ("%24edgeAgent", "$edgeAgent"),
        ("a%3Db", "a=b"),
        ("x-1_2.3", "x-1_2.3"),
        ("%41", "A"),
    ] {
        assert_eq!(ok(&identityd.create(id))["spec"]["moduleId"], id);
        let module = identityd.module(path);
        assert_eq!(ok(&module)["spec"]["moduleId"], id);
        assert_eq!(identityd.delete(path).status, 204, "{id}");
    }
    // One segment of the path at the hub, whatever is in it.
    let before = bench.cloud.last_request();
    for path in ["a%2Fb", "a%25b", "a%5Cb", "..%2F..%2Fx"] {
        let response = identityd.module(path);
        assert_eq!(response.status, 404, "{response}");
    }
    for entry in bench.cloud.log_since(before) {
        let (_, rest) = entry
            .request
            .target
            .split_once("/modules/")
            .expect("a module's path");
        assert!(
            !rest.split('?').next().unwrap().contains('/'),
            "{}",
            entry.request.target
        );
    }
    for path in [".", "..", "%2E%2E"] {
        let response = identityd.module(path);
        assert_eq!(response.status, 400, "{response}");
        assert!(
            response
                .member("message")
                .starts_with("parameter \"module_id\" has an invalid value"),
            "{response}"
        );
    }
    identityd.module("%ff").assert_message(404, "not found");
}

#[test]
fn is_30_internal_errors_say_nothing() {
    let bench = Bench::new();
    let identityd = bench.reconciled(Source::Dps, &principal(4242, "loc", Some(&["module"])));
    // The master key cannot be made: something else is in its place.
    let master = bench.root.key_file("aziot_identityd_master_id");
    std::fs::remove_file(&master).unwrap();
    std::fs::create_dir(&master).unwrap();
    let response = identityd.create("m");
    assert_eq!(response.text(), r#"{"message":"internal error"}"#);
    assert_eq!(response.status, 500);
    identityd
        .daemon
        .log()
        .wait_for("!!! caused by: the Keys Service did not give the master key");
    // The half-made module was taken back.
    assert!(bench.cloud.module(DEVICE, "m").is_none());
}

#[test]
fn is_31_without_a_device() {
    let (_bench, identityd) = unconnected();
    let text = "device identity not found";
    identityd
        .get("/identities/identity")
        .assert_message(400, text);
    identityd
        .post("/identities/device", &json!({ "type": "aziot" }))
        .assert_message(400, text);
    identityd
        .get("/identities/modules?type=aziot")
        .assert_message(400, text);
    identityd.create("m").assert_message(400, text);
    identityd.update("m").assert_message(400, text);
    identityd.delete("m").assert_message(400, text);
    identityd.module("m").assert_message(400, text);
    assert_eq!(identityd.reprovision().status, 204);
}
