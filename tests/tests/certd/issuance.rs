//! Certificates that the service signs itself (certificates-service 6).

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{chown, symlink};
use std::process::Command;

use aziot_core::der::{Tag, Writer};
use aziot_keys_client::KeyHandle;
use aziot_tests::certd::{
    Services, VERSION, authority_until, certificate_file, csr, csr_with, ec_key, issued, reference,
    root,
};
use aziot_tests::client::request;
use aziot_tests::daemon::Launch;
use aziot_tests::root::copy_tree;
use aziot_tests::users;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{X509, X509Extension, X509Ref, X509Req};
use serde_json::{Value, json};

const DAY: i64 = 86_400;

/// A configuration with a local CA `ca` and a certificate `x` that it issues.
const LOCAL_CA: &str = "[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n[cert_issuance.x]\nmethod = \"local_ca\"\n";

const NOT_FOUND: &str = "parameter \"id\" has an invalid value\ncaused by: not found";

fn now() -> i64 {
    i64::try_from(aziot_daemon::clock::now()).unwrap()
}

/// Seconds since 1970.
fn seconds(time: &Asn1TimeRef) -> i64 {
    let diff = Asn1Time::from_unix(0).unwrap().diff(time).unwrap();
    i64::from(diff.days) * DAY + i64::from(diff.secs)
}

/// The DER between tag and length of the outermost sequence and the signature.
fn tbs(certificate: &X509Ref) -> Vec<u8> {
    let der = certificate.to_der().unwrap();
    let parsed = aziot_crypto::x509::Certificate::parse(&der).unwrap();
    parsed.tbs().to_vec()
}

fn with_issuer(id: &str, csr: &str, issuer: &str, key: &KeyHandle) -> Value {
    json!({
        "certId": id,
        "csr": csr,
        "issuer": { "certId": issuer, "privateKeyHandle": key.as_str() },
    })
}

fn assert_verifies(certificate: &X509Ref, issuer: &X509Ref) {
    assert!(certificate.verify(&issuer.public_key().unwrap()).unwrap());
}

fn ca_extensions() -> Vec<X509Extension> {
    vec![
        BasicConstraints::new().critical().ca().build().unwrap(),
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()
            .unwrap(),
    ]
}

/// The identifiers of a certificate's extensions, in order.
fn extensions(certificate: &X509Ref) -> Vec<String> {
    let der = certificate.to_der().unwrap();
    let parsed = aziot_crypto::x509::Certificate::parse(&der).unwrap();
    let all = parsed.extensions();
    all.iter()
        .map(|extension| aziot_crypto::x509::ObjectId::new(extension.id).to_string())
        .collect()
}

#[test]
fn cs_22_requests_that_cannot_be_used() {
    let services = Services::start(LOCAL_CA);
    let _ = services.authority("ca", "ec-p256", 100);
    let good = csr(&ec_key(), "x");
    let unarmoured: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let request_of_certificate = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    for bad in [
        "garbage",
        "",
        &unarmoured,
        &request_of_certificate,
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nMA",
        "-----BEGIN CERTIFICATE REQUEST-----\n!!!!\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        let refused = services.create("x", bad);
        let text = refused.member("message");
        assert_eq!(refused.status, 400, "{bad}");
        let expected = "parameter \"csr\" has an invalid value\ncaused by: ";
        assert!(
            text.len() > expected.len() && text.starts_with(expected),
            "{text}"
        );
    }
    let mut der = X509Req::from_pem(good.as_bytes())
        .unwrap()
        .to_der()
        .unwrap();
    *der.last_mut().unwrap() ^= 1;
    let flipped = X509Req::from_der(&der).unwrap().to_pem().unwrap();
    services
        .create("x", &String::from_utf8(flipped).unwrap())
        .assert_message(
            400,
            "parameter \"csr\" has an invalid value\ncaused by: CSR failed to be verified with its public key",
        );
    services.get("x").assert_message(400, NOT_FOUND);
    // All of these come before there is a complaint about the configuration.
    assert_eq!(services.create("unconfigured", "garbage").status, 400);

    // Text around it, another label, CRLF.
    let around = format!("Subject: x\n\n{good}\ntrailing");
    let old = good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
    let crlf = good.replace('\n', "\r\n");
    for text in [around, old, crlf] {
        assert_eq!(issued(&services.create("x", &text)).len(), 2, "{text}");
    }
    // Of several, the first.
    let two = format!("{good}{}", csr(&ec_key(), "second"));
    let first = issued(&services.create("x", &two)).remove(0);
    assert_eq!(
        first.subject_name().to_der().unwrap(),
        aziot_tests::certd::name(&[("CN", "x")]).to_der().unwrap()
    );
    // Other kinds of keys.
    for key in [
        PKey::generate_ed25519().unwrap(),
        PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap(),
    ] {
        let chain = issued(&services.create("x", &csr(&key, "x")));
        assert!(chain[0].public_key().unwrap().public_eq(&key));
        assert_verifies(&chain[0], &chain[1]);
    }
}

