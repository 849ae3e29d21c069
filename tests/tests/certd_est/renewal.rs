//! Renewal of EST identities on the wire.

use std::time::Duration;

use aziot_tests::client::{PATIENCE, eventually};
use aziot_tests::gate::Gate;
use aziot_tests::root::Root;
use aziot_tests::simulator::est::{Client as Rule, Realm, WELL_KNOWN};
use aziot_tests::simulator::{Action, CannedResponse, Fault};
use aziot_tests::softhsm::SoftHsm;
use openssl::x509::{X509, X509Req};

use crate::device::{BOOTSTRAP, Bench, IDENTITY, Plan, common_name, names, request};

/// Renewed after half of their life; tried again after a tenth of it.
const POLICY: &str =
    "[cert_issuance.est.identity_auto_renew]\nthreshold = \"50%\"\nretry = \"10%\"\n";

fn plan(rotate_key: bool, lifetime: i64) -> Plan {
    Plan {
        est: format!("{IDENTITY}{BOOTSTRAP}{POLICY}rotate_key = {rotate_key}\n"),
        realm: Realm {
            client: Rule::Any,
            lifetime,
            ..Realm::default()
        },
        ..Plan::default()
    }
}

/// What the server issued to the identity, beside what was asked for by clients.
fn renewals(bench: &Bench) -> usize {
    bench
        .est
        .issued()
        .iter()
        .filter(|one| one.operation == "simplereenroll")
        .count()
}

fn renewed(bench: &Bench, times: usize) {
    bench.certd.log().wait_for_more(
        "Certificate est-id was renewed. Next renewal at ",
        times.saturating_sub(1),
    );
}

#[test]
fn cs_48_a_rotation_replaces_key_and_certificate() {
    let bench = Bench::new(&plan(true, 10));
    bench.created("dev", &request("dev"));
    let (old, key) = (bench.stored("est-id").unwrap(), bench.public_key("est-id"));
    renewed(&bench, 1);
    let new = bench.stored("est-id").unwrap();
    assert_ne!(new[0].to_der().unwrap(), old[0].to_der().unwrap());
    assert_eq!(common_name(&new[0]), common_name(&old[0]));
    assert_eq!(names(&new), ["dev", "est-int", "est-root"]);
    let issued = bench.est.issued();
    let renewal = issued
        .iter()
        .find(|one| one.operation == "simplereenroll")
        .unwrap();
    assert_eq!(renewal.client.len(), 3, "the whole chain is presented");
    let csr = X509Req::from_der(&renewal.request).unwrap();
    assert_eq!(
        csr.subject_name().to_der().unwrap(),
        old[0].subject_name().to_der().unwrap()
    );
    eventually("the key and the certificate belong together", || {
        let now = bench.stored("est-id").unwrap();
        bench.public_key("est-id-temp").is_none() && bench.belong(&now[0], "est-id")
    });
    assert_ne!(bench.public_key("est-id"), key);
    bench
        .certd
        .log()
        .wait_for("Attempting to renew certificate est-id.");
    bench.created("dev", &request("dev"));
    bench.assert_no_violations();
}

#[test]
fn cs_48_without_rotation_the_key_stays() {
    let bench = Bench::new(&plan(false, 10));
    bench.created("dev", &request("dev"));
    let key = bench.public_key("est-id");
    renewed(&bench, 2);
    assert_eq!(bench.public_key("est-id"), key);
    assert_eq!(bench.public_key("est-id-temp"), None);
    assert!(bench.belong(&bench.stored("est-id").unwrap()[0], "est-id"));
}

#[test]
fn cs_48_a_server_without_simplereenroll_gets_simpleenroll() {
    let mut plan = plan(true, 10);
    plan.realm.reenroll = false;
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    renewed(&bench, 1);
    assert_eq!(renewals(&bench), 0);
    assert!(bench.est.issued().len() >= 3);
}

#[test]
fn cs_48_a_rotation_in_a_token() {
    let root = Root::new();
    let softhsm = SoftHsm::new(&root.join("softhsm"));
    let token = softhsm.initialize("keys");
    let bench = Bench::with_token(&plan(true, 12), Some((root, &token)));
    bench.created("dev", &request("dev"));
    let key = bench.public_key("est-id");
    assert!(key.is_some());
    renewed(&bench, 1);
    eventually("the key was moved", || {
        bench.public_key("est-id-temp").is_none() && bench.public_key("est-id") != key
    });
    let objects = token.objects();
    assert!(
        objects.iter().any(|object| object.label == "est-id"),
        "{objects:?}"
    );
    assert!(
        !objects.iter().any(|object| object.label == "est-id-temp"),
        "{objects:?}"
    );
    assert!(bench.belong(&bench.stored("est-id").unwrap()[0], "est-id"));
    bench.created("dev", &request("dev"));
}

#[test]
fn cs_45_failures_are_tried_again_and_the_old_pair_stays() {
    let bench = Bench::new(&plan(true, 20));
    bench.created("dev", &request("dev"));
    let (old, key) = (bench.stored("est-id").unwrap(), bench.public_key("est-id"));
    let trouble = || CannedResponse::html(500, "trouble");
    for route in ["est-simplereenroll", "est-simpleenroll"] {
        bench
            .est
            .add_fault(Fault::always(Action::Respond(trouble())).on_route(route))
            .unwrap();
    }
    bench.certd.log().wait_for_all(&[
        "Tried to renew est-id, but ",
        "failed to issue new EST identity cert",
        "Retrying at ",
    ]);
    assert_eq!(
        bench.stored("est-id").unwrap()[0].to_der().unwrap(),
        old[0].to_der().unwrap()
    );
    assert_eq!(bench.public_key("est-id"), key);
    bench.est.clear_faults();
    renewed(&bench, 1);
    assert!(bench.belong(&bench.stored("est-id").unwrap()[0], "est-id"));
}

