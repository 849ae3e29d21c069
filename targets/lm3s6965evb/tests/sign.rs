//! A Keys Service request on the board.

#![no_std]
#![no_main]

use aziot_firmware_lm3s6965evb as _;

#[defmt_test::tests]
mod tests {
    use core::hint::black_box;

    use aziot_firmware_lm3s6965evb::stack;

    /// The measuring itself: a known frame is found, and a deeper one measures deeper.
    #[test]
    fn stack_depth_follows_the_frame() {
        #[inline(never)]
        fn frame<const N: usize>() -> u8 {
            let bytes = black_box([1u8; N]);
            bytes[N / 2]
        }
        let (_, small) = stack::measure(frame::<1024>);
        let (_, large) = stack::measure(frame::<5120>);
        defmt::info!("a frame of 1024 bytes measures {}, one of 5120 bytes {}", small, large);
        defmt::assert!((1024..1024 + 512).contains(&small));
        defmt::assert!(large - small >= 4096);
        defmt::assert!(large - small < 4096 + 512 + 1024);
    }
}
