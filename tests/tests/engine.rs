//! The engine `aziot_keys.so` with key pairs of a real Keys Service, through OpenSSL's own program and from C (engine,
//! chapters C1 to C7).
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use aziot_tests::back_end::{BackEnd, Site, bytes};
use aziot_tests::binaries;
use aziot_tests::softhsm::SoftHsm;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;

const ALGORITHMS: [&str; 3] = ["ec-p256", "ec-p384", "rsa-2048"];

/// A Keys Service with one key pair for each algorithm, and the engine in a directory of engines.
struct Bench {
    site: Site,
    handles: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let site = Site::new(BackEnd::Files);
        let engines = site.keyd.root.join("engines");
        fs::create_dir(&engines).unwrap();
        symlink(shared_object(), engines.join("aziot_keys.so")).unwrap();
        let handles = ALGORITHMS
            .iter()
            .map(|algorithm| site.pair(algorithm, algorithm))
            .collect();
        let bench = Self { site, handles };
        fs::write(bench.path("message"), "hello\n").unwrap();
        // OpenSSL 1.1 makes no certificate without one.
        let config = "[req]\ndistinguished_name = dn\n[dn]\n";
        fs::write(bench.path("req.cnf"), config).unwrap();
        for (algorithm, handle) in bench.pairs() {
            let public = bench.public(handle).public_key_to_pem().unwrap();
            fs::write(bench.path(&format!("{algorithm}.pub")), public).unwrap();
        }
        bench
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        ALGORITHMS
            .into_iter()
            .zip(self.handles.iter().map(String::as_str))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.keyd.root.join(name)
    }

    /// A program in the root that finds the engine under its name.
    fn program(&self, program: &str) -> Command {
        let root = &self.site.keyd.root;
        let mut command = Command::new(program);
        command
            .current_dir(root.path())
            .env("AZIOT_ROOT", root.path())
            .env("OPENSSL_ENGINES", root.join("engines"))
            .env("OPENSSL_CONF", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// `openssl COMMAND …`. Words are separated by blanks; KEY stands for the key id.
    fn openssl(&self, line: &str, key: &str) -> Command {
        let mut command = self.program("openssl");
        command.args(line.split(' ').map(|word| match word {
            "KEY" => key,
            word => word,
        }));
        command
    }

    fn done(&self, line: &str, key: &str) -> String {
        succeed(&mut self.openssl(line, key))
    }

    fn refused(&self, line: &str, key: &str) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.openssl(line, key).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(!status.success(), "{line}: {stdout:?} {stderr}");
        let ours = stderr.lines().filter(|line| line.contains("aziot_key_"));
        assert!(
            ours.into_iter().all(|line| !line.contains(key)),
            "a handle is a secret: {stderr}"
        );
        stderr
    }

    /// The public key that the service describes.
    fn public(&self, handle: &str) -> PKey<Public> {
        let parameter = |name| bytes(&self.site.parameter(handle, name), "value");
        if self.site.parameter(handle, "algorithm").member("value") == "RSA" {
            let number = |name| BigNum::from_slice(&parameter(name)).unwrap();
            let rsa = Rsa::from_public_components(number("rsa-modulus"), number("rsa-exponent"));
            return PKey::from_rsa(rsa.unwrap()).unwrap();
        }
        let curve = if parameter("ec-curve-oid").len() == 10 {
            Nid::X9_62_PRIME256V1
        } else {
            Nid::SECP384R1
        };
        let group = EcGroup::from_curve_name(curve).unwrap();
        let mut context = BigNumContext::new().unwrap();
        let point = EcPoint::from_bytes(&group, &parameter("ec-point"), &mut context).unwrap();
        PKey::from_ec_key(EcKey::from_public_key(&group, &point).unwrap()).unwrap()
    }
}

fn shared_object() -> PathBuf {
    binaries::built("libaziot_key_openssl_engine_shared.so")
}

fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    );
    assert!(status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

/// What the shared object offers, and what it needs.
#[test]
fn ke_01_symbols() {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "--format=just-symbols"])
        .arg(shared_object());
    let listed = succeed(&mut nm);
    let mut symbols: Vec<&str> = listed.lines().collect();
    symbols.sort_unstable();
    assert_eq!(symbols, ["bind_engine", "v_check"]);
    let mut readelf = Command::new("readelf");
    let dynamic = succeed(readelf.args(["-dW"]).arg(shared_object()));
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    assert!(dynamic.contains("libcrypto"), "{dynamic}");
    let mut nm = Command::new("nm");
    let needed = succeed(nm.args(["-D", "--undefined-only"]).arg(shared_object()));
    assert!(needed.contains(" ECDSA_SIG_free"), "{needed}");
    assert!(!needed.contains(" SSL_"), "{needed}");
    assert!(!needed.contains(" OPENSSL_init_ssl"), "{needed}");
    // Where the linker does not see in time that nothing of libssl is left, it is listed all the same: in debug builds for
    // OpenSSL 1.1.
    if binaries::openssl_3() {
        assert!(!dynamic.contains("libssl"), "{dynamic}");
    }
}

