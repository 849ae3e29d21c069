//! The acceptance scenario of the engine (chapter C9), through the engine and through the provider: a CA, a server and a client,
//! whose keys never leave the Keys Service, speak TLS with OpenSSL's program, curl and nginx.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::{eventually, request};
use aziot_tests::fixture::VERSION;
use aziot_tests::users;
use serde_json::json;

const IDS: [&str; 3] = ["ca", "server", "client"];
const GREETING: &str = "Hello, world!\n";

/// How a program gets at the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Engine,
    Provider,
}

impl Way {
    /// All that this OpenSSL has: there are no providers before 3.0.
    fn all() -> &'static [Self] {
        if binaries::openssl_3() {
            &[Self::Engine, Self::Provider]
        } else {
            &[Self::Engine]
        }
    }

    /// The directory in the root where OpenSSL finds the shared object, and its name as it is built.
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Engine => ("engines", "libaziot_key_openssl_engine_shared.so"),
            Self::Provider => ("modules", "libaziot_keys_provider_shared.so"),
        }
    }

    /// The options of `openssl`, beside the key itself.
    fn options(self) -> &'static str {
        match self {
            Self::Engine => "-engine aziot_keys",
            Self::Provider => "-provider aziot_keys -provider default",
        }
    }

    /// The options that name a key: `name` is that of the option, `key` or `CAkey`.
    fn key(self, name: &str, handle: &str) -> String {
        match self {
            Self::Engine => format!("-{name}form engine -{name} {handle}"),
            Self::Provider => format!("-{name} aziot-keys:handle={handle}"),
        }
    }
}

/// A Keys Service with the three key pairs, and the shared objects where OpenSSL looks for them.
struct Scenario {
    site: Site,
    handles: [String; 3],
}

impl Scenario {
    fn new(back_end: BackEnd, algorithm: &str) -> Self {
        let config = format!(
            "[[principal]]\nuid = {}\nkeys = [\"ca\", \"server\", \"client\"]\n",
            users::effective()
        );
        let site = Site::start(back_end, false, &config, |launch| launch);
        for way in Way::all() {
            let (directory, built) = way.file();
            let directory = site.keyd.root.join(directory);
            fs::create_dir(&directory).unwrap();
            symlink(binaries::built(built), directory.join("aziot_keys.so")).unwrap();
        }
        // What an earlier run has left goes first.
        site.pair("client", "ec-p256");
        for id in IDS {
            let found = site.keyd.get(&format!("/keypair/{id}"));
            assert_eq!(found.status == 200, id == "client", "{id}: {found}");
            if found.status == 200 {
                let deleted = site.keyd.delete("/keypair", &found.member("keyHandle"));
                assert_eq!(deleted.status, 204, "{deleted}");
            }
        }
        let handles = IDS.map(|id| generate(&site, id, algorithm));
        Self { site, handles }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.keyd.root.join(name)
    }

    fn handle(&self, id: &str) -> &str {
        let index = IDS.iter().position(|known| *known == id).unwrap();
        &self.handles[index]
    }

