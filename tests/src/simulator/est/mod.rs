//! The EST side (RFC 7030): realms below paths of their own, each with its rules.
//!
//! A realm takes `cacerts`, `simpleenroll`, and, where its rules say so, `simplereenroll` and `csrattrs`. It checks the head and
//! the body of a request to the letter, the signature of the certificate request (proof of possession), who the client is
//! (basic credentials, TLS client certificate and its chain), and for a renewal that the names stay the same (section 4.2.2).
//! How it answers can be bent in every way that servers have been seen to.

mod authority;

use std::collections::BTreeMap;

use openssl::x509::{X509, X509Req};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use base64ct::{Base64, Encoding as _};

pub use self::authority::{Authorities, Terms, Voucher};
use super::clock::Clock;
use super::http::{Request, Response};
use super::service::Refusal;
use super::world::World;
use crate::pki::Validity;

/// The realm that exists from the start, by the path of RFC 5785.
pub const WELL_KNOWN: &str = ".well-known/est";

/// The media type of certificates (RFC 7030 section 4.1.3).
const CERTIFICATES: &str = "application/pkcs7-mime; smime-type=certs-only";

/// A PKCS #7 without content: it is legal, and has been seen.
const NO_CONTENT: &[u8] = &[
    0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02,
];

/// The rules of a realm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Realm {
    /// The credentials that a client has to send.
    pub basic: Option<Basic>,
    /// The client certificate that it has to present.
    pub client: Client,
    /// How long certificates are valid, in seconds from now.
    pub lifetime: i64,
    /// How far back they begin, in seconds.
    pub backdate: i64,
    /// Whether there is `simplereenroll`.
    pub reenroll: bool,
    /// What `csrattrs` asks for: object identifiers; without them there is no `csrattrs`.
    pub csr_attributes: Vec<String>,
    /// How often a request is answered with 202 before it is granted.
    pub pending: u32,
    /// The `Retry-After` of 202 answers, in seconds; none leaves the header out.
    pub retry_after: Option<u32>,
    /// How certificates are encoded.
    pub form: Form,
    /// What an enrolment yields.
    pub yields: Yields,
    /// The content type of certificates.
    pub content_type: Option<String>,
}

impl Default for Realm {
    fn default() -> Self {
        Self {
            basic: None,
            client: Client::None,
            lifetime: 30 * 86_400,
            backdate: 0,
            reenroll: true,
            csr_attributes: Vec::new(),
            pending: 0,
            retry_after: Some(1),
            form: Form::Base64,
            yields: Yields::Leaf,
            content_type: Some(CERTIFICATES.to_owned()),
        }
    }
}

/// Credentials of RFC 7617.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Which TLS client certificate is demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Client {
    /// None. One that is presented has to be good all the same.
    #[default]
    None,
    /// One that any authority here vouches for.
    Any,
    /// A bootstrap identity.
    Bootstrap,
    /// One that was issued here.
    Issued,
}

/// How certificates are encoded on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// Base64 in lines of 64 characters with CR LF.
    #[default]
    Base64,
    /// Base64 with white space in odd places.
    Ragged,
    /// Base64 in one line.
    OneLine,
    /// DER as it is.
    Der,
    /// PEM with the label `PKCS7`.
    Pem,
}

/// What an enrolment yields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Yields {
    /// The certificate alone; its authorities are in `cacerts`.
    #[default]
    Leaf,
    /// The certificate with the intermediate behind it.
    Chain,
    /// The same in the wrong order.
    Reversed,
    /// A certificate for another key.
    OtherKey,
    /// A list without certificates.
    Empty,
    /// A PKCS #7 without content.
    NoContent,
    /// What is no PKCS #7 at all.
    Garbage,
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The realm.
    pub realm: String,
    /// `simpleenroll` or `simplereenroll`.
    pub operation: &'static str,
    /// The certificate request, DER.
    pub request: Vec<u8>,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// What the client presented in TLS, leaf first, DER.
    pub client: Vec<Vec<u8>>,
    /// The user of its basic credentials.
    pub user: Option<String>,
}

