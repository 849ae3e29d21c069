//! A device under test, its EST server, and what a client of the Certificates Service does.

// A helper outside of test functions: a failure here fails the test that called it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use aziot_tests::client::{self, Response};
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::openapi::Document;
use aziot_tests::root::Root;
use aziot_tests::simulator::est::{Client as Rule, Realm, WELL_KNOWN};
use aziot_tests::simulator::{Config, Entry, Simulator};
use aziot_tests::token::Token;
use aziot_tests::users;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder, X509Req};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The API version.
pub const VERSION: &str = "api-version=2020-09-01";

/// Seconds of the services last so long in these tests. Lifetimes of certificates are not scaled.
pub const SCALE: f64 = 0.1;

/// TLS client authentication with the bootstrap identity first, and the identity `est-id` then.
pub const IDENTITY: &str = "identity_cert = \"est-id\"\nidentity_pk = \"est-id\"\n";

/// Where the identity comes from.
pub const BOOTSTRAP: &str = "bootstrap_identity_cert = \"est-bootstrap-id\"\nbootstrap_identity_pk = \"est-bootstrap-id\"\n";

/// The services and the EST server.
pub struct Bench {
    pub est: Arc<Simulator>,
    pub root: Root,
    pub keyd: Daemon,
    pub certd: Daemon,
}

/// How a bench is set up.
pub struct Plan {
    /// In `[cert_issuance.est]`.
    pub est: String,
    /// Tables of certificates, and whatever else; `{base}` is the simulator without a path.
    pub tables: String,
    /// The rules of the server's realm.
    pub realm: Realm,
    /// How the Certificates Service is started.
    pub launch: fn(Launch) -> Launch,
    /// Environment of the Certificates Service.
    pub envs: Vec<(&'static str, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            est: format!("{IDENTITY}{BOOTSTRAP}"),
            tables: "[cert_issuance.dev]\nmethod = \"est\"\n".to_owned(),
            realm: Realm {
                client: Rule::Any,
                ..Realm::default()
            },
            launch: |launch| launch,
            envs: Vec::new(),
        }
    }
}

impl Plan {
    /// A certificate `dev` by EST, and clients that need not say who they are.
    pub fn open() -> Self {
        Self {
            est: "username = \"user\"\npassword = \"pä:ss\"\n".to_owned(),
            realm: Realm::default(),
            ..Self::default()
        }
    }
}

impl Bench {
    pub fn new(plan: &Plan) -> Self {
        Self::with_token(plan, None)
    }

    /// As [`new`](Self::new); new keys are kept in the token.
    pub fn with_token(plan: &Plan, token: Option<(Root, &Token)>) -> Self {
        let (root, token) = match token {
            None => (Root::with_keyd(""), None),
            Some((root, token)) => {
                root.keyd_config("");
                token.configure(&root);
                (root, Some(token))
            }
        };
        let est = Arc::new(Simulator::start(Config::new(root.join("est"))).unwrap());
        est.set_realm(WELL_KNOWN, plan.realm.clone());
        preload_bootstrap_key(&root, &est);
        let launch = Launch::service("aziot-keyd", &root);
        let keyd = match token {
            Some(token) => token.environment(launch).start(),
            None => launch.start(),
        };
        root.write(
            "etc/aziot/certd/config.toml",
            configuration(&root, &est, plan),
        );
        let certd = start(&root, plan);
        Self {
            est,
            root,
            keyd,
            certd,
        }
    }

    /// The configuration of the Certificates Service, with one thing replaced by another.
    pub fn reconfigure(&self, plan: &Plan) {
        let seen = self.certd.log().count("Config update finished.");
        self.root.replace(
            "etc/aziot/certd/config.toml",
            configuration(&self.root, &self.est, plan),
        );
        self.certd
            .log()
            .wait_for_more("Config update finished.", seen);
    }

    /// Ends the Certificates Service, in good order.
    pub fn stop(self) -> Stopped {
        self.certd.stop();
        Stopped {
            est: self.est,
            root: self.root,
            keyd: self.keyd,
        }
    }

