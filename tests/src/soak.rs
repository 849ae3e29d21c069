//! Many signatures of a token through one running Keys Service: does it last?
//!
//! Modules have been known to fail after some 65 536 operations of one login. The service has to notice and go on by itself,
//! as it has to when the TPM goes away in the middle; and neither memory nor descriptors may grow with the number of requests.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Public;

use crate::back_end::{BackEnd, Site, bytes, ecdsa_body};
use crate::client::{Client, request};
use crate::fixture::VERSION;

/// How long an interruption may last before the run has failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// How much the service's own (anonymous) memory may grow between the first tenth and the end, in KiB: what allocators keep,
/// nothing that a request leaves behind. At 100 000 requests this is 10 bytes each. A module that is loaded again adds as
/// much, because libraries it needs stay.
const GROWTH: u64 = 1024;

/// What tpm2-pkcs11 1.9 with its TSS loses with every signature, in bytes: 80 to 100 when a C program calls it directly in a
/// loop, over a resource manager or not.
const TPM_LEAK: u64 = 128;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where the key is.
    pub back_end: BackEnd,
    /// How many good signatures to collect.
    pub signatures: u64,
    /// How many clients ask for them at the same time.
    pub clients: usize,
    /// Whether the TPM is killed and started again half-way.
    pub interrupt: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Report {
    plan: Plan,
    signatures: u64,
    elapsed: Duration,
    slowest: Duration,
    failures: u64,
    longest_interruption: Duration,
    /// Calls of `C_Login`, `C_Initialize` and `C_OpenSession`, before the signatures and with them.
    calls: [[usize; 3]; 2],
    memory: [Memory; 2],
    descriptors: [usize; 2],
    log: Vec<String>,
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident: u64,
    anonymous: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .expect("the process's memory map");
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"))
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        Self {
            resident: value("Rss:"),
            anonymous: value("Anonymous:"),
        }
    }
}

/// What the clients share.
struct Shared {
    done: AtomicU64,
    failures: AtomicU64,
    /// Longest time of one request, and of one series of failed ones, in microseconds.
    slowest: AtomicU64,
    interruption: AtomicU64,
    given_up: AtomicBool,
}

