//! The Certificates Service: keeps certificates as PEM text under ids, and issues new ones. It never sees a private key.
//!
//! Everything here runs in the event loop and never blocks. Reading and writing files, judging requests for certificates,
//! and signing with a key of the Keys Service are jobs, which report through [`Event`]s; so are enrolments ([`est`]).
//!
//! Reading never waits for writing: files are replaced as a whole. Writers of one id take turns for the moment of writing,
//! not while a certificate is being issued.

pub mod error;
pub mod est;
mod issue;
mod orders;
pub mod settings;
mod status;
pub mod store;
pub mod target;
pub mod tools;
mod writes;

use std::sync::Arc;

use aziot_core::api::certs::{
    self, CertificateResponse, CreateCertificate, ImportCertificate, Op, Pem,
};
use aziot_core::api::{self, Api};
use aziot_core::config::certd::Settings;
use aziot_core::http::Method;
use aziot_core::time::UnixTime;
use aziot_core::{json, limits};

use self::error::Error;
use self::est::Est;
use self::issue::Prepared;
use self::orders::Orders;
use self::settings::Grants;
use self::status::{Report, Seen};
use self::target::Target;
use self::tools::Tools;
use self::writes::{Change, Write, Writes};
use crate::configuration::{Configuration, Reading};
use crate::lanes::Lane;
use crate::outcome::Fatal;
use crate::paths::{Root, Service as Which};
use crate::server::{self, Setup};
use crate::service::{Alarm, Context, Handled, Reply, Request, RequestId, Service};
use crate::timing::Timing;

/// Runs the service until a signal ends it.
///
/// # Errors
/// What keeps it from starting.
pub fn run() -> Result<(), Fatal> {
    let passed = server::passed().map_err(Fatal::service)?;
    let root = Root::from_env().map_err(Fatal::config)?;
    let configuration = Configuration::of(Which::Certd, &root, settings::load);
    let watch = configuration.watch();
    let settings = configuration.load()?;
    let timing = Timing::from_env();
    let tools = Tools::new(&settings, timing).map_err(Fatal::config)?;
    let setup = Setup {
        endpoint: crate::keyd::settings::endpoint(&settings.endpoint),
        max_requests: settings.max_requests,
        passed,
        watch,
        timing,
        announce: true,
    };
    server::serve(|_| Certd::new(settings, tools, configuration), setup).map_err(Fatal::service)
}

/// The Certificates Service.
pub struct Certd {
    settings: Arc<Settings>,
    configuration: Configuration<Settings>,
    tools: Arc<Tools>,
    est: Est,
    orders: Orders,
    writes: Writes,
    seen: Seen,
    started: UnixTime,
}

/// What comes back from jobs.
pub enum Event {
    /// The configuration was read again.
    Config(Reading<Settings>),
    /// Something about EST.
    Est(est::Event),
    /// A certificate was issued, or could not be.
    Issued {
        /// The request that it was begun for.
        request: RequestId,
        /// Its id.
        id: String,
        /// The certificates in PEM, its own first.
        result: Result<String, Error>,
    },
    /// A request for a certificate was judged.
    Prepared(RequestId, Result<Prepared, Error>),
    /// A certificate was read.
    Read(RequestId, Target, Result<Option<String>, Error>),
    /// The files were looked at.
    Reported(RequestId, Result<Report, Error>),
    /// Left-over files have been removed.
    Swept,
    /// A certificate was written or removed.
    Written(Write, Result<(), Error>),
}

impl Certd {
    fn new(settings: Settings, tools: Tools, configuration: Configuration<Settings>) -> Self {
        let tools = Arc::new(tools);
        Self {
            settings: Arc::new(settings),
            configuration,
            est: Est::new(Arc::clone(&tools)),
            tools,
            orders: Orders::default(),
            writes: Writes::default(),
            seen: Seen::default(),
            started: server::wall_clock(),
        }
    }

