//! Certificates and requests in the hands of the `openssl` program: what it asks for is issued, what is issued it verifies.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use aziot_core::pem;
use aziot_crypto::key_pair::{Algorithm, Curve, Parameter, ParameterValue, RsaPadding};
use aziot_crypto::openssl::{self, KeyPair, OpenSslVerifier};
use aziot_crypto::x509::{
    Certificate, CertificationRequest, Extensions, Issuer, Serial, SignatureAlgorithm, Signer,
    Template, Validity, build, build_request, name, spki,
};
use sha2::{Digest as _, Sha256, Sha384};

/// Uses the operations that the Keys Service has: ECDSA of a digest, RSA with PKCS #1 padding.
struct SigningPair {
    pair: KeyPair,
    algorithm: SignatureAlgorithm,
    public_key: Vec<u8>,
}

impl SigningPair {
    fn new(pair: KeyPair) -> Self {
        let public_key = public_key(&pair);
        let algorithm = SignatureAlgorithm::for_key(&public_key).unwrap();
        Self {
            pair,
            algorithm,
            public_key,
        }
    }
}

impl Signer for SigningPair {
    type Error = openssl::Error;

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign(&self, message: &[u8], signature: &mut [u8]) -> Result<usize, openssl::Error> {
        /// `DigestInfo` with SHA-256 (RFC 8017, 9.2, note 1).
        const SHA_256: [u8; 19] = [
            0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x01, 0x05, 0x00, 0x04, 0x20,
        ];
        match self.algorithm {
            SignatureAlgorithm::EcdsaWithSha256 => {
                self.pair.sign_ecdsa(&Sha256::digest(message), signature)
            }
            SignatureAlgorithm::EcdsaWithSha384 => {
                self.pair.sign_ecdsa(&Sha384::digest(message), signature)
            }
            SignatureAlgorithm::Sha256WithRsa => {
                let info = [&SHA_256[..], &Sha256::digest(message)].concat();
                self.pair.rsa_private(RsaPadding::Pkcs1, &info, signature)
            }
        }
    }
}

/// Of the parameters that the Keys Service tells; points are compressed there.
fn public_key(pair: &KeyPair) -> Vec<u8> {
    let bytes = |parameter| match pair.parameter(parameter).unwrap() {
        ParameterValue::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    let mut out = [0; 1024];
    let written = match pair.parameter(Parameter::Algorithm).unwrap() {
        ParameterValue::Ec => {
            let curve = Curve::from_oid(&bytes(Parameter::EcCurveOid)).unwrap();
            spki::ec(curve, &bytes(Parameter::EcPoint), &mut out)
        }
        _ => spki::rsa(
            &bytes(Parameter::RsaModulus),
            &bytes(Parameter::RsaExponent),
            &mut out,
        ),
    };
    written.unwrap().to_vec()
}

/// A directory of its own to run `openssl` in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) -> Output {
        Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .expect("the program openssl is installed")
    }

    /// What it said, if it succeeded.
    fn succeeds(&self, arguments: &str) -> String {
        let output = self.openssl(arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "openssl {arguments}: {text}");
        text
    }

    fn write(&self, name: &str, label: &str, der: &[u8]) {
        let mut out = vec![0; pem::encoded_len(label, der.len())];
        fs::write(self.path(name), pem::encode(label, der, &mut out).unwrap()).unwrap();
    }
}

fn der_of(path: &Path) -> Vec<u8> {
    let text = fs::read(path).unwrap();
    let block = pem::blocks(&text).next().unwrap();
    let mut out = vec![0; block.max_len()];
    block.decode(&mut out).unwrap().to_vec()
}

fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    now.as_secs().try_into().unwrap()
}

/// Issues what a request that `openssl` made asks for.
fn issue(
    request: &Path,
    serial: u8,
    issuer: Option<&Certificate<'_>>,
    signer: &SigningPair,
) -> Vec<u8> {
    let der = der_of(request);
    let request = CertificationRequest::parse(&der).unwrap();
    assert_eq!(request.verify(&OpenSslVerifier), Ok(true));
    let template = Template {
        serial: Serial::from_random([serial; 20]),
        issuer: issuer.map(Issuer::from),
        validity: Validity::of_days(now(), 30, issuer).unwrap(),
        subject: request.subject(),
        public_key: request.public_key(),
        extensions: request.extensions().unwrap(),
    };
    let mut out = [0; 4096];
    build(&template, signer, &mut out).unwrap().to_vec()
}

