//! Certificates from an EST server: the real Keys and Certificates Services, and the simulated EST server.

mod answers;
mod crash;
mod device;
mod identity;
mod proxy;
mod renewal;
mod requests;
mod schedule;