impl Issued {
    fn to_json(&self) -> Value {
        let subject =
            |der: &[u8]| X509::from_der(der).map_or_else(|_| "?".to_owned(), |c| subject(&c));
        json!({
            "realm": self.realm,
            "operation": self.operation,
            "subject": subject(&self.certificate),
            "client": self.client.iter().map(|der| subject(der)).collect::<Vec<_>>(),
            "user": self.user,
            "certificate": Base64::encode_string(&self.certificate),
        })
    }
}

/// The EST side's part of the world.
#[derive(Debug)]
pub struct Est {
    /// Who issues.
    pub authorities: Authorities,
    /// Realms by the path below which they are, without slashes at the ends.
    pub realms: BTreeMap<String, Realm>,
    /// What was issued, oldest first.
    pub issued: Vec<Issued>,
    /// How often a certificate request was answered with 202, by realm and digest.
    pending: BTreeMap<(String, [u8; 32]), u32>,
}

impl Est {
    /// With the realm [`WELL_KNOWN`].
    #[must_use]
    pub fn new(authorities: Authorities) -> Self {
        Self {
            authorities,
            realms: BTreeMap::from([(WELL_KNOWN.to_owned(), Realm::default())]),
            issued: Vec::new(),
            pending: BTreeMap::new(),
        }
    }

    /// As the control interface shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "realms": self.realms,
            "issued": self.issued.iter().map(Issued::to_json).collect::<Vec<_>>(),
        })
    }
}

/// What EST has at the end of its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `cacerts`
    CaCerts,
    /// `csrattrs`
    CsrAttributes,
    /// `simpleenroll`
    Enroll,
    /// `simplereenroll`
    Reenroll,
}

impl Operation {
    /// The operation with this last path segment.
    #[must_use]
    pub fn named(segment: &str) -> Option<Self> {
        Some(match segment {
            "cacerts" => Self::CaCerts,
            "csrattrs" => Self::CsrAttributes,
            "simpleenroll" => Self::Enroll,
            "simplereenroll" => Self::Reenroll,
            _ => return None,
        })
    }

    /// Its name in faults and the log.
    #[must_use]
    pub fn route_name(self) -> &'static str {
        match self {
            Self::CaCerts => "est-cacerts",
            Self::CsrAttributes => "est-csrattrs",
            Self::Enroll => "est-simpleenroll",
            Self::Reenroll => "est-simplereenroll",
        }
    }

    /// Its method.
    #[must_use]
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::CaCerts | Self::CsrAttributes => &["GET"],
            Self::Enroll | Self::Reenroll => &["POST"],
        }
    }

    fn enrols(self) -> bool {
        matches!(self, Self::Enroll | Self::Reenroll)
    }
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    realm: String,
    operation: Operation,
    /// The certificate request, for enrolments.
    body: Vec<u8>,
    client: Vec<Vec<u8>>,
    user: Option<String>,
}

/// What is wrong with the head and the framing of the body of a request, however good its contents.
#[must_use]
pub fn shape_problems(request: &Request, operation: Operation) -> Vec<String> {
    let mut problems = request.syntax.clone();
    let order: &[&str] = if operation.enrols() {
        &[
            "authorization",
            "content-type",
            "content-transfer-encoding",
            "host",
            "content-length",
        ]
    } else {
        &["authorization", "host"]
    };
    let mut last = 0;
    for (sent, _) in &request.headers {
        match order.iter().position(|name| name == sent) {
            None => problems.push(format!("header {sent:?} must not be sent")),
            Some(at) if at < last => {
                problems.push(format!("header {sent:?} is out of order or sent twice"));
            }
            Some(at) => last = at + 1,
        }
    }
    let needed = order.iter().filter(|name| **name != "authorization");
    for name in needed {
        if request.header(name).is_none() {
            problems.push(format!("header {name:?} is missing"));
        }
    }
    if request.query().is_some() {
        problems.push("a query must not be sent".to_owned());
    }
    if !operation.enrols() {
        if !request.body.is_empty() {
            problems.push("a body must not be sent".to_owned());
        }
        return problems;
    }
    for (name, value) in [
        ("content-type", "application/pkcs10"),
        ("content-transfer-encoding", "base64"),
    ] {
        if request.header(name).is_some_and(|sent| sent != value) {
            problems.push(format!("header {name:?} has to be {value:?}"));
        }
    }
    if let Err(problem) = decode_body(&request.body) {
        problems.push(problem);
    }
    problems
}

