//! The simulator as a program; see [`aziot_tests::simulator`].

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use aziot_tests::simulator::{
    Config, Enrolment, Key, NewDevice, ShutdownWaiter, Simulator, control,
};
use clap::Parser;

/// Plays the Device Provisioning Service and IoT Hub over TLS on 127.0.0.1.
///
/// Checks everything the daemon sends and lists every deviation. When it listens it prints one line:
/// `listening port=PORT ca=FILE dps=URL hub=HOST:PORT scope=ID control=PATH` (control only with --control).
/// It ends with SIGTERM, SIGINT or `POST /shutdown` over the control socket, exit status 0.
#[derive(Parser)]
#[command(name = "aziot-simulator", version, after_long_help = after_help())]
struct Arguments {
    /// Where certificates and keys are written (ca.pem is the trust anchor); an authority found there is used again
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// TCP port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Unix socket for control requests
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// DPS id scope
    #[arg(long, value_name = "ID", default_value = "0ne00000001")]
    scope_id: String,
    /// Individual enrolment: registration id and base64 key
    #[arg(long, value_name = "ID=KEY", value_parser = named_key)]
    enrolment: Vec<(String, Key)>,
    /// Enrolment group: group id and base64 key, from which the devices' keys are derived
    #[arg(long, value_name = "ID=KEY", value_parser = named_key)]
    group: Vec<(String, Key)>,
    /// Device of the hub: device id and base64 key
    #[arg(long, value_name = "ID=KEY", value_parser = named_key)]
    device: Vec<(String, Key)>,
    /// Further DNS name for the server certificate
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Host name (with port, if it is another one) under which any hub is reached, as a parent gateway
    #[arg(long, value_name = "HOST")]
    gateway: Vec<String>,
    /// How many polls are answered with `assigning` before the result
    #[arg(long, value_name = "N", default_value_t = 1)]
    assigning_polls: u32,
    /// Seconds in the Retry-After of DPS's 202 answers
    #[arg(
        long,
        value_name = "S",
        default_value_t = 3,
        conflicts_with = "no_retry_after"
    )]
    retry_after: u32,
    /// Leave Retry-After out
    #[arg(long)]
    no_retry_after: bool,
    /// What a second of a Retry-After means in seconds, for daemons built with scaled deadlines
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,
    /// Report each request on standard error
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "aziot-simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Before any thread exists, so that all of them inherit the mask.
    let signals = block_signals();
    let control = arguments.control.clone();
    let mut config = Config::new(&arguments.dir);
    config.port = arguments.port;
    config.control = arguments.control;
    config.scope_id = arguments.scope_id;
    config.names = arguments.name;
    config.gateways = arguments.gateway;
    config.verbose = arguments.verbose;
    config.settings.assigning_polls = arguments.assigning_polls;
    config.settings.retry_after = (!arguments.no_retry_after).then_some(arguments.retry_after);
    config.settings.time_scale = arguments.time_scale;
    let simulator = Simulator::start(config)?;
    for (id, key) in arguments.enrolment {
        simulator.add_enrolment(&id, Enrolment::new(key.0));
    }
    for (id, key) in arguments.group {
        simulator.add_group(&id, Enrolment::new(key.0))?;
    }
    for (id, key) in arguments.device {
        simulator.add_device(&id, NewDevice::new(key.0));
    }
    let waiter = simulator.shutdown_waiter();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || wait_for_signal(&signals, &waiter))?;
    let control = control
        .map(|path| format!(" control={}", path.display()))
        .unwrap_or_default();
    writeln!(
        io::stdout(),
        "listening port={} ca={} dps={} hub={} scope={}{control}",
        simulator.port(),
        simulator.ca_path().display(),
        simulator.dps_endpoint(),
        simulator.hub(),
        simulator.scope_id(),
    )?;
    simulator.wait_for_shutdown();
    Ok(())
}

fn after_help() -> String {
    format!(
        "Control requests, e.g. curl --unix-socket PATH http://s/violations:\n\n{}\n\
         For clients of the services: POST /devices/D[/modules/M]/messages/events?api-version=2020-03-13 with\n\
         `authorization: SharedAccessSignature ...` answers 204 if the token, whose resource is\n\
         HUB/devices/D[/modules/M], is signed with a key that the hub has and valid for at most a day.",
        control::HELP
    )
}

fn named_key(text: &str) -> Result<(String, Key), String> {
    // An id may contain an equals sign, a key only at its end.
    let end = text
        .trim_end_matches('=')
        .rfind('=')
        .ok_or("the form is ID=KEY")?;
    let (id, key) = text.split_at(end);
    let key = key.trim_start_matches('=');
    if id.is_empty() {
        return Err("the id is empty".to_owned());
    }
    Ok((id.to_owned(), Key::from_base64(key)?))
}

/// Blocks SIGINT and SIGTERM for this thread and those that it starts.
#[allow(unsafe_code)]
fn block_signals() -> libc::sigset_t {
    let mut set = core::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that the pointer refers to, before anything reads it, and does not
    // fail; the other calls get that initialised set and known signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, core::ptr::null_mut());
        set
    }
}

/// Waits for one of the signals and asks for the end.
#[allow(unsafe_code)]
fn wait_for_signal(signals: &libc::sigset_t, waiter: &ShutdownWaiter) {
    let mut signal = 0;
    // SAFETY: both pointers refer to live, initialised values of the right types.
    unsafe { libc::sigwait(signals, &raw mut signal) };
    waiter.ask();
}
