//! Misbehaviour on command.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::http::Response;

/// One kind of misbehaviour, which requests it happens to, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub action: Action,
    /// Only requests of this route (see [`super::route::Route::name`]), e.g. `register` or `module-create`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Only requests with this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only requests whose path, as sent, matches; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many matching requests pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// How many are hit then; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl Fault {
    /// `action` on every request or connection.
    #[must_use]
    pub fn always(action: Action) -> Self {
        Self {
            action,
            route: None,
            method: None,
            path: None,
            skip: 0,
            count: None,
        }
    }

    /// `action` on the next request or connection.
    #[must_use]
    pub fn once(action: Action) -> Self {
        Self::always(action).times(1)
    }

    /// The same, `count` times.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// The same, after `count` matching requests.
    #[must_use]
    pub fn after(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    /// The same, only for the route `name`.
    #[must_use]
    pub fn on_route(mut self, name: &str) -> Self {
        self.route = Some(name.to_owned());
        self
    }

    /// The same, only for the method `method`.
    #[must_use]
    pub fn on_method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// The same, only for paths that match `pattern`.
    #[must_use]
    pub fn on_path(mut self, pattern: &str) -> Self {
        self.path = Some(pattern.to_owned());
        self
    }

    /// Says why the fault makes no sense, if it does not.
    ///
    /// # Errors
    /// A fault of the connection is bound to requests, or an unknown route is named.
    pub fn check(&self) -> Result<(), String> {
        let bound = self.route.is_some() || self.method.is_some() || self.path.is_some();
        if self.action.is_of_connection() && bound {
            return Err(
                "this action happens before a request is read: it takes no route, method or path"
                    .into(),
            );
        }
        match &self.route {
            Some(name) if !super::route::NAMES.contains(&name.as_str()) => Err(format!(
                "there is no route {name:?}; there are {}",
                super::route::NAMES.join(", ")
            )),
            _ => Ok(()),
        }
    }
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// The request is served, with this content type in the answer.
    ContentType(String),
    /// The request is served, the answer comes this much later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The request is served, the answer comes in small pieces.
    Drip {
        /// Bytes in a piece.
        bytes: usize,
        /// Milliseconds between pieces.
        ms: u64,
    },
    /// The connection's TLS handshake offers a certificate that ended yesterday.
    ExpiredCertificate,
    /// The request is read and never answered.
    Hang,
    /// The connection is accepted and nothing else happens, not even TLS.
    HangConnection,
    /// The request is served, but the connection is reset instead of an answer.
    LoseAnswer,
    /// The request is read and the connection is reset.
    Reset,
    /// The connection is reset as soon as it is made.
    ResetConnection,
    /// The request is not served; this is the answer.
    Respond(CannedResponse),
    /// The request is not served; it is answered with 429 in the service's own form.
    Throttle {
        /// `Retry-After` in seconds, if there is to be one.
        #[serde(default, rename = "retryAfter")]
        retry_after: Option<u32>,
    },
    /// The request is served, the connection ends after this many bytes of the answer.
    Truncate {
        /// Bytes, head included.
        bytes: usize,
    },
    /// The connection's TLS handshake offers a certificate of an authority nobody trusts.
    UntrustedCertificate,
    /// The connection's TLS handshake offers a certificate for another name.
    WrongName,
}

impl Action {
    /// Whether it happens to a connection, before there is a request.
    #[must_use]
    pub fn is_of_connection(&self) -> bool {
        matches!(
            self,
            Self::ExpiredCertificate
                | Self::HangConnection
                | Self::ResetConnection
                | Self::UntrustedCertificate
                | Self::WrongName
        )
    }

    /// The action's name in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ContentType(_) => "contentType",
            Self::Delay { .. } => "delay",
            Self::Drip { .. } => "drip",
            Self::ExpiredCertificate => "expiredCertificate",
            Self::Hang => "hang",
            Self::HangConnection => "hangConnection",
            Self::LoseAnswer => "loseAnswer",
            Self::Reset => "reset",
            Self::ResetConnection => "resetConnection",
            Self::Respond(_) => "respond",
            Self::Throttle { .. } => "throttle",
            Self::Truncate { .. } => "truncate",
            Self::UntrustedCertificate => "untrustedCertificate",
            Self::WrongName => "wrongName",
        }
    }
}

/// An answer made in advance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CannedResponse {
    /// The status code.
    pub status: u16,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A string is sent as it stands, as `text/html`; anything else as JSON; null means no body. A header
    /// `content-type` overrides.
    #[serde(default)]
    pub body: serde_json::Value,
}

impl CannedResponse {
    /// An answer in JSON.
    #[must_use]
    pub fn json(status: u16, body: serde_json::Value) -> Self {
        Self {
            status,
            headers: BTreeMap::new(),
            body,
        }
    }

