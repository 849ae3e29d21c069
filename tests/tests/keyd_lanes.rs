//! Which requests the Keys Service makes wait for which others, shown with a key library that waits where it is told to; and
//! `GET /status` (DESIGN 4 and 9.6, keys chapter 5.11, 7).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aziot_tests::binaries;
use aziot_tests::client::{Client, eventually, request};
use aziot_tests::daemon::Launch;
use aziot_tests::fixture::{self, HANDLE_KEY, Keyd, VERSION};
use aziot_tests::root::Root;
use aziot_tests::users;
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

const STATUS: &str = "/status?api-version=2026-11-01";

/// A request that waits for something is answered within this time once that has come, and others do not take as long.
const SOON: Duration = Duration::from_secs(20);

fn launch(flags: &[&str], config: &str) -> (Root, Launch) {
    let root = Root::with_keyd(config);
    let directory = root.join("lib");
    binaries::compile_shared(
        "extended_keys.c",
        flags,
        &["-pthread"],
        &directory,
        "libaziot_keys.so",
    );
    let launch = Launch::service("aziot-keyd", &root)
        .libraries(&directory)
        .env("EXTENDED_KEYS", root.path());
    (root, launch)
}

fn start(flags: &[&str], config: &str) -> Keyd {
    let (root, launch) = launch(flags, config);
    let daemon = launch.start();
    Keyd { daemon, root }
}

/// While it is closed, calls of one kind wait.
struct Gate(PathBuf);

impl Gate {
    fn close(keyd: &Keyd, name: &str) -> Self {
        Self(keyd.root.write(name, b""))
    }

    fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A call that the library was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    name: String,
    id: String,
    thread: String,
    nice: i32,
}

fn calls(keyd: &Keyd) -> Vec<Made> {
    let text = fs::read_to_string(keyd.root.join("calls")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let mut words = line.rsplitn(3, ' ');
            let nice = words.next().unwrap().parse().unwrap();
            let thread = words.next().unwrap().to_owned();
            let (name, id) = words.next().unwrap().split_once(' ').unwrap();
            Made {
                name: name.to_owned(),
                id: id.to_owned(),
                thread,
                nice,
            }
        })
        .collect()
}

/// The threads that made calls of this name for this key.
fn threads(keyd: &Keyd, name: &str, id: &str) -> Vec<String> {
    calls(keyd)
        .into_iter()
        .filter(|call| call.name == name && call.id == id)
        .map(|call| call.thread)
        .collect()
}

fn wait_for_calls(keyd: &Keyd, name: &str, count: usize) {
    eventually(&format!("{count} calls of {name}"), || {
        calls(keyd).iter().filter(|call| call.name == name).count() >= count
    });
}

/// Sends a request whose answer is awaited later.
fn begin(keyd: &Keyd, method: &str, path: &str, body: &Value) -> Client {
    let mut client = keyd.connect();
    client.send(request(
        method,
        &format!("{path}?{VERSION}"),
        (!body.is_null()).then_some(body),
    ));
    client
}

fn aead(handle: &str, input: &str, text: &str) -> Value {
    json!({ "keyHandle": handle, "algorithm": "AEAD", "parameters": { "iv": "aXY=", "aad": "" }, input: text })
}

/// Whatever needs no library call, in an order that would wait behind anything that is stuck.
fn use_what_needs_no_library(keyd: &Keyd) {
    keyd.get("/nope").assert_message(404, "not found");
    assert_eq!(keyd.post("/sign", &json!({ "keyHandle": 1 })).status, 422);
    assert_eq!(keyd.post("/encrypt", &json!({})).status, 422);
    keyd.sign("sr=x&sig=y", b"m").assert_message(
        400,
        "parameter \"handle\" has an invalid value\ncaused by: invalid handle",
    );
    keyd.post("/keypair/a", &json!({ "from": "a" }))
        .assert_message(400, "source and destination for move are identical");
    if users::can_change("an unauthorised user beside stuck requests") {
        let target = format!("/key/x?{VERSION}");
        let response = keyd
            .connect_as(1000)
            .exchange(request("GET", &target, None));
        response.assert_message(401, "user 1000 is not authorized to access the key x");
    }
}

