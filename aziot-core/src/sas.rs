//! Shared access signatures: the tokens by which a device shows that it holds a symmetric key (identity-service 7).
//!
//! ```text
//! SharedAccessSignature sr=<resource>&sig=<signature>&se=<expiry>[&skn=registration]
//! ```
//!
//! The signature is an HMAC-SHA256 over `<resource> LF <expiry>`, made elsewhere: by the Keys Service or a TPM. A token is
//! good for [`LIFETIME`] seconds only, so make a new one for every attempt of a request.

use core::fmt;

use crate::base64;
use crate::handle::MAC_SIZE;
use crate::id::{DeviceId, HubName, RegistrationId, ScopeId};
use crate::output::{BufferFull, Output};
use crate::percent::Set;
use crate::time::UnixTime;

/// Seconds from making a token to its expiry.
pub const LIFETIME: u64 = 30;

/// What a token gives access to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience<'a> {
    /// A device at its hub: `<hub>/devices/<device>`. The hub is the real one, also behind a parent gateway.
    Device {
        /// The hub's host name, with its port if it is configured with one.
        hub: HubName<'a>,
        /// The device.
        device: DeviceId<'a>,
    },
    /// A registration at the Device Provisioning Service: `<scope>/registrations/<registration>`.
    Registration {
        /// The id scope.
        scope: ScopeId<'a>,
        /// The registration.
        registration: RegistrationId<'a>,
    },
}

impl Audience<'_> {
    /// Appends the resource: the audience in lower case, percent-encoded.
    fn put(&self, out: &mut Output<'_>) {
        let parts = match self {
            Self::Device { hub, device } => [hub.as_str(), "/devices/", device.as_str()],
            Self::Registration {
                scope,
                registration,
            } => [scope.as_str(), "/registrations/", registration.as_str()],
        };
        for letter in parts
            .iter()
            .flat_map(|part| part.chars())
            .flat_map(char::to_lowercase)
        {
            let mut utf8 = [0; 4];
            write!(
                out,
                "{}",
                Set::AUDIENCE.encode(letter.encode_utf8(&mut utf8))
            );
        }
    }
}

/// A token that lacks its signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SasToken<'o> {
    /// Resource, line feed, expiry.
    to_sign: &'o str,
    /// Length of the resource.
    resource: usize,
    key_name: Option<&'static str>,
}

impl<'o> SasToken<'o> {
    /// Prepares a token for `audience` that expires [`LIFETIME`] seconds from `now`. The text to sign is written to `out`.
    ///
    /// # Errors
    /// `out` is too small; 512 bytes are enough for all ids that the services accept.
    pub fn new(
        audience: Audience<'_>,
        now: UnixTime,
        out: &'o mut [u8],
    ) -> Result<Self, BufferFull> {
        let mut out = Output::new(out);
        audience.put(&mut out);
        let resource = out.len();
        write!(out, "\n{}", now.saturating_add(LIFETIME).as_secs());
        let key_name = match audience {
            Audience::Device { .. } => None,
            Audience::Registration { .. } => Some("registration"),
        };
        Ok(Self {
            to_sign: out.finish_str()?,
            resource,
            key_name,
        })
    }

    /// The bytes whose HMAC-SHA256 is the signature.
    pub const fn to_sign(&self) -> &'o [u8] {
        self.to_sign.as_bytes()
    }

    /// Writes the whole token, the value of an `authorization` header, to `out`.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write<'w>(
        &self,
        signature: &[u8; MAC_SIZE],
        out: &'w mut [u8],
    ) -> Result<&'w str, BufferFull> {
        let (resource, expiry) = self
            .to_sign
            .split_at_checked(self.resource)
            .unwrap_or_default();
        let mut text = [0; base64::encoded_len(MAC_SIZE)];
        let signature = base64::encode(signature, &mut text)?;
        let mut out = Output::new(out);
        write!(
            out,
            "SharedAccessSignature sr={resource}&sig={}&se={}",
            Set::FORM.encode(signature),
            expiry.trim_start(),
        );
        if let Some(name) = self.key_name {
            write!(out, "&skn={name}");
        }
        out.finish_str()
    }
}

