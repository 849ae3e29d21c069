//! OpenSSL's own program with key pairs of a real Keys Service, through the provider as a shared object (spec, key library
//! chapter D).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use aziot_tests::back_end::{BackEnd, Site};
use aziot_tests::binaries;
use aziot_tests::client::eventually;

const ALGORITHMS: [&str; 3] = ["ec-p256", "ec-p384", "rsa-2048"];

/// Both ways of activating the providers. OpenSSL asks the first that knows an algorithm.
const ORDERS: [[&str; 2]; 2] = [["aziot_keys", "default"], ["default", "aziot_keys"]];

/// A Keys Service with one key pair for each algorithm, and the provider in a directory of modules.
struct Bench {
    site: Site,
    order: [&'static str; 2],
}

impl Bench {
    fn new(order: [&'static str; 2]) -> Self {
        let site = Site::new(BackEnd::Files);
        let modules = site.keyd.root.join("modules");
        fs::create_dir(&modules).unwrap();
        let provider = binaries::built("libaziot_keys_provider_shared.so");
        symlink(provider, modules.join("aziot_keys.so")).unwrap();
        for algorithm in ALGORITHMS {
            site.pair(algorithm, algorithm);
        }
        let bench = Self { site, order };
        fs::write(bench.path("message"), "hello\n").unwrap();
        fs::write(bench.path("digest"), [7; 32]).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.keyd.root.join(name)
    }

    /// `openssl COMMAND …` in the root, without the provider.
    fn plain(&self, line: &str) -> Command {
        let mut command = Command::new("openssl");
        command
            .args(line.split(' '))
            .current_dir(self.site.keyd.root.path())
            .env("AZIOT_ROOT", self.site.keyd.root.path())
            .env("OPENSSL_CONF", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// The same with the provider: its options are put after the name of the command.
    fn openssl(&self, line: &str) -> Command {
        let (name, rest) = line.split_once(' ').unwrap();
        let [first, second] = self.order;
        self.plain(&format!(
            "{name} -provider-path modules -provider {first} -provider {second} {rest}"
        ))
    }

    fn done(&self, line: &str) -> String {
        succeed(&mut self.openssl(line))
    }

    fn check(&self, line: &str) -> String {
        succeed(&mut self.plain(line))
    }
}

fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {stderr}");
    assert!(!stderr.contains(":error:"), "{command:?}: {stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}

#[test]
fn kv_01_public_keys_match_and_private_ones_stay() {
    for order in ORDERS {
        let bench = Bench::new(order);
        for name in ALGORITHMS {
            let uri = format!("aziot-keys:id={name}");
            bench.done(&format!("pkey -in {uri} -pubout -out by-id.pem"));
            // A handle works without a principal, and in its own characters.
            let handle = bench.site.pair(name, name);
            bench.done(&format!(
                "pkey -in aziot-keys:handle={handle} -pubout -out by-handle.pem"
            ));
            bench.done(&format!(
                "pkey -pubin -in {uri};type=public -pubout -out public.pem"
            ));
            let by_id = fs::read_to_string(bench.path("by-id.pem")).unwrap();
            assert!(by_id.starts_with("-----BEGIN PUBLIC KEY-----"));
            assert_eq!(
                by_id,
                fs::read_to_string(bench.path("by-handle.pem")).unwrap()
            );
            assert_eq!(by_id, fs::read_to_string(bench.path("public.pem")).unwrap());

            let output = bench.openssl(&format!("pkey -in {uri}")).output().unwrap();
            assert!(!output.status.success());
            assert!(!String::from_utf8_lossy(&output.stdout).contains("PRIVATE"));
            bench.done(&format!("pkey -in {uri} -pubcheck -noout"));
        }
    }
}

#[test]
fn kv_01_dgst_pkeyutl_req_x509_cms() {
    for order in ORDERS {
        let bench = Bench::new(order);
        for name in ALGORITHMS {
            let key = format!("aziot-keys:id={name}");
            bench.done(&format!("pkey -in {key} -pubout -out public.pem"));
            for digest in ["sha1", "sha256", "sha384", "sha512"] {
                bench.done(&format!(
                    "dgst -{digest} -sign {key} -out signature message"
                ));
                bench.check(&format!(
                    "dgst -{digest} -verify public.pem -signature signature message"
                ));
                bench.done(&format!(
                    "dgst -{digest} -prverify {key} -signature signature message"
                ));
            }
            bench.done(&format!(
                "pkeyutl -sign -inkey {key} -in digest -out signature"
            ));
            bench.check("pkeyutl -verify -pubin -inkey public.pem -in digest -sigfile signature");

            bench.done(&format!("req -new -key {key} -subj /CN=x -out request.pem"));
            bench.check("req -in request.pem -verify -noout");
            bench.done(&format!(
                "req -x509 -new -key {key} -subj /CN=ca -out ca.pem"
            ));
            bench.check("verify -CAfile ca.pem ca.pem");
            bench.done(&format!(
                "x509 -req -in request.pem -CA ca.pem -CAkey {key} -CAcreateserial -out leaf.pem"
            ));
            bench.check("verify -CAfile ca.pem leaf.pem");
            bench.done(&format!(
                "cms -sign -nodetach -in message -signer ca.pem -inkey {key} -outform PEM -out signed.pem"
            ));
            let message =
                bench.check("cms -verify -in signed.pem -inform PEM -CAfile ca.pem -purpose any");
            assert_eq!(message.trim(), "hello");
        }
    }
}

#[test]
fn rsa_paddings() {
    for order in ORDERS {
        let bench = Bench::new(order);
        let key = "aziot-keys:id=rsa-2048";
        bench.done(&format!("pkey -in {key} -pubout -out public.pem"));
        let pss = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1";
        bench.done(&format!(
            "dgst -sha384 {pss} -sign {key} -out signature message"
        ));
        bench.check(&format!(
            "dgst -sha384 {pss} -verify public.pem -signature signature message"
        ));
        bench.done(&format!(
            "req -x509 -new -key {key} -sigopt rsa_padding_mode:pss -subj /CN=ca -out ca.pem"
        ));
        bench.check("verify -CAfile ca.pem ca.pem");
        for options in [
            "-pkeyopt rsa_padding_mode:pkcs1",
            "-pkeyopt rsa_padding_mode:oaep",
            "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_oaep_label:6162",
        ] {
            bench.check(&format!(
                "pkeyutl -encrypt -pubin -inkey public.pem -in message -out closed {options}"
            ));
            let open = bench.done(&format!(
                "pkeyutl -decrypt -inkey {key} -in closed {options}"
            ));
            assert_eq!(open, "hello\n", "{options}");
        }
        bench.check("cms -encrypt -in message -outform PEM -out closed ca.pem");
        let open = bench.done(&format!(
            "cms -decrypt -in closed -inform PEM -recip ca.pem -inkey {key}"
        ));
        assert_eq!(open.trim(), "hello");
    }
}

/// Keys in files are none of ours, whichever provider is asked first.
#[test]
fn ordinary_keys_work_as_ever() {
    for order in ORDERS {
        let bench = Bench::new(order);
        for options in [
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            "-algorithm ED25519",
        ] {
            bench.done(&format!("genpkey {options} -out file.pem"));
            bench.done("pkey -in file.pem -pubout -out file.pub");
            bench.done("pkey -in file.pem -check -noout");
            bench.done("req -x509 -new -key file.pem -subj /CN=f -out file.crt");
            bench.check("verify -CAfile file.crt file.crt");
        }
        bench.done("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out file.pem");
        bench.done("pkey -in aziot-keys:id=ec-p256 -pubout -out peer.pem");
        bench.done("pkeyutl -derive -inkey file.pem -peerkey peer.pem -out secret");
        assert_eq!(fs::read(bench.path("secret")).unwrap().len(), 32);
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

#[test]
fn kv_01_ke_06_s_server_and_s_client() {
    for order in ORDERS {
        let bench = Bench::new(order);
        for name in ALGORITHMS {
            let key = format!("aziot-keys:id={name}");
            bench.done(&format!(
                "req -x509 -new -key {key} -subj /CN=localhost -out ca.pem"
            ));
            let credentials = format!("-cert ca.pem -key {key} -CAfile ca.pem");
            // The last one is a key exchange with RSA, where the server decrypts.
            let mut ways = vec![
                "-tls1_2",
                "-tls1_3 -groups X25519",
                "-tls1_3 -groups P-256:P-384",
            ];
            if name.starts_with("rsa") {
                ways.push("-tls1_2 -cipher AES128-SHA256:@SECLEVEL=0");
            }
            for way in ways {
                let port = TcpListener::bind("127.0.0.1:0")
                    .unwrap()
                    .local_addr()
                    .unwrap()
                    .port();
                let server = bench
                    .openssl(&format!(
                        "s_server -accept 127.0.0.1:{port} {credentials} -Verify 1 -verify_return_error -quiet -www {way}"
                    ))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                let _server = Server(server);
                eventually("the server listens", || {
                    // Its table entry, so that no connection is used up.
                    let listening = fs::read_to_string("/proc/net/tcp").unwrap();
                    listening.contains(&format!("0100007F:{port:04X} 00000000:0000 0A"))
                });
                let mut client = bench.openssl(&format!(
                    "s_client -connect 127.0.0.1:{port} {credentials} -verify_return_error -brief {way}"
                ));
                let output = client.output().unwrap();
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{client:?}: {text}");
                assert!(text.contains("CONNECTION ESTABLISHED"), "{text}");
                assert!(text.contains("Verification: OK"), "{text}");
            }
        }
    }
}

#[test]
fn kv_01_errors_name_the_cause() {
    let bench = Bench::new(ORDERS[0]);
    let refused = |uri: &str, root: &str| {
        let output = bench
            .openssl(&format!("dgst -sign {uri} -out signature message"))
            .env("AZIOT_ROOT", root)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{uri}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let root = bench.path("").display().to_string();
    for (uri, root, expected) in [
        ("aziot-keys:id=nobody", root.as_str(), "key pair \"nobody\""),
        ("aziot-keys:handle=secret", &root, "invalid handle"),
        (
            "aziot-keys:id=a;x=y",
            &root,
            "a part that is not understood",
        ),
        (
            "aziot-keys:id=ec-p256",
            "/nowhere",
            "check that aziot-keyd is running",
        ),
        ("aziot-keys:id=ec-p256", "nowhere", "not an absolute path"),
    ] {
        let text = refused(uri, root);
        assert!(text.contains(expected), "{uri}: {text}");
        assert!(text.contains("aziot_keys provider"), "{uri}: {text}");
        let queue = text.lines().filter(|line| line.contains(":error:"));
        assert!(!queue.clone().any(|line| line.contains("secret")), "{text}");
        assert!(queue.count() > 0, "{text}");
    }
}

/// The provider finds the service by a parameter of its section, and is found itself.
#[test]
fn configured_in_openssl_cnf() {
    let bench = Bench::new(ORDERS[0]);
    let configuration = format!(
        "openssl_conf = init\n[init]\nproviders = providers\n[providers]\ndefault = ordinary\naziot_keys = keys\n\
         [ordinary]\nactivate = 1\n[keys]\nactivate = 1\nmodule = {}\nsocket = {}\n",
        bench.path("modules/aziot_keys.so").display(),
        bench.site.keyd.root.socket("keyd").display()
    );
    let file = bench.site.keyd.root.write("openssl.cnf", configuration);
    let run = |line: &str| {
        succeed(
            bench
                .plain(line)
                .env_remove("AZIOT_ROOT")
                .env("OPENSSL_CONF", &file),
        )
    };
    run("dgst -sha256 -sign aziot-keys:id=ec-p256 -out signature message");
    run("pkey -in aziot-keys:id=ec-p256 -pubout -out public.pem");
    bench.check("dgst -sha256 -verify public.pem -signature signature message");

    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("socket = /", "socket = ")).unwrap();
    let output = bench
        .plain("pkey -in aziot-keys:id=ec-p256 -pubout")
        .env("OPENSSL_CONF", &file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("correct it in openssl.cnf"), "{text}");
}

#[test]
fn the_shared_object_exports_its_entry_and_needs_libcrypto_alone() {
    let provider = binaries::built("libaziot_keys_provider_shared.so");
    let run = |options: &[&str]| {
        let output = Command::new(options[0])
            .args(&options[1..])
            .arg(&provider)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let exported = run(&["nm", "-D", "--defined-only"]);
    let names: Vec<&str> = exported
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(names, ["OSSL_provider_init"]);
    // Engines are gone from OpenSSL 4.
    assert!(!run(&["nm", "-D", "--undefined-only"]).contains(" ENGINE_"));
    let dynamic = run(&["readelf", "-d"]);
    assert!(dynamic.contains("[libcrypto.so."), "{dynamic}");
    assert!(!dynamic.contains("libssl"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

/// `valgrind PROGRAM …` in the root: an invalid access, a use of what was never set, or lost memory fails it. Nothing is
/// suppressed.
fn checked(bench: &Bench, program: &str, args: &[&str]) -> Command {
    let root = &bench.site.keyd.root;
    let mut command = Command::new("valgrind");
    command
        .args([
            "--quiet",
            "--error-exitcode=9",
            "--leak-check=full",
            "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect",
            program,
        ])
        .args(args)
        .current_dir(root.path())
        .env("AZIOT_ROOT", root.path())
        .env("OPENSSL_CONF", "/dev/null")
        .env("OPENSSL_MODULES", root.join("modules"))
        .stdin(Stdio::null());
    command
}

/// Every way to copy keys and operations and every order to free them in, under a memory checker; threads and processes that
/// share a key.
#[test]
fn ke_08_copies_in_every_order() {
    let bench = Bench::new(ORDERS[0]);
    let program = binaries::compile_program(
        "provider_keys.c",
        &[],
        &["-lcrypto", "-lpthread"],
        bench.site.keyd.root.path(),
        "provider-keys",
    );
    let program = program.to_str().unwrap();
    let handle = bench.site.pair("rsa-2048", "rsa-2048");
    let by_handle = format!("aziot-keys:handle={handle}");
    succeed(&mut checked(
        &bench,
        program,
        &["aziot-keys:id=ec-p256", &by_handle],
    ));
}

/// OpenSSL's own program under the memory checker, where something is signed, decrypted, written and refused.
#[test]
fn the_openssl_program_is_clean_under_a_memory_checker() {
    for (order, lines) in ORDERS.into_iter().zip([6, 3]) {
        let bench = Bench::new(order);
        bench.done("pkey -in aziot-keys:id=rsa-2048 -pubout -out public.pem");
        bench.check("pkeyutl -encrypt -pubin -inkey public.pem -in message -out closed");
        let all = [
            "dgst -sha256 -sign aziot-keys:id=ec-p256 -out signature message",
            "dgst -sha384 -sigopt rsa_padding_mode:pss -sign aziot-keys:id=rsa-2048 -out signature message",
            "req -x509 -new -key aziot-keys:id=ec-p384 -subj /CN=ca -out ca.pem",
            "req -new -key aziot-keys:id=rsa-2048 -subj /CN=x -out request.pem",
            "pkeyutl -decrypt -inkey aziot-keys:id=rsa-2048 -in closed -out open",
            "cms -sign -nodetach -in message -signer ca.pem -inkey aziot-keys:id=ec-p384 -out signed",
        ];
        for line in &all[..lines] {
            let (name, rest) = line.split_once(' ').unwrap();
            let [first, second] = order;
            let line = format!("{name} -provider {first} -provider {second} {rest}");
            let words: Vec<&str> = line.split(' ').collect();
            succeed(&mut checked(&bench, "openssl", &words));
        }
        let refused = checked(
            &bench,
            "openssl",
            &[
                "pkey",
                "-provider",
                "aziot_keys",
                "-in",
                "aziot-keys:id=nobody",
            ],
        )
        .output()
        .unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
}
