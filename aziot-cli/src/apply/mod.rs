//! `config apply`: from the super-config to the configuration of the services.
//!
//! Everything is checked before anything is touched, all files change together or not at all, and another run at the
//! same time is held off.

pub mod check;
mod stage;

use std::fs;
use std::path::Path;

use aziot_core::config::Problem;
use aziot_core::super_config::{self, DEVICE_ID, Machine, Output, SuperConfig};
use aziot_daemon::config_files::{self, Reason};
use aziot_daemon::paths::{Root, Service};

use crate::args::ConfigOptions;
use crate::failure::Failure;
use crate::output::{complain, say};
use crate::root;
use crate::system;
use crate::users::{ServiceUsers, User, is_root};
use check::Generated;
use stage::{Lock, StageError, Transaction};

/// Runs the command.
pub fn run(options: &ConfigOptions) -> Result<(), Failure> {
    let root = root::from_env()?;
    let (config, mut warnings) = read_super_config(options, &root)?;
    let users = ServiceUsers::query(&root)?;
    let output = translate(&config, &users, &root);
    let documents = check::documents(&output, &root);
    let device_key = root.key_secrets().join(DEVICE_ID);
    warnings.extend(check::beyond_this_build(&output));

    let base = root.join("/etc/aziot");
    // The lock is dropped last, when whatever has to be put back has been.
    let mut lock = None;
    let mut transaction = Transaction::default();
    if root.is_moved() {
        // An installed system has these from its package.
        for service in Service::ALL {
            let directory = root.config_directory(service);
            transaction
                .create_directory(&directory, 0o755)
                .map_err(|error| failed(&error))?;
        }
    }
    lock.replace(Lock::take(&base).map_err(|error| failed(&error))?);
    warnings.extend(check::merged(&documents, &root)?);
    warnings.extend(check::referenced_files(&output, &users, &device_key));
    report(&warnings, options.strict)?;

    let stale = stage(
        &mut transaction,
        &output,
        &documents,
        &device_key,
        &users,
        &root,
    )?;
    transaction.commit().map_err(|error| failed(&error))?;
    transaction.finish();

    say(format_args!(
        "Azure IoT Identity Service has been configured successfully!"
    ));
    say(format_args!(""));
    let mut written: Vec<&Path> = documents
        .iter()
        .map(|generated| generated.path.as_path())
        .collect();
    if output.device_key.is_some() {
        written.insert(0, &device_key);
    }
    finish(&written, stale.then_some(device_key.as_path()), &root)
}
/// Reads and validates the super-config. Answers it, and the warnings about it.
pub fn read_super_config(
    options: &ConfigOptions,
    root: &Root,
) -> Result<(SuperConfig, Vec<Problem>), Failure> {
    let path = options.file.clone().unwrap_or_else(|| root.super_config());
    let document = config_files::read_file(&path).map_err(|error| match &error.reason {
        Reason::Io(cause) => Failure::listed(
            "could not read config file",
            [format!("{}: {cause}", path.display())],
        ),
        Reason::Encoding(cause) => Failure::listed(
            "invalid character in config",
            [format!("{}: {cause}", path.display())],
        ),
        Reason::Content(problem) => Failure::listed("could not parse config file", [problem]),
    })?;
    match super_config::parse(&path.to_string_lossy(), &document.text) {
        Ok(loaded) => Ok((loaded.settings, loaded.warnings)),
        Err(invalid) => {
            warn(&invalid.warnings);
            Err(Failure::invalid("could not parse config file", &invalid))
        }
    }
}

/// Translates the super-config for this machine.
pub fn translate(config: &SuperConfig, users: &ServiceUsers, root: &Root) -> Output {
    let name = rustix::system::uname();
    let hostname = name.nodename().to_string_lossy();
    config.translate(&Machine {
        hostname: &hostname,
        certd_uid: users.of(Service::Certd).uid,
        identityd_uid: users.of(Service::Identityd).uid,
        places: &root.places(),
    })
}

/// Shows warnings, and fails on them if they count as errors.
pub fn report(warnings: &[Problem], strict: bool) -> Result<(), Failure> {
    warn(warnings);
    if strict && !warnings.is_empty() {
        let count = warnings.len();
        let plural = if count == 1 { "" } else { "s" };
        return Err(Failure::new(format!(
            "{count} warning{plural}, which count as errors; nothing was changed"
        )));
    }
    Ok(())
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        complain(format_args!("Warning: {warning}"));
    }
}

