//! One request at a time, to prepare what is measured.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than the generation of any key pair takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The bytes of a `POST` with a JSON body.
pub fn request(path: &str, body: &str) -> String {
    format!(
        "POST {path}?api-version=2021-05-01 HTTP/1.1\r\nhost: keyd.sock\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a `POST` over a connection of its own, and answers the body of a 200.
pub fn post(socket: &Path, path: &str, body: &str) -> Result<String, String> {
    let fail = |e: std::io::Error| format!("POST {path}: {e}");
    let mut stream = UnixStream::connect(socket).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    let bytes = request(path, body).replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    stream.write_all(bytes.as_bytes()).map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(format!("POST {path}: {answer}")),
    }
}

/// The handle in the answer to an operation that makes or loads a key.
pub fn handle(socket: &Path, path: &str, body: &str) -> Result<String, String> {
    let answer = post(socket, path, body)?;
    let handle = answer.strip_prefix(r#"{"keyHandle":""#);
    let handle = handle.and_then(|rest| rest.strip_suffix(r#""}"#));
    handle
        .map(str::to_owned)
        .ok_or_else(|| format!("POST {path}: no handle in {answer}"))
}
