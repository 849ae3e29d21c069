//! The OpenAPI documents under `docs/api`, held against what the services really answer.
//!
//! [`Document::load`] refuses a document that is not sound: a reference into the void, an example that its schema does not
//! allow, a keyword that nothing checks. [`Document::operation`] finds the description of a request, [`Operation::check`]
//! compares an answer with it, [`Coverage`] tells which promises have not been seen kept, and a [`probe::Probe`] makes the requests
//! that any service has to be asked.

pub mod probe;
pub mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use crate::binaries;
use crate::client::Response;
use probe::Routes;
use schema::{Schema, Unnamed};

/// The methods of the services.
const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// A sound document.
#[derive(Debug)]
pub struct Document {
    operations: Vec<Operation>,
}

/// What is promised of one method on one path.
#[derive(Debug)]
pub struct Operation {
    /// `operationId`.
    pub id: String,
    /// In upper case.
    pub method: String,
    /// The path, with `{name}` for a parameter.
    pub path: String,
    /// The api-versions that have it, oldest first.
    pub versions: Vec<String>,
    /// What the path's parameter is in examples; `None` if it has none.
    pub path_example: Option<String>,
    /// The body, if it takes one.
    pub request: Option<Media>,
    /// By status.
    pub responses: BTreeMap<u16, Promise>,
}

/// A JSON body.
#[derive(Debug)]
pub struct Media {
    schema: Schema,
    /// By name. A request and an answer of the same name belong together.
    pub examples: BTreeMap<String, Value>,
}

/// An answer.
#[derive(Debug)]
pub struct Promise {
    /// Its content; `None` if it never has any.
    pub content: Option<Media>,
    /// Whether it can come without content all the same (`x-may-be-empty`).
    pub may_be_empty: bool,
}

impl Document {
    /// Reads `docs/api/<name>.json`.
    ///
    /// # Panics
    /// When it cannot be read, or is not sound; lists all that is wrong.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let path = binaries::sources().join(format!("../docs/api/{name}.json"));
        Self::parse(&read(&path)).unwrap_or_else(|faults| {
            panic!(
                "{} is not sound:\n  {}",
                path.display(),
                faults.join("\n  ")
            )
        })
    }

    /// Takes in a document.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(document: &Value) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut references = References {
            root: document,
            used: BTreeSet::new(),
        };
        let operations = references.document(&mut faults);
        references.unused(&mut faults);
        if faults.is_empty() {
            Ok(Self { operations })
        } else {
            Err(faults)
        }
    }

    /// All operations, in the order of the document.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations as routes.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let routes = self.operations.iter().map(|operation| {
            (
                operation.method.clone(),
                operation.path.clone(),
                operation.versions.clone(),
            )
        });
        routes.collect()
    }

    /// The operation of a request; `target` may have a query.
    #[must_use]
    pub fn operation(&self, method: &str, target: &str) -> Option<&Operation> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        self.operations
            .iter()
            .find(|operation| operation.method == method && fits(&operation.path, path))
    }

    /// The operation with this `operationId`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn named(&self, id: &str) -> &Operation {
        self.operations
            .iter()
            .find(|operation| operation.id == id)
            .unwrap_or_else(|| panic!("no operation {id}"))
    }
}

impl Operation {
    /// The target of a request under an api-version, with the path's parameter filled in as it is.
    #[must_use]
    pub fn target(&self, parameter: &str, version: &str) -> String {
        let path = match (self.path.split_once('{'), self.path.split_once('}')) {
            (Some((before, _)), Some((_, after))) => format!("{before}{parameter}{after}"),
            _ => self.path.clone(),
        };
        format!("{path}?api-version={version}")
    }

    /// Compares an answer with what is promised of its status.
    ///
    /// # Errors
    /// How they differ.
    pub fn check(&self, response: &Response) -> Result<(), String> {
        let fail = |what: &str| Err(format!("{} {}: {what}: {response}", self.method, self.path));
        let Some(promise) = self.responses.get(&response.status) else {
            return fail("the status is not documented");
        };
        let Some(content_type) = response.field("content-type") else {
            return match promise {
                _ if !response.body.is_empty() => fail("content without a type"),
                Promise {
                    content: Some(_),
                    may_be_empty: false,
                } => fail("no content"),
                _ => Ok(()),
            };
        };
        let Some(media) = &promise.content else {
            return fail("content where none is documented");
        };
        if content_type != "application/json" {
            return fail("another content type");
        }
        let Ok(value) = serde_json::from_slice(&response.body) else {
            return fail("not JSON");
        };
        let found = media.schema.violations(&value, Unnamed::Refused);
        if found.is_empty() {
            Ok(())
        } else {
            fail(&found.join("; "))
        }
    }

