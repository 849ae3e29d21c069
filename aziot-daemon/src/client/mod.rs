//! Clients for worker threads: blocking HTTP/1.1 with a deadline on every step, to the sibling services over Unix sockets
//! and to the cloud over TLS.

mod error;
mod exchange;
mod keys;
mod resolve;
mod tls;
mod unix;
mod wire;

pub use error::{Error, Kind, Step};
pub use exchange::{Request, Response};
pub use keys::{Handle, KeysClient, KeysError};
pub use tls::TlsClient;
pub use unix::{Patience, UnixClient};
