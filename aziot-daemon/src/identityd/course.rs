//! The course of provisioning as the event loop sees it: what runs, what comes next, how the service stands.

use std::sync::Arc;
use std::time::Duration;

use aziot_core::config::identityd::Source;
use aziot_core::retry::Backoff;

use super::answers::Answer;
use super::cloud::{CloudHub, clock_error};
use super::device::Device;
use super::error::{Class, Error};
use super::hub::{Failure, Hub as _, Kind};
use super::link::{News, Sign};
use super::provision::{self, End, Run, Trigger, manual};
use super::{CLOCK, Event, Identityd, RETRY, busy, clock, random};
use crate::lanes::Lane;
use crate::service::{Context, RequestId};

/// The pause after the first attempt that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between attempts, apart from jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The shortest pause before the hub is asked whether it is back.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// Where the service stands.
#[derive(Debug)]
pub struct Course {
    running: Option<Trigger>,
    /// Reprovision requests that the running procedure answers, and those that the next one will.
    asked: Vec<RequestId>,
    next_asked: Vec<RequestId>,
    /// The configuration has changed while a procedure ran.
    config_changed: bool,
    /// The first attempt has ended, or was not needed.
    concluded: bool,
    reconciled: bool,
    /// Why the last procedure failed.
    failure: Option<Failure>,
    backoff: Backoff,
    /// When the next attempt is due, in seconds since 1970.
    pub(super) next_attempt: Option<u64>,
    /// The hub is being asked whether it answers.
    probing: bool,
    state: Option<State>,
    /// Since when it stands so, in seconds since 1970.
    pub(super) since: u64,
}

/// Where the service stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no device identity, and none is being obtained.
    NotProvisioned,
    /// The device identity is known, the hub cannot be reached.
    Offline,
    /// The device identity is known.
    Provisioned,
    /// An identity is being obtained.
    Provisioning,
    /// The configuration wants no hub.
    Unconnected,
    /// The clock is not set, so nothing can be signed.
    WaitingForTime,
}

impl State {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotProvisioned => "not-provisioned",
            Self::Offline => "offline",
            Self::Provisioned => "provisioned",
            Self::Provisioning => "provisioning",
            Self::Unconnected => "unconnected",
            Self::WaitingForTime => "waiting-for-time",
        }
    }
}

impl Default for Course {
    fn default() -> Self {
        Self {
            running: None,
            asked: Vec::new(),
            next_asked: Vec::new(),
            config_changed: false,
            concluded: false,
            reconciled: false,
            failure: None,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            next_attempt: None,
            probing: false,
            state: None,
            since: clock::now(),
        }
    }
}

impl Course {
    /// Whether the first attempt has ended.
    pub(super) fn concluded(&self) -> bool {
        self.concluded
    }

    /// Why there is no device identity.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// Whether the modules at the hub are those of the configuration.
    pub(super) fn reconciled(&self) -> bool {
        self.reconciled
    }
}

impl Identityd {
    /// The first steps, when the loop owns its socket: the last known identity is served at once.
    pub(super) fn set_out(&mut self, cx: &mut Context<'_, Self>) {
        let saved = self.tools.state.load(&self.root.places());
        let assignment = match &self.settings.provisioning.source {
            Source::None => None,
            Source::Manual { .. } => manual(&self.settings),
            Source::Dps { .. } => provision::from_backup(&self.settings, &saved),
        };
        if let Some(assignment) = assignment {
            let device = Device::new(assignment, &self.tools.state);
            let has_backup = saved
                .device
                .as_ref()
                .is_some_and(|info| provision::info(&device) == *info);
            if matches!(self.settings.provisioning.source, Source::Manual { .. }) {
                log::info!("Updated device info for {}.", device.id);
            } else {
                log::info!("Provisioned with backup for {}.", device.id);
            }
            self.adopt(Some(Arc::new(device)), cx);
            if has_backup {
                self.conclude(cx);
            }
        }
        if self.needs_time() {
            self.wait_for_time(cx);
        } else {
            self.begin(Trigger::Startup, cx);
        }
        self.observe();
    }

    fn needs_time(&self) -> bool {
        self.settings.provisioning.source != Source::None && !self.tools.clock_is_plausible()
    }

    fn wait_for_time(&mut self, cx: &mut Context<'_, Self>) {
        let error = clock_error(&self.tools, Class::Internal);
        log::warn!("{}", error.causes().join(": "));
        self.course.failure = Some(Failure {
            kind: Kind::Network,
            error: clock_error(&self.tools, Class::Hub),
        });
        // A step of the clock wakes us; so does the clock itself when it gets there.
        let left = self.tools.earliest_time().saturating_sub(clock::now());
        cx.set_alarm(CLOCK, Duration::from_secs(left.saturating_add(1)));
    }

