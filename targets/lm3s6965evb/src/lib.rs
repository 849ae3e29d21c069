//! The protocol core on a Cortex-M3: a small Keys Service without operating system, and what its
//! tests need: where log lines go, what a panic does, how deep a stack grew.

#![no_std]

// Linked for their side effects: vector table and reset code, the critical section, the log.
use cortex_m as _;
use cortex_m_rt as _;
use defmt_semihosting as _;

pub mod keys;
pub mod stack;

/// Logs the panic and ends the emulation with exit status 1, which `cargo test` reports.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    defmt::error!("{}", defmt::Display2Format(info));
    semihosting::process::exit(1);
}

/// The same for a failed `defmt` assertion: its message was logged already.
#[defmt::panic_handler]
fn failed() -> ! {
    semihosting::process::exit(1);
}
