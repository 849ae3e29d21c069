//! `system …`: the services as systemd runs them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aziot_crypto::file;

use crate::failure::Failure;
use crate::output::{complain, say, say_bytes, say_part};
use crate::root;

/// Names of the services, in the order in which they are stopped, started and shown. Each has a socket.
const SERVICES: [&str; 4] = ["aziot-identityd", "aziot-keyd", "aziot-certd", "aziot-tpmd"];

/// The service that is started at once, so that the device is provisioned. The others start when they are called.
const STARTED: &str = "aziot-identityd.service";

/// Where overrides of units go.
const UNITS: &str = "/etc/systemd/system";

/// Whether systemd manages this machine.
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Under a moved root there are no units.
fn refuse_moved_root() -> Result<(), Failure> {
    if root::from_env()?.is_moved() {
        return Err(Failure::new(
            "AZIOT_ROOT is set, and services under it are not managed by systemd: unset it to manage the installed services",
        ));
    }
    Ok(())
}

/// `system restart`.
pub fn restart() -> Result<(), Failure> {
    refuse_moved_root()?;
    restart_all()
}

/// `system stop`.
pub fn stop() -> Result<(), Failure> {
    refuse_moved_root()?;
    let mut failed = Vec::new();
    stop_all(&mut failed)?;
    verdict(&failed)
}

/// Stops all services, starts all sockets, and starts identityd.
pub fn restart_all() -> Result<(), Failure> {
    let mut failed = Vec::new();
    stop_all(&mut failed)?;
    for name in SERVICES {
        start(&format!("{name}.socket"), &mut failed)?;
    }
    start(STARTED, &mut failed)?;
    verdict(&failed)
}

fn stop_all(failed: &mut Vec<String>) -> Result<(), Failure> {
    for name in SERVICES {
        let unit = format!("{name}.service");
        say_part(format_args!("Stopping {unit}..."));
        if change("stop", &unit, failed)? {
            say(format_args!("Stopped!"));
        }
    }
    Ok(())
}

fn start(unit: &str, failed: &mut Vec<String>) -> Result<(), Failure> {
    say_part(format_args!("Starting {unit}..."));
    if change("start", unit, failed)? {
        say(format_args!("Started!"));
    }
    Ok(())
}

/// Runs `systemctl VERB UNIT`. A unit that fails is shown and remembered; only a missing `systemctl` ends the sequence.
fn change(verb: &str, unit: &str, failed: &mut Vec<String>) -> Result<bool, Failure> {
    let output = systemctl(&[verb, unit])
        .map_err(|error| Failure::caused(format!("Failed to call systemctl {verb}"), &error))?;
    if output.status.success() {
        return Ok(true);
    }
    say(format_args!("Failed!"));
    complain(format_args!("systemctl exited with non-zero status code."));
    for (title, text) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        complain(format_args!(
            "{title}:\n=======\n{}",
            String::from_utf8_lossy(text).trim_end()
        ));
    }
    complain(format_args!(""));
    failed.push(unit.into());
    Ok(false)
}

fn verdict(failed: &[String]) -> Result<(), Failure> {
    match failed {
        [] => Ok(()),
        units => Err(Failure::new(format!(
            "systemctl failed for {}",
            units.join(", ")
        ))),
    }
}

fn systemctl(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
}

/// State of a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Active,
    Inactive,
    /// What `systemctl` says.
    Failed(String),
}