/// Not in release 1.6.0, which dropped them silently, or doubled them.
#[test]
fn requests_with_broken_or_doubled_extensions() {
    let services = Services::start(LOCAL_CA);
    let _ = services.authority("ca", "ec-p256", 100);
    let usage = || ExtendedKeyUsage::new().client_auth().build().unwrap();
    let doubled = csr_with(&ec_key(), &[("CN", "x")], vec![usage(), usage()]);
    let refused = services.create("x", &doubled);
    assert_eq!(refused.status, 400, "{refused}");
    assert!(
        refused.member("message").starts_with(
            "parameter \"csr\" has an invalid value\ncaused by: the request asks more than once"
        ),
        "{refused}"
    );
    // Something else in the place of the list, an attribute without a value, an extension that is cut off.
    for values in [
        &b"\x31\x02\x05\x00"[..],
        b"\x31\x00",
        b"\x31\x09\x30\x07\x30\x05\x06\x03\x55\x1d\x25",
    ] {
        let refused = services.create("x", &csr_with_attribute(&ec_key(), values));
        assert_eq!(refused.status, 400, "{refused}");
        let text = refused.member("message");
        assert!(
            text.starts_with("parameter \"csr\" has an invalid value\ncaused by: the ")
                && text.contains(" cannot be read: "),
            "{text}"
        );
    }
    services.get("x").assert_message(400, NOT_FOUND);
    // The same attribute as it should be.
    let whole =
        b"\x31\x17\x30\x15\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02";
    let leaf = issued(&services.create("x", &csr_with_attribute(&ec_key(), whole))).remove(0);
    assert_eq!(extensions(&leaf)[0], "2.5.29.37");
}

/// A request that is signed as it should be, whose attribute for extensions has these values (a set, DER).
fn csr_with_attribute(key: &PKey<Private>, values: &[u8]) -> String {
    const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
    const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let subject = aziot_tests::certd::name(&[("CN", "x")]).to_der().unwrap();
    let public_key = key.public_key_to_der().unwrap();
    let mut out = vec![0; 1024];
    let mut writer = Writer::new(&mut out);
    writer.sequence(|w| {
        w.unsigned(&[]);
        w.put(&subject);
        w.put(&public_key);
        w.nested(Tag::context(0), |w| {
            w.sequence(|w| {
                w.object_identifier(EXTENSION_REQUEST);
                w.put(values);
            });
        });
    });
    let info = writer.finish().unwrap().to_vec();
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(&info).unwrap();
    let mut out = vec![0; 1024];
    let mut writer = Writer::new(&mut out);
    writer.sequence(|w| {
        w.put(&info);
        w.put(ECDSA_WITH_SHA256);
        w.bit_string(&signature);
    });
    let der = writer.finish().unwrap();
    let mut text = vec![0; 2048];
    aziot_core::pem::encode("CERTIFICATE REQUEST", der, &mut text)
        .unwrap()
        .to_owned()
}

