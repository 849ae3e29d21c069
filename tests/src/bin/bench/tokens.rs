//! Keys in a SoftHSM token: through the Keys Service, and the module called directly.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::client;
use crate::load::{Figures, Load, Loaded, Subject, median};
use crate::measure::{CONNECTIONS, Plan, TURNS};
use crate::pairs::{ecdsa, encrypt, request_file};
use crate::root::Root;
use crate::table::{Goal, Table, Unit};

/// Where distributions put the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

const TOKEN: &str = "bench";
const PIN: &str = "1234";

/// One operation, done both ways with the same key.
struct Operation {
    what: &'static str,
    /// What the C program calls it; also the label of the key.
    direct: &'static str,
    /// Path and body of the request that makes the key.
    create: (&'static str, &'static str),
    path: &'static str,
    body: fn(&str) -> String,
    /// Whether the answer is the same every time.
    repeats: bool,
}

const OPERATIONS: [Operation; 3] = [
    Operation {
        what: "sign ECDSA P-256, key in SoftHSM",
        direct: "ecdsa",
        create: (
            "/keypair",
            r#"{"keyId":"bench-ecdsa","preferredAlgorithms":"ec-p256"}"#,
        ),
        path: "/sign",
        body: ecdsa,
        repeats: false,
    },
    Operation {
        what: "sign HMAC-SHA256, key in SoftHSM",
        direct: "hmac",
        create: ("/key", r#"{"keyId":"bench-hmac","usage":"sign"}"#),
        path: "/sign",
        body: hmac,
        repeats: true,
    },
    Operation {
        what: "encrypt 1024 bytes, AES-256-GCM, key in SoftHSM",
        direct: "aes-gcm",
        create: ("/key", r#"{"keyId":"bench-aes-gcm","usage":"encrypt"}"#),
        path: "/encrypt",
        body: encrypt,
        repeats: true,
    },
];

/// Operations with keys in a token.
pub fn tokens(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let module = MODULES
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .ok_or_else(|| format!("SoftHSM is in none of {MODULES:?}; installed by `make bench`"))?;
    let root = Root::new()?;
    let configuration = token(&root, module)?;
    let command = root
        .service(plan, "keyd")
        .variable("SOFTHSM2_CONF", &configuration);
    let keyd = Subject::start(&command, "keyd", root.socket("keyd"))?;
    for operation in &OPERATIONS {
        let (path, body) = operation.create;
        let handle = client::handle(&keyd.socket, path, body)?;
        let body = (operation.body)(&handle);
        let answer = client::post(&keyd.socket, operation.path, &body)?;
        let request = request_file(&root, operation.path, &body)?;
        let many = Load {
            request: &request,
            expect: if operation.repeats { &answer } else { "" },
            ..Load::new(plan)
        };
        let one = Load {
            connections: 1,
            ..many
        };
        many.warm_up(&keyd)?;
        let (mut direct, mut single, mut eight) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            direct.push(directly(plan, module, &configuration, operation.direct)?);
            single.push(one.turn(&keyd)?);
            eight.push(many.turn(&keyd)?);
        }
        let middle =
            |of: fn(&Loaded) -> f64| median(&mut direct.iter().map(of).collect::<Vec<_>>());
        let (single, eight) = (Figures::median(&single), Figures::median(&eight));
        let what = operation.what;
        table.figure(
            &format!("{what}, 1 connection: p50 beside the module called directly"),
            Unit::Microseconds,
            &Goal::None,
            Some(middle(|direct| direct.p50)),
            single.p50,
        );
        table.figure(
            &format!("{what}, {CONNECTIONS} connections: rate beside one thread directly"),
            Unit::PerSecond,
            &Goal::None,
            Some(middle(|direct| direct.rate)),
            eight.rate,
        );
        table.figure(
            &format!("{what}, {CONNECTIONS} connections: p99 beside one thread directly"),
            Unit::Microseconds,
            &Goal::None,
            Some(middle(|direct| direct.p99)),
            eight.p99,
        );
    }
    Ok(())
}

/// Makes a token, and has the Keys Service of `root` keep the keys of the operations in it.
fn token(root: &Root, module: &Path) -> Result<std::path::PathBuf, String> {
    let (directory, configuration) = (root.file("tokens"), root.file("softhsm2.conf"));
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    fs::create_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    write(
        &configuration,
        format!("directories.tokendir = {}\n", directory.display()),
    )?;
    let output = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", TOKEN])
        .args(["--pin", PIN, "--so-pin", PIN])
        .env("SOFTHSM2_CONF", &configuration)
        .output()
        .map_err(|e| format!("softhsm2-util: {e}; installed by `make bench`"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("softhsm2-util: {text}"));
    }
    let mut text = format!(
        "[aziot_keys]\npkcs11_lib_path = \"{}\"\n\n[preloaded_keys]\n",
        module.display()
    );
    for Operation { direct: label, .. } in &OPERATIONS {
        text.push_str(&format!(
            "bench-{label} = \"pkcs11:token={TOKEN};object={label}?pin-value={PIN}\"\n"
        ));
    }
    write(&root.file("etc/aziot/keyd/config.d/token.toml"), text)?;
    Ok(configuration)
}

/// One turn of the C program.
fn directly(
    plan: &Plan,
    module: &Path,
    configuration: &Path,
    operation: &str,
) -> Result<Loaded, String> {
    let output = Command::new("taskset")
        .args(["--cpu-list", &plan.cores.server.to_string()])
        .arg(&plan.softhsm)
        .arg(module)
        .args([TOKEN, operation, operation])
        .arg(plan.seconds.to_string())
        .env("SOFTHSM2_CONF", configuration)
        .env("PIN", PIN)
        .output()
        .map_err(|e| format!("{}: {e}", plan.softhsm.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Loaded::parse(&String::from_utf8_lossy(&output.stdout))
}

/// The body of a request that makes an HMAC of `hello`.
fn hmac(handle: &str) -> String {
    format!(
        r#"{{"keyHandle":"{handle}","algorithm":"HMAC-SHA256","parameters":{{"message":"aGVsbG8="}}}}"#
    )
}
