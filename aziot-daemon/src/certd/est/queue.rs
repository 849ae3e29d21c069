//! Who waits for an EST server: of each one, which its base URL stands for, only so many jobs are under way at once.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::issue::Order;
use super::plan::Server;
use super::rotate::Task;

/// Jobs for one server at once. One that does not answer holds no more threads than these.
pub const PER_SERVER: usize = 2;

/// What waits for its turn, and what is under way.
#[derive(Debug, Default)]
pub struct Queue {
    running: HashMap<Server, usize>,
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

    /// Takes the first rotation whose server has room; it has one of its places from then on.
    pub fn next_rotation(&mut self) -> Option<Task> {
        let running = &self.running;
        let at = self
            .rotations
            .iter()
            .position(|task| has_room(running, &task.access.server))?;
        let task = self.rotations.remove(at)?;
        self.take_place(&task.access.server);
        Some(task)
    }

    /// Takes the first order whose server has room; it has one of its places from then on.
    pub fn next_order(&mut self) -> Option<Order> {
        let running = &self.running;
        let at = self
            .orders
            .iter()
            .position(|order| has_room(running, &order.access.server))?;
        let order = self.orders.remove(at)?;
        self.take_place(&order.access.server);
        Some(order)
    }

    /// Gives a place back.
    pub fn finished(&mut self, server: &Server) {
        if let Some(count) = self.running.get_mut(server) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.running.remove(server);
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

    fn take_place(&mut self, server: &Server) {
        *self.running.entry(server.clone()).or_default() += 1;
    }
}

fn has_room(running: &HashMap<Server, usize>, server: &Server) -> bool {
    running.get(server).is_none_or(|count| *count < PER_SERVER)
}