/// Base64 in lines of 64 characters, each of which ends with LF.
fn decode_body(body: &[u8]) -> Result<Vec<u8>, String> {
    let text = core::str::from_utf8(body).map_err(|_| "the body is not base64".to_owned())?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (at, line) in lines.iter().enumerate() {
        let is_last = at + 1 == lines.len();
        let Some(content) = line.strip_suffix('\n') else {
            return Err("the last line of the body does not end with LF".to_owned());
        };
        if content.len() > 64 || content.is_empty() || (!is_last && content.len() != 64) {
            return Err(format!(
                "line {} of the body has {} characters",
                at + 1,
                content.len()
            ));
        }
    }
    Base64::decode_vec(&text.replace('\n', ""))
        .map_err(|_| "the body is not padded base64".to_owned())
}

/// Checks a request of a realm.
///
/// # Errors
/// The answer that refuses it.
pub fn check(
    world: &World,
    request: &Request,
    realm_path: &str,
    operation: Operation,
) -> Result<Admitted, Refusal> {
    let refuse = |status: u16, reason: String, violation: bool| Refusal {
        response: text(status, &reason),
        reason,
        violation,
    };
    let Some(realm) = world.est.realms.get(realm_path) else {
        return Err(refuse(
            404,
            format!("there is no EST realm {realm_path:?}"),
            false,
        ));
    };
    let offered = match operation {
        Operation::CsrAttributes => !realm.csr_attributes.is_empty(),
        Operation::Reenroll => realm.reenroll,
        Operation::CaCerts | Operation::Enroll => true,
    };
    if !offered {
        return Err(refuse(404, "the realm does not offer it".to_owned(), false));
    }
    let host = request.header("host").unwrap_or_default().to_lowercase();
    if !world.own_hosts.contains(&host) {
        return Err(refuse(
            400,
            format!("host {host:?} is not this server"),
            true,
        ));
    }
    let user = check_basic(realm, request).map_err(|reason| {
        let mut refusal = refuse(401, reason, false);
        refusal.response = refusal
            .response
            .with_header("WWW-Authenticate", "Basic realm=\"est\"");
        refusal
    })?;
    let client = check_client(&world.est.authorities, realm, request, operation)
        .map_err(|reason| refuse(401, reason, false))?;
    let mut body = Vec::new();
    if operation.enrols() {
        body = decode_body(&request.body).map_err(|reason| refuse(400, reason, true))?;
        let csr = X509Req::from_der(&body).map_err(|error| {
            refuse(
                400,
                format!("the body is not a certificate request: {error}"),
                true,
            )
        })?;
        if csr.to_der().ok().as_ref() != Some(&body) {
            return Err(refuse(
                400,
                "the certificate request is not DER".to_owned(),
                true,
            ));
        }
        let verifies = csr.public_key().and_then(|key| csr.verify(&key));
        if !verifies.unwrap_or(false) {
            let reason =
                "the signature of the certificate request does not verify with its key".to_owned();
            return Err(refuse(400, reason, true));
        }
        if operation == Operation::Reenroll {
            check_names(&csr, &client).map_err(|reason| refuse(400, reason, true))?;
        }
    }
    Ok(Admitted {
        realm: realm_path.to_owned(),
        operation,
        body,
        client: request.client.clone(),
        user,
    })
}

fn check_basic(realm: &Realm, request: &Request) -> Result<Option<String>, String> {
    let sent = request.header("authorization");
    let Some(basic) = &realm.basic else {
        // Credentials that nobody asked for are as good as any.
        return Ok(sent.and_then(user_of));
    };
    let wanted = format!(
        "Basic {}",
        Base64::encode_string(format!("{}:{}", basic.username, basic.password).as_bytes())
    );
    match sent {
        Some(sent) if sent == wanted => Ok(Some(basic.username.clone())),
        Some(_) => Err("the credentials are wrong".to_owned()),
        None => Err("credentials are missing".to_owned()),
    }
}