    pub(super) fn clock_changed(&mut self, cx: &mut Context<'_, Self>) {
        if !self.needs_time() {
            cx.clear_alarm(CLOCK);
            if self.course.running.is_none() && !self.course.reconciled {
                self.course.backoff.succeeded();
                self.begin(Trigger::Startup, cx);
            }
            self.schedule_probe(cx);
        } else if self.course.running.is_none() && !self.course.reconciled {
            self.wait_for_time(cx);
        }
    }

    /// The first attempt has ended or was not needed: whoever waits for this line may go on.
    fn conclude(&mut self, cx: &mut Context<'_, Self>) {
        if self.course.concluded {
            return;
        }
        self.course.concluded = true;
        log::info!("Starting server...");
        self.release_held(cx);
    }

    fn begin(&mut self, trigger: Trigger, cx: &mut Context<'_, Self>) {
        cx.clear_alarm(RETRY);
        self.course.next_attempt = None;
        let run = Run {
            trigger,
            tools: Arc::clone(&self.tools),
            settings: Arc::clone(&self.settings),
            places: self.root.places(),
            device: self.device.clone(),
            events: cx.events(),
            registered: false,
        };
        if cx
            .run(Lane::Provisioning, move || {
                Event::Procedure(Box::new(provision::run(run)))
            })
            .is_err()
        {
            self.course.failure = Some(Failure::local(busy()));
            self.schedule(cx);
            return;
        }
        self.course.running = Some(trigger);
        Self::note_cloud_use(cx);
        self.schedule_probe(cx);
    }

    /// A client wants a new assignment. It alone waits for it.
    pub(super) fn reprovision(
        &mut self,
        id: RequestId,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        if self.needs_time() {
            return Some(Err(clock_error(&self.tools, Class::Dps)));
        }
        match self.course.running {
            // The answer to that one is as good, unless it goes by settings that are no longer those in force.
            Some(Trigger::Api) if !self.course.config_changed => self.course.asked.push(id),
            Some(_) => self.course.next_asked.push(id),
            None => {
                self.course.asked.push(id);
                self.begin(Trigger::Api, cx);
                if self.course.running.is_none() {
                    self.course.asked.clear();
                    return Some(Err(busy()));
                }
            }
        }
        None
    }

    pub(super) fn config_changed(&mut self, cx: &mut Context<'_, Self>) {
        if self.needs_time() {
            self.wait_for_time(cx);
        } else if self.course.running.is_some() {
            self.course.config_changed = true;
        } else {
            self.course.backoff.succeeded();
            let settled = self.device.is_some() && self.course.reconciled;
            self.begin(
                if settled {
                    Trigger::ConfigurationFileUpdate
                } else {
                    Trigger::Startup
                },
                cx,
            );
        }
    }

    pub(super) fn procedure_ended(&mut self, end: End, cx: &mut Context<'_, Self>) {
        self.course.running = None;
        Self::note_cloud_use(cx);
        let outcome = match &end.result {
            Ok(()) => Ok(Answer::Nothing),
            Err(failure) => Err(failure.error.clone()),
        };
        for id in std::mem::take(&mut self.course.asked) {
            self.finish(id, &outcome, cx);
        }
        match end.result {
            Ok(()) => {
                self.course.failure = None;
                self.course.reconciled = true;
                self.course.backoff.succeeded();
            }
            Err(failure) => {
                // A reprovision that got no assignment has changed nothing.
                let harmless = end.trigger == Trigger::Api && !end.assigned;
                if !harmless {
                    self.course.reconciled = false;
                }
                self.report(end.trigger, &failure);
                if !harmless || self.device.is_none() {
                    self.course.failure = Some(failure);
                }
                if !self.course.reconciled {
                    self.schedule(cx);
                }
            }
        }
        self.conclude(cx);
        if !self.course.next_asked.is_empty() {
            self.course.asked = std::mem::take(&mut self.course.next_asked);
            self.begin(Trigger::Api, cx);
        } else if std::mem::take(&mut self.course.config_changed) {
            self.config_changed(cx);
        } else {
            self.schedule_probe(cx);
        }
    }

