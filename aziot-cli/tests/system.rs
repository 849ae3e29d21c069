//! `aziotctl system …`, with stand-ins for `systemctl`, `journalctl` and the Identity Service.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;

use support::{Run, Sandbox};

/// Runs with stand-ins and without `AZIOT_ROOT`; answers also the calls that were made.
fn run(sandbox: &Sandbox, script: &str, arguments: &[&str]) -> (Run, Vec<String>) {
    let calls = sandbox.path("calls");
    let log = format!("echo \"${{0##*/}} $*\" >> '{}'", calls.display());
    sandbox.stub(
        "journalctl",
        &format!("{log}\necho \"log of $2\"\n{script}"),
    );
    let path = sandbox.stub("systemctl", &format!("{log}\n{script}"));
    let run = Run::of(
        sandbox
            .command(arguments)
            .env_remove("AZIOT_ROOT")
            .env("PATH", path),
    );
    let calls = std::fs::read_to_string(calls).unwrap_or_default();
    (run, calls.lines().map(str::to_owned).collect())
}

const RESTART: [&str; 9] = [
    "systemctl stop aziot-identityd.service",
    "systemctl stop aziot-keyd.service",
    "systemctl stop aziot-certd.service",
    "systemctl stop aziot-tpmd.service",
    "systemctl start aziot-identityd.socket",
    "systemctl start aziot-keyd.socket",
    "systemctl start aziot-certd.socket",
    "systemctl start aziot-tpmd.socket",
    "systemctl start aziot-identityd.service",
];

#[test]
fn ct_14_restart_calls_systemctl_in_order() {
    let (run, calls) = run(&Sandbox::new(), "", &["system", "restart"]);
    let run = run.succeeds();
    assert_eq!(calls, RESTART);
    assert_eq!(
        run.stdout,
        "Stopping aziot-identityd.service...Stopped!\nStopping aziot-keyd.service...Stopped!\n\
         Stopping aziot-certd.service...Stopped!\nStopping aziot-tpmd.service...Stopped!\n\
         Starting aziot-identityd.socket...Started!\nStarting aziot-keyd.socket...Started!\n\
         Starting aziot-certd.socket...Started!\nStarting aziot-tpmd.socket...Started!\n\
         Starting aziot-identityd.service...Started!\n"
    );
}

#[test]
fn ct_14_stop_calls_systemctl_in_order() {
    let (run, calls) = run(&Sandbox::new(), "", &["system", "stop"]);
    run.succeeds();
    assert_eq!(calls, RESTART[..4]);
}

#[test]
fn ct_14_units_that_fail_are_shown_and_the_others_are_still_changed() {
    let script = "case \"$2\" in aziot-keyd.*) echo out; echo why >&2; exit 5;; esac";
    let (run, calls) = run(&Sandbox::new(), script, &["system", "restart"]);
    assert_eq!(calls, RESTART);
    let run = run.fails_with(&[
        "systemctl exited with non-zero status code.\nstdout:\n=======\nout\nstderr:\n=======\nwhy\n",
        "systemctl failed for aziot-keyd.service, aziot-keyd.socket\n",
    ]);
    assert!(!run.stdout.contains("why"), "{run:?}");
}

#[test]
fn ct_14_a_missing_systemctl_is_named() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["system", "stop"]);
    Run::of(command.env_remove("AZIOT_ROOT").env("PATH", "/nonexistent")).fails_with(&[
        "Failed to call systemctl stop\n\nCaused by:\n    No such file or directory",
    ]);
}

#[test]
fn ct_15_status_layout() {
    let script = r#"case "$2" in
aziot-identityd.*) echo active;;
aziot-keyd.service) echo inactive; exit 3;;
aziot-keyd.socket) echo active;;
aziot-certd.service) echo failed; echo oh >&2; exit 3;;
aziot-certd.socket) echo active;;
aziot-tpmd.service) echo inactive; exit 3;;
aziot-tpmd.socket) echo inactive; exit 3;;
esac"#;
    let (run, _) = run(&Sandbox::new(), script, &["system", "status"]);
    let run = run.succeeds();
    // The stand-in of journalctl runs the same script after its own line.
    assert_eq!(
        run.stdout,
        "System services:\n\
         \x20   aziot-identityd         Running\n\
         \x20   aziot-keyd              Ready\n\
         \x20   aziot-certd             Down - failed oh\n\
         \x20   aziot-tpmd              Down - socket inactive\n\
         \n\
         aziot-certd is in a bad state because:\n\
         aziot-certd.service: Down - failed oh: Printing the last 10 log lines.\n\
         log of aziot-certd.service\nfailed\noh\n\
         \n\
         aziot-tpmd is in a bad state because:\n\
         aziot-tpmd.service: Ready: Printing the last 10 log lines.\n\
         log of aziot-tpmd.service\ninactive\n\
         \n\
         aziot-tpmd.socket: Down - inactive: Printing the last 10 log lines.\n\
         log of aziot-tpmd.socket\ninactive\n\
         \n\
         Use 'aziotctl system logs' to check for non-fatal errors.\n\
         Use 'aziotctl check' to diagnose connectivity and configuration issues.\n"
    );
}

