//! The fixture of the Keys Service's conformance vectors (spec, keys chapter 12): four keys, and handles that were computed and
//! signed outside of any implementation.

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::client::{Client, Response, request};
use crate::daemon::{Daemon, Launch};
use crate::root::Root;

/// The id of the key that signs handles.
pub const HANDLE_KEY: &str = "handle-validation-key";

/// The principal of the fixture's configuration.
pub const PRINCIPAL: &str = "[[principal]]\nuid = 1000\nkeys = [\"imp\"]\n";

/// Handle ⟨A⟩: the symmetric key `imp`.
pub const A: &str = "sr=eyJrZXlfaWQiOnsiS2V5IjoiaW1wIn0sIm5vbmNlIjoiQUFFQ0F3UUZCZ2NJQ1FvTERBME9EeEFSRWhNVUZSWVhHQmthR3h3ZEhoOGdJU0lqSkNVbUp5Z3BLaXNzTFM0dk1ERXlNelExTmpjNE9UbzdQRDArUHc9PSJ9&sig=MYkHHCT3o/sgtO/dOwC0PVpq5c0i8uXFOzzNGKZu3Ig=";

/// Handle ⟨B⟩: the key pair `kp`.
pub const B: &str = "sr=eyJrZXlfaWQiOnsiS2V5UGFpciI6ImtwIn0sIm5vbmNlIjoiQUFFQ0F3UUZCZ2NJQ1FvTERBME9EeEFSRWhNVUZSWVhHQmthR3h3ZEhoOGdJU0lqSkNVbUp5Z3BLaXNzTFM0dk1ERXlNelExTmpjNE9UbzdQRDArUHc9PSJ9&sig=O2/bcw5h2hlgtsWNICgevWgbLvvm3Miw1qkgukfphF4=";

/// Handle ⟨C⟩: the symmetric key `aead`.
pub const C: &str = "sr=eyJrZXlfaWQiOnsiS2V5IjoiYWVhZCJ9LCJub25jZSI6IkFBRUNBd1FGQmdjSUNRb0xEQTBPRHhBUkVoTVVGUllYR0JrYUd4d2RIaDhnSVNJakpDVW1KeWdwS2lzc0xTNHZNREV5TXpRMU5qYzRPVG83UEQwK1B3PT0ifQ==&sig=8wLfr3zV4JAb4lOsQIqBWJzrYcW6QjPK8g1hPwMHtKE=";

/// Handle ⟨D⟩: derived from ⟨A⟩ with the data `mod1:gen1:primary`.
pub const D: &str = "sr=eyJrZXlfaWQiOnsiRGVyaXZlZCI6WyJzcj1leUpyWlhsZmFXUWlPbnNpUzJWNUlqb2lhVzF3SW4wc0ltNXZibU5sSWpvaVFVRkZRMEYzVVVaQ1oyTkpRMUZ2VEVSQk1FOUVlRUZTUldoTlZVWlNXVmhIUW10aFIzaDNaRWhvT0dkSlUwbHFTa05WYlVwNVozQkxhWE56VEZNMGRrMUVSWGxOZWxFeFRtcGpORTlVYnpkUVJEQXJVSGM5UFNKOSZzaWc9TVlrSEhDVDNvL3NndE8vZE93QzBQVnBxNWMwaTh1WEZPenpOR0tadTNJZz0iLFsxMDksMTExLDEwMCw0OSw1OCwxMDMsMTAxLDExMCw0OSw1OCwxMTIsMTE0LDEwNSwxMDksOTcsMTE0LDEyMV1dfSwibm9uY2UiOiJBQUVDQXdRRkJnY0lDUW9MREEwT0R4QVJFaE1VRlJZWEdCa2FHeHdkSGg4Z0lTSWpKQ1VtSnlncEtpc3NMUzR2TURFeU16UTFOamM0T1RvN1BEMCtQdz09In0=&sig=F9S07DqQqda/s2DcQZReuGl/3sJgYlzb0TCzyaY8FtM=";