    /// Whether it judges a body, be it one that it does not need.
    #[must_use]
    pub fn judges_body(&self) -> bool {
        self.responses.contains_key(&422)
    }

    /// The status and the content that have an example of this name, which belongs to the example of a request.
    #[must_use]
    pub fn example(&self, name: &str) -> Option<(u16, &Value)> {
        self.responses.iter().find_map(|(status, promise)| {
            Some((*status, promise.content.as_ref()?.examples.get(name)?))
        })
    }

    /// What the schema of the body has against `body`.
    ///
    /// # Panics
    /// When the operation takes no body.
    #[must_use]
    pub fn request_violations(&self, body: &Value) -> Vec<String> {
        let media = self.request.as_ref().expect("an operation with a body");
        media.schema.violations(body, Unnamed::Allowed)
    }
}

/// Which answers have been seen.
#[derive(Debug, Default)]
pub struct Coverage {
    seen: BTreeSet<(String, u16)>,
}

impl Coverage {
    /// Notes an answer, which must be as documented.
    ///
    /// # Panics
    /// When it is not.
    pub fn note(&mut self, operation: &Operation, response: &Response) {
        if let Err(difference) = operation.check(response) {
            panic!("{difference}");
        }
        self.seen.insert((operation.id.clone(), response.status));
    }

    /// What is documented and has not been seen, as `operation status`.
    #[must_use]
    pub fn missing(&self, document: &Document) -> Vec<String> {
        let promised = document.operations.iter().flat_map(|operation| {
            let statuses = operation.responses.keys();
            statuses.map(|status| (operation.id.clone(), *status))
        });
        promised
            .filter(|promise| !self.seen.contains(promise))
            .map(|(id, status)| format!("{id} {status}"))
            .collect()
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a path is one of those that a template stands for. A parameter is one segment, not empty.
fn fits(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let all = template.split('/').all(|wanted| match segments.next() {
        Some(segment) if wanted.starts_with('{') => !segment.is_empty(),
        segment => segment == Some(wanted),
    });
    all && segments.next().is_none()
}

/// A document while it is taken in. References are replaced by what they name.
struct References<'d> {
    root: &'d Value,
    used: BTreeSet<String>,
}

/// How deep references may lead; more is a circle.
const DEPTH: usize = 16;

impl References<'_> {
    fn document(&mut self, faults: &mut Vec<String>) -> Vec<Operation> {
        let root = self.root;
        only(
            root,
            "document",
            &["openapi", "info", "servers", "paths", "components"],
            faults,
        );
        if !text(root, "openapi").is_some_and(|version| version.starts_with("3.1.")) {
            faults.push("openapi: not 3.1".to_owned());
        }
        for member in ["title", "version"] {
            if text(&root["info"], member).is_none() {
                faults.push(format!("info: no {member}"));
            }
        }
        let mut operations: Vec<Operation> = Vec::new();
        for (path, methods) in members(&root["paths"]) {
            only(methods, path, &METHODS, faults);
            for (method, operation) in members(methods) {
                let at = format!("{method} {path}");
                let operation = self.inlined(operation, DEPTH, &at, faults);
                let operation = self.operation(path, method, &operation, &at, faults);
                if operations.iter().any(|other| other.id == operation.id) {
                    faults.push(format!("{at}: operationId {} is taken", operation.id));
                }
                operations.push(operation);
            }
        }
        if operations.is_empty() {
            faults.push("paths: there is none".to_owned());
        }
        operations
    }

    /// A copy of `value` without references.
    fn inlined(
        &mut self,
        value: &Value,
        depth: usize,
        at: &str,
        faults: &mut Vec<String>,
    ) -> Value {
        match value {
            Value::Array(items) => items
                .iter()
                .map(|item| self.inlined(item, depth, at, faults))
                .collect(),
            Value::Object(object) => {
                let Some(reference) = object.get("$ref") else {
                    let members = object.iter();
                    return members
                        .map(|(name, value)| (name.clone(), self.inlined(value, depth, at, faults)))
                        .collect::<Map<_, _>>()
                        .into();
                };
                let target = reference
                    .as_str()
                    .and_then(|reference| reference.strip_prefix('#'))
                    .and_then(|pointer| Some((pointer, self.root.pointer(pointer)?)));
                match (target, depth.checked_sub(1)) {
                    (Some((pointer, target)), Some(depth)) if object.len() == 1 => {
                        self.used.insert(pointer.to_owned());
                        self.inlined(target, depth, at, faults)
                    }
                    _ => {
                        faults.push(format!("{at}: {value} leads nowhere, or has company"));
                        Value::Null
                    }
                }
            }
            other => other.clone(),
        }
    }

