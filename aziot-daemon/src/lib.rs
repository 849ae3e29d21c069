//! The daemon: an event loop, and the services that plug into it.
//!
//! `aziotd` is one program for four services; [`process::run`] picks the one that the program name asks for.

pub mod certd;
pub mod client;
pub mod clock;
pub mod config_files;
pub mod configuration;
pub mod identityd;
pub mod keyd;
pub mod lanes;
pub mod listener;
pub mod locks;
pub mod logging;
pub mod outcome;
pub mod paths;
pub mod process;
pub mod random;
pub mod server;
pub mod service;
pub mod sys;
pub mod timing;
pub mod wipe;
