//! What is made of answers.

use core::time::Duration;

use super::*;
use crate::retry;

const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
const CHAIN_P7: &str = include_str!("fixtures/chain.p7.pem");
const STREAMED: &str = include_str!("fixtures/streamed.cms.pem");
const EMPTY: &str = include_str!("fixtures/empty.p7.pem");
const ENVELOPED: &str = include_str!("fixtures/enveloped.b64");

pub(super) fn reply<'a>(
    status: u16,
    content_type: Option<&'a str>,
    body: &'a mut [u8],
) -> Reply<'a> {
    Reply {
        status,
        content_type: content_type.map(str::as_bytes),
        retry_after: None,
        body,
    }
}

/// The certificates of a good answer with this body.
fn read(body: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, Error> {
    let mut body = body.as_ref().to_vec();
    let read = read_certificates(reply(200, Some(CERTS_ONLY), &mut body))?;
    assert_eq!(read.is_empty(), read.iter().count() == 0);
    Ok(read.into_iter().map(<[u8]>::to_vec).collect())
}

fn der(pem: &str) -> Vec<u8> {
    blocks(pem).remove(0)
}

#[test]
fn cs_34_base64_with_any_line_breaks() {
    let text = Base64::encode_string(&der(CHAIN_P7));
    let lines = |width: usize, end: &str| {
        text.as_bytes()
            .chunks(width)
            .map(|line| format!("{}{end}", core::str::from_utf8(line).unwrap()))
            .collect::<String>()
    };
    for body in [
        text.clone(),
        lines(64, "\n"),
        lines(76, "\r\n"),
        lines(1, " \t\x0b\x0c\r\n"),
        format!("\r\n\n  {text}  \n"),
    ] {
        assert_eq!(read(&body).unwrap(), blocks(CHAIN), "{body}");
    }
    let mut odd = text.into_bytes();
    for byte in [0x85, 0xa0] {
        odd.insert(17, byte);
        odd.push(byte);
    }
    assert_eq!(read(&odd).unwrap(), blocks(CHAIN));
}

#[test]
fn cs_34_pem() {
    let crlf = CHAIN_P7.replace('\n', "\r\n");
    let with_text = format!("Certificates\n=====\n\n{CHAIN_P7}\nthat is all");
    let with_headers = CHAIN_P7.replacen("-----\n", "-----\nProc-Type: 4,x\nX-Y: a\n b\n\n", 1);
    for body in [CHAIN_P7, &crlf, &with_text, &with_headers] {
        assert_eq!(read(body).unwrap(), blocks(CHAIN), "{body}");
        for label in ["PKCS #7 SIGNED DATA", "CERTIFICATE"] {
            assert_eq!(read(body.replace("PKCS7", label)).unwrap(), blocks(CHAIN));
        }
    }
    let other = CHAIN_P7.replace("PKCS7", "X509 CRL");
    assert!(matches!(read(&other), Err(Error::Encoding(_))));
    assert_eq!(read(format!("{other}{CHAIN_P7}")).unwrap(), blocks(CHAIN));
    let twice = format!("{CHAIN_P7}\n{CHAIN_P7}");
    assert_eq!(
        read(&twice).unwrap(),
        [blocks(CHAIN), blocks(CHAIN)].concat()
    );
    // Plain certificates in place of PKCS #7.
    assert_eq!(read(CHAIN).unwrap(), blocks(CHAIN));
    let cut = &CHAIN_P7[..CHAIN_P7.len() - 30];
    assert!(matches!(read(cut), Err(Error::Encoding(_))));
    let bad = CHAIN_P7.replacen('M', "!", 1);
    assert!(matches!(read(bad), Err(Error::Encoding(_))));
}

#[test]
fn db_23_der() {
    assert_eq!(read(der(CHAIN_P7)).unwrap(), blocks(CHAIN));
    let mut surplus = der(CHAIN_P7);
    surplus.extend(b"\r\n");
    assert_eq!(read(&surplus).unwrap(), blocks(CHAIN));
    let leaf = blocks(CHAIN).remove(0);
    assert_eq!(read(&leaf).unwrap(), [leaf]);
}

/// Rewrites the first `depth` levels of constructed elements with indefinite lengths.
fn indefinite(der: &[u8], depth: usize) -> Vec<u8> {
    let mut reader = ber::Reader::new(der);
    let mut out = vec![];
    while let Some(element) = reader.next().unwrap() {
        let content = reader.bytes(element.content);
        if element.tag & 0x20 != 0 && depth > 0 {
            out.extend([element.tag, 0x80]);
            out.extend(indefinite(content, depth - 1));
            out.extend([0, 0]);
        } else {
            out.extend(reader.bytes(element.whole));
        }
    }
    out
}

#[test]
fn indefinite_lengths() {
    let expected = [blocks(CHAIN)[0].clone(), blocks(CHAIN)[2].clone()];
    assert_eq!(read(STREAMED.replace("CMS", "PKCS7")).unwrap(), expected);
    assert_eq!(read(der(STREAMED)).unwrap(), expected);
    // Four levels are around the certificates: content, explicit tag, signed data, set.
    for depth in 0..=4 {
        assert_eq!(
            read(indefinite(&der(CHAIN_P7), depth)).unwrap(),
            blocks(CHAIN),
            "{depth}"
        );
    }
    let inside = read(indefinite(&der(CHAIN_P7), 9)).unwrap();
    assert_eq!(inside.len(), 3);
    let deep = [b"\x30\x80".repeat(300_000), b"\0\0".repeat(300_000)].concat();
    assert_eq!(read(&deep).unwrap().concat(), deep);
    assert!(matches!(read(&deep[..900_000]), Err(Error::Pkcs7(_))));
}

#[test]
fn cs_36_pkcs7_without_certificates() {
    for body in [
        "MAsGCSqGSIb3DQEHAg==",
        "MAsGCSqG\r\nSIb3DQEHAg==\r\n",
        EMPTY,
        ENVELOPED,
        // Signed data that ends before the certificates.
        "MCMGCSqGSIb3DQEHAqAWMBQCAQExADALBgkqhkiG9w0BBwExAA==",
    ] {
        assert_eq!(read(body), Ok(vec![]), "{body}");
    }
    let bare = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
    assert_eq!(read(bare), Ok(vec![]));
    assert!(Certificates::default().is_empty());
}

#[test]
fn cs_35_bodies_that_are_none() {
    for (body, text) in [
        (
            &b""[..],
            "the answer is not PKCS #7: it ends too early, at byte 0",
        ),
        (
            b"<html><body>Sign in</body></html>",
            "the answer is neither Base64 nor PEM nor DER, but begins with \"Sign in\"",
        ),
        (
            b"\xff\xfe\x01",
            "the answer is neither Base64 nor PEM nor DER",
        ),
        (
            b"aGVsbG8=",
            "the answer is not PKCS #7: it ends too early, at byte 2",
        ),
        (
            b"\x30\x03\x02\x01\x05",
            "the answer is not PKCS #7: tag 0x02 at byte 2, where 0x06 is expected",
        ),
        (
            b"\x30\xff\x02",
            "the answer is not PKCS #7: invalid length at byte 1",
        ),
    ] {
        assert_eq!(read(body).unwrap_err().to_string(), text);
    }
    let whole = der(CHAIN_P7);
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "{end}");
    }
}

