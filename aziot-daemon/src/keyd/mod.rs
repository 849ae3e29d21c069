//! The Keys Service: keys are used through it and never leave it.
//!
//! Requests whose keys are in memory are answered in the loop; what needs a disk or a token runs in a worker, in parallel
//! for different keys with our own library, one call at a time with any other.

mod library;
mod operation;
pub(crate) mod settings;

use std::sync::Arc;

use aziot_core::access::{self, Principals};
use aziot_core::api::{Api, keys};
use aziot_core::config::keyd::Settings;
use aziot_core::{json, limits};
use zeroize::Zeroizing;

use self::library::{Library, Mode};
use self::operation::{Answer, Call, Failure, Work};
use crate::config_files::ConfigFiles;
use crate::lanes::Lane;
use crate::outcome::Fatal;
use crate::paths::{Root, Service as Which};
use crate::server::{self, Setup};
use crate::service::{Context, Handled, Reply, Request, RequestId, Service};
use crate::timing::Timing;
use crate::wipe::wipe;

/// Bodies up to this size are worth an attempt in the loop; larger ones go to a worker at once.
const SMALL_BODY: usize = 16 * 1024;

/// Runs the Keys Service to its end.
///
/// # Errors
/// What keeps it from starting.
pub fn run() -> Result<(), Fatal> {
    let passed = server::passed().map_err(Fatal::service)?;
    let root = Root::from_env().map_err(Fatal::config)?;
    let files = ConfigFiles::of(Which::Keyd, &root);
    let watch = server::watch_configuration(&files.file, &files.directory);
    let settings = settings::load(&files, &root.places()).map_err(|error| Fatal {
        top: "could not read config",
        error,
    })?;
    let library = settings::open_library(&settings).map_err(Fatal::service)?;
    let setup = Setup {
        endpoint: settings::endpoint(&settings.endpoint),
        max_requests: settings.max_requests,
        passed,
        watch,
        timing: Timing::from_env(),
        announce: true,
    };
    server::serve(|_| Keyd::new(library, settings, files, root), setup).map_err(Fatal::service)
}

/// The Keys Service.
pub struct Keyd {
    library: Arc<Library>,
    /// In parallel for our own library, which can take it; one at a time for any other.
    lane: Lane,
    settings: Settings,
    files: ConfigFiles,
    root: Root,
    /// Request bodies are decoded in place, so the attempt in the loop works on a copy.
    copy: Vec<u8>,
    work: Work,
    /// Counts readings of the configuration: the last one counts, also when it is done first.
    readings: u64,
}

/// What comes back from workers.
pub enum Event {
    /// An operation is done.
    Done(RequestId, Result<Answer, Failure>, Work),
    /// The configuration was read again.
    Reloaded(u64, Result<Settings, String>),
    /// Left-over files have been removed.
    Swept,
}

impl Keyd {
    fn new(library: Library, settings: Settings, files: ConfigFiles, root: Root) -> Self {
        let lane = if library.is_extended() {
            Lane::Local
        } else {
            Lane::Library
        };
        Self {
            library: Arc::new(library),
            lane,
            settings,
            files,
            root,
            copy: Vec::new(),
            work: Work::default(),
            readings: 0,
        }
    }

    /// Checks the request, and answers it if that can be done from memory. `None` when it cannot.
    fn attempt(&mut self, request: &Request<'_, keys::Op>) -> Result<Option<Answer>, Failure> {
        let body = request.body.as_deref();
        let names_ids = matches!(
            request.op,
            keys::Op::Keys | keys::Op::KeyPairs | keys::Op::Key | keys::Op::KeyPair
        );
        if names_ids {
            let call = copied(&mut self.copy, request, body);
            let settings = &self.settings;
            operation::check(call, |id| {
                access::authorize(&Grants(settings), request.peer.uid, id)
                    .map_err(|denied| Failure::Told(401, denied.to_string()))
            })?;
        }
        if self.lane == Lane::Library || body.is_some_and(|body| body.len() > SMALL_BODY) {
            return Ok(None);
        }
        let call = copied(&mut self.copy, request, body);
        match operation::execute(&self.library, Mode::Memory, call, &mut self.work) {
            Ok(answer) => Ok(Some(answer)),
            Err(Failure::WouldBlock) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// A request over a copy of its body.
fn copied<'c>(
    copy: &'c mut Vec<u8>,
    request: &'c Request<'_, keys::Op>,
    body: Option<&[u8]>,
) -> Call<'c> {
    wipe(copy);
    copy.clear();
    let body = body.map(|body| {
        copy.extend_from_slice(body);
        copy.as_mut_slice()
    });
    Call {
        op: request.op,
        method: request.method,
        param: request.param,
        body,
    }
}

impl Service for Keyd {
    type Op = keys::Op;
    type Event = Event;

    const NAME: &'static str = "aziot_keyd";
    const BODY_LIMIT: usize = limits::BODY_KEYS;

