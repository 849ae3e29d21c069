//! What a service is to the event loop: a state machine that answers requests and digests events.
//!
//! A service runs in the loop's thread and never blocks. It answers a request right away, or keeps its [`RequestId`], hands
//! a job to a [lane](crate::lanes), and answers when the job's event comes in.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use aziot_core::api::{self, Api};
use aziot_core::http::Method;
use aziot_core::json::{self, BufferFull, FromJson};
use serde::Serialize;

use crate::lanes::{Busy, Done, Lane};
use crate::server::{Held, Kernel, response};
use crate::sys::Peer;
use crate::timing::Timing;

/// A service of the daemon.
pub trait Service: Sized + 'static {
    /// What its routes lead to.
    type Op: Copy + 'static;
    /// What its jobs yield.
    type Event: Send + 'static;

    /// The part of the log target after `aziot_`, `keyd` for example.
    const NAME: &'static str;

    /// The largest request body it takes, in bytes.
    const BODY_LIMIT: usize;

    /// Its API versions and routes.
    fn api() -> &'static Api<Self::Op>;

    /// Called once, when the loop owns its socket.
    fn start(&mut self, _cx: &mut Context<'_, Self>) {}

    /// Called before a request when something has come in since the last call. What the service looks at from now on, it
    /// looks at after all requests up to the next call have arrived.
    fn arrived(&mut self) {}

    /// Answers a request, or keeps its id to answer later.
    fn request(
        &mut self,
        request: Request<'_, Self::Op>,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled;

    /// Digests the result of a job.
    fn event(&mut self, event: Self::Event, cx: &mut Context<'_, Self>);

    /// An alarm set with [`Context::set_alarm`] has come due, or the wall clock was stepped ([`Alarm::CLOCK_STEP`]).
    fn alarm(&mut self, _alarm: Alarm, _cx: &mut Context<'_, Self>) {}

    /// A configuration file changed, or SIGHUP arrived.
    fn reload(&mut self, _cx: &mut Context<'_, Self>) {}
}

/// A request with all that the shared rules have established about it.
#[derive(Debug)]
pub struct Request<'r, Op> {
    /// For answering later.
    pub id: RequestId,
    /// The route.
    pub op: Op,
    /// The method; one that the route implements.
    pub method: Method,
    /// Index of the API version in [`Api::versions`].
    pub version: usize,
    /// The decoded path parameter, empty for routes without one.
    pub param: &'r str,
    /// The first `type` of the query string.
    pub kind: Option<&'r str>,
    /// The JSON text of the body. `None` when there is none or it is not declared to be JSON. It is decoded in place.
    pub body: Option<&'r mut [u8]>,
    /// Who sent it.
    pub peer: Peer,
}

impl<'r, Op> Request<'r, Op> {
    /// Decodes the body, which the operation needs.
    ///
    /// # Errors
    /// [`api::Error::MissingBody`], or what is wrong with the JSON text.
    pub fn decode<T: FromJson<'r>>(&mut self) -> Result<T, api::Error<'r>> {
        let body = self.body.take().ok_or(api::Error::MissingBody)?;
        json::from_slice(body).map_err(api::Error::Json)
    }
}

/// What a service did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Handled {
    /// The reply has been written.
    Now,
    /// The service keeps the id and answers later.
    Later,
}

/// Names a request whose answer is outstanding. Answers to connections that have gone are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    /// That of [`response::Meta`]: a connection has many requests, one after the other.
    pub(crate) number: u64,
}

/// Names an alarm of a service. Setting an alarm again moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm(pub u32);

impl Alarm {
    /// The wall clock was stepped: whatever depends on it is to be looked at again.
    pub const CLOCK_STEP: Self = Self(u32::MAX);
}

/// Where the answer to one request is written.
#[derive(Debug)]
pub struct Reply<'r> {
    pub(crate) out: &'r mut Vec<u8>,
    pub(crate) closing: &'r mut bool,
    pub(crate) meta: response::Meta,
    /// The length of `out` before the answer, for replies that have to be used.
    pub(crate) owed_after: Option<usize>,
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        if self.owed_after == Some(self.out.len()) {
            response::write_unanswered(self.out, &self.meta);
        }
    }
}

