//! Blocking HTTP/1.1, one request per connection, with a deadline on every step: over Unix sockets, and over whatever else
//! is a [`Wire`].

mod error;
mod exchange;
mod unix;
mod wire;

pub use error::{Error, Kind, Step};
pub use exchange::{Bounds, Request, Response, exchange};
pub use unix::{Call, Patience, Peer, UnixClient};
pub use wire::{Deadline, Want, Wire, connect_unix, wait};
