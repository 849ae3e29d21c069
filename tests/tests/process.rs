//! The daemon as a process: how it is started, configured, told to log, and stopped (spec, daemon chapter A and B.1, B.2).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use aziot_tests::binaries;
use aziot_tests::client::{Client, PATIENCE, get, post, request};
use aziot_tests::daemon::{Daemon, Launch, listening};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::json;

const LOAD: &str = "/key/nope?api-version=2021-05-01";

fn keyd(root: &Root) -> Launch {
    Launch::service("aziot-keyd", root)
}

/// `aziotd` by whatever name, without arguments.
fn aziotd(root: &Root) -> Launch {
    Launch::program(binaries::built("aziotd"), root)
}

fn assert_answers(daemon: &Daemon) {
    get(daemon.socket(), LOAD).assert_message(400, "a parameter has an invalid value");
}

#[test]
fn dm_01_symlinks_select_the_service() {
    let root = Root::with_keyd("");
    let directory = root.join("libexec");
    fs::create_dir(&directory).unwrap();
    for name in [
        "aziot-keyd",
        "aziot-identityd",
        "aziot-nobody",
        "Aziot-Keyd",
    ] {
        std::os::unix::fs::symlink(binaries::built("aziotd"), directory.join(name)).unwrap();
    }
    // By path, by relative path, and by bare name through PATH.
    let by_path = Launch::program(directory.join("aziot-keyd"), &root)
        .socket(root.socket("keyd"))
        .start();
    assert_answers(&by_path);
    let _ = by_path.stop();
    let relative = Launch::program("libexec/aziot-keyd".into(), &root)
        .socket(root.socket("keyd"))
        .start();
    let _ = relative.stop();
    let shell = Launch::program("/bin/sh".into(), &root)
        .arg("-c")
        .arg("PATH=libexec:$PATH exec aziot-keyd stray arguments")
        .socket(root.socket("keyd"))
        .start();
    assert_answers(&shell);
    let _ = shell.stop();
    for name in ["aziot-nobody", "Aziot-Keyd"] {
        let finished = Launch::program(directory.join(name), &root).fails();
        finished.assert_logged(&format!(
            "[ERR!] - could not read argv[0]: unrecognized process name {name}"
        ));
    }
    // The Identity Service starts as itself: unconfigured, it says what it misses.
    let finished = Launch::program(directory.join("aziot-identityd"), &root).fails();
    finished.assert_logged("Starting service...");
    assert!(!finished.log.contains("argv[0]"), "{}", finished.log);
}

#[test]
fn dm_02_the_long_form() {
    let root = Root::with_keyd("");
    let daemon = aziotd(&root)
        .arg("aziotd")
        .arg("./x/aziot-keyd")
        .socket(root.socket("keyd"))
        .start();
    assert_answers(&daemon);
    let _ = daemon.stop();
    aziotd(&root)
        .arg("foo")
        .fails()
        .assert_logged("could not read argv[0]: unrecognized process name foo");
    aziotd(&root)
        .fails()
        .assert_logged("could not read argv[0]: could not extract process name from args");
    aziotd(&root)
        .arg("aziot-keyd")
        .arg("--help")
        .fails()
        .assert_logged("--help");
    aziotd(&root)
        .arg0("/")
        .fails()
        .assert_logged("could not extract process name from arg \"/\"");
}

#[test]
fn dm_03_first_records_and_readiness_of_keyd() {
    let root = Root::with_keyd("");
    let notify = UnixDatagram::bind(root.join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon = keyd(&root)
        .env("NOTIFY_SOCKET", root.join("notify"))
        .start();
    daemon.log().wait_for("Starting server...");
    let lines = daemon.log().lines();
    let messages: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_once("[INFO] - ").map(|(_, message)| message))
        .collect();
    assert_eq!(messages[0], "Starting service...");
    assert!(messages[1].starts_with("Version - "), "{messages:?}");
    assert_eq!(
        messages[2..4],
        [
            "Loaded libaziot-keys with version 0x02010000",
            "Starting server..."
        ]
    );

    let mut buffer = [0; 1024];
    let mut states = String::new();
    let count = notify.recv(&mut buffer).unwrap();
    states.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    assert!(states.contains("READY=1"), "{states}");
    let _ = daemon.stop();
    let count = notify.recv(&mut buffer).unwrap();
    assert!(
        std::str::from_utf8(&buffer[..count])
            .unwrap()
            .contains("STOPPING=1")
    );

    // Nothing of the sort before a start that fails.
    let root = Root::with_keyd("[preloaded_keys]\nx = \"nonsense\"\n");
    let finished = keyd(&root).fails();
    assert!(
        !finished.log.contains("Starting server..."),
        "{}",
        finished.log
    );
    assert!(!root.socket("keyd").exists());
}

