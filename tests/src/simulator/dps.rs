//! The Device Provisioning Service, device API 2021-06-01, with symmetric keys.

use serde_json::{Value, json};

use super::clock::Clock;
use super::http::{Request, Response};
use super::route::encode_segment;
use super::service::{Refusal, check_json_form, strict_token};
use super::settings::{Enrolment, Key, Outcome};
use super::token::derive_device_key;
use super::world::{Keys, Operation, World, random_bytes, random_hex, random_uuid};

/// The one api-version.
pub const API_VERSION: &str = "2021-06-01";

/// A registration that was let in.
#[derive(Debug)]
pub struct Registration {
    id: String,
    enrolment: Enrolment,
    keys: Keys,
    payload: Option<Value>,
}

/// Checks a registration request.
///
/// # Errors
/// The answer that refuses it.
pub fn check_register(
    world: &World,
    clock: &Clock,
    request: &Request,
    scope: &str,
    id: &str,
) -> Result<Registration, Refusal> {
    let (enrolment, keys) = check_caller(world, clock, request, scope, id)?;
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| bad_request(clock, &format!("the body is not JSON: {error}")))?;
    let members = body
        .as_object()
        .ok_or_else(|| bad_request(clock, "the body is not a JSON object"))?;
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    if !matches!(
        names.as_slice(),
        ["registrationId"] | ["registrationId", "payload"]
    ) {
        return Err(bad_request(
            clock,
            &format!("the body has the members {names:?}"),
        ));
    }
    if members.get("registrationId").and_then(Value::as_str) != Some(id) {
        return Err(bad_request(
            clock,
            "registrationId in the body is not the one in the path",
        ));
    }
    let payload = members.get("payload").cloned();
    if payload.is_none() {
        check_json_form(&request.body, &body).map_err(|problem| bad_request(clock, &problem))?;
    }
    Ok(Registration {
        id: id.to_owned(),
        enrolment,
        keys,
        payload,
    })
}

/// Checks a poll.
///
/// # Errors
/// The answer that refuses it.
pub fn check_poll(
    world: &World,
    clock: &Clock,
    request: &Request,
    scope: &str,
    id: &str,
    operation: &str,
) -> Result<String, Refusal> {
    check_caller(world, clock, request, scope, id)?;
    match world.operations.get(operation) {
        Some(known) if known.registration == id => Ok(operation.to_owned()),
        _ => Err(Refusal {
            response: error(clock, 404, 404_202, "Operation not found"),
            reason: format!("registration {id:?} has no operation {operation:?}"),
            violation: true,
        }),
    }
}

/// Begins a registration.
pub fn register(world: &mut World, clock: &Clock, registration: Registration) -> Response {
    let Registration {
        id,
        enrolment,
        keys,
        payload,
    } = registration;
    let operation_id = format!("4.{}.{}", random_hex(8), random_uuid());
    let immediate = enrolment.immediate;
    let polls_left = enrolment
        .assigning_polls
        .unwrap_or(world.settings.assigning_polls);
    let operation = Operation {
        registration: id.clone(),
        enrolment,
        keys,
        payload,
        created: clock.rfc3339(),
        polls_left: if immediate { 0 } else { polls_left },
        result: None,
    };
    world.operations.insert(operation_id.clone(), operation);
    if immediate {
        return poll(world, clock, &operation_id);
    }
    let body = json!({ "operationId": operation_id, "status": "assigning" });
    in_progress(world, &id, &operation_id, &body)
}

/// Answers a poll; the last one assigns the device.
pub fn poll(world: &mut World, clock: &Clock, operation_id: &str) -> Response {
    let Some(mut operation) = world.operations.get(operation_id).cloned() else {
        return error(clock, 404, 404_202, "Operation not found");
    };
    if let Some(result) = &operation.result {
        return Response::json(200, result);
    }
    if let Some(left) = operation.polls_left.checked_sub(1) {
        operation.polls_left = left;
        let body = json!({
            "operationId": operation_id,
            "status": "assigning",
            "registrationState": {
                "registrationId": operation.registration,
                "createdDateTimeUtc": operation.created,
                "status": "assigning",
                "lastUpdatedDateTimeUtc": clock.rfc3339(),
            },
        });
        let id = operation.registration.clone();
        world.operations.insert(operation_id.to_owned(), operation);
        return in_progress(world, &id, operation_id, &body);
    }
    let state = finish(world, clock, &operation);
    let result = json!({ "operationId": operation_id, "status": state["status"], "registrationState": state });
    operation.result = Some(result.clone());
    world.operations.insert(operation_id.to_owned(), operation);
    Response::json(200, &result)
}