/// A chain of three, from requests that `openssl` makes.
fn cs_28_openssl_verifies_a_chain_strictly(new_key: &str) {
    let place = Place::new();
    for (name, extensions) in [
        (
            "root",
            "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        ),
        (
            "sub",
            "-addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign",
        ),
        (
            "leaf",
            "-addext subjectAltName=DNS:device.example -addext keyUsage=critical,digitalSignature -addext \
             extendedKeyUsage=serverAuth,clientAuth",
        ),
    ] {
        place.succeeds(&format!("{new_key} -out {name}.key"));
        place.succeeds(&format!(
            "req -new -key {name}.key -subj /CN={name}/O=example -out {name}.csr {extensions}"
        ));
    }
    let pair = |name: &str| {
        SigningPair::new(KeyPair::from_pem(&fs::read(place.path(name)).unwrap()).unwrap())
    };
    let (root_key, sub_key) = (pair("root.key"), pair("sub.key"));
    let root = issue(&place.path("root.csr"), 1, None, &root_key);
    let root = Certificate::parse(&root).unwrap();
    let sub = issue(&place.path("sub.csr"), 2, Some(&root), &root_key);
    let sub = Certificate::parse(&sub).unwrap();
    let leaf = issue(&place.path("leaf.csr"), 3, Some(&sub), &sub_key);
    for (name, certificate) in [("root", root.der()), ("sub", sub.der()), ("leaf", &leaf)] {
        place.write(&format!("{name}.pem"), "CERTIFICATE", certificate);
    }
    let verify = "verify -x509_strict -check_ss_sig -CAfile root.pem -untrusted sub.pem leaf.pem";
    assert!(place.succeeds(verify).contains("leaf.pem: OK"));
    let text = place.succeeds("x509 -in leaf.pem -noout -text -nameopt RFC2253");
    assert!(text.contains("Issuer: O=example,CN=sub"), "{text}");
    assert!(text.contains("DNS:device.example"), "{text}");

    // Signed by somebody else in the name of the same issuer, the chain breaks.
    let forged = issue(&place.path("leaf.csr"), 4, Some(&sub), &root_key);
    place.write("leaf.pem", "CERTIFICATE", &forged);
    assert!(!place.openssl(verify).status.success());
    let forged = Certificate::parse(&forged).unwrap();
    let signed = forged.is_signed_with(sub.public_key(), &OpenSslVerifier);
    assert_eq!(signed, Ok(false));
}

#[test]
fn cs_28_openssl_verifies_a_chain_of_p256_strictly() {
    cs_28_openssl_verifies_a_chain_strictly("ecparam -genkey -noout -name prime256v1");
}

#[test]
fn cs_28_openssl_verifies_a_chain_of_p384_strictly() {
    cs_28_openssl_verifies_a_chain_strictly("ecparam -genkey -noout -name secp384r1");
}

#[test]
fn cs_28_openssl_verifies_a_chain_of_rsa_strictly() {
    cs_28_openssl_verifies_a_chain_strictly("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048");
}

#[test]
fn openssl_verifies_requests() {
    let place = Place::new();
    for algorithm in [Algorithm::EcP256, Algorithm::EcP384, Algorithm::Rsa2048] {
        let signer = SigningPair::new(KeyPair::generate(algorithm).unwrap());
        let mut subject = [0; 128];
        let subject = name::encode([("CN", "device"), ("O", "Größe")], &mut subject).unwrap();
        let mut out = [0; 2048];
        let request = build_request(
            subject,
            &signer.public_key,
            Extensions::CLIENT_AUTH,
            &signer,
            &mut out,
        )
        .unwrap();
        place.write("device.csr", "CERTIFICATE REQUEST", request);
        let text = place.succeeds("req -in device.csr -verify -noout -text");
        // Older versions write it in small letters.
        assert!(
            text.to_lowercase().contains("self-signature verify ok") || text.contains("verify OK"),
            "{text}"
        );
        assert!(text.contains("TLS Web Client Authentication"), "{text}");
    }
}

/// Ed25519 and RSA-PSS are signed by whoever asks, never here.
#[test]
fn cs_22_requests_of_other_algorithms() {
    let place = Place::new();
    place.succeeds("genpkey -algorithm ED25519 -out ed25519.key");
    place.succeeds("req -new -key ed25519.key -subj /CN=x -out ed25519.csr");
    place.succeeds("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key");
    place.succeeds(
        "req -new -key rsa.key -subj /CN=x -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:48 -out pss.csr",
    );
    place.succeeds("req -new -key rsa.key -subj /CN=x -sha512 -newhdr -out rsa.csr");
    for name in ["ed25519.csr", "pss.csr", "rsa.csr"] {
        let der = der_of(&place.path(name));
        let request = CertificationRequest::parse(&der).unwrap();
        assert_eq!(request.verify(&OpenSslVerifier), Ok(true), "{name}");
        assert_eq!(name::Text(request.subject()).to_string(), "CN=x");
        let mut flipped = der.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let flipped = CertificationRequest::parse(&flipped).unwrap();
        assert_eq!(flipped.verify(&OpenSslVerifier), Ok(false), "{name}");
    }
}