#[test]
fn dm_04_variables_override_the_configuration_files() {
    let root = Root::with_keyd("this is not TOML");
    root.write("etc/aziot/keyd/config.d/a.toml", "neither is this");
    let homedir = root.join("elsewhere");
    let other = root.write(
        "other/file",
        format!(
            "[aziot_keys]\nhomedir_path = \"{}\"\n{}",
            homedir.display(),
            users::principal()
        ),
    );
    let dropins = root.join("other/dropins");
    fs::create_dir(&dropins).unwrap();
    let daemon = keyd(&root)
        .env("AZIOT_KEYD_CONFIG", &other)
        .env("AZIOT_KEYD_CONFIG_DIR", &dropins)
        .start();
    let body = json!({ "keyId": "k", "usage": "sign" });
    assert_eq!(
        post(daemon.socket(), "/key?api-version=2021-05-01", &body).status,
        200
    );
    assert_eq!(fs::read_dir(homedir.join("keys")).unwrap().count(), 2);
    let _ = daemon.stop();

    // What does not exist is empty.
    let daemon = keyd(&root)
        .env("AZIOT_KEYD_CONFIG", root.join("nowhere/config.toml"))
        .env("AZIOT_KEYD_CONFIG_DIR", "/nonexistent")
        .start();
    get(daemon.socket(), "/nope?api-version=2021-05-01").assert_message(404, "not found");
    let _ = daemon.stop();

    // An empty variable stands for the default, as if it were not set.
    let finished = keyd(&root)
        .env("AZIOT_KEYD_CONFIG", "")
        .env("AZIOT_KEYD_CONFIG_DIR", "")
        .fails();
    finished.assert_logged("could not read config");
    finished.assert_logged(
        &root
            .join("etc/aziot/keyd/config.toml")
            .display()
            .to_string(),
    );
}

#[test]
fn dm_05_ks_30_merging() {
    let root = Root::with_keyd("max_requests = 3\n[[principal]]\nuid = 70001\nkeys = [\"a*\"]\n");
    root.write(
        "etc/aziot/keyd/config.d/10.toml",
        "[[principal]]\nuid = 70001\nkeys = [\"b\"]\n[unknown]\nx = 1\n",
    );
    root.write(
        "etc/aziot/keyd/config.d/20.toml",
        format!(
            "max_requests = 7\n[aziot_keys]\nhomedir_path = \"{}\"\n",
            root.join("late").display()
        ),
    );
    root.write(
        "etc/aziot/keyd/config.d/9-after-20.toml",
        "[[principal]]\nuid = 70002\nkeys = [\"c\"]\n",
    );
    // None of these counts.
    for name in [".toml", "x.TOML", "x.toml.bak", "x"] {
        root.write(Path::new("etc/aziot/keyd/config.d").join(name), "broken [");
    }
    fs::create_dir(root.join("etc/aziot/keyd/config.d/directory.toml")).unwrap();
    root.write("outside.toml", "broken [");
    std::os::unix::fs::symlink(
        root.join("outside.toml"),
        root.join("etc/aziot/keyd/config.d/link.toml"),
    )
    .unwrap();
    let daemon = keyd(&root).start();
    let warning = daemon.log().wait_for("link.toml");
    assert!(warning.contains("[WARN]"), "{warning}");

    // The later file wins …
    let body = json!({ "keyId": "k", "usage": "sign" });
    assert_eq!(
        post(daemon.socket(), "/key?api-version=2021-05-01", &body).status,
        200
    );
    assert!(root.join("late/keys").is_dir());
    // … also for the number of connections …
    let open: Vec<Client> = (0..6).map(|_| Client::connect(daemon.socket())).collect();
    assert_answers(&daemon);
    drop(open);
    // … and arrays append.
    if users::can_change("principals of several files") {
        for (uid, id, allowed) in [
            (70_001, "abc", true),
            (70_001, "b", true),
            (70_001, "c", false),
            (70_002, "c", true),
            (70_002, "abc", false),
        ] {
            let mut client =
                Client::over(users::connect_as(uid, daemon.socket()).unwrap()).unwrap();
            let response = client.exchange(request(
                "GET",
                &format!("/key/{id}?api-version=2021-05-01"),
                None,
            ));
            let expected = if allowed { 400 } else { 401 };
            assert_eq!(response.status, expected, "{uid} {id}: {response}");
        }
    }
    let _ = daemon.stop();
}

