//! IoT Hub: module identities (device API 2017-11-08-preview), and a place where modules and devices show their
//! tokens.

use serde_json::{Value, json};

use super::clock::Clock;
use super::http::{Request, Response};
use super::service::{Refusal, check_json_form, strict_token};
use super::settings::Key;
use super::token::{Token, TokenError, encode_audience, percent_decode};
use super::world::{Device, Keys, World, random_hex, random_uuid};

/// The one api-version of the module operations.
pub const API_VERSION: &str = "2017-11-08-preview";

/// How long a key may be, in bytes.
const KEY_LENGTHS: core::ops::RangeInclusive<usize> = 16..=64;

/// A request that was let in.
#[derive(Debug)]
pub struct Operation {
    hub: String,
    device: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Create { module: String },
    Delete { module: String },
    Event { module: Option<String> },
    Get { module: String },
    List,
    SetKeys { module: String, keys: Keys },
}

/// Checks a request for the modules of a device, or for one of them.
///
/// # Errors
/// The answer that refuses it.
pub fn check_modules(
    world: &World,
    clock: &Clock,
    request: &Request,
    device: &str,
    module: Option<&str>,
) -> Result<Operation, Refusal> {
    let hub = check_daemon(world, clock, request, device)?;
    let if_match = request.header("if-match");
    let needs_match = match (request.method.as_str(), module) {
        ("DELETE", Some(_)) => true,
        ("PUT", Some(_)) => if_match.is_some(),
        _ => false,
    };
    match (needs_match, if_match) {
        (false, None) | (true, Some("*")) => {}
        (true, None) => return Err(bad_request(clock, "if-match: * is missing")),
        (_, Some(value)) => {
            return Err(bad_request(
                clock,
                &format!("if-match: {value} must not be sent here"),
            ));
        }
    }
    if request.method != "PUT" && !request.body.is_empty() {
        return Err(bad_request(clock, "this request has no body"));
    }
    let kind = match (request.method.as_str(), module.map(str::to_owned)) {
        (_, None) => Kind::List,
        ("DELETE", Some(module)) => Kind::Delete { module },
        ("PUT", Some(module)) => {
            let keys = check_module_body(&request.body, device, &module, needs_match)
                .map_err(|problem| bad_request(clock, &problem))?;
            match keys {
                None => Kind::Create { module },
                Some(keys) => Kind::SetKeys { module, keys },
            }
        }
        (_, Some(module)) => Kind::Get { module },
    };
    Ok(Operation {
        hub,
        device: device.to_owned(),
        kind,
    })
}

/// Checks a message of a module or a device. Its sender is a client of the services, so nothing about it is a
/// violation.
///
/// # Errors
/// The answer that refuses it.
pub fn check_event(
    world: &World,
    clock: &Clock,
    request: &Request,
    device: &str,
    module: Option<&str>,
) -> Result<Operation, Refusal> {
    let refuse = |reason: String| unauthorized(clock, reason, false);
    let version = request.query().unwrap_or_default();
    if !version
        .split('&')
        .any(|member| member.starts_with("api-version=2"))
    {
        let mut refusal = bad_request(clock, "api-version is missing");
        refusal.violation = false;
        return Err(refusal);
    }
    let header = request.header("authorization").unwrap_or_default();
    let token = Token::parse(header).map_err(|error| refuse(error.to_string()))?;
    let resource = percent_decode(token.resource)
        .unwrap_or_default()
        .to_lowercase();
    let path = module.map_or_else(
        || format!("/devices/{device}"),
        |module| format!("/devices/{device}/modules/{module}"),
    );
    let candidates = hubs_of_host(world, request);
    let hub = candidates
        .iter()
        .find(|hub| format!("{hub}{path}").to_lowercase() == resource)
        .ok_or_else(|| {
            refuse(format!(
                "token is for sr={resource:?}, this resource is {path:?} at {candidates:?}"
            ))
        })?;
    let known = enabled_device(world, clock, hub, device)?;
    let keys = match module {
        None => &known.keys,
        Some(id) => match known.modules.get(id) {
            Some(module) if module.auth_type == "sas" => &module.keys,
            Some(module) => {
                return Err(refuse(format!(
                    "module authenticates with {}",
                    module.auth_type
                )));
            }
            None => return Err(module_not_found(clock, id)),
        },
    };
    token
        .verify(keys.all())
        .map_err(|error| refuse(error.to_string()))?;
    let lifetime =
        i64::from(world.settings.event_token_lifetime) + i64::from(world.settings.token_slack);
    token
        .check_expiry(clock.now(), lifetime)
        .map_err(|error| refuse(error.to_string()))?;
    let kind = Kind::Event {
        module: module.map(str::to_owned),
    };
    Ok(Operation {
        hub: hub.clone(),
        device: device.to_owned(),
        kind,
    })
}

