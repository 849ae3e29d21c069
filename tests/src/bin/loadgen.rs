//! The load generator of the benchmarks: a closed loop over kept-alive connections.
//!
//! One thread, one epoll set; or a thread for each connection, as clients are that wait for their answers. Every connection
//! sends a request, waits for the complete answer, and sends the next one; the time between the two is the latency. It
//! allocates nothing while it measures and can be pinned to a core, so that two runs differ by what they measure alone.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rustix::event::epoll;
use rustix::io::Errno;

/// Loads a server on a Unix socket with HTTP requests and prints rate and latency.
#[derive(Parser)]
#[command(name = "loadgen")]
struct Arguments {
    /// The server's socket.
    #[arg(long)]
    socket: PathBuf,
    /// What to send: `sign`, `identity`, or a file with one complete HTTP request.
    #[arg(long, default_value = "sign")]
    request: String,
    /// Connections that are kept busy at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// How long to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Stop after this many requests, if that is before the time is over.
    #[arg(long)]
    requests: Option<u64>,
    /// How long to load the server before measuring.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Open a new connection for every request.
    #[arg(long)]
    connection_per_request: bool,
    /// A thread for each connection, which waits for its answers, in place of one for all.
    #[arg(long, conflicts_with_all = ["connection_per_request", "requests"])]
    threads: bool,
    /// Count an answer as wrong unless it contains this text.
    #[arg(long)]
    expect: Option<String>,
    /// Stay on this processor core.
    #[arg(long)]
    core: Option<usize>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Two lines for people.
    Text,
    /// One line of `name=value` pairs.
    Pairs,
}

#[allow(clippy::print_stderr)] // a command-line tool
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(result) => {
            print(&result, arguments.format);
            if result.errors == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(message) => {
            eprintln!("loadgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Measured, String> {
    let durations = [arguments.seconds, arguments.warmup].map(Duration::try_from_secs_f64);
    let [Ok(measure_for), Ok(warm_up_for)] = durations else {
        return Err("--seconds and --warmup are numbers of seconds, zero or more".into());
    };
    let request = request(&arguments.request)?;
    if let Some(core) = arguments.core {
        pin(core)?;
    }

    if arguments.threads {
        let _ = in_threads(arguments, &request, warm_up_for)?;
        return in_threads(arguments, &request, measure_for);
    }
    let mut load = Load::new(arguments, &request)?;
    if !warm_up_for.is_zero() {
        load.run(warm_up_for, None)?;
    }
    load.run(measure_for, arguments.requests)
}

fn print(result: &Measured, format: Format) {
    let Measured {
        requests,
        errors,
        seconds,
        latencies,
    } = result;
    let rate = *requests as f64 / seconds;
    let [p50, p95, p99, max] =
        [0.50, 0.95, 0.99, 1.0].map(|share| latencies.quantile(share).as_nanos() as f64 / 1e3);
    match format {
        Format::Text => {
            println!("{rate:.0} requests/s: {requests} in {seconds:.2} s, {errors} errors");
            println!("latency p50 {p50:.0} µs, p95 {p95:.0} µs, p99 {p99:.0} µs, max {max:.0} µs");
        }
        Format::Pairs => println!(
            "requests={requests} errors={errors} seconds={seconds:.6} rate={rate:.1} \
             p50_us={p50:.1} p95_us={p95:.1} p99_us={p99:.1} max_us={max:.1}"
        ),
    }
}

/// What one measurement found.
struct Measured {
    /// Complete answers with a 2xx status (and the expected text).
    requests: u64,
    /// Other answers, and connections that ended without one.
    errors: u64,
    seconds: f64,
    latencies: Histogram,
}

impl Measured {
    fn new() -> Self {
        Self {
            requests: 0,
            errors: 0,
            seconds: 0.0,
            latencies: Histogram::new(),
        }
    }

    /// Takes in what was found at the same time.
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.seconds = self.seconds.max(other.seconds);
        self.latencies.add(&other.latencies);
    }
}

/// The connections and what they send.
struct Load<'a> {
    arguments: &'a Arguments,
    request: &'a [u8],
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
}

/// Failures in a row after which the server counts as gone.
const MAX_FAILURES_IN_A_ROW: u32 = 100;