#[test]
fn ke_01_identity() {
    let bench = Bench::new();
    let mut command = bench.openssl("engine -t -c -vvvv aziot_keys", "");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert!(status.success());
    let stdout = String::from_utf8(stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "(aziot_keys) An openssl engine that talks to the Azure IoT Keys Service",
            "Loaded: (aziot-key-openssl-engine) An openssl engine that talks to the Azure IoT Keys Service",
            "[id-ecPublicKey, rsaEncryption]",
            "[ available ]",
        ]
    );
    // Nothing that was not in use says anything when it goes.
    assert_eq!(String::from_utf8(stderr).unwrap(), "");
}

#[test]
fn ke_02_by_name_and_by_configuration() {
    let bench = Bench::new();
    let handle = &bench.handles[0];
    let expected = fs::read_to_string(bench.path("ec-p256.pub")).unwrap();
    let by_name = "pkey -engine aziot_keys -inform engine -in KEY -pubout";
    assert_eq!(bench.done(by_name, handle), expected);

    let configuration = format!(
        "openssl_conf = init\n[init]\nengines = engines\n[engines]\naziot = aziot\n[aziot]\n\
         dynamic_path = {}\ninit = 1\n",
        bench.path("engines/aziot_keys.so").display()
    );
    fs::write(bench.path("openssl.cnf"), configuration).unwrap();
    let by_id = "pkey -engine aziot-key-openssl-engine -inform engine -in KEY -pubout";
    let mut command = bench.openssl(by_id, handle);
    command
        .env("OPENSSL_CONF", bench.path("openssl.cnf"))
        .env("OPENSSL_ENGINES", bench.path("nothing"));
    assert_eq!(succeed(&mut command), expected);
}

#[test]
fn ke_03_public_keys() {
    let bench = Bench::new();
    for (algorithm, handle) in bench.pairs() {
        let expected = fs::read_to_string(bench.path(&format!("{algorithm}.pub"))).unwrap();
        let id = format!("aziot-keys:id={algorithm}");
        for key in [handle, &id] {
            for half in ["-in KEY", "-pubin -in KEY"] {
                let line = format!("pkey -engine aziot_keys -inform engine {half} -pubout");
                assert_eq!(bench.done(&line, key), expected, "{algorithm} {half}");
            }
        }
    }
}

#[test]
fn ke_04_digests() {
    let bench = Bench::new();
    for (algorithm, handle) in bench.pairs() {
        let paddings: &[&str] = if algorithm.starts_with("rsa") {
            &["", " -sigopt rsa_padding_mode:pss"]
        } else {
            &[""]
        };
        for digest in ["sha1", "sha256", "sha384", "sha512"] {
            for padding in paddings {
                let common = format!("dgst -{digest}{padding}");
                let sign = "-engine aziot_keys -keyform engine -sign KEY -out signature message";
                bench.done(&format!("{common} {sign}"), handle);
                let verify = format!("-verify {algorithm}.pub -signature signature message");
                let said = bench.done(&format!("{common} {verify}"), "");
                assert_eq!(said, "Verified OK\n", "{common} {algorithm}");
            }
        }
    }
}

/// A certificate of a key's own, a request for another one, and a signed message.
#[test]
fn certificates() {
    let bench = Bench::new();
    for (algorithm, handle) in bench.pairs() {
        let engine = "-engine aziot_keys -keyform engine -key KEY";
        bench.done(
            &format!("req -x509 -config req.cnf {engine} -subj /CN={algorithm} -days 2 -out cert"),
            handle,
        );
        bench.done("verify -CAfile cert cert", "");
        bench.done(
            &format!("req -new -config req.cnf {engine} -subj /CN={algorithm} -out request"),
            handle,
        );
        bench.done("req -in request -verify -noout", "");
        let signed =
            "cms -sign -nodetach -binary -in message -signer cert -outform PEM -out signed";
        bench.done(
            &format!("{signed} -engine aziot_keys -keyform engine -inkey KEY"),
            handle,
        );
        let verify = "cms -verify -in signed -inform PEM -CAfile cert -purpose any";
        assert_eq!(bench.done(verify, ""), "hello\n", "{algorithm}");
    }
}

