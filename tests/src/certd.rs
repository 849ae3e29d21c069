//! The Certificates Service beside the Keys Service on a device of their own, and what its tests make: keys, requests, CAs.

use std::path::{Path, PathBuf};

use aziot_keys_client::{Client as KeysClient, KeyHandle};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, PKeyRef, Private};
use openssl::stack::Stack;
use openssl::x509::extension::{BasicConstraints, SubjectKeyIdentifier};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameBuilder, X509Req};
use serde_json::{Value, json};

use crate::client::{Client, Response, request};
use crate::daemon::{Daemon, Launch};
use crate::root::Root;
use crate::users;

/// The version of the API that release 1.6.0 has.
pub const VERSION: &str = "api-version=2020-09-01";

/// Both services on a root of their own.
#[derive(Debug)]
pub struct Services {
    /// The Certificates Service.
    pub certd: Daemon,
    /// The Keys Service.
    pub keyd: Daemon,
    /// Their device.
    pub root: Root,
}

impl Services {
    /// Both, with `config` in the main file of the Certificates Service.
    #[must_use]
    pub fn start(config: &str) -> Self {
        Self::on(root(config))
    }

    /// Both on whatever the root holds.
    #[must_use]
    pub fn on(root: Root) -> Self {
        Self::launch(root, |launch| launch)
    }

    /// As [`Self::on`], with the Certificates Service started in another way.
    #[must_use]
    pub fn launch(root: Root, change: impl FnOnce(Launch) -> Launch) -> Self {
        let keyd = Launch::service("aziot-keyd", &root).start();
        let certd = change(Launch::service("aziot-certd", &root)).start();
        Self { certd, keyd, root }
    }

    /// A connection as the user the tests run as.
    #[must_use]
    pub fn connect(&self) -> Client {
        self.certd.connect()
    }

    /// A connection as another user.
    ///
    /// # Panics
    /// When that is not possible; ask [`crate::users::can_change`] first.
    #[must_use]
    pub fn connect_as(&self, uid: u32) -> Client {
        self.certd.connect_as(uid)
    }

    /// Sends a request with or without a JSON body over a connection of its own.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let target = format!("{path}?{VERSION}");
        let response = self.connect().exchange(request(method, &target, body));
        response.assert_framing();
        response
    }

    /// `GET` a certificate; `id` is as in the path.
    pub fn get(&self, id: &str) -> Response {
        self.send("GET", &format!("/certificates/{id}"), None)
    }

    /// `PUT` a certificate.
    pub fn put(&self, id: &str, pem: &str) -> Response {
        let body = json!({ "pem": pem });
        self.send("PUT", &format!("/certificates/{id}"), Some(&body))
    }

    /// `DELETE` a certificate.
    pub fn delete(&self, id: &str) -> Response {
        self.send("DELETE", &format!("/certificates/{id}"), None)
    }

    /// `POST` a request for a certificate.
    pub fn post(&self, body: &Value) -> Response {
        self.send("POST", "/certificates", Some(body))
    }

    /// Asks for a certificate in the way that is configured.
    pub fn create(&self, id: &str, csr: &str) -> Response {
        self.post(&json!({ "certId": id, "csr": csr }))
    }

    /// A client of the Keys Service.
    #[must_use]
    pub fn keys(&self) -> KeysClient {
        KeysClient::new(self.keyd.socket())
    }

    /// Has a key pair made, and answers its handle and the key for OpenSSL.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn key_pair(&self, id: &str, algorithms: &str) -> (KeyHandle, PKey<Private>) {
        let handle = self
            .keys()
            .create_key_pair(id, Some(algorithms))
            .expect("a key pair");
        let key = aziot_daemon::client::private_key(self.keyd.socket(), &handle)
            .expect("the key pair for OpenSSL");
        (handle, key)
    }

    /// The file of a stored certificate.
    #[must_use]
    pub fn file(&self, id: &str) -> PathBuf {
        certificate_file(&self.root, id)
    }

    /// A CA with the key pair `id` of the Keys Service, whose certificate is imported under the same id.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn authority(&self, id: &str, algorithms: &str, days: i64) -> (KeyHandle, X509) {
        let (handle, key) = self.key_pair(id, algorithms);
        let certificate = authority(id, &key, days);
        let pem = String::from_utf8(certificate.to_pem().expect("PEM")).expect("text");
        assert_eq!(self.put(id, &pem).status, 201);
        (handle, certificate)
    }
}

/// A root with both services configured; `config` follows the home directory of the Certificates Service.
#[must_use]
pub fn root(config: &str) -> Root {
    let root = Root::with_keyd("");
    configure(&root, config);
    root
}

