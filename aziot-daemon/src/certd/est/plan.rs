//! From the configuration to how an EST server is asked (certificates-service 7.1 and 9.1).

use std::collections::BTreeMap;
use std::fmt;

use aziot_core::config::Secret;
use aziot_core::config::certd::{Est, EstAuth, EstIdentity, Issuance, Method, Settings};
use aziot_core::uri::Url;

use super::super::error::Error;
use crate::client::Origin;

/// How to ask an EST server for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where it is.
    pub server: Server,
    /// User name and password.
    pub basic: Option<(String, Secret)>,
    /// The TLS client certificate.
    pub x509: Option<EstIdentity>,
}

/// The base URL of an EST server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    tls: bool,
    /// Host and port as in the URL.
    pub authority: String,
    /// Path and query.
    pub base: String,
}

impl Server {
    /// Reads a URL as the configuration has it.
    fn parse(url: &str) -> Result<Self, Error> {
        let mut normal = vec![0; url.len() * 3 + 16];
        let url = Url::parse(url, &mut normal)
            .map_err(|error| Error::internal(format_args!("bad EST server URL: {error}")))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => {
                return Err(Error::internal(format_args!(
                    "bad EST server URL: unrecognized scheme {other:?}; use https"
                )));
            }
        };
        let mut base = url.path().to_owned();
        if let Some(query) = url.query() {
            base.push('?');
            base.push_str(query);
        }
        Ok(Self {
            tls,
            authority: url.host_and_port().to_owned(),
            base,
        })
    }

    /// For requests to it.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            tls: self.tls,
            authority: &self.authority,
        }
    }
}

/// What is wrong with a certificate that is `configured to be issued by EST`.
pub fn unusable(id: &str, reason: impl fmt::Display) -> Error {
    Error::internal(format_args!(
        "cert {id:?} is configured to be issued by EST, but {reason}"
    ))
}

/// How the certificate `id` is asked for: its own credentials if it has any, else those for all; its own URL, else the one
/// for its id, else the one for all.
///
/// # Errors
/// There is no URL, or there are no credentials.
pub fn access(settings: &Settings, id: &str) -> Result<Access, Error> {
    let auth = settings.cert_issuance.est_auth(id);
    let auth = auth.ok_or_else(|| unusable(id, "EST auth is not configured"))?;
    Ok(Access {
        server: server(settings, id)?,
        basic: auth.basic.clone(),
        x509: auth.x509.clone(),
    })
}

fn entry<'s>(settings: &'s Settings, id: &str) -> Option<&'s Issuance> {
    settings.cert_issuance.certs.get(id)
}

fn defaults(settings: &Settings) -> Option<&Est> {
    settings.cert_issuance.est.as_ref()
}

fn server(settings: &Settings, id: &str) -> Result<Server, Error> {
    let url = settings.cert_issuance.est_url(id);
    Server::parse(url.ok_or_else(|| unusable(id, "EST URL is not configured"))?)
}

/// An EST identity: a certificate and its key pair, by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// The certificate *C*.
    pub cert: String,
    /// The key pair *K*.
    pub key: String,
}

impl Names {
    /// Those of a configured identity.
    #[must_use]
    pub fn of(identity: &EstIdentity) -> Self {
        Self {
            cert: identity.identity_cert.clone(),
            key: identity.identity_pk.clone(),
        }
    }

    /// The id of the key pair that takes the place of *K* when the certificate for it is stored.
    #[must_use]
    pub fn temporary_key(&self) -> String {
        format!("{}-temp", self.key)
    }
}

/// The EST identities of a configuration, each with the id of the certificate that decides how it is renewed: of those that
/// have it for their own the last one in the order of ids; its own id, if it is the one for all.
#[must_use]
pub fn identities(settings: &Settings) -> BTreeMap<Names, Owner> {
    let mut found = BTreeMap::new();
    let mut put = |auth: &EstAuth, id: Option<&String>| {
        if let Some(x509) = &auth.x509 {
            let owner = Owner {
                id: id.unwrap_or(&x509.identity_cert).clone(),
                identity: x509.clone(),
                basic: auth.basic.clone(),
            };
            found.insert(Names::of(x509), owner);
        }
    };
    if let Some(est) = defaults(settings) {
        put(&est.auth, None);
    }
    for (id, entry) in &settings.cert_issuance.certs {
        if entry.method == Method::Est {
            put(&entry.auth, Some(id));
        }
    }
    found
}

/// Who decides how an identity is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The id of a certificate.
    pub id: String,
    identity: EstIdentity,
    basic: Option<(String, Secret)>,
}

