//! The Identity Service: gives the device its identity in IoT Hub, and the modules of the configuration theirs.
//!
//! Everything here runs in the event loop and never blocks. What blocks is a job: `provision` (the whole procedure from
//! nothing to a reconciled device), `modules` (one call of a client), the look-up of a key handle. Jobs report through
//! [`Event`]s.

mod answers;
mod asks;
mod callers;
mod cloud;
mod course;
mod device;
mod error;
mod handle;
mod hub;
mod link;
mod modules;
mod provision;
mod reads;
mod reconcile;
pub mod settings;
mod state;
mod tools;
mod writes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aziot_core::api::Api;
use aziot_core::api::identity::{self, Op};
use aziot_core::config::identityd::Settings;
use aziot_core::limits;
use zeroize::Zeroizing;

use self::answers::Answer;
use self::asks::Ask;
use self::callers::{Callers, Primary};
use self::course::Course;
use self::device::Device;
use self::error::{Class, Error};
use self::handle::DeviceHandle;
use self::hub::Failure;
use self::link::{Link, Sign};
use self::modules::Granted;
use self::provision::End;
use self::reads::Reads;
use self::state::State;
use self::tools::Tools;
use self::writes::Writes;
use crate::client::KeyHandle;
use crate::clock;
use crate::configuration::{Configuration, Reading};
use crate::lanes::Lane;
use crate::outcome::Fatal;
use crate::paths::{Root, Service as Which};
use crate::server::{self, Setup};
use crate::service::{Alarm, Context, Handled, Reply, Request, RequestId, Service};
use crate::timing::Timing;

/// Requests that wait for the first provisioning attempt have waited long enough.
const HELD: Alarm = Alarm(1);
/// Time to try again what the cloud did not do.
const RETRY: Alarm = Alarm(2);
/// A read has waited for the hub long enough.
const SLOW_READ: Alarm = Alarm(3);
/// The cloud has not been needed for a while.
const IDLE: Alarm = Alarm(4);
/// The clock may have become plausible by going on.
const CLOCK: Alarm = Alarm(5);

/// How long TLS memory is kept after its last use.
const IDLE_SECONDS: u64 = 60;

/// Runs the service until a signal ends it.
///
/// # Errors
/// What keeps it from starting.
pub fn run() -> Result<(), Fatal> {
    let passed = server::passed().map_err(Fatal::service)?;
    let root = Root::from_env().map_err(Fatal::config)?;
    let configuration = Configuration::of(Which::Identityd, &root, settings::load);
    let watch = configuration.watch();
    let settings = configuration.load()?;
    let timing = Timing::from_env();
    let state = State::open(&settings.homedir)
        .inspect_err(|error| log::error!("Failed to create home directory: {error}"))
        .map_err(Fatal::service)?;
    let tools = Tools::new(&settings, state, timing).map_err(Fatal::config)?;
    let setup = Setup {
        endpoint: settings::endpoint(&settings.endpoints.identityd),
        max_requests: settings.max_requests,
        passed,
        watch,
        timing,
        announce: false,
    };
    server::serve(
        |_| Identityd::new(settings, tools, configuration, root),
        setup,
    )
    .map_err(Fatal::service)
}

/// The Identity Service.
pub struct Identityd {
    settings: Arc<Settings>,
    configuration: Configuration<Settings>,
    root: Root,
    callers: Callers,
    tools: Arc<Tools>,
    device: Option<Arc<Device>>,
    handle: DeviceHandle,
    link: Link,
    course: Course,
    held: VecDeque<Held>,
    reads: Reads,
    writes: Writes,
}

/// A request that waits for the first provisioning attempt.
struct Held {
    id: RequestId,
    ask: Ask,
    until: Instant,
}