/// Handle ⟨U⟩: the symmetric key `ké"/` with a line feed at the end.
pub const U: &str = "sr=eyJrZXlfaWQiOnsiS2V5Ijoia8OpXCIvXG4ifSwibm9uY2UiOiJBQUVDQXdRRkJnY0lDUW9MREEwT0R4QVJFaE1VRlJZWEdCa2FHeHdkSGg4Z0lTSWpKQ1VtSnlncEtpc3NMUzR2TURFeU16UTFOamM0T1RvN1BEMCtQdz09In0=&sig=IpKYVh1Jl6ajqmu4anedM0J0sMnztU3FWMn7y1rjwPg=";

/// The nonce in all of them.
pub const NONCE: &str =
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

/// Puts the keys of the fixture into a root and configures the Keys Service for it.
///
/// # Panics
/// When the files cannot be written.
pub fn install(root: &Root) {
    let counting = |from: u8| (from..from + 32).collect::<Vec<u8>>();
    write_key(root, HANDLE_KEY, &counting(0));
    write_key(root, "imp", b"test-symmetric-key");
    write_key(root, "aead", &counting(0x20));
    write_key(root, "kp", &pair().private_key_to_pem_pkcs8().expect("PEM"));
    root.keyd_config(PRINCIPAL);
}

/// The key pair `kp`, which RFC 6979 publishes in A.2.5.
///
/// # Panics
/// Never.
#[must_use]
pub fn pair() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
    let scalar = BigNum::from_hex_str(PAIR_SCALAR).expect("a number");
    let mut context = BigNumContext::new().expect("memory");
    let mut point = EcPoint::new(&group).expect("memory");
    point
        .mul_generator2(&group, &scalar, &mut context)
        .expect("a point of the curve");
    let key = EcKey::from_private_components(&group, &scalar, &point).expect("a key pair");
    PKey::from_ec_key(key).expect("a key pair")
}

/// The private number of [`pair`].
const PAIR_SCALAR: &str = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";

/// Writes the file of a key.
///
/// # Panics
/// When that fails.
pub fn write_key(root: &Root, id: &str, bytes: &[u8]) {
    root.write(
        root.key_file(id)
            .strip_prefix(root.path())
            .expect("a path under the root"),
        bytes,
    );
}

/// Signs the text of a handle with the fixture's handle key, independently of the code under test.
///
/// # Panics
/// Never.
#[must_use]
pub fn handle(text: &str) -> String {
    let key: Vec<u8> = (0..32).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is a key");
    mac.update(text.as_bytes());
    let signature = mac.finalize().into_bytes();
    format!(
        "sr={}&sig={}",
        Base64::encode_string(text.as_bytes()),
        Base64::encode_string(&signature)
    )
}

/// Handle ⟨N⟩: derived from ⟨D⟩, which is refused.
#[must_use]
pub fn nested() -> String {
    handle(&format!(
        "{{\"key_id\":{{\"Derived\":[\"{D}\",[120]]}},\"nonce\":\"{NONCE}\"}}"
    ))
}

/// The text that a handle signs.
///
/// # Panics
/// When it is no handle.
#[must_use]
pub fn handle_text(handle: &str) -> String {
    let sr = handle
        .strip_prefix("sr=")
        .and_then(|rest| rest.split_once("&sig="))
        .expect("the usual form of a handle")
        .0;
    String::from_utf8(Base64::decode_vec(sr).expect("standard Base64")).expect("UTF-8")
}

/// A request body for `POST /sign` with HMAC-SHA256; `message` is encoded here.
#[must_use]
pub fn sign_body(handle: &str, message: &[u8]) -> Value {
    json!({
        "keyHandle": handle,
        "algorithm": "HMAC-SHA256",
        "parameters": { "message": Base64::encode_string(message) },
    })
}

/// HMAC-SHA256 in Base64, made independently of the code under test.
///
/// # Panics
/// Never.
#[must_use]
pub fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(message);
    Base64::encode_string(&mac.finalize().into_bytes())
}

