//! Key services that misbehave towards the provider, in this process and in OpenSSL's own program: an error within the deadline
//! that says why, never a hang, a spin or a crash (as KE-07 asks of the engine, which has tests of its own).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aziot_daemon::client::{KeyHandle, private_key};
use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::eventually;
use base64ct::{Base64, Encoding as _};
use openssl::encrypt::Decrypter;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::Signer;
use serde_json::{Value, json};

/// The deadlines of every client of the Keys Service: how long without a byte, and in all.
const SILENCE: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(60);

/// More than a busy machine adds to anything.
const MARGIN: Duration = Duration::from_secs(60);

/// A Keys Service, and a way to it that treats answers as a test wants.
struct Bench {
    site: Site,
}

impl Bench {
    fn new() -> Self {
        let site = Site::new(BackEnd::Files);
        site.pair("ec", "ec-p256");
        site.pair("rsa", "rsa-2048");
        Self { site }
    }

    /// A root with a service that passes on what is asked for but private operations: with those, `treat` gets the right answer
    /// and the client.
    fn spoiled(
        &self,
        name: &str,
        treat: impl Fn(&[u8], &mut UnixStream) + Send + Sync + Clone + 'static,
    ) -> PathBuf {
        let root = self.site.keyd.root.join(name);
        fs::create_dir_all(root.join("run/aziot")).unwrap();
        let listener = UnixListener::bind(root.join("run/aziot/keyd.sock")).unwrap();
        let service = self.site.keyd.root.socket("keyd");
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, service) = (client.unwrap(), service.clone());
                let treat = treat.clone();
                std::thread::spawn(move || {
                    let request = read_message(&mut client);
                    let mut stream = UnixStream::connect(service).unwrap();
                    stream.write_all(&request).unwrap();
                    let answer = read_message(&mut stream);
                    if [&b"POST /sign?"[..], b"POST /encrypt?"]
                        .iter()
                        .any(|line| request.starts_with(line))
                    {
                        treat(&answer, &mut client);
                    } else {
                        client.write_all(&answer).unwrap();
                    }
                });
            }
        });
        root
    }

    /// A key in this process whose service answers in the way of `treat`.
    fn key(
        &self,
        id: &str,
        name: &str,
        treat: impl Fn(&[u8], &mut UnixStream) + Send + Sync + Clone + 'static,
    ) -> PKey<Private> {
        let root = self.spoiled(name, treat);
        load(&root.join("run/aziot/keyd.sock"), &self.handle(id)).unwrap()
    }

    /// A key in this process whose service gives this instead of the answer's body.
    fn key_answered(&self, id: &str, name: &str, body: Value) -> PKey<Private> {
        self.key(id, name, move |_, stream| {
            let _ = stream.write_all(&response(&body));
        })
    }

    fn handle(&self, id: &str) -> String {
        let algorithm = if id == "ec" { "ec-p256" } else { "rsa-2048" };
        self.site.pair(id, algorithm)
    }
}

fn load(socket: &Path, handle: &str) -> Result<PKey<Private>, String> {
    private_key(socket, &KeyHandle::new(handle)).map_err(|error| error.to_string())
}

/// A message with a `content-length`, or what there is of it.
fn read_message(stream: &mut UnixStream) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).unwrap_or(0);
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let len = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= len.map_or(0, |len| len.parse().unwrap())
        });
        if read == 0 || complete {
            return bytes;
        }
    }
}

