//! Shared access signatures: making them, and judging those that clients send.
//!
//! Written independently of `aziot_core::sas`, so that the two check each other.
//!
//! A token is `SharedAccessSignature sr=<resource>&sig=<signature>&se=<expiry>[&skn=<key name>]`. The signature is
//! HMAC-SHA256 (RFC 2104) over `<resource> LF <expiry>` as they stand in the token, in base64 and then in the
//! encoding of `application/x-www-form-urlencoded`. The expiry is in seconds since 1970.

use core::fmt;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const SCHEME: &str = "SharedAccessSignature ";

/// A token, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The resource as it stands in the token, still encoded.
    pub resource: &'a str,
    /// The decoded signature.
    pub signature: Vec<u8>,
    /// When the token ends, in seconds since 1970.
    pub expiry: i64,
    /// The expiry as it stands in the token, because that text is signed.
    pub expiry_text: &'a str,
    /// The key name, if there is one.
    pub key_name: Option<&'a str>,
}

impl<'a> Token<'a> {
    /// Takes apart a token as the daemon has to write it: members in the order `sr`, `sig`, `se`, `skn`, each once,
    /// the signature in canonical form.
    ///
    /// # Errors
    /// Says what is wrong with the form.
    pub fn parse_strict(header: &'a str) -> Result<Self, TokenError> {
        let token = Self::parse(header)?;
        let mut canonical = format!(
            "{SCHEME}sr={}&sig={}&se={}",
            token.resource,
            form_encode(&Base64::encode_string(&token.signature)),
            token.expiry
        );
        if let Some(name) = token.key_name {
            canonical.push_str("&skn=");
            canonical.push_str(name);
        }
        if canonical == header {
            Ok(token)
        } else {
            Err(TokenError::NotCanonical { canonical })
        }
    }

    /// Takes apart a token as any client may write it: members in any order.
    ///
    /// # Errors
    /// Says what is wrong with the form.
    pub fn parse(header: &'a str) -> Result<Self, TokenError> {
        let members = header.strip_prefix(SCHEME).ok_or(TokenError::Scheme)?;
        let (mut resource, mut signature, mut expiry, mut key_name) = (None, None, None, None);
        for member in members.split('&') {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut key_name,
                _ => return Err(TokenError::UnknownMember(name.to_owned())),
            };
            if slot.replace(value).is_some() {
                return Err(TokenError::Repeated(name.to_owned()));
            }
        }
        let signature = signature.ok_or(TokenError::Missing("sig"))?;
        let expiry_text = expiry.ok_or(TokenError::Missing("se"))?;
        Ok(Self {
            resource: resource.ok_or(TokenError::Missing("sr"))?,
            signature: percent_decode(signature)
                .and_then(|text| Base64::decode_vec(&text).ok())
                .ok_or(TokenError::SignatureEncoding)?,
            expiry: expiry_text.parse().map_err(|_| TokenError::ExpiryFormat)?,
            expiry_text,
            key_name,
        })
    }

    /// Checks that one of `keys` made the signature.
    ///
    /// # Errors
    /// [`TokenError::Signature`] when none did.
    pub fn verify<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<(), TokenError> {
        let good = keys
            .into_iter()
            .any(|key| signature(key, self.resource, self.expiry_text)[..] == self.signature[..]);
        if good {
            Ok(())
        } else {
            Err(TokenError::Signature)
        }
    }

    /// Checks that the token ends after `now` and at most `lifetime` seconds after it.
    ///
    /// # Errors
    /// [`TokenError::Expired`] and [`TokenError::TooLong`].
    pub fn check_expiry(&self, now: i64, lifetime: i64) -> Result<(), TokenError> {
        if self.expiry <= now {
            Err(TokenError::Expired {
                seconds: now.saturating_sub(self.expiry),
            })
        } else if self.expiry > now.saturating_add(lifetime) {
            Err(TokenError::TooLong {
                seconds: self.expiry.saturating_sub(now),
                lifetime,
            })
        } else {
            Ok(())
        }
    }
}

/// Makes a token for `audience`, which is encoded but, unlike in the daemon's own tokens, not lower-cased here.
#[must_use]
pub fn sign(key: &[u8], audience: &str, expiry: i64, key_name: Option<&str>) -> String {
    let resource = encode_audience(audience);
    let signature = signature(key, &resource, &expiry.to_string());
    let signature = form_encode(&Base64::encode_string(&signature));
    let name = key_name
        .map(|name| format!("&skn={name}"))
        .unwrap_or_default();
    format!("{SCHEME}sr={resource}&sig={signature}&se={expiry}{name}")
}

