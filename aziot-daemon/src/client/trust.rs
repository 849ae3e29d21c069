//! Whom TLS clients trust.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ssl::{ConnectConfiguration, SslConnector, SslMethod};
use openssl::x509::X509;

/// What OpenSSL's default verify paths say, so `SSL_CERT_FILE` and `SSL_CERT_DIR` work, and certificates beside that.
///
/// Loading the default store takes tens of milliseconds and a megabyte. It is done when the first connection is made, shared
/// by all clients with this trust, and undone by [`Trust::release`].
#[derive(Default)]
pub struct Trust {
    anchors: Vec<X509>,
    connector: Mutex<Option<SslConnector>>,
}

impl Trust {
    /// Trust in these certificates beside the default store. Nothing is loaded yet.
    #[must_use]
    pub fn with_anchors(anchors: Vec<X509>) -> Self {
        Self {
            anchors,
            connector: Mutex::default(),
        }
    }

    /// Forgets the store. It is loaded again when needed, so that changes to it are seen too.
    pub fn release(&self) {
        *self
            .connector
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What a connection starts from: it verifies the peer's certificate.
    pub(super) fn configure(&self) -> Result<ConnectConfiguration, ErrorStack> {
        let mut shared = self
            .connector
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let connector = match &mut *shared {
            Some(connector) => connector,
            none => none.insert(self.connector()?),
        };
        connector.configure()
    }

    fn connector(&self) -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        for anchor in &self.anchors {
            // One that is there already is no error since OpenSSL 1.1.
            builder.cert_store_mut().add_cert(anchor.clone())?;
        }
        Ok(builder.build())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("anchors", &self.anchors.len())
            .finish_non_exhaustive()
    }
}
