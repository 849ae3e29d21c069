//! How deep the stack grows during a call, found by painting what is below it.

use core::hint::black_box;
use core::ptr;

/// What unused stack holds. No address, no small number, no ASCII.
const PAINT: u32 = 0xA5C3_965A;

/// Words right below the stack pointer that are left alone: the frames of the painting itself.
const MARGIN_WORDS: usize = 64;

unsafe extern "C" {
    /// The first address after the statics, from the linker script of `cortex-m-rt`. The stack
    /// grows down towards it, and nothing else lies between.
    static mut __sheap: u32;
}

/// Runs `call` and returns its result with the depth that the stack reached, in bytes below the
/// stack pointer of this function's caller-side frame.
///
/// The painted region starts [`MARGIN_WORDS`] below the stack pointer, so a call that stays
/// within the margin measures as the margin. Interrupts must be off or use no stack.
#[inline(never)]
pub fn measure<R>(call: impl FnOnce() -> R) -> (R, usize) {
    let top = cortex_m::register::msp::read() as *mut u32;
    let bottom = &raw mut __sheap;
    // SAFETY: from `bottom` to `top` there is only free stack; `paint` keeps clear of the frames
    // that are in use between its own stack pointer and `top`.
    unsafe { paint(bottom, top) };
    let result = black_box(call)();
    // SAFETY: as above; the region is RAM and only read now.
    let lowest = unsafe { first_used(bottom, top) };
    (result, top.addr() - lowest.addr())
}

/// Fills the free stack between `bottom` and `MARGIN_WORDS` below `top`.
///
/// # Safety
///
/// `bottom..top` is RAM that only the stack uses, and `top` is at or above the stack pointer.
#[inline(never)]
unsafe fn paint(bottom: *mut u32, top: *mut u32) {
    let mut word = bottom;
    let end = top.wrapping_sub(MARGIN_WORDS);
    // This function's own frame must be above what it paints.
    assert!((cortex_m::register::msp::read() as usize) > end.addr());
    while word < end {
        // SAFETY: within `bottom..end`, which no frame in use reaches (asserted above).
        unsafe { ptr::write_volatile(word, PAINT) };
        word = word.wrapping_add(1);
    }
}

/// The lowest word that no longer holds the paint.
///
/// # Safety
///
/// `bottom..top` is readable RAM.
#[inline(never)]
unsafe fn first_used(bottom: *mut u32, top: *mut u32) -> *mut u32 {
    let mut word = bottom;
    // SAFETY: stays below `top`.
    while word < top && unsafe { ptr::read_volatile(word) } == PAINT {
        word = word.wrapping_add(1);
    }
    word
}
