//! Servers as child processes: started on a core, with or without socket activation, looked at
//! through `/proc`, and ended.

#![allow(unsafe_code)] // fork and exec: socket activation needs the child's own process id

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{mem, ptr, thread};

/// How to start a program.
pub struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    core: Option<usize>,
    log: PathBuf,
}

impl Command {
    /// Starts `program` with an environment of `PATH` alone; its output goes to the end of `log`.
    pub fn new(program: &Path, log: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            program: program.to_path_buf(),
            arguments: Vec::new(),
            environment: vec![("PATH".into(), path)],
            core: None,
            log: log.to_path_buf(),
        }
    }

    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_os_string());
        self
    }

    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_os_string()));
        self
    }

    /// Keeps the process on one core.
    pub fn core(mut self, core: Option<usize>) -> Self {
        self.core = core;
        self
    }

    pub fn spawn(&self) -> Result<Process, String> {
        self.fork(None)
    }

    /// Starts the program the way a service manager does: `listener` on descriptor 3, announced by
    /// `LISTEN_PID` and `LISTEN_FDS`.
    pub fn spawn_activated(&self, listener: BorrowedFd<'_>) -> Result<Process, String> {
        self.fork(Some(listener))
    }

    fn fork(&self, listener: Option<BorrowedFd<'_>>) -> Result<Process, String> {
        // Everything that allocates happens before the fork.
        let fail =
            |e: &dyn std::fmt::Display| format!("cannot start {}: {e}", self.program.display());
        let null_terminated = |text: &OsStr| CString::new(text.as_bytes()).map_err(|e| fail(&e));
        let program = null_terminated(self.program.as_os_str())?;
        let mut arguments = vec![null_terminated(self.program.as_os_str())?];
        for argument in &self.arguments {
            arguments.push(null_terminated(argument)?);
        }
        let mut environment = Vec::new();
        for (name, value) in &self.environment {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            environment.push(null_terminated(&pair)?.into_bytes_with_nul());
        }
        // The child writes its id over the zeros; leading zeros do not change the number.
        const PID_DIGITS: usize = 10;
        let mut listen_pid = *b"LISTEN_PID=0000000000\0";
        let listen_fds = c"LISTEN_FDS=1";
        let pid_at = listen_pid.len() - 1 - PID_DIGITS;
        let mut argument_pointers: Vec<_> = arguments.iter().map(|text| text.as_ptr()).collect();
        argument_pointers.push(ptr::null());
        let mut environment_pointers: Vec<_> = environment
            .iter()
            .map(|text| text.as_ptr().cast())
            .collect();
        let pid_pointer: *mut u8 = listen_pid.as_mut_ptr();
        if listener.is_some() {
            environment_pointers.push(pid_pointer.cast_const().cast());
            environment_pointers.push(listen_fds.as_ptr());
        }
        environment_pointers.push(ptr::null());
        let log = File::options()
            .append(true)
            .create(true)
            .open(&self.log)
            .map_err(|e| fail(&e))?;
        let null = File::open("/dev/null").map_err(|e| fail(&e))?;
        let (log_fd, null_fd) = (log.as_raw_fd(), null.as_raw_fd());
        let listener_fd = listener.map(|fd| fd.as_raw_fd());
        let mut cores: libc::cpu_set_t = unsafe {
            // SAFETY: a set of bits; all zeros is the empty set.
            mem::zeroed()
        };
        if let Some(core) = self.core {
            // SAFETY: CPU_SET ignores numbers that do not fit the set.
            unsafe { libc::CPU_SET(core, &mut cores) };
        }

        // SAFETY: the child calls only async-signal-safe functions on memory prepared above, and
        // ends in execve or _exit.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(fail(&std::io::Error::last_os_error()));
        }
        if pid == 0 {
            // SAFETY: as above; all pointers are to live, NUL-terminated memory of this process's
            // copy, and `pid_pointer` has room for PID_DIGITS digits at `pid_at`.
            unsafe {
                libc::dup2(null_fd, 0);
                libc::dup2(log_fd, 1);
                libc::dup2(log_fd, 2);
                if let Some(fd) = listener_fd {
                    // dup2 onto itself would leave the close-on-exec flag.
                    if fd == 3 {
                        libc::fcntl(3, libc::F_SETFD, 0);
                    } else {
                        libc::dup2(fd, 3);
                    }
                    let mut rest = libc::getpid();
                    for digit in (0..PID_DIGITS).rev() {
                        *pid_pointer.add(pid_at + digit) = b'0' + (rest % 10) as u8;
                        rest /= 10;
                    }
                }
                if self.core.is_some() {
                    libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const cores);
                }
                libc::execve(
                    program.as_ptr(),
                    argument_pointers.as_ptr(),
                    environment_pointers.as_ptr(),
                );
                libc::_exit(127);
            }
        }
        Ok(Process {
            pid,
            log: self.log.clone(),
            status: None,
        })
    }
}