/// Does what was asked for.
pub fn perform(
    world: &mut World,
    clock: &Clock,
    operation: Operation,
) -> Result<Response, Refusal> {
    let Operation {
        hub,
        device: device_id,
        kind,
    } = operation;
    let fresh = matches!(kind, Kind::Create { .. }).then(|| world.new_module(clock.millis()));
    let Some(device) = world.device_mut(&hub, &device_id) else {
        return Err(device_not_found(clock, &device_id));
    };
    let answer = |device: &Device, id: &str| match device.modules.get(id) {
        Some(module) => Ok(Response::json(200, &module.to_json(&device_id, id))
            .with_header("ETag", &format!("\"{}\"", module.etag))),
        None => Err(module_not_found(clock, id)),
    };
    match kind {
        Kind::Create { module: id } => {
            if device.modules.contains_key(&id) {
                let text = format!(
                    "A module with ID '{id}' is already registered on device '{device_id}'."
                );
                return Err(Refusal {
                    response: error(clock, 409, "ModuleAlreadyExistsOnDevice", &text),
                    reason: format!("module {id:?} exists already"),
                    violation: false,
                });
            }
            device
                .modules
                .extend(fresh.map(|module| (id.clone(), module)));
            answer(device, &id)
        }
        Kind::Delete { module: id } => match device.modules.remove(&id) {
            Some(_) => Ok(Response::empty(204)),
            None => Err(module_not_found(clock, &id)),
        },
        Kind::Event { module } => {
            match module.and_then(|id| device.modules.get_mut(&id)) {
                Some(module) => module.messages += 1,
                None => device.messages += 1,
            }
            Ok(Response::empty(204))
        }
        Kind::Get { module } => answer(device, &module),
        Kind::List => {
            let modules: Vec<Value> = device
                .modules
                .iter()
                .map(|(id, module)| module.to_json(&device_id, id))
                .collect();
            Ok(Response::json(200, &Value::Array(modules)))
        }
        Kind::SetKeys { module: id, keys } => {
            if let Some(module) = device.modules.get_mut(&id) {
                module.keys = keys;
                "sas".clone_into(&mut module.auth_type);
                module.etag = random_hex(8);
                module.key_updates += 1;
            }
            answer(device, &id)
        }
    }
}

/// An error in the service's form.
#[must_use]
pub fn error(clock: &Clock, status: u16, code: &str, text: &str) -> Response {
    let body = json!({
        "Message": format!("ErrorCode:{code};{text}"),
        "ExceptionMessage": format!("Tracking ID:{}-G:0-TimeStamp:{}", random_uuid(), clock.rfc3339()),
    });
    Response::json(status, &body)
}

/// A violation in the service's form.
pub fn bad_request(clock: &Clock, problem: &str) -> Refusal {
    Refusal {
        response: error(clock, 400, "ArgumentInvalid", problem),
        reason: problem.to_owned(),
        violation: true,
    }
}

/// Checks that the daemon calls for `device`; gives the hub.
fn check_daemon(
    world: &World,
    clock: &Clock,
    request: &Request,
    device: &str,
) -> Result<String, Refusal> {
    let candidates = hubs_of_host(world, request);
    let Some(first) = candidates.first() else {
        let host = request.header("host").unwrap_or_default();
        return Err(bad_request(
            clock,
            &format!("host {host:?} is neither a hub nor a gateway"),
        ));
    };
    // Behind a gateway the token tells which hub is meant.
    let header = request.header("authorization").unwrap_or_default();
    let hub = candidates
        .iter()
        .find(|hub| {
            let wanted = encode_audience(&format!("{hub}/devices/{device}").to_lowercase());
            Token::parse(header).is_ok_and(|token| token.resource == wanted)
        })
        .unwrap_or(first);
    let refuse = |error: &TokenError| unauthorized(clock, error.to_string(), error.is_violation());
    let token = strict_token(
        world,
        clock,
        request,
        &format!("{hub}/devices/{device}"),
        None,
    )
    .map_err(|error| refuse(&error))?;
    let known = enabled_device(world, clock, hub, device)?;
    token
        .verify(known.keys.all())
        .map_err(|error| refuse(&error))?;
    Ok(hub.clone())
}