/// How far the clock of this device is off, by the `Date` of a service that refused a token.
///
/// Its text belongs into the error that the user sees: a token of [`LIFETIME`] seconds needs a good clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ClockOff {
    /// The device is ahead by so many seconds.
    Ahead(u64),
    /// The device is behind by so many seconds.
    Behind(u64),
}

impl ClockOff {
    /// Seconds of difference that the way of an answer explains.
    pub const TOLERANCE: u64 = 5;

    /// Compares the time here with a service's `date`; none if they agree.
    pub const fn compare(now: UnixTime, date: UnixTime) -> Option<Self> {
        let (ahead, behind) = (now.since(date), date.since(now));
        if ahead > Self::TOLERANCE {
            Some(Self::Ahead(ahead))
        } else if behind > Self::TOLERANCE {
            Some(Self::Behind(behind))
        } else {
            None
        }
    }
}

impl fmt::Display for ClockOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, direction) = match self {
            Self::Ahead(seconds) => (seconds, "ahead of"),
            Self::Behind(seconds) => (seconds, "behind"),
        };
        write!(
            f,
            "the clock of this device is {seconds} seconds {direction} the service's; set it and try again"
        )
    }
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;
    use crate::percent;

    fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    fn device<'a>(hub: &'a str, device: &'a str) -> Audience<'a> {
        Audience::Device {
            hub: HubName::new(hub).unwrap(),
            device: DeviceId::new(device).unwrap(),
        }
    }

    fn registration<'a>(scope: &'a str, registration: &'a str) -> Audience<'a> {
        Audience::Registration {
            scope: ScopeId::new(scope).unwrap(),
            registration: RegistrationId::new(registration).unwrap(),
        }
    }

    fn token(audience: Audience<'_>, expiry: u64, key: &[u8]) -> String {
        let (mut text, mut out) = ([0; 512], [0; 512]);
        let now = UnixTime::from_secs(expiry - LIFETIME).unwrap();
        let token = SasToken::new(audience, now, &mut text).unwrap();
        token
            .write(&hmac(key, token.to_sign()), &mut out)
            .unwrap()
            .to_owned()
    }

    const MOCK_KEY: &[u8] = b"mock-iot-provision\n";
    const KEY: &[u8] = b"aziot-identity-service|aziot-ide";

    #[test]
    fn is_43_tokens() {
        for (audience, expiry, key, expected) in [
            (
                registration("0ne000ABCDE", "Mock-Dev"),
                1_795_289_379,
                MOCK_KEY,
                "SharedAccessSignature sr=0ne000abcde/registrations/mock-dev&sig=D4tuR2KtZ0uZB61Fb88CJVf7vLA3oHqJcUvCdlCVDUs%3D&se=1795289379&skn=registration",
            ),
            (
                device("localhost:8443", "Dev=1"),
                1_795_289_384,
                MOCK_KEY,
                "SharedAccessSignature sr=localhost:8443/devices/dev%3D1&sig=yTlnvC0SFDfZSabwdzX6bfnIw%2FezE71oyBJiepvWwBs%3D&se=1795289384",
            ),
            (
                registration("0ab1234C5D6", "my-device"),
                1_700_000_030,
                KEY,
                "SharedAccessSignature sr=0ab1234c5d6/registrations/my-device&sig=EiiZ7QIa6PXwNV8je5OT9NjVvrFeW2k44CR14Okk%2F7w%3D&se=1700000030&skn=registration",
            ),
            (
                device("example.azure-devices.net", "my-device"),
                1_700_000_030,
                KEY,
                "SharedAccessSignature sr=example.azure-devices.net/devices/my-device&sig=39Hi1CJmKLWT%2BWU2w9210afr5SxuvtSEL3tYBBkf2U8%3D&se=1700000030",
            ),
            (
                device("example.azure-devices.net", "my-device"),
                1_700_000_010,
                KEY,
                "SharedAccessSignature sr=example.azure-devices.net/devices/my-device&sig=MpHIym7WuIc94Cqgm5%2FdfcNosNOpVSP5mXDeiim1%2BRU%3D&se=1700000010",
            ),
            (
                device("Example.Azure-Devices.NET", "My Dev=1{é}#?"),
                1_700_000_030,
                KEY,
                "SharedAccessSignature sr=example.azure-devices.net/devices/my%20dev%3D1%7B%C3%A9%7D%23%3F&sig=Cu7NQqSabXMTwb0OWuiGwY6kxzw6LMlJ2itqKmkjDk4%3D&se=1700000030",
            ),
        ] {
            assert_eq!(token(audience, expiry, key), expected);
        }
    }

    #[test]
    fn is_43_messages_to_sign() {
        for (audience, expiry, message) in [
            (
                registration("0ne000ABCDE", "Mock-Dev"),
                1_795_289_379,
                "MG5lMDAwYWJjZGUvcmVnaXN0cmF0aW9ucy9tb2NrLWRldgoxNzk1Mjg5Mzc5",
            ),
            (
                device("localhost:8443", "Dev=1"),
                1_795_289_384,
                "bG9jYWxob3N0Ojg0NDMvZGV2aWNlcy9kZXYlM0QxCjE3OTUyODkzODQ=",
            ),
        ] {
            let mut text = [0; 128];
            let now = UnixTime::from_secs(expiry - LIFETIME).unwrap();
            let token = SasToken::new(audience, now, &mut text).unwrap();
            assert_eq!(Base64::encode_string(token.to_sign()), message);
        }
    }

    #[test]
    fn ids_that_would_change_the_token_are_encoded() {
        let text = token(device("h", "a%41&sig=b+c"), LIFETIME, KEY);
        assert!(
            text.starts_with("SharedAccessSignature sr=h/devices/a%2541%26sig%3Db%2Bc&sig="),
            "{text}"
        );
    }

    #[test]
    fn is_43_group_derived_device_keys() {
        let group = Base64::decode_vec(
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
        )
        .unwrap();
        for (key, id, derived) in [
            (
                &group[..],
                "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
                "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=",
            ),
            (
                &group,
                "my-device",
                "WzAkt5GwqYWFpFrbk3L9aXm6JGAXD0rn4cXlWKGRCpc=",
            ),
            (
                &group,
                "My-Device",
                "bY89rJ726sHEUrDompOb0PG0/Uw92p+VP7ybSBry/uY=",
            ),
            (
                KEY,
                "my-device",
                "+3z3M+Co8lZQwgG/1/U3Nt2vIm71uiNBCUzALWPnCw0=",
            ),
        ] {
            let id = RegistrationId::new(id).unwrap();
            assert_eq!(
                Base64::encode_string(&hmac(key, id.as_str().as_bytes())),
                derived
            );
        }
    }

    #[test]
    fn a_wrong_clock_is_named() {
        let at = |seconds| UnixTime::from_secs(seconds).unwrap();
        assert_eq!(ClockOff::compare(at(105), at(100)), None);
        assert_eq!(ClockOff::compare(at(95), at(100)), None);
        assert_eq!(
            ClockOff::compare(at(106), at(100)),
            Some(ClockOff::Ahead(6))
        );
        assert_eq!(
            ClockOff::compare(at(0), at(3600)).unwrap().to_string(),
            "the clock of this device is 3600 seconds behind the service's; set it and try again"
        );
    }

    #[test]
    fn small_buffers() {
        assert_eq!(
            SasToken::new(device("h", "d"), UnixTime::EPOCH, &mut [0; 12]),
            Err(BufferFull)
        );
        let mut text = [0; 14];
        let token = SasToken::new(device("h", "d"), UnixTime::EPOCH, &mut text).unwrap();
        assert!(token.write(&[0; 32], &mut [0; 60]).is_err());
    }

    proptest! {
        #[test]
        fn resource_decodes_to_the_audience(id in "\\PC{1,40}") {
            prop_assume!(DeviceId::new(&id).is_ok());
            let mut text = vec![0; 1024];
            let token = SasToken::new(device("Hub", &id), UnixTime::EPOCH, &mut text).unwrap();
            let (resource, expiry) = token.to_sign.split_once('\n').unwrap();
            let decoded: Vec<u8> = percent::decode(resource, percent::Plus::Plus).collect();
            let lower: String = format!("Hub/devices/{id}").chars().flat_map(char::to_lowercase).collect();
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), lower);
            prop_assert_eq!(expiry, "30");
        }
    }
}
