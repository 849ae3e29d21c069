//! What connections do beyond single requests: keep-alive, framing, limits, deadlines, identity, throttling (spec, daemon
//! chapter B.3 to B.5).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::time::{Duration, Instant};

use aziot_tests::binaries;
use aziot_tests::client::{Client, NoResponse, Response, eventually};
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::json;

const V: &str = "api-version=2020-09-01";

struct Stub {
    daemon: Daemon,
    root: Root,
}

impl Stub {
    fn start() -> Self {
        Self::with(|launch, _| launch)
    }

    fn with(change: impl FnOnce(Launch, &Root) -> Launch) -> Self {
        let root = Root::new();
        Self {
            daemon: change(Launch::stub(&root), &root).start(),
            root,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.daemon.socket())
    }

    fn get(&self, target: &str) -> Response {
        self.connect().exchange(get(target))
    }
}

fn get(target: &str) -> String {
    format!("GET {target}?{V} HTTP/1.1\r\n\r\n")
}

/// A request with further header lines, each ending in CRLF.
fn get_with(version: &str, lines: &str) -> String {
    format!("GET /items/a?{V} {version}\r\n{lines}\r\n")
}

fn post(lines: &str, body: &str) -> String {
    format!("POST /items/a?{V} HTTP/1.1\r\n{lines}\r\n{body}")
}

#[track_caller]
fn assert_item(response: &Response) {
    assert_eq!(
        (response.status, &response.json()["id"]),
        (200, &json!("a")),
        "{response}"
    );
    response.assert_framing();
}

#[test]
fn ht_08_requests_without_host() {
    assert_item(&Stub::start().connect().exchange(get_with("HTTP/1.1", "")));
}

#[test]
fn ht_12_keep_alive_and_close() {
    let stub = Stub::start();
    let mut client = stub.connect();
    for _ in 0..3 {
        let response = client.exchange(get_with("HTTP/1.1", ""));
        assert_item(&response);
        assert_eq!(response.field("connection"), None);
    }
    let response = client.exchange(get_with("HTTP/1.1", "connection: close\r\n"));
    assert_item(&response);
    assert_eq!(
        response.field_names(),
        ["content-type", "connection", "content-length", "date"]
    );
    assert_eq!(response.field("connection"), Some("close"));
    client.assert_closed();

    // One of several options, in any case.
    let mut client = stub.connect();
    assert_item(&client.exchange(get_with("HTTP/1.1", "Connection: foo, Close\r\n")));
    client.assert_closed();
}

#[test]
fn ht_12_http_1_0() {
    let stub = Stub::start();
    let mut client = stub.connect();
    let response = client.exchange(get_with("HTTP/1.0", ""));
    assert_item(&response);
    assert_eq!(
        (response.version.as_str(), response.field("connection")),
        ("HTTP/1.0", None)
    );
    client.assert_closed();

    let mut client = stub.connect();
    for _ in 0..2 {
        let response = client.exchange(get_with("HTTP/1.0", "connection: keep-alive\r\n"));
        assert_item(&response);
        assert_eq!(
            (response.version.as_str(), response.field("connection")),
            ("HTTP/1.0", Some("keep-alive"))
        );
    }
    client.exchange(get_with("HTTP/1.0", ""));
    client.assert_closed();
}