#[test]
fn ks_30_settings_of_the_wrong_type_end_the_start() {
    for (text, named) in [
        ("max_requests = -1\n", "max_requests"),
        ("max_requests = \"10\"\n", "max_requests"),
        ("[preloaded_keys]\nx = 1\n", "preloaded_keys"),
        ("[[principal]]\nuid = \"me\"\nkeys = []\n", "uid"),
        ("[[principal]]\nuid = 1\n", "keys"),
        ("[[principal]]\nuid = 4294967296\nkeys = []\n", "uid"),
        ("[[principal]]\nuid = 1\nkeys = [\"a\", 1]\n", "keys"),
    ] {
        let root = Root::with_keyd(text);
        let finished = keyd(&root).fails();
        finished.assert_logged("[ERR!] - could not read config");
        finished.assert_logged(named);
        // File, line and column of the complaint.
        let file = root
            .join("etc/aziot/keyd/config.toml")
            .display()
            .to_string();
        let line = finished
            .log
            .lines()
            .find(|line| line.contains(&file))
            .unwrap_or_else(|| panic!("{}", finished.log));
        let place = line.split(&file).nth(1).unwrap();
        assert!(
            place.starts_with(':') && place[1..].starts_with(|c: char| c.is_ascii_digit()),
            "{line}"
        );
    }
}

/// `<6>2026-11-21T19:27:21Z [INFO] - `, and ` [target] ` on the two lowest levels.
fn assert_layout(line: &str) {
    let bytes = line.as_bytes();
    let shape: String = line
        .chars()
        .take(24)
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "<0>0000-00-00T00:00:00Z ", "{line}");
    let level = &line[24..33];
    let priority = match level {
        "[ERR!] - " => b'3',
        "[WARN] - " => b'4',
        "[INFO] - " => b'6',
        "[DBUG] - " | "[TRCE] - " => b'7',
        _ => panic!("{line}"),
    };
    assert_eq!(bytes[1], priority, "{line}");
    if priority == b'7' {
        let target = line[33..]
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
            .map(|(target, _)| target);
        assert!(
            target.is_some_and(|target| !target.is_empty() && !target.contains(' ')),
            "{line}"
        );
    }
}

#[test]
fn dm_06_log_layout() {
    let root = Root::with_keyd("unknown_setting = 1\n");
    let daemon = keyd(&root).env("AZIOT_LOG", "trace").start();
    get(daemon.socket(), LOAD);
    get(daemon.socket(), "/nope?api-version=2021-05-01");
    daemon.log().wait_for("--> 404");
    let finished = daemon.stop();
    for line in finished.log.lines() {
        assert_layout(line);
    }
    for level in ["[INFO]", "[WARN]", "[DBUG]"] {
        finished.assert_logged(level);
    }
    finished.assert_logged("<-- GET /key/nope?api-version=2021-05-01 {\"host\": \"test.sock\"}");
    finished.assert_logged("--> 400 {\"content-type\": \"application/json\"}");

    let root = Root::with_keyd("broken [");
    for line in keyd(&root).fails().log.lines() {
        assert_layout(line);
    }
}

#[test]
fn dm_07_filters() {
    // Which of the levels that occur are shown.
    let shown = |filter: Option<&str>| {
        let root = Root::with_keyd("unknown_setting = 1\n");
        let mut launch = keyd(&root);
        if let Some(filter) = filter {
            launch = launch.env("AZIOT_LOG", filter);
        }
        let daemon = launch.start();
        get(daemon.socket(), LOAD);
        daemon.stop().log
    };
    let has = |log: &str, level: &str| {
        log.lines()
            .any(|line| line.contains(&format!("[{level}] - ")))
    };
    let log = shown(None);
    assert!(
        has(&log, "INFO") && has(&log, "WARN") && !has(&log, "DBUG"),
        "{log}"
    );
    for filter in ["warn", "WARN", "Warn"] {
        let log = shown(Some(filter));
        assert!(has(&log, "WARN") && !has(&log, "INFO"), "{log}");
    }
    assert_eq!(shown(Some("off")), "");
    let log = shown(Some("aziot=debug"));
    assert!(
        log.lines().any(|line| line.contains("[DBUG] - [aziot")),
        "{log}"
    );
    let log = shown(Some("x=bogus"));
    assert!(
        log.lines()
            .any(|line| line == "warning: invalid logging spec 'bogus', ignoring it"),
        "{log}"
    );
    assert!(has(&log, "INFO") && !has(&log, "DBUG"), "{log}");
    let log = shown(Some("info/Stopped"));
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('<')).collect();
    assert!(
        lines.len() == 1 && lines[0].ends_with("Stopped server."),
        "{log}"
    );
}

