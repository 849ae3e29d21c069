//! The daemon: an event loop, and the services that plug into it.