#[test]
fn cs_23_the_issuer_of_the_request_wins() {
    let est = TcpListener::bind("127.0.0.1:0").unwrap();
    est.set_nonblocking(true).unwrap();
    let address = est.local_addr().unwrap();
    let services = Services::start(&format!(
        "[cert_issuance.est]\nusername = \"u\"\npassword = \"p\"\n\
         [cert_issuance.e]\nmethod = \"est\"\nurl = \"http://{address}/\"\nexpiry_days = 3\ncommon_name = \"named\"\n\
         [cert_issuance.s]\nmethod = \"self_signed\"\n"
    ));
    let (key, ca) = services.authority("ca", "ec-p256", 100);
    let request = csr(&ec_key(), "x");
    for id in ["e", "s", "none"] {
        let chain = issued(&services.post(&with_issuer(id, &request, "ca", &key)));
        assert_eq!(chain.len(), 2, "{id}");
        assert_verifies(&chain[0], &ca);
        assert_eq!(chain[1].to_der().unwrap(), ca.to_der().unwrap());
        // The options of the id's entry apply nevertheless.
        let name = chain[0].subject_name().entries().next().unwrap();
        let lifetime = seconds(chain[0].not_after()) - seconds(chain[0].not_before());
        let expected = if id == "e" { ("named", 3) } else { ("x", 30) };
        assert_eq!(
            (name.data().to_string().unwrap().as_str(), lifetime),
            (expected.0, expected.1 * DAY)
        );
    }
    assert_eq!(
        est.accept().map(drop).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::WouldBlock)
    );
    for (issuer, key, message) in [
        (
            "nobody",
            key.as_str(),
            "parameter \"issuer.certId\" has an invalid value\ncaused by: not found",
        ),
        (
            "empty",
            key.as_str(),
            "parameter \"issuer.certId\" has an invalid value\ncaused by: invalid issuer",
        ),
        (
            "ca",
            "ab\0cd",
            "parameter \"issuer.privateKeyHandle\" has an invalid value\ncaused by: nul byte found in provided data at \
             position: 2",
        ),
        ("ca", "no handle", "internal error"),
        ("corrupt", key.as_str(), "internal error"),
    ] {
        assert_eq!(services.put("empty", "no certificate\n").status, 201);
        let corrupt = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(services.put("corrupt", corrupt).status, 201);
        let key = KeyHandle::new(key);
        let status = if message == "internal error" {
            500
        } else {
            400
        };
        services
            .post(&with_issuer("x", &request, issuer, &key))
            .assert_message(status, message);
    }
    // Absent is the same as null.
    services
        .post(&json!({ "certId": "none", "csr": request, "issuer": null }))
        .assert_message(500, "internal error");
}

#[test]
fn cs_24_without_a_rule_nothing_is_issued() {
    let services = Services::start("[cert_issuance.l]\nmethod = \"local_ca\"\n");
    let request = csr(&ec_key(), "x");
    services
        .create("x", &request)
        .assert_message(500, "internal error");
    services
        .create("l", &request)
        .assert_message(500, "internal error");
    let log = services.certd.log();
    log.wait_for("issuer is required for locally-issued certs");
    log.wait_for(
        "cert \"l\" is configured to be issued by local CA, but local CA is not configured",
    );
    services.get("x").assert_message(400, NOT_FOUND);
}

#[test]
fn cs_25_how_long_certificates_are_valid() {
    let services = Services::start(&format!(
        "{LOCAL_CA}[cert_issuance.week]\nmethod = \"local_ca\"\nexpiry_days = 7\n\
         [cert_issuance.long]\nmethod = \"local_ca\"\nexpiry_days = 4294967295\n\
         [cert_issuance.own]\nmethod = \"self_signed\"\nexpiry_days = 4294967295\n\
         [cert_issuance.century]\nmethod = \"self_signed\"\nexpiry_days = 40000\n"
    ));
    let (key, ca) = services.authority("ca", "ec-p256", 60);
    let request = csr(&ec_key(), "x");
    for (id, days) in [("x", 30), ("week", 7)] {
        let before = now();
        let chain = issued(&services.create(id, &request));
        let (from, until) = (
            seconds(chain[0].not_before()),
            seconds(chain[0].not_after()),
        );
        assert!((before..=now()).contains(&from), "{id}");
        assert_eq!(until - from, days * DAY, "{id}");
    }
    let chain = issued(&services.create("long", &request));
    assert_eq!(seconds(chain[0].not_after()), seconds(ca.not_after()));
    // GeneralizedTime from 2050 on, and nothing beyond the year 9999.
    let (_, own) = services.key_pair("century", "ec-p256");
    let chain = issued(&services.create("century", &csr(&own, "x")));
    assert_eq!(
        seconds(chain[0].not_after()) - seconds(chain[0].not_before()),
        40_000 * DAY
    );
    let (_, own) = services.key_pair("own", "ec-p256");
    services
        .create("own", &csr(&own, "x"))
        .assert_message(500, "internal error");
    services.certd.log().wait_for("after the year 9999");

    // An issuer that has expired issues nothing.
    let (_, pair) = services.key_pair("ca", "ec-p256");
    let expired = authority_until("ca", &pair, now() - 1).to_pem().unwrap();
    assert_eq!(
        services
            .put("ca", &String::from_utf8(expired).unwrap())
            .status,
        201
    );
    services
        .create("x", &request)
        .assert_message(500, "internal error");
    services
        .post(&with_issuer("x", &request, "ca", &key))
        .assert_message(500, "internal error");
    services
        .certd
        .log()
        .wait_for("the certificate of the issuer has expired");
}