#[test]
fn dm_08_fatal_errors_log_their_chain() {
    let root = Root::with_keyd("broken [");
    let finished = keyd(&root).fails();
    let errors: Vec<&str> = finished
        .log
        .lines()
        .filter(|line| line.starts_with("<3>"))
        .collect();
    assert!(
        errors[0].ends_with("[ERR!] - could not read config"),
        "{errors:?}"
    );
    assert!(
        errors.len() > 1
            && errors[1..]
                .iter()
                .all(|line| line.contains("[ERR!] - caused by: ")),
        "{errors:?}"
    );
    assert!(
        !finished.log.contains("backtrace") && !finished.log.contains("panicked"),
        "{}",
        finished.log
    );

    let root = Root::with_keyd("");
    fs::remove_dir_all(root.join("run/aziot")).unwrap();
    let finished = keyd(&root).fails();
    finished
        .assert_logged("[ERR!] - service encountered an error")
        .assert_logged("[ERR!] - caused by: ");
    finished.assert_logged(&root.socket("keyd").display().to_string());
    finished.assert_logged("No such file or directory (os error 2)");
    finished.assert_logged("create its directory");
}

#[test]
fn dm_09_signals_end_it_promptly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let root = Root::with_keyd("");
        let daemon = Daemon::start("aziot-keyd", &root);
        let mut idle = Client::connect(daemon.socket());
        idle.exchange(request("GET", LOAD, None));
        let start = Instant::now();
        daemon.signal(signal);
        let finished = daemon.wait();
        assert_eq!(finished.status.code(), Some(0));
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        finished.assert_logged("[INFO] - Stopped server.");
        assert!(!root.socket("keyd").exists());
        idle.assert_closed();
    }
}

#[test]
fn the_service_manager_is_told_of_reload_stop_and_life() {
    let root = Root::with_keyd("");
    let path = root.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    // The next message about `state`; those about life may come in between.
    let told = |state: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == state) {
                return text;
            }
            assert_eq!(text.trim_end(), "WATCHDOG=1", "while waiting for {state}");
        }
    };
    let daemon = keyd(&root)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .start();
    told("READY=1");
    for _ in 0..3 {
        told("WATCHDOG=1");
    }
    daemon.signal(libc::SIGHUP);
    let reloading = told("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    told("READY=1");
    daemon.signal(libc::SIGTERM);
    told("STOPPING=1");
    let _ = daemon.wait();
}

#[test]
fn sighup_reloads_and_sigpipe_is_survived() {
    let root = Root::with_keyd("max_requests = 100\n");
    let mut daemon = Daemon::start("aziot-keyd", &root);
    daemon.signal(libc::SIGHUP);
    daemon.log().wait_for("SIGHUP");
    // A client that goes away before its answer is written.
    for _ in 0..20 {
        let mut client = Client::connect(daemon.socket());
        client.send(request(
            "POST",
            "/key?api-version=2021-05-01",
            Some(&json!({ "keyId": "k", "usage": "sign" })),
        ));
        drop(client);
    }
    assert_answers(&daemon);
    daemon.assert_running();
    let _ = daemon.stop();
}

