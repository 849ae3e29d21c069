//! `docs/api/certs.json` held against a real Certificates Service: what it describes is what happens, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::BTreeSet;

use aziot_core::api::certs;
use aziot_core::limits;
use aziot_tests::certd::{Services, authority, configure};
use aziot_tests::client::{Client, Response, eventually, request};
use aziot_tests::fixture;
use aziot_tests::openapi::{Coverage, Document, Operation};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::{Value, json};

/// The version that clients of release 1.6.0 ask for.
const VERSION: &str = "2020-09-01";

/// Connections enough for a test that holds many bodies back.
const CONFIG: &str = "max_requests = 64\n[cert_issuance.local_ca]\ncert = \"local-ca\"\npk = \"kp\"\n\
                      [cert_issuance.my-server]\nmethod = \"local_ca\"\n";

fn document() -> Document {
    Document::load("certs")
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

/// Sends a request as raw bytes; the answer must be as documented.
fn exchange(
    coverage: &mut Coverage,
    services: &Services,
    operation: &Operation,
    bytes: &[u8],
) -> Response {
    answer(coverage, &mut services.connect(), operation, bytes)
}

fn answer(
    coverage: &mut Coverage,
    client: &mut Client,
    operation: &Operation,
    bytes: &[u8],
) -> Response {
    client.send(bytes);
    let response = client.response();
    response.assert_framing();
    coverage.note(operation, &response);
    response
}

/// Sends a well-formed request for an operation.
fn send(
    coverage: &mut Coverage,
    services: &Services,
    operation: &Operation,
    target: &str,
    body: Option<&Value>,
) -> Response {
    let bytes = request(&operation.method, target, body);
    exchange(coverage, services, operation, &bytes)
}

/// A version that the operation has, the one of our clients if it can be.
fn version(operation: &Operation) -> &str {
    let versions = &operation.versions;
    let usual = versions.iter().find(|version| *version == VERSION);
    usual.unwrap_or(&versions[0])
}

/// The target of an operation with the example in the place of its parameter.
fn target(operation: &Operation) -> String {
    let parameter = operation.path_example.as_deref().unwrap_or_default();
    operation.target(parameter, version(operation))
}

/// A body that succeeds, if the operation takes one.
fn body(operation: &Operation) -> Option<&Value> {
    let media = operation.request.as_ref()?;
    let good = ["configured", "import"];
    let found = good.iter().find_map(|name| media.examples.get(*name));
    Some(found.unwrap())
}

/// Whether the operation judges a body, which `DELETE` does without needing one.
fn reads_a_body(operation: &Operation) -> bool {
    operation.responses.contains_key(&422)
}

#[test]
fn the_document_and_the_routes_agree() {
    let documented: BTreeSet<_> = document()
        .operations()
        .iter()
        .map(|operation| {
            (
                operation.method.clone(),
                operation.path.clone(),
                operation.versions.clone(),
            )
        })
        .collect();
    let routed: BTreeSet<_> = certs::API
        .routes
        .iter()
        .flat_map(|route| {
            let versions: Vec<String> = certs::API.versions[route.since..]
                .iter()
                .map(|version| (*version).to_owned())
                .collect();
            route.methods.iter().map(move |method| {
                (
                    method.name().to_owned(),
                    route.path.to_owned(),
                    versions.clone(),
                )
            })
        })
        .collect();
    assert_eq!(documented, routed);
}

/// An example of a request is sent as it stands. If an error has an example of the same name, it must come to that, otherwise
/// to a success, and to the example of that name unless a certificate is issued, which is never the same twice.
#[test]
fn cs_17_examples_are_what_happens() {
    let document = document();
    let mut coverage = Coverage::default();
    let mut compared = 0;
    let services = services();
    for operation in document.operations() {
        let Some(media) = &operation.request else {
            continue;
        };
        for (name, body) in &media.examples {
            let target = target(operation);
            let response = send(&mut coverage, &services, operation, &target, Some(body));
            let expected = operation.responses.iter().find_map(|(status, promise)| {
                Some((*status, promise.content.as_ref()?.examples.get(name)?))
            });
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
    let response = send(&mut coverage, &services, read, &target(read), None);
    assert_eq!(response.json(), imported.examples["import"]);
}

#[test]
fn every_status_of_every_operation() {
    let document = document();
    let mut coverage = Coverage::default();
    successes(&document, &mut coverage);
    dispatch_errors(&document, &mut coverage);
    heads_that_are_refused(&document, &mut coverage);
    stalled_bodies(&document, &mut coverage);
    no_store(&document, &mut coverage);
    too_much_at_once(&document, &mut coverage);
    let refused = strangers(&document, &mut coverage);
    let mut missing = coverage.missing(&document);
    if !refused {
        missing.retain(|promise| !promise.ends_with(" 401"));
    }
    assert_eq!(missing, Vec::<String>::new(), "documented, but not seen");
}

/// Every operation under every version that has it.
fn successes(document: &Document, coverage: &mut Coverage) {
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
            let response = send(coverage, &services, operation, &target, body(operation));
            assert_eq!(response.status, status, "{id} {version}: {response}");
        }
    }
}

/// 400, 404, 413, 415 and 422 from before any handler.
fn dispatch_errors(document: &Document, coverage: &mut Coverage) {
    let services = services();
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        let (bare, _) = path.split_once('?').unwrap();
        send(coverage, &services, operation, bare, None)
            .assert_message(400, "api-version not specified");
        let mut raw = |head: String| exchange(coverage, &services, operation, head.as_bytes());
        // No request at all, so there is no JSON.
        let response = raw(format!(
            "{method} {path} HTTP/1.1\r\ncontent-length: x\r\n\r\n"
        ));
        assert_eq!((response.status, response.text()), (400, ""));
        if reads_a_body(operation) {
            raw(format!(
                "{method} {path} HTTP/1.1\r\ncontent-length: 1\r\n\r\n{{"
            ))
            .assert_message(422, "EOF while parsing an object at line 1 column 1");
            let large = limits::BODY_CERTIFICATES + 1;
            raw(format!(
                "{method} {path} HTTP/1.1\r\ncontent-length: {large}\r\n\r\n"
            ))
            .assert_message(413, "request body is larger than 1048576 bytes");
        }
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
        if operation.path_example.is_some() {
            let path = operation.target("%ff", version(operation));
            send(coverage, &services, operation, &path, None).assert_message(404, "not found");
        }
        for other in certs::API.versions {
            if !operation.versions.iter().any(|version| version == other) {
                let path = operation.target("x", other);
                send(coverage, &services, operation, &path, None).assert_message(404, "not found");
            }
        }
    }
    let read = document.named("getCertificate");
    let absent = read.target("nobody", VERSION);
    send(coverage, &services, read, &absent, None).assert_message(
        400,
        "parameter \"id\" has an invalid value\ncaused by: not found",
    );
}

