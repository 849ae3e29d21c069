//! The control interface: JSON over HTTP/1.1 on a Unix socket, one request per connection.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fault::Fault;
use super::http::{ReadError, Request, Response};
use super::server::{Listener, Shared};
use super::settings::{Enrolment, NewDevice, NewModule, Settings};
use super::token::percent_decode;

/// What the interface understands, for people.
pub const HELP: &str = "\
GET    /                        this text
GET    /state                   everything the services know, keys included, and connection counts
GET    /log?since=N&waitMs=T    requests after number N; waits up to T ms (at most 60000) until there is one
DELETE /log                     forget the requests (numbers go on)
GET    /violations              deviations from what the daemon has to send; empty when all is well
DELETE /violations              forget them
PUT    /enrolments/ID           individual enrolment: {\"key\":\"<base64>\"}, and if wanted secondaryKey, deviceId,
                                hub, hubByModel {\"<modelId>\":\"<hub>\"}, assigningPolls, payload, immediate, and
                                outcome: \"assigned\" | \"disabled\" | \"unassigned\" |
                                {\"failed\":{\"errorCode\":400207,\"errorMessage\":\"...\"}}
DELETE /enrolments/ID
PUT    /groups/ID               enrolment group: the same without deviceId; devices' keys are derived from its keys
DELETE /groups/ID
PUT    /devices/ID              {\"key\":\"<base64>\"}, and if wanted secondaryKey, hub, enabled
DELETE /devices/ID?hub=HUB
PUT    /devices/ID/modules/ID   {} or hub, managedBy, authType, key: made anew, as by another tool
DELETE /devices/ID/modules/ID?hub=HUB
PUT    /est/REALM               EST below https://HOST/REALM/: {} or basic {\"username\":..,\"password\":..},
                                client (\"none\" | \"any\" | \"bootstrap\" | \"issued\"), lifetime and backdate (seconds),
                                reenroll, csrAttributes (OIDs), pending (202 answers), retryAfter,
                                form (\"base64\" | \"ragged\" | \"oneLine\" | \"der\" | \"pem\"),
                                yields (\"leaf\" | \"chain\" | \"reversed\" | \"otherKey\" | \"empty\" | \"noContent\" |
                                \"garbage\"), contentType. What was issued is in the state; the authorities are in
                                est-root.pem and est-int.pem, a bootstrap identity in est-bootstrap.pem (-key.pem)
DELETE /est/REALM
GET    /faults                  those that wait
POST   /faults                  {\"action\":ACTION}, and if wanted route, method, path (with *), skip, count
DELETE /faults
GET    /settings                how the services behave
PUT    /settings                the members that change: assigningPolls, retryAfter (seconds or null),
                                early (\"record\" | \"reject\" | \"throttle\"), timeScale,
                                framing (\"service\" | \"chunked\" | \"length\" | \"close\"),
                                tokenLifetime, tokenSlack, eventTokenLifetime (seconds)
PUT    /clock                   {\"skewSeconds\":N}: the services' time is N s ahead of the system's
POST   /listener/stop           end all connections and refuse new ones; the port stays ours
POST   /listener/start          accept connections again
POST   /shutdown                end the program

ACTION, for requests: \"hang\" | \"reset\" | \"loseAnswer\" (served, then reset) | {\"delay\":{\"ms\":N}} |
  {\"drip\":{\"bytes\":N,\"ms\":N}} | {\"truncate\":{\"bytes\":N}} | {\"contentType\":\"text/plain\"} |
  {\"throttle\":{\"retryAfter\":N}} | {\"respond\":{\"status\":N,\"headers\":{...},\"body\":\"<html>\" or JSON}}
ACTION, for connections: \"hangConnection\" | \"resetConnection\" | \"untrustedCertificate\" |
  \"expiredCertificate\" | \"wrongName\"
Routes: register, poll, module-create, module-keys, module-get, module-list, module-delete, events,
  est-cacerts, est-csrattrs, est-simpleenroll, est-simplereenroll, unknown
Ids in paths are percent-encoded. Errors are {\"message\":\"...\"}.
";

/// How long a client may take for its request.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for a log entry, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

/// The thread that serves the interface.
pub struct Control {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the interface works on.
pub struct Target {
    /// The services.
    pub shared: Arc<Shared>,
    /// Their listener.
    pub listener: Arc<Mutex<Listener>>,
    /// Called for `POST /shutdown`.
    pub shutdown: Box<dyn Fn() + Send + Sync>,
}

impl Control {
    /// Listens on `path`; a socket of that name is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(path: &Path, target: Target) -> io::Result<Self> {
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let target = Arc::new(target);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stopping.load(Ordering::SeqCst) {
                        break;
                    }
                    let target = Arc::clone(&target);
                    // If no thread can be started, the connection is closed.
                    let _ = thread::Builder::new().spawn(move || serve(&target, stream));
                }
            })?;
        Ok(Self {
            path: path.to_owned(),
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        // Without a connection (somebody removed the file) accept() cannot be woken; the thread ends with the process.
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

fn serve(target: &Target, mut stream: UnixStream) {
    let _ = stream.set_read_timeout(Some(READ_TIMEOUT));
    let _ = stream.set_write_timeout(Some(READ_TIMEOUT));
    let mut ends = false;
    let response = match Request::read(&mut stream, &mut Vec::new()) {
        Ok(Some(request)) => {
            ends = request.method == "POST" && request.path() == "/shutdown";
            answer(target, &request).unwrap_or_else(|problem| problem)
        }
        Ok(None) | Err(ReadError::Io(_)) => return,
        Err(ReadError::Malformed(problem)) => message(400, &problem),
    };
    let _ = response.write_closing(&mut stream, &target.shared.clock.http_date());
    // Only now: the program may be gone before the answer is.
    if ends {
        (target.shutdown)();
    }
}

/// Answers a control request.
fn answer(target: &Target, request: &Request) -> Result<Response, Response> {
    let segments: Option<Vec<String>> = request
        .path()
        .split('/')
        .skip(1)
        .map(percent_decode)
        .collect();
    let segments = segments.ok_or_else(|| message(400, "the path is not percent-encoded UTF-8"))?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let shared = &target.shared;
    let done = || Ok(Response::empty(204));
    let existed = |existed: bool| {
        if existed {
            done()
        } else {
            Err(message(404, "there is none of that name"))
        }
    };
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", [""]) => Ok(Response::empty(200)
            .with_header("Content-Type", "text/plain")
            .with_body(HELP.into())),
        ("GET", ["state"]) => {
            let mut state = shared.world().to_json();
            let (accepted, failed) = shared.connection_counts();
            state["connections"] = json!({ "accepted": accepted, "failedHandshakes": failed });
            state["skewSeconds"] = json!(shared.clock.skew());
            Ok(Response::json(200, &state))
        }
        ("GET", ["log"]) => {
            let since = number(request, "since")?.unwrap_or(0);
            let wait = number(request, "waitMs")?.unwrap_or(0).min(MAX_WAIT_MS);
            shared.wait_until(Duration::from_millis(wait), |world| {
                world.journal.last_number() > since
            });
            let world = shared.world();
            let entries = world
                .journal
                .entries_since(since)
                .map(super::journal::Entry::to_json);
            Ok(Response::json(200, &entries.collect()))
        }
        ("DELETE", ["log"]) => {
            shared.world().journal.clear_entries();
            done()
        }
        ("GET", ["violations"]) => {
            let world = shared.world();
            let violations = world
                .journal
                .violations()
                .iter()
                .map(super::journal::Violation::to_json);
            Ok(Response::json(200, &violations.collect()))
        }
        ("DELETE", ["violations"]) => {
            shared.world().journal.clear_violations();
            done()
        }
        ("PUT", ["enrolments", id]) => {
            let enrolment: Enrolment = body(request)?;
            shared
                .world()
                .enrolments
                .insert((*id).to_owned(), enrolment);
            done()
        }
        ("DELETE", ["enrolments", id]) => existed(shared.world().enrolments.remove(*id).is_some()),
        ("PUT", ["groups", id]) => {
            let group = body(request)?;
            shared
                .world()
                .add_group(id, group)
                .map_err(|problem| message(400, &problem))?;
            done()
        }
        ("DELETE", ["groups", id]) => existed(shared.world().groups.remove(*id).is_some()),
        ("PUT", ["devices", id]) => {
            let device: NewDevice = body(request)?;
            shared.world().add_device(id, device);
            done()
        }
        ("DELETE", ["devices", id]) => {
            let hub = query(request, "hub")?;
            existed(shared.world().remove_device(hub.as_deref(), id))
        }
        ("PUT", ["devices", device, "modules", id]) => {
            let module: NewModule = body(request)?;
            let now = shared.clock.millis();
            let added = shared.world().add_module(device, id, module, now);
            added.map_err(|problem| message(404, &problem))?;
            done()
        }
        ("DELETE", ["devices", device, "modules", id]) => {
            let hub = query(request, "hub")?;
            existed(shared.world().remove_module(hub.as_deref(), device, id))
        }
        ("PUT", ["est", realm]) => {
            let rules = body(request)?;
            shared.world().est.realms.insert((*realm).to_owned(), rules);
            done()
        }
        ("DELETE", ["est", realm]) => existed(shared.world().est.realms.remove(*realm).is_some()),
        ("GET", ["faults"]) => Ok(Response::json(200, &json!(shared.world().faults.waiting()))),
        ("POST", ["faults"]) => {
            let fault: Fault = body(request)?;
            fault.check().map_err(|problem| message(400, &problem))?;
            shared.world().faults.add(fault);
            done()
        }
        ("DELETE", ["faults"]) => {
            shared.world().faults.clear();
            done()
        }
        ("GET", ["settings"]) => Ok(Response::json(200, &json!(shared.world().settings))),
        ("PUT", ["settings"]) => {
            let mut world = shared.world();
            world.settings = merged(&world.settings, &body(request)?)?;
            done()
        }
        ("PUT", ["clock"]) => {
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            struct Skew {
                skew_seconds: i64,
            }
            shared.clock.set_skew(body::<Skew>(request)?.skew_seconds);
            done()
        }
        ("POST", ["listener", action @ ("start" | "stop")]) => {
            let mut listener = target
                .listener
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let result = if *action == "stop" {
                listener.close()
            } else {
                listener.reopen()
            };
            result.map_err(|error| message(500, &error.to_string()))?;
            done()
        }
        ("POST", ["shutdown"]) => done(),
        (method, _) => Err(message(
            404,
            &format!("{method} {} is not understood; see GET /", request.path()),
        )),
    }
}

/// `settings` with the members of `changes`.
fn merged(settings: &Settings, changes: &Value) -> Result<Settings, Response> {
    let mut value = json!(settings);
    let (Some(members), Some(changes)) = (value.as_object_mut(), changes.as_object()) else {
        return Err(message(400, "settings are an object"));
    };
    members.extend(changes.clone());
    let merged: Settings =
        serde_json::from_value(value).map_err(|error| message(400, &error.to_string()))?;
    if !merged.time_scale.is_finite() || merged.time_scale < 0.0 {
        return Err(message(400, "timeScale has to be zero or more"));
    }
    Ok(merged)
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Response> {
    serde_json::from_slice(&request.body)
        .map_err(|error| message(400, &format!("the body: {error}")))
}

fn query(request: &Request, name: &str) -> Result<Option<String>, Response> {
    let members = request.query().unwrap_or_default().split('&');
    let found = members
        .filter_map(|member| member.split_once('='))
        .find(|(n, _)| *n == name);
    found
        .map(|(_, value)| {
            percent_decode(value)
                .ok_or_else(|| message(400, "the query is not percent-encoded UTF-8"))
        })
        .transpose()
}

fn number(request: &Request, name: &str) -> Result<Option<u64>, Response> {
    let text = query(request, name)?;
    text.map(|text| {
        text.parse()
            .map_err(|_| message(400, &format!("{name} has to be a number")))
    })
    .transpose()
}

fn message(status: u16, text: &str) -> Response {
    Response::json(status, &json!({ "message": text }))
}
