//! Key pairs in files beside `openssl speed`, encryption, and what key generation does to others.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client;
use crate::load::{Figures, Load, Subject, in_turns, median};
use crate::measure::{Plan, SIGNATURE, TURNS};
use crate::root::Root;
use crate::table::{Goal, Table, Unit};

/// SHA-256 of `hello`.
const DIGEST: &str = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";

/// `DigestInfo` of that digest (RFC 8017, 9.2), which is what callers sign with RSA.
const DIGEST_INFO: &str = "MDEwDQYJYIZIAWUDBAIBBQAEICzyTbpfsKMOJug7KsW54p4bFh5cH6dCXnMEM2KTi5gk";

/// Bytes that are encrypted.
const PLAINTEXT: usize = 1024;

/// One kind of key pair, and what it is held against.
struct Pair {
    /// The name in `preferredAlgorithms`.
    algorithm: &'static str,
    what: &'static str,
    /// What `openssl speed` calls it.
    openssl: &'static str,
    /// Of the rate of `openssl speed` on one core.
    goal: Goal,
    /// The longest p95 in microseconds.
    p95: Goal,
    /// Whether the service is kept on one core, because the operation is made in its event loop.
    one_core: bool,
}

const PAIRS: [Pair; 4] = [
    Pair {
        algorithm: "ec-p256",
        what: "sign ECDSA P-256, key in a file",
        openssl: "ecdsap256",
        goal: Goal::FloorTimes(0.7),
        p95: Goal::AtMost(3000.0),
        one_core: true,
    },
    Pair {
        algorithm: "rsa-2048",
        what: "sign RSA-2048, key in a file",
        openssl: "rsa2048",
        goal: Goal::FloorTimes(1.2),
        p95: Goal::None,
        one_core: false,
    },
    Pair {
        algorithm: "ec-p384",
        what: "sign ECDSA P-384, key in a file",
        openssl: "ecdsap384",
        goal: Goal::None,
        p95: Goal::None,
        one_core: false,
    },
    Pair {
        algorithm: "rsa-4096",
        what: "sign RSA-4096, key in a file",
        openssl: "rsa4096",
        goal: Goal::None,
        p95: Goal::None,
        one_core: false,
    },
];

/// Signatures with keys in files, and AES-GCM.
pub fn pairs(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for pair in &PAIRS {
        measure(plan, pair, table)?;
    }
    encryption(plan, table)
}

fn measure(plan: &Plan, pair: &Pair, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let keyd = if pair.one_core {
        Subject::service(plan, &root, "keyd")?
    } else {
        Subject::service_on_all_cores(plan, &root, "keyd")?
    };
    let (request, expect) = signing(&root, &keyd, pair.algorithm)?;
    let load = Load {
        request: &request,
        expect: &expect,
        ..Load::new(plan)
    };
    load.warm_up(&keyd)?;
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        floor.push(openssl_speed(plan, pair.openssl)?);
        ours.push(load.turn(&keyd)?);
    }
    let ours = Figures::median(&ours);
    let what = format!("{}: rate beside openssl speed on one core", pair.what);
    let floor = median(&mut floor);
    table.figure(&what, Unit::PerSecond, &pair.goal, Some(floor), ours.rate);
    let what = format!("{}: server CPU per request", pair.what);
    let floor = 1e6 / floor;
    table.figure(
        &what,
        Unit::Microseconds,
        &Goal::None,
        Some(floor),
        ours.cpu,
    );
    let what = format!("{}: p95", pair.what);
    table.figure(&what, Unit::Microseconds, &pair.p95, None, ours.p95);
    Ok(())
}