/// The key of one device of an enrolment group: HMAC-SHA256 of the registration id, exactly as written, under the
/// group's key.
#[must_use]
pub fn derive_device_key(group_key: &[u8], registration_id: &str) -> [u8; 32] {
    hmac_sha256(group_key, &[registration_id.as_bytes()])
}

/// The percent-encoding of a token's resource: controls, non-ASCII and ``space " < > ` # ? { } =`` become `%XX`, and
/// so do `%`, `&` and `+`, which would change the meaning of the token.
#[must_use]
pub fn encode_audience(audience: &str) -> String {
    percent_encode(audience, |byte| {
        byte.is_ascii_graphic() && !b"\"<>`#?{}=%&+".contains(&byte)
    })
}

/// Percent-encodes every byte that is not `kept` (RFC 3986 section 2.1, upper-case digits).
#[must_use]
pub fn percent_encode(text: &str, kept: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if kept(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Undoes percent-encoding. `None` for an incomplete escape or a result that is not UTF-8.
#[must_use]
pub fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is no token.
    Absent,
    /// The token ended this many seconds ago.
    Expired {
        /// Seconds since the end.
        seconds: i64,
    },
    /// `se` is not a decimal number.
    ExpiryFormat,
    /// The key name is not the one the service wants.
    KeyName {
        /// What the service wants.
        wanted: Option<&'static str>,
    },
    /// A member is missing.
    Missing(&'static str),
    /// The members are in another order, or encoded in another way, than the daemon has to write them.
    NotCanonical {
        /// The same token in canonical form.
        canonical: String,
    },
    /// A member appears twice.
    Repeated(String),
    /// The token is for another resource.
    Resource {
        /// What the token says.
        found: String,
        /// What the called resource needs.
        wanted: String,
    },
    /// The header does not begin with the scheme.
    Scheme,
    /// No key of the caller made this signature.
    Signature,
    /// `sig` is not base64 under percent-encoding.
    SignatureEncoding,
    /// The token is out of its time because the simulator's clock was shifted.
    Skewed(Box<Self>),
    /// The token was made for an earlier request.
    Stale {
        /// For how many seconds from now it is valid.
        left: i64,
        /// For how many a new one would be.
        lifetime: i64,
    },
    /// The token lives longer than allowed.
    TooLong {
        /// For how many seconds from now.
        seconds: i64,
        /// How many are allowed.
        lifetime: i64,
    },
    /// A member that tokens do not have.
    UnknownMember(String),
}

impl TokenError {
    /// Whether the client's code is at fault, as opposed to its key, which an operator gives it, or to the
    /// simulator's shifted clock.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        !matches!(self, Self::Signature | Self::Skewed(_))
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("header \"authorization\" is missing"),
            Self::Expired { seconds } => write!(f, "token expired {seconds} s ago"),
            Self::ExpiryFormat => f.write_str("token member se is not a decimal number"),
            Self::KeyName { wanted: Some(name) } => write!(f, "token needs skn={name}"),
            Self::KeyName { wanted: None } => f.write_str("token must not have a member skn"),
            Self::Missing(member) => write!(f, "token has no member {member}"),
            Self::NotCanonical { canonical } => {
                write!(f, "token is not in canonical form, which is {canonical:?}")
            }
            Self::Repeated(member) => write!(f, "token has member {member} twice"),
            Self::Resource { found, wanted } => {
                write!(
                    f,
                    "token is for sr={found:?}, this resource needs sr={wanted:?}"
                )
            }
            Self::Scheme => write!(f, "authorization does not begin with {SCHEME:?}"),
            Self::Signature => {
                f.write_str("token is signed with a key that the caller does not have here")
            }
            Self::SignatureEncoding => {
                f.write_str("token member sig is not percent-encoded base64")
            }
            Self::Skewed(error) => write!(f, "{error}, by a clock that was shifted on purpose"),
            Self::Stale { left, lifetime } => {
                write!(
                    f,
                    "token was made for an earlier request: {left} s are left of {lifetime} s"
                )
            }
            Self::TooLong { seconds, lifetime } => {
                write!(
                    f,
                    "token is valid for {seconds} s from now, at most {lifetime} s are allowed"
                )
            }
            Self::UnknownMember(member) => write!(f, "token has an unknown member {member:?}"),
        }
    }
}

