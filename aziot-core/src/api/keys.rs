//! The interface of the Keys Service.

pub mod status;

#[cfg(test)]
mod tests;

use core::fmt;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::{Api, Route};
use crate::http::Method::{self, Delete, Get, Post};
use crate::json::{Bytes, Deferred, Error, ErrorKind, Found, FromJson, Reader};
use crate::{json_enum, json_object};

/// Routes and versions. All versions have all operations of the first two; the last adds `/status`.
pub static API: Api<Op> = Api {
    versions: &["2020-09-01", "2021-05-01", status::STATUS_VERSION],
    routes: &[
        route("/sign", &[Post], Op::Sign),
        route("/key", &[Post, Delete], Op::Keys),
        route("/keypair", &[Post, Delete], Op::KeyPairs),
        route("/key/{id}", &[Get, Post], Op::Key),
        route("/keypair/{id}", &[Get, Post], Op::KeyPair),
        route("/parameters/{name}", &[Post], Op::Parameter),
        route("/derivedkey", &[Post], Op::DerivedKey),
        route("/derivedkey/export", &[Post], Op::DerivedKeyExport),
        route("/encrypt", &[Post], Op::Encrypt),
        route("/decrypt", &[Post], Op::Decrypt),
        Route {
            since: 2,
            ..route("/status", &[Get], Op::Status)
        },
    ],
};

/// The version that our own clients ask for.
pub const CLIENT_VERSION: &str = "2021-05-01";

const fn route(path: &'static str, methods: &'static [Method], id: Op) -> Route<Op> {
    Route {
        path,
        since: 0,
        methods,
        id,
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// POST [`Ciphertext`], answer [`PlaintextResponse`].
    Decrypt,
    /// POST [`CreateDerivedKey`], answer [`KeyHandle`].
    DerivedKey,
    /// POST [`KeyHandle`], answer [`ExportedKey`].
    DerivedKeyExport,
    /// POST [`Plaintext`], answer [`CiphertextResponse`].
    Encrypt,
    /// GET loads a symmetric key, answer [`KeyHandle`]. POST is always refused: a symmetric key
    /// cannot be moved.
    Key,
    /// GET loads a key pair, answer [`KeyHandle`]. POST [`MoveKeyPair`] to this id, answer 204.
    KeyPair,
    /// POST [`CreateKeyPair`], answer [`KeyHandle`]; DELETE [`KeyHandle`], answer 204.
    KeyPairs,
    /// POST [`CreateKey`], answer [`KeyHandle`]; DELETE [`KeyHandle`], answer 204.
    Keys,
    /// POST [`KeyHandle`], answer [`Parameter`].
    Parameter,
    /// POST [`Sign`], answer [`Signature`].
    Sign,
    /// GET [`Status`](status::Status).
    Status,
}

json_object! {
    /// Creates a symmetric key if it is missing, or imports one.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CreateKey<'a> {
        /// Its id.
        pub key_id: &'a str = "keyId",
        /// Its bytes; without them the key is generated.
        pub key_bytes: Option<Bytes<'a>> = "keyBytes",
        /// What it is for.
        pub usage: Usage = "usage",
    }

    /// A key handle: the request of the operations that take nothing else, and the answer of those
    /// that make or load a key.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct KeyHandle<'a> {
        /// The handle.
        pub key_handle: &'a str = "keyHandle",
    }

    /// Creates a key pair if it is missing.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CreateKeyPair<'a> {
        /// Its id.
        pub key_id: &'a str = "keyId",
        /// Algorithms, first choice first, with colons between them; none is `*`.
        pub preferred_algorithms: Option<&'a str> = "preferredAlgorithms",
    }

    /// Moves a key pair to the id in the path.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct MoveKeyPair<'a> {
        /// The id it has now.
        pub from: &'a str = "from",
    }

    /// Makes the handle of a derived key.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CreateDerivedKey<'a> {
        /// The handle of the key to derive from.
        pub base_key_handle: &'a str = "baseKeyHandle",
        /// What to derive with.
        pub derivation_data: Bytes<'a> = "derivationData",
    }

    /// The bytes of a derived key.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct ExportedKey<'a> {
        /// The bytes.
        pub key: Bytes<'a> = "key",
    }

    /// A public parameter of a key pair.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Parameter<'a> {
        /// `ECDSA` or `RSA` for `algorithm`, otherwise Base64.
        pub value: &'a str = "value",
    }

    /// A parameter that is bytes, to be answered as [`Parameter`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct ParameterBytes<'a> {
        /// The bytes.
        pub value: Bytes<'a> = "value",
    }

    /// The answer to [`Sign`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Signature<'a> {
        /// The signature or MAC.
        pub signature: Bytes<'a> = "signature",
    }

    /// The answer to [`Plaintext`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct CiphertextResponse<'a> {
        /// The ciphertext.
        pub ciphertext: Bytes<'a> = "ciphertext",
    }

    /// The answer to [`Ciphertext`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct PlaintextResponse<'a> {
        /// The plaintext.
        pub plaintext: Bytes<'a> = "plaintext",
    }
}

