//! `make demo`: the main job for a newcomer, end to end, in a throw-away root.
//!
//! A device gets its identity from a simulated DPS, a module gets one from a simulated IoT Hub, and a token for it is signed
//! with a key that never leaves the Keys Service. With another one, a program of others authenticates itself in TLS, and gets a
//! certificate from a simulated EST server, where the device renews its own. Then the
//! cloud goes away, and then the key is wrong. Every step is printed, checked and timed; the exit status is non-zero if one
//! failed; nothing is left behind.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aziot_tests::simulator::{Config, Enrolment, Key, Simulator};
use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

#[path = "demo/est.rs"]
mod est;
#[path = "demo/mutual_tls.rs"]
mod mutual_tls;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long anything here may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n  FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Outcome<()> {
    let place = tempfile::Builder::new().prefix("aziot-demo-").tempdir()?;
    let device = Device::new(place.path())?;
    let mut rows = Vec::new();

    heading("1. A cloud to talk to");
    let simulator = Simulator::start(Config::new(place.path().join("cloud")))?;
    let group_key = b"the key of the enrolment group  ".to_vec();
    simulator.add_group("gateways", Enrolment::new(Key::from(group_key.clone())))?;
    say(&format!(
        "a simulated DPS and IoT Hub listen with TLS on port {}; DPS has a group enrolment, id scope {}",
        simulator.port(),
        simulator.scope_id()
    ));

    heading("2. The super-config, and `aziotctl config apply`");
    let registration = "gateway-7";
    let device_key = hmac(&group_key, registration.as_bytes());
    let super_config = super_config(&simulator, registration, &device_key);
    show(&super_config, &Base64::encode_string(&device_key));
    fs::write(device.super_config(), &super_config)?;
    let started = Instant::now();
    let applied =
        device.aziotctl(&["config", "apply", "-c", path_text(&device.super_config())?])?;
    quote(&applied);
    rows.push((
        "aziotctl config apply".to_owned(),
        millis(started.elapsed()),
    ));

    mutual_tls::permit(&device)?;
    est::permit(&device, &simulator)?;

    heading("3. The services");
    let keyd = device.start("aziot-keyd", &simulator)?;
    rows.push((
        "keyd: start to answering".to_owned(),
        millis(keyd.ready_after),
    ));
    let identityd = device.start("aziot-identityd", &simulator)?;
    rows.push((
        "identityd: start to listening".to_owned(),
        millis(identityd.ready_after),
    ));
    say("aziot-keyd and aziot-identityd listen on Unix sockets below the root");

    heading("4. The device gets its identity");
    let started = Instant::now();
    let identity = device.get("identityd", "/identities/identity?api-version=2021-12-01")?;
    let provisioned = started.elapsed();
    let hub = text(&identity, "/spec/hubName")?;
    let device_id = text(&identity, "/spec/deviceId")?;
    say(&format!(
        "GET /identities/identity -> device {device_id} at hub {hub}, after {}",
        millis(provisioned)
    ));
    say("the answer holds a handle of the device's key, not the key");
    rows.push(("provisioned by DPS after".to_owned(), millis(provisioned)));

    heading("5. A module gets an identity of its own");
    let module = device.post(
        "identityd",
        "/identities/modules?api-version=2021-12-01",
        &json!({"type": "aziot", "moduleId": "camera"}),
    )?;
    let module_id = text(&module, "/spec/moduleId")?;
    say(&format!(
        "POST /identities/modules -> module {module_id}, created at the hub"
    ));
    if simulator.module(&device_id, &module_id).is_none() {
        return Err("the hub does not have the module".into());
    }

