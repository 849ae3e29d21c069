//! Requests and responses on one connection: the order of decisions is the one that clients know (spec, daemon chapter B.6).

use std::net::Shutdown;
use std::time::Instant;

use aziot_core::api::{self, BodyError, BodyRule, Matched};
use aziot_core::http::request::{self, Head, HeadError, HeadSearch};
use aziot_core::http::write::CONTINUE;
use aziot_core::http::{BodyLength, Connection, Version, chunked};
use aziot_core::{json, limits};

use super::buffers::Buffer;
use super::conn::{Body, Conn, Discard, Framing, Got, State};
use super::response::{self, Meta};
use super::{Server, wall_clock};
use crate::service::{Context, Handled, Reply, Request, RequestId, Service};

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Close,
}

/// What a step of a connection came to.
enum Progress {
    /// There may be more to do at once.
    Again,
    /// Nothing more without further bytes.
    NeedBytes,
    /// Nothing more until the service answers.
    NeedService,
    /// The connection is finished.
    Finished,
}

/// Requests that one connection may have answered in a row, or times that it is read from, before others get their turn.
const TURN: usize = 16;

/// The rest of an unwanted body that is read so that the connection stays usable; beyond that it is closed.
const DISCARD_LIMIT: u64 = 1024 * 1024;

impl Conn {
    /// The answer is being written: what follows the request on this connection.
    pub fn answered(&mut self) {
        self.state = match self.discard.take() {
            Some(discard) => State::Discard(discard),
            None => State::Head,
        };
    }

    /// Whether nothing is under way on it.
    pub fn is_idle(&self) -> bool {
        !self.pending()
            && match self.state {
                State::Linger => true,
                State::Head => self.input.as_ref().is_none_or(Buffer::is_empty),
                _ => false,
            }
    }

    /// No further request is read; what is still to be written goes out first. With `linger` the peer may have sent more
    /// than was read, and closing at once would cost it the response.
    fn finish(&mut self, linger: bool) {
        self.closing = true;
        // What was waited for does not matter any more; writing and lingering have limits of their own.
        self.deadline = None;
        if linger {
            self.state = State::Linger;
        }
    }
}

impl<S: Service> Server<S> {
    /// Takes a connection as far as it gets without blocking.
    pub(super) fn advance(&mut self, conn: &mut Conn, index: u32) -> Verdict {
        let mut turns = 0;
        loop {
            if conn.pending() {
                if self.gathering {
                    self.answered.push(index);
                    return Verdict::Keep;
                }
                if let Some(verdict) = self.send(conn) {
                    return verdict;
                }
            }
            if conn.closing && !matches!(conn.state, State::Service) {
                if matches!(conn.state, State::Discard(_)) {
                    conn.state = State::Linger;
                }
                if !matches!(conn.state, State::Linger) || conn.end_of_file {
                    return Verdict::Close;
                }
                if conn.lingering_since.is_none() {
                    let now = Instant::now();
                    conn.lingering_since = Some(now);
                    conn.deadline = Some(now + self.kernel.timing.body);
                    if conn.stream.shutdown(Shutdown::Write).is_err() {
                        return Verdict::Close;
                    }
                }
            }
            if turns >= TURN {
                self.kernel.ready.push_back(index);
                return Verdict::Keep;
            }
            let progress = match conn.state {
                State::Head => self.head(conn, index),
                State::Body(_) => self.body(conn, index),
                State::Discard(_) => {
                    let limit = self.kernel.timing.body;
                    conn.deadline.get_or_insert_with(|| Instant::now() + limit);
                    discard(conn)
                }
                State::Linger => {
                    if let Some(input) = &mut conn.input {
                        input.consume(input.len());
                    }
                    Progress::NeedBytes
                }
                // Its place belongs to the user's next connection, whatever the request is waiting for. A request that
                // cannot be ended keeps it: otherwise there would be no bound to what a user may have under way.
                State::Service
                    if conn.peer_gone
                        && conn
                            .awaits()
                            .is_some_and(|number| self.kernel.lanes.forget(number)) =>
                {
                    Progress::Finished
                }
                State::Service => Progress::NeedService,
            };
            match progress {
                Progress::Again => turns += 1,
                Progress::NeedService => return Verdict::Keep,
                Progress::Finished => return Verdict::Close,
                Progress::NeedBytes => match conn.read(&mut self.kernel.buffers) {
                    Got::Bytes => {
                        self.arrived = true;
                        turns += 1;
                    }
                    Got::Nothing => return Verdict::Keep,
                    Got::Broken => return Verdict::Close,
                    Got::EndOfFile => {
                        if !self.end_of_file(conn) {
                            return Verdict::Close;
                        }
                    }
                },
            }
        }
    }

