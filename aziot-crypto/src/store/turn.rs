//! Turns: calls that change a key come one after the other, and after those that look at it; calls for other keys do
//! not wait.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Something that two calls must not change at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Resource {
    /// A file.
    File(PathBuf),
    /// The objects with a label in a token.
    Object {
        /// The token's URI, without its PIN.
        token: String,
        /// `None` stands for whatever object the token shows first.
        label: Option<String>,
    },
}

/// What a call does with its resources.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// Looks at them; any number of calls at once.
    Shared,
    /// Changes them.
    Exclusive,
}

/// Who is at work, and who waits, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queue: Mutex<Queue>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    claims: Vec<Claim>,
    /// Number of the next claim.
    next: u64,
}

#[derive(Debug)]
struct Claim {
    number: u64,
    resources: Vec<Resource>,
    access: Access,
}

impl Claim {
    fn excludes(&self, other: &Self) -> bool {
        (self.access == Access::Exclusive || other.access == Access::Exclusive)
            && self
                .resources
                .iter()
                .any(|resource| other.resources.contains(resource))
    }
}

impl Turns {
    /// Waits for all earlier calls that exclude this one.
    ///
    /// All resources are claimed at once and nobody overtakes, so calls can neither wait for each other nor starve.
    pub(super) fn take(&self, resources: Vec<Resource>, access: Access) -> Turn<'_> {
        let mut queue = self.queue();
        let number = queue.next;
        queue.next = number.wrapping_add(1);
        queue.claims.push(Claim {
            number,
            resources,
            access,
        });
        while !queue.is_first(number) {
            queue = self
                .ended
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn {
            turns: self,
            number,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent after every statement.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_first(&self, number: u64) -> bool {
        let mut earlier = self.claims.iter();
        let Some(own) = earlier.clone().find(|claim| claim.number == number) else {
            return true;
        };
        // Claims stand in order of arrival.
        !earlier
            .by_ref()
            .take_while(|claim| claim.number != number)
            .any(|claim| claim.excludes(own))
    }
}

/// The right to use what was claimed; ends when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns
            .queue()
            .claims
            .retain(|claim| claim.number != self.number);
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn file(name: &str) -> Resource {
        Resource::File(name.into())
    }

    #[test]
    fn changes_exclude_and_looks_do_not() {
        let turns = Turns::default();
        let (a, b) = (file("a"), file("b"));
        let first = turns.take(vec![a.clone()], Access::Shared);
        let second = turns.take(vec![a.clone(), b.clone()], Access::Shared);
        let other = turns.take(vec![file("c")], Access::Exclusive);
        thread::scope(|scope| {
            let change = scope.spawn(|| drop(turns.take(vec![b.clone()], Access::Exclusive)));
            thread::sleep(Duration::from_millis(20));
            assert!(!change.is_finished());
            drop(second);
            change.join().unwrap();
        });
        drop((first, other));
        assert!(turns.queue().claims.is_empty());
    }

    #[test]
    fn who_comes_first_goes_first() {
        let turns = Turns::default();
        let held = turns.take(vec![file("a")], Access::Shared);
        let finished = AtomicUsize::new(0);
        thread::scope(|scope| {
            let change = scope.spawn(|| {
                let _turn = turns.take(vec![file("a"), file("b")], Access::Exclusive);
                finished.fetch_add(1, Ordering::SeqCst)
            });
            while turns.queue().claims.len() < 2 {
                thread::yield_now();
            }
            // A look that could go ahead waits behind the change, or changes would starve.
            let look = scope.spawn(|| {
                let _turn = turns.take(vec![file("a")], Access::Shared);
                finished.fetch_add(1, Ordering::SeqCst)
            });
            while turns.queue().claims.len() < 3 {
                thread::yield_now();
            }
            drop(held);
            assert_eq!((change.join().unwrap(), look.join().unwrap()), (0, 1));
        });
    }

    #[test]
    fn crossing_claims_do_not_block_each_other_for_ever() {
        let turns = Turns::default();
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for (one, other) in [("a", "b"), ("b", "a"), ("a", "a"), ("b", "c")] {
                let (turns, inside) = (&turns, &inside);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let _turn = turns.take(vec![file(one), file(other)], Access::Exclusive);
                        if one == "a" || other == "a" {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
