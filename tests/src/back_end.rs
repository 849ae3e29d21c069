//! The Keys Service with its keys in files, on a software token, or on a TPM: for tests that hold for all of them.

use std::fs;

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

use crate::client::Response;
use crate::daemon::Launch;
use crate::fixture::{Keyd, write_key};
use crate::root::Root;
use crate::softhsm::SoftHsm;
use crate::token::{Recorder, Token};
use crate::tpm::Tpm;

/// Where new keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// Into files.
    Files,
    /// Onto a token of SoftHSM, which can do everything.
    SoftHsm,
    /// Onto a token of tpm2-pkcs11, which has key pairs only: symmetric keys fall back to files.
    Tpm,
}

/// A running Keys Service on a back end.
#[derive(Debug)]
pub struct Site {
    /// The TPM, when it is the back end. It goes before the directory that its state is in.
    pub tpm: Option<Tpm>,
    /// The service.
    pub keyd: Keyd,
    /// Its token, when it has one.
    pub token: Option<Token>,
    /// What its module was asked, when that is recorded.
    pub recorder: Option<Recorder>,
    /// SoftHSM, when it is the back end.
    pub softhsm: Option<SoftHsm>,
    /// The back end.
    pub back_end: BackEnd,
}

impl Site {
    /// Starts with nothing stored.
    #[must_use]
    pub fn new(back_end: BackEnd) -> Self {
        Self::start(back_end, false, "", |launch| launch)
    }

    /// Starts with nothing stored, and every call of the token's module written down.
    #[must_use]
    pub fn recorded(back_end: BackEnd) -> Self {
        Self::start(back_end, true, "", |launch| launch)
    }

    /// Starts with more in the main configuration file, launched in another way.
    #[must_use]
    pub fn start(
        back_end: BackEnd,
        record: bool,
        config: &str,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Self {
        let root = Root::with_keyd(config);
        let (mut softhsm, mut tpm) = (None, None);
        let mut token = match back_end {
            BackEnd::Files => None,
            BackEnd::SoftHsm => {
                let back = softhsm.insert(SoftHsm::new(&root.join("softhsm")));
                Some(back.initialize("Key pairs"))
            }
            BackEnd::Tpm => Some(tpm.insert(Tpm::start(&root)).initialize()),
        };
        let mut recorder = None;
        if let (Some(plain), true) = (&token, record) {
            let (recorded, record) = plain.recorded(&root);
            recorder = Some(record);
            token = Some(recorded);
        }
        if let Some(token) = &token {
            token.configure(&root);
        }
        let keyd = launch(root, token.as_ref(), change);
        Self {
            keyd,
            token,
            recorder,
            softhsm,
            tpm,
            back_end,
        }
    }

    /// Puts a service on a root that is ready for it: with a token that `configure` may have been called for.
    #[must_use]
    pub fn on(root: Root, softhsm: SoftHsm, token: Token) -> Self {
        let keyd = launch(root, Some(&token), |launch| launch);
        Self {
            tpm: None,
            keyd,
            token: Some(token),
            recorder: None,
            softhsm: Some(softhsm),
            back_end: BackEnd::SoftHsm,
        }
    }

    /// Stops the service and starts it again.
    #[must_use]
    pub fn restart(self) -> Self {
        self.restart_after(|_, _| {})
    }

    /// Stops the service, does something to its root, and starts it again.
    ///
    /// # Panics
    /// When it does not stop cleanly.
    #[must_use]
    pub fn restart_after(self, change: impl FnOnce(&Root, Option<&Token>)) -> Self {
        let Keyd { daemon, root } = self.keyd;
        daemon.stop();
        change(&root, self.token.as_ref());
        let keyd = launch(root, self.token.as_ref(), |launch| launch);
        Self { keyd, ..self }
    }

    /// The token.
    ///
    /// # Panics
    /// When keys are in files.
    #[must_use]
    pub fn token(&self) -> &Token {
        self.token.as_ref().expect("a back end with a token")
    }

    /// What the module was asked.
    ///
    /// # Panics
    /// When it is not recorded.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        self.recorder.as_ref().expect("a recorded module")
    }

