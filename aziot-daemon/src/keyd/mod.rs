//! The Keys Service: keys are used through it and never leave it.
//!
//! A request is first carried out as far as that goes from memory: in the loop, or in a worker if its body is large. If that
//! is not far enough, a worker does the rest, in a lane for what it has to wait for: files, the generation of a key pair, or
//! a token. With any library but our own all calls go through one thread, one at a time.

mod grants;
mod library;
mod operation;
pub(crate) mod settings;
mod status;
mod task;

use std::sync::Arc;

use aziot_core::api::{Api, keys};
use aziot_core::config::keyd::Settings;
use aziot_core::limits;
use zeroize::Zeroizing;

use self::grants::{Caller, Grants};
use self::library::{CallError, Library, Mode, Place, Report};
use self::operation::{Answer, Call, Failure, Work};
use self::status::{About, Told, Waiting};
use self::task::{Task, job, lane};
use crate::configuration::{Configuration, Reading};
use crate::lanes::Lane;
use crate::outcome::Fatal;
use crate::paths::{Root, Service as Which};
use crate::server::{self, Setup};
use crate::service::{Alarm, Context, Handled, Reply, Request, RequestId, Service};
use crate::timing::Timing;
use crate::wipe::wipe;

/// Bodies up to this size are decoded in the loop; larger ones in a worker.
const SMALL_BODY: usize = 16 * 1024;

/// Runs the Keys Service to its end.
///
/// # Errors
/// What keeps it from starting.
pub fn run() -> Result<(), Fatal> {
    let passed = server::passed().map_err(Fatal::service)?;
    let root = Root::from_env().map_err(Fatal::config)?;
    let configuration = Configuration::of(Which::Keyd, &root, settings::load);
    let watch = configuration.watch();
    let settings = configuration.load()?;
    let library = settings::open_library(&settings).map_err(Fatal::service)?;
    let setup = Setup {
        endpoint: settings::endpoint(&settings.endpoint),
        max_requests: settings.max_requests,
        passed,
        watch,
        timing: Timing::from_env(),
        announce: true,
    };
    server::serve(|_| Keyd::new(library, settings, configuration), setup).map_err(Fatal::service)
}

/// The Keys Service.
pub struct Keyd {
    library: Arc<Library>,
    /// Where the key is that authenticates handles.
    handle_key: Place,
    settings: Settings,
    /// The principals of the settings.
    grants: Arc<Grants>,
    configuration: Configuration<Settings>,
    about: About,
    reports: Waiting,
    /// Request bodies are decoded in place, so the attempt in the loop works on a copy.
    copy: Vec<u8>,
    work: Work,
}

/// What comes back from workers.
pub enum Event {
    /// An operation is done.
    Done(RequestId, Result<Answer, Failure>, Work),
    /// A task has to go on elsewhere.
    Elsewhere(Task, Place),
    /// The configuration was read again.
    Reloaded(Reading<Settings>),
    /// The library has told about keys and tokens.
    Reported(RequestId, Result<Report, CallError>),
    /// Left-over files have been removed.
    Swept,
}

impl Keyd {
    fn new(library: Library, settings: Settings, configuration: Configuration<Settings>) -> Self {
        let about = About {
            started: server::wall_clock(),
            version: library.version(),
            extended: library.is_extended(),
        };
        Self {
            handle_key: library.handle_key_place(),
            library: Arc::new(library),
            grants: Arc::new(Grants(settings.principals.clone())),
            settings,
            configuration,
            about,
            reports: Waiting::default(),
            copy: Vec::new(),
            work: Work::default(),
        }
    }

    /// Carries a request out if that can be done from memory.
    fn attempt(
        &mut self,
        request: &Request<'_, keys::Op>,
        caller: &Caller,
    ) -> Result<Answer, Failure> {
        wipe(&mut self.copy);
        self.copy.clear();
        let body = request.body.as_deref().map(|body| {
            self.copy.extend_from_slice(body);
            self.copy.as_mut_slice()
        });
        let call = Call {
            op: request.op,
            method: request.method,
            param: request.param,
            body,
            caller,
        };
        let result = operation::execute(&self.library, Mode::Memory, call, &mut self.work);
        wipe(&mut self.copy);
        self.copy.clear();
        result
    }

    /// Hands a request to a worker.
    fn hand_over(
        &self,
        request: Request<'_, keys::Op>,
        caller: Caller,
        reply: Reply<'_>,
        (lane, mode): (Lane, Mode),
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        let body = request.body.map(|body| Zeroizing::new(body.to_vec()));
        // Where a copy is worked on, it counts as well.
        let bodies = if mode == Mode::Full { 1 } else { 2 };
        let task = Task {
            id: request.id,
            op: request.op,
            method: request.method,
            param: request.param.to_owned(),
            held: cx.hold(body.as_ref().map_or(0, |body| body.len() * bodies)),
            body,
            caller,
        };
        match cx.run_for(task.id, lane, job(task, &self.library, mode)) {
            Ok(()) => Handled::Later,
            Err(_) => reply.error(500, &BUSY),
        }
    }

