//! A signature with a key in memory allocates nothing.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]
#![allow(unsafe_code, reason = "a global allocator, and the C ABI")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;

use aziot_keys::abi::*;
use aziot_keys::aziot_keys_get_function_list;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn try_sign_and_try_verify_allocate_nothing() {
    let home = tempfile::TempDir::new().unwrap();
    let c = |text: &str| CString::new(text).unwrap();
    let mut list = std::ptr::null();
    // SAFETY: the pointer may be written, and the list is static and of the version asked for.
    let keys = unsafe {
        assert_eq!(
            aziot_keys_get_function_list(VERSION_EXTENDED, &raw mut list),
            Rc::OK
        );
        &*list.cast::<FunctionListExtended>()
    };
    let (name, value, id) = (
        c("homedir_path"),
        c(home.path().to_str().unwrap()),
        c("key"),
    );
    let message = [7; 250];
    let derived = SignDerivedParameters {
        derivation_data: message.as_ptr(),
        derivation_data_len: 20,
        mechanism: SIGN_MECHANISM_HMAC_SHA256,
        parameters: std::ptr::null(),
    };
    let sign = |mechanism| {
        let (mut out, mut len) = ([0; 32], 32);
        let parameters = (&raw const derived).cast();
        // SAFETY: a string, the mechanism's parameters, bytes with their length, and a buffer with its capacity.
        let rc = unsafe {
            keys.try_sign.unwrap()(
                id.as_ptr(),
                mechanism,
                parameters,
                message.as_ptr(),
                message.len(),
                out.as_mut_ptr(),
                &raw mut len,
            )
        };
        (rc, out)
    };
    // SAFETY: strings.
    unsafe {
        assert_eq!(
            keys.public.set_parameter.unwrap()(name.as_ptr(), value.as_ptr()),
            Rc::OK
        );
        assert_eq!(
            keys.public.create_key_if_not_exists.unwrap()(id.as_ptr(), 1),
            Rc::OK
        );
        std::thread::sleep(std::time::Duration::from_millis(70));
        assert_eq!(keys.public.load_key.unwrap()(id.as_ptr()), Rc::OK);
    }
    let before = allocations();
    for _ in 0..100 {
        let (rc, signature) = sign(SIGN_MECHANISM_HMAC_SHA256);
        assert_eq!(rc, Rc::OK);
        let mut ok = 0;
        // SAFETY: a string, no parameters, bytes with their lengths, and an integer.
        let rc = unsafe {
            keys.try_verify.unwrap()(
                id.as_ptr(),
                SIGN_MECHANISM_HMAC_SHA256,
                std::ptr::null(),
                message.as_ptr(),
                message.len(),
                signature.as_ptr(),
                signature.len(),
                &raw mut ok,
            )
        };
        assert_eq!((rc, ok), (Rc::OK, 1));
        assert_eq!(sign(SIGN_MECHANISM_DERIVED).0, Rc::OK);
    }
    assert_eq!(allocations(), before);
    drop(Box::new(1));
    assert_eq!(allocations(), before + 1, "the count works");
}