#[test]
fn cs_49_an_expired_identity_is_renewed_with_the_bootstrap_identity_also_after_a_restart() {
    let plan = plan(true, 4);
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    let stopped = bench.stop();
    let expired = std::fs::read_to_string(stopped.file("est-id")).unwrap();
    let leaf = X509::stack_from_pem(expired.as_bytes()).unwrap().remove(0);
    let now = || openssl::asn1::Asn1Time::days_from_now(0).unwrap();
    eventually("the identity expires", || leaf.not_after() < now());
    let mut long = stopped.est.world().est.realms[WELL_KNOWN].clone();
    long.lifetime = 3600;
    long.client = Rule::Bootstrap;
    stopped.est.set_realm(WELL_KNOWN, long);
    let before = stopped.est.issued().len();
    let bench = stopped.start(&plan);
    assert!(bench.est.wait_for_issued(before + 1, PATIENCE));
    let renewal = &bench.est.issued()[before];
    let presented = X509::from_der(&renewal.client[0]).unwrap();
    assert_eq!(common_name(&presented), "bootstrap");
    eventually("the new identity is in place", || {
        let now = bench.stored("est-id").unwrap();
        now[0].to_der().unwrap() == renewal.certificate && bench.belong(&now[0], "est-id")
    });
}

#[test]
fn cs_49_a_start_does_not_depend_on_the_server() {
    let plan = plan(true, 3);
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    let stopped = bench.stop();
    std::thread::sleep(Duration::from_secs(4));
    stopped
        .est
        .add_fault(Fault::always(Action::HangConnection))
        .unwrap();
    let bench = stopped.start(&plan);
    assert!(
        bench.stored("dev").is_some(),
        "served at once, expired or not"
    );
    bench.est.clear_faults();
}

#[test]
fn cs_50_a_key_that_cannot_be_moved_leaves_the_old_pair_and_another_attempt() {
    // Due from the beginning, and tried again after 10 s: time enough to look.
    let mut plan = plan(true, 40);
    plan.realm.backdate = 60;
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    let old = bench.stored("est-id").unwrap();
    let key = bench.public_key("est-id");
    let stopped = bench.stop();
    let socket = stopped.root.join("run/aziot/gate.sock");
    let moves = "POST /keypair/est-id?";
    let _gate = Gate::refusing(&socket, stopped.keyd.socket(), moves, 1).unwrap();
    stopped.root.write(
        "etc/aziot/certd/config.d/gate.toml",
        format!(
            "[endpoints]\naziot_keyd = \"unix://{}\"\n",
            socket.display()
        ),
    );
    let bench = stopped.start(&plan);
    bench.certd.log().wait_for("Tried to renew est-id, but ");
    let kept = bench.stored("est-id").unwrap();
    assert_eq!(kept[0].to_der().unwrap(), old[0].to_der().unwrap());
    assert_eq!(bench.public_key("est-id"), key);
    // It stays scheduled.
    renewed(&bench, 1);
    assert_ne!(bench.public_key("est-id"), key);
    assert!(bench.belong(&bench.stored("est-id").unwrap()[0], "est-id"));
}

#[test]
fn cs_44_a_certificate_that_somebody_replaced_is_left_alone() {
    let bench = Bench::new(&plan(true, 12));
    bench.created("dev", &request("dev"));
    let other = String::from_utf8(crate::device::authority_file(&bench.root, "ca.pem")).unwrap();
    bench
        .certd
        .log()
        .wait_for("Certificate est-id will be auto-renewed.");
    // Behind the service's back.
    std::fs::write(
        crate::device::certificate_file(&bench.root, "est-id"),
        &other,
    )
    .unwrap();
    bench.certd.log().wait_for_all(&[
        "Tried to renew est-id, but certificate has changed since last renewal",
        "est-id will no longer be auto-renewed.",
    ]);
    assert_eq!(
        bench.stored("est-id").unwrap()[0].to_der().unwrap(),
        X509::from_pem(other.as_bytes()).unwrap().to_der().unwrap()
    );
    assert_eq!(renewals(&bench), 0);
}

#[test]
fn a_reload_keeps_renewals() {
    let mut plan = plan(true, 14);
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    plan.tables
        .push_str("[cert_issuance.more]\nmethod = \"est\"\n");
    bench.reconfigure(&plan);
    bench.created("more", &request("more"));
    renewed(&bench, 1);
    assert!(bench.belong(&bench.stored("est-id").unwrap()[0], "est-id"));
}

#[test]
fn the_status_tells_when_and_why() {
    let bench = Bench::new(&plan(true, 20));
    bench.created("dev", &request("dev"));
    eventually("it is scheduled", || {
        bench.status_of("est-id")["renewal"] == "scheduled"
    });
    assert!(
        bench.status_of("est-id")["nextRenewal"].is_string(),
        "{}",
        bench.status_of("est-id")
    );
    let trouble = CannedResponse::html(500, "trouble");
    bench
        .est
        .add_fault(Fault::always(Action::Respond(trouble)))
        .unwrap();
    eventually("it is tried again", || {
        bench.status_of("est-id")["renewal"] == "retrying"
    });
    let status = bench.status_of("est-id");
    assert!(
        status["lastError"].as_str().unwrap().contains("500"),
        "{status}"
    );
    bench.est.clear_faults();
    eventually("it is renewed", || {
        bench.status_of("est-id")["renewal"] == "scheduled"
    });
}
