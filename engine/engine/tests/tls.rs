//! TLS with both private keys in the Keys Service (KE-06).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::{X509, X509NameBuilder};
use support::{Service, p256, p384, rsa};

/// A certificate of the key's own.
fn certificate(key: &PKey<Private>, name: &str) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let number = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&number).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    let day = |number| Asn1Time::days_from_now(number).unwrap();
    builder.set_not_before(&day(0)).unwrap();
    builder.set_not_after(&day(2)).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build()
}

/// One side of a connection, which trusts the other's certificate only.
fn side(key: &PKey<Private>, own: &X509, other: &X509, version: SslVersion) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls()).unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    builder.set_certificate(own).unwrap();
    builder.set_private_key(key).unwrap();
    builder.check_private_key().unwrap();
    builder.cert_store_mut().add_cert(other.clone()).unwrap();
    builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    builder.build()
}

#[test]
fn ke_06_tls_on_both_sides() {
    let kinds = [p256 as fn() -> PKey<Private>, p384, rsa];
    for (at, kind) in kinds.iter().enumerate() {
        // Another kind on the other side.
        let other = kinds[(at + 1) % kinds.len()];
        let (server_keys, client_keys) = (Service::new(kind()), Service::new(other()));
        let (server_key, client_key) = (server_keys.load(), client_keys.load());
        let server_cert = certificate(&server_key, "server");
        let client_cert = certificate(&client_key, "client");
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let (here, there) = UnixStream::pair().unwrap();
            let server = side(&server_key, &server_cert, &client_cert, version);
            let client = side(&client_key, &client_cert, &server_cert, version);
            let asked = (server_keys.requests().len(), client_keys.requests().len());
            let serving = std::thread::spawn(move || {
                let mut stream = Ssl::new(&server).unwrap().accept(there).unwrap();
                stream.write_all(b"hello").unwrap();
                stream.shutdown().unwrap();
                stream.ssl().peer_certificate().unwrap()
            });
            let mut stream = Ssl::new(&client).unwrap().connect(here).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello");
            assert_eq!(
                serving.join().unwrap().to_der().unwrap(),
                client_cert.to_der().unwrap()
            );
            // One request to the Keys Service for each signature.
            assert_eq!(
                (server_keys.requests().len(), client_keys.requests().len()),
                (asked.0 + 1, asked.1 + 1)
            );
        }
    }
}

/// RSA key exchange, where the server decrypts. OpenSSL 1.1 takes the padding off itself; OpenSSL 3 has a padding mode for it
/// that it does not offer to keys with methods of their own.
#[test]
fn rsa_key_exchange() {
    let (server_keys, client_keys) = (Service::new(rsa()), Service::new(p256()));
    let (server_key, client_key) = (server_keys.load(), client_keys.load());
    let server_cert = certificate(&server_key, "server");
    let client_cert = certificate(&client_key, "client");
    let (here, there) = UnixStream::pair().unwrap();
    let server = side(&server_key, &server_cert, &client_cert, SslVersion::TLS1_2);
    let client = side(&client_key, &client_cert, &server_cert, SslVersion::TLS1_2);
    let serving = std::thread::spawn(move || {
        let mut ssl = Ssl::new(&server).unwrap();
        ssl.set_cipher_list("AES128-GCM-SHA256").unwrap();
        ssl.accept(there).is_ok()
    });
    let mut ssl = Ssl::new(&client).unwrap();
    ssl.set_cipher_list("AES128-GCM-SHA256").unwrap();
    let connected = ssl.connect(here).is_ok();
    let works = openssl::version::number() < 0x3000_0000;
    assert_eq!((serving.join().unwrap(), connected), (works, works));
}