/// What a symmetric key is for: on the wire a list of `derive`, `encrypt` and `sign` with commas
/// between them, at least one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Usage {
    /// Other keys are derived from it.
    pub derive: bool,
    /// It encrypts.
    pub encrypt: bool,
    /// It makes MACs.
    pub sign: bool,
}

impl Usage {
    /// `derive,sign`: the usage of keys that identities are made with.
    pub const DERIVE_SIGN: Self = Self {
        derive: true,
        encrypt: false,
        sign: true,
    };

    /// Reads the list; repeats are harmless, spaces are not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut usage = Self {
            derive: false,
            encrypt: false,
            sign: false,
        };
        for word in text.split(',') {
            match word {
                "derive" => usage.derive = true,
                "encrypt" => usage.encrypt = true,
                "sign" => usage.sign = true,
                _ => return None,
            }
        }
        Some(usage)
    }

    /// The bit mask of the key library's interface, in which derive and sign are the same bit.
    #[must_use]
    pub const fn mask(self) -> u32 {
        let sign = if self.derive || self.sign { 0x1 } else { 0 };
        let encrypt = if self.encrypt { 0x10 } else { 0 };
        sign | encrypt
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.derive, "derive"),
            (self.encrypt, "encrypt"),
            (self.sign, "sign"),
        ];
        let mut separator = "";
        for (_, word) in words.iter().filter(|(member, _)| *member) {
            f.write_str(separator)?;
            f.write_str(word)?;
            separator = ",";
        }
        Ok(())
    }
}

impl<'a> FromJson<'a> for Usage {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        const EXPECTED: &str = "KeyUsage";
        let text = r.string(EXPECTED)?;
        Self::parse(text).ok_or_else(|| {
            r.place(Error::new(ErrorKind::InvalidValue {
                found: Found::Str(text),
                expected: EXPECTED,
            }))
        })
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Signs, or makes a MAC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sign<'a> {
    /// The key.
    pub key_handle: &'a str,
    /// How, and what.
    pub mechanism: SignMechanism<'a>,
}

/// How to sign, and what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignMechanism<'a> {
    /// ECDSA with a key pair.
    Ecdsa {
        /// The digest, which the caller has made.
        digest: Bytes<'a>,
    },
    /// HMAC-SHA256 with a symmetric key or a derived one.
    HmacSha256 {
        /// The message.
        message: Bytes<'a>,
    },
}

/// Encrypts, or makes the private operation of RSA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plaintext<'a> {
    /// The key.
    pub key_handle: &'a str,
    /// How.
    pub mechanism: EncryptMechanism<'a>,
    /// What.
    pub plaintext: Bytes<'a>,
}

/// Decrypts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ciphertext<'a> {
    /// The key.
    pub key_handle: &'a str,
    /// How.
    pub mechanism: EncryptMechanism<'a>,
    /// What.
    pub ciphertext: Bytes<'a>,
}