impl Reply<'_> {
    /// Answers with a JSON body.
    pub fn json<T: Serialize + ?Sized>(self, status: u16, value: &T) -> Handled {
        response::write(self.out, &self.meta, status, |buffer| {
            json::to_slice(value, buffer)
        });
        Handled::Now
    }

    /// Answers 200 with an object of one member, bytes as Base64. `name` needs no escaping in JSON.
    pub fn bytes(self, name: &'static str, bytes: &[u8]) -> Handled {
        self.with(200, |buffer| json::write_base64_member(name, bytes, buffer))
    }

    /// Answers with a JSON body that `body` writes into the room it is given; it is called again with more room when that
    /// was too small.
    pub fn with(
        self,
        status: u16,
        body: impl Fn(&mut [u8]) -> Result<usize, BufferFull>,
    ) -> Handled {
        response::write(self.out, &self.meta, status, body);
        Handled::Now
    }

    /// Answers 200 with a JSON body.
    pub fn ok<T: Serialize + ?Sized>(self, value: &T) -> Handled {
        self.json(200, value)
    }

    /// Answers 204. The connection stays open.
    pub fn no_content(self) -> Handled {
        response::write_no_content(self.out, &self.meta);
        Handled::Now
    }

    /// Answers 204 and closes the connection, for clients that would wait for the end of a body that never comes (spec,
    /// keys chapter 10.2).
    pub fn no_content_and_close(mut self) -> Handled {
        self.meta.close = true;
        *self.closing = true;
        response::write_no_content(self.out, &self.meta);
        Handled::Now
    }

    /// Answers with an error. The text may have several lines (`…\ncaused by: …`). Of internal errors the client sees
    /// only `internal error`; the log gets everything.
    pub fn error(self, status: u16, text: &dyn Display) -> Handled {
        let full = text.to_string();
        if status >= 500 {
            log::error!(target: self.meta.target, "!!! internal error{}", self.meta.tag());
            for line in full.lines() {
                log::error!(target: self.meta.target, "!!! caused by: {line}{}", self.meta.tag());
            }
            response::write(self.out, &self.meta, status, |b| {
                json::write_message(&"internal error", b)
            });
        } else {
            let told = if status == 422 {
                without_quotation(&full)
            } else {
                Cow::Borrowed(full.as_str())
            };
            for line in told.lines() {
                log::info!(target: self.meta.target, "!!! {line}{}", self.meta.tag());
            }
            response::write(self.out, &self.meta, status, |b| {
                json::write_message(&full, b)
            });
        }
        Handled::Now
    }
}

/// The complaint of a decoder without what it quotes from the body: a key, or a handle, may have been put in the wrong
/// place, and must not get into the log that way.
fn without_quotation(text: &str) -> Cow<'_, str> {
    for (start, end) in [
        ("string \"", "\", expected"),
        ("unknown variant `", "`, expected"),
    ] {
        if let (Some(from), Some(to)) =
            (text.find(start).map(|at| at + start.len()), text.rfind(end))
            && let (Some(before), Some(after)) = (text.get(..from), text.get(to..))
            && from <= to
        {
            return Cow::Owned(format!("{before}…{after}"));
        }
    }
    Cow::Borrowed(text)
}

/// What a service may ask of the loop.
pub struct Context<'k, S: Service> {
    pub(crate) kernel: &'k mut Kernel<S::Event>,
}

