//! Chains of certificates as they are stored: PEM text, the certificate itself first.

use std::fmt;

use aziot_core::renewal::Leaf;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkey::{HasPublic, PKeyRef};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

/// A certificate and those above it.
#[derive(Clone)]
pub struct Chain {
    leaf: X509,
    above: Vec<X509>,
}

/// Why a text is no chain. The texts are those of the renewal log (certificates-service 9.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// There is no certificate in it.
    Empty,
    /// There is a certificate that cannot be parsed, for this reason.
    Malformed(String),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no certs in cert chain"),
            Self::Malformed(reason) => write!(f, "failed to parse cert chain: {reason}"),
        }
    }
}

impl std::error::Error for ChainError {}

impl From<ErrorStack> for ChainError {
    fn from(error: ErrorStack) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Chain {
    /// Reads all certificates of a PEM text; whatever else is in it is ignored.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn parse(pem: &str) -> Result<Self, ChainError> {
        let mut certificates = X509::stack_from_pem(pem.as_bytes())?.into_iter();
        let leaf = certificates.next().ok_or(ChainError::Empty)?;
        Ok(Self {
            leaf,
            above: certificates.collect(),
        })
    }

    /// The chain of an EST server's answers: what it issued for this public key, the other certificates that came with it,
    /// and those of the CA. A certificate that is there already is left out.
    ///
    /// `None` if no certificate is for the key.
    #[must_use]
    pub fn assemble(
        key: &PKeyRef<impl HasPublic>,
        mut issued: Vec<X509>,
        authorities: Vec<X509>,
    ) -> Option<Self> {
        let at = issued
            .iter()
            .position(|certificate| is_for(certificate, key))?;
        let leaf = issued.remove(at);
        let mut above: Vec<X509> = Vec::new();
        for certificate in issued.into_iter().chain(authorities) {
            let known = |other: &X509| same(other, &certificate);
            if !known(&leaf) && !above.iter().any(known) {
                above.push(certificate);
            }
        }
        Some(Self { leaf, above })
    }

    /// The certificate itself.
    #[must_use]
    pub fn leaf(&self) -> &X509Ref {
        &self.leaf
    }

    /// The certificate itself and those above it, for TLS.
    #[must_use]
    pub fn into_parts(self) -> (X509, Vec<X509>) {
        (self.leaf, self.above)
    }

    /// As text: PEM in lines of 64 characters.
    ///
    /// # Errors
    /// libcrypto is out of memory.
    pub fn pem(&self) -> Result<String, ErrorStack> {
        let mut text = Vec::new();
        for certificate in std::iter::once(&self.leaf).chain(&self.above) {
            text.extend(certificate.to_pem()?);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What renewal has to know of it.
    ///
    /// # Errors
    /// Its dates are none.
    pub fn renewal(&self) -> Result<Leaf, ErrorStack> {
        Ok(Leaf::new(
            seconds(self.leaf.not_before())?,
            seconds(self.leaf.not_after())?,
            &self.leaf.to_der()?,
        ))
    }

    /// Whether this is the key of the certificate.
    #[must_use]
    pub fn is_for(&self, key: &PKeyRef<impl HasPublic>) -> bool {
        is_for(&self.leaf, key)
    }

    /// Whether the certificate is what its issuer has signed, as far as the issuer's certificate is in the chain.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let issuer = self
            .above
            .iter()
            .find(|above| above.issued(&self.leaf) == X509VerifyResult::OK);
        let consistent = issuer.is_none_or(|issuer| {
            issuer
                .public_key()
                .and_then(|key| self.leaf.verify(&key))
                .unwrap_or(false)
        });
        forget_errors();
        consistent
    }
}

/// Shows the subject.
impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Chain({:?}, {} above)",
            self.leaf.subject_name(),
            self.above.len()
        )
    }
}

fn is_for(certificate: &X509Ref, key: &PKeyRef<impl HasPublic>) -> bool {
    let same = certificate
        .public_key()
        .is_ok_and(|public| public.public_eq(key));
    forget_errors();
    same
}

fn same(one: &X509Ref, other: &X509Ref) -> bool {
    matches!((one.to_der(), other.to_der()), (Ok(one), Ok(other)) if one == other)
}

/// What libcrypto has noted in this thread about keys of different kinds is nobody's business later.
fn forget_errors() {
    drop(ErrorStack::get());
}

/// Seconds since 1970.
fn seconds(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * 86_400 + i64::from(since.secs))
}