    /// A program in the root that finds everything; words are separated by blanks.
    fn program(&self, program: &str, line: &str) -> Command {
        let root = &self.site.keyd.root;
        let mut command = Command::new(program);
        command
            .args(line.split_whitespace())
            .current_dir(root.path())
            .env("AZIOT_ROOT", root.path())
            .env("OPENSSL_ENGINES", root.join("engines"))
            .env("OPENSSL_MODULES", root.join("modules"))
            .env("OPENSSL_CONF", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    fn openssl(&self, line: &str) -> String {
        succeed(&mut self.program("openssl", line))
    }

    /// Certificates for the three keys. Files are the leaf followed by the CA.
    fn issue(&self, way: Way) {
        let options = way.options();
        let ca = self.handle("ca");
        let config = "[req]\ndistinguished_name = dn\nx509_extensions = ca\n[dn]\n\
                      [ca]\nbasicConstraints = critical, CA:true\n\
                      [server]\nextendedKeyUsage = serverAuth\nsubjectAltName = IP:127.0.0.1, DNS:localhost\n\
                      [client]\nextendedKeyUsage = clientAuth\n";
        fs::write(self.path("req.cnf"), config).unwrap();
        let key = way.key("key", ca);
        self.openssl(&format!(
            "req -x509 -new -config req.cnf {options} {key} -sha256 -subj /CN=ca -days 365 -out ca.pem"
        ));
        self.openssl("verify -CAfile ca.pem ca.pem");
        for id in ["server", "client"] {
            let key = way.key("key", self.handle(id));
            self.openssl(&format!(
                "req -new -config req.cnf {options} {key} -sha256 -subj /CN={id} -out request.pem"
            ));
            let key = way.key("CAkey", ca);
            self.openssl(&format!(
                "x509 -req -in request.pem -CA ca.pem {options} {key} -CAcreateserial -sha256 -days 30 \
                 -extfile req.cnf -extensions {id} -out leaf.pem"
            ));
            self.openssl(&format!("verify -CAfile ca.pem -purpose ssl{id} leaf.pem"));
            let chain = ["leaf.pem", "ca.pem"].map(|file| fs::read(self.path(file)).unwrap());
            fs::write(self.path(&format!("{id}.pem")), chain.concat()).unwrap();
        }
    }

    /// `s_server`, which requires a certificate of the client and serves the files of the root.
    fn serve(&self, way: Way) -> Server {
        fs::write(self.path("hello"), GREETING).unwrap();
        let line = format!(
            "s_server -accept 127.0.0.1:0 {} {} -cert server.pem -cert_chain ca.pem -CAfile ca.pem -Verify 1 \
             -verify_return_error -WWW",
            way.options(),
            way.key("key", self.handle("server"))
        );
        let mut child = self
            .program("openssl", &line)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        while !address.starts_with("ACCEPT ") {
            address.clear();
            assert_ne!(
                output.read_line(&mut address).unwrap(),
                0,
                "the server has ended"
            );
        }
        let address = address["ACCEPT ".len()..].trim().to_owned();
        // What it says later is read too, so that it never waits.
        std::thread::spawn(move || output.lines().for_each(drop));
        Server { child, address }
    }

    /// What curl gets with the client's key. Curl 7.88 knows engines, but no providers.
    fn curl(&self, key: &str, more: &[&str]) -> Output {
        self.program(
            "curl",
            "--silent --show-error --noproxy * --cacert ca.pem --cert client.pem --engine aziot_keys --key-type ENG --key",
        )
        .arg(key)
        .args(more)
        .output()
        .unwrap()
    }
}

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates a key pair. RSA with 4096 bits may take minutes on a busy machine, as generation gives way to everything else.
fn generate(site: &Site, id: &str, algorithm: &str) -> String {
    let mut client = site.keyd.connect();
    let patience = Duration::from_secs(240);
    client.stream().set_read_timeout(Some(patience)).unwrap();
    let body = json!({ "keyId": id, "preferredAlgorithms": algorithm });
    let target = format!("/keypair?{VERSION}");
    let response = client.exchange(request("POST", &target, Some(&body)));
    response.member("keyHandle")
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_greeted(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        GREETING,
        "{stderr}"
    );
}

/// The whole scenario.
fn play(back_end: BackEnd, algorithm: &str) {
    let scenario = Scenario::new(back_end, algorithm);
    for &way in Way::all() {
        scenario.issue(way);
        let server = scenario.serve(way);
        for version in ["-tls1_2", "-tls1_3"] {
            let mut client = scenario.program(
                "openssl",
                &format!(
                    "s_client -connect {} {version} {} {} -cert client.pem -CAfile ca.pem -verify_return_error \
                     -verify_ip 127.0.0.1 -quiet",
                    server.address,
                    way.options(),
                    way.key("key", scenario.handle("client"))
                ),
            );
            fs::write(scenario.path("get"), "GET /hello HTTP/1.0\r\n\r\n").unwrap();
            client.stdin(fs::File::open(scenario.path("get")).unwrap());
            let answer = succeed(&mut client);
            assert!(answer.starts_with("HTTP/1.0 200 "), "{way:?} {answer}");
            assert!(answer.ends_with(GREETING), "{way:?} {answer}");
        }
        // `ke_02`: through curl, by the handle and by the id.
        let url = format!("https://{}/hello", server.address);
        for key in [scenario.handle("client"), "aziot-keys:id=client"] {
            assert_greeted(&scenario.curl(key, &[&url]));
        }
        // The key of another is of no use with the client's certificate.
        let other = scenario.curl(scenario.handle("server"), &[&url]);
        assert!(!other.status.success() && other.stdout.is_empty());
    }
    let files = scenario.site.files();
    let expected = match back_end {
        BackEnd::Files => 4,
        _ => 0,
    };
    assert_eq!(files.len(), expected, "{files:?}");
}

#[test]
fn ke_09_ke_02_curl_files_ec_p256() {
    play(BackEnd::Files, "ec-p256");
}

#[test]
fn ke_09_files_ec_p384() {
    play(BackEnd::Files, "ec-p384");
}

#[test]
fn ke_09_files_rsa_2048() {
    play(BackEnd::Files, "rsa-2048");
}

#[test]
fn ke_09_files_rsa_4096() {
    play(BackEnd::Files, "rsa-4096");
}

#[test]
fn ke_09_ke_02_curl_softhsm_ec_p256() {
    play(BackEnd::SoftHsm, "ec-p256");
}

#[test]
fn ke_09_softhsm_ec_p384() {
    play(BackEnd::SoftHsm, "ec-p384");
}

#[test]
fn ke_09_softhsm_rsa_2048() {
    play(BackEnd::SoftHsm, "rsa-2048");
}

#[test]
fn ke_09_softhsm_rsa_4096() {
    play(BackEnd::SoftHsm, "rsa-4096");
}

/// An nginx on a socket in the root, with its master process, so that keys are loaded in one process and used in another.
struct Nginx(Child);

impl Nginx {
    fn command(scenario: &Scenario) -> Command {
        let mut command = scenario.program("nginx", "-c");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .arg(scenario.path("nginx.conf"))
            .env("PATH", format!("{path}:/usr/sbin"));
        command
    }

    fn start(mut command: Command, scenario: &Scenario) -> Self {
        let nginx = Self(command.spawn().unwrap());
        eventually("nginx accepts connections", || {
            UnixStream::connect(scenario.path("nginx.sock")).is_ok()
        });
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its workers with it.
        let pid = i32::try_from(self.0.id()).unwrap();
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// A web server that knows nothing of the service but the name of a key. It loads keys without initialising the engine.
fn nginx(algorithm: &str, loaded_by_configuration: bool) {
    let scenario = Scenario::new(BackEnd::Files, algorithm);
    scenario.issue(Way::Engine);
    let root = scenario.path("");
    let root = root.to_str().unwrap().trim_end_matches('/');
    fs::create_dir(scenario.path("temporary")).unwrap();
    let first = if loaded_by_configuration {
        String::new()
    } else {
        "ssl_engine aziot_keys;\n".to_owned()
    };
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
    let config = format!(
        "{first}{user}daemon off;\npid {root}/nginx.pid;\nerror_log {root}/nginx.log info;\nworker_processes 2;\n\
         events {{}}\nhttp {{\n  access_log off;\n{temporary}\
         server {{\n  listen unix:{root}/nginx.sock ssl;\n  ssl_certificate {root}/server.pem;\n  \
         ssl_certificate_key engine:aziot_keys:aziot-keys:id=server;\n  ssl_client_certificate {root}/ca.pem;\n  \
         ssl_verify_client on;\n  ssl_protocols TLSv1.2 TLSv1.3;\n  location / {{ return 200 \"Hello, world!\\n\"; }}\n}}\n}}\n"
    );
    fs::write(scenario.path("nginx.conf"), config).unwrap();
    let openssl = format!(
        "openssl_conf = init\n[init]\nengines = engines\n[engines]\naziot_keys = keys\n[keys]\n\
         dynamic_path = {root}/engines/aziot_keys.so\ninit = 1\n"
    );
    fs::write(scenario.path("openssl.cnf"), openssl).unwrap();
    let configured = |mut command: Command| {
        if loaded_by_configuration {
            command
                .env("OPENSSL_CONF", scenario.path("openssl.cnf"))
                .env_remove("OPENSSL_ENGINES");
        }
        command
    };

    let Output { status, stderr, .. } = configured(Nginx::command(&scenario))
        .arg("-t")
        .env("AZIOT_ROOT", "/nowhere")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(!status.success(), "{stderr}");
    assert!(
        stderr.contains("check that aziot-keyd is running"),
        "{stderr}"
    );

    let nginx = Nginx::start(configured(Nginx::command(&scenario)), &scenario);
    let socket = scenario.path("nginx.sock");
    for version in ["1.2", "1.3"] {
        for _ in 0..3 {
            let output = scenario.curl(
                "aziot-keys:id=client",
                &[
                    "--unix-socket",
                    socket.to_str().unwrap(),
                    "--tls-max",
                    version,
                    "https://localhost/",
                ],
            );
            assert_greeted(&output);
        }
    }
    drop(nginx);
}

#[test]
fn nginx_ec() {
    nginx("ec-p256", true);
}

#[test]
fn nginx_rsa() {
    nginx("rsa-2048", false);
}
