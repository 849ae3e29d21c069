//! Vectors, and everything against OpenSSL where it is there.

use core::convert::Infallible;

use aziot_core::der::{Reader, Tag, Writer};
use aziot_core::pem;
use proptest::prelude::*;

use super::*;
use crate::key_pair::Curve;

#[cfg(feature = "openssl")]
mod against_openssl;

/// The request of the specification: `CN=req1, O=x`, an EC key, extended key usage.
pub(super) const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIH8MIGiAgEAMBoxDDAKBgNVBAMMA3JlcTEKMAgGA1UECgwBeDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABCe1qksv7shTKrUMNYXuqz69hb/jYCvI189q9X0qdf7B
kDC0igbP6YxnYEPxpt+AJ9uysqu7uHv0LXjmnPPnJ+egJjAkBgkqhkiG9w0BCQ4x
FzAVMBMGA1UdJQQMMAoGCCsGAQUFBwMCMAoGCCqGSM49BAMCA0kAMEYCIQCo9O/f
qaad6Hr79W4ObAKbwHn+rZ4+fvoOhRNJ/C9udwIhAOw21QPttCcRyQfLQuY6Uvbb
r1VzLwdnMzVRvtJXCZHm
-----END CERTIFICATE REQUEST-----
";

/// Signs with as many bytes as it is told to; the last ones of the message, so that a test sees what was signed.
struct Fixed(SignatureAlgorithm, usize);

impl Signer for Fixed {
    type Error = &'static str;

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0
    }

    fn sign(&self, message: &[u8], signature: &mut [u8]) -> Result<usize, &'static str> {
        let place = signature.get_mut(..self.1).ok_or("too short")?;
        place
            .iter_mut()
            .zip(message.iter().rev())
            .for_each(|(place, byte)| *place = *byte);
        Ok(self.1)
    }
}

/// Takes what [`Fixed`] makes.
struct Reversed;

impl Verifier for Reversed {
    type Error = Infallible;

    fn verify(
        &self,
        _: &[u8],
        _: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Infallible> {
        Ok(message.iter().rev().take(signature.len()).eq(signature))
    }
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(super) fn from_pem(text: &str) -> Vec<u8> {
    let block = pem::blocks(text.as_bytes()).next().unwrap();
    let mut out = vec![0; block.max_len()];
    block.decode(&mut out).unwrap().to_vec()
}

fn element(tag: Tag, content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; content.len() + 10];
    let mut writer = Writer::new(&mut out);
    writer.element(tag, content);
    writer.finish().unwrap().to_vec()
}

/// 2026-11-21T19:40:15Z
const NOW: i64 = 1_795_290_015;

fn common_name(name: &str) -> Vec<u8> {
    let mut out = [0; 128];
    name::encode([("CN", name)], &mut out).unwrap().to_vec()
}

const SERIAL: Serial = Serial::from_random([0; 20]);

fn built(template: &Template<'_>) -> Vec<u8> {
    let mut out = [0; 4096];
    let signer = Fixed(SignatureAlgorithm::EcdsaWithSha256, 70);
    build(template, &signer, &mut out).unwrap().to_vec()
}

#[test]
fn cs_27_tbs_certificate_vector() {
    let expected = unhex(
        "3082013aa003020102020100300d06092a864886f70d01010b0500301331113
         00f06035504030c086c6f63616c2d6361301e170d3236313132313139343031
         355a170d3236313132363139323434365a30383114301206035504030c0b746
         573742d646576696365310b300906035504070c0241513113301106035504080
         c0a416e74617263746963613059301306072a8648ce3d020106082a8648ce3d
         0301070342000427b5aa4b2feec8532ab50c3585eeab3ebd85bfe3602bc8d7cf
         6af57d2a75fec19030b48a06cfe98c676043f1a6df8027dbb2b2abbbb87bf42d
         78e69cf3e727e7a357305530130603551d25040c300a06082b06010505070302
         301d0603551d0e0416041443620debf003138a4545edb60b7136cbdb9b57a230
         1f0603551d23041830168014d257a4624d63dd1b7c58f05ae86dd222609dda2b",
    );
    assert_eq!(expected.len(), 318);
    let csr = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&csr).unwrap();
    let ca_name = common_name("local-ca");
    let ca_key_id = unhex("d257a4624d63dd1b7c58f05ae86dd222609dda2b");
    let mut subject = [0; 128];
    let fields = [("CN", "test-device"), ("L", "AQ"), ("ST", "Antarctica")];
    let subject = name::encode(fields, &mut subject).unwrap();
    let template = Template {
        serial: SERIAL,
        issuer: Some(Issuer {
            name: &ca_name,
            key_id: Some(&ca_key_id),
        }),
        validity: Validity {
            not_before: NOW,
            // 2026-11-26T19:24:46Z
            not_after: 1_795_721_086,
        },
        subject,
        public_key: csr.public_key(),
        extensions: csr.extensions().unwrap(),
    };
    let signer = Fixed(SignatureAlgorithm::Sha256WithRsa, 256);
    let mut out = [0; 2048];
    let der = build(&template, &signer, &mut out).unwrap();
    let certificate = Certificate::parse(der).unwrap();

