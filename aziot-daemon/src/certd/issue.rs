//! The jobs of issuing a certificate: judging the request for it, and signing (certificates-service 6).

use aziot_core::api::certs;
use aziot_core::config::certd::{Method, Settings, Subject};
use aziot_core::der::Reader;
use aziot_core::pem;
use aziot_crypto::openssl::OpenSslVerifier;
use aziot_crypto::x509::{
    Certificate, CertificationRequest, Issuer, Serial, Template, Validity, build, name, spki,
};

use super::error::Error;
use super::store::Store;
use super::target::Target;
use super::tools::Tools;
use crate::client::{KeyHandle, RemoteSigner};
use crate::clock;

/// How long a certificate is valid, if the configuration does not say, in days.
const DAYS: u32 = 30;

/// Labels of PEM blocks with a request.
const REQUEST: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// Labels of PEM blocks with a certificate.
pub const CERTIFICATE: [&str; 2] = ["CERTIFICATE", "X509 CERTIFICATE"];

/// Room in a certificate for what is neither in the request nor in the issuer's certificate nor the signature.
const CERTIFICATE_ROOM: usize = 1024;

/// Who signs, as a request says it.
#[derive(Debug)]
pub struct NamedIssuer {
    /// The id of the issuer's certificate.
    pub id: String,
    /// The handle of its key.
    pub key: KeyHandle,
}

/// How a certificate is to be issued.
#[derive(Debug)]
pub enum Way {
    /// Signed by a key of the Keys Service.
    Sign(Terms),
    /// By an EST server.
    Est,
    /// Not at all, which the client learns when there is nothing wrong with its request.
    Refuse(Error),
}

/// What a certificate is signed by and what it says, beside what is in the request for it.
#[derive(Debug)]
pub struct Terms {
    issuer: Option<IssuerCert>,
    key: Key,
    days: u32,
    subject: Option<Subject>,
}

/// The certificate of the issuer.
#[derive(Debug)]
enum IssuerCert {
    /// The one of the local CA.
    LocalCa(Target),
    /// One that the request names.
    Named(Result<Target, Error>),
}

/// The key that signs.
#[derive(Debug)]
enum Key {
    Handle(KeyHandle),
    Id(String),
}

impl Way {
    /// The way to a certificate `id` (certificates-service 6.2). Touches no disk.
    #[must_use]
    pub fn of(settings: &Settings, store: &Store, id: &str, issuer: Option<NamedIssuer>) -> Self {
        let entry = settings.cert_issuance.certs.get(id);
        let terms = |issuer, key| {
            Self::Sign(Terms {
                issuer,
                key,
                days: entry.and_then(|entry| entry.expiry_days).unwrap_or(DAYS),
                subject: entry.and_then(|entry| entry.subject.clone()),
            })
        };
        let target = |id: &str| store.target(&settings.preloaded_certs, id);
        if let Some(issuer) = issuer {
            let cert = IssuerCert::Named(target(&issuer.id));
            return terms(Some(cert), Key::Handle(issuer.key));
        }
        let refuse = |error: Error| Self::Refuse(error);
        match entry.map(|entry| entry.method) {
            None => refuse(
                Error::internal("parameter \"issuer\" has an invalid value")
                    .caused_by("issuer is required for locally-issued certs"),
            ),
            Some(Method::Est) => Self::Est,
            Some(Method::SelfSigned) => terms(None, Key::Id(id.to_owned())),
            Some(Method::LocalCa) => match &settings.cert_issuance.local_ca {
                None => refuse(Error::internal(format_args!(
                    "cert {id:?} is configured to be issued by local CA, but local CA is not configured"
                ))),
                Some(ca) => match target(&ca.cert) {
                    Ok(target) => terms(Some(IssuerCert::LocalCa(target)), Key::Id(ca.pk.clone())),
                    Err(error) => refuse(error),
                },
            },
        }
    }
}

/// A request that nothing is wrong with.
#[derive(Debug)]
pub struct Prepared {
    /// Where the certificate goes.
    pub target: Target,
    /// The request in DER.
    pub request: Vec<u8>,
    /// How to go on.
    pub next: Next,
}

/// What is done with a request that nothing is wrong with.
#[derive(Debug)]
pub enum Next {
    /// An EST server is asked.
    Enrol,
    /// It is signed.
    Sign(Issuance),
}