impl std::error::Error for TokenError {}

fn signature(key: &[u8], resource: &str, expiry: &str) -> [u8; 32] {
    hmac_sha256(key, &[resource.as_bytes(), b"\n", expiry.as_bytes()])
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so this branch is never taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `application/x-www-form-urlencoded` for base64 text, whose only special characters are `+`, `/` and `=`.
fn form_encode(base64: &str) -> String {
    percent_encode(base64, |byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(base64: &str) -> Vec<u8> {
        Base64::decode_vec(base64).unwrap()
    }

    const KEY: &str = "YXppb3QtaWRlbnRpdHktc2VydmljZXxhemlvdC1pZGU=";

    /// Key, audience before lower-casing, expiry, key name, token.
    type Vector = (
        Vec<u8>,
        &'static str,
        i64,
        Option<&'static str>,
        &'static str,
    );

    /// Vectors 18.1 a to f.
    #[test]
    fn is_43_tokens_of_18_1() {
        let mock = b"mock-iot-provision\n".to_vec();
        let cases: [Vector; 6] = [
            (
                mock.clone(),
                "0ne000ABCDE/registrations/Mock-Dev",
                1_795_289_379,
                Some("registration"),
                "SharedAccessSignature sr=0ne000abcde/registrations/mock-dev&sig=D4tuR2KtZ0uZB61Fb88CJVf7vLA3oHqJcUvCdlCVDUs%3D&se=1795289379&skn=registration",
            ),
            (
                mock,
                "localhost:8443/devices/Dev=1",
                1_795_289_384,
                None,
                "SharedAccessSignature sr=localhost:8443/devices/dev%3D1&sig=yTlnvC0SFDfZSabwdzX6bfnIw%2FezE71oyBJiepvWwBs%3D&se=1795289384",
            ),
            (
                key(KEY),
                "0ab1234C5D6/registrations/my-device",
                1_700_000_030,
                Some("registration"),
                "SharedAccessSignature sr=0ab1234c5d6/registrations/my-device&sig=EiiZ7QIa6PXwNV8je5OT9NjVvrFeW2k44CR14Okk%2F7w%3D&se=1700000030&skn=registration",
            ),
            (
                key(KEY),
                "example.azure-devices.net/devices/my-device",
                1_700_000_030,
                None,
                "SharedAccessSignature sr=example.azure-devices.net/devices/my-device&sig=39Hi1CJmKLWT%2BWU2w9210afr5SxuvtSEL3tYBBkf2U8%3D&se=1700000030",
            ),
            (
                key(KEY),
                "example.azure-devices.net/devices/my-device",
                1_700_000_010,
                None,
                "SharedAccessSignature sr=example.azure-devices.net/devices/my-device&sig=MpHIym7WuIc94Cqgm5%2FdfcNosNOpVSP5mXDeiim1%2BRU%3D&se=1700000010",
            ),
            (
                key(KEY),
                "Example.Azure-Devices.NET/devices/My Dev=1{é}#?",
                1_700_000_030,
                None,
                "SharedAccessSignature sr=example.azure-devices.net/devices/my%20dev%3D1%7B%C3%A9%7D%23%3F&sig=Cu7NQqSabXMTwb0OWuiGwY6kxzw6LMlJ2itqKmkjDk4%3D&se=1700000030",
            ),
        ];
        for (key, audience, expiry, name, expected) in cases {
            let audience = audience.to_lowercase();
            assert_eq!(sign(&key, &audience, expiry, name), expected);
            let token = Token::parse_strict(expected).unwrap();
            assert_eq!(token.resource, encode_audience(&audience));
            assert_eq!(token.key_name, name);
            token.verify([key.as_slice()]).unwrap();
            assert_eq!(
                token.verify([b"other".as_slice()]),
                Err(TokenError::Signature)
            );
            token.check_expiry(expiry - 30, 30).unwrap();
            assert!(matches!(
                token.check_expiry(expiry, 30),
                Err(TokenError::Expired { seconds: 0 })
            ));
            assert!(matches!(
                token.check_expiry(expiry - 31, 30),
                Err(TokenError::TooLong { .. })
            ));
        }
    }

    /// Vectors 18.3.
    #[test]
    fn group_keys_of_18_3() {
        let group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
        for (group, registration, expected) in [
            (
                group,
                "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
                "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=",
            ),
            (
                group,
                "my-device",
                "WzAkt5GwqYWFpFrbk3L9aXm6JGAXD0rn4cXlWKGRCpc=",
            ),
            (
                group,
                "My-Device",
                "bY89rJ726sHEUrDompOb0PG0/Uw92p+VP7ybSBry/uY=",
            ),
            (
                KEY,
                "my-device",
                "+3z3M+Co8lZQwgG/1/U3Nt2vIm71uiNBCUzALWPnCw0=",
            ),
        ] {
            assert_eq!(
                Base64::encode_string(&derive_device_key(&key(group), registration)),
                expected
            );
        }
    }

    #[test]
    fn malformed_tokens_are_told_apart() {
        for (header, error) in [
            ("Bearer x", TokenError::Scheme),
            (
                "SharedAccessSignature sr=a&sig=AA%3D%3D",
                TokenError::Missing("se"),
            ),
            (
                "SharedAccessSignature sr=a&se=1",
                TokenError::Missing("sig"),
            ),
            (
                "SharedAccessSignature sig=AA%3D%3D&se=1",
                TokenError::Missing("sr"),
            ),
            (
                "SharedAccessSignature sr=a&sig=AA%3D%3D&se=x",
                TokenError::ExpiryFormat,
            ),
            (
                "SharedAccessSignature sr=a&sig=A%3&se=1",
                TokenError::SignatureEncoding,
            ),
            (
                "SharedAccessSignature sr=a&sig=AA&se=1",
                TokenError::SignatureEncoding,
            ),
            (
                "SharedAccessSignature sr=a&sr=b&sig=AA%3D%3D&se=1",
                TokenError::Repeated("sr".into()),
            ),
            (
                "SharedAccessSignature sr=a&sig=AA%3D%3D&se=1&x=1",
                TokenError::UnknownMember("x".into()),
            ),
        ] {
            assert_eq!(Token::parse(header), Err(error.clone()), "{header}");
            assert!(error.is_violation());
        }
        for header in [
            "SharedAccessSignature sig=AA%3D%3D&sr=a&se=1", // order
            "SharedAccessSignature sr=a&sig=AA%3d%3d&se=1", // lower-case digits
            "SharedAccessSignature sr=a&sig=AA==&se=1",     // not encoded
            "SharedAccessSignature sr=a&sig=AA%3D%3D&se=+1",
            "SharedAccessSignature sr=a&sig=AA%3D%3D&se=01",
        ] {
            assert!(Token::parse(header).is_ok(), "{header}");
            assert!(
                matches!(
                    Token::parse_strict(header),
                    Err(TokenError::NotCanonical { .. })
                ),
                "{header}"
            );
        }
    }

    #[test]
    fn percent_decoding_refuses_what_is_not_an_escape_or_not_utf_8() {
        assert_eq!(percent_decode("a%2Fb%c3%A9").as_deref(), Some("a/bé"));
        for bad in ["%", "%2", "%zz", "%+1", "%FF"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn percent_encoding_is_undone_by_decoding(text: String) {
            prop_assert_eq!(percent_decode(&encode_audience(&text)), Some(text.clone()));
            prop_assert_eq!(percent_decode(&percent_encode(&text, |_| false)), Some(text));
        }

        #[test]
        fn every_token_that_is_made_is_accepted_and_no_other_signature(
            key in prop::collection::vec(any::<u8>(), 1..80),
            audience in ".{0,60}",
            expiry in 0..i64::MAX,
            bit in 0..256usize,
        ) {
            let text = sign(&key, &audience, expiry, None);
            let mut token = Token::parse_strict(&text).unwrap();
            prop_assert_eq!(percent_decode(token.resource), Some(audience));
            prop_assert!(token.verify([key.as_slice()]).is_ok());
            token.signature[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(token.verify([key.as_slice()]).is_err());
        }

        #[test]
        fn no_header_upsets_the_parser(header in ".{0,200}") {
            let _ = Token::parse(&format!("SharedAccessSignature {header}"));
            let _ = Token::parse_strict(&header);
        }
    }
}
