//! The measurements, one function per group of rows.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::load::{Load, Subject, in_turns, median};
use crate::process::{Command, Cores};
use crate::root::Root;
use crate::table::{Goal, Table, Unit};
use crate::{pairs, tls, tokens};

/// What to measure with, and for how long.
pub struct Plan {
    pub loadgen: PathBuf,
    pub bare: PathBuf,
    pub minimal: PathBuf,
    pub allocspy: PathBuf,
    /// Calls a PKCS#11 module directly.
    pub softhsm: PathBuf,
    /// A TLS server, and the load for it.
    pub tls: PathBuf,
    pub aziotd: PathBuf,
    /// Where the release programs and libraries are.
    pub programs: PathBuf,
    pub seconds: f64,
    pub starts: usize,
    pub groups: Vec<Group>,
    pub cores: Cores,
}

/// Floor and subject take turns this often; the median of the turns counts.
pub const TURNS: usize = 3;

/// Kept-alive connections of the load.
pub const CONNECTIONS: u32 = 8;

/// How long a service may take to come up before the benchmark gives up.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// Requests after which the resident set is looked at again, in a run of full length.
const MANY_REQUESTS: u64 = 1_000_000;

/// The share of the default time from which on a run counts as one of full length.
const FULL_SECONDS: f64 = 3.0;

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Group {
    /// `POST /sign` beside the bare responder.
    Sign,
    /// Operations with key pairs in files beside `openssl speed`, and encryption.
    Pairs,
    /// HMAC requests while RSA keys are generated.
    Generation,
    /// Operations with keys in a SoftHSM token beside the module called directly.
    Tokens,
    /// TLS handshakes with a key of the service beside the same key in a file.
    Tls,
    /// `GET /identities/identity` beside the bare responder.
    Identity,
    /// Socket-activated start beside the minimal libcrypto program.
    Start,
    /// Resident, anonymous and proportional memory.
    Memory,
    /// Sizes of the shipped files.
    Sizes,
    /// Heap allocations of a request.
    Allocations,
}

/// Measures the plan's groups; one that fails becomes a row that says why.
pub fn all(plan: &Plan) -> Table {
    let mut table = Table::default();
    for group in &plan.groups {
        let measure = match group {
            Group::Sign => sign,
            Group::Pairs => pairs::pairs,
            Group::Generation => pairs::generation,
            Group::Tokens => tokens::tokens,
            Group::Tls => tls::tls,
            Group::Identity => identity,
            Group::Start => start,
            Group::Memory => memory,
            Group::Sizes => sizes,
            Group::Allocations => allocations,
        };
        if let Err(reason) = measure(plan, &mut table) {
            table.failed(&format!("{group:?}").to_lowercase(), &reason);
        }
    }
    table.note(format!(
        "{TURNS} turns of {} s per server, {CONNECTIONS} connections; server on core {}, load generator on core {}.",
        plan.seconds, plan.cores.server, plan.cores.load
    ));
    if plan.cores.server == plan.cores.load {
        table.note(
            "There is one core only: rates and latencies include the load generator's time.".into(),
        );
    }
    table.note("Stack and code size on a Cortex-M: make test-embedded.".into());
    table
}

/// `POST /sign` with HMAC-SHA256 beside the bare responder.
fn sign(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let load = Load {
        request: "sign",
        expect: SIGNATURE,
        ..Load::new(plan)
    };
    let bare = Subject::bare(plan, &root)?;
    let keyd = Subject::service(plan, &root, "keyd")?;
    let (floor, ours) = in_turns(&load, &bare, &keyd)?;

    let what = "sign HMAC-SHA256, 8 connections";
    table.figure(
        &format!("{what}: server CPU per request"),
        Unit::Microseconds,
        &Goal::FloorPlus(5.0),
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
        &format!("{what}: p50"),
        Unit::Microseconds,
        &Goal::None,
        Some(floor.p50),
        ours.p50,
    );
    table.figure(
        &format!("{what}: p95"),
        Unit::Microseconds,
        &Goal::None,
        Some(floor.p95),
        ours.p95,
    );
    table.figure(
        &format!("{what}: p99"),
        Unit::Microseconds,
        &Goal::FloorPlus(1000.0),
        Some(floor.p99),
        ours.p99,
    );

    // The ratio of rates is what the load generator makes of it. Clients of the service wait for their answers, in a thread or a
    // process of their own, and so do those that the goal is for.
    let waiting = Load {
        threads: true,
        ..load
    };
    let new_each_time = Load {
        connection_per_request: true,
        ..load
    };
    for (what, load, goal) in [
        (
            "8 clients with a thread each",
            waiting,
            Goal::FloorTimes(0.6),
        ),
        ("a connection per request", new_each_time, Goal::None),
    ] {
        let (floor, ours) = in_turns(&load, &bare, &keyd)?;
        table.figure(
            &format!("sign HMAC-SHA256, {what}: server CPU"),
            Unit::Microseconds,
            &Goal::None,
            Some(floor.cpu),
            ours.cpu,
        );
        table.figure(
            &format!("sign HMAC-SHA256, {what}: rate"),
            Unit::PerSecond,
            &goal,
            Some(floor.rate),
            ours.rate,
        );
    }

    Ok(())
}