    /// An answer in HTML, as middle boxes give it.
    #[must_use]
    pub fn html(status: u16, body: &str) -> Self {
        Self::json(status, body.into())
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_response(&self) -> Response {
        let mut response = match &self.body {
            serde_json::Value::Null => Response::empty(self.status),
            serde_json::Value::String(text) => Response::empty(self.status)
                .with_header("Content-Type", "text/html")
                .with_body(text.clone().into_bytes()),
            value => Response::json(self.status, value),
        };
        for (name, value) in &self.headers {
            response = response.with_header(name, value);
        }
        response
    }
}

/// The faults that are waiting, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Faults {
    waiting: Vec<Fault>,
}

impl Faults {
    /// Adds one behind the others.
    pub fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Those that are waiting, with what is left of their counts.
    #[must_use]
    pub fn waiting(&self) -> &[Fault] {
        &self.waiting
    }

    /// The first fault for a connection that was just made; it is used up by one.
    pub fn take_for_connection(&mut self) -> Option<Action> {
        self.take(|fault| fault.action.is_of_connection())
    }

    /// The first fault for a request; it is used up by one.
    pub fn take_for_request(&mut self, route: &str, method: &str, path: &str) -> Option<Action> {
        self.take(|fault| {
            !fault.action.is_of_connection()
                && fault.route.as_deref().is_none_or(|wanted| wanted == route)
                && fault
                    .method
                    .as_deref()
                    .is_none_or(|wanted| wanted == method)
                && fault
                    .path
                    .as_deref()
                    .is_none_or(|pattern| matches_glob(pattern, path))
        })
    }

    fn take(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Action> {
        let mut hit = None;
        for fault in &mut self.waiting {
            if !wanted(fault) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1; // and look on: a later fault may be meant for this request
                continue;
            }
            if let Some(count) = &mut fault.count {
                if *count == 0 {
                    continue;
                }
                *count -= 1;
            }
            hit = Some(fault.action.clone());
            break;
        }
        self.waiting.retain(|fault| fault.count != Some(0));
        hit
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any text.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = text.find(piece) else {
            return false;
        };
        text = text.get(at + piece.len()..).unwrap_or_default();
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab", true),
            ("*b", "/ab", true),
            ("/*/x/*", "/1/x/2", true),
            ("/*/x/*", "/1/y/2", false),
            ("/a*a", "/a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches_glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn counts_and_skips_are_used_up_by_matching_requests_only() {
        let mut faults = Faults::default();
        faults.add(Fault::once(Action::Hang).on_route("register").after(1));
        faults.add(
            Fault::always(Action::Reset)
                .on_path("/devices/*")
                .on_method("GET")
                .times(2),
        );
        faults.add(Fault::once(Action::HangConnection));
        assert_eq!(faults.take_for_request("poll", "GET", "/s"), None);
        assert_eq!(faults.take_for_request("register", "PUT", "/s"), None);
        assert_eq!(
            faults.take_for_request("register", "PUT", "/s"),
            Some(Action::Hang)
        );
        assert_eq!(faults.take_for_request("register", "PUT", "/s"), None);
        assert_eq!(
            faults.take_for_request("module-get", "PUT", "/devices/d"),
            None
        );
        for _ in 0..2 {
            let hit = faults.take_for_request("module-get", "GET", "/devices/d");
            assert_eq!(hit, Some(Action::Reset));
        }
        assert_eq!(faults.take_for_connection(), Some(Action::HangConnection));
        assert!(faults.waiting().is_empty());
    }

    #[test]
    fn json_forms() {
        let fault: Fault = serde_json::from_str(
            r#"{"action":{"respond":{"status":503,"headers":{"retry-after":"5"},"body":"<html>"}},"count":2}"#,
        )
        .unwrap();
        let Action::Respond(canned) = &fault.action else {
            panic!("{fault:?}")
        };
        let response = canned.to_response();
        assert_eq!(response.header("content-type"), Some("text/html"));
        assert_eq!(response.header("retry-after"), Some("5"));
        for (text, action) in [
            (r#"{"action":"hang"}"#, Action::Hang),
            (r#"{"action":{"delay":{"ms":5}}}"#, Action::Delay { ms: 5 }),
            (
                r#"{"action":{"throttle":{}}}"#,
                Action::Throttle { retry_after: None },
            ),
            (
                r#"{"action":{"contentType":"text/plain"}}"#,
                Action::ContentType("text/plain".into()),
            ),
        ] {
            let fault: Fault = serde_json::from_str(text).unwrap();
            assert_eq!(fault, Fault::always(action));
        }
        assert!(serde_json::from_str::<Fault>(r#"{"action":"hang","typo":1}"#).is_err());
    }

    #[test]
    fn senseless_faults_are_refused() {
        assert!(Fault::once(Action::HangConnection).check().is_ok());
        assert!(
            Fault::once(Action::HangConnection)
                .on_method("GET")
                .check()
                .is_err()
        );
        assert!(
            Fault::once(Action::Hang)
                .on_route("register")
                .check()
                .is_ok()
        );
        assert!(
            Fault::once(Action::Hang)
                .on_route("registre")
                .check()
                .unwrap_err()
                .contains("register")
        );
    }
}
