//! What others think of the certificates and of the requests: a linter for the profile of RFC 5280, and OpenSSL at its strictest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use aziot_tests::binaries;
use aziot_tests::certd::{Services, csr, csr_with, ec_key, issued};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
};
use openssl::x509::{X509, X509Extension};
use serde_json::json;

/// What the linter finds and has to find, because certificates are issued as by release 1.6.0: the certificate's id, the
/// finding, and why it stays.
const ACCEPTED: [(&str, &str, &str); 7] = [
    (
        "nameless",
        "pkix.name_empty",
        "an empty subject is what the configuration asks for, and the issuer is the same name",
    ),
    (
        "nameless",
        "pkix.authority_key_identifier_extension_absent",
        "self-signed certificates get none; the profile excuses only those of CAs",
    ),
    (
        "named",
        "pkix.authority_key_identifier_extension_absent",
        "the same",
    ),
    (
        "named",
        "pkix.subject_email_address_not_in_san",
        "the configuration puts the address into the subject, and no extension is made up",
    ),
    (
        "module-ca",
        "pkix.basic_constraints_extension_not_critical",
        "extensions of the request are taken as they are, and this one is not critical there",
    ),
    (
        "module-ca",
        "pkix.ca_certificate_no_ku_extension",
        "no extension is added to those of the request but the key identifiers",
    ),
    (
        "without-identifier",
        "pkix.authority_key_identifier_extension_absent",
        "the issuer's certificate has no key identifier to point at",
    ),
];

/// The findings of the linter, by file.
fn findings(files: &[PathBuf]) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let linter = binaries::sources().join("../scripts/certificate-lint");
    // The test's binary is in TARGET/debug/deps.
    let target = binaries::directory();
    let target = target.parent().unwrap();
    let output = Command::new(linter)
        .env("CARGO_TARGET_DIR", target)
        .args(files)
        .output()
        .unwrap();
    let (text, error) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    let mut found: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    let mut file = None;
    for line in text.lines() {
        if let Some(path) = line.strip_suffix(':').map(PathBuf::from)
            && files.contains(&path)
        {
            file = Some(path);
        } else if let Some(finding) = line.strip_prefix("    ") {
            let code = finding.split(' ').next().unwrap().to_owned();
            let file = file.clone().unwrap();
            found.entry(file).or_default().insert(code);
        }
    }
    assert_eq!(
        output.status.success(),
        found.is_empty(),
        "the linter did not do its work: {text}{error}"
    );
    found
}

/// OpenSSL's judgement; `files` are the trusted certificates and what is to be verified with them.
fn verify(purpose: &str, trusted: &Path, file: &Path) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]);
    let output = command.arg(trusted).arg(file).output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let (out, error) = (output.stdout, output.stderr);
    Err(String::from_utf8([out, error].concat()).unwrap())
}

fn p384() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn of_a_ca() -> Vec<X509Extension> {
    let mut usage = KeyUsage::new();
    usage.critical().key_cert_sign().crl_sign();
    vec![
        BasicConstraints::new().critical().ca().build().unwrap(),
        usage.build().unwrap(),
    ]
}

fn of_a_server() -> Vec<X509Extension> {
    let alternative = {
        let builder = X509::builder().unwrap();
        let context = builder.x509v3_context(None, None);
        let mut names = SubjectAlternativeName::new();
        names.dns("gateway.example").ip("192.0.2.1");
        names.build(&context).unwrap()
    };
    let mut usage = KeyUsage::new();
    usage.critical().digital_signature();
    vec![
        usage.build().unwrap(),
        ExtendedKeyUsage::new().server_auth().build().unwrap(),
        alternative,
    ]
}