/// `GET /identities/identity` of a known device beside the bare responder.
fn identity(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let load = Load {
        request: "identity",
        expect: r#""deviceId":"bench""#,
        ..Load::new(plan)
    };
    let bare = Subject::bare(plan, &root)?;
    let _keyd = Subject::service(plan, &root, "keyd")?;
    let identityd = Subject::service(plan, &root, "identityd")?;
    load.run(&identityd.socket, 1.0, Some(1))?;
    // The floor's answer has another text.
    let (floor, ours) = in_turns(&Load { expect: "", ..load }, &bare, &identityd)?;

    let what = "get identity, 8 connections";
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
        &Goal::FloorTimes(0.3),
        Some(floor.rate),
        ours.rate,
    );
    table.figure(
        &format!("{what}: p99"),
        Unit::Microseconds,
        &Goal::FloorPlus(1000.0),
        Some(floor.p99),
        ours.p99,
    );
    Ok(())
}

/// Socket-activated exec to first reply, beside the minimal libcrypto program.
fn start(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let minimal = Command::new(&plan.minimal, &root.file("minimal.log"));
    let keyd = root.service(plan, "keyd");
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..plan.starts + 2 {
        for (command, times) in [&minimal, &keyd].into_iter().zip(&mut times) {
            let time = exec_to_first_reply(command, &root.file("activated.sock"))?;
            // The first starts read the files from disk.
            if turn >= 2 {
                times.push(time.as_secs_f64() * 1e3);
            }
        }
    }
    let [mut floor, mut ours] = times;
    table.figure(
        &format!(
            "socket-activated keyd, exec to first reply, median of {}",
            plan.starts
        ),
        Unit::Milliseconds,
        &Goal::FloorPlus(2.0),
        Some(median(&mut floor)),
        median(&mut ours),
    );
    Ok(())
}

fn exec_to_first_reply(command: &Command, socket: &Path) -> Result<Duration, String> {
    let fail = |e: std::io::Error| format!("{}: {e}", socket.display());
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(fail)?;
    let mut client = UnixStream::connect(socket).map_err(fail)?;
    client
        .set_read_timeout(Some(Duration::from_millis(250)))
        .map_err(fail)?;
    client.write_all(sign_request().as_bytes()).map_err(fail)?;

    let start = Instant::now();
    let mut process = command.spawn_activated(listener.as_fd())?;
    let mut answer = [0; 1024];
    loop {
        match client.read(&mut answer) {
            Ok(length) if answer[..length].starts_with(b"HTTP/1.1 200 ") => {
                return Ok(start.elapsed());
            }
            Ok(length) => {
                let answer = String::from_utf8_lossy(&answer[..length]);
                return Err(format!(
                    "the first reply was `{answer}`; {}",
                    process.log_end()
                ));
            }
            // Nobody answers any more once the process is gone: this end keeps the listener open.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                process.check("waiting for the first reply", start.elapsed() > START_LIMIT)?;
            }
            Err(e) => return Err(fail(e)),
        }
    }
}

/// Resident, anonymous and proportional memory of idle and used services.
fn memory(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let sign = Load {
        request: "sign",
        expect: SIGNATURE,
        ..Load::new(plan)
    };
    let identity = Load {
        request: "identity",
        ..Load::new(plan)
    };
    let (seconds, requests) = if plan.seconds >= FULL_SECONDS {
        (600.0, MANY_REQUESTS)
    } else {
        (plan.seconds * 3.0, MANY_REQUESTS)
    };

    let root = Root::new()?;
    let keyd = Subject::service(plan, &root, "keyd")?;
    // One request, so that everything an idle service has used once is there.
    sign.run(&keyd.socket, 1.0, Some(1))?;
    let idle = keyd.process.memory()?;
    let made = sign.run(&keyd.socket, seconds, Some(requests))?.requests;
    let used = keyd.process.memory()?;
    drop(keyd);
    table.figure(
        "keyd, resident, idle",
        Unit::Megabytes,
        &Goal::AtMost(7.0),
        None,
        megabytes(idle.resident),
    );
    table.figure(
        "keyd, anonymous, idle",
        Unit::Megabytes,
        &Goal::AtMost(1.1),
        None,
        megabytes(idle.anonymous),
    );
    table.figure(
        &format!("keyd, resident, growth by {made} requests"),
        Unit::Megabytes,
        &Goal::AtMost(0.3),
        None,
        megabytes(used.resident) - megabytes(idle.resident),
    );
    table.figure(
        "keyd, anonymous, after them",
        Unit::Megabytes,
        &Goal::AtMost(1.1),
        None,
        megabytes(used.anonymous),
    );

    let root = Root::new()?;
    let keyd = Subject::service(plan, &root, "keyd")?;
    let identityd = Subject::service(plan, &root, "identityd")?;
    sign.run(&keyd.socket, 1.0, Some(1))?;
    identity.run(&identityd.socket, 1.0, Some(1))?;
    let [first, second] = [keyd.process.memory()?, identityd.process.memory()?];
    table.figure(
        "identityd, resident, idle",
        Unit::Megabytes,
        &Goal::None,
        None,
        megabytes(second.resident),
    );
    table.figure(
        "identityd, anonymous, idle",
        Unit::Megabytes,
        &Goal::None,
        None,
        megabytes(second.anonymous),
    );
    table.figure(
        "keyd and identityd, proportional, idle",
        Unit::Megabytes,
        &Goal::None,
        None,
        megabytes(first.proportional + second.proportional),
    );
    table.later(
        "four services, proportional, idle",
        "≤ 8 MB before any TLS, ≤ 12 MB after",
    );
    Ok(())
}