    /// Components that nothing refers to.
    fn unused(&self, faults: &mut Vec<String>) {
        for (kind, components) in members(&self.root["components"]) {
            for (name, _) in members(components) {
                let pointer = format!("/components/{kind}/{name}");
                if !self.used.contains(&pointer) {
                    faults.push(format!("{pointer} is not used"));
                }
            }
        }
    }

    fn operation(
        &self,
        path: &str,
        method: &str,
        operation: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) -> Operation {
        only(
            operation,
            at,
            &[
                "operationId",
                "summary",
                "description",
                "parameters",
                "requestBody",
                "responses",
            ],
            faults,
        );
        for member in ["operationId", "summary"] {
            if text(operation, member).is_none() {
                faults.push(format!("{at}: no {member}"));
            }
        }
        let (versions, path_example) = parameters(path, operation, at, faults);
        let mut promised = BTreeMap::new();
        for (status, response) in members(&operation["responses"]) {
            let at = format!("{at} {status}");
            match status.parse::<u16>() {
                Ok(status @ 100..=599) => {
                    promised.insert(status, promise(response, &at, faults));
                }
                _ => faults.push(format!("{at}: not a status")),
            }
        }
        if !promised.keys().any(|status| (200..300).contains(status)) {
            faults.push(format!("{at}: no success"));
        }
        let request = operation.get("requestBody").map(|body| {
            only(body, at, &["description", "required", "content"], faults);
            media(&body["content"], Unnamed::Allowed, at, faults)
        });
        Operation {
            id: text(operation, "operationId")
                .unwrap_or_default()
                .to_owned(),
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            versions,
            path_example,
            request,
            responses: promised,
        }
    }
}

/// The api-versions, and the example of the path's parameter.
fn parameters(
    path: &str,
    operation: &Value,
    at: &str,
    faults: &mut Vec<String>,
) -> (Vec<String>, Option<String>) {
    let mut versions = Vec::new();
    let mut in_path = None;
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = text(parameter, "name").unwrap_or_default();
        let at = format!("{at} parameter {name}");
        only(
            parameter,
            &at,
            &["name", "in", "required", "description", "schema", "example"],
            faults,
        );
        let schema = Schema::compile(&parameter["schema"], &at, faults);
        for fault in schema.violations(&parameter["example"], Unnamed::Refused) {
            faults.push(format!("{at}: example{fault}"));
        }
        match text(parameter, "in") {
            Some("query") if name == "api-version" => {
                let words = parameter["schema"]["enum"].as_array();
                let words = words.into_iter().flatten().filter_map(Value::as_str);
                versions.extend(words.map(str::to_owned));
            }
            Some("path") if path.contains(&format!("{{{name}}}")) => {
                in_path = text(parameter, "example").map(str::to_owned);
            }
            _ => faults.push(format!("{at}: neither api-version nor in the path")),
        }
    }
    if versions.is_empty() {
        faults.push(format!("{at}: no api-version"));
    }
    if path.matches('{').count() != usize::from(in_path.is_some()) {
        faults.push(format!("{at}: parameters that are not described"));
    }
    (versions, in_path)
}

fn promise(response: &Value, at: &str, faults: &mut Vec<String>) -> Promise {
    only(
        response,
        at,
        &["description", "content", "x-may-be-empty"],
        faults,
    );
    if text(response, "description").is_none() {
        faults.push(format!("{at}: no description"));
    }
    Promise {
        content: response
            .get("content")
            .map(|content| media(content, Unnamed::Refused, at, faults)),
        may_be_empty: response["x-may-be-empty"] == true,
    }
}

fn media(content: &Value, unnamed: Unnamed, at: &str, faults: &mut Vec<String>) -> Media {
    only(content, at, &["application/json"], faults);
    let media = &content["application/json"];
    only(media, at, &["schema", "examples"], faults);
    let schema = Schema::compile(&media["schema"], at, faults);
    let mut examples = BTreeMap::new();
    for (name, example) in members(&media["examples"]) {
        let at = format!("{at} example {name}");
        only(example, &at, &["value"], faults);
        for fault in schema.violations(&example["value"], unnamed) {
            faults.push(format!("{at}{fault}"));
        }
        examples.insert(name.clone(), example["value"].clone());
    }
    Media { schema, examples }
}

