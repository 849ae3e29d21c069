//! The service dies at every step of an enrolment and of a rotation: between its calls of the Keys Service, and within its work
//! on files. Whatever it was, no key and no certificate is lost, and the next start goes on from there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aziot_tests::binaries;
use aziot_tests::client;
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::gate::{Gate, Side};
use aziot_tests::root::{Root, copy_tree};
use aziot_tests::simulator::Simulator;
use aziot_tests::simulator::est::{Client as Rule, Realm, WELL_KNOWN};

use crate::device::{
    BOOTSTRAP, Bench, IDENTITY, Plan, SCALE, Stopped, VERSION, belongs, certificate_file, chain,
    configuration, preload_bootstrap_key, request,
};

/// More steps than anything here takes; reaching it means that the count does not work.
const STEPS: usize = 120;

/// How long a step may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the service dies.
#[derive(Debug)]
enum Way {
    /// At a call of the Keys Service.
    Keys(Side),
    /// At a call on files of its own, in this mode of `crashpoint.c`.
    Files(&'static str),
}

/// What the service is doing when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// It gets an identity, and with it a certificate.
    Enrolment,
    /// It renews the identity with a new key.
    Rotation,
}

fn plan(work: Work) -> Plan {
    let policy = "[cert_issuance.est.identity_auto_renew]\nrotate_key = true\nthreshold = \"50%\"\nretry = \"10%\"\n";
    Plan {
        est: match work {
            Work::Enrolment => format!("{IDENTITY}{BOOTSTRAP}"),
            Work::Rotation => format!("{IDENTITY}{BOOTSTRAP}{policy}"),
        },
        ..Plan::default()
    }
}

/// An EST server, and the state of a device before the work.
struct Prepared {
    est: Arc<Simulator>,
    root: Root,
    _keyd: Daemon,
}

fn prepared(work: Work) -> Prepared {
    // More than half of its life is over when it is issued: due for whoever renews at 50 %.
    let mut old = plan(Work::Enrolment);
    old.realm = Realm {
        client: Rule::Any,
        lifetime: 3000,
        backdate: 3500,
        ..Realm::default()
    };
    let bench = Bench::new(&old);
    if work == Work::Rotation {
        bench.created("dev", &request("dev"));
    }
    let Stopped { est, root, keyd } = bench.stop();
    est.set_realm(
        WELL_KNOWN,
        Realm {
            client: Rule::Any,
            ..Realm::default()
        },
    );
    Prepared {
        est,
        root,
        _keyd: keyd,
    }
}

/// Does the work, with the death it is meant to die; false if it was over before that.
fn dies(root: &Root, keyd: &Daemon, work: Work, way: &Way, step: usize, library: &Path) -> bool {
    let launch = Launch::service("aziot-certd", root).time_scale(SCALE);
    let gate_file = root.join("etc/aziot/certd/config.d/gate.toml");
    let (certd, gate) = match way {
        Way::Keys(side) => {
            let socket = root.join("run/aziot/gate.sock");
            let gate = Gate::start(&socket, keyd.socket(), step, *side).unwrap();
            let text = format!(
                "[endpoints]\naziot_keyd = \"unix://{}\"\n",
                socket.display()
            );
            std::fs::write(&gate_file, text).unwrap();
            (launch.spawn(), Some(gate))
        }
        Way::Files(mode) => {
            let doomed = launch
                .env("LD_PRELOAD", library)
                .env("CRASHPOINT_DIR", root.join("var/lib/aziot/certd"))
                .env("CRASHPOINT_AT", step.to_string())
                .env("CRASHPOINT_MODE", mode);
            (doomed.spawn(), None)
        }
    };
    let socket = certd.socket().to_owned();
    let asking = (work == Work::Enrolment).then(|| {
        std::thread::spawn(move || {
            let end = Instant::now() + PATIENCE;
            let mut client = loop {
                match client::Client::try_connect(&socket) {
                    Ok(client) => break client,
                    Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                    Err(_) => return false,
                }
            };
            let pem = String::from_utf8(request("dev").to_pem().unwrap()).unwrap();
            let body = serde_json::json!({ "certId": "dev", "csr": pem });
            let path = format!("/certificates?{VERSION}");
            client
                .try_send(client::request("POST", &path, Some(&body)))
                .is_ok()
                && client
                    .try_response(false)
                    .is_ok_and(|answer| answer.status == 201)
        })
    });
    let begin = Instant::now();
    let died = loop {
        if gate
            .as_ref()
            .is_some_and(|gate| gate.stopped_within(Duration::from_millis(5)))
        {
            break true;
        }
        let over = match &asking {
            Some(asking) => asking.is_finished(),
            None => certd.log().count("Certificate est-id was renewed.") > 0,
        };
        if !is_alive(&certd) {
            break true;
        }
        if over && gate.is_none() && work == Work::Enrolment {
            // Its client may have heard of the death before the kernel shows it.
            std::thread::sleep(Duration::from_millis(200));
            break !is_alive(&certd);
        }
        if over {
            break false;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "neither done nor dead:\n{}",
            certd.log().text()
        );
        std::thread::sleep(Duration::from_millis(2));
    };
    certd.kill();
    let _ = std::fs::remove_file(&gate_file);
    if let Some(asking) = asking {
        let succeeded = asking.join().unwrap();
        assert!(died || succeeded, "it was neither interrupted nor done");
    }
    died
}

