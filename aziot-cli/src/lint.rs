//! `config lint`: checks the super-config and what it would lead to.

use std::error::Error as _;
use std::io;

use aziot_core::super_config::DEVICE_ID;
use aziot_daemon::config_files::{ConfigFiles, Reason};
use aziot_daemon::paths::{Root, Service};

use crate::apply::{self, check};
use crate::args::ConfigOptions;
use crate::failure::Failure;
use crate::output::{complain, say};
use crate::root;
use crate::users::ServiceUsers;

/// Runs the command.
pub fn run(options: &ConfigOptions) -> Result<(), Failure> {
    let root = root::from_env()?;
    let (config, mut warnings) = apply::read_super_config(options, &root)?;
    let users = ServiceUsers::query(&root)?;
    let output = apply::translate(&config, &users, &root);
    warnings.extend(check::beyond_this_build(&output));
    if let Some(service) = hidden(&root) {
        complain(format_args!(
            "Note: the present configuration of {} cannot be read by this user, so it was not checked together with the new one",
            service.name()
        ));
    } else {
        warnings.extend(check::merged(&check::documents(&output, &root), &root)?);
    }
    warnings.extend(check::referenced_files(
        &output,
        &users,
        &root.key_secrets().join(DEVICE_ID),
    ));
    apply::report(&warnings, options.strict)?;
    say(format_args!("The configuration is valid."));
    Ok(())
}

/// A service whose configuration this user must not read.
fn hidden(root: &Root) -> Option<Service> {
    Service::ALL.into_iter().find(|service| {
        let files = ConfigFiles { file: root.config_file(*service), directory: root.config_directory(*service) };
        match files.read() {
            Err(error) => {
                debug_assert!(error.source().is_some());
                matches!(&error.reason, Reason::Io(cause) if cause.kind() == io::ErrorKind::PermissionDenied)
            }
            Ok(_) => false,
        }
    })
}