/// How to encrypt or decrypt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EncryptMechanism<'a> {
    /// Authenticated encryption with a symmetric key or a derived one.
    Aead {
        /// The initialisation vector.
        iv: Bytes<'a>,
        /// The additional data.
        aad: Bytes<'a>,
    },
    /// RSA without padding, with a key pair.
    RsaNoPadding,
    /// RSA with padding of type 1, with a key pair.
    RsaPkcs1,
}

impl<'a> FromJson<'a> for Sign<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let tagged = |r: &mut Reader<'a>| {
            let (key_handle, tagged, _) = Tagged::read(r, None)?;
            let mechanism = match tagged.algorithm.decode()? {
                SignAlgorithm::Ecdsa => {
                    let DigestParameters { digest } = parameters(tagged.parameters)?;
                    SignMechanism::Ecdsa { digest }
                }
                SignAlgorithm::HmacSha256 => {
                    let MessageParameters { message } = parameters(tagged.parameters)?;
                    SignMechanism::HmacSha256 { message }
                }
            };
            Ok(Self {
                key_handle,
                mechanism,
            })
        };
        r.open_object("struct Sign")?;
        let outcome = tagged(r);
        r.close_object(outcome)
    }
}

impl<'a> FromJson<'a> for Plaintext<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.open_object("struct Encrypt")?;
        let outcome = EncryptMechanism::read(r, "plaintext");
        let (key_handle, mechanism, plaintext) = r.close_object(outcome)?;
        Ok(Self {
            key_handle,
            mechanism,
            plaintext,
        })
    }
}

impl<'a> FromJson<'a> for Ciphertext<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        r.open_object("struct Decrypt")?;
        let outcome = EncryptMechanism::read(r, "ciphertext");
        let (key_handle, mechanism, ciphertext) = r.close_object(outcome)?;
        Ok(Self {
            key_handle,
            mechanism,
            ciphertext,
        })
    }
}

impl<'a> EncryptMechanism<'a> {
    fn read(
        r: &mut Reader<'a>,
        text: &'static str,
    ) -> Result<(&'a str, Self, Bytes<'a>), Error<'a>> {
        let (key_handle, tagged, text) = Tagged::read(r, Some(text))?;
        let mechanism = match tagged.algorithm.decode()? {
            EncryptAlgorithm::Aead => {
                let AeadParameters { iv, aad } = parameters(tagged.parameters)?;
                Self::Aead { iv, aad }
            }
            EncryptAlgorithm::RsaNoPadding => {
                no_parameters(tagged.parameters)?;
                Self::RsaNoPadding
            }
            EncryptAlgorithm::RsaPkcs1 => {
                no_parameters(tagged.parameters)?;
                Self::RsaPkcs1
            }
        };
        Ok((key_handle, mechanism, text))
    }

    fn parts(&self) -> (EncryptAlgorithm, Option<AeadParameters<'a>>) {
        match *self {
            Self::Aead { iv, aad } => (EncryptAlgorithm::Aead, Some(AeadParameters { iv, aad })),
            Self::RsaNoPadding => (EncryptAlgorithm::RsaNoPadding, None),
            Self::RsaPkcs1 => (EncryptAlgorithm::RsaPkcs1, None),
        }
    }
}

impl Serialize for Sign<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Sign", 3)?;
        object.serialize_field("keyHandle", self.key_handle)?;
        match self.mechanism {
            SignMechanism::Ecdsa { digest } => {
                object.serialize_field("algorithm", &SignAlgorithm::Ecdsa)?;
                object.serialize_field("parameters", &DigestParameters { digest })?;
            }
            SignMechanism::HmacSha256 { message } => {
                object.serialize_field("algorithm", &SignAlgorithm::HmacSha256)?;
                object.serialize_field("parameters", &MessageParameters { message })?;
            }
        }
        object.end()
    }
}

impl Serialize for Plaintext<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = self.mechanism.parts();
        write_tagged(
            serializer,
            self.key_handle,
            parts,
            "plaintext",
            self.plaintext,
        )
    }
}

impl Serialize for Ciphertext<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = self.mechanism.parts();
        write_tagged(
            serializer,
            self.key_handle,
            parts,
            "ciphertext",
            self.ciphertext,
        )
    }
}