/// The newest version of the Keys Service's API that release 1.6.0 has.
pub const VERSION: &str = "api-version=2021-05-01";

/// A running Keys Service on a root of its own.
#[derive(Debug)]
pub struct Keyd {
    /// The service.
    pub daemon: Daemon,
    /// Its device.
    pub root: Root,
}

impl Keyd {
    /// With the keys and the principal of the fixture.
    #[must_use]
    pub fn with_fixture() -> Self {
        let root = Root::new();
        install(&root);
        Self::on(root)
    }

    /// Without keys; `config` goes into the main file.
    #[must_use]
    pub fn empty(config: &str) -> Self {
        Self::on(Root::with_keyd(config))
    }

    /// On whatever the root holds.
    #[must_use]
    pub fn on(root: Root) -> Self {
        Self::launch(root, |launch| launch)
    }

    /// As [`Self::on`], started in another way.
    #[must_use]
    pub fn launch(root: Root, change: impl FnOnce(Launch) -> Launch) -> Self {
        let daemon = change(Launch::service("aziot-keyd", &root)).start();
        Self { daemon, root }
    }

    /// Stops the service and starts it again.
    ///
    /// # Panics
    /// When it does not stop cleanly.
    #[must_use]
    pub fn restart(self) -> Self {
        self.daemon.stop();
        Self::on(self.root)
    }

    /// A connection as the user the tests run as.
    #[must_use]
    pub fn connect(&self) -> Client {
        self.daemon.connect()
    }

    /// A connection as another user.
    ///
    /// # Panics
    /// When that is not possible; ask [`crate::users::can_change`] first.
    #[must_use]
    pub fn connect_as(&self, uid: u32) -> Client {
        self.daemon.connect_as(uid)
    }

    /// `GET` a path under [`VERSION`].
    pub fn get(&self, path: &str) -> Response {
        checked(
            self.connect()
                .exchange(request("GET", &format!("{path}?{VERSION}"), None)),
        )
    }

    /// `POST` a JSON body to a path under [`VERSION`].
    pub fn post(&self, path: &str, body: &Value) -> Response {
        checked(
            self.connect()
                .exchange(request("POST", &format!("{path}?{VERSION}"), Some(body))),
        )
    }

    /// `DELETE` with a JSON body on a path under [`VERSION`].
    pub fn delete(&self, path: &str, handle: &str) -> Response {
        let body = json!({ "keyHandle": handle });
        checked(self.connect().exchange(request(
            "DELETE",
            &format!("{path}?{VERSION}"),
            Some(&body),
        )))
    }

    /// Has a key generated and returns its handle.
    pub fn create(&self, id: &str) -> String {
        self.post("/key", &json!({ "keyId": id, "usage": "derive,sign" }))
            .member("keyHandle")
    }

    /// Imports a key and returns its handle.
    pub fn import(&self, id: &str, bytes: &[u8]) -> String {
        let body = json!({ "keyId": id, "keyBytes": Base64::encode_string(bytes), "usage": "derive,sign" });
        self.post("/key", &body).member("keyHandle")
    }

    /// Makes the handle of a derived key.
    pub fn derive(&self, handle: &str, data: &[u8]) -> String {
        let body =
            json!({ "baseKeyHandle": handle, "derivationData": Base64::encode_string(data) });
        self.post("/derivedkey", &body).member("keyHandle")
    }

    /// Exports a derived key.
    pub fn export(&self, handle: &str) -> Response {
        self.post("/derivedkey/export", &json!({ "keyHandle": handle }))
    }

    /// Signs with HMAC-SHA256.
    pub fn sign(&self, handle: &str, message: &[u8]) -> Response {
        self.post("/sign", &sign_body(handle, message))
    }
}

fn checked(response: Response) -> Response {
    response.assert_framing();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signer_agrees_with_the_published_handles() {
        for published in [A, B, C, D, U] {
            assert_eq!(handle(&handle_text(published)), published);
        }
        assert_eq!(nested().len(), 1024);
    }
}
