//! What can go wrong with a module, a token, or a key in it.

use core::fmt;
use core::time::Duration;
use std::path::PathBuf;

use cryptoki::context::Function;
use cryptoki::error::RvError;

use crate::aead::{MAX_IV_LEN, Malformed};
use crate::key_pair::Parameter;

/// Why an operation on a token failed, and where. Its text never has a PIN in it.
#[derive(Debug)]
pub struct Error {
    cause: Cause,
    /// The token, if there is one yet, and the module.
    place: Box<str>,
}

impl Error {
    pub(super) fn new(cause: Cause, place: String) -> Self {
        Self {
            cause,
            place: place.into(),
        }
    }

    /// Whether the caller asked for the wrong thing, as opposed to something being broken.
    #[must_use]
    pub fn is_invalid_parameter(&self) -> bool {
        self.cause.is_invalid_parameter()
    }

    /// Whether the token cannot make such a symmetric key at all, so that it may be made elsewhere: `C_GenerateKey` ended
    /// in `CKR_FUNCTION_NOT_SUPPORTED` or `CKR_MECHANISM_INVALID`, or a new key for AES does not do AES-GCM.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        match &self.cause {
            Cause::Unusable(_) => true,
            Cause::Call { function, value } => {
                matches!(function, Function::GenerateKey)
                    && matches!(
                        value,
                        RvError::FunctionNotSupported | RvError::MechanismInvalid
                    )
            }
            _ => false,
        }
    }

    /// Whether it was `C_CreateObject` that refused an imported key, or the token has no use for it once it has it (SoftHSM
    /// stores keys for HMAC that are too short for it): an import may then be done elsewhere.
    #[must_use]
    pub fn is_refused_import(&self) -> bool {
        match &self.cause {
            Cause::Unusable(_) => true,
            Cause::Call { function, .. } => matches!(function, Function::CreateObject),
            _ => false,
        }
    }

    /// Whether a ciphertext was not made with this key, vector and additional data.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(self.cause, Cause::Authentication(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause, self.place)?;
        match self.cause.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Error {}