/// Prepares all changes. Answers whether an old device key is to be removed.
fn stage(
    transaction: &mut Transaction,
    output: &Output,
    documents: &[Generated; 4],
    device_key: &Path,
    users: &ServiceUsers,
    root: &Root,
) -> Result<bool, Failure> {
    let failed = |error: StageError| failed(&error);
    let secrets = root.key_secrets();
    for directory in Service::ALL
        .map(|service| root.config_directory(service))
        .iter()
        .chain([&secrets])
    {
        stage::sweep(directory);
    }
    let mut stale = false;
    if let Some(key) = &output.device_key {
        let user = users.of(Service::Keyd);
        say(format_args!(
            "Note: Symmetric key will be written to {}",
            device_key.display()
        ));
        if let Some(parent) = secrets.parent() {
            transaction
                .create_directory(parent, 0o755)
                .map_err(failed)?;
            open_path(transaction, parent, user, root)?;
        }
        transaction
            .create_directory(&secrets, 0o700)
            .map_err(failed)?;
        transaction
            .own_directory(&secrets, 0o700, user)
            .map_err(failed)?;
        transaction.write(device_key, key, user).map_err(failed)?;
    } else if device_key
        .symlink_metadata()
        .is_ok_and(|metadata| !metadata.is_dir())
        && !check::takes_key_from(documents, root, device_key)
    {
        stale = true;
        transaction.remove(device_key);
    }
    for Generated {
        service,
        path,
        text,
    } in documents
    {
        transaction
            .write(path, text.as_bytes(), users.of(*service))
            .map_err(failed)?;
    }
    Ok(stale)
}

/// Makes sure that `user` can pass through `directory` and those above it.
///
/// The directories of secrets are opened for passing, not for listing, where needed; others are the administrator's.
fn open_path(
    transaction: &mut Transaction,
    directory: &Path,
    user: &User,
    root: &Root,
) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = [root.join("/var/secrets"), root.join("/var/secrets/aziot")];
    let mut ancestors: Vec<&Path> = directory.ancestors().collect();
    ancestors.reverse();
    for ancestor in ancestors {
        if user.can_pass(ancestor) {
            continue;
        }
        if !ours.iter().any(|path| path == ancestor) {
            return Err(Failure::new(format!(
                "{} cannot be entered by user {}, which has to read the device key below it: allow it, for example with \
                 `chmod o+x {}`",
                ancestor.display(),
                user.name,
                ancestor.display()
            )));
        }
        let metadata = fs::metadata(ancestor).map_err(|error| {
            Failure::caused(format!("could not examine {}", ancestor.display()), &error)
        })?;
        let owner = User {
            name: String::new(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            groups: Vec::new(),
        };
        let mode = metadata.mode() & 0o7777 | 0o011;
        transaction
            .own_directory(ancestor, mode, &owner)
            .map_err(|error| failed(&error))?;
        say(format_args!(
            "Note: {} can now be entered (but not listed) by other users",
            ancestor.display()
        ));
    }
    Ok(())
}

/// Restarts the services, or says why not.
fn finish(written: &[&Path], removed: Option<&Path>, root: &Root) -> Result<(), Failure> {
    if let Some(path) = removed {
        say(format_args!(
            "Note: {} was removed, because the new configuration does not use it",
            path.display()
        ));
    }
    let reason = if root.is_moved() {
        "AZIOT_ROOT is set, and services under it are not managed by systemd"
    } else if !system::is_running() {
        "systemd is not running here"
    } else {
        say(format_args!(
            "Restarting service for configuration to take effect..."
        ));
        system::restart_all()?;
        say(format_args!("Done."));
        return Ok(());
    };
    say(format_args!("These files were written:"));
    for path in written {
        say(format_args!("    {}", path.display()));
    }
    say(format_args!(
        "The services were not restarted, because {reason}."
    ));
    say(format_args!(
        "Restart those that are running for the configuration to take effect."
    ));
    Ok(())
}

fn failed(error: &StageError) -> Failure {
    let hint = if error.is_permission() && !is_root() {
        "; run this command as root"
    } else {
        ""
    };
    Failure::caused(
        format!("{error}{hint}; nothing was changed"),
        error.reason(),
    )
}