#[test]
fn cs_26_extensions_and_their_order() {
    const USAGE: &str = "2.5.29.15";
    const EXTENDED_USAGE: &str = "2.5.29.37";
    const CONSTRAINTS: &str = "2.5.29.19";
    const SUBJECT_KEY: &str = "2.5.29.14";
    const AUTHORITY_KEY: &str = "2.5.29.35";
    let services = Services::start(&format!(
        "{LOCAL_CA}[cert_issuance.own]\nmethod = \"self_signed\"\n"
    ));
    let (key, ca) = services.authority("ca", "ec-p256", 60);
    let asked = || {
        vec![
            ExtendedKeyUsage::new().client_auth().build().unwrap(),
            BasicConstraints::new().critical().ca().build().unwrap(),
            KeyUsage::new().digital_signature().build().unwrap(),
        ]
    };
    let pair = ec_key();
    let leaf = issued(&services.create("x", &csr_with(&pair, &[("CN", "x")], asked()))).remove(0);
    assert_eq!(
        extensions(&leaf),
        [
            EXTENDED_USAGE,
            CONSTRAINTS,
            USAGE,
            SUBJECT_KEY,
            AUTHORITY_KEY
        ]
    );
    let point = {
        let ec = pair.ec_key().unwrap();
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        ec.public_key()
            .to_bytes(ec.group(), form, &mut context)
            .unwrap()
    };
    assert_eq!(
        leaf.subject_key_id().unwrap().as_slice(),
        openssl::sha::sha1(&point)
    );
    assert_eq!(
        leaf.authority_key_id().unwrap().as_slice(),
        ca.subject_key_id().unwrap().as_slice()
    );
    let der = leaf.to_der().unwrap();
    let id = ca.subject_key_id().unwrap().as_slice().to_vec();
    let whole: Vec<u8> = [
        b"\x30\x1f\x06\x03\x55\x1d\x23\x04\x18\x30\x16\x80\x14",
        id.as_slice(),
    ]
    .concat();
    assert!(der.windows(whole.len()).any(|window| window == whole));
    // What the request brings is kept, and not added a second time.
    #[allow(deprecated, reason = "the builders have no way to set a value")]
    let own = |nid, value| X509Extension::new_nid(None, None, nid, value).unwrap();
    let brought = vec![own(Nid::SUBJECT_KEY_IDENTIFIER, "01:02:03")];
    let leaf = issued(&services.create("x", &csr_with(&pair, &[("CN", "x")], brought))).remove(0);
    assert_eq!(extensions(&leaf), [SUBJECT_KEY, AUTHORITY_KEY]);
    assert_eq!(leaf.subject_key_id().unwrap().as_slice(), [1, 2, 3]);
    // A self-signed certificate names no authority, nor does one of an issuer without an identifier.
    let (_, pair) = services.key_pair("own", "ec-p256");
    let own_cert = issued(&services.create("own", &csr_with(&pair, &[("CN", "x")], asked())));
    assert_eq!(
        extensions(&own_cert[0]),
        [EXTENDED_USAGE, CONSTRAINTS, USAGE, SUBJECT_KEY]
    );
    let plain = {
        let (_, pair) = services.key_pair("ca", "ec-p256");
        let mut builder = X509::builder().unwrap();
        let name = aziot_tests::certd::name(&[("CN", "plain")]);
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&pair).unwrap();
        builder
            .set_not_before(&Asn1Time::days_from_now(0).unwrap())
            .unwrap();
        builder
            .set_not_after(&Asn1Time::days_from_now(9).unwrap())
            .unwrap();
        builder
            .sign(&pair, openssl::hash::MessageDigest::sha256())
            .unwrap();
        String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
    };
    assert_eq!(services.put("plain", &plain).status, 201);
    let leaf = issued(&services.post(&with_issuer("y", &csr(&ec_key(), "y"), "plain", &key)));
    assert_eq!(extensions(&leaf[0]), [SUBJECT_KEY]);
}

