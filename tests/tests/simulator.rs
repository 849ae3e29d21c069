//! The simulator, driven by a raw TLS client.

mod client;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aziot_tests::simulator::token::{derive_device_key, sign};
use aziot_tests::simulator::{
    Action, CannedResponse, Early, Enrolment, Fault, Framing, NewDevice, NewModule, Outcome,
    Simulator,
};
use client::{Answer, Client, DEVICE_KEY, Failure, now, simulator};
use serde_json::{Value, json};

const SCOPE: &str = "0ne00000001";
const GROUP_KEY: &str =
    "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";

#[track_caller]
fn assert_no_violations(simulator: &Simulator) {
    let violations: Vec<String> = simulator
        .violations()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(violations, Vec::<String>::new());
}

#[track_caller]
fn assert_violation(simulator: &Simulator, part: &str) {
    let violations: Vec<String> = simulator
        .violations()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        violations.iter().any(|text| text.contains(part)),
        "{part:?} is not among {violations:?}"
    );
    simulator.clear_violations();
}

// ---- DPS ----

#[test]
fn is_44_an_individual_enrolment_is_assigned_after_the_polls_it_was_told() {
    let (simulator, _directory) = simulator(|config| {
        config.settings.retry_after = Some(0);
        config.settings.assigning_polls = 2;
    });
    simulator.add_enrolment("dev-1", Enrolment::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let payload = json!({ "modelId": "foo 2022" });
    let registered = client
        .register("dev-1", DEVICE_KEY, Some(&payload))
        .unwrap();
    assert_eq!(registered.status, 202);
    assert_eq!(registered.header("retry-after"), Some("0"));
    assert_eq!(registered.header("transfer-encoding"), Some("chunked"));
    assert_eq!(registered.json()["status"], "assigning");
    let operation = registered.json()["operationId"]
        .as_str()
        .unwrap()
        .to_owned();
    for _ in 0..2 {
        let poll = client.poll("dev-1", DEVICE_KEY, &operation).unwrap();
        assert_eq!(
            (poll.status, poll.json()["status"].clone()),
            (202, json!("assigning"))
        );
        assert_eq!(poll.json()["registrationState"]["registrationId"], "dev-1");
        assert!(simulator.device("dev-1").is_none());
    }
    let last = client.poll("dev-1", DEVICE_KEY, &operation).unwrap();
    assert_eq!(last.status, 200);
    let state = last.json()["registrationState"].clone();
    assert_eq!(last.json()["status"], "assigned");
    assert_eq!(state["assignedHub"], simulator.hub());
    assert_eq!(state["deviceId"], "dev-1");
    assert_eq!(state["payload"]["request_payload"], payload);
    assert!(simulator.device("dev-1").is_some());
    // Asked again it says the same.
    assert_eq!(
        client.poll("dev-1", DEVICE_KEY, &operation).unwrap().json(),
        last.json()
    );
    assert_no_violations(&simulator);
}

#[test]
fn group_keys_of_18_3_open_a_group_and_no_other_key_does() {
    let (simulator, _directory) = simulator(|config| config.settings.retry_after = None);
    let group = Enrolment::new(
        aziot_tests::simulator::Key::from_base64(GROUP_KEY)
            .unwrap()
            .0,
    );
    simulator.add_group("factory", group).unwrap();
    let client = Client::new(&simulator);
    let id = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
    let key =
        aziot_tests::simulator::Key::from_base64("Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=")
            .unwrap();
    assert_eq!(client.assign(id, &key.0)["status"], "assigned");
    assert_eq!(simulator.device(id).unwrap().keys.primary, key);

    let wrong = client.register("my-device", &key.0, None).unwrap();
    assert_eq!(wrong.status, 401);
    let body = wrong.json();
    assert_eq!(
        (&body["errorCode"], &body["message"]),
        (&json!(401_002), &json!("Unauthorized"))
    );
    assert!(
        body["trackingId"].is_string() && body["timestampUtc"].as_str().unwrap().ends_with('Z')
    );
    assert!(
        simulator
            .log_since(0)
            .last()
            .unwrap()
            .refusal
            .as_ref()
            .unwrap()
            .contains("my-device")
    );
    // An operator's mistake, not the client's.
    assert_no_violations(&simulator);
    assert!(
        simulator
            .add_group(
                "bad",
                Enrolment {
                    device_id: Some("x".into()),
                    ..Enrolment::new("k")
                }
            )
            .is_err()
    );
}

#[test]
fn an_individual_enrolment_goes_before_its_group() {
    let (simulator, _directory) = simulator(|config| config.settings.retry_after = None);
    simulator
        .add_group("g", Enrolment::new("group-key"))
        .unwrap();
    let mut enrolment = Enrolment::new(DEVICE_KEY);
    enrolment.secondary_key = Some("second".into());
    enrolment.device_id = Some("Given".into());
    simulator.add_enrolment("dev", enrolment);
    let client = Client::new(&simulator);
    assert_eq!(
        client
            .register("dev", &derive_device_key(b"group-key", "dev"), None)
            .unwrap()
            .status,
        401
    );
    assert_eq!(
        client.assign("dev", b"second")["registrationState"]["deviceId"],
        "Given"
    );
    assert!(simulator.device("Given").is_some());
}

#[test]
fn is_46_registrations_end_as_the_enrolment_says() {
    let (simulator, _directory) = simulator(|config| config.settings.retry_after = None);
    let client = Client::new(&simulator);
    for (outcome, status) in [
        (
            Outcome::Failed {
                error_code: 400_207,
                error_message: "no hub".into(),
            },
            "failed",
        ),
        (Outcome::Disabled, "disabled"),
        (Outcome::Unassigned, "unassigned"),
    ] {
        simulator.add_enrolment(
            "dev",
            Enrolment {
                outcome,
                ..Enrolment::new(DEVICE_KEY)
            },
        );
        let body = client.assign("dev", DEVICE_KEY);
        assert_eq!(body["status"], status);
        if status == "failed" {
            assert_eq!(body["registrationState"]["errorCode"], 400_207);
            assert_eq!(body["registrationState"]["errorMessage"], "no hub");
        }
        assert!(body["registrationState"].get("assignedHub").is_none());
    }
    simulator.add_enrolment(
        "dev",
        Enrolment {
            immediate: true,
            ..Enrolment::new(DEVICE_KEY)
        },
    );
    let at_once = client.register("dev", DEVICE_KEY, None).unwrap();
    assert_eq!(
        (at_once.status, at_once.json()["status"].clone()),
        (200, json!("assigned"))
    );
}

#[test]
fn a_payload_steers_to_another_hub_and_the_device_moves() {
    let (simulator, _directory) = simulator(|config| config.settings.retry_after = None);
    let client = Client::new(&simulator);
    let second = format!("127.0.0.1:{}", simulator.port());
    let mut enrolment = Enrolment {
        immediate: true,
        ..Enrolment::new(DEVICE_KEY)
    };
    enrolment
        .hub_by_model
        .insert("foo 2022".into(), second.clone());
    simulator.add_enrolment("dev", enrolment);
    assert_eq!(
        client.assign("dev", DEVICE_KEY)["registrationState"]["assignedHub"],
        simulator.hub()
    );
    let payload = json!({ "modelId": "foo 2022" });
    let moved = client
        .register("dev", DEVICE_KEY, Some(&payload))
        .unwrap()
        .json();
    assert_eq!(moved["registrationState"]["assignedHub"], second);
    assert!(simulator.device("dev").is_none());
    assert!(simulator.world().device(&second, "dev").is_some());
    let listed = client.hub_call(
        &second,
        "GET",
        "dev",
        "/devices/dev/modules",
        None,
        None,
        DEVICE_KEY,
    );
    assert_eq!(listed.unwrap().json(), json!([]));
    assert_no_violations(&simulator);
}

#[test]
fn polls_before_their_time_are_violations_and_answered_as_set() {
    let (simulator, _directory) = simulator(|config| {
        config.settings.retry_after = Some(3600);
        config.settings.assigning_polls = 0;
    });
    simulator.add_enrolment("dev", Enrolment::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let operation = client.register("dev", DEVICE_KEY, None).unwrap().json()["operationId"].clone();
    let operation = operation.as_str().unwrap();
    for (early, status) in [
        (Early::Throttle, 429),
        (Early::Reject, 400),
        (Early::Record, 200),
    ] {
        simulator.change_settings(|settings| settings.early = early);
        let poll = client.poll("dev", DEVICE_KEY, operation).unwrap();
        assert_eq!(poll.status, status);
        assert_violation(&simulator, "before it was told");
    }
}

#[test]
fn retry_after_is_held_against_the_same_request_only_and_scaled() {
    let (simulator, _directory) = simulator(|config| config.settings.time_scale = 0.0);
    simulator.add_device("dev", NewDevice::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let throttle = Fault::once(Action::Throttle {
        retry_after: Some(600),
    })
    .on_route("module-list");
    simulator.add_fault(throttle.clone()).unwrap();
    let throttled = client.list("dev").unwrap();
    assert_eq!(
        (throttled.status, throttled.header("retry-after")),
        (429, Some("600"))
    );
    assert_eq!(client.list("dev").unwrap().status, 200); // 600 s times 0
    assert_no_violations(&simulator);

    simulator.change_settings(|settings| settings.time_scale = 1.0);
    simulator.add_fault(throttle).unwrap();
    assert_eq!(client.list("dev").unwrap().status, 429);
    assert_eq!(client.create("dev", "m").unwrap().status, 200);
    assert_no_violations(&simulator);
    assert_eq!(client.list("dev").unwrap().status, 200);
    assert_violation(&simulator, "before it was told");
}

#[test]
fn bad_registrations_are_refused_and_named() {
    let (simulator, _directory) = simulator(|config| config.settings.retry_after = None);
    simulator.add_enrolment("dev", Enrolment::new(DEVICE_KEY));
    let client = Client::new(&simulator);
    let target = format!("/{SCOPE}/registrations/dev/register?api-version=2021-06-01");
    let good = r#"{"registrationId":"dev"}"#;
    let audience = format!("{SCOPE}/registrations/dev");
    let token = |audience: &str, lifetime, name| sign(DEVICE_KEY, audience, now() + lifetime, name);
    let fine = token(&audience, 30, Some("registration"));
    let put = |target: &str, token: &str, body: &str| {
        client
            .exchange(&client::head(
                "PUT",
                target,
                Some(token),
                None,
                &simulator.hub(),
                body,
            ))
            .unwrap()
    };
    let operations = || simulator.world().operations.len();
    assert_eq!(put(&target, &fine, good).status, 202);
    assert_no_violations(&simulator);
    assert_eq!(operations(), 1);

    for (token, problem) in [
        (token(&audience, 30, None), "skn=registration"),
        (
            token("0ne00000002/registrations/dev", 30, Some("registration")),
            "this resource needs",
        ),
        (
            token(&audience.to_uppercase(), 30, Some("registration")),
            "this resource needs",
        ),
        (token(&audience, 0, Some("registration")), "expired"),
        (token(&audience, -60, Some("registration")), "expired"),
        (token(&audience, 60, Some("registration")), "at most 35 s"),
        (
            token(&audience, 15, Some("registration")),
            "earlier request",
        ),
        (fine.replace("%3D", "%3d"), "canonical"),
        (
            fine.replace("SharedAccessSignature ", "Bearer "),
            "does not begin",
        ),
    ] {
        assert_eq!(put(&target, &token, good).status, 401, "{token}");
        assert_violation(&simulator, problem);
    }
    for (body, problem) in [
        (r#"{"registrationId":"Dev"}"#, "not the one in the path"),
        (r#"{"registrationId":"dev","payload":1,"x":1}"#, "members"),
        (r#"{"payload":1,"registrationId":"dev"}"#, "members"),
        (r#"{"registrationId":"dev","tpm":{}}"#, "members"),
        (r#"{ "registrationId":"dev"}"#, "compact"),
        (
            r#"{"registrationId":"dev","registrationId":"dev"}"#,
            "compact",
        ),
        (r#"["dev"]"#, "not a JSON object"),
        (r#"{"registrationId":"dev""#, "not JSON"),
    ] {
        let answer = put(&target, &fine, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["errorCode"].is_i64());
        assert_violation(&simulator, problem);
    }
    for query in ["", "?api-version=2021-06-02", "?api-version=2021-06-01&x=1"] {
        let target = format!("/{SCOPE}/registrations/dev/register{query}");
        assert_eq!(put(&target, &fine, good).status, 400);
        assert_violation(&simulator, "the query has to be");
    }
    let bare = client::head("PUT", &target, None, None, &simulator.hub(), good);
    assert_eq!(client.exchange(&bare).unwrap().status, 401);
    assert_violation(&simulator, "authorization");
    let get = client::head("GET", &target, Some(&fine), None, &simulator.hub(), "");
    assert_eq!(client.exchange(&get).unwrap().status, 400);
    assert_violation(&simulator, "method GET");
    let elsewhere = client::head("PUT", &target, Some(&fine), None, "dps.invalid", good);
    assert_eq!(client.exchange(&elsewhere).unwrap().status, 400);
    assert_violation(&simulator, "is not DPS");
    let nowhere = client::head("GET", "/nowhere", None, None, &simulator.hub(), "");
    assert_eq!(client.exchange(&nowhere).unwrap().status, 404);
    assert_violation(&simulator, "has this resource");
    let unknown = client.poll("dev", DEVICE_KEY, "4.unknown").unwrap();
    assert_eq!(
        (unknown.status, unknown.json()["errorCode"].clone()),
        (404, json!(404_202))
    );
    assert_violation(&simulator, "no operation");
    assert_eq!(operations(), 1); // none of them began anything
}

// ---- IoT Hub ----

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

// ---- misbehaviour ----

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

// ---- the program and its control interface ----

fn control(path: &str, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: s\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

#[test]
fn the_program_serves_a_script() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control").display().to_string();
    let mut program = Command::new(env!("CARGO_BIN_EXE_aziot-simulator"))
        .args([
            "--control",
            &socket,
            "--device",
            "Dev=1=ZGV2aWNlIGtleQ==",
            "--group",
            "g=Z3JvdXA=",
            "--no-retry-after",
        ])
        .arg("--dir")
        .arg(directory.path().join("pki"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let value = |name: &str| {
        let word = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("{name} is not in {line:?}"))
            .to_owned()
    };
    assert!(line.starts_with("listening "));
    assert_eq!(value("control"), socket);
    let client = Client::to(value("port").parse().unwrap(), value("ca").as_ref());
    let call = |method: &str, target: &str, body: &str| control(&socket, method, target, body);
    let json = |target: &str| -> Value {
        let (status, body) = call("GET", target, "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };

    assert_eq!(client.list("Dev=1").unwrap().json(), json!([]));
    assert_eq!(
        call("PUT", "/devices/Dev%3D1/modules/m", r#"{"managedBy":"me"}"#).0,
        204
    );
    assert_eq!(client.list("Dev=1").unwrap().json()[0]["managedBy"], "me");
    assert_eq!(call("DELETE", "/devices/Dev%3D1/modules/m", "").0, 204);
    assert_eq!(call("DELETE", "/devices/Dev%3D1/modules/m", "").0, 404);
    assert_eq!(
        call(
            "PUT",
            "/enrolments/r",
            r#"{"key":"ZGV2aWNlIGtleQ==","immediate":true}"#
        )
        .0,
        204
    );
    assert_eq!(client.register("r", DEVICE_KEY, None).unwrap().status, 200);
    let state = json("/state");
    let hub = value("hub");
    assert_eq!(state["hubs"][&hub]["r"]["primaryKey"], "ZGV2aWNlIGtleQ==");
    assert_eq!(state["groups"]["g"]["key"], "Z3JvdXA=");
    assert_eq!(state["connections"]["accepted"], 3);
    assert_eq!(call("DELETE", "/devices/r", "").0, 204);

    let log = json("/log?since=2&waitMs=60000");
    assert_eq!(log.as_array().unwrap().len(), 1);
    assert_eq!(log[0]["route"], "register");
    assert_eq!(log[0]["body"], r#"{"registrationId":"r"}"#);
    assert_eq!(json("/log?since=3&waitMs=1"), json!([]));
    assert_eq!(json("/violations"), json!([]));
    client
        .exchange(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n")
        .unwrap();
    assert_eq!(json("/violations")[0]["number"], 4);
    assert_eq!(call("DELETE", "/violations", "").0, 204);
    assert_eq!(call("DELETE", "/log", "").0, 204);
    assert_eq!((json("/violations"), json("/log")), (json!([]), json!([])));

    assert_eq!(
        call(
            "POST",
            "/faults",
            r#"{"action":{"respond":{"status":503}},"route":"module-list","count":1}"#
        )
        .0,
        204
    );
    assert_eq!(json("/faults")[0]["count"], 1);
    assert_eq!(client.list("Dev=1").unwrap().status, 503);
    assert_eq!(call("POST", "/faults", r#"{"action":"hang"}"#).0, 204);
    assert_eq!(call("DELETE", "/faults", "").0, 204);
    assert_eq!(call("PUT", "/clock", r#"{"skewSeconds":900}"#).0, 204);
    assert_eq!(client.list("Dev=1").unwrap().status, 401);
    assert_eq!(call("PUT", "/clock", r#"{"skewSeconds":0}"#).0, 204);
    assert_eq!(
        call(
            "PUT",
            "/settings",
            r#"{"framing":"chunked","retryAfter":7}"#
        )
        .0,
        204
    );
    assert_eq!(json("/settings")["retryAfter"], 7);
    assert_eq!(
        client.list("Dev=1").unwrap().header("transfer-encoding"),
        Some("chunked")
    );
    assert_eq!(call("POST", "/listener/stop", "").0, 204);
    assert_eq!(client.list("Dev=1").unwrap_err(), Failure::Refused);
    assert_eq!(call("POST", "/listener/start", "").0, 204);
    assert_eq!(client.list("Dev=1").unwrap().status, 200);

    for (method, target, body, status, part) in [
        ("PUT", "/settings", r#"{"framing":"x"}"#, 400, "variant"),
        ("PUT", "/settings", r#"{"typo":1}"#, 400, "typo"),
        ("PUT", "/settings", r#"{"timeScale":-1}"#, 400, "timeScale"),
        ("PUT", "/enrolments/r", r#"{"key":"?"}"#, 400, "base64"),
        (
            "PUT",
            "/groups/g",
            r#"{"key":"AA==","deviceId":"x"}"#,
            400,
            "deviceId",
        ),
        ("PUT", "/devices/nobody/modules/m", "{}", 404, "nobody"),
        (
            "POST",
            "/faults",
            r#"{"action":"hangConnection","method":"GET"}"#,
            400,
            "before a request",
        ),
        ("GET", "/log?since=x", "", 400, "number"),
        ("GET", "/nowhere", "", 404, "GET /"),
        ("GET", "/%zz", "", 400, "percent"),
    ] {
        let (got, text) = call(method, target, body);
        assert_eq!(got, status, "{method} {target}: {text}");
        let text: Value = serde_json::from_str(&text).unwrap();
        assert!(text["message"].as_str().unwrap().contains(part), "{text}");
    }
    assert!(call("GET", "/", "").1.contains("/listener/stop"));
    assert_eq!(call("POST", "/shutdown", "").0, 204);
    assert!(program.wait().unwrap().success());
    assert!(!std::path::Path::new(&socket).exists());
}

#[test]
fn the_program_ends_with_a_signal_and_keeps_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let mut authorities = Vec::new();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_aziot-simulator"))
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(program.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("listening "));
        let id = rustix::process::Pid::from_child(&program);
        rustix::process::kill_process(id, signal).unwrap();
        assert!(program.wait().unwrap().success());
        authorities.push(std::fs::read(directory.path().join("ca.pem")).unwrap());
    }
    assert_eq!(authorities[0], authorities[1]);
}

#[test]
fn the_program_explains_itself_and_its_failures() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_aziot-simulator"))
            .args(arguments)
            .output()
            .unwrap()
    };
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for part in [
        "--control",
        "/violations",
        "untrustedCertificate",
        "messages/events",
        "listening port=",
    ] {
        assert!(text.contains(part), "{part} is not in the help");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failed = run(&["--dir", &file.display().to_string()]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        String::from_utf8(failed.stderr)
            .unwrap()
            .contains("could not make the directory")
    );
    for arguments in [
        ["--dir", "x", "--device", "id"],
        ["--dir", "x", "--device", "id=?"],
        ["--dir", "x", "--port", "70000"],
    ] {
        assert_eq!(run(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}
