//! Key pairs of a real Keys Service in this process, through the provider that is built into the daemon (spec, key library
//! chapter D), or with an OpenSSL before 3.0 through the methods of the engine. There is no file of the installation, and
//! nothing is configured.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]
#![allow(unsafe_code, reason = "functions that the openssl crate lacks")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aziot_daemon::client::{Identity, KeyHandle, Request, TlsClient, private_key};
use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries::openssl_3;
use aziot_tests::proxy::Proxy;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::EcKey;
use openssl::encrypt::{Decrypter, Encrypter};
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};
use openssl::ssl::{SslAcceptor, SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameBuilder, X509ReqBuilder};

const ALGORITHMS: [&str; 3] = ["ec-p256", "ec-p384", "rsa-2048"];

fn socket(site: &Site) -> PathBuf {
    site.keyd.root.socket("keyd")
}

fn key(site: &Site, algorithm: &str) -> PKey<Private> {
    let handle = KeyHandle::new(site.pair(&format!("pair {algorithm}"), algorithm));
    private_key(&socket(site), &handle).unwrap()
}

/// The public half as an ordinary key, with nothing of ours in it.
fn public(key: &PKey<Private>) -> PKey<Public> {
    PKey::public_key_from_der(&key.public_key_to_der().unwrap()).unwrap()
}

fn name(common_name: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)
        .unwrap();
    name.build()
}

/// A self-signed certificate for localhost.
fn certificate(key: &PKey<Private>) -> X509 {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let number = BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&number).unwrap();
    builder.set_subject_name(&name("localhost")).unwrap();
    builder.set_issuer_name(&name("localhost")).unwrap();
    let (from, to) = (
        Asn1Time::days_from_now(0).unwrap(),
        Asn1Time::days_from_now(2).unwrap(),
    );
    builder.set_not_before(&from).unwrap();
    builder.set_not_after(&to).unwrap();
    builder.set_pubkey(key).unwrap();
    let extension = BasicConstraints::new().critical().ca().build().unwrap();
    builder.append_extension(extension).unwrap();
    let context = builder.x509v3_context(None, None);
    let extension = SubjectAlternativeName::new()
        .dns("localhost")
        .build(&context)
        .unwrap();
    builder.append_extension(extension).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    let certificate = builder.build();
    assert!(certificate.verify(&public(key)).unwrap());
    certificate
}

#[test]
fn kv_01_signatures_with_every_digest_on_files_and_tokens() {
    for back_end in [BackEnd::Files, BackEnd::SoftHsm] {
        let site = Site::new(back_end);
        for algorithm in ALGORITHMS {
            let key = key(&site, algorithm);
            let public = public(&key);
            assert!(key.public_eq(&public), "{algorithm}");
            for digest in [
                MessageDigest::sha1(),
                MessageDigest::sha224(),
                MessageDigest::sha256(),
                MessageDigest::sha384(),
                MessageDigest::sha512(),
                MessageDigest::sha3_256(),
            ] {
                let mut signer = Signer::new(digest, &key).unwrap();
                signer.update(b"mess").unwrap();
                signer.update(b"age").unwrap();
                let signature = signer.sign_to_vec().unwrap();
                // By the provider it came from, which has the public half too, and by another.
                assert!(
                    Verifier::new(digest, &key)
                        .unwrap()
                        .verify_oneshot(&signature, b"message")
                        .unwrap()
                );
                let mut verifier = Verifier::new(digest, &public).unwrap();
                assert!(
                    verifier.verify_oneshot(&signature, b"message").unwrap(),
                    "{algorithm} {:?}",
                    digest.type_()
                );
                let mut verifier = Verifier::new(digest, &public).unwrap();
                assert!(
                    !verifier
                        .verify_oneshot(&signature, b"massage")
                        .unwrap_or(false)
                );
            }
        }
    }
    drop(openssl::error::ErrorStack::get());
}

#[test]
fn signatures_over_digests() {
    let site = Site::new(BackEnd::Files);
    let digest = hash(MessageDigest::sha384(), b"message").unwrap();
    for algorithm in ALGORITHMS {
        let key = key(&site, algorithm);
        let mut signer = PkeyCtx::new(&key).unwrap();
        signer.sign_init().unwrap();
        signer.set_signature_md(openssl::md::Md::sha384()).unwrap();
        let mut signature = Vec::new();
        signer.sign_to_vec(&digest, &mut signature).unwrap();
        let public = public(&key);
        let mut verifier = PkeyCtx::new(&public).unwrap();
        verifier.verify_init().unwrap();
        verifier
            .set_signature_md(openssl::md::Md::sha384())
            .unwrap();
        assert!(verifier.verify(&digest, &signature).unwrap(), "{algorithm}");
        // A digest of another length is not the digest of that algorithm. Before 3.0, OpenSSL does not look with EC.
        if !openssl_3() && algorithm.starts_with("ec") {
            continue;
        }
        let error = signer
            .sign_to_vec(&digest[..32], &mut Vec::new())
            .unwrap_err();
        assert!(
            !openssl_3() || error.to_string().contains("32 bytes"),
            "{error}"
        );
    }
}