fn response(body: &Value) -> Vec<u8> {
    let status = if body.get("message").is_some() {
        "400 Bad Request"
    } else {
        "200 OK"
    };
    let body = body.to_string();
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn sign(key: &PKey<Private>) -> Result<Vec<u8>, ErrorStack> {
    Signer::new(MessageDigest::sha256(), key)
        .unwrap()
        .sign_oneshot_to_vec(b"message")
}

/// What the provider has to say, which is one entry of the queue.
fn said(errors: &ErrorStack) -> String {
    let ours: Vec<&str> = errors
        .errors()
        .iter()
        .filter(|error| error.library() == Some("aziot_keys provider"))
        .map(|error| error.data().unwrap_or_default())
        .collect();
    assert_eq!(ours.len(), 1, "{errors:?}");
    ours[0].to_owned()
}

#[test]
fn closing_early() {
    let bench = Bench::new();
    // Before the answer, within the head, within the body.
    for len in [0, 1, 10, 60, 150] {
        for id in ["ec", "rsa"] {
            let key = bench.key(id, &format!("closing-{id}-{len}"), move |answer, stream| {
                assert!(answer.len() > len);
                let _ = stream.write_all(&answer[..len]);
            });
            let text = said(&sign(&key).unwrap_err());
            assert!(text.contains("the Keys Service"), "{text}");
        }
    }
}

#[test]
fn split_and_slow_answers_are_answers() {
    let bench = Bench::new();
    for at in [1, 15, 20, 40, 79, 150] {
        let key = bench.key("ec", &format!("split-{at}"), move |answer, stream| {
            let (first, second) = answer.split_at(at);
            stream.write_all(first).unwrap();
            std::thread::sleep(Duration::from_millis(30));
            stream.write_all(second).unwrap();
        });
        sign(&key).unwrap();
    }
    let key = bench.key("rsa", "slow", |answer, stream| {
        for byte in answer {
            stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    sign(&key).unwrap();
}

#[test]
fn endless_answers() {
    let bench = Bench::new();
    for (name, start) in [
        ("head", &b"HTTP/1.1 200 OK\r\nx: "[..]),
        (
            "body",
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"",
        ),
    ] {
        let key = bench.key("ec", name, move |_, stream| {
            stream.write_all(start).unwrap();
            while stream.write_all(&[b'a'; 4096]).is_ok() {}
        });
        said(&sign(&key).unwrap_err());
    }
}

/// Texts reach the program whole, also those that OpenSSL's own formatting would drop.
#[test]
fn refusals_reach_the_program_whole() {
    let bench = Bench::new();
    for (name, message) in [
        (
            "short",
            "parameter \"handle\" has an invalid value\ncaused by: invalid handle".to_owned(),
        ),
        ("1023", "x".repeat(1023)),
        ("1024", "x".repeat(1024)),
        ("long", "long % %s %n ".repeat(2000)),
        ("nul", "before\0after".to_owned()),
    ] {
        for id in ["ec", "rsa"] {
            let body = json!({ "message": message });
            let key = bench.key_answered(id, &format!("{name}-{id}"), body);
            let text = said(&sign(&key).unwrap_err());
            let expected = message.replace('\0', "\\0");
            assert!(text.ends_with(&expected), "{} {text:.200}", text.len());
        }
    }
    // Loading has the same texts.
    let text = load(&bench.site.keyd.root.socket("keyd"), "x").unwrap_err();
    assert!(text.ends_with("invalid handle"), "{text}");
}

/// Nothing is kept between operations: a service that is gone is missed, and found again.
#[test]
fn restarting() {
    let bench = Bench::new();
    let socket = bench.site.keyd.root.socket("keyd");
    let keys = ["ec", "rsa"].map(|id| load(&socket, &bench.handle(id)).unwrap());
    let site = bench.site.restart_after(|_, _| {
        for key in &keys {
            let text = said(&sign(key).unwrap_err());
            assert!(text.contains("aziot-keyd"), "{text}");
        }
    });
    for key in &keys {
        sign(key).unwrap();
    }
    drop(site);
}

/// What a service could answer instead of a result.
#[test]
fn results_that_are_none() {
    let bench = Bench::new();
    for (index, body) in [
        json!({ "signature": "" }),
        json!({ "signature": "MAA=" }),
        // More behind a signature: INTEGER 1, INTEGER 1, and a zero.
        json!({ "signature": "MAYCAQECAQEA" }),
        json!({ "signature": Base64::encode_string(&[0x30; 500]) }),
        json!({ "signature": 1 }),
        json!({}),
        json!([]),
    ]
    .into_iter()
    .enumerate()
    {
        let key = bench.key_answered("ec", &format!("ec-{index}"), body);
        said(&sign(&key).unwrap_err());
    }
    for (index, body) in [
        json!({ "ciphertext": Base64::encode_string(&[1; 257]) }),
        json!({ "ciphertext": "?" }),
        json!({ "signature": "MAA=" }),
    ]
    .into_iter()
    .enumerate()
    {
        let key = bench.key_answered("rsa", &format!("rsa-{index}"), body);
        said(&sign(&key).unwrap_err());
        let mut decrypter = Decrypter::new(&key).unwrap();
        decrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
        let mut message = [0; 256];
        said(&decrypter.decrypt(&[1; 256], &mut message).unwrap_err());
    }
}

/// OpenSSL's program with a service that has begun to do its worst.
struct Waiting {
    way: &'static str,
    child: Child,
    since: Instant,
}

impl Waiting {
    /// Nanoseconds of processor time so far.
    fn spent(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
}

/// A service that says nothing, and one that says a little for ever, through the provider and through the engine: the program
/// sleeps until the deadline, and then says why.
#[test]
fn ke_07_silent_and_dripping_services_end_at_the_deadline() {
    let bench = Bench::new();
    let home = &bench.site.keyd.root;
    for (directory, built) in [
        ("engines", "libaziot_key_openssl_engine_shared.so"),
        ("modules", "libaziot_keys_provider_shared.so"),
    ] {
        fs::create_dir(home.join(directory)).unwrap();
        symlink(
            binaries::built(built),
            home.join(directory).join("aziot_keys.so"),
        )
        .unwrap();
    }
    fs::write(home.join("message"), "hello\n").unwrap();
    let start = |name: &str, way: &'static str| {
        let child = Command::new("openssl")
            .args("dgst -sha256 -out signature".split(' '))
            .args(way.split(' '))
            .args(["aziot-keys:id=ec", "message"])
            .current_dir(home.path())
            .env("AZIOT_ROOT", home.join(name))
            .env("OPENSSL_ENGINES", home.join("engines"))
            .env("OPENSSL_MODULES", home.join("modules"))
            .env("OPENSSL_CONF", "/dev/null")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Waiting {
            way,
            child,
            since: Instant::now(),
        }
    };
    let (asked, asking) = std::sync::mpsc::channel();
    let told = asked.clone();
    bench.spoiled("silent", move |_, stream| {
        told.send(()).unwrap();
        // Until the client gives up.
        let _ = stream.read(&mut [0]);
    });
    bench.spoiled("dripping", move |_, stream| {
        asked.send(()).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ");
        while stream.write_all(b"y").is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    let ways = [
        "-provider aziot_keys -provider default -sign",
        "-engine aziot_keys -keyform engine -sign",
    ];
    let silent = ways.map(|way| start("silent", way));
    let dripping = ways.map(|way| start("dripping", way));
    for _ in 0..4 {
        asking.recv_timeout(MARGIN).unwrap();
    }
    let all = || silent.iter().chain(&dripping);
    let before: Vec<u64> = all().map(Waiting::spent).collect();
    std::thread::sleep(Duration::from_secs(5));
    for (waiting, before) in all().zip(before) {
        let spent = Duration::from_nanos(waiting.spent() - before);
        assert!(spent < Duration::from_secs(1), "{}: {spent:?}", waiting.way);
    }
    for (deadline, programs) in [(SILENCE, silent), (WHOLE, dripping)] {
        for Waiting { way, child, since } in programs {
            let output = child.wait_with_output().unwrap();
            let took = since.elapsed();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{way}: {text}");
            assert!(text.contains("deadline"), "{way}: {text}");
            assert!(took >= deadline, "{way}: {took:?}");
            assert!(took < deadline + MARGIN, "{way}: {took:?}");
        }
    }
    eventually("nothing is left of a signature", || {
        fs::metadata(home.join("signature")).map_or(0, |file| file.len()) == 0
    });
}
