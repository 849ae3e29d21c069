//! Prints what a signature with a key in memory costs: `cargo run --release -p libaziot_keys --example rate`.
//!
//! One round is what the Keys Service does for `POST /sign` of an HMAC: verify a handle (250 bytes), sign a message
//! (60 bytes), each after one `stat`.
#![allow(unsafe_code, reason = "the library is called through its C ABI")]

use std::ffi::CString;
use std::time::{Duration, Instant};

use aziot_keys::abi::{FunctionListExtended, Rc, SIGN_MECHANISM_HMAC_SHA256, VERSION_EXTENDED};
use aziot_keys::aziot_keys_get_function_list;

const ROUNDS: u32 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = std::env::temp_dir().join(format!("aziot-keys-rate-{}", std::process::id()));
    let outcome = measure(&home);
    let _ = std::fs::remove_dir_all(&home);
    let (round, stat) = outcome?;
    println!("try_verify and try_sign: {round} ns; of that, two calls of stat: {stat} ns");
    Ok(())
}

fn measure(home: &std::path::Path) -> Result<(u128, u128), Box<dyn std::error::Error>> {
    let mut list = std::ptr::null();
    // SAFETY: the pointer may be written, and a list that was answered is static and of the version asked for.
    let keys = unsafe {
        check(aziot_keys_get_function_list(
            VERSION_EXTENDED,
            &raw mut list,
        ))?;
        &*list.cast::<FunctionListExtended>()
    };
    let (Some(set), Some(create), Some(load), Some(sign), Some(verify)) = (
        keys.public.set_parameter,
        keys.public.create_key_if_not_exists,
        keys.public.load_key,
        keys.try_sign,
        keys.try_verify,
    ) else {
        return Err("the library lacks a function".into());
    };
    let (name, value) = (
        CString::new("homedir_path")?,
        CString::new(home.to_string_lossy().as_bytes())?,
    );
    let ids = [
        CString::new("handle-validation-key")?,
        CString::new("device-id")?,
    ];
    // SAFETY: strings.
    unsafe {
        check(set(name.as_ptr(), value.as_ptr()))?;
        ids.iter()
            .try_for_each(|id| check(create(id.as_ptr(), 1)))?;
        std::thread::sleep(Duration::from_millis(100));
        ids.iter().try_for_each(|id| check(load(id.as_ptr())))?;
    }
    let (handle, message) = ([1; 250], [2; 60]);
    let mut tag = [0; 32];
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let (mut ok, mut len) = (0, tag.len());
        // SAFETY: strings, no parameters, bytes with their lengths, a buffer with its capacity, an integer.
        unsafe {
            check(verify(
                ids[0].as_ptr(),
                SIGN_MECHANISM_HMAC_SHA256,
                std::ptr::null(),
                handle.as_ptr(),
                handle.len(),
                tag.as_ptr(),
                tag.len(),
                &raw mut ok,
            ))?;
            check(sign(
                ids[1].as_ptr(),
                SIGN_MECHANISM_HMAC_SHA256,
                std::ptr::null(),
                message.as_ptr(),
                message.len(),
                tag.as_mut_ptr(),
                &raw mut len,
            ))?;
        }
    }
    let round = start.elapsed().as_nanos() / u128::from(ROUNDS);
    let path = std::fs::read_dir(home.join("keys"))?
        .next()
        .ok_or("no key file")??
        .path();
    let start = Instant::now();
    for _ in 0..2 * ROUNDS {
        std::fs::metadata(&path)?;
    }
    Ok((round, start.elapsed().as_nanos() / u128::from(ROUNDS)))
}

fn check(rc: Rc) -> Result<(), String> {
    if rc == Rc::OK {
        Ok(())
    } else {
        Err(rc.to_string())
    }
}