/// Refuses members of `value` that nothing here looks at.
fn only(value: &Value, at: &str, known: &[&str], faults: &mut Vec<String>) {
    if !value.is_object() {
        faults.push(format!("{at}: not an object"));
    }
    for (name, _) in members(value) {
        if !known.contains(&name.as_str()) {
            faults.push(format!("{at}: {name} is not known to the tests"));
        }
    }
}

fn text<'v>(value: &'v Value, member: &str) -> Option<&'v str> {
    value.get(member)?.as_str().filter(|text| !text.is_empty())
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn small() -> Value {
        json!({
            "openapi": "3.1.0",
            "info": { "title": "t", "version": "1" },
            "paths": { "/a/{b}": { "get": {
                "operationId": "x",
                "summary": "s",
                "parameters": [
                    { "name": "api-version", "in": "query", "schema": { "enum": ["1"] }, "example": "1" },
                    { "name": "b", "in": "path", "schema": { "type": "string" }, "example": "c" },
                ],
                "responses": {
                    "200": { "description": "d", "content": { "application/json": {
                        "schema": { "$ref": "#/components/schemas/S" },
                        "examples": { "e": { "value": { "m": 1 } } },
                    } } },
                    "404": { "description": "d" },
                },
            } } },
            "components": { "schemas": { "S": {
                "type": "object",
                "properties": { "m": { "type": "integer" } },
                "required": ["m"],
            } } },
        })
    }

    fn response(status: u16, content_type: Option<&str>, body: &str) -> Response {
        Response {
            version: "HTTP/1.1".to_owned(),
            status,
            fields: content_type
                .map(|value| ("content-type".to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            body: body.into(),
            head_size: 0,
        }
    }

    #[test]
    fn answers_are_compared() {
        let document = Document::parse(&small()).unwrap();
        assert!(document.operation("GET", "/a/?api-version=1").is_none());
        assert!(document.operation("GET", "/a/b/c").is_none());
        assert!(document.operation("POST", "/a/b").is_none());
        let operation = document.operation("GET", "/a/b?api-version=1").unwrap();
        assert_eq!(operation.target("%2F", "1"), "/a/%2F?api-version=1");
        let json = Some("application/json");
        for (answer, good) in [
            (response(200, json, r#"{"m":1}"#), true),
            (response(200, json, r#"{"m":1,"n":2}"#), false),
            (response(200, json, r#"{"m":"1"}"#), false),
            (response(200, json, "1"), false),
            (response(200, json, ""), false),
            (response(200, Some("text/plain"), r#"{"m":1}"#), false),
            (response(200, None, ""), false),
            (response(404, None, ""), true),
            (response(404, None, "x"), false),
            (response(404, json, r#"{"m":1}"#), false),
            (response(500, None, ""), false),
        ] {
            assert_eq!(operation.check(&answer).is_ok(), good, "{answer}");
        }
        let mut coverage = Coverage::default();
        coverage.note(operation, &response(404, None, ""));
        assert_eq!(coverage.missing(&document), ["x 200"]);
        coverage.note(operation, &response(200, json, r#"{"m":1}"#));
        assert!(coverage.missing(&document).is_empty());
    }

    #[test]
    fn documents_that_are_not_sound() {
        let get = "/paths/~1a~1{b}/get";
        for (pointer, value) in [
            ("/openapi".to_owned(), json!("3.0.0")),
            ("/info/title".to_owned(), json!("")),
            ("/paths".to_owned(), json!({})),
            (format!("{get}/operationId"), json!("")),
            (format!("{get}/tags"), json!(["x"])),
            (
                format!("{get}/parameters/0/schema"),
                json!({ "type": "string" }),
            ),
            (format!("{get}/parameters/1/example"), json!(1)),
            (format!("{get}/parameters/1/name"), json!("c")),
            (format!("{get}/responses/200/description"), json!("")),
            (format!("{get}/responses/2xx"), json!({})),
            (
                format!("{get}/responses/200/content/application~1json/schema"),
                json!({ "$ref": "#/components/schemas/T" }),
            ),
            (
                format!("{get}/responses/200/content/application~1json/examples/e/value"),
                json!({ "m": "1" }),
            ),
            (
                "/components/schemas/S".to_owned(),
                json!({ "$ref": "#/components/schemas/S" }),
            ),
            ("/components/schemas/T".to_owned(), json!({})),
        ] {
            let mut document = small();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let parent = document.pointer_mut(parent).unwrap();
            match parent {
                Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
                parent => parent[name] = value,
            }
            assert!(Document::parse(&document).is_err(), "{pointer}");
        }
    }
}
