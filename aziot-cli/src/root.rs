//! The root that the environment names.

use aziot_daemon::paths::Root;

use crate::failure::Failure;

/// The directory that stands for `/`, from `AZIOT_ROOT`.
pub fn from_env() -> Result<Root, Failure> {
    Root::from_env().map_err(|error| Failure::new(error.to_string()))
}
