//! tpm2-pkcs11 over swtpm: what a module that is less obliging than SoftHSM makes of all this.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aziot_crypto::key_pair::{Algorithm, RsaPadding};
use aziot_crypto::pkcs11::{Condition, Token, USAGE_ENCRYPT, USAGE_SIGN};

use super::fixture::{Backend, Fixture, PIN, alone, run, token};
use super::operations::{assert_rsa, assert_signed, padded};

/// A TPM in software, for as long as this lives.
pub struct Tpm {
    directory: PathBuf,
    process: Child,
}

impl Tpm {
    /// Starts one with an initialised token labelled `keys`, and tells the process of the test.
    pub fn start(fixture: &Fixture, child: &mut Command) -> Self {
        for directory in ["tpm", "store"] {
            fs::create_dir(fixture.directory.join(directory)).unwrap();
        }
        let tpm = Self {
            directory: fixture.directory.clone(),
            process: spawn(&fixture.directory),
        };
        let module = Backend::Tpm.module();
        let tool = |arguments: &[&str]| {
            let mut tool = Command::new("pkcs11-tool");
            tool.arg("--module")
                .arg(&module)
                .args(["--slot-index", "0", "--so-pin", PIN])
                .args(arguments);
            tpm.tell(&mut tool);
            run(&mut tool);
        };
        tool(&["--init-token", "--label", "keys"]);
        tool(&["--init-pin", "--login", "--pin", PIN]);
        let mut flush = Command::new("tpm2_flushcontext");
        tpm.tell(flush.arg("--transient-object"));
        run(&mut flush);
        tpm.tell(child);
        child.env("PKCS11_TEST_TPM", tpm.process.id().to_string());
        tpm
    }

