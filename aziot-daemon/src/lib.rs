//! The daemon: an event loop, and the services that plug into it.

pub mod config_files;
pub mod paths;