/// A running child; ended when dropped.
pub struct Process {
    pid: libc::pid_t,
    log: PathBuf,
    /// The exit status in words, once known; the process id is no longer ours then.
    status: Option<String>,
}

impl Process {
    /// Waits until `ready` says so, at most `limit`; an error carries the end of the log.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<(), String> {
        let start = Instant::now();
        while !ready() {
            self.check(what, start.elapsed() > limit)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// An error that carries the end of the log if the process has ended or is `overdue`.
    pub fn check(&mut self, what: &str, overdue: bool) -> Result<(), String> {
        let reason = match self.exited() {
            Some(status) => format!("the process ended with {status}"),
            None if overdue => "it took too long".into(),
            None => return Ok(()),
        };
        Err(format!("{what}: {reason}; {}", self.log_end()))
    }

    /// Processor time of all living threads so far, in user and kernel.
    pub fn cpu_time(&self) -> Result<Duration, String> {
        let tasks = format!("/proc/{}/task", self.pid);
        let fail = |e: &dyn std::fmt::Display| format!("{tasks}: {e}");
        let mut nanos = 0u64;
        for task in fs::read_dir(&tasks).map_err(|e| fail(&e))? {
            // In nanoseconds; the ticks of `stat` are too coarse for a short run.
            let text = fs::read_to_string(task.map_err(|e| fail(&e))?.path().join("schedstat"));
            match text.as_deref().map(|text| {
                text.split(' ')
                    .next()
                    .and_then(|word| word.parse::<u64>().ok())
            }) {
                Ok(Some(time)) => nanos += time,
                _ => return self.cpu_time_in_ticks(),
            }
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// The same where the kernel keeps no scheduler statistics: `utime` and `stime` of `stat`.
    fn cpu_time_in_ticks(&self) -> Result<Duration, String> {
        let path = format!("/proc/{}/stat", self.pid);
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        // The program's name, in parentheses, may contain anything; fields count from behind it.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut ticks = fields
            .split_ascii_whitespace()
            .skip(11)
            .map_while(|field| field.parse::<u64>().ok());
        let (Some(user), Some(kernel)) = (ticks.next(), ticks.next()) else {
            return Err(format!("{path}: not in the known format: {text}"));
        };
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(
            (user + kernel) as f64 / per_second as f64,
        ))
    }

    pub fn memory(&self) -> Result<Memory, String> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let kibibytes = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.split(':').next() == Some(name));
            line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
                .map(|kibibytes| kibibytes * 1024)
                .ok_or_else(|| format!("{path}: no {name} line"))
        };
        Ok(Memory {
            resident: kibibytes("Rss")?,
            anonymous: kibibytes("Anonymous")?,
            proportional: kibibytes("Pss")?,
        })
    }

    /// The exit status in words if the process has ended.
    fn exited(&mut self) -> Option<&str> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: waits for a child of this process that was not waited for yet.
            if unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } == self.pid {
                self.status = Some(if libc::WIFSIGNALED(status) {
                    format!("signal {}", libc::WTERMSIG(status))
                } else {
                    format!("exit status {}", libc::WEXITSTATUS(status))
                });
            }
        }
        self.status.as_deref()
    }

    /// The last lines that the process wrote.
    pub fn log_end(&self) -> String {
        let text = fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let end = &lines[lines.len().saturating_sub(20)..];
        if end.is_empty() {
            "it logged nothing".into()
        } else {
            format!("its log ends:\n{}", end.join("\n"))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_some() {
            return;
        }
        // SAFETY: a child that was not waited for yet, so the id is still its own.
        unsafe { libc::kill(self.pid, libc::SIGTERM) };
        let start = Instant::now();
        while self.exited().is_none() {
            if start.elapsed() > Duration::from_secs(3) {
                // SAFETY: as above; afterwards the wait below cannot last.
                unsafe {
                    libc::kill(self.pid, libc::SIGKILL);
                    libc::waitpid(self.pid, ptr::null_mut(), 0);
                }
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sizes in bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident set.
    pub resident: u64,
    /// Of it, what no file backs: heap, stacks, written data.
    pub anonymous: u64,
    /// Resident set with shared pages divided among the processes that share them.
    pub proportional: u64,
}

/// A core for the server and one for the load generator; the same one if there is no second.
#[derive(Clone, Copy)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

/// Two of the cores this process may run on.
pub fn cores() -> Result<Cores, String> {
    let set =
        rustix::thread::sched_getaffinity(None).map_err(|e| format!("sched_getaffinity: {e}"))?;
    let mut usable = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core));
    let server = usable.next().ok_or("no processor core to run on")?;
    Ok(Cores {
        server,
        load: usable.next().unwrap_or(server),
    })
}
