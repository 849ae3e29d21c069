//! The real Identity Service with the real Keys Service against the simulated cloud.

mod api;
mod callers;
mod device;
mod modules;
mod offline;
mod provisioning;
mod wire;
