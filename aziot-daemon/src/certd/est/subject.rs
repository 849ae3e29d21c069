//! The subject of a new EST identity (certificates-service 7.2).

use aziot_core::config::certd::Settings;
use aziot_crypto::x509::CertificationRequest;

use super::super::error::Error;
use super::super::issue::encode_name;

/// The configured subject of the certificate `id`, else the one of the request for it. DER.
///
/// # Errors
/// The configured subject cannot be written, or the request cannot be read.
pub fn of(settings: &Settings, id: &str, csr: &[u8]) -> Result<Vec<u8>, Error> {
    let entry = settings.cert_issuance.certs.get(id);
    match entry.and_then(|entry| entry.subject.as_ref()) {
        Some(subject) => {
            let mut room = Vec::new();
            encode_name(subject, &mut room).map(<[u8]>::to_vec)
        }
        None => CertificationRequest::parse(csr)
            .map(|request| request.subject().to_vec())
            .map_err(Error::internal),
    }
}
