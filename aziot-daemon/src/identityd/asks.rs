//! From requests to what they ask for: decoding, authorisation, parameters (identity-service 4.3, 5.4).

use aziot_core::api::identity::{CreateModule, DeviceRequest, Op};
use aziot_core::http::Method;
use aziot_core::id::ModuleId;
use aziot_core::json;

use super::callers::{Access, Caller, Callers, Primary};
use super::error::{Class, Error};
use crate::service::Request;

/// What a request asks for, once it is known to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The device identity.
    Device,
    /// What the device is provisioned from.
    Provisioning,
    /// A module identity, or all of them.
    Read(Read),
    /// A new assignment.
    Reprovision,
    /// How the service is.
    Status,
    /// The trust bundle.
    TrustBundle,
    /// A change of a module identity.
    Write(Write),
}

/// What is read from the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// All modules.
    All,
    /// One, by name.
    One(String),
}

/// What is written to the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What is done.
    pub change: Change,
    /// To which module.
    pub module: String,
}

/// A change of a module identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it.
    Create,
    /// Remove it.
    Delete,
    /// Set its keys again.
    Update,
}

/// Finds out what a request asks for, and whether its sender may.
///
/// # Errors
/// What the client is to be told.
pub fn accept(request: &mut Request<'_, Op>, callers: &Callers) -> Result<Ask, Error> {
    let caller = callers.caller(request.peer.uid);
    match (request.op, request.method) {
        (Op::Identity, _) => match caller.primary() {
            Some(Primary::Device) => Ok(Ask::Device),
            Some(Primary::Module(name)) => Ok(Ask::Read(Read::One(name.to_owned()))),
            None => Err(Error::new(Class::Authorization)),
        },
        (Op::Device, _) => {
            let _: DeviceRequest<'_> = decode(request)?;
            authorize(caller, Access::Device)?;
            Ok(Ask::Device)
        }
        (Op::Reprovision, _) => {
            well_formed(request)?;
            authorize(caller, Access::Manage)?;
            Ok(Ask::Reprovision)
        }
        (Op::Provisioning, _) => Ok(Ask::Provisioning),
        (Op::TrustBundle, _) => Ok(Ask::TrustBundle),
        (Op::Status, _) => Ok(Ask::Status),
        (Op::Modules, Method::Post) => {
            let create: CreateModule<'_> = decode(request)?;
            authorize(caller, Access::Manage)?;
            match create.kind {
                "aziot" => Ok(Ask::Write(Write {
                    change: Change::Create,
                    module: name(create.module_id)?,
                })),
                "local" => Err(local(callers, &name(create.module_id)?, Change::Create)),
                other => Err(invalid_type(other)),
            }
        }
        (Op::Modules, _) => {
            authorize(caller, Access::Manage)?;
            match kind(request.kind)? {
                "aziot" => Ok(Ask::Read(Read::All)),
                other => Err(invalid_type(other)),
            }
        }
        (Op::Module, Method::Get) => {
            authorize(caller, Access::Module(request.param))?;
            match kind(request.kind)? {
                "aziot" if !caller.may_use_hub() => Err(Error::new(Class::Authorization)),
                "aziot" => Ok(Ask::Read(Read::One(name(request.param)?))),
                "local" => Err(local(callers, request.param, Change::Update)),
                other => Err(invalid_type(other)),
            }
        }
        (Op::Module, method) => {
            let change = if method == Method::Put {
                Change::Update
            } else {
                Change::Delete
            };
            well_formed(request)?;
            authorize(caller, Access::Manage)?;
            match kind(request.kind)? {
                "aziot" => Ok(Ask::Write(Write {
                    change,
                    module: name(request.param)?,
                })),
                other => Err(invalid_type(other)),
            }
        }
    }
}

fn authorize(caller: Caller<'_>, access: Access<'_>) -> Result<(), Error> {
    if caller.may(access) {
        Ok(())
    } else {
        Err(Error::new(Class::Authorization))
    }
}

fn decode<'r, T: json::FromJson<'r>>(request: &mut Request<'r, Op>) -> Result<T, Error> {
    let body = request.body.take().ok_or(Error::new(Class::MissingBody))?;
    json::from_slice(body).map_err(|error| Error::because(Class::Unprocessable, error))
}

/// The content of the body is not looked at, but nonsense is refused.
fn well_formed(request: &mut Request<'_, Op>) -> Result<(), Error> {
    match request.body.take() {
        Some(body) => {
            json::validate(body).map_err(|error| Error::because(Class::Unprocessable, error))
        }
        None => Ok(()),
    }
}

/// The query parameter `type`.
fn kind(given: Option<&str>) -> Result<&str, Error> {
    given.ok_or_else(|| Error::parameter("type", "missing parameter"))
}

fn invalid_type(kind: &str) -> Error {
    Error::parameter("type", format_args!("invalid type: {kind}"))
}

/// A module name that the hub could have.
fn name(module: &str) -> Result<String, Error> {
    if module.trim().is_empty() {
        return Err(Error::parameter("module_id", "module name cannot be empty"));
    }
    match ModuleId::new(module) {
        Ok(_) => Ok(module.to_owned()),
        Err(error) => Err(Error::parameter("module_id", error)),
    }
}

/// What becomes of a request for a local identity.
fn local(callers: &Callers, module: &str, change: Change) -> Error {
    match (callers.is_local(module), change) {
        (true, Change::Create) => Error::parameter(
            "moduleId",
            format_args!("local identity for {module} already exists"),
        ),
        (false, Change::Update | Change::Delete) => Error::parameter(
            "moduleId",
            format_args!("local identity for {module} doesn't exist"),
        ),
        (true, Change::Update | Change::Delete) | (false, Change::Create) => Error::because(
            Class::Internal,
            "local identities are not supported by this build yet; they need the Certificates Service",
        ),
    }
}