impl<S: Service> Context<'_, S> {
    /// The reply to a request kept earlier; `None` when its client has gone, or it was answered before. A reply that is
    /// dropped unused answers 500.
    pub fn reply(&mut self, id: RequestId) -> Option<Reply<'_>> {
        self.kernel.reply(id)
    }

    /// Runs a job in a lane; what it returns comes back through [`Service::event`].
    ///
    /// # Errors
    /// [`Busy`] when the lane cannot take it.
    pub fn run(
        &mut self,
        lane: Lane,
        job: impl FnOnce() -> S::Event + Send + 'static,
    ) -> Result<(), Busy> {
        self.kernel.lanes.run(lane, job)
    }

    /// As [`run`](Self::run), for a job that serves this request and nothing else. Should the client hang up, its connection
    /// is closed, and a job that has not begun is dropped without an event.
    ///
    /// # Errors
    /// [`Busy`] when the lane cannot take it.
    pub fn run_for(
        &mut self,
        id: RequestId,
        lane: Lane,
        job: impl FnOnce() -> S::Event + Send + 'static,
    ) -> Result<(), Busy> {
        self.kernel.run_for(id, lane, job)
    }

    /// Whether the client of a request kept earlier, and not answered yet, has hung up. The request keeps its connection, and so
    /// a place of its user, until it is answered all the same, unless it is with a job of its own
    /// ([`run_for`](Self::run_for)).
    pub fn has_hung_up(&mut self, id: RequestId) -> bool {
        self.kernel.has_hung_up(id)
    }

    /// Whether the answer to a request kept earlier is outstanding, even if its client has hung up.
    pub fn is_awaited(&mut self, id: RequestId) -> bool {
        self.kernel.is_awaited(id)
    }

    /// A way to send events from a job that has more than one.
    #[must_use]
    pub fn events(&self) -> Done<S::Event> {
        self.kernel.lanes.done()
    }

    /// Counts a job's copy of a request body towards the memory that the process has for bodies. To be moved into the job.
    pub fn hold(&self, bytes: usize) -> Held {
        self.kernel.hold(bytes)
    }

    /// Sets or moves an alarm. It runs on the boot clock: time in suspend counts.
    pub fn set_alarm(&mut self, alarm: Alarm, after: Duration) {
        self.kernel.alarms.set(alarm, after);
    }

    /// Takes an alarm back.
    pub fn clear_alarm(&mut self, alarm: Alarm) {
        self.kernel.alarms.clear(alarm);
    }

    /// The time limits in force.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.kernel.timing
    }

    /// Changes how many connections a user may have open.
    pub fn set_max_requests(&mut self, connections: u64) {
        self.kernel.max_requests = usize::try_from(connections).unwrap_or(usize::MAX);
    }

    /// Ends the process with a failure after the current event, for errors that only an administrator can mend.
    pub fn fail(&mut self) {
        self.kernel.failed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_reply_is_an_answer() {
        fn reply<'r>(
            out: &'r mut Vec<u8>,
            closing: &'r mut bool,
            owed_after: Option<usize>,
        ) -> Reply<'r> {
            let meta = response::Meta {
                version: aziot_core::http::Version::Http11,
                close: false,
                connection: [aziot_core::http::Connection::Default; 2],
                head_only: false,
                number: 1,
                target: "aziot_test",
                date: aziot_core::time::UnixTime::default(),
            };
            Reply {
                out,
                closing,
                meta,
                owed_after,
            }
        }
        let (mut out, mut closing) = (Vec::new(), false);
        // A service that keeps the id of a request drops the reply that came with it.
        drop(reply(&mut out, &mut closing, None));
        assert_eq!(out, []);
        let _ = reply(&mut out, &mut closing, Some(0)).no_content();
        assert_eq!(
            out.windows(5).filter(|text| text == b"HTTP/").count(),
            1,
            "answered once"
        );
        let before = out.len();
        drop(reply(&mut out, &mut closing, Some(before)));
        let text = String::from_utf8_lossy(&out[before..]);
        assert!(
            text.starts_with("HTTP/1.1 500") && text.ends_with("{\"message\":\"internal error\"}"),
            "{text}"
        );
    }

    #[test]
    fn ks_38_the_log_does_not_quote_bodies() {
        for (told, logged) in [
            (
                "missing field `x` at line 1 column 2",
                "missing field `x` at line 1 column 2",
            ),
            (
                "invalid type: string \"secret\", expected struct Sign at line 1 column 8",
                "invalid type: string \"…\", expected struct Sign at line 1 column 8",
            ),
            (
                "invalid value: string \"a\\\", expected b\", expected KeyUsage at line 1 column 8",
                "invalid value: string \"…\", expected KeyUsage at line 1 column 8",
            ),
            (
                "unknown variant `secret`, expected `ECDSA` or `HMAC-SHA256` at line 1 column 8",
                "unknown variant `…`, expected `ECDSA` or `HMAC-SHA256` at line 1 column 8",
            ),
            (
                "invalid type: string \"\", expected u8",
                "invalid type: string \"…\", expected u8",
            ),
        ] {
            assert_eq!(without_quotation(told), logged);
        }
    }
}