/// An answer is complete within this time, or the run ends with an error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments, request: &'a [u8]) -> Result<Self, String> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let mut load = Self {
            arguments,
            request,
            epoll,
            connections: Vec::new(),
        };
        for _ in 0..arguments.connections {
            let stream = connect(&arguments.socket)?;
            load.connections.push(Connection::new(stream));
        }
        for index in 0..load.connections.len() {
            load.register(index)?;
        }
        Ok(load)
    }

    /// Keeps every connection busy for `time`, or until `limit` answers have come.
    ///
    /// Requests that are under way at the end are waited for and not counted.
    fn run(&mut self, time: Duration, limit: Option<u64>) -> Result<Measured, String> {
        let mut result = Measured::new();
        let mut failures = 0;
        let mut events = [const {
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }
        }; 64];
        let timeout =
            rustix::event::Timespec::try_from(ANSWER_TIMEOUT).map_err(|e| e.to_string())?;
        let start = Instant::now();
        for index in 0..self.connections.len() {
            result.errors += u64::from(self.send(index)?);
        }
        let mut over = false;
        while self.connections.iter().any(|connection| connection.waits) {
            let count = match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
                Ok(0) => return Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(format!("epoll: {e}")),
            };
            for event in events.iter().take(count) {
                let index = event.data.u64() as usize;
                let connection = &mut self.connections[index];
                let outcome = connection.receive(self.arguments.expect.as_deref());
                let now = Instant::now();
                if matches!(outcome, Received::Closed) && !connection.waits {
                    // Closed between two requests, which a server may do. The next run notices.
                    self.forget(index)?;
                    continue;
                }
                match outcome {
                    Received::Partly => continue,
                    Received::Good => {
                        failures = 0;
                        if !over {
                            result.requests += 1;
                            result.latencies.record(now - connection.sent_at);
                        }
                    }
                    Received::Bad | Received::Closed => {
                        failures += 1;
                        result.errors += u64::from(!over);
                    }
                }
                connection.waits = false;
                if failures >= MAX_FAILURES_IN_A_ROW {
                    return Err(format!(
                        "{failures} failures in a row, the last: {}",
                        connection.last_answer()
                    ));
                }
                if !over
                    && (now - start >= time || limit.is_some_and(|limit| result.requests >= limit))
                {
                    over = true;
                    result.seconds = (now - start).as_secs_f64();
                }
                if matches!(outcome, Received::Closed) || self.arguments.connection_per_request {
                    self.reconnect(index)?;
                }
                if !over {
                    result.errors += u64::from(self.send(index)?);
                }
            }
        }
        Ok(result)
    }

    /// Sends the request on one connection, or on a new one in its place if the server closed it.
    /// Returns how many new ones were closed as well, which no server should do.
    fn send(&mut self, index: usize) -> Result<u32, String> {
        for refused in 0..MAX_FAILURES_IN_A_ROW {
            match self.connections[index].send(self.request) {
                Ok(()) => return Ok(refused.saturating_sub(1)),
                Err(Errno::PIPE | Errno::CONNRESET) => self.reconnect(index)?,
                Err(e) => return Err(format!("cannot send: {e}")),
            }
        }
        Err(format!(
            "{MAX_FAILURES_IN_A_ROW} new connections in a row were closed before they were used"
        ))
    }

    fn reconnect(&mut self, index: usize) -> Result<(), String> {
        // Dropping the old stream takes it out of the epoll set.
        self.connections[index].reset(connect(&self.arguments.socket)?);
        self.register(index)
    }

    /// Takes a connection that has ended out of the epoll set, where it would be ready for ever.
    fn forget(&self, index: usize) -> Result<(), String> {
        epoll::delete(&self.epoll, &self.connections[index].stream)
            .map_err(|e| format!("epoll: {e}"))
    }

    fn register(&self, index: usize) -> Result<(), String> {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(
            &self.epoll,
            &self.connections[index].stream,
            data,
            epoll::EventFlags::IN,
        )
        .map_err(|e| format!("epoll: {e}"))
    }
}