    // All of it but the number, which is 0 in the vector.
    let tbs = |tbs: &[u8]| {
        let mut content = Reader::whole_sequence(tbs).unwrap();
        let version = content.element().unwrap().raw.to_vec();
        let serial = content.integer().unwrap().to_vec();
        (version, serial, content.rest().to_vec())
    };
    let (version, serial, rest) = tbs(certificate.tbs());
    let (expected_version, zero, expected_rest) = tbs(&expected);
    assert_eq!(version, expected_version);
    assert_eq!((serial, zero), (SERIAL.as_bytes().to_vec(), vec![0]));
    assert_eq!(rest, expected_rest);
    assert_eq!(
        certificate.is_signed_with(csr.public_key(), &Reversed),
        Ok(true)
    );
    assert_eq!(certificate.signature().len(), 256);
}

#[test]
fn requests_are_taken_apart() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    assert_eq!(csr.der(), der);
    assert_eq!(name::Text(csr.subject()).to_string(), "CN=req,O=x");
    assert_eq!(csr.algorithm(), SignatureAlgorithm::EcdsaWithSha256.der());
    assert_eq!(csr.info().len(), 165);
    assert_eq!(csr.signature().len(), 72);
    assert_eq!(spki::curve(csr.public_key()), Some(Curve::P256));
    assert_eq!(
        SignatureAlgorithm::for_key(csr.public_key()),
        Some(SignatureAlgorithm::EcdsaWithSha256)
    );
    assert_eq!(csr.extensions(), Ok(Extensions::CLIENT_AUTH));
}

/// The identity for EST asks for what the request of the specification asks for.
#[test]
fn requests_are_built() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let signer = Fixed(SignatureAlgorithm::EcdsaWithSha256, 72);
    let mut out = [0; 512];
    let ours = build_request(
        csr.subject(),
        csr.public_key(),
        Extensions::CLIENT_AUTH,
        &signer,
        &mut out,
    )
    .unwrap();
    let ours = CertificationRequest::parse(ours).unwrap();
    assert_eq!(ours.info(), csr.info());
    assert_eq!(ours.algorithm(), csr.algorithm());
    assert_eq!(ours.verify(&Reversed), Ok(true));

    let plain = |out: &mut [u8]| {
        build_request(
            csr.subject(),
            csr.public_key(),
            Extensions::NONE,
            &signer,
            out,
        )
        .map(<[u8]>::to_vec)
    };
    let der = plain(&mut [0; 512]).unwrap();
    let ours = CertificationRequest::parse(&der).unwrap();
    assert!(ours.info().ends_with(&[0xa0, 0x00]));
    assert_eq!(ours.extensions(), Ok(Extensions::NONE));

    assert_eq!(plain(&mut vec![0; der.len()]).as_ref(), Ok(&der));
    for short in 0..der.len() {
        let error = plain(&mut vec![0; short]).unwrap_err();
        assert!(matches!(
            error,
            RequestError::BufferFull | RequestError::Sign("too short")
        ));
    }
}

/// A request with these attributes, signed by nobody.
fn with_attributes(attributes: &[&[u8]]) -> Vec<u8> {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let info = [
        &[2, 1, 0][..],
        csr.subject(),
        csr.public_key(),
        &element(Tag::context(0), &attributes.concat()),
    ]
    .concat();
    let outer = [
        &element(Tag::SEQUENCE, &info)[..],
        csr.algorithm(),
        &[3, 2, 0, 1],
    ]
    .concat();
    element(Tag::SEQUENCE, &outer)
}