#[test]
fn pss_with_every_salt() {
    let site = Site::new(BackEnd::Files);
    let key = key(&site, "rsa-2048");
    // Lengths as OpenSSL numbers them: −1 is that of the digest, −3 as much as there is room for.
    let length = |salt| match salt {
        -1 => RsaPssSaltlen::DIGEST_LENGTH,
        -3 => RsaPssSaltlen::MAXIMUM_LENGTH,
        length => RsaPssSaltlen::custom(length),
    };
    for salt in [None, Some(-1), Some(-3), Some(0), Some(20)] {
        for mgf1 in [MessageDigest::sha256(), MessageDigest::sha1()] {
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            signer.set_rsa_mgf1_md(mgf1).unwrap();
            if let Some(salt) = salt {
                signer.set_rsa_pss_saltlen(length(salt)).unwrap();
            }
            let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
            let public = public(&key);
            let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
            verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            verifier.set_rsa_mgf1_md(mgf1).unwrap();
            if let Some(salt) = salt {
                verifier.set_rsa_pss_saltlen(length(salt)).unwrap();
            }
            assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
        }
    }
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    signer
        .set_rsa_pss_saltlen(RsaPssSaltlen::custom(223))
        .unwrap();
    assert!(signer.sign_oneshot_to_vec(b"message").is_err());
}

#[test]
fn requests_for_certificates() {
    let site = Site::new(BackEnd::Files);
    for algorithm in ALGORITHMS {
        let key = key(&site, algorithm);
        let mut builder = X509ReqBuilder::new().unwrap();
        builder.set_subject_name(&name("device")).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let request = builder.build();
        assert!(request.verify(&key).unwrap(), "{algorithm}");
        assert!(request.verify(&public(&key)).unwrap(), "{algorithm}");
    }
}

#[test]
fn decryption_of_every_padding() {
    let site = Site::new(BackEnd::Files);
    let key = key(&site, "rsa-2048");
    let public = public(&key);
    let open = |ciphertext: &[u8], padding, oaep: Option<(MessageDigest, &[u8])>| {
        let mut decrypter = Decrypter::new(&key).unwrap();
        decrypter.set_rsa_padding(padding).unwrap();
        if let Some((digest, label)) = oaep {
            decrypter.set_rsa_oaep_md(digest).unwrap();
            decrypter.set_rsa_oaep_label(label).unwrap();
        }
        let mut message = vec![0; decrypter.decrypt_len(ciphertext).unwrap()];
        let len = decrypter.decrypt(ciphertext, &mut message)?;
        message.truncate(len);
        Ok::<_, openssl::error::ErrorStack>(message)
    };
    let close = |padding, oaep: Option<(MessageDigest, &[u8])>| {
        let mut encrypter = Encrypter::new(&public).unwrap();
        encrypter.set_rsa_padding(padding).unwrap();
        if let Some((digest, label)) = oaep {
            encrypter.set_rsa_oaep_md(digest).unwrap();
            encrypter.set_rsa_oaep_label(label).unwrap();
        }
        let mut ciphertext = vec![0; 256];
        encrypter.encrypt(b"secret", &mut ciphertext).unwrap();
        ciphertext
    };

    let mut ciphertext = close(Padding::PKCS1, None);
    assert_eq!(open(&ciphertext, Padding::PKCS1, None).unwrap(), b"secret");
    // What was changed is replaced by some message, always the same, and not reported.
    ciphertext[255] ^= 1;
    let first = open(&ciphertext, Padding::PKCS1, None).unwrap();
    assert_ne!(first, b"secret");
    assert_eq!(open(&ciphertext, Padding::PKCS1, None).unwrap(), first);

    let sha256 = MessageDigest::sha256();
    for oaep in [None, Some((sha256, &b"label"[..]))] {
        let mut ciphertext = close(Padding::PKCS1_OAEP, oaep);
        assert_eq!(
            open(&ciphertext, Padding::PKCS1_OAEP, oaep).unwrap(),
            b"secret"
        );
        assert!(open(&ciphertext, Padding::PKCS1_OAEP, Some((sha256, b"other"))).is_err());
        ciphertext[255] ^= 1;
        assert!(open(&ciphertext, Padding::PKCS1_OAEP, oaep).is_err());
    }
    assert!(open(&[0xff; 256], Padding::PKCS1, None).is_err());
    assert!(open(&[1; 257], Padding::PKCS1, None).is_err());
}