/// Keeps a connection in each of several threads busy for `time`.
fn in_threads(arguments: &Arguments, request: &[u8], time: Duration) -> Result<Measured, String> {
    let connections: Result<Vec<_>, _> = (0..arguments.connections)
        .map(|_| {
            let stream = connect(&arguments.socket)?;
            let blocking = stream.set_nonblocking(false).and(Ok(stream));
            blocking.map_err(|e| format!("cannot connect: {e}"))
        })
        .collect();
    let start = Instant::now();
    let measured: Vec<Result<Measured, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = connections?
            .into_iter()
            .map(|stream| {
                let mut connection = Connection::new(stream);
                let expect = arguments.expect.as_deref();
                scope.spawn(move || connection.exchange_for(request, expect, start, time))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a thread has panicked".into()))
        });
        Ok::<_, String>(joined.collect())
    })?;
    let mut all = Measured::new();
    for one in measured {
        all.add(&one?);
    }
    Ok(all)
}

/// Room for one answer; the services' answers to the requests sent here are far smaller.
const ANSWER_SIZE: usize = 64 * 1024;

struct Connection {
    stream: UnixStream,
    answer: Box<[u8]>,
    received: usize,
    sent_at: Instant,
    /// A request was sent and its answer is not complete.
    waits: bool,
}

enum Received {
    /// More is to come.
    Partly,
    /// A complete answer with a 2xx status and the expected text.
    Good,
    /// Any other complete answer.
    Bad,
    /// The connection ended, or what arrived was not an answer.
    Closed,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            answer: vec![0; ANSWER_SIZE].into(),
            received: 0,
            sent_at: Instant::now(),
            waits: false,
        }
    }

    fn reset(&mut self, stream: UnixStream) {
        self.stream = stream;
        self.received = 0;
        self.waits = false;
    }

    fn send(&mut self, request: &[u8]) -> Result<(), Errno> {
        self.received = 0;
        self.sent_at = Instant::now();
        // The socket's buffer is empty now and larger than any request sent here.
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.stream, request, rustix::net::SendFlags::NOSIGNAL)
        })?;
        if sent == request.len() {
            self.waits = true;
            Ok(())
        } else {
            Err(Errno::MSGSIZE)
        }
    }

    fn receive(&mut self, expect: Option<&str>) -> Received {
        match rustix::io::read(&self.stream, &mut self.answer[self.received..]) {
            Ok(0) => return Received::Closed,
            Ok(count) => self.received += count,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Partly,
            Err(_) => return Received::Closed,
        }
        let answer = &self.answer[..self.received];
        let Some(head_length) = find(answer, b"\r\n\r\n").map(|at| at + 4) else {
            return if self.received == self.answer.len() {
                Received::Closed
            } else {
                Received::Partly
            };
        };
        let (head, body) = answer.split_at(head_length);
        if body.len() < content_length(head) {
            return if self.received == self.answer.len() {
                Received::Closed
            } else {
                Received::Partly
            };
        }
        let good = head.get(8..10) == Some(b" 2")
            && expect.is_none_or(|text| find(body, text.as_bytes()).is_some());
        if good { Received::Good } else { Received::Bad }
    }

    /// Sends the request and waits for the answer, again and again.
    fn exchange_for(
        &mut self,
        request: &[u8],
        expect: Option<&str>,
        start: Instant,
        time: Duration,
    ) -> Result<Measured, String> {
        let mut result = Measured::new();
        let elapsed = loop {
            self.send(request)
                .map_err(|e| format!("cannot send: {e}"))?;
            let received = loop {
                match self.receive(expect) {
                    Received::Partly => {}
                    received => break received,
                }
            };
            let now = Instant::now();
            match received {
                Received::Good => {
                    result.requests += 1;
                    result.latencies.record(now - self.sent_at);
                }
                Received::Bad | Received::Partly => result.errors += 1,
                Received::Closed => return Err(self.last_answer()),
            }
            if now - start >= time {
                break now - start;
            }
        };
        result.seconds = elapsed.as_secs_f64();
        Ok(result)
    }

    fn last_answer(&self) -> String {
        if self.received == 0 {
            return "the connection was closed without an answer".into();
        }
        String::from_utf8_lossy(&self.answer[..self.received]).into_owned()
    }
}

