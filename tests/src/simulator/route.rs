//! Which resource a request is for.

use super::est::Operation;
use super::http::Request;
use super::token::{percent_decode, percent_encode};

/// The names of all routes, as faults and the log use them.
pub const NAMES: &[&str] = &[
    "est-cacerts",
    "est-csrattrs",
    "est-simpleenroll",
    "est-simplereenroll",
    "events",
    "module-create",
    "module-delete",
    "module-get",
    "module-keys",
    "module-list",
    "poll",
    "register",
    "unknown",
];

/// The resource of a request, ids decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/{realm}/{operation}` of EST; a realm is one or more segments.
    Est {
        /// The path above the operation, without slashes at its ends.
        realm: String,
        /// The operation.
        operation: Operation,
    },
    /// `POST /devices/{d}[/modules/{m}]/messages/events`: what a device or module itself would call.
    Events {
        /// Device id.
        device: String,
        /// Module id, if a module is to call.
        module: Option<String>,
    },
    /// `/devices/{d}/modules/{m}`
    Module {
        /// Device id.
        device: String,
        /// Module id.
        module: String,
    },
    /// `GET /devices/{d}/modules`
    Modules {
        /// Device id.
        device: String,
    },
    /// `GET /{scope}/registrations/{id}/operations/{operation}`
    Poll {
        /// Id scope.
        scope: String,
        /// Registration id.
        registration: String,
        /// Operation id.
        operation: String,
    },
    /// `PUT /{scope}/registrations/{id}/register`
    Register {
        /// Id scope.
        scope: String,
        /// Registration id.
        registration: String,
    },
    /// Anything else.
    Unknown,
}

impl Route {
    /// The resource of `request`.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let Some(path) = request.path().strip_prefix('/') else {
            return Self::Unknown;
        };
        let segments: Option<Vec<String>> = path.split('/').map(percent_decode).collect();
        let Some(segments) = segments else {
            return Self::Unknown;
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Self::Unknown;
        }
        let own = |text: &str| text.to_owned();
        if let [realm @ .., last] = segments.as_slice()
            && !realm.is_empty()
            && let Some(operation) = Operation::named(last)
        {
            return Self::Est {
                realm: realm.join("/"),
                operation,
            };
        }
        match segments.as_slice() {
            ["devices", device, "messages", "events"] => Self::Events {
                device: own(device),
                module: None,
            },
            ["devices", device, "modules", module, "messages", "events"] => Self::Events {
                device: own(device),
                module: Some(own(module)),
            },
            ["devices", device, "modules"] => Self::Modules {
                device: own(device),
            },
            ["devices", device, "modules", module] => Self::Module {
                device: own(device),
                module: own(module),
            },
            [scope, "registrations", registration, "register"] => Self::Register {
                scope: own(scope),
                registration: own(registration),
            },
            [
                scope,
                "registrations",
                registration,
                "operations",
                operation,
            ] => Self::Poll {
                scope: own(scope),
                registration: own(registration),
                operation: own(operation),
            },
            _ => Self::Unknown,
        }
    }

    /// The name that faults and the log use, one of [`NAMES`].
    #[must_use]
    pub fn name(&self, request: &Request) -> &'static str {
        match self {
            Self::Est { operation, .. } => operation.route_name(),
            Self::Events { .. } => "events",
            Self::Module { .. } => match request.method.as_str() {
                "DELETE" => "module-delete",
                "PUT" if request.header("if-match").is_some() => "module-keys",
                "PUT" => "module-create",
                _ => "module-get",
            },
            Self::Modules { .. } => "module-list",
            Self::Poll { .. } => "poll",
            Self::Register { .. } => "register",
            Self::Unknown => "unknown",
        }
    }

    /// The methods of the resource.
    #[must_use]
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Est { operation, .. } => operation.methods(),
            Self::Events { .. } => &["POST"],
            Self::Module { .. } => &["DELETE", "GET", "PUT"],
            Self::Modules { .. } | Self::Poll { .. } => &["GET"],
            Self::Register { .. } => &["PUT"],
            Self::Unknown => &[],
        }
    }

    /// Whether it is a resource of EST.
    #[must_use]
    pub fn is_est(&self) -> bool {
        matches!(self, Self::Est { .. })
    }

    /// Whether it is a resource of DPS.
    #[must_use]
    pub fn is_dps(&self) -> bool {
        matches!(self, Self::Poll { .. } | Self::Register { .. })
    }
}

/// Says which segment of the path is not encoded as it has to be, if there is one: everything but unreserved
/// characters and ``! $ ' ( ) * , : @ + ;`` as `%XX` with upper-case digits, and no `.` or `..`.
#[must_use]
pub fn path_problem(path: &str) -> Option<String> {
    path.split('/').skip(1).find_map(|segment| {
        let Some(decoded) = percent_decode(segment) else {
            return Some(format!(
                "path segment {segment:?} is not percent-encoded UTF-8"
            ));
        };
        if decoded == "." || decoded == ".." {
            return Some(format!("path segment {segment:?} climbs"));
        }
        let canonical = encode_segment(&decoded);
        (canonical != segment).then(|| format!("path segment {segment:?} has to be {canonical:?}"))
    })
}

/// Percent-encodes an id as one path segment.
#[must_use]
pub fn encode_segment(id: &str) -> String {
    percent_encode(id, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~!$'()*,:@+;".contains(&byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(target: &str) -> Route {
        Route::of(&Request {
            target: target.to_owned(),
            ..Request::default()
        })
    }

    #[test]
    fn targets_become_routes_with_decoded_ids() {
        assert_eq!(
            route("/devices/Dev%3D1/modules/a%2Fb?x"),
            Route::Module {
                device: "Dev=1".into(),
                module: "a/b".into()
            }
        );
        assert_eq!(
            route("/devices/d/modules"),
            Route::Modules { device: "d".into() }
        );
        assert_eq!(
            route("/0ne/registrations/r/operations/4.x"),
            Route::Poll {
                scope: "0ne".into(),
                registration: "r".into(),
                operation: "4.x".into()
            }
        );
        for target in [
            "/",
            "/devices",
            "/devices//modules",
            "/devices/%zz/modules",
            "x",
            "/devices/d/modules/",
        ] {
            assert_eq!(route(target), Route::Unknown, "{target}");
        }
    }

    #[test]
    fn is_53_segments_have_one_encoding() {
        assert_eq!(path_problem("/devices/Dev%3D1/modules/$edgeAgent"), None);
        for path in [
            "/a=b",
            "/a%2fb",
            "/a%2",
            "/%24edgeAgent",
            "/a%2Eb",
            "/..",
            "/%2E%2E",
            "/a&b",
            "/é",
        ] {
            assert!(path_problem(path).is_some(), "{path}");
        }
        assert_eq!(encode_segment("mod %/é=2\\"), "mod%20%25%2F%C3%A9%3D2%5C");
    }
}
