//! TLS in which both sides show a certificate, with a client key that never leaves the Keys Service: what a program does that
//! knows nothing of the service but the name of a key.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aziot_tests::pki::{Authority, ServerNames, Validity};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::X509;
use serde_json::json;

use super::{Device, Outcome, PATIENCE, expect, path_text, quote, say};

/// The name of the key pair, and of whom the certificate is for.
pub const KEY: &str = "camera-tls";

/// Lets this user name the key. Belongs into the configuration before the Keys Service starts.
pub fn permit(device: &Device) -> Outcome<()> {
    let uid = rustix::process::geteuid().as_raw();
    let file = device.root.join("etc/aziot/keyd/config.d/camera.toml");
    let principal = format!("[[principal]]\nuid = {uid}\nkeys = [\"{KEY}\"]\n");
    Ok(fs::write(file, principal)?)
}

/// Makes a key pair and a certificate, and shakes hands. Answers how long the handshake and the request took, and a request for
/// another certificate of that key, in PEM.
pub fn show(device: &Device) -> Outcome<(Duration, String)> {
    let plugged = Plugged::new(device)?;
    device.post(
        "keyd",
        "/keypair?api-version=2021-05-01",
        &json!({"keyId": KEY, "preferredAlgorithms": "ec-p256"}),
    )?;
    say(&format!(
        "POST /keypair -> an EC key pair; programs know it as aziot-keys:id={KEY}"
    ));
    let subject = format!("/CN={KEY}");
    plugged.succeed(
        "req",
        &["-x509", "-new", "-subj", &subject, "-days", "1", "-out"],
        &["camera.pem"],
        "-key",
    )?;

    let server = Server::start(device)?;
    let port = server.port.to_string();
    let started = Instant::now();
    let answer = plugged.succeed(
        "s_client",
        &["-connect", &format!("127.0.0.1:{port}")],
        &[
            "-cert",
            "camera.pem",
            "-CAfile",
            "server-ca.pem",
            "-verify_return_error",
            "-quiet",
        ],
        "-key",
    )?;
    let took = started.elapsed();
    let seen = server.seen()?;
    say("what the server saw of its client, and says in its answer:");
    quote(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body));

    let certificate = X509::from_pem(&fs::read(device.root.join("camera.pem"))?)?;
    expect(
        seen == fingerprint(&certificate)?,
        "the server saw another certificate",
    )?;
    expect(
        answer.contains(&seen),
        "the client was told of another certificate",
    )?;

    let nobody = Server::start(device)?;
    let without = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", nobody.port),
        ])
        .args(["-CAfile", "server-ca.pem", "-quiet"])
        .current_dir(&device.root)
        .stdin(fs::File::open(device.root.join("request"))?)
        .output()?;
    expect(
        nobody.seen().is_err() && without.stdout.is_empty(),
        "the server talks to a client without a certificate",
    )?;
    say("without the key there is no answer: the server asks for a certificate, and for its key");

    let private = plugged.run("pkey", &[], &[], "-in")?;
    expect(
        !private.status.success() && private.stdout.is_empty(),
        "the private key came out",
    )?;
    say(&format!(
        "`openssl pkey -in aziot-keys:id={KEY}`, which would print the private key, has nothing to print"
    ));
    let csr = plugged.succeed("req", &["-new", "-subj", &subject], &[], "-key")?;
    Ok((took, csr))
}

/// OpenSSL's program with the plug-in for it: the provider, or the engine before OpenSSL 3.0.
struct Plugged<'a> {
    device: &'a Device,
    provider: bool,
}

impl<'a> Plugged<'a> {
    fn new(device: &'a Device) -> Outcome<Self> {
        let provider = openssl::version::number() >= 0x3000_0000;
        let (directory, built) = if provider {
            ("modules", "libaziot_keys_provider_shared.so")
        } else {
            ("engines", "libaziot_key_openssl_engine_shared.so")
        };
        let built = device.binaries.join(built);
        if !built.exists() {
            return Err(format!("{} is not built: run `make demo`", built.display()).into());
        }
        let directory = device.root.join(directory);
        fs::create_dir(&directory)?;
        symlink(built, directory.join("aziot_keys.so"))?;
        fs::write(
            device.root.join("request"),
            "GET / HTTP/1.0\r\nhost: localhost\r\n\r\n",
        )?;
        Ok(Self { device, provider })
    }