/// A copy with state of its own. Before OpenSSL 3.0 nothing copies an RSA key, so it is the same key once more.
fn duplicate(key: &PKey<Private>) -> PKey<Private> {
    use foreign_types_shared::{ForeignType as _, ForeignTypeRef as _};
    type Duplicate = unsafe extern "C" fn(*mut openssl_sys::EVP_PKEY) -> *mut openssl_sys::EVP_PKEY;

    // SAFETY: the name ends with a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"EVP_PKEY_dup".as_ptr()) };
    assert_eq!(found.is_null(), !openssl_3());
    if !found.is_null() {
        // SAFETY: this is its type since there is a function of this name. The key is alive, and the copy is ours.
        unsafe {
            let duplicate: Duplicate = std::mem::transmute(found);
            let copy = duplicate(key.as_ref().as_ptr());
            assert!(!copy.is_null());
            return PKey::from_ptr(copy);
        }
    }
    let Ok(ec) = key.ec_key() else {
        return key.clone();
    };
    // SAFETY: the key is alive, and the copy is ours.
    unsafe {
        let copy = openssl_sys::EC_KEY_dup(ec.as_ptr());
        assert!(!copy.is_null());
        PKey::from_ec_key(EcKey::from_ptr(copy)).unwrap()
    }
}

fn assert_signs(key: &PKey<Private>) {
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), key).unwrap();
    assert!(verifier.verify_oneshot(&signature, b"message").unwrap());
}

#[test]
fn ke_08_keys_are_duplicated_and_freed_in_every_order() {
    const ORDERS: [[usize; 3]; 6] = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let site = Site::new(BackEnd::Files);
    for algorithm in ALGORITHMS {
        for order in ORDERS {
            let first = key(&site, algorithm);
            let second = duplicate(&first);
            let third = duplicate(&second);
            assert!(first.public_eq(&third));
            let mut keys = [Some(first), Some(second), Some(third)];
            for at in order {
                assert_signs(keys[at].as_ref().unwrap());
                keys[at] = None;
            }
        }
    }
}

#[test]
fn the_private_half_does_not_come_out() {
    let site = Site::new(BackEnd::Files);
    for algorithm in ALGORITHMS {
        let key = key(&site, algorithm);
        let public = key.public_key_to_der().unwrap();
        for written in [key.private_key_to_pkcs8(), key.private_key_to_der()] {
            match written {
                Err(_) => {}
                // Before 3.0, OpenSSL does not notice that an RSA key has no private numbers, and writes the others.
                Ok(der) => {
                    assert!(!openssl_3() && algorithm == "rsa-2048", "{algorithm}");
                    assert!(PKey::private_key_from_der(&der).is_err());
                    assert!(der.len() < public.len() + 64, "{der:?}");
                }
            }
        }
    }
}

#[test]
fn threads_share_a_key() {
    let site = Site::new(BackEnd::Files);
    for algorithm in ["ec-p256", "rsa-2048"] {
        let key = key(&site, algorithm);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        assert_signs(&key);
                    }
                });
            }
        });
    }
}

#[test]
fn errors_say_what_to_do() {
    let site = Site::new(BackEnd::Files);
    let socket = socket(&site);
    let text = |socket: &Path, handle: &str| {
        private_key(socket, &KeyHandle::new(handle))
            .unwrap_err()
            .to_string()
    };
    let refused = text(&socket, "sr=QQ==&sig=QQ==");
    assert!(refused.contains("invalid handle"), "{refused}");
    assert!(!refused.contains("QQ=="), "{refused}");
    let missing = text(&site.keyd.root.join("nobody"), "h");
    assert!(missing.contains("aziot-keyd is running"), "{missing}");
    assert!(text(Path::new("relative"), "h").contains("absolute"));

    let key = key(&site, "ec-p256");
    drop(site);
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    let error = signer.sign_oneshot_to_vec(b"message").unwrap_err();
    assert!(error.to_string().contains("could not connect"), "{error}");
}

#[test]
fn one_request_per_private_operation() {
    let site = Site::new(BackEnd::Files);
    let at = site.keyd.root.join("recorded");
    let proxy = Proxy::start(socket(&site), &at);
    for (algorithm, path) in [("ec-p256", "/sign"), ("rsa-2048", "/encrypt")] {
        let handle = KeyHandle::new(site.pair(algorithm, algorithm));
        let before = proxy.count();
        let key = private_key(&at, &handle).unwrap();
        assert_eq!(proxy.count(), before + 3, "{proxy:?}");
        let certificate = certificate(&key);
        assert_eq!(proxy.count(), before + 4, "{proxy:?}");
        let version = SslVersion::TLS1_3;
        handshake(
            version,
            &(certificate.clone(), key.clone()),
            &(certificate, key),
        )
        .unwrap();
        // One for each side.
        let expected = vec![format!("POST {path}?api-version=2021-05-01 HTTP/1.1")];
        assert_eq!(proxy.since(before + 4), [expected.clone(), expected]);
    }
}

