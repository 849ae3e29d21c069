//! Module identities, and tokens of modules and devices.

use aziot_tests::simulator::token::sign;
use aziot_tests::simulator::{NewDevice, NewModule};
use serde_json::json;

use super::client::{self, Client, DEVICE_KEY, now, simulator};
use super::{assert_no_violations, assert_violation};

#[test]
fn is_47_modules_live_from_create_to_delete() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("Dev=1", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    assert_eq!(client.list("Dev=1").unwrap().json(), json!([]));
    assert_eq!(client.get("Dev=1", "testmodule").unwrap().status, 404);

    let created = client.create("Dev=1", "testmodule").unwrap();
    assert_eq!(created.status, 200);
    let generation = created.json()["generationId"].as_str().unwrap().to_owned();
    assert!(generation.len() >= 18 && generation.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(created.json()["moduleId"], "testmodule");
    assert_eq!(created.json()["deviceId"], "Dev=1");

    let conflict = client.create("Dev=1", "testmodule").unwrap();
    assert_eq!(conflict.status, 409);
    let message = conflict.json()["Message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("ErrorCode:ModuleAlreadyExistsOnDevice;"),
        "{message}"
    );
    assert!(conflict.json()["ExceptionMessage"].is_string());

    // The body of 18.4, byte for byte.
    let body = r#"{"moduleId":"testmodule","deviceId":"Dev=1","authentication":{"symmetricKey":{"primaryKey":"fUOpsZtpL8x+CnEKDvkBNlHyGT0MrYLVQA+kV9cCb7o=","secondaryKey":"SdkBugrxs1HRbMLJ4xb6urzAJLE/u4IbEBtHTv4kipk="},"type":"sas"}}"#;
    assert_eq!(body.len(), 215);
    let set = client
        .module_put("Dev=1", "testmodule", body, Some("*"))
        .unwrap();
    assert_eq!(set.status, 200);
    assert_eq!(set.json()["generationId"], generation);
    assert_ne!(set.json()["etag"], created.json()["etag"]);
    let module = simulator.module("Dev=1", "testmodule").unwrap();
    assert_eq!(
        module.keys.primary.to_base64(),
        "fUOpsZtpL8x+CnEKDvkBNlHyGT0MrYLVQA+kV9cCb7o="
    );
    assert_eq!(module.key_updates, 1);

    assert_eq!(
        client.get("Dev=1", "testmodule").unwrap().json(),
        set.json()
    );
    assert_eq!(client.list("Dev=1").unwrap().json(), json!([set.json()]));
    assert_eq!(client.delete("Dev=1", "testmodule").unwrap().status, 204);
    let gone = client.delete("Dev=1", "testmodule").unwrap();
    assert_eq!(gone.status, 404);
    assert!(
        gone.json()["Message"]
            .as_str()
            .unwrap()
            .starts_with("ErrorCode:ModuleNotFound;")
    );
    let absent = client
        .module_put("Dev=1", "testmodule", body, Some("*"))
        .unwrap();
    assert_eq!(absent.status, 404);
    let again = client.create("Dev=1", "testmodule").unwrap().json();
    assert_ne!(again["generationId"], generation);
    assert_no_violations(&simulator);
}

#[test]
fn is_53_ids_are_decoded_once_and_their_encoding_is_checked() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("My Dev=1{é}#?%+", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    for module in ["$edgeAgent", "mod %/é=2", "a%41", "x&y", "..."] {
        assert_eq!(
            client.create("My Dev=1{é}#?%+", module).unwrap().status,
            200,
            "{module}"
        );
        assert!(simulator.module("My Dev=1{é}#?%+", module).is_some());
    }
    assert_no_violations(&simulator);
    simulator.add_device("dev", NewDevice::new(DEVICE_KEY));
    for path in [
        "/devices/dev/modules/%24edgeAgent",
        "/devices/dev/modules/a%2fb",
        "/devices/dev/modules/..",
    ] {
        let answer = client
            .hub_call(&simulator.hub(), "GET", "dev", path, None, None, DEVICE_KEY)
            .unwrap();
        assert_eq!(answer.status, 400, "{path}");
        assert_violation(&simulator, "path segment");
    }
}

#[test]
fn bad_module_requests_are_refused_and_named() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    simulator
        .add_module("d", "m", NewModule::default())
        .unwrap();
    let client = Client::new(&simulator);
    let key = "AAECAwQFBgcICQoLDA0ODw==";
    let keys = |primary: &str, kind: &str| {
        format!(
            r#"{{"moduleId":"m","deviceId":"d","authentication":{{"symmetricKey":{{"primaryKey":"{primary}","secondaryKey":"{key}"}},"type":"{kind}"}}}}"#
        )
    };
    let create = r#"{"moduleId":"m","deviceId":"d"}"#.to_owned();
    for (body, if_match, problem) in [
        (
            create.clone(),
            Some("\"etag\""),
            "if-match: \"etag\" must not",
        ),
        (create.clone(), Some("*"), "members"),
        (keys(key, "sas"), None, "members"),
        (keys("AAEC", "sas"), Some("*"), "3 bytes"),
        (keys("?", "sas"), Some("*"), "not base64"),
        (keys(key, "none"), Some("*"), "authentication type"),
        (
            create.replace("\"m\"", "\"n\""),
            None,
            "not those of the path",
        ),
        (create.replace('}', ",\"managedBy\":null}"), None, "members"),
        (create.replace(',', ", "), None, "compact"),
    ] {
        let answer = client.module_put("d", "m", &body, if_match).unwrap();
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["Message"].is_string());
        assert_violation(&simulator, problem);
    }
    let path = "/devices/d/modules/m";
    let call = |method, if_match, body| {
        client
            .hub_call(
                &simulator.hub(),
                method,
                "d",
                path,
                if_match,
                body,
                DEVICE_KEY,
            )
            .unwrap()
            .status
    };
    assert_eq!(call("DELETE", None, None), 400);
    assert_violation(&simulator, "if-match: * is missing");
    assert_eq!(call("GET", Some("*"), None), 400);
    assert_violation(&simulator, "must not be sent here");
    assert_eq!(call("GET", None, Some("{}")), 400);
    assert_violation(&simulator, "has no body");
    assert_eq!(call("PATCH", None, Some("{}")), 400);
    assert_violation(&simulator, "method PATCH");
    let elsewhere = client
        .hub_call("hub.invalid", "GET", "d", path, None, None, DEVICE_KEY)
        .unwrap();
    assert_eq!(elsewhere.status, 400);
    assert_violation(&simulator, "neither a hub nor a gateway");
    assert_eq!(simulator.module("d", "m").unwrap().key_updates, 0);
}