impl Owner {
    /// How the identity is renewed. If its owner has no URL, that of the first certificate is used that has the identity.
    ///
    /// # Errors
    /// Nobody has a URL.
    pub fn access(&self, settings: &Settings) -> Result<Access, Error> {
        let issued_otherwise =
            entry(settings, &self.id).is_some_and(|entry| entry.method != Method::Est);
        let own = if issued_otherwise {
            Err(Error::internal(format_args!(
                "cert {:?} is an EST identity, but configured to be issued otherwise, and no other EST URL is configured",
                self.id
            )))
        } else {
            server(settings, &self.id)
        };
        let server = own.or_else(|error| {
            let names = Names::of(&self.identity);
            let mut users = settings.cert_issuance.certs.iter();
            users
                .find_map(|(id, entry)| {
                    let used = settings.cert_issuance.est_auth(id)?.x509.as_ref()?;
                    if entry.method != Method::Est || Names::of(used) != names {
                        return None;
                    }
                    server(settings, id).ok()
                })
                .ok_or(error)
        })?;
        Ok(Access {
            server,
            basic: self.basic.clone(),
            x509: Some(self.identity.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        crate::certd::est::testing::settings(text)
    }

    fn url(settings: &Settings, id: &str) -> String {
        let server = access(settings, id).unwrap().server;
        format!("{}{}", server.authority, server.base)
    }

    #[test]
    fn cs_31_which_url() {
        let text = r#"
            [cert_issuance.est]
            username = "u"
            password = "p"
            [cert_issuance.est.urls]
            default = "https://default.example/est"
            by-id = "https://by-id.example/est/?q=1"
            own = "https://not-this.example/est"
            [cert_issuance.other]
            method = "est"
            [cert_issuance.by-id]
            method = "est"
            [cert_issuance.own]
            method = "est"
            url = "https://Own.example:8443/x/"
        "#;
        let settings = settings(text);
        assert_eq!(url(&settings, "other"), "default.example/est");
        assert_eq!(url(&settings, "by-id"), "by-id.example/est/?q=1");
        assert_eq!(url(&settings, "own"), "own.example:8443/x/");
        let none = self::settings(
            "[cert_issuance.x]\nmethod = \"est\"\nusername = \"u\"\npassword = \"p\"",
        );
        assert_eq!(
            access(&none, "x").unwrap_err().one_line(),
            "cert \"x\" is configured to be issued by EST, but EST URL is not configured"
        );
        let other = self::settings(
            "[cert_issuance.x]\nmethod = \"est\"\nurl = \"ftp://h/\"\nusername = \"u\"\npassword = \"p\"",
        );
        assert!(
            access(&other, "x")
                .unwrap_err()
                .one_line()
                .contains("unrecognized scheme")
        );
    }

    #[test]
    fn cs_05_credentials_are_not_mixed() {
        let text = r#"
            [cert_issuance.est]
            identity_cert = "est-id"
            identity_pk = "est-key"
            bootstrap_identity_cert = "b"
            bootstrap_identity_pk = "bk"
            [cert_issuance.est.urls]
            default = "https://h/est"
            [cert_issuance.basic]
            method = "est"
            username = "u"
            password = "p"
            [cert_issuance.none]
            method = "est"
            [cert_issuance.half]
            method = "est"
            username = "u"
        "#;
        let settings = settings(text);
        let basic = access(&settings, "basic").unwrap();
        assert!(basic.basic.is_some() && basic.x509.is_none());
        for id in ["none", "half"] {
            let default = access(&settings, id).unwrap();
            assert!(default.basic.is_none());
            assert_eq!(default.x509.unwrap().identity_cert, "est-id");
        }
        let nobody = self::settings("[cert_issuance.x]\nmethod = \"est\"\nurl = \"https://h\"");
        assert_eq!(
            access(&nobody, "x").unwrap_err().one_line(),
            "cert \"x\" is configured to be issued by EST, but EST auth is not configured"
        );
    }

    #[test]
    fn who_decides_how_an_identity_is_renewed() {
        let text = r#"
            [cert_issuance.est]
            identity_cert = "est-id"
            identity_pk = "est-id"
            [cert_issuance.a]
            method = "est"
            url = "https://a.example/"
            [cert_issuance.b]
            method = "est"
            url = "https://b.example/"
            identity_cert = "est-id-b"
            identity_pk = "key-b"
            [cert_issuance.c]
            method = "est"
            url = "https://c.example/"
            identity_cert = "est-id-b"
            identity_pk = "key-b"
            username = "u"
            password = "p"
            [cert_issuance.d]
            method = "self_signed"
        "#;
        let settings = settings(text);
        let found = identities(&settings);
        let owners: Vec<(&str, &str, &str)> = found
            .iter()
            .map(|(names, owner)| (names.cert.as_str(), names.key.as_str(), owner.id.as_str()))
            .collect();
        assert_eq!(
            owners,
            [("est-id", "est-id", "est-id"), ("est-id-b", "key-b", "c")]
        );
        let access: Vec<Access> = found
            .values()
            .map(|owner| owner.access(&settings).unwrap())
            .collect();
        // There is no URL for the identity for all, but somebody uses it who has one.
        assert_eq!(access[0].server.authority, "a.example");
        assert_eq!(access[1].server.authority, "c.example");
        assert!(access[1].basic.is_some());
        let lost =
            self::settings("[cert_issuance.est]\nidentity_cert = \"i\"\nidentity_pk = \"i\"");
        let owner = identities(&lost).into_values().next().unwrap();
        assert!(
            owner
                .access(&lost)
                .unwrap_err()
                .one_line()
                .contains("EST URL is not configured")
        );
    }
}
