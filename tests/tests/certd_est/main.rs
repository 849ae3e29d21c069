//! Certificates from an EST server: the real Keys and Certificates Services, and the simulated EST server.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod answers;
mod crash;
mod device;
mod identity;
mod proxy;
mod renewal;
mod requests;
mod schedule;