/// What comes back from jobs.
pub enum Event {
    /// The configuration was read again.
    Config(Reading<Settings>),
    /// There is a device identity, or another one.
    Device(Option<Arc<Device>>),
    /// The look-up of the device's key handle.
    Handle {
        /// Which look-up.
        serial: u64,
        /// When it began.
        asked: Instant,
        /// What came of it.
        result: Result<Zeroizing<String>, Error>,
    },
    /// A job has nothing to tell.
    Idle,
    /// A request to the hub has shown how the way to it is.
    Link(Sign),
    /// A custom payload was read.
    Payload(RequestId, Result<Zeroizing<String>, Error>),
    /// The hub was asked whether it answers.
    Probed,
    /// The provisioning procedure has ended.
    Procedure(Box<End>),
    /// The hub has answered a read, or will not.
    ReadFromHub(u64, Result<Answer, Failure>),
    /// The backup has answered a read; `None` when it has nothing to answer with.
    ReadFromBackup(u64, Option<Result<Answer, Error>>),
    /// The lock on a module has been given back.
    Released,
    /// A change of a module identity is done.
    Written(asks::Write, Result<Option<(Arc<Device>, Granted)>, Failure>),
}

impl Identityd {
    fn new(
        settings: Settings,
        tools: Tools,
        configuration: Configuration<Settings>,
        root: Root,
    ) -> Self {
        let link = Link::new(tools.timing.scale);
        Self {
            callers: settings::callers(&settings),
            settings: Arc::new(settings),
            configuration,
            root,
            tools: Arc::new(tools),
            device: None,
            handle: DeviceHandle::default(),
            link,
            course: Course::default(),
            held: VecDeque::new(),
            reads: Reads::default(),
            writes: Writes::default(),
        }
    }

    /// Does what is asked, or sees to it that it is done. `None` when the answer comes later.
    fn dispatch(
        &mut self,
        id: RequestId,
        ask: Ask,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        match ask {
            Ask::Device => self.device_identity(id, cx),
            Ask::Provisioning => self.provisioning_info(id, cx),
            Ask::Reprovision => self.reprovision(id, cx),
            Ask::Status => Some(Ok(Answer::Status)),
            Ask::TrustBundle => Some(Ok(Answer::TrustBundle)),
            Ask::Read(ref read) => match self.device_for(&ask) {
                Ok(device) => self.read(id, read.clone(), device, cx),
                Err(Missing::Hold) => self.hold(id, ask, cx),
                Err(Missing::For(error)) => Some(Err(error)),
            },
            Ask::Write(ref write) => match self.device_for(&ask) {
                Ok(device) => self.write(id, write.clone(), device, cx),
                Err(Missing::Hold) => self.hold(id, ask, cx),
                Err(Missing::For(error)) => Some(Err(error)),
            },
        }
    }

    /// Answers a request that was kept.
    fn finish(&self, id: RequestId, outcome: &Result<Answer, Error>, cx: &mut Context<'_, Self>) {
        if let Some(reply) = cx.reply(id) {
            let _ = self.respond(reply, outcome);
        }
    }

    /// The device, for an ask that needs one. Before the first reconciliation a configured module waits for it, because it
    /// may only be created by it.
    fn device_for(&self, ask: &Ask) -> Result<Arc<Device>, Missing> {
        let Some(device) = &self.device else {
            return Err(self.missing_device());
        };
        let awaited = match ask {
            Ask::Read(asks::Read::One(name)) => {
                self.callers.hub_modules().contains(name) && !device.modules.has(name)
            }
            _ => false,
        };
        if awaited && !self.course.concluded() {
            return Err(Missing::Hold);
        }
        Ok(Arc::clone(device))
    }

    fn missing_device(&self) -> Missing {
        if self.course.concluded() {
            Missing::For(Error::no_device(self.course.failure()))
        } else {
            Missing::Hold
        }
    }

    fn hold(
        &mut self,
        id: RequestId,
        ask: Ask,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        let limit = cx.timing().held;
        if self.held.is_empty() {
            cx.set_alarm(HELD, limit);
        }
        self.held.push_back(Held {
            id,
            ask,
            until: Instant::now() + limit,
        });
        None
    }

    /// Looks again at the requests that are held.
    fn release_held(&mut self, cx: &mut Context<'_, Self>) {
        for held in std::mem::take(&mut self.held) {
            if let Some(outcome) = self.dispatch(held.id, held.ask, cx) {
                self.finish(held.id, &outcome, cx);
            } else if let Some(again) = self.held.back_mut()
                && again.id == held.id
            {
                // It has waited for the device, and now waits for its modules: in all no longer than before.
                again.until = held.until;
            }
        }
        self.watch_held(cx);
    }

