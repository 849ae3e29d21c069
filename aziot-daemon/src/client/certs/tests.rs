use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// Limits so long that no test reaches them, and short pauses.
fn timing() -> Timing {
    Timing {
        sibling: LONG,
        retry_pause: Duration::from_millis(20),
        ..Timing::STANDARD
    }
}

/// What a scripted service does with one connection.
#[derive(Clone)]
enum Act {
    /// Reads the request and gives this response.
    Answer(String),
    /// Reads the request and closes the connection.
    Close,
    /// Reads the request and says nothing until the client hangs up.
    Silence,
}

/// A service that treats one connection after the other, and tells what it was asked.
struct Service {
    _dir: TempDir,
    path: PathBuf,
    heard: Receiver<String>,
}

impl Service {
    fn new(script: Vec<Act>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("certd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            for act in script {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read_request(&mut stream);
                if tell.send(request).is_err() {
                    return;
                }
                match act {
                    Act::Answer(text) => stream.write_all(text.as_bytes()).unwrap(),
                    Act::Close => {}
                    Act::Silence => while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {},
                }
            }
        });
        Self {
            _dir: dir,
            path,
            heard,
        }
    }

    fn client(&self, retries: u32) -> CertsClient {
        CertsClient::new(&self.path, retries, timing())
    }

    /// All requests so far.
    fn requests(&self) -> Vec<String> {
        self.heard.try_iter().collect()
    }
}

/// Head and body.
fn read_request(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the request is incomplete: {text:?}");
        text.extend(&piece[..read]);
        let so_far = String::from_utf8_lossy(&text);
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return so_far.into_owned();
        }
    }
}

const JSON: &str = "content-type: application/json\r\n";