    /// Sends what is pending. `Some` when that is as far as the connection gets now.
    pub(super) fn send(&self, conn: &mut Conn) -> Option<Verdict> {
        match conn.flush() {
            Some(true) => {
                // The limit was for writing. A request body has its own, which goes on.
                if !matches!(conn.state, State::Body(_)) {
                    conn.deadline = None;
                }
                None
            }
            Some(false) => {
                conn.deadline
                    .get_or_insert_with(|| Instant::now() + self.kernel.timing.write);
                Some(Verdict::Keep)
            }
            None => Some(Verdict::Close),
        }
    }

    /// The peer sends no more. False when nothing is left to do.
    fn end_of_file(&mut self, conn: &mut Conn) -> bool {
        if !matches!(conn.state, State::Body(_)) {
            return false;
        }
        self.refuse_body(conn, &api::Error::Body(BodyError::UnexpectedEnd));
        true
    }

    /// The present state has lasted too long.
    pub(super) fn time_out(&mut self, index: u32) {
        let Some(mut conn) = self.kernel.table.take(index) else {
            return;
        };
        if matches!(conn.state, State::Body(_)) && !conn.pending() {
            self.refuse_body(&mut conn, &api::Error::Deadline);
            self.kernel.table.put_back(index, conn);
            self.drive(index);
        } else {
            self.close(index, conn);
        }
    }

    fn refuse_body(&mut self, conn: &mut Conn, error: &api::Error<'_>) {
        if let Some(mut meta) = conn.meta.take() {
            meta.close = true;
            self.refuse(conn, &meta, error);
        }
        conn.finish(true);
    }

    /// The process has as many large bodies under way as it may hold.
    fn overloaded(&mut self, conn: &mut Conn) {
        if let Some(mut meta) = conn.meta.take() {
            meta.close = true;
            if conn.output.capacity() == 0 {
                conn.output = self.kernel.buffers.output();
            }
            let text = "too many large requests at the same time; try again later";
            response::write(&mut conn.output, &meta, 503, |room| {
                json::write_message(&text, room)
            });
        }
        conn.finish(true);
    }

    fn refuse(&mut self, conn: &mut Conn, meta: &Meta, error: &api::Error<'_>) {
        if conn.output.capacity() == 0 {
            conn.output = self.kernel.buffers.output();
        }
        response::write(&mut conn.output, meta, error.status(), |room| {
            json::write_message(error, room)
        });
    }

    /// Looks for a complete request head.
    fn head(&mut self, conn: &mut Conn, index: u32) -> Progress {
        let timing = self.kernel.timing;
        let Some(input) = conn.input.as_mut().filter(|input| !input.is_empty()) else {
            if conn.served && !conn.idle {
                conn.idle = true;
                conn.deadline = Some(Instant::now() + timing.idle);
            }
            return if self.kernel.stopping {
                Progress::Finished
            } else {
                Progress::NeedBytes
            };
        };
        match conn.search.find(input.data()) {
            Ok(Some(length)) => {
                conn.search = HeadSearch::new();
                self.request(conn, index, length, None)
            }
            Ok(None) => {
                // After another request on the same connection there is no limit yet.
                if conn.idle || conn.deadline.is_none() {
                    conn.idle = false;
                    conn.deadline = Some(Instant::now() + timing.head);
                }
                let size = input.size();
                if input.len() == size {
                    // One byte more than a head may have, so that the search can tell.
                    let larger = (size * 4).min(limits::HEAD + 1);
                    if self.kernel.buffers.enlarge(input, larger).is_err() {
                        log::debug!(target: S::NAME, "<-- refused: too much memory is in use");
                        return self.reject_with(conn, 503);
                    }
                }
                Progress::NeedBytes
            }
            Err(error) => self.reject(conn, error),
        }
    }