/// What an [`Error`] is about.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// A ciphertext that the key rejects, and what the token said.
    Authentication(RvError),
    /// A function returned something else than `CKR_OK`.
    Call { function: Function, value: RvError },
    /// A key pair on a curve we cannot name.
    Curve,
    /// No session became free in time.
    Busy(Duration),
    /// A search found a handle that belongs to another object.
    Handles,
    /// An import of no bytes.
    EmptyImport,
    /// RSA without padding got this many bytes.
    InputLen { len: usize, modulus_len: usize },
    /// RSA without padding got a number that is not below the modulus.
    InputNotBelowModulus,
    /// RSA with padding got this many bytes.
    InputTooLong { len: usize, max: usize },
    /// An initialisation vector of this many bytes.
    IvLen(usize),
    /// The dynamic loader refused the file.
    Load(String),
    /// The two halves of a pair are of different, or of unknown, types.
    KeyTypes,
    /// A result or an attribute is not what PKCS#11 says it is.
    Malformed(&'static str),
    /// The bytes are no ciphertext.
    MalformedCiphertext(Malformed),
    /// A move of a key pair that does not exist.
    MissingSource(String),
    /// The module lacks a function.
    MissingFunction(&'static str),
    /// There is no such key.
    NotFound {
        /// `key` or `key pair`.
        kind: &'static str,
        label: Option<String>,
    },
    /// A key pair of another algorithm does not have this parameter.
    NoParameter(Parameter),
    /// No PIN is configured, and the token wants one.
    NoPin,
    /// The file has no `C_GetFunctionList`.
    NotAModule,
    /// An operation on curves with a key that is not on one.
    NotEc,
    /// An operation of RSA with another key.
    NotRsa,
    /// There is no token that fits the URI; the labels of those there are.
    NoToken { wanted: String, found: Vec<String> },
    /// The token does not accept the PIN; whether that was learnt from an earlier attempt.
    Pin { value: RvError, remembered: bool },
    /// The PIN's file could not be read.
    PinSource { path: PathBuf, reason: String },
    /// The public half is there, the private one cannot be seen without logging in.
    PrivateHidden(Option<String>),
    /// A label that we use for objects in between.
    ReservedLabel,
    /// Another token answers where there was one we knew.
    TokenChanged,
    /// The module could not be loaded a short time ago.
    Unloaded { failure: String, retry_in: Duration },
    /// A new key was stored but does not do what it is for.
    Unusable(Box<Cause>),
    /// Neither exactly for signing nor exactly for encryption.
    Usage(u32),
    /// The module is too old.
    Version { major: u8, minor: u8 },
}

impl Cause {
    /// What a return value calls for.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Handles => Severity::Fatal,
            Self::NoToken { .. } | Self::TokenChanged => Severity::TokenGone,
            Self::Call { value, .. } => match value {
                RvError::SessionClosed | RvError::SessionHandleInvalid => Severity::SessionGone,
                // Closing the one session helps.
                RvError::OperationActive => Severity::ObjectGone,
                RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => Severity::ObjectGone,
                RvError::UserNotLoggedIn => Severity::LoggedOut,
                RvError::DeviceRemoved
                | RvError::SlotIdInvalid
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized => Severity::TokenGone,
                RvError::CryptokiNotInitialized
                | RvError::DeviceError
                | RvError::DeviceMemory
                | RvError::FipsSelfTestFailed
                | RvError::FunctionFailed
                | RvError::GeneralError
                | RvError::HostMemory
                | RvError::VendorDefined(_)
                | RvError::UnknownErrorCode(_) => Severity::Fatal,
                _ => Severity::Ordinary,
            },
            _ => Severity::Ordinary,
        }
    }

    /// Whether the token does not know, or does not want, an attribute or its value.
    pub(super) fn is_about_template(&self) -> bool {
        matches!(
            self,
            Self::Call {
                value: RvError::ArgumentsBad
                    | RvError::AttributeReadOnly
                    | RvError::AttributeTypeInvalid
                    | RvError::AttributeValueInvalid
                    | RvError::FunctionFailed
                    | RvError::GeneralError
                    | RvError::TemplateIncomplete
                    | RvError::TemplateInconsistent,
                ..
            }
        )
    }

    /// Whether the operation is one that the token does not have.
    pub(super) fn is_missing_mechanism(&self) -> bool {
        matches!(
            self,
            Self::Call {
                value: RvError::FunctionNotSupported
                    | RvError::KeyFunctionNotPermitted
                    | RvError::MechanismInvalid,
                ..
            }
        )
    }

    /// Whether it says something about the token, and not just about one request.
    pub(super) fn is_failure_of_token(&self) -> bool {
        match self {
            Self::Busy(_)
            | Self::Load(_)
            | Self::MissingFunction(_)
            | Self::NoPin
            | Self::NotAModule
            | Self::NoToken { .. }
            | Self::Pin { .. }
            | Self::PinSource { .. }
            | Self::TokenChanged
            | Self::Unloaded { .. }
            | Self::Version { .. } => true,
            Self::Call { .. } => self.severity() != Severity::Ordinary,
            _ => false,
        }
    }

    fn is_invalid_parameter(&self) -> bool {
        match self {
            Self::Curve
            | Self::EmptyImport
            | Self::MalformedCiphertext(_)
            | Self::NoParameter(_)
            | Self::NotEc
            | Self::NotFound { .. }
            | Self::NotRsa
            // Release 1.6.0 does not see the pair at all.
            | Self::PrivateHidden(_)
            | Self::ReservedLabel
            | Self::Usage(_) => true,
            // Lengths that a token refuses have always counted as its failure.
            Self::Authentication(_)
            | Self::Busy(_)
            | Self::Call { .. }
            | Self::Handles
            | Self::InputLen { .. }
            | Self::InputNotBelowModulus
            | Self::InputTooLong { .. }
            | Self::IvLen(_)
            | Self::KeyTypes
            | Self::Load(_)
            | Self::Malformed(_)
            | Self::MissingFunction(_)
            | Self::MissingSource(_)
            | Self::NoPin
            | Self::NotAModule
            | Self::NoToken { .. }
            | Self::Pin { .. }
            | Self::PinSource { .. }
            | Self::TokenChanged
            | Self::Unloaded { .. }
            | Self::Unusable(_)
            | Self::Version { .. } => false,
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Busy(_) => "the token is slow or overloaded; try again later",
            Self::Load(_) | Self::NotAModule => "check `pkcs11_lib_path`",
            Self::MissingFunction(_) | Self::Version { .. } => {
                "`pkcs11_lib_path` has to name a PKCS#11 module for version 2.20 or higher"
            }
            Self::NoPin | Self::PrivateHidden(_) => {
                "give the user PIN with `pin-value` or `pin-source` in the URI"
            }
            Self::NoToken { .. } => {
                "check `token`, `slot-id`, `serial`, `manufacturer` and `model` of the URI, and that the token is there"
            }
            Self::Pin {
                value: RvError::PinLocked,
                ..
            } => "unlock the PIN with the token's own tools, then restart the Keys Service",
            Self::Pin {
                value: RvError::PinExpired,
                ..
            } => {
                "change the PIN with the token's own tools, put it into `pin-value` or `pin-source` of the URI, and restart the Keys Service"
            }
            Self::Pin { .. } => {
                "it is not tried again, so that the token does not lock; correct `pin-value` or `pin-source` of the URI and restart the Keys Service"
            }
            Self::PinSource { .. } => "check `pin-source` of the URI",
            Self::Call {
                value: RvError::UserPinNotInitialized,
                ..
            } => "set the user PIN with the token's own tools",
            Self::Call {
                value: RvError::TokenWriteProtected,
                ..
            } => "the token is write-protected",
            Self::Call {
                value: RvError::DeviceMemory,
                ..
            } => "the token may be full",
            Self::ReservedLabel => "choose another id",
            _ => return None,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication(value) => write!(
                f,
                "the ciphertext was not made with this key, initialisation vector and additional data: C_Decrypt returned {}",
                Value(*value)
            ),
            Self::Call { function, value } => {
                write!(f, "C_{function:?} returned {}", Value(*value))
            }
            Self::Curve => f.write_str("key curve not recognized"),
            Self::Busy(waited) => write!(
                f,
                "no session of the token became free within {} s",
                waited.as_secs()
            ),
            Self::EmptyImport => f.write_str("a key must have at least one byte"),
            Self::Handles => f.write_str(
                "C_FindObjects returned the handle of an object with another CKA_LABEL or CKA_CLASS; the module numbers its objects anew when it is loaded again",
            ),
            Self::InputLen { len, modulus_len } => write!(
                f,
                "RSA without padding needs exactly {modulus_len} bytes, as many as the modulus has, and got {len}"
            ),
            Self::InputNotBelowModulus => {
                f.write_str("RSA without padding needs a number below the modulus")
            }
            Self::InputTooLong { len, max } => write!(
                f,
                "RSA with PKCS#1 padding takes at most {max} bytes with this key, and got {len}"
            ),
            Self::IvLen(len) => write!(
                f,
                "an initialisation vector has 1 to {MAX_IV_LEN} bytes, not {len}"
            ),
            Self::Load(err) => write!(f, "could not load the module: {err}"),
            Self::KeyTypes => {
                f.write_str("the public and the private object are not two EC keys or two RSA keys")
            }
            Self::Malformed(what) => write!(f, "the token's {what} is malformed"),
            Self::MalformedCiphertext(malformed) => malformed.fmt(f),
            Self::MissingSource(label) => {
                write!(f, "key pair not found: no objects with label \"{label}\"")
            }
            Self::MissingFunction(name) => write!(f, "library does not define {name}"),
            Self::Unusable(cause) => {
                write!(f, "a new key cannot be used in the token: {cause}")
            }
            Self::NotFound { kind, label } => match label {
                Some(label) => write!(f, "{kind} not found: no object with label \"{label}\""),
                None => write!(f, "{kind} not found: the token has none"),
            },
            Self::NoParameter(parameter) => {
                write!(f, "the key pair has no {}", parameter.name())
            }
            Self::NoPin => f.write_str("the token needs a login and no PIN is configured"),
            Self::NotAModule => f.write_str(
                "the file is not a PKCS#11 module: it does not export C_GetFunctionList",
            ),
            Self::NotEc => f.write_str("the key pair is not on a curve"),
            Self::NotRsa => f.write_str("the key pair is not RSA"),
            Self::NoToken { wanted, found } => {
                write!(f, "could not find a slot with {wanted}; ")?;
                match found.as_slice() {
                    [] => f.write_str("there is no initialised token"),
                    labels => write!(
                        f,
                        "there are tokens with these labels: {}",
                        labels.join(", ")
                    ),
                }
            }
            Self::Pin { value, remembered } => {
                f.write_str("could not log in to the token: ")?;
                if *remembered {
                    write!(
                        f,
                        "it has refused this PIN before, C_Login returned {}",
                        Value(*value)
                    )
                } else {
                    write!(f, "C_Login returned {}", Value(*value))
                }
            }
            Self::PinSource { path, reason } => {
                write!(
                    f,
                    "could not read the PIN from {}: {reason}",
                    path.display()
                )
            }
            Self::PrivateHidden(label) => {
                f.write_str(
                    "the public key is there, but its private key is not visible without a login: ",
                )?;
                match label {
                    Some(label) => write!(f, "label \"{label}\""),
                    None => f.write_str("no label"),
                }
            }
            Self::ReservedLabel => {
                f.write_str("labels of this form are used for unfinished changes")
            }
            Self::TokenChanged => {
                f.write_str("another token has taken the place of the one in use")
            }
            Self::Unloaded { failure, retry_in } => write!(
                f,
                "the module is not loaded: {failure}; it is tried again in {} s",
                retry_in.as_secs() + 1
            ),
            Self::Usage(usage) => write!(
                f,
                "a key in a token is either for signing and derivation (1) or for encryption (0x10), not {usage:#x}"
            ),
            Self::Version { major, minor } => write!(
                f,
                "expected library to support v2.20 or higher, but it supports v{major}.{minor}"
            ),
        }
    }
}

