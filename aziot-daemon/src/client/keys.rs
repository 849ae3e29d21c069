//! The client of the Keys Service (keys-service 5).

use std::fmt;

use aziot_core::json::{self, Bytes};
use aziot_core::percent::Set;
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::Error;
use super::exchange::{Request, Response};
use super::unix::UnixClient;

/// The API version spoken.
const VERSION: &str = "api-version=2021-05-01";

/// Length of an HMAC-SHA256 signature.
pub const SIGNATURE: usize = 32;

/// Why the Keys Service did not do what was asked.
#[derive(Clone, Debug)]
pub enum KeysError {
    /// It could not be asked.
    Transport(Error),
    /// It refused, with this status and message.
    Refused {
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// Its answer makes no sense.
    Invalid(String),
    /// The request does not fit in the buffer for it.
    TooLong,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => write!(f, "{error}"),
            Self::Refused { message, .. } => f.write_str(message),
            Self::Invalid(reason) => write!(
                f,
                "the Keys Service gave an answer that makes no sense: {reason}"
            ),
            Self::TooLong => write!(
                f,
                "the request to the Keys Service is longer than {BODY} bytes"
            ),
        }
    }
}

impl std::error::Error for KeysError {}

impl From<Error> for KeysError {
    fn from(error: Error) -> Self {
        Self::Transport(error)
    }
}

/// Longest request body: a handle and a message, both far shorter.
const BODY: usize = 16 * 1024;

/// Asks the Keys Service. Calls block; they are for worker threads.
#[derive(Debug)]
pub struct KeysClient {
    service: UnixClient,
}

/// A key handle. It lets its owner use the key, so it is treated as a secret.
pub type Handle = Zeroizing<String>;

aziot_core::json_input! {
    struct KeyHandle<'a> {
        handle: &'a str = "keyHandle",
    }
    struct Key<'a> {
        key: Bytes<'a> = "key",
    }
    struct Signature<'a> {
        signature: Bytes<'a> = "signature",
    }
    struct Message<'a> {
        message: &'a str = "message",
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreateKey<'a> {
    key_id: &'a str,
    key_bytes: Option<Bytes<'a>>,
    usage: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Derive<'a> {
    base_key_handle: &'a str,
    derivation_data: Bytes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    key_handle: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sign<'a> {
    key_handle: &'a str,
    algorithm: &'a str,
    parameters: SignParameters<'a>,
}

#[derive(Serialize)]
struct SignParameters<'a> {
    message: Bytes<'a>,
}

impl KeysClient {
    /// A client over this connection.
    #[must_use]
    pub fn new(service: UnixClient) -> Self {
        Self { service }
    }

    /// The handle of a symmetric key that exists.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn load_key(&self, id: &str) -> Result<Handle, KeysError> {
        let target = format!("/key/{}?{VERSION}", Set::SEGMENT.encode(id));
        handle(self.send("GET", &target, None)?)
    }

    /// The handle of a symmetric key, which is generated if it does not exist. `usage` is as in `derive,sign`.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn create_key_if_not_exists(&self, id: &str, usage: &str) -> Result<Handle, KeysError> {
        handle(self.post(
            "/key",
            &CreateKey {
                key_id: id,
                key_bytes: None,
                usage,
            },
        )?)
    }

    /// The handle of a key derived from another.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn derive(&self, base: &str, data: &[u8]) -> Result<Handle, KeysError> {
        handle(self.post(
            "/derivedkey",
            &Derive {
                base_key_handle: base,
                derivation_data: Bytes(data),
            },
        )?)
    }

    /// The bytes of a derived key.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn export_derived(&self, handle: &str) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let mut response = self.post("/derivedkey/export", &Export { key_handle: handle })?;
        let answer: Key<'_> = decode(&mut response)?;
        Ok(Zeroizing::new(answer.key.0.to_vec()))
    }

    /// HMAC-SHA256 of a message.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn sign_hmac(&self, handle: &str, message: &[u8]) -> Result<[u8; SIGNATURE], KeysError> {
        let parameters = SignParameters {
            message: Bytes(message),
        };
        let sign = Sign {
            key_handle: handle,
            algorithm: "HMAC-SHA256",
            parameters,
        };
        let mut response = self.post("/sign", &sign)?;
        let answer: Signature<'_> = decode(&mut response)?;
        answer.signature.0.try_into().map_err(|_| {
            KeysError::Invalid(format!(
                "the signature has {} bytes, not {SIGNATURE}",
                answer.signature.0.len()
            ))
        })
    }

    fn post<T: Serialize>(&self, path: &str, body: &T) -> Result<Response, KeysError> {
        let mut buffer = Zeroizing::new(vec![0; BODY]);
        let length = json::to_slice(body, &mut buffer).map_err(|_| KeysError::TooLong)?;
        let target = format!("{path}?{VERSION}");
        self.send("POST", &target, buffer.get(..length))
    }

    fn send(&self, method: &str, target: &str, body: Option<&[u8]>) -> Result<Response, KeysError> {
        let request = Request {
            method,
            host: self.service.host(),
            target,
            headers: &[],
            body,
        };
        // Every call this client makes can be made twice: keys are only created if they do not exist.
        let mut response = self.service.call(&request, true)?;
        if response.status == 200 {
            return Ok(response);
        }
        let status = response.status;
        let message = if (400..600).contains(&status) {
            match json::from_slice::<Message<'_>>(response.body()) {
                Ok(answer) => answer.message.to_owned(),
                Err(_) => format!("HTTP error {}", response.status_line()),
            }
        } else {
            format!("Expected one of [200], got {}", response.status_line())
        };
        Err(KeysError::Refused { status, message })
    }
}

fn handle(mut response: Response) -> Result<Handle, KeysError> {
    let answer: KeyHandle<'_> = decode(&mut response)?;
    Ok(Zeroizing::new(answer.handle.to_owned()))
}

fn decode<'a, T: json::FromJson<'a>>(response: &'a mut Response) -> Result<T, KeysError> {
    if !response.is_json {
        return Err(KeysError::Invalid(
            "invalid Content-Type; expected JSON".to_owned(),
        ));
    }
    // The reader's own text could quote a value of the answer, which may be a secret.
    json::from_slice(response.body())
        .map_err(|_| KeysError::Invalid("it is not the JSON object that was expected".to_owned()))
}
