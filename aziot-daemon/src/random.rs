//! Random numbers that are no secrets: for jitter.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

/// A fresh random number, uniform over its range. Never blocks.
#[must_use]
pub fn random() -> u32 {
    let mut bytes = [0; 4];
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(_) => u32::from_ne_bytes(bytes),
        // The clock will do where there is no randomness yet.
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.subsec_nanos().wrapping_mul(0x9e37_79b1)),
    }
}
