//! One connection: its bytes, its state, its deadline.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Instant;

use aziot_core::http::chunked;
use aziot_core::http::request::HeadSearch;
use mio::net::UnixStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::buffers::{Buffer, Buffers, Held, SMALL};
use super::response::Meta;
use crate::sys::Peer;
use crate::wipe::wipe;

/// A connection and all that is known about its current request.
pub struct Conn {
    /// The socket.
    pub stream: UnixStream,
    /// Who is at the other end.
    pub peer: Peer,
    /// Counts the uses of this place in the table, so that late answers do not reach a successor.
    pub generation: u32,
    /// What it waits for.
    pub state: State,
    /// Bytes that came in. Borrowed from the pool only while there are any.
    pub input: Option<Buffer>,
    /// Bytes to go out, from `sent` on. Borrowed likewise.
    pub output: Vec<u8>,
    /// How much of `output` is gone.
    pub sent: usize,
    /// What a large `output` counts for while the peer does not read it.
    pub held: Option<Held>,
    /// How far the search for the end of the head has got.
    pub search: HeadSearch,
    /// About the request whose answer is being made.
    pub meta: Option<Meta>,
    /// What is left of the request's body once the service has answered.
    pub discard: Option<Discard>,
    /// Close once `output` has gone.
    pub closing: bool,
    /// A request has been answered on it.
    pub served: bool,
    /// It waits for the first byte of a further request.
    pub idle: bool,
    /// Since when it only waits for the peer to close.
    pub lingering_since: Option<Instant>,
    /// The socket may have more to read.
    pub readable: bool,
    /// The peer has shut down its sending side; reading goes on until the end of file is reached.
    pub peer_closed: bool,
    /// The peer has closed the connection altogether: nobody takes an answer.
    pub peer_gone: bool,
    /// The end of file has been read.
    pub end_of_file: bool,
    /// When the present state has lasted too long.
    pub deadline: Option<Instant>,
    /// The earliest entry for this connection in the timer queue.
    pub queued: Option<Instant>,
}

/// What a connection waits for.
pub enum State {
    /// For a request head.
    Head,
    /// For the rest of a request body, whose head is still in the buffer.
    Body(Body),
    /// For the service.
    Service,
    /// For the rest of a body that nobody wants, so that the next request can be read.
    Discard(Discard),
    /// For the peer to take the last response and close; anything that it still sends is dropped.
    Linger,
}

/// A body under way.
pub struct Body {
    /// Bytes of the head before it.
    pub head: usize,
    /// How it is framed.
    pub framing: Framing,
    /// Decoded bytes so far; they follow the head.
    pub decoded: usize,
}

/// How a body is framed.
pub enum Framing {
    /// By its length.
    Length(usize),
    /// By chunks.
    Chunked(chunked::Decoder),
}

/// A body being discarded.
pub enum Discard {
    /// This many bytes are to come.
    Length(u64),
    /// Until the last chunk; so many encoded bytes have come in.
    Chunked(chunked::Decoder, u64),
}

/// What reading yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// New bytes.
    Bytes,
    /// Nothing at the moment.
    Nothing,
    /// The peer sends no more.
    EndOfFile,
    /// The connection is broken.
    Broken,
}

impl Conn {
    /// A connection that has just been accepted.
    pub fn new(stream: UnixStream, peer: Peer, generation: u32) -> Self {
        Self {
            stream,
            peer,
            generation,
            state: State::Head,
            input: None,
            output: Vec::new(),
            sent: 0,
            held: None,
            search: HeadSearch::new(),
            meta: None,
            discard: None,
            closing: false,
            served: false,
            idle: false,
            lingering_since: None,
            readable: true,
            peer_closed: false,
            peer_gone: false,
            end_of_file: false,
            deadline: None,
            queued: None,
        }
    }

    /// The number of the request that the service has to answer.
    pub fn awaits(&self) -> Option<u64> {
        let meta = self.meta.as_ref()?;
        matches!(self.state, State::Service).then_some(meta.number)
    }

    /// Whether bytes wait to go out.
    pub fn pending(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Whether the peer has closed the connection altogether, not only its sending side (`POLLHUP`, poll(2)).
    pub fn has_hung_up(&self) -> bool {
        // Hanging up is told without being asked for.
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        let found = poll(&mut fds, Some(&Timespec::default()));
        found.is_ok() && fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
    }

    /// Reads once. A short read means that the socket is empty, so it is not asked again until the kernel says so.
    pub fn read(&mut self, buffers: &mut Buffers) -> Got {
        if self.end_of_file {
            return Got::EndOfFile;
        }
        if !self.readable && !self.peer_closed {
            return Got::Nothing;
        }
        let input = self.input.get_or_insert_with(|| buffers.input());
        loop {
            let room = input.room();
            if room.is_empty() {
                return Got::Nothing;
            }
            let wanted = room.len();
            match self.stream.read(room) {
                Ok(0) => {
                    self.readable = false;
                    self.end_of_file = true;
                    return Got::EndOfFile;
                }
                Ok(count) => {
                    input.filled(count);
                    self.readable = count == wanted;
                    return Got::Bytes;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Got::Nothing;
                }
                Err(error) => {
                    log::debug!("Error while serving HTTP connection: {error}");
                    return Got::Broken;
                }
            }
        }
    }

    /// Writes what is pending, and wipes it: it may be a key. `Some(true)` when all has gone, `Some(false)` when the peer
    /// has to read first, `None` when the connection is broken.
    pub fn flush(&mut self) -> Option<bool> {
        while self.pending() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return None,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(false),
                Err(error) => {
                    log::debug!("Error while serving HTTP connection: {error}");
                    return None;
                }
            }
        }
        wipe(&mut self.output);
        self.output.clear();
        self.sent = 0;
        Some(true)
    }

    /// Gives the buffers back that hold nothing.
    pub fn release(&mut self, buffers: &mut Buffers) {
        if self.input.as_ref().is_some_and(Buffer::is_empty)
            && let Some(input) = self.input.take()
        {
            buffers.give_back(input);
        }
        if self.pending() {
            if self.output.capacity() > SMALL && self.held.is_none() {
                self.held = Some(buffers.hold(self.output.capacity()));
            }
        } else if self.output.capacity() > 0 {
            self.sent = 0;
            self.held = None;
            buffers.give_back_output(std::mem::take(&mut self.output));
        }
    }
}
