//! What the provider can do for TLS.
//!
//! libssl offers a group for key exchange only if the provider that says it has it is also the one that manages its keys. If
//! that is us, because the application has put us first, the groups over elliptic curves have to come from us too. They are
//! those of the other providers, which also do the work: keys that TLS generates are no concern of the Keys Service.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::key::Type;
use crate::params::Given;
use crate::provider::{NAME, Provider};
use crate::sys::{self, OSSL_CALLBACK, OSSL_PARAM, OSSL_PROVIDER};

/// The groups for key exchange in TLS (provider-base(7)).
const GROUPS: &CStr = c"TLS-GROUP";

/// Who asks, and how it went so far.
struct Question {
    callback: OSSL_CALLBACK,
    arg: *mut c_void,
    /// Some group was told: other providers would tell the same ones again.
    told: bool,
    /// The application has had enough.
    refused: bool,
}

pub unsafe extern "C" fn answer(
    context: *mut c_void,
    capability: *const c_char,
    callback: OSSL_CALLBACK,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: libcrypto gives a string.
    if capability.is_null() || unsafe { CStr::from_ptr(capability) } != GROUPS {
        return 1;
    }
    let mut question = Question {
        callback,
        arg,
        told: false,
        refused: false,
    };
    // SAFETY: the context of the provider; the question outlives the call.
    unsafe {
        let ctx = Provider::borrow(context).child().as_ptr();
        sys::OSSL_PROVIDER_do_all(ctx, ask, (&raw mut question).cast());
    }
    (!question.refused).into()
}

/// Asks one provider for its groups.
unsafe extern "C" fn ask(provider: *mut OSSL_PROVIDER, question: *mut c_void) -> c_int {
    // SAFETY: what `answer` has given.
    let Some(so_far) = (unsafe { question.cast::<Question>().as_ref() }) else {
        return 0;
    };
    // SAFETY: the provider is alive, and has a name.
    let name = unsafe { sys::OSSL_PROVIDER_get0_name(provider) };
    // SAFETY: as above.
    if so_far.told || name.is_null() || unsafe { CStr::from_ptr(name) } == NAME {
        return 1;
    }
    // SAFETY: the provider is alive; the question is what the function takes. Having no groups is no failure.
    unsafe { sys::OSSL_PROVIDER_get_capabilities(provider, GROUPS.as_ptr(), tell, question) };
    1
}

/// Passes a group on, if we manage its keys.
unsafe extern "C" fn tell(group: *const OSSL_PARAM, question: *mut c_void) -> c_int {
    // SAFETY: what `answer` has given, and nobody else refers to it now.
    let Some(question) = (unsafe { question.cast::<Question>().as_mut() }) else {
        return 0;
    };
    // SAFETY: the list ends as it should.
    let algorithm = unsafe { Given::new(group) }.text(c"tls-group-alg");
    if algorithm.ok().flatten().as_deref() != Type::Ec.name().to_str().ok() {
        return 1;
    }
    question.told = true;
    // SAFETY: the callback and its argument belong together.
    let ok = unsafe { (question.callback)(group, question.arg) };
    question.refused |= ok != 1;
    ok
}
