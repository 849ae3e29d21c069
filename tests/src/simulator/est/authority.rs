//! The authorities behind the EST side: a root with an intermediate that issues, and another root for bootstrap identities.

use std::fs;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Public};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509Builder, X509ReqRef, X509StoreContext, X509VerifyResult};

use crate::pki::{self, Authority, Validity};

/// Everything that issues and that is trusted.
pub struct Authorities {
    root: Authority,
    intermediate: Authority,
    bootstrap: Authority,
}

impl core::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Authorities")
    }
}

/// What a certificate is issued with.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// From when until when.
    pub validity: Validity,
    /// Whether for another key than the request's: a server gone wrong.
    pub other_key: bool,
}

/// Who vouches for a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voucher {
    /// The authority of bootstrap identities.
    Bootstrap,
    /// The authority that issues here.
    Issuer,
}

impl Authorities {
    /// Those kept in `directory`, made there when they do not exist: `est-root`, `est-int` and `est-bootstrap-ca`, each with
    /// `-key`. `est-bootstrap.pem` and `est-bootstrap-key.pem` are a bootstrap identity, `est-int-chain.pem` is the intermediate
    /// and the root.
    ///
    /// # Errors
    /// When a file cannot be read or written, or OpenSSL refuses.
    pub fn open(directory: &Path) -> Result<Self, pki::Error> {
        let root = Authority::open_as(directory, "est-root", || Authority::new("est-root"))?;
        let intermediate =
            Authority::open_as(directory, "est-int", || root.issue_authority("est-int"))?;
        let bootstrap = Authority::open_as(directory, "est-bootstrap-ca", || {
            Authority::new("est-bootstrap-ca")
        })?;
        if !directory.join("est-bootstrap.pem").exists() {
            bootstrap
                .issue_client("bootstrap", Validity::days_from_now(-1, 365))?
                .write(directory, "est-bootstrap")?;
        }
        let mut chain = intermediate.certificate_pem()?;
        chain.extend(root.certificate_pem()?);
        let path = directory.join("est-int-chain.pem");
        fs::write(&path, chain).map_err(|error| pki::Error::File(path, error))?;
        Ok(Self {
            root,
            intermediate,
            bootstrap,
        })
    }

    /// The certificates that `cacerts` tells of: the intermediate and the root.
    #[must_use]
    pub fn certificates(&self) -> [X509; 2] {
        [
            self.intermediate.certificate().clone(),
            self.root.certificate().clone(),
        ]
    }

    /// A certificate for a request, in the terms given.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn issue(&self, request: &X509ReqRef, terms: Terms) -> Result<X509, pki::Error> {
        let key = request.public_key()?;
        if terms.other_key {
            let other = self.bootstrap.issue_client("other", terms.validity)?;
            let public = other.certificate.public_key()?;
            return self.build(request, &public, terms.validity);
        }
        self.build(request, &key, terms.validity)
    }

    fn build(
        &self,
        request: &X509ReqRef,
        key: &PKeyRef<Public>,
        validity: Validity,
    ) -> Result<X509, pki::Error> {
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        let mut serial = BigNum::new()?;
        serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
        builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
        builder.set_subject_name(request.subject_name())?;
        builder.set_issuer_name(self.intermediate.certificate().subject_name())?;
        builder.set_pubkey(key)?;
        builder.set_not_before(Asn1Time::from_unix(validity.not_before)?.as_ref())?;
        builder.set_not_after(Asn1Time::from_unix(validity.not_after)?.as_ref())?;
        if let Ok(extensions) = request.extensions() {
            for extension in &extensions {
                builder.append_extension2(extension)?;
            }
        }
        self.intermediate.sign(&mut builder)?;
        Ok(builder.build())
    }

    /// Who vouches for the first of these certificates, which a client has presented with those above it (RFC 5246
    /// section 7.4.6). Only roots are trusted, so whoever was issued by the intermediate has to present that too.
    ///
    /// # Errors
    /// Why nobody does.
    pub fn vouch(&self, presented: &[X509]) -> Result<Voucher, String> {
        let (leaf, above) = presented
            .split_first()
            .ok_or("no client certificate was presented")?;
        let mut reason = String::new();
        for (root, voucher) in [
            (&self.bootstrap, Voucher::Bootstrap),
            (&self.root, Voucher::Issuer),
        ] {
            match verify(root.certificate(), leaf, above) {
                Ok(X509VerifyResult::OK) => return Ok(voucher),
                Ok(result) => reason = result.error_string().to_owned(),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(format!("the client certificate is not good: {reason}"))
    }
}

fn verify(root: &X509, leaf: &X509, above: &[X509]) -> Result<X509VerifyResult, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(root.clone())?;
    let store: X509Store = store.build();
    let mut chain = Stack::new()?;
    for certificate in above {
        chain.push(certificate.clone())?;
    }
    let mut context = X509StoreContext::new()?;
    context.init(&store, leaf, &chain, |context| {
        context.verify_cert()?;
        Ok(context.error())
    })
}
