//! Changes of the Keys Service's configuration while it runs (spec, keys chapter 9.4).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::time::{Duration, Instant};

use aziot_tests::client::{eventually, request};
use aziot_tests::fixture::{Keyd, VERSION};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::json;

const UID: u32 = 40_000;
const FINISHED: &str = "Config update finished.";

/// Whether the user may use the key, whether it exists or not.
fn allowed(keyd: &Keyd, id: &str) -> bool {
    let response =
        keyd.connect_as(UID)
            .exchange(request("GET", &format!("/key/{id}?{VERSION}"), None));
    assert!([200, 400, 401].contains(&response.status), "{response}");
    response.status != 401
}

fn principal(id: &str) -> String {
    format!("[[principal]]\nuid = {UID}\nkeys = [\"{id}\"]\n")
}

/// Makes a change and waits until it has taken effect.
fn change(keyd: &Keyd, what: impl FnOnce()) {
    let seen = keyd.daemon.log().count(FINISHED);
    what();
    let start = Instant::now();
    keyd.daemon.log().wait_for_more(FINISHED, seen);
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "after {:?}",
        start.elapsed()
    );
}

#[test]
fn ks_31_cl_06_cl_07_principals_change_while_it_runs() {
    if !users::can_change("principals") {
        return;
    }
    let keyd = Keyd::empty("");
    let dropin = "etc/aziot/keyd/config.d/a.toml";
    assert!(!allowed(&keyd, "a"));
    change(&keyd, || {
        keyd.root.write(dropin, principal("a"));
    });
    assert_eq!(
        keyd.daemon
            .log()
            .count("Detected change in config files. Updating config."),
        1
    );
    assert!(allowed(&keyd, "a") && !allowed(&keyd, "b"));
    // The new list replaces the old one.
    change(&keyd, || keyd.root.replace(dropin, principal("b")));
    assert!(!allowed(&keyd, "a") && allowed(&keyd, "b"));

    // A file that cannot be read leaves everything as it was, and the log names file, line and column.
    for broken in ["broken [", "[[principal]]\nuid = \"x\"\n"] {
        let warning = "Detected config file update, but new config failed to parse. Error: ";
        let seen = keyd.daemon.log().count(warning);
        keyd.root.replace(dropin, broken);
        let line = keyd.daemon.log().wait_for_more(warning, seen);
        let place = format!("{}:", keyd.root.join(dropin).display());
        assert!(line.starts_with("<4>") && line.contains(&place), "{line}");
        assert!(allowed(&keyd, "b"));
    }
    change(&keyd, || keyd.root.replace(dropin, principal("c")));
    assert!(allowed(&keyd, "c") && !allowed(&keyd, "b"));
    change(&keyd, || fs::remove_file(keyd.root.join(dropin)).unwrap());
    assert!(!allowed(&keyd, "c"));
    // A connection that is open sees the change as well.
    let mut client = keyd.connect_as(UID);
    let load = request("GET", &format!("/key/d?{VERSION}"), None);
    assert_eq!(client.exchange(&load).status, 401);
    change(&keyd, || {
        keyd.root.write(dropin, principal("d"));
    });
    assert_eq!(client.exchange(&load).status, 400);
}

#[test]
fn ks_31_cl_08_other_settings_wait_for_a_restart() {
    let keyd = Keyd::empty("max_requests = 2\n");
    let secret = keyd.root.write("secret", "bytes");
    let seen = keyd.daemon.log().count(FINISHED);
    keyd.root.keyd_config(&format!(
        "max_requests = 5\n[preloaded_keys]\nnew = \"file://{}\"\n[[principal]]\nuid = 1\nkeys = []\n",
        secret.display()
    ));
    keyd.daemon.log().wait_for_more(FINISHED, seen);
    for setting in ["max_requests", "preloaded_keys"] {
        assert!(keyd.daemon.log().lines().iter().any(|line| {
            line.contains("[WARN]") && line.contains(setting) && line.contains("restart")
        }));
    }
    keyd.get("/key/new")
        .assert_message(400, "a parameter has an invalid value");
    // Two connections are served, not five.
    let mut open = [keyd.connect(), keyd.connect()];
    for client in &mut open {
        assert_eq!(
            client
                .exchange(request("GET", &format!("/key/x?{VERSION}"), None))
                .status,
            400
        );
    }
    keyd.connect().assert_closed();
    drop(open);
    let keyd = keyd.restart();
    assert_eq!(keyd.get("/key/new").status, 200);
}

#[test]
fn ks_32_every_replacement_of_the_main_file_is_noticed() {
    if !users::can_change("principals") {
        return;
    }
    let keyd = Keyd::empty("");
    let main = "etc/aziot/keyd/config.toml";
    let homedir = keyd.root.join("var/lib/aziot/keyd");
    for round in 0..4 {
        let id = format!("round-{round}");
        let text = format!(
            "{}\n[aziot_keys]\nhomedir_path = \"{}\"\n",
            principal(&id),
            homedir.display()
        );
        change(&keyd, || keyd.root.replace(main, text));
        assert!(allowed(&keyd, &id), "{round}");
    }
    // It may go and come back.
    change(&keyd, || fs::remove_file(keyd.root.join(main)).unwrap());
    assert!(!allowed(&keyd, "round-3"));
    change(&keyd, || {
        keyd.root.write(main, principal("back"));
    });
    assert!(allowed(&keyd, "back"));
}

#[test]
fn directories_that_appear_later_are_watched() {
    if !users::can_change("principals") {
        return;
    }
    let root = Root::new();
    fs::remove_dir_all(root.join("etc/aziot")).unwrap();
    let keyd = Keyd::on(root);
    change(&keyd, || {
        fs::create_dir_all(keyd.root.join("etc/aziot/keyd/config.d")).unwrap();
        keyd.root
            .write("etc/aziot/keyd/config.d/x.toml", principal("x"));
    });
    assert!(allowed(&keyd, "x"));
    change(&keyd, || {
        fs::remove_dir_all(keyd.root.join("etc/aziot/keyd/config.d")).unwrap();
    });
    assert!(!allowed(&keyd, "x"));
    change(&keyd, || {
        keyd.root
            .write("etc/aziot/keyd/config.d/y.toml", principal("y"));
    });
    assert!(allowed(&keyd, "y"));
}

#[test]
fn a_burst_of_changes_is_digested() {
    if !users::can_change("principals") {
        return;
    }
    let keyd = Keyd::empty("");
    for n in 0..200 {
        keyd.root.write(
            format!("etc/aziot/keyd/config.d/{n:03}.toml"),
            principal(&format!("k{n}")),
        );
        if n % 10 == 0 {
            let response = keyd.post(
                "/key",
                &json!({ "keyId": format!("k{n}"), "usage": "sign" }),
            );
            assert_eq!(response.status, 200);
        }
    }
    eventually("all of them are in force", || {
        (0..200).all(|n| allowed(&keyd, &format!("k{n}")))
    });
}
