//! Every deadline, debounce and back-off of the daemon, in one structure.

use std::time::Duration;

/// The time limits of the daemon. The values are those of DESIGN and of the specification; tests that need a ten-minute
/// back-off to pass in seconds build with the feature `test-timing` and set `AZIOT_TIME_SCALE`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the first byte of a request head, or from accepting the connection, to its end.
    pub head: Duration,
    /// A kept-alive connection without any byte of a further request.
    pub idle: Duration,
    /// A request body, from the end of the head to its last byte (408 afterwards).
    pub body: Duration,
    /// A response that the client does not read.
    pub write: Duration,
    /// What an orderly stop grants to running requests.
    pub stop: Duration,
    /// After `accept` failed for want of descriptors or memory.
    pub accept_pause: Duration,
    /// Quiet time after the last change of a configuration file before it is read again.
    pub reload: Duration,
    /// After which an unused worker thread ends.
    pub worker_idle: Duration,
    /// A request to a sibling service, per attempt.
    pub sibling: Duration,
    /// Pause before a failed request is tried again.
    pub retry_pause: Duration,
    /// How long requests that need the device identity are held while the first provisioning attempt runs.
    pub held: Duration,
    /// How long a key handle from the Keys Service may be reused.
    pub handle_reuse: Duration,
    /// How long the first request after a loss of the hub waits for it.
    pub hub_probe: Duration,
    /// An enrolment at an EST server as a whole, from the request for it or from its own beginning.
    pub enrolment: Duration,
    /// How long the key library may take to tell about its keys and tokens. Those that work answer in milliseconds.
    pub report: Duration,
    /// Factor on seconds that protocols ask for: pauses between polls, throttling, back-off.
    pub scale: f64,
}

impl Timing {
    /// The values of a packaged build.
    pub const STANDARD: Self = Self {
        head: Duration::from_secs(30),
        idle: Duration::from_secs(60),
        body: Duration::from_secs(5),
        write: Duration::from_secs(30),
        stop: Duration::from_secs(5),
        accept_pause: Duration::from_millis(100),
        reload: Duration::from_secs(1),
        worker_idle: Duration::from_secs(10),
        sibling: Duration::from_secs(30),
        retry_pause: Duration::from_secs(3),
        held: Duration::from_secs(120),
        handle_reuse: Duration::from_secs(1),
        hub_probe: Duration::from_secs(2),
        enrolment: Duration::from_secs(60),
        report: Duration::from_secs(5),
        scale: 1.0,
    };

    /// The values in force: the standard ones, scaled by `AZIOT_TIME_SCALE` in builds for tests.
    #[must_use]
    pub fn from_env() -> Self {
        #[cfg(feature = "test-timing")]
        {
            let scale = std::env::var("AZIOT_TIME_SCALE")
                .ok()
                .and_then(|v| v.parse::<f64>().ok())
                .filter(|v| *v > 0.0 && v.is_finite());
            if let Some(scale) = scale {
                return Self::STANDARD.scaled(scale);
            }
        }
        Self::STANDARD
    }

    /// A pause of whole seconds as a protocol asks for it.
    #[must_use]
    pub fn seconds(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).mul_f64(self.scale)
    }

    #[cfg(feature = "test-timing")]
    fn scaled(self, by: f64) -> Self {
        let s = |d: Duration| d.mul_f64(by);
        Self {
            head: s(self.head),
            idle: s(self.idle),
            body: s(self.body),
            write: s(self.write),
            stop: s(self.stop),
            accept_pause: s(self.accept_pause),
            reload: s(self.reload),
            worker_idle: s(self.worker_idle),
            sibling: s(self.sibling),
            retry_pause: s(self.retry_pause),
            held: s(self.held),
            handle_reuse: s(self.handle_reuse),
            hub_probe: s(self.hub_probe),
            enrolment: s(self.enrolment),
            report: s(self.report),
            scale: by,
        }
    }
}