/// Makes a key pair, and the file with the request that signs with it. Answers the file's name and what is in every answer.
fn signing(root: &Root, keyd: &Subject, algorithm: &str) -> Result<(String, String), String> {
    let body = format!(r#"{{"keyId":"bench-pair","preferredAlgorithms":"{algorithm}"}}"#);
    let handle = client::handle(&keyd.socket, "/keypair", &body)?;
    let rsa = algorithm.starts_with("rsa");
    let (path, body) = if rsa {
        (
            "/encrypt",
            format!(
                r#"{{"keyHandle":"{handle}","algorithm":"RSA-PKCS1","plaintext":"{DIGEST_INFO}"}}"#
            ),
        )
    } else {
        ("/sign", ecdsa(&handle))
    };
    let answer = client::post(&keyd.socket, path, &body)?;
    let request = request_file(root, path, &body)?;
    // An ECDSA signature is a new one each time, and starts with the tag of a sequence.
    let expect = if rsa {
        answer
    } else {
        r#"{"signature":"M"#.to_owned()
    };
    Ok((request, expect))
}

/// The body of a request that signs [`DIGEST`].
pub fn ecdsa(handle: &str) -> String {
    format!(
        r#"{{"keyHandle":"{handle}","algorithm":"ECDSA","parameters":{{"digest":"{DIGEST}"}}}}"#
    )
}

/// The body of a request that encrypts [`PLAINTEXT`] bytes.
pub fn encrypt(handle: &str) -> String {
    // Four characters stand for three bytes, and two with padding for the one that is left.
    let plaintext = format!("{}AA==", "AAAA".repeat(PLAINTEXT / 3));
    format!(
        r#"{{"keyHandle":"{handle}","algorithm":"AEAD","parameters":{{"iv":"MTIzNDU2Nzg5MDEy","aad":""}},"plaintext":"{plaintext}"}}"#
    )
}

/// Writes a request for the load generator to a file of its own and answers its name.
pub fn request_file(root: &Root, path: &str, body: &str) -> Result<String, String> {
    let file: PathBuf = root.file("request");
    fs::write(&file, client::request(path, body))
        .map_err(|e| format!("{}: {e}", file.display()))?;
    file.into_os_string()
        .into_string()
        .map_err(|_| "the temporary directory's name is not UTF-8".into())
}

/// Signatures a second that OpenSSL's own benchmark makes on the server's core, in elapsed time.
fn openssl_speed(plan: &Plan, algorithm: &str) -> Result<f64, String> {
    let output = Command::new("taskset")
        .args(["--cpu-list", &plan.cores.server.to_string()])
        .args([
            "openssl", "speed", "-elapsed", "-seconds", "1", "-mr", algorithm,
        ])
        .output()
        .map_err(|e| format!("openssl speed: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `+F2:<number>:<bits>:<sign/s>:<verify/s>` for RSA, `+F4` for ECDSA.
    let rate = text
        .lines()
        .find(|line| line.starts_with("+F2:") || line.starts_with("+F4:"))
        .and_then(|line| line.split(':').nth(3)?.parse::<f64>().ok())
        .filter(|rate| *rate > 0.0);
    rate.ok_or_else(|| {
        format!(
            "openssl speed {algorithm} printed no rate: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn encryption(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let bare = Subject::bare(plan, &root)?;
    let keyd = Subject::service(plan, &root, "keyd")?;
    let body = r#"{"keyId":"bench-aead","usage":"encrypt"}"#;
    let handle = client::handle(&keyd.socket, "/key", body)?;
    let body = encrypt(&handle);
    // The floor's answer has another text.
    client::post(&keyd.socket, "/encrypt", &body)?;
    let request = request_file(&root, "/encrypt", &body)?;
    let load = Load {
        request: &request,
        ..Load::new(plan)
    };
    let (floor, ours) = in_turns(&load, &bare, &keyd)?;
    let what = format!("encrypt {PLAINTEXT} bytes, AES-256-GCM, key in a file");
    table.figure(
        &format!("{what}: server CPU per request"),
        Unit::Microseconds,
        &Goal::None,
        Some(floor.cpu),
        ours.cpu,
    );
    table.figure(
        &format!("{what}: rate"),
        Unit::PerSecond,
        &Goal::None,
        Some(floor.rate),
        ours.rate,
    );
    table.figure(
        &format!("{what}: p99"),
        Unit::Microseconds,
        &Goal::None,
        Some(floor.p99),
        ours.p99,
    );
    Ok(())
}

/// HMAC requests alone and while RSA-4096 keys are generated one after the other.
pub fn generation(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let keyd = Subject::service_on_all_cores(plan, &root, "keyd")?;
    let load = Load {
        request: "sign",
        expect: SIGNATURE,
        ..Load::new(plan)
    };
    load.warm_up(&keyd)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut generated = 0;
    for _ in 0..TURNS {
        alone.push(load.turn(&keyd)?);
        let (figures, keys) = while_generating(&keyd, || load.turn(&keyd), &mut generated)?;
        beside.push(figures);
        generated = keys;
    }
    let (alone, beside) = (Figures::median(&alone), Figures::median(&beside));
    let what = "sign HMAC-SHA256 while RSA-4096 keys are generated, beside without";
    for (name, goal, floor, ours) in [
        ("p50", Goal::None, alone.p50, beside.p50),
        ("p99", Goal::FloorPlus(1000.0), alone.p99, beside.p99),
    ] {
        table.figure(
            &format!("{what}: {name}"),
            Unit::Microseconds,
            &goal,
            Some(floor),
            ours,
        );
    }
    table.figure(
        &format!("{what}: rate"),
        Unit::PerSecond,
        &Goal::None,
        Some(alone.rate),
        beside.rate,
    );
    table.note(format!(
        "{generated} RSA-4096 keys were generated during {TURNS} turns and until the last was done."
    ));
    Ok(())
}

/// Has keys generated without a pause while `work` runs; a key that is being made then is waited for. Answers what `work`
/// does, and how many keys there are now.
fn while_generating(
    keyd: &Subject,
    work: impl FnOnce() -> Result<Figures, String>,
    before: &mut u64,
) -> Result<(Figures, u64), String> {
    let stop = AtomicBool::new(false);
    let first = *before;
    std::thread::scope(|scope| {
        let generator = scope.spawn(|| {
            let mut count = first;
            while !stop.load(Ordering::Relaxed) {
                let body = format!(
                    r#"{{"keyId":"bench-generated-{count}","preferredAlgorithms":"rsa-4096"}}"#
                );
                client::post(&keyd.socket, "/keypair", &body)?;
                count += 1;
            }
            Ok::<u64, String>(count)
        });
        let figures = work();
        stop.store(true, Ordering::Relaxed);
        let count = generator
            .join()
            .map_err(|_| "the generating thread panicked".to_owned())??;
        Ok((figures?, count))
    })
}