type Party = (X509, PKey<Private>);

/// A handshake in which both sides show a certificate. Answers what the server sent.
fn handshake(version: SslVersion, server: &Party, client: &Party) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_min_proto_version(Some(version)).unwrap();
    acceptor.set_max_proto_version(Some(version)).unwrap();
    acceptor.set_certificate(&server.0).unwrap();
    acceptor.set_private_key(&server.1).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    acceptor
        .cert_store_mut()
        .add_cert(client.0.clone())
        .unwrap();
    let acceptor = acceptor.build();
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_certificate(&client.0).unwrap();
    connector.set_private_key(&client.1).unwrap();
    connector
        .cert_store_mut()
        .add_cert(server.0.clone())
        .unwrap();
    let connector = connector.build();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let (stream, _) = listener.accept().map_err(|error| text(&error))?;
            let mut stream = acceptor.accept(stream).map_err(|error| text(&error))?;
            assert!(stream.ssl().peer_certificate().is_some());
            stream.write_all(b"hello").map_err(|error| text(&error))?;
            let _ = stream.shutdown();
            Ok::<_, String>(())
        });
        let stream = TcpStream::connect(address).map_err(|error| text(&error))?;
        let mut stream = connector
            .connect("localhost", stream)
            .map_err(|error| text(&error))?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .map_err(|error| text(&error))?;
        serving.join().unwrap()?;
        Ok(answer)
    })
}

#[test]
fn ke_06_mutual_tls_with_keys_that_stay_in_the_keys_service() {
    let site = Site::new(BackEnd::Files);
    let parties = ALGORITHMS.map(|algorithm| {
        let key = key(&site, algorithm);
        (certificate(&key), key)
    });
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for server in &parties {
            for client in &parties {
                assert_eq!(handshake(version, server, client).unwrap(), b"hello");
            }
        }
    }
    // Somebody else's certificate is no use.
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_certificate(&parties[0].0).unwrap();
    assert!(connector.set_private_key(&parties[1].1).is_err());
    drop(openssl::error::ErrorStack::get());
}

/// The names of the variables by which a test runs itself again, with another trust store.
const AUTHORITY: &str = "SSL_CERT_FILE";
const AGAIN: &str = "AZIOT_TEST_SERVER";

#[test]
fn kv_01_the_daemons_client_authenticates_with_a_key_of_the_keys_service() {
    if let Ok(again) = std::env::var(AGAIN) {
        let mut parts = again.splitn(3, '\n');
        let mut part = || parts.next().unwrap();
        let (authority, socket, handle) = (part(), part(), part());
        let key = private_key(Path::new(socket), &KeyHandle::new(handle)).unwrap();
        let pem = std::fs::read(std::env::var(AUTHORITY).unwrap()).unwrap();
        let client = TlsClient::with_identity(Identity {
            certificate: X509::from_pem(&pem).unwrap(),
            chain: Vec::new(),
            key,
        });
        let request = Request {
            method: "GET",
            host: "localhost",
            target: "/",
            headers: &[],
            body: None,
        };
        let response = client
            .attempt(authority, &request, Duration::from_secs(30))
            .unwrap();
        assert_eq!(response.status, 204);
        return;
    }

    let site = Site::new(BackEnd::Files);
    let handle = site.pair("device-id", "ec-p256");
    let key = private_key(&socket(&site), &KeyHandle::new(handle.as_str())).unwrap();
    let certificate = certificate(&key);
    let file = site
        .keyd
        .root
        .write("ca.pem", certificate.to_pem().unwrap());
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&certificate).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    acceptor
        .cert_store_mut()
        .add_cert(certificate.clone())
        .unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = acceptor.accept(stream).unwrap();
        let shown = stream.ssl().peer_certificate().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
        let _ = stream.shutdown();
        shown
    });
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kv_01_the_daemons_client_authenticates_with_a_key_of_the_keys_service",
        ])
        .env(AUTHORITY, file)
        .env(
            AGAIN,
            format!("{authority}\n{}\n{handle}", socket(&site).display()),
        )
        .status()
        .unwrap();
    assert!(status.success());
    let shown = serving.join().unwrap();
    assert_eq!(shown.to_der().unwrap(), certificate.to_der().unwrap());
}
