use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Instant;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509Builder, X509NameBuilder};

use super::*;

const REQUEST: Request<'_> = Request {
    method: "GET",
    host: "h",
    target: "/",
    headers: &[],
    body: None,
};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/pkcs7-mime\r\ncontent-length: 4\r\n\r\nbody";

/// Long enough for any machine.
const LONG: Duration = Duration::from_secs(60);

/// A certificate of its own authority, for a client, or a server on this machine.
fn party(name: &str) -> Identity {
    let mut here = SubjectAlternativeName::new();
    party_at(name, here.dns("localhost").ip("127.0.0.1").ip("::1"))
}

fn party_at(name: &str, places: &SubjectAlternativeName) -> Identity {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(7).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    let extension = BasicConstraints::new().critical().ca().build().unwrap();
    builder.append_extension(extension).unwrap();
    let names = places.build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(names).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    Identity {
        certificate: builder.build(),
        chain: Vec::new(),
        key,
    }
}

/// A server's side of TLS, which asks for a certificate of `client`, and takes any other as none.
fn acceptor(server: &Identity, client: &Identity) -> SslAcceptor {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&server.certificate).unwrap();
    acceptor.set_private_key(&server.key).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER);
    acceptor
        .cert_store_mut()
        .add_cert(client.certificate.clone())
        .unwrap();
    acceptor.build()
}

/// Takes one connection. The port, and what comes of it.
fn serve<T: Send + 'static>(
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || script(listener.accept().unwrap().0));
    (port, serving)
}

/// Reads a head.
fn head(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Speaks TLS and answers one request. The request, and the common name of the client's certificate.
fn answer(acceptor: &SslAcceptor, stream: impl Read + Write) -> (String, Option<String>) {
    let Ok(mut stream) = acceptor.accept(stream) else {
        return (String::new(), None);
    };
    let shown = stream.ssl().peer_certificate().map(|certificate| {
        let mut names = certificate.subject_name().entries();
        String::from_utf8(names.next().unwrap().data().as_slice().to_vec()).unwrap()
    });
    let request = head(&mut stream);
    stream.write_all(ANSWER).unwrap();
    let _ = stream.shutdown();
    (request, shown)
}

fn trusting(server: &Identity) -> TlsClient {
    let anchors = vec![server.certificate.clone()];
    TlsClient::new().trusting(Arc::new(Trust::with_anchors(anchors)))
}

fn client_of(server: &Identity, client: &Identity) -> TlsClient {
    TlsClient {
        identity: Some(client.clone()),
        ..trusting(server)
    }
}

fn proxied(client: TlsClient, url: &str) -> TlsClient {
    client.through(Arc::new(Proxies::using(url)))
}

fn attempt(authority: &str) -> Error {
    TlsClient::new()
        .attempt(authority, &REQUEST, Duration::from_millis(200))
        .unwrap_err()
}

#[test]
fn hc_04_every_step_has_its_deadline() {
    // A peer that accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let begin = Instant::now();
    let error = attempt(&authority);
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::TimedOut, Step::Handshake),
        "{error}"
    );
    // A proxy that does.
    let client = proxied(TlsClient::new(), &format!("http://{authority}"));
    let error = client
        .attempt("h", &REQUEST, Duration::from_millis(200))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::TimedOut, Step::Connect),
        "{error}"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    // A peer that hangs up (the first connections are those from above).
    let serving = std::thread::spawn(move || {
        for _ in 0..3 {
            drop(listener.accept());
        }
    });
    let error = attempt(&authority);
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::NotConnected, Step::Handshake),
        "{error}"
    );
    serving.join().unwrap();
    // Nobody.
    let error = attempt(&authority);
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::NotConnected, Step::Connect),
        "{error}"
    );
    assert!(error.to_string().contains(&authority), "{error}");
}

#[test]
fn addresses_that_cannot_be_used() {
    for authority in ["", "hub.example:x", "hub.example:65536", "h ub"] {
        let error = attempt(authority);
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::NotConnected, Step::Resolve),
            "{authority}: {error}"
        );
    }
    assert_eq!(attempt("no-such-host.invalid").step(), Step::Resolve);
}

