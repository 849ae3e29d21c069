use super::*;
use crate::access::Principal;
use crate::api;
use crate::http::request::parse;
use crate::json::{from_slice, to_slice};

fn head(line: &str, fields: &str) -> Vec<u8> {
    let line = line.replace('V', "api-version=2020-09-01");
    format!("{line} HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

/// What a request comes to before its handler is asked: the route, or status and message.
fn run(line: &str, fields: &str, body: &str) -> Result<(Op, Option<String>), (u16, String)> {
    let text = head(line, fields);
    let head = parse(&text).unwrap();
    let mut scratch = vec![0; text.len()];
    let refused = |error: api::Error<'_>| (error.status(), error.to_string());
    let matched = API.route(&head, &mut scratch).map_err(refused)?;
    matched.body_rule().map_err(refused)?;
    let mut body = body.as_bytes().to_vec();
    match (matched.id, matched.method) {
        (Op::Certificates, Post) => {
            let decoded: Option<CreateCertificate<'_>> =
                matched.decode(&mut body).map_err(refused)?;
            api::required(decoded).map_err(refused)?;
        }
        (Op::Certificate, Put) => {
            let decoded: Option<ImportCertificate<'_>> =
                matched.decode(&mut body).map_err(refused)?;
            api::required(decoded).map_err(refused)?;
        }
        (Op::Certificate, Delete) => {
            matched
                .decode::<json::Ignored>(&mut body)
                .map_err(refused)?;
        }
        _ => {
            matched.body(&mut body).map_err(refused)?;
        }
    }
    Ok((matched.id, matched.parameter.map(str::to_owned)))
}

fn id(text: &str) -> Result<(Op, Option<String>), (u16, String)> {
    Ok((Op::Certificate, Some(text.to_owned())))
}

fn refused<T>(status: u16, message: &str) -> Result<T, (u16, String)> {
    Err((status, message.to_owned()))
}

#[test]
fn cs_17_requests_are_judged_in_order() {
    let create = r#"{"certId":"x","csr":"c"}"#;
    let import = r#"{"pem":"hello","extra":1}"#;
    let json = "content-type: application/json; charset=utf-8\r\n";
    let plain = "content-type: text/plain\r\n";
    assert_eq!(run("PUT /certificates/x?V", json, import), id("x"));
    assert_eq!(run("GET /certificates/x?V", "", ""), id("x"));
    assert_eq!(run("DELETE /certificates/x?V", "", ""), id("x"));
    assert_eq!(run("DELETE /certificates/x?V", plain, "{"), id("x"));
    assert_eq!(
        run("POST /certificates?V", "", create),
        Ok((Op::Certificates, None))
    );
    for (line, fields, body, status, message) in [
        (
            "GET /certificates/x",
            "",
            "",
            400,
            "api-version not specified",
        ),
        ("GET /foo?V", "", "", 404, "not found"),
        ("GET /status?V", "", "", 404, "not found"),
        ("GET /certificates?V", "", "", 400, "method not allowed"),
        ("HEAD /certificates/x?V", "", "", 400, "method not allowed"),
        ("PATCH /certificates/x?V", "", "", 400, "method not allowed"),
        ("PUT /certificates?V", json, "{}", 400, "method not allowed"),
        (
            "POST /certificates/x?V",
            json,
            "{}",
            400,
            "method not allowed",
        ),
        ("GET /certificates/a/b?V", "", "", 404, "not found"),
        ("GET /certificates/?V", "", "", 404, "not found"),
        ("GET /certificates/%ff?V", "", "", 404, "not found"),
        ("POST /certificates?V", "", "", 400, "missing request body"),
        (
            "POST /certificates?V",
            plain,
            create,
            400,
            "missing request body",
        ),
        (
            "PUT /certificates/x?V",
            plain,
            import,
            415,
            "request body must be application/json",
        ),
        (
            "POST /certificates?V",
            "",
            "{}",
            422,
            "missing field `certId` at line 1 column 2",
        ),
        (
            "POST /certificates?V",
            "",
            r#"{"certId":"a","certId":"b"}"#,
            422,
            "duplicate field `certId` at line 1 column 22",
        ),
        (
            "PUT /certificates/x?V",
            "",
            "",
            422,
            "EOF while parsing a value at line 1 column 0",
        ),
        (
            "PUT /certificates/x?V",
            "",
            r#"{"pem":5}"#,
            422,
            "invalid type: integer `5`, expected a base64-encoded string at line 1 column 8",
        ),
        (
            "POST /certificates?V",
            "",
            r#"{"certId":"a","csr":null}"#,
            422,
            "invalid type: null, expected a base64-encoded string at line 1 column 24",
        ),
        (
            "POST /certificates?V",
            "",
            r#"{"certId":"a","csr":"c","issuer":{"certId":"ca"}}"#,
            422,
            "missing field `privateKeyHandle` at line 1 column 48",
        ),
        (
            "DELETE /certificates/x?V",
            "",
            "{",
            422,
            "EOF while parsing an object at line 1 column 1",
        ),
    ] {
        assert_eq!(run(line, fields, body), refused(status, message), "{line}");
    }
}

#[test]
fn cs_18_versions() {
    for (query, message) in [
        ("", "api-version not specified"),
        (
            "api-version=2021-05-01",
            "invalid api-version \"2021-05-01\"",
        ),
        (
            "api-version=2020-09-01&api-version=x",
            "invalid api-version \"x\"",
        ),
    ] {
        for line in ["GET /nope", "PATCH /certificates", "GET /certificates/%ff"] {
            assert_eq!(
                run(&format!("{line}?{query}"), "", ""),
                refused(400, message),
                "{line} {query}"
            );
        }
    }
    assert_eq!(
        run(
            "GET /certificates/x?api-version=nope&api%2Dversion=2020%2D09-01&y=1",
            "",
            ""
        ),
        id("x")
    );
    let status = format!("GET /status?api-version={}", status::STATUS_VERSION);
    assert_eq!(run(&status, "", ""), Ok((Op::Status, None)));
    let newest = format!("GET /certificates/x?api-version={}", status::STATUS_VERSION);
    assert_eq!(run(&newest, "", ""), id("x"));
    assert!(API.versions.contains(&CLIENT_VERSION));
}

#[test]
fn cs_19_ids_in_paths() {
    for (segment, expected) in [
        ("a%2Fb", "a/b"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("a%zzb%", "a%zzb%"),
        ("%00", "\0"),
        ("%E2%82%AC", "€"),
    ] {
        let line = format!("GET /certificates/{segment}?V");
        assert_eq!(run(&line, "", ""), id(expected), "{segment}");
    }
    for segment in ["%ff", "%C3", "a%E2%82"] {
        let line = format!("DELETE /certificates/{segment}?V");
        assert_eq!(run(&line, "", ""), refused(404, "not found"), "{segment}");
    }
}

#[test]
fn cs_21_who_may_modify() {
    let principals = [
        Principal {
            uid: 1000,
            keys: &["test*", "a?c"],
        },
        Principal {
            uid: 1000,
            keys: &["module-*"],
        },
        Principal {
            uid: 1001,
            keys: &[],
        },
    ];
    let may = |uid, id| authorize(&principals[..], uid, id);
    for (uid, id) in [
        (0, "anything"),
        (0, ""),
        (1000, "abc"),
        (1000, "test"),
        (1000, "module-1"),
    ] {
        assert_eq!(may(uid, id), Ok(()), "{uid} {id}");
    }
    for (uid, id) in [
        (1000, "abbc"),
        (1000, "Test"),
        (1000, ""),
        (1001, "abc"),
        (1002, "abc"),
    ] {
        assert_eq!(may(uid, id), Err(Error::NotAuthorized { uid, id }));
    }
    let error = may(1000, "abbc").unwrap_err();
    assert_eq!(error.status(), 401);
    assert_eq!(
        error.to_string(),
        "user 1000 is not authorized to modify the cert abbc"
    );
    for (pattern, id, expected) in [
        ("c?t", "cat", true),
        ("c?t", "ct", false),
        ("*", "", true),
        ("", "", true),
        ("", "x", false),
        ("?", "é", true),
        ("a*b*c", "aXbYc", true),
        ("dev*", "Device", false),
    ] {
        assert_eq!(matches(pattern, id), expected, "{pattern} {id}");
    }
}

#[test]
fn cs_12_cs_22_error_texts() {
    for (error, status, message) in [
        (
            Error::NotFound,
            400,
            "parameter \"id\" has an invalid value\ncaused by: not found",
        ),
        (
            Error::Csr("no start line"),
            400,
            "parameter \"csr\" has an invalid value\ncaused by: no start line",
        ),
        (
            Error::CsrSignature,
            400,
            "parameter \"csr\" has an invalid value\ncaused by: CSR failed to be verified with its public key",
        ),
        (
            Error::IssuerNotFound,
            400,
            "parameter \"issuer.certId\" has an invalid value\ncaused by: not found",
        ),
        (
            Error::IssuerEmpty,
            400,
            "parameter \"issuer.certId\" has an invalid value\ncaused by: invalid issuer",
        ),
        (
            Error::IssuerKeyNul { position: 2 },
            400,
            "parameter \"issuer.privateKeyHandle\" has an invalid value\ncaused by: nul byte found in provided data at \
             position: 2",
        ),
        (Error::Internal, 500, "internal error"),
    ] {
        assert_eq!(
            (error.status(), error.to_string().as_str()),
            (status, message)
        );
        assert_eq!(error.map(str::to_owned).to_string(), message);
        assert_eq!(is_not_found(status, message), error == Error::NotFound);
    }
    assert_eq!(check_issuer_key::<&str>("sr=x&sig=y"), Ok(()));
    assert_eq!(
        check_issuer_key::<&str>("sr\0x\0"),
        Err(Error::IssuerKeyNul { position: 2 })
    );
    assert!(!is_not_found(404, "not found"));
    assert!(!is_not_found(400, "method not allowed"));
}

fn written(value: &impl Serialize) -> String {
    let mut out = [0; 512];
    let length = to_slice(value, &mut out).unwrap();
    String::from_utf8(out[..length].to_vec()).unwrap()
}

#[test]
fn cs_52_bodies_are_those_of_existing_clients() {
    let create = CreateCertificate {
        cert_id: "my-server",
        csr: Pem("-----BEGIN\n"),
        issuer: None,
    };
    let text = r#"{"certId":"my-server","csr":"-----BEGIN\n","issuer":null}"#;
    assert_eq!(written(&create), text);
    assert_eq!(from_slice(&mut text.as_bytes().to_vec()), Ok(create));
    let create = CreateCertificate {
        issuer: Some(Issuer {
            cert_id: "local-ca",
            private_key_handle: "sr=x&sig=y",
        }),
        ..create
    };
    let text = r#"{"certId":"my-server","csr":"-----BEGIN\n","issuer":{"certId":"local-ca","privateKeyHandle":"sr=x&sig=y"}}"#;
    assert_eq!(written(&create), text);
    assert_eq!(from_slice(&mut text.as_bytes().to_vec()), Ok(create));
    let mut absent = *br#"{"x":{},"csr":"","certId":""}"#;
    assert_eq!(
        from_slice(&mut absent),
        Ok(CreateCertificate {
            cert_id: "",
            csr: Pem(""),
            issuer: None
        })
    );
}

#[test]
fn cs_11_any_text_comes_back_as_it_was() {
    for text in ["hello", "", "-----BEGIN\r\n\t\"\\é€\u{10ffff}\u{1}"] {
        let request = written(&ImportCertificate { pem: Pem(text) });
        let mut bytes = request.clone().into_bytes();
        let read: ImportCertificate<'_> = from_slice(&mut bytes).unwrap();
        assert_eq!(read.pem.0, text);
        assert_eq!(written(&CertificateResponse { pem: read.pem }), request);
    }
}