    /// Sets the alarm for the request that is held for the longest time.
    fn watch_held(&self, cx: &mut Context<'_, Self>) {
        match self.held.front() {
            Some(next) => cx.set_alarm(
                HELD,
                next.until
                    .saturating_duration_since(Instant::now())
                    .max(Duration::from_millis(1)),
            ),
            None => cx.clear_alarm(HELD),
        }
    }

    fn expire_held(&mut self, cx: &mut Context<'_, Self>) {
        let now = Instant::now();
        while self.held.front().is_some_and(|held| held.until <= now) {
            let Some(held) = self.held.pop_front() else {
                break;
            };
            let error = match &self.device {
                None => Error::no_device(self.course.failure()),
                Some(_) => Error::because(
                    Class::Hub,
                    "the modules of this device are still being reconciled",
                ),
            };
            self.finish(held.id, &Err(error), cx);
        }
        self.watch_held(cx);
    }

    fn device_identity(
        &mut self,
        id: RequestId,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        if self.device.is_none() {
            return match self.missing_device() {
                Missing::Hold => self.hold(id, Ask::Device, cx),
                Missing::For(error) => Some(Err(error)),
            };
        }
        if self
            .handle
            .fresh(Instant::now(), cx.timing().handle_reuse)
            .is_some()
        {
            return Some(Ok(Answer::Device));
        }
        if let Err(error) = self.fetch_handle(cx) {
            return Some(Err(error));
        }
        self.handle.wait(id);
        None
    }

    /// Has the device's key handle looked up, unless that is under way.
    fn fetch_handle(&mut self, cx: &mut Context<'_, Self>) -> Result<(), Error> {
        let Some(device) = self.device.clone() else {
            return Ok(());
        };
        let Some(serial) = self.handle.begin() else {
            return Ok(());
        };
        let tools = Arc::clone(&self.tools);
        let job = move || {
            let asked = Instant::now();
            let result = tools
                .keys
                .load_key(&device.key)
                .map(KeyHandle::into_text)
                .map_err(|error| Error::because(Class::Keys, error));
            Event::Handle {
                serial,
                asked,
                result,
            }
        };
        cx.run(Lane::Sibling, job).map_err(|_| {
            self.handle.forget();
            busy()
        })
    }

    /// The device's identity, if its handle is at hand; a handle that grows old is renewed meanwhile.
    fn known_identity(&mut self, cx: &mut Context<'_, Self>) -> Option<identity::Identity<'_>> {
        let limit = cx.timing().handle_reuse;
        let now = Instant::now();
        self.device.as_ref()?;
        self.handle.fresh(now, limit)?;
        if self.handle.is_aging(now, limit) {
            // The next request will do it if this one could not.
            let _ = self.fetch_handle(cx);
        }
        let device = self.device.as_ref()?;
        Some(answers::device(device, self.handle.fresh(now, limit)?))
    }

    fn handle_fetched(
        &mut self,
        serial: u64,
        asked: Instant,
        result: Result<Zeroizing<String>, Error>,
        cx: &mut Context<'_, Self>,
    ) {
        let (handle, failure) = match result {
            Ok(handle) => (Some(handle), None),
            Err(error) => (None, Some(error)),
        };
        if !self.handle.end(serial, asked, handle) {
            return;
        }
        // All of them asked before the handle came, so it is fresh for them even if the service took its time.
        let outcome = match failure {
            None => Ok(Answer::Device),
            Some(error) => Err(error),
        };
        for id in self.handle.take_waiting() {
            self.finish(id, &outcome, cx);
        }
    }

    /// Takes up a device identity, or gives up the one there was.
    fn adopt(&mut self, device: Option<Arc<Device>>, cx: &mut Context<'_, Self>) {
        self.device = device;
        self.handle.forget();
        let waiting = self.handle.take_waiting();
        for id in waiting {
            if let Some(outcome) = self.device_identity(id, cx) {
                self.finish(id, &outcome, cx);
            }
        }
        self.release_held(cx);
    }

    fn config_read(&mut self, reading: Reading<Settings>, cx: &mut Context<'_, Self>) {
        let Some(new) = self.configuration.taken(reading) else {
            return;
        };
        if *new == *self.settings {
            return;
        }
        log::info!("Detected change in config files. Updating config.");
        for name in self.settings.restart_needed(&new) {
            log::warn!(
                "{name} has changed; the change takes effect when aziot-identityd is restarted"
            );
        }
        if self.settings.reprovisioning_needed(&new) {
            log::warn!(
                "provisioning has changed; the change takes effect when the device is provisioned again: run `aziotctl \
                 system reprovision`"
            );
        }
        let live = settings::changed_live(&self.settings, &new);
        if !live.is_empty() {
            log::info!("In force from now on: {}", live.join(", "));
        }
        cx.set_max_requests(new.max_requests);
        self.callers = settings::callers(&new);
        self.settings = Arc::from(new);
        self.config_changed(cx);
    }

    /// Something has used the cloud; when nothing does for a while, its memory is given back.
    fn note_cloud_use(cx: &mut Context<'_, Self>) {
        let idle = cx.timing().seconds(IDLE_SECONDS);
        cx.set_alarm(IDLE, idle);
    }

    fn give_memory_back(&self, cx: &mut Context<'_, Self>) {
        let tools = Arc::clone(&self.tools);
        let job = move || {
            tools.tls.release();
            crate::sys::give_memory_back();
            Event::Idle
        };
        if cx.run(Lane::Local, job).is_err() {
            Self::note_cloud_use(cx);
        }
    }
}

/// Why there is no device for a request.
enum Missing {
    /// It may be there soon.
    Hold,
    /// It will not be, for the time being.
    For(Error),
}

/// The lanes are full.
fn busy() -> Error {
    Error::because(
        Class::Internal,
        "too many operations are under way; try again",
    )
}

/// Anything, for spreading out retries.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(_) => u32::from_ne_bytes(bytes),
        // Not for secrets: the clock will do where there is no randomness yet.
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.subsec_nanos().wrapping_mul(0x9e37_79b1)),
    }
}