#[test]
fn operations_on_keys_in_memory_need_no_worker() {
    let keyd = start(&[], "");
    // The first request finds out that the key for handles is there.
    let handle = keyd.get("/key/k").member("keyHandle");
    let pair = keyd.get("/keypair/p").member("keyHandle");
    let before = calls(&keyd);
    assert_eq!(keyd.get("/key/k").status, 200);
    assert_eq!(keyd.get("/keypair/p").status, 200);
    assert_eq!(keyd.sign(&handle, b"m").status, 200);
    let ecdsa =
        json!({ "keyHandle": pair, "algorithm": "ECDSA", "parameters": { "digest": "QQ==" } });
    assert_eq!(keyd.post("/sign", &ecdsa).status, 200);
    let derived = keyd.derive(&handle, b"d");
    assert_eq!(keyd.export(&derived).status, 200);
    let parameter = |name: &str| {
        keyd.post(
            &format!("/parameters/{name}"),
            &json!({ "keyHandle": pair }),
        )
    };
    assert_eq!(parameter("algorithm").json(), json!({ "value": "RSA" }));
    // Longer than the room that is usual for it.
    assert_eq!(
        parameter("rsa-modulus").json(),
        json!({ "value": Base64::encode_string(&[0xab; 2048]) })
    );
    parameter("ec-point").assert_message(400, "a parameter has an invalid value");
    let plaintext = Base64::encode_string(&[7; 6000]);
    let encrypted = keyd
        .post("/encrypt", &aead(&derived, "plaintext", &plaintext))
        .member("ciphertext");
    assert_eq!(
        Base64::decode_vec(&encrypted).unwrap().len(),
        6000 + 17,
        "a version byte and a tag"
    );
    let body = aead(&handle, "ciphertext", &encrypted);
    assert_eq!(
        keyd.post("/decrypt", &body).json(),
        json!({ "plaintext": plaintext })
    );
    assert_eq!(calls(&keyd), before, "nothing of this may wait");
    // A private operation of RSA is no work for the loop.
    let rsa = json!({ "keyHandle": pair, "algorithm": "RSA-PKCS1", "plaintext": "QQ==" });
    assert_eq!(keyd.post("/encrypt", &rsa).status, 200);
    assert_eq!(threads(&keyd, "encrypt", "p"), ["aziot-local"]);
}

