//! The requests by which any service is held against its document.

use std::collections::BTreeSet;

use aziot_core::api::Api;
use aziot_core::limits;
use serde_json::{Value, json};

use super::{Coverage, Document, Operation};
use crate::client::{Client, Response, eventually, request};
use crate::daemon::Daemon;

/// Methods and paths with the api-versions that have them, oldest first.
pub type Routes = BTreeSet<(String, String, Vec<String>)>;

/// The routes of a service.
///
/// # Panics
/// When a route begins with a version that there is not.
#[must_use]
pub fn routes<R: 'static>(api: &Api<R>) -> Routes {
    let all = api.routes.iter().flat_map(|route| {
        let versions: Vec<String> = api.versions[route.since..]
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
    });
    all.collect()
}

/// Sends requests of the operations of a document, and notes the answers, which must be as documented.
#[derive(Debug)]
pub struct Probe<'d> {
    document: &'d Document,
    /// The api-versions of the service.
    versions: &'static [&'static str],
    /// The one of them that clients of release 1.6.0 ask for.
    usual: &'static str,
    coverage: Coverage,
}

impl<'d> Probe<'d> {
    /// Nothing has been asked yet. `usual` is the api-version that clients of release 1.6.0 ask for.
    #[must_use]
    pub fn new<R: 'static>(document: &'d Document, api: &Api<R>, usual: &'static str) -> Self {
        Self {
            document,
            versions: api.versions,
            usual,
            coverage: Coverage::default(),
        }
    }

    /// See [`Coverage::missing`].
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.coverage.missing(self.document)
    }

    /// A version that the operation has, the one of our clients if it can be.
    ///
    /// # Panics
    /// When it has none, which no sound document says.
    #[must_use]
    pub fn version<'o>(&self, operation: &'o Operation) -> &'o str {
        let versions = &operation.versions;
        let usual = versions.iter().find(|version| *version == self.usual);
        usual.unwrap_or(&versions[0])
    }

    /// The target of an operation with the example in the place of its parameter.
    #[must_use]
    pub fn target(&self, operation: &Operation) -> String {
        let parameter = operation.path_example.as_deref().unwrap_or_default();
        operation.target(parameter, self.version(operation))
    }

    /// Sends a well-formed request for an operation.
    ///
    /// # Panics
    /// When the answer is not as documented.
    pub fn send(
        &mut self,
        daemon: &Daemon,
        operation: &Operation,
        target: &str,
        body: Option<&Value>,
    ) -> Response {
        self.exchange(daemon, operation, &request(&operation.method, target, body))
    }

    /// Sends a request as raw bytes.
    ///
    /// # Panics
    /// When the answer is not as documented.
    pub fn exchange(&mut self, daemon: &Daemon, operation: &Operation, bytes: &[u8]) -> Response {
        self.answer(&mut daemon.connect(), operation, bytes)
    }

    fn answer(&mut self, client: &mut Client, operation: &Operation, bytes: &[u8]) -> Response {
        client.send(bytes);
        let response = client.response();
        response.assert_framing();
        self.coverage.note(operation, &response);
        response
    }

    /// 400 and 404 for requests of which the service need not know the operation.
    ///
    /// # Panics
    /// When they are answered otherwise.
    pub fn not_dispatched(&mut self, daemon: &Daemon, operation: &Operation) {
        let (method, path) = (&operation.method, self.target(operation));
        let bare = path.split_once('?').map_or(&*path, |(bare, _)| bare);
        self.send(daemon, operation, bare, None)
            .assert_message(400, "api-version not specified");
        // No request at all, so there is no JSON.
        let head = format!("{method} {path} HTTP/1.1\r\ncontent-length: x\r\n\r\n");
        let response = self.exchange(daemon, operation, head.as_bytes());
        assert_eq!((response.status, response.text()), (400, ""));
        if operation.path_example.is_some() {
            let path = operation.target("%ff", self.version(operation));
            self.send(daemon, operation, &path, None)
                .assert_message(404, "not found");
        }
        for other in self.versions {
            if !operation.versions.iter().any(|version| version == other) {
                let path = operation.target("x", other);
                self.send(daemon, operation, &path, None)
                    .assert_message(404, "not found");
            }
        }
    }

    /// 413 and 422 from all operations that judge a body, for one that is larger than `limit` and one that breaks off.
    ///
    /// # Panics
    /// When they are answered otherwise.
    pub fn bad_bodies(&mut self, daemon: &Daemon, limit: usize) {
        for operation in self.judging() {
            let (method, path) = (&operation.method, self.target(operation));
            let broken = format!("{method} {path} HTTP/1.1\r\ncontent-length: 1\r\n\r\n{{");
            self.exchange(daemon, operation, broken.as_bytes())
                .assert_message(422, "EOF while parsing an object at line 1 column 1");
            let length = limit + 1;
            let large = format!("{method} {path} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n");
            self.exchange(daemon, operation, large.as_bytes())
                .assert_message(413, &format!("request body is larger than {limit} bytes"));
        }
    }

    /// 414 and 431 from all operations, which have no content.
    ///
    /// # Panics
    /// When they are answered otherwise.
    pub fn refused_heads(&mut self, daemon: &Daemon) {
        for operation in self.document.operations() {
            let (method, path) = (&operation.method, self.target(operation));
            let padding = "x".repeat(limits::TARGET + 2 - path.len());
            let fields = "a: b\r\n".repeat(limits::HEADER_FIELDS + 1);
            for (expected, head) in [
                (414, format!("{method} {path}&{padding} HTTP/1.1\r\n\r\n")),
                (431, format!("{method} {path} HTTP/1.1\r\n{fields}\r\n")),
            ] {
                let response = self.exchange(daemon, operation, head.as_bytes());
                let got = (response.status, response.text());
                assert_eq!(got, (expected, ""), "{}", operation.id);
            }
        }
    }

    /// 408 from all operations that judge a body.
    ///
    /// # Panics
    /// When they are answered otherwise.
    pub fn stalled_bodies(&mut self, daemon: &Daemon) {
        for operation in self.judging() {
            let (method, path) = (&operation.method, self.target(operation));
            let head = format!("{method} {path} HTTP/1.1\r\ncontent-length: 9\r\n\r\n{{");
            self.exchange(daemon, operation, head.as_bytes())
                .assert_message(408, "deadline has elapsed");
        }
    }

    /// 503 from all operations: as many bodies of the largest size (`limit`) and two large heads are under way as the process
    /// holds. `upload` takes a body, `read` is a `GET`. The deadlines of the service must not come meanwhile.
    ///
    /// # Panics
    /// When they are answered otherwise.
    pub fn too_much_at_once(&mut self, daemon: &Daemon, upload: &str, limit: usize, read: &str) {
        let upload = self.document.named(upload);
        let (method, target) = (&upload.method, self.target(upload));
        let mut held = Vec::new();
        for _ in 0..limits::BODY_TOTAL / limit {
            let mut client = daemon.connect();
            client.send(format!(
                "{method} {target} HTTP/1.1\r\ncontent-length: {limit}\r\nexpect: 100-continue\r\n\r\n"
            ));
            // The service is ready for the body, so it has made room for it or will with the first bytes.
            let interim = client.try_response(true).expect("an interim answer");
            assert_eq!(interim.status, 100);
            client.send(vec![b' '; limit - 1]);
            held.push(client);
        }
        // Buffers for heads grow fourfold; these take all but less than the next one would need.
        for length in [limits::HEAD - 100, 60_000] {
            let mut client = daemon.connect();
            let filler = "x".repeat(length);
            client.send(format!("{method} {target} HTTP/1.1\r\na: {filler}"));
            held.push(client);
        }
        // Nothing tells when the service has read all of that but the answers that change then.
        let filler = "x".repeat(8 * 1024);
        let read = self.target(self.document.named(read));
        eventually("the room for large requests is used up", || {
            let load = format!("GET {read} HTTP/1.1\r\na: {filler}\r\n\r\n");
            daemon.connect().exchange(load).status == 503
        });
        for operation in self.document.operations() {
            let (method, path) = (&operation.method, self.target(operation));
            // A body that does not fit the smallest buffer, or a head that does not.
            let bytes = if operation.judges_body() {
                format!("{method} {path} HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n{filler}")
            } else {
                format!("{method} {path} HTTP/1.1\r\na: {filler}\r\n\r\n")
            };
            let response = self.exchange(daemon, operation, bytes.as_bytes());
            assert_eq!(response.status, 503, "{}: {response}", operation.id);
        }
        drop(held);
    }

    /// 401 from all operations that can answer so, and from no other, for a user that no principal names. `body` makes a good
    /// body for an operation.
    ///
    /// # Panics
    /// When they are answered otherwise, or there cannot be such a user; ask [`crate::users::can_change`] first.
    pub fn strangers(&mut self, daemon: &Daemon, body: fn(&Operation) -> Option<&Value>) {
        for operation in self.document.operations() {
            let request = request(&operation.method, &self.target(operation), body(operation));
            let response = self.answer(&mut daemon.connect_as(1000), operation, &request);
            // Not everything is kept from them.
            let refused = operation.responses.contains_key(&401);
            assert_eq!(
                response.status == 401,
                refused,
                "{}: {response}",
                operation.id
            );
        }
    }

    /// Whatever is not documented does not answer: it is 404, or the method is not allowed. Tries paths near the documented
    /// ones, and `others`. Where it is otherwise, `exception` must agree. How many requests were refused.
    ///
    /// # Panics
    /// When something else answers.
    pub fn nothing_else(
        &self,
        daemon: &Daemon,
        others: &[&str],
        exception: impl Fn(&str, &str, &Response) -> bool,
    ) -> usize {
        let mut paths: BTreeSet<String> = others.iter().map(|path| (*path).to_owned()).collect();
        for operation in self.document.operations() {
            let target = self.target(operation);
            let path = target.split_once('?').map_or(&*target, |(path, _)| path);
            paths.extend([
                path.to_owned(),
                path[..path.len() - 1].to_owned(),
                format!("{path}/"),
                format!("{path}/x"),
                format!("{path}/x/y"),
                format!("{path}x"),
                format!("/{path}"),
                path.to_ascii_uppercase(),
            ]);
        }
        let mut refused = 0;
        for path in &paths {
            for method in ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "get"] {
                if self.document.operation(method, path).is_some() {
                    continue;
                }
                for version in self.versions {
                    let target = format!("{path}?api-version={version}");
                    let body = (method != "GET").then(|| json!({}));
                    let bytes = request(method, &target, body.as_ref());
                    let response = daemon.connect().exchange(bytes);
                    response.assert_framing();
                    let message = response.member("message");
                    let expected = [(404, "not found"), (400, "method not allowed")];
                    assert!(
                        expected.contains(&(response.status, message.as_str()))
                            || exception(method, path, &response),
                        "{method} {target}: {response}"
                    );
                    refused += 1;
                }
            }
        }
        refused
    }

    /// The operations that judge a body.
    fn judging(&self) -> impl Iterator<Item = &'d Operation> + use<'d> {
        let operations = self.document.operations().iter();
        operations.filter(|operation| operation.judges_body())
    }
}
