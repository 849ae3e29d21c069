//! Clients for worker threads: blocking HTTP/1.1 with a deadline on every step. The one of the Keys Service, and the exchange
//! of requests and responses, are those of `aziot-keys-client`; here are the way to the cloud, over TLS
//! and through proxies, and what it needs.

mod key_pair;
mod proxy;
mod resolve;
mod signer;
mod tls;
mod trust;
mod wire;

pub use aziot_keys_client::transport::{Error, Kind, Patience, Request, Response, Step};
pub use aziot_keys_client::{Client as KeysClient, Deadlines, Error as KeysError, KeyHandle};
pub use key_pair::{KeyError, private_key};
pub use proxy::{Proxies, ProxyError};
pub use signer::{RemoteSigner, SignError};
pub use tls::{Identity, Origin, TlsClient};
pub use trust::Trust;
