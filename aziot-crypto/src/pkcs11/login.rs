//! Logging in, once, and never twice with a PIN that was refused.

use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::types::RawAuthPin;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::Cause;
use super::module::lock;
use super::selector::Pin;
use super::token::Work;

impl Work<'_> {
    /// Logs the user in, unless that is done, or there is nothing to do it with.
    pub(super) fn log_in(&self) -> Result<(), Cause> {
        let shared = self.token.shared();
        let (serial, protected) = match &lock(shared.state()).found {
            Some(found) => (found.identity.clone(), found.protected),
            None => (String::new(), false),
        };
        if matches!(shared.selector().pin, Pin::None) && !protected {
            return Ok(());
        }
        if is_logged_in(self.session)? {
            return Ok(());
        }
        let pin = if protected {
            None
        } else {
            shared.selector().pin.read()?
        };
        let mut refusals = self.token.module().refusals();
        let tried = pin.as_ref().map_or(&b""[..], |pin| pin.as_slice());
        if let Some(value) = refusals.find(&serial, tried) {
            return Err(Cause::Pin {
                value,
                remembered: true,
            });
        }
        let result = match &pin {
            Some(pin) => {
                let pin = RawAuthPin::new(Box::new(pin.to_vec()));
                self.session.login_with_raw(UserType::User, &pin)
            }
            // The PIN is entered at the token.
            None => self.session.login(UserType::User, None),
        };
        match result {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(CryptokiError::Pkcs11(
                value @ (RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked),
                _,
            )) => {
                refusals.add(serial, tried, value);
                Err(Cause::Pin {
                    value,
                    remembered: false,
                })
            }
            Err(err) => Err(err.into()),
        }
    }
}

pub(super) fn is_logged_in(session: &Session) -> Result<bool, Cause> {
    Ok(matches!(
        session.get_session_info()?.session_state(),
        SessionState::RoUser | SessionState::RwUser | SessionState::RwSecurityOfficer
    ))
}

/// PINs that tokens refused.
#[derive(Default)]
pub(super) struct Refusals(Vec<Refusal>);

struct Refusal {
    identity: String,
    pin: Zeroizing<Vec<u8>>,
    value: RvError,
}

impl Refusals {
    fn find(&self, identity: &str, pin: &[u8]) -> Option<RvError> {
        self.0
            .iter()
            .find(|refusal| {
                refusal.identity == identity && refusal.pin.as_slice().ct_eq(pin).into()
            })
            .map(|refusal| refusal.value)
    }

    fn add(&mut self, identity: String, pin: &[u8], value: RvError) {
        self.0.push(Refusal {
            identity,
            pin: Zeroizing::new(pin.to_vec()),
            value,
        });
    }
}
