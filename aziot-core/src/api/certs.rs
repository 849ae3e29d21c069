//! The interface of the Certificates Service (certificates-service 4 and 5).

pub mod status;

#[cfg(test)]
mod tests;

use core::fmt;

use serde::ser::{Serialize, Serializer};

use super::{Api, Route};
use crate::access::{Principals, matches};
use crate::http::Method::{self, Delete, Get, Post, Put};
use crate::json::{self, FromJson, Reader};
use crate::json_object;

/// Routes and versions. The last version adds `/status`; beside it, it has everything that the first one has.
pub static API: Api<Op> = Api {
    versions: &["2020-09-01", status::STATUS_VERSION],
    routes: &[
        route("/certificates", &[Post], Op::Certificates),
        route(
            "/certificates/{certId}",
            &[Get, Put, Delete],
            Op::Certificate,
        ),
        Route {
            since: 1,
            ..route("/status", &[Get], Op::Status)
        },
    ],
};

/// The version that our own clients ask for.
pub const CLIENT_VERSION: &str = "2020-09-01";

const fn route(path: &'static str, methods: &'static [Method], id: Op) -> Route<Op> {
    Route {
        path,
        since: 0,
        methods,
        id,
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// GET a stored certificate, answer 200 [`CertificateResponse`]; PUT [`ImportCertificate`], answer 201
    /// [`CertificateResponse`]; DELETE, answer 204.
    Certificate,
    /// POST [`CreateCertificate`], answer 201 [`CertificateResponse`].
    Certificates,
    /// GET [`Status`](status::Status).
    Status,
}

json_object! {
    /// Issues a certificate, and stores it.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CreateCertificate<'a> {
        /// Its id. The empty one is an id too.
        pub cert_id: &'a str = "certId",
        /// The request for it (PKCS #10).
        pub csr: Pem<'a> = "csr",
        /// Who signs it; without one, the configuration says how it is issued. Written as `null` then.
        pub issuer: Option<Issuer<'a>> = "issuer",
    }

    /// Who signs a certificate.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Issuer<'a> {
        /// The id of the issuer's certificate.
        pub cert_id: &'a str = "certId",
        /// The handle of its private key in the Keys Service. Whoever has it may use it, so it is never logged.
        pub private_key_handle: &'a str = "privateKeyHandle",
    }

    /// Stores a certificate from elsewhere.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct ImportCertificate<'a> {
        /// The text to store. It is not looked into.
        pub pem: Pem<'a> = "pem",
    }

    /// A stored certificate.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CertificateResponse<'a> {
        /// What is stored: usually certificates, the one with the id first, then those above it.
        pub pem: Pem<'a> = "pem",
    }
}

/// PEM text in a JSON string, as it is: neither decoded nor checked.
///
/// It differs from `&str` only in the words of a complaint, which existing clients know: they speak of Base64, although the
/// text is plain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pem<'a>(pub &'a str);

impl<'a> FromJson<'a> for Pem<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, json::Error<'a>> {
        r.string("a base64-encoded string").map(Self)
    }
}

impl Serialize for Pem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// Decides whether `uid` may create, import or delete the certificate `id`. Everyone who can connect may read it.
///
/// Uid 0 may modify every certificate; everyone else needs a pattern that matches the whole id (see
/// [`matches()`]). The certificate of an issuer in a request needs no permission.
///
/// # Errors
/// [`Error::NotAuthorized`].
pub fn authorize<'a, P: Principals + ?Sized>(
    principals: &P,
    uid: u32,
    id: &'a str,
) -> Result<(), Error<&'a str>> {
    if uid == 0 || principals.patterns(uid).any(|pattern| matches(pattern, id)) {
        Ok(())
    } else {
        Err(Error::NotAuthorized { uid, id })
    }
}

