//! Capacities of the core, each with its reason.
//!
//! Nothing is ever truncated: exceeding one of these is a specific error that names the limit.
//! Sizes are in bytes unless the item says otherwise.

/// Longest request head (request line and header fields) a server accepts; beyond it, status 431.
///
/// A request target of [`TARGET`] bytes has to fit, with room for the header fields of any
/// reasonable client.
pub const HEAD: usize = 72 * 1024;

/// Most header fields in one request head; one more is status 431 (transport vector 40).
pub const HEADER_FIELDS: usize = 100;

/// Most header fields in one response head that the client side accepts.
///
/// The services send four; cloud gateways and proxies add their own, rarely more than twenty.
pub const RESPONSE_HEADER_FIELDS: usize = 64;

/// Longest response head the client side accepts.
///
/// Twice what common web servers allow themselves for one header block.
pub const RESPONSE_HEAD: usize = 16 * 1024;

/// Longest response head the server side writes.
///
/// Deployed clients read the whole head with one read of at most this many bytes.
pub const WRITTEN_RESPONSE_HEAD: usize = 512;

/// Longest request target; one byte more is status 414 (transport vector 41).
pub const TARGET: usize = 65_534;

/// Most bytes of chunk extensions, or of trailer fields, in one chunked body.
///
/// Both are read and ignored, so they only have to be bounded.
pub const CHUNK_OVERHEAD: usize = 16 * 1024;

/// Largest request body of the Keys Service.
///
/// Existing users encrypt whole files of a few megabytes; larger bodies are status 413.
pub const BODY_KEYS: usize = 8 * 1024 * 1024;

/// Largest request body of the Certificates Service: far above any certificate bundle.
pub const BODY_CERTIFICATES: usize = 1024 * 1024;

/// Largest request body of the Identity Service: its requests are a few hundred bytes.
pub const BODY_IDENTITY: usize = 1024 * 1024;

/// Largest request body of the TPM Service: a credential blob and its key are below 4 KiB.
pub const BODY_TPM: usize = 64 * 1024;

/// All request bodies that one process holds at the same time, together.
///
/// Two of the largest; what a 64 MB gateway can spare.
pub const BODY_TOTAL: usize = 16 * 1024 * 1024;

/// Largest response body the client side accepts from a cloud service or a sibling.
///
/// A hub's list of all modules of a device is the longest legitimate answer.
pub const RESPONSE_BODY: usize = 4 * 1024 * 1024;

/// Largest response body accepted from an EST server: far above any certificate chain.
pub const RESPONSE_EST: usize = 1024 * 1024;

/// Nesting depth of a JSON document: arrays and objects may be nested one less than this.
///
/// The number is the one of the decoder that existing clients were tested with. The reader keeps
/// one bit per level, so a deep document costs no stack.
pub const JSON_DEPTH: u8 = 128;

/// Most keys, and most tokens, that the Keys Service lists in its status; how many there are beyond it is told.
///
/// A device has a few dozen keys.
pub const STATUS_ENTRIES: usize = 512;

/// Bytes of all ids, places and remarks in the status of the Keys Service together.
///
/// Even with every character escaped the answer stays below [`RESPONSE_BODY`].
pub const STATUS_TEXT: usize = 256 * 1024;
