//! One request and its response over a connection.

use std::fmt;
use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aziot_core::http::response::{self, Limits, ResponseParser};
use aziot_core::http::write::RequestHead;
use aziot_core::http::{ContentType, Status};
use aziot_core::limits::RESPONSE_HEAD;
use aziot_core::retry::Answer;
use aziot_core::time::UnixTime;
use zeroize::Zeroizing;

use super::error::{Error, Kind, Step};
use super::wire::{Deadline, Wire};

/// First size of the buffer for a response; most are far smaller.
const FIRST: usize = 4096;

/// Room for a request head beside its target and header fields.
const HEAD: usize = 512;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The method's name.
    pub method: &'r str,
    /// The authority, for the `host` field.
    pub host: &'r str,
    /// Path and query, percent-encoded.
    pub target: &'r str,
    /// Header fields beside those that every request has, names in lower case.
    pub headers: &'r [(&'r str, &'r str)],
    /// The body, if there is one: JSON, unless `headers` has another `content-type`.
    pub body: Option<&'r [u8]>,
}

/// A complete response.
pub struct Response {
    /// The status.
    pub status: u16,
    /// Whether the body is JSON as far as the head says: it does, or says nothing.
    pub is_json: bool,
    /// What `retry-after` asks for.
    pub retry_after: Option<Duration>,
    /// The peer's clock, in seconds since 1970.
    pub date: Option<u64>,
    /// Where the value of `content-type` is in the head.
    content_type: Option<Range<usize>>,
    /// Head and body as received; wiped when dropped, because a body may hold keys.
    bytes: Zeroizing<Vec<u8>>,
    /// Where the body begins.
    body: usize,
}

impl Response {
    /// The body. JSON is decoded in place.
    pub fn body(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.body..).unwrap_or_default()
    }

    /// The value of `content-type` as received, if there is one.
    #[must_use]
    pub fn content_type(&self) -> Option<&[u8]> {
        self.bytes.get(self.content_type.clone()?)
    }

    /// The value of `content-type`, and the body, which can be decoded in place.
    pub fn parts(&mut self) -> (Option<&[u8]>, &mut [u8]) {
        let (head, body) = self
            .bytes
            .split_at_mut_checked(self.body)
            .unwrap_or_default();
        let content_type = self.content_type.clone();
        (content_type.and_then(|range| head.get(range)), body)
    }

    /// The response as core's protocols take it.
    pub fn answer(&mut self) -> Answer<'_> {
        Answer {
            status: self.status,
            json: self.is_json,
            retry_after: self.retry_after,
            body: self.body(),
        }
    }

    /// The status in words, `404 Not Found`.
    #[must_use]
    pub fn status_line(&self) -> Status {
        Status(self.status)
    }
}

/// Shows no content: it may be secret.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// How long an exchange may take, and how much may come of it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the response's body.
    pub body: usize,
    /// How long the peer may take between two pieces of the exchange: accept nothing, or say nothing.
    pub silence: Duration,
    /// When all has to be done.
    pub by: Deadline,
}

/// Sends a request and receives its response. `peer` is what errors call the other side.
///
/// # Errors
/// An [`Error`] when there is no complete response within the bounds.
pub fn exchange(
    wire: &mut impl Wire,
    peer: &str,
    request: &Request<'_>,
    bounds: Bounds,
) -> Result<Response, Error> {
    let sent = send(wire, peer, request, bounds)?;
    receive(wire, peer, sent, bounds)
}

/// Whether all of a request has gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// The peer closed the connection before.
    Part,
    Whole,
}

/// Head and body leave in one piece.
fn send(
    wire: &mut impl Wire,
    peer: &str,
    request: &Request<'_>,
    bounds: Bounds,
) -> Result<Sent, Error> {
    let body = request.body.unwrap_or_default();
    let mut headers: Vec<(&str, &dyn fmt::Display)> = Vec::with_capacity(request.headers.len());
    headers.extend(
        request
            .headers
            .iter()
            .map(|(name, value)| (*name, value as &dyn fmt::Display)),
    );
    let head = RequestHead {
        method: request.method,
        target: &request.target,
        host: request.host,
        headers: &headers,
        body: request.body.map(<[u8]>::len),
    };
    let fields: usize = request
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + ": \r\n".len())
        .sum();
    let room = HEAD + request.target.len() + request.host.len() + fields + body.len();
    let mut bytes = Zeroizing::new(vec![0; room]);
    let length = head
        .write(&mut bytes)
        .map_err(|error| Error::new(peer, Step::Send, Kind::InvalidData, error.to_string()))?;
    let end = length + body.len();
    if let Some(place) = bytes.get_mut(length..end) {
        place.copy_from_slice(body);
    }
    let message = bytes.get(..end).unwrap_or_default();
    match wire.write_all(message, bounds.by, bounds.silence) {
        Ok(()) => Ok(Sent::Whole),
        // A peer that refuses early closes while the request is still being sent; what it says is worth reading.
        Err(error) if is_closed(&error) => Ok(Sent::Part),
        Err(error) => Err(Error::io(peer, Step::Send, &error, false)),
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::BrokenPipe | E::ConnectionReset | E::ConnectionAborted
    )
}

