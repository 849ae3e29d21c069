//! The part of JSON Schema (draft 2020-12, as OpenAPI 3.1 has it) that the documents under `docs/api` use.
//!
//! A keyword that is not known here is refused when a schema is compiled, so that no document can promise what no test checks.

use base64ct::{Base64, Encoding as _};
use regex_lite::Regex;
use serde_json::{Map, Value};

/// Keywords that say something to people only.
const ANNOTATIONS: [&str; 2] = ["title", "description"];

/// How members that a schema does not name are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unnamed {
    /// They are ignored, as JSON Schema has it.
    Allowed,
    /// They are a violation: for answers, which must not hold more than is documented.
    Refused,
}

/// A schema without references.
#[derive(Debug)]
pub struct Schema {
    types: Option<Vec<Type>>,
    values: Option<Vec<Value>>,
    properties: Vec<(String, Self)>,
    required: Vec<String>,
    items: Option<Box<Self>>,
    one_of: Vec<Self>,
    pattern: Option<Regex>,
    min_length: u64,
    minimum: Option<i64>,
    base64: bool,
    date_time: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Type {
    Array,
    Boolean,
    Integer,
    Null,
    Object,
    String,
}

impl Type {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "null" => Self::Null,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Array(_) => Self::Array,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_i64() || number.is_u64() => Self::Integer,
            Value::Number(_) => return None,
            Value::Null => Self::Null,
            Value::Object(_) => Self::Object,
            Value::String(_) => Self::String,
        })
    }
}

impl Schema {
    /// Takes in a schema; what is wrong with it is added to `faults`, with the place `at` in front.
    pub fn compile(schema: &Value, at: &str, faults: &mut Vec<String>) -> Self {
        let mut compiled = Self {
            types: None,
            values: None,
            properties: Vec::new(),
            required: Vec::new(),
            items: None,
            one_of: Vec::new(),
            pattern: None,
            min_length: 0,
            minimum: None,
            base64: false,
            date_time: false,
        };
        let Some(members) = schema.as_object() else {
            faults.push(format!("{at}: a schema is an object"));
            return compiled;
        };
        for (keyword, value) in members {
            if !ANNOTATIONS.contains(&keyword.as_str())
                && compiled.keyword(keyword, value, at, faults).is_none()
            {
                faults.push(format!("{at}: {keyword} cannot be {value}"));
            }
        }
        for name in &compiled.required {
            if !compiled.properties.iter().any(|(known, _)| known == name) {
                faults.push(format!("{at}: {name} is required but not described"));
            }
        }
        compiled
    }

    /// One keyword; `None` if its value makes no sense.
    fn keyword(
        &mut self,
        keyword: &str,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) -> Option<()> {
        match keyword {
            "type" => {
                let names = match value {
                    Value::Array(names) => names.as_slice(),
                    name => std::slice::from_ref(name),
                };
                let types = names.iter().map(|name| Type::named(name.as_str()?));
                self.types = Some(types.collect::<Option<_>>()?);
            }
            "enum" => self.values = Some(value.as_array()?.clone()),
            "const" => self.values = Some(vec![value.clone()]),
            "properties" => {
                for (name, schema) in value.as_object()? {
                    let place = format!("{at}/properties/{name}");
                    let schema = Self::compile(schema, &place, faults);
                    self.properties.push((name.clone(), schema));
                }
            }
            "required" => {
                let names = value.as_array()?.iter();
                self.required = names
                    .map(|name| name.as_str().map(str::to_owned))
                    .collect::<Option<_>>()?;
            }
            "items" => {
                self.items = Some(Box::new(Self::compile(
                    value,
                    &format!("{at}/items"),
                    faults,
                )));
            }
            "oneOf" => {
                for (index, schema) in value.as_array()?.iter().enumerate() {
                    let place = format!("{at}/oneOf/{index}");
                    self.one_of.push(Self::compile(schema, &place, faults));
                }
            }
            "pattern" => self.pattern = Some(Regex::new(value.as_str()?).ok()?),
            "minLength" => self.min_length = value.as_u64()?,
            "minimum" => self.minimum = Some(value.as_i64()?),
            "contentEncoding" => {
                self.base64 = (value == "base64").then_some(true)?;
            }
            "format" => {
                self.date_time = (value == "date-time").then_some(true)?;
            }
            _ => faults.push(format!(
                "{at}: {keyword} is not checked by any test; teach tests/src/openapi/schema.rs or do without"
            )),
        }
        Some(())
    }

    /// What is wrong with a value, each with its place; empty if nothing is.
    #[must_use]
    pub fn violations(&self, value: &Value, unnamed: Unnamed) -> Vec<String> {
        let mut found = Vec::new();
        self.check(value, unnamed, "", &mut found);
        found
    }

    fn check(&self, value: &Value, unnamed: Unnamed, at: &str, found: &mut Vec<String>) {
        let mut wrong = |what: &str| found.push(format!("{at}: {what}: {value}"));
        if let Some(types) = &self.types
            && !Type::of(value).is_some_and(|given| types.contains(&given))
        {
            // Nothing more can be said about a value of another type.
            return wrong("not of the type");
        }
        if let Some(values) = &self.values
            && !values.contains(value)
        {
            wrong("not one of the values");
        }
        if let Some(minimum) = self.minimum
            && value.as_i64().is_some_and(|number| number < minimum)
        {
            wrong("below the minimum");
        }
        match value {
            Value::String(text) => {
                if (text.chars().count() as u64) < self.min_length {
                    wrong("too short");
                }
                if self.pattern.as_ref().is_some_and(|p| !p.is_match(text)) {
                    wrong("not of the pattern");
                }
                if self.base64 && Base64::decode_vec(text).is_err() {
                    wrong("not Base64");
                }
                if self.date_time && !is_date_time(text) {
                    wrong("not a point in time of RFC 3339");
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check(item, unnamed, &format!("{at}/{index}"), found);
                    }
                }
            }
            Value::Object(members) => self.check_members(members, unnamed, at, found),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        self.check_alternatives(value, unnamed, at, found);
    }