impl State {
    fn of(unit: &str) -> Result<Self, Failure> {
        let output = systemctl(&["is-active", unit])
            .map_err(|error| Failure::caused("Failed to call systemctl is-active", &error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(match (text(&output.stdout), text(&output.stderr)) {
            (stdout, _) if stdout == "active" => Self::Active,
            (stdout, _) if stdout == "inactive" => Self::Inactive,
            (stdout, stderr) => Self::Failed(format!("{stdout} {stderr}").trim().to_owned()),
        })
    }

    /// As shown for a socket.
    fn of_socket(&self) -> String {
        match self {
            Self::Active => "Running".into(),
            Self::Inactive => "Down - inactive".into(),
            Self::Failed(text) => format!("Down - {text}"),
        }
    }
}

/// State of a service as a whole: it runs, it waits for its first caller, or it is down.
fn combined(service: &State, socket: &State) -> State {
    match (service, socket) {
        (State::Active, State::Active) => State::Active,
        (State::Active, _) => State::Failed("socket error".into()),
        // Without its socket an inactive service never starts.
        (State::Inactive, State::Inactive) => State::Failed("socket inactive".into()),
        (State::Inactive, State::Failed(_)) => State::Failed("socket failed".into()),
        (own, _) => own.clone(),
    }
}

/// `system status`.
pub fn status(program: &str) -> Result<(), Failure> {
    refuse_moved_root()?;
    let mut bad = Vec::new();
    say(format_args!("System services:"));
    for name in SERVICES {
        let service = State::of(&format!("{name}.service"))?;
        let socket = State::of(&format!("{name}.socket"))?;
        let shown = match combined(&service, &socket) {
            State::Active => "Running".to_owned(),
            State::Inactive => "Ready".to_owned(),
            State::Failed(text) => {
                bad.push((name, service, socket));
                format!("Down - {text}")
            }
        };
        say(format_args!("    {name:<24}{shown}"));
    }
    say(format_args!(""));
    for (name, service, socket) in &bad {
        say(format_args!("{name} is in a bad state because:"));
        let own = match service {
            State::Active => "Running".to_owned(),
            State::Inactive => "Ready".to_owned(),
            State::Failed(text) => format!("Down - {text}"),
        };
        log_lines(&format!("{name}.service"), &own);
        if *socket != State::Active {
            log_lines(&format!("{name}.socket"), &socket.of_socket());
        }
    }
    say(format_args!(
        "Use '{program} system logs' to check for non-fatal errors."
    ));
    say(format_args!(
        "Use '{program} check' to diagnose connectivity and configuration issues."
    ));
    Ok(())
}

fn log_lines(unit: &str, state: &str) {
    say(format_args!(
        "{unit}: {state}: Printing the last 10 log lines."
    ));
    match Command::new("journalctl")
        .args(["-u", unit, "--no-pager", "-e", "-n", "10"])
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => {
            say_bytes(&output.stdout);
            say_bytes(&output.stderr);
        }
        Err(error) => complain(format_args!("could not call journalctl: {error}")),
    }
    say(format_args!(""));
}

/// `system logs`.
pub fn logs(arguments: &[OsString]) -> Result<(), Failure> {
    refuse_moved_root()?;
    let mut journalctl = Command::new("journalctl");
    for name in SERVICES {
        journalctl.args([OsStr::new("-u"), OsStr::new(&format!("{name}.service"))]);
    }
    if arguments.is_empty() {
        journalctl.args(["-e", "--no-pager"]);
    } else {
        journalctl.args(arguments);
    }
    let status = journalctl
        .status()
        .map_err(|error| Failure::caused("Failed to call journalctl", &error))?;
    // Whoever reads the output may have seen enough.
    if status.success() || status.signal() == Some(libc::SIGPIPE) {
        Ok(())
    } else {
        Err(Failure::new(format!("journalctl failed: {status}")))
    }
}

/// `system set-log-level`.
pub fn set_log_level(level: &str, program: &str) -> Result<(), Failure> {
    refuse_moved_root()?;
    write_log_level(Path::new(UNITS), level)?;
    let reload = systemctl(&["daemon-reload"])
        .map_err(|error| Failure::caused("Failed to call systemctl daemon-reload", &error))?;
    let level = level.to_uppercase();
    say(format_args!(
        "Set log level to {level} for all services. Run the `{program} system restart` command for the changes to take effect."
    ));
    if reload.status.success() {
        return Ok(());
    }
    let cause = String::from_utf8_lossy(&reload.stderr).trim().to_owned();
    Err(Failure::listed(
        "systemctl daemon-reload failed, so a restart will not use the new level",
        [cause],
    ))
}

/// Writes an override for each service below `units`.
fn write_log_level(units: &Path, level: &str) -> Result<(), Failure> {
    for name in SERVICES {
        let refuse = |cause: String| {
            Failure::listed(
                format!("could not write log level service override for {name}.service"),
                [cause],
            )
        };
        let directory = units.join(format!("{name}.service.d"));
        fs::create_dir_all(&directory)
            .map_err(|error| refuse(format!("{}: {error}", directory.display())))?;
        let text = format!(
            "[Service]\nEnvironment=AZIOT_LOG={}\n",
            level.to_uppercase()
        );
        file::replace(
            &directory.join("log-level.conf"),
            text.as_bytes(),
            file::Options::new(0o644),
        )
        .map_err(|error| refuse(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ct_16_log_level_overrides() {
        let units = tempfile::tempdir().unwrap();
        write_log_level(units.path(), "info").unwrap();
        write_log_level(units.path(), "debug").unwrap();
        for name in SERVICES {
            let path = units
                .path()
                .join(format!("{name}.service.d/log-level.conf"));
            assert_eq!(
                fs::read_to_string(path).unwrap(),
                "[Service]\nEnvironment=AZIOT_LOG=DEBUG\n"
            );
        }
        fs::remove_dir_all(units.path().join("aziot-keyd.service.d")).unwrap();
        fs::write(units.path().join("aziot-keyd.service.d"), "").unwrap();
        let failure = write_log_level(units.path(), "info")
            .unwrap_err()
            .to_string();
        assert!(
            failure
                .starts_with("could not write log level service override for aziot-keyd.service\n"),
            "{failure}"
        );
    }

    #[test]
    fn ct_15_combined_states() {
        let failed = |text: &str| State::Failed(text.into());
        for (service, socket, expected) in [
            (State::Active, State::Active, State::Active),
            (State::Active, State::Inactive, failed("socket error")),
            (State::Active, failed("x"), failed("socket error")),
            (State::Inactive, State::Active, State::Inactive),
            (State::Inactive, State::Inactive, failed("socket inactive")),
            (State::Inactive, failed("x"), failed("socket failed")),
            (failed("failed"), State::Active, failed("failed")),
        ] {
            assert_eq!(combined(&service, &socket), expected);
        }
    }
}