/// Chapter C6: PKCS #1 v1.5 and OAEP, and what is built on them.
#[test]
fn decryption() {
    let bench = Bench::new();
    let handle = &bench.handles[2];
    for options in [
        "",
        " -pkeyopt rsa_padding_mode:oaep",
        " -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256",
    ] {
        let encrypt = "pkeyutl -encrypt -pubin -inkey rsa-2048.pub -in message -out sealed";
        bench.done(&format!("{encrypt}{options}"), "");
        let decrypt = "pkeyutl -decrypt -engine aziot_keys -keyform engine -inkey KEY -in sealed";
        let message = bench.done(&format!("{decrypt}{options}"), handle);
        assert_eq!(message, "hello\n", "{options}");
    }
    // The older command, which has no way to name a padding but these.
    for padding in ["-pkcs", "-oaep"] {
        let encrypt = "rsautl -encrypt -pubin -inkey rsa-2048.pub -in message -out sealed";
        bench.done(&format!("{encrypt} {padding}"), "");
        let decrypt = "rsautl -decrypt -engine aziot_keys -keyform engine -inkey KEY -in sealed";
        let message = bench.done(&format!("{decrypt} {padding}"), handle);
        assert_eq!(message, "hello\n", "{padding}");
    }
    bench.done(
        "req -x509 -config req.cnf -engine aziot_keys -keyform engine -key KEY -subj /CN=x -out cert",
        handle,
    );
    bench.done(
        "cms -encrypt -binary -in message -aes256 -out sealed cert",
        "",
    );
    let decrypt =
        "cms -decrypt -in sealed -recip cert -engine aziot_keys -keyform engine -inkey KEY";
    assert_eq!(bench.done(decrypt, handle), "hello\n");
}

/// The private half is not here, so there is nothing to write, nor to agree on secrets with. Before 3.0, OpenSSL does not notice
/// that an RSA key has none, and writes the public numbers under a heading that is wrong.
#[test]
fn private_halves_stay() {
    let bench = Bench::new();
    for (algorithm, handle) in bench.pairs() {
        let mut command = bench.openssl("pkey -engine aziot_keys -inform engine -in KEY", handle);
        let Output { status, stdout, .. } = command.output().unwrap();
        if algorithm == "rsa-2048" && !binaries::openssl_3() {
            assert!(PKey::private_key_from_pem(&stdout).is_err());
            let public = fs::read(bench.path("rsa-2048.pub")).unwrap();
            // Not even one of the missing numbers, which are half as long as the modulus or longer, would fit in.
            assert!(stdout.len() < public.len() + 64, "{stdout:?}");
            continue;
        }
        assert!(
            !status.success() && stdout.is_empty(),
            "{algorithm}: {stdout:?}"
        );
    }
    let derive =
        "pkeyutl -derive -engine aziot_keys -keyform engine -inkey KEY -peerkey ec-p256.pub";
    bench.refused(derive, &bench.handles[0]);
}

/// Chapter C7: which library and function, and one entry for each cause.
#[test]
fn ke_07_errors_name_the_cause() {
    let bench = Bench::new();
    let load = "pkey -engine aziot_keys -inform engine -in KEY -pubout";
    let causes = |stderr: &str| -> Vec<String> {
        let found: Vec<String> = stderr
            .lines()
            .filter(|line| line.contains("aziot_key_openssl_engine"))
            .map(ToOwned::to_owned)
            .collect();
        assert_eq!(found.len(), 2, "{stderr}");
        found
    };

    let stderr = bench.refused(load, "not a handle at all");
    let found = causes(&stderr);
    assert!(
        found[0].contains("aziot_key_engine_load_privkey"),
        "{stderr}"
    );
    assert!(
        found[0].ends_with("could not load a key pair of the Keys Service"),
        "{stderr}"
    );
    assert!(
        stderr.contains("parameter \"handle\" has an invalid value\ncaused by: invalid handle"),
        "{stderr}"
    );

    let stderr = bench.refused(&load.replace("-in", "-pubin -in"), "not a handle at all");
    assert!(stderr.contains("aziot_key_engine_load_pubkey"), "{stderr}");

    let stderr = bench.refused(load, "aziot-keys:id=no such pair");
    assert!(causes(&stderr)[0].contains("\"no such pair\""), "{stderr}");

    let mut command = bench.openssl(load, &bench.handles[0]);
    command.env("AZIOT_ROOT", "relative");
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success());
    assert!(
        stderr.contains("aziot_key_openssl_engine_shared:aziot_key_engine_shared_init"),
        "{stderr}"
    );
    assert!(stderr.contains("AZIOT_ROOT"), "{stderr}");

    let root = aziot_tests::root::Root::new();
    let mut command = bench.openssl(load, &bench.handles[0]);
    command.env("AZIOT_ROOT", root.path());
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success());
    let found = causes(&stderr);
    assert!(
        found[1].contains("(os error 2)") && found[1].contains("aziot-keyd"),
        "{stderr}"
    );
}

