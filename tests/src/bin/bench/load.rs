//! Servers, the load they are put under, and the figures that come of it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::measure::{CONNECTIONS, Plan, START_LIMIT, TURNS};
use crate::process::{Command, Process};
use crate::root::Root;

/// A running server and where it listens.
pub struct Subject {
    pub process: Process,
    pub socket: PathBuf,
}

impl Subject {
    pub fn bare(plan: &Plan, root: &Root) -> Result<Self, String> {
        let socket = root.file("bare.sock");
        let command = Command::new(&plan.bare, &root.file("bare.log"))
            .argument(&socket)
            .core(Some(plan.cores.server));
        Self::start(&command, "the bare responder", socket)
    }

    pub fn service(plan: &Plan, root: &Root, name: &str) -> Result<Self, String> {
        let command = root.service(plan, name).core(Some(plan.cores.server));
        Self::start(&command, name, root.socket(name))
    }

    /// A service that may use all cores, because workers do what is measured.
    pub fn service_on_all_cores(plan: &Plan, root: &Root, name: &str) -> Result<Self, String> {
        Self::start(&root.service(plan, name), name, root.socket(name))
    }

    pub fn start(command: &Command, what: &str, socket: PathBuf) -> Result<Self, String> {
        let mut process = command.spawn()?;
        process.wait_until(what, START_LIMIT, || UnixStream::connect(&socket).is_ok())?;
        Ok(Self { process, socket })
    }
}

/// The load that a server is put under.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub plan: &'a Plan,
    /// One of the load generator's own requests, or a file with one.
    pub request: &'a str,
    /// What every answer must contain.
    pub expect: &'a str,
    pub connections: u32,
    pub connection_per_request: bool,
    /// A thread for each connection, as clients are that wait for their answers.
    pub threads: bool,
}

/// What the load generator found.
pub struct Loaded {
    pub requests: u64,
    pub rate: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl<'a> Load<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            request: "",
            expect: "",
            connections: CONNECTIONS,
            connection_per_request: false,
            threads: false,
        }
    }

    pub fn run(
        &self,
        socket: &Path,
        seconds: f64,
        requests: Option<u64>,
    ) -> Result<Loaded, String> {
        let mut command = std::process::Command::new(&self.plan.loadgen);
        command
            .args([
                "--format",
                "pairs",
                "--warmup",
                "0",
                "--request",
                self.request,
            ])
            .arg("--socket")
            .arg(socket);
        command.args([
            "--core",
            &self.plan.cores.load.to_string(),
            "--seconds",
            &seconds.to_string(),
        ]);
        command.args(["--connections", &self.connections.to_string()]);
        if let Some(requests) = requests {
            command.args(["--requests", &requests.to_string()]);
        }
        if !self.expect.is_empty() {
            command.args(["--expect", self.expect]);
        }
        if self.connection_per_request {
            command.arg("--connection-per-request");
        }
        if self.threads {
            command.arg("--threads");
        }
        let output = command
            .output()
            .map_err(|e| format!("cannot run the load generator: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!("{}{text}", String::from_utf8_lossy(&output.stderr)));
        }
        Loaded::parse(&text)
    }
}

impl Loaded {
    /// Reads what the load generator, or one of the C programs, printed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = |name: &str| {
            text.split_whitespace()
                .find_map(|pair| {
                    pair.strip_prefix(name)?
                        .strip_prefix('=')?
                        .parse::<f64>()
                        .ok()
                })
                .ok_or_else(|| format!("no {name} was printed: {text}"))
        };
        Ok(Self {
            requests: value("requests")? as u64,
            rate: value("rate")?,
            p50: value("p50_us")?,
            p95: value("p95_us")?,
            p99: value("p99_us")?,
        })
    }
}

/// Medians over the turns: requests per second, and microseconds.
pub struct Figures {
    pub rate: f64,
    pub cpu: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Figures {
    /// The medians of several turns.
    pub fn median(turns: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> f64| median(&mut turns.iter().map(of).collect::<Vec<_>>());
        Self {
            rate: middle(|f| f.rate),
            cpu: middle(|f| f.cpu),
            p50: middle(|f| f.p50),
            p95: middle(|f| f.p95),
            p99: middle(|f| f.p99),
        }
    }
}

impl Load<'_> {
    /// Lets the server do once what it does only once.
    pub fn warm_up(&self, subject: &Subject) -> Result<(), String> {
        let seconds = self.plan.seconds.min(0.5);
        self.run(&subject.socket, seconds, None).map(|_| ())
    }

    /// One turn.
    pub fn turn(&self, subject: &Subject) -> Result<Figures, String> {
        let before = subject.process.cpu_time()?;
        let loaded = self.run(&subject.socket, self.plan.seconds, None)?;
        let spent = subject.process.cpu_time()?.saturating_sub(before);
        if loaded.requests == 0 {
            return Err("not one request was answered in time".into());
        }
        Ok(Figures {
            rate: loaded.rate,
            cpu: spent.as_secs_f64() * 1e6 / loaded.requests as f64,
            p50: loaded.p50,
            p95: loaded.p95,
            p99: loaded.p99,
        })
    }
}

/// Loads floor and subject alternately, so that both see the same weather.
pub fn in_turns(
    load: &Load<'_>,
    floor: &Subject,
    ours: &Subject,
) -> Result<(Figures, Figures), String> {
    let mut found = [const { Vec::new() }; 2];
    for subject in [floor, ours] {
        load.warm_up(subject)?;
    }
    for _ in 0..TURNS {
        for (subject, found) in [floor, ours].into_iter().zip(&mut found) {
            found.push(load.turn(subject)?);
        }
    }
    let [floor, ours] = found.map(|turns| Figures::median(&turns));
    Ok((floor, ours))
}

/// The middle value; the mean of the two middle ones if the number is even. Zero without values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values {
        [] => 0.0,
        _ if values.len() % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn what_the_programs_print() {
        let text = "requests=3 errors=0 seconds=1.0 rate=3.0 p50_us=1.5 p95_us=2.0 p99_us=2.5 max_us=3.0\n";
        let loaded = Loaded::parse(text).unwrap();
        assert_eq!((loaded.requests, loaded.p50, loaded.p99), (3, 1.5, 2.5));
        assert!(Loaded::parse("requests=3").is_err());
    }
}