    /// Asks for a certificate.
    pub fn create(&self, id: &str, csr: &X509Req) -> Response {
        let pem = String::from_utf8(csr.to_pem().unwrap()).unwrap();
        let body = json!({ "certId": id, "csr": pem });
        client::post(
            self.certd.socket(),
            &format!("/certificates?{VERSION}"),
            &body,
        )
    }

    /// The certificates that a request for one was answered with.
    #[track_caller]
    pub fn created(&self, id: &str, csr: &X509Req) -> Vec<X509> {
        let response = self.create(id, csr);
        assert_eq!(
            response.status,
            201,
            "{}\n{}",
            response.text(),
            self.certd.log().text()
        );
        chain(&response.member("pem"))
    }

    /// The request is answered with 500, and this is logged as its cause.
    #[track_caller]
    pub fn refused(&self, id: &str, csr: &X509Req, cause: &str) {
        let seen = self.certd.log().count(cause);
        self.create(id, csr).assert_message(500, "internal error");
        self.certd.log().wait_for_more(cause, seen);
    }

    /// The stored certificates.
    pub fn stored(&self, id: &str) -> Option<Vec<X509>> {
        let response = client::get(self.certd.socket(), &path(id));
        match response.status {
            200 => Some(chain(&response.member("pem"))),
            400 => None,
            other => panic!("{other}: {}", response.text()),
        }
    }

    pub fn import(&self, id: &str, pem: &str) {
        let body = json!({ "pem": pem });
        let request = client::request("PUT", &path(id), Some(&body));
        let response = client::once(self.certd.socket(), request);
        assert_eq!(response.status, 201, "{}", response.text());
    }

    pub fn delete(&self, id: &str) {
        let request = client::request("DELETE", &path(id), None);
        assert_eq!(client::once(self.certd.socket(), request).status, 204);
    }

    /// The public key of a key pair of the Keys Service, or none if there is no such key pair.
    pub fn public_key(&self, id: &str) -> Option<Vec<u8>> {
        public_key(&self.keyd, id)
    }

    /// Whether this certificate belongs to this key pair.
    pub fn belong(&self, certificate: &X509, key: &str) -> bool {
        belongs(&self.keyd, certificate, key)
    }

    /// What the EST server was asked, oldest first.
    pub fn asked(&self) -> Vec<Entry> {
        self.est.log_since(0)
    }

    /// The routes of what the EST server was asked since request `since`.
    pub fn routes(&self, since: u64) -> Vec<&'static str> {
        let entries = self.est.log_since(since);
        let mut routes: Vec<_> = entries.iter().map(|entry| entry.route).collect();
        routes.sort_unstable();
        routes
    }

    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations: Vec<String> = self
            .est
            .violations()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(violations, Vec::<String>::new());
    }

    /// What the service tells of the certificate. All that it tells is as documented.
    pub fn status_of(&self, id: &str) -> Value {
        let version = aziot_core::api::certs::status::STATUS_VERSION;
        let path = format!("/status?api-version={version}");
        let answer = client::get(self.certd.socket(), &path);
        let promised = Document::load("certs");
        promised.named("status").check(&answer).unwrap();
        let status = answer.json();
        let list = status["certificates"].as_array().unwrap();
        list.iter()
            .find(|one| one["id"] == id)
            .cloned()
            .unwrap_or_default()
    }
}

/// A bench without a running Certificates Service.
pub struct Stopped {
    pub est: Arc<Simulator>,
    pub root: Root,
    pub keyd: Daemon,
}

impl Stopped {
    pub fn start(self, plan: &Plan) -> Bench {
        self.root.write(
            "etc/aziot/certd/config.toml",
            configuration(&self.root, &self.est, plan),
        );
        let certd = start(&self.root, plan);
        Bench {
            est: self.est,
            root: self.root,
            keyd: self.keyd,
            certd,
        }
    }

    /// The file of a certificate that is not preloaded.
    pub fn file(&self, id: &str) -> PathBuf {
        certificate_file(&self.root, id)
    }
}