impl Service for Identityd {
    type Op = Op;
    type Event = Event;

    const NAME: &'static str = "identityd";
    const BODY_LIMIT: usize = limits::BODY_IDENTITY;

    fn api() -> &'static Api<Op> {
        &identity::API
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        self.set_out(cx);
    }

    fn request(
        &mut self,
        mut request: Request<'_, Op>,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        // What is asked most of all is answered without any detour.
        if request.op == Op::Identity
            && self.callers.caller(request.peer.uid).primary() == Some(Primary::Device)
            && let Some(identity) = self.known_identity(cx)
        {
            return reply.ok(&identity);
        }
        let outcome = match asks::accept(&mut request, &self.callers) {
            Ok(ask) => self.dispatch(request.id, ask, cx),
            Err(error) => Some(Err(error)),
        };
        match outcome {
            Some(outcome) => self.respond(reply, &outcome),
            None => Handled::Later,
        }
    }

    fn event(&mut self, event: Event, cx: &mut Context<'_, Self>) {
        match event {
            Event::Config(reading) => self.config_read(reading, cx),
            Event::Device(device) => self.adopt(device, cx),
            Event::Handle {
                serial,
                asked,
                result,
            } => self.handle_fetched(serial, asked, result, cx),
            Event::Idle => {}
            Event::Link(sign) => self.link_sign(sign, cx),
            Event::Payload(id, result) => {
                self.finish(id, &result.map(Some).map(Answer::Provisioning), cx);
            }
            Event::Probed => self.probed(cx),
            Event::Procedure(end) => self.procedure_ended(*end, cx),
            Event::ReadFromHub(token, result) => self.hub_read(token, result, cx),
            Event::ReadFromBackup(token, result) => self.backup_read(token, result, cx),
            Event::Released => self.start_waiting_writes(cx),
            Event::Written(write, result) => self.written(&write, result, cx),
        }
        self.observe();
    }

    fn alarm(&mut self, alarm: Alarm, cx: &mut Context<'_, Self>) {
        match alarm {
            HELD => self.expire_held(cx),
            RETRY => self.retry(cx),
            SLOW_READ => self.expire_reads(cx),
            IDLE => self.give_memory_back(cx),
            CLOCK | Alarm::CLOCK_STEP => self.clock_changed(cx),
            _ => {}
        }
        self.observe();
    }

    fn reload(&mut self, cx: &mut Context<'_, Self>) {
        self.configuration.read_again(cx, Event::Config);
    }
}