    /// Answers a head that is no request; no JSON, because it is not known that the peer speaks our API at all.
    fn reject(&mut self, conn: &mut Conn, error: HeadError) -> Progress {
        let Some(status) = error.status() else {
            return Progress::Finished;
        };
        log::debug!(target: S::NAME, "<-- refused: {error}");
        self.reject_with(conn, status)
    }

    fn reject_with(&mut self, conn: &mut Conn, status: u16) -> Progress {
        let meta = self.meta(None);
        if conn.output.capacity() == 0 {
            conn.output = self.kernel.buffers.output();
        }
        response::write_empty(
            &mut conn.output,
            &Meta {
                close: true,
                ..meta
            },
            status,
        );
        conn.finish(true);
        Progress::Again
    }

    fn meta(&mut self, head: Option<&Head<'_>>) -> Meta {
        self.kernel.requests = self.kernel.requests.wrapping_add(1);
        Meta {
            version: head.map_or(Version::Http11, |head| head.version),
            close: self.kernel.stopping || head.is_none_or(|head| !head.keep_alive()),
            connection: head.map_or([Connection::Default, Connection::Close], |head| {
                [
                    head.response_connection(true),
                    head.response_connection(false),
                ]
            }),
            head_only: head.is_some_and(Head::is_head),
            number: self.kernel.requests,
            target: self.kernel.log_target,
            date: wall_clock(),
        }
    }

