//! How the Certificates Service stands: the answer to `GET /status`.
//!
//! Release 1.6.0 has no such route; it exists under [`STATUS_VERSION`] only.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::json::{Deferred, Error, FromJson, Reader};
use crate::{json_enum, json_input, json_object};

/// The version that adds `/status`, the same for all services.
pub use crate::api::identity::STATUS_VERSION;
/// A list to write.
pub use crate::api::keys::status::List;

/// How the service stands. `C` is a list of [`CertificateStatus`]: a [`List`] to write, whatever collection suits the reader
/// to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status<'a, C> {
    /// Whether all is well.
    pub state: State,
    /// Since when, RFC 3339.
    pub since: &'a str,
    /// What is wrong, unless all is well.
    pub reason: Option<&'a str>,
    /// When something is renewed next, or tried again, RFC 3339: the earliest of all certificates.
    pub next_attempt: Option<&'a str>,
    /// The version of the package.
    pub version: &'a str,
    /// The certificates there are, those that are configured to be preloaded, and those that are renewed.
    pub certificates: C,
    /// How many certificates were left out, because the answer would be longer than
    /// [`limits::STATUS_ENTRIES`](crate::limits::STATUS_ENTRIES) and [`limits::STATUS_TEXT`](crate::limits::STATUS_TEXT)
    /// allow.
    pub more: u32,
}

json_enum! {
    /// Whether all is well.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum State {
        /// It is, as far as is known.
        Running = "running",
        /// A certificate could not be renewed. All requests are served.
        Degraded = "degraded",
        /// The clock shows a time that cannot be, so nothing is issued or renewed.
        WaitingForTime = "waiting-for-time",
    }

    /// Where a certificate is.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum CertificateLocation {
        /// In the service's own store.
        Store = "store",
        /// In a file that the configuration names.
        Preloaded = "preloaded",
        /// In several places: its id stands for a list of ids.
        List = "list",
    }

    /// How a renewed certificate stands.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum RenewalState {
        /// It is renewed at its next time.
        Scheduled = "scheduled",
        /// It is being renewed.
        Renewing = "renewing",
        /// The last attempt failed, and another is made at its next time.
        Retrying = "retrying",
        /// The clock shows a time that cannot be. It goes on when the clock is set.
        WaitingForTime = "waiting-for-time",
        /// The last attempt failed in a way that others cannot mend; no other is made before the next reload or start.
        Dropped = "dropped",
    }
}

json_object! {
    /// A certificate in a [`Status`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CertificateStatus<'a> {
        /// Its id; none for a file in the store that was not used since the start, because its name does not tell.
        pub id: Option<&'a str> = "id",
        /// Where it is.
        pub location: CertificateLocation = "location",
        /// The path; none for a list.
        pub place: Option<&'a str> = "place",
        /// When the first certificate expires, RFC 3339; none if there is no certificate, or it cannot be read.
        pub not_after: Option<&'a str> = "notAfter",
        /// How its renewal stands; none if it is not renewed by this service.
        pub renewal: Option<RenewalState> = "renewal",
        /// When it is renewed, or tried again, RFC 3339.
        pub next_renewal: Option<&'a str> = "nextRenewal",
        /// Why it could not be renewed or read when that was tried last.
        pub last_error: Option<&'a str> = "lastError",
    }
}

impl<C: Serialize> Serialize for Status<'_, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Status", 7)?;
        object.serialize_field("state", &self.state)?;
        object.serialize_field("since", self.since)?;
        object.serialize_field("reason", &self.reason)?;
        object.serialize_field("nextAttempt", &self.next_attempt)?;
        object.serialize_field("version", self.version)?;
        object.serialize_field("certificates", &self.certificates)?;
        object.serialize_field("more", &self.more)?;
        object.end()
    }
}

impl<'a, C: FromJson<'a>> FromJson<'a> for Status<'a, C> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let members: StatusMembers<'a> = FromJson::from_json(r)?;
        let certificates = members.certificates.decode();
        Ok(Self {
            state: members.state,
            since: members.since,
            reason: members.reason,
            next_attempt: members.next_attempt,
            version: members.version,
            certificates: certificates.map_err(|error| r.place(error))?,
            more: members.more,
        })
    }
}

json_input! {
    struct StatusMembers<'a> {
        state: State = "state",
        since: &'a str = "since",
        reason: Option<&'a str> = "reason",
        next_attempt: Option<&'a str> = "nextAttempt",
        version: &'a str = "version",
        certificates: Deferred<'a> = "certificates",
        more: u32 = "more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{from_slice, to_slice};

    const CERTIFICATES: [CertificateStatus<'_>; 2] = [
        CertificateStatus {
            id: Some("est-id"),
            location: CertificateLocation::Store,
            place: Some("/var/lib/aziot/certd/certs/estid-c45f.cer"),
            not_after: Some("2026-12-21T19:32:32Z"),
            renewal: Some(RenewalState::Retrying),
            next_renewal: Some("2026-12-15T19:32:32Z"),
            last_error: Some("status 503"),
        },
        CertificateStatus {
            id: None,
            location: CertificateLocation::List,
            place: None,
            not_after: None,
            renewal: None,
            next_renewal: None,
            last_error: None,
        },
    ];

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let status = Status {
            state: State::Degraded,
            since: "2026-11-01T00:00:00Z",
            reason: Some("est-id"),
            next_attempt: Some("2026-12-15T19:32:32Z"),
            version: "1.7.0",
            certificates: List(CERTIFICATES),
            more: 1,
        };
        let mut out = [0; 1024];
        let length = to_slice(&status, &mut out).unwrap();
        assert_eq!(
            core::str::from_utf8(&out[..length]).unwrap(),
            "{\"state\":\"degraded\",\"since\":\"2026-11-01T00:00:00Z\",\"reason\":\"est-id\",\
             \"nextAttempt\":\"2026-12-15T19:32:32Z\",\"version\":\"1.7.0\",\"certificates\":[{\"id\":\"est-id\",\
             \"location\":\"store\",\"place\":\"/var/lib/aziot/certd/certs/estid-c45f.cer\",\
             \"notAfter\":\"2026-12-21T19:32:32Z\",\"renewal\":\"retrying\",\"nextRenewal\":\"2026-12-15T19:32:32Z\",\
             \"lastError\":\"status 503\"},{\"id\":null,\"location\":\"list\",\"place\":null,\"notAfter\":null,\
             \"renewal\":null,\"nextRenewal\":null,\"lastError\":null}],\"more\":1}"
        );
        let read: Status<'_, heapless::Vec<CertificateStatus<'_>, 4>> =
            from_slice(&mut out[..length]).unwrap();
        assert_eq!(&read.certificates[..], CERTIFICATES);
        assert_eq!(
            (read.state, read.reason, read.next_attempt, read.more),
            (
                status.state,
                status.reason,
                status.next_attempt,
                status.more
            )
        );
    }
}