/// A response with a body.
fn answer(status: &str, fields: &str, body: &str) -> Act {
    let length = body.len();
    Act::Answer(format!(
        "HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    ))
}

fn created() -> Act {
    answer("201 Created", JSON, r#"{"pem":"hello"}"#)
}

fn ok() -> Act {
    answer("200 OK", JSON, r#"{"pem":"hello"}"#)
}

fn gone() -> Act {
    Act::Answer("HTTP/1.1 204 No Content\r\n\r\n".to_owned())
}

fn busy() -> Act {
    answer("429 Too Many Requests", "", "")
}

#[test]
fn cs_52_requests_and_answers() {
    let service = Service::new(vec![created(), created(), created(), ok(), gone()]);
    let client = service.client(0);
    assert_eq!(client.create("my-server", "csr\n", None).unwrap(), "hello");
    let issuer = Issuer {
        cert_id: "local-ca",
        private_key_handle: "sr=x&sig=y",
    };
    assert_eq!(client.create("", "csr", Some(issuer)).unwrap(), "hello");
    client.import("x", "hello").unwrap();
    assert_eq!(client.get("a/b").unwrap(), "hello");
    client.delete("x").unwrap();
    let post = |body: &str| {
        format!(
            "POST /certificates?api-version=2020-09-01 HTTP/1.1\r\ncontent-type: application/json\r\nhost: \
             certd.sock\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(
        service.requests(),
        [
            post(r#"{"certId":"my-server","csr":"csr\n","issuer":null}"#),
            post(
                r#"{"certId":"","csr":"csr","issuer":{"certId":"local-ca","privateKeyHandle":"sr=x&sig=y"}}"#
            ),
            "PUT /certificates/x?api-version=2020-09-01 HTTP/1.1\r\ncontent-type: application/json\r\nhost: \
             certd.sock\r\ncontent-length: 15\r\n\r\n{\"pem\":\"hello\"}"
                .to_owned(),
            "GET /certificates/a%2Fb?api-version=2020-09-01 HTTP/1.1\r\nhost: certd.sock\r\n\r\n".to_owned(),
            "DELETE /certificates/x?api-version=2020-09-01 HTTP/1.1\r\nhost: certd.sock\r\n\r\n".to_owned(),
        ]
    );
}

#[test]
fn cs_52_ids_are_one_segment() {
    for (id, segment) in [
        ("device-id", "device-id"),
        ("a b", "a%20b"),
        ("é", "%C3%A9"),
        ("a/b", "a%2Fb"),
        ("a%41", "a%2541"),
        ("\0\x7f\"<>`#?{}", "%00%7F%22%3C%3E%60%23%3F%7B%7D"),
        ("a+b", "a+b"),
    ] {
        assert_eq!(
            target(id),
            format!("/certificates/{segment}?api-version=2020-09-01"),
            "{id:?}"
        );
    }
}

#[test]
fn cs_52_refusals() {
    let service = Service::new(vec![
        answer(
            "400 Bad Request",
            JSON,
            r#"{"message":"parameter \"id\" has an invalid value\ncaused by: not found"}"#,
        ),
        answer(
            "500 Internal Server Error",
            "",
            r#"{"message":"internal error"}"#,
        ),
        answer("503 Service Unavailable", "", ""),
        answer("502 Bad Gateway", "", "oops"),
        ok(),
        created(),
        answer(
            "200 OK",
            "content-type: text/plain\r\n",
            r#"{"pem":"hello"}"#,
        ),
        answer("201 Created", "", "{}"),
        ok(),
        answer("404 Not Found", "", ""),
    ]);
    let client = service.client(3);
    let missing = client.get("x").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "parameter \"id\" has an invalid value\ncaused by: not found"
    );
    assert!(missing.is_not_found());
    let mut texts = vec![];
    for outcome in [
        client.create("x", "csr", None),
        client.get("x"),
        client.get("x"),
        client.create("x", "csr", None),
        client.get("x"),
        client.get("x"),
        client.import("x", "text").map(|()| String::new()),
        client.delete("x").map(|()| String::new()),
        client.delete("x").map(|()| String::new()),
    ] {
        let error = outcome.unwrap_err();
        assert!(!error.is_not_found(), "{error}");
        texts.push(error.to_string());
    }
    let senseless = "the Certificates Service gave an answer that makes no sense: ";
    assert_eq!(
        texts,
        [
            "internal error".to_owned(),
            "HTTP error 503 Service Unavailable".to_owned(),
            format!("{senseless}status 502 Bad Gateway, and expected value at line 1 column 1"),
            "Expected one of [201], got 200 OK".to_owned(),
            "Expected one of [200], got 201 Created".to_owned(),
            format!("{senseless}invalid Content-Type; expected JSON"),
            format!("{senseless}missing field `pem` at line 1 column 2"),
            "unexpected HTTP status code: 200 OK".to_owned(),
            "HTTP error 404 Not Found".to_owned(),
        ]
    );
    assert_eq!(service.requests().len(), 10, "statuses are not retried");
}

#[test]
fn cs_52_lost_answers_are_asked_for_again() {
    let service = Service::new(vec![Act::Close, Act::Close, ok()]);
    let begin = Instant::now();
    assert_eq!(service.client(2).get("x").unwrap(), "hello");
    assert!(begin.elapsed() >= Duration::from_millis(40), "two pauses");
    assert_eq!(service.requests().len(), 3);

    let service = Service::new(vec![Act::Close, Act::Close]);
    let error = service.client(1).import("x", "text").unwrap_err();
    assert!(matches!(error, CertsError::Transport(_)), "{error}");
    assert_eq!(service.requests().len(), 2);

    let client = CertsClient::new(Path::new("/nonexistent/certd.sock"), 0, timing());
    let error = client.get("x").unwrap_err().to_string();
    assert!(
        error.contains("systemctl status aziot-certd") && error.contains("/nonexistent/certd.sock"),
        "{error}"
    );
}

#[test]
fn db_36_a_creation_is_not_repeated() {
    let service = Service::new(vec![Act::Close, created()]);
    let error = service.client(9).create("x", "csr", None).unwrap_err();
    assert!(matches!(error, CertsError::Transport(_)), "{error}");
    assert_eq!(service.requests().len(), 1);
}

#[test]
fn db_36_a_creation_may_take_longer_than_anything_else() {
    let short = Duration::from_millis(100);
    let patient = Timing {
        sibling: short,
        ..timing()
    };
    let service = Service::new(vec![Act::Silence, Act::Silence]);
    let begin = Instant::now();
    let error = CertsClient::new(&service.path, 1, patient)
        .get("x")
        .unwrap_err();
    assert!(
        error.to_string().contains("deadline has elapsed"),
        "{error}"
    );
    assert!(begin.elapsed() >= short * 2, "two attempts");
    let scaled = Timing {
        scale: 0.01,
        ..patient
    };
    let service = Service::new(vec![Act::Silence]);
    let begin = Instant::now();
    let error = CertsClient::new(&service.path, 1, scaled)
        .create("x", "csr", None)
        .unwrap_err();
    assert!(
        error.to_string().contains("deadline has elapsed"),
        "{error}"
    );
    // A hundredth of 90 seconds, whatever the limit of other operations is.
    assert!(begin.elapsed() >= Duration::from_millis(900));
}

#[test]
fn cs_52_throttling_schedule() {
    let service = Service::new(vec![busy(), busy(), busy(), busy(), ok()]);
    let faster = Timing {
        scale: 0.0002,
        ..timing()
    };
    let begin = Instant::now();
    let client = CertsClient::new(&service.path, 0, faster);
    assert_eq!(client.get("x").unwrap(), "hello");
    assert!(
        begin.elapsed() >= Duration::from_secs(60 + 120 + 180 + 300).mul_f64(0.0002),
        "{:?}",
        begin.elapsed()
    );
    let service = Service::new(vec![busy(); 6]);
    let client = CertsClient::new(&service.path, 9, faster);
    let error = client.get("x").unwrap_err();
    assert_eq!(error.to_string(), "429: Too many requests");
    assert_eq!(service.requests().len(), 5);
}

#[test]
fn requests_that_are_too_long_are_not_sent() {
    let client = CertsClient::new(Path::new("/nonexistent/certd.sock"), 0, timing());
    let long = "x".repeat(BODY_CERTIFICATES);
    let error = client.import("x", &long).unwrap_err();
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    // Every character takes six in JSON, and it fits nevertheless.
    let escaped = "\u{1}".repeat(BODY_CERTIFICATES / 7);
    let error = client.import("x", &escaped).unwrap_err();
    assert!(matches!(error, CertsError::Transport(_)), "{error}");
}
