//! EST identities: how one comes about, and what it is used for.

use std::process::Command;

use aziot_tests::simulator::est::{Client as Rule, Realm, WELL_KNOWN};
use aziot_tests::simulator::{Action, CannedResponse, Fault};
use openssl::nid::Nid;
use openssl::x509::{X509, X509Req};

use crate::device::{BOOTSTRAP, Bench, IDENTITY, Plan, common_name, names, public_key, request};

fn presented(der: &[Vec<u8>]) -> Vec<String> {
    der.iter()
        .map(|der| common_name(&X509::from_der(der).unwrap()))
        .collect()
}

#[test]
fn cs_37_the_identity_is_requested_with_the_bootstrap_identity_once() {
    let bench = Bench::new(&Plan::default());
    let chain = bench.created("dev", &request("dev"));
    assert_eq!(names(&chain), ["dev", "est-int", "est-root"]);
    let issued = bench.est.issued();
    assert_eq!(issued.len(), 2);
    // The identity: a fresh key, the subject of the request, and nothing but EKU clientAuth.
    let csr = X509Req::from_der(&issued[0].request).unwrap();
    assert_eq!(
        csr.subject_name().to_der().unwrap(),
        chain[0].subject_name().to_der().unwrap()
    );
    assert_eq!(csr.version(), 0);
    let extensions = csr.extensions().unwrap();
    assert_eq!(extensions.len(), 1);
    let usage = X509::from_der(&issued[0].certificate).unwrap();
    let text = String::from_utf8(usage.to_text().unwrap()).unwrap();
    assert!(text.contains("TLS Web Client Authentication"), "{text}");
    assert_eq!(
        csr.public_key()
            .unwrap()
            .ec_key()
            .unwrap()
            .group()
            .curve_name(),
        Some(Nid::X9_62_PRIME256V1)
    );
    assert_eq!(presented(&issued[0].client), ["bootstrap"]);
    // It is stored with its chain, which is presented whole afterwards.
    let identity = bench.stored("est-id").unwrap();
    assert_eq!(names(&identity), ["dev", "est-int", "est-root"]);
    assert!(bench.belong(&identity[0], "est-id"));
    assert_eq!(bench.public_key("est-id-temp"), None);
    assert_eq!(presented(&issued[1].client), ["dev", "est-int", "est-root"]);
    // From now on the bootstrap identity is not used any more.
    bench.est.set_realm(
        WELL_KNOWN,
        Realm {
            client: Rule::Issued,
            ..Realm::default()
        },
    );
    bench.created("dev", &request("dev"));
    assert_eq!(bench.est.issued().len(), 3);
    bench
        .certd
        .log()
        .wait_for("Certificate est-id will be auto-renewed. Next renewal at ");
    bench.assert_no_violations();
}