/// Everything that it takes to sign.
#[derive(Debug)]
pub struct Issuance {
    /// The certificates of the issuer in DER, its own first. Empty for a self-signed certificate.
    chain: Vec<Vec<u8>>,
    key: Key,
    days: u32,
    subject: Option<Subject>,
}

/// Judges a request for a certificate, and looks for what it takes to issue it. For a job that may read files.
///
/// # Errors
/// What the client is told, in the order in which the mistakes of a client have always been found: the request, then its
/// issuer; then everything else.
pub fn prepare(
    tools: &Tools,
    csr: &str,
    way: Way,
    target: Result<Target, Error>,
) -> Result<Prepared, Error> {
    let request = read_request(csr)?;
    let next = match way {
        Way::Refuse(error) => return Err(error),
        Way::Est => Next::Enrol,
        Way::Sign(terms) => {
            let parsed = CertificationRequest::parse(&request).map_err(bad_request)?;
            parsed.extensions().map_err(bad_request)?;
            Next::Sign(terms.complete(tools)?)
        }
    };
    let target = target?;
    tools.store.check_writable(&target)?;
    Ok(Prepared {
        target,
        request,
        next,
    })
}

/// The request in a PEM text, its signature checked, in DER.
fn read_request(text: &str) -> Result<Vec<u8>, Error> {
    let mut blocks = pem::blocks(text.as_bytes());
    let block = blocks
        .find(|block| REQUEST.contains(&block.label))
        .ok_or_else(|| {
            bad_request("there is no PEM block with the label CERTIFICATE REQUEST in it")
        })?;
    let der = decode(&block).map_err(bad_request)?;
    let request = CertificationRequest::parse(&der).map_err(bad_request)?;
    match request.verify(&OpenSslVerifier) {
        Ok(true) => Ok(der),
        Ok(false) => Err(certs::Error::CsrSignature.into()),
        Err(error) => Err(bad_request(error)),
    }
}

fn bad_request(reason: impl std::fmt::Display) -> Error {
    certs::Error::Csr(reason.to_string()).into()
}

fn decode(block: &pem::Block<'_>) -> Result<Vec<u8>, pem::Error> {
    let mut der = vec![0; block.max_len()];
    let length = block.decode(&mut der)?.len();
    der.truncate(length);
    Ok(der)
}

impl Terms {
    /// Reads the certificates of the issuer.
    fn complete(self, tools: &Tools) -> Result<Issuance, Error> {
        let chain = match &self.issuer {
            None => Vec::new(),
            Some(IssuerCert::LocalCa(target)) => {
                let id = target.id();
                let text = tools.store.read(target)?.ok_or_else(|| {
                    Error::internal(format_args!("cert for issuer id {id:?} not found"))
                })?;
                let chain = certificates(id, &text)?;
                if chain.is_empty() {
                    return Err(Error::internal(format_args!(
                        "there is no certificate in what is stored for issuer id {id:?}"
                    )));
                }
                chain
            }
            Some(IssuerCert::Named(target)) => {
                let target = target.as_ref().map_err(Error::clone)?;
                let text = tools
                    .store
                    .read(target)?
                    .ok_or(Error::Told(certs::Error::IssuerNotFound))?;
                let chain = certificates(target.id(), &text)?;
                if chain.is_empty() {
                    return Err(certs::Error::IssuerEmpty.into());
                }
                chain
            }
        };
        if let Key::Handle(handle) = &self.key {
            certs::check_issuer_key(handle.as_str()).map_err(Error::Told)?;
        }
        Ok(Issuance {
            chain,
            key: self.key,
            days: self.days,
            subject: self.subject,
        })
    }
}

/// All certificates of a PEM text in DER, in order.
fn certificates(id: &str, text: &str) -> Result<Vec<Vec<u8>>, Error> {
    pem::blocks(text.as_bytes())
        .filter(|block| CERTIFICATE.contains(&block.label))
        .map(|block| {
            let unusable = |error: &dyn std::fmt::Display| {
                Error::internal(format_args!("the cert for issuer id {id:?} cannot be used"))
                    .caused_by(error)
            };
            let der = decode(&block).map_err(|error| unusable(&error))?;
            Reader::whole_sequence(&der).map_err(|error| unusable(&error))?;
            Ok(der)
        })
        .collect()
}

/// Signs. For a job that may ask the Keys Service. Answers the certificate and those of its issuer in PEM.
///
/// # Errors
/// None of them is the client's business.
pub fn sign(tools: &Tools, request: &[u8], issuance: &Issuance) -> Result<String, Error> {
    let mut text = String::new();
    append(&mut text, &leaf(tools, request, issuance)?)?;
    for der in &issuance.chain {
        append(&mut text, der)?;
    }
    Ok(text)
}