#[test]
fn ct_15_logs_pass_arguments_and_status_on() {
    let units = "-u aziot-identityd.service -u aziot-keyd.service -u aziot-certd.service -u aziot-tpmd.service";
    let (result, calls) = run(&Sandbox::new(), "", &["system", "logs"]);
    result.succeeds();
    assert_eq!(calls, [format!("journalctl {units} -e --no-pager")]);
    let (result, calls) = run(
        &Sandbox::new(),
        "exit 1",
        &["system", "logs", "--", "-f", "-n", "3"],
    );
    result.fails_with(&["journalctl failed: exit status: 1"]);
    assert_eq!(calls, [format!("journalctl {units} -f -n 3")]);
}

#[test]
fn units_are_left_alone_under_a_root() {
    let sandbox = Sandbox::new();
    for command in [
        &["restart"][..],
        &["stop"],
        &["status"],
        &["logs"],
        &["set-log-level", "info"],
    ] {
        let path = sandbox.stub("systemctl", "exit 99");
        let arguments = [&["system"], command].concat();
        Run::of(sandbox.command(&arguments).env("PATH", path))
            .fails_with(&["AZIOT_ROOT is set, and services under it are not managed by systemd"]);
    }
}

/// A service that gives one answer; answers the request.
fn serve(sandbox: &Sandbox, answer: &'static str) -> thread::JoinHandle<String> {
    let socket = sandbox.path("run/aziot/identityd.sock");
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.ends_with(b"}") {
            let read = stream.read(&mut buffer).unwrap();
            assert_ne!(read, 0);
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    })
}

#[test]
fn ct_17_reprovision_request_and_messages() {
    let sandbox = Sandbox::new();
    let server = serve(
        &sandbox,
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    );
    let run = sandbox.run(&["system", "reprovision"]).succeeds();
    assert_eq!(run.stdout, "Successfully reprovisioned with IoT Hub.\n");
    assert_eq!(
        server.join().unwrap(),
        "POST /identities/device/reprovision?api-version=2021-12-01 HTTP/1.1\r\ncontent-type: application/json\r\n\
         host: identityd.sock\r\ncontent-length: 16\r\n\r\n{\"type\":\"aziot\"}"
    );
}

#[test]
fn ct_17_reprovision_failures_show_the_message_of_the_service() {
    for (answer, expected) in [
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 33\r\ncontent-type: application/json\r\n\r\n{\"message\":\"authorization error\"}",
            "Failed to reprovision: unexpected HTTP status code: 403 Forbidden\n\nCaused by:\n    authorization error\n",
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\n\r\n5\r\nplain\r\n0\r\n\r\n",
            "Failed to reprovision: unexpected HTTP status code: 500 Internal Server Error\n",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 58\r\ncontent-type: application/json\r\n\r\n{\"message\":\"DPS client error\\ncaused by: a\\ncaused by: b\"}",
            "Failed to reprovision: unexpected HTTP status code: 404 Not Found\n\nCaused by:\n    0: DPS client error\n    1: a\n    2: b\n",
        ),
        ("nonsense\r\n\r\n", "Failed to reprovision: no answer from "),
        ("", "Failed to reprovision: no answer from "),
    ] {
        let sandbox = Sandbox::new();
        let server = serve(&sandbox, answer);
        let run = sandbox
            .run(&["system", "reprovision"])
            .fails_with(&[expected]);
        assert_eq!(run.stdout, "");
        server.join().unwrap();
    }
    let missing = Sandbox::new().run(&["system", "reprovision"]);
    missing.fails_with(&["run/aziot/identityd.sock\n\nCaused by:\n    No such file or directory"]);
}
