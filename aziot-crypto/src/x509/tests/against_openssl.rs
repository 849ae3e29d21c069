//! What OpenSSL writes is read, and what is written here OpenSSL reads and verifies.

use aziot_core::der::Tag;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::{RsaPssSaltlen, Signer as OpenSslSigner};
use openssl::stack::Stack;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder, X509Req, X509ReqBuilder};

use super::super::*;
use super::{NOW, REQUEST, common_name, element, from_pem};
use crate::key_pair::Curve;
use crate::openssl::{OpenSslVerifier, VerifyError};

/// Signs with a key of OpenSSL, as the daemon does with one of the Keys Service.
struct KeyOf<'k>(&'k PKey<Private>);

impl Signer for KeyOf<'_> {
    type Error = openssl::error::ErrorStack;

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::for_key(&self.0.public_key_to_der().unwrap()).unwrap()
    }

    fn sign(&self, message: &[u8], signature: &mut [u8]) -> Result<usize, Self::Error> {
        let digest = match self.algorithm() {
            SignatureAlgorithm::EcdsaWithSha384 => MessageDigest::sha384(),
            _ => MessageDigest::sha256(),
        };
        OpenSslSigner::new(digest, self.0)?.sign_oneshot(signature, message)
    }
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn request(key: &PKey<Private>, digest: MessageDigest) -> Vec<u8> {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "device").unwrap();
    let mut builder = X509ReqBuilder::new().unwrap();
    builder.set_subject_name(&name.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    let mut extensions = Stack::new().unwrap();
    let alternative = SubjectAlternativeName::new()
        .dns("device.example")
        .build(&builder.x509v3_context(None))
        .unwrap();
    extensions.push(alternative).unwrap();
    let constraints = BasicConstraints::new().critical().ca().build().unwrap();
    extensions.push(constraints).unwrap();
    builder.add_extensions(&extensions).unwrap();
    builder.sign(key, digest).unwrap();
    builder.build().to_der().unwrap()
}

#[test]
fn cs_22_requests_of_all_kinds_of_keys_verify_until_a_bit_flips() {
    for (key, digest) in [
        (ec(Nid::X9_62_PRIME256V1), MessageDigest::sha256()),
        (ec(Nid::SECP384R1), MessageDigest::sha384()),
        (ec(Nid::SECP521R1), MessageDigest::sha512()),
        (ec(Nid::SECP256K1), MessageDigest::sha256()),
        (rsa(), MessageDigest::sha256()),
        (rsa(), MessageDigest::sha512()),
        (rsa(), MessageDigest::sha1()),
        (PKey::generate_ed25519().unwrap(), MessageDigest::null()),
        (PKey::generate_ed448().unwrap(), MessageDigest::null()),
    ] {
        let der = request(&key, digest);
        let csr = CertificationRequest::parse(&der).unwrap();
        assert_eq!(csr.verify(&OpenSslVerifier), Ok(true), "{:?}", key.id());
        assert!(spki::same_key(
            csr.public_key(),
            &key.public_key_to_der().unwrap()
        ));
        assert_eq!(csr.extensions().unwrap().iter().count(), 2);
        // Every bit of the signature, its own structure included.
        let start = der.len() - csr.signature().len();
        for at in (start..der.len()).step_by(if csr.signature().len() > 128 { 5 } else { 1 }) {
            let mut flipped = der.clone();
            flipped[at] ^= 1 << (at % 8);
            let flipped = CertificationRequest::parse(&flipped).unwrap();
            assert_eq!(flipped.verify(&OpenSslVerifier), Ok(false), "byte {at}");
        }
        // And one of what is signed.
        let mut flipped = der.clone();
        let at = der
            .windows(6)
            .position(|window| window == b"device")
            .unwrap();
        flipped[at] ^= 1;
        let flipped = CertificationRequest::parse(&flipped).unwrap();
        assert_eq!(flipped.verify(&OpenSslVerifier), Ok(false));
    }
    let spec = from_pem(REQUEST);
    let spec = CertificationRequest::parse(&spec).unwrap();
    assert_eq!(spec.verify(&OpenSslVerifier), Ok(true));
}

