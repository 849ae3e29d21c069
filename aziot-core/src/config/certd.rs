//! Settings of the Certificates Service.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use zeroize::Zeroizing;

use super::keyd::{MAX_REQUESTS, know_all_endpoints, max_requests};
use super::section::variant;
use super::tree::Kind;
use super::url::Url;
use super::{
    AutoRenew, Endpoint, FromValue, Invalid, Loaded, Merged, Mismatch, Places, Reader, Secret,
    Section, Value, Writer,
};

/// Settings of the Certificates Service (`certificates-service` 2.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Directory of the service's state.
    pub homedir_path: String,
    /// Most simultaneous connections of one user id.
    pub max_requests: u64,
    /// How certificates are issued.
    pub cert_issuance: CertIssuance,
    /// Certificates that exist already, by id.
    pub preloaded_certs: BTreeMap<String, PreloadedCert>,
    /// Who may write which certificates, in document order.
    pub principals: Vec<Principal>,
    /// Where this service listens. Never written.
    pub endpoint: Endpoint,
    /// Where the Keys Service listens. Never written.
    pub keyd_endpoint: Endpoint,
}

/// How certificates are issued.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CertIssuance {
    /// Defaults for EST.
    pub est: Option<Est>,
    /// The local CA.
    pub local_ca: Option<LocalCa>,
    /// Options by certificate id.
    pub certs: BTreeMap<String, Issuance>,
}

/// Defaults for certificates issued by an EST server (RFC 7030).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Est {
    /// Ids of certificates that EST servers are trusted by.
    pub trusted_certs: Vec<String>,
    /// How to authenticate.
    pub auth: EstAuth,
    /// How EST identities are renewed.
    pub identity_auto_renew: AutoRenew,
    /// Base URLs by certificate id; `default` stands for all others.
    pub urls: BTreeMap<String, String>,
}

/// The key in [`Est::urls`] that stands for all certificates.
const DEFAULT_URL: &str = "default";

/// How to authenticate to an EST server. Both ways may be used together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EstAuth {
    /// User name and password.
    pub basic: Option<(String, Secret)>,
    /// TLS client certificate.
    pub x509: Option<EstIdentity>,
}

impl EstAuth {
    /// Whether there is any way to authenticate.
    pub const fn exists(&self) -> bool {
        self.basic.is_some() || self.x509.is_some()
    }
}

/// TLS client certificate for an EST server. All members are ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EstIdentity {
    /// Certificate.
    pub identity_cert: String,
    /// Its key pair.
    pub identity_pk: String,
    /// Certificate and key pair with which the identity is requested for the first time.
    pub bootstrap: Option<(String, String)>,
}

/// The local CA. Both members are ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalCa {
    /// Certificate.
    pub cert: String,
    /// Its key pair.
    pub pk: String,
}

/// How one certificate is issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuance {
    /// By whom.
    pub method: Method,
    /// Base URL of its own EST server.
    pub url: Option<String>,
    /// Its own way to authenticate to the EST server.
    pub auth: EstAuth,
    /// Lifetime in days, at least 1, if this service signs.
    pub expiry_days: Option<u32>,
    /// Subject in place of the requested one.
    pub subject: Option<Subject>,
}

/// Who issues a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// An EST server.
    Est,
    /// The local CA.
    LocalCa,
    /// Its own key.
    SelfSigned,
}

impl Method {
    /// Names in configurations, in order of the variants.
    pub(crate) const NAMES: [&str; 3] = ["est", "local_ca", "self_signed"];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Est => "est",
            Self::LocalCa => "local_ca",
            Self::SelfSigned => "self_signed",
        }
    }
}

impl<'a> FromValue<'a> for Method {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        Ok(match variant(value, &Self::NAMES)? {
            0 => Self::Est,
            1 => Self::LocalCa,
            _ => Self::SelfSigned,
        })
    }
}

/// Subject of an issued certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// The common name alone.
    CommonName(String),
    /// Fields by name, as written.
    Fields(BTreeMap<String, String>),
}

/// A certificate that exists already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PreloadedCert {
    /// Normalised URL of a file.
    Uri(String),
    /// Ids of other certificates, which together make this one.
    Ids(Vec<String>),
}

/// A user id and the certificates it may write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Principal {
    /// User id of the caller.
    pub uid: u32,
    /// Patterns of certificate ids: `*` any run of characters, `?` one character.
    pub certs: Vec<String>,
}