    /// Does what is asked, or sees to it that it is done. `None` when the answer comes later.
    fn dispatch<'r>(
        &mut self,
        request: &mut Request<'r, Op>,
        cx: &mut Context<'_, Self>,
    ) -> Result<(), Refusal<'r>> {
        let (id, uid, param) = (request.id, request.peer.uid, request.param);
        match (request.op, request.method) {
            (Op::Certificate, Method::Get) => Ok(self.get(id, param, cx)?),
            (Op::Certificate, Method::Put) => {
                let import: ImportCertificate<'_> = request.decode()?;
                self.authorize(uid, param)?;
                let change = Change::Store(import.pem.0.to_owned());
                Ok(self.change(id, param, change, cx)?)
            }
            (Op::Certificate, _) => {
                if let Some(body) = request.body.take() {
                    json::validate(body).map_err(api::Error::Json)?;
                }
                self.authorize(uid, param)?;
                Ok(self.change(id, param, Change::Remove, cx)?)
            }
            (Op::Certificates, _) => {
                let create: CreateCertificate<'_> = request.decode()?;
                self.authorize(uid, create.cert_id)?;
                Ok(self.order(id, &create, cx)?)
            }
            (Op::Status, _) => Ok(self.report(id, cx)?),
        }
    }

    /// Whether the user may write this certificate.
    fn authorize(&self, uid: u32, id: &str) -> Result<(), Error> {
        let grants = Grants(&self.settings.principals);
        certs::authorize(&grants, uid, id).map_err(|error| error.map(str::to_owned).into())
    }

    /// Reads a certificate.
    fn get(
        &mut self,
        request: RequestId,
        id: &str,
        cx: &mut Context<'_, Self>,
    ) -> Result<(), Error> {
        let target = self
            .tools
            .store
            .target(&self.settings.preloaded_certs, id)?;
        let tools = Arc::clone(&self.tools);
        let job = move || {
            let result = tools.store.read(&target);
            Event::Read(request, target, result)
        };
        cx.run_for(request, Lane::Local, job)
            .map_err(|_| Error::busy())
    }

    /// Imports or deletes a certificate.
    fn change(
        &mut self,
        request: RequestId,
        id: &str,
        change: Change,
        cx: &mut Context<'_, Self>,
    ) -> Result<(), Error> {
        let target = self
            .tools
            .store
            .target(&self.settings.preloaded_certs, id)?;
        self.write(Write::new(target, change, vec![request], cx), cx);
        Ok(())
    }

    fn config_read(&mut self, reading: Reading<Settings>, cx: &mut Context<'_, Self>) {
        let Some(new) = self.configuration.taken(reading) else {
            return;
        };
        let changed = *new != *self.settings;
        if changed {
            log::info!("Detected change in config files. Updating config.");
            for name in settings::restart_needed(&self.settings, &new) {
                log::warn!(
                    "{name} has changed; the change takes effect when aziot-certd is restarted"
                );
            }
            self.settings = Arc::from(new);
        }
        // The files that it names may have changed as well.
        self.est.configure(&self.settings, cx);
        if changed {
            log::info!("Config update finished.");
        }
    }
}

/// Why a request is not carried out.
enum Refusal<'r> {
    /// It is not what the route takes.
    Request(api::Error<'r>),
    /// Anything else.
    Other(Error),
}

impl<'r> From<api::Error<'r>> for Refusal<'r> {
    fn from(error: api::Error<'r>) -> Self {
        Self::Request(error)
    }
}

impl From<Error> for Refusal<'_> {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn refuse(reply: Reply<'_>, error: &Error) -> Handled {
    reply.error(error.status(), error)
}

impl Service for Certd {
    type Op = Op;
    type Event = Event;

    const NAME: &'static str = "aziot_certd";
    const BODY_LIMIT: usize = limits::BODY_CERTIFICATES;

    fn api() -> &'static Api<Op> {
        &certs::API
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let tools = Arc::clone(&self.tools);
        let swept = cx.run(Lane::Local, move || {
            tools.store.sweep();
            Event::Swept
        });
        if swept.is_err() {
            log::debug!("left-over temporary files will be removed at the next start");
        }
        self.est.configure(&self.settings, cx);
    }

    fn request(
        &mut self,
        mut request: Request<'_, Op>,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        match self.dispatch(&mut request, cx) {
            Ok(()) => Handled::Later,
            Err(Refusal::Request(error)) => reply.error(error.status(), &error),
            Err(Refusal::Other(error)) => refuse(reply, &error),
        }
    }

    fn event(&mut self, event: Event, cx: &mut Context<'_, Self>) {
        match event {
            Event::Config(reading) => self.config_read(reading, cx),
            Event::Est(event) => {
                self.est.event(event, cx);
                // Its jobs write certificates too.
                self.start_waiting_writes(cx);
            }
            Event::Issued {
                request,
                id: _,
                result,
            } => self.issued(request, result, cx),
            Event::Prepared(id, result) => self.prepared(id, result, cx),
            Event::Read(id, target, result) => {
                let Some(reply) = cx.reply(id) else { return };
                let _ = match result {
                    Ok(Some(text)) => {
                        self.seen.note(&target);
                        reply.ok(&CertificateResponse { pem: Pem(&text) })
                    }
                    Ok(None) => refuse(reply, &certs::Error::NotFound.into()),
                    Err(error) => refuse(reply, &error),
                };
            }
            Event::Reported(id, result) => self.reported(id, result, cx),
            Event::Swept => {}
            Event::Written(write, result) => self.written(&write, &result, cx),
        }
    }

    fn alarm(&mut self, alarm: Alarm, cx: &mut Context<'_, Self>) {
        self.est.alarm(alarm, cx);
    }

    fn reload(&mut self, cx: &mut Context<'_, Self>) {
        self.configuration.read_again(cx, Event::Config);
    }
}