#[test]
fn ht_01_ks_33_an_activated_socket_is_served() {
    let root = Root::with_keyd("");
    let configured = root.write("run/aziot/keyd.sock", "precious");
    let passed = root.join("passed.sock");
    let listener = listening(&passed);
    fs::set_permissions(&passed, fs::Permissions::from_mode(0o640)).unwrap();
    let copy = listener.try_clone().unwrap();
    // A client that connects before the service is there waits for its answer.
    let mut early = Client::connect(&passed);
    early.send(request("GET", LOAD, None));
    let daemon = keyd(&root)
        .activated(vec![listener])
        .socket(&passed)
        .start();
    early
        .response()
        .assert_message(400, "a parameter has an invalid value");
    assert_answers(&daemon);
    let _ = daemon.stop();
    assert_eq!(fs::read_to_string(configured).unwrap(), "precious");
    // The service manager's socket stays as it was, for the next start.
    assert_eq!(fs::metadata(&passed).unwrap().mode() & 0o777, 0o640);
    let daemon = keyd(&root).activated(vec![copy]).socket(&passed).start();
    assert_answers(&daemon);
    let _ = daemon.stop();
}

#[test]
fn ht_02_variables_for_another_process_are_ignored() {
    let root = Root::with_keyd("");
    for (pid, fds) in [("1", "1"), ("1", "nonsense"), ("-5", "1")] {
        let daemon = keyd(&root)
            .env("LISTEN_PID", pid)
            .env("LISTEN_FDS", fds)
            .start();
        assert_answers(&daemon);
        let _ = daemon.stop();
    }
    for fds in ["0", "-3"] {
        let daemon = keyd(&root).listen_fds(fds).start();
        assert_answers(&daemon);
        let _ = daemon.stop();
    }
}

#[test]
fn ht_03_malformed_variables_end_the_start() {
    let root = Root::with_keyd("");
    let finished = keyd(&root)
        .env("LISTEN_PID", "me")
        .env("LISTEN_FDS", "1")
        .fails();
    finished.assert_logged("could not read LISTEN_PID env var: invalid digit found in string");
    let finished = keyd(&root).listen_fds("one").fails();
    finished.assert_logged("could not read LISTEN_FDS env var: invalid digit found in string");
    // Descriptors that are not there, not sockets, or sockets of another kind.
    let finished = keyd(&root).listen_fds("1").fails();
    finished.assert_logged("could not fcntl(3, F_SETFD, FD_CLOEXEC)");
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    keyd(&root)
        .activated(vec![file])
        .fails()
        .assert_logged("Socket operation on non-socket");
    let tcp = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    keyd(&root)
        .activated(vec![tcp])
        .fails()
        .assert_logged("systemd socket has unsupported address family Some(Inet)");
}

/// The close-on-exec flag as the kernel shows it (proc(5)).
fn closes_on_exec(pid: u32, fd: u32) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .unwrap()
        .trim();
    let close_on_exec = u32::try_from(libc::O_CLOEXEC).unwrap();
    u32::from_str_radix(flags, 8).unwrap() & close_on_exec != 0
}

#[test]
fn ht_04_activated_descriptors_close_on_exec() {
    let root = Root::with_keyd("");
    let passed = root.join("passed.sock");
    let daemon = keyd(&root)
        .activated(vec![listening(&passed)])
        .socket(&passed)
        .start();
    assert!(closes_on_exec(daemon.pid(), 3));
    let _ = daemon.stop();

    // Several: the one that is bound to the configured path is served, the others are left alone.
    let own = root.socket("keyd");
    let descriptors = vec![
        listening(&root.join("b.sock")),
        listening(&own),
        listening(&root.join("c.sock")),
    ];
    let inode = fs::metadata(&own).unwrap().ino();
    let daemon = keyd(&root).activated(descriptors).start();
    for fd in 3..6 {
        assert!(closes_on_exec(daemon.pid(), fd), "{fd}");
    }
    assert_answers(&daemon);
    assert_eq!(fs::metadata(&own).unwrap().ino(), inode);
    let _ = daemon.stop();
    assert!(own.exists(), "not ours to remove");

    // None of them is ours: the configured path is bound.
    fs::remove_file(&own).unwrap();
    fs::remove_file(root.join("b.sock")).unwrap();
    fs::remove_file(root.join("c.sock")).unwrap();
    let descriptors = vec![
        listening(&root.join("b.sock")),
        listening(&root.join("c.sock")),
    ];
    let daemon = keyd(&root).activated(descriptors).start();
    assert_answers(&daemon);
    assert!(closes_on_exec(daemon.pid(), 3) && closes_on_exec(daemon.pid(), 4));
    let _ = daemon.stop();
}