/// The file of a certificate that is not preloaded.
pub fn certificate_file(root: &Root, id: &str) -> PathBuf {
    let clean: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    let digest: String = Sha256::digest(id.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    root.join(format!("var/lib/aziot/certd/certs/{clean}-{digest}.cer"))
}

/// Lets the Keys Service use the key of the bootstrap identity.
pub fn preload_bootstrap_key(root: &Root, est: &Simulator) {
    let key = est.ca_path().with_file_name("est-bootstrap-key.pem");
    root.write(
        "etc/aziot/keyd/config.d/40-est.toml",
        format!(
            "[preloaded_keys]\nest-bootstrap-id = \"file://{}\"\n",
            key.display()
        ),
    );
}

fn start(root: &Root, plan: &Plan) -> Daemon {
    let launch = Launch::service("aziot-certd", root).time_scale(SCALE);
    let launch = plan
        .envs
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(name, value));
    (plan.launch)(launch).start()
}

/// The configuration of the Certificates Service.
pub fn configuration(root: &Root, est: &Simulator, plan: &Plan) -> String {
    let home = root.join("var/lib/aziot/certd");
    let base = est.est_url("");
    let base = base.trim_end_matches('/');
    let principal = match users::effective() {
        0 => String::new(),
        uid => format!("[[principal]]\nuid = {uid}\ncerts = [\"*\"]\n"),
    };
    let tables = plan.tables.replace("{base}", base);
    let settings = plan.est.replace("{base}", base);
    let urls = if plan.tables.contains("[cert_issuance.est.urls]") {
        String::new()
    } else {
        format!("[cert_issuance.est.urls]\ndefault = \"{base}/{WELL_KNOWN}\"\n")
    };
    format!(
        "homedir_path = \"{}\"\n[cert_issuance.est]\ntrusted_certs = [\"est-ca\"]\n{settings}\n{urls}{tables}\n\
         [preloaded_certs]\nest-ca = \"file://{}\"\nest-bootstrap-id = \"file://{}\"\n{principal}",
        home.display(),
        est.ca_path().display(),
        est.ca_path().with_file_name("est-bootstrap.pem").display(),
    )
}

fn path(id: &str) -> String {
    let id = aziot_tests::simulator::route::encode_segment(id);
    format!("/certificates/{id}?{VERSION}")
}

/// The compressed public point of an EC key pair.
pub fn public_key(keyd: &Daemon, id: &str) -> Option<Vec<u8>> {
    let version = aziot_tests::fixture::VERSION;
    let found = client::get(keyd.socket(), &format!("/keypair/{id}?{version}"));
    if found.status != 200 {
        return None;
    }
    let body = json!({ "keyHandle": found.member("keyHandle") });
    let path = format!("/parameters/ec-point?{version}");
    let point = client::post(keyd.socket(), &path, &body);
    // It may have been moved or deleted meanwhile.
    (point.status == 200).then(|| aziot_tests::back_end::bytes(&point, "value"))
}

/// Whether a certificate belongs to a key pair of the Keys Service.
pub fn belongs(keyd: &Daemon, certificate: &X509, key: &str) -> bool {
    let own = certificate.public_key().unwrap().ec_key().unwrap();
    let mut context = openssl::bn::BigNumContext::new().unwrap();
    let form = openssl::ec::PointConversionForm::COMPRESSED;
    let point = own.public_key().to_bytes(own.group(), form, &mut context);
    public_key(keyd, key) == Some(point.unwrap())
}

/// A new EC key.
pub fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A request for a certificate with this common name, for a key of its own.
pub fn request(name: &str) -> X509Req {
    request_for(name, &new_key())
}

pub fn request_for(name: &str, key: &PKey<Private>) -> X509Req {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let mut builder = X509Req::builder().unwrap();
    builder.set_subject_name(&subject.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build()
}

/// The certificates of a PEM text.
pub fn chain(pem: &str) -> Vec<X509> {
    X509::stack_from_pem(pem.as_bytes()).unwrap()
}

/// The common name of a certificate.
pub fn common_name(certificate: &X509) -> String {
    let mut entries = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    let entry = entries.next().unwrap();
    String::from_utf8(entry.data().as_slice().to_vec()).unwrap()
}

pub fn names(chain: &[X509]) -> Vec<String> {
    chain.iter().map(common_name).collect()
}

/// Contents of a file of the EST server's authority.
pub fn authority_file(root: &Root, name: &str) -> Vec<u8> {
    fs::read(root.join("est").join(name)).unwrap()
}