#[test]
fn cs_35_only_trusted_servers_of_the_right_name_are_spoken_to() {
    let (server, client) = (party("server"), party("client"));
    let try_at = |host: &str, server: &Identity, trusted: &Identity| {
        let acceptor = acceptor(server, &client);
        let (port, serving) = serve(move |stream| answer(&acceptor, stream));
        let result = client_of(trusted, &client).attempt(&format!("{host}:{port}"), &REQUEST, LONG);
        (result, serving.join().unwrap())
    };
    for host in ["localhost", "127.0.0.1"] {
        let (result, (request, shown)) = try_at(host, &server, &server);
        let mut response = result.unwrap();
        assert_eq!(response.body(), b"body");
        assert_eq!(
            response.content_type(),
            Some(&b"application/pkcs7-mime"[..])
        );
        assert!(
            request.starts_with("GET / HTTP/1.1\r\nhost: h\r\n"),
            "{request}"
        );
        assert_eq!(
            shown.as_deref(),
            Some("client"),
            "the identity is shown to the server"
        );
    }
    let mut elsewhere = SubjectAlternativeName::new();
    let elsewhere = party_at("server", elsewhere.dns("est.example").ip("127.0.0.9"));
    // A certificate of the same name by somebody else, another one, and a good one under a name that it does not have.
    for (host, server, trusted) in [
        ("localhost", &server, &party("server")),
        ("localhost", &server, &client),
        ("localhost", &elsewhere, &elsewhere),
        ("127.0.0.1", &elsewhere, &elsewhere),
    ] {
        let (result, (request, _)) = try_at(host, server, trusted);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Untrusted, "{error}");
        assert_eq!(request, "");
    }
}

#[test]
fn a_certificate_with_another_key_is_noticed_here() {
    let (server, client, other) = (party("server"), party("client"), party("other"));
    let (port, serving) = serve(drop);
    let mixed = Identity {
        key: other.key,
        ..client
    };
    let error = client_of(&server, &mixed)
        .attempt(&format!("localhost:{port}"), &REQUEST, LONG)
        .unwrap_err();
    assert!(
        error.to_string().contains("could not set up TLS"),
        "{error}"
    );
    serving.join().unwrap();
}

#[test]
fn plain_http() {
    let (port, serving) = serve(|mut stream| {
        let request = head(&mut stream);
        stream.write_all(ANSWER).unwrap();
        request
    });
    let origin = Origin {
        tls: false,
        authority: &format!("127.0.0.1:{port}"),
    };
    let response = TlsClient::new().attempt_at(origin, &REQUEST, LONG);
    assert_eq!(response.unwrap().body(), b"body");
    assert_eq!(serving.join().unwrap(), "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
}

#[test]
fn bodies_have_a_bound() {
    for announced in [true, false] {
        let (port, serving) = serve(move |mut stream| {
            head(&mut stream);
            if announced {
                stream.write_all(ANSWER).unwrap();
            } else {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbody");
            }
        });
        let origin = Origin {
            tls: false,
            authority: &format!("127.0.0.1:{port}"),
        };
        let error = TlsClient::new()
            .bounded(3)
            .attempt_at(origin, &REQUEST, LONG)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidData, "{error}");
        serving.join().unwrap();
    }
}