/// Carries the plan out. `progress` gets a line now and then.
///
/// # Panics
/// When the service cannot be set up, gives a wrong signature, or does not come back after a failure.
pub fn run(plan: Plan, mut progress: impl FnMut(&str)) -> Report {
    let mut site = Site::start(plan.back_end, true, "max_requests = 64\n", |launch| {
        launch
            .env("P11SHIM_ONLY", "C_Initialize,C_Login,C_OpenSession")
            .env("AZIOT_LOG", "warn")
    });
    let pair = site.pair("soak", "ec-p256");
    let key = public_key(&site, &pair);
    let shared = Shared {
        done: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        slowest: AtomicU64::new(0),
        interruption: AtomicU64::new(0),
        given_up: AtomicBool::new(false),
    };
    let calls = |site: &Site| {
        ["C_Login", "C_Initialize", "C_OpenSession"].map(|function| site.recorder().count(function))
    };
    let calls_before = calls(&site);
    let warm = plan.signatures / 10;
    let mut before = None;
    let mut interrupted = !plan.interrupt;
    let mut next_line = warm.max(1);
    let socket = site.keyd.daemon.socket().to_owned();
    let started = Instant::now();
    thread::scope(|scope| {
        for client in 0..plan.clients {
            let (shared, pair, key, socket) = (&shared, &pair, &key, &socket);
            scope.spawn(move || sign(plan, shared, client, socket, pair, key));
        }
        // The TPM is started by this thread, and would end with any other.
        loop {
            let done = shared.done.load(Ordering::Relaxed);
            if before.is_none() && done >= warm {
                before = Some(measure(&site));
            }
            if !interrupted && done >= plan.signatures / 2 {
                interrupted = true;
                progress("the TPM is killed and started again");
                let tpm = site.tpm.as_mut().expect("a TPM to interrupt");
                tpm.kill();
                thread::sleep(Duration::from_millis(500));
                tpm.resume(&site.keyd.root);
            }
            if done >= next_line {
                let elapsed = started.elapsed().as_secs_f64();
                progress(&format!(
                    "{done} of {} signatures, {:.0} a second",
                    plan.signatures,
                    done as f64 / elapsed
                ));
                next_line = (done / warm.max(1) + 1) * warm.max(1);
            }
            if done >= plan.signatures || shared.given_up.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    let elapsed = started.elapsed();
    site.keyd.daemon.assert_running();
    let log = site.keyd.daemon.log().text();
    assert!(
        !shared.given_up.load(Ordering::Relaxed),
        "no signature for {PATIENCE:?}:\n{log}"
    );
    let after = measure(&site);
    let before = before.unwrap_or(after);
    let micros = |value: &AtomicU64| Duration::from_micros(value.load(Ordering::Relaxed));
    Report {
        plan,
        signatures: shared.done.load(Ordering::Relaxed),
        elapsed,
        slowest: micros(&shared.slowest),
        failures: shared.failures.load(Ordering::Relaxed),
        longest_interruption: micros(&shared.interruption),
        calls: [calls_before, calls(&site)],
        memory: [before.0, after.0],
        descriptors: [before.1, after.1],
        log: log.lines().map(str::to_owned).collect(),
    }
}

fn measure(site: &Site) -> (Memory, usize) {
    let daemon = &site.keyd.daemon;
    (Memory::of(daemon.pid()), daemon.descriptors())
}

fn public_key(site: &Site, pair: &str) -> EcKey<Public> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
    let encoded = bytes(&site.parameter(pair, "ec-point"), "value");
    let mut context = BigNumContext::new().expect("memory");
    let point = EcPoint::from_bytes(&group, &encoded, &mut context).expect("a point of the curve");
    EcKey::from_public_key(&group, &point).expect("a public key")
}

/// One client: signs until there are enough signatures, over one connection as long as it holds.
fn sign(
    plan: Plan,
    shared: &Shared,
    number: usize,
    socket: &std::path::Path,
    pair: &str,
    key: &EcKey<Public>,
) {
    let target = format!("/sign?{VERSION}");
    let mut client: Option<Client> = None;
    let mut failing: Option<Instant> = None;
    let mut round = 0_u64;
    while shared.done.load(Ordering::Relaxed) < plan.signatures {
        round += 1;
        let mut digest = [0x5a; 32];
        digest[..8].copy_from_slice(&round.to_le_bytes());
        digest[8] = u8::try_from(number).unwrap_or(u8::MAX);
        let asked = Instant::now();
        let answer = client
            .take()
            .or_else(|| Client::try_connect(socket).ok())
            .and_then(|mut connected| {
                connected
                    .try_send(request("POST", &target, Some(&ecdsa_body(pair, &digest))))
                    .ok()?;
                let response = connected.try_response(false).ok()?;
                client = Some(connected);
                (response.status == 200).then_some(response)
            });
        if let Some(response) = answer {
            let signature = EcdsaSig::from_der(&bytes(&response, "signature")).expect("DER");
            assert!(
                signature.verify(&digest, key).expect("a verification"),
                "a wrong signature: {response}"
            );
            let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
            shared.slowest.fetch_max(took, Ordering::Relaxed);
            shared.done.fetch_add(1, Ordering::Relaxed);
            if let Some(since) = failing.take() {
                let lasted = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                shared.interruption.fetch_max(lasted, Ordering::Relaxed);
            }
        } else {
            shared.failures.fetch_add(1, Ordering::Relaxed);
            let since = *failing.get_or_insert(asked);
            if since.elapsed() > PATIENCE {
                shared.given_up.store(true, Ordering::Relaxed);
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if shared.given_up.load(Ordering::Relaxed) {
            return;
        }
    }
}

impl Report {
    /// How much memory may grow, in KiB.
    fn allowance(&self) -> u64 {
        let leak = match self.plan.back_end {
            BackEnd::Tpm => self.signatures * TPM_LEAK / 1024,
            _ => 0,
        };
        let loads = u64::try_from(self.during()[1]).unwrap_or(u64::MAX);
        leak + GROWTH * (1 + loads)
    }

    /// Logins, loads and sessions that the signatures themselves took.
    fn during(&self) -> [usize; 3] {
        let [before, after] = self.calls;
        std::array::from_fn(|n| after[n] - before[n])
    }

    /// What is not as it should be; nothing when the run has passed.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let [before, after] = self.memory;
        let allowance = self.allowance();
        if after.anonymous > before.anonymous + allowance {
            complaints.push(format!(
                "memory grew by {} KiB, more than {allowance}",
                after.anonymous - before.anonymous
            ));
        }
        let [open_before, open_after] = self.descriptors;
        if open_after > open_before + 4 {
            complaints.push(format!("{open_before} descriptors became {open_after}"));
        }
        if !self.plan.interrupt {
            // A module that is loaded again takes a login with it.
            let [logins, loads, _] = self.during();
            if logins > loads {
                complaints.push(format!(
                    "{logins} logins in {loads} new loads of the module"
                ));
            }
            if self.failures > 0 {
                complaints.push(format!("{} requests failed", self.failures));
            }
        }
        if self.plan.interrupt && self.failures == 0 {
            complaints.push("nobody noticed that the TPM was away".to_owned());
        }
        complaints
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.memory;
        let [logins, loads, sessions] = self.during();
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "  signatures      {}, all verified, in {seconds:.1} s: {:.0} a second with {} clients; the slowest took {:.0?}",
            self.signatures,
            self.signatures as f64 / seconds,
            self.plan.clients,
            self.slowest
        )?;
        writeln!(
            f,
            "  module          loaded {} times, {} logins, {} sessions opened; during the run {loads}, {logins}, {sessions}",
            self.calls[1][1], self.calls[1][0], self.calls[1][2]
        )?;
        writeln!(
            f,
            "  failures        {}; the longest interruption for a client took {:.0?}",
            self.failures, self.longest_interruption
        )?;
        writeln!(
            f,
            "  memory          anonymous {} -> {} KiB, resident {} -> {} KiB (from a tenth of the run to its end; {} KiB more are allowed)",
            before.anonymous,
            after.anonymous,
            before.resident,
            after.resident,
            self.allowance()
        )?;
        writeln!(
            f,
            "  descriptors     {} -> {}",
            self.descriptors[0], self.descriptors[1]
        )?;
        let mut seen = Vec::new();
        for line in &self.log {
            // The same failure is told once, without its time.
            let text = line.split(" - ").nth(1).unwrap_or(line);
            if !seen.contains(&text) && seen.len() < 12 {
                seen.push(text);
                writeln!(f, "  log             {text}")?;
            }
        }
        Ok(())
    }
}