#[test]
fn ht_12_pipelining_keeps_the_order() {
    let stub = Stub::start();
    let mut client = stub.connect();
    let mut bytes = String::new();
    for n in 0..100 {
        match n % 4 {
            0 => bytes.push_str(&get(&format!("/items/{n}"))),
            1 => bytes.push_str(&format!("GET /slow/3?{V} HTTP/1.1\r\n\r\n")),
            2 => bytes.push_str(&post("content-length: 13\r\n", r#"{"keyId":"k"}"#)),
            _ => bytes.push_str(&post(
                "transfer-encoding: chunked\r\n",
                "d\r\n{\"keyId\":\"k\"}\r\n0\r\n\r\n",
            )),
        }
    }
    bytes.push_str(&get_with("HTTP/1.1", "connection: close\r\n"));
    // What follows the last request is never answered.
    bytes.push_str(&get("/items/unseen"));
    client.send(bytes);
    for n in 0..100 {
        let response = client.response();
        let body = response.json();
        match n % 4 {
            0 => assert_eq!(body["id"], json!(n.to_string())),
            1 => assert_eq!(body, json!({ "slow": true })),
            _ => assert_eq!(body["keyId"], json!("k")),
        }
    }
    assert_item(&client.response());
    client.assert_closed();
}

#[test]
fn lenient_heads() {
    let stub = Stub::start();
    let mut client = stub.connect();
    assert_item(&client.exchange(format!("\r\nGET /items/a?{V} HTTP/1.1\r\n\r\n")));
    assert_item(&client.exchange(format!("GET /items/a?{V} HTTP/1.1\nhost: x\n\n")));
    assert_item(&client.exchange(format!("GET /items/a?{V}#fragment HTTP/1.1\r\n\r\n")));
    assert_item(&client.exchange(get_with(
        "HTTP/1.1",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
    )));
}

#[test]
fn framing_rules() {
    let stub = Stub::start();
    let mut client = stub.connect();
    let body = r#"{"keyId":"k"}"#;
    let chunked = "d\r\n{\"keyId\":\"k\"}\r\n0\r\n\r\n";
    assert_item(&client.exchange(post("content-length: 13\r\ncontent-length: 13\r\n", body)));
    assert_item(&client.exchange(post(
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        chunked,
    )));
    // The body of a GET is dropped, and the connection stays usable, however the body is framed.
    let target = format!("GET /items/a?{V} HTTP/1.1\r\n");
    assert_item(&client.exchange(format!("{target}content-length: 13\r\n\r\n{body}")));
    assert_item(&client.exchange(format!(
        "{target}transfer-encoding: chunked\r\n\r\n{chunked}"
    )));
    // So is that of a request that has no route.
    let response = client.exchange(format!(
        "POST /nope?{V} HTTP/1.1\r\ncontent-length: 13\r\n\r\n{body}"
    ));
    response.assert_message(404, "not found");
    assert_item(&client.exchange(get("/items/a")));
}

#[test]
fn expect_100_continue() {
    let stub = Stub::start();
    let mut client = stub.connect();
    client.send(post("content-length: 13\r\nexpect: 100-continue\r\n", ""));
    let interim = client.response();
    assert_eq!(
        (interim.status, interim.fields.len()),
        (100, 0),
        "{interim}"
    );
    assert_item(&client.exchange(r#"{"keyId":"k"}"#));
    // A refused request is not continued.
    client.send(format!(
        "POST /nope?{V} HTTP/1.1\r\ncontent-length: 13\r\nexpect: 100-continue\r\n\r\n"
    ));
    client.response().assert_message(404, "not found");
    client.assert_closed();
}

#[test]
fn the_http_2_preface_is_not_answered() {
    let stub = Stub::start();
    let mut client = stub.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.assert_closed();
}

#[test]
fn half_closed_clients_get_their_answer() {
    let stub = Stub::start();
    for target in ["/items/a?", "/slow/50?", "/big/3000000?"] {
        let mut client = stub.connect();
        client.send(format!("GET {target}{V} HTTP/1.1\r\n\r\n"));
        client.finish_sending();
        assert_eq!(client.response().status, 200, "{target}");
        client.assert_closed();
    }
    let mut client = stub.connect();
    client.send(get("/items/1") + &get("/slow/1") + &get("/items/2"));
    client.finish_sending();
    for expected in [json!("1"), json!(null), json!("2")] {
        assert_eq!(client.response().json()["id"], expected);
    }
    client.assert_closed();
}

#[test]
fn ht_11_error_bodies() {
    let stub = Stub::start();
    stub.get("/nope").assert_message(404, "not found");
    let response = stub.get("/broken");
    assert_eq!(
        (response.status, response.text()),
        (500, r#"{"message":"internal error"}"#)
    );
    response.assert_framing();
    let line = stub.daemon.log().wait_for("and its own cause");
    assert!(line.starts_with("<3>"), "{line}");
    for text in ["!!! internal error", "!!! caused by: a first cause"] {
        assert_eq!(stub.daemon.log().count(text), 1, "{text}");
    }
}

#[test]
fn ht_09_heads_leave_whole() {
    let stub = Stub::with(|launch, root| {
        let library =
            binaries::compile_shared("writespy.c", &[], &["-ldl"], root.path(), "writespy.so");
        launch
            .env("LD_PRELOAD", library)
            .env("WRITESPY_FILE", root.join("writes"))
    });
    let mut client = stub.connect();
    let mut expected = 0;
    let bodies = [
        get("/items/a"),
        get("/nope"),
        get("/broken"),
        get("/nc"),
        get("/slow/1"),
        get("/items/a") + &get("/nc"),
        post("content-length: 13\r\n", r#"{"keyId":"k"}"#),
        post("content-length: 1\r\n", "{"),
        format!("GET /big/3000000?{V} HTTP/1.1\r\n\r\n"),
        format!("GET /items/{}?{V} HTTP/1.1\r\n\r\n", "i".repeat(20_000)),
    ];
    for request in &bodies {
        client.send(request);
        for _ in 0..request.matches(" HTTP/1.1").count() {
            client.response().assert_framing();
            expected += 1;
        }
    }
    client.send("nonsense\r\n\r\n");
    client.response().assert_framing();
    expected += 1;

    stub.daemon.stop();
    let mut heads = 0;
    let record = std::fs::read_to_string(stub.root.join("writes")).unwrap();
    assert!(!record.is_empty());
    for line in record.lines() {
        let (_, hex) = line.split_once(' ').unwrap();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let Some(start) = bytes.windows(9).position(|window| window == b"HTTP/1.1 ") else {
            // The rest of a body that did not fit into the socket's buffer at once.
            assert!(
                bytes.iter().all(|b| *b == b'x' || b"\"}".contains(b)),
                "{line}"
            );
            continue;
        };
        // Several small answers may leave together; each begins and ends in the same write.
        let mut rest = &bytes[start..];
        assert_eq!(start, 0, "{line}");
        while rest.starts_with(b"HTTP/1.1 ") {
            let end = rest
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .expect("the head is not split")
                + 4;
            assert!(end <= 512);
            heads += 1;
            let head = std::str::from_utf8(&rest[..end]).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            rest = rest.get(end + length..).unwrap_or_default();
        }
    }
    assert_eq!(heads, expected, "{record}");
}

#[test]
fn ht_06_peer_identity() {
    let stub = Stub::start();
    let body = stub.get("/items/a").json();
    assert_eq!(body["uid"], json!(users::effective()));
    assert_eq!(body["pid"], json!(std::process::id()));

    // Another process; its id is that of the program which connects.
    let curl = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--unix-socket"])
        .arg(stub.daemon.socket())
        .arg(format!("http://stub.sock/items/a?{V}"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("`curl`; `make test` installs it");
    let pid = curl.id();
    let output = curl.wait_with_output().unwrap();
    assert!(output.status.success());
    let body: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(body["pid"], json!(pid));

    if users::can_change("the uid of the peer") {
        let stream = users::connect_as(12_345, stub.daemon.socket()).unwrap();
        let body = Client::over(stream)
            .unwrap()
            .exchange(get("/items/a"))
            .json();
        assert_eq!(
            (&body["uid"], &body["pid"]),
            (&json!(12_345), &json!(std::process::id()))
        );
    }
}

#[test]
fn ht_07_connections_per_user() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "3"));
    let uid = users::effective();
    let mut open: Vec<Client> = (0..3).map(|_| stub.connect()).collect();
    for client in &mut open {
        assert_item(&client.exchange(get("/items/a")));
    }
    let refused = format!("Max simultaneous connections reached for user {uid}");
    let before = stub.daemon.log().count(&refused);
    for _ in 0..5 {
        stub.connect().assert_closed();
    }
    eventually("a line for each refusal", || {
        stub.daemon.log().count(&refused) == before + 5
    });
    // Those that are open go on.
    for client in &mut open {
        assert_item(&client.exchange(get("/items/a")));
    }
    if users::can_change("throttling of one user beside another") {
        let mut other =
            Client::over(users::connect_as(12_346, stub.daemon.socket()).unwrap()).unwrap();
        assert_item(&other.exchange(get("/items/a")));
    }
    // Closing one frees its place at once, for as many clients in a row as there may be.
    open.pop();
    for _ in 0..200 {
        assert_item(&stub.connect().exchange(get("/items/a")));
    }
    drop(open);
    for _ in 0..200 {
        assert_item(&stub.connect().exchange(get("/items/a")));
    }
}

#[test]
fn ht_07_nobody_is_served_with_max_requests_0() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "0"));
    stub.connect().assert_closed();
    stub.daemon
        .log()
        .wait_for("Max simultaneous connections reached for user");
}

#[test]
fn a_head_must_arrive_in_time() {
    let scale = 0.02;
    let stub = Stub::with(|launch, _| launch.time_scale(scale));
    let limit = Duration::from_secs(30).mul_f64(scale);

    let silent = stub.connect();
    let start = Instant::now();
    silent.assert_closed();
    assert!(
        start.elapsed() >= limit.mul_f64(0.9),
        "after {:?}",
        start.elapsed()
    );

    // A trickle does not extend it.
    let mut trickle = stub.connect();
    let start = Instant::now();
    trickle.send("GET /items/a HTTP/1.1\r\n");
    while trickle.try_send("x: y\r\n").is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it goes on for ever"
        );
        std::thread::sleep(limit / 20);
    }
    assert!(
        start.elapsed() >= limit.mul_f64(0.9),
        "after {:?}",
        start.elapsed()
    );
    assert_item(&stub.get("/items/a"));
}