impl Settings {
    /// Settings with nothing but the required ones.
    pub fn new(homedir_path: String, places: &Places) -> Self {
        Self {
            homedir_path,
            max_requests: MAX_REQUESTS,
            cert_issuance: CertIssuance::default(),
            preloaded_certs: BTreeMap::new(),
            principals: Vec::new(),
            endpoint: Endpoint::default_of(&places.sockets, "certd"),
            keyd_endpoint: Endpoint::default_of(&places.sockets, "keyd"),
        }
    }

    /// Decodes a merged configuration.
    ///
    /// # Errors
    ///
    /// All problems found, each with its place.
    pub fn read(merged: &Merged, places: &Places) -> Result<Loaded<Self>, Invalid> {
        let reader = Reader::new(merged);
        let settings = Self::decode(&reader.root(), places);
        reader.finish(settings)
    }

    fn decode(root: &Section<'_>, places: &Places) -> Option<Self> {
        let homedir_path = root.required(
            "homedir_path",
            "add `homedir_path = \"/var/lib/aziot/certd\"`",
        );
        let max_requests = max_requests(root);
        let cert_issuance = root
            .table("cert_issuance")
            .map(|section| CertIssuance::read(&section))
            .unwrap_or_default();
        let preloaded_certs = root.map_of("preloaded_certs");
        let principals: Option<_> = root
            .tables("principal")
            .into_iter()
            .map(Principal::read)
            .collect();
        let endpoints = root.table("endpoints");
        let endpoint = |key, name| {
            Endpoint::read(
                endpoints.as_ref(),
                key,
                Endpoint::default_of(&places.sockets, name),
            )
        };
        let (own, keyd) = (
            endpoint("aziot_certd", "certd"),
            endpoint("aziot_keyd", "keyd"),
        );
        if let Some(endpoints) = endpoints {
            know_all_endpoints(&endpoints);
            endpoints.finish();
        }
        root.finish_ref();
        Some(Self {
            homedir_path: homedir_path?,
            max_requests,
            cert_issuance,
            preloaded_certs,
            principals: principals?,
            endpoint: own,
            keyd_endpoint: keyd,
        })
    }

    /// The settings as a document in the canonical layout (`certificates-service` 2.10).
    pub fn to_toml(&self) -> Zeroizing<String> {
        let mut writer = Writer::new();
        writer.string("homedir_path", &self.homedir_path);
        if self.max_requests != MAX_REQUESTS {
            writer.plain("max_requests", self.max_requests);
        }
        self.cert_issuance.write(&mut writer);
        writer.table(&["preloaded_certs"]);
        for (id, cert) in &self.preloaded_certs {
            match cert {
                PreloadedCert::Uri(uri) => writer.string(id, uri),
                PreloadedCert::Ids(ids) => writer.strings(id, ids.iter().map(String::as_str)),
            }
        }
        for principal in &self.principals {
            writer.array_table(&["principal"]);
            writer.plain("uid", principal.uid);
            writer.strings("certs", principal.certs.iter().map(String::as_str));
        }
        writer.finish()
    }
}

impl Principal {
    fn read(section: Section<'_>) -> Option<Self> {
        let uid = section.required("uid", "add `uid = …`, the numeric user id of the program");
        let certs = section.required(
            "certs",
            "add `certs = [\"…\"]`, the ids of the certificates it may write",
        );
        section.finish();
        Some(Self {
            uid: uid?,
            certs: certs?,
        })
    }
}

impl CertIssuance {
    /// The base URL of the EST server for a certificate: its own, else that of its id, else the default.
    pub fn est_url(&self, id: &str) -> Option<&str> {
        let own = self.certs.get(id).and_then(|options| options.url.as_ref());
        let urls = self.est.as_ref().map(|est| &est.urls);
        own.or_else(|| urls?.get(id))
            .or_else(|| urls?.get(DEFAULT_URL))
            .map(String::as_str)
    }

    /// How to authenticate to the EST server for a certificate: in its own way if it has one, else by default. None if there
    /// is no way at all.
    pub fn est_auth(&self, id: &str) -> Option<&EstAuth> {
        let own = self.certs.get(id).map(|options| &options.auth);
        let default = self.est.as_ref().map(|est| &est.auth);
        own.filter(|auth| auth.exists())
            .or(default)
            .filter(|auth| auth.exists())
    }

    fn read(section: &Section<'_>) -> Self {
        let est = section.table("est").map(Est::read);
        let local_ca = section.table("local_ca").and_then(LocalCa::read);
        let certs = section
            .entry_tables()
            .filter(|(id, _)| !matches!(*id, "est" | "local_ca"))
            .filter_map(|(id, options)| Some((id.into(), Issuance::read(options)?)))
            .collect();
        Self {
            est,
            local_ca,
            certs,
        }
    }

