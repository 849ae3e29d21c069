//! The simulator: the Device Provisioning Service (DPS), IoT Hub and an EST server on one TLS port of the loopback interface.
//!
//! It is strict. Every request of the daemon is held against what the daemon has to send: the HTTP head, the
//! api-version, the encoding of the path, the shared access signature down to its canonical form, the members of
//! the body, and the time it was told to wait. A deviation is a *violation*: the request is refused as the real
//! service would refuse it, or with 400, and [`Simulator::violations`] lists it. A wrong key, an unknown device or a
//! conflict is no violation: the operator or the situation brings it about, and the log tells the reason.
//!
//! It misbehaves on command, see [`Fault`]. It has state (enrolments, groups, devices, modules) that tests fill and
//! inspect, here or through the control interface ([`control::HELP`]).
//!
//! Beside the daemon's requests there is one for its clients: `POST /devices/{d}/messages/events` and
//! `POST /devices/{d}/modules/{m}/messages/events` (any api-version, any body, any HTTP client) take the token of a
//! device or module, whose resource is `hub/devices/d[/modules/m]`, check its signature against the keys that the
//! hub has, and answer 204. Such a token may be valid for a day.
//!
//! Clients are asked for a certificate; only EST looks at it.
//!
//! Not simulated: TPM and X.509 attestation, twins, MQTT and AMQP.

pub mod clock;
pub mod control;
pub mod dps;
pub mod est;
pub mod fault;
pub mod http;
pub mod hub;
pub mod journal;
pub mod route;
pub mod server;
pub mod service;
pub mod settings;
pub mod token;
pub mod world;

use core::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

pub use self::fault::{Action, CannedResponse, Fault};
pub use self::journal::{Entry, Violation};
pub use self::settings::{
    Config, Early, Enrolment, Framing, Key, NewDevice, NewModule, Outcome, Settings,
};
pub use self::world::{Device, Keys, Module};

use self::control::{Control, Target};
use self::server::{Certificates, Listener, Shared, WorldGuard};
use self::world::World;
use crate::pki::{self, Authority, ServerNames, Validity};

/// A running simulator; dropping it ends it and all its connections.
pub struct Simulator {
    /// Ends with the simulator.
    _control: Option<Control>,
    listener: Arc<Mutex<Listener>>,
    shared: Arc<Shared>,
    shutdown: Arc<(Mutex<bool>, Condvar)>,
    directory: PathBuf,
    scope_id: String,
    port: u16,
}