    /// Asks the library about keys and tokens for a caller.
    fn report(
        &mut self,
        id: RequestId,
        caller: Caller,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        if !self.about.extended {
            return status::respond(reply, &self.about, Told::Nothing);
        }
        if let Some(asked) = self.reports.overdue() {
            return status::respond(reply, &self.about, Told::NotYet(asked));
        }
        let library = Arc::clone(&self.library);
        let job = move || Event::Reported(id, library.report(&|id| caller.sees(id)));
        if cx.run(Lane::Report, job).is_err() {
            return reply.error(500, &BUSY);
        }
        if self.reports.begin(id, server::wall_clock()) {
            cx.set_alarm(REPORT, cx.timing().report);
        }
        Handled::Later
    }
}

/// The key library has not told in time.
const REPORT: Alarm = Alarm(1);

const BUSY: &str = "too many operations are waiting for the key library";

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

    fn arrived(&mut self) {
        self.library.begin_moment();
    }

    fn request(
        &mut self,
        request: Request<'_, keys::Op>,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        let caller = Caller {
            uid: request.peer.uid,
            grants: Arc::clone(&self.grants),
        };
        if request.op == keys::Op::Status {
            return self.report(request.id, caller, reply, cx);
        }
        if request
            .body
            .as_ref()
            .is_some_and(|body| body.len() > SMALL_BODY)
        {
            return self.hand_over(request, caller, reply, (Lane::Local, Mode::Memory), cx);
        }
        let handled = match self.attempt(&request, &caller) {
            Ok(answer) => respond(reply, answer, &self.work),
            Err(Failure::WouldBlock(place)) => {
                self.hand_over(request, caller, reply, lane(place, self.handle_key), cx)
            }
            Err(failure) => refuse(reply, failure),
        };
        self.work.wipe();
        handled
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
            Event::Elsewhere(task, place) => {
                let (id, (lane, mode)) = (task.id, lane(place, self.handle_key));
                if cx.is_awaited(id)
                    && cx
                        .run_for(id, lane, job(task, &self.library, mode))
                        .is_err()
                    && let Some(reply) = cx.reply(id)
                {
                    let _ = reply.error(500, &BUSY);
                }
            }
            Event::Reported(id, result) => {
                if self.reports.told(id, server::wall_clock()) {
                    cx.set_alarm(REPORT, cx.timing().report);
                } else {
                    cx.clear_alarm(REPORT);
                }
                let Some(reply) = cx.reply(id) else { return };
                let _ = match result {
                    Ok(report) => status::respond(reply, &self.about, Told::All(&report)),
                    Err(error) => {
                        let what = "could not ask the key library about its keys";
                        reply.error(500, &format!("{what}\n{what}: {error}"))
                    }
                };
            }
            Event::Reloaded(reading) => {
                if let Some(settings) = self.configuration.taken(reading) {
                    self.adopt(*settings);
                }
            }
            Event::Swept => {}
        }
    }

    fn alarm(&mut self, alarm: Alarm, cx: &mut Context<'_, Self>) {
        if alarm != REPORT {
            return;
        }
        for id in self.reports.give_up() {
            let asked = self.reports.overdue().unwrap_or_default();
            if let Some(reply) = cx.reply(id) {
                let _ = status::respond(reply, &self.about, Told::NotYet(asked));
            }
        }
    }

    fn reload(&mut self, cx: &mut Context<'_, Self>) {
        self.configuration.read_again(cx, Event::Reloaded);
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
        self.grants = Arc::new(Grants(new.principals.clone()));
        self.settings.principals = new.principals;
        log::info!("Config update finished.");
    }
}

fn respond(reply: Reply<'_>, answer: Answer, work: &Work) -> Handled {
    match answer {
        Answer::Handle => reply.ok(&keys::KeyHandle {
            key_handle: work.handle(),
        }),
        Answer::Signature => reply.bytes("signature", &work.bytes),
        Answer::Ciphertext => reply.bytes("ciphertext", &work.bytes),
        Answer::Plaintext => reply.bytes("plaintext", &work.bytes),
        Answer::Key => reply.bytes("key", &work.bytes),
        Answer::Value => reply.bytes("value", &work.bytes),
        Answer::Word(value) => reply.ok(&keys::Parameter { value }),
        Answer::Nothing => reply.no_content_and_close(),
    }
}

fn refuse(reply: Reply<'_>, failure: Failure) -> Handled {
    match failure {
        Failure::Told(status, text) => reply.error(status, &text),
        Failure::Internal(text) => reply.error(500, &text),
        Failure::WouldBlock(_) => {
            reply.error(500, &"the key library did not do what it was asked to")
        }
    }
}