#[test]
fn cs_34_cs_35_media_types() {
    let run = |content_type: Option<&str>| {
        let mut body = CHAIN_P7.as_bytes().to_vec();
        read_certificates(reply(200, content_type, &mut body)).map(|read| read.iter().count())
    };
    for content_type in [
        "application/pkcs7-mime",
        CERTS_ONLY,
        "application/pkcs7-mime;x",
        "Application/PKCS7-MIME ; smime-type=certs-only",
    ] {
        assert_eq!(run(Some(content_type)), Ok(3), "{content_type}");
    }
    for content_type in [
        "application/pkcs7",
        "application/pkcs7-mimes",
        "text/html; charset=utf-8",
        "",
        "; application/pkcs7-mime",
    ] {
        let error = run(Some(content_type)).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{content_type:?}")),
            "{error}"
        );
    }
    assert_eq!(run(None), Err(Error::NoContentType));
}

#[test]
fn cs_35_statuses() {
    let run = |status, body: &str| {
        let mut body = body.as_bytes().to_vec();
        read_certificates(reply(status, Some(CERTS_ONLY), &mut body))
            .unwrap_err()
            .to_string()
    };
    for (status, body, text) in [
        (
            401,
            "",
            "the EST server answered 401 Unauthorized; check the user name and password, or the client certificate",
        ),
        (
            500,
            "<html><h1>Internal Server Error</h1></html>",
            "the EST server answered 500 Internal Server Error, \"Internal Server Error\"",
        ),
        (
            400,
            "no\nsuch \"key\"",
            "the EST server answered 400 Bad Request, \"no such \\\"key\\\"\"; the CA does not accept this request",
        ),
        (
            302,
            "",
            "the EST server answered 302 Found; redirects are not followed, so configure the URL that it leads to",
        ),
        (204, CHAIN_P7, "the EST server answered 204 No Content, "),
        (
            404,
            "",
            "the EST server answered 404 Not Found; check the URL: the operations are looked for directly below it, \
             `.well-known/est` is not added",
        ),
    ] {
        let shown = run(status, body);
        assert!(
            if text.ends_with(", ") {
                shown.starts_with(text)
            } else {
                shown == text
            },
            "{shown}"
        );
    }
    let pending = read_certificates(Reply {
        retry_after: Some(Duration::from_secs(90)),
        ..reply(202, None, &mut [])
    });
    assert_eq!(
        pending.unwrap_err().to_string(),
        "the EST server has not decided about the request yet (status 202) and wants to be asked again in 90 seconds; it \
         may have to be approved there"
    );
    assert_eq!(
        Error::NotAnswered(retry::Failure::NotTrusted).to_string(),
        "the server certificate is not trusted"
    );
}

