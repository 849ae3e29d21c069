//! What the EST jobs of one configuration share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aziot_core::config::certd::Settings;
use openssl::x509::X509;

use super::super::error::Error;
use super::super::tools::Tools;
use crate::client::{Identity, Proxies, ProxyError, TlsClient, Trust};

/// Largest body of an EST server's answer, in bytes (DB-23).
const BODY: usize = 1 << 20;

/// What jobs work with. It lives until the configuration is read again, and the last job that began before is done.
#[derive(Debug)]
pub struct Shared {
    /// The Keys Service, the store, the locks, the limits.
    pub tools: Arc<Tools>,
    /// The configuration.
    pub settings: Arc<Settings>,
    proxies: Result<Arc<Proxies>, ProxyError>,
    /// Once it could be read.
    trust: Mutex<Option<Arc<Trust>>>,
}

impl Shared {
    /// For this configuration. Nothing is read yet.
    #[must_use]
    pub fn new(
        tools: Arc<Tools>,
        settings: Arc<Settings>,
        proxies: Result<Arc<Proxies>, ProxyError>,
    ) -> Self {
        Self {
            tools,
            settings,
            proxies,
            trust: Mutex::default(),
        }
    }

    /// Whom to trust: the default store and `trusted_certs`. They are read once; what cannot be read is tried again.
    ///
    /// # Errors
    /// One of them cannot be read, or is no certificate.
    pub fn trust(&self) -> Result<Arc<Trust>, Error> {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trust) = &*trust {
            return Ok(Arc::clone(trust));
        }
        let ids = self.settings.cert_issuance.est.iter();
        let mut anchors = Vec::new();
        for id in ids.flat_map(|est| &est.trusted_certs) {
            let unreadable = || {
                Error::internal(format_args!(
                    "cert_issuance.est.trusted_certs contains unreadable cert {id:?}"
                ))
            };
            let text = self
                .read(id)
                .map_err(|error| unreadable().caused_by(error.one_line()))?
                .ok_or_else(|| unreadable().caused_by("not found"))?;
            let certificates = X509::stack_from_pem(text.as_bytes())
                .map_err(|error| unreadable().caused_by(error))?;
            if certificates.is_empty() {
                return Err(unreadable().caused_by("there is no certificate in it"));
            }
            anchors.extend(certificates);
        }
        let new = Arc::new(Trust::with_anchors(anchors));
        *trust = Some(Arc::clone(&new));
        Ok(new)
    }

    /// A client that proves to be `identity`.
    ///
    /// # Errors
    /// It is not known whom to trust, or which proxy to use.
    pub fn client(&self, identity: Option<Identity>) -> Result<TlsClient, Error> {
        let proxies = self.proxies.as_ref().map_err(Error::internal)?;
        let client = match identity {
            Some(identity) => TlsClient::with_identity(identity),
            None => TlsClient::new(),
        };
        Ok(client
            .trusting(self.trust()?)
            .through(Arc::clone(proxies))
            .bounded(BODY))
    }

    /// The text stored under `id`, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, id: &str) -> Result<Option<String>, Error> {
        let store = &self.tools.store;
        store.read(&store.target(&self.settings.preloaded_certs, id)?)
    }

    /// Stores a text under `id`.
    ///
    /// # Errors
    /// It cannot be stored.
    pub fn write(&self, id: &str, text: &str) -> Result<(), Error> {
        let store = &self.tools.store;
        store.write(&store.target(&self.settings.preloaded_certs, id)?, text)
    }

    /// When an enrolment that begins now has to be done.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.tools.timing.enrolment
    }

    /// Gives memory back that the next enrolment can do without having kept.
    pub fn release(&self) {
        let trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trust) = &*trust {
            trust.release();
        }
    }
}