/// The requests that the service makes itself, for a first identity and for a renewed one, as the server got them: OpenSSL
/// finds their signatures right.
#[test]
fn cs_37_openssl_verifies_the_requests_for_identities() {
    let policy = "[cert_issuance.est.identity_auto_renew]\nrotate_key = true\nthreshold = \"50%\"\nretry = \"10%\"\n";
    let plan = Plan {
        est: format!("{IDENTITY}{BOOTSTRAP}{policy}"),
        realm: Realm {
            client: Rule::Any,
            lifetime: 8,
            ..Realm::default()
        },
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    bench
        .certd
        .log()
        .wait_for("Certificate est-id was renewed.");
    let issued = bench.est.issued();
    let renewal = issued
        .iter()
        .find(|one| one.operation == "simplereenroll")
        .unwrap();
    for (name, one) in [("first", &issued[0]), ("renewal", renewal)] {
        let file = bench
            .root
            .write(format!("requests/{name}.der"), &one.request);
        let output = Command::new("openssl")
            .args(["req", "-inform", "DER", "-noout", "-verify", "-text", "-in"])
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{name}: {text}");
        assert!(text.contains("verify OK"), "{name}: {text}");
        // Versions of OpenSSL differ in the spaces.
        let text = text.replace(" = ", "=");
        for part in [
            "Version: 1 (0x0)",
            "Subject: CN=dev",
            "TLS Web Client Authentication",
            "Signature Algorithm: ecdsa-with-SHA256",
        ] {
            assert!(text.contains(part), "{name}: {part} is not in {text}");
        }
    }
    bench.assert_no_violations();
}

#[test]
fn cs_37_the_identity_has_the_subject_of_the_entry() {
    let plan = Plan {
        tables: "[cert_issuance.dev]\nmethod = \"est\"\n[cert_issuance.dev.subject]\nO = \"Site\"\nCN = \"gateway\"\n"
            .to_owned(),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    let chain = bench.created("dev", &request("dev"));
    assert_eq!(
        common_name(&chain[0]),
        "dev",
        "the request is sent as it is"
    );
    let identity = bench.stored("est-id").unwrap();
    assert_eq!(common_name(&identity[0]), "gateway");
}

#[test]
fn cs_38_deleting_the_identity_brings_the_bootstrap_identity_back_once() {
    let bench = Bench::new(&Plan::default());
    bench.created("dev", &request("dev"));
    let first = bench.stored("est-id").unwrap();
    bench.delete("est-id");
    bench.created("dev", &request("dev"));
    let issued = bench.est.issued();
    assert_eq!(issued.len(), 4);
    assert_eq!(presented(&issued[2].client), ["bootstrap"]);
    let second = bench.stored("est-id").unwrap();
    assert_ne!(first[0].to_der().unwrap(), second[0].to_der().unwrap());
    assert!(bench.belong(&second[0], "est-id"));
}

#[test]
fn an_imported_identity_is_used() {
    let plan = Plan {
        est: IDENTITY.to_owned(),
        ..Plan::default()
    };
    // Made by somebody else: with the key pair of the Keys Service, which the bench has as a file.
    let bench = Bench::new(&Plan::default());
    bench.created("dev", &request("dev"));
    let identity = bench.stored("est-id").unwrap();
    let pem: String = identity
        .iter()
        .map(|one| String::from_utf8(one.to_pem().unwrap()).unwrap())
        .collect();
    bench.delete("est-id");
    let bench = bench.stop().start(&plan);
    bench.import("est-id", &pem);
    let before = bench.est.issued().len();
    bench.created("dev", &request("dev"));
    let issued = bench.est.issued();
    assert_eq!(issued.len(), before + 1);
    assert_eq!(
        presented(&issued[before].client),
        ["dev", "est-int", "est-root"]
    );
}

#[test]
fn one_identity_is_made_however_many_ask_at_the_same_time() {
    let plan = Plan {
        tables: "[cert_issuance.a]\nmethod = \"est\"\n[cert_issuance.b]\nmethod = \"est\"\n[cert_issuance.c]\nmethod = \"est\"\n"
            .to_owned(),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench
        .est
        .add_fault(Fault::always(Action::Delay { ms: 100 }))
        .unwrap();
    std::thread::scope(|scope| {
        for id in ["a", "b", "c", "a", "b", "c"] {
            let bench = &bench;
            scope.spawn(move || bench.created(id, &request(id)));
        }
    });
    let issued = bench.est.issued();
    assert_eq!(issued.len(), 7, "one identity and six certificates");
    let by_bootstrap = issued
        .iter()
        .filter(|one| presented(&one.client) == ["bootstrap"])
        .count();
    assert_eq!(by_bootstrap, 1);
}

#[test]
fn a_transient_failure_costs_neither_key_nor_identity() {
    let bench = Bench::new(&Plan::default());
    bench.created("dev", &request("dev"));
    let (identity, key) = (bench.stored("est-id").unwrap(), bench.public_key("est-id"));
    let trouble = CannedResponse::html(500, "trouble");
    bench
        .est
        .add_fault(Fault::always(Action::Respond(trouble)))
        .unwrap();
    bench.refused("dev", &request("dev"), "the EST server answered 500");
    bench.est.clear_faults();
    // The Keys Service is gone for a while.
    let socket = bench.keyd.socket().to_owned();
    let hidden = socket.with_extension("hidden");
    std::fs::rename(&socket, &hidden).unwrap();
    bench
        .create("dev", &request("dev"))
        .assert_message(500, "internal error");
    std::fs::rename(&hidden, &socket).unwrap();
    assert_eq!(bench.public_key("est-id"), key);
    let kept = bench.stored("est-id").unwrap();
    assert_eq!(kept[0].to_der().unwrap(), identity[0].to_der().unwrap());
    bench.created("dev", &request("dev"));
    assert_eq!(bench.est.issued().len(), 3);
}

#[test]
fn a_bootstrap_that_fails_leaves_the_old_key_alone() {
    let bench = Bench::new(&Plan::default());
    bench.created("dev", &request("dev"));
    let key = bench.public_key("est-id");
    bench.delete("est-id");
    let trouble = CannedResponse::html(500, "trouble");
    bench
        .est
        .add_fault(Fault::always(Action::Respond(trouble)).on_route("est-simpleenroll"))
        .unwrap();
    bench.refused(
        "dev",
        &request("dev"),
        "cert \"dev\" is configured to be issued by EST, but neither EST identity nor EST bootstrap identity could be obtained",
    );
    assert_eq!(bench.public_key("est-id"), key, "the key that there was");
    assert!(bench.stored("est-id").is_none());
    bench.est.clear_faults();
    bench.created("dev", &request("dev"));
    let identity = bench.stored("est-id").unwrap();
    assert!(bench.belong(&identity[0], "est-id"));
    assert_eq!(public_key(&bench.keyd, "est-id-temp"), None);
}

#[test]
fn a_bootstrap_certificate_that_is_not_there_is_named() {
    let plan = Plan {
        est: format!(
            "{IDENTITY}{}",
            BOOTSTRAP.replace("cert = \"est-bootstrap-id\"", "cert = \"nowhere\"")
        ),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.refused(
        "dev",
        &request("dev"),
        "could not get EST bootstrap identity cert: entity not found",
    );
    assert_eq!(bench.public_key("est-id"), None);
}

/// Two certificates with one identity and different servers: that the first server cannot give the identity does not mean
/// that the second cannot.
#[test]
fn an_identity_that_one_server_refuses_is_asked_for_at_another() {
    let plan = Plan {
        tables: "[cert_issuance.dev]\nmethod = \"est\"\n[cert_issuance.refused]\nmethod = \"est\"\nurl = \"{base}/refuses\"\n"
            .to_owned(),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.est.set_realm(
        "refuses",
        Realm {
            client: Rule::Issued,
            ..Realm::default()
        },
    );
    bench
        .est
        .add_fault(Fault::always(Action::Delay { ms: 1000 }).on_path("/refuses/*"))
        .unwrap();
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| bench.create("refused", &request("refused")));
        bench
            .certd
            .log()
            .wait_for("The EST identity est-id has to be established");
        bench.created("dev", &request("dev"));
        refused
            .join()
            .unwrap()
            .assert_message(500, "internal error");
    });
}