#[test]
fn dm_10_hc_01_foreign_heads_are_refused_and_named() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("d", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let hub = simulator.hub();
    let token = sign(DEVICE_KEY, &format!("{hub}/devices/d"), now() + 30, None);
    let target = "/devices/d/modules?api-version=2017-11-08-preview";
    for (headers, problem) in [
        (
            format!("authorization: {token}\r\nhost: {hub}\r\nuser-agent: x\r\n"),
            "user-agent",
        ),
        (
            format!("host: {hub}\r\nauthorization: {token}\r\n"),
            "out of order",
        ),
        (
            format!("Authorization: {token}\r\nhost: {hub}\r\n"),
            "lower case",
        ),
        (
            format!("authorization: {token}\r\nhost: {hub}\r\ncontent-length: 0\r\n"),
            "without a body",
        ),
    ] {
        let answer = client
            .exchange(format!("GET {target} HTTP/1.1\r\n{headers}\r\n").as_bytes())
            .unwrap();
        assert_eq!(answer.status, 400, "{headers}");
        assert_violation(&simulator, problem);
    }
    let chunked = format!(
        "PUT {target} HTTP/1.1\r\nhost: {hub}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    assert_eq!(client.exchange(chunked.as_bytes()).unwrap().status, 400);
    assert_violation(&simulator, "chunked");
}

#[test]
fn the_hub_tells_unknown_disabled_and_wrongly_signed_devices_apart_in_its_log() {
    let (simulator, _directory) = simulator(|_| {});
    let client = Client::new(&simulator);
    assert_eq!(client.list("d").unwrap().status, 404);
    simulator.add_device(
        "d",
        NewDevice {
            enabled: false,
            ..NewDevice::new(DEVICE_KEY)
        },
    );
    assert_eq!(client.list("d").unwrap().status, 401);
    simulator.add_device("d", NewDevice::new("another key"));
    let wrong = client.list("d").unwrap();
    assert_eq!(wrong.status, 401);
    assert!(
        wrong.json()["Message"]
            .as_str()
            .unwrap()
            .contains("IotHubUnauthorizedAccess")
    );
    let reasons: Vec<String> = simulator
        .log_since(0)
        .into_iter()
        .filter_map(|entry| entry.refusal)
        .collect();
    for (reason, part) in reasons
        .iter()
        .zip(["no device", "disabled", "signed with a key"])
    {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(reasons.len(), 3);
    assert_no_violations(&simulator);
}

#[test]
fn is_35_a_gateway_serves_every_hub_by_the_tokens_audience() {
    let (simulator, _directory) = simulator(|config| config.gateways = vec!["localhost".into()]);
    let far = "Example.Azure-Devices.NET";
    simulator.add_device(
        "d",
        NewDevice {
            hub: Some(far.into()),
            ..NewDevice::new(DEVICE_KEY)
        },
    );
    let client = Client::new(&simulator);
    let token = sign(
        DEVICE_KEY,
        "example.azure-devices.net/devices/d",
        now() + 30,
        None,
    );
    let target = "/devices/d/modules?api-version=2017-11-08-preview";
    let head = client::head("GET", target, Some(&token), None, &simulator.hub(), "");
    assert_eq!(client.exchange(&head).unwrap().status, 200);
    assert_no_violations(&simulator);
    // A token for the gateway's own name finds no device there.
    assert_eq!(client.list("d").unwrap().status, 404);
}

#[test]
fn a_modules_own_token_is_checked_against_its_keys() {
    let (simulator, _directory) = simulator(|_| {});
    simulator.add_device("Dev", NewDevice::new(DEVICE_KEY));
    let module = NewModule {
        key: Some("module key".into()),
        ..NewModule::default()
    };
    simulator.add_module("Dev", "mod", module).unwrap();
    simulator
        .add_module(
            "Dev",
            "x509",
            NewModule {
                auth_type: Some("selfSigned".into()),
                ..NewModule::default()
            },
        )
        .unwrap();
    let client = Client::new(&simulator);
    let hub = simulator.hub();
    let send = |path: &str, token: &str| {
        // As any client would, headers in its own style.
        let request = format!(
            "POST {path}/messages/events?api-version=2020-03-13 HTTP/1.1\r\nHost: {hub}\r\nUser-Agent: curl/8\r\n\
             Authorization: {token}\r\nContent-Length: 2\r\n\r\nhi"
        );
        client.exchange(request.as_bytes()).unwrap().status
    };
    let audience = format!("{hub}/devices/Dev/modules/mod");
    let hour = now() + 3600;
    assert_eq!(
        send(
            "/devices/Dev/modules/mod",
            &sign(b"module key", &audience, hour, None)
        ),
        204
    );
    // Members in another order and an encoded slash are fine: this is not the daemon.
    let token = sign(b"module key", &audience, hour, None);
    let (sr, rest) = token.split_once("&sig=").unwrap();
    let swapped = format!(
        "SharedAccessSignature sig={rest}&{}",
        sr.trim_start_matches("SharedAccessSignature ")
    );
    assert_eq!(send("/devices/Dev/modules/mod", &swapped), 204);
    assert_eq!(
        send(
            "/devices/Dev",
            &sign(DEVICE_KEY, &format!("{hub}/devices/Dev"), hour, None)
        ),
        204
    );
    assert_eq!(simulator.module("Dev", "mod").unwrap().messages, 2);
    assert_eq!(simulator.device("Dev").unwrap().messages, 1);

    for (path, token, status) in [
        (
            "/devices/Dev/modules/mod",
            sign(DEVICE_KEY, &audience, hour, None),
            401,
        ),
        (
            "/devices/Dev/modules/mod",
            sign(b"module key", &audience, now() - 1, None),
            401,
        ),
        (
            "/devices/Dev/modules/mod",
            sign(b"module key", &audience, now() + 2 * 86_400, None),
            401,
        ),
        (
            "/devices/Dev/modules/mod",
            sign(b"module key", &format!("{hub}/devices/Dev"), hour, None),
            401,
        ),
        ("/devices/Dev/modules/mod", "nonsense".to_owned(), 401),
        (
            "/devices/Dev/modules/x509",
            sign(b"k", &format!("{hub}/devices/Dev/modules/x509"), hour, None),
            401,
        ),
        (
            "/devices/Dev/modules/none",
            sign(b"k", &format!("{hub}/devices/Dev/modules/none"), hour, None),
            404,
        ),
    ] {
        assert_eq!(send(path, &token), status, "{path} {token}");
    }
    assert_eq!(simulator.module("Dev", "mod").unwrap().messages, 2);
    assert_no_violations(&simulator);
}
