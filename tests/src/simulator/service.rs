//! What becomes of one request: it is checked, hit by a fault or served, and noted.

use std::time::Duration;

use serde_json::Value;

use super::clock::Clock;
use super::fault::Action;
use super::http::{BodyFraming, Request, Response};
use super::journal::Entry;
use super::route::{Route, path_problem};
use super::settings::{Early, Framing};
use super::token::{Token, TokenError, encode_audience};
use super::world::World;
use super::{dps, est, hub};

/// An answer that refuses, and why.
#[derive(Debug)]
pub struct Refusal {
    /// The answer.
    pub response: Response,
    /// The reason, for the log: the services keep it to themselves.
    pub reason: String,
    /// Whether the client's code is at fault.
    pub violation: bool,
}

/// What the connection does with an answer.
#[derive(Debug)]
pub struct Exchange {
    /// The answer.
    pub response: Response,
    /// How its body is delimited.
    pub framing: BodyFraming,
    /// How it is delivered.
    pub delivery: Delivery,
}

/// How an answer is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// After a while.
    Delayed(Duration),
    /// In pieces of so many bytes, with pauses.
    Drip(usize, Duration),
    /// Not at all; the connection stays open.
    Hang,
    /// At once.
    Normal,
    /// Not at all; the connection is reset.
    Reset,
    /// So many bytes, then the connection ends.
    Truncated(usize),
}

/// Takes a request, as it came over connection number `connection`.
pub fn answer(world: &mut World, clock: &Clock, request: Request, connection: u64) -> Exchange {
    let route = Route::of(&request);
    let name = route.name(&request);
    let mut violations = Vec::new();
    let mut refusal = None;
    let mut note = |refused: Refusal| {
        if refused.violation {
            violations.push(refused.reason.clone());
        }
        if refusal.is_none() {
            refusal = Some(refused.reason);
        }
        refused.response
    };

    let mut refused = check_shape(clock, &route, &request).map(&mut note);
    if let Some(early) = world.early_by(&request.method, request.path()) {
        let mut answer = note(bad_request(
            clock,
            &route,
            &format!("comes {} ms before it was told to", early.as_millis()),
        ));
        if world.settings.early == Early::Throttle {
            answer = throttled(clock, &route, world.settings.retry_after);
        }
        if world.settings.early != Early::Record {
            refused = refused.or(Some(answer));
        }
    }
    // A refused request is checked to its end all the same, so that every deviation is named at once.
    let checked = Checked::check(world, clock, &route, &request).map_err(&mut note);

    let fault = world
        .faults
        .take_for_request(name, &request.method, request.path());
    let (response, delivery) = match (&fault, refused, checked) {
        (Some(Action::Hang), ..) => (Response::empty(204), Delivery::Hang),
        (Some(Action::Reset), ..) => (Response::empty(204), Delivery::Reset),
        (Some(Action::Respond(canned)), ..) => (canned.to_response(), Delivery::Normal),
        (Some(Action::Throttle { retry_after }), ..) => {
            (throttled(clock, &route, *retry_after), Delivery::Normal)
        }
        (fault, Some(response), _) | (fault, None, Err(response)) => {
            deliver(fault.as_ref(), response)
        }
        (fault, None, Ok(checked)) => {
            let response = checked.perform(world, clock).unwrap_or_else(&mut note);
            deliver(fault.as_ref(), response)
        }
    };
    let response = match &fault {
        Some(Action::ContentType(value)) => response.with_header("Content-Type", value),
        _ => response,
    };
    if response.status >= 400
        && let Some(seconds) = response
            .header("retry-after")
            .and_then(|text| text.parse().ok())
    {
        world.tell_to_wait(&request.method, request.path(), seconds);
    }
    let sent = !matches!(delivery, Delivery::Hang | Delivery::Reset);
    world.journal.record(Entry {
        number: world.journal.next_number(),
        time: clock.rfc3339(),
        connection,
        request,
        route: name,
        status: sent.then_some(response.status),
        refusal,
        fault: fault.as_ref().map(Action::name),
        violations,
    });
    let framing = match world.settings.framing {
        Framing::Chunked => BodyFraming::Chunked,
        Framing::Close => BodyFraming::Close,
        Framing::Service if route.is_dps() => BodyFraming::Chunked,
        Framing::Length | Framing::Service => BodyFraming::Length,
    };
    Exchange {
        response,
        framing,
        delivery,
    }
}

/// The daemon's token for the resource `audience`, checked in all but the signature: form, resource, key name, and
/// that it was made for this request.
///
/// # Errors
/// What is wrong with it.
pub fn strict_token<'r>(
    world: &World,
    clock: &Clock,
    request: &'r Request,
    audience: &str,
    key_name: Option<&'static str>,
) -> Result<Token<'r>, TokenError> {
    let header = request.header("authorization").ok_or(TokenError::Absent)?;
    let token = Token::parse_strict(header)?;
    let wanted = encode_audience(&audience.to_lowercase());
    if token.resource != wanted {
        return Err(TokenError::Resource {
            found: token.resource.to_owned(),
            wanted,
        });
    }
    if token.key_name != key_name {
        return Err(TokenError::KeyName { wanted: key_name });
    }
    let lifetime = i64::from(world.settings.token_lifetime);
    let slack = i64::from(world.settings.token_slack);
    match token.check_expiry(clock.now(), lifetime + slack) {
        // With a clock that was shifted on purpose it is not the client's fault.
        Err(error) if clock.skew() != 0 => Err(TokenError::Skewed(Box::new(error))),
        Err(error) => Err(error),
        Ok(()) if clock.skew() == 0 && token.expiry < clock.now() + lifetime - 2 * slack => {
            Err(TokenError::Stale {
                left: token.expiry - clock.now(),
                lifetime,
            })
        }
        Ok(()) => Ok(token),
    }
}

