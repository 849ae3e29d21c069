//! What the library tells about keys and tokens.

use std::ffi::{CStr, c_char, c_void};

use aziot_core::api::keys::status::{KeyKind, KeyLocation, TokenState};
use aziot_core::limits;
use aziot_crypto::keys_abi as abi;

use super::Library;
use super::output::{CallError, Called, check};

/// Keys and tokens, as many as may be shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The keys, in the order of their ids; those without at the end.
    pub keys: Vec<Key>,
    /// The tokens, in the order of the library.
    pub tokens: Vec<Token>,
    /// How many were left out.
    pub more: u32,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id, if it is known.
    pub id: Option<String>,
    /// What it is.
    pub kind: KeyKind,
    /// Where it is.
    pub location: KeyLocation,
    /// The path, or the URI without its PIN.
    pub place: Option<String>,
    /// Whether the configuration gives it a location of its own.
    pub preloaded: bool,
    /// What there is to say about it.
    pub remark: Option<String>,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its URI without the PIN.
    pub uri: String,
    /// How it stands.
    pub state: TokenState,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Why it fails, if it does.
    pub failure: Option<String>,
    /// When it is tried again at the earliest, in seconds since 1970; 0 for at once.
    pub next_attempt: u64,
    /// Open sessions.
    pub sessions: u32,
}

impl Library {
    /// Asks about keys and tokens; those keys are reported of which `shown` says so. Blocks.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if the library is not ours, and what it answers.
    pub fn report(&self, shown: &dyn Fn(Option<&str>) -> bool) -> Called<Report> {
        let extended = self
            .functions
            .extended
            .as_ref()
            .ok_or(CallError::Unsupported)?;
        let mut visitor = Visitor {
            report: Report::default(),
            text: 0,
            shown,
        };
        // SAFETY: the visitor lives until the call returns, and both functions take it for what it is.
        check(unsafe { (extended.report)(see_key, see_token, (&raw mut visitor).cast()) })?;
        let mut report = visitor.report;
        report.keys.sort_by(|a, b| {
            let place = |key: &Key| (key.id.is_none(), key.id.clone(), key.place.clone());
            place(a).cmp(&place(b))
        });
        Ok(report)
    }
}

struct Visitor<'v> {
    report: Report,
    /// Bytes of all texts.
    text: usize,
    shown: &'v dyn Fn(Option<&str>) -> bool,
}

impl Visitor<'_> {
    /// Whether there is room for one more after `count`, with these texts. Otherwise it is counted as left out.
    fn admits(&mut self, count: usize, texts: &[Option<&str>]) -> bool {
        let length: usize = texts.iter().flatten().map(|text| text.len()).sum();
        let admitted = count < limits::STATUS_ENTRIES
            && self.text.saturating_add(length) <= limits::STATUS_TEXT;
        if admitted {
            self.text += length;
        } else {
            self.report.more = self.report.more.saturating_add(1);
        }
        admitted
    }

    fn key(&mut self, key: &abi::KeyReport, [id, place, remark]: [Option<&str>; 3]) {
        if !(self.shown)(id) || !self.admits(self.report.keys.len(), &[id, place, remark]) {
            return;
        }
        self.report.keys.push(Key {
            id: id.map(str::to_owned),
            kind: match key.kind {
                abi::KEY_KIND_SYMMETRIC => KeyKind::Symmetric,
                abi::KEY_KIND_PAIR => KeyKind::KeyPair,
                _ => KeyKind::Unknown,
            },
            location: match key.location {
                abi::KEY_LOCATION_FILE => KeyLocation::File,
                abi::KEY_LOCATION_PKCS11 => KeyLocation::Pkcs11,
                _ => KeyLocation::None,
            },
            place: place.map(str::to_owned),
            preloaded: key.preloaded != 0,
            remark: remark.map(str::to_owned),
        });
    }

    fn token(&mut self, token: &abi::TokenReport, uri: &str, failure: Option<&str>) {
        if !self.admits(self.report.tokens.len(), &[Some(uri), failure]) {
            return;
        }
        self.report.tokens.push(Token {
            uri: uri.to_owned(),
            state: match token.state {
                abi::TOKEN_STATE_WORKING => TokenState::Working,
                abi::TOKEN_STATE_FAILING => TokenState::Failing,
                _ => TokenState::Unused,
            },
            since: token.since,
            failure: failure.map(str::to_owned),
            next_attempt: token.next_attempt,
            sessions: token.sessions,
        });
    }
}

unsafe extern "C" fn see_key(context: *mut c_void, key: *const abi::KeyReport) {
    // SAFETY: the context is the visitor of `report`, of which there is one reference at a time; the library promises that
    // what it shows lives until this returns.
    unsafe {
        let visitor = &mut *context.cast::<Visitor<'_>>();
        if let Some(key) = key.as_ref() {
            visitor.key(key, [text(key.id), text(key.place), text(key.remark)]);
        }
    }
}