fn is_alive(daemon: &Daemon) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    !matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X'))
}

/// Dies at each step in turn until there is none left.
fn at_every_step(work: Work, way: &Way) {
    let prepared = prepared(work);
    let tools = tempfile::tempdir().unwrap();
    let library = binaries::compile_shared(
        "crashpoint.c",
        &[],
        &["-ldl"],
        tools.path(),
        "crashpoint.so",
    );
    for step in 1.. {
        assert!(step < STEPS, "no end after {step} steps");
        let name = format!("{work:?}, {way:?} {step}");
        let root = Root::with_keyd("");
        copy_tree(&prepared.root.join("var"), &root.join("var"));
        preload_bootstrap_key(&root, &prepared.est);
        let keyd = Launch::service("aziot-keyd", &root).start();
        let text = configuration(&root, &prepared.est, &plan(work));
        root.write("etc/aziot/certd/config.toml", text);
        let died = dies(&root, &keyd, work, way, step, &library);
        // At once, before anybody mends anything: whatever certificate there is has its key.
        match std::fs::read_to_string(certificate_file(&root, "est-id")) {
            Ok(pem) => {
                let leaf = &chain(&pem)[0];
                let owned = |id: &&str| belongs(&keyd, leaf, id);
                assert!(
                    ["est-id", "est-id-temp"].iter().any(owned),
                    "{name}: the identity has lost its key"
                );
            }
            Err(_) => assert_eq!(work, Work::Enrolment, "{name}: the identity is gone"),
        }
        // And everything works after the next start.
        let certd = Launch::service("aziot-certd", &root)
            .time_scale(SCALE)
            .start();
        let bench = Bench {
            est: Arc::clone(&prepared.est),
            root,
            keyd,
            certd,
        };
        bench.created("dev", &request("dev"));
        client::eventually(&format!("{name}: one pair is left"), || {
            let identity = bench.stored("est-id").unwrap();
            bench.belong(&identity[0], "est-id") && bench.public_key("est-id-temp").is_none()
        });
        if !died {
            assert!(step > 3, "there were only {step} steps");
            return;
        }
    }
}

#[test]
fn an_enrolment_is_interrupted_before_any_call_of_the_keys_service() {
    at_every_step(Work::Enrolment, &Way::Keys(Side::Before));
}

#[test]
fn an_enrolment_is_interrupted_after_any_call_of_the_keys_service() {
    at_every_step(Work::Enrolment, &Way::Keys(Side::After));
}

#[test]
fn an_enrolment_is_interrupted_at_any_work_on_files() {
    for mode in ["kill", "torn"] {
        at_every_step(Work::Enrolment, &Way::Files(mode));
    }
}

#[test]
fn cs_48_a_rotation_is_interrupted_before_any_call_of_the_keys_service() {
    at_every_step(Work::Rotation, &Way::Keys(Side::Before));
}

#[test]
fn cs_48_a_rotation_is_interrupted_after_any_call_of_the_keys_service() {
    at_every_step(Work::Rotation, &Way::Keys(Side::After));
}

#[test]
fn cs_48_a_rotation_is_interrupted_at_any_work_on_files() {
    for mode in ["kill", "torn"] {
        at_every_step(Work::Rotation, &Way::Files(mode));
    }
}