/// The new certificate in DER.
fn leaf(tools: &Tools, request: &[u8], issuance: &Issuance) -> Result<Vec<u8>, Error> {
    let now = clock::now();
    if !clock::is_plausible(now, None) {
        return Err(Error::internal(
            "the clock of this device is set to a time before this release; nothing is issued until it is set",
        ));
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let request = CertificationRequest::parse(request).map_err(bad_request)?;
    let issuer = issuance.chain.first().map(|der| {
        Certificate::parse(der).map_err(|error| {
            Error::internal("the certificate of the issuer cannot be used").caused_by(error)
        })
    });
    let issuer = issuer.transpose()?;
    let validity =
        Validity::of_days(now, issuance.days, issuer.as_ref()).map_err(Error::internal)?;
    let mut room = Vec::new();
    let subject = match &issuance.subject {
        None => request.subject(),
        Some(subject) => encode_name(subject, &mut room)?,
    };
    let signer = match &issuance.key {
        Key::Handle(handle) => RemoteSigner::load(&tools.keys, handle.clone()),
        Key::Id(id) => RemoteSigner::load_by_id(&tools.keys, id),
    }
    .map_err(Error::internal)?;
    let issuer_key = issuer
        .as_ref()
        .map_or(request.public_key(), Certificate::public_key);
    if !spki::same_key(signer.public_key(), issuer_key) {
        return Err(mismatch(issuance, issuer.as_ref()));
    }
    let template = Template {
        serial: Serial::from_random(random()?),
        issuer: issuer.as_ref().map(Issuer::from),
        validity,
        subject,
        public_key: request.public_key(),
        extensions: request.extensions().map_err(bad_request)?,
    };
    let mut out = vec![
        0;
        request.der().len()
            + subject.len()
            + issuer.as_ref().map_or(0, |issuer| issuer.der().len())
            + signer.max_size()
            + CERTIFICATE_ROOM
    ];
    let built = build(&template, &signer, &mut out).map_err(Error::internal)?;
    // A key library may be anything.
    let certificate = Certificate::parse(built).map_err(Error::internal)?;
    match certificate.is_signed_with(issuer_key, &OpenSslVerifier) {
        Ok(true) => {}
        Ok(false) => {
            return Err(Error::internal(
                "the signature that the Keys Service has made is not right; check the key library",
            ));
        }
        Err(error) => return Err(Error::internal(error)),
    }
    let length = built.len();
    out.truncate(length);
    Ok(out)
}

/// The key that was to sign is not the one that others will check the signature with.
fn mismatch(issuance: &Issuance, issuer: Option<&Certificate<'_>>) -> Error {
    let which = match &issuance.key {
        Key::Id(id) => format!("the key pair {id:?}"),
        Key::Handle(_) => "the key pair of the given handle".to_owned(),
    };
    Error::internal(match issuer {
        Some(issuer) => format!(
            "{which} is not the one of the issuer's certificate ({})",
            name::Text(issuer.subject())
        ),
        None => format!("{which} is not the one in the request, so it cannot sign for itself"),
    })
}

/// The configured subject in DER.
pub(super) fn encode_name<'o>(subject: &Subject, room: &'o mut Vec<u8>) -> Result<&'o [u8], Error> {
    /// Tags, lengths and an object identifier.
    const FIELD: usize = 64;
    let fields: Vec<(&str, &str)> = match subject {
        Subject::CommonName(name) => vec![("CN", name)],
        Subject::Fields(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect()
        }
    };
    let values = fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + FIELD);
    room.resize(values.sum::<usize>() + FIELD, 0);
    name::encode(fields, room).map_err(Error::internal)
}

fn random() -> Result<[u8; 20], Error> {
    let mut bytes = [0; 20];
    match openssl::rand::rand_bytes(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Error::internal(format_args!(
            "there are no random numbers: {error}"
        ))),
    }
}

fn append(text: &mut String, der: &[u8]) -> Result<(), Error> {
    const LABEL: &str = "CERTIFICATE";
    let mut room = vec![0; pem::encoded_len(LABEL, der.len())];
    let block = pem::encode(LABEL, der, &mut room).map_err(Error::internal)?;
    text.push_str(block);
    Ok(())
}