#[test]
fn rsa_pss_with_its_parameters() {
    let key = rsa();
    let public = key.public_key_to_der().unwrap();
    let mut signer = OpenSslSigner::new(MessageDigest::sha256(), &key).unwrap();
    signer
        .set_rsa_padding(openssl::rsa::Padding::PKCS1_PSS)
        .unwrap();
    signer
        .set_rsa_pss_saltlen(RsaPssSaltlen::custom(32))
        .unwrap();
    signer.set_rsa_mgf1_md(MessageDigest::sha256()).unwrap();
    let signature = signer.sign_oneshot_to_vec(b"message").unwrap();
    // As `openssl req -sigopt rsa_padding_mode:pss` writes it, with the salt's length to be set.
    let algorithm = |salt: u8| {
        let hash = super::unhex("300d06096086480165030402010500");
        let mask = element(
            Tag::SEQUENCE,
            &[super::unhex("06092a864886f70d010108"), hash.clone()].concat(),
        );
        let parameters = [
            element(Tag::context(0), &hash),
            element(Tag::context(1), &mask),
            element(Tag::context(2), &[2, 1, salt]),
        ]
        .concat();
        let content = [
            super::unhex("06092a864886f70d01010a"),
            element(Tag::SEQUENCE, &parameters),
        ]
        .concat();
        element(Tag::SEQUENCE, &content)
    };
    let verify = |algorithm: &[u8], message: &[u8]| {
        OpenSslVerifier.verify(&public, algorithm, message, &signature)
    };
    assert_eq!(verify(&algorithm(32), b"message"), Ok(true));
    assert_eq!(verify(&algorithm(32), b"Message"), Ok(false));
    assert_eq!(verify(&algorithm(20), b"message"), Ok(false));
    // Defaults throughout: SHA-1.
    let defaults = super::unhex("300d06092a864886f70d01010a3000");
    assert_eq!(verify(&defaults, b"message"), Ok(false));
    let none = super::unhex("300b06092a864886f70d01010a");
    assert!(matches!(
        verify(&none, b"message"),
        Err(VerifyError::UnknownAlgorithm(_))
    ));
}

#[test]
fn cs_22_what_cannot_be_verified_is_told() {
    let (one, other) = (ec(Nid::X9_62_PRIME256V1), rsa());
    let (one, other) = (
        one.public_key_to_der().unwrap(),
        other.public_key_to_der().unwrap(),
    );
    let ecdsa = SignatureAlgorithm::EcdsaWithSha256.der();
    let verify = |key: &[u8], algorithm: &[u8]| OpenSslVerifier.verify(key, algorithm, b"", b"");
    assert_eq!(verify(&one, ecdsa), Ok(false));
    assert!(matches!(
        verify(&other, ecdsa),
        Err(VerifyError::OtherKey(_))
    ));
    let rsa_pss = super::unhex("300d06092a864886f70d01010a3000");
    assert!(matches!(
        verify(&one, &rsa_pss),
        Err(VerifyError::OtherKey(_))
    ));
    let error = verify(&one, &super::unhex("300406022a03")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the signature algorithm 1.2.3 is not supported"
    );
    // A digest is no signature algorithm.
    assert!(matches!(
        verify(&one, &super::unhex("300d06096086480165030402010500")),
        Err(VerifyError::UnknownAlgorithm(_))
    ));
    assert!(matches!(verify(&one, &[]), Err(VerifyError::Der(_))));
    let mut point = one.clone();
    *point.last_mut().unwrap() ^= 1;
    assert!(matches!(
        verify(&point, ecdsa),
        Err(VerifyError::PublicKey(_))
    ));
}

