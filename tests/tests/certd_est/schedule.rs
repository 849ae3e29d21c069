//! When identities are renewed, as the service does it (the arithmetic is tested where it is).

use std::time::{Duration, Instant};

use aziot_tests::client::{self, PATIENCE, eventually};
use aziot_tests::simulator::est::{Client as Rule, Realm, WELL_KNOWN};
use aziot_tests::simulator::{Action, CannedResponse, Config, Fault, Simulator};
use openssl::x509::X509;
use serde_json::json;

use crate::device::{BOOTSTRAP, Bench, IDENTITY, Plan, Stopped, common_name, request};

/// Renewed after half of their life; tried again after a tenth of it.
const POLICY: &str = "[cert_issuance.est.identity_auto_renew]\nrotate_key = true\nthreshold = \"50%\"\nretry = \"10%\"\n";

/// Issues certificates that live this long from now on, in seconds, and have lived for `backdate` already.
fn realm(lifetime: i64, backdate: i64) -> Realm {
    Realm {
        client: Rule::Any,
        lifetime,
        backdate,
        ..Realm::default()
    }
}

fn plan(realm: Realm) -> Plan {
    Plan {
        est: format!("{IDENTITY}{BOOTSTRAP}{POLICY}"),
        realm,
        ..Plan::default()
    }
}

/// Lets every renewal fail, but no first enrolment.
fn no_renewals(bench: &Stopped) {
    let trouble = CannedResponse::html(500, "trouble");
    let fault = Fault::always(Action::Respond(trouble)).on_route("est-simplereenroll");
    bench.est.add_fault(fault).unwrap();
}

fn stored(bench: &Bench, id: &str) -> Vec<u8> {
    bench.stored(id).unwrap()[0].to_der().unwrap()
}

/// A device with an identity that is due for whoever renews at half of its life, and is valid for almost an hour still.
fn due() -> (Stopped, Vec<u8>) {
    let mut late = plan(realm(3000, 3500));
    late.est = format!("{IDENTITY}{BOOTSTRAP}");
    let bench = Bench::new(&late);
    bench.created("dev", &request("dev"));
    let old = stored(&bench, "est-id");
    let stopped = bench.stop();
    stopped.est.set_realm(WELL_KNOWN, realm(3600, 0));
    (stopped, old)
}

#[test]
fn cs_42_an_identity_that_is_due_is_renewed_when_it_is_found() {
    let (stopped, old) = due();
    let before = stopped.est.issued().len();
    let bench = stopped.start(&plan(realm(3600, 0)));
    assert!(bench.est.wait_for_issued(before + 1, PATIENCE));
    eventually("the new certificate is stored", || {
        stored(&bench, "est-id") == bench.est.issued()[before].certificate
    });
    assert_ne!(stored(&bench, "est-id"), old);
    let line = bench
        .certd
        .log()
        .wait_for("Certificate est-id was renewed. Next renewal at ");
    // Half an hour from now, written as everywhere (CS-47).
    assert!(line.trim_end().ends_with("+00:00."), "{line}");
}

#[test]
fn cs_42_an_identity_that_is_due_and_cannot_be_renewed_is_tried_again() {
    let (stopped, old) = due();
    no_renewals(&stopped);
    let bench = stopped.start(&plan(realm(3600, 0)));
    bench
        .certd
        .log()
        .wait_for_all(&["Tried to renew est-id, but ", "trouble"]);
    let status = bench.status_of("est-id");
    assert_eq!(status["renewal"], "retrying", "{status}");
    assert!(status["nextRenewal"].is_string(), "{status}");
    assert_eq!(stored(&bench, "est-id"), old);
}

/// What needs the identity gets it, as long as it is valid.
#[test]
fn cs_46_certificates_are_issued_while_renewals_fail() {
    let (stopped, old) = due();
    no_renewals(&stopped);
    let before = stopped.est.issued().len();
    let bench = stopped.start(&plan(realm(3600, 0)));
    bench.certd.log().wait_for("Tried to renew est-id, but ");
    let scheduled = bench.status_of("est-id")["nextRenewal"].clone();
    bench.created("dev", &request("another"));
    let issued = bench.est.issued();
    assert_eq!(issued.len(), before + 1, "nothing but what was asked for");
    assert_eq!(issued[before].client[0], old);
    // That somebody has used it changes nothing about its schedule.
    assert_eq!(bench.status_of("est-id")["nextRenewal"], scheduled);
}

/// A device whose identity has expired.
fn expired() -> Stopped {
    let bench = Bench::new(&plan(realm(3, 0)));
    bench.created("dev", &request("dev"));
    let stopped = bench.stop();
    let text = std::fs::read_to_string(stopped.file("est-id")).unwrap();
    let leaf = X509::stack_from_pem(text.as_bytes()).unwrap().remove(0);
    let now = || openssl::asn1::Asn1Time::days_from_now(0).unwrap();
    eventually("the identity expires", || leaf.not_after() < now());
    stopped
}

/// What has expired and cannot be renewed for now is an error for whoever needs it, and is tried again.
#[test]
fn cs_46_an_expired_identity_serves_nobody_and_is_tried_again() {
    let stopped = expired();
    for route in ["est-simpleenroll", "est-simplereenroll"] {
        let trouble = CannedResponse::html(500, "trouble");
        let fault = Fault::always(Action::Respond(trouble)).on_route(route);
        stopped.est.add_fault(fault).unwrap();
    }
    let before = stopped.est.issued().len();
    let bench = stopped.start(&plan(realm(3600, 0)));
    let log = bench.certd.log();
    log.wait_for("Cert est-id is expired and could not be renewed.");
    let reason = "neither EST identity nor EST bootstrap identity could be obtained";
    bench.refused("dev", &request("dev"), reason);
    assert_eq!(bench.est.issued().len(), before);
    assert_eq!(bench.stored("dev").unwrap().len(), 3, "still there");
    // The server has recovered; nobody has to do anything.
    bench.est.clear_faults();
    bench.est.set_realm(WELL_KNOWN, realm(3600, 0));
    eventually("the identity is renewed", || {
        bench.status_of("est-id")["renewal"] == "scheduled"
    });
    bench.created("dev", &request("dev"));
}

