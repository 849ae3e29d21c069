//! Services under load and abuse: afterwards they answer, and hold no descriptor or connection that they did not hold before.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aziot_tests::binaries;
use aziot_tests::client::{Client, eventually, request};
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::fixture::{self, A, Keyd, VERSION};
use aziot_tests::root::Root;

const V: &str = "api-version=2020-09-01";

fn keyd(config: &str) -> Keyd {
    let root = Root::new();
    fixture::install(&root);
    if !config.is_empty() {
        root.write("etc/aziot/keyd/config.d/load.toml", config);
    }
    ready(Keyd::on(root))
}

/// The first use of a key costs memory and a descriptor, which stay; a file that is too young is read again by the next use.
fn ready(keyd: Keyd) -> Keyd {
    eventually(
        "the key and the one that signs handles are in memory",
        || signs(&keyd) && keyd.daemon.key_files() == 2,
    );
    keyd
}

fn assert_settles_at(daemon: &Daemon, descriptors: usize) {
    eventually("the descriptors are back", || {
        daemon.descriptors() == descriptors
    });
}

fn signs(keyd: &Keyd) -> bool {
    keyd.sign(A, b"hello").text()
        == r#"{"signature":"IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="}"#
}

#[test]
fn ten_thousand_connections_one_after_the_other() {
    let keyd = keyd("");
    let descriptors = keyd.daemon.settled_descriptors();
    let sign = request(
        "POST",
        &format!("/sign?{VERSION}"),
        Some(&fixture::sign_body(A, b"hello")),
    );
    // The first thousand may fill pools.
    let mut resident = 0;
    for n in 0..10_000 {
        if n == 1_000 {
            resident = keyd.daemon.resident();
        }
        let mut client = keyd.connect();
        match n % 4 {
            0..=2 => assert_eq!(client.exchange(&sign).status, 200),
            // Without a word, or in the middle of one.
            _ if n % 8 == 3 => {}
            _ => client.send(&sign[..100]),
        }
        drop(client);
        if n % 4 == 3 {
            // Those that say nothing are noticed a little later; ten of them at once would be too many.
            while keyd.daemon.descriptors() > descriptors {
                std::thread::yield_now();
            }
        }
    }
    assert_settles_at(&keyd.daemon, descriptors);
    let grown = keyd.daemon.resident().saturating_sub(resident);
    assert!(
        grown < 512,
        "{grown} KiB more than after the first thousand"
    );
    assert!(signs(&keyd));
    keyd.daemon.stop();
}

#[test]
fn five_hundred_connections_at_once() {
    let keyd = keyd("max_requests = 600\n");
    let descriptors = keyd.daemon.settled_descriptors();
    let sign = request(
        "POST",
        &format!("/sign?{VERSION}"),
        Some(&fixture::sign_body(A, b"hello")),
    );
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..500 {
        // The backlog may be full for a moment.
        eventually("a connection", || {
            match Client::try_connect(keyd.daemon.socket()) {
                Ok(client) => {
                    clients.push(client);
                    true
                }
                Err(_) => false,
            }
        });
    }
    for _ in 0..3 {
        for client in &mut clients {
            client.send(&sign);
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200);
        }
    }
    assert_eq!(keyd.daemon.descriptors(), descriptors + 500);
    drop(clients);
    assert_settles_at(&keyd.daemon, descriptors);
    assert!(signs(&keyd));
    keyd.daemon.stop();
}