#[test]
fn attributes_of_rfc_7030() {
    // The example of section 4.5.2.
    let text = "MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw==";
    for mut body in [text.as_bytes().to_vec(), Base64::decode_vec(text).unwrap()] {
        let read =
            read_csr_attributes(reply(200, Some("application/csrattrs"), &mut body)).unwrap();
        let shown: Vec<String> = read
            .map(|attribute| match attribute.values {
                Some(values) => format!("{}: {} bytes", attribute.oid, values.len()),
                None => attribute.oid.to_string(),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "challengePassword",
                "ecPublicKey: 7 bytes",
                "extensionRequest: 9 bytes",
                "ecdsa-with-SHA384"
            ]
        );
    }
    for (body, text) in [
        ("MAQGAwQEBA==", "answer is not a list of attributes"),
        ("MAMCAQE=", "tag 0x02 at byte 2"),
        ("MAUwAwYBKg==", "ends too early"),
        ("BgEq", "tag 0x06 at byte 0"),
        ("???", "neither Base64"),
    ] {
        let mut body = body.as_bytes().to_vec();
        let read = read_csr_attributes(reply(200, Some("application/csrattrs"), &mut body));
        assert!(read.unwrap_err().to_string().contains(text), "{text}");
    }
    let mut empty = *b"MAA=";
    let read = read_csr_attributes(reply(200, Some("application/csrattrs"), &mut empty));
    assert_eq!(read.unwrap().count(), 0);
}

#[test]
fn object_identifiers() {
    for (content, shown) in [
        (
            &b"\x2b\x06\x01\x04\x01\x82\x37\x15"[..],
            "1.3.6.1.4.1.311.21",
        ),
        (b"\x55\x04\x03", "commonName"),
        (b"\x00", "0.0"),
        (b"\x27", "0.39"),
        (b"\x78", "2.40"),
        (b"\x88\x37\x03", "2.999.3"),
        (b"", "?"),
        (b"\x80", "?"),
        (
            b"\x69\x83\xb1\x8e\xa2\xf2\xb8\xcd\xcd\x8d\xe8\xa1\xae\x8b\xd9\x98\xe7\xc6\x84\x38",
            "2.25.",
        ),
        (&[0xff; 30], "?"),
    ] {
        let text = Oid(content).to_string();
        assert!(
            if shown.ends_with('.') {
                text.starts_with(shown)
            } else {
                text == shown
            },
            "{text}"
        );
    }
    let mut huge = vec![0x2b];
    huge.extend([0xff; 25]);
    huge.extend([0x7f, 0x05]);
    assert_eq!(Oid(&huge).to_string(), "1.3.?.5");
}

proptest! {
    #[test]
    fn nothing_that_a_server_says_does_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut changed = der(CHAIN_P7);
        let at = at.index(changed.len());
        changed[at] ^= flip;
        let text = Base64::encode_string(&changed);
        let armoured = format!("-----BEGIN PKCS7-----\n{text}\n-----END PKCS7-----\n");
        let mut nearly = CHAIN_P7.as_bytes().to_vec();
        let place = at % nearly.len();
        nearly[place] ^= flip;
        for body in [&bytes[..], &changed, text.as_bytes(), armoured.as_bytes(), &nearly] {
            let length: usize = read(body).unwrap_or_default().iter().map(Vec::len).sum();
            prop_assert!(length <= body.len());
            for start in [&b""[..], b"\x30", b"\x30\x80"] {
                let mut body = [start, body].concat();
                let _ = read(&body);
                if let Ok(attributes) = read_csr_attributes(reply(200, Some("application/csrattrs"), &mut body)) {
                    for attribute in attributes {
                        prop_assert!(!attribute.oid.to_string().is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn every_encoding_gives_the_same(count in 0_usize..4, depth in 0_usize..5) {
        let chosen: Vec<Vec<u8>> = blocks(CHAIN).into_iter().take(count).collect();
        let document = indefinite(&signed_data(&chosen.concat()), depth);
        let text = Base64::encode_string(&document);
        let armoured = format!("-----BEGIN PKCS7-----\n{text}\n-----END PKCS7-----\n");
        prop_assert_eq!(read(&document).unwrap(), chosen.clone());
        prop_assert_eq!(read(&text).unwrap(), chosen.clone());
        prop_assert_eq!(read(&armoured).unwrap(), chosen);
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &length, content].concat()
}

/// PKCS #7 with these certificates, and nothing signed.
pub(super) fn signed_data(certificates: &[u8]) -> Vec<u8> {
    let members = [
        b"\x02\x01\x01\x31\x00\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01",
        &element(0xa0, certificates)[..],
        b"\x31\x00",
    ]
    .concat();
    let content = element(0xa0, &element(0x30, &members));
    let kind = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
    element(0x30, &[&kind[..], &content].concat())
}
