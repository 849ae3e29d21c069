//! `config mp`: a super-config for manual provisioning with a connection string.

use std::path::Path;

use aziot_core::super_config::{ConnectionString, manual_document};
use aziot_crypto::file;

use crate::args::ManualOptions;
use crate::failure::Failure;
use crate::output::say;
use crate::root;

/// Runs the command.
pub fn run(options: &ManualOptions, program: &str) -> Result<(), Failure> {
    let root = root::from_env()?;
    let path = options.file.clone().unwrap_or_else(|| root.super_config());
    if !options.force && path.symlink_metadata().is_ok() {
        return Err(Failure::new(already_configured(&path, program)));
    }
    let text = options.connection_string.read().map_err(|error| {
        Failure::caused(
            "could not read the connection string from standard input",
            &error,
        )
    })?;
    text.parse::<ConnectionString>()
        .map_err(|error| Failure::new(format!("invalid connection string: {error}")))?;
    file::replace(
        &path,
        manual_document(&text).as_bytes(),
        file::Options::new(0o600),
    )
    .map_err(|error| Failure::new(error.to_string()))?;

    say(format_args!(
        "Azure IoT Identity Service has been configured successfully!"
    ));
    say(format_args!(
        "The configuration has been written to {}",
        path.display()
    ));
    say(format_args!(
        "To apply the new configuration to services, run:"
    ));
    say(format_args!(""));
    say(format_args!(
        "    sudo {program} config apply -c '{}'",
        path.display()
    ));
    Ok(())
}

fn already_configured(path: &Path, program: &str) -> String {
    format!(
        "File {} already exists. Azure IoT Identity Service has already been configured.\n\n\
         To have the configuration take effect, run:\n\n    sudo {program} config apply\n\n\
         To replace the existing configuration, run:\n\n    sudo {program} config mp --force",
        path.display()
    )
}