#[test]
fn a_token_that_hangs_keeps_only_its_own_keys() {
    let keyd = start(&[], "max_requests = 100\n");
    let in_token = keyd.get("/key/token1").member("keyHandle");
    let in_file = keyd.get("/key/file1").member("keyHandle");
    let in_memory = keyd.get("/key/k").member("keyHandle");
    let gate = Gate::close(&keyd, "token");
    let start = Instant::now();
    // More than there are threads, in all the ways that a token can be needed.
    let mut stuck: Vec<Client> = (0..3)
        .flat_map(|n| {
            let id = format!("token{n}");
            let pair = json!({ "keyId": id, "preferredAlgorithms": "rsa-4096" });
            [
                begin(&keyd, "POST", "/sign", &fixture::sign_body(&in_token, b"m")),
                begin(&keyd, "GET", &format!("/key/{id}"), &Value::Null),
                begin(&keyd, "GET", &format!("/keypair/{id}"), &Value::Null),
                begin(
                    &keyd,
                    "POST",
                    "/key",
                    &json!({ "keyId": id, "usage": "sign" }),
                ),
                begin(&keyd, "POST", "/keypair", &pair),
                begin(
                    &keyd,
                    "POST",
                    "/encrypt",
                    &aead(&in_token, "plaintext", "QQ=="),
                ),
                begin(
                    &keyd,
                    "POST",
                    "/parameters/algorithm",
                    &json!({ "keyHandle": in_token }),
                ),
                begin(&keyd, "POST", "/keypair/file9", &json!({ "from": id })),
                begin(
                    &keyd,
                    "POST",
                    "/keypair/token9",
                    &json!({ "from": "file9" }),
                ),
                begin(&keyd, "DELETE", "/key", &json!({ "keyHandle": in_token })),
            ]
        })
        .collect();
    eventually("four calls for tokens", || {
        let waiting = calls(&keyd);
        waiting
            .iter()
            .filter(|call| call.thread == "aziot-token")
            .count()
            >= 5
    });
    for n in 0..5 {
        use_what_needs_no_library(&keyd);
        assert_eq!(keyd.sign(&in_memory, b"m").status, 200);
        assert_eq!(keyd.sign(&in_file, b"m").status, 200);
        assert_eq!(keyd.get("/keypair/file1").status, 200);
        assert_eq!(
            keyd.post("/encrypt", &aead(&in_file, "plaintext", "QQ=="))
                .status,
            200
        );
        assert_eq!(keyd.import(&format!("new{n}"), b"bytes").len(), 220);
        keyd.create(&format!("newer{n}"));
        assert_eq!(
            keyd.connect().exchange(request("GET", STATUS, None)).status,
            200
        );
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    for client in &mut stuck {
        assert!(!client.is_closed(), "it waits for the token");
    }
    gate.open();
    for client in &mut stuck {
        let status = client.response().status;
        assert!(matches!(status, 200 | 204), "{status}");
    }
    for call in calls(&keyd) {
        let token = call.id.starts_with("token") || call.thread == "aziot-token";
        let expected = if token { "aziot-token" } else { "aziot-local" };
        assert_eq!(call.thread, expected, "{call:?}");
    }
}

/// Clients have deadlines of their own. When they give up and come again, the places of the connections that they have
/// closed are theirs, and nothing is done any more for those who have left.
#[test]
fn clients_that_have_left_hold_no_place() {
    let keyd = start(&[], "");
    let in_token = keyd.get("/key/token1").member("keyHandle");
    let in_file = keyd.get("/key/file1").member("keyHandle");
    let gate = Gate::close(&keyd, "token");
    let signatures = || threads(&keyd, "sign", "token1").len();
    let body = fixture::sign_body(&in_token, b"m");
    // As many as a user may have, several times.
    for round in 0..3 {
        let clients: Vec<Client> = (0..10)
            .map(|_| begin(&keyd, "POST", "/sign", &body))
            .collect();
        if round == 0 {
            eventually("four signatures in the token", || signatures() == 4);
        }
        drop(clients);
        for _ in 0..10 {
            assert_eq!(keyd.sign(&in_file, b"m").status, 200);
        }
    }
    let mut patient = begin(&keyd, "POST", "/sign", &body);
    // Somebody who only has nothing more to say waits for the answer.
    let mut silent = begin(&keyd, "POST", "/sign", &body);
    silent.finish_sending();
    assert_eq!(keyd.sign(&in_file, b"m").status, 200);
    gate.open();
    assert_eq!(patient.response().status, 200);
    assert_eq!(silent.response().status, 200);
    assert_eq!(signatures(), 4 + 2, "who has left is not served");
    assert_eq!(keyd.sign(&in_token, b"m").status, 200);
}

#[test]
fn a_handle_key_in_a_token_that_hangs_stops_no_more_than_it_must() {
    let keyd = start(&["-DHANDLE_KEY_IN_TOKEN"], "max_requests = 100\n");
    let handle = keyd.get("/key/k").member("keyHandle");
    assert_eq!(keyd.sign(&handle, b"m").status, 200);
    let gate = Gate::close(&keyd, "token");
    let start = Instant::now();
    let mut stuck: Vec<Client> = (0..6)
        .flat_map(|n| {
            let new = json!({ "keyId": format!("new{n}"), "usage": "sign", "keyBytes": "QQ==" });
            [
                begin(&keyd, "POST", "/sign", &fixture::sign_body(&handle, b"m")),
                begin(&keyd, "GET", "/key/k", &Value::Null),
                begin(&keyd, "POST", "/key", &new),
            ]
        })
        .collect();
    wait_for_calls(&keyd, "verify", 2);
    use_what_needs_no_library(&keyd);
    let status = keyd.connect().exchange(request("GET", STATUS, None));
    assert_eq!(status.status, 200);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    gate.open();
    for client in &mut stuck {
        assert_eq!(client.response().status, 200);
    }
    let made = calls(&keyd);
    assert!(
        made.iter().all(|call| call.thread == "aziot-token"),
        "what cannot end without the token does not begin elsewhere: {made:?}"
    );
    let imports = made.iter().filter(|call| call.name == "import_key");
    assert_eq!(imports.count(), 6, "nothing is done twice");
}

#[test]
fn ks_36_long_generations_delay_nobody_else() {
    let keyd = start(&[], "max_requests = 100\n");
    let in_file = keyd.get("/key/file1").member("keyHandle");
    let usual = calls(&keyd)[0].nice;
    let gate = Gate::close(&keyd, "generate");
    let start = Instant::now();
    let pair =
        |id: &str, algorithms: &str| json!({ "keyId": id, "preferredAlgorithms": algorithms });
    let create = |id: &str, algorithms: &str| keyd.post("/keypair", &pair(id, algorithms));
    let mut stuck: Vec<Client> = ["new1", "new2", "new3"]
        .iter()
        .map(|id| begin(&keyd, "POST", "/keypair", &pair(id, "rsa-4096")))
        .collect();
    wait_for_calls(&keyd, "create_key_pair_if_not_exists", 1);
    // Whoever needs the key pair that is being generated waits for it, also its own: not in the place of others.
    let generated = calls(&keyd)
        .into_iter()
        .find(|call| call.name == "create_key_pair_if_not_exists")
        .unwrap();
    for _ in 0..4 {
        stuck.push(begin(
            &keyd,
            "POST",
            "/keypair",
            &pair(&generated.id, "ec-p256"),
        ));
        stuck.push(begin(
            &keyd,
            "GET",
            &format!("/keypair/{}", generated.id),
            &Value::Null,
        ));
    }
    for n in 0..5 {
        use_what_needs_no_library(&keyd);
        assert_eq!(keyd.sign(&in_file, b"m").status, 200);
        keyd.create(&format!("newer{n}"));
        // Quick to generate, or there already.
        assert_eq!(
            create(&format!("newpair{n}"), "ec-p256:rsa-2048").status,
            200
        );
        assert_eq!(create(&format!("newpair{n}"), "rsa-2048").status, 200);
        assert_eq!(create("file-pair", "rsa-4096").status, 200);
        assert_eq!(create("token-pair", "rsa-4096").status, 200);
        assert_eq!(
            keyd.connect().exchange(request("GET", STATUS, None)).status,
            200
        );
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    for client in &mut stuck {
        assert!(!client.is_closed(), "it waits for the generation");
    }
    assert_eq!(
        threads(&keyd, "create_key_pair_if_not_exists", "new2").len()
            + threads(&keyd, "create_key_pair_if_not_exists", "new3").len()
            + threads(&keyd, "create_key_pair_if_not_exists", "new1").len(),
        1,
        "one generation at a time"
    );
    gate.open();
    for client in &mut stuck {
        assert_eq!(client.response().status, 200);
    }
    for id in ["new1", "new2", "new3"] {
        let made = calls(&keyd);
        let first = made
            .iter()
            .find(|call| call.name == "create_key_pair_if_not_exists" && call.id == id)
            .unwrap();
        assert_eq!(first.thread, "aziot-generate");
        assert!(first.nice >= 10, "{first:?}");
    }
    for call in calls(&keyd) {
        assert!(
            (call.thread == "aziot-generate") == (call.nice > usual),
            "only generation steps back: {call:?}"
        );
    }
}

#[test]
fn ks_36_a_serial_library_delays_nobody_who_needs_no_call() {
    let keyd = start(&["-DPUBLIC"], "max_requests = 100\n");
    let handle = keyd.import("k", b"bytes");
    let gate = Gate::close(&keyd, "token");
    let mut slow = begin(&keyd, "GET", "/key/token", &Value::Null);
    // This one does need the library, and so shows that it is busy.
    let mut behind = begin(&keyd, "POST", "/sign", &fixture::sign_body(&handle, b"m"));
    eventually("the library is busy", || {
        !threads(&keyd, "load_key", "token").is_empty()
    });
    let before = calls(&keyd);
    for _ in 0..3 {
        use_what_needs_no_library(&keyd);
        if users::can_change("an unauthorised user with a large body") {
            import_large(&keyd, 1000, "large")
                .assert_message(401, "user 1000 is not authorized to access the key large");
        }
        let status = keyd.connect().exchange(request("GET", STATUS, None));
        assert_eq!(status.json()["keys"], Value::Null);
        assert_eq!(
            status.json()["library"],
            json!({ "version": "0x02010000", "extended": false })
        );
    }
    assert_eq!(calls(&keyd), before, "one call at a time");
    assert!(!slow.is_closed() && !behind.is_closed());
    gate.open();
    assert_eq!(slow.response().status, 200);
    assert_eq!(behind.response().status, 200);
    for call in calls(&keyd) {
        assert_eq!(call.thread, "aziot-library", "{call:?}");
    }
}

/// Imports a megabyte as `uid`.
fn import_large(keyd: &Keyd, uid: u32, id: &str) -> aziot_tests::client::Response {
    let body = json!({ "keyId": id, "keyBytes": Base64::encode_string(&vec![7; 1 << 20]), "usage": "sign" });
    let mut client = if uid == users::effective() {
        keyd.connect()
    } else {
        keyd.connect_as(uid)
    };
    client.exchange(request("POST", &format!("/key?{VERSION}"), Some(&body)))
}

#[test]
fn large_bodies_are_judged_in_a_worker_and_by_the_same_rules() {
    let keyd = start(&[], "[[principal]]\nuid = 1000\nkeys = [\"file-mine\"]\n");
    let own = users::effective();
    for id in ["file-large", "token-large"] {
        assert_eq!(import_large(&keyd, own, id).status, 200);
    }
    assert_eq!(threads(&keyd, "import_key", "file-large"), ["aziot-local"]);
    assert_eq!(threads(&keyd, "import_key", "token-large"), ["aziot-token"]);
    if users::can_change("large bodies of another user") {
        assert_eq!(import_large(&keyd, 1000, "file-mine").status, 200);
        import_large(&keyd, 1000, "file-other").assert_message(
            401,
            "user 1000 is not authorized to access the key file-other",
        );
        keyd.daemon
            .log()
            .wait_for("[INFO] - !!! user 1000 is not authorized to access the key file-other");
    }
    assert_eq!(threads(&keyd, "import_key", "file-other"), [""; 0]);
    let handle = keyd.get("/key/token1").member("keyHandle");
    let plaintext = Base64::encode_string(&vec![7; 100_000]);
    for (handle, made) in [
        (handle, vec!["aziot-token".to_owned()]),
        (keyd.get("/key/memory").member("keyHandle"), vec![]),
    ] {
        let encrypted = keyd
            .post("/encrypt", &aead(&handle, "plaintext", &plaintext))
            .member("ciphertext");
        let body = aead(&handle, "ciphertext", &encrypted);
        assert_eq!(
            keyd.post("/decrypt", &body).json(),
            json!({ "plaintext": plaintext })
        );
        let id = if made.is_empty() { "memory" } else { "token1" };
        assert_eq!(threads(&keyd, "encrypt", id), made);
        assert_eq!(threads(&keyd, "decrypt", id), made);
    }
    // What is wrong with them is told as for small ones.
    let mut text = aead("no handle", "plaintext", &plaintext).to_string();
    assert_eq!(
        keyd.post("/encrypt", &serde_json::from_str(&text).unwrap())
            .status,
        400
    );
    text.truncate(text.len() - 1);
    let head = format!(
        "POST /encrypt?{VERSION} HTTP/1.1\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    assert_eq!(keyd.connect().exchange(head).status, 422);
}

#[test]
fn a_private_list_without_a_function_is_refused() {
    for (place, name) in [
        (4, "try_load_key_pair"),
        (5, "try_get_key_pair_parameter"),
        (6, "try_encrypt"),
        (7, "try_decrypt"),
        (8, "key_location"),
        (10, "report"),
        (11, "begin_moment"),
    ] {
        let (_root, launch) = launch(&[&format!("-DMISSING={place}")], "");
        launch.fails().assert_logged(&format!(
            "[ERR!] - caused by: library does not define {name}"
        ));
    }
}

#[test]
fn signals_end_the_service_also_when_the_library_has_threads() {
    let keyd = start(&["-DTHREAD"], "");
    assert_eq!(keyd.get("/key/k").status, 200);
    // The kernel picks any thread that does not block the signal.
    keyd.daemon.signal(libc::SIGHUP);
    keyd.daemon.log().wait_for("Received SIGHUP.");
    keyd.daemon.signal(libc::SIGTERM);
    let finished = keyd.daemon.wait();
    assert_eq!(finished.status.code(), Some(0));
    finished.assert_logged("[INFO] - Stopped server.");
}

fn status_as(keyd: &Keyd, uid: u32) -> Value {
    let mut client = if uid == users::effective() {
        keyd.connect()
    } else {
        keyd.connect_as(uid)
    };
    let response = client.exchange(request("GET", STATUS, None));
    response.assert_framing();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn ids(status: &Value) -> Vec<Option<&str>> {
    let keys = status["keys"].as_array().unwrap();
    keys.iter().map(|key| key["id"].as_str()).collect()
}

#[test]
fn status_tells_of_keys_and_tokens() {
    let keyd = start(
        &[],
        "[[principal]]\nuid = 1000\nkeys = [\"many1\", \"t*\"]\n\
         [[principal]]\nuid = 1001\nkeys = [\"*\"]\n\
         [[principal]]\nuid = 1002\nkeys = [\"handle-validation-key\"]\n",
    );
    if users::effective() == 0 {
        let all = status_as(&keyd, 0);
        assert_eq!(all["state"], "running");
        assert_eq!(all["reason"], Value::Null);
        assert_eq!(
            all["library"],
            json!({ "version": "0x02010000", "extended": true })
        );
        // 703 keys and 512 places for them.
        assert_eq!(all["more"], json!(191));
        let shown = ids(&all);
        assert_eq!(shown.len(), 512);
        assert_eq!(shown[0], Some(HANDLE_KEY));
        assert_eq!(shown[511], None, "the one without id");
        let nameless = &all["keys"][511];
        assert_eq!(
            nameless,
            &json!({ "id": null, "kind": "unknown", "location": "file", "place": "/keys/x-0.key",
                     "preloaded": false, "remark": "not used yet" })
        );
        assert_eq!(
            all["tokens"],
            json!([{ "uri": "pkcs11:token=t", "state": "working", "since": "2026-09-21T14:13:20Z",
                     "failure": null, "nextAttempt": null, "sessions": 2 }])
        );
    }
    if users::can_change("what other users see of the keys") {
        let some = status_as(&keyd, 1000);
        assert_eq!(ids(&some), [Some("many1"), Some("tls")]);
        assert_eq!(some["more"], json!(0), "what is hidden is not counted");
        assert_eq!(
            some["keys"][1],
            json!({ "id": "tls", "kind": "keyPair", "location": "pkcs11", "place": "pkcs11:token=t;object=tls",
                    "preloaded": true, "remark": null })
        );
        let wildcard = status_as(&keyd, 1001);
        assert_eq!(ids(&wildcard).len(), 512);
        assert!(!ids(&wildcard).contains(&Some(HANDLE_KEY)) && !ids(&wildcard).contains(&None));
        assert_eq!(ids(&status_as(&keyd, 1002)), [Some(HANDLE_KEY)]);
        assert_eq!(ids(&status_as(&keyd, 1003)), [None; 0]);
    }
    // The other versions do not have it, and this one has all that they have.
    keyd.get("/status").assert_message(404, "not found");
    let newest = |method: &str, path: &str| {
        let target = format!("{path}?api-version=2026-11-01");
        keyd.connect().exchange(request(method, &target, None))
    };
    newest("POST", "/status").assert_message(400, "method not allowed");
    assert_eq!(newest("GET", "/key/k").status, 200);
}

#[test]
fn status_tells_that_a_token_fails() {
    let keyd = start(&[], "");
    let before = status_as(&keyd, users::effective());
    let gate = Gate::close(&keyd, "failing");
    let failing = status_as(&keyd, users::effective());
    assert_eq!(failing["state"], "degraded");
    assert_eq!(
        failing["reason"],
        "token pkcs11:token=u fails: C_Login: CKR_PIN_INCORRECT"
    );
    assert_eq!(failing["since"], "2026-09-21T14:13:21Z");
    assert_eq!(failing["nextAttempt"], "2026-09-21T14:13:51Z");
    assert_eq!(
        failing["tokens"][1],
        json!({ "uri": "pkcs11:token=u", "state": "failing", "since": "2026-09-21T14:13:21Z",
                "failure": "C_Login: CKR_PIN_INCORRECT", "nextAttempt": "2026-09-21T14:13:51Z", "sessions": 0 })
    );
    gate.open();
    assert_eq!(status_as(&keyd, users::effective()), before);
}

#[test]
fn a_token_that_does_not_answer_is_the_status() {
    let (root, launch) = launch(&[], "max_requests = 100\n");
    let keyd = Keyd {
        // A report has half a second then.
        daemon: launch.time_scale(0.1).start(),
        root,
    };
    let in_file = keyd.get("/key/file1").member("keyHandle");
    let gate = Gate::close(&keyd, "report");
    let start = Instant::now();
    let mut first: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = keyd.connect();
            client.send(request("GET", STATUS, None));
            client
        })
        .collect();
    // Others do not wait for it.
    for _ in 0..5 {
        use_what_needs_no_library(&keyd);
        assert_eq!(keyd.sign(&in_file, b"m").status, 200);
    }
    for client in &mut first {
        let status = client.response().json();
        assert_eq!(status["state"], "degraded");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("a token does not answer"), "{reason}");
        assert_eq!(status["keys"], Value::Null);
        assert_eq!(status["tokens"], Value::Null);
    }
    // Further requests are not held up at all.
    for _ in 0..5 {
        assert_eq!(status_as(&keyd, users::effective())["state"], "degraded");
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    gate.open();
    eventually("the token answers", || {
        status_as(&keyd, users::effective())["state"] == "running"
    });
}
