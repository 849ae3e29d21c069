use core::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;
use crate::retry::{Answer, Attempt, Attempts, Failure, GaveUp, Next, Policy};

fn device(id: &str) -> DeviceId<'_> {
    DeviceId::new(id).unwrap()
}

fn module_id(id: &str) -> ModuleId<'_> {
    ModuleId::new(id).unwrap()
}

fn target(request: Request<'_>) -> String {
    let mut out = [0; 512];
    request.write_target(&mut out).unwrap().to_owned()
}

fn body(request: Request<'_>) -> Option<String> {
    let mut out = [0; 512];
    request
        .write_body(&mut out)
        .unwrap()
        .map(|body| String::from_utf8(body.to_vec()).unwrap())
}

fn answer(status: u16, body: &str) -> Answer<'static> {
    Answer {
        status,
        json: true,
        retry_after: None,
        body: body.as_bytes().to_vec().leak(),
    }
}

fn keys() -> ModuleKeys {
    let derive = |data: &str| {
        let master: Vec<u8> = (0..32).collect();
        let mut mac = Hmac::<Sha256>::new_from_slice(&master).unwrap();
        mac.update(data.as_bytes());
        mac.finalize().into_bytes().into()
    };
    ModuleKeys {
        primary: derive("testmodule:6370:primary"),
        secondary: derive("testmodule:6370:secondary"),
    }
}