fn receive(
    wire: &mut impl Wire,
    peer: &str,
    sent: Sent,
    bounds: Bounds,
) -> Result<Response, Error> {
    let mut parser = ResponseParser::new(Limits {
        head: RESPONSE_HEAD,
        body: bounds.body,
    });
    let mut bytes = Zeroizing::new(vec![0; FIRST]);
    let mut filled = 0;
    let mut broken = sent == Sent::Part;
    loop {
        if filled == bytes.len() {
            let wanted = parser
                .needed()
                .unwrap_or(0)
                .max(bytes.len().saturating_mul(2));
            let most = bounds.body.saturating_add(RESPONSE_HEAD + FIRST);
            grow(&mut bytes, wanted.min(most));
        }
        let room = bytes.get_mut(filled..).unwrap_or_default();
        let read = wire
            .read(room, bounds.by.within(bounds.silence))
            .or_else(|error| {
                // A reset after the whole response is no loss, so the parser decides.
                if is_closed(&error) {
                    broken = true;
                    Ok(0)
                } else {
                    Err(Error::io(peer, Step::Receive, &error, filled > 0))
                }
            })?;
        filled += read;
        let complete = parser
            .advance(&mut bytes, &mut filled, read == 0)
            .map_err(|error| {
                let kind = match error {
                    response::Error::Closed => Kind::Closed { answered: false },
                    response::Error::UnexpectedEnd => Kind::Closed { answered: true },
                    _ => Kind::InvalidData,
                };
                let failed = Error::new(peer, Step::Receive, kind, error.to_string());
                let unread = broken && wire.breaks_only_unread();
                if unread && kind == (Kind::Closed { answered: false }) {
                    failed.unread()
                } else {
                    failed
                }
            })?;
        if complete {
            break;
        }
    }
    let Some(parsed) = parser.response(&bytes) else {
        return Err(Error::new(
            peer,
            Step::Receive,
            Kind::InvalidData,
            "the response is incomplete",
        ));
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = UnixTime::from_secs(now).unwrap_or_default();
    let (status, length) = (parsed.status.0, parsed.body.len());
    let is_json = parsed.content_type != ContentType::Other;
    let retry_after = parsed
        .retry_after
        .map(|after| Duration::from_secs(after.delay(now)));
    let date = parsed.date.map(UnixTime::as_secs);
    let content_type = parsed.headers.value("content-type").and_then(|value| {
        let start = (value.as_ptr().addr()).checked_sub(bytes.as_ptr().addr())?;
        Some(start..start.checked_add(value.len())?)
    });
    // The body ends where what was received ends, apart from a surplus that nobody asked for.
    let end = parser.needed().unwrap_or(filled);
    bytes.truncate(end);
    let body = end.saturating_sub(length);
    Ok(Response {
        status,
        is_json,
        retry_after,
        date,
        content_type,
        bytes,
        body,
    })
}

/// Enlarges the buffer without leaving a copy of its content behind.
fn grow(bytes: &mut Zeroizing<Vec<u8>>, size: usize) {
    let mut larger = Zeroizing::new(vec![0; size]);
    if let Some(start) = larger.get_mut(..bytes.len()) {
        start.copy_from_slice(bytes);
    }
    *bytes = larger;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A peer that says what it is told, piece by piece, and records what it hears.
    #[derive(Default)]
    struct Script {
        pieces: VecDeque<Vec<u8>>,
        heard: Vec<u8>,
        writes: usize,
    }

    impl Wire for Script {
        fn read(&mut self, into: &mut [u8], _: Deadline) -> io::Result<usize> {
            let Some(mut piece) = self.pieces.pop_front() else {
                return Ok(0);
            };
            let rest = piece.split_off(piece.len().min(into.len()));
            into[..piece.len()].copy_from_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
            Ok(piece.len())
        }

        fn write_all(&mut self, bytes: &[u8], _: Deadline, _: Duration) -> io::Result<()> {
            self.heard.extend_from_slice(bytes);
            self.writes += 1;
            Ok(())
        }
    }

    const GET: Request<'_> = Request {
        method: "GET",
        host: "keyd.sock",
        target: "/keypair/x?api-version=2021-05-01",
        headers: &[],
        body: None,
    };

    fn run(
        request: &Request<'_>,
        pieces: &[&str],
        limit: usize,
    ) -> (Result<Response, Error>, String) {
        let mut script = Script {
            pieces: pieces.iter().map(|p| p.as_bytes().to_vec()).collect(),
            ..Script::default()
        };
        let bounds = Bounds {
            body: limit,
            silence: Duration::from_secs(5),
            by: Deadline::after(Duration::from_secs(5)),
        };
        let result = exchange(&mut script, "peer", request, bounds);
        assert_eq!(script.writes, 1, "head and body leave together");
        (result, String::from_utf8(script.heard).unwrap())
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn hc_01_request_heads() {
        let (_, heard) = run(&GET, &[OK], 100);
        assert_eq!(
            heard,
            "GET /keypair/x?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\n\r\n"
        );
        let put = Request {
            method: "PUT",
            host: "hub.example:8443",
            target: "/devices/d/modules/m?api-version=2017-11-08-preview",
            headers: &[
                ("authorization", "SharedAccessSignature sr=x&sig=y&se=1"),
                ("if-match", "*"),
            ],
            body: Some(b"{}"),
        };
        let (_, heard) = run(&put, &[OK], 100);
        assert_eq!(
            heard,
            "PUT /devices/d/modules/m?api-version=2017-11-08-preview HTTP/1.1\r\ncontent-type: \
             application/json\r\nauthorization: SharedAccessSignature sr=x&sig=y&se=1\r\nif-match: *\r\nhost: \
             hub.example:8443\r\ncontent-length: 2\r\n\r\n{}"
        );
        let post = Request {
            method: "POST",
            ..GET
        };
        let (_, heard) = run(&post, &[OK], 100);
        assert!(!heard.contains("content-length"), "{heard}");
    }

    #[test]
    fn responses_in_pieces_of_any_size() {
        let text = "HTTP/1.1 404 Not Found\r\ndate: Sat, 21 Nov 2026 19:40:00 GMT\r\nretry-after: 7\r\ncontent-type: \
                    application/json; charset=utf-8\r\ncontent-length: 15\r\n\r\n{\"message\":\"m\"}";
        for size in 1..text.len() {
            let pieces: Vec<&str> = text
                .as_bytes()
                .chunks(size)
                .map(|piece| std::str::from_utf8(piece).unwrap())
                .collect();
            let mut response = run(&GET, &pieces, 100).0.unwrap();
            assert_eq!((response.status, response.is_json), (404, true));
            assert_eq!(response.retry_after, Some(Duration::from_secs(7)));
            assert_eq!(response.date, Some(1_795_290_000));
            assert_eq!(response.body(), b"{\"message\":\"m\"}");
            assert_eq!(response.status_line().to_string(), "404 Not Found");
        }
    }

    #[test]
    fn bodies_of_every_framing() {
        let long = format!("\"{}\"", "x".repeat(20_000));
        let sized = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}",
            long.len()
        );
        let chunked = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        );
        let closing = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
        for text in [&sized, &chunked, &closing] {
            let mut response = run(&GET, &[text], 30_000).0.unwrap();
            assert_eq!(response.body(), long.as_bytes());
            assert_eq!(
                run(&GET, &[text], 10_000).0.unwrap_err().kind(),
                Kind::InvalidData
            );
        }
        let surplus = format!("{OK}more than was announced");
        assert_eq!(run(&GET, &[&surplus], 100).0.unwrap().body(), b"{}");
    }

    #[test]
    fn hc_05_content_types() {
        for (line, json) in [
            ("content-type: application/json; charset=utf-8\r\n", true),
            ("content-type: Application/JSON\r\n", true),
            ("", true),
            ("content-type: text/html\r\n", false),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{line}content-length: 2\r\n\r\n{{}}");
            let mut response = run(&GET, &[&text], 100).0.unwrap();
            assert_eq!(response.is_json, json, "{line}");
            let value = line
                .strip_prefix("content-type: ")
                .map(|line| line.trim_ascii().as_bytes().to_vec());
            assert_eq!(response.content_type(), value.as_deref());
            assert_eq!(
                response.parts(),
                (value.as_deref(), &mut b"{}"[..2].to_vec()[..])
            );
        }
    }

    #[derive(Clone, Debug)]
    enum Framing {
        Length,
        Chunked(usize),
        ToTheEnd,
    }

    fn framing() -> impl Strategy<Value = Framing> {
        prop_oneof![
            Just(Framing::Length),
            (1_usize..50).prop_map(Framing::Chunked),
            Just(Framing::ToTheEnd),
        ]
    }

    fn framed(framing: &Framing, interim: usize, body: &[u8]) -> Vec<u8> {
        let mut text = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(interim);
        text.extend(b"HTTP/1.1 200 OK\r\n");
        match framing {
            Framing::Length => {
                text.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
                text.extend(body);
            }
            Framing::Chunked(size) => {
                text.extend(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in body.chunks(*size) {
                    text.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    text.extend(chunk);
                    text.extend(b"\r\n");
                }
                text.extend(b"0\r\n\r\n");
            }
            Framing::ToTheEnd => {
                text.extend(b"\r\n");
                text.extend(body);
            }
        }
        text
    }

    proptest! {
        #[test]
        fn ks_35_splits_do_not_matter_and_cuts_are_errors(
            framing in framing(),
            interim in 0_usize..3,
            body in prop::collection::vec(any::<u8>(), 0..6000),
            splits in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = framed(&framing, interim, &body);
            let mut places: Vec<usize> = splits.iter().map(|at| at.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            places.dedup();
            let pieces: Vec<&[u8]> = places.windows(2).map(|at| &text[at[0]..at[1]]).collect();
            let mut response = run_bytes(&pieces).unwrap();
            prop_assert_eq!(response.body(), &body[..]);

            let cut = cut.index(text.len());
            let head = text.len() - body.len();
            if !matches!(framing, Framing::ToTheEnd) || cut < head {
                let error = run_bytes(&[&text[..cut]]).unwrap_err();
                prop_assert!(matches!(error.kind(), Kind::Closed { .. }), "{}", error);
            }
        }

        #[test]
        fn ks_35_nothing_that_a_peer_says_does_harm(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 0..10),
            head in any::<bool>(),
        ) {
            let mut said: Vec<&[u8]> = vec![];
            if head {
                said.push(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            }
            said.extend(pieces.iter().map(Vec::as_slice));
            let _ = run_bytes(&said);
        }
    }

    fn run_bytes(pieces: &[&[u8]]) -> Result<Response, Error> {
        let mut script = Script {
            pieces: pieces.iter().map(|piece| piece.to_vec()).collect(),
            ..Script::default()
        };
        let bounds = Bounds {
            body: 10_000,
            silence: Duration::from_secs(5),
            by: Deadline::after(Duration::from_secs(5)),
        };
        exchange(&mut script, "peer", &GET, bounds)
    }

    /// A peer that takes nothing and says nothing, because the connection is gone.
    struct Gone {
        sends: bool,
        end: io::ErrorKind,
        proof: bool,
    }

    impl Wire for Gone {
        fn read(&mut self, _: &mut [u8], _: Deadline) -> io::Result<usize> {
            Err(self.end.into())
        }

        fn write_all(&mut self, _: &[u8], _: Deadline, _: Duration) -> io::Result<()> {
            if self.sends {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }

        fn breaks_only_unread(&self) -> bool {
            self.proof
        }
    }

    #[test]
    fn only_a_proof_makes_a_lost_request_safe_to_repeat() {
        let lost = |sends, proof| {
            let bounds = Bounds {
                body: 100,
                silence: Duration::from_secs(5),
                by: Deadline::after(Duration::from_secs(5)),
            };
            let end = io::ErrorKind::ConnectionReset;
            let mut gone = Gone { sends, end, proof };
            let error = exchange(&mut gone, "peer", &GET, bounds).unwrap_err();
            assert_eq!(error.kind(), Kind::Closed { answered: false });
            error.is_unsent()
        };
        assert!(lost(true, true) && lost(false, true));
        assert!(!lost(true, false) && !lost(false, false));
        assert!(!run_bytes(&[]).unwrap_err().is_unsent());
    }

    #[test]
    fn peers_that_go_away() {
        let nothing = run(&GET, &[], 100).0.unwrap_err();
        assert_eq!(nothing.kind(), Kind::Closed { answered: false });
        assert!(nothing.to_string().contains("max_requests"), "{nothing}");
        for part in [
            "HTTP/1.1 2",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{",
        ] {
            assert_eq!(
                run(&GET, &[part], 100).0.unwrap_err().kind(),
                Kind::Closed { answered: true },
                "{part}"
            );
        }
        assert_eq!(
            run(&GET, &["SSH-2.0-OpenSSH\r\n\r\n"], 100)
                .0
                .unwrap_err()
                .kind(),
            Kind::InvalidData
        );
    }
}