    fn write(&self, writer: &mut Writer) {
        if self.est.is_none() && self.local_ca.is_none() && self.certs.is_empty() {
            writer.table(&["cert_issuance"]);
        }
        if let Some(est) = &self.est {
            writer.table(&["cert_issuance", "est"]);
            if !est.trusted_certs.is_empty() {
                writer.strings(
                    "trusted_certs",
                    est.trusted_certs.iter().map(String::as_str),
                );
            }
            est.auth.write(writer);
            if est.identity_auto_renew != AutoRenew::default() {
                let path = ["cert_issuance", "est", "identity_auto_renew"];
                est.identity_auto_renew.write(writer, &path);
            }
            if !est.urls.is_empty() {
                writer.table(&["cert_issuance", "est", "urls"]);
                for (id, url) in &est.urls {
                    writer.string(id, url);
                }
            }
        }
        if let Some(ca) = &self.local_ca {
            writer.table(&["cert_issuance", "local_ca"]);
            writer.string("cert", &ca.cert);
            writer.string("pk", &ca.pk);
        }
        for (id, options) in &self.certs {
            options.write(writer, id);
        }
    }
}

impl LocalCa {
    fn read(section: Section<'_>) -> Option<Self> {
        let cert = section.required("cert", "add `cert = \"local-ca\"`, a certificate id");
        let pk = section.required("pk", "add `pk = \"local-ca\"`, the id of its key pair");
        section.finish();
        Some(Self {
            cert: cert?,
            pk: pk?,
        })
    }
}

impl Est {
    fn read(section: Section<'_>) -> Self {
        let trusted_certs = section.optional("trusted_certs").unwrap_or_default();
        let mut auth = EstAuth::read(&section);
        // The place where the super-config has these keys, and where documentation showed them.
        if let Some(nested) = section.table("auth") {
            section.reader().warning(
                section.key_at("auth"),
                "`cert_issuance.est.auth` is read as a part of `cert_issuance.est`, whose own keys win",
                "write its keys directly into [cert_issuance.est]: release 1.6.0 ignores them here",
            );
            let alias = EstAuth::read(&nested);
            auth.basic = auth.basic.or(alias.basic);
            auth.x509 = auth.x509.or(alias.x509);
            nested.finish();
        }
        let identity_auto_renew =
            AutoRenew::read_rotating(&section, "identity_auto_renew").unwrap_or_default();
        let urls = est_urls(&section);
        section.finish();
        Self {
            trusted_certs,
            auth,
            identity_auto_renew,
            urls,
        }
    }
}

/// The table `urls`, also used for the super-config.
pub(crate) fn est_urls(section: &Section<'_>) -> BTreeMap<String, String> {
    let Some(urls) = section.table("urls") else {
        return BTreeMap::new();
    };
    let read = urls.map::<Url>();
    for (id, url) in &read {
        warn_http(&urls, id, url);
    }
    read.into_iter()
        .map(|(id, url)| (id, url.to_string()))
        .collect()
}

/// Warns about an EST server without TLS.
pub(crate) fn warn_http(section: &Section<'_>, key: &str, url: &Url) {
    if url.scheme() == "http" {
        section.reader().warning(
            section.key_at(key),
            format!(
                "EST server URL \"{}\" is configured with unencrypted HTTP, which may expose \
                 device to man-in-the-middle attacks",
                url.without_user_info()
            ),
            "to clear this warning, configure HTTPS for your EST server and update the URL",
        );
    }
}

impl EstAuth {
    /// Reads the keys of a table that has them directly. What is incomplete is absent, with a warning.
    fn read(section: &Section<'_>) -> Self {
        let basic = pair(section, "username", "password");
        let identity = pair(section, "identity_cert", "identity_pk");
        let bootstrap_given =
            section.has("bootstrap_identity_cert") || section.has("bootstrap_identity_pk");
        let bootstrap = pair(section, "bootstrap_identity_cert", "bootstrap_identity_pk");
        let x509 = match (identity, bootstrap) {
            // Half a bootstrap pair makes the whole group incomplete.
            (Some(_), None) if bootstrap_given => None,
            (Some((identity_cert, identity_pk)), bootstrap) => Some(EstIdentity {
                identity_cert,
                identity_pk,
                bootstrap,
            }),
            (None, Some(_)) => {
                section.without_effect(
                    "bootstrap_identity_cert",
                    "identity_cert and identity_pk are missing beside it",
                );
                None
            }
            (None, None) => None,
        };
        Self { basic, x509 }
    }