unsafe extern "C" fn see_token(context: *mut c_void, token: *const abi::TokenReport) {
    // SAFETY: as above.
    unsafe {
        let visitor = &mut *context.cast::<Visitor<'_>>();
        if let Some(token) = token.as_ref() {
            visitor.token(
                token,
                text(token.uri).unwrap_or_default(),
                text(token.failure),
            );
        }
    }
}

/// A string of a report; none if it is null or not UTF-8, which our library promises it is.
///
/// # Safety
/// It is null, or NUL-terminated and alive for `'t`.
unsafe fn text<'t>(text: *const c_char) -> Option<&'t str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr;

    use super::*;

    fn visitor(shown: &dyn Fn(Option<&str>) -> bool) -> Visitor<'_> {
        Visitor {
            report: Report::default(),
            text: 0,
            shown,
        }
    }

    fn show_key(visitor: &mut Visitor<'_>, id: Option<&str>, remark: &str) {
        let id = id.map(|id| CString::new(id).unwrap());
        let remark = CString::new(remark).unwrap();
        let key = abi::KeyReport {
            id: id.as_ref().map_or(ptr::null(), |id| id.as_ptr()),
            kind: abi::KEY_KIND_PAIR,
            location: abi::KEY_LOCATION_FILE,
            place: c"/k".as_ptr(),
            preloaded: 1,
            remark: remark.as_ptr(),
        };
        // SAFETY: both live until the call returns.
        unsafe { see_key(ptr::from_mut(visitor).cast(), &raw const key) };
    }

    #[test]
    fn keys_are_shown_to_those_who_may_use_them() {
        let shown = |id: Option<&str>| id.is_some_and(|id| id.starts_with('a'));
        let mut visitor = visitor(&shown);
        for id in [Some("a1"), Some("b1"), None, Some("a0")] {
            show_key(&mut visitor, id, "r");
        }
        let ids: Vec<_> = visitor
            .report
            .keys
            .iter()
            .map(|key| key.id.as_deref())
            .collect();
        assert_eq!(ids, [Some("a1"), Some("a0")]);
        assert_eq!(
            visitor.report.more, 0,
            "what is hidden is not counted either"
        );
        assert_eq!(
            visitor.report.keys[0],
            Key {
                id: Some("a1".to_owned()),
                kind: KeyKind::KeyPair,
                location: KeyLocation::File,
                place: Some("/k".to_owned()),
                preloaded: true,
                remark: Some("r".to_owned()),
            }
        );
    }

    #[test]
    fn reports_are_bounded() {
        let all = |_: Option<&str>| true;
        let mut many = visitor(&all);
        for n in 0..limits::STATUS_ENTRIES + 3 {
            show_key(&mut many, Some(&n.to_string()), "");
        }
        assert_eq!(many.report.keys.len(), limits::STATUS_ENTRIES);
        assert_eq!(many.report.more, 3);

        let mut long = visitor(&all);
        let remark = "x".repeat(limits::STATUS_TEXT / 2);
        for _ in 0..3 {
            show_key(&mut long, Some("k"), &remark);
        }
        assert_eq!((long.report.keys.len(), long.report.more), (1, 2));
        // Something shorter still fits.
        show_key(&mut long, Some("k"), "");
        assert_eq!((long.report.keys.len(), long.report.more), (2, 2));
    }

    #[test]
    fn tokens_are_taken_as_they_are() {
        let all = |_: Option<&str>| true;
        let mut visitor = visitor(&all);
        let mut token = abi::TokenReport {
            uri: c"pkcs11:token=t".as_ptr(),
            state: abi::TOKEN_STATE_FAILING,
            since: 7,
            failure: c"C_Login".as_ptr(),
            next_attempt: 9,
            sessions: 2,
        };
        // SAFETY: both live until the call returns.
        unsafe {
            see_token((&raw mut visitor).cast(), &raw const token);
            token.state = 99;
            token.failure = ptr::null();
            see_token((&raw mut visitor).cast(), &raw const token);
            see_token((&raw mut visitor).cast(), ptr::null());
        }
        let failing = Token {
            uri: "pkcs11:token=t".to_owned(),
            state: TokenState::Failing,
            since: 7,
            failure: Some("C_Login".to_owned()),
            next_attempt: 9,
            sessions: 2,
        };
        let unknown = Token {
            state: TokenState::Unused,
            failure: None,
            ..failing.clone()
        };
        assert_eq!(visitor.report.tokens, [failing, unknown]);
    }
}