/// 414 and 431, which have no content.
fn heads_that_are_refused(document: &Document, coverage: &mut Coverage) {
    let services = services();
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        let padding = "x".repeat(limits::TARGET + 2 - path.len());
        let fields = "a: b\r\n".repeat(limits::HEADER_FIELDS + 1);
        for (expected, head) in [
            (414, format!("{method} {path}&{padding} HTTP/1.1\r\n\r\n")),
            (431, format!("{method} {path} HTTP/1.1\r\n{fields}\r\n")),
        ] {
            let response = exchange(coverage, &services, operation, head.as_bytes());
            assert_eq!(
                (response.status, response.text()),
                (expected, ""),
                "{}",
                operation.id
            );
        }
    }
}

/// 408.
fn stalled_bodies(document: &Document, coverage: &mut Coverage) {
    let services = Services::launch(root(), |launch| launch.time_scale(0.02));
    for operation in document.operations() {
        if reads_a_body(operation) {
            let (method, path) = (&operation.method, target(operation));
            let head = format!("{method} {path} HTTP/1.1\r\ncontent-length: 9\r\n\r\n{{");
            exchange(coverage, &services, operation, head.as_bytes())
                .assert_message(408, "deadline has elapsed");
        }
    }
}

/// 500: there is a file where the directory of the store belongs.
fn no_store(document: &Document, coverage: &mut Coverage) {
    let root = root();
    root.write("var/lib/aziot/certd/certs", "in the way");
    let services = Services::on(root);
    for operation in document.operations() {
        let target = target(operation);
        send(coverage, &services, operation, &target, body(operation))
            .assert_message(500, "internal error");
    }
}

