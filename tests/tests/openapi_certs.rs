//! `docs/api/certs.json` held against a real Certificates Service: what it describes is what happens, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::BTreeSet;
use std::fs;

use aziot_core::api::certs;
use aziot_core::limits;
use aziot_tests::certd::{Services, root};
use aziot_tests::client::{Client, Response, eventually, request};
use aziot_tests::openapi::{Coverage, Document, Operation};
use aziot_tests::root::Root;
use aziot_tests::users;
use serde_json::{Value, json};

/// The version that clients of release 1.6.0 ask for.
const VERSION: &str = "2020-09-01";

fn document() -> Document {
    Document::load("certs")
}

/// A root where `device-id` is issued by a local CA, and with enough connections.
fn configured() -> Root {
    root(
        "max_requests = 100\n[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n\
         [cert_issuance.device-id]\nmethod = \"local_ca\"\n[preloaded_certs]\nlist = [\"ca\"]\nhttp = \"http://x/\"\n",
    )
}

/// The services with that CA.
fn services() -> Services {
    let services = Services::on(configured());
    let _ = services.authority("ca", "ec-p256", 30);
    services
}

fn answer(
    coverage: &mut Coverage,
    client: &mut Client,
    operation: &Operation,
    bytes: impl AsRef<[u8]>,
) -> Response {
    client.send(bytes);
    let response = client.response();
    response.assert_framing();
    coverage.note(operation, &response);
    response
}

/// Sends a request as raw bytes; the answer must be as documented.
fn exchange(
    coverage: &mut Coverage,
    services: &Services,
    operation: &Operation,
    bytes: impl AsRef<[u8]>,
) -> Response {
    answer(coverage, &mut services.connect(), operation, bytes)
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
    exchange(coverage, services, operation, bytes)
}

/// A version that the operation has, the one of existing clients if it can be.
fn version(operation: &Operation) -> &str {
    let versions = &operation.versions;
    let usual = versions.iter().find(|version| *version == VERSION);
    usual.unwrap_or(&versions[0])
}

/// The target of an operation with something in the place of its parameter.
fn target(operation: &Operation) -> String {
    let parameter = operation.path_example.as_deref().unwrap_or_default();
    operation.target(parameter, version(operation))
}

/// The first example of a body, if the operation takes one.
fn example(operation: &Operation) -> Option<&Value> {
    operation.request.as_ref()?.examples.values().next()
}

