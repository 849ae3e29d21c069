//! Running the real programs: starting them the ways a service manager or a person would, reading their log, stopping them.
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io::BufReader;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::binaries;
use crate::client::{Client, PATIENCE, eventually};
use crate::root::Root;
use crate::users;

/// The first descriptor that a service manager passes.
const FIRST_FD: RawFd = 3;

/// How a program is to be started.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    arg0: Option<OsString>,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    directory: PathBuf,
    socket: PathBuf,
    passed: Vec<OwnedFd>,
    listen_fds: Option<String>,
    open_files: Option<u64>,
    uid: Option<u32>,
}

impl Launch {
    /// `aziotd NAME` on a root; `name` is `aziot-keyd` for example.
    #[must_use]
    pub fn service(name: &str, root: &Root) -> Self {
        let mut launch = Self::program(binaries::built("aziotd"), root);
        launch.args.push(name.into());
        launch.socket = root.socket(name.strip_prefix("aziot-").unwrap_or(name));
        // Checked here, so that a missing library does not look like a failing service.
        let _ = binaries::built("libaziot_keys.so");
        launch
    }

    /// The stub service, which has the routes of the transport vectors.
    #[must_use]
    pub fn stub(root: &Root) -> Self {
        let mut launch = Self::program(binaries::built("stub-service"), root);
        launch.socket = root.socket("stub");
        launch.args.push(launch.socket.clone().into());
        launch
    }