impl Simulator {
    /// Makes the certificates and starts to listen.
    ///
    /// # Errors
    /// When the directory, a certificate or a socket cannot be made.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let directory = &config.directory;
        fs::create_dir_all(directory)
            .map_err(|error| StartError::Directory(directory.clone(), error))?;
        let certificates = make_certificates(directory, &config.names)?;
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))
            .map_err(|error| StartError::Listen(config.port, error))?;
        let port = socket
            .local_addr()
            .map_err(|error| StartError::Listen(config.port, error))?
            .port();
        let with_port = |name: &String| {
            let name = name.to_lowercase();
            if name.contains(':') {
                name
            } else {
                format!("{name}:{port}")
            }
        };
        let own = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let own_hosts = own.iter().chain(&config.names).map(with_port).collect();
        let gateways = config.gateways.iter().map(with_port).collect();
        let world = World::new(
            config.settings,
            config.scope_id.clone(),
            own_hosts,
            gateways,
            est::Authorities::open(directory)?,
        );
        let shared = Arc::new(Shared::new(world, certificates, config.verbose));
        let listener = Listener::start(Arc::clone(&shared), socket)
            .map_err(|error| StartError::Listen(port, error))?;
        let listener = Arc::new(Mutex::new(listener));
        let shutdown = Arc::new((Mutex::new(false), Condvar::new()));
        let control = config.control.as_ref().map(|path| {
            let asked = Arc::clone(&shutdown);
            let target = Target {
                shared: Arc::clone(&shared),
                listener: Arc::clone(&listener),
                shutdown: Box::new(move || {
                    *asked.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    asked.1.notify_all();
                }),
            };
            Control::start(path, target).map_err(|error| StartError::Control(path.clone(), error))
        });
        Ok(Self {
            _control: control.transpose()?,
            listener,
            shared,
            shutdown,
            directory: config.directory,
            scope_id: config.scope_id,
            port,
        })
    }

    /// The TCP port, which stays the same while the simulator lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The trust anchor in PEM, for `SSL_CERT_FILE`.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// The host name (with port) of the hub that is assigned unless an enrolment names another.
    #[must_use]
    pub fn hub(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The DPS endpoint for `global_endpoint`.
    #[must_use]
    pub fn dps_endpoint(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    /// The DPS id scope.
    #[must_use]
    pub fn scope_id(&self) -> &str {
        &self.scope_id
    }

    /// Adds or replaces an individual enrolment.
    pub fn add_enrolment(&self, registration_id: &str, enrolment: Enrolment) {
        self.world()
            .enrolments
            .insert(registration_id.to_owned(), enrolment);
    }

    /// Adds or replaces an enrolment group.
    ///
    /// # Errors
    /// When it names a device id.
    pub fn add_group(&self, id: &str, group: Enrolment) -> Result<(), String> {
        self.world().add_group(id, group)
    }

    /// Adds a device, or gives an existing one new keys.
    pub fn add_device(&self, id: &str, device: NewDevice) {
        self.world().add_device(id, device);
    }

    /// Adds a module, or makes it anew, as another tool would.
    ///
    /// # Errors
    /// When the device does not exist.
    pub fn add_module(&self, device: &str, id: &str, module: NewModule) -> Result<(), String> {
        let now = self.shared.clock.millis();
        self.world().add_module(device, id, module, now)
    }

    /// A copy of a device of the simulator's own hub.
    #[must_use]
    pub fn device(&self, id: &str) -> Option<Device> {
        self.world().device(&self.hub(), id).cloned()
    }

    /// A copy of a module of a device of the simulator's own hub.
    #[must_use]
    pub fn module(&self, device: &str, id: &str) -> Option<Module> {
        self.device(device)?.modules.remove(id)
    }

    /// Removes a device from the simulator's own hub; false if it was not there.
    pub fn remove_device(&self, id: &str) -> bool {
        self.world().remove_device(None, id)
    }

    /// Removes a module from the simulator's own hub; false if it was not there.
    pub fn remove_module(&self, device: &str, id: &str) -> bool {
        self.world().remove_module(None, device, id)
    }

    /// The base URL of an EST realm.
    #[must_use]
    pub fn est_url(&self, realm: &str) -> String {
        format!("https://localhost:{}/{realm}", self.port)
    }

    /// Adds or replaces an EST realm.
    pub fn set_realm(&self, path: &str, realm: est::Realm) {
        self.world().est.realms.insert(path.to_owned(), realm);
    }

    /// What EST has issued, oldest first.
    #[must_use]
    pub fn issued(&self) -> Vec<est::Issued> {
        self.world().est.issued.clone()
    }

    /// Waits until EST has issued `count` certificates in all; false if it has not within `timeout`.
    #[must_use]
    pub fn wait_for_issued(&self, count: usize, timeout: Duration) -> bool {
        self.shared
            .wait_until(timeout, |world| world.est.issued.len() >= count)
    }

    /// Adds a fault behind those that wait.
    ///
    /// # Errors
    /// When it makes no sense, see [`Fault::check`].
    pub fn add_fault(&self, fault: Fault) -> Result<(), String> {
        fault.check()?;
        self.world().faults.add(fault);
        Ok(())
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.world().faults.clear();
    }

    /// Changes how the services behave.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.world().settings);
    }

    /// Shifts the services' time to `seconds` ahead of the system clock (negative: behind).
    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.clock.set_skew(seconds);
    }

    /// The requests after number `since` (0 for all), oldest first.
    #[must_use]
    pub fn log_since(&self, since: u64) -> Vec<Entry> {
        self.world().journal.entries_since(since).cloned().collect()
    }

    /// The number of the last request.
    #[must_use]
    pub fn last_request(&self) -> u64 {
        self.world().journal.last_number()
    }

    /// Waits until there are `count` requests after number `since`; false if there are not within `timeout`.
    #[must_use]
    pub fn wait_for_requests(&self, since: u64, count: u64, timeout: Duration) -> bool {
        self.shared.wait_until(timeout, |world| {
            world.journal.last_number() >= since + count
        })
    }

    /// What deviated from what the daemon has to send, oldest first.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.world().journal.violations().to_vec()
    }

    /// Forgets the violations.
    pub fn clear_violations(&self) {
        self.world().journal.clear_violations();
    }

    /// How many connections were accepted, and how many of them failed in TLS.
    #[must_use]
    pub fn connection_counts(&self) -> (u64, u64) {
        self.shared.connection_counts()
    }

    /// An outage: ends all connections and refuses new ones. The port stays ours.
    ///
    /// # Errors
    /// When the port cannot be kept.
    pub fn stop_listening(&self) -> io::Result<()> {
        self.listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .close()
    }

    /// Ends an outage.
    ///
    /// # Errors
    /// When the port cannot be listened on.
    pub fn listen_again(&self) -> io::Result<()> {
        self.listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reopen()
    }

    /// Waits until somebody asks over the control interface to end the program; without one, forever.
    pub fn wait_for_shutdown(&self) {
        self.shutdown_waiter().wait();
    }

    /// What [`Self::wait_for_shutdown`] waits for, for other threads to wait for or to bring about.
    #[must_use]
    pub fn shutdown_waiter(&self) -> ShutdownWaiter {
        ShutdownWaiter(Arc::clone(&self.shutdown))
    }

    /// The state, locked: no request is served meanwhile.
    pub fn world(&self) -> WorldGuard<'_> {
        self.shared.world()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Not left to the listener's own drop: a control request in progress may hold on to it.
        self.listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shut_down();
    }
}

