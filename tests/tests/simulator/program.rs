//! The program and its control interface.

// Helpers outside of test functions: a failure there fails the test that called them.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, DEVICE_KEY, Failure};

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