#[test]
fn cs_28_openssl_verifies_what_is_built() {
    for (ca_key, expected) in [
        (rsa(), Nid::SHA256WITHRSAENCRYPTION),
        (ec(Nid::X9_62_PRIME256V1), Nid::ECDSA_WITH_SHA256),
        (ec(Nid::SECP384R1), Nid::ECDSA_WITH_SHA384),
        (ec(Nid::SECP521R1), Nid::ECDSA_WITH_SHA256),
    ] {
        let ca_public = ca_key.public_key_to_der().unwrap();
        let ca_name = common_name("site-ca");
        let mut out = [0; 4096];
        let ca = build(
            &Template {
                serial: Serial::from_random([3; 20]),
                issuer: None,
                validity: Validity::of_days(NOW, 30, None).unwrap(),
                subject: &ca_name,
                public_key: &ca_public,
                extensions: Extensions::NONE,
            },
            &KeyOf(&ca_key),
            &mut out,
        )
        .unwrap();
        let ca = Certificate::parse(ca).unwrap();
        assert_eq!(ca.is_signed_with(&ca_public, &OpenSslVerifier), Ok(true));
        let theirs = X509::from_der(ca.der()).unwrap();
        assert!(theirs.verify(&ca_key).unwrap());
        assert_eq!(theirs.signature_algorithm().object().nid(), expected);
        assert_eq!(
            theirs.subject_key_id().unwrap().as_slice(),
            ca.subject_key_id().unwrap()
        );

        let key = ec(Nid::X9_62_PRIME256V1);
        let der = request(&key, MessageDigest::sha256());
        let csr = CertificationRequest::parse(&der).unwrap();
        let mut out = [0; 4096];
        let leaf = build(
            &Template {
                serial: Serial::from_random([4; 20]),
                issuer: Some(Issuer::from(&ca)),
                validity: Validity::of_days(NOW, 1, Some(&ca)).unwrap(),
                subject: csr.subject(),
                public_key: csr.public_key(),
                extensions: csr.extensions().unwrap(),
            },
            &KeyOf(&ca_key),
            &mut out,
        )
        .unwrap();
        let leaf = Certificate::parse(leaf).unwrap();
        assert!(leaf.is_ca());
        assert_eq!(leaf.is_signed_with(&ca_public, &OpenSslVerifier), Ok(true));
        // DB-16: a key that is not the issuer's is noticed, of the same kind or of another.
        for other in [rsa(), ec(Nid::X9_62_PRIME256V1)] {
            let other = other.public_key_to_der().unwrap();
            let result = leaf.is_signed_with(&other, &OpenSslVerifier);
            assert!(
                matches!(result, Ok(false) | Err(VerifyError::OtherKey(_))),
                "{result:?}"
            );
        }
        let theirs_leaf = X509::from_der(leaf.der()).unwrap();
        assert!(theirs_leaf.verify(&ca_key).unwrap());
        assert_eq!(
            theirs.issued(&theirs_leaf),
            openssl::x509::X509VerifyResult::OK
        );
        assert_eq!(theirs_leaf.to_der().unwrap(), leaf.der());
        assert_eq!(theirs_leaf.subject_alt_names().unwrap().len(), 1);
        let serial = theirs_leaf.serial_number().to_bn().unwrap();
        assert_eq!(serial.to_vec(), leaf.serial());
        assert!(theirs_leaf.not_after() == Asn1Time::from_unix(NOW + 86_400).unwrap());
    }
}

#[test]
fn openssl_verifies_requests_that_are_built() {
    for key in [rsa(), ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1)] {
        let public = key.public_key_to_der().unwrap();
        for extensions in [Extensions::NONE, Extensions::CLIENT_AUTH] {
            let mut out = [0; 4096];
            let der = build_request(
                &common_name("device"),
                &public,
                extensions,
                &KeyOf(&key),
                &mut out,
            )
            .unwrap();
            let theirs = X509Req::from_der(der).unwrap();
            assert!(theirs.verify(&key).unwrap());
            assert_eq!(theirs.to_der().unwrap(), der);
            assert_eq!(theirs.version(), 0);
            let ours = CertificationRequest::parse(der).unwrap();
            assert_eq!(ours.extensions(), Ok(extensions));
            assert_eq!(ours.verify(&OpenSslVerifier), Ok(true));
        }
    }
}