    heading("6. A token, signed by the Keys Service, accepted by the hub");
    let token = device.token(&module, &hub, &device_id, &module_id)?;
    say(&format!(
        "POST /sign with the module's handle -> {}",
        shortened(&token)
    ));
    let status = send_event(&simulator, &device_id, &module_id, &token)?;
    say(&format!(
        "the hub checks the HMAC of the token and answers {status}"
    ));
    expect(status == 204, "the hub does not accept the token")?;
    let forged = token.replace("sig=", "sig=AA");
    let status_forged = send_event(&simulator, &device_id, &module_id, &forged)?;
    say(&format!(
        "with a changed signature it answers {status_forged}"
    ));
    expect(status_forged == 401, "the hub accepts a forged token")?;
    let memory = [("keyd", keyd.memory()?), ("identityd", identityd.memory()?)];

    heading("7. Mutual TLS with a key that never leaves the Keys Service");
    let (took, csr) = mutual_tls::show(&device)?;
    rows.push((
        "mutual TLS, with the program's start".to_owned(),
        millis(took),
    ));

    heading("8. A certificate from an EST server, and an identity that renews itself");
    let certd = device.start("aziot-certd", &simulator)?;
    let took = est::show(&device, &certd, &simulator, &csr)?;
    rows.push((
        "certificate from EST, with the first identity".to_owned(),
        millis(took),
    ));
    certd.stop()?;

    heading("9. The cloud goes away, the services restart");
    identityd.stop()?;
    keyd.stop()?;
    simulator.stop_listening()?;
    let keyd = device.start("aziot-keyd", &simulator)?;
    let started = Instant::now();
    let identityd = device.start("aziot-identityd", &simulator)?;
    let again = device.get("identityd", "/identities/identity?api-version=2021-12-01")?;
    let offline = started.elapsed();
    expect(
        text(&again, "/spec/deviceId")? == device_id,
        "another identity than before",
    )?;
    say(&format!(
        "the same identity is served from the backup, {} after the start of the process",
        millis(offline)
    ));
    expect(offline < Duration::from_secs(1), "that took too long")?;
    rows.push(("offline: start to identity".to_owned(), millis(offline)));
    let module = device.get(
        "identityd",
        "/identities/modules/camera?api-version=2021-12-01&type=aziot",
    )?;
    let token = device.token(&module, &hub, &device_id, &module_id)?;
    say("its modules can sign, too; the token will do when the hub is back");
    simulator.listen_again()?;
    expect(
        send_event(&simulator, &device_id, &module_id, &token)? == 204,
        "the token made offline is refused",
    )?;
    identityd.stop()?;
    keyd.stop()?;

    heading("10. A wrong key, and what the user is told");
    let wrong = Device::new(&place.path().join("wrong"))?;
    let wrong_config =
        self::super_config(&simulator, "gateway-8", b"not the key that belongs to it  ");
    fs::write(wrong.super_config(), wrong_config)?;
    wrong.aziotctl(&["config", "apply", "-c", path_text(&wrong.super_config())?])?;
    let keyd = wrong.start("aziot-keyd", &simulator)?;
    let identityd = wrong.start("aziot-identityd", &simulator)?;
    let refused = wrong.exchange(
        "identityd",
        "GET",
        "/identities/identity?api-version=2021-12-01",
        None,
    )?;
    say(&format!(
        "GET /identities/identity -> {} {}",
        refused.0, refused.1
    ));
    expect(refused.0 == 400, "an identity without a key")?;
    let complaint = identityd.log_line("gateway-8")?;
    say("and the log of aziot-identityd says:");
    quote(&complaint);
    identityd.stop()?;
    keyd.stop()?;

    let violations = simulator.violations();
    expect(
        violations.is_empty(),
        &format!("the simulator objects to what it was sent: {violations:?}"),
    )?;

    rows.insert(
        0,
        (
            "token accepted by the hub".to_owned(),
            "yes (HMAC checked)".to_owned(),
        ),
    );
    rows.insert(0, ("module identity".to_owned(), module_id));
    rows.insert(0, ("hub".to_owned(), hub));
    rows.insert(0, ("device id".to_owned(), device_id));
    for (name, memory) in memory {
        rows.push((format!("{name}: memory"), memory));
    }
    table(&rows);
    Ok(())
}

