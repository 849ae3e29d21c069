//! Changes of module identities for clients: one at a time per module, and never the same one twice at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::answers::Answer;
use super::asks::{Change, Write};
use super::cloud::CloudHub;
use super::device::Device;
use super::error::Error;
use super::hub::Failure;
use super::modules::Granted;
use super::{Event, Identityd, busy, modules};
use crate::lanes::Lane;
use crate::locks::Guard;
use crate::service::{Context, RequestId};

/// The changes under way and waiting.
#[derive(Debug, Default)]
pub struct Writes {
    /// By module.
    running: HashMap<String, Running>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Running {
    change: Change,
    ids: Vec<RequestId>,
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    write: Write,
}

impl Identityd {
    /// Begins a change, joins the same one if it is under way, or waits for another of the same module.
    pub(super) fn write(
        &mut self,
        id: RequestId,
        write: Write,
        device: Arc<Device>,
        cx: &mut Context<'_, Self>,
    ) -> Option<Result<Answer, Error>> {
        if let Some(cause) = self.link.down() {
            return Some(Err(cause.clone()));
        }
        let queued = self
            .writes
            .waiting
            .iter()
            .any(|waiting| waiting.write.module == write.module);
        if !queued && let Some(running) = self.writes.running.get_mut(&write.module) {
            // Creating is not joined: of two who create a module the second has to hear that it exists.
            if running.change == write.change && write.change != Change::Create {
                running.ids.push(id);
                return None;
            }
        }
        if !queued && let Some(guard) = self.tools.locks.try_lock(&write.module) {
            return self
                .start_write(id, write, device, guard, cx)
                .err()
                .map(Err);
        }
        self.writes.waiting.push_back(Waiting { id, write });
        None
    }

    fn start_write(
        &mut self,
        id: RequestId,
        write: Write,
        device: Arc<Device>,
        guard: Guard,
        cx: &mut Context<'_, Self>,
    ) -> Result<(), Error> {
        let hub = CloudHub::new(
            Arc::clone(&self.tools),
            &self.settings,
            Arc::clone(&device),
            cx.events(),
        );
        let (tools, running) = (
            Arc::clone(&self.tools),
            Running {
                change: write.change,
                ids: vec![id],
            },
        );
        let module = write.module.clone();
        let job = move || {
            let (keys, store, name) = (tools.as_ref(), &device.modules, write.module.as_str());
            let result = match write.change {
                Change::Create => modules::create(&hub, keys, store, name)
                    .map(|granted| Some((Arc::clone(&device), granted))),
                Change::Update => modules::update(&hub, keys, store, name)
                    .map(|granted| Some((Arc::clone(&device), granted))),
                Change::Delete => modules::delete(&hub, store, name).map(|()| None),
            };
            drop(guard);
            Event::Written(write, result)
        };
        cx.run(Lane::Cloud, job).map_err(|_| busy())?;
        Self::note_cloud_use(cx);
        self.writes.running.insert(module, running);
        Ok(())
    }

    pub(super) fn written(
        &mut self,
        write: &Write,
        result: Result<Option<(Arc<Device>, Granted)>, Failure>,
        cx: &mut Context<'_, Self>,
    ) {
        let outcome = match result {
            Ok(Some((device, granted))) => Ok(Answer::Module(device, granted)),
            Ok(None) => Ok(Answer::Nothing),
            Err(failure) => Err(failure.error),
        };
        if let Some(running) = self.writes.running.remove(&write.module) {
            for id in running.ids {
                self.finish(id, &outcome, cx);
            }
        }
        self.start_waiting_writes(cx);
    }

    /// Looks again at the changes that waited for another.
    pub(super) fn start_waiting_writes(&mut self, cx: &mut Context<'_, Self>) {
        for Waiting { id, write } in std::mem::take(&mut self.writes.waiting) {
            // The device may be another one by now.
            let outcome = match self.device.clone() {
                Some(device) => self.write(id, write, device, cx),
                None => Some(Err(Error::no_device(self.course.failure()))),
            };
            if let Some(outcome) = outcome {
                self.finish(id, &outcome, cx);
            }
        }
    }
}