fn attribute(id: &[u8], values: &[&[u8]]) -> Vec<u8> {
    let content = [
        element(Tag::OBJECT_IDENTIFIER, id),
        element(Tag::SET, &values.concat()),
    ]
    .concat();
    element(Tag::SEQUENCE, &content)
}

fn extension(id: &[u8], critical: Option<u8>, value: &[u8]) -> Vec<u8> {
    let critical = critical.map_or(vec![], |critical| vec![1, 1, critical]);
    let content = [
        element(Tag::OBJECT_IDENTIFIER, id),
        critical,
        element(Tag::OCTET_STRING, value),
    ]
    .concat();
    element(Tag::SEQUENCE, &content)
}

const PKCS_9: &[u8] = object_id::EXTENSION_REQUEST;
const MICROSOFT: &[u8] = object_id::MICROSOFT_EXTENSION_REQUEST;
const OTHER: &[u8] = &[0x2a, 0x03];

#[test]
fn cs_26_extensions_are_those_of_the_first_attribute_that_has_them() {
    let one = element(
        Tag::SEQUENCE,
        &extension(&[0x55, 0x1d, 0x11], None, &[0x30, 0]),
    );
    let two = element(
        Tag::SEQUENCE,
        &extension(&[0x55, 0x1d, 0x13], Some(0xff), &[0x30, 3, 1, 1, 0xff]),
    );
    let ids = |attributes: &[&[u8]]| -> Result<Vec<Vec<u8>>, Error> {
        let der = with_attributes(attributes);
        let csr = CertificationRequest::parse(&der).unwrap();
        Ok(csr
            .extensions()?
            .iter()
            .map(|extension| extension.id.to_vec())
            .collect())
    };
    let (san, constraints) = (vec![0x55, 0x1d, 0x11], vec![0x55, 0x1d, 0x13]);
    assert_eq!(ids(&[]), Ok(vec![]));
    assert_eq!(ids(&[&attribute(OTHER, &[&[0x05, 0x00]])]), Ok(vec![]));
    assert_eq!(ids(&[&attribute(PKCS_9, &[&one])]), Ok(vec![san.clone()]));
    assert_eq!(
        ids(&[&attribute(MICROSOFT, &[&two])]),
        Ok(vec![constraints])
    );
    assert_eq!(
        ids(&[&attribute(MICROSOFT, &[&two]), &attribute(PKCS_9, &[&one])]),
        Ok(vec![san])
    );
    assert_eq!(ids(&[&attribute(PKCS_9, &[&[0x30, 0x00]])]), Ok(vec![]));
}

/// DB-18: nothing that is asked for is dropped or put in twice.
#[test]
fn cs_22_unreadable_and_repeated_extensions_are_refused() {
    let extensions = |attributes: &[&[u8]]| {
        let der = with_attributes(attributes);
        let csr = CertificationRequest::parse(&der).unwrap();
        csr.extensions().map(|_| ())
    };
    let san = extension(&[0x55, 0x1d, 0x11], None, &[0x30, 0]);
    let good = element(Tag::SEQUENCE, &san);
    assert_eq!(extensions(&[&attribute(PKCS_9, &[&good])]), Ok(()));
    assert_eq!(
        extensions(&[&attribute(PKCS_9, &[&good]), &attribute(PKCS_9, &[&good])]),
        Err(Error::DuplicateAttribute)
    );
    let twice = element(Tag::SEQUENCE, &[&san[..], &san].concat());
    let error = extensions(&[&attribute(PKCS_9, &[&twice])]).unwrap_err();
    assert!(error.to_string().contains("2.5.29.17"), "{error}");
    for values in [
        &[][..],
        &[&good[..], &good],
        &[&[0x05, 0x00]],
        &[&[0x30, 0x02, 0x05, 0x00]],
        &[&element(Tag::SEQUENCE, &san[..san.len() - 1])],
        &[&element(Tag::SEQUENCE, &extension(OTHER, Some(0x01), &[]))],
    ] {
        let error = extensions(&[&attribute(PKCS_9, values)]);
        assert!(matches!(error, Err(Error::Der { .. })), "{values:02x?}");
    }
    assert!(extensions(&[&[0x05, 0x00]]).is_err());
    let many = |count: u8| {
        let many: Vec<u8> = (0..count)
            .flat_map(|id| extension(&[0x55, 0x1d, id], None, &[]))
            .collect();
        extensions(&[&attribute(PKCS_9, &[&element(Tag::SEQUENCE, &many)])])
    };
    assert_eq!(many(64), Ok(()));
    assert_eq!(many(65), Err(Error::TooManyExtensions));
}