    fn api() -> &'static Api<keys::Op> {
        &keys::API
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let library = Arc::clone(&self.library);
        if library.is_extended() {
            let swept = cx.run(Lane::Local, move || {
                library.sweep();
                Event::Swept
            });
            if swept.is_err() {
                log::debug!("left-over temporary files will be removed at the next start");
            }
        }
    }

    fn request(
        &mut self,
        request: Request<'_, keys::Op>,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        let attempt = self.attempt(&request);
        wipe(&mut self.copy);
        self.copy.clear();
        // Usual bodies find their room there already; a large one must not cost memory for ever.
        self.copy.shrink_to(SMALL_BODY);
        let reply = match attempt {
            Ok(Some(answer)) => Err(respond(reply, answer, &self.work)),
            Ok(None) => Ok(reply),
            Err(failure) => Err(refuse(reply, failure)),
        };
        self.work.wipe();
        let reply = match reply {
            Ok(reply) => reply,
            Err(handled) => return handled,
        };
        let library = Arc::clone(&self.library);
        let (id, op, method) = (request.id, request.op, request.method);
        let param = request.param.to_owned();
        let body = request.body.map(|body| Zeroizing::new(body.to_vec()));
        let held = cx.hold(body.as_ref().map_or(0, |body| body.len()));
        let job = move || {
            let _held = held;
            let mut body = body;
            let mut work = Work::default();
            let body = body.as_mut().map(|body| body.as_mut_slice());
            let call = Call {
                op,
                method,
                param: &param,
                body,
            };
            let result = operation::execute(&library, Mode::Full, call, &mut work);
            Event::Done(id, result, work)
        };
        match cx.run(self.lane, job) {
            Ok(()) => Handled::Later,
            Err(_) => reply.error(500, &"too many operations are waiting for the key library"),
        }
    }

    fn event(&mut self, event: Event, cx: &mut Context<'_, Self>) {
        match event {
            Event::Done(id, result, work) => {
                let Some(reply) = cx.reply(id) else { return };
                let _ = match result {
                    Ok(answer) => respond(reply, answer, &work),
                    Err(failure) => refuse(reply, failure),
                };
            }
            // A later reading has begun since, or is done: what this one saw may be older.
            Event::Reloaded(reading, _) if reading != self.readings => {}
            Event::Reloaded(_, Ok(settings)) => self.adopt(settings),
            Event::Reloaded(_, Err(error)) => {
                log::warn!(
                    "Detected config file update, but new config failed to parse. Error: {error}"
                );
            }
            Event::Swept => {}
        }
    }

    fn reload(&mut self, cx: &mut Context<'_, Self>) {
        let (files, places) = (self.files.clone(), self.root.places());
        self.readings += 1;
        let reading = self.readings;
        let read = cx.run(Lane::Local, move || {
            Event::Reloaded(
                reading,
                settings::load(&files, &places).map_err(|error| settings::chain(error.as_ref())),
            )
        });
        if read.is_err() {
            log::warn!(
                "could not read the changed configuration: the service is too busy; send SIGHUP to try again"
            );
        }
    }
}

impl Keyd {
    /// Only principals change in a running service.
    fn adopt(&mut self, new: Settings) {
        if new == self.settings {
            return;
        }
        log::info!("Detected change in config files. Updating config.");
        for name in self.settings.restart_needed(&new) {
            log::warn!("{name} has changed; the change takes effect when aziot-keyd is restarted");
        }
        self.settings.principals = new.principals;
        log::info!("Config update finished.");
    }
}

/// The configured principals as core's access rules see them.
struct Grants<'s>(&'s Settings);

impl Principals for Grants<'_> {
    fn patterns(&self, uid: u32) -> impl Iterator<Item = &str> {
        let principals = self
            .0
            .principals
            .iter()
            .filter(move |principal| principal.uid == uid);
        principals.flat_map(|principal| principal.keys.iter().map(String::as_str))
    }
}

fn respond(reply: Reply<'_>, answer: Answer, work: &Work) -> Handled {
    let bytes = json::Bytes(&work.bytes);
    match answer {
        Answer::Handle => reply.ok(&keys::KeyHandle {
            key_handle: work.handle(),
        }),
        Answer::Signature => reply.ok(&keys::Signature { signature: bytes }),
        Answer::Ciphertext => reply.ok(&keys::CiphertextResponse { ciphertext: bytes }),
        Answer::Plaintext => reply.ok(&keys::PlaintextResponse { plaintext: bytes }),
        Answer::Key => reply.ok(&keys::ExportedKey { key: bytes }),
        Answer::Value => reply.ok(&keys::ParameterBytes { value: bytes }),
        Answer::Word(value) => reply.ok(&keys::Parameter { value }),
        Answer::Nothing => reply.no_content_and_close(),
    }
}

fn refuse(reply: Reply<'_>, failure: Failure) -> Handled {
    match failure {
        Failure::Told(status, text) => reply.error(status, &text),
        Failure::Internal(text) => reply.error(500, &text),
        Failure::WouldBlock => reply.error(500, &"the key library did not do what it was asked to"),
    }
}
