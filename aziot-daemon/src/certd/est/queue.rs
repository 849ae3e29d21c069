//! Who waits for an EST server: of each authority only so many jobs are under way at once.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::issue::Order;
use super::rotate::Task;

/// Jobs for one authority at once. A server that does not answer holds no more threads than these.
pub const PER_AUTHORITY: usize = 2;

/// What waits for its turn, and what is under way.
#[derive(Debug, Default)]
pub struct Queue {
    running: HashMap<String, usize>,
    orders: VecDeque<Order>,
    rotations: VecDeque<Task>,
}

impl Queue {
    /// Adds an order at the end.
    pub fn push(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Adds an order that has waited already in front.
    pub fn push_front(&mut self, order: Order) {
        self.orders.push_front(order);
    }

    /// Adds a rotation.
    pub fn push_rotation(&mut self, task: Task) {
        self.rotations.push_back(task);
    }

    /// Takes the first rotation whose authority has room; it has one of its places from then on.
    pub fn next_rotation(&mut self) -> Option<Task> {
        let running = &self.running;
        let at = self
            .rotations
            .iter()
            .position(|task| has_room(running, &task.access.server.authority))?;
        let task = self.rotations.remove(at)?;
        self.take_place(&task.access.server.authority);
        Some(task)
    }

    /// Takes the first order whose authority has room; it has one of its places from then on.
    pub fn next_order(&mut self) -> Option<Order> {
        let running = &self.running;
        let at = self
            .orders
            .iter()
            .position(|order| has_room(running, &order.access.server.authority))?;
        let order = self.orders.remove(at)?;
        self.take_place(&order.access.server.authority);
        Some(order)
    }

    /// Gives a place back.
    pub fn finished(&mut self, authority: &str) {
        if let Some(count) = self.running.get_mut(authority) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.running.remove(authority);
            }
        }
    }

    /// Takes out the orders whose time is up.
    pub fn expired(&mut self, now: Instant) -> Vec<Order> {
        let (expired, waiting) = std::mem::take(&mut self.orders)
            .into_iter()
            .partition(|order| order.by <= now);
        self.orders = waiting;
        Vec::from_iter::<VecDeque<Order>>(expired)
    }

    /// When the time of the next order is up.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.orders.iter().map(|order| order.by).min()
    }

    /// Whether something waits or is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !(self.running.is_empty() && self.orders.is_empty() && self.rotations.is_empty())
    }

    fn take_place(&mut self, authority: &str) {
        *self.running.entry(authority.to_owned()).or_default() += 1;
    }
}

fn has_room(running: &HashMap<String, usize>, authority: &str) -> bool {
    running
        .get(authority)
        .is_none_or(|count| *count < PER_AUTHORITY)
}