/// A false that is written out, as careless software does, is left out of the certificate.
#[test]
fn cs_26_order_and_identifiers() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let (subject, issuer) = (common_name("leaf"), common_name("ca"));
    let certificate = |extensions: &[u8], key_id: Option<&[u8]>, issued: bool| {
        let list = element(Tag::SEQUENCE, extensions);
        let template = Template {
            serial: SERIAL,
            issuer: issued.then_some(Issuer {
                name: &issuer,
                key_id,
            }),
            validity: Validity {
                not_before: NOW,
                not_after: NOW + 1,
            },
            subject: &subject,
            public_key: csr.public_key(),
            extensions: Extensions::parse(&list).unwrap(),
        };
        let der = built(&template);
        let certificate = Certificate::parse(&der).unwrap();
        let written = certificate.extensions();
        let written: Vec<(Vec<u8>, bool, Vec<u8>)> = written
            .iter()
            .map(|one| (one.id.to_vec(), one.critical, one.value.to_vec()))
            .collect();
        assert_eq!(certificate.issuer() == issuer, issued);
        written
    };
    let ski = vec![0x55, 0x1d, 0x0e];
    let aki = vec![0x55, 0x1d, 0x23];
    let ski_value = unhex("041443620debf003138a4545edb60b7136cbdb9b57a2");
    let aki_value = vec![0x30, 0x05, 0x80, 0x03, 7, 8, 9];

    let added_ski = (ski.clone(), false, ski_value);
    let added_aki = (aki.clone(), false, aki_value);
    let key_id = Some(&[7, 8, 9][..]);
    assert_eq!(
        certificate(&[], key_id, true),
        [added_ski.clone(), added_aki.clone()]
    );
    assert_eq!(
        certificate(&[], None, true),
        std::slice::from_ref(&added_ski)
    );
    assert_eq!(
        certificate(&[], None, false),
        std::slice::from_ref(&added_ski)
    );

    let usage = extension(&[0x55, 0x1d, 0x0f], Some(0xff), &[3, 2, 5, 0xa0]);
    let ca = extension(&[0x55, 0x1d, 0x13], Some(0x00), &[0x30, 3, 1, 1, 0xff]);
    let usage_read = (vec![0x55, 0x1d, 0x0f], true, vec![3, 2, 5, 0xa0]);
    let ca_read = (vec![0x55, 0x1d, 0x13], false, vec![0x30, 3, 1, 1, 0xff]);
    assert_eq!(
        certificate(&[&usage[..], &ca].concat(), key_id, true),
        [
            usage_read.clone(),
            ca_read,
            added_ski.clone(),
            added_aki.clone()
        ]
    );

    let own_ski = extension(&ski, None, &[4, 1, 1]);
    let own_aki = extension(&aki, None, &[0x30, 3, 0x80, 1, 2]);
    let own_ski_read = (ski, false, vec![4, 1, 1]);
    let own_aki_read = (aki, false, vec![0x30, 3, 0x80, 1, 2]);
    assert_eq!(
        certificate(&[&own_ski[..], &usage].concat(), key_id, true),
        [own_ski_read.clone(), usage_read.clone(), added_aki]
    );
    assert_eq!(
        certificate(&[&own_aki[..], &usage].concat(), key_id, true),
        [own_aki_read.clone(), usage_read.clone(), added_ski]
    );
    assert_eq!(
        certificate(&[&own_aki[..], &own_ski].concat(), key_id, true),
        [own_aki_read, own_ski_read]
    );
}