/// 503: as many bodies of the largest size and two large heads are under way as the process holds.
fn too_much_at_once(document: &Document, coverage: &mut Coverage) {
    // The deadlines do not come while requests are held back.
    let services = Services::launch(root(), |launch| launch.time_scale(20.0));
    let mut held = Vec::new();
    let import = target(document.named("importCertificate"));
    for _ in 0..limits::BODY_TOTAL / limits::BODY_CERTIFICATES {
        let mut client = services.connect();
        let length = limits::BODY_CERTIFICATES;
        client.send(format!(
            "PUT {import} HTTP/1.1\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        ));
        // The service is ready for the body, so it has made room for it or will with the first bytes.
        assert_eq!(client.try_response(true).unwrap().status, 100);
        client.send(vec![b' '; length - 1]);
        held.push(client);
    }
    // Buffers for heads grow fourfold; these take all but less than the next one would need.
    for length in [limits::HEAD - 100, 60_000] {
        let mut client = services.connect();
        let filler = "x".repeat(length);
        client.send(format!("PUT {import} HTTP/1.1\r\na: {filler}"));
        held.push(client);
    }
    // Nothing tells when the service has read all of that but the answers that change then.
    let filler = "x".repeat(8 * 1024);
    let read = target(document.named("getCertificate"));
    eventually("the room for large requests is used up", || {
        let load = format!("GET {read} HTTP/1.1\r\na: {filler}\r\n\r\n");
        services.connect().exchange(load).status == 503
    });
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        // A body that does not fit the smallest buffer, or a head that does not.
        let bytes = if reads_a_body(operation) {
            format!("{method} {path} HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n{filler}")
        } else {
            format!("{method} {path} HTTP/1.1\r\na: {filler}\r\n\r\n")
        };
        let response = exchange(coverage, &services, operation, bytes.as_bytes());
        assert_eq!(response.status, 503, "{}: {response}", operation.id);
    }
    drop(held);
}

/// 401, which needs a user other than root that no principal names. Whether there could be one.
fn strangers(document: &Document, coverage: &mut Coverage) -> bool {
    if !users::can_change("refusing users") {
        return false;
    }
    let services = services();
    for operation in document.operations() {
        let request = request(&operation.method, &target(operation), body(operation));
        let response = answer(
            coverage,
            &mut services.connect_as(1000),
            operation,
            &request,
        );
        // Reading is for everybody.
        let refused = operation.responses.contains_key(&401);
        assert_eq!(response.status == 401, refused, "{response}");
    }
    true
}

/// Whatever is not documented does not answer: it is 404, or the method is not allowed.
#[test]
fn cs_18_nothing_else_answers() {
    let document = document();
    let services = services();
    let mut paths: BTreeSet<String> = ["/", "/key/x", "/version", "/certificates/", "/status/x"]
        .map(str::to_owned)
        .into();
    for operation in document.operations() {
        let path = target(operation);
        let (path, _) = path.split_once('?').unwrap();
        let cut = &path[..path.len() - 1];
        paths.extend([
            path.to_owned(),
            cut.to_owned(),
            format!("{path}/"),
            format!("{path}/x/y"),
            format!("{path}x"),
            format!("/{path}"),
            path.to_ascii_uppercase(),
        ]);
    }
    let mut refused = 0;
    for path in &paths {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "get"] {
            if document.operation(method, path).is_some() {
                continue;
            }
            for version in certs::API.versions {
                let target = format!("{path}?api-version={version}");
                let body = (method != "GET").then(|| json!({}));
                let bytes = request(method, &target, body.as_ref());
                let response = services.connect().exchange(bytes);
                response.assert_framing();
                let message = response.member("message");
                let expected = [(404, "not found"), (400, "method not allowed")];
                assert!(
                    expected.contains(&(response.status, message.as_str())),
                    "{method} {target}: {response}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 200, "{refused}");
}
