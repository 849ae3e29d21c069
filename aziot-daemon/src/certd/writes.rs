//! Changes of stored certificates: one at a time per id, in the order in which they were asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use aziot_core::api::certs::{CertificateResponse, Pem};

use super::error::Error;
use super::target::Target;
use super::{Certd, Event, refuse};
use crate::lanes::Lane;
use crate::locks::Guard;
use crate::server::Held;
use crate::service::{Context, RequestId};

/// What is done to a certificate.
#[derive(Debug)]
pub enum Change {
    /// This text is stored.
    Store(String),
    /// It is removed.
    Remove,
}

/// A change for clients.
#[derive(Debug)]
pub struct Write {
    target: Target,
    change: Change,
    /// Who is told when it is done.
    requests: Vec<RequestId>,
    /// Counts the text towards the memory for bodies.
    _held: Held,
}

impl Write {
    /// A change that these requests wait for.
    pub fn new(
        target: Target,
        change: Change,
        requests: Vec<RequestId>,
        cx: &Context<'_, Certd>,
    ) -> Self {
        let length = match &change {
            Change::Store(text) => text.len(),
            Change::Remove => 0,
        };
        Self {
            target,
            change,
            requests,
            _held: cx.hold(length),
        }
    }
}

/// The changes that wait for another of the same certificate.
#[derive(Debug, Default)]
pub struct Writes {
    waiting: VecDeque<Write>,
}

impl Certd {
    /// Carries a change out, as soon as nobody else is writing this certificate, and answers its requests.
    pub(super) fn write(&mut self, write: Write, cx: &mut Context<'_, Self>) {
        let id = write.target.id();
        let queued = self
            .writes
            .waiting
            .iter()
            .any(|waiting| waiting.target.id() == id);
        if !queued && let Some(guard) = self.tools.locks.try_lock(id) {
            self.start_write(write, guard, cx);
        } else {
            self.writes.waiting.push_back(write);
        }
    }

    /// Looks again at the changes that wait.
    pub(super) fn start_waiting_writes(&mut self, cx: &mut Context<'_, Self>) {
        for write in std::mem::take(&mut self.writes.waiting) {
            self.write(write, cx);
        }
    }

    fn start_write(&self, write: Write, guard: Guard, cx: &mut Context<'_, Self>) {
        let (tools, requests) = (Arc::clone(&self.tools), write.requests.clone());
        let job = move || {
            let result = match &write.change {
                Change::Store(text) => tools.store.write(&write.target, text),
                Change::Remove => tools.store.remove(&write.target),
            };
            // Before the loop hears of it, and looks who waits.
            drop(guard);
            Event::Written(write, result)
        };
        if cx.run(Lane::Local, job).is_err() {
            Self::refuse_all(&requests, &Error::busy(), cx);
        }
    }

    pub(super) fn written(
        &mut self,
        write: Write,
        result: Result<(), Error>,
        cx: &mut Context<'_, Self>,
    ) {
        match &result {
            Err(error) => Self::refuse_all(&write.requests, error, cx),
            Ok(()) => {
                for request in &write.requests {
                    let Some(reply) = cx.reply(*request) else {
                        continue;
                    };
                    let _ = match &write.change {
                        Change::Store(text) => {
                            reply.json(201, &CertificateResponse { pem: Pem(text) })
                        }
                        Change::Remove => reply.no_content(),
                    };
                }
                self.seen.note(&write.target);
                self.est.store_changed(write.target.id(), cx);
            }
        }
        self.start_waiting_writes(cx);
    }

    /// Tells everybody who waits that it did not work out.
    pub(super) fn refuse_all(requests: &[RequestId], error: &Error, cx: &mut Context<'_, Self>) {
        for request in requests {
            if let Some(reply) = cx.reply(*request) {
                let _ = refuse(reply, error);
            }
        }
    }
}
