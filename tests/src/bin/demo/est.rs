//! Certificates from an EST server: an identity for the device to ask with, a certificate for a server on it, and the renewal
//! of the identity with a new key, all of them for keys that never leave the Keys Service.

use std::fs;
use std::time::{Duration, Instant};

use aziot_tests::simulator::Simulator;
use aziot_tests::simulator::est::{Client, Realm, WELL_KNOWN};
use openssl::x509::X509;
use serde_json::json;

use super::mutual_tls::KEY;
use super::{Device, Outcome, PATIENCE, Service, expect, quote, say, text};

/// The id of the certificate.
const CERTIFICATE: &str = "camera-server";

/// Seconds that the identity is valid: short, so that its renewal can be watched.
const LIFETIME: i64 = 10;

/// Configures what `aziotctl config apply` has no words for yet: a certificate of any name. Belongs into the configuration
/// before the services start.
pub fn permit(device: &Device, simulator: &Simulator) -> Outcome<()> {
    simulator.set_realm(
        WELL_KNOWN,
        Realm {
            client: Client::Any,
            lifetime: LIFETIME,
            ..Realm::default()
        },
    );
    let authority = simulator.ca_path();
    let keys = format!(
        "[preloaded_keys]\nest-bootstrap = \"file://{}\"\n",
        authority.with_file_name("est-bootstrap-key.pem").display()
    );
    let uid = rustix::process::geteuid().as_raw();
    let grants =
        format!("[[principal]]\nuid = {uid}\nkeys = [\"est-bootstrap\", \"est-identity*\"]\n");
    fs::write(
        device.root.join("etc/aziot/keyd/config.d/est.toml"),
        keys + &grants,
    )?;
    let certificates = format!(
        "[cert_issuance.est]\ntrusted_certs = [\"est-ca\"]\nidentity_cert = \"est-identity\"\nidentity_pk = \"est-identity\"\n\
         bootstrap_identity_cert = \"est-bootstrap\"\nbootstrap_identity_pk = \"est-bootstrap\"\n\
         [cert_issuance.est.identity_auto_renew]\nrotate_key = true\nthreshold = \"50%\"\nretry = \"10%\"\n\
         [cert_issuance.est.urls]\ndefault = \"{}\"\n[cert_issuance.{CERTIFICATE}]\nmethod = \"est\"\n\
         [preloaded_certs]\nest-ca = \"file://{}\"\nest-bootstrap = \"file://{}\"\n\
         [[principal]]\nuid = {uid}\ncerts = [\"{CERTIFICATE}\"]\n",
        simulator.est_url(WELL_KNOWN),
        authority.display(),
        authority.with_file_name("est-bootstrap.pem").display(),
    );
    Ok(fs::write(
        device.root.join("etc/aziot/certd/config.d/est.toml"),
        certificates,
    )?)
}

/// Gets a certificate, and waits for the renewal of the identity. Answers how long the first one took, with the identity.
pub fn show(
    device: &Device,
    certd: &Service,
    simulator: &Simulator,
    csr: &str,
) -> Outcome<Duration> {
    let started = Instant::now();
    let answer = device.post(
        "certd",
        "/certificates?api-version=2020-09-01",
        &json!({"certId": CERTIFICATE, "csr": csr}),
    )?;
    let took = started.elapsed();
    let chain = X509::stack_from_pem(text(&answer, "/pem")?.as_bytes())?;
    say(&format!(
        "POST /certificates for the key {KEY} -> a chain of {} certificates, {}",
        chain.len(),
        chain.first().map_or_else(String::new, |leaf| format!(
            "good until {}",
            leaf.not_after()
        ))
    ));
    let issued = simulator.issued();
    expect(
        issued.len() == 2,
        "the EST server has not issued an identity and a certificate",
    )?;
    say(
        "the server saw: the bootstrap certificate asks for the identity, the identity asks for the certificate",
    );
    let first = identity(device)?;

    say(&format!(
        "the identity is valid for {LIFETIME} s and renewed after half of that, with a new key; its log:"
    ));
    let begin = Instant::now();
    let renewed = loop {
        let log = fs::read_to_string(&certd.log)?;
        let said = |line: &&str| line.contains("Certificate est-identity was renewed.");
        if let Some(line) = log.lines().find(said) {
            break line.to_owned();
        }
        expect(begin.elapsed() < PATIENCE, "the identity is not renewed")?;
        std::thread::sleep(Duration::from_millis(20));
    };
    quote(&renewed);
    let second = identity(device)?;
    expect(
        !first.public_key()?.public_eq(&*second.public_key()?),
        "the renewed identity has the old key",
    )?;
    let renewals = simulator.issued();
    let renewal = renewals
        .iter()
        .find(|one| one.operation == "simplereenroll")
        .ok_or("the EST server knows of no renewal")?;
    expect(
        renewal.client.first() == Some(&first.to_der()?),
        "the renewal was not asked for with the old identity",
    )?;
    say(
        "the old identity vouched for the new one; the new key took the place of the old one in the Keys Service",
    );
    Ok(took)
}

fn identity(device: &Device) -> Outcome<X509> {
    let answer = device.get("certd", "/certificates/est-identity?api-version=2020-09-01")?;
    let chain = X509::stack_from_pem(text(&answer, "/pem")?.as_bytes())?;
    Ok(chain
        .into_iter()
        .next()
        .ok_or("the identity has no certificate")?)
}
