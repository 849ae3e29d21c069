//! Registrations.

use aziot_tests::simulator::token::{derive_device_key, sign};
use aziot_tests::simulator::{Action, Early, Enrolment, Fault, Key, NewDevice, Outcome};
use serde_json::json;

use super::client::{self, Client, DEVICE_KEY, now, simulator};
use super::{SCOPE, assert_no_violations, assert_violation};

/// The group key of 18.3.
const GROUP_KEY: &str =
    "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";

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
    let group = Enrolment::new(Key::from_base64(GROUP_KEY).unwrap().0);
    simulator.add_group("factory", group).unwrap();
    let client = Client::new(&simulator);
    let id = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
    let key = Key::from_base64("Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=").unwrap();
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
    assert_violation(&simulator, "\"authorization\" is missing");
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