#[test]
fn idle_connections_are_closed() {
    let scale = 0.01;
    let stub = Stub::with(|launch, _| launch.time_scale(scale));
    let mut client = stub.connect();
    assert_item(&client.exchange(get("/items/a")));
    let start = Instant::now();
    client.assert_closed();
    assert!(
        start.elapsed() >= Duration::from_secs(60).mul_f64(scale).mul_f64(0.9),
        "after {:?}",
        start.elapsed()
    );
}

#[test]
fn a_slow_answer_is_no_idle_connection() {
    // 600 ms of work where idle connections are closed after 60 ms and heads after 30 ms.
    let stub = Stub::with(|launch, _| launch.time_scale(0.001));
    let mut client = stub.connect();
    assert_eq!(
        client
            .exchange(format!("GET /slow/600?{V} HTTP/1.1\r\n\r\n"))
            .status,
        200
    );
}

#[test]
fn heads_have_a_limit() {
    let stub = Stub::start();
    let field = |size: usize| {
        format!(
            "GET /items/a?{V} HTTP/1.1\r\nx: {}\r\n\r\n",
            "y".repeat(size)
        )
    };
    assert_item(&stub.connect().exchange(field(60_000)));
    for size in [72 * 1024, 200_000, 5_000_000] {
        let mut client = stub.connect();
        // The server need not take all of it.
        let _ = client.try_send(field(size));
        match client.try_response(false) {
            Ok(response) => {
                assert_eq!(
                    (response.status, response.text()),
                    (431, ""),
                    "{size}: {response}"
                );
                response.assert_framing();
            }
            Err(error) => panic!("a head of {size} bytes: {error}"),
        }
    }
    assert_item(&stub.get("/items/a"));
}

