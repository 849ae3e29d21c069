//! The command line: as typed, and resolved.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command as Clap};
use zeroize::Zeroizing;

/// What was asked for.
pub struct Args {
    /// Name the program was called by, without directories.
    pub program: String,
    /// The command.
    pub command: Command,
}

/// A command with its options.
pub enum Command {
    /// `config apply`.
    Apply(ConfigOptions),
    /// `config lint`.
    Lint(ConfigOptions),
    /// `config mp`.
    Manual(ManualOptions),
    /// `system …`.
    System(System),
}

/// Options of `config apply` and `config lint`.
pub struct ConfigOptions {
    /// The super-config; `None` for the one of the device.
    pub file: Option<PathBuf>,
    /// Whether warnings count as errors.
    pub strict: bool,
}

/// Options of `config mp`.
pub struct ManualOptions {
    /// Where the connection string is.
    pub connection_string: ConnectionStringSource,
    /// The super-config to write; `None` for the one of the device.
    pub file: Option<PathBuf>,
    /// Whether an existing file is replaced.
    pub force: bool,
}

/// Where a connection string is.
pub enum ConnectionStringSource {
    /// On the command line.
    Argument(Zeroizing<String>),
    /// On standard input.
    Stdin,
}

impl ConnectionStringSource {
    /// Most bytes read from standard input: a connection string has some hundred.
    const MAX_BYTES: u64 = 4096;

    /// The connection string, without surrounding white space if it was read.
    ///
    /// # Errors
    ///
    /// Standard input cannot be read, is not UTF-8, or is too long.
    pub fn read(&self) -> io::Result<Zeroizing<String>> {
        match self {
            Self::Argument(text) => Ok(text.clone()),
            Self::Stdin => {
                let mut text = Zeroizing::new(String::with_capacity(Self::MAX_BYTES as usize + 1));
                let length = io::stdin()
                    .take(Self::MAX_BYTES + 1)
                    .read_to_string(&mut text)?;
                if length > Self::MAX_BYTES as usize {
                    let message = format!("more than {} bytes", Self::MAX_BYTES);
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                Ok(Zeroizing::new(text.trim().to_owned()))
            }
        }
    }
}

/// A command about the services.
pub enum System {
    /// Stop all services and start them again.
    Restart,
    /// Stop all services.
    Stop,
    /// Show how the services are.
    Status,
    /// Show the services' logs, with arguments for `journalctl`.
    Logs(Vec<OsString>),
    /// Set the log level of all services.
    SetLogLevel(String),
    /// Provision the device again.
    Reprovision,
}

/// Parses the command line. Usage errors, help and the version end the program.
pub fn parse() -> Args {
    let matches = definition().get_matches();
    let program = std::env::args_os().next().map(PathBuf::from);
    let program = program.as_deref().and_then(|path| path.file_name());
    let program = program.map_or_else(
        || "aziotctl".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    Args {
        program,
        command: resolve(&matches),
    }
}

fn definition() -> Clap {
    let config_file = Arg::new("config")
        .short('c')
        .long("config")
        .value_name("CONFIG")
        .value_parser(ValueParser::path_buf());
    let strict = Arg::new("strict").long("strict").action(ArgAction::SetTrue);

    let apply = Clap::new("apply")
        .about("Apply the super-config: write the configuration of the services and restart them")
        .arg(
            config_file
                .clone()
                .help("Super-config [default: /etc/aziot/config.toml]"),
        )
        .arg(strict.help("Fail on warnings, before anything is changed"));
    let lint = Clap::new("lint")
        .about("Check the super-config without changing anything; warnings count as errors")
        .arg(config_file.help("Super-config [default: /etc/aziot/config.toml]"));
    let manual = Clap::new("mp")
        .about("Write a super-config for manual provisioning with a connection string")
        .arg(
            Arg::new("connection-string")
                .short('c')
                .long("connection-string")
                .value_name("CONNECTION_STRING")
                .required(true)
                .help("Connection string of the device, or - to read it from standard input"),
        )
        .arg(
            Arg::new("out-config-file")
                .short('o')
                .long("out-config-file")
                .value_name("FILE")
                .value_parser(ValueParser::path_buf())
                .help("File to write [default: /etc/aziot/config.toml]"),
        )
        .arg(
            Arg::new("force")
                .short('f')
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Replace the file if it exists"),
        );
    let config = Clap::new("config")
        .about("Configure the services")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([apply, lint, manual]);

    let logs = Clap::new("logs")
        .about("Show the logs of the services")
        .arg(
            Arg::new("arguments")
                .value_name("JOURNALCTL-ARGS")
                .num_args(0..)
                .last(true)
                .value_parser(ValueParser::os_string())
                .help("Arguments for journalctl [default: -e --no-pager]"),
        );
    let set_log_level = Clap::new("set-log-level")
        .about("Set the log level of the services")
        .arg(
            Arg::new("level")
                .value_name("LEVEL")
                .required(true)
                .value_parser(PossibleValuesParser::new([
                    "error", "warn", "info", "debug", "trace",
                ]))
                .help("Log level"),
        );
    let system = Clap::new("system")
        .about("Manage the services")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Clap::new("restart").about("Restart the services"),
            Clap::new("stop").about("Stop the services"),
            Clap::new("status").about("Show how the services are"),
            logs,
            set_log_level,
            Clap::new("reprovision").about("Provision the device again with IoT Hub"),
        ]);