#[test]
fn is_47_requests() {
    let keys = keys();
    let (device, module) = (device("Dev=1"), module_id("$edgeAgent"));
    let of_module = "/devices/Dev%3D1/modules/$edgeAgent?api-version=2017-11-08-preview";
    let of_device = "/devices/Dev%3D1/modules?api-version=2017-11-08-preview";
    let any = Some(("if-match", "*"));
    for (request, method, path, header) in [
        (Request::Create { device, module }, "PUT", of_module, None),
        (
            Request::SetKeys {
                device,
                module,
                keys: &keys,
            },
            "PUT",
            of_module,
            any,
        ),
        (Request::Get { device, module }, "GET", of_module, None),
        (Request::List { device }, "GET", of_device, None),
        (Request::Delete { device, module }, "DELETE", of_module, any),
    ] {
        assert_eq!(request.method(), method);
        assert_eq!(target(request), path);
        assert_eq!(request.header(), header);
    }
    let created = body(Request::Create { device, module }).unwrap();
    assert_eq!(created, r#"{"moduleId":"$edgeAgent","deviceId":"Dev=1"}"#);
    for request in [
        Request::Get { device, module },
        Request::List { device },
        Request::Delete { device, module },
    ] {
        assert_eq!(body(request), None);
    }
}

#[test]
fn is_54_body_with_keys() {
    let keys = keys();
    let request = Request::SetKeys {
        device: device("Dev=1"),
        module: module_id("testmodule"),
        keys: &keys,
    };
    let body = body(request).unwrap();
    assert_eq!(body.len(), 215);
    assert_eq!(
        body,
        r#"{"moduleId":"testmodule","deviceId":"Dev=1","authentication":{"symmetricKey":{"primaryKey":"fUOpsZtpL8x+CnEKDvkBNlHyGT0MrYLVQA+kV9cCb7o=","secondaryKey":"SdkBugrxs1HRbMLJ4xb6urzAJLE/u4IbEBtHTv4kipk="},"type":"sas"}}"#
    );
    assert_eq!(request.write_body(&mut [0; 214]), Err(BufferFull));
    assert_eq!(format!("{keys:?}"), "ModuleKeys { .. }");
}

#[test]
fn is_53_ids_stay_in_their_segment() {
    for (id, wire) in [
        ("mod %/é=2", "mod%20%25%2F%C3%A9%3D2"),
        ("a\\b", "a%5Cb"),
        ("a%b", "a%25b"),
        ("a/../b", "a%2F..%2Fb"),
    ] {
        let path = target(Request::Get {
            device: device("d"),
            module: module_id(id),
        });
        assert_eq!(
            path,
            format!("/devices/d/modules/{wire}?api-version=2017-11-08-preview")
        );
    }
}

#[test]
fn modules_are_read() {
    let text = r#"{"etag":"x","moduleId":"m","managedBy":null,"deviceId":"d","generationId":"g","connectionState":"Disconnected","cloudToDeviceMessageCount":0,"authentication":{"symmetricKey":{"primaryKey":null},"type":"selfSigned"}}"#;
    let expected = Module {
        module: "m",
        device: "d",
        managed_by: None,
        generation: Some("g"),
    };
    assert_eq!(module(answer(200, text)), Ok(expected));
    let managed = Module {
        module: "m",
        device: "d",
        managed_by: Some("x"),
        generation: None,
    };
    assert_eq!(
        module(answer(
            200,
            r#"{"moduleId":"m","deviceId":"d","managedBy":"x"}"#
        )),
        Ok(managed)
    );
    let missing = module(answer(200, r#"{"moduleId":"m"}"#)).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "missing field `deviceId` at line 1 column 16"
    );
}

#[test]
fn is_52_list_survives_unknown_authentication() {
    let list = r#" [ {"moduleId":"a","deviceId":"d","authentication":{"type":"certificateAuthority","x":[1]}},
        {"moduleId":"b","deviceId":"d","authentication":"odd"} , {"moduleId":"c","deviceId":"d"}] "#;
    let names: Result<Vec<_>, _> = Modules::new(answer(200, list))
        .unwrap()
        .map(|module| module.map(|module| module.module))
        .collect();
    assert_eq!(names.unwrap(), ["a", "b", "c"]);
    assert_eq!(Modules::new(answer(200, "[]")).unwrap().count(), 0);
}

#[test]
fn broken_lists_end_with_an_error() {
    for (list, fine) in [
        (r#"[{"moduleId":"a","deviceId":"d"}"#, 1),
        (r#"[{"moduleId":"a","deviceId":"d"},]"#, 1),
        (r#"[{"moduleId":"a","deviceId":"d"}] x"#, 1),
        (r#"[{"moduleId":"a"},{"moduleId":"b","deviceId":"d"}]"#, 0),
        ("[1]", 0),
        ("[", 0),
    ] {
        let items: Vec<_> = Modules::new(answer(200, list)).unwrap().collect();
        assert_eq!(items.len(), fine + 1, "{list}");
        assert!(
            matches!(items.last(), Some(Err(Error::Malformed(_)))),
            "{list}"
        );
    }
    assert!(matches!(
        Modules::new(answer(200, "{}")),
        Err(Error::Malformed(_))
    ));
    assert!(matches!(
        Modules::new(answer(404, "")),
        Err(Error::Status { status: 404 })
    ));
}

#[test]
fn is_50_errors_and_their_classes() {
    // (status, JSON, body) -> (text, network, not found)
    for (status, json, body, text, network, not_found) in [
        (500, true, r#"{"Message":"boom"}"#, "boom", true, false),
        (
            404,
            true,
            r#"{"errorMessage":"offline","networkError":true}"#,
            "offline",
            true,
            false,
        ),
        (
            404,
            true,
            r#"{"Message":"ErrorCode:ModuleNotFound"}"#,
            "ErrorCode:ModuleNotFound",
            false,
            true,
        ),
        (404, true, "", "HTTP error 404 Not Found", false, true),
        (
            401,
            true,
            r#"{"Message":"no","networkError":false}"#,
            "no",
            false,
            false,
        ),
        (
            502,
            false,
            "<html>",
            "HTTP error 502 Bad Gateway",
            true,
            false,
        ),
        (408, true, "", "HTTP error 408 Request Timeout", true, false),
        (
            500,
            true,
            "{",
            "HTTP error 500 Internal Server Error",
            true,
            false,
        ),
        (403, true, "{}", "HTTP error 403 Forbidden", false, false),
        (
            200,
            false,
            "<html>",
            "invalid Content-Type; expected JSON",
            false,
            false,
        ),
        (
            202,
            true,
            "{}",
            "Expected one of [200], got 202 Accepted",
            false,
            false,
        ),
    ] {
        let err = module(Answer {
            json,
            ..answer(status, body)
        })
        .unwrap_err();
        assert_eq!(
            (
                err.to_string().as_str(),
                err.is_network(),
                err.is_not_found()
            ),
            (text, network, not_found)
        );
    }
    let conflict = r#"{"Message":"ErrorCode:ModuleAlreadyExistsOnDevice"}"#;
    assert!(module(answer(409, conflict)).unwrap_err().is_conflict());
    let lost = Error::NoAnswer(GaveUp::Failed(Failure::NotConnected));
    assert!(lost.is_network() && lost.to_string() == "could not connect");
}

#[test]
fn deletions() {
    assert_eq!(deleted(answer(204, "")), Ok(()));
    let unexpected = deleted(answer(200, "")).unwrap_err();
    assert_eq!(
        unexpected.to_string(),
        "unexpected HTTP status code: 200 OK"
    );
    assert!(
        deleted(answer(404, r#"{"Message":"gone"}"#))
            .unwrap_err()
            .is_not_found()
    );
}

/// Makes a module as the Identity Service does (create, set keys) at a simulated hub that answers by a script, on a
/// simulated clock, with no jitter. The result lists each attempt with the time at which it starts, and the end.
fn simulate(script: &[Result<(u16, &'static str), Failure>]) -> String {
    let (keys, device, module_name) = (keys(), device("d"), module_id("m"));
    let mut script = script.iter().copied();
    let mut now = Duration::ZERO;
    let mut log = String::new();
    let create = Request::Create {
        device,
        module: module_name,
    };
    for request in [
        create,
        Request::SetKeys {
            device,
            module: module_name,
            keys: &keys,
        },
    ] {
        let policy = Policy::cloud(1, Policy::CLOUD_TIMEOUT);
        let mut attempts = Attempts::new(policy);
        let first = now;
        let outcome = loop {
            let header = request.header().map_or("", |(_, value)| value);
            log += &format!("{}: {}{header}\n", now.as_secs(), request.method());
            let does = script.next().expect("the script is too short");
            let ended = match does {
                Ok((status, _)) => Attempt::Answered {
                    status,
                    retry_after: None,
                },
                Err(failure) => {
                    now += if failure == Failure::TimedOut {
                        policy.timeout
                    } else {
                        Duration::ZERO
                    };
                    Attempt::Failed(failure)
                }
            };
            match attempts.after(ended, now - first, 0) {
                Next::Pause(pause) => now += pause.length,
                Next::GiveUp(gave_up) => break Err(Error::NoAnswer(gave_up)),
                Next::UseAnswer => {
                    let (status, body) = does.unwrap();
                    break module(answer(status, body)).map(|module| module.generation);
                }
            }
        };
        if let Err(err) = outcome {
            let class = if err.is_network() { " (network)" } else { "" };
            return format!("{log}{}: {err}{class}", now.as_secs());
        }
    }
    format!("{log}{}: made", now.as_secs())
}

#[test]
fn is_54_creation_outcomes() {
    const MADE: Result<(u16, &str), Failure> =
        Ok((200, r#"{"moduleId":"m","deviceId":"d","generationId":"g"}"#));
    for (script, expected) in [
        (&[MADE, MADE][..], "0: PUT\n0: PUT*\n0: made"),
        (
            &[Err(Failure::TimedOut), MADE, MADE],
            "0: PUT\n73: PUT\n73: PUT*\n73: made",
        ),
        (
            &[MADE, Ok((429, "")), MADE],
            "0: PUT\n0: PUT*\n60: PUT*\n60: made",
        ),
        (
            &[Ok((429, "")); 5],
            "0: PUT\n60: PUT\n180: PUT\n360: PUT\n660: PUT\n660: 429: Too many requests (network)",
        ),
        (
            &[MADE, Err(Failure::NotConnected), Err(Failure::Broken)],
            "0: PUT\n0: PUT*\n3: PUT*\n3: the connection broke off during the exchange",
        ),
        (
            &[Ok((503, ""))],
            "0: PUT\n0: HTTP error 503 Service Unavailable (network)",
        ),
        (&[Ok((409, r#"{"Message":"exists"}"#))], "0: PUT\n0: exists"),
        (
            &[MADE, Ok((412, ""))],
            "0: PUT\n0: PUT*\n0: HTTP error 412 Precondition Failed",
        ),
    ] {
        assert_eq!(simulate(script), expected);
    }
}

proptest! {
    #[test]
    fn any_list_is_read_to_its_end(text in "[\\[\\]{}:,\"a-c0-9 ]{0,40}") {
        if let Ok(modules) = Modules::new(answer(200, &format!("[{text}"))) {
            prop_assert!(modules.count() <= text.len() + 1);
        }
    }

    #[test]
    fn bodies_are_json_of_both_ids(d in any::<String>(), m in any::<String>()) {
        prop_assume!(DeviceId::new(&d).is_ok() && ModuleId::new(&m).is_ok());
        let request = Request::Create { device: device(&d), module: module_id(&m) };
        let mut out = vec![0; 6 * (d.len() + m.len()) + 64];
        let value: serde_json::Value = serde_json::from_slice(request.write_body(&mut out).unwrap().unwrap()).unwrap();
        prop_assert_eq!(value, serde_json::json!({"moduleId": m, "deviceId": d}));
        let path = request.write_target(&mut out).unwrap();
        prop_assert_eq!(path.matches('/').count(), 4);
    }
}