/// A CA of each algorithm, and below each of them certificates for keys of all algorithms.
#[test]
fn certificates_follow_the_profile_of_the_internet() {
    let mut config = String::new();
    let algorithms = [
        ("p256", "ec-p256"),
        ("p384", "ec-p384"),
        ("rsa", "rsa-2048"),
    ];
    for (ca, _) in algorithms {
        // Beyond 2049, where dates have another form.
        config.push_str(&format!(
            "[cert_issuance.{ca}]\nmethod = \"self_signed\"\ncommon_name = \"site CA {ca}\"\nexpiry_days = 10000\n"
        ));
    }
    let fields = "C = \"AQ\", ST = \"Antarctica\", O = \"Ünïon\", serialNumber = \"12\", CN = \"gateway\", \
                  emailAddress = \"a@b.example\"";
    config.push_str(&format!(
        "[cert_issuance.named]\nmethod = \"self_signed\"\nexpiry_days = 60\nsubject = {{ {fields} }}\n\
         [cert_issuance.nameless]\nmethod = \"self_signed\"\nsubject = {{}}\n"
    ));
    let services = Services::start(&config);
    let mut files = Vec::new();
    let keys = [
        ec_key(),
        p384(),
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        PKey::generate_ed25519().unwrap(),
    ];
    for (ca, algorithm) in algorithms {
        let (handle, pair) = services.key_pair(ca, algorithm);
        let request = csr_with(&pair, &[("CN", ca)], of_a_ca());
        assert_eq!(issued(&services.create(ca, &request)).len(), 1);
        assert_eq!(
            verify("any", &services.file(ca), &services.file(ca)),
            Ok(())
        );
        files.push(services.file(ca));
        let issuer = json!({ "certId": ca, "privateKeyHandle": handle.as_str() });
        for (n, key) in keys.iter().enumerate() {
            let id = format!("{ca}-{n}");
            let name = [("O", "site"), ("CN", "gateway")];
            let request = csr_with(key, &name, of_a_server());
            let body = json!({ "certId": id, "csr": request, "issuer": issuer });
            assert_eq!(issued(&services.post(&body)).len(), 2);
            let file = services.file(&id);
            assert_eq!(verify("sslserver", &services.file(ca), &file), Ok(()));
            files.push(file);
        }
        // What has no extensions gets the identifiers.
        let id = format!("{ca}-plain");
        let body = json!({ "certId": id, "csr": csr(&ec_key(), "x"), "issuer": issuer });
        assert_eq!(issued(&services.post(&body)).len(), 2);
        let file = services.file(&id);
        assert_eq!(verify("any", &services.file(ca), &file), Ok(()));
        files.push(file);
        if ca == "p256" {
            // As modules ask for a CA of theirs.
            let extensions = vec![BasicConstraints::new().ca().build().unwrap()];
            let request = csr_with(&ec_key(), &[("CN", "module CA")], extensions);
            let body = json!({ "certId": "module-ca", "csr": request, "issuer": issuer });
            assert_eq!(issued(&services.post(&body)).len(), 2);
            files.push(services.file("module-ca"));
        }
    }
    for id in ["named", "nameless"] {
        let (_, pair) = services.key_pair(id, "ec-p256");
        let certificate = issued(&services.create(id, &csr(&pair, "x"))).remove(0);
        assert_eq!(
            certificate.subject_name().entries().count(),
            if id == "named" { 6 } else { 0 }
        );
        files.push(services.file(id));
    }
    // An issuer that has no key identifier.
    let (handle, pair) = services.key_pair("old-ca", "ec-p256");
    let old = {
        let ca = aziot_tests::certd::authority("old CA", &pair, 60);
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(ca.subject_name()).unwrap();
        builder.set_issuer_name(ca.issuer_name()).unwrap();
        builder.set_pubkey(&pair).unwrap();
        builder.set_not_before(ca.not_before()).unwrap();
        builder.set_not_after(ca.not_after()).unwrap();
        for extension in of_a_ca() {
            builder.append_extension(extension).unwrap();
        }
        let digest = openssl::hash::MessageDigest::sha256();
        builder.sign(&pair, digest).unwrap();
        String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
    };
    assert_eq!(services.put("old-ca", &old).status, 201);
    let body = json!({
        "certId": "without-identifier",
        "csr": csr(&ec_key(), "x"),
        "issuer": { "certId": "old-ca", "privateKeyHandle": handle.as_str() },
    });
    assert_eq!(issued(&services.post(&body)).len(), 2);
    files.push(services.file("without-identifier"));

    let mut expected: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (id, finding, _) in ACCEPTED {
        let of_file = expected.entry(services.file(id)).or_default();
        of_file.insert(finding.to_owned());
    }
    assert_eq!(findings(&files), expected);
}

/// The linter is really asked: it objects to the certificates of release 1.6.0, all of which have the serial number 0.
#[test]
fn the_linter_knows_a_bad_certificate() {
    let name = "issuedbyec-94ac009edec06939b1af7ef50b4d9cb85cd26687fa707aa2872938719842b66a.cer";
    let file = aziot_tests::certd::reference("var/lib/aziot/certd/certs").join(name);
    let found = findings(std::slice::from_ref(&file));
    let serial = "pkix.certificate_serial_number_out_of_range";
    assert!(found[&file].contains(serial), "{found:?}");
}
