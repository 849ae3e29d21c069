//! Certificates from EST servers (RFC 7030).

use std::sync::Arc;

use aziot_core::api::certs::status::RenewalState;
use aziot_core::config::certd::Settings;
use aziot_core::time::UnixTime;

use super::Certd;
use super::error::Error;
use super::tools::Tools;
use crate::service::{Alarm, Context, RequestId};

/// What comes back from jobs.
pub enum Event {}

/// How the renewal of a certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The certificate's id.
    pub id: String,
    /// What is being done about it.
    pub state: RenewalState,
    /// Since when that is so.
    pub since: UnixTime,
    /// When it is renewed, or tried again.
    pub next: Option<UnixTime>,
    /// Why it could not be renewed when that was tried last.
    pub last_error: Option<String>,
}

/// The part of the service that talks to EST servers. It lives in the loop's thread.
pub struct Est {}

impl Est {
    /// Without settings; nothing is known yet.
    #[must_use]
    pub fn new(_tools: Arc<Tools>) -> Self {
        Self {}
    }

    /// Takes up settings, at the start and after each reading of the configuration, changed or not.
    pub fn configure(&mut self, _settings: &Arc<Settings>, _cx: &mut Context<'_, Certd>) {}

    /// Has an EST server issue the certificate `id` for this request (DER). It ends in an [`Event::Issued`](super::Event::Issued).
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn enrol(
        &mut self,
        _request: RequestId,
        id: &str,
        _csr: Vec<u8>,
        _cx: &mut Context<'_, Certd>,
    ) -> Result<(), Error> {
        Err(Error::internal(format!(
            "cert {id:?} is configured to be issued by EST, which this build does not contain"
        )))
    }

    /// Digests the result of a job.
    pub fn event(&mut self, event: Event, _cx: &mut Context<'_, Certd>) {
        match event {}
    }

    /// An alarm that is not the service's own, or a step of the wall clock.
    pub fn alarm(&mut self, _alarm: Alarm, _cx: &mut Context<'_, Certd>) {}

    /// A client has written or deleted a certificate.
    pub fn store_changed(&mut self, _id: &str, _cx: &mut Context<'_, Certd>) {}

    /// The certificates that are renewed.
    #[must_use]
    pub fn renewals(&self) -> Vec<Renewal> {
        Vec::new()
    }
}
