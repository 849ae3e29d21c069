//! Measures the services beside the floor and prints one table: the goals of the design, what was
//! measured, and how the two compare.
//!
//! Absolute times depend on the machine and on what else it is doing, so every figure that can be
//! has a counterpart measured in the same run, in turns: a bare epoll responder for rates and
//! server time, `openssl speed` for signatures, a PKCS#11 module called directly for tokens, a
//! minimal libcrypto program for start-up. `docs/performance.md` explains each row.

mod client;
mod load;
mod measure;
mod pairs;
mod process;
mod root;
mod table;
mod tls;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use measure::{Group, Plan};
use table::Table;

/// Measures the services beside the floor and prints the goals with what was measured.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Directory with the release programs and libraries; that of this program if not given.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Directory with the compiled C tools (`scripts/build-tools`); `../tools` if not given.
    #[arg(long)]
    tools: Option<PathBuf>,
    /// Seconds for each of the load measurements, of which there are three per server.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Starts of each program for the exec-to-first-reply figure.
    #[arg(long, env = "BENCH_STARTS", default_value_t = 40, value_parser = clap::value_parser!(u16).range(3..))]
    starts: u16,
    /// Measure only these groups, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Fail if a goal is missed.
    #[arg(long)]
    strict: bool,
}

#[allow(clippy::print_stderr)] // a command-line tool
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(table) => {
            print!("{table}");
            let missed = arguments.strict && table.missed() > 0;
            if table.has_failed() || missed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Table, String> {
    if !(0.05..=600.0).contains(&arguments.seconds) {
        return Err("--seconds (BENCH_SECONDS) must be between 0.05 and 600".into());
    }
    let own = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let own_directory = own.parent().unwrap_or(Path::new("."));
    let programs = arguments
        .programs
        .clone()
        .unwrap_or_else(|| own_directory.to_path_buf());
    let tools = arguments
        .tools
        .clone()
        .unwrap_or_else(|| own_directory.join("../tools"));
    let plan = Plan {
        loadgen: existing(
            &own_directory.join("loadgen"),
            "cargo build --release -p aziot-tests",
        )?,
        bare: existing(&tools.join("bare"), "scripts/build-tools")?,
        minimal: existing(&tools.join("minimal"), "scripts/build-tools")?,
        allocspy: existing(&tools.join("allocspy.so"), "scripts/build-tools")?,
        softhsm: existing(&tools.join("softhsm"), "scripts/build-tools")?,
        tls: existing(&tools.join("tls"), "scripts/build-tools")?,
        aziotd: existing(&programs.join("aziotd"), "make release")?,
        programs: existing(&programs, "make release")?,
        seconds: arguments.seconds,
        starts: arguments.starts.into(),
        groups: if arguments.only.is_empty() {
            Group::value_variants().to_vec()
        } else {
            arguments.only.clone()
        },
        cores: process::cores()?,
    };
    Ok(measure::all(&plan))
}

/// The path made absolute, or an error that says what makes the file.
fn existing(path: &Path, made_by: &str) -> Result<PathBuf, String> {
    path.canonicalize()
        .map_err(|e| format!("{}: {e}; made by `{made_by}`", path.display()))
}