    /// Any program, with the environment of a device rooted at `root`.
    #[must_use]
    pub fn program(program: PathBuf, root: &Root) -> Self {
        let launch = Self {
            program,
            arg0: None,
            args: Vec::new(),
            envs: Vec::new(),
            directory: root.path().to_owned(),
            socket: PathBuf::new(),
            passed: Vec::new(),
            listen_fds: None,
            open_files: None,
            uid: None,
        };
        launch
            .env("AZIOT_ROOT", root.path())
            .env("LD_LIBRARY_PATH", binaries::directory())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Sets the program name that the program sees.
    #[must_use]
    pub fn arg0(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Where the service is expected to listen.
    #[must_use]
    pub fn socket(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = socket.into();
        self
    }

    /// Scales every deadline of the daemon.
    #[must_use]
    pub fn time_scale(self, scale: f64) -> Self {
        self.env("AZIOT_TIME_SCALE", scale.to_string())
    }

    /// Looks for shared objects in `directory` first.
    #[must_use]
    pub fn libraries(self, directory: &Path) -> Self {
        self.env("LD_LIBRARY_PATH", directory)
    }

    /// Limits the number of descriptors.
    #[must_use]
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Runs it as another user.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Passes descriptors the way systemd does, from 3 on, with `LISTEN_PID` naming the new process.
    ///
    /// # Panics
    /// When there are more than 8.
    #[must_use]
    pub fn activated(mut self, descriptors: Vec<OwnedFd>) -> Self {
        assert!(descriptors.len() <= PASSED, "at most {PASSED} descriptors");
        self.listen_fds = Some(descriptors.len().to_string());
        self.passed = descriptors;
        self
    }

    /// Overrides the value of `LISTEN_FDS` (with `LISTEN_PID` naming the new process).
    #[must_use]
    pub fn listen_fds(mut self, value: &str) -> Self {
        self.listen_fds = Some(value.to_owned());
        self
    }

    fn command(&mut self) -> Command {
        let mut command = if self.listen_fds.is_some() {
            // Only the new process knows its id; the shell becomes the program without changing it.
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
                .arg(&self.program);
            command
        } else {
            let mut command = Command::new(&self.program);
            if let Some(arg0) = &self.arg0 {
                command.arg0(arg0);
            }
            command
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AZIOT_")
                || text.starts_with("LISTEN_")
                || text == "NOTIFY_SOCKET"
                || text == "RUST_BACKTRACE"
            {
                command.env_remove(name);
            }
        }
        command.args(&self.args).current_dir(&self.directory);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(count) = &self.listen_fds {
            command.env("LISTEN_FDS", count);
        }
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (passed, open_files) = (std::mem::take(&mut self.passed), self.open_files);
        // SAFETY: between fork and exec only calls that signal handlers may make.
        unsafe {
            command.pre_exec(move || {
                // Nothing outlives a test that is killed.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                pass_descriptors(&passed)?;
                if let Some(limit) = open_files {
                    let limit = libc::rlimit {
                        rlim_cur: limit,
                        rlim_max: limit,
                    };
                    check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
                }
                Ok(())
            });
        }
        command
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// When it cannot be executed.
    #[must_use]
    pub fn spawn(mut self) -> Daemon {
        let mut child = self
            .command()
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        let log = Log::default();
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let reader = std::thread::spawn({
            let log = log.clone();
            move || log.fill(BufReader::new(stderr))
        });
        Daemon {
            child,
            log,
            reader: Some(reader),
            socket: self.socket,
            finished: false,
        }
    }

    /// Starts it and waits until its socket accepts connections; that of a service manager does so from the beginning, so
    /// there it waits for the service to say that it is there.
    ///
    /// # Panics
    /// When it ends instead, or does not get there.
    #[must_use]
    pub fn start(self) -> Daemon {
        let activated = !self.passed.is_empty();
        let mut daemon = self.spawn();
        let end = Instant::now() + PATIENCE;
        if activated {
            daemon.log.wait_for("Starting server...");
        }
        while UnixStream::connect(&daemon.socket).is_err() {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("it ended at once: {status}\n{}", daemon.log.text());
            }
            assert!(
                Instant::now() < end,
                "no socket {}\n{}",
                daemon.socket.display(),
                daemon.log.text()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon
    }

    /// Runs it until it ends by itself.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn run(self) -> Finished {
        self.spawn().wait()
    }

    /// Runs it to an end that must be a failed start: exit code 1.
    ///
    /// # Panics
    /// When it ends otherwise, or not at all.
    #[must_use]
    pub fn fails(self) -> Finished {
        let finished = self.run();
        assert_eq!(finished.status.code(), Some(1), "{}", finished.log);
        finished
    }
}

/// How many descriptors can be passed.
const PASSED: usize = 8;

/// Puts descriptors at 3, 4, … of a process about to execute a program.
fn pass_descriptors(descriptors: &[OwnedFd]) -> std::io::Result<()> {
    // Away from the places they go to first, so that none is overwritten before it is copied. Nothing is allocated here.
    let mut away = [0; PASSED];
    for (descriptor, away) in descriptors.iter().zip(&mut away) {
        // SAFETY: the descriptor is open.
        *away = unsafe {
            libc::fcntl(
                descriptor.as_raw_fd(),
                libc::F_DUPFD_CLOEXEC,
                FIRST_FD + PASSED as RawFd,
            )
        };
        check(*away)?;
    }
    for (away, place) in away.iter().zip(FIRST_FD..).take(descriptors.len()) {
        // SAFETY: both are descriptor numbers of this process.
        check(unsafe { libc::dup2(*away, place) })?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> std::io::Result<()> {
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A running program. It is killed when the value goes.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
    socket: PathBuf,
    finished: bool,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub log: String,
}

impl Finished {
    /// Checks that the log has a line that contains `text`.
    ///
    /// # Panics
    /// When it has not.
    pub fn assert_logged(&self, text: &str) -> &Self {
        assert!(
            self.log.lines().any(|line| line.contains(text)),
            "no {text:?} in the log:\n{}",
            self.log
        );
        self
    }
}

impl Daemon {
    /// `aziotd NAME` on a root, listening.
    #[must_use]
    pub fn start(name: &str, root: &Root) -> Self {
        Launch::service(name, root).start()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection as the user the tests run as.
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::connect(self.socket())
    }

    /// A connection as another user.
    ///
    /// # Panics
    /// When that is not possible; ask [`users::can_change`] first.
    #[must_use]
    pub fn connect_as(&self, uid: u32) -> Client {
        let stream = users::connect_as(uid, self.socket()).expect("a connection as another user");
        Client::over(stream).expect("a connection")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its open descriptors.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }

    /// How many key files it holds open, which is how many keys of files it has in memory.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn key_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|file| file.extension().is_some_and(|extension| extension == "key"))
            .count()
    }

    /// The number of its descriptors once it has nothing to do; connections that have just been closed are gone then.
    ///
    /// # Panics
    /// When the number does not settle.
    #[must_use]
    pub fn settled_descriptors(&self) -> usize {
        let mut last = self.descriptors();
        let mut since = Instant::now();
        eventually("the number of descriptors settles", || {
            let now = self.descriptors();
            if now != last {
                last = now;
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(200)
        });
        last
    }

    /// Its resident memory in KiB.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a resident set");
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .expect("a number")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid()).expect("a process id");
        // SAFETY: the child has not been waited for, so the id is still its own.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "the process runs");
    }

    /// Suspends it, and returns once it does nothing any more. `SIGCONT` ends that.
    ///
    /// # Panics
    /// When it is gone.
    pub fn suspend(&self) {
        self.signal(libc::SIGSTOP);
        eventually("the process is suspended", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
            // Behind the name in parentheses, which may contain anything (proc_pid_stat(5)).
            let state = stat.expect("the process runs");
            state
                .rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        });
    }

    /// Checks that it is still running.
    ///
    /// # Panics
    /// When it has ended.
    pub fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("it ended: {status}\n{}", self.log.text());
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn wait(mut self) -> Finished {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(
                Instant::now() < end,
                "it does not end:\n{}",
                self.log.text()
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        self.finished = true;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Finished {
            status,
            log: self.log.text(),
        }
    }

    /// Stops it the way a service manager does; it must end cleanly.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(self) -> Finished {
        self.signal(libc::SIGTERM);
        let finished = self.wait();
        assert_eq!(
            finished.status.code(),
            Some(0),
            "{}\n{}",
            finished.status,
            finished.log
        );
        finished
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(self) -> Finished {
        self.signal(libc::SIGKILL);
        self.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the child has not been waited for, so the process group is still its own.
            unsafe { libc::kill(-pid, libc::SIGKILL) };
        }
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            println!(
                "--- log of {} ---\n{}",
                self.socket.display(),
                self.log.text()
            );
        }
    }
}

/// What a program writes to standard error.
#[derive(Clone, Debug, Default)]
pub struct Log {
    shared: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Log {
    fn fill(&self, mut from: impl std::io::BufRead) {
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&line)
                .trim_end_matches('\n')
                .to_owned();
            self.shared
                .0
                .lock()
                .expect("no panic while writing")
                .push(text);
            self.shared.1.notify_all();
            line.clear();
        }
    }