/// The hubs that the request's host may stand for.
fn hubs_of_host(world: &World, request: &Request) -> Vec<String> {
    let host = request.header("host").unwrap_or_default().to_lowercase();
    let any = world.gateways.contains(&host);
    let hubs = world.hubs.keys();
    hubs.filter(|hub| any || hub.to_lowercase() == host)
        .cloned()
        .collect()
}

fn enabled_device<'w>(
    world: &'w World,
    clock: &Clock,
    hub: &str,
    id: &str,
) -> Result<&'w Device, Refusal> {
    match world.device(hub, id) {
        None => Err(device_not_found(clock, id)),
        Some(device) if device.enabled => Ok(device),
        Some(_) => Err(unauthorized(
            clock,
            format!("device {id:?} is disabled"),
            false,
        )),
    }
}

/// Checks the body of a module PUT; gives the keys if it sets them.
fn check_module_body(
    body: &[u8],
    device: &str,
    module: &str,
    sets_keys: bool,
) -> Result<Option<Keys>, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    check_json_form(body, &value)?;
    let has_members = |value: &Value, wanted: &[&str]| match value.as_object() {
        Some(object) if object.keys().map(String::as_str).eq(wanted.iter().copied()) => Ok(()),
        Some(object) => Err(format!(
            "members are {:?}, they have to be {wanted:?}",
            object.keys().collect::<Vec<_>>()
        )),
        None => Err(format!(
            "{value} has to be an object with the members {wanted:?}"
        )),
    };
    if sets_keys {
        has_members(&value, &["moduleId", "deviceId", "authentication"])?;
    } else {
        has_members(&value, &["moduleId", "deviceId"])?;
    }
    if value["moduleId"].as_str() != Some(module) || value["deviceId"].as_str() != Some(device) {
        return Err("moduleId and deviceId in the body are not those of the path".to_owned());
    }
    if !sets_keys {
        return Ok(None);
    }
    let authentication = &value["authentication"];
    has_members(authentication, &["symmetricKey", "type"])?;
    if authentication["type"] != "sas" {
        return Err(format!("authentication type is {}", authentication["type"]));
    }
    has_members(
        &authentication["symmetricKey"],
        &["primaryKey", "secondaryKey"],
    )?;
    let key = |name: &str| {
        let text = authentication["symmetricKey"][name]
            .as_str()
            .ok_or(format!("{name} is not a string"))?;
        let key = Key::from_base64(text).map_err(|problem| format!("{name}: {problem}"))?;
        if KEY_LENGTHS.contains(&key.0.len()) {
            Ok(key)
        } else {
            Err(format!(
                "{name} has {} bytes, keys have {KEY_LENGTHS:?}",
                key.0.len()
            ))
        }
    };
    Ok(Some(Keys::new(
        key("primaryKey")?,
        Some(key("secondaryKey")?),
    )))
}

fn unauthorized(clock: &Clock, reason: String, violation: bool) -> Refusal {
    Refusal {
        response: error(clock, 401, "IotHubUnauthorizedAccess", "Unauthorized"),
        reason,
        violation,
    }
}

fn device_not_found(clock: &Clock, id: &str) -> Refusal {
    Refusal {
        response: error(
            clock,
            404,
            "DeviceNotFound",
            &format!("Device {id} not registered"),
        ),
        reason: format!("there is no device {id:?}"),
        violation: false,
    }
}

fn module_not_found(clock: &Clock, id: &str) -> Refusal {
    Refusal {
        response: error(
            clock,
            404,
            "ModuleNotFound",
            &format!("Module {id} not registered"),
        ),
        reason: format!("there is no module {id:?}"),
        violation: false,
    }
}