/// Writes the main file of the Certificates Service. Anyone but root gets a principal, because only root may write every
/// certificate without one.
pub fn configure(root: &Root, config: &str) {
    let mut text = format!(
        "homedir_path = \"{}\"\n{config}\n",
        root.join("var/lib/aziot/certd").display()
    );
    if users::effective() != 0 {
        text.push_str(&format!(
            "[[principal]]\nuid = {}\ncerts = [\"*\"]\n",
            users::effective()
        ));
    }
    root.write("etc/aziot/certd/config.toml", text);
}

/// The file that the Certificates Service keeps a certificate in (the rule of the contract, spelled out once more).
#[must_use]
pub fn certificate_file(root: &Root, id: &str) -> PathBuf {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};

    let mut name: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    name.push('-');
    for byte in Sha256::digest(id.as_bytes()) {
        let _ = write!(name, "{byte:02x}");
    }
    root.join(format!("var/lib/aziot/certd/certs/{name}.cer"))
}

/// A new key on P-256.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

/// A name of short names and values.
///
/// # Panics
/// When OpenSSL does not take it.
#[must_use]
pub fn name(fields: &[(&str, &str)]) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("memory");
    for (field, value) in fields {
        builder.append_entry_by_text(field, value).expect("a field");
    }
    builder.build()
}

/// A request for a certificate in PEM, with these extensions.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn csr_with(
    key: &PKeyRef<Private>,
    fields: &[(&str, &str)],
    extensions: Vec<X509Extension>,
) -> String {
    let mut builder = X509Req::builder().expect("memory");
    builder.set_version(0).expect("a version");
    builder.set_subject_name(&name(fields)).expect("a subject");
    builder.set_pubkey(key).expect("a key");
    if !extensions.is_empty() {
        let mut stack = Stack::new().expect("memory");
        for extension in extensions {
            stack.push(extension).expect("memory");
        }
        builder.add_extensions(&stack).expect("extensions");
    }
    let digest = match key.id() {
        openssl::pkey::Id::ED25519 => MessageDigest::null(),
        _ => MessageDigest::sha256(),
    };
    builder.sign(key, digest).expect("a signature");
    String::from_utf8(builder.build().to_pem().expect("PEM")).expect("text")
}

/// A request for a certificate in PEM, without extensions.
#[must_use]
pub fn csr(key: &PKeyRef<Private>, common_name: &str) -> String {
    csr_with(key, &[("CN", common_name)], Vec::new())
}

/// A self-signed certificate of a CA that is valid for this many days from now.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn authority(common_name: &str, key: &PKeyRef<Private>, days: i64) -> X509 {
    let now = i64::try_from(aziot_daemon::clock::now()).expect("a date");
    authority_until(common_name, key, now + days * 86_400)
}

/// The same, valid from some years ago until a date in seconds since 1970.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn authority_until(common_name: &str, key: &PKeyRef<Private>, not_after: i64) -> X509 {
    let name = name(&[("CN", common_name)]);
    let mut builder = X509Builder::new().expect("memory");
    builder.set_version(2).expect("a version");
    let serial = BigNum::from_u32(7).expect("memory");
    builder
        .set_serial_number(&serial.to_asn1_integer().expect("memory"))
        .expect("a serial number");
    builder.set_subject_name(&name).expect("a subject");
    builder.set_issuer_name(&name).expect("an issuer");
    builder.set_pubkey(key).expect("a key");
    let from = Asn1Time::from_unix(not_after.min(1_600_000_000)).expect("a date");
    let until = Asn1Time::from_unix(not_after).expect("a date");
    builder.set_not_before(&from).expect("a date");
    builder.set_not_after(&until).expect("a date");
    builder
        .append_extension(BasicConstraints::new().critical().ca().build().expect("CA"))
        .expect("an extension");
    let context = builder.x509v3_context(None, None);
    let identifier = SubjectKeyIdentifier::new()
        .build(&context)
        .expect("an identifier");
    builder.append_extension(identifier).expect("an extension");
    builder
        .sign(key, MessageDigest::sha256())
        .expect("a signature");
    builder.build()
}

/// The certificates in the answer to a request for one.
///
/// # Panics
/// When it is no such answer.
#[must_use]
pub fn issued(response: &Response) -> Vec<X509> {
    assert_eq!(response.status, 201, "{response}");
    X509::stack_from_pem(response.member("pem").as_bytes()).expect("certificates")
}

/// The text of a fixture of release 1.6.0.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn reference(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/reference-1.6.0")
        .join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path
}
