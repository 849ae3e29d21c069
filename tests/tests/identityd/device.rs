//! A device under test: the real Keys and Identity Services on a root of their own, and the simulated cloud.

use std::time::Duration;

use aziot_tests::client::{self, Client, Response, request};
use aziot_tests::daemon::{Daemon, Launch};
use aziot_tests::fixture;
use aziot_tests::root::Root;
use aziot_tests::simulator::{Config, Enrolment, Entry, NewDevice, Simulator};
use serde_json::{Value, json};

/// The device's symmetric key.
pub const KEY: &[u8] = b"aziot-identity-service|aziot-ide";

/// The device's registration id and device id.
pub const DEVICE: &str = "Dev-1";

/// Seconds of the protocols last so long in these tests.
pub const SCALE: f64 = 0.05;

/// The API version that most requests use.
pub const VERSION: &str = "2020-09-01";

/// The simulated cloud and a root with a running Keys Service.
pub struct Bench {
    pub cloud: Simulator,
    pub root: Root,
    pub keyd: Daemon,
}

/// How the device gets its identity.
#[derive(Clone, Copy)]
pub enum Source {
    Dps,
    Manual,
    None,
}

impl Bench {
    /// A cloud that knows the device, and a Keys Service that has its key.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// As [`Self::new`], with the cloud set up in another way.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let root = Root::with_keyd("");
        fixture::write_key(&root, "device-id", KEY);
        let mut config = Config::new(root.join("cloud"));
        config.settings.time_scale = SCALE;
        change(&mut config);
        let cloud = Simulator::start(config).expect("a simulator");
        cloud.add_enrolment(DEVICE, Enrolment::new(KEY));
        let keyd = Launch::service("aziot-keyd", &root)
            .time_scale(SCALE)
            .start();
        Self { cloud, root, keyd }
    }

    /// Makes the device known at the hub, as manual provisioning expects it.
    pub fn register_device(&self) {
        self.cloud.add_device(DEVICE, NewDevice::new(KEY));
    }

    /// Writes the main configuration file; `principals` and other tables follow, `top` goes before the first table.
    pub fn configure(&self, source: Source, top: &str, tables: &str) {
        let text = self.config(source, top, tables);
        self.root.write("etc/aziot/identityd/config.toml", text);
    }

    pub fn config(&self, source: Source, top: &str, tables: &str) -> String {
        let home = self.root.join("var/lib/aziot/identityd");
        let provisioning = match source {
            Source::Dps => format!(
                "source = \"dps\"\nglobal_endpoint = \"{}\"\nscope_id = \"{}\"\n[provisioning.attestation]\nmethod = \
                 \"symmetric_key\"\nregistration_id = \"{DEVICE}\"\nsymmetric_key = \"device-id\"\n",
                self.cloud.dps_endpoint(),
                self.cloud.scope_id()
            ),
            Source::Manual => format!(
                "source = \"manual\"\niothub_hostname = \"{}\"\ndevice_id = \"{DEVICE}\"\n[provisioning.authentication]\n\
                 method = \"sas\"\ndevice_id_pk = \"device-id\"\n",
                self.cloud.hub()
            ),
            Source::None => "source = \"none\"\n".to_owned(),
        };
        format!(
            "hostname = \"test\"\nhomedir = \"{}\"\n{top}\n[provisioning]\n{provisioning}\n{tables}\n",
            home.display()
        )
    }

    /// How the Identity Service is started here.
    pub fn launch(&self) -> Launch {
        Launch::service("aziot-identityd", &self.root)
            .time_scale(SCALE)
            .env("SSL_CERT_FILE", self.cloud.ca_path())
    }

    /// Starts the Identity Service.
    pub fn start(&self) -> Identityd {
        Identityd {
            daemon: self.launch().start(),
        }
    }

    /// Starts the Identity Service and waits for the end of its first provisioning attempt.
    pub fn started(&self) -> Identityd {
        let identityd = self.start();
        identityd.daemon.log().wait_for("Starting server...");
        identityd
    }

    /// Starts with this configuration and waits for a reconciled device.
    pub fn reconciled(&self, source: Source, tables: &str) -> Identityd {
        self.configure(source, "", tables);
        let identityd = self.started();
        identityd
            .daemon
            .log()
            .wait_for("Identity reconciliation complete.");
        identityd
    }

    /// A file of the service's home.
    pub fn state(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join("var/lib/aziot/identityd").join(name)).ok()
    }

    /// Requests to the cloud after number `since` over this route.
    pub fn requests(&self, since: u64, route: &str) -> Vec<Entry> {
        self.cloud
            .log_since(since)
            .into_iter()
            .filter(|entry| entry.route == route)
            .collect()
    }

    /// Everything that was sent to the cloud was as it has to be.
    pub fn assert_clean(&self) {
        let violations = self.cloud.violations();
        assert!(
            violations.is_empty(),
            "{}",
            violations
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
}

/// A running Identity Service.
pub struct Identityd {
    pub daemon: Daemon,
}

impl Identityd {
    pub fn connect(&self) -> Client {
        Client::connect(self.daemon.socket())
    }

    /// A request as the user the tests run as.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let response = self
            .connect()
            .exchange(request(method, &target(path, VERSION), body));
        response.assert_framing();
        response
    }

    /// A request as another user.
    pub fn call_as(&self, uid: u32, method: &str, path: &str, body: Option<&Value>) -> Response {
        let stream = aziot_tests::users::connect_as(uid, self.daemon.socket())
            .expect("a connection as another user");
        Client::over(stream)
            .expect("a connection")
            .exchange(request(method, &target(path, VERSION), body))
    }

    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path, None)
    }

    pub fn get_as(&self, uid: u32, path: &str) -> Response {
        self.call_as(uid, "GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.call("POST", path, Some(body))
    }

    pub fn identity(&self) -> Value {
        ok(&self.get("/identities/identity"))
    }

    pub fn module(&self, name: &str) -> Response {
        self.get(&format!("/identities/modules/{name}?type=aziot"))
    }

    pub fn create(&self, name: &str) -> Response {
        self.post(
            "/identities/modules",
            &json!({ "type": "aziot", "moduleId": name }),
        )
    }

    pub fn update(&self, name: &str) -> Response {
        self.call(
            "PUT",
            &format!("/identities/modules/{name}?type=aziot"),
            Some(&json!({})),
        )
    }

    pub fn delete(&self, name: &str) -> Response {
        self.call(
            "DELETE",
            &format!("/identities/modules/{name}?type=aziot"),
            None,
        )
    }

    pub fn reprovision(&self) -> Response {
        self.post(
            "/identities/device/reprovision",
            &json!({ "type": "aziot" }),
        )
    }

    pub fn status(&self) -> Value {
        let response = client::get(self.daemon.socket(), &target("/status", "2026-11-01"));
        ok(&response)
    }

    /// Waits until the status has this member.
    pub fn wait_for_status(&self, member: &str, value: &Value) {
        client::eventually(&format!("{member} {value}"), || {
            self.status()[member] == *value
        });
    }
}

/// A path with a query, or without one, and the version.
pub fn target(path: &str, version: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}api-version={version}")
}

/// The body of a response that must be a success.
pub fn ok(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response}");
    response.json()
}

/// A `[[principal]]`.
pub fn principal(uid: u32, name: &str, types: Option<&[&str]>) -> String {
    let types = types
        .map(|types| format!("idtype = {types:?}\n"))
        .unwrap_or_default();
    format!("[[principal]]\nuid = {uid}\nname = \"{name}\"\n{types}")
}

/// Shorter than any pause of the protocols, longer than anything local takes on a busy machine.
pub const AT_ONCE: Duration = Duration::from_secs(1);
