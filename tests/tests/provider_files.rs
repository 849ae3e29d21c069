//! PEM files that name a key pair of a real Keys Service, through the provider alone: programs that know nothing but files of
//! keys, with a section of openssl.cnf (`docs/use-a-key-from-your-program.md`).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::eventually;
use aziot_tests::proxy::Proxy;
use aziot_tests::users;
use base64ct::{Base64, Encoding as _};

const PAIRS: [(&str, &str); 3] = [
    ("ec", "ec-p256"),
    ("larger", "ec-p384"),
    ("rsa", "rsa-2048"),
];

/// Both orders of the providers in the configuration. OpenSSL asks the first that knows an algorithm.
const ORDERS: [[&str; 2]; 2] = [["aziot_keys", "default"], ["default", "aziot_keys"]];

/// A Keys Service with key pairs, a file that names each, a certificate for each, and a configuration with the provider.
struct Bench {
    site: Site,
}

impl Bench {
    fn new(order: [&str; 2]) -> Self {
        let site = Site::new(BackEnd::Files);
        let root = &site.keyd.root;
        fs::create_dir(root.join("modules")).unwrap();
        let provider = binaries::built("libaziot_keys_provider_shared.so");
        symlink(provider, root.join("modules/aziot_keys.so")).unwrap();
        let [first, second] = order;
        let configuration = format!(
            "openssl_conf = init\n[init]\nproviders = providers\n[providers]\n{first} = active\n{second} = active\n\
             [active]\nactivate = 1\n"
        );
        root.write("openssl.cnf", configuration);
        let bench = Self { site };
        for (name, algorithm) in PAIRS {
            bench.site.pair(name, algorithm);
            bench.name(name, &format!("aziot-keys:id={name}"));
            succeed(bench.program("openssl").args([
                "req",
                "-x509",
                "-new",
                "-key",
                &format!("aziot-keys:id={name}"),
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                "subjectAltName=DNS:localhost",
                "-days",
                "2",
                "-out",
                &format!("{name}.pem"),
            ]));
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.keyd.root.join(name)
    }

    /// Writes the file `NAME.key` that names a key.
    fn name(&self, name: &str, uri: &str) {
        let label = "AZIOT KEYS URI";
        let encoded = Base64::encode_string(uri.as_bytes());
        let lines: String = encoded
            .as_bytes()
            .chunks(64)
            .map(|line| format!("{}\n", str::from_utf8(line).unwrap()))
            .collect();
        let text = format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n");
        fs::write(self.path(&format!("{name}.key")), text).unwrap();
    }

    /// A program in the root, with the configuration.
    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.site.keyd.root.path())
            .env("AZIOT_ROOT", self.site.keyd.root.path())
            .env("OPENSSL_MODULES", self.path("modules"))
            .env("OPENSSL_CONF", self.path("openssl.cnf"))
            .stdin(Stdio::null());
        command
    }

    /// Python as the server and as the client.
    fn python(&self, certificate: &str, key: &str, password: Option<&str>) -> Output {
        let script = binaries::sources().join("tools/tls_pair.py");
        let mut command = self.program("python3");
        command.arg(script).args([certificate, key]).args(password);
        command.output().unwrap()
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_talked(output: &Output, name: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let expected = format!("TLSv1.2 {name}\nTLSv1.3 {name}\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn python_speaks_tls_with_a_named_key() {
    for order in ORDERS {
        let bench = Bench::new(order);
        for (name, _) in PAIRS {
            let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
            assert_talked(&bench.python(&certificate, &key, None), name);
            // One file for both, in either order.
            for files in [[&certificate, &key], [&key, &certificate]] {
                let both = files.map(|file| fs::read(bench.path(file)).unwrap());
                fs::write(bench.path("both"), both.concat()).unwrap();
                assert_talked(&bench.python("both", "both", None), name);
            }
        }
        // By a handle, which is a long URI; the file as the documentation makes it.
        let handle = bench.site.pair("ec", "ec-p256");
        let script = "{ echo '-----BEGIN AZIOT KEYS URI-----'; printf %s \"$URI\" | openssl base64; \
                      echo '-----END AZIOT KEYS URI-----'; } > handle.key";
        let mut shell = bench.program("sh");
        shell.env("URI", format!("aziot-keys:handle={handle}"));
        succeed(shell.args(["-c", script]));
        assert_talked(&bench.python("ec.pem", "handle.key", None), "ec");
    }
}

/// What is refused is refused, and does not bring a key of another kind instead.
#[test]
fn python_is_told_no() {
    let bench = Bench::new(ORDERS[0]);
    bench.name("nobody", "aziot-keys:id=nobody");
    bench.name("public", "aziot-keys:id=ec;type=public");
    bench.name("other-scheme", "file:ec.key");
    bench.name("empty", "");
    fs::write(
        bench.path("garbage.key"),
        "-----BEGIN AZIOT KEYS URI-----\n/w==\n-----END AZIOT KEYS URI-----\n",
    )
    .unwrap();
    for key in [
        "nobody",
        "public",
        "other-scheme",
        "empty",
        "garbage",
        "rsa",
    ] {
        let output = bench.python("ec.pem", &format!("{key}.key"), None);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{key}: {stderr}");
        assert!(stderr.contains("load_cert_chain"), "{key}: {stderr}");
        assert_eq!(output.stdout, b"", "{key}");
    }
    // Without the provider the file says nothing.
    let script = binaries::sources().join("tools/tls_pair.py");
    let mut command = bench.program("python3");
    command.arg(script).args(["ec.pem", "ec.key"]);
    let output = command.env("OPENSSL_CONF", "/dev/null").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// OpenSSL shows a block to the decoders for EC and for RSA. That the service says no is not asked for again, so a service that
/// does not answer costs one deadline.
#[test]
fn the_service_is_asked_once() {
    for order in ORDERS {
        let bench = Bench::new(order);
        bench.name("nobody", "aziot-keys:id=nobody");
        fs::create_dir_all(bench.path("proxied/run/aziot")).unwrap();
        let proxy = Proxy::start(
            bench.site.keyd.root.socket("keyd"),
            &bench.path("proxied/run/aziot/keyd.sock"),
        );
        let script = binaries::sources().join("tools/tls_pair.py");
        let mut python = bench.program("python3");
        python.arg(script).args(["ec.pem", "nobody.key"]);
        let output = python.env("AZIOT_ROOT", bench.path("proxied")).output();
        assert_eq!(output.unwrap().status.code(), Some(1));
        let asked = "GET /keypair/nobody?api-version=2021-05-01 HTTP/1.1".to_owned();
        assert_eq!(proxy.since(0), [[asked]]);
    }
}

/// Keys in files are none of ours, encrypted or not.
#[test]
fn ordinary_files_are_read_as_ever() {
    for order in ORDERS {
        let bench = Bench::new(order);
        for kind in [
            "ec -pkeyopt ec_paramgen_curve:P-256",
            "ec -pkeyopt ec_paramgen_curve:P-521",
            "rsa:2048",
            "ed25519",
        ] {
            let line =
                format!("req -x509 -newkey {kind} -subj /CN=file -days 2 -out file.pem -keyout");
            let openssl = |line: &str| succeed(bench.program("openssl").args(line.split(' ')));
            openssl(&format!("{line} file.key -nodes"));
            assert_talked(&bench.python("file.pem", "file.key", None), "file");
            openssl("pkey -in file.key -aes256 -passout pass:secret -out closed.key");
            let output = bench.python("file.pem", "closed.key", Some("secret"));
            assert_talked(&output, "file");
        }
    }
}

/// Curl with a named client key, and an nginx of two workers with a named server key.
#[test]
fn curl_and_nginx_with_named_keys() {
    for order in ORDERS {
        let bench = Bench::new(order);
        let root = bench.path("");
        let root = root.to_str().unwrap().trim_end_matches('/');
        fs::create_dir(bench.path("temporary")).unwrap();
        // Workers of a root's nginx change to another user, who could not connect to the service here.
        let user = if users::effective() == 0 {
            "user root root;\n"
        } else {
            ""
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {root}/temporary;\n"))
            .collect();
        let config = |key: &str| {
            format!(
                "{user}daemon off;\npid {root}/nginx.pid;\nerror_log {root}/nginx.log info;\nworker_processes 2;\n\
                 events {{}}\nhttp {{\n  access_log off;\n{temporary}\
                 server {{\n  listen unix:{root}/nginx.sock ssl;\n  ssl_certificate {root}/ec.pem;\n  \
                 ssl_certificate_key {root}/{key};\n  ssl_client_certificate {root}/rsa.pem;\n  \
                 ssl_verify_client on;\n  location / {{ return 200 \"Hello, $ssl_client_s_dn!\\n\"; }}\n}}\n}}\n"
            )
        };
        let nginx = |name: &str, key: &str| {
            fs::write(bench.path(name), config(key)).unwrap();
            let mut command = bench.program("nginx");
            let path = std::env::var("PATH").unwrap_or_default();
            command
                .env("PATH", format!("{path}:/usr/sbin"))
                .arg("-c")
                .arg(bench.path(name));
            command
        };

        bench.name("nobody", "aziot-keys:id=nobody");
        let refused = nginx("refused.conf", "nobody.key")
            .arg("-t")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{stderr}");
        assert!(
            stderr.contains("could not load the key pair \"nobody\""),
            "{stderr}"
        );

        let _server = Server(nginx("nginx.conf", "ec.key").spawn().unwrap());
        eventually("nginx accepts connections", || {
            UnixStream::connect(bench.path("nginx.sock")).is_ok()
        });
        for version in ["1.2", "1.2", "1.3", "1.3"] {
            let said = succeed(bench.program("curl").args([
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
                "--cacert",
                "ec.pem",
                "--cert",
                "rsa.pem",
                "--key",
                "rsa.key",
                "--tls-max",
                version,
                "--unix-socket",
                "nginx.sock",
                "https://localhost/",
            ]));
            assert_eq!(said, "Hello, CN=rsa!\n");
        }
    }
}

/// The engine and the provider in one configuration, as the documentation says: `openssl` registers all engines it knows of for
/// everything, and OpenSSL then uses those for keys of the type, whosever they are. Other programs are not concerned.
#[test]
fn the_engine_in_the_same_configuration() {
    let bench = Bench::new(ORDERS[0]);
    let both = fs::read_to_string(bench.path("openssl.cnf"))
        .unwrap()
        .replacen("[init]\n", "[init]\nengines = engines\n", 1);
    let engine = binaries::built("libaziot_key_openssl_engine_shared.so");
    let both = format!(
        "{both}[engines]\naziot_keys = engine\n[engine]\ndynamic_path = {}\ninit = 1\n",
        engine.display()
    );
    fs::write(bench.path("both.cnf"), both).unwrap();
    let openssl = |line: &str| {
        let mut command = bench.program("openssl");
        command.args(line.split(' '));
        command.env("OPENSSL_CONF", bench.path("both.cnf"));
        command.output().unwrap()
    };
    let refused = openssl("dgst -sha256 -out signature -sign aziot-keys:id=ec ec.pem");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{stderr}");
    assert!(
        stderr.contains("operation not supported for this keytype"),
        "{stderr}"
    );
    // The engine's own keys are used as ever.
    let done = openssl(
        "dgst -sha256 -engine aziot_keys -keyform engine -out signature -sign aziot-keys:id=ec ec.pem",
    );
    assert!(done.status.success(), "{done:?}");
    let script = binaries::sources().join("tools/tls_pair.py");
    let mut python = bench.program("python3");
    python.arg(script).args(["ec.pem", "ec.key"]);
    let output = python.env("OPENSSL_CONF", bench.path("both.cnf")).output();
    assert_talked(&output.unwrap(), "ec");
}

/// A server that ends with the test, and takes its workers with it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).unwrap();
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
