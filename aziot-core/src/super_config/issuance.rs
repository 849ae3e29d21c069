//! `[cert_issuance]`, and certificates wherever the super-config names one.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::KeyLocation;
use crate::config::certd::{
    METHOD, Method, Subject, est_urls, expiry_days, pair, subject, warn_http, without_est,
};
use crate::config::url::Url;
use crate::config::{AutoRenew, Secret, Section};

/// Defaults for issued certificates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CertIssuance {
    /// Defaults for EST.
    pub est: Option<Est>,
    /// The local CA.
    pub local_ca: Option<LocalCa>,
}

/// Defaults for certificates issued by an EST server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Est {
    /// Normalised URLs of certificates that EST servers are trusted by.
    pub trusted_certs: Vec<String>,
    /// How EST identities are renewed.
    pub identity_auto_renew: AutoRenew,
    /// How to authenticate.
    pub auth: EstAuth,
    /// Normalised base URLs by certificate id.
    pub urls: BTreeMap<String, String>,
}

/// How to authenticate to an EST server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EstAuth {
    /// User name and password.
    pub basic: Option<(String, Secret)>,
    /// TLS client certificate.
    pub x509: Option<EstCredentials>,
}

/// The TLS client certificate for an EST server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EstCredentials {
    /// Used to request the client certificate proper.
    Bootstrap(Preloaded),
    /// The client certificate proper.
    Identity(Preloaded),
}

/// A certificate and its private key that exist already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Preloaded {
    /// Normalised URL of the certificate.
    pub cert: String,
    /// URI of the private key, in canonical form.
    pub pk: Secret,
}

/// The local CA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LocalCa {
    /// Its certificate is issued like others.
    Issued(Issuance),
    /// It exists.
    Preloaded(Preloaded),
}

/// The device's certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum X509Identity {
    /// It is issued on the device.
    Issued(Issuance),
    /// It exists.
    Preloaded(Preloaded),
}

/// How one certificate is issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuance {
    /// By whom.
    pub method: Method,
    /// Normalised base URL of its own EST server.
    pub url: Option<String>,
    /// Its own way to authenticate to the EST server.
    pub auth: EstAuth,
    /// Lifetime in days, at least 1.
    pub expiry_days: Option<u32>,
    /// Subject.
    pub subject: Option<Subject>,
    /// How the device certificate is renewed, if it is.
    pub auto_renew: Option<AutoRenew>,
}

impl CertIssuance {
    pub(super) fn read(section: Section<'_>) -> Self {
        let est = section.table("est").map(Est::read);
        let local_ca = section.table("local_ca").and_then(LocalCa::read);
        section.finish_with(
            "certificates of programs are configured in a file in certd's config.d directory",
        );
        Self { est, local_ca }
    }
}

impl Est {
    fn read(section: Section<'_>) -> Self {
        let trusted_certs = section
            .optional::<Vec<Url>>("trusted_certs")
            .unwrap_or_default();
        let identity_auto_renew =
            AutoRenew::read(&section, "identity_auto_renew").unwrap_or_default();
        let auth = section.table("auth").map(|auth| {
            let read = EstAuth::read(&auth);
            auth.finish();
            read
        });
        let urls = est_urls(&section);
        for key in EstAuth::KEYS {
            section.without_effect(key, "it belongs in [cert_issuance.est.auth]");
        }
        section.finish();
        Self {
            trusted_certs: trusted_certs.iter().map(Url::to_string).collect(),
            identity_auto_renew,
            auth: auth.unwrap_or_default(),
            urls,
        }
    }
}

impl EstAuth {
    const KEYS: [&'static str; 6] = [
        "username",
        "password",
        "identity_cert",
        "identity_pk",
        "bootstrap_identity_cert",
        "bootstrap_identity_pk",
    ];

    /// Reads the keys of a table that has them directly. What is incomplete is absent, with a warning.
    fn read(section: &Section<'_>) -> Self {
        let basic = pair(section, "username", "password");
        let bootstrap =
            Preloaded::pair(section, "bootstrap_identity_cert", "bootstrap_identity_pk");
        let x509 = match bootstrap {
            Some(bootstrap) => {
                for key in ["identity_cert", "identity_pk"] {
                    section.without_effect(key, "the bootstrap pair is given as well");
                }
                Some(EstCredentials::Bootstrap(bootstrap))
            }
            None => Preloaded::pair(section, "identity_cert", "identity_pk")
                .map(EstCredentials::Identity),
        };
        Self { basic, x509 }
    }
}

impl Preloaded {
    fn pair(section: &Section<'_>, cert: &'static str, pk: &'static str) -> Option<Self> {
        let (cert, KeyLocation(pk)) = pair::<Url, KeyLocation>(section, cert, pk)?;
        Some(Self {
            cert: cert.to_string(),
            pk,
        })
    }

    /// Both keys are required.
    fn required(section: &Section<'_>, cert: &'static str, pk: &'static str) -> Option<Self> {
        let url: Option<Url> = section.required(
            cert,
            "add the URL of the certificate, such as \"file:///…\"",
        );
        let key = section.required(
            pk,
            "add the location of the certificate's private key, such as \"file:///…\"",
        );
        let KeyLocation(pk) = key?;
        Some(Self {
            cert: url?.to_string(),
            pk,
        })
    }
}

impl X509Identity {
    /// Reads `identity_cert` and `identity_pk` of the table they are in.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        if section.is_table("identity_cert") {
            section.without_effect(
                "identity_pk",
                "the certificate is issued, and its key made, on the device",
            );
            return section
                .table("identity_cert")
                .and_then(Issuance::read)
                .map(Self::Issued);
        }
        Preloaded::required(section, "identity_cert", "identity_pk").map(Self::Preloaded)
    }
}

impl LocalCa {
    fn read(section: Section<'_>) -> Option<Self> {
        let ca = if section.is_table("cert") {
            section.without_effect(
                "pk",
                "the certificate is issued, and its key made, on the device",
            );
            let cert = section.table("cert")?;
            for key in EstAuth::KEYS {
                cert.without_effect(
                    key,
                    "the CA certificate is requested with [cert_issuance.est.auth]",
                );
            }
            cert.without_effect(
                "auto_renew",
                "only the device certificate is renewed by this setting",
            );
            Issuance::read(cert).map(Self::Issued)
        } else {
            Preloaded::required(&section, "cert", "pk").map(Self::Preloaded)
        };
        section.finish();
        ca
    }
}

impl Issuance {
    fn read(section: Section<'_>) -> Option<Self> {
        let method = section.required("method", METHOD);
        let expiry_days = expiry_days(&section);
        let subject = subject(&section);
        let auto_renew = AutoRenew::read(&section, "auto_renew");
        let (mut url, mut auth) = (None, EstAuth::default());
        if method == Some(Method::Est) {
            url = section.optional::<Url>("url");
            if let Some(url) = &url {
                warn_http(&section, "url", url);
            }
            auth = EstAuth::read(&section);
        } else if method.is_some() {
            without_est(&section);
        }
        section.finish();
        Some(Self {
            method: method?,
            url: url.as_ref().map(Url::to_string),
            auth,
            expiry_days,
            subject,
            auto_renew,
        })
    }
}