    fn report(&self, trigger: Trigger, failure: &Failure) {
        let text = failure.error.one_line();
        match (trigger, &self.device) {
            (Trigger::Api, _) => log::error!("Failed to reprovision: {text}"),
            (Trigger::ConfigurationFileUpdate, _) => log::warn!(
                "Failed to reprovision device. Running offline. Reprovisioning failure reason: {text}."
            ),
            (Trigger::Startup, None) => log::error!(
                "Failed to provision with IoT Hub, and no valid device backup was found: {text}"
            ),
            // The procedure has logged these as they came.
            (Trigger::Startup, Some(_)) if failure.kind == Kind::Network => {}
            (Trigger::Startup, Some(_)) => {
                log::error!("Could not reconcile the modules of this device: {text}");
            }
        }
    }

    /// Sets the next attempt: to reconcile as long as that has not been done, else to see whether the hub is back.
    fn schedule(&mut self, cx: &mut Context<'_, Self>) {
        let pause = if self.course.reconciled {
            let Some(pause) = self.link.probe_in() else {
                return;
            };
            pause.max(LEAST_PAUSE)
        } else {
            self.course
                .backoff
                .failed(random())
                .mul_f64(cx.timing().scale)
        };
        log::info!("Trying again in {:.0} seconds.", pause.as_secs_f64().ceil());
        self.course.next_attempt = Some(clock::now().saturating_add(pause.as_secs()));
        cx.set_alarm(RETRY, pause);
    }

    pub(super) fn retry(&mut self, cx: &mut Context<'_, Self>) {
        self.course.next_attempt = None;
        if self.course.running.is_some() && !self.course.reconciled {
            return;
        }
        if self.needs_time() {
            self.wait_for_time(cx);
        } else if !self.course.reconciled {
            self.begin(Trigger::Startup, cx);
        } else if !self.link.is_up() && !self.course.probing {
            self.ask_whether_hub_answers(cx);
        }
    }

    /// Asks the hub for what is cheap and useful: the list of modules, which renews the backups.
    fn ask_whether_hub_answers(&mut self, cx: &mut Context<'_, Self>) {
        let Some(device) = self.device.clone() else {
            return;
        };
        let hub =
            CloudHub::new(Arc::clone(&self.tools), &self.settings, device, cx.events()).once();
        let job = move || {
            // How the way to the hub is, is told by signs.
            let _ = hub.modules();
            Event::Probed
        };
        if cx.run(Lane::Cloud, job).is_err() {
            self.schedule(cx);
            return;
        }
        self.course.probing = true;
        Self::note_cloud_use(cx);
    }

    pub(super) fn probed(&mut self, cx: &mut Context<'_, Self>) {
        self.course.probing = false;
        self.link.probed();
        self.schedule_probe(cx);
    }

    /// Sees to it that somebody asks the hub again, if it does not answer as it should.
    pub(super) fn schedule_probe(&mut self, cx: &mut Context<'_, Self>) {
        // A probe that is under way will tell, and so will a procedure that is to reconcile. One that asks DPS may take long
        // or fail, which must not end the watch for the hub.
        let awaited = self.course.next_attempt.is_some()
            || self.course.probing
            || (self.course.running.is_some() && !self.course.reconciled);
        if !awaited && !self.link.is_up() {
            self.schedule(cx);
        }
    }

    pub(super) fn link_sign(&mut self, sign: Sign, cx: &mut Context<'_, Self>) {
        match self.link.note(sign) {
            News::None => {}
            News::Divert => {
                self.divert_reads(cx);
                self.schedule_probe(cx);
            }
            News::Back if self.course.reconciled => {
                self.course.next_attempt = None;
                cx.clear_alarm(RETRY);
            }
            News::Back if self.course.running.is_some() => {}
            News::Back => {
                self.course.backoff.succeeded();
                self.begin(Trigger::Startup, cx);
            }
        }
    }

    /// Notes since when the service stands as it does.
    pub(super) fn observe(&mut self) {
        let state = self.state();
        if self.course.state != Some(state) {
            self.course.state = Some(state);
            self.course.since = clock::now();
        }
    }

    /// Where the service stands.
    pub(super) fn state(&self) -> State {
        if self.settings.provisioning.source == Source::None && self.device.is_none() {
            return State::Unconnected;
        }
        if self.course.reconciled && self.link.down().is_none() {
            return State::Provisioned;
        }
        if self.course.running.is_none() && self.needs_time() {
            return State::WaitingForTime;
        }
        match (&self.device, self.course.running) {
            (Some(_), _) if self.link.down().is_some() => State::Offline,
            (Some(_), _) => State::Provisioned,
            (None, Some(_)) => State::Provisioning,
            (None, None) => State::NotProvisioned,
        }
    }
}