/// Checks that a body is written compactly: as its value would be written again. Bodies with escapes or non-ASCII
/// text, which can be written in several ways, are not compared.
///
/// # Errors
/// Says so.
pub fn check_json_form(body: &[u8], value: &Value) -> Result<(), String> {
    let comparable = body.is_ascii() && !body.contains(&b'\\');
    if comparable && value.to_string().as_bytes() != body {
        return Err(format!(
            "the body is not compact JSON, which would be {value}"
        ));
    }
    Ok(())
}

/// What is wrong with a request before its contents are looked at, all in one.
fn check_shape(clock: &Clock, route: &Route, request: &Request) -> Option<Refusal> {
    if matches!(route, Route::Events { .. }) {
        // Anybody may call this one, with any client.
        if !route.methods().contains(&request.method.as_str()) {
            let mut refusal = bad_request(clock, route, "only POST is understood here");
            refusal.violation = false;
            return Some(refusal);
        }
        return None;
    }
    if *route == Route::Unknown {
        return Some(Refusal {
            response: hub::error(clock, 404, "NotFound", "Resource not found"),
            reason: "neither DPS nor IoT Hub has this resource".to_owned(),
            violation: true,
        });
    }
    let mut problems = match route {
        Route::Est { operation, .. } => est::shape_problems(request, *operation),
        _ => request.shape_problems(),
    };
    problems.extend(path_problem(request.path()));
    if !route.methods().contains(&request.method.as_str()) {
        problems.push(format!("method {} is not understood here", request.method));
    }
    let version = if route.is_dps() {
        dps::API_VERSION
    } else {
        hub::API_VERSION
    };
    let query = format!("api-version={version}");
    if !route.is_est() && request.query() != Some(&query) {
        problems.push(format!(
            "the query has to be {query:?}, not {:?}",
            request.query().unwrap_or_default()
        ));
    }
    if route.is_dps() && request.header("if-match").is_some() {
        problems.push("header \"if-match\" must not be sent to DPS".to_owned());
    }
    if matches!(route, Route::Poll { .. }) && !request.body.is_empty() {
        problems.push("a poll has no body".to_owned());
    }
    (!problems.is_empty()).then(|| bad_request(clock, route, &problems.join("; ")))
}

fn bad_request(clock: &Clock, route: &Route, problem: &str) -> Refusal {
    if route.is_est() {
        Refusal {
            response: est::text(400, problem),
            reason: problem.to_owned(),
            violation: true,
        }
    } else if route.is_dps() {
        dps::bad_request(clock, problem)
    } else {
        hub::bad_request(clock, problem)
    }
}

/// 429 in the service's form.
fn throttled(clock: &Clock, route: &Route, retry_after: Option<u32>) -> Response {
    let response = if route.is_est() {
        est::text(429, "too many requests")
    } else if route.is_dps() {
        dps::error(
            clock,
            429,
            429_001,
            "Operations are being throttled for this tenant.",
        )
    } else {
        hub::error(clock, 429, "ThrottlingException", "Throttling")
    };
    match retry_after {
        Some(seconds) => response.with_header("Retry-After", &seconds.to_string()),
        None => response,
    }
}

fn deliver(fault: Option<&Action>, response: Response) -> (Response, Delivery) {
    let delivery = match fault {
        Some(Action::Delay { ms }) => Delivery::Delayed(Duration::from_millis(*ms)),
        Some(Action::Drip { bytes, ms }) => {
            Delivery::Drip((*bytes).max(1), Duration::from_millis(*ms))
        }
        Some(Action::LoseAnswer) => Delivery::Reset,
        Some(Action::Truncate { bytes }) => Delivery::Truncated(*bytes),
        _ => Delivery::Normal,
    };
    (response, delivery)
}

/// A request that was let in.
enum Checked {
    Est(est::Admitted),
    Hub(hub::Operation),
    Poll(String),
    Register(Box<dps::Registration>),
}

impl Checked {
    fn check(
        world: &World,
        clock: &Clock,
        route: &Route,
        request: &Request,
    ) -> Result<Self, Refusal> {
        match route {
            Route::Est { realm, operation } => {
                est::check(world, request, realm, *operation).map(Self::Est)
            }
            Route::Events { device, module } => {
                hub::check_event(world, clock, request, device, module.as_deref()).map(Self::Hub)
            }
            Route::Module { device, module } => {
                hub::check_modules(world, clock, request, device, Some(module)).map(Self::Hub)
            }
            Route::Modules { device } => {
                hub::check_modules(world, clock, request, device, None).map(Self::Hub)
            }
            Route::Poll {
                scope,
                registration,
                operation,
            } => dps::check_poll(world, clock, request, scope, registration, operation)
                .map(Self::Poll),
            Route::Register {
                scope,
                registration,
            } => {
                let registration = dps::check_register(world, clock, request, scope, registration)?;
                Ok(Self::Register(Box::new(registration)))
            }
            Route::Unknown => Err(Refusal {
                response: Response::empty(404),
                reason: "unknown resource".to_owned(),
                violation: false, // noted before
            }),
        }
    }

    fn perform(self, world: &mut World, clock: &Clock) -> Result<Response, Refusal> {
        match self {
            Self::Est(admitted) => est::perform(world, clock, admitted),
            Self::Hub(operation) => hub::perform(world, clock, operation),
            Self::Poll(operation) => Ok(dps::poll(world, clock, &operation)),
            Self::Register(registration) => Ok(dps::register(world, clock, *registration)),
        }
    }
}