fn user_of(header: &str) -> Option<String> {
    let decoded = Base64::decode_vec(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, _)| user.to_owned())
}

fn check_client(
    authorities: &Authorities,
    realm: &Realm,
    request: &Request,
    operation: Operation,
) -> Result<Vec<X509>, String> {
    let presented: Result<Vec<X509>, _> = request
        .client
        .iter()
        .map(|der| X509::from_der(der))
        .collect();
    let presented = presented.map_err(|error| format!("the client certificate: {error}"))?;
    if presented.is_empty() && realm.client == Client::None && operation != Operation::Reenroll {
        return Ok(presented);
    }
    let voucher = authorities.vouch(&presented)?;
    match (realm.client, voucher) {
        (Client::Bootstrap, Voucher::Issuer) => {
            Err("a bootstrap identity is needed here, not an issued one".to_owned())
        }
        (Client::Issued, Voucher::Bootstrap) => {
            Err("an issued certificate is needed here, not a bootstrap identity".to_owned())
        }
        _ => Ok(presented),
    }
}

/// RFC 7030 section 4.2.2: a renewal has the subject and the alternative names of the certificate that it renews.
fn check_names(csr: &X509Req, client: &[X509]) -> Result<(), String> {
    let Some(current) = client.first() else {
        return Err("a renewal needs the certificate that it renews in TLS".to_owned());
    };
    let (wanted, found) = (current.subject_name().to_der(), csr.subject_name().to_der());
    match (wanted, found) {
        (Ok(wanted), Ok(found)) if wanted == found => Ok(()),
        _ => Err("a renewal has to keep the subject".to_owned()),
    }
}

/// Serves a request that was let in.
///
/// # Errors
/// The answer that refuses it.
pub fn perform(world: &mut World, clock: &Clock, admitted: Admitted) -> Result<Response, Refusal> {
    let failed = |error: &dyn core::fmt::Display| Refusal {
        response: text(500, "the simulator failed"),
        reason: format!("the simulator failed: {error}"),
        violation: false,
    };
    let realm = world
        .est
        .realms
        .get(&admitted.realm)
        .cloned()
        .unwrap_or_default();
    let above = world.est.authorities.certificates();
    match admitted.operation {
        Operation::CaCerts => certificates(&realm, &above).map_err(|error| failed(&error)),
        Operation::CsrAttributes => {
            let body = attributes(&realm.csr_attributes).map_err(|error| failed(&error))?;
            let lines = Base64::encode_string(&body);
            Ok(Response::empty(200)
                .with_header("Content-Type", "application/csrattrs")
                .with_header("Content-Transfer-Encoding", "base64")
                .with_body(lines.into_bytes()))
        }
        Operation::Enroll | Operation::Reenroll => {
            if let Some(answer) = wait(&mut world.est, &realm, &admitted) {
                return Ok(answer);
            }
            let csr = X509Req::from_der(&admitted.body).map_err(|error| failed(&error))?;
            let terms = Terms {
                validity: Validity {
                    not_before: clock.now() - realm.backdate,
                    not_after: clock.now() + realm.lifetime,
                },
                other_key: realm.yields == Yields::OtherKey,
            };
            let leaf = world
                .est
                .authorities
                .issue(&csr, terms)
                .map_err(|error| failed(&error))?;
            world.est.issued.push(Issued {
                realm: admitted.realm,
                operation: match admitted.operation {
                    Operation::Reenroll => "simplereenroll",
                    _ => "simpleenroll",
                },
                request: admitted.body,
                certificate: leaf.to_der().map_err(|error| failed(&error))?,
                client: admitted.client,
                user: admitted.user,
            });
            let [intermediate, _] = above;
            let list = match realm.yields {
                Yields::Leaf | Yields::OtherKey => vec![leaf],
                Yields::Chain => vec![leaf, intermediate],
                Yields::Reversed => vec![intermediate, leaf],
                Yields::Empty => Vec::new(),
                Yields::NoContent => return Ok(encoded(&realm, NO_CONTENT)),
                Yields::Garbage => return Ok(encoded(&realm, b"this is no PKCS #7")),
            };
            certificates(&realm, &list).map_err(|error| failed(&error))
        }
    }
}