/// Without a bootstrap identity there is nothing to try again with.
#[test]
fn cs_42_an_identity_that_cannot_be_renewed_any_more_is_let_go_of() {
    let stopped = expired();
    let mut plan = plan(realm(3600, 0));
    plan.est = format!("{IDENTITY}{POLICY}");
    let bench = stopped.start(&plan);
    let reason = "bootstrap credentials not available";
    bench.certd.log().wait_for(&format!(
        "Failed to initialize cert renewal for est-id: {reason}."
    ));
    let status = bench.status_of("est-id");
    assert_eq!(status["renewal"], "dropped", "{status}");
    assert_eq!(status["lastError"], reason, "{status}");
    let reason = "EST identity could not be obtained and EST bootstrap identity is not configured";
    bench.refused("dev", &request("dev"), reason);
}

#[test]
fn cs_43_all_that_is_due_is_renewed_and_the_rest_is_left() {
    let identity = |id: &str| {
        format!(
            "[cert_issuance.{id}]\nmethod = \"est\"\nidentity_cert = \"id-{id}\"\nidentity_pk = \"id-{id}\"\n{BOOTSTRAP}"
        )
    };
    let elsewhere = "url = \"{base}/long\"\n";
    let tables = [identity("a"), identity("b"), identity("c") + elsewhere].concat();
    let plan = Plan {
        est: POLICY.to_owned(),
        tables,
        realm: realm(12, 0),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.est.set_realm("long", realm(3600, 0));
    for id in ["a", "b", "c"] {
        bench.created(id, &request(id));
    }
    let left = stored(&bench, "id-c");
    let log = bench.certd.log();
    for id in ["id-a", "id-b"] {
        log.wait_for(&format!("Certificate {id} was renewed. Next renewal at "));
        let new = &bench.stored(id).unwrap()[0];
        assert!(bench.belong(new, id), "{id}");
        assert_eq!(format!("id-{}", common_name(new)), id);
    }
    assert_eq!(stored(&bench, "id-c"), left);
    assert_eq!(log.count("Attempting to renew certificate id-c."), 0);
    assert_eq!(bench.status_of("id-c")["renewal"], "scheduled");
}

/// The service was stopped between storing a certificate and moving its key, and comes back when that certificate is due
/// already: it goes on with the key where that is now.
#[test]
fn cs_48_an_interrupted_rotation_is_finished_and_the_next_one_begins_with_its_key() {
    let (stopped, old) = due();
    let path = format!("/keypair/est-id-temp?{}", aziot_tests::fixture::VERSION);
    let moved = client::post(stopped.keyd.socket(), &path, &json!({ "from": "est-id" }));
    assert_eq!(moved.status, 204, "{}", moved.text());
    let mut realm = realm(3600, 0);
    realm.client = Rule::Issued;
    stopped.est.set_realm(WELL_KNOWN, realm.clone());
    let before = stopped.est.issued().len();
    let bench = stopped.start(&plan(realm));
    let log = bench.certd.log();
    log.wait_for("Certificate est-id was renewed.");
    assert_eq!(log.count("Tried to renew est-id"), 0, "{}", log.text());
    let issued = bench.est.issued();
    assert_eq!(issued.len(), before + 1);
    assert_eq!(issued[before].client[0], old);
    let new = bench.stored("est-id").unwrap();
    assert!(bench.belong(&new[0], "est-id"));
    assert_eq!(bench.public_key("est-id-temp"), None);
}

/// Nobody waits longer for an identity than for a certificate. Here the identities are renewed at a server that does not
/// answer, one after the other, and who needs them asks another server.
#[test]
fn whoever_waits_for_an_identity_whose_renewal_waits_is_answered_in_time() {
    let silent = tempfile::tempdir().unwrap();
    let silent = Simulator::start(Config::new(silent.path())).unwrap();
    silent
        .add_fault(Fault::always(Action::HangConnection))
        .unwrap();
    let ids: Vec<String> = (0..6).map(|number| number.to_string()).collect();
    // Of those that have an identity the last one decides where it is renewed.
    let tables = |url: &str| -> String {
        let table = |id: &String| {
            let own = format!(
                "method = \"est\"\nidentity_cert = \"id-{id}\"\nidentity_pk = \"id-{id}\"\n{BOOTSTRAP}"
            );
            format!("[cert_issuance.a{id}]\n{own}[cert_issuance.b{id}]\n{own}{url}")
        };
        ids.iter().map(table).collect()
    };
    let mut plan = Plan {
        est: POLICY.to_owned(),
        tables: tables(""),
        realm: realm(3, 0),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    for id in &ids {
        bench.created(&format!("a{id}"), &request(id));
    }
    let stopped = bench.stop();
    // All of them expire.
    std::thread::sleep(Duration::from_secs(4));
    plan.tables = tables(&format!("url = \"{}\"\n", silent.est_url(WELL_KNOWN)));
    let bench = stopped.start(&plan);
    let log = bench.certd.log();
    log.wait_for_more("Attempting to renew certificate id-", ids.len() - 1);
    // Two renewals at a time, 6 s each (60 s, scaled): the last one is through after 18 s.
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for id in &ids {
            let bench = &bench;
            scope.spawn(move || bench.create(&format!("a{id}"), &request(id)));
        }
    });
    let elapsed = begin.elapsed();
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
}
