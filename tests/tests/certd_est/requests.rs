//! What the EST server is asked.

use aziot_tests::simulator::est::{Basic, Realm};
use serde_json::json;

use crate::device::{BOOTSTRAP, Bench, IDENTITY, Plan, names, request};

#[test]
fn cs_31_the_url_is_that_of_the_entry_then_that_of_the_id_then_the_default() {
    let plan = Plan {
        tables: "[cert_issuance.est.urls]\ndefault = \"{base}/d\"\nof-id = \"{base}/i/\"\nboth = \"{base}/i\"\n\
                 [cert_issuance.plain]\nmethod = \"est\"\n\
                 [cert_issuance.of-id]\nmethod = \"est\"\n\
                 [cert_issuance.both]\nmethod = \"est\"\nurl = \"{base}/own/realm/\"\n"
            .to_owned(),
        ..Plan::open()
    };
    let bench = Bench::new(&plan);
    for realm in ["d", "i", "own/realm"] {
        bench.est.set_realm(realm, Realm::default());
    }
    for (id, realm) in [("plain", "d"), ("of-id", "i"), ("both", "own/realm")] {
        let before = bench.est.last_request();
        bench.created(id, &request(id));
        let mut targets: Vec<String> = bench
            .est
            .log_since(before)
            .into_iter()
            .map(|entry| entry.request.target)
            .collect();
        targets.sort();
        assert_eq!(
            targets,
            [
                format!("/{realm}/cacerts"),
                format!("/{realm}/simpleenroll")
            ]
        );
    }
    bench.assert_no_violations();
}

#[test]
fn cs_31_an_entry_without_a_url_is_an_internal_error() {
    let plan = Plan {
        tables: "[cert_issuance.est.urls]\nother = \"{base}/d\"\n[cert_issuance.dev]\nmethod = \"est\"\n".to_owned(),
        ..Plan::open()
    };
    let bench = Bench::new(&plan);
    bench.refused(
        "dev",
        &request("dev"),
        "cert \"dev\" is configured to be issued by EST, but EST URL is not configured",
    );
    assert_eq!(bench.est.last_request(), 0);
}

#[test]
fn cs_32_requests_have_the_headers_and_the_body_of_the_protocol() {
    let bench = Bench::new(&Plan {
        realm: Realm {
            basic: Some(Basic {
                username: "user".into(),
                password: "pä:ss".into(),
            }),
            ..Realm::default()
        },
        ..Plan::open()
    });
    bench.created("dev", &request("dev"));
    // The server refuses what deviates in the order of headers, the media type, or the lines of the body.
    bench.assert_no_violations();
    let asked = bench.asked();
    assert_eq!(bench.routes(0), ["est-cacerts", "est-simpleenroll"]);
    for entry in &asked {
        assert_eq!(
            entry.request.header("authorization"),
            Some("Basic dXNlcjpww6Q6c3M=")
        );
    }
    // Not even the second time: there is a certificate now, but it is not renewed by whoever asks for one.
    let before = bench.est.last_request();
    bench.created("dev", &request("dev"));
    assert_eq!(bench.routes(before), ["est-cacerts", "est-simpleenroll"]);
}

#[test]
fn cs_33_the_callers_request_reaches_the_server_unchanged() {
    let plan = Plan {
        tables: "[cert_issuance.dev]\nmethod = \"est\"\ncommon_name = \"other\"\nexpiry_days = 3\n"
            .to_owned(),
        ..Plan::open()
    };
    let bench = Bench::new(&plan);
    let csr = request("dev");
    let chain = bench.created("dev", &csr);
    let issued = bench.est.issued();
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0].request, csr.to_der().unwrap());
    assert_eq!(names(&chain), ["dev", "est-int", "est-root"]);
}

#[test]
fn cs_39_basic_credentials_and_a_client_certificate_go_together() {
    let plan = Plan {
        est: format!("username = \"user\"\npassword = \"pä:ss\"\n{IDENTITY}{BOOTSTRAP}"),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.created("dev", &request("dev"));
    let issued = bench.est.issued();
    assert_eq!(issued.len(), 2, "the identity, and the certificate");
    for one in issued {
        assert_eq!(one.user.as_deref(), Some("user"));
        assert!(!one.client.is_empty());
    }
    bench.assert_no_violations();
}

#[test]
fn cs_39_an_identity_that_cannot_come_about_is_an_internal_error() {
    let plan = Plan {
        est: IDENTITY.to_owned(),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.refused(
        "dev",
        &request("dev"),
        "cert \"dev\" is configured to be issued by EST, but EST identity could not be obtained and EST bootstrap identity is not configured",
    );
    assert_eq!(bench.est.last_request(), 0);
}

#[test]
fn cs_05_without_any_credentials_nothing_is_sent() {
    let plan = Plan {
        est: "username = \"alone\"\n".to_owned(),
        ..Plan::default()
    };
    let bench = Bench::new(&plan);
    bench.refused(
        "dev",
        &request("dev"),
        "cert \"dev\" is configured to be issued by EST, but EST auth is not configured",
    );
    assert_eq!(bench.est.last_request(), 0);
}

#[test]
fn cs_23_an_issuer_in_the_request_keeps_est_out() {
    let bench = Bench::new(&Plan::open());
    bench.import(
        "ca",
        &String::from_utf8(crate::device::authority_file(&bench.root, "ca.pem")).unwrap(),
    );
    let body = json!({
        "certId": "dev",
        "csr": String::from_utf8(request("dev").to_pem().unwrap()).unwrap(),
        "issuer": { "certId": "ca", "privateKeyHandle": "no handle" },
    });
    let path = format!("/certificates?{}", crate::device::VERSION);
    let response = aziot_tests::client::post(bench.certd.socket(), &path, &body);
    response.assert_message(500, "internal error");
    assert_eq!(bench.est.last_request(), 0);
}
