//! TLS handshakes of a server whose key is in the Keys Service, beside the same server with the same key in a file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::client;
use crate::load::{Figures, Loaded, Subject};
use crate::measure::{CONNECTIONS, Plan, TURNS};
use crate::process::Command;
use crate::root::Root;
use crate::table::{Goal, Table, Unit};

/// The plug-ins, and how the server's program names a key through them.
const WAYS: [(&str, &str); 2] = [
    ("provider", "aziot-keys:handle="),
    ("engine", "engine:aziot_keys:"),
];

/// Handshakes with the key in a file, through the provider, and through the engine.
pub fn tls(plan: &Plan, table: &mut Table) -> Result<(), String> {
    let root = Root::new()?;
    let keyd = Subject::service(plan, &root, "keyd")?;
    let body = r#"{"keyId":"bench-tls","preferredAlgorithms":"ec-p256"}"#;
    let handle = client::handle(&keyd.socket, "/keypair", body)?;
    plug_in(plan, &root)?;
    let file = key_file(&root)?;
    certify(&root, &file)?;

    let in_file = serve(plan, &root, "file", text(&file)?)?;
    let mut servers = Vec::new();
    for (way, prefix) in WAYS {
        let key = format!("{prefix}{handle}");
        servers.push((way, serve(plan, &root, way, &key)?));
    }
    for connections in [1, CONNECTIONS] {
        let load = Load {
            plan,
            root: &root,
            keyd: &keyd,
            connections,
        };
        let mut floor = Vec::new();
        let mut ours = [const { Vec::new() }; WAYS.len()];
        load.turn(&in_file)?;
        for _ in 0..TURNS {
            floor.push(load.turn(&in_file)?);
            for ((_, server), figures) in servers.iter().zip(&mut ours) {
                figures.push(load.turn(server)?);
            }
        }
        let floor = Figures::median(&floor);
        for ((way, _), figures) in servers.iter().zip(&ours) {
            report(table, way, connections, &floor, &Figures::median(figures));
        }
    }
    Ok(())
}

fn report(table: &mut Table, way: &str, connections: u32, floor: &Figures, ours: &Figures) {
    let what = format!(
        "TLS 1.3 handshakes, P-256 key of the service by the {way}, {connections} at a time"
    );
    let mut figure = |name: &str, unit, of: fn(&Figures) -> f64| {
        let name = format!("{what}: {name}");
        table.figure(&name, unit, &Goal::None, Some(of(floor)), of(ours));
    };
    figure("rate", Unit::PerSecond, |f| f.rate);
    if connections == 1 {
        figure("p50", Unit::Microseconds, |f| f.p50);
    } else {
        figure("CPU of server and service", Unit::Microseconds, |f| f.cpu);
    }
}

/// A load of handshakes.
struct Load<'a> {
    plan: &'a Plan,
    root: &'a Root,
    keyd: &'a Subject,
    connections: u32,
}

impl Load<'_> {
    fn turn(&self, server: &Subject) -> Result<Figures, String> {
        let spent = || {
            let time = server.process.cpu_time()? + self.keyd.process.cpu_time()?;
            Ok::<_, String>(time)
        };
        let before = spent()?;
        let output = std::process::Command::new("taskset")
            .args(["--cpu-list", &self.plan.cores.load.to_string()])
            .arg(&self.plan.tls)
            .arg("load")
            .arg(&server.socket)
            .arg(self.root.file("tls.pem"))
            .args([self.plan.seconds.to_string(), self.connections.to_string()])
            .output()
            .map_err(|e| format!("taskset: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{said}{errors}{}", server.process.log_end()));
        }
        let loaded = Loaded::parse(&said)?;
        let spent = spent()?.saturating_sub(before);
        if loaded.requests == 0 {
            return Err("not one handshake was done in time".into());
        }
        Ok(Figures {
            rate: loaded.rate,
            cpu: spent.as_secs_f64() * 1e6 / loaded.requests as f64,
            p50: loaded.p50,
            p95: loaded.p95,
            p99: loaded.p99,
        })
    }
}

/// Puts the shared objects where OpenSSL looks for them.
fn plug_in(plan: &Plan, root: &Root) -> Result<(), String> {
    for (directory, name) in [
        ("engines", "libaziot_key_openssl_engine_shared.so"),
        ("modules", "libaziot_keys_provider_shared.so"),
    ] {
        let from = plan.programs.join(name);
        let from = from
            .canonicalize()
            .map_err(|e| format!("{}: {e}; made by `make release`", from.display()))?;
        let directory = root.file(directory);
        fs::create_dir(&directory)
            .and_then(|()| symlink(from, directory.join("aziot_keys.so")))
            .map_err(|e| format!("{}: {e}", directory.display()))?;
    }
    Ok(())
}

/// The file in which the service keeps the pair.
fn key_file(root: &Root) -> Result<PathBuf, String> {
    let keys = root.file("var/lib/aziot/keyd/keys");
    let entries = fs::read_dir(&keys).map_err(|e| format!("{}: {e}", keys.display()))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("benchtls-"))
        .map(|entry| entry.path())
        .ok_or_else(|| format!("{}: the key pair is not there", keys.display()))
}

/// Makes the certificate, with the key from its file.
fn certify(root: &Root, key: &Path) -> Result<(), String> {
    let output = std::process::Command::new("openssl")
        .args(["req", "-x509", "-new", "-subj", "/CN=bench", "-days", "2"])
        .arg("-key")
        .arg(key)
        .arg("-out")
        .arg(root.file("tls.pem"))
        .output()
        .map_err(|e| format!("openssl req: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("openssl req: {errors}"))
}

/// A server on the server's core, with as many threads as there are connections.
fn serve(plan: &Plan, root: &Root, name: &str, key: &str) -> Result<Subject, String> {
    let socket = root.file(&format!("tls-{name}.sock"));
    let command = Command::new(&plan.tls, &root.file(&format!("tls-{name}.log")))
        .argument("serve")
        .argument(&socket)
        .argument(root.file("tls.pem"))
        .argument(key)
        .argument("0")
        .argument(CONNECTIONS.to_string())
        .variable("AZIOT_ROOT", root.file(""))
        .variable("OPENSSL_ENGINES", root.file("engines"))
        .variable("OPENSSL_MODULES", root.file("modules"))
        .variable("OPENSSL_CONF", "/dev/null")
        .core(Some(plan.cores.server));
    Subject::start(&command, &format!("the TLS server, {name}"), socket)
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str()
        .ok_or_else(|| "the temporary directory's name is not UTF-8".into())
}
