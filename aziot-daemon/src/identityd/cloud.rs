//! Requests to the cloud: attempts, pauses, tokens; and IoT Hub made of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aziot_core::config::identityd::Settings;
use aziot_core::hub;
use aziot_core::id::{DeviceId, HubName, ModuleId};
use aziot_core::retry::{self, Answer, Attempt, Attempts, GaveUp, NetworkCause, Next, Policy};
use aziot_core::sas::{Audience, SasToken};
use aziot_core::time::UnixTime;
use zeroize::Zeroizing;

use super::device::Device;
use super::error::{Class, Error};
use super::hub::{Failure, Hub, Kind, Module, ModuleKeys};
use super::link::Sign;
use super::tools::Tools;
use super::{Event, clock, random};
use crate::client::{self, Request, Response};
use crate::lanes::Done;

/// Room for a request target: two ids and the rest, every byte of an id encoded.
const TARGET: usize = 2048;

/// Room for a request body about a module.
const BODY: usize = 2048;

/// Room for the text that a token signs, and for the token.
const TOKEN: usize = 2048;

/// Who is asked, and as whom.
pub struct Peer<'p> {
    /// Host, and port if there is one.
    pub authority: &'p str,
    /// What tokens are made out to.
    pub audience: Audience<'p>,
    /// Id of the key that signs them.
    pub key: &'p str,
    /// The class of errors with this peer.
    pub class: Class,
    /// Told how each attempt went.
    pub observe: &'p dyn Fn(Sign),
}

/// One request, for all its attempts.
pub struct Message<'m> {
    /// HTTP method.
    pub method: &'m str,
    /// Path and query.
    pub target: &'m str,
    /// A header field beside those that every request has.
    pub header: Option<(&'m str, &'m str)>,
    /// JSON body.
    pub body: Option<&'m [u8]>,
}

/// Why there is no response.
pub enum NoResponse {
    /// No attempt got one.
    GaveUp(GaveUp, Error),
    /// The request was not sent.
    Local(Error),
    /// It was not sent, because the clock is not set.
    Clock(Error),
}

impl NoResponse {
    /// What it means for what comes next.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::GaveUp(gave_up, error) => Failure {
                kind: if gave_up.is_network() {
                    Kind::Network
                } else {
                    Kind::Other
                },
                error,
            },
            Self::Local(error) => Failure::local(error),
            // As far as the cloud goes it is the same as having no network, and passes by itself.
            Self::Clock(error) => Failure {
                kind: Kind::Network,
                error,
            },
        }
    }
}

/// Makes a request until it is answered or given up. Every attempt carries a new token.
///
/// # Errors
/// See [`NoResponse`].
pub fn send(
    tools: &Tools,
    peer: &Peer<'_>,
    policy: Policy,
    message: &Message<'_>,
) -> Result<Response, NoResponse> {
    let begin = Instant::now();
    let scale = tools.timing.scale;
    let mut attempts = Attempts::new(policy);
    loop {
        let result = attempt(tools, peer, policy, message)?;
        let ended = match &result {
            Ok(response) => {
                if let Some(date) = response.date {
                    tools.note_time(date);
                }
                Attempt::Answered {
                    status: response.status,
                    retry_after: response.retry_after,
                }
            }
            Err(error) => Attempt::Failed(failure(error)),
        };
        if let Some(sign) = sign(peer.class, &result) {
            (peer.observe)(sign);
        }
        // The schedule is that of the protocol; where time is scaled for tests, so is what has passed.
        let elapsed = begin.elapsed().div_f64(scale);
        match (attempts.after(ended, elapsed, random()), result) {
            (Next::UseAnswer, Ok(response)) => return Ok(response),
            (Next::Pause(pause), result) => {
                match &result {
                    Err(error) => log::warn!("{pause}; {error}"),
                    Ok(_) => log::warn!("{pause}"),
                }
                std::thread::sleep(pause.length.mul_f64(scale));
            }
            (Next::GiveUp(gave_up), result) => {
                let error = match result {
                    Err(error) => {
                        log::warn!(
                            "Failed to send HTTP request (attempt {} of {}): {error}",
                            attempts.number(),
                            policy.retries.saturating_add(1)
                        );
                        Error::because(peer.class, error)
                    }
                    // A single attempt: being asked for patience is no loss.
                    Ok(_) if policy.total.is_zero() => Error::because(peer.class, gave_up),
                    Ok(_) => {
                        log::warn!(
                            "Final HTTP request throttled (attempt {0} of {0}).",
                            retry::THROTTLED_ATTEMPTS
                        );
                        let error = Error::because(peer.class, gave_up);
                        let cause = NetworkCause::NoAnswer(gave_up);
                        (peer.observe)(Sign::Lost {
                            cause,
                            error: error.clone(),
                            untrusted: false,
                        });
                        error
                    }
                };
                return Err(NoResponse::GaveUp(gave_up, error));
            }
            (Next::UseAnswer, Err(error)) => {
                return Err(NoResponse::GaveUp(
                    GaveUp::Failed(failure(&error)),
                    Error::because(peer.class, error),
                ));
            }
        }
    }
}

