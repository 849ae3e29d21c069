//! What operations with keys in memory allocate: nothing, except for encryption with a derived key.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]
#![allow(unsafe_code, reason = "a global allocator, and the C ABI")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::ptr;

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

/// How often the allocator is asked while this is done a hundred times. OpenSSL has an allocator of its own, which is
/// not counted.
fn count(mut operation: impl FnMut()) -> usize {
    // What is made when it is first needed does not count.
    operation();
    let before = allocations();
    for _ in 0..100 {
        operation();
    }
    allocations() - before
}

const SYM: &CStr = c"sym";
const PAIR: &CStr = c"pair";
const MESSAGE: [u8; 250] = [7; 250];

/// The library with a symmetric key and a key pair in memory.
fn keys() -> (&'static FunctionListExtended, tempfile::TempDir) {
    let home = tempfile::TempDir::new().unwrap();
    let mut list = ptr::null();
    let path = CString::new(home.path().to_str().unwrap()).unwrap();
    // SAFETY: the pointer may be written, the list is static and of the version asked for, and the rest are strings.
    let keys = unsafe {
        assert_eq!(
            aziot_keys_get_function_list(VERSION_EXTENDED, &raw mut list),
            Rc::OK
        );
        let keys = &*list.cast::<FunctionListExtended>();
        let public = &keys.public;
        let set = public.set_parameter.unwrap()(c"homedir_path".as_ptr(), path.as_ptr());
        let sym = public.create_key_if_not_exists.unwrap()(SYM.as_ptr(), 1);
        let create = public.create_key_pair_if_not_exists.unwrap();
        let pair = create(PAIR.as_ptr(), c"ec-p256".as_ptr());
        assert_eq!([set, sym, pair], [Rc::OK; 3]);
        // Until a change of the files would show.
        std::thread::sleep(std::time::Duration::from_millis(70));
        assert_eq!(public.load_key.unwrap()(SYM.as_ptr()), Rc::OK);
        assert_eq!(public.load_key_pair.unwrap()(PAIR.as_ptr()), Rc::OK);
        keys
    };
    (keys, home)
}

/// Everything at once, because the store is the process's.
#[test]
fn what_operations_in_memory_allocate() {
    let (keys, _home) = keys();
    let sign = |id: &CStr, mechanism, parameters: *const c_void| {
        let (mut out, mut len) = ([0; 72], 72);
        // SAFETY: a string, the mechanism's parameters, bytes with their length, and a buffer with its capacity.
        let rc = unsafe {
            keys.try_sign.unwrap()(
                id.as_ptr(),
                mechanism,
                parameters,
                MESSAGE.as_ptr(),
                MESSAGE.len(),
                out.as_mut_ptr(),
                &raw mut len,
            )
        };
        assert_eq!(rc, Rc::OK);
        out
    };
    let derived = SignDerivedParameters {
        derivation_data: MESSAGE.as_ptr(),
        derivation_data_len: 20,
        mechanism: SIGN_MECHANISM_HMAC_SHA256,
        parameters: ptr::null(),
    };
    let derived = (&raw const derived).cast();
    for (id, mechanism, parameters) in [
        (SYM, SIGN_MECHANISM_HMAC_SHA256, ptr::null()),
        (SYM, SIGN_MECHANISM_DERIVED, derived),
        (PAIR, SIGN_MECHANISM_ECDSA, ptr::null()),
    ] {
        let signing = || {
            sign(id, mechanism, parameters);
        };
        assert_eq!(count(signing), 0, "mechanism {mechanism}");
    }

    let tag = sign(SYM, SIGN_MECHANISM_HMAC_SHA256, ptr::null());
    let verify = || {
        let mut ok = 0;
        // SAFETY: a string, no parameters, bytes with their lengths, and an integer.
        let rc = unsafe {
            keys.try_verify.unwrap()(
                SYM.as_ptr(),
                SIGN_MECHANISM_HMAC_SHA256,
                ptr::null(),
                MESSAGE.as_ptr(),
                MESSAGE.len(),
                tag.as_ptr(),
                32,
                &raw mut ok,
            )
        };
        assert_eq!((rc, ok), (Rc::OK, 1));
    };
    assert_eq!(count(verify), 0);

    let parameter = || {
        for type_ in 1..=3 {
            let (mut out, mut len) = ([0; 64], 64);
            // SAFETY: a string, and a buffer with its capacity.
            let rc = unsafe {
                let tell = keys.try_get_key_pair_parameter.unwrap();
                tell(PAIR.as_ptr(), type_, out.as_mut_ptr(), &raw mut len)
            };
            assert_eq!(rc, Rc::OK);
        }
    };
    assert_eq!(count(parameter), 0);

    let aead = EncryptAeadParameters {
        iv: MESSAGE.as_ptr(),
        iv_len: 12,
        aad: MESSAGE.as_ptr(),
        aad_len: 9,
    };
    let sealed_by = EncryptDerivedParameters {
        derivation_data: MESSAGE.as_ptr(),
        derivation_data_len: 20,
        mechanism: ENCRYPT_MECHANISM_AEAD,
        parameters: (&raw const aead).cast(),
    };
    // A derived key is made for each call, and kept at one place on the heap until it is wiped.
    for (mechanism, parameters, expected) in [
        (
            ENCRYPT_MECHANISM_AEAD,
            (&raw const aead).cast::<c_void>(),
            0,
        ),
        (
            ENCRYPT_MECHANISM_DERIVED,
            (&raw const sealed_by).cast(),
            200,
        ),
    ] {
        let round_trip = || {
            let (mut sealed, mut len) = ([0; 300], 300);
            let (mut opened, mut opened_len) = ([0; 300], 300);
            // SAFETY: a string, the mechanism's parameters, bytes with their length, and buffers with their capacity.
            let rcs = unsafe {
                let encrypted = keys.try_encrypt.unwrap()(
                    SYM.as_ptr(),
                    mechanism,
                    parameters,
                    MESSAGE.as_ptr(),
                    MESSAGE.len(),
                    sealed.as_mut_ptr(),
                    &raw mut len,
                );
                let decrypted = keys.try_decrypt.unwrap()(
                    SYM.as_ptr(),
                    mechanism,
                    parameters,
                    sealed.as_ptr(),
                    len,
                    opened.as_mut_ptr(),
                    &raw mut opened_len,
                );
                [encrypted, decrypted]
            };
            assert_eq!(rcs, [Rc::OK; 2]);
            assert_eq!(opened.get(..opened_len), Some(MESSAGE.as_slice()));
        };
        assert_eq!(count(round_trip), expected, "mechanism {mechanism}");
    }
    assert_eq!(
        count(|| drop(std::hint::black_box(Box::new(1)))),
        100,
        "the count works"
    );
}