#[test]
fn many_clients_and_operations_at_once() {
    let keyd = keyd("max_requests = 64\n");
    let descriptors = keyd.daemon.settled_descriptors();
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (keyd, served) = (&keyd, &served);
            scope.spawn(move || {
                let mut client = keyd.connect();
                let sign = request(
                    "POST",
                    &format!("/sign?{VERSION}"),
                    Some(&fixture::sign_body(A, b"hello")),
                );
                for n in 0..50 {
                    let response = client.exchange(&sign);
                    assert_eq!(
                        response.member("signature"),
                        "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="
                    );
                    let bytes = format!("{thread}-{n}");
                    let handle = keyd.import(&format!("key-{thread}"), bytes.as_bytes());
                    assert_eq!(
                        keyd.sign(&handle, b"m").member("signature"),
                        fixture::hmac(bytes.as_bytes(), b"m")
                    );
                    if n % 10 == 9 {
                        assert_eq!(keyd.delete("/key", &handle).status, 204);
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(served.load(Ordering::Relaxed), 16 * 50);
    assert_settles_at(&keyd.daemon, descriptors);
    keyd.daemon.stop();
}

#[test]
fn clients_that_send_byte_by_byte() {
    let keyd = keyd("");
    let descriptors = keyd.daemon.settled_descriptors();
    let sign = request(
        "POST",
        &format!("/sign?{VERSION}"),
        Some(&fixture::sign_body(A, b"hello")),
    );
    std::thread::scope(|scope| {
        for pause in [0, 50, 100, 200, 400] {
            let (keyd, sign) = (&keyd, &sign);
            scope.spawn(move || {
                let mut client = keyd.connect();
                for _ in 0..3 {
                    for byte in sign {
                        client.send([*byte]);
                        std::thread::sleep(Duration::from_micros(pause));
                    }
                    assert_eq!(
                        client.response().member("signature"),
                        "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="
                    );
                }
            });
        }
    });
    assert_settles_at(&keyd.daemon, descriptors);
    keyd.daemon.stop();
}

#[test]
fn oversized_requests_leave_nothing_behind() {
    let keyd = keyd("");
    let descriptors = keyd.daemon.settled_descriptors();
    for _ in 0..20 {
        let mut client = keyd.connect();
        let _ = client.try_send(format!(
            "GET /key/imp?{VERSION} HTTP/1.1\r\nx: {}\r\n\r\n",
            "y".repeat(200_000)
        ));
        assert_eq!(client.response().status, 431);
        let mut client = keyd.connect();
        let _ = client.try_send(format!(
            "POST /sign?{VERSION} HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n{{"
        ));
        assert_eq!(client.response().status, 413);
        let mut client = keyd.connect();
        let body = "[".repeat(1_000_000);
        client.send(format!(
            "POST /sign?{VERSION} HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.response().status, 422);
        // Gone in the middle of a large body.
        let mut client = keyd.connect();
        client.send(format!(
            "POST /sign?{VERSION} HTTP/1.1\r\ncontent-length: 8000000\r\n\r\n{}",
            "x".repeat(100_000)
        ));
    }
    assert_settles_at(&keyd.daemon, descriptors);
    assert!(signs(&keyd));
    assert!(
        keyd.daemon.resident() < 40 * 1024,
        "{} KiB",
        keyd.daemon.resident()
    );
    keyd.daemon.stop();
}

#[test]
fn clients_that_never_read() {
    let root = Root::new();
    fixture::install(&root);
    let keyd = ready(Keyd::launch(root, |launch| launch.time_scale(0.05)));
    let descriptors = keyd.daemon.settled_descriptors();
    let load = request("GET", &format!("/key/imp?{VERSION}"), None).repeat(64);
    let mut deaf: Vec<UnixStream> = Vec::new();
    for _ in 0..5 {
        use std::io::Write as _;
        let mut stream = UnixStream::connect(keyd.daemon.socket()).unwrap();
        stream.set_nonblocking(true).unwrap();
        // Until the server does not take any more, because it cannot get rid of the answers.
        let mut blocked = Instant::now();
        while blocked.elapsed() < Duration::from_millis(300) {
            match stream.write(&load) {
                Ok(_) => blocked = Instant::now(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // The server has given up on it already.
                Err(_) => break,
            }
        }
        assert!(signs(&keyd));
        deaf.push(stream);
    }
    assert_settles_at(&keyd.daemon, descriptors);
    assert!(signs(&keyd));
    keyd.daemon.stop();
}

#[test]
fn ht_15_descriptors_run_out() {
    let root = Root::new();
    let mut stub = Launch::stub(&root)
        .env("STUB_MAX_REQUESTS", "1000")
        .open_files(32)
        .start();
    let descriptors = stub.settled_descriptors();
    // The backlog takes those that cannot be accepted yet.
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(stub.socket())).collect();
    stub.log().wait_for("could not accept a connection");
    stub.assert_running();
    // Whoever is connected is served.
    let get = format!("GET /items/a?{V} HTTP/1.1\r\n\r\n");
    for client in clients.iter_mut().take(10) {
        assert_eq!(client.exchange(&get).status, 200);
    }
    // As places become free, the others are, too.
    for mut client in clients {
        assert_eq!(client.exchange(&get).status, 200);
    }
    assert_settles_at(&stub, descriptors);
    stub.assert_running();
    let warnings = stub.log().count("could not accept a connection");
    assert!(warnings < 100, "{warnings} warnings");
    stub.stop();
}

#[test]
fn the_key_store_survives_running_out_of_descriptors() {
    let root = Root::new();
    fixture::install(&root);
    root.write("etc/aziot/keyd/config.d/load.toml", "max_requests = 1000\n");
    let keyd = ready(Keyd::launch(root, |launch| launch.open_files(28)));
    let descriptors = keyd.daemon.settled_descriptors();
    let mut clients: Vec<Client> = (0..60)
        .map(|_| Client::connect(keyd.daemon.socket()))
        .collect();
    keyd.daemon.log().wait_for("could not accept a connection");
    // No descriptor is left for a key file: that costs the request, not the service, and no key is lost.
    let import = |bytes: &str| {
        let body = serde_json::json!({ "keyId": "aead", "keyBytes": bytes, "usage": "sign" });
        request("POST", &format!("/key?{VERSION}"), Some(&body))
    };
    let response = clients[0].exchange(import("QUJD"));
    response.assert_framing();
    assert!(
        response.status == 500 || response.status == 200,
        "{response}"
    );
    let stored = std::fs::read(keyd.root.key_file("aead")).unwrap();
    let expected = if response.status == 200 {
        b"ABC".to_vec()
    } else {
        (0x20..0x40).collect()
    };
    assert_eq!(stored, expected);
    drop(clients);
    assert_settles_at(&keyd.daemon, descriptors);
    assert_eq!(keyd.connect().exchange(import("REVG")).status, 200);
    assert_eq!(std::fs::read(keyd.root.key_file("aead")).unwrap(), b"DEF");
    assert!(signs(&keyd));
    keyd.daemon.stop();
}

/// Allocations of ours that a Keys Service makes in 10 000 requests on kept-alive connections, after it has had time to warm
/// up.
fn allocations(filter: &str) -> u64 {
    let root = Root::new();
    fixture::install(&root);
    let spy = binaries::compile_shared(
        "allocspy.c",
        &["-fno-builtin"],
        &["-ldl"],
        &root.join("lib"),
        "allocspy.so",
    );
    let counts = root.join("counts");
    let keyd = Keyd::launch(root, |launch| {
        launch
            .env("LD_PRELOAD", &spy)
            .env("ALLOCSPY_FILE", &counts)
            .env("AZIOT_LOG", filter)
    });
    let read = || {
        let bytes = std::fs::read(&counts).expect("the counts");
        u64::from_ne_bytes(bytes[8..16].try_into().unwrap())
    };
    let body = fixture::sign_body(A, b"hello");
    let sign = request("POST", &format!("/sign?{VERSION}"), Some(&body));
    let mut clients: Vec<Client> = (0..8).map(|_| keyd.connect()).collect();
    let mut requests = |count: usize| {
        for _ in 0..count / clients.len() {
            for client in &mut clients {
                client.send(&sign);
            }
            for client in &mut clients {
                assert_eq!(client.response().status, 200);
            }
        }
    };
    requests(2_000);
    let before = read();
    requests(10_000);
    let made = read() - before;
    keyd.daemon.stop();
    made
}

#[test]
fn no_allocation_in_a_steady_state() {
    assert_eq!(allocations("info"), 0);
    // Log lines are allocated: the interposer does see what happens during requests.
    assert!(allocations("debug") >= 10_000);
}
