//! Memory for bytes under way: small buffers that connections borrow from a pool, large ones within a bound for the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aziot_core::limits;

use crate::wipe::wipe;

/// Size of a pooled buffer: one page, enough for all but a few requests.
pub const SMALL: usize = 4096;

/// Pooled buffers kept for reuse. More connections than this are rarely busy in the same instant.
const KEPT: usize = 64;

/// What large buffers may take together: the bodies, and the heads that stand before two of the largest.
const LARGE: usize = limits::BODY_TOTAL + 2 * limits::HEAD;

/// A read buffer: `bytes[start..end]` is what has come in and not been used yet.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How far it has ever been filled: what there is to wipe.
    touched: usize,
    /// What a large one counts for.
    held: Option<Held>,
}

/// Memory that counts towards the bound of the process until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Held {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Buffer {
    /// The bytes that have come in.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The bytes that have come in, to be decoded in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How many bytes have come in.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes it can hold.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Room for more.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// Notes that `count` bytes were put into the room.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.touched = self.touched.max(self.end);
    }

    /// Drops `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Drops the bytes `from..to`, counted from the front, by moving up what follows.
    pub fn cut(&mut self, from: usize, to: usize) {
        let (from, to) = (self.start + from, self.start + to);
        if from < to && to <= self.end {
            self.bytes.copy_within(to..self.end, from);
            self.end -= to - from;
        }
    }
}

/// The pool, and the account of large buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    large: Arc<AtomicUsize>,
}

/// The process holds as many bytes of large bodies as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Buffers {
    /// A small read buffer.
    pub fn input(&mut self) -> Buffer {
        let bytes = self.inputs.pop().unwrap_or_else(|| vec![0; SMALL]);
        Buffer {
            bytes,
            ..Buffer::default()
        }
    }

    /// A small write buffer.
    pub fn output(&mut self) -> Vec<u8> {
        self.outputs
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(SMALL))
    }

    /// Counts `bytes` towards the bound, whether they fit or not: for what a request needs that was let in already. While
    /// they are held, others are not.
    pub fn hold(&self, bytes: usize) -> Held {
        self.large.fetch_add(bytes, Ordering::Relaxed);
        Held {
            bytes,
            total: Arc::clone(&self.large),
        }
    }

    /// Makes `buffer` hold at least `size` bytes.
    ///
    /// # Errors
    /// [`Exhausted`] when that would exceed the bound for the process; the buffer is unchanged then.
    pub fn enlarge(&mut self, buffer: &mut Buffer, size: usize) -> Result<(), Exhausted> {
        if size <= buffer.bytes.len() {
            return Ok(());
        }
        let before = buffer.held.as_ref().map_or(0, |held| held.bytes);
        let others = self.large.load(Ordering::Relaxed).saturating_sub(before);
        if others.saturating_add(size) > LARGE {
            return Err(Exhausted);
        }
        let mut bytes = vec![0; size];
        bytes[..buffer.len()].copy_from_slice(buffer.data());
        let length = buffer.len();
        let held = (size > SMALL).then(|| self.hold(size));
        let old = std::mem::replace(
            buffer,
            Buffer {
                bytes,
                start: 0,
                end: length,
                touched: length,
                held,
            },
        );
        self.give_back(old);
        Ok(())
    }

    /// Takes a read buffer back. What it held may have been a key: it is wiped.
    pub fn give_back(&mut self, mut buffer: Buffer) {
        if let Some(touched) = buffer.bytes.get_mut(..buffer.touched) {
            wipe(touched);
        }
        if buffer.bytes.len() == SMALL && self.inputs.len() < KEPT {
            self.inputs.push(buffer.bytes);
        }
    }

    /// Takes a write buffer back. What it still holds may be a key: it is wiped.
    pub fn give_back_output(&mut self, mut bytes: Vec<u8>) {
        wipe(&mut bytes);
        bytes.clear();
        if bytes.capacity() <= SMALL && bytes.capacity() > 0 && self.outputs.len() < KEPT {
            self.outputs.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_and_what_is_held_share_one_bound() {
        let mut buffers = Buffers::default();
        let body = limits::BODY_KEYS + 1000;
        let (mut one, mut two, mut three) = (buffers.input(), buffers.input(), buffers.input());
        assert_eq!(buffers.enlarge(&mut one, body), Ok(()));
        assert_eq!(
            buffers.enlarge(&mut two, body),
            Ok(()),
            "two of the largest fit"
        );
        assert_eq!(buffers.enlarge(&mut three, body), Err(Exhausted));
        assert_eq!(three.size(), SMALL);
        let copy = buffers.hold(body);
        buffers.give_back(one);
        assert_eq!(
            buffers.enlarge(&mut three, body),
            Err(Exhausted),
            "a job has a copy of the body"
        );
        drop(copy);
        assert_eq!(buffers.enlarge(&mut three, body), Ok(()));
        for buffer in [two, three] {
            buffers.give_back(buffer);
        }
        assert_eq!(buffers.large.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_was_read_is_wiped() {
        let mut buffers = Buffers::default();
        let mut buffer = buffers.input();
        buffer.room()[..10].copy_from_slice(b"0123secret");
        buffer.filled(10);
        buffer.cut(2, 4);
        buffer.consume(3);
        buffer.consume(5);
        assert!(buffer.is_empty());
        let _ = buffer.room();
        buffers.give_back(buffer);
        assert_eq!(buffers.input().bytes, [0; SMALL]);
    }
}