    /// All lines so far.
    ///
    /// # Panics
    /// Never, short of a panic of the reading thread.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.shared
            .0
            .lock()
            .expect("no panic while writing")
            .clone()
    }

    /// All lines so far in one string.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// How many lines so far contain `text`.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Waits for a line that contains `text`, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_more(text, 0)
    }

    /// Waits for a line that contains all of `parts`, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for_all(&self, parts: &[&str]) -> String {
        self.wait_until(&format!("{parts:?}"), 0, |line| {
            parts.iter().all(|part| line.contains(part))
        })
    }

    /// Waits until more than `seen` lines contain `text`, and returns the last of them.
    ///
    /// # Panics
    /// When there is none.
    pub fn wait_for_more(&self, text: &str, seen: usize) -> String {
        self.wait_until(&format!("{text:?}"), seen, |line| line.contains(text))
    }

    fn wait_until(&self, what: &str, seen: usize, fits: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut lines = self.shared.0.lock().expect("no panic while writing");
        loop {
            let mut matching = lines.iter().filter(|line| fits(line));
            if let Some(line) = matching.nth(seen) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let all = lines.join("\n");
                drop(lines);
                panic!("no {what} in the log:\n{all}");
            }
            lines = self
                .shared
                .1
                .wait_timeout(lines, left)
                .expect("no panic while writing")
                .0;
        }
    }
}

/// A listening socket as a service manager would make it.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn listening(path: &Path) -> OwnedFd {
    std::os::unix::net::UnixListener::bind(path)
        .expect("a listening socket")
        .into()
}
