//! `aziotctl`: configures the services of the device, and talks to them.

mod apply;
mod args;
mod failure;
mod lint;
mod manual;
mod output;
mod reprovision;
mod root;
mod system;
mod users;

use std::process::ExitCode;

use args::{Command, System};
use failure::Failure;

fn main() -> ExitCode {
    // Usage errors, help and the version end the program in here.
    let args = args::parse();
    match run(&args.command, &args.program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(format_args!("{failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one command. `program` is the name it was called by, for hints.
fn run(command: &Command, program: &str) -> Result<(), Failure> {
    match command {
        Command::Apply(options) => apply::run(options),
        Command::Lint(options) => lint::run(options),
        Command::Manual(options) => manual::run(options, program),
        Command::System(system) => match system {
            System::Restart => system::restart(),
            System::Stop => system::stop(),
            System::Status => system::status(program),
            System::Logs(arguments) => system::logs(arguments),
            System::SetLogLevel(level) => system::set_log_level(level, program),
            System::Reprovision => reprovision::run(),
        },
    }
}