#[test]
fn cs_28_self_signed_names_itself() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let subject = common_name("overridden");
    let template = Template {
        serial: Serial::from_random([0xff; 20]),
        issuer: None,
        validity: Validity::of_days(NOW, 1, None).unwrap(),
        subject: &subject,
        public_key: csr.public_key(),
        extensions: Extensions::NONE,
    };
    let der = built(&template);
    let certificate = Certificate::parse(&der).unwrap();
    assert_eq!(certificate.issuer(), subject);
    assert_eq!(certificate.subject(), subject);
    assert_eq!(certificate.authority_key_id(), None);
    assert_eq!(certificate.subject_key_id().unwrap().len(), 20);
    assert_eq!(certificate.public_key(), csr.public_key());
    assert_eq!(certificate.serial()[0], 0x7f);
    assert_eq!(certificate.serial().len(), 20);
    assert!(!certificate.is_ca());
    assert_eq!(
        (certificate.not_before(), certificate.not_after()),
        (NOW, NOW + 86_400)
    );
}

#[test]
fn cs_25_validity() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let subject = common_name("ca");
    let mut template = Template {
        serial: SERIAL,
        issuer: None,
        validity: Validity::of_days(NOW, 30, None).unwrap(),
        subject: &subject,
        public_key: csr.public_key(),
        extensions: Extensions::NONE,
    };
    assert_eq!(template.validity.not_after, NOW + 2_592_000);
    let der = built(&template);
    let ca = Certificate::parse(&der).unwrap();
    let valid = |now, days| Validity::of_days(now, days, Some(&ca)).map(|valid| valid.not_after);
    assert_eq!(valid(NOW, 29), Ok(NOW + 29 * 86_400));
    assert_eq!(valid(NOW, 30), Ok(NOW + 30 * 86_400));
    assert_eq!(valid(NOW, 31), Ok(NOW + 30 * 86_400));
    assert_eq!(valid(NOW, u32::MAX), Ok(NOW + 30 * 86_400));
    assert!(valid(NOW + 30 * 86_400 - 1, 1).is_ok());
    let error = valid(NOW + 30 * 86_400, 1).unwrap_err();
    assert_eq!(error.not_after, ca.not_after());
    assert!(
        error.to_string().contains("2026-12-21T19:40:15Z"),
        "{error}"
    );

    // More seconds than 32 bits, then more than there are.
    template.validity = Validity::of_days(NOW, 40_000, None).unwrap();
    let der = built(&template);
    assert_eq!(
        Certificate::parse(&der).unwrap().not_after(),
        NOW + 3_456_000_000
    );
    template.validity = Validity::of_days(NOW, u32::MAX, None).unwrap();
    let signer = Fixed(SignatureAlgorithm::EcdsaWithSha256, 70);
    let error = build(&template, &signer, &mut [0; 1024]).unwrap_err();
    assert!(matches!(error, BuildError::Time { .. }), "{error}");
}

#[test]
fn a_certificate_fits_or_is_refused() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let template = Template {
        serial: SERIAL,
        issuer: None,
        validity: Validity::of_days(NOW, 1, None).unwrap(),
        subject: csr.subject(),
        public_key: csr.public_key(),
        extensions: Extensions::CLIENT_AUTH,
    };
    let whole = built(&template);
    let signer = Fixed(SignatureAlgorithm::EcdsaWithSha256, 70);
    let mut out = vec![0; whole.len()];
    assert_eq!(build(&template, &signer, &mut out), Ok(&whole[..]));
    for short in 0..whole.len() {
        let error = build(&template, &signer, &mut out[..short]).unwrap_err();
        assert!(matches!(
            error,
            BuildError::BufferFull | BuildError::Sign("too short")
        ));
    }
    let parts = csr.subject().len() * 2 + csr.public_key().len() + 21;
    assert!(whole.len() <= parts + 512 + 70);
    let broken = Template {
        public_key: &[0x30, 0x00],
        ..template
    };
    assert!(matches!(
        build(&broken, &signer, &mut out),
        Err(BuildError::PublicKey(_))
    ));
}