#[test]
fn cs_40_https_goes_through_a_tunnel() {
    let (server, client) = (party("server"), party("client"));
    // The far end is the proxy's own process; where it is said to be does not matter.
    for (scheme, target, connect) in [
        ("http", "localhost", "localhost:443"),
        ("http", "127.0.0.1:8443", "127.0.0.1:8443"),
        ("http", "[::1]:8443", "[::1]:8443"),
        ("https", "localhost:1", "localhost:1"),
    ] {
        let acceptor = acceptor(&server, &client);
        let tls = scheme == "https";
        let (port, serving) = serve(move |mut stream| {
            let established = b"HTTP/1.0 200 Connection established\r\nvia: x\r\n\r\n";
            if !tls {
                let asked = head(&mut stream);
                stream.write_all(established).unwrap();
                return (asked, None, answer(&acceptor, stream));
            }
            let mut stream = acceptor.accept(stream).unwrap();
            let shown = stream.ssl().peer_certificate();
            let asked = head(&mut stream);
            stream.write_all(established).unwrap();
            (asked, shown, answer(&acceptor, stream))
        });
        let url = format!("{scheme}://us%2fer:p%40w@localhost:{port}");
        let mut response = proxied(client_of(&server, &client), &url)
            .attempt(target, &REQUEST, LONG)
            .unwrap();
        assert_eq!(response.body(), b"body");
        let (asked, shown_to_proxy, (request, shown)) = serving.join().unwrap();
        assert_eq!(
            asked,
            format!(
                "CONNECT {connect} HTTP/1.1\r\nHost: {connect}\r\nproxy-authorization: Basic dXMvZXI6cEB3\r\n\r\n"
            )
        );
        assert!(
            shown_to_proxy.is_none(),
            "the identity is not shown to the proxy"
        );
        assert_eq!(shown.as_deref(), Some("client"));
        assert!(!request.contains("authorization"), "{request}");
    }
}

#[test]
fn cs_40_http_is_asked_of_the_proxy() {
    for (user, line) in [
        ("", ""),
        ("user:pw@", "proxy-authorization: Basic dXNlcjpwdw==\r\n"),
    ] {
        let (port, serving) = serve(|mut stream| {
            let request = head(&mut stream);
            stream.write_all(ANSWER).unwrap();
            request
        });
        let origin = Origin {
            tls: false,
            authority: "est.example:8080",
        };
        let response = proxied(TlsClient::new(), &format!("http://{user}127.0.0.1:{port}"))
            .attempt_at(origin, &REQUEST, LONG);
        assert_eq!(response.unwrap().body(), b"body");
        assert_eq!(
            serving.join().unwrap(),
            format!("GET http://est.example:8080/ HTTP/1.1\r\n{line}host: h\r\n\r\n")
        );
    }
}

#[test]
fn proxies_that_make_no_tunnel() {
    for (says, told) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "HTTPS_PROXY",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad",
            "502 Bad Gateway",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", "204"),
        ("HTTP/1.1 200 OK\r\n\r\nwelcome", "more than its answer"),
        ("HTTP/1.1 200", "did not make a tunnel"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "did not make a tunnel"),
        ("", "did not make a tunnel"),
    ] {
        let (port, serving) = serve(move |mut stream| {
            head(&mut stream);
            stream.write_all(says.as_bytes()).unwrap();
        });
        let error = proxied(TlsClient::new(), &format!("127.0.0.1:{port}"))
            .attempt("est.example", &REQUEST, LONG)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::NotConnected, Step::Connect),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("est.example:443") && text.contains(told),
            "{text}"
        );
        serving.join().unwrap();
    }
    // A head without end.
    let (port, serving) = serve(|mut stream| {
        head(&mut stream);
        while stream.write_all(&[b'x'; 1024]).is_ok() {}
    });
    let error = proxied(TlsClient::new(), &format!("127.0.0.1:{port}"))
        .attempt("est.example", &REQUEST, LONG)
        .unwrap_err();
    assert!(error.to_string().contains("head is longer"), "{error}");
    serving.join().unwrap();
}

#[test]
fn a_released_trust_is_loaded_again() {
    let (server, client) = (party("server"), party("client"));
    let ours = client_of(&server, &client);
    for _ in 0..2 {
        let acceptor = acceptor(&server, &client);
        let (port, serving) = serve(move |stream| answer(&acceptor, stream));
        ours.attempt(&format!("localhost:{port}"), &REQUEST, LONG)
            .unwrap();
        serving.join().unwrap();
        ours.release();
    }
}