fn attempt(
    tools: &Tools,
    peer: &Peer<'_>,
    policy: Policy,
    message: &Message<'_>,
) -> Result<Result<Response, client::Error>, NoResponse> {
    let token = token(tools, peer)?;
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(message.header);
    let request = Request {
        method: message.method,
        host: peer.authority,
        target: message.target,
        headers: &headers,
        body: message.body,
    };
    Ok(tools.tls.attempt(
        peer.authority,
        &request,
        policy.timeout.mul_f64(tools.timing.scale),
    ))
}

/// Signs a token with the device's key, which stays where it is.
fn token(tools: &Tools, peer: &Peer<'_>) -> Result<Zeroizing<String>, NoResponse> {
    if !tools.clock_is_plausible() {
        return Err(NoResponse::Clock(clock_error(tools, peer.class)));
    }
    let keys = |error: client::KeysError| {
        let error = Error::because(
            Class::Keys,
            format_args!(
                "could not sign for {} with key {:?}",
                peer.authority, peer.key
            ),
        )
        .caused_by(error);
        NoResponse::Local(error)
    };
    let long = |_| {
        NoResponse::Local(Error::because(
            peer.class,
            "the ids of this device are too long for a token",
        ))
    };
    let handle = tools.keys.load_key(peer.key).map_err(keys)?;
    let mut text = [0; TOKEN];
    // The time is read as late as possible: the token lives for seconds.
    let token = SasToken::new(peer.audience, unix_time(clock::now()), &mut text).map_err(long)?;
    let signature = tools
        .keys
        .sign_hmac(&handle, token.to_sign())
        .map_err(keys)?;
    let mut out = Zeroizing::new([0; TOKEN]);
    token
        .write(&signature, out.as_mut_slice())
        .map(|token| Zeroizing::new(token.to_owned()))
        .map_err(long)
}

/// What is said while the clock is not set.
#[must_use]
pub fn clock_error(tools: &Tools, class: Class) -> Error {
    let earliest = aziot_core::time::UnixTime::from_secs(tools.earliest_time()).unwrap_or_default();
    Error::because(
        class,
        format_args!(
            "the clock of this device is not set (it cannot be before {}); waiting for it, because tokens would be refused",
            earliest.rfc3339()
        ),
    )
}

/// Times that the calendar does not reach count as its end.
fn unix_time(seconds: u64) -> UnixTime {
    UnixTime::from_secs(seconds).unwrap_or(UnixTime::MAX)
}

fn failure(error: &client::Error) -> retry::Failure {
    match error.kind() {
        client::Kind::NotConnected => retry::Failure::NotConnected,
        client::Kind::Untrusted => retry::Failure::NotTrusted,
        client::Kind::TimedOut => retry::Failure::TimedOut,
        client::Kind::Closed { .. } | client::Kind::InvalidData | client::Kind::Other => {
            retry::Failure::Broken
        }
    }
}

/// What an attempt shows about the way to the peer. An exchange that breaks off shows nothing.
fn sign(class: Class, result: &Result<Response, client::Error>) -> Option<Sign> {
    match result {
        Ok(response) if response.status == 429 => Some(Sign::Throttled {
            retry_after: response.retry_after,
        }),
        Ok(response) if retry::is_network_status(response.status) => Some(Sign::Lost {
            cause: NetworkCause::Status(response.status),
            error: Error::because(class, format_args!("HTTP error {}", response.status_line())),
            untrusted: false,
        }),
        Ok(_) => Some(Sign::Reached),
        Err(error) if error.is_network() => Some(Sign::Lost {
            cause: NetworkCause::NoAnswer(GaveUp::Failed(failure(error))),
            error: Error::because(class, error),
            untrusted: error.kind() == client::Kind::Untrusted,
        }),
        Err(_) => None,
    }
}

/// IoT Hub, asked as one device.
pub struct CloudHub {
    tools: Arc<Tools>,
    device: Arc<Device>,
    policy: Policy,
    events: Done<Event>,
}

impl CloudHub {
    /// The hub of `device`. Signs of how the way to it is go to `events`.
    #[must_use]
    pub fn new(
        tools: Arc<Tools>,
        settings: &Settings,
        device: Arc<Device>,
        events: Done<Event>,
    ) -> Self {
        let policy = Policy::cloud(
            settings.cloud_retries,
            Duration::from_secs(settings.cloud_timeout_sec),
        );
        Self {
            tools,
            device,
            policy,
            events,
        }
    }