fn connect(socket: &Path) -> Result<UnixStream, String> {
    let fail = |e| format!("cannot connect to {}: {e}", socket.display());
    let stream = UnixStream::connect(socket).map_err(fail)?;
    stream.set_nonblocking(true).map_err(fail)?;
    Ok(stream)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len().max(1))
        .position(|window| window == needle)
}

/// The body's length as the head says; 0 where it does not say.
fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    head.split(|&byte| byte == b'\n')
        .find(|line| {
            line.get(..NAME.len())
                .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        })
        .and_then(|line| {
            str::from_utf8(&line[NAME.len()..])
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Handle and message of vector V1 of the Keys Service: an HMAC with the fixture's key `imp`.
const SIGN_BODY: &str = include_str!("../../bench/sign.json");

fn request(name: &str) -> Result<Vec<u8>, String> {
    match name {
        "sign" => Ok(format!(
            "POST /sign?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{SIGN_BODY}",
            SIGN_BODY.len()
        )
        .into_bytes()),
        "identity" => {
            Ok(b"GET /identities/identity?api-version=2020-09-01 HTTP/1.1\r\nhost: identityd.sock\r\n\r\n".to_vec())
        }
        file => fs::read(file).map_err(|e| format!("--request {file}: {e} (or use one of: sign, identity)")),
    }
}

fn pin(core: usize) -> Result<(), String> {
    let mut cores = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(format!(
            "--core {core}: the highest is {}",
            rustix::thread::CpuSet::MAX_CPU - 1
        ));
    }
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).map_err(|e| format!("--core {core}: {e}"))
}

/// Latencies in buckets that are at most 1/64 of their value wide.
struct Histogram {
    buckets: Box<[u32]>,
    count: u64,
    max: Duration,
}

impl Histogram {
    /// Buckets per power of two.
    const STEPS: u64 = 64;

    fn new() -> Self {
        Self {
            buckets: vec![0; (64 * Self::STEPS) as usize].into(),
            count: 0,
            max: Duration::ZERO,
        }
    }

    fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[Self::bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The latency that `share` (0 to 1) of the requests did not exceed; zero without any.
    fn quantile(&self, share: f64) -> Duration {
        if share >= 1.0 {
            return self.max;
        }
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if count > 0 && seen >= rank {
                return Duration::from_nanos(Self::upper_bound(index)).min(self.max);
            }
        }
        Duration::ZERO
    }

    /// Values below [`Self::STEPS`] have a bucket each; above, the bits after the leading one
    /// choose the bucket within their power of two.
    fn bucket(nanos: u64) -> usize {
        let shift = (63 - (nanos | 1).leading_zeros() as u64)
            .saturating_sub(u64::from(Self::STEPS.ilog2()));
        (shift * Self::STEPS + (nanos >> shift)) as usize
    }

    /// The largest value of a bucket.
    fn upper_bound(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < 2 * Self::STEPS {
            return bucket;
        }
        let shift = bucket / Self::STEPS - 1;
        let first = (bucket - shift * Self::STEPS) << shift;
        first + ((1 << shift) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_request_is_the_one_of_the_specification() {
        assert_eq!(SIGN_BODY.len(), 294);
        let request = request("sign").unwrap();
        assert!(request.ends_with(SIGN_BODY.as_bytes()));
        assert!(find(&request, b"content-length: 294\r\n\r\n{").is_some());
    }

    #[test]
    fn content_length_is_found_in_any_case() {
        assert_eq!(
            content_length(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"),
            17
        );
        assert_eq!(
            content_length(b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n"),
            0
        );
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut previous = None;
        for nanos in (0..4096).chain(
            (12..63).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 3))]),
        ) {
            let bucket = Histogram::bucket(nanos);
            assert!(bucket < (64 * Histogram::STEPS) as usize, "{nanos}");
            let upper = Histogram::upper_bound(bucket);
            assert!(upper >= nanos, "{nanos} is above its bucket's end {upper}");
            assert!(
                upper - nanos <= nanos / 32,
                "{nanos} in a bucket up to {upper}"
            );
            if let Some((last, last_bucket)) = previous
                && last <= nanos
            {
                assert!(last_bucket <= bucket);
            }
            previous = Some((nanos, bucket));
        }
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut histogram = Histogram::new();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.04, "{share}: {found}");
        }
        assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
    }
}