#[test]
fn bodies_have_a_limit() {
    let stub = Stub::start();
    let padded = |size: usize| format!("{{\"keyId\":\"{}\"}}", "k".repeat(size - 12));
    let limit = 1024 * 1024;
    let body = padded(limit);
    let response = stub
        .connect()
        .exchange(post(&format!("content-length: {limit}\r\n"), &body));
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["keyId"].as_str().unwrap().len(), limit - 12);

    // Too large by its own account: refused before it is sent.
    let mut client = stub.connect();
    client.send(post(&format!("content-length: {}\r\n", limit + 1), ""));
    let response = client.response();
    assert_eq!(response.status, 413);
    response.assert_framing();
    assert!(
        response.member("message").contains("1048576"),
        "the limit is named: {response}"
    );
    drop(client);

    // A client that sends it all the same still gets to see the answer.
    let mut client = stub.connect();
    let _ = client.try_send(post(
        &format!("content-length: {}\r\n", 3 * limit),
        &padded(3 * limit),
    ));
    assert_eq!(client.response().status, 413);

    // Found out on the way.
    let mut client = stub.connect();
    client.send(post("transfer-encoding: chunked\r\n", ""));
    let chunk = format!("10000\r\n{}\r\n", "k".repeat(0x10000));
    for _ in 0..40 {
        if client.try_send(&chunk).is_err() {
            break;
        }
    }
    assert_eq!(client.response().status, 413);
    assert_item(&stub.get("/items/a"));
}