#[test]
fn certificates_of_openssl_are_read() {
    let key = rsa();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("C", "DE").unwrap();
    name.append_entry_by_text("O", "Größe, Inc.").unwrap();
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    let serial = BigNum::from_u32(0x80).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder
        .set_not_before(&Asn1Time::from_unix(-86_400).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_str("99991231235959Z").unwrap())
        .unwrap();
    builder
        .append_extension(
            BasicConstraints::new()
                .critical()
                .ca()
                .pathlen(1)
                .build()
                .unwrap(),
        )
        .unwrap();
    let id = SubjectKeyIdentifier::new()
        .build(&builder.x509v3_context(None, None))
        .unwrap();
    builder.append_extension(id).unwrap();
    let issuer = AuthorityKeyIdentifier::new()
        .keyid(true)
        .issuer(true)
        .build(&builder.x509v3_context(None, None));
    // A certificate that issues itself has nobody to take the issuer from but itself.
    if let Ok(issuer) = issuer {
        builder.append_extension(issuer).unwrap();
    }
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let theirs = builder.build();
    let der = theirs.to_der().unwrap();
    let ours = Certificate::parse(&der).unwrap();
    assert_eq!(ours.serial(), [0x00, 0x80]);
    assert_eq!(
        (ours.not_before(), ours.not_after()),
        (-86_400, 253_402_300_799)
    );
    assert_eq!(
        name::Text(ours.subject()).to_string(),
        "C=DE,O=Größe\\, Inc."
    );
    assert_eq!(ours.subject(), ours.issuer());
    assert!(ours.is_ca());
    assert_eq!(
        ours.subject_key_id(),
        theirs
            .subject_key_id()
            .map(openssl::asn1::Asn1OctetStringRef::as_slice)
    );
    assert_eq!(
        ours.authority_key_id(),
        theirs
            .authority_key_id()
            .map(openssl::asn1::Asn1OctetStringRef::as_slice)
    );
    assert_eq!(
        ours.is_signed_with(&key.public_key_to_der().unwrap(), &OpenSslVerifier),
        Ok(true)
    );
    assert_eq!(ours.signature(), theirs.signature().as_slice());
}

/// The key identifier of the specification is the hash of OpenSSL too.
#[test]
fn cs_26_key_identifier_is_the_one_of_openssl() {
    let der = from_pem(REQUEST);
    let csr = CertificationRequest::parse(&der).unwrap();
    let bits = spki::key_bytes(csr.public_key()).unwrap();
    let hash = openssl::hash::hash(MessageDigest::sha1(), bits).unwrap();
    assert_eq!(
        hash.to_vec(),
        super::unhex("43620debf003138a4545edb60b7136cbdb9b57a2")
    );
}

/// Keys put together of their numbers are as OpenSSL writes them.
#[test]
fn public_keys_of_their_parts() {
    use openssl::bn::BigNumContext;
    use openssl::ec::PointConversionForm;

    let mut out = [0; 1024];
    for (nid, curve) in [
        (Nid::X9_62_PRIME256V1, Curve::P256),
        (Nid::SECP384R1, Curve::P384),
    ] {
        let key = ec(nid);
        let theirs = key.public_key_to_der().unwrap();
        let pair = key.ec_key().unwrap();
        let point = |form| {
            let mut context = BigNumContext::new().unwrap();
            pair.public_key()
                .to_bytes(pair.group(), form, &mut context)
                .unwrap()
        };
        let whole = point(PointConversionForm::UNCOMPRESSED);
        assert_eq!(spki::ec(curve, &whole, &mut out), Ok(&theirs[..]));
        assert_eq!(spki::curve(&theirs), Some(curve));
        let compressed = point(PointConversionForm::COMPRESSED);
        let compressed = spki::ec(curve, &compressed, &mut out).unwrap();
        assert!(spki::same_key(compressed, &theirs));
    }
    let key = rsa();
    let pair = key.rsa().unwrap();
    let ours = spki::rsa(&pair.n().to_vec(), &pair.e().to_vec(), &mut out);
    assert_eq!(ours, Ok(&key.public_key_to_der().unwrap()[..]));
}