#[test]
fn cs_27_the_certificate_of_the_contract() {
    const CSR: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIH8MIGiAgEAMBoxDDAKBgNVBAMMA3JlcTEKMAgGA1UECgwBeDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABCe1qksv7shTKrUMNYXuqz69hb/jYCvI189q9X0qdf7B
kDC0igbP6YxnYEPxpt+AJ9uysqu7uHv0LXjmnPPnJ+egJjAkBgkqhkiG9w0BCQ4x
FzAVMBMGA1UdJQQMMAoGCCsGAQUFBwMCMAoGCCqGSM49BAMCA0kAMEYCIQCo9O/f
qaad6Hr79W4ObAKbwHn+rZ4+fvoOhRNJ/C9udwIhAOw21QPttCcRyQfLQuY6Uvbb
r1VzLwdnMzVRvtJXCZHm
-----END CERTIFICATE REQUEST-----
";
    /// From behind the serial number to the validity, and from behind the validity to the end.
    const BEFORE: &str =
        "300d06092a864886f70d01010b0500301331113 00f06035504030c086c6f63616c2d6361";
    const AFTER: &str = "30383114301206035504030c0b746573742d646576696365310b300906035504070c0241513113301106035504080c0a41\
        6e74617263746963613059301306072a8648ce3d020106082a8648ce3d0301070342000427b5aa4b2feec8532ab50c3585eeab3ebd85bfe360\
        2bc8d7cf6af57d2a75fec19030b48a06cfe98c676043f1a6df8027dbb2b2abbbb87bf42d78e69cf3e727e7a357305530130603551d25040c30\
        0a06082b06010505070302301d0603551d0e0416041443620debf003138a4545edb60b7136cbdb9b57a230\
        1f0603551d23041830168014d257a4624d63dd1b7c58f05ae86dd222609dda2b";
    let services = Services::start(
        "[cert_issuance.local_ca]\ncert = \"local-ca\"\npk = \"local-ca\"\n\
         [cert_issuance.x]\nmethod = \"local_ca\"\n\
         subject = { \"L\" = \"AQ\", \"ST\" = \"Antarctica\", \"CN\" = \"test-device\" }\n",
    );
    let (_, pair) = services.key_pair("local-ca", "rsa-2048");
    let ca = {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let name = aziot_tests::certd::name(&[("CN", "local-ca")]);
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&pair).unwrap();
        builder
            .set_not_before(&Asn1Time::days_from_now(0).unwrap())
            .unwrap();
        builder
            .set_not_after(&Asn1Time::days_from_now(5).unwrap())
            .unwrap();
        #[allow(deprecated, reason = "the builders have no way to set a value")]
        let id = X509Extension::new_nid(
            None,
            None,
            Nid::SUBJECT_KEY_IDENTIFIER,
            "d2:57:a4:62:4d:63:dd:1b:7c:58:f0:5a:e8:6d:d2:22:60:9d:da:2b",
        );
        builder.append_extension(id.unwrap()).unwrap();
        builder
            .sign(&pair, openssl::hash::MessageDigest::sha256())
            .unwrap();
        builder.build()
    };
    let pem = String::from_utf8(ca.to_pem().unwrap()).unwrap();
    assert_eq!(services.put("local-ca", &pem).status, 201);
    let chain = issued(&services.create("x", CSR));
    assert_verifies(&chain[0], &ca);
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let built = tbs(&chain[0]);
    // Version 3, and a serial number of 20 bytes in the place of 0.
    let (head, rest) = built.split_at(4 + 5 + 22);
    assert_eq!(head[..4], [0x30, 0x82, 0x01, 0x3a + 19]);
    assert_eq!(head[4..11], hex("a0030201020214"));
    let (before, after) = (hex(BEFORE), hex(AFTER));
    let end = format!(
        "{}",
        aziot_core::time::UnixTime::from_secs(u64::try_from(seconds(ca.not_after())).unwrap())
            .unwrap()
            .rfc3339()
    );
    let end: String = end[2..]
        .chars()
        .filter(char::is_ascii_digit)
        .take(12)
        .collect();
    let validity = &rest[before.len()..rest.len() - after.len()];
    assert_eq!(rest[..before.len()], before);
    assert_eq!(validity.len(), 32, "two dates in UTCTime");
    assert_eq!(validity[..4], hex("301e170d"));
    assert_eq!(validity[17..], [b"\x17\x0d", end.as_bytes(), b"Z"].concat());
    assert_eq!(rest[rest.len() - after.len()..], after);
}