/// Whether a body is waited for.
fn reads_a_body(operation: &Operation) -> bool {
    operation.method != "GET"
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

/// An example of a request is sent as it stands. If an answer has an example of the same name, it must come to that,
/// otherwise to a success.
#[test]
fn examples_are_what_happens() {
    let document = document();
    let mut coverage = Coverage::default();
    let services = services();
    let mut compared = 0;
    for operation in document.operations() {
        let Some(media) = &operation.request else {
            continue;
        };
        for (name, body) in &media.examples {
            let response = send(
                &mut coverage,
                &services,
                operation,
                &target(operation),
                Some(body),
            );
            let expected = operation.responses.iter().find_map(|(status, promise)| {
                Some((*status, promise.content.as_ref()?.examples.get(name)?))
            });
            match expected {
                None => assert_eq!(response.status, 201, "{name}: {response}"),
                Some((status, example)) => {
                    assert_eq!(response.status, status, "{name}: {response}");
                    assert_eq!(&response.json(), example, "{name}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 3, "{compared} examples were compared");
}

#[test]
fn every_status_of_every_operation() {
    let document = document();
    let mut coverage = Coverage::default();
    successes(&document, &mut coverage);
    dispatch_errors(&document, &mut coverage);
    heads_that_are_refused(&document, &mut coverage);
    stalled_bodies(&document, &mut coverage);
    what_goes_wrong(&document, &mut coverage);
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
    for (id, parameter, status) in [
        ("createCertificate", "", 201),
        ("readCertificate", "device-id", 200),
        ("readCertificate", "list", 200),
        ("importCertificate", "x", 201),
        ("status", "", 200),
        ("deleteCertificate", "x", 204),
    ] {
        let operation = document.named(id);
        for version in &operation.versions {
            let target = operation.target(parameter, version);
            let response = send(coverage, &services, operation, &target, example(operation));
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
        // No request at all, so there is no JSON.
        let nonsense = format!("{method} {path} HTTP/1.1\r\ncontent-length: x\r\n\r\n");
        let response = exchange(coverage, &services, operation, nonsense);
        assert_eq!((response.status, response.text()), (400, ""));
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
        if !reads_a_body(operation) {
            continue;
        }
        let broken = format!("{method} {path} HTTP/1.1\r\ncontent-length: 1\r\n\r\n{{");
        let response = exchange(coverage, &services, operation, broken);
        assert_eq!(response.status, 422, "{response}");
        let large = limits::BODY_CERTIFICATES + 1;
        let large = format!("{method} {path} HTTP/1.1\r\ncontent-length: {large}\r\n\r\n");
        exchange(coverage, &services, operation, large)
            .assert_message(413, "request body is larger than 1048576 bytes");
        let text = format!(
            "{method} {path} HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let response = exchange(coverage, &services, operation, text);
        let expected = match method.as_str() {
            "POST" => 400,
            "PUT" => 415,
            _ => 204,
        };
        assert_eq!(response.status, expected, "{response}");
    }
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
            let response = exchange(coverage, &services, operation, head);
            let told = (response.status, response.text());
            assert_eq!(told, (expected, ""), "{}", operation.id);
        }
    }
}

/// 408.
fn stalled_bodies(document: &Document, coverage: &mut Coverage) {
    let services = Services::launch(configured(), |launch| launch.time_scale(0.02));
    for operation in document.operations() {
        if reads_a_body(operation) {
            let (method, path) = (&operation.method, target(operation));
            let head = format!("{method} {path} HTTP/1.1\r\ncontent-length: 9\r\n\r\n{{");
            exchange(coverage, &services, operation, head)
                .assert_message(408, "deadline has elapsed");
        }
    }
}

/// 500: there is no way to issue, a location that is none, and a store that is not a directory; and 400 from a handler.
fn what_goes_wrong(document: &Document, coverage: &mut Coverage) {
    let root = configured();
    root.write("var/lib/aziot/certd/certs", "in the way");
    let services = Services::on(root);
    for operation in document.operations() {
        let target = operation.target("http", version(operation));
        send(coverage, &services, operation, &target, example(operation))
            .assert_message(500, "internal error");
    }
    fs::remove_file(services.root.join("var/lib/aziot/certd/certs")).unwrap();
    let read = document.named("readCertificate");
    send(coverage, &services, read, &target(read), None).assert_message(
        400,
        "parameter \"id\" has an invalid value\ncaused by: not found",
    );
    let create = document.named("createCertificate");
    let body = json!({ "certId": "x", "csr": "" });
    let refused = send(coverage, &services, create, &target(create), Some(&body));
    assert_eq!(refused.status, 400, "{refused}");
}

/// 503: bodies of the largest size and large heads under way are as much as the process holds.
fn too_much_at_once(document: &Document, coverage: &mut Coverage) {
    let services = Services::launch(configured(), |launch| launch.time_scale(20.0));
    let mut held = Vec::new();
    let import = target(document.named("importCertificate"));
    let length = limits::BODY_CERTIFICATES;
    // One less than fits: a connection takes the body and its head.
    for _ in 0..limits::BODY_TOTAL / length {
        let mut client = services.connect();
        client.send(format!(
            "PUT {import} HTTP/1.1\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        ));
        if client.try_response(true).unwrap().status != 100 {
            break;
        }
        client.send(vec![b' '; length - 1]);
        held.push(client);
    }
    assert!(held.len() >= 8, "{}", held.len());
    // Then heads, until there is no room for another one either.
    let filler = "x".repeat(8 * 1024);
    let read = target(document.named("readCertificate"));
    eventually("the room for large requests is used up", || {
        let load = format!("GET {read} HTTP/1.1\r\na: {filler}\r\n\r\n");
        if services.connect().exchange(load).status == 503 {
            return true;
        }
        for length in [limits::HEAD - 100, 60_000, 20_000] {
            if held.len() < 80 {
                let mut client = services.connect();
                client.send(format!("GET {read} HTTP/1.1\r\na: {}", "x".repeat(length)));
                held.push(client);
            }
        }
        false
    });
    for operation in document.operations() {
        let (method, path) = (&operation.method, target(operation));
        // A head that does not fit the smallest buffer, or a body that does not.
        let bytes = if reads_a_body(operation) {
            format!("{method} {path} HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n{filler}")
        } else {
            format!("{method} {path} HTTP/1.1\r\na: {filler}\r\n\r\n")
        };
        let response = exchange(coverage, &services, operation, bytes);
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
        if !operation.responses.contains_key(&401) {
            continue;
        }
        let bytes = request(&operation.method, &target(operation), example(operation));
        let response = answer(coverage, &mut services.connect_as(1000), operation, &bytes);
        response.assert_message(
            401,
            "user 1000 is not authorized to modify the cert device-id",
        );
    }
    true
}

/// Whatever is not documented does not answer: it is 404, or the method is not allowed.
#[test]
fn nothing_else_answers() {
    let document = document();
    let services = services();
    let mut paths: BTreeSet<String> = ["/", "/certs", "/key", "/certificates/", "/identities"]
        .map(str::to_owned)
        .into();
    for operation in document.operations() {
        let path = target(operation);
        let (path, _) = path.split_once('?').unwrap();
        paths.extend([
            path.to_owned(),
            format!("{path}/"),
            format!("{path}/x/y"),
            format!("{path}x/"),
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
                let response = services
                    .connect()
                    .exchange(request(method, &target, body.as_ref()));
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
