//! What only the private list has, besides the `try_` variants.

use core::ffi::{c_char, c_uint, c_void};
use core::ptr;
use std::ffi::CString;
use std::time::{SystemTime, UNIX_EPOCH};

use aziot_crypto::pkcs11::Condition;
use aziot_crypto::store::{self, Item, Kind, Location};

use super::STORE;
use crate::abi::{
    KEY_KIND_PAIR, KEY_KIND_SYMMETRIC, KEY_KIND_UNKNOWN, KEY_LOCATION_FILE, KEY_LOCATION_NONE,
    KEY_LOCATION_PKCS11, KeyReport, Rc, TOKEN_STATE_FAILING, TOKEN_STATE_UNUSED,
    TOKEN_STATE_WORKING, TokenReport, VisitKey, VisitToken,
};
use crate::arguments::{Answer, text};
use crate::failure::{Failure, answer};

pub(crate) unsafe extern "C" fn key_location(id: *const c_char, location: *mut c_uint) -> Rc {
    let tell = || {
        // SAFETY: the ABI's promises about strings and pointers.
        let (id, location) = unsafe { (text("id", id)?, Answer::new("location", location)?) };
        location.put(location_number(STORE.location(id)));
        Ok(())
    };
    answer(tell())
}

pub(crate) unsafe extern "C" fn sweep() -> Rc {
    answer(
        STORE
            .sweep()
            .map(drop)
            .map_err(Failure::about("homedir_path")),
    )
}

pub(crate) unsafe extern "C" fn report(
    key: VisitKey,
    token: VisitToken,
    context: *mut c_void,
) -> Rc {
    STORE.report(&mut |item| match item {
        Item::Key(report) => tell_key(report, key, context),
        Item::Token(report) => tell_token(report, token, context),
    });
    Rc::OK
}

pub(crate) unsafe extern "C" fn begin_moment() {
    STORE.begin_moment();
}

fn tell_key(report: &store::KeyReport, visit: VisitKey, context: *mut c_void) {
    let id = report.id.as_deref().map(c_text);
    let place = report.place.as_deref().map(c_text);
    let remark = report.remark.as_deref().map(c_text);
    let shown = KeyReport {
        id: pointer(id.as_ref()),
        kind: match report.kind {
            None => KEY_KIND_UNKNOWN,
            Some(Kind::Symmetric) => KEY_KIND_SYMMETRIC,
            Some(Kind::Pair) => KEY_KIND_PAIR,
        },
        location: location_number(report.location),
        place: pointer(place.as_ref()),
        preloaded: c_uint::from(report.preloaded),
        remark: pointer(remark.as_ref()),
    };
    // SAFETY: the caller's function gets the caller's context, and strings that live until it returns.
    unsafe { visit(context, &raw const shown) };
}

fn tell_token(report: &store::TokenReport, visit: VisitToken, context: *mut c_void) {
    let uri = c_text(&report.uri);
    let state = &report.state;
    let (number, failure) = match &state.condition {
        Condition::Unused => (TOKEN_STATE_UNUSED, None),
        Condition::Working => (TOKEN_STATE_WORKING, None),
        Condition::Failing(reason) => (TOKEN_STATE_FAILING, Some(c_text(reason))),
    };
    let shown = TokenReport {
        uri: uri.as_ptr(),
        state: number,
        since: seconds(state.since),
        failure: pointer(failure.as_ref()),
        next_attempt: state.next_attempt.map_or(0, seconds),
        sessions: c_uint::try_from(state.sessions).unwrap_or(c_uint::MAX),
    };
    // SAFETY: as above.
    unsafe { visit(context, &raw const shown) };
}

fn location_number(location: Option<Location>) -> c_uint {
    match location {
        Some(Location::File) => KEY_LOCATION_FILE,
        Some(Location::Pkcs11) => KEY_LOCATION_PKCS11,
        _ => KEY_LOCATION_NONE,
    }
}

/// A text for a C caller. Should it have a NUL, which no id, path or URI can, the text ends there.
fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// Seconds since 1970; 0 for a clock that stands before.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