    /// Decides about a request whose head is complete. `body` is the number of decoded bytes once the body is, too.
    fn request(
        &mut self,
        conn: &mut Conn,
        index: u32,
        head_length: usize,
        body: Option<usize>,
    ) -> Progress {
        let Some(mut input) = conn.input.take() else {
            return Progress::NeedBytes;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let decision = self.decide(conn, index, &mut input, &mut scratch, head_length, body);
        self.scratch = scratch;
        let progress = match decision {
            Decision::Answered { body } => {
                input.consume(head_length);
                let rest = match body {
                    BodyLength::Known(length) => {
                        let here = usize::try_from(length)
                            .unwrap_or(usize::MAX)
                            .min(input.len());
                        input.consume(here);
                        (length > here as u64).then(|| Discard::Length(length - here as u64))
                    }
                    BodyLength::Chunked => Some(Discard::Chunked(chunked::Decoder::new(), 0)),
                };
                conn.served = true;
                conn.idle = false;
                conn.deadline = None;
                let too_much =
                    matches!(rest, Some(Discard::Length(length)) if length > DISCARD_LIMIT);
                match &conn.state {
                    State::Service => {
                        conn.discard = rest;
                        conn.closing |= too_much;
                    }
                    _ if too_much => conn.finish(true),
                    _ => conn.state = rest.map_or(State::Head, State::Discard),
                }
                Progress::Again
            }
            Decision::Rejected(error) => {
                conn.input = Some(input);
                return self.reject(conn, error);
            }
            Decision::Finish => {
                input.consume(input.len());
                conn.finish(true);
                Progress::Again
            }
            Decision::ReadBody(length) => {
                conn.idle = false;
                conn.deadline = Some(Instant::now() + self.kernel.timing.body);
                let framing = match length {
                    BodyLength::Known(length) => {
                        let length = usize::try_from(length).unwrap_or(usize::MAX);
                        if self
                            .kernel
                            .buffers
                            .enlarge(&mut input, head_length + length)
                            .is_err()
                        {
                            conn.input = Some(input);
                            self.overloaded(conn);
                            return Progress::Again;
                        }
                        Framing::Length(length)
                    }
                    _ => Framing::Chunked(chunked::Decoder::new()),
                };
                conn.state = State::Body(Body {
                    head: head_length,
                    framing,
                    decoded: 0,
                });
                Progress::Again
            }
        };
        conn.input = Some(input);
        progress
    }

    fn decide(
        &mut self,
        conn: &mut Conn,
        index: u32,
        input: &mut Buffer,
        scratch: &mut Vec<u8>,
        head_length: usize,
        body: Option<usize>,
    ) -> Decision {
        let Some((head_bytes, rest)) = input.data_mut().split_at_mut_checked(head_length) else {
            return Decision::Finish;
        };
        let head = match request::parse(head_bytes) {
            Ok(head) => head,
            Err(error) => return Decision::Rejected(error),
        };
        let mut meta = match (&conn.meta, body) {
            (Some(meta), Some(_)) => Meta {
                close: meta.close || self.kernel.stopping,
                date: wall_clock(),
                ..*meta
            },
            _ => self.meta(Some(&head)),
        };
        if body.is_none() {
            log::debug!(target: S::NAME, "<-- {} {} {}{}", head.method_name, head.target, head.headers, meta.tag());
        }
        if scratch.len() < head.target.len() {
            scratch.resize(head.target.len(), 0);
        }
        let matched = match S::api().route(&head, scratch) {
            Ok(matched) => matched,
            Err(error) => return self.answer_error(conn, &mut meta, &head, &error, body),
        };
        let wanted = match matched.body_rule() {
            Ok(rule) => rule == BodyRule::Read,
            Err(error) => return self.answer_error(conn, &mut meta, &head, &error, body),
        };
        let length = match (wanted, head.body, body) {
            (false, _, _) | (true, BodyLength::Known(0), None) => 0,
            (true, _, Some(length)) => length,
            (true, BodyLength::Known(length), None) => {
                if length > S::BODY_LIMIT as u64 {
                    meta.close = true;
                    self.refuse(
                        conn,
                        &meta,
                        &api::Error::BodyTooLarge {
                            limit: S::BODY_LIMIT,
                        },
                    );
                    return Decision::Finish;
                }
                match usize::try_from(length) {
                    Ok(length) if length <= rest.len() => length,
                    _ => return self.read_body(conn, meta, &head),
                }
            }
            (true, BodyLength::Chunked, None) => return self.read_body(conn, meta, &head),
        };
        let bytes = rest.get_mut(..length).unwrap_or_default();
        self.handle(conn, index, meta, &head, &matched, wanted.then_some(bytes));
        // A body that was read has been decoded; what of it is in the buffer is consumed with the head.
        let body = match (wanted, body) {
            (true, Some(length)) => BodyLength::Known(length as u64),
            _ => head.body,
        };
        Decision::Answered { body }
    }

    fn read_body(&mut self, conn: &mut Conn, meta: Meta, head: &Head<'_>) -> Decision {
        if head.expects_continue {
            if conn.output.capacity() == 0 {
                conn.output = self.kernel.buffers.output();
            }
            conn.output.extend_from_slice(CONTINUE);
        }
        conn.meta = Some(meta);
        Decision::ReadBody(head.body)
    }

    fn answer_error(
        &mut self,
        conn: &mut Conn,
        meta: &mut Meta,
        head: &Head<'_>,
        error: &api::Error<'_>,
        body: Option<usize>,
    ) -> Decision {
        // A client that waits for `100 Continue` sends no body after an error.
        let waits = head.expects_continue && body.is_none() && head.body != BodyLength::Known(0);
        meta.close |= waits;
        self.refuse(conn, meta, error);
        if waits {
            return Decision::Finish;
        }
        conn.closing |= meta.close;
        Decision::Answered {
            body: body.map_or(head.body, |length| BodyLength::Known(length as u64)),
        }
    }

    /// Hands a complete request to the service.
    fn handle(
        &mut self,
        conn: &mut Conn,
        index: u32,
        meta: Meta,
        head: &Head<'_>,
        matched: &Matched<'_, S::Op>,
        body: Option<&mut [u8]>,
    ) {
        conn.meta = None;
        conn.state = State::Head;
        let body = match body.map(|body| matched.body(body)).transpose() {
            Ok(body) => body.flatten(),
            Err(error) => {
                self.refuse(conn, &meta, &error);
                conn.closing |= meta.close;
                return;
            }
        };
        let id = RequestId {
            index,
            generation: conn.generation,
            number: meta.number,
        };
        let request = Request {
            id,
            op: matched.id,
            method: head.method,
            version: matched.version,
            param: matched.parameter.unwrap_or_default(),
            kind: matched.kind,
            body,
            peer: conn.peer,
        };
        if conn.output.capacity() == 0 {
            conn.output = self.kernel.buffers.output();
        }
        let mut closing = meta.close;
        let before = conn.output.len();
        let reply = Reply {
            out: &mut conn.output,
            closing: &mut closing,
            meta,
            owed_after: None,
        };
        if std::mem::take(&mut self.arrived) {
            self.service.arrived();
        }
        match self.service.request(
            request,
            reply,
            &mut Context {
                kernel: &mut self.kernel,
            },
        ) {
            Handled::Now => {
                if conn.output.len() == before {
                    response::write_unanswered(&mut conn.output, &meta);
                }
                conn.closing |= closing;
            }
            Handled::Later => {
                conn.meta = Some(meta);
                conn.state = State::Service;
            }
        }
    }

    /// Takes in a request body.
    fn body(&mut self, conn: &mut Conn, index: u32) -> Progress {
        let State::Body(body) = &mut conn.state else {
            return Progress::Again;
        };
        let Some(input) = &mut conn.input else {
            return Progress::NeedBytes;
        };
        let head = body.head;
        let complete = match &mut body.framing {
            Framing::Length(length) => (input.len() >= head + *length).then_some(*length),
            Framing::Chunked(decoder) => {
                let start = head + body.decoded;
                let raw = input.data_mut().get_mut(start..).unwrap_or_default();
                match decoder.decode(raw) {
                    Ok(step) => {
                        input.cut(start + step.produced, start + step.consumed);
                        body.decoded += step.produced;
                        if body.decoded > S::BODY_LIMIT {
                            self.refuse_body(
                                conn,
                                &api::Error::BodyTooLarge {
                                    limit: S::BODY_LIMIT,
                                },
                            );
                            return Progress::Again;
                        }
                        step.done.then_some(body.decoded)
                    }
                    Err(error) => {
                        self.refuse_body(conn, &api::Error::Body(BodyError::Chunked(error)));
                        return Progress::Again;
                    }
                }
            }
        };
        if let Some(length) = complete {
            return self.request(conn, index, head, Some(length));
        }
        if input.len() == input.size() {
            // One byte more than there may be, so that too much shows.
            let larger = (input.size() * 2).min(head + S::BODY_LIMIT + 1);
            if self.kernel.buffers.enlarge(input, larger).is_err() {
                self.overloaded(conn);
                return Progress::Again;
            }
        }
        Progress::NeedBytes
    }
}

/// What is to be done about a request.
enum Decision {
    /// It was answered, or the service will; the body, if any is left, is of no interest.
    Answered { body: BodyLength },
    /// Its head is malformed.
    Rejected(HeadError),
    /// It was answered, and no further one can be read.
    Finish,
    /// Its body has to be read first.
    ReadBody(BodyLength),
}

/// Drops the rest of a body.
fn discard(conn: &mut Conn) -> Progress {
    let State::Discard(discard) = &mut conn.state else {
        return Progress::Again;
    };
    let Some(input) = conn.input.as_mut().filter(|input| !input.is_empty()) else {
        return Progress::NeedBytes;
    };
    let done = match discard {
        Discard::Length(length) => {
            let here = usize::try_from(*length)
                .unwrap_or(usize::MAX)
                .min(input.len());
            input.consume(here);
            *length -= here as u64;
            *length == 0
        }
        Discard::Chunked(decoder, total) => match decoder.decode(input.data_mut()) {
            Ok(step) => {
                input.consume(step.consumed);
                *total += step.consumed as u64;
                if *total > DISCARD_LIMIT {
                    conn.finish(true);
                    return Progress::Again;
                }
                step.done
            }
            Err(_) => return Progress::Finished,
        },
    };
    if done {
        conn.state = State::Head;
        conn.deadline = None;
        return Progress::Again;
    }
    Progress::NeedBytes
}
