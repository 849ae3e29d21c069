//! What calls have in common: return codes, output buffers, key ids as C strings.

use std::ffi::{CString, c_char};
use std::fmt;
use std::ptr;

use aziot_core::limits;
use aziot_crypto::keys_abi::Rc;

use super::Place;

/// A call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It may not be made here; nothing was done. It may be made there.
    WouldBlock(Place),
    /// The library's answer, other than 0.
    Rc(Rc),
    /// The library does not have this function (2.0.0.0).
    Unsupported,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock(_) => f.write_str("the key is not in memory"),
            Self::Rc(rc) => rc.fmt(f),
            Self::Unsupported => f.write_str("the key library does not have this function"),
        }
    }
}

/// What a call yields.
pub type Called<T> = Result<T, CallError>;

/// A return code as a result.
pub fn check(rc: Rc) -> Called<()> {
    match rc {
        Rc::OK => Ok(()),
        rc => Err(CallError::Rc(rc)),
    }
}

/// One call with room for `expected` bytes, for our own library. Should it want more, it says how much, and is called again.
pub fn once(
    out: &mut Vec<u8>,
    expected: usize,
    call: impl Fn(*mut u8, *mut usize) -> Rc,
) -> Called<()> {
    let mut room = expected;
    loop {
        make_room(out, room)?;
        let mut length = room;
        let rc = call(out.as_mut_ptr(), &raw mut length);
        if rc == Rc::INVALID_PARAMETER && length > room && room == expected {
            room = length;
            continue;
        }
        check(rc)?;
        return shorten(out, length);
    }
}

/// The two-call protocol: a null buffer to learn the size, then a buffer of that size; the result may be shorter.
pub fn twice(out: &mut Vec<u8>, call: impl Fn(*mut u8, *mut usize) -> Rc) -> Called<()> {
    let mut length = 0;
    check(call(ptr::null_mut(), &raw mut length))?;
    make_room(out, length)?;
    check(call(out.as_mut_ptr(), &raw mut length))?;
    shorten(out, length)
}

/// More than any output of an operation: twice the largest request body.
const LONGEST: usize = 2 * limits::BODY_KEYS;

/// Empties the buffer and gives it this length. A library that does not know what it asks for must not cost the memory of
/// the whole device.
fn make_room(out: &mut Vec<u8>, length: usize) -> Called<()> {
    out.clear();
    if length > LONGEST {
        log::error!(
            "the key library asks for a buffer of {length} bytes; no output has more than {LONGEST}"
        );
        return Err(CallError::Rc(Rc::EXTERNAL));
    }
    out.resize(length, 0);
    Ok(())
}

fn shorten(out: &mut Vec<u8>, length: usize) -> Called<()> {
    if length > out.len() {
        // The library says that it wrote behind the end of the buffer: memory is damaged, nothing can be trusted any more.
        log::error!(
            "the key library wrote {length} bytes to a buffer of {}; stopping",
            out.len()
        );
        std::process::abort();
    }
    out.truncate(length);
    Ok(())
}

/// A NUL-terminated key id, on the stack for all usual lengths.
pub enum Id {
    Short([u8; Self::SHORT]),
    Long(CString),
}

impl Id {
    const SHORT: usize = 128;

    /// Ids have been checked for NUL before; one that contains it all the same is no valid parameter.
    pub fn new(id: &str) -> Called<Self> {
        let bytes = id.as_bytes();
        if bytes.contains(&0) {
            return Err(CallError::Rc(Rc::INVALID_PARAMETER));
        }
        let mut buffer = [0; Self::SHORT];
        if let Some(room) = buffer.get_mut(..bytes.len())
            && bytes.len() < Self::SHORT
        {
            room.copy_from_slice(bytes);
            return Ok(Self::Short(buffer));
        }
        CString::new(bytes)
            .map(Self::Long)
            .map_err(|_| CallError::Rc(Rc::INVALID_PARAMETER))
    }