#[test]
fn the_same_key_in_other_words() {
    let (x, y) = ([7_u8; 32], [9_u8; 32]);
    let key = |curve, point: &[u8]| {
        let mut out = [0; 256];
        spki::ec(curve, point, &mut out).unwrap().to_vec()
    };
    let whole = key(Curve::P256, &[&[4][..], &x, &y].concat());
    let odd = key(Curve::P256, &[&[3][..], &x].concat());
    assert!(whole.len() <= spki::bound(65));
    assert!(spki::same_key(&whole, &odd) && spki::same_key(&odd, &whole));
    for other in [
        key(Curve::P256, &[&[2][..], &x].concat()),
        key(Curve::P256, &[&[3][..], &y].concat()),
        key(Curve::P384, &[&[3][..], &x].concat()),
        key(Curve::P256, &[&[4][..], &x].concat()),
        key(Curve::P256, &[]),
        vec![],
    ] {
        assert!(!spki::same_key(&whole, &other), "{other:02x?}");
    }

    let mut out = [0; 600];
    let modulus = [0xc5; 256];
    let rsa = spki::rsa(&modulus, &[1, 0, 1], &mut out).unwrap().to_vec();
    assert!(rsa.len() <= spki::bound(256));
    assert_eq!(
        spki::key_bytes(&rsa).unwrap()[..4],
        [0x30, 0x82, 0x01, 0x0a]
    );
    assert_eq!(
        SignatureAlgorithm::for_key(&rsa),
        Some(SignatureAlgorithm::Sha256WithRsa)
    );
    assert_eq!(spki::curve(&rsa), None);
    let bits = element(
        Tag::BIT_STRING,
        &[&[0][..], spki::key_bytes(&rsa).unwrap()].concat(),
    );
    let algorithm = element(
        Tag::SEQUENCE,
        &element(Tag::OBJECT_IDENTIFIER, object_id::RSA_ENCRYPTION),
    );
    let without_null = element(Tag::SEQUENCE, &[algorithm, bits].concat());
    assert_ne!(rsa, without_null);
    assert!(spki::same_key(&rsa, &without_null));
    let other = spki::rsa(&modulus, &[3], &mut out).unwrap();
    assert!(!spki::same_key(&rsa, other));
    assert!(!spki::same_key(&rsa, &whole));
}

#[test]
fn object_identifiers_as_text() {
    for (content, text) in [
        (&[0x55, 0x1d, 0x0e][..], "2.5.29.14"),
        (PKCS_9, "1.2.840.113549.1.9.14"),
        (&[0x00], "0.0"),
        (&[0x88, 0x37, 0x01], "2.999.1"),
        (&[], ""),
        (&[0x55, 0x80], "2.5…"),
        (&[0x7f; 25], &format!("2.47{}…", ".127".repeat(23))),
        (
            &[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            ],
            "…",
        ),
    ] {
        assert_eq!(ObjectId::new(content).to_string(), text);
    }
}

proptest! {
    /// Whatever is changed in a request or certificate, it is read or refused; what is read can be built from.
    #[test]
    fn never_panics(
        at in 0_usize..512,
        to: u8,
        cut in 0_usize..512,
        certificate: bool,
    ) {
        let der = from_pem(REQUEST);
        let csr = CertificationRequest::parse(&der).unwrap();
        let template = Template {
            serial: SERIAL,
            issuer: None,
            validity: Validity { not_before: 0, not_after: i64::from(to) << 24 },
            subject: csr.subject(),
            public_key: csr.public_key(),
            extensions: csr.extensions().unwrap(),
        };
        let mut changed = if certificate { built(&template) } else { der.clone() };
        let at = at % changed.len();
        changed[at] = to;
        changed.truncate(changed.len().max(cut) - if cut < 32 { cut } else { 0 });
        if let Ok(certificate) = Certificate::parse(&changed) {
            prop_assert_eq!(certificate.der(), &changed[..]);
            let _ = name::Text(certificate.subject()).to_string();
        }
        if let Ok(request) = CertificationRequest::parse(&changed)
            && let Ok(extensions) = request.extensions()
        {
            let template = Template { public_key: request.public_key(), subject: request.subject(), extensions, ..template };
            let der = built(&template);
            prop_assert!(Certificate::parse(&der).is_ok());
        }
    }

    #[test]
    fn never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = CertificationRequest::parse(&bytes);
        let _ = Certificate::parse(&bytes);
        let _ = Extensions::parse(&bytes);
        let _ = spki::same_key(&bytes, &bytes[bytes.len() / 2..]);
        let _ = SignatureAlgorithm::for_key(&bytes);
        let _ = ObjectId::new(&bytes).to_string();
    }
}