    /// `openssl COMMAND …` in the root. `key` is the option that names a key.
    fn run(&self, command: &str, first: &[&str], then: &[&str], key: &str) -> Outcome<Output> {
        let plug_in: &[&str] = match (self.provider, key) {
            (true, _) => &["-provider", "aziot_keys", "-provider", "default"],
            (false, "-in") => &["-engine", "aziot_keys", "-inform", "engine"],
            (false, _) => &["-engine", "aziot_keys", "-keyform", "engine"],
        };
        let id = format!("aziot-keys:id={KEY}");
        let arguments = [&[command], plug_in, first, then, &[key, id.as_str()]].concat();
        let root = &self.device.root;
        if key == "-key" {
            say(&format!("$ openssl {}", arguments.join(" ")));
        }
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(root)
            .env("AZIOT_ROOT", root)
            .env("OPENSSL_MODULES", root.join("modules"))
            .env("OPENSSL_ENGINES", root.join("engines"))
            .env("OPENSSL_CONF", "/dev/null")
            .stdin(fs::File::open(root.join("request"))?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        Ok(output?)
    }

    fn succeed(&self, command: &str, first: &[&str], then: &[&str], key: &str) -> Outcome<String> {
        let output = self.run(command, first, then, key)?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("openssl {command}: {errors}").into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A server of one connection, which requires the client's certificate and says what it saw.
struct Server {
    port: u16,
    serving: JoinHandle<Result<String, String>>,
}

impl Server {
    fn start(device: &Device) -> Outcome<Self> {
        let authority = Authority::new("a CA for the server")?;
        fs::write(
            device.root.join("server-ca.pem"),
            authority.certificate_pem()?,
        )?;
        let names = ServerNames {
            dns: vec!["localhost".to_owned()],
            ..ServerNames::default()
        };
        let identity = authority.issue_server(&names, Validity::days_from_now(-1, 2))?;
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        acceptor.set_certificate(&identity.certificate)?;
        acceptor.set_private_key(&identity.key)?;
        acceptor.set_ca_file(path_text(&device.root.join("camera.pem"))?)?;
        acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let serving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().map_err(|e| e.to_string())?;
            serve(&acceptor, stream).map_err(|e| e.to_string())
        });
        Ok(Self { port, serving })
    }

    /// The fingerprint of the client's certificate, once it has been served.
    fn seen(self) -> Outcome<String> {
        let result = self.serving.join();
        Ok(result.map_err(|_| "the server panicked")??)
    }
}

fn serve(acceptor: &SslAcceptor, stream: TcpStream) -> Outcome<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = acceptor.accept(stream)?;
    let seen = stream
        .ssl()
        .peer_certificate()
        .ok_or("a client without a certificate")?;
    let told = describe(&stream, &seen)?;
    // The request ends with an empty line; what it asks for does not matter.
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err("the client hung up".into());
        }
        request.push(byte[0]);
    }
    write!(stream, "HTTP/1.0 200 OK\r\n\r\n{told}")?;
    let _ = stream.shutdown();
    fingerprint(&seen)
}

fn describe(stream: &SslStream<TcpStream>, certificate: &X509) -> Outcome<String> {
    let name = certificate
        .subject_name()
        .entries_by_nid(Nid::COMMONNAME)
        .next()
        .ok_or("a certificate without a name")?
        .data()
        .to_string()?;
    let bits = certificate.public_key()?.bits();
    Ok(format!(
        "client certificate of {name}, EC key of {bits} bits\nSHA-256 {}\nsignature of the handshake checked, {}\n",
        fingerprint(certificate)?,
        stream.ssl().version_str()
    ))
}

fn fingerprint(certificate: &X509) -> Outcome<String> {
    let digest = certificate.digest(MessageDigest::sha256())?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
