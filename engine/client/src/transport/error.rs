//! Why an exchange with a peer gave no response.

use std::fmt;
use std::io;

/// What kind of failure it was. Callers decide by it; people read the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection ended before a complete response. Nothing at all came if `answered` is false, as from a service
    /// that closes connections above its limit.
    Closed {
        /// Whether a part of a response had come.
        answered: bool,
    },
    /// The response breaks the protocol or a limit.
    InvalidData,
    /// No connection could be made: name resolution, connect or TLS handshake failed.
    NotConnected,
    /// The connection broke in another way.
    Other,
    /// A deadline passed.
    TimedOut,
    /// The peer's TLS certificate is not trusted.
    Untrusted,
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Turning a name into addresses.
    Resolve,
    /// Making the connection.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Sending the request.
    Send,
    /// Receiving the response.
    Receive,
}

/// An exchange that gave no response.
#[derive(Clone, Debug)]
pub struct Error {
    peer: String,
    step: Step,
    kind: Kind,
    reason: String,
    /// The peer did not read the whole request.
    unread: bool,
}

impl Error {
    /// A failure in `step` of an exchange with `peer`, for this reason.
    pub fn new(peer: &str, step: Step, kind: Kind, reason: impl Into<String>) -> Self {
        Self {
            peer: peer.to_owned(),
            step,
            kind,
            reason: reason.into(),
            unread: false,
        }
    }

    /// An operating system error in `step`. `answered` tells whether a part of the response had come.
    #[must_use]
    pub fn io(peer: &str, step: Step, error: &io::Error, answered: bool) -> Self {
        use io::ErrorKind as E;
        let kind = match (error.kind(), step) {
            (E::TimedOut, _) => Kind::TimedOut,
            (_, Step::Resolve | Step::Connect | Step::Handshake) => Kind::NotConnected,
            (E::BrokenPipe | E::ConnectionReset | E::ConnectionAborted | E::UnexpectedEof, _) => {
                Kind::Closed { answered }
            }
            _ => Kind::Other,
        };
        let reason = if kind == Kind::TimedOut {
            "deadline has elapsed".to_owned()
        } else {
            error.to_string()
        };
        Self::new(peer, step, kind, reason)
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was being done.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The same, where the peer is known not to have read the whole request.
    pub(super) fn unread(self) -> Self {
        Self {
            unread: true,
            ..self
        }
    }

    /// Whether the peer cannot have carried the request out, because it never had all of it. Sending it again is safe then,
    /// whatever it asks for.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.unread || matches!(self.step, Step::Resolve | Step::Connect | Step::Handshake)
    }

    /// Whether it speaks of the way to the peer and not of the peer (identity-service 8.4).
    #[must_use]
    pub fn is_network(&self) -> bool {
        matches!(
            self.kind,
            Kind::NotConnected | Kind::TimedOut | Kind::Untrusted
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, reason, .. } = self;
        match self.step {
            Step::Resolve => write!(f, "could not look up the address of {peer}: {reason}")?,
            Step::Connect => write!(f, "could not connect to {peer}: {reason}")?,
            Step::Handshake if self.kind == Kind::Untrusted => {
                write!(f, "the TLS certificate of {peer} is not trusted: {reason}")?;
            }
            Step::Handshake => write!(f, "TLS handshake with {peer} failed: {reason}")?,
            Step::Send => write!(f, "could not send the request to {peer}: {reason}")?,
            Step::Receive => write!(f, "no usable response from {peer}: {reason}")?,
        }
        match (self.step, self.kind) {
            (Step::Resolve, _) => write!(f, "; check the host name and the DNS settings"),
            (_, Kind::Untrusted) => write!(
                f,
                "; check the clock, and install the issuing CA certificate in the system trust store or name it in \
                 SSL_CERT_FILE"
            ),
            (_, Kind::Closed { answered: false }) => {
                write!(
                    f,
                    "; the peer may be restarting or have too many connections of this user open (max_requests)"
                )
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hc_04_kinds() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let timeout = io::Error::from(io::ErrorKind::TimedOut);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let kind = |step, error| Error::io("p", step, error, false).kind();
        assert_eq!(kind(Step::Connect, &refused), Kind::NotConnected);
        assert_eq!(kind(Step::Handshake, &reset), Kind::NotConnected);
        assert_eq!(kind(Step::Receive, &timeout), Kind::TimedOut);
        assert_eq!(kind(Step::Connect, &timeout), Kind::TimedOut);
        assert_eq!(
            kind(Step::Receive, &reset),
            Kind::Closed { answered: false }
        );
        let text = Error::io("keyd.sock", Step::Receive, &timeout, false).to_string();
        assert!(
            text.contains("deadline has elapsed") && text.contains("keyd.sock"),
            "{text}"
        );
        assert!(Error::io("p", Step::Connect, &refused, false).is_network());
        assert!(!Error::io("p", Step::Receive, &reset, true).is_network());
    }
}