    /// Names of the files in the directory of keys.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let directory = self.keyd.root.join("var/lib/aziot/keyd/keys");
        let mut names: Vec<String> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Stores a symmetric key the way an earlier run of the service would have: as a file, or as an object of the token.
    ///
    /// # Panics
    /// When the service refuses it.
    pub fn install(&self, id: &str, bytes: &[u8], usage: &str) {
        if self.back_end == BackEnd::Files {
            return write_key(&self.keyd.root, id, bytes);
        }
        let body = json!({ "keyId": id, "keyBytes": Base64::encode_string(bytes), "usage": usage });
        let response = self.keyd.post("/key", &body);
        assert_eq!(response.status, 200, "{id}: {response}");
    }

    /// Creates a key pair.
    pub fn create_pair(&self, id: &str, algorithms: Option<&str>) -> Response {
        self.keyd.post(
            "/keypair",
            &json!({ "keyId": id, "preferredAlgorithms": algorithms }),
        )
    }

    /// Creates a key pair and returns its handle.
    pub fn pair(&self, id: &str, algorithms: &str) -> String {
        self.create_pair(id, Some(algorithms)).member("keyHandle")
    }

    /// Moves a key pair.
    pub fn move_pair(&self, from: &str, to: &str) -> Response {
        self.keyd
            .post(&format!("/keypair/{to}"), &json!({ "from": from }))
    }

    /// Asks for a parameter of a key pair.
    pub fn parameter(&self, handle: &str, name: &str) -> Response {
        self.keyd.post(
            &format!("/parameters/{name}"),
            &json!({ "keyHandle": handle }),
        )
    }

    /// Signs a digest with ECDSA.
    pub fn ecdsa(&self, handle: &str, digest: &[u8]) -> Response {
        self.keyd.post("/sign", &ecdsa_body(handle, digest))
    }

    /// Encrypts with AES-GCM.
    pub fn seal(&self, handle: &str, iv: &[u8], aad: &[u8], plaintext: &[u8]) -> Response {
        self.keyd.post(
            "/encrypt",
            &aead_body(handle, iv, aad, "plaintext", plaintext),
        )
    }

    /// Decrypts with AES-GCM.
    pub fn open(&self, handle: &str, iv: &[u8], aad: &[u8], ciphertext: &[u8]) -> Response {
        self.keyd.post(
            "/decrypt",
            &aead_body(handle, iv, aad, "ciphertext", ciphertext),
        )
    }

    /// Applies the private key of an RSA pair; `algorithm` is `RSA-PKCS1` or `RSA-NO-PADDING`.
    pub fn rsa(&self, handle: &str, algorithm: &str, input: &[u8]) -> Response {
        self.keyd
            .post("/encrypt", &rsa_body(handle, algorithm, input))
    }
}

fn launch(root: Root, token: Option<&Token>, change: impl FnOnce(Launch) -> Launch) -> Keyd {
    Keyd::launch(root, |launch| {
        let launch = match token {
            Some(token) => token.environment(launch),
            None => launch,
        };
        change(launch)
    })
}

/// The body of `POST /sign` with ECDSA.
#[must_use]
pub fn ecdsa_body(handle: &str, digest: &[u8]) -> Value {
    json!({
        "keyHandle": handle,
        "algorithm": "ECDSA",
        "parameters": { "digest": Base64::encode_string(digest) },
    })
}

/// The body of `POST /encrypt` or `/decrypt` with AES-GCM; `member` is `plaintext` or `ciphertext`.
#[must_use]
pub fn aead_body(handle: &str, iv: &[u8], aad: &[u8], member: &str, input: &[u8]) -> Value {
    json!({
        "keyHandle": handle,
        "algorithm": "AEAD",
        "parameters": { "iv": Base64::encode_string(iv), "aad": Base64::encode_string(aad) },
        member: Base64::encode_string(input),
    })
}

/// The body of `POST /encrypt` with an RSA mechanism.
#[must_use]
pub fn rsa_body(handle: &str, algorithm: &str, input: &[u8]) -> Value {
    json!({
        "keyHandle": handle,
        "algorithm": algorithm,
        "plaintext": Base64::encode_string(input),
    })
}

/// The bytes of a Base64 member of an answer.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn bytes(response: &Response, member: &str) -> Vec<u8> {
    Base64::decode_vec(&response.member(member)).expect("standard Base64")
}
