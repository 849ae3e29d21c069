//! `docs/api/certs.json` held against a real Certificates Service: what it describes is what happens, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use aziot_core::api::certs;
use aziot_core::limits;
use aziot_tests::certd::{Services, authority, configure};
use aziot_tests::fixture;
use aziot_tests::openapi::probe::{Probe, routes};
use aziot_tests::openapi::{Document, Operation};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::Value;

/// The version that clients of release 1.6.0 ask for.
const VERSION: &str = "2020-09-01";

/// Connections enough for a test that holds many bodies back.
const CONFIG: &str = "max_requests = 64\n[cert_issuance.local_ca]\ncert = \"local-ca\"\npk = \"kp\"\n\
                      [cert_issuance.my-server]\nmethod = \"local_ca\"\n";

fn document() -> Document {
    Document::load("certs")
}

fn probe(document: &Document) -> Probe<'_> {
    Probe::new(document, &certs::API, VERSION)
}

/// A device with the key pair of the conformance vectors, whose handle is in the examples, as local CA.
fn root() -> Root {
    let root = Root::new();
    fixture::install(&root);
    configure(&root, CONFIG);
    root
}

/// Both services, and the certificate of the local CA stored.
fn services() -> Services {
    let services = Services::on(root());
    let pem = authority("local-ca", &fixture::pair(), 60)
        .to_pem()
        .unwrap();
    let put = services.put("local-ca", &String::from_utf8(pem).unwrap());
    assert_eq!(put.status, 201, "{put}");
    services
}

/// A body that succeeds, if the operation takes one.
fn body(operation: &Operation) -> Option<&Value> {
    let media = operation.request.as_ref()?;
    let good = ["configured", "import"];
    let found = good.iter().find_map(|name| media.examples.get(*name));
    Some(found.unwrap())
}

#[test]
fn the_document_and_the_routes_agree() {
    assert_eq!(document().routes(), routes(&certs::API));
}

/// An example of a request is sent as it stands. If an error has an example of the same name, it must come to that, otherwise
/// to a success, and to the example of that name unless a certificate is issued, which is never the same twice.
#[test]
fn cs_17_examples_are_what_happens() {
    let document = document();
    let mut probe = probe(&document);
    let mut compared = 0;
    let services = services();
    for operation in document.operations() {
        let Some(media) = &operation.request else {
            continue;
        };
        for (name, body) in &media.examples {
            let target = probe.target(operation);
            let response = probe.send(&services.certd, operation, &target, Some(body));
            let expected = operation.example(name);
            let Some((status, example)) = expected else {
                assert_eq!(response.status, 201, "{name}: {response}");
                continue;
            };
            assert_eq!(
                response.status, status,
                "{} {name}: {response}",
                operation.id
            );
            if name != "configured" {
                assert_eq!(&response.json(), example, "{} {name}", operation.id);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 5, "as many as there were when this was written");
    // What was imported is read again.
    let read = document.named("getCertificate");
    let imported = read.responses[&200].content.as_ref().unwrap();
    let target = probe.target(read);
    let response = probe.send(&services.certd, read, &target, None);
    assert_eq!(response.json(), imported.examples["import"]);
}

#[test]
fn every_status_of_every_operation() {
    let document = document();
    let mut probe = probe(&document);
    successes(&document, &mut probe);
    dispatch_errors(&document, &mut probe);
    probe.refused_heads(&services().certd);
    let hasty = Services::launch(root(), |launch| launch.time_scale(0.02));
    probe.stalled_bodies(&hasty.certd);
    no_store(&document, &mut probe);
    too_much_at_once(&mut probe);
    // Needs a user other than root that no principal names.
    let refused = users::can_change("refusing users");
    if refused {
        probe.strangers(&services().certd, body);
    }
    let mut missing = probe.missing();
    if !refused {
        missing.retain(|promise| !promise.ends_with(" 401"));
    }
    assert_eq!(missing, Vec::<String>::new(), "documented, but not seen");
}

/// Every operation under every version that has it.
fn successes(document: &Document, probe: &mut Probe<'_>) {
    let services = services();
    for (id, status) in [
        ("createCertificate", 201),
        ("importCertificate", 201),
        ("getCertificate", 200),
        ("deleteCertificate", 204),
        ("deleteCertificate", 204),
        ("status", 200),
    ] {
        let operation = document.named(id);
        let parameter = operation.path_example.as_deref().unwrap_or_default();
        for version in &operation.versions {
            let target = operation.target(parameter, version);
            let response = probe.send(&services.certd, operation, &target, body(operation));
            assert_eq!(response.status, status, "{id} {version}: {response}");
        }
    }
}

/// 400, 404, 413, 415 and 422 from before any handler.
fn dispatch_errors(document: &Document, probe: &mut Probe<'_>) {
    let services = services();
    probe.bad_bodies(&services.certd, limits::BODY_CERTIFICATES);
    for operation in document.operations() {
        probe.not_dispatched(&services.certd, operation);
        let (method, path) = (&operation.method, probe.target(operation));
        let mut raw = |head: String| probe.exchange(&services.certd, operation, head.as_bytes());
        match method.as_str() {
            "POST" => raw(format!(
                "{method} {path} HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
            ))
            .assert_message(400, "missing request body"),
            "PUT" => raw(format!(
                "{method} {path} HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
            ))
            .assert_message(415, "request body must be application/json"),
            _ => {}
        }
    }
    let read = document.named("getCertificate");
    let absent = read.target("nobody", VERSION);
    let response = probe.send(&services.certd, read, &absent, None);
    response.assert_message(
        400,
        "parameter \"id\" has an invalid value\ncaused by: not found",
    );
}

/// 500: there is a file where the directory of the store belongs.
fn no_store(document: &Document, probe: &mut Probe<'_>) {
    let root = root();
    root.write("var/lib/aziot/certd/certs", "in the way");
    let services = Services::on(root);
    for operation in document.operations() {
        let target = probe.target(operation);
        probe
            .send(&services.certd, operation, &target, body(operation))
            .assert_message(500, "internal error");
    }
}

/// 503.
fn too_much_at_once(probe: &mut Probe<'_>) {
    // The deadlines do not come while requests are held back.
    let services = Services::launch(root(), |launch| launch.time_scale(20.0));
    let limit = limits::BODY_CERTIFICATES;
    probe.too_much_at_once(
        &services.certd,
        "importCertificate",
        limit,
        "getCertificate",
    );
}

/// Whatever is not documented does not answer: it is 404, or the method is not allowed.
#[test]
fn cs_18_nothing_else_answers() {
    let document = document();
    let services = services();
    let others = ["/", "/key/x", "/version", "/certificates/", "/status/x"];
    let refused = probe(&document).nothing_else(&services.certd, &others, |_, _, _| false);
    assert!(refused > 200, "{refused}");
}