/// 202, as often as the realm wants it for a certificate request.
fn wait(est: &mut Est, realm: &Realm, admitted: &Admitted) -> Option<Response> {
    let digest: [u8; 32] = Sha256::digest(&admitted.body).into();
    let answered = est
        .pending
        .entry((admitted.realm.clone(), digest))
        .or_default();
    if *answered >= realm.pending {
        return None;
    }
    *answered += 1;
    let response = text(202, "wait for the operator");
    Some(match realm.retry_after {
        Some(seconds) => response.with_header("Retry-After", &seconds.to_string()),
        None => response,
    })
}

fn certificates(realm: &Realm, list: &[X509]) -> Result<Response, openssl::error::ErrorStack> {
    let mut content = Vec::new();
    for certificate in list {
        content.extend(certificate.to_der()?);
    }
    Ok(encoded(realm, &certs_only(&content)))
}

/// A PKCS #7 that carries only certificates (RFC 5652 section 5.1), these one after the other.
fn certs_only(certificates: &[u8]) -> Vec<u8> {
    const SIGNED_DATA: &[u8] = &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02,
    ];
    const DATA: &[u8] = &[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01,
    ];
    const VERSION: &[u8] = &[0x02, 0x01, 0x01];
    const NOTHING: &[u8] = &[0x31, 0x00];
    let list = tlv(0xa0, &[certificates]);
    let signed = tlv(
        0x30,
        &[VERSION, NOTHING, &tlv(0x30, &[DATA]), &list, NOTHING],
    );
    tlv(0x30, &[SIGNED_DATA, &tlv(0xa0, &[&signed])])
}

/// A value in DER.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let significant: Vec<u8> = length.iter().copied().skip_while(|b| *b == 0).collect();
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}

/// RFC 7030 section 4.5.2, object identifiers only.
fn attributes(identifiers: &[String]) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let mut content = Vec::new();
    for identifier in identifiers {
        let object = openssl::asn1::Asn1Object::from_str(identifier)?;
        content.extend(tlv(0x06, &[object.as_slice()]));
    }
    Ok(tlv(0x30, &[&content]))
}

fn encoded(realm: &Realm, der: &[u8]) -> Response {
    let base64 = Base64::encode_string(der);
    let lines = |width: usize, end: &str| {
        base64
            .as_bytes()
            .chunks(width)
            .map(|line| format!("{}{end}", String::from_utf8_lossy(line)))
            .collect::<String>()
    };
    let body = match realm.form {
        Form::Base64 => lines(64, "\r\n").into_bytes(),
        Form::Ragged => format!("\n \t{}", lines(7, " \x0b\x0c\r\n\n")).into_bytes(),
        Form::OneLine => base64.into_bytes(),
        Form::Der => der.to_vec(),
        Form::Pem => format!(
            "-----BEGIN PKCS7-----\n{}-----END PKCS7-----\n",
            lines(64, "\n")
        )
        .into_bytes(),
    };
    let response = Response::empty(200).with_body(body);
    let response = match realm.form {
        Form::Der | Form::Pem => response,
        _ => response.with_header("Content-Transfer-Encoding", "base64"),
    };
    match &realm.content_type {
        Some(value) => response.with_header("Content-Type", value),
        None => response,
    }
}

/// An answer that people read.
pub(super) fn text(status: u16, text: &str) -> Response {
    Response::empty(status)
        .with_header("Content-Type", "text/plain")
        .with_body(format!("{text}\n").into_bytes())
}

fn subject(certificate: &X509) -> String {
    let entries = certificate.subject_name().entries().map(|entry| {
        let name = entry.object().nid().short_name().unwrap_or("?");
        let value = String::from_utf8_lossy(entry.data().as_slice());
        format!("{name}={value}")
    });
    entries.collect::<Vec<_>>().join(",")
}