    fn tell(&self, command: &mut Command) {
        command
            .env("TPM2_PKCS11_STORE", self.directory.join("store"))
            .env(
                "TPM2_PKCS11_TCTI",
                format!("swtpm:path={}", self.directory.join("socket").display()),
            )
            .env(
                "TPM2TOOLS_TCTI",
                format!("swtpm:path={}", self.directory.join("socket").display()),
            )
            .env("TPM2_PKCS11_LOG_LEVEL", "0")
            .env("TSS2_LOG", "all+none");
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &std::path::Path) -> Child {
    let path = |name: &str| directory.join(name).display().to_string();
    for socket in ["socket", "socket.ctrl"] {
        let _ = fs::remove_file(directory.join(socket));
    }
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--tpmstate", &format!("dir={}", path("tpm"))])
        .args(["--server", &format!("type=unixio,path={}", path("socket"))])
        .args([
            "--ctrl",
            &format!("type=unixio,path={}", path("socket.ctrl")),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|err| panic!("swtpm: {err}; `scripts/install-deps test` installs it"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !directory.join("socket.ctrl").exists() || !directory.join("socket").exists() {
        assert!(Instant::now() < deadline, "swtpm does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// A TPM with the state of one that was started outside of this process and killed.
struct Restarted(Child);

impl Restarted {
    /// Ends the first one.
    fn end(pid: &str) {
        run(Command::new("kill").args(["-9", pid]));
    }

    fn start(fixture: &Fixture) -> Self {
        Self(spawn(&fixture.directory))
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lends the token to `act`. The module keeps every key that it has made or used loaded, and swtpm has room for three; the
/// resource manager in front of a real TPM would make room, so do we, after each step.
fn step<T>(fixture: &Fixture, act: impl FnOnce(&Token) -> T) -> T {
    let token = tpm_token(fixture);
    let result = act(&token);
    drop(token);
    run(Command::new("tpm2_flushcontext").arg("--transient-object"));
    result
}

fn tpm_token(fixture: &Fixture) -> Token {
    token(
        &fixture.module(),
        &format!("pkcs11:token=keys?pin-value={PIN}"),
    )
}

#[test]
fn kp_02_tpm_key_pairs() {
    alone("tpm::kp_02_tpm_key_pairs", &Backend::Tpm, |fixture| {
        step(fixture, |token| {
            assert!(token.key_pair(Some("missing")).unwrap().is_none());
        });
        for algorithm in [Algorithm::EcP256, Algorithm::EcP384] {
            step(fixture, |token| {
                let pair = token
                    .generate_key_pair(Some(algorithm.name()), algorithm)
                    .unwrap();
                for len in [0, 20, 32, 48, 64] {
                    let digest = vec![0x5a; len];
                    assert_signed(&pair, &digest, &pair.sign_ecdsa(&digest).unwrap());
                }
            });
        }
        // DigestInfo of a SHA-256 digest.
        let mut info = vec![
            0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20,
        ];
        info.extend([7; 32]);
        step(fixture, |token| {
            let pair = token
                .generate_key_pair(Some("rsa"), Algorithm::Rsa2048)
                .unwrap();
            let signature = pair.rsa_private(RsaPadding::Pkcs1, &info).unwrap();
            assert_rsa(&pair, &info, &signature);
            assert_eq!(
                pair.rsa_private(RsaPadding::None, &padded(&info, 256))
                    .unwrap(),
                signature
            );
        });
        step(fixture, |token| {
            // swtpm has no RSA beyond 3072 bits.
            let err = token
                .generate_key_pair(Some("long"), Algorithm::Rsa4096)
                .unwrap_err();
            assert!(err.to_string().contains("C_GenerateKeyPair"), "{err}");
            assert!(token.key_pair(Some("long")).unwrap().is_none());
        });
        step(fixture, |token| {
            assert!(token.delete_key_pair("rsa").unwrap());
            assert!(token.key_pair(Some("rsa")).unwrap().is_none());
            assert!(token.key_pair(Some("ec-p256")).unwrap().is_some());
        });
    });
}

#[test]
fn kp_07_tpm_moves() {
    alone("tpm::kp_07_tpm_moves", &Backend::Tpm, |fixture| {
        let make = |label: &'static str| {
            step(fixture, |token| {
                token
                    .generate_key_pair(Some(label), Algorithm::EcP256)
                    .unwrap()
                    .sign_ecdsa(&[1; 32])
                    .unwrap()
            })
        };
        let (from, to) = (make("from"), make("to"));
        step(fixture, |token| {
            token.rename_key_pair("missing", "to").unwrap_err();
            token.rename_key_pair("from", "from").unwrap();
            assert_signed(&token.key_pair(Some("to")).unwrap().unwrap(), &[1; 32], &to);
            token.rename_key_pair("from", "to").unwrap();
        });
        step(fixture, |token| {
            let pair = token.key_pair(Some("to")).unwrap().unwrap();
            assert_signed(&pair, &[1; 32], &from);
            assert_signed(&pair, &[2; 32], &pair.sign_ecdsa(&[2; 32]).unwrap());
            assert!(token.key_pair(Some("from")).unwrap().is_none());
        });
    });
}

/// This module has no symmetric keys: both are to be kept elsewhere, and a failed import is not a broken token.
#[test]
fn kp_04_tpm_symmetric_keys_are_kept_elsewhere() {
    alone(
        "tpm::kp_04_tpm_symmetric_keys_are_kept_elsewhere",
        &Backend::Tpm,
        |fixture| {
            step(fixture, |token| {
                for usage in [USAGE_SIGN, USAGE_ENCRYPT] {
                    let err = token.generate_secret(Some("k"), usage).unwrap_err();
                    assert!(err.is_unsupported(), "{err}");
                    let err = token.import_secret(Some("i"), &[1; 32], usage).unwrap_err();
                    assert!(err.is_refused_import(), "{err}");
                }
                assert!(token.secret_key(Some("k")).unwrap().is_none());
                assert!(!token.delete_secret("k").unwrap());
            });
            assert_eq!(fixture.count("C_Initialize"), 1);
        },
    );
}

#[test]
fn a_tpm_that_is_restarted_works_again() {
    alone(
        "tpm::a_tpm_that_is_restarted_works_again",
        &Backend::Tpm,
        |fixture| {
            let token = tpm_token(fixture);
            let pair = token
                .generate_key_pair(Some("p"), Algorithm::EcP256)
                .unwrap();
            pair.sign_ecdsa(&[1; 32]).unwrap();
            fixture.calls();
            Restarted::end(&std::env::var("PKCS11_TEST_TPM").unwrap());
            for _ in 0..2 {
                pair.sign_ecdsa(&[1; 32]).unwrap_err();
                assert!(matches!(token.state().condition, Condition::Failing(_)));
                std::thread::sleep(Duration::from_millis(400));
            }
            let _restarted = Restarted::start(fixture);
            assert_signed(&pair, &[1; 32], &pair.sign_ecdsa(&[1; 32]).unwrap());
            assert_eq!(token.state().condition, Condition::Working);
            assert!(fixture.count("C_Initialize") >= 1);
        },
    );
}