/// A device in a root of its own. The programs are those in the directory that the first argument names, or beside this one.
struct Device {
    root: PathBuf,
    binaries: PathBuf,
}

impl Device {
    fn new(place: &Path) -> Outcome<Self> {
        let root = place.join("device");
        for service in ["keyd", "certd", "identityd", "tpmd"] {
            fs::create_dir_all(root.join("etc/aziot").join(service).join("config.d"))?;
        }
        fs::create_dir_all(root.join("run/aziot"))?;
        let binaries = match std::env::args_os().nth(1) {
            // Absolute, because the services get it as a place to search for the key library.
            Some(directory) => fs::canonicalize(directory)?,
            None => std::env::current_exe()?
                .parent()
                .ok_or("this program has no directory")?
                .to_owned(),
        };
        for name in ["aziotd", "aziotctl", "libaziot_keys.so"] {
            if !binaries.join(name).exists() {
                return Err(format!("{name} is not built: run `make demo`").into());
            }
        }
        Ok(Self { root, binaries })
    }

    fn super_config(&self) -> PathBuf {
        self.root.join("etc/aziot/config.toml")
    }

    fn aziotctl(&self, arguments: &[&str]) -> Outcome<String> {
        say(&format!(
            "$ aziotctl {}",
            arguments.join(" ").replace(path_text(&self.root)?, "")
        ));
        let output = Command::new(self.binaries.join("aziotctl"))
            .args(arguments)
            .env("AZIOT_ROOT", &self.root)
            .stdin(Stdio::null())
            .output()?;
        let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
        told.push_str(&String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("aziotctl failed: {told}").into());
        }
        Ok(told.replace(path_text(&self.root)?, ""))
    }

    fn start(&self, name: &str, simulator: &Simulator) -> Outcome<Service> {
        let log = self.root.join(format!("{name}.log"));
        let started = Instant::now();
        let child = Command::new(self.binaries.join("aziotd"))
            .arg(name)
            .env("AZIOT_ROOT", &self.root)
            .env("LD_LIBRARY_PATH", &self.binaries)
            .env("SSL_CERT_FILE", simulator.ca_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut service = Service {
            name: name.to_owned(),
            child,
            log,
            ready_after: Duration::ZERO,
        };
        let socket = self.socket(name.trim_start_matches("aziot-"));
        while UnixStream::connect(&socket).is_err() {
            if started.elapsed() > PATIENCE || service.child.try_wait()?.is_some() {
                return Err(format!(
                    "{name} does not start:\n{}",
                    fs::read_to_string(&service.log)?
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        service.ready_after = started.elapsed();
        Ok(service)
    }

    fn socket(&self, service: &str) -> PathBuf {
        self.root.join(format!("run/aziot/{service}.sock"))
    }

    fn get(&self, service: &str, target: &str) -> Outcome<Value> {
        self.successful(service, "GET", target, None)
    }

    fn post(&self, service: &str, target: &str, body: &Value) -> Outcome<Value> {
        self.successful(service, "POST", target, Some(body))
    }

    fn successful(
        &self,
        service: &str,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Outcome<Value> {
        let (status, answer) = self.exchange(service, method, target, body)?;
        if !matches!(status, 200 | 201) {
            return Err(format!("{method} {target} -> {status} {answer}").into());
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn exchange(
        &self,
        service: &str,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Outcome<(u16, String)> {
        let mut stream = UnixStream::connect(self.socket(service))?;
        stream.set_read_timeout(Some(PATIENCE * 3))?;
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nhost: {service}.sock\r\nconnection: close\r\n");
        if let Some(body) = body {
            let body = body.to_string();
            write!(
                request,
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
        } else {
            request.push_str("\r\n");
        }
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no complete answer")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or("no status")?;
        Ok((status, body.to_owned()))
    }

    /// A shared access signature for a module: the text is ours, the signature comes from the Keys Service.
    fn token(&self, module: &Value, hub: &str, device: &str, id: &str) -> Outcome<String> {
        let resource = encoded(&format!("{hub}/devices/{device}/modules/{id}"));
        let expiry = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs()
            + 3600;
        let message = Base64::encode_string(format!("{resource}\n{expiry}").as_bytes());
        let request = json!({
            "keyHandle": text(module, "/spec/auth/keyHandle")?,
            "algorithm": "HMAC-SHA256",
            "parameters": {"message": message},
        });
        let answer = self.post("keyd", "/sign?api-version=2021-05-01", &request)?;
        let signature = encoded(&text(&answer, "/signature")?);
        Ok(format!(
            "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"
        ))
    }
}

/// A running service; killed if it is not stopped.
struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    ready_after: Duration,
}

impl Service {
    fn memory(&self) -> Outcome<String> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let of = |name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let (resident, proportional) = (of("Rss:").unwrap_or(0), of("Pss:").unwrap_or(0));
        Ok(format!(
            "{resident} kB resident, {proportional} kB proportional"
        ))
    }

    /// Waits for a line with `part` in the service's log, warnings and errors only.
    fn log_line(&self, part: &str) -> Outcome<String> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let text = fs::read_to_string(&self.log)?;
            let is_complaint = |line: &&str| {
                line.contains(part) && (line.contains("[WARN]") || line.contains("[ERR!]"))
            };
            if let Some(line) = text.lines().find(is_complaint) {
                return Ok(line.to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!(
            "the log of {} says nothing about {part}:\n{}",
            self.name,
            fs::read_to_string(&self.log)?
        )
        .into())
    }

    fn stop(mut self) -> Outcome<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!(
                "{} ended with {status}:\n{}",
                self.name,
                fs::read_to_string(&self.log)?
            )
            .into());
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn super_config(simulator: &Simulator, registration: &str, key: &[u8]) -> String {
    format!(
        "hostname = \"{registration}\"\n\n[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"{}\"\nid_scope = \"{}\"\n\n\
         [provisioning.attestation]\nmethod = \"symmetric_key\"\nregistration_id = \"{registration}\"\nsymmetric_key = {{ \
         value = \"{}\" }}\n",
        simulator.dps_endpoint(),
        simulator.scope_id(),
        Base64::encode_string(key)
    )
}

/// Sends a message to the hub as the module, with its token; the answer's status.
fn send_event(simulator: &Simulator, device: &str, module: &str, token: &str) -> Outcome<u16> {
    let mut builder = openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls_client())?;
    builder.set_ca_file(simulator.ca_path())?;
    let stream = std::net::TcpStream::connect(("127.0.0.1", simulator.port()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = builder.build().connect("localhost", stream)?;
    let body = "{\"temperature\":21}";
    let target =
        format!("/devices/{device}/modules/{module}/messages/events?api-version=2020-09-30");
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nhost: localhost:{}\r\nauthorization: {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        simulator.port(),
        body.len()
    )?;
    let mut answer = Vec::new();
    // The peer may end the connection without a TLS goodbye; what came before counts.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| "no answer from the hub".into())
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length (RFC 2104).
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!());
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn text(value: &Value, pointer: &str) -> Outcome<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(ToOwned::to_owned)
        .ok_or_else(|| format!("no {pointer} in {value}").into())
}

fn expect(condition: bool, otherwise: &str) -> Outcome<()> {
    if condition {
        Ok(())
    } else {
        Err(otherwise.into())
    }
}

fn path_text(path: &Path) -> Outcome<&str> {
    path.to_str()
        .ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}

fn shortened(token: &str) -> String {
    token
        .split("&sig=")
        .next()
        .map_or_else(String::new, |start| format!("{start}&sig=…"))
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn say(text: &str) {
    println!("   {text}");
}

fn quote(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("   | {line}");
    }
}

/// Shows a configuration without its key.
fn show(text: &str, secret: &str) {
    quote(&text.replace(secret, "…"));
}

fn table(rows: &[(String, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    println!();
    for (name, value) in rows {
        println!("  {name:width$}  {value}");
    }
}