    fn check_members(
        &self,
        members: &Map<String, Value>,
        unnamed: Unnamed,
        at: &str,
        found: &mut Vec<String>,
    ) {
        for name in &self.required {
            if !members.contains_key(name) {
                found.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, value) in members {
            let place = format!("{at}/{name}");
            match self.properties.iter().find(|(known, _)| known == name) {
                Some((_, schema)) => schema.check(value, unnamed, &place, found),
                // The alternatives know their own members.
                None if unnamed == Unnamed::Refused && self.one_of.is_empty() => {
                    found.push(format!("{place}: not documented"));
                }
                None => {}
            }
        }
    }

    fn check_alternatives(
        &self,
        value: &Value,
        unnamed: Unnamed,
        at: &str,
        found: &mut Vec<String>,
    ) {
        if self.one_of.is_empty() {
            return;
        }
        let outcomes: Vec<_> = self
            .one_of
            .iter()
            .map(|schema| schema.violations(value, unnamed))
            .collect();
        match outcomes.iter().filter(|found| found.is_empty()).count() {
            1 => {}
            0 => found.push(format!("{at}: none of the alternatives: {outcomes:?}")),
            count => found.push(format!("{at}: {count} alternatives at once: {value}")),
        }
    }
}

/// `2026-11-21T19:40:00Z`, with or without a fraction (RFC 3339 in UTC, which is all that the services write).
fn is_date_time(text: &str) -> bool {
    Regex::new(
        r"^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?Z$",
    )
    .is_ok_and(|form| form.is_match(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(schema: &Value) -> Schema {
        let mut faults = Vec::new();
        let compiled = Schema::compile(schema, "", &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        compiled
    }

    #[test]
    fn each_keyword_refuses_what_it_should() {
        for (schema, good, bad) in [
            (
                json!({ "type": ["string", "null"] }),
                vec![json!("x"), json!(null)],
                vec![json!(1), json!([]), json!(true)],
            ),
            (
                json!({ "type": "integer", "minimum": 1 }),
                vec![json!(1)],
                vec![json!(0), json!(1.5), json!("1")],
            ),
            (
                json!({ "enum": ["a", "b"] }),
                vec![json!("b")],
                vec![json!("c"), json!(null)],
            ),
            (json!({ "const": "a" }), vec![json!("a")], vec![json!("b")]),
            (
                json!({ "pattern": "^a+$" }),
                vec![json!("aa")],
                vec![json!("ab"), json!("")],
            ),
            (
                json!({ "minLength": 2 }),
                vec![json!("éé")],
                vec![json!("é")],
            ),
            (
                json!({ "contentEncoding": "base64" }),
                vec![json!(""), json!("QQ==")],
                vec![json!("QQ"), json!("QR=="), json!("-_-_")],
            ),
            (
                json!({ "format": "date-time" }),
                vec![
                    json!("2026-11-21T19:40:00Z"),
                    json!("2026-11-21T19:40:00.123Z"),
                ],
                vec![json!("2026-11-21"), json!("2026-13-21T19:40:00Z")],
            ),
            (
                json!({ "type": "array", "items": { "type": "null" } }),
                vec![json!([]), json!([null])],
                vec![json!([1]), json!({})],
            ),
            (
                json!({ "properties": { "a": { "type": "null" } }, "required": ["a"] }),
                vec![json!({ "a": null })],
                vec![json!({}), json!({ "a": 1 }), json!({ "a": null, "b": 1 })],
            ),
            (
                json!({ "oneOf": [{ "minLength": 2 }, { "pattern": "^a" }] }),
                vec![json!("bb"), json!("a")],
                vec![json!("b"), json!("aa")],
            ),
        ] {
            let compiled = compile(&schema);
            for value in good {
                let found = compiled.violations(&value, Unnamed::Refused);
                assert!(found.is_empty(), "{schema} {value}: {found:?}");
            }
            for value in bad {
                let found = compiled.violations(&value, Unnamed::Refused);
                assert_eq!(found.len(), 1, "{schema} {value}: {found:?}");
            }
        }
    }

    #[test]
    fn members_without_a_name_are_allowed_in_requests() {
        let compiled = compile(&json!({ "properties": {} }));
        assert!(
            compiled
                .violations(&json!({ "x": 1 }), Unnamed::Allowed)
                .is_empty()
        );
    }

    #[test]
    fn violations_say_where() {
        let compiled =
            compile(&json!({ "properties": { "a": { "items": { "type": "integer" } } } }));
        assert_eq!(
            compiled.violations(&json!({ "a": [1, "x"] }), Unnamed::Allowed),
            ["/a/1: not of the type: \"x\""]
        );
    }

    #[test]
    fn schemas_that_cannot_be_checked_are_refused() {
        for schema in [
            json!([]),
            json!({ "maxLength": 3 }),
            json!({ "type": "number" }),
            json!({ "type": 3 }),
            json!({ "format": "uri" }),
            json!({ "contentEncoding": "base32" }),
            json!({ "pattern": "(" }),
            json!({ "required": ["a"] }),
            json!({ "properties": { "a": { "minItems": 1 } } }),
            json!({ "oneOf": [{ "if": {} }] }),
        ] {
            let mut faults = Vec::new();
            let _ = Schema::compile(&schema, "at", &mut faults);
            assert_eq!(faults.len(), 1, "{schema}: {faults:?}");
            assert!(faults[0].starts_with("at"), "{faults:?}");
        }
    }
}