impl From<cryptoki::error::Error> for Cause {
    fn from(err: cryptoki::error::Error) -> Self {
        use cryptoki::error::Error as E;
        match err {
            E::Pkcs11(value, function) => Self::Call { function, value },
            E::LibraryLoading(err) => Self::Load(err.to_string()),
            E::MissingSymbol(_) => Self::NotAModule,
            E::NullFunctionPointer => Self::MissingFunction("a function that is needed"),
            _ => Self::Malformed("answer"),
        }
    }
}

/// What has to be given up after a failure, from little to much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Severity {
    /// Nothing.
    Ordinary,
    /// Remembered object handles.
    ObjectGone,
    /// The belief that the user is logged in.
    LoggedOut,
    /// Sessions.
    SessionGone,
    /// The slot as well.
    TokenGone,
    /// The module.
    Fatal,
}

impl Severity {
    /// Whether sessions do not survive it.
    pub(super) fn closes_sessions(self) -> bool {
        matches!(self, Self::SessionGone | Self::TokenGone)
    }
}

/// A return value by the name that the standard gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value(pub(super) RvError);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => {
                write!(f, "{code:#010x}")
            }
            // The variants are named like the constants.
            named => {
                f.write_str("CKR")?;
                for letter in format!("{named:?}").chars() {
                    if letter.is_ascii_uppercase() {
                        f.write_str("_")?;
                    }
                    write!(f, "{}", letter.to_ascii_uppercase())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: Function, value: RvError) -> Cause {
        Cause::Call { function, value }
    }

    #[test]
    fn return_values_have_their_names() {
        for (value, name) in [
            (RvError::PinIncorrect, "CKR_PIN_INCORRECT"),
            (
                RvError::SessionReadWriteSoExists,
                "CKR_SESSION_READ_WRITE_SO_EXISTS",
            ),
            (RvError::RandomNoRng, "CKR_RANDOM_NO_RNG"),
            (RvError::VendorDefined(0x8000_0042), "0x80000042"),
            (RvError::UnknownErrorCode(0x42), "0x00000042"),
        ] {
            assert_eq!(Value(value).to_string(), name);
        }
    }

    #[test]
    fn errors_name_function_value_token_and_remedy() {
        let cause = Cause::Pin {
            value: RvError::PinIncorrect,
            remembered: false,
        };
        let text = Error::new(cause, "token \"T\", module /x.so".to_owned()).to_string();
        for part in [
            "C_Login",
            "CKR_PIN_INCORRECT",
            "token \"T\"",
            "/x.so",
            "pin-value",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn pins_are_never_a_reason_to_load_the_module_again() {
        for value in [
            RvError::PinIncorrect,
            RvError::PinLocked,
            RvError::PinExpired,
            RvError::PinLenRange,
        ] {
            assert_eq!(call(Function::Login, value).severity(), Severity::Ordinary);
            let refused = Cause::Pin {
                value,
                remembered: false,
            };
            assert_eq!(refused.severity(), Severity::Ordinary);
        }
        assert_eq!(
            call(Function::Sign, RvError::DeviceError).severity(),
            Severity::Fatal
        );
    }

    #[test]
    fn only_a_missing_mechanism_lets_a_key_be_made_elsewhere() {
        for (cause, expected) in [
            (call(Function::GenerateKey, RvError::MechanismInvalid), true),
            (
                call(Function::GenerateKey, RvError::FunctionNotSupported),
                true,
            ),
            (call(Function::GenerateKey, RvError::DeviceMemory), false),
            (
                call(Function::GenerateKeyPair, RvError::MechanismInvalid),
                false,
            ),
            (Cause::Unusable(Box::new(Cause::Curve)), true),
        ] {
            assert_eq!(Error::new(cause, String::new()).is_unsupported(), expected);
        }
    }
}