/// Why the handler of a request refuses it. Displays as the `message` of the answer.
///
/// `T` is text, borrowed or owned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error<T> {
    /// The request for a certificate cannot be read, for this reason.
    Csr(T),
    /// The signature of the request for a certificate is not one of the key in it.
    CsrSignature,
    /// Anything that is not the caller's mistake. Why goes to the log.
    Internal,
    /// The issuer's id stands for text without a certificate.
    IssuerEmpty,
    /// The issuer's key handle contains a NUL byte.
    IssuerKeyNul {
        /// Where, counted from 0.
        position: usize,
    },
    /// There is no certificate with the issuer's id.
    IssuerNotFound,
    /// The caller may not modify the certificate. Says nothing about whether it exists.
    NotAuthorized {
        /// The caller.
        uid: u32,
        /// The certificate's id.
        id: T,
    },
    /// There is no certificate with this id.
    NotFound,
}

impl<T> Error<T> {
    /// The status of the answer. That a certificate is not found is 400, as it has always been.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Csr(_)
            | Self::CsrSignature
            | Self::IssuerEmpty
            | Self::IssuerKeyNul { .. }
            | Self::IssuerNotFound
            | Self::NotFound => 400,
            Self::NotAuthorized { .. } => 401,
            Self::Internal => 500,
        }
    }

    /// The same with another kind of text.
    pub fn map<U>(self, text: impl FnOnce(T) -> U) -> Error<U> {
        match self {
            Self::Csr(reason) => Error::Csr(text(reason)),
            Self::CsrSignature => Error::CsrSignature,
            Self::Internal => Error::Internal,
            Self::IssuerEmpty => Error::IssuerEmpty,
            Self::IssuerKeyNul { position } => Error::IssuerKeyNul { position },
            Self::IssuerNotFound => Error::IssuerNotFound,
            Self::NotAuthorized { uid, id } => Error::NotAuthorized { uid, id: text(id) },
            Self::NotFound => Error::NotFound,
        }
    }
}

/// The key handle of an issuer, as the Keys Service can take it.
///
/// # Errors
/// [`Error::IssuerKeyNul`].
pub fn check_issuer_key<T>(handle: &str) -> Result<(), Error<T>> {
    match handle.bytes().position(|byte| byte == 0) {
        Some(position) => Err(Error::IssuerKeyNul { position }),
        None => Ok(()),
    }
}

/// Whether the message of an answer says that there is no certificate with the id that was asked for.
///
/// The status alone does not: 400 can be anything.
#[must_use]
pub fn is_not_found(status: u16, message: &str) -> bool {
    status == 400
        && message
            .strip_prefix("parameter \"id\" has an invalid value")
            .is_some_and(|causes| causes.ends_with(": not found"))
}

impl<T: fmt::Display> fmt::Display for Error<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameter = match self {
            Self::Internal => return f.write_str("internal error"),
            Self::NotAuthorized { uid, id } => {
                return write!(f, "user {uid} is not authorized to modify the cert {id}");
            }
            Self::Csr(_) | Self::CsrSignature => "csr",
            Self::IssuerEmpty | Self::IssuerNotFound => "issuer.certId",
            Self::IssuerKeyNul { .. } => "issuer.privateKeyHandle",
            Self::NotFound => "id",
        };
        write!(
            f,
            "parameter \"{parameter}\" has an invalid value\ncaused by: "
        )?;
        match self {
            Self::Csr(reason) => reason.fmt(f),
            Self::CsrSignature => f.write_str("CSR failed to be verified with its public key"),
            Self::IssuerEmpty => f.write_str("invalid issuer"),
            Self::IssuerKeyNul { position } => {
                write!(f, "nul byte found in provided data at position: {position}")
            }
            Self::IssuerNotFound | Self::NotFound => f.write_str("not found"),
            Self::Internal | Self::NotAuthorized { .. } => Ok(()),
        }
    }
}

impl<T: fmt::Debug + fmt::Display> core::error::Error for Error<T> {}

#[cfg(feature = "defmt")]
impl<T: fmt::Display> defmt::Format for Error<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{}", defmt::Display2Format(self));
    }
}