#[test]
fn body_memory_has_a_limit_for_the_process() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "100"));
    let size = 1_000_000;
    let body = format!("{{\"keyId\":\"{}\"}}", "k".repeat(size - 12));
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut client = stub.connect();
        client.send(post(&format!("content-length: {size}\r\n"), &body[..1]));
        waiting.push(client);
    }
    // Requests without bodies are served meanwhile.
    assert_item(&stub.get("/items/a"));
    let mut served = 0;
    for mut client in waiting {
        let _ = client.try_send(&body[1..]);
        match client.try_response(false) {
            Ok(response) if response.status == 200 => served += 1,
            Ok(response) => {
                assert!(
                    response.status == 503 || response.status == 413,
                    "{response}"
                );
                response.assert_framing();
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        served >= 8 && refused >= 1,
        "{served} served, {refused} refused"
    );
    assert_item(&stub.get("/items/a"));
}

#[test]
fn clients_that_do_not_read_are_dropped_in_time() {
    let scale = 0.02;
    let stub = Stub::with(|launch, _| launch.time_scale(scale));
    let before = stub.daemon.settled_descriptors();
    let mut deaf = stub.connect();
    deaf.send(format!("GET /big/5000000?{V} HTTP/1.1\r\n\r\n").repeat(20));
    // Others are served meanwhile.
    assert_item(&stub.get("/items/a"));
    eventually("the connection is dropped", || {
        stub.daemon.descriptors() <= before
    });
    // What was in the socket's buffer can still be read, but no whole answer.
    match deaf.try_response(false) {
        Err(NoResponse::Malformed(_) | NoResponse::Closed | NoResponse::Io(_)) => {}
        Ok(response) => panic!("{} bytes", response.body.len()),
    }
}

#[test]
fn stopping_finishes_what_runs() {
    let stub = Stub::start();
    let mut running = stub.connect();
    let mut idle = stub.connect();
    assert_item(&idle.exchange(get("/items/a")));
    running.send(format!("GET /slow/400?{V} HTTP/1.1\r\n\r\n"));
    std::thread::sleep(Duration::from_millis(100));
    stub.daemon.signal(libc::SIGTERM);
    idle.assert_closed();
    let response = running.response();
    assert_eq!(
        (response.status, response.field("connection")),
        (200, Some("close")),
        "{response}"
    );
    running.assert_closed();
    let socket = stub.daemon.socket().to_owned();
    let finished = stub.daemon.wait();
    assert_eq!(finished.status.code(), Some(0));
    finished.assert_logged("Stopped server.");
    assert!(!socket.exists(), "the socket file is removed");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let stub = Stub::with(|launch, _| launch.time_scale(0.05));
    let mut running = stub.connect();
    running.send(format!("GET /slow/20000?{V} HTTP/1.1\r\n\r\n"));
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let finished = stub.daemon.stop();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    finished.assert_logged("Stopped server.");
    running.assert_closed();
}

#[test]
fn half_a_head_behind_a_request_has_its_time_too() {
    let stub = Stub::with(|launch, _| launch.time_scale(0.02));
    for first in [
        get("/items/a"),
        // Answered by a job, and by an error with a body that nobody reads.
        format!("GET /slow/50?{V} HTTP/1.1\r\n\r\n"),
        format!("POST /nope?{V} HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"),
    ] {
        let mut client = stub.connect();
        client.send(format!("{first}GET /items"));
        let response = client.response();
        assert!([200, 404].contains(&response.status), "{response}");
        client.assert_closed();
    }
}

#[test]
fn a_body_that_nobody_wants_must_come_in_time() {
    let scale = 0.1;
    let stub = Stub::with(|launch, _| launch.time_scale(scale));
    let limit = Duration::from_secs(5).mul_f64(scale);
    for lines in ["content-length: 1000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut client = stub.connect();
        client.send(format!("POST /nope?{V} HTTP/1.1\r\n{lines}\r\n3"));
        assert_eq!(client.response().status, 404);
        let start = Instant::now();
        client.assert_closed();
        let waited = start.elapsed();
        assert!(
            waited >= limit.mul_f64(0.9) && waited < limit * 20,
            "{waited:?}"
        );
    }
    // Chunks without end are cut off even if they come fast.
    let mut client = stub.connect();
    client.send(format!(
        "POST /nope?{V} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    ));
    assert_eq!(client.response().status, 404);
    let chunk = format!("10000\r\n{}\r\n", "k".repeat(0x10000));
    let mut chunks = 0;
    while client.try_send(&chunk).is_ok() {
        chunks += 1;
        assert!(chunks < 200_000, "12 GiB were taken");
    }
}

#[test]
fn who_is_still_sending_sees_the_last_answer() {
    let stub = Stub::start();
    let body = "x".repeat(900_000);
    let mut client = stub.connect();
    client.send(format!(
        "POST /nope?{V} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let response = client.response();
    assert_eq!(response.status, 404, "{response}");
    client.finish_sending();
    client.assert_closed();
}

#[test]
fn requests_that_arrive_together_are_all_answered() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "100"));
    let connect = || (0..50).map(|_| stub.connect()).collect::<Vec<_>>();
    let mut clients = connect();
    for client in &mut clients {
        assert_item(&client.exchange(get("/items/a")));
    }
    // While the service is stopped, everything waits for the same look at its sockets, new connections too.
    stub.daemon.suspend();
    clients.extend(connect().into_iter().take(40));
    for (n, client) in clients.iter_mut().enumerate() {
        match n % 8 {
            0 => client.send(get("/items/a").repeat(3)),
            1 => client.send(get_with("HTTP/1.1", "connection: close\r\n")),
            2 => client.send(format!("GET /slow/1?{V} HTTP/1.1\r\n\r\n")),
            3 => client.send(post("content-length: 13\r\n", r#"{"keyId""#)),
            4 => client.send("asdf\r\n\r\n"),
            5 => client.finish_sending(),
            6 => client.send(get("/items/a") + "GET /ite"),
            _ => {}
        }
    }
    // Some are gone before they are looked at, with and without a request.
    let gone: Vec<Client> = clients.drain(80..).collect();
    drop(gone);
    stub.daemon.signal(libc::SIGCONT);
    for (n, mut client) in clients.into_iter().enumerate() {
        match n % 8 {
            0 => (0..3).for_each(|_| assert_item(&client.response())),
            1 => {
                assert_item(&client.response());
                client.assert_closed();
            }
            2 => assert_eq!(client.response().json(), json!({ "slow": true })),
            3 => {
                client.send(r#":"k"}"#);
                assert_eq!(client.response().json()["keyId"], json!("k"));
            }
            4 => {
                assert_eq!(client.response().status, 400);
                client.assert_closed();
            }
            5 => client.assert_closed(),
            6 => {
                assert_item(&client.response());
                client.send(format!("ms/a?{V} HTTP/1.1\r\n\r\n"));
                assert_item(&client.response());
            }
            _ => assert_item(&client.exchange(get("/items/a"))),
        }
    }
}

/// A target that keeps the loop until there is such a file; the first time it does not.
fn wait_for(stub: &Stub, file: &str) -> String {
    let path = stub.root.join(file);
    let path = path.to_str().unwrap().replace('/', "%2F");
    format!("/wait/{path}")
}

#[test]
fn no_answer_waits_long_for_the_others_of_its_batch() {
    let stub = Stub::start();
    let mut clients = [stub.connect(), stub.connect()];
    for client in &mut clients {
        assert_item(&client.exchange(get("/items/a")));
    }
    stub.daemon.suspend();
    for client in &mut clients {
        client.send(get(&wait_for(&stub, "first-answer")));
    }
    stub.daemon.signal(libc::SIGCONT);
    // Whoever is the first is answered while the other one's request is carried out.
    std::thread::scope(|scope| {
        let answers = clients.map(|mut client| {
            let stub = &stub;
            scope.spawn(move || {
                let answer = client.response().json();
                stub.root.write("first-answer", "");
                answer["exists"] == json!(true)
            })
        });
        let told = answers.map(|answer| answer.join().unwrap());
        assert!(told[0] != told[1], "{told:?}");
    });
}

#[test]
fn no_answer_waits_for_what_comes_behind_other_requests() {
    let stub = Stub::start();
    assert_eq!(stub.get(&wait_for(&stub, "both-answers")).status, 200);
    let mut clients = [stub.connect(), stub.connect()];
    for client in &mut clients {
        assert_item(&client.exchange(get("/items/a")));
    }
    stub.daemon.suspend();
    for client in &mut clients {
        client.send(get("/items/a") + &get(&wait_for(&stub, "both-answers")));
    }
    stub.daemon.signal(libc::SIGCONT);
    for client in &mut clients {
        assert_item(&client.response());
    }
    stub.root.write("both-answers", "");
    for client in &mut clients {
        assert_eq!(client.response().json(), json!({ "exists": true }));
    }
}

#[test]
fn answers_that_are_about_to_be_sent_keep_no_body_out() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "100"));
    let connect = |n| (0..n).map(|_| stub.connect()).collect::<Vec<_>>();
    // 15 of 16 MiB are taken, and a batch of answers would take another.
    let mut others = connect(15);
    for client in &mut others {
        client.send(post("content-length: 1048000\r\n", "{"));
    }
    let (mut readers, mut writer) = (connect(14), stub.connect());
    for client in readers.iter_mut().chain([&mut writer]) {
        assert_item(&client.exchange(get("/items/a")));
    }
    stub.daemon.suspend();
    for client in &mut readers {
        client.send(get("/big/60000"));
    }
    let body = format!("{{\"keyId\":\"{}\"}}", "k".repeat(1_000_000));
    writer.send(post(
        &format!("content-length: {}\r\n", body.len()),
        &body[..10],
    ));
    stub.daemon.signal(libc::SIGCONT);
    for client in &mut readers {
        assert_eq!(client.response().status, 200);
    }
    writer.send(&body[10..]);
    assert_eq!(writer.response().status, 200);
}

#[test]
fn floods_do_not_starve_others() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "100"));
    let calm = std::sync::atomic::AtomicBool::new(false);
    let flooding = || !calm.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        // Whoever is refused goes on sending; one client sends requests without pause and reads the answers.
        let malformed = || {
            while flooding() {
                let mut client = stub.connect();
                let _ = client.try_send("asdf\r\n\r\n");
                let junk = [b'x'; 256 * 1024];
                while flooding() && client.try_send(junk).is_ok() {}
            }
        };
        let pipelines = || {
            let mut client = stub.connect();
            let mut reader = client.stream().try_clone().unwrap();
            let drain = scope.spawn(move || {
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
            });
            let many = get("/items/a").repeat(1000);
            while flooding() && client.try_send(&many).is_ok() {}
            client.finish_sending();
            drain.join().unwrap();
        };
        for _ in 0..2 {
            scope.spawn(malformed);
            scope.spawn(pipelines);
        }
        std::thread::sleep(Duration::from_millis(200));
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let start = Instant::now();
            assert_item(&stub.get("/items/a"));
            slowest = slowest.max(start.elapsed());
        }
        calm.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(
            slowest < Duration::from_secs(2),
            "one had to wait {slowest:?}"
        );
    });
}

#[test]
fn a_chunked_body_may_be_as_long_as_the_limit() {
    let stub = Stub::with(|launch, _| launch.env("STUB_MAX_REQUESTS", "100"));
    // 15 of 16 MiB are taken by others.
    let others: Vec<Client> = (0..15)
        .map(|_| {
            let mut client = stub.connect();
            client.send(post("content-length: 1048000\r\n", "{"));
            client
        })
        .collect();
    let limit = 1024 * 1024;
    let body = format!("{{\"keyId\":\"{}\"}}", "k".repeat(limit - 12));
    let response = stub.connect().exchange(post(
        "transfer-encoding: chunked\r\n",
        &format!("{limit:x}\r\n{body}\r\n0\r\n\r\n"),
    ));
    assert_eq!(response.status, 200);
    drop(others);
}
