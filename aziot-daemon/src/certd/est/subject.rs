//! The subject of a new EST identity (certificates-service 7.2).

use aziot_core::config::certd::{Settings, Subject};
use aziot_crypto::x509::{CertificationRequest, name};

use super::super::error::Error;

/// The configured subject of the certificate `id`, else the one of the request for it. DER.
///
/// # Errors
/// The configured subject cannot be written, or the request cannot be read.
pub fn of(settings: &Settings, id: &str, csr: &[u8]) -> Result<Vec<u8>, Error> {
    let entry = settings.cert_issuance.certs.get(id);
    match entry.and_then(|entry| entry.subject.as_ref()) {
        Some(subject) => encode(subject),
        None => CertificationRequest::parse(csr)
            .map(|request| request.subject().to_vec())
            .map_err(Error::internal),
    }
}

fn encode(subject: &Subject) -> Result<Vec<u8>, Error> {
    /// Tags, lengths and an object identifier.
    const FIELD: usize = 64;
    let fields: Vec<(&str, &str)> = match subject {
        Subject::CommonName(name) => vec![("CN", name)],
        Subject::Fields(fields) => {
            let fields = fields.iter();
            fields.map(|(name, value)| (name.as_str(), value.as_str())).collect()
        }
    };
    let values = fields.iter().map(|(name, value)| name.len() + value.len() + FIELD);
    let mut room = vec![0; values.sum::<usize>() + FIELD];
    name::encode(fields, &mut room).map(<[u8]>::to_vec).map_err(Error::internal)
}