/// Every way to copy keys and every order to free them in, under a memory checker; threads and processes that share a key.
#[test]
fn ke_08_copies_in_every_order() {
    let bench = Bench::new();
    let program = binaries::compile_program(
        "engine_keys.c",
        &[],
        &["-lcrypto", "-lpthread"],
        bench.site.keyd.root.path(),
        "engine-keys",
    );
    let program = program.to_str().unwrap();
    let (ec, rsa) = (&*bench.handles[0], &*bench.handles[2]);
    succeed(bench.program(program).args(["aziot_keys", ec, rsa]));
    let mut checked = bench.program("valgrind");
    checked.args([
        "--quiet",
        "--error-exitcode=9",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite,indirect",
        program,
        "aziot_keys",
        "aziot-keys:id=ec-p256",
        rsa,
    ]);
    succeed(&mut checked);
}

/// The engine of OpenSC's libp11 beside ours: its keys in a token of SoftHSM and ours in the Keys Service sign in turns,
/// whichever is loaded first, registered, or the default. Keys of neither are not disturbed.
#[test]
fn beside_the_pkcs11_engine() {
    let bench = Bench::new();
    let root = &bench.site.keyd.root;
    let directory = bench.done("version -e", "");
    let directory = directory
        .trim()
        .trim_start_matches("ENGINESDIR: ")
        .trim_matches('"');
    // Of another release of Debian, if its programs are run here.
    let theirs = match std::env::var_os("AZIOT_TEST_SYSROOT") {
        Some(root) => PathBuf::from(root).join(directory.trim_start_matches('/')),
        None => PathBuf::from(directory),
    }
    .join("pkcs11.so");
    assert!(
        theirs.exists(),
        "{} is missing; `make test` installs libengine-pkcs11-openssl",
        theirs.display()
    );
    symlink(theirs, bench.path("engines/pkcs11.so")).unwrap();
    let token = SoftHsm::new(&root.join("softhsm")).initialize("Others");
    // Their engine finds the public half of an EC key by the id that both halves have.
    for (kind, label, id) in [
        ("EC:prime256v1", "their-ec", "01"),
        ("rsa:2048", "their-rsa", "02"),
    ] {
        token.tool(&[
            "--keypairgen",
            "--key-type",
            kind,
            "--label",
            label,
            "--id",
            id,
        ]);
    }
    let program = binaries::compile_program(
        "two_engines.c",
        &[],
        &["-lcrypto"],
        root.path(),
        "two-engines",
    );
    let ours = ["aziot_keys", &bench.handles[0], "aziot-keys:id=rsa-2048"];
    let (ec, rsa) = (token.uri(Some("their-ec")), token.uri(Some("their-rsa")));
    let theirs = ["pkcs11", &ec, &rsa];
    let with_token = |mut command: Command| {
        command
            .env("PKCS11_MODULE_PATH", token.module())
            .envs(token.envs().iter().map(|(name, value)| (name, value)));
        command
    };
    for order in [[ours, theirs], [theirs, ours]] {
        let mut command = with_token(bench.program(program.to_str().unwrap()));
        succeed(command.args(order.concat()));
    }

    // Both in one configuration, in both orders.
    let section = |name: &str| {
        let file = bench.path(&format!("engines/{name}.so"));
        format!("[{name}]\ndynamic_path = {}\ninit = 1\n", file.display())
    };
    fs::write(bench.path("digest"), [7; 32]).unwrap();
    for [first, second] in [["aziot_keys", "pkcs11"], ["pkcs11", "aziot_keys"]] {
        let configuration = format!(
            "openssl_conf = init\n[init]\nengines = engines\n[engines]\n{first} = {first}\n{second} = {second}\n{}{}\
             [req]\ndistinguished_name = name\n[name]\n",
            section(first),
            section(second)
        );
        fs::write(bench.path("openssl.cnf"), configuration).unwrap();
        for (engine, key) in [
            ("aziot_keys", "aziot-keys:id=ec-p256"),
            ("aziot_keys", "aziot-keys:id=rsa-2048"),
            ("pkcs11", &ec),
            ("pkcs11", &rsa),
        ] {
            let run = |line: &str| {
                let mut command = with_token(bench.openssl(line, key));
                succeed(command.env("OPENSSL_CONF", bench.path("openssl.cnf")))
            };
            run(&format!(
                "req -x509 -engine {engine} -keyform engine -key KEY -subj /CN=x -days 2 -out cert"
            ));
            bench.done("verify -CAfile cert cert", "");
            run(&format!(
                "pkeyutl -sign -engine {engine} -keyform engine -inkey KEY -in digest -out signature"
            ));
            bench.done(
                "pkeyutl -verify -certin -inkey cert -in digest -sigfile signature",
                "",
            );
        }
    }
}
