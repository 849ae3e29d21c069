//! A TLS server with a key of the Keys Service, through the engine and through the provider, as shared objects in a program of
//! its own: what a handshake costs, and keys that threads and processes share (engine, checklist KE-06 and chapter D).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::eventually;
use aziot_tests::proxy::Proxy;

/// The ways to name the key, in the program's words.
const WAYS: [&str; 2] = [
    "aziot-keys:id=server",
    "engine:aziot_keys:aziot-keys:id=server",
];

const ALGORITHMS: [(&str, &str); 2] = [("ec-p256", "/sign"), ("rsa-2048", "/encrypt")];

/// A Keys Service with the server's key, behind a proxy in a root of its own, and a certificate.
struct Bench {
    site: Site,
    proxy: Proxy,
    program: PathBuf,
}

impl Bench {
    fn new(algorithm: &str) -> Self {
        // Through the proxy a connection ends a moment after its client has closed it and opened the next one.
        let site = Site::start(BackEnd::Files, false, "max_requests = 40\n", |launch| {
            launch
        });
        let root = &site.keyd.root;
        for (directory, built) in [
            ("engines", "libaziot_key_openssl_engine_shared.so"),
            ("modules", "libaziot_keys_provider_shared.so"),
        ] {
            fs::create_dir(root.join(directory)).unwrap();
            symlink(
                binaries::built(built),
                root.join(directory).join("aziot_keys.so"),
            )
            .unwrap();
        }
        fs::create_dir_all(root.join("proxied/run/aziot")).unwrap();
        let proxy = Proxy::start(
            root.socket("keyd"),
            &root.join("proxied/run/aziot/keyd.sock"),
        );
        let program = binaries::compile_program(
            "../bench/tls.c",
            &[],
            &["-lssl", "-lcrypto", "-lpthread"],
            root.path(),
            "tls",
        );
        site.pair("server", algorithm);
        let bench = Self {
            site,
            proxy,
            program,
        };
        let certificate = bench
            .command("openssl")
            .args("req -x509 -new -provider aziot_keys -provider default".split(' '))
            .args("-key aziot-keys:id=server -subj /CN=server -days 2 -out cert.pem".split(' '))
            .output()
            .unwrap();
        assert!(certificate.status.success(), "{certificate:?}");
        bench
    }

    fn command(&self, program: &str) -> Command {
        let root = &self.site.keyd.root;
        let mut command = Command::new(program);
        command
            .current_dir(root.path())
            .env("AZIOT_ROOT", root.join("proxied"))
            .env("OPENSSL_ENGINES", root.join("engines"))
            .env("OPENSSL_MODULES", root.join("modules"))
            .env("OPENSSL_CONF", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// The server, listening.
    fn serve(&self, key: &str, processes: u32, threads: u32) -> Server {
        let root = &self.site.keyd.root;
        let socket = root.join("tls.sock");
        let _ = fs::remove_file(&socket);
        let child = self
            .command(self.program.to_str().unwrap())
            .args(["serve", "tls.sock", "cert.pem", key])
            .args([processes.to_string(), threads.to_string()])
            .stderr(fs::File::create(root.join("tls.log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Server(child);
        eventually("the server listens", || {
            let ended = server.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.log());
            UnixStream::connect(&socket).is_ok()
        });
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.site.keyd.root.join("tls.log")).unwrap()
    }

    /// So many handshakes over so many connections at a time, in full but for those that resume.
    fn shake_hands(&self, handshakes: u32, connections: u32, how: &[&str]) {
        let output = self
            .command(self.program.to_str().unwrap())
            .args(["load", "tls.sock", "cert.pem", "120"])
            .args([connections.to_string(), handshakes.to_string()])
            .args(how)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{stderr}{}", self.log());
        let expected = format!("requests={handshakes} errors=0 ");
        assert!(said.starts_with(&expected), "{said}");
    }
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A handshake takes one exchange with the service, over a connection of its own: the signature. One that resumes an earlier
/// session takes none.
#[test]
fn one_exchange_for_each_handshake() {
    for (algorithm, path) in ALGORITHMS {
        let bench = Bench::new(algorithm);
        let request = vec![format!("POST {path}?api-version=2021-05-01 HTTP/1.1")];
        for way in WAYS {
            let before = bench.proxy.count();
            let _server = bench.serve(way, 0, 1);
            // By the id: the handle, the algorithm, and two numbers.
            let loaded = bench.proxy.count();
            assert_eq!(loaded, before + 4, "{way}: {:?}", bench.proxy.since(before));
            for version in ["1.2", "1.3"] {
                let before = bench.proxy.count();
                bench.shake_hands(5, 1, &[version]);
                let during = bench.proxy.since(before);
                assert_eq!(during, vec![request.clone(); 5], "{way} {version}");

                let before = bench.proxy.count();
                bench.shake_hands(5, 1, &[version, "resume"]);
                let during = bench.proxy.since(before);
                assert_eq!(during, vec![request.clone(); 1], "{way} {version}, resumed");
            }
        }
    }
}

/// Eight threads of one process, and four processes of two threads, that the key was loaded before: all share it.
#[test]
fn threads_and_processes_share_a_key() {
    for (algorithm, _) in ALGORITHMS {
        let bench = Bench::new(algorithm);
        for way in WAYS {
            for (processes, threads) in [(0, 8), (4, 2)] {
                let before = bench.proxy.count();
                let _server = bench.serve(way, processes, threads);
                bench.shake_hands(80, 8, &["1.3"]);
                let during = bench.proxy.count() - before;
                assert_eq!(during, 4 + 80, "{way}, {processes} × {threads}");
            }
        }
    }
}