/// Sizes of the stripped files.
fn sizes(plan: &Plan, table: &mut Table) -> Result<(), String> {
    for (name, most) in [
        ("aziotd", 2.5),
        ("aziotctl", 1.5),
        ("libaziot_keys.so", 0.6),
        ("libaziot_key_openssl_engine_shared.so", 0.4),
        ("libaziot_keys_provider_shared.so", 0.5),
    ] {
        let path = plan.programs.join(name);
        let size = fs::metadata(&path)
            .map_err(|e| format!("{}: {e}", path.display()))?
            .len();
        table.figure(
            &format!("{name}, stripped"),
            Unit::Megabytes,
            &Goal::AtMost(most),
            None,
            size as f64 / 1e6,
        );
    }
    table.later("libaziot_tpm.so, stripped", "≤ 0.5 MB");
    Ok(())
}

/// Heap allocations of a steady-state request, OpenSSL's own excepted.
fn allocations(plan: &Plan, table: &mut Table) -> Result<(), String> {
    const REQUESTS: u64 = 20_000;
    let root = Root::new()?;
    let counts = root.file("allocations");
    let command = root
        .service(plan, "keyd")
        .variable("LD_PRELOAD", &plan.allocspy)
        .variable("ALLOCSPY_FILE", &counts);
    let keyd = Subject::start(&command, "keyd under allocspy", root.socket("keyd"))?;
    let load = Load {
        request: "sign",
        expect: SIGNATURE,
        ..Load::new(plan)
    };
    // What a connection or the first requests allocate is the same in a short run and in a long
    // one; the difference between the two is what the requests do.
    load.run(&keyd.socket, 60.0, Some(1000))?;
    let mut runs = [(0, [0; 2]); 2];
    for (run, requests) in runs.iter_mut().zip([1000, 1000 + REQUESTS]) {
        let before = allocation_counts(&counts)?;
        let made = load.run(&keyd.socket, 60.0, Some(requests))?.requests;
        let after = allocation_counts(&counts)?;
        *run = (made, [after[0] - before[0], after[1] - before[1]]);
    }
    let [(short, few), (long, many)] = runs;
    let per_request = |kind: usize| {
        let each = (many[kind] as f64 - few[kind] as f64) / (long as f64 - short as f64);
        // A buffer that grows once in thousands of requests is none of a request's.
        (each * 1000.0).round().max(0.0) / 1000.0
    };
    table.figure(
        "sign HMAC-SHA256, heap allocations per request",
        Unit::Count,
        &Goal::AtMost(0.0),
        None,
        per_request(1),
    );
    table.figure(
        "the same, with OpenSSL's own",
        Unit::Count,
        &Goal::None,
        None,
        per_request(0),
    );
    Ok(())
}

/// All allocations, and those that are not OpenSSL's.
fn allocation_counts(path: &Path) -> Result<[u64; 2], String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (counts, _) = bytes.as_chunks::<8>();
    match *counts {
        [all, ours, ..] => Ok([all, ours].map(u64::from_ne_bytes)),
        _ => Err(format!("{}: not written by allocspy.so", path.display())),
    }
}

/// The answer to the load generator's `sign`: vector V1 of the Keys Service.
pub const SIGNATURE: &str = "IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis=";

/// An HMAC with the fixture's key `imp`, of `hello`.
const SIGN_BODY: &str = include_str!("../../../bench/sign.json");

fn sign_request() -> String {
    format!(
        "POST /sign?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{SIGN_BODY}",
        SIGN_BODY.len()
    )
}
