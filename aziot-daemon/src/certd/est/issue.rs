//! Certificates for clients.

use std::sync::Arc;
use std::time::Instant;

use aziot_core::est::Kind;

use super::super::error::Error;
use super::super::{Certd, Event as ServiceEvent};
use super::enrol::{self, enrol};
use super::identity::{self, Loss, Unusable};
use super::plan::{Access, Names, unusable};
use super::shared::Shared;
use super::{EXPIRE, Est, Event, SOON};
use crate::client::Identity;
use crate::lanes::Lane;
use crate::service::{Context, RequestId};

/// How often an order is carried out: again after its identity was established, and after that was changed under it.
const ATTEMPTS: u32 = 3;

/// A certificate that a client waits for.
#[derive(Debug)]
pub struct Order {
    request: RequestId,
    id: String,
    csr: Arc<[u8]>,
    /// How it is asked for.
    pub access: Access,
    /// When it has to be there.
    pub by: Instant,
    attempts: u32,
    /// How often its identity had changed when it was last carried out.
    changes: u64,
}

impl Order {
    /// An order that was just received.
    #[must_use]
    pub fn new(request: RequestId, id: &str, csr: Vec<u8>, access: Access, by: Instant) -> Self {
        Self {
            request,
            id: id.to_owned(),
            csr: csr.into(),
            access,
            by,
            attempts: 0,
            changes: 0,
        }
    }

    /// The identity that it needs, if any.
    #[must_use]
    pub fn names(&self) -> Option<Names> {
        self.access.x509.as_ref().map(Names::of)
    }

    /// The id of the certificate.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The request for it, DER.
    #[must_use]
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }
}

/// How the carrying out of an order ended.
#[derive(Debug)]
pub enum End {
    /// There is a chain, as PEM.
    Issued(String),
    /// The identity has to be established first.
    Lost(Loss),
    /// It failed.
    Failed {
        /// Why.
        error: Error,
        /// It may have been for the identity, which somebody else may have changed meanwhile.
        identity: bool,
    },
}

/// Carries an order out. It blocks.
fn issue(shared: &Arc<Shared>, id: &str, csr: &[u8], access: &Access, by: Instant) -> End {
    let failed = |error| End::Failed {
        error,
        identity: false,
    };
    let identity: Option<Identity> = match access.x509.as_ref().map(Names::of) {
        None => None,
        Some(names) => match identity::usable(shared, &names) {
            Ok(identity) => Some(identity),
            Err(Unusable::Lost(loss)) => return End::Lost(loss),
            Err(Unusable::Failed(error)) => return failed(error),
        },
    };
    let client = match shared.client(identity) {
        Ok(client) => client,
        Err(error) => return failed(error),
    };
    let limits = enrol::Limits {
        by,
        scale: shared.tools.timing.scale,
    };
    let authority = &access.server.authority;
    let result = enrol(&client, access, Kind::First, csr, limits);
    match result.map(|chain| chain.pem()) {
        Ok(Ok(pem)) => End::Issued(pem),
        Ok(Err(error)) => failed(Error::internal(error)),
        Err(error) => {
            let what = format!("the EST server {authority} did not issue cert {id:?}");
            End::Failed {
                identity: error.is_unanswered(),
                error: Error::internal(what).caused_by(error),
            }
        }
    }
}

impl Est {
    /// Starts what waits and can be started; ends what has waited for too long.
    pub(super) fn start_waiting(&mut self, cx: &mut Context<'_, Certd>) {
        let now = Instant::now();
        for order in self.queue.expired(now) {
            let error = unusable(
                &order.id,
                format_args!(
                    "too many enrolments at {} are under way; try again",
                    order.access.server.authority
                ),
            );
            Self::conclude(order, Err(error), cx);
        }
        for order in self.expired_waiting(now) {
            let reason = "its EST identity is being renewed, which takes too long; try again";
            let error = unusable(&order.id, reason);
            Self::conclude(order, Err(error), cx);
        }
        self.start_rotations(cx);
        while let Some(order) = self.queue.next_order() {
            self.start(order, cx);
        }
        let expiries = [self.queue.next_expiry(), self.next_waiting_expiry()];
        match expiries.into_iter().flatten().min() {
            Some(expiry) => {
                cx.set_alarm(EXPIRE, expiry.saturating_duration_since(now).max(SOON));
            }
            None => cx.clear_alarm(EXPIRE),
        }
    }

    fn start(&mut self, mut order: Order, cx: &mut Context<'_, Certd>) {
        let server = order.access.server.clone();
        let Some(shared) = self.shared.clone() else {
            self.queue.finished(&server);
            return Self::conclude(order, Err(Error::busy()), cx);
        };
        order.attempts += 1;
        order.changes = self.changes_of(&order);
        let ticket = self.orders.add();
        let (id, csr) = (order.id.clone(), Arc::clone(&order.csr));
        let (access, by) = (order.access.clone(), order.by);
        let job = move || Event::Ended(ticket, issue(&shared, &id, &csr, &access, by));
        if self.run(Lane::Enrolment, job, cx) {
            Self::note_use(cx);
            self.orders.put(ticket, order);
        } else {
            self.queue.finished(&server);
            Self::conclude(order, Err(Error::busy()), cx);
        }
    }

    pub(super) fn issue_ended(&mut self, ticket: u64, end: End, cx: &mut Context<'_, Certd>) {
        let Some(order) = self.orders.take(ticket) else {
            return;
        };
        self.queue.finished(&order.access.server);
        match end {
            End::Issued(pem) => {
                self.identity_used(&order, cx);
                Self::conclude(order, Ok(pem), cx);
            }
            End::Failed { identity, .. }
                if identity
                    && order.attempts < ATTEMPTS
                    && order.changes != self.changes_of(&order) =>
            {
                self.queue.push_front(order);
            }
            End::Failed {
                error,
                identity: true,
            } if order.attempts < ATTEMPTS => {
                if let Some((order, error)) = self.keep_caught(order, error) {
                    Self::conclude(order, Err(error), cx);
                }
            }
            End::Failed { error, .. } => Self::conclude(order, Err(error), cx),
            End::Lost(loss) if order.attempts < ATTEMPTS => self.establish(order, &loss, cx),
            End::Lost(loss) => {
                let error = unusable(
                    &order.id,
                    format_args!("EST identity could not be obtained: {loss}"),
                );
                Self::conclude(order, Err(error), cx);
            }
        }
    }

    /// Tells the service how an order ended.
    pub(super) fn conclude(
        order: Order,
        result: Result<String, Error>,
        cx: &mut Context<'_, Certd>,
    ) {
        cx.events().send(ServiceEvent::Issued {
            request: order.request,
            id: order.id,
            result,
        });
    }
}

/// Orders that jobs carry out, by ticket.
#[derive(Debug, Default)]
pub struct Orders {
    last: u64,
    orders: Vec<(u64, Order)>,
}

impl Orders {
    /// A new ticket.
    fn add(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn put(&mut self, ticket: u64, order: Order) {
        self.orders.push((ticket, order));
    }

    fn take(&mut self, ticket: u64) -> Option<Order> {
        let at = self.orders.iter().position(|(known, _)| *known == ticket)?;
        Some(self.orders.swap_remove(at).1)
    }
}
