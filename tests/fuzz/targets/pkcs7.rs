//! Answers of EST servers: PKCS #7 in all its encodings, against OpenSSL's reading of it, and lists of attributes.
#![no_main]

use aziot_core::est::{Certificates, Error, Reply, read_certificates, read_csr_attributes};
use base64ct::{Base64, Encoding as _};
use libfuzzer_sys::fuzz_target;
use openssl::pkcs7::Pkcs7;
use openssl::stack::StackRef;
use openssl::x509::X509;

fuzz_target!(|document: &[u8]| {
    let ours = read(document);
    if let Err(error) = &ours {
        assert!(!error.to_string().is_empty());
    }
    if document.first() == Some(&0x30) {
        // What is behind the Base64 is the same document.
        let text = Base64::encode_string(document);
        assert_eq!(read(text.as_bytes()), ours);
        let armoured = format!("-----BEGIN PKCS7-----\r\n{text}\n-----END PKCS7-----\n");
        assert_eq!(read(armoured.as_bytes()), ours);

        if let Some(theirs) = openssl_reads(document) {
            let ours = ours.expect("OpenSSL can read it");
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                let ours = X509::from_der(ours).expect("it was read as a part of the whole");
                assert_eq!(ours.to_der().unwrap(), theirs);
            }
        }
    }

    let mut body = document.to_vec();
    let reply = reply("application/csrattrs", &mut body);
    if let Ok(attributes) = read_csr_attributes(reply) {
        for attribute in attributes {
            assert!(!attribute.oid.to_string().is_empty());
        }
    }
});

fn reply<'a>(content_type: &'static str, body: &'a mut [u8]) -> Reply<'a> {
    Reply {
        status: 200,
        content_type: Some(content_type.as_bytes()),
        retry_after: None,
        body,
    }
}

fn read(body: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut body = body.to_vec();
    let length = body.len();
    let found: Certificates<'_> = read_certificates(reply("application/pkcs7-mime", &mut body))?;
    let found: Vec<Vec<u8>> = found.iter().map(<[u8]>::to_vec).collect();
    assert!(found.iter().map(Vec::len).sum::<usize>() <= length);
    assert!(
        found
            .iter()
            .all(|certificate| certificate.first() == Some(&0x30))
    );
    Ok(found)
}

/// The certificates that OpenSSL finds in signed data; `None` if it is something else.
fn openssl_reads(document: &[u8]) -> Option<Vec<Vec<u8>>> {
    let pkcs7 = Pkcs7::from_der(document).ok()?;
    if pkcs7.type_()?.nid() != openssl::nid::Nid::PKCS7_SIGNED {
        return None;
    }
    let found: Option<&StackRef<X509>> = pkcs7.signed()?.certificates();
    let found = found.into_iter().flatten();
    Some(found.filter_map(|found| found.to_der().ok()).collect())
}