    /// The text, which lives as long as this does.
    pub fn as_ptr(&self) -> *const c_char {
        match self {
            Self::Short(buffer) => buffer.as_ptr().cast(),
            Self::Long(text) => text.as_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::ffi::CStr;

    use super::*;

    /// A function of a library that answers `output`, asks for `bound` bytes of room, and notes the room it was given.
    fn answers(
        output: &'static [u8],
        bound: usize,
        rooms: &RefCell<Vec<Option<usize>>>,
    ) -> impl Fn(*mut u8, *mut usize) -> Rc {
        move |buffer, length| {
            // SAFETY: the callers under test pass a live length, and null or a buffer of that length.
            unsafe {
                rooms
                    .borrow_mut()
                    .push((!buffer.is_null()).then_some(*length));
                if buffer.is_null() {
                    *length = bound;
                    return Rc::OK;
                }
                if *length < bound {
                    *length = bound;
                    return Rc::INVALID_PARAMETER;
                }
                ptr::copy_nonoverlapping(output.as_ptr(), buffer, output.len());
                *length = output.len();
            }
            Rc::OK
        }
    }

    #[test]
    fn ks_29_two_calls_and_a_shorter_result() {
        let rooms = RefCell::default();
        let mut out = b"before".to_vec();
        twice(&mut out, answers(b"abc", 8, &rooms)).unwrap();
        assert_eq!(out, b"abc");
        assert_eq!(rooms.take(), [None, Some(8)]);
    }

    #[test]
    fn one_call_is_enough_where_the_room_is() {
        let rooms = RefCell::default();
        let mut out = b"before".to_vec();
        once(&mut out, 8, answers(b"abc", 8, &rooms)).unwrap();
        assert_eq!(out, b"abc");
        assert_eq!(rooms.take(), [Some(8)]);
        // A longer answer than expected is asked for again with the room that it needs, but not for ever.
        once(&mut out, 2, answers(b"abcdefgh", 9, &rooms)).unwrap();
        assert_eq!(out, b"abcdefgh");
        assert_eq!(rooms.take(), [Some(2), Some(9)]);
        let insatiable = |_: *mut u8, length: *mut usize| {
            // SAFETY: as above.
            unsafe { *length += 1 };
            Rc::INVALID_PARAMETER
        };
        assert_eq!(
            once(&mut out, 2, insatiable),
            Err(CallError::Rc(Rc::INVALID_PARAMETER))
        );
    }

    #[test]
    fn a_library_that_asks_for_too_much_gets_nothing() {
        let rooms = RefCell::default();
        for bound in [LONGEST + 1, usize::MAX / 2 + 2, usize::MAX] {
            let refused = Err(CallError::Rc(Rc::EXTERNAL));
            let mut out = b"before".to_vec();
            assert_eq!(twice(&mut out, answers(b"", bound, &rooms)), refused);
            assert_eq!(once(&mut out, 4, answers(b"", bound, &rooms)), refused);
        }
        assert_eq!(rooms.take(), [None, Some(4)].repeat(3));
        twice(&mut Vec::new(), answers(b"a", LONGEST, &rooms)).unwrap();
    }

    #[test]
    fn failures_are_what_the_library_says() {
        for rc in [1, 2, 3, 171] {
            let fails = |_: *mut u8, _: *mut usize| Rc(rc);
            assert_eq!(twice(&mut Vec::new(), fails), Err(CallError::Rc(Rc(rc))));
            assert_eq!(once(&mut Vec::new(), 4, fails), Err(CallError::Rc(Rc(rc))));
        }
    }

    #[test]
    fn ids_of_any_length() {
        for length in [0, 1, 127, 128, 129, 5000] {
            let text = "x".repeat(length);
            let id = Id::new(&text).unwrap();
            // SAFETY: it is NUL-terminated and alive.
            let read = unsafe { CStr::from_ptr(id.as_ptr()) };
            assert_eq!(read.to_bytes(), text.as_bytes());
        }
        assert_eq!(
            Id::new("a\0b").err(),
            Some(CallError::Rc(Rc::INVALID_PARAMETER))
        );
    }
}