/// The wish to end the program.
#[derive(Clone)]
pub struct ShutdownWaiter(Arc<(Mutex<bool>, Condvar)>);

impl ShutdownWaiter {
    /// Asks for the end.
    pub fn ask(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until somebody asks for the end.
    pub fn wait(&self) {
        let asked = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_while(asked, |asked| !*asked);
        drop(waited);
    }
}

/// Why a simulator could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The certificates could not be made or written.
    Certificates(pki::Error),
    /// The control socket could not be made.
    Control(PathBuf, io::Error),
    /// The directory could not be made.
    Directory(PathBuf, io::Error),
    /// The port could not be listened on.
    Listen(u16, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificates(error) => write!(f, "could not make the certificates: {error}"),
            Self::Control(path, error) => {
                write!(
                    f,
                    "could not make the control socket {}: {error}",
                    path.display()
                )
            }
            Self::Directory(path, error) => {
                write!(
                    f,
                    "could not make the directory {}: {error}",
                    path.display()
                )
            }
            Self::Listen(port, error) => {
                write!(
                    f,
                    "could not listen on 127.0.0.1:{port}: {error}; port 0 takes a free one"
                )
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<pki::Error> for StartError {
    fn from(error: pki::Error) -> Self {
        Self::Certificates(error)
    }
}

fn make_certificates(directory: &Path, names: &[String]) -> Result<Certificates, pki::Error> {
    let good = ServerNames {
        dns: core::iter::once("localhost".to_owned())
            .chain(names.iter().cloned())
            .collect(),
        ip: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    };
    let other = ServerNames {
        dns: vec!["other.invalid".to_owned()],
        ip: Vec::new(),
    };
    let authority = Authority::open(directory, "aziot simulator CA")?;
    let stranger = Authority::new("aziot simulator CA that nobody trusts")?;
    let year = Validity::days_from_now(-1, 365);
    let trusted = authority.issue_server(&good, year)?;
    trusted.write(directory, "server")?;
    let past = authority.issue_server(&good, Validity::days_from_now(-30, -1))?;
    Ok(Certificates {
        trusted: Certificates::acceptor(&trusted)?,
        untrusted: Certificates::acceptor(&stranger.issue_server(&good, year)?)?,
        expired: Certificates::acceptor(&past)?,
        wrong_name: Certificates::acceptor(&authority.issue_server(&other, year)?)?,
    })
}