    fn write(&self, writer: &mut Writer) {
        if let Some((username, password)) = &self.basic {
            writer.string("username", username);
            writer.string("password", password);
        }
        if let Some(x509) = &self.x509 {
            writer.string("identity_cert", &x509.identity_cert);
            writer.string("identity_pk", &x509.identity_pk);
            if let Some((cert, pk)) = &x509.bootstrap {
                writer.string("bootstrap_identity_cert", cert);
                writer.string("bootstrap_identity_pk", pk);
            }
        }
    }
}

/// Two values that only count together, and only if both fit. Anything else gets a warning.
pub(crate) fn pair<'a, A, B>(
    section: &Section<'a>,
    first: &'static str,
    second: &'static str,
) -> Option<(A, B)>
where
    A: FromValue<'a>,
    B: FromValue<'a>,
{
    match (section.has(first), section.has(second)) {
        (true, false) => section.without_effect(first, &format!("`{second}` is missing beside it")),
        (false, true) => section.without_effect(second, &format!("`{first}` is missing beside it")),
        _ => {}
    }
    if !(section.has(first) && section.has(second)) {
        return None;
    }
    let (first, second) = (section.lenient(first), section.lenient(second));
    first.zip(second)
}

impl Issuance {
    fn read(section: Section<'_>) -> Option<Self> {
        let method = section.required("method", METHOD);
        let expiry_days = expiry_days(&section);
        let subject = subject(&section);
        let (mut url, mut auth) = (None, EstAuth::default());
        if method == Some(Method::Est) {
            url = section.optional::<Url>("url").map(|url| url.to_string());
            auth = EstAuth::read(&section);
        } else {
            without_est(&section);
        }
        section.finish();
        Some(Self {
            method: method?,
            url,
            auth,
            expiry_days,
            subject,
        })
    }

    fn write(&self, writer: &mut Writer, id: &str) {
        writer.table(&["cert_issuance", id]);
        writer.string("method", self.method.name());
        writer.optional_string("url", self.url.as_deref());
        self.auth.write(writer);
        if let Some(days) = self.expiry_days {
            writer.plain("expiry_days", days);
        }
        match &self.subject {
            None => {}
            Some(Subject::CommonName(name)) => writer.string("common_name", name),
            Some(Subject::Fields(fields)) => {
                writer.table(&["cert_issuance", id, "subject"]);
                for (name, value) in fields {
                    writer.string(name, value);
                }
            }
        }
    }
}

/// Remedy for a missing `method`.
pub(crate) const METHOD: &str = "add `method = \"est\"`, \"local_ca\" or \"self_signed\"";

/// Keys that count only with `method = "est"`.
pub(crate) fn without_est(section: &Section<'_>) {
    const KEYS: [&str; 7] = [
        "url",
        "username",
        "password",
        "identity_cert",
        "identity_pk",
        "bootstrap_identity_cert",
        "bootstrap_identity_pk",
    ];
    for key in KEYS {
        section.without_effect(key, "it belongs to method = \"est\"");
    }
}

/// The lifetime, if given.
pub(crate) fn expiry_days(section: &Section<'_>) -> Option<u32> {
    let days = section.optional("expiry_days")?;
    if days == 0 {
        section.refuse(
            "expiry_days",
            "expiry_days must be greater than 0",
            "write the lifetime of the certificate in days, or leave it out",
        );
    }
    Some(days)
}

/// `common_name`, which wins, or `subject`. What does not fit counts as absent, with a warning.
pub(crate) fn subject(section: &Section<'_>) -> Option<Subject> {
    if section.has("common_name") {
        section.without_effect("subject", "common_name is given as well");
        return section.lenient("common_name").map(Subject::CommonName);
    }
    section.lenient_map("subject").map(Subject::Fields)
}

impl<'a> FromValue<'a> for PreloadedCert {
    fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
        match &value.kind {
            Kind::Text(_) => Url::from_value(value).map(|url| Self::Uri(url.to_string())),
            Kind::Array(_) => Vec::from_value(value).map(Self::Ids),
            _ => Err(Mismatch::new(
                format!(
                    "invalid type: {}, expected a URL or a list of ids",
                    value.describe()
                ),
                "write \"file:///…\", or the ids of other certificates in brackets",
            )),
        }
    }
}