#[test]
fn ht_05_ks_33_the_own_socket() {
    let root = Root::with_keyd("");
    let socket = root.socket("keyd");
    let mode = || fs::metadata(&socket).unwrap().mode() & 0o7777;
    // Whatever the umask: the shell sets an open one and a closed one.
    for umask in ["000", "077"] {
        let daemon = Launch::program("/bin/sh".into(), &root)
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$0\" aziot-keyd"))
            .arg(binaries::built("aziotd"))
            .socket(&socket)
            .start();
        assert_eq!(mode(), 0o660, "umask {umask}");
        let _ = daemon.stop();
    }

    // A stale socket is replaced.
    drop(UnixListener::bind(&socket).unwrap());
    let daemon = Daemon::start("aziot-keyd", &root);
    assert_answers(&daemon);
    assert_eq!(mode(), 0o660);

    // That of a running instance is not.
    keyd(&root)
        .fails()
        .assert_logged(&socket.display().to_string());
    assert_answers(&daemon);
    let _ = daemon.kill();

    // After a crash the socket is stale again.
    let daemon = Daemon::start("aziot-keyd", &root);
    assert_answers(&daemon);
    // A file that is not ours any more is not removed.
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "another's").unwrap();
    let _ = daemon.stop();
    assert_eq!(fs::read_to_string(&socket).unwrap(), "another's");

    // Neither is anything else that is in the way, except an empty directory.
    keyd(&root).fails().assert_logged("not a socket");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "another's");
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    let daemon = Daemon::start("aziot-keyd", &root);
    daemon.log().wait_for(
        "[WARN] - Could not remove socket file because it is a directory. Removing directory.",
    );
    let _ = daemon.stop();
    fs::create_dir_all(socket.join("precious")).unwrap();
    let _ = keyd(&root).fails();
    assert!(socket.join("precious").is_dir());
}

#[test]
fn endpoints_are_honoured() {
    let root = Root::new();
    let elsewhere = root.join("else where.sock");
    let uri = format!(
        "unix://{}",
        elsewhere.display().to_string().replace(' ', "%20")
    );
    root.keyd_config(&format!("[endpoints]\naziot_keyd = \"{uri}\"\n"));
    let daemon = keyd(&root).socket(&elsewhere).start();
    assert_answers(&daemon);
    assert!(!root.socket("keyd").exists());
    let _ = daemon.stop();

    // A TCP endpoint is out of the question; the default stands in for it.
    root.keyd_config("[endpoints]\naziot_keyd = \"http://127.0.0.1:8888\"\n");
    let daemon = keyd(&root).start();
    assert_answers(&daemon);
    let warning = daemon.log().wait_for("is an http URI");
    assert!(warning.contains("[WARN]"), "{warning}");
    let _ = daemon.stop();

    root.keyd_config("[endpoints]\naziot_keyd = \"fd://3\"\n");
    let passed = root.join("passed.sock");
    let other = root.join("other.sock");
    let daemon = keyd(&root)
        .activated(vec![listening(&passed), listening(&other)])
        .socket(&passed)
        .start();
    assert_answers(&daemon);
    let _ = daemon.stop();
    root.keyd_config("[endpoints]\naziot_keyd = \"fd://keys\"\n");
    fs::remove_file(&passed).unwrap();
    fs::remove_file(&other).unwrap();
    let daemon = keyd(&root)
        .activated(vec![listening(&other), listening(&passed)])
        .env("LISTEN_FDNAMES", "web:keys")
        .socket(&passed)
        .start();
    assert_answers(&daemon);
    let _ = daemon.stop();
    keyd(&root).fails().assert_logged("socket keys not found");
    // Descriptors that nobody passed, small enough to be the service's own among them.
    for number in [3, 4, 5, 6, 7, 99] {
        root.keyd_config(&format!("[endpoints]\naziot_keyd = \"fd://{number}\"\n"));
        keyd(&root).fails().assert_logged(&format!(
            "could not use the passed descriptor {number} as a socket"
        ));
    }
}

#[test]
fn a_missing_key_library_is_named() {
    let root = Root::with_keyd("");
    // A service that does not need it starts without it; the Keys Service says what to do.
    let finished = keyd(&root).libraries(&root.join("nothing")).fails();
    finished
        .assert_logged("[ERR!] - service encountered an error")
        .assert_logged("libaziot_keys.so");
    root.write("broken/libaziot_keys.so", "no library");
    keyd(&root)
        .libraries(&root.join("broken"))
        .fails()
        .assert_logged("libaziot_keys.so");
}