#[test]
fn cs_28_self_signed_certificates() {
    let services = Services::start(
        "[cert_issuance.rsa]\nmethod = \"self_signed\"\ncommon_name = \"named\"\n\
         [cert_issuance.p256]\nmethod = \"self_signed\"\n[cert_issuance.p384]\nmethod = \"self_signed\"\n\
         [cert_issuance.missing]\nmethod = \"self_signed\"\n[cert_issuance.other]\nmethod = \"self_signed\"\n",
    );
    for (id, algorithm, signature, name) in [
        ("rsa", "rsa-2048", Nid::SHA256WITHRSAENCRYPTION, "named"),
        ("p256", "ec-p256", Nid::ECDSA_WITH_SHA256, "asked"),
        ("p384", "ec-p384", Nid::ECDSA_WITH_SHA384, "asked"),
    ] {
        let (_, pair) = services.key_pair(id, algorithm);
        let chain = issued(&services.create(id, &csr(&pair, "asked")));
        let [certificate] = &chain[..] else {
            panic!("one certificate, not {}", chain.len());
        };
        assert_verifies(certificate, certificate);
        assert_eq!(certificate.signature_algorithm().object().nid(), signature);
        let expected = aziot_tests::certd::name(&[("CN", name)]).to_der().unwrap();
        assert_eq!(certificate.subject_name().to_der().unwrap(), expected);
        assert_eq!(certificate.issuer_name().to_der().unwrap(), expected);
        assert_eq!(
            fs::read_to_string(services.file(id)).unwrap(),
            services.get(id).member("pem")
        );
    }
    services
        .create("missing", &csr(&ec_key(), "x"))
        .assert_message(500, "internal error");
    // A key that is not the one in the request cannot sign for it; release 1.6.0 did that.
    let _ = services.key_pair("other", "ec-p256");
    services
        .create("other", &csr(&ec_key(), "x"))
        .assert_message(500, "internal error");
    let log = services.certd.log();
    log.wait_for("could not load the key pair \"missing\"");
    log.wait_for("the key pair \"other\" is not the one in the request");
}

#[test]
fn cs_29_chains_of_the_issuer() {
    let services = Services::start(
        "[cert_issuance.local_ca]\ncert = \"chain\"\npk = \"ca\"\n[cert_issuance.x]\nmethod = \"local_ca\"\n\
         [preloaded_certs]\nchain = [\"ca\", \"root\"]\n",
    );
    let request = csr(&ec_key(), "x");
    services
        .create("x", &request)
        .assert_message(500, "internal error");
    services
        .certd
        .log()
        .wait_for("cert for issuer id \"chain\" not found");
    let (key, ca) = services.authority("ca", "ec-p256", 60);
    let (_, root) = services.authority("root", "ec-p256", 60);
    // With text around, a key, CRLF and no line end: all of that disappears.
    let pem = String::from_utf8(ca.to_pem().unwrap()).unwrap();
    let messy = format!(
        "Bag Attributes\n{}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        pem.replace('\n', "\r\n")
    );
    assert_eq!(services.put("ca", &messy).status, 201);
    for body in [
        json!({ "certId": "x", "csr": request }),
        with_issuer("y", &request, "chain", &key),
    ] {
        let response = services.post(&body);
        let chain = issued(&response);
        assert_eq!(chain.len(), 3);
        assert_verifies(&chain[0], &ca);
        let own = String::from_utf8(chain[0].to_pem().unwrap()).unwrap();
        let root = String::from_utf8(root.to_pem().unwrap()).unwrap();
        assert_eq!(response.member("pem"), format!("{own}{pem}{root}"));
    }
    // No certificate in it at all is an error, not an empty chain.
    for id in ["ca", "root"] {
        assert_eq!(services.put(id, "nothing\n").status, 201);
    }
    services
        .create("x", &request)
        .assert_message(500, "internal error");
    services
        .certd
        .log()
        .wait_for("there is no certificate in what is stored for issuer id \"chain\"");
}

#[test]
fn cs_30_the_empty_id() {
    let services = Services::start(
        "[cert_issuance.\"\"]\nmethod = \"local_ca\"\n[cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n",
    );
    let _ = services.authority("ca", "ec-p256", 60);
    assert_eq!(issued(&services.create("", &csr(&ec_key(), "x"))).len(), 2);
    let file = certificate_file(&services.root, "");
    assert!(
        file.ends_with("-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.cer")
    );
    assert!(file.exists());
}

#[test]
fn a_key_that_does_not_belong_to_the_issuer_signs_nothing() {
    let services = Services::start(LOCAL_CA);
    let _ = services.authority("ca", "ec-p256", 60);
    let (other, _) = services.key_pair("other", "ec-p256");
    services
        .post(&with_issuer("x", &csr(&ec_key(), "x"), "ca", &other))
        .assert_message(500, "internal error");
    services
        .certd
        .log()
        .wait_for("is not the one of the issuer's certificate");
    services.get("x").assert_message(400, NOT_FOUND);
}