    Clap::new("aziotctl")
        .about("Configures the identity, key, certificate and TPM services of this device, and talks to them")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([config, system])
}

fn resolve(matches: &ArgMatches) -> Command {
    let (group, matches) = required_subcommand(matches);
    let (name, matches) = required_subcommand(matches);
    let file = |name| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
    match (group, name) {
        ("config", "apply") => Command::Apply(ConfigOptions {
            file: file("config"),
            strict: matches.get_flag("strict"),
        }),
        ("config", "lint") => Command::Lint(ConfigOptions {
            file: file("config"),
            strict: true,
        }),
        ("config", _) => {
            let text: Option<&String> = matches.get_one("connection-string");
            let text = text.map_or("", String::as_str);
            Command::Manual(ManualOptions {
                connection_string: match text {
                    "-" => ConnectionStringSource::Stdin,
                    text => ConnectionStringSource::Argument(Zeroizing::new(text.to_owned())),
                },
                file: file("out-config-file"),
                force: matches.get_flag("force"),
            })
        }
        (_, "restart") => Command::System(System::Restart),
        (_, "stop") => Command::System(System::Stop),
        (_, "status") => Command::System(System::Status),
        (_, "logs") => {
            let arguments = matches.get_many::<OsString>("arguments");
            Command::System(System::Logs(
                arguments.into_iter().flatten().cloned().collect(),
            ))
        }
        (_, "set-log-level") => {
            let level: Option<&String> = matches.get_one("level");
            Command::System(System::SetLogLevel(level.cloned().unwrap_or_default()))
        }
        _ => Command::System(System::Reprovision),
    }
}

/// The subcommand, which the definition requires.
fn required_subcommand(matches: &ArgMatches) -> (&str, &ArgMatches) {
    matches.subcommand().unwrap_or(("", matches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_consistent() {
        definition().debug_assert();
    }

    fn parsed(arguments: &[&str]) -> Result<Command, clap::error::ErrorKind> {
        let matches = definition().try_get_matches_from([&["aziotctl"], arguments].concat());
        matches
            .map(|matches| resolve(&matches))
            .map_err(|error| error.kind())
    }

    #[test]
    fn ct_02_usage() {
        use clap::error::ErrorKind::*;
        let kind = |arguments: &[&str]| parsed(arguments).err();
        assert_eq!(kind(&[]), Some(DisplayHelpOnMissingArgumentOrSubcommand));
        assert_eq!(
            kind(&["config"]),
            Some(DisplayHelpOnMissingArgumentOrSubcommand)
        );
        assert_eq!(
            kind(&["system"]),
            Some(DisplayHelpOnMissingArgumentOrSubcommand)
        );
        assert_eq!(kind(&["nonsense"]), Some(InvalidSubcommand));
        assert_eq!(
            kind(&["config", "apply", "--nonsense"]),
            Some(UnknownArgument)
        );
        assert_eq!(kind(&["config", "apply", "-V"]), Some(UnknownArgument));
        assert_eq!(kind(&["config", "mp"]), Some(MissingRequiredArgument));
        for level in ["INFO", "off", ""] {
            assert_eq!(
                kind(&["system", "set-log-level", level]),
                Some(InvalidValue)
            );
        }
        // Arguments of journalctl follow `--`.
        assert_eq!(kind(&["system", "logs", "-f"]), Some(UnknownArgument));
        assert_eq!(kind(&["-V"]), Some(DisplayVersion));
        assert_eq!(kind(&["--version"]), Some(DisplayVersion));
        assert_eq!(kind(&["help"]), Some(DisplayHelp));
        assert_eq!(kind(&["help", "config", "mp"]), Some(DisplayHelp));
        assert_eq!(kind(&["config", "apply", "-h"]), Some(DisplayHelp));
    }

    #[test]
    fn options_in_every_spelling() {
        for spelling in [
            &["-c", "f"][..],
            &["-cf"],
            &["-c=f"],
            &["--config", "f"],
            &["--config=f"],
        ] {
            let arguments = [&["config", "apply"], spelling].concat();
            let Ok(Command::Apply(options)) = parsed(&arguments) else {
                panic!("{arguments:?}")
            };
            assert_eq!(options.file, Some("f".into()));
            assert!(!options.strict);
        }
        let Ok(Command::Apply(options)) = parsed(&["config", "apply", "--strict"]) else {
            panic!()
        };
        assert!(options.strict && options.file.is_none());
        let Ok(Command::System(System::Logs(arguments))) =
            parsed(&["system", "logs", "--", "-f", "-n", "5"])
        else {
            panic!()
        };
        assert_eq!(arguments, ["-f", "-n", "5"]);
        let Ok(Command::Manual(options)) = parsed(&["config", "mp", "-c", "-", "-o", "x", "-f"])
        else {
            panic!()
        };
        assert!(
            matches!(options.connection_string, ConnectionStringSource::Stdin) && options.force
        );
    }
}