    /// The same, but giving up after one attempt, even if the hub only asks for patience.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.policy.retries = 0;
        self.policy.total = Duration::ZERO;
        self
    }

    fn ids<'d>(&'d self, module: &'d str) -> Result<(DeviceId<'d>, ModuleId<'d>), Failure> {
        Ok((self.device_id()?, ModuleId::new(module).map_err(unusable)?))
    }

    fn device_id(&self) -> Result<DeviceId<'_>, Failure> {
        DeviceId::new(&self.device.id).map_err(unusable)
    }

    /// Makes a request and lets `read` make something of the answer.
    fn call<T>(
        &self,
        request: &hub::Request<'_>,
        read: impl FnOnce(Answer<'_>) -> Result<T, hub::Error<'_>>,
    ) -> Result<T, Failure> {
        let audience = Audience::Device {
            hub: HubName::new(&self.device.hub).map_err(unusable)?,
            device: self.device_id()?,
        };
        let mut target = [0; TARGET];
        let target = request.write_target(&mut target).map_err(unusable)?;
        let mut body = Zeroizing::new([0; BODY]);
        let body = request.write_body(body.as_mut_slice()).map_err(unusable)?;
        let peer = Peer {
            authority: &self.device.gateway,
            audience,
            key: &self.device.key,
            class: Class::Hub,
            // Whether the hub was reached is only known when the body was read: a gateway may have answered for it.
            observe: &|sign| {
                if sign != Sign::Reached {
                    self.events.send(Event::Link(sign));
                }
            },
        };
        let message = Message {
            method: request.method(),
            target,
            header: request.header(),
            body,
        };
        let mut response =
            send(&self.tools, &peer, self.policy, &message).map_err(NoResponse::into_failure)?;
        let (status, date) = (response.status, response.date);
        let mut failure = match read(response.answer()) {
            Ok(value) => {
                self.events.send(Event::Link(Sign::Reached));
                return Ok(value);
            }
            Err(error) => {
                let kind = if error.is_network() {
                    Kind::Network
                } else if error.is_not_found() {
                    Kind::NotFound
                } else if status >= 400 {
                    Kind::Refused(status)
                } else {
                    Kind::Other
                };
                Failure::hub(kind, error)
            }
        };
        if status == 401
            && let Some(hint) = clock::skew_hint(clock::now(), date)
        {
            failure.error = failure.error.caused_by(hint);
        }
        if failure.kind == Kind::Network {
            // A gateway that answers for a hub it has lost.
            let cause = if retry::is_network_status(status) {
                NetworkCause::Status(status)
            } else {
                NetworkCause::Gateway
            };
            self.events.send(Event::Link(Sign::Lost {
                cause,
                error: failure.error.clone(),
                untrusted: false,
            }));
        } else {
            self.events.send(Event::Link(Sign::Reached));
        }
        Err(failure)
    }
}

fn unusable(error: impl std::fmt::Display) -> Failure {
    Failure::hub(Kind::Other, error)
}

impl Hub for CloudHub {
    fn create(&self, module: &str) -> Result<Module, Failure> {
        let (device, module) = self.ids(module)?;
        self.call(&hub::Request::Create { device, module }, |answer| {
            hub::module(answer).map(Module::from)
        })
    }

    fn set_keys(&self, module: &str, keys: &ModuleKeys) -> Result<Module, Failure> {
        let (device, module) = self.ids(module)?;
        let request = hub::Request::SetKeys {
            device,
            module,
            keys: &keys.keys,
        };
        self.call(&request, |answer| hub::module(answer).map(Module::from))
    }

    fn module(&self, module: &str) -> Result<Module, Failure> {
        let (device, module) = self.ids(module)?;
        self.call(&hub::Request::Get { device, module }, |answer| {
            hub::module(answer).map(Module::from)
        })
    }

    fn modules(&self) -> Result<Vec<Module>, Failure> {
        let device = self.device_id()?;
        self.call(&hub::Request::List { device }, |answer| {
            hub::Modules::new(answer)?
                .map(|module| module.map(Module::from))
                .collect()
        })
    }

    fn delete(&self, module: &str) -> Result<(), Failure> {
        let (device, module) = self.ids(module)?;
        self.call(&hub::Request::Delete { device, module }, hub::deleted)
            .map_err(|failure| match failure.kind {
                // What clients of this call have always been told.
                Kind::NotFound => {
                    Failure::hub(Kind::NotFound, "unexpected HTTP status code: 404 Not Found")
                }
                _ => failure,
            })
    }
}