#[test]
fn serial_numbers_are_positive_and_unique() {
    let services = Services::start(LOCAL_CA);
    let _ = services.authority("ca", "ec-p256", 60);
    let serials: BTreeSet<Vec<u8>> = (0..8)
        .map(|n| {
            let chain = issued(&services.create("x", &csr(&ec_key(), &n.to_string())));
            let serial = chain[0].serial_number().to_bn().unwrap();
            assert!(!serial.is_negative());
            serial.to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 8);
    assert!(serials.iter().all(|serial| serial.len() == 20));
}

/// What cannot be stored is not issued: with an HSM, or an EST server, it would be lost.
#[test]
fn what_cannot_be_stored_is_not_issued() {
    let root = root(LOCAL_CA);
    root.write(
        "etc/aziot/certd/config.d/p.toml",
        format!(
            "[preloaded_certs]\nlist = [\"x\"]\ngone = \"file://{}\"\nhttp = \"http://x/\"\n\
             [cert_issuance]\nlist.method = \"local_ca\"\ngone.method = \"local_ca\"\nhttp.method = \"local_ca\"\n",
            root.join("missing/x.pem").display()
        ),
    );
    let services = Services {
        keyd: Launch::service("aziot-keyd", &root)
            .env("AZIOT_LOG", "debug")
            .start(),
        certd: Launch::service("aziot-certd", &root).start(),
        root,
    };
    let (key, _) = services.authority("ca", "ec-p256", 60);
    let signed = services.keyd.log().count("<-- POST /sign");
    assert!(signed > 0, "the CA has signed for itself");
    let long = "a".repeat(187);
    let request = csr(&ec_key(), "x");
    for id in ["list", "gone", "http", &long] {
        services
            .post(&with_issuer(id, &request, "ca", &key))
            .assert_message(500, "internal error");
    }
    for text in [
        "is a list of IDs, not a single URI",
        "there is no directory",
        "unrecognized scheme",
        "would have 256 bytes",
    ] {
        services.certd.log().wait_for(text);
    }
    // No other signature was made.
    assert_eq!(services.keyd.log().count("<-- POST /sign"), signed);
}

/// Nor is what the service may not write, as a file that an administrator has preloaded usually is.
#[test]
fn what_may_not_be_written_is_not_issued() {
    const SERVICE: u32 = 40_000;
    const REFUSED: &str = "may write neither";
    if !users::can_change("a service without root's rights") {
        return;
    }
    let root = root("");
    let (file, foreign) = (
        root.write("theirs/x.pem", ""),
        root.write("theirs/link.pem", ""),
    );
    let link = root.join("run/aziot/link.pem");
    symlink(&foreign, &link).unwrap();
    let mut text = String::from("[cert_issuance]\n");
    let mut preloaded = String::from("[preloaded_certs]\n");
    for (id, path) in [
        ("file", &file),
        ("new", &root.join("theirs/new.pem")),
        ("link", &link),
    ] {
        text.push_str(&format!("{id}.method = \"self_signed\"\n"));
        preloaded.push_str(&format!("{id} = \"file://{}\"\n", path.display()));
    }
    root.write("etc/aziot/certd/config.d/p.toml", text + &preloaded);
    for directory in ["run/aziot", "var/lib/aziot/certd"] {
        chown(root.join(directory), Some(SERVICE), Some(SERVICE)).unwrap();
    }
    let services = Services::launch(root, |launch| launch.uid(SERVICE));
    let log = services.certd.log();
    let request = csr(&ec_key(), "x");
    for (n, id) in ["file", "new", "link"].into_iter().enumerate() {
        services
            .create(id, &request)
            .assert_message(500, "internal error");
        let line = log.wait_for_more(REFUSED, n);
        assert!(line.contains("theirs/"), "{line}");
    }
    // With the right to, it gets as far as the Keys Service: in place, and by replacing what is there.
    chown(&file, Some(SERVICE), None).unwrap();
    services
        .create("file", &request)
        .assert_message(500, "internal error");
    log.wait_for("could not load the key pair \"file\"");
    chown(services.root.join("theirs"), Some(SERVICE), None).unwrap();
    for id in ["new", "link"] {
        services
            .create(id, &request)
            .assert_message(500, "internal error");
        log.wait_for(&format!("could not load the key pair {id:?}"));
    }
    assert_eq!(log.count(REFUSED), 3);
}

/// A request whose client has gone before it is looked at is dropped, and its connection is free for another.
#[test]
fn what_nobody_waits_for_is_not_issued() {
    const DROPPED: &str = "everybody who has asked for it has hung up";
    let services = Services::start(&format!("max_requests = 2\n{LOCAL_CA}"));
    let _ = services.authority("ca", "ec-p256", 60);
    let mut client = services.connect();
    // It is accepted, so it is read as soon as the service goes on.
    let get = request("GET", &format!("/certificates/x?{VERSION}"), None);
    client.exchange(get).assert_message(400, NOT_FOUND);
    services.certd.signal(libc::SIGSTOP);
    let body = json!({ "certId": "x", "csr": csr(&ec_key(), "x") });
    client.send(request(
        "POST",
        &format!("/certificates?{VERSION}"),
        Some(&body),
    ));
    drop(client);
    services.certd.signal(libc::SIGCONT);
    services.certd.log().wait_for(DROPPED);
    services.get("x").assert_message(400, NOT_FOUND);
    // Both places are free again.
    let mut open: Vec<_> = (0..2).map(|_| services.connect()).collect();
    for client in &mut open {
        let get = request("GET", &format!("/certificates/ca?{VERSION}"), None);
        assert_eq!(client.exchange(get).status, 200);
    }
}

/// A CA of its own, a certificate that it issues, and OpenSSL's judgement at its strictest.
#[test]
fn openssl_accepts_what_is_issued() {
    let services = Services::start(
        "[cert_issuance.ca]\nmethod = \"self_signed\"\ncommon_name = \"site-ca\"\nexpiry_days = 365\n\
         [cert_issuance.local_ca]\ncert = \"ca\"\npk = \"ca\"\n[cert_issuance.x]\nmethod = \"local_ca\"\n",
    );
    for algorithm in ["ec-p256", "rsa-2048", "ec-p384"] {
        if let Ok(old) = services.keys().load_key_pair("ca") {
            services.keys().delete_key_pair(&old).unwrap();
        }
        let (_, pair): (_, PKey<Private>) = services.key_pair("ca", algorithm);
        let own = csr_with(&pair, &[("CN", "x")], ca_extensions());
        assert_eq!(issued(&services.create("ca", &own)).len(), 1);
        let usage = vec![
            KeyUsage::new()
                .critical()
                .digital_signature()
                .build()
                .unwrap(),
            ExtendedKeyUsage::new().server_auth().build().unwrap(),
        ];
        let leaf = csr_with(&ec_key(), &[("CN", "server"), ("O", "site")], usage);
        assert_eq!(issued(&services.create("x", &leaf)).len(), 2);
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
            .arg(services.file("ca"))
            .arg(services.file("x"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{algorithm}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Release 1.6.0 signed with whatever key it was given: the certificate in its store does not verify under its issuer's.
#[test]
fn the_mistake_of_release_1_6_0_is_not_repeated() {
    let root = root("");
    for home in ["var/lib/aziot/certd", "var/lib/aziot/keyd"] {
        copy_tree(&reference(home), &root.join(home));
    }
    let services = Services::on(root);
    let stored = X509::stack_from_pem(&fs::read(services.file("issued by ec")).unwrap()).unwrap();
    // They are not even of the same kind.
    let verified = stored[0].verify(&stored[1].public_key().unwrap());
    assert!(!verified.unwrap_or(false));
    let request = fs::read_to_string(reference("results/issued-by-ec.csr.pem")).unwrap();
    let (key, pair) = services.key_pair("ec", "ec-p256");
    services
        .post(&with_issuer("x", &request, "imported-1", &key))
        .assert_message(500, "internal error");
    // With a certificate for that key it says what its request did.
    let issuer = aziot_tests::certd::authority("imported", &pair, 60);
    let issuer_pem = String::from_utf8(issuer.to_pem().unwrap()).unwrap();
    assert_eq!(services.put("imported-2", &issuer_pem).status, 201);
    let new = issued(&services.post(&with_issuer("x", &request, "imported-2", &key)));
    assert_verifies(&new[0], &issuer);
    assert_eq!(
        new[0].subject_name().to_der().unwrap(),
        stored[0].subject_name().to_der().unwrap()
    );
    assert_eq!(extensions(&new[0]), extensions(&stored[0]));
    assert!(
        new[0]
            .public_key()
            .unwrap()
            .public_eq(&stored[0].public_key().unwrap())
    );
}