/// An error in the service's form.
#[must_use]
pub fn error(clock: &Clock, status: u16, code: i64, message: &str) -> Response {
    let body = json!({
        "errorCode": code,
        "trackingId": random_uuid(),
        "message": message,
        "timestampUtc": clock.rfc3339(),
    });
    Response::json(status, &body)
}

/// A violation in the service's form.
pub fn bad_request(clock: &Clock, problem: &str) -> Refusal {
    Refusal {
        response: error(clock, 400, 400_004, &format!("Bad request: {problem}")),
        reason: problem.to_owned(),
        violation: true,
    }
}

/// Finds out who calls: an individual enrolment before a group, as the service does it.
fn check_caller(
    world: &World,
    clock: &Clock,
    request: &Request,
    scope: &str,
    id: &str,
) -> Result<(Enrolment, Keys), Refusal> {
    let unauthorized = |reason: String, violation: bool| Refusal {
        response: error(clock, 401, 401_002, "Unauthorized"),
        reason,
        violation,
    };
    let host = request.header("host").unwrap_or_default().to_lowercase();
    if !world.own_hosts.contains(&host) {
        return Err(bad_request(
            clock,
            &format!("host {host:?} is not DPS, which is {:?}", world.own_hosts),
        ));
    }
    let wanted = format!("{scope}/registrations/{id}");
    let token = strict_token(world, clock, request, &wanted, Some("registration"))
        .map_err(|error| unauthorized(error.to_string(), error.is_violation()))?;
    if scope != world.scope_id {
        return Err(unauthorized(
            format!("there is no id scope {scope:?}"),
            false,
        ));
    }
    if let Some(enrolment) = world.enrolments.get(id) {
        let keys = Keys::new(enrolment.key.clone(), enrolment.secondary_key.clone());
        return match token.verify(keys.all()) {
            Ok(()) => Ok((enrolment.clone(), keys)),
            Err(error) => Err(unauthorized(format!("enrolment {id:?}: {error}"), false)),
        };
    }
    for group in world.groups.values() {
        let derive = |key: &Key| Key::from(derive_device_key(&key.0, id));
        let keys = Keys::new(derive(&group.key), group.secondary_key.as_ref().map(derive));
        if token.verify(keys.all()).is_ok() {
            return Ok((group.clone(), keys));
        }
    }
    let reason =
        format!("{id:?} has no enrolment of its own and no group's derived key signed the token");
    Err(unauthorized(reason, false))
}

/// 202, with the time to wait before the next poll.
fn in_progress(world: &mut World, id: &str, operation_id: &str, body: &Value) -> Response {
    let response = Response::json(202, body);
    let Some(seconds) = world.settings.retry_after else {
        return response;
    };
    let path = format!(
        "/{}/registrations/{}/operations/{}",
        encode_segment(&world.scope_id),
        encode_segment(id),
        encode_segment(operation_id)
    );
    world.tell_to_wait("GET", &path, seconds);
    response.with_header("Retry-After", &seconds.to_string())
}

/// The final registration state. Assigns the device.
fn finish(world: &mut World, clock: &Clock, operation: &Operation) -> Value {
    let enrolment = &operation.enrolment;
    let id = &operation.registration;
    let mut state = json!({ "registrationId": id, "createdDateTimeUtc": operation.created });
    let mut set = |name: &str, value: Value| state[name] = value;
    match &enrolment.outcome {
        Outcome::Assigned => {
            let model = operation
                .payload
                .as_ref()
                .and_then(|payload| payload.get("modelId"));
            let hub = model
                .and_then(Value::as_str)
                .and_then(|model| enrolment.hub_by_model.get(model))
                .or(enrolment.hub.as_ref())
                .cloned()
                .unwrap_or_else(|| world.default_hub());
            let device_id = enrolment.device_id.as_ref().unwrap_or(id);
            world.assign_device(&hub, device_id, operation.keys.clone());
            set("assignedHub", json!(hub));
            set("deviceId", json!(device_id));
            set("status", json!("assigned"));
            set("substatus", json!("initialAssignment"));
            let payload = enrolment.payload.clone().or_else(|| {
                let payload = operation.payload.as_ref()?;
                Some(json!({ "msg": "custom allocation payload received", "request_payload": payload }))
            });
            set("payload", json!(payload));
        }
        Outcome::Disabled => set("status", json!("disabled")),
        Outcome::Failed {
            error_code,
            error_message,
        } => {
            set("status", json!("failed"));
            set("errorCode", json!(error_code));
            set("errorMessage", json!(error_message));
        }
        Outcome::Unassigned => set("status", json!("unassigned")),
    }
    set("lastUpdatedDateTimeUtc", json!(clock.rfc3339()));
    set("etag", json!(Key(random_bytes(12)).to_base64()));
    state
}
