//! Certificates (X.509, RFC 5280) and requests for them (PKCS #10, RFC 2986): read, checked, built.
//!
//! Without an allocator: what is read borrows the DER it was read from, what is built goes to a caller's buffer. Keys stay
//! behind [`Signer`] and [`Verifier`].

mod build;
mod certificate;
mod error;
mod extension;
pub mod name;
mod object_id;
mod request;
mod signature;
pub mod spki;
mod time;

pub use build::{
    BuildError, Issuer, IssuerExpired, RequestError, Serial, Template, Validity, build,
    build_request,
};
pub use certificate::Certificate;
pub use error::Error;
pub use extension::{Extension, Extensions, ExtensionsIter, MAX_EXTENSIONS};
pub use object_id::ObjectId;
pub use request::CertificationRequest;
pub use signature::{SignatureAlgorithm, Signer, Verifier};

#[cfg(test)]
mod tests;