fn write_tagged<S: Serializer>(
    serializer: S,
    key_handle: &str,
    (algorithm, parameters): (EncryptAlgorithm, Option<AeadParameters<'_>>),
    name: &'static str,
    text: Bytes<'_>,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_struct("Encrypt", 4)?;
    object.serialize_field("keyHandle", key_handle)?;
    object.serialize_field("algorithm", &algorithm)?;
    if let Some(parameters) = &parameters {
        object.serialize_field("parameters", parameters)?;
    }
    object.serialize_field(name, &text)?;
    object.end()
}

/// The two members that select a mechanism. What `parameters` must be depends on `algorithm`,
/// which can come after it, so both are decoded when the object has been read.
struct Tagged<'a> {
    algorithm: Deferred<'a>,
    parameters: Option<Deferred<'a>>,
}

impl<'a> Tagged<'a> {
    /// Reads the members of an object: the key handle, the two that select the mechanism, and the
    /// bytes called `text`, if there is such a member (otherwise they are empty).
    fn read(
        r: &mut Reader<'a>,
        text: Option<&'static str>,
    ) -> Result<(&'a str, Self, Bytes<'a>), Error<'a>> {
        let (mut handle, mut algorithm, mut parameters, mut bytes) = (None, None, None, None);
        let mut first = true;
        while let Some(key) = r.next_key(&mut first)? {
            match key {
                "keyHandle" => member(r, &mut handle, "keyHandle")?,
                "algorithm" => member(r, &mut algorithm, "algorithm")?,
                "parameters" => member(r, &mut parameters, "parameters")?,
                key => match text {
                    Some(text) if key == text => member(r, &mut bytes, text)?,
                    _ => r.skip_value()?,
                },
            }
        }
        let handle = handle.ok_or(Error::missing_field("keyHandle"))?;
        let bytes = match (bytes, text) {
            (Some(bytes), _) => bytes,
            (None, Some(text)) => return Err(Error::missing_field(text)),
            (None, None) => Bytes::default(),
        };
        let algorithm = algorithm.ok_or(Error::missing_field("algorithm"))?;
        let tagged = Self {
            algorithm,
            parameters,
        };
        Ok((handle, tagged, bytes))
    }
}

/// Reads a member that must not be there yet.
fn member<'a, T: FromJson<'a>>(
    r: &mut Reader<'a>,
    place: &mut Option<T>,
    name: &'static str,
) -> Result<(), Error<'a>> {
    if place.is_some() {
        return Err(Error::duplicate_field(name));
    }
    *place = Some(r.value()?);
    Ok(())
}

fn parameters<'a, T: FromJson<'a>>(parameters: Option<Deferred<'a>>) -> Result<T, Error<'a>> {
    let parameters = parameters.ok_or(Error::missing_field("parameters"))?;
    parameters.decode()
}

fn no_parameters(parameters: Option<Deferred<'_>>) -> Result<(), Error<'_>> {
    parameters.map_or(Ok(()), |parameters| parameters.decode().map(|Null| ()))
}

/// The value `null`.
struct Null;

impl<'a> FromJson<'a> for Null {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        if r.null()? {
            return Ok(Self);
        }
        Err(r.invalid_type("null"))
    }
}

json_enum! {
    #[derive(Clone, Copy)]
    enum SignAlgorithm {
        Ecdsa = "ECDSA",
        HmacSha256 = "HMAC-SHA256",
    }

    #[derive(Clone, Copy)]
    enum EncryptAlgorithm {
        Aead = "AEAD",
        RsaPkcs1 = "RSA-PKCS1",
        RsaNoPadding = "RSA-NO-PADDING",
    }
}

json_object! {
    struct DigestParameters<'a> {
        digest: Bytes<'a> = "digest",
    }

    struct MessageParameters<'a> {
        message: Bytes<'a> = "message",
    }

    struct AeadParameters<'a> {
        iv: Bytes<'a> = "iv",
        aad: Bytes<'a> = "aad",
    }
}
