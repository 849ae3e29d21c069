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

    /// Whether the certificate is what its issuer has signed, as far as certificates of the issuer are in the chain.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        // While a CA changes its key, there are several certificates with its name.
        let mut issuers = self
            .above
            .iter()
            .filter(|above| above.issued(&self.leaf) == X509VerifyResult::OK)
            .peekable();
        let consistent = issuers.peek().is_none()
            || issuers.any(|issuer| {
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

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::x509::{X509Builder, X509Name, X509NameBuilder};

    use super::*;

    fn key() -> PKey<Private> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn name(text: &str) -> X509Name {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", text).unwrap();
        name.build()
    }

    /// A certificate for `key` by the owner of `signer`, from second `from` on for an hour.
    fn certificate(
        (subject, key): (&str, &PKey<Private>),
        (issuer, signer): (&str, &PKey<Private>),
        from: i64,
    ) -> X509 {
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let serial = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&name(subject)).unwrap();
        builder.set_issuer_name(&name(issuer)).unwrap();
        builder.set_pubkey(key).unwrap();
        let time = |seconds| Asn1Time::from_unix(seconds).unwrap();
        builder.set_not_before(&time(from)).unwrap();
        builder.set_not_after(&time(from + 3600)).unwrap();
        builder.sign(signer, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    #[test]
    fn cs_34_the_certificate_for_the_key_comes_first_and_nothing_twice() {
        let (ours, ca) = (key(), key());
        let leaf = certificate(("leaf", &ours), ("ca", &ca), 0);
        let root = certificate(("ca", &ca), ("ca", &ca), 0);
        let issued = vec![root.clone(), leaf.clone(), leaf.clone()];
        let chain = Chain::assemble(&ours, issued, vec![root.clone(), root.clone()]).unwrap();
        assert!(chain.is_for(&ours) && !chain.is_for(&ca) && chain.is_consistent());
        let text = chain.pem().unwrap();
        let (first, above) = Chain::parse(&text).unwrap().into_parts();
        assert_eq!(first.to_der().unwrap(), leaf.to_der().unwrap());
        assert_eq!(above.len(), 1);
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n") && text.ends_with("-----\n"));
        assert!(text.lines().all(|line| line.len() <= 64));
        assert!(Chain::assemble(&key(), vec![leaf], vec![root]).is_none());
    }

    #[test]
    fn a_certificate_that_its_issuer_has_not_signed_is_noticed() {
        let (ours, ca, other) = (key(), key(), key());
        let root = certificate(("ca", &ca), ("ca", &ca), 0);
        let forged = certificate(("leaf", &ours), ("ca", &other), 0);
        let chain = Chain::assemble(&ours, vec![forged.clone()], vec![root.clone()]).unwrap();
        assert!(!chain.is_consistent());
        // Nor is it when there are others of that name (RFC 7030, section 4.1.3), but it is when one of them has signed it.
        let old = certificate(("ca", &key()), ("ca", &ca), 0);
        let new = certificate(("ca", &other), ("ca", &other), 0);
        for (above, expected) in [
            (vec![root.clone(), old.clone()], false),
            (vec![root, old, new], true),
        ] {
            let chain = Chain::assemble(&ours, vec![forged.clone()], above).unwrap();
            assert_eq!(chain.is_consistent(), expected);
        }
        // Without the issuer's certificate nothing can be said.
        assert!(
            Chain::assemble(&ours, vec![forged], Vec::new())
                .unwrap()
                .is_consistent()
        );
    }

    #[test]
    fn dates_of_any_time_become_seconds() {
        let ours = key();
        for from in [
            -2_000_000_000,
            -1,
            0,
            86_399,
            2_524_608_000,
            250_000_000_000,
        ] {
            let leaf = certificate(("leaf", &ours), ("leaf", &ours), from);
            let chain = Chain::assemble(&ours, vec![leaf], Vec::new()).unwrap();
            let renewal = chain.renewal().unwrap();
            assert_eq!((renewal.not_before, renewal.not_after), (from, from + 3600));
        }
    }

    #[test]
    fn what_is_no_chain() {
        assert_eq!(Chain::parse("").unwrap_err(), ChainError::Empty);
        assert_eq!(
            Chain::parse("no PEM at all").unwrap_err(),
            ChainError::Empty
        );
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            Chain::parse(broken),
            Err(ChainError::Malformed(_))
        ));
    }
}
